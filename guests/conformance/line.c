// Events that come by an interrupt line: HVM_PARAM_CALLBACK_IRQ as a GSI and as a PCI INTx, through
// the I/O APIC and through the PIC. The line is asserted while vCPU 0's upcall_pending is set.
// Only HVM guests have these controllers (upcall.c has what such a value does to a PVH guest).

#include "ioapic.h"
#include "test.h"

#define LINE_VECTOR 0x61
#define OTHER_VECTOR 0x62
#define OWN_VECTOR 0x83
#define ALARM_VECTOR 0x71
#define PIC_BASE 0x48
#define GSI 20
#define PIC_IRQ 5

static volatile unsigned entered;  // times that the line's vector came in
static volatile unsigned other;    // the same of OTHER_VECTOR
static volatile unsigned taken;    // times that the port was found pending
static volatile unsigned hold;     // so many times the handler leaves upcall_pending set
static volatile bool ends_first;   // the handler writes its EOI before it looks
// The local APIC took an interrupt for ended before the handler said so, which only kvm_pvm's does.
// A line that is still asserted then interrupts once more.
static volatile bool ends_itself;
static volatile unsigned alarms, alarms_before_pic;
static uint32_t port, second_port;

// ---- the controllers ----------------------------------------------------------------------------

static void pic_setup(uint8_t mask, bool level) {
    out8(0x20, 0x11);
    out8(0x21, PIC_BASE);
    out8(0x21, 4);
    out8(0x21, 1);
    out8(0xa0, 0x11);
    out8(0xa1, PIC_BASE + 8);
    out8(0xa1, 2);
    out8(0xa1, 1);
    out8(0x4d0, level ? 1 << PIC_IRQ : 0);
    out8(0x21, mask);
    out8(0xa1, 0xff);
    apic_write(APIC_LVT0, 0x700);
}

static void pic_off(void) {
    out8(0x21, 0xff);
    apic_write(APIC_LVT0, 0x10700);
}

// ---- handlers -----------------------------------------------------------------------------------

static void on_port(uint32_t which) {
    if (which == port || which == second_port) {
        taken++;
    }
}

static void handle(void) {
    if (hold != 0) {
        hold--;
    } else {
        upcall_scan(on_port);
    }
}

static void count_interrupt(void) {
    entered++;
    if ((apic_read(APIC_ISR + LINE_VECTOR / 32 * 16) & 1u << LINE_VECTOR % 32) == 0) {
        ends_itself = true;
    }
}

static void on_line(struct trap_frame* frame) {
    count_interrupt();
    if (ends_first) {
        apic_write(APIC_EOI, 0);
        // An exit: a host that interprets us may not tell of the EOI before there is one.
        in8(0x80);
        handle();
        return;
    }
    handle();
    apic_write(APIC_EOI, 0);
}

static void on_other(struct trap_frame* frame) {
    other++;
    handle();
    apic_write(APIC_EOI, 0);
}

static void on_pic(struct trap_frame* frame) {
    entered++;
    alarms_before_pic = alarms;
    handle();
    out8(0x20, 0x20);
}

static void setup(void) {
    static bool done;
    interrupts_off();
    if (!done) {
        if (is_pvh()) {
            SKIP("a PVH guest has no interrupt controllers");
        }
        apic_enable(false);
        set_handler(LINE_VECTOR, on_line);
        set_handler(OTHER_VECTOR, on_other);
        set_handler(PIC_BASE + PIC_IRQ, on_pic);
        NEED(bind_ipi(0, &port));
        NEED(bind_ipi(0, &second_port));
        // Whatever is pending already would be counted with ours.
        port_mask(console_port(), true);
        port_mask(xenstore_port(), true);
        done = true;
    }
    NEED(set_param(HVM_PARAM_CALLBACK_IRQ, 0));
    for (unsigned gsi = 0; gsi < 48; gsi++) {
        pin(gsi, MASKED);
    }
    pic_off();
    // What the test before left in the local APIC is taken now: it would end a sleep of this one.
    interrupts_on();
    in8(0x80);
    interrupts_off();
    port_mask(port, false);
    port_mask(second_port, false);
    port_take(port);
    port_take(second_port);
    ACCESS(vcpu_info(0)->evtchn_upcall_pending) = 0;
    ACCESS(vcpu_info(0)->evtchn_pending_sel) = 0;
    entered = other = taken = hold = 0;
    ends_first = false;
    unexpected_interrupts = 0;
}

