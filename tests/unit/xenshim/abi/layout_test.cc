// Every wire structure against Xen's own headers, at both widths (tests/golden/abi_layout.tsv).
#include "tests/golden/layout.h"

#include <cstddef>
#include <set>
#include <string>
#include <type_traits>
#include <vector>

#include <gtest/gtest.h>

#include "xenshim/abi/device_structs.h"
#include "xenshim/abi/structs.h"

namespace xenshim::abi {
namespace {

struct Ours {
    const char* name;
    const char* member;
    golden::Place place;
};

#define WIDE_SIZE(S)                       \
    {                                      \
#S, "sizeof", {                    \
            sizeof(S<W32>), sizeof(S<W64>) \
        }                                  \
    }
#define WIDE(S, member)                                        \
    {                                                          \
#S, #member, {                                         \
            offsetof(S<W32>, member), offsetof(S<W64>, member) \
        }                                                      \
    }
#define PLAIN_SIZE(S)            \
    {                            \
#S, "sizeof", {          \
            sizeof(S), sizeof(S) \
        }                        \
    }
#define PLAIN(S, member)                             \
    {                                                \
#S, #member, {                               \
            offsetof(S, member), offsetof(S, member) \
        }                                            \
    }
// Ours has another name.
#define ALIAS_SIZE(theirs, S)    \
    {                            \
        theirs, "sizeof", {      \
            sizeof(S), sizeof(S) \
        }                        \
    }
#define ALIAS(theirs, their_member, S, member)       \
    {                                                \
        theirs, their_member, {                      \
            offsetof(S, member), offsetof(S, member) \
        }                                            \
    }
#define WIDE_ALIAS(theirs, their_member, S, member)            \
    {                                                          \
        theirs, their_member, {                                \
            offsetof(S<W32>, member), offsetof(S<W64>, member) \
        }                                                      \
    }
#define SHARED(theirs, member, field)                \
    {                                                \
        theirs, member, {                            \
            kSharedInfo32.field, kSharedInfo64.field \
        }                                            \
    }

