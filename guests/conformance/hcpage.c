// The hypercall page and its calling conventions (elf-boot-contract.md 6.2).

#include "test.h"

#define BIT_32 ((unsigned long)(1ull << 32))

static uint32_t page_msr(void) {
    return cpuid(xen_base + 2, 0).ebx;
}

// VMCALL, VMMCALL, or the portable transport's OUT: three bytes each, so that a saved RIP is good
// on any host.
static bool is_trap(const uint8_t* p) {
    return memcmp(p, "\x0f\x01\xc1", 3) == 0 || memcmp(p, "\x0f\x01\xd9", 3) == 0 ||
           memcmp(p, "\x3e\xe6\x7e", 3) == 0;
}

static void stub_bytes(void) {
    CHECK(hypercall_page[0] != 0xc3);
    for (unsigned n = 0; n < 128; n++) {
        const uint8_t* stub = hypercall_page + n * 32;
        if (n == __HYPERVISOR_iret) {
            continue;  // UD2 on Xen, an ordinary stub on KVM's page
        }
        if (stub[0] != 0xb8 || stub[1] != n || stub[2] != 0 || stub[3] != 0 || stub[4] != 0) {
            FAIL("stub %u begins %02x %02x %02x %02x %02x", n, stub[0], stub[1], stub[2], stub[3],
                 stub[4]);
        }
        if (!is_trap(stub + 5) || stub[8] != 0xc3) {
            FAIL("stub %u goes on %02x %02x %02x %02x", n, stub[5], stub[6], stub[7], stub[8]);
        }
    }
}

static void whole_page(void) {
    for (unsigned n = 0; n < 128; n++) {
        for (unsigned i = 9; i < 32; i++) {
            if (n != __HYPERVISOR_iret && hypercall_page[n * 32 + i] != 0xcc) {
                FAIL("byte %u of stub %u is 0x%02x", i, n, hypercall_page[n * 32 + i]);
            }
        }
    }
}

// ---- registers --------------------------------------------------------------------------------

#ifdef __x86_64__
uint64_t kept_in[16], kept_out[16];
#endif

static void registers_kept(void) {
#ifdef __x86_64__
    for (unsigned i = 0; i < 16; i++) {
        kept_in[i] = 0x1111111111111111ul * i;
    }
    kept_in[5] = XENVER_version;  // RDI
    // RAX is the stub's, RSP shows itself by our coming back.
    asm volatile(
        "push %%rbp\n\t"
        "mov kept_in + 8, %%rbx; mov kept_in + 16, %%rcx; mov kept_in + 24, %%rdx\n\t"
        "mov kept_in + 32, %%rsi; mov kept_in + 40, %%rdi; mov kept_in + 48, %%rbp\n\t"
        "mov kept_in + 64, %%r8; mov kept_in + 72, %%r9; mov kept_in + 80, %%r10\n\t"
        "mov kept_in + 88, %%r11; mov kept_in + 96, %%r12; mov kept_in + 104, %%r13\n\t"
        "mov kept_in + 112, %%r14; mov kept_in + 120, %%r15\n\t"
        "call hypercall_page + 17 * 32\n\t"
        "mov %%rax, kept_out; mov %%rbx, kept_out + 8; mov %%rcx, kept_out + 16\n\t"
        "mov %%rdx, kept_out + 24; mov %%rsi, kept_out + 32; mov %%rdi, kept_out + 40\n\t"
        "mov %%rbp, kept_out + 48; mov %%r8, kept_out + 64; mov %%r9, kept_out + 72\n\t"
        "mov %%r10, kept_out + 80; mov %%r11, kept_out + 88; mov %%r12, kept_out + 96\n\t"
        "mov %%r13, kept_out + 104; mov %%r14, kept_out + 112; mov %%r15, kept_out + 120\n\t"
        "pop %%rbp"
        :
        :
        : "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
          "r15", "memory", "cc");
    expect("RAX", kept_out[0], 0x40011);
    for (unsigned i = 1; i < 16; i++) {
        if (i != 7 && kept_out[i] != kept_in[i]) {
            FAIL("register %u became 0x%llx", i, (unsigned long long)kept_out[i]);
        }
    }
#else
    const uint8_t* stub = hypercall_page + __HYPERVISOR_xen_version * 32;
    unsigned long ax = 0, bx = XENVER_version, cx = 0x2222, dx = 0x3333, si = 0x4444, di = 0x5555;
    asm volatile("call *%%eax"
                 : "=a"(ax), "+b"(bx), "+c"(cx), "+d"(dx), "+S"(si), "+D"(di)
                 : "0"(stub)
                 : "memory");
    expect("EAX", ax, 0x40011);
    expect("EBX", bx, XENVER_version);
    expect("ECX", cx, 0x2222);
    expect("EDX", dx, 0x3333);
    expect("ESI", si, 0x4444);
    expect("EDI", di, 0x5555);
#endif
}

