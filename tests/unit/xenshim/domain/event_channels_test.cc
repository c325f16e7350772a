// Event channels, 2-level: what sending does to bitmaps, selectors, masks and upcalls at both
// widths, the life of a port, backends, limits, and nothing lost among threads.
#include "xenshim/domain/event_channels.h"

#include <atomic>
#include <set>
#include <thread>

#include <gtest/gtest.h>

#include "tests/fakes/test_domain.h"

namespace xenshim {
namespace {

using namespace abi;
using fakes::BothWidths;
using fakes::TestDomain;

class Events : public BothWidths {
  protected:
    Events() { use(guest); }
    void use(TestDomain& domain) {
        domain.domain.latch_width(domain.width());
        d = &domain;
    }
    EventChannels& ev() { return d->domain.event_channels(); }
    std::byte* page() { return d->ports.own_page(kSharedInfoPage); }
    const SharedInfoLayout& layout() const {
        return GetParam() == Width::k64 ? kSharedInfo64 : kSharedInfo32;
    }
    // A little-endian bitmap is the same one for either width. Some tests look while others write.
    bool bit(std::uint32_t base, std::uint32_t n) {
        auto& word = *reinterpret_cast<std::uint32_t*>(page() + base + n / 32 * 4);
        return ((std::atomic_ref(word).load() >> (n % 32)) & 1) != 0;
    }
    void put_bit(std::uint32_t base, std::uint32_t n, bool on) {
        const std::uint32_t bits = layout().word_bytes * 8;
        std::byte* word = page() + base + n / bits * layout().word_bytes;
        std::uint64_t value = 0;
        std::memcpy(&value, word, layout().word_bytes);
        value = on ? value | (std::uint64_t{1} << (n % bits))
                   : value & ~(std::uint64_t{1} << (n % bits));
        std::memcpy(word, &value, layout().word_bytes);
    }
    bool pending(Port port) { return bit(layout().evtchn_pending, port); }
    void mask(Port port, bool on = true) { put_bit(layout().evtchn_mask, port, on); }
    bool masked(Port port) { return bit(layout().evtchn_mask, port); }
    std::byte* vcpu_info(unsigned v) { return page() + v * 64; }
    std::uint64_t selector(unsigned v) {
        std::uint64_t value = 0;
        std::memcpy(&value, vcpu_info(v) + layout().pending_sel, layout().word_bytes);
        return value;
    }
    bool upcall_pending(unsigned v) { return vcpu_info(v)[0] != std::byte{0}; }
    // As a guest that has handled everything.
    void clear_events() {
        for (unsigned v = 0; v < d->domain.vcpus(); ++v) {
            vcpu_info(v)[0] = std::byte{0};
            std::memset(vcpu_info(v) + layout().pending_sel, 0, layout().word_bytes);
        }
        std::memset(page() + layout().evtchn_pending, 0, layout().ports / 8);
        d->ports.forget_upcalls();
    }
    Port ipi(unsigned v) {
        const auto port = ev().bind_ipi(v);
        EXPECT_TRUE(port.has_value());
        return *port;
    }

