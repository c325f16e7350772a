// Frames that a guest maps, gives away and takes back (elf-boot-contract.md 6.4; xen-417-golden.md
// E.2 and E.3).

#include "test.h"

#define HOLE_GFN 0x7fff0

static uint8_t target[2][4096] __attribute__((aligned(4096)));

static unsigned long gfn_of(const void* p) {
    return (uintptr_t)p / PAGE_SIZE;
}

static long pages(void) {
    return domid_op(XENMEM_current_reservation, DOMID_SELF);
}

static long remove(unsigned long gfn) {
    struct xen_remove_from_physmap arg = {.domid = DOMID_SELF, .gpfn = gfn};
    return memory_op(XENMEM_remove_from_physmap, &arg);
}

static long decrease(unsigned long gfn) {
    return reservation(XENMEM_decrease_reservation, &gfn, 1, 0);
}

static long populate(unsigned long gfn) {
    return reservation(XENMEM_populate_physmap, &gfn, 1, 0);
}

static volatile uint32_t* frame(unsigned long gfn) {
    return (volatile uint32_t*)(gfn * PAGE_SIZE);
}

// What a page reads that has been taken out of RAM: ones on Xen; where a host cannot make an exact
// hole, zeroes. Never what was there.
static bool empty(unsigned long gfn) {
    return *frame(gfn) == 0xffffffff || *frame(gfn) == 0;
}

// What a page reads that has just been given to us. Xen hands it over as its last owner left it
// (measured, 4.17.7: what this same guest wrote there before); under us it is always clear. So it
// is no fact to lay beside Xen's.
static void expect_clear(uint32_t content) {
    if (!has_option("facts")) {
        expect("content", content, 0);
    }
}

// ---- shared info ------------------------------------------------------------------------------

static uint32_t early_port;

static void event_before_mapping(void) {
    // Set in Xen's own copy, seen in the guest's page.
    NEED(bind_ipi(0, &early_port));
    EXPECT_RESULT(port_send(early_port), 0);
    memset(shared_info_page, 0x77, 64);
    struct shared_info* shared = shared_info();
    CHECK(test_bit(early_port, shared->evtchn_pending));
    expect("upcall_pending", shared->vcpu_info[0].evtchn_upcall_pending, 1);
    CHECK(((uint8_t*)shared)[1] != 0x77);
}

static void is_shared_info(void) {
    struct shared_info* shared = shared_info();
    CHECK(shared->wc_sec > 1000000000);
    port_take(early_port);
    CHECK(!test_bit(early_port, shared->evtchn_pending));
    EXPECT_RESULT(port_send(early_port), 0);
    CHECK(test_bit(early_port, shared->evtchn_pending));
    port_close(early_port);
}

static void clock_is_there(void) {
    uint64_t a = xen_time();
    CHECK(a != 0);
    CHECK(xen_time() >= a);
}

static void shared_info_moves(void) {
    unsigned long old = gfn_of(shared_info_page);
    shared_info();
    long before = pages();
    EXPECT_RESULT(map_shared_info(gfn_of(target[0])), 0);
    // The RAM under the new place is gone, and so is the old place.
    expect("pages", (unsigned long)pages(), (unsigned long)(before - 1));
    struct shared_info* shared = (struct shared_info*)target[0];
    CHECK(shared->wc_sec > 1000000000);
    CHECK(empty(old));
    EXPECT_RESULT(remove(old), -ENOENT);
    uint32_t port = 0;
    NEED(bind_ipi(0, &port));
    EXPECT_RESULT(port_send(port), 0);
    CHECK(test_bit(port, shared->evtchn_pending));
    port_close(port);
    EXPECT_RESULT(map_shared_info(old), 0);
    CHECK(((struct shared_info*)shared_info_page)->wc_sec > 1000000000);
    // The place in between is a hole now; give it RAM again.
    CHECK(empty(gfn_of(target[0])));
    EXPECT_RESULT(populate(gfn_of(target[0])), 1);
    target[0][0] = 5;
    CHECK(*(volatile uint8_t*)target[0] == 5);
}

