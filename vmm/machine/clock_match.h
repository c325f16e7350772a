// How far one clock is ahead of another, from looks at the one between two looks at the other.
// A look that was interrupted in the middle bounds the answer badly, and never makes it worse: what
// was known is moved only as far as the look proves it wrong.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace vmm {

class ClockMatch {
  public:
    // `theirs` was read after `before` and before `after` of ours, ns. One thread.
    void look(std::uint64_t before, std::uint64_t theirs, std::uint64_t after) {
        const auto least = static_cast<std::int64_t>(theirs - after);
        const auto most = static_cast<std::int64_t>(theirs - before);
        const std::int64_t known = offset_.load(std::memory_order_relaxed);
        offset_ = seen_ ? std::clamp(known, least, most) : least + (most - least) / 2;
        seen_ = true;
    }
    // What theirs shows when ours shows `now`. Any thread.
    std::uint64_t theirs(std::uint64_t now) const {
        return now + static_cast<std::uint64_t>(offset_.load());
    }

  private:
    std::atomic<std::int64_t> offset_{0};
    bool seen_ = false;
};

}  // namespace vmm
