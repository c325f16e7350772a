// The kernel's KVM interface as values and functions of ours. Nothing outside this folder includes
// <linux/kvm.h>. Facts: Linux' Documentation/virt/kvm/api.rst.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "vmm/base/fd.h"
#include "vmm/base/result.h"
#include "vmm/kvm/vcpu_state.h"
#include "vmm/memory/address.h"
#include "vmm/memory/page_walk.h"

struct kvm_run;
struct kvm_sregs;

namespace vmm::kvm {

// Capabilities that we ask about, by the names of the API document.
enum class Cap {
    kUserMemory,
    kSignalMsi,
    kSplitIrqchip,
    kX2apicApi,
    kXenHvm,
    kSyncRegs,
    kImmediateExit,
    kUserSpaceMsr,
    kMsrFilter,
    kBinaryStats,
    kMaxVcpus,
    kMaxVcpuId,
    kVcpuEvents,
};

struct CpuidLeaf {
    std::uint32_t function = 0;
    std::uint32_t index = 0;
    bool indexed = false;  // the leaf has sub-leaves and this is one of them
    std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

class Kvm {
  public:
    // Fault kHost when there is no usable /dev/kvm.
    static Result<Kvm> open();
    Kvm(Kvm&&) noexcept;
    Kvm& operator=(Kvm&&) noexcept;
    ~Kvm();

    int fd() const { return fd_.get(); }
    // 0 when absent, else what KVM_CHECK_EXTENSION answers.
    int check(Cap cap) const;
    // Asked of KVM once: it executes CPUID for each leaf, an exit each where the host is a guest.
    Result<std::vector<CpuidLeaf>> supported_cpuid() const;
    // Begins to ask on a thread of its own; supported_cpuid() waits for the answer. It had better
    // be there before there are memory slots to set: they wait for it in the kernel.
    void ask_for_cpuid();

  private:
    struct Question;
    explicit Kvm(Fd fd);
    Fd fd_;
    mutable std::vector<CpuidLeaf> supported_cpuid_;  // empty: no answer yet
    std::unique_ptr<Question> question_;
};

// Flags of KVM_CAP_XEN_HVM.
enum XenFlags : std::uint32_t {
    kXenHypercallMsr = 1u << 0,
    kXenInterceptHypercall = 1u << 1,
    kXenSharedInfo = 1u << 2,
    kXenRunstate = 1u << 3,
    kXenEvtchn2Level = 1u << 4,
    kXenEvtchnSend = 1u << 5,
    kXenRunstateUpdateFlag = 1u << 6,
    kXenPvclockTscUnstable = 1u << 7,
    kXenSharedInfoHva = 1u << 8,
};

struct MsiRoute {
    std::uint32_t gsi = 0;
    std::uint64_t address = 0;
    std::uint32_t data = 0;
};

// What this host's KVM can save of a vCPU.
struct SavedByHost {
    static Result<SavedByHost> of(const Kvm& kvm);

    std::vector<std::uint32_t> msrs;  // ascending; not every one must be readable on every vCPU
    std::size_t xsave_bytes = 4096;
    bool system_registers_2 = false;
    bool xcrs = false;
};

// The guest's clock at an instant, and what else could be read at that instant.
struct ClockReading {
    std::uint64_t clock_ns = 0;
    std::uint64_t realtime_ns = 0;
    std::uint64_t host_tsc = 0;
};

class Vm {
  public:
    static Result<std::unique_ptr<Vm>> create(const Kvm& kvm);

    int fd() const { return fd_.get(); }

    // LAPICs in the kernel, everything else in user space. `reserved_gsis`: pins of our IOAPIC.
    Result<void> create_split_irqchip(unsigned reserved_gsis);
    // `size` 0 removes the slot. `host` must stay mapped while the slot is there.
    Result<void> set_slot(std::uint32_t slot, Gpa base, std::uint64_t size, const void* host);
    // Writes and reads of MSRs in [first, first+count) leave to user space.
    Result<void> catch_msrs(std::uint32_t first, std::uint32_t count);
    // VMCALL and VMMCALL leave to user space, wherever they stand.
    Result<void> enable_xen(std::uint32_t msr);
    Result<void> set_xen_long_mode(bool long_mode);
    // KVM marks a runstate area while it writes it (kXenRunstateUpdateFlag).
    Result<void> set_xen_runstate_update_flag(bool on);
    // Where shared_info is, as a host address (kXenSharedInfoHva) or a gfn; nullopt: nowhere.
    Result<void> set_xen_shared_info_gfn(std::optional<std::uint64_t> gfn);
    // The vector that KVM injects whenever a vCPU has upcall_pending set; 0 none.
    Result<void> set_xen_callback_vector(std::uint8_t vector);
    Result<void> signal_msi(std::uint64_t address, std::uint32_t data);
    Result<void> set_msi_routes(std::span<const MsiRoute> routes);
    Result<std::uint64_t> clock_ns() const;
    Result<void> set_clock_ns(std::uint64_t ns);
    // What all vCPUs of a VM are saved with, and restored with.
    Result<ClockReading> read_clock() const;

