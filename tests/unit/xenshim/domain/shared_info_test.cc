// shared_info and the vcpu_infos: the wall clock, the latch, where a vcpu_info is and what moves.
#include "xenshim/domain/shared_info.h"

#include <thread>

#include <gtest/gtest.h>

#include "tests/fakes/test_domain.h"

namespace xenshim {
namespace {

using namespace abi;
using fakes::BothWidths;
using fakes::FakePorts;
using fakes::TestDomain;

std::uint32_t word(FakePorts& ports, std::size_t at) {
    std::uint32_t value = 0;
    std::memcpy(&value, ports.own_page(kSharedInfoPage) + at, sizeof value);
    return value;
}

TEST(SharedInfo, IsWideBeforeAnybodyLatches) {
    FakePorts ports;
    const SharedInfo info(ports, ports.memory, 1);
    EXPECT_TRUE(info.is_64bit());
}

TEST(SharedInfo, TheWallClockIsWrittenWhereTheWidthSays) {
    FakePorts ports;
    SharedInfo info(ports, ports.memory, 1);
    info.set_wall_clock(0x1'6b03'1f3f, 123456789);
    EXPECT_EQ(word(ports, 3072) % 2, 0u);
    EXPECT_NE(word(ports, 3072), 0u);
    EXPECT_EQ(word(ports, 3076), 0x6b031f3fu);
    EXPECT_EQ(word(ports, 3080), 123456789u);
    EXPECT_EQ(word(ports, 3084), 1u);
}

TEST(SharedInfo, LatchingMovesTheWallClock) {
    FakePorts ports;
    SharedInfo info(ports, ports.memory, 1);
    info.set_wall_clock(0x2'0000'0007, 5);
    info.latch(Width::k32);
    EXPECT_FALSE(info.is_64bit());
    EXPECT_EQ(word(ports, 2304) % 2, 0u);
    EXPECT_EQ(word(ports, 2308), 7u);
    EXPECT_EQ(word(ports, 2312), 5u);
    EXPECT_EQ(word(ports, 2340), 2u);
    info.latch(Width::k64);
    EXPECT_TRUE(info.is_64bit());
    EXPECT_EQ(word(ports, 3076), 7u);
}

TEST(SharedInfo, LatchingTheSameWidthRewritesNothing) {
    FakePorts ports;
    SharedInfo info(ports, ports.memory, 1);
    info.set_wall_clock(7, 5);
    const auto version = word(ports, 3072);
    info.latch(Width::k64);
    EXPECT_EQ(word(ports, 3072), version);
}

TEST(SharedInfo, TheVersionMovesByTwoPerWrite) {
    FakePorts ports;
    SharedInfo info(ports, ports.memory, 1);
    info.set_wall_clock(1, 1);
    const auto first = word(ports, 3072);
    info.set_wall_clock(2, 2);
    EXPECT_EQ(word(ports, 3072), first + 2);
}

class VcpuInfo : public BothWidths {
  protected:
    VcpuInfo() : info(guest.domain.shared_info()) { info.latch(GetParam()); }
    SharedInfo& info;
};

XENOLITH_BOTH_WIDTHS(VcpuInfo);

TEST_P(VcpuInfo, IsInSharedInfoAtFirst) {
    EXPECT_FALSE(info.vcpu_info_gpa(0, kNoGfn).has_value());
    EXPECT_EQ(info.vcpu_info_gpa(0, 0x1000), vmm::Gpa{0x1000000});
    EXPECT_EQ(info.vcpu_info_gpa(1, 0x1000), vmm::Gpa{0x1000040});
    EXPECT_FALSE(info.set_upcall_pending(1));
    EXPECT_TRUE(info.set_upcall_pending(1));
    EXPECT_EQ(guest.ports.own_page(kSharedInfoPage)[64], std::byte{1});
    EXPECT_FALSE(info.upcall_pending(0));
}

TEST_P(VcpuInfo, OfAVcpuBeyondTheLegacySlotsWaitsInAPageOfOurs) {
    FakePorts ports;
    SharedInfo many(ports, ports.memory, 40);
    EXPECT_FALSE(many.vcpu_info_gpa(32, 0x1000).has_value());
    EXPECT_FALSE(many.vcpu_info_gpa(39, 0x1000).has_value());
    EXPECT_TRUE(many.vcpu_info_gpa(31, 0x1000).has_value());
    many.set_upcall_pending(32);
    many.set_selector(32, 5);
    EXPECT_TRUE(many.upcall_pending(32));
    // The bitmaps begin where a 33rd slot would be.
    for (std::size_t at = 2048; at < vmm::kPageSize; at += 4) {
        ASSERT_EQ(word(ports, at), 0u) << at;
    }
}

TEST_P(VcpuInfo, TakesItsContentAlong) {
    info.set_upcall_pending(1);
    info.set_selector(1, 40);
    ASSERT_TRUE(guest.domain.register_vcpu_info(1, TestDomain::kRamGfn, 128).has_value());
    EXPECT_EQ(info.vcpu_info_gpa(1, 0x1000), vmm::Gpa{(TestDomain::kRamGfn << 12) + 128});
    EXPECT_TRUE(info.upcall_pending(1));
    EXPECT_EQ(guest.get<std::uint8_t>({(TestDomain::kRamGfn << 12) + 128}), 1);
    // Later events go to the new place only.
    guest.poke(vmm::Gva{(TestDomain::kRamGfn << 12) + 128}, std::uint8_t{0});
    guest.ports.own_page(kSharedInfoPage)[64] = std::byte{0};
    info.set_upcall_pending(1);
    EXPECT_EQ(guest.get<std::uint8_t>({(TestDomain::kRamGfn << 12) + 128}), 1);
    EXPECT_EQ(guest.ports.own_page(kSharedInfoPage)[64], std::byte{0});
}

TEST_P(VcpuInfo, ClearUpcallMaskClearsOneByte) {
    std::byte* slot = guest.ports.own_page(kSharedInfoPage) + 64;
    std::memset(slot, 0xff, 64);
    info.clear_upcall_mask(1);
    for (std::size_t i = 0; i < 64; ++i) {
        EXPECT_EQ(slot[i], i == 1 ? std::byte{0} : std::byte{0xff}) << i;
    }
}

// The transports ask from one thread where a vcpu_info is while another registers it.
TEST_P(VcpuInfo, CanBeAskedForWhileItMoves) {
    std::atomic<bool> go{false};
    std::thread asks([&] {
        while (!go) {
            std::this_thread::yield();
        }
        for (unsigned n = 0; n < 1000; ++n) {
            if (info.vcpu_info_moved(1)) {
                EXPECT_EQ(info.vcpu_info_gpa(1, 0x1000),
                          vmm::Gpa{(TestDomain::kRamGfn << 12) + 128});
            }
        }
    });
    go = true;
    ASSERT_TRUE(guest.domain.register_vcpu_info(1, TestDomain::kRamGfn, 128).has_value());
    asks.join();
}

}  // namespace
}  // namespace xenshim
