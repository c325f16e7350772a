// A machine: its vCPU threads, its buses, and what ends it.
//
// One thread runs each vCPU; the control thread (the caller of Machine's functions) alone starts,
// pauses and stops them. What the guest's exits mean beyond ports and memory is the business of a
// Platform, which a higher folder brings: the machine knows no hypercalls.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <pthread.h>
#include <string>
#include <thread>
#include <time.h>
#include <vector>

#include "vmm/kvm/kvm.h"
#include "vmm/machine/bus.h"
#include "vmm/machine/clock_match.h"
#include "vmm/machine/machine_memory.h"

namespace vmm {

class Machine;
class VcpuThread;

// Why a machine stopped.
struct StopCause {
    enum class Kind {
        kGuest,      // the guest ended itself; `code` is for the Platform's owner
        kHalted,     // every vCPU that is up halts with interrupts off
        kTriple,     // a vCPU shut down (triple fault)
        kCrashed,    // a vCPU cannot go on
        kRequested,  // stop() by the operator
        kError,      // `error` says what
    };
    Kind kind = Kind::kRequested;
    int code = 0;
    std::optional<Error> error{};
};

// What a machine asks of whoever knows the guest's interface. All calls but housekeeping() come
// from the vCPU's own thread.
class Platform {
  public:
    virtual ~Platform() = default;
    // Before the vCPU's first entry.
    virtual void vcpu_ready(VcpuThread& vcpu) = 0;
    // Before an entry, when somebody asked for this vCPU's attention.
    virtual void attend(VcpuThread& vcpu, std::uint32_t requests) = 0;
    // An exit that is neither port nor memory nor interrupt; or a port access, which comes here
    // first. False: not the platform's.
    virtual bool handle_exit(VcpuThread& vcpu, kvm::ExitReason reason) = 0;
    // An AP got its SIPI and is about to run its first instruction. (Of one that got it as the
    // machine was being paused: from the control thread.)
    virtual void ap_started(VcpuThread& vcpu) = 0;
    // The vCPU is about to stand still in a pause, its last exit completed; and may go on.
    virtual void stands(VcpuThread& vcpu) = 0;
    virtual void goes_on(VcpuThread& vcpu) = 0;
    // The vCPU has not left the guest for a while; registers are fresh.
    virtual void inspect(VcpuThread& vcpu) = 0;
    // A few times a second, on the control thread.
    virtual void housekeeping() = 0;
};

// Reasons for which a vCPU is wanted out of the guest.
enum Request : std::uint32_t {
    kStopRequest = 1u << 0,
    kPauseRequest = 1u << 1,
    kRunRequest = 1u << 2,       // posted functions
    kInspectRequest = 1u << 3,   // housekeeping wants to look
    kTimerRequest = 1u << 4,     // the vCPU's timer expired
    kUpcallRequest = 1u << 5,    // an upcall is to be raised
    kWakeRequest = 1u << 6,      // a condition that the vCPU sleeps for may be true
    kExtintRequest = 1u << 7,    // the PIC's output changed
    kRestoredRequest = 1u << 8,  // it was restored, and is let go for the first time
};

class VcpuThread {
  public:
    VcpuThread(Machine& machine, unsigned index, std::unique_ptr<kvm::Vcpu> vcpu);
    ~VcpuThread();
    VcpuThread(const VcpuThread&) = delete;
    VcpuThread& operator=(const VcpuThread&) = delete;

    unsigned index() const { return index_; }
    kvm::Vcpu& vcpu() { return *vcpu_; }
    Machine& machine() { return machine_; }

    // Any thread: makes the vCPU leave the guest and attend to `requests` before it enters again.
    void request(std::uint32_t requests);
    // Control thread, while the machine is paused: what was asked for has been done.
    void withdraw(std::uint32_t requests) { requests_.fetch_and(~requests); }
    // Any thread: runs `work` on the vCPU's thread before its next entry.
    void post(std::function<void()> work);
    // What is wanted of this vCPU right now; long operations watch it.
    const std::atomic<std::uint32_t>& requests() const { return requests_; }
    bool is_current() const;

    // Own thread: kTimerRequest comes at `deadline` of CLOCK_MONOTONIC, ns; nullopt: never.
    void set_timer(std::optional<std::uint64_t> deadline_ns);

    // Own thread: the vCPU goes down; INIT and SIPI, or set_running(), bring it back.
    void set_down();
    void set_running();

    // Own thread: the vCPU sleeps (in KVM, so that interrupts wake it) until wake() or an
    // interrupt that it can take.
    void sleep();
    void wake();
    // Whether it still sleeps since sleep().
    bool sleeping();

    // Own thread, or the control thread while the machine is paused: an AP that got its SIPI since
    // it was last looked at is announced to the platform.
    void notice_sipi();

    // Control thread, while the machine is paused: all that KVM keeps of the vCPU. `at`: one
    // reading of the clock for all of them.
    Result<kvm::SavedVcpu> save(const kvm::ClockReading& at);
    // Control thread, before start(), once the clock is restored. What was asked of the vCPU before
    // came of others that were restored, and is forgotten, but for posted functions. `asleep`: it
    // sleeps as after sleep().
    Result<void> restore(const kvm::VcpuState& state, const kvm::VcpuTimeState& time, bool asleep,
                         const kvm::ClockReading& now);
    bool restored() const { return restored_; }

