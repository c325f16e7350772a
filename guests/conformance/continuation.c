// A preempted hypercall must end as if it had not been. The cases run this guest without --preempt
// and with every:1, every:3 and so on: it checks the same results and the same memory each time.

#include "test.h"

#define MAX_EXTENTS 48

static unsigned long gfns[MAX_EXTENTS];

static long pages(void) {
    return domid_op(XENMEM_current_reservation, DOMID_SELF);
}

static volatile uint32_t* word_of(unsigned long gfn) {
    return (volatile uint32_t*)(gfn * PAGE_SIZE);
}

static void fill_list(unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        gfns[i] = spare_gfn(i);
    }
}

// Gives `count` pages back and takes them again, and looks at each of them and at the two beside
// them.
static void give_and_take(unsigned count) {
    long before = pages();
    fill_list(count);
    for (unsigned i = 0; i < count; i++) {
        *word_of(gfns[i]) = 0x600d0000 + i;
    }
    *word_of(spare_gfn(count)) = 0xcafe;

    expect_result("decrease", reservation(XENMEM_decrease_reservation, gfns, count, 0), count);
    expect("pages after decrease", (unsigned long)pages(), (unsigned long)(before - count));
    for (unsigned i = 0; i < count; i++) {
        // All ones on Xen; zeroes where a host cannot have an exact hole. Never the old content.
        uint32_t seen = *word_of(gfns[i]);
        if (seen != ~0u && seen != 0) {
            FAIL("page %u of %u still reads 0x%x after decrease", i, count, seen);
        }
    }
    expect_result("populate", reservation(XENMEM_populate_physmap, gfns, count, 0), count);
    expect("pages after populate", (unsigned long)pages(), (unsigned long)before);
    for (unsigned i = 0; i < count; i++) {
        if (!has_option("facts")) {  // Xen 4.17.7 gives a page as it was left: no fact to compare
            expect("content after populate", *word_of(gfns[i]), 0);
        }
        *word_of(gfns[i]) = i;
    }
    for (unsigned i = 0; i < count; i++) {
        expect("page is its own", *word_of(gfns[i]), i);
    }
    expect("page beside them", *word_of(spare_gfn(count)), 0xcafe);
}

static void one(void) {
    give_and_take(1);
}
static void two(void) {
    give_and_take(2);
}
static void four(void) {
    give_and_take(4);
}
static void five(void) {
    give_and_take(5);
}
static void many(void) {
    give_and_take(MAX_EXTENTS);
}

static void none(void) {
    EXPECT_RESULT(reservation(XENMEM_decrease_reservation, gfns, 0, 0), 0);
    EXPECT_RESULT(reservation(XENMEM_populate_physmap, gfns, 0, 0), 0);
}

// A bad extent stops the call there, wherever the stops of preemption were.
static void bad_extent(void) {
    long before = pages();
    fill_list(12);
    gfns[7] = 0x7fff0;
    EXPECT_RESULT(reservation(XENMEM_decrease_reservation, gfns, 12, 0), 7);
    expect("pages", (unsigned long)pages(), (unsigned long)(before - 7));
    EXPECT_RESULT(reservation(XENMEM_populate_physmap, gfns, 7, 0), 7);
    expect("pages", (unsigned long)pages(), (unsigned long)before);
}

static void duplicate(void) {
    fill_list(4);
    gfns[2] = gfns[0];
    EXPECT_RESULT(reservation(XENMEM_decrease_reservation, gfns, 4, 0), 2);
    fill_list(2);
    EXPECT_RESULT(reservation(XENMEM_populate_physmap, gfns, 2, 0), 2);
}

// The list crosses a page boundary, and its second page cannot be read.
static void list_fault(void) {
#if GUEST_PAGING == PAGING_NONE
    SKIP("no paging");
#else
    unsigned long* list = (unsigned long*)(UNMAPPED_VA - 8 * sizeof(unsigned long));
    struct xen_memory_reservation arg = {.nr_extents = 12, .domid = DOMID_SELF};
    set_xen_guest_handle(arg.extent_start, (xen_pfn_t*)list);
    // What lies below UNMAPPED_VA is outside RAM and reads as ones: no page at all.
    EXPECT_RESULT(memory_op(XENMEM_decrease_reservation, &arg), 0);
#endif
}

