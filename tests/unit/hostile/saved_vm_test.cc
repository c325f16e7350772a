// Saved VMs from somebody who means harm: the checksums are all right, and nothing else is. Each is
// refused with a reason that names the record and where it is, from a file before anything is
// made, from a stream before anything of it could run.
#include "tests/fakes/saved_vm.h"

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "migration/format/writer.h"
#include "tests/fakes/golden_vm.h"
#include "tests/fakes/liar.h"
#include "vmm/cli/saved_vm.h"
#include "vmm/cli/vm_state.h"
#include "vmm/memory/shared_region.h"

namespace vmm::cli {
namespace {

using fakes::Bytes;
using fakes::Liar;
namespace format = migration::format;

Bytes honest() {
    fakes::StreamBytes sink;
    format::Writer writer(sink);
    const auto written = [&]() -> Result<void> {
        TRY(fakes::write_golden_states(writer, {}, 1));
        TRY(writer.finish());
        return {};
    }();
    EXPECT_TRUE(written) << written.error().what;
    return sink.bytes;
}

class HostileSavedVm : public testing::Test {
  protected:
    void SetUp() override {
        std::string name = testing::TempDir() + "xenolith-hostile-XXXXXX";
        ASSERT_NE(::mkdtemp(name.data()), nullptr);
        folder_ = name;
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }

    // Why it is refused, from a file; empty: it is not.
    std::string of_file(const Bytes& bytes) const {
        const std::string path = folder_ + "/file";
        std::ofstream(path, std::ios::binary)
            .write(reinterpret_cast<const char*>(bytes.data()),
                   static_cast<std::streamsize>(bytes.size()));
        const auto opened = SavedVm::open(path);
        return opened ? "" : opened.error().what;
    }
    // Likewise from a stream, to its end. There is no memory in it.
    static std::string of_stream(const Bytes& bytes, bool& at_the_head) {
        fakes::ByteStream stream(bytes, 777);
        auto received = SavedVm::receive(stream);
        at_the_head = !received;
        if (!received) return received.error().what;
        const auto rest = (*received)->receive_rest({});
        return rest ? "" : rest.error().what;
    }

