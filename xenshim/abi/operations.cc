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

// Those that have no name in numbers.h have no slot for an HVM guest under any release.
constexpr std::array kHypercalls = {
    Hypercall{0, "set_trap_table", kAbsent},
    Hypercall{1, "mmu_update", kAbsent},
    Hypercall{2, "set_gdt", kAbsent},
    Hypercall{3, "stack_switch", kAbsent},
    Hypercall{4, "set_callbacks", kAbsent},
    Hypercall{5, "fpu_taskswitch", kAbsent},
    Hypercall{6, "sched_op_compat", kAbsent},
    Hypercall{HYPERVISOR_platform_op, "platform_op", kPrivileged},
    Hypercall{8, "set_debugreg", kAbsent},
    Hypercall{9, "get_debugreg", kAbsent},
    Hypercall{10, "update_descriptor", kAbsent},
    Hypercall{HYPERVISOR_memory_op, "memory_op"},
    Hypercall{HYPERVISOR_multicall, "multicall"},
    Hypercall{14, "update_va_mapping", kAbsent},
    Hypercall{HYPERVISOR_set_timer_op, "set_timer_op"},
    Hypercall{16, "event_channel_op_compat", kAbsent},
    Hypercall{HYPERVISOR_xen_version, "xen_version"},
    Hypercall{HYPERVISOR_console_io, "console_io", kPrivileged},
    Hypercall{19, "physdev_op_compat", kAbsent},
    Hypercall{HYPERVISOR_grant_table_op, "grant_table_op"},
    Hypercall{HYPERVISOR_vm_assist, "vm_assist"},
    Hypercall{22, "update_va_mapping_otherdomain", kAbsent},
    Hypercall{23, "iret", kAbsent},
    Hypercall{HYPERVISOR_vcpu_op, "vcpu_op"},
    Hypercall{25, "set_segment_base", kAbsent},
    Hypercall{HYPERVISOR_mmuext_op, "mmuext_op", kPrivileged},
    Hypercall{HYPERVISOR_xsm_op, "xsm_op", kAbsent},
    Hypercall{28, "nmi_op", kAbsent},
    Hypercall{HYPERVISOR_sched_op, "sched_op"},
    Hypercall{30, "callback_op", kAbsent},
    Hypercall{31, "xenoprof_op", kAbsent},
    Hypercall{HYPERVISOR_event_channel_op, "event_channel_op"},
    Hypercall{HYPERVISOR_physdev_op, "physdev_op", kAbsent,
              "an HVM guest (not a PVH one) of a Xen that shows XENFEAT_hvm_pirqs has map_pirq, "
              "unmap_pirq, eoi, irq_status_query and get_free_pirq (measured, 4.17.7; since 4.19 "
              "only with hvm_pirq=1), and 4.20 refuses the first two where they were absent; here "
              "no interrupt is routed to event channels, and the feature is not shown"},
    Hypercall{HYPERVISOR_hvm_op, "hvm_op"},
    Hypercall{HYPERVISOR_sysctl, "sysctl", kPrivileged,
              "the interface version is 4.17's under every profile"},
    Hypercall{HYPERVISOR_domctl, "domctl", kPrivileged,
              "the interface version is 4.17's under every profile"},
    Hypercall{37, "kexec_op", kAbsent},
    Hypercall{HYPERVISOR_tmem_op, "tmem_op", kPrivileged},
    Hypercall{HYPERVISOR_argo_op, "argo_op", kAbsent},
    Hypercall{HYPERVISOR_xenpmu_op, "xenpmu_op", kPrivileged},
    Hypercall{HYPERVISOR_dm_op, "dm_op", kPrivileged,
              "--privileges dm grants modified_memory and set_mem_type alone, on the guest itself; "
              "KVM does not enforce the types, and nobody reads a log of modified pages"},
    Hypercall{HYPERVISOR_hypfs_op, "hypfs_op", kPrivileged},
    Hypercall{48, "mca", kAbsent},
    Hypercall{HYPERVISOR_arch_1, "paging_domctl_cont", kPrivileged},
    Hypercall{50, "arch_2", kAbsent},
    Hypercall{51, "arch_3", kAbsent},
    Hypercall{52, "arch_4", kAbsent},
    Hypercall{53, "arch_5", kAbsent},
    Hypercall{54, "arch_6", kAbsent},
    Hypercall{55, "arch_7", kAbsent},
    // XenServer 7.x's and 8.0's own: "PV-IOMMU" of domain 0. Everybody else hears -ENOSYS
    // (xenserver/xen.pg, add-pv-iommu-local-domain-ops.patch).
    Hypercall{56, "iommu_op (XenServer)", kAbsent},
};