const std::vector<Ours>& ours() {
    static const std::vector<Ours> table = {
        WIDE_SIZE(xen_memory_reservation),
        WIDE(xen_memory_reservation, extent_start),
        WIDE(xen_memory_reservation, nr_extents),
        WIDE(xen_memory_reservation, extent_order),
        WIDE(xen_memory_reservation, mem_flags),
        WIDE(xen_memory_reservation, domid),
        WIDE_SIZE(xen_add_to_physmap),
        WIDE(xen_add_to_physmap, domid),
        WIDE(xen_add_to_physmap, size),
        WIDE(xen_add_to_physmap, space),
        WIDE(xen_add_to_physmap, idx),
        WIDE(xen_add_to_physmap, gpfn),
        WIDE_SIZE(xen_remove_from_physmap),
        WIDE(xen_remove_from_physmap, domid),
        WIDE(xen_remove_from_physmap, gpfn),
        WIDE_SIZE(xen_memory_map),
        WIDE(xen_memory_map, nr_entries),
        WIDE(xen_memory_map, buffer),
        WIDE_SIZE(xen_foreign_memory_map),
        WIDE(xen_foreign_memory_map, domid),
        WIDE(xen_foreign_memory_map, map),
        WIDE(xen_foreign_memory_map, map.nr_entries),
        WIDE(xen_foreign_memory_map, map.buffer),
        WIDE_SIZE(xen_memory_exchange),
        WIDE(xen_memory_exchange, in),
        WIDE(xen_memory_exchange, in.extent_start),
        WIDE(xen_memory_exchange, in.nr_extents),
        WIDE(xen_memory_exchange, in.extent_order),
        WIDE(xen_memory_exchange, in.domid),
        WIDE(xen_memory_exchange, out),
        WIDE(xen_memory_exchange, out.extent_start),
        WIDE(xen_memory_exchange, out.nr_extents),
        WIDE(xen_memory_exchange, out.extent_order),
        WIDE(xen_memory_exchange, nr_exchanged),
        WIDE_SIZE(xen_add_to_physmap_batch),
        WIDE(xen_add_to_physmap_batch, domid),
        WIDE(xen_add_to_physmap_batch, space),
        WIDE(xen_add_to_physmap_batch, size),
        WIDE(xen_add_to_physmap_batch, u),
        WIDE(xen_add_to_physmap_batch, idxs),
        WIDE(xen_add_to_physmap_batch, gpfns),
        WIDE(xen_add_to_physmap_batch, errs),
        WIDE_SIZE(xen_machphys_mfn_list),
        WIDE(xen_machphys_mfn_list, max_extents),
        WIDE(xen_machphys_mfn_list, extent_start),
        WIDE(xen_machphys_mfn_list, nr_extents),
        WIDE_SIZE(xen_pod_target),
        WIDE_ALIAS("xen_pod_target", "target_pages", xen_pod_target, pages),
        WIDE(xen_pod_target, domid),
        WIDE_SIZE(xen_mem_access_op),
        WIDE(xen_mem_access_op, op),
        WIDE(xen_mem_access_op, access),
        WIDE(xen_mem_access_op, domid),
        WIDE(xen_mem_access_op, nr),
        WIDE(xen_mem_access_op, pfn),
        WIDE(xen_mem_access_op, pfn_list),
        WIDE(xen_mem_access_op, access_list),
        PLAIN_SIZE(xen_vnuma_topology_info),
        PLAIN(xen_vnuma_topology_info, domid),
        PLAIN(xen_vnuma_topology_info, pad),
        PLAIN(xen_vnuma_topology_info, nr_vnodes),
        PLAIN(xen_vnuma_topology_info, nr_vcpus),
        PLAIN(xen_vnuma_topology_info, nr_vmemranges),
        ALIAS("xen_vnuma_topology_info", "vdistance", xen_vnuma_topology_info, lists),
        WIDE_SIZE(xen_reserved_device_memory_map),
        WIDE(xen_reserved_device_memory_map, flags),
        WIDE(xen_reserved_device_memory_map, nr_entries),
        WIDE(xen_reserved_device_memory_map, buffer),
        WIDE_ALIAS("xen_reserved_device_memory_map", "dev", xen_reserved_device_memory_map,
                   segment),
        WIDE_SIZE(xen_mem_acquire_resource),
        WIDE(xen_mem_acquire_resource, domid),
        WIDE(xen_mem_acquire_resource, type),
        WIDE(xen_mem_acquire_resource, id),
        WIDE(xen_mem_acquire_resource, nr_frames),
        WIDE(xen_mem_acquire_resource, pad),
        WIDE(xen_mem_acquire_resource, frame),
        WIDE(xen_mem_acquire_resource, frame_list),
        PLAIN_SIZE(e820entry),
        PLAIN(e820entry, addr),
        PLAIN(e820entry, size),
        PLAIN(e820entry, type),
        PLAIN_SIZE(evtchn_bind_interdomain),
        PLAIN(evtchn_bind_interdomain, remote_dom),
        PLAIN(evtchn_bind_interdomain, remote_port),
        PLAIN(evtchn_bind_interdomain, local_port),
        PLAIN_SIZE(evtchn_bind_virq),
        PLAIN(evtchn_bind_virq, virq),
        PLAIN(evtchn_bind_virq, vcpu),
        PLAIN(evtchn_bind_virq, port),
        PLAIN_SIZE(evtchn_bind_pirq),
        PLAIN(evtchn_bind_pirq, pirq),
        PLAIN(evtchn_bind_pirq, flags),
        PLAIN(evtchn_bind_pirq, port),
        PLAIN_SIZE(evtchn_bind_ipi),
        PLAIN(evtchn_bind_ipi, vcpu),
        PLAIN(evtchn_bind_ipi, port),
        PLAIN_SIZE(evtchn_bind_vcpu),
        PLAIN(evtchn_bind_vcpu, port),
        PLAIN(evtchn_bind_vcpu, vcpu),
        PLAIN_SIZE(evtchn_alloc_unbound),
        PLAIN(evtchn_alloc_unbound, dom),
        PLAIN(evtchn_alloc_unbound, remote_dom),
        PLAIN(evtchn_alloc_unbound, port),
        ALIAS_SIZE("evtchn_close", evtchn_port),
        ALIAS("evtchn_close", "port", evtchn_port, port),
        ALIAS_SIZE("evtchn_send", evtchn_port),
        ALIAS("evtchn_send", "port", evtchn_port, port),
        ALIAS_SIZE("evtchn_unmask", evtchn_port),
        ALIAS("evtchn_unmask", "port", evtchn_port, port),
        PLAIN_SIZE(evtchn_reset),
        PLAIN(evtchn_reset, dom),
        PLAIN_SIZE(evtchn_status),
        PLAIN(evtchn_status, dom),
        PLAIN(evtchn_status, port),
        PLAIN(evtchn_status, status),
        PLAIN(evtchn_status, vcpu),
        PLAIN(evtchn_status, u),
        PLAIN_SIZE(evtchn_init_control),
        PLAIN(evtchn_init_control, control_gfn),
        PLAIN(evtchn_init_control, offset),
        PLAIN(evtchn_init_control, vcpu),
        PLAIN(evtchn_init_control, link_bits),
        PLAIN_SIZE(evtchn_expand_array),
        PLAIN(evtchn_expand_array, array_gfn),
        PLAIN_SIZE(evtchn_set_priority),
        PLAIN(evtchn_set_priority, port),
        PLAIN(evtchn_set_priority, priority),
        WIDE_SIZE(sched_poll),
        WIDE(sched_poll, ports),
        WIDE(sched_poll, nr_ports),
        WIDE(sched_poll, timeout),
        PLAIN_SIZE(sched_remote_shutdown),
        PLAIN(sched_remote_shutdown, domain_id),
        PLAIN(sched_remote_shutdown, reason),
        PLAIN_SIZE(sched_watchdog),
        PLAIN(sched_watchdog, id),
        PLAIN(sched_watchdog, timeout),
        PLAIN_SIZE(sched_shutdown),
        PLAIN(sched_shutdown, reason),
        WIDE_SIZE(vcpu_runstate_info),
        WIDE(vcpu_runstate_info, state),
        WIDE(vcpu_runstate_info, state_entry_time),
        WIDE(vcpu_runstate_info, time),
        ALIAS_SIZE("vcpu_register_runstate_memory_area", vcpu_register_memory_area),
        ALIAS("vcpu_register_runstate_memory_area", "addr", vcpu_register_memory_area, addr),
        ALIAS_SIZE("vcpu_register_time_memory_area", vcpu_register_memory_area),
        ALIAS("vcpu_register_time_memory_area", "addr", vcpu_register_memory_area, addr),
        PLAIN_SIZE(vcpu_set_periodic_timer),
        PLAIN(vcpu_set_periodic_timer, period_ns),
        WIDE_SIZE(vcpu_set_singleshot_timer),
        WIDE(vcpu_set_singleshot_timer, timeout_abs_ns),
        WIDE(vcpu_set_singleshot_timer, flags),
        PLAIN_SIZE(vcpu_register_vcpu_info),
        PLAIN(vcpu_register_vcpu_info, mfn),
        PLAIN(vcpu_register_vcpu_info, offset),
        PLAIN(vcpu_register_vcpu_info, rsvd),
        PLAIN_SIZE(vcpu_hvm_x86_32),
        PLAIN(vcpu_hvm_x86_32, eax),
        PLAIN(vcpu_hvm_x86_32, ecx),
        PLAIN(vcpu_hvm_x86_32, edx),
        PLAIN(vcpu_hvm_x86_32, ebx),
        PLAIN(vcpu_hvm_x86_32, esp),
        PLAIN(vcpu_hvm_x86_32, ebp),
        PLAIN(vcpu_hvm_x86_32, esi),
        PLAIN(vcpu_hvm_x86_32, edi),
        PLAIN(vcpu_hvm_x86_32, eip),
        PLAIN(vcpu_hvm_x86_32, eflags),
        PLAIN(vcpu_hvm_x86_32, cr0),
        PLAIN(vcpu_hvm_x86_32, cr3),
        PLAIN(vcpu_hvm_x86_32, cr4),
        PLAIN(vcpu_hvm_x86_32, efer),
        PLAIN(vcpu_hvm_x86_32, cs_base),
        PLAIN(vcpu_hvm_x86_32, ds_base),
        PLAIN(vcpu_hvm_x86_32, ss_base),
        PLAIN(vcpu_hvm_x86_32, es_base),
        PLAIN(vcpu_hvm_x86_32, tr_base),
        PLAIN(vcpu_hvm_x86_32, cs_limit),
        PLAIN(vcpu_hvm_x86_32, ds_limit),
        PLAIN(vcpu_hvm_x86_32, ss_limit),
        PLAIN(vcpu_hvm_x86_32, es_limit),
        PLAIN(vcpu_hvm_x86_32, tr_limit),
        PLAIN(vcpu_hvm_x86_32, cs_ar),
        PLAIN(vcpu_hvm_x86_32, ds_ar),
        PLAIN(vcpu_hvm_x86_32, ss_ar),
        PLAIN(vcpu_hvm_x86_32, es_ar),
        PLAIN(vcpu_hvm_x86_32, tr_ar),
        PLAIN_SIZE(vcpu_hvm_x86_64),
        PLAIN(vcpu_hvm_x86_64, rax),
        PLAIN(vcpu_hvm_x86_64, rcx),
        PLAIN(vcpu_hvm_x86_64, rdx),
        PLAIN(vcpu_hvm_x86_64, rbx),
        PLAIN(vcpu_hvm_x86_64, rsp),
        PLAIN(vcpu_hvm_x86_64, rbp),
        PLAIN(vcpu_hvm_x86_64, rsi),
        PLAIN(vcpu_hvm_x86_64, rdi),
        PLAIN(vcpu_hvm_x86_64, rip),
        PLAIN(vcpu_hvm_x86_64, rflags),
        PLAIN(vcpu_hvm_x86_64, cr0),
        PLAIN(vcpu_hvm_x86_64, cr3),
        PLAIN(vcpu_hvm_x86_64, cr4),
        PLAIN(vcpu_hvm_x86_64, efer),
        PLAIN_SIZE(vcpu_hvm_context),
        PLAIN(vcpu_hvm_context, mode),
        ALIAS("vcpu_hvm_context", "cpu_regs", vcpu_hvm_context, regs),
        PLAIN_SIZE(xen_extraversion_t),
        PLAIN_SIZE(xen_capabilities_info_t),
        PLAIN_SIZE(xen_changeset_info_t),
        PLAIN_SIZE(xen_commandline_t),
        PLAIN_SIZE(xen_domain_handle_t),
        PLAIN_SIZE(xen_compile_info),
        PLAIN(xen_compile_info, compiler),
        PLAIN(xen_compile_info, compile_by),
        PLAIN(xen_compile_info, compile_domain),
        PLAIN(xen_compile_info, compile_date),
        WIDE_SIZE(xen_platform_parameters),
        WIDE(xen_platform_parameters, virt_start),
        PLAIN_SIZE(xen_feature_info),
        PLAIN(xen_feature_info, submap_idx),
        PLAIN(xen_feature_info, submap),
        PLAIN_SIZE(xen_hvm_param),
        PLAIN(xen_hvm_param, domid),
        PLAIN(xen_hvm_param, index),
        PLAIN(xen_hvm_param, value),
        PLAIN_SIZE(xen_hvm_evtchn_upcall_vector),
        PLAIN(xen_hvm_evtchn_upcall_vector, vcpu),
        PLAIN(xen_hvm_evtchn_upcall_vector, vector),
        PLAIN_SIZE(xen_hvm_pagetable_dying),
        PLAIN(xen_hvm_pagetable_dying, domid),
        PLAIN(xen_hvm_pagetable_dying, gpa),
        PLAIN_SIZE(xen_hvm_get_mem_type),
        PLAIN(xen_hvm_get_mem_type, domid),
        PLAIN(xen_hvm_get_mem_type, mem_type),
        PLAIN(xen_hvm_get_mem_type, pfn),
        PLAIN_SIZE(xen_hvm_xentrace),
        PLAIN(xen_hvm_xentrace, event),
        PLAIN(xen_hvm_xentrace, extra_bytes),
        PLAIN(xen_hvm_xentrace, extra),
        PLAIN_SIZE(xen_hvm_get_time),
        PLAIN(xen_hvm_get_time, now),
        WIDE_SIZE(xen_dm_op_buf),
        WIDE(xen_dm_op_buf, h),
        WIDE(xen_dm_op_buf, size),
        ALIAS("xen_dm_op", "op", xen_dm_op_header, op),
        ALIAS("xen_dm_op", "pad", xen_dm_op_header, pad),
        // The operation's own structure follows.
        {"xen_dm_op", "u", {sizeof(xen_dm_op_header), sizeof(xen_dm_op_header)}},
        PLAIN_SIZE(xen_dm_op_modified_memory),
        PLAIN(xen_dm_op_modified_memory, nr_extents),
        PLAIN(xen_dm_op_modified_memory, opaque),
        PLAIN_SIZE(xen_dm_op_modified_memory_extent),
        PLAIN(xen_dm_op_modified_memory_extent, nr),
        PLAIN(xen_dm_op_modified_memory_extent, pad),
        PLAIN(xen_dm_op_modified_memory_extent, first_pfn),
        PLAIN_SIZE(xen_dm_op_set_mem_type),
        PLAIN(xen_dm_op_set_mem_type, nr),
        PLAIN(xen_dm_op_set_mem_type, mem_type),
        PLAIN(xen_dm_op_set_mem_type, pad),
        PLAIN(xen_dm_op_set_mem_type, first_pfn),
        WIDE_SIZE(gnttab_setup_table),
        WIDE(gnttab_setup_table, dom),
        WIDE(gnttab_setup_table, nr_frames),
        WIDE(gnttab_setup_table, status),
        WIDE(gnttab_setup_table, frame_list),
        PLAIN_SIZE(gnttab_query_size),
        PLAIN(gnttab_query_size, dom),
        PLAIN(gnttab_query_size, nr_frames),
        PLAIN(gnttab_query_size, max_nr_frames),
        PLAIN(gnttab_query_size, status),
        PLAIN_SIZE(gnttab_get_version),
        PLAIN(gnttab_get_version, dom),
        PLAIN(gnttab_get_version, version),
        PLAIN_SIZE(gnttab_set_version),
        PLAIN(gnttab_set_version, version),
        PLAIN_SIZE(gnttab_map_grant_ref),
        PLAIN(gnttab_map_grant_ref, host_addr),
        PLAIN(gnttab_map_grant_ref, flags),
        PLAIN(gnttab_map_grant_ref, ref),
        PLAIN(gnttab_map_grant_ref, dom),
        PLAIN(gnttab_map_grant_ref, status),
        PLAIN(gnttab_map_grant_ref, handle),
        PLAIN(gnttab_map_grant_ref, dev_bus_addr),
        PLAIN_SIZE(gnttab_unmap_grant_ref),
        PLAIN(gnttab_unmap_grant_ref, host_addr),
        PLAIN(gnttab_unmap_grant_ref, dev_bus_addr),
        PLAIN(gnttab_unmap_grant_ref, handle),
        PLAIN(gnttab_unmap_grant_ref, status),
        WIDE_SIZE(gnttab_copy),
        {"gnttab_copy",
         "source.u",
         {offsetof(gnttab_copy<W32>, source_u), offsetof(gnttab_copy<W64>, source_u)}},
        {"gnttab_copy",
         "source.domid",
         {offsetof(gnttab_copy<W32>, source_domid), offsetof(gnttab_copy<W64>, source_domid)}},
        {"gnttab_copy",
         "source.offset",
         {offsetof(gnttab_copy<W32>, source_offset), offsetof(gnttab_copy<W64>, source_offset)}},
        {"gnttab_copy",
         "dest.u",
         {offsetof(gnttab_copy<W32>, dest_u), offsetof(gnttab_copy<W64>, dest_u)}},
        {"gnttab_copy",
         "dest.domid",
         {offsetof(gnttab_copy<W32>, dest_domid), offsetof(gnttab_copy<W64>, dest_domid)}},
        {"gnttab_copy",
         "dest.offset",
         {offsetof(gnttab_copy<W32>, dest_offset), offsetof(gnttab_copy<W64>, dest_offset)}},
        WIDE(gnttab_copy, len),
        WIDE(gnttab_copy, flags),
        WIDE(gnttab_copy, status),
        PLAIN_SIZE(gnttab_swap_grant_ref),
        PLAIN(gnttab_swap_grant_ref, ref_a),
        PLAIN(gnttab_swap_grant_ref, ref_b),
        PLAIN(gnttab_swap_grant_ref, status),
        PLAIN_SIZE(grant_entry_v1),
        PLAIN(grant_entry_v1, flags),
        PLAIN(grant_entry_v1, domid),
        PLAIN(grant_entry_v1, frame),
        PLAIN_SIZE(grant_entry_v2),
        ALIAS("grant_entry_v2", "hdr.flags", grant_entry_v2, flags),
        ALIAS("grant_entry_v2", "hdr.domid", grant_entry_v2, domid),
        ALIAS("grant_entry_v2", "sub_page.page_off", grant_entry_v2, page_off),
        ALIAS("grant_entry_v2", "sub_page.length", grant_entry_v2, length),
        ALIAS("grant_entry_v2", "sub_page.frame", grant_entry_v2, frame),
        ALIAS("grant_entry_v2", "full_page.frame", grant_entry_v2, frame),
        ALIAS("grant_entry_v2", "transitive.trans_domid", grant_entry_v2, page_off),
        ALIAS("grant_entry_v2", "transitive.gref", grant_entry_v2, frame),
        WIDE_SIZE(multicall_entry),
        WIDE(multicall_entry, op),
        WIDE(multicall_entry, result),
        WIDE(multicall_entry, args),
        SHARED("vcpu_info", "sizeof", vcpu_info_bytes),
        SHARED("vcpu_info", "evtchn_pending_sel", pending_sel),
        SHARED("vcpu_info", "time", time),
        SHARED("shared_info", "evtchn_pending", evtchn_pending),
        SHARED("shared_info", "evtchn_mask", evtchn_mask),
        SHARED("shared_info", "wc_version", wc_version),
        SHARED("shared_info", "wc_sec_hi", wc_sec_hi),
    };
    return table;
}

