// The hidden parts of vCPU 0's start state, which no guest can read: section 3 of the boot
// contract.
#include <gtest/gtest.h>

#include "vmm/kvm/kvm.h"

namespace vmm::kvm {
namespace {

void expect_segment(const SegmentState& s, std::uint32_t limit, std::uint16_t attributes) {
    EXPECT_EQ(s.base, 0u);
    EXPECT_EQ(s.limit, limit);
    EXPECT_EQ(s.attributes, attributes);
}

TEST(ContractSection3, SegmentsAreFlatAndTheTaskStateIsBusy) {
    const FullState state = start_state({.rip = 0x100000, .rbx = 0x127000});
    expect_segment(state.cs, 0xffffffff, 0xc9b);
    for (const SegmentState* s : {&state.ds, &state.es, &state.ss}) {
        expect_segment(*s, 0xffffffff, 0xc93);
    }
    expect_segment(state.tr, 0x67, 0x8b);
}

TEST(ContractSection3, EverythingNotListedIsZero) {
    const FullState state = start_state({.rip = 0, .rbx = 0x127000});
    constexpr int kRbx = 3;
    for (int i = 0; i < 16; ++i) {
        EXPECT_EQ(state.gpr[i], i == kRbx ? 0x127000u : 0u) << i;
    }
    EXPECT_EQ(state.rip, 0u);
    EXPECT_EQ(state.rflags, 2u);
    EXPECT_EQ(state.cr0, 0x11u);
    EXPECT_EQ(state.cr3 | state.cr4 | state.efer, 0u);
}

}  // namespace
}  // namespace vmm::kvm
