// The hypercalls and their sub-ops by name, and under which profiles each exists for an HVM or PVH
// guest. One table: the dispatcher asks it what exists, traces and `regs` ask it for names, and
// docs/hypercalls.md is printed from it. What an operation does stands in xenshim/hypercall.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "xenshim/abi/profile.h"

namespace xenshim::abi {

// What a plain guest gets of an operation that exists.
enum class Standing : std::uint8_t {
    kGuest,       // does its work on the guest itself
    kPrivileged,  // is refused as Xen refuses those without the privilege
    kAbsent,      // -ENOSYS to every HVM guest, whatever its privilege
};

// What else has to hold beside the release.
enum class Condition : std::uint8_t {
    kNone,
    kHvmDeviceOps,      // Profile::hvm_device_ops
    kLegacyWindows,     // the VM has XenServer's legacy quirks: its own answer, not the profile's
    kPrivateMemoryOps,  // Profile::private_memory_ops
    kEvtchnReset,       // Profile::evtchn_reset_continues
};

inline constexpr Release kForever = 0xffff;

struct Operation {
    std::uint32_t hypercall;
    std::uint32_t sub_op;
    std::string_view name;  // as in Xen's public headers
    Release since = 0;
    Release until = kForever;  // the first release without it
    Standing standing = Standing::kGuest;
    Condition condition = Condition::kNone;
    // Where our answer to a guest is knowingly not Xen's: what, and why.
    std::string_view exception = {};
    Release refused_until = 0;  // the first release that does it for a guest
};

// One whose number stands in the caller's memory: to a guest it is what the hypercall is.
struct ToolOperation {
    std::uint32_t hypercall;
    std::uint32_t sub_op;
    std::string_view name;
};

struct Hypercall {
    std::uint32_t number;
    std::string_view name;
    Standing standing = Standing::kGuest;
    std::string_view exception = {};
};

std::span<const Hypercall> hypercall_names();  // by number
std::span<const Operation> operations();       // by hypercall, then sub-op
std::span<const ToolOperation> tool_operations();

const Hypercall* find_hypercall(std::uint64_t number);
// Nothing when no release ever had it.
const Operation* find_operation(std::uint64_t hypercall, std::uint64_t sub_op);
// What `operation` is to a guest under `profile`: kAbsent when it does not exist there.
Standing standing_of(const Profile& profile, const Operation& operation);
Standing standing_of(const Profile& profile, const Hypercall& hypercall);
// What a cursor on memory_op's `op`, which has none, is refused with; nothing: it is ignored, or
// the operation has one or looks for itself.
std::optional<Errno> stray_cursor_refusal(const Profile& profile, std::uint64_t op);
// A dm_op's operation, which stands in the guest's buffer and not in a register; empty: none that
// we know.
std::string_view dm_operation_name(std::uint32_t op);
// Whether sub-op `sub_op` (decoded, without cursor) gets as far as its handler.
bool exists(const Profile& profile, std::uint64_t hypercall, std::uint64_t sub_op);

}  // namespace xenshim::abi
