// A trace file as version 1 of the format wrote it, once: later readers read it as that one did.
// What they print of it may only change on purpose, and never for want of a byte.
#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

#include "tests/fakes/trace_file.h"
#include "tests/golden/folder.h"
#include "xenshim/abi/numbers.h"

namespace xenshim::trace {
namespace {

const std::string kTrace = golden::file("traces/tampa.trace");

std::string text_of(const std::string& path) {
    std::ifstream file(path);
    EXPECT_TRUE(file) << path;
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

TEST(GoldenTrace, SaysWhatItSaid) {
    const auto print = [](auto&& report) {
        auto reader = Reader::open(kTrace);
        EXPECT_TRUE(reader) << reader.error().what;
        return fakes::printed([&](std::FILE* to) { EXPECT_TRUE(report(*reader, to)); });
    };
    const std::string calls =
        print([](auto& from, auto* to) { return print_calls(from, Style::kStable, false, to); });
    const std::string check = print([](auto& from, auto* to) {
        return print_check(from, *abi::find_profile("xen-4.17"), Style::kStable, false, to);
    });
    EXPECT_EQ(calls + "\n" + check, text_of(golden::file("traces/tampa.txt")));
}

// What the stable texts leave out.
TEST(GoldenTrace, HoldsWhatItHeld) {
    auto reader = Reader::open(kTrace);
    ASSERT_TRUE(reader) << reader.error().what;
    const Header header = reader->header();
    EXPECT_EQ(header.profile->name, "xenserver-7.1");
    EXPECT_EQ(header.transport, "portable");
    EXPECT_TRUE(header.legacy_quirks);
    EXPECT_EQ(header.started_ns, 1795387945724468748ULL);
    const auto all = fakes::read_all(std::move(reader));
    EXPECT_EQ(all.error, "");
    EXPECT_TRUE(all.complete);
    ASSERT_EQ(all.events.size(), 85u);
    const Event& last = all.events.at(all.events.size() - 2);  // the end's own record follows
    EXPECT_EQ(last.request.number, abi::HYPERVISOR_sched_op);
    EXPECT_EQ(last.request.args[0], std::uint64_t{abi::SCHEDOP_shutdown});
    EXPECT_EQ(last.time_ns, 88699285u);
    EXPECT_EQ(last.duration_ns, 1267199u);
    EXPECT_EQ(last.in, (std::vector<std::byte>(4)));  // SHUTDOWN_poweroff
}

}  // namespace
}  // namespace xenshim::trace
