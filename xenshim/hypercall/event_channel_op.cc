// HYPERVISOR_event_channel_op (Xen's common/event_channel.c).
#include "xenshim/abi/continuation.h"
#include "xenshim/abi/operations.h"
#include "xenshim/abi/release_rules.h"
#include "xenshim/hypercall/handlers.h"

namespace xenshim {

using namespace abi;

namespace {

// 10, and 14 for what of it is left after a stop. Xen forms the latter; a guest may too, and hears
// -EBUSY unless a reset is waiting to go on.
Outcome reset(Call& call) {
    const auto which = call.read<evtchn_reset>(call.handle(1));
    if (!which) return Call::fail(which.error());
    if (const auto self = call.require_self(which->dom, XEN_EPERM); !self) {
        return Call::fail(self.error());
    }
    EventChannels& ports = call.domain().event_channels();
    if (!call.profile().evtchn_reset_continues) {
        ports.reset();
        return Call::ok();
    }
    const std::uint32_t step = continuation_rule(call.profile(), call.request()).granularity;
    const auto stopped = ports.reset(call.arg<std::uint32_t>(0) == EVTCHNOP_reset_cont,
                                     [&](Port port) { return call.should_yield(port / step); });
    if (!stopped) return Call::fail(stopped.error());
    if (*stopped != 0) return Continue{*stopped};
    return Call::ok();
}

}  // namespace

Outcome event_channel_op(Call& call) {
    EventChannels& ports = call.domain().event_channels();
    const vmm::Gva arg = call.handle(1);
    const auto sub_op = call.arg<std::uint32_t>(0);
    if (!exists(call.profile(), HYPERVISOR_event_channel_op, sub_op)) return Call::fail(XEN_ENOSYS);

    switch (sub_op) {
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
        case EVTCHNOP_reset_cont: return reset(call);

        case EVTCHNOP_init_control:
            return call.in_out<evtchn_init_control>(arg, [&](auto& op) -> GuestResult<void> {
                TRY(ports.init_control(op.vcpu, op.offset,
                                       call.domain().named_page(op.control_gfn)));
                op.link_bits = kFifoLinkBits;
                return {};
            });

        case EVTCHNOP_expand_array:
            return call.in<evtchn_expand_array>(arg, [&](auto& op) -> GuestResult<void> {
                const auto done = ports.expand_array(call.domain().named_page(op.array_gfn));
                // Of a domain that is not on the FIFO ABI.
                if (!done && done.error() == XEN_EOPNOTSUPP) {
                    return refuse(expand_array_refusal(call.profile()));
                }
                return done;
            });

        case EVTCHNOP_set_priority:
            return call.in<evtchn_set_priority>(
                arg, [&](auto& op) { return ports.set_priority(op.port, op.priority); });

        default: return Call::fail(XEN_ENOSYS);
    }
}

}  // namespace xenshim
