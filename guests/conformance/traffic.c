// A guest that is never idle: long hypercalls, grant copies to itself, events to and fro between
// two vCPUs, timers, console, xenstore; all of it numbered, so that it notices whatever is lost,
// comes twice or in another order, and a clock that goes back. Somebody may save and restore it all
// the while (tests/saved_sweep): he sees in its memory that each of these goes on.
//
//   lines=N      ends after N lines of the console (default 200; 0: not by itself)
//   progress=GPA where it counts what it does, for him; a word behind it that is not 0 ends it

#include "test.h"

#define VECTOR 0xf3
#define EXTENTS 40
#define COPIES 24
#define EARLY 100000ull  // ns: two vCPUs' clocks, and a timer's, may differ so much
#define PATIENCE_NS 20000000000ull

enum kind { CONTINUED, COPIED, PINGED, EXPIRED, PRINTED, STORED, KINDS };

static struct progress {
    volatile uint64_t count[KINDS];
    volatile uint64_t end;
} own, *progress = &own;

// What went wrong first, on whichever vCPU.
static volatile bool stop, bad;
static char what_is_bad[120];

__attribute__((format(printf, 1, 2))) static void complain(const char* fmt, ...) {
    static volatile unsigned long taken;
    if (!test_and_set_bit(0, &taken)) {
        va_list args;
        va_start(args, fmt);
        format(what_is_bad, sizeof(what_is_bad), fmt, args);
        va_end(args);
        barrier();
        bad = true;
    }
    stop = true;
}

// ---- the clock ----------------------------------------------------------------------------------

static volatile uint64_t last_time[2], last_tsc[2];

static uint64_t look_at_clock(void) {
    unsigned cpu = this_cpu();
    uint64_t others = last_time[1 - cpu];
    barrier();
    uint64_t tsc = rdtsc(), now = xen_time_of(cpu);
    if (now < last_time[cpu]) {
        complain("vCPU %u: its clock went back by %llu ns", cpu,
                 (unsigned long long)(last_time[cpu] - now));
    }
    if (tsc < last_tsc[cpu]) {
        complain("vCPU %u: its TSC went back by %llu", cpu,
                 (unsigned long long)(last_tsc[cpu] - tsc));
    }
    // Of a 64-bit guest only: the others' words are written in two halves.
    if (sizeof(long) == 8 && now + EARLY < others) {
        complain("vCPU %u: its clock is %llu ns behind the other's", cpu,
                 (unsigned long long)(others - now));
    }
    last_time[cpu] = now;
    last_tsc[cpu] = tsc;
    return now;
}

// ---- events and timers
// ----------------------------------------------------------------------------

static uint32_t timer_port, ping_port, pong_port, store_port;
static volatile unsigned pings_sent, pings_got, pongs_got;
static volatile uint64_t deadline;  // 0: not armed
static volatile uint64_t armed_at;

static void arm(void) {
    static unsigned round;
    armed_at = xen_time();
    deadline = armed_at + 300000 + 7919 * (round++ % 64);
    struct vcpu_set_singleshot_timer timer = {.timeout_abs_ns = deadline};
    if (vcpu_op(VCPUOP_set_singleshot_timer, 0, &timer) != 0) {
        complain("a timer is refused");
    }
}

static void on_timer(void) {
    if (deadline == 0) {
        complain("a timer that nobody had armed");
    } else if (xen_time() + EARLY < deadline) {
        complain("a timer came %llu ns early", (unsigned long long)(deadline - xen_time()));
    }
    deadline = 0;
    progress->count[EXPIRED]++;
    if (!stop) {
        arm();
    }
}

// Each vCPU looks at its own ports: their bits lie in one word.
static void on_upcall(struct trap_frame* frame) {
    struct vcpu_info* vcpu = vcpu_info(this_cpu());
    ACCESS(vcpu->evtchn_upcall_pending) = 0;
    barrier();
    ACCESS(vcpu->evtchn_pending_sel) = 0;
    if (this_cpu() == 1) {
        if (port_take(ping_port)) {
            if (++pings_got != pings_sent) {
                complain("%u events came of %u that were sent", pings_got, pings_sent);
            }
            port_send(pong_port);
        }
        return;
    }
    if (port_take(timer_port)) {
        on_timer();
    }
    if (port_take(pong_port)) {
        if (++pongs_got != pings_sent) {
            complain("%u answers came for %u events", pongs_got, pings_sent);
        }
        progress->count[PINGED]++;
    }
    port_take(store_port);  // its ring is looked at all the time
    port_take(console_port());
}

