// Results, descriptors that close themselves, a lock, and the log.
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

#include "vmm/base/fd.h"
#include "vmm/base/log.h"
#include "vmm/base/result.h"
#include "vmm/base/writers_first.h"

namespace vmm {
namespace {

// ---- Expected
// -------------------------------------------------------------------------------------

Expected<int, std::string> half(int n) {
    if (n % 2 != 0) return Failure{std::string("odd")};
    return n / 2;
}
Expected<void, std::string> must_be_even(int n) {
    TRY(half(n));
    return {};
}
Expected<int, std::string> quarter(int n) {
    TRY(must_be_even(n));
    const int h = TRY(half(n));
    return TRY(half(h));
}

TEST(Expected, CarriesAValueOrAReason) {
    EXPECT_TRUE(half(4).has_value());
    EXPECT_EQ(*half(4), 2);
    EXPECT_FALSE(half(3));
    EXPECT_EQ(half(3).error(), "odd");
    EXPECT_EQ(half(3).value_or(9), 9);
    EXPECT_EQ(half(8).value_or(9), 4);
    EXPECT_TRUE(must_be_even(2).has_value());
    EXPECT_EQ(must_be_even(1).error(), "odd");
}

TEST(Expected, TryLeavesWithTheReasonAtTheFirstFailure) {
    EXPECT_EQ(*quarter(8), 2);
    EXPECT_EQ(quarter(6).error(), "odd");
    EXPECT_EQ(quarter(5).error(), "odd");
}

TEST(Expected, MovesWhatCannotBeCopied) {
    const auto make = []() -> Result<std::unique_ptr<int>> { return std::make_unique<int>(5); };
    const auto pass_on = [&]() -> Result<std::unique_ptr<int>> { return TRY(make()); };
    EXPECT_EQ(**pass_on(), 5);
    EXPECT_EQ(*make()->get(), 5);
}

TEST(Expected, AValueOfTheReasonsTypeIsStillAValue) {
    const auto text = []() -> Expected<std::string, std::string> { return std::string("fine"); };
    EXPECT_TRUE(text().has_value());
    EXPECT_EQ(*text(), "fine");
}

TEST(Error, SaysWhoseFaultItIsAndWhatFailed) {
    const Result<void> user = user_error("no such file");
    EXPECT_EQ(user.error().fault, Fault::kUser);
    EXPECT_EQ(user.error().what, "no such file");
    EXPECT_EQ(Result<int>(host_error("x")).error().fault, Fault::kHost);
    EXPECT_EQ(Result<int>(internal_error("x")).error().fault, Fault::kInternal);
    const Result<int> failed = errno_error("open x", Fault::kUser, ENOENT);
    EXPECT_EQ(failed.error().what, "open x: No such file or directory");
    EXPECT_EQ(failed.error().fault, Fault::kUser);
}

// ---- Fd
// -------------------------------------------------------------------------------------------

bool is_open(int fd) {
    return ::fcntl(fd, F_GETFD) >= 0;
}
int open_null() {
    return ::open("/dev/null", O_RDONLY | O_CLOEXEC);
}

TEST(Fd, ClosesWhenItGoes) {
    int raw = -1;
    {
        const Fd fd(open_null());
        raw = fd.get();
        EXPECT_TRUE(fd);
        EXPECT_TRUE(is_open(raw));
    }
    EXPECT_FALSE(is_open(raw));
    EXPECT_FALSE(Fd());
    EXPECT_FALSE(Fd(-1));
}

TEST(Fd, MovesWithoutClosing) {
    Fd a(open_null());
    const int raw = a.get();
    Fd b(std::move(a));
    EXPECT_EQ(b.get(), raw);
    EXPECT_EQ(a.get(), -1);  // NOLINT: what a move leaves is the point
    EXPECT_TRUE(is_open(raw));
    Fd c(open_null());
    const int other = c.get();
    c = std::move(b);
    EXPECT_FALSE(is_open(other));
    EXPECT_EQ(c.get(), raw);
    Fd& same = c;
    c = std::move(same);
    EXPECT_TRUE(is_open(raw));
    c.reset();
    EXPECT_FALSE(is_open(raw));
    c.reset();
    EXPECT_EQ(c.get(), -1);
}

// ---- WritersFirstMutex
// ----------------------------------------------------------------------------

// XSA-114: nobody new shares the lock once somebody waits to have it alone.
TEST(WritersFirstMutex, WhoWaitsForItAloneIsNext) {
    WritersFirstMutex mutex;
    std::shared_lock first(mutex);
    EXPECT_TRUE(std::shared_lock(mutex, std::try_to_lock).owns_lock());
    EXPECT_FALSE(std::unique_lock(mutex, std::try_to_lock).owns_lock());
    bool had_it = false;
    std::thread alone([&] {
        const std::unique_lock lock(mutex);
        had_it = true;
    });
    // It waits when a newcomer is turned away although the lock is only shared.
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    bool turned_away = false;
    while (!turned_away && std::chrono::steady_clock::now() < end) {
        turned_away = !std::shared_lock(mutex, std::try_to_lock).owns_lock();
    }
    EXPECT_TRUE(turned_away);
    EXPECT_FALSE(had_it);
    first.unlock();
    {
        const std::shared_lock next(mutex);
        EXPECT_TRUE(had_it);
    }
    alone.join();
}

// ---- the log
// --------------------------------------------------------------------------------------

class Log : public testing::Test {
  protected:
    Log() {
        const int fd = ::mkstemp(path_.data());
        EXPECT_GE(fd, 0);
        ::close(fd);
        EXPECT_TRUE(set_log_file(path_.data()).has_value());
    }
    ~Log() override {
        set_log_level(LogLevel::kWarn);
        ::unlink(path_.data());
    }
    std::vector<std::string> lines() {
        std::ifstream file(path_.data());
        std::vector<std::string> out;
        for (std::string line; std::getline(file, line);) {
            out.push_back(line);
        }
        return out;
    }
    std::array<char, 32> path_ = {"/tmp/xenolith-log-XXXXXX"};
};

TEST_F(Log, NamesLevelAndSubsystem) {
    set_log_level(LogLevel::kDebug);
    log_error("a", "one %d", 1);
    log_warn("b", "two %s", "2");
    log_info("c", "three");
    log_debug("d", "four");
    EXPECT_EQ(lines(),
              (std::vector<std::string>{"xenolith: error: a: one 1", "xenolith: warn: b: two 2",
                                        "xenolith: info: c: three", "xenolith: debug: d: four"}));
}

TEST_F(Log, TheLevelDecides) {
    set_log_level(LogLevel::kError);
    log_warn("b", "not said");
    log_guest("b", "not said");
    log_error("a", "said");
    EXPECT_EQ(lines(), (std::vector<std::string>{"xenolith: error: a: said"}));
    EXPECT_TRUE(log_enabled(LogLevel::kError));
    EXPECT_FALSE(log_enabled(LogLevel::kWarn));
    set_log_level(LogLevel::kTrace);
    EXPECT_TRUE(log_enabled(LogLevel::kTrace));
}

TEST_F(Log, ALineThatIsTooLongIsCutAndStillALine) {
    const std::string much(5000, 'x');
    log_error("a", "%s", much.c_str());
    log_error("a", "after");
    const auto said = lines();
    ASSERT_EQ(said.size(), 2u);
    EXPECT_LE(said[0].size(), 1023u);
    EXPECT_GE(said[0].size(), 1000u);
    EXPECT_EQ(said[0].back(), 'x');
    EXPECT_EQ(said[1], "xenolith: error: a: after");
}

// XSA-118, XSA-141, XSA-146, XSA-152: lines that a guest can cause.
TEST_F(Log, AGuestCannotFillTheDisk) {
    for (unsigned n = 0; n < 5000; ++n) {
        log_guest("guest", "again");
    }
    // Ten a second and a count, however the seconds fall.
    EXPECT_LE(lines().size(), 33u);
    EXPECT_GE(lines().size(), 1u);
}

TEST_F(Log, LinesOfSeveralThreadsStayWhole) {
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 4; ++t) {
        threads.emplace_back([t] {
            for (unsigned n = 0; n < 50; ++n) {
                log_error("t", "thread %u line %u end", t, n);
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    const auto said = lines();
    ASSERT_EQ(said.size(), 200u);
    for (const auto& line : said) {
        EXPECT_EQ(line.rfind("xenolith: error: t: thread ", 0), 0u) << line;
        EXPECT_EQ(line.substr(line.size() - 4), " end") << line;
    }
}

TEST(LogFile, OneThatCannotBeOpenedIsTheUsersMistake) {
    const auto set = set_log_file("/nonexistent/log");
    ASSERT_FALSE(set.has_value());
    EXPECT_EQ(set.error().fault, Fault::kUser);
    EXPECT_NE(set.error().what.find("/nonexistent/log"), std::string::npos);
}

TEST(LogLevelNames, AreTheOnesOfTheManual) {
    EXPECT_EQ(parse_log_level("error"), LogLevel::kError);
    EXPECT_EQ(parse_log_level("warn"), LogLevel::kWarn);
    EXPECT_EQ(parse_log_level("info"), LogLevel::kInfo);
    EXPECT_EQ(parse_log_level("debug"), LogLevel::kDebug);
    EXPECT_EQ(parse_log_level("trace"), LogLevel::kTrace);
    for (const char* bad : {"", "Error", "warning", "warn "}) {
        EXPECT_FALSE(parse_log_level(bad).has_value()) << bad;
    }
}

}  // namespace
}  // namespace vmm