constexpr std::uint32_t kMem = HYPERVISOR_memory_op, kVersion = HYPERVISOR_xen_version,
                        kConsole = HYPERVISOR_console_io, kGrant = HYPERVISOR_grant_table_op,
                        kAssist = HYPERVISOR_vm_assist, kVcpu = HYPERVISOR_vcpu_op,
                        kSched = HYPERVISOR_sched_op, kEvent = HYPERVISOR_event_channel_op,
                        kHvm = HYPERVISOR_hvm_op, kPhysdev = HYPERVISOR_physdev_op,
                        kArgo = HYPERVISOR_argo_op, kPmu = HYPERVISOR_xenpmu_op,
                        kHypfs = HYPERVISOR_hypfs_op;

constexpr std::string_view kOneClockRecord =
    "-ENOSYS where the host's KVM has no second clock record (transport portable)";

constexpr std::string_view kNoPirqs =
    "-ENOSYS, as to Xen's PVH guests. Its HVM guests can have physical IRQs, of which a feature "
    "bit "
    "tells them; there are none here, and the bit is clear";

constexpr std::string_view kAnsweredByKvm =
    "made by the CPU's own instruction on transport kvm-xen, KVM answers it itself, poll as a "
    "yield "
    "(docs/hosts.md); by the hypercall page it is ours";

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
    Operation{kMem,
              XENMEM_set_memory_map,
              "XENMEM_set_memory_map",
              0,
              kForever,
              Standing::kGuest,
              Condition::kNone,
              {},
              V(4, 6)},
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
    Operation{kMem, XENMEM_machphys_compat_mfn_list, "XENMEM_machphys_compat_mfn_list", V(4, 4),
              kForever, kPrivileged},
    Operation{kMem, XENMEM_get_vnumainfo, "XENMEM_get_vnumainfo", V(4, 5), kForever, kPrivileged},
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

    Operation{kSched, SCHEDOP_yield, "SCHEDOP_yield", 0, kForever, Standing::kGuest,
              Condition::kNone, kAnsweredByKvm},
    Operation{kSched, SCHEDOP_block, "SCHEDOP_block"},
    Operation{kSched, SCHEDOP_shutdown, "SCHEDOP_shutdown"},
    Operation{kSched, SCHEDOP_poll, "SCHEDOP_poll", 0, kForever, Standing::kGuest, Condition::kNone,
              kAnsweredByKvm},
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

    Operation{kPhysdev, 5, "PHYSDEVOP_irq_status_query", 0, kForever, kAbsent, Condition::kNone,
              kNoPirqs},
    Operation{kPhysdev, 6, "PHYSDEVOP_set_iopl", 0, kForever, kAbsent},
    Operation{kPhysdev, 7, "PHYSDEVOP_set_iobitmap", 0, kForever, kAbsent},
    Operation{kPhysdev, 8, "PHYSDEVOP_apic_read", 0, kForever, kAbsent},
    Operation{kPhysdev, 9, "PHYSDEVOP_apic_write", 0, kForever, kAbsent},
    Operation{kPhysdev, 10, "PHYSDEVOP_alloc_irq_vector", 0, kForever, kAbsent},
    Operation{kPhysdev, 11, "PHYSDEVOP_free_irq_vector", 0, kForever, kAbsent},
    Operation{kPhysdev, 12, "PHYSDEVOP_eoi", 0, kForever, kAbsent, Condition::kNone, kNoPirqs},
    Operation{kPhysdev, 13, "PHYSDEVOP_map_pirq", 0, kForever, kAbsent, Condition::kNone, kNoPirqs},
    Operation{kPhysdev, 14, "PHYSDEVOP_unmap_pirq", 0, kForever, kAbsent, Condition::kNone,
              kNoPirqs},
    Operation{kPhysdev, 15, "PHYSDEVOP_manage_pci_add", 0, kForever, kAbsent},
    Operation{kPhysdev, 16, "PHYSDEVOP_manage_pci_remove", 0, kForever, kAbsent},
    Operation{kPhysdev, 17, "PHYSDEVOP_pirq_eoi_gmfn_v1", 0, kForever, kAbsent},
    Operation{kPhysdev, 19, "PHYSDEVOP_restore_msi", 0, kForever, kAbsent},
    Operation{kPhysdev, 20, "PHYSDEVOP_manage_pci_add_ext", 0, kForever, kAbsent},
    Operation{kPhysdev, 21, "PHYSDEVOP_setup_gsi", 0, kForever, kAbsent},
    Operation{kPhysdev, 23, "PHYSDEVOP_get_free_pirq", 0, kForever, kAbsent, Condition::kNone,
              kNoPirqs},
    Operation{kPhysdev, 24, "PHYSDEVOP_pci_mmcfg_reserved", 0, kForever, kAbsent},
    Operation{kPhysdev, 25, "PHYSDEVOP_pci_device_add", 0, kForever, kAbsent},
    Operation{kPhysdev, 26, "PHYSDEVOP_pci_device_remove", 0, kForever, kAbsent},
    Operation{kPhysdev, 27, "PHYSDEVOP_restore_msi_ext", 0, kForever, kAbsent},
    Operation{kPhysdev, 28, "PHYSDEVOP_pirq_eoi_gmfn_v2", 0, kForever, kAbsent},
    Operation{kPhysdev, 29, "PHYSDEVOP_dbgp_op", 0, kForever, kAbsent},
    Operation{kPhysdev, 30, "PHYSDEVOP_prepare_msix", 0, kForever, kAbsent},
    Operation{kPhysdev, 31, "PHYSDEVOP_release_msix", 0, kForever, kAbsent},
    Operation{kPhysdev, 32, "PHYSDEVOP_pci_device_reset", 0, kForever, kAbsent},

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

    Operation{kArgo, 1, "XEN_ARGO_OP_register_ring", 0, kForever, kAbsent},
    Operation{kArgo, 2, "XEN_ARGO_OP_unregister_ring", 0, kForever, kAbsent},
    Operation{kArgo, 3, "XEN_ARGO_OP_sendv", 0, kForever, kAbsent},
    Operation{kArgo, 4, "XEN_ARGO_OP_notify", 0, kForever, kAbsent},

    Operation{kPmu, 0, "XENPMU_mode_get", 0, kForever, kPrivileged},
    Operation{kPmu, 1, "XENPMU_mode_set", 0, kForever, kPrivileged},
    Operation{kPmu, 2, "XENPMU_feature_get", 0, kForever, kPrivileged},
    Operation{kPmu, 3, "XENPMU_feature_set", 0, kForever, kPrivileged},
    Operation{kPmu, 4, "XENPMU_init", 0, kForever, kPrivileged},
    Operation{kPmu, 5, "XENPMU_finish", 0, kForever, kPrivileged},
    Operation{kPmu, 6, "XENPMU_lvtpc_set", 0, kForever, kPrivileged},
    Operation{kPmu, 7, "XENPMU_flush", 0, kForever, kPrivileged},

    Operation{kHypfs, 0, "XEN_HYPFS_OP_get_version", 0, kForever, kPrivileged},
    Operation{kHypfs, 1, "XEN_HYPFS_OP_read", 0, kForever, kPrivileged},
    Operation{kHypfs, 2, "XEN_HYPFS_OP_write_contents", 0, kForever, kPrivileged},
};

