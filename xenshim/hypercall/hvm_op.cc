// HYPERVISOR_hvm_op (Xen's arch/x86/hvm/hvm.c).
#include <algorithm>
#include <array>

#include "xenshim/abi/device_structs.h"
#include "xenshim/abi/operations.h"
#include "xenshim/abi/other_numbers.h"
#include "xenshim/abi/release_rules.h"
#include "xenshim/hypercall/device_model.h"
#include "xenshim/hypercall/handlers.h"

namespace xenshim {

using namespace abi;

namespace {

// The first vector that an upcall may use: those below are exceptions and LAPIC-reserved.
constexpr std::uint8_t kFirstVector = 0x10;

GuestResult<void> require_target(Call& call, std::uint16_t domid, Errno for_dom0) {
    return may_target(call.profile(), domid, call.domain().config().domid, for_dom0);
}

// Order as in Xen: the index, then the domain, then what the index allows.
GuestResult<void> check_param(Call& call, const xen_hvm_param& param) {
    if (!call.domain().params().exists(param.index)) return refuse(XEN_EINVAL);
    return require_target(call, param.domid, XEN_EINVAL);  // domain 0 is not an HVM domain
}

GuestResult<void> set_param(Call& call, const xen_hvm_param& param) {
    TRY(check_param(call, param));
    Domain& domain = call.domain();
    switch (TRY(domain.params().set(param.index, param.value))) {
        case Params::Effect::kNone: break;
        case Params::Effect::kCallbackChanged:
            domain.latch_width(call.request().width);
            // Without a PIC and an I/O APIC any other kind is recorded, but the vector that was set
            // stays in force (measured on PVH, 4.17.7).
            if (domain.config().interrupt_controllers ||
                param.value >> 56 == abi::kCallbackTypeVector) {
                domain.set_callback(param.value);
            }
            break;
        case Params::Effect::kCrash: domain.shutdown(SHUTDOWN_crash); break;
    }
    return {};
}

GuestResult<void> pagetable_dying(Call& call, const xen_hvm_pagetable_dying& op) {
    TRY(require_target(call, op.domid, pagetable_dying_of_dom0(call.profile())));
    return refuse(XEN_EINVAL);  // there is no shadow paging
}

// ---- the device model's, until 4.8 --------------------------------------------------------------

// Both structures of modified_memory and set_mem_type as one.
struct MemoryRange {
    std::uint16_t domid = 0;
    std::uint32_t type = 0;
    PageRange pages;
};

GuestResult<MemoryRange> read_range(Call& call) {
    if (!has_memory_range_of_4_4(call.profile())) {
        const auto op = TRY(call.read<xen_hvm_memory_range>(call.handle(1)));
        return MemoryRange{op.domid, op.hvmmem_type, {op.first_pfn, op.nr}};
    }
    const auto op = TRY(call.read<xen_hvm_memory_range_4_4>(call.handle(1)));
    return MemoryRange{op.domid, op.hvmmem_type, {op.first_pfn, op.nr}};
}

Outcome change_memory(Call& call, Command at) {
    const auto range = read_range(call);
    if (!range) return Call::fail(range.error());
    if (const auto may = require_device_model(call, range->domid); !may) {
        return Call::fail(may.error());
    }
    // The cursor is a guest register: one behind the end is as wrong as any other number.
    if (range->pages.count < at.start || !check_range(call, range->pages)) {
        return Call::fail(XEN_EINVAL);
    }
    const ContinuationRule rule = continuation_rule(call.profile(), call.request());
    if (at.op == HVMOP_modified_memory) {
        Physmap& physmap = call.domain().physmap();
        return for_each_page(call, rule, range->pages, at.start,
                             [&](std::uint64_t gfn) -> GuestResult<void> {
                                 physmap.mark_modified(gfn);
                                 return {};
                             });
    }
    const auto type = settable_type(range->type);
    if (!type) return Call::fail(type.error());
    return for_each_page(call, rule, range->pages, at.start,
                         [&](std::uint64_t gfn) { return set_page_type(call, gfn, *type); });
}

// The others are refused, once their structure can be read and is not nonsense.
struct DeviceOp {
    std::uint32_t op;
    std::uint8_t bytes;  // what is copied in: first the domain, in every one of them
    // What is looked at before the domain; null: nothing.
    bool (*sane)(std::span<const std::byte> arg) = nullptr;
};

std::uint8_t u8(std::span<const std::byte> arg, std::size_t at) {
    return std::to_integer<std::uint8_t>(arg[at]);
}

constexpr std::uint8_t kIsaIrqs = 16, kPciLinks = 4, kPciDevices = 32, kPciPins = 4;
constexpr std::size_t kLargestDeviceArg = 32;

constexpr std::array kDeviceOps = {
    DeviceOp{HVMOP_set_pci_intx_level, 8,  // {domain, bus, device, intx, level}
             [](std::span<const std::byte> arg) {
                 return u8(arg, 2) == 0 && u8(arg, 3) == 0 && u8(arg, 4) < kPciDevices &&
                        u8(arg, 5) < kPciPins;
             }},
    DeviceOp{HVMOP_set_isa_irq_level, 4,  // {isa_irq, level}
             [](std::span<const std::byte> arg) { return u8(arg, 2) < kIsaIrqs; }},
    DeviceOp{HVMOP_set_pci_link_route, 4,  // {link, isa_irq}
             [](std::span<const std::byte> arg) {
                 return u8(arg, 2) < kPciLinks && u8(arg, 3) < kIsaIrqs;
             }},
    DeviceOp{HVMOP_track_dirty_vram, 24},  // 32 until 4.4; the tail is a handle that nobody follows
    DeviceOp{HVMOP_set_mem_access, 16},
    DeviceOp{HVMOP_get_mem_access, 16},
    DeviceOp{HVMOP_inject_trap, 32},
    DeviceOp{HVMOP_inject_msi, 16},
    DeviceOp{HVMOP_create_ioreq_server, 6},
    DeviceOp{HVMOP_get_ioreq_server_info, 24},
    DeviceOp{HVMOP_map_io_range_to_ioreq_server, 24},
    DeviceOp{HVMOP_unmap_io_range_from_ioreq_server, 24},
    DeviceOp{HVMOP_destroy_ioreq_server, 4},
    DeviceOp{HVMOP_set_ioreq_server_state, 6},
};

Outcome device_op(Call& call, std::uint64_t number) {
    const auto op = std::find_if(kDeviceOps.begin(), kDeviceOps.end(),
                                 [&](const DeviceOp& o) { return o.op == number; });
    if (op == kDeviceOps.end()) return Call::fail(XEN_ENOSYS);
    std::array<std::byte, kLargestDeviceArg> bytes{};
    const auto arg = std::span(bytes).first(op->bytes);
    if (!call.access().read(call.handle(1), arg)) return Call::fail(XEN_EFAULT);
    if (op->sane != nullptr && !op->sane(arg)) return Call::fail(XEN_EINVAL);
    const auto domid = static_cast<std::uint16_t>(u8(arg, 0) | u8(arg, 1) << 8);
    const auto may = require_device_model(call, domid);
    // A VM's privilege does not make its guest raise its own interrupts.
    return Call::fail(may ? XEN_EPERM : may.error());
}

}  // namespace

Outcome hvm_op(Call& call) {
    const Profile& profile = call.profile();
    const vmm::Gva arg = call.handle(1);
    const Command at = decode_hvm_op(profile, call.arg(0));
    if (!exists(profile, HYPERVISOR_hvm_op, at.op)) return Call::fail(XEN_ENOSYS);
    switch (at.op) {
        case HVMOP_set_param:
            return call.in<xen_hvm_param>(arg, [&](auto& p) { return set_param(call, p); });

        case HVMOP_get_param:
            return call.in_out<xen_hvm_param>(arg, [&](auto& p) -> GuestResult<void> {
                TRY(check_param(call, p));
                p.value = TRY(call.domain().params().get(p.index));
                return {};
            });

        case HVMOP_flush_tlbs:
            // KVM keeps guest TLBs coherent itself; only the argument can be wrong.
            if (arg.value == 0) return Call::ok();
            return Call::fail(flush_tlbs_argument_refusal(profile));

        case HVMOP_modified_memory:
        case HVMOP_set_mem_type: return change_memory(call, at);

        case HVMOP_pagetable_dying:
            return call.in<xen_hvm_pagetable_dying>(
                arg, [&](auto& op) { return pagetable_dying(call, op); });

        case HVMOP_get_time: {
            const xen_hvm_get_time time{.now = call.domain().ports().system_time_ns()};
            return Call::result(call.write(arg, time));
        }

        case HVMOP_xentrace:
            return call.in<xen_hvm_xentrace>(arg, [&](auto& op) -> GuestResult<void> {
                // Nobody reads a trace buffer here; the checks are Xen's.
                if (op.extra_bytes > op.extra.size() || (op.event & ~0xfffu) != 0) {
                    return refuse(XEN_EINVAL);
                }
                return {};
            });

        case HVMOP_get_mem_type:
            return call.in_out<xen_hvm_get_mem_type>(arg, [&](auto& op) -> GuestResult<void> {
                TRY(require_target(call, op.domid, XEN_EPERM));
                op.mem_type = static_cast<std::uint16_t>(call.domain().physmap().mem_type(op.pfn));
                return {};
            });

        case HVMOP_set_evtchn_upcall_vector:
            return call.in<xen_hvm_evtchn_upcall_vector>(arg, [&](auto& op) -> GuestResult<void> {
                if (op.vector < kFirstVector) return refuse(XEN_EINVAL);
                if (op.vcpu >= call.domain().vcpus()) return refuse(XEN_ENOENT);
                call.domain().vcpu(op.vcpu).upcall_vector = op.vector;
                call.domain().ports().upcall_vector_changed(op.vcpu, op.vector);
                return {};
            });

        case HVMOP_guest_request_vm_event:
            return arg.value == 0 ? Call::ok() : Call::fail(XEN_EINVAL);

        case HVMOP_altp2m: return Call::fail(XEN_EOPNOTSUPP);

        // XenServer's old Windows drivers. The first was once a hint to shadow paging; the second's
        // build number was never looked at.
        case HVMOP_process_dying: return Call::ok();
        case HVMOP_set_driver_version: call.domain().quirks().latched = true; return Call::ok();

        default: return device_op(call, at.op);
    }
}

}  // namespace xenshim
