#include "xenshim/abi/operations.h"

#include <algorithm>
#include <array>

#include "xenshim/abi/numbers.h"
#include "xenshim/abi/other_numbers.h"

namespace xenshim::abi {
namespace {

constexpr auto V = xen_release;
constexpr auto kPrivileged = Standing::kPrivileged;
constexpr auto kAbsent = Standing::kAbsent;
constexpr auto kDevice = Condition::kHvmDeviceOps;

constexpr std::string_view kOnItself =
    "Xen 3.x let a guest do this to itself, without a limit on its range; here only --privileges "
    "dm "
    "does, under any profile, and KVM does not enforce what it asks for";

constexpr std::array kHypercalls = {
    Hypercall{HYPERVISOR_platform_op, "platform_op", kPrivileged},
    Hypercall{HYPERVISOR_memory_op, "memory_op"},
    Hypercall{HYPERVISOR_multicall, "multicall"},
    Hypercall{HYPERVISOR_set_timer_op, "set_timer_op"},
    Hypercall{HYPERVISOR_xen_version, "xen_version"},
    Hypercall{HYPERVISOR_console_io, "console_io", kPrivileged},
    Hypercall{HYPERVISOR_grant_table_op, "grant_table_op"},
    Hypercall{HYPERVISOR_vm_assist, "vm_assist"},
    Hypercall{HYPERVISOR_vcpu_op, "vcpu_op"},
    Hypercall{HYPERVISOR_mmuext_op, "mmuext_op", kPrivileged},
    Hypercall{HYPERVISOR_xsm_op, "xsm_op", kAbsent},
    Hypercall{HYPERVISOR_sched_op, "sched_op"},
    Hypercall{HYPERVISOR_event_channel_op, "event_channel_op"},
    Hypercall{HYPERVISOR_physdev_op, "physdev_op", kAbsent},
    Hypercall{HYPERVISOR_hvm_op, "hvm_op"},
    Hypercall{HYPERVISOR_sysctl, "sysctl", kPrivileged,
              "the interface version is 4.17's under every profile"},
    Hypercall{HYPERVISOR_domctl, "domctl", kPrivileged,
              "the interface version is 4.17's under every profile"},
    Hypercall{HYPERVISOR_tmem_op, "tmem_op", kPrivileged},
    Hypercall{HYPERVISOR_argo_op, "argo_op", kAbsent},
    Hypercall{HYPERVISOR_xenpmu_op, "xenpmu_op", kPrivileged},
    Hypercall{HYPERVISOR_dm_op, "dm_op", kPrivileged,
              "--privileges dm grants modified_memory and set_mem_type alone, on the guest itself; "
              "KVM does not enforce the types, and nobody reads a log of modified pages"},
    Hypercall{HYPERVISOR_hypfs_op, "hypfs_op", kPrivileged},
    Hypercall{HYPERVISOR_arch_1, "paging_domctl_cont", kPrivileged},
};

constexpr std::uint32_t kMem = HYPERVISOR_memory_op, kVersion = HYPERVISOR_xen_version,
                        kConsole = HYPERVISOR_console_io, kGrant = HYPERVISOR_grant_table_op,
                        kAssist = HYPERVISOR_vm_assist, kVcpu = HYPERVISOR_vcpu_op,
                        kSched = HYPERVISOR_sched_op, kEvent = HYPERVISOR_event_channel_op,
                        kHvm = HYPERVISOR_hvm_op;

constexpr std::string_view kOneClockRecord =
    "-ENOSYS where the host's KVM has no second clock record (transport portable)";

constexpr std::array kOperations = {
    Operation{kMem, XENMEM_increase_reservation, "XENMEM_increase_reservation"},
    Operation{kMem, XENMEM_decrease_reservation, "XENMEM_decrease_reservation"},
    Operation{kMem, XENMEM_maximum_ram_page, "XENMEM_maximum_ram_page", 0, kForever,
              Standing::kGuest, Condition::kNone,
              "the end of the guest's own memory, not of the host's: that is none of its business"},
    Operation{kMem, XENMEM_current_reservation, "XENMEM_current_reservation"},
    Operation{kMem, XENMEM_maximum_reservation, "XENMEM_maximum_reservation"},
    Operation{kMem, XENMEM_machphys_mfn_list, "XENMEM_machphys_mfn_list", 0, kForever,
              Standing::kGuest, Condition::kNone,
              "a list without an entry: there is no machine-to-physical table to name frames of"},
    Operation{kMem, XENMEM_populate_physmap, "XENMEM_populate_physmap"},
    Operation{kMem, XENMEM_add_to_physmap, "XENMEM_add_to_physmap"},
    Operation{kMem, XENMEM_translate_gpfn_list, "XENMEM_translate_gpfn_list", 0, V(3, 4),
              kPrivileged},
    Operation{kMem, XENMEM_memory_map, "XENMEM_memory_map", V(4, 6)},
    Operation{kMem, XENMEM_machine_memory_map, "XENMEM_machine_memory_map", V(4, 19), kForever,
              kPrivileged},
    Operation{kMem, XENMEM_exchange, "XENMEM_exchange", 0, kForever, Standing::kGuest,
              Condition::kNone,
              "-EOPNOTSUPP for any page, as measured on 4.17; releases before steal_page() refused "
              "translated guests may have exchanged it"},
    Operation{kMem, XENMEM_machphys_mapping, "XENMEM_machphys_mapping", 0, kForever, kAbsent},
    Operation{kMem, XENMEM_set_memory_map, "XENMEM_set_memory_map"},
    Operation{kMem, XENMEM_maximum_gpfn, "XENMEM_maximum_gpfn"},
    Operation{kMem, XENMEM_remove_from_physmap, "XENMEM_remove_from_physmap"},
    Operation{kMem, XENMEM_set_pod_target, "XENMEM_set_pod_target", V(3, 4), kForever, kPrivileged},
    Operation{kMem, XENMEM_get_pod_target, "XENMEM_get_pod_target", V(3, 4), kForever, kPrivileged},
    Operation{kMem, XENMEM_get_sharing_freed_pages, "XENMEM_get_sharing_freed_pages", V(4, 1)},
    Operation{kMem, XENMEM_get_sharing_shared_pages, "XENMEM_get_sharing_shared_pages", V(4, 2)},
    Operation{kMem, XENMEM_paging_op, "XENMEM_paging_op", V(4, 2), kForever, kAbsent},
    Operation{kMem, XENMEM_access_op, "XENMEM_access_op", V(4, 2), kForever, kPrivileged},
    Operation{kMem, XENMEM_sharing_op, "XENMEM_sharing_op", V(4, 2), kForever, kAbsent},
    Operation{kMem, XENMEM_add_to_physmap_batch, "XENMEM_add_to_physmap_batch", V(4, 4)},
    Operation{kMem, XENMEM_claim_pages, "XENMEM_claim_pages", V(4, 3), kForever, kPrivileged},
    Operation{kMem, XENMEM_machphys_compat_mfn_list, "XENMEM_machphys_compat_mfn_list", V(4, 4)},
    Operation{kMem, XENMEM_get_vnumainfo, "XENMEM_get_vnumainfo", V(4, 5)},
    Operation{kMem, XENMEM_reserved_device_memory_map, "XENMEM_reserved_device_memory_map",
              V(4, 6)},
    Operation{kMem, XENMEM_acquire_resource, "XENMEM_acquire_resource", V(4, 11), kForever,
              kPrivileged},
    Operation{kMem, XENMEM_private_translate_gpfn_list, "translate_gpfn_list (XenServer)", 0,
              kForever, kPrivileged, Condition::kPrivateMemoryOps,
              "-EPERM: XenServer's patch shows no check, but what it hands out are host frames"},
    Operation{kMem, XENMEM_private_release_mfn_list, "release_mfn_list (XenServer)", 0, kForever,
              kPrivileged, Condition::kPrivateMemoryOps,
              "-EPERM: XenServer's patch shows no check, but what it takes are host frames"},

    Operation{kVersion, XENVER_version, "XENVER_version"},
    Operation{kVersion, XENVER_extraversion, "XENVER_extraversion"},
    Operation{kVersion, XENVER_compile_info, "XENVER_compile_info"},
    Operation{kVersion, XENVER_capabilities, "XENVER_capabilities"},
    Operation{kVersion, XENVER_changeset, "XENVER_changeset"},
    Operation{kVersion, XENVER_platform_parameters, "XENVER_platform_parameters"},
    Operation{kVersion, XENVER_get_features, "XENVER_get_features"},
    Operation{kVersion, XENVER_pagesize, "XENVER_pagesize"},
    Operation{kVersion, XENVER_guest_handle, "XENVER_guest_handle"},
    Operation{kVersion, XENVER_commandline, "XENVER_commandline"},
    Operation{kVersion, XENVER_build_id, "XENVER_build_id", V(4, 7), kForever, kPrivileged},
    Operation{kVersion, XENVER_extraversion2, "XENVER_extraversion2", V(4, 20)},
    Operation{kVersion, XENVER_capabilities2, "XENVER_capabilities2", V(4, 20)},
    Operation{kVersion, XENVER_changeset2, "XENVER_changeset2", V(4, 20)},
    Operation{kVersion, XENVER_commandline2, "XENVER_commandline2", V(4, 20), kForever,
              kPrivileged},

    Operation{kConsole, CONSOLEIO_write, "CONSOLEIO_write", 0, kForever, kPrivileged},
    Operation{kConsole, CONSOLEIO_read, "CONSOLEIO_read", 0, kForever, kPrivileged},

    Operation{kGrant, GNTTABOP_map_grant_ref, "GNTTABOP_map_grant_ref", V(4, 0)},
    Operation{kGrant, GNTTABOP_unmap_grant_ref, "GNTTABOP_unmap_grant_ref", V(4, 0)},
    Operation{kGrant, GNTTABOP_setup_table, "GNTTABOP_setup_table"},
    Operation{kGrant, GNTTABOP_dump_table, "GNTTABOP_dump_table", 0, kForever, kAbsent},
    Operation{kGrant, GNTTABOP_transfer, "GNTTABOP_transfer", 0, kForever, kAbsent},
    Operation{kGrant, GNTTABOP_copy, "GNTTABOP_copy", V(4, 0)},
    Operation{kGrant, GNTTABOP_query_size, "GNTTABOP_query_size"},
    Operation{kGrant, GNTTABOP_unmap_and_replace, "GNTTABOP_unmap_and_replace", 0, kForever,
              kAbsent},
    Operation{kGrant, GNTTABOP_set_version, "GNTTABOP_set_version", V(4, 0)},
    Operation{kGrant, GNTTABOP_get_status_frames, "GNTTABOP_get_status_frames", 0, kForever,
              kAbsent},
    Operation{kGrant, GNTTABOP_get_version, "GNTTABOP_get_version", V(4, 2)},
    Operation{kGrant, GNTTABOP_swap_grant_ref, "GNTTABOP_swap_grant_ref", V(4, 2)},
    Operation{kGrant, GNTTABOP_cache_flush, "GNTTABOP_cache_flush", V(4, 5), kForever, kAbsent},

    Operation{kAssist, VMASST_CMD_enable, "VMASST_CMD_enable"},
    Operation{kAssist, VMASST_CMD_disable, "VMASST_CMD_disable"},

    // HVM guests had a list of their own until 4.7 (192df6f912 gave them all): 4 and 5 from the
    // start, the timers in 4.1, vcpu_info in 4.3, its time in 4.4.
    Operation{kVcpu, VCPUOP_initialise, "VCPUOP_initialise", V(4, 7)},
    Operation{kVcpu, VCPUOP_up, "VCPUOP_up", V(4, 7)},
    Operation{kVcpu, VCPUOP_down, "VCPUOP_down", V(4, 7)},
    Operation{kVcpu, VCPUOP_is_up, "VCPUOP_is_up", V(4, 7)},
    Operation{kVcpu, VCPUOP_get_runstate_info, "VCPUOP_get_runstate_info"},
    Operation{kVcpu, VCPUOP_register_runstate_memory_area, "VCPUOP_register_runstate_memory_area"},
    Operation{kVcpu, VCPUOP_set_periodic_timer, "VCPUOP_set_periodic_timer", V(4, 1)},
    Operation{kVcpu, VCPUOP_stop_periodic_timer, "VCPUOP_stop_periodic_timer", V(4, 1)},
    Operation{kVcpu, VCPUOP_set_singleshot_timer, "VCPUOP_set_singleshot_timer", V(4, 1)},
    Operation{kVcpu, VCPUOP_stop_singleshot_timer, "VCPUOP_stop_singleshot_timer", V(4, 1)},
    Operation{kVcpu, VCPUOP_register_vcpu_info, "VCPUOP_register_vcpu_info", V(4, 3)},
    Operation{kVcpu, VCPUOP_send_nmi, "VCPUOP_send_nmi", V(4, 7)},
    Operation{kVcpu, VCPUOP_get_physid, "VCPUOP_get_physid", V(4, 7), kForever, kPrivileged},
    Operation{kVcpu, VCPUOP_register_vcpu_time_memory_area, "VCPUOP_register_vcpu_time_memory_area",
              V(4, 4), kForever, Standing::kGuest, Condition::kNone, kOneClockRecord},
    Operation{kVcpu, VCPUOP_register_runstate_phys_area, "VCPUOP_register_runstate_phys_area",
              V(4, 18)},
    Operation{kVcpu, VCPUOP_register_vcpu_time_phys_area, "VCPUOP_register_vcpu_time_phys_area",
              V(4, 18), kForever, Standing::kGuest, Condition::kNone, kOneClockRecord},

    Operation{kSched, SCHEDOP_yield, "SCHEDOP_yield"},
    Operation{kSched, SCHEDOP_block, "SCHEDOP_block"},
    Operation{kSched, SCHEDOP_shutdown, "SCHEDOP_shutdown"},
    Operation{kSched, SCHEDOP_poll, "SCHEDOP_poll"},
    Operation{kSched, SCHEDOP_remote_shutdown, "SCHEDOP_remote_shutdown", 0, kForever, kPrivileged},
    Operation{kSched, SCHEDOP_shutdown_code, "SCHEDOP_shutdown_code"},
    Operation{kSched, SCHEDOP_watchdog, "SCHEDOP_watchdog", V(4, 0)},
    Operation{kSched, SCHEDOP_pin_override, "SCHEDOP_pin_override", V(4, 7), kForever, kPrivileged},

    Operation{kEvent, EVTCHNOP_bind_interdomain, "EVTCHNOP_bind_interdomain"},
    Operation{kEvent, EVTCHNOP_bind_virq, "EVTCHNOP_bind_virq"},
    Operation{kEvent, EVTCHNOP_bind_pirq, "EVTCHNOP_bind_pirq"},
    Operation{kEvent, EVTCHNOP_close, "EVTCHNOP_close"},
    Operation{kEvent, EVTCHNOP_send, "EVTCHNOP_send"},
    Operation{kEvent, EVTCHNOP_status, "EVTCHNOP_status"},
    Operation{kEvent, EVTCHNOP_alloc_unbound, "EVTCHNOP_alloc_unbound"},
    Operation{kEvent, EVTCHNOP_bind_ipi, "EVTCHNOP_bind_ipi"},
    Operation{kEvent, EVTCHNOP_bind_vcpu, "EVTCHNOP_bind_vcpu"},
    Operation{kEvent, EVTCHNOP_unmask, "EVTCHNOP_unmask"},
    Operation{kEvent, EVTCHNOP_reset, "EVTCHNOP_reset"},
    Operation{kEvent, EVTCHNOP_init_control, "EVTCHNOP_init_control", V(4, 4)},
    Operation{kEvent, EVTCHNOP_expand_array, "EVTCHNOP_expand_array", V(4, 4)},
    Operation{kEvent, EVTCHNOP_set_priority, "EVTCHNOP_set_priority", V(4, 4)},
    Operation{kEvent, EVTCHNOP_reset_cont, "EVTCHNOP_reset_cont", 0, kForever, Standing::kGuest,
              Condition::kEvtchnReset},

    Operation{kHvm, HVMOP_set_param, "HVMOP_set_param"},
    Operation{kHvm, HVMOP_get_param, "HVMOP_get_param"},
    Operation{kHvm, HVMOP_set_pci_intx_level, "HVMOP_set_pci_intx_level", 0, kForever, kPrivileged,
              kDevice},
    Operation{kHvm, HVMOP_set_isa_irq_level, "HVMOP_set_isa_irq_level", 0, kForever, kPrivileged,
              kDevice},
    Operation{kHvm, HVMOP_set_pci_link_route, "HVMOP_set_pci_link_route", 0, kForever, kPrivileged,
              kDevice},
    Operation{kHvm, HVMOP_flush_tlbs, "HVMOP_flush_tlbs"},
    Operation{kHvm, HVMOP_track_dirty_vram, "HVMOP_track_dirty_vram", V(3, 3), kForever,
              kPrivileged, kDevice},
    Operation{kHvm, HVMOP_modified_memory, "HVMOP_modified_memory", V(3, 3), kForever, kPrivileged,
              kDevice, kOnItself},
    Operation{kHvm, HVMOP_set_mem_type, "HVMOP_set_mem_type", V(3, 4), kForever, kPrivileged,
              kDevice, kOnItself},
    Operation{kHvm, HVMOP_pagetable_dying, "HVMOP_pagetable_dying", V(4, 1)},
    Operation{kHvm, HVMOP_get_time, "HVMOP_get_time", V(4, 0)},
    Operation{kHvm, HVMOP_xentrace, "HVMOP_xentrace", V(4, 0)},
    Operation{kHvm, HVMOP_set_mem_access, "HVMOP_set_mem_access", V(4, 1), V(4, 5), kPrivileged},
    Operation{kHvm, HVMOP_get_mem_access, "HVMOP_get_mem_access", V(4, 1), V(4, 5), kPrivileged},
    Operation{kHvm, HVMOP_inject_trap, "HVMOP_inject_trap", V(4, 1), kForever, kPrivileged,
              kDevice},
    Operation{kHvm, HVMOP_get_mem_type, "HVMOP_get_mem_type", V(4, 1)},
    Operation{kHvm, HVMOP_inject_msi, "HVMOP_inject_msi", V(4, 2), kForever, kPrivileged, kDevice},
    Operation{kHvm, HVMOP_create_ioreq_server, "HVMOP_create_ioreq_server", V(4, 5), kForever,
              kPrivileged, kDevice},
    Operation{kHvm, HVMOP_get_ioreq_server_info, "HVMOP_get_ioreq_server_info", V(4, 5), kForever,
              kPrivileged, kDevice},
    Operation{kHvm, HVMOP_map_io_range_to_ioreq_server, "HVMOP_map_io_range_to_ioreq_server",
              V(4, 5), kForever, kPrivileged, kDevice},
    Operation{kHvm, HVMOP_unmap_io_range_from_ioreq_server,
              "HVMOP_unmap_io_range_from_ioreq_server", V(4, 5), kForever, kPrivileged, kDevice},
    Operation{kHvm, HVMOP_destroy_ioreq_server, "HVMOP_destroy_ioreq_server", V(4, 5), kForever,
              kPrivileged, kDevice},
    Operation{kHvm, HVMOP_set_ioreq_server_state, "HVMOP_set_ioreq_server_state", V(4, 5), kForever,
              kPrivileged, kDevice},
    Operation{kHvm, HVMOP_set_evtchn_upcall_vector, "HVMOP_set_evtchn_upcall_vector", V(4, 6)},
    Operation{kHvm, HVMOP_guest_request_vm_event, "HVMOP_guest_request_vm_event", V(4, 6)},
    Operation{kHvm, HVMOP_altp2m, "HVMOP_altp2m", V(4, 6), kForever, kPrivileged},
    Operation{kHvm, HVMOP_process_dying, "process_dying (XenServer)", 0, kForever, Standing::kGuest,
              Condition::kLegacyWindows},
    Operation{kHvm, HVMOP_set_driver_version, "set_driver_version (XenServer)", 0, kForever,
              Standing::kGuest, Condition::kLegacyWindows},
};

constexpr bool before(const Operation& a, std::uint64_t hypercall, std::uint64_t sub_op) {
    return a.hypercall != hypercall ? a.hypercall < hypercall : a.sub_op < sub_op;
}

constexpr bool kSorted = [] {
    for (std::size_t i = 1; i < kOperations.size(); ++i) {
        if (!before(kOperations[i - 1], kOperations[i].hypercall, kOperations[i].sub_op)) {
            return false;
        }
    }
    return true;
}();
static_assert(kSorted, "find_operation() searches by halves");

// Where each hypercall's rows begin, and end with the next one's.
constexpr std::size_t kNumbers = 64;
constexpr auto kFirstRow = [] {
    std::array<std::uint16_t, kNumbers + 1> first{};
    for (std::size_t n = 0, row = 0; n <= kNumbers; ++n) {
        while (row < kOperations.size() && kOperations[row].hypercall < n)
            ++row;
        first[n] = static_cast<std::uint16_t>(row);
    }
    return first;
}();

}  // namespace

std::span<const Hypercall> hypercall_names() {
    return kHypercalls;
}

std::span<const Operation> operations() {
    return kOperations;
}

const Hypercall* find_hypercall(std::uint64_t number) {
    const auto found = std::find_if(kHypercalls.begin(), kHypercalls.end(),
                                    [&](const Hypercall& h) { return h.number == number; });
    return found == kHypercalls.end() ? nullptr : &*found;
}

const Operation* find_operation(std::uint64_t hypercall, std::uint64_t sub_op) {
    if (hypercall >= kNumbers) return nullptr;
    const std::size_t first = kFirstRow[hypercall];
    const auto rows = std::span(kOperations).subspan(first, kFirstRow[hypercall + 1] - first);
    // Most lists have no gaps.
    if (sub_op < rows.size() && rows[sub_op].sub_op == sub_op) return &rows[sub_op];
    const auto found = std::partition_point(rows.begin(), rows.end(),
                                            [&](const Operation& o) { return o.sub_op < sub_op; });
    return found == rows.end() || found->sub_op != sub_op ? nullptr : &*found;
}

Standing standing_of(const Profile& profile, const Operation& operation) {
    const auto condition = [&] {
        switch (operation.condition) {
            case Condition::kNone: return true;
            case Condition::kHvmDeviceOps: return profile.hvm_device_ops;
            case Condition::kLegacyWindows: return profile.legacy_windows;
            case Condition::kPrivateMemoryOps: return profile.private_memory_ops;
            case Condition::kEvtchnReset: return profile.evtchn_reset_continues;
        }
        return false;
    };
    if ((profile.hypercalls >> operation.hypercall & 1) == 0 ||
        profile.behaves_as < operation.since || profile.behaves_as >= operation.until ||
        !condition()) {
        return Standing::kAbsent;
    }
    return operation.standing;
}

std::optional<Errno> stray_cursor_refusal(const Profile& profile, std::uint64_t op) {
    if (!profile.memory_op_stray_bits) return std::nullopt;
    switch (op) {
        // Xen's common code looks, and refuses by the release's own name.
        case XENMEM_maximum_ram_page:
        case XENMEM_current_reservation:
        case XENMEM_maximum_reservation:
        case XENMEM_exchange:
        case XENMEM_maximum_gpfn:
        case XENMEM_remove_from_physmap:
        case XENMEM_claim_pages:
        case XENMEM_get_vnumainfo:
        case XENMEM_reserved_device_memory_map: return profile.memory_op_stray_bits;
        // Architecture code compares the whole register.
        case XENMEM_machphys_mfn_list:
        case XENMEM_memory_map:
        case XENMEM_machine_memory_map:
        case XENMEM_set_memory_map:
        case XENMEM_set_pod_target:
        case XENMEM_get_pod_target:
        case XENMEM_get_sharing_freed_pages:
        case XENMEM_get_sharing_shared_pages:
        case XENMEM_machphys_compat_mfn_list: return XEN_ENOSYS;
        default: return std::nullopt;
    }
}

std::string_view dm_operation_name(std::uint32_t op) {
    switch (op) {
        case XEN_DMOP_modified_memory: return "XEN_DMOP_modified_memory";
        case XEN_DMOP_set_mem_type: return "XEN_DMOP_set_mem_type";
        default: return {};
    }
}

bool exists(const Profile& profile, std::uint64_t hypercall, std::uint64_t sub_op) {
    const Operation* operation = find_operation(hypercall, sub_op);
    return operation != nullptr && standing_of(profile, *operation) != Standing::kAbsent;
}

}  // namespace xenshim::abi