    std::string folder_;
};

TEST_F(HostileSavedVm, AnHonestOneIsTaken) {
    bool at_the_head = false;
    EXPECT_EQ(of_file(honest()), "");
    EXPECT_EQ(of_stream(honest(), at_the_head), "");
    // What this build writes of a PVH guest is in it.
    EXPECT_EQ(Liar(honest()).bytes(), honest());
    for (const migration::Kind& kind : known_kinds()) {
        const std::string name = kind.section.name;
        if (name == "vm.profile" || name.starts_with("legacy.")) continue;
        EXPECT_NO_FATAL_FAILURE(static_cast<void>(Liar(honest()).find(name)));
    }
}

using Lie = std::function<void(Liar&)>;
struct Case {
    const char* name;
    std::string why;  // a part of the reason
    Lie lie;
    bool lengths = true;      // the headers' lengths are the payloads'
    bool is_missing = false;  // nothing is there that could be named by its place
};

void erase(Liar& l, std::string_view name) {
    l.pieces.erase(l.pieces.begin() + static_cast<long>(l.find(name)));
}
void move_to(Liar& l, std::string_view name, std::size_t to) {
    const auto piece = l[name];
    erase(l, name);
    l.pieces.insert(l.pieces.begin() + static_cast<long>(std::min(to, l.pieces.size())), piece);
}
// What is promised, with one kind more, less or otherwise.
void contents(Liar& l, const std::function<void(std::vector<format::Kind>&)>& how) {
    auto& payload = l["vm.contents"].payload;
    std::vector<format::Kind> kinds((payload.size() - sizeof(format::Contents)) /
                                    sizeof(format::Kind));
    std::memcpy(kinds.data(), &payload[sizeof(format::Contents)],
                kinds.size() * sizeof(format::Kind));
    how(kinds);
    std::ranges::sort(kinds, {}, &format::Kind::name);
    const format::Contents head{static_cast<std::uint32_t>(kinds.size()), 0};
    payload.resize(sizeof head + kinds.size() * sizeof(format::Kind));
    std::memcpy(payload.data(), &head, sizeof head);
    std::memcpy(&payload[sizeof head], kinds.data(), kinds.size() * sizeof(format::Kind));
}
void forget(Liar& l, std::string_view name) {  // as if it had never been written
    contents(l, [&](auto& kinds) {
        std::erase_if(kinds, [&](const auto& kind) { return kind.name == format::to_name(name); });
    });
    while (std::ranges::any_of(
        l.pieces, [&](const auto& piece) { return piece.header.name == format::to_name(name); })) {
        erase(l, name);
    }
}
void add(Liar& l, const char* name, std::uint32_t version, std::uint32_t flags) {
    contents(l, [&](auto& kinds) { kinds.push_back({format::to_name(name), version, flags}); });
    Liar::Piece piece;
    piece.header = {.name = format::to_name(name), .version = version, .flags = flags};
    piece.payload.resize(16);
    l.pieces.push_back(piece);
}
void of_another_version(Liar& l, std::string_view name, std::uint32_t version) {
    contents(l, [&](auto& kinds) {
        for (auto& kind : kinds) {
            if (kind.name == format::to_name(name)) kind.version = version;
        }
    });
    for (auto& piece : l.pieces) {
        if (piece.header.name == format::to_name(name)) piece.header.version = version;
    }
}
void say(Liar& l, std::string_view name, Bytes payload) {
    l[name].payload = std::move(payload);
}
template <saved::State T>
void change(Liar& l, const std::function<void(T&)>& how) {
    auto& piece = l[T::kSection.name];
    auto state = saved::decode<T>(piece.payload, piece.header.version);
    ASSERT_TRUE(state) << state.error();
    how(*state);
    piece.payload = saved::encode(*state);
}

std::vector<Case> cases() {
    using config::CallSitesState;
    using config::ConfigState;
    using config::MemoryLayoutState;
    using config::ProfileState;
    using L = Liar;
    std::vector<Case> all{
        // The profile: which words mean what.
        {"profile missing", "vm.profile comes first", [](L& l) { erase(l, "vm.profile"); }},
        {"profile doubled", "it comes once, and first",
         [](L& l) { l.pieces.insert(l.pieces.begin() + 1, l["vm.profile"]); }},
        {"profile doubled, at the end", "it comes once, and first",
         [](L& l) { l.pieces.push_back(l["vm.profile"]); }},
        {"profile swapped with the contents", "vm.profile comes first",
         [](L& l) { move_to(l, "vm.profile", 1); }},
        {"profile misplaced", "vm.profile comes first", [](L& l) { move_to(l, "vm.profile", 9); }},
        {"profile last", "vm.profile comes first", [](L& l) { move_to(l, "vm.profile", 99); }},
        {"profile of a second instance", "there is only one",
         [](L& l) { l["vm.profile"].header.instance = 1; }},
        {"profile optional", "always mandatory", [](L& l) { l["vm.profile"].header.flags = 0; }},
        {"profile of a later version", "version 2 is not known",
         [](L& l) { l["vm.profile"].header.version = 2; }},
        {"profile unknown", "record vm.profile at byte 64: profile: 'xen-9.9'",
         [](L& l) { change<ProfileState>(l, [](auto& p) { p.profile = "xen-9.9"; }); }},
        {"profile with another's name for quirks",
         "quirks:", [](L& l) { change<ProfileState>(l, [](auto& p) { p.quirks = "xen-4.17"; }); }},
        {"profile empty", "vm.profile at byte 64", [](L& l) { say(l, "vm.profile", {}); }},
        {"profile with the config's content", "vm.profile at byte 64",
         [](L& l) { say(l, "vm.profile", l["vm.config"].payload); }},
        {"profile promised once more", "is of no use here",
         [](L& l) {
             contents(l, [](auto& kinds) {
                 kinds.push_back({format::to_name("vm.profile"), 1, format::kMandatory});
             });
         }},
        {"profile and config swapped", "record vm.",
         [](L& l) { std::swap(l["vm.profile"].payload, l["vm.config"].payload); }},

        // What nobody knows.
        {"unknown and mandatory", "the record \"xen.other\" is not known, and mandatory",
         [](L& l) { add(l, "xen.other", 1, format::kMandatory); }},
        {"known, of a later version", "version 9 of the record \"vcpu\" is not known",
         [](L& l) { of_another_version(l, "vcpu", 9); }},
        {"memory of a later version", "\"memory\" has another version",
         [](L& l) { of_another_version(l, "memory", 2); }},
        {"not announced", "vm.contents has it not",
         [](L& l) {
             l.pieces.push_back(l["vcpu"]);
             l.pieces.back().header.name = format::to_name("xen.other");
         }},
        {"announced and not there", "promises \"xen.store\", which has not come",
         [](L& l) { erase(l, "xen.store"); }},
        {"no end", "it ends at", [](L& l) { l.right_end = false; }},

        // Twice, and not at all.
        {"vcpu doubled", "instance 0 of it was there before",
         [](L& l) { l.pieces.push_back(l["vcpu"]); }},
        {"config doubled", "instance 0 of it was there before",
         [](L& l) { l.pieces.push_back(l["vm.config"]); }},
        {"config twice, by instance", "there is only one",
         [](L& l) {
             l.pieces.push_back(l["vm.config"]);
             l.pieces.back().header.instance = 1;
         }},
        {"layout of instance 7", "there is only one",
         [](L& l) { l["vm.memory"].header.instance = 7; }},
        {"call sites of instance 2^32 - 1", "there is only one",
         [](L& l) { l["vm.call_sites"].header.instance = 0xffffffff; }},
        {"no config", "does not say what machine", [](L& l) { forget(l, "vm.config"); }, true,
         true},
        {"no layout", "does not say what machine", [](L& l) { forget(l, "vm.memory"); }, true,
         true},
        {"no call sites", "does not say where the guest's kernel makes hypercalls",
         [](L& l) { forget(l, "vm.call_sites"); }, true, true},

        // Content that is another's.
        {"config with the layout's content", "vm.config at byte",
         [](L& l) { say(l, "vm.config", l["vm.memory"].payload); }},
        {"layout of one byte more", "vm.memory at byte",
         [](L& l) { l["vm.memory"].payload.push_back({}); }},
        {"layout of one byte less", "vm.memory at byte",
         [](L& l) { l["vm.memory"].payload.pop_back(); }},
        {"2^32 regions", "vm.memory at byte",
         [](L& l) {
             // The fields' number, the field, its length; then the list's.
             std::memset(&l["vm.memory"].payload[2 + 2 + 4], 0xff, 4);
         }},
        {"a machine of no memory", "memory_bytes",
         [](L& l) { change<ConfigState>(l, [](auto& c) { c.memory_bytes = 0; }); }},
        {"a machine of 2^64 bytes", "memory_bytes",
         [](L& l) { change<ConfigState>(l, [](auto& c) { c.memory_bytes = ~0ull << 12; }); }},
        {"a machine of 2^32 - 1 vCPUs", "vcpus",
         [](L& l) { change<ConfigState>(l, [](auto& c) { c.vcpus = 0xffffffff; }); }},
        {"a guest whose name leads elsewhere", "name",
         [](L& l) { change<ConfigState>(l, [](auto& c) { c.name = "../../web"; }); }},
        {"memory that nobody was given", "regions[1]",
         [](L& l) {
             change<MemoryLayoutState>(l, [](auto& m) {
                 m.regions = {{0, 1}, {1, std::uint64_t{1} << 39}};
             });
         }},
        {"memory over itself", "regions[1]",
         [](L& l) {
             change<MemoryLayoutState>(l, [](auto& m) { m.regions = {{0, 100}, {50, 100}}; });
         }},
        {"memory not at 0", "regions",
         [](L& l) { change<MemoryLayoutState>(l, [](auto& m) {
                        m.regions = {{1, 100}};
                    }); }},
        {"call sites without end", "sites",
         [](L& l) { change<CallSitesState>(l, [](auto& c) { c.sites.resize(1025); }); }},
    };
    // Lengths.
    for (const char* name : {"vm.profile", "vm.contents", "vm.config", "vcpu", "xen.store"}) {
        for (const std::uint64_t length :
             {std::uint64_t{1} << 63, ~std::uint64_t{0}, ~std::uint64_t{0} - 71,
              std::uint64_t{1} << 32, format::kMostPayload + 1, std::uint64_t{65536}}) {
            all.push_back({"a length", std::string(name) + " at offset",
                           [=](L& l) { l[name].header.length = length; }, false});
        }
    }
    return all;
}

TEST_F(HostileSavedVm, IsRefusedBeforeAnythingIsMade) {
    std::size_t tried = 0;
    for (const Case& one : cases()) {
        SCOPED_TRACE(one.name);
        Liar liar(honest());
        one.lie(liar);
        const bool no_end = !liar.right_end;
        const Bytes bytes = liar.bytes(one.lengths, !no_end);
        bool at_the_head = false;
        for (const std::string& why : {of_file(bytes), of_stream(bytes, at_the_head)}) {
            EXPECT_NE(why, "");
            // A length that is a lie hides the record behind it, or ends before its own.
            if (one.lengths) {
                EXPECT_NE(why.find(one.why), std::string::npos) << why;
            }
            const bool says_where = why.find(" at offset ") != std::string::npos ||
                                    why.find(" at byte ") != std::string::npos;
            EXPECT_TRUE(says_where || one.is_missing) << why;
        }
        ++tried;
    }
    RecordProperty("cases", static_cast<int>(tried));
    EXPECT_GE(tried, 60u);
}

// A few bytes of a stream say "zeroes" of all that a guest has: that takes no memory, and gives
// back what was there.
TEST_F(HostileSavedVm, ZeroesTakeNoMemory) {
    constexpr std::uint64_t kPages = 0x8000;
    auto ram = SharedRegion::create("ram", kPages * kPageSize);
    ASSERT_TRUE(ram) << ram.error().what;
    fakes::StreamBytes sink;
    format::Writer writer(sink);
    const Bytes page(kPageSize, std::byte{0x5a});
    const Bytes zeroes(kPages * kPageSize);
    const auto written = [&]() -> Result<void> {
        TRY(fakes::write_golden_states(writer, {}, 1));
        const format::PagesToWrite first[] = {{.gfn = 7, .memory = page}};
        TRY(writer.pages(0, first));
        const format::PagesToWrite all[] = {{.gfn = 0, .memory = zeroes}};
        TRY(writer.pages(1, all));
        TRY(writer.finish());
        return {};
    }();
    ASSERT_TRUE(written) << written.error().what;
    ASSERT_LT(sink.bytes.size(), std::size_t{64} << 10);
    fakes::ByteStream stream(sink.bytes);
    auto received = SavedVm::receive(stream);
    ASSERT_TRUE(received) << received.error().what;
    const auto rest = (*received)->receive_rest(
        {{.gfn = 0, .pages = kPages, .fd = ram->fd(), .mapped = ram->data()}});
    ASSERT_TRUE(rest) << rest.error().what;
    EXPECT_FALSE(ram->backed(0, kPages * kPageSize));
    EXPECT_EQ(ram->data()[7 * kPageSize], std::byte{0});
}

// Optional records are nobody's business; records of state come in any order; of neither is
// anything refused, nor anything different.
TEST_F(HostileSavedVm, WhatIsHarmlessIsTaken) {
    const std::pair<const char*, Lie> harmless[] = {
        {"unknown and optional", [](Liar& l) { add(l, "xen.other", 1, 0); }},
        {"unknown and optional, of version 2^32 - 1",
         [](Liar& l) { add(l, "xen.other", 0xffffffff, 0); }},
        {"backwards", [](Liar& l) { std::reverse(l.pieces.begin() + 2, l.pieces.end()); }},
        {"vCPUs in another order",
         [](Liar& l) { std::swap(l.pieces[l.pieces.size() - 1], l.pieces[l.find("xen.wait")]); }},
    };
    const auto taken = [&](const Bytes& bytes) {
        fakes::ByteStream stream(bytes);
        auto vm = SavedVm::receive(stream);
        EXPECT_TRUE(vm) << vm.error().what;
        const auto rest = (*vm)->receive_rest({});
        EXPECT_TRUE(rest) << rest.error().what;
        return *std::move(vm);
    };
    const auto before = taken(honest());
    for (const auto& [name, lie] : harmless) {
        SCOPED_TRACE(name);
        Liar liar(honest());
        lie(liar);
        EXPECT_EQ(of_file(liar.bytes()), "");
        const auto vm = taken(liar.bytes());
        EXPECT_EQ(vm->config(), before->config());
        EXPECT_EQ(vm->layout(), before->layout());
        EXPECT_EQ(vm->call_sites(), before->call_sites());
        EXPECT_EQ(vm->parts().size(), before->parts().size());
    }
}

}  // namespace
}  // namespace vmm::cli
