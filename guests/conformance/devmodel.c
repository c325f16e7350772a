// What a device model does to a guest, done by the guest to itself (--privileges dm): ranges of
// pages get a type, and are said to be modified. The operations are hvm_ops in the older releases
// and dm_ops in the newer ones; the cases run them with and without stops. `privileged=no`: the
// refusals that any guest hears.

#include "test.h"

#define HVMOP_modified_memory 7
#define HVMOP_set_mem_type 8
#define RAM_RW 0
#define RAM_RO 1
#define MMIO_DM 2
#define PAGES 700  // two looks at whether to stop, at least

static unsigned long first(void) {
    return spare_gfn(PAGES - 1);
}

// Which release answers: the hvm_ops' structures changed with 4.5, and with 4.9 they went.
static bool has_dm_op(void) {
    return hypercall(__HYPERVISOR_dm_op, DOMID_SELF, 3, 0, 0, 0) == -E2BIG;
}
static bool cursor_in_register(void) {
    return cpuid(xen_base + 1, 0).eax >= 0x40005;
}

static unsigned type_of(unsigned long gfn) {
    struct xen_hvm_get_mem_type arg = {.domid = DOMID_SELF, .mem_type = 0xeeee, .pfn = gfn};
    NEED(hvm_op(HVMOP_get_mem_type, &arg));
    return arg.mem_type;
}

static long dm_op(void* op, size_t size, void* more, size_t more_size) {
    struct xen_dm_op_buf buffers[2];
    set_xen_guest_handle(buffers[0].h, op);
    buffers[0].size = size;
    set_xen_guest_handle(buffers[1].h, more);
    buffers[1].size = more_size;
    return hypercall(__HYPERVISOR_dm_op, DOMID_SELF, more == NULL ? 1 : 2, ARG(buffers), 0, 0);
}

static long on_range(unsigned op, unsigned long from, unsigned count, unsigned type) {
    if (has_dm_op()) {
        static struct xen_dm_op arg;
        memset(&arg, 0, sizeof(arg));
        if (op == HVMOP_set_mem_type) {
            arg.op = XEN_DMOP_set_mem_type;
            arg.u.set_mem_type.nr = count;
            arg.u.set_mem_type.mem_type = (uint16_t)type;
            arg.u.set_mem_type.first_pfn = from;
            return dm_op(&arg, sizeof(arg), NULL, 0);
        }
        // In three extents, which are taken from the last to the first.
        static struct xen_dm_op_modified_memory_extent extents[3];
        unsigned third = count / 3;
        for (unsigned i = 0; i < 3; i++) {
            extents[i].nr = i == 2 ? count - 2 * third : third;
            extents[i].first_pfn = from + i * third;
        }
        arg.op = XEN_DMOP_modified_memory;
        arg.u.modified_memory.nr_extents = 3;
        return dm_op(&arg, sizeof(arg), extents, sizeof(extents));
    }
    static union {
        struct {
            uint16_t domid, type;
            uint32_t nr;
            uint64_t first_pfn;
        } now;
        struct {
            uint16_t domid, pad;
            uint32_t type;
            uint64_t first_pfn;
            uint64_t nr;
        } before;
    } arg;
    memset(&arg, 0, sizeof(arg));
    arg.now.domid = DOMID_SELF;
    if (cursor_in_register()) {
        arg.now.type = (uint16_t)type;
        arg.now.nr = count;
        arg.now.first_pfn = from;
    } else {
        arg.before.type = type;
        arg.before.nr = count;
        arg.before.first_pfn = from;
    }
    return hvm_op(op, &arg);
}

static void need_privilege(void) {
    char text[8];
    const char* privileged = option("privileged", text, sizeof(text));
    if (privileged != NULL && strcmp(privileged, "no") == 0) {
        SKIP("without the privilege");
    }
}

static void types(void) {
    need_privilege();
    EXPECT_RESULT(on_range(HVMOP_set_mem_type, first(), PAGES, RAM_RO), 0);
    expect("the page before", type_of(first() - 1), RAM_RW);
    expect("the page behind", type_of(first() + PAGES), RAM_RW);
    for (unsigned i = 0; i < PAGES; i++) {
        expect("a page of the range", type_of(first() + i), RAM_RO);
    }
    EXPECT_RESULT(on_range(HVMOP_set_mem_type, first(), PAGES, RAM_RW), 0);
    for (unsigned i = 0; i < PAGES; i++) {
        expect("a page of the range, again", type_of(first() + i), RAM_RW);
    }
}

static void holes(void) {
    need_privilege();
    unsigned long page[] = {first()};
    EXPECT_RESULT(reservation(XENMEM_decrease_reservation, page, 1, 0), 1);
    expect("a hole", type_of(first()), MMIO_DM);
    EXPECT_RESULT(on_range(HVMOP_set_mem_type, first(), 1, RAM_RW), -EINVAL);
    EXPECT_RESULT(on_range(HVMOP_set_mem_type, first(), 1, MMIO_DM), 0);
    EXPECT_RESULT(reservation(XENMEM_populate_physmap, page, 1, 0), 1);
    expect("RAM", type_of(first()), RAM_RW);
    EXPECT_RESULT(on_range(HVMOP_set_mem_type, first(), PAGES, 3), -EINVAL);
    EXPECT_RESULT(on_range(HVMOP_set_mem_type, first(), 0, RAM_RO), -EINVAL);
}

static void modified(void) {
    need_privilege();
    EXPECT_RESULT(on_range(HVMOP_modified_memory, first(), PAGES, 0), 0);
}

static void refused(void) {
    char text[8];
    if (option("privileged", text, sizeof(text)) == NULL) {
        SKIP("with the privilege");
    }
    // Nobody is found under DOMID_SELF when a remote domain is looked for.
    EXPECT_RESULT(on_range(HVMOP_set_mem_type, first(), PAGES, RAM_RO), -ESRCH);
    EXPECT_RESULT(on_range(HVMOP_modified_memory, first(), PAGES, 0), -ESRCH);
    expect("a page of the range", type_of(first()), RAM_RW);
}

TESTS({"devmodel.types", types}, {"devmodel.holes", holes}, {"devmodel.modified", modified},
      {"devmodel.refused", refused});
