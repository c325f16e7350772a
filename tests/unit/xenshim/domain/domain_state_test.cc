// The states of shared_info and of what is the domain's itself; and whether the machine hears what
// it has to know.
#include <array>
#include <atomic>
#include <fstream>
#include <thread>

#include <gtest/gtest.h>

#include "tests/fakes/saved_checks.h"
#include "tests/fakes/saved_domain.h"
#include "tests/golden/folder.h"

namespace xenshim {
namespace {

using namespace abi;
using fakes::expect_refused;
using ::fakes::expect_saved;
using fakes::move_domain;
using fakes::TestDomain;

constexpr std::uint64_t kRamGpa = TestDomain::kRamGfn << vmm::kPageShift;
constexpr std::uint64_t kOutside = TestDomain::kHoleGfn;

// ---- shared_info --------------------------------------------------------------------------------

TEST(SharedInfoState, ComesBack) {
    SharedInfoState state{.is_64bit = false, .wall_sec = 0x1'6b03'1f3f, .wall_nsec = 999'999'999};
    state.vcpus.push_back({.gpa = 0x7000'0040});
    state.vcpus.emplace_back();
    state.vcpus.emplace_back().waiting.emplace().fill(std::byte{0xa5});
    expect_saved(state, "xen.shared_info");
}

TEST(MovedSharedInfo, TheWidthAndTheClock) {
    TestDomain a(Width::k32), b(Width::k32);
    a.domain.shared_info().set_wall_clock(0x1'0000'0007, 8);
    a.domain.latch_width(Width::k32);
    move_domain(a, b);
    EXPECT_FALSE(b.domain.shared_info().is_64bit());
    // What a later latch writes is the clock of before, where the other width has it.
    for (TestDomain* guest : {&a, &b}) {
        guest->domain.latch_width(Width::k64);
    }
    EXPECT_EQ(std::memcmp(a.ports.own_page(0), b.ports.own_page(0), vmm::kPageSize), 0);
    std::uint32_t sec = 0;
    std::memcpy(&sec, b.ports.own_page(0) + 3076, sizeof sec);
    EXPECT_EQ(sec, 7u);
}

// In shared_info, in RAM, in a page outside the slots, in one that is gone, and nowhere yet.
TEST(MovedSharedInfo, VcpuInfosAreWhereTheyWere) {
    constexpr unsigned kVcpus = 34;
    TestDomain a(Width::k64, {.vcpus = kVcpus}), b(Width::k64, {.vcpus = kVcpus});
    Physmap& map = a.domain.physmap();
    ASSERT_TRUE(map.populate(kOutside, 2));
    ASSERT_TRUE(a.domain.register_vcpu_info(1, TestDomain::kRamGfn, 64));
    ASSERT_TRUE(a.domain.register_vcpu_info(2, kOutside, 128));
    ASSERT_TRUE(a.domain.register_vcpu_info(3, kOutside + 1, 0));
    ASSERT_TRUE(a.domain.register_vcpu_info(4, TestDomain::kRamGfn + 1, 0));
    ASSERT_TRUE(a.domain.register_vcpu_info(33, TestDomain::kRamGfn, 0));
    ASSERT_TRUE(map.decrease(kOutside + 1));
    ASSERT_TRUE(map.decrease(TestDomain::kRamGfn + 1));
    a.domain.shared_info().set_selector(32, 70);
    a.domain.shared_info().set_upcall_pending(32);
    a.domain.shared_info().set_upcall_pending(0);
    move_domain(a, b);

    const auto flag = [](std::byte* page, std::size_t offset) {
        return std::to_integer<unsigned>(page[offset]);
    };
    std::byte* ram = b.ports.memory.page(TestDomain::kRamGfn);
    std::byte* outside = b.ports.memory.page(kOutside);
    EXPECT_TRUE(b.domain.shared_info().upcall_pending(32));
    EXPECT_EQ(flag(b.ports.own_page(0), 0), 1u);
    EXPECT_EQ(flag(ram, 64), 1u);  // registering raises
    EXPECT_EQ(flag(outside, 128), 1u);
    // From here on, what is set on either shows in the same places.
    for (TestDomain* guest : {&a, &b}) {
        SharedInfo& info = guest->domain.shared_info();
        for (const unsigned vcpu : {1, 2, 3, 4, 32, 33}) {
            info.clear_upcall_mask(vcpu);
            info.set_selector(vcpu, 130 + vcpu);
            info.set_upcall_pending(vcpu);
            EXPECT_TRUE(info.upcall_pending(vcpu));
        }
        EXPECT_TRUE(info.set_selector(32, 70));
        EXPECT_FALSE(guest->domain.register_vcpu_info(1, TestDomain::kRamGfn, 256));  // has one
        EXPECT_TRUE(guest->domain.register_vcpu_info(32, TestDomain::kRamGfn, 512));
    }
    for (const std::uint64_t gfn : {TestDomain::kRamGfn, kOutside}) {
        EXPECT_EQ(std::memcmp(a.ports.memory.page(gfn), b.ports.memory.page(gfn), vmm::kPageSize),
                  0)
            << gfn;
    }
    EXPECT_EQ(std::memcmp(a.ports.own_page(0), b.ports.own_page(0), vmm::kPageSize), 0);
    EXPECT_EQ(b.domain.shared_info().snapshot(), a.domain.shared_info().snapshot());
}

TEST(HostileSharedInfo, Members) {
    TestDomain fresh(Width::k64, {.vcpus = 33});
    SharedInfo& info = fresh.domain.shared_info();
    const SharedInfoState good = info.snapshot();
    const auto refuse = [&](const char* reason, auto&& spoil) {
        SharedInfoState state = good;
        spoil(state);
        expect_refused(info, state, reason);
    };
    using S = SharedInfoState;
    refuse("wall_nsec: ", [](S& s) { s.wall_nsec = 1'000'000'000; });
    refuse("vcpus: 32 of them", [](S& s) { s.vcpus.pop_back(); });
    refuse("vcpus: 34 of them", [](S& s) { s.vcpus.emplace_back(); });
    refuse("vcpus: 1: gpa", [](S& s) { s.vcpus[1].gpa = 0x7fc1; });
    refuse("vcpus: 1: gpa", [](S& s) { s.vcpus[1].gpa = 0x7fc4; });
    refuse("vcpus: 1: gpa", [](S& s) { s.vcpus[1].gpa = UINT64_MAX; });
    refuse("vcpus: 1: waiting", [](S& s) { s.vcpus[1].waiting.emplace(); });
    refuse("vcpus: 32: waiting", [](S& s) { s.vcpus[32].gpa = 0x7000; });
    refuse("vcpus: 32: waiting", [](S& s) { s.vcpus[32].waiting.reset(); });
    // Anywhere else will do, and is used by nobody but the guest.
    for (const std::uint64_t gpa : {0ull, 0x8000'0000ull, 0xffff'ffff'ffff'f000ull}) {
        TestDomain guest(Width::k64, {.vcpus = 1});
        SharedInfoState state = guest.domain.shared_info().snapshot();
        state.vcpus[0].gpa = gpa;
        ASSERT_TRUE(guest.domain.shared_info().adopt(state)) << gpa;
        guest.domain.shared_info().set_all_selectors(0);
        EXPECT_FALSE(guest.domain.shared_info().set_upcall_pending(0));
        EXPECT_TRUE(guest.domain.shared_info().upcall_pending(0));
    }
}

// ---- the domain's own ---------------------------------------------------------------------------

DomainState example() {
    DomainState state{.shutdown_code = 2,
                      .watchdogs = {std::nullopt, 0x1234'5678'9abc},
                      .runstate_update_flag = true,
                      .callback = 0x0200'0000'0000'00f3,
                      .incarnation = 3,
                      .suspend = Suspend::kGivenUp};
    state.vcpus.push_back({.up = true,
                           .initialised = true,
                           .upcall_vector = 0xf3,
                           .singleshot_ns = 1,
                           .period_ns = 10'000'000,
                           .next_periodic_ns = UINT64_MAX,
                           .polled = {1, 0xffff'ffff},
                           .runstate = {.state = 2,
                                        .since_ns = 0x1111,
                                        .time_ns = {1, 2, 3, 4},
                                        .area = {.linear = 0x7fd1, .physical = 0x8fd0},
                                        .linear_is_64bit = false,
                                        .physical_is_64bit = true,
                                        .stands_since_ns = 0x2222},
                           .time_area = {.linear = std::nullopt, .physical = 0x9fe0}});
    state.vcpus.emplace_back();
    return state;
}

TEST(DomainState, ComesBack) {
    expect_saved(example(), "xen.domain");
}

// Before there were suspensions, and before it was known since when a vCPU stood still.
TEST(DomainState, ComesBackOfOlderVersions) {
    for (const std::uint32_t version : {1, 2}) {
        std::ifstream file(golden::file("saved/xen.domain.v" + std::to_string(version) + ".hex"));
        const auto old = vmm::saved::decode<DomainState>(::fakes::from_hex(file), version);
        ASSERT_TRUE(old) << old.error();
        DomainState expected = example();
        if (version == 1) expected.suspend = Suspend::kNone;
        expected.vcpus[0].runstate.stands_since_ns.reset();
        EXPECT_EQ(*old, expected);
    }
}

TEST(DomainState, IsTaken) {
    TestDomain guest(Width::k64, {.vcpus = 2});
    ASSERT_TRUE(guest.domain.adopt(example()));
    EXPECT_EQ(guest.domain.snapshot(), example());
    EXPECT_EQ(guest.domain.event_channels().pollers, 1u);
    EXPECT_EQ(guest.domain.vcpu(0).runstate_gpa, 0x8fd0u);  // the physical one counts
    EXPECT_TRUE(guest.domain.watchdog_expired(0x1234'5678'9abc));
    EXPECT_FALSE(guest.domain.watchdog_expired(0x1234'5678'9abb));
    EXPECT_EQ(guest.domain.watchdog(1, 1).has_value(), false);
    guest.domain.shutdown(0);
    EXPECT_EQ(guest.ports.shutdowns, std::vector<std::uint8_t>{2});  // the first reason counts
}

TEST(MovedDomain, TimersFireWhenTheyWould) {
    TestDomain a(Width::k64), b(Width::k64);
    ASSERT_TRUE(a.domain.event_channels().bind_virq(VIRQ_TIMER, 1));
    Timers& timers = a.domain.vcpu(1).timers;
    timers.singleshot_ns = a.ports.now_ns + 500;
    timers.period_ns = 2'000'000;
    timers.next_periodic_ns = a.ports.now_ns + 1'000'000;
    a.domain.vcpu(0).timers.next_periodic_ns = 77;  // left over from a timer that was stopped
    move_domain(a, b);
    EXPECT_EQ(b.domain.vcpu(0).timers.next_periodic_ns, 0u);
    for (const std::uint64_t later : {0, 499, 500, 501, 999'999, 1'000'000, 9'000'000}) {
        const std::uint64_t now = a.ports.now_ns + later;
        EXPECT_EQ(a.domain.run_timers(1, now), b.domain.run_timers(1, now)) << later;
        EXPECT_EQ(a.domain.run_timers(0, now), b.domain.run_timers(0, now)) << later;
        EXPECT_EQ(a.ports.upcalls(1), b.ports.upcalls(1)) << later;
    }
    EXPECT_EQ(b.ports.upcalls(1), 1u);  // the port's bit stays set: nobody took it
    EXPECT_EQ(a.domain.snapshot(), b.domain.snapshot());
}

TEST(MovedDomain, RunstatesGoOnCounting) {
    TestDomain a(Width::k64), b(Width::k64);
    a.domain.place_runstate_area(0, kRamGpa + 64, false, true);
    a.domain.place_runstate_area(0, kRamGpa + 128, true, false);
    a.domain.set_runstate_update_flag(true);
    a.ports.now_ns += 1000;
    a.domain.set_runstate(0, Runstate::kBlocked);
    a.ports.now_ns += 30;
    move_domain(a, b);
    for (TestDomain* guest : {&a, &b}) {
        guest->ports.now_ns += 7;
        guest->domain.set_runstate(0, Runstate::kRunning);
        const Runstate seen = guest->domain.runstate(0);
        EXPECT_EQ(seen.time_ns[Runstate::kBlocked], 37u);
        // The physical one is taken back: the other is written again, and with the flag.
        guest->domain.place_runstate_area(0, kNoGfn, true, true);
        guest->domain.set_runstate(0, Runstate::kRunnable);
    }
    EXPECT_EQ(a.bytes({kRamGpa}, 256), b.bytes({kRamGpa}, 256));
    EXPECT_EQ(b.get<std::uint32_t>({kRamGpa + 64}), std::uint32_t{Runstate::kRunnable});
    EXPECT_EQ(a.domain.snapshot(), b.domain.snapshot());
}

// Also across moves, of which the pause knows nothing: the clock goes on where it was.
TEST(MovedDomain, WhatStandsStillIsOffline) {
    TestDomain a(Width::k64), b(Width::k64), c(Width::k64);
    const std::uint64_t start = a.ports.now_ns;
    a.domain.set_runstate(0, Runstate::kRunning);
    a.domain.set_runstate(1, Runstate::kBlocked);
    a.domain.place_runstate_area(0, kRamGpa + 64, false, true);
    const Runstate before = a.domain.runstate(0), slept = a.domain.runstate(1);
    a.ports.now_ns = start + 100;
    for (const unsigned v : {0, 1}) {
        a.domain.vcpu_stands(v);
    }
    a.ports.now_ns = start + 150;
    move_domain(a, b);
    b.ports.now_ns = start + 150;
    for (const unsigned v : {0, 1}) {
        b.domain.vcpu_stands(v);  // it is restored to wait
    }
    b.ports.now_ns = start + 250;
    EXPECT_EQ(a.domain.snapshot(), b.domain.snapshot());  // nobody ran
    move_domain(b, c);
    c.ports.now_ns = start + 300;
    for (const unsigned v : {0, 1}) {
        c.domain.vcpu_goes_on(v);
        c.domain.vcpu_goes_on(v);
    }
    c.ports.now_ns = start + 310;
    const Runstate ran = c.domain.runstate(0);
    EXPECT_EQ(ran.state, std::uint32_t{Runstate::kRunning});
    EXPECT_EQ(ran.since_ns, start + 300);
    EXPECT_EQ(ran.time_ns[Runstate::kRunning], before.time_ns[Runstate::kRunning] + 110);
    EXPECT_EQ(ran.time_ns[Runstate::kOffline], before.time_ns[Runstate::kOffline] + 200);
    EXPECT_EQ(c.get<std::uint64_t>({kRamGpa + 64 + 40}), ran.time_ns[Runstate::kOffline]);
    EXPECT_EQ(c.domain.runstate(1).time_ns[Runstate::kBlocked],
              slept.time_ns[Runstate::kBlocked] + 310);
    EXPECT_EQ(c.domain.runstate(1).time_ns[Runstate::kOffline], slept.time_ns[Runstate::kOffline]);
}

TEST(MovedDomain, WhoPollsGoesOnPolling) {
    TestDomain a(Width::k64), b(Width::k64);
    const Port port = *a.domain.event_channels().bind_ipi(0);
    a.domain.vcpu(1).polled = {port};
    a.domain.event_channels().pollers = 1;
    move_domain(a, b);
    EXPECT_FALSE(b.domain.poll_satisfied(1));
    ASSERT_TRUE(b.domain.event_channels().send(port));
    EXPECT_EQ(b.ports.wakes(1), 1u);
    EXPECT_TRUE(b.domain.poll_satisfied(1));
    b.domain.end_poll(1);
    EXPECT_EQ(b.domain.event_channels().pollers, 0u);
}

TEST(MovedDomain, TheMachineHearsOfIt) {
    const TestDomain::Options pvh{.vcpus = 3, .interrupt_controllers = false};
    TestDomain a(Width::k32, pvh), b(Width::k32, pvh);
    a.domain.latch_width(Width::k32);
    a.domain.set_callback(0x0200'0000'0000'00f3);
    a.domain.params().put(HVM_PARAM_CALLBACK_IRQ, 5);  // recorded, and not in force
    a.domain.set_runstate_update_flag(true);
    ASSERT_TRUE(a.domain.physmap().place_own(kSharedInfoPage, TestDomain::kRamGfn + 2));
    a.domain.follow_shared_info();
    ASSERT_TRUE(a.domain.register_vcpu_info(2, TestDomain::kRamGfn, 0));
    a.domain.place_runstate_area(1, kRamGpa + 64, true, true);
    a.domain.vcpu(2).time_area.physical_gpa = kRamGpa + 128;
    a.domain.shared_info().set_upcall_pending(1);
    move_domain(a, b);
    EXPECT_TRUE(b.ports.widths.empty());
    EXPECT_TRUE(b.ports.callbacks.empty());
    b.domain.tell_machine();
    EXPECT_EQ(b.ports.widths, std::vector<bool>{false});
    EXPECT_EQ(b.ports.callbacks, std::vector<std::uint64_t>{0x0200'0000'0000'00f3});
    EXPECT_EQ(b.ports.update_flags, std::vector<bool>{true});
    EXPECT_EQ(b.ports.shared_info_places, std::vector<std::uint64_t>{TestDomain::kRamGfn + 2});
    EXPECT_EQ(b.ports.vcpu_infos_moved, std::vector<unsigned>{2});
    EXPECT_EQ(b.ports.runstates_moved, std::vector<unsigned>{1});
    EXPECT_EQ(b.ports.time_areas,
              (std::vector<std::pair<unsigned, std::uint64_t>>{{2, kRamGpa + 128}}));
    EXPECT_TRUE(b.ports.vectors.empty());  // raised when it was set, not again
    EXPECT_EQ(b.ports.upcalls(0), 0u);
    EXPECT_EQ(b.ports.upcalls(1), 1u);
    EXPECT_EQ(b.ports.upcalls(2), 1u);
    // It was told: nothing more to say.
    b.domain.follow_shared_info();
    EXPECT_EQ(b.ports.shared_info_places.size(), 1u);
}

TEST(MovedDomain, AHalfSuspendedOne) {
    // Who waits for it does not wait where the guest goes on: there, it is cancelled.
    TestDomain a(Width::k64), b(Width::k64);
    a.domain.expect_suspend();
    move_domain(a, b);
    EXPECT_EQ(b.domain.shutdown_by(0, SHUTDOWN_suspend), Domain::kSuspendCancelled);
    EXPECT_TRUE(b.ports.shutdowns.empty());
    EXPECT_EQ(a.domain.shutdown_by(0, SHUTDOWN_suspend), 0);
    EXPECT_TRUE(a.domain.suspended());
    TestDomain c(Width::k64);
    move_domain(a, c);
    EXPECT_TRUE(c.domain.suspended());
}

// What is a new domain's is equal to a new one; and what stays is as it was.
TEST(MovedDomain, ASuspendedOneBeginsAnew) {
    constexpr unsigned kVcpus = 34;
    constexpr std::uint64_t kVector = 0x0200'0000'0000'00f3;
    const TestDomain::Options options{.vcpus = kVcpus};
    TestDomain guest(Width::k64, options), fresh(Width::k64, options);
    Domain& domain = guest.domain;
    for (TestDomain* each : {&guest, &fresh}) {
        each->domain.latch_width(Width::k32);
        each->domain.shared_info().set_wall_clock(7, 8);
        for (const Port port : {1, 2}) {
            EXPECT_EQ(each->domain.event_channels().attach_backend({}).local, port);
        }
        EXPECT_TRUE(each->domain.physmap().place_own(kSharedInfoPage, TestDomain::kRamGfn + 2));
        each->domain.vcpu(1).up = true;
    }
    fresh.domain.vcpu(1).initialised = domain.vcpu(1).initialised = true;
    EventChannels& ev = domain.event_channels();
    // The backends' ports are not where they were, and more of all is there than a new one has.
    ASSERT_TRUE(ev.close(1));
    ASSERT_TRUE(ev.bind_virq(VIRQ_TIMER, 1));
    for (unsigned i = 0; i < 100; ++i) {
        ASSERT_TRUE(ev.alloc_unbound(0));
    }
    ASSERT_TRUE(ev.init_control(0, 0, domain.named_page(TestDomain::kRamGfn)));
    ASSERT_TRUE(ev.expand_array(domain.named_page(TestDomain::kRamGfn + 1)));
    domain.params().put(HVM_PARAM_CALLBACK_IRQ, kVector);
    domain.set_callback(kVector);
    ASSERT_TRUE(domain.register_vcpu_info(1, TestDomain::kRamGfn + 3, 64));
    domain.shared_info().set_all_selectors(33);
    domain.shared_info().set_upcall_pending(0);
    domain.shared_info().set_pending(77);
    domain.place_runstate_area(0, kRamGpa + 64, true, true);
    domain.vcpu(1).time_area.physical_gpa = kRamGpa + 128;
    domain.vcpu(1).upcall_vector = 0x83;
    domain.vcpu(1).timers.singleshot_ns = 5;
    domain.vcpu(1).timers.period_ns = 2'000'000;
    domain.vcpu(1).timers.next_periodic_ns = 6;
    domain.vcpu(1).polled = {3};
    ev.pollers = 1;
    domain.set_runstate(1, Runstate::kBlocked);
    ASSERT_TRUE(domain.watchdog(0, 5));
    domain.expect_suspend();
    ASSERT_EQ(domain.shutdown_by(0, SHUTDOWN_suspend), 0);

    const std::uint64_t now = guest.ports.now_ns + 77;
    domain.begin_anew(now);
    for (unsigned v = 0; v < kVcpus; ++v) {
        Runstate& runstate = fresh.domain.vcpu(v).runstate.now;
        runstate = {.state = v < 2 ? Runstate::kRunning : Runstate::kOffline, .since_ns = now};
    }
    EXPECT_EQ(domain.snapshot(), fresh.domain.snapshot());
    EXPECT_EQ(ev.snapshot(), fresh.domain.event_channels().snapshot());
    EXPECT_EQ(ev.pollers, 0u);
    EXPECT_EQ(domain.shared_info().snapshot(), fresh.domain.shared_info().snapshot());
    EXPECT_EQ(domain.params().snapshot(), fresh.domain.params().snapshot());
    const auto zeroed = [](TestDomain& of) {
        // A version counts how often the wall clock was written.
        return std::array{of.domain.shared_info().is_pending(77),
                          of.domain.shared_info().upcall_pending(0),
                          of.domain.shared_info().upcall_pending(33)};
    };
    EXPECT_EQ(zeroed(guest), zeroed(fresh));
    EXPECT_EQ(domain.physmap().gfn_of_own(kSharedInfoPage), TestDomain::kRamGfn + 2);
    // What Linux does again is not refused.
    EXPECT_TRUE(domain.register_vcpu_info(1, TestDomain::kRamGfn + 3, 64));
    EXPECT_EQ(*ev.bind_virq(VIRQ_TIMER, 1), 3u);
    // Nobody but a vCPU that is told: the machine hears of no callback, and no area.
    guest.ports.callbacks.clear();
    guest.ports.runstates_moved.clear();
    domain.tell_machine();
    EXPECT_TRUE(guest.ports.callbacks.empty());
    EXPECT_TRUE(guest.ports.runstates_moved.empty());
}

// A line that the chips have seen up falls where it was, before nobody knows where that is.
TEST(MovedDomain, TheCallbacksLineOfASuspendedOneFalls) {
    constexpr unsigned kGsi = 9;
    TestDomain a(Width::k64), b(Width::k64);
    a.domain.params().put(HVM_PARAM_CALLBACK_IRQ, kGsi);
    a.domain.set_callback(kGsi);
    a.domain.shared_info().set_upcall_pending(0);
    a.domain.expect_suspend();
    ASSERT_EQ(a.domain.shutdown_by(0, SHUTDOWN_suspend), 0);
    move_domain(a, b);
    b.domain.begin_anew(b.ports.now_ns);
    b.domain.tell_machine();
    EXPECT_EQ(b.ports.line_levels, (decltype(b.ports.line_levels){{kGsi, false}}));
}

// No vCPU runs, but whoever else works on the domain may: each state is whole, and when they rest
// two are equal to the byte.
TEST(MovedDomain, IsLookedAtWhileOthersWork) {
    TestDomain guest(Width::k64, {.vcpus = 34});
    Domain& domain = guest.domain;
    EventChannels& ev = domain.event_channels();
    const auto backend = ev.attach_backend({});
    ASSERT_TRUE(ev.bind_virq(VIRQ_TIMER, 33));
    ASSERT_TRUE(ev.bind_ipi(33));
    ASSERT_TRUE(domain.physmap().populate(kOutside));
    ASSERT_TRUE(domain.physmap().decrease(TestDomain::kRamGfn));
    const auto bytes = [&] {
        const auto saved = fakes::save(domain);
        return std::array{vmm::saved::encode(saved.physmap), vmm::saved::encode(saved.own_pages),
                          vmm::saved::encode(saved.shared_info),
                          vmm::saved::encode(saved.event_channels),
                          vmm::saved::encode(saved.domain)};
    };
    std::atomic<bool> stop{false};
    std::thread backends([&] {
        while (!stop) {
            ev.notify(backend.remote);
            ev.raise_virq(VIRQ_TIMER, 33);
            static_cast<void>(ev.unmask(1));
            domain.physmap().hold(kOutside);
            domain.physmap().release(kOutside);
        }
    });
    std::thread housekeeping([&] {
        while (!stop) {
            domain.physmap().free_touched(TestDomain::kRamGfn);
            domain.delay_watchdogs(1);
            domain.params().put(HVM_PARAM_STORE_EVTCHN, 1);
            domain.set_runstate(5, Runstate::kRunning);
            static_cast<void>(domain.watchdog_expired(0));
        }
    });
    for (unsigned i = 0; i < 100; ++i) {
        bytes();
    }
    stop = true;
    backends.join();
    housekeeping.join();
    EXPECT_EQ(bytes(), bytes());
}

// Whatever the chips saw last of the callback's line: it becomes what upcall_pending says.
TEST(MovedDomain, TheCallbacksLineIsAsItShouldBe) {
    constexpr unsigned kGsi = 9;
    using Levels = decltype(fakes::FakePorts::line_levels);
    for (const bool pending : {false, true}) {
        TestDomain a(Width::k64), b(Width::k64);
        a.domain.params().put(HVM_PARAM_CALLBACK_IRQ, kGsi);
        a.domain.set_callback(kGsi);
        if (pending) a.domain.shared_info().set_upcall_pending(0);
        move_domain(a, b);
        b.ports.on_upcall = [&](unsigned) { b.domain.callback_line().raise(); };
        b.domain.tell_machine();
        EXPECT_EQ(b.ports.line_levels, (Levels{{kGsi, pending}}));
        // The guest takes it, and it falls when somebody looks.
        b.ports.own_page(kSharedInfoPage)[0] = std::byte{0};
        b.domain.callback_line().look();
        EXPECT_EQ(b.ports.line_levels.size(), pending ? 2u : 1u);
        b.domain.shared_info().set_upcall_pending(0);
        b.domain.callback_line().raise();
        EXPECT_EQ(b.ports.line_levels.back(), (Levels::value_type{kGsi, true}));
    }
}

TEST(HostileDomain, Members) {
    TestDomain fresh(Width::k64, {.vcpus = 2});
    const auto refuse = [&](const char* reason, auto&& spoil) {
        DomainState state = example();
        spoil(state);
        expect_refused(fresh.domain, state, reason);
        EXPECT_EQ(fresh.domain.event_channels().pollers, 0u);
    };
    using S = DomainState;
    refuse("vcpus: 1 of them", [](S& s) { s.vcpus.pop_back(); });
    refuse("vcpus: 3 of them", [](S& s) { s.vcpus.emplace_back(); });
    refuse("vcpus: 0: up", [](S& s) { s.vcpus[0].initialised = false; });
    refuse("vcpus: 0: upcall_vector", [](S& s) { s.vcpus[0].upcall_vector = 0xf; });
    refuse("vcpus: 0: period_ns", [](S& s) { s.vcpus[0].period_ns = 999'999; });
    refuse("vcpus: 0: period_ns", [](S& s) { s.vcpus[0].period_ns = std::uint64_t{1} << 62; });
    refuse("vcpus: 1: next_periodic_ns", [](S& s) { s.vcpus[1].next_periodic_ns = 1; });
    refuse("vcpus: 1: polled", [](S& s) { s.vcpus[1].polled.resize(129); });
    refuse("vcpus: 1: runstate: state", [](S& s) { s.vcpus[1].runstate.state = 4; });
    refuse("vcpus: 0: runstate: area: linear", [](S& s) {
        s.vcpus[0].runstate.linear_is_64bit = true;
        s.vcpus[0].runstate.area.linear = 0x7fd9;
    });
    refuse("vcpus: 0: runstate: area: physical: crosses",
           [](S& s) { s.vcpus[0].runstate.area.physical = 0x8fd4; });
    refuse("vcpus: 0: runstate: area: physical: not",
           [](S& s) { s.vcpus[0].runstate.area.physical = 0x8001; });
    refuse("suspend: ", [](S& s) { s.suspend = Suspend::kAsked; });  // who waits is not saved
    refuse("suspend: ", [](S& s) { s.suspend = static_cast<Suspend>(255); });
    refuse("vcpus: 0: time_area: physical", [](S& s) { s.vcpus[0].time_area.physical = 0x9fe4; });
    refuse("vcpus: 0: time_area: linear", [](S& s) { s.vcpus[0].time_area.linear = UINT64_MAX; });
}

}  // namespace
}  // namespace xenshim
