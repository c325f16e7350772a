#include "cpu.h"

#include "runtime.h"

struct entry_state entry_state;
uint64_t entry_r8_to_r15[8];

// ---- traps ------------------------------------------------------------------------------------

#ifdef __x86_64__
struct gate {
    uint16_t offset_low, selector, attributes, offset_middle;
    uint32_t offset_high, reserved;
};

struct tss {
    uint32_t reserved0;
    uint64_t rsp[3];
    uint64_t reserved1;
    uint64_t ist[7];
    uint64_t reserved2;
    uint16_t reserved3, io_bitmap;
    uint8_t ports[32 + 1];  // for ports 0 to 0xff, and the byte of ones that must follow
} __attribute__((packed));

static struct tss tss = {.ports[32] = 0xff};
static uint8_t ring0_stack[4096] __attribute__((aligned(16)));
extern uint64_t gdt_tss[2];
#define CODE_SELECTOR SEL_CODE64
#else
struct gate {
    uint16_t offset_low, selector, attributes, offset_high;
};
#define CODE_SELECTOR SEL_CODE32
#endif

extern uint8_t trap_entries[256][16];
static struct gate idt[256];
static trap_handler* handlers[256];
volatile unsigned unexpected_interrupts;
volatile unsigned last_unexpected_vector;

static struct {
    bool armed;
    struct context context;
    struct trap trap;
} catcher;

extern uint8_t ap_stacks[MAX_CPUS][AP_STACK_SIZE];

void trap_init_ap(void) {
    struct {
        uint16_t limit;
        unsigned long base;
    } __attribute__((packed)) pointer = {sizeof(idt) - 1, (unsigned long)idt};
    asm volatile("lidt %0" ::"m"(pointer));
}

