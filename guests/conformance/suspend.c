// A guest with PV drivers that suspends itself when the toolstack asks for it (control/shutdown),
// as Linux' drivers/xen/manage.c does. tests/guest/suspending asks. It wakes up either elsewhere,
// where SCHEDOP_shutdown returns 0 and all is as in a new domain, or where it was (1), as if
// nothing had been. It ends when it is asked for poweroff or reboot.
//
//   vCPU 0: the driver        vCPU 1: sleeps in SCHEDOP_poll
//
//   deaf   it never takes the request, and says when it is withdrawn
//   late   it takes the request, and suspends itself when the console has a byte for it: then
//          nobody waits for that any more

#include "test.h"

#define CALLBACK_VECTOR 0xf3
#define MS 1000000ull
#define LIMIT_MS 100000
#define NODE "control/shutdown"

static uint32_t timer_port, other_port;
static volatile unsigned ticks;    // events of the timer's, by upcall
static volatile unsigned go;       // how often vCPU 1 was sent to sleep
static volatile unsigned returns;  // how often it has come back
static volatile long poll_result;
static uint8_t info_page[4096] __attribute__((aligned(4096)));  // of vCPU 1

static void on_port(uint32_t port) {
    if (port == timer_port) {
        ticks++;
    }
}

static void on_callback(struct trap_frame* frame) {
    upcall_scan(on_port);
}

static void sleeper(unsigned cpu) {
    for (unsigned seen = 0;;) {
        while (go == seen) {
            pause();
        }
        seen = go;
        // A poll may end for nothing. In a new domain the port is nobody's.
        do {
            poll_result = poll_port(other_port, 0);
        } while (poll_result == 0 && !port_take(other_port));
        returns++;
    }
}

// ---- what a driver sets up, and again in a new domain -------------------------------------------

static long register_info(void) {
    struct vcpu_register_vcpu_info info = {.mfn = (uintptr_t)info_page / PAGE_SIZE, .offset = 64};
    return vcpu_op(VCPUOP_register_vcpu_info, 1, &info);
}

// "OK", or the error.
static const char* watch(void) {
    static const char payload[] = NODE "\0token";
    static char reply[32];
    if (xenstore_request(XS_WATCH, payload, sizeof(payload), reply, sizeof(reply)) == -1) {
        FAIL("no answer to a watch");
    }
    return reply;
}

static void expect_watch(const char* want) {
    const char* got = watch();
    if (strcmp(got, want) != 0) {
        FAIL("a watch: %s, should be %s", got, want);
    }
}

static void set_up(void) {
    EXPECT_RESULT(map_shared_info((uintptr_t)shared_info_page / PAGE_SIZE), 0);
    EXPECT_RESULT(register_info(), 0);
    EXPECT_RESULT(bind_virq(VIRQ_TIMER, 0, &timer_port), 0);
    EXPECT_RESULT(bind_ipi(1, &other_port), 0);
    port_mask(console_port(), true);
    port_mask(xenstore_port(), true);
    port_mask(other_port, true);
    port_mask(timer_port, false);
    EXPECT_RESULT(set_callback_vector(CALLBACK_VECTOR), 0);
    expect_watch("OK");
}

// ---- what must work at any time -----------------------------------------------------------------

static void tick(void) {
    unsigned before = ticks;
    struct vcpu_set_singleshot_timer arg = {.timeout_abs_ns = xen_time() + MS, .flags = 0};
    EXPECT_RESULT(vcpu_op(VCPUOP_set_singleshot_timer, 0, &arg), 0);
    interrupts_on();
    bool came = SPIN_UNTIL(ticks != before, PATIENCE_MS);
    interrupts_off();
    CHECK(came);
}

static void wake_other(void) {
    unsigned before = returns;
    EXPECT_RESULT(port_send(other_port), 0);
    CHECK(SPIN_UNTIL(returns == before + 1, PATIENCE_MS));
    expect_result("a poll", poll_result, 0);
}

static void send_other_to_sleep(void) {
    struct vcpu_runstate_info state;
    go++;
    do {
        EXPECT_RESULT(vcpu_op(VCPUOP_get_runstate_info, 1, &state), 0);
        pause();
    } while (state.state != RUNSTATE_blocked);
}

// ---- suspended ----------------------------------------------------------------------------------

static void expect_port(const char* what, uint32_t port, unsigned want) {
    struct evtchn_status status = {.dom = DOMID_SELF, .port = port};
    EXPECT_RESULT(port_status(port, &status), 0);
    expect(what, status.status, want);
}

