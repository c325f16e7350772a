// The parameters by which a guest finds its rings (elf-boot-contract.md 6.3).

#include "test.h"

static void check_frame(unsigned index) {
    uint64_t pfn = 0;
    EXPECT_RESULT(get_param(index, &pfn), 0);
    CHECK(pfn != 0);
    CHECK(pfn < 1 << 20);
    // Mapped: it can be read and written and is not a hole.
    volatile uint32_t* last = (volatile uint32_t*)(uintptr_t)(pfn * PAGE_SIZE + 4092);
    uint32_t was = *last;
    *last = 0x600df00d;
    uint32_t is = *last;
    *last = was;
    expect("a word of the ring's page", is, 0x600df00d);
}

static void check_port(unsigned index) {
    uint64_t port = 0;
    struct evtchn_status status;
    EXPECT_RESULT(get_param(index, &port), 0);
    CHECK(port != 0);
    CHECK(port < 1024);
    EXPECT_RESULT(port_status((uint32_t)port, &status), 0);
    expect("status", status.status, EVTCHNSTAT_interdomain);
    expect("other end's domain", status.u.interdomain.dom, 0);
    expect("vcpu", status.vcpu, 0);
}

static void store_pfn(void) {
    check_frame(HVM_PARAM_STORE_PFN);
}
static void store_port(void) {
    check_port(HVM_PARAM_STORE_EVTCHN);
}
static void console_pfn(void) {
    check_frame(HVM_PARAM_CONSOLE_PFN);
}
static void console_evtchn(void) {
    check_port(HVM_PARAM_CONSOLE_EVTCHN);
}

static void two_different(void) {
    uint64_t a = 0;
    uint64_t b = 0;
    get_param(HVM_PARAM_STORE_PFN, &a);
    get_param(HVM_PARAM_CONSOLE_PFN, &b);
    CHECK(a != b);
    CHECK(xenstore_port() != console_port());
}

static void free_ports_follow(void) {
    uint32_t port = 0;
    EXPECT_RESULT(bind_ipi(0, &port), 0);
    expect("first free port", port, 3);
    EXPECT_RESULT(port_close(port), 0);
}

static void value_is_written(void) {
    // A driver of old presets the value and looks whether it changed.
    uint64_t value = 0xf001dead;
    EXPECT_RESULT(get_param(HVM_PARAM_CALLBACK_IRQ, &value), 0);
    expect("value", value, 0);
}

TESTS({"c6.3.store_pfn", store_pfn}, {"c6.3.store_evtchn", store_port},
      {"c6.3.console_pfn", console_pfn}, {"c6.3.console_evtchn", console_evtchn},
      {"c6.3.are_different", two_different}, {"golden.a.free_ports", free_ports_follow},
      {"c6.3.value_is_written", value_is_written});
