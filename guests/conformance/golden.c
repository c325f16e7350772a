// What real Xen 4.17.7 answered (xen-417-golden.md, sections C, D, E, F, H, I), call by call, as
// tables. A guest without paging has no unmapped NULL page: those columns are left out there.

#include "test.h"

#define U ((const void*)UNMAPPED_VA)  // no translation
#define HOLE_GFN 0x7fff0              // no memory behind it
#define PAGED (GUEST_PAGING != PAGING_NONE)
#ifdef __x86_64__
#define IS_64 1
#else
#define IS_64 0
#endif

static unsigned own_domid(void) {
    return cpuid(xen_base + 4, 0).ecx;
}

static void fact(const char* group, long index, const char* how, long got, long want) {
    char name[80];
    format_to(name, sizeof(name), "%s %ld %s", group, index, how);
    table_fact(name, got, want);
}

// For what an HVM guest of the real Xen hears otherwise than one of ours, with a reason
// (oracle/exceptions): there it is shown only.
static void fact_of_pvh(const char* group, long index, const char* how, long got, long want) {
    char name[80];
    format_to(name, sizeof(name), "%s %ld %s", group, index, how);
    if (is_pvh()) {
        table_fact(name, got, want);
    } else {
        show_result(name, got);
    }
}

// ---- C: xen_version ---------------------------------------------------------------------------

static union {
    char text[1024];
    struct xen_compile_info compile;
    struct xen_feature_info features;
    xen_platform_parameters_t platform;
    xen_domain_handle_t handle;
    xen_build_id_t build_id;
} version_answer;

