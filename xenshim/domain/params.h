// HVM parameters: their values, and what setting one means. Who may is said by the release that the
// guest was promised (xenshim/abi/hvm_params.h).
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "vmm/base/saved.h"
#include "xenshim/abi/errno.h"
#include "xenshim/abi/profile.h"

namespace xenshim {

struct ParamsState {
    static constexpr vmm::saved::Section kSection{"xen.params", 1};

    std::vector<std::uint64_t> values;  // by index: all that the release has

    bool operator==(const ParamsState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [values] = self;
        return std::tuple{vmm::saved::field(1, "values", values)};
    }
};

class Params {
  public:
    using State = ParamsState;

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

    // Of callbacks only the value is here: which one is in force is the domain's.
    State snapshot() const;
    vmm::Expected<void, std::string> adopt(const State& state);

  private:
    const abi::Profile& profile_;
    mutable std::mutex mutex_;
    std::array<std::uint64_t, 64> values_{};
};

}  // namespace xenshim
