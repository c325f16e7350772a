// Continuations: how far a preempted hypercall came, written where Xen of the VM's profile keeps
// it. A handler reports units; this engine alone encodes; the transport alone writes registers.
// Nothing about an operation in flight lives anywhere else, so that a guest may park the frame in
// its memory, resume it on another vCPU or another host, edit it or drop it.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "xenshim/abi/call.h"
#include "xenshim/abi/place.h"
#include "xenshim/abi/profile.h"

namespace xenshim::abi {

// The hypercall that a request names: until 4.7 Xen looked at EAX alone, whatever a 64-bit caller's
// RAX held above it. A call that stops leaves this number in all of RAX, and not what the caller
// had there, on every Xen (`regs->eax = op`, a 64-bit member).
inline std::uint64_t hypercall_number(const Profile& profile, const Request& request) {
    return profile.wide_numbers ? request.number : request.number & UINT32_MAX;
}

// How an operation's progress is encoded (xen-abi: classes of continuation state), and from where
// its units count.
enum class ContinuationClass : std::uint8_t {
    kNone,             // never continues
    kShiftedCursor,    // above the sub-op's bits in argument 0; from the operation's start
    kUnshiftedCursor,  // in the high bits of argument 0 as it is; from the operation's start
    kPointerAndCount,  // pointer argument advanced, count argument reduced; from this entry's start
    kStruct,           // the argument structure is advanced; from this entry's start
    kOtherSubOp,       // another sub-op, the cursor in the domain; units do not show
    kRestart,          // the same call again; units do not show
};

// A member of the guest's structure that moves along: it grows by `per_unit` for each unit done in
// this entry (subtracts when negative).
struct StructStep {
    enum class Counts : std::uint8_t {
        kUnits,      // the units of this entry are added
        kGroups,     // Continue::groups_done is added
        kPlaceInIt,  // the units become the member's value
    };
    // What it says to who looks at a call that stands still.
    enum class Shows : std::uint8_t {
        kNothing,  // where the next unit is
        kDone,     // how many are done (of the unit under way, where groups are counted too)
        kLeft,     // how many are still to do
    };
    Place member;
    std::int8_t per_unit_32 = 0, per_unit_64 = 0;
    Counts counts = Counts::kUnits;
    Shows shows = Shows::kNothing;
};

struct ContinuationRule {
    ContinuationClass kind = ContinuationClass::kNone;
    // Units come in steps of this many: a cursor without a shift cannot say others.
    std::uint32_t granularity = 1;
    // kPointerAndCount: which arguments, and the size of one unit. kStruct: the structure's
    // argument.
    std::uint8_t pointer_arg = 0;
    std::uint8_t count_arg = 0;
    Sizes unit{};
    std::uint32_t other_sub_op = 0;  // kOtherSubOp
    std::span<const StructStep> steps{};
};

// How the operation that `request` names continues under `profile`. `structure_op`: as in Continue.
ContinuationRule continuation_rule(const Profile& profile, const Request& request,
                                   std::uint32_t structure_op = 0);

// How far a call has come, as its registers or its structure say: what any call has of it, also one
// that begins.
struct HowFar {
    std::optional<std::uint64_t> done, left;
    bool operator==(const HowFar&) const = default;
};
// `bytes` bytes of the guest's at a linear address, if they are there.
using ReadMember =
    std::function<std::optional<std::uint64_t>(std::uint64_t at, std::uint8_t bytes)>;
// `structure_op` and `structure`: as in Continue.
HowFar how_far(const Profile& profile, const Request& request, const ReadMember& read,
               std::uint32_t structure_op = 0, std::uint64_t structure = 0);

// Where a dm_op's operation stands, and which one it is: its first buffer. Nothing: it has none, or
// its bytes are not there.
struct DmOperation {
    std::uint32_t op = 0;
    std::uint64_t at = 0;
};
std::optional<DmOperation> find_dm_operation(const Request& request, const ReadMember& read);

// One change to the guest's structure, at the caller's width: `delta` is added to the member, in
// its own size, or replaces it.
struct StructChange {
    std::uint64_t at = 0;  // linear address
    std::uint8_t bytes = 0;
    std::uint64_t delta = 0;
    bool replaces = false;
    bool operator==(const StructChange&) const = default;
};

// What the guest goes on with.
struct Encoded {
    Reissue registers;
    std::array<StructChange, 3> changes{};
    std::size_t change_count = 0;
    std::span<const StructChange> struct_changes() const {
        return std::span(changes).first(change_count);
    }
};
Encoded encode_continuation(const Profile& profile, const Request& request, Continue progress);

}  // namespace xenshim::abi