static void version_results(void) {
    table_fact("version, NULL", xen_version(0, NULL), 0x40011);
    table_fact("version, unmapped", xen_version(0, U), 0x40011);
    static const short want[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    for (unsigned op = 1; op < 10; op++) {
        memset(&version_answer, 0, sizeof(version_answer));
        if (op == 7) {
            continue;
        }
        fact("xen_version", op, "", xen_version(op, &version_answer), want[op]);
    }
    table_fact("pagesize", xen_version(7, NULL), 0x1000);
    version_answer.build_id.len = 64;
    table_fact("build_id, 64 bytes", xen_version(10, &version_answer), -EPERM);
    table_fact("build_id, length written", version_answer.build_id.len, 64);
    version_answer.build_id.len = 0;
    table_fact("build_id, 0 bytes", xen_version(10, &version_answer), -EPERM);
    table_fact("build_id, NULL", xen_version(10, NULL), -EPERM);
    for (long op = 11; op <= 16; op++) {
        fact("xen_version", op, "", xen_version((unsigned long)op, &version_answer), -ENOSYS);
    }
    table_fact("xen_version -1", xen_version(~0ul, &version_answer), -ENOSYS);
    table_end();
}

static void version_bad_pointers(void) {
    for (unsigned op = 1; op <= 11; op++) {
        long want = op == 10 ? -EPERM : op == 11 ? -ENOSYS : -EFAULT;
        if (PAGED) {
            fact("xen_version", op, "NULL", xen_version(op, NULL), op == 7 ? 0x1000 : want);
        }
        fact("xen_version", op, "unmapped", xen_version(op, U), op == 7 ? -EINVAL : want);
    }
#ifdef __x86_64__
    table_fact("non-canonical", xen_version(1, (void*)0x800000000000), -EFAULT);
    table_fact("Xen's own range", xen_version(1, (void*)0xffff830000000000), -EFAULT);
    table_fact("upper half of the sub-op ignored", xen_version(0x100000000, NULL), 0x40011);
#endif
    table_end();
}

static void version_extraversion(void) {
    memset(&version_answer, 0, sizeof(version_answer));
    EXPECT_RESULT(xen_version(XENVER_extraversion, &version_answer), 0);
    if (strcmp(version_answer.text, ".7") != 0) {
        FAIL("it is \"%s\", should be \".7\"", version_answer.text);
    }
}

static void version_capabilities(void) {
    static const char want[] = "xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64 ";
    memset(&version_answer, 0, sizeof(version_answer));
    EXPECT_RESULT(xen_version(XENVER_capabilities, &version_answer), 0);
    if (strcmp(version_answer.text, want) != 0) {
        FAIL("they are \"%s\"", version_answer.text);
    }
}

static void version_commandline(void) {
    memset(&version_answer, 0, sizeof(version_answer));
    EXPECT_RESULT(xen_version(XENVER_commandline, &version_answer), 0);
    if (strcmp(version_answer.text, "<denied>") != 0) {
        FAIL("it is \"%s\", should be \"<denied>\"", version_answer.text);
    }
}

static void version_platform(void) {
    memset(&version_answer, 0xaa, 16);
    EXPECT_RESULT(xen_version(XENVER_platform_parameters, &version_answer), 0);
#ifdef __x86_64__
    EXPECT(version_answer.platform.virt_start, 0xffff800000000000);
#else
    EXPECT(version_answer.platform.virt_start, 0);
    EXPECT((uint8_t)version_answer.text[4], 0xaa);
#endif
}

static void version_features(void) {
    for (uint32_t index = 0; index < 4; index++) {
        version_answer.features.submap_idx = index;
        version_answer.features.submap = 0xdeadbeef;
        fact("submap", index, "", xen_version(XENVER_get_features, &version_answer),
             index == 0 ? 0 : -EINVAL);
        uint32_t submap = version_answer.features.submap;
        if (index == 0) {
            fact_of_pvh("submap", index, "hvm_pirqs", submap >> XENFEAT_hvm_pirqs & 1, 0);
            submap &= ~(1u << XENFEAT_hvm_pirqs);
        }
        fact("submap", index, "value", submap, index == 0 ? 0x12305 : (long)0xdeadbeef);
    }
    table_end();
}

static void version_handle(void) {
    memset(&version_answer, 0, sizeof(version_answer));
    EXPECT_RESULT(xen_version(XENVER_guest_handle, &version_answer), 0);
    uint8_t any = 0;
    for (unsigned i = 0; i < 16; i++) {
        any |= version_answer.handle[i];
    }
    CHECK(any != 0);
}

// ---- D: parameters ----------------------------------------------------------------------------

#define P (-EPERM)
#define I (-EINVAL)
static const struct {
    short get, set;
} params[42] = {
    {0, 0}, {0, P}, {0, 0}, {P, P}, {I, I}, {P, P}, {P, P}, {P, P}, {P, P},       {P, P}, {P, P},
    {P, P}, {P, P}, {I, I}, {P, P}, {0, 0}, {P, P}, {0, P}, {0, 0}, {0, -ENODEV}, {I, I}, {I, I},
    {I, I}, {I, I}, {I, I}, {I, I}, {I, I}, {P, P}, {P, P}, {P, P}, {I, I},       {P, P}, {P, P},
    {P, P}, {0, 0}, {0, P}, {0, 0}, {0, 0}, {P, P}, {I, I}, {I, I}, {I, I},
};
#undef P
#undef I

static void params_get(void) {
    for (unsigned index = 0; index < ARRAY_SIZE(params); index++) {
        uint64_t value = 0xf001dead;
        long got = get_param(index, &value);
        fact("get", index, "", got, params[index].get);
        if (got != 0) {
            fact("get", index, "value after failure", (long)value, (long)0xf001dead);
        }
        switch (index) {
            case HVM_PARAM_CALLBACK_IRQ:
            case HVM_PARAM_VM86_TSS:
            case HVM_PARAM_VM_GENERATION_ID_ADDR:
            case HVM_PARAM_ALTP2M:
            case HVM_PARAM_X87_FIP_WIDTH:
            case HVM_PARAM_VM86_TSS_SIZED:
                if (is_pvh()) {
                    fact("get", index, "value", (long)value, 0);
                }
                break;
            case HVM_PARAM_STORE_PFN: fact("get", index, "value", (long)value, 0xfeffc); break;
            case HVM_PARAM_CONSOLE_PFN: fact("get", index, "value", (long)value, 0xfefff); break;
            case HVM_PARAM_STORE_EVTCHN: fact("get", index, "value", (long)value, 1); break;
            case HVM_PARAM_CONSOLE_EVTCHN: fact("get", index, "value", (long)value, 2); break;
        }
    }
    table_end();
}

static void params_set(void) {
    console_port();  // before it is changed
    for (unsigned index = 0; index < ARRAY_SIZE(params); index++) {
        if (index == HVM_PARAM_VM86_TSS_SIZED) {
            continue;  // kills the domain: the shutdown guest's case
        }
        long result = set_param(index, 0);
        if (index == HVM_PARAM_ACPI_IOPORTS_LOCATION) {
            fact_of_pvh("set", index, "to 0", result, params[index].set);
        } else {
            fact("set", index, "to 0", result, params[index].set);
        }
    }
    set_param(HVM_PARAM_STORE_EVTCHN, 1);
    set_param(HVM_PARAM_CONSOLE_EVTCHN, 2);
    table_end();
}

static void params_domains(void) {
    struct xen_hvm_param param = {.index = HVM_PARAM_CONSOLE_PFN};
    static const struct {
        const char* name;
        unsigned domid;
        short want, want_bad_index;
    } domains[] = {
        {"domain 0", 0, -EINVAL, -EINVAL},
        {"DOMID_IO", DOMID_IO, -ESRCH, -EINVAL},
        {"domain 1000", 1000, -ESRCH, -EINVAL},
        {"DOMID_INVALID", DOMID_INVALID, -ESRCH, -EINVAL},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(domains); i++) {
        param.domid = (domid_t)domains[i].domid;
        param.index = HVM_PARAM_CONSOLE_PFN;
        table_fact(domains[i].name, hvm_op(HVMOP_get_param, &param), domains[i].want);
        param.index = 39;
        table_fact(domains[i].name, hvm_op(HVMOP_get_param, &param), domains[i].want_bad_index);
    }
    param.domid = (domid_t)own_domid();
    param.index = HVM_PARAM_CONSOLE_PFN;
    table_fact("own domid", hvm_op(HVMOP_get_param, &param), 0);
    table_fact("own domid, value", (long)param.value, 0xfefff);
    table_end();
}

static void params_values(void) {
    uint64_t value = 0;
    static const uint64_t irqs[] = {(uint64_t)0x55 << 56 | 7, ~0ull, 0x20, 0};
    for (unsigned i = 0; i < ARRAY_SIZE(irqs); i++) {
        fact("callback", i, "set", set_param(HVM_PARAM_CALLBACK_IRQ, irqs[i]), 0);
        get_param(HVM_PARAM_CALLBACK_IRQ, &value);
        fact("callback", i, "reads back", value == irqs[i], 1);
    }
    for (unsigned i = 0; i < 4; i++) {
        fact_of_pvh("ACPI ports", i, "", set_param(HVM_PARAM_ACPI_IOPORTS_LOCATION, i), -ENODEV);
    }
    static const struct {
        unsigned char width;
        short want;
    } widths[] = {{0, 0}, {4, 0}, {8, 0}, {3, -EINVAL}, {5, -EINVAL}};
    for (unsigned i = 0; i < ARRAY_SIZE(widths); i++) {
        fact("FIP width", widths[i].width, "", set_param(HVM_PARAM_X87_FIP_WIDTH, widths[i].width),
             widths[i].want);
    }
    table_fact("ALTP2M set 1", set_param(HVM_PARAM_ALTP2M, 1), -EPERM);
    table_fact("VM86_TSS set", set_param(HVM_PARAM_VM86_TSS, 0x1000), 0);
    get_param(HVM_PARAM_VM86_TSS_SIZED, &value);
    table_fact("VM86_TSS_SIZED then", value == 0x8000001000, 1);
    table_end();
}

// ---- E: memory_op matrix ----------------------------------------------------------------------

enum column {
    SELF,
    NULL_ARG,
    UNMAPPED,
    START_1,
    START_10000,
    BIT_31,
    BIT_32,
    DOM_IO,
    DOM_XEN,
    DOM_0,
    DOM_1000,
    OWN_ID,
    DOM_INVALID,
    COLUMNS
};

static const char* const column_names[COLUMNS] = {
    "self", "NULL", "unmapped", "start 1",  "start 0x10000", "bit 31", "bit 32",
    "IO",   "XEN",  "dom 0",    "dom 1000", "own id",        "INVALID"};

#define SKIP_FACT 0x7fffffff
#define ALL(x) \
    { x, x, x, x, x, x, x, x, x, x, x, x, x }

static const struct {
    unsigned char op;
    int want[COLUMNS];
} memory_matrix[] = {
    {0, {1, 0, 0, 1, 0x10000, 0x2000000, 0x4000000, 0, 0, 0, 0, 1, 0}},
    {1, {0, 0, 0, 1, 0x10000, 0x2000000, 0x4000000, 0, 0, 0, 0, 0, 0}},
    {2,
     {SKIP_FACT, SKIP_FACT, SKIP_FACT, -EINVAL, -EINVAL, -EINVAL, -EINVAL, SKIP_FACT, SKIP_FACT,
      SKIP_FACT, SKIP_FACT, SKIP_FACT, SKIP_FACT}},
    {3,
     {SKIP_FACT, -EFAULT, -EFAULT, -EINVAL, -EINVAL, -EINVAL, -EINVAL, -ESRCH, -ESRCH, -EPERM,
      -ESRCH, SKIP_FACT, -ESRCH}},
    {4,
     {SKIP_FACT, -EFAULT, -EFAULT, -EINVAL, -EINVAL, -EINVAL, -EINVAL, -ESRCH, -ESRCH, -EPERM,
      -ESRCH, SKIP_FACT, -ESRCH}},
    {6, {1, 0, 0, 1, 0x10000, 0x2000000, 0x4000000, 0, 0, 0, 0, 1, 0}},
    {7, {0, -EFAULT, -EFAULT, 0, -EDOM, -EDOM, -EDOM, -ESRCH, -ESRCH, -EACCES, -ESRCH, 0, -ESRCH}},
    {8, ALL(-ENOSYS)},
    {9, {0, -EFAULT, -EFAULT, -ENOSYS, -ENOSYS, -ENOSYS, -ENOSYS, 0, 0, 0, 0, 0, 0}},
    {10, ALL(-ENOSYS)},
    {12, ALL(-ENOSYS)},
    {14,
     {0xfefff, -EFAULT, -EFAULT, -EINVAL, -EINVAL, -EINVAL, -EINVAL, -ESRCH, -ESRCH, -EPERM, -ESRCH,
      0xfefff, -ESRCH}},
    {15,
     {0, -EFAULT, -EFAULT, -EINVAL, -EINVAL, -EINVAL, -EINVAL, -ESRCH, -ESRCH, -EACCES, -ESRCH,
      -ENOENT, -ESRCH}},
    {20, ALL(-ENOSYS)},
    {22, ALL(-ENOSYS)},
    {29, ALL(-ENOSYS)},
    {30, ALL(-ENOSYS)},
    {31, ALL(-ENOSYS)},
    {32, ALL(-ENOSYS)},
    {40, ALL(-ENOSYS)},
    {57, ALL(-ENOSYS)},
    {63, ALL(-ENOSYS)},
};

static union {
    struct xen_memory_reservation reservation;
    struct xen_add_to_physmap add;
    struct xen_remove_from_physmap remove;
    struct xen_memory_map map;
    domid_t domid;
    uint8_t bytes[128];
} memory_arg;
static uint8_t memory_map_buffer[32 * 20];
static unsigned long memory_gfn;

// Valid for the sub-op but for what the column changes.
static const void* memory_argument(unsigned op, enum column column) {
    static const unsigned domids[COLUMNS] = {[DOM_IO] = DOMID_IO,
                                             [DOM_XEN] = DOMID_XEN,
                                             [DOM_0] = 0,
                                             [DOM_1000] = 1000,
                                             [DOM_INVALID] = DOMID_INVALID};
    domid_t domid = column < DOM_IO    ? DOMID_SELF
                    : column == OWN_ID ? (domid_t)own_domid()
                                       : (domid_t)domids[column];
    if (column == NULL_ARG) {
        return NULL;
    }
    if (column == UNMAPPED) {
        return U;
    }
    memset(&memory_arg, 0, sizeof(memory_arg));
    switch (op) {
        case 0:
        case 1:
        case 6:
            memory_gfn = HOLE_GFN;
            memory_arg.reservation.nr_extents = 1;
            memory_arg.reservation.domid = domid;
            set_xen_guest_handle(memory_arg.reservation.extent_start, (xen_pfn_t*)&memory_gfn);
            break;
        case 7:
            memory_arg.add.domid = domid;
            memory_arg.add.space = XENMAPSPACE_shared_info;
            memory_arg.add.gpfn = (uintptr_t)shared_info_page / PAGE_SIZE;
            break;
        case 9:
            memory_arg.map.nr_entries = 32;
            set_xen_guest_handle(memory_arg.map.buffer, (void*)memory_map_buffer);
            break;
        case 15:
            memory_arg.remove.domid = domid;
            memory_arg.remove.gpfn = spare_gfn(4);
            break;
        default: memory_arg.domid = domid; break;
    }
    return &memory_arg;
}

static void memory_matrix_test(void) {
    shared_info();
    for (unsigned row = 0; row < ARRAY_SIZE(memory_matrix); row++) {
        unsigned op = memory_matrix[row].op;
        for (enum column column = SELF; column < COLUMNS; column++) {
            long want = memory_matrix[row].want[column];
            unsigned long cmd = op;
            char name[64];
            if (want == SKIP_FACT || (column == NULL_ARG && !PAGED) ||
                (column == BIT_32 && !IS_64)) {
                continue;
            }
            cmd |= column == START_1       ? 1ul << 6
                   : column == START_10000 ? 0x10000ul << 6
                   : column == BIT_31      ? 0x80000000ul
                   : column == BIT_32      ? (unsigned long)(1ull << 32)
                                           : 0;
            if (op == 1 || op == 6) {
                // Each starts from the hole that the facts were taken on.
                unsigned long hole = HOLE_GFN;
                reservation(XENMEM_decrease_reservation, &hole, 1, 0);
            }
            long got = memory_op(cmd, memory_argument(op, column));
            format_to(name, sizeof(name), "memory_op %u, %s", op, column_names[column]);
            table_fact(name, got, want);
        }
    }
    unsigned long hole = HOLE_GFN;
    reservation(XENMEM_decrease_reservation, &hole, 1, 0);
    table_end();
}

static void memory_figures(void) {
    // Facts of a PVH domain: special pages and ACPI tables are part of it.
    if (!is_pvh()) {
        SKIP("the figures are those of a PVH domain");
    }
    long ram = (long)(ram_end() / PAGE_SIZE);
    table_fact("current_reservation", domid_op(XENMEM_current_reservation, DOMID_SELF),
               ram + 8 + 9);
    table_fact("maximum_reservation", domid_op(XENMEM_maximum_reservation, DOMID_SELF),
               ram + 0x100);
    table_fact("maximum_gpfn", domid_op(XENMEM_maximum_gpfn, DOMID_SELF), 0xfefff);
    table_end();
}

static void memory_map_sizes(void) {
    memset(&memory_arg, 0, sizeof(memory_arg));
    memory_arg.map.nr_entries = 128;
    if (PAGED) {
        set_xen_guest_handle(memory_arg.map.buffer, NULL);
    } else {
        set_xen_guest_handle(memory_arg.map.buffer, (void*)UNMAPPED_VA);
    }
    table_fact("no buffer", memory_op(XENMEM_memory_map, &memory_arg), -EFAULT);
    table_fact("no buffer, entries", memory_arg.map.nr_entries, 128);
    memory_arg.map.nr_entries = 0;
    table_fact("0 entries", memory_op(XENMEM_memory_map, &memory_arg), 0);
    table_fact("0 entries, entries", memory_arg.map.nr_entries, 0);
    set_xen_guest_handle(memory_arg.map.buffer, (void*)memory_map_buffer);
    memory_arg.map.nr_entries = 2;
    table_fact("2 entries", memory_op(XENMEM_memory_map, &memory_arg), 0);
    fact_of_pvh("entries of", 2, "", memory_arg.map.nr_entries, 2);
    table_end();
}

// ---- F: hvm_op --------------------------------------------------------------------------------

static const struct {
    unsigned char op;
    short null, unmapped, zero, self;
} hvm_matrix[] = {
    {1, -EFAULT, -EFAULT, -EINVAL, 0},           {2, -ENOSYS, -ENOSYS, -ENOSYS, -ENOSYS},
    {3, -ENOSYS, -ENOSYS, -ENOSYS, -ENOSYS},     {4, -ENOSYS, -ENOSYS, -ENOSYS, -ENOSYS},
    {5, 0, -EINVAL, -EINVAL, -EINVAL},           {6, -ENOSYS, -ENOSYS, -ENOSYS, -ENOSYS},
    {7, -ENOSYS, -ENOSYS, -ENOSYS, -ENOSYS},     {8, -ENOSYS, -ENOSYS, -ENOSYS, -ENOSYS},
    {9, -EFAULT, -EFAULT, -EOPNOTSUPP, -EINVAL}, {10, -EFAULT, -EFAULT, 0, 0},
    {12, -ENOSYS, -ENOSYS, -ENOSYS, -ENOSYS},    {13, -ENOSYS, -ENOSYS, -ENOSYS, -ENOSYS},
    {14, -ENOSYS, -ENOSYS, -ENOSYS, -ENOSYS},    {16, -ENOSYS, -ENOSYS, -ENOSYS, -ENOSYS},
    {17, -ENOSYS, -ENOSYS, -ENOSYS, -ENOSYS},    {18, -ENOSYS, -ENOSYS, -ENOSYS, -ENOSYS},
    {19, -ENOSYS, -ENOSYS, -ENOSYS, -ENOSYS},    {20, -ENOSYS, -ENOSYS, -ENOSYS, -ENOSYS},
    {21, -ENOSYS, -ENOSYS, -ENOSYS, -ENOSYS},    {22, -ENOSYS, -ENOSYS, -ENOSYS, -ENOSYS},
    {23, -EFAULT, -EFAULT, -EINVAL, -EINVAL},    {26, -ENOSYS, -ENOSYS, -ENOSYS, -ENOSYS},
    {27, -ENOSYS, -ENOSYS, -ENOSYS, -ENOSYS},    {28, -ENOSYS, -ENOSYS, -ENOSYS, -ENOSYS},
};

static uint8_t zeroes[256];

static void hvm_op_matrix(void) {
    static struct {
        domid_t domid;
        uint8_t rest[254];
    } self;
    for (unsigned i = 0; i < ARRAY_SIZE(hvm_matrix); i++) {
        unsigned op = hvm_matrix[i].op;
        memset(&self, 0, 64);
        memset(zeroes, 0, 64);
        // The upcall-vector call has no domain: its first word is a vCPU.
        self.domid = op == HVMOP_set_evtchn_upcall_vector ? 0 : DOMID_SELF;
        if (PAGED || op == 5) {
            fact("hvm_op", op, "NULL", hvm_op(op, NULL), hvm_matrix[i].null);
        }
        fact("hvm_op", op, "unmapped", hvm_op(op, U), hvm_matrix[i].unmapped);
        fact("hvm_op", op, "zeroes", hvm_op(op, zeroes), hvm_matrix[i].zero);
        fact("hvm_op", op, "self", hvm_op(op, &self), hvm_matrix[i].self);
    }
    memset(zeroes, 0, sizeof(zeroes));
    table_end();
}

static void hvm_op_unknown(void) {
    static const unsigned long ops[] = {
        0x100,         0x101,         0x102,  0x103,      0x104,      0x105,      0x106,
        0x107,         0x108,         0x109,  0x10f,      0x117,      0x118,      0x119,
        0x207,         0x208,         0x2408, 0x80000000, 0x80000001, 0xffffffff,
#ifdef __x86_64__
        1ul << 32 | 1, 1ul << 32 | 5,
#endif
    };
    for (unsigned i = 0; i < ARRAY_SIZE(ops); i++) {
        fact("hvm_op", (long)ops[i], "NULL", hvm_op(ops[i], NULL), -ENOSYS);
        fact("hvm_op", (long)ops[i], "zeroes", hvm_op(ops[i], zeroes), -ENOSYS);
    }
    table_end();
}

static void hvm_op_upcall_vector(void) {
    struct xen_hvm_evtchn_upcall_vector arg = {.vcpu = 0};
    for (unsigned vector = 0; vector < 256; vector++) {
        arg.vector = (uint8_t)vector;
        arg.vcpu = 0;
        if (vector < 18 || vector > 253) {
            fact("upcall vector", vector, "", hvm_op(HVMOP_set_evtchn_upcall_vector, &arg),
                 vector < 16 ? -EINVAL : 0);
        }
    }
    arg.vcpu = 9999;
    arg.vector = 15;
    table_fact("vector 15, no such vCPU", hvm_op(HVMOP_set_evtchn_upcall_vector, &arg), -EINVAL);
    arg.vector = 0xf3;
    table_fact("vector 0xf3, no such vCPU", hvm_op(HVMOP_set_evtchn_upcall_vector, &arg), -ENOENT);
    table_end();
}

static void hvm_op_get_time(void) {
    uint64_t a = 0;
    uint64_t b = 0;
    EXPECT_RESULT(hvm_op(HVMOP_get_time, &a), 0);
    EXPECT_RESULT(hvm_op(HVMOP_get_time, &b), 0);
    CHECK(a != 0);
    CHECK(b > a);
    CHECK(b - a < 1000000000);
}

// ---- H: event channels ------------------------------------------------------------------------

static const struct {
    unsigned char op;
    short zero;
} evtchn_matrix[] = {
    {0, -EINVAL}, {1, 0x7fff}, {2, 0x7fff},  {3, -EINVAL}, {4, -EINVAL}, {5, -EPERM},
    {6, -EPERM},  {7, 0x7fff}, {8, -EINVAL}, {9, 0},       {10, 0x7fff},
};

static void evtchn_matrix_test(void) {
    for (unsigned i = 0; i < ARRAY_SIZE(evtchn_matrix); i++) {
        unsigned op = evtchn_matrix[i].op;
        if (PAGED) {
            fact("evtchn_op", op, "NULL", evtchn_op(op, NULL), -EFAULT);
        }
        fact("evtchn_op", op, "unmapped", evtchn_op(op, U), -EFAULT);
        if (evtchn_matrix[i].zero != 0x7fff) {
            memset(zeroes, 0, 64);
            fact("evtchn_op", op, "zeroes", evtchn_op(op, zeroes), evtchn_matrix[i].zero);
        }
    }
    fact("evtchn_op", 15, "", evtchn_op(15, zeroes), -ENOSYS);
    fact("evtchn_op", 16, "", evtchn_op(16, zeroes), -ENOSYS);
    fact("evtchn_op", -1, "", evtchn_op(~0ul, zeroes), -ENOSYS);
    table_end();
}

static void evtchn_status(void) {
    struct evtchn_status status;
    static const struct {
        const char* name;
        unsigned domid;
        uint32_t port;
        short want, state;
    } rows[] = {
        {"port 0", DOMID_SELF, 0, 0, 0},
        {"port 1", DOMID_SELF, 1, 0, EVTCHNSTAT_interdomain},
        {"port 2", DOMID_SELF, 2, 0, EVTCHNSTAT_interdomain},
        {"port 100", DOMID_SELF, 100, -EINVAL, 0},
        {"port 4095", DOMID_SELF, 4095, -EINVAL, 0},
        {"port 4096", DOMID_SELF, 4096, -EINVAL, 0},
        {"port 131072", DOMID_SELF, 131072, -EINVAL, 0},
        {"port ~0", DOMID_SELF, ~0u, -EINVAL, 0},
        {"dom 0 port 1", 0, 1, -EPERM, 0},
        {"dom 1000 port 1", 1000, 1, -ESRCH, 0},
        {"DOMID_IO port 1", DOMID_IO, 1, -ESRCH, 0},
        {"DOMID_INVALID port 1", DOMID_INVALID, 1, -ESRCH, 0},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        memset(&status, 0, sizeof(status));
        status.dom = (domid_t)rows[i].domid;
        status.port = rows[i].port;
        table_fact(rows[i].name, evtchn_op(EVTCHNOP_status, &status), rows[i].want);
        table_fact(rows[i].name, status.status, rows[i].state);
    }
    memset(&status, 0, sizeof(status));
    status.dom = (domid_t)own_domid();
    status.port = 1;
    table_fact("own domid port 1", evtchn_op(EVTCHNOP_status, &status), 0);
    table_fact("store: remote domain", status.u.interdomain.dom, 0);
    table_fact("store: vcpu", status.vcpu, 0);
    table_end();
}

static void evtchn_bind_virq(void) {
    static const struct {
        const char* name;
        uint32_t virq, vcpu;
        short want;
    } rows[] = {
        {"24", 24, 0, -EINVAL},
        {"~0", ~0u, 0, -EINVAL},
        {"TIMER v9999", 0, 9999, -ENOENT},
        {"TIMER", 0, 0, 0},
        {"TIMER again", 0, 0, -EEXIST},
        {"DEBUG", 1, 0, 0},
        {"CONSOLE, global", 2, 0, 0},
        {"DOM_EXC", 3, 0, 0},
        {"TBUF", 4, 0, 0},
        {"5, unused", 5, 0, 0},
        {"CON_RING", 8, 0, 0},
        {"ARGO", 11, 0, 0},
        {"ENOMEM", 12, 0, 0},
        {"XENPMU", 13, 0, 0},
        {"14", 14, 0, 0},
        {"ARCH0", 16, 0, 0},
        {"ARCH7", 23, 0, 0},
    };
    uint32_t ports[ARRAY_SIZE(rows)];
    uint32_t last = 0;
    bool ascending = true;
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        ports[i] = 0;
        table_fact(rows[i].name, bind_virq(rows[i].virq, rows[i].vcpu, &ports[i]), rows[i].want);
        if (rows[i].want == 0) {
            ascending = ascending && ports[i] > last;
            last = ports[i];
        } else {
            table_fact("port after failure", ports[i], 0);
        }
    }
    table_fact("ports are given out in order", ascending, true);
    uint32_t port;
    table_fact("DOM_EXC on vCPU 1", bind_virq(3, 1, &port), -EINVAL);
    struct evtchn_bind_vcpu move = {.port = ports[3], .vcpu = 0};
    table_fact("bind_vcpu of TIMER", evtchn_op(EVTCHNOP_bind_vcpu, &move), -EINVAL);
    table_fact("send to TIMER", port_send(ports[3]), -EINVAL);
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        if (rows[i].want == 0) {
            table_fact("close", port_close(ports[i]), 0);
        }
    }
    table_end();
}

