// What `xenolith trace` prints: for eyes, for scripts, and for Perfetto.
#include "xenshim/trace/report.h"

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include <gtest/gtest.h>

#include "tests/fakes/trace_file.h"
#include "xenshim/abi/numbers.h"

namespace xenshim::trace {
namespace {

using nlohmann::json;

class Report : public testing::Test {
  protected:
    Report() {
        auto writer = *Writer::create(file_.path());
        writer->begin({.profile = abi::find_profile("xen-4.17"),
                       .transport = "portable",
                       .vcpus = 2,
                       .domid = 5});
        const auto record = [&](unsigned vcpu, std::array<std::uint64_t, 5> args,
                                const abi::Reply& reply) {
            const abi::Request request{
                .number = abi::HYPERVISOR_memory_op, .args = args, .width = abi::Width::k64};
            writer->recorder(vcpu).record(request, reply, Recorder::ticks(), Recorder::ticks());
        };
        record(0, {1, 0x5000}, abi::Reissue{12, {3 << 6 | 1, 0x5000}});
        record(1, {3 << 6 | 1, 0x5000}, abi::Finish{8});
        record(0, {14, 0}, abi::Finish{-14});
        writer->begin({});
        writer->finish();
    }
    template <class Print>
    std::string run(Print&& print) {
        auto reader = Reader::open(file_.path());
        EXPECT_TRUE(reader);
        return fakes::printed([&](std::FILE* to) { print(*reader, to); });
    }

