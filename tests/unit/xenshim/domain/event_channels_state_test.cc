// The state of the event channels: bytes, domains that go on as if nothing had been, and states
// that no domain can have.
#include <concepts>
#include <random>

#include <gtest/gtest.h>

#include "tests/fakes/fifo_guest.h"
#include "tests/fakes/saved_checks.h"
#include "tests/fakes/saved_domain.h"

namespace xenshim {
namespace {

using namespace abi;
using fakes::expect_refused;
using fakes::expect_same;
using ::fakes::expect_saved;
using fakes::FakePorts;
using fakes::FifoGuest;
using fakes::move_domain;
using fakes::save;
using fakes::TestDomain;

TEST(EventChannelsState, ComesBack) {
    EventChannelsState two_level{.buckets = 2, .reset_next = 64, .backends = 2};
    two_level.channels[1] = {.status = 2, .remote_port = 1};
    two_level.channels[5] = {.status = 1, .vcpu = 3, .remote_domid = 7};
    two_level.channels[64] = {.status = 4, .vcpu = 1, .source = 2};
    two_level.channels[127] = {.status = 3, .source = 47};
    expect_saved(two_level, "xen.event_channels-2level");

    EventChannelsState fifo{.buckets = 2048, .reset_next = 0, .backends = 0};
    fifo.channels[9] = {.status = 0, .last_priority = 15, .last_vcpu = 0x1ff};
    fifo.channels[131071] = {.status = 5, .vcpu = 0x100, .priority = 7, .waits_for_word = true};
    fifo.fifo = {.vcpus = {{.block = 0x1234'5008, .tails = {}}, {}}, .array = {0x5000, 0x7fff}};
    fifo.fifo->vcpus[0].tails = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 2047};
    expect_saved(fifo, "xen.event_channels-fifo");
}

// ---- domains that go on -------------------------------------------------------------------------

constexpr unsigned kVcpus = 3;

// A domain with backends, and what a guest does on it. All that it answers is written down.
class Player {
  public:
    Player(Width width, bool fifo)
        : d(width, {.vcpus = kVcpus, .max_event_port = 2000}),
          guest(std::in_place, d, 64),
          uses_fifo(fifo) {
        for (unsigned i = 0; i < kBackends; ++i) {
            remotes.push_back(ev().attach_backend([this, i] { say(1000 + i); }).remote);
        }
    }
    void begin() {
        d.domain.latch_width(d.width());
        if (uses_fifo) say(guest->init(0));
    }
    // Takes over from `other`, which stays as it is.
    void continue_from(Player& other) {
        move_domain(other.d, d);
        guest.emplace(d, *other.guest);
        said = other.said;
    }

    void step(unsigned choice, std::uint32_t a, std::uint32_t b) {
        const Port port = a % 150;
        const unsigned vcpu = b % (kVcpus + 1), in = b % kVcpus;
        switch (choice) {
            case 0: say(ev().alloc_unbound(b % 2 == 0 ? TestDomain::kDomid : 9)); return;
            case 1: say(ev().bind_interdomain(DOMID_SELF, port)); return;
            case 2: say(ev().bind_interdomain(0, a % (kBackends + 2))); return;
            case 3: say(ev().bind_virq(a % NR_VIRQS, vcpu)); return;
            case 4: say(ev().bind_pirq(a % 50)); return;
            case 5: say(ev().bind_ipi(vcpu)); return;
            case 6: say(ev().close(port)); return;
            case 7: say(ev().bind_vcpu(port, vcpu)); return;
            case 8: say(ev().unmask(port)); return;
            case 9: ev().notify(remotes[a % kBackends]); return;
            case 10: ev().raise_virq(a % NR_VIRQS, in); return;
            case 11: say(ev().pending(port)); return;
            case 12:
                if (const auto status = ev().status(port)) {
                    for (const std::uint32_t word :
                         {status->status, status->vcpu, status->u[0], status->u[1]}) {
                        say(word);
                    }
                } else {
                    say(status.error());
                }
                return;
            case 13: say(ev().set_priority(port, b % 17)); return;
            case 14:
                if (!ev().is_fifo()) return mask(port);
                if (port / kFifoWordsPerPage < pages) guest->mask(port);
                return;
            case 15:
                if (!ev().is_fifo()) return;
                for (const Port taken : guest->take(in)) {
                    say(taken);
                }
                return;
            case 16:
                if (!uses_fifo || b % 4 != 0) return;
                say(guest->init(in));
                return;
            case 17:
                if (!ev().is_fifo() || b % 4 != 0 || pages == 2) return;
                say(guest->expand());
                ++pages;
                return;
            case 18:
                // Rarely, and then only so far: most of what a domain holds is there.
                if (b % 16 == 0) say(ev().reset(a % 2 == 0, [&](Port at) { return at > a % 300; }));
                return;
            default: say(ev().send(port)); return;
        }
    }
    static constexpr unsigned kChoices = 26;  // sending is what happens most

    void say(const GuestResult<void>& result) { say(result ? 0 : result.error()); }
    template <std::integral T>
    void say(const GuestResult<T>& result) {
        say(result ? 0 : result.error());
        if (result) say(static_cast<std::uint32_t>(*result));
    }
    void say(std::uint32_t word) { said.push_back(word); }
    void mask(Port port) {
        const auto* layout = d.domain.shared_info().layout();
        d.ports.own_page(kSharedInfoPage)[layout->evtchn_mask + port / 8] |= std::byte{1}
                                                                             << (port % 8);
    }
    std::vector<unsigned> upcalls() {
        std::vector<unsigned> counts;
        for (unsigned v = 0; v < kVcpus; ++v) {
            counts.push_back(d.ports.upcalls(v));
        }
        return counts;
    }
    EventChannels& ev() { return d.domain.event_channels(); }

    static constexpr unsigned kBackends = 3;
    TestDomain d;
    std::optional<FifoGuest> guest;
    const bool uses_fifo;
    unsigned pages = 0;
    std::vector<Port> remotes;
    std::vector<std::uint32_t> said;
};

class MovedPorts : public testing::TestWithParam<std::tuple<Width, bool>> {};

INSTANTIATE_TEST_SUITE_P(, MovedPorts,
                         testing::Combine(testing::Values(Width::k32, Width::k64),
                                          testing::Values(false, true)),
                         [](const auto& named) {
                             return std::string(std::get<0>(named.param) == Width::k64 ? "W64"
                                                                                       : "W32") +
                                    (std::get<1>(named.param) ? "Fifo" : "TwoLevel");
                         });

TEST_P(MovedPorts, GoOnAsTheyWould) {
    const auto [width, fifo] = GetParam();
    for (unsigned seed = 0; seed < 30; ++seed) {
        std::minstd_rand random(seed);
        auto stayed = std::make_unique<Player>(width, fifo);
        stayed->begin();
        const auto play = [&](Player* a, Player* b, unsigned steps) {
            for (unsigned i = 0; i < steps; ++i) {
                const auto choice = static_cast<unsigned>((random() >> 3) % Player::kChoices);
                const auto x = static_cast<std::uint32_t>(random() >> 3);
                const auto y = static_cast<std::uint32_t>(random() >> 3);
                a->step(choice, x, y);
                if (b != nullptr) b->step(choice, x, y);
            }
        };
        play(stayed.get(), nullptr, static_cast<unsigned>(40 + random() % 400));
        // There, and from there on once more.
        for (unsigned move = 0; move < 2; ++move) {
            auto moved = std::make_unique<Player>(width, fifo);
            moved->pages = stayed->pages;
            moved->continue_from(*stayed);
            stayed->d.ports.forget_upcalls();
            moved->d.ports.forget_upcalls();
            play(stayed.get(), moved.get(), 400);
            ASSERT_EQ(moved->said, stayed->said) << seed;
            EXPECT_EQ(moved->upcalls(), stayed->upcalls()) << seed;
            expect_same(save(moved->d.domain), save(stayed->d.domain));
            for (const std::uint64_t first : {FifoGuest::kControlGfn, FifoGuest::kArrayGfn}) {
                for (unsigned page = 0; page < kVcpus; ++page) {
                    const vmm::Gva at{(first + page) << vmm::kPageShift};
                    EXPECT_EQ(moved->d.bytes(at, vmm::kPageSize),
                              stayed->d.bytes(at, vmm::kPageSize))
                        << seed;
                }
            }
            if (HasFailure()) return;
            stayed = std::move(moved);
        }
    }
}

// A queue with something on it, half of which the guest has taken.
TEST(MovedFifo, KeepsTheOrderOfAQueue) {
    TestDomain a(Width::k64), b(Width::k64);
    EventChannels& ev = a.domain.event_channels();
    FifoGuest guest(a);
    ASSERT_TRUE(guest.init(0));
    ASSERT_TRUE(guest.expand());
    std::vector<Port> ports;
    for (unsigned i = 0; i < 6; ++i) {
        ports.push_back(*ev.bind_ipi(0));
    }
    for (const unsigned i : {3, 1, 5}) {
        ASSERT_TRUE(ev.send(ports[i]));
    }
    move_domain(a, b);
    FifoGuest there(b, guest);
    for (const unsigned i : {0, 2}) {
        ASSERT_TRUE(b.domain.event_channels().send(ports[i]));
    }
    EXPECT_EQ(there.take(0), (std::vector<Port>{ports[3], ports[1], ports[5], ports[0], ports[2]}));
    EXPECT_EQ(b.ports.upcalls(0), 0u);  // it was told before it moved
}

// The guest gave back what it had registered: what is there goes on being used, or nothing is.
TEST(MovedFifo, PagesThatTheGuestGaveBack) {
    constexpr std::uint64_t kOutside = TestDomain::kHoleGfn;
    TestDomain a(Width::k64), b(Width::k64);
    Physmap& map = a.domain.physmap();
    EventChannels& ev = a.domain.event_channels();
    ASSERT_TRUE(map.populate(kOutside, 2));
    ASSERT_TRUE(ev.init_control(0, 0, a.domain.named_page(kOutside)));
    ASSERT_TRUE(ev.init_control(1, 8, a.domain.named_page(TestDomain::kRamGfn)));
    ASSERT_TRUE(ev.expand_array(a.domain.named_page(TestDomain::kRamGfn + 1)));
    ASSERT_TRUE(ev.expand_array(a.domain.named_page(kOutside + 1)));
    const Port first = *ev.bind_ipi(0), second = *ev.bind_ipi(1);
    ASSERT_TRUE(map.decrease(TestDomain::kRamGfn));
    ASSERT_TRUE(map.decrease(kOutside));
    ASSERT_TRUE(ev.send(second));
    move_domain(a, b);
    EventChannels& moved = b.domain.event_channels();
    ASSERT_TRUE(moved.send(first));
    EXPECT_EQ(moved.pending(first).value_or(false), true);
    EXPECT_EQ(moved.pending(second).value_or(false), true);
    // Nothing was written where the page outside had been, nor anywhere else that can be seen.
    EXPECT_FALSE(b.domain.physmap().is_mapped(kOutside));
    EXPECT_TRUE(b.domain.physmap().populate(kOutside));
    EXPECT_EQ(b.get<std::uint64_t>({kOutside << vmm::kPageShift}), 0u);
    EXPECT_EQ(b.bytes({(kOutside + 1) << vmm::kPageShift}, vmm::kPageSize),
              std::vector<std::byte>(vmm::kPageSize));
}

// A reset that stopped goes on where it was, and others hear -EBUSY until then.
TEST(MovedEvents, AResetThatStopped) {
    TestDomain a(Width::k64), b(Width::k64);
    EventChannels& ev = a.domain.event_channels();
    for (unsigned i = 0; i < 200; ++i) {
        ASSERT_TRUE(ev.bind_ipi(0));
    }
    const auto stopped = ev.reset(false, [](Port at) { return at >= 128; });
    ASSERT_TRUE(stopped);
    ASSERT_EQ(*stopped, 128u);
    move_domain(a, b);
    EventChannels& moved = b.domain.event_channels();
    EXPECT_EQ(moved.status(127)->status, EVTCHNSTAT_closed);
    EXPECT_EQ(moved.status(128)->status, EVTCHNSTAT_ipi);
    const auto never = [](Port) { return false; };
    const auto again = moved.reset(false, never);
    ASSERT_FALSE(again);
    EXPECT_EQ(again.error(), XEN_EBUSY);
    EXPECT_EQ(moved.reset(true, never).value_or(99), 0u);
    EXPECT_EQ(moved.status(128)->status, EVTCHNSTAT_closed);
}

// It stands in the row of vCPU 0, which bound it, and is delivered to another.
TEST(MovedEvents, AGlobalVirqThatTheGuestMoved) {
    constexpr std::uint32_t kDomExc = 3;
    TestDomain a(Width::k64), b(Width::k64);
    const Port port = *a.domain.event_channels().bind_virq(kDomExc, 0);
    ASSERT_TRUE(a.domain.event_channels().bind_vcpu(port, 1));
    move_domain(a, b);
    EventChannels& moved = b.domain.event_channels();
    moved.raise_virq(kDomExc, 0);
    EXPECT_EQ(b.ports.upcalls(0), 0u);
    EXPECT_EQ(b.ports.upcalls(1), 1u);
    const auto again = moved.bind_virq(kDomExc, 0);
    ASSERT_FALSE(again);
    EXPECT_EQ(again.error(), XEN_EEXIST);
}

// Backends know their remote ports only: whatever the guest bound to them is what they reach.
TEST(MovedEvents, BackendsReachWhatTheGuestBound) {
    unsigned heard_a = 0, heard_b = 0;
    TestDomain a(Width::k64), b(Width::k64);
    const auto there = a.domain.event_channels().attach_backend([&] { ++heard_a; });
    const auto here = b.domain.event_channels().attach_backend([&] { ++heard_b; });
    ASSERT_EQ(there.remote, here.remote);
    EventChannels& ev = a.domain.event_channels();
    ASSERT_TRUE(ev.bind_ipi(0));
    ASSERT_TRUE(ev.close(there.local));
    for (unsigned i = 0; i < 5; ++i) {
        ASSERT_TRUE(ev.bind_ipi(0));  // the first takes the place of the backend's
    }
    const Port other = *ev.bind_interdomain(0, there.remote);
    ASSERT_NE(other, there.local);
    move_domain(a, b);
    EventChannels& moved = b.domain.event_channels();
    b.domain.shared_info().clear_pending(other);
    moved.notify(here.remote);
    EXPECT_EQ(moved.pending(other).value_or(false), true);
    ASSERT_TRUE(moved.send(other));
    EXPECT_EQ(heard_a, 0u);
    EXPECT_EQ(heard_b, 1u);
}

// ---- states that no domain can have -------------------------------------------------------------

class HostileEvents : public testing::Test {
  protected:
    HostileEvents() {
        for (EventChannels* channels : {&ev(), &full.domain.event_channels()}) {
            channels->attach_backend({});
        }
        EventChannels& from = full.domain.event_channels();
        EXPECT_EQ(*from.bind_ipi(1), 2u);
        EXPECT_EQ(*from.alloc_unbound(TestDomain::kDomid), 3u);
        EXPECT_EQ(*from.bind_interdomain(DOMID_SELF, 3), 4u);
        EXPECT_EQ(*from.bind_virq(VIRQ_TIMER, 1), 5u);
        EXPECT_EQ(*from.bind_pirq(7), 6u);
        EXPECT_EQ(*from.alloc_unbound(9), 7u);
        good = from.snapshot();
        EXPECT_TRUE(from.init_control(1, 8, full.domain.named_page(0x4000)));
        EXPECT_TRUE(from.expand_array(full.domain.named_page(0x5000)));
        EXPECT_TRUE(from.send(2));
        fifo = from.snapshot();
    }
    EventChannels& ev() { return fresh.domain.event_channels(); }
    template <class Spoil>
    void refuse(const char* reason, Spoil&& spoil) {
        refuse(good, reason, spoil);
    }
    template <class Spoil>
    void refuse_fifo(const char* reason, Spoil&& spoil) {
        refuse(fifo, reason, spoil);
    }
    template <class Spoil>
    void refuse(EventChannelsState state, const char* reason, Spoil&& spoil) {
        spoil(state);
        expect_refused(ev(), state, reason);
    }

    TestDomain fresh{Width::k64, {.vcpus = 3, .max_event_port = 200}};
    TestDomain full{Width::k64, {.vcpus = 3, .max_event_port = 200}};
    EventChannelsState good, fifo;
};

TEST_F(HostileEvents, WhatTheTestsBeginWithIsTaken) {
    EXPECT_TRUE(ev().adopt(good));
    EXPECT_EQ(ev().snapshot(), good);
    EXPECT_TRUE(ev().adopt(fifo));
    EXPECT_EQ(ev().snapshot(), fifo);
}

TEST_F(HostileEvents, TheTable) {
    using S = EventChannelsState;
    refuse("buckets: 0", [](S& s) { s.buckets = 0; });
    refuse("buckets: 5", [](S& s) { s.buckets = 5; });
    refuse("buckets: 4294967295", [](S& s) { s.buckets = UINT32_MAX; });
    refuse("reset_next: ", [](S& s) { s.reset_next = 1; });
    refuse("reset_next: ", [](S& s) { s.reset_next = 64; });
    refuse("reset_next: ", [](S& s) { s.reset_next = 0xffff'ffc0; });
    refuse("backends: 0", [](S& s) { s.backends = 0; });
    refuse("backends: 2", [](S& s) { s.backends = 2; });
}

TEST_F(HostileEvents, AChannel) {
    using S = EventChannelsState;
    refuse("channels: port 0: is not in the table", [](S& s) { s.channels[0] = {.status = 5}; });
    refuse("channels: port 64: is not in the table", [](S& s) { s.channels[64] = {.status = 5}; });
    refuse("channels: port 4294967295: is not", [](S& s) { s.channels[UINT32_MAX].status = 5; });
    refuse("channels: port 201: status: beyond", [](S& s) {
        s.buckets = 4;
        s.channels[201] = {.status = 5};
    });
    refuse("channels: port 2: status: ", [](S& s) { s.channels[2].status = 6; });
    refuse("channels: port 2: vcpu: ", [](S& s) { s.channels[2].vcpu = 3; });
    refuse("channels: port 2: remote_domid: ", [](S& s) { s.channels[2].remote_domid = 1; });
    refuse("channels: port 2: remote_port: ", [](S& s) { s.channels[2].remote_port = 1; });
    refuse("channels: port 2: source: ", [](S& s) { s.channels[2].source = 1; });
    refuse("channels: port 5: source: ", [](S& s) { s.channels[5].source = NR_VIRQS; });
    refuse("channels: port 6: source: ", [](S& s) { s.channels[6].source = 48; });
    refuse("channels: port 7: remote_port: ", [](S& s) { s.channels[7].remote_port = 3; });
    // A pair of ports, and one that is alone.
    refuse("channels: port 3: remote_port: ", [](S& s) { s.channels[3].remote_port = 3; });
    refuse("channels: port 3: remote_port: ", [](S& s) { s.channels[3].remote_port = 2; });
    refuse("channels: port 3: remote_port: ", [](S& s) { s.channels.erase(4); });
    refuse("channels: port 3: remote_port: ", [](S& s) { s.channels[4].remote_port = 2; });
    refuse("channels: port 1: remote_port: ", [](S& s) { s.channels[1].remote_port = 2; });
    refuse("channels: port 1: remote_port: ", [](S& s) { s.channels[1].remote_domid = 5; });
    // Bound twice.
    refuse("channels: port 9: what", [](S& s) { s.channels[9] = s.channels[1]; });
    refuse("channels: port 9: what", [](S& s) { s.channels[9] = s.channels[5]; });
    refuse("channels: port 9: what", [](S& s) { s.channels[9] = s.channels[6]; });
    refuse("channels: port 10: what", [](S& s) {
        s.channels[9] = {.status = EVTCHNSTAT_virq, .vcpu = 0, .source = 4};
        s.channels[10] = {.status = EVTCHNSTAT_virq, .vcpu = 1, .source = 4};  // a global one
    });
    // Of the other ABI.
    refuse("channels: port 2: is of the FIFO ABI", [](S& s) { s.channels[2].priority = 1; });
    refuse("channels: port 2: is of the FIFO ABI", [](S& s) { s.channels[2].last_vcpu = 1; });
    refuse("channels: port 2: is of the FIFO ABI", [](S& s) { s.channels[2].last_priority = 1; });
    refuse("channels: port 2: is of", [](S& s) { s.channels[2].waits_for_word = true; });
    refuse("channels: port 9: is of the FIFO ABI", [](S& s) { s.channels[9] = {}; });
}

TEST_F(HostileEvents, Queues) {
    using S = EventChannelsState;
    refuse_fifo("channels: port 2: priority: ", [](S& s) { s.channels[2].priority = 16; });
    refuse_fifo("channels: port 2: last_priority", [](S& s) { s.channels[2].last_priority = 16; });
    refuse_fifo("channels: port 2: last_vcpu", [](S& s) { s.channels[2].last_vcpu = 3; });
    refuse_fifo("channels: port 2: waits_for", [](S& s) { s.channels[2].waits_for_word = true; });
    refuse_fifo("channels: port 9: says nothing", [](S& s) { s.channels[9] = {}; });
    refuse_fifo("channels: port 9: vcpu: ", [](S& s) { s.channels[9].vcpu = 1; });
    refuse_fifo("channels: port 9: priority: ", [](S& s) { s.channels[9].priority = 1; });
    refuse_fifo("fifo: vcpus: 2 of", [](S& s) { s.fifo->vcpus.pop_back(); });
    refuse_fifo("fifo: vcpus: 4 of", [](S& s) { s.fifo->vcpus.emplace_back(); });
    refuse_fifo("fifo: vcpus: none", [](S& s) { s.fifo->vcpus[1] = {}; });
    refuse_fifo("fifo: vcpus: 1: tails: a queue", [](S& s) { s.fifo->vcpus[1].block.reset(); });
    refuse_fifo("fifo: vcpus: 1: tails: a port", [](S& s) { s.fifo->vcpus[1].tails[7] = 1024; });
    refuse_fifo("fifo: vcpus: 1: tails: a port", [](S& s) { s.fifo->array.clear(); });
    refuse_fifo("fifo: vcpus: 1: block: ", [](S& s) { *s.fifo->vcpus[1].block += 4; });
    refuse_fifo("fifo: vcpus: 1: block: ", [](S& s) { s.fifo->vcpus[1].block = 0x4fc0; });
    refuse_fifo("fifo: vcpus: 1: block: ", [](S& s) { s.fifo->vcpus[1].block = UINT64_MAX; });
    refuse_fifo("fifo: array: ", [](S& s) { s.fifo->array.resize(129); });
}

// Pages may be anywhere. Where there are none, the queues are in nobody's memory.
TEST_F(HostileEvents, PagesAnywhere) {
    for (const std::uint64_t gfn : std::initializer_list<std::uint64_t>{
             0, FakePorts::kRamPages, 1ull << 51, 1ull << 52, UINT64_MAX}) {
        TestDomain d(Width::k64, {.vcpus = 3, .max_event_port = 200});
        d.domain.event_channels().attach_backend({});
        EventChannelsState state = fifo;
        state.fifo->array = {gfn, gfn};
        state.fifo->vcpus[2].block = gfn << vmm::kPageShift;
        ASSERT_TRUE(d.domain.event_channels().adopt(state)) << gfn;
        for (const Port port : {2, 3, 4, 7}) {
            EXPECT_TRUE(d.domain.event_channels().send(port));
        }
    }
}

}  // namespace
}  // namespace xenshim
