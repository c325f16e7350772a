// How a guest is entered (elf-boot-contract.md section 3), its start-info (4) and its physical
// memory (5). The first tests look at what only a fresh guest can show.

#include "test.h"

// ---- 3: registers -----------------------------------------------------------------------------

static void rip_is_entry(void) {
    // We are here, and by way of guest_entry: nothing else fills entry_state.
    CHECK(entry_state.cr0 != 0);
}

static void rbx_is_start_info(void) {
    CHECK(entry_state.ebx != 0);
    expect("magic at EBX", *(volatile uint32_t*)(uintptr_t)entry_state.ebx,
           XEN_HVM_START_MAGIC_VALUE);
}

static void rax_is_zero(void) {
    expect("EAX", entry_state.eax, 0);
}
static void rsp_is_zero(void) {
    expect("ESP", entry_state.esp, 0);
}

static void others_are_zero(void) {
    expect("ECX", entry_state.ecx, 0);
    expect("EDX", entry_state.edx, 0);
    expect("ESI", entry_state.esi, 0);
    expect("EDI", entry_state.edi, 0);
    expect("EBP", entry_state.ebp, 0);
}

static void r8_to_r15_are_zero(void) {
#if GUEST_PAGING == PAGING_LONG
    for (unsigned i = 0; i < 8; i++) {
        if (entry_r8_to_r15[i] != 0) {
            FAIL("R%u is 0x%llx", i + 8, (unsigned long long)entry_r8_to_r15[i]);
        }
    }
#else
    SKIP("there are none in 32-bit code");
#endif
}

static void rflags_is_2(void) {
    expect("EFLAGS", entry_state.eflags, 2);
}
static void cr0_is_11(void) {
    expect("CR0", entry_state.cr0, 0x11);
}

static void cr2_cr3_cr4_are_zero(void) {
    expect("CR2", entry_state.cr2, 0);
    expect("CR3", entry_state.cr3, 0);
    expect("CR4", entry_state.cr4, 0);
}

static void efer_is_zero(void) {
    expect("EFER", (uint64_t)entry_state.efer_high << 32 | entry_state.efer, 0);
}

static void pat(void) {
    // At reset. On an emulated SVM a guest reads the hypervisor's own value.
    uint64_t value = rdmsr(0x277);
    expect("PAT", value, value == 0x0000050100070406 ? value : 0x0007040600070406);
}

static void mtrr(void) {
    // Xen's figure for PVH: enabled, write-back. At reset, which HVM firmware sees: disabled.
    uint64_t type = rdmsr(0x2ff);
    if (is_pvh()) {
        expect("MTRR default type", type & 0x800, 0x800);
        expect("MTRR default type", type & 0xff, 6);
    } else {
        expect("MTRR default type", type & 0x800, 0);
    }
}

static void flat_segments(void) {
    // Code and stack work, or we were not here. Data: the last byte below 4 GiB and an address
    // far from the image can be reached through the segments that the loader left, which
    // guest_entry used before it loaded its own; so only the selectors are left to look at.
    expect("CS", entry_state.cs, 0);
    expect("DS", entry_state.ds, 0);
    expect("ES", entry_state.es, 0);
    expect("SS", entry_state.ss, 0);
}

static void fs_gs_ldtr_are_null(void) {
    expect("FS", entry_state.fs, 0);
    expect("GS", entry_state.gs, 0);
    expect("LDTR", entry_state.ldtr, 0);
}

static void tr_is_null(void) {
    expect("TR selector", entry_state.tr, 0);
}

static void gdtr_idtr_are_empty(void) {
    expect("GDTR base", entry_state.gdtr.base, 0);
    expect("GDTR limit", entry_state.gdtr.limit, 0);
    expect("IDTR base", entry_state.idtr.base, 0);
    expect("IDTR limit", entry_state.idtr.limit, 0);
}

static void debug_registers(void) {
    expect("DR6", entry_state.dr6, 0xffff0ff0);
    expect("DR7", entry_state.dr7, 0x400);
}

static void apic_base(void) {
    expect("APIC base MSR", rdmsr(0x1b), 0xfee00900);
}

static void apic_version(void) {
    // KVM adds bit 24 (no broadcast of EOIs) to Xen's figure of 0x50014 where it has x2APIC.
    expect("LAPIC version", apic_read(APIC_VERSION) & ~(1u << 24), 0x50014);
    expect("LAPIC id", apic_read(APIC_ID), 0);
}

