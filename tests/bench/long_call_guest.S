// The guest of bench_long_calls: asks a port which call to make how often, makes it, and asks
// again. Registers are loaded for each call, for a call that was interrupted changes them.
#define TABLE 0x2000 /* kTable: rows of number, result, argument 1, argument 2 */

    .section .rodata
    .code64
    .globl bench_long_guest, bench_long_guest_trap, bench_long_guest_end
bench_long_guest:
    inl $0x10, %eax             // times << 8 | row
    movl %eax, %ecx
    shrl $8, %ecx
    movzbl %al, %ebp
    shll $5, %ebp
1:
    movl TABLE(%rbp), %eax
    movq TABLE + 16(%rbp), %rdi
    movq TABLE + 24(%rbp), %rsi
bench_long_guest_trap:
    ds outb %al, $0x7e          // or VMCALL or VMMCALL in its place
    movq %rax, TABLE + 8(%rbp)
    loop 1b
    jmp bench_long_guest
bench_long_guest_end:

    .section .note.GNU-stack, "", @progbits
