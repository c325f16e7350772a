// Grants at work: copies, mappings of the guest's own pages, both versions of the table
// (xen-417-golden.md G; xen.git common/grant_table.c and arch/x86/hvm/grant_table.c of 4.17).

#include "test.h"

#define FREE_REF 9

static uint8_t page_a[4096] __attribute__((aligned(4096)));
static uint8_t page_b[4096] __attribute__((aligned(4096)));

static domid_t self;

static unsigned long gfn_of(const void* p) {
    return (uintptr_t)p / PAGE_SIZE;
}

static volatile struct grant_entry_v1* entries_v1(void) {
    return (volatile struct grant_entry_v1*)(spare_gfn(0) * PAGE_SIZE);
}

static volatile union grant_entry_v2* entries_v2(void) {
    return (volatile union grant_entry_v2*)(spare_gfn(0) * PAGE_SIZE);
}

static volatile uint16_t* statuses(void) {
    return (volatile uint16_t*)(spare_gfn(1) * PAGE_SIZE);
}

static void set_up(void) {
    self = (domid_t)cpuid(xen_base + 4, 0).ecx;
    NEED(add_to_physmap(XENMAPSPACE_grant_table, 0, spare_gfn(0)));
}

static long pages(void) {
    return domid_op(XENMEM_current_reservation, DOMID_SELF);
}

static long remove_from_physmap(unsigned long gfn) {
    struct xen_remove_from_physmap arg = {.domid = DOMID_SELF, .gpfn = gfn};
    return memory_op(XENMEM_remove_from_physmap, &arg);
}

static long set_version(uint32_t version) {
    struct gnttab_set_version arg = {version};
    return grant_table_op(GNTTABOP_set_version, &arg, 1);
}

static void give(unsigned ref, unsigned long gfn, unsigned flags, domid_t domid) {
    entries_v1()[ref].domid = domid;
    entries_v1()[ref].frame = (uint32_t)gfn;
    asm volatile("" : : : "memory");
    entries_v1()[ref].flags = (uint16_t)flags;
}

static void give_v2(unsigned ref, unsigned long gfn, unsigned flags, domid_t domid) {
    entries_v2()[ref].hdr.domid = domid;
    entries_v2()[ref].full_page.frame = gfn;
    asm volatile("" : : : "memory");
    entries_v2()[ref].hdr.flags = (uint16_t)flags;
}

// ---- copies -----------------------------------------------------------------------------------

static struct gnttab_copy copying(unsigned long from, domid_t from_dom, unsigned long to,
                                  domid_t to_dom, unsigned flags) {
    struct gnttab_copy op = {.len = 64, .flags = (uint16_t)flags, .status = 77};
    op.source.u.gmfn = from;
    op.source.domid = from_dom;
    op.dest.u.gmfn = to;
    op.dest.domid = to_dom;
    return op;
}

static int copy(struct gnttab_copy op) {
    struct gnttab_copy arg = op;
    EXPECT_RESULT(grant_table_op(GNTTABOP_copy, &arg, 1), 0);
    return arg.status;
}

static void copy_golden(void) {
    unsigned long a = gfn_of(page_a), b = gfn_of(page_b);
    struct gnttab_copy op = copying(a, DOMID_SELF, b, DOMID_SELF, 0);
    memset(page_a, 0x5a, sizeof(page_a));
    memset(page_b, 0, sizeof(page_b));
    table_fact("self to self by gmfn", copy(op), 0);
    table_fact("the last byte", page_b[63], 0x5a);
    table_fact("the byte after", page_b[64], 0);
    op.len = 0;
    table_fact("len 0", copy(op), 0);
    op.len = 64;
    op.source.offset = 4090;
    table_fact("cross page", copy(op), GNTST_bad_copy_arg);
    table_fact("dest hole", copy(copying(a, DOMID_SELF, 0x7fff1, DOMID_SELF, 0)), GNTST_bad_page);
    table_fact("source dom 0 by gmfn", copy(copying(a, 0, b, DOMID_SELF, 0)),
               GNTST_permission_denied);
    table_fact("source gref 8 of dom 0", copy(copying(8, 0, b, DOMID_SELF, GNTCOPY_source_gref)),
               GNTST_general_error);
    table_fact("source gref huge", copy(copying(0x7fffffff, 0, b, DOMID_SELF, GNTCOPY_source_gref)),
               GNTST_bad_gntref);
    table_fact("source dom 1000", copy(copying(8, 1000, b, DOMID_SELF, GNTCOPY_source_gref)),
               GNTST_bad_domain);
    table_fact("source self gref inactive",
               copy(copying(FREE_REF, DOMID_SELF, b, DOMID_SELF, GNTCOPY_source_gref)),
               GNTST_general_error);
    table_fact("flags unknown", copy(copying(a, DOMID_SELF, b, DOMID_SELF, 0x8000)), 0);
    table_end();
}

