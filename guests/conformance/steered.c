// A guest that the operator stops and lets go on, as often as he likes, and that must not notice but
// by its clock. tests/guest/control does that, from "ready" until it sends a byte to the console.
//
//   vCPU 0: instructions that take two exits; the clock; timers
//   vCPU 1: long hypercalls without end

#include "test.h"

#define MS 1000000ull
#define EARLY 100000ull
#define IOAPIC 0xfec00000ul
#define EXTENTS 48
#define LIMIT_MS 100000

static volatile bool stop;
static volatile unsigned rounds;
static volatile long bad_result;

static bool is_over(void) {
    struct xencons_interface* ring = console_ring();
    return ACCESS(ring->in_prod) != ring->in_cons;
}

static void give_and_take(unsigned cpu) {
    static unsigned long gfns[EXTENTS];
    for (unsigned i = 0; i < EXTENTS; i++) {
        gfns[i] = spare_gfn(i);
    }
    while (!stop) {
        long gave = reservation(XENMEM_decrease_reservation, gfns, EXTENTS, 0);
        long took = reservation(XENMEM_populate_physmap, gfns, EXTENTS, 0);
        if (gave != EXTENTS || took != EXTENTS) {
            bad_result = gave != EXTENTS ? gave : took;
            return;
        }
        rounds++;
    }
}

static void start_other(void) {
    apic_enable(x2apic_available());
    if (!cpu_start(1, START_SIPI, give_and_take, NULL)) {
        ERROR("vCPU 1 does not start");
    }
}

static long single(uint64_t deadline) {
    struct vcpu_set_singleshot_timer arg = {.timeout_abs_ns = deadline, .flags = 0};
    return vcpu_op(VCPUOP_set_singleshot_timer, 0, &arg);
}

static void steered(void) {
    volatile uint8_t* ioapic = map_alias(IOAPIC);
    if (ioapic == NULL) {
        ioapic = (volatile uint8_t*)IOAPIC;
    }
    uint32_t port;
    NEED(bind_virq(VIRQ_TIMER, 0, &port));
    port_mask(port, true);
    uint64_t last = xen_time(), longest = 0, deadline = 0;
    long before = domid_op(XENMEM_current_reservation, DOMID_SELF);
    start_other();
    print("ready\n");

    uint8_t select = 0;
    unsigned expired = 0;
    uint64_t limit = tsc_after_ms(LIMIT_MS);
    *ioapic = select;
    while (!is_over()) {
        // Read and written by one instruction: the write is an exit that comes while the read is
        // completed.
        asm volatile("incb %0" : "+m"(*ioapic));
        select++;
        expect("the IOAPIC's register number", *ioapic, select);

        uint64_t now = xen_time();
        if (now < last) {
            FAIL("the clock went back by %llu ns", (unsigned long long)(last - now));
        }
        longest = now - last > longest ? now - last : longest;
        last = now;

        if (deadline == 0) {
            deadline = now + 2 * MS;
            EXPECT_RESULT(single(deadline), 0);
        } else if (port_take(port)) {
            CHECK(xen_time() + EARLY >= deadline);
            deadline = 0;
            expired++;
        } else if (now > deadline + 5000 * MS) {
            FAIL("a timer did not expire");
        }
        if (rdtsc() > limit) {
            ERROR("nobody ended this within %u s", LIMIT_MS / 1000);
        }
    }
    stop = true;
    CHECK(SPIN_UNTIL(cpus_finished == 1, PATIENCE_MS));
    expect_result("a reservation's result", bad_result, 0);
    expect("pages", (unsigned long)domid_op(XENMEM_current_reservation, DOMID_SELF),
           (unsigned long)before);
    print("  %u timers, %u rounds of hypercalls, longest stop about %u ms\n", expired, rounds,
          (unsigned)(longest >> 20));
    CHECK(expired > 0);
    CHECK(rounds > 0);
}

TESTS({"steered", steered});
