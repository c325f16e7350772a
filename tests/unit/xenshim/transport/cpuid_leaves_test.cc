// What a guest is told of itself by CPUID: what a move changes of it.
#include "xenshim/transport/cpuid_leaves.h"

#include <gtest/gtest.h>

namespace xenshim {
namespace {

vmm::kvm::CpuidState told(std::string_view profile, std::uint32_t base) {
    const std::vector<vmm::kvm::CpuidLeaf> supported{
        {.function = 0, .eax = 1},
        {.function = 1, .eax = 0x600f12},
    };
    const CpuidRequest request{.profile = abi::find_profile(profile),
                               .base = base,
                               .tsc_khz = 2'000'000,
                               .incarnation = 7};
    return vmm::kvm::CpuidState::of(guest_cpuid(supported, request));
}

TEST(CpuidLeaves, TheIncarnationIsInOneRegister) {
    constexpr std::uint32_t kBase = 0x40000100;
    const auto before = told("xen-4.17", kBase);
    auto after = before;
    show_incarnation(after, kBase, 9);
    ASSERT_EQ(after.leaves.size(), before.leaves.size());
    unsigned changed = 0;
    for (std::size_t i = 0; i < before.leaves.size(); ++i) {
        auto expected = before.leaves[i];
        if (expected.function == kBase + 3 && expected.index == 0) {
            EXPECT_EQ(expected.edx, 7u);
            expected.edx = 9;
            ++changed;
        }
        EXPECT_TRUE(after.leaves[i] == expected) << expected.function << ", " << expected.index;
    }
    EXPECT_EQ(changed, 1u);
}

TEST(CpuidLeaves, ADialectWithoutTheLeafStaysAsItIs) {
    for (const auto& profile : abi::profiles()) {
        if (profile.cpuid_max_leaf >= 3) continue;
        const auto before = told(profile.name, 0x40000000);
        auto after = before;
        show_incarnation(after, 0x40000000, 9);
        EXPECT_TRUE(after == before) << profile.name;
    }
}

}  // namespace
}  // namespace xenshim
