// A guest that means harm: wild pointers and numbers in every hypercall. All it may get is an
// error; that it prints its verdict at the end is the proof that the VMM is still there.

#include "test.h"

#define PAGED (GUEST_PAGING != PAGING_NONE)

// Addresses that cannot be read, or not as a whole.
static const unsigned long wild[] = {
    UNMAPPED_VA,        UNMAPPED_VA + 1,    UNMAPPED_VA + 0xffc,
    0xe0000000,  // maps to nothing
    0xfee00000,  // the local APIC: no memory either
    0xfec00ffe,
#ifdef __x86_64__
    0x00007ffffffff000, 0x00007fffffffffff, 0x0000800000000000,  0x8000000000000000,
    0xffff800000000000, 0xffff830000000000, 0xffffffff80000000,  0xfffffffffffff000,
    0xfffffffffffffff8, 0xffffffffffffffff, 0xdeadbeefdeadbeef,  0x0000000100000000,
#else
    0xd0000ffd,
#endif
};

static void allowed(const char* what, unsigned long op, unsigned long pointer, long result) {
    // No progress and no success with a pointer that leads nowhere, but for calls that take none.
    if (result > 0x1000000 || result < -4095) {
        FAIL("%s %lu with 0x%lx: 0x%lx", what, op, pointer, result);
    }
}

static void memory_ops(void) {
    for (unsigned long op = 0; op < 64; op++) {
        for (unsigned i = 0; i < ARRAY_SIZE(wild); i++) {
            allowed("memory_op", op, wild[i], memory_op(op, (void*)wild[i]));
        }
    }
}

static void hvm_ops(void) {
    for (unsigned long op = 0; op < 32; op++) {
        for (unsigned i = 0; i < ARRAY_SIZE(wild); i++) {
            allowed("hvm_op", op, wild[i], hvm_op(op, (void*)wild[i]));
        }
    }
}

static void evtchn_ops(void) {
    for (unsigned long op = 0; op < 20; op++) {
        for (unsigned i = 0; i < ARRAY_SIZE(wild); i++) {
            allowed("event_channel_op", op, wild[i], evtchn_op(op, (void*)wild[i]));
        }
    }
}

static void sched_ops(void) {
    for (unsigned long op = 2; op < 12; op++) {
        for (unsigned i = 0; i < ARRAY_SIZE(wild); i++) {
            allowed("sched_op", op, wild[i], sched_op(op, (void*)wild[i]));
        }
    }
}

static void vcpu_ops(void) {
    static const unsigned long vcpus[] = {0,    1,          2,          127,       128,
                                          4095, 0x7fffffff, 0x80000000, 0xffffffff};
    for (unsigned long op = 0; op < 20; op++) {
        for (unsigned v = 0; v < ARRAY_SIZE(vcpus); v++) {
            if (op == VCPUOP_down && vcpus[v] == 0) {
                continue;  // works, and would be the end
            }
            // Registering areas takes any address and writes there later; that is below.
            for (unsigned i = 0; i < ARRAY_SIZE(wild); i += v == 0 ? 1 : 5) {
                allowed("vcpu_op", op, wild[i], vcpu_op(op, vcpus[v], (void*)wild[i]));
            }
        }
    }
}

static void version_ops(void) {
    for (unsigned long op = 0; op < 20; op++) {
        for (unsigned i = 0; i < ARRAY_SIZE(wild); i++) {
            allowed("xen_version", op, wild[i], xen_version(op, (void*)wild[i]));
        }
    }
}

static void grant_ops(void) {
    static const unsigned long counts[] = {0, 1, 2, 512, 0x7fffffff, 0x80000000, 0xffffffff};
    for (unsigned long op = 0; op < 16; op++) {
        for (unsigned c = 0; c < ARRAY_SIZE(counts); c++) {
            for (unsigned i = 0; i < ARRAY_SIZE(wild); i += c == 1 ? 1 : 4) {
                allowed("grant_table_op", op, wild[i],
                        grant_table_op(op, (void*)wild[i], counts[c]));
            }
        }
    }
}

static void multicalls(void) {
    static const unsigned long counts[] = {1, 2, 1000, 0x7fffffff, 0x80000000, 0xffffffff};
    for (unsigned c = 0; c < ARRAY_SIZE(counts); c++) {
        for (unsigned i = 0; i < ARRAY_SIZE(wild); i++) {
            allowed("multicall", counts[c], wild[i], multicall((void*)wild[i], counts[c]));
        }
    }
}

static void other_calls(void) {
    for (unsigned i = 0; i < ARRAY_SIZE(wild); i++) {
        for (unsigned op = 0; op < 40; op++) {
            allowed("physdev_op", op, wild[i], physdev_op(op, (void*)wild[i]));
        }
        allowed("console_io", 0, wild[i], console_io(0, 0x7fffffff, (void*)wild[i]));
        allowed("console_io", 1, wild[i], console_io(1, 0x7fffffff, (void*)wild[i]));
        allowed("vm_assist", 0, wild[i], vm_assist(0, wild[i]));
        for (unsigned number = 35; number < 64; number++) {
            allowed("hypercall", number, wild[i],
                    hypercall(number, wild[i], wild[i], wild[i], wild[i], wild[i]));
        }
    }
    set_timer_op(0);
}

