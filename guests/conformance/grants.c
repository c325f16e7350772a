// The grant table's set-up (elf-boot-contract.md 6.8; xen-417-golden.md G).

#include "test.h"

#define PAGED (GUEST_PAGING != PAGING_NONE)

static uint8_t zeroes[64];

static long query(unsigned domid, struct gnttab_query_size* size) {
    memset(size, 0, sizeof(*size));
    size->dom = (domid_t)domid;
    size->status = 77;
    return grant_table_op(GNTTABOP_query_size, size, 1);
}

static void query_size(void) {
    struct gnttab_query_size size;
    table_fact("self", query(DOMID_SELF, &size), 0);
    table_fact("self, status", size.status, 0);
    table_fact("self, frames", size.nr_frames, 1);
    table_fact("self, limit", size.max_nr_frames, 64);
    table_fact("own id", query(cpuid(xen_base + 4, 0).ecx, &size), 0);
    table_fact("own id, status", size.status, 0);
    table_fact("dom 0", query(0, &size), 0);
    table_fact("dom 0, status", size.status, GNTST_permission_denied);
    table_fact("dom 1000", query(1000, &size), 0);
    table_fact("dom 1000, status", size.status, GNTST_bad_domain);
    table_fact("DOMID_IO", query(DOMID_IO, &size), 0);
    table_fact("DOMID_IO, status", size.status, GNTST_bad_domain);
    table_end();
}

static void matrix(void) {
    static const struct {
        unsigned char op;
        short count_0_null, null, unmapped, zero;
    } rows[] = {
        {0, 0, -EFAULT, -EFAULT, 0},
        {1, 0, -EFAULT, -EFAULT, 0},
        {2, -EINVAL, -EFAULT, -EFAULT, 0},
        {5, 0, -EFAULT, -EFAULT, 0},
        {6, -EINVAL, -EFAULT, -EFAULT, 0},
        {8, -EFAULT, -EFAULT, -EFAULT, -EINVAL},
        {10, -EFAULT, -EFAULT, -EFAULT, -EPERM},
        {11, 0, -EFAULT, -EFAULT, 0},
    };
    const void* unmapped = (const void*)UNMAPPED_VA;
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        unsigned op = rows[i].op;
        char name[48];
        format_to(name, sizeof(name), "op %u", op);
        memset(zeroes, 0, sizeof(zeroes));
        if (PAGED) {
            long count_0 = sizeof(long) == 4 && op == 2 ? 0 : rows[i].count_0_null;
            table_fact(name, grant_table_op(op, NULL, 0), count_0);
            table_fact(name, grant_table_op(op, NULL, 1), rows[i].null);
        }
        table_fact(name, grant_table_op(op, unmapped, 1), rows[i].unmapped);
        table_fact(name, grant_table_op(op, zeroes, 1), rows[i].zero);
        table_fact(name, grant_table_op(op, zeroes, ~0ul), -EINVAL);
        table_fact(name, grant_table_op(op | 1u << 12, zeroes, 1), -ENOSYS);
        table_fact(name, grant_table_op(op | 1u << 16, zeroes, 1), -ENOSYS);
        table_fact(name, grant_table_op(op | 1u << 31, zeroes, 1), -ENOSYS);
#ifdef __x86_64__
        memset(zeroes, 0, sizeof(zeroes));
        table_fact(name, grant_table_op(op | 1ul << 32, zeroes, 1), rows[i].zero);
#endif
    }
    static const unsigned char refused[] = {3, 4, 7, 9, 12, 13, 14};
    for (unsigned i = 0; i < ARRAY_SIZE(refused); i++) {
        char name[48];
        format_to(name, sizeof(name), "op %u", refused[i]);
        table_fact(name, grant_table_op(refused[i], zeroes, 1), -ENOSYS);
        table_fact(name, grant_table_op(refused[i], NULL, 0), -ENOSYS);
    }
    table_end();
}

static long set_version(uint32_t in, uint32_t* out) {
    struct gnttab_set_version arg = {in};
    long result = grant_table_op(GNTTABOP_set_version, &arg, 1);
    *out = arg.version;
    return result;
}

static long get_version(unsigned domid, uint32_t* version) {
    struct gnttab_get_version arg = {.dom = (domid_t)domid};
    long result = grant_table_op(GNTTABOP_get_version, &arg, 1);
    *version = arg.version;
    return result;
}