static void flags_kept(void) {
    unsigned long before, after;
    // Carry and direction set, as code in the middle of something may have them.
#ifdef __x86_64__
    unsigned long di = XENVER_version;
    asm volatile(
        "stc; std; pushfq; pop %0\n\t"
        "call hypercall_page + 17 * 32\n\t"
        "pushfq; pop %1; cld"
        : "=&b"(before), "=&r"(after), "+D"(di)
        :
        : "rax", "rsi", "rcx", "rdx", "r8", "r10", "r11", "memory", "cc");
#else
    unsigned long bx = XENVER_version;
    asm volatile(
        "stc; std; pushfl; popl %0\n\t"
        "call hypercall_page + 17 * 32\n\t"
        "pushfl; popl %1; cld"
        : "=&S"(before), "=&D"(after), "+b"(bx)
        :
        : "eax", "ecx", "edx", "memory", "cc");
#endif
    expect("flags", after, before);
}

static void unknown_number(void) {
    long result = hypercall(99, 0, 0, 0, 0, 0);
    expect_result("hypercall 99", result, -ENOSYS);
    expect_result("hypercall 127", hypercall(127, 0, 0, 0, 0, 0), -ENOSYS);
    expect_result("number 0x7fffffff", raw_hypercall(0x7fffffff, 0, 0, 0), -ENOSYS);
#ifdef __x86_64__
    // All 64 bits of RAX count.
    expect_result("number 1 << 32 | 17", raw_hypercall(BIT_32 | 17, 0, 0, 0), -ENOSYS);
#endif
}

// ---- other places -----------------------------------------------------------------------------

static uint8_t second_page[4096] __attribute__((aligned(4096)));

static void through_an_alias(void) {
    uint8_t* alias = map_alias((uintptr_t)hypercall_page);
    if (alias == NULL) {
        SKIP("no paging");
    }
    expect_result("version by the alias", call_stub(alias + 17 * 32, 0, XENVER_version, 0, 0, 0, 0),
                  0x40011);
}

static void requested_again(void) {
    memset(second_page, 0xc3, 64);
    wrmsr(page_msr(), (uintptr_t)second_page);
    CHECK(memcmp(second_page, hypercall_page, 96) == 0);
    expect_result("version by the second page",
                  call_stub(second_page + 17 * 32, 0, XENVER_version, 0, 0, 0, 0), 0x40011);
    expect_result("version by the first", xen_version(XENVER_version, NULL), 0x40011);
    // And the first place once more.
    wrmsr(page_msr(), (uintptr_t)hypercall_page);
    expect_result("version", xen_version(XENVER_version, NULL), 0x40011);
}

static void moved_by_hand(void) {
    // A copy of a stub works as well as the page does.
    static uint8_t copy[32];
    memcpy(copy, hypercall_page + 17 * 32, 32);
    expect_result("version by a copy", call_stub(copy, 0, XENVER_version, 0, 0, 0, 0), 0x40011);
}

struct msr_access {
    uint32_t index;
    bool write;
    uint64_t value;
};

static void access_msr(void* argument) {
    struct msr_access* access = argument;
    if (access->write) {
        wrmsr(access->index, access->value);
    } else {
        access->value = rdmsr(access->index);
    }
}

