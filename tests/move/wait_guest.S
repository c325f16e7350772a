// Copied to 0x10000: has its runstate shown where the word at 0x8030 says, makes one SCHEDOP_poll with
// the structure at 0x8000, and says how both ended.
    .section .rodata
    .code64
    .globl wait_guest, wait_guest_end
wait_guest:
    movq $1, 0x8028
    movl $24, %eax              // vcpu_op
    movl $5, %edi               // VCPUOP_register_runstate_memory_area
    xorl %esi, %esi
    movl $0x8030, %edx
    ds outb %al, $0x7e
    movq %rax, 0x8038
    movl $29, %eax              // sched_op
    movl $3, %edi               // SCHEDOP_poll
    movl $0x8000, %esi
    ds outb %al, $0x7e
    movq %rax, 0x8020
    outb %al, $0x33
1:
    hlt
    jmp 1b
wait_guest_end:
    .section .note.GNU-stack, "", @progbits