static uint64_t intx(unsigned device, unsigned pin_of_it) {
    return 1ull << 56 | device << 11 | pin_of_it;
}

static unsigned intx_gsi(unsigned device, unsigned pin_of_it) {
    return 16 + ((device * 4 + device / 8 + pin_of_it) & 31);
}

// Takes interrupts: as many as are expected, and any more that are on their way.
static void take(unsigned interrupts) {
    interrupts_on();
    SPIN_UNTIL(entered >= interrupts, PATIENCE_MS);
    SPIN_UNTIL(entered > interrupts, 5);
    interrupts_off();
}

static void expect_counts(unsigned interrupts, unsigned events) {
    expect("events taken", taken, events);
    expect("unexpected interrupts", unexpected_interrupts, 0);
    if (entered > interrupts && interrupts != 0 && ends_itself) {
        return;
    }
    expect("interrupts", entered, interrupts);
}

static void take_counts(unsigned interrupts, unsigned events) {
    take(interrupts);
    expect_counts(interrupts, events);
}

// ---- through the I/O APIC -----------------------------------------------------------------------

static void gsi_on(uint32_t trigger) {
    setup();
    pin(GSI, LINE_VECTOR | trigger);
    NEED(set_param(HVM_PARAM_CALLBACK_IRQ, GSI));
}

static void once(void) {
    gsi_on(LEVEL);
    EXPECT_RESULT(port_send(port), 0);
    take_counts(1, 1);
    expect("remote IRR", ioapic_read(0x10 + 2 * GSI) & 0x4000, 0);
}

static void again_while_pending(void) {
    gsi_on(LEVEL);
    hold = 5;
    EXPECT_RESULT(port_send(port), 0);
    take_counts(6, 1);
}

// The line is still asserted at the EOI: one interrupt more, which finds nothing.
static void eoi_before_look(void) {
    gsi_on(LEVEL);
    ends_first = true;
    EXPECT_RESULT(port_send(port), 0);
    take_counts(2, 1);
}

static void many(void) {
    gsi_on(LEVEL);
    interrupts_on();
    for (unsigned i = 0; i < 200; i++) {
        EXPECT_RESULT(port_send(port), 0);
        if (!SPIN_UNTIL(taken == i + 1, PATIENCE_MS)) {
            FAIL("event %u was lost (%u interrupts)", i + 1, entered);
        }
    }
    interrupts_off();
    expect_counts(200, 200);
}

static void many_held(void) {
    gsi_on(LEVEL);
    for (unsigned i = 0; i < 50; i++) {
        EXPECT_RESULT(port_send(port), 0);
        EXPECT_RESULT(port_send(second_port), 0);
        interrupts_on();
        if (!SPIN_UNTIL(taken == 2 * i + 2, PATIENCE_MS)) {
            FAIL("event %u was lost (%u interrupts)", i + 1, entered);
        }
        interrupts_off();
    }
    expect_counts(50, 100);
}

static void every_intx(void) {
    for (unsigned device = 0; device < 32; device++) {
        for (unsigned of = 0; of < 4; of++) {
            setup();
            pin(intx_gsi(device, of), LINE_VECTOR | LEVEL);
            NEED(set_param(HVM_PARAM_CALLBACK_IRQ, intx(device, of)));
            hold = 1;
            EXPECT_RESULT(port_send(port), 0);
            interrupts_on();
            if (!SPIN_UNTIL(taken == 1, PATIENCE_MS)) {
                FAIL("device %u, pin %u: no interrupt", device, of);
            }
            interrupts_off();
            expect_counts(2, 1);
        }
    }
}

static void every_gsi(void) {
    for (unsigned gsi = 1; gsi < 48; gsi++) {
        setup();
        pin(gsi, LINE_VECTOR | LEVEL);
        NEED(set_param(HVM_PARAM_CALLBACK_IRQ, gsi));
        EXPECT_RESULT(port_send(port), 0);
        interrupts_on();
        if (!SPIN_UNTIL(taken == 1, PATIENCE_MS)) {
            FAIL("GSI %u: no interrupt", gsi);
        }
        interrupts_off();
        expect_counts(1, 1);
    }
}

