// Writer and reader: what goes in comes out, and a file that holds anything else is refused with
// the offset of its first mistake.
#include <thread>

#include <sys/stat.h>

#include <gtest/gtest.h>

#include "tests/fakes/trace_file.h"
#include "xenshim/trace/check.h"

namespace xenshim::trace {
namespace {

using fakes::read_all;
using fakes::read_bytes;
using fakes::ReadBack;
using fakes::ScratchFile;

Session session(unsigned vcpus = 1) {
    return {.profile = abi::find_profile("xen-4.17"),
            .transport = "portable",
            .vcpus = vcpus,
            .domid = 7,
            .legacy_quirks = true};
}

abi::Request request(std::uint64_t number, std::uint64_t first = 0) {
    return {.number = number, .args = {first, 2, 3, 4, 5}, .width = abi::Width::k64, .cpl = 0};
}

// A trace of each kind of record.
std::string sample() {
    const ScratchFile file;
    {
        auto writer = Writer::create(file.path());
        EXPECT_TRUE(writer);
        (*writer)->begin(session(2));
        Recorder& recorder = (*writer)->recorder(1);
        recorder.record(request(17), abi::Finish{0x40011}, Recorder::ticks(), Recorder::ticks());
        auto narrow = request(12, 1);
        narrow.width = abi::Width::k32;
        narrow.cpl = 3;
        recorder.captured.begin(*session(2).profile, narrow);
        const std::array<std::byte, 20> structure{std::byte{1}, std::byte{2}};
        recorder.captured.note_read(2, structure);
        recorder.captured.note_write(2, std::span(structure).first(5));
        abi::Reissue again{.number = 12, .args = narrow.args};
        again.args[0] = 0xc1;
        recorder.record(narrow, again, Recorder::ticks(), Recorder::ticks());
        (*writer)->begin(session(2));  // a restart
        (*writer)->recorder(0).record(request(29, 1), abi::Block{}, Recorder::ticks(),
                                      Recorder::ticks());
        (*writer)->finish();
    }
    return file.bytes();
}

TEST(TraceFile, RoundTrip) {
    for (const std::size_t piece : {SIZE_MAX, std::size_t{1}, std::size_t{13}}) {
        auto reader = read_bytes(sample(), piece);
        ASSERT_TRUE(reader) << reader.error().what;
        EXPECT_EQ(reader->header().profile->name, "xen-4.17");
        EXPECT_EQ(reader->header().transport, "portable");
        EXPECT_EQ(reader->header().vcpus, 2u);
        EXPECT_EQ(reader->header().domid, 7);
        EXPECT_TRUE(reader->header().legacy_quirks);
        EXPECT_GT(reader->header().started_ns, 0u);

        const ReadBack all = read_all(std::move(reader));
        EXPECT_EQ(all.error, "");
        EXPECT_TRUE(all.complete);
        ASSERT_EQ(all.events.size(), 5u);
        EXPECT_EQ(all.events[0].request, request(17));
        EXPECT_EQ(all.events[0].ending, Ending::kFinish);
        EXPECT_EQ(all.events[0].result, 0x40011);
        EXPECT_EQ(all.events[0].vcpu, 1u);
        EXPECT_TRUE(all.events[0].in.empty());

        EXPECT_EQ(all.events[1].request.width, abi::Width::k32);
        EXPECT_EQ(all.events[1].request.cpl, 3u);
        EXPECT_EQ(all.events[1].ending, Ending::kContinue);
        EXPECT_EQ(all.events[1].next_args[0], 0xc1u);
        EXPECT_EQ(all.events[1].next_args[4], 5u);
        EXPECT_EQ(all.events[1].in.size(), 20u);
        EXPECT_EQ(all.events[1].in[1], std::byte{2});
        EXPECT_EQ(all.events[1].out.size(), 5u);
        EXPECT_GE(all.events[1].time_ns, all.events[0].time_ns + all.events[0].duration_ns);

        EXPECT_EQ(all.events[2].kind, Kind::kRestart);
        EXPECT_EQ(all.events[3].ending, Ending::kBlock);
        EXPECT_EQ(all.events[4].kind, Kind::kEnd);
    }
}

TEST(TraceFile, FourVcpusAtOnce) {
    constexpr unsigned kVcpus = 4;
    constexpr std::uint64_t kCalls = 5000;
    const ScratchFile file;
    auto writer = Writer::create(file.path());
    ASSERT_TRUE(writer);
    (*writer)->begin(session(kVcpus));
    std::vector<std::thread> threads;
    for (unsigned v = 0; v < kVcpus; ++v) {
        threads.emplace_back([&, v] {
            for (std::uint64_t n = 0; n < kCalls; ++n) {
                const std::uint64_t began = Recorder::ticks();
                (*writer)->recorder(v).record(request(17, n), abi::Finish{}, began,
                                              Recorder::ticks());
            }
        });
    }
    for (auto& thread : threads)
        thread.join();
    (*writer)->finish();
    const std::uint64_t dropped = (*writer)->dropped();

    const ReadBack all = read_all(Reader::open(file.path()));
    EXPECT_EQ(all.error, "");
    EXPECT_TRUE(all.complete);
    std::array<std::uint64_t, kVcpus> next{}, last_ns{};
    std::uint64_t calls = 0, missing = 0;
    for (const Event& event : all.events) {
        if (event.kind == Kind::kDropped) missing += event.value;
        if (event.kind != Kind::kCall) continue;
        ++calls;
        EXPECT_GE(event.request.args[0], next[event.vcpu]);
        next[event.vcpu] = event.request.args[0] + 1;
        EXPECT_GE(event.time_ns, last_ns[event.vcpu]);
        last_ns[event.vcpu] = event.time_ns;
    }
    EXPECT_EQ(missing, dropped);
    EXPECT_EQ(calls + missing, kVcpus * kCalls);
}

TEST(TraceFile, WhatFindsNoRoomIsCounted) {
    const ScratchFile file;
    auto writer = Writer::create(file.path());
    ASSERT_TRUE(writer);
    Session small = session();
    small.ring_bytes = 4096;  // full before any thread wakes up
    (*writer)->begin(small);
    Recorder& recorder = (*writer)->recorder(0);
    std::uint64_t calls = 0;
    while ((*writer)->dropped() == 0) {
        recorder.record(request(17), abi::Finish{}, 0, Recorder::ticks());
        ++calls;
    }
    (*writer)->finish();
    const ReadBack all = read_all(Reader::open(file.path()));
    EXPECT_EQ(all.error, "");
    std::uint64_t seen = 0, missing = 0;
    for (const Event& event : all.events) {
        if (event.kind == Kind::kCall) ++seen;
        if (event.kind == Kind::kDropped) missing += event.value;
    }
    EXPECT_GT(missing, 0u);
    EXPECT_EQ(seen + missing, calls);
}

TEST(TraceFile, ADiskThatIsFullEndsTheTraceOnly) {
    auto writer = Writer::create("/dev/full");
    ASSERT_TRUE(writer) << writer.error().what;
    testing::internal::CaptureStderr();
    (*writer)->begin(session());
    EXPECT_TRUE((*writer)->failed());
    for (int i = 0; i < 100'000; ++i) {
        (*writer)->recorder(0).record(request(17), abi::Finish{}, 0, Recorder::ticks());
    }
    (*writer)->finish();
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_NE(said.find("/dev/full"), std::string::npos) << said;
    EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
}

TEST(TraceFile, NotEveryNameIsAFile) {
    const ScratchFile file;
    ::unlink(file.path().c_str());
    ASSERT_EQ(::mkfifo(file.path().c_str(), 0600), 0);
    for (const std::string& path :
         {std::string("/nowhere/at/all"), std::string("/tmp"), file.path()}) {
        const auto writer = Writer::create(path);
        ASSERT_FALSE(writer) << path;
        EXPECT_EQ(writer.error().fault, vmm::Fault::kUser);
        EXPECT_NE(writer.error().what.find(path), std::string::npos) << writer.error().what;
    }
}

// ---- files that hold something else -------------------------------------------------------------

TEST(TraceFile, EveryTruncationIsNoticed) {
    const std::string whole = sample();
    for (std::size_t size = 0; size < whole.size(); ++size) {
        const ReadBack all = read_all(read_bytes(whole.substr(0, size)));
        EXPECT_FALSE(all.complete) << size;
        // At a record's end nothing is wrong but that the end is missing.
        if (all.error.empty()) {
            EXPECT_GE(size, sizeof(FileHeader));
            EXPECT_EQ(size % 8, 0u);
        } else {
            EXPECT_NE(all.error.find("memory: offset "), std::string::npos) << all.error;
        }
    }
}

// Whatever a byte is changed to: an error or other records, and each of them can be shown.
TEST(TraceFile, NoByteIsTrusted) {
    const std::string whole = sample();
    const abi::Profile& there = *abi::find_profile("xen-3.3");
    std::size_t refused = 0;
    for (std::size_t at = 0; at < whole.size(); ++at) {
        for (const unsigned change : {0x01u, 0x80u, 0xffu}) {
            std::string bad = whole;
            bad[at] = static_cast<char>(static_cast<unsigned char>(bad[at]) ^ change);
            auto reader = read_bytes(bad);
            if (!reader) {
                ++refused;
                continue;
            }
            Check check(reader->header(), there);
            for (;;) {
                const auto event = reader->next();
                if (!event) {
                    EXPECT_NE(event.error().what.find("offset "), std::string::npos);
                    ++refused;
                    break;
                }
                if (!*event) break;
                if ((*event)->kind != Kind::kCall) continue;
                const auto text =
                    to_text(describe(*reader->header().profile, **event, Style::kFull));
                for (const char c : text)
                    EXPECT_TRUE(c >= ' ' && c <= '~') << text;
                check.add(**event);
            }
        }
    }
    EXPECT_GT(refused, 300u);
}

struct Mistake {
    const char* what;
    std::size_t at;
    std::string bytes;
};

TEST(TraceFile, MistakesAreNamed) {
    const std::string whole = sample();
    const std::size_t first = sizeof(FileHeader), second = first + sizeof(CallRecord);
    const Mistake mistakes[] = {
        {"offset 0: this is no trace", 0, "ELF"},
        {"offset 0: version 9 ", 8, "\x09"},
        {"offset 0: the header has a wrong size", 12, std::string("\x79", 1)},
        {"offset 0: the number of vCPUs", 24, std::string("\0", 1)},
        {"offset 0: there is no profile xen-9.17", 36, "9"},
        {"offset 0: the names in the header", 32, std::string("\x1b[2J", 4)},
        {"offset 128: a record of 7 bytes", first, std::string("\x07", 1)},
        {"offset 128: a record of 65280 bytes", first, std::string("\0\xff", 2)},
        {"offset 128: record kind 9", first + 2, "\x09"},
        {"offset 128: a call that ends in no known way", first + 3, "\x09"},
        {"offset 128: there is no vCPU 2", first + 4, "\x02"},
        {"offset 128: a caller of no width", first + 6, "\x05"},
        {"offset 128: a caller in ring 7", first + 7, "\x07"},
        {"offset 128: a call's record whose parts do not add up", first + 76, "\x09"},
        {"offset 208: a 32-bit caller's register is wider", second + 31, "\x01"},
    };
    for (const Mistake& mistake : mistakes) {
        std::string bad = whole;
        bad.replace(mistake.at, mistake.bytes.size(), mistake.bytes);
        const ReadBack all = read_all(read_bytes(bad));
        EXPECT_NE(all.error.find(mistake.what), std::string::npos)
            << mistake.what << "; said: " << all.error;
    }
    EXPECT_NE(read_all(read_bytes("")).error.find("the file is empty"), std::string::npos);
    EXPECT_NE(read_all(read_bytes(whole + whole)).error.find("something follows the end"),
              std::string::npos);
    std::string miscounted = whole;
    miscounted[whole.size() - 8] = 77;
    EXPECT_NE(read_all(read_bytes(miscounted)).error.find("counts other records"),
              std::string::npos);
    EXPECT_NE(read_all(Reader::open("/nowhere/at/all")).error.find("/nowhere/at/all"),
              std::string::npos);
    EXPECT_NE(read_all(Reader::open("/tmp")).error.find("/tmp"), std::string::npos);
}

}  // namespace
}  // namespace xenshim::trace