static void evtchn_ports(void) {
    uint32_t ipi = 0;
    uint32_t none = 0;
    table_fact("bind_ipi", bind_ipi(0, &ipi), 0);
    table_fact("bind_ipi v9999", bind_ipi(9999, &none), -ENOENT);
    struct evtchn_bind_vcpu move = {.port = ipi, .vcpu = 0};
    table_fact("bind_vcpu of IPI", evtchn_op(EVTCHNOP_bind_vcpu, &move), -EINVAL);
    table_fact("send IPI", port_send(ipi), 0);
    table_fact("it is pending", port_pending(ipi), true);

    move.port = console_port();
    move.vcpu = 9999;
    table_fact("bind_vcpu console, vCPU 9999", evtchn_op(EVTCHNOP_bind_vcpu, &move), -ENOENT);
    move.vcpu = 0;
    table_fact("bind_vcpu console, vCPU 0", evtchn_op(EVTCHNOP_bind_vcpu, &move), 0);

    struct evtchn_alloc_unbound unbound = {.dom = DOMID_SELF, .remote_dom = 0};
    table_fact("alloc_unbound for dom 0", evtchn_op(EVTCHNOP_alloc_unbound, &unbound), 0);
    uint32_t port = unbound.port;
    table_fact("send unbound", port_send(port), 0);
    move.port = port;
    table_fact("bind_vcpu of unbound", evtchn_op(EVTCHNOP_bind_vcpu, &move), 0);
    struct evtchn_status status;
    table_fact("status unbound", port_status(port, &status), 0);
    table_fact("status unbound", status.status, EVTCHNSTAT_unbound);
    struct evtchn_bind_interdomain bind = {.remote_dom = DOMID_SELF, .remote_port = port};
    table_fact("bind self to one for dom 0", evtchn_op(EVTCHNOP_bind_interdomain, &bind), -EINVAL);
    table_fact("close unbound", port_close(port), 0);
    table_fact("close again", port_close(port), -EINVAL);

    unbound = (struct evtchn_alloc_unbound){.dom = 0, .remote_dom = 0};
    table_fact("alloc_unbound in dom 0", evtchn_op(EVTCHNOP_alloc_unbound, &unbound), -EPERM);
    unbound.dom = 1000;
    table_fact("alloc_unbound in dom 1000", evtchn_op(EVTCHNOP_alloc_unbound, &unbound), -ESRCH);
    unbound = (struct evtchn_alloc_unbound){.dom = DOMID_SELF, .remote_dom = 1000};
    table_fact("alloc_unbound for dom 1000", evtchn_op(EVTCHNOP_alloc_unbound, &unbound), 0);
    port_close(unbound.port);
    unbound = (struct evtchn_alloc_unbound){.dom = (domid_t)own_domid(), .remote_dom = DOMID_SELF};
    table_fact("alloc_unbound for self", evtchn_op(EVTCHNOP_alloc_unbound, &unbound), 0);
    bind = (struct evtchn_bind_interdomain){.remote_dom = DOMID_SELF, .remote_port = unbound.port};
    table_fact("loopback", evtchn_op(EVTCHNOP_bind_interdomain, &bind), 0);
    table_fact("send on loopback", port_send(bind.local_port), 0);
    table_fact("its other end is pending", port_pending(unbound.port), true);
    table_fact("close one end", port_close(bind.local_port), 0);
    table_fact("status other end", port_status(unbound.port, &status), 0);
    table_fact("status other end", status.status, EVTCHNSTAT_unbound);
    table_fact("close other end", port_close(unbound.port), 0);
    table_fact("closing cleared its pending bit", port_pending(unbound.port), false);
    bind = (struct evtchn_bind_interdomain){.remote_dom = 0, .remote_port = 1};
    table_fact("bind dom 0 port 1", evtchn_op(EVTCHNOP_bind_interdomain, &bind), -EINVAL);
    bind.remote_port = 99999;
    table_fact("bind dom 0 port 99999", evtchn_op(EVTCHNOP_bind_interdomain, &bind), -EINVAL);
    bind.remote_dom = 1000;
    table_fact("bind dom 1000", evtchn_op(EVTCHNOP_bind_interdomain, &bind), -ESRCH);
    table_fact("close IPI", port_close(ipi), 0);
    table_fact("closing cleared its pending bit", port_pending(ipi), false);
    table_end();
}