static void a20_is_on(void) {
    volatile uint32_t* low = (volatile uint32_t*)0x9000ul;
    volatile uint32_t* high = (volatile uint32_t*)0x109000ul;
    uint32_t low_was = *low;
    uint32_t high_was = *high;
    *low = ~high_was;
    uint32_t high_now = *high;
    *low = low_was;
    expect("word at 0x109000 after a write to 0x9000", high_now, high_was);
}

static void other_vcpus_are_down(void) {
    long result = 0;
    for (unsigned cpu = 1; (result = vcpu_op(VCPUOP_is_up, cpu, NULL)) != -ENOENT; cpu++) {
        expect_result("is_up", result, 0);
    }
}

static void nothing_pending(void) {
    unsigned before = unexpected_interrupts;
    interrupts_on();
    SPIN_UNTIL(false, 30);
    interrupts_off();
    if (unexpected_interrupts != before) {
        FAIL("%u interrupts, the last of vector 0x%x", unexpected_interrupts - before,
             last_unexpected_vector);
    }
}

static void own_paging_mode(void) {
    unsigned long cr0;
    asm volatile("mov %%cr0, %0" : "=r"(cr0));
    expect("CR0.PG", cr0 >> 31 & 1, GUEST_PAGING != PAGING_NONE);
#if GUEST_PAGING == PAGING_LONG
    expect("EFER.LMA", rdmsr(0xc0000080) >> 10 & 1, 1);
#endif
}

// ---- 2: the image as it was loaded ------------------------------------------------------------

static uint32_t initialised[3] = {0x12345678, 0x9abcdef0, 0x55aa55aa};
static uint8_t big_bss[1 << 20];

static void data_is_loaded(void) {
    CHECK(*(volatile uint32_t*)&initialised[0] == 0x12345678);
    CHECK(*(volatile uint32_t*)&initialised[1] == 0x9abcdef0);
    CHECK(*(volatile uint32_t*)&initialised[2] == 0x55aa55aa);
}

static void tail_is_zero(void) {
    for (unsigned i = 0; i < sizeof(big_bss); i += 509) {
        uint8_t byte = *(volatile uint8_t*)&big_bss[i];
        if (byte != 0) {
            FAIL("byte %u of the zeroed tail is 0x%x", i, byte);
        }
    }
}

static void second_segment(void) {
    // The trampoline's segment: "cli; mov %cs, %ax"
    volatile uint8_t* code = (volatile uint8_t*)trampoline;
    expect("first byte", code[0], 0xfa);
    expect("second byte", code[1], 0x8c);
}

// ---- 4: start info ----------------------------------------------------------------------------

static bool in_ram(uint64_t address, uint64_t size) {
    const struct hvm_start_info* info = start_info();
    const struct hvm_memmap_table_entry* map = (const void*)(uintptr_t)info->memmap_paddr;
    for (uint32_t i = 0; i < info->memmap_entries; i++) {
        if (map[i].type == XEN_HVM_MEMMAP_TYPE_RAM && address >= map[i].addr &&
            address + size <= map[i].addr + map[i].size) {
            return true;
        }
    }
    return false;
}

static bool outside_image(uint64_t address, uint64_t size) {
    uintptr_t start = (uintptr_t)image_start;
    uintptr_t end = (uintptr_t)image_end;
    uintptr_t low = (uintptr_t)trampoline;
    return (address + size <= start || address >= end) &&
           (address + size <= low || address >= low + 0x28);
}

static void check_place(const char* what, uint64_t address, uint64_t size, bool aligned) {
    if (address + size > 1ull << 32) {
        FAIL("%s at 0x%llx is not below 4 GiB", what, (unsigned long long)address);
    }
    if (!outside_image(address, size)) {
        FAIL("%s at 0x%llx is within the image", what, (unsigned long long)address);
    }
    if (!in_ram(address, size)) {
        FAIL("%s at 0x%llx is not in RAM", what, (unsigned long long)address);
    }
    if (aligned && address % 8 != 0) {
        FAIL("%s at 0x%llx is not aligned", what, (unsigned long long)address);
    }
}

