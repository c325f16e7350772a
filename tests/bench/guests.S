// The guests of the benchmarks of hypercalls, copied to kCode: each asks a port which call to make
// how often, makes it, and asks again.
#define TABLE 0x2000 /* kTable: rows of number, result, arguments */

    .section .rodata
    .code64

    // ECX: how often; RBP: the row's offset
    .macro ask
    inl $0x10, %eax             // times << 8 | row
    movl %eax, %ecx
    shrl $8, %ecx
    movzbl %al, %ebp
    shll $6, %ebp
    .endm

    .macro load_arguments
    movq TABLE + 16(%rbp), %rdi
    movq TABLE + 24(%rbp), %rsi
    movq TABLE + 32(%rbp), %rdx
    .endm

    .macro keep_result
    movq %rax, TABLE + 8(%rbp)
    .endm

// As few instructions as can be, for they cost the same in both VMs and only dilute the ratio.
    .globl bench_block_guest, bench_block_guest_trap, bench_block_guest_end
bench_block_guest:
    ask
    movl TABLE(%rbp), %ebx
    load_arguments
1:
    movl %ebx, %eax
bench_block_guest_trap:
    ds outb %al, $0x7e          // or VMCALL or VMMCALL in its place
    loop 1b
    keep_result
    jmp bench_block_guest
bench_block_guest_end:

// Registers are loaded for each call, for a call that was interrupted changes them.
    .globl bench_reload_guest, bench_reload_guest_trap, bench_reload_guest_end
bench_reload_guest:
    sti                         // an event stops none of its calls else
    ask
1:
    movl TABLE(%rbp), %eax
    load_arguments
bench_reload_guest_trap:
    ds outb %al, $0x7e          // as above
    keep_result
    loop 1b
    jmp bench_reload_guest
bench_reload_guest_end:

    .section .note.GNU-stack, "", @progbits
