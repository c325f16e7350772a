// The event callback as a line: when it is driven, and where to.
#include "xenshim/domain/callback_line.h"

#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "tests/fakes/test_domain.h"
#include "xenshim/abi/callback.h"

namespace xenshim {
namespace {

using namespace abi;
using fakes::BothWidths;
using fakes::TestDomain;

using Levels = std::vector<std::pair<unsigned, bool>>;

constexpr std::uint64_t kIntx = std::uint64_t{1} << 56;
constexpr std::uint64_t kVector = std::uint64_t{2} << 56 | 0xf3;

// A machine does with an upcall what XenPlatform does: a line only for vCPU 0, and only while that
// has no vector of its own.
void connect(TestDomain& guest) {
    guest.ports.on_upcall = [&guest](unsigned vcpu) {
        if (vcpu == 0 && guest.domain.vcpu(0).upcall_vector == 0) {
            guest.domain.callback_line().raise();
        }
    };
}

class Line : public BothWidths {
  protected:
    Line() {
        connect(guest);
        guest.domain.latch_width(guest.width());
        port = *events().bind_ipi(0);
        other_port = *events().bind_ipi(0);
    }
    EventChannels& events() { return guest.domain.event_channels(); }
    CallbackLine& line() { return guest.domain.callback_line(); }
    void set(std::uint64_t value) {
        ASSERT_TRUE(guest.domain.params().set(HVM_PARAM_CALLBACK_IRQ, value).has_value());
        line().reroute();
    }
    void send(Port to) { ASSERT_TRUE(events().send(to).has_value()); }
    // As the guest does; what is pending stays so, but for the ports named.
    std::byte& upcall_pending() { return guest.ports.own_page(kSharedInfoPage)[0]; }
    void clear() {
        upcall_pending() = std::byte{0};
        const auto* layout = guest.domain.shared_info().layout();
        std::memset(&upcall_pending() + layout->pending_sel, 0, layout->word_bytes);
        guest.domain.shared_info().clear_pending(port);
        guest.domain.shared_info().clear_pending(other_port);
    }
    // What the line was driven to since the last look.
    Levels levels() { return std::exchange(guest.ports.line_levels, {}); }