static void shared_info_outside_ram(void) {
    shared_info();
    EXPECT_RESULT(map_shared_info(HOLE_GFN), 0);
    struct shared_info* shared = (struct shared_info*)((uintptr_t)HOLE_GFN * PAGE_SIZE);
    uint32_t seconds = ACCESS(shared->wc_sec);
    EXPECT_RESULT(map_shared_info(gfn_of(shared_info_page)), 0);
    CHECK(seconds > 1000000000);
    expect("the hole afterwards", *frame(HOLE_GFN), 0xffffffff);
}

static void shared_info_same_place(void) {
    shared_info();
    long before = pages();
    for (unsigned i = 0; i < 20; i++) {
        EXPECT_RESULT(map_shared_info(gfn_of(shared_info_page)), 0);
    }
    expect("pages", (unsigned long)pages(), (unsigned long)before);
    CHECK(((struct shared_info*)shared_info_page)->wc_sec > 1000000000);
}

static void shared_info_removed(void) {
    shared_info();
    long before = pages();
    EXPECT_RESULT(remove(gfn_of(shared_info_page)), 0);
    EXPECT_RESULT(remove(gfn_of(shared_info_page)), -ENOENT);
    expect("pages", (unsigned long)pages(), (unsigned long)before);
    EXPECT_RESULT(map_shared_info(HOLE_GFN), 0);
    EXPECT_RESULT(decrease(HOLE_GFN), 1);
    EXPECT_RESULT(decrease(HOLE_GFN), 0);
    EXPECT_RESULT(map_shared_info(gfn_of(shared_info_page)), 0);
    expect("pages", (unsigned long)pages(), (unsigned long)before);
    CHECK(((struct shared_info*)shared_info_page)->wc_sec > 1000000000);
}

static void populate_over_shared_info(void) {
    shared_info();
    EXPECT_RESULT(map_shared_info(gfn_of(target[1])), 0);
    long before = pages();
    EXPECT_RESULT(populate(gfn_of(target[1])), 1);
    expect("pages", (unsigned long)pages(), (unsigned long)(before + 1));
    expect_clear(*(volatile uint32_t*)target[1]);
    EXPECT_RESULT(map_shared_info(gfn_of(shared_info_page)), 0);
    CHECK(((struct shared_info*)shared_info_page)->wc_sec > 1000000000);
}

static void shared_info_bad(void) {
    shared_info();
    EXPECT_RESULT(add_to_physmap(XENMAPSPACE_shared_info, 1, gfn_of(shared_info_page)), -EINVAL);
#ifdef __x86_64__
    EXPECT_RESULT(add_to_physmap(XENMAPSPACE_shared_info, 0, ~0ul), -EINVAL);
#endif
    EXPECT_RESULT(add_to_physmap(6, 0, spare_gfn(0)), -EINVAL);
    EXPECT_RESULT(add_to_physmap(0x80000000, 0, spare_gfn(0)), -EINVAL);
    EXPECT_RESULT(add_to_physmap(0x80000001, 0, spare_gfn(0)), -EINVAL);
    EXPECT_RESULT(add_to_physmap(XENMAPSPACE_gmfn_foreign, 0, spare_gfn(0)), -ENOSYS);
    EXPECT_RESULT(add_to_physmap(XENMAPSPACE_dev_mmio, 0, spare_gfn(0)), -EACCES);
    CHECK(((struct shared_info*)shared_info_page)->wc_sec > 1000000000);
}

// ---- grant frames -----------------------------------------------------------------------------

