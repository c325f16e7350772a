// One long operation, by its name on the command line (op=NAME units=N), and after it a look at all
// that it had to do: what tests/saved_sweep stops before each unit, saves, and restores. Everything
// that the guest leaves in its memory follows from the command line alone, so that two runs can be
// compared byte by byte: no clock, no interrupts, and arguments in which a stop leaves its progress
// are forgotten.
//
// When the operation is over it makes one more call, which can be told from all others (show).

#include "device_model.h"

#define MOST_UNITS 512
#define UNTOUCHED 77
#define NO_HANDLE (~0u)
#define FAR_BAD_REF 0xfffffffu

static unsigned units;
static unsigned release;  // 0x40011 is 4.17
static unsigned long gfns[MOST_UNITS + 8], others[MOST_UNITS + 8];

// ---- pages ------------------------------------------------------------------------------------

// Block 0 is the highest in RAM, and the pages of a block ascend.
static unsigned long page_of(unsigned block, unsigned i) {
    return spare_gfn(MOST_UNITS * (block + 1) - 1 - i);
}
static unsigned long* word_of(unsigned long gfn) {
    return (unsigned long*)(gfn * PAGE_SIZE + 64);
}
static unsigned long content(unsigned i) {
    return 0x5eed0001ul + i * 0x10001ul;
}
static void fill(unsigned block) {
    for (unsigned i = 0; i < units; i++) {
        *word_of(page_of(block, i)) = content(i);
    }
}
static long pages(void) {
    return domid_op(XENMEM_current_reservation, DOMID_SELF);
}
static void expect_pages(long before, long change) {
    expect("pages", (unsigned long)pages(), (unsigned long)(before + change));
}
// One at a time: these do not stop.
static void give_back(unsigned long gfn) {
    EXPECT_RESULT(reservation(XENMEM_decrease_reservation, &gfn, 1, 0), 1);
}
static void take(unsigned long gfn) {
    EXPECT_RESULT(reservation(XENMEM_populate_physmap, &gfn, 1, 0), 1);
}
static bool is_there(unsigned long gfn) {
    unsigned long page = gfn;
    if (reservation(XENMEM_decrease_reservation, &page, 1, 0) != 1) {
        return false;
    }
    take(gfn);
    return true;
}

// ---- reservations -----------------------------------------------------------------------------

static struct xen_memory_reservation extents;

// Of gfns[]. Before 3.1 the structure shows how far it is.
static long reserve(unsigned op, unsigned count, unsigned order) {
    memset(&extents, 0, sizeof(extents));
    extents.nr_extents = count;
    extents.extent_order = order;
    extents.domid = DOMID_SELF;
    set_xen_guest_handle(extents.extent_start, (xen_pfn_t*)gfns);
    long result = forget(memory_op(op, &extents));
    memset(&extents, 0, sizeof(extents));
    return result;
}

static void decrease(void) {
    long before = pages();
    fill(0);
    *word_of(page_of(1, 0)) = content(7);
    for (unsigned i = 0; i < units; i++) {
        gfns[i] = page_of(0, i);
    }
    EXPECT_RESULT(reserve(XENMEM_decrease_reservation, units, 0), (long)units);
    expect_pages(before, -(long)units);
    expect("the page beside them", *word_of(page_of(1, 0)), content(7));
    CHECK(!is_there(page_of(0, 0)));
    CHECK(!is_there(page_of(0, units - 1)));
}

// The last one is named twice: the count says where it ends.
static void decrease_short(void) {
    long before = pages();
    fill(0);
    for (unsigned i = 0; i < units + 4; i++) {
        gfns[i] = page_of(0, i);
    }
    gfns[units - 1] = page_of(0, 0);
    EXPECT_RESULT(reserve(XENMEM_decrease_reservation, units + 4, 0), (long)units - 1);
    expect_pages(before, 1 - (long)units);
    expect("the page behind them", *word_of(page_of(0, units - 1)), content(units - 1));
}

