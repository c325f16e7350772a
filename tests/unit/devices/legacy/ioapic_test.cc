#include "devices/legacy/ioapic.h"

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

constexpr std::uint64_t kMasked = 0x10000;
constexpr std::uint64_t kLevel = 0x8000;
constexpr std::uint64_t kRemoteIrr = 0x4000;

class IoapicTest : public ::testing::Test {
  protected:
    std::uint32_t read(unsigned index) {
        ioapic.write({.offset = 0x00, .size = 4}, index);
        return static_cast<std::uint32_t>(ioapic.read({.offset = 0x10, .size = 4}));
    }
    void write(unsigned index, std::uint32_t value) {
        ioapic.write({.offset = 0x00, .size = 4}, index);
        ioapic.write({.offset = 0x10, .size = 4}, value);
    }
    // High half first, as drivers do: the low half holds the mask.
    void set_entry(unsigned pin, std::uint64_t entry) {
        write(0x11 + 2 * pin, static_cast<std::uint32_t>(entry >> 32));
        write(0x10 + 2 * pin, static_cast<std::uint32_t>(entry));
    }
    std::uint64_t entry(unsigned pin) {
        return read(0x10 + 2 * pin) | std::uint64_t{read(0x11 + 2 * pin)} << 32;
    }
    std::vector<MsiMessage> take() { return std::exchange(sent, {}); }

    std::vector<MsiMessage> sent;
    std::vector<unsigned> changed;
    Ioapic ioapic{48,
                  {.send = [this](const MsiMessage& message) { sent.push_back(message); },
                   .route_changed = [this](unsigned pin) { changed.push_back(pin); }}};
};

using Messages = std::vector<MsiMessage>;

TEST(Ioapic, HasAsManyPinsAsAskedFor) {
    for (const unsigned pins : {24U, 48U}) {
        Ioapic ioapic(pins, {});
        EXPECT_EQ(ioapic.pins(), pins);
        ioapic.write({.offset = 0, .size = 4}, 1);
        EXPECT_EQ(ioapic.read({.offset = 0x10, .size = 4}), 0x11U | (pins - 1) << 16);
        // The register after the last pin's is not there.
        ioapic.write({.offset = 0, .size = 4}, 0x10 + 2 * pins);
        ioapic.write({.offset = 0x10, .size = 4}, 0);
        EXPECT_EQ(ioapic.read({.offset = 0x10, .size = 4}), 0U);
        ioapic.write({.offset = 0, .size = 4}, 0x10 + 2 * (pins - 1));
        EXPECT_EQ(ioapic.read({.offset = 0x10, .size = 4}), kMasked);
    }
}

TEST_F(IoapicTest, SitsWherePcsHaveIt) {
    EXPECT_STREQ(ioapic.name(), "ioapic");
    EXPECT_EQ(ioapic.range(), (vmm::MmioRange{.base = {0xfec00000}, .size = 0x1000}));
}

TEST_F(IoapicTest, AfterResetEveryPinIsMasked) {
    for (unsigned pin = 0; pin < 48; ++pin) {
        EXPECT_EQ(entry(pin), kMasked);
        EXPECT_TRUE(ioapic.route(pin).masked);
        ioapic.set_irq(pin, true);
    }
    EXPECT_TRUE(sent.empty());
    EXPECT_EQ(read(0), 0U);
}

TEST_F(IoapicTest, IdAndArbitration) {
    write(0, 0xffffffff);
    EXPECT_EQ(read(0), 0x0f000000U);
    EXPECT_EQ(read(2), 0x0f000000U);
    write(1, 0);
    EXPECT_EQ(read(1), 0x002f0011U) << "read-only";
    write(2, 0);
    EXPECT_EQ(read(2), 0x0f000000U) << "read-only";
}

TEST_F(IoapicTest, ReservedRegistersReadAsZero) {
    for (unsigned index = 0; index < 0x100; ++index) {
        if (index <= 2 || (index >= 0x10 && index < 0x70)) continue;
        write(index, ~0U);
        EXPECT_EQ(read(index), 0U) << index;
    }
    EXPECT_TRUE(changed.empty());
}

TEST_F(IoapicTest, EntriesKeepTheirWritableBits) {
    set_entry(5, ~0ULL);
    EXPECT_EQ(entry(5), 0xff0000000001afffULL);
    set_entry(5, 0);
    EXPECT_EQ(entry(5), 0ULL);
}

struct MessageCase {
    std::uint64_t entry;
    std::uint64_t address;
    std::uint32_t data;
};

