// The guest's Xen clock and everything that fires by it.

#include "test.h"

#define MS 1000000ull
// A loaded host may be late by much; nothing may ever be early. The clocks of a hypervisor and a
// guest agree to some microseconds.
#define LATE (2000 * MS)
#define EARLY 100000ull

static uint32_t timer_port(void) {
    static uint32_t port;
    if (port == 0) {
        NEED(bind_virq(VIRQ_TIMER, 0, &port));
        port_mask(port, true);
    }
    port_take(port);
    return port;
}

static void clock_runs(void) {
    uint64_t a = xen_time();
    CHECK(a != 0);
    uint64_t tsc = tsc_after_ms(20);
    while (rdtsc() < tsc) {
        pause();
    }
    uint64_t b = xen_time();
    CHECK(b - a >= 15 * MS);
    CHECK(b - a < LATE);
}

static void clock_monotonic(void) {
    uint64_t last = xen_time();
    for (unsigned i = 0; i < 500; i++) {
        uint64_t now = xen_time();
        if (now < last) {
            FAIL("it went back by %llu ns", (unsigned long long)(last - now));
        }
        last = now;
        if (i % 16 == 0) {
            yield();
        }
    }
}

static void clock_scale(void) {
    volatile struct vcpu_time_info* time = &vcpu_info(0)->time;
    CHECK(time->version != 0);
    CHECK(time->tsc_to_system_mul != 0);
    // The same frequency as CPUID's, within a thousandth: 10^9 ns are khz * 1000 ticks.
    uint64_t khz = cpuid(xen_base + 3, 0).ecx;
    CHECK(khz != 0);
    uint64_t ticks = khz * 1000;
    int8_t shift = time->tsc_shift;
    ticks = shift < 0 ? ticks >> -shift : ticks << shift;
    uint64_t ns = (ticks >> 32) * time->tsc_to_system_mul +
                  ((ticks & 0xffffffff) * time->tsc_to_system_mul >> 32);
    CHECK(ns > 999000000);
    CHECK(ns < 1001000000);
}

static void wall_clock(void) {
    struct shared_info* shared = shared_info();
    CHECK((ACCESS(shared->wc_version) & 1) == 0);
    CHECK(shared->wc_sec > 1000000000);
    CHECK(shared->wc_nsec < 1000000000);
}

static long single(uint64_t deadline, uint32_t flags) {
    struct vcpu_set_singleshot_timer arg = {.timeout_abs_ns = deadline, .flags = flags};
    return vcpu_op(VCPUOP_set_singleshot_timer, 0, &arg);
}

static void single_shot(void) {
    uint32_t port = timer_port();
    uint64_t deadline = xen_time() + 10 * MS;
    EXPECT_RESULT(single(deadline, 0), 0);
    CHECK(!port_pending(port) || xen_time() >= deadline);
    CHECK(WAIT_UNTIL(port_pending(port), PATIENCE_MS));
    uint64_t now = xen_time();
    CHECK(now + EARLY >= deadline);
    CHECK(now < deadline + LATE);
    // Once only.
    port_take(port);
    WAIT_UNTIL(port_pending(port), 30);
    CHECK(!port_pending(port));
}

static void single_shot_past(void) {
    uint32_t port = timer_port();
    EXPECT_RESULT(single(1, 0), 0);
    CHECK(WAIT_UNTIL(port_pending(port), PATIENCE_MS));
}

static void single_shot_moved(void) {
    uint32_t port = timer_port();
    uint64_t deadline;
    for (unsigned tries = 0;; tries++) {
        uint64_t first = xen_time() + 5 * MS;
        EXPECT_RESULT(single(first, 0), 0);
        deadline = xen_time() + 40 * MS;
        EXPECT_RESULT(single(deadline, 0), 0);
        // A busy host may stop us for longer than that, and then there was nothing left to move.
        if (xen_time() < first || tries == 20) {
            break;
        }
        port_take(port);
    }
    CHECK(WAIT_UNTIL(port_pending(port), PATIENCE_MS));
    CHECK(xen_time() + EARLY >= deadline);
}

static void single_shot_stopped(void) {
    uint32_t port = timer_port();
    for (unsigned tries = 0;; tries++) {
        uint64_t deadline = xen_time() + 10 * MS;
        EXPECT_RESULT(single(deadline, 0), 0);
        EXPECT_RESULT(vcpu_op(VCPUOP_stop_singleshot_timer, 0, NULL), 0);
        if (xen_time() < deadline || tries == 20) {
            break;
        }
        port_take(port);
    }
    WAIT_UNTIL(port_pending(port), 30);
    CHECK(!port_pending(port));
}