TEST(Layout, IsThatOfXensHeaders) {
    const auto theirs = golden::read_layout();
    ASSERT_GT(theirs.size(), 200u);
    for (const Ours& o : ours()) {
        const auto found = theirs.find({o.name, o.member});
        ASSERT_NE(found, theirs.end()) << o.name << "." << o.member << " is not in the golden file";
        EXPECT_EQ(o.place.at_32, found->second.at_32) << o.name << "." << o.member << " at 32 bits";
        EXPECT_EQ(o.place.at_64, found->second.at_64) << o.name << "." << o.member << " at 64 bits";
    }
}

TEST(Layout, LeavesNothingMeasuredUncompared) {
    std::set<std::pair<std::string, std::string>> compared;
    for (const Ours& o : ours()) {
        compared.insert({o.name, o.member});
    }
    // Compared elsewhere, or nothing that we have a structure for.
    const std::set<std::pair<std::string, std::string>> elsewhere = {
        {"vcpu_info", "evtchn_upcall_pending"},
        {"vcpu_info", "evtchn_upcall_mask"},
        {"vcpu_info", "arch"},
        {"shared_info", "sizeof"},
        {"shared_info", "vcpu_info"},
        {"shared_info", "wc_sec"},
        {"shared_info", "wc_nsec"},
        {"shared_info", "arch"},
        {"xen_dm_op", "sizeof"}};
    for (const auto& [key, place] : golden::read_layout()) {
        if (key.first == "xencons_interface") continue;
        if (elsewhere.contains(key)) continue;
        EXPECT_TRUE(compared.contains(key)) << key.first << "." << key.second;
    }
}

