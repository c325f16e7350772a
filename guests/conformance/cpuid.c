// The CPUID leaves by which a guest finds Xen (elf-boot-contract.md 6.1, xen-417-golden.md B).

#include "test.h"

static void signature(void) {
    struct cpuid_result r = cpuid(xen_base, 0);
    expect("EBX", r.ebx, 0x566e6558);
    expect("ECX", r.ecx, 0x65584d4d);
    expect("EDX", r.edx, 0x4d4d566e);
    expect("base modulo 0x100", xen_base & 0xff, 0);
}

static void leaf_count(void) {
    uint32_t last = cpuid(xen_base, 0).eax;
    CHECK(last >= xen_base + 2);
    expect("last leaf", last, xen_base + 5);
}

static void version(void) {
    struct cpuid_result r = cpuid(xen_base + 1, 0);
    expect("EAX", r.eax, 0x40011);
    expect("EBX", r.ebx, 0);
    expect("ECX", r.ecx, 0);
    expect("EDX", r.edx, 0);
    expect_result("xen_version", xen_version(XENVER_version, NULL), (long)r.eax);
}

static void hypercall_msr(void) {
    struct cpuid_result r = cpuid(xen_base + 2, 0);
    expect("pages", r.eax, 1);
    CHECK(r.ebx != 0);
    if (xen_base == 0x40000000) {
        expect("MSR", r.ebx, 0x40000000);
    }
    expect("ECX", r.ecx, 0);
    expect("EDX", r.edx, 0);
}

static void ids(void) {
    struct cpuid_result r = cpuid(xen_base + 4, 0);
    if ((r.eax & XEN_HVM_CPUID_VCPU_ID_PRESENT) != 0) {
        expect("vcpu id", r.ebx, 0);
    }
    if ((r.eax & XEN_HVM_CPUID_DOMID_PRESENT) == 0) {
        SKIP("no domid here");
    }
    CHECK(r.ecx != 0);
    // Own id and DOMID_SELF are the same domain; the number above it is somebody else's.
    EXPECT_RESULT(domid_op(XENMEM_current_reservation, (uint16_t)r.ecx),
                  domid_op(XENMEM_current_reservation, DOMID_SELF));
    CHECK(domid_op(XENMEM_current_reservation, (uint16_t)(r.ecx + 1)) < 0);
    expect("EDX", r.edx, 0);
    struct cpuid_result sub = cpuid(xen_base + 4, 1);
    expect("sub-leaf 1", sub.eax | sub.ebx | sub.ecx | sub.edx, 0);
}

static void flags(void) {
    uint32_t eax = cpuid(xen_base + 4, 0).eax;
    CHECK((eax & XEN_HVM_CPUID_VCPU_ID_PRESENT) != 0);
    CHECK((eax & XEN_HVM_CPUID_DOMID_PRESENT) != 0);
    CHECK((eax & XEN_HVM_CPUID_UPCALL_VECTOR) != 0);
    expect("bits that nobody has defined", eax & ~0x7fu, 0);
}

static void tsc(void) {
    struct cpuid_result r = cpuid(xen_base + 3, 0);
    expect("mode", r.ebx, 0);
    CHECK(r.ecx > 100000);
    CHECK(r.ecx < 10000000);
    expect("sub-leaf 3", cpuid(xen_base + 3, 3).eax | cpuid(xen_base + 3, 3).ebx, 0);
    CHECK(cpuid(xen_base + 3, 2).eax != 0);
}

static void beyond(void) {
    struct cpuid_result r = cpuid(xen_base + 5, 0);
    expect("leaf 5", r.eax | r.ebx | r.ecx | r.edx, 0);
    r = cpuid(xen_base + 6, 0);
    expect("leaf 6", r.eax | r.ebx | r.ecx | r.edx, 0);
}

static void no_other_hypervisor(void) {
    // KVM's own leaves are hidden. Leaf 0x40000000 is Xen's, or another's that was asked for.
    for (uint32_t base = 0x40000000; base <= 0x40000400; base += 0x100) {
        struct cpuid_result r = cpuid(base, 0);
        if (r.ebx == 0x4b4d564b) {
            FAIL("KVM's signature is at 0x%x", base);
        }
        if (base == xen_base + 0x100 && r.eax >= base && r.eax < base + 0x100) {
            FAIL("something is at 0x%x", base);
        }
    }
}

static void hypervisor_bit(void) {
    CHECK((cpuid(1, 0).ecx >> 31 & 1) == 1);
}

static void no_nesting(void) {
    expect("VMX", cpuid(1, 0).ecx >> 5 & 1, 0);
    if (cpuid(0x80000000, 0).eax >= 0x80000001) {
        expect("SVM", cpuid(0x80000001, 0).ecx >> 2 & 1, 0);
    }
}

static void apic_id(void) {
    expect("initial APIC id", cpuid(1, 0).ebx >> 24, 0);
    CHECK((cpuid(1, 0).edx >> 9 & 1) == 1);
}

TESTS({"c6.1.signature", signature}, {"c6.1.leaf_count", leaf_count}, {"c6.1.version", version},
      {"c6.1.hypercall_msr", hypercall_msr}, {"c6.1.ids_are_truthful", ids},
      {"golden.b.flags", flags}, {"golden.b.tsc", tsc}, {"golden.b.beyond", beyond},
      {"c6.1.no_other_hypervisor", no_other_hypervisor}, {"c6.1.hypervisor_bit", hypervisor_bit},
      {"c1.no_nesting", no_nesting}, {"c6.1.apic_id", apic_id});
