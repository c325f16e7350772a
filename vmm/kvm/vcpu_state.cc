// The order in which KVM is asked and told, and why:
//
// Saving. The LAPIC's timer is settled before all else (settle_timer). KVM_GET_MP_STATE first: it
// takes an INIT or SIPI that waits, which changes registers. Then KVM_GET_VCPU_EVENTS: it moves
// NMIs and the effects of a raised exception (CR2, DR6) to where the rest finds them.
//
// Restoring. System registers first: EFER and CR4 decide what other registers may hold, the APIC
// base in which form KVM_SET_LAPIC takes its page. XCR0 before the XSAVE area, which may have
// components only where XCR0 may. MSRs before the LAPIC, and of those the TSC's deadline after it:
// it is a register of a timer whose mode the LAPIC's page says, and counts in a TSC that is right
// by then. Events after the LAPIC, for both hold interrupts, and after the general registers, for
// KVM_SET_REGS forgets exceptions. KVM_SET_SREGS makes a vCPU that looks like one at its reset
// vector runnable, so the activity goes last.
#include "vmm/kvm/vcpu_state.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cpuid.h>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <iterator>
#include <set>
#include <signal.h>

#include <sys/ioctl.h>

#include "vmm/kvm/counted_list.h"
#include "vmm/kvm/kvm.h"
#include "vmm/kvm/linux_kvm.h"
#include "vmm/kvm/segment.h"

