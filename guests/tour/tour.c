// A guest that looks around and says what it sees, for someone who runs Xenolith for the first
// time. It needs nothing but Xen's own interface, so that it runs on Xen as well.

#include "test.h"

static void heading(const char* text) {
    print("\n%s\n", text);
}

static void show_cpuid(void) {
    heading("CPUID: who is there?");
    uint32_t last = cpuid(xen_base, 0).eax;
    for (uint32_t leaf = xen_base; leaf <= last; leaf++) {
        struct cpuid_result r = cpuid(leaf, 0);
        print("  %08x  %08x %08x %08x %08x", leaf, r.eax, r.ebx, r.ecx, r.edx);
        switch (leaf - xen_base) {
            case 0: {
                char signature[13] = {0};
                memcpy(signature, &r.ebx, 4);
                memcpy(signature + 4, &r.ecx, 4);
                memcpy(signature + 8, &r.edx, 4);
                print("  \"%s\"", signature);
                break;
            }
            case 1: print("  version %u.%u", r.eax >> 16, r.eax & 0xffff); break;
            case 2: print("  %u hypercall page, by MSR 0x%x", r.eax, r.ebx); break;
            case 3: print("  guest TSC at %u kHz", r.ecx); break;
            case 4:
                print(" ");
                if ((r.eax & XEN_HVM_CPUID_VCPU_ID_PRESENT) != 0) {
                    print(" vcpu %u", r.ebx);
                }
                if ((r.eax & XEN_HVM_CPUID_DOMID_PRESENT) != 0) {
                    print(" domid %u", r.ecx);
                }
                if ((r.eax & XEN_HVM_CPUID_UPCALL_VECTOR) != 0) {
                    print(" upcall vectors");
                }
                break;
        }
        print("\n");
    }
}