static void evtchn_bad_ports(void) {
    static const uint32_t ports[] = {100, 4095, 4096, 131072, ~0u};
    struct evtchn_bind_vcpu move = {.vcpu = 0};
    for (unsigned i = 0; i < ARRAY_SIZE(ports); i++) {
        move.port = ports[i];
        fact("close", ports[i], "", port_close(ports[i]), -EINVAL);
        fact("send", ports[i], "", port_send(ports[i]), -EINVAL);
        fact("unmask", ports[i], "", port_unmask(ports[i]), -EINVAL);
        fact("bind_vcpu", ports[i], "", evtchn_op(EVTCHNOP_bind_vcpu, &move), -EINVAL);
    }
    move.port = 0;
    table_fact("close 0", port_close(0), -EINVAL);
    table_fact("send 0", port_send(0), -EINVAL);
    table_fact("bind_vcpu 0", evtchn_op(EVTCHNOP_bind_vcpu, &move), -EINVAL);
    table_fact("unmask 0", port_unmask(0), 0);
    domid_t domid = 0;
    table_fact("reset dom 0", evtchn_op(EVTCHNOP_reset, &domid), -EPERM);
    domid = 1000;
    table_fact("reset dom 1000", evtchn_op(EVTCHNOP_reset, &domid), -ESRCH);
    table_end();
}