static void info_version(void) {
    expect("magic", start_info()->magic, XEN_HVM_START_MAGIC_VALUE);
    expect("version", start_info()->version, 1);
    expect("flags", start_info()->flags, 0);
    expect("reserved", start_info()->reserved, 0);
}

static void info_places(void) {
    const struct hvm_start_info* info = start_info();
    check_place("start info", entry_state.ebx, sizeof(*info), true);
    CHECK(info->memmap_entries != 0);
    check_place("memory map", info->memmap_paddr,
                info->memmap_entries * sizeof(struct hvm_memmap_table_entry), true);
    if (info->cmdline_paddr != 0) {
        check_place("command line", info->cmdline_paddr,
                    strlen((const char*)(uintptr_t)info->cmdline_paddr) + 1, true);
    }
    const struct hvm_modlist_entry* modules = (const void*)(uintptr_t)info->modlist_paddr;
    if (info->nr_modules == 0) {
        expect("module list without modules", info->modlist_paddr, 0);
    } else {
        check_place("module list", info->modlist_paddr, info->nr_modules * sizeof(*modules), true);
    }
    for (uint32_t i = 0; i < info->nr_modules; i++) {
        check_place("module", modules[i].paddr, modules[i].size, true);
        if (modules[i].cmdline_paddr != 0) {
            check_place("module's command line", modules[i].cmdline_paddr,
                        strlen((const char*)(uintptr_t)modules[i].cmdline_paddr) + 1, true);
        }
    }
}

static void info_cmdline(void) {
    // The case that gives one says so in it.
    if (start_info()->cmdline_paddr == 0) {
        SKIP("none was given");
    }
    CHECK(strlen((const char*)(uintptr_t)start_info()->cmdline_paddr) < 1024);
    if (has_option("words")) {
        char word[16];
        CHECK(option("words", word, sizeof(word)) != NULL);
        CHECK(strcmp(word, "one,\"two\"") == 0);
    }
}

static void info_modules(void) {
    const struct hvm_start_info* info = start_info();
    if (!has_option("modules")) {
        expect("modules", info->nr_modules, 0);
        return;
    }
    // Given as: modules=N, and each module's text is "module I\n" with command line "argument I".
    expect("modules", info->nr_modules, option_number("modules", 0));
    const struct hvm_modlist_entry* modules = (const void*)(uintptr_t)info->modlist_paddr;
    for (uint32_t i = 0; i < info->nr_modules; i++) {
        char want[24];
        int n = format_to(want, sizeof(want), "module %u\n", i);
        expect("size of a module", modules[i].size, (unsigned)n);
        if (memcmp((const void*)(uintptr_t)modules[i].paddr, want, (unsigned)n) != 0) {
            FAIL("module %u holds something else", i);
        }
        if (modules[i].cmdline_paddr != 0) {
            format_to(want, sizeof(want), "argument %u", i);
            if (strcmp((const char*)(uintptr_t)modules[i].cmdline_paddr, want) != 0) {
                FAIL("module %u's command line is \"%s\"", i,
                     (const char*)(uintptr_t)modules[i].cmdline_paddr);
            }
        }
        expect("reserved", modules[i].reserved, 0);
    }
}

static void info_rsdp(void) {
    uint64_t rsdp = start_info()->rsdp_paddr;
    if (rsdp == 0) {
        if (is_pvh()) {
            FAIL("a PVH guest has ACPI, but rsdp_paddr is 0");
        }
        SKIP("no ACPI in this flavour");
    }
    if (memcmp((const void*)(uintptr_t)rsdp, "RSD PTR ", 8) != 0) {
        FAIL("no RSDP at 0x%llx", (unsigned long long)rsdp);
    }
    uint8_t sum = 0;
    for (unsigned i = 0; i < 20; i++) {
        sum = (uint8_t)(sum + ((volatile uint8_t*)(uintptr_t)rsdp)[i]);
    }
    expect("checksum", sum, 0);
}