static void grant_frames(void) {
    for (unsigned i = 0; i < 4; i++) {
        EXPECT_RESULT(add_to_physmap(XENMAPSPACE_grant_table, i, spare_gfn(20 + i)), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        // Entries 0 and 1 of frame 0 are the console's and the xenstore's.
        frame(spare_gfn(20 + i))[16] = 0x1000 + i;
    }
    for (unsigned i = 0; i < 4; i++) {
        expect("a word of a grant frame", frame(spare_gfn(20 + i))[16], 0x1000 + i);
        frame(spare_gfn(20 + i))[16] = 0;
    }
}

static void grant_frame_moves(void) {
    EXPECT_RESULT(add_to_physmap(XENMAPSPACE_grant_table, 3, spare_gfn(26)), 0);
    frame(spare_gfn(26))[16] = 0xabcd;
    EXPECT_RESULT(add_to_physmap(XENMAPSPACE_grant_table, 3, spare_gfn(27)), 0);
    expect("content in the new place", frame(spare_gfn(27))[16], 0xabcd);
    frame(spare_gfn(27))[16] = 0;
    CHECK(empty(spare_gfn(26)));
    EXPECT_RESULT(remove(spare_gfn(26)), -ENOENT);
}

static void grant_frame_outside_ram(void) {
    EXPECT_RESULT(add_to_physmap(XENMAPSPACE_grant_table, 2, HOLE_GFN + 1), 0);
    frame(HOLE_GFN + 1)[16] = 0x77;
    expect("word", frame(HOLE_GFN + 1)[16], 0x77);
    frame(HOLE_GFN + 1)[16] = 0;
    EXPECT_RESULT(add_to_physmap(XENMAPSPACE_grant_table, 2, spare_gfn(22)), 0);
    expect("the hole afterwards", frame(HOLE_GFN + 1)[16], 0xffffffff);
}

static void grant_frame_bad(void) {
    EXPECT_RESULT(add_to_physmap(XENMAPSPACE_grant_table, 63, spare_gfn(28)), 0);
    EXPECT_RESULT(add_to_physmap(XENMAPSPACE_grant_table, 64, spare_gfn(29)), -EINVAL);
    // A status frame, in version 1.
    EXPECT_RESULT(add_to_physmap(XENMAPSPACE_grant_table, 0x80000000ul, spare_gfn(29)), -EINVAL);
    *frame(spare_gfn(29)) = 3;
    expect("RAM that was not replaced", *frame(spare_gfn(29)), 3);
}

static void grant_frame_dropped(void) {
    EXPECT_RESULT(decrease(spare_gfn(27)), 1);
    EXPECT_RESULT(add_to_physmap(XENMAPSPACE_grant_table, 3, spare_gfn(27)), -EBUSY);
}

// ---- RAM --------------------------------------------------------------------------------------

static void gmfn(void) {
    unsigned long from = spare_gfn(0);
    unsigned long to = spare_gfn(1);
    long before = pages();
    frame(from)[3] = 0x5eed;
    EXPECT_RESULT(add_to_physmap(XENMAPSPACE_gmfn, from, to), 0);
    expect("content in the new place", frame(to)[3], 0x5eed);
    CHECK(empty(from));
    expect("pages", (unsigned long)pages(), (unsigned long)(before - 1));
    EXPECT_RESULT(add_to_physmap(XENMAPSPACE_gmfn, HOLE_GFN, to), -EINVAL);
    EXPECT_RESULT(add_to_physmap(XENMAPSPACE_gmfn, from, to), -EINVAL);
    EXPECT_RESULT(add_to_physmap(XENMAPSPACE_gmfn, to, to), 0);
    expect("content after that", frame(to)[3], 0x5eed);
    EXPECT_RESULT(populate(from), 1);
    expect("pages", (unsigned long)pages(), (unsigned long)before);
}

static void remove_ram(void) {
    unsigned long gfn = spare_gfn(2);
    long before = pages();
    *frame(gfn) = 0x5eed;
    EXPECT_RESULT(remove(gfn), 0);
    expect("pages", (unsigned long)pages(), (unsigned long)before);  // not given back
    CHECK(empty(gfn));
    EXPECT_RESULT(remove(gfn), -ENOENT);
    EXPECT_RESULT(populate(gfn), 1);
    expect_clear(*frame(gfn));
    EXPECT_RESULT(remove(HOLE_GFN), -ENOENT);
}

static void decrease_and_populate(void) {
    long before = pages();
    EXPECT_RESULT(decrease(HOLE_GFN), 0);
    // A page where there was none.
    EXPECT_RESULT(populate(HOLE_GFN), 1);
    expect("pages", (unsigned long)pages(), (unsigned long)(before + 1));
    expect_clear(*frame(HOLE_GFN));
    *frame(HOLE_GFN) = 0x1234;
    expect("content", *frame(HOLE_GFN), 0x1234);
    EXPECT_RESULT(domid_op(XENMEM_maximum_gpfn, DOMID_SELF), 0xfefff);
    EXPECT_RESULT(decrease(HOLE_GFN), 1);
    expect("pages", (unsigned long)pages(), (unsigned long)before);
    // A page where there is one already: replaced, what was in it is lost, but still counted.
    *frame(spare_gfn(3)) = 0x5eed;
    EXPECT_RESULT(populate(spare_gfn(3)), 1);
    expect_clear(*frame(spare_gfn(3)));
    expect("pages", (unsigned long)pages(), (unsigned long)(before + 1));
}

static void ballooned_page(void) {
    unsigned long gfn = spare_gfn(4);
    *frame(gfn) = 0x5eed;
    EXPECT_RESULT(decrease(gfn), 1);
    CHECK(empty(gfn));
    // Whoever touches it harms nobody, and it stays given back.
    *frame(gfn) = 0x1234;
    frame(gfn)[7]++;
    EXPECT_RESULT(decrease(gfn), 0);
    EXPECT_RESULT(populate(gfn), 1);
    expect_clear(*frame(gfn));
    expect_clear(frame(gfn)[7]);
}

static void orders(void) {
    unsigned long gfn = (spare_gfn(0) & ~511ul) - 512;
    long before = pages();
    if (gfn < 0x800) {
        SKIP("too little memory");
    }
    EXPECT_RESULT(reservation(XENMEM_decrease_reservation, &gfn, 1, 9), 1);
    expect("pages", (unsigned long)pages(), (unsigned long)(before - 512));
    EXPECT_RESULT(reservation(XENMEM_populate_physmap, &gfn, 1, 9), 1);
    expect("pages", (unsigned long)pages(), (unsigned long)before);
    gfn++;
    EXPECT_RESULT(reservation(XENMEM_decrease_reservation, &gfn, 1, 9), 1);
    EXPECT_RESULT(reservation(XENMEM_populate_physmap, &gfn, 1, 9), 1);
    EXPECT_RESULT(reservation(XENMEM_populate_physmap, &gfn, 1, 10), 0);
    EXPECT_RESULT(reservation(XENMEM_decrease_reservation, &gfn, 1, 10), 0);
    EXPECT_RESULT(reservation(XENMEM_decrease_reservation, &gfn, 1, 19), 0);
    EXPECT_RESULT(reservation(XENMEM_decrease_reservation, &gfn, 1, 64), 0);
    expect("pages", (unsigned long)pages(), (unsigned long)before);
}

static void bad_reservations(void) {
    unsigned long gfn = spare_gfn(5);
    long before = pages();
    struct xen_memory_reservation arg = {.nr_extents = 1, .domid = DOMID_SELF};
    set_xen_guest_handle(arg.extent_start, (xen_pfn_t*)&gfn);
    arg.nr_extents = 0x04000000;
    EXPECT_RESULT(memory_op(XENMEM_decrease_reservation, &arg), 0);
    arg.nr_extents = ~0ul;
    EXPECT_RESULT(memory_op(XENMEM_decrease_reservation, &arg), 0);
    arg.nr_extents = 1;
    static const unsigned domids[] = {0, 1000, DOMID_IO};
    for (unsigned i = 0; i < ARRAY_SIZE(domids); i++) {
        arg.domid = (domid_t)domids[i];
        EXPECT_RESULT(memory_op(XENMEM_decrease_reservation, &arg), 0);
        EXPECT_RESULT(memory_op(XENMEM_populate_physmap, &arg), 0);
    }
    arg.domid = DOMID_SELF;
    set_xen_guest_handle(arg.extent_start, (xen_pfn_t*)UNMAPPED_VA);
    EXPECT_RESULT(memory_op(XENMEM_decrease_reservation, &arg), 0);
    EXPECT_RESULT(memory_op(XENMEM_populate_physmap, &arg), 0);
    set_xen_guest_handle(arg.extent_start, (xen_pfn_t*)&gfn);
    arg.mem_flags = XENMEMF_populate_on_demand;
    EXPECT_RESULT(memory_op(XENMEM_populate_physmap, &arg), 0);
    arg.mem_flags = 20;  // address bits
    EXPECT_RESULT(memory_op(XENMEM_populate_physmap, &arg), 0);
    expect("pages", (unsigned long)pages(), (unsigned long)before);
    static const unsigned flags[] = {1u << 17, 1u << 31};
    for (unsigned i = 0; i < ARRAY_SIZE(flags); i++) {
        arg.mem_flags = flags[i];
        EXPECT_RESULT(memory_op(XENMEM_populate_physmap, &arg), 1);
    }
}

static void increase(void) {
    // Pages that land nowhere: counted, and useless, as on Xen.
    long before = pages();
    unsigned long gfn = HOLE_GFN;
    EXPECT_RESULT(reservation(XENMEM_increase_reservation, &gfn, 1, 0), 1);
    expect("pages", (unsigned long)pages(), (unsigned long)(before + 1));
#ifdef __x86_64__
    expect("list", gfn, HOLE_GFN);
#endif
    // For a 32-bit guest Xen 4.17.7 writes to the list what its translation area held from an
    // earlier call (measured); we leave it alone.
}

static void above_the_limit(void) {
    // maximum_reservation is a limit: 1 MiB above RAM on Xen.
    long maximum = domid_op(XENMEM_maximum_reservation, DOMID_SELF);
    long now = pages();
    CHECK(maximum >= now);
    static unsigned long gfns[300];
    long room = maximum - now;
    if (room + 8 > 300) {
        SKIP("%ld pages of room", room);
    }
    for (unsigned i = 0; i < 300; i++) {
        gfns[i] = HOLE_GFN + 0x100 + i;
    }
    long got = reservation(XENMEM_populate_physmap, gfns, (unsigned long)room + 8, 0);
    long used = pages();
    reservation(XENMEM_decrease_reservation, gfns, (unsigned long)got, 0);
    EXPECT_RESULT(got, room);
    EXPECT_RESULT(used, maximum);
    EXPECT_RESULT(pages(), now);
}

TESTS({"c6.4.events_before_mapping", event_before_mapping}, {"c6.4.is_shared_info", is_shared_info},
      {"c6.4.clock", clock_is_there}, {"c6.4.moves", shared_info_moves},
      {"c6.4.outside_ram", shared_info_outside_ram}, {"c6.4.same_place", shared_info_same_place},
      {"golden.e3.removed", shared_info_removed},
      {"golden.e3.populate_over", populate_over_shared_info},
      {"golden.e2.add_bad", shared_info_bad}, {"c6.4.grant_frames", grant_frames},
      {"c6.4.grant_frame_moves", grant_frame_moves},
      {"c6.4.grant_frame_outside_ram", grant_frame_outside_ram},
      {"golden.e2.grant_bad", grant_frame_bad}, {"golden.e3.grant_dropped", grant_frame_dropped},
      {"golden.e2.gmfn", gmfn}, {"golden.e2.remove", remove_ram},
      {"golden.e2.decrease_and_populate", decrease_and_populate},
      {"c5.ballooned_page", ballooned_page}, {"golden.e2.orders", orders},
      {"golden.e2.bad_reservations", bad_reservations}, {"golden.e2.increase", increase},
      {"golden.e2.limit", above_the_limit});