// As the guest would have typed a continuation itself.
static void typed_cursor(void) {
    long before = pages();
    fill_list(6);
    struct xen_memory_reservation arg = {.nr_extents = 6, .domid = DOMID_SELF};
    set_xen_guest_handle(arg.extent_start, (xen_pfn_t*)gfns);
    EXPECT_RESULT(memory_op(XENMEM_decrease_reservation | 4 << 6, &arg), 6);
    expect("pages", (unsigned long)pages(), (unsigned long)(before - 2));
    EXPECT_RESULT(memory_op(XENMEM_decrease_reservation | 6 << 6, &arg), 6);
    EXPECT_RESULT(memory_op(XENMEM_decrease_reservation | 9 << 6, &arg), 9);
    EXPECT_RESULT(memory_op(XENMEM_populate_physmap | 4 << 6, &arg), 6);
    expect("pages", (unsigned long)pages(), (unsigned long)before);
}

// The registers of the call are as before when it is over, for a guest compiled to rely on it.
static void registers_kept(void) {
    fill_list(6);
    struct xen_memory_reservation arg = {.nr_extents = 6, .domid = DOMID_SELF};
    set_xen_guest_handle(arg.extent_start, (xen_pfn_t*)gfns);
    unsigned long result = 0;
    unsigned long di = XENMEM_decrease_reservation;
    unsigned long si = ARG(&arg);
#ifdef __x86_64__
    unsigned long dx = 0x1111, bx = 0x2222;
    register unsigned long r10 asm("r10") = 0x3333;
    register unsigned long r8 asm("r8") = 0x4444;
    register unsigned long r9 asm("r9") = 0x5555;
    register unsigned long r15 asm("r15") = 0x6666;
    asm volatile("call *%[stub]"
                 : "=a"(result), "+D"(di), "+S"(si), "+d"(dx), "+b"(bx), "+r"(r10), "+r"(r8),
                   "+r"(r9), "+r"(r15)
                 : [stub] "r"(hypercall_page + __HYPERVISOR_memory_op * 32)
                 : "memory");
    // Any call may change the registers themselves, also that of expect().
    const unsigned long got[] = {r10, r8, r9, r15};
    expect("RDX", dx, 0x1111);
    expect("RBX", bx, 0x2222);
    expect("R10", got[0], 0x3333);
    expect("R8", got[1], 0x4444);
    expect("R9", got[2], 0x5555);
    expect("R15", got[3], 0x6666);
#else
    unsigned long dx = 0x1111, esi = 0x2222, edi = 0x3333;
    const uint8_t* stub = hypercall_page + __HYPERVISOR_memory_op * 32;
    asm volatile("call *%%eax"
                 : "=a"(result), "+b"(di), "+c"(si), "+d"(dx), "+S"(esi), "+D"(edi)
                 : "0"(stub)
                 : "memory");
    expect("EDX", dx, 0x1111);
    expect("ESI", esi, 0x2222);
    expect("EDI", edi, 0x3333);
#endif
    expect("result", result, 6);
    expect("pointer", si, ARG(&arg));
    // The command may show how far the last part had come, as on Xen; its operation may not.
    expect("operation", di & 0x3f, XENMEM_decrease_reservation);
    EXPECT_RESULT(reservation(XENMEM_populate_physmap, gfns, 6, 0), 6);
}

static void add_entry(struct multicall_entry* entry, unsigned long op, unsigned long a0,
                      unsigned long a1) {
    memset(entry, 0, sizeof(*entry));
    entry->op = op;
    entry->args[0] = a0;
    entry->args[1] = a1;
    entry->result = ~0ul;
}

// A memory_op inside a multicall: stopped inside an entry, and between entries.
static void in_multicall(void) {
    static struct multicall_entry list[8];
    long before = pages();
    fill_list(11);
    struct xen_memory_reservation give = {.nr_extents = 11, .domid = DOMID_SELF};
    set_xen_guest_handle(give.extent_start, (xen_pfn_t*)gfns);
    add_entry(&list[0], __HYPERVISOR_xen_version, XENVER_version, 0);
    add_entry(&list[1], __HYPERVISOR_memory_op, XENMEM_decrease_reservation, ARG(&give));
    add_entry(&list[2], __HYPERVISOR_xen_version, XENVER_pagesize, 0);
    add_entry(&list[3], 99, 0, 0);
    add_entry(&list[4], __HYPERVISOR_memory_op, XENMEM_populate_physmap, ARG(&give));
    add_entry(&list[5], __HYPERVISOR_sched_op, SCHEDOP_yield, 0);
    add_entry(&list[6], __HYPERVISOR_memory_op, XENMEM_decrease_reservation, ARG(&give));
    add_entry(&list[7], __HYPERVISOR_memory_op, XENMEM_populate_physmap, ARG(&give));
    EXPECT_RESULT(multicall(list, 8), 0);
    expect_result("entry 0", (long)list[0].result, 0x40011);
    expect_result("entry 1", (long)list[1].result, 11);
    expect_result("entry 2", (long)list[2].result, 4096);
    expect_result("entry 3", (long)list[3].result, -ENOSYS);
    expect_result("entry 4", (long)list[4].result, 11);
    expect_result("entry 5", (long)list[5].result, 0);
    expect_result("entry 6", (long)list[6].result, 11);
    expect_result("entry 7", (long)list[7].result, 11);
    expect("pages", (unsigned long)pages(), (unsigned long)before);
}

