// From the loader's 32-bit entry to C, and from a starting CPU's real mode to C.
//
// The build defines GUEST_PAGING; everything else follows from it. All variants are entered in
// 32-bit protected mode without paging.

#include "layout.h"

#ifndef GUEST_NO_NOTE
    .section .note.Xen, "a", @note
    .balign 4
    .long 4
    .long 2f - 1f
    .long 18                            // XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
1:
    .long guest_entry
#if GUEST_PAGING == PAGING_LONG
    .long 0                             // both lengths of this note are in use; we use both
#endif
2:
    .balign 4
#endif

// ---------------------------------------------------------------------------------------------
    .section .text.entry, "ax"
    .code32
    .globl guest_entry
guest_entry:
    // Record what we were given before anything changes it.
    movl %eax, entry_state + 0
    movl %ebx, entry_state + 4
    movl %ecx, entry_state + 8
    movl %edx, entry_state + 12
    movl %esi, entry_state + 16
    movl %edi, entry_state + 20
    movl %ebp, entry_state + 24
    movl %esp, entry_state + 28
    movl $boot_stack + BOOT_STACK_SIZE, %esp
    pushfl
    popl entry_state + 32
    movl %cr0, %eax
    movl %eax, entry_state + 36
    movl %cr2, %eax
    movl %eax, entry_state + 40
    movl %cr3, %eax
    movl %eax, entry_state + 44
    movl %cr4, %eax
    movl %eax, entry_state + 48
    movl $0xc0000080, %ecx
    rdmsr
    movl %eax, entry_state + 52
    movl %edx, entry_state + 56
    movl %dr6, %eax
    movl %eax, entry_state + 60
    movl %dr7, %eax
    movl %eax, entry_state + 64
    movw %cs, entry_state + 68
    movw %ds, entry_state + 70
    movw %es, entry_state + 72
    movw %ss, entry_state + 74
    movw %fs, entry_state + 76
    movw %gs, entry_state + 78
    sldt %ax
    movw %ax, entry_state + 80
    str %ax
    movw %ax, entry_state + 82
    sgdtl entry_state + 84
    sidtl entry_state + 92

    lgdtl gdt_pointer
    movw $SEL_DATA, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    ljmpl $SEL_CODE32, $1f
1:
    call enable_paging
#if GUEST_PAGING == PAGING_LONG
    ljmpl $SEL_CODE64, $1f
    .code64
1:
    // R8 to R15 have been out of reach until now and are still as they were.
    movq %r8, entry_r8_to_r15 + 0
    movq %r9, entry_r8_to_r15 + 8
    movq %r10, entry_r8_to_r15 + 16
    movq %r11, entry_r8_to_r15 + 24
    movq %r12, entry_r8_to_r15 + 32
    movq %r13, entry_r8_to_r15 + 40
    movq %r14, entry_r8_to_r15 + 48
    movq %r15, entry_r8_to_r15 + 56
    movl $boot_stack + BOOT_STACK_SIZE, %esp
#endif
    xorl %ebp, %ebp
    call runtime_start
    // runtime_start does not return.

// ---------------------------------------------------------------------------------------------
// A started CPU, in real mode, at the physical address of the trampoline.
    .section .trampoline, "ax"
    .code16
    .globl trampoline
    .balign 4096
trampoline:
    cli
    movw %cs, %ax
    movw %ax, %ds
    lgdtl trampoline_gdt_pointer - trampoline
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    ljmpl $SEL_CODE32, $ap_from_real_mode
    .balign 8
// Real mode reaches only the trampoline's own 64 KiB.
trampoline_gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt

// ---------------------------------------------------------------------------------------------
// A started CPU in 32-bit protected mode; ap_entry32 is also the target of VCPUOP_initialise in
// 32-bit mode, with flat segments but without our GDT.
    .text
    .code32
ap_from_real_mode:
    movw $SEL_DATA, %ax                 // until here, data segments end at 64 KiB
    movw %ax, %ds
    .globl ap_entry32
ap_entry32:
    lgdtl gdt_pointer
    movw $SEL_DATA, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    ljmpl $SEL_CODE32, $1f
1:
    movl ap_stack_pointer, %esp
    call enable_paging
#if GUEST_PAGING == PAGING_LONG
    ljmpl $SEL_CODE64, $ap_entry64
    .code64
    .globl ap_entry64
