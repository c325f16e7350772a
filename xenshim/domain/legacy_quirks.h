// What XenServer's own patches did for its old Windows drivers (until 7.6): two hvm_ops, four
// meanings of add_to_physmap's space, one HVM parameter. Whether a VM has them is decided when it
// is made; whether its driver has shown itself is latched while it runs. Both are the VM's state.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <tuple>

#include "vmm/base/result.h"
#include "vmm/base/saved.h"
#include "xenshim/abi/profile.h"

namespace xenshim {

enum class QuirkMode : std::uint8_t {
    // The numbers are saved ones.
    kAuto = 0,       // as the profile has it
    kXenServer = 1,  // under any profile
    kNone = 2,       // under no profile
};

struct LegacyQuirksState {
    static constexpr vmm::saved::Section kSection{"xen.legacy_quirks", 1};

    std::uint8_t mode = 0;  // 0: as the profile has it, 1: XenServer's, 2: none
    bool latched = false;

    bool operator==(const LegacyQuirksState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [mode, latched] = self;
        return std::tuple{vmm::saved::field(1, "mode", mode),
                          vmm::saved::field(2, "latched", latched)};
    }
};

struct LegacyQuirks {
    using State = LegacyQuirksState;

    QuirkMode mode = QuirkMode::kAuto;
    // The driver said its version, or asked for a space that only those drivers know: from now on
    // space 3 is the old vlapic, not a range.
    std::atomic<bool> latched{false};

    State snapshot() const { return {.mode = static_cast<std::uint8_t>(mode), .latched = latched}; }
    // The mode is the VM's configuration, which must be the same.
    vmm::Expected<void, std::string> adopt(const State& state) {
        if (state.mode != static_cast<std::uint8_t>(mode)) {
            return vmm::Failure{"mode: not as this VM is configured"};
        }
        if (state.latched && mode == QuirkMode::kNone) {
            return vmm::Failure{"latched: this VM has no quirks"};
        }
        latched = state.latched;
        return {};
    }
};

// The profile as this VM has it: its dialect and its quirks.
inline abi::Profile with_quirks(abi::Profile profile, QuirkMode mode) {
    if (mode != QuirkMode::kAuto) profile.legacy_windows = mode == QuirkMode::kXenServer;
    return profile;
}

}  // namespace xenshim
