// What a vCPU was told by CPUID, as saved state, and what a host would have to take away from it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/base/saved.h"
#include "vmm/kvm/kvm.h"

namespace vmm::kvm {

struct CpuidLeafSaved {
    std::uint32_t function = 0, index = 0;
    bool indexed = false;
    std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
    bool operator==(const CpuidLeafSaved&) const = default;
    static constexpr auto fields(auto& self) {
        auto& [function, index, indexed, eax, ebx, ecx, edx] = self;
        return std::tuple{saved::field(1, "function", function),
                          saved::field(2, "index", index),
                          saved::field(3, "indexed", indexed),
                          saved::field(4, "eax", eax),
                          saved::field(5, "ebx", ebx),
                          saved::field(6, "ecx", ecx),
                          saved::field(7, "edx", edx)};
    }
};

// The leaves as they were given to KVM. Some KVMs show the guest more (kvm_pvm forces features of
// the host's on), none of which was promised.
struct CpuidState {
    static constexpr saved::Section kSection{"vcpu.cpuid", 1};
    std::vector<CpuidLeafSaved> leaves;  // by function, then index
    bool operator==(const CpuidState&) const = default;
    static constexpr auto fields(auto& self) {
        auto& [leaves] = self;
        return std::tuple{saved::field(1, "leaves", leaves)};
    }

    static CpuidState of(std::span<const CpuidLeaf> given);
    // The reason names the leaf: out of order, or more of them than KVM takes.
    Expected<void, std::string> check() const;
    // What to give to KVM.
    std::vector<CpuidLeaf> given() const;
};

// The features that `guest` was told of and `host` cannot give it, by their usual names (those of
// /proc/cpuinfo, else leaf, register and bit): refusing a guest takes nothing else. `host`: what
// this host would tell the same vCPU if it were new.
std::vector<std::string> missing_features(const CpuidState& guest, const CpuidState& host);

}  // namespace vmm::kvm
