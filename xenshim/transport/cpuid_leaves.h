// What CPUID tells the guest: Xen's leaves (public/arch-x86/cpuid.h) in place of KVM's own, and a
// topology of one thread per core.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "vmm/kvm/cpuid_state.h"
#include "vmm/kvm/kvm.h"
#include "xenshim/abi/profile.h"

namespace xenshim {

struct CpuidRequest {
    const abi::Profile* profile = nullptr;
    std::uint32_t base = 0x40000000;  // or +0x100, +0x200, ...
    std::uint32_t msr = 0x40000000;   // through which the guest asks for the hypercall page
    std::uint16_t domid = 1;
    unsigned vcpu = 0;
    unsigned vcpus = 1;
    std::uint32_t apic_id = 0;
    std::uint32_t tsc_khz = 0;
    std::uint32_t incarnation = 1;
};

// The leaves of one vCPU, from what the host's KVM supports.
std::vector<vmm::kvm::CpuidLeaf> guest_cpuid(std::span<const vmm::kvm::CpuidLeaf> supported,
                                             const CpuidRequest& request);

// In how many places the guest has been, for those who keep what they learnt of the TSC (leaf 3,
// EDX; Xen's tsc_set_info). A dialect without the leaf tells nobody. As saved it is 0: it is the
// domain's to know, and the leaves are the same in each place.
void show_incarnation(vmm::kvm::CpuidState& leaves, std::uint32_t base, std::uint32_t incarnation);

}  // namespace xenshim