// 82093AA 3.2.4, against the message formats of the SDM.
TEST_F(IoapicTest, MessagesSayWhatTheEntrySays) {
    for (const auto& [value, address, data] : {
             MessageCase{0x0000000000000030, 0xfee00000, 0x0030},  // fixed, physical, edge
             MessageCase{0x0300000000000030, 0xfee03000, 0x0030},
             MessageCase{0xff00000000000831, 0xfeeff004, 0x0031},  // logical
             MessageCase{0x0100000000000955, 0xfee01004, 0x0155},  // lowest priority
             MessageCase{0x0200000000008041, 0xfee02000, 0xc041},  // level
             MessageCase{0x020000000000a141, 0xfee02000, 0xc141},  // active low: same message
             MessageCase{0x0000000000000400, 0xfee00000, 0x0400},  // NMI
             MessageCase{0x0000000000008402, 0xfee00000, 0x0402},  // NMI is never level
             MessageCase{0x0000000000000200, 0xfee00000, 0x0200},  // SMI
             MessageCase{0x0000000000000500, 0xfee00000, 0x0500},  // INIT
         }) {
        SCOPED_TRACE(value);
        set_entry(9, value);
        ioapic.set_irq(9, true);
        EXPECT_EQ(take(), (Messages{{address, data}}));
        ASSERT_TRUE(ioapic.route(9).message.has_value());
        EXPECT_EQ(*ioapic.route(9).message, (MsiMessage{address, data}));
        EXPECT_EQ(ioapic.route(9).level_triggered, (data & 0x8000) != 0);
        EXPECT_FALSE(ioapic.route(9).masked);
        ioapic.set_irq(9, false);
        EXPECT_TRUE(take().empty());
        ioapic.eoi(static_cast<std::uint8_t>(data));
    }
}

TEST_F(IoapicTest, ReservedDeliveryModesSendNothing) {
    for (const std::uint64_t mode : {0x300ULL, 0x600ULL}) {
        for (const std::uint64_t trigger : {std::uint64_t{0}, kLevel}) {
            set_entry(9, 0x30 | mode | trigger);
            ioapic.set_irq(9, false);
            ioapic.set_irq(9, true);
            EXPECT_TRUE(sent.empty());
            EXPECT_FALSE(ioapic.route(9).message.has_value());
        }
    }
}

TEST_F(IoapicTest, AnEdgeIsSentOnceAndNotWhileMasked) {
    set_entry(4, 0x34);
    ioapic.set_irq(4, false);
    EXPECT_TRUE(take().empty());
    ioapic.set_irq(4, true);
    ioapic.set_irq(4, true);
    EXPECT_EQ(take().size(), 1U);
    EXPECT_EQ(entry(4) & kRemoteIrr, 0U);
    ioapic.set_irq(4, false);
    ioapic.set_irq(4, true);
    EXPECT_EQ(take().size(), 1U) << "no EOI is needed";

    set_entry(4, 0x34 | kMasked);
    ioapic.set_irq(4, false);
    ioapic.set_irq(4, true);
    set_entry(4, 0x34);
    EXPECT_TRUE(take().empty()) << "an edge on a masked pin is not held pending";
}

TEST_F(IoapicTest, ALevelIsSentAgainAfterItsEoi) {
    set_entry(10, 0x40 | kLevel);
    ioapic.set_irq(10, true);
    EXPECT_EQ(take().size(), 1U);
    EXPECT_EQ(entry(10), 0x40 | kLevel | kRemoteIrr);
    ioapic.set_irq(10, false);
    ioapic.set_irq(10, true);
    EXPECT_TRUE(take().empty()) << "not before the EOI";
    ioapic.eoi(0x41);
    EXPECT_TRUE(take().empty()) << "not that vector";
    ioapic.eoi(0x40);
    EXPECT_EQ(take().size(), 1U);
    EXPECT_EQ(entry(10) & kRemoteIrr, kRemoteIrr);
    ioapic.set_irq(10, false);
    ioapic.eoi(0x40);
    EXPECT_TRUE(take().empty());
    EXPECT_EQ(entry(10) & kRemoteIrr, 0U);
    ioapic.set_irq(10, true);
    EXPECT_EQ(take().size(), 1U);
}

TEST_F(IoapicTest, AnEoiEndsAllPinsOfItsVector) {
    for (const unsigned pin : {10U, 11U, 47U}) {
        set_entry(pin, 0x40 | kLevel);
        ioapic.set_irq(pin, true);
    }
    EXPECT_EQ(take().size(), 3U);
    ioapic.set_irq(11, false);
    ioapic.eoi(0x40);
    EXPECT_EQ(take().size(), 2U);
    EXPECT_EQ(entry(11) & kRemoteIrr, 0U);
}

