// HYPERVISOR_hvm_op (Xen's arch/x86/hvm/hvm.c).
#include "xenshim/hypercall/handlers.h"

namespace xenshim {

using namespace abi;

namespace {

// The first vector that an upcall may use: those below are exceptions and LAPIC-reserved.
constexpr std::uint8_t kFirstVector = 0x10;

constexpr std::uint16_t kMemTypeRamRw = 0;
constexpr std::uint16_t kMemTypeMmioDm = 2;

// Order as in Xen: the index, then the domain, then what the index allows.
GuestResult<void> check_param(Call& call, const xen_hvm_param& param) {
    if (!call.domain().params().exists(param.index)) return refuse(XEN_EINVAL);
    return call.require_self(param.domid, XEN_EINVAL);  // domain 0 is not an HVM domain
}

GuestResult<void> set_param(Call& call, const xen_hvm_param& param) {
    TRY(check_param(call, param));
    Domain& domain = call.domain();
    switch (TRY(domain.params().set(param.index, param.value))) {
        case Params::Effect::kNone: break;
        case Params::Effect::kCallbackChanged:
            domain.latch_width(call.request().width);
            domain.ports().callback_changed(param.value);
            break;
        case Params::Effect::kCrash: domain.shutdown(SHUTDOWN_crash); break;
    }
    return {};
}

}  // namespace

Outcome hvm_op(Call& call) {
    const vmm::Gva arg = call.handle(1);
    switch (call.arg(0)) {
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
            return arg.value == 0 ? Call::ok() : Call::fail(XEN_EINVAL);

        case HVMOP_pagetable_dying:
            return call.in<xen_hvm_pagetable_dying>(arg, [&](auto& op) -> GuestResult<void> {
                if (call.domain().is_self(op.domid)) return refuse(XEN_EINVAL);  // no shadow paging
                return refuse(op.domid == 0 ? XEN_EOPNOTSUPP : XEN_ESRCH);
            });

        case HVMOP_get_time: {
            const std::uint64_t now = call.domain().ports().system_time_ns();
            return Call::result(call.write(arg, now));
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
                TRY(call.require_self(op.domid, XEN_EPERM));
                op.mem_type =
                    call.domain().physmap().is_mapped(op.pfn) ? kMemTypeRamRw : kMemTypeMmioDm;
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

        default: return Call::fail(XEN_ENOSYS);
    }
}

}  // namespace xenshim
