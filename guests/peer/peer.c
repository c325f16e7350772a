// What a hypercall costs as the guest sees it: the same eight on any hypervisor that speaks Xen's
// interface, TSC ticks for each (where instructions are counted: instructions). One line each,
// "peer NAME TICKS"; tests/bench/peer runs it under two of them and divides.
#include "runtime.h"
#include "test.h"

enum { kRounds = 5, kCalls = 200 };

static uint8_t spare_page[PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));
static struct evtchn_status status = {.dom = DOMID_SELF};
static struct evtchn_send sending;
static struct gnttab_query_size query = {.dom = DOMID_SELF};
static struct gnttab_get_version version = {.dom = DOMID_SELF};
static struct xen_hvm_param param = {.domid = DOMID_SELF, .index = HVM_PARAM_STORE_EVTCHN};
static struct xen_add_to_physmap place = {.domid = DOMID_SELF, .space = XENMAPSPACE_grant_table};

static long do_version(void) {
    return xen_version(XENVER_version, NULL);
}
static long do_unknown(void) {
    return hypercall(55, 0, 0, 0, 0, 0);
}
static long do_timer(void) {
    return set_timer_op(0);
}
static long do_send(void) {
    return evtchn_op(EVTCHNOP_send, &sending);
}
static long do_query(void) {
    return grant_table_op(GNTTABOP_query_size, &query, 1);
}
static long do_grant_version(void) {
    return grant_table_op(GNTTABOP_get_version, &version, 1);
}
static long do_param(void) {
    return hvm_op(HVMOP_get_param, &param);
}
static long do_status(void) {
    return evtchn_op(EVTCHNOP_status, &status);
}
static long do_place(void) {
    return memory_op(XENMEM_add_to_physmap, &place);
}

static const struct {
    const char* name;
    long (*call)(void);
    bool pointer;
} calls[] = {
    {"xen_version", do_version, false},       {"unknown", do_unknown, false},
    {"set_timer_op", do_timer, false},        {"evtchn_send", do_send, true},
    {"grant_query_size", do_query, true},     {"grant_get_version", do_grant_version, true},
    {"hvm_get_param", do_param, true},        {"evtchn_status", do_status, true},
    {"add_to_physmap_grant", do_place, true},
};

// The least of a few rounds: what disturbs only adds.
static uint64_t cost(long (*call)(void)) {
    uint64_t least = ~0ull;
    call();
    for (unsigned round = 0; round < kRounds; ++round) {
        const uint64_t began = rdtsc();
        for (unsigned i = 0; i < kCalls; ++i) {
            call();
        }
        const uint64_t each = (rdtsc() - began) / kCalls;
        if (each < least) least = each;
    }
    return least;
}

static void measure(void) {
    // A port of our own to send to, that nobody is woken for: masked.
    uint32_t port = 0;
    NEED(bind_ipi(0, &port));
    port_mask(port, true);
    sending.port = port;
    status.port = port;
    place.gpfn = (unsigned long)spare_page / PAGE_SIZE;
    for (unsigned i = 0; i < sizeof calls / sizeof calls[0]; ++i) {
        const long result = calls[i].call();
        char name[24];
        print("peer %s %s %llu %s\n", calls[i].name, calls[i].pointer ? "pointer" : "plain",
              (unsigned long long)cost(calls[i].call), result_name(name, result));
    }
}

TESTS({"peer.measure", measure});
