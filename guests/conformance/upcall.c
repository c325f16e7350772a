// Delivery of events by the callback vector and by per-vCPU vectors: with interrupts on and off,
// the local APIC's LINT0 open or masked, and nothing lost over a few hundred of them.

#include "test.h"

#define CALLBACK_VECTOR 0xf3
#define OWN_VECTOR 0x83

static volatile unsigned entered;  // times that a vector came in
static volatile unsigned taken;    // times that the port was found pending
static volatile bool interrupts_were_off;
static uint32_t port;

static void on_port(uint32_t which) {
    if (which == port) {
        taken++;
    }
}

static void on_callback(struct trap_frame* frame) {
    entered++;
    interrupts_were_off = (frame->flags & FLAGS_IF) == 0;
    upcall_scan(on_port);
}

static void on_own_vector(struct trap_frame* frame) {
    on_callback(frame);
    apic_write(APIC_EOI, 0);
}

static void setup(void) {
    static bool done;
    if (!done) {
        set_handler(CALLBACK_VECTOR, on_callback);
        set_handler(OWN_VECTOR, on_own_vector);
        NEED(bind_ipi(0, &port));
        port_mask(port, false);
        // Whatever is pending already would be counted with ours.
        port_mask(console_port(), true);
        port_mask(xenstore_port(), true);
        done = true;
    }
    interrupts_off();
    port_mask(port, false);
    port_take(port);
    ACCESS(vcpu_info(0)->evtchn_upcall_pending) = 0;
    ACCESS(vcpu_info(0)->evtchn_pending_sel) = 0;
    entered = taken = 0;
}

static void vector_on(void) {
    setup();
    NEED(set_callback_vector(CALLBACK_VECTOR));
}

static void delivered_if_on(void) {
    vector_on();
    interrupts_on();
    EXPECT_RESULT(port_send(port), 0);
    CHECK(SPIN_UNTIL(taken == 1, PATIENCE_MS));
    CHECK(!interrupts_were_off);
    expect("upcalls", entered, 1);
}

static void not_delivered_if_off(void) {
    vector_on();
    EXPECT_RESULT(port_send(port), 0);
    SPIN_UNTIL(entered != 0, 20);
    expect("upcalls", entered, 0);
    CHECK(port_pending(port));
    expect("upcall_pending", vcpu_info(0)->evtchn_upcall_pending, 1);
}

static void delivered_at_sti(void) {
    vector_on();
    EXPECT_RESULT(port_send(port), 0);
    expect("upcalls", entered, 0);
    interrupts_on();
    CHECK(SPIN_UNTIL(taken == 1, PATIENCE_MS));
    expect("upcalls", entered, 1);
}

static void delivered_at_sti_without_exit(void) {
    // Once the flag is set, no exit of the guest's own helps delivery along: a pure spin.
    vector_on();
    EXPECT_RESULT(port_send(port), 0);
    SPIN_UNTIL(entered != 0, 5);
    interrupts_on();
    for (unsigned i = 0; i < 2000000 && taken == 0; i++) {
        pause();
    }
    expect("events taken", taken, 1);
}

static void delivered_in_hlt(void) {
    vector_on();
    EXPECT_RESULT(port_send(port), 0);
    asm volatile("sti; hlt" ::: "memory");
    interrupts_off();
    expect("events taken", taken, 1);
}

static void masked_port(void) {
    vector_on();
    port_mask(port, true);
    interrupts_on();
    EXPECT_RESULT(port_send(port), 0);
    SPIN_UNTIL(entered != 0, 20);
    expect("upcalls while masked", entered, 0);
    CHECK(port_pending(port));
    EXPECT_RESULT(port_unmask(port), 0);
    CHECK(SPIN_UNTIL(taken == 1, PATIENCE_MS));
}

static void pending_again(void) {
    vector_on();
    interrupts_on();
    EXPECT_RESULT(port_send(port), 0);
    CHECK(SPIN_UNTIL(taken == 1, PATIENCE_MS));
    EXPECT_RESULT(port_send(port), 0);
    CHECK(SPIN_UNTIL(taken == 2, PATIENCE_MS));
    expect("upcalls", entered, 2);
}

// Any other kind of callback would come by a PIC or an I/O APIC. PVH has neither: there the vector
// that was set stays in force.
static void no_upcall_without_vector(void) {
    vector_on();
    NEED(set_param(HVM_PARAM_CALLBACK_IRQ, 0));
    interrupts_on();
    EXPECT_RESULT(port_send(port), 0);
    SPIN_UNTIL(entered != 0, 20);
    interrupts_off();
    expect("upcalls", entered, is_pvh());
    expect("upcall_pending", vcpu_info(0)->evtchn_upcall_pending, !is_pvh());
}

