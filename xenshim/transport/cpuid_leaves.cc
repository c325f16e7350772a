#include "xenshim/transport/cpuid_leaves.h"

#include <algorithm>
#include <bit>

namespace xenshim {
namespace {

using vmm::kvm::CpuidLeaf;

// Multiplier and shift that turn TSC ticks into ns, as pvclock has them: ns = (ticks << shift) *
// mul >> 32.
struct Scale {
    std::uint32_t mul = 0;
    std::int8_t shift = 0;
};

Scale scale_of(std::uint32_t khz) {
    if (khz == 0) return {};
    std::uint64_t ticks_per_s = std::uint64_t{khz} * 1000;
    std::int8_t shift = 0;
    while (ticks_per_s > 2'000'000'000) {
        ticks_per_s >>= 1;
        --shift;
    }
    while (ticks_per_s <= 1'000'000'000) {
        ticks_per_s <<= 1;
        ++shift;
    }
    return {static_cast<std::uint32_t>((std::uint64_t{1'000'000'000} << 32) / ticks_per_s), shift};
}

void add_xen_leaves(std::vector<CpuidLeaf>& out, const CpuidRequest& r) {
    const abi::Profile& profile = *r.profile;
    const std::uint32_t base = r.base;
    // "XenVMMXenVMM"
    out.push_back({.function = base,
                   .eax = base + profile.cpuid_max_leaf,
                   .ebx = 0x566e6558,
                   .ecx = 0x65584d4d,
                   .edx = 0x4d4d566e});
    out.push_back(
        {.function = base + 1, .eax = (std::uint32_t{profile.major} << 16) | profile.minor});
    out.push_back({.function = base + 2, .eax = 1, .ebx = r.msr});
    if (profile.cpuid_max_leaf >= 3) {
        constexpr std::uint32_t kRdtscp = 1u << 2;
        const Scale scale = scale_of(r.tsc_khz);
        out.push_back({.function = base + 3,
                       .index = 0,
                       .indexed = true,
                       .eax = kRdtscp,
                       .ebx = 0,  // tsc_mode: default
                       .ecx = r.tsc_khz,
                       .edx = r.incarnation});
        out.push_back({.function = base + 3,
                       .index = 1,
                       .indexed = true,
                       .ecx = scale.mul,
                       .edx = static_cast<std::uint32_t>(scale.shift)});
        out.push_back({.function = base + 3, .index = 2, .indexed = true, .eax = r.tsc_khz});
    }
    if (profile.cpuid_max_leaf >= 4) {
        // What a flag does not announce is zero: the vCPU's number came with 4.6, the domain's with
        // 4.11.
        constexpr std::uint32_t kVcpuIdPresent = 1u << 3, kDomidPresent = 1u << 4;
        const std::uint32_t flags = profile.cpuid_hvm_flags;
        out.push_back({.function = base + 4,
                       .index = 0,
                       .indexed = true,
                       .eax = flags,
                       .ebx = (flags & kVcpuIdPresent) != 0 ? r.vcpu : 0,
                       .ecx = (flags & kDomidPresent) != 0 ? r.domid : 0u});
    }
    if (profile.cpuid_max_leaf >= 5) out.push_back({.function = base + 5});
}

void adapt(CpuidLeaf& leaf, const CpuidRequest& r) {
    switch (leaf.function) {
        case 1: {
            constexpr std::uint32_t kVmx = 1u << 5, kX2apic = 1u << 21, kTscDeadline = 1u << 24;
            constexpr std::uint32_t kHypervisor = 1u << 31, kHtt = 1u << 28;
            leaf.ebx = (leaf.ebx & 0x0000ffff) | (std::min(r.vcpus * 2, 255u) << 16) |
                       (std::min(r.apic_id, 255u) << 24);
            if (r.vcpus == 1) leaf.ebx = (leaf.ebx & 0xff00ffff) | (2u << 16);
            leaf.ecx |= kHypervisor | kX2apic | kTscDeadline;
            leaf.ecx &= ~kVmx;
            leaf.edx |= kHtt;
            break;
        }
        case 7: {
            constexpr std::uint32_t kLa57 = 1u << 16;  // we walk four levels
            if (leaf.index == 0) leaf.ecx &= ~kLa57;
            break;
        }
        case 0xb:
            leaf.eax = leaf.ebx = 0;
            leaf.ecx = leaf.index;
            leaf.edx = r.apic_id;
            break;
        case 0x1f:
            leaf.eax = leaf.ebx = 0;
            leaf.ecx = leaf.index;
            leaf.edx = r.apic_id;
            break;
        case 0x80000001: {
            constexpr std::uint32_t kSvm = 1u << 2, kTopoext = 1u << 22;
            leaf.ecx &= ~(kSvm | kTopoext);
            break;
        }
        case 0x80000008:
            // Threads of one package, less one; ids are even, so there are twice as many.
            leaf.ecx = (leaf.ecx & ~0xf0ffu) | std::min(2 * r.vcpus - 1, 255u);
            break;
        case 0x8000000a:  // SVM
            leaf.eax = leaf.ebx = leaf.ecx = leaf.edx = 0;
            break;
        case 0x8000001e:
            leaf.eax = r.apic_id;
            leaf.ebx = r.vcpu & 0xff;
            leaf.ecx = 0;
            break;
        default: break;
    }
}

}  // namespace

std::vector<CpuidLeaf> guest_cpuid(std::span<const CpuidLeaf> supported,
                                   const CpuidRequest& request) {
    std::vector<CpuidLeaf> out;
    for (CpuidLeaf leaf : supported) {
        // 0x40000000 to 0x4fffffff belong to hypervisors: KVM's own leaves stay hidden.
        if ((leaf.function >> 28) == 4) continue;
        adapt(leaf, request);
        out.push_back(leaf);
    }
    add_xen_leaves(out, request);
    return out;
}

void show_incarnation(vmm::kvm::CpuidState& leaves, std::uint32_t base, std::uint32_t incarnation) {
    for (auto& leaf : leaves.leaves) {
        if (leaf.function == base + 3 && leaf.index == 0) leaf.edx = incarnation;
    }
}

}  // namespace xenshim