TEST(Layout, StartRegistersFitTheContext) {
    EXPECT_LE(sizeof(vcpu_hvm_x86_32), sizeof(vcpu_hvm_context{}.regs));
    EXPECT_LE(sizeof(vcpu_hvm_x86_64), sizeof(vcpu_hvm_context{}.regs));
}

// The words that SharedInfo reaches by fixed distances from the ones above.
TEST(Layout, NeighboursInSharedInfoAreWhereTheCodeTakesThem) {
    const auto theirs = golden::read_layout();
    const auto at = [&](const char* name, const char* member) { return theirs.at({name, member}); };
    EXPECT_EQ(at("vcpu_info", "evtchn_upcall_pending"), (golden::Place{0, 0}));
    EXPECT_EQ(at("vcpu_info", "evtchn_upcall_mask"), (golden::Place{1, 1}));
    EXPECT_EQ(at("shared_info", "vcpu_info"), (golden::Place{0, 0}));
    EXPECT_EQ(at("shared_info", "wc_sec"),
              (golden::Place{kSharedInfo32.wc_version + 4u, kSharedInfo64.wc_version + 4u}));
    EXPECT_EQ(at("shared_info", "wc_nsec"),
              (golden::Place{kSharedInfo32.wc_version + 8u, kSharedInfo64.wc_version + 8u}));
    // The bitmaps follow each other, and hold as many ports as the layout says.
    EXPECT_EQ((kSharedInfo32.evtchn_mask - kSharedInfo32.evtchn_pending) * 8, kSharedInfo32.ports);
    EXPECT_EQ((kSharedInfo64.evtchn_mask - kSharedInfo64.evtchn_pending) * 8, kSharedInfo64.ports);
    EXPECT_EQ(kSharedInfo32.evtchn_pending, kLegacyVcpus * kSharedInfo32.vcpu_info_bytes);
    EXPECT_EQ(kSharedInfo32.ports, kSharedInfo32.word_bytes * 8 * kSharedInfo32.word_bytes * 8);
    EXPECT_EQ(kSharedInfo64.ports, kSharedInfo64.word_bytes * 8 * kSharedInfo64.word_bytes * 8);
}