    Port port = 0, other_port = 0;
};

TEST_P(Line, RisesWithUpcallPendingAndFallsWhenItIsSeenCleared) {
    set(20);
    EXPECT_EQ(levels(), Levels{});
    send(port);
    EXPECT_EQ(levels(), (Levels{{20, true}}));
    line().look();
    EXPECT_EQ(levels(), Levels{});
    clear();
    EXPECT_EQ(levels(), Levels{});
    line().look();
    EXPECT_EQ(levels(), (Levels{{20, false}}));
    line().look();
    EXPECT_EQ(levels(), Levels{});
    send(port);
    EXPECT_EQ(levels(), (Levels{{20, true}}));
}

TEST_P(Line, OfIntxIsThatOfItsGsi) {
    set(kIntx | 3 << 11 | 1);
    send(port);
    clear();
    line().look();
    EXPECT_EQ(levels(), (Levels{{29, true}, {29, false}}));
}

TEST_P(Line, StaysUpForASecondEvent) {
    set(20);
    send(port);
    send(other_port);
    EXPECT_EQ(levels(), (Levels{{20, true}}));
}

TEST_P(Line, FallsInBetweenWhenTheGuestClearedUnseen) {
    set(20);
    send(port);
    clear();
    send(port);
    EXPECT_EQ(levels(), (Levels{{20, true}, {20, false}, {20, true}}));
    line().look();
    EXPECT_EQ(levels(), Levels{});
}

// The event was taken before anybody drove the line for it.
TEST_P(Line, IsNotRaisedForAnEventThatIsGone) {
    set(20);
    guest.ports.on_upcall = nullptr;
    send(port);
    clear();
    line().raise();
    EXPECT_EQ(levels(), Levels{});
    send(port);
    line().raise();
    clear();
    line().raise();
    EXPECT_EQ(levels(), (Levels{{20, true}, {20, false}}));
}

TEST_P(Line, IsOnlyVcpu0s) {
    set(20);
    const Port its = *events().bind_ipi(1);
    send(its);
    EXPECT_TRUE(guest.domain.shared_info().upcall_pending(1));
    EXPECT_EQ(levels(), Levels{});
}

TEST_P(Line, MaskedPortsRaiseItWhenTheyAreUnmasked) {
    set(20);
    const auto* layout = guest.domain.shared_info().layout();
    auto* mask = guest.ports.own_page(kSharedInfoPage) + layout->evtchn_mask;
    mask[port / 8] = static_cast<std::byte>(1u << port % 8);
    send(port);
    EXPECT_EQ(levels(), Levels{});
    ASSERT_TRUE(events().unmask(port).has_value());
    EXPECT_EQ(levels(), (Levels{{20, true}}));
}

TEST_P(Line, IsRaisedWhenItIsSetWhileAnEventWaits) {
    send(port);
    EXPECT_EQ(levels(), Levels{});
    set(20);
    EXPECT_EQ(levels(), (Levels{{20, true}}));
}

TEST_P(Line, MovesWithTheParameterWhileItIsUp) {
    set(20);
    send(port);
    levels();
    set(21);
    EXPECT_EQ(levels(), (Levels{{20, false}, {21, true}}));
    set(0);
    EXPECT_EQ(levels(), (Levels{{21, false}}));
    set(48);
    EXPECT_EQ(levels(), Levels{});
    set(kIntx);
    EXPECT_EQ(levels(), (Levels{{16, true}}));
    set(20);
    EXPECT_EQ(levels(), (Levels{{16, false}, {20, true}}));
    set(20);
    EXPECT_EQ(levels(), (Levels{{20, false}, {20, true}}));
    clear();
    set(21);
    EXPECT_EQ(levels(), (Levels{{20, false}}));
    set(20);
    EXPECT_EQ(levels(), Levels{});
}

// With a vector there is no line. What came by it is found by the line that is set after it when
// the machine raises what is pending, as it does at each change.
TEST_P(Line, GoesAwayForAVectorAndComesBack) {
    set(20);
    send(port);
    set(kVector);
    EXPECT_EQ(levels(), (Levels{{20, true}, {20, false}}));
    send(other_port);
    clear();
    line().look();
    send(port);
    EXPECT_EQ(levels(), Levels{});
    set(21);
    line().raise();
    EXPECT_EQ(levels(), (Levels{{21, true}}));
}

// As on Xen, where Linux sets GSI 1 for form's sake.
TEST_P(Line, IsSilentOnceVcpu0HasAVectorOfItsOwn) {
    set(20);
    guest.domain.vcpu(0).upcall_vector = 0x40;
    send(port);
    EXPECT_EQ(levels(), Levels{});
    set(1);
    EXPECT_EQ(levels(), Levels{});
}

TEST_P(Line, FallsAlsoWhenTheVectorCameLater) {
    set(20);
    send(port);
    guest.domain.vcpu(0).upcall_vector = 0x40;
    line().look();
    EXPECT_EQ(levels(), (Levels{{20, true}}));
    clear();
    line().look();
    EXPECT_EQ(levels(), (Levels{{20, false}}));
}

TEST_P(Line, FollowsVcpuInfoThatMoves) {
    set(20);
    ASSERT_TRUE(guest.domain.register_vcpu_info(0, TestDomain::kRamGfn, 64).has_value());
    EXPECT_EQ(levels(), (Levels{{20, true}}));  // everything is pending after a move
    clear();                                    // where it used to be
    line().look();
    EXPECT_EQ(levels(), Levels{});
    guest.poke(vmm::Gva{TestDomain::kRamGfn * vmm::kPageSize + 64}, std::uint8_t{0});
    line().look();
    EXPECT_EQ(levels(), (Levels{{20, false}}));
}

TEST_P(Line, IsUnchangedByAResetOfThePorts) {
    set(20);
    send(port);
    events().reset();
    line().look();
    EXPECT_EQ(levels(), (Levels{{20, true}}));  // upcall_pending is the guest's to clear
    clear();
    line().look();
    EXPECT_EQ(levels(), (Levels{{20, false}}));
}

TEST_P(Line, NeverWithoutControllers) {
    TestDomain::Options options;
    options.interrupt_controllers = false;
    const auto pvh = fresh(options);
    connect(*pvh);
    const Port its = *pvh->domain.event_channels().bind_ipi(0);
    ASSERT_TRUE(pvh->domain.params().set(HVM_PARAM_CALLBACK_IRQ, 20).has_value());
    pvh->domain.callback_line().reroute();
    ASSERT_TRUE(pvh->domain.event_channels().send(its).has_value());
    pvh->domain.callback_line().raise();
    pvh->domain.callback_line().look();
    EXPECT_EQ(pvh->ports.line_levels, Levels{});
}

// Whatever the order of things: the line that is driven is the one that the parameter names, never
// twice the same way, and after a look it is as upcall_pending is.
TEST_P(Line, AlwaysAgreesAfterALook) {
    std::mt19937 random(4711);
    const std::uint64_t values[] = {0, 1, 20, 47, 48, kIntx, kIntx | 31 << 11 | 3, kVector};
    std::uint64_t value = 0;
    std::array<bool, 64> lines{};
    for (unsigned step = 0; step < 20'000; ++step) {
        switch (random() % 6) {
            case 0:
                value = values[random() % std::size(values)];
                set(value);
                if (guest.domain.shared_info().upcall_pending(0)) line().raise();
                break;
            case 1: send(port); break;
            case 2: send(other_port); break;
            case 3: clear(); break;
            default: line().look(); break;
        }
        for (const auto& [gsi, level] : levels()) {
            EXPECT_NE(lines.at(gsi), level);
            lines.at(gsi) = level;
        }
        line().look();
        for (const auto& [gsi, level] : levels()) {
            EXPECT_NE(lines.at(gsi), level);
            lines.at(gsi) = level;
        }
        const Callback callback = callback_of(value);
        for (unsigned gsi = 0; gsi < lines.size(); ++gsi) {
            const bool wanted = callback.kind == Callback::Kind::kLine && callback.gsi == gsi &&
                                guest.domain.shared_info().upcall_pending(0);
            ASSERT_EQ(lines[gsi], wanted) << "line " << gsi << " at step " << step;
        }
    }
}

// Events from two threads, a guest that clears and one that changes its mind.
TEST_P(Line, IsDrivenInOneOrder) {
    set(20);
    constexpr unsigned kRounds = 5'000;
    const auto sender = [&](Port to) {
        for (unsigned i = 0; i < kRounds; ++i) {
            guest.domain.shared_info().clear_pending(to);
            static_cast<void>(events().send(to));
        }
    };
    std::thread one(sender, port), two(sender, other_port), three([&] {
        for (unsigned i = 0; i < kRounds; ++i) {
            std::atomic_ref<std::uint8_t>(*reinterpret_cast<std::uint8_t*>(&upcall_pending()))
                .store(0);
            line().look();
        }
    });
    for (unsigned i = 0; i < 100; ++i) {
        set(20 + i % 2);
    }
    one.join();
    two.join();
    three.join();
    line().raise();
    std::array<bool, 64> lines{};
    for (const auto& [gsi, level] : levels()) {
        ASSERT_NE(lines.at(gsi), level);
        lines.at(gsi) = level;
    }
    EXPECT_FALSE(lines[20]);
    EXPECT_EQ(lines[21], guest.domain.shared_info().upcall_pending(0));
}

XENOLITH_BOTH_WIDTHS(Line);

}  // namespace
}  // namespace xenshim