static void numbers(void) {
    // The number itself, with the arguments of something harmless.
    static const unsigned long values[] = {64,
                                           127,
                                           128,
                                           255,
                                           256,
                                           0x1000,
                                           0x7fffffff,
                                           0x80000000,
                                           0xfffffffe,
                                           0xffffffff,
#ifdef __x86_64__
                                           0x100000000,
                                           0x7fffffffffffffff,
                                           0x8000000000000000,
                                           0xffffffffffffffff
#endif
    };
    for (unsigned i = 0; i < ARRAY_SIZE(values); i++) {
        long result = raw_hypercall(values[i], 0, 0, 0);
        if (result != -ENOSYS) {
            FAIL("number 0x%lx: %ld", values[i], result);
        }
    }
}

// Valid structures whose fields are nonsense.
static void nonsense_fields(void) {
    static uint32_t words[64];
    static const uint32_t patterns[] = {0xffffffff, 0x7fffffff, 0x80000000, 0xdeadbeef, 0x00ff00ff};
    for (unsigned p = 0; p < ARRAY_SIZE(patterns); p++) {
        for (unsigned long op = 0; op < 64; op++) {
            for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
                words[i] = patterns[p];
            }
            allowed("memory_op", op, patterns[p], memory_op(op, words));
            for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
                words[i] = patterns[p];
            }
            if (op < 32 && op != HVMOP_set_param) {
                allowed("hvm_op", op, patterns[p], hvm_op(op, words));
            }
            for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
                words[i] = patterns[p];
            }
            if (op < 16) {
                allowed("event_channel_op", op, patterns[p], evtchn_op(op, words));
            }
            for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
                words[i] = patterns[p];
            }
            if (op < 16) {
                allowed("grant_table_op", op, patterns[p], grant_table_op(op, words, 1));
            }
        }
    }
}

static void huge_lists(void) {
    // A list that begins in memory and runs out of it.
    static unsigned long list[4] = {0x7fff0, 0x7fff0, 0x7fff0, 0x7fff0};
    struct xen_memory_reservation arg = {.domid = DOMID_SELF};
    static const unsigned long counts[] = {0x03ffffff, 0x04000000, 0x7fffffff, 0xffffffff};
    set_xen_guest_handle(arg.extent_start, (xen_pfn_t*)list);
    for (unsigned i = 0; i < ARRAY_SIZE(counts); i++) {
        arg.nr_extents = counts[i];
        allowed("decrease", counts[i], ARG(list), memory_op(XENMEM_decrease_reservation, &arg));
    }
    static struct sched_poll poll;
    set_xen_guest_handle(poll.ports, (evtchn_port_t*)list);
    poll.nr_ports = 0xffffffff;
    poll.timeout = 1;
    EXPECT_RESULT(sched_op(SCHEDOP_poll, &poll), -EINVAL);
}

static void self_referring_multicall(void) {
    // The list's results are written over the list itself, and an entry's argument is the list.
    static struct multicall_entry list[8];
    for (unsigned i = 0; i < 8; i++) {
        list[i].op = i % 2 == 0 ? __HYPERVISOR_multicall : __HYPERVISOR_xen_version;
        list[i].args[0] = i % 2 == 0 ? ARG(list) : XENVER_extraversion;
        list[i].args[1] = i % 2 == 0 ? 8 : ARG(&list[(i + 1) % 8]);
    }
    multicall(list, 8);
    multicall(list, 8);
}

static void page_tables_that_loop(void) {
#if GUEST_PAGING == PAGING_LONG
    // A top-level entry that leads back to the top, and others that lead out of memory. Only calls
    // that read: what is written there would be our own page tables.
    extern uint64_t pml4[512];
    pml4[300] = (uintptr_t)pml4 | 7;
    pml4[301] = 0x000ffffffffff000 | 7;
    pml4[302] = 0xe0000000 | 7;
    pml4[303] = 0xffffffffffffffff;
    for (unsigned long entry = 300; entry < 304; entry++) {
        unsigned long va = 0xffff000000000000 | entry << 39;
        for (unsigned shift = 12; shift <= 39; shift += 9) {
            for (unsigned long index = 298; index < 304; index++) {
                const void* p = (void*)(va | index << shift);
                allowed("memory_op", entry, va, memory_op(XENMEM_current_reservation, p));
                allowed("event_channel_op", entry, va, evtchn_op(EVTCHNOP_send, p));
            }
        }
    }
    pml4[300] = pml4[301] = pml4[302] = pml4[303] = 0;
#else
    SKIP("for 4-level paging");
#endif
}