// What is written to the guest has no padding, or it would carry bytes of ours along.
template <class T>
constexpr bool kNoPadding = std::has_unique_object_representations_v<T>;

TEST(Layout, WhatIsCopiedOutHasNoPadding) {
    EXPECT_TRUE(kNoPadding<xen_memory_map<W32>>);
    EXPECT_TRUE(kNoPadding<e820entry>);
    EXPECT_TRUE(kNoPadding<evtchn_bind_interdomain>);
    EXPECT_TRUE(kNoPadding<evtchn_bind_virq>);
    EXPECT_TRUE(kNoPadding<evtchn_bind_pirq>);
    EXPECT_TRUE(kNoPadding<evtchn_bind_ipi>);
    EXPECT_TRUE(kNoPadding<evtchn_alloc_unbound>);
    EXPECT_TRUE(kNoPadding<evtchn_status>);
    EXPECT_TRUE(kNoPadding<vcpu_runstate_info<W32>>);
    EXPECT_TRUE(kNoPadding<xen_compile_info>);
    EXPECT_TRUE(kNoPadding<xen_feature_info>);
    EXPECT_TRUE(kNoPadding<xen_hvm_param>);
    EXPECT_TRUE(kNoPadding<xen_hvm_get_mem_type>);
    EXPECT_TRUE(kNoPadding<gnttab_query_size>);
    EXPECT_TRUE(kNoPadding<gnttab_get_version>);
    EXPECT_TRUE(kNoPadding<gnttab_map_grant_ref>);
    EXPECT_TRUE(kNoPadding<gnttab_unmap_grant_ref>);
    EXPECT_TRUE(kNoPadding<gnttab_swap_grant_ref>);
    EXPECT_TRUE(kNoPadding<multicall_entry<W32>>);
    EXPECT_TRUE(kNoPadding<multicall_entry<W64>>);
}

