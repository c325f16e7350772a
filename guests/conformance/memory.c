// memory_op beyond what physmap.c and golden.c ask: batches, ranges that overlap, exchange, the
// guest's own memory map, and how each operation that is not for guests is refused
// (xen-417-golden.md E and E.2).

#include "test.h"

#define U ((const void*)UNMAPPED_VA)
#define HOLE_GFN 0x7fff0
#define UNTOUCHED 85
#define START(n) ((unsigned long)(n) << 6)
#ifdef __x86_64__
#define IS_64 1
#else
#define IS_64 0
#endif

static unsigned own_domid(void) {
    return cpuid(xen_base + 4, 0).ecx;
}

static volatile uint32_t* word_of(unsigned long gfn) {
    return (volatile uint32_t*)(gfn * PAGE_SIZE);
}

static long pages(void) {
    return domid_op(XENMEM_current_reservation, DOMID_SELF);
}

static void populate(unsigned long gfn) {
    expect_result("populate", reservation(XENMEM_populate_physmap, &gfn, 1, 0), 1);
}

// Ones on Xen, zeroes where a host cannot make an exact hole; never what was there.
static bool empty(unsigned long gfn) {
    return *word_of(gfn) == 0xffffffff || *word_of(gfn) == 0;
}

// A gfn of the guest's own to play with; they follow each other upwards.
static unsigned long play(unsigned index) {
    return spare_gfn(60) + index;
}

// ---- batches ----------------------------------------------------------------------------------

static xen_ulong_t idxs[8];
static xen_pfn_t gpfns[8];
static int errs[8];

static long batch(unsigned long start, unsigned space, unsigned size, unsigned domid,
                  unsigned extra) {
    struct xen_add_to_physmap_batch arg;
    memset(&arg, 0, sizeof(arg));
    arg.domid = (domid_t)domid;
    arg.space = (uint16_t)space;
    arg.size = (uint16_t)size;
    arg.u.foreign_domid = (domid_t)extra;
    set_xen_guest_handle(arg.idxs, idxs);
    set_xen_guest_handle(arg.gpfns, gpfns);
    set_xen_guest_handle(arg.errs, errs);
    for (unsigned i = 0; i < ARRAY_SIZE(errs); i++) {
        errs[i] = UNTOUCHED;
    }
    return memory_op(XENMEM_add_to_physmap_batch | START(start), &arg);
}

static void batch_fact(const char* name, long got, long want, int e0, int e1, int e2, int e3) {
    table_fact(name, got, want);
    table_fact(name, errs[0], e0);
    table_fact(name, errs[1], e1);
    table_fact(name, errs[2], e2);
    table_fact(name, errs[3], e3);
}

static void batch_grants(void) {
    for (unsigned i = 0; i < 4; i++) {
        idxs[i] = i == 2 ? 64 : i;
        gpfns[i] = play(i);
    }
    *word_of(play(2)) = 0x5eed;
    enum { N = UNTOUCHED, G = XENMAPSPACE_grant_table, SELF = DOMID_SELF };
    batch_fact("third bad", batch(0, G, 4, SELF, 0), 0, 0, 0, -EINVAL, 0);
    table_fact("third's RAM", (long)*word_of(play(2)), 0x5eed);
    batch_fact("start 4 of 4", batch(4, G, 4, SELF, 0), -EILSEQ, N, N, N, N);
    batch_fact("start 5 of 4", batch(5, G, 4, SELF, 0), -EILSEQ, N, N, N, N);
    batch_fact("start 3 of 4", batch(3, G, 4, SELF, 0), 0, N, N, N, 0);
    batch_fact("start 0x10000", batch(0x10000, G, 4, SELF, 0), -EDOM, N, N, N, N);
    batch_fact("size 0", batch(0, G, 0, SELF, 0), 0, N, N, N, N);
    batch_fact("range", batch(0, XENMAPSPACE_gmfn_range, 1, SELF, 0), -EOPNOTSUPP, N, N, N, N);
    batch_fact("foreign 0", batch(0, XENMAPSPACE_gmfn_foreign, 1, SELF, 0), 0, -EPERM, N, N, N);
    batch_fact("foreign self", batch(0, XENMAPSPACE_gmfn_foreign, 1, SELF, SELF), 0, -EPERM, N, N,
               N);
    batch_fact("foreign 1000", batch(0, XENMAPSPACE_gmfn_foreign, 1, SELF, 1000), 0, -EPERM, N, N,
               N);
    batch_fact("dev_mmio", batch(0, XENMAPSPACE_dev_mmio, 1, SELF, 0), -EACCES, N, N, N, N);
    batch_fact("space 6", batch(0, 6, 1, SELF, 0), 0, -EINVAL, N, N, N);
    batch_fact("domain 0", batch(0, G, 1, 0, 0), -EACCES, N, N, N, N);
    batch_fact("domain 1000", batch(0, G, 1, 1000, 0), -ESRCH, N, N, N, N);
    batch_fact("own id", batch(0, G, 1, own_domid(), 0), 0, 0, N, N, N);
#ifdef __x86_64__
    gpfns[1] = ~0ul;
    batch_fact("invalid gfn second", batch(0, G, 4, SELF, 0), -EINVAL, 0, N, N, N);
#endif
    table_end();
    for (unsigned i = 0; i < 4; i++) {
        populate(play(i));
    }
}

