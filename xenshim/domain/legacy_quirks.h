// What XenServer's own patches did for its old Windows drivers (until 7.6): two hvm_ops, four
// meanings of add_to_physmap's space, one HVM parameter. Whether a VM has them is decided when it
// is made; whether its driver has shown itself is latched while it runs. Both are the VM's state.
#pragma once

#include <atomic>
#include <cstdint>

#include "xenshim/abi/profile.h"

namespace xenshim {

enum class QuirkMode : std::uint8_t {
    kAuto,       // as the profile has it
    kXenServer,  // under any profile
    kNone,       // under no profile
};

struct LegacyQuirks {
    QuirkMode mode = QuirkMode::kAuto;
    // The driver said its version, or asked for a space that only those drivers know: from now on
    // space 3 is the old vlapic, not a range.
    std::atomic<bool> latched{false};
};

// The profile as this VM has it: its dialect and its quirks.
inline abi::Profile with_quirks(abi::Profile profile, QuirkMode mode) {
    if (mode != QuirkMode::kAuto) profile.legacy_windows = mode == QuirkMode::kXenServer;
    return profile;
}

}  // namespace xenshim
