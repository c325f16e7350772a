// Long calls of a vCPU that takes no interrupts, while another sends it events: what cannot be
// delivered stops nothing. The case counts the continuations.

#include "test.h"

#define EXTENTS 3000
#define ROUNDS 12

static volatile unsigned go, sent;
static uint32_t port;

static void sender(unsigned cpu) {
    for (unsigned round = 1;; round++) {
        while (go != round) {
            pause();
        }
        // Into the call that is made meanwhile.
        for (unsigned i = 0; i < 300; i++) {
            pause();
        }
        port_send(port);
        sent = round;
    }
}

static void undisturbed(void) {
    static unsigned long gfns[EXTENTS];
    for (unsigned i = 0; i < EXTENTS; i++) {
        gfns[i] = spare_gfn(i);
    }
    interrupts_off();
    apic_enable(x2apic_available());
    NEED(bind_ipi(0, &port));
    NEED(set_callback_vector(0x61));
    port_mask(port, false);
    if (!cpu_start(1, START_SIPI, sender, NULL)) {
        ERROR("vCPU 1 does not start");
    }
    for (unsigned round = 1; round <= ROUNDS; round++) {
        port_take(port);
        ACCESS(vcpu_info(0)->evtchn_upcall_pending) = 0;
        ACCESS(vcpu_info(0)->evtchn_pending_sel) = 0;
        go = round;
        EXPECT_RESULT(reservation(XENMEM_decrease_reservation, gfns, EXTENTS, 0), EXTENTS);
        EXPECT_RESULT(reservation(XENMEM_populate_physmap, gfns, EXTENTS, 0), EXTENTS);
        CHECK(SPIN_UNTIL(sent == round, PATIENCE_MS));
        CHECK(port_pending(port));
    }
}

TESTS({"undisturbed.no_needless_stop", undisturbed});
