// The start of day of the PV drivers of old Windows guests, as each generation went about it
// (xen-abi.md 3.4; 3.6 for the later ones): `generation=` on the command line says which. Where a
// driver checked a result and stopped, or worse, the test fails.
//
// geneva: XenServer 3.2 and 4.0. rio: 4.1 to 5.0. midnight: 5.5 to 6.0. tampa: 6.1 and 6.2. gplpv:
// James Harper's. winpv: upstream's xenbus.

#include "test.h"

#define HVMOP_process_dying 0x102
#define HVMOP_set_driver_version 0x103
#define SPACE_OLD_VLAPIC 3  // gmfn_range to everybody else
#define SPACE_OLD_SHARED_INFO 4
#define SPACE_VLAPIC 0x80000000u
#define SPACE_PHYSICAL 0x80000001u
#define HVM_PARAM_32BIT 8
#define NOT_WRITTEN 0xf001deadull
#define BUILD 30876

enum generation { GENEVA, RIO, MIDNIGHT, TAMPA, GPLPV, WINPV };

static enum generation generation(void) {
    static const char* const names[] = {"geneva", "rio", "midnight", "tampa", "gplpv", "winpv"};
    char text[16];
    const char* is = option("generation", text, sizeof(text));
    for (unsigned i = 0; is != NULL && i < ARRAY_SIZE(names); i++) {
        if (strcmp(is, names[i]) == 0) {
            return (enum generation)i;
        }
    }
    ERROR("no generation= of a driver on the command line");
}

static bool is_xenservers(void) {
    return generation() <= TAMPA;
}

// XenServer up to 6.2 told nobody where the console is: our verdict goes where the command line
// says.
static bool is_console_hidden(void) {
    return has_option("console_pfn");
}

static uint32_t drivers_base;  // what the driver found

static uint32_t xen_version_word(void) {
    return cpuid(drivers_base + 1, 0).eax;
}

// Two places are all that XenServer's drivers look at.
static void find_xen(void) {
    for (uint32_t base = 0x40000000; base <= 0x40000100; base += 0x100) {
        struct cpuid_result r = cpuid(base, 0);
        if (r.ebx == XEN_CPUID_SIGNATURE_EBX && r.ecx == XEN_CPUID_SIGNATURE_ECX &&
            r.edx == XEN_CPUID_SIGNATURE_EDX) {
            drivers_base = base;
            CHECK(r.eax >= base + 2);
            CHECK(cpuid(base + 2, 0).eax >= 1);
            return;
        }
    }
    FAIL("no signature at 0x40000000 or 0x40000100");
}

static void hypercall_pages(void) {
    struct cpuid_result r = cpuid(drivers_base + 2, 0);
    for (uint32_t page = 0; page < r.eax; page++) {
        wrmsr(r.ebx, (unsigned long)hypercall_page + (uint64_t)page * PAGE_SIZE + page);
    }
    EXPECT_RESULT(xen_version(XENVER_version, NULL), (long)xen_version_word());
}

// Its result counted for nothing before 5.5.
static void driver_version(void) {
    if (!is_xenservers()) {
        SKIP("not XenServer's");
    }
    uint32_t build = BUILD;
    long result = hvm_op(HVMOP_set_driver_version, &build);
    if (generation() >= MIDNIGHT) {
        expect_result("set_driver_version", result, 0);
    }
}

// 6.1 and 6.2 stop Windows when it fails; upstream's of 2015 tries it and goes on.
static void says_its_width(void) {
    long result = 0;
    if (generation() == TAMPA || generation() == WINPV) {
        result = set_param(HVM_PARAM_32BIT, sizeof(long) == 4);
    }
    if (generation() == TAMPA) {
        expect_result("HVM parameter 8", result, 0);
        uint64_t value = NOT_WRITTEN;
        EXPECT_RESULT(get_param(HVM_PARAM_32BIT, &value), 0);
        EXPECT(value, sizeof(long) == 4);
    }
}

static unsigned long page_of(const void* at) {
    return (unsigned long)at / PAGE_SIZE;
}

static void map_shared(void) {
    bool old_first = generation() == RIO || ((generation() == MIDNIGHT || generation() == TAMPA) &&
                                             xen_version_word() <= 0x30003);
    long result = -1;
    if (old_first) {
        result = add_to_physmap(SPACE_OLD_SHARED_INFO, 0, page_of(shared_info_page));
    }
    if (result < 0) {
        result = add_to_physmap(XENMAPSPACE_shared_info, 0, page_of(shared_info_page));
    }
    expect_result("shared_info", result, 0);
    const struct shared_info* shared = (const struct shared_info*)shared_info_page;
    CHECK(WAIT_UNTIL(ACCESS(shared->wc_version) != 0, PATIENCE_MS));
    CHECK(ACCESS(shared->wc_sec) != 0);
}