// Each direction, by references of the guest's own.
static void copy_directions(void) {
    set_up();
    for (unsigned flags = 0; flags < 4; flags++) {
        memset(page_a, 0x10 + (int)flags, sizeof(page_a));
        memset(page_b, 0, sizeof(page_b));
        give(20, gfn_of(page_a), GTF_permit_access | GTF_readonly, self);
        give(21, gfn_of(page_b), GTF_permit_access, self);
        struct gnttab_copy op =
            copying(flags & GNTCOPY_source_gref ? 20 : gfn_of(page_a),
                    flags & GNTCOPY_source_gref ? self : DOMID_SELF,
                    flags & GNTCOPY_dest_gref ? 21 : gfn_of(page_b), DOMID_SELF, flags);
        op.source.offset = 100;
        op.dest.offset = 200;
        op.len = 300;
        expect("status", (unsigned)copy(op), 0);
        expect("before", page_b[199], 0);
        expect("first", page_b[200], 0x10 + flags);
        expect("last", page_b[499], 0x10 + flags);
        expect("after", page_b[500], 0);
        expect("in use", entries_v1()[20].flags, GTF_permit_access | GTF_readonly);
        expect("in use", entries_v1()[21].flags, GTF_permit_access);
    }
    table_fact("to a read-only grant",
               copy(copying(gfn_of(page_b), DOMID_SELF, 20, self, GNTCOPY_dest_gref)),
               GNTST_general_error);
    give(20, gfn_of(page_a), GTF_permit_access, 0);
    table_fact("granted to another",
               copy(copying(20, self, gfn_of(page_b), DOMID_SELF, GNTCOPY_source_gref)),
               GNTST_general_error);
    give(20, 0x7fff1, GTF_permit_access, self);
    table_fact("a grant of a hole",
               copy(copying(20, self, gfn_of(page_b), DOMID_SELF, GNTCOPY_source_gref)),
               GNTST_bad_page);
    give(20, 0, 0, 0);
    give(21, 0, 0, 0);
    table_end();
}

// 300 elements, stopped and resumed wherever the host likes: each has one status, and a failed one
// does not stop the list.
static void copy_list(void) {
    static struct gnttab_copy list[300];
    memset(page_b, 0, sizeof(page_b));
    for (unsigned i = 0; i < 300; i++) {
        bool bad = i % 7 == 3;
        list[i] =
            copying(gfn_of(page_a), DOMID_SELF, bad ? 0x7fff1 : gfn_of(page_b), DOMID_SELF, 0);
        list[i].source.offset = (uint16_t)i;
        list[i].dest.offset = (uint16_t)(i * 2);
        list[i].len = 2;
        page_a[i] = (uint8_t)(i * 3);
    }
    EXPECT_RESULT(grant_table_op(GNTTABOP_copy, list, 300), 0);
    for (unsigned i = 0; i < 300; i++) {
        expect("status", (uint16_t)list[i].status,
               i % 7 == 3 ? (uint16_t)GNTST_bad_page : GNTST_okay);
        expect("byte", page_b[i * 2], i % 7 == 3 ? 0 : page_a[i]);
    }
}

// ---- mappings ---------------------------------------------------------------------------------