static int msr_trap(uint32_t index, bool write, uint64_t value) {
    struct msr_access access = {index, write, value};
    return catch_trap(access_msr, &access).vector;
}

static void bad_addresses(void) {
    uint64_t page = (uintptr_t)second_page;
    memset(second_page, 0, 16);
    expect("vector for page index 1", (unsigned)msr_trap(page_msr(), true, page | 1), TRAP_GP);
    expect("vector for page index 0xfff", (unsigned)msr_trap(page_msr(), true, page | 0xfff),
           TRAP_GP);
    expect("first byte of the page that was refused", second_page[0], 0);
    expect("vector for a hole", (unsigned)msr_trap(page_msr(), true, 0x7fff0000), TRAP_GP);
    expect("vector above all memory", (unsigned)msr_trap(page_msr(), true, 1ull << 51), TRAP_GP);
    expect_result("version, still", xen_version(XENVER_version, NULL), 0x40011);
}

static void other_msrs(void) {
    expect("reading it", rdmsr(page_msr()), 0);
    expect("writing the next", (unsigned)msr_trap(0x40000001, true, 0), TRAP_GP);
    expect("reading the next", (unsigned)msr_trap(0x40000001, false, 0), TRAP_GP);
    expect("reading 0x40000200", (unsigned)msr_trap(0x40000200, false, 0), TRAP_GP);
}

// ---- a 64-bit guest in a 32-bit code segment --------------------------------------------------

#ifdef __x86_64__
struct compat_registers {
    uint64_t bx, cx, dx, si, di, ax, target;
};
void compat_call(struct compat_registers*);
extern uint8_t compat_wrmsr[];

// Goes to a 32-bit code segment, calls `target` there with the given registers, and comes back.
asm(".text\n"
    ".globl compat_call\n"
    "compat_call:\n"
    "    pushq %rbx\n    pushq %rbp\n    pushq %r12\n    pushq %r13\n    pushq %r14\n"
    "    pushq %r15\n"
    "    movq %rdi, compat_argument\n"
    "    movq %rsp, compat_stack\n"
    "    movq 48(%rdi), %rax\n"
    "    movq %rax, compat_target\n"
    "    movq 0(%rdi), %rbx\n"
    "    movq 8(%rdi), %rcx\n"
    "    movq 16(%rdi), %rdx\n"
    "    movq 24(%rdi), %rsi\n"
    "    movq 40(%rdi), %rax\n"
    "    movq 32(%rdi), %rdi\n"
    "    pushq $8\n"  // SEL_CODE32
    "    pushq $1f\n"
    "    lretq\n"
    "    .code32\n"
    "1:  call *compat_target\n"
    "    ljmp $24, $2f\n"  // SEL_CODE64
    "compat_wrmsr:\n"
    "    wrmsr\n"
    "    ret\n"
    "    .code64\n"
    "2:  movq compat_stack, %rsp\n"
    "    movq %rdi, %r11\n"
    "    movq compat_argument, %rdi\n"
    "    movq %rbx, 0(%rdi)\n"
    "    movq %rcx, 8(%rdi)\n"
    "    movq %rdx, 16(%rdi)\n"
    "    movq %rsi, 24(%rdi)\n"
    "    movq %r11, 32(%rdi)\n"
    "    movq %rax, 40(%rdi)\n"
    "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbp\n"
    "    popq %rbx\n"
    "    ret\n"
    ".bss\n"
    ".balign 8\n"
    "compat_argument: .skip 8\n"
    "compat_stack: .skip 8\n"
    "compat_target: .skip 8\n"
    ".text\n");

#define GARBAGE 0xdeadbeef00000000ul

static uint32_t compat_hypercall(unsigned nr, uint32_t a1, uint32_t a2, uint32_t a3) {
    struct compat_registers r = {GARBAGE | a1,
                                 GARBAGE | a2,
                                 GARBAGE | a3,
                                 GARBAGE,
                                 GARBAGE,
                                 GARBAGE,
                                 (uintptr_t)hypercall_page + nr * 32};
    compat_call(&r);
    return (uint32_t)r.ax;
}
#endif