// A page of local APIC in memory was never to be had, and a driver that got a yes would use it.
static void map_vlapic(void) {
    if (!is_xenservers()) {
        SKIP("not XenServer's");
    }
    unsigned long gfn = spare_gfn(0);
    volatile uint32_t* word = (volatile uint32_t*)(gfn * PAGE_SIZE);
    *word = 0x600d;
    if (generation() >= MIDNIGHT) {
        expect_result("space 0x80000000", add_to_physmap(SPACE_VLAPIC, 0, gfn), -EINVAL);
    }
    expect_result("space 3", add_to_physmap(SPACE_OLD_VLAPIC, 0, gfn), -EINVAL);
    expect("the page", *word, 0x600d);
}

// A driver of XenServer's takes the hypercall's result for the value when that is still what it
// put there.
static void ring_params(void) {
    static const struct {
        const char* name;
        unsigned index;
        uint64_t want;  // 0: any
    } params[] = {{"STORE_PFN", HVM_PARAM_STORE_PFN, 0},
                  {"STORE_EVTCHN", HVM_PARAM_STORE_EVTCHN, 1},
                  {"CONSOLE_PFN", HVM_PARAM_CONSOLE_PFN, 0},
                  {"CONSOLE_EVTCHN", HVM_PARAM_CONSOLE_EVTCHN, 2}};
    for (unsigned i = 0; i < ARRAY_SIZE(params); i++) {
        uint64_t value = NOT_WRITTEN;
        bool console =
            params[i].index == HVM_PARAM_CONSOLE_PFN || params[i].index == HVM_PARAM_CONSOLE_EVTCHN;
        if (console && is_console_hidden()) {
            expect_result(params[i].name, get_param(params[i].index, &value), -EINVAL);
            expect(params[i].name, value, NOT_WRITTEN);
            continue;
        }
        expect_result(params[i].name, get_param(params[i].index, &value), 0);
        CHECK(value != NOT_WRITTEN);
        CHECK(value != 0);
        if (params[i].want != 0) {
            expect(params[i].name, value, params[i].want);
        }
    }
}

static void callback(void) {
    uint64_t value = NOT_WRITTEN;
    EXPECT_RESULT(set_param(HVM_PARAM_CALLBACK_IRQ, 28), 0);  // type 0: an interrupt line
    EXPECT_RESULT(get_param(HVM_PARAM_CALLBACK_IRQ, &value), 0);
    EXPECT(value, 28);
    if (generation() == WINPV) {
        struct xen_hvm_evtchn_upcall_vector upcall = {.vcpu = 0, .vector = 0xf3};
        long result = hvm_op(HVMOP_set_evtchn_upcall_vector, &upcall);
        if (result != 0) {
            expect_result("upcall vector", result, -ENOSYS);  // the line it is, then
        }
    }
}

// Upstream's starts from no channels at all, and binds its two to where they went.
static void reset_and_rebind(void) {
    if (generation() != WINPV) {
        SKIP("only upstream's");
    }
    static const unsigned index[] = {HVM_PARAM_STORE_EVTCHN, HVM_PARAM_CONSOLE_EVTCHN};
    struct evtchn_status status[ARRAY_SIZE(index)];
    for (unsigned i = 0; i < ARRAY_SIZE(index); i++) {
        uint64_t port = 0;
        if (index[i] == HVM_PARAM_CONSOLE_EVTCHN && is_console_hidden()) {
            port = console_port();
        } else {
            NEED(get_param(index[i], &port));
        }
        EXPECT_RESULT(port_status((uint32_t)port, &status[i]), 0);
        EXPECT(status[i].status, EVTCHNSTAT_interdomain);
    }
    struct evtchn_reset reset = {.dom = DOMID_SELF};
    EXPECT_RESULT(evtchn_op(EVTCHNOP_reset, &reset), 0);
    for (unsigned i = 0; i < ARRAY_SIZE(index); i++) {
        struct evtchn_bind_interdomain bind = {.remote_dom = 0,
                                               .remote_port = status[i].u.interdomain.port};
        EXPECT_RESULT(evtchn_op(EVTCHNOP_bind_interdomain, &bind), 0);
        EXPECT_RESULT(set_param(index[i], bind.local_port), 0);
    }
}

