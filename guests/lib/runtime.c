#include "runtime.h"

uint32_t xen_base;
const char* direct_calls;
uint8_t hypercall_page[4096] __attribute__((aligned(4096)));
uint8_t shared_info_page[4096] __attribute__((aligned(4096)));

// ---- start and end ----------------------------------------------------------------------------

// With the word `direct` on the command line: the CPU's own instruction for hypercalls in place of
// whatever the page traps by, as in a guest that writes it into its code itself.
static void make_direct_calls(void) {
    const struct cpuid_result vendor = cpuid(0, 0);
    const bool amd = (vendor.ebx == 0x68747541 && vendor.edx == 0x69746e65 &&
                      vendor.ecx == 0x444d4163) ||  // "AuthenticAMD"
                     (vendor.ebx == 0x6f677948 && vendor.edx == 0x6e65476e &&
                      vendor.ecx == 0x656e6975);  // "HygonGenuine"
    const uint8_t instruction[3] = {0x0f, 0x01, amd ? 0xd9 : 0xc1};
    for (unsigned n = 0; n < sizeof(hypercall_page) / 32; n++) {
        if (n != __HYPERVISOR_iret) {  // which is no call
            memcpy(hypercall_page + n * 32 + 5, instruction, sizeof(instruction));
        }
    }
    direct_calls = amd ? "VMMCALL" : "VMCALL";
}

__attribute__((used, noreturn)) void runtime_start(void);

void runtime_start(void) {
    trap_init();
    for (uint32_t base = 0x40000000; base < 0x40010000; base += 0x100) {
        struct cpuid_result r = cpuid(base, 0);
        if (r.ebx == XEN_CPUID_SIGNATURE_EBX && r.ecx == XEN_CPUID_SIGNATURE_ECX &&
            r.edx == XEN_CPUID_SIGNATURE_EDX) {
            xen_base = base;
            break;
        }
    }
    if (xen_base != 0) {
        wrmsr(cpuid(xen_base + 2, 0).ebx, (unsigned long)hypercall_page);
        if (has_option("direct")) {
            make_direct_calls();
        }
        guest_main();
        shutdown(SHUTDOWN_poweroff);
    }
    // Without Xen there is no console and no way to power off.
    for (;;) {
        asm volatile("cli; hlt");
    }
}

void shutdown(unsigned reason) {
    struct sched_shutdown arg = {reason};
    sched_op(SCHEDOP_shutdown, &arg);
    for (;;) {
        asm volatile("cli; hlt");
    }
}

// ---- start info -------------------------------------------------------------------------------

const struct hvm_start_info* start_info(void) {
    return (const struct hvm_start_info*)(uintptr_t)entry_state.ebx;
}

// The words of an image that nobody can give a command line: an HVM guest of the real Xen, where
// the image stands for the firmware. tests/lab/oracle writes them behind the mark.
#define WORDS_MARK "words of this image:"
char image_words[128] = WORDS_MARK;

static const char* find_option(const char* key) {
    const char* s = (const char*)(uintptr_t)start_info()->cmdline_paddr;
    size_t n = strlen(key);
    if (s == NULL) {
        s = image_words + sizeof(WORDS_MARK) - 1;
    }
    while (*s != 0) {
        if (strncmp(s, key, n) == 0 && (s[n] == 0 || s[n] == ' ' || s[n] == '=')) {
            return s + n;
        }
        while (*s != 0 && *s != ' ') {
            s++;
        }
        while (*s == ' ') {
            s++;
        }
    }
    return NULL;
}

bool has_option(const char* key) {
    return find_option(key) != NULL;
}

const char* option(const char* key, char* buffer, size_t size) {
    const char* s = find_option(key);
    size_t n = 0;
    if (s == NULL || *s != '=') {
        return NULL;
    }
    for (s++; *s != 0 && *s != ' ' && n + 1 < size; s++) {
        buffer[n++] = *s;
    }
    buffer[n] = 0;
    return buffer;
}

uint64_t option_number(const char* key, uint64_t otherwise) {
    char buffer[24];
    return option(key, buffer, sizeof(buffer)) == NULL ? otherwise : parse_number(buffer);
}

// Firmware is told of memory by hypercall only, and only of what lies above 1 MiB.
static uint64_t ram_end_of_firmware(void) {
    static struct {
        uint64_t addr, size;
        uint32_t type;
    } __attribute__((packed)) entries[32];
    struct xen_memory_map map = {.nr_entries = ARRAY_SIZE(entries)};
    set_xen_guest_handle(map.buffer, (void*)entries);
    if (memory_op(XENMEM_memory_map, &map) != 0) {
        return 0;
    }
    for (uint32_t i = 0; i < map.nr_entries; i++) {
        if (entries[i].addr <= 1 << 20 && entries[i].type == XEN_HVM_MEMMAP_TYPE_RAM &&
            entries[i].addr + entries[i].size > 1 << 20) {
            return entries[i].addr + entries[i].size;
        }
    }
    return 0;
}