static void decrease_pairs(void) {
    long before = pages();
    unsigned long first = (page_of(0, 0) + 1) & ~1ul;
    for (unsigned i = 0; i < units; i++) {
        gfns[i] = first + 2 * i;
    }
    EXPECT_RESULT(reserve(XENMEM_decrease_reservation, units, 1), (long)units);
    expect_pages(before, -2 * (long)units);
    CHECK(!is_there(first + 2 * units - 1));
}

static void populate(void) {
    long before = pages();
    fill(0);
    for (unsigned i = 0; i < units; i++) {
        gfns[i] = page_of(0, i);
        give_back(gfns[i]);
    }
    EXPECT_RESULT(reserve(XENMEM_populate_physmap, units, 0), (long)units);
    expect_pages(before, 0);
    for (unsigned i = 0; i < units; i++) {
        expect_fresh(gfns[i]);
        *word_of(gfns[i]) = content(i);
    }
}

// Pages that land nowhere; room for them is made first.
static void increase(void) {
    long before = pages();
    for (unsigned i = 0; i < units; i++) {
        give_back(page_of(0, i));
        gfns[i] = 0x5555;
    }
    EXPECT_RESULT(reserve(XENMEM_increase_reservation, units, 0), (long)units);
    expect_pages(before, 0);
    CHECK(!is_there(page_of(0, 0)));
}

// ---- moves ------------------------------------------------------------------------------------

static struct xen_add_to_physmap move;

static void move_range(unsigned long from, unsigned long to, unsigned there) {
    long before = pages();
    for (unsigned i = 0; i < units; i++) {
        *word_of(from + i) = content(i);
    }
    move = (struct xen_add_to_physmap){.domid = DOMID_SELF,
                                       .size = (uint16_t)units,
                                       .space = XENMAPSPACE_gmfn_range,
                                       .idx = from,
                                       .gpfn = to};
    long result = forget(memory_op(XENMEM_add_to_physmap, &move));
    memset(&move, 0, sizeof(move));
    expect_result("add_to_physmap", result, 0);
    for (unsigned i = 0; i < there; i++) {
        expect("content", *word_of(to + i), content(i));
    }
    // As many as were overwritten are gone.
    expect_pages(before, to < from && from - to < units ? (long)to - (long)from : -(long)units);
}
static void range(void) {
    move_range(page_of(0, 0), page_of(1, 0), units);
}
static void range_down(void) {
    move_range(page_of(0, 8), page_of(0, 0), units);
}

// Pages one by one; an entry that fails says so in errs and does not end the call.
static struct xen_add_to_physmap_batch batch;
static int errs[MOST_UNITS];

static void physmap_batch(void) {
    const unsigned bad = 7;
    long before = pages();
    fill(0);
    for (unsigned i = 0; i < units; i++) {
        gfns[i] = page_of(0, i);
        others[i] = page_of(1, i);
        errs[i] = UNTOUCHED;
    }
    give_back(gfns[bad]);
    batch = (struct xen_add_to_physmap_batch){
        .domid = DOMID_SELF, .space = XENMAPSPACE_gmfn, .size = (uint16_t)units};
    set_xen_guest_handle(batch.idxs, (xen_ulong_t*)gfns);
    set_xen_guest_handle(batch.gpfns, (xen_pfn_t*)others);
    set_xen_guest_handle(batch.errs, errs);
    long result = forget(memory_op(XENMEM_add_to_physmap_batch, &batch));
    memset(&batch, 0, sizeof(batch));
    expect_result("add_to_physmap_batch", result, 0);
    for (unsigned i = 0; i < units; i++) {
        expect_result("an entry's error", errs[i], i == bad ? -EINVAL : 0);
        if (i != bad) {
            expect("content", *word_of(others[i]), content(i));
        }
    }
    expect_pages(before, -(long)units);
}

// ---- event channels ---------------------------------------------------------------------------

static long bind_backend(uint32_t remote, uint32_t* local) {
    struct evtchn_bind_interdomain arg = {.remote_dom = 0, .remote_port = remote};
    long result = evtchn_op(EVTCHNOP_bind_interdomain, &arg);
    *local = arg.local_port;
    return result;
}

