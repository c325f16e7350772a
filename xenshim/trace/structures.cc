#include "xenshim/trace/structures.h"

#include <algorithm>
#include <array>

#include "xenshim/abi/numbers.h"
#include "xenshim/abi/other_numbers.h"
#include "xenshim/abi/structs.h"

namespace xenshim::trace {
namespace {

using namespace abi;

// Names, places and widths are those of the handlers' own structures.
#define MEMBER(S, member, ...) \
    { #member, XENSHIM_PLACE(S, member) __VA_OPT__(, Format::) __VA_ARGS__ }
#define STRUCTURE(S, ...) \
    { #S, XENSHIM_SIZES(S), __VA_ARGS__ }

// Of an argument that is one value and no structure.
template <class T>
constexpr Field whole(std::string_view name, Format format) {
    return {name, {0, sizeof(T), 0, sizeof(T)}, format};
}

// ---- memory.h -----------------------------------------------------------------------------------

constexpr Field kReservationFields[] = {
    MEMBER(xen_memory_reservation, extent_start, kAddress),
    MEMBER(xen_memory_reservation, nr_extents),
    MEMBER(xen_memory_reservation, extent_order),
    MEMBER(xen_memory_reservation, mem_flags, kHex),
    MEMBER(xen_memory_reservation, domid, kDomid),
};
constexpr Structure kReservation = STRUCTURE(xen_memory_reservation, kReservationFields);

constexpr Field kExchangeFields[] = {
    MEMBER(xen_memory_exchange, in.extent_start, kAddress),
    MEMBER(xen_memory_exchange, in.nr_extents),
    MEMBER(xen_memory_exchange, in.extent_order),
    MEMBER(xen_memory_exchange, in.domid, kDomid),
    MEMBER(xen_memory_exchange, out.extent_start, kAddress),
    MEMBER(xen_memory_exchange, out.nr_extents),
    MEMBER(xen_memory_exchange, out.extent_order),
    MEMBER(xen_memory_exchange, nr_exchanged),
};
constexpr Structure kExchange = STRUCTURE(xen_memory_exchange, kExchangeFields);

constexpr Field kDomidFields[] = {whole<std::uint16_t>("domid", Format::kDomid)};
constexpr Structure kDomidOnly{"domid_t", XENSHIM_SIZES(std::uint16_t), kDomidFields};

constexpr Field kMfnListFields[] = {
    MEMBER(xen_machphys_mfn_list, max_extents),
    MEMBER(xen_machphys_mfn_list, extent_start, kAddress),
    MEMBER(xen_machphys_mfn_list, nr_extents),
};
constexpr Structure kMfnList = STRUCTURE(xen_machphys_mfn_list, kMfnListFields);

constexpr Field kPhysmapFields[] = {
    MEMBER(xen_add_to_physmap, domid, kDomid), MEMBER(xen_add_to_physmap, size),
    MEMBER(xen_add_to_physmap, space, kSpace), MEMBER(xen_add_to_physmap, idx, kHex),
    MEMBER(xen_add_to_physmap, gpfn, kPlace),
};
constexpr Structure kPhysmap = STRUCTURE(xen_add_to_physmap, kPhysmapFields);

constexpr Field kBatchFields[] = {
    MEMBER(xen_add_to_physmap_batch, domid, kDomid),
    MEMBER(xen_add_to_physmap_batch, space, kSpace),
    MEMBER(xen_add_to_physmap_batch, size),
    MEMBER(xen_add_to_physmap_batch, u, kHex),
    MEMBER(xen_add_to_physmap_batch, idxs, kAddress),
    MEMBER(xen_add_to_physmap_batch, gpfns, kAddress),
    MEMBER(xen_add_to_physmap_batch, errs, kAddress),
};
constexpr Structure kBatch = STRUCTURE(xen_add_to_physmap_batch, kBatchFields);

constexpr Field kMapFields[] = {
    MEMBER(xen_memory_map, nr_entries),
    MEMBER(xen_memory_map, buffer, kAddress),
};
constexpr Structure kMap = STRUCTURE(xen_memory_map, kMapFields);

constexpr Field kForeignMapFields[] = {
    MEMBER(xen_foreign_memory_map, domid, kDomid),
    MEMBER(xen_foreign_memory_map, map.nr_entries),
    MEMBER(xen_foreign_memory_map, map.buffer, kAddress),
};
constexpr Structure kForeignMap = STRUCTURE(xen_foreign_memory_map, kForeignMapFields);

constexpr Field kRemoveFields[] = {
    MEMBER(xen_remove_from_physmap, domid, kDomid),
    MEMBER(xen_remove_from_physmap, gpfn, kPlace),
};
constexpr Structure kRemove = STRUCTURE(xen_remove_from_physmap, kRemoveFields);

constexpr Field kVnumaFields[] = {
    MEMBER(xen_vnuma_topology_info, domid, kDomid),
    MEMBER(xen_vnuma_topology_info, nr_vnodes),
    MEMBER(xen_vnuma_topology_info, nr_vcpus),
    MEMBER(xen_vnuma_topology_info, nr_vmemranges),
};
constexpr Structure kVnuma = STRUCTURE(xen_vnuma_topology_info, kVnumaFields);

constexpr Field kAcquireFields[] = {
    MEMBER(xen_mem_acquire_resource, domid, kDomid),
    MEMBER(xen_mem_acquire_resource, type),
    MEMBER(xen_mem_acquire_resource, id, kHex),
    MEMBER(xen_mem_acquire_resource, nr_frames),
    MEMBER(xen_mem_acquire_resource, frame, kHex),
    MEMBER(xen_mem_acquire_resource, frame_list, kAddress),
};
constexpr Structure kAcquire = STRUCTURE(xen_mem_acquire_resource, kAcquireFields);

// ---- version.h ----------------------------------------------------------------------------------

constexpr Field kFeatureFields[] = {
    MEMBER(xen_feature_info, submap_idx),
    MEMBER(xen_feature_info, submap, kHex),
};
constexpr Structure kFeatures = STRUCTURE(xen_feature_info, kFeatureFields);

constexpr Field kPlatformFields[] = {
    MEMBER(xen_platform_parameters, virt_start, kHex),
};
constexpr Structure kPlatform = STRUCTURE(xen_platform_parameters, kPlatformFields);

// Longer texts are shown as far as they were kept.
constexpr Field kShortTextFields[] = {whole<xen_extraversion_t>("", Format::kText)};
constexpr Structure kShortText = STRUCTURE(xen_extraversion_t, kShortTextFields);
constexpr Field kTextFields[] = {whole<xen_changeset_info_t>("", Format::kText)};
constexpr Structure kText = STRUCTURE(xen_changeset_info_t, kTextFields);
constexpr Field kHandleFields[] = {whole<xen_domain_handle_t>("", Format::kBytes)};
constexpr Structure kHandle = STRUCTURE(xen_domain_handle_t, kHandleFields);

// ---- grant_table.h ------------------------------------------------------------------------------

constexpr Field kMapGrantFields[] = {
    MEMBER(gnttab_map_grant_ref, host_addr, kHex),
    MEMBER(gnttab_map_grant_ref, flags, kHex),
    MEMBER(gnttab_map_grant_ref, ref),
    MEMBER(gnttab_map_grant_ref, dom, kDomid),
    MEMBER(gnttab_map_grant_ref, status, kSigned),
    MEMBER(gnttab_map_grant_ref, handle),
    MEMBER(gnttab_map_grant_ref, dev_bus_addr, kHex),
};
constexpr Structure kMapGrant = STRUCTURE(gnttab_map_grant_ref, kMapGrantFields, true);

constexpr Field kUnmapGrantFields[] = {
    MEMBER(gnttab_unmap_grant_ref, host_addr, kHex),
    MEMBER(gnttab_unmap_grant_ref, dev_bus_addr, kHex),
    MEMBER(gnttab_unmap_grant_ref, handle),
    MEMBER(gnttab_unmap_grant_ref, status, kSigned),
};
constexpr Structure kUnmapGrant = STRUCTURE(gnttab_unmap_grant_ref, kUnmapGrantFields, true);

constexpr Field kSetupFields[] = {
    MEMBER(gnttab_setup_table, dom, kDomid),
    MEMBER(gnttab_setup_table, nr_frames),
    MEMBER(gnttab_setup_table, status, kSigned),
    MEMBER(gnttab_setup_table, frame_list, kAddress),
};
constexpr Structure kSetup = STRUCTURE(gnttab_setup_table, kSetupFields, true);

constexpr Field kCopyFields[] = {
    {"source.u", XENSHIM_PLACE(gnttab_copy, source_u), Format::kHex},
    {"source.domid", XENSHIM_PLACE(gnttab_copy, source_domid), Format::kDomid},
    {"source.offset", XENSHIM_PLACE(gnttab_copy, source_offset)},
    {"dest.u", XENSHIM_PLACE(gnttab_copy, dest_u), Format::kHex},
    {"dest.domid", XENSHIM_PLACE(gnttab_copy, dest_domid), Format::kDomid},
    {"dest.offset", XENSHIM_PLACE(gnttab_copy, dest_offset)},
    MEMBER(gnttab_copy, len),
    MEMBER(gnttab_copy, flags, kHex),
    MEMBER(gnttab_copy, status, kSigned),
};
constexpr Structure kCopy = STRUCTURE(gnttab_copy, kCopyFields, true);

constexpr Field kQueryFields[] = {
    MEMBER(gnttab_query_size, dom, kDomid),
    MEMBER(gnttab_query_size, nr_frames),
    MEMBER(gnttab_query_size, max_nr_frames),
    MEMBER(gnttab_query_size, status, kSigned),
};
constexpr Structure kQuery = STRUCTURE(gnttab_query_size, kQueryFields, true);

constexpr Field kSetVersionFields[] = {
    MEMBER(gnttab_set_version, version),
};
constexpr Structure kSetVersion = STRUCTURE(gnttab_set_version, kSetVersionFields, true);

constexpr Field kGetVersionFields[] = {
    MEMBER(gnttab_get_version, dom, kDomid),
    MEMBER(gnttab_get_version, version),
};
constexpr Structure kGetVersion = STRUCTURE(gnttab_get_version, kGetVersionFields, true);

constexpr Field kSwapFields[] = {
    MEMBER(gnttab_swap_grant_ref, ref_a),
    MEMBER(gnttab_swap_grant_ref, ref_b),
    MEMBER(gnttab_swap_grant_ref, status, kSigned),
};
constexpr Structure kSwap = STRUCTURE(gnttab_swap_grant_ref, kSwapFields, true);

// ---- vcpu.h -------------------------------------------------------------------------------------

constexpr Field kContextFields[] = {
    MEMBER(vcpu_hvm_context, mode),
};
constexpr Structure kContext = STRUCTURE(vcpu_hvm_context, kContextFields);

constexpr Field kRunstateFields[] = {
    MEMBER(vcpu_runstate_info, state),
    MEMBER(vcpu_runstate_info, state_entry_time, kTime),
};
constexpr Structure kRunstate = STRUCTURE(vcpu_runstate_info, kRunstateFields);

constexpr Field kAreaFields[] = {
    MEMBER(vcpu_register_memory_area, addr, kAddress),
};
constexpr Structure kRunstateArea{"vcpu_register_runstate_memory_area",
                                  XENSHIM_SIZES(vcpu_register_memory_area), kAreaFields};
constexpr Structure kTimeArea{"vcpu_register_time_memory_area",
                              XENSHIM_SIZES(vcpu_register_memory_area), kAreaFields};

constexpr Field kPeriodicFields[] = {
    MEMBER(vcpu_set_periodic_timer, period_ns),
};
constexpr Structure kPeriodic = STRUCTURE(vcpu_set_periodic_timer, kPeriodicFields);

constexpr Field kSingleshotFields[] = {
    MEMBER(vcpu_set_singleshot_timer, timeout_abs_ns, kTime),
    MEMBER(vcpu_set_singleshot_timer, flags, kHex),
};
constexpr Structure kSingleshot = STRUCTURE(vcpu_set_singleshot_timer, kSingleshotFields);

constexpr Field kVcpuInfoFields[] = {
    MEMBER(vcpu_register_vcpu_info, mfn, kPlace),
    MEMBER(vcpu_register_vcpu_info, offset, kPlace),
};
constexpr Structure kVcpuInfo = STRUCTURE(vcpu_register_vcpu_info, kVcpuInfoFields);

// ---- sched.h ------------------------------------------------------------------------------------

constexpr Field kReasonFields[] = {
    MEMBER(sched_shutdown, reason, kReason),
};
constexpr Structure kShutdown = STRUCTURE(sched_shutdown, kReasonFields);

constexpr Field kPollFields[] = {
    MEMBER(sched_poll, ports, kAddress),
    MEMBER(sched_poll, nr_ports),
    MEMBER(sched_poll, timeout, kTime),
};
constexpr Structure kPoll = STRUCTURE(sched_poll, kPollFields);

constexpr Field kRemoteFields[] = {
    MEMBER(sched_remote_shutdown, domain_id, kDomid),
    MEMBER(sched_remote_shutdown, reason, kReason),
};
constexpr Structure kRemote = STRUCTURE(sched_remote_shutdown, kRemoteFields);

constexpr Field kWatchdogFields[] = {
    MEMBER(sched_watchdog, id),
    MEMBER(sched_watchdog, timeout),
};
constexpr Structure kWatchdog = STRUCTURE(sched_watchdog, kWatchdogFields);

// ---- event_channel.h ----------------------------------------------------------------------------

constexpr Field kInterdomainFields[] = {
    MEMBER(evtchn_bind_interdomain, remote_dom, kDomid),
    MEMBER(evtchn_bind_interdomain, remote_port),
    MEMBER(evtchn_bind_interdomain, local_port),
};
constexpr Structure kInterdomain = STRUCTURE(evtchn_bind_interdomain, kInterdomainFields);

constexpr Field kVirqFields[] = {
    MEMBER(evtchn_bind_virq, virq, kVirq),
    MEMBER(evtchn_bind_virq, vcpu),
    MEMBER(evtchn_bind_virq, port),
};
constexpr Structure kVirq = STRUCTURE(evtchn_bind_virq, kVirqFields);

constexpr Field kPirqFields[] = {
    MEMBER(evtchn_bind_pirq, pirq),
    MEMBER(evtchn_bind_pirq, flags, kHex),
    MEMBER(evtchn_bind_pirq, port),
};
constexpr Structure kPirq = STRUCTURE(evtchn_bind_pirq, kPirqFields);

constexpr Field kPortFields[] = {
    MEMBER(evtchn_port, port),
};
constexpr Structure kClose{"evtchn_close", XENSHIM_SIZES(evtchn_port), kPortFields};
constexpr Structure kSend{"evtchn_send", XENSHIM_SIZES(evtchn_port), kPortFields};
constexpr Structure kUnmask{"evtchn_unmask", XENSHIM_SIZES(evtchn_port), kPortFields};

constexpr Field kStatusFields[] = {
    MEMBER(evtchn_status, dom, kDomid),
    MEMBER(evtchn_status, port),
    MEMBER(evtchn_status, status),
    MEMBER(evtchn_status, vcpu),
};
constexpr Structure kStatus = STRUCTURE(evtchn_status, kStatusFields);

constexpr Field kUnboundFields[] = {
    MEMBER(evtchn_alloc_unbound, dom, kDomid),
    MEMBER(evtchn_alloc_unbound, remote_dom, kDomid),
    MEMBER(evtchn_alloc_unbound, port),
};
constexpr Structure kUnbound = STRUCTURE(evtchn_alloc_unbound, kUnboundFields);

constexpr Field kIpiFields[] = {
    MEMBER(evtchn_bind_ipi, vcpu),
    MEMBER(evtchn_bind_ipi, port),
};
constexpr Structure kIpi = STRUCTURE(evtchn_bind_ipi, kIpiFields);

constexpr Field kBindVcpuFields[] = {
    MEMBER(evtchn_bind_vcpu, port),
    MEMBER(evtchn_bind_vcpu, vcpu),
};
constexpr Structure kBindVcpu = STRUCTURE(evtchn_bind_vcpu, kBindVcpuFields);

constexpr Field kResetFields[] = {
    MEMBER(evtchn_reset, dom, kDomid),
};
constexpr Structure kReset = STRUCTURE(evtchn_reset, kResetFields);

constexpr Field kControlFields[] = {
    MEMBER(evtchn_init_control, control_gfn, kPlace),
    MEMBER(evtchn_init_control, offset),
    MEMBER(evtchn_init_control, vcpu),
    MEMBER(evtchn_init_control, link_bits),
};
constexpr Structure kControl = STRUCTURE(evtchn_init_control, kControlFields);

constexpr Field kExpandFields[] = {
    MEMBER(evtchn_expand_array, array_gfn, kPlace),
};
constexpr Structure kExpand = STRUCTURE(evtchn_expand_array, kExpandFields);

constexpr Field kPriorityFields[] = {
    MEMBER(evtchn_set_priority, port),
    MEMBER(evtchn_set_priority, priority),
};
constexpr Structure kPriority = STRUCTURE(evtchn_set_priority, kPriorityFields);

// ---- hvm/hvm_op.h -------------------------------------------------------------------------------

constexpr Field kParamFields[] = {
    MEMBER(xen_hvm_param, domid, kDomid),
    MEMBER(xen_hvm_param, index, kParam),
    MEMBER(xen_hvm_param, value, kHex),
};
constexpr Structure kParam = STRUCTURE(xen_hvm_param, kParamFields);

constexpr Field kDyingFields[] = {
    MEMBER(xen_hvm_pagetable_dying, domid, kDomid),
    MEMBER(xen_hvm_pagetable_dying, gpa, kHex),
};
constexpr Structure kDying = STRUCTURE(xen_hvm_pagetable_dying, kDyingFields);

constexpr Field kGetTimeFields[] = {
    MEMBER(xen_hvm_get_time, now, kTime),
};
constexpr Structure kGetTime = STRUCTURE(xen_hvm_get_time, kGetTimeFields);

constexpr Field kXentraceFields[] = {
    MEMBER(xen_hvm_xentrace, event, kHex),
    MEMBER(xen_hvm_xentrace, extra_bytes),
};
constexpr Structure kXentrace = STRUCTURE(xen_hvm_xentrace, kXentraceFields);

constexpr Field kMemTypeFields[] = {
    MEMBER(xen_hvm_get_mem_type, domid, kDomid),
    MEMBER(xen_hvm_get_mem_type, mem_type),
    MEMBER(xen_hvm_get_mem_type, pfn, kHex),
};
constexpr Structure kMemType = STRUCTURE(xen_hvm_get_mem_type, kMemTypeFields);

constexpr Field kUpcallFields[] = {
    MEMBER(xen_hvm_evtchn_upcall_vector, vcpu),
    MEMBER(xen_hvm_evtchn_upcall_vector, vector, kHex),
};
constexpr Structure kUpcall = STRUCTURE(xen_hvm_evtchn_upcall_vector, kUpcallFields);

#undef STRUCTURE
#undef MEMBER

// -------------------------------------------------------------------------------------------------

struct Row {
    std::uint32_t hypercall, sub_op;
    const Structure* structure;
};

constexpr Row kRows[] = {
    {HYPERVISOR_memory_op, XENMEM_increase_reservation, &kReservation},
    {HYPERVISOR_memory_op, XENMEM_decrease_reservation, &kReservation},
    {HYPERVISOR_memory_op, XENMEM_populate_physmap, &kReservation},
    {HYPERVISOR_memory_op, XENMEM_claim_pages, &kReservation},
    {HYPERVISOR_memory_op, XENMEM_current_reservation, &kDomidOnly},
    {HYPERVISOR_memory_op, XENMEM_maximum_reservation, &kDomidOnly},
    {HYPERVISOR_memory_op, XENMEM_maximum_gpfn, &kDomidOnly},
    {HYPERVISOR_memory_op, XENMEM_machphys_mfn_list, &kMfnList},
    {HYPERVISOR_memory_op, XENMEM_machphys_compat_mfn_list, &kMfnList},
    {HYPERVISOR_memory_op, XENMEM_add_to_physmap, &kPhysmap},
    {HYPERVISOR_memory_op, XENMEM_add_to_physmap_batch, &kBatch},
    {HYPERVISOR_memory_op, XENMEM_memory_map, &kMap},
    {HYPERVISOR_memory_op, XENMEM_machine_memory_map, &kMap},
    {HYPERVISOR_memory_op, XENMEM_set_memory_map, &kForeignMap},
    {HYPERVISOR_memory_op, XENMEM_exchange, &kExchange},
    {HYPERVISOR_memory_op, XENMEM_remove_from_physmap, &kRemove},
    {HYPERVISOR_memory_op, XENMEM_get_vnumainfo, &kVnuma},
    {HYPERVISOR_memory_op, XENMEM_acquire_resource, &kAcquire},

    {HYPERVISOR_xen_version, XENVER_extraversion, &kShortText},
    {HYPERVISOR_xen_version, XENVER_capabilities, &kText},
    {HYPERVISOR_xen_version, XENVER_changeset, &kText},
    {HYPERVISOR_xen_version, XENVER_commandline, &kText},
    {HYPERVISOR_xen_version, XENVER_platform_parameters, &kPlatform},
    {HYPERVISOR_xen_version, XENVER_get_features, &kFeatures},
    {HYPERVISOR_xen_version, XENVER_guest_handle, &kHandle},

    {HYPERVISOR_grant_table_op, GNTTABOP_map_grant_ref, &kMapGrant},
    {HYPERVISOR_grant_table_op, GNTTABOP_unmap_grant_ref, &kUnmapGrant},
    {HYPERVISOR_grant_table_op, GNTTABOP_setup_table, &kSetup},
    {HYPERVISOR_grant_table_op, GNTTABOP_copy, &kCopy},
    {HYPERVISOR_grant_table_op, GNTTABOP_query_size, &kQuery},
    {HYPERVISOR_grant_table_op, GNTTABOP_set_version, &kSetVersion},
    {HYPERVISOR_grant_table_op, GNTTABOP_get_version, &kGetVersion},
    {HYPERVISOR_grant_table_op, GNTTABOP_swap_grant_ref, &kSwap},

    {HYPERVISOR_vcpu_op, VCPUOP_initialise, &kContext},
    {HYPERVISOR_vcpu_op, VCPUOP_get_runstate_info, &kRunstate},
    {HYPERVISOR_vcpu_op, VCPUOP_register_runstate_memory_area, &kRunstateArea},
    {HYPERVISOR_vcpu_op, VCPUOP_set_periodic_timer, &kPeriodic},
    {HYPERVISOR_vcpu_op, VCPUOP_set_singleshot_timer, &kSingleshot},
    {HYPERVISOR_vcpu_op, VCPUOP_register_vcpu_info, &kVcpuInfo},
    {HYPERVISOR_vcpu_op, VCPUOP_register_vcpu_time_memory_area, &kTimeArea},

    {HYPERVISOR_sched_op, SCHEDOP_shutdown, &kShutdown},
    {HYPERVISOR_sched_op, SCHEDOP_poll, &kPoll},
    {HYPERVISOR_sched_op, SCHEDOP_remote_shutdown, &kRemote},
    {HYPERVISOR_sched_op, SCHEDOP_shutdown_code, &kShutdown},
    {HYPERVISOR_sched_op, SCHEDOP_watchdog, &kWatchdog},

    {HYPERVISOR_event_channel_op, EVTCHNOP_bind_interdomain, &kInterdomain},
    {HYPERVISOR_event_channel_op, EVTCHNOP_bind_virq, &kVirq},
    {HYPERVISOR_event_channel_op, EVTCHNOP_bind_pirq, &kPirq},
    {HYPERVISOR_event_channel_op, EVTCHNOP_close, &kClose},
    {HYPERVISOR_event_channel_op, EVTCHNOP_send, &kSend},
    {HYPERVISOR_event_channel_op, EVTCHNOP_status, &kStatus},
    {HYPERVISOR_event_channel_op, EVTCHNOP_alloc_unbound, &kUnbound},
    {HYPERVISOR_event_channel_op, EVTCHNOP_bind_ipi, &kIpi},
    {HYPERVISOR_event_channel_op, EVTCHNOP_bind_vcpu, &kBindVcpu},
    {HYPERVISOR_event_channel_op, EVTCHNOP_unmask, &kUnmask},
    {HYPERVISOR_event_channel_op, EVTCHNOP_reset, &kReset},
    {HYPERVISOR_event_channel_op, EVTCHNOP_reset_cont, &kReset},
    {HYPERVISOR_event_channel_op, EVTCHNOP_init_control, &kControl},
    {HYPERVISOR_event_channel_op, EVTCHNOP_expand_array, &kExpand},
    {HYPERVISOR_event_channel_op, EVTCHNOP_set_priority, &kPriority},

    {HYPERVISOR_hvm_op, HVMOP_set_param, &kParam},
    {HYPERVISOR_hvm_op, HVMOP_get_param, &kParam},
    {HYPERVISOR_hvm_op, HVMOP_pagetable_dying, &kDying},
    {HYPERVISOR_hvm_op, HVMOP_get_time, &kGetTime},
    {HYPERVISOR_hvm_op, HVMOP_xentrace, &kXentrace},
    {HYPERVISOR_hvm_op, HVMOP_get_mem_type, &kMemType},
    {HYPERVISOR_hvm_op, HVMOP_set_evtchn_upcall_vector, &kUpcall},
};

constexpr auto kStructures = [] {
    std::array<const Structure*, std::size(kRows)> all{};
    for (std::size_t i = 0; i < all.size(); ++i) {
        all[i] = kRows[i].structure;
    }
    return all;
}();

}  // namespace

const Structure* structure_of(std::uint64_t hypercall, std::uint64_t sub_op) {
    const auto found = std::find_if(std::begin(kRows), std::end(kRows), [&](const Row& row) {
        return row.hypercall == hypercall && row.sub_op == sub_op;
    });
    return found == std::end(kRows) ? nullptr : found->structure;
}

std::span<const Structure* const> structures() {
    return kStructures;
}

}  // namespace xenshim::trace