uint64_t ram_end(void) {
    const struct hvm_start_info* info = start_info();
    const struct hvm_memmap_table_entry* map = (const void*)(uintptr_t)info->memmap_paddr;
    for (uint32_t i = 0; i < info->memmap_entries; i++) {
        if (map[i].addr == 0 && map[i].type == XEN_HVM_MEMMAP_TYPE_RAM) {
            return map[i].size;
        }
    }
    return ram_end_of_firmware();
}

bool is_pvh(void) {
    char buffer[8];
    const char* flavour = option("flavour", buffer, sizeof(buffer));
    return flavour != NULL && strcmp(flavour, "pvh") == 0;
}

// ---- params -----------------------------------------------------------------------------------

long get_param(unsigned index, uint64_t* value) {
    struct xen_hvm_param param = {.domid = DOMID_SELF, .index = index, .value = *value};
    long result = hvm_op(HVMOP_get_param, &param);
    *value = param.value;
    return result;
}

long set_param(unsigned index, uint64_t value) {
    struct xen_hvm_param param = {.domid = DOMID_SELF, .index = index, .value = value};
    return hvm_op(HVMOP_set_param, &param);
}

// ---- console ----------------------------------------------------------------------------------

struct xencons_interface* console_ring(void) {
    static struct xencons_interface* ring;
    if (ring == NULL) {
        uint64_t pfn = option_number("console_pfn", 0);
        if (xen_base != 0 &&
            (pfn != 0 || (get_param(HVM_PARAM_CONSOLE_PFN, &pfn) == 0 && pfn != 0))) {
            ring = (struct xencons_interface*)(uintptr_t)(pfn * PAGE_SIZE);
        }
    }
    return ring;
}

uint32_t console_port(void) {
    static uint32_t port;
    if (port == 0) {
        uint64_t value = option_number("console_port", 0);
        if (value == 0) {
            get_param(HVM_PARAM_CONSOLE_EVTCHN, &value);
        }
        port = (uint32_t)value;
    }
    return port;
}

void console_write(const char* text, size_t size) {
    struct xencons_interface* ring = console_ring();
    if (ring == NULL) {
        return;
    }
    while (size > 0) {
        uint32_t prod = ring->out_prod;
        uint32_t space = sizeof(ring->out) - (prod - ACCESS(ring->out_cons));
        if (space == 0) {
            port_send(console_port());
            yield();
            continue;
        }
        for (; size > 0 && space > 0; size--, space--) {
            ring->out[prod++ % sizeof(ring->out)] = *text++;
        }
        barrier();
        ACCESS(ring->out_prod) = prod;
    }
    port_send(console_port());
}

bool console_drain(void) {
    struct xencons_interface* ring = console_ring();
    return ring != NULL && WAIT_UNTIL(ACCESS(ring->out_cons) == ACCESS(ring->out_prod), PATIENCE_MS);
}

void print(const char* fmt, ...) {
    char line[1000];
    va_list args;
    va_start(args, fmt);
    int n = format(line, sizeof(line), fmt, args);
    va_end(args);
    console_write(line, (size_t)n);
}

// ---- shared info and events -------------------------------------------------------------------

long add_to_physmap(unsigned space, unsigned long index, unsigned long gfn) {
    struct xen_add_to_physmap arg = {
        .domid = DOMID_SELF, .space = space, .idx = index, .gpfn = gfn};
    return memory_op(XENMEM_add_to_physmap, &arg);
}

static bool shared_info_mapped;

long map_shared_info(unsigned long gfn) {
    return add_to_physmap(XENMAPSPACE_shared_info, 0, gfn);
}

struct shared_info* shared_info(void) {
    if (!shared_info_mapped) {
        map_shared_info((uintptr_t)shared_info_page / PAGE_SIZE);
        shared_info_mapped = true;
    }
    return (struct shared_info*)shared_info_page;
}

struct vcpu_info* vcpu_info(unsigned cpu) {
    return &shared_info()->vcpu_info[cpu];
}

long port_send(uint32_t port) {
    struct evtchn_send arg = {port};
    return evtchn_op(EVTCHNOP_send, &arg);
}

long port_close(uint32_t port) {
    struct evtchn_close arg = {port};
    return evtchn_op(EVTCHNOP_close, &arg);
}

