// Numbers of the hypercall interface, spelled as in Xen's public headers (xen.h, memory.h,
// event_channel.h, grant_table.h, vcpu.h, sched.h, version.h, hvm/hvm_op.h, hvm/params.h).
#pragma once

#include <cstdint>

namespace xenshim::abi {

// Hypercall numbers (xen.h).
enum : std::uint32_t {
    HYPERVISOR_platform_op = 7,
    HYPERVISOR_memory_op = 12,
    HYPERVISOR_multicall = 13,
    HYPERVISOR_set_timer_op = 15,
    HYPERVISOR_xen_version = 17,
    HYPERVISOR_console_io = 18,
    HYPERVISOR_grant_table_op = 20,
    HYPERVISOR_vm_assist = 21,
    HYPERVISOR_vcpu_op = 24,
    HYPERVISOR_mmuext_op = 26,
    HYPERVISOR_xsm_op = 27,
    HYPERVISOR_sched_op = 29,
    HYPERVISOR_event_channel_op = 32,
    HYPERVISOR_physdev_op = 33,
    HYPERVISOR_hvm_op = 34,
    HYPERVISOR_sysctl = 35,
    HYPERVISOR_domctl = 36,
    HYPERVISOR_tmem_op = 38,
    HYPERVISOR_argo_op = 39,
    HYPERVISOR_xenpmu_op = 40,
    HYPERVISOR_dm_op = 41,
    HYPERVISOR_hypfs_op = 42,
    HYPERVISOR_arch_1 = 49,
};

// Domain ids (xen.h).
inline constexpr std::uint16_t DOMID_FIRST_RESERVED = 0x7ff0;
inline constexpr std::uint16_t DOMID_SELF = 0x7ff0;

// memory_op sub-ops (memory.h).
enum : std::uint32_t {
    XENMEM_increase_reservation = 0,
    XENMEM_decrease_reservation = 1,
    XENMEM_maximum_ram_page = 2,
    XENMEM_current_reservation = 3,
    XENMEM_maximum_reservation = 4,
    XENMEM_machphys_mfn_list = 5,
    XENMEM_populate_physmap = 6,
    XENMEM_add_to_physmap = 7,
    XENMEM_memory_map = 9,
    XENMEM_machine_memory_map = 10,
    XENMEM_exchange = 11,
    XENMEM_machphys_mapping = 12,
    XENMEM_set_memory_map = 13,
    XENMEM_maximum_gpfn = 14,
    XENMEM_remove_from_physmap = 15,
    XENMEM_set_pod_target = 16,
    XENMEM_get_pod_target = 17,
    XENMEM_get_sharing_freed_pages = 18,
    XENMEM_get_sharing_shared_pages = 19,
    XENMEM_paging_op = 20,
    XENMEM_access_op = 21,
    XENMEM_sharing_op = 22,
    XENMEM_add_to_physmap_batch = 23,
    XENMEM_claim_pages = 24,
    XENMEM_machphys_compat_mfn_list = 25,
    XENMEM_get_vnumainfo = 26,
    XENMEM_reserved_device_memory_map = 27,
    XENMEM_acquire_resource = 28,
};
enum : std::uint32_t {
    XENMAPSPACE_shared_info = 0,
    XENMAPSPACE_grant_table = 1,
    XENMAPSPACE_gmfn = 2,
    XENMAPSPACE_gmfn_range = 3,
    XENMAPSPACE_gmfn_foreign = 4,
    XENMAPSPACE_dev_mmio = 5,
};
inline constexpr std::uint32_t XENMAPIDX_grant_table_status = 1u << 31;
inline constexpr std::uint32_t XENMEMF_populate_on_demand = 1u << 16;

// event_channel_op sub-ops and channel states (event_channel.h).
enum : std::uint32_t {
    EVTCHNOP_bind_interdomain = 0,
    EVTCHNOP_bind_virq = 1,
    EVTCHNOP_bind_pirq = 2,
    EVTCHNOP_close = 3,
    EVTCHNOP_send = 4,
    EVTCHNOP_status = 5,
    EVTCHNOP_alloc_unbound = 6,
    EVTCHNOP_bind_ipi = 7,
    EVTCHNOP_bind_vcpu = 8,
    EVTCHNOP_unmask = 9,
    EVTCHNOP_reset = 10,
    EVTCHNOP_init_control = 11,
    EVTCHNOP_expand_array = 12,
    EVTCHNOP_set_priority = 13,
    EVTCHNOP_reset_cont = 14,
};
enum : std::uint32_t {
    EVTCHNSTAT_closed = 0,
    EVTCHNSTAT_unbound = 1,
    EVTCHNSTAT_interdomain = 2,
    EVTCHNSTAT_pirq = 3,
    EVTCHNSTAT_virq = 4,
    EVTCHNSTAT_ipi = 5,
};
enum : std::uint32_t { VIRQ_TIMER = 0, VIRQ_DEBUG = 1, VIRQ_XENPMU = 13, NR_VIRQS = 24 };

// sched_op sub-ops and shutdown reasons (sched.h).
enum : std::uint32_t {
    SCHEDOP_yield = 0,
    SCHEDOP_block = 1,
    SCHEDOP_shutdown = 2,
    SCHEDOP_poll = 3,
    SCHEDOP_remote_shutdown = 4,
    SCHEDOP_shutdown_code = 5,
    SCHEDOP_watchdog = 6,
    SCHEDOP_pin_override = 7,
};
enum : std::uint8_t {
    SHUTDOWN_poweroff = 0,
    SHUTDOWN_reboot = 1,
    SHUTDOWN_suspend = 2,
    SHUTDOWN_crash = 3,
    SHUTDOWN_watchdog = 4,
    SHUTDOWN_soft_reset = 5,
};

// vcpu_op sub-ops (vcpu.h).
enum : std::uint32_t {
    VCPUOP_initialise = 0,
    VCPUOP_up = 1,
    VCPUOP_down = 2,
    VCPUOP_is_up = 3,
    VCPUOP_get_runstate_info = 4,
    VCPUOP_register_runstate_memory_area = 5,
    VCPUOP_set_periodic_timer = 6,
    VCPUOP_stop_periodic_timer = 7,
    VCPUOP_set_singleshot_timer = 8,
    VCPUOP_stop_singleshot_timer = 9,
    VCPUOP_register_vcpu_info = 10,
    VCPUOP_send_nmi = 11,
    VCPUOP_get_physid = 12,
    VCPUOP_register_vcpu_time_memory_area = 13,
};

// xen_version sub-ops (version.h).
enum : std::uint32_t {
    XENVER_version = 0,
    XENVER_extraversion = 1,
    XENVER_compile_info = 2,
    XENVER_capabilities = 3,
    XENVER_changeset = 4,
    XENVER_platform_parameters = 5,
    XENVER_get_features = 6,
    XENVER_pagesize = 7,
    XENVER_guest_handle = 8,
    XENVER_commandline = 9,
    XENVER_build_id = 10,
};

// console_io and vm_assist commands (xen.h).
enum : std::uint32_t { CONSOLEIO_write = 0, CONSOLEIO_read = 1 };
enum : std::uint32_t { VMASST_CMD_enable = 0, VMASST_CMD_disable = 1 };

// hvm_op sub-ops (hvm/hvm_op.h) and parameters (hvm/params.h).
enum : std::uint32_t {
    HVMOP_set_param = 0,
    HVMOP_get_param = 1,
    HVMOP_flush_tlbs = 5,
    HVMOP_pagetable_dying = 9,
    HVMOP_get_time = 10,
    HVMOP_xentrace = 11,
    HVMOP_get_mem_type = 15,
    HVMOP_set_evtchn_upcall_vector = 23,
    HVMOP_guest_request_vm_event = 24,
    HVMOP_altp2m = 25,
};
enum : std::uint32_t {
    HVM_PARAM_CALLBACK_IRQ = 0,
    HVM_PARAM_STORE_PFN = 1,
    HVM_PARAM_STORE_EVTCHN = 2,
    HVM_PARAM_IOREQ_PFN = 5,
    HVM_PARAM_BUFIOREQ_PFN = 6,
    HVM_PARAM_VIRIDIAN = 9,
    HVM_PARAM_TIMER_MODE = 10,
    HVM_PARAM_IDENT_PT = 12,
    HVM_PARAM_ACPI_S_STATE = 14,
    HVM_PARAM_VM86_TSS = 15,
    HVM_PARAM_CONSOLE_PFN = 17,
    HVM_PARAM_CONSOLE_EVTCHN = 18,
    HVM_PARAM_ACPI_IOPORTS_LOCATION = 19,
    HVM_PARAM_TRIPLE_FAULT_REASON = 31,
    HVM_PARAM_IOREQ_SERVER_PFN = 32,
    HVM_PARAM_NR_IOREQ_SERVER_PAGES = 33,
    HVM_PARAM_VM_GENERATION_ID_ADDR = 34,
    HVM_PARAM_ALTP2M = 35,
    HVM_PARAM_X87_FIP_WIDTH = 36,
    HVM_PARAM_VM86_TSS_SIZED = 37,
};
inline constexpr std::uint32_t kCallbackTypeGsi = 0;
inline constexpr std::uint32_t kCallbackTypePciIntx = 1;
inline constexpr std::uint32_t kCallbackTypeVector = 2;

// grant_table_op sub-ops and statuses (grant_table.h).
enum : std::uint32_t {
    GNTTABOP_map_grant_ref = 0,
    GNTTABOP_unmap_grant_ref = 1,
    GNTTABOP_setup_table = 2,
    GNTTABOP_dump_table = 3,
    GNTTABOP_transfer = 4,
    GNTTABOP_copy = 5,
    GNTTABOP_query_size = 6,
    GNTTABOP_unmap_and_replace = 7,
    GNTTABOP_set_version = 8,
    GNTTABOP_get_status_frames = 9,
    GNTTABOP_get_version = 10,
    GNTTABOP_swap_grant_ref = 11,
    GNTTABOP_cache_flush = 12,
};
enum : std::int16_t {
    GNTST_okay = 0,
    GNTST_general_error = -1,
    GNTST_bad_domain = -2,
    GNTST_bad_gntref = -3,
    GNTST_bad_handle = -4,
    GNTST_bad_virt_addr = -5,
    GNTST_bad_dev_addr = -6,
    GNTST_no_device_space = -7,
    GNTST_permission_denied = -8,
    GNTST_bad_page = -9,
    GNTST_bad_copy_arg = -10,
    GNTST_address_too_big = -11,
    GNTST_eagain = -12,
    GNTST_no_space = -13,
};
// A grant entry's flags: type, then bits.
enum : std::uint16_t {
    GTF_invalid = 0,
    GTF_permit_access = 1,
    GTF_accept_transfer = 2,
    GTF_transitive = 3,
    GTF_type_mask = 3,
};
inline constexpr std::uint16_t GTF_readonly = 1u << 2;
inline constexpr std::uint16_t GTF_reading = 1u << 3;
inline constexpr std::uint16_t GTF_writing = 1u << 4;
inline constexpr std::uint16_t GTF_PWT = 1u << 5;
inline constexpr std::uint16_t GTF_PCD = 1u << 6;
inline constexpr std::uint16_t GTF_PAT = 1u << 7;
inline constexpr std::uint16_t GTF_sub_page = 1u << 8;
inline constexpr std::uint32_t GNTTAB_NR_RESERVED_ENTRIES = 8;
inline constexpr std::uint32_t GNTTAB_RESERVED_CONSOLE = 0;
inline constexpr std::uint32_t GNTTAB_RESERVED_XENSTORE = 1;
// Flags of a mapping and of a copy.
inline constexpr std::uint32_t GNTMAP_device_map = 1u << 0;
inline constexpr std::uint32_t GNTMAP_host_map = 1u << 1;
inline constexpr std::uint32_t GNTMAP_readonly = 1u << 2;
inline constexpr std::uint32_t GNTMAP_application_map = 1u << 3;
inline constexpr std::uint32_t GNTMAP_contains_pte = 1u << 4;
inline constexpr std::uint16_t GNTCOPY_source_gref = 1u << 0;
inline constexpr std::uint16_t GNTCOPY_dest_gref = 1u << 1;

}  // namespace xenshim::abi
