// What KVM keeps of a vCPU and of the VM's clock, as saved state (vmm/base/saved.h). Numbers are
// the CPU's own (Intel SDM, AMD APM), not KVM's; where KVM's are the only ones, they are part of
// its ABI, which does not change.
//
// Not here, for the transport sets it anew from the domain's state: Xen's attributes (vcpu_info,
// shared_info, callback vector, long mode), KVM's own clock MSRs.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/base/saved.h"

namespace vmm::kvm {

struct SegmentSaved {
    std::uint64_t base = 0;
    std::uint32_t limit = 0;
    std::uint16_t selector = 0;
    std::uint16_t attributes = 0;  // type, s, dpl, p in bits 0-7; avl, l, db, g in 8-11
    bool unusable = false;
    bool operator==(const SegmentSaved&) const = default;
    static constexpr auto fields(auto& self) {
        auto& [base, limit, selector, attributes, unusable] = self;
        return std::tuple{saved::field(1, "base", base), saved::field(2, "limit", limit),
                          saved::field(3, "selector", selector),
                          saved::field(4, "attributes", attributes),
                          saved::field(5, "unusable", unusable)};
    }
};

struct TableSaved {
    std::uint64_t base = 0;
    std::uint16_t limit = 0;
    bool operator==(const TableSaved&) const = default;
    static constexpr auto fields(auto& self) {
        auto& [base, limit] = self;
        return std::tuple{saved::field(1, "base", base), saved::field(2, "limit", limit)};
    }
};

struct SystemRegistersSaved {
    SegmentSaved cs, ss, ds, es, fs, gs, tr, ldt;
    TableSaved gdt, idt;
    std::uint64_t cr0 = 0, cr2 = 0, cr3 = 0, cr4 = 0, cr8 = 0, efer = 0, apic_base = 0;
    // As loaded with CR3; only with PAE paging, and where the host's KVM tells.
    std::optional<std::array<std::uint64_t, 4>> pdptrs;
    bool operator==(const SystemRegistersSaved&) const = default;
    static constexpr auto fields(auto& self) {
        auto& [cs, ss, ds, es, fs, gs, tr, ldt, gdt, idt, cr0, cr2, cr3, cr4, cr8, efer, apic_base,
               pdptrs] = self;
        return std::tuple{saved::field(1, "cs", cs),
                          saved::field(2, "ss", ss),
                          saved::field(3, "ds", ds),
                          saved::field(4, "es", es),
                          saved::field(5, "fs", fs),
                          saved::field(6, "gs", gs),
                          saved::field(7, "tr", tr),
                          saved::field(8, "ldt", ldt),
                          saved::field(9, "gdt", gdt),
                          saved::field(10, "idt", idt),
                          saved::field(11, "cr0", cr0),
                          saved::field(12, "cr2", cr2),
                          saved::field(13, "cr3", cr3),
                          saved::field(14, "cr4", cr4),
                          saved::field(15, "cr8", cr8),
                          saved::field(16, "efer", efer),
                          saved::field(17, "apic_base", apic_base),
                          saved::field(18, "pdptrs", pdptrs)};
    }
};

struct DebugRegistersSaved {
    std::array<std::uint64_t, 4> address{};
    std::uint64_t dr6 = 0, dr7 = 0;
    bool operator==(const DebugRegistersSaved&) const = default;
    static constexpr auto fields(auto& self) {
        auto& [address, dr6, dr7] = self;
        return std::tuple{saved::field(1, "address", address), saved::field(2, "dr6", dr6),
                          saved::field(3, "dr7", dr7)};
    }
};

// What is on its way into the guest: delivered before the instruction at RIP.
struct EventsSaved {
    std::optional<std::uint8_t> exception;  // being injected, or raised and not yet
    std::optional<std::uint32_t> exception_error_code;
    std::optional<std::uint8_t> interrupt;  // being injected
    bool interrupt_is_soft = false;         // by INT n
    std::uint8_t shadow = 0;                // bit 0: after MOV SS; bit 1: after STI
    bool nmi_injected = false;
    std::uint8_t nmis_pending = 0;
    bool nmi_masked = false;
    bool in_smm = false;
    bool smi_pending = false;
    bool smm_inside_nmi = false;
    bool init_latched = false;
    bool triple_fault = false;
    bool operator==(const EventsSaved&) const = default;
    static constexpr auto fields(auto& self) {
        auto& [exception, exception_error_code, interrupt, interrupt_is_soft, shadow, nmi_injected,
               nmis_pending, nmi_masked, in_smm, smi_pending, smm_inside_nmi, init_latched,
               triple_fault] = self;
        return std::tuple{saved::field(1, "exception", exception),
                          saved::field(2, "exception_error_code", exception_error_code),
                          saved::field(3, "interrupt", interrupt),
                          saved::field(4, "interrupt_is_soft", interrupt_is_soft),
                          saved::field(5, "shadow", shadow),
                          saved::field(6, "nmi_injected", nmi_injected),
                          saved::field(7, "nmis_pending", nmis_pending),
                          saved::field(8, "nmi_masked", nmi_masked),
                          saved::field(9, "in_smm", in_smm),
                          saved::field(10, "smi_pending", smi_pending),
                          saved::field(11, "smm_inside_nmi", smm_inside_nmi),
                          saved::field(12, "init_latched", init_latched),
                          saved::field(13, "triple_fault", triple_fault)};
    }
};

// KVM's mp_state.
enum class Activity : std::uint8_t {
    kRunnable = 0,
    kUninitialized = 1,
    kInitReceived = 2,
    kHalted = 3,
    kSipiReceived = 4,
};

struct VcpuState {
    static constexpr saved::Section kSection{"vcpu", 1};
    // RAX RCX RDX RBX RSP RBP RSI RDI R8 to R15
    std::array<std::uint64_t, 16> gpr{};
    std::uint64_t rip = 0, rflags = 2;
    SystemRegistersSaved system;
    DebugRegistersSaved debug;
    std::uint64_t xcr0 = 1;
    // In XSAVE's standard form, without the zeroes at its end but at least the header.
    std::vector<std::byte> xsave;
    // All but those that other members stand for.
    std::map<std::uint32_t, std::uint64_t> msrs;
    std::array<std::byte, 1024> lapic{};  // the timer's current count is 0: it is below
    EventsSaved events;
    Activity activity = Activity::kRunnable;
    std::uint32_t tsc_khz = 0;
    bool operator==(const VcpuState&) const = default;
    static constexpr auto fields(auto& self) {
        auto& [gpr, rip, rflags, system, debug, xcr0, xsave, msrs, lapic, events, activity,
               tsc_khz] = self;
        return std::tuple{saved::field(1, "gpr", gpr),
                          saved::field(2, "rip", rip),
                          saved::field(3, "rflags", rflags),
                          saved::field(4, "system", system),
                          saved::field(5, "debug", debug),
                          saved::field(6, "xcr0", xcr0),
                          saved::field(7, "xsave", xsave),
                          saved::field(8, "msrs", msrs),
                          saved::field(9, "lapic", lapic),
                          saved::field(10, "events", events),
                          saved::field(11, "activity", activity),
                          saved::field(12, "tsc_khz", tsc_khz)};
    }

