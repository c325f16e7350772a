#include "vmm/boot/elf.h"

#include <gtest/gtest.h>

#include "tests/unit/vmm/boot/elf_builder.h"

namespace vmm::boot {
namespace {

using namespace testing;

constexpr Flavour kBoth[] = {Flavour::kPvh, Flavour::kHvm};

Result<Elf> parse(const ByteVector& file) {
    return parse_elf(file, "image");
}

Result<std::uint32_t> entry_of(const TestElf& elf, Flavour flavour) {
    const Elf parsed = TRY(parse(elf.build()));
    return entry_point(parsed, flavour, "image");
}

// The text of a refusal; empty when there was none.
template <class T>
std::string refusal(const Result<T>& result) {
    if (result) return {};
    EXPECT_EQ(result.error().fault, Fault::kUser);
    EXPECT_EQ(result.error().what.rfind("image: ", 0), 0u) << result.error().what;
    return result.error().what;
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

// Image format.

TEST(ContractSection2, BothClassesOfBothMachinesAreAccepted) {
    for (const int bits : {32, 64}) {
        for (const int machine : {EM_386, EM_X86_64}) {
            TestElf elf = small_kernel();
            elf.bits = bits;
            elf.machine = static_cast<std::uint16_t>(machine);
            const auto parsed = parse(elf.build());
            ASSERT_TRUE(parsed) << bits << " bits, machine " << machine;
            EXPECT_EQ(parsed->is_64bit, bits == 64);
            EXPECT_EQ(parsed->segments.size(), 1u);
            EXPECT_EQ(parsed->notes.phys32_entry, 0x10'0000u);
        }
    }
}

TEST(ContractSection2, OtherMachinesAreRefused) {
    TestElf elf = small_kernel();
    elf.machine = EM_AARCH64;
    EXPECT_TRUE(contains(refusal(parse(elf.build())), "not for x86"));
}

TEST(ContractSection2, BigEndianIsRefused) {
    ByteVector file = small_kernel().build();
    file[EI_DATA] = std::byte{ELFDATA2MSB};
    EXPECT_TRUE(contains(refusal(parse(file)), "little-endian"));
}

TEST(ContractSection2, AnUnknownClassIsRefused) {
    ByteVector file = small_kernel().build();
    file[EI_CLASS] = std::byte{3};
    EXPECT_TRUE(contains(refusal(parse(file)), "neither 32 nor 64 bits"));
}

TEST(ContractSection2, OnlyExecutablesAreAccepted) {
    TestElf elf = small_kernel();
    elf.type = ET_DYN;
    EXPECT_TRUE(contains(refusal(parse(elf.build())), "position-independent"));
    elf.type = ET_REL;
    EXPECT_TRUE(contains(refusal(parse(elf.build())), "not an executable"));
}

// Notes.

TEST(ContractSection2, EveryNoteSegmentIsRead) {
    TestElf elf = small_kernel();
    elf.note_segments.insert(elf.note_segments.begin(),
                             encode({{.owner = "GNU", .type = 3, .desc = bytes("build-id")}}));
    EXPECT_EQ(parse(elf.build())->notes.phys32_entry, 0x10'0000u);
}

TEST(ContractSection2, EveryNoteOfASegmentIsReadWithNamesAndDescriptorsPaddedToFourBytes) {
    TestElf elf = small_kernel();
    elf.note_segments = {encode({{.owner = "Linux", .type = 1, .desc = bytes("12345")},
                                 {.type = 6, .desc = bytes("linux")},
                                 {.type = 7, .desc = bytes("2.6")},
                                 {.type = 8, .desc = bytes("generic")},
                                 {.owner = "GNU", .type = 18, .desc = desc32(1)},
                                 {.type = 18, .desc = desc64(0x10'0001)},
                                 {.type = 17, .desc = desc32(0)}})};
    const auto parsed = parse(elf.build());
    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->notes.phys32_entry, 0x10'0001u);
    EXPECT_EQ(parsed->notes.guest_os, "linux");
    EXPECT_EQ(parsed->notes.guest_version, "2.6");
    EXPECT_EQ(parsed->notes.loader, "generic");
}

TEST(ContractSection2, NoteSectionsAreReadWhenThereIsNoNoteSegment) {
    for (const int bits : {32, 64}) {
        TestElf elf = small_kernel();
        elf.bits = bits;
        std::swap(elf.note_sections, elf.note_segments);
        EXPECT_EQ(parse(elf.build())->notes.phys32_entry, 0x10'0000u);
    }
}

TEST(ContractSection2, NoteSectionsAreReadWhenNoNoteSegmentHasAXenNote) {
    TestElf elf = small_kernel();
    std::swap(elf.note_sections, elf.note_segments);
    elf.note_segments = {encode({{.owner = "GNU", .type = 18, .desc = desc32(1)}})};
    EXPECT_EQ(parse(elf.build())->notes.phys32_entry, 0x10'0000u);
}

TEST(ContractSection2, NoteSectionsAreNotReadWhenANoteSegmentHasAXenNote) {
    TestElf elf = small_kernel();
    elf.note_sections = {encode({{.desc = desc32(0x10'0002)}})};
    EXPECT_EQ(parse(elf.build())->notes.phys32_entry, 0x10'0000u);
}

TEST(ContractSection2, TheEntryNoteHasFourOrEightBytes) {
    TestElf elf = small_kernel();
    elf.note_segments = {encode({{.desc = desc64(0x10'0003)}})};
    EXPECT_EQ(parse(elf.build())->notes.phys32_entry, 0x10'0003u);
    elf.note_segments = {encode({{.desc = desc32(0x10'0004)}})};
    EXPECT_EQ(parse(elf.build())->notes.phys32_entry, 0x10'0004u);
    for (const char* desc : {"", "1", "12345", "123456789"}) {
        elf.note_segments = {encode({{.desc = bytes(desc)}})};
        EXPECT_TRUE(contains(refusal(parse(elf.build())), "PHYS32_ENTRY note has"));
    }
}

TEST(ContractSection2, EntryAddressZeroIsLegal) {
    TestElf elf = small_kernel(0);
    elf.note_segments = {encode({{.desc = desc32(0)}})};
    for (const Flavour flavour : kBoth) {
        const auto entry = entry_of(elf, flavour);
        ASSERT_TRUE(entry);
        EXPECT_EQ(*entry, 0u);
    }
}

// The table of entry points.

TEST(ContractSection2, EntryNoteDecidesForBothFlavours) {
    for (const int bits : {32, 64}) {
        TestElf elf = small_kernel();
        elf.bits = bits;
        elf.entry = 0x10'0005;
        elf.note_segments = {encode({{.desc = desc32(0x10'0002)}})};
        for (const Flavour flavour : kBoth)
            EXPECT_EQ(entry_of(elf, flavour).value_or(0), 0x10'0002u);
    }
}

TEST(ContractSection2, NoXenNoteAtAllMeansTheHeadersEntryForHvm) {
    TestElf elf = small_kernel();
    elf.entry = 0x10'0005;
    elf.note_segments = {encode({{.owner = "GNU", .type = 18, .desc = desc32(1)}})};
    EXPECT_EQ(entry_of(elf, Flavour::kHvm).value_or(0), 0x10'0005u);
    elf.note_segments = {};
    EXPECT_EQ(entry_of(elf, Flavour::kHvm).value_or(0), 0x10'0005u);
    elf.machine = EM_X86_64;  // in a 32-bit container: as good as any
    EXPECT_EQ(entry_of(elf, Flavour::kHvm).value_or(0), 0x10'0005u);
}

TEST(ContractSection2, NoXenNoteAtAllIsRefusedForHvmIn64Bits) {
    TestElf elf = small_kernel();
    elf.bits = 64;
    elf.note_segments = {};
    EXPECT_TRUE(contains(refusal(entry_of(elf, Flavour::kHvm)), "64-bit ELF without Xen notes"));
}

TEST(ContractSection2, NoXenNoteAtAllIsRefusedForPvh) {
    TestElf elf = small_kernel();
    elf.note_segments = {};
    EXPECT_TRUE(contains(refusal(entry_of(elf, Flavour::kPvh)), "not a PVH kernel"));
}

TEST(ContractSection2, XenNotesWithoutEntryNoteAreRefusedForBothFlavours) {
    TestElf elf = small_kernel();
    elf.note_segments = {encode({{.type = 6, .desc = bytes("linux")}})};
    for (const Flavour flavour : kBoth) {
        EXPECT_TRUE(contains(refusal(entry_of(elf, flavour)),
                             "image not capable of booting inside a HVM container"));
    }
}

// What no table says: hostile and broken files.

TEST(Elf, AnEntryOutsideEverySegmentIsRefused) {
    for (const std::uint64_t entry : {std::uint64_t{0}, std::uint64_t{0xf'ffff},
                                      std::uint64_t{0x10'0006}, std::uint64_t{UINT64_MAX}}) {
        TestElf elf = small_kernel();
        elf.bits = 64;
        elf.note_segments = {encode({{.desc = desc64(entry)}})};
        EXPECT_TRUE(contains(refusal(entry_of(elf, Flavour::kPvh)), "outside all of its segments"));
    }
}

TEST(Elf, AnEntryAbove4GiBIsRefused) {
    TestElf elf = small_kernel(0x1'0000'0000);
    elf.bits = 64;
    elf.note_segments = {encode({{.desc = desc64(0x1'0000'0000)}})};
    EXPECT_TRUE(contains(refusal(entry_of(elf, Flavour::kPvh)), "not below 4 GiB"));
}

TEST(Elf, OtherFilesAreRefused) {
    EXPECT_TRUE(contains(refusal(parse({})), "not an ELF file"));
    EXPECT_TRUE(contains(refusal(parse(bytes("#!/bin/sh\n"))), "not an ELF file"));
    EXPECT_TRUE(contains(refusal(parse(ByteVector(100'000))), "not an ELF file"));
}

TEST(Elf, AFileWithNothingToLoadIsRefused) {
    TestElf elf = small_kernel();
    elf.segments = {};
    EXPECT_TRUE(contains(refusal(parse(elf.build())), "without anything to load"));
    elf.segments = {{.physical = 0x1000}};
    EXPECT_TRUE(contains(refusal(parse(elf.build())), "without anything to load"));
}

TEST(Elf, ASegmentLargerInTheFileThanInMemoryIsRefused) {
    TestElf elf = small_kernel();
    elf.segments[0].tail = UINT64_MAX;  // memory size is one byte less than file size
    for (const int bits : {32, 64}) {
        elf.bits = bits;
        EXPECT_TRUE(contains(refusal(parse(elf.build())), "larger in the file than in memory"));
    }
}

TEST(Elf, ASegmentThatWrapsAroundIsRefused) {
    TestElf elf = small_kernel(UINT64_MAX - 4);
    elf.bits = 64;
    EXPECT_TRUE(contains(refusal(parse(elf.build())), "wraps around"));
}

TEST(Elf, OffsetsThatWrapAroundAreRefused) {
    TestElf elf = small_kernel();
    elf.bits = 64;
    const ByteVector good = elf.build();
    for (const std::uint64_t evil : {UINT64_MAX, UINT64_MAX - 7, std::uint64_t{1} << 63}) {
        ByteVector file = good;
        poke(file, offsetof(Elf64_Ehdr, e_phoff), evil);
        EXPECT_TRUE(contains(refusal(parse(file)), "program headers"));
        file = good;
        poke(file, sizeof(Elf64_Ehdr) + offsetof(Elf64_Phdr, p_offset), evil);
        EXPECT_TRUE(contains(refusal(parse(file)), "beyond the end"));
        file = good;  // the PT_NOTE
        poke(file, sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr) + offsetof(Elf64_Phdr, p_filesz), evil);
        EXPECT_TRUE(contains(refusal(parse(file)), "notes lie beyond"));
    }
}

TEST(Elf, ProgramHeadersOfAnotherSizeAreReadByTheirStrideOrRefused) {
    ByteVector file = small_kernel().build();
    poke<std::uint16_t>(file, offsetof(Elf32_Ehdr, e_phentsize), sizeof(Elf32_Phdr) - 1);
    EXPECT_FALSE(parse(file));
    poke<std::uint16_t>(file, offsetof(Elf32_Ehdr, e_phentsize), 0);
    EXPECT_FALSE(parse(file));
}

TEST(Elf, ANoteThatRunsOverTheEndEndsTheNotesBeforeIt) {
    TestElf elf = small_kernel();
    for (const std::uint32_t size : {5U, 0x7fff'ffffU, 0xffff'fffdU, 0xffff'ffffU}) {
        ByteVector notes =
            encode({{.desc = desc32(0x10'0002)}, {.type = 6, .desc = bytes("os!!")}});
        poke(notes, 20 + offsetof(Elf32_Nhdr, n_descsz), size);
        elf.note_segments = {notes};
        auto parsed = parse(elf.build());
        ASSERT_TRUE(parsed);
        EXPECT_EQ(parsed->notes.phys32_entry, 0x10'0002u);
        EXPECT_EQ(parsed->notes.guest_os, "");
        poke(notes, 20 + offsetof(Elf32_Nhdr, n_namesz), size);
        elf.note_segments = {notes};
        EXPECT_TRUE(parse(elf.build()));
    }
}

TEST(Elf, ManyNotesOrSegmentsDoNotKeepUsBusy) {
    TestElf elf = small_kernel();
    elf.note_segments = {ByteVector(120'000)};  // empty notes of nobody
    EXPECT_TRUE(contains(refusal(parse(elf.build())), "too many ELF notes"));

    elf = small_kernel();
    elf.segments.resize(60'000, elf.segments[0]);
    EXPECT_TRUE(contains(refusal(parse(elf.build())), "too many segments"));
}

TEST(Elf, NoteTextsAreNotPassedToTheTerminalAsTheyAre) {
    TestElf elf = small_kernel();
    elf.note_segments = {
        encode({{.type = 6, .desc = bytes("\x1b[2Jx")}, {.desc = desc32(0x10'0000)}})};
    EXPECT_EQ(parse(elf.build())->notes.guest_os, "?[2Jx");
    elf.note_segments = {encode({{.type = 6, .desc = ByteVector(5000, std::byte{'a'})}})};
    EXPECT_EQ(parse(elf.build())->notes.guest_os.size(), 64u);
}

TEST(Elf, TruncatedAnywhereItIsRefusedOrComplete) {
    for (const int bits : {32, 64}) {
        for (const bool in_section : {false, true}) {
            TestElf elf = small_kernel();
            elf.bits = bits;
            elf.segments.push_back({.physical = 0x20'0000, .data = bytes("second"), .tail = 100});
            if (in_section) std::swap(elf.note_sections, elf.note_segments);
            const ByteVector whole = elf.build();
            for (std::size_t size = 0; size < whole.size(); ++size) {
                // A copy of its own, so that a sanitizer sees every byte too many.
                const ByteVector part(whole.begin(), whole.begin() + static_cast<long>(size));
                const auto parsed = parse(part);
                EXPECT_FALSE(parsed) << size << " of " << whole.size();
                refusal(parsed);
            }
            EXPECT_TRUE(parse(whole));
        }
    }
}

}  // namespace
}  // namespace vmm::boot
