// Hypercalls from a 32-bit code segment that does not begin at address 0.

#include "test.h"

#define SEL_BASED 0x40  // behind what the GDT has

// Calls the stub at `offset` of a segment whose base is based_code, and comes back.
uint32_t based_call(uint32_t offset);
extern uint8_t based_code[];
asm(".text\n"
    ".globl based_call, based_code\n"
    "based_call:\n"
#ifdef __x86_64__
    "    pushq %rbx\n    pushq %rbp\n"
    "    movq %rsp, based_stack\n"
    "    xorl %ebx, %ebx\n"  // XENVER_version
    "    pushq $0x40\n"      // SEL_BASED
    "    pushq $0\n"
    "    lretq\n"
#else
    "    pushl %ebx\n    pushl %edi\n"
    "    movl 12(%esp), %edi\n"
    "    xorl %ebx, %ebx\n"
    "    pushl $0x40\n"
    "    pushl $0\n"
    "    lretl\n"
#endif
    "    .code32\n"
    "based_code:\n"
    "    call *%edi\n"
#ifdef __x86_64__
    "    ljmp $24, $1f\n"  // SEL_CODE64
    "    .code64\n"
    "1:  movq based_stack, %rsp\n"
    "    popq %rbp\n    popq %rbx\n"
    "    ret\n"
    ".bss\n"
    ".balign 8\n"
    "based_stack: .skip 8\n"
#else
    "    ljmp $8, $1f\n"  // SEL_CODE32
    "1:  popl %edi\n    popl %ebx\n"
    "    ret\n"
#endif
    ".text\n");

static void based_segment(void) {
    static uint64_t table[SEL_BASED / 8 + 1];
    struct {
        uint16_t limit;
        uintptr_t base;
    } __attribute__((packed)) was, with = {sizeof(table) - 1, (uintptr_t)table};
    asm volatile("sgdt %0" : "=m"(was));
    CHECK(was.limit < SEL_BASED);
    memcpy(table, (void*)was.base, was.limit + 1u);
    const uint64_t base = (uintptr_t)based_code;
    table[SEL_BASED / 8] =
        0x00cf9b000000ffffull | (base & 0xffffff) << 16 | (base >> 24 & 0xff) << 56;
    asm volatile("lgdt %0" ::"m"(with));
    const uint32_t page = (uint32_t)(uintptr_t)hypercall_page - (uint32_t)base;
    const uint32_t version = based_call(page + __HYPERVISOR_xen_version * 32);
    const uint32_t unknown = based_call(page + 99 * 32);
    // And by the flat segment: the same stub has another offset there.
    const long flat = xen_version(XENVER_version, NULL);
    asm volatile("lgdt %0" ::"m"(was));
    expect("version", version, 0x40011);
    expect("unknown number", unknown, (uint32_t)-ENOSYS);
    expect_result("version by the flat segment", flat, 0x40011);
}

TESTS({"c6.2.based_segment", based_segment});
