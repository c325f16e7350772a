#include "xenshim/transport/describe.h"

#include <algorithm>
#include <array>
#include <span>
#include <string_view>

#include "vmm/memory/page_walk.h"
#include "xenshim/abi/numbers.h"
#include "xenshim/hypercall/dispatcher.h"
#include "xenshim/transport/hypercall_page.h"
#include "xenshim/transport/hypercall_registers.h"

namespace xenshim {
namespace {

using namespace abi;

struct Operation {
    std::uint32_t hypercall;
    std::uint32_t number;
    std::string_view name;
};

#define XENOLITH_OPERATION(hypercall, prefix, name) \
    Operation {                                     \
        HYPERVISOR_##hypercall, prefix##name, #name \
    }
constexpr std::array kOperations = {
    XENOLITH_OPERATION(memory_op, XENMEM_, increase_reservation),
    XENOLITH_OPERATION(memory_op, XENMEM_, decrease_reservation),
    XENOLITH_OPERATION(memory_op, XENMEM_, maximum_ram_page),
    XENOLITH_OPERATION(memory_op, XENMEM_, current_reservation),
    XENOLITH_OPERATION(memory_op, XENMEM_, maximum_reservation),
    XENOLITH_OPERATION(memory_op, XENMEM_, machphys_mfn_list),
    XENOLITH_OPERATION(memory_op, XENMEM_, populate_physmap),
    XENOLITH_OPERATION(memory_op, XENMEM_, add_to_physmap),
    XENOLITH_OPERATION(memory_op, XENMEM_, memory_map),
    XENOLITH_OPERATION(memory_op, XENMEM_, exchange),
    XENOLITH_OPERATION(memory_op, XENMEM_, set_memory_map),
    XENOLITH_OPERATION(memory_op, XENMEM_, maximum_gpfn),
    XENOLITH_OPERATION(memory_op, XENMEM_, remove_from_physmap),
    XENOLITH_OPERATION(memory_op, XENMEM_, add_to_physmap_batch),
    XENOLITH_OPERATION(event_channel_op, EVTCHNOP_, bind_interdomain),
    XENOLITH_OPERATION(event_channel_op, EVTCHNOP_, bind_virq),
    XENOLITH_OPERATION(event_channel_op, EVTCHNOP_, bind_pirq),
    XENOLITH_OPERATION(event_channel_op, EVTCHNOP_, close),
    XENOLITH_OPERATION(event_channel_op, EVTCHNOP_, send),
    XENOLITH_OPERATION(event_channel_op, EVTCHNOP_, status),
    XENOLITH_OPERATION(event_channel_op, EVTCHNOP_, alloc_unbound),
    XENOLITH_OPERATION(event_channel_op, EVTCHNOP_, bind_ipi),
    XENOLITH_OPERATION(event_channel_op, EVTCHNOP_, bind_vcpu),
    XENOLITH_OPERATION(event_channel_op, EVTCHNOP_, unmask),
    XENOLITH_OPERATION(event_channel_op, EVTCHNOP_, reset),
    XENOLITH_OPERATION(event_channel_op, EVTCHNOP_, init_control),
    XENOLITH_OPERATION(event_channel_op, EVTCHNOP_, expand_array),
    XENOLITH_OPERATION(event_channel_op, EVTCHNOP_, set_priority),
    XENOLITH_OPERATION(event_channel_op, EVTCHNOP_, reset_cont),
    XENOLITH_OPERATION(sched_op, SCHEDOP_, yield),
    XENOLITH_OPERATION(sched_op, SCHEDOP_, block),
    XENOLITH_OPERATION(sched_op, SCHEDOP_, shutdown),
    XENOLITH_OPERATION(sched_op, SCHEDOP_, poll),
    XENOLITH_OPERATION(sched_op, SCHEDOP_, remote_shutdown),
    XENOLITH_OPERATION(sched_op, SCHEDOP_, shutdown_code),
    XENOLITH_OPERATION(sched_op, SCHEDOP_, watchdog),
    XENOLITH_OPERATION(sched_op, SCHEDOP_, pin_override),
    XENOLITH_OPERATION(vcpu_op, VCPUOP_, initialise),
    XENOLITH_OPERATION(vcpu_op, VCPUOP_, up),
    XENOLITH_OPERATION(vcpu_op, VCPUOP_, down),
    XENOLITH_OPERATION(vcpu_op, VCPUOP_, is_up),
    XENOLITH_OPERATION(vcpu_op, VCPUOP_, get_runstate_info),
    XENOLITH_OPERATION(vcpu_op, VCPUOP_, register_runstate_memory_area),
    XENOLITH_OPERATION(vcpu_op, VCPUOP_, set_periodic_timer),
    XENOLITH_OPERATION(vcpu_op, VCPUOP_, stop_periodic_timer),
    XENOLITH_OPERATION(vcpu_op, VCPUOP_, set_singleshot_timer),
    XENOLITH_OPERATION(vcpu_op, VCPUOP_, stop_singleshot_timer),
    XENOLITH_OPERATION(vcpu_op, VCPUOP_, register_vcpu_info),
    XENOLITH_OPERATION(vcpu_op, VCPUOP_, send_nmi),
    XENOLITH_OPERATION(vcpu_op, VCPUOP_, get_physid),
    XENOLITH_OPERATION(vcpu_op, VCPUOP_, register_vcpu_time_memory_area),
    XENOLITH_OPERATION(xen_version, XENVER_, version),
    XENOLITH_OPERATION(xen_version, XENVER_, extraversion),
    XENOLITH_OPERATION(xen_version, XENVER_, compile_info),
    XENOLITH_OPERATION(xen_version, XENVER_, capabilities),
    XENOLITH_OPERATION(xen_version, XENVER_, changeset),
    XENOLITH_OPERATION(xen_version, XENVER_, platform_parameters),
    XENOLITH_OPERATION(xen_version, XENVER_, get_features),
    XENOLITH_OPERATION(xen_version, XENVER_, pagesize),
    XENOLITH_OPERATION(xen_version, XENVER_, guest_handle),
    XENOLITH_OPERATION(xen_version, XENVER_, commandline),
    XENOLITH_OPERATION(xen_version, XENVER_, build_id),
    XENOLITH_OPERATION(hvm_op, HVMOP_, set_param),
    XENOLITH_OPERATION(hvm_op, HVMOP_, get_param),
    XENOLITH_OPERATION(hvm_op, HVMOP_, flush_tlbs),
    XENOLITH_OPERATION(hvm_op, HVMOP_, pagetable_dying),
    XENOLITH_OPERATION(hvm_op, HVMOP_, get_time),
    XENOLITH_OPERATION(hvm_op, HVMOP_, xentrace),
    XENOLITH_OPERATION(hvm_op, HVMOP_, get_mem_type),
    XENOLITH_OPERATION(hvm_op, HVMOP_, set_evtchn_upcall_vector),
    XENOLITH_OPERATION(hvm_op, HVMOP_, guest_request_vm_event),
    XENOLITH_OPERATION(hvm_op, HVMOP_, altp2m),
    XENOLITH_OPERATION(grant_table_op, GNTTABOP_, map_grant_ref),
    XENOLITH_OPERATION(grant_table_op, GNTTABOP_, unmap_grant_ref),
    XENOLITH_OPERATION(grant_table_op, GNTTABOP_, setup_table),
    XENOLITH_OPERATION(grant_table_op, GNTTABOP_, copy),
    XENOLITH_OPERATION(grant_table_op, GNTTABOP_, query_size),
    XENOLITH_OPERATION(grant_table_op, GNTTABOP_, set_version),
    XENOLITH_OPERATION(grant_table_op, GNTTABOP_, get_version),
    XENOLITH_OPERATION(grant_table_op, GNTTABOP_, swap_grant_ref),
};
#undef XENOLITH_OPERATION

// Whether the first argument says which operation: not of these.
bool has_operations(std::uint64_t hypercall) {
    return hypercall != HYPERVISOR_multicall && hypercall != HYPERVISOR_set_timer_op;
}

}  // namespace

HypercallDescription describe_hypercall(const Profile& profile, const Request& request) {
    HypercallDescription out;
    const auto row = std::ranges::find(hypercalls(), request.number, &HypercallRow::number);
    if (row == hypercalls().end()) {
        out.name = "hypercall " + std::to_string(request.number);
        return out;
    }
    out.name = row->name;
    if (!has_operations(request.number)) {
        if (request.number == HYPERVISOR_multicall) out.left = request.args[1];
        return out;
    }
    std::uint64_t number = request.args[0];
    if (request.number == HYPERVISOR_memory_op) {
        const auto command = decode_memory_op(profile, request.width, request.args[0]);
        number = command.op;
        if (command.start_extent != 0) out.done = command.start_extent;
    }
    const auto operation = std::ranges::find_if(kOperations, [&](const Operation& o) {
        return o.hypercall == request.number && o.number == number;
    });
    out.operation =
        operation != kOperations.end() ? std::string(operation->name) : std::to_string(number);
    return out;
}

std::optional<PendingHypercall> pending_hypercall(vmm::GuestMemory& memory,
                                                  const vmm::kvm::Vcpu& vcpu,
                                                  const vmm::kvm::Registers& registers) {
    constexpr std::uint64_t kSmap = std::uint64_t{1} << 21;
    const bool wide = vcpu.in_64bit_code();
    const std::uint64_t at =
        wide ? registers.rip : (registers.cs.state.base + registers.rip) & UINT32_MAX;
    // As the CPU fetches, which asks nothing of SMAP.
    vmm::LinearMemory linear(memory, {.cr0 = registers.cr0,
                                      .cr3 = registers.cr3,
                                      .cr4 = registers.cr4 & ~kSmap,
                                      .efer = registers.efer,
                                      .rflags = registers.rflags});
    TrapInstruction code{};
    if (!linear.read({at}, std::as_writable_bytes(std::span(code)))) return std::nullopt;
    if (code == kVmcall) return PendingHypercall{"vmcall", read_request(vcpu)};
    if (code == kVmmcall) return PendingHypercall{"vmmcall", read_request(vcpu)};
    if (code == kPortTrap) return PendingHypercall{"port", read_request(vcpu)};
    return std::nullopt;
}

}  // namespace xenshim