    // A LAPIC register by its offset in the page.
    std::uint32_t lapic_register(std::uint32_t offset) const;
    void set_lapic_register(std::uint32_t offset, std::uint32_t value);

    // What can be judged without a host: sizes, and values that no vCPU can have. The reason names
    // the member.
    Expected<void, std::string> check() const;
};

// What of a vCPU goes on while it stands still. All the rest of one that has run no instruction is
// the same each time that it is saved, here and wherever it was restored.
struct VcpuTimeState {
    static constexpr saved::Section kSection{"vcpu.time", 1};
    std::uint64_t tsc = 0;          // when the guest's clock (VmClockState) showed ...
    std::uint64_t at_ns = 0;        // ... this: all vCPUs' at one instant, for they may be compared
    std::uint32_t timer_count = 0;  // what is left of the LAPIC timer's initial count
    bool operator==(const VcpuTimeState&) const = default;
    static constexpr auto fields(auto& self) {
        auto& [tsc, at_ns, timer_count] = self;
        return std::tuple{saved::field(1, "tsc", tsc), saved::field(2, "at_ns", at_ns),
                          saved::field(3, "timer_count", timer_count)};
    }
};

// Where a component of an XSAVE area's standard form lies; of size 0 there is none.
struct XsaveComponent {
    std::uint32_t offset = 0;
    std::uint32_t size = 0;
};
// Whether a component in its initial configuration counts as in use (XSTATE_BV) the CPU decides as
// it likes, each time anew (SDM volume 1, 13.6, "XINUSE"): here it does not. `components`: by
// number, from 2 on; the area may end before those that are all zeroes.
void settle_xsave(std::span<std::byte> xsave, std::span<const XsaveComponent> components);

struct SavedVcpu {
    VcpuState state;
    VcpuTimeState time;
};

// Whether a guest's TSC may go on with this host's frequency: they differ by as many parts per
// million at most as KVM takes for the same (tsc_tolerance_ppm). Fault::kHost.
Result<void> check_tsc_khz(std::uint32_t guest_khz, std::uint32_t host_khz);

struct VmClockState {
    static constexpr saved::Section kSection{"vm.clock", 1};
    std::uint64_t clock_ns = 0;     // the guest's system time
    std::uint64_t realtime_ns = 0;  // CLOCK_REALTIME of the host at that instant
    bool operator==(const VmClockState&) const = default;
    static constexpr auto fields(auto& self) {
        auto& [clock_ns, realtime_ns] = self;
        return std::tuple{saved::field(1, "clock_ns", clock_ns),
                          saved::field(2, "realtime_ns", realtime_ns)};
    }
};

}  // namespace vmm::kvm
