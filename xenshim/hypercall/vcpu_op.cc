// HYPERVISOR_vcpu_op (Xen's common/domain.c and arch/x86/domain.c).
#include <bit>

#include "xenshim/abi/operations.h"
#include "xenshim/abi/other_numbers.h"
#include "xenshim/abi/release_rules.h"
#include "xenshim/hypercall/handlers.h"

namespace xenshim {

using namespace abi;

namespace {

VcpuContext from_32(const vcpu_hvm_x86_32& r) {
    VcpuContext c;
    const std::uint64_t gpr[8] = {r.eax, r.ecx, r.edx, r.ebx, r.esp, r.ebp, r.esi, r.edi};
    std::copy(std::begin(gpr), std::end(gpr), c.gpr);
    c.rip = r.eip;
    c.rflags = r.eflags;
    c.cr0 = r.cr0;
    c.cr3 = r.cr3;
    c.cr4 = r.cr4;
    c.efer = r.efer;
    c.cs = {r.cs_base, r.cs_limit, r.cs_ar};
    c.ds = {r.ds_base, r.ds_limit, r.ds_ar};
    c.ss = {r.ss_base, r.ss_limit, r.ss_ar};
    c.es = {r.es_base, r.es_limit, r.es_ar};
    c.tr = {r.tr_base, r.tr_limit, r.tr_ar};
    return c;
}

VcpuContext from_64(const vcpu_hvm_x86_64& r) {
    VcpuContext c;
    const std::uint64_t gpr[8] = {r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi};
    std::copy(std::begin(gpr), std::end(gpr), c.gpr);
    c.rip = r.rip;
    c.rflags = r.rflags;
    c.cr0 = r.cr0;
    c.cr3 = r.cr3;
    c.cr4 = r.cr4;
    c.efer = r.efer;
    c.cs = {0, UINT32_MAX, 0xa9b};  // 64-bit code
    c.ds = c.ss = c.es = {0, UINT32_MAX, 0xc93};
    c.tr = {0, 0x67, 0x8b};
    return c;
}

// What no CPU would start with is refused here, so that KVM is never asked for it.
bool plausible(const VcpuContext& c) {
    constexpr std::uint64_t kPe = 1, kPg = 1u << 31, kPae = 1u << 5;
    constexpr std::uint64_t kLme = 1u << 8, kLma = 1u << 10;
    if ((c.cr0 & kPg) != 0 && (c.cr0 & kPe) == 0) return false;
    if ((c.efer & kLma) != 0 && ((c.cr0 & kPg) == 0 || (c.cr4 & kPae) == 0)) return false;
    if (((c.efer & kLma) != 0) != ((c.efer & kLme) != 0 && (c.cr0 & kPg) != 0)) return false;
    return (c.cs.attributes & 0x90) == 0x90;  // a present code segment
}

GuestResult<void> initialise(Call& call, std::uint32_t id) {
    const auto context = TRY(call.read<vcpu_hvm_context>(call.handle(2)));
    DomainVcpu& vcpu = call.domain().vcpu(id);
    if (vcpu.initialised) return refuse(XEN_EEXIST);
    VcpuContext to;
    if (context.mode == 0) {
        vcpu_hvm_x86_32 regs;
        std::memcpy(&regs, context.regs.data(), sizeof regs);
        if (regs.pad1 != 0 || regs.pad2 != decltype(regs.pad2){}) return refuse(XEN_EINVAL);
        to = from_32(regs);
    } else if (context.mode == 1) {
        vcpu_hvm_x86_64 regs;
        std::memcpy(&regs, context.regs.data(), sizeof regs);
        to = from_64(regs);
    } else {
        return refuse(XEN_EINVAL);
    }
    if (!plausible(to)) return refuse(XEN_EINVAL);
    if (vcpu.initialised.exchange(true)) return refuse(XEN_EEXIST);
    call.domain().ports().start_vcpu(id, &to);  // takes effect with VCPUOP_up
    return {};
}

GuestResult<void> up(Call& call, std::uint32_t id) {
    DomainVcpu& vcpu = call.domain().vcpu(id);
    if (!vcpu.initialised) return refuse(XEN_EINVAL);
    if (!vcpu.up.exchange(true)) {
        call.domain().set_runstate(id, Runstate::kRunning);
        call.domain().ports().start_vcpu(id, nullptr);
    }
    return {};
}

GuestResult<void> get_runstate(Call& call, std::uint32_t id) {
    const Runstate seen = call.domain().runstate(id);
    return call.write_wide<vcpu_runstate_info>(
        call.handle(2),
        {.state = seen.state, .state_entry_time = seen.since_ns, .time = seen.time_ns});
}

constexpr std::uint64_t kClockRecord = 32;  // vcpu_time_info

std::uint64_t runstate_bytes(const Call& call) {
    return call.is_64bit() ? sizeof(vcpu_runstate_info<W64>) : sizeof(vcpu_runstate_info<W32>);
}

// The area whose linear address the argument holds; kNoGfn: it has no translation, or crosses a
// page. That is not an error on Xen: such an area is just never written.
GuestResult<std::uint64_t> linear_area(Call& call, std::uint64_t size) {
    const auto area = TRY(call.read<vcpu_register_memory_area>(call.handle(2))).addr;
    const auto gpa = call.access().translate({call.is_64bit() ? area : area & UINT32_MAX});
    if (!gpa || gpa->offset() + size > vmm::kPageSize) return kNoGfn;
    return gpa->value;
}

// The area whose physical address the argument holds; kNoGfn: it asks to have none any more.
GuestResult<std::uint64_t> physical_area(Call& call, std::uint64_t size) {
    const auto gpa = TRY(call.read<vcpu_register_memory_area>(call.handle(2))).addr;
    if (gpa == UINT64_MAX) return kNoGfn;
    const std::uint64_t align = call.domain().shared_info().is_64bit() ? 8 : 4;
    if (vmm::Gpa{gpa}.offset() + size > vmm::kPageSize || gpa % align != 0) {
        return refuse(XEN_ENXIO);
    }
    if (call.domain().guest_page(vmm::Gpa{gpa}.gfn()) == nullptr) return refuse(XEN_EINVAL);
    return gpa;
}

GuestResult<void> register_runstate_area(Call& call, std::uint32_t id, bool physical) {
    const std::uint64_t size = runstate_bytes(call);
    const auto gpa = TRY(physical ? physical_area(call, size) : linear_area(call, size));
    call.domain().place_runstate_area(id, gpa, physical, call.is_64bit());
    return {};
}

// A second copy of the clock, for user space. Refused where the host feeds one record per vCPU
// only: a copy of ours could lag behind, and a guest that is refused does without.
GuestResult<void> register_time_area(Call& call, std::uint32_t id, bool physical) {
    const auto gpa =
        TRY(physical ? physical_area(call, kClockRecord) : linear_area(call, kClockRecord));
    SharedArea& area = call.domain().vcpu(id).time_area;
    SharedArea wanted = area;
    (physical ? wanted.physical_gpa : wanted.linear_gpa) = gpa;
    // One without translation is never written, and none is asked for.
    const bool nowhere = wanted.effective() == kNoGfn && area.effective() == kNoGfn;
    if (!nowhere && !call.domain().ports().place_time_area(id, wanted.effective())) {
        return refuse(XEN_ENOSYS);
    }
    area = wanted;
    return {};
}

GuestResult<void> set_periodic(Call& call, std::uint32_t id) {
    const auto period = TRY(call.read<vcpu_set_periodic_timer>(call.handle(2))).period_ns;
    if (period < Timers::kShortestPeriodNs || period > Timers::kLongestPeriodNs) {
        return refuse(XEN_EINVAL);
    }
    if (id != call.vcpu()) return refuse(XEN_EINVAL);
    Timers& timers = call.domain().vcpu(id).timers;
    // The first tick comes at once, unless the last one was less than a period ago (measured,
    // 4.17.7).
    const std::uint64_t now = call.domain().ports().system_time_ns();
    const std::uint64_t last = timers.last_periodic_ns;
    timers.next_periodic_ns = last == 0 ? now : std::max(now, last + period);
    timers.period_ns = period;
    call.domain().ports().timers_changed(id);
    return {};
}

GuestResult<void> set_singleshot(Call& call, std::uint32_t id) {
    // Xen's native code looks at the vCPU first, its 32-bit wrapper at the argument.
    if (call.is_64bit() && id != call.vcpu()) return refuse(XEN_EINVAL);
    const auto set = TRY(call.read_wide<vcpu_set_singleshot_timer>(call.handle(2)));
    if (id != call.vcpu()) return refuse(XEN_EINVAL);
    // A deadline in the past fires at once. 0 means off in our own books, so it becomes 1.
    call.domain().vcpu(id).timers.singleshot_ns = set.timeout_abs_ns == 0 ? 1 : set.timeout_abs_ns;
    call.domain().ports().timers_changed(id);
    return {};
}

}  // namespace

Outcome vcpu_op(Call& call) {
    Domain& domain = call.domain();
    const auto id = call.arg<std::uint32_t>(1);
    const auto sub_op = call.arg<std::uint32_t>(0);
    const bool known = exists(call.profile(), HYPERVISOR_vcpu_op, sub_op);
    if (id >= domain.vcpus()) return Call::fail(missing_vcpu_refusal(call.profile(), known));
    if (!known) return Call::fail(XEN_ENOSYS);
    DomainVcpu& vcpu = domain.vcpu(id);
    const vmm::Gva arg = call.handle(2);

    switch (sub_op) {
        case VCPUOP_initialise: return Call::result(initialise(call, id));
        case VCPUOP_up: return Call::result(up(call, id));

        case VCPUOP_down:
            if (vcpu.up) domain.vcpu_down(id);
            return Call::ok();

        case VCPUOP_is_up: return Call::ok(vcpu.up ? 1 : 0);

        case VCPUOP_get_runstate_info: return Call::result(get_runstate(call, id));

        case VCPUOP_register_runstate_memory_area:
            return Call::result(register_runstate_area(call, id, false));
        case VCPUOP_register_runstate_phys_area:
            return Call::result(register_runstate_area(call, id, true));

        case VCPUOP_set_periodic_timer: return Call::result(set_periodic(call, id));

        case VCPUOP_stop_periodic_timer: vcpu.timers.period_ns = 0; return Call::ok();

        case VCPUOP_set_singleshot_timer: return Call::result(set_singleshot(call, id));

        case VCPUOP_stop_singleshot_timer:
            if (id != call.vcpu()) return Call::fail(XEN_EINVAL);
            vcpu.timers.singleshot_ns = 0;
            domain.ports().timers_changed(id);
            return Call::ok();

        case VCPUOP_register_vcpu_info:
            return call.in<vcpu_register_vcpu_info>(
                arg, [&](auto& op) { return domain.register_vcpu_info(id, op.mfn, op.offset); });

        case VCPUOP_send_nmi:
            if (arg.value != 0) return Call::fail(XEN_EINVAL);
            domain.ports().send_nmi(id);
            return Call::ok();

        case VCPUOP_get_physid: return Call::fail(XEN_EINVAL);

        case VCPUOP_register_vcpu_time_memory_area:
            return Call::result(register_time_area(call, id, false));
        case VCPUOP_register_vcpu_time_phys_area:
            return Call::result(register_time_area(call, id, true));

        default: return Call::fail(XEN_ENOSYS);
    }
}

}  // namespace xenshim
