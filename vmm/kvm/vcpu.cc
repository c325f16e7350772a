#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <unistd.h>

#include <sys/ioctl.h>
#include <sys/mman.h>

#include "vmm/kvm/counted_list.h"
#include "vmm/kvm/kvm.h"
#include "vmm/kvm/linux_kvm.h"
#include "vmm/kvm/segment.h"

namespace vmm::kvm {
namespace {

constexpr std::uint64_t kSyncSets = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;

kvm_segment segment(const SegmentState& s, std::uint16_t selector = 0) {
    kvm_segment out = segment_of(s.base, s.limit, selector, s.attributes);
    out.unusable = !out.present;
    return out;
}

}  // namespace

Result<std::unique_ptr<Vcpu>> Vcpu::create(const Kvm& kvm, const Vm& vm, unsigned id) {
    const int run_size = ::ioctl(kvm.fd(), KVM_GET_VCPU_MMAP_SIZE, 0);
    if (run_size < 0) return errno_error("KVM_GET_VCPU_MMAP_SIZE");
    Fd fd(::ioctl(vm.fd(), KVM_CREATE_VCPU, id));
    if (!fd) return errno_error("KVM_CREATE_VCPU", Fault::kHost);
    void* run = ::mmap(nullptr, static_cast<std::size_t>(run_size), PROT_READ | PROT_WRITE,
                       MAP_SHARED, fd.get(), 0);
    if (run == MAP_FAILED) return errno_error("mapping kvm_run");
    auto vcpu = std::unique_ptr<Vcpu>(new Vcpu(std::move(fd), static_cast<kvm_run*>(run),
                                               static_cast<std::size_t>(run_size), id));
    vcpu->run_->kvm_valid_regs = kSyncSets;
    return vcpu;
}

Vcpu::Vcpu(Fd fd, kvm_run* run, std::size_t run_size, unsigned id)
    : fd_(std::move(fd)), run_(run), run_size_(run_size), id_(id) {}

Vcpu::~Vcpu() {
    ::munmap(run_, run_size_);
}

Result<void> Vcpu::set_cpuid(std::span<const CpuidLeaf> leaves) {
    CountedList<kvm_cpuid_entry2> list(leaves.size());
    for (std::size_t i = 0; i < leaves.size(); ++i) {
        const CpuidLeaf& from = leaves[i];
        kvm_cpuid_entry2 to{};
        to.function = from.function;
        to.index = from.index;
        to.flags = from.indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0;
        to.eax = from.eax;
        to.ebx = from.ebx;
        to.ecx = from.ecx;
        to.edx = from.edx;
        list.set(i, to);
    }
    if (::ioctl(fd_.get(), KVM_SET_CPUID2, list.data()) != 0) return errno_error("KVM_SET_CPUID2");
    return {};
}

FullState start_state(const FlatState& state) {
    FullState full;
    full.gpr[3] = state.rbx;
    full.rip = state.rip;
    full.cr0 = 0x11;
    full.cs = {.base = 0, .limit = 0xffffffff, .attributes = 0xc9b};
    full.ds = full.es = full.ss = {.base = 0, .limit = 0xffffffff, .attributes = 0xc93};
    full.tr = {.base = 0, .limit = 0x67, .attributes = 0x8b};
    return full;
}

Result<void> Vcpu::set_start_state(const FlatState& state) {
    return set_full_state(start_state(state));
}

Result<void> Vcpu::set_full_state(const FullState& state) {
    kvm_sregs sregs{};
    if (::ioctl(fd_.get(), KVM_GET_SREGS, &sregs) != 0) return errno_error("KVM_GET_SREGS");
    sregs.cs = segment(state.cs);
    sregs.ds = segment(state.ds);
    sregs.es = segment(state.es);
    sregs.ss = segment(state.ss);
    sregs.fs = segment({});
    sregs.gs = segment({});
    sregs.ldt = segment({});
    sregs.ldt.unusable = 1;
    sregs.tr = segment(state.tr);
    sregs.gdt = {};
    sregs.idt = {};
    sregs.cr0 = state.cr0;
    sregs.cr2 = 0;
    sregs.cr3 = state.cr3;
    sregs.cr4 = state.cr4;
    sregs.efer = state.efer;
    if (::ioctl(fd_.get(), KVM_SET_SREGS, &sregs) != 0) return errno_error("KVM_SET_SREGS");
    const auto* g = state.gpr;
    kvm_regs regs{};
    regs.rax = g[0], regs.rcx = g[1], regs.rdx = g[2], regs.rbx = g[3];
    regs.rsp = g[4], regs.rbp = g[5], regs.rsi = g[6], regs.rdi = g[7];
    regs.r8 = g[8], regs.r9 = g[9], regs.r10 = g[10], regs.r11 = g[11];
    regs.r12 = g[12], regs.r13 = g[13], regs.r14 = g[14], regs.r15 = g[15];
    regs.rip = state.rip;
    regs.rflags = state.rflags | 2;
    if (::ioctl(fd_.get(), KVM_SET_REGS, &regs) != 0) return errno_error("KVM_SET_REGS");
    refresh();
    return {};
}

void Vcpu::bring_system_registers(bool on) {
    run_->kvm_valid_regs = on ? kSyncSets : std::uint64_t{KVM_SYNC_X86_REGS};
}

const kvm_sregs& Vcpu::sregs() const {
    if (!sregs_fresh_) {
        sregs_fresh_ = ::ioctl(fd_.get(), KVM_GET_SREGS, &run_->s.regs.sregs) == 0;
    }
    return run_->s.regs.sregs;
}

ExitReason Vcpu::run() {
    sregs_fresh_ = (run_->kvm_valid_regs & KVM_SYNC_X86_SREGS) != 0;
    if (::ioctl(fd_.get(), KVM_RUN, 0) != 0) {
        if (errno == EINTR) return ExitReason::kInterrupted;
        if (errno == EAGAIN) return ExitReason::kAgain;
        run_->exit_reason = KVM_EXIT_UNKNOWN;
        run_->hw.hardware_exit_reason = static_cast<std::uint64_t>(errno);
        return ExitReason::kOther;
    }
    switch (run_->exit_reason) {
        case KVM_EXIT_IO: return ExitReason::kPio;
        case KVM_EXIT_MMIO: return ExitReason::kMmio;
        case KVM_EXIT_XEN: return ExitReason::kXenHypercall;
        case KVM_EXIT_X86_RDMSR: return ExitReason::kMsrRead;
        case KVM_EXIT_X86_WRMSR: return ExitReason::kMsrWrite;
        case KVM_EXIT_INTR: return ExitReason::kInterrupted;
        case KVM_EXIT_IRQ_WINDOW_OPEN: return ExitReason::kIrqWindow;
        case KVM_EXIT_IOAPIC_EOI: return ExitReason::kIoapicEoi;
        case KVM_EXIT_HLT: return ExitReason::kHalt;
        case KVM_EXIT_SHUTDOWN: return ExitReason::kShutdown;
        case KVM_EXIT_FAIL_ENTRY:
        case KVM_EXIT_INTERNAL_ERROR: return ExitReason::kInternalError;
        default: return ExitReason::kOther;
    }
}

ExitReason Vcpu::complete_exit() {
    // Left set: whoever runs the vCPU clears it before its next entry.
    request_exit();
    // The registers are synchronised on the way out of an EINTR too.
    return run();
}

void Vcpu::request_exit() {
    std::atomic_ref<std::uint8_t>(run_->immediate_exit).store(1);
}

void Vcpu::clear_exit_request() {
    std::atomic_ref<std::uint8_t>(run_->immediate_exit).store(0);
}

PioExit Vcpu::pio() const {
    return {.is_write = run_->io.direction == KVM_EXIT_IO_OUT,
            .size = run_->io.size,
            .port = run_->io.port,
            .count = run_->io.count,
            // NOLINTNEXTLINE: kvm_run is one mapping with the data at an offset.
            .data = reinterpret_cast<std::byte*>(run_) + run_->io.data_offset};
}

MmioExit Vcpu::mmio() const {
    return {.is_write = run_->mmio.is_write != 0,
            .size = run_->mmio.len,
            .address = run_->mmio.phys_addr,
            .data = run_->mmio.data};
}

MsrExit Vcpu::msr() const {
    auto& msr = run_->msr;
    return {.index = msr.index,
            // NOLINTNEXTLINE: __u64 is unsigned long long, std::uint64_t unsigned long.
            .data = reinterpret_cast<std::uint64_t*>(&msr.data),
            .error = &msr.error};
}

bool Vcpu::msr_is_write() const {
    return run_->exit_reason == KVM_EXIT_X86_WRMSR;
}

XenHypercallExit Vcpu::xen_hypercall() const {
    auto& hcall = run_->xen.u.hcall;
    return {.long_mode = hcall.longmode != 0,
            .cpl = static_cast<std::uint8_t>(hcall.cpl),
            .number = hcall.input,
            // NOLINTNEXTLINE: as above.
            .args = reinterpret_cast<const std::uint64_t*>(hcall.params),
            .result = reinterpret_cast<std::uint64_t*>(&hcall.result)};  // NOLINT: as above
}

std::uint8_t Vcpu::ioapic_eoi_vector() const {
    return run_->eoi.vector;
}

std::string Vcpu::describe_exit() const {
    std::array<char, 200> text{};
    const auto rip = static_cast<unsigned long long>(run_->s.regs.regs.rip);
    switch (run_->exit_reason) {
        case KVM_EXIT_INTERNAL_ERROR:
            std::snprintf(text.data(), text.size(),
                          "KVM cannot go on: internal error %u at rip 0x%llx, data 0x%llx 0x%llx",
                          run_->internal.suberror, rip,
                          static_cast<unsigned long long>(
                              run_->internal.ndata > 1 ? run_->internal.data[1] : 0),
                          static_cast<unsigned long long>(
                              run_->internal.ndata > 2 ? run_->internal.data[2] : 0));
            break;
        case KVM_EXIT_FAIL_ENTRY:
            std::snprintf(
                text.data(), text.size(), "KVM refused to enter the guest: 0x%llx",
                static_cast<unsigned long long>(run_->fail_entry.hardware_entry_failure_reason));
            break;
        case KVM_EXIT_UNKNOWN:
            std::snprintf(text.data(), text.size(), "KVM_RUN failed: %s at rip 0x%llx",
                          std::strerror(static_cast<int>(run_->hw.hardware_exit_reason)), rip);
            break;
        default:
            std::snprintf(text.data(), text.size(), "unexpected KVM exit %u at rip 0x%llx",
                          run_->exit_reason, rip);
    }
    return text.data();
}

namespace {

template <class Regs>
auto* field_of(Regs& regs, Reg reg) {
    switch (reg) {
        case Reg::kRax: return &regs.rax;
        case Reg::kRbx: return &regs.rbx;
        case Reg::kRcx: return &regs.rcx;
        case Reg::kRdx: return &regs.rdx;
        case Reg::kRsi: return &regs.rsi;
        case Reg::kRdi: return &regs.rdi;
        case Reg::kRsp: return &regs.rsp;
        case Reg::kRbp: return &regs.rbp;
        case Reg::kR8: return &regs.r8;
        case Reg::kR9: return &regs.r9;
        case Reg::kR10: return &regs.r10;
        case Reg::kRip: return &regs.rip;
        case Reg::kRflags: break;
    }
    return &regs.rflags;
}

}  // namespace

std::uint64_t Vcpu::get(Reg reg) const {
    return *field_of(run_->s.regs.regs, reg);
}

void Vcpu::set(Reg reg, std::uint64_t value) {
    *field_of(run_->s.regs.regs, reg) = value;
    run_->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
}

PagingState Vcpu::paging() const {
    const kvm_sregs& s = sregs();
    return {.cr0 = s.cr0,
            .cr3 = s.cr3,
            .cr4 = s.cr4,
            .efer = s.efer,
            .rflags = run_->s.regs.regs.rflags};
}

bool Vcpu::in_64bit_code() const {
    const kvm_sregs& s = sregs();
    return (s.efer & (1u << 10)) != 0 && s.cs.l != 0;
}

std::uint64_t Vcpu::code_base() const {
    return sregs().cs.base;
}

unsigned Vcpu::cpl() const {
    return sregs().ss.dpl;
}

bool Vcpu::interrupts_enabled() const {
    return (run_->s.regs.regs.rflags & (1u << 9)) != 0;
}

void Vcpu::refresh() {
    // Cannot fail with a valid descriptor; the old values would stay.
    [[maybe_unused]] const int ignored = ::ioctl(fd_.get(), KVM_GET_REGS, &run_->s.regs.regs);
    sregs_fresh_ = false;
}

namespace {

SegmentRegister shown(const kvm_segment& s) {
    const unsigned attributes = s.type | s.s << 4u | s.dpl << 5u | s.present << 7u | s.avl << 8u |
                                s.l << 9u | s.db << 10u | s.g << 11u;
    return {.selector = s.selector,
            .state = {.base = s.base,
                      .limit = s.limit,
                      .attributes = static_cast<std::uint16_t>(attributes)}};
}

}  // namespace

Result<Registers> Vcpu::registers() const {
    kvm_regs regs{};
    kvm_sregs s{};
    if (::ioctl(fd_.get(), KVM_GET_REGS, &regs) != 0) return errno_error("KVM_GET_REGS");
    if (::ioctl(fd_.get(), KVM_GET_SREGS, &s) != 0) return errno_error("KVM_GET_SREGS");
    return Registers{
        .gpr = {regs.rax, regs.rcx, regs.rdx, regs.rbx, regs.rsp, regs.rbp, regs.rsi, regs.rdi,
                regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15},
        .rip = regs.rip,
        .rflags = regs.rflags,
        .cr0 = s.cr0,
        .cr2 = s.cr2,
        .cr3 = s.cr3,
        .cr4 = s.cr4,
        .cr8 = s.cr8,
        .efer = s.efer,
        .apic_base = s.apic_base,
        .cs = shown(s.cs),
        .ss = shown(s.ss),
        .ds = shown(s.ds),
        .es = shown(s.es),
        .fs = shown(s.fs),
        .gs = shown(s.gs),
        .tr = shown(s.tr),
        .ldt = shown(s.ldt),
        .gdt = {.base = s.gdt.base, .limit = s.gdt.limit},
        .idt = {.base = s.idt.base, .limit = s.idt.limit}};
}

namespace {

// if_flag and ready_for_interrupt_injection come with every exit; what else may stand in the way (a
// shadow, an event that is being injected) only KVM_GET_VCPU_EVENTS tells.
bool takes_interrupts(int fd, kvm_vcpu_events& events) {
    return ::ioctl(fd, KVM_GET_VCPU_EVENTS, &events) == 0 && !events.interrupt.injected &&
           !events.interrupt.shadow && !events.exception.injected && !events.exception.pending &&
           !events.nmi.injected;
}

}  // namespace

bool Vcpu::can_inject() const {
    kvm_vcpu_events events{};
    return interrupts_enabled() && takes_interrupts(fd_.get(), events);
}

bool Vcpu::inject_if_ready(std::uint8_t vector) {
    kvm_vcpu_events events{};
    if (!interrupts_enabled() || !takes_interrupts(fd_.get(), events)) return false;
    events.interrupt.injected = 1;
    events.interrupt.nr = vector;
    events.interrupt.soft = 0;
    events.flags = 0;
    return ::ioctl(fd_.get(), KVM_SET_VCPU_EVENTS, &events) == 0;
}

bool Vcpu::queue_extint(std::uint8_t vector) {
    kvm_interrupt interrupt{};
    interrupt.irq = vector;
    run_->ready_for_interrupt_injection = 0;  // as of the last exit: one is on its way now
    return ::ioctl(fd_.get(), KVM_INTERRUPT, &interrupt) == 0;
}

bool Vcpu::ready_for_extint() const {
    return run_->ready_for_interrupt_injection != 0;
}

void Vcpu::request_interrupt_window(bool on) {
    run_->request_interrupt_window = on ? 1 : 0;
}

// In x2APIC mode each register is an MSR (SDM volume 3, 11.12.1.2), which is read and written
// alone. In xAPIC mode KVM has only the whole state, and writing that races with interrupts that
// arrive at the LAPIC meanwhile.
constexpr std::uint32_t kX2apicMsrs = 0x800;

std::optional<std::uint32_t> Vcpu::lapic_register(std::uint32_t offset) {
    if (const auto msr = read_msr(kX2apicMsrs + (offset >> 4))) {
        return static_cast<std::uint32_t>(*msr);
    }
    kvm_lapic_state state{};
    if (::ioctl(fd_.get(), KVM_GET_LAPIC, &state) != 0) return std::nullopt;
    std::uint32_t value = 0;
    std::memcpy(&value, state.regs + offset, sizeof value);
    return value;
}

bool Vcpu::set_lapic_register(std::uint32_t offset, std::uint32_t value) {
    if (write_msr(kX2apicMsrs + (offset >> 4), value)) return true;
    kvm_lapic_state state{};
    if (::ioctl(fd_.get(), KVM_GET_LAPIC, &state) != 0) return false;
    std::memcpy(state.regs + offset, &value, sizeof value);
    return ::ioctl(fd_.get(), KVM_SET_LAPIC, &state) == 0;
}

namespace {

CountedList<kvm_msr_entry> one_msr(std::uint32_t index, std::uint64_t value) {
    kvm_msr_entry entry{};
    entry.index = index;
    entry.data = value;
    CountedList<kvm_msr_entry> list(1);
    list.set(0, entry);
    return list;
}

}  // namespace

std::optional<std::uint64_t> Vcpu::read_msr(std::uint32_t index) {
    auto list = one_msr(index, 0);
    if (::ioctl(fd_.get(), KVM_GET_MSRS, list.data()) != 1) return std::nullopt;
    return list.get(0).data;
}

bool Vcpu::write_msr(std::uint32_t index, std::uint64_t value) {
    auto list = one_msr(index, value);
    return ::ioctl(fd_.get(), KVM_SET_MSRS, list.data()) == 1;
}

MpState Vcpu::mp_state() {
    kvm_mp_state state{};
    if (::ioctl(fd_.get(), KVM_GET_MP_STATE, &state) != 0) return MpState::kOther;
    switch (state.mp_state) {
        case KVM_MP_STATE_RUNNABLE: return MpState::kRunnable;
        case KVM_MP_STATE_UNINITIALIZED: return MpState::kUninitialized;
        case KVM_MP_STATE_INIT_RECEIVED: return MpState::kInitReceived;
        case KVM_MP_STATE_HALTED: return MpState::kHalted;
        case KVM_MP_STATE_SIPI_RECEIVED: return MpState::kSipiReceived;
        default: return MpState::kOther;
    }
}

void Vcpu::set_mp_state(MpState state) {
    kvm_mp_state to{};
    switch (state) {
        case MpState::kUninitialized: to.mp_state = KVM_MP_STATE_UNINITIALIZED; break;
        case MpState::kHalted: to.mp_state = KVM_MP_STATE_HALTED; break;
        default: to.mp_state = KVM_MP_STATE_RUNNABLE;
    }
    [[maybe_unused]] const int ignored = ::ioctl(fd_.get(), KVM_SET_MP_STATE, &to);
}

std::uint32_t Vcpu::tsc_khz() const {
    const int khz = ::ioctl(fd_.get(), KVM_GET_TSC_KHZ, 0);
    return khz > 0 ? static_cast<std::uint32_t>(khz) : 0;
}

void Vcpu::open_statistics() {
    stats_ = Fd(::ioctl(fd_.get(), KVM_GET_STATS_FD, 0));
    kvm_stats_header header{};
    if (!stats_ || ::pread(stats_.get(), &header, sizeof header, 0) != sizeof header) return;
    const std::size_t each = sizeof(kvm_stats_desc) + header.name_size;
    std::vector<char> descriptors(each * header.num_desc);
    if (::pread(stats_.get(), descriptors.data(), descriptors.size(), header.desc_offset) !=
        static_cast<ssize_t>(descriptors.size())) {
        return;
    }
    for (std::uint32_t i = 0; i < header.num_desc; ++i) {
        kvm_stats_desc descriptor{};
        std::memcpy(&descriptor, descriptors.data() + i * each, sizeof descriptor);
        stat_offsets_[descriptors.data() + i * each + sizeof descriptor] =
            header.data_offset + descriptor.offset;
    }
}

std::optional<std::uint64_t> Vcpu::statistic(const char* name) const {
    const auto found = stat_offsets_.find(name);
    if (found == stat_offsets_.end()) return std::nullopt;
    std::uint64_t value = 0;
    if (::pread(stats_.get(), &value, sizeof value, static_cast<off_t>(found->second)) !=
        sizeof value) {
        return std::nullopt;
    }
    return value;
}

namespace {

// KVM_XEN_INVALID_GPA of newer headers: takes the address away.
constexpr std::uint64_t kInvalidGpa = ~std::uint64_t{0};

bool set_attr(int fd, kvm_xen_vcpu_attr attr) {
    return ::ioctl(fd, KVM_XEN_VCPU_SET_ATTR, &attr) == 0;
}

bool set_address(int fd, std::uint16_t type, std::optional<std::uint64_t> gpa) {
    kvm_xen_vcpu_attr attr{};
    attr.type = type;
    attr.u.gpa = gpa.value_or(kInvalidGpa);
    return set_attr(fd, attr);
}

}  // namespace

bool Vcpu::set_xen_vcpu_info(std::optional<std::uint64_t> gpa) {
    return set_address(fd_.get(), KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO, gpa);
}

bool Vcpu::set_xen_runstate(std::optional<std::uint64_t> gpa) {
    return set_address(fd_.get(), KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR, gpa);
}

bool Vcpu::set_xen_vcpu_time(std::optional<std::uint64_t> gpa) {
    return set_address(fd_.get(), KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO, gpa);
}

bool Vcpu::set_xen_vcpu_id(std::uint32_t id) {
    kvm_xen_vcpu_attr attr{};
    attr.type = KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID;
    attr.u.vcpu_id = id;
    return set_attr(fd_.get(), attr);
}

std::optional<XenRunstate> Vcpu::xen_runstate() const {
    kvm_xen_vcpu_attr attr{};
    attr.type = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA;
    if (::ioctl(fd_.get(), KVM_XEN_VCPU_GET_ATTR, &attr) != 0) return std::nullopt;
    const auto& r = attr.u.runstate;
    return XenRunstate{
        .state = static_cast<std::uint32_t>(r.state),
        .since_ns = r.state_entry_time,
        .time_ns = {r.time_running, r.time_runnable, r.time_blocked, r.time_offline}};
}

bool Vcpu::set_xen_runstate_now(std::uint32_t state) {
    kvm_xen_vcpu_attr attr{};
    attr.type = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_CURRENT;
    attr.u.runstate.state = state;
    return set_attr(fd_.get(), attr);
}

bool Vcpu::set_xen_runstate_data(const XenRunstate& runstate) {
    kvm_xen_vcpu_attr attr{};
    attr.type = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA;
    auto& r = attr.u.runstate;
    r.state = runstate.state;
    r.state_entry_time = runstate.since_ns;
    r.time_running = runstate.time_ns[0];
    r.time_runnable = runstate.time_ns[1];
    r.time_blocked = runstate.time_ns[2];
    r.time_offline = runstate.time_ns[3];
    return set_attr(fd_.get(), attr);
}

}  // namespace vmm::kvm
