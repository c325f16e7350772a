// Guest memory: regions, single pages, holes, and accesses across all of them.
#include "vmm/memory/guest_memory.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace vmm {
namespace {

// Pages 0 to 15, 32 to 47 (next to each other: 48 to 63), and nothing else.
class GuestMemoryTest : public testing::Test {
  protected:
    GuestMemoryTest()
        : a_(16 * kPageSize), b_(16 * kPageSize), c_(16 * kPageSize), single_(2 * kPageSize) {
        memory.add_region(gfn_to_gpa(48), c_.size(), c_.data());
        memory.add_region(gfn_to_gpa(0), a_.size(), a_.data());
        memory.add_region(gfn_to_gpa(32), b_.size(), b_.data());
    }
    std::vector<std::byte> a_, b_, c_, single_;
    GuestMemory memory;
};

TEST_F(GuestMemoryTest, ReadsAndWritesWhereARegionIs) {
    ASSERT_TRUE(memory.write(gfn_to_gpa(33) + 8, std::uint64_t{0x1122334455667788}));
    EXPECT_EQ(memory.read<std::uint64_t>(gfn_to_gpa(33) + 8), 0x1122334455667788u);
    EXPECT_EQ(b_[kPageSize + 8], std::byte{0x88});
    EXPECT_FALSE(memory.read<std::uint64_t>(gfn_to_gpa(16)).has_value());
    EXPECT_FALSE(memory.write(gfn_to_gpa(31), std::uint8_t{1}));
    EXPECT_FALSE(memory.read<std::uint8_t>(Gpa{~std::uint64_t{0}}).has_value());
}

TEST_F(GuestMemoryTest, AccessesCrossPagesAndRegions) {
    std::vector<std::byte> data(kPageSize + 10, std::byte{0x5a});
    ASSERT_TRUE(memory.write(gfn_to_gpa(47) + (kPageSize - 5), data));
    EXPECT_EQ(b_.back(), std::byte{0x5a});
    EXPECT_EQ(c_[kPageSize + 4], std::byte{0x5a});
    EXPECT_EQ(c_[kPageSize + 5], std::byte{0});
    std::vector<std::byte> back(data.size());
    ASSERT_TRUE(memory.read(gfn_to_gpa(47) + (kPageSize - 5), back));
    EXPECT_EQ(back, data);
}

TEST_F(GuestMemoryTest, AccessesThatRunOutFail) {
    std::array<std::byte, 8> data{};
    EXPECT_FALSE(memory.read(gfn_to_gpa(16) + (0 - std::uint64_t{4}), data));
    EXPECT_FALSE(memory.write(gfn_to_gpa(16) + (0 - std::uint64_t{4}), data));
    EXPECT_FALSE(memory.fill(gfn_to_gpa(16) + (0 - std::uint64_t{4}), 8, std::byte{1}));
    EXPECT_FALSE(memory.read(Gpa{~std::uint64_t{0} - 3}, data));
    EXPECT_TRUE(memory.read(gfn_to_gpa(16), std::span<std::byte>()));
}

// "false ... and then nothing (read) ... was copied".
TEST_F(GuestMemoryTest, AFailedReadCopiesAPrefixAtMost) {
    ASSERT_TRUE(memory.fill(gfn_to_gpa(15), kPageSize, std::byte{0x11}));
    std::array<std::byte, 8> data;
    data.fill(std::byte{0xee});
    EXPECT_FALSE(memory.read(gfn_to_gpa(16) + (0 - std::uint64_t{4}), data));
    for (std::size_t i = 4; i < data.size(); ++i) {
        EXPECT_EQ(data[i], std::byte{0xee});
    }
}

TEST_F(GuestMemoryTest, FillsExactly) {
    ASSERT_TRUE(memory.fill(gfn_to_gpa(2) + 100, kPageSize, std::byte{0x77}));
    EXPECT_EQ(a_[2 * kPageSize + 99], std::byte{0});
    EXPECT_EQ(a_[2 * kPageSize + 100], std::byte{0x77});
    EXPECT_EQ(a_[3 * kPageSize + 99], std::byte{0x77});
    EXPECT_EQ(a_[3 * kPageSize + 100], std::byte{0});
}

TEST_F(GuestMemoryTest, HolesFailAndComeBack) {
    ASSERT_TRUE(memory.write(gfn_to_gpa(3), std::uint32_t{7}));
    memory.set_hole(3, true);
    EXPECT_TRUE(memory.is_hole(3));
    EXPECT_FALSE(memory.is_hole(2));
    EXPECT_FALSE(memory.is_hole(4));
    EXPECT_FALSE(memory.read<std::uint32_t>(gfn_to_gpa(3)).has_value());
    EXPECT_EQ(memory.page(3), nullptr);
    EXPECT_EQ(memory.word<std::uint32_t>(gfn_to_gpa(3)), nullptr);
    std::array<std::byte, 8> across{};
    EXPECT_FALSE(memory.read(gfn_to_gpa(3) + (0 - std::uint64_t{4}), across));
    memory.set_hole(3, false);
    EXPECT_EQ(memory.read<std::uint32_t>(gfn_to_gpa(3)), 7u);
}

TEST_F(GuestMemoryTest, HolesAreCountedFromTheirRegionsStart) {
    memory.set_hole(32, true);
    memory.set_hole(63, true);
    EXPECT_TRUE(memory.is_hole(32));
    EXPECT_TRUE(memory.is_hole(63));
    EXPECT_FALSE(memory.is_hole(0));
    EXPECT_FALSE(memory.is_hole(33));
    EXPECT_FALSE(memory.is_hole(62));
}

TEST_F(GuestMemoryTest, RunsOfPagesEndAtRegionsAndHoles) {
    EXPECT_EQ(memory.pages_in_region(0, 100), 16u);
    EXPECT_EQ(memory.pages_in_region(15, 100), 1u);
    EXPECT_EQ(memory.pages_in_region(3, 2), 2u);
    EXPECT_EQ(memory.pages_in_region(16, 1), 0u);
    EXPECT_EQ(memory.pages_in_region(std::uint64_t{1} << 52, 1), 0u);
    EXPECT_EQ(memory.pages_until_hole(0, 100), 16u);
    memory.set_holes(4, 3, true);
    EXPECT_EQ(memory.pages_until_hole(0, 100), 4u);
    EXPECT_EQ(memory.pages_until_hole(0, 2), 2u);
    EXPECT_EQ(memory.pages_until_hole(5, 100), 0u);
    EXPECT_EQ(memory.pages_until_hole(7, 100), 9u);
    memory.set_holes(12, 100, true);  // no further than the region
    EXPECT_EQ(memory.pages_until_hole(7, 100), 5u);
    EXPECT_FALSE(memory.is_hole(32));
    memory.set_holes(0, 16, false);
    EXPECT_EQ(memory.pages_until_hole(0, 100), 16u);
}

TEST_F(GuestMemoryTest, RunsCrossTheWordsThatHoldTheHoles) {
    std::vector<std::byte> pages(kPageSize);  // none of it is touched
    GuestMemory large;
    large.add_region(gfn_to_gpa(0), 300 * kPageSize, pages.data());
    for (const std::uint64_t first : {0u, 1u, 63u, 64u, 65u, 130u}) {
        for (const std::uint64_t count : {1u, 63u, 64u, 65u, 128u, 170u}) {
            large.set_holes(first, count, true);
            for (std::uint64_t gfn = 0; gfn < 300; ++gfn) {
                ASSERT_EQ(large.is_hole(gfn), gfn - first < count) << first << " " << count;
            }
            EXPECT_EQ(large.pages_until_hole(0, 300), first);
            EXPECT_EQ(large.pages_until_hole(first + count, 300), 300 - first - count);
            large.set_holes(first, count, false);
            EXPECT_EQ(large.pages_until_hole(0, 300), 300u);
        }
    }
}

TEST_F(GuestMemoryTest, OutsideEverythingIsAHole) {
    EXPECT_TRUE(memory.is_hole(16));
    EXPECT_TRUE(memory.is_hole(64));
    memory.set_hole(16, false);  // changes nothing, and harms nothing
    EXPECT_TRUE(memory.is_hole(16));
}

// gfns come from guests with all 64 bits: none may be taken for another by a shift.
TEST_F(GuestMemoryTest, HugeGfnsAreNotSmallOnes) {
    for (const std::uint64_t gfn : {std::uint64_t{1} << 52, (std::uint64_t{1} << 52) | 3,
                                    (std::uint64_t{0xfff} << 52) | 33}) {
        EXPECT_TRUE(memory.is_hole(gfn)) << gfn;
        EXPECT_EQ(memory.page(gfn), nullptr) << gfn;
        memory.set_hole(gfn, true);
    }
    EXPECT_FALSE(memory.is_hole(0));
    EXPECT_FALSE(memory.is_hole(3));
}

TEST_F(GuestMemoryTest, SinglePagesComeAndGo) {
    EXPECT_EQ(memory.page(100), nullptr);
    memory.add_page(100, single_.data());
    memory.add_page(101, single_.data() + kPageSize);
    EXPECT_EQ(memory.page(100), single_.data());
    ASSERT_TRUE(memory.write(gfn_to_gpa(101) + (0 - std::uint64_t{2}), std::uint32_t{0x44332211}));
    EXPECT_EQ(single_[kPageSize - 1], std::byte{0x22});
    EXPECT_EQ(single_[kPageSize], std::byte{0x33});
    memory.remove_page(100);
    EXPECT_EQ(memory.page(100), nullptr);
    EXPECT_NE(memory.page(101), nullptr);
    memory.remove_page(101);
    memory.remove_page(101);
    EXPECT_FALSE(memory.read<std::uint8_t>(gfn_to_gpa(101)).has_value());
}

TEST_F(GuestMemoryTest, WordsAreAlignedOrNotThere) {
    EXPECT_NE(memory.word<std::uint32_t>(Gpa{4}), nullptr);
    EXPECT_EQ(memory.word<std::uint32_t>(Gpa{2}), nullptr);
    EXPECT_EQ(memory.word<std::uint64_t>(Gpa{4}), nullptr);
    EXPECT_EQ(memory.word<std::uint64_t>(gfn_to_gpa(16)), nullptr);
    EXPECT_NE(memory.word<std::uint64_t>(gfn_to_gpa(16) + (0 - std::uint64_t{8})), nullptr);
}

// For the thread sanitizer: a page that comes and goes while others look for it.
TEST_F(GuestMemoryTest, PagesMayComeAndGoWhileOthersLook) {
    std::thread changes([&] {
        for (unsigned n = 0; n < 2000; ++n) {
            memory.add_page(100, single_.data());
            memory.set_hole(5, n % 2 == 0);
            memory.remove_page(100);
        }
    });
    for (unsigned n = 0; n < 2000; ++n) {
        std::byte* page = memory.page(100);
        EXPECT_TRUE(page == nullptr || page == single_.data());
        static_cast<void>(memory.is_hole(5));
    }
    changes.join();
    EXPECT_EQ(memory.page(100), nullptr);
}

// XSA-114: vCPUs that look at such pages all the time keep nobody from changing which there are.
TEST_F(GuestMemoryTest, Xsa114LookersDoNotStarveAChange) {
    memory.add_page(100, single_.data());
    std::atomic<bool> stop{false};
    std::atomic<unsigned> looking{0};
    std::vector<std::thread> lookers;
    for (unsigned i = 0; i < 8; ++i) {
        lookers.emplace_back([&] {
            ++looking;
            while (!stop) {
                static_cast<void>(memory.page(100));
            }
        });
    }
    while (looking < lookers.size()) {
        std::this_thread::yield();
    }
    unsigned changes = 0;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (changes < 200 && std::chrono::steady_clock::now() < end) {
        memory.add_page(101, single_.data() + kPageSize);
        memory.remove_page(101);
        ++changes;
    }
    stop = true;
    for (std::thread& looker : lookers) {
        looker.join();
    }
    EXPECT_EQ(changes, 200u);
}

}  // namespace
}  // namespace vmm
