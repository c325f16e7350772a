#include "devices/legacy/pic.h"

#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/fakes/saved_checks.h"
#include "tests/unit/devices/legacy/state_walk.h"

namespace devices::legacy {
namespace {

using testing::Rng;
using vmm::IoAccess;

constexpr int kSpuriousMaster = 0x37;
constexpr int kSpuriousSlave = 0x77;

// A PIC, initialised as PC firmware does it: vectors 0x30 to 0x37 and 0x70 to 0x77.
class PicTest : public ::testing::Test {
  protected:
    PicTest() { initialise(); }

    void out(std::uint16_t port, unsigned value, unsigned size = 1) {
        pic.write({.offset = port, .size = size}, value);
    }
    unsigned in(std::uint16_t port, unsigned size = 1) {
        return pic.read({.offset = port, .size = size});
    }
    void initialise(unsigned master_icw4 = 0x01, unsigned slave_icw4 = 0x01) {
        for (const auto& [port, base, wiring, icw4] :
             {std::tuple{0x20, 0x30U, 0x04U, master_icw4},
              std::tuple{0xa0, 0x70U, 0x02U, slave_icw4}}) {
            const auto command = static_cast<std::uint16_t>(port);
            const auto data = static_cast<std::uint16_t>(port + 1);
            out(command, 0x11);
            out(data, base);
            out(data, wiring);
            out(data, icw4);
        }
    }
    void pulse(unsigned irq) {
        pic.set_irq(irq, false);
        pic.set_irq(irq, true);
    }
    unsigned irr(std::uint16_t port) {
        out(port, 0x0a);
        return in(port);
    }
    unsigned isr(std::uint16_t port) {
        out(port, 0x0b);
        return in(port);
    }
    // Vectors that the processor gets until INTR falls, no EOI in between.
    std::vector<int> drain() {
        std::vector<int> vectors;
        while (pic.output() && vectors.size() < 20)
            vectors.push_back(pic.acknowledge());
        return vectors;
    }