// A reset of all that there can be, stopped every 64 ports; and the backends' ports anew, as the
// lowest. No text may be printed between.
static void reset(void) {
    static struct evtchn_status store, console;
    struct evtchn_alloc_unbound alloc = {.dom = DOMID_SELF, .remote_dom = 0};
    struct evtchn_reset all = {.dom = DOMID_SELF};
    uint32_t last = 0, local[2];
    NEED(port_status(xenstore_port(), &store));
    NEED(port_status(console_port(), &console));
    while (evtchn_op(EVTCHNOP_alloc_unbound, &alloc) == 0) {
        last = alloc.port;
    }
    long result = forget(evtchn_op(EVTCHNOP_reset, &all));
    long store_result = bind_backend(store.u.interdomain.port, &local[0]);
    long console_result = bind_backend(console.u.interdomain.port, &local[1]);
    expect_result("reset", result, 0);
    expect_result("the store's", store_result, 0);
    expect_result("the console's", console_result, 0);
    expect("the store's port", local[0], 1);
    expect("the console's port", local[1], 2);
    expect("the last port", last, sizeof(long) == 8 ? 4095 : 1023);
    static struct evtchn_status after;
    for (uint32_t port = 3; port <= last; port += 61) {
        EXPECT_RESULT(port_status(port, &after), 0);
        EXPECT(after.status, EVTCHNSTAT_closed);
    }
}

// ---- grants -----------------------------------------------------------------------------------

static volatile struct grant_entry_v1* entries(void) {
    return (volatile struct grant_entry_v1*)(spare_gfn(0) * PAGE_SIZE);
}
static domid_t self;

static void grant(unsigned ref, unsigned long gfn) {
    entries()[ref].domid = self;
    entries()[ref].frame = (uint32_t)gfn;
    barrier();
    entries()[ref].flags = GTF_permit_access;
}
static void grants_on(void) {
    self = (domid_t)cpuid(xen_base + 4, 0).ecx;
    if (self == 0) {
        self = (domid_t)option_number("domid", 1);
    }
    NEED(add_to_physmap(XENMAPSPACE_grant_table, 0, spare_gfn(0)));
}

static void grant_copy(void) {
    static struct gnttab_copy list[MOST_UNITS];
    const unsigned bad = 7;
    unsigned long from = page_of(1, 0), to = page_of(1, 1);
    grants_on();
    grant(8, from);
    grant(9, to);
    for (unsigned i = 0; i < units; i++) {
        ((volatile uint64_t*)(from * PAGE_SIZE))[i] = content(i);
        list[i].source.u.gmfn = from;
        list[i].source.domid = DOMID_SELF;
        if (i % 2 == 1 || i == bad) {
            list[i].source.u.gmfn = 0;
            list[i].source.u.ref = i == bad ? FAR_BAD_REF : 8;
            list[i].source.domid = self;
            list[i].flags |= GNTCOPY_source_gref;
        }
        list[i].dest.u.gmfn = to;
        list[i].dest.domid = DOMID_SELF;
        if (i % 3 == 1) {
            list[i].dest.u.gmfn = 0;
            list[i].dest.u.ref = 9;
            list[i].dest.domid = self;
            list[i].flags |= GNTCOPY_dest_gref;
        }
        list[i].source.offset = list[i].dest.offset = (uint16_t)(i * 8);
        list[i].len = 8;
        list[i].status = UNTOUCHED;
    }
    expect_result("copy", forget(grant_table_op(GNTTABOP_copy, list, units)), 0);
    for (unsigned i = 0; i < units; i++) {
        expect("status", (uint16_t)list[i].status, i == bad ? (uint16_t)GNTST_bad_gntref : 0);
        expect("copied", ((volatile uint64_t*)(to * PAGE_SIZE))[i], i == bad ? 0 : content(i));
    }
    expect("flags of an entry", entries()[8].flags & GTF_permit_access, GTF_permit_access);
}

static struct gnttab_map_grant_ref maps[MOST_UNITS];
static struct gnttab_unmap_grant_ref unmaps[MOST_UNITS];

