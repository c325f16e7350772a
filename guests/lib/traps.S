// Interrupt and exception entry, and the two halves of a non-local jump.

#include "layout.h"

// 256 entry points of 16 bytes each. All end with the same frame: struct trap_frame in cpu.h.
    .text
    .balign 16
    .globl trap_entries
trap_entries:
    .set vector, 0
    .rept 256
    .balign 16
    .if !((vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30))
    push $0
    .endif
#ifdef __x86_64__
    pushq $vector
#else
    pushl $vector
#endif
    jmp trap_common
    .set vector, vector + 1
    .endr

#ifdef __x86_64__
trap_common:
    pushq %rax
    pushq %rcx
    pushq %rdx
    pushq %rbx
    pushq %rbp
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, %rdi
    movq %rsp, %rbp
    andq $-16, %rsp
    cld
    call trap_dispatch
    movq %rbp, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rbp
    popq %rbx
    popq %rdx
    popq %rcx
    popq %rax
    addq $16, %rsp
    iretq

// int context_save(struct context *): 0 now, non-zero when context_restore() comes back here.
    .globl context_save
context_save:
    movq %rbx, 0(%rdi)
    movq %rbp, 8(%rdi)
    movq %r12, 16(%rdi)
    movq %r13, 24(%rdi)
    movq %r14, 32(%rdi)
    movq %r15, 40(%rdi)
    leaq 8(%rsp), %rax
    movq %rax, 48(%rdi)
    movq (%rsp), %rax
    movq %rax, 56(%rdi)
    pushfq
    popq 64(%rdi)
    xorl %eax, %eax
    ret

// void context_restore(struct context *, long value)
    .globl context_restore
context_restore:
    movq 0(%rdi), %rbx
    movq 8(%rdi), %rbp
    movq 16(%rdi), %r12
    movq 24(%rdi), %r13
    movq 32(%rdi), %r14
    movq 40(%rdi), %r15
    movq %rsi, %rax
    movq 48(%rdi), %rsp
    pushq 56(%rdi)
    pushq 64(%rdi)
    popfq
    ret

#else
trap_common:
    pushl %eax
    pushl %ecx
    pushl %edx
    pushl %ebx
    pushl %ebp
    pushl %esi
    pushl %edi
    movl %esp, %eax
    movl %esp, %ebp
    cld
    pushl %eax
    call trap_dispatch
    movl %ebp, %esp
    popl %edi
    popl %esi
    popl %ebp
    popl %ebx
    popl %edx
    // Not IRET: some hosts cannot execute it in 32-bit protected mode. Privilege never changes
    // here, so that the frame can be turned into one for POPF and RET: EIP moves into EFLAGS's
    // place, EFLAGS into CS's. The stack is now ECX EAX vector error EIP CS EFLAGS.
    movl 24(%esp), %eax
    movl 16(%esp), %ecx
    movl %eax, 20(%esp)
    movl %ecx, 24(%esp)
    popl %ecx
    popl %eax
    leal 12(%esp), %esp
    popfl
    ret

    .globl context_save
context_save:
    movl 4(%esp), %edx
    movl %ebx, 0(%edx)
    movl %ebp, 4(%edx)
    movl %esi, 8(%edx)
    movl %edi, 12(%edx)
    leal 4(%esp), %eax
    movl %eax, 16(%edx)
    movl (%esp), %eax
    movl %eax, 20(%edx)
    pushfl
    popl 24(%edx)
    xorl %eax, %eax
    ret

    .globl context_restore
context_restore:
    movl 8(%esp), %eax
    movl 4(%esp), %edx
    movl 0(%edx), %ebx
    movl 4(%edx), %ebp
    movl 8(%edx), %esi
    movl 12(%edx), %edi
    movl 16(%edx), %esp
    pushl 20(%edx)
    pushl 24(%edx)
    popfl
    ret
#endif

    .section .note.GNU-stack, "", @progbits