// What toolstacks and device models ask for, and page tables of PV guests: the operation stands in
// the caller's memory, and to a guest each is what its hypercall is. Of 4.17's public headers; a
// number that is none of theirs hears the same.
constexpr std::array kToolOperations = {
    ToolOperation{HYPERVISOR_platform_op, 17, "XENPF_settime32"},
    ToolOperation{HYPERVISOR_platform_op, 31, "XENPF_add_memtype"},
    ToolOperation{HYPERVISOR_platform_op, 32, "XENPF_del_memtype"},
    ToolOperation{HYPERVISOR_platform_op, 33, "XENPF_read_memtype"},
    ToolOperation{HYPERVISOR_platform_op, 35, "XENPF_microcode_update"},
    ToolOperation{HYPERVISOR_platform_op, 39, "XENPF_platform_quirk"},
    ToolOperation{HYPERVISOR_platform_op, 48, "XENPF_get_cpu_version"},
    ToolOperation{HYPERVISOR_platform_op, 49, "XENPF_efi_runtime_call"},
    ToolOperation{HYPERVISOR_platform_op, 50, "XENPF_firmware_info"},
    ToolOperation{HYPERVISOR_platform_op, 51, "XENPF_enter_acpi_sleep"},
    ToolOperation{HYPERVISOR_platform_op, 52, "XENPF_change_freq"},
    ToolOperation{HYPERVISOR_platform_op, 53, "XENPF_getidletime"},
    ToolOperation{HYPERVISOR_platform_op, 54, "XENPF_set_processor_pminfo"},
    ToolOperation{HYPERVISOR_platform_op, 55, "XENPF_get_cpuinfo"},
    ToolOperation{HYPERVISOR_platform_op, 56, "XENPF_cpu_online"},
    ToolOperation{HYPERVISOR_platform_op, 57, "XENPF_cpu_offline"},
    ToolOperation{HYPERVISOR_platform_op, 58, "XENPF_cpu_hotadd"},
    ToolOperation{HYPERVISOR_platform_op, 59, "XENPF_mem_hotadd"},
    ToolOperation{HYPERVISOR_platform_op, 60, "XENPF_core_parking"},
    ToolOperation{HYPERVISOR_platform_op, 61, "XENPF_resource_op"},
    ToolOperation{HYPERVISOR_platform_op, 62, "XENPF_settime64"},
    ToolOperation{HYPERVISOR_platform_op, 63, "XENPF_get_symbol"},
    ToolOperation{HYPERVISOR_mmuext_op, 0, "MMUEXT_PIN_L1_TABLE"},
    ToolOperation{HYPERVISOR_mmuext_op, 1, "MMUEXT_PIN_L2_TABLE"},
    ToolOperation{HYPERVISOR_mmuext_op, 2, "MMUEXT_PIN_L3_TABLE"},
    ToolOperation{HYPERVISOR_mmuext_op, 3, "MMUEXT_PIN_L4_TABLE"},
    ToolOperation{HYPERVISOR_mmuext_op, 4, "MMUEXT_UNPIN_TABLE"},
    ToolOperation{HYPERVISOR_mmuext_op, 5, "MMUEXT_NEW_BASEPTR"},
    ToolOperation{HYPERVISOR_mmuext_op, 6, "MMUEXT_TLB_FLUSH_LOCAL"},
    ToolOperation{HYPERVISOR_mmuext_op, 7, "MMUEXT_INVLPG_LOCAL"},
    ToolOperation{HYPERVISOR_mmuext_op, 8, "MMUEXT_TLB_FLUSH_MULTI"},
    ToolOperation{HYPERVISOR_mmuext_op, 9, "MMUEXT_INVLPG_MULTI"},
    ToolOperation{HYPERVISOR_mmuext_op, 10, "MMUEXT_TLB_FLUSH_ALL"},
    ToolOperation{HYPERVISOR_mmuext_op, 11, "MMUEXT_INVLPG_ALL"},
    ToolOperation{HYPERVISOR_mmuext_op, 12, "MMUEXT_FLUSH_CACHE"},
    ToolOperation{HYPERVISOR_mmuext_op, 13, "MMUEXT_SET_LDT"},
    ToolOperation{HYPERVISOR_mmuext_op, 15, "MMUEXT_NEW_USER_BASEPTR"},
    ToolOperation{HYPERVISOR_mmuext_op, 16, "MMUEXT_CLEAR_PAGE"},
    ToolOperation{HYPERVISOR_mmuext_op, 17, "MMUEXT_COPY_PAGE"},
    ToolOperation{HYPERVISOR_mmuext_op, 18, "MMUEXT_FLUSH_CACHE_GLOBAL"},
    ToolOperation{HYPERVISOR_mmuext_op, 19, "MMUEXT_MARK_SUPER"},
    ToolOperation{HYPERVISOR_mmuext_op, 20, "MMUEXT_UNMARK_SUPER"},
    ToolOperation{HYPERVISOR_sysctl, 1, "XEN_SYSCTL_readconsole"},
    ToolOperation{HYPERVISOR_sysctl, 2, "XEN_SYSCTL_tbuf_op"},
    ToolOperation{HYPERVISOR_sysctl, 3, "XEN_SYSCTL_physinfo"},
    ToolOperation{HYPERVISOR_sysctl, 4, "XEN_SYSCTL_sched_id"},
    ToolOperation{HYPERVISOR_sysctl, 5, "XEN_SYSCTL_perfc_op"},
    ToolOperation{HYPERVISOR_sysctl, 6, "XEN_SYSCTL_getdomaininfolist"},
    ToolOperation{HYPERVISOR_sysctl, 7, "XEN_SYSCTL_debug_keys"},
    ToolOperation{HYPERVISOR_sysctl, 8, "XEN_SYSCTL_getcpuinfo"},
    ToolOperation{HYPERVISOR_sysctl, 9, "XEN_SYSCTL_availheap"},
    ToolOperation{HYPERVISOR_sysctl, 10, "XEN_SYSCTL_get_pmstat"},
    ToolOperation{HYPERVISOR_sysctl, 11, "XEN_SYSCTL_cpu_hotplug"},
    ToolOperation{HYPERVISOR_sysctl, 12, "XEN_SYSCTL_pm_op"},
    ToolOperation{HYPERVISOR_sysctl, 14, "XEN_SYSCTL_page_offline_op"},
    ToolOperation{HYPERVISOR_sysctl, 15, "XEN_SYSCTL_lockprof_op"},
    ToolOperation{HYPERVISOR_sysctl, 16, "XEN_SYSCTL_cputopoinfo"},
    ToolOperation{HYPERVISOR_sysctl, 17, "XEN_SYSCTL_numainfo"},
    ToolOperation{HYPERVISOR_sysctl, 18, "XEN_SYSCTL_cpupool_op"},
    ToolOperation{HYPERVISOR_sysctl, 19, "XEN_SYSCTL_scheduler_op"},
    ToolOperation{HYPERVISOR_sysctl, 20, "XEN_SYSCTL_coverage_op"},
    ToolOperation{HYPERVISOR_sysctl, 21, "XEN_SYSCTL_psr_cmt_op"},
    ToolOperation{HYPERVISOR_sysctl, 22, "XEN_SYSCTL_pcitopoinfo"},
    ToolOperation{HYPERVISOR_sysctl, 23, "XEN_SYSCTL_psr_alloc"},
    ToolOperation{HYPERVISOR_sysctl, 24, "XEN_SYSCTL_tmem_op"},
    ToolOperation{HYPERVISOR_sysctl, 25, "XEN_SYSCTL_get_cpu_levelling_caps"},
    ToolOperation{HYPERVISOR_sysctl, 26, "XEN_SYSCTL_get_cpu_featureset"},
    ToolOperation{HYPERVISOR_sysctl, 27, "XEN_SYSCTL_livepatch_op"},
    ToolOperation{HYPERVISOR_sysctl, 28, "XEN_SYSCTL_set_parameter"},
    ToolOperation{HYPERVISOR_sysctl, 29, "XEN_SYSCTL_get_cpu_policy"},
    ToolOperation{HYPERVISOR_domctl, 1, "XEN_DOMCTL_createdomain"},
    ToolOperation{HYPERVISOR_domctl, 2, "XEN_DOMCTL_destroydomain"},
    ToolOperation{HYPERVISOR_domctl, 3, "XEN_DOMCTL_pausedomain"},
    ToolOperation{HYPERVISOR_domctl, 4, "XEN_DOMCTL_unpausedomain"},
    ToolOperation{HYPERVISOR_domctl, 5, "XEN_DOMCTL_getdomaininfo"},
    ToolOperation{HYPERVISOR_domctl, 6, "XEN_DOMCTL_getmemlist"},
    ToolOperation{HYPERVISOR_domctl, 7, "XEN_DOMCTL_getpageframeinfo"},
    ToolOperation{HYPERVISOR_domctl, 8, "XEN_DOMCTL_getpageframeinfo2"},
    ToolOperation{HYPERVISOR_domctl, 9, "XEN_DOMCTL_setvcpuaffinity"},
    ToolOperation{HYPERVISOR_domctl, 10, "XEN_DOMCTL_shadow_op"},
    ToolOperation{HYPERVISOR_domctl, 11, "XEN_DOMCTL_max_mem"},
    ToolOperation{HYPERVISOR_domctl, 12, "XEN_DOMCTL_setvcpucontext"},
    ToolOperation{HYPERVISOR_domctl, 13, "XEN_DOMCTL_getvcpucontext"},
    ToolOperation{HYPERVISOR_domctl, 14, "XEN_DOMCTL_getvcpuinfo"},
    ToolOperation{HYPERVISOR_domctl, 15, "XEN_DOMCTL_max_vcpus"},
    ToolOperation{HYPERVISOR_domctl, 16, "XEN_DOMCTL_scheduler_op"},
    ToolOperation{HYPERVISOR_domctl, 17, "XEN_DOMCTL_setdomainhandle"},
    ToolOperation{HYPERVISOR_domctl, 18, "XEN_DOMCTL_setdebugging"},
    ToolOperation{HYPERVISOR_domctl, 19, "XEN_DOMCTL_irq_permission"},
    ToolOperation{HYPERVISOR_domctl, 20, "XEN_DOMCTL_iomem_permission"},
    ToolOperation{HYPERVISOR_domctl, 21, "XEN_DOMCTL_ioport_permission"},
    ToolOperation{HYPERVISOR_domctl, 22, "XEN_DOMCTL_hypercall_init"},
    ToolOperation{HYPERVISOR_domctl, 23, "XEN_DOMCTL_soft_reset_cont"},
    ToolOperation{HYPERVISOR_domctl, 24, "XEN_DOMCTL_settimeoffset"},
    ToolOperation{HYPERVISOR_domctl, 25, "XEN_DOMCTL_getvcpuaffinity"},
    ToolOperation{HYPERVISOR_domctl, 26, "XEN_DOMCTL_real_mode_area"},
    ToolOperation{HYPERVISOR_domctl, 27, "XEN_DOMCTL_resumedomain"},
    ToolOperation{HYPERVISOR_domctl, 28, "XEN_DOMCTL_sendtrigger"},
    ToolOperation{HYPERVISOR_domctl, 29, "XEN_DOMCTL_subscribe"},
    ToolOperation{HYPERVISOR_domctl, 33, "XEN_DOMCTL_gethvmcontext"},
    ToolOperation{HYPERVISOR_domctl, 34, "XEN_DOMCTL_sethvmcontext"},
    ToolOperation{HYPERVISOR_domctl, 35, "XEN_DOMCTL_set_address_size"},
    ToolOperation{HYPERVISOR_domctl, 36, "XEN_DOMCTL_get_address_size"},
    ToolOperation{HYPERVISOR_domctl, 37, "XEN_DOMCTL_assign_device"},
    ToolOperation{HYPERVISOR_domctl, 38, "XEN_DOMCTL_bind_pt_irq"},
    ToolOperation{HYPERVISOR_domctl, 39, "XEN_DOMCTL_memory_mapping"},
    ToolOperation{HYPERVISOR_domctl, 40, "XEN_DOMCTL_ioport_mapping"},
    ToolOperation{HYPERVISOR_domctl, 41, "XEN_DOMCTL_pin_mem_cacheattr"},
    ToolOperation{HYPERVISOR_domctl, 42, "XEN_DOMCTL_set_ext_vcpucontext"},
    ToolOperation{HYPERVISOR_domctl, 43, "XEN_DOMCTL_get_ext_vcpucontext"},
    ToolOperation{HYPERVISOR_domctl, 44, "XEN_DOMCTL_set_opt_feature"},
    ToolOperation{HYPERVISOR_domctl, 45, "XEN_DOMCTL_test_assign_device"},
    ToolOperation{HYPERVISOR_domctl, 46, "XEN_DOMCTL_set_target"},
    ToolOperation{HYPERVISOR_domctl, 47, "XEN_DOMCTL_deassign_device"},
    ToolOperation{HYPERVISOR_domctl, 48, "XEN_DOMCTL_unbind_pt_irq"},
    ToolOperation{HYPERVISOR_domctl, 49, "XEN_DOMCTL_set_cpuid"},
    ToolOperation{HYPERVISOR_domctl, 50, "XEN_DOMCTL_get_device_group"},
    ToolOperation{HYPERVISOR_domctl, 51, "XEN_DOMCTL_set_machine_address_size"},
    ToolOperation{HYPERVISOR_domctl, 52, "XEN_DOMCTL_get_machine_address_size"},
    ToolOperation{HYPERVISOR_domctl, 53, "XEN_DOMCTL_suppress_spurious_page_faults"},
    ToolOperation{HYPERVISOR_domctl, 54, "XEN_DOMCTL_debug_op"},
    ToolOperation{HYPERVISOR_domctl, 55, "XEN_DOMCTL_gethvmcontext_partial"},
    ToolOperation{HYPERVISOR_domctl, 56, "XEN_DOMCTL_vm_event_op"},
    ToolOperation{HYPERVISOR_domctl, 57, "XEN_DOMCTL_mem_sharing_op"},
    ToolOperation{HYPERVISOR_domctl, 58, "XEN_DOMCTL_disable_migrate"},
    ToolOperation{HYPERVISOR_domctl, 59, "XEN_DOMCTL_gettscinfo"},
    ToolOperation{HYPERVISOR_domctl, 60, "XEN_DOMCTL_settscinfo"},
    ToolOperation{HYPERVISOR_domctl, 61, "XEN_DOMCTL_getpageframeinfo3"},
    ToolOperation{HYPERVISOR_domctl, 62, "XEN_DOMCTL_setvcpuextstate"},
    ToolOperation{HYPERVISOR_domctl, 63, "XEN_DOMCTL_getvcpuextstate"},
    ToolOperation{HYPERVISOR_domctl, 64, "XEN_DOMCTL_set_access_required"},
    ToolOperation{HYPERVISOR_domctl, 65, "XEN_DOMCTL_audit_p2m"},
    ToolOperation{HYPERVISOR_domctl, 66, "XEN_DOMCTL_set_virq_handler"},
    ToolOperation{HYPERVISOR_domctl, 67, "XEN_DOMCTL_set_broken_page_p2m"},
    ToolOperation{HYPERVISOR_domctl, 68, "XEN_DOMCTL_setnodeaffinity"},
    ToolOperation{HYPERVISOR_domctl, 69, "XEN_DOMCTL_getnodeaffinity"},
    ToolOperation{HYPERVISOR_domctl, 70, "XEN_DOMCTL_set_max_evtchn"},
    ToolOperation{HYPERVISOR_domctl, 71, "XEN_DOMCTL_cacheflush"},
    ToolOperation{HYPERVISOR_domctl, 72, "XEN_DOMCTL_get_vcpu_msrs"},
    ToolOperation{HYPERVISOR_domctl, 73, "XEN_DOMCTL_set_vcpu_msrs"},
    ToolOperation{HYPERVISOR_domctl, 74, "XEN_DOMCTL_setvnumainfo"},
    ToolOperation{HYPERVISOR_domctl, 75, "XEN_DOMCTL_psr_cmt_op"},
    ToolOperation{HYPERVISOR_domctl, 77, "XEN_DOMCTL_monitor_op"},
    ToolOperation{HYPERVISOR_domctl, 78, "XEN_DOMCTL_psr_alloc"},
    ToolOperation{HYPERVISOR_domctl, 79, "XEN_DOMCTL_soft_reset"},
    ToolOperation{HYPERVISOR_domctl, 80, "XEN_DOMCTL_set_gnttab_limits"},
    ToolOperation{HYPERVISOR_domctl, 81, "XEN_DOMCTL_vuart_op"},
    ToolOperation{HYPERVISOR_domctl, 82, "XEN_DOMCTL_get_cpu_policy"},
    ToolOperation{HYPERVISOR_domctl, 83, "XEN_DOMCTL_set_cpu_policy"},
    ToolOperation{HYPERVISOR_domctl, 84, "XEN_DOMCTL_vmtrace_op"},
    ToolOperation{HYPERVISOR_domctl, 85, "XEN_DOMCTL_get_paging_mempool_size"},
    ToolOperation{HYPERVISOR_domctl, 86, "XEN_DOMCTL_set_paging_mempool_size"},
    ToolOperation{HYPERVISOR_domctl, 1000, "XEN_DOMCTL_gdbsx_guestmemio"},
    ToolOperation{HYPERVISOR_domctl, 1001, "XEN_DOMCTL_gdbsx_pausevcpu"},
    ToolOperation{HYPERVISOR_domctl, 1002, "XEN_DOMCTL_gdbsx_unpausevcpu"},
    ToolOperation{HYPERVISOR_domctl, 1003, "XEN_DOMCTL_gdbsx_domstatus"},
    ToolOperation{HYPERVISOR_tmem_op, 1, "TMEM_NEW_POOL"},
    ToolOperation{HYPERVISOR_tmem_op, 2, "TMEM_DESTROY_POOL"},
    ToolOperation{HYPERVISOR_tmem_op, 4, "TMEM_PUT_PAGE"},
    ToolOperation{HYPERVISOR_tmem_op, 5, "TMEM_GET_PAGE"},
    ToolOperation{HYPERVISOR_tmem_op, 6, "TMEM_FLUSH_PAGE"},
    ToolOperation{HYPERVISOR_tmem_op, 7, "TMEM_FLUSH_OBJECT"},
    ToolOperation{HYPERVISOR_dm_op, 1, "XEN_DMOP_create_ioreq_server"},
    ToolOperation{HYPERVISOR_dm_op, 2, "XEN_DMOP_get_ioreq_server_info"},
    ToolOperation{HYPERVISOR_dm_op, 3, "XEN_DMOP_map_io_range_to_ioreq_server"},
    ToolOperation{HYPERVISOR_dm_op, 4, "XEN_DMOP_unmap_io_range_from_ioreq_server"},
    ToolOperation{HYPERVISOR_dm_op, 5, "XEN_DMOP_set_ioreq_server_state"},
    ToolOperation{HYPERVISOR_dm_op, 6, "XEN_DMOP_destroy_ioreq_server"},
    ToolOperation{HYPERVISOR_dm_op, 7, "XEN_DMOP_track_dirty_vram"},
    ToolOperation{HYPERVISOR_dm_op, 8, "XEN_DMOP_set_pci_intx_level"},
    ToolOperation{HYPERVISOR_dm_op, 9, "XEN_DMOP_set_isa_irq_level"},
    ToolOperation{HYPERVISOR_dm_op, 10, "XEN_DMOP_set_pci_link_route"},
    ToolOperation{HYPERVISOR_dm_op, 11, "XEN_DMOP_modified_memory"},
    ToolOperation{HYPERVISOR_dm_op, 12, "XEN_DMOP_set_mem_type"},
    ToolOperation{HYPERVISOR_dm_op, 13, "XEN_DMOP_inject_event"},
    ToolOperation{HYPERVISOR_dm_op, 14, "XEN_DMOP_inject_msi"},
    ToolOperation{HYPERVISOR_dm_op, 15, "XEN_DMOP_map_mem_type_to_ioreq_server"},
    ToolOperation{HYPERVISOR_dm_op, 16, "XEN_DMOP_remote_shutdown"},
    ToolOperation{HYPERVISOR_dm_op, 17, "XEN_DMOP_relocate_memory"},
    ToolOperation{HYPERVISOR_dm_op, 18, "XEN_DMOP_pin_memory_cacheattr"},
    ToolOperation{HYPERVISOR_dm_op, 19, "XEN_DMOP_set_irq_level"},
    ToolOperation{HYPERVISOR_dm_op, 20, "XEN_DMOP_nr_vcpus"},
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

std::span<const ToolOperation> tool_operations() {
    return kToolOperations;
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
    return profile.behaves_as < operation.refused_until ? Standing::kPrivileged
                                                        : operation.standing;
}

Standing standing_of(const Profile& profile, const Hypercall& hypercall) {
    return (profile.hypercalls >> hypercall.number & 1) != 0 ? hypercall.standing
                                                             : Standing::kAbsent;
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
    const auto found = std::ranges::find_if(kToolOperations, [&](const ToolOperation& row) {
        return row.hypercall == HYPERVISOR_dm_op && row.sub_op == op;
    });
    return found == kToolOperations.end() ? std::string_view{} : found->name;
}

bool exists(const Profile& profile, std::uint64_t hypercall, std::uint64_t sub_op) {
    const Operation* operation = find_operation(hypercall, sub_op);
    return operation != nullptr && standing_of(profile, *operation) != Standing::kAbsent;
}

}  // namespace xenshim::abi