long port_unmask(uint32_t port) {
    struct evtchn_unmask arg = {port};
    return evtchn_op(EVTCHNOP_unmask, &arg);
}

long port_status(uint32_t port, struct evtchn_status* status) {
    memset(status, 0, sizeof(*status));
    status->dom = DOMID_SELF;
    status->port = port;
    return evtchn_op(EVTCHNOP_status, status);
}

long bind_ipi(unsigned cpu, uint32_t* port) {
    struct evtchn_bind_ipi arg = {.vcpu = cpu};
    long result = evtchn_op(EVTCHNOP_bind_ipi, &arg);
    *port = arg.port;
    return result;
}

long bind_virq(unsigned virq, unsigned cpu, uint32_t* port) {
    struct evtchn_bind_virq arg = {.virq = virq, .vcpu = cpu};
    long result = evtchn_op(EVTCHNOP_bind_virq, &arg);
    *port = arg.port;
    return result;
}

bool port_pending(uint32_t port) {
    return test_bit(port, shared_info()->evtchn_pending);
}

bool port_take(uint32_t port) {
    return test_and_clear_bit(port, shared_info()->evtchn_pending);
}

void port_mask(uint32_t port, bool masked) {
    if (masked) {
        test_and_set_bit(port, shared_info()->evtchn_mask);
    } else {
        test_and_clear_bit(port, shared_info()->evtchn_mask);
    }
}

long poll_port(uint32_t port, uint64_t deadline_ns) {
    evtchn_port_t ports[1] = {port};
    struct sched_poll poll = {.nr_ports = 1, .timeout = deadline_ns};
    set_xen_guest_handle(poll.ports, ports);
    return sched_op(SCHEDOP_poll, &poll);
}

void upcall_scan(void (*function)(uint32_t port)) {
    const unsigned bits = sizeof(xen_ulong_t) * 8;
    struct vcpu_info* vcpu = vcpu_info(this_cpu());
    struct shared_info* shared = shared_info();
    ACCESS(vcpu->evtchn_upcall_pending) = 0;
    xen_ulong_t selector = 0;
    asm volatile("xchg %0, %1"
                 : "+r"(selector), "+m"(*(volatile xen_ulong_t*)&vcpu->evtchn_pending_sel)
                 :
                 : "memory");
    for (unsigned word = 0; selector != 0; word++, selector >>= 1) {
        if ((selector & 1) == 0) {
            continue;
        }
        xen_ulong_t pending =
            ACCESS(shared->evtchn_pending[word]) & ~ACCESS(shared->evtchn_mask[word]);
        for (unsigned bit = 0; pending != 0; bit++, pending >>= 1) {
            if ((pending & 1) != 0 && port_take(word * bits + bit)) {
                function(word * bits + bit);
            }
        }
    }
}

long set_callback_vector(unsigned vector) {
    return set_param(HVM_PARAM_CALLBACK_IRQ,
                     (uint64_t)HVM_PARAM_CALLBACK_TYPE_VECTOR << 56 | vector);
}

// ---- time -------------------------------------------------------------------------------------

uint64_t time_from(volatile struct vcpu_time_info* time) {
    for (;;) {
        uint32_t version = time->version;
        barrier();
        uint64_t delta = rdtsc() - time->tsc_timestamp;
        uint64_t system = time->system_time;
        uint32_t multiplier = time->tsc_to_system_mul;
        int8_t shift = time->tsc_shift;
        barrier();
        if ((version & 1) != 0 || version != time->version) {
            continue;
        }
        delta = shift < 0 ? delta >> -shift : delta << shift;
        // delta * multiplier / 2^32 in two halves, since the product may take 96 bits
        return system + (delta >> 32) * multiplier + (((delta & 0xffffffff) * multiplier) >> 32);
    }
}

uint64_t xen_time_of(unsigned cpu) {
    return time_from(&vcpu_info(cpu)->time);
}

uint64_t xen_time(void) {
    return xen_time_of(0);
}

uint64_t tsc_after_ms(unsigned ms) {
    static uint32_t khz;
    if (khz == 0) {
        khz = cpuid(xen_base + 3, 0).ecx;
        if (khz == 0) {
            khz = 3000000;
        }
    }
    return rdtsc() + (uint64_t)khz * ms;
}

// ---- memory -----------------------------------------------------------------------------------

unsigned long spare_gfn(unsigned index) {
    return (unsigned long)(ram_end() / PAGE_SIZE) - 17 - index;
}