    int changes = 0;
    Pic pic{[this] { ++changes; }};
};

using Vectors = std::vector<int>;

TEST_F(PicTest, ClaimsItsPorts) {
    EXPECT_STREQ(pic.name(), "pic");
    const auto ranges = pic.ranges();
    ASSERT_EQ(ranges.size(), 3U);
    EXPECT_EQ(ranges[0], (vmm::PortRange{0x20, 2}));
    EXPECT_EQ(ranges[1], (vmm::PortRange{0xa0, 2}));
    EXPECT_EQ(ranges[2], (vmm::PortRange{0x4d0, 2}));
}

TEST_F(PicTest, EveryInputHasItsVector) {
    for (unsigned irq = 0; irq < Pic::kInputs; ++irq) {
        SCOPED_TRACE(irq);
        initialise();
        pic.set_irq(irq, true);
        if (irq == 2) {  // the slave's input is nobody else's
            EXPECT_FALSE(pic.output());
            continue;
        }
        ASSERT_TRUE(pic.output());
        const int vector = static_cast<int>(irq < 8 ? 0x30 + irq : 0x70 + irq - 8);
        EXPECT_EQ(pic.acknowledge(), vector);
        EXPECT_FALSE(pic.output());
        EXPECT_EQ(isr(0x20), irq < 8 ? 1U << irq : 4U);
        EXPECT_EQ(isr(0xa0), irq < 8 ? 0U : 1U << (irq - 8));
        pic.set_irq(irq, false);
    }
}

TEST_F(PicTest, InputsThatDoNotExistAreIgnored) {
    const PicState before = pic.snapshot();
    for (const unsigned irq : {2U, 16U, 17U, 255U, ~0U})
        pic.set_irq(irq, true);
    EXPECT_EQ(pic.snapshot(), before);
}

// Datasheet, "Initialization Command Words": SNGL drops ICW3, IC4 asks for ICW4; the next data
// write after the sequence is OCW1.
TEST_F(PicTest, InitialisationTakesAsManyWordsAsIcw1Says) {
    struct Case {
        unsigned icw1;
        int words;  // after ICW1
    };
    for (const auto& [icw1, words] : {Case{0x10, 2}, Case{0x11, 3}, Case{0x12, 1}, Case{0x13, 2}}) {
        SCOPED_TRACE(icw1);
        out(0x20, icw1);
        for (int i = 0; i < words; ++i) {
            pulse(1);
            EXPECT_FALSE(pic.output()) << "INT before the chip is ready";
            out(0x21, i == 0 ? 0x47 : 0);  // the low three bits of ICW2 are not the vector's
        }
        EXPECT_EQ(in(0x21), 0U) << "ICW1 clears the IMR";
        out(0x21, 0xfd);
        EXPECT_EQ(in(0x21), 0xfdU);
        EXPECT_TRUE(pic.output());
        EXPECT_EQ(pic.acknowledge(), 0x41);
    }
}

TEST_F(PicTest, Icw1ResetsWhatTheDatasheetLists) {
    out(0x20, 0xc4);  // lowest priority: 4
    out(0x20, 0x80);  // rotate on automatic EOI
    out(0x20, 0x6b);  // special mask mode, read the ISR
    out(0x21, 0xff);
    pulse(3);
    initialise();
    EXPECT_EQ(in(0x20), 0U) << "edge sense is reset, and the IRR is what is read";
    EXPECT_EQ(in(0x21), 0U);
    const PicChipState chip = pic.snapshot().master;
    EXPECT_EQ(chip.lowest_priority, 7);
    EXPECT_FALSE(chip.special_mask);
    EXPECT_FALSE(chip.rotate_on_auto_eoi);
    EXPECT_FALSE(pic.output()) << "an input that stayed high makes no new edge";
    pulse(3);
    EXPECT_TRUE(pic.output());
}

TEST_F(PicTest, Icw1WithoutIcw4ClearsItsFunctions) {
    initialise(0x13, 0x03);
    EXPECT_TRUE(pic.snapshot().master.auto_eoi);
    EXPECT_TRUE(pic.snapshot().master.special_fully_nested);
    out(0x20, 0x10);
    EXPECT_FALSE(pic.snapshot().master.auto_eoi);
    EXPECT_FALSE(pic.snapshot().master.special_fully_nested);
}

// The first initialisation is not there yet: firmware finds a silent chip whose mask it can probe.
TEST(PicPowerOn, IsSilentAndHoldsItsMask) {
    Pic pic(nullptr);
    for (unsigned irq = 0; irq < Pic::kInputs; ++irq)
        pic.set_irq(irq, true);
    EXPECT_FALSE(pic.output());
    pic.write({.offset = 0x21, .size = 1}, 0xfb);
    EXPECT_EQ(pic.read({.offset = 0x21, .size = 1}), 0xfbU);
    EXPECT_EQ(pic.acknowledge(), 7);
}

struct PriorityCase {
    const char* what;
    std::vector<unsigned> commands;  // OCW2s and OCW3s for the master
    unsigned mask;
    std::vector<unsigned> raised;
    Vectors taken;  // without any EOI
};

class PicPriority : public PicTest, public ::testing::WithParamInterface<PriorityCase> {};

TEST_P(PicPriority, DecidesWhoIsServed) {
    const PriorityCase& test = GetParam();
    for (const unsigned command : test.commands)
        out(0x20, command);
    out(0x21, test.mask);
    for (const unsigned irq : test.raised)
        pic.set_irq(irq, true);
    EXPECT_EQ(drain(), test.taken);
}

INSTANTIATE_TEST_SUITE_P(
    Datasheet, PicPriority,
    ::testing::Values(
        PriorityCase{"IR0 first, and nothing below it nests", {}, 0, {7, 3, 0}, {0x30}},
        PriorityCase{"masked", {}, 0x01, {7, 3, 0}, {0x33}},
        PriorityCase{"all masked", {}, 0xff, {7, 3, 0}, {}},
        PriorityCase{"set priority: 4 lowest, so 5 first", {0xc4}, 0, {4, 5, 0}, {0x35}},
        PriorityCase{"set priority: 3 lowest", {0xc3}, 0, {3, 0}, {0x30}},
        PriorityCase{"set priority: 7 lowest is the default", {0xc7}, 0, {1, 6}, {0x31}},
        PriorityCase{"no operation", {0x44}, 0, {4, 5, 0}, {0x30}},
        PriorityCase{"the slave sits at 2", {}, 0, {9, 3, 8}, {0x70}},
        PriorityCase{"the slave masked at the master", {}, 0x04, {9, 3, 8}, {0x33}}),
    [](const auto& test) { return "Case" + std::to_string(test.index); });

TEST_F(PicTest, MoreUrgentRequestsNest) {
    pic.set_irq(5, true);
    EXPECT_EQ(pic.acknowledge(), 0x35);
    pic.set_irq(6, true);
    EXPECT_FALSE(pic.output());
    pic.set_irq(1, true);
    EXPECT_EQ(pic.acknowledge(), 0x31);
    EXPECT_EQ(isr(0x20), 0x22U);
    out(0x20, 0x20);  // ends the most urgent: 1
    EXPECT_EQ(isr(0x20), 0x20U);
    EXPECT_FALSE(pic.output());
    out(0x20, 0x20);
    EXPECT_EQ(isr(0x20), 0U);
    EXPECT_EQ(pic.acknowledge(), 0x36);
}

TEST_F(PicTest, ALevelInServiceHoldsBackItsOwnNextEdge) {
    pulse(3);
    EXPECT_EQ(pic.acknowledge(), 0x33);
    pulse(3);
    EXPECT_FALSE(pic.output());
    EXPECT_EQ(irr(0x20), 0x08U);
    out(0x20, 0x20);
    EXPECT_EQ(pic.acknowledge(), 0x33);
}

struct Ocw2Case {
    unsigned ocw2;
    unsigned in_service;  // after it, from 0x52 (levels 1, 4, 6)
    unsigned lowest;
};

// Datasheet, figure 8, "Operation Command Word Format". Levels 6, 4 and 1 are in service.
TEST_F(PicTest, Ocw2) {
    for (const auto& [ocw2, in_service, lowest] :
         {Ocw2Case{0x20, 0x50, 7}, Ocw2Case{0x27, 0x50, 7},     // non-specific EOI
          Ocw2Case{0x64, 0x42, 7}, Ocw2Case{0x63, 0x52, 7},     // specific EOI
          Ocw2Case{0xa0, 0x50, 1}, Ocw2Case{0xa5, 0x50, 1},     // rotate, non-specific
          Ocw2Case{0xe6, 0x12, 6}, Ocw2Case{0xe0, 0x52, 0},     // rotate, specific
          Ocw2Case{0xc2, 0x52, 2}, Ocw2Case{0x45, 0x52, 7},     // set priority; nothing
          Ocw2Case{0x80, 0x52, 7}, Ocw2Case{0x00, 0x52, 7}}) {  // rotation on AEOI
        SCOPED_TRACE(ocw2);
        initialise();
        for (const unsigned irq : {6U, 4U, 1U}) {
            pulse(irq);
            pic.acknowledge();
        }
        ASSERT_EQ(isr(0x20), 0x52U);
        out(0x20, ocw2);
        EXPECT_EQ(isr(0x20), in_service);
        EXPECT_EQ(pic.snapshot().master.lowest_priority, lowest);
    }
}

TEST_F(PicTest, NonSpecificEoiWithNothingInServiceDoesNothing) {
    const PicState before = pic.snapshot();
    out(0x20, 0x20);
    out(0x20, 0xa0);
    EXPECT_EQ(pic.snapshot(), before);
}

// Datasheet, "Automatic Rotation": equal devices take turns.
TEST_F(PicTest, RotationLetsEqualsTakeTurns) {
    Vectors taken;
    for (int i = 0; i < 6; ++i) {
        for (const unsigned irq : {3U, 4U, 5U})
            pulse(irq);
        taken.push_back(pic.acknowledge());
        out(0x20, 0xa0);
    }
    EXPECT_EQ(taken, (Vectors{0x33, 0x34, 0x35, 0x33, 0x34, 0x35}));
}

TEST_F(PicTest, AutomaticEoi) {
    initialise(0x03, 0x03);
    for (const unsigned irq : {6U, 4U, 12U, 1U})
        pulse(irq);
    EXPECT_EQ(drain(), (Vectors{0x31, 0x74, 0x34, 0x36}));
    EXPECT_EQ(isr(0x20), 0U);
    EXPECT_EQ(isr(0xa0), 0U);
}

TEST_F(PicTest, AutomaticEoiWithRotation) {
    initialise(0x03);
    out(0x20, 0x80);
    Vectors taken;
    for (int i = 0; i < 4; ++i) {
        for (const unsigned irq : {3U, 4U})
            pulse(irq);
        taken.push_back(pic.acknowledge());
    }
    EXPECT_EQ(taken, (Vectors{0x33, 0x34, 0x33, 0x34}));
    out(0x20, 0x00);
    pulse(3);
    pulse(4);
    EXPECT_EQ(pic.acknowledge(), 0x33);
    pulse(3);
    EXPECT_EQ(pic.acknowledge(), 0x33) << "rotation is off";
}

// Two requests wait in the slave; with automatic EOIs INT must fall and rise between them, or the
// master would see one edge only.
TEST_F(PicTest, TheSlaveAsksAgainForWhatItHasLeft) {
    initialise(0x03, 0x03);
    pulse(15);
    pulse(8);
    EXPECT_EQ(drain(), (Vectors{0x70, 0x77}));
}

TEST_F(PicTest, ASlaveRequestNeedsTwoEois) {
    pulse(12);
    EXPECT_EQ(pic.acknowledge(), 0x74);
    pulse(8);
    EXPECT_FALSE(pic.output()) << "not nested: the master holds the slave back";
    out(0xa0, 0x20);
    EXPECT_FALSE(pic.output());
    out(0x20, 0x62);
    EXPECT_EQ(pic.acknowledge(), 0x70);
}

TEST_F(PicTest, SpecialFullyNestedModeLetsTheSlaveNest) {
    initialise(0x11, 0x01);
    pulse(12);
    EXPECT_EQ(pic.acknowledge(), 0x74);
    pulse(13);
    EXPECT_FALSE(pic.output());
    pulse(3);
    EXPECT_FALSE(pic.output()) << "the slave still holds back what is below it";
    pulse(8);
    EXPECT_EQ(pic.acknowledge(), 0x70);
    EXPECT_EQ(isr(0xa0), 0x11U);
    pulse(1);
    EXPECT_EQ(pic.acknowledge(), 0x31);
}

TEST_F(PicTest, SpecialMaskModeLetsLowerLevelsIn) {
    pulse(4);
    EXPECT_EQ(pic.acknowledge(), 0x34);
    pulse(6);
    out(0x21, 0x10);
    EXPECT_FALSE(pic.output());
    out(0x20, 0x68);
    EXPECT_TRUE(pic.output());
    EXPECT_EQ(pic.acknowledge(), 0x36);
    out(0x20, 0x20);  // passes over the masked level 4
    EXPECT_EQ(isr(0x20), 0x10U);
    out(0x20, 0x20);
    EXPECT_EQ(isr(0x20), 0x10U);
    out(0x20, 0x64);
    EXPECT_EQ(isr(0x20), 0U);
    out(0x20, 0x08);  // ESMM clear: no change
    EXPECT_TRUE(pic.snapshot().master.special_mask);
    out(0x20, 0x48);
    EXPECT_FALSE(pic.snapshot().master.special_mask);
}

TEST_F(PicTest, PollTurnsTheNextReadIntoAnAcknowledgement) {
    for (const std::uint16_t port : {std::uint16_t{0x20}, std::uint16_t{0x21}}) {
        pulse(5);
        out(0x20, 0x0c);
        EXPECT_EQ(in(port), 0x85U);
        EXPECT_FALSE(pic.output());
        EXPECT_EQ(isr(0x20), 0x20U);
        out(0x20, 0x20);
        out(0x20, 0x0c);
        EXPECT_EQ(in(port), 0U) << "nobody asks";
        EXPECT_EQ(in(0x21), 0U) << "and only one read is polled";
    }
    out(0x20, 0x0c);
    out(0x20, 0x08);  // an OCW3 without P takes the poll back
    pulse(5);
    EXPECT_EQ(in(0x20), 0x00U) << "the ISR, selected before";
    EXPECT_TRUE(pic.output());
}

TEST_F(PicTest, PollingTheSlaveLeavesTheMasterToItself) {
    pulse(9);
    pulse(10);
    out(0xa0, 0x0c);
    EXPECT_EQ(in(0xa0), 0x81U);
    EXPECT_EQ(isr(0x20), 0U);
    EXPECT_FALSE(pic.output()) << "10 is less urgent than 9, which is in service";
    out(0xa0, 0x20);
    EXPECT_EQ(pic.acknowledge(), 0x72);
}

// After a poll of both the master has served its edge; what the slave has left must make another.
TEST_F(PicTest, ThePolledSlaveAsksAgainForWhatItHasLeft) {
    initialise(0x03, 0x03);
    pulse(9);
    pulse(8);
    out(0x20, 0x0c);
    EXPECT_EQ(in(0x20), 0x82U);
    EXPECT_FALSE(pic.output());
    out(0xa0, 0x0c);
    EXPECT_EQ(in(0xa0), 0x80U);
    EXPECT_EQ(drain(), (Vectors{0x71}));
}

TEST_F(PicTest, LevelInputsAskAgainUntilTheyFall) {
    out(0x4d0, 0x20);
    pic.set_irq(5, true);
    EXPECT_EQ(pic.acknowledge(), 0x35);
    EXPECT_FALSE(pic.output());
    EXPECT_EQ(irr(0x20), 0x20U) << "the IRR follows the line";
    out(0x20, 0x20);
    EXPECT_TRUE(pic.output());
    EXPECT_EQ(pic.acknowledge(), 0x35);
    pic.set_irq(5, false);
    out(0x20, 0x20);
    EXPECT_FALSE(pic.output());
}

TEST_F(PicTest, EdgeInputsAskOnce) {
    pic.set_irq(5, true);
    pic.set_irq(5, true);
    EXPECT_EQ(pic.acknowledge(), 0x35);
    out(0x20, 0x20);
    pic.set_irq(5, true);
    EXPECT_FALSE(pic.output());
}

TEST_F(PicTest, ElcrKeepsTheFixedEdgesAndTakesAWord) {
    out(0x4d0, 0xffff, 2);
    EXPECT_EQ(in(0x4d0, 2), 0xdef8U);
    EXPECT_EQ(in(0x4d0), 0xf8U);
    EXPECT_EQ(in(0x4d1), 0xdeU);
}

TEST_F(PicTest, ElcrChangesUnderARaisedLine) {
    pic.set_irq(5, true);
    pic.acknowledge();
    out(0x20, 0x20);
    out(0x4d0, 0x20);
    EXPECT_TRUE(pic.output()) << "now level, and the line is high";
    out(0x4d0, 0x00);
    EXPECT_FALSE(pic.output()) << "edge again, and there was none";
}

// Datasheet, "Interrupt Sequence": a request that was too short in duration is answered by level 7,
// and nothing is in service.
TEST_F(PicTest, AWithdrawnRequestIsSpuriousIrq7) {
    pulse(3);
    pic.set_irq(3, false);
    EXPECT_TRUE(pic.output());
    EXPECT_EQ(irr(0x20), 0U);
    // Reading the IRR wrote an OCW3, and so ended the hold; ask once more.
    pulse(3);
    pic.set_irq(3, false);
    EXPECT_EQ(pic.acknowledge(), kSpuriousMaster);
    EXPECT_FALSE(pic.output());
    EXPECT_EQ(isr(0x20), 0U);
}

TEST_F(PicTest, AWithdrawnRequestAtTheSlaveIsSpuriousIrq15) {
    pulse(10);
    pic.set_irq(10, false);
    EXPECT_EQ(pic.acknowledge(), kSpuriousSlave);
    EXPECT_EQ(isr(0xa0), 0U);
    EXPECT_EQ(isr(0x20), 0x04U) << "the master serves its input 2 and wants an EOI";
    out(0x20, 0x20);
    EXPECT_FALSE(pic.output());
}

TEST_F(PicTest, AMaskedRequestTakesIntDown) {
    for (const unsigned irq : {3U, 10U}) {
        initialise();
        pulse(irq);
        EXPECT_TRUE(pic.output());
        out(irq < 8 ? 0x21 : 0xa1, 0xff);
        EXPECT_FALSE(pic.output());
        out(irq < 8 ? 0x21 : 0xa1, 0x00);
        EXPECT_TRUE(pic.output()) << "the edge was kept";
        EXPECT_EQ(pic.acknowledge(), irq < 8 ? 0x33 : 0x72);
    }
}

TEST_F(PicTest, AcknowledgingNothingIsSpurious) {
    EXPECT_EQ(pic.acknowledge(), kSpuriousMaster);
    EXPECT_EQ(isr(0x20), 0U);
}

TEST_F(PicTest, TellsOfEveryChangeOfIntrAndOfNothingElse) {
    changes = 0;
    pic.set_irq(3, true);
    EXPECT_EQ(changes, 1);
    pic.set_irq(4, true);
    EXPECT_EQ(changes, 1);
    pic.acknowledge();
    EXPECT_EQ(changes, 2);
    out(0x20, 0x20);
    EXPECT_EQ(changes, 3);
    out(0x21, 0xff);
    EXPECT_EQ(changes, 4);
    in(0x20);
    EXPECT_EQ(changes, 4);
}

TEST(PicCallback, MayCallBack) {
    Pic* self = nullptr;
    int taken = 0;
    Pic pic([&] {
        if (self->output()) taken = self->acknowledge();
    });
    self = &pic;
    for (const unsigned value : {0x12U})
        pic.write({.offset = 0x20, .size = 1}, value);
    pic.write({.offset = 0x21, .size = 1}, 0x50);
    pic.set_irq(1, true);
    EXPECT_EQ(taken, 0x51);
}

TEST_F(PicTest, WideAccessesAreByteCycles) {
    out(0x20, 0xab0b, 2);  // OCW3: read the ISR; OCW1: 0xab
    pulse(2);
    EXPECT_EQ(in(0x20, 2), 0xab00U);
    EXPECT_EQ(in(0x21, 2), 0xffabU) << "port 0x22 is not ours";
    EXPECT_EQ(in(0x1f, 4), 0xffab00ffU);
    EXPECT_EQ(in(0x4cf, 4), 0xff0000ffU);
    EXPECT_EQ(in(0x20, 0), 0U);
}

TEST_F(PicTest, OtherPortsAreNotOurs) {
    const PicState before = pic.snapshot();
    for (const std::uint64_t port :
         {0x1fULL, 0x22ULL, 0x9fULL, 0xa2ULL, 0x4d2ULL, 0x10020ULL, ~0ULL}) {
        EXPECT_EQ(pic.read({.offset = port, .size = 1}), 0xffU);
        pic.write({.offset = port, .size = 1}, 0x11);
    }
    EXPECT_EQ(pic.snapshot(), before);
}

TEST_F(PicTest, StateRoundTrip) {
    EXPECT_TRUE(testing::fields_are_distinct<PicState>());
    EXPECT_TRUE(testing::fields_are_distinct<PicChipState>());
    initialise(0x13, 0x03);
    out(0x4d0, 0x0628, 2);
    out(0x20, 0xc4);
    out(0x20, 0x6b);
    out(0xa0, 0x0c);
    pic.set_irq(5, true);
    pic.set_irq(11, true);
    pic.acknowledge();
    const PicState state = pic.snapshot();
    fakes::expect_saved(state, "legacy.pic");

    int told = 0;
    Pic other([&] { ++told; });
    ASSERT_TRUE(other.adopt(state));
    EXPECT_EQ(other.snapshot(), state);
    EXPECT_EQ(other.output(), pic.output());
    EXPECT_EQ(told, pic.output() ? 1 : 0);
    EXPECT_EQ(other.acknowledge(), pic.acknowledge());
    EXPECT_EQ(other.snapshot(), pic.snapshot());
}

TEST_F(PicTest, AdoptingARaisedIntrIsToldOnce) {
    pulse(3);
    const PicState state = pic.snapshot();
    int told = 0;
    Pic other([&] { ++told; });
    ASSERT_TRUE(other.adopt(state));
    EXPECT_EQ(told, 1);
    EXPECT_TRUE(other.output());
    EXPECT_EQ(other.acknowledge(), 0x33);
}

// A line that fell long ago and was not looked at: nobody is to answer for it.
TEST_F(PicTest, AWithdrawnRequestLeavesNothing) {
    for (const unsigned irq : {5U, 11U}) {
        for (const bool level : {false, true}) {
            SCOPED_TRACE(irq);
            out(0x4d0, level ? 0x20 : 0);
            out(0x4d1, level ? 0x08 : 0);
            pic.set_irq(irq, true);
            EXPECT_TRUE(pic.output());
            changes = 0;
            pic.withdraw(irq);
            EXPECT_FALSE(pic.output());
            EXPECT_EQ(changes, 1);
            EXPECT_EQ(drain(), Vectors{});
            pic.set_irq(irq, true);
            EXPECT_EQ(drain().size(), 1U);
            pic.withdraw(irq);
            out(0xa0, 0x20);
            out(0x20, 0x20);
            EXPECT_FALSE(pic.output());
        }
    }
    pic.withdraw(2);
    pic.withdraw(16);
    EXPECT_FALSE(pic.output());
}

TEST_F(PicTest, AWithdrawnRequestLeavesTheOthers) {
    pic.set_irq(5, true);
    pic.set_irq(6, true);
    pic.withdraw(5);
    EXPECT_EQ(drain(), Vectors{0x36});
}

TEST_F(PicTest, WhatNoChipHoldsIsRefused) {
    pulse(3);
    const PicState before = pic.snapshot();
    const auto refused = [&](const char* why, auto change) {
        PicState state = before;
        change(state);
        const auto taken = pic.adopt(state);
        ASSERT_FALSE(taken) << why;
        EXPECT_EQ(taken.error(), why);
        EXPECT_EQ(pic.snapshot(), before) << why;
    };
    refused("master.level_triggered: an input is no other",
            [](PicState& s) { s.master.level_triggered = 0x04; });
    refused("slave.level_triggered: an input is no other",
            [](PicState& s) { s.slave.level_triggered = 0x20; });
    refused("master.edges: on a level-triggered input",
            [](PicState& s) { s.master.level_triggered = 0x08; });
    refused("master.edges: on an input that is low", [](PicState& s) { s.master.edges |= 0x20; });
    refused("slave.vector_base: its low bits are the level's",
            [](PicState& s) { s.slave.vector_base = 0x3a; });
    refused("master.lowest_priority: there are eight levels",
            [](PicState& s) { s.master.lowest_priority = 8; });
    refused("slave.init_step: there is no such ICW", [](PicState& s) { s.slave.init_step = 5; });
    refused("slave.output: before the chip is programmed", [](PicState& s) {
        s.slave.init_step = 3;
        s.slave.output = true;
    });
    refused("master.output: low with a request", [](PicState& s) { s.master.output = false; });
    refused("master.lines: input 2 is not what the slave's output is",
            [](PicState& s) { s.master.lines |= 0x04; });
    EXPECT_EQ(pic.acknowledge(), 0x33);
}

// A random guest, against the rules that must hold whatever it does.
class RandomPic {
  public:
    explicit RandomPic(std::uint64_t seed) : rng_(seed) {}