static void long_multicall(void) {
    static struct multicall_entry list[64];
    for (unsigned i = 0; i < 64; i++) {
        add_entry(&list[i], __HYPERVISOR_xen_version, i % 2 == 0 ? XENVER_version : 7, 0);
    }
    EXPECT_RESULT(multicall(list, 64), 0);
    for (unsigned i = 0; i < 64; i++) {
        expect("result", list[i].result, i % 2 == 0 ? 0x40011 : 0x1000);
    }
}

static void nested_multicall(void) {
    static struct multicall_entry list[1];
    static struct multicall_entry inner[1];
    add_entry(&inner[0], __HYPERVISOR_xen_version, XENVER_version, 0);
    add_entry(&list[0], __HYPERVISOR_multicall, ARG(inner), 1);
    EXPECT_RESULT(multicall(list, 1), 0);
    expect_result("multicall in a multicall", (long)list[0].result, -EINVAL);
}

// An interrupt between two parts, whose handler makes hypercalls of its own.
#define VECTOR 0xf3
static volatile unsigned upcalls;
static uint32_t ipi_port;

static void on_port(uint32_t port) {
    upcalls++;
}

static void on_upcall(struct trap_frame* frame) {
    static unsigned long inner_gfn;
    upcall_scan(on_port);
    inner_gfn = spare_gfn(MAX_EXTENTS + 4);
    reservation(XENMEM_decrease_reservation, &inner_gfn, 1, 0);
    reservation(XENMEM_populate_physmap, &inner_gfn, 1, 0);
    xen_version(XENVER_version, NULL);
}

static void interrupted(void) {
    shared_info();  // takes the place of a RAM page, which would spoil the count below
    long before = pages();
    set_handler(VECTOR, on_upcall);
    NEED(set_callback_vector(VECTOR));
    NEED(bind_ipi(0, &ipi_port));
    port_mask(ipi_port, false);
    interrupts_on();
    fill_list(20);
    struct vcpu_set_singleshot_timer timer = {.timeout_abs_ns = 1};
    uint32_t timer_port = 0;
    NEED(bind_virq(VIRQ_TIMER, 0, &timer_port));
    port_mask(timer_port, false);
    for (unsigned round = 0; round < 4; round++) {
        // Due while the next call is on its way, or just before or after: all must end well.
        timer.timeout_abs_ns = xen_time() + 30000 * (round + 1);
        NEED(vcpu_op(VCPUOP_set_singleshot_timer, 0, &timer));
        EXPECT_RESULT(reservation(XENMEM_decrease_reservation, gfns, 20, 0), 20);
        port_send(ipi_port);
        EXPECT_RESULT(reservation(XENMEM_populate_physmap, gfns, 20, 0), 20);
        CHECK(WAIT_UNTIL(upcalls >= 2 * (round + 1), PATIENCE_MS));
    }
    interrupts_off();
    expect("pages", (unsigned long)pages(), (unsigned long)before);
    set_param(HVM_PARAM_CALLBACK_IRQ, 0);
    port_close(timer_port);
    port_close(ipi_port);
}

TESTS({"continuation.none", none}, {"continuation.one_extent", one},
      {"continuation.two_extents", two}, {"continuation.four_extents", four},
      {"continuation.five_extents", five}, {"continuation.many_extents", many},
      {"continuation.bad_extent", bad_extent}, {"continuation.duplicate", duplicate},
      {"continuation.list_fault", list_fault}, {"continuation.typed_cursor", typed_cursor},
      {"continuation.registers_kept", registers_kept}, {"continuation.in_multicall", in_multicall},
      {"continuation.long_multicall", long_multicall},
      {"continuation.nested_multicall", nested_multicall},
      {"continuation.interrupted", interrupted});