static void batch_moves(void) {
    for (unsigned i = 0; i < 8; i++) {
        *word_of(play(i)) = 0x100 + i;
        idxs[i] = play(i);
        gpfns[i] = play(i + 16);
    }
    idxs[5] = HOLE_GFN;
    EXPECT_RESULT(batch(0, XENMAPSPACE_gmfn, 8, DOMID_SELF, 0), 0);
    for (unsigned i = 0; i < 8; i++) {
        EXPECT_RESULT(errs[i], i == 5 ? -EINVAL : 0);
        if (i != 5) {
            expect("content", *word_of(play(i + 16)), 0x100 + i);
            CHECK(empty(play(i)));
            populate(play(i));
        }
    }
}

static void batch_bad_arrays(void) {
    struct xen_add_to_physmap_batch arg;
    memset(&arg, 0, sizeof(arg));
    arg.domid = DOMID_SELF;
    arg.space = XENMAPSPACE_grant_table;
    arg.size = 2;
    idxs[0] = 0;
    gpfns[0] = play(0);
    set_xen_guest_handle(arg.idxs, (xen_ulong_t*)UNMAPPED_VA);
    set_xen_guest_handle(arg.gpfns, gpfns);
    set_xen_guest_handle(arg.errs, errs);
    EXPECT_RESULT(memory_op(XENMEM_add_to_physmap_batch, &arg), -EFAULT);
    set_xen_guest_handle(arg.idxs, idxs);
    set_xen_guest_handle(arg.errs, (int*)UNMAPPED_VA);
    EXPECT_RESULT(memory_op(XENMEM_add_to_physmap_batch, &arg), -EFAULT);
    populate(play(0));
}

// ---- ranges -----------------------------------------------------------------------------------

static long range(unsigned long start, unsigned size, unsigned long idx, unsigned long gpfn) {
    struct xen_add_to_physmap arg = {.domid = DOMID_SELF,
                                     .size = (uint16_t)size,
                                     .space = XENMAPSPACE_gmfn_range,
                                     .idx = idx,
                                     .gpfn = gpfn};
    return memory_op(XENMEM_add_to_physmap | START(start), &arg);
}

static void fill(unsigned first, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        *word_of(play(first + i)) = 0x200 + first + i;
    }
}

static void range_down(void) {
    long before = pages();
    fill(0, 6);
    EXPECT_RESULT(range(0, 5, play(1), play(0)), 0);
    for (unsigned i = 0; i < 5; i++) {
        expect("content", *word_of(play(i)), 0x201 + i);
    }
    CHECK(empty(play(5)));
    expect("pages", (unsigned long)pages(), (unsigned long)(before - 1));
    populate(play(5));
}

// Upwards over itself the first page is carried along over all the others.
static void range_up(void) {
    long before = pages();
    fill(0, 6);
    EXPECT_RESULT(range(0, 5, play(0), play(1)), 0);
    expect("content", *word_of(play(5)), 0x200);
    for (unsigned i = 0; i < 5; i++) {
        CHECK(empty(play(i)));
    }
    expect("pages", (unsigned long)pages(), (unsigned long)(before - 5));
    for (unsigned i = 0; i < 5; i++) {
        populate(play(i));
    }
}