static struct gnttab_map_grant_ref mapping(unsigned ref, domid_t domid, unsigned flags,
                                           unsigned long gfn) {
    struct gnttab_map_grant_ref op = {.host_addr = (uint64_t)gfn * PAGE_SIZE,
                                      .flags = flags,
                                      .ref = ref,
                                      .dom = domid,
                                      .status = 77};
    return op;
}

static int map(struct gnttab_map_grant_ref op, uint32_t* handle) {
    struct gnttab_map_grant_ref arg = op;
    EXPECT_RESULT(grant_table_op(GNTTABOP_map_grant_ref, &arg, 1), 0);
    *handle = arg.handle;
    return arg.status;
}

static int unmap(uint32_t handle, unsigned long gfn) {
    struct gnttab_unmap_grant_ref arg = {
        .host_addr = (uint64_t)gfn * PAGE_SIZE, .handle = handle, .status = 77};
    EXPECT_RESULT(grant_table_op(GNTTABOP_unmap_grant_ref, &arg, 1), 0);
    return arg.status;
}

static void map_golden(void) {
    static const struct {
        const char* name;
        unsigned ref, flags;
        int domid, status;  // domid -1: the guest's own
    } rows[] = {
        {"dom 0 ref 8", 8, GNTMAP_host_map, 0, GNTST_general_error},
        {"flags 0", 8, 0, 0, GNTST_bad_gntref},
        {"device only", 8, GNTMAP_device_map, 0, GNTST_general_error},
        {"application", 8, GNTMAP_host_map | GNTMAP_application_map, 0, GNTST_general_error},
        {"contains_pte", 8, GNTMAP_host_map | GNTMAP_contains_pte, 0, GNTST_general_error},
        {"dom 1000", 8, GNTMAP_host_map, 1000, GNTST_bad_domain},
        {"self", 8, GNTMAP_host_map, DOMID_SELF, GNTST_bad_domain},
        {"own id", FREE_REF, GNTMAP_host_map, -1, GNTST_general_error},
        {"huge ref", 0x7fffffff, GNTMAP_host_map, 0, GNTST_bad_gntref},
        {"DOMID_IO", 8, GNTMAP_host_map, DOMID_IO, GNTST_bad_domain},
    };
    uint32_t handle = 0;
    set_up();
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        domid_t domid = rows[i].domid < 0 ? self : (domid_t)rows[i].domid;
        table_fact(rows[i].name,
                   map(mapping(rows[i].ref, domid, rows[i].flags, spare_gfn(4)), &handle),
                   rows[i].status);
        table_fact("its handle", handle, 0);
    }
    table_fact("unmap handle 0", unmap(0, spare_gfn(4)), GNTST_bad_handle);
    table_fact("unmap handle ~0", unmap(~0u, spare_gfn(4)), GNTST_bad_handle);
    table_end();
}

