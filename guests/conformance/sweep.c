// The continuable operations, 300 units each, to be run with --preempt every:1 and the like, so
// that each is stopped before each of its units; upcalls come all the while and their handler makes
// hypercalls of its own. The guest checks every result and every page; the runner counts the stops.

#include "test.h"

#define VECTOR 0xf3
#define UNITS 300

static unsigned long gfns[UNITS];
static uint32_t timer_port;
static volatile unsigned upcalls, inside;

static long pages(void) {
    return domid_op(XENMEM_current_reservation, DOMID_SELF);
}

static volatile uint32_t* word_of(unsigned long gfn) {
    return (volatile uint32_t*)(gfn * PAGE_SIZE + 64);
}

static void arm(void) {
    static unsigned round;
    struct vcpu_set_singleshot_timer timer = {.timeout_abs_ns =
                                                  xen_time() + 200000 + 7919 * (round++ % 64)};
    NEED(vcpu_op(VCPUOP_set_singleshot_timer, 0, &timer));
}

static void on_port(uint32_t port) {
    upcalls++;
}

static void on_upcall(struct trap_frame* frame) {
    unsigned long stubs = (unsigned long)hypercall_page;
    // At a stub's trapping instruction with a cursor: in the middle of a call.
#ifdef __x86_64__
    unsigned long first = frame->di;
#else
    unsigned long first = frame->bx;
#endif
    if (frame->ip - stubs < sizeof(hypercall_page) && (frame->ip - stubs) % 32 == 5 &&
        frame->ax == __HYPERVISOR_memory_op && first >> 6 != 0) {
        inside++;
    }
    upcall_scan(on_port);
    static unsigned long other;
    other = spare_gfn(3 * UNITS + 40);
    reservation(XENMEM_decrease_reservation, &other, 1, 0);
    reservation(XENMEM_populate_physmap, &other, 1, 0);
    arm();
}

static void set_up(void) {
    static bool done;
    if (!done) {
        done = true;
        shared_info();
        set_handler(VECTOR, on_upcall);
        NEED(set_callback_vector(VECTOR));
        NEED(bind_virq(VIRQ_TIMER, 0, &timer_port));
        port_mask(timer_port, false);
    }
    arm();
    interrupts_on();
}

// The `i`th page of block `block`, upwards.
static unsigned long page_of(unsigned block, unsigned i) {
    return spare_gfn(UNITS * (block + 1) - 1 - i);
}

static void fill_list(unsigned block) {
    for (unsigned i = 0; i < UNITS; i++) {
        gfns[i] = page_of(block, i);
    }
}

static void decrease_and_populate(void) {
    set_up();
    long before = pages();
    fill_list(0);
    for (unsigned i = 0; i < UNITS; i++) {
        *word_of(gfns[i]) = 0x1000 + i;
    }
    *word_of(page_of(1, 0)) = 0xcafe;
    EXPECT_RESULT(reservation(XENMEM_decrease_reservation, gfns, UNITS, 0), UNITS);
    interrupts_off();
    expect("pages", (unsigned long)pages(), (unsigned long)(before - UNITS));
    interrupts_on();
    EXPECT_RESULT(reservation(XENMEM_populate_physmap, gfns, UNITS, 0), UNITS);
    interrupts_off();
    expect("pages", (unsigned long)pages(), (unsigned long)before);
    for (unsigned i = 0; i < UNITS; i++) {
        expect_fresh(gfns[i]);
    }
    expect("page beside them", *word_of(page_of(1, 0)), 0xcafe);
}

// Every third page only, and one of them named twice: the count says where.
static void stops_at_a_bad_extent(void) {
    set_up();
    long before = pages();
    for (unsigned i = 0; i < UNITS; i++) {
        gfns[i] = page_of(i % 3, i);
    }
    gfns[UNITS - 2] = gfns[3];
    EXPECT_RESULT(reservation(XENMEM_decrease_reservation, gfns, UNITS, 0), UNITS - 2);
    EXPECT_RESULT(reservation(XENMEM_populate_physmap, gfns, UNITS - 2, 0), UNITS - 2);
    interrupts_off();
    expect("pages", (unsigned long)pages(), (unsigned long)before);
}