static void show_version(void) {
    heading("xen_version: what is it?");
    long version = xen_version(XENVER_version, NULL);
    char extra[XEN_EXTRAVERSION_LEN] = "?";
    xen_version(XENVER_extraversion, extra);
    print("  Xen %ld.%ld%s\n", version >> 16, version & 0xffff, extra);

    static const char* const names[32] = {
        [XENFEAT_writable_page_tables] = "writable_page_tables",
        [XENFEAT_auto_translated_physmap] = "auto_translated_physmap",
        [XENFEAT_supervisor_mode_kernel] = "supervisor_mode_kernel",
        [XENFEAT_hvm_callback_vector] = "hvm_callback_vector",
        [XENFEAT_hvm_safe_pvclock] = "hvm_safe_pvclock",
        [XENFEAT_hvm_pirqs] = "hvm_pirqs",
        [XENFEAT_memory_op_vnode_supported] = "memory_op_vnode",
        [XENFEAT_not_direct_mapped] = "not_direct_mapped",
    };
    struct xen_feature_info features = {0, 0};
    xen_version(XENVER_get_features, &features);
    print("  features 0x%x:", features.submap);
    for (unsigned i = 0; i < 32; i++) {
        if ((features.submap >> i & 1) == 0) {
            continue;
        }
        if (names[i] != NULL) {
            print(" %s", names[i]);
        } else {
            print(" bit %u", i);
        }
    }
    xen_domain_handle_t uuid;
    if (xen_version(XENVER_guest_handle, &uuid) == 0) {
        print("\n  this domain is ");
        for (unsigned i = 0; i < sizeof(uuid); i++) {
            print("%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
        }
    }
    print("\n");
}

static void show_memory(void) {
    heading("memory_op: what have we got?");
    static const char* const types[] = {"", "RAM", "reserved", "ACPI", "NVS", "unusable"};
    static struct hvm_memmap_entry {
        uint64_t addr, size;
        uint32_t type;
    } __attribute__((packed)) map[32];
    struct xen_memory_map arg = {.nr_entries = ARRAY_SIZE(map)};
    set_xen_guest_handle(arg.buffer, (void*)map);
    if (memory_op(XENMEM_memory_map, &arg) == 0) {
        for (unsigned i = 0; i < arg.nr_entries; i++) {
            print("  %09llx-%09llx %s\n", (unsigned long long)map[i].addr,
                  (unsigned long long)(map[i].addr + map[i].size - 1),
                  map[i].type < ARRAY_SIZE(types) ? types[map[i].type] : "?");
        }
    }
    print("  %ld pages now, %ld at most, highest frame 0x%lx\n",
          domid_op(XENMEM_current_reservation, DOMID_SELF),
          domid_op(XENMEM_maximum_reservation, DOMID_SELF),
          domid_op(XENMEM_maximum_gpfn, DOMID_SELF));
}

static void show_transport(void) {
    heading("Transport: how does a hypercall leave this guest?");
    const uint8_t* stub = hypercall_page + __HYPERVISOR_memory_op * 32;
    print("  hypercall page at 0x%lx, stub 12:", (long)hypercall_page);
    for (unsigned i = 0; i < 9; i++) {
        print(" %02x", stub[i]);
    }
    if (stub[5] == 0x0f && stub[6] == 0x01 && (stub[7] == 0xd9 || stub[7] == 0xc1)) {
        print("\n  %s: the processor's own hypercall, known to this host's KVM (or it is Xen)\n",
              stub[7] == 0xd9 ? "vmmcall" : "vmcall");
    } else if (stub[5] == 0x3e && stub[6] == 0xe6 && stub[7] == 0x7e) {
        print("\n  ds out %%al,$0x7e: the portable transport, which any KVM can take\n");
    } else {
        print("\n  an instruction this tour does not know\n");
    }
}

static const char* port_kind(uint32_t port) {
    static const char* const kinds[] = {"closed",   "unbound",     "interdomain",
                                        "physical", "virtual IRQ", "IPI"};
    struct evtchn_status status;
    if (port_status(port, &status) != 0 || status.status >= ARRAY_SIZE(kinds)) {
        return "unknown";
    }
    return kinds[status.status];
}

static void show_paravirtual(void) {
    heading("Paravirtual devices");
    uint64_t pfn = 0;
    get_param(HVM_PARAM_CONSOLE_PFN, &pfn);
    print("  console   frame 0x%llx, port %u (%s): you are reading it\n", (unsigned long long)pfn,
          console_port(), port_kind(console_port()));
    get_param(HVM_PARAM_STORE_PFN, &pfn);
    print("  xenstore  frame 0x%llx, port %u (%s)", (unsigned long long)pfn, xenstore_port(),
          port_kind(xenstore_port()));
    static const char* const paths[] = {"domid", "name"};
    for (unsigned i = 0; i < ARRAY_SIZE(paths); i++) {
        char value[64];
        int n = xenstore_read(paths[i], value, sizeof(value));
        if (n == -1) {
            print(": silent");
            break;
        }
        print("%s %s = \"%s\"", i == 0 ? ":" : ",", paths[i], value);
    }
    print("\n");
}

static void show_call(const char* text, long result) {
    char name[24];
    print("  %-44s %s\n", text, result_name(name, result));
}

static void show_calls(void) {
    heading("A handful of hypercalls");
    uint64_t now = 0;
    uint32_t port = 0;
    struct gnttab_query_size size = {.dom = DOMID_SELF};
    show_call("xen_version(pagesize)", xen_version(XENVER_pagesize, NULL));
    show_call("sched_op(yield)", yield());
    show_call("vcpu_op(is_up, vcpu 0)", vcpu_op(VCPUOP_is_up, 0, NULL));
    show_call("hvm_op(get_time)", hvm_op(HVMOP_get_time, &now));
    show_call("grant_table_op(query_size)", grant_table_op(GNTTABOP_query_size, &size, 1));
    print("    now %llu ms; %u of %u grant frames\n", (unsigned long long)now / 1000000,
          size.nr_frames, size.max_nr_frames);
    show_call("event_channel_op(bind_ipi, vcpu 0)", bind_ipi(0, &port));
    show_call("event_channel_op(send, that port)", port_send(port));
    show_call("  which is now pending", port_pending(port));
    port_take(port);
    port_close(port);
    show_call("xen_version(extraversion), to address 0", xen_version(XENVER_extraversion, NULL));
    show_call("a hypercall that nobody has, number 99", hypercall(99, 0, 0, 0, 0, 0));
}

// ---- one hypercall, stopped on its way --------------------------------------------------------
//
// A long hypercall may be preempted. Its progress is then in the caller's registers and RIP is
// still at the trapping instruction, which simply runs again. A guest sees this only if an
// interrupt comes in just there. So the call is made with an event pending, as
//
//     sti; TRAP; ret
//
// where TRAP is a copy of the hypercall page's own trapping instruction: STI lets interrupts in
// only after the next instruction, and so the event arrives when TRAP has been executed once,
// whether it is finished (RIP at RET) or stopped (RIP at TRAP). The handler shows the registers,
// makes an event pending again and goes back to the STI.

#define UPCALL_VECTOR 0xf3
#define SHOWN 2

static unsigned long pages = 12;  // or as the command line says: pages=N

static uint8_t stepping_stub[8];
static uint32_t stepping_port;
static unsigned stops;

static void ignore_port(uint32_t port) {}

static void on_upcall(struct trap_frame* frame) {
    upcall_scan(ignore_port);
    if (frame->ip != (unsigned long)stepping_stub + 1) {
        return;
    }
    stops++;
    // Of many the first and the last ones.
    bool shown = pages <= 12 || stops <= SHOWN || stops + SHOWN >= pages;
    if (stops == SHOWN + 1 && !shown) {
        print("  ...\n");
    }
    if (shown) {
        print(
            "  stop %u: RIP 0x%llx is at the instruction, RAX 0x%llx, RSI 0x%llx\n"
            "          RDI 0x%03llx = operation %llu, %llu extents done\n",
            stops, (unsigned long long)frame->ip, (unsigned long long)frame->ax,
            (unsigned long long)frame->si, (unsigned long long)frame->di,
            (unsigned long long)frame->di & 0x3f, (unsigned long long)frame->di >> 6);
    }
    port_send(stepping_port);
    frame->ip = (unsigned long)stepping_stub;
    frame->flags &= ~(uint64_t)FLAGS_IF;
}

static void show_preemption(void) {
    static unsigned long gfns[2048];
    uint64_t wish = option_number("pages", pages);
    pages = wish > 0 && wish <= ARRAY_SIZE(gfns) ? wish : pages;
    print("\nOne hypercall, preempted: giving %lu pages back, one by one\n", pages);
    for (unsigned long i = 0; i < pages; i++) {
        gfns[i] = spare_gfn(i);
    }
    struct xen_memory_reservation arg = {.nr_extents = pages, .domid = DOMID_SELF};
    set_xen_guest_handle(arg.extent_start, gfns);

    stepping_stub[0] = 0xfb;  // sti
    memcpy(stepping_stub + 1, hypercall_page + __HYPERVISOR_memory_op * 32 + 5, 3);
    stepping_stub[4] = 0xc3;  // ret

    set_handler(UPCALL_VECTOR, on_upcall);
    if (set_callback_vector(UPCALL_VECTOR) != 0 || bind_ipi(0, &stepping_port) != 0) {
        print("  cannot be shown: no upcall vector here\n");
        return;
    }
    port_mask(stepping_port, false);
    long before = domid_op(XENMEM_current_reservation, DOMID_SELF);
    port_send(stepping_port);
    long result = call_stub(stepping_stub, __HYPERVISOR_memory_op, XENMEM_decrease_reservation,
                            ARG(&arg), 0, 0, 0);
    interrupts_off();
    set_param(HVM_PARAM_CALLBACK_IRQ, 0);
    port_close(stepping_port);
    if (stops == 0) {
        print("  it was not stopped (try --preempt every:4)\n");
    }
    print("  result %ld; this domain had %ld pages and now has %ld\n", result, before,
          domid_op(XENMEM_current_reservation, DOMID_SELF));
}

void guest_main(void) {
    print("A guest looks around\n====================\n");
    show_cpuid();
    show_version();
    show_memory();
    show_transport();
    show_paravirtual();
    show_calls();
    show_preemption();
    heading("Seen enough: sched_op(shutdown, poweroff)");
}

const struct test guest_tests[] = {{NULL, NULL}};