// Those with gaps between their members go through bytes_of().
template <class S>
void expect_zero_gaps() {
    alignas(S) std::array<std::byte, sizeof(S)> storage;
    storage.fill(std::byte{0xff});
    S& value = *new (storage.data()) S;
    std::size_t members = 0;
    std::apply([&](auto&... field) { ((field = {}, members += sizeof field), ...); },
               S::fields(value));
    ASSERT_LT(members, sizeof(S));
    for (const std::byte b : bytes_of(value)) {
        EXPECT_EQ(b, std::byte{0});
    }
}
TEST(Layout, GapsAreZeroInWhatIsCopiedOut) {
    expect_zero_gaps<xen_memory_map<W64>>();
    expect_zero_gaps<vcpu_runstate_info<W64>>();
    expect_zero_gaps<gnttab_setup_table<W32>>();
    expect_zero_gaps<gnttab_setup_table<W64>>();
}

// ---- widen and narrow
// -----------------------------------------------------------------------------

TEST(Width, WidenedValuesAreZeroExtended) {
    const xen_add_to_physmap<W32> narrow32{.domid = 0x7ff0,
                                           .size = 0xfffe,
                                           .space = 0x80000001,
                                           .idx = 0xffffffff,
                                           .gpfn = 0x80000000};
    const auto wide = widen<xen_add_to_physmap>(narrow32);
    EXPECT_EQ(wide.domid, 0x7ff0);
    EXPECT_EQ(wide.size, 0xfffe);
    EXPECT_EQ(wide.space, 0x80000001u);
    EXPECT_EQ(wide.idx, 0xffffffffu);
    EXPECT_EQ(wide.gpfn, 0x80000000u);
}

