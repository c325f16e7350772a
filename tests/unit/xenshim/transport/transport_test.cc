// What the transports share and needs no KVM: CPUID leaves, the hypercall page, and which registers
// carry what. Figures from xen-417-golden.md, B and I.
#include <algorithm>
#include <set>

#include <gtest/gtest.h>

#include "xenshim/transport/cpuid_leaves.h"
#include "xenshim/transport/hypercall_page.h"
#include "xenshim/transport/hypercall_registers.h"

namespace xenshim {
namespace {

using vmm::kvm::CpuidLeaf;
using vmm::kvm::Reg;

// ---- CPUID
// ----------------------------------------------------------------------------------------

class Cpuid : public testing::Test {
  protected:
    CpuidRequest request{.profile = abi::find_profile("xen-4.17"),
                         .base = 0x40000000,
                         .msr = 0x40000000,
                         .domid = 2,
                         .vcpu = 1,
                         .vcpus = 2,
                         .apic_id = 2,
                         .tsc_khz = 0x279d36};
    std::vector<CpuidLeaf> supported;

    std::vector<CpuidLeaf> leaves() { return guest_cpuid(supported, request); }
    CpuidLeaf leaf(std::uint32_t function, std::uint32_t index = 0) {
        const auto all = leaves();
        const auto at = std::find_if(all.begin(), all.end(), [&](const CpuidLeaf& l) {
            return l.function == function && (!l.indexed || l.index == index);
        });
        if (at == all.end()) {
            ADD_FAILURE() << "no leaf " << std::hex << function << "/" << index;
            return {};
        }
        return *at;
    }
    // The leaf as we pass it on when the host has all bits of it set.
    CpuidLeaf from_ones(std::uint32_t function, std::uint32_t index = 0, bool indexed = false) {
        supported = {{.function = function,
                      .index = index,
                      .indexed = indexed,
                      .eax = ~0u,
                      .ebx = ~0u,
                      .ecx = ~0u,
                      .edx = ~0u}};
        return leaf(function, index);
    }
};

TEST_F(Cpuid, XensLeaves) {
    const auto id = leaf(0x40000000);
    EXPECT_EQ(id.eax, 0x40000005u);
    EXPECT_EQ(id.ebx, 0x566e6558u);
    EXPECT_EQ(id.ecx, 0x65584d4du);
    EXPECT_EQ(id.edx, 0x4d4d566eu);
    EXPECT_EQ(leaf(0x40000001).eax, 0x40011u);
    EXPECT_EQ(leaf(0x40000001).ebx | leaf(0x40000001).ecx | leaf(0x40000001).edx, 0u);
    EXPECT_EQ(leaf(0x40000002).eax, 1u);
    EXPECT_EQ(leaf(0x40000002).ebx, 0x40000000u);
    EXPECT_EQ(leaf(0x40000002).ecx | leaf(0x40000002).edx, 0u);
    const auto hvm = leaf(0x40000004);
    EXPECT_EQ(hvm.eax, 0x58u);
    EXPECT_EQ(hvm.ebx, 1u);  // vCPU
    EXPECT_EQ(hvm.ecx, 2u);  // domain
    EXPECT_EQ(hvm.edx, 0u);
    const auto last = leaf(0x40000005);
    EXPECT_EQ(last.eax | last.ebx | last.ecx | last.edx, 0u);
}

TEST_F(Cpuid, EachProfileAnnouncesWhatItGives) {
    for (const abi::Profile& profile : abi::profiles()) {
        request.profile = &profile;
        EXPECT_EQ(leaf(0x40000000).eax, 0x40000000 + profile.cpuid_max_leaf) << profile.name;
        EXPECT_EQ(leaf(0x40000001).eax, std::uint32_t{profile.major} << 16 | profile.minor)
            << profile.name;
        const auto all = leaves();
        const auto has = [&](std::uint32_t function) {
            return std::any_of(all.begin(), all.end(),
                               [&](const CpuidLeaf& l) { return l.function == function; });
        };
        for (std::uint32_t i = 0; i <= 6; ++i) {
            EXPECT_EQ(has(0x40000000 + i), i <= profile.cpuid_max_leaf) << profile.name;
        }
        if (profile.cpuid_max_leaf < 4) continue;
        const auto hvm = leaf(0x40000004);
        EXPECT_EQ(hvm.eax, profile.cpuid_hvm_flags) << profile.name;
        EXPECT_EQ(hvm.ebx, profile.since(4, 6) ? 1u : 0u) << profile.name;
        EXPECT_EQ(hvm.ecx, profile.since(4, 11) ? 2u : 0u) << profile.name;
    }
}

TEST_F(Cpuid, TheClocksLeavesAgreeWithXens) {
    EXPECT_EQ(leaf(0x40000003, 0).ebx, 0u);
    EXPECT_EQ(leaf(0x40000003, 0).ecx, 0x279d36u);
    EXPECT_EQ(leaf(0x40000003, 0).edx, 1u);
    EXPECT_EQ(leaf(0x40000003, 1).eax, 0u);
    EXPECT_EQ(leaf(0x40000003, 1).ebx, 0u);
    EXPECT_EQ(leaf(0x40000003, 1).edx, 0xffffffffu);  // shift -1
    // Measured 0xc5371140 where the frequency was not a whole number of kHz.
    EXPECT_NEAR(leaf(0x40000003, 1).ecx, 0xc5371140, 0x1000);
    EXPECT_EQ(leaf(0x40000003, 2).eax, 0x279d36u);
}

// ns = (ticks << shift) * mul >> 32 gives a second per second, whatever the frequency.
TEST_F(Cpuid, TheClocksScaleIsRightForEveryFrequency) {
    for (const std::uint32_t khz : {1u, 100'000u, 999'999u, 1'000'000u, 1'000'001u, 2'000'000u,
                                    2'000'001u, 3'400'000u, 4'294'967'295u}) {
        request.tsc_khz = khz;
        const auto scale = leaf(0x40000003, 1);
        const auto shift = static_cast<std::int32_t>(scale.edx);
        unsigned __int128 ticks = static_cast<unsigned __int128>(khz) * 1000;
        ticks = shift < 0 ? ticks >> -shift : ticks << shift;
        const auto ns = static_cast<double>(static_cast<std::uint64_t>((ticks * scale.ecx) >> 32));
        EXPECT_NEAR(ns, 1e9, 10) << khz;
        EXPECT_GE(scale.ecx, 0x80000000u) << khz;  // no precision is given away
    }
    request.tsc_khz = 0;
    EXPECT_EQ(leaf(0x40000003, 1).ecx, 0u);
}

TEST_F(Cpuid, TheBaseCanBeMoved) {
    request.base = 0x40000100;
    request.msr = 0x40000200;
    EXPECT_EQ(leaf(0x40000100).eax, 0x40000105u);
    EXPECT_EQ(leaf(0x40000102).ebx, 0x40000200u);
    for (const auto& l : leaves()) {
        EXPECT_GE(l.function, 0x40000100u);
    }
}

TEST_F(Cpuid, KvmsOwnLeavesAreHidden) {
    supported = {{.function = 0},
                 {.function = 0x40000000, .ebx = 0x4b4d564b},
                 {.function = 0x40000001, .eax = ~0u},
                 {.function = 0x4fffffff},
                 {.function = 0x50000000},
                 {.function = 0x80000000}};
    std::multiset<std::uint32_t> functions;
    for (const auto& l : leaves()) {
        functions.insert(l.function);
        EXPECT_NE(l.ebx, 0x4b4d564bu);
    }
    EXPECT_EQ(functions.count(0x40000000), 1u);
    EXPECT_EQ(functions.count(0x40000001), 1u);
    EXPECT_EQ(functions.count(0x4fffffff), 0u);
    EXPECT_EQ(functions.count(0x50000000), 1u);
    EXPECT_EQ(functions.count(0), 1u);
    EXPECT_EQ(functions.count(0x80000000), 1u);
}

TEST_F(Cpuid, NoLeafAppearsTwice) {
    supported = {{.function = 0}, {.function = 1}, {.function = 7, .indexed = true}};
    std::set<std::pair<std::uint32_t, std::uint32_t>> seen;
    for (const auto& l : leaves()) {
        EXPECT_TRUE(seen.insert({l.function, l.index}).second) << l.function << "/" << l.index;
    }
}

TEST_F(Cpuid, TheGuestSeesAHypervisorAndNoNesting) {
    const auto one = from_ones(1);
    EXPECT_EQ(one.ecx & (1u << 31), 1u << 31);
    EXPECT_EQ(one.ecx & (1u << 5), 0u);  // VMX
    EXPECT_EQ(one.ebx >> 24, 2u);        // its own APIC id
    EXPECT_EQ(one.ebx & 0xffff, 0xffffu);
    EXPECT_EQ(from_ones(0x80000001).ecx & (1u << 2), 0u);  // SVM
    const auto svm = from_ones(0x8000000a);
    EXPECT_EQ(svm.eax | svm.ebx | svm.ecx | svm.edx, 0u);
    // Five-level paging, which our page walk does not know.
    EXPECT_EQ(from_ones(7, 0, true).ecx & (1u << 16), 0u);
    EXPECT_EQ(from_ones(7, 1, true).ecx, ~0u);
}

TEST_F(Cpuid, X2apicAndHypervisorAreThereWhateverTheHostSays) {
    supported = {{.function = 1}};
    EXPECT_EQ(leaf(1).ecx & ((1u << 31) | (1u << 21)), (1u << 31) | (1u << 21));
}

TEST_F(Cpuid, OneThreadPerCore) {
    for (const std::uint32_t index : {0u, 1u}) {
        const auto b = from_ones(0xb, index, true);
        EXPECT_EQ(b.eax, 0u);
        EXPECT_EQ(b.ebx, 0u);
        EXPECT_EQ(b.ecx, index);
        EXPECT_EQ(b.edx, 2u);
    }
    EXPECT_EQ(from_ones(0x80000008).ecx & 0xff, 3u);  // ids 0 to 3
    request.vcpus = 200;
    EXPECT_EQ(from_ones(0x80000008).ecx & 0xff, 255u);
    EXPECT_EQ((from_ones(1).ebx >> 16) & 0xff, 255u);
}

TEST_F(Cpuid, OtherLeavesPassUnchanged) {
    const auto cache = from_ones(0x80000006);
    EXPECT_EQ(cache.eax & cache.ebx & cache.ecx & cache.edx, ~0u);
}

// ---- the hypercall page
// -----------------------------------------------------------------------------

TEST(HypercallPage, IsAsMeasuredOnXen) {
    const auto page = make_hypercall_page(kVmmcall);
    ASSERT_EQ(page.size(), 4096u);
    for (unsigned n = 0; n < 128; ++n) {
        const std::uint8_t* stub = page.data() + 32 * n;
        if (n == 23) {
            EXPECT_EQ(stub[0], 0x0f);
            EXPECT_EQ(stub[1], 0x0b);
            for (unsigned i = 2; i < 32; ++i) {
                EXPECT_EQ(stub[i], 0xcc);
            }
            continue;
        }
        const std::array<std::uint8_t, 9> expected = {
            0xb8, static_cast<std::uint8_t>(n), 0, 0, 0, 0x0f, 0x01, 0xd9, 0xc3};
        EXPECT_TRUE(std::equal(expected.begin(), expected.end(), stub)) << n;
        for (unsigned i = 9; i < 32; ++i) {
            EXPECT_EQ(stub[i], 0xcc) << n;
        }
    }
}

TEST(HypercallPage, TrapsByPortWhereNothingElseIsSaid) {
    const auto page = make_hypercall_page();
    for (unsigned n = 0; n < 128; ++n) {
        if (n == 23) continue;
        EXPECT_TRUE(std::equal(kPortTrap.begin(), kPortTrap.end(), page.data() + 32 * n + 5)) << n;
    }
}

// Every trap is as long as every other, so that no return address ever lies inside one.
TEST(HypercallPage, TrapsAreThreeBytes) {
    EXPECT_EQ(kVmcall, (TrapInstruction{0x0f, 0x01, 0xc1}));
    EXPECT_EQ(kVmmcall, (TrapInstruction{0x0f, 0x01, 0xd9}));
    EXPECT_EQ(kPortTrap, (TrapInstruction{0x3e, 0xe6, 0x7e}));
    EXPECT_EQ(kPortTrap[2], kTrapPort);
}

// ---- registers
// ------------------------------------------------------------------------------------

TEST(HypercallRegisters, AreXens) {
    EXPECT_EQ(kArgs64, (std::array<Reg, 5>{Reg::kRdi, Reg::kRsi, Reg::kRdx, Reg::kR10, Reg::kR8}));
    EXPECT_EQ(kArgs32, (std::array<Reg, 5>{Reg::kRbx, Reg::kRcx, Reg::kRdx, Reg::kRsi, Reg::kRdi}));
}

TEST(LinearRip, HasTheSegmentsBaseButIn64BitCode) {
    EXPECT_EQ(linear_rip(true, 0x1000, 0xffff'8000'0000'0010), 0xffff'8000'0000'0010u);
    EXPECT_EQ(linear_rip(false, 0, 0x10'0025), 0x10'0025u);
    EXPECT_EQ(linear_rip(false, 0xf'0000, 0xfff0), 0xf'fff0u);  // real mode
    EXPECT_EQ(linear_rip(false, 0x10'0000, 0xfff0'0008), 8u);   // past the end, and round
    struct {
        bool in_64bit_code() const { return false; }
        std::uint64_t code_base() const { return 0x7000; }
        std::uint64_t get(Reg reg) const { return reg == Reg::kRip ? 0x12 : ~std::uint64_t{0}; }
    } vcpu;
    EXPECT_EQ(linear_rip(vcpu), 0x7012u);
}

TEST(HypercallRegisters, AResultOf32BitsHasNoUpperHalf) {
    EXPECT_EQ(result_register(abi::Width::k64, -22), ~std::uint64_t{0} - 21);
    EXPECT_EQ(result_register(abi::Width::k32, -22), 0xffff'ffeau);
    EXPECT_EQ(result_register(abi::Width::k64, 0xffff'ffe4), 0xffff'ffe4u);
    EXPECT_EQ(result_register(abi::Width::k32, 0x40011), 0x40011u);
}

}  // namespace
}  // namespace xenshim