static void evtchn_reset(void) {
    // Last of its kind: afterwards the console's port is bound anew.
    struct evtchn_status status;
    uint32_t port = console_port();
    domid_t self = DOMID_SELF;
    NEED(port_status(port, &status));
    uint32_t remote = status.u.interdomain.port;
    console_drain();
    table_fact("reset", evtchn_op(EVTCHNOP_reset, &self), 0);
    long old = port_status(port, &status);
    unsigned old_state = status.status;
    struct evtchn_bind_interdomain bind = {.remote_dom = 0, .remote_port = remote};
    long bound = evtchn_op(EVTCHNOP_bind_interdomain, &bind);
    if (bound == 0 && bind.local_port != port) {
        // The driver's own idea of its port is the parameter; ours was read once. As Xen gives
        // the lowest free port, binding once more gets 2 back.
        struct evtchn_alloc_unbound filler = {.dom = DOMID_SELF, .remote_dom = 0};
        port_close(bind.local_port);
        if (bind.local_port < port) {
            evtchn_op(EVTCHNOP_alloc_unbound, &filler);
        }
        bound = evtchn_op(EVTCHNOP_bind_interdomain, &bind);
    }
    uint64_t value = 0;
    get_param(HVM_PARAM_CONSOLE_EVTCHN, &value);
    table_fact("status of the old port", old, 0);
    table_fact("state of the old port", old_state, 0);
    table_fact("CONSOLE_EVTCHN is left alone", (long)value, port);
    table_fact("bind the console again", bound, 0);
    table_end();
}

// ---- I: sched_op, vcpu_op, the rest -----------------------------------------------------------

static void sched_results(void) {
    // KVM answers poll itself, as a yield, when it is made by the CPU's own instruction.
    const bool polls = direct_calls == NULL;
    struct sched_poll poll = {.nr_ports = 0};
    table_fact("yield, NULL", sched_op(0, NULL), 0);
    table_fact("yield, unmapped", sched_op(0, U), 0);
    for (unsigned op = 2; op <= 6; op++) {
        if (op == 5 || (op == SCHEDOP_poll && !polls)) {
            continue;
        }
        if (PAGED) {
            fact("sched_op", op, "NULL", sched_op(op, NULL), -EFAULT);
        }
        fact("sched_op", op, "unmapped", sched_op(op, U), -EFAULT);
    }
    memset(zeroes, 0, 64);
    fact("sched_op", 4, "zeroes", sched_op(4, zeroes), -EPERM);
    fact("sched_op", 7, "", sched_op(7, zeroes), -EPERM);
    fact("sched_op", 8, "", sched_op(8, zeroes), -ENOSYS);
    fact("sched_op", 9, "", sched_op(9, zeroes), -ENOSYS);
    table_fact("sched_op 0xfeeb0000", sched_op(0xfeeb0000, zeroes), -ENOSYS);
    table_fact("sched_op -1", sched_op(~0ul, zeroes), -ENOSYS);
    table_fact("sched_op 0x102", sched_op(0x102, zeroes), -ENOSYS);

    if (!polls) {
        table_end();
        return;
    }
    static evtchn_port_t ports[129];
    poll.timeout = 1;
    set_xen_guest_handle(poll.ports, ports);
    poll.nr_ports = 129;
    table_fact("poll 129 ports", sched_op(SCHEDOP_poll, &poll), -EINVAL);
    for (unsigned i = 0; i < 129; i++) {
        ports[i] = console_port();
    }
    poll.nr_ports = 128;
    table_fact("poll 128 ports, past", sched_op(SCHEDOP_poll, &poll), 0);
    poll.nr_ports = 0;
    table_fact("poll 0 ports, past", sched_op(SCHEDOP_poll, &poll), 0);
    poll.nr_ports = 1;
    static const evtchn_port_t bad[] = {99999, 0, 1000};
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        ports[0] = bad[i];
        fact("poll port", bad[i], "", sched_op(SCHEDOP_poll, &poll), -EINVAL);
    }
    set_xen_guest_handle(poll.ports, (void*)UNMAPPED_VA);
    table_fact("poll unmapped ports", sched_op(SCHEDOP_poll, &poll), -EFAULT);
    if (PAGED) {
        set_xen_guest_handle(poll.ports, NULL);
        table_fact("poll NULL ports", sched_op(SCHEDOP_poll, &poll), -EFAULT);
    }
    table_end();
}

