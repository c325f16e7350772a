#include "vmm/machine/machine.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <signal.h>
#include <unistd.h>

#include <sys/eventfd.h>
#include <sys/syscall.h>

#include "vmm/base/log.h"
#include "vmm/base/thread.h"

namespace vmm {
namespace {

// The signals that get a vCPU thread out of KVM_RUN: another thread's kick, and its own timer.
int kick_signal() {
    return SIGRTMIN;
}
int timer_signal() {
    return SIGRTMIN + 1;
}

thread_local VcpuThread* t_current = nullptr;

std::uint64_t now_ns(clockid_t clock) {
    timespec now{};
    ::clock_gettime(clock, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
           static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace

// ---- VcpuThread ---------------------------------------------------------------------------------

VcpuThread::VcpuThread(Machine& machine, unsigned index, std::unique_ptr<kvm::Vcpu> vcpu)
    : machine_(machine), index_(index), vcpu_(std::move(vcpu)), awaits_sipi_(index != 0) {}

VcpuThread::~VcpuThread() {
    if (thread_.joinable()) thread_.join();
}

// Whoever kicks has made its request before; a timer makes its own here, also when its signal
// comes while the vCPU is out of the guest. Either way the next KVM_RUN must come straight back.
void VcpuThread::on_signal(int signal) {
    if (t_current == nullptr) return;
    if (signal == timer_signal()) t_current->requests_.fetch_or(kTimerRequest);
    t_current->vcpu_->request_exit();
}

bool VcpuThread::is_current() const {
    return t_current == this;
}

void VcpuThread::request(std::uint32_t requests) {
    requests_.fetch_or(requests);
    if (is_current()) return;  // seen before the next entry
    vcpu_->request_exit();
    if (in_guest_.load()) ::pthread_kill(handle_.load(), kick_signal());
}

void VcpuThread::post(std::function<void()> work) {
    {
        const std::scoped_lock lock(mutex_);
        posted_.push_back(std::move(work));
    }
    request(kRunRequest);
    machine_.wake_parked();
}

// What others want done on this thread, in the order in which they asked.
void VcpuThread::run_posted() {
    std::vector<std::function<void()>> work;
    {
        const std::scoped_lock lock(mutex_);
        work.swap(posted_);
    }
    for (auto& w : work) {
        w();
    }
}

void VcpuThread::set_timer(std::optional<std::uint64_t> deadline_ns) {
    itimerspec when{};
    if (deadline_ns) {
        // 0 would switch the timer off.
        const std::uint64_t at = std::max<std::uint64_t>(*deadline_ns, 1);
        when.it_value.tv_sec = static_cast<time_t>(at / 1'000'000'000);
        when.it_value.tv_nsec = static_cast<long>(at % 1'000'000'000);
    }
    ::timer_settime(timer_, TIMER_ABSTIME, &when, nullptr);
}

void VcpuThread::sleep() {
    // The exit that led here has to be finished first: a halted vCPU is not entered.
    vcpu_->complete_exit();
    asleep_ = true;
    asleep_rip_ = vcpu_->get(kvm::Reg::kRip);
    vcpu_->set_mp_state(kvm::MpState::kHalted);
}

bool VcpuThread::sleeping() {
    if (!asleep_) return false;
    // An interrupt may have woken it inside KVM: then it has run on.
    if (vcpu_->get(kvm::Reg::kRip) != asleep_rip_ || vcpu_->mp_state() != kvm::MpState::kHalted) {
        asleep_ = false;
    }
    return asleep_;
}

void VcpuThread::wake() {
    if (!sleeping()) return;
    asleep_ = false;
    vcpu_->set_mp_state(kvm::MpState::kRunnable);
}

Result<kvm::SavedVcpu> VcpuThread::save(const kvm::ClockReading& at) {
    return vcpu_->save(machine_.saved_by_host_, at);
}

Result<void> VcpuThread::restore(const kvm::VcpuState& state, const kvm::VcpuTimeState& time,
                                 bool asleep, const kvm::ClockReading& now) {
    TRY(vcpu_->restore(machine_.saved_by_host_, state, time, now));
    restored_ = true;
    awaits_sipi_ = state.activity == kvm::Activity::kUninitialized ||
                   state.activity == kvm::Activity::kInitReceived;
    asleep_ = asleep && state.activity == kvm::Activity::kHalted;
    asleep_rip_ = state.rip;
    requests_.fetch_and(kRunRequest);
    return {};
}

void VcpuThread::set_down() {
    vcpu_->complete_exit();
    vcpu_->set_mp_state(kvm::MpState::kUninitialized);
    awaits_sipi_ = true;
}

void VcpuThread::set_running() {
    vcpu_->set_mp_state(kvm::MpState::kRunnable);
    awaits_sipi_ = false;
}

// KVM tells of a SIPI with EAGAIN, but a signal at that moment hides it, and asking for the state
// may be what makes KVM accept the SIPI: so it is asked for before each entry until it has come.
void VcpuThread::notice_sipi() {
    if (!awaits_sipi_) return;
    const auto state = vcpu_->mp_state();
    if (state == kvm::MpState::kUninitialized || state == kvm::MpState::kInitReceived) return;
    awaits_sipi_ = false;
    machine_.platform_->ap_started(*this);
}

bool VcpuThread::attend() {
    const std::uint32_t wanted = requests_.exchange(0);
    if ((wanted & kStopRequest) != 0 || machine_.stopping()) return false;
    if ((wanted & kRunRequest) != 0) run_posted();
    if ((wanted & kInspectRequest) != 0) inspect();
    machine_.platform_->attend(*this, wanted);
    if ((wanted & kPauseRequest) != 0) {
        // Whatever KVM still has to do for the last exit is done now: what is saved while we are
        // parked is whole.
        if (!finish_exit()) return false;
        machine_.platform_->stands(*this);
        machine_.park(*this);
        if (machine_.stopping()) return false;  // of who is not let go nobody need know
        machine_.platform_->goes_on(*this);
    }
    return !machine_.stopping();
}

// A string instruction's next batch, and the other half of an access that spans two pages, come as
// exits of their own while the one before is completed. False: the vCPU cannot go on.
bool VcpuThread::finish_exit() {
    for (;;) {
        const kvm::ExitReason reason = vcpu_->complete_exit();
        if (reason == kvm::ExitReason::kInterrupted || reason == kvm::ExitReason::kAgain) {
            return true;
        }
        if (!handle(reason)) return false;
    }
}

void VcpuThread::inspect() {
    const auto state = vcpu_->mp_state();
    const bool down = state == kvm::MpState::kUninitialized || state == kvm::MpState::kInitReceived;
    const bool halted = state == kvm::MpState::kHalted && !asleep_;
    dead_ = down || (halted && !vcpu_->interrupts_enabled());
    if (!down) machine_.platform_->inspect(*this);
}

void VcpuThread::do_pio() {
    const kvm::PioExit io = vcpu_->pio();
    const IoAccess at{.offset = io.port, .size = io.size};
    for (std::uint32_t i = 0; i < io.count; ++i) {
        std::byte* data = io.data + std::size_t{i} * io.size;
        std::uint32_t value = 0;
        if (io.is_write) {
            std::memcpy(&value, data, io.size);
            machine_.pio_.write(at, value);
        } else {
            value = machine_.pio_.read(at);
            std::memcpy(data, &value, io.size);
        }
    }
}

void VcpuThread::do_mmio() {
    const kvm::MmioExit io = vcpu_->mmio();
    std::uint64_t value = 0;
    if (io.is_write) {
        std::memcpy(&value, io.data, io.size);
        machine_.mmio_.write({io.address}, io.size, value);
    } else {
        value = machine_.mmio_.read({io.address}, io.size);
        std::memcpy(io.data, &value, io.size);
    }
}

bool VcpuThread::handle(kvm::ExitReason reason) {
    using kvm::ExitReason;
    switch (reason) {
        case ExitReason::kInterrupted: return true;
        case ExitReason::kPio:
            if (machine_.platform_->handle_exit(*this, reason)) return true;
            do_pio();
            return true;
        case ExitReason::kMmio: do_mmio(); return true;
        case ExitReason::kAgain: return true;
        case ExitReason::kIoapicEoi:
            if (machine_.on_ioapic_eoi) machine_.on_ioapic_eoi(vcpu_->ioapic_eoi_vector());
            return true;
        case ExitReason::kShutdown:
            log_warn("guest", "vCPU %u met a triple fault at rip 0x%llx (cr0 0x%llx, cr3 0x%llx)",
                     index_, static_cast<unsigned long long>(vcpu_->get(kvm::Reg::kRip)),
                     static_cast<unsigned long long>(vcpu_->paging().cr0),
                     static_cast<unsigned long long>(vcpu_->paging().cr3));
            machine_.stop({.kind = StopCause::Kind::kTriple});
            return false;
        default: break;
    }
    if (machine_.platform_->handle_exit(*this, reason)) return true;
    if (reason == kvm::ExitReason::kInternalError) {
        // The guest did what no CPU (or this KVM's emulation) can go on from.
        log_error("guest", "vCPU %u: %s", index_, vcpu_->describe_exit().c_str());
        machine_.stop({.kind = StopCause::Kind::kCrashed});
        return false;
    }
    machine_.stop({.kind = StopCause::Kind::kError,
                   .error = Error{Fault::kInternal, "vCPU " + std::to_string(index_) + ": " +
                                                        vcpu_->describe_exit()}});
    return false;
}

void VcpuThread::main() {
    t_current = this;
    handle_ = ::pthread_self();
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, kick_signal());
    sigaddset(&set, timer_signal());
    ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);

    sigevent event{};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = timer_signal();
    event._sigev_un._tid = static_cast<pid_t>(::syscall(SYS_gettid));
    have_timer_ = ::timer_create(CLOCK_MONOTONIC, &event, &timer_) == 0;
    if (!have_timer_) {
        machine_.stop(
            {.kind = StopCause::Kind::kError,
             .error = Error{Fault::kHost, std::string("timer_create: ") + std::strerror(errno)}});
    }
    machine_.platform_->vcpu_ready(*this);

    while (!machine_.stopping()) {
        // Cleared before requests are read: whoever makes one afterwards sets it again, and the
        // entry below comes straight back.
        vcpu_->clear_exit_request();
        bool leave = false;
        // Attending to one request may make another (a timer that is due raises an upcall), and
        // so may a SIPI.
        do {
            while (requests_.load() != 0 && !leave) {
                leave = !attend();
            }
            if (!leave) notice_sipi();
        } while (requests_.load() != 0 && !leave);
        if (leave) break;
        in_guest_ = true;
        const kvm::ExitReason reason = vcpu_->run();
        in_guest_ = false;
        if (reason == kvm::ExitReason::kInterrupted) continue;
        exits_.store(exits_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
        if (!handle(reason)) break;
    }
    if (have_timer_) ::timer_delete(timer_);
    t_current = nullptr;
}

// ---- Machine ------------------------------------------------------------------------------------

Result<std::unique_ptr<Machine>> Machine::create(const kvm::Kvm& kvm, const Config& config) {
    auto machine = std::unique_ptr<Machine>(new Machine());
    machine->vm_ = TRY(kvm::Vm::create(kvm));
    machine->saved_by_host_ = TRY(kvm::SavedByHost::of(kvm));
    TRY(machine->vm_->create_split_irqchip(config.ioapic_pins));
    machine->memory_ = TRY(MachineMemory::create(*machine->vm_, config.own_pages));
    for (unsigned i = 0; i < config.vcpus; ++i) {
        auto vcpu = TRY(kvm::Vcpu::create(kvm, *machine->vm_, apic_id(i)));
        machine->vcpus_.push_back(std::make_unique<VcpuThread>(*machine, i, std::move(vcpu)));
    }
    machine->last_exits_.resize(config.vcpus);
    machine->stop_event_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!machine->stop_event_) return errno_error("eventfd");
    machine->hold_event_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!machine->hold_event_) return errno_error("eventfd");
    return machine;
}

Machine::~Machine() {
    stop({.kind = StopCause::Kind::kRequested});
    for (auto& v : vcpus_) {
        if (v->thread_.joinable()) v->thread_.join();
    }
}

Result<void> Machine::start(Platform& platform, StartAs as) {
    platform_ = &platform;
    struct sigaction action {};
    action.sa_handler = &VcpuThread::on_signal;
    sigemptyset(&action.sa_mask);
    if (::sigaction(kick_signal(), &action, nullptr) != 0 ||
        ::sigaction(timer_signal(), &action, nullptr) != 0) {
        return errno_error("sigaction");
    }
    if (!clock_restored_) {
        if (const auto set = vm_->set_clock_ns(0); !set) {
            log_warn("machine", "the guest's clock does not start at 0: %s",
                     set.error().what.c_str());
        }
    }
    calibrate_clock();
    if (as == StartAs::kPaused) {
        paused_ = true;
        for (auto& v : vcpus_) {
            v->request(kPauseRequest);
        }
    }
    Result<void> made;
    for (auto& v : vcpus_) {
        made = make_thread(v->thread_, [thread = v.get()] { thread->main(); });
        if (!made) break;
    }
    if (made && as == StartAs::kPaused) await_parked();
    return made;
}

void Machine::stop(StopCause cause) {
    {
        const std::scoped_lock lock(mutex_);
        if (!stopped_) {
            stopped_ = true;
            cause_ = std::move(cause);
        }
        stopping_ = true;
    }
    changed_.notify_all();
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(stop_event_.get(), &one, sizeof one);
    for (auto& v : vcpus_) {
        v->request(kStopRequest);
    }
}

StopCause Machine::join() {
    for (auto& v : vcpus_) {
        if (v->thread_.joinable()) v->thread_.join();
    }
    const std::scoped_lock lock(mutex_);
    return cause_;
}

void Machine::pause() {
    if (paused_) return;
    {
        const std::scoped_lock lock(mutex_);
        paused_ = true;
    }
    for (auto& v : vcpus_) {
        v->request(kPauseRequest);
    }
    await_parked();
}

// Those that have not left since the last pause are counted among the parked already: they see that
// there is a new one before they go.
void Machine::await_parked() {
    std::unique_lock lock(mutex_);
    // What one vCPU asked of another before it stopped is done: the other thread does it where it
    // is parked. All of it belongs to the time before the pause.
    changed_.wait(lock, [&] {
        return stopping_ ||
               (parked_ == vcpus_.size() && std::ranges::none_of(vcpus_, [](const auto& v) {
                    return (v->requests_.load() & kRunRequest) != 0;
                }));
    });
}

void Machine::resume() {
    // What was seen before the pause says nothing about a guest that was not allowed to run.
    dead_rounds_ = 0;
    const std::scoped_lock lock(mutex_);
    paused_ = false;
    changed_.notify_all();
}

void Machine::hold() {
    {
        const std::scoped_lock lock(mutex_);
        held_ = true;
    }
    for (auto& v : vcpus_) {
        v->request(kPauseRequest);
    }
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(hold_event_.get(), &one, sizeof one);
}

void Machine::release() {
    dead_rounds_ = 0;
    const std::scoped_lock lock(mutex_);
    held_ = false;
    std::uint64_t count = 0;
    [[maybe_unused]] const auto got = ::read(hold_event_.get(), &count, sizeof count);
    changed_.notify_all();
}

void Machine::park(VcpuThread& vcpu) {
    const auto has_work = [&] { return (vcpu.requests_.load() & kRunRequest) != 0; };
    std::unique_lock lock(mutex_);
    for (;;) {
        ++parked_;
        changed_.notify_all();
        const auto may_go = [&] { return (!paused_ && !held_) || stopping_; };
        changed_.wait(lock, [&] { return may_go() || has_work(); });
        --parked_;
        if (may_go()) return;
        lock.unlock();
        vcpu.requests_.fetch_and(~static_cast<std::uint32_t>(kRunRequest));
        vcpu.run_posted();
        lock.lock();
    }
}

void Machine::wake_parked() {
    const std::scoped_lock lock(mutex_);
    if (paused_ || held_) changed_.notify_all();
}

void Machine::housekeeping() {
    calibrate_clock();
    if (paused_ || held_) return;
    bool all_dead = true;
    for (std::size_t i = 0; i < vcpus_.size(); ++i) {
        VcpuThread& v = *vcpus_[i];
        const std::uint64_t exits = v.exits();
        if (exits != last_exits_[i]) {
            last_exits_[i] = exits;
            v.dead_ = false;
            all_dead = false;
            continue;
        }
        all_dead = all_dead && v.dead();
        v.request(kInspectRequest);
    }
    // Twice in a row: the first may have met a vCPU that another one was just about to wake.
    dead_rounds_ = all_dead ? dead_rounds_ + 1 : 0;
    if (dead_rounds_ >= 2) stop({.kind = StopCause::Kind::kHalted});
    platform_->housekeeping();
}

Result<kvm::ClockReading> Machine::restore_clock(const kvm::VmClockState& state) {
    // Far below where the sums that KVM makes of it end: 73 years.
    constexpr std::uint64_t kFarthest = std::uint64_t{1} << 61;
    if (state.clock_ns > kFarthest) return user_error("the saved clock's time is absurd");
    TRY(vm_->set_clock_ns(state.clock_ns));
    clock_restored_ = true;
    calibrate_clock();
    return vm_->read_clock();
}

void Machine::calibrate_clock() {
    constexpr int kLooks = 5;
    for (int i = 0; i < kLooks; ++i) {
        const auto before = now_ns(CLOCK_MONOTONIC_RAW);
        const auto clock = vm_->clock_ns();
        const auto after = now_ns(CLOCK_MONOTONIC_RAW);
        if (clock) clock_.look(before, *clock, after);
    }
}

std::uint64_t Machine::system_time_ns() const {
    return clock_.theirs(now_ns(CLOCK_MONOTONIC_RAW));
}

std::uint64_t Machine::monotonic_of(std::uint64_t system_ns) const {
    const std::uint64_t now = system_time_ns();
    const std::uint64_t monotonic = now_ns(CLOCK_MONOTONIC);
    if (system_ns <= now) return monotonic;
    const std::uint64_t ahead = system_ns - now;
    constexpr std::uint64_t kFarthest = std::uint64_t{1} << 60;  // 36 years: timer_settime's taste
    return monotonic + std::min(ahead, kFarthest);
}

}  // namespace vmm