static void range_edges(void) {
    table_fact("size 0", range(0, 0, play(0), play(1)), 0);
    table_fact("hole", range(0, 1, HOLE_GFN, play(1)), -EINVAL);
    if (IS_64) {
        table_fact("wrap", range(0, 4, play(0), ~0ul - 1), -EOVERFLOW);
        table_fact("wrap", range(0, 4, ~0ul - 1, play(0)), -EOVERFLOW);
    }
    table_fact("start 0x10000", range(0x10000, 3, play(0), play(8)), -EDOM);
    table_fact("start 4 of 3", range(4, 3, play(0), play(8)), -EILSEQ);
    table_fact("start 3 of 3", range(3, 3, play(0), play(8)), 0);
    fill(0, 3);
    table_fact("start 1 of 3", range(1, 3, play(0), play(8)), 0);
    table_fact("not moved", (long)*word_of(play(0)), 0x200);
    table_fact("moved", (long)*word_of(play(9)), 0x201);
    table_fact("moved", (long)*word_of(play(10)), 0x202);
    populate(play(1));
    populate(play(2));
    table_end();
}

// Xen's map goes further than many a CPU: what is moved there is safe, and comes back.
static void beyond_the_cpu(void) {
    const unsigned long far = IS_64 ? (unsigned long)(1ull << 34) + 5 : 0xfffffffe;
    long before = pages();
    fill(0, 4);
    // A 32-bit caller's numbers are zero-extended: there is nothing to wrap.
    table_fact("move", range(0, 4, play(0), far), 0);
    table_fact("pages then", pages() - before, 0);
    table_fact("its old place", empty(play(0)) && empty(play(3)), 1);
    table_fact("back", range(0, 4, far, play(8)), 0);
    table_fact("pages", pages() - before, -4);
    for (unsigned i = 0; i < 4; i++) {
        table_fact("content", (long)*word_of(play(8 + i)), 0x200 + (long)i);
        populate(play(i));
    }
    table_fact("again", range(0, 4, far, play(8)), -EINVAL);
    unsigned long extent = far;
    table_fact("populate", reservation(XENMEM_populate_physmap, &extent, 1, 0), 1);
    table_fact("pages with it", pages() - before, 1);
    table_fact("over it", reservation(XENMEM_populate_physmap, &extent, 1, 0), 1);
    table_fact("pages still", pages() - before, 2);
    table_fact("decrease", reservation(XENMEM_decrease_reservation, &extent, 1, 0), 1);
    table_fact("decrease again", reservation(XENMEM_decrease_reservation, &extent, 1, 0), 0);
    table_fact("pages at the end", pages() - before, 1);
    table_end();
}

// ---- reservations -----------------------------------------------------------------------------

static void populate_over_ram(void) {
    long before = pages();
    *word_of(play(0)) = 0x5eed;
    populate(play(0));
    expect_fresh(play(0));
    // The frame that was there is forgotten, but stays on the account.
    expect("pages", (unsigned long)pages(), (unsigned long)(before + 1));
}

static void superpages(void) {
    unsigned long first = (play(0) & ~511ul) - 1024;
    long before = pages();
    if (first < 0x800) {
        SKIP("too little memory");
    }
    for (unsigned skew = 0; skew < 2; skew++) {
        unsigned long gfn = first + skew;
        *word_of(gfn - 1) = 0x11;
        *word_of(gfn) = 0x22;
        *word_of(gfn + 511) = 0x33;
        *word_of(gfn + 512) = 0x44;
        EXPECT_RESULT(reservation(XENMEM_decrease_reservation, &gfn, 1, 9), 1);
        expect("pages", (unsigned long)pages(), (unsigned long)(before - 512));
        expect("the page before", *word_of(gfn - 1), 0x11);
        CHECK(empty(gfn) && empty(gfn + 511));
        expect("the page behind", *word_of(gfn + 512), 0x44);
        EXPECT_RESULT(reservation(XENMEM_decrease_reservation, &gfn, 1, 9), 0);
        EXPECT_RESULT(reservation(XENMEM_populate_physmap, &gfn, 1, 9), 1);
        expect("pages", (unsigned long)pages(), (unsigned long)before);
        for (unsigned i = 0; i < 512; i++) {
            expect_fresh(gfn + i);
        }
        *word_of(gfn + 511) = 0x55;
        expect("content", *word_of(gfn + 511), 0x55);
    }
}

static uint8_t own_page[4096] __attribute__((aligned(4096)));