static long watchdog(uint32_t id, uint32_t seconds) {
    struct sched_watchdog arg = {.id = id, .timeout = seconds};
    return sched_op(SCHEDOP_watchdog, &arg);
}

static void sched_watchdog_results(void) {
    table_fact("id 1 unused, 0 s", watchdog(1, 0), -EINVAL);
    table_fact("id 3", watchdog(3, 5), -EINVAL);
    table_fact("id 99", watchdog(99, 5), -EINVAL);
    table_fact("id 1 unused, 5 s", watchdog(1, 5), -EINVAL);
    table_fact("allocate", watchdog(0, 60), 1);
    table_fact("allocate", watchdog(0, 60), 2);
#ifdef __x86_64__
    table_fact("allocate a third", watchdog(0, 60), 0xffffffe4);
#else
    table_fact("allocate a third", watchdog(0, 60), -ENOSPC);
#endif
    table_fact("re-arm 1", watchdog(1, 60), 0);
    table_fact("stop 1", watchdog(1, 0), 0);
    table_fact("stop 1 again", watchdog(1, 0), -EINVAL);
    table_fact("stop 2", watchdog(2, 0), 0);
    table_fact("allocate for ever", watchdog(0, ~0u), 1);
    table_fact("stop it", watchdog(1, 0), 0);
    struct sched_remote_shutdown remote = {.domain_id = 0, .reason = 0};
    table_fact("remote_shutdown dom 0", sched_op(SCHEDOP_remote_shutdown, &remote), -EPERM);
    remote.domain_id = 1000;
    table_fact("remote_shutdown dom 1000", sched_op(SCHEDOP_remote_shutdown, &remote), -ESRCH);
    remote.domain_id = DOMID_SELF;
    table_fact("remote_shutdown SELF", sched_op(SCHEDOP_remote_shutdown, &remote), -ESRCH);
    remote.domain_id = (domid_t)own_domid();
    table_fact("remote_shutdown own id", sched_op(SCHEDOP_remote_shutdown, &remote), -EPERM);
    table_end();
}

static void timer_results(void) {
    table_fact("set_timer_op(0)", set_timer_op(0), 0);
    table_fact("set_timer_op(1)", set_timer_op(1), 0);
    table_fact("set_timer_op(-1)", set_timer_op(~0ull), 0);
    table_fact("set_timer_op(0)", set_timer_op(0), 0);
    table_end();
}

static void console_io_results(void) {
    static const char text[] = "xx";
    table_fact("write 2", console_io(CONSOLEIO_write, 2, text), -EPERM);
    table_fact("write 0", console_io(CONSOLEIO_write, 0, text), -EPERM);
    table_fact("read 4", console_io(CONSOLEIO_read, 4, zeroes), -EPERM);
    table_fact("op 2", console_io(2, 4, zeroes), -EPERM);
    table_fact("op -1", console_io(~0ul, 4, zeroes), -EPERM);
    table_end();
}

static void vm_assist_results(void) {
    for (unsigned type = 0; type < 8; type++) {
        bool known = type == 5;
        fact("enable", type, "", vm_assist(0, type), known ? 0 : -EINVAL);
        fact("disable", type, "", vm_assist(1, type), known ? 0 : -EINVAL);
        fact("cmd 2", type, "", vm_assist(2, type), known ? -ENOSYS : -EINVAL);
    }
    static const unsigned char types[] = {32, 64, 99};
    for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
        fact("enable", types[i], "", vm_assist(0, types[i]), -EINVAL);
    }
    table_end();
}

static void multicall_results(void) {
    static struct multicall_entry list[3];
    memset(list, 0, sizeof(list));
    memset(&version_answer, 0, 64);
    version_answer.features.submap_idx = 1;
    list[0].op = __HYPERVISOR_xen_version;
    list[1].op = __HYPERVISOR_xen_version;
    list[1].args[0] = XENVER_get_features;
    list[1].args[1] = ARG(&version_answer);
    list[2].op = 99;
    table_fact("multicall 3", multicall(list, 3), 0);
    table_fact("entry 0", (long)list[0].result, 0x40011);
    table_fact("entry 1", (long)list[1].result, -EINVAL);
    table_fact("entry 2", (long)list[2].result, -ENOSYS);
    table_fact("0 entries, NULL", multicall(NULL, 0), 0);
    if (PAGED) {
        table_fact("1 entry, NULL", multicall(NULL, 1), -EFAULT);
    }
    table_fact("1 entry, unmapped", multicall(U, 1), -EFAULT);
    memset(list, 0, sizeof(list));
    list[0].op = 63;
    list[1].op = __HYPERVISOR_xen_version;
    table_fact("unknown, then version", multicall(list, 2), 0);
    table_fact("unknown", (long)list[0].result, -ENOSYS);
    table_fact("version", (long)list[1].result, 0x40011);
    table_end();
}

#define S 0x7fff  // not tried: it works, and ends the test
static const struct {
    short v0_null, v0_unmapped, v0_zero, v1_null, v1_zero;
} vcpu_matrix[] = {
    {-EFAULT, -EFAULT, -EEXIST, -EFAULT, S},
    {0, S, 0, -EINVAL, -EINVAL},
    {S, S, S, 0, 0},
    {1, 1, 1, 0, 0},
    {-EFAULT, -EFAULT, 0, -EFAULT, 0},
    {-EFAULT, -EFAULT, 0, -EFAULT, 0},
    {-EFAULT, -EFAULT, -EINVAL, -EFAULT, -EINVAL},
    {0, 0, 0, 0, 0},
    {-EFAULT, -EFAULT, 0, -EINVAL, -EINVAL},
    {0, 0, 0, -EINVAL, -EINVAL},
    {-EFAULT, -EFAULT, S, -EFAULT, S},
    {S, S, -EINVAL, S, -EINVAL},
    {-EINVAL, -EINVAL, -EINVAL, -EINVAL, -EINVAL},
    {S, S, S, S, S},
    {-ENOSYS, -ENOSYS, -ENOSYS, -ENOSYS, -ENOSYS},
    {-ENOSYS, -ENOSYS, -ENOSYS, -ENOSYS, -ENOSYS},
    {-ENOSYS, -ENOSYS, -ENOSYS, -ENOSYS, -ENOSYS},
};
#undef S

static void vcpu_fact(unsigned op, unsigned long vcpu, const char* how, const void* arg,
                      long want) {
    char name[64];
    if (want == 0x7fff || (arg == NULL && want == -EFAULT && !PAGED)) {
        return;
    }
    format_to(name, sizeof(name), "vcpu_op %u, vCPU %lu, %s", op, vcpu, how);
    memset(zeroes, 0, 160);
    // Registering areas with a zero address is undone by the next row or harmless: the answer is
    // all that counts.
    table_fact(name, vcpu_op(op, vcpu, arg), want);
}

static void vcpu_matrix_test(void) {
    bool two = vcpu_op(VCPUOP_is_up, 1, NULL) != -ENOENT;
    for (unsigned op = 0; op < ARRAY_SIZE(vcpu_matrix); op++) {
        if (!PAGED && (op == 1 || op == 8)) {
            // In an unpaged guest NULL is readable; op 1 takes no argument anyway.
            vcpu_fact(op, 0, "zeroes", zeroes, vcpu_matrix[op].v0_zero);
        } else if (op == 5) {
            // A zero area would be at NULL, where an unpaged guest has its memory.
            vcpu_fact(op, 0, "NULL", NULL, vcpu_matrix[op].v0_null);
            vcpu_fact(op, 0, "unmapped", U, vcpu_matrix[op].v0_unmapped);
            if (PAGED) {
                vcpu_fact(op, 0, "zeroes", zeroes, vcpu_matrix[op].v0_zero);
            }
        } else {
            vcpu_fact(op, 0, "NULL", NULL, vcpu_matrix[op].v0_null);
            vcpu_fact(op, 0, "unmapped", U, vcpu_matrix[op].v0_unmapped);
            vcpu_fact(op, 0, "zeroes", zeroes, vcpu_matrix[op].v0_zero);
        }
        if (two) {
            bool early_fault = !IS_64 && op == 8;  // set_singleshot: -EFAULT first in 32-bit
            vcpu_fact(op, 1, "NULL", NULL, early_fault ? -EFAULT : vcpu_matrix[op].v1_null);
            vcpu_fact(op, 1, "zeroes", zeroes, vcpu_matrix[op].v1_zero);
        }
        vcpu_fact(op, 9999, "zeroes", zeroes, -ENOENT);
        vcpu_fact(op, (uint32_t)~0u, "zeroes", zeroes, -ENOENT);
    }
    table_fact("vcpu_op 17", vcpu_op(17, 0, zeroes), -ENOSYS);
    table_fact("vcpu_op -1", vcpu_op(~0ul, 0, zeroes), -ENOSYS);
    table_fact("vcpu_op 99, vCPU 9999", vcpu_op(99, 9999, zeroes), -ENOENT);
    table_end();
}

