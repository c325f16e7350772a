// When a long operation stops: what it costs to ask, how late it can be, and that nothing stops it
// without a reason. The clock is one that advances by what each unit costs.
#include "xenshim/hypercall/preemption.h"

#include <atomic>
#include <optional>

#include <gtest/gtest.h>

namespace xenshim {
namespace {

constexpr std::uint64_t kUs = 1000;
constexpr std::uint64_t kDeadline = 100 * kUs;  // the default policy's

struct Clock {
    static inline std::uint64_t now = 0;
    static inline std::uint64_t reads = 0;
    static std::uint64_t read() {
        ++reads;
        return now;
    }
    static void start() {
        now = 1'000'000'000;
        reads = 0;
    }
};

class Preempt : public testing::Test {
  protected:
    void SetUp() override { Clock::start(); }

    // Runs `units` of work, as a handler does. Where it stopped; nothing: it did not.
    template <class Cost>
    std::optional<std::uint64_t> run(Preemption& preemption, std::uint64_t first,
                                     std::uint64_t units, Cost&& cost) {
        preemption.enter();
        began_ = Clock::now;
        for (std::uint64_t i = first; i < units; ++i) {
            if (i != first && preemption.should_yield(i)) return i;
            Clock::now += cost(i);
        }
        return std::nullopt;
    }
    std::uint64_t spent() const { return Clock::now - began_; }
    static auto each(std::uint64_t ns) {
        return [ns](std::uint64_t) { return ns; };
    }
    Preemption with(PreemptPolicy policy) { return {wanted, std::move(policy), Clock::read}; }