// ---- the other vCPU: long hypercalls
// ----------------------------------------------------------------

static unsigned long gfns[EXTENTS];

static volatile uint32_t* word_of(unsigned long gfn) {
    return (volatile uint32_t*)(gfn * PAGE_SIZE + 64);
}

static void give_and_take(unsigned cpu) {
    interrupts_on();
    for (uint32_t round = 1; !stop; round++) {
        for (unsigned i = 0; i < EXTENTS; i++) {
            gfns[i] = spare_gfn(16 + i);
            *word_of(gfns[i]) = round * 64 + i;
        }
        long gave = reservation(XENMEM_decrease_reservation, gfns, EXTENTS, 0);
        long took = reservation(XENMEM_populate_physmap, gfns, EXTENTS, 0);
        if (gave != EXTENTS || took != EXTENTS) {
            complain("a reservation: %ld given back, %ld taken", gave, took);
        }
        for (unsigned i = 0; i < EXTENTS; i++) {
            if (*word_of(gfns[i]) != 0) {
                complain("a populated page holds 0x%x", *word_of(gfns[i]));
            }
        }
        look_at_clock();
        progress->count[CONTINUED]++;
    }
    // Until the last event has been answered.
    SPIN_UNTIL(pings_got == pings_sent, PATIENCE_MS);
    interrupts_off();
}

// ---- this one
// ---------------------------------------------------------------------------------------

static struct gnttab_copy copies[COPIES];

static void grants_on(void) {
    domid_t self = (domid_t)cpuid(xen_base + 4, 0).ecx;
    NEED(add_to_physmap(XENMAPSPACE_grant_table, 0, spare_gfn(0)));
    volatile struct grant_entry_v1* entries =
        (volatile struct grant_entry_v1*)(spare_gfn(0) * PAGE_SIZE);
    for (unsigned i = 0; i < 2; i++) {
        entries[8 + i].domid = self;
        entries[8 + i].frame = (uint32_t)spare_gfn(1 + i);
        barrier();
        entries[8 + i].flags = GTF_permit_access;
    }
    for (unsigned i = 0; i < COPIES; i++) {
        copies[i].source.u.ref = 8;
        copies[i].source.domid = self;
        copies[i].dest.u.ref = 9;
        copies[i].dest.domid = self;
        copies[i].source.offset = (uint16_t)(i * 64);
        copies[i].dest.offset = (uint16_t)((COPIES - 1 - i) * 64);
        copies[i].len = 64;
        copies[i].flags = GNTCOPY_source_gref | GNTCOPY_dest_gref;
    }
}

static void copy(uint32_t round) {
    volatile uint32_t* from = (volatile uint32_t*)(spare_gfn(1) * PAGE_SIZE);
    volatile uint32_t* to = (volatile uint32_t*)(spare_gfn(2) * PAGE_SIZE);
    for (unsigned i = 0; i < COPIES; i++) {
        from[i * 16] = round * 32 + i;
        copies[i].status = 77;
    }
    long result = grant_table_op(GNTTABOP_copy, copies, COPIES);
    for (unsigned i = 0; i < COPIES; i++) {
        if (result != 0 || copies[i].status != 0 || to[(COPIES - 1 - i) * 16] != round * 32 + i) {
            complain("copy %u: result %ld, status %d, 0x%x in place of 0x%x", i, result,
                     copies[i].status, to[(COPIES - 1 - i) * 16], round * 32 + i);
        }
    }
    progress->count[COPIED]++;
}

// A request and its reply; watches that fired before it are counted.
static unsigned fired, requests;