// Half of the pages of one block at holes made in another; the seventh has no reference.
static void prepare_maps(unsigned count) {
    grants_on();
    for (unsigned i = 0; i < count; i++) {
        unsigned ref = 8 + i % 16;
        if (i < 16) {
            *word_of(page_of(1, i)) = content(i);
            grant(ref, page_of(1, i));
        }
        give_back(page_of(2, i));
        maps[i] = (struct gnttab_map_grant_ref){
            .host_addr = (uint64_t)page_of(2, i) * PAGE_SIZE,
            .flags = GNTMAP_host_map | (i % 2 == 0 ? GNTMAP_readonly : 0u),
            .ref = i == 7 ? FAR_BAD_REF : ref,
            .dom = self,
            .status = UNTOUCHED};
    }
}

// A page of one's own is where it was mapped last.
static void expect_mapped(unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        expect("status", (uint16_t)maps[i].status, i == 7 ? (uint16_t)GNTST_bad_gntref : 0);
        if (i != 7 && i + 16 >= count) {
            expect("mapped", *word_of(page_of(2, i)), content(i % 16));
        }
    }
}

static void grant_map(void) {
    prepare_maps(units);
    expect_result("map_grant_ref", forget(grant_table_op(GNTTABOP_map_grant_ref, maps, units)), 0);
    expect_mapped(units);
}

// Thirty-two at a time, most of them with a handle that nobody has.
static void grant_unmap(void) {
    unsigned mapped = units / 32;
    prepare_maps(mapped);
    for (unsigned i = 0; i < mapped; i++) {
        NEED(grant_table_op(GNTTABOP_map_grant_ref, &maps[i], 1));
    }
    expect_mapped(mapped);
    for (unsigned i = 0; i < units; i++) {
        unmaps[i] = (struct gnttab_unmap_grant_ref){.handle = NO_HANDLE, .status = UNTOUCHED};
        unsigned which = i / 32;
        if (i % 32 == which % 32 && which < mapped && which != 7) {
            unmaps[i].host_addr = maps[which].host_addr;
            unmaps[i].handle = maps[which].handle;
        }
    }
    expect_result("unmap_grant_ref",
                  forget(grant_table_op(GNTTABOP_unmap_grant_ref, unmaps, units)), 0);
    for (unsigned i = 0; i < units; i++) {
        expect("status", (uint16_t)unmaps[i].status,
               unmaps[i].handle == NO_HANDLE ? (uint16_t)GNTST_bad_handle : 0);
    }
    for (unsigned i = 0; i < mapped && i < 16; i++) {
        expect("flags of an entry", entries()[8 + i].flags, GTF_permit_access);
    }
}

// Neighbours from the first on, which carries the first entry to the end: each needs the one
// before.
static void grant_swap(void) {
    static struct gnttab_swap_grant_ref list[MOST_UNITS];
    grants_on();
    unsigned at = 8;
    for (unsigned i = 0; i < units; i++) {
        list[i] = (struct gnttab_swap_grant_ref){
            .ref_a = at, .ref_b = i == 7 ? FAR_BAD_REF : at + 1, .status = UNTOUCHED};
        if (i != 7) {
            at++;
        }
    }
    for (unsigned ref = 8; ref <= at; ref++) {
        grant(ref, page_of(1, ref));
    }
    expect_result("swap_grant_ref", forget(grant_table_op(GNTTABOP_swap_grant_ref, list, units)),
                  0);
    for (unsigned i = 0; i < units; i++) {
        expect("status", (uint16_t)list[i].status, i == 7 ? (uint16_t)GNTST_bad_gntref : 0);
    }
    for (unsigned ref = 8; ref < at; ref++) {
        expect("an entry's frame", entries()[ref].frame, page_of(1, ref + 1));
    }
    expect("the last entry's frame", entries()[at].frame, page_of(1, 8));
}

// ---- what a device model asks for -------------------------------------------------------------

