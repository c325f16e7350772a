// FIFO event channels: queues, priorities, masks, delivery by vector and by polling; a reset that
// is preempted; and the start of the Windows drivers, who reset everything and bind the store's and
// the console's ports anew.

#include "test.h"

#define VECTOR 0xf3
#define PENDING (1u << EVTCHN_FIFO_PENDING)
#define MASKED (1u << EVTCHN_FIFO_MASKED)
#define LINKED (1u << EVTCHN_FIFO_LINKED)
#define LINK_MASK ((1u << EVTCHN_FIFO_LINK_BITS) - 1)
#define MAX_TAKEN 600

static struct { uint32_t remote_store, remote_console; } backends;

static unsigned long control_gfn(unsigned cpu) {
    return spare_gfn(cpu);
}
static unsigned long array_gfn(void) {
    return spare_gfn(4);
}
static struct evtchn_fifo_control_block* control(unsigned cpu) {
    return (struct evtchn_fifo_control_block*)(control_gfn(cpu) * PAGE_SIZE);
}
static uint32_t* word(uint32_t port) {
    return (uint32_t*)(array_gfn() * PAGE_SIZE) + port;
}

static long init_control(unsigned cpu, unsigned long gfn, uint32_t offset, uint8_t* link_bits) {
    struct evtchn_init_control arg = {.control_gfn = gfn, .offset = offset, .vcpu = cpu};
    long result = evtchn_op(EVTCHNOP_init_control, &arg);
    if (link_bits != NULL) {
        *link_bits = arg.link_bits;
    }
    return result;
}

static long expand_array(uint64_t gfn) {
    struct evtchn_expand_array arg = {.array_gfn = gfn};
    return evtchn_op(EVTCHNOP_expand_array, &arg);
}

static long set_priority(uint32_t port, uint32_t priority) {
    struct evtchn_set_priority arg = {.port = port, .priority = priority};
    return evtchn_op(EVTCHNOP_set_priority, &arg);
}

static long bind_backend(uint32_t remote, uint32_t* local) {
    struct evtchn_bind_interdomain arg = {.remote_dom = 0, .remote_port = remote};
    long result = evtchn_op(EVTCHNOP_bind_interdomain, &arg);
    *local = arg.local_port;
    return result;
}

static long reset_all(void) {
    struct evtchn_reset arg = {.dom = DOMID_SELF};
    return evtchn_op(EVTCHNOP_reset, &arg);
}

// As the Windows drivers do at their start (win-xenbus, evtchn): what the ports are bound to, a
// reset, and both bound again. No text may be printed meanwhile.
static void start_over(void) {
    struct evtchn_status store, console;
    uint32_t old_store = xenstore_port(), old_console = console_port(), local;
    NEED(port_status(old_store, &store));
    NEED(port_status(old_console, &console));
    bool bound = store.status == EVTCHNSTAT_interdomain && console.status == EVTCHNSTAT_interdomain;
    backends.remote_store = store.u.interdomain.port;
    backends.remote_console = console.u.interdomain.port;
    long result = reset_all();
    struct evtchn_status after;
    long old_is = port_status(old_console, &after);
    uint32_t new_store, new_console;
    long store_result = bind_backend(backends.remote_store, &new_store);
    long console_result = bind_backend(backends.remote_console, &new_console);
    set_param(HVM_PARAM_STORE_EVTCHN, new_store);
    set_param(HVM_PARAM_CONSOLE_EVTCHN, new_console);

    CHECK(bound);
    EXPECT_RESULT(result, 0);
    EXPECT_RESULT(old_is, 0);
    EXPECT(after.status, EVTCHNSTAT_closed);
    EXPECT_RESULT(store_result, 0);
    EXPECT_RESULT(console_result, 0);
    // The lowest ones, so the console's number is what the rest of this guest knows.
    EXPECT(new_store, 1);
    EXPECT(new_console, 2);
    EXPECT(xenstore_port(), 1);
    EXPECT_RESULT(bind_backend(backends.remote_store, &local), -EINVAL);
}

