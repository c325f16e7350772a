// HVM parameters: what a guest may read and write of its own, by the release that it was promised
// (hvm_allow_set_param, hvm_allow_get_param, and until 4.5 do_hvm_op itself; measured on 4.17.7).
#pragma once

#include <array>
#include <cstdint>
#include <mutex>

#include "xenshim/abi/errno.h"
#include "xenshim/abi/profile.h"

namespace xenshim {

class Params {
  public:
    explicit Params(const abi::Profile& profile) : profile_(profile) {}

    // What a guest's set means beyond the value itself.
    enum class Effect { kNone, kCallbackChanged, kCrash };

    // Whether the index exists at all: checked before anything else about a call.
    bool exists(std::uint32_t index) const { return index < profile_.hvm_params; }
    GuestResult<std::uint64_t> get(std::uint32_t index) const;
    GuestResult<Effect> set(std::uint32_t index, std::uint64_t value);

    // The builder's own access, without rules.
    void put(std::uint32_t index, std::uint64_t value);
    std::uint64_t peek(std::uint32_t index) const;

  private:
    const abi::Profile& profile_;
    mutable std::mutex mutex_;
    std::array<std::uint64_t, 64> values_{};
};

}  // namespace xenshim