// Lists that run into a page that is not there: what is before it is done, unless all of it was
// to be read first.
static void lists_that_end_early(void) {
    unsigned long hole = play(9);
    unsigned long* list = (unsigned long*)(hole * PAGE_SIZE) - 2;
    struct xen_add_to_physmap_batch arg;
    long before = pages();
    EXPECT_RESULT(reservation(XENMEM_decrease_reservation, &hole, 1, 0), 1);
    list[0] = play(0);
    list[1] = play(1);
    table_fact("decrease", reservation(XENMEM_decrease_reservation, list, 4, 0), 2);
    table_fact("pages", pages() - before, -3);
    table_fact("populate", reservation(XENMEM_populate_physmap, list, 4, 0), 2);
    memset(&arg, 0, sizeof(arg));
    arg.domid = DOMID_SELF;
    arg.space = XENMAPSPACE_gmfn;
    arg.size = 4;
    for (unsigned which = 0; which < 2; which++) {
        for (unsigned i = 0; i < 4; i++) {
            idxs[i] = play(i);
            gpfns[i] = play(i + 4);
            errs[i] = UNTOUCHED;
            *word_of(play(i)) = 0x700 + i;
            *word_of(play(i + 4)) = 0x800 + i;
        }
        for (unsigned i = 0; i < 2; i++) {
            list[i] = which == 0 ? idxs[i] : gpfns[i];
        }
        set_xen_guest_handle(arg.idxs, which == 0 ? (xen_ulong_t*)list : idxs);
        set_xen_guest_handle(arg.gpfns, which == 1 ? (xen_pfn_t*)list : gpfns);
        set_xen_guest_handle(arg.errs, errs);
        table_fact("batch", memory_op(XENMEM_add_to_physmap_batch, &arg), -EFAULT);
        table_fact("its first", errs[0], IS_64 ? 0 : UNTOUCHED);
        table_fact("its second", errs[1], IS_64 ? 0 : UNTOUCHED);
        table_fact("its third", errs[2], UNTOUCHED);
        table_fact("what was moved", (long)*word_of(play(4)), IS_64 ? 0x700 : 0x800);
        for (unsigned i = 0; IS_64 && i < 2; i++) {
            populate(play(i));
        }
        // What is wrong otherwise comes later, if a list is read first.
        arg.domid = 1000;
        table_fact("nobody's", memory_op(XENMEM_add_to_physmap_batch, &arg),
                   IS_64 ? -ESRCH : -EFAULT);
        arg.domid = DOMID_SELF;
        arg.space = XENMAPSPACE_gmfn_range;
        table_fact("a range", memory_op(XENMEM_add_to_physmap_batch, &arg),
                   IS_64 ? -EOPNOTSUPP : -EFAULT);
        table_fact("a range, start 5 of 4", memory_op(XENMEM_add_to_physmap_batch | START(5), &arg),
                   -EOPNOTSUPP);
        arg.space = XENMAPSPACE_gmfn;
        table_fact("start 5 of 4", memory_op(XENMEM_add_to_physmap_batch | START(5), &arg),
                   -EILSEQ);
        table_fact("start 0x10000", memory_op(XENMEM_add_to_physmap_batch | START(0x10000), &arg),
                   -EDOM);
    }
    populate(hole);
    table_end();
}

// The list lies in the page that the call gives away: it ends there, with a count.
static void list_in_its_own_page(void) {
    unsigned long* list = (unsigned long*)own_page;
    list[0] = play(0);
    list[1] = (uintptr_t)own_page / PAGE_SIZE;
    list[2] = play(1);
    *word_of(play(1)) = 0x5eed;
    long done = reservation(XENMEM_decrease_reservation, list, 3, 0);
    bool gone = empty(play(1));
    populate((uintptr_t)own_page / PAGE_SIZE);
    populate(play(0));
    if (gone) {
        populate(play(1));
    }
    // A 32-bit guest's is read before the call begins, and again when it goes on.
    show_result("done", done);
    CHECK(done == 2 || (done == 3 && !IS_64));
    expect("gone", gone, done == 3);
}