static void info_memory_map(void) {
    static uint32_t buffer[64 * 5];  // e820 entries of 20 bytes
    const struct hvm_start_info* info = start_info();
    const struct hvm_memmap_table_entry* map = (const void*)(uintptr_t)info->memmap_paddr;
    struct xen_memory_map arg = {.nr_entries = 64};
    set_xen_guest_handle(arg.buffer, (void*)buffer);
    EXPECT_RESULT(memory_op(XENMEM_memory_map, &arg), 0);
    expect("entries", arg.nr_entries, info->memmap_entries);
    for (uint32_t i = 0; i < arg.nr_entries; i++) {
        expect("address", (uint64_t)buffer[i * 5 + 1] << 32 | buffer[i * 5], map[i].addr);
        expect("size", (uint64_t)buffer[i * 5 + 3] << 32 | buffer[i * 5 + 2], map[i].size);
        expect("type", buffer[i * 5 + 4], map[i].type);
        expect("reserved", map[i].reserved, 0);
    }
}

static void info_memory_map_short(void) {
    static uint32_t buffer[2 * 5];
    struct xen_memory_map arg = {.nr_entries = 1};
    buffer[5] = 0x5a5a5a5a;
    set_xen_guest_handle(arg.buffer, (void*)buffer);
    EXPECT_RESULT(memory_op(XENMEM_memory_map, &arg), 0);
    expect("entries", arg.nr_entries, 1);
    expect("word behind the buffer", buffer[5], 0x5a5a5a5a);
    CHECK(buffer[4] != 0);
}

// ---- 5: physical memory -----------------------------------------------------------------------

static void ram_from_zero(void) {
    CHECK(ram_end() >= 0x200000);
    CHECK(ram_end() <= 0xff000000);
}

static volatile uint8_t* at(uint64_t physical) {
    return (volatile uint8_t*)(uintptr_t)physical;
}

static void ram_is_ram(void) {
    // A few places over all of it, the first page (in unpaged guests) and the last word.
    uint64_t end = ram_end();
    const uint64_t places[] = {0xa0000, 0xf0000, 0x7c00, end / 2, end - 4096, end - 4};
    for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
        volatile uint32_t* word = (volatile uint32_t*)at(places[i]);
        if (!outside_image(places[i], 4)) {
            continue;
        }
        uint32_t was = *word;
        *word = 0x600df00d;
        uint32_t is = *word;
        *word = was;
        if (is != 0x600df00d) {
            FAIL("0x%llx reads 0x%x after a write", (unsigned long long)places[i], is);
        }
    }
}

static void special_pages(void) {
    // Before anything was printed: this is the first test.
    static const unsigned params[] = {HVM_PARAM_CONSOLE_PFN, HVM_PARAM_STORE_PFN};
    for (unsigned i = 0; i < ARRAY_SIZE(params); i++) {
        uint64_t pfn = 0;
        NEED(get_param(params[i], &pfn));
        CHECK(pfn != 0);
        CHECK(pfn < 1 << 20);
        if (in_ram(pfn * PAGE_SIZE, PAGE_SIZE)) {
            FAIL("frame 0x%llx is in a RAM entry of the map", (unsigned long long)pfn);
        }
        // The xenstore page's last part has fields with a meaning (features, connection).
        unsigned size = params[i] == HVM_PARAM_STORE_PFN ? 2064 : 4096;
        for (unsigned offset = 0; offset < size; offset += 4) {
            uint32_t word = *(volatile uint32_t*)at(pfn * PAGE_SIZE + offset);
            if (word != 0) {
                FAIL("frame 0x%llx, offset 0x%x: 0x%x", (unsigned long long)pfn, offset, word);
            }
        }
    }
}

static uint64_t hole(void) {
    uint64_t above = (ram_end() + 0xfffff) & ~0xfffffull;
    return above > 0xe0000000 ? above : 0xe0000000;
}

static const uint64_t* holes(unsigned* count) {
    static uint64_t places[4];
    places[0] = (ram_end() + 0xfffff) & ~0xfffffull;
    places[1] = hole();
    places[2] = ram_end() > 0x7fff0000 ? hole() : 0x7fff0000;
    places[3] = 0xfec00000;  // an HVM guest's IO-APIC is there
    *count = is_pvh() ? 4 : 3;
    return places;
}

static void holes_read_ones(void) {
    unsigned count;
    const uint64_t* places = holes(&count);
    for (unsigned i = 0; i < count; i++) {
        volatile uint8_t* p = at(places[i]);
        expect("4 bytes of a hole", *(volatile uint32_t*)(p + 8), 0xffffffff);
        expect("a byte of a hole", p[5], 0xff);
        expect("2 bytes of a hole", *(volatile uint16_t*)(p + 2), 0xffff);
        *(volatile uint32_t*)p = 0x12345678;
        expect("4 bytes of a hole after a write", *(volatile uint32_t*)p, 0xffffffff);
        p[9] = 0;
        expect("a byte of a hole after a write", p[9], 0xff);
    }
}

