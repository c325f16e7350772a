// Numbers that Xen 4.17's public headers do not have: removed before it, added after it, private to
// XenServer, or Xen's own. numbers.h holds those that they have, compared name by name.
#pragma once

#include <cstdint>

namespace xenshim::abi {

// memory_op.
enum : std::uint32_t {
    XENMEM_translate_gpfn_list = 8,  // until 3.3
    // XenServer's own, until 7.5; bit 5 is set because sub-ops have 6 bits.
    XENMEM_private_translate_gpfn_list = 0x28,
    XENMEM_private_release_mfn_list = 0x39,
};

// vcpu_op, since 4.18.
enum : std::uint32_t {
    VCPUOP_register_runstate_phys_area = 14,
    VCPUOP_register_vcpu_time_phys_area = 15,
};

// hvm_op: the device model's until 4.8 (public/hvm/hvm_op.h of those releases), then dm_ops.
enum : std::uint32_t {
    HVMOP_set_pci_intx_level = 2,
    HVMOP_set_isa_irq_level = 3,
    HVMOP_set_pci_link_route = 4,
    HVMOP_track_dirty_vram = 6,
    HVMOP_modified_memory = 7,
    HVMOP_set_mem_type = 8,
    HVMOP_set_mem_access = 12,  // 12 and 13: until 4.4
    HVMOP_get_mem_access = 13,
    HVMOP_inject_trap = 14,
    HVMOP_inject_msi = 16,
    HVMOP_create_ioreq_server = 17,
    HVMOP_get_ioreq_server_info = 18,
    HVMOP_map_io_range_to_ioreq_server = 19,
    HVMOP_unmap_io_range_from_ioreq_server = 20,
    HVMOP_destroy_ioreq_server = 21,
    HVMOP_set_ioreq_server_state = 22,
    // XenServer's, for its old Windows drivers (until 7.6).
    HVMOP_process_dying = 0x102,
    HVMOP_set_driver_version = 0x103,
};

// add_to_physmap: what XenServer's drivers from Xen 3.x ask for. Upstream has used 3 and 4 anew.
enum : std::uint32_t {
    XENMAPSPACE_vlapic_old_xs = 3,
    XENMAPSPACE_shared_info_old_xs = 4,
    XENMAPSPACE_vlapic = 0x80000000,
    XENMAPSPACE_physical = 0x80000001,
};

// HVM parameters that are deprecated, or (32BIT) XenServer's own.
enum : std::uint32_t {
    HVM_PARAM_PAE_ENABLED = 4,
    HVM_PARAM_32BIT = 8,
    HVM_PARAM_DM_DOMAIN = 13,
    HVM_PARAM_MEMORY_EVENT_CR0 = 20,
    HVM_PARAM_MEMORY_EVENT_CR3 = 21,
    HVM_PARAM_MEMORY_EVENT_CR4 = 22,
    HVM_PARAM_MEMORY_EVENT_INT3 = 23,
    HVM_PARAM_NESTEDHVM = 24,
    HVM_PARAM_MEMORY_EVENT_SINGLE_STEP = 25,
    HVM_PARAM_BUFIOREQ_EVTCHN = 26,
    HVM_PARAM_MEMORY_EVENT_MSR = 30,
};

// dm_op (public/hvm/dm_op.h, for toolstacks only).
enum : std::uint32_t {
    XEN_DMOP_modified_memory = 11,
    XEN_DMOP_set_mem_type = 12,
    XEN_DMOP_nr_vcpus = 20,  // the last
};

// domctl commands that look at more than their domain before they refuse (public/domctl.h).
enum : std::uint32_t {
    XEN_DOMCTL_createdomain = 1,
    XEN_DOMCTL_getdomaininfo = 5,
    XEN_DOMCTL_irq_permission = 19,
    XEN_DOMCTL_iomem_permission = 20,
    XEN_DOMCTL_ioport_permission = 21,
    XEN_DOMCTL_assign_device = 37,
    XEN_DOMCTL_bind_pt_irq = 38,
    XEN_DOMCTL_memory_mapping = 39,
    XEN_DOMCTL_ioport_mapping = 40,
    XEN_DOMCTL_test_assign_device = 45,
    XEN_DOMCTL_set_target = 46,
    XEN_DOMCTL_deassign_device = 47,
    XEN_DOMCTL_unbind_pt_irq = 48,
    XEN_DOMCTL_get_device_group = 50,
    XEN_DOMCTL_gdbsx_guestmemio = 1000,
};

// mmuext_op's count carries this bit when the call is a continuation (arch/x86/mm.c).
inline constexpr std::uint32_t MMU_UPDATE_PREEMPTED = 0x80000000;

// xen_version: 4.20.
enum : std::uint32_t {
    XENVER_extraversion2 = 11,
    XENVER_capabilities2 = 12,
    XENVER_changeset2 = 13,
    XENVER_commandline2 = 14,
};

}  // namespace xenshim::abi
