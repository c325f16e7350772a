#include "xenshim/transport/kvm_xen.h"

#include <numeric>

#include "vmm/base/log.h"
#include "xenshim/abi/callback.h"
#include "xenshim/transport/hypercall_registers.h"

namespace xenshim {

using vmm::kvm::ExitReason;
using vmm::kvm::Reg;

KvmXenTransport::KvmXenTransport(vmm::Machine& machine, PlatformConfig platform_config,
                                 std::uint32_t xen_flags)
    : XenPlatform(machine, std::move(platform_config)),
      xen_flags_(xen_flags),
      calls_with_registers_(machine.vcpus()) {}

vmm::Result<void> KvmXenTransport::set_up_transport() {
    TRY(trap_call_sites());
    TRY(machine().vm().enable_xen(config().cpuid_base));
    return machine().vm().set_xen_long_mode(true);
}

void KvmXenTransport::ready_transport(PerVcpu& vcpu) {
    if ((xen_flags_ & vmm::kvm::kXenEvtchnSend) != 0) {
        vcpu.thread.vcpu().set_xen_vcpu_id(vcpu.thread.index());
    }
}

bool KvmXenTransport::handle_exit(vmm::VcpuThread& thread, ExitReason reason) {
    switch (reason) {
        case ExitReason::kPio: return handle_trap(per_vcpu(thread.index()));
        case ExitReason::kXenHypercall: hypercall(per_vcpu(thread.index())); return true;
        case ExitReason::kMsrWrite:
        case ExitReason::kMsrRead: handle_msr(per_vcpu(thread.index())); return true;
        case ExitReason::kIrqWindow:
            // Asked for again if there is still something to deliver.
            thread.vcpu().request_interrupt_window(false);
            thread.request(vmm::kExtintRequest);
            return true;
        default: return false;
    }
}

void KvmXenTransport::hypercall(PerVcpu& vcpu) {
    auto& kvm = vcpu.thread.vcpu();
    const auto exit = kvm.xen_hypercall();
    abi::Request request;
    request.number = exit.number;
    request.cpl = exit.cpl;
    request.width = exit.long_mode ? abi::Width::k64 : abi::Width::k32;
    for (std::size_t i = 0; i < request.args.size(); ++i) {
        request.args[i] = exit.args[i];
    }
    // Where the instruction is: not RIP less its length afterwards, for prefixes are legal.
    const std::uint64_t rip = kvm.get(Reg::kRip);
    learn_call_site(vcpu);
    const abi::Reply reply = run(vcpu, request);
    // The exit itself says the mode and the privilege; the control registers are needed only to
    // walk to an argument. A vCPU that passes arguments now and then gets them with every exit,
    // so that the ioctl which fetches them otherwise is all but never made.
    constexpr unsigned kCallsWithoutArgument = 64;
    unsigned& left = calls_with_registers_[vcpu.thread.index()];
    left = vcpu.access.used() ? kCallsWithoutArgument : left - (left != 0 ? 1 : 0);
    kvm.bring_system_registers(left != 0);
    if (const auto* finish = std::get_if<abi::Finish>(&reply)) {
        *exit.result = result_register(request.width, finish->result);
    } else if (const auto* again = std::get_if<abi::Reissue>(&reply)) {
        // KVM writes a result and skips the instruction when it completes the exit: let it, then
        // put the vCPU back to where it was.
        *exit.result = 0;
        kvm.complete_exit();
        kvm.set(Reg::kRip, rip);
        write_reissue(kvm, request.width, *again);
        if (again->sleep) block(vcpu, *again->sleep);
    } else {
        *exit.result = 0;
        block(vcpu, *std::get_if<abi::Block>(&reply));
    }
}

// KVM injects the vector by itself at the next entry, and wakes a halted vCPU; the request that
// brought us here made the vCPU leave the guest, which is all that it needs.
void KvmXenTransport::raise_callback(PerVcpu& vcpu, std::uint8_t) {
    leave_hlt(vcpu);
}

void KvmXenTransport::place_vcpu_info(PerVcpu& vcpu, std::optional<vmm::Gpa> gpa) {
    if (!vcpu.thread.vcpu().set_xen_vcpu_info(gpa ? std::optional(gpa->value)
                                                  : std::optional<std::uint64_t>())) {
        // The guest may have moved shared_info on meanwhile; its next place comes after this one.
        vmm::log_debug("vcpu", "vCPU %u: KVM did not take its vcpu_info", vcpu.thread.index());
    }
}

void KvmXenTransport::callback_changed(std::uint64_t value) {
    // KVM takes no vector that belongs to exceptions.
    const std::uint8_t vector = abi::callback_of(value).vector;
    const auto set = machine().vm().set_xen_callback_vector(vector >= 0x10 ? vector : 0);
    if (!set) vmm::log_guest("upcall", "%s", set.error().what.c_str());
    XenPlatform::callback_changed(value);
}

void KvmXenTransport::shared_info_moved(std::uint64_t gfn) {
    const auto set = machine().vm().set_xen_shared_info_gfn(
        gfn == kNoGfn ? std::optional<std::uint64_t>() : std::optional(gfn));
    if (!set) vmm::log_guest("shared_info", "%s", set.error().what.c_str());
    XenPlatform::shared_info_moved(gfn);
}

void KvmXenTransport::runstate_area_moved(unsigned v) {
    XenPlatform::runstate_area_moved(v);
    if ((xen_flags_ & vmm::kvm::kXenRunstate) == 0) return;
    PerVcpu& vcpu = per_vcpu(v);
    const std::uint64_t gpa = domain().vcpu(v).runstate_gpa;
    const auto place = [&vcpu, gpa] {
        vcpu.thread.vcpu().set_xen_runstate(gpa == kNoGfn ? std::optional<std::uint64_t>()
                                                          : std::optional(gpa));
    };
    if (vcpu.thread.is_current()) {
        place();
    } else {
        vcpu.thread.post(place);
    }
}

void KvmXenTransport::account_transport(PerVcpu& vcpu, Runstate::State state) {
    const DomainVcpu& domains = domain().vcpu(vcpu.thread.index());
    if ((xen_flags_ & vmm::kvm::kXenRunstate) == 0 || domains.runstate_gpa == kNoGfn) return;
    // KVM knows nothing of a sleep in a hypercall, nor of a vCPU that is down.
    const std::scoped_lock lock(domains.runstate.mutex);
    if (domains.runstate.now.state == Runstate::kRunning) {
        vcpu.thread.vcpu().set_xen_runstate_now(state);
    }
}

// All that KVM knows of Xen and nobody else does is how a vCPU's time went: timers, polls and ports
// it is not given, and the rest it is told anew.
void KvmXenTransport::settle_transport(PerVcpu& vcpu) {
    const unsigned v = vcpu.thread.index();
    if ((xen_flags_ & vmm::kvm::kXenRunstate) == 0 || domain().vcpu(v).runstate_gpa == kNoGfn) {
        return;
    }
    const auto hosts = vcpu.thread.vcpu().xen_runstate();
    if (!hosts) return;
    RunstateAccount& account = domain().vcpu(v).runstate;
    const std::scoped_lock lock(account.mutex);
    account.now = with_hosts_times(account.now, *hosts, machine().system_time_ns());
}

vmm::Result<void> KvmXenTransport::restore_transport(PerVcpu& vcpu) {
    if ((xen_flags_ & vmm::kvm::kXenRunstate) == 0) return {};
    RunstateAccount& account = domain().vcpu(vcpu.thread.index()).runstate;
    const std::scoped_lock lock(account.mutex);
    const Runstate& now = account.now;
    // KVM wants the times to sum up to when the state began. So they do, but for the last digits of
    // clocks that were read one after the other.
    const std::uint64_t sum = std::accumulate(now.time_ns.begin(), now.time_ns.end(), 0ull);
    if (!vcpu.thread.vcpu().set_xen_runstate_data(
            {.state = now.state, .since_ns = sum, .time_ns = now.time_ns})) {
        vmm::log_warn("runstate", "vCPU %u: KVM does not take its times", vcpu.thread.index());
    }
    return {};
}

void KvmXenTransport::runstate_update_flag(bool on) {
    if ((xen_flags_ & vmm::kvm::kXenRunstateUpdateFlag) == 0) return;
    const auto set = machine().vm().set_xen_runstate_update_flag(on);
    if (!set) vmm::log_guest("runstate", "%s", set.error().what.c_str());
}

bool KvmXenTransport::place_time_area(unsigned v, std::uint64_t gpa) {
    if ((xen_flags_ & vmm::kvm::kXenSharedInfo) == 0) return false;
    PerVcpu& vcpu = per_vcpu(v);
    const auto at = gpa == kNoGfn ? std::optional<std::uint64_t>() : std::optional(gpa);
    if (vcpu.thread.is_current()) return vcpu.thread.vcpu().set_xen_vcpu_time(at);
    vcpu.thread.post([&vcpu, at] { vcpu.thread.vcpu().set_xen_vcpu_time(at); });
    return true;
}

void KvmXenTransport::width_latched(bool is_64bit) {
    const auto set = machine().vm().set_xen_long_mode(is_64bit);
    if (!set) vmm::log_guest("shared_info", "%s", set.error().what.c_str());
}

}  // namespace xenshim
