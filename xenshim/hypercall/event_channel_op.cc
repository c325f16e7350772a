// HYPERVISOR_event_channel_op (Xen's common/event_channel.c).
#include "xenshim/hypercall/handlers.h"

namespace xenshim {

using namespace abi;

Outcome event_channel_op(Call& call) {
    EventChannels& ports = call.domain().event_channels();
    const vmm::Gva arg = call.handle(1);

    switch (call.arg<std::uint32_t>(0)) {
        case EVTCHNOP_alloc_unbound:
            return call.in_out<evtchn_alloc_unbound>(arg, [&](auto& op) -> GuestResult<void> {
                TRY(call.require_self(op.dom, XEN_EPERM));
                op.port = TRY(ports.alloc_unbound(op.remote_dom));
                return {};
            });

        case EVTCHNOP_bind_interdomain:
            return call.in_out<evtchn_bind_interdomain>(arg, [&](auto& op) -> GuestResult<void> {
                op.local_port = TRY(ports.bind_interdomain(op.remote_dom, op.remote_port));
                return {};
            });

        case EVTCHNOP_bind_virq:
            return call.in_out<evtchn_bind_virq>(arg, [&](auto& op) -> GuestResult<void> {
                op.port = TRY(ports.bind_virq(op.virq, op.vcpu));
                return {};
            });

        case EVTCHNOP_bind_pirq:
            return call.in_out<evtchn_bind_pirq>(arg, [&](auto& op) -> GuestResult<void> {
                op.port = TRY(ports.bind_pirq(op.pirq));
                return {};
            });

        case EVTCHNOP_bind_ipi:
            return call.in_out<evtchn_bind_ipi>(arg, [&](auto& op) -> GuestResult<void> {
                op.port = TRY(ports.bind_ipi(op.vcpu));
                return {};
            });

        case EVTCHNOP_close:
            return call.in<evtchn_port>(arg, [&](auto& op) { return ports.close(op.port); });

        case EVTCHNOP_send:
            return call.in<evtchn_port>(arg, [&](auto& op) { return ports.send(op.port); });

        case EVTCHNOP_unmask:
            return call.in<evtchn_port>(arg, [&](auto& op) { return ports.unmask(op.port); });

        case EVTCHNOP_bind_vcpu:
            return call.in<evtchn_bind_vcpu>(
                arg, [&](auto& op) { return ports.bind_vcpu(op.port, op.vcpu); });

        case EVTCHNOP_status:
            return call.in_out<evtchn_status>(arg, [&](auto& op) -> GuestResult<void> {
                TRY(call.require_self(op.dom, XEN_EPERM));
                const auto status = TRY(ports.status(op.port));
                op.status = status.status;
                op.vcpu = status.vcpu;
                op.u = status.u;
                return {};
            });

        case EVTCHNOP_reset:
            return call.in<std::uint16_t>(arg, [&](auto& domid) -> GuestResult<void> {
                TRY(call.require_self(domid, XEN_EPERM));
                ports.reset();
                return {};
            });

        case EVTCHNOP_reset_cont:
            // Only Xen itself forms it, and only while a reset is under way.
            return call.in<std::uint16_t>(arg, [&](auto& domid) -> GuestResult<void> {
                TRY(call.require_self(domid, XEN_EPERM));
                return refuse(XEN_EBUSY);
            });

        case EVTCHNOP_expand_array:
            return call.in<std::uint64_t>(
                arg, [&](auto&) -> GuestResult<void> { return refuse(XEN_EOPNOTSUPP); });

        case EVTCHNOP_set_priority:
            return call.in<evtchn_set_priority>(arg, [&](auto& op) -> GuestResult<void> {
                return refuse(ports.valid(op.port) ? XEN_ENOSYS : XEN_EINVAL);
            });

        default: return Call::fail(XEN_ENOSYS);  // FIFO's init_control among them: 2-level only
    }
}

}  // namespace xenshim
