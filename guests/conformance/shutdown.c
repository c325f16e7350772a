// Ends of a run. The command line says which; what the guest cannot check from inside (exit
// status, that nothing comes after the end) the case in tests/guest/cases does.
//
//   reason=N        SCHEDOP_shutdown(N)          code=N   SCHEDOP_shutdown_code(N) before that
//   cpus=N          with N CPUs running, which print nothing but must not outlive the shutdown
//   cli_hlt         all CPUs halt with interrupts off
//   vcpu_down       the only running CPU takes itself down
//   triple_fault    with an empty IDT
//   param37         the parameter whose value kills a domain on Xen
//   watchdog        SCHEDOP_watchdog, one second, and then nothing; with `hlt` before cli_hlt
//   burst=N         N bytes of console text just before the end
//   spin            never ends         flood   console output without end
//   inline          a hypercall instruction that is not in the hypercall page

#include "runtime.h"

static void idle_cpu(unsigned cpu) {
    for (;;) {
        pause();
    }
}

static void start_cpus(unsigned count) {
    apic_enable(x2apic_available());
    for (unsigned cpu = 1; cpu < count; cpu++) {
        if (!cpu_start(cpu, START_SIPI, idle_cpu, NULL)) {
            print("cpu %u did not start\n", cpu);
        }
    }
}

static void burst(unsigned size) {
    // Lines of 64 bytes with their own number, so that the reader can see what is missing.
    for (unsigned line = 0; line < size / 64; line++) {
        char text[80];
        format_to(text, sizeof(text), "%063u\n", line);
        console_write(text, 64);
    }
}

static void triple_fault(void) {
    struct {
        uint16_t limit;
        unsigned long base;
    } __attribute__((packed)) empty = {0, 0};
    asm volatile("lidt %0; ud2" ::"m"(empty));
}

void guest_main(void) {
    start_cpus((unsigned)option_number("cpus", 1));
    print("before the end\n");
    burst((unsigned)option_number("burst", 0));
    if (has_option("watchdog")) {
        struct sched_watchdog arg = {.id = 0, .timeout = (uint32_t)option_number("watchdog", 1)};
        long id = sched_op(SCHEDOP_watchdog, &arg);
        print("watchdog %ld\n", id);
        if (!has_option("cli_hlt")) {
            for (;;) {
                pause();
            }
        }
    }
    if (has_option("code")) {
        struct sched_shutdown arg = {(unsigned)option_number("code", 0)};
        print("shutdown_code %ld\n", sched_op(SCHEDOP_shutdown_code, &arg));
    }
    if (has_option("reason")) {
        struct sched_shutdown arg = {(unsigned)option_number("reason", 0)};
        sched_op(SCHEDOP_shutdown, &arg);
    } else if (has_option("cli_hlt")) {
        for (;;) {
            asm volatile("cli; hlt");
        }
    } else if (has_option("vcpu_down")) {
        vcpu_op(VCPUOP_down, 0, NULL);
    } else if (has_option("triple_fault")) {
        triple_fault();
    } else if (has_option("param37")) {
        set_param(37, 0);
    } else if (has_option("spin")) {
        for (;;) {
            pause();
        }
    } else if (has_option("flood")) {
        for (;;) {
            burst(2048);
        }
    } else if (has_option("inline")) {
        // For a while: where nothing catches these, the VMM must have time to notice.
        long result = 0;
        for (uint64_t end = tsc_after_ms(1500); rdtsc() < end;) {
            asm volatile(".byte 0x0f, 0x01, 0xc1"
                         : "=a"(result)
#ifdef __x86_64__
                         : "a"((long)__HYPERVISOR_sched_op), "D"(0l), "S"(0l)
#else
                         : "a"((long)__HYPERVISOR_sched_op), "b"(0l), "c"(0l)
#endif
                         : "memory");
        }
        print("inline hypercall: %ld\n", result);
        shutdown(SHUTDOWN_poweroff);
    }
    // No way to end leads here.
    print("AFTER THE END\n");
}