static void versions(void) {
    uint32_t version = 0;
    table_fact("get, self", get_version(DOMID_SELF, &version), 0);
    table_fact("get, self, version", version, 1);
    table_fact("get, dom 0", get_version(0, &version), -EPERM);
    table_fact("get, dom 1000", get_version(1000, &version), -ESRCH);
    table_fact("get, DOMID_IO", get_version(DOMID_IO, &version), -ESRCH);
    table_fact("set 0", set_version(0, &version), -EINVAL);
    table_fact("set 0, out", version, 1);
    table_fact("set 1", set_version(1, &version), 0);
    table_fact("set 1, out", version, 1);
    table_fact("set 2", set_version(2, &version), 0);
    table_fact("set 2, out", version, 2);
    table_fact("set 3", set_version(3, &version), -EINVAL);
    table_fact("set 3, out", version, 2);
    table_fact("set 0x80000001", set_version(0x80000001, &version), -EINVAL);
    table_fact("set 1 again", set_version(1, &version), 0);
    table_end();
}

static void version_1_then_2(void) {
    uint32_t version = 0;
    EXPECT_RESULT(set_version(1, &version), 0);
    EXPECT_RESULT(set_version(2, &version), 0);
    EXPECT_RESULT(get_version(DOMID_SELF, &version), 0);
    expect("version", version, 2);
    EXPECT_RESULT(set_version(1, &version), 0);
    expect("version", version, 1);
}

static void setup_table(void) {
    static xen_pfn_t frames[65];
    struct gnttab_setup_table arg = {.dom = DOMID_SELF, .nr_frames = 2};
    struct gnttab_query_size size;
    frames[0] = frames[1] = 5;
    set_xen_guest_handle(arg.frame_list, frames);
    table_fact("2 frames", grant_table_op(GNTTABOP_setup_table, &arg, 1), 0);
    table_fact("2 frames, status", arg.status, 0);
    table_fact("a frame that is not mapped", frames[0] == (xen_pfn_t)~0ul, true);
    table_fact("a frame that is not mapped", frames[1] == (xen_pfn_t)~0ul, true);
    query(DOMID_SELF, &size);
    table_fact("frames then", size.nr_frames, 2);
    arg.nr_frames = 65;
    arg.status = 0;
    table_fact("65 frames", grant_table_op(GNTTABOP_setup_table, &arg, 1), 0);
    table_fact("65 frames, status", arg.status, GNTST_general_error);
    arg.nr_frames = 0;
    table_fact("0 frames", grant_table_op(GNTTABOP_setup_table, &arg, 1), 0);
    table_fact("0 frames, status", arg.status, 0);
    arg.nr_frames = 1;
    table_fact("count 2", grant_table_op(GNTTABOP_setup_table, &arg, 2), -EINVAL);
    arg.dom = 0;
    table_fact("dom 0", grant_table_op(GNTTABOP_setup_table, &arg, 1), 0);
    table_fact("dom 0, status", arg.status, GNTST_permission_denied);
    arg.dom = 1000;
    table_fact("dom 1000", grant_table_op(GNTTABOP_setup_table, &arg, 1), 0);
    table_fact("dom 1000, status", arg.status, GNTST_bad_domain);
    table_end();
}

static void four_frames(void) {
    static xen_pfn_t frames[4];
    for (unsigned i = 0; i < 4; i++) {
        EXPECT_RESULT(add_to_physmap(XENMAPSPACE_grant_table, i, spare_gfn(i)), 0);
    }
    struct gnttab_setup_table arg = {.dom = DOMID_SELF, .nr_frames = 4};
    set_xen_guest_handle(arg.frame_list, frames);
    EXPECT_RESULT(grant_table_op(GNTTABOP_setup_table, &arg, 1), 0);
    for (unsigned i = 0; i < 4; i++) {
        expect("gfn of a frame", frames[i], spare_gfn(i));
        volatile struct grant_entry_v1* entries =
            (volatile struct grant_entry_v1*)(uintptr_t)(spare_gfn(i) * PAGE_SIZE);
        // Free entries read as such; the reserved ones of frame 0 may be the toolstack's.
        for (unsigned entry = 8; entry < 512; entry += 63) {
            expect("flags of a free entry", entries[entry].flags, 0);
        }
        entries[100].domid = 0;
        entries[100].frame = 0x10 + i;
        entries[100].flags = GTF_permit_access;
        expect("an entry's frame", entries[100].frame, 0x10 + i);
        entries[100].flags = 0;
    }
}

TESTS({"golden.g.query_size", query_size}, {"golden.g.matrix", matrix},
      {"golden.g.versions", versions}, {"c6.8.version_1_then_2", version_1_then_2},
      {"golden.g.setup_table", setup_table}, {"c6.8.four_frames", four_frames});
