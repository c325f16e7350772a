// Numbers that assembly and C must agree on.
#pragma once

#define PAGING_NONE 0
#define PAGING_PSE 1
#define PAGING_PAE 2
#define PAGING_LONG 3

#define SEL_CODE32 0x08
#define SEL_DATA 0x10
#define SEL_CODE64 0x18
#define SEL_USER_DATA 0x20
#define SEL_USER_CODE64 0x28
#define SEL_TSS 0x30

#define MAX_CPUS 4
#define BOOT_STACK_SIZE 16384
#define AP_STACK_SIZE 8192

// A hole in every paged variant's address space, and (in a guest of ordinary size) a hole in
// the physical one too, so that an unpaged guest has an unreadable address as well.
#define UNMAPPED_VA 0xd0000000
// A second one, which map_alias() fills.
#define ALIAS_VA 0xc8000000
