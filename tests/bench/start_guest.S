// The guest of bench_start: reads the TSC in its first instruction, sends it as eight bytes over
// the PV console, and then sleeps for ever. With FILL_END, that of bench_blackout: before that it writes
// to each page from 2 MiB to there, so that none is all zero.
    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 4, 18                      // XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long _start

#define OUT 1024                        /* struct xencons_interface */
#define OUT_PROD 3084

    .text
    .code32
    .globl _start
_start:
    rdtsc
    movl %eax, %esi
    movl %edx, %edi
    movl $stack_end, %esp
#ifdef FILL_END
    movl $0x200000, %ebx
1:
    movl %ebx, (%ebx)
    addl $4096, %ebx
    cmpl $FILL_END, %ebx
    jb 1b
#endif
    movl $0x40000000, %ecx              // the hypercall page
    movl $hypercall_page, %eax
    xorl %edx, %edx
    wrmsr

    movl $17, parameter + 4             // HVM_PARAM_CONSOLE_PFN
    call get_parameter
    shll $12, %eax
    movl %esi, OUT(%eax)
    movl %edi, OUT + 4(%eax)
    movl $8, OUT_PROD(%eax)
    movl $18, parameter + 4             // HVM_PARAM_CONSOLE_EVTCHN
    call get_parameter
    movl %eax, port
    movl $4, %ebx                       // EVTCHNOP_send
    movl $port, %ecx
    call hypercall_page + 32 * 32       // event_channel_op
    sti
1:
    hlt
    jmp 1b

get_parameter:
    movl $1, %ebx                       // HVMOP_get_param
    movl $parameter, %ecx
    call hypercall_page + 34 * 32       // hvm_op
    movl parameter + 8, %eax
    ret

    .data
    .balign 8
parameter:
    .word 0x7ff0, 0                     // DOMID_SELF
    .long 0
    .quad 0
port:
    .long 0

    .bss
    .balign 4096
hypercall_page:
    .skip 4096
    .skip 256
stack_end:

    .section .note.GNU-stack, "", @progbits