    std::atomic<std::uint32_t> wanted{0};
    std::uint64_t began_ = 0;
};

TEST_F(Preempt, NothingPendingAndTimeLeftMeansNoStop) {
    auto preemption = with({});
    EXPECT_EQ(run(preemption, 0, 1000, each(99)), std::nullopt);  // 99 us in all
    EXPECT_EQ(run(preemption, 0, 1, each(10'000 * kUs)), std::nullopt);
}

// What is for a vCPU that sleeps stops no work: each stop of it would be needless.
TEST_F(Preempt, OnlyWhatIsHeededStopsIt) {
    Preemption preemption(wanted, {}, Clock::read);
    preemption.heed(~std::uint32_t{4});
    wanted = 4;
    EXPECT_EQ(run(preemption, 0, 100, each(1)), std::nullopt);
    wanted = 4 | 1;
    EXPECT_EQ(run(preemption, 0, 100, each(1)), 1u);
    preemption.heed(~std::uint32_t{4 | 1});
    EXPECT_EQ(run(preemption, 0, 100, each(1)), std::nullopt);
    preemption.heed(~std::uint32_t{1});
    EXPECT_EQ(run(preemption, 0, 100, each(1)), 1u);
}

TEST_F(Preempt, OneUnitNeverLooksAtTheClock) {
    auto preemption = with({});
    run(preemption, 0, 1, each(kUs));
    EXPECT_EQ(Clock::reads, 0u);
}

// The bound: after the deadline at most another eighth of it, or one unit where one unit is
// longer. The first unit is always done and the second is where the clock starts.
TEST_F(Preempt, AnEntryIsBoundedWhateverAUnitCosts) {
    for (const std::uint64_t cost : {1ull, 10ull, 100ull, 333ull, 1'000ull, 5'000ull, 12'500ull,
                                     40'000ull, 99'000ull, 250'000ull, 5'000'000ull}) {
        auto preemption = with({});
        const auto stop = run(preemption, 0, 4'000'000, each(cost));
        ASSERT_TRUE(stop) << cost;
        EXPECT_GE(*stop, 1u);
        EXPECT_LE(spent(), kDeadline + kDeadline / 8 + 2 * cost) << cost;
        EXPECT_GE(spent(), std::min(kDeadline, cost)) << cost;
    }
}

// The same for one element and for four million: how much is left does not matter.
TEST_F(Preempt, TheBoundDoesNotDependOnWhatIsLeft) {
    std::optional<std::uint64_t> few, many;
    {
        auto preemption = with({});
        few = run(preemption, 0, 10'000, each(100));
    }
    {
        auto preemption = with({});
        many = run(preemption, 0, 4'000'000, each(100));
    }
    ASSERT_TRUE(few);
    EXPECT_EQ(few, many);
}

// Units that grow dear in mid-entry: at most one stretch was planned with the old price.
TEST_F(Preempt, UnitsThatBecomeDearAreNoticed) {
    auto preemption = with({});
    constexpr std::uint64_t kCheap = 50, kDear = 2 * kUs;
    const auto stop =
        run(preemption, 0, 4'000'000, [&](std::uint64_t i) { return i < 300 ? kCheap : kDear; });
    ASSERT_TRUE(stop);
    // 256 is the most between two looks.
    EXPECT_LE(spent(), kDeadline + 256 * kDear + kDeadline / 8);
}

TEST_F(Preempt, AUnitThatSaysThatItWasDearIsNoticedAtOnce) {
    auto preemption = with({});
    preemption.enter();
    for (std::uint64_t i = 0; i < 4'000'000; ++i) {
        if (i != 0 && preemption.should_yield(i)) {
            EXPECT_EQ(i, 301u);
            return;
        }
        Clock::now += i == 300 ? kDeadline : 50;
        if (i == 300) preemption.look_soon();
    }
    ADD_FAILURE() << "never stopped";
}

TEST_F(Preempt, AFirstUnitCountsIfTheClockIsStartedBeforeIt) {
    auto preemption = with({});
    preemption.enter();
    preemption.start_clock();
    Clock::now += kDeadline;
    EXPECT_TRUE(preemption.should_yield(1));
    // Not in the next entry, and in one that runs already it begins no new time.
    preemption.enter();
    preemption.start_clock();
    Clock::now += kDeadline;
    preemption.start_clock();
    EXPECT_TRUE(preemption.should_yield(1));
    preemption.enter();
    Clock::now += kDeadline;
    EXPECT_FALSE(preemption.should_yield(1));
}

// Cheap: eight looks or so in an entry whatever its units cost, not one per unit.
TEST_F(Preempt, TheClockIsReadRarely) {
    struct Row {
        std::uint64_t cost, units, most;
    };
    for (const Row& row : {Row{10, 1000, 10}, Row{50, 1900, 14}, Row{100, 900, 12},
                           Row{1000, 90, 12}, Row{10'000, 9, 9}}) {
        Clock::start();
        auto preemption = with({});
        EXPECT_EQ(run(preemption, 0, row.units, each(row.cost)), std::nullopt) << row.cost;
        EXPECT_LE(Clock::reads, row.most) << row.cost << " ns, " << row.units << " units";
        EXPECT_GE(Clock::reads, 1u);
    }
}

// However cheap a unit is, the clock is looked at every 256 units.
TEST_F(Preempt, TheClockIsReadEvenIfUnitsCostNothing) {
    auto preemption = with({});
    EXPECT_EQ(run(preemption, 0, 100'000, each(0)), std::nullopt);
    EXPECT_GE(Clock::reads, 100'000u / 256);
    EXPECT_LE(Clock::reads, 100'000u / 256 + 8);
}

TEST_F(Preempt, EachEntryHasItsOwnDeadline) {
    auto preemption = with({});
    std::uint64_t unit = 0;
    unsigned entries = 0;
    while (const auto stop = run(preemption, unit, 100'000, each(100))) {
        EXPECT_GT(*stop, unit) << "progress";
        EXPECT_LE(spent(), kDeadline + kDeadline / 8 + 200);
        unit = *stop;
        ++entries;
    }
    // 10 ms of work in pieces of 100 us and a little.
    EXPECT_GE(entries, 85u);
    EXPECT_LE(entries, 100u);
}

TEST_F(Preempt, AWishStopsBeforeTheNextUnit) {
    auto preemption = with({});
    const auto stop = run(preemption, 0, 1000, [&](std::uint64_t i) {
        if (i == 41) wanted = 1;
        return std::uint64_t{1};
    });
    EXPECT_EQ(stop, 42u);
}

// Forward progress (xen-abi.md 2.5): a wish that stays costs one stop per unit, never none done.
TEST_F(Preempt, AWishThatStaysLetsOneUnitThroughPerEntry) {
    auto preemption = with({});
    wanted = 1;
    std::uint64_t unit = 0;
    for (std::uint64_t entry = 1; entry < 50; ++entry) {
        const auto stop = run(preemption, unit, 50, each(1));
        ASSERT_EQ(stop, entry);
        unit = *stop;
    }
    EXPECT_EQ(run(preemption, unit, 50, each(1)), std::nullopt);  // never after the last
    EXPECT_EQ(Clock::reads, 0u);
}

TEST_F(Preempt, EveryCountsInEachEntry) {
    for (const std::uint32_t every : {1u, 2u, 3u, 7u}) {
        auto preemption = with({.every = every, .at = {}});
        std::uint64_t unit = 0;
        while (const auto stop = run(preemption, unit, 40, each(1))) {
            EXPECT_EQ(*stop, unit + every);
            unit = *stop;
        }
        EXPECT_LT(unit, 40u);
        EXPECT_GE(unit + every, 40u);
    }
}

TEST_F(Preempt, AtNamesUnitsOfTheOperation) {
    auto preemption = with({.every = 0, .at = {3, 4, 17}});
    std::uint64_t unit = 0;
    std::vector<std::uint64_t> stops;
    while (const auto stop = run(preemption, unit, 40, each(1))) {
        stops.push_back(*stop);
        unit = *stop;
    }
    EXPECT_EQ(stops, (std::vector<std::uint64_t>{3, 4, 17}));
}

// Before unit 0 there is nothing to stop, and a unit named twice by a resumed entry is done.
TEST_F(Preempt, AtNeverStopsAnEntryBeforeItsFirstUnit) {
    auto preemption = with({.every = 0, .at = {0, 5}});
    EXPECT_EQ(run(preemption, 0, 40, each(1)), 5u);
    EXPECT_EQ(run(preemption, 5, 40, each(1)), std::nullopt);
}

TEST_F(Preempt, TheDeadlineIsThePolicys) {
    for (const std::uint32_t after_us : {1u, 10u, 1000u}) {
        auto preemption = with({.every = 0, .at = {}, .after_us = after_us});
        const auto stop = run(preemption, 0, 4'000'000, each(50));
        ASSERT_TRUE(stop);
        EXPECT_GE(spent(), after_us * kUs);
        EXPECT_LE(spent(), after_us * kUs + after_us * kUs / 8 + 256 * 50 + 100);
    }
}

// A clock that stands still, or an entry at its very start, is no reason to stop.
TEST_F(Preempt, ADeadlineOfZeroStillMakesProgress) {
    auto preemption = with({.every = 0, .at = {}, .after_us = 0});
    std::uint64_t unit = 0;
    unsigned entries = 0;
    while (const auto stop = run(preemption, unit, 20, each(10))) {
        ASSERT_GT(*stop, unit);
        unit = *stop;
        ASSERT_LE(++entries, 20u);
    }
}

}  // namespace
}  // namespace xenshim