long reservation(unsigned long cmd, unsigned long* gfns, unsigned long count, unsigned order) {
    struct xen_memory_reservation arg = {
        .nr_extents = count, .extent_order = order, .domid = DOMID_SELF};
    set_xen_guest_handle(arg.extent_start, (xen_pfn_t*)gfns);
    return memory_op(cmd, &arg);
}

long domid_op(unsigned cmd, uint16_t domid) {
    domid_t arg = domid;
    return memory_op(cmd, &arg);
}

// ---- xenstore ---------------------------------------------------------------------------------

struct xenstore_domain_interface* xenstore_ring(void) {
    static struct xenstore_domain_interface* ring;
    if (ring == NULL) {
        uint64_t pfn = 0;
        if (get_param(HVM_PARAM_STORE_PFN, &pfn) == 0 && pfn != 0) {
            ring = (struct xenstore_domain_interface*)(uintptr_t)(pfn * PAGE_SIZE);
        }
    }
    return ring;
}

uint32_t xenstore_port(void) {
    uint64_t value = 0;
    get_param(HVM_PARAM_STORE_EVTCHN, &value);
    return (uint32_t)value;
}

bool xenstore_send(const void* data, uint32_t size, uint32_t piece) {
    struct xenstore_domain_interface* ring = xenstore_ring();
    const char* from = data;
    while (size > 0) {
        uint32_t prod = ring->req_prod;
        if (!WAIT_UNTIL(prod - ACCESS(ring->req_cons) < XENSTORE_RING_SIZE, PATIENCE_MS)) {
            return false;
        }
        uint32_t space = XENSTORE_RING_SIZE - (prod - ACCESS(ring->req_cons));
        uint32_t n = size < piece ? size : piece;
        n = n < space ? n : space;
        for (uint32_t i = 0; i < n; i++) {
            ring->req[MASK_XENSTORE_IDX(prod + i)] = *from++;
        }
        barrier();
        ACCESS(ring->req_prod) = prod + n;
        size -= n;
        port_send(xenstore_port());
    }
    return true;
}

bool xenstore_receive(void* data, uint32_t size, uint32_t piece) {
    struct xenstore_domain_interface* ring = xenstore_ring();
    char* to = data;
    while (size > 0) {
        uint32_t cons = ring->rsp_cons;
        if (!WAIT_UNTIL(ACCESS(ring->rsp_prod) != cons, PATIENCE_MS)) {
            return false;
        }
        uint32_t n = ACCESS(ring->rsp_prod) - cons;
        n = n < size ? n : size;
        n = n < piece ? n : piece;
        barrier();
        for (uint32_t i = 0; i < n; i++) {
            *to++ = ring->rsp[MASK_XENSTORE_IDX(cons + i)];
        }
        barrier();
        ACCESS(ring->rsp_cons) = cons + n;
        size -= n;
        port_send(xenstore_port());
    }
    return true;
}

int xenstore_request(uint32_t type, const void* payload, uint32_t size, char* reply,
                     uint32_t reply_size) {
    static uint32_t id;
    struct xsd_sockmsg header = {.type = type, .req_id = ++id, .tx_id = 0, .len = size};
    if (xenstore_ring() == NULL || !xenstore_send(&header, sizeof(header), sizeof(header)) ||
        !xenstore_send(payload, size, XENSTORE_RING_SIZE)) {
        return -1;
    }
    for (;;) {
        if (!xenstore_receive(&header, sizeof(header), sizeof(header))) {
            return -1;
        }
        uint32_t kept = header.len < reply_size - 1 ? header.len : reply_size - 1;
        if (!xenstore_receive(reply, kept, XENSTORE_RING_SIZE)) {
            return -1;
        }
        reply[kept] = 0;
        for (uint32_t rest = header.len - kept; rest > 0; rest--) {
            char dropped;
            if (!xenstore_receive(&dropped, 1, 1)) {
                return -1;
            }
        }
        if (header.type == XS_WATCH_EVENT && type != XS_WATCH_EVENT) {
            continue;  // a watch may fire at any time
        }
        if (header.req_id != id) {
            return -1;
        }
        return header.type == XS_ERROR ? -2 : (int)kept;
    }
}

int xenstore_read(const char* path, char* reply, uint32_t reply_size) {
    return xenstore_request(XS_READ, path, (uint32_t)strlen(path) + 1, reply, reply_size);
}

int xenstore_write(const char* path, const char* value) {
    char payload[256];
    char reply[32];
    uint32_t n = (uint32_t)strlen(path) + 1;
    uint32_t m = (uint32_t)strlen(value);
    memcpy(payload, path, n);
    memcpy(payload + n, value, m);
    return xenstore_request(XS_WRITE, payload, n + m, reply, sizeof(reply));
}