// Domain and bus of an INTx, and what else stands in the value, are nobody's.
static void ignored_bits(void) {
    setup();
    pin(GSI, LINE_VECTOR | LEVEL);
    NEED(set_param(HVM_PARAM_CALLBACK_IRQ, 0x00ffffffffffff00ull | GSI));
    EXPECT_RESULT(port_send(port), 0);
    take_counts(1, 1);
    setup();
    pin(intx_gsi(3, 1), LINE_VECTOR | LEVEL);
    NEED(set_param(HVM_PARAM_CALLBACK_IRQ, intx(3, 1) | 0x00ffffffffff07fcull));
    EXPECT_RESULT(port_send(port), 0);
    take_counts(1, 1);
}

static void no_line(void) {
    static const uint64_t values[] = {0, 0x100, 48, 0xff, 3ull << 56 | GSI, 0xffull << 56 | GSI};
    for (unsigned i = 0; i < ARRAY_SIZE(values); i++) {
        setup();
        for (unsigned gsi = 0; gsi < 48; gsi++) {
            pin(gsi, LINE_VECTOR | LEVEL);
        }
        NEED(set_param(HVM_PARAM_CALLBACK_IRQ, values[i]));
        EXPECT_RESULT(port_send(port), 0);
        take_counts(0, 0);
        CHECK(port_pending(port));
    }
}

static void masked_pin(void) {
    gsi_on(LEVEL | MASKED);
    EXPECT_RESULT(port_send(port), 0);
    take_counts(0, 0);
    pin(GSI, LINE_VECTOR | LEVEL);
    take_counts(1, 1);
}

static void cleared_behind_mask(void) {
    gsi_on(LEVEL | MASKED);
    EXPECT_RESULT(port_send(port), 0);
    upcall_scan(on_port);
    pin(GSI, LINE_VECTOR | LEVEL);
    take_counts(0, 1);
}

// Sent by the local APIC already: it comes, and finds nothing.
static void cleared_too_late(void) {
    gsi_on(LEVEL);
    EXPECT_RESULT(port_send(port), 0);
    upcall_scan(on_port);
    take_counts(1, 1);
}

static void set_while_pending(void) {
    setup();
    pin(GSI, LINE_VECTOR | LEVEL);
    EXPECT_RESULT(port_send(port), 0);
    take_counts(0, 0);
    NEED(set_param(HVM_PARAM_CALLBACK_IRQ, GSI));
    take_counts(1, 1);
}

static void after_vector(void) {
    setup();
    pin(GSI, LINE_VECTOR | LEVEL);
    NEED(set_callback_vector(OTHER_VECTOR));
    EXPECT_RESULT(port_send(port), 0);
    NEED(set_param(HVM_PARAM_CALLBACK_IRQ, GSI));
    interrupts_on();
    CHECK(SPIN_UNTIL(taken == 1, PATIENCE_MS));
    // A vector that waited may have been brought through LINT0 (docs/hosts.md): let that be over.
    SPIN_UNTIL(false, 5);
    interrupts_off();
}

static void away_and_back(void) {
    setup();
    NEED(set_param(HVM_PARAM_CALLBACK_IRQ, GSI));
    EXPECT_RESULT(port_send(port), 0);
    NEED(set_param(HVM_PARAM_CALLBACK_IRQ, intx(31, 3)));
    pin(GSI, OTHER_VECTOR | LEVEL);
    take(0);
    expect("interrupts of the old line", other, 0);
    NEED(set_param(HVM_PARAM_CALLBACK_IRQ, 0));
    pin(intx_gsi(31, 3), OTHER_VECTOR | LEVEL);
    take(0);
    expect("interrupts of the old line", other, 0);
    pin(GSI, LINE_VECTOR | LEVEL);
    NEED(set_param(HVM_PARAM_CALLBACK_IRQ, GSI));
    take_counts(1, 1);
    expect("interrupts of the other lines", other, 0);
}

static void unmasked_port(void) {
    gsi_on(LEVEL);
    port_mask(port, true);
    EXPECT_RESULT(port_send(port), 0);
    take_counts(0, 0);
    EXPECT_RESULT(port_unmask(port), 0);
    take_counts(1, 1);
}

