// What only a toolstack may do is refused (elf-boot-contract.md 6.9).

#include "test.h"

static void refused(unsigned number, const char* what, uint32_t interface) {
    // A whole page of zeroes behind the version: nothing faults, nothing is out of range.
    static uint32_t arg[1024] __attribute__((aligned(4096)));
    for (uint32_t cmd = 0; cmd < 90; cmd++) {
        memset(arg, 0, 256);
        arg[0] = cmd;
        arg[1] = interface;
        long result = hypercall(number, ARG(arg), 0, 0, 0, 0);
        char name[40];
        format_to(name, sizeof(name), "%s %u", what, cmd);
        show_result(name, result);
        if (result >= 0) {
            FAIL("%s, command %u: %ld", what, cmd, result);
        }
        // Some of Xen's domctls look at the domain first, or at what it is.
        if (result != -EPERM && result != -ENOSYS && result != -ESRCH && result != -EINVAL &&
            result != -EOPNOTSUPP) {
            FAIL("%s, command %u: %s", what, cmd, result_name(name, result));
        }
    }
    arg[1] = 0x7f;
    long result = hypercall(number, ARG(arg), 0, 0, 0, 0);
    if (result != -EACCES) {
        char name[24];
        FAIL("%s, wrong interface version: %s", what, result_name(name, result));
    }
}

static void sysctl(void) {
    refused(__HYPERVISOR_sysctl, "sysctl", 0x15);
}
static void domctl(void) {
    refused(__HYPERVISOR_domctl, "domctl", 0x15);
}
// ---- what 4.17.7 looks at before the privilege: the domain, and of some what they are about
// ------

enum fill { ZEROES, ONES, WORDS, LONGS, FILLS };

// {cmd, version, domain, ...}, then the command's own.
static uint32_t domctl_arg[64] __attribute__((aligned(4096)));
#define OWN (domctl_arg + 4)

static long ask_domctl(unsigned cmd, unsigned domain) {
    domctl_arg[0] = cmd;
    domctl_arg[1] = 0x15;
    domctl_arg[2] = domain;
    domctl_arg[3] = 0;
    long result = hypercall(__HYPERVISOR_domctl, ARG(domctl_arg), 0, 0, 0, 0);
    if (result >= 0) {
        FAIL("domctl %u of %u: %ld", cmd, domain, result);
    }
    return result;
}

// A single thing, or none; that of number 1000, which no domain has.
static void fill_domctl(enum fill fill) {
    memset(domctl_arg, fill == ONES ? 0xff : 0, sizeof(domctl_arg));
    for (unsigned i = 0; fill >= WORDS && i < 60; i++) {
        OWN[i] = i == 0 ? 1000 : i == 1 ? fill == WORDS : i % 2 == 0;
    }
}

static uint32_t own_domid(void) {
    return cpuid(xen_base + 4, 0).ecx;
}

static void domctl_order(void) {
    static const char* const names[] = {"zeroes", "ones", "words", "longs"};
    const unsigned domains[] = {0, own_domid(), DOMID_SELF, 1000, DOMID_IO, DOMID_INVALID, 0x7ff0};
    static const char* const who[] = {"domain 0", "own",           "DOMID_SELF", "1000",
                                      "DOMID_IO", "DOMID_INVALID", "0x7ff0"};
    char name[64];
    for (unsigned cmd = 0; cmd < 90; cmd++) {
        for (unsigned d = 0; d < ARRAY_SIZE(domains); d++) {
            for (unsigned fill = 0; fill < FILLS; fill++) {
                fill_domctl(fill);
                long result = ask_domctl(cmd, domains[d]);
                // What they nearly all say goes unsaid.
                if (result != (d < 2 ? -EPERM : -ESRCH)) {
                    format_to(name, sizeof(name), "%u, %s, %s", cmd, who[d], names[fill]);
                    show_result(name, result);
                }
            }
        }
    }
}

