#include "vmm/boot/loader.h"

#include <algorithm>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <unistd.h>

#include <sys/mman.h>

#include <gtest/gtest.h>

#include "tests/unit/vmm/boot/elf_builder.h"
#include "tests/unit/vmm/boot/packed.h"
#include "vmm/boot/layout.h"

namespace vmm::boot {
namespace {

using namespace testing;

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kGiB = 1 << 30;

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

// Guest RAM of `size` bytes as a real guest has it: a piece below the hole, the rest above 4 GiB.
class TestGuest {
  public:
    explicit TestGuest(std::uint64_t size)
        : size_(size),
          host_(
              static_cast<std::byte*>(::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))),
          map_(build_memory_map(size, Acpi::kPresent)) {
        ::madvise(host_, size, MADV_NOHUGEPAGE);  // pages are counted below
        const std::uint64_t low = std::min(size, layout::kHoleStart.value);
        memory_.add_region(Gpa{0}, low, host_);
        if (size > low) memory_.add_region(layout::kHighRam, size - low, host_ + low);
    }
    TestGuest(const TestGuest&) = delete;
    TestGuest& operator=(const TestGuest&) = delete;
    ~TestGuest() { ::munmap(host_, size_); }

    LoadRequest request(const ByteVector& kernel) const {
        return {.flavour = Flavour::kPvh,
                .kernel_name = "image",
                .kernel = kernel,
                .cmdline = "",
                .modules = {},
                .map = map_,
                .rsdp = layout::kAcpiRsdp};
    }
    Result<BootInfo> load(const LoadRequest& request) { return boot::load(memory_, request); }
    Result<BootInfo> load(const TestElf& elf) {
        const ByteVector kernel = elf.build();
        return load(request(kernel));
    }

    ByteVector at(std::uint64_t gpa, std::size_t size) const {
        ByteVector copy(size);
        EXPECT_TRUE(memory_.read(Gpa{gpa}, copy));
        return copy;
    }
    template <class T>
    T get(std::uint64_t gpa) const {
        T value{};
        EXPECT_TRUE(memory_.read(Gpa{gpa}, std::as_writable_bytes(std::span(&value, 1))));
        return value;
    }
    std::string text(std::uint64_t gpa) const {
        std::string s;
        while (const char c = get<char>(gpa++))
            s += c;
        return s;
    }
    void dirty(std::byte with) { std::fill(host_, host_ + size_, with); }
    bool all(std::byte value) const {
        return std::all_of(host_, host_ + size_, [&](std::byte b) { return b == value; });
    }
    // How many pages of the host's memory the guest takes.
    std::size_t resident_pages() const {
        std::vector<unsigned char> pages(size_ / kPageSize);
        EXPECT_EQ(::mincore(host_, size_, pages.data()), 0);
        return static_cast<std::size_t>(std::count_if(
            pages.begin(), pages.end(), [](unsigned char p) { return (p & 1) != 0; }));
    }
    GuestMemory& memory() { return memory_; }