// An edge for each time that upcall_pending is set, none for an event that comes while it is.
static void edges(void) {
    gsi_on(EDGE);
    interrupts_on();
    for (unsigned i = 0; i < 100; i++) {
        EXPECT_RESULT(port_send(port), 0);
        if (!SPIN_UNTIL(taken == i + 1, PATIENCE_MS)) {
            FAIL("event %u was lost (%u interrupts)", i + 1, entered);
        }
    }
    expect_counts(100, 100);
    hold = 1;
    EXPECT_RESULT(port_send(port), 0);
    take_counts(101, 100);
    EXPECT_RESULT(port_send(second_port), 0);
    take_counts(101, 100);
    upcall_scan(on_port);
    EXPECT_RESULT(port_send(port), 0);
    take_counts(102, 103);
}

// The same value again, while the line is asserted, is an edge as well.
static void edge_of_param(void) {
    gsi_on(EDGE);
    hold = 1;
    EXPECT_RESULT(port_send(port), 0);
    take_counts(1, 0);
    NEED(set_param(HVM_PARAM_CALLBACK_IRQ, GSI));
    take_counts(2, 1);
}

static void other_vcpu(void) {
    uint32_t its;
    gsi_on(LEVEL);
    if (bind_ipi(1, &its) != 0) {
        SKIP("one vCPU");
    }
    port_mask(its, false);
    EXPECT_RESULT(port_send(its), 0);
    take(0);
    expect("upcall_pending of vCPU 1", vcpu_info(1)->evtchn_upcall_pending, 1);
    expect_counts(0, 0);
    port_close(its);
    ACCESS(vcpu_info(1)->evtchn_upcall_pending) = 0;
    ACCESS(vcpu_info(1)->evtchn_pending_sel) = 0;
}

// ---- asleep -------------------------------------------------------------------------------------

// HLT, and an alarm by the local APIC's timer that ends it late. An emulated CPU now and then takes
// an interrupt between STI and HLT, where a real one takes none, and would then sleep for ever. It
// must not be what wakes us as a rule.
static void on_alarm(struct trap_frame* frame) {
    alarms++;
    apic_write(APIC_EOI, 0);
}

static void alarm_on(void) {
    alarms = 0;
    set_handler(ALARM_VECTOR, on_alarm);
    apic_write(APIC_TIMER_DIVIDE, 0xb);
    apic_write(APIC_LVT_TIMER, 0x20000 | ALARM_VECTOR);
    apic_write(APIC_TIMER_COUNT, 200000000);
}

static void alarm_off(void) {
    apic_write(APIC_LVT_TIMER, 0x10000);
    apic_write(APIC_TIMER_COUNT, 0);
}

// Until the count has reached `count`. An alarm that goes off while all is slow wakes nobody.
static unsigned overslept;

static void halt_until(volatile unsigned* counter, unsigned count) {
    while (*counter < count) {
        unsigned before = alarms, seen = *counter;
        asm volatile("sti; hlt; cli" ::: "memory");
        overslept += alarms != before && *counter == seen;
    }
}

static uint32_t timer_port;
static volatile unsigned expired;
static volatile bool goes_on;  // the handler sets the timer anew

static void timer_in_ms(unsigned ms) {
    struct vcpu_set_singleshot_timer timer = {.timeout_abs_ns = xen_time() + ms * 1000000ull};
    EXPECT_RESULT(vcpu_op(VCPUOP_set_singleshot_timer, 0, &timer), 0);
}

static void on_timer(uint32_t which) {
    if (which == timer_port) {
        expired++;
    }
}

static void on_line_of_timer(struct trap_frame* frame) {
    count_interrupt();
    upcall_scan(on_timer);
    if (goes_on) {
        timer_in_ms(3);
    }
    apic_write(APIC_EOI, 0);
}

static void timer_on(bool repeated) {
    gsi_on(LEVEL);
    set_handler(LINE_VECTOR, on_line_of_timer);
    NEED(bind_virq(VIRQ_TIMER, 0, &timer_port));
    port_mask(timer_port, false);
    expired = 0;
    goes_on = repeated;
}

static void timer_off(void) {
    goes_on = false;
    EXPECT_RESULT(vcpu_op(VCPUOP_stop_singleshot_timer, 0, NULL), 0);
    set_handler(LINE_VECTOR, on_line);
    NEED(port_close(timer_port));
}