static void compat_version(void) {
#ifdef __x86_64__
    expect("version", compat_hypercall(17, XENVER_version, 0, 0), 0x40011);
    expect("unknown number", compat_hypercall(99, 0, 0, 0), (uint32_t)-ENOSYS);
#else
    SKIP("this guest has no 64-bit mode to come from");
#endif
}

static void compat_layouts(void) {
#ifdef __x86_64__
    // memory_map: 8 bytes with a pointer of 4, against 16 with one of 8.
    static struct { uint32_t count, buffer; } map;
    static uint32_t entries[5 * 16];
    map.count = 16;
    map.buffer = (uint32_t)(uintptr_t)entries;
    expect("memory_map", compat_hypercall(12, XENMEM_memory_map, (uint32_t)(uintptr_t)&map, 0), 0);
    CHECK(map.count != 0 && map.count <= 16);
    expect("first entry's type", entries[4], XEN_HVM_MEMMAP_TYPE_RAM);

    // add_to_physmap: idx and gpfn of 4 bytes.
    static struct {
        uint16_t domid, size;
        uint32_t space, idx, gpfn;
    } add;
    add.domid = DOMID_SELF;
    add.space = XENMAPSPACE_shared_info;
    add.gpfn = (uint32_t)((uintptr_t)shared_info_page / PAGE_SIZE);
    shared_info_page[0] = 0;
    expect("add_to_physmap",
           compat_hypercall(12, XENMEM_add_to_physmap, (uint32_t)(uintptr_t)&add, 0), 0);

    // decrease and populate: memory_reservation of 20 bytes, a list of 4-byte frame numbers.
    static struct {
        uint32_t list, count, order, flags;
        uint16_t domid;
    } reserve;
    static uint32_t list[3];
    for (unsigned i = 0; i < 3; i++) {
        list[i] = (uint32_t)spare_gfn(i);
    }
    reserve.list = (uint32_t)(uintptr_t)list;
    reserve.count = 3;
    reserve.domid = DOMID_SELF;
    expect("decrease",
           compat_hypercall(12, XENMEM_decrease_reservation, (uint32_t)(uintptr_t)&reserve, 0), 3);
    expect("populate",
           compat_hypercall(12, XENMEM_populate_physmap, (uint32_t)(uintptr_t)&reserve, 0), 3);

    // poll: ports pointer, count, and a timeout that i386 aligns to 4.
    static struct {
        uint32_t ports, count;
        uint64_t timeout;
    } __attribute__((packed, aligned(4))) poll;
    static uint32_t ports[1];
    ports[0] = console_port();
    poll.ports = (uint32_t)(uintptr_t)ports;
    poll.count = 1;
    poll.timeout = 1;
    expect("poll", compat_hypercall(29, SCHEDOP_poll, (uint32_t)(uintptr_t)&poll, 0), 0);

    // multicall: entries of 32 bytes.
    static struct { uint32_t op, result, args[6]; } calls[2];
    calls[0].op = 17;
    calls[1].op = 17;
    calls[1].args[0] = XENVER_pagesize;
    expect("multicall", compat_hypercall(13, (uint32_t)(uintptr_t)calls, 2, 0), 0);
    expect("its first result", calls[0].result, 0x40011);
    expect("its second result", calls[1].result, 0x1000);

    // platform_parameters: 4 bytes, of value 0.
    static uint32_t parameters[2];
    parameters[0] = parameters[1] = 0xaaaaaaaa;
    expect("platform_parameters",
           compat_hypercall(17, XENVER_platform_parameters, (uint32_t)(uintptr_t)parameters, 0), 0);
    expect("its value", parameters[0], 0);
    expect("the word behind it", parameters[1], 0xaaaaaaaa);
#else
    SKIP("this guest has no 64-bit mode to come from");
#endif
}

