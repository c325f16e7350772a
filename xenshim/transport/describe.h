// A hypercall in words, for whoever looks at a guest: Xen's own names, and how far the registers
// say that it has come.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "vmm/kvm/kvm.h"
#include "vmm/memory/guest_memory.h"
#include "xenshim/abi/call.h"
#include "xenshim/abi/continuation.h"
#include "xenshim/abi/profile.h"

namespace xenshim {

struct HypercallDescription {
    std::uint64_t number = 0;  // as the VM's profile reads RAX
    std::string name;          // "memory_op"; "hypercall 99" when nobody has it
    // "XENMEM_decrease_reservation"; the number when no Xen ever had it; empty: it has none.
    std::string operation;
    // As the VM's profile reads the registers or the structure: units done, where they keep a
    // cursor, or units still to do, where they keep a count. dm_op's modified_memory keeps both:
    // extents to do, and pages done of the one under way.
    std::optional<std::uint64_t> done;
    std::optional<std::uint64_t> left;
};

// `read`: for progress and operations that stand in the guest's structure. Without it, they are not
// shown.
HypercallDescription describe_hypercall(const abi::Profile& profile, const abi::Request& request,
                                        const abi::ReadMember& read = {});

// What a vCPU that stands still is about to ask: nothing when the instruction at its RIP is none
// that makes hypercalls.
struct PendingHypercall {
    const char* instruction;  // "vmcall", "vmmcall", or "port" for kPortTrap
    abi::Request request;
    abi::ReadMember
        read;  // of the caller's memory, for describe_hypercall(); while the vCPU stands
};
std::optional<PendingHypercall> pending_hypercall(vmm::GuestMemory& memory,
                                                  const vmm::kvm::Vcpu& vcpu,
                                                  const vmm::kvm::Registers& registers);

}  // namespace xenshim