TEST_F(IoapicTest, ALevelThatCameWhileMaskedIsSentWhenUnmasked) {
    set_entry(10, 0x40 | kLevel | kMasked);
    ioapic.set_irq(10, true);
    EXPECT_TRUE(take().empty());
    set_entry(10, 0x40 | kLevel);
    EXPECT_EQ(take().size(), 1U);

    set_entry(10, 0x40 | kLevel | kMasked);
    EXPECT_EQ(entry(10) & kRemoteIrr, kRemoteIrr);
    ioapic.eoi(0x40);
    EXPECT_TRUE(take().empty());
    EXPECT_EQ(entry(10) & kRemoteIrr, 0U) << "an EOI counts while masked";
    set_entry(10, 0x40 | kLevel);
    EXPECT_EQ(take().size(), 1U);
}

// What Linux does to end an interrupt on an IOAPIC without an EOI register.
TEST_F(IoapicTest, TurningEdgeAndLevelAgainEndsAnInterrupt) {
    set_entry(10, 0x40 | kLevel);
    ioapic.set_irq(10, true);
    take();
    set_entry(10, 0x40 | kMasked);
    EXPECT_EQ(entry(10) & kRemoteIrr, 0U);
    EXPECT_TRUE(take().empty());
    set_entry(10, 0x40 | kLevel);
    EXPECT_EQ(take().size(), 1U);
}

TEST_F(IoapicTest, RemoteIrrCannotBeWritten) {
    set_entry(10, 0x40 | kLevel | kRemoteIrr);
    EXPECT_EQ(entry(10) & kRemoteIrr, 0U);
    ioapic.set_irq(10, true);
    set_entry(10, 0x40 | kLevel);
    EXPECT_EQ(entry(10) & kRemoteIrr, kRemoteIrr);
    EXPECT_EQ(take().size(), 1U);
}

TEST_F(IoapicTest, RouteChangesAreToldOnceAndBeforeTheMessage) {
    std::vector<std::string> log;
    Ioapic other(24, {.send = [&](const MsiMessage&) { log.emplace_back("send"); },
                      .route_changed =
                          [&](unsigned pin) { log.push_back("route " + std::to_string(pin)); }});
    const auto poke = [&](unsigned index, std::uint32_t value) {
        other.write({.offset = 0, .size = 4}, index);
        other.write({.offset = 0x10, .size = 4}, value);
    };
    other.set_irq(3, true);
    poke(0x16, 0x8040);
    EXPECT_EQ(log, (std::vector<std::string>{"route 3", "send"}));
    poke(0x16, 0x8040);  // the same again
    poke(0x16, 0xa040);  // polarity is no part of a route
    EXPECT_EQ(log.size(), 2U);
    other.eoi(0x40);  // Remote IRR is neither
    EXPECT_EQ(log.size(), 3U);
    EXPECT_EQ(log.back(), "send");
    poke(0x17, 0x01000000);
    EXPECT_EQ(log.back(), "route 3");
    poke(0x16, 0x18040);
    EXPECT_EQ(log.size(), 5U);
    EXPECT_TRUE(other.route(3).masked);
    EXPECT_EQ(other.route(3).message, (MsiMessage{0xfee01000, 0xc040})) << "known though masked";
}

TEST_F(IoapicTest, ExtIntOnPin0IsTheVirtualWire) {
    EXPECT_FALSE(ioapic.virtual_wire());
    set_entry(0, 0x700);
    EXPECT_TRUE(ioapic.virtual_wire());
    EXPECT_EQ(changed.back(), 0U);
    ioapic.set_irq(0, true);
    EXPECT_TRUE(sent.empty());
    EXPECT_FALSE(ioapic.route(0).message.has_value());
    set_entry(0, 0x700 | kMasked);
    EXPECT_FALSE(ioapic.virtual_wire());
    set_entry(0, 0x30);
    EXPECT_FALSE(ioapic.virtual_wire());
    set_entry(1, 0x700);
    EXPECT_FALSE(ioapic.virtual_wire()) << "another pin's ExtINT has no PIC behind it";
}