static void map_own_page(void) {
    unsigned long from = spare_gfn(5), to = spare_gfn(6);
    volatile uint8_t* old_place = (volatile uint8_t*)(from * PAGE_SIZE);
    volatile uint8_t* new_place = (volatile uint8_t*)(to * PAGE_SIZE);
    uint32_t handle = 0;
    set_up();
    // The target is made free first, as every kernel does.
    EXPECT_RESULT(reservation(XENMEM_decrease_reservation, &to, 1, 0), 1);
    old_place[7] = 0x71;
    long before = pages();
    give(20, from, GTF_permit_access, self);
    table_fact("map", map(mapping(20, self, GNTMAP_host_map, to), &handle), 0);
    table_fact("content", new_place[7], 0x71);
    table_fact("in use", entries_v1()[20].flags, GTF_permit_access | GTF_reading | GTF_writing);
    new_place[8] = 0x72;
    // A copy by the reference sees what was written there.
    table_fact("copy", copy(copying(20, self, gfn_of(page_b), DOMID_SELF, GNTCOPY_source_gref)), 0);
    table_fact("copied", page_b[8], 0x72);
    table_fact("copy by its new gfn", copy(copying(to, DOMID_SELF, gfn_of(page_b), DOMID_SELF, 0)),
               0);
    // A page of the domain's own has one place at a time.
    table_fact("at its old place", old_place[7] == 0x71, false);
    table_fact("remove its old place", remove_from_physmap(from), -ENOENT);
    table_fact("it counts", pages() - before, 0);
    struct gnttab_swap_grant_ref swap = {.ref_a = 20, .ref_b = 21};
    EXPECT_RESULT(grant_table_op(GNTTABOP_swap_grant_ref, &swap, 1), 0);
    table_fact("swap of what is in use", swap.status, GNTST_eagain);
    table_fact("another version", set_version(2), -EBUSY);
    table_fact("unmap elsewhere", unmap(handle, spare_gfn(7)), -1);
    table_fact("mapped still", new_place[7], 0x71);
    table_fact("unmap", unmap(handle, to), 0);
    table_fact("unmap again", unmap(handle, to), GNTST_bad_handle);
    table_fact("in use then", entries_v1()[20].flags, GTF_permit_access);
    table_fact("content then", new_place[7] == 0x71, false);
    table_fact("remove its new place", remove_from_physmap(to), -ENOENT);
    table_fact("it counts then", pages() - before, 0);
    give(20, 0, 0, 0);
    EXPECT_RESULT(reservation(XENMEM_populate_physmap, &to, 1, 0), 1);
    EXPECT_RESULT(reservation(XENMEM_populate_physmap, &from, 1, 0), 1);
    expect_fresh(from);
    expect_fresh(to);
    table_fact("pages then", pages() - before, 2);
    table_end();
}

// Addresses that no kernel gives.
static void odd_addresses(void) {
    unsigned long from = spare_gfn(5), to = spare_gfn(6);
    uint32_t handle = 0;
    set_up();
    EXPECT_RESULT(reservation(XENMEM_decrease_reservation, &to, 1, 0), 1);
    give(20, from, GTF_permit_access, self);
    *(volatile uint8_t*)(from * PAGE_SIZE + 7) = 0x73;
    struct gnttab_map_grant_ref op = mapping(20, self, GNTMAP_host_map, to);
    op.host_addr += 0x123;
    table_fact("unaligned map", map(op, &handle), 0);
    table_fact("content", *(volatile uint8_t*)(to * PAGE_SIZE + 7), 0x73);
    struct gnttab_unmap_grant_ref none = {.handle = handle, .status = 77};
    EXPECT_RESULT(grant_table_op(GNTTABOP_unmap_grant_ref, &none, 1), 0);
    table_fact("unmap of address 0", none.status, 0);
    table_fact("mapped still", *(volatile uint8_t*)(to * PAGE_SIZE + 7), 0x73);
    table_fact("in use still", entries_v1()[20].flags,
               GTF_permit_access | GTF_reading | GTF_writing);
    table_fact("unmap", unmap(handle, to), 0);
    table_fact("in use then", entries_v1()[20].flags, GTF_permit_access);
    give(20, 0, 0, 0);
    EXPECT_RESULT(reservation(XENMEM_populate_physmap, &to, 1, 0), 1);
    EXPECT_RESULT(reservation(XENMEM_populate_physmap, &from, 1, 0), 1);
    struct gnttab_setup_table setup = {.dom = DOMID_SELF, .nr_frames = 1, .status = 77};
    set_xen_guest_handle(setup.frame_list, (xen_pfn_t*)UNMAPPED_VA);
    table_fact("setup_table with a bad list", grant_table_op(GNTTABOP_setup_table, &setup, 1), 0);
    table_fact("its status", setup.status, sizeof(long) == 8 ? GNTST_bad_virt_addr : GNTST_okay);
    table_end();
}