static bool ask_store(uint32_t type, const void* payload, uint32_t size, char* reply,
                      uint32_t reply_size) {
    static char dropped[256];
    struct xsd_sockmsg header = {.type = type, .req_id = ++requests, .tx_id = 0, .len = size};
    if (!xenstore_send(&header, sizeof(header), sizeof(header)) ||
        !xenstore_send(payload, size, XENSTORE_RING_SIZE)) {
        complain("the store takes no request");
        return false;
    }
    for (;;) {
        if (!xenstore_receive(&header, sizeof(header), sizeof(header))) {
            complain("the store does not answer request %u", requests);
            return false;
        }
        bool event = header.type == XS_WATCH_EVENT;
        if (header.len >= (event ? sizeof(dropped) : reply_size) ||
            !xenstore_receive(event ? dropped : reply, header.len, XENSTORE_RING_SIZE)) {
            complain("the store's answer has %u bytes", header.len);
            return false;
        }
        if (event) {
            fired++;
            continue;
        }
        reply[header.len] = 0;
        if (header.req_id != requests || header.type != type) {
            complain("request %u of type %u is answered as %u of type %u", requests, type,
                     header.req_id, header.type);
            return false;
        }
        return true;
    }
}

static void store(uint32_t round) {
    static char path[] = "data/traffic", payload[40], reply[64], value[12];
    memcpy(payload, path, sizeof(path));
    int size = format_to(payload + sizeof(path), sizeof(payload) - sizeof(path), "%u", round);
    format_to(value, sizeof(value), "%u", round);
    if (!ask_store(XS_WRITE, payload, sizeof(path) + (uint32_t)size, reply, sizeof(reply)) ||
        !ask_store(XS_READ, path, sizeof(path), reply, sizeof(reply))) {
        return;
    }
    if (strcmp(reply, value) != 0) {
        complain("the store has %s in place of %s", reply, value);
    }
    // Once when it was set, and once for each value.
    if (fired != round + 1) {
        complain("a watch fired %u times for %u values", fired, round);
    }
    progress->count[STORED]++;
}

static void set_up(void) {
    progress = (struct progress*)(uintptr_t)option_number("progress", (uintptr_t)&own);
    shared_info();
    set_handler(VECTOR, on_upcall);
    NEED(set_callback_vector(VECTOR));
    store_port = xenstore_port();
    NEED(bind_virq(VIRQ_TIMER, 0, &timer_port));
    NEED(bind_ipi(1, &ping_port));
    NEED(bind_ipi(0, &pong_port));
    port_mask(timer_port, false);
    port_mask(ping_port, false);
    port_mask(pong_port, false);
    grants_on();
    char reply[64];
    static const char watch[] = "data/traffic\0traffic";
    if (!ask_store(XS_WATCH, watch, sizeof(watch), reply, sizeof(reply))) {
        ERROR("no watch can be set");
    }
}

static void traffic(void) {
    uint64_t lines = option_number("lines", 200);
    set_up();
    long before = domid_op(XENMEM_current_reservation, DOMID_SELF);
    apic_enable(x2apic_available());
    if (!cpu_start(1, START_SIPI, give_and_take, NULL)) {
        ERROR("vCPU 1 does not start");
    }
    interrupts_on();
    arm();
    for (uint32_t round = 1; !stop; round++) {
        uint64_t now = look_at_clock();
        if (pongs_got == pings_sent) {
            pings_sent++;
            port_send(ping_port);
        }
        copy(round);
        store(round);
        print("traffic %u\n", round);
        progress->count[PRINTED] = round;
        uint64_t timer = deadline;
        if (timer != 0 && now > timer + PATIENCE_NS && deadline == timer) {
            complain("a timer does not expire");
        }
        if (round == lines || progress->end != 0) {
            stop = true;
        }
    }
    if (!bad) {
        CHECK(SPIN_UNTIL(cpus_finished == 1, PATIENCE_MS));
        CHECK(SPIN_UNTIL(pongs_got == pings_sent, PATIENCE_MS));
        CHECK(SPIN_UNTIL(deadline == 0, PATIENCE_MS));
    }
    interrupts_off();
    if (bad) {
        FAIL("%s", what_is_bad);
    }
    expect("pages", (unsigned long)domid_op(XENMEM_current_reservation, DOMID_SELF),
           (unsigned long)before);
    expect("events answered", pongs_got, pings_got);
    expect("interrupts that nobody asked for", unexpected_interrupts, 0);
    for (unsigned kind = 0; kind < KINDS; kind++) {
        CHECK(progress->count[kind] > 0);
    }
    print("  %u long calls, %u lists of copies, %u events, %u timers, %u values stored\n",
          (unsigned)progress->count[CONTINUED] * 2, (unsigned)progress->count[COPIED],
          (unsigned)progress->count[PINGED], (unsigned)progress->count[EXPIRED],
          (unsigned)progress->count[STORED]);
}

TESTS({"traffic", traffic});
