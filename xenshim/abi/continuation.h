// Continuations: how far a preempted hypercall came, written where Xen of the VM's profile keeps
// it. A handler reports units; this engine alone encodes and decodes; the transport alone writes
// registers. Nothing about an operation in flight lives anywhere else, so that a guest may park
// the frame in its memory, resume it on another vCPU or another host, edit it or drop it.
#pragma once

#include <cstdint>

#include "xenshim/abi/call.h"
#include "xenshim/abi/profile.h"

namespace xenshim::abi {

// How an operation's progress is encoded (xen-abi: classes of continuation state).
enum class ContinuationClass : std::uint8_t {
    kNone,             // never continues
    kShiftedCursor,    // units done above the sub-op's bits in argument 0
    kPointerAndCount,  // the pointer argument advanced, the count argument reduced
    kRestart,          // the same call again
};

struct ContinuationRule {
    ContinuationClass kind = ContinuationClass::kNone;
    // kPointerAndCount: which arguments, and the bytes of one unit at each width.
    unsigned pointer_arg = 0;
    unsigned count_arg = 0;
    unsigned unit_bytes_32 = 0;
    unsigned unit_bytes_64 = 0;
};

// How the operation that `request` names continues under `profile`.
ContinuationRule continuation_rule(const Profile& profile, const Request& request);

// The registers with which the guest goes on. Units count from the operation's start where the
// registers keep a cursor, and from this entry's start where pointer and count move along.
Reissue encode_continuation(const Profile& profile, const Request& request, Continue progress);

}  // namespace xenshim::abi