static long periodic_each(uint64_t ms) {
    struct vcpu_set_periodic_timer arg = {.period_ns = ms * MS};
    return vcpu_op(VCPUOP_set_periodic_timer, 0, &arg);
}

// At once, unless there was one within the period. (Before any other test of this timer.)
static void periodic_first(void) {
    uint32_t port = timer_port();
    EXPECT_RESULT(periodic_each(30000), 0);
    expect("the first tick", port_take(port), true);
    EXPECT_RESULT(vcpu_op(VCPUOP_stop_periodic_timer, 0, NULL), 0);
    EXPECT_RESULT(periodic_each(30000), 0);
    expect("set anew", port_take(port), false);
    EXPECT_RESULT(periodic_each(1), 0);
    CHECK(WAIT_UNTIL(port_pending(port), PATIENCE_MS));
    EXPECT_RESULT(vcpu_op(VCPUOP_stop_periodic_timer, 0, NULL), 0);
}

static void periodic(void) {
    uint32_t port = timer_port();
    uint64_t start = xen_time();
    EXPECT_RESULT(periodic_each(5), 0);
    for (unsigned i = 0; i < 5; i++) {
        CHECK(WAIT_UNTIL(port_pending(port), PATIENCE_MS));
        port_take(port);
    }
    uint64_t taken = xen_time() - start;
    CHECK(taken + EARLY >= 5 * 4 * MS);  // the first may come at once
    EXPECT_RESULT(vcpu_op(VCPUOP_stop_periodic_timer, 0, NULL), 0);
    port_take(port);
    WAIT_UNTIL(port_pending(port), 30);
    CHECK(!port_pending(port));
}

static void timer_op(void) {
    uint32_t port = timer_port();
    uint64_t deadline = xen_time() + 10 * MS;
    EXPECT_RESULT(set_timer_op(deadline), 0);
    CHECK(WAIT_UNTIL(port_pending(port), PATIENCE_MS));
    CHECK(xen_time() + EARLY >= deadline);
    port_take(port);
    for (unsigned tries = 0;; tries++) {
        deadline = xen_time() + 10 * MS;
        EXPECT_RESULT(set_timer_op(deadline), 0);
        EXPECT_RESULT(set_timer_op(0), 0);
        if (xen_time() < deadline || tries == 20) {
            break;
        }
        port_take(port);
    }
    WAIT_UNTIL(port_pending(port), 30);
    CHECK(!port_pending(port));
}

static void poll_timeout(void) {
    uint32_t port = timer_port();
    uint64_t deadline = xen_time() + 20 * MS;
    EXPECT_RESULT(poll_port(port, deadline), 0);
    uint64_t now = xen_time();
    CHECK(now + EARLY >= deadline);
    CHECK(now < deadline + LATE);
}

static void poll_until_timer(void) {
    uint32_t port = timer_port();
    uint64_t deadline = xen_time() + 10 * MS;
    EXPECT_RESULT(single(deadline, 0), 0);
    EXPECT_RESULT(poll_port(port, 0), 0);
    CHECK(port_pending(port));
    CHECK(xen_time() + EARLY >= deadline);
}

static volatile unsigned upcalls;

static void on_port(uint32_t port) {
    upcalls++;
}

static void on_upcall(struct trap_frame* frame) {
    upcall_scan(on_port);
}

static void block_until_timer(void) {
    // An event ends SCHEDOP_block, with interrupts off as well. Xen wakes the vCPU by way of its
    // callback, so there must be one; and only an event that comes later than the call counts.
    uint32_t port = timer_port();
    set_handler(0xf3, on_upcall);
    NEED(set_callback_vector(0xf3));
    ACCESS(vcpu_info(0)->evtchn_upcall_pending) = 0;
    ACCESS(vcpu_info(0)->evtchn_pending_sel) = 0;
    port_mask(port, false);
    uint64_t deadline = xen_time() + 50 * MS;
    EXPECT_RESULT(single(deadline, 0), 0);
    long result = 0;
    for (unsigned i = 0; i < 16 && !port_pending(port); i++) {
        result = sched_op(SCHEDOP_block, NULL);
        if (!port_pending(port)) {
            ACCESS(vcpu_info(0)->evtchn_upcall_pending) = 0;  // something else woke us
        }
    }
    port_mask(port, true);
    set_param(HVM_PARAM_CALLBACK_IRQ, 0);
    EXPECT_RESULT(result, 0);
    CHECK(port_pending(port));
    CHECK(xen_time() + EARLY >= deadline);
}