void trap_init(void) {
    for (unsigned vector = 0; vector < 256; vector++) {
        unsigned long entry = (unsigned long)trap_entries[vector];
        idt[vector].offset_low = (uint16_t)entry;
        idt[vector].selector = CODE_SELECTOR;
        idt[vector].attributes = 0x8e00;
#ifdef __x86_64__
        idt[vector].offset_middle = (uint16_t)(entry >> 16);
#else
        idt[vector].offset_high = (uint16_t)(entry >> 16);
#endif
    }
    trap_init_ap();
#ifdef __x86_64__
    // A trap from ring 3 takes its stack from here.
    unsigned long base = (unsigned long)&tss;
    tss.io_bitmap = sizeof(tss);  // none: ring 3 may use no port
    tss.rsp[0] = (unsigned long)ring0_stack + sizeof(ring0_stack);
    gdt_tss[0] =
        (sizeof(tss) - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56;
    gdt_tss[1] = base >> 32;
    asm volatile("ltr %w0" ::"r"(SEL_TSS));
#endif
}

#ifdef __x86_64__
void allow_ports(bool allowed) {
    tss.io_bitmap = (uint16_t)(allowed ? offsetof(struct tss, ports) : sizeof(tss));
}
#endif

void set_handler(unsigned vector, trap_handler* handler) {
    handlers[vector] = handler;
}

struct trap catch_trap(void (*function)(void*), void* argument) {
    // These nest: the test runner catches around a test that may catch for itself.
    struct context outer = catcher.context;
    bool outer_armed = catcher.armed;
    struct trap result = {-1, 0, 0};
    if (context_save(&catcher.context) == 0) {
        catcher.armed = true;
        function(argument);
    } else {
        result = catcher.trap;
    }
    catcher.context = outer;
    catcher.armed = outer_armed;
    return result;
}

void catch_reset(void) {
    catcher.armed = false;
}

__attribute__((used)) void trap_dispatch(struct trap_frame* frame) {
    unsigned vector = (unsigned)frame->vector;
    if (handlers[vector] != NULL) {
        handlers[vector](frame);
        return;
    }
    if (vector >= 32) {
        unexpected_interrupts++;
        last_unexpected_vector = vector;
        return;
    }
    uintptr_t here = (uintptr_t)frame;
    bool on_ap = here >= (uintptr_t)ap_stacks && here < (uintptr_t)ap_stacks + sizeof(ap_stacks);
    if (catcher.armed && !on_ap) {
        catcher.armed = false;
        catcher.trap = (struct trap){(int)vector, frame->error, frame->ip};
        context_restore(&catcher.context, 1);
    }
    print("ERROR: exception %u, error code 0x%lx, at 0x%lx%s\n", vector, (long)frame->error,
          (long)frame->ip, on_ap ? ", not on the first CPU" : "");
    print("verdict: ERROR (0 passed, 0 failed, 0 skipped)\n");
    shutdown(SHUTDOWN_crash);
}

// ---- paging -----------------------------------------------------------------------------------

#if GUEST_PAGING != PAGING_NONE
#if GUEST_PAGING == PAGING_PSE
extern uint32_t page_directory[1024];
#define LARGE_PAGE 0x400000ul
#else
extern uint64_t page_directory[2048];
#define LARGE_PAGE 0x200000ul
#endif

void* map_alias(uintptr_t physical) {
    uintptr_t start = physical & ~(LARGE_PAGE - 1);
    page_directory[ALIAS_VA / LARGE_PAGE] = (unsigned long)start | 0xe7;
    unsigned long cr3;
    asm volatile("mov %%cr3, %0; mov %0, %%cr3" : "=&r"(cr3)::"memory");
    return (void*)(ALIAS_VA + (physical - start));
}
#else
void* map_alias(uintptr_t physical) {
    (void)physical;
    return NULL;
}
#endif

// ---- local APIC -------------------------------------------------------------------------------

#define MSR_APIC_BASE 0x1b
#define APIC_ICR 0x300
#define APIC_MMIO 0xfee00000ul

static bool x2apic_on;

unsigned this_cpu(void) {
    return (cpuid(1, 0).ebx >> 24) / 2;
}

bool x2apic_available(void) {
    return (cpuid(1, 0).ecx >> 21 & 1) != 0;
}

void apic_enable(bool x2apic) {
    uint64_t base = rdmsr(MSR_APIC_BASE);
    wrmsr(MSR_APIC_BASE, base | 0x800 | (x2apic ? 0x400 : 0));
    x2apic_on = x2apic;
    apic_write(APIC_SPURIOUS, 0x1ff);
}

uint32_t apic_read(unsigned reg) {
    if (x2apic_on) {
        return (uint32_t)rdmsr(0x800 + reg / 16);
    }
    return *(volatile uint32_t*)(APIC_MMIO + reg);
}

void apic_write(unsigned reg, uint32_t value) {
    if (x2apic_on) {
        wrmsr(0x800 + reg / 16, value);
    } else {
        *(volatile uint32_t*)(APIC_MMIO + reg) = value;
    }
}

void apic_send(unsigned cpu, uint32_t command) {
    uint32_t id = cpu * 2;
    if (x2apic_on) {
        wrmsr(0x830, (uint64_t)id << 32 | command);
    } else {
        *(volatile uint32_t*)(APIC_MMIO + APIC_ICR + 0x10) = id << 24;
        *(volatile uint32_t*)(APIC_MMIO + APIC_ICR) = command;
        for (int i = 0; i < 1000 && (apic_read(APIC_ICR) & 0x1000) != 0; i++) {
            pause();
        }
    }
}

// ---- other CPUs -------------------------------------------------------------------------------

uint8_t ap_stacks[MAX_CPUS][AP_STACK_SIZE] __attribute__((aligned(16)));
uint64_t ap_stack_pointer;  // read by the start code
volatile unsigned cpus_finished;

static struct {
    volatile unsigned cpu;
    volatile bool running;
    void (*volatile function)(unsigned);
} starting;

void ap_main(void) __attribute__((noreturn));
void ap_entry32(void);
void ap_entry64(void);

__attribute__((used)) void ap_main(void) {
    unsigned cpu = starting.cpu;
    void (*function)(unsigned) = starting.function;
    trap_init_ap();
    barrier();
    starting.running = true;
    function(cpu);
    asm volatile("lock incl %0" : "+m"(cpus_finished));
    for (;;) {
        asm volatile("cli; hlt");
    }
}

static long initialise(unsigned cpu, enum start_method method) {
    static struct vcpu_hvm_context context;
    memset(&context, 0, sizeof(context));
    if (method == START_INITIALISE_32) {
        struct vcpu_hvm_x86_32* regs = &context.cpu_regs.x86_32;
        context.mode = VCPU_HVM_MODE_32B;
        regs->eip = (uint32_t)(unsigned long)ap_entry32;
        regs->cr0 = 0x11;
        regs->cs_limit = regs->ds_limit = regs->ss_limit = regs->es_limit = ~0u;
        regs->tr_limit = 0x67;
        regs->cs_ar = 0xc9b;
        regs->ds_ar = regs->ss_ar = regs->es_ar = 0xc93;
        regs->tr_ar = 0x8b;
    } else {
#ifdef __x86_64__
        struct vcpu_hvm_x86_64* regs = &context.cpu_regs.x86_64;
        unsigned long cr3;
        asm volatile("mov %%cr3, %0" : "=r"(cr3));
        context.mode = VCPU_HVM_MODE_64B;
        regs->rip = (unsigned long)ap_entry64;
        regs->rsp = ap_stack_pointer;
        regs->cr0 = 0x80000011;
        regs->cr3 = cr3;
        regs->cr4 = 0x20;
        regs->efer = 0x500;
#else
        return -ENOSYS;
#endif
    }
    return vcpu_op(VCPUOP_initialise, cpu, &context);
}

bool cpu_start(unsigned cpu, enum start_method method, void (*function)(unsigned cpu),
               long* result) {
    if (cpu >= MAX_CPUS) {
        return false;
    }
    starting.cpu = cpu;
    starting.running = false;
    starting.function = function;
    ap_stack_pointer = (unsigned long)ap_stacks[cpu] + AP_STACK_SIZE;
#if GUEST_PAGING == PAGING_PAE
    // Some emulators set the accessed bit in the top level's four entries, where it is reserved,
    // and a processor that then loads them faults. So each start gets entries of its own.
    extern uint64_t pdpt[4];
    extern uint32_t paging_root;
    static uint64_t roots[MAX_CPUS][4] __attribute__((aligned(32)));
    for (unsigned i = 0; i < 4; i++) {
        roots[cpu][i] = pdpt[i] & ~0x20ull;
    }
    paging_root = (uint32_t)roots[cpu];
#endif
    barrier();
    if (method == START_SIPI) {
        uint32_t page = (uint32_t)(unsigned long)trampoline >> 12;
        apic_send(cpu, 0x4500);  // INIT
        apic_send(cpu, 0x4600 | page);
        apic_send(cpu, 0x4600 | page);
    } else {
        long done = initialise(cpu, method);
        if (done == 0) {
            done = vcpu_op(VCPUOP_up, cpu, NULL);
        }
        if (result != NULL) {
            *result = done;
        }
        if (done != 0) {
            return false;
        }
    }
    return SPIN_UNTIL(starting.running, PATIENCE_MS);
}

void context_start(void* stack_end, void (*entry)(void)) {
    struct context fresh;
    context_save(&fresh);
    // The stack pointer and where to go (traps.S); as after a call, the stack is off by a word.
    unsigned long top = (unsigned long)stack_end - sizeof(long);
#ifdef __x86_64__
    fresh.slot[6] = top;
    fresh.slot[7] = (unsigned long)entry;
#else
    fresh.slot[4] = top;
    fresh.slot[5] = (unsigned long)entry;
#endif
    context_restore(&fresh, 1);
}