static void vcpu_time_area(void) {
    unsigned op = VCPUOP_register_vcpu_time_memory_area;
    vcpu_fact(op, 0, "NULL", NULL, -EFAULT);
    vcpu_fact(op, 0, "unmapped", U, -EFAULT);
    if (PAGED) {
        vcpu_fact(op, 0, "zeroes", zeroes, 0);
    }
    table_end();
}

static void vcpu_timer_results(void) {
    struct vcpu_set_periodic_timer periodic = {.period_ns = 0};
    static const struct {
        uint64_t period;
        short want;
    } periods[] = {{0, -EINVAL}, {999999, -EINVAL}, {1000000, 0}, {~0ull, -EINVAL}};
    for (unsigned i = 0; i < ARRAY_SIZE(periods); i++) {
        periodic.period_ns = periods[i].period;
        fact("periodic", i, "", vcpu_op(VCPUOP_set_periodic_timer, 0, &periodic), periods[i].want);
    }
    table_fact("stop periodic", vcpu_op(VCPUOP_stop_periodic_timer, 0, NULL), 0);
    struct vcpu_set_singleshot_timer single = {.timeout_abs_ns = 1, .flags = 0};
    table_fact("singleshot, past", vcpu_op(VCPUOP_set_singleshot_timer, 0, &single), 0);
    single.flags = VCPU_SSHOTTMR_future;
    table_fact("singleshot, past, FUTURE", vcpu_op(VCPUOP_set_singleshot_timer, 0, &single), 0);
    single.timeout_abs_ns = ~0ull;
    single.flags = 0;
    table_fact("singleshot, ~0", vcpu_op(VCPUOP_set_singleshot_timer, 0, &single), 0);
    single.flags = 0xfffffffe;
    table_fact("singleshot, unknown flags", vcpu_op(VCPUOP_set_singleshot_timer, 0, &single), 0);
    table_fact("stop singleshot", vcpu_op(VCPUOP_stop_singleshot_timer, 0, NULL), 0);
    table_end();
}

static void vcpu_register_info(void) {
    static uint8_t page[4096] __attribute__((aligned(4096)));
    struct vcpu_register_vcpu_info info = {.mfn = (uintptr_t)page / PAGE_SIZE};
    static const struct {
        unsigned offset;
        short want;
    } rows[] = {{4090, -ENXIO}, {4096, -ENXIO}, {3, -ENXIO}};
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        info.offset = rows[i].offset;
        fact("offset", rows[i].offset, "", vcpu_op(VCPUOP_register_vcpu_info, 0, &info),
             rows[i].want);
    }
    info.offset = 0;
    info.mfn = HOLE_GFN;
    table_fact("hole", vcpu_op(VCPUOP_register_vcpu_info, 0, &info), -EINVAL);
    info.mfn = (uintptr_t)page / PAGE_SIZE;
    info.offset = 0xc0;
    // The old one's time must be running for the comparison; so must the new one's.
    uint64_t before = xen_time();
    table_fact("register", vcpu_op(VCPUOP_register_vcpu_info, 0, &info), 0);
    volatile struct vcpu_info* moved = (volatile struct vcpu_info*)(page + 0xc0);
    table_fact("upcall_pending is set", moved->evtchn_upcall_pending, 1);
    table_fact("time is in the new place", moved->time.tsc_to_system_mul != 0, true);
    uint64_t after = time_from(&moved->time);
    table_fact("time went on", after >= before && after - before < 1000000000, true);
    table_fact("again", vcpu_op(VCPUOP_register_vcpu_info, 0, &info), -EINVAL);
    info.offset = 0;
    table_fact("elsewhere", vcpu_op(VCPUOP_register_vcpu_info, 0, &info), -EINVAL);
    table_fact("no such vCPU", vcpu_op(VCPUOP_register_vcpu_info, 9999, &info), -ENOENT);
    table_end();
}

static void vcpu_runstate(void) {
    struct vcpu_runstate_info info;
    memset(&info, 0, sizeof(info));
    EXPECT_RESULT(vcpu_op(VCPUOP_get_runstate_info, 0, &info), 0);
    EXPECT(info.state, RUNSTATE_running);
    CHECK(info.state_entry_time != 0);
    CHECK(info.time[RUNSTATE_running] != 0);
    uint64_t sum = info.time[0] + info.time[1] + info.time[2] + info.time[3];
    CHECK(sum >= info.time[0]);
    if (vcpu_op(VCPUOP_is_up, 1, NULL) == 0) {
        EXPECT_RESULT(vcpu_op(VCPUOP_get_runstate_info, 1, &info), 0);
        EXPECT(info.state, RUNSTATE_offline);
    }
}

static void physdev_results(void) {
    for (unsigned op = 0; op < 40; op++) {
        switch (op) {
            case PHYSDEVOP_irq_status_query:
            case PHYSDEVOP_eoi:
            case PHYSDEVOP_map_pirq:
            case PHYSDEVOP_unmap_pirq:
            case PHYSDEVOP_get_free_pirq:
                if (PAGED || is_pvh()) {  // an HVM guest's argument would be read
                    fact_of_pvh("physdev_op", op, "NULL", physdev_op(op, NULL), -ENOSYS);
                }
                fact_of_pvh("physdev_op", op, "zeroes", physdev_op(op, zeroes), -ENOSYS);
                break;
            default:
                fact("physdev_op", op, "NULL", physdev_op(op, NULL), -ENOSYS);
                fact("physdev_op", op, "zeroes", physdev_op(op, zeroes), -ENOSYS);
        }
    }
    table_end();
}

static void upper_bits(void) {
#ifdef __x86_64__
    const unsigned long high = 1ul << 32;
    struct evtchn_status status = {.dom = 0, .port = 1};
    table_fact("sched_op yield", sched_op(high, NULL), 0);
    table_fact("vcpu_op is_up", vcpu_op(high | VCPUOP_is_up, 0, NULL), 1);
    table_fact("vcpu_op is_up, vCPU", vcpu_op(VCPUOP_is_up, high, NULL), 1);
    table_fact("evtchn status", evtchn_op(high | EVTCHNOP_status, &status), -EPERM);
    table_end();
#else
    SKIP("registers have 32 bits here");
#endif
}