static void domctl_edges(void) {
    static const struct {
        const char* name;
        unsigned cmd;
        uint32_t own[6];
    } rows[] = {
        {"ioport_permission 65535, 1", 21, {65535, 1}},
        {"ioport_permission 65535, 2", 21, {65535, 2}},
        {"ioport_permission 65536, 1", 21, {65536, 1}},
        {"ioport_permission 0, 65536", 21, {0, 65536}},
        {"ioport_permission 0, 65537", 21, {0, 65537}},
        {"ioport_permission 2, ~0", 21, {2, ~0u}},
        {"ioport_mapping 0, 0, 65536", 40, {0, 0, 65536}},
        {"ioport_mapping 0, 0, 65537", 40, {0, 0, 65537}},
        {"ioport_mapping 65536, 0, 1", 40, {65536, 0, 1}},
        {"ioport_mapping 65535, 0, 1", 40, {65535, 0, 1}},
        {"ioport_mapping 0, 65536, 1", 40, {0, 65536, 1}},
        {"ioport_mapping 0, 65535, 1", 40, {0, 65535, 1}},
        {"ioport_mapping 2, 0, ~0", 40, {2, 0, ~0u}},
        {"ioport_mapping add 2", 40, {0, 0, 1, 2}},
        {"memory_mapping mfn 2^51", 39, {0, 0, 0, 1u << 19, 1, 0}},
        {"memory_mapping mfn 2^64 - 1", 39, {0, 0, ~0u, ~0u, 1, 0}},
        {"memory_mapping mfn 2^64 - 1, 2", 39, {0, 0, ~0u, ~0u, 2, 0}},
        {"memory_mapping gfn 2^64 - 1", 39, {~0u, ~0u, 0, 0, 1, 0}},
        {"memory_mapping gfn 2^64 - 1, 2", 39, {~0u, ~0u, 0, 0, 2, 0}},
        {"memory_mapping of 65", 39, {0, 0, 0, 0, 65, 0}},
        {"iomem_permission 0, ~0", 20, {0, 0, ~0u, ~0u}},
        {"iomem_permission 1, ~0", 20, {1, 0, ~0u, ~0u}},
        {"iomem_permission 2, ~0", 20, {2, 0, ~0u, ~0u}},
        {"iomem_permission 2^52, 1", 20, {0, 1u << 20, 1, 0}},
        {"set_target domain 0", 46, {0}},
        {"set_target DOMID_SELF", 46, {DOMID_SELF}},
        {"set_target 1000", 46, {1000}},
    };
    char name[64];
    for (unsigned d = 0; d < 2; d++) {
        unsigned domain = d == 0 ? 0 : own_domid();
        for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
            fill_domctl(ZEROES);
            memcpy(OWN, rows[i].own, sizeof(rows[i].own));
            format_to(name, sizeof(name), "%s, %s", d == 0 ? "domain 0" : "own", rows[i].name);
            show_result(name, ask_domctl(rows[i].cmd, domain));
        }
        fill_domctl(ZEROES);
        OWN[0] = own_domid();
        format_to(name, sizeof(name), "%s, set_target own", d == 0 ? "domain 0" : "own");
        show_result(name, ask_domctl(46, domain));
        // {pirq, allow}, one byte each.
        unsigned irqs = 0;
        do {
            fill_domctl(ZEROES);
            OWN[0] = irqs;
        } while (ask_domctl(19, domain) == -EPERM && ++irqs < 256);
        format_to(name, sizeof(name), "%s, interrupts", d == 0 ? "domain 0" : "own");
        show_result(name, irqs);
    }
}

static void platform_op(void) {
    refused(__HYPERVISOR_platform_op, "platform_op", 0x03000001);
}

static void others(void) {
    static uint32_t arg[1024] __attribute__((aligned(4096)));
    static const struct {
        unsigned char number;
        const char* name;
    } calls[] = {
        {__HYPERVISOR_mmuext_op, "mmuext_op"},
        {__HYPERVISOR_xsm_op, "xsm_op"},
        {38, "tmem"},
        {39, "argo"},
        {__HYPERVISOR_xenpmu_op, "xenpmu"},
        {__HYPERVISOR_dm_op, "dm_op"},
        {__HYPERVISOR_hypfs_op, "hypfs_op"},
        {__HYPERVISOR_kexec_op, "kexec_op"},
        {48, "mca"},
        {49, "paging_domctl_cont"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(calls); i++) {
        long result = hypercall(calls[i].number, 1, ARG(arg), 0, 0, 0);
        show_result(calls[i].name, result);
        if (result >= 0) {
            FAIL("%s: %ld", calls[i].name, result);
        }
    }
}

static void pv_only(void) {
    static const unsigned char numbers[] = {0,  1,  2,  3,  4,  5,  6,  8,  9,  10, 14, 16, 19,
                                            22, 25, 28, 30, 31, 37, 48, 50, 51, 52, 53, 54, 55};
    for (unsigned i = 0; i < ARRAY_SIZE(numbers); i++) {
        long result = hypercall(numbers[i], 0, 0, 0, 0, 0);
        if (result != -ENOSYS) {
            char name[24];
            FAIL("hypercall %u: %s", numbers[i], result_name(name, result));
        }
    }
}

static void other_domains(void) {
    CHECK(domid_op(XENMEM_current_reservation, 0) == -EPERM);
    struct evtchn_status status = {.dom = 0, .port = 1};
    CHECK(evtchn_op(EVTCHNOP_status, &status) == -EPERM);
    struct sched_remote_shutdown remote = {.domain_id = 0, .reason = 0};
    CHECK(sched_op(SCHEDOP_remote_shutdown, &remote) == -EPERM);
    struct xen_add_to_physmap add = {
        .domid = 0, .space = XENMAPSPACE_shared_info, .gpfn = spare_gfn(0)};
    CHECK(memory_op(XENMEM_add_to_physmap, &add) == -EACCES);
}

TESTS({"c6.9.sysctl", sysctl}, {"c6.9.domctl", domctl}, {"c6.9.domctl_order", domctl_order},
      {"c6.9.domctl_edges", domctl_edges}, {"c6.9.platform_op", platform_op},
      {"c6.9.others", others}, {"c6.9.pv_only", pv_only}, {"c6.9.other_domains", other_domains});
