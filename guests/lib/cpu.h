// The processor: instructions, traps, local APIC, other CPUs.
#pragma once

#include "base.h"

// ---- instructions ---------------------------------------------------------------------------

struct cpuid_result {
    uint32_t eax, ebx, ecx, edx;
};

static inline struct cpuid_result cpuid(uint32_t leaf, uint32_t subleaf) {
    struct cpuid_result r;
    asm volatile("cpuid"
                 : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
                 : "a"(leaf), "c"(subleaf));
    return r;
}

static inline uint64_t rdmsr(uint32_t index) {
    uint32_t low, high;
    asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index) : "memory");
    return (uint64_t)high << 32 | low;
}

static inline void wrmsr(uint32_t index, uint64_t value) {
    asm volatile("wrmsr" ::"c"(index), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                 : "memory");
}

static inline uint64_t rdtsc(void) {
    uint32_t low, high;
    asm volatile("rdtsc" : "=a"(low), "=d"(high)::"memory");
    return (uint64_t)high << 32 | low;
}

static inline uint32_t in32(uint16_t port) {
    uint32_t value;
    asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline uint8_t in8(uint16_t port) {
    uint8_t value;
    asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline void out8(uint16_t port, uint8_t value) {
    asm volatile("outb %0, %1" ::"a"(value), "Nd"(port));
}

static inline void interrupts_on(void) {
    asm volatile("sti" ::: "memory");
}

static inline void interrupts_off(void) {
    asm volatile("cli" ::: "memory");
}

static inline void pause(void) {
    asm volatile("pause" ::: "memory");
}

static inline void barrier(void) {
    asm volatile("" ::: "memory");
}

// A bit of shared memory; the answer is what it was before.
static inline bool test_and_clear_bit(unsigned long nr, volatile void* base) {
    bool was;
    asm volatile("lock btr %2, %1"
                 : "=@ccc"(was), "+m"(*(volatile unsigned long*)base)
                 : "r"(nr)
                 : "memory");
    return was;
}

static inline bool test_and_set_bit(unsigned long nr, volatile void* base) {
    bool was;
    asm volatile("lock bts %2, %1"
                 : "=@ccc"(was), "+m"(*(volatile unsigned long*)base)
                 : "r"(nr)
                 : "memory");
    return was;
}

static inline bool test_bit(unsigned long nr, const volatile void* base) {
    return ((const volatile uint8_t*)base)[nr / 8] >> (nr % 8) & 1;
}

#define ACCESS(x) (*(volatile __typeof__(x)*)&(x))

// ---- what the loader gave us ------------------------------------------------------------------

struct descriptor_table {
    uint16_t limit;
    uint32_t base;
    uint16_t pad;
} __attribute__((packed));

struct entry_state {
    uint32_t eax, ebx, ecx, edx, esi, edi, ebp, esp, eflags;
    uint32_t cr0, cr2, cr3, cr4;
    uint32_t efer, efer_high;
    uint32_t dr6, dr7;
    uint16_t cs, ds, es, ss, fs, gs, ldtr, tr;
    struct descriptor_table gdtr, idtr;
};

extern struct entry_state entry_state;
extern uint64_t entry_r8_to_r15[8];
extern char image_start[], image_end[], guest_entry[], trampoline[];

// ---- paging -----------------------------------------------------------------------------------

// Maps the large page around a physical address at ALIAS_VA and returns where the address then
// is; NULL in a guest without paging.
void* map_alias(uintptr_t physical);

// ---- traps ------------------------------------------------------------------------------------

struct trap_frame {
#ifdef __x86_64__
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, di, si, bp, bx, dx, cx, ax;
    uint64_t vector, error, ip, cs, flags, sp, ss;
#else
    uint32_t di, si, bp, bx, dx, cx, ax;
    uint32_t vector, error, ip, cs, flags;
#endif
};

#define FLAGS_IF 0x200u

#define TRAP_DE 0
#define TRAP_DB 1
#define TRAP_NMI 2
#define TRAP_UD 6
#define TRAP_GP 13
#define TRAP_PF 14

typedef void trap_handler(struct trap_frame* frame);

void trap_init(void);
void trap_init_ap(void);
void set_handler(unsigned vector, trap_handler* handler);

// Whether ring 3 may use the ports below 0x100 (64-bit guests).
void allow_ports(bool allowed);

// Interrupts that came in on a vector nobody asked for.
extern volatile unsigned unexpected_interrupts;
extern volatile unsigned last_unexpected_vector;

struct trap {
    int vector;  // -1: none
    unsigned long error, ip;
};

// Runs `function` and says which exception ended it, if any.
struct trap catch_trap(void (*function)(void*), void* argument);
// After a jump out of `function` past catch_trap().
void catch_reset(void);

struct context {
    unsigned long slot[9];
};
int context_save(struct context*) __attribute__((returns_twice));
void context_restore(struct context*, long value) __attribute__((noreturn));
// Calls `entry`, which must not return, on a stack of its own that ends at `stack_end`.
void context_start(void* stack_end, void (*entry)(void)) __attribute__((noreturn));

// ---- other CPUs -------------------------------------------------------------------------------

// This vCPU's number, from its APIC id (Xen gives vCPU n the id 2n).
unsigned this_cpu(void);

bool x2apic_available(void);
void apic_enable(bool x2apic);
uint32_t apic_read(unsigned reg);
void apic_write(unsigned reg, uint32_t value);
void apic_send(unsigned cpu, uint32_t command);
#define APIC_ID 0x20
#define APIC_VERSION 0x30
#define APIC_TPR 0x80
#define APIC_EOI 0xb0
#define APIC_SPURIOUS 0xf0
#define APIC_ISR 0x100
#define APIC_IRR 0x200
#define APIC_LVT_TIMER 0x320
#define APIC_LVT0 0x350
#define APIC_TIMER_COUNT 0x380
#define APIC_TIMER_CURRENT 0x390
#define APIC_TIMER_DIVIDE 0x3e0

enum start_method { START_SIPI, START_INITIALISE_32, START_INITIALISE_64 };

// Starts a CPU that then runs `function(cpu)` and, if that returns, halts for good with
// interrupts off. False if it did not report within a second; `*result` is the hypercall's
// answer for the two hypercall methods.
bool cpu_start(unsigned cpu, enum start_method method, void (*function)(unsigned cpu),
               long* result);
extern volatile unsigned cpus_finished;
