// HYPERVISOR_memory_op (Xen's common/memory.c and arch/x86/mm.c): which sub-op goes where, and
// what a cursor means to those that have none.
#include "xenshim/abi/operations.h"
#include "xenshim/abi/other_numbers.h"
#include "xenshim/hypercall/handlers.h"
#include "xenshim/hypercall/memory_op_parts.h"

namespace xenshim {

using namespace abi;
using namespace memory_ops;

namespace {

Outcome account(Call& call, std::uint64_t op) {
    const auto domid = call.read<std::uint16_t>(call.handle(1));
    if (!domid) return Call::fail(domid.error());
    if (const auto self = call.require_self(*domid, XEN_EPERM); !self) {
        return Call::fail(self.error());
    }
    const auto accounts = call.domain().physmap().accounts();
    switch (op) {
        case XENMEM_current_reservation:
            return Call::ok(static_cast<std::int64_t>(accounts.current));
        case XENMEM_maximum_reservation:
            return Call::ok(static_cast<std::int64_t>(accounts.maximum));
        default: return Call::ok(static_cast<std::int64_t>(accounts.highest_gfn));
    }
}

// Xen says where the host's memory ends; a guest has no use for more than where its own does.
Outcome maximum_ram_page(Call& call) {
    const auto accounts = call.domain().physmap().accounts();
    return Call::ok(static_cast<std::int64_t>(accounts.highest_gfn + 1));
}

}  // namespace

Outcome memory_op(Call& call) {
    const Profile& profile = call.profile();
    const Command at = decode_memory_op(profile, call.request().width, call.arg(0));
    if (!exists(profile, HYPERVISOR_memory_op, at.op)) return Call::fail(XEN_ENOSYS);
    // To a 32-bit caller claim_pages is not there, whatever it passes (measured).
    if (at.op == XENMEM_claim_pages && !call.is_64bit()) return Call::fail(XEN_ENOSYS);
    // Releases that ignore a stray cursor take it off before either code sees the operation.
    if (at.start != 0) {
        if (const auto refusal = stray_cursor_refusal(profile, at.op)) return Call::fail(*refusal);
    }
    switch (at.op) {
        case XENMEM_increase_reservation:
        case XENMEM_decrease_reservation:
        case XENMEM_populate_physmap: return reservation(call, at);
        case XENMEM_maximum_ram_page: return maximum_ram_page(call);
        case XENMEM_current_reservation:
        case XENMEM_maximum_reservation:
        case XENMEM_maximum_gpfn: return account(call, at.op);
        case XENMEM_machphys_mfn_list:
        case XENMEM_machphys_compat_mfn_list: return machphys_list(call);
        case XENMEM_add_to_physmap: return add_to_physmap(call, at.start);
        case XENMEM_add_to_physmap_batch: return add_to_physmap_batch(call, at.start);
        case XENMEM_remove_from_physmap: return remove_from_physmap(call);
        case XENMEM_translate_gpfn_list: return translate_gpfn_list(call);
        case XENMEM_memory_map: return memory_map(call);
        case XENMEM_set_memory_map: return set_memory_map(call);
        case XENMEM_exchange: return exchange(call);
        case XENMEM_set_pod_target:
        case XENMEM_get_pod_target: return pod_target(call);
        case XENMEM_get_sharing_freed_pages:
        case XENMEM_get_sharing_shared_pages: return Call::ok();  // of no page that is shared
        case XENMEM_access_op: return access_op(call);
        case XENMEM_claim_pages: return claim_pages(call);
        case XENMEM_get_vnumainfo: return vnuma_info(call);
        case XENMEM_reserved_device_memory_map: return reserved_device_memory_map(call);
        case XENMEM_acquire_resource: return acquire_resource(call, at.start);
        // For the control domain alone: refused before the argument is looked at.
        case XENMEM_machine_memory_map:
        case XENMEM_private_translate_gpfn_list:
        case XENMEM_private_release_mfn_list: return Call::fail(XEN_EPERM);
        default: return Call::fail(XEN_ENOSYS);
    }
}

}  // namespace xenshim
