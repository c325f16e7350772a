#include "xenshim/transport/portable.h"

#include "vmm/base/log.h"
#include "xenshim/transport/hypercall_registers.h"

namespace xenshim {

using vmm::kvm::ExitReason;
using vmm::kvm::Reg;

namespace {

// KVM's own clock (Documentation/virt/kvm/x86/msr.rst): it fills a pvclock record at the address
// written here, which is what vcpu_info's time is. Hidden from CPUID, it still works.
constexpr std::uint32_t kMsrKvmSystemTime = 0x4b564d01;
constexpr std::uint64_t kClockEnable = 1;
constexpr std::uint64_t kTimeInVcpuInfo = 32;

// Local APIC: LVT0, where the PIC's interrupts come in.
constexpr std::uint32_t kLvt0 = 0x350;
constexpr std::uint32_t kLvtExtintUnmasked = 0x700;

}  // namespace

PortableTransport::PortableTransport(vmm::Machine& machine, PlatformConfig platform_config)
    : XenPlatform(machine, std::move(platform_config)), extra_(machine.vcpus()) {}

vmm::Result<void> PortableTransport::set_up_transport() {
    TRY(trap_call_sites());
    for (unsigned v = 0; v < machine().vcpus(); ++v) {
        machine().vcpu(v).vcpu().open_statistics();  // for housekeeping_transport
    }
    return {};
}

bool PortableTransport::handle_exit(vmm::VcpuThread& thread, ExitReason reason) {
    PerVcpu& vcpu = per_vcpu(thread.index());
    switch (reason) {
        case ExitReason::kPio:
            // A window is told of when the guest runs through it. One that makes the same call
            // again and again has exits of another kind only, on a KVM that interprets.
            if (vcpu.upcall_at_window && thread.vcpu().ready_for_extint()) open_window(vcpu);
            return handle_trap(vcpu);
        case ExitReason::kMsrWrite:
        case ExitReason::kMsrRead: handle_msr(vcpu); return true;
        case ExitReason::kIrqWindow: open_window(vcpu); return true;
        default: return false;
    }
}

// The guest takes interrupts.
void PortableTransport::open_window(PerVcpu& vcpu) {
    // Asked for again if there is still something to deliver.
    vcpu.thread.vcpu().request_interrupt_window(false);
    close_lvt0(vcpu);
    if (std::exchange(vcpu.upcall_at_window, false)) vcpu.thread.request(vmm::kUpcallRequest);
    vcpu.thread.request(vmm::kExtintRequest);
}

// ---- upcalls ------------------------------------------------------------------------------------

// Three steps, tried on kvm_amd and on kvm_pvm:
// - a guest that takes interrupts right now gets the vector injected, which touches no LAPIC state;
//   injecting does not wake a halted vCPU, so that is done too;
// - else the vector is queued with KVM_INTERRUPT, which KVM delivers at the guest's STI (or as it
//   wakes from HLT), needs no EOI and leaves the ISR alone, but goes through LVT0: if the guest
//   masked that, it is opened until an interrupt window tells that the vector was taken;
// - one that is queued already stands for all events until the guest looks.
void PortableTransport::raise_callback(PerVcpu& vcpu, std::uint8_t vector) {
    auto& kvm = vcpu.thread.vcpu();
    if (kvm.mp_state() == vmm::kvm::MpState::kUninitialized) return;  // raised again at its start
    if (kvm.inject_if_ready(vector)) {
        if (kvm.mp_state() == vmm::kvm::MpState::kHalted) {
            kvm.set_mp_state(vmm::kvm::MpState::kRunnable);
        }
        return;
    }
    open_lvt0(vcpu);
    kvm.queue_extint(vector);
}

// With interrupts off the guest may be in its handler: a queued vector would come a second time,
// for nothing. Xen looks at the flag when the interrupts are on again, and so it is done here.
void PortableTransport::raise_again(PerVcpu& vcpu, std::uint8_t vector) {
    auto& kvm = vcpu.thread.vcpu();
    if (kvm.interrupts_enabled()) return raise_callback(vcpu, vector);
    vcpu.upcall_at_window = true;
    open_lvt0(vcpu);
    kvm.request_interrupt_window(true);
}

// Through a masked LVT0 KVM delivers no queued vector, and tells of no interrupt window either.
void PortableTransport::open_lvt0(PerVcpu& vcpu) {
    auto& kvm = vcpu.thread.vcpu();
    const auto lvt0 = kvm.lapic_register(kLvt0);
    if (!lvt0 || (*lvt0 & 0x10700) == kLvtExtintUnmasked) return;
    extra_[vcpu.thread.index()].guest_lvt0 = lvt0;
    kvm.set_lapic_register(kLvt0, kLvtExtintUnmasked);
    kvm.request_interrupt_window(true);
}

// The guest can take an interrupt and none is queued any more: LVT0 is the guest's own again.
void PortableTransport::close_lvt0(PerVcpu& vcpu) {
    auto& saved = extra_[vcpu.thread.index()].guest_lvt0;
    if (!saved) return;
    auto& kvm = vcpu.thread.vcpu();
    // Unless the guest wrote it meanwhile.
    if (kvm.lapic_register(kLvt0) == kLvtExtintUnmasked) kvm.set_lapic_register(kLvt0, *saved);
    saved.reset();
}

// Our own way into LVT0, and a vector that waits there, are no part of the guest: whoever restores
// it raises the upcall again.
void PortableTransport::save_transport(PerVcpu& vcpu, vmm::kvm::VcpuState& state) {
    const auto& guests = extra_[vcpu.thread.index()].guest_lvt0;
    if (guests && state.lapic_register(kLvt0) == kLvtExtintUnmasked) {
        state.set_lapic_register(kLvt0, *guests);
    }
}

// ---- the clock ----------------------------------------------------------------------------------

void PortableTransport::place_vcpu_info(PerVcpu& vcpu, std::optional<vmm::Gpa> gpa) {
    auto& wanted = extra_[vcpu.thread.index()].clock_msr;
    wanted = gpa ? std::optional((gpa->value + kTimeInVcpuInfo) | kClockEnable) : std::nullopt;
    vcpu.thread.vcpu().write_msr(kMsrKvmSystemTime, wanted.value_or(0));
}

void PortableTransport::restart_clock(PerVcpu& vcpu) {
    const auto& wanted = extra_[vcpu.thread.index()].clock_msr;
    if (!wanted) return;
    auto& kvm = vcpu.thread.vcpu();
    if (kvm.read_msr(kMsrKvmSystemTime) != *wanted) kvm.write_msr(kMsrKvmSystemTime, *wanted);
}

// ---- inline calls that we cannot catch ----------------------------------------------------------

namespace {

constexpr const char* kInlineHint =
    "the guest makes hypercalls by VMCALL or VMMCALL at a place that is not known to us, and this "
    "host's KVM does not hand them over; use a host whose KVM has Xen support (xenolith check)";

}  // namespace

// Some KVMs (kvm_pvm) rewrite the instruction and try it again for ever.
void PortableTransport::inspect_transport(PerVcpu& vcpu) {
    auto& kvm = vcpu.thread.vcpu();
    if (kvm.cpl() != 0) return;  // a process may do as it likes: it harms only itself
    std::array<std::uint8_t, 3> code{};
    vcpu.access.begin();
    if (!vcpu.access.read({linear_rip(kvm)}, std::as_writable_bytes(std::span(code)))) return;
    if (code != kVmcall && code != kVmmcall) return;
    machine().stop({.kind = vmm::StopCause::Kind::kError,
                    .error = vmm::Error{vmm::Fault::kHost, kInlineHint}});
}

// Others answer it themselves, and only count it: from ring 3 too, so that the count says something
// only of a guest whose own sites are not known.
void PortableTransport::housekeeping_transport() {
    if (!config().call_sites.empty()) return;
    for (unsigned v = 0; v < machine().vcpus(); ++v) {
        if (machine().vcpu(v).vcpu().statistic("hypercalls").value_or(0) == 0) continue;
        machine().stop({.kind = vmm::StopCause::Kind::kError,
                        .error = vmm::Error{vmm::Fault::kHost, kInlineHint}});
    }
}

}  // namespace xenshim