static void holes_locked(void) {
    volatile uint32_t* p = (volatile uint32_t*)at(hole());
    uint32_t value = 5;
    asm volatile("lock incl %0" : "+m"(*p));
    asm volatile("lock xaddl %0, %1" : "+r"(value), "+m"(*p));
    expect("XADD on a hole", value, 0xffffffff);
    value = 7;
    asm volatile("xchgl %0, %1" : "+r"(value), "+m"(*p));
    expect("XCHG with a hole", value, 0xffffffff);
    uint32_t expected = 0xffffffff;
    bool equal;
    asm volatile("lock cmpxchgl %3, %1"
                 : "+a"(expected), "+m"(*p), "=@ccz"(equal)
                 : "r"(0)
                 : "memory");
    expect("CMPXCHG on a hole finds ones", equal, 1);
    asm volatile("lock orl $1, %0; lock andl $0, %0" : "+m"(*p));
    expect("the hole afterwards", *p, 0xffffffff);
}

static void holes_bit_tests(void) {
    // The operand is named by an address in RAM; the register's offset leads into the hole.
    volatile uint8_t* base = at(ram_end() - 4096);
    long offset = (4096 + 16) * 8;
    bool was;
    asm volatile("bt %1, (%2)" : "=@ccc"(was) : "r"(offset), "r"(base) : "memory");
    expect("BT in a hole", was, 1);
    asm volatile("lock btr %1, (%2)" : "=@ccc"(was) : "r"(offset), "r"(base) : "memory");
    expect("BTR in a hole", was, 1);
    asm volatile("lock bts %1, (%2)" : "=@ccc"(was) : "r"(offset), "r"(base) : "memory");
    expect("BTS in a hole", was, 1);
    // And back: named in the hole, in RAM by a negative offset.
    base[100] = 0;
    asm volatile("lock bts %1, (%2)"
                 : "=@ccc"(was)
                 : "r"((long)(100 - 4096) * 8), "r"(base + 4096)
                 : "memory");
    expect("BTS in RAM", was, 0);
    expect("its byte", base[100], 1);
    base[100] = 0;
}

static void copy(volatile void* to, const volatile void* from, size_t count, bool down) {
    if (down) {
        asm volatile("std; rep movsb; cld" : "+D"(to), "+S"(from), "+c"(count)::"memory");
    } else {
        asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count)::"memory");
    }
}

static void holes_string_instructions(void) {
    static volatile uint8_t buffer[32];
    volatile uint8_t* edge = at(ram_end());
    for (int i = 0; i < 16; i++) {
        edge[i - 16] = (uint8_t)(i + 1);
    }
    // Source crosses from RAM into the hole.
    copy(buffer, edge - 8, 16, false);
    for (int i = 0; i < 16; i++) {
        expect("byte read over the edge", buffer[i], i < 8 ? (unsigned)i + 9 : 0xff);
        buffer[i] = 0;
    }
    // Destination crosses, backwards: starts in the hole, ends in RAM.
    for (int i = 0; i < 16; i++) {
        buffer[i] = (uint8_t)(0x40 + i);
    }
    copy(edge + 7, buffer + 15, 16, true);
    for (int i = 0; i < 8; i++) {
        expect("byte written over the edge", edge[i - 8], 0x40 + (unsigned)i);
    }
    expect("byte of the hole", edge[0], 0xff);
    // Source backwards, from the hole into RAM.
    copy(buffer + 15, edge + 7, 16, true);
    for (int i = 0; i < 16; i++) {
        expect("byte read backwards", buffer[i], i < 8 ? 0x40 + (unsigned)i : 0xff);
    }
    // STOS, LODS, CMPS and SCAS in the hole itself.
    volatile void* to = at(hole() + 0x100);
    size_t count = 8;
    asm volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(0) : "memory");
    to = at(hole() + 0x100);
    count = 8;
    bool equal;
    asm volatile("repe scasb" : "+D"(to), "+c"(count), "=@ccz"(equal) : "a"(0xff) : "memory");
    expect("SCAS sees ones", equal, 1);
}