static void in_hlt(void) {
    timer_on(false);
    alarm_on();
    overslept = 0;
    for (unsigned i = 0; i < 5; i++) {
        timer_in_ms(3);
        halt_until(&expired, i + 1);
    }
    alarm_off();
    timer_off();
    CHECK(overslept < 3);
    expect_counts(5, 0);
}

// One that comes just before the call does not end it: there has to be a next one. (No periodic
// timer, which stands still while its vCPU is blocked.)
static void in_block(void) {
    timer_on(true);
    timer_in_ms(3);
    for (unsigned i = 0; i < 5; i++) {
        unsigned before = expired;
        while (expired == before) {
            interrupts_on();
            EXPECT_RESULT(sched_op(SCHEDOP_block, NULL), 0);
            interrupts_off();
        }
    }
    timer_off();
}

// An event that is held back at the pin ends no sleep: not one that is there already, nor one that
// comes then.
static void in_block_behind_mask(bool before) {
    timer_on(false);
    pin(GSI, LINE_VECTOR | LEVEL | MASKED);
    alarm_on();
    if (before) {
        timer_in_ms(0);
        CHECK(SPIN_UNTIL(port_pending(timer_port), PATIENCE_MS));
    } else {
        timer_in_ms(20);
    }
    interrupts_on();
    unsigned alarms_before = alarms;
    long result = sched_op(SCHEDOP_block, NULL);
    interrupts_off();
    bool slept = alarms != alarms_before;
    alarm_off();
    timer_off();
    expect_result("block", result, 0);
    expect("slept on", slept, true);
}

static void in_block_event_masked(void) {
    in_block_behind_mask(true);
}

static void in_block_masked(void) {
    in_block_behind_mask(false);
}

static void pending_before_hlt(void) {
    gsi_on(LEVEL);
    alarm_on();
    EXPECT_RESULT(port_send(port), 0);
    asm volatile("sti; hlt; cli" ::: "memory");
    alarm_off();
    expect_counts(1, 1);
}

// ---- by the other vCPU --------------------------------------------------------------------------

#define SENT_BY_OTHER 100

static volatile unsigned sent;

static void sender(unsigned cpu) {
    for (unsigned i = 0; i < SENT_BY_OTHER; i++) {
        while (taken != i) {
            pause();
        }
        if (port_send(port) != 0) {
            return;
        }
        sent++;
    }
}

static void sent_by_other_vcpu(void) {
    gsi_on(LEVEL);
    if (vcpu_op(VCPUOP_is_up, 1, NULL) != 0) {
        SKIP("one vCPU");
    }
    if (!cpu_start(1, START_SIPI, sender, NULL)) {
        ERROR("vCPU 1 does not start");
    }
    alarm_on();
    overslept = 0;
    halt_until(&taken, SENT_BY_OTHER);
    alarm_off();
    CHECK(overslept < 10);
    CHECK(SPIN_UNTIL(sent == SENT_BY_OTHER, PATIENCE_MS));
    expect_counts(SENT_BY_OTHER, SENT_BY_OTHER);
}

// ---- through the PIC ----------------------------------------------------------------------------

static void pic_on(bool level) {
    setup();
    pic_setup((uint8_t) ~(1u << PIC_IRQ), level);
    NEED(set_param(HVM_PARAM_CALLBACK_IRQ, PIC_IRQ));
}

static void pic_level(void) {
    pic_on(true);
    EXPECT_RESULT(port_send(port), 0);
    take_counts(1, 1);
    hold = 3;
    EXPECT_RESULT(port_send(port), 0);
    take_counts(5, 2);
    pic_off();
}

static void pic_edges(void) {
    pic_on(false);
    interrupts_on();
    for (unsigned i = 0; i < 50; i++) {
        EXPECT_RESULT(port_send(port), 0);
        if (!SPIN_UNTIL(taken == i + 1, PATIENCE_MS)) {
            FAIL("event %u was lost (%u interrupts)", i + 1, entered);
        }
    }
    expect_counts(50, 50);
    hold = 1;
    EXPECT_RESULT(port_send(port), 0);
    take_counts(51, 50);
    pic_off();
}

