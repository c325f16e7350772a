#include "xenshim/trace/structures.h"

#include <algorithm>
#include <array>

#include "xenshim/abi/numbers.h"
#include "xenshim/abi/other_numbers.h"

namespace xenshim::trace {
namespace {

using namespace abi;

constexpr Field same(std::string_view name, std::uint8_t at, std::uint8_t bytes,
                     Format format = Format::kDecimal) {
    return {name, at, bytes, at, bytes, format};
}
// A long or a pointer.
constexpr Field word(std::string_view name, std::uint8_t at_32, std::uint8_t at_64, Format format) {
    return {name, at_32, 4, at_64, 8, format};
}
constexpr Field moved(std::string_view name, std::uint8_t bytes, std::uint8_t at_32,
                      std::uint8_t at_64, Format format = Format::kDecimal) {
    return {name, at_32, bytes, at_64, bytes, format};
}

// ---- memory.h -----------------------------------------------------------------------------------

constexpr Field kReservationFields[] = {
    word("extent_start", 0, 0, Format::kAddress),
    word("nr_extents", 4, 8, Format::kDecimal),
    moved("extent_order", 4, 8, 16),
    moved("mem_flags", 4, 12, 20, Format::kHex),
    moved("domid", 2, 16, 24, Format::kDomid),
};
constexpr Structure kReservation{"xen_memory_reservation", 20, 32, kReservationFields};

constexpr Field kExchangeFields[] = {
    word("in.extent_start", 0, 0, Format::kAddress),
    word("in.nr_extents", 4, 8, Format::kDecimal),
    moved("in.extent_order", 4, 8, 16),
    moved("in.domid", 2, 16, 24, Format::kDomid),
    word("out.extent_start", 20, 32, Format::kAddress),
    word("out.nr_extents", 24, 40, Format::kDecimal),
    moved("out.extent_order", 4, 28, 48),
    word("nr_exchanged", 40, 64, Format::kDecimal),
};
constexpr Structure kExchange{"xen_memory_exchange", 44, 72, kExchangeFields};

constexpr Field kDomidFields[] = {same("domid", 0, 2, Format::kDomid)};
constexpr Structure kDomidOnly{"domid_t", 2, 2, kDomidFields};

constexpr Field kMfnListFields[] = {
    same("max_extents", 0, 4),
    word("extent_start", 4, 8, Format::kAddress),
    moved("nr_extents", 4, 8, 16),
};
constexpr Structure kMfnList{"xen_machphys_mfn_list", 12, 24, kMfnListFields};

constexpr Field kPhysmapFields[] = {
    same("domid", 0, 2, Format::kDomid),  same("size", 2, 2),
    same("space", 4, 4, Format::kSpace),  word("idx", 8, 8, Format::kHex),
    word("gpfn", 12, 16, Format::kPlace),
};
constexpr Structure kPhysmap{"xen_add_to_physmap", 16, 24, kPhysmapFields};

constexpr Field kBatchFields[] = {
    same("domid", 0, 2, Format::kDomid),
    same("space", 2, 2, Format::kSpace),
    same("size", 4, 2),
    same("u", 6, 2, Format::kHex),
    word("idxs", 8, 8, Format::kAddress),
    word("gpfns", 12, 16, Format::kAddress),
    word("errs", 16, 24, Format::kAddress),
};
constexpr Structure kBatch{"xen_add_to_physmap_batch", 20, 32, kBatchFields};

constexpr Field kMapFields[] = {
    same("nr_entries", 0, 4),
    word("buffer", 4, 8, Format::kAddress),
};
constexpr Structure kMap{"xen_memory_map", 8, 16, kMapFields};

constexpr Field kForeignMapFields[] = {
    same("domid", 0, 2, Format::kDomid),
    moved("map.nr_entries", 4, 4, 8),
    word("map.buffer", 8, 16, Format::kAddress),
};
constexpr Structure kForeignMap{"xen_foreign_memory_map", 12, 24, kForeignMapFields};

constexpr Field kRemoveFields[] = {
    same("domid", 0, 2, Format::kDomid),
    word("gpfn", 4, 8, Format::kPlace),
};
constexpr Structure kRemove{"xen_remove_from_physmap", 8, 16, kRemoveFields};

constexpr Field kVnumaFields[] = {
    same("domid", 0, 2, Format::kDomid),
    same("nr_vnodes", 4, 4),
    same("nr_vcpus", 8, 4),
    same("nr_vmemranges", 12, 4),
};
constexpr Structure kVnuma{"xen_vnuma_topology_info", 40, 40, kVnumaFields};

constexpr Field kAcquireFields[] = {
    same("domid", 0, 2, Format::kDomid), same("type", 2, 2),
    same("id", 4, 4, Format::kHex),      same("nr_frames", 8, 4),
    same("frame", 16, 8, Format::kHex),  word("frame_list", 24, 24, Format::kAddress),
};
constexpr Structure kAcquire{"xen_mem_acquire_resource", 28, 32, kAcquireFields};

// ---- version.h ----------------------------------------------------------------------------------

constexpr Field kFeatureFields[] = {same("submap_idx", 0, 4), same("submap", 4, 4, Format::kHex)};
constexpr Structure kFeatures{"xen_feature_info", 8, 8, kFeatureFields};

constexpr Field kPlatformFields[] = {word("virt_start", 0, 0, Format::kHex)};
constexpr Structure kPlatform{"xen_platform_parameters", 4, 8, kPlatformFields};

// Longer texts are shown as far as they were kept.
constexpr Field kShortTextFields[] = {same("", 0, 16, Format::kText)};
constexpr Structure kShortText{"xen_extraversion_t", 16, 16, kShortTextFields};
constexpr Field kTextFields[] = {same("", 0, 64, Format::kText)};
constexpr Structure kText{"xen_changeset_info_t", 64, 64, kTextFields};
constexpr Field kHandleFields[] = {same("", 0, 16, Format::kBytes)};
constexpr Structure kHandle{"xen_domain_handle_t", 16, 16, kHandleFields};

// ---- grant_table.h ------------------------------------------------------------------------------

constexpr Field kMapGrantFields[] = {
    same("host_addr", 0, 8, Format::kHex),
    same("flags", 8, 4, Format::kHex),
    same("ref", 12, 4),
    same("dom", 16, 2, Format::kDomid),
    same("status", 18, 2, Format::kSigned),
    same("handle", 20, 4),
    same("dev_bus_addr", 24, 8, Format::kHex),
};
constexpr Structure kMapGrant{"gnttab_map_grant_ref", 32, 32, kMapGrantFields, true};

constexpr Field kUnmapGrantFields[] = {
    same("host_addr", 0, 8, Format::kHex),
    same("dev_bus_addr", 8, 8, Format::kHex),
    same("handle", 16, 4),
    same("status", 20, 2, Format::kSigned),
};
constexpr Structure kUnmapGrant{"gnttab_unmap_grant_ref", 24, 24, kUnmapGrantFields, true};

constexpr Field kSetupFields[] = {
    same("dom", 0, 2, Format::kDomid),
    same("nr_frames", 4, 4),
    same("status", 8, 2, Format::kSigned),
    word("frame_list", 12, 16, Format::kAddress),
};
constexpr Structure kSetup{"gnttab_setup_table", 16, 24, kSetupFields, true};

constexpr Field kCopyFields[] = {
    word("source.u", 0, 0, Format::kHex),
    moved("source.domid", 2, 4, 8, Format::kDomid),
    moved("source.offset", 2, 6, 10),
    word("dest.u", 8, 16, Format::kHex),
    moved("dest.domid", 2, 12, 24, Format::kDomid),
    moved("dest.offset", 2, 14, 26),
    moved("len", 2, 16, 32),
    moved("flags", 2, 18, 34, Format::kHex),
    moved("status", 2, 20, 36, Format::kSigned),
};
constexpr Structure kCopy{"gnttab_copy", 24, 40, kCopyFields, true};

constexpr Field kQueryFields[] = {
    same("dom", 0, 2, Format::kDomid),
    same("nr_frames", 4, 4),
    same("max_nr_frames", 8, 4),
    same("status", 12, 2, Format::kSigned),
};
constexpr Structure kQuery{"gnttab_query_size", 16, 16, kQueryFields, true};

constexpr Field kSetVersionFields[] = {same("version", 0, 4)};
constexpr Structure kSetVersion{"gnttab_set_version", 4, 4, kSetVersionFields, true};

constexpr Field kGetVersionFields[] = {same("dom", 0, 2, Format::kDomid), same("version", 4, 4)};
constexpr Structure kGetVersion{"gnttab_get_version", 8, 8, kGetVersionFields, true};

constexpr Field kSwapFields[] = {
    same("ref_a", 0, 4),
    same("ref_b", 4, 4),
    same("status", 8, 2, Format::kSigned),
};
constexpr Structure kSwap{"gnttab_swap_grant_ref", 12, 12, kSwapFields, true};

// ---- vcpu.h -------------------------------------------------------------------------------------

constexpr Field kContextFields[] = {same("mode", 0, 4)};
constexpr Structure kContext{"vcpu_hvm_context", 128, 128, kContextFields};

constexpr Field kRunstateFields[] = {
    same("state", 0, 4),
    moved("state_entry_time", 8, 4, 8, Format::kTime),
};
constexpr Structure kRunstate{"vcpu_runstate_info", 44, 48, kRunstateFields};

constexpr Field kAreaFields[] = {same("addr", 0, 8, Format::kAddress)};
constexpr Structure kRunstateArea{"vcpu_register_runstate_memory_area", 8, 8, kAreaFields};
constexpr Structure kTimeArea{"vcpu_register_time_memory_area", 8, 8, kAreaFields};

constexpr Field kPeriodicFields[] = {same("period_ns", 0, 8)};
constexpr Structure kPeriodic{"vcpu_set_periodic_timer", 8, 8, kPeriodicFields};

constexpr Field kSingleshotFields[] = {
    same("timeout_abs_ns", 0, 8, Format::kTime),
    same("flags", 8, 4, Format::kHex),
};
constexpr Structure kSingleshot{"vcpu_set_singleshot_timer", 12, 16, kSingleshotFields};

constexpr Field kVcpuInfoFields[] = {same("mfn", 0, 8, Format::kPlace),
                                     same("offset", 8, 4, Format::kPlace)};
constexpr Structure kVcpuInfo{"vcpu_register_vcpu_info", 16, 16, kVcpuInfoFields};

// ---- sched.h ------------------------------------------------------------------------------------

constexpr Field kReasonFields[] = {same("reason", 0, 4, Format::kReason)};
constexpr Structure kShutdown{"sched_shutdown", 4, 4, kReasonFields};

constexpr Field kPollFields[] = {
    word("ports", 0, 0, Format::kAddress),
    moved("nr_ports", 4, 4, 8),
    moved("timeout", 8, 8, 16, Format::kTime),
};
constexpr Structure kPoll{"sched_poll", 16, 24, kPollFields};

constexpr Field kRemoteFields[] = {
    same("domain_id", 0, 2, Format::kDomid),
    same("reason", 4, 4, Format::kReason),
};
constexpr Structure kRemote{"sched_remote_shutdown", 8, 8, kRemoteFields};

constexpr Field kWatchdogFields[] = {same("id", 0, 4), same("timeout", 4, 4)};
constexpr Structure kWatchdog{"sched_watchdog", 8, 8, kWatchdogFields};

// ---- event_channel.h ----------------------------------------------------------------------------

constexpr Field kInterdomainFields[] = {
    same("remote_dom", 0, 2, Format::kDomid),
    same("remote_port", 4, 4),
    same("local_port", 8, 4),
};
constexpr Structure kInterdomain{"evtchn_bind_interdomain", 12, 12, kInterdomainFields};

constexpr Field kVirqFields[] = {
    same("virq", 0, 4, Format::kVirq),
    same("vcpu", 4, 4),
    same("port", 8, 4),
};
constexpr Structure kVirq{"evtchn_bind_virq", 12, 12, kVirqFields};

constexpr Field kPirqFields[] = {
    same("pirq", 0, 4),
    same("flags", 4, 4, Format::kHex),
    same("port", 8, 4),
};
constexpr Structure kPirq{"evtchn_bind_pirq", 12, 12, kPirqFields};

constexpr Field kPortFields[] = {same("port", 0, 4)};
constexpr Structure kClose{"evtchn_close", 4, 4, kPortFields};
constexpr Structure kSend{"evtchn_send", 4, 4, kPortFields};
constexpr Structure kUnmask{"evtchn_unmask", 4, 4, kPortFields};

constexpr Field kStatusFields[] = {
    same("dom", 0, 2, Format::kDomid),
    same("port", 4, 4),
    same("status", 8, 4),
    same("vcpu", 12, 4),
};
constexpr Structure kStatus{"evtchn_status", 24, 24, kStatusFields};

constexpr Field kUnboundFields[] = {
    same("dom", 0, 2, Format::kDomid),
    same("remote_dom", 2, 2, Format::kDomid),
    same("port", 4, 4),
};
constexpr Structure kUnbound{"evtchn_alloc_unbound", 8, 8, kUnboundFields};

constexpr Field kIpiFields[] = {same("vcpu", 0, 4), same("port", 4, 4)};
constexpr Structure kIpi{"evtchn_bind_ipi", 8, 8, kIpiFields};

constexpr Field kBindVcpuFields[] = {same("port", 0, 4), same("vcpu", 4, 4)};
constexpr Structure kBindVcpu{"evtchn_bind_vcpu", 8, 8, kBindVcpuFields};

constexpr Field kResetFields[] = {same("dom", 0, 2, Format::kDomid)};
constexpr Structure kReset{"evtchn_reset", 2, 2, kResetFields};

constexpr Field kControlFields[] = {
    same("control_gfn", 0, 8, Format::kPlace),
    same("offset", 8, 4),
    same("vcpu", 12, 4),
    same("link_bits", 16, 1),
};
constexpr Structure kControl{"evtchn_init_control", 24, 24, kControlFields};

constexpr Field kExpandFields[] = {same("array_gfn", 0, 8, Format::kPlace)};
constexpr Structure kExpand{"evtchn_expand_array", 8, 8, kExpandFields};

constexpr Field kPriorityFields[] = {same("port", 0, 4), same("priority", 4, 4)};
constexpr Structure kPriority{"evtchn_set_priority", 8, 8, kPriorityFields};

// ---- hvm/hvm_op.h -------------------------------------------------------------------------------

constexpr Field kParamFields[] = {
    same("domid", 0, 2, Format::kDomid),
    same("index", 4, 4, Format::kParam),
    same("value", 8, 8, Format::kHex),
};
constexpr Structure kParam{"xen_hvm_param", 16, 16, kParamFields};

constexpr Field kDyingFields[] = {
    same("domid", 0, 2, Format::kDomid),
    same("gpa", 8, 8, Format::kHex),
};
constexpr Structure kDying{"xen_hvm_pagetable_dying", 16, 16, kDyingFields};

constexpr Field kGetTimeFields[] = {same("now", 0, 8, Format::kTime)};
constexpr Structure kGetTime{"xen_hvm_get_time", 8, 8, kGetTimeFields};

constexpr Field kXentraceFields[] = {same("event", 0, 2, Format::kHex), same("extra_bytes", 2, 2)};
constexpr Structure kXentrace{"xen_hvm_xentrace", 32, 32, kXentraceFields};

constexpr Field kMemTypeFields[] = {
    same("domid", 0, 2, Format::kDomid),
    same("mem_type", 2, 2),
    same("pfn", 8, 8, Format::kHex),
};
constexpr Structure kMemType{"xen_hvm_get_mem_type", 16, 16, kMemTypeFields};

constexpr Field kUpcallFields[] = {same("vcpu", 0, 4), same("vector", 4, 1, Format::kHex)};
constexpr Structure kUpcall{"xen_hvm_evtchn_upcall_vector", 8, 8, kUpcallFields};

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