namespace vmm::kvm {
namespace {

constexpr std::uint32_t kMsrTsc = 0x10, kMsrApicBase = 0x1b, kMsrMcgCap = 0x179;
constexpr std::uint32_t kMsrTscDeadline = 0x6e0, kMsrEfer = 0xc0000080;
constexpr std::uint32_t kMsrMcBanks = 0x400, kMsrsPerMcBank = 4, kMaxMcBanks = 32;

// Members of VcpuState of their own; what is not the guest's; what it was not shown.
bool is_saved_otherwise(std::uint32_t msr) {
    switch (msr) {
        case kMsrTsc:
        case kMsrApicBase:
        case kMsrEfer:
        case 0x11:  // KVM's own clock, by its first numbers
        case 0x12: return true;
        default: break;
    }
    return (msr >= 0x4b564d00 && msr <= 0x4b564dff) ||  // KVM's own
                                                        // Hyper-V's. Writing the first one from
                                                        // outside fills Xen's hypercall page.
           (msr >= 0x40000000 && msr <= 0x400001ff) ||
           (msr >= 0x480 && msr <= 0x4ff);  // what VMX can do: our guests have none
}

// KVM's list leaves out what it thinks a VMM knows.
void add_unlisted(std::set<std::uint32_t>& msrs) {
    constexpr std::uint32_t kSpecCtrl = 0x48, kMcgStatus = 0x17a, kMcgCtl = 0x17b, kPat = 0x277;
    constexpr std::uint32_t kMtrrDefType = 0x2ff, kXss = 0xda0, kTscAux = 0xc0000103;
    msrs.insert({kSpecCtrl, kMcgStatus, kMcgCtl, kPat, kMtrrDefType, kXss, kTscAux});
    msrs.insert({0x250, 0x258, 0x259});  // MTRRs of fixed ranges
    for (std::uint32_t i = 0; i < 8; ++i) {
        msrs.insert({0x268 + i, 0x200 + 2 * i, 0x201 + 2 * i});
    }
    for (std::uint32_t i = 0; i < kMaxMcBanks * kMsrsPerMcBank; ++i) {
        msrs.insert(kMsrMcBanks + i);
    }
}

// Registers of the LAPIC, and the timer's modes in the first one.
constexpr std::uint32_t kProcessorPriority = 0xa0;
constexpr std::uint32_t kLvtTimer = 0x320, kInitialCount = 0x380, kCurrentCount = 0x390;
constexpr std::uint32_t kTimerMode = 3u << 17, kTimerOneShot = 0, kTimerPeriodic = 1u << 17;
constexpr std::uint32_t kTimerDeadline = 2u << 17;

// The processor's priority follows from the task's and from what is in service (SDM volume 3,
// 11.8.3.1). KVM works it out when it looks for an interrupt, and until then has any value.
std::uint32_t processor_priority(const VcpuState& state) {
    constexpr std::uint32_t kTaskPriority = 0x80, kInService = 0x100;
    const std::uint32_t task = state.lapic_register(kTaskPriority) & 0xff;
    std::uint32_t highest = 0;
    for (std::uint32_t word = 0; word < 8; ++word) {
        const std::uint32_t bits = state.lapic_register(kInService + word * 0x10);
        if (bits != 0) highest = word * 32 + static_cast<std::uint32_t>(std::bit_width(bits)) - 1;
    }
    return (task & 0xf0) >= (highest & 0xf0) ? task : highest & 0xf0;
}

std::string hex(std::uint64_t value) {
    char text[24];
    std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
    return text;
}

constexpr std::size_t kLeastXsave = 512 + 64, kMostXsave = std::size_t{1} << 20;
constexpr std::size_t kSoftwareBytes = 464, kXstateBv = 512, kXcompBv = 520;
// FXSAVE's part: what x87 has lies around MXCSR and its mask, and SSE's registers after it.
constexpr std::size_t kMxcsr = 24, kX87Registers = 32, kSseRegisters = 160, kSseEnd = 416;
constexpr std::uint16_t kInitialFcw = 0x37f;
constexpr std::uint32_t kInitialMxcsr = 0x1f80;

// The standard form's, which is the CPU's: no guest is shown another.
const std::array<XsaveComponent, 63>& xsave_components() {
    static const auto all = [] {
        std::array<XsaveComponent, 63> found{};
        unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
        if (__get_cpuid_count(0xd, 0, &eax, &ebx, &ecx, &edx) == 0) return found;
        const std::uint64_t there = std::uint64_t{edx} << 32 | eax;
        for (unsigned i = 2; i < found.size(); ++i) {
            if ((there >> i & 1) == 0) continue;
            __cpuid_count(0xd, i, eax, ebx, ecx, edx);
            found[i] = {.offset = ebx, .size = eax};
        }
        return found;
    }();
    return all;
}

SegmentSaved saved_segment(const kvm_segment& s) {
    const unsigned attributes = s.type | s.s << 4u | s.dpl << 5u | s.present << 7u | s.avl << 8u |
                                s.l << 9u | s.db << 10u | s.g << 11u;
    return {.base = s.base,
            .limit = s.limit,
            .selector = s.selector,
            .attributes = static_cast<std::uint16_t>(attributes),
            .unusable = s.unusable != 0};
}

kvm_segment segment(const SegmentSaved& s) {
    kvm_segment out = segment_of(s.base, s.limit, s.selector, s.attributes);
    out.unusable = s.unusable ? 1 : 0;
    return out;
}

kvm_dtable table(const TableSaved& t) {
    kvm_dtable out{};
    out.base = t.base;
    out.limit = t.limit;
    return out;
}

// kvm_sregs and kvm_sregs2 begin alike.
template <class Sregs>
SystemRegistersSaved saved_system(const Sregs& s) {
    SystemRegistersSaved out;
    out.cs = saved_segment(s.cs), out.ss = saved_segment(s.ss);
    out.ds = saved_segment(s.ds), out.es = saved_segment(s.es);
    out.fs = saved_segment(s.fs), out.gs = saved_segment(s.gs);
    out.tr = saved_segment(s.tr), out.ldt = saved_segment(s.ldt);
    out.gdt = {.base = s.gdt.base, .limit = s.gdt.limit};
    out.idt = {.base = s.idt.base, .limit = s.idt.limit};
    out.cr0 = s.cr0, out.cr2 = s.cr2, out.cr3 = s.cr3, out.cr4 = s.cr4, out.cr8 = s.cr8;
    out.efer = s.efer;
    out.apic_base = s.apic_base;
    return out;
}

// What else there is (an interrupt bitmap that repeats the events; flags) stays zero.
template <class Sregs>
Sregs system_registers(const SystemRegistersSaved& from) {
    Sregs s{};
    s.cs = segment(from.cs), s.ss = segment(from.ss), s.ds = segment(from.ds);
    s.es = segment(from.es), s.fs = segment(from.fs), s.gs = segment(from.gs);
    s.tr = segment(from.tr), s.ldt = segment(from.ldt);
    s.gdt = table(from.gdt), s.idt = table(from.idt);
    s.cr0 = from.cr0, s.cr2 = from.cr2, s.cr3 = from.cr3, s.cr4 = from.cr4, s.cr8 = from.cr8;
    s.efer = from.efer;
    s.apic_base = from.apic_base;
    return s;
}

EventsSaved saved_events(const kvm_vcpu_events& e) {
    EventsSaved out;
    if (e.exception.injected != 0 || e.exception.pending != 0) {
        out.exception = e.exception.nr;
        if (e.exception.has_error_code != 0) out.exception_error_code = e.exception.error_code;
    }
    if (e.interrupt.injected != 0) {
        out.interrupt = e.interrupt.nr;
        out.interrupt_is_soft = e.interrupt.soft != 0;
    }
    out.shadow = e.interrupt.shadow;
    out.nmi_injected = e.nmi.injected != 0;
    out.nmis_pending = e.nmi.pending;
    out.nmi_masked = e.nmi.masked != 0;
    out.in_smm = e.smi.smm != 0;
    out.smi_pending = e.smi.pending != 0;
    out.smm_inside_nmi = e.smi.smm_inside_nmi != 0;
    out.init_latched = e.smi.latched_init != 0;
    out.triple_fault =
        (e.flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT) != 0 && e.triple_fault.pending != 0;
    return out;
}

kvm_vcpu_events events(const EventsSaved& from) {
    kvm_vcpu_events e{};
    e.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
    if (from.exception) {
        e.exception.injected = 1;
        e.exception.nr = *from.exception;
        e.exception.has_error_code = from.exception_error_code ? 1 : 0;
        e.exception.error_code = from.exception_error_code.value_or(0);
    }
    if (from.interrupt) {
        e.interrupt.injected = 1;
        e.interrupt.nr = *from.interrupt;
        e.interrupt.soft = from.interrupt_is_soft ? 1 : 0;
    }
    e.interrupt.shadow = from.shadow;
    e.nmi.injected = from.nmi_injected ? 1 : 0;
    e.nmi.pending = from.nmis_pending;
    e.nmi.masked = from.nmi_masked ? 1 : 0;
    // Not every host knows these; one that does not has nothing to be told as long as all is zero.
    if (from.in_smm || from.smi_pending || from.smm_inside_nmi || from.init_latched) {
        e.flags |= KVM_VCPUEVENT_VALID_SMM;
        e.smi.smm = from.in_smm ? 1 : 0;
        e.smi.pending = from.smi_pending ? 1 : 0;
        e.smi.smm_inside_nmi = from.smm_inside_nmi ? 1 : 0;
        e.smi.latched_init = from.init_latched ? 1 : 0;
    }
    if (from.triple_fault) {
        e.flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
        e.triple_fault.pending = 1;
    }
    return e;
}

// KVM_GET_MSRS and KVM_SET_MSRS take so many at once.
constexpr std::size_t kMsrsAtOnce = 256;

// Those of `indices` that can be read on this vCPU. KVM stops at the first that cannot.
Result<std::map<std::uint32_t, std::uint64_t>> read_msrs(
    int fd, const std::vector<std::uint32_t>& indices) {
    std::map<std::uint32_t, std::uint64_t> values;
    for (std::size_t at = 0; at < indices.size();) {
        const std::size_t count = std::min(kMsrsAtOnce, indices.size() - at);
        CountedList<kvm_msr_entry> list(count);
        for (std::size_t i = 0; i < count; ++i) {
            kvm_msr_entry entry{};
            entry.index = indices[at + i];
            list.set(i, entry);
        }
        const int got = ::ioctl(fd, KVM_GET_MSRS, list.data());
        if (got < 0) return errno_error("KVM_GET_MSRS", Fault::kHost);
        for (std::size_t i = 0; i < static_cast<std::size_t>(got); ++i) {
            values[indices[at + i]] = list.get(i).data;
        }
        at += static_cast<std::size_t>(got) + (static_cast<std::size_t>(got) < count ? 1 : 0);
    }
    return values;
}

Result<std::uint64_t> tsc_offset(int fd) {
    std::uint64_t offset = 0;
    kvm_device_attr attr{};
    attr.group = KVM_VCPU_TSC_CTRL;
    attr.attr = KVM_VCPU_TSC_OFFSET;
    attr.addr = reinterpret_cast<std::uintptr_t>(&offset);  // NOLINT: the kernel's form
    if (::ioctl(fd, KVM_GET_DEVICE_ATTR, &attr) != 0) {
        return errno_error("KVM_VCPU_TSC_OFFSET (Linux 5.16 or newer)", Fault::kHost);
    }
    return offset;
}

}  // namespace

std::uint32_t VcpuState::lapic_register(std::uint32_t offset) const {
    std::uint32_t value = 0;
    std::memcpy(&value, lapic.data() + offset, sizeof value);
    return value;
}

void VcpuState::set_lapic_register(std::uint32_t offset, std::uint32_t value) {
    std::memcpy(lapic.data() + offset, &value, sizeof value);
}

void settle_xsave(std::span<std::byte> xsave, std::span<const XsaveComponent> components) {
    constexpr std::uint64_t kX87 = 1, kSse = 2;
    if (xsave.size() < kLeastXsave) return;
    const auto get = [&]<class T>(std::size_t at, T value) {
        std::memcpy(&value, xsave.data() + at, sizeof value);
        return value;
    };
    const auto is_zero = [&](std::size_t from, std::size_t to) {
        return std::ranges::all_of(xsave.subspan(from, to - from),
                                   [](std::byte b) { return b == std::byte{0}; });
    };
    auto in_use = get(kXstateBv, std::uint64_t{});
    if (get(0, std::uint16_t{}) == kInitialFcw && is_zero(2, kMxcsr) &&
        is_zero(kX87Registers, kSseRegisters)) {
        in_use &= ~kX87;
    }
    // MXCSR is no component's, but whoever takes this up looks at it for SSE's sake alone.
    if (get(kMxcsr, std::uint32_t{}) != kInitialMxcsr) {
        in_use |= kSse;
    } else if (is_zero(kSseRegisters, kSseEnd)) {
        in_use &= ~kSse;
    }
    for (std::size_t i = 2; i < components.size(); ++i) {
        const std::size_t from = components[i].offset, to = from + components[i].size;
        if (components[i].size == 0 || from < kLeastXsave || to > xsave.size()) continue;
        if (is_zero(from, to)) in_use &= ~(std::uint64_t{1} << i);
    }
    std::memcpy(xsave.data() + kXstateBv, &in_use, sizeof in_use);
}

Expected<void, std::string> VcpuState::check() const {
    constexpr std::size_t kMostMsrs = 4096;
    constexpr std::uint8_t kExceptions = 32, kNmi = 2;
    const auto wrong = [](std::string why) { return Failure{std::move(why)}; };
    if (xsave.size() < kLeastXsave || xsave.size() > kMostXsave) {
        return wrong("xsave: " + std::to_string(xsave.size()) + " bytes");
    }
    std::uint64_t compaction = 0;
    std::memcpy(&compaction, xsave.data() + kXcompBv, sizeof compaction);
    if (compaction != 0) return wrong("xsave: not in its standard form");
    if ((xcr0 & 1) == 0) return wrong("xcr0: without x87");
    if (msrs.size() > kMostMsrs) return wrong("msrs: " + std::to_string(msrs.size()) + " of them");
    if (events.exception && (*events.exception >= kExceptions || *events.exception == kNmi)) {
        return wrong("events.exception: there is no exception " +
                     std::to_string(*events.exception));
    }
    if (events.exception_error_code && !events.exception) {
        return wrong("events.exception_error_code: without an exception");
    }
    if (events.interrupt_is_soft && !events.interrupt) {
        return wrong("events.interrupt_is_soft: without an interrupt");
    }
    if (events.shadow > 3) return wrong("events.shadow: " + std::to_string(events.shadow));
    if (activity > Activity::kSipiReceived) return wrong("activity: unknown");
    if (tsc_khz == 0) return wrong("tsc_khz: 0");
    return {};
}

Result<SavedByHost> SavedByHost::of(const Kvm& kvm) {
    SavedByHost host;
    std::uint32_t none[2] = {};  // a count of 0, and no indices: KVM says how many there are
    if (::ioctl(kvm.fd(), KVM_GET_MSR_INDEX_LIST, none) != 0 && errno != E2BIG) {
        return errno_error("KVM_GET_MSR_INDEX_LIST", Fault::kHost);
    }
    std::vector<std::uint32_t> list(1 + std::size_t{none[0]});
    list[0] = none[0];
    if (::ioctl(kvm.fd(), KVM_GET_MSR_INDEX_LIST, list.data()) != 0) {
        return errno_error("KVM_GET_MSR_INDEX_LIST", Fault::kHost);
    }
    std::set<std::uint32_t> msrs(list.begin() + 1, list.end());
    add_unlisted(msrs);
    std::copy_if(msrs.begin(), msrs.end(), std::back_inserter(host.msrs),
                 [](std::uint32_t msr) { return !is_saved_otherwise(msr); });
    const auto check = [&](long cap) {
        return std::max(0, ::ioctl(kvm.fd(), KVM_CHECK_EXTENSION, cap));
    };
    host.xsave_bytes = std::max(host.xsave_bytes, static_cast<std::size_t>(check(KVM_CAP_XSAVE2)));
    host.system_registers_2 = check(KVM_CAP_SREGS2) != 0;
    host.xcrs = check(KVM_CAP_XCRS) != 0;
    return host;
}

// KVM itself says which TSC belongs to which time while it computes the one from the other; where
// it does not, the tightest of a few looks is taken.
Result<ClockReading> Vm::read_clock() const {
    constexpr int kLooks = 5;
    ClockReading best;
    std::uint64_t best_ticks = ~std::uint64_t{0};
    for (int i = 0; i < kLooks; ++i) {
        kvm_clock_data clock{};
        const std::uint64_t before = __builtin_ia32_rdtsc();
        if (::ioctl(fd(), KVM_GET_CLOCK, &clock) != 0) return errno_error("KVM_GET_CLOCK");
        const std::uint64_t after = __builtin_ia32_rdtsc();
        constexpr std::uint32_t kBoth = KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC;
        if ((clock.flags & kBoth) == kBoth) {
            return ClockReading{
                .clock_ns = clock.clock, .realtime_ns = clock.realtime, .host_tsc = clock.host_tsc};
        }
        timespec real{};
        ::clock_gettime(CLOCK_REALTIME, &real);
        if (after - before >= best_ticks) continue;
        best_ticks = after - before;
        best = {.clock_ns = clock.clock,
                .realtime_ns = static_cast<std::uint64_t>(real.tv_sec) * 1'000'000'000 +
                               static_cast<std::uint64_t>(real.tv_nsec),
                .host_tsc = before + best_ticks / 2};
    }
    return best;
}

// An interrupt of the LAPIC's timer that is due waits beside the LAPIC, where nothing shows it,
// until KVM_RUN puts it where the others are: on the way into the guest, and also on the way out of
// a halt that a signal ends at once, which runs no instruction.
Result<void> Vcpu::settle_timer() {
    const MpState activity = mp_state();
    if (activity != MpState::kRunnable && activity != MpState::kHalted) return {};
    const int signal = SIGRTMIN + 2;  // its own, blocked but for here, and taken back below
    sigset_t only, before;
    ::sigemptyset(&only);
    ::sigaddset(&only, signal);
    ::pthread_sigmask(SIG_BLOCK, &only, &before);
    ::pthread_kill(::pthread_self(), signal);

    constexpr std::size_t kKernelSigset = 8;  // one bit for each signal, from 1
    struct {
        std::uint32_t length = kKernelSigset;
        unsigned char set[kKernelSigset];
    } mask;
    const std::uint64_t bits = ~(std::uint64_t{1} << (signal - 1));
    std::memcpy(mask.set, &bits, sizeof bits);
    const bool masked = ::ioctl(fd_.get(), KVM_SET_SIGNAL_MASK, &mask) == 0;
    if (masked) {
        if (activity == MpState::kRunnable) set_mp_state(MpState::kHalted);
        clear_exit_request();
        run();
        request_exit();  // as complete_exit() leaves it
        // An interrupt that ends a halt has ended it; it will do so again. An INIT stays.
        if (const MpState is = mp_state(); is == MpState::kRunnable || is == MpState::kHalted) {
            set_mp_state(activity);
        }
        static_cast<void>(::ioctl(fd_.get(), KVM_SET_SIGNAL_MASK, nullptr));
    }
    const int code = errno;
    const timespec now{};
    ::sigtimedwait(&only, nullptr, &now);
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (!masked) return errno_error("KVM_SET_SIGNAL_MASK", Fault::kInternal, code);
    return {};
}

Result<SavedVcpu> Vcpu::save(const SavedByHost& host, const ClockReading& at) {
    const int fd = fd_.get();
    SavedVcpu saved;
    VcpuState& state = saved.state;

    kvm_lapic_state lapic{};
    static_assert(sizeof lapic.regs == sizeof state.lapic);
    const auto read_lapic = [&] {
        if (::ioctl(fd, KVM_GET_LAPIC, &lapic) != 0) return false;
        std::memcpy(state.lapic.data(), lapic.regs, sizeof lapic.regs);
        return true;
    };
    if (!read_lapic()) return errno_error("KVM_GET_LAPIC");
    const std::uint32_t mode = state.lapic_register(kLvtTimer) & kTimerMode;
    const bool counts = mode != kTimerDeadline && state.lapic_register(kInitialCount) != 0;
    const bool expired =
        counts && mode == kTimerOneShot && state.lapic_register(kCurrentCount) == 0;
    if (expired || (counts && mode == kTimerPeriodic)) TRY(settle_timer());

    kvm_mp_state activity{};
    if (::ioctl(fd, KVM_GET_MP_STATE, &activity) != 0) return errno_error("KVM_GET_MP_STATE");
    if (activity.mp_state > KVM_MP_STATE_SIPI_RECEIVED) {
        return internal_error("vCPU " + std::to_string(id_) + " is in a state that no guest of " +
                              "ours reaches (" + std::to_string(activity.mp_state) + ")");
    }
    state.activity = static_cast<Activity>(activity.mp_state);
    kvm_vcpu_events pending{};
    if (::ioctl(fd, KVM_GET_VCPU_EVENTS, &pending) != 0) return errno_error("KVM_GET_VCPU_EVENTS");
    state.events = saved_events(pending);

    kvm_regs r{};
    if (::ioctl(fd, KVM_GET_REGS, &r) != 0) return errno_error("KVM_GET_REGS");
    state.gpr = {r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi,
                 r.r8,  r.r9,  r.r10, r.r11, r.r12, r.r13, r.r14, r.r15};
    state.rip = r.rip;
    state.rflags = r.rflags;
    if (host.system_registers_2) {
        kvm_sregs2 s{};
        if (::ioctl(fd, KVM_GET_SREGS2, &s) != 0) return errno_error("KVM_GET_SREGS2");
        state.system = saved_system(s);
        if ((s.flags & KVM_SREGS2_FLAGS_PDPTRS_VALID) != 0) {
            state.system.pdptrs = {s.pdptrs[0], s.pdptrs[1], s.pdptrs[2], s.pdptrs[3]};
        }
    } else {
        kvm_sregs s{};
        if (::ioctl(fd, KVM_GET_SREGS, &s) != 0) return errno_error("KVM_GET_SREGS");
        state.system = saved_system(s);
    }
    kvm_debugregs debug{};
    if (::ioctl(fd, KVM_GET_DEBUGREGS, &debug) != 0) return errno_error("KVM_GET_DEBUGREGS");
    std::copy(std::begin(debug.db), std::end(debug.db), state.debug.address.begin());
    state.debug.dr6 = debug.dr6;
    state.debug.dr7 = debug.dr7;

    if (host.xcrs) {
        kvm_xcrs xcrs{};
        if (::ioctl(fd, KVM_GET_XCRS, &xcrs) != 0) return errno_error("KVM_GET_XCRS");
        for (std::uint32_t i = 0; i < xcrs.nr_xcrs && i < std::size(xcrs.xcrs); ++i) {
            if (xcrs.xcrs[i].xcr == 0) state.xcr0 = xcrs.xcrs[i].value;
        }
    }
    // Every KVM has this one, on CPUs without XSAVE too: then with FXSAVE's part alone.
    state.xsave.resize(host.xsave_bytes);
    const bool large = host.xsave_bytes > sizeof(kvm_xsave::region);
    if (::ioctl(fd, large ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, state.xsave.data()) != 0) {
        return errno_error("KVM_GET_XSAVE");
    }
    // Bytes that FXSAVE leaves to software: the kernel says there what the host's CPU has. And up
    // to here the area is as long as that makes it.
    std::fill_n(state.xsave.begin() + kSoftwareBytes, kXstateBv - kSoftwareBytes, std::byte{0});
    settle_xsave(state.xsave, xsave_components());
    while (state.xsave.size() > kLeastXsave && state.xsave.back() == std::byte{0}) {
        state.xsave.pop_back();
    }

    if (!read_lapic()) return errno_error("KVM_GET_LAPIC");
    // KVM_SET_LAPIC starts a one-shot timer with what is left of its count, and one with nothing
    // left expires at once: it would expire twice. Without a count it is off, as it should be; that
    // its initial count then reads 0 as well is the smaller lie. One that has expired since the
    // first look has not done so for the guest: the destination's will.
    if (expired) state.set_lapic_register(kInitialCount, 0);
    saved.time.timer_count = state.lapic_register(kCurrentCount);
    state.set_lapic_register(kCurrentCount, 0);
    state.set_lapic_register(kProcessorPriority, processor_priority(state));
    auto wanted = host.msrs;
    const std::uint64_t banks = read_msr(kMsrMcgCap).value_or(0) & 0xff;
    std::erase_if(wanted, [&](std::uint32_t msr) {
        return msr >= kMsrMcBanks + banks * kMsrsPerMcBank &&
               msr < kMsrMcBanks + kMaxMcBanks * kMsrsPerMcBank;
    });
    state.msrs = TRY(read_msrs(fd, wanted));

    state.tsc_khz = tsc_khz();
    saved.time.tsc = at.host_tsc + TRY(tsc_offset(fd));
    saved.time.at_ns = at.clock_ns;
    return saved;
}

Result<void> Vcpu::restore_msrs(const SavedByHost& host, const VcpuState& state) {
    std::vector<kvm_msr_entry> entries;
    for (const auto& [index, value] : state.msrs) {
        if (index == kMsrTscDeadline) continue;  // after the LAPIC
        if (std::binary_search(host.msrs.begin(), host.msrs.end(), index)) {
            kvm_msr_entry entry{};
            entry.index = index;
            entry.data = value;
            entries.push_back(entry);
        } else if (value != 0) {
            return host_error("this host's KVM has no MSR " + hex(index) + ", which holds " +
                              hex(value));
        }
    }
    for (std::size_t at = 0; at < entries.size();) {
        const std::size_t count = std::min(kMsrsAtOnce, entries.size() - at);
        CountedList<kvm_msr_entry> list(count);
        for (std::size_t i = 0; i < count; ++i) {
            list.set(i, entries[at + i]);
        }
        const int taken = ::ioctl(fd_.get(), KVM_SET_MSRS, list.data());
        if (taken < 0) return errno_error("KVM_SET_MSRS", Fault::kHost);
        at += static_cast<std::size_t>(taken);
        if (static_cast<std::size_t>(taken) == count) continue;
        // This one was refused. As it is it may be right all the same: a new vCPU's is, of one that
        // the guest never wrote and that tells of the host.
        const kvm_msr_entry& refused = entries[at++];
        if (read_msr(refused.index).value_or(0) != refused.data) {
            return host_error("this host's KVM refuses the value " + hex(refused.data) +
                              " for MSR " + hex(refused.index));
        }
    }
    return {};
}

Result<void> check_tsc_khz(std::uint32_t guest_khz, std::uint32_t host_khz) {
    constexpr std::uint64_t kTolerancePpm = 250;
    const std::uint64_t guest = guest_khz, host = host_khz;
    const std::uint64_t apart = host > guest ? host - guest : guest - host;
    if (apart * 1'000'000 <= guest * kTolerancePpm) return {};
    return host_error("the guest's TSC counts " + std::to_string(guest) + " kHz, this host's " +
                      std::to_string(host));
}

Result<void> Vcpu::restore_tsc(const VcpuState& state, const VcpuTimeState& time,
                               const ClockReading& now) {
    TRY(check_tsc_khz(state.tsc_khz, tsc_khz()));
    if (now.clock_ns < time.at_ns) {
        return internal_error("the guest's clock is behind the vCPUs' state");
    }
    __extension__ using Wide = unsigned __int128;
    const auto elapsed =
        static_cast<std::uint64_t>(Wide{now.clock_ns - time.at_ns} * state.tsc_khz / 1'000'000);
    const std::uint64_t tsc = time.tsc + elapsed;
    std::uint64_t offset = tsc - now.host_tsc;
    kvm_device_attr attr{};
    attr.group = KVM_VCPU_TSC_CTRL;
    attr.attr = KVM_VCPU_TSC_OFFSET;
    attr.addr = reinterpret_cast<std::uintptr_t>(&offset);  // NOLINT: the kernel's form
    if (::ioctl(fd_.get(), KVM_SET_DEVICE_ATTR, &attr) != 0) {
        return errno_error("KVM_VCPU_TSC_OFFSET (Linux 5.16 or newer)", Fault::kHost);
    }
    // kvm_pvm takes any offset and heeds none: its guests read the host's own TSC, which must not
    // take back what the guest has seen.
    if (TRY(tsc_offset(fd_.get())) != offset && read_msr(kMsrTsc).value_or(0) < time.tsc) {
        return host_error("this host's KVM does not set a guest's TSC, and its own is behind");
    }
    return {};
}

Result<void> Vcpu::restore(const SavedByHost& host, const VcpuState& state,
                           const VcpuTimeState& time, const ClockReading& now) {
    const int fd = fd_.get();
    if (const auto good = state.check(); !good) {
        return user_error("vCPU " + std::to_string(id_) + ": " + good.error());
    }
    const auto refused = [&](const char* what) {
        return errno_error("vCPU " + std::to_string(id_) + ": this host's KVM refuses " + what,
                           Fault::kHost);
    };
    if (host.system_registers_2) {
        auto s = system_registers<kvm_sregs2>(state.system);
        if (const auto& pdptrs = state.system.pdptrs) {
            s.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
            std::copy(pdptrs->begin(), pdptrs->end(), s.pdptrs);
        }
        if (::ioctl(fd, KVM_SET_SREGS2, &s) != 0) return refused("system");
    } else {
        auto s = system_registers<kvm_sregs>(state.system);
        if (::ioctl(fd, KVM_SET_SREGS, &s) != 0) return refused("system");
    }
    const auto& g = state.gpr;
    kvm_regs r{};
    r.rax = g[0], r.rcx = g[1], r.rdx = g[2], r.rbx = g[3];
    r.rsp = g[4], r.rbp = g[5], r.rsi = g[6], r.rdi = g[7];
    r.r8 = g[8], r.r9 = g[9], r.r10 = g[10], r.r11 = g[11];
    r.r12 = g[12], r.r13 = g[13], r.r14 = g[14], r.r15 = g[15];
    r.rip = state.rip;
    r.rflags = state.rflags | 2;
    if (::ioctl(fd, KVM_SET_REGS, &r) != 0) return refused("gpr");
    kvm_debugregs debug{};
    std::copy(state.debug.address.begin(), state.debug.address.end(), debug.db);
    debug.dr6 = state.debug.dr6;
    debug.dr7 = state.debug.dr7;
    if (::ioctl(fd, KVM_SET_DEBUGREGS, &debug) != 0) return refused("debug");

    if (host.xcrs) {
        kvm_xcrs xcrs{};
        xcrs.nr_xcrs = 1;
        xcrs.xcrs[0].value = state.xcr0;
        if (::ioctl(fd, KVM_SET_XCRS, &xcrs) != 0) return refused("xcr0");
    } else if (state.xcr0 != 1) {
        return host_error("vCPU " + std::to_string(id_) + ": this host has no XSAVE");
    }
    // KVM reads as many bytes as it would write; it checks the components itself.
    if (state.xsave.size() > host.xsave_bytes) {
        return host_error("vCPU " + std::to_string(id_) +
                          ": xsave has components that this host's CPU has not");
    }
    auto xsave = state.xsave;
    xsave.resize(host.xsave_bytes);
    if (::ioctl(fd, KVM_SET_XSAVE, xsave.data()) != 0) return refused("xsave");

    TRY(restore_msrs(host, state));
    TRY(restore_tsc(state, time, now));
    kvm_lapic_state lapic{};
    std::memcpy(lapic.regs, state.lapic.data(), sizeof lapic.regs);
    std::memcpy(lapic.regs + kCurrentCount, &time.timer_count, sizeof time.timer_count);
    if (::ioctl(fd, KVM_SET_LAPIC, &lapic) != 0) return refused("lapic");
    const auto deadline = state.msrs.find(kMsrTscDeadline);
    if (deadline != state.msrs.end() && deadline->second != 0 &&
        !write_msr(kMsrTscDeadline, deadline->second)) {
        return host_error("this host's KVM refuses a deadline of the TSC");
    }

    const kvm_vcpu_events pending = events(state.events);
    if (::ioctl(fd, KVM_SET_VCPU_EVENTS, &pending) != 0) return refused("events");
    kvm_mp_state activity{};
    activity.mp_state = static_cast<std::uint32_t>(state.activity);
    if (::ioctl(fd, KVM_SET_MP_STATE, &activity) != 0) return refused("activity");
    refresh();
    return {};
}

}  // namespace vmm::kvm