static void set_type(void) {
    unsigned long first = spare_gfn(units - 1);
    EXPECT_RESULT(on_range(HVMOP_set_mem_type, first, units, RAM_RO), 0);
    for (unsigned i = 0; i < units; i += i % 256 == 255 ? 1 : 51) {
        expect("a page's type", type_of(first + i), RAM_RO);
    }
    expect("the page before", type_of(first - 1), 0);
    expect("the page behind", type_of(first + units), 0);
}
static void modified(void) {
    EXPECT_RESULT(on_range(HVMOP_modified_memory, spare_gfn(units - 1), units, 0), 0);
}

// ---- lists of calls ---------------------------------------------------------------------------

static struct multicall_entry list[MOST_UNITS];

static void list_of_calls(void) {
    for (unsigned i = 0; i < units; i++) {
        list[i].op = __HYPERVISOR_xen_version;
        list[i].args[0] = i % 2 == 0 ? XENVER_version : XENVER_pagesize;
    }
    expect_result("multicall", forget(multicall(list, units)), 0);
    for (unsigned i = 0; i < units; i++) {
        expect("result", list[i].result, i % 2 == 0 ? release : 0x1000);
    }
}

// An entry that stops is its own continuation, in the list.
static void inside_a_list(void) {
    long before = pages();
    for (unsigned i = 0; i < units; i++) {
        gfns[i] = page_of(0, i);
    }
    extents = (struct xen_memory_reservation){.nr_extents = units, .domid = DOMID_SELF};
    set_xen_guest_handle(extents.extent_start, (xen_pfn_t*)gfns);
    for (unsigned i = 0; i < 3; i++) {
        list[i].op = i == 1 ? __HYPERVISOR_memory_op : __HYPERVISOR_xen_version;
        list[i].args[0] = i == 1 ? XENMEM_decrease_reservation : XENVER_version;
        list[i].args[1] = i == 1 ? ARG(&extents) : 0;
    }
    expect_result("multicall", forget(multicall(list, 3)), 0);
    expect_result("entry 0", (long)list[0].result, release);
    expect_result("entry 1", (long)list[1].result, (long)units);
    expect_result("entry 2", (long)list[2].result, release);
    memset(list, 0, sizeof(list));
    expect_pages(before, -(long)units);
}

// ---- what is shown to who watches -------------------------------------------------------------

// A call that is longer than any operation that is looked at before each of its units, and has a
// number in a register where it has no argument.
#define MARK_UNITS 61
#define MARK 0x6d61726b

static void show(unsigned which) {
    static unsigned long shown[MARK_UNITS];
    static struct xen_memory_reservation call;
    for (unsigned i = 0; i < MARK_UNITS; i++) {
        shown[i] = page_of(3, which * MARK_UNITS + i);
    }
    call = (struct xen_memory_reservation){.nr_extents = MARK_UNITS, .domid = DOMID_SELF};
    set_xen_guest_handle(call.extent_start, (xen_pfn_t*)shown);
    long result = forget(hypercall(__HYPERVISOR_memory_op, XENMEM_decrease_reservation, ARG(&call),
                                   MARK + which, 0, 0));
    memset(&call, 0, sizeof(call));
    expect_result("a mark", result, MARK_UNITS);
}

// ---- a task that is put aside in the middle of one ----------------------------------------------

// On a stack of its own; whoever watches raises an event at the stop that he wants, and the handler
// leaves the task's frame there. It goes on on the other vCPU.
#define VECTOR 0xf3
static uint8_t task_stack[8192] __attribute__((aligned(16)));
static struct context scheduler[2], in_handler;
static volatile enum { IDLE, RUNNING, PARKED, DONE } task;
static volatile unsigned task_cpu;
static volatile long task_result;
static volatile unsigned long task_cursor;
static volatile bool go, up;
static unsigned task_op;

static volatile bool asked;

static void on_port(uint32_t port) {
    asked = true;
}

static void on_upcall(struct trap_frame* frame) {
    asked = false;
    upcall_scan(on_port);
    if (task != RUNNING || !asked) {
        return;
    }
#ifdef __x86_64__
    task_cursor = frame->di;
#else
    task_cursor = frame->bx;
#endif
    if (context_save(&in_handler) == 0) {
        task = PARKED;
        context_restore(&scheduler[this_cpu()], 1);
    }
}

