// A guest that never takes an interrupt and lives by polling (elf-boot-contract.md 6.5).

#include "test.h"

#define CPU_LIMIT_MS PATIENCE_MS

static uint32_t port;

static void setup(void) {
    if (port == 0) {
        NEED(bind_ipi(0, &port));
    }
    port_take(port);
    port_mask(port, false);
    ACCESS(vcpu_info(0)->evtchn_upcall_pending) = 0;
    ACCESS(vcpu_info(0)->evtchn_pending_sel) = 0;
}

static void returns_when_pending(void) {
    setup();
    EXPECT_RESULT(port_send(port), 0);
    EXPECT_RESULT(poll_port(port, 0), 0);
    CHECK(port_take(port));
}

static void returns_when_pending_and_masked(void) {
    setup();
    port_mask(port, true);
    EXPECT_RESULT(port_send(port), 0);
    EXPECT_RESULT(poll_port(port, 0), 0);
    CHECK(port_take(port));
}

static void the_idiom(void) {
    setup();
    for (unsigned i = 0; i < 100; i++) {
        port_mask(port, i % 2 == 0);
        EXPECT_RESULT(port_send(port), 0);
        while (!port_take(port)) {
            EXPECT_RESULT(poll_port(port, 0), 0);
        }
    }
}

// Waits for somebody else: the xenstore answers a request.
static void wait_for_xenstore(bool masked) {
    setup();
    struct xenstore_domain_interface* ring = xenstore_ring();
    uint32_t store = xenstore_port();
    struct xsd_sockmsg header = {.type = XS_READ, .req_id = 7, .len = 6};
    port_mask(store, masked);
    port_take(store);
    if (!xenstore_send(&header, sizeof(header), 16) || !xenstore_send("domid", 6, 6)) {
        ERROR("the xenstore takes no request");
    }
    // With no timeout: the reply's event must come.
    uint64_t limit = tsc_after_ms(CPU_LIMIT_MS);
    while (ACCESS(ring->rsp_prod) - ACCESS(ring->rsp_cons) < sizeof(header) + 1 &&
           rdtsc() < limit) {
        EXPECT_RESULT(poll_port(store, 0), 0);
        port_take(store);
    }
    CHECK(ACCESS(ring->rsp_prod) - ACCESS(ring->rsp_cons) > sizeof(header));
    char reply[64];
    CHECK(xenstore_receive(&header, sizeof(header), 16));
    CHECK(header.len < sizeof(reply));
    CHECK(xenstore_receive(reply, header.len, 64));
    port_mask(store, false);
}

static void woken_by_a_backend(void) {
    wait_for_xenstore(false);
}
static void woken_by_a_backend_masked(void) {
    wait_for_xenstore(true);
}

static void several_ports(void) {
    setup();
    uint32_t other = 0;
    NEED(bind_ipi(0, &other));
    evtchn_port_t ports[3] = {console_port(), other, port};
    port_take(console_port());
    console_drain();
    struct sched_poll poll = {.nr_ports = 3, .timeout = 0};
    set_xen_guest_handle(poll.ports, ports);
    EXPECT_RESULT(port_send(port), 0);
    EXPECT_RESULT(sched_op(SCHEDOP_poll, &poll), 0);
    CHECK(port_take(port));
    EXPECT_RESULT(port_send(other), 0);
    EXPECT_RESULT(sched_op(SCHEDOP_poll, &poll), 0);
    CHECK(port_take(other));
    port_close(other);
}

static void closed_port_returns(void) {
    static const uint32_t ports[] = {3,    5,    63,   64,   100,    1023,   1024,      4094,
                                     4095, 4096, 4097, 5000, 131071, 131072, 0xffffffff};
    setup();
    for (unsigned i = 0; i < ARRAY_SIZE(ports); i++) {
        uint64_t start = rdtsc();
        long result = poll_port(ports[i], 1);
        if (result > 0 || result < -4095) {
            FAIL("port %u: %ld", ports[i], result);
        }
        CHECK(rdtsc() - start < tsc_after_ms(1000) - rdtsc());
    }
}

static void past_timeout_returns(void) {
    setup();
    EXPECT_RESULT(poll_port(port, 1), 0);
    CHECK(!port_pending(port));
}

static void future_timeout_returns(void) {
    setup();
    uint64_t deadline = xen_time() + 10000000;
    EXPECT_RESULT(poll_port(port, deadline), 0);
    CHECK(xen_time() + 100000 >= deadline);
}

static void does_not_clear(void) {
    setup();
    EXPECT_RESULT(port_send(port), 0);
    EXPECT_RESULT(poll_port(port, 0), 0);
    EXPECT_RESULT(poll_port(port, 0), 0);
    CHECK(port_pending(port));
}

static void yield_returns(void) {
    uint64_t limit = tsc_after_ms(CPU_LIMIT_MS);
    for (unsigned i = 0; i < 200; i++) {
        EXPECT_RESULT(yield(), 0);
    }
    CHECK(rdtsc() < limit);
}

static void backend_works_while_we_yield(void) {
    struct xencons_interface* ring = console_ring();
    print("  (text for the console's other end)\n");
    for (unsigned i = 0; i < 100000 && ACCESS(ring->out_cons) != ACCESS(ring->out_prod); i++) {
        yield();
    }
    expect("bytes left", ring->out_prod - ACCESS(ring->out_cons), 0);
}

TESTS({"c6.5.poll_pending_returns", returns_when_pending},
      {"c6.5.poll_pending_masked_returns", returns_when_pending_and_masked},
      {"c6.5.poll_idiom", the_idiom}, {"c6.5.poll_wakes", woken_by_a_backend},
      {"c6.5.poll_wakes_masked", woken_by_a_backend_masked},
      {"c6.5.poll_several_ports", several_ports},
      {"c6.5.poll_closed_port_returns", closed_port_returns},
      {"c6.5.poll_past_timeout_returns", past_timeout_returns},
      {"c6.5.poll_future_timeout_returns", future_timeout_returns},
      {"c6.5.poll_does_not_clear", does_not_clear}, {"c6.5.yield_returns", yield_returns},
      {"c6.5.yield_backend_progress", backend_works_while_we_yield});