static void all_ones(void) {
    struct xen_remove_from_physmap arg = {.domid = DOMID_SELF, .gpfn = ~0ul};
    shared_info();
    if (IS_64) {
        EXPECT_RESULT(map_shared_info(~0ul), -EINVAL);
        EXPECT_RESULT(memory_op(XENMEM_remove_from_physmap, &arg), -ENOENT);
    } else {
        // Zero-extended, a gfn like any other; no CPU mode of this guest can look there.
        EXPECT_RESULT(map_shared_info(~0ul), 0);
        EXPECT_RESULT(memory_op(XENMEM_remove_from_physmap, &arg), 0);
        EXPECT_RESULT(memory_op(XENMEM_remove_from_physmap, &arg), -ENOENT);
    }
    EXPECT_RESULT(map_shared_info((uintptr_t)shared_info_page / PAGE_SIZE), 0);
    CHECK(((struct shared_info*)shared_info_page)->wc_sec > 1000000000);
}

// ---- exchange ---------------------------------------------------------------------------------

static long exchange(unsigned in_order, unsigned out_order, unsigned long nr, unsigned long out_nr,
                     unsigned long* done) {
    static xen_pfn_t in_list[4], out_list[4];
    struct xen_memory_exchange arg;
    memset(&arg, 0, sizeof(arg));
    in_list[0] = play(0);
    set_xen_guest_handle(arg.in.extent_start, in_list);
    set_xen_guest_handle(arg.out.extent_start, out_list);
    arg.in.nr_extents = nr;
    arg.out.nr_extents = out_nr;
    arg.in.extent_order = in_order;
    arg.out.extent_order = out_order;
    arg.in.domid = arg.out.domid = DOMID_SELF;
    arg.nr_exchanged = *done;
    long result = memory_op(XENMEM_exchange, &arg);
    *done = arg.nr_exchanged;
    return result;
}

static void exchange_refused(void) {
    unsigned long done = 0;
    *word_of(play(0)) = 0x5eed;
    table_fact("1 for 1", exchange(0, 0, 1, 1, &done), -EOPNOTSUPP);
    table_fact("nr_exchanged", (long)done, 0);
    table_fact("order 20", exchange(20, 0, 1, 1, &done), IS_64 ? -EPERM : -EINVAL);
    table_fact("1 for 2", exchange(0, 0, 1, 2, &done), -EINVAL);
    table_fact("nothing", exchange(0, 0, 0, 0, &done), 0);
    done = 1;
    table_fact("all done", exchange(0, 0, 1, 1, &done), 0);
    table_fact("nr_exchanged", (long)done, 1);
    table_fact("content", (long)*word_of(play(0)), 0x5eed);
    table_end();
}

// ---- the memory map ---------------------------------------------------------------------------

struct map_entry {
    uint64_t addr, size;
    uint32_t type;
} __attribute__((packed));

static void set_map(void) {
    static struct map_entry was[128], now[128];
    struct xen_memory_map get = {.nr_entries = 128};
    struct xen_foreign_memory_map set;
    set_xen_guest_handle(get.buffer, (void*)was);
    EXPECT_RESULT(memory_op(XENMEM_memory_map, &get), 0);
    unsigned count = get.nr_entries;

    memset(&set, 0, sizeof(set));
    set.domid = DOMID_SELF;
    set.map.nr_entries = 2;
    now[0] = (struct map_entry){0, 0x1000, 1};
    now[1] = (struct map_entry){0x123456789000, 0x7000, 5};
    set_xen_guest_handle(set.map.buffer, (void*)now);
    EXPECT_RESULT(memory_op(XENMEM_set_memory_map, &set), 0);
    memset(now, 0, sizeof(now));
    get.nr_entries = 128;
    set_xen_guest_handle(get.buffer, (void*)now);
    EXPECT_RESULT(memory_op(XENMEM_memory_map, &get), 0);
    expect("entries", get.nr_entries, 2);
    expect("second's address", now[1].addr, 0x123456789000);
    expect("second's type", now[1].type, 5);

    set.map.nr_entries = 2000;
    EXPECT_RESULT(memory_op(XENMEM_set_memory_map, &set), -EINVAL);
    set.map.nr_entries = 1;
    set.domid = 0;
    EXPECT_RESULT(memory_op(XENMEM_set_memory_map, &set), -EPERM);
    set.domid = DOMID_SELF;
    set_xen_guest_handle(set.map.buffer, (void*)UNMAPPED_VA);
    EXPECT_RESULT(memory_op(XENMEM_set_memory_map, &set), -EFAULT);

    set.map.nr_entries = count;
    set_xen_guest_handle(set.map.buffer, (void*)was);
    EXPECT_RESULT(memory_op(XENMEM_set_memory_map, &set), 0);
}

// ---- refusals ---------------------------------------------------------------------------------

