// HYPERVISOR_sched_op (Xen's common/sched/core.c) and HYPERVISOR_set_timer_op.
#include <sched.h>

#include "xenshim/abi/operations.h"
#include "xenshim/hypercall/handlers.h"

namespace xenshim {

using namespace abi;

namespace {

constexpr std::uint32_t kMaxPolledPorts = 128;

Outcome poll(Call& call) {
    const auto want = call.read_wide<sched_poll>(call.handle(1));
    if (!want) return Call::fail(want.error());
    if (want->nr_ports > kMaxPolledPorts) return Call::fail(XEN_EINVAL);
    call.domain().end_poll(call.vcpu());  // of one that an interrupt ended inside KVM
    EventChannels& channels = call.domain().event_channels();
    // Counted as a poller before the ports are looked at: an event that comes in between wakes us.
    ++channels.pollers;
    const auto leave = [&](Outcome outcome) {
        --channels.pollers;
        return outcome;
    };
    // Each port is judged as it is read: what stands behind a pending one is never looked at.
    std::vector<Port> polled;
    for (std::uint32_t i = 0; i < want->nr_ports; ++i) {
        const auto port = call.read<std::uint32_t>(call.element({want->ports}, i, 4));
        if (!port) return leave(Call::fail(port.error()));
        const auto pending = channels.pending(*port);
        if (!pending) return leave(Call::fail(pending.error()));
        if (*pending) return leave(Call::ok());
        polled.push_back(*port);
    }
    if (want->timeout != 0 && want->timeout <= call.domain().ports().system_time_ns()) {
        return leave(Call::ok());
    }
    if (polled.empty()) --channels.pollers;  // only the time, or an event of this vCPU, ends it
    call.domain().vcpu(call.vcpu()).polled = std::move(polled);
    return Block{want->timeout == 0 ? std::nullopt : std::optional(want->timeout)};
}

Outcome remote_shutdown(Call& call) {
    return call.in<sched_remote_shutdown>(call.handle(1), [&](auto& op) -> GuestResult<void> {
        // DOMID_SELF is not a remote domain; one's own number is, and may not be shut down so.
        if (op.domain_id == 0 || op.domain_id == call.domain().config().domid) {
            return refuse(XEN_EPERM);
        }
        return refuse(XEN_ESRCH);
    });
}

Outcome watchdog(Call& call) {
    const auto op = call.read<abi::sched_watchdog>(call.handle(1));
    if (!op) return Call::fail(op.error());
    const auto slot = call.domain().watchdog(op->id, op->timeout);
    if (slot) return Call::ok(*slot);
    // Measured on Xen 4.17: -ENOSPC comes zero-extended from 32 bits, other errors do not.
    if (slot.error() == XEN_ENOSPC) {
        return Call::ok(static_cast<std::uint32_t>(-std::int32_t{XEN_ENOSPC}));
    }
    return Call::fail(slot.error());
}

}  // namespace

Outcome sched_op(Call& call) {
    const auto sub_op = call.arg<std::uint32_t>(0);
    if (!exists(call.profile(), HYPERVISOR_sched_op, sub_op)) return Call::fail(XEN_ENOSYS);
    switch (sub_op) {
        case SCHEDOP_yield:
            ::sched_yield();  // backends may be waiting for this CPU
            return Call::ok();

        case SCHEDOP_block:
            call.domain().end_poll(call.vcpu());
            call.domain().shared_info().clear_upcall_mask(call.vcpu());
            return Block{std::nullopt};

        case SCHEDOP_shutdown: {
            const auto op = call.read<sched_shutdown>(call.handle(1));
            if (!op) return Call::fail(op.error());
            return Call::ok(
                call.domain().shutdown_by(call.vcpu(), static_cast<std::uint8_t>(op->reason)));
        }

        case SCHEDOP_shutdown_code:
            return call.in<sched_shutdown>(call.handle(1), [&](auto& op) -> GuestResult<void> {
                call.domain().set_shutdown_code(static_cast<std::uint8_t>(op.reason));
                return {};
            });

        case SCHEDOP_poll: return poll(call);
        case SCHEDOP_remote_shutdown: return remote_shutdown(call);
        case SCHEDOP_watchdog: return watchdog(call);
        case SCHEDOP_pin_override: return Call::fail(XEN_EPERM);
        default: return Call::fail(XEN_ENOSYS);
    }
}

Outcome set_timer_op(Call& call) {
    // A 32-bit caller passes the 64 bits in two registers, low first.
    const std::uint64_t at =
        call.is_64bit() ? call.arg(0) : (call.arg(1) << 32) | call.arg<std::uint32_t>(0);
    Timers& timers = call.domain().vcpu(call.vcpu()).timers;
    const std::uint64_t now = call.domain().ports().system_time_ns();
    // So far ahead that it must be a mistake (or negative): Xen fires soon instead of never.
    constexpr std::uint64_t kTooFar = std::uint64_t{1} << 50;
    constexpr std::uint64_t kSoon = 100'000'000;
    if (static_cast<std::int64_t>(at) < 0 || (at > now && at - now > kTooFar)) {
        timers.singleshot_ns = now + kSoon;
    } else {
        timers.singleshot_ns = at;
    }
    call.domain().ports().timers_changed(call.vcpu());
    return Call::ok();
}

}  // namespace xenshim
