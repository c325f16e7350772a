// Page walks against page tables built by hand: every mode, every page size, every reason to
// refuse, and the accessed and dirty bits, which must be set exactly where the CPU sets them.
#include "vmm/memory/page_walk.h"

#include <vector>

#include <gtest/gtest.h>

namespace vmm {
namespace {

constexpr std::uint64_t kPe = 1, kWp = 1u << 16, kPg = 1u << 31;
constexpr std::uint64_t kPse = 1u << 4, kPae = 1u << 5, kSmap = 1u << 21;
constexpr std::uint64_t kLma = 1u << 10, kNxe = 1u << 11;
constexpr std::uint64_t kAc = 1u << 18;
constexpr std::uint64_t kP = 1, kW = 2, kU = 4, kA = 0x20, kD = 0x40, kPs = 0x80;
constexpr std::uint64_t kNx = std::uint64_t{1} << 63;

// 8 MiB of RAM at 0 and a page at 5 GiB. Tables lie from 0x1000 on.
class PageWalk : public testing::Test {
  protected:
    PageWalk() : ram_(8 << 20), high_(kPageSize) {
        memory.add_region({0}, ram_.size(), ram_.data());
        memory.add_region({kHigh}, high_.size(), high_.data());
    }
    static constexpr std::uint64_t kHigh = 0x1'4000'0000;

    std::uint64_t entry64(std::uint64_t table, std::uint64_t index) {
        return *memory.read<std::uint64_t>(Gpa{table + 8 * index});
    }
    void set64(std::uint64_t table, std::uint64_t index, std::uint64_t value) {
        ASSERT_TRUE(memory.write(Gpa{table + 8 * index}, value));
    }
    std::uint32_t entry32(std::uint64_t table, std::uint64_t index) {
        return *memory.read<std::uint32_t>(Gpa{table + 4 * index});
    }
    void set32(std::uint64_t table, std::uint64_t index, std::uint64_t value) {
        ASSERT_TRUE(memory.write(Gpa{table + 4 * index}, static_cast<std::uint32_t>(value)));
    }
    std::optional<Gpa> read(std::uint64_t at) { return walk(memory, paging, {at}, Access::kRead); }
    std::optional<Gpa> write(std::uint64_t at) {
        return walk(memory, paging, {at}, Access::kWrite);
    }

