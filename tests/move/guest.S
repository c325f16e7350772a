// The guest of vcpu_move, copied to kCode: keeps its running sums in as many places of a CPU as
// there are, talks to a few devices all the time, takes timer interrupts, has another CPU at work if
// it shall, and says what it found. Where things are: guest.h. No instruction here is one that
// kvm_pvm's emulator lacks.
#include "tests/move/guest.h"

    .section .rodata
    .code64
    .globl move_guest, move_guest_timer, move_guest_fault, move_guest_end

#define X2APIC(offset) (0x800 + ((offset) >> 4))

    .macro write_msr index, high, low
    movl $\index, %ecx
    movl $\low, %eax
    movl $\high, %edx
    wrmsr
    .endm

    .macro check_msr index, high, low
    movl $\index, %ecx
    rdmsr
    cmpl $\low, %eax
    jne 90f
    cmpl $\high, %edx
    jne 90f
    .endm

    .macro check_debug register, value
    movq %\register, %rax
    cmpq $\value, %rax
    jne 90f
    .endm

    .macro load_debug register, value
    movq $\value, %rax
    movq %rax, %\register
    .endm

move_guest:
    movq $STACK_TOP, %rsp
    lgdt move_guest_gdtr(%rip)
    lidt move_guest_idtr(%rip)
    pushq $8
    leaq 1f(%rip), %rax
    pushq %rax
    lretq
1:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss

    // What nothing changes from here on.
    write_msr 0xc0000082, 0xffffffff, 0x81234560    // LSTAR
    write_msr 0xc0000102, 0xffff8880, 0x0badcafe    // KERNEL_GS_BASE
    write_msr 0xc0000100, 0x00007f12, 0x3456789a    // FS_BASE
    write_msr 0x176, 0, 0x7abcdef0                  // SYSENTER_EIP: AMD's has 32 bits
    write_msr 0x277, 0x00070106, 0x00070406         // PAT
    load_debug db0, 0x1111
    load_debug db1, 0x2222
    load_debug db2, 0x3333
    load_debug db3, 0x4444
    fxrstor64 FX_LOADED

    movl $0x1b, %ecx                // x2APIC
    rdmsr
    orl $0xc00, %eax
    wrmsr
    write_msr X2APIC(0xf0), 0, 0x1ff    // on
    write_msr X2APIC(0x80), 0, 0x10     // TPR: all the vectors that we use are above
    write_msr X2APIC(0x3e0), 0, 0xb     // the timer counts each tick

    cmpl $0, USE_AP
    je 1f
    write_msr X2APIC(0x300), AP_ID, 0x4500          // INIT
    inl $PORT_TIMER, %eax                           // and a stop, if there is to be one
    write_msr X2APIC(0x300), AP_ID, 0x4600 | (AP_CODE >> 12)
1:
    call arm
    sti

    // r8 to r15: sums; rbx: rounds done
    xorl %ebx, %ebx
    movq $0x123456789, %r8
    movq %r8, %r9
    movq %r8, %r10
    movq %r8, %r11
    movq %r8, %r12
    movq %r8, %r13
    movq %r8, %r14
    movq %r8, %r15
round:
    inl $PORT_NUMBER, %eax              // each answer is another number
    addq %rax, %r8
    imulq $0x5851f42d, %r9, %r9
    addq %r8, %r9
    rolq $13, %r10
    xorq %r9, %r10
    addq %r10, %r11
    subq %r11, %r12
    rorq $7, %r13
    addq %r12, %r13
    xorq %r13, %r14
    leaq (%r15,%r14,2), %r15

    movq %r15, BYTES                    // a string, in several exits or one
    movl $BYTES, %esi
    movl $8, %ecx
    movl $PORT_BYTES, %edx
    cld
    rep outsb
    movl $BYTES, %edi                   // and one that is read
    movl $6, %ecx
    rep insb
    addq BYTES, %r9

    movq %r9, MMIO + 0xffc              // spans two pages: two exits
    addl MMIO + 0x10, %r11d

    incq %rbx
    movq %rbx, ROUNDS
    testl $7, %ebx
    jnz 1f
    call check
1:
    cmpq %rbx, ROUNDS_WANTED
    jne round

    // Asleep until there were enough interrupts.
1:
    cli
    movq TICKS, %rax
    cmpq TICKS_WANTED, %rax
    jae 1f
    movl $1, ASLEEP
    sti
    hlt
    jmp 1b
1:
    write_msr X2APIC(0x320), 0, 0x10000 // the timer's vector: masked
    sti
    call check
    cmpl $0, USE_AP
    je 1f
    movl AP_COUNT, %ecx                 // the other one is still at it
