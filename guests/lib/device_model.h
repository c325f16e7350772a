// What a device model asks for, in the words of the release that answers: hvm_ops, whose structures
// changed with 4.5, until 4.8, and dm_ops since. Nothing of a call is left behind: neither in
// registers (forget) nor in its arguments, in which a stop may leave its progress.
#pragma once

#include "test.h"

#define HVMOP_modified_memory 7
#define HVMOP_set_mem_type 8
#define RAM_RW 0
#define RAM_RO 1
#define MMIO_DM 2

static inline unsigned type_of(unsigned long gfn) {
    struct xen_hvm_get_mem_type arg = {.domid = DOMID_SELF, .mem_type = 0xeeee, .pfn = gfn};
    NEED(hvm_op(HVMOP_get_mem_type, &arg));
    return arg.mem_type;
}

static inline bool has_dm_op(void) {
    return hypercall(__HYPERVISOR_dm_op, DOMID_SELF, 3, 0, 0, 0) == -E2BIG;
}

static inline long dm_op(void* op, size_t size, void* more, size_t more_size) {
    static struct xen_dm_op_buf buffers[2];
    set_xen_guest_handle(buffers[0].h, op);
    buffers[0].size = size;
    set_xen_guest_handle(buffers[1].h, more);
    buffers[1].size = more_size;
    return forget(
        hypercall(__HYPERVISOR_dm_op, DOMID_SELF, more == NULL ? 1 : 2, ARG(buffers), 0, 0));
}

static inline long type_range_by_dm_op(unsigned long from, unsigned count, unsigned type) {
    static struct xen_dm_op arg;
    arg.op = XEN_DMOP_set_mem_type;
    arg.u.set_mem_type.nr = count;
    arg.u.set_mem_type.mem_type = (uint16_t)type;
    arg.u.set_mem_type.first_pfn = from;
    long result = dm_op(&arg, sizeof(arg), NULL, 0);
    memset(&arg, 0, sizeof(arg));
    return result;
}

// In three extents, which are taken from the last to the first.
static inline long modified_by_dm_op(unsigned long from, unsigned count) {
    static struct xen_dm_op arg;
    static struct xen_dm_op_modified_memory_extent extents[3];
    unsigned third = count / 3;
    for (unsigned i = 0; i < 3; i++) {
        extents[i].nr = i == 2 ? count - 2 * third : third;
        extents[i].first_pfn = from + i * third;
    }
    arg.op = XEN_DMOP_modified_memory;
    arg.u.modified_memory.nr_extents = 3;
    long result = dm_op(&arg, sizeof(arg), extents, sizeof(extents));
    memset(&arg, 0, sizeof(arg));
    memset(extents, 0, sizeof(extents));
    return result;
}

// HVMOP_set_mem_type, or HVMOP_modified_memory (of any type), of so many pages.
static inline long on_range(unsigned op, unsigned long from, unsigned count, unsigned type) {
    if (has_dm_op()) {
        return op == HVMOP_set_mem_type ? type_range_by_dm_op(from, count, type)
                                        : modified_by_dm_op(from, count);
    }
    static union {
        struct {
            uint16_t domid, type;
            uint32_t nr;
            uint64_t first_pfn;
        } since_4_5;
        struct {
            uint16_t domid, pad;
            uint32_t type;
            uint64_t first_pfn;
            uint64_t nr;
        } until_4_4;
    } arg;
    arg.since_4_5.domid = DOMID_SELF;
    if (cpuid(xen_base + 1, 0).eax >= 0x40005) {
        arg.since_4_5.type = (uint16_t)type;
        arg.since_4_5.nr = count;
        arg.since_4_5.first_pfn = from;
    } else {
        arg.until_4_4.type = type;
        arg.until_4_4.nr = count;
        arg.until_4_4.first_pfn = from;
    }
    long result = forget(hvm_op(op, &arg));
    memset(&arg, 0, sizeof(arg));
    return result;
}