    TestDomain* d = nullptr;
};

XENOLITH_BOTH_WIDTHS(Events);

template <class T>
Errno error_of(const GuestResult<T>& result) {
    EXPECT_FALSE(result.has_value());
    return result.has_value() ? Errno{} : result.error();
}

// ---- delivery -----------------------------------------------------------------------------------

TEST_P(Events, ASentEventSetsPendingSelectorAndUpcall) {
    const Port port = ipi(1);
    ASSERT_TRUE(ev().send(port).has_value());
    EXPECT_TRUE(pending(port));
    EXPECT_EQ(selector(1), 1u << (port / (layout().word_bytes * 8)));
    EXPECT_TRUE(upcall_pending(1));
    EXPECT_EQ(d->ports.upcalls(1), 1u);
    // And nothing of another vCPU.
    EXPECT_EQ(selector(0), 0u);
    EXPECT_FALSE(upcall_pending(0));
    EXPECT_EQ(d->ports.upcalls(0), 0u);
}

TEST_P(Events, TheSelectorNamesTheWordOfThePort) {
    const auto many = fresh({.max_event_port = 4095});
    use(*many);
    const std::uint32_t bits = layout().word_bytes * 8;
    Port last = 0;
    for (Port n = 1; n < 3 * bits; ++n) {
        last = ipi(0);
    }
    clear_events();
    ASSERT_TRUE(ev().send(last).has_value());
    EXPECT_TRUE(pending(last));
    EXPECT_EQ(selector(0), std::uint64_t{1} << (last / bits));
    EXPECT_EQ(last / bits, 2u);
}

TEST_P(Events, AMaskedEventIsPendingOnly) {
    const Port port = ipi(0);
    mask(port);
    ASSERT_TRUE(ev().send(port).has_value());
    EXPECT_TRUE(pending(port));
    EXPECT_EQ(selector(0), 0u);
    EXPECT_FALSE(upcall_pending(0));
    EXPECT_EQ(d->ports.upcalls(0), 0u);
}

TEST_P(Events, UnmaskingDeliversWhatWasPending) {
    const Port port = ipi(1);
    mask(port);
    ASSERT_TRUE(ev().send(port).has_value());
    ASSERT_TRUE(ev().unmask(port).has_value());
    EXPECT_FALSE(masked(port));
    EXPECT_NE(selector(1), 0u);
    EXPECT_TRUE(upcall_pending(1));
    EXPECT_EQ(d->ports.upcalls(1), 1u);
}

TEST_P(Events, UnmaskingWithNothingPendingRaisesNothing) {
    const Port port = ipi(0);
    mask(port);
    ASSERT_TRUE(ev().unmask(port).has_value());
    EXPECT_FALSE(masked(port));
    EXPECT_EQ(d->ports.upcalls(0), 0u);
    EXPECT_FALSE(upcall_pending(0));
}

TEST_P(Events, UnmaskingAnUnmaskedPortRaisesNothingAgain) {
    const Port port = ipi(0);
    ASSERT_TRUE(ev().send(port).has_value());
    d->ports.forget_upcalls();
    ASSERT_TRUE(ev().unmask(port).has_value());
    EXPECT_EQ(d->ports.upcalls(0), 0u);
}

TEST_P(Events, ASecondSendToAPendingPortChangesNothing) {
    const Port port = ipi(0);
    ASSERT_TRUE(ev().send(port).has_value());
    vcpu_info(0)[0] = std::byte{0};
    std::memset(vcpu_info(0) + layout().pending_sel, 0, layout().word_bytes);
    d->ports.forget_upcalls();
    ASSERT_TRUE(ev().send(port).has_value());
    EXPECT_FALSE(upcall_pending(0));
    EXPECT_EQ(selector(0), 0u);
    EXPECT_EQ(d->ports.upcalls(0), 0u);
}

TEST_P(Events, NeighbouringBitsAreLeftAlone) {
    const Port a = ipi(0), b = ipi(0), c = ipi(0);
    mask(a);
    mask(c);
    put_bit(layout().evtchn_pending, c, true);
    ASSERT_TRUE(ev().send(b).has_value());
    EXPECT_FALSE(pending(a));
    EXPECT_TRUE(pending(b));
    EXPECT_TRUE(pending(c));
    EXPECT_TRUE(masked(a));
    EXPECT_FALSE(masked(b));
    EXPECT_TRUE(masked(c));
}

TEST_P(Events, BindVcpuMovesDelivery) {
    const auto port = ev().alloc_unbound(TestDomain::kDomid);
    const auto other = ev().bind_interdomain(DOMID_SELF, *port);
    ASSERT_TRUE(other.has_value());
    clear_events();
    ASSERT_TRUE(ev().bind_vcpu(*port, 1).has_value());
    ASSERT_TRUE(ev().send(*other).has_value());
    EXPECT_TRUE(pending(*port));
    EXPECT_FALSE(pending(*other));
    EXPECT_EQ(d->ports.upcalls(0), 0u);
    EXPECT_EQ(d->ports.upcalls(1), 1u);
}

TEST_P(Events, AVirqGoesToItsOwnVcpusPort) {
    const auto p0 = ev().bind_virq(VIRQ_TIMER, 0), p1 = ev().bind_virq(VIRQ_TIMER, 1);
    ASSERT_TRUE(p0.has_value() && p1.has_value());
    ev().raise_virq(VIRQ_TIMER, 1);
    EXPECT_TRUE(pending(*p1));
    EXPECT_FALSE(pending(*p0));
    EXPECT_TRUE(upcall_pending(1));
    EXPECT_FALSE(upcall_pending(0));
}

TEST_P(Events, AnUnboundVirqRaisesNothing) {
    ev().raise_virq(VIRQ_TIMER, 0);
    EXPECT_FALSE(upcall_pending(0));
    EXPECT_EQ(d->ports.upcalls(0), 0u);
}

TEST_P(Events, MarkAllSetsEverySelectorBitAndRaisesOnce) {
    ev().mark_all(1);
    EXPECT_EQ(selector(1), d->wide() ? ~std::uint64_t{0} : 0xffff'ffffu);
    EXPECT_TRUE(upcall_pending(1));
    EXPECT_EQ(d->ports.upcalls(1), 1u);
    EXPECT_EQ(d->ports.upcalls(0), 0u);
}

// ---- polling ------------------------------------------------------------------------------------

TEST_P(Events, ANewEventWakesPollersAlsoWhenMasked) {
    const Port port = ipi(0);
    mask(port);
    ++ev().pollers;
    ASSERT_TRUE(ev().send(port).has_value());
    EXPECT_EQ(d->ports.wakes(0), 1u);
    EXPECT_EQ(d->ports.wakes(1), 1u);
    --ev().pollers;
}

TEST_P(Events, NobodyIsWokenWithoutPollers) {
    ASSERT_TRUE(ev().send(ipi(0)).has_value());
    EXPECT_EQ(d->ports.wakes(0) + d->ports.wakes(1), 0u);
}

TEST_P(Events, PendingTellsAPollerWhatItWants) {
    const Port port = ipi(0);
    EXPECT_FALSE(*ev().pending(port));
    ASSERT_TRUE(ev().send(port).has_value());
    EXPECT_TRUE(*ev().pending(port));
    EXPECT_EQ(error_of(ev().pending(0)), XEN_EINVAL);
    EXPECT_EQ(error_of(ev().pending(port + 1)), XEN_EINVAL);
    EXPECT_EQ(error_of(ev().pending(99999)), XEN_EINVAL);
    EXPECT_EQ(error_of(ev().pending(~0u)), XEN_EINVAL);
}

// ---- the life of a port -------------------------------------------------------------------------

TEST_P(Events, PortsAreGivenOutLowestFirst) {
    EXPECT_EQ(ipi(0), 1u);
    EXPECT_EQ(ipi(0), 2u);
    EXPECT_EQ(ipi(0), 3u);
    ASSERT_TRUE(ev().close(2).has_value());
    EXPECT_EQ(ipi(0), 2u);
    EXPECT_EQ(ipi(0), 4u);
}

TEST_P(Events, ClosingClearsThePendingBit) {
    const Port port = ipi(0);
    ASSERT_TRUE(ev().send(port).has_value());
    ASSERT_TRUE(ev().close(port).has_value());
    EXPECT_FALSE(pending(port));
    EXPECT_EQ(error_of(ev().close(port)), XEN_EINVAL);
    EXPECT_EQ(error_of(ev().send(port)), XEN_EINVAL);
}

TEST_P(Events, ClosingOneLoopbackEndMakesTheOtherUnbound) {
    const Port a = *ev().alloc_unbound(DOMID_SELF);
    const Port b = *ev().bind_interdomain(DOMID_SELF, a);
    ASSERT_TRUE(ev().close(b).has_value());
    const auto status = ev().status(a);
    EXPECT_EQ(status->status, EVTCHNSTAT_unbound);
    EXPECT_EQ(status->u[0], TestDomain::kDomid);
    // Anybody of this domain may bind to it again.
    EXPECT_EQ(*ev().bind_interdomain(TestDomain::kDomid, a), b);
}

TEST_P(Events, ALoopbackCarriesEventsBothWays) {
    const Port a = *ev().alloc_unbound(DOMID_SELF);
    const Port b = *ev().bind_interdomain(DOMID_SELF, a);
    EXPECT_TRUE(pending(b));  // one that might have been missed
    clear_events();
    ASSERT_TRUE(ev().send(a).has_value());
    EXPECT_TRUE(pending(b));
    EXPECT_FALSE(pending(a));
    clear_events();
    ASSERT_TRUE(ev().send(b).has_value());
    EXPECT_TRUE(pending(a));
    EXPECT_FALSE(pending(b));
}

TEST_P(Events, AVirqCanBeBoundAgainAfterItsPortIsClosed) {
    const Port port = *ev().bind_virq(VIRQ_TIMER, 1);
    EXPECT_EQ(error_of(ev().bind_virq(VIRQ_TIMER, 1)), XEN_EEXIST);
    ASSERT_TRUE(ev().close(port).has_value());
    EXPECT_EQ(*ev().bind_virq(VIRQ_TIMER, 1), port);
}

// Xen's close looks for the port among all vCPUs' VIRQs: a global one may have been moved.
TEST_P(Events, AGlobalVirqThatWasMovedCanBeBoundAgainAfterClose) {
    constexpr std::uint32_t kDomExc = 3;
    const Port port = *ev().bind_virq(kDomExc, 0);
    ASSERT_TRUE(ev().bind_vcpu(port, 1).has_value());
    ASSERT_TRUE(ev().close(port).has_value());
    const auto again = ev().bind_virq(kDomExc, 0);
    ASSERT_TRUE(again.has_value()) << "still taken by a port that is closed";
    EXPECT_EQ(*again, port);
}

TEST_P(Events, AMovedGlobalVirqLeavesNoTraceOnItsPortsNextUser) {
    constexpr std::uint32_t kDomExc = 3;
    const Port port = *ev().bind_virq(kDomExc, 0);
    ASSERT_TRUE(ev().bind_vcpu(port, 1).has_value());
    ASSERT_TRUE(ev().close(port).has_value());
    ASSERT_EQ(*ev().alloc_unbound(0), port);
    ev().raise_virq(kDomExc, 0);
    EXPECT_FALSE(pending(port)) << "somebody else's event";
}

TEST_P(Events, ResetClosesEverything) {
    const Port a = *ev().alloc_unbound(DOMID_SELF);
    const Port b = *ev().bind_interdomain(DOMID_SELF, a);
    const Port c = *ev().bind_virq(VIRQ_TIMER, 0);
    const Port e = *ev().bind_pirq(5);
    const Port f = ipi(1);
    for (const Port port : {a, b, c, e, f}) {
        put_bit(layout().evtchn_pending, port, true);
    }
    ev().reset();
    for (const Port port : {a, b, c, e, f}) {
        EXPECT_EQ(ev().status(port)->status, EVTCHNSTAT_closed) << port;
        EXPECT_FALSE(pending(port)) << port;
    }
    EXPECT_EQ(*ev().bind_virq(VIRQ_TIMER, 0), 1u);
    EXPECT_EQ(*ev().bind_pirq(5), 2u);
}

TEST_P(Events, StatusTellsEachKind) {
    const Port unbound = *ev().alloc_unbound(7);
    EXPECT_EQ(ev().status(unbound)->status, EVTCHNSTAT_unbound);
    EXPECT_EQ(ev().status(unbound)->u[0], 7u);
    const Port timer = *ev().bind_virq(VIRQ_TIMER, 1);
    EXPECT_EQ(ev().status(timer)->status, EVTCHNSTAT_virq);
    EXPECT_EQ(ev().status(timer)->vcpu, 1u);
    EXPECT_EQ(ev().status(timer)->u[0], std::uint32_t{VIRQ_TIMER});
    const Port pirq = *ev().bind_pirq(17);
    EXPECT_EQ(ev().status(pirq)->status, EVTCHNSTAT_pirq);
    EXPECT_EQ(ev().status(pirq)->u[0], 17u);
    const Port other = ipi(1);
    EXPECT_EQ(ev().status(other)->status, EVTCHNSTAT_ipi);
    EXPECT_EQ(ev().status(other)->vcpu, 1u);
    EXPECT_EQ(ev().status(0)->status, EVTCHNSTAT_closed);
    EXPECT_EQ(error_of(ev().status(~0u)), XEN_EINVAL);
}

TEST_P(Events, StatusOfALoopbackNamesThisDomainByItsNumber) {
    const Port a = *ev().alloc_unbound(DOMID_SELF);
    EXPECT_EQ(ev().status(a)->u[0], TestDomain::kDomid);
    const Port b = *ev().bind_interdomain(DOMID_SELF, a);
    EXPECT_EQ(ev().status(a)->status, EVTCHNSTAT_interdomain);
    EXPECT_EQ(ev().status(a)->u, (std::array<std::uint32_t, 2>{TestDomain::kDomid, b}));
    EXPECT_EQ(ev().status(b)->u, (std::array<std::uint32_t, 2>{TestDomain::kDomid, a}));
}

// ---- limits -------------------------------------------------------------------------------------

TEST_P(Events, MaxPortIsTheLastOneAndThenENOSPC) {
    const auto few = fresh({.max_event_port = 5});
    use(*few);
    for (Port port = 1; port <= 5; ++port) {
        EXPECT_EQ(ipi(0), port);
    }
    EXPECT_EQ(error_of(ev().bind_ipi(0)), XEN_ENOSPC);
    EXPECT_EQ(error_of(ev().alloc_unbound(0)), XEN_ENOSPC);
    EXPECT_EQ(error_of(ev().bind_virq(VIRQ_TIMER, 0)), XEN_ENOSPC);
    EXPECT_EQ(error_of(ev().bind_pirq(1)), XEN_ENOSPC);
    ASSERT_TRUE(ev().close(3).has_value());
    EXPECT_EQ(ipi(0), 3u);
}

TEST_P(Events, TheBitmapsWidthIsALimitToo) {
    const auto many = fresh({.max_event_port = 1'000'000});
    use(*many);
    Port last = 0;
    for (auto port = ev().bind_ipi(0); port.has_value(); port = ev().bind_ipi(0)) {
        last = *port;
    }
    EXPECT_EQ(last, layout().ports - 1);
    EXPECT_EQ(error_of(ev().bind_ipi(0)), XEN_ENOSPC);
    ASSERT_TRUE(ev().send(last).has_value());
    EXPECT_TRUE(pending(last));
    EXPECT_EQ(selector(0) >> (layout().word_bytes * 8 - 1), 1u);
    // And nothing beyond the bitmap was touched.
    EXPECT_FALSE(masked(0));
}

// A failed bind leaves no port behind.
TEST_P(Events, RefusedBindsTakeNoPort) {
    EXPECT_EQ(error_of(ev().bind_interdomain(DOMID_SELF, 0)), XEN_EINVAL);
    EXPECT_EQ(error_of(ev().bind_interdomain(DOMID_SELF, 9)), XEN_EINVAL);
    EXPECT_EQ(error_of(ev().bind_interdomain(DOMID_SELF, ~0u)), XEN_EINVAL);
    EXPECT_EQ(error_of(ev().bind_interdomain(0, 1)), XEN_EINVAL);
    EXPECT_EQ(error_of(ev().bind_interdomain(1000, 1)), XEN_ESRCH);
    EXPECT_EQ(error_of(ev().bind_ipi(2)), XEN_ENOENT);
    EXPECT_EQ(error_of(ev().bind_virq(24, 0)), XEN_EINVAL);
    EXPECT_EQ(error_of(ev().bind_virq(VIRQ_TIMER, 2)), XEN_ENOENT);
    EXPECT_EQ(error_of(ev().bind_pirq(48)), XEN_EINVAL);
    EXPECT_EQ(ipi(0), 1u);
}

// A guest that had many ports at 64 bits and then latches 32: what is done to a port that no
// longer fits the bitmaps must not reach into what lies behind them.
// XSA-338: ports that there were no longer are, for whoever still uses them.
TEST(EventsAfterALatch, PortsBeyondTheNarrowBitmapTouchNothing) {
    TestDomain guest(Width::k64, {.max_event_port = 4095});
    guest.domain.latch_width(Width::k64);
    EventChannels& ev = guest.domain.event_channels();
    for (Port port = 1; port < 4096; ++port) {
        ASSERT_TRUE(ev.bind_ipi(0).has_value());
    }
    guest.domain.latch_width(Width::k32);
    std::byte* page = guest.ports.own_page(kSharedInfoPage);
    std::memset(page + kSharedInfo32.evtchn_pending, 0xff, vmm::kPageSize - 2048);
    for (Port port = 1024; port < 4096; ++port) {
        ASSERT_TRUE(ev.send(port).has_value());
        ASSERT_TRUE(ev.close(port).has_value());
    }
    for (std::size_t at = kSharedInfo32.evtchn_mask; at < vmm::kPageSize; ++at) {
        ASSERT_EQ(page[at], std::byte{0xff}) << "offset " << at;
    }
}

// ---- backends -----------------------------------------------------------------------------------

TEST_P(Events, ABackendHearsSendsAndNotifies) {
    unsigned heard = 0;
    const auto backend = ev().attach_backend([&] { ++heard; });
    EXPECT_EQ(backend.local, 1u);
    EXPECT_EQ(ev().status(backend.local)->status, EVTCHNSTAT_interdomain);
    EXPECT_EQ(ev().status(backend.local)->u, (std::array<std::uint32_t, 2>{0, backend.remote}));
    ASSERT_TRUE(ev().send(backend.local).has_value());
    EXPECT_EQ(heard, 1u);
    EXPECT_FALSE(pending(backend.local));  // a send concerns the other end only
    ev().notify(backend.remote);
    EXPECT_TRUE(pending(backend.local));
    EXPECT_EQ(d->ports.upcalls(0), 1u);
    EXPECT_EQ(heard, 1u);
}

// XSA-441: nothing is held while somebody is told, so that nobody can wait for himself.
TEST_P(Events, ABackendsHookMayNotifyFromInside) {
    EventChannels::BackendPort backend;
    backend = ev().attach_backend([&] { ev().notify(backend.remote); });
    ASSERT_TRUE(ev().send(backend.local).has_value());
    EXPECT_TRUE(pending(backend.local));
    // Not even a close of the very port has to wait for the end of what it caused.
    EventChannels::BackendPort closing;
    closing = ev().attach_backend([&] { EXPECT_TRUE(ev().close(closing.local).has_value()); });
    ASSERT_TRUE(ev().send(closing.local).has_value());
    EXPECT_EQ(ev().status(closing.local)->status, EVTCHNSTAT_closed);
}

// Measured: after a reset the old ports are closed, and binding to the same remote ports gives new
// local ones, with the store's remote port as before.
TEST_P(Events, BackendsCanBeBoundAgainAfterReset) {
    unsigned heard = 0;
    const auto store = ev().attach_backend([] {});
    const auto console = ev().attach_backend([&] { ++heard; });
    ASSERT_EQ(console.local, 2u);
    ev().reset();
    EXPECT_EQ(ev().status(console.local)->status, EVTCHNSTAT_closed);
    ev().notify(console.remote);  // nobody there: lost, and harmless
    EXPECT_EQ(d->ports.upcalls(0), 0u);

    const auto again = ev().bind_interdomain(0, console.remote);
    ASSERT_TRUE(again.has_value());
    EXPECT_EQ(*again, 1u);
    EXPECT_TRUE(pending(*again));
    EXPECT_EQ(error_of(ev().bind_interdomain(0, console.remote)), XEN_EINVAL);
    clear_events();
    ASSERT_TRUE(ev().send(*again).has_value());
    EXPECT_EQ(heard, 1u);
    ev().notify(console.remote);
    EXPECT_TRUE(pending(*again));
    EXPECT_TRUE(ev().bind_interdomain(0, store.remote).has_value());
}

TEST_P(Events, ClosingABackendsPortMakesItBindableOnly) {
    const auto backend = ev().attach_backend([] {});
    ASSERT_TRUE(ev().close(backend.local).has_value());
    ev().notify(backend.remote);
    EXPECT_FALSE(pending(backend.local));
    EXPECT_TRUE(ev().bind_interdomain(0, backend.remote).has_value());
}

// ---- threads ------------------------------------------------------------------------------------

// Four senders, one receiver that works like a guest: no event may be lost. Each sender sends only
// after its last event was seen, so the number of events is exact.
TEST_P(Events, NothingIsLostAmongThreads) {
    constexpr unsigned kSenders = 4, kEach = 2000;
    std::array<Port, kSenders> ports{};
    for (Port& port : ports) {
        port = ipi(1);
    }
    std::array<std::atomic<unsigned>, kSenders> seen{};
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
    const auto word = [](std::byte* at) {
        return std::atomic_ref<std::uint32_t>(*reinterpret_cast<std::uint32_t*>(at));
    };
    auto upcall = std::atomic_ref<std::uint8_t>(*reinterpret_cast<std::uint8_t*>(vcpu_info(1)));
    unsigned total = 0;
    while (total < kSenders * kEach) {
        // As a guest's upcall handler: the flag, the selector, the words, each taken atomically.
        if (upcall.exchange(0) == 0) {
            std::this_thread::yield();
            continue;
        }
        const auto selected = word(vcpu_info(1) + layout().pending_sel).exchange(0);
        ASSERT_LE(selected, 1u);  // all ports lie in the first word
        if (selected == 0) continue;
        const auto bits = word(page() + layout().evtchn_pending).load();
        for (unsigned s = 0; s < kSenders; ++s) {
            const std::uint32_t mine = 1u << ports[s];
            if ((bits & mine) == 0) continue;
            word(page() + layout().evtchn_pending).fetch_and(~mine);
            ++total;
            ++seen[s];
        }
    }
    for (auto& sender : senders) {
        sender.join();
    }
    EXPECT_EQ(total, kSenders * kEach);
    EXPECT_GE(d->ports.upcalls(1), kEach);
}

// Ports that come and go while others send, close, bind and look: for the thread sanitizer, and
// the table must be consistent afterwards.
TEST_P(Events, ATableUnderFireStaysConsistent) {
    const auto backend = ev().attach_backend([] {});
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            for (unsigned n = 0; n < 500; ++n) {
                const auto a = ev().alloc_unbound(DOMID_SELF);
                if (!a) continue;
                const auto b = ev().bind_interdomain(DOMID_SELF, *a);
                if (b) {
                    static_cast<void>(ev().send(*b));
                    static_cast<void>(ev().bind_vcpu(*b, t % 2));
                    static_cast<void>(ev().unmask(*a));
                    static_cast<void>(ev().close(*b));
                }
                ev().notify(backend.remote);
                static_cast<void>(ev().pending(*a));
                static_cast<void>(ev().status(*a));
                static_cast<void>(ev().close(*a));
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    for (Port port = 2; port < 64; ++port) {
        EXPECT_EQ(ev().status(port)->status, EVTCHNSTAT_closed) << port;
        EXPECT_FALSE(pending(port)) << port;
    }
    EXPECT_EQ(ipi(0), 2u);
}

// XSA-331: the guest closes and binds its end while it is being sent to and notified.
TEST_P(Events, Xsa331AnEndThatGoesWhileItIsUsed) {
    std::atomic<unsigned> heard{0}, sent{0};
    const auto backend = ev().attach_backend([&] { ++heard; });
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    threads.emplace_back([&] {
        while (!stop) {
            ev().notify(backend.remote);
        }
    });
    threads.emplace_back([&] {
        while (!stop) {
            for (Port port = 1; port < 4; ++port) {
                if (ev().send(port)) ++sent;
            }
        }
    });
    Port end = backend.local;
    unsigned rounds = 0;
    for (; rounds < 2000; ++rounds) {
        if (!ev().close(end)) break;
        // Whoever gets the number next gets nothing that was meant for this one.
        const auto other = ev().alloc_unbound(1000);
        const auto again = ev().bind_interdomain(0, backend.remote);
        if (!other || !again || pending(*other) || !ev().close(*other)) break;
        end = *again;
    }
    stop = true;
    for (auto& thread : threads) {
        thread.join();
    }
    EXPECT_EQ(rounds, 2000u);
    EXPECT_LE(heard, sent);
    clear_events();
    ev().notify(backend.remote);
    EXPECT_TRUE(pending(end));
}

}  // namespace
}  // namespace xenshim