    void step(Pic& pic) {
        static constexpr std::uint64_t kPorts[] = {0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1};
        const std::uint64_t port = rng_() % 8 == 0 ? rng_() : kPorts[rng_() % 6];
        const IoAccess at{.offset = port,
                          .size = static_cast<unsigned>(rng_() % 8 == 0 ? rng_() : 1)};
        switch (rng_() % 5) {
            case 0: pic.write(at, static_cast<std::uint32_t>(rng_())); break;
            case 1: pic.read(at); break;
            case 2: {
                const int vector = pic.acknowledge();
                ASSERT_GE(vector, 0);
                ASSERT_LE(vector, 0xff);
                break;
            }
            default: pic.set_irq(static_cast<unsigned>(rng_() % 18), rng_() % 2 != 0); break;
        }
    }

  private:
    Rng rng_;
};

TEST(PicHostile, RandomAccessesNeverMisbehave) {
    bool intr = false;
    Pic* self = nullptr;
    Pic pic([&] { intr = self->output(); });
    self = &pic;
    RandomPic guest(8259);
    for (int i = 0; i < 200000; ++i) {
        guest.step(pic);
        ASSERT_EQ(pic.output(), intr) << "a change that nobody was told of, in step " << i;
        const PicState state = pic.snapshot();
        ASSERT_EQ(state.master.level_triggered & 0x07, 0);
        ASSERT_EQ(state.slave.level_triggered & 0x21, 0);
        ASSERT_EQ((state.master.lines & 4) != 0, state.slave.output);
    }
}

// The one that goes on and the one that was restored cannot be told apart.
TEST(PicHostile, MutateThenRestore) {
    RandomPic guest(1);
    Pic pic(nullptr);
    for (int round = 0; round < 300; ++round) {
        for (int i = 0; i < 50; ++i)
            guest.step(pic);
        Pic other(nullptr);
        ASSERT_TRUE(other.adopt(pic.snapshot()));
        ASSERT_EQ(other.snapshot(), pic.snapshot());
        RandomPic same = guest;
        for (int i = 0; i < 50; ++i) {
            guest.step(pic);
            same.step(other);
            ASSERT_EQ(other.snapshot(), pic.snapshot());
        }
    }
}

// What passes for a state is held as it is, and a guest cannot do more with it than with its own.
TEST(PicHostile, AnyStateIsTakenWholeOrRefused) {
    Rng rng(2);
    RandomPic guest(3);
    Pic pic(nullptr);
    for (int round = 0; round < 2000; ++round) {
        PicState state = pic.snapshot();
        for (auto left = rng() % 3; left != 0; --left)
            testing::randomise_one(state, rng);
        if (rng() % 8 == 0) testing::randomise(state, rng);
        ASSERT_TRUE(testing::adopts_whole_or_not(pic, state)) << round;
        for (int i = 0; i < 20; ++i)
            guest.step(pic);
    }
}

TEST(PicThreads, MayCallAtOnce) {
    Pic* self = nullptr;
    Pic pic([&] { self->output(); });
    self = &pic;
    std::vector<std::thread> threads;
    for (std::uint64_t seed = 0; seed < 3; ++seed) {
        threads.emplace_back([&pic, seed] {
            RandomPic guest(seed);
            for (int i = 0; i < 3000; ++i)
                guest.step(pic);
        });
    }
    for (std::thread& thread : threads)
        thread.join();
}

}  // namespace
}  // namespace devices::legacy