// XSA-112: accesses of every size, across registers and past the end of them.
TEST_F(IoapicTest, OddAccesses) {
    set_entry(1, 0x1200000000008765);
    ioapic.write({.offset = 0, .size = 1}, 0x12);
    const std::uint64_t low = 0x8765;
    struct Case {
        IoAccess at;
        std::uint64_t value;
    };
    for (const auto& [at, value] : {
             Case{{0x00, 1}, 0x12},
             Case{{0x00, 4}, 0x12},
             Case{{0x00, 8}, 0x12},
             Case{{0x10, 1}, low & 0xff},
             Case{{0x11, 1}, low >> 8},
             Case{{0x10, 2}, low},
             Case{{0x0f, 2}, (low & 0xff) << 8},
             Case{{0x10, 8}, low},
             Case{{0x04, 4}, 0},
             Case{{0x14, 4}, 0},
             Case{{0x20, 4}, 0},
             Case{{0x40, 4}, 0},
             Case{{0x100, 4}, 0},
             Case{{0x10, 0}, 0},
             Case{{~0ULL, 8}, 0x1200},
         }) {
        EXPECT_EQ(ioapic.read(at), value) << std::hex << at.offset << " size " << at.size;
    }

    const IoapicState before = ioapic.snapshot();
    for (const IoAccess at : {IoAccess{0x10, 1}, IoAccess{0x10, 2}, IoAccess{0x11, 4},
                              IoAccess{0x01, 1}, IoAccess{0x20, 4}, IoAccess{0x40, 4},
                              IoAccess{0x00, 0}, IoAccess{0x10, 0}, IoAccess{0xfff, 8}}) {
        ioapic.write(at, 0x33);
        EXPECT_EQ(ioapic.snapshot(), before) << std::hex << at.offset << " size " << at.size;
    }
    ioapic.write({.offset = 0x10, .size = 8}, 0xffffffff00000033);
    EXPECT_EQ(entry(1), 0x1200000000000033U) << "the low half of a 64-bit store";
}

TEST_F(IoapicTest, PinsThatDoNotExist) {
    const IoapicState before = ioapic.snapshot();
    for (const unsigned pin : {48U, 63U, 64U, ~0U}) {
        ioapic.set_irq(pin, true);
        EXPECT_EQ(ioapic.route(pin), Ioapic::Route{});
    }
    EXPECT_EQ(ioapic.snapshot(), before);
    EXPECT_EQ(Ioapic(0, {}).pins(), 1U);
    EXPECT_EQ(Ioapic(1000, {}).pins(), Ioapic::kMaxPins);
}

TEST_F(IoapicTest, StateRoundTrip) {
    EXPECT_TRUE(testing::fields_are_distinct<IoapicState>());
    write(0, 0x05000000);
    set_entry(10, 0x0300000000000040 | kLevel);
    set_entry(4, 0x34);
    ioapic.set_irq(10, true);
    ioapic.set_irq(4, true);
    const IoapicState state = ioapic.snapshot();

    Messages messages;
    std::vector<unsigned> told;
    Ioapic other(48, {.send = [&](const MsiMessage& message) { messages.push_back(message); },
                      .route_changed = [&](unsigned pin) { told.push_back(pin); }});
    fakes::expect_saved(state, "legacy.ioapic");
    ASSERT_TRUE(other.adopt(state));
    EXPECT_EQ(other.snapshot(), state);
    EXPECT_TRUE(messages.empty()) << "what was sent is in the local APICs";
    EXPECT_EQ(told.size(), 48U);
    other.eoi(0x40);
    EXPECT_EQ(messages, (Messages{{0xfee03000, 0xc040}}));
}

TEST_F(IoapicTest, WhatNoChipHoldsIsRefused) {
    set_entry(10, 0x0300000000000040 | kLevel);
    ioapic.set_irq(10, true);
    const IoapicState before = ioapic.snapshot();
    const auto refused = [&](const char* why, auto change) {
        IoapicState state = before;
        change(state);
        const auto taken = ioapic.adopt(state);
        ASSERT_FALSE(taken) << why;
        EXPECT_EQ(taken.error(), why);
        EXPECT_EQ(ioapic.snapshot(), before) << why;
    };
    refused("id: it has four bits", [](IoapicState& s) { s.id = 0x10; });
    refused("lines: this chip has 48 pins", [](IoapicState& s) { s.lines |= 1ULL << 48; });
    refused("entries: there are 47, this chip has 48 pins",
            [](IoapicState& s) { s.entries.pop_back(); });
    refused("entries: there are 49, this chip has 48 pins",
            [](IoapicState& s) { s.entries.push_back(kMasked); });
    refused("entries[47]: no entry has these bits",
            [](IoapicState& s) { s.entries[47] |= 1ULL << 20; });
    refused("entries[4]: no entry has these bits",
            [](IoapicState& s) { s.entries[4] = 0x34 | kRemoteIrr; });
    refused("entries[10]: its level is due and was not sent",
            [](IoapicState& s) { s.entries[10] &= ~kRemoteIrr; });
    EXPECT_TRUE(ioapic.adopt(before));
}