// What only toolstacks may call.
static void control_results(void) {
    static struct {
        uint32_t cmd, version;
        uint16_t domain, pad[3];
        uint64_t u[16];
    } arg;
    static const struct {
        unsigned char number;
        uint32_t version;
    } calls[] = {{__HYPERVISOR_sysctl, 0x15},
                 {__HYPERVISOR_domctl, 0x15},
                 {__HYPERVISOR_platform_op, 0x03000001}};
    for (unsigned i = 0; i < ARRAY_SIZE(calls); i++) {
        unsigned nr = calls[i].number;
        fact("hypercall", nr, "unmapped", hypercall(nr, ARG(U), 0, 0, 0, 0), -EFAULT);
        arg.cmd = 1;
        arg.version = calls[i].version;
        fact("hypercall", nr, "refused", hypercall(nr, ARG(&arg), 0, 0, 0, 0), -EPERM);
        arg.version++;
        fact("hypercall", nr, "other version", hypercall(nr, ARG(&arg), 0, 0, 0, 0), -EACCES);
    }
    static const struct {
        short cmd, self, own, other, invalid;
    } domctls[] = {{1, -EPERM, -EPERM, -EPERM, -EPERM},   {5, -EINVAL, -EPERM, -ESRCH, -EINVAL},
                   {6, -ESRCH, -EPERM, -ESRCH, -ESRCH},   {25, -ESRCH, -EPERM, -ESRCH, -ESRCH},
                   {70, -ESRCH, -EPERM, -ESRCH, -ESRCH},  {86, -ESRCH, -EPERM, -ESRCH, -ESRCH},
                   {999, -ESRCH, -EPERM, -ESRCH, -ESRCH}, {0, -ESRCH, -EPERM, -ESRCH, -ESRCH}};
    arg.version = 0x15;
    for (unsigned i = 0; i < ARRAY_SIZE(domctls); i++) {
        const struct {
            const char* name;
            unsigned domid;
            short want;
        } to[] = {{"SELF", DOMID_SELF, domctls[i].self},
                  {"own", own_domid(), domctls[i].own},
                  {"1000", 1000, domctls[i].other},
                  {"invalid", DOMID_INVALID, domctls[i].invalid}};
        arg.cmd = (uint32_t)domctls[i].cmd;
        for (unsigned d = 0; d < ARRAY_SIZE(to); d++) {
            arg.domain = (uint16_t)to[d].domid;
            fact("domctl", domctls[i].cmd, to[d].name,
                 hypercall(__HYPERVISOR_domctl, ARG(&arg), 0, 0, 0, 0), to[d].want);
        }
        fact("sysctl", domctls[i].cmd, "", hypercall(__HYPERVISOR_sysctl, ARG(&arg), 0, 0, 0, 0),
             -EPERM);
    }
    table_end();
}

static void privileged_results(void) {
    static unsigned long buffers[4];
    buffers[0] = ARG(zeroes);
    buffers[1] = 32;
#define DM(domid, nr, at) hypercall(__HYPERVISOR_dm_op, domid, nr, ARG(at), 0, 0)
    table_fact("dm_op SELF nr1", DM(DOMID_SELF, 1, buffers), -ESRCH);
    table_fact("dm_op own nr1", DM(own_domid(), 1, buffers), -EPERM);
    table_fact("dm_op dom0 nr1", DM(0, 1, buffers), -EINVAL);
    table_fact("dm_op dom1000 nr1", DM(1000, 1, buffers), -ESRCH);
    table_fact("dm_op SELF nr0", DM(DOMID_SELF, 0, buffers), -ENODATA);
    table_fact("dm_op SELF nr3", DM(DOMID_SELF, 3, buffers), -E2BIG);
    table_fact("dm_op SELF nr1 unmapped", DM(DOMID_SELF, 1, U), -EFAULT);
#undef DM
#define MMUEXT(nr, domid) hypercall(__HYPERVISOR_mmuext_op, ARG(zeroes), nr, 0, domid, 0)
    table_fact("mmuext nr0", MMUEXT(0, DOMID_SELF), IS_64 ? -EINVAL : 0);
    table_fact("mmuext nr1 pin", MMUEXT(1, DOMID_SELF), -EINVAL);
    zeroes[0] = MMUEXT_TLB_FLUSH_LOCAL;
    table_fact("mmuext nr1 tlb_flush_local", MMUEXT(1, DOMID_SELF), -EINVAL);
    zeroes[0] = 0;
    table_fact("mmuext dom0", MMUEXT(1, 0), -EPERM);
#undef MMUEXT
    table_fact("hypfs_op 0", hypercall(__HYPERVISOR_hypfs_op, 0, 0, 0, 0, 0), -EPERM);
    table_fact("hypfs_op 1", hypercall(__HYPERVISOR_hypfs_op, 1, 0, 0, 0, 0), -EPERM);
    table_fact("xenpmu 0", hypercall(__HYPERVISOR_xenpmu_op, 0, 0, 0, 0, 0), -EOPNOTSUPP);
    table_fact("xenpmu 4", hypercall(__HYPERVISOR_xenpmu_op, 4, 0, 0, 0, 0), -EOPNOTSUPP);
    table_fact("argo 1", hypercall(39, 1, 0, 0, 0, 0), -ENOSYS);
    table_fact("xsm 0", hypercall(__HYPERVISOR_xsm_op, 0, 0, 0, 0, 0), -ENOSYS);
    table_fact("xsm pointer", hypercall(__HYPERVISOR_xsm_op, ARG(zeroes), 0, 0, 0, 0), -ENOSYS);
    table_fact("tmem", hypercall(38, ARG(zeroes), 0, 0, 0, 0), -ENOSYS);
    table_end();
}

static void hypercall_numbers(void) {
    // -ENOSYS, or what Xen answers to a call whose arguments are all zero. Some numbers are other
    // tests' subject.
    static const struct {
        unsigned char number;
        short want;
    } known[] = {{12, 0},           {13, 0},        {15, 0},
                 {18, -EPERM},      {21, -EINVAL},  {26, IS_64 ? -EPERM : 0},
                 {29, 0},           {35, -EFAULT},  {36, -EFAULT},
                 {40, -EOPNOTSUPP}, {41, -ENODATA}, {42, -EPERM},
                 {7, -EFAULT},      {49, -EFAULT}};
    for (unsigned number = 0; number < 128; number++) {
        bool later = number == 20 || number == 17 || number == 24 || number == 32 || number == 34;
        long want = -ENOSYS;
        if (later || number == __HYPERVISOR_iret) {
            continue;
        }
        for (unsigned i = 0; i < ARRAY_SIZE(known); i++) {
            if (known[i].number == number) {
                want = known[i].want;
            }
        }
        bool reads = number == 12 || number == 7 || number == 35 || number == 36 || number == 49;
        if (!PAGED && reads) {
            continue;  // zero is a readable address there
        }
        fact("hypercall", number, "all zero", hypercall(number, 0, 0, 0, 0, 0), want);
    }
    static const unsigned long wild[] = {
        128,
        129,
        0x7fffffff,
        0x80000001,
        0xffffffff,
#ifdef __x86_64__
        1ul << 32 | 17,
        1ul << 63 | 17,
#endif
    };
    for (unsigned i = 0; i < ARRAY_SIZE(wild); i++) {
        fact("hypercall", (long)wild[i], "raw", raw_hypercall(wild[i], 0, 0, 0), -ENOSYS);
    }
    table_end();
}

TESTS({"golden.c.results", version_results}, {"golden.c.bad_pointers", version_bad_pointers},
      {"golden.c.extraversion", version_extraversion},
      {"golden.c.capabilities", version_capabilities},
      {"golden.c.commandline", version_commandline},
      {"golden.c.platform_parameters", version_platform}, {"golden.c.features", version_features},
      {"golden.c.handle", version_handle}, {"golden.d.get", params_get},
      {"golden.d.set", params_set}, {"golden.d.domains", params_domains},
      {"golden.d.values", params_values}, {"golden.e.figures", memory_figures},
      {"golden.e.memory_map", memory_map_sizes}, {"golden.e.matrix", memory_matrix_test},
      {"golden.f.matrix", hvm_op_matrix}, {"golden.f.unknown", hvm_op_unknown},
      {"golden.f.upcall_vector", hvm_op_upcall_vector}, {"golden.f.get_time", hvm_op_get_time},
      {"golden.h.matrix", evtchn_matrix_test}, {"golden.h.status", evtchn_status},
      {"golden.h.bind_virq", evtchn_bind_virq}, {"golden.h.ports", evtchn_ports},
      {"golden.h.bad_ports", evtchn_bad_ports}, {"golden.h.reset", evtchn_reset},
      {"golden.i.sched", sched_results}, {"golden.i.watchdog", sched_watchdog_results},
      {"golden.i.set_timer_op", timer_results}, {"golden.i.console_io", console_io_results},
      {"golden.i.vm_assist", vm_assist_results}, {"golden.i.multicall", multicall_results},
      {"golden.i.vcpu", vcpu_matrix_test}, {"golden.i.vcpu_time_area", vcpu_time_area},
      {"golden.i.vcpu_timers", vcpu_timer_results}, {"golden.i.runstate", vcpu_runstate},
      {"golden.i.register_vcpu_info", vcpu_register_info}, {"golden.i.physdev", physdev_results},
      {"golden.i.upper_bits", upper_bits}, {"golden.i.control", control_results},
      {"golden.i.privileged", privileged_results}, {"golden.i.numbers", hypercall_numbers});