static void other_kinds_than_vectors(void) {
    static const uint64_t kinds[] = {1, 1ull << 56 | 0x1800, 3ull << 56, 0xffull << 56 | 0x40};
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        vector_on();
        NEED(set_param(HVM_PARAM_CALLBACK_IRQ, kinds[i]));
        interrupts_on();
        EXPECT_RESULT(port_send(port), 0);
        SPIN_UNTIL(entered != 0, 20);
        interrupts_off();
        expect("upcalls", entered, is_pvh());
    }
}

static void pending_when_vector_is_set(void) {
    setup();
    NEED(set_param(HVM_PARAM_CALLBACK_IRQ, 0));
    EXPECT_RESULT(port_send(port), 0);
    NEED(set_callback_vector(CALLBACK_VECTOR));
    interrupts_on();
    CHECK(SPIN_UNTIL(taken == 1, PATIENCE_MS));
}

// No EOI is ever written for the callback vector, so it must leave nothing in service.
static void nothing_in_service(void) {
    vector_on();
    interrupts_on();
    EXPECT_RESULT(port_send(port), 0);
    CHECK(SPIN_UNTIL(taken == 1, PATIENCE_MS));
    interrupts_off();
    apic_enable(false);
    expect("ISR", apic_read(APIC_ISR + CALLBACK_VECTOR / 32 * 16), 0);
    expect("IRR", apic_read(APIC_IRR + CALLBACK_VECTOR / 32 * 16), 0);
}

static void many(unsigned count, bool off_first) {
    for (unsigned i = 0; i < count; i++) {
        if (off_first) {
            interrupts_off();
        } else {
            interrupts_on();
        }
        EXPECT_RESULT(port_send(port), 0);
        interrupts_on();
        if (!SPIN_UNTIL(taken == i + 1, PATIENCE_MS)) {
            FAIL("event %u of %u was lost (%u upcalls)", i + 1, count, entered);
        }
    }
    interrupts_off();
    expect("events taken", taken, count);
}

static void two_hundred_on(void) {
    vector_on();
    many(200, false);
}

static void two_hundred_off(void) {
    vector_on();
    many(200, true);
}

static void set_lint0(uint32_t value) {
    apic_enable(false);
    apic_write(APIC_LVT0, value);
    expect("LVT0", apic_read(APIC_LVT0), value);
}

static void lint0_masked(void) {
    vector_on();
    set_lint0(0x10700);
    many(50, false);
    taken = 0;
    many(50, true);
}

static void lint0_untouched(void) {
    if (hypercall_page[5] == 0x3e) {
        SKIP("the portable transport opens LINT0 and leaves it so");
    }
    lint0_masked();
    expect("LVT0 afterwards", apic_read(APIC_LVT0), 0x10700);
}

static void lint0_open(void) {
    vector_on();
    set_lint0(0x700);
    many(50, false);
    taken = 0;
    many(50, true);
    set_lint0(0x10700);
}

static void task_priority(void) {
    // The callback vector does not go through the local APIC: TPR does not hold it.
    vector_on();
    apic_enable(false);
    apic_write(APIC_TPR, 0xff);
    interrupts_on();
    port_send(port);
    bool came = SPIN_UNTIL(taken == 1, PATIENCE_MS);
    interrupts_off();
    apic_write(APIC_TPR, 0);
    CHECK(came);
}

static void timer_and_upcall(void) {
    // The local APIC's own interrupt and the upcall, both waiting at one STI.
    static uint32_t timer_port;
    vector_on();
    NEED(bind_virq(VIRQ_TIMER, 0, &timer_port));
    port_mask(timer_port, false);
    struct vcpu_set_singleshot_timer timer = {.timeout_abs_ns = xen_time() + 1000000};
    EXPECT_RESULT(vcpu_op(VCPUOP_set_singleshot_timer, 0, &timer), 0);
    port_send(port);
    SPIN_UNTIL(port_pending(timer_port), PATIENCE_MS);
    CHECK(port_pending(timer_port));
    interrupts_on();
    CHECK(SPIN_UNTIL(taken == 1 && !port_pending(timer_port), PATIENCE_MS));
    interrupts_off();
    port_close(timer_port);
}

static long own_vector(unsigned vector) {
    struct xen_hvm_evtchn_upcall_vector arg = {.vcpu = 0, .vector = (uint8_t)vector};
    return hvm_op(HVMOP_set_evtchn_upcall_vector, &arg);
}

// With a GSI as callback, as Linux has it. For PVH that changes nothing (see above): the callback
// vector of before is raised as well, and comes first.
static void own_vector_on(void) {
    vector_on();
    NEED(set_param(HVM_PARAM_CALLBACK_IRQ, 1));
    apic_enable(false);
    EXPECT_RESULT(own_vector(OWN_VECTOR), 0);
}

