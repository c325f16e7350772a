// Saved VMs through writer and reader: what is written comes back, from a file and from a stream,
// and what is anything else is refused with a reason.
#include <cstdio>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <numeric>
#include <tuple>
#include <unistd.h>

#include <sys/mman.h>

#include <gtest/gtest.h>

#include "migration/format/reader.h"
#include "migration/format/writer.h"
#include "tests/fakes/liar.h"
#include "tests/fakes/saved_vm.h"
#include "tests/golden/folder.h"

namespace migration::format {
namespace {

using fakes::ByteFile;
using fakes::Bytes;
using fakes::ByteStream;
using fakes::Liar;
using vmm::saved::Section;

constexpr Id kId{std::byte{0xde}, std::byte{0xad}, std::byte{2}};
constexpr std::uint64_t kEpoch = 0x1122334455667788;
constexpr Section kVcpu{"kvm.vcpu", 3};
constexpr Section kStore{"xen.store", 1};
constexpr Section kHint{"xen.hint", 7};
const std::vector<Section> kAllKnown{{"vm.profile", 2}, kVcpu, kStore, kHint};
const std::vector<KindToWrite> kKinds{{kVcpu}, {kStore}, {kVcpu}, {kHint, false}};

Bytes text(std::string_view from) {
    const auto bytes = std::as_bytes(std::span(from));
    return {bytes.begin(), bytes.end()};
}

// Pages with something of their own in each, or zeroes where the frame is named as such.
Bytes pages(std::uint64_t gfn, std::uint64_t count, const std::vector<std::uint64_t>& zero = {}) {
    Bytes out(count * kPageSize);
    for (std::uint64_t i = 0; i < count; ++i) {
        if (std::find(zero.begin(), zero.end(), gfn + i) != zero.end()) continue;
        for (std::uint64_t j = 0; j < kPageSize; j += 8) {
            const std::uint64_t word = (gfn + i) * 0x9e3779b97f4a7c15 + j;
            std::memcpy(&out[i * kPageSize + j], &word, 8);
        }
        out[i * kPageSize] = std::byte{0};  // as pages of code and of pointers often have it
    }
    return out;
}

using Pages = std::map<std::uint64_t, Bytes>;  // of the pages that are not zero

void put_pages(Pages& to, std::uint64_t gfn, std::span<const std::byte> bytes) {
    for (; !bytes.empty(); bytes = bytes.subspan(kPageSize), ++gfn) {
        const auto page = bytes.first(kPageSize);
        const bool zero =
            std::all_of(page.begin(), page.end(), [](std::byte b) { return b == std::byte{0}; });
        if (zero) {
            to.erase(gfn);
        } else {
            to[gfn] = Bytes(page.begin(), page.end());
        }
    }
}

struct Region {
    std::uint64_t gfn;
    Bytes bytes;
};
std::vector<Region> small_ram() {
    return {{0, pages(0, 1)}, {0x100, pages(0x100, 2, {0x100})}};
}

template <class Sink>
void write_vm(Sink& sink, const std::vector<Region>& ram) {
    Writer writer(sink);
    const auto ok = [&]() -> vmm::Result<End> {
        TRY(writer.start(kId, kEpoch, 2, text("xen-4.17"), kKinds));
        TRY(writer.record(kVcpu, 0, text("registers of 0")));
        for (const Region& region : ram) {
            TRY(writer.memory({region.gfn, region.bytes, {}}));
        }
        TRY(writer.record(kVcpu, 1, text("registers of 1!!")));
        TRY(writer.record(kStore, 0, {}));
        TRY(writer.record(kHint, 0, text("h")));
        return writer.finish();
    }();
    ASSERT_TRUE(ok) << ok.error().what;
    EXPECT_EQ(ok->length, sink.bytes.size());
}
Bytes file_of(const std::vector<Region>& ram) {
    fakes::FileBytes sink;
    write_vm(sink, ram);
    return sink.bytes;
}
Bytes stream_of(const std::vector<Region>& ram) {
    fakes::StreamBytes sink;
    write_vm(sink, ram);
    return sink.bytes;
}

struct Vm {
    std::map<std::pair<std::string, std::uint32_t>, Bytes> records;
    Pages memory;
    std::vector<Memory> pieces;
    bool operator==(const Vm& other) const {
        return records == other.records && memory == other.memory;
    }
};

vmm::Result<Vm> read_vm(Reader& reader, bool whole_stream) {
    const Start start = TRY(reader.start());
    Vm vm;
    vm.records[{start.profile.name, 0}] = start.profile.payload;
    for (;;) {
        const Item item = TRY(reader.next());
        if (std::get_if<End>(&item) != nullptr) {
            if (whole_stream) TRY(reader.nothing_follows());
            return vm;
        }
        if (const auto* record = std::get_if<Record>(&item)) {
            vm.records[{record->name, record->instance}] = record->payload;
            continue;
        }
        const auto& memory = std::get<Memory>(item);
        vm.pieces.push_back(memory);
        std::map<std::uint64_t, Bytes> read;
        if (memory.zero) {
            for (const PageRun& run : memory.runs) {
                read[run.gfn] = Bytes(run.pages * kPageSize);
            }
        } else {
            TRY(reader.read_memory([&](const PageRun& run) -> vmm::Result<std::span<std::byte>> {
                auto& room = read[run.gfn];
                room.resize(run.pages * kPageSize);
                return std::span(room);
            }));
        }
        for (const auto& [gfn, bytes] : read) {
            put_pages(vm.memory, gfn, bytes);
        }
    }
}
vmm::Result<Vm> from_file(const Bytes& bytes, Known known = kAllKnown) {
    ByteFile file(bytes);
    Reader reader(file, std::move(known));
    return read_vm(reader, true);
}
vmm::Result<Vm> from_stream(const Bytes& bytes, Known known = kAllKnown,
                            std::size_t at_once = 1000) {
    ByteStream stream(bytes, at_once);
    Reader reader(stream, std::move(known));
    return read_vm(reader, true);
}
vmm::Result<void> indexed(const Bytes& bytes, Known known = kAllKnown) {
    ByteFile file(bytes);
    const Index index = TRY(read_index(file, std::move(known)));
    return verify(file, index);
}

Vm expected_vm(const std::vector<Region>& ram) {
    Vm vm;
    vm.records = {{{"vm.profile", 0}, text("xen-4.17")},
                  {{"kvm.vcpu", 0}, text("registers of 0")},
                  {{"kvm.vcpu", 1}, text("registers of 1!!")},
                  {{"xen.store", 0}, {}},
                  {{"xen.hint", 0}, text("h")}};
    for (const Region& region : ram) {
        put_pages(vm.memory, region.gfn, region.bytes);
    }
    return vm;
}

// Each of the three ways to read refuses, and says something like it.
void expect_refused(const Bytes& bytes, const std::string& why, Known known = kAllKnown) {
    const auto a = from_file(bytes, known);
    const auto b = from_stream(bytes, known);
    const auto c = indexed(bytes, known);
    ASSERT_FALSE(a);
    ASSERT_FALSE(b);
    ASSERT_FALSE(c);
    for (const auto& what : {a.error().what, b.error().what, c.error().what}) {
        EXPECT_NE(what.find(why), std::string::npos) << what;
        EXPECT_NE(what.find(" at offset "), std::string::npos) << what;
    }
}

TEST(Format, AFileComesBack) {
    const auto bytes = file_of(small_ram());
    const auto vm = from_file(bytes);
    ASSERT_TRUE(vm) << vm.error().what;
    EXPECT_TRUE(*vm == expected_vm(small_ram()));
    ASSERT_EQ(vm->pieces.size(), 2u);
    for (const Memory& memory : vm->pieces) {
        EXPECT_EQ(memory.data_at % kPageSize, 0u);
        EXPECT_EQ(memory.runs.size(), 1u) << "one mmap for a region";
    }
    EXPECT_EQ(vm->pieces[1].runs[0], (PageRun{0x100, 2}));
    const auto verified = indexed(bytes);
    EXPECT_TRUE(verified) << verified.error().what;
}

TEST(Format, AStreamComesBack) {
    const auto bytes = stream_of(small_ram());
    for (const std::size_t at_once : {1, 7, 4096, 1 << 20}) {
        const auto vm = from_stream(bytes, kAllKnown, at_once);
        ASSERT_TRUE(vm) << vm.error().what;
        EXPECT_TRUE(*vm == expected_vm(small_ram()));
        ASSERT_EQ(vm->pieces.size(), 2u);
        EXPECT_EQ(vm->pieces[1].runs, (std::vector<PageRun>{{0x101, 1}})) << "zeroes are not sent";
    }
}

// One reader takes both: a stream that was kept in a file, and a file that comes through a pipe.
TEST(Format, FilesAndStreamsAreTheSameToAReader) {
    const auto kept = from_file(stream_of(small_ram()));
    ASSERT_TRUE(kept) << kept.error().what;
    EXPECT_TRUE(*kept == expected_vm(small_ram()));
    EXPECT_TRUE(indexed(stream_of(small_ram())));
    const auto piped = from_stream(file_of(small_ram()));
    ASSERT_TRUE(piped) << piped.error().what;
    EXPECT_TRUE(*piped == expected_vm(small_ram()));
}

TEST(Format, StartSaysWhatFollows) {
    const auto bytes = stream_of(small_ram());
    ByteStream stream(bytes);
    Reader reader(stream);
    const auto start = reader.start();
    ASSERT_TRUE(start) << start.error().what;
    EXPECT_EQ(start->id, kId);
    EXPECT_EQ(start->epoch, kEpoch);
    EXPECT_EQ(start->profile.version, 2u);
    EXPECT_EQ(start->profile.payload, text("xen-4.17"));
    EXPECT_EQ(start->kinds, (std::vector<Kind>{{to_name("kvm.vcpu"), 3, kMandatory},
                                               {to_name("memory"), 1, kMandatory},
                                               {to_name("xen.hint"), 7, 0},
                                               {to_name("xen.store"), 1, kMandatory}}));
}

// Not only in the end: a VM is prepared for that id.
TEST(Format, AChangedFileHeaderIsRefusedAtOnce) {
    for (std::size_t at = 0; at < sizeof(FileHeader); ++at) {
        auto bytes = stream_of(small_ram());
        bytes[at] ^= std::byte{0x20};
        ByteStream stream(bytes);
        Reader reader(stream);
        const auto start = reader.start();
        ASSERT_FALSE(start) << at;
        EXPECT_EQ(start.error().what.find("stream: the file header at offset 0: "), 0u)
            << start.error().what;
    }
}

// What the reader does not know is refused before it has seen a record of it.
TEST(Format, UnknownKindsAreRefusedAtTheStart) {
    for (const auto& bytes : {file_of(small_ram()), stream_of(small_ram())}) {
        const auto refused = [&](std::vector<Section> known) {
            ByteStream stream(bytes);
            Reader reader(stream, std::move(known));
            const auto start = reader.start();
            return start ? std::string() : start.error().what;
        };
        EXPECT_EQ(refused(kAllKnown), "");
        EXPECT_EQ(refused({{"vm.profile", 2}, kVcpu}),
                  "stream: vm.contents at offset 344: the record \"xen.store\" is not known, and "
                  "mandatory");
        EXPECT_EQ(refused({{"vm.profile", 2}, {"kvm.vcpu", 2}, kStore}),
                  "stream: vm.contents at offset 224: version 3 of the record \"kvm.vcpu\" is not "
                  "known");
        EXPECT_EQ(refused({{"vm.profile", 1}, kVcpu, kStore}),
                  "stream: vm.profile at offset 64: version 2 is not known");
        EXPECT_EQ(refused({{"vm.profile", 2}, {"kvm.vcpu", 4}, kStore}), "");
    }
}

TEST(Format, UnknownOptionalRecordsArePassedOver) {
    Vm expected = expected_vm(small_ram());
    expected.records.erase({"xen.hint", 0});
    for (const std::uint32_t version : {0u, 6u}) {
        std::vector<Section> known{{"vm.profile", 2}, kVcpu, kStore};
        if (version != 0) known.push_back({"xen.hint", version});
        const auto vm = from_stream(stream_of(small_ram()), known);
        ASSERT_TRUE(vm) << vm.error().what;
        EXPECT_TRUE(*vm == expected);
        const auto again = from_file(file_of(small_ram()), known);
        ASSERT_TRUE(again) << again.error().what;
        EXPECT_TRUE(*again == expected);
    }
}

// Cut anywhere, it is refused; so is one byte more.
TEST(Format, TruncationAtEveryByteIsRefused) {
    for (const auto& bytes : {file_of(small_ram()), stream_of(small_ram())}) {
        for (std::size_t length = 0; length < bytes.size(); ++length) {
            const Bytes cut(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(length));
            const auto file = from_file(cut);
            ASSERT_FALSE(file) << length;
            ASSERT_NE(file.error().what.find("it ends at"), std::string::npos)
                << length << ": " << file.error().what;
            ASSERT_FALSE(indexed(cut)) << length;
            const auto stream = from_stream(cut, kAllKnown, kChunk);
            ASSERT_FALSE(stream) << length;
            ASSERT_NE(stream.error().what.find("it ends at"), std::string::npos)
                << length << ": " << stream.error().what;
        }
        auto longer = bytes;
        longer.push_back({});
        expect_refused(longer, "follow");
    }
}

TEST(Format, EveryFlippedBitIsRefused) {
    auto bytes = file_of({{5, pages(5, 1)}});
    ASSERT_EQ(bytes, stream_of({{5, pages(5, 1)}})) << "one stands for both";
    for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
        const auto flip = static_cast<std::byte>(1u << (bit % 8));
        bytes[bit / 8] ^= flip;
        const auto file = indexed(bytes);
        ASSERT_FALSE(file) << "bit " << bit;
        ASSERT_NE(file.error().what.find(" at offset "), std::string::npos);
        const auto stream = from_stream(bytes, kAllKnown, kChunk);
        ASSERT_FALSE(stream) << "bit " << bit;
        ASSERT_NE(stream.error().what.find(" at offset "), std::string::npos);
        bytes[bit / 8] ^= flip;
    }
    ASSERT_TRUE(indexed(bytes));
}

Liar liar() {
    return Liar(stream_of({{5, pages(5, 2)}}));
}

TEST(Format, ALiarsHonestStreamIsTaken) {
    EXPECT_EQ(liar().bytes(), stream_of({{5, pages(5, 2)}}));
}

TEST(Format, RecordsOutOfPlaceAreRefused) {
    const auto refused = [](const std::function<void(Liar&)>& lie, const std::string& why) {
        SCOPED_TRACE(why);
        Liar one = liar();
        lie(one);
        expect_refused(one.bytes(), why);
    };
    using L = Liar;
    refused([](L& l) { l.pieces.erase(l.pieces.begin()); }, "vm.profile comes first");
    refused([](L& l) { l.pieces.clear(); }, "vm.profile comes first");
    refused([](L& l) { std::swap(l.pieces[0], l.pieces[1]); }, "vm.profile comes first");
    refused([](L& l) { l.pieces.push_back(l.pieces[0]); }, "it comes once, and first");
    refused([](L& l) { l.pieces.insert(l.pieces.begin(), l.pieces[0]); },
            "it comes once, and first");
    refused([](L& l) { l.pieces.erase(l.pieces.begin() + 1); }, "vm.contents comes before it");
    refused([](L& l) { std::swap(l.pieces[1], l.pieces[2]); }, "vm.contents comes before it");
    refused([](L& l) { l.pieces.push_back(l.pieces[1]); }, "it comes once, after vm.profile");
    refused([](L& l) { l.pieces.push_back(l["kvm.vcpu"]); }, "instance 0 of it was there before");
    refused([](L& l) { l["kvm.vcpu"].header.version = 2; }, "another version or flag");
    refused([](L& l) { l["kvm.vcpu"].header.flags = 0; }, "another version or flag");
    refused([](L& l) { l["kvm.vcpu"].header.name = to_name("kvm.other"); },
            "vm.contents has it not");
    refused([](L& l) { l.pieces.erase(l.pieces.begin() + static_cast<long>(l.find("xen.store"))); },
            "promises \"xen.store\", which has not come");
    refused([](L& l) { l["kvm.vcpu"].header.reserved = 1; }, "reserved bytes are not zero");
    refused([](L& l) { l["kvm.vcpu"].header.flags = 3; }, "flags 3 are not known");
    refused([](L& l) { l["kvm.vcpu"].header.name = to_name("kvm\x1b[1m"); }, "no record's name");
    refused([](L& l) { l["kvm.vcpu"].header.name.fill('a'); }, "no record's name");
    refused([](L& l) { l["kvm.vcpu"].header.name[20] = 'a'; }, "no record's name");
    refused([](L& l) { l["kvm.vcpu"].header.name = {}; }, "no record's name");
    refused([](L& l) { l["vm.profile"].header.flags = 0; }, "always mandatory");
    refused([](L& l) { l["vm.profile"].header.instance = 1; }, "only one");
    refused([](L& l) { l["vm.profile"].header.version = 0; }, "no version 0");
    refused([](L& l) { l["vm.contents"].header.flags = 0; }, "always mandatory");
    refused([](L& l) { l["vm.contents"].header.version = 2; }, "version 2 is not known");
    refused([](L& l) { l["memory"].header.version = 2; }, "version 2 is not known");
    refused([](L& l) { l["memory"].header.flags = 0; }, "always mandatory");
    refused([](L& l) { l.file.magic[0] = 'x'; }, "this is no saved VM");
    refused([](L& l) { l.file.version = 2; }, "version 2 of the format is not known, 1 is");
    refused([](L& l) { l.file.flags = 1; }, "flags 1 are not known");
    refused([](L& l) { l.file.reserved[1] = 1; }, "reserved bytes are not zero");
}

TEST(Format, TheEndIsOfWhatCame) {
    const auto refused = [](const std::function<void(End&)>& lie, const std::string& why) {
        SCOPED_TRACE(why);
        Liar one = liar();
        static_cast<void>(one.bytes());
        one.right_end = false;
        lie(one.end);
        expect_refused(one.bytes(), why);
    };
    refused([](End& end) { ++end.records; }, "records, and");
    refused([](End& end) { ++end.length; }, "bytes, and");
    refused([](End& end) { ++end.headers.low; }, "the headers have another checksum");
    refused([](End& end) { ++end.headers.high; }, "the headers have another checksum");

    Bytes another = liar().bytes();
    RecordHeader header;
    std::byte* const at = &another[another.size() - sizeof(End) - sizeof header];
    std::memcpy(&header, at, sizeof header);
    ++header.payload_checksum;
    header.checksum = checksum(before_checksum(header));
    std::memcpy(at, &header, sizeof header);
    expect_refused(another, "its payload has another checksum");

    // Without one, and with one more. A stream's reader has stopped after the first.
    expect_refused(liar().bytes(true, false), "it ends at");
    Bytes twice = liar().bytes();
    const Bytes last(twice.end() - static_cast<long>(sizeof(RecordHeader) + sizeof(End)),
                     twice.end());
    twice.insert(twice.end(), last.begin(), last.end());
    expect_refused(twice, "follow");
}

TEST(Format, WhatTheContentsMayNotSay) {
    const auto refused = [](const std::function<void(Contents&, std::vector<Kind>&)>& lie,
                            const std::string& why) {
        SCOPED_TRACE(why);
        Liar one = liar();
        auto& payload = one["vm.contents"].payload;
        Contents head;
        std::memcpy(&head, payload.data(), sizeof head);
        std::vector<Kind> kinds(head.count);
        std::memcpy(kinds.data(), &payload[sizeof head], head.count * sizeof(Kind));
        lie(head, kinds);
        payload.resize(sizeof head + kinds.size() * sizeof(Kind));
        std::memcpy(payload.data(), &head, sizeof head);
        std::memcpy(&payload[sizeof head], kinds.data(), kinds.size() * sizeof(Kind));
        expect_refused(one.bytes(), why);
    };
    using C = Contents;
    using K = std::vector<Kind>;
    refused([](C& c, K&) { ++c.count; }, "not the length of 5 kinds");
    refused([](C& c, K&) { c.count = 0xffffffff; }, "not the length of");
    refused([](C& c, K&) { c.reserved = 1; }, "reserved bytes are not zero");
    refused([](C&, K& k) { std::swap(k[0], k[1]); }, "out of order");
    refused([](C&, K& k) { k[1] = k[0]; }, "out of order");
    refused([](C&, K& k) { k[0].version = 0; }, "has version 0");
    refused([](C&, K& k) { k[0].flags = 2; }, "has unknown flags");
    refused([](C&, K& k) { k[0].name = to_name("end"); }, "is of no use here");
    refused([](C&, K& k) { k[0].name = {}; }, "kind 0 has no record's name");
    refused([](C&, K& k) { k[1].version = 2; }, "\"memory\" has another version");
    refused([](C&, K& k) { k[1].flags = 0; }, "\"memory\" has another version");
    refused(
        [](C& c, K& k) {
            k.erase(k.begin() + 1);
            --c.count;
        },
        "vm.contents has it not");
    refused(
        [](C& c, K& k) {
            c.count = kMostKinds + 1;
            k.assign(c.count, {to_name("a"), 1, 0});
        },
        "more than 1024 kinds");
    Liar one = liar();
    one["vm.contents"].payload.resize(4);
    expect_refused(one.bytes(), "it is too short");
}

TEST(Format, LengthsThatAreLiesCostNothing) {
    for (const std::string_view name : {"vm.profile", "vm.contents", "kvm.vcpu", "memory"}) {
        SCOPED_TRACE(name);
        for (const std::uint64_t length :
             {std::uint64_t{1} << 63, ~std::uint64_t{0}, ~std::uint64_t{0} - 71, kMostPayload + 1,
              kMostPayload, std::uint64_t{65536}}) {
            Liar one = liar();
            one[name].header.length = length;
            const auto bytes = one.bytes(false);
            EXPECT_FALSE(from_file(bytes));
            EXPECT_FALSE(from_stream(bytes));
            EXPECT_FALSE(indexed(bytes));
        }
    }
    Liar one = liar();
    one["kvm.vcpu"].header.length = kMostPayload + 1;
    expect_refused(one.bytes(false), "and 268435456 is the most");
}

TEST(Format, WhatMemoryMayNotSay) {
    const auto refused = [](const std::function<void(Liar&)>& lie, const std::string& why) {
        SCOPED_TRACE(why);
        Liar one = liar();
        lie(one);
        expect_refused(one.bytes(), why);
    };
    const auto wrong_run = [&](std::uint64_t gfn, std::uint64_t count, const std::string& why) {
        refused([&](Liar& l) { l.run([&](PageRun& r) { r = {gfn, count}; }); }, why);
    };
    wrong_run(5, 0, "a run of 0 pages");
    wrong_run(5, 3, "it says that it has 2 pages");
    wrong_run(5, std::uint64_t{1} << 63, "beyond all memory");
    wrong_run(~std::uint64_t{0}, 2, "beyond all memory");
    wrong_run(kEndOfFrames - 1, 2, "beyond all memory");
    wrong_run(0, kEndOfFrames, "it says that it has 2 pages");
    const auto wrong = [&](const std::function<void(MemoryDescriptor&)>& how,
                           const std::string& why) {
        refused([&](Liar& l) { l.descriptor(how); }, why);
    };
    using D = MemoryDescriptor;
    wrong([](D& d) { d.runs = 0; }, "0 runs of pages");
    wrong([](D& d) { d.runs = kMostRuns + 1; }, "runs of pages");
    wrong([](D& d) { d.runs = kMostRuns; }, "it is too short");
    wrong([](D& d) { d.runs = 2; }, "another checksum");
    wrong([](D& d) { d.chunk = 4096; }, "chunks of 4096 bytes are not known");
    wrong([](D& d) { d.chunk = 0; }, "chunks of 0 bytes are not known");
    wrong([](D& d) { d.flags = 2; }, "flags 2 are not known");
    wrong([](D& d) { d.flags = kZeroPages; }, "its pages are zero");
    wrong([](D& d) { d.reserved_1 = 1; }, "reserved bytes");
    wrong([](D& d) { d.reserved_2[2] = 1; }, "reserved bytes");
    wrong([](D& d) { d.data_offset = 0; }, "does not follow its checksums");
    wrong([](D& d) { d.data_offset = ~std::uint64_t{0}; }, "does not follow its checksums");
    wrong([](D& d) { d.data_offset += kMostPadding; }, "does not follow its checksums");
    wrong([](D& d) { d.data_offset += 8; }, "at no multiple of 4096");
    wrong([](D& d) { d.data_offset += 4096; }, "its pages another number");
    wrong([](D& d) { d.pages = 3; }, "it says that it has 3 pages");
    refused([](Liar& l) { l["memory"].payload.resize(8); }, "it is too short");
    refused([](Liar& l) { l["memory"].payload.resize(64); }, "it is too short");
    refused([](Liar& l) { l["memory"].payload.pop_back(); }, "its pages another number");
    refused([](Liar& l) { l.pieces.push_back(l["memory"]); }, "some were there before");
    for (const std::uint64_t gfn : {4, 6}) {
        refused(
            [&](Liar& l) {
                l.pieces.push_back(l["memory"]);
                l.run([&](PageRun& r) { r.gfn = gfn; });
            },
            "some were there before");
    }
    refused([](Liar& l) { l["memory"].payload.back() ^= std::byte{1}; },
            "the pages from frame 5 (2) do not have their checksum");
    // Checksums of checksums, and the zeroes behind them.
    refused([](Liar& l) { l["memory"].payload[64 + 16] ^= std::byte{1}; },
            "its chunks' checksums have another checksum");
    refused([](Liar& l) { l["memory"].payload[64 + 16 + 8] ^= std::byte{1}; },
            "padding is not zero");
}

// Pre-copy: later rounds replace pages of earlier ones.
TEST(Format, RoundsReplaceEachOther) {
    fakes::StreamBytes sink;
    Writer writer(sink);
    const auto first = pages(0, 40);
    const auto second = pages(1000, 2);
    const Bytes zeroes(3 * kPageSize);
    ASSERT_TRUE(writer.start(kId, 1, 2, {}, {}));
    ASSERT_TRUE(writer.memory({0, first, {}}));
    const std::vector<PagesToWrite> dirty{
        {3, zeroes}, {10, second}, {20, std::span(second).first(kPageSize)}};
    ASSERT_TRUE(writer.pages(1, dirty));
    ASSERT_TRUE(writer.pages(2, std::span(dirty).first(2)));
    ASSERT_TRUE(writer.finish());
    EXPECT_LT(sink.bytes.size(), 47 * kPageSize + 8 * kPageSize) << "no more than it must be";

    Pages expected;
    put_pages(expected, 0, first);
    for (const auto& [gfn, memory] : dirty) {
        put_pages(expected, gfn, memory);
    }
    for (const auto& vm : {from_stream(sink.bytes), from_file(sink.bytes)}) {
        ASSERT_TRUE(vm) << vm.error().what;
        EXPECT_EQ(vm->memory, expected);
        ASSERT_EQ(vm->pieces.size(), 5u);
        EXPECT_EQ(vm->pieces[1].runs, (std::vector<PageRun>{{10, 2}, {20, 1}}));
        EXPECT_TRUE(vm->pieces[2].zero);
    }
    // Not the other way round, and not twice in one.
    EXPECT_FALSE(writer.pages(1, dirty));
    Liar one(sink.bytes);
    one.pieces.erase(one.pieces.end() - 2);
    std::swap(one.pieces[one.pieces.size() - 1], one.pieces[one.pieces.size() - 3]);
    expect_refused(one.bytes(), "a later round was there before");
}

TEST(Format, AWriterRefusesItsOwnMistakes) {
    fakes::StreamBytes sink;
    const auto started = [&] {
        Writer writer(sink);
        EXPECT_TRUE(writer.start(kId, 1, 2, {}, kKinds));
        return writer;
    };
    EXPECT_FALSE(started().record({"xen.other", 1}, 0, {}));
    EXPECT_FALSE(started().record({"xen.store", 2}, 0, {}));
    EXPECT_FALSE(started().finish()) << "promised records are missing";
    EXPECT_FALSE(started().memory({0, Bytes(10), {}}));
    {
        Writer writer = started();
        EXPECT_TRUE(writer.record(kVcpu, 0, {}));
        EXPECT_FALSE(writer.record(kVcpu, 0, {}));
    }
    {
        Writer writer = started();
        const auto ram = pages(7, 2);
        EXPECT_TRUE(writer.memory({7, ram, {}}));
        EXPECT_FALSE(writer.memory({8, ram, {}}));
    }
    {
        Writer writer(sink);
        EXPECT_FALSE(writer.record(kVcpu, 0, {}));
    }
    const std::vector<KindToWrite> bad{{{"a name that is longer than any may be", 1}}};
    EXPECT_FALSE(Writer(sink).start(kId, 1, 2, {}, bad));
    const std::vector<KindToWrite> two{{kVcpu}, {kVcpu, false}};
    EXPECT_FALSE(Writer(sink).start(kId, 1, 2, {}, two));
    EXPECT_FALSE(Writer(sink).start(kId, 1, 2, Bytes(kMostPayload + 1), {}));
}

// What the guest never touched stays untouched by us, and is neither written nor sent.
TEST(Format, HolesStayHoles) {
    constexpr std::uint64_t kPages = 3 * kChunk / kPageSize * 100 + 5;
    const int fd = ::memfd_create("ram", MFD_CLOEXEC);
    ASSERT_GE(fd, 0);
    ASSERT_EQ(::ftruncate(fd, kPages * kPageSize), 0);
    void* const at = ::mmap(nullptr, kPages * kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ASSERT_NE(at, MAP_FAILED);
    const std::span ram(static_cast<std::byte*>(at), kPages * kPageSize);
    // A page in a chunk, chunks whole, two extents in one chunk, the last page of all, and one that
    // is backed and zero.
    for (const PageRun& run :
         std::vector<PageRun>{{3, 1}, {16, 40}, {100, 1}, {103, 2}, {640, 512}, {kPages - 1, 1}}) {
        const auto bytes = pages(run.gfn, run.pages);
        std::memcpy(&ram[run.gfn * kPageSize], bytes.data(), bytes.size());
    }
    ram[2000 * kPageSize] = std::byte{0};
    const auto backed = [&] {
        std::uint64_t count = 0;
        const auto next = data_of_memfd(fd, ram.size());
        for (auto extent = next(0); extent; extent = next(extent->first + extent->pages)) {
            count += extent->pages;
        }
        return count;
    };
    ASSERT_EQ(backed(), 558u);

    const auto written = [&](auto& sink) {
        Writer writer(sink);
        ASSERT_TRUE(writer.start(kId, 1, 2, {}, {}));
        ASSERT_TRUE(writer.memory({0x1000, ram, data_of_memfd(fd, ram.size())}));
        ASSERT_TRUE(writer.finish());
    };
    fakes::FileBytes file;
    written(file);
    fakes::StreamBytes stream;
    written(stream);
    EXPECT_EQ(backed(), 558u) << "a hole was touched";
    EXPECT_LT(file.written, 557 * kPageSize + 10 * kPageSize);
    EXPECT_LT(stream.bytes.size(), 557 * kPageSize + 10 * kPageSize);

    Pages expected;
    put_pages(expected, 0x1000, ram);
    for (const auto& vm : {from_file(file.bytes), from_stream(stream.bytes)}) {
        ASSERT_TRUE(vm) << vm.error().what;
        EXPECT_TRUE(vm->memory == expected);
    }
    const auto verified = indexed(file.bytes);
    EXPECT_TRUE(verified) << verified.error().what;

    // The same without a word about holes.
    fakes::FileBytes plain;
    Writer writer(plain);
    ASSERT_TRUE(writer.start(kId, 1, 2, {}, {}));
    ASSERT_TRUE(writer.memory({0x1000, ram, {}}));
    ASSERT_TRUE(writer.finish());
    EXPECT_TRUE(plain.bytes == file.bytes);
    ::munmap(at, ram.size());
    ::close(fd);
}

// To restore takes as long as there are records, however much memory they have.
TEST(Format, AnIndexReadsNoMemory) {
    const auto bytes = file_of({{0, pages(0, 2048)}});
    ByteFile file(bytes);
    const auto index = read_index(file, kAllKnown);
    ASSERT_TRUE(index) << index.error().what;
    // What is read ahead, once before the memory and once behind it, is no more than that.
    EXPECT_LT(file.read_bytes, 20'000u);
    EXPECT_LT(file.reads, 6u);
    EXPECT_EQ(index->memory[0].data_at % (std::uint64_t{2} << 20), 0u) << "as huge pages want it";
    EXPECT_EQ(index->records.size(), 4u);
    EXPECT_EQ(index->end.length, bytes.size());

    // Any part of it can be verified for itself.
    const auto table = read_table(file, index->memory[0]);
    ASSERT_TRUE(table);
    ASSERT_EQ(table->size(), 128u);
    auto wrong = bytes;
    wrong[index->memory[0].data_at + 77 * kChunk + 9] ^= std::byte{4};
    ByteFile other(wrong);
    EXPECT_TRUE(verify_chunks(other, index->memory[0], *table, 0, 77));
    EXPECT_TRUE(verify_chunks(other, index->memory[0], *table, 78, 1000));
    const auto verdict = verify_chunks(other, index->memory[0], *table, 70, 10);
    ASSERT_FALSE(verdict);
    EXPECT_NE(verdict.error().what.find("the pages from frame 1232 (16)"), std::string::npos)
        << verdict.error().what;
}

// Chunks do not lie across runs, so that parts of a record of many runs can be verified too.
TEST(Format, ChunksOfManyRuns) {
    fakes::StreamBytes sink;
    Writer writer(sink);
    const auto a = pages(0, 17), b = pages(100, 1), c = pages(200, 33);
    ASSERT_TRUE(writer.start(kId, 1, 2, {}, {}));
    const std::vector<PagesToWrite> runs{{0, a}, {100, b}, {200, c}};
    ASSERT_TRUE(writer.pages(0, runs));
    ASSERT_TRUE(writer.finish());
    ByteFile file(sink.bytes);
    const auto index = read_index(file);
    ASSERT_TRUE(index) << index.error().what;
    const Memory& memory = index->memory.at(0);
    EXPECT_EQ(memory.chunks(), 2u + 1 + 3);
    EXPECT_TRUE(verify_chunks(file, memory, std::vector<std::uint64_t>(6), 6, 1));
    const auto table = read_table(file, memory);
    ASSERT_TRUE(table);
    for (std::uint64_t chunk = 0; chunk < 6; ++chunk) {
        EXPECT_TRUE(verify_chunks(file, memory, *table, chunk, 1)) << chunk;
        auto wrong = *table;
        wrong[chunk] ^= 1;
        EXPECT_FALSE(verify_chunks(file, memory, wrong, chunk, 1));
        EXPECT_TRUE(verify_chunks(file, memory, wrong, 0, chunk));

        const std::vector<std::uint64_t> lengths{16, 1, 1, 16, 16, 1};
        const std::vector<std::uint64_t> first{0, 16, 100, 200, 216, 232};
        Bytes room(lengths[chunk] * kPageSize);
        ASSERT_TRUE(read_chunk(file, memory, *table, chunk, room)) << chunk;
        EXPECT_TRUE(room == pages(first[chunk], lengths[chunk])) << chunk;
        EXPECT_FALSE(read_chunk(file, memory, wrong, chunk, room)) << chunk;
        room.push_back({});
        EXPECT_FALSE(read_chunk(file, memory, *table, chunk, room)) << chunk;
    }
}

TEST(Format, ABadPageNeverReachesAGuestUnnoticed) {
    auto bytes = stream_of({{5, pages(5, 40)}});
    bytes[bytes.size() - 2000 - 104] ^= std::byte{1};
    bool placed = false;
    ByteStream stream(bytes);
    Reader reader(stream);
    ASSERT_TRUE(reader.start());
    ASSERT_TRUE(reader.next());
    ASSERT_TRUE(reader.next());
    Bytes room(40 * kPageSize);
    const auto read = reader.read_memory([&](const PageRun&) -> vmm::Result<std::span<std::byte>> {
        placed = true;
        return std::span(room);
    });
    EXPECT_TRUE(placed);
    ASSERT_FALSE(read);
    const auto after = reader.next();
    ASSERT_FALSE(after) << "a reader that has refused gives nothing more";
    EXPECT_EQ(after.error().what, read.error().what);
}

// As pre-copy sends it: pages again, some of them zero now.
Bytes rounds() {
    fakes::StreamBytes sink;
    Writer writer(sink);
    const auto first = pages(0, 3), second = pages(8, 2);
    const Bytes zeroes(2 * kPageSize);
    const std::vector<PagesToWrite> dirty{{1, zeroes}, {4, second}};
    EXPECT_TRUE(writer.start(kId, kEpoch, 2, {}, std::span(kKinds).last(1)));
    EXPECT_TRUE(writer.memory({0, first, {}}));
    EXPECT_TRUE(writer.pages(1, dirty));
    EXPECT_TRUE(
        writer.pages(2, std::vector<PagesToWrite>{{2, std::span(second).first(kPageSize)}}));
    EXPECT_TRUE(writer.record(kHint, 5, text("hint")));
    EXPECT_TRUE(writer.finish());
    return sink.bytes;
}

// Files of version 1 are read for ever (and by tests/docs/read_saved).
TEST(Format, GoldenFiles) {
    Vm with_rounds;
    with_rounds.records = {{{"vm.profile", 0}, {}}, {{"xen.hint", 5}, text("hint")}};
    put_pages(with_rounds.memory, 0, pages(0, 1));
    put_pages(with_rounds.memory, 2, pages(8, 1));
    put_pages(with_rounds.memory, 4, pages(8, 2));
    const Vm vm = expected_vm(small_ram());
    const std::vector<std::tuple<std::string, Bytes, Vm>> all{
        {"file", file_of(small_ram()), vm},
        {"stream", stream_of(small_ram()), vm},
        {"rounds", rounds(), with_rounds}};
    for (const auto& [name, now, expected] : all) {
        const std::string path = golden::file("saved/vm-" + name + ".v1");
        const char* mode = std::getenv("XENOLITH_GOLDEN");
        std::ifstream golden(path, std::ios::binary);
        if (!golden && mode != nullptr && std::string(mode) == "write") {
            std::ofstream out(path, std::ios::binary);
            out.write(reinterpret_cast<const char*>(now.data()),
                      static_cast<std::streamsize>(now.size()));
            continue;
        }
        ASSERT_TRUE(golden) << "there is no " << path;
        const auto content = text(std::string{std::istreambuf_iterator<char>(golden), {}});
        EXPECT_TRUE(content == now) << name << " has other bytes than before";
        for (const auto& read : {from_file(content), from_stream(content)}) {
            ASSERT_TRUE(read) << read.error().what;
            EXPECT_TRUE(*read == expected) << name;
        }
    }
}

}  // namespace
}  // namespace migration::format
