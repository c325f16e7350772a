// Two and three vCPUs: started by INIT-SIPI-SIPI and by VCPUOP_initialise, taken down and up,
// with events, clocks and hypercalls of their own.

#include "test.h"

#define VECTOR 0xf3

static struct {
    volatile unsigned cpu, cpuid_vcpu, apic_id, upcalls, go, rounds;
    volatile bool ready, stop;
    volatile long version;
} ap[MAX_CPUS];

static bool have_cpu(unsigned cpu) {
    return vcpu_op(VCPUOP_is_up, cpu, NULL) != -ENOENT;
}

static void need_cpus(unsigned count) {
    if (!have_cpu(count - 1)) {
        SKIP("fewer than %u vCPUs", count);
    }
}

static void need_running(unsigned cpu) {
    need_cpus(cpu + 1);
    if (!ap[cpu].ready) {
        ERROR("vCPU %u does not run", cpu);
    }
}

static void on_port(uint32_t port) {}

static void on_upcall(struct trap_frame* frame) {
    ap[this_cpu()].upcalls++;
    upcall_scan(on_port);
}

// What a started CPU does until it is told to stop: makes hypercalls, takes upcalls.
static void ap_work(unsigned cpu) {
    ap[cpu].cpu = this_cpu();
    ap[cpu].cpuid_vcpu = cpuid(xen_base + 4, 0).ebx;
    ap[cpu].apic_id = cpuid(1, 0).ebx >> 24;
    ap[cpu].version = xen_version(XENVER_version, NULL);
    interrupts_on();
    ap[cpu].ready = true;
    while (!ap[cpu].stop) {
        if (ap[cpu].go != 0) {
            ap[cpu].go = 0;
            vcpu_op(VCPUOP_down, cpu, NULL);  // returns when someone says VCPUOP_up
            ap[cpu].rounds++;
        }
        pause();
    }
    interrupts_off();
}

static bool start(unsigned cpu, enum start_method method, long* result) {
    memset((void*)&ap[cpu], 0, sizeof(ap[cpu]));
    return cpu_start(cpu, method, ap_work, result) && SPIN_UNTIL(ap[cpu].ready, PATIENCE_MS);
}

static void others_are_down(void) {
    need_cpus(2);
    for (unsigned cpu = 1; have_cpu(cpu); cpu++) {
        EXPECT_RESULT(vcpu_op(VCPUOP_is_up, cpu, NULL), 0);
    }
    EXPECT_RESULT(vcpu_op(VCPUOP_is_up, 0, NULL), 1);
}

static void up_before_initialise(void) {
    need_cpus(2);
    EXPECT_RESULT(vcpu_op(VCPUOP_up, 1, NULL), -EINVAL);
    EXPECT_RESULT(vcpu_op(VCPUOP_is_up, 1, NULL), 0);
}

static void start_by_sipi(void) {
    need_cpus(2);
    set_handler(VECTOR, on_upcall);
    shared_info();
    NEED(set_callback_vector(VECTOR));
    apic_enable(x2apic_available() && !has_option("xapic"));
    if (!start(1, START_SIPI, NULL)) {
        FAIL("vCPU 1 does not run after INIT-SIPI-SIPI");
    }
    EXPECT_RESULT(vcpu_op(VCPUOP_is_up, 1, NULL), 1);
}

static void check_identity(unsigned cpu) {
    need_running(cpu);
    expect("number from the APIC id", ap[cpu].cpu, cpu);
    expect("APIC id", ap[cpu].apic_id, cpu * 2);
    if ((cpuid(xen_base + 4, 0).eax & XEN_HVM_CPUID_VCPU_ID_PRESENT) != 0) {
        expect("vcpu id in CPUID", ap[cpu].cpuid_vcpu, cpu);
    }
    expect_result("a hypercall from there", ap[cpu].version, 0x40011);
}

static void identity(void) {
    check_identity(1);
}

static void initialise_twice(void) {
    need_running(1);
    static struct vcpu_hvm_context context;
    EXPECT_RESULT(vcpu_op(VCPUOP_initialise, 1, &context), -EEXIST);
}

static void initialise_bad_context(void) {
    need_cpus(3);
    static struct vcpu_hvm_context context;
    memset(&context, 0, sizeof(context));
    context.mode = 7;
    EXPECT_RESULT(vcpu_op(VCPUOP_initialise, 2, &context), -EINVAL);
    context.mode = VCPU_HVM_MODE_32B;
    context.pad = 1;
    EXPECT_RESULT(vcpu_op(VCPUOP_initialise, 2, &context), -EINVAL);
    EXPECT_RESULT(vcpu_op(VCPUOP_up, 2, NULL), -EINVAL);
}

static void start_by_initialise(void) {
    need_cpus(3);
    long result = -1;
    enum start_method method = START_INITIALISE_32;
#ifdef __x86_64__
    if (!has_option("initialise32")) {
        method = START_INITIALISE_64;
    }
#endif
    if (!start(2, method, &result)) {
        char name[24];
        FAIL("vCPU 2 does not run, VCPUOP_initialise and up = %s", result_name(name, result));
    }
    EXPECT_RESULT(vcpu_op(VCPUOP_is_up, 2, NULL), 1);
}

static void identity_initialised(void) {
    check_identity(2);
}

static void ipi_to_other(void) {
    need_running(1);
    uint32_t port = 0;
    NEED(bind_ipi(1, &port));
    port_mask(port, false);
    for (unsigned i = 0; i < 50; i++) {
        unsigned before = ap[1].upcalls;
        EXPECT_RESULT(port_send(port), 0);
        if (!SPIN_UNTIL(ap[1].upcalls != before && !port_pending(port), PATIENCE_MS)) {
            FAIL("event %u did not reach vCPU 1", i + 1);
        }
    }
    port_close(port);
}

