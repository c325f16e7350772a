// The PIT's counter 0 as an interrupt, through the I/O APIC: what is armed comes, once, whatever
// happens to the guest's host meanwhile (the case is run while it is moved, too).

#include "ioapic.h"
#include "test.h"

#define PIT_VECTOR 0x61
#define PIT_PIN 2
#define PIT_HZ 1193182
#define SHOTS 400

static volatile unsigned entered;

static void on_pit(struct trap_frame* frame) {
    entered++;
    apic_write(APIC_EOI, 0);
}

static void program(unsigned mode, unsigned count) {
    out8(0x43, (uint8_t)(0x30 | mode << 1));
    out8(0x40, (uint8_t)count);
    out8(0x40, (uint8_t)(count >> 8));
}

static void setup(void) {
    interrupts_off();
    if (is_pvh()) {
        SKIP("a PVH guest has no PIT");
    }
    apic_enable(false);
    set_handler(PIT_VECTOR, on_pit);
    pin(PIT_PIN, MASKED);
}

// Each is armed when the last has come: one that is lost is missed for ever.
static void one_shots(void) {
    setup();
    // Mode 4: low for a moment when the count is over. (Of mode 0 no Xen makes an interrupt.)
    program(4, PIT_HZ / 500);
    pin(PIT_PIN, PIT_VECTOR | EDGE);
    entered = 0;
    interrupts_on();
    for (unsigned i = 0; i < SHOTS; i++) {
        unsigned before = entered;
        program(4, PIT_HZ / 500);
        if (!SPIN_UNTIL(entered != before, PATIENCE_MS)) {
            FAIL("shot %u of %u did not come", i + 1, SHOTS);
        }
    }
    interrupts_off();
    pin(PIT_PIN, MASKED);
}

static void none_left(void) {
    setup();
    program(4, PIT_HZ / 500);
    pin(PIT_PIN, PIT_VECTOR | EDGE);
    entered = 0;
    interrupts_on();
    CHECK(SPIN_UNTIL(entered == 1, PATIENCE_MS));
    SPIN_UNTIL(entered > 1, 10);
    interrupts_off();
    expect("interrupts of one shot", entered, 1);
    pin(PIT_PIN, MASKED);
}

TESTS({"pit.one_shots", one_shots}, {"pit.none_left", none_left});