2:
    pause
    movl AP_COUNT, %eax
    subl %ecx, %eax
    cmpl $16, %eax
    jb 2b
1:
    movq %r8, SUMS
    movq %r9, SUMS + 8
    movq %r10, SUMS + 16
    movq %r11, SUMS + 24
    movq %r12, SUMS + 32
    movq %r13, SUMS + 40
    movq %r14, SUMS + 48
    movq %r15, SUMS + 56
    outb %al, $PORT_END
1:
    hlt
    jmp 1b

// Sets the timer for its next interrupt, or for all of them. Uses rax, rcx, rdx.
arm:
    movl TIMER, %eax
    cmpl $TIMER_ONE_SHOT, %eax
    je 1f
    cmpl $TIMER_PERIODIC, %eax
    je 2f
    cmpl $TIMER_DEADLINE, %eax
    je 3f
    ret
1:
    incl ARMED
    write_msr X2APIC(0x320), 0, TIMER_VECTOR
    jmp 4f
2:
    write_msr X2APIC(0x320), 0, 0x20000 | TIMER_VECTOR
4:
    movl $X2APIC(0x380), %ecx
    movl TIMER_NS, %eax
    xorl %edx, %edx
    wrmsr
    ret
3:
    incl ARMED
    write_msr X2APIC(0x320), 0, 0x40000 | TIMER_VECTOR
    rdtsc
    addl TIMER_TICKS, %eax
    adcl $0, %edx
    movl $0x6e0, %ecx
    wrmsr
    ret

move_guest_timer:
    pushq %rax
    pushq %rcx
    pushq %rdx
    incq TICKS
    movl $0, ASLEEP
    cmpl $TIMER_PERIODIC, TIMER
    je 2f
    decl ARMED
    jns 2f
    incl UNASKED                        // nobody had armed it
    movl $0, ARMED
2:
    // Whoever saves a CPU here finds a timer that has expired.
    inl $PORT_TIMER, %eax
    addq %rax, TIMER_SUM
    cmpl $TIMER_PERIODIC, TIMER
    je 1f
    cmpl $0, ARMED
    jne 1f
    movq TICKS, %rax
    cmpq TICKS_WANTED, %rax
    jae 1f
    call arm
1:
    write_msr X2APIC(0xb0), 0, 0        // EOI
    popq %rdx
    popq %rcx
    popq %rax
    iretq

// Where everything is that nothing changes. Uses rax, rcx, rdx, rsi, rdi.
check:
    check_msr 0xc0000082, 0xffffffff, 0x81234560
    check_msr 0xc0000102, 0xffff8880, 0x0badcafe
    check_msr 0xc0000100, 0x00007f12, 0x3456789a
    check_msr 0x176, 0, 0x7abcdef0
    check_msr 0x277, 0x00070106, 0x00070406
    check_msr X2APIC(0xf0), 0, 0x1ff
    check_msr X2APIC(0x80), 0, 0x10
    check_debug db0, 0x1111
    check_debug db1, 0x2222
    check_debug db2, 0x3333
    check_debug db3, 0x4444
    fxsave64 FX_FOUND
    xorl %esi, %esi
1:
    // All but the last instruction's addresses, which CPUs keep as they like, and MXCSR's mask,
    // which is theirs.
    leal -8(%esi), %eax
    cmpl $16, %eax
    jbe 2f
    movq FX_LOADED(%rsi), %rax
    cmpq FX_FOUND(%rsi), %rax
    jne 90f
2:
    addl $8, %esi
    cmpl $416, %esi
    jne 1b
    movl FX_LOADED + 24, %eax           // MXCSR
    cmpl FX_FOUND + 24, %eax
    jne 90f
    rdtsc
    shlq $32, %rdx
    orq %rdx, %rax
    cmpq LAST_TSC, %rax
    jb 90f
    movq %rax, LAST_TSC
    incq CHECKS
    ret
90:
    incq WRONG
    movl %ecx, WRONG_MSR
    movl %esi, WRONG_FX
    ret

move_guest_fault:
    popq %rax                           // an address, or an error code and that
    popq %rdx
    movq %rax, SUMS
    movq %rdx, SUMS + 8
    movq $0xfa17, WRONG
    outb %al, $PORT_END
1:
    cli
    hlt
    jmp 1b

    .balign 8
move_guest_gdtr:
    .word 23
    .quad GDT
move_guest_idtr:
    .word 4095
    .quad IDT
move_guest_end:

// Copied to AP_CODE: the other CPU.
    .globl move_guest_ap, move_guest_ap_end
    .code16
move_guest_ap:
    xorw %ax, %ax
    movw %ax, %ds
1:
    lock incl AP_COUNT
    jmp 1b
move_guest_ap_end:

    .section .note.GNU-stack, "", @progbits