static void upcall_in_hlt(void) {
    // The usual idle loop of an operating system.
    uint32_t port = timer_port();
    set_handler(0xf3, on_upcall);
    NEED(set_callback_vector(0xf3));
    port_mask(console_port(), true);
    port_mask(xenstore_port(), true);
    port_mask(port, false);
    interrupts_on();
    SPIN_UNTIL(false, 2);
    interrupts_off();
    upcalls = 0;
    for (unsigned i = 1; i <= 5; i++) {
        EXPECT_RESULT(single(xen_time() + 5 * MS, 0), 0);
        while (upcalls < i) {
            asm volatile("sti; hlt; cli" ::: "memory");
        }
    }
    port_mask(port, true);
    expect("upcalls", upcalls, 5);
    set_param(HVM_PARAM_CALLBACK_IRQ, 0);
}

// What ends a sleep, and what does not. Behind each is an alarm of the local APIC's timer, again
// and again, which always does: has one come, nothing else had ended it.
#define ALARM_MS 200
#define SOON_MS 20

static volatile unsigned alarms, alarms_before;

static void on_alarm(struct trap_frame* frame) {
    alarms++;
    apic_write(APIC_EOI, 0);
}

static uint32_t apic_ticks_in_ms(void) {
    static uint32_t ticks;
    if (ticks == 0) {
        const uint32_t all = ~0u;
        apic_write(APIC_LVT_TIMER, 0x10000);
        apic_write(APIC_TIMER_COUNT, all);
        uint64_t end = tsc_after_ms(10);
        while (rdtsc() < end) {
            pause();
        }
        ticks = (all - apic_read(APIC_TIMER_CURRENT)) / 10;
    }
    return ticks;
}

// Interrupts are on from here, and nothing but what the test is about is pending.
static uint32_t sleep_begins(bool callback) {
    if (!callback && is_pvh()) {
        SKIP("a PVH guest keeps the callback that it had");
    }
    interrupts_off();
    apic_enable(false);
    apic_write(APIC_TIMER_DIVIDE, 0xb);
    uint32_t ticks = apic_ticks_in_ms();
    uint32_t port = timer_port();
    port_mask(console_port(), true);
    port_mask(xenstore_port(), true);
    set_handler(0xf3, on_upcall);
    set_handler(0x71, on_alarm);
    if (callback) {
        NEED(set_callback_vector(0xf3));
    } else {
        NEED(set_param(HVM_PARAM_CALLBACK_IRQ, 0));
    }
    ACCESS(vcpu_info(0)->evtchn_upcall_pending) = 0;
    ACCESS(vcpu_info(0)->evtchn_pending_sel) = 0;
    port_mask(port, false);
    apic_write(APIC_LVT_TIMER, 0x20000 | 0x71);
    upcalls = 0;
    apic_write(APIC_TIMER_COUNT, ALARM_MS * ticks);
    interrupts_on();
    return port;
}

static long block(void) {
    alarms_before = alarms;
    return sched_op(SCHEDOP_block, NULL);
}

static bool sleep_ends(void) {
    interrupts_off();
    bool slept = alarms != alarms_before;
    apic_write(APIC_TIMER_COUNT, 0);
    vcpu_op(VCPUOP_stop_periodic_timer, 0, NULL);
    vcpu_op(VCPUOP_stop_singleshot_timer, 0, NULL);
    port_mask(timer_port(), true);
    interrupts_on();
    SPIN_UNTIL(false, 2);
    interrupts_off();
    set_param(HVM_PARAM_CALLBACK_IRQ, 0);
    ACCESS(vcpu_info(0)->evtchn_upcall_pending) = 0;
    return slept;
}

// An event that nobody is told of ends no sleep, whether it is there already ...
static void block_with_event(void) {
    uint32_t port = sleep_begins(false);
    EXPECT_RESULT(single(1, 0), 0);
    CHECK(SPIN_UNTIL(port_pending(port), PATIENCE_MS));
    expect("upcall_pending", vcpu_info(0)->evtchn_upcall_pending, 1);
    long result = block();
    bool slept = sleep_ends();
    expect_result("block", result, 0);
    expect("slept on", slept, true);
}