static void task_main(void) {
    interrupts_on();
    task_result = reserve(task_op, units, 0);
    interrupts_off();
    task_cpu = this_cpu();
    task = DONE;
    context_restore(&scheduler[task_cpu], 1);
}

static void run_task(void) {
    task = RUNNING;
    if (context_save(&scheduler[0]) == 0) {
        context_start(task_stack + sizeof(task_stack), task_main);
    }
}

static void other_vcpu(unsigned cpu) {
    up = true;
    while (!go) {
        pause();
    }
    task = RUNNING;
    if (context_save(&scheduler[cpu]) == 0) {
        context_restore(&in_handler, 1);
    }
}

// `op` is the task's call. Who watches is told by three calls: it is parked; and again, after other
// calls; and when all is over.
static void parked(unsigned op, long change) {
    uint32_t port;
    shared_info();
    set_handler(VECTOR, on_upcall);
    NEED(set_callback_vector(VECTOR));
    NEED(bind_virq(VIRQ_DEBUG, 0, &port));
    port_mask(port, false);
    apic_enable(x2apic_available());
    if (!cpu_start(1, START_SIPI, other_vcpu, NULL) || !SPIN_UNTIL(up, PATIENCE_MS)) {
        ERROR("vCPU 1 does not run");
    }
    long before = pages();
    fill(0);
    for (unsigned i = 0; i < units; i++) {
        gfns[i] = page_of(0, i);
        if (op == XENMEM_populate_physmap) {
            give_back(gfns[i]);
        }
    }
    task_op = op;
    run_task();
    CHECK(task == PARKED);
    show(1);
    // Its frame is all that there is of the call.
    long others_before = pages();
    unsigned shift = release < 0x30004 ? 4 : 6;
    unsigned long done = task_cursor >> shift;
    expect("the operation in the frame", task_cursor & ((1ul << shift) - 1), op);
    CHECK(done > 0 && done < units);
    for (unsigned i = 0; i < 8; i++) {
        unsigned long other = page_of(2, i);
        give_back(other);
        take(other);
    }
    expect("pages while it is parked", (unsigned long)pages(), (unsigned long)others_before);
    show(2);
    go = true;
    CHECK(SPIN_UNTIL(task == DONE, PATIENCE_MS));
    expect_result("the task's result", task_result, (long)units);
    expect("its vCPU", task_cpu, 1);
    expect_pages(before, change - 2 * MARK_UNITS);
    for (unsigned i = 0; i < units && op == XENMEM_populate_physmap; i++) {
        expect_fresh(page_of(0, i));
    }
    CHECK(SPIN_UNTIL(cpus_finished == 1, PATIENCE_MS));
}
static void parked_decrease(void) {
    parked(XENMEM_decrease_reservation, -(long)units);
}
static void parked_populate(void) {
    parked(XENMEM_populate_physmap, 0);
}

// ---- which --------------------------------------------------------------------------------------

static void operation(void) {
    static const struct {
        const char* name;
        void (*run)(void);
    } all[] = {{"decrease", decrease},
               {"decrease_short", decrease_short},
               {"decrease_pairs", decrease_pairs},
               {"populate", populate},
               {"increase", increase},
               {"range", range},
               {"range_down", range_down},
               {"batch", physmap_batch},
               {"reset", reset},
               {"grant_copy", grant_copy},
               {"grant_map", grant_map},
               {"grant_unmap", grant_unmap},
               {"grant_swap", grant_swap},
               {"set_type", set_type},
               {"modified", modified},
               {"multicall", list_of_calls},
               {"in_multicall", inside_a_list},
               {"parked_decrease", parked_decrease},
               {"parked_populate", parked_populate}};
    static char name[24];
    if (option("op", name, sizeof(name)) == NULL) {
        ERROR("which operation?");
    }
    units = (unsigned)option_number("units", 48);
    release = (unsigned)xen_version(XENVER_version, NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
        if (strcmp(all[i].name, name) == 0) {
            all[i].run();
            show(0);
            return;
        }
    }
    ERROR("what is op=%s?", name);
}

TESTS({"operation", operation});