static void vcpu_vector(void) {
    if ((cpuid(xen_base + 4, 0).eax & XEN_HVM_CPUID_UPCALL_VECTOR) == 0) {
        SKIP("not advertised in CPUID");
    }
    own_vector_on();
    interrupts_on();
    CHECK(SPIN_UNTIL(entered == 1, PATIENCE_MS));  // it was set
    EXPECT_RESULT(port_send(port), 0);
    CHECK(SPIN_UNTIL(taken == 1, PATIENCE_MS));
    SPIN_UNTIL(entered == (is_pvh() ? 3 : 2), PATIENCE_MS);
    interrupts_off();
    expect("interrupts", entered, is_pvh() ? 3 : 2);
    expect("ISR after EOI", apic_read(APIC_ISR + OWN_VECTOR / 32 * 16), 0);
}

// Xen raises the vector whenever it is set, with no event pending; and whichever vCPU's it is.
static void vcpu_vector_raised(void) {
    vector_on();
    NEED(set_param(HVM_PARAM_CALLBACK_IRQ, 1));
    apic_enable(false);
    const uint32_t bit = 1u << OWN_VECTOR % 32;
    for (unsigned i = 0; i < 2; i++) {
        entered = 0;
        interrupts_off();
        EXPECT_RESULT(own_vector(OWN_VECTOR), 0);
        expect("upcall_pending", vcpu_info(0)->evtchn_upcall_pending, 0);
        expect("IRR", apic_read(APIC_IRR + OWN_VECTOR / 32 * 16) & bit, bit);
        interrupts_on();
        CHECK(SPIN_UNTIL(entered != 0, PATIENCE_MS));
        interrupts_off();
        expect("interrupts", entered, 1);
        expect("events taken", taken, 0);
        expect("IRR then", apic_read(APIC_IRR + OWN_VECTOR / 32 * 16) & bit, 0);
        expect("ISR after EOI", apic_read(APIC_ISR + OWN_VECTOR / 32 * 16), 0);
    }
    interrupts_on();
    EXPECT_RESULT(own_vector(OWN_VECTOR), 0);
    CHECK(SPIN_UNTIL(entered == 2, PATIENCE_MS));
    struct xen_hvm_evtchn_upcall_vector other = {.vcpu = 1, .vector = OWN_VECTOR};
    EXPECT_RESULT(hvm_op(HVMOP_set_evtchn_upcall_vector, &other),
                  vcpu_op(VCPUOP_is_up, 1, NULL) == -ENOENT ? -ENOENT : 0);
    SPIN_UNTIL(entered != 2, 5);
    expect("interrupts", entered, 2);
}

static void vcpu_vector_two_hundred(void) {
    vcpu_vector();
    taken = entered = 0;
    many(100, false);
    taken = 0;
    many(100, true);
}

static void vcpu_vector_pending_before(void) {
    setup();
    NEED(set_param(HVM_PARAM_CALLBACK_IRQ, 1));
    apic_enable(false);
    EXPECT_RESULT(port_send(port), 0);
    EXPECT_RESULT(own_vector(OWN_VECTOR), 0);
    interrupts_on();
    CHECK(SPIN_UNTIL(taken == 1, PATIENCE_MS));
}

TESTS({"upcall.if_on", delivered_if_on}, {"upcall.if_off", not_delivered_if_off},
      {"upcall.at_sti", delivered_at_sti},
      {"upcall.at_sti_spinning", delivered_at_sti_without_exit},
      {"upcall.in_hlt", delivered_in_hlt}, {"upcall.masked_port", masked_port},
      {"upcall.pending_again", pending_again}, {"upcall.no_vector", no_upcall_without_vector},
      {"upcall.other_kinds", other_kinds_than_vectors},
      {"upcall.pending_when_vector_is_set", pending_when_vector_is_set},
      {"upcall.no_eoi_needed", nothing_in_service}, {"upcall.two_hundred_if_on", two_hundred_on},
      {"upcall.two_hundred_if_off", two_hundred_off}, {"upcall.lint0_masked", lint0_masked},
      {"upcall.lint0_untouched", lint0_untouched}, {"upcall.lint0_open", lint0_open},
      {"upcall.ignores_tpr", task_priority}, {"upcall.timer_and_ipi", timer_and_upcall},
      {"upcall.vcpu_vector", vcpu_vector}, {"upcall.vcpu_vector_raised", vcpu_vector_raised},
      {"upcall.vcpu_vector_two_hundred", vcpu_vector_two_hundred},
      {"upcall.vcpu_vector_pending_before", vcpu_vector_pending_before});