static void windows_start(void) {
    start_over();
    char reply[64];
    CHECK(xenstore_read("domid", reply, sizeof(reply)) > 0);
    start_over();
    CHECK(console_drain());
}

static void fifo_on(void) {
    start_over();
    for (unsigned page = 0; page < 8; page++) {
        memset((void*)(spare_gfn(page) * PAGE_SIZE), 0, PAGE_SIZE);
    }
    // The backends send when they like: they may do so, but not into queues whose order we check.
    *word(console_port()) = *word(xenstore_port()) = MASKED;
    NEED(init_control(0, control_gfn(0), 0, NULL));
    NEED(init_control(1, control_gfn(1), 256, NULL));
    NEED(expand_array(array_gfn()));
}

// What is queued for a vCPU whose control block is at `block`, in order.
static uint32_t local_head[16];
static unsigned take(struct evtchn_fifo_control_block* block, uint32_t* ports) {
    unsigned count = 0;
    uint32_t ready = __atomic_exchange_n(&block->ready, 0, __ATOMIC_SEQ_CST);
    while (ready != 0 && count < MAX_TAKEN) {
        unsigned q = (unsigned)__builtin_ctz(ready);
        uint32_t port = local_head[q] != 0 ? local_head[q] : ACCESS(block->head[q]);
        uint32_t old = __atomic_fetch_and(word(port), ~(LINKED | LINK_MASK), __ATOMIC_SEQ_CST);
        local_head[q] = old & LINK_MASK;
        if (local_head[q] == 0) {
            ready &= ~(1u << q);
        }
        if ((old & (PENDING | MASKED)) == PENDING) {
            __atomic_fetch_and(word(port), ~PENDING, __ATOMIC_SEQ_CST);
            ports[count++] = port;
        }
        ready |= __atomic_exchange_n(&block->ready, 0, __ATOMIC_SEQ_CST);
    }
    return count;
}

static void clear_queue(void) {
    uint32_t ports[MAX_TAKEN];
    memset(local_head, 0, sizeof(local_head));
    take(control(0), ports);
    ACCESS(vcpu_info(0)->evtchn_upcall_pending) = 0;
}

// Xen's answers, measured on 4.17.7 (xen-417-golden.md, "Reset and FIFO").
static void as_measured(void) {
    uint8_t link_bits = 0;
    start_over();
    table_fact("init_control ~0", init_control(0, (unsigned long)-1, 0, NULL), -EINVAL);
    table_fact("init_control hole", init_control(0, 0x7fff0, 0, NULL), -EINVAL);
    table_fact("init_control vcpu", init_control(9999, control_gfn(0), 0, NULL), -ENOENT);
    table_fact("init_control offset 3", init_control(0, control_gfn(0), 3, NULL), -EINVAL);
    table_fact("init_control offset 4096", init_control(0, control_gfn(0), 4096, NULL), -EINVAL);
    table_fact("init_control offset 4088", init_control(0, control_gfn(0), 4088, NULL), -EINVAL);
    table_fact("expand_array in 2-level", expand_array(array_gfn()), -EOPNOTSUPP);
    table_fact("set_priority in 2-level", set_priority(1, 3), -ENOSYS);
    table_fact("init_control", init_control(0, control_gfn(0), 0, &link_bits), 0);
    table_fact("link_bits", link_bits, 0x11);
    table_fact("init_control again", init_control(0, control_gfn(0), 0, NULL), -EINVAL);
    table_fact("expand_array", expand_array(array_gfn()), 0);
    table_fact("expand_array ~0", expand_array(~0ull), -EINVAL);
    table_fact("expand_array hole", expand_array(0x7fff0), -EINVAL);
    table_fact("set_priority 3", set_priority(2, 3), 0);
    table_fact("set_priority 16", set_priority(2, 16), -EINVAL);
    table_fact("set_priority port 0", set_priority(0, 3), -EACCES);
    struct evtchn_status status;
    table_fact("status 131071", port_status(131071, &status), -EINVAL);
    table_fact("status 131072", port_status(131072, &status), -EINVAL);
    start_over();
    table_fact("expand_array after reset", expand_array(array_gfn()), -EOPNOTSUPP);
    table_end();
}

