// Xen's public interface, from Debian's libxen-dev, and thin wrappers for its hypercalls.
#pragma once

#include "base.h"

// The headers are included as any guest would, so that what the guests assume about layouts does
// not come from the VMM that they test.
#define __XEN_INTERFACE_VERSION__ 0x00040e00
#include <xen/arch-x86/cpuid.h>
#include <xen/arch-x86/hvm/start_info.h>
#include <xen/event_channel.h>
#include <xen/features.h>
#include <xen/grant_table.h>
#include <xen/hvm/dm_op.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/hvm_vcpu.h>
#include <xen/hvm/params.h>
#include <xen/io/console.h>
#include <xen/io/xs_wire.h>
#include <xen/memory.h>
#include <xen/physdev.h>
#include <xen/sched.h>
#include <xen/vcpu.h>
#include <xen/version.h>
#include <xen/xen.h>

#undef EPERM
#define EPERM 1
#define ENOENT 2
#define ESRCH 3
#define ENXIO 6
#define E2BIG 7
#define ENOMEM 12
#define EACCES 13
#define EFAULT 14
#define EBUSY 16
#define EEXIST 17
#define ENODEV 19
#define EINVAL 22
#define ENOSPC 28
#define EDOM 33
#define ERANGE 34
#define ENOSYS 38
#define ENODATA 61
#define EOVERFLOW 75
#define EILSEQ 84
#define EOPNOTSUPP 95

extern uint8_t hypercall_page[4096];

// Runs the code at `stub` with the hypercall convention of this guest's mode. `ax` is what RAX
// holds there; the stubs of the hypercall page overwrite it with their number.
static inline long call_stub(const void* stub, unsigned long ax, unsigned long a1, unsigned long a2,
                             unsigned long a3, unsigned long a4, unsigned long a5) {
#ifdef __x86_64__
    register unsigned long r10 asm("r10") = a4;
    register unsigned long r8 asm("r8") = a5;
    register const void* target asm("r11") = stub;
    asm volatile("call *%6"
                 : "+a"(ax), "+D"(a1), "+S"(a2), "+d"(a3), "+r"(r10), "+r"(r8)
                 : "r"(target)
                 : "memory");
#else
    // All registers but EBP carry something; the target waits on the stack.
    asm volatile(
        "pushl %6\n\t"
        "call *(%%esp)\n\t"
        "leal 4(%%esp), %%esp"
        : "+a"(ax), "+b"(a1), "+c"(a2), "+d"(a3), "+S"(a4), "+D"(a5)
        : "m"(stub)
        : "memory");
#endif
    return (long)ax;
}

static inline long hypercall(unsigned nr, unsigned long a1, unsigned long a2, unsigned long a3,
                             unsigned long a4, unsigned long a5) {
    return call_stub(hypercall_page + nr * 32, 0, a1, a2, a3, a4, a5);
}

// Any number in RAX: enters a stub behind its MOV, at the instruction that traps.
static inline long raw_hypercall(unsigned long ax, unsigned long a1, unsigned long a2,
                                 unsigned long a3) {
    return call_stub(hypercall_page + 5, ax, a1, a2, a3, 0, 0);
}

// What a stop leaves in a call's registers is the call's, and the compiler's next push would keep
// it: right after a call that may stop, in a guest whose memory must be the same without the stop.
static inline __attribute__((always_inline)) long forget(long result) {
#ifdef __x86_64__
    asm volatile("xorl %%edi, %%edi; xorl %%esi, %%esi; xorl %%edx, %%edx" ::
                     : "rdi", "rsi", "rdx", "memory");
#else
    asm volatile(
        "xorl %%ebx, %%ebx; xorl %%ecx, %%ecx; xorl %%edx, %%edx; xorl %%esi, %%esi; "
        "xorl %%edi, %%edi" ::
            : "ebx", "ecx", "edx", "esi", "edi", "memory");
#endif
    return result;
}

#define ARG(x) ((unsigned long)(x))

static inline long memory_op(unsigned long cmd, const void* arg) {
    return hypercall(__HYPERVISOR_memory_op, cmd, ARG(arg), 0, 0, 0);
}

static inline long hvm_op(unsigned long cmd, const void* arg) {
    return hypercall(__HYPERVISOR_hvm_op, cmd, ARG(arg), 0, 0, 0);
}

static inline long evtchn_op(unsigned long cmd, const void* arg) {
    return hypercall(__HYPERVISOR_event_channel_op, cmd, ARG(arg), 0, 0, 0);
}

static inline long sched_op(unsigned long cmd, const void* arg) {
    return hypercall(__HYPERVISOR_sched_op, cmd, ARG(arg), 0, 0, 0);
}

static inline long vcpu_op(unsigned long cmd, unsigned long vcpu, const void* arg) {
    return hypercall(__HYPERVISOR_vcpu_op, cmd, vcpu, ARG(arg), 0, 0);
}

static inline long xen_version(unsigned long cmd, const void* arg) {
    return hypercall(__HYPERVISOR_xen_version, cmd, ARG(arg), 0, 0, 0);
}

static inline long grant_table_op(unsigned long cmd, const void* arg, unsigned long count) {
    return hypercall(__HYPERVISOR_grant_table_op, cmd, ARG(arg), count, 0, 0);
}

static inline long multicall(const void* list, unsigned long count) {
    return hypercall(__HYPERVISOR_multicall, ARG(list), count, 0, 0, 0);
}

static inline long console_io(unsigned long cmd, unsigned long count, const void* buffer) {
    return hypercall(__HYPERVISOR_console_io, cmd, count, ARG(buffer), 0, 0);
}

static inline long vm_assist(unsigned long cmd, unsigned long type) {
    return hypercall(__HYPERVISOR_vm_assist, cmd, type, 0, 0, 0);
}

static inline long physdev_op(unsigned long cmd, const void* arg) {
    return hypercall(__HYPERVISOR_physdev_op, cmd, ARG(arg), 0, 0, 0);
}

static inline long set_timer_op(uint64_t deadline) {
#ifdef __x86_64__
    return hypercall(__HYPERVISOR_set_timer_op, deadline, 0, 0, 0, 0);
#else
    return hypercall(__HYPERVISOR_set_timer_op, (uint32_t)deadline, (uint32_t)(deadline >> 32), 0,
                     0, 0);
#endif
}

static inline long yield(void) {
    return sched_op(SCHEDOP_yield, NULL);
}
