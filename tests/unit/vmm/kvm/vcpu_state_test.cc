// The saved states of a vCPU and of the clock: their bytes, and what is refused before any host is
// asked. What KVM makes of them is for tests/vcpu_move.
#include "vmm/kvm/vcpu_state.h"

#include <gtest/gtest.h>

#include "tests/fakes/saved_checks.h"

namespace vmm::kvm {
namespace {

SegmentSaved segment(std::uint64_t base, std::uint16_t selector, std::uint16_t attributes) {
    return {.base = base, .limit = 0xffffffff, .selector = selector, .attributes = attributes};
}

// Every member different from a new state's, and from its neighbours.
VcpuState rich() {
    VcpuState s;
    for (std::size_t i = 0; i < s.gpr.size(); ++i) {
        s.gpr[i] = 0x1111'1111'1111'1111u * i + 1;
    }
    s.rip = 0xffffffff81000123;
    s.rflags = 0x246;
    s.system.cs = segment(0, 0x10, 0xa9b);
    s.system.ss = segment(0, 0x18, 0xc93);
    s.system.ds = segment(0, 0x20, 0xcf3);
    s.system.es = segment(0, 0x28, 0xcf3);
    s.system.fs = segment(0x7f0000001000, 0, 0xcf3);
    s.system.gs = segment(0xffff888000002000, 0, 0xcf3);
    s.system.tr = segment(0xfffffe0000003000, 0x40, 0x8b);
    s.system.ldt = {.unusable = true};
    s.system.gdt = {.base = 0xfffffe0000001000, .limit = 0x7f};
    s.system.idt = {.base = 0xfffffe0000000000, .limit = 0xfff};
    s.system.cr0 = 0x80050033;
    s.system.cr2 = 0x7fff12345678;
    s.system.cr3 = 0x1234000;
    s.system.cr4 = 0x3606f0;
    s.system.cr8 = 3;
    s.system.efer = 0xd01;
    s.system.apic_base = 0xfee00d00;
    s.system.pdptrs = {0x1001, 0x2001, 0x3001, 0x4001};
    s.debug = {.address = {0x1000, 0x2000, 0x3000, 0x4000}, .dr6 = 0xffff0ff1, .dr7 = 0x401};
    s.xcr0 = 7;
    s.xsave.resize(576 + 256);
    for (std::size_t i = 0; i < s.xsave.size(); ++i) {
        const bool header = i >= 512 && i < 576;
        s.xsave[i] = std::byte{header ? std::uint8_t{0} : static_cast<std::uint8_t>(i * 7 + 1)};
    }
    s.xsave[512] = std::byte{7};  // XSTATE_BV
    s.msrs = {{0x174, 0x10},
              {0x277, 0x0007040600070406},
              {0x6e0, 0x123456789abcdef},
              {0xc0000082, 0xffffffff81800000}};
    for (std::size_t i = 0; i < s.lapic.size(); i += 16) {
        const auto offset = static_cast<std::uint32_t>(i);
        s.set_lapic_register(offset, 0x01000193u * (offset + 1));
    }
    s.events = {.exception = 14,
                .exception_error_code = 6,
                .interrupt = 0xf3,
                .interrupt_is_soft = true,
                .shadow = 2,
                .nmi_injected = true,
                .nmis_pending = 1,
                .nmi_masked = true,
                .in_smm = true,
                .smi_pending = true,
                .smm_inside_nmi = true,
                .init_latched = true,
                .triple_fault = true};
    s.activity = Activity::kHalted;
    s.tsc_khz = 2596150;
    return s;
}

TEST(VcpuState, ComesBackFromItsBytes) {
    fakes::expect_saved(rich(), "vcpu");
    fakes::expect_saved(VcpuState{}, "vcpu-empty");
}

TEST(VcpuTimeState, ComesBackFromItsBytes) {
    fakes::expect_saved(
        VcpuTimeState{.tsc = 0x123456789abc, .at_ns = 987654321012, .timer_count = 0xfedcba98},
        "vcpu.time");
}

TEST(VmClockState, ComesBackFromItsBytes) {
    fakes::expect_saved(VmClockState{.clock_ns = 123456789012, .realtime_ns = 1795000000123456789},
                        "vm.clock");
}

TEST(VcpuState, FindsRegistersOfTheLapic) {
    VcpuState s;
    s.set_lapic_register(0x350, 0x10700);
    EXPECT_EQ(s.lapic_register(0x350), 0x10700u);
    EXPECT_EQ(s.lapic[0x351], std::byte{0x07});
    EXPECT_EQ(s.lapic_register(0x340), 0u);
}

// Each with one member that no vCPU can have.
TEST(VcpuStateRefuses, WhatNoVcpuCanHave) {
    ASSERT_TRUE(rich().check()) << rich().check().error();
    const auto expect_refused = [](const char* member, auto change) {
        VcpuState s = rich();
        change(s);
        const auto good = s.check();
        ASSERT_FALSE(good) << member;
        EXPECT_EQ(good.error().rfind(member, 0), 0u) << good.error();
    };
    expect_refused("xsave", [](VcpuState& s) { s.xsave.resize(575); });
    expect_refused("xsave", [](VcpuState& s) { s.xsave.clear(); });
    expect_refused("xsave", [](VcpuState& s) { s.xsave.resize((std::size_t{1} << 20) + 1); });
    expect_refused("xsave", [](VcpuState& s) { s.xsave[527] = std::byte{0x80}; });
    expect_refused("xcr0", [](VcpuState& s) { s.xcr0 = 6; });
    expect_refused("msrs", [](VcpuState& s) {
        for (std::uint32_t i = 0; i < 5000; ++i) {
            s.msrs[i] = 0;
        }
    });
    expect_refused("events.exception", [](VcpuState& s) { s.events.exception = 32; });
    expect_refused("events.exception", [](VcpuState& s) { s.events.exception = 2; });
    expect_refused("events.exception_error_code", [](VcpuState& s) { s.events.exception.reset(); });
    expect_refused("events.interrupt_is_soft", [](VcpuState& s) { s.events.interrupt.reset(); });
    expect_refused("events.shadow", [](VcpuState& s) { s.events.shadow = 4; });
    expect_refused("activity", [](VcpuState& s) { s.activity = Activity{5}; });
    expect_refused("tsc_khz", [](VcpuState& s) { s.tsc_khz = 0; });
}

// Of components that are as after a reset it says each time that they are not in use, whatever the
// CPU said.
TEST(SettleXsave, InitialComponentsAreNotInUse) {
    const std::array<XsaveComponent, 4> components{{{}, {}, {576, 256}, {832, 64}}};
    std::vector<std::byte> initial(896);
    initial[0] = std::byte{0x7f};
    initial[1] = std::byte{0x03};
    initial[24] = std::byte{0x80};
    initial[25] = std::byte{0x1f};
    const auto in_use_after = [&](std::vector<std::byte> area, std::uint8_t before) {
        area[512] = std::byte{before};
        const auto was = area;
        settle_xsave(area, components);
        const auto now = area[512];
        area[512] = was[512];
        EXPECT_EQ(area, was);  // nothing else is touched
        return std::to_integer<unsigned>(now);
    };
    for (unsigned before = 0; before < 16; ++before) {
        EXPECT_EQ(in_use_after(initial, static_cast<std::uint8_t>(before)), 0u);
    }
    // One byte of each that is not.
    const auto with = [&](std::size_t at, std::uint8_t value) {
        auto area = initial;
        area[at] = std::byte{value};
        return area;
    };
    EXPECT_EQ(in_use_after(with(0, 0x7e), 15), 1u);
    EXPECT_EQ(in_use_after(with(4, 1), 15), 1u);
    EXPECT_EQ(in_use_after(with(159, 1), 15), 1u);
    EXPECT_EQ(in_use_after(with(160, 1), 15), 2u);
    EXPECT_EQ(in_use_after(with(415, 1), 15), 2u);
    EXPECT_EQ(in_use_after(with(831, 1), 15), 4u);
    EXPECT_EQ(in_use_after(with(832, 1), 15), 8u);
    // MXCSR comes with SSE, in use or not.
    EXPECT_EQ(in_use_after(with(24, 0xa0), 0), 2u);
    // A component beyond the area, and an area without a header.
    EXPECT_EQ(in_use_after(std::vector(initial.begin(), initial.begin() + 576), 15), 12u);
    std::vector<std::byte> little(512);
    settle_xsave(little, components);
}

TEST(TscFrequency, MayDifferByWhatKvmTakesForTheSame) {
    EXPECT_TRUE(check_tsc_khz(2'000'000, 2'000'000));
    EXPECT_TRUE(check_tsc_khz(2'000'000, 2'000'500));
    EXPECT_TRUE(check_tsc_khz(2'000'000, 1'999'500));
    EXPECT_FALSE(check_tsc_khz(2'000'000, 2'000'501));
    EXPECT_FALSE(check_tsc_khz(0xffff'ffff, 0));
    const auto refused = check_tsc_khz(2'000'000, 1'999'499);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().fault, Fault::kHost);
    EXPECT_EQ(refused.error().what, "the guest's TSC counts 2000000 kHz, this host's 1999499");
}

}  // namespace
}  // namespace vmm::kvm