static void areas_nowhere(void) {
    // Areas that Xen writes to by itself, at addresses that lead nowhere.
    struct vcpu_register_runstate_memory_area area;
    for (unsigned i = 0; i < ARRAY_SIZE(wild); i++) {
        area.addr.p = wild[i];
        allowed("runstate area", 5, wild[i],
                vcpu_op(VCPUOP_register_runstate_memory_area, 0, &area));
        allowed("time area", 13, wild[i], vcpu_op(VCPUOP_register_vcpu_time_memory_area, 0, &area));
        poll_port(console_port(), 1);
        yield();
    }
    area.addr.p = 0;
#if GUEST_PAGING != PAGING_NONE
    vcpu_op(VCPUOP_register_runstate_memory_area, 0, &area);
    vcpu_op(VCPUOP_register_vcpu_time_memory_area, 0, &area);
#endif
    struct vcpu_register_vcpu_info info = {.mfn = ~0ul, .offset = 0};
    CHECK(vcpu_op(VCPUOP_register_vcpu_info, 0, &info) < 0);
    info.mfn = 0xfee00;
    CHECK(vcpu_op(VCPUOP_register_vcpu_info, 0, &info) < 0);
    info.mfn = 0x7fff0;
    CHECK(vcpu_op(VCPUOP_register_vcpu_info, 0, &info) < 0);
}

static void all_ports(void) {
    // Every port that can be had, and then some.
    uint32_t first = 0;
    uint32_t last = 0;
    long result = 0;
    unsigned count = 0;
    while (count < 5000) {
        uint32_t port = 0;
        result = bind_ipi(0, &port);
        if (result != 0) {
            break;
        }
        first = count == 0 ? port : first;
        last = port;
        count++;
    }
    for (uint32_t port = first; count != 0 && port <= last; port++) {
        port_close(port);
    }
    CHECK(count >= 900);
    if (count < 5000) {
        EXPECT_RESULT(result, -ENOSPC);
    }
}

static void frames_everywhere(void) {
    // shared_info and grant frames in unlikely places: over the rings, the local APIC, the top.
    static const unsigned long gfns[] = {0x7fff0, 0xe0000, 0xfee00, 0xfffff, 0x100000, 0x7ffffff};
    for (unsigned i = 0; i < ARRAY_SIZE(gfns); i++) {
        allowed("shared_info at", gfns[i], 0, add_to_physmap(XENMAPSPACE_shared_info, 0, gfns[i]));
        allowed("grant frame at", gfns[i], 0, add_to_physmap(XENMAPSPACE_grant_table, 1, gfns[i]));
    }
#ifdef __x86_64__
    allowed("shared_info at 2^40", 0, 0, add_to_physmap(XENMAPSPACE_shared_info, 0, 1ul << 40));
    allowed("shared_info at 2^52", 0, 0, add_to_physmap(XENMAPSPACE_shared_info, 0, 1ul << 52));
    allowed("populate at 2^40", 0, 0, ({
                unsigned long gfn = 1ul << 40;
                reservation(XENMEM_populate_physmap, &gfn, 1, 0);
            }));
#endif
    EXPECT_RESULT(map_shared_info((uintptr_t)shared_info_page / PAGE_SIZE), 0);
    CHECK(((struct shared_info*)shared_info_page)->wc_sec != 0);
}

static void many_overlays(void) {
    // Back and forth between many places: nothing may pile up in the VMM without bound.
    for (unsigned i = 0; i < 200; i++) {
        long result = add_to_physmap(XENMAPSPACE_grant_table, i % 8, spare_gfn(i % 40));
        if (result != 0 && result != -ENOMEM && result != -EBUSY) {
            FAIL("round %u: %ld", i, result);
        }
    }
    for (unsigned i = 0; i < 40; i++) {
        unsigned long gfn = spare_gfn(i);
        reservation(XENMEM_populate_physmap, &gfn, 1, 0);
    }
}

static void xenstore_nonsense(void) {
    // Last: the connection may be dead afterwards.
    struct xenstore_domain_interface* ring = xenstore_ring();
    ACCESS(ring->req_prod) = ring->req_cons + 0x80000000;
    port_send(xenstore_port());
    for (unsigned i = 0; i < 50; i++) {
        yield();
    }
    ACCESS(ring->rsp_cons) = ring->rsp_prod + 7;
    port_send(xenstore_port());
    for (unsigned i = 0; i < 50; i++) {
        yield();
    }
    EXPECT_RESULT(xen_version(XENVER_version, NULL), 0x40011);
}

TESTS({"hostile.memory_op", memory_ops}, {"hostile.hvm_op", hvm_ops},
      {"hostile.event_channel_op", evtchn_ops}, {"hostile.sched_op", sched_ops},
      {"hostile.vcpu_op", vcpu_ops}, {"hostile.xen_version", version_ops},
      {"hostile.grant_table_op", grant_ops}, {"hostile.multicall", multicalls},
      {"hostile.others", other_calls}, {"hostile.numbers", numbers},
      {"hostile.nonsense_fields", nonsense_fields}, {"hostile.huge_lists", huge_lists},
      {"hostile.self_referring_multicall", self_referring_multicall},
      {"hostile.page_tables_that_loop", page_tables_that_loop}, {"hostile.all_ports", all_ports},
      {"hostile.frames_everywhere", frames_everywhere}, {"hostile.many_overlays", many_overlays},
      {"hostile.areas_nowhere", areas_nowhere}, {"hostile.xenstore_nonsense", xenstore_nonsense});