  private:
    explicit Vm(Fd fd) : fd_(std::move(fd)) {}
    Fd fd_;
};

enum class ExitReason {
    kInterrupted,  // a signal or immediate_exit
    kAgain,        // an AP got its SIPI
    kPio,
    kMmio,
    kMsrRead,
    kMsrWrite,
    kXenHypercall,
    kIrqWindow,
    kIoapicEoi,
    kHalt,
    kShutdown,       // triple fault
    kInternalError,  // the guest's state is one that KVM cannot run
    kOther,
};

struct PioExit {
    bool is_write;
    std::uint8_t size;
    std::uint16_t port;
    std::uint32_t count;
    std::byte* data;  // count * size bytes
};

struct MmioExit {
    bool is_write;
    std::uint32_t size;
    std::uint64_t address;
    std::uint8_t* data;  // 8 bytes
};

struct MsrExit {
    std::uint32_t index;
    std::uint64_t* data;
    std::uint8_t* error;  // set non-zero: #GP
};

struct XenHypercallExit {
    bool long_mode;
    std::uint8_t cpl;
    std::uint64_t number;
    const std::uint64_t* args;  // 6
    std::uint64_t* result;
};

enum class Reg { kRax, kRbx, kRcx, kRdx, kRsi, kRdi, kRsp, kRbp, kR8, kR9, kR10, kRip, kRflags };

enum class MpState { kRunnable, kUninitialized, kInitReceived, kHalted, kSipiReceived, kOther };

// Where a vCPU starts in flat 32-bit protected mode; all else as set_start_state() says.
struct FlatState {
    std::uint64_t rip = 0;
    std::uint64_t rbx = 0;
};

// Everything that a vCPU's registers can be set to by VCPUOP_initialise.
struct SegmentState {
    std::uint64_t base = 0;
    std::uint32_t limit = 0;
    std::uint16_t attributes = 0;  // as Xen's: type, s, dpl, p in bits 0-7; avl, l, db, g in 8-11
};
struct FullState {
    std::uint64_t gpr[16] = {};  // rax rcx rdx rbx rsp rbp rsi rdi r8..r15
    std::uint64_t rip = 0, rflags = 2;
    std::uint64_t cr0 = 0, cr3 = 0, cr4 = 0, efer = 0;
    SegmentState cs, ds, es, ss, tr;
};

// The whole of the state that `state` stands for: flat 32-bit protected mode without paging, as the
// PVH boot protocol has it. What is not named there is zero.
FullState start_state(const FlatState& state);

// What a vCPU's registers hold, to be looked at.
struct SegmentRegister {
    std::uint16_t selector = 0;
    SegmentState state;
};
struct TableRegister {
    std::uint64_t base = 0;
    std::uint16_t limit = 0;
};
struct Registers {
    std::uint64_t gpr[16] = {};  // in FullState's order
    std::uint64_t rip = 0, rflags = 0;
    std::uint64_t cr0 = 0, cr2 = 0, cr3 = 0, cr4 = 0, cr8 = 0, efer = 0, apic_base = 0;
    SegmentRegister cs, ss, ds, es, fs, gs, tr, ldt;
    TableRegister gdt, idt;
};

// public/vcpu.h's runstate, in guest's system time.
struct XenRunstate {
    std::uint32_t state = 0;
    std::uint64_t since_ns = 0;
    std::array<std::uint64_t, 4> time_ns{};
};

// One vCPU. All functions are for the thread that runs it, or for another one while that one stands
// still (Machine::pause()); but for request_exit(), which is for any.
class Vcpu {
  public:
    // `id` is KVM's vCPU id, which is also the initial APIC id.
    static Result<std::unique_ptr<Vcpu>> create(const Kvm& kvm, const Vm& vm, unsigned id);
    ~Vcpu();
    Vcpu(const Vcpu&) = delete;
    Vcpu& operator=(const Vcpu&) = delete;

    Result<void> set_cpuid(std::span<const CpuidLeaf> leaves);
    Result<void> set_start_state(const FlatState& state);
    Result<void> set_full_state(const FullState& state);