static void move_port(void) {
    need_running(1);
    struct evtchn_alloc_unbound unbound = {.dom = DOMID_SELF, .remote_dom = DOMID_SELF};
    NEED(evtchn_op(EVTCHNOP_alloc_unbound, &unbound));
    struct evtchn_bind_interdomain bind = {.remote_dom = DOMID_SELF, .remote_port = unbound.port};
    NEED(evtchn_op(EVTCHNOP_bind_interdomain, &bind));
    port_mask(unbound.port, false);
    struct evtchn_bind_vcpu move = {.port = unbound.port, .vcpu = 1};
    EXPECT_RESULT(evtchn_op(EVTCHNOP_bind_vcpu, &move), 0);
    unsigned before = ap[1].upcalls;
    EXPECT_RESULT(port_send(bind.local_port), 0);
    CHECK(SPIN_UNTIL(ap[1].upcalls != before, PATIENCE_MS));
    port_close(bind.local_port);
    port_close(unbound.port);
}

static void clocks_agree(void) {
    need_running(1);
    uint64_t a = xen_time_of(0);
    uint64_t b = xen_time_of(1);
    CHECK(a != 0);
    CHECK(b + 50000000 > a);
    CHECK(a + 50000000 > b);
}

static void down_and_up(void) {
    need_running(1);
    for (unsigned i = 1; i <= 3; i++) {
        ap[1].go = 1;
        if (!WAIT_UNTIL(vcpu_op(VCPUOP_is_up, 1, NULL) == 0, PATIENCE_MS)) {
            FAIL("vCPU 1 is still up after VCPUOP_down");
        }
        SPIN_UNTIL(ap[1].rounds == i, 5);
        expect("rounds while down", ap[1].rounds, i - 1);
        EXPECT_RESULT(vcpu_op(VCPUOP_up, 1, NULL), 0);
        CHECK(SPIN_UNTIL(ap[1].rounds == i, PATIENCE_MS));
        EXPECT_RESULT(vcpu_op(VCPUOP_is_up, 1, NULL), 1);
    }
}

static void event_while_down(void) {
    need_running(1);
    uint32_t port = 0;
    NEED(bind_ipi(1, &port));
    port_mask(port, false);
    unsigned rounds = ap[1].rounds;
    ap[1].go = 1;
    CHECK(WAIT_UNTIL(vcpu_op(VCPUOP_is_up, 1, NULL) == 0, PATIENCE_MS));
    unsigned before = ap[1].upcalls;
    EXPECT_RESULT(port_send(port), 0);
    SPIN_UNTIL(ap[1].upcalls != before, 5);
    expect("upcalls while down", ap[1].upcalls, before);
    EXPECT_RESULT(vcpu_op(VCPUOP_up, 1, NULL), 0);
    CHECK(SPIN_UNTIL(ap[1].rounds == rounds + 1, PATIENCE_MS));
    CHECK(SPIN_UNTIL(ap[1].upcalls != before, PATIENCE_MS));
    port_close(port);
}

static void reservations_at_once(void) {
    // Both CPUs make hypercalls all the time; the counts must come out even.
    need_running(1);
    static unsigned long gfns[8];
    long before = domid_op(XENMEM_current_reservation, DOMID_SELF);
    for (unsigned i = 0; i < 8; i++) {
        gfns[i] = spare_gfn(i);
    }
    for (unsigned i = 0; i < 5; i++) {
        EXPECT_RESULT(reservation(XENMEM_decrease_reservation, gfns, 8, 0), 8);
        EXPECT_RESULT(reservation(XENMEM_populate_physmap, gfns, 8, 0), 8);
    }
    EXPECT_RESULT(domid_op(XENMEM_current_reservation, DOMID_SELF), before);
}

static void restart_by_sipi(void) {
    // Offline and online again as an operating system does it: INIT to a halted CPU.
    need_running(1);
    unsigned finished = cpus_finished;
    ap[1].stop = true;
    CHECK(SPIN_UNTIL(cpus_finished == finished + 1, PATIENCE_MS));
    if (!start(1, START_SIPI, NULL)) {
        FAIL("vCPU 1 does not run after a second INIT-SIPI-SIPI");
    }
    check_identity(1);
    uint64_t a = xen_time_of(0);
    uint64_t b = xen_time_of(1);
    CHECK(b + 50000000 > a);
}

static void stop_all(void) {
    need_cpus(2);
    unsigned finished = cpus_finished;
    unsigned running = 0;
    for (unsigned cpu = 1; cpu < MAX_CPUS; cpu++) {
        if (ap[cpu].ready) {
            ap[cpu].stop = true;
            running++;
        }
    }
    CHECK(SPIN_UNTIL(cpus_finished == finished + running, PATIENCE_MS));
    // One CPU is enough to go on.
    CHECK(yield() == 0);
}

TESTS({"c3.other_vcpus_down", others_are_down}, {"smp.up_before_initialise", up_before_initialise},
      {"c3.init_sipi_sipi", start_by_sipi}, {"smp.identity", identity},
      {"smp.initialise_twice", initialise_twice},
      {"smp.initialise_bad_context", initialise_bad_context},
      {"c3.vcpuop_initialise", start_by_initialise},
      {"smp.identity_initialised", identity_initialised}, {"smp.ipi", ipi_to_other},
      {"smp.bind_vcpu", move_port}, {"smp.clocks_agree", clocks_agree},
      {"smp.down_and_up", down_and_up}, {"smp.event_while_down", event_while_down},
      {"smp.reservations", reservations_at_once}, {"smp.second_sipi", restart_by_sipi},
      {"smp.stop", stop_all});