static long move_range(unsigned long from, unsigned long to) {
    struct xen_add_to_physmap add = {.domid = DOMID_SELF,
                                     .size = UNITS,
                                     .space = XENMAPSPACE_gmfn_range,
                                     .idx = from,
                                     .gpfn = to};
    return memory_op(XENMEM_add_to_physmap, &add);
}

// Moves 300 pages by `by` gfns and back; pages left over are populated again.
static void range_by(unsigned by) {
    set_up();
    long before = pages();
    unsigned long from = page_of(0, 0), to = from - by;
    for (unsigned i = 0; i < UNITS; i++) {
        *word_of(from + i) = 0x2000 + i;
    }
    EXPECT_RESULT(move_range(from, to), 0);
    for (unsigned i = 0; i < UNITS; i++) {
        expect("content", *word_of(to + i), 0x2000 + i);
    }
    interrupts_off();
    unsigned long moved = by < UNITS ? by : UNITS;
    expect("pages", (unsigned long)pages(), (unsigned long)before - moved);
    interrupts_on();
    for (unsigned i = 0; i < moved; i++) {
        gfns[i] = from + UNITS - 1 - i;
    }
    EXPECT_RESULT(reservation(XENMEM_populate_physmap, gfns, moved, 0), (long)moved);
    interrupts_off();
    expect("pages", (unsigned long)pages(), (unsigned long)before);
}

static void range_apart(void) {
    range_by(UNITS + 7);
}
static void range_overlapping(void) {
    range_by(9);
}

static struct multicall_entry list[UNITS];

static void long_multicall(void) {
    set_up();
    memset(list, 0, sizeof(list));
    for (unsigned i = 0; i < UNITS; i++) {
        list[i].op = __HYPERVISOR_xen_version;
        list[i].args[0] = i % 2 == 0 ? XENVER_version : XENVER_pagesize;
    }
    EXPECT_RESULT(multicall(list, UNITS), 0);
    for (unsigned i = 0; i < UNITS; i++) {
        expect("result", list[i].result, i % 2 == 0 ? 0x40011 : 0x1000);
    }
    interrupts_off();
}

static void in_multicall(void) {
    set_up();
    long before = pages();
    fill_list(0);
    static struct xen_memory_reservation all;
    memset(&all, 0, sizeof(all));
    all.nr_extents = UNITS;
    all.domid = DOMID_SELF;
    set_xen_guest_handle(all.extent_start, (xen_pfn_t*)gfns);
    memset(list, 0, sizeof(list));
    for (unsigned i = 0; i < 2; i++) {
        list[i].op = __HYPERVISOR_memory_op;
        list[i].args[0] = i == 0 ? XENMEM_decrease_reservation : XENMEM_populate_physmap;
        list[i].args[1] = ARG(&all);
    }
    EXPECT_RESULT(multicall(list, 2), 0);
    expect_result("entry 0", (long)list[0].result, UNITS);
    expect_result("entry 1", (long)list[1].result, UNITS);
    interrupts_off();
    expect("pages", (unsigned long)pages(), (unsigned long)before);
}

static void interrupts_came(void) {
    interrupts_off();
    CHECK(upcalls > 0);
    print("  %u upcalls, %u of them in the middle of a memory_op\n", upcalls, inside);
}

TESTS({"sweep.decrease_and_populate", decrease_and_populate},
      {"sweep.stops_at_a_bad_extent", stops_at_a_bad_extent}, {"sweep.range_apart", range_apart},
      {"sweep.range_overlapping", range_overlapping}, {"sweep.long_multicall", long_multicall},
      {"sweep.in_multicall", in_multicall}, {"sweep.interrupts_came", interrupts_came});
