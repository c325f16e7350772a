// FIFO event channels against a guest's side written from the interface's description: order,
// priorities, masks, moves between queues, words that come late, and guests that write what they
// like where they like.
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "tests/fakes/fifo_guest.h"

namespace xenshim {
namespace {

using namespace abi;
using fakes::FifoGuest;
using fakes::TestDomain;

constexpr std::uint32_t kPending = FifoGuest::kPending, kMasked = FifoGuest::kMasked,
                        kLinked = FifoGuest::kLinked, kBusy = FifoGuest::kBusy,
                        kLink = FifoGuest::kLink;

template <class T>
Errno error_of(const GuestResult<T>& result) {
    EXPECT_FALSE(result.has_value());
    return result.has_value() ? Errno{} : result.error();
}

class Fifo : public testing::Test {
  protected:
    Fifo() { use(guest); }
    void use(TestDomain& domain) {
        d = &domain;
        d->domain.latch_width(Width::k64);
    }
    EventChannels& ev() { return d->domain.event_channels(); }
    Port ipi(unsigned v) { return *ev().bind_ipi(v); }
    void send(Port port) { ASSERT_TRUE(ev().send(port).has_value()); }
    bool upcall_pending(unsigned v) {
        return d->ports.own_page(kSharedInfoPage)[v * 64] != std::byte{0};
    }
    FifoGuest start() {
        FifoGuest fifo(*d);
        EXPECT_TRUE(fifo.init(0).has_value());
        EXPECT_TRUE(fifo.init(1).has_value());
        EXPECT_TRUE(fifo.expand().has_value());
        return fifo;
    }
    using Ports = std::vector<Port>;
    TestDomain guest{Width::k64, {.max_event_port = 131071}};
    TestDomain* d = nullptr;
};

// ---- delivery -----------------------------------------------------------------------------------

TEST_F(Fifo, EventsComeInTheOrderInWhichTheyWereSent) {
    auto fifo = start();
    const Port a = ipi(0), b = ipi(0), c = ipi(0);
    send(c);
    send(a);
    send(b);
    EXPECT_TRUE(upcall_pending(0));
    EXPECT_EQ(d->ports.upcalls(0), 1u) << "one upcall for all that is queued behind it";
    EXPECT_EQ(fifo.ready(0).load(), 1u << 7);
    EXPECT_EQ(fifo.head(0, 7).load(), c);
    EXPECT_EQ(fifo.word(c).load(), kPending | kLinked | a);
    EXPECT_EQ(fifo.word(b).load(), kPending | kLinked);
    EXPECT_EQ(fifo.take(0), (Ports{c, a, b}));
    EXPECT_EQ(fifo.word(a).load(), 0u);
    EXPECT_FALSE(upcall_pending(1));
    // And the bitmaps are out of use.
    EXPECT_FALSE(d->domain.shared_info().is_pending(a));
}

TEST_F(Fifo, APendingEventIsNotSentTwice) {
    auto fifo = start();
    const Port a = ipi(0);
    send(a);
    send(a);
    EXPECT_EQ(fifo.take(0), (Ports{a}));
    EXPECT_TRUE(fifo.take(0).empty());
    send(a);
    EXPECT_EQ(fifo.take(0), (Ports{a}));
}

TEST_F(Fifo, HighPrioritiesComeFirst) {
    auto fifo = start();
    const Port low = ipi(0), normal = ipi(0), high = ipi(0);
    ASSERT_TRUE(ev().set_priority(low, 15).has_value());
    ASSERT_TRUE(ev().set_priority(high, 0).has_value());
    send(low);
    send(normal);
    send(high);
    EXPECT_EQ(fifo.ready(0).load(), 1u << 15 | 1u << 7 | 1u);
    EXPECT_EQ(d->ports.upcalls(0), 3u);  // a queue that was empty each time
    EXPECT_EQ(fifo.take(0), (Ports{high, normal, low}));
}

TEST_F(Fifo, AMaskedEventIsPendingOnlyUntilItIsUnmasked) {
    auto fifo = start();
    const Port a = ipi(1);
    fifo.mask(a);
    send(a);
    EXPECT_EQ(fifo.word(a).load(), kPending | kMasked);
    EXPECT_TRUE(*ev().pending(a));
    EXPECT_EQ(d->ports.upcalls(1), 0u);
    ASSERT_TRUE(ev().unmask(a).has_value());
    EXPECT_EQ(d->ports.upcalls(1), 1u);
    EXPECT_EQ(fifo.take(1), (Ports{a}));
}

TEST_F(Fifo, AnEventMaskedWhileItIsQueuedIsPassedOverAndComesBack) {
    auto fifo = start();
    const Port a = ipi(0);
    send(a);
    fifo.mask(a);
    EXPECT_TRUE(fifo.take(0).empty());
    fifo.unmask(a);
    EXPECT_EQ(fifo.take(0), (Ports{a}));
}

// The tail that ran empty is the same port again, or another's: each time a new head.
TEST_F(Fifo, AnEmptiedQueueStartsAgainAtItsHead) {
    auto fifo = start();
    const Port a = ipi(0), b = ipi(0);
    send(a);
    EXPECT_EQ(fifo.take(0), (Ports{a}));
    send(b);
    EXPECT_EQ(fifo.head(0, 7).load(), b);
    EXPECT_EQ(fifo.take(0), (Ports{b}));
    send(b);
    EXPECT_EQ(fifo.take(0), (Ports{b}));
    send(a);
    EXPECT_EQ(fifo.take(0), (Ports{a}));
    EXPECT_EQ(d->ports.upcalls(0), 4u);
}

// An event may only move when it is on no queue; the old queue must not be continued from it.
TEST_F(Fifo, AnEventThatMovesLeavesItsOldQueueUsable) {
    auto fifo = start();
    const Port a = *ev().alloc_unbound(DOMID_SELF);
    const Port b = *ev().bind_interdomain(DOMID_SELF, a);
    const Port other = ipi(0);
    fifo.take(0);
    send(b);  // a is the tail of vCPU 0's queue
    EXPECT_EQ(fifo.take(0), (Ports{a}));
    ASSERT_TRUE(ev().bind_vcpu(a, 1).has_value());
    ASSERT_TRUE(ev().set_priority(a, 3).has_value());
    send(b);  // now of vCPU 1's, and linked
    send(other);
    EXPECT_EQ(fifo.take(0), (Ports{other})) << "hung behind a port of another queue";
    EXPECT_EQ(fifo.take(1), (Ports{a}));
    EXPECT_EQ(fifo.word(other).load(), 0u);
}

TEST_F(Fifo, AnEventStaysOnTheQueueItIsOnWhenItsPortMoves) {
    auto fifo = start();
    const Port a = *ev().alloc_unbound(DOMID_SELF);
    const Port b = *ev().bind_interdomain(DOMID_SELF, a);
    fifo.take(0);
    send(b);
    ASSERT_TRUE(ev().bind_vcpu(a, 1).has_value());
    ASSERT_TRUE(ev().set_priority(a, 0).has_value());
    EXPECT_TRUE(fifo.take(1).empty());
    EXPECT_EQ(fifo.take(0), (Ports{a}));
    send(b);
    EXPECT_EQ(fifo.take(1), (Ports{a}));
}

// A port that was closed while it is queued is not given out before the guest has unlinked it, and
// the queue that it is the tail of must not be continued from it once somebody else has it.
TEST_F(Fifo, AQueuedPortIsNotGivenOutAgain) {
    auto fifo = start();
    const Port a = ipi(0), b = ipi(0);
    send(a);
    ASSERT_TRUE(ev().close(a).has_value());
    EXPECT_EQ(fifo.word(a).load(), kLinked) << "not pending any more";
    EXPECT_EQ(ipi(1), b + 1);
    EXPECT_TRUE(fifo.take(0).empty());
    const Port again = ipi(1);
    EXPECT_EQ(again, a);
    send(again);  // on vCPU 1's queue; still the last of vCPU 0's
    send(b);
    EXPECT_EQ(fifo.take(0), (Ports{b}));
    EXPECT_EQ(fifo.take(1), (Ports{again}));
}

TEST_F(Fifo, APortThatIsGivenOutAgainHasTheDefaultPriority) {
    auto fifo = start();
    const Port a = ipi(0);
    ASSERT_TRUE(ev().set_priority(a, 1).has_value());
    ASSERT_TRUE(ev().close(a).has_value());
    ASSERT_EQ(ipi(0), a);
    send(a);
    EXPECT_EQ(fifo.ready(0).load(), 1u << 7);
}

// ---- words that come late -----------------------------------------------------------------------

TEST_F(Fifo, WhatIsPendingIn2LevelIsRaisedWhenItsWordIsThere) {
    const Port a = ipi(0), b = ipi(1), c = ipi(0);
    send(a);
    send(b);
    FifoGuest fifo(*d);
    ASSERT_TRUE(fifo.init(0).has_value() && fifo.init(1).has_value());
    EXPECT_FALSE(*ev().pending(a)) << "as Xen has it";
    send(c);
    d->ports.forget_upcalls();
    ASSERT_TRUE(fifo.expand().has_value());
    EXPECT_EQ(d->ports.upcalls(0), 1u);
    EXPECT_EQ(d->ports.upcalls(1), 1u);
    EXPECT_EQ(fifo.take(0), (Ports{a, c}));
    EXPECT_EQ(fifo.take(1), (Ports{b}));
}

TEST_F(Fifo, AClosedPortIsNotRaisedWhenItsWordComes) {
    FifoGuest fifo(*d);
    const Port a = ipi(0);
    ASSERT_TRUE(fifo.init(0).has_value());
    send(a);
    ASSERT_TRUE(ev().close(a).has_value());
    ASSERT_EQ(ipi(0), a);
    ASSERT_TRUE(fifo.expand().has_value());
    EXPECT_TRUE(fifo.take(0).empty());
}

TEST_F(Fifo, ThousandsOfPorts) {
    auto fifo = start();
    constexpr Port kPorts = 5000;
    for (Port port = 1; port <= kPorts; ++port) {
        ASSERT_EQ(ipi(port % 2), port);
    }
    for (Port port = kPorts; port >= 1; --port) {
        send(port);
    }
    for (Port page = 1; page * 1024 <= kPorts; ++page) {
        ASSERT_TRUE(fifo.expand().has_value());
    }
    std::set<Port> seen;
    for (unsigned v = 0; v < 2; ++v) {
        for (const Port port : fifo.take(v)) {
            EXPECT_EQ(port % 2, v);
            EXPECT_TRUE(seen.insert(port).second);
        }
    }
    EXPECT_EQ(seen.size(), kPorts);
}

// ---- limits -------------------------------------------------------------------------------------

// XSA-344: so many ports are allocated and reset in a time that has nothing to do with their
// square.
TEST_F(Fifo, AllOfTheInterfacesPorts) {
    FifoGuest fifo(*d);
    ASSERT_TRUE(fifo.init(0).has_value());
    Port last = 0;
    for (auto port = ev().bind_ipi(0); port.has_value(); port = ev().bind_ipi(0)) {
        ASSERT_EQ(*port, last + 1);
        last = *port;
    }
    EXPECT_EQ(last, 131071u);
    EXPECT_EQ(error_of(ev().bind_ipi(0)), XEN_ENOSPC);
    EXPECT_TRUE(ev().status(131071).has_value());
    EXPECT_EQ(error_of(ev().status(131072)), XEN_EINVAL);
    for (unsigned page = 0; page < 128; ++page) {
        ASSERT_TRUE(fifo.expand().has_value()) << page;
    }
    EXPECT_EQ(error_of(fifo.expand()), XEN_ENOSPC);
    send(last);
    EXPECT_EQ(fifo.take(0), (Ports{last}));
    for (const Port port : {70000u, 3u, 131071u}) {
        ASSERT_TRUE(ev().close(port).has_value());
    }
    EXPECT_EQ(ipi(0), 3u);
    EXPECT_EQ(ipi(0), 70000u);
    EXPECT_EQ(ipi(0), 131071u);
    EXPECT_EQ(*ev().reset(false, [](Port) { return false; }), 0u);
    EXPECT_FALSE(ev().is_fifo());
    EXPECT_EQ(ipi(0), 1u);
}

// XSA-317, XSA-496: a table that is full refuses each kind of bind and changes nothing.
TEST_F(Fifo, TheVmsLimitHoldsInFifoToo) {
    TestDomain few(Width::k64, {.max_event_port = 70});
    use(few);
    auto fifo = start();
    for (Port port = 1; port <= 70; ++port) {
        ASSERT_EQ(ipi(0), port);
    }
    EXPECT_EQ(error_of(ev().bind_ipi(0)), XEN_ENOSPC);
    EXPECT_EQ(error_of(ev().alloc_unbound(0)), XEN_ENOSPC);
    EXPECT_EQ(error_of(ev().bind_interdomain(DOMID_SELF, 1)), XEN_ENOSPC);
    EXPECT_EQ(error_of(ev().bind_virq(VIRQ_TIMER, 0)), XEN_ENOSPC);
    EXPECT_EQ(error_of(ev().bind_pirq(1)), XEN_ENOSPC);
    ev().raise_virq(VIRQ_TIMER, 0);
    EXPECT_TRUE(fifo.take(0).empty());
    ASSERT_TRUE(ev().close(70).has_value());
    EXPECT_EQ(*ev().bind_virq(VIRQ_TIMER, 0), 70u);
    ASSERT_TRUE(ev().close(70).has_value());
    EXPECT_EQ(*ev().bind_pirq(1), 70u);
}

// XSA-342: in 2-level the limit is the narrow bitmap's for a 32-bit guest, also after FIFO.
TEST_F(Fifo, AfterAResetTheBitmapsLimitHoldsAgain) {
    d->domain.latch_width(Width::k32);
    auto fifo = start();
    for (Port port = 1; port <= 1100; ++port) {
        ASSERT_EQ(ipi(0), port);
    }
    ev().reset();
    for (Port port = 1; port < 1024; ++port) {
        ASSERT_EQ(ipi(0), port);
    }
    EXPECT_EQ(error_of(ev().bind_ipi(0)), XEN_ENOSPC);
    EXPECT_TRUE(ev().status(1100).has_value()) << "room that was made stays, as on Xen";
}

// XSA-338: ports beyond the bitmap that everybody still knows when FIFO ends: a backend, a timer,
// the other end of a loopback, a vCPU that polls.
TEST_F(Fifo, Xsa338PortsThatEndWithFifo) {
    auto fifo = start();
    const auto backend = ev().attach_backend([] {});
    ASSERT_TRUE(ev().close(backend.local).has_value());
    std::vector<Port> beyond;
    for (Port port = 1; port <= 4096; ++port) {
        ASSERT_TRUE(ev().alloc_unbound(DOMID_SELF).has_value());
    }
    beyond.push_back(*ev().bind_interdomain(0, backend.remote));
    beyond.push_back(*ev().bind_virq(VIRQ_TIMER, 0));
    beyond.push_back(*ev().bind_interdomain(DOMID_SELF, 4096));
    beyond.push_back(ipi(1));
    for (const Port port : beyond) {
        ASSERT_GT(port, 4096u);
    }
    for (const bool step_by_step : {true, false}) {
        if (step_by_step) {
            ASSERT_EQ(*ev().reset(false, [](Port) { return false; }), 0u);
        } else {
            ev().reset();
        }
        ASSERT_FALSE(ev().is_fifo());
        const std::vector<std::byte> before(d->ports.own_page(kSharedInfoPage),
                                            d->ports.own_page(kSharedInfoPage) + vmm::kPageSize);
        ev().notify(backend.remote);
        ev().raise_virq(VIRQ_TIMER, 0);
        for (const Port port : beyond) {
            EXPECT_EQ(error_of(ev().send(port)), XEN_EINVAL) << port;
            EXPECT_EQ(error_of(ev().close(port)), XEN_EINVAL) << port;
            EXPECT_EQ(error_of(ev().bind_vcpu(port, 0)), XEN_EINVAL) << port;
            EXPECT_EQ(error_of(ev().pending(port)), XEN_EINVAL) << port;
            EXPECT_TRUE(ev().unmask(port).has_value()) << port;
            EXPECT_EQ(ev().status(port)->status, EVTCHNSTAT_closed) << port;
        }
        EXPECT_TRUE(std::equal(before.begin(), before.end(), d->ports.own_page(kSharedInfoPage)));
        // All can be had again, where the bitmap reaches.
        EXPECT_EQ(*ev().bind_interdomain(0, backend.remote), 1u);
        EXPECT_EQ(*ev().bind_virq(VIRQ_TIMER, 0), 2u);
    }
}

// ---- control blocks and reset -------------------------------------------------------------------

// XSA-107: a vCPU without a control block.
TEST_F(Fifo, AnEventForAVcpuWithoutAControlBlockStaysPending) {
    FifoGuest fifo(*d);
    ASSERT_TRUE(fifo.init(0).has_value());
    ASSERT_TRUE(fifo.expand().has_value());
    const Port a = ipi(1);
    send(a);
    EXPECT_EQ(fifo.word(a).load(), kPending);
    EXPECT_EQ(d->ports.upcalls(1), 0u);
    ASSERT_TRUE(fifo.init(1).has_value());
    ASSERT_TRUE(ev().unmask(a).has_value());
    EXPECT_EQ(fifo.take(1), (Ports{a}));
}

// XSA-188, XSA-358: one that is refused leaves nothing behind, and the next one works.
TEST_F(Fifo, ARefusedControlBlockChangesNothing) {
    const Port a = ipi(0);
    FifoGuest misplaced(*d, 4096 - 64);
    EXPECT_EQ(error_of(misplaced.init(0)), XEN_EINVAL);
    EXPECT_EQ(error_of(ev().init_control(0, 0, {})), XEN_EINVAL);
    EXPECT_EQ(error_of(ev().init_control(2, 0, d->domain.named_page(0x4000))), XEN_ENOENT);
    EXPECT_FALSE(ev().is_fifo());
    EXPECT_EQ(error_of(ev().expand_array(d->domain.named_page(0x5000))), XEN_EOPNOTSUPP);
    send(a);
    EXPECT_TRUE(d->domain.shared_info().is_pending(a));
    FifoGuest fifo(*d, 4096 - 72);
    EXPECT_TRUE(fifo.init(0).has_value());
    EXPECT_EQ(error_of(fifo.init(0)), XEN_EINVAL);
    ASSERT_TRUE(fifo.expand().has_value());
    EXPECT_EQ(fifo.take(0), (Ports{a}));
}

TEST_F(Fifo, ResetGoesBackTo2LevelAndFifoCanBeTakenUpAgain) {
    auto fifo = start();
    const auto backend = ev().attach_backend([] {});
    ev().notify(backend.remote);
    EXPECT_EQ(fifo.take(0), (Ports{backend.local}));
    EXPECT_EQ(*ev().reset(false, [](Port) { return false; }), 0u);
    EXPECT_FALSE(ev().is_fifo());
    const Port again = *ev().bind_interdomain(0, backend.remote);
    EXPECT_TRUE(d->domain.shared_info().is_pending(again));
    EXPECT_EQ(fifo.word(again).load(), 0u);
    auto second = start();
    EXPECT_EQ(second.take(0), (Ports{again}));
}

// XSA-343, XSA-344: what others do between the steps of a reset.
TEST_F(Fifo, AResetGoesOnWhereItStoppedAndKeepsOthersOut) {
    auto fifo = start();
    for (Port port = 1; port <= 300; ++port) {
        ASSERT_EQ(ipi(0), port);
    }
    const auto always = [](Port) { return true; };
    EXPECT_EQ(error_of(ev().reset(true, always)), XEN_EBUSY);
    EXPECT_EQ(*ev().reset(false, always), 64u);
    EXPECT_EQ(ev().status(63)->status, EVTCHNSTAT_closed);
    EXPECT_EQ(ev().status(64)->status, EVTCHNSTAT_ipi);
    EXPECT_EQ(error_of(ev().reset(false, always)), XEN_EBUSY);
    send(300);
    EXPECT_EQ(fifo.take(0), (Ports{300}));
    EXPECT_EQ(*ev().reset(true, always), 128u);
    EXPECT_EQ(*ev().reset(true, always), 192u);
    // A port bound below the cursor outlives it: then the ABI stays.
    EXPECT_EQ(ipi(0), 1u);
    EXPECT_EQ(*ev().reset(true, always), 256u);
    EXPECT_EQ(error_of(ev().reset(true, always)), XEN_EAGAIN);
    EXPECT_TRUE(ev().is_fifo());
    send(1);
    EXPECT_EQ(fifo.take(0), (Ports{1}));
    EXPECT_EQ(*ev().reset(false, [](Port) { return false; }), 0u);
    EXPECT_FALSE(ev().is_fifo());
}

// XSA-221: ports that the table has no room for yet.
TEST_F(Fifo, PortsWithoutABucket) {
    auto fifo = start();
    for (const Port port : {64u, 1023u, 1024u, 131071u, 131072u, ~0u}) {
        EXPECT_EQ(error_of(ev().unmask(port)), XEN_EINVAL) << port;
        EXPECT_EQ(error_of(ev().pending(port)), XEN_EINVAL) << port;
        EXPECT_EQ(error_of(ev().send(port)), XEN_EINVAL) << port;
        EXPECT_EQ(error_of(ev().set_priority(port, 3)), XEN_EINVAL) << port;
    }
    EXPECT_EQ(error_of(ev().set_priority(0, 3)), XEN_EACCES);
    EXPECT_EQ(error_of(ev().set_priority(9, 3)), XEN_EACCES);
    fifo.word(9).store(kPending | kMasked);
    EXPECT_TRUE(ev().unmask(9).has_value()) << "an answer, and nothing else";
    EXPECT_EQ(fifo.word(9).load(), kPending | kMasked);
}

// ---- memory that the guest takes away -----------------------------------------------------------

// The words of a page that was given back go into the hole: no account changes, what the guest puts
// there later is its own, and housekeeping can free the hole again.
TEST_F(Fifo, PagesThatWereGivenBackAreOfNoHarm) {
    auto fifo = start();
    const Port a = ipi(0);
    const auto before = d->domain.physmap().accounts().current;
    ASSERT_TRUE(d->domain.physmap().decrease(FifoGuest::kArrayGfn));
    ASSERT_TRUE(d->domain.physmap().decrease(FifoGuest::kControlGfn));
    for (int n = 0; n < 3; ++n) {
        send(a);
        ASSERT_TRUE(ev().unmask(a).has_value());
        ASSERT_TRUE(ev().set_priority(a, static_cast<std::uint32_t>(n)).has_value());
    }
    EXPECT_EQ(d->domain.physmap().accounts().current, before - 2);
    EXPECT_TRUE(d->ports.ram_backed(FifoGuest::kArrayGfn)) << "touched through the old place";
    EXPECT_TRUE(d->domain.physmap().free_touched(FifoGuest::kArrayGfn));
    EXPECT_FALSE(d->ports.ram_backed(FifoGuest::kArrayGfn));
    ASSERT_TRUE(d->domain.physmap().populate(FifoGuest::kArrayGfn));
    send(a);
    EXPECT_EQ(fifo.word(a).load() & kPending, kPending);
    ev().reset();
    EXPECT_EQ(d->domain.physmap().accounts().current, before - 1);
}

// A page of ours as an array: shared_info is the guest's to write anyhow.
TEST_F(Fifo, OwnPagesMayServeAsArray) {
    ASSERT_TRUE(d->domain.physmap().place_own(kSharedInfoPage, 0x5000).has_value());
    FifoGuest fifo(*d);
    ASSERT_TRUE(fifo.init(0).has_value());
    ASSERT_TRUE(fifo.expand().has_value());
    for (Port port = 1; port < 1024; ++port) {
        ASSERT_TRUE(ev().bind_ipi(0).has_value());
        send(port);
    }
    ev().reset();
}

// ---- threads ------------------------------------------------------------------------------------

// Four senders, one receiver: no event is lost, each sent only after the last was seen. One may
// come twice: an unmask that found it pending sets it once more although it was just taken, as on
// Xen.
TEST_F(Fifo, NothingIsLostAmongThreads) {
    auto fifo = start();
    constexpr unsigned kSenders = 4, kEach = 2000;
    std::array<Port, kSenders> ports{};
    std::array<std::atomic<unsigned>, kSenders> seen{};
    for (unsigned s = 0; s < kSenders; ++s) {
        ports[s] = ipi(1);
    }
    std::vector<std::thread> senders;
    for (unsigned s = 0; s < kSenders; ++s) {
        senders.emplace_back([&, s] {
            for (unsigned n = 0; n < kEach; ++n) {
                ASSERT_TRUE(ev().send(ports[s]).has_value());
                while (seen[s].load() <= n) {
                    std::this_thread::yield();
                }
            }
        });
    }
    // Masks and unmasks, as a guest's handler threads do.
    std::atomic<bool> done{false};
    std::thread masker([&] {
        for (unsigned n = 0; !done; ++n) {
            fifo.mask(ports[n % kSenders]);
            fifo.unmask(ports[n % kSenders]);
            std::this_thread::yield();
        }
    });
    const auto all_seen = [&] {
        return std::all_of(seen.begin(), seen.end(), [](const auto& n) { return n >= kEach; });
    };
    while (!all_seen()) {
        const auto taken = fifo.take(1);
        if (taken.empty()) std::this_thread::yield();
        for (const Port port : taken) {
            const auto s =
                static_cast<unsigned>(std::find(ports.begin(), ports.end(), port) - ports.begin());
            ASSERT_LT(s, kSenders);
            ++seen[s];
        }
    }
    done = true;
    masker.join();
    for (auto& sender : senders) {
        sender.join();
    }
}

// XSA-295, XSA-340, XSA-359, XSA-505 and the interface's trust in nobody: words, heads and ready
// masks rewritten all the time while ports are bound, sent to, unmasked, moved, closed, and all is
// reset and taken up again. Nothing ends in a loop or a report of a sanitizer, and afterwards all
// is as new.
TEST_F(Fifo, AHostileGuestHarmsNobody) {
    TestDomain few(Width::k64, {.max_event_port = 300});
    use(few);
    const auto backend = ev().attach_backend([] {});
    std::atomic<bool> done{false};
    constexpr unsigned kLap = 64;  // turns of all of them
    std::atomic<unsigned> turns{0}, laps{0};
    std::vector<std::thread> threads;
    const auto until_done = [&](auto work) {
        threads.emplace_back([&, work, seed = threads.size() + 1] {
            std::minstd_rand engine(seed);
            const auto random = [&] { return static_cast<std::uint32_t>(engine()); };
            while (!done) {
                work(random);
                if (++turns % kLap == 0) {
                    ++laps;
                    laps.notify_one();
                }
            }
        });
    };
    FifoGuest hostile(few);
    until_done([&](const auto& random) {  // the guest's memory
        for (int n = 0; n < 16; ++n) {
            const auto value = random() * 3;
            hostile.word(random() % 320).store(value);
            hostile.word(random() % 320).fetch_xor(kLinked | kBusy);
            hostile.ready(random() % 2).store(random());
            hostile.head(random() % 2, random() % 16).store(value);
        }
    });
    until_done([&](const auto& random) {  // two vCPUs
        const auto port = ev().bind_ipi(random() % 2);
        if (port) static_cast<void>(ev().set_priority(*port, random() % 17));
        for (int n = 0; n < 8; ++n) {
            static_cast<void>(ev().send(random() % 310));
        }
        if (random() % 4 == 0) static_cast<void>(ev().close(random() % 310));
    });
    until_done([&](const auto& random) {
        const auto a = ev().alloc_unbound(DOMID_SELF);
        if (a) {
            const auto b = ev().bind_interdomain(DOMID_SELF, *a);
            static_cast<void>(ev().bind_vcpu(*a, random() % 2));
            if (b) static_cast<void>(ev().send(*b));
        }
        static_cast<void>(ev().unmask(random() % 310));
        static_cast<void>(ev().pending(random() % 310));
        static_cast<void>(ev().bind_interdomain(0, backend.remote));
    });
    until_done([&](const auto&) {  // backends and timers
        ev().notify(backend.remote);
        ev().raise_virq(VIRQ_TIMER, 0);
        std::this_thread::yield();
    });
    for (unsigned round = 0; round < 100; ++round) {
        FifoGuest fifo(few);
        static_cast<void>(fifo.init(0));
        static_cast<void>(fifo.expand());
        static_cast<void>(fifo.init(1));
        // The end of the lap that they are in, and a whole one.
        for (int n = 0; n < 2; ++n) {
            laps.wait(laps);
        }
        auto step = ev().reset(false, [](Port) { return true; });
        while (step && *step != 0) {
            step = ev().reset(true, [](Port) { return true; });
        }
    }
    done = true;
    for (auto& thread : threads) {
        thread.join();
    }
    ev().reset();
    for (std::uint64_t gfn : {0x4000u, 0x4001u, 0x5000u}) {
        std::memset(few.ports.memory.page(gfn), 0, vmm::kPageSize);
    }
    auto fifo = start();
    const Port a = ipi(0), b = ipi(1);
    EXPECT_EQ(a, 1u);
    send(a);
    send(b);
    EXPECT_EQ(fifo.take(0), (Ports{a}));
    EXPECT_EQ(fifo.take(1), (Ports{b}));
}

}  // namespace
}  // namespace xenshim