  private:
    std::uint64_t size_;
    std::byte* host_;
    GuestMemory memory_;
    std::vector<MemoryMapEntry> map_;
};

// As a guest reads it (Xen's public/arch-x86/hvm/start_info.h), by offsets.
struct StartInfo {
    std::uint32_t magic, version, flags, nr_modules;
    std::uint64_t modlist, cmdline, rsdp, memmap;
    std::uint32_t memmap_entries, reserved;
};
struct ModuleEntry {
    std::uint64_t paddr, size, cmdline, reserved;
};
struct MapEntry {
    std::uint64_t addr, size;
    std::uint32_t type, reserved;
};

StartInfo start_info(const TestGuest& guest, const BootInfo& info) {
    return guest.get<StartInfo>(info.start_info.value);
}

struct Block {
    const char* what;
    std::uint64_t at, size;
};

// start_info and everything it points to.
std::vector<Block> blocks_of(const TestGuest& guest, const BootInfo& info) {
    const StartInfo si = start_info(guest, info);
    std::vector<Block> blocks = {{"start_info", info.start_info.value, 56},
                                 {"memmap", si.memmap, 24ULL * si.memmap_entries}};
    if (si.nr_modules != 0) blocks.push_back({"modlist", si.modlist, 32ULL * si.nr_modules});
    if (si.cmdline != 0)
        blocks.push_back({"cmdline", si.cmdline, guest.text(si.cmdline).size() + 1});
    for (std::uint64_t i = 0; i < si.nr_modules; ++i) {
        const auto m = guest.get<ModuleEntry>(si.modlist + 32 * i);
        blocks.push_back({"module", m.paddr, m.size});
        if (m.cmdline != 0) {
            blocks.push_back({"module cmdline", m.cmdline, guest.text(m.cmdline).size() + 1});
        }
    }
    return blocks;
}

// Image format.

TEST(ContractSection2, SegmentsAreLoadedByPhysicalAddressWhateverTheVirtualOneAndTheAlignment) {
    for (const std::uint64_t physical : {0x0ULL, 0x10'0000ULL, 0x20'0000ULL, 0x12'3457ULL}) {
        for (const int bits : {32, 64}) {
            TestGuest guest(16 * kMiB);
            TestElf elf = small_kernel(physical);
            elf.bits = bits;
            elf.segments[0].virtual_address = 0x80'0000;
            elf.segments[0].align = 0x20'0000;
            const auto info = guest.load(elf);
            ASSERT_TRUE(info) << info.error().what;
            EXPECT_EQ(info->entry, physical);
            EXPECT_EQ(guest.at(physical, 6), bytes("kernel"));
            EXPECT_EQ(guest.at(0x80'0000, 6), ByteVector(6));
            EXPECT_EQ(info->image_start, Gpa{physical});
            EXPECT_EQ(info->image_end, Gpa{physical + 6});
        }
    }
}

TEST(ContractSection2, SegmentsMayBeUnsortedAndHaveAnyPermissions) {
    TestGuest guest(16 * kMiB);
    TestElf elf = small_kernel(0x30'0000);
    elf.segments.push_back({.physical = 0x10'0000, .data = bytes("low"), .flags = PF_R});
    elf.segments.push_back({.physical = 0x20'0000, .data = bytes("middle"), .flags = 0});
    const auto info = guest.load(elf);
    ASSERT_TRUE(info);
    EXPECT_EQ(guest.at(0x10'0000, 3), bytes("low"));
    EXPECT_EQ(guest.at(0x20'0000, 6), bytes("middle"));
    EXPECT_EQ(guest.at(0x30'0000, 6), bytes("kernel"));
    EXPECT_EQ(info->image_start, Gpa{0x10'0000});
    EXPECT_EQ(info->image_end, Gpa{0x30'0006});
}

TEST(ContractSection2, TailsOfMegabytesAreZeroed) {
    TestElf elf = small_kernel();
    elf.segments[0].tail = 3 * kMiB;
    for (const bool zeroed : {true, false}) {
        TestGuest guest(8 * kMiB);
        if (!zeroed) guest.dirty(std::byte{0xa5});
        const ByteVector kernel = elf.build();
        LoadRequest request = guest.request(kernel);
        request.memory_is_zero = zeroed;
        ASSERT_TRUE(guest.load(request));
        EXPECT_EQ(guest.at(0x10'0000, 6), bytes("kernel"));
        EXPECT_EQ(guest.at(0x10'0006, 3 * kMiB), ByteVector(3 * kMiB));
        if (!zeroed) {
            EXPECT_EQ(guest.get<std::uint8_t>(0xf'ffff), 0xa5);
            EXPECT_EQ(guest.get<std::uint8_t>(0x10'0006 + 3 * kMiB), 0xa5);
        }
    }
}

TEST(ContractSection2, ZeroesInTheFileAreLoadedOverOldMemory) {
    TestGuest guest(8 * kMiB);
    guest.dirty(std::byte{0xa5});
    TestElf elf = small_kernel();
    elf.segments[0].data = ByteVector(10'000);
    const ByteVector kernel = elf.build();
    LoadRequest request = guest.request(kernel);
    request.memory_is_zero = false;
    ASSERT_TRUE(guest.load(request));
    EXPECT_EQ(guest.at(0x10'0000, 10'000), ByteVector(10'000));
}

TEST(ContractSection2, ASegmentOutsideRamIsRefusedWithNoGuestMemoryWritten) {
    struct Case {
        std::uint64_t at, size;
    };
    constexpr std::uint64_t kRam = 4 * kMiB;
    for (const Case c :
         {Case{kRam - 1, 2}, Case{kRam, 1}, Case{0xfc00'0000, 4096}, Case{0xfeff'8000, 16},
          Case{0x1'0000'0000, 1}, Case{UINT64_MAX - 1, 1}, Case{0x20'0000, kRam}}) {
        TestGuest guest(kRam);
        TestElf elf = small_kernel();
        elf.bits = 64;
        elf.segments.push_back({.physical = c.at, .data = bytes("x"), .tail = c.size - 1});
        const auto info = guest.load(elf);
        ASSERT_FALSE(info) << c.at;
        EXPECT_EQ(info.error().fault, Fault::kUser);
        EXPECT_TRUE(contains(info.error().what, "image: the segment")) << info.error().what;
        EXPECT_TRUE(contains(info.error().what, "outside the guest's RAM")) << info.error().what;
        EXPECT_TRUE(guest.all(std::byte{0}));
    }
}

TEST(ContractSection2, EntryAddressZeroIsLoadedAndEntered) {
    TestGuest guest(16 * kMiB);
    for (const Flavour flavour : {Flavour::kPvh, Flavour::kHvm}) {
        const ByteVector kernel = small_kernel(0).build();
        LoadRequest request = guest.request(kernel);
        request.flavour = flavour;
        const auto info = guest.load(request);
        ASSERT_TRUE(info);
        EXPECT_EQ(info->entry, 0u);
        EXPECT_EQ(guest.at(0, 6), bytes("kernel"));
    }
}

TEST(ContractSection3, StartInfoIsThereAndNotAtZeroForBothFlavours) {
    for (const Flavour flavour : {Flavour::kPvh, Flavour::kHvm}) {
        TestGuest guest(0x1'0000);  // so little that only the lowest memory is left
        TestElf elf = small_kernel(0x8000);
        elf.segments[0].tail = 0x7000;
        const ByteVector kernel = elf.build();
        LoadRequest request = guest.request(kernel);
        request.flavour = flavour;
        const auto info = guest.load(request);
        ASSERT_TRUE(info) << info.error().what;
        EXPECT_EQ(info->start_info, Gpa{0x1000});
        EXPECT_EQ(start_info(guest, *info).magic, 0x336ec578u);
    }
}

// Start info.

TEST(ContractSection4, StartInfoIsVersion1) {
    TestGuest guest(16 * kMiB);
    const ByteVector kernel = small_kernel().build();
    LoadRequest request = guest.request(kernel);
    request.cmdline = "console=hvc0 quiet";
    const auto info = guest.load(request);
    ASSERT_TRUE(info);
    const StartInfo si = start_info(guest, *info);
    EXPECT_EQ(si.magic, 0x336ec578u);
    EXPECT_EQ(si.version, 1u);
    EXPECT_EQ(si.flags, 0u);
    EXPECT_EQ(si.nr_modules, 0u);
    EXPECT_EQ(si.modlist, 0u);
    EXPECT_EQ(si.rsdp, 0xfc00'8000u);
    EXPECT_EQ(si.memmap_entries, 5u);
    EXPECT_EQ(si.reserved, 0u);
    EXPECT_EQ(guest.text(si.cmdline), "console=hvc0 quiet");
}

TEST(ContractSection4, WithoutACommandLineItsAddressIsZero) {
    TestGuest guest(16 * kMiB);
    const auto info = guest.load(small_kernel());
    ASSERT_TRUE(info);
    EXPECT_EQ(start_info(guest, *info).cmdline, 0u);
}

TEST(ContractSection4, WithoutAcpiTheRsdpIsZero) {
    TestGuest guest(16 * kMiB);
    const ByteVector kernel = small_kernel().build();
    LoadRequest request = guest.request(kernel);
    request.rsdp = Gpa{0};
    const auto info = guest.load(request);
    ASSERT_TRUE(info);
    EXPECT_EQ(start_info(guest, *info).rsdp, 0u);
}

TEST(ContractSection4, TheMapIsTheMachinesInItsOrder) {
    TestGuest guest(16 * kMiB);
    const ByteVector kernel = small_kernel().build();
    const LoadRequest request = guest.request(kernel);
    const auto info = guest.load(request);
    ASSERT_TRUE(info);
    const StartInfo si = start_info(guest, *info);
    ASSERT_EQ(si.memmap_entries, request.map.size());
    for (std::size_t i = 0; i < request.map.size(); ++i) {
        const auto e = guest.get<MapEntry>(si.memmap + 24 * i);
        EXPECT_EQ(e.addr, request.map[i].base.value);
        EXPECT_EQ(e.size, request.map[i].size);
        EXPECT_EQ(e.type, static_cast<std::uint32_t>(request.map[i].type));
        EXPECT_EQ(e.reserved, 0u);
    }
}

TEST(ContractSection4, ModulesHaveTheirBytesSizesAndCommandLines) {
    TestGuest guest(16 * kMiB);
    const ByteVector kernel = small_kernel().build();
    const ByteVector ramdisk = noise(3 * kPageSize + 5);
    const ByteVector second = noise(7);
    LoadRequest request = guest.request(kernel);
    request.modules = {
        {"ramdisk", ramdisk, ""}, {"second", second, "its own line"}, {"none", {}, ""}};
    const auto info = guest.load(request);
    ASSERT_TRUE(info);
    const StartInfo si = start_info(guest, *info);
    ASSERT_EQ(si.nr_modules, 3u);
    const auto first = guest.get<ModuleEntry>(si.modlist);
    EXPECT_EQ(first.size, ramdisk.size());
    EXPECT_EQ(guest.at(first.paddr, ramdisk.size()), ramdisk);
    EXPECT_EQ(first.cmdline, 0u);
    EXPECT_EQ(first.reserved, 0u);
    const auto other = guest.get<ModuleEntry>(si.modlist + 32);
    EXPECT_EQ(guest.at(other.paddr, other.size), second);
    EXPECT_EQ(guest.text(other.cmdline), "its own line");
    const auto none = guest.get<ModuleEntry>(si.modlist + 64);
    EXPECT_EQ(none.size, 0u);
    ASSERT_EQ(info->modules.size(), 3u);
    EXPECT_EQ(info->modules[0], Gpa{first.paddr});
    EXPECT_EQ(info->modules[1], Gpa{other.paddr});
    EXPECT_EQ(info->modules[2], Gpa{none.paddr});
}

// As xl: start_info in the page after the image, the modules in the pages after it. Linux's early
// memory lies right above its image only as far as its last segment's memory size says.
TEST(ContractSection4, StartInfoAndModulesStandPageAlignedAboveTheImage) {
    TestGuest guest(128 * kMiB);
    TestElf elf = small_kernel();
    elf.segments[0].tail = 0x25'123;
    const ByteVector kernel = elf.build();
    const ByteVector ramdisk = noise(kPageSize + 1);
    LoadRequest request = guest.request(kernel);
    request.cmdline = "x";
    request.modules = {{"a", ramdisk, ""}, {"b", ramdisk, ""}};
    const auto info = guest.load(request);
    ASSERT_TRUE(info);
    EXPECT_EQ(info->start_info, Gpa{0x12'6000});
    EXPECT_EQ(info->modules[0], Gpa{0x12'7000});
    EXPECT_EQ(info->modules[1], Gpa{0x12'9000});
}

// The image may be anywhere: start_info and all it points to stay below 4 GiB, in RAM, aligned,
// clear of every segment with its tail, of each other, and of low memory where possible.
TEST(ContractSection4, EverythingIsInRamBelow4GiBAlignedAndOutsideEverySegment) {
    struct Case {
        const char* what;
        std::uint64_t ram;
        std::vector<TestSegment> segments;
        bool low_memory_needed = false;
    };
    const Case cases[] = {
        {"in the middle", 16 * kMiB, {{.physical = 0x40'0000, .data = bytes("x"), .tail = 5000}}},
        {"up to the end of RAM",
         16 * kMiB,
         {{.physical = 0x40'0000, .data = bytes("x"), .tail = 16 * kMiB - 0x40'0001}}},
        {"all but the first megabyte",
         16 * kMiB,
         {{.physical = 0x10'0000, .data = bytes("x"), .tail = 15 * kMiB - 1}},
         true},
        {"over the first megabyte",
         16 * kMiB,
         {{.physical = 0, .data = bytes("x"), .tail = kMiB + 12'345}}},
        {"all but a little above the first megabyte",
         16 * kMiB,
         {{.physical = 0, .data = bytes("x"), .tail = kMiB - 1},
          {.physical = 0x12'0000, .data = bytes("x"), .tail = 16 * kMiB - 0x12'0001}}},
        {"two with a gap of two pages less one byte, then one of forty pages",
         16 * kMiB,
         {{.physical = 0x20'0001, .data = bytes("x"), .tail = 14 * kMiB - 2},
          {.physical = 0x10'0000, .data = bytes("x"), .tail = 0xd7'fff}}},
        {"up to 4 GiB and beyond",
         6 * kGiB,
         {{.physical = 0x10'0000, .data = bytes("x")},
          {.physical = 0x1'4000'0000, .data = bytes("high")}}},
        {"up to the hole",
         6 * kGiB,
         {{.physical = 0x20'0000, .data = bytes("x"), .tail = 0xf000'0000 - 0x20'0001}}},
    };
    const ByteVector ramdisk = noise(70'000);
    for (const Case& c : cases) {
        TestGuest guest(c.ram);
        TestElf elf = small_kernel();
        elf.bits = 64;
        elf.segments = c.segments;
        elf.note_segments = {encode({{.desc = desc64(c.segments[0].physical)}})};
        const ByteVector kernel = elf.build();
        LoadRequest request = guest.request(kernel);
        request.cmdline = std::string(3001, 'c');
        request.modules = {{"a", ramdisk, "odd"}, {"b", std::span(ramdisk).first(3), ""}};
        const auto info = guest.load(request);
        ASSERT_TRUE(info) << c.what << ": " << info.error().what;
        const auto blocks = blocks_of(guest, *info);
        EXPECT_EQ(blocks.size(), 7u);
        for (const Block& b : blocks) {
            SCOPED_TRACE(std::string(c.what) + ": " + b.what);
            EXPECT_NE(b.at, 0u);
            EXPECT_EQ(b.at % (std::string(b.what) == "module" ? kPageSize : 8), 0u);
            EXPECT_LE(b.at + b.size, 0x1'0000'0000u);
            EXPECT_LE(b.at + b.size, std::min<std::uint64_t>(c.ram, 0xf000'0000));
            EXPECT_TRUE(c.low_memory_needed || b.at >= kMiB);
            for (const TestSegment& s : c.segments) {
                const std::uint64_t end = s.physical + s.data.size() + s.tail;
                EXPECT_TRUE(b.at + b.size <= s.physical || b.at >= end);
            }
            for (const Block& other : blocks) {
                if (&other == &b) continue;
                EXPECT_TRUE(b.at + b.size <= other.at || b.at >= other.at + other.size);
            }
        }
        EXPECT_EQ(guest.at(info->modules[0].value, ramdisk.size()), ramdisk);
        EXPECT_EQ(guest.text(start_info(guest, *info).cmdline), request.cmdline);
    }
}

TEST(ContractSection5, RamAboveTheHoleIsLoadedFrom4GiBOn) {
    TestGuest guest(5 * kGiB);
    TestElf elf = small_kernel();
    elf.bits = 64;
    elf.segments.push_back({.physical = 0x1'0000'0000, .data = bytes("high")});
    ASSERT_TRUE(guest.load(elf));
    EXPECT_EQ(guest.at(0x1'0000'0000, 4), bytes("high"));
}

TEST(ContractSection8, TheFirstMegabyteAndTheTailAreLeftAlone) {
    TestGuest guest(16 * kMiB);
    TestElf elf = small_kernel(0);  // a small image at 0 that uses the rest of low memory later
    elf.segments[0].tail = 0x5000;
    const auto info = guest.load(elf);
    ASSERT_TRUE(info);
    EXPECT_EQ(info->start_info, Gpa{kMiB});
    EXPECT_EQ(guest.at(6, kMiB - 6), ByteVector(kMiB - 6));
}

// What the loader refuses, and leaves untouched.

TEST(Loader, NoRoomForAModuleIsRefusedWithNoGuestMemoryWritten) {
    TestGuest guest(4 * kMiB);
    const ByteVector kernel = small_kernel().build();
    const ByteVector small = noise(10);
    for (const std::uint64_t size : {4 * kMiB + 1, 4 * kMiB, 3 * kMiB}) {
        const ByteVector ramdisk(size, std::byte{1});
        LoadRequest request = guest.request(kernel);
        request.modules = {{"small", small, ""}, {"/boot/ramdisk", ramdisk, ""}};
        const auto info = guest.load(request);
        ASSERT_FALSE(info);
        EXPECT_EQ(info.error().fault, Fault::kUser);
        EXPECT_EQ(info.error().what,
                  "/boot/ramdisk: no room left in the guest's RAM for a module "
                  "of " +
                      std::to_string(size) + " bytes");
        EXPECT_TRUE(guest.all(std::byte{0}));
    }
}

TEST(Loader, NoRoomForStartInfoIsRefused) {
    TestGuest guest(4 * kMiB);
    TestElf elf = small_kernel(0);
    elf.segments[0].tail = 4 * kMiB - 7;
    auto info = guest.load(elf);
    ASSERT_FALSE(info);
    EXPECT_TRUE(contains(info.error().what, "start_info")) << info.error().what;
    EXPECT_TRUE(guest.all(std::byte{0}));

    const ByteVector kernel = small_kernel().build();
    LoadRequest request = guest.request(kernel);
    request.cmdline = std::string(5 * kMiB, 'x');
    info = guest.load(request);
    ASSERT_FALSE(info);
    EXPECT_TRUE(guest.all(std::byte{0}));
}

TEST(Loader, OverlappingSegmentsAreRefused) {
    for (const std::uint64_t second : {0xf'ffffULL, 0x10'0000ULL, 0x10'0005ULL}) {
        TestGuest guest(4 * kMiB);
        TestElf elf = small_kernel();
        elf.segments.push_back({.physical = second, .data = bytes("xx")});
        const auto info = guest.load(elf);
        ASSERT_FALSE(info);
        EXPECT_TRUE(contains(info.error().what, "overlaps another one")) << info.error().what;
        EXPECT_TRUE(guest.all(std::byte{0}));
    }
    TestGuest guest(4 * kMiB);
    TestElf elf = small_kernel();
    elf.segments.push_back({.physical = 0x10'0006, .data = bytes("next to it")});
    EXPECT_TRUE(guest.load(elf));
}

TEST(Loader, ACommandLineWithAZeroByteIsRefused) {
    TestGuest guest(4 * kMiB);
    const ByteVector kernel = small_kernel().build();
    LoadRequest request = guest.request(kernel);
    request.cmdline = std::string("a\0b", 3);
    EXPECT_TRUE(contains(guest.load(request).error().what, "zero byte"));
    request.cmdline = "";
    request.modules = {{"module", kernel, std::string("a\0b", 3)}};
    EXPECT_TRUE(contains(guest.load(request).error().what, "module: "));
}

TEST(Loader, ARefusedEntryLeavesNoTrace) {
    TestGuest guest(4 * kMiB);
    TestElf elf = small_kernel();
    elf.note_segments = {encode({{.desc = desc32(0x20'0000)}})};
    const auto info = guest.load(elf);
    ASSERT_FALSE(info);
    EXPECT_TRUE(contains(info.error().what, "outside all of its segments"));
    EXPECT_TRUE(guest.all(std::byte{0}));
}

TEST(Loader, AMapThatMakesNoSenseIsOurFault) {
    TestGuest guest(4 * kMiB);
    const ByteVector kernel = small_kernel().build();
    LoadRequest request = guest.request(kernel);
    request.map.push_back({Gpa{0x1000}, 0x1000, MemoryType::kReserved});
    EXPECT_EQ(guest.load(request).error().fault, Fault::kInternal);
    request = guest.request(kernel);
    request.map.push_back({Gpa{UINT64_MAX}, 2, MemoryType::kReserved});
    EXPECT_EQ(guest.load(request).error().fault, Fault::kInternal);
    request = guest.request(kernel);
    request.map[0].size = 8 * kMiB;  // the map says RAM where there is none
    const ByteVector big(5 * kMiB, std::byte{1});
    request.modules = {{"module", big, ""}};
    EXPECT_EQ(guest.load(request).error().fault, Fault::kInternal);
    request = guest.request(kernel);
    guest.memory().set_hole(0x100, true);
    EXPECT_EQ(guest.load(request).error().fault, Fault::kInternal);
    EXPECT_TRUE(guest.all(std::byte{0}));
}

TEST(Loader, PagesThatStayZeroAreNotTouched) {
    TestGuest guest(64 * kMiB);
    TestElf elf = small_kernel();
    elf.segments[0].data = ByteVector(16 * kMiB);
    elf.segments[0].data[kPageSize * 7] = std::byte{1};
    elf.segments[0].tail = 16 * kMiB;
    const ByteVector ramdisk(8 * kMiB);
    const ByteVector kernel = elf.build();
    LoadRequest request = guest.request(kernel);
    request.modules = {{"ramdisk", ramdisk, ""}};
    ASSERT_TRUE(guest.load(request));
    EXPECT_EQ(guest.get<std::uint8_t>(0x10'0000 + kPageSize * 7), 1u);
    EXPECT_LE(guest.resident_pages(), 2u);  // that one and start_info
}

TEST(Loader, BootInfoTellsWhatTheLogWants) {
    TestGuest guest(16 * kMiB);
    TestElf elf = small_kernel();
    elf.bits = 64;
    elf.note_segments = {
        encode({{.type = 6, .desc = bytes("linux")}, {.desc = desc32(0x10'0000)}})};
    const auto info = guest.load(elf);
    ASSERT_TRUE(info);
    EXPECT_TRUE(info->is_64bit);
    EXPECT_EQ(info->notes.guest_os, "linux");
    EXPECT_FALSE(info->call_sites.found);
    EXPECT_NE(info->call_sites.why_not, "");
}

TEST(Loader, CallSitesAreGuestPhysicalAddresses) {
    TestGuest guest(32 * kMiB);
    TestElf elf = small_kernel(0x100'0000);
    TestSegment& text = elf.segments[0];
    text.virtual_address = 0x8100'0000;
    text.data = ByteVector(0x1000, std::byte{0xcc});
    std::memcpy(text.data.data() + 0x100, "\x0f\x01\xd9\xe9\x38\x00\x00\x00", 8);
    std::memcpy(text.data.data() + 0x110, "\x0f\x01\xc1\xe9\x28\x00\x00\x00", 8);
    const auto info = guest.load(elf);
    ASSERT_TRUE(info);
    ASSERT_TRUE(info->call_sites.found);
    EXPECT_EQ(info->call_sites.found->vmmcall, Gpa{0x100'0100});
    EXPECT_EQ(info->call_sites.found->vmcall, Gpa{0x100'0110});
    EXPECT_EQ(guest.at(0x100'0100, 3), bytes("\x0f\x01\xd9"));  // found, not changed
}

// Whatever is changed in a small image: it loads, or is refused with guest memory as it was.
TEST(Loader, AnyByteChangedLoadsOrLeavesNoTrace) {
    for (const int bits : {32, 64}) {
        TestElf elf = small_kernel(0x8000);
        elf.bits = bits;
        elf.segments.push_back({.physical = 0xa000, .data = bytes("second"), .tail = 100});
        elf.note_sections = elf.note_segments;
        const ByteVector good = elf.build();
        TestGuest guest(0x2'0000);
        unsigned loaded = 0;
        for (std::size_t at = 0; at < good.size(); ++at) {
            for (const int change : {0x01, 0x80, 0xff}) {
                ByteVector file = good;
                file[at] ^= static_cast<std::byte>(change);
                for (const Flavour flavour : {Flavour::kPvh, Flavour::kHvm}) {
                    LoadRequest request = guest.request(file);
                    request.flavour = flavour;
                    if (guest.load(request)) {
                        ++loaded;
                        guest.dirty(std::byte{0});
                    } else if (!guest.all(std::byte{0})) {
                        FAIL() << bits << " bits, byte " << at << " changed by " << change;
                    }
                }
            }
        }
        EXPECT_GT(loaded, 0u);
    }
}

// Files.

class Files : public ::testing::Test {
  protected:
    void SetUp() override {
        std::string path = ::testing::TempDir() + "xenolith-boot-XXXXXX";
        ASSERT_NE(::mkdtemp(path.data()), nullptr);
        folder_ = path;
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }

    std::string file(const std::string& name, const ByteVector& content) const {
        std::ofstream out(folder_ + "/" + name, std::ios::binary);
        for (const std::byte b : content)
            out.put(std::to_integer<char>(b));
        return folder_ + "/" + name;
    }
    std::string folder_;
};

template <class T>
std::string refusal(const Result<T>& result) {
    EXPECT_FALSE(result);
    if (result) return {};
    EXPECT_EQ(result.error().fault, Fault::kUser) << result.error().what;
    return result.error().what;
}

TEST_F(Files, AKernelMayBePlainGzippedOrABzImageOfAnyPacking) {
    const ByteVector elf = small_kernel().build();
    ByteVector zstd_with_size = zstd(elf);
    append(zstd_with_size, static_cast<std::uint32_t>(elf.size()));
    ByteVector xz_with_size = xz(elf);
    append(xz_with_size, static_cast<std::uint32_t>(elf.size()));
    for (const ByteVector& content : {elf, gzip(elf), bzimage(gzip(elf)), bzimage(xz_with_size),
                                      bzimage(zstd_with_size), bzimage(elf)}) {
        const std::string path = file("kernel", content);
        const auto image = read_image(path);
        ASSERT_TRUE(image) << image.error().what;
        EXPECT_EQ(image->name, path);
        const auto view = image->elf.view();
        EXPECT_EQ(ByteVector(view.begin(), view.end()), elf);
    }
}

TEST_F(Files, ADirectoryIsRefused) {
    EXPECT_EQ(refusal(read_image(folder_)), folder_ + ": is a directory, not a file");
    EXPECT_EQ(refusal(read_file(folder_)), folder_ + ": is a directory, not a file");
}

TEST_F(Files, AnEmptyFileIsRefused) {
    const std::string path = file("empty", {});
    EXPECT_EQ(refusal(read_image(path)), path + ": the file is empty");
    EXPECT_EQ(refusal(read_file("/dev/null")), "/dev/null: the file is empty");
}

TEST_F(Files, AMissingFileIsRefused) {
    const std::string path = folder_ + "/nothing";
    EXPECT_EQ(refusal(read_image(path)), "opening " + path + ": No such file or directory");
}

TEST_F(Files, AnUnreadableFileIsRefused) {
    // A file that even root can open, but not read at its start.
    EXPECT_TRUE(contains(refusal(read_file("/proc/self/mem")), "reading /proc/self/mem: "));
    const std::string path = file("secret", bytes("x"));
    std::filesystem::permissions(folder_, std::filesystem::perms::all);
    std::filesystem::permissions(path, std::filesystem::perms::none);
    // Root may read everything, so root is nobody for a moment.
    const bool root = ::geteuid() == 0;
    if (root && ::seteuid(65534) != 0) GTEST_SKIP() << "root cannot become anybody else here";
    EXPECT_EQ(refusal(read_image(path)), "opening " + path + ": Permission denied");
    if (root) {
        ASSERT_EQ(::seteuid(0), 0);
    }
}

TEST_F(Files, AFileWithoutEndIsRefused) {
    EXPECT_EQ(refusal(read_file("/dev/zero", 3 * kMiB)), "/dev/zero: larger than 3 MiB");
}

TEST_F(Files, AFileLargerThanTheLimitIsRefused) {
    const std::string path = file("big", ByteVector(2 * kMiB + 1));
    EXPECT_EQ(refusal(read_file(path, 2 * kMiB)), path + ": larger than 2 MiB");
    EXPECT_EQ(read_file(path)->size(), 2 * kMiB + 1);
}

TEST_F(Files, WhatIsNoKernelIsRefused) {
    std::string path = file("script", bytes("#!/bin/sh\n"));
    EXPECT_TRUE(contains(refusal(read_image(path)), path + ": not a kernel: "));
    path = file("text.gz", gzip(bytes("text")));
    EXPECT_EQ(refusal(read_image(path)), path + ": what it unpacks to is not an ELF file");
    ByteVector corrupt = gzip(small_kernel().build());
    corrupt.resize(corrupt.size() / 2);
    path = file("corrupt.gz", corrupt);
    EXPECT_EQ(refusal(read_image(path)), path + ": its packed kernel is corrupt");
}

}  // namespace
}  // namespace vmm::boot