static void width_latch(void) {
#ifdef __x86_64__
    // Who writes the MSR sets the layout of shared_info, and so does who sets CALLBACK_IRQ. The
    // wall clock shows which it is: Xen writes it anew where it then belongs.
    uint8_t* page = (uint8_t*)shared_info();
    volatile uint32_t* seconds_32 = (volatile uint32_t*)(page + 2304 + 4);
    volatile uint32_t* seconds_64 = (volatile uint32_t*)(page + 3072 + 4);
    CHECK(*seconds_64 > 1000000000);
    struct compat_registers r = {
        .cx = page_msr(), .ax = (uintptr_t)hypercall_page, .target = (uintptr_t)compat_wrmsr};
    *seconds_32 = 0;
    compat_call(&r);
    uint32_t at_32 = *seconds_32;
    // Masks have moved as well: open all of them in either layout, and go back.
    *seconds_64 = 0;
    NEED(set_param(HVM_PARAM_CALLBACK_IRQ, 0));
    uint32_t at_64 = *seconds_64;
    CHECK(at_32 > 1000000000);
    CHECK(at_64 > 1000000000);
#else
    SKIP("this guest has one width only");
#endif
}

// ---- ring 3 -----------------------------------------------------------------------------------

#ifdef __x86_64__
static uint8_t user_stack[1024] __attribute__((aligned(16)));
static struct {
    struct context back;
    volatile unsigned vector;
    volatile long ax;
} user;

static void on_user_trap(struct trap_frame* frame) {
    user.vector = (unsigned)frame->vector;
    user.ax = (long)frame->ax;
    context_restore(&user.back, 1);
}

void user_code(void);
asm(".text\n"
    "user_code:\n"
    "    xorl %edi, %edi\n"
    "    call hypercall_page + 17 * 32\n"
    "    ud2\n");
#endif

static void call_from_ring_3(void) {
#ifdef __x86_64__
    set_handler(TRAP_UD, on_user_trap);
    set_handler(TRAP_GP, on_user_trap);
    user.vector = 0;
    if (context_save(&user.back) == 0) {
        asm volatile("pushq %0; pushq %1; pushq $2; pushq %2; pushq %3; iretq" ::"r"(
                         (unsigned long)SEL_USER_DATA | 3),
                     "r"((unsigned long)user_stack + sizeof(user_stack)),
                     "r"((unsigned long)SEL_USER_CODE64 | 3), "r"((unsigned long)user_code)
                     : "memory");
    }
    asm volatile("mov %w0, %%ss" ::"r"(SEL_DATA));
    set_handler(TRAP_UD, NULL);
    set_handler(TRAP_GP, NULL);
#else
    SKIP("this guest has no ring 3");
#endif
}

static void ring_3(void) {
    call_from_ring_3();
#ifdef __x86_64__
    if (hypercall_page[5] == 0x3e) {
        // An I/O instruction: the processor itself refuses ring 3.
        expect("vector", user.vector, TRAP_GP);
    } else {
        expect("vector", user.vector, TRAP_UD);
        expect_result("result", user.ax, -EPERM);
    }
#endif
}

static void ring_3_with_ports(void) {
    // A kernel may give ring 3 its ports; that does not give it hypercalls.
#ifdef __x86_64__
    allow_ports(true);
#endif
    call_from_ring_3();
#ifdef __x86_64__
    allow_ports(false);
    if (user.vector != TRAP_GP) {
        expect("vector", user.vector, TRAP_UD);
        expect_result("result", user.ax, -EPERM);
    }
#endif
}

TESTS({"c6.2.stub_bytes", stub_bytes}, {"golden.i.page_padding", whole_page},
      {"c6.2.registers_kept", registers_kept}, {"c6.2.flags_kept", flags_kept},
      {"c6.2.unknown_number", unknown_number}, {"c6.2.alias", through_an_alias},
      {"c6.2.requested_again", requested_again}, {"c6.2.copied_stub", moved_by_hand},
      {"c6.2.bad_addresses", bad_addresses}, {"golden.i.other_msrs", other_msrs},
      {"c6.2.compat_abi", compat_version}, {"c8.7.compat_layouts", compat_layouts},
      {"c6.4.width_latch", width_latch}, {"c6.2.ring_3", ring_3},
      {"c6.2.ring_3_with_ports", ring_3_with_ports});
