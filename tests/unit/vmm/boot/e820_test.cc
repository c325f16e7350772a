#include "vmm/boot/e820.h"

#include <gtest/gtest.h>

#include "vmm/boot/layout.h"

namespace vmm::boot {
namespace {

using enum MemoryType;

constexpr std::uint64_t kMiB = 1 << 20;

std::uint64_t ram_in(const std::vector<MemoryMapEntry>& map) {
    std::uint64_t sum = 0;
    for (const MemoryMapEntry& e : map)
        sum += e.type == kRam ? e.size : 0;
    return sum;
}

bool overlaps(const MemoryMapEntry& e, Gpa at, std::uint64_t size) {
    return e.base.value < at.value + size && at.value < e.base.value + e.size;
}

// xen-417-golden.md, section A.
TEST(ContractSection5, TheMapOfASmallGuestIsXens) {
    const std::vector<MemoryMapEntry> expected = {
        {Gpa{0}, 128 * kMiB, kRam},       {Gpa{0xfeff8000}, 0x8000, kReserved},
        {Gpa{0xfc008000}, 0x40, kAcpi},   {Gpa{0xfc000000}, 0x1000, kAcpi},
        {Gpa{0xfc001000}, 0x7000, kAcpi},
    };
    EXPECT_EQ(build_memory_map(128 * kMiB, Acpi::kPresent), expected);
}

TEST(ContractSection5, WithoutAcpiThereAreNoAcpiRanges) {
    const std::vector<MemoryMapEntry> expected = {
        {Gpa{0}, 128 * kMiB, kRam},
        {Gpa{0xfeff8000}, 0x8000, kReserved},
    };
    EXPECT_EQ(build_memory_map(128 * kMiB, Acpi::kAbsent), expected);
}

TEST(ContractSection5, RamIsOnePieceFromZeroToTheHoleAndGoesOnAt4GiB) {
    for (const std::uint64_t ram : {3839 * kMiB, 3840 * kMiB, 3841 * kMiB, 9000 * kMiB}) {
        const auto map = build_memory_map(ram, Acpi::kPresent);
        EXPECT_EQ(ram_in(map), ram);
        EXPECT_EQ(map.front().base, Gpa{0});
        EXPECT_EQ(map.front().size, std::min<std::uint64_t>(ram, 0xf000'0000));
        if (ram <= 0xf000'0000) {
            EXPECT_EQ(map.size(), 5u);
        } else {
            EXPECT_EQ(map.back(), (MemoryMapEntry{Gpa{0x1'0000'0000}, ram - 0xf000'0000, kRam}));
        }
    }
}

TEST(ContractSection5, SpecialPagesAcpiAndApicsAreInNoRamEntry) {
    for (const MemoryMapEntry& e : build_memory_map(64'000 * kMiB, Acpi::kPresent)) {
        if (e.type != kRam) continue;
        EXPECT_FALSE(overlaps(e, layout::kSpecialPages, layout::kSpecialPagesSize));
        EXPECT_FALSE(overlaps(e, layout::kAcpiStart, layout::kAcpiSize));
        EXPECT_FALSE(overlaps(e, layout::kIoApic, kPageSize));
        EXPECT_FALSE(overlaps(e, layout::kLocalApic, kPageSize));
    }
}

TEST(E820, AGuestWithoutRamHasNoRamEntry) {
    EXPECT_EQ(ram_in(build_memory_map(0, Acpi::kPresent)), 0u);
    EXPECT_EQ(build_memory_map(0, Acpi::kPresent).front().type, kReserved);
}

}  // namespace
}  // namespace vmm::boot
