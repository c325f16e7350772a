// CPUID's leaves as saved state, and which features a host lacks, by name.
#include "vmm/kvm/cpuid_state.h"

#include <gtest/gtest.h>

#include "tests/fakes/saved_checks.h"

namespace vmm::kvm {
namespace {

using Names = std::vector<std::string>;

CpuidState guest() {
    const CpuidLeaf leaves[] = {
        {.function = 0xd, .index = 2, .indexed = true, .eax = 256, .ebx = 576},
        {.function = 0, .eax = 0xd, .ebx = 0x68747541, .ecx = 0x444d4163, .edx = 0x69746e65},
        {.function = 1, .eax = 0x800f12, .ebx = 0x010800, .ecx = 0x81202001, .edx = 0x178bfbff},
        {.function = 7, .index = 0, .indexed = true, .ebx = 0x00000020},
        {.function = 0xd, .index = 0, .indexed = true, .eax = 7, .ebx = 832, .ecx = 832},
        {.function = 0xd, .index = 1, .indexed = true, .eax = 1},
        {.function = 0x40000000, .eax = 0x40000005, .ebx = 0x566e6558},
        {.function = 0x80000001, .ecx = 0x21, .edx = 0x2c100800},
        {.function = 0x80000008, .eax = 0x3028},
    };
    return CpuidState::of(leaves);
}

CpuidLeafSaved& leaf(CpuidState& state, std::uint32_t function, std::uint32_t index = 0) {
    for (auto& l : state.leaves) {
        if (l.function == function && l.index == index) return l;
    }
    ADD_FAILURE() << "there is no such leaf";
    return state.leaves.front();
}

TEST(CpuidState, ComesBackFromItsBytes) {
    fakes::expect_saved(guest(), "vcpu.cpuid");
    fakes::expect_saved(CpuidState{}, "vcpu.cpuid-empty");
}

TEST(CpuidState, IsSortedAndGivesBackWhatItWasMadeOf) {
    const CpuidState state = guest();
    ASSERT_TRUE(state.check());
    EXPECT_EQ(state.leaves.front().function, 0u);
    EXPECT_TRUE(CpuidState::of(state.given()) == state);
}

TEST(CpuidState, RefusesLeavesThatAreDoubleOrTooMany) {
    CpuidState twice = guest();
    twice.leaves.insert(twice.leaves.begin(), twice.leaves.front());
    ASSERT_FALSE(twice.check());
    EXPECT_EQ(twice.check().error(), "leaves: 0.0 after 0.0");
    CpuidState many;
    for (std::uint32_t i = 0; i < 257; ++i) {
        many.leaves.push_back({.function = i});
    }
    EXPECT_FALSE(many.check());
    many.leaves.pop_back();
    EXPECT_TRUE(many.check());
}

TEST(MissingFeatures, NoneOnTheSameHostOrABetterOne) {
    EXPECT_EQ(missing_features(guest(), guest()), Names{});
    CpuidState better = guest();
    leaf(better, 7).ebx |= 1u << 16;            // avx512f
    leaf(better, 0xd).eax |= 0xe0;              // and its areas
    leaf(better, 0x80000008).eax = 0x3034;      // 52 bits
    leaf(better, 0x40000000).eax = 0x40000004;  // ours to say, not the CPU's
    EXPECT_EQ(missing_features(guest(), better), Names{});
}

TEST(MissingFeatures, NamesEachThatTheHostLacks) {
    CpuidState host = guest();
    leaf(host, 7).ebx = 0;
    leaf(host, 1).ecx &= ~(1u << 13);
    leaf(host, 0x80000001).edx &= ~(1u << 26);
    EXPECT_EQ(missing_features(guest(), host), (Names{"cx16", "avx2", "pdpe1gb"}));
}

TEST(MissingFeatures, ABitWithoutANameGoesByItsNumber) {
    CpuidState wants = guest();
    leaf(wants, 1).edx |= 1u << 10;
    leaf(wants, 0x80000001).ecx |= 1u << 30;  // beyond the table's last name
    EXPECT_EQ(missing_features(wants, guest()),
              (Names{"cpuid-1.0-edx-10", "cpuid-80000001.0-ecx-30"}));
}

TEST(MissingFeatures, WhatIsNoFeatureMayDiffer) {
    CpuidState wants = guest();
    leaf(wants, 1).ecx |= 1u << 27;            // osxsave: CR4's
    leaf(wants, 7).ebx |= 1u << 13 | 1u << 6;  // zero_fcs_fds, fdp_excptn_only
    leaf(wants, 0x80000001).edx |= 1;          // fpu once more
    leaf(wants, 1).eax = 0xa20f10;             // another model
    EXPECT_EQ(missing_features(wants, guest()), Names{});
}

TEST(MissingFeatures, ALeafThatIsNotThereHasNone) {
    CpuidState host = guest();
    std::erase_if(host.leaves, [](const auto& l) { return l.function == 7; });
    EXPECT_EQ(missing_features(guest(), host), Names{"avx2"});
}

TEST(MissingFeatures, XsaveAreasAreThereAndWhereTheyWere) {
    CpuidState without = guest();
    leaf(without, 0xd).eax = 3;
    EXPECT_EQ(missing_features(guest(), without), Names{"xsave of avx"});
    CpuidState elsewhere = guest();
    leaf(elsewhere, 0xd, 2).ebx = 832;
    EXPECT_EQ(missing_features(guest(), elsewhere), Names{"xsave of avx at its place"});
}

TEST(MissingFeatures, AddressesAndTheVendor) {
    CpuidState host = guest();
    leaf(host, 0x80000008).eax = 0x2f27;
    EXPECT_EQ(missing_features(guest(), host),
              (Names{"physical addresses of 40 bits", "linear addresses of 48 bits"}));
    CpuidState intel = guest();
    auto& vendor = leaf(intel, 0);
    vendor.ebx = 0x756e6547, vendor.edx = 0x49656e69, vendor.ecx = 0x6c65746e;
    EXPECT_EQ(missing_features(guest(), intel), Names{"a CPU of AuthenticAMD"});
    CpuidState odd = guest();
    leaf(odd, 0).ebx = 0x0a1b5b1b;  // escape sequences have no business on a terminal
    EXPECT_EQ(missing_features(odd, guest()), Names{"a CPU of ?[?\?enticAMD"});
}

}  // namespace
}  // namespace vmm::kvm
