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

TESTS({"c6.9.sysctl", sysctl}, {"c6.9.domctl", domctl}, {"c6.9.platform_op", platform_op},
      {"c6.9.others", others}, {"c6.9.pv_only", pv_only}, {"c6.9.other_domains", other_domains});