static void woke_elsewhere(unsigned returned) {
    uint64_t value = 1;
    EXPECT_RESULT(get_param(HVM_PARAM_CALLBACK_IRQ, &value), 0);
    expect("the callback", value, 0);
    expect_port("the timer's port", timer_port, EVTCHNSTAT_closed);
    expect_port("vCPU 1's port", other_port, EVTCHNSTAT_closed);
    expect_port("the store's port", xenstore_port(), EVTCHNSTAT_interdomain);
    expect_port("the console's port", console_port(), EVTCHNSTAT_interdomain);
    expect("bytes of requests in the ring", ACCESS(xenstore_ring()->req_prod), 0);
    expect("bytes of replies in the ring", ACCESS(xenstore_ring()->rsp_prod), 0);
    // What it slept for will not come any more.
    CHECK(SPIN_UNTIL(returns == returned + 1, PATIENCE_MS));
    expect_result("its next poll", poll_result, -EINVAL);
    set_up();
    tick();
    send_other_to_sleep();
    wake_other();
    print("woke up elsewhere\n");
}

static void went_on_here(unsigned returned, uint64_t callback) {
    uint64_t value = 0;
    uint32_t port;
    EXPECT_RESULT(get_param(HVM_PARAM_CALLBACK_IRQ, &value), 0);
    expect("the callback", value, callback);
    EXPECT_RESULT(bind_virq(VIRQ_TIMER, 0, &port), -EEXIST);
    EXPECT_RESULT(register_info(), -EINVAL);
    expect_watch("EEXIST");
    tick();
    expect("vCPU 1's returns", returns, returned);
    wake_other();
    print("went on here\n");
}

static void suspend(void) {
    send_other_to_sleep();
    unsigned returned = returns;
    uint64_t callback = 0;
    NEED(get_param(HVM_PARAM_CALLBACK_IRQ, &callback));
    uint64_t before = xen_time();
    struct sched_shutdown arg = {.reason = SHUTDOWN_suspend};
    long result = sched_op(SCHEDOP_shutdown, &arg);
    uint64_t after = xen_time();
    CHECK(after >= before);
    if (result == 0) {
        woke_elsewhere(returned);
    } else {
        expect_result("the suspension", result, 1);
        went_on_here(returned, callback);
    }
}

// ---- the driver ---------------------------------------------------------------------------------

// Waits for an event of the only watch.
static void await_event(void) {
    static char body[64];
    struct xenstore_domain_interface* ring = xenstore_ring();
    struct xsd_sockmsg header;
    if (!WAIT_UNTIL(ACCESS(ring->rsp_prod) != ACCESS(ring->rsp_cons), LIMIT_MS)) {
        ERROR("nobody asked for anything within %u s", LIMIT_MS / 1000);
    }
    CHECK(xenstore_receive(&header, sizeof(header), sizeof(header)));
    expect("the type of a message", header.type, XS_WATCH_EVENT);
    CHECK(header.len < sizeof(body));
    CHECK(xenstore_receive(body, header.len, sizeof(body)));
    if (strcmp(body, NODE) != 0) {
        FAIL("an event of \"%s\"", body);
    }
}

static void await_console(void) {
    struct xencons_interface* ring = console_ring();
    if (!WAIT_UNTIL(ACCESS(ring->in_prod) != ring->in_cons, LIMIT_MS)) {
        ERROR("no byte came within %u s", LIMIT_MS / 1000);
    }
    ring->in_cons = ring->in_prod;
}

static void suspended(void) {
    static char word[32];
    bool deaf = has_option("deaf"), late = has_option("late");
    set_handler(CALLBACK_VECTOR, on_callback);
    shared_info();
    set_up();
    apic_enable(x2apic_available());
    if (!cpu_start(1, START_SIPI, sleeper, NULL)) {
        ERROR("vCPU 1 does not start");
    }
    tick();
    send_other_to_sleep();
    wake_other();
    CHECK(xenstore_write("control/feature-suspend", deaf ? "0" : "1") >= 0);
    print("ready\n");
    bool asked = false;
    for (unsigned done = 0;;) {
        await_event();
        CHECK(xenstore_read(NODE, word, sizeof(word)) >= 0);
        if (word[0] == 0) {
            if (deaf && asked) {
                print("withdrawn\n");
                deaf = false;
            }
            continue;
        }
        asked = true;
        if (deaf) {
            continue;
        }
        CHECK(xenstore_write(NODE, "") >= 0);
        if (strcmp(word, "poweroff") == 0) {
            print("  suspended %u times\n", done);
            return;
        }
        if (strcmp(word, "reboot") == 0) {
            shutdown(SHUTDOWN_reboot);
        }
        if (strcmp(word, "suspend") != 0) {
            FAIL("asked for \"%s\"", word);
        }
        if (late) {
            print("waits\n");
            await_console();
            late = false;
        }
        suspend();
        done++;
    }
}

TESTS({"suspended", suspended});