// A hypercall's arguments may lie wherever the guest has memory of its own, but not where a grant
// is mapped, be the page its own as well (hvm.c, hvm_translate_get_page).
static void arguments(const char* where, void* page, bool usable) {
    const unsigned version_bytes = 16;
    char name[80];
#define ARGUMENT(what, call, good)                                 \
    do {                                                           \
        format_to(name, sizeof(name), "%s: %s", where, what);      \
        table_fact(name, (call), usable ? (long)(good) : -EFAULT); \
    } while (0)
    domid_t* domid = page;
    if (usable) {
        *domid = 0;
    }
    ARGUMENT("read", memory_op(XENMEM_current_reservation, domid), -EPERM);
    ARGUMENT("written", xen_version(XENVER_extraversion, page), 0);
    struct multicall_entry* list = page;
    if (usable) {
        memset(list, 0, sizeof(*list));
        list->op = __HYPERVISOR_xen_version;
    }
    ARGUMENT("a list", multicall(list, 1), 0);
    struct gnttab_query_size* size = page;
    if (usable) {
        memset(size, 0, sizeof(*size));
        size->dom = DOMID_SELF;
    }
    ARGUMENT("a grant operation", grant_table_op(GNTTABOP_query_size, size, 1), 0);
    struct xen_memory_reservation extents = {.nr_extents = 1, .domid = DOMID_SELF};
    set_xen_guest_handle(extents.extent_start, (xen_pfn_t*)page);
    if (usable) {
        *(unsigned long*)page = 0x7fff1;
    }
    table_fact(where, memory_op(XENMEM_decrease_reservation, &extents), 0);
    // Its first bytes lie in the page before.
    ARGUMENT("half of it", xen_version(XENVER_extraversion, (char*)page - version_bytes / 2), 0);
    table_fact("all before it", xen_version(XENVER_extraversion, (char*)page - version_bytes), 0);
#undef ARGUMENT
}

static void arguments_in_granted_pages(void) {
    unsigned long from = spare_gfn(5), to = spare_gfn(7);
    void* page = (void*)(to * PAGE_SIZE);
    uint32_t handle = 0;
    set_up();
    arguments("RAM", page, true);
    for (unsigned readonly = 0; readonly < 2; readonly++) {
        EXPECT_RESULT(reservation(XENMEM_decrease_reservation, &to, 1, 0), 1);
        give(20, from, GTF_permit_access, self);
        table_fact(
            "map",
            map(mapping(20, self, GNTMAP_host_map | (readonly ? GNTMAP_readonly : 0), to), &handle),
            0);
        arguments(readonly ? "granted, read-only" : "granted", page, false);
        table_fact("unmap", unmap(handle, to), 0);
        give(20, 0, 0, 0);
        EXPECT_RESULT(reservation(XENMEM_populate_physmap, &to, 1, 0), 1);
        EXPECT_RESULT(reservation(XENMEM_populate_physmap, &from, 1, 0), 1);
        arguments("RAM again", page, true);
    }
    arguments("a grant frame", (void*)((uintptr_t)entries_v1() + 64), true);
    for (unsigned ref = 8; ref < 64; ref++) {
        give(ref, 0, 0, 0);
    }
    table_end();
}

// ---- version 2 --------------------------------------------------------------------------------

static void status_frames(void) {
    set_up();
    EXPECT_RESULT(
        add_to_physmap(XENMAPSPACE_grant_table, XENMAPIDX_grant_table_status, spare_gfn(1)),
        -EINVAL);
    EXPECT_RESULT(set_version(2), 0);
    EXPECT_RESULT(
        add_to_physmap(XENMAPSPACE_grant_table, XENMAPIDX_grant_table_status, spare_gfn(1)), 0);
    unsigned long from = spare_gfn(5), to = spare_gfn(6);
    uint32_t handle = 0;
    EXPECT_RESULT(reservation(XENMEM_decrease_reservation, &to, 1, 0), 1);
    give_v2(20, from, GTF_permit_access, self);
    expect("map", (unsigned)map(mapping(20, self, GNTMAP_host_map | GNTMAP_readonly, to), &handle),
           0);
    expect("status word", statuses()[20], GTF_reading);
    expect("flags", entries_v2()[20].hdr.flags, GTF_permit_access);
    EXPECT_RESULT(set_version(1), -EBUSY);
    expect("unmap", (unsigned)unmap(handle, to), 0);
    expect("status word then", statuses()[20], 0);
    entries_v2()[20].hdr.flags = 0;
    EXPECT_RESULT(set_version(1), 0);
    // The status frame is gone with the version.
    struct xen_remove_from_physmap arg = {.domid = DOMID_SELF, .gpfn = spare_gfn(1)};
    EXPECT_RESULT(memory_op(XENMEM_remove_from_physmap, &arg), -ENOENT);
    unsigned long gfns[3] = {spare_gfn(1), to, from};
    EXPECT_RESULT(reservation(XENMEM_populate_physmap, gfns, 3, 0), 3);
}