static void order_and_priorities(void) {
    uint32_t port[4], ports[MAX_TAKEN];
    fifo_on();
    for (unsigned i = 0; i < 4; i++) {
        NEED(bind_ipi(0, &port[i]));
    }
    clear_queue();
    EXPECT_RESULT(set_priority(port[3], EVTCHN_FIFO_PRIORITY_MAX), 0);
    EXPECT_RESULT(set_priority(port[0], EVTCHN_FIFO_PRIORITY_MIN), 0);
    for (unsigned i = 0; i < 4; i++) {
        EXPECT_RESULT(port_send(port[i]), 0);
    }
    CHECK(ACCESS(vcpu_info(0)->evtchn_upcall_pending) == 1);
    unsigned count = take(control(0), ports);
    uint32_t seen[4];
    memcpy(seen, ports, sizeof(seen));
    start_over();
    EXPECT(count, 4);
    EXPECT(seen[0], port[3]);
    EXPECT(seen[1], port[1]);
    EXPECT(seen[2], port[2]);
    EXPECT(seen[3], port[0]);
}

static void masked_and_polled(void) {
    uint32_t port, ports[MAX_TAKEN];
    fifo_on();
    NEED(bind_ipi(0, &port));
    clear_queue();
    *word(port) |= MASKED;
    EXPECT_RESULT(port_send(port), 0);
    EXPECT(*word(port), PENDING | MASKED);
    EXPECT_RESULT(poll_port(port, 0), 0);
    EXPECT(take(control(0), ports), 0);
    EXPECT_RESULT(port_unmask(port), 0);
    EXPECT(*word(port), PENDING | LINKED);
    EXPECT(take(control(0), ports), 1);
    EXPECT(ports[0], port);
    EXPECT(*word(port), 0);
    // Nothing pending: the poll lasts until its time.
    uint64_t deadline = xen_time() + 10000000;
    EXPECT_RESULT(poll_port(port, deadline), 0);
    CHECK(xen_time() + 100000 >= deadline);
    start_over();
}

static void moves_between_vcpus(void) {
    uint32_t unbound, port, ports[MAX_TAKEN];
    struct evtchn_fifo_control_block* other =
        (struct evtchn_fifo_control_block*)(control_gfn(1) * PAGE_SIZE + 256);
    fifo_on();
    struct evtchn_alloc_unbound alloc = {.dom = DOMID_SELF, .remote_dom = DOMID_SELF};
    NEED(evtchn_op(EVTCHNOP_alloc_unbound, &alloc));
    unbound = alloc.port;
    struct evtchn_bind_interdomain bind = {.remote_dom = DOMID_SELF, .remote_port = unbound};
    NEED(evtchn_op(EVTCHNOP_bind_interdomain, &bind));
    port = bind.local_port;
    clear_queue();
    struct evtchn_bind_vcpu to = {.port = unbound, .vcpu = 1};
    EXPECT_RESULT(port_send(port), 0);
    EXPECT_RESULT(evtchn_op(EVTCHNOP_bind_vcpu, &to), 0);
    EXPECT(take(other, ports), 0);  // it is on vCPU 0's queue already
    EXPECT(take(control(0), ports), 1);
    EXPECT_RESULT(port_send(port), 0);
    EXPECT(take(control(0), ports), 0);
    memset(local_head, 0, sizeof(local_head));
    EXPECT(take(other, ports), 1);
    EXPECT(ports[0], unbound);
    memset(local_head, 0, sizeof(local_head));
    start_over();
}