    fakes::ScratchFile file_;
};

TEST_F(Report, Calls) {
    EXPECT_EQ(run([](Reader& reader, std::FILE* to) {
                  EXPECT_TRUE(print_calls(reader, Style::kStable, false, to));
              }),
              "# profile xen-4.17, domain 5, 2 vCPUs\n"
              "v0 memory_op(XENMEM_decrease_reservation, *) = continues at 3\n"
              "v1 memory_op(XENMEM_decrease_reservation, *, start=3) = 8\n"
              "v0 memory_op(XENMEM_maximum_gpfn, NULL) = -EFAULT\n"
              "-- the guest is started anew\n");
    const std::string full = run([](Reader& reader, std::FILE* to) {
        EXPECT_TRUE(print_calls(reader, Style::kFull, false, to));
    });
    EXPECT_NE(full.find(", transport portable,"), std::string::npos) << full;
    EXPECT_NE(full.find(" v1 memory_op(XENMEM_decrease_reservation, 0x5000, start=3) = 8 <0.0000"),
              std::string::npos)
        << full;
}

TEST_F(Report, CallsAsJsonLines) {
    EXPECT_EQ(run([](Reader& reader, std::FILE* to) {
                  EXPECT_TRUE(print_calls(reader, Style::kStable, true, to));
              }),
              R"({"kind":"trace","profile":"xen-4.17","domid":5,"vcpus":2,"xenserver_quirks":false}
{"kind":"call","vcpu":0,"width":64,"hypercall":"memory_op","operation":"XENMEM_decrease_reservation","arguments":{"arg1":"*"},"result":"continues at 3","ending":"continues"}
{"kind":"call","vcpu":1,"width":64,"hypercall":"memory_op","operation":"XENMEM_decrease_reservation","arguments":{"arg1":"*","start":"3"},"result":"8","ending":"finished","value":8}
{"kind":"call","vcpu":0,"width":64,"hypercall":"memory_op","operation":"XENMEM_maximum_gpfn","arguments":{"arg1":"NULL"},"result":"-EFAULT","ending":"finished","value":-14}
{"kind":"restart"}
{"kind":"end","complete":true}
)");
    std::istringstream full(run([](Reader& reader, std::FILE* to) {
        EXPECT_TRUE(print_calls(reader, Style::kFull, true, to));
    }));
    unsigned calls = 0;
    for (std::string text; std::getline(full, text);) {
        const json line = json::parse(text);
        if (line["kind"] == "trace") {
            EXPECT_EQ(line["transport"], "portable");
        }
        if (line["kind"] != "call") continue;
        ++calls;
        EXPECT_TRUE(line["time_ns"].is_number_unsigned()) << text;
        EXPECT_TRUE(line["duration_ns"].is_number_unsigned()) << text;
        EXPECT_NE(line["arguments"]["arg1"], "*") << text;
    }
    EXPECT_EQ(calls, 3u);
}

// How often depends on how long a guest had to wait.
TEST(StableReport, LeavesYieldsOut) {
    const fakes::ScratchFile file;
    {
        auto writer = *Writer::create(file.path());
        writer->begin({.profile = abi::find_profile("xen-4.17"), .transport = "portable"});
        for (const std::uint64_t op : {abi::SCHEDOP_yield, abi::SCHEDOP_block}) {
            writer->recorder(0).record(
                {.number = abi::HYPERVISOR_sched_op, .args = {op}, .width = abi::Width::k64},
                abi::Finish{0}, Recorder::ticks(), Recorder::ticks());
        }
        writer->finish();
    }
    const auto print = [&](auto&& report) {
        auto reader = Reader::open(file.path());
        EXPECT_TRUE(reader);
        return fakes::printed([&](std::FILE* to) { EXPECT_TRUE(report(*reader, to)); });
    };
    const auto has = [](const std::string& text, const char* what) {
        return text.find(what) != std::string::npos;
    };
    for (const Style style : {Style::kFull, Style::kStable}) {
        const bool full = style == Style::kFull;
        const auto calls =
            print([&](auto& from, auto* to) { return print_calls(from, style, false, to); });
        EXPECT_TRUE(has(calls, "SCHEDOP_block")) << calls;
        EXPECT_EQ(has(calls, "SCHEDOP_yield"), full) << calls;
        const auto sums =
            print([&](auto& from, auto* to) { return print_sums(from, style, false, to); });
        EXPECT_TRUE(has(sums, "SCHEDOP_block")) << sums;
        EXPECT_EQ(has(sums, "SCHEDOP_yield"), full) << sums;
        const auto check = print([&](auto& from, auto* to) {
            return print_check(from, *abi::find_profile("xen-4.16"), style, false, to);
        });
        EXPECT_TRUE(has(check, full ? "# 2 calls" : "# 1 calls")) << check;
    }
}

TEST_F(Report, Sums) {
    EXPECT_EQ(run([](Reader& reader, std::FILE* to) {
                  EXPECT_TRUE(print_sums(reader, Style::kStable, false, to));
              }),
              "# profile xen-4.17, domain 5, 2 vCPUs\n"
              "     calls    entries  continued   errors  operation\n"
              "         1          2          1        0  XENMEM_decrease_reservation\n"
              "         1          1          0        1  XENMEM_maximum_gpfn\n");
    const auto sums = json::parse(run([](Reader& reader, std::FILE* to) {
        EXPECT_TRUE(print_sums(reader, Style::kFull, true, to));
    }));
    EXPECT_EQ(sums["profile"], "xen-4.17");
    EXPECT_EQ(sums["complete"], true);
    ASSERT_EQ(sums["operations"].size(), 2u);
    std::uint64_t entries = 0;
    for (const auto& row : sums["operations"]) {
        entries += row["entries"].get<std::uint64_t>();
        EXPECT_GE(row["total_ns"], row["longest_ns"]);
    }
    EXPECT_EQ(entries, 3u);
}

TEST_F(Report, Chrome) {
    const auto chrome = json::parse(
        run([](Reader& reader, std::FILE* to) { EXPECT_TRUE(print_chrome(reader, to)); }));
    EXPECT_EQ(chrome["otherData"]["profile"], "xen-4.17");
    std::vector<json> calls;
    for (const auto& event : chrome["traceEvents"]) {
        if (event["ph"] == "X") calls.push_back(event);
    }
    ASSERT_EQ(calls.size(), 3u);
    EXPECT_EQ(calls[1]["name"], "XENMEM_decrease_reservation");
    EXPECT_EQ(calls[1]["cat"], "memory_op");
    EXPECT_EQ(calls[1]["tid"], 1);
    EXPECT_EQ(calls[1]["pid"], 5);
    EXPECT_EQ(calls[1]["args"]["start"], "3");
    EXPECT_EQ(calls[1]["args"]["result"], "8");
    EXPECT_TRUE(calls[1]["ts"].is_number());
    EXPECT_TRUE(calls[1]["dur"].is_number());
}

TEST_F(Report, Check) {
    const auto& there = *abi::find_profile("xen-3.3");
    EXPECT_EQ(run([&](Reader& reader, std::FILE* to) {
                  EXPECT_TRUE(*print_check(reader, there, Style::kStable, false, to));
              }),
              "# profile xen-4.17, domain 5, 2 vCPUs\n"
              "# \"here\" is xen-4.17, \"there\" is xen-3.3\n"
              "         2  XENMEM_decrease_reservation: continuation: a continuation in flight "
              "means something else there\n"
              "            first on v0: memory_op(XENMEM_decrease_reservation, *) = continues at "
              "3\n"
              "            register 0xc1: here XENMEM_decrease_reservation from 3, there "
              "XENMEM_decrease_reservation from 12\n"
              "# 3 calls, 1 difference\n");
    const auto report = json::parse(run([&](Reader& reader, std::FILE* to) {
        EXPECT_TRUE(*print_check(reader, there, Style::kFull, true, to));
    }));
    ASSERT_EQ(report["differences"].size(), 1u);
    EXPECT_EQ(report["differences"][0]["reason"], "continuation");
    EXPECT_EQ(report["differences"][0]["calls"], 2);
    EXPECT_EQ(report["differences"][0]["first"]["vcpu"], 0);
    run([](Reader& reader, std::FILE* to) {
        EXPECT_FALSE(*print_check(reader, *abi::find_profile("xen-4.16"), Style::kFull, false, to));
    });
}

TEST_F(Report, OutputThatCannotBeWritten) {
    auto reader = Reader::open(file_.path());
    std::FILE* const full = std::fopen("/dev/full", "w");
    ASSERT_NE(full, nullptr);
    const auto done = print_calls(*reader, Style::kFull, false, full);
    std::fclose(full);
    ASSERT_FALSE(done);
    EXPECT_NE(done.error().what.find("No space"), std::string::npos) << done.error().what;
}

}  // namespace
}  // namespace xenshim::trace