    // Housekeeping's view: entries into the guest so far, and what the last inspection found.
    std::uint64_t exits() const { return exits_.load(std::memory_order_relaxed); }
    bool dead() const { return dead_.load(); }

  private:
    friend class Machine;
    void main();
    bool attend();  // false: stop
    bool finish_exit();
    void run_posted();
    bool handle(kvm::ExitReason reason);
    void do_pio();
    void do_mmio();
    void inspect();
    static void on_signal(int signal);

    Machine& machine_;
    const unsigned index_;
    std::unique_ptr<kvm::Vcpu> vcpu_;
    std::thread thread_;
    std::atomic<pthread_t> handle_{};
    std::atomic<bool> running_{false};
    std::atomic<std::uint32_t> requests_{0};
    std::atomic<bool> in_guest_{false};
    std::atomic<std::uint64_t> exits_{0};
    std::atomic<bool> dead_{false};
    bool awaits_sipi_;  // was not running when last seen
    bool restored_ = false;
    bool asleep_ = false;
    std::uint64_t asleep_rip_ = 0;
    timer_t timer_{};
    bool have_timer_ = false;
    std::mutex mutex_;  // guards posted_
    std::vector<std::function<void()>> posted_;
};

class Machine {
  public:
    struct Config {
        unsigned vcpus = 1;
        std::uint32_t own_pages = 0;
        unsigned ioapic_pins = 24;
    };
    static Result<std::unique_ptr<Machine>> create(const kvm::Kvm& kvm, const Config& config);
    ~Machine();

    kvm::Vm& vm() { return *vm_; }
    MachineMemory& memory() { return *memory_; }
    PioBus& pio() { return pio_; }
    MmioBus& mmio() { return mmio_; }
    unsigned vcpus() const { return static_cast<unsigned>(vcpus_.size()); }
    VcpuThread& vcpu(unsigned index) { return *vcpus_[index]; }
    // The APIC id of a vCPU: as on Xen, two apart.
    static std::uint32_t apic_id(unsigned index) { return 2 * index; }

    // Called for each IOAPIC EOI exit and each interrupt window; before start().
    std::function<void(std::uint8_t vector)> on_ioapic_eoi;

    // Starts the vCPU threads; they run until stop(). Paused: as if pause() had come before each
    // vCPU's first instruction, and returns when it has.
    enum class StartAs { kRunning, kPaused };
    Result<void> start(Platform& platform, StartAs as = StartAs::kRunning);
    // Any thread: ends the machine; the first cause counts. vCPU threads leave soon after.
    void stop(StopCause cause);
    bool stopping() const { return stopping_.load(); }
    // Control thread: waits for the threads to leave, after stop().
    StopCause join();
    // Readable as soon as stop() was called.
    int stop_fd() const { return stop_event_.get(); }

    // Control thread: stops all vCPUs at an instruction boundary, with their last exits completed,
    // and lets them go on. The guest's clock does not stop, as Xen's does not: timers that came due
    // meanwhile expire when it goes on. Either may be called again for nothing. A machine that is
    // stopping does not wait to be paused.
    void pause();
    void resume();
    bool paused() const { return paused_; }

    // Any thread, a vCPU's own too: no vCPU enters the guest again before release(), the caller's
    // not after the exit that it handles. Waits for nobody: pause() does, and is needed before
    // anything is looked at. hold_fd() is readable from then until release().
    void hold();
    int hold_fd() const { return hold_event_.get(); }
    // Control thread.
    void release();

    // Control thread, a few times a second: notices a guest that can never run again. A guest that
    // is paused cannot end.
    void housekeeping();

    // The guest's clock for saving, all of its vCPUs with it. Control thread, while paused.
    Result<kvm::ClockReading> read_clock() const { return vm_->read_clock(); }
    // Before start(), and before vCPUs are restored: the clock goes on from there, The
    // reading is what vCPUs are restored with.
    Result<kvm::ClockReading> restore_clock(const kvm::VmClockState& state);

    // The guest's system time (what its clock shows), ns.
    std::uint64_t system_time_ns() const;
    // The CLOCK_MONOTONIC time, ns, of a system time; the same clock as VcpuThread::set_timer.
    std::uint64_t monotonic_of(std::uint64_t system_ns) const;

  private:
    friend class VcpuThread;
    Machine() = default;
    void calibrate_clock();
    void park(VcpuThread& vcpu);
    void wake_parked();
    void await_parked();

    std::unique_ptr<kvm::Vm> vm_;
    std::unique_ptr<MachineMemory> memory_;
    PioBus pio_;
    MmioBus mmio_;
    std::vector<std::unique_ptr<VcpuThread>> vcpus_;
    Platform* platform_ = nullptr;
    kvm::SavedByHost saved_by_host_;
    bool clock_restored_ = false;
    Fd stop_event_;
    std::atomic<bool> stopping_{false};
    Fd hold_event_;
    std::atomic<bool> held_{false};  // changed with mutex_ held
    ClockMatch clock_;               // the guest's system time beside CLOCK_MONOTONIC_RAW
    std::vector<std::uint64_t> last_exits_;
    unsigned dead_rounds_ = 0;

    std::mutex mutex_;  // guards what follows
    StopCause cause_;
    bool stopped_ = false;
    bool paused_ = false;  // written by the control thread alone
    unsigned parked_ = 0;
    std::condition_variable changed_;
};

}  // namespace vmm