static void pic_in_hlt(void) {
    pic_on(true);
    alarm_on();
    overslept = 0;
    for (unsigned i = 0; i < 20; i++) {
        EXPECT_RESULT(port_send(port), 0);
        unsigned before = alarms;
        asm volatile("sti; hlt; cli" ::: "memory");
        overslept += alarms_before_pic != before;
        expect_counts(i + 1, i + 1);
    }
    alarm_off();
    pic_off();
    CHECK(overslept < 5);
}

// The PIC asks for an interrupt; the guest sees by itself what it is about, with interrupts off:
// nothing comes then, also not a spurious one.
static void pic_cleared_before(void) {
    pic_on(true);
    for (unsigned i = 0; i < 20; i++) {
        EXPECT_RESULT(port_send(port), 0);
        upcall_scan(on_port);
        take_counts(0, i + 1);
    }
    EXPECT_RESULT(port_send(port), 0);
    take_counts(1, 21);
    pic_off();
}

static void pic_not_of_intx(void) {
    // PCI's links lead nowhere until firmware routes them.
    setup();
    pic_setup(0, true);
    NEED(set_param(HVM_PARAM_CALLBACK_IRQ, intx(3, 0)));
    EXPECT_RESULT(port_send(port), 0);
    take_counts(0, 0);
    pic_off();
}

// ---- with a vector of its own -------------------------------------------------------------------

static void on_own_vector(struct trap_frame* frame) {
    other++;
    handle();
    apic_write(APIC_EOI, 0);
}

static void take_others(unsigned interrupts) {
    interrupts_on();
    SPIN_UNTIL(other >= interrupts, PATIENCE_MS);
    SPIN_UNTIL(other > interrupts, 5);
    interrupts_off();
    expect("interrupts by its vector", other, interrupts);
}

// Then the line is silent: Linux names GSI 1, for form's sake, whatever it does with that.
static void own_vector(void) {
    if ((cpuid(xen_base + 4, 0).eax & XEN_HVM_CPUID_UPCALL_VECTOR) == 0) {
        SKIP("not advertised in CPUID");
    }
    gsi_on(LEVEL);
    set_handler(OWN_VECTOR, on_own_vector);
    struct xen_hvm_evtchn_upcall_vector arg = {.vcpu = 0, .vector = OWN_VECTOR};
    EXPECT_RESULT(hvm_op(HVMOP_set_evtchn_upcall_vector, &arg), 0);
    take_others(1);  // it was set
    for (unsigned i = 0; i < 10; i++) {
        EXPECT_RESULT(port_send(port), 0);
        take_others(i + 2);
        expect_counts(0, i + 1);
    }
    // Also when the parameter is set while an event waits.
    EXPECT_RESULT(port_send(port), 0);
    NEED(set_param(HVM_PARAM_CALLBACK_IRQ, 0));
    NEED(set_param(HVM_PARAM_CALLBACK_IRQ, GSI));
    take_others(12);
    expect_counts(0, 11);
}

TESTS({"line.once", once}, {"line.again_while_pending", again_while_pending},
      {"line.eoi_before_look", eoi_before_look}, {"line.two_hundred", many},
      {"line.two_events", many_held}, {"line.every_intx", every_intx},
      {"line.every_gsi", every_gsi}, {"line.ignored_bits", ignored_bits}, {"line.none", no_line},
      {"line.masked_pin", masked_pin}, {"line.cleared_behind_mask", cleared_behind_mask},
      {"line.cleared_too_late", cleared_too_late}, {"line.set_while_pending", set_while_pending},
      {"line.after_vector", after_vector}, {"line.away_and_back", away_and_back},
      {"line.unmasked_port", unmasked_port}, {"line.edges", edges},
      {"line.edge_of_param", edge_of_param}, {"line.other_vcpu", other_vcpu},
      {"line.in_hlt", in_hlt}, {"line.in_block", in_block},
      {"line.in_block_event_masked", in_block_event_masked},
      {"line.in_block_masked", in_block_masked}, {"line.pending_before_hlt", pending_before_hlt},
      {"line.pic_level", pic_level}, {"line.pic_edges", pic_edges}, {"line.pic_in_hlt", pic_in_hlt},
      {"line.pic_cleared_before", pic_cleared_before}, {"line.pic_not_of_intx", pic_not_of_intx},
      {"line.sent_by_other_vcpu", sent_by_other_vcpu}, {"line.own_vector", own_vector});