static void sub_pages(void) {
    set_up();
    EXPECT_RESULT(set_version(2), 0);
    memset(page_a, 0x44, sizeof(page_a));
    give_v2(20, gfn_of(page_a), 0, self);
    entries_v2()[20].sub_page.page_off = 512;
    entries_v2()[20].sub_page.length = 1024;
    entries_v2()[20].hdr.flags = GTF_permit_access | GTF_sub_page;
    struct gnttab_copy op = copying(20, self, gfn_of(page_b), DOMID_SELF, GNTCOPY_source_gref);
    uint32_t handle = 0;
    op.source.offset = 512;
    op.len = 1024;
    table_fact("all of it", copy(op), 0);
    op.source.offset = 511;
    op.len = 2;
    table_fact("before it", copy(op), GNTST_general_error);
    op.source.offset = 1535;
    table_fact("behind it", copy(op), GNTST_general_error);
    table_fact("a mapping", map(mapping(20, self, GNTMAP_host_map, spare_gfn(6)), &handle),
               GNTST_general_error);
    // Transitive: to nobody, to oneself, to what domain 0 has not granted.
    entries_v2()[20].hdr.flags = 0;
    entries_v2()[20].transitive.trans_domid = self;
    entries_v2()[20].transitive.gref = 21;
    entries_v2()[20].hdr.flags = GTF_transitive;
    op.source.offset = 0;
    table_fact("transitive, self", copy(op), GNTST_general_error);
    entries_v2()[20].transitive.trans_domid = 1000;
    table_fact("transitive, nobody", copy(op), GNTST_general_error);
    entries_v2()[20].transitive.trans_domid = 0;
    entries_v2()[20].transitive.gref = 8;
    table_fact("transitive, dom 0", copy(op), GNTST_general_error);
    entries_v2()[20].hdr.flags = 0;
    table_fact("back to version 1", set_version(1), 0);
    table_end();
}

// The toolstack puts the console's and the store's pages there, and domain 0 maps the store's.
static void toolstacks_entries(void) {
    set_up();
    for (unsigned version = 1; version <= 2; version++) {
        EXPECT_RESULT(set_version(version), 0);
        for (unsigned ref = 0; ref < 8; ref++) {
            char name[64];
            unsigned flags = version == 1 ? entries_v1()[ref].flags : entries_v2()[ref].hdr.flags;
            unsigned domid = version == 1 ? entries_v1()[ref].domid : entries_v2()[ref].hdr.domid;
            unsigned long frame = version == 1 ? entries_v1()[ref].frame
                                               : (unsigned long)entries_v2()[ref].full_page.frame;
            format_to(name, sizeof(name), "version %u, flags of %u", version, ref);
            expect(name, flags, ref > 1 ? 0 : GTF_permit_access | (version == 1 ? 0x18 : 0));
            format_to(name, sizeof(name), "version %u, domid of %u", version, ref);
            expect(name, domid, 0);
            format_to(name, sizeof(name), "version %u, frame of %u", version, ref);
            uint64_t pfn = 0;
            if (ref < 2) {
                NEED(get_param(ref == 0 ? HVM_PARAM_CONSOLE_PFN : HVM_PARAM_STORE_PFN, &pfn));
            }
            expect(name, frame, pfn);
        }
    }
    EXPECT_RESULT(
        add_to_physmap(XENMAPSPACE_grant_table, XENMAPIDX_grant_table_status, spare_gfn(1)), 0);
    expect("status of 0", statuses()[0], GTF_reading | GTF_writing);
    expect("status of 1", statuses()[1], GTF_reading | GTF_writing);
    expect("status of 2", statuses()[2], 0);
    EXPECT_RESULT(set_version(1), 0);
    expect("flags of 1 again", entries_v1()[1].flags,
           GTF_permit_access | GTF_reading | GTF_writing);
    // In use, and not ours to use.
    struct gnttab_swap_grant_ref swap = {.ref_a = 1, .ref_b = 30, .status = 77};
    EXPECT_RESULT(grant_table_op(GNTTABOP_swap_grant_ref, &swap, 1), 0);
    table_fact("swap", swap.status, GNTST_eagain);
    uint32_t handle = 0;
    table_fact("map", map(mapping(1, self, GNTMAP_host_map, spare_gfn(6)), &handle),
               GNTST_general_error);
    table_fact("copy", copy(copying(1, self, gfn_of(page_b), DOMID_SELF, GNTCOPY_source_gref)),
               GNTST_general_error);
    unsigned long gone = spare_gfn(1);
    EXPECT_RESULT(reservation(XENMEM_populate_physmap, &gone, 1, 0), 1);
    table_end();
}