ap_entry64:
    // VCPUOP_initialise in 64-bit mode comes here without our GDT.
    lgdt gdt_pointer
    movl $SEL_DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movq ap_stack_pointer, %rsp
    pushq $SEL_CODE64
    leaq 1f(%rip), %rax
    pushq %rax
    lretq
1:
#endif
    xorl %ebp, %ebp
    call ap_main

// ---------------------------------------------------------------------------------------------
    .code32
enable_paging:
#if GUEST_PAGING == PAGING_PSE
    movl %cr4, %eax
    orl $0x10, %eax
    movl %eax, %cr4
    movl $page_directory, %eax
    movl %eax, %cr3
    movl %cr0, %eax
    orl $0x80000000, %eax
    movl %eax, %cr0
#elif GUEST_PAGING == PAGING_PAE
    movl %cr4, %eax
    orl $0x20, %eax
    movl %eax, %cr4
    movl paging_root, %eax
    movl %eax, %cr3
    movl %cr0, %eax
    orl $0x80000000, %eax
    movl %eax, %cr0
#elif GUEST_PAGING == PAGING_LONG
    movl %cr4, %eax
    orl $0x20, %eax
    movl %eax, %cr4
    movl $pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl %cr0, %eax
    orl $0x80000000, %eax
    movl %eax, %cr0
#endif
    ret

// ---------------------------------------------------------------------------------------------
    .data
    .balign 8
    .globl gdt
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff            // 32-bit code
    .quad 0x00cf93000000ffff            // data
    .quad 0x00af9b000000ffff            // 64-bit code
    .quad 0x00cff3000000ffff            // user data
    .quad 0x00affb000000ffff            // user 64-bit code
    .globl gdt_tss
gdt_tss:
    .quad 0, 0                          // filled in by trap_init()
gdt_end:
    .balign 8
    .globl gdt_pointer
gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt, 0

// Page tables: all of the first 4 GiB onto itself in large pages, user-accessible (a test runs
// code in ring 3), except page 0, which is left out so that NULL faults, UNMAPPED_VA and
// ALIAS_VA. They are data, not made at run time: copying 16 KiB costs the loader nothing, and a
// slow interpreted guest two thousand stores.
    .balign 4096
#if GUEST_PAGING == PAGING_LONG || GUEST_PAGING == PAGING_PAE
#if GUEST_PAGING == PAGING_LONG
    .globl pml4
pml4:
    .long pdpt + 7, 0
    .fill 511, 8, 0
pdpt:
    .long page_directory + 0x0007, 0
    .long page_directory + 0x1007, 0
    .long page_directory + 0x2007, 0
    .long page_directory + 0x3007, 0
    .globl spare_pdpt_entry
spare_pdpt_entry:
    .fill 508, 8, 0
#else
    .globl pdpt
pdpt:
    .long page_directory + 0x0001, 0
    .long page_directory + 0x1001, 0
    .long page_directory + 0x2001, 0
    .long page_directory + 0x3001, 0
    .globl paging_root
paging_root:
    .long pdpt
    .balign 4096
#endif
    .globl page_directory
page_directory:
    .long page_table + 7, 0
    .set address, 0x200000
    .rept 2047
    .if (address == UNMAPPED_VA) || (address == ALIAS_VA)
    .long 0, 0
    .else
    .long address + 0xe7, 0
    .endif
    .set address, address + 0x200000
    .endr
    .globl page_table
page_table:
    .long 0, 0
    .set address, 0x1000
    .rept 511
    .long address + 0x67, 0
    .set address, address + 0x1000
    .endr
#elif GUEST_PAGING == PAGING_PSE
    .globl page_directory
page_directory:
    .long page_table + 7
    .set address, 0x400000
    .rept 1023
    .if (address == UNMAPPED_VA) || (address == ALIAS_VA)
    .long 0
    .else
    .long address + 0xe7
    .endif
    .set address, address + 0x400000
    .endr
    .globl page_table
page_table:
    .long 0
    .set address, 0x1000
    .rept 1023
    .long address + 0x67
    .set address, address + 0x1000
    .endr
#endif

    .bss
    .balign 16
boot_stack:
    .skip BOOT_STACK_SIZE

    .section .note.GNU-stack, "", @progbits