static void events(void) {
    vcpu_info(0)->evtchn_upcall_mask = 0;
    struct evtchn_alloc_unbound unbound = {.dom = DOMID_SELF, .remote_dom = 0};
    EXPECT_RESULT(evtchn_op(EVTCHNOP_alloc_unbound, &unbound), 0);
    EXPECT_RESULT(port_send(unbound.port), 0);
    EXPECT_RESULT(port_close(unbound.port), 0);
    uint32_t port = 0;
    EXPECT_RESULT(bind_ipi(0, &port), 0);
    EXPECT_RESULT(port_send(port), 0);
    CHECK(port_take(port));
    EXPECT_RESULT(port_close(port), 0);
}

static void grant_table(void) {
    struct gnttab_query_size size = {.dom = DOMID_SELF};
    if (generation() == GPLPV || generation() == WINPV) {
        EXPECT_RESULT(grant_table_op(GNTTABOP_query_size, &size, 1), 0);
        EXPECT(size.status, 0);
        CHECK(size.max_nr_frames >= 4);
    }
    for (unsigned frame = 0; frame < 4; frame++) {
        EXPECT_RESULT(add_to_physmap(XENMAPSPACE_grant_table, frame, spare_gfn(4 + frame)), 0);
    }
    volatile uint32_t* entry = (volatile uint32_t*)(spare_gfn(4) * PAGE_SIZE) + 2 * 8;
    *entry = 0;
    expect("an entry", *entry, 0);
}

static void store(void) {
    char domid[16];
    CHECK(xenstore_read("domid", domid, sizeof(domid)) > 0);
}

static void balloon(void) {
    unsigned long gfns[8];
    for (unsigned i = 0; i < ARRAY_SIZE(gfns); i++) {
        gfns[i] = spare_gfn(16 + i);
    }
    // A result below zero, or above what was asked for, stops Windows.
    EXPECT_RESULT(reservation(XENMEM_decrease_reservation, gfns, 8, 0), 8);
    EXPECT_RESULT(reservation(XENMEM_populate_physmap, gfns, 8, 0), 8);
}

static void host_time(void) {
    if (!is_xenservers()) {
        SKIP("not XenServer's");
    }
    static struct {
        uint64_t now;
        uint64_t rest[3];
    } arg;
    arg.now = 0;
    EXPECT_RESULT(hvm_op(HVMOP_get_time, &arg), 0);
    CHECK(arg.now != 0);
}

// A process of Windows ends: anything negative and the drivers of that generation do without for
// good, or fail.
static void process_dying(void) {
    if (!is_xenservers() || generation() == GENEVA) {
        SKIP("it does not ask");
    }
    uint64_t cr3 = 0x12345000;
    expect_result("process_dying", hvm_op(HVMOP_process_dying, &cr3), 0);
}

// What they try first, to take the next when it is not there.
static void first_tries(void) {
    if (!is_xenservers()) {
        SKIP("not XenServer's");
    }
    struct sched_shutdown reason = {.reason = SHUTDOWN_poweroff};
    expect_result("sched_op 0xfeeb0000", sched_op(0xfeeb0000, &reason), -ENOSYS);
    struct {
        uint64_t limit;
        domid_t domid;
    } sweep = {.limit = 1, .domid = DOMID_SELF};
    expect_result("memory_op 63", memory_op(63, &sweep), -ENOSYS);
}

// The crash dump's stack pulls pages to where it wants them.
static void crash_dump(void) {
    if (generation() != MIDNIGHT && generation() != TAMPA) {
        SKIP("it has none");
    }
    unsigned long from = spare_gfn(32);
    unsigned long to = spare_gfn(33);
    *(volatile uint32_t*)(from * PAGE_SIZE) = 0xdead0001;
    expect_result("space 0x80000001", add_to_physmap(SPACE_PHYSICAL, from, to), 0);
    expect("the moved page", *(volatile uint32_t*)(to * PAGE_SIZE), 0xdead0001);
    unsigned long back[] = {from};
    EXPECT_RESULT(reservation(XENMEM_populate_physmap, back, 1, 0), 1);
}

TESTS({"legacy.find_xen", find_xen}, {"legacy.hypercall_pages", hypercall_pages},
      {"legacy.driver_version", driver_version}, {"legacy.width", says_its_width},
      {"legacy.shared_info", map_shared}, {"legacy.vlapic", map_vlapic},
      {"legacy.callback", callback}, {"legacy.rings", ring_params},
      {"legacy.reset", reset_and_rebind}, {"legacy.events", events},
      {"legacy.grant_table", grant_table}, {"legacy.store", store}, {"legacy.balloon", balloon},
      {"legacy.time", host_time}, {"legacy.process_dying", process_dying},
      {"legacy.first_tries", first_tries}, {"legacy.crash_dump", crash_dump});
