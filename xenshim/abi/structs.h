// The argument structures of the hypercalls, spelled as in Xen's public headers. See width.h.
#pragma once

#include <array>
#include <cstdint>
#include <tuple>

#include "xenshim/abi/width.h"

namespace xenshim::abi {

// ---- memory.h ---------------------------------------------------------------------------------

template <class W>
struct xen_memory_reservation {
    typename W::Word extent_start;  // array of gfns, of the caller's word size
    typename W::Word nr_extents;
    std::uint32_t extent_order;  // each extent is 2^order pages
    std::uint32_t mem_flags;
    std::uint16_t domid;
    static constexpr auto fields(auto& self) {
        auto& [start, nr, order, flags, dom] = self;
        return std::tie(start, nr, order, flags, dom);
    }
};
static_assert(sizeof(xen_memory_reservation<W32>) == 20);
static_assert(sizeof(xen_memory_reservation<W64>) == 32);

template <class W>
struct xen_add_to_physmap {
    std::uint16_t domid;
    std::uint16_t size;  // XENMAPSPACE_gmfn_range only
    std::uint32_t space;
    typename W::Word idx;
    typename W::Word gpfn;
    static constexpr auto fields(auto& self) {
        auto& [dom, size_, space_, idx_, gpfn_] = self;
        return std::tie(dom, size_, space_, idx_, gpfn_);
    }
};
static_assert(sizeof(xen_add_to_physmap<W32>) == 16 && sizeof(xen_add_to_physmap<W64>) == 24);

template <class W>
struct xen_remove_from_physmap {
    std::uint16_t domid;
    typename W::Word gpfn;
    static constexpr auto fields(auto& self) {
        auto& [dom, gpfn_] = self;
        return std::tie(dom, gpfn_);
    }
};
static_assert(sizeof(xen_remove_from_physmap<W32>) == 8);
static_assert(sizeof(xen_remove_from_physmap<W64>) == 16);

template <class W>
struct xen_memory_map {
    std::uint32_t nr_entries;  // in: room; out: entries written
    typename W::Word buffer;
    static constexpr auto fields(auto& self) {
        auto& [nr, at] = self;
        return std::tie(nr, at);
    }
};
static_assert(sizeof(xen_memory_map<W32>) == 8 && sizeof(xen_memory_map<W64>) == 16);

template <class W>
struct xen_foreign_memory_map {
    std::uint16_t domid;
    std::uint16_t pad;
    xen_memory_map<W> map;
};
static_assert(sizeof(xen_foreign_memory_map<W32>) == 12);
static_assert(sizeof(xen_foreign_memory_map<W64>) == 24);

template <class W>
struct xen_memory_exchange {
    xen_memory_reservation<W> in;
    xen_memory_reservation<W> out;
    typename W::Word nr_exchanged;
};
static_assert(sizeof(xen_memory_exchange<W32>) == 44 && sizeof(xen_memory_exchange<W64>) == 72);

template <class W>
struct xen_add_to_physmap_batch {
    std::uint16_t domid;
    std::uint16_t space;
    std::uint16_t size;
    std::uint16_t u;  // gmfn_foreign: the domain; else 0
    typename W::Word idxs;
    typename W::Word gpfns;
    typename W::Word errs;  // array of 32-bit results
    static constexpr auto fields(auto& self) {
        auto& [dom, space_, size_, extra, from, to, results] = self;
        return std::tie(dom, space_, size_, extra, from, to, results);
    }
};
static_assert(sizeof(xen_add_to_physmap_batch<W32>) == 20);
static_assert(sizeof(xen_add_to_physmap_batch<W64>) == 32);

template <class W>
struct xen_machphys_mfn_list {
    std::uint32_t max_extents;
    typename W::Word extent_start;
    std::uint32_t nr_extents;
    static constexpr auto fields(auto& self) {
        auto& [room, list, nr] = self;
        return std::tie(room, list, nr);
    }
};
static_assert(sizeof(xen_machphys_mfn_list<W32>) == 12);
static_assert(sizeof(xen_machphys_mfn_list<W64>) == 24);

template <class W>
struct xen_pod_target {
    std::array<typename W::U64, 4> pages;  // target, total, cached, entries
    std::uint16_t domid;
    static constexpr auto fields(auto& self) {
        auto& [counts, dom] = self;
        return std::tie(counts, dom);
    }
};
static_assert(sizeof(xen_pod_target<W32>) == 36 && sizeof(xen_pod_target<W64>) == 40);

template <class W>
struct xen_mem_access_op {
    std::uint8_t op;
    std::uint8_t access;
    std::uint16_t domid;
    std::uint32_t nr;
    std::uint64_t pfn;
    typename W::Word pfn_list;
    typename W::Word access_list;
    static constexpr auto fields(auto& self) {
        auto& [op_, access_, dom, nr_, pfn_, pfns, accesses] = self;
        return std::tie(op_, access_, dom, nr_, pfn_, pfns, accesses);
    }
};
static_assert(sizeof(xen_mem_access_op<W32>) == 24 && sizeof(xen_mem_access_op<W64>) == 32);

struct xen_vnuma_topology_info {
    std::uint16_t domid;
    std::uint16_t pad;
    std::uint32_t nr_vnodes;
    std::uint32_t nr_vcpus;
    std::uint32_t nr_vmemranges;
    std::array<std::uint64_t, 3> lists;  // distances, nodes of vCPUs, ranges
};
static_assert(sizeof(xen_vnuma_topology_info) == 40);

template <class W>
struct xen_reserved_device_memory_map {
    std::uint32_t flags;
    std::uint32_t nr_entries;
    typename W::Word buffer;
    std::uint16_t segment;  // these three: of the device that is meant
    std::uint8_t bus;
    std::uint8_t devfn;
    static constexpr auto fields(auto& self) {
        auto& [bits, nr, at, seg, bus_, function] = self;
        return std::tie(bits, nr, at, seg, bus_, function);
    }
};
static_assert(sizeof(xen_reserved_device_memory_map<W32>) == 16);
static_assert(sizeof(xen_reserved_device_memory_map<W64>) == 24);

template <class W>
struct xen_mem_acquire_resource {
    std::uint16_t domid;
    std::uint16_t type;
    std::uint32_t id;
    std::uint32_t nr_frames;
    std::uint32_t pad;
    typename W::U64 frame;
    typename W::Word frame_list;
    static constexpr auto fields(auto& self) {
        auto& [dom, kind, id_, nr, zero, first, list] = self;
        return std::tie(dom, kind, id_, nr, zero, first, list);
    }
};
static_assert(sizeof(xen_mem_acquire_resource<W32>) == 28);
static_assert(sizeof(xen_mem_acquire_resource<W64>) == 32);

// An entry of the memory map: the BIOS' own packed form.
struct e820entry {
    SplitU64 addr;
    SplitU64 size;
    std::uint32_t type;
};
static_assert(sizeof(e820entry) == 20);

// ---- event_channel.h --------------------------------------------------------------------------

struct evtchn_bind_interdomain {
    std::uint16_t remote_dom;
    std::uint16_t pad;
    std::uint32_t remote_port;
    std::uint32_t local_port;
};
static_assert(sizeof(evtchn_bind_interdomain) == 12);

struct evtchn_bind_virq {
    std::uint32_t virq;
    std::uint32_t vcpu;
    std::uint32_t port;
};
static_assert(sizeof(evtchn_bind_virq) == 12);

struct evtchn_bind_pirq {
    std::uint32_t pirq;
    std::uint32_t flags;
    std::uint32_t port;
};
static_assert(sizeof(evtchn_bind_pirq) == 12);

struct evtchn_bind_ipi {
    std::uint32_t vcpu;
    std::uint32_t port;
};
struct evtchn_bind_vcpu {
    std::uint32_t port;
    std::uint32_t vcpu;
};
struct evtchn_alloc_unbound {
    std::uint16_t dom;
    std::uint16_t remote_dom;
    std::uint32_t port;
};
static_assert(sizeof(evtchn_alloc_unbound) == 8);

struct evtchn_port {  // close, send and unmask
    std::uint32_t port;
};

struct evtchn_reset {
    std::uint16_t dom;
};

struct evtchn_status {
    std::uint16_t dom;
    std::uint16_t pad;
    std::uint32_t port;
    std::uint32_t status;
    std::uint32_t vcpu;
    std::array<std::uint32_t, 2> u;  // unbound: {dom}; interdomain: {dom, port}; virq; pirq
};
static_assert(sizeof(evtchn_status) == 24);

struct evtchn_init_control {
    std::uint64_t control_gfn;
    std::uint32_t offset;
    std::uint32_t vcpu;
    std::uint8_t link_bits;
    std::array<std::uint8_t, 7> pad;
};
static_assert(sizeof(evtchn_init_control) == 24);

struct evtchn_expand_array {
    std::uint64_t array_gfn;
};

struct evtchn_set_priority {
    std::uint32_t port;
    std::uint32_t priority;
};

// ---- sched.h ----------------------------------------------------------------------------------

template <class W>
struct sched_poll {
    typename W::Word ports;  // array of 32-bit ports
    std::uint32_t nr_ports;
    typename W::U64 timeout;  // absolute, ns of system time; 0: none
    static constexpr auto fields(auto& self) {
        auto& [at, nr, until] = self;
        return std::tie(at, nr, until);
    }
};
static_assert(sizeof(sched_poll<W32>) == 16 && sizeof(sched_poll<W64>) == 24);

struct sched_shutdown {  // shutdown_code too
    std::uint32_t reason;
};
struct sched_remote_shutdown {
    std::uint16_t domain_id;
    std::uint16_t pad;
    std::uint32_t reason;
};
struct sched_watchdog {
    std::uint32_t id;
    std::uint32_t timeout;  // seconds
};

// ---- vcpu.h -----------------------------------------------------------------------------------

template <class W>
struct vcpu_runstate_info {
    std::uint32_t state;
    typename W::U64 state_entry_time;
    std::array<typename W::U64, 4> time;
    static constexpr auto fields(auto& self) {
        auto& [s, entry, times] = self;
        return std::tie(s, entry, times);
    }
};
static_assert(sizeof(vcpu_runstate_info<W32>) == 44 && sizeof(vcpu_runstate_info<W64>) == 48);

// For the runstate and for the clock: a linear address, which is the caller's word in Xen's union
// with the physical one.
struct vcpu_register_memory_area {
    std::uint64_t addr;
};

struct vcpu_set_periodic_timer {
    std::uint64_t period_ns;
};

template <class W>
struct vcpu_set_singleshot_timer {
    typename W::U64 timeout_abs_ns;
    std::uint32_t flags;
    static constexpr auto fields(auto& self) {
        auto& [at, bits] = self;
        return std::tie(at, bits);
    }
};
static_assert(sizeof(vcpu_set_singleshot_timer<W32>) == 12);
static_assert(sizeof(vcpu_set_singleshot_timer<W64>) == 16);

struct vcpu_register_vcpu_info {
    std::uint64_t mfn;
    std::uint32_t offset;
    std::uint32_t rsvd;
};
static_assert(sizeof(vcpu_register_vcpu_info) == 16);

// ---- hvm/hvm_vcpu.h ---------------------------------------------------------------------------

struct vcpu_hvm_x86_32 {
    std::uint32_t eax, ecx, edx, ebx, esp, ebp, esi, edi, eip, eflags, cr0, cr3, cr4, pad1;
    SplitU64 efer;
    std::uint32_t cs_base, ds_base, ss_base, es_base, tr_base;
    std::uint32_t cs_limit, ds_limit, ss_limit, es_limit, tr_limit;
    std::uint16_t cs_ar, ds_ar, ss_ar, es_ar, tr_ar;
    std::array<std::uint16_t, 3> pad2;
};
struct vcpu_hvm_x86_64 {
    std::uint64_t rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, rip, rflags, cr0, cr3, cr4, efer;
};
static_assert(sizeof(vcpu_hvm_x86_64) == 112 && sizeof(vcpu_hvm_x86_32) == 120);

struct vcpu_hvm_context {
    std::uint32_t mode;  // 0: 32-bit, 1: 64-bit
    std::uint32_t pad;
    std::array<std::uint8_t, 120> regs;
};
static_assert(sizeof(vcpu_hvm_context) == 128);

// ---- version.h --------------------------------------------------------------------------------

using xen_extraversion_t = std::array<char, 16>;
using xen_capabilities_info_t = std::array<char, 1024>;
using xen_changeset_info_t = std::array<char, 64>;
using xen_commandline_t = std::array<char, 1024>;
using xen_domain_handle_t = std::array<std::uint8_t, 16>;

struct xen_compile_info {
    std::array<char, 64> compiler;
    std::array<char, 16> compile_by;
    std::array<char, 32> compile_domain;
    std::array<char, 32> compile_date;
};
static_assert(sizeof(xen_compile_info) == 144);

template <class W>
struct xen_platform_parameters {
    typename W::Word virt_start;
    static constexpr auto fields(auto& self) {
        auto& [start] = self;
        return std::tie(start);
    }
};

struct xen_feature_info {
    std::uint32_t submap_idx;
    std::uint32_t submap;
};

// ---- hvm/hvm_op.h -----------------------------------------------------------------------------

struct xen_hvm_param {
    std::uint16_t domid;
    std::uint16_t pad;
    std::uint32_t index;
    std::uint64_t value;
};
static_assert(sizeof(xen_hvm_param) == 16);

struct xen_hvm_evtchn_upcall_vector {
    std::uint32_t vcpu;
    std::uint8_t vector;
    std::array<std::uint8_t, 3> pad;
};
struct xen_hvm_pagetable_dying {
    std::uint16_t domid;
    std::array<std::uint16_t, 3> pad;
    std::uint64_t gpa;
};
struct xen_hvm_get_time {
    std::uint64_t now;
};
struct xen_hvm_get_mem_type {
    std::uint16_t domid;
    std::uint16_t mem_type;
    std::uint32_t pad;
    std::uint64_t pfn;
};
struct xen_hvm_xentrace {
    std::uint16_t event;
    std::uint16_t extra_bytes;
    std::array<std::uint8_t, 28> extra;
};
static_assert(sizeof(xen_hvm_xentrace) == 32);

// ---- grant_table.h ----------------------------------------------------------------------------

template <class W>
struct gnttab_setup_table {
    std::uint16_t dom;
    std::uint32_t nr_frames;
    std::int16_t status;
    typename W::Word frame_list;
    static constexpr auto fields(auto& self) {
        auto& [d, nr, st, list] = self;
        return std::tie(d, nr, st, list);
    }
};
static_assert(sizeof(gnttab_setup_table<W32>) == 16 && sizeof(gnttab_setup_table<W64>) == 24);

struct gnttab_query_size {
    std::uint16_t dom;
    std::uint16_t pad;
    std::uint32_t nr_frames;
    std::uint32_t max_nr_frames;
    std::int16_t status;
    std::uint16_t pad2;
};
static_assert(sizeof(gnttab_query_size) == 16);

struct gnttab_set_version {
    std::uint32_t version;  // out: the one in force
};
struct gnttab_get_version {
    std::uint16_t dom;
    std::uint16_t pad;
    std::uint32_t version;
};

struct gnttab_map_grant_ref {
    std::uint64_t host_addr;
    std::uint32_t flags;
    std::uint32_t ref;
    std::uint16_t dom;
    std::int16_t status;
    std::uint32_t handle;
    std::uint64_t dev_bus_addr;
};
static_assert(sizeof(gnttab_map_grant_ref) == 32);

struct gnttab_unmap_grant_ref {
    std::uint64_t host_addr;
    std::uint64_t dev_bus_addr;
    std::uint32_t handle;
    std::int16_t status;
    std::uint16_t pad;
};
static_assert(sizeof(gnttab_unmap_grant_ref) == 24);

// One side of a copy: a grant reference (the low 32 bits) or a gfn, by the copy's flags.
template <class W>
struct gnttab_copy {
    typename W::Word source_u;
    std::uint16_t source_domid;
    std::uint16_t source_offset;
    typename W::Word dest_u;
    std::uint16_t dest_domid;
    std::uint16_t dest_offset;
    alignas(typename W::Word) std::uint16_t len;  // Xen's source and dest are structures
    std::uint16_t flags;
    std::int16_t status;
    static constexpr auto fields(auto& self) {
        auto& [su, sd, so, du, dd, d_off, n, bits, st] = self;
        return std::tie(su, sd, so, du, dd, d_off, n, bits, st);
    }
};
static_assert(sizeof(gnttab_copy<W32>) == 24 && sizeof(gnttab_copy<W64>) == 40);

struct gnttab_swap_grant_ref {
    std::uint32_t ref_a;
    std::uint32_t ref_b;
    std::int16_t status;
    std::uint16_t pad;
};
static_assert(sizeof(gnttab_swap_grant_ref) == 12);

// The entries of a grant table, as the guest writes them.
struct grant_entry_v1 {
    std::uint16_t flags;
    std::uint16_t domid;
    std::uint32_t frame;
};
static_assert(sizeof(grant_entry_v1) == 8);

// Version 2: what the first two members are followed by depends on the flags: a page and nothing
// else; with GTF_sub_page the part of it that is granted; of a transitive grant, whose it is.
struct grant_entry_v2 {
    std::uint16_t flags;
    std::uint16_t domid;
    std::uint16_t page_off;  // transitive: trans_domid
    std::uint16_t length;
    std::uint64_t frame;  // transitive: gref, in the low 32 bits
};
static_assert(sizeof(grant_entry_v2) == 16);

// ---- xen.h ------------------------------------------------------------------------------------

template <class W>
struct multicall_entry {
    typename W::Word op;
    typename W::Word result;
    std::array<typename W::Word, 6> args;
    static constexpr auto fields(auto& self) {
        auto& [number, rc, values] = self;
        return std::tie(number, rc, values);
    }
};
static_assert(sizeof(multicall_entry<W32>) == 32 && sizeof(multicall_entry<W64>) == 64);

// shared_info and vcpu_info: where their parts lie at each width (xen.h, arch-x86/xen.h).
struct SharedInfoLayout {
    std::uint32_t word_bytes;       // size of an event word
    std::uint32_t vcpu_info_bytes;  // each of the 32 slots at the start
    std::uint32_t pending_sel;      // in vcpu_info
    std::uint32_t time;             // in vcpu_info
    std::uint32_t evtchn_pending;   // in shared_info
    std::uint32_t evtchn_mask;
    std::uint32_t wc_version;
    std::uint32_t wc_sec_hi;
    std::uint32_t ports;  // how many the bitmaps hold
};
inline constexpr SharedInfoLayout kSharedInfo32 = {4, 64, 4, 32, 2048, 2176, 2304, 2340, 1024};
inline constexpr SharedInfoLayout kSharedInfo64 = {8, 64, 8, 32, 2048, 2560, 3072, 3084, 4096};
inline constexpr std::uint32_t kLegacyVcpus = 32;  // vcpu_info slots in shared_info

// The PV console's page (io/console.h) and the xenstore page are described where they are used.

}  // namespace xenshim::abi