    // Runs the guest until something needs us. With sync regs the registers are then in run_.
    ExitReason run();
    // Lets KVM finish the last exit without running the guest on. kInterrupted: it is finished.
    // Anything else: a string or a large access goes on with a further exit, to be handled.
    ExitReason complete_exit();
    // Makes run() return soon, also when called just before it. Any thread.
    void request_exit();
    void clear_exit_request();

    PioExit pio() const;
    MmioExit mmio() const;
    MsrExit msr() const;
    bool msr_is_write() const;
    XenHypercallExit xen_hypercall() const;
    std::uint8_t ioapic_eoi_vector() const;
    // What the last kInternalError or kOther was about, for the operator.
    std::string describe_exit() const;

    // Whether each exit brings the segment and control registers along. Off, they cost an ioctl at
    // the first look after an exit; on, a copy at every exit (some 700 instructions on kvm_amd).
    void bring_system_registers(bool on);

    // Registers as of the last exit; set() takes effect at the next run().
    std::uint64_t get(Reg reg) const;
    void set(Reg reg, std::uint64_t value);
    PagingState paging() const;
    bool in_64bit_code() const;
    std::uint64_t code_base() const;  // CS's
    unsigned cpl() const;
    bool interrupts_enabled() const;  // RFLAGS.IF as of the last exit
    // Reads the registers again, after run() was not the last thing to touch them.
    void refresh();
    // All of them, from KVM. What set() has changed is there only after complete_exit().
    Result<Registers> registers() const;

    // All that KVM keeps of this vCPU, and back again: between two runs, with the last exit
    // completed, while no vCPU of the VM runs (save() enters KVM, but not the guest). `at`: one
    // reading of the clock for all of them. A vCPU that is restored is new but for its CPUID; when
    // the host refuses anything the reason names it, and the vCPU is of no use any more.
    Result<SavedVcpu> save(const SavedByHost& host, const ClockReading& at);
    Result<void> restore(const SavedByHost& host, const VcpuState& state, const VcpuTimeState& time,
                         const ClockReading& now);

    // Injects an external interrupt at the next entry, if the guest can take one now. Saved state
    // tells of it, as it does not of one that is queued.
    bool can_inject() const;
    bool inject_if_ready(std::uint8_t vector);
    // Queues an external (PIC-style) interrupt; false when one is queued already.
    bool queue_extint(std::uint8_t vector);
    bool ready_for_extint() const;
    void request_interrupt_window(bool on);

    std::optional<std::uint32_t> lapic_register(std::uint32_t offset);
    bool set_lapic_register(std::uint32_t offset, std::uint32_t value);
    std::optional<std::uint64_t> read_msr(std::uint32_t index);
    bool write_msr(std::uint32_t index, std::uint64_t value);
    MpState mp_state();
    void set_mp_state(MpState state);
    std::uint32_t tsc_khz() const;
    // A counter of KVM's binary statistics ("hypercalls"), if this kernel has it and they were
    // opened before the vCPU ran: for opening, KVM takes the lock that a vCPU holds while it runs
    // or halts. Reading takes none; any one thread.
    void open_statistics();
    std::optional<std::uint64_t> statistic(const char* name) const;

    bool set_xen_vcpu_info(std::optional<std::uint64_t> gpa);
    bool set_xen_vcpu_id(std::uint32_t id);
    bool set_xen_runstate(std::optional<std::uint64_t> gpa);
    bool set_xen_vcpu_time(std::optional<std::uint64_t> gpa);
    // How KVM accounted this vCPU's time since the runstate area was given to it.
    std::optional<XenRunstate> xen_runstate() const;
    // The state that the vCPU is in from now on.
    bool set_xen_runstate_now(std::uint32_t state);
    // `since_ns` must be the sum of the times, and not in the future.
    bool set_xen_runstate_data(const XenRunstate& runstate);

  private:
    Result<void> settle_timer();
    Result<void> restore_msrs(const SavedByHost& host, const VcpuState& state);
    Result<void> restore_tsc(const VcpuState& state, const VcpuTimeState& time,
                             const ClockReading& now);
    Vcpu(Fd fd, kvm_run* run, std::size_t run_size, unsigned id);
    // The segment and control registers as of the last exit.
    const kvm_sregs& sregs() const;

    Fd fd_;
    kvm_run* run_;
    mutable bool sregs_fresh_ = false;
    std::size_t run_size_;
    unsigned id_;
    Fd stats_;
    std::map<std::string, std::uint64_t> stat_offsets_;
};

}  // namespace vmm::kvm
