#include "devices/legacy/pit.h"

#include <atomic>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/fakes/saved_checks.h"
#include "tests/unit/devices/legacy/state_walk.h"

namespace devices::legacy {
namespace {

using testing::Rng;
using vmm::IoAccess;

// The first nanosecond of a tick; written otherwise than the PIT's own arithmetic.
std::uint64_t ns_of(std::uint64_t tick) {
    const auto exact = static_cast<long double>(tick) * 1e9L / 1193182.0L;
    auto ns = static_cast<std::uint64_t>(exact);
    while (static_cast<long double>(ns) < exact)
        ++ns;
    return ns;
}

// Shows what reaches IRQ 0: 'R' for a rise, 'F' for a fall.
class Wire : public vmm::IrqLine {
  public:
    void set(bool level) override {
        EXPECT_NE(level, high_) << "a level that changes nothing";
        high_ = level;
        seen_ += level ? 'R' : 'F';
    }
    std::string take() { return std::exchange(seen_, {}); }
    bool high() const { return high_; }

  private:
    bool high_ = false;
    std::string seen_;
};

class PitTest : public ::testing::Test {
  protected:
    void out(std::uint16_t port, unsigned value, unsigned size = 1) {
        pit.write({.offset = port, .size = size}, value);
    }
    unsigned in(std::uint16_t port, unsigned size = 1) {
        return pit.read({.offset = port, .size = size});
    }
    void at(std::uint64_t tick) { now_ns = ns_of(tick); }
    void step() { at(++tick_); }

    bool out2() { return (in(0x61) & 0x20) != 0; }
    void gate2(bool gate) { out(0x61, gate ? 1 : 0); }
    unsigned count2() {
        out(0x43, 0x80);
        const unsigned low = in(0x42);
        return low | in(0x42) << 8;
    }
    unsigned status(unsigned counter) {
        out(0x43, 0xe0 | 2U << counter);
        return in(static_cast<std::uint16_t>(0x40 + counter));
    }
    // Programs counter 0 with both bytes.
    void program0(unsigned mode, unsigned count) {
        out(0x43, 0x30 | mode << 1);
        out(0x40, count & 0xff);
        out(0x40, count >> 8);
    }
    // Runs the timer thread's loop until `tick`.
    void run_until(std::uint64_t tick) {
        const std::uint64_t end = ns_of(tick);
        int rounds = 0;
        for (auto due = pit.next_deadline_ns(); due && *due <= end; due = pit.next_deadline_ns()) {
            ASSERT_LT(++rounds, 100000);
            now_ns = std::max(now_ns, *due);
            pit.tick(now_ns);
        }
        now_ns = end;
    }