// ... or comes then.
static void block_while_event_comes(void) {
    sleep_begins(false);
    EXPECT_RESULT(single(xen_time() + SOON_MS * MS, 0), 0);
    long result = block();
    bool slept = sleep_ends();
    expect_result("block", result, 0);
    expect("slept on", slept, true);
}

// The periodic timer ticks for a vCPU that runs. What it ticks at once is taken before the sleep.
static void periodic_in_block(void) {
    sleep_begins(true);
    EXPECT_RESULT(periodic_each(SOON_MS), 0);
    long result = block();
    bool slept = sleep_ends();
    expect_result("block", result, 0);
    expect("slept on", slept, true);
}

static void periodic_in_poll(void) {
    uint32_t port = sleep_begins(true);
    interrupts_off();
    port_mask(port, true);
    apic_write(APIC_TIMER_COUNT, 0);
    EXPECT_RESULT(periodic_each(SOON_MS), 0);
    bool slept = false;
    // A busy host may stop us for so long that the tick is there before the poll.
    for (unsigned tries = 0; tries < 20 && !slept; tries++) {
        port_take(port);
        uint64_t deadline = xen_time() + 3 * SOON_MS * MS;
        EXPECT_RESULT(poll_port(port, deadline), 0);
        slept = xen_time() + EARLY >= deadline;
    }
    expect("pending then", port_pending(port), true);
    sleep_ends();
    expect("slept on", slept, true);
}

static void periodic_in_hlt(void) {
    sleep_begins(true);
    EXPECT_RESULT(periodic_each(SOON_MS), 0);
    alarms_before = alarms;
    asm volatile("hlt" ::: "memory");
    expect("slept on", sleep_ends(), true);
}

static void runstate_area(void) {
    static struct vcpu_runstate_info area;
    struct vcpu_register_runstate_memory_area arg;
    set_xen_guest_handle(arg.addr.h, &area);
    EXPECT_RESULT(vcpu_op(VCPUOP_register_runstate_memory_area, 0, &arg), 0);
    poll_port(timer_port(), xen_time() + 5 * MS);
    struct vcpu_runstate_info info;
    EXPECT_RESULT(vcpu_op(VCPUOP_get_runstate_info, 0, &info), 0);
    expect("state", info.state, RUNSTATE_running);
    CHECK(info.time[RUNSTATE_running] > 0);
    // Off, so that nothing writes there later.
    set_xen_guest_handle(arg.addr.h, NULL);
    vcpu_op(VCPUOP_register_runstate_memory_area, 0, &arg);
}

static volatile unsigned apic_ticks;

static void on_apic_timer(struct trap_frame* frame) {
    apic_ticks++;
    apic_write(APIC_EOI, 0);
}

static void local_apic_timer(void) {
    apic_enable(false);
    set_handler(0x40, on_apic_timer);
    apic_write(APIC_TIMER_DIVIDE, 0xb);
    apic_write(APIC_LVT_TIMER, 0x40);
    apic_write(APIC_TIMER_COUNT, 1000000);
    interrupts_on();
    bool came = SPIN_UNTIL(apic_ticks == 1, PATIENCE_MS);
    interrupts_off();
    CHECK(came);
}

TESTS({"timers.clock_runs", clock_runs}, {"timers.clock_monotonic", clock_monotonic},
      {"timers.clock_scale", clock_scale}, {"timers.wall_clock", wall_clock},
      {"timers.singleshot", single_shot}, {"timers.singleshot_past", single_shot_past},
      {"timers.singleshot_moved", single_shot_moved},
      {"timers.singleshot_stopped", single_shot_stopped}, {"timers.periodic_first", periodic_first},
      {"timers.periodic", periodic}, {"timers.set_timer_op", timer_op},
      {"timers.poll_timeout", poll_timeout}, {"timers.poll_until_timer", poll_until_timer},
      {"timers.block_until_timer", block_until_timer}, {"timers.upcall_in_hlt", upcall_in_hlt},
      {"timers.block_with_event", block_with_event},
      {"timers.block_while_event_comes", block_while_event_comes},
      {"timers.periodic_in_block", periodic_in_block},
      {"timers.periodic_in_poll", periodic_in_poll}, {"timers.periodic_in_hlt", periodic_in_hlt},
      {"timers.runstate", runstate_area}, {"timers.lapic", local_apic_timer});