static uint8_t bytes[128] __attribute__((aligned(64)));

// With a domain at `offset` of an argument that is zero otherwise.
static const void* about(unsigned offset, unsigned domid) {
    memset(bytes, 0, sizeof(bytes));
    bytes[offset] = (uint8_t)domid;
    bytes[offset + 1] = (uint8_t)(domid >> 8);
    return bytes;
}

static void refusals(void) {
    static const struct {
        unsigned char op, offset;
        int self, unmapped, start, io, dom0, dom1000, own;
    } rows[] = {
        {16, 32, -EPERM, -EFAULT, -ENOSYS, -ESRCH, -EINVAL, -ESRCH, -EPERM},
        {17, 32, -EPERM, -EFAULT, -ENOSYS, -ESRCH, -EINVAL, -ESRCH, -EPERM},
        {21, 2, -ESRCH, -EFAULT, -ESRCH, -ESRCH, -EINVAL, -ESRCH, -EPERM},
        {25, 0, -EOPNOTSUPP, -EOPNOTSUPP, -ENOSYS, -EOPNOTSUPP, -EOPNOTSUPP, -EOPNOTSUPP,
         -EOPNOTSUPP},
        {26, 0, -EOPNOTSUPP, -EFAULT, -EINVAL, -ESRCH, -EPERM, -ESRCH, -EOPNOTSUPP},
        {28, 0, -EACCES, IS_64 ? -EACCES : -EFAULT, -EACCES, -EACCES, -EACCES, -EACCES, -EACCES},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        unsigned op = rows[i].op, at = rows[i].offset;
        char name[32];
        format_to(name, sizeof(name), "memory_op %u", op);
        table_fact(name, memory_op(op, about(at, DOMID_SELF)), rows[i].self);
        table_fact(name, memory_op(op, U), rows[i].unmapped);
        table_fact(name, memory_op(op | START(1), about(at, DOMID_SELF)), rows[i].start);
        table_fact(name, memory_op(op, about(at, DOMID_IO)), rows[i].io);
        table_fact(name, memory_op(op, about(at, 0)), rows[i].dom0);
        table_fact(name, memory_op(op, about(at, 1000)), rows[i].dom1000);
        table_fact(name, memory_op(op, about(at, own_domid())), rows[i].own);
    }
    for (unsigned op = 18; op <= 19; op++) {
        table_fact("sharing", memory_op(op, NULL), 0);
        table_fact("sharing, start 1", memory_op(op | START(1), NULL), -ENOSYS);
    }
    struct xen_memory_reservation claim = {.nr_extents = 1, .domid = DOMID_SELF};
    table_fact("claim", memory_op(24, &claim), IS_64 ? -EINVAL : -ENOSYS);
    table_fact("claim, unmapped", memory_op(24, U), IS_64 ? -EFAULT : -ENOSYS);
    table_fact("claim, start 1", memory_op(24 | START(1), &claim), IS_64 ? -EINVAL : -ENOSYS);
    table_fact("reserved", memory_op(27, about(0, 0)), 0);
    table_fact("reserved, unmapped", memory_op(27, U), -EFAULT);
    table_fact("reserved, start 1", memory_op(27 | START(1), about(0, 0)), -EINVAL);
    table_fact("reserved, flags", memory_op(27, about(0, 2)), -EINVAL);
    // Of 64-bit callers with room for nothing, and with a list that is not there.
    table_fact("machphys", memory_op(5, about(0, 0)), IS_64 ? 0 : -EOPNOTSUPP);
    table_fact("machphys, unmapped", memory_op(5, U), IS_64 ? -EFAULT : -EOPNOTSUPP);
    table_end();
}

TESTS({"golden.e2.batch", batch_grants}, {"memory.batch_moves", batch_moves},
      {"golden.e2.batch_bad_arrays", batch_bad_arrays}, {"memory.range_down", range_down},
      {"memory.range_up", range_up}, {"golden.e2.range", range_edges},
      {"memory.beyond_the_cpu", beyond_the_cpu}, {"golden.e2.populate_over_ram", populate_over_ram},
      {"memory.superpages", superpages}, {"memory.lists_that_end_early", lists_that_end_early},
      {"memory.list_in_its_own_page", list_in_its_own_page}, {"golden.e.all_ones", all_ones},
      {"golden.e2.exchange", exchange_refused}, {"memory.set_map", set_map},
      {"golden.e.refusals", refusals});
