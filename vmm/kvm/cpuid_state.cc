#include "vmm/kvm/cpuid_state.h"

#include <algorithm>
#include <cstdio>

#include "vmm/kvm/cpu_model.h"

namespace vmm::kvm {

CpuidState CpuidState::of(std::span<const CpuidLeaf> given) {
    CpuidState state;
    for (const CpuidLeaf& leaf : given) {
        state.leaves.push_back({.function = leaf.function,
                                .index = leaf.index,
                                .indexed = leaf.indexed,
                                .eax = leaf.eax,
                                .ebx = leaf.ebx,
                                .ecx = leaf.ecx,
                                .edx = leaf.edx});
    }
    std::stable_sort(state.leaves.begin(), state.leaves.end(), [](const auto& a, const auto& b) {
        return std::tie(a.function, a.index) < std::tie(b.function, b.index);
    });
    return state;
}

Expected<void, std::string> CpuidState::check() const {
    constexpr std::size_t kMostLeaves = 256;  // KVM_MAX_CPUID_ENTRIES
    if (leaves.size() > kMostLeaves) {
        return Failure{"leaves: " + std::to_string(leaves.size()) + " of them"};
    }
    for (std::size_t i = 1; i < leaves.size(); ++i) {
        const auto &a = leaves[i - 1], &b = leaves[i];
        if (std::tie(a.function, a.index) >= std::tie(b.function, b.index)) {
            char text[64];
            std::snprintf(text, sizeof text, "leaves: %x.%x after %x.%x", b.function, b.index,
                          a.function, a.index);
            return Failure{std::string(text)};
        }
    }
    return {};
}

std::vector<CpuidLeaf> CpuidState::given() const {
    std::vector<CpuidLeaf> out;
    for (const CpuidLeafSaved& leaf : leaves) {
        out.push_back({.function = leaf.function,
                       .index = leaf.index,
                       .indexed = leaf.indexed,
                       .eax = leaf.eax,
                       .ebx = leaf.ebx,
                       .ecx = leaf.ecx,
                       .edx = leaf.edx});
    }
    return out;
}

std::vector<std::string> missing_features(const CpuidState& guest, const CpuidState& host) {
    return CpuModel::of(guest).missing_from(CpuModel::of(host));
}

}  // namespace vmm::kvm