TEST(Width, NarrowedValuesAreCut) {
    multicall_entry<W64> wide{.op = 0x1'0000'0011, .result = ~std::uint64_t{0} - 21, .args = {}};
    wide.args = {1, 0x2'0000'0002, 3, 4, 5, 6};
    const auto cut = narrow<multicall_entry>(wide);
    EXPECT_EQ(cut.op, 0x11u);
    EXPECT_EQ(cut.result, 0xffffffeau);  // -EINVAL
    EXPECT_EQ(cut.args, (std::array<std::uint32_t, 6>{1, 2, 3, 4, 5, 6}));
}

TEST(Width, SixtyFourBitFieldsSurviveBothWays) {
    vcpu_runstate_info<W64> wide{};
    wide.state = 3;
    wide.state_entry_time = 0x1234'5678'9abc'def0;
    wide.time = {1, 0xffff'ffff'0000'0000, 0x8000'0000'0000'0001, 7};
    const auto back = widen<vcpu_runstate_info>(narrow<vcpu_runstate_info>(wide));
    EXPECT_EQ(back.state, wide.state);
    EXPECT_EQ(back.state_entry_time, wide.state_entry_time);
    EXPECT_EQ(back.time, wide.time);
}

}  // namespace
}  // namespace xenshim::abi