static void reserved_entries_stay(void) {
    set_up();
    uint16_t flags = entries_v1()[1].flags;
    uint32_t frame = entries_v1()[1].frame;
    give(7, 0x7a7, GTF_permit_access | GTF_readonly, 5);
    give(8, 0x7a8, GTF_permit_access, 5);
    EXPECT_RESULT(set_version(2), 0);
    expect("flags of 7", entries_v2()[7].hdr.flags, GTF_permit_access | GTF_readonly);
    expect("frame of 7", entries_v2()[7].full_page.frame, 0x7a7);
    expect("frame of 1", entries_v2()[1].full_page.frame, frame);
    expect("flags of 1", entries_v2()[1].hdr.flags, flags & ~(GTF_reading | GTF_writing));
    expect("domid of 1", entries_v2()[1].hdr.domid, 0);
    expect("flags of 8", entries_v2()[8].hdr.flags, 0);
    entries_v2()[6].full_page.frame = 1ull << 32;
    entries_v2()[6].hdr.flags = GTF_permit_access;
    EXPECT_RESULT(set_version(1), -ERANGE);
    entries_v2()[6].hdr.flags = 0;
    EXPECT_RESULT(set_version(1), 0);
    expect("domid of 7", entries_v1()[7].domid, 5);
    expect("flags of 1", entries_v1()[1].flags & ~(GTF_reading | GTF_writing),
           flags & ~(GTF_reading | GTF_writing));
    give(7, 0, 0, 0);
}

static void swap(void) {
    set_up();
    give(20, 0x111, GTF_permit_access, 5);
    give(21, 0x222, GTF_permit_access | GTF_readonly, 6);
    struct gnttab_swap_grant_ref arg[3] = {{.ref_a = 20, .ref_b = 21, .status = 77},
                                           {.ref_a = 20, .ref_b = 0x7fffffff, .status = 77},
                                           {.ref_a = 21, .ref_b = 21, .status = 77}};
    EXPECT_RESULT(grant_table_op(GNTTABOP_swap_grant_ref, arg, 3), 0);
    table_fact("status", arg[0].status, 0);
    table_fact("huge", arg[1].status, GNTST_bad_gntref);
    table_fact("itself", arg[2].status, 0);
    table_fact("frame of 20", entries_v1()[20].frame, 0x222);
    table_fact("domid of 21", entries_v1()[21].domid, 5);
    give(20, 0, 0, 0);
    give(21, 0, 0, 0);
    table_end();
}

TESTS({"golden.g.copy", copy_golden}, {"grants.copy_directions", copy_directions},
      {"grants.copy_list", copy_list}, {"golden.g.map", map_golden},
      {"grants.map_own_page", map_own_page}, {"grants.odd_addresses", odd_addresses},
      {"grants.arguments", arguments_in_granted_pages}, {"grants.swap", swap},
      {"grants.status_frames", status_frames}, {"grants.sub_pages", sub_pages},
      {"grants.toolstacks_entries", toolstacks_entries},
      {"grants.reserved_entries_stay", reserved_entries_stay});