    std::uint64_t now_ns = ns_of(1000);
    std::uint64_t tick_ = 1000;
    int deadline_changes = 0;
    Wire wire;
    Pit pit{{.now_ns = [this] { return now_ns; },
             .irq0 = wire,
             .deadline_changed = [this] { ++deadline_changes; }}};
};

TEST_F(PitTest, ClaimsItsPorts) {
    EXPECT_STREQ(pit.name(), "pit");
    const auto ranges = pit.ranges();
    ASSERT_EQ(ranges.size(), 2U);
    EXPECT_EQ(ranges[0], (vmm::PortRange{0x40, 4}));
    EXPECT_EQ(ranges[1], (vmm::PortRange{0x61, 1}));
}

// The timing diagrams of the datasheet's "Mode Definitions" (figures 15 to 20), on counter 2,
// whose gate software drives. A case is a line of events; each is followed by one tick:
//   .  nothing     g/G  gate falls/rises     0-9  that count is written
// and what shows after each of these ticks: OUT, and the count.
struct Diagram {
    const char* what;
    unsigned mode;
    bool gate;
    std::string events;
    std::string out;
    std::vector<int> counts;
};

class PitDiagram : public PitTest, public ::testing::WithParamInterface<Diagram> {};

TEST_P(PitDiagram, IsAsInTheDatasheet) {
    const Diagram& test = GetParam();
    SCOPED_TRACE(test.what);
    gate2(test.gate);
    out(0x43, 0xb0 | test.mode << 1);  // both bytes, so that counts are read whole
    std::string seen_out;
    std::vector<int> seen_counts;
    for (const char event : test.events) {
        if (event == 'g') gate2(false);
        if (event == 'G') gate2(true);
        if (event >= '0' && event <= '9') {
            out(0x42, static_cast<unsigned>(event - '0'));
            out(0x42, 0);
        }
        step();
        seen_out += out2() ? 'H' : 'L';
        const auto count = static_cast<std::int16_t>(count2());
        const bool asked = test.counts.at(seen_counts.size()) != -9;
        seen_counts.push_back(asked ? count : -9);
    }
    EXPECT_EQ(seen_out, test.out);
    EXPECT_EQ(seen_counts, test.counts);
}

// -9 stands for "not looked at"; counts below 0 are ffff, fffe and so on.
INSTANTIATE_TEST_SUITE_P(
    Datasheet, PitDiagram,
    ::testing::Values(
        Diagram{"mode 0", 0, true, "4......", "LLLLHHH", {4, 3, 2, 1, 0, -1, -2}},
        Diagram{"mode 0, gate", 0, true, "3.g.G...", "LLLLLHHH", {3, 2, 2, 2, 1, 0, -1, -2}},
        Diagram{"mode 0, new count", 0, true, "3..2....", "LLLLLHHH", {3, 2, 1, 2, 1, 0, -1, -2}},
        Diagram{"mode 0, gate rises later", 0, false, "3..G...", "LLLLLHH", {3, 3, 3, 2, 1, 0, -1}},
        Diagram{"mode 1", 1, false, "3.G....gG.", "HHLLLHHHLL", {-9, -9, 3, 2, 1, 0, -1, -2, 3, 2}},
        Diagram{"mode 1, retriggered",
                1,
                false,
                "3.G.gG...",
                "HHLLLLLLH",
                {-9, -9, 3, 2, 1, 3, 2, 1, 0}},
        Diagram{"mode 1, new count",
                1,
                false,
                "2.G.4..gG..",
                "HHLLHHHHLLL",
                {-9, -9, 2, 1, 0, -1, -2, -3, 4, 3, 2}},
        Diagram{"mode 1, gate without a count", 1, false, "G.gG", "HHHH", {-9, -9, -9, -9}},
        Diagram{"mode 2", 2, true, "3......", "HHLHHLH", {3, 2, 1, 3, 2, 1, 3}},
        Diagram{"mode 2, gate", 2, true, "3.gG...", "HHHHHLH", {3, 2, 2, 3, 2, 1, 3}},
        Diagram{"mode 2, gate falls while OUT is low", 2, true, "3..g", "HHLH", {3, 2, 1, 1}},
        Diagram{"mode 2, new count", 2, true, "4.5.....", "HHHLHHHH", {4, 3, 2, 1, 5, 4, 3, 2}},
        Diagram{
            "mode 2, new count by gate", 2, true, "4.5gG...", "HHHHHHHH", {4, 3, 2, 2, 5, 4, 3, 2}},
        Diagram{"mode 2, gate low at first", 2, false, "3..G..", "HHHHHL", {3, 3, 3, 3, 2, 1}},
        Diagram{
            "mode 2, count 1 is illegal and acts as 2", 2, true, "1....", "HLHLH", {2, 1, 2, 1, 2}},
        Diagram{"mode 6 is mode 2", 6, true, "3......", "HHLHHLH", {3, 2, 1, 3, 2, 1, 3}},
        Diagram{"mode 3, even", 3, true, "4........", "HHLLHHLLH", {4, 2, 4, 2, 4, 2, 4, 2, 4}},
        Diagram{"mode 3, odd",
                3,
                true,
                "5..........",
                "HHHLLHHHLLH",
                {4, 2, 0, 4, 2, 4, 2, 0, 4, 2, 4}},
        Diagram{"mode 3, gate", 3, true, "4..gG....", "HHLHHHLLH", {4, 2, 4, 4, 4, 2, 4, 2, 4}},
        Diagram{"mode 3, new count at the half",
                3,
                true,
                "46.......",
                "HHLLLHHHL",
                {4, 2, 6, 4, 2, 6, 4, 2, 6}},
        Diagram{"mode 3, count 1 acts as 2", 3, true, "1....", "HLHLH", {2, 2, 2, 2, 2}},
        Diagram{"mode 7 is mode 3", 7, true, "4........", "HHLLHHLLH", {4, 2, 4, 2, 4, 2, 4, 2, 4}},
        Diagram{"mode 4", 4, true, "3......", "HHHLHHH", {3, 2, 1, 0, -1, -2, -3}},
        Diagram{"mode 4, gate", 4, false, "3..G....", "HHHHHLHH", {3, 3, 3, 2, 1, 0, -1, -2}},
        Diagram{"mode 4, new count", 4, true, "3..2....", "HHHHHLHH", {3, 2, 1, 2, 1, 0, -1, -2}},
        Diagram{"mode 5", 5, false, "3.G....gG", "HHHHHLHHH", {-9, -9, 3, 2, 1, 0, -1, -2, 3}},
        Diagram{"mode 5, retriggered",
                5,
                false,
                "3.G.gG....",
                "HHHHHHHHLH",
                {-9, -9, 3, 2, 1, 3, 2, 1, 0, -1}}),
    [](const auto& test) { return "Case" + std::to_string(test.index); });

// "OUT will go low on the CLK pulse following a trigger", not before.
TEST_F(PitTest, AOneShotStartsWithTheTickAfterItsTrigger) {
    gate2(false);
    out(0x43, 0xb2);
    out(0x42, 3);
    out(0x42, 0);
    gate2(true);
    EXPECT_TRUE(out2());
    step();
    EXPECT_FALSE(out2());
    gate2(false);
    gate2(true);
    EXPECT_FALSE(out2()) << "retriggered, it stays low";
}

// "Writing the first byte disables counting. OUT is set low immediately (no clock pulse required)."
TEST_F(PitTest, Mode0StopsAtTheFirstByte) {
    gate2(true);
    out(0x43, 0xb0);
    out(0x42, 2);
    out(0x42, 0);
    for (int i = 0; i < 4; ++i)
        step();
    EXPECT_TRUE(out2());
    out(0x42, 3);
    EXPECT_FALSE(out2());
    const unsigned stopped = count2();
    for (int i = 0; i < 10; ++i)
        step();
    gate2(false);
    gate2(true);
    EXPECT_EQ(count2(), stopped);
    EXPECT_FALSE(out2());
    out(0x42, 0);
    for (int i = 0; i < 3; ++i)
        step();
    EXPECT_FALSE(out2());
    step();
    EXPECT_TRUE(out2());
}

TEST_F(PitTest, TheFirstByteOfOtherModesChangesNothing) {
    gate2(true);
    out(0x43, 0xb4);
    out(0x42, 10);
    out(0x42, 0);
    step();
    out(0x42, 99);
    step();
    EXPECT_EQ(count2(), 9U);
}

// "OUT will be initially high", but for mode 0.
TEST_F(PitTest, OutAfterTheControlWord) {
    for (unsigned mode = 0; mode < 8; ++mode) {
        out(0x43, 0xb0 | mode << 1);
        EXPECT_EQ(out2(), mode != 0) << mode;
    }
}

TEST_F(PitTest, ZeroIsTheLargestCount) {
    gate2(true);
    for (const auto& [control, largest] : {std::pair{0xb0U, 65536U}, std::pair{0xb1U, 10000U}}) {
        out(0x43, control);
        out(0x42, 0);
        out(0x42, 0);
        step();
        EXPECT_EQ(count2(), 0U);
        step();
        EXPECT_EQ(count2(), largest == 10000 ? 0x9999U : 0xffffU);
        tick_ += largest - 2;
        at(tick_);
        EXPECT_FALSE(out2());
        step();
        EXPECT_TRUE(out2());
    }
}

TEST_F(PitTest, BcdCountsInDecimal) {
    gate2(true);
    out(0x43, 0xb1);
    out(0x42, 0x01);
    out(0x42, 0x10);  // 1001
    step();
    EXPECT_EQ(count2(), 0x1001U);
    step();
    step();
    EXPECT_EQ(count2(), 0x0999U);
    tick_ += 999;
    at(tick_);
    EXPECT_TRUE(out2());
    step();
    EXPECT_EQ(count2(), 0x9999U) << "and wraps as a decimal counter";
}

TEST_F(PitTest, DigitsThatAreNotDecimalDoNoHarm) {
    gate2(true);
    for (unsigned mode = 0; mode < 6; ++mode) {
        out(0x43, 0xb1 | mode << 1);
        out(0x42, 0xff);
        out(0x42, 0xff);
        for (int i = 0; i < 50; ++i) {
            tick_ += 777;
            at(tick_);
            const unsigned count = count2();
            for (unsigned digit = 0; digit < 4; ++digit)
                EXPECT_LE(count >> (4 * digit) & 0xf, 9U);
        }
    }
}

struct AccessCase {
    unsigned rw;
    std::vector<unsigned> writes;
    unsigned count;               // what they mean
    std::vector<unsigned> reads;  // of the count 0x1234 below
};

TEST_F(PitTest, ReadAndWriteFormats) {
    gate2(false);  // the count stands still
    for (const auto& [rw, writes, count, reads] :
         {AccessCase{1, {0x34}, 0x0034, {0x34, 0x34}}, AccessCase{2, {0x12}, 0x1200, {0x12, 0x12}},
          AccessCase{3, {0x34, 0x12}, 0x1234, {0x34, 0x12, 0x34, 0x12}}}) {
        SCOPED_TRACE(rw);
        out(0x43, 0x80 | rw << 4);
        for (const unsigned value : writes)
            out(0x42, value);
        step();
        for (const bool latched : {false, true}) {
            for (const unsigned value : reads) {
                if (latched) out(0x43, 0x80);
                EXPECT_EQ(in(0x42), value);
            }
        }
        EXPECT_EQ(pit.snapshot().counters[2].initial, count);
    }
}

// "Read LSB, write new LSB, read MSB, write new MSB" is valid.
TEST_F(PitTest, ReadsAndWritesOfTwoBytesInterleave) {
    gate2(false);
    out(0x43, 0xb4);
    out(0x42, 0x34);
    out(0x42, 0x12);
    EXPECT_EQ(in(0x42), 0x34U);
    out(0x42, 0x78);
    EXPECT_EQ(in(0x42), 0x12U);
    out(0x42, 0x56);
    EXPECT_EQ(pit.snapshot().counters[2].count_register, 0x5678);
}

TEST_F(PitTest, ALatchedCountHoldsUntilItIsRead) {
    gate2(true);
    out(0x43, 0xb0);
    out(0x42, 0x00);
    out(0x42, 0x10);
    step();
    out(0x43, 0x80);
    for (int i = 0; i < 5; ++i)
        step();
    out(0x43, 0x80);  // the second latch is ignored
    EXPECT_EQ(in(0x42), 0x00U);
    EXPECT_EQ(in(0x42), 0x10U);
    EXPECT_EQ(in(0x42), 0xfbU) << "then reads follow the count again";
    EXPECT_EQ(in(0x42), 0x0fU);
    out(0x43, 0x80);
    out(0x43, 0xb0);  // a Control Word drops the latch
    step();
    EXPECT_FALSE(pit.snapshot().counters[2].count_latched);
}

// Datasheet, figure 13: "Read-Back Command Example".
TEST_F(PitTest, ReadBackCommandExample) {
    for (const unsigned counter : {0U, 1U, 2U}) {
        out(0x43, counter << 6 | 0x30);
        out(static_cast<std::uint16_t>(0x40 + counter), 0x21);
        out(static_cast<std::uint16_t>(0x40 + counter), 0x43);
    }
    gate2(true);
    step();
    out(0x43, 0xc2);  // count and status of counter 0
    EXPECT_TRUE(pit.snapshot().counters[0].count_latched);
    EXPECT_TRUE(pit.snapshot().counters[0].status_latched);
    out(0x43, 0xe4);  // status of counter 1
    out(0x43, 0xec);  // status of counters 2 and 1: 1's is ignored
    out(0x43, 0xd8);  // count of counter 2
    out(0x43, 0xc4);  // count and status of counter 1: the status is ignored
    out(0x43, 0xe2);  // status of counter 0: ignored
    const auto& counters = pit.snapshot().counters;
    EXPECT_TRUE(counters[1].count_latched && counters[1].status_latched);
    EXPECT_TRUE(counters[2].count_latched && counters[2].status_latched);
    step();
    for (const std::uint16_t port : {std::uint16_t{0x40}, std::uint16_t{0x41}}) {
        EXPECT_EQ(in(port), 0x30U) << "status first";
        EXPECT_EQ(in(port), 0x21U);
        EXPECT_EQ(in(port), 0x43U);
        EXPECT_EQ(in(port), 0x20U) << "unlatched again";
    }
}

TEST_F(PitTest, ReadBackSelectsWhatItSays) {
    const PitState before = pit.snapshot();
    for (const unsigned value : {0xc0U, 0xfeU, 0xc1U})
        out(0x43, value);
    EXPECT_EQ(pit.snapshot(), before);
    out(0x43, 0xd8);
    const PitState after = pit.snapshot();
    EXPECT_FALSE(after.counters[0].count_latched || after.counters[1].count_latched);
    EXPECT_TRUE(after.counters[2].count_latched);
    EXPECT_FALSE(after.counters[2].status_latched);
}

// Datasheet, figures 11 and 12: bits 5 to 0 as written, NULL COUNT, OUT.
TEST_F(PitTest, StatusByte) {
    gate2(true);
    for (unsigned control = 0x10; control < 0x40; ++control) {
        out(0x43, 0x80 | control);
        const unsigned mode = control >> 1 & 7;
        EXPECT_EQ(status(2), control | 0x40 | (mode == 0 ? 0 : 0x80));
    }
}

TEST_F(PitTest, ALatchedStatusHoldsUntilItIsRead) {
    gate2(true);
    out(0x43, 0xb4);
    out(0x43, 0xe8);
    out(0x42, 9);
    out(0x42, 0);
    step();
    out(0x43, 0xe8);
    EXPECT_EQ(in(0x42), 0xf4U);
    EXPECT_EQ(status(2), 0xb4U);
}

TEST_F(PitTest, NullCountFallsWhenTheCountIsLoaded) {
    gate2(true);
    out(0x43, 0xb4);
    EXPECT_TRUE(status(2) & 0x40) << "by the Control Word";
    out(0x42, 3);
    out(0x42, 0);
    EXPECT_TRUE(status(2) & 0x40);
    step();
    EXPECT_FALSE(status(2) & 0x40) << "by the first tick";
    out(0x42, 4);
    EXPECT_FALSE(status(2) & 0x40) << "half a count is none";
    out(0x42, 0);
    EXPECT_TRUE(status(2) & 0x40);
    step();
    step();
    EXPECT_TRUE(status(2) & 0x40);
    step();
    EXPECT_FALSE(status(2) & 0x40) << "by the reload";

    out(0x43, 0xb2);  // mode 1 loads at its trigger
    out(0x42, 4);
    out(0x42, 0);
    for (int i = 0; i < 3; ++i)
        step();
    EXPECT_TRUE(status(2) & 0x40);
    gate2(false);
    gate2(true);
    EXPECT_TRUE(status(2) & 0x40);
    step();
    EXPECT_FALSE(status(2) & 0x40);
}

TEST_F(PitTest, SystemControlPortB) {
    out(0x61, 0xff);
    EXPECT_EQ(in(0x61) & ~0x30U, 0x0fU) << "bits 4 to 7 are inputs";
    out(0x61, 0x02);
    EXPECT_EQ(in(0x61) & ~0x30U, 0x02U);
    EXPECT_FALSE(pit.snapshot().counters[2].gate);
    // The refresh bit changes every 18 ticks.
    int changes = 0;
    unsigned last = in(0x61) & 0x10;
    for (int i = 0; i < 1800; ++i) {
        step();
        const unsigned now = in(0x61) & 0x10;
        if (now != last) ++changes;
        last = now;
    }
    EXPECT_EQ(changes, 100);
}

TEST_F(PitTest, TheModeRegisterCannotBeRead) {
    EXPECT_EQ(in(0x43), 0xffU);
}

TEST_F(PitTest, WideAccessesAreByteCycles) {
    gate2(false);
    out(0x42, 0xb05a, 2);  // a byte to counter 2, then mode 0 for counter 2
    EXPECT_EQ(pit.snapshot().counters[2].control, 0x30);
    out(0x42, 0x34);
    out(0x42, 0x12);
    step();
    EXPECT_EQ(in(0x42, 2), 0xff34U);
    EXPECT_EQ(in(0x42, 4), 0xffffff12U) << "ports 0x44 and 0x45 are not ours";
    EXPECT_EQ(in(0x60, 2) & 0xff, 0xffU);
    EXPECT_EQ(in(0x42, 0), 0U);
    EXPECT_EQ(pit.read({.offset = ~0ULL, .size = 4}), ~0U);
    EXPECT_EQ(pit.read({.offset = 0x10040, .size = 1}), 0xffU);
    const PitState before = pit.snapshot();
    for (const std::uint64_t port : {0x3fULL, 0x44ULL, 0x60ULL, 0x62ULL, 0x10043ULL, ~0ULL}) {
        pit.write({.offset = port, .size = 1}, 0x34);
    }
    EXPECT_EQ(pit.snapshot(), before);
}

TEST_F(PitTest, NothingIsDueUntilSomethingIsProgrammed) {
    EXPECT_FALSE(pit.next_deadline_ns());
    pit.tick(now_ns + 1'000'000'000);
    EXPECT_EQ(wire.take(), "");
}

TEST_F(PitTest, Mode0RaisesIrq0Once) {
    program0(0, 5000);
    EXPECT_EQ(wire.take(), "");
    ASSERT_EQ(pit.next_deadline_ns(), ns_of(1000 + 5001));
    EXPECT_EQ(deadline_changes, 1);
    pit.tick(ns_of(6001) - 1);
    EXPECT_EQ(wire.take(), "");
    run_until(6001);
    EXPECT_EQ(wire.take(), "R");
    EXPECT_FALSE(pit.next_deadline_ns());
    run_until(900000);
    EXPECT_EQ(wire.take(), "");
    program0(0, 5000);
    EXPECT_EQ(wire.take(), "F") << "OUT is low while it counts";
    run_until(990000);
    EXPECT_EQ(wire.take(), "R");
}

TEST_F(PitTest, Mode4StrobesOnce) {
    program0(4, 5000);
    EXPECT_EQ(wire.take(), "R") << "OUT rises with the Control Word";
    ASSERT_EQ(pit.next_deadline_ns(), ns_of(1000 + 5002));
    run_until(1000000);
    EXPECT_EQ(wire.take(), "FR");
    EXPECT_FALSE(pit.next_deadline_ns());
}

TEST_F(PitTest, PeriodicModesDoNotDrift) {
    for (const unsigned mode : {2U, 3U}) {
        SCOPED_TRACE(mode);
        const std::uint64_t start = tick_ = tick_ + 100000000;
        at(start);
        program0(mode, 11932);
        wire.take();
        const std::uint64_t missed = pit.missed_ticks();
        // An hour of a 100 Hz timer, its thread always a little late.
        for (std::uint64_t i = 1; i <= 360000; ++i) {
            ASSERT_EQ(pit.next_deadline_ns(), ns_of(start + 1 + 11932 * i));
            now_ns = *pit.next_deadline_ns() + 12345;
            pit.tick(now_ns);
            if (i % 1000 == 0) {
                ASSERT_EQ(wire.take().size(), 2000U);
            }
        }
        tick_ = start + 361000ULL * 11932;
        EXPECT_EQ(pit.missed_ticks(), missed);
    }
}

TEST_F(PitTest, ASquareWaveWithANewCountIsDueAtTheRightTick) {
    program0(3, 1000);  // loaded at 1001, high until 1501, low until 2001
    at(1200);
    out(0x40, 0xd0);
    out(0x40, 0x07);  // 2000, from 1501
    EXPECT_EQ(pit.next_deadline_ns(), ns_of(1501 + 1000));
    run_until(2501);
    EXPECT_EQ(pit.next_deadline_ns(), ns_of(2501 + 2000));
}

TEST_F(PitTest, MissedTicksAreCountedAndNotMadeUpFor) {
    program0(2, 1000);
    EXPECT_EQ(wire.take(), "R");
    now_ns = ns_of(1001 + 10 * 1000 + 5);
    pit.tick(now_ns);
    EXPECT_EQ(wire.take(), "FR");
    EXPECT_EQ(pit.missed_ticks(), 9U);
    EXPECT_EQ(pit.next_deadline_ns(), ns_of(1001 + 11 * 1000)) << "and the phase is kept";
    pit.tick(now_ns);
    EXPECT_EQ(wire.take(), "");
}

TEST_F(PitTest, AnAccessDeliversWhatIsDueAndDoesNotSwallowIt) {
    program0(2, 1000);
    wire.take();
    at(2001);
    in(0x40);
    EXPECT_EQ(wire.take(), "FR");
    pit.tick(now_ns);
    EXPECT_EQ(wire.take(), "");
    at(3001);
    program0(0, 1000);
    EXPECT_EQ(wire.take(), "FRF") << "due under the old program, then low under the new one";
}

// A period of two ticks would otherwise wake the host 600000 times a second.
TEST_F(PitTest, AbsurdRatesAreHeldBack) {
    program0(2, 2);
    wire.take();
    const std::uint64_t start = now_ns;
    int rounds = 0;
    while (now_ns < start + 1'000'000'000) {
        ASSERT_TRUE(pit.next_deadline_ns());
        ASSERT_GT(*pit.next_deadline_ns(), now_ns);
        now_ns = *pit.next_deadline_ns();
        pit.tick(now_ns);
        ASSERT_LT(++rounds, 10100);
    }
    const std::size_t edges = wire.take().size() / 2;
    EXPECT_GT(edges, 9000U);
    EXPECT_NEAR(static_cast<double>(edges + pit.missed_ticks()), 1193182.0 / 2, 200);
}

TEST_F(PitTest, AbsurdRatesAreHeldBackFromAccessesToo) {
    program0(3, 4);
    wire.take();
    for (int i = 0; i < 1190; ++i) {
        step();
        in(0x40);
    }
    EXPECT_NEAR(static_cast<double>(wire.take().size()) / 2, 10, 1);
}

TEST_F(PitTest, TheTimerThreadIsToldOfNewDeadlinesOnly) {
    program0(2, 1000);
    EXPECT_EQ(deadline_changes, 1);
    in(0x40);
    out(0x43, 0x00);
    out(0x61, 0x03);
    out(0x43, 0xb6);
    EXPECT_EQ(deadline_changes, 1);
    out(0x43, 0x34);
    EXPECT_EQ(deadline_changes, 2);
    EXPECT_FALSE(pit.next_deadline_ns());
}

TEST_F(PitTest, AClockThatThreadsReadInTheWrongOrderDoesNoHarm) {
    program0(2, 1000);
    wire.take();
    at(2500);
    in(0x40);
    EXPECT_EQ(wire.take(), "FR");
    at(1500);
    in(0x40);
    pit.tick(ns_of(1400));
    EXPECT_EQ(wire.take(), "");
    EXPECT_EQ(pit.next_deadline_ns(), ns_of(3001));
    out(0x43, 0x00);
    in(0x40);
    EXPECT_EQ(in(0x40), (1000U - 499U) >> 8) << "time stands at 2500";
    EXPECT_EQ(pit.snapshot().counters[0].elapsed, 499);
}

// Calls back into the PIT, as an interrupt controller's user might.
TEST(PitCallback, MayCallBack) {
    class Caller : public vmm::IrqLine {
      public:
        void set(bool) override {
            ++calls;
            pit->read({.offset = 0x40, .size = 1});
            pit->next_deadline_ns();
        }
        Pit* pit = nullptr;
        int calls = 0;
    } caller;
    Pit pit({.now_ns = [] { return 0; }, .irq0 = caller, .deadline_changed = nullptr});
    caller.pit = &pit;
    pit.write({.offset = 0x43, .size = 1}, 0x14);
    pit.write({.offset = 0x40, .size = 1}, 200);
    pit.tick(1'000'000);
    EXPECT_EQ(caller.calls, 3);
}

// A change that is made while another one is being delivered comes after it.
TEST(PitCallback, ChangesFromWithinKeepTheirOrder) {
    class Caller : public vmm::IrqLine {
      public:
        void set(bool level) override {
            seen += level ? 'R' : 'F';
            if (!level && !done) {
                done = true;
                pit->write({.offset = 0x43, .size = 1}, 0x30);
            }
        }
        Pit* pit = nullptr;
        bool done = false;
        std::string seen;
    } caller;
    Pit pit({.now_ns = [] { return 0; }, .irq0 = caller, .deadline_changed = nullptr});
    caller.pit = &pit;
    pit.write({.offset = 0x43, .size = 1}, 0x14);
    pit.write({.offset = 0x40, .size = 1}, 200);
    pit.tick(1'000'000);
    EXPECT_EQ(caller.seen, "RFRF");
}

TEST_F(PitTest, WhatNoChipHoldsIsRefused) {
    program0(2, 10000);
    const PitState before = pit.snapshot();
    const auto refused = [&](const char* why, auto change) {
        PitState state = before;
        change(state);
        const auto taken = pit.adopt(state);
        ASSERT_FALSE(taken) << why;
        EXPECT_EQ(taken.error(), why);
        EXPECT_EQ(pit.snapshot(), before) << why;
    };
    const auto counter = [&](const char* why, unsigned which, auto change) {
        refused(why, [&](PitState& s) { change(s.counters.at(which)); });
    };
    using State = PitCounterState;
    counter("counters[1].control: more than a Control Word keeps", 1,
            [](State& s) { s.control |= 0x40; });
    counter("counters[2].control: a latch command", 2, [](State& s) { s.control = 0x04; });
    counter("counters[0].gate: it is tied high", 0, [](State& s) {
        s.gate = false;
        s.counting = false;
        s.elapsed = 0;
    });
    counter("counters[1].initial: no such count", 1, [](State& s) { s.initial = 0; });
    counter("counters[1].initial: no such count", 1, [](State& s) { s.initial = 0x10001; });
    counter("counters[0].initial: no such count", 0, [](State& s) { s.initial = 1; });
    counter("counters[0].counting: nothing", 0, [](State& s) { s.loaded = false; });
    counter("counters[2].counting: against the gate", 2, [](State& s) {
        s.counting = s.loaded = true;
        s.gate = false;
    });
    counter("counters[2].counting: half a count", 2, [](State& s) {
        s = {.control = 0x30, .gate = true, .write_high_next = true, .counting = true};
        s.loaded = true;
    });
    counter("counters[0].elapsed: no such time", 0, [](State& s) { s.elapsed = -2; });
    counter("counters[0].elapsed: no such time", 0, [](State& s) { s.elapsed = INT64_MAX; });
    counter("counters[2].elapsed: no such time", 2, [](State& s) { s.elapsed = -1; });
    refused("control_b: more than the port stores", [](PitState& s) { s.control_b = 0x01; });
    refused("refresh_phase: beyond the period", [](PitState& s) { s.refresh_phase = 36; });
}

TEST_F(PitTest, StateRoundTripUnderAnotherClock) {
    EXPECT_TRUE(testing::fields_are_distinct<PitState>());
    EXPECT_TRUE(testing::fields_are_distinct<PitCounterState>());
    program0(2, 10000);
    out(0x43, 0x70);
    out(0x41, 0x55);
    out(0x61, 0x03);
    out(0x43, 0xb6);
    out(0x42, 0x00);
    out(0x42, 0x20);
    at(1000 + 3333);
    out(0x43, 0xe8);
    const PitState state = pit.snapshot();
    fakes::expect_saved(state, "legacy.pit");

    for (const std::uint64_t tick : {0ULL, 77ULL, 123456789012ULL}) {
        Wire other_wire;
        std::uint64_t other_now = ns_of(tick);
        int told = 0;
        Pit other({.now_ns = [&] { return other_now; },
                   .irq0 = other_wire,
                   .deadline_changed = [&] { ++told; }});
        ASSERT_TRUE(other.adopt(state));
        EXPECT_EQ(other.snapshot(), state);
        EXPECT_EQ(other_wire.take(), "") << "the interrupt controllers know the level";
        EXPECT_EQ(told, 1);
        EXPECT_EQ(other.next_deadline_ns(), ns_of(tick + 10001 - 3333));
        EXPECT_EQ(other.read({.offset = 0x61, .size = 1}), in(0x61));
    }
}

TEST_F(PitTest, ATickThatWasDueAtTheSnapshotIsNotLost) {
    for (const unsigned mode : {0U, 2U, 3U, 4U}) {
        SCOPED_TRACE(mode);
        program0(mode, 500);
        tick_ += 503;
        at(tick_);
        const PitState state = pit.snapshot();
        Wire other_wire;
        if (mode != 0) other_wire.set(true);
        other_wire.take();
        Pit other({.now_ns = [] { return ns_of(5); }, .irq0 = other_wire, .deadline_changed = {}});
        ASSERT_TRUE(other.adopt(state));
        ASSERT_TRUE(other.next_deadline_ns());
        EXPECT_LE(*other.next_deadline_ns(), ns_of(5));
        other.tick(ns_of(5));
        EXPECT_EQ(other_wire.take(), mode == 0 ? "R" : "FR");
    }
}

class RandomPit {
  public:
    explicit RandomPit(std::uint64_t seed) : rng_(seed) {}

    void step(Pit& pit, std::atomic<std::uint64_t>& now_ns) {
        static constexpr std::uint64_t kPorts[] = {0x40, 0x41, 0x42, 0x43, 0x43, 0x61};
        const std::uint64_t port = rng_() % 10 == 0 ? rng_() : kPorts[rng_() % 6];
        const IoAccess at{.offset = port,
                          .size = static_cast<unsigned>(rng_() % 8 == 0 ? rng_() : 1)};
        now_ns += rng_() % (1ULL << rng_() % 30);
        switch (rng_() % 4) {
            case 0: pit.read(at); break;
            case 1: pit.tick(rng_() % 2 != 0 ? now_ns.load() : now_ns + rng_() % 1000); break;
            default:
                pit.write(at, static_cast<std::uint32_t>(rng_() % 2 != 0 ? rng_() : rng_() % 4));
                break;
        }
    }

  private:
    Rng rng_;
};

TEST(PitHostile, RandomAccessesNeverMisbehave) {
    std::atomic<std::uint64_t> now_ns = 0;
    Wire wire;
    Pit pit({.now_ns = [&] { return now_ns.load(); }, .irq0 = wire, .deadline_changed = {}});
    RandomPit guest(8254);
    for (int i = 0; i < 200000; ++i) {
        guest.step(pit, now_ns);
        pit.tick(now_ns);
        const auto due = pit.next_deadline_ns();
        ASSERT_TRUE(!due || *due > now_ns) << "the timer thread would spin, in step " << i;
        ASSERT_LE(wire.take().size(), 12U);
    }
}

// The one that goes on and the one that was restored, under another clock, cannot be told apart.
TEST(PitHostile, MutateThenRestore) {
    std::atomic<std::uint64_t> now_ns = 0;
    Wire wire;
    Pit pit({.now_ns = [&] { return now_ns.load(); }, .irq0 = wire, .deadline_changed = {}});
    RandomPit guest(1);
    for (int round = 0; round < 500; ++round) {
        for (int i = 0; i < 50; ++i)
            guest.step(pit, now_ns);
        // Past the ticks from the future that a random guest hands in, and a whole second: there
        // both clocks show the same fraction of a tick.
        now_ns = (now_ns / 1'000'000'000 + 1) * 1'000'000'000;
        const PitState before = pit.snapshot();
        Wire other_wire;
        if (wire.high()) other_wire.set(true);  // as the interrupt controllers saw it
        std::atomic<std::uint64_t> other_now = 77'000'000'000;
        Pit other({.now_ns = [&] { return other_now.load(); },
                   .irq0 = other_wire,
                   .deadline_changed = {}});
        ASSERT_TRUE(other.adopt(before));
        ASSERT_EQ(other.snapshot(), before);
        RandomPit same = guest;
        for (int i = 0; i < 50; ++i) {
            guest.step(pit, now_ns);
            same.step(other, other_now);
            ASSERT_EQ(other.snapshot(), pit.snapshot()) << "round " << round << ", step " << i;
        }
    }
}

class LevelWire : public vmm::IrqLine {
  public:
    void set(bool) override {}
};

// What passes for a state is held as it is, and a guest cannot do more with it than with its own.
TEST(PitHostile, AnyStateIsTakenWholeOrRefused) {
    Rng rng(2);
    RandomPit guest(3);
    std::atomic<std::uint64_t> now_ns = 0;
    LevelWire wire;
    Pit pit({.now_ns = [&] { return now_ns.load(); }, .irq0 = wire, .deadline_changed = {}});
    for (int round = 0; round < 3000; ++round) {
        now_ns += 10000;  // past the ticks from the future that a random guest hands in
        PitState state = pit.snapshot();
        for (auto left = rng() % 4; left != 0; --left)
            testing::randomise_one(state, rng);
        ASSERT_TRUE(testing::adopts_whole_or_not(pit, state)) << round;
        for (int i = 0; i < 20; ++i)
            guest.step(pit, now_ns);
        pit.tick(now_ns);
        const auto due = pit.next_deadline_ns();
        ASSERT_TRUE(!due || *due > now_ns);
    }
}

// Whatever order threads come in, the wire sees its edges in order: Wire would complain.
TEST(PitThreads, KeepTheEdgesInOrder) {
    std::atomic<std::uint64_t> now_ns = 0;
    Wire wire;
    Pit pit({.now_ns = [&] { return now_ns.load(); }, .irq0 = wire, .deadline_changed = {}});
    std::vector<std::thread> threads;
    for (std::uint64_t seed = 0; seed < 3; ++seed) {
        threads.emplace_back([&, seed] {
            RandomPit guest(seed);
            for (int i = 0; i < 3000; ++i)
                guest.step(pit, now_ns);
        });
    }
    for (std::thread& thread : threads)
        thread.join();
}

}  // namespace
}  // namespace devices::legacy
