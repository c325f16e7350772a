#include "xenshim/transport/xen_platform.h"

#include <algorithm>
#include <ctime>

#include "vmm/base/log.h"
#include "xenshim/abi/callback.h"
#include "xenshim/transport/cpuid_leaves.h"
#include "xenshim/transport/hypercall_registers.h"
#include "xenshim/transport/traced.h"

namespace xenshim {

using vmm::kvm::Reg;

namespace {

// An MSI's address and data (Intel SDM volume 3, "Message Signalled Interrupts"): physical
// destination, fixed or NMI delivery, edge. With KVM_CAP_X2APIC_API id bits 8 and up lie in the
// address' upper half.
constexpr std::uint64_t kMsiBase = 0xfee00000;
constexpr std::uint32_t kMsiNmi = 4u << 8;

std::uint64_t msi_address(std::uint32_t apic_id) {
    return kMsiBase | ((apic_id & 0xff) << 12) | (std::uint64_t{apic_id & ~0xffu} << 32);
}

constexpr std::uint32_t kMsrMtrrDefType = 0x2ff;
constexpr std::uint64_t kMtrrEnabledWriteBack = 0x806;

}  // namespace

// ---- guest memory -------------------------------------------------------------------------------

bool XenPlatform::Access::read(vmm::Gva at, std::span<std::byte> to) {
    return linear().read(at, to);
}

bool XenPlatform::Access::write(vmm::Gva at, std::span<const std::byte> from) {
    return linear().write(at, from);
}

std::optional<vmm::Gpa> XenPlatform::Access::translate(vmm::Gva at) {
    return linear().translate(at, vmm::Access::kWrite);
}

std::optional<vmm::Gpa> XenPlatform::Access::translate_code(vmm::Gva at) {
    return linear().translate(at, vmm::Access::kRead);
}

// ---- set-up -------------------------------------------------------------------------------------

XenPlatform::XenPlatform(vmm::Machine& machine, PlatformConfig config)
    : machine_(machine), config_(std::move(config)) {
    Ports& ports = *this;
    domain_ = std::make_unique<Domain>(ports, machine_.memory().guest(), config_.domain);
    for (unsigned v = 0; v < machine_.vcpus(); ++v) {
        vcpus_.push_back(std::make_unique<PerVcpu>(machine_, v, config_.preempt));
    }
}

vmm::Result<void> XenPlatform::set_up(const vmm::kvm::Kvm& kvm) {
    const auto supported = TRY(kvm.supported_cpuid());
    for (unsigned v = 0; v < machine_.vcpus(); ++v) {
        auto leaves = guest_cpuid(supported, {.profile = config_.domain.profile,
                                              .base = config_.cpuid_base,
                                              .msr = config_.cpuid_base,
                                              .domid = config_.domain.domid,
                                              .vcpu = v,
                                              .vcpus = machine_.vcpus(),
                                              .apic_id = vmm::Machine::apic_id(v),
                                              .tsc_khz = machine_.vcpu(v).vcpu().tsc_khz(),
                                              .incarnation = domain_->incarnation()});
        if (config_.cpu) config_.cpu->limit(leaves);
        for (const auto& leaf : leaves) {
            // Physical address bits; what lies above exists for no vCPU, and maps to no slot.
            if (leaf.function != 0x80000008) continue;
            gfn_limit_ = std::uint64_t{1} << ((leaf.eax & 0xff) - 12);
        }
        if (config_.start) TRY(machine_.vcpu(v).vcpu().set_cpuid(leaves));
        per_vcpu(v).cpuid = vmm::kvm::CpuidState::of(leaves);
    }
    if (config_.start) TRY(begin_at(*config_.start));
    TRY(machine_.vm().catch_msrs(config_.cpuid_base, 1));
    if (config_.trace != nullptr) {
        config_.trace->begin({.profile = config_.domain.profile,
                              .transport = name(),
                              .vcpus = machine_.vcpus(),
                              .domid = config_.domain.domid,
                              .legacy_quirks = domain_->profile().legacy_windows});
        for (unsigned v = 0; v < machine_.vcpus(); ++v) {
            set_recording(v, true);
        }
    }
    return set_up_transport();
}

vmm::Result<void> XenPlatform::begin_at(const vmm::kvm::FlatState& start) {
    TRY(machine_.vcpu(0).vcpu().set_start_state(start));
    if (config_.set_mtrrs) {
        for (unsigned v = 0; v < machine_.vcpus(); ++v) {
            // Not every host's KVM has MTRRs to set; the guest then finds them as at reset.
            machine_.vcpu(v).vcpu().write_msr(kMsrMtrrDefType, kMtrrEnabledWriteBack);
        }
    }
    return set_wall_clock();
}

vmm::Result<void> XenPlatform::set_wall_clock() {
    constexpr std::uint64_t kSecond = 1'000'000'000;
    // Asked of KVM: the machine's own idea of the guest's clock comes with its first housekeeping.
    const auto clock = TRY(machine_.read_clock());
    timespec real{};
    ::clock_gettime(CLOCK_REALTIME, &real);
    const std::uint64_t now = static_cast<std::uint64_t>(real.tv_sec) * kSecond +
                              static_cast<std::uint64_t>(real.tv_nsec);
    const std::uint64_t at_zero = now - std::min(now, clock.clock_ns);
    domain_->shared_info().set_wall_clock(at_zero / kSecond,
                                          static_cast<std::uint32_t>(at_zero % kSecond));
    return {};
}

void XenPlatform::set_recording(unsigned v, bool on) {
    per_vcpu(v).recorder = on && config_.trace != nullptr ? &config_.trace->recorder(v) : nullptr;
}

void XenPlatform::handle_msr(PerVcpu& vcpu) {
    auto& kvm = vcpu.thread.vcpu();
    const auto msr = kvm.msr();
    const std::uint64_t value = *msr.data;
    *msr.error = 0;
    if (!kvm.msr_is_write()) {
        *msr.data = 0;
        return;
    }
    // The low 12 bits number the page, and there is only page 0. A gfn without memory, and a
    // number that does not exist, are #GP.
    const auto page = make_hypercall_page();
    if ((value & (vmm::kPageSize - 1)) != 0 ||
        !machine_.memory().guest().write(vmm::Gpa{value}, std::as_bytes(std::span(page)))) {
        *msr.error = 1;
        return;
    }
    domain_->latch_width(kvm.in_64bit_code() ? abi::Width::k64 : abi::Width::k32);
}

// ---- hypercalls ---------------------------------------------------------------------------------

abi::Reply XenPlatform::run_traced(PerVcpu& vcpu, const abi::Request& request) {
    return run_recorded(*vcpu.recorder, *domain_, vcpu.access, vcpu.preemption, vcpu.thread.index(),
                        request);
}

vmm::Result<void> XenPlatform::trap_call_sites() {
    auto& memory = machine_.memory().guest();
    for (const InlineCallSite& site : config_.call_sites) {
        std::array<std::uint8_t, kPortTrap.size()> code{};
        if (!memory.read(site.at, std::as_writable_bytes(std::span(code)))) {
            return vmm::internal_error("a recorded call site lies outside guest memory");
        }
        // What was learnt may be another page's content by now.
        if (code != kVmcall && code != kVmmcall) continue;
        if (!memory.write(site.at, std::as_bytes(std::span(kPortTrap)))) {
            return vmm::internal_error("a recorded call site lies outside guest memory");
        }
    }
    return {};
}

std::vector<InlineCallSite> XenPlatform::call_sites() const {
    const std::scoped_lock lock(sites_mutex_);
    std::vector<InlineCallSite> sites = config_.call_sites;
    sites.insert(sites.end(), learnt_.begin(), learnt_.end());
    return sites;
}

std::optional<std::uint64_t> XenPlatform::unknown_call_site() const {
    const std::scoped_lock lock(sites_mutex_);
    return unknown_;
}

void XenPlatform::look_at_call_site(PerVcpu& vcpu) {
    auto& kvm = vcpu.thread.vcpu();
    const vmm::Gva at{linear_rip(kvm)};
    std::array<std::uint8_t, kPortTrap.size()> code{};
    vcpu.access.begin();
    const bool whole = at.offset() + code.size() <= vmm::kPageSize &&
                       vcpu.access.read(at, std::as_writable_bytes(std::span(code))) &&
                       (code == kVmcall || code == kVmmcall);
    const auto gpa = whole ? vcpu.access.translate_code(at) : std::nullopt;
    const std::scoped_lock lock(sites_mutex_);
    if (!gpa || config_.call_sites.size() + learnt_.size() >= kMostCallSites) {
        vmm::log_guest("hypercall",
                       "the instruction at 0x%llx could not be made to trap on another host",
                       static_cast<unsigned long long>(at.value));
        unknown_ = at.value;
        return;
    }
    const auto is_it = [&](const InlineCallSite& site) { return site.at.value == gpa->value; };
    if (std::ranges::any_of(config_.call_sites, is_it) || std::ranges::any_of(learnt_, is_it)) {
        return;
    }
    learnt_.push_back({.at = *gpa, .vmcall = code == kVmcall});
}

// Whether the instruction before the linear address `rip` is our trap: other writes to the port are
// a device's business. An address that was found good once is remembered, so that the hot path is
// one comparison; self-modifying code at it could fool only itself.
bool XenPlatform::is_trap(PerVcpu& vcpu, std::uint64_t rip) {
    auto& known = vcpu.known_rip;
    // Stubs are 32 bytes apart, so their numbers are the bits that differ.
    auto& slot = known[(rip >> 5) % known.size()];
    if (slot == rip) return true;
    std::array<std::uint8_t, kPortTrap.size()> code{};
    vcpu.access.begin();
    if (!vcpu.access.read({rip - kPortTrap.size()}, std::as_writable_bytes(std::span(code))) ||
        code != kPortTrap) {
        return false;
    }
    slot = rip;
    return true;
}

bool XenPlatform::handle_trap(PerVcpu& vcpu) {
    auto& kvm = vcpu.thread.vcpu();
    const auto io = kvm.pio();
    if (io.port != kTrapPort || !io.is_write || io.size != 1 || io.count != 1) return false;
    if (!is_trap(vcpu, linear_rip(kvm))) return false;
    const abi::Request request = read_request(kvm);
    const abi::Reply reply = run(vcpu, request);
    if (const auto* finish = std::get_if<abi::Finish>(&reply)) {
        // RIP is past the instruction already.
        kvm.set(Reg::kRax, result_register(request.width, finish->result));
    } else if (const auto* again = std::get_if<abi::Reissue>(&reply)) {
        kvm.set(Reg::kRip, kvm.get(Reg::kRip) - kPortTrap.size());
        write_reissue(kvm, request.width, *again);
        if (again->sleep) block(vcpu, *again->sleep);
    } else {
        kvm.set(Reg::kRax, 0);
        block(vcpu, *std::get_if<abi::Block>(&reply));
    }
    return true;
}

// ---- Platform -----------------------------------------------------------------------------------

void XenPlatform::vcpu_ready(vmm::VcpuThread& thread) {
    if (thread.restored()) {
        thread.request(vmm::kRestoredRequest);
    } else if (thread.index() == 0) {
        domain_->set_runstate(0, Runstate::kRunning);
    }
    ready_transport(per_vcpu(thread.index()));
}

void XenPlatform::ap_started(vmm::VcpuThread& thread) {
    const unsigned v = thread.index();
    DomainVcpu& vcpu = domain_->vcpu(v);
    vcpu.initialised = true;
    if (!vcpu.up.exchange(true)) domain_->set_runstate(v, Runstate::kRunning);
    restart_clock(per_vcpu(v));
    // INIT emptied the LAPIC: what was raised before has to be raised again.
    if (domain_->shared_info().upcall_pending(v)) upcall(v);
}

void XenPlatform::attend(vmm::VcpuThread& thread, std::uint32_t requests) {
    PerVcpu& vcpu = per_vcpu(thread.index());
    if ((requests & vmm::kRestoredRequest) != 0) {
        // A guest that waits to be let go stands as it was saved, whatever time goes by.
        if ((requests & vmm::kPauseRequest) != 0) {
            constexpr std::uint32_t kHandled =
                vmm::kPauseRequest | vmm::kRunRequest | vmm::kInspectRequest;
            return thread.request(requests & ~kHandled);
        }
        goes_on(thread);
        ready_restored(vcpu);
    }
    if ((requests & vmm::kTimerRequest) != 0) run_timers(vcpu);
    const bool upcall_due = domain_->shared_info().upcall_pending(thread.index());
    // Beside the vCPU's own vector, if it has one: both come, this one first (measured, 4.17.7).
    if ((requests & vmm::kUpcallRequest) != 0 && upcall_due && callback_vector() != 0) {
        raise_callback(vcpu, callback_vector());
    }
    // An EOI that this host's KVM has not told of yet it tells of before it enters the guest again,
    // which it does not while that halts: kvm_pvm, where a batch of instructions may hold both the
    // interrupt and the next HLT. Elsewhere nobody halts with an interrupt in service; and if one
    // does, he sees his HLT end early.
    if (thread.index() == 0 && callback_wire_.awaits_eoi && (requests & vmm::kUpcallRequest) != 0 &&
        upcall_due && callback_wire_.awaits_eoi()) {
        leave_hlt(vcpu);
    }
    if (thread.index() == 0 && pic_.output && (requests & vmm::kExtintRequest) != 0) {
        deliver_extint(vcpu);
    }
    if (vcpu.blocked) {
        check_block(vcpu, (requests & vmm::kUpcallRequest) != 0 && upcall_due && is_told(vcpu));
        if (!vcpu.blocked) run_timers(vcpu);  // a periodic tick that waited for this
    }
}

void XenPlatform::stands(vmm::VcpuThread& thread) {
    domain_->vcpu_stands(thread.index());
    account_transport(per_vcpu(thread.index()), Runstate::kOffline);
}

void XenPlatform::goes_on(vmm::VcpuThread& thread) {
    domain_->vcpu_goes_on(thread.index());
    account_transport(per_vcpu(thread.index()), Runstate::kRunning);
}

void XenPlatform::inspect(vmm::VcpuThread& thread) {
    inspect_transport(per_vcpu(thread.index()));
}

void XenPlatform::housekeeping() {
    if (domain_->watchdog_expired(machine_.system_time_ns())) {
        vmm::log_warn("watchdog", "the guest's watchdog was not fed in time");
        domain_->shutdown(abi::SHUTDOWN_watchdog);
    }
    domain_->physmap().free_owed();
    // Looking for touched pages is a walk over the memory's extents: every few seconds is enough.
    constexpr unsigned kRoundsBetweenReclaims = 40;
    if (++reclaim_rounds_ >= kRoundsBetweenReclaims) {
        reclaim_rounds_ = 0;
        if (const auto pages = machine_.memory().reclaim_touched(
                [this](std::uint64_t gfn) { return domain_->physmap().free_touched(gfn); })) {
            vmm::log_guest("memory", "the guest touched %llu pages that it had given back",
                           static_cast<unsigned long long>(pages));
        }
    }
    housekeeping_transport();
    if (on_housekeeping) on_housekeeping();
}

void XenPlatform::run_timers(PerVcpu& vcpu) {
    const unsigned v = vcpu.thread.index();
    // Xen's periodic timer stands still while its vCPU sleeps, in HLT as in a hypercall (measured,
    // 4.17.7).
    const bool asleep =
        domain_->vcpu(v).timers.period_ns != 0 &&
        (vcpu.blocked || vcpu.thread.vcpu().mp_state() == vmm::kvm::MpState::kHalted);
    const auto next = domain_->run_timers(v, machine_.system_time_ns(), asleep);
    std::optional<std::uint64_t> deadline = next;
    if (vcpu.block_deadline_ns && (!deadline || *vcpu.block_deadline_ns < *deadline)) {
        deadline = vcpu.block_deadline_ns;
    }
    vcpu.thread.set_timer(deadline ? std::optional(machine_.monotonic_of(*deadline))
                                   : std::nullopt);
}

void XenPlatform::block(PerVcpu& vcpu, const abi::Block& until) {
    vcpu.blocked = true;
    vcpu.block_deadline_ns = until.deadline_ns;
    vcpu.thread.sleep();
    domain_->set_runstate(vcpu.thread.index(), Runstate::kBlocked);
    // Once more with the vCPU asleep: what came since the handler looked has left its request.
    run_timers(vcpu);
    // An upcall that waits already ends the sleep only where it can be taken; a new one always
    // does. So it is on Xen, and guests poll with interrupts off and never look at the flag. (One
    // that comes by the LAPIC or the PIC ends the sleep by itself, where it can be taken.)
    check_block(vcpu, callback_vector() != 0 && vcpu.thread.vcpu().interrupts_enabled() &&
                          domain_->shared_info().upcall_pending(vcpu.thread.index()));
    if (!vcpu.blocked) run_timers(vcpu);
}

// Xen wakes a vCPU by what it brings it: an event that has no way to it, or one that is masked at
// the I/O APIC's pin, lets it sleep (measured, 4.17.7).
bool XenPlatform::is_told(const PerVcpu& vcpu) const {
    const unsigned v = vcpu.thread.index();
    if (callback_vector() != 0 || domain_->vcpu(v).upcall_vector != 0) return true;
    const unsigned gsi = callback_gsi_.load();
    return v == 0 && gsi != 0 && callback_wire_.is_open && callback_wire_.is_open(gsi);
}

void XenPlatform::check_block(PerVcpu& vcpu, bool event) {
    const unsigned v = vcpu.thread.index();
    const bool timed_out =
        vcpu.block_deadline_ns && *vcpu.block_deadline_ns <= machine_.system_time_ns();
    const bool still_asleep = vcpu.thread.sleeping();
    if (still_asleep && !event && !timed_out && !domain_->poll_satisfied(v)) return;
    vcpu.blocked = false;
    vcpu.block_deadline_ns.reset();
    domain_->end_poll(v);
    // Not one that was taken down in its sleep.
    if (domain_->vcpu(v).up) domain_->set_runstate(v, Runstate::kRunning);
    vcpu.thread.wake();
}

void XenPlatform::leave_hlt(PerVcpu& vcpu) {
    auto& kvm = vcpu.thread.vcpu();
    if (kvm.mp_state() == vmm::kvm::MpState::kHalted && kvm.interrupts_enabled()) {
        kvm.set_mp_state(vmm::kvm::MpState::kRunnable);
    }
}

void XenPlatform::deliver_extint(PerVcpu& vcpu) {
    // The LAPIC's own gate (LVT0) is KVM's to check: a queued interrupt waits for it.
    if (!pic_.output()) return;
    auto& kvm = vcpu.thread.vcpu();
    // Injected, not queued: one that is queued is lost when the vCPU is saved, and the PIC would
    // wait for its end for ever.
    if (kvm.ready_for_extint() && kvm.can_inject()) {
        kvm.inject_if_ready(static_cast<std::uint8_t>(pic_.acknowledge()));
        if (kvm.mp_state() == vmm::kvm::MpState::kHalted) {
            kvm.set_mp_state(vmm::kvm::MpState::kRunnable);
        }
    }
    // One more may follow; KVM says when there is room for it.
    kvm.request_interrupt_window(pic_.output() || vcpu.upcall_at_window);
}

// ---- saved and restored -------------------------------------------------------------------------

void XenPlatform::settle() {
    for (auto& vcpu : vcpus_) {
        const unsigned v = vcpu->thread.index();
        vcpu->thread.notice_sipi();
        // What was asked of the vCPU since it stands still is in nobody's state: an event that came
        // is brought to it now, and ends its sleep. Other requests are made again where they are
        // found due, as is what time alone brings: a guest that ran no instruction is saved the
        // same each time.
        const bool event = (vcpu->thread.requests().load() & vmm::kUpcallRequest) != 0 &&
                           domain_->shared_info().upcall_pending(v);
        if (event && callback_vector() != 0) {
            raise_again(*vcpu, callback_vector());
            vcpu->upcall_injected = vcpu->thread.vcpu().interrupts_enabled();
            vcpu->thread.withdraw(vmm::kUpcallRequest);
        }
        const bool told = event && is_told(*vcpu);
        // An interrupt may have ended the sleep inside KVM.
        if (vcpu->blocked && (told || !vcpu->thread.sleeping())) check_block(*vcpu, told);
        settle_transport(*vcpu);
    }
}

vmm::Result<VcpuMoved> XenPlatform::save_vcpu(unsigned v, const vmm::kvm::ClockReading& at) {
    PerVcpu& vcpu = per_vcpu(v);
    auto saved = TRY(vcpu.thread.save(at));
    VcpuMoved moved{.cpuid = vcpu.cpuid,
                    .cpu = std::move(saved.state),
                    .time = saved.time,
                    .wait = {.waits = vcpu.blocked,
                             .deadline_ns = vcpu.blocked ? vcpu.block_deadline_ns : std::nullopt}};
    show_incarnation(moved.cpuid, config_.cpuid_base, 0);
    save_transport(vcpu, moved.cpu);
    return moved;
}

std::vector<std::string> XenPlatform::missing_features(unsigned v,
                                                       const vmm::kvm::CpuidState& saved) const {
    return vmm::kvm::missing_features(saved, vcpus_[v]->cpuid);
}

vmm::Result<void> XenPlatform::restore_vcpu(unsigned v, const VcpuMoved& moved,
                                            const vmm::kvm::ClockReading& now) {
    PerVcpu& vcpu = per_vcpu(v);
    const std::string name = "vCPU " + std::to_string(v) + ": ";
    if (const auto good = moved.cpuid.check(); !good) {
        return vmm::user_error(name + "cpuid: " + good.error());
    }
    if (const auto missing = missing_features(v, moved.cpuid); !missing.empty()) {
        std::string names;
        for (const auto& feature : missing) {
            names += (names.empty() ? "" : ", ") + feature;
        }
        return vmm::host_error(name + "this host lacks " + names);
    }
    if (moved.wait.waits && moved.cpu.activity != vmm::kvm::Activity::kHalted) {
        return vmm::user_error(name + "it waits, and is not halted");
    }
    if (!moved.wait.waits && moved.wait.deadline_ns) {
        return vmm::user_error(name + "it waits for nothing until some time");
    }
    vcpu.cpuid = moved.cpuid;
    show_incarnation(vcpu.cpuid, config_.cpuid_base, domain_->incarnation());
    TRY(vcpu.thread.vcpu().set_cpuid(vcpu.cpuid.given()));
    TRY(vcpu.thread.restore(moved.cpu, moved.time, moved.wait.waits, now));
    vcpu.blocked = moved.wait.waits;
    vcpu.block_deadline_ns = moved.wait.deadline_ns;
    vcpu.upcall_injected =
        callback_vector() != 0 && moved.cpu.events.interrupt == callback_vector();
    return restore_transport(vcpu);
}

// What was on its way to the vCPU and is in no saved state: all of it follows from what is.
void XenPlatform::ready_restored(PerVcpu& vcpu) {
    const unsigned v = vcpu.thread.index();
    run_timers(vcpu);
    // Not as a request: an upcall that waited for interrupts to be enabled is no event that would
    // end a sleep.
    if (callback_vector() != 0 && !vcpu.upcall_injected &&
        domain_->shared_info().upcall_pending(v)) {
        raise_again(vcpu, callback_vector());
    }
    if (v == 0 && pic_.output && pic_.output()) vcpu.thread.request(vmm::kExtintRequest);
    if (vcpu.blocked) check_block(vcpu, false);
}

// ---- Ports --------------------------------------------------------------------------------------

std::byte* XenPlatform::own_page(std::uint32_t page) {
    return machine_.memory().own_page(page);
}

bool XenPlatform::show_own_page(std::uint64_t gfn, std::uint32_t page) {
    return machine_.memory().show_own_page(gfn, page);
}

void XenPlatform::hide_own_page(std::uint64_t gfn) {
    machine_.memory().hide_own_page(gfn);
}

bool XenPlatform::in_slot(std::uint64_t gfn) const {
    return machine_.memory().in_slot(gfn);
}

bool XenPlatform::free_pages(std::uint64_t gfn, std::uint64_t count) {
    return machine_.memory().free_pages(gfn, count);
}

void XenPlatform::clear_pages(std::uint64_t gfn, std::uint64_t count) {
    machine_.memory().clear_pages(gfn, count);
}

bool XenPlatform::add_ram_page(std::uint64_t gfn) {
    return machine_.memory().add_ram_page(gfn, gfn < gfn_limit_);
}

void XenPlatform::remove_ram_page(std::uint64_t gfn) {
    machine_.memory().remove_ram_page(gfn);
}

void XenPlatform::send_vector(unsigned vcpu, std::uint8_t vector) {
    const auto sent = machine_.vm().signal_msi(msi_address(vmm::Machine::apic_id(vcpu)), vector);
    if (!sent) vmm::log_guest("upcall", "vCPU %u: %s", vcpu, sent.error().what.c_str());
}

void XenPlatform::upcall(unsigned vcpu) {
    const std::uint8_t own = domain_->vcpu(vcpu).upcall_vector;
    // A line is vCPU 0's, and only while it has no vector of its own: as of that it is no more than
    // a formality that Linux observes by setting GSI 1.
    if (own != 0) {
        send_vector(vcpu, own);
    } else if (vcpu == 0) {
        domain_->callback_line().raise();
    }
    // Also with a vector of its own: a vCPU that sleeps in a hypercall is woken.
    machine_.vcpu(vcpu).request(vmm::kUpcallRequest);
}

void XenPlatform::wake(unsigned vcpu) {
    machine_.vcpu(vcpu).request(vmm::kWakeRequest);
}

void XenPlatform::callback_changed(std::uint64_t value) {
    callback_vector_ = abi::callback_of(value).vector;
    callback_gsi_ = abi::callback_of(value).gsi;
    for (unsigned v = 0; v < domain_->vcpus(); ++v) {
        if (domain_->shared_info().upcall_pending(v)) upcall(v);
    }
}

void XenPlatform::upcall_vector_changed(unsigned vcpu, std::uint8_t vector) {
    // Once, events or not: as Xen has it (measured, 4.17.7).
    send_vector(vcpu, vector);
}

void XenPlatform::vcpu_info_moved(unsigned v) {
    // KVM takes a vCPU's lock for this, and a vCPU that waits for its SIPI holds it for as long as
    // it waits: so its own thread does it.
    PerVcpu& vcpu = per_vcpu(v);
    const auto place = [this, &vcpu, v] {
        place_vcpu_info(vcpu, domain_->shared_info().vcpu_info_gpa(v, shared_info_gfn_));
    };
    if (vcpu.thread.is_current()) {
        place();
    } else {
        vcpu.thread.post(place);
    }
}

void XenPlatform::shared_info_moved(std::uint64_t gfn) {
    shared_info_gfn_ = gfn;
    for (unsigned v = 0; v < domain_->vcpus(); ++v) {
        if (!domain_->shared_info().vcpu_info_moved(v)) vcpu_info_moved(v);
    }
}

void XenPlatform::runstate_area_moved(unsigned v) {
    // The first thing that Linux asks for on a CPU that comes (back) online: INIT took the clock
    // away, and not every INIT shows up as an exit.
    if (per_vcpu(v).thread.is_current()) restart_clock(per_vcpu(v));
}

void XenPlatform::width_latched(bool) {}

void XenPlatform::timers_changed(unsigned v) {
    run_timers(per_vcpu(v));
}

void XenPlatform::start_vcpu(unsigned v, const VcpuContext* context) {
    PerVcpu& vcpu = per_vcpu(v);
    if (context == nullptr) {
        vcpu.thread.post([this, &vcpu] {
            vcpu.thread.set_running();
            restart_clock(vcpu);
            // An event that came while it was down.
            const unsigned id = vcpu.thread.index();
            if (domain_->shared_info().upcall_pending(id)) upcall(id);
        });
        return;
    }
    vmm::kvm::FullState state;
    std::copy(std::begin(context->gpr), std::end(context->gpr), state.gpr);
    state.rip = context->rip;
    state.rflags = context->rflags;
    state.cr0 = context->cr0;
    state.cr3 = context->cr3;
    state.cr4 = context->cr4;
    state.efer = context->efer;
    const auto segment = [](const VcpuContext::Segment& s) {
        return vmm::kvm::SegmentState{s.base, s.limit, s.attributes};
    };
    state.cs = segment(context->cs);
    state.ds = segment(context->ds);
    state.es = segment(context->es);
    state.ss = segment(context->ss);
    state.tr = segment(context->tr);
    vcpu.thread.post([&vcpu, state] {
        if (const auto set = vcpu.thread.vcpu().set_full_state(state); !set) {
            vmm::log_guest("vcpu", "vCPU %u cannot start: %s", vcpu.thread.index(),
                           set.error().what.c_str());
        }
    });
}

void XenPlatform::stop_vcpu(unsigned v) {
    PerVcpu& vcpu = per_vcpu(v);
    // Down means: only an INIT-SIPI or VCPUOP_up brings it back. The registers stay as they are.
    vcpu.thread.post([&vcpu] { vcpu.thread.set_down(); });
}

void XenPlatform::send_nmi(unsigned v) {
    const auto sent = machine_.vm().signal_msi(msi_address(vmm::Machine::apic_id(v)), kMsiNmi);
    if (!sent) vmm::log_guest("nmi", "vCPU %u: %s", v, sent.error().what.c_str());
}

void XenPlatform::shutdown(std::uint8_t reason) {
    machine_.stop({.kind = vmm::StopCause::Kind::kGuest, .code = reason});
}

}  // namespace xenshim
