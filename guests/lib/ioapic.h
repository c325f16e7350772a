// The I/O APIC of an HVM guest.
#pragma once

#include "runtime.h"

#define EDGE 0
#define LEVEL 0x8000
#define MASKED 0x10000

static inline volatile uint32_t* ioapic_registers(void) {
    static volatile uint32_t* base;
    if (base == NULL) {
        base = map_alias(0xfec00000);
    }
    if (base == NULL) {
        base = (volatile uint32_t*)0xfec00000ul;
    }
    return base;
}

static inline void ioapic_write(unsigned index, uint32_t value) {
    ioapic_registers()[0] = index;
    ioapic_registers()[4] = value;
}

static inline uint32_t ioapic_read(unsigned index) {
    ioapic_registers()[0] = index;
    return ioapic_registers()[4];
}

// The pin's interrupts go to vCPU 0.
static inline void pin(unsigned gsi, uint32_t vector_and_flags) {
    ioapic_write(0x11 + 2 * gsi, 0);
    ioapic_write(0x10 + 2 * gsi, vector_and_flags);
}