class RandomIoapic {
  public:
    explicit RandomIoapic(std::uint64_t seed) : rng_(seed) {}

    void step(Ioapic& ioapic) {
        IoAccess at{.offset = rng_() % 2 * 0x10, .size = 4};
        if (rng_() % 8 == 0) at.offset = rng_() % 2 != 0 ? rng_() : rng_() % 0x50;
        if (rng_() % 8 == 0) at.size = static_cast<unsigned>(rng_() % 2 != 0 ? rng_() : rng_() % 9);
        std::uint64_t value = rng_();
        if (at.offset == 0) value = rng_() % 0x90;
        switch (rng_() % 5) {
            case 0:
            case 1: ioapic.write(at, value); break;
            case 2: ioapic.read(at); break;
            case 3: ioapic.set_irq(static_cast<unsigned>(rng_() % 50), rng_() % 2 != 0); break;
            default: ioapic.eoi(static_cast<std::uint8_t>(rng_())); break;
        }
    }

  private:
    Rng rng_;
};

// Holds after every step: a level interrupt that is due has been sent, and the machine's idea of
// the routes is ours.
TEST(IoapicHostile, RandomAccessesNeverMisbehave) {
    std::vector<Ioapic::Route> known(48);
    Ioapic* self = nullptr;
    Ioapic ioapic(48, {.send = [](const MsiMessage&) {},
                       .route_changed = [&](unsigned pin) { known.at(pin) = self->route(pin); }});
    self = &ioapic;
    for (unsigned pin = 0; pin < 48; ++pin)
        known[pin] = ioapic.route(pin);
    RandomIoapic guest(82093);
    for (int i = 0; i < 20000; ++i) {
        guest.step(ioapic);
        const IoapicState state = ioapic.snapshot();
        for (unsigned pin = 0; pin < 48; ++pin) {
            const Ioapic::Route route = ioapic.route(pin);
            ASSERT_EQ(route, known[pin]);
            const bool irr = (state.entries[pin] & kRemoteIrr) != 0;
            ASSERT_TRUE(!irr || route.level_triggered);
            const bool asserted = (state.lines >> pin & 1) != 0;
            const bool due = asserted && route.level_triggered && !route.masked;
            ASSERT_TRUE(irr || !due);
        }
    }
}

// The one that goes on and the one that was restored cannot be told apart.
TEST(IoapicHostile, MutateThenRestore) {
    RandomIoapic guest(1);
    Ioapic ioapic(24, {});
    for (int round = 0; round < 300; ++round) {
        for (int i = 0; i < 50; ++i)
            guest.step(ioapic);
        Ioapic other(24, {});
        ASSERT_TRUE(other.adopt(ioapic.snapshot()));
        ASSERT_EQ(other.snapshot(), ioapic.snapshot());
        RandomIoapic same = guest;
        for (int i = 0; i < 50; ++i) {
            guest.step(ioapic);
            same.step(other);
            ASSERT_EQ(other.snapshot(), ioapic.snapshot());
        }
    }
}

// What passes for a state is held as it is, and a guest cannot do more with it than with its own.
TEST(IoapicHostile, AnyStateIsTakenWholeOrRefused) {
    Rng rng(2);
    RandomIoapic guest(3);
    for (const unsigned pins : {1U, 24U, 48U, 64U}) {
        Ioapic ioapic(pins, {});
        for (int round = 0; round < 500; ++round) {
            IoapicState state = ioapic.snapshot();
            for (auto left = rng() % 3; left != 0; --left)
                testing::randomise_one(state, rng);
            if (rng() % 8 == 0) testing::randomise(state, rng);
            ASSERT_TRUE(testing::adopts_whole_or_not(ioapic, state)) << round;
            for (int i = 0; i < 20; ++i)
                guest.step(ioapic);
        }
    }
}

TEST(IoapicThreads, MayCallAtOnce) {
    Ioapic* self = nullptr;
    Ioapic ioapic(48, {.send = [&](const MsiMessage&) { self->virtual_wire(); },
                       .route_changed = [&](unsigned pin) { self->route(pin); }});
    self = &ioapic;
    std::vector<std::thread> threads;
    for (std::uint64_t seed = 0; seed < 3; ++seed) {
        threads.emplace_back([&ioapic, seed] {
            RandomIoapic guest(seed);
            for (int i = 0; i < 3000; ++i)
                guest.step(ioapic);
        });
    }
    for (std::thread& thread : threads)
        thread.join();
}

}  // namespace
}  // namespace devices::legacy
