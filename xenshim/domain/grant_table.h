// The grant table's frames and version: what a guest needs to set up its table. Version 1.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

#include "xenshim/abi/errno.h"
#include "xenshim/domain/ports.h"

namespace xenshim {

class GrantTable {
  public:
    std::uint32_t frames() const { return frames_.load(); }
    explicit GrantTable(std::uint32_t max_frames)
        : max_frames_(max_frames < kMaxGrantFrames ? max_frames : kMaxGrantFrames) {}
    std::uint32_t max_frames() const { return max_frames_; }
    std::uint32_t version() const { return 1; }

    // Makes at least `count` frames; false when that is more than there may be.
    bool grow_to(std::uint32_t count) {
        if (count > max_frames_) return false;
        std::uint32_t now = frames_.load();
        while (now < count && !frames_.compare_exchange_weak(now, count)) {
        }
        return true;
    }

    // The own page behind a frame for XENMAPSPACE_grant_table, growing the table to hold it.
    GuestResult<std::uint32_t> page_of(std::uint32_t frame) {
        if (frame >= max_frames_ || !grow_to(frame + 1)) return refuse(XEN_EINVAL);
        return kFirstGrantPage + frame;
    }

    // Version 2 does not exist here (as on a Xen started with gnttab=max-ver:1).
    GuestResult<void> set_version(std::uint32_t wanted) {
        if (wanted == 2) return refuse(XEN_ENOSYS);
        if (wanted != 1) return refuse(XEN_EINVAL);
        return {};
    }

  private:
    const std::uint32_t max_frames_;
    std::atomic<std::uint32_t> frames_{1};
};

}  // namespace xenshim