static volatile unsigned handled;
static void on_vector(struct trap_frame* frame) {
    (void)frame;
    uint32_t ports[MAX_TAKEN];
    ACCESS(vcpu_info(0)->evtchn_upcall_pending) = 0;
    handled += take(control(0), ports);
}

static void delivered_by_vector(void) {
    uint32_t port;
    set_handler(VECTOR, on_vector);
    fifo_on();
    NEED(bind_ipi(0, &port));
    clear_queue();
    NEED(set_callback_vector(VECTOR));
    handled = 0;
    interrupts_on();
    for (unsigned i = 1; i <= 200; i++) {
        EXPECT_RESULT(port_send(port), 0);
        CHECK(SPIN_UNTIL(handled == i, PATIENCE_MS));
    }
    interrupts_off();
    start_over();
}

// The store's replies arrive through the queues too.
static void backends_in_fifo(void) {
    char reply[64];
    fifo_on();
    // Bound in 2-level, pending since: raised when the array came.
    CHECK((*word(xenstore_port()) & PENDING) != 0);
    __atomic_fetch_and(word(xenstore_port()), ~PENDING, __ATOMIC_SEQ_CST);
    int length = xenstore_read("domid", reply, sizeof(reply));
    bool pending = WAIT_UNTIL((*word(xenstore_port()) & PENDING) != 0, PATIENCE_MS);
    start_over();
    CHECK(length > 0);
    CHECK(pending);
}

// More ports than one step of a reset closes; the guest cannot see that it was stopped.
static void long_reset(void) {
    uint32_t port, last = 0;
    fifo_on();
    for (unsigned i = 0; i < 500; i++) {
        NEED(bind_ipi(i % 2, &port));
        last = port;
    }
    start_over();
    EXPECT(last, 502);
    struct evtchn_status status;
    for (uint32_t p = 3; p <= last; p++) {
        NEED(port_status(p, &status));
        EXPECT(status.status, EVTCHNSTAT_closed);
    }
    // The continuation's own number, when none is waiting.
    struct evtchn_reset arg = {.dom = DOMID_SELF};
    EXPECT_RESULT(evtchn_op(14, &arg), -EBUSY);
}

// Words and heads rewritten in the worst ways: no answer is owed, but everybody lives on.
static void hostile_words(void) {
    uint32_t port[40];
    fifo_on();
    for (unsigned i = 0; i < ARRAY_SIZE(port); i++) {
        NEED(bind_ipi(i % 2, &port[i]));
    }
    uint32_t noise = 12345;
    for (unsigned i = 0; i < 4000; i++) {
        noise = noise * 1664525 + 1013904223;
        *word(noise >> 22) = noise;
        control(0)->ready = noise;
        control(0)->head[noise >> 28] = ~noise;
        port_send(port[i % ARRAY_SIZE(port)]);
        port_unmask(port[(i + 7) % ARRAY_SIZE(port)]);
        if (i % 64 == 0) {
            port_close(port[5]);
            bind_ipi(0, &port[5]);
        }
    }
    long again = reservation(XENMEM_decrease_reservation, (unsigned long[]){array_gfn()}, 1, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(port); i++) {
        port_send(port[i]);
    }
    long back = reservation(XENMEM_populate_physmap, (unsigned long[]){array_gfn()}, 1, 0);
    memset(local_head, 0, sizeof(local_head));
    start_over();
    EXPECT_RESULT(again, 1);
    EXPECT_RESULT(back, 1);
}

TESTS({"fifo.windows_start", windows_start}, {"fifo.as_measured", as_measured},
      {"fifo.order_and_priorities", order_and_priorities},
      {"fifo.masked_and_polled", masked_and_polled},
      {"fifo.moves_between_vcpus", moves_between_vcpus},
      {"fifo.delivered_by_vector", delivered_by_vector},
      {"fifo.backends_in_fifo", backends_in_fifo}, {"fifo.long_reset", long_reset},
      {"fifo.hostile_words", hostile_words}, {"fifo.works_after_hostility", order_and_priorities});
