// The guest of bench_hypercalls, copied to kCode of both VMs: asks a port which call to make how
// often, makes it by a direct trap, and asks again. As few instructions as can be, for they cost
// the same in both VMs and only dilute the ratio.
#define TABLE 0x2000 /* kTable: rows of number, result, argument 1, argument 2 */

    .section .rodata
    .code64
    .globl bench_guest, bench_guest_trap, bench_guest_end
bench_guest:
    inl $0x10, %eax             // times << 8 | row
    movl %eax, %ecx
    shrl $8, %ecx
    movzbl %al, %ebp
    shll $5, %ebp
    movl TABLE(%rbp), %ebx
    movq TABLE + 16(%rbp), %rdi
    movq TABLE + 24(%rbp), %rsi
1:
    movl %ebx, %eax
bench_guest_trap:
    ds outb %al, $0x7e          // or VMCALL or VMMCALL in its place
    loop 1b
    movq %rax, TABLE + 8(%rbp)
    jmp bench_guest
bench_guest_end:

    .section .note.GNU-stack, "", @progbits