    std::vector<std::byte> ram_, high_;
    GuestMemory memory;
    PagingState paging;
};

// ---- no paging ----------------------------------------------------------------------------------

TEST_F(PageWalk, WithoutPagingLinearIsPhysicalAnd32BitsWide) {
    for (const std::uint64_t cr0 : {std::uint64_t{0}, kPe, kPe | kWp}) {
        paging.cr0 = cr0;
        EXPECT_EQ(read(0x1234), Gpa{0x1234});
        EXPECT_EQ(write(0xffff'ffff), Gpa{0xffff'ffff});
        EXPECT_EQ(read(0x7'0000'1234), Gpa{0x1234});
    }
}

// ---- 32-bit -------------------------------------------------------------------------------------

// Directory at 0x1000, table at 0x2000: linear 0x00c05000 to 0x00c06fff.
class Walk32 : public PageWalk {
  protected:
    static constexpr std::uint64_t kLinear = 0x00c0'5000, kPde = 3, kPte = 5;
    Walk32() {
        paging = {.cr0 = kPg | kPe | kWp, .cr3 = 0x1000, .cr4 = 0, .efer = 0, .rflags = 2};
        set32(0x1000, kPde, 0x2000 | kP | kW);
        set32(0x2000, kPte, 0x30'0000 | kP | kW);
        set32(0x2000, kPte + 1, 0x50'0000 | kP | kW);
    }
};

TEST_F(Walk32, FourKilobytePages) {
    EXPECT_EQ(read(kLinear + 0x123), Gpa{0x30'0123});
    EXPECT_EQ(write(kLinear + 0x1fff), Gpa{0x50'0fff});
    EXPECT_FALSE(read(kLinear - 1).has_value());
    EXPECT_FALSE(read(kLinear + 0x2000).has_value());
    EXPECT_FALSE(read(0).has_value());
}

TEST_F(Walk32, TheUpperHalfOfALinearAddressIsNotThere) {
    EXPECT_EQ(read(0xabcd'0000'0000 + kLinear), Gpa{0x30'0000});
}

TEST_F(Walk32, Cr3sLowAndUpperBitsAreNoAddress) {
    paging.cr3 = 0xffff'ffff'0000'1fff;
    EXPECT_EQ(read(kLinear), Gpa{0x30'0000});
}

TEST_F(Walk32, AccessedAndDirtyExactlyAsNeeded) {
    ASSERT_TRUE(read(kLinear).has_value());
    EXPECT_EQ(entry32(0x1000, kPde), 0x2000 | kP | kW | kA);
    EXPECT_EQ(entry32(0x2000, kPte), 0x30'0000 | kP | kW | kA);
    EXPECT_EQ(entry32(0x2000, kPte + 1), 0x50'0000 | kP | kW);
    ASSERT_TRUE(write(kLinear).has_value());
    EXPECT_EQ(entry32(0x1000, kPde), 0x2000 | kP | kW | kA);
    EXPECT_EQ(entry32(0x2000, kPte), 0x30'0000 | kP | kW | kA | kD);
}

TEST_F(Walk32, ARefusedAccessLeavesItsPageAlone) {
    set32(0x2000, kPte, 0x30'0000 | kP);
    EXPECT_FALSE(write(kLinear).has_value());
    EXPECT_EQ(entry32(0x2000, kPte), 0x30'0000 | kP);
    set32(0x2000, kPte, 0x30'0000 | kW);
    EXPECT_FALSE(read(kLinear).has_value());
    EXPECT_EQ(entry32(0x2000, kPte), 0x30'0000 | kW);
}

TEST_F(Walk32, ReadOnlyPagesAndWriteProtect) {
    set32(0x2000, kPte, 0x30'0000 | kP);
    EXPECT_TRUE(read(kLinear).has_value());
    EXPECT_FALSE(write(kLinear).has_value());
    paging.cr0 &= ~kWp;
    EXPECT_EQ(write(kLinear), Gpa{0x30'0000});
    EXPECT_EQ(entry32(0x2000, kPte), 0x30'0000 | kP | kA | kD);
    // A directory that does not allow writing counts as much.
    paging.cr0 |= kWp;
    set32(0x2000, kPte, 0x30'0000 | kP | kW);
    set32(0x1000, kPde, 0x2000 | kP);
    EXPECT_FALSE(write(kLinear).has_value());
    EXPECT_TRUE(read(kLinear).has_value());
}

TEST_F(Walk32, LargePagesOnlyWithPse) {
    set32(0x1000, 1, 0x40'0000 | kP | kW | kPs);
    paging.cr4 = kPse;
    EXPECT_EQ(read(0x0040'0000), Gpa{0x40'0000});
    EXPECT_EQ(write(0x0071'2345), Gpa{0x71'2345});
    EXPECT_EQ(entry32(0x1000, 1), 0x40'0000 | kP | kW | kPs | kA | kD);
    // Without PSE the bit means nothing and the entry names a table.
    set32(0x1000, 1, 0x2000 | kP | kW | kPs);
    paging.cr4 = 0;
    EXPECT_EQ(read(0x0040'5000), Gpa{0x30'0000});
}

TEST_F(Walk32, Pse36ReachesAbove4GiB) {
    paging.cr4 = kPse;
    // 5 GiB is 0x1'4000'0000: bits 39 to 32 lie in the entry's bits 20 to 13.
    set32(0x1000, 1, 0x4000'0000u | (1u << 13) | kP | kW | kPs);
    EXPECT_EQ(read(0x0040'0010), Gpa{kHigh + 0x10});
    set32(0x1000, 1, (0xffu << 13) | kP | kW | kPs);
    EXPECT_EQ(read(0x0040'0000), Gpa{0xff'0000'0000});
}

TEST_F(Walk32, TablesOutsideMemoryTranslateNothing) {
    set32(0x1000, 2, 0x0080'0000 | kP | kW);  // just above RAM
    EXPECT_FALSE(read(2u << 22).has_value());
    paging.cr3 = 0x0080'0000;
    EXPECT_FALSE(read(kLinear).has_value());
    paging.cr3 = 0xffff'f000;
    EXPECT_FALSE(read(kLinear).has_value());
}

TEST_F(Walk32, ATableThatWasGivenBackTranslatesNothing) {
    memory.set_hole(2, true);
    EXPECT_FALSE(read(kLinear).has_value());
    memory.set_hole(2, false);
    EXPECT_TRUE(read(kLinear).has_value());
}

TEST_F(Walk32, SmapHidesUserPagesUnlessAcOpensThem) {
    set32(0x1000, kPde, 0x2000 | kP | kW | kU);
    set32(0x2000, kPte, 0x30'0000 | kP | kW | kU);
    EXPECT_TRUE(read(kLinear).has_value());
    paging.cr4 = kSmap;
    set32(0x2000, kPte, 0x30'0000 | kP | kW | kU);
    EXPECT_FALSE(read(kLinear).has_value());
    EXPECT_FALSE(write(kLinear).has_value());
    EXPECT_EQ(entry32(0x2000, kPte), 0x30'0000 | kP | kW | kU);
    paging.rflags |= kAc;
    EXPECT_TRUE(read(kLinear).has_value());
    EXPECT_TRUE(write(kLinear).has_value());
    // One level without the bit makes it a supervisor page.
    paging.rflags = 2;
    set32(0x1000, kPde, 0x2000 | kP | kW);
    EXPECT_TRUE(read(kLinear).has_value());
}

// ---- PAE ----------------------------------------------------------------------------------------

// Four pointers at 0x1020 (32-byte aligned only), directory 0x2000, table 0x3000.
class WalkPae : public PageWalk {
  protected:
    static constexpr std::uint64_t kLinear = 0x4060'7000;  // pointer 1, directory 3, table 7
    WalkPae() {
        paging = {.cr0 = kPg | kPe | kWp, .cr3 = 0x1020, .cr4 = kPae, .efer = 0, .rflags = 2};
        set64(0x1020, 1, 0x2000 | kP);
        set64(0x2000, 3, 0x3000 | kP | kW);
        set64(0x3000, 7, 0x30'0000 | kP | kW);
    }
};

TEST_F(WalkPae, FourKilobytePages) {
    EXPECT_EQ(read(kLinear + 5), Gpa{0x30'0005});
    EXPECT_EQ(read(0xf'0000'0000 + kLinear), Gpa{0x30'0000});
    EXPECT_FALSE(read(kLinear + 0x1000).has_value());
    EXPECT_FALSE(read(kLinear - 0x4000'0000).has_value());
}

TEST_F(WalkPae, PointersHaveNoAccessedBitAndGrantNothing) {
    ASSERT_TRUE(write(kLinear).has_value());
    EXPECT_EQ(entry64(0x1020, 1), 0x2000 | kP);
    EXPECT_EQ(entry64(0x2000, 3), 0x3000 | kP | kW | kA);
    EXPECT_EQ(entry64(0x3000, 7), 0x30'0000 | kP | kW | kA | kD);
}

TEST_F(WalkPae, TwoMegabytePages) {
    set64(0x2000, 4, 0x20'0000 | kP | kW | kPs);
    EXPECT_EQ(write(0x4080'0000 + 0x12345), Gpa{0x21'2345});
    EXPECT_EQ(entry64(0x2000, 4), 0x20'0000 | kP | kW | kPs | kA | kD);
    // Bit 12 of a large entry is the PAT's, no address.
    set64(0x2000, 4, 0x20'0000 | (1u << 12) | kP | kW | kPs);
    EXPECT_EQ(read(0x4080'0000), Gpa{0x20'0000});
}

TEST_F(WalkPae, PagesAbove4GiB) {
    set64(0x3000, 7, kHigh | kP | kW);
    EXPECT_EQ(read(kLinear + 8), Gpa{kHigh + 8});
}

TEST_F(WalkPae, NoExecuteIsReservedUntilEnabled) {
    set64(0x3000, 7, kNx | 0x30'0000 | kP | kW);
    EXPECT_FALSE(read(kLinear).has_value());
    EXPECT_EQ(entry64(0x3000, 7), kNx | 0x30'0000 | kP | kW);
    paging.efer = kNxe;
    EXPECT_EQ(read(kLinear), Gpa{0x30'0000});
}

// ---- 4 levels -----------------------------------------------------------------------------------

// 0x1000 -> 0x2000 -> 0x3000 -> 0x4000, linear 0xffff888003e0f000: 273, 0, 31, 15.
class Walk64 : public PageWalk {
  protected:
    static constexpr std::uint64_t kLinear = 0xffff'8880'03e0'f000;
    Walk64() {
        paging = {.cr0 = kPg | kPe | kWp,
                  .cr3 = 0x1000,
                  .cr4 = kPae,
                  .efer = kLma | (1u << 8) | kNxe,
                  .rflags = 2};
        set64(0x1000, 273, 0x2000 | kP | kW);
        set64(0x2000, 0, 0x3000 | kP | kW);
        set64(0x3000, 31, 0x4000 | kP | kW);
        set64(0x4000, 15, 0x30'0000 | kP | kW);
        set64(0x4000, 16, 0x50'0000 | kP | kW);
    }
};

TEST_F(Walk64, FourKilobytePages) {
    EXPECT_EQ(read(kLinear + 0xabc), Gpa{0x30'0abc});
    EXPECT_EQ(write(kLinear + 0x1000), Gpa{0x50'0000});
    EXPECT_FALSE(read(kLinear - 1).has_value());
    EXPECT_FALSE(read(0).has_value());
}

TEST_F(Walk64, EachLevelMustBePresent) {
    for (const auto& [table, index] : {std::pair<std::uint64_t, std::uint64_t>{0x1000, 273},
                                       {0x2000, 0},
                                       {0x3000, 31},
                                       {0x4000, 15}}) {
        const std::uint64_t entry = entry64(table, index);
        set64(table, index, entry & ~kP);
        EXPECT_FALSE(read(kLinear).has_value()) << table;
        set64(table, index, entry);
        EXPECT_TRUE(read(kLinear).has_value()) << table;
    }
}

TEST_F(Walk64, EachLevelMustAllowWriting) {
    for (const auto& [table, index] : {std::pair<std::uint64_t, std::uint64_t>{0x1000, 273},
                                       {0x2000, 0},
                                       {0x3000, 31},
                                       {0x4000, 15}}) {
        const std::uint64_t entry = entry64(table, index);
        set64(table, index, entry & ~kW);
        EXPECT_FALSE(write(kLinear).has_value()) << table;
        EXPECT_TRUE(read(kLinear).has_value()) << table;
        paging.cr0 &= ~kWp;
        EXPECT_TRUE(write(kLinear).has_value()) << table;
        paging.cr0 |= kWp;
        set64(table, index, entry);
    }
}

TEST_F(Walk64, AccessedOnEveryLevelDirtyOnTheLast) {
    ASSERT_TRUE(read(kLinear).has_value());
    EXPECT_EQ(entry64(0x1000, 273), 0x2000 | kP | kW | kA);
    EXPECT_EQ(entry64(0x2000, 0), 0x3000 | kP | kW | kA);
    EXPECT_EQ(entry64(0x3000, 31), 0x4000 | kP | kW | kA);
    EXPECT_EQ(entry64(0x4000, 15), 0x30'0000 | kP | kW | kA);
    ASSERT_TRUE(write(kLinear).has_value());
    EXPECT_EQ(entry64(0x1000, 273), 0x2000 | kP | kW | kA);
    EXPECT_EQ(entry64(0x2000, 0), 0x3000 | kP | kW | kA);
    EXPECT_EQ(entry64(0x3000, 31), 0x4000 | kP | kW | kA);
    EXPECT_EQ(entry64(0x4000, 15), 0x30'0000 | kP | kW | kA | kD);
}

TEST_F(Walk64, TwoMegabyteAndOneGigabytePages) {
    set64(0x3000, 32, 0x20'0000 | kP | kW | kPs);
    EXPECT_EQ(write(0xffff'8880'0400'0000 + 0x1'2345), Gpa{0x21'2345});
    EXPECT_EQ(entry64(0x3000, 32), 0x20'0000 | kP | kW | kPs | kA | kD);
    set64(0x2000, 1, 0x1'4000'0000 | kP | kW | kPs);
    EXPECT_EQ(read(0xffff'8880'4000'0000 + 0x2345'6789), Gpa{0x1'4000'0000 + 0x2345'6789});
    EXPECT_EQ(entry64(0x2000, 1), 0x1'4000'0000 | kP | kW | kPs | kA);
    // The PAT's bit 12 and reserved low address bits are no part of the address.
    set64(0x2000, 1, 0x1'4000'0000 | (1u << 12) | kP | kW | kPs);
    EXPECT_EQ(read(0xffff'8880'4000'0000), Gpa{0x1'4000'0000});
}

TEST_F(Walk64, PageSizeIsReservedInTheTopLevel) {
    set64(0x1000, 273, 0x2000 | kP | kW | kPs);
    EXPECT_FALSE(read(kLinear).has_value());
}

TEST_F(Walk64, PageSizeInTheLastLevelIsThePat) {
    set64(0x4000, 15, 0x30'0000 | kP | kW | kPs);
    EXPECT_EQ(read(kLinear + 7), Gpa{0x30'0007});
}

TEST_F(Walk64, NoExecuteIsReservedUntilEnabled) {
    for (const auto& [table, index] : {std::pair<std::uint64_t, std::uint64_t>{0x1000, 273},
                                       {0x2000, 0},
                                       {0x3000, 31},
                                       {0x4000, 15}}) {
        const std::uint64_t entry = entry64(table, index);
        set64(table, index, entry | kNx);
        EXPECT_TRUE(read(kLinear).has_value()) << table;
        paging.efer &= ~kNxe;
        EXPECT_FALSE(read(kLinear).has_value()) << table;
        paging.efer |= kNxe;
        set64(table, index, entry);
    }
}

TEST_F(Walk64, SmapAtEveryLevel) {
    paging.cr4 |= kSmap;
    EXPECT_TRUE(read(kLinear).has_value());  // supervisor pages
    for (const auto& [table, index] : {std::pair<std::uint64_t, std::uint64_t>{0x1000, 273},
                                       {0x2000, 0},
                                       {0x3000, 31},
                                       {0x4000, 15}}) {
        set64(table, index, entry64(table, index) | kU);
    }
    EXPECT_FALSE(read(kLinear).has_value());
    EXPECT_FALSE(write(kLinear).has_value());
    paging.rflags |= kAc;
    EXPECT_TRUE(write(kLinear).has_value());
    paging.rflags = 2;
    set64(0x3000, 31, entry64(0x3000, 31) & ~kU);
    EXPECT_TRUE(read(kLinear).has_value());
}

TEST_F(Walk64, NonCanonicalAddressesTranslateNothing) {
    // Index 256 (the lowest of the upper half) and 255 both lead somewhere.
    set64(0x1000, 256, 0x2000 | kP | kW);
    set64(0x1000, 255, 0x2000 | kP | kW);
    set64(0x2000, 0, 0x3000 | kP | kW);
    set64(0x3000, 0, 0x4000 | kP | kW);
    EXPECT_TRUE(read(0xffff'8000'0000'f000).has_value());
    EXPECT_FALSE(read(0x0000'8000'0000'f000).has_value());
    EXPECT_FALSE(read(0x0001'0000'0000'f000).has_value());
    EXPECT_FALSE(read(0xfffe'8000'0000'f000).has_value());
    EXPECT_FALSE(read(0x7fff'8000'0000'f000).has_value());
    EXPECT_TRUE(read(0x0000'7f80'0000'f000).has_value());
    EXPECT_FALSE(read(0x8000'7f80'0000'f000).has_value());
}

TEST_F(Walk64, Cr3sPcidIsNoAddress) {
    paging.cr3 = 0x1fff;
    EXPECT_TRUE(read(kLinear).has_value());
    paging.cr3 = (std::uint64_t{1} << 63) | 0x1018;
    EXPECT_TRUE(read(kLinear).has_value());
}

TEST_F(Walk64, TablesOutsideMemoryTranslateNothing) {
    for (const std::uint64_t nowhere :
         std::initializer_list<std::uint64_t>{0x80'0000, 0x2'0000'0000, 0x000f'ffff'ffff'f000}) {
        set64(0x3000, 31, nowhere | kP | kW);
        EXPECT_FALSE(read(kLinear).has_value()) << nowhere;
    }
    paging.cr3 = 0x000f'ffff'ffff'f000;
    EXPECT_FALSE(read(kLinear).has_value());
}

// ---- copies -------------------------------------------------------------------------------------

TEST_F(Walk64, CopiesCrossPagesThatLieApart) {
    const std::array<std::uint8_t, 8> data = {1, 2, 3, 4, 5, 6, 7, 8};
    ASSERT_TRUE(
        LinearMemory(memory, paging).write({kLinear + 0xffd}, std::as_bytes(std::span(data))));
    EXPECT_EQ(*memory.read<std::uint8_t>(Gpa{0x30'0ffd}), 1);
    EXPECT_EQ(*memory.read<std::uint8_t>(Gpa{0x30'0fff}), 3);
    EXPECT_EQ(*memory.read<std::uint8_t>(Gpa{0x50'0000}), 4);
    EXPECT_EQ(*memory.read<std::uint8_t>(Gpa{0x50'0004}), 8);
    EXPECT_EQ(entry64(0x4000, 15) & kD, kD);
    EXPECT_EQ(entry64(0x4000, 16) & kD, kD);
    std::array<std::uint8_t, 8> back{};
    ASSERT_TRUE(LinearMemory(memory, paging)
                    .read({kLinear + 0xffd}, std::as_writable_bytes(std::span(back))));
    EXPECT_EQ(back, data);
}

TEST_F(Walk64, CopiesIntoNowhereFail) {
    std::array<std::byte, 8> data{};
    EXPECT_FALSE(LinearMemory(memory, paging).read({kLinear + 0x1ffc}, data));
    EXPECT_FALSE(LinearMemory(memory, paging).write({kLinear + 0x1ffc}, data));
    EXPECT_FALSE(LinearMemory(memory, paging).read({kLinear - 4}, data));
    EXPECT_TRUE(LinearMemory(memory, paging).read({kLinear}, {}));
    // A page that maps to where there is no memory.
    set64(0x4000, 15, 0x80'0000 | kP | kW);
    EXPECT_FALSE(LinearMemory(memory, paging).read({kLinear}, data));
    EXPECT_FALSE(LinearMemory(memory, paging).write({kLinear}, data));
    // And the last byte of the address space.
    EXPECT_FALSE(LinearMemory(memory, paging).read({~std::uint64_t{0}}, data));
}

// A page that a grant is mapped at holds nothing for us, also when it became so after the walk.
TEST_F(Walk64, ForeignPagesCannotBeHad) {
    LinearMemory linear(memory, paging);
    std::array<std::byte, 8> data{};
    EXPECT_TRUE(linear.read({kLinear}, data));
    EXPECT_TRUE(linear.write({kLinear}, data));
    const std::uint64_t gfn = linear.translate({kLinear}, Access::kRead)->gfn();
    memory.set_foreign(gfn, true);
    EXPECT_TRUE(memory.is_foreign(gfn));
    EXPECT_FALSE(memory.is_foreign(gfn + 1));
    EXPECT_FALSE(linear.read({kLinear}, data));
    EXPECT_FALSE(linear.write({kLinear}, data));
    EXPECT_FALSE(linear.translate({kLinear}, Access::kRead));
    // The half of it that lies in the next page is of no use.
    EXPECT_FALSE(linear.read({kLinear + 0xffc}, data));
    EXPECT_TRUE(linear.read({kLinear + 0x1000}, data));
    // By its gfn it is memory like any other.
    EXPECT_TRUE(memory.read(gfn_to_gpa(gfn), data));
    memory.set_foreign(gfn, false);
    EXPECT_TRUE(linear.read({kLinear}, data));
}

TEST_F(Walk64, AReadDirtiesNothing) {
    std::array<std::byte, 8> data{};
    ASSERT_TRUE(LinearMemory(memory, paging).read({kLinear + 0xffc}, data));
    EXPECT_EQ(entry64(0x4000, 15) & kD, 0u);
    EXPECT_EQ(entry64(0x4000, 16) & kD, 0u);
    EXPECT_EQ(entry64(0x4000, 16) & kA, kA);
}

}  // namespace
}  // namespace vmm