static void ram_above_4g(void) {
    const struct hvm_start_info* info = start_info();
    const struct hvm_memmap_table_entry* map = (const void*)(uintptr_t)info->memmap_paddr;
    uint64_t size = 0;
    for (uint32_t i = 0; i < info->memmap_entries; i++) {
        if (map[i].type == XEN_HVM_MEMMAP_TYPE_RAM && map[i].addr >= 1ull << 32) {
            expect("start of the RAM above the hole", map[i].addr, 1ull << 32);
            size = map[i].size;
        }
    }
    if (!has_option("high")) {
        expect("RAM above 4 GiB", size, 0);
        SKIP("this guest has none");
    }
    CHECK(size != 0);
#if GUEST_PAGING == PAGING_LONG
    extern uint64_t spare_pdpt_entry[];
    static uint64_t directory[512] __attribute__((aligned(4096)));
    directory[0] = 1ull << 32 | 0xe7;
    spare_pdpt_entry[0] = (uintptr_t)directory | 7;
    barrier();
    volatile uint32_t* word = (volatile uint32_t*)(1ul << 32);
    word[3] = 0x600df00d;
    expect("a word at 4 GiB", word[3], 0x600df00d);
#endif
}

static void ports_read_ones(void) {
    // Not 0xafe0 and 0xb000: Xen's tables name ACPI registers there that it does not have; with
    // Xenolith they are there, so that a guest can power off by ACPI.
    static const uint16_t ports[] = {0x12, 0xe9, 0x3f8, 0x60,  0x64,   0x70,
                                     0x40, 0x61, 0xcf8, 0xcfc, 0x1f40, 0xae00};
    if (!is_pvh()) {
        SKIP("an HVM guest has devices there");
    }
    for (unsigned i = 0; i < ARRAY_SIZE(ports); i++) {
        uint32_t value = in32(ports[i]);
        if (value != 0xffffffff) {
            FAIL("port 0x%x reads 0x%x", ports[i], value);
        }
    }
}

TESTS({"c5.special_pages", special_pages}, {"c3.rip_is_entry", rip_is_entry},
      {"c3.rbx_is_start_info", rbx_is_start_info}, {"c3.rax_is_zero", rax_is_zero},
      {"c3.rsp_is_zero", rsp_is_zero}, {"c3.other_registers_are_zero", others_are_zero},
      {"c3.r8_to_r15_are_zero", r8_to_r15_are_zero}, {"c3.rflags_is_2", rflags_is_2},
      {"c3.cr0_is_11", cr0_is_11}, {"c3.cr2_cr3_cr4_are_zero", cr2_cr3_cr4_are_zero},
      {"c3.efer_is_zero", efer_is_zero}, {"c3.pat", pat}, {"c3.mtrr", mtrr},
      {"c3.segments_are_flat", flat_segments}, {"c3.fs_gs_ldtr_are_null", fs_gs_ldtr_are_null},
      {"c3.tr_is_null", tr_is_null}, {"c3.gdtr_idtr_are_empty", gdtr_idtr_are_empty},
      {"c3.dr6_dr7", debug_registers}, {"c3.apic_base", apic_base},
      {"c3.apic_version", apic_version}, {"c3.a20_is_on", a20_is_on},
      {"c3.other_vcpus_are_down", other_vcpus_are_down}, {"c3.nothing_pending", nothing_pending},
      {"c3.paging_mode", own_paging_mode}, {"c2.data_is_loaded", data_is_loaded},
      {"c2.tail_is_zero", tail_is_zero}, {"c2.second_segment", second_segment},
      {"c4.magic_and_version", info_version}, {"c4.places", info_places},
      {"c4.command_line", info_cmdline}, {"c4.modules", info_modules}, {"c4.rsdp", info_rsdp},
      {"c4.memory_map", info_memory_map}, {"c4.memory_map_short", info_memory_map_short},
      {"c5.ram_from_zero", ram_from_zero}, {"c5.ram_is_ram", ram_is_ram},
      {"c5.holes_read_ones", holes_read_ones}, {"c5.holes_locked", holes_locked},
      {"c5.holes_bit_tests", holes_bit_tests},
      {"c5.holes_string_instructions", holes_string_instructions},
      {"c5.ram_above_4g", ram_above_4g}, {"c5.ports_read_ones", ports_read_ones});
