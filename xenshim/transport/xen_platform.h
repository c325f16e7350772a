// Xen's side of a machine: carries a Domain on a vmm::Machine. What both transports share is here;
// how a guest's hypercalls reach us and how its upcalls are delivered is for the two classes that
// derive from this one (portable.h, kvm_xen.h).
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/kvm/cpu_model.h"
#include "vmm/machine/machine.h"
#include "vmm/memory/page_walk.h"
#include "xenshim/domain/domain.h"
#include "xenshim/hypercall/dispatcher.h"
#include "xenshim/trace/writer.h"
#include "xenshim/transport/hypercall_page.h"
#include "xenshim/transport/vcpu_moved.h"

namespace xenshim {

// A place in a kernel's text where it makes hypercalls by itself (VMCALL or VMMCALL): found when
// the kernel was loaded, or learnt when it made one there. It is the VM's state: on a host that
// cannot hand the instruction over, all known ones are made to trap.
struct InlineCallSite {
    vmm::Gpa at;
    bool vmcall = false;  // which of the two instructions the kernel had there
};

struct PlatformConfig {
    DomainConfig domain;
    PreemptPolicy preempt;
    std::uint32_t cpuid_base = 0x40000000;
    std::optional<vmm::kvm::CpuModel> cpu;  // what a new guest is told of; none: all there is
    std::vector<InlineCallSite> call_sites;
    // Of vCPU 0. None: each vCPU's state comes by restore_vcpu().
    std::optional<vmm::kvm::FlatState> start = vmm::kvm::FlatState{};
    bool set_mtrrs = false;          // as the PVH builder does: default type write-back
    trace::Writer* trace = nullptr;  // every hypercall goes there; null: none does
};

class XenPlatform : public vmm::Platform, protected Ports {
  public:
    ~XenPlatform() override = default;

    Domain& domain() { return *domain_; }
    virtual std::string_view name() const = 0;
    // All that are known by now. While no vCPU runs.
    std::vector<InlineCallSite> call_sites() const;
    // The linear address of one that was met and cannot be among them.
    std::optional<std::uint64_t> unknown_call_site() const;
    static constexpr std::size_t kMostCallSites = 1024;

    // How many hypercalls were stopped before their end. After the vCPUs' threads have ended.
    std::uint64_t continuations() const {
        std::uint64_t sum = 0;
        for (const auto& vcpu : vcpus_) {
            sum += vcpu->continuations;
        }
        return sum;
    }

    // Everything that has to be in place before the first vCPU runs.
    vmm::Result<void> set_up(const vmm::kvm::Kvm& kvm);

    // The guest's wall clock as this host's. A restored guest's too: its own clock goes on from
    // where it stood.
    vmm::Result<void> set_wall_clock();

    // The PIC of an HVM machine: its INTR goes to vCPU 0. `acknowledge` is the INTA cycle.
    struct Pic {
        std::function<bool()> output;
        std::function<int()> acknowledge;
    };
    void set_pic(Pic pic) { pic_ = std::move(pic); }
    // How the event callback's line reaches the chips (CallbackLine). Set before the vCPUs run.
    struct CallbackWire {
        std::function<void(unsigned gsi, bool asserted)> drive;
        // Whether the I/O APIC waits for an EOI before it will send the line's next interrupt.
        std::function<bool()> awaits_eoi;
        // Whether an interrupt of that line comes to the vCPU: none of the chips masks it.
        std::function<bool(unsigned gsi)> is_open;
    };
    void set_callback_wire(CallbackWire wire) { callback_wire_ = std::move(wire); }
    // Any thread.
    void pic_output_changed() { machine_.vcpu(0).request(vmm::kExtintRequest); }
    // The vCPU's own thread: whether its hypercalls are recorded, if there is a trace at all. They
    // are from the start.
    void set_recording(unsigned vcpu, bool on);
    // Control thread: when each of its rounds of housekeeping is over.
    std::function<void()> on_housekeeping;
    // The vCPU's own thread: a hypercall was stopped before its end, and will be made again with
    // this. Set before the vCPUs run, by tests that want the guest just there.
    std::function<void(unsigned vcpu, const abi::Reissue& with)> on_stop;

    // ---- saved and restored: control thread -----------------------------------------------------

    // While the machine is paused, before the domain's state and vCPUs are saved: events that came
    // reach their vCPUs, and the domain hears what the host knows of those.
    void settle();
    // What `at` is: vmm::Machine::read_clock().
    vmm::Result<VcpuMoved> save_vcpu(unsigned vcpu, const vmm::kvm::ClockReading& at);
    // After set_up(), and once the domain is restored, the machine has heard of that
    // (Domain::tell_machine()) and the clock is restored; before the machine starts. Which features
    // this host lacks, by name: with any the vCPU is refused.
    std::vector<std::string> missing_features(unsigned vcpu,
                                              const vmm::kvm::CpuidState& saved) const;
    vmm::Result<void> restore_vcpu(unsigned vcpu, const VcpuMoved& moved,
                                   const vmm::kvm::ClockReading& now);

    // ---- Platform -------------------------------------------------------------------------------
    void vcpu_ready(vmm::VcpuThread& vcpu) override;
    void attend(vmm::VcpuThread& vcpu, std::uint32_t requests) override;
    void ap_started(vmm::VcpuThread& vcpu) override;
    void stands(vmm::VcpuThread& vcpu) override;
    void goes_on(vmm::VcpuThread& vcpu) override;
    void inspect(vmm::VcpuThread& vcpu) override;
    void housekeeping() override;

  protected:
    XenPlatform(vmm::Machine& machine, PlatformConfig config);

    // The caller's memory through its own page tables, as of the exit being handled.
    class Access final : public GuestAccess {
      public:
        Access(vmm::GuestMemory& memory, vmm::kvm::Vcpu& vcpu) : memory_(memory), vcpu_(vcpu) {}
        // A new call begins: nothing that was learnt of the guest's page tables holds any more.
        void begin() { linear_.reset(); }
        // Whether this call has looked at the caller's memory.
        bool used() const { return linear_.has_value(); }
        bool read(vmm::Gva at, std::span<std::byte> to) override;
        bool write(vmm::Gva at, std::span<const std::byte> from) override;
        std::optional<vmm::Gpa> translate(vmm::Gva at) override;
        std::optional<vmm::Gpa> translate_code(vmm::Gva at);

      private:
        vmm::LinearMemory& linear() {
            if (!linear_) linear_.emplace(memory_, vcpu_.paging());
            return *linear_;
        }

        vmm::GuestMemory& memory_;
        vmm::kvm::Vcpu& vcpu_;
        std::optional<vmm::LinearMemory> linear_;
    };

    struct PerVcpu {
        PerVcpu(vmm::Machine& machine, unsigned index, const PreemptPolicy& preempt)
            : thread(machine.vcpu(index)),
              access(machine.memory().guest(), thread.vcpu()),
              preemption(thread.requests(), preempt) {}
        // What a long call is left for: not a wake of one that sleeps, nor, as on Xen, what cannot
        // be delivered because the guest takes no interrupts.
        void choose_heeded() {
            constexpr std::uint32_t kInterrupts = vmm::kUpcallRequest | vmm::kExtintRequest;
            preemption.heed(
                ~(vmm::kWakeRequest | (thread.vcpu().interrupts_enabled() ? 0u : kInterrupts)));
        }
        vmm::VcpuThread& thread;
        Access access;
        Preemption preemption;
        trace::Recorder* recorder = nullptr;
        std::uint64_t continuations = 0;  // own thread
        std::optional<std::uint64_t> block_deadline_ns;
        bool blocked = false;
        vmm::kvm::CpuidState cpuid;                  // as given to KVM
        bool upcall_injected = false;                // saved state has an upcall on its way
        bool upcall_at_window = false;               // to be raised then, if it is still due
        std::array<std::uint64_t, 64> known_rip{};   // linear addresses right after a port trap
        std::array<std::uint64_t, 64> learnt_rip{};  // of instructions that were looked at
    };

    PerVcpu& per_vcpu(unsigned index) { return *vcpus_[index]; }
    vmm::Machine& machine() { return machine_; }
    const PlatformConfig& config() const { return config_; }
    std::uint8_t callback_vector() const { return callback_vector_.load(); }

    // Runs a hypercall that a transport decoded; the reply is the transport's to write.
    abi::Reply run(PerVcpu& vcpu, const abi::Request& request) {
        vcpu.access.begin();
        vcpu.choose_heeded();
        const abi::Reply reply = vcpu.recorder == nullptr
                                     ? run_hypercall(*domain_, vcpu.access, vcpu.preemption,
                                                     vcpu.thread.index(), request)
                                     : run_traced(vcpu, request);
        if (const auto* again = std::get_if<abi::Reissue>(&reply)) {
            ++vcpu.continuations;
            if (on_stop) on_stop(vcpu.thread.index(), *again);
        }
        return reply;
    }
    abi::Reply run_traced(PerVcpu& vcpu, const abi::Request& request);
    // Makes the recorded call sites of the guest's kernel trap by kPortTrap.
    vmm::Result<void> trap_call_sites();
    // The vCPU stands at an instruction of its own that made a hypercall.
    void learn_call_site(PerVcpu& vcpu) {
        const std::uint64_t rip = vcpu.thread.vcpu().get(vmm::kvm::Reg::kRip);
        auto& slot = vcpu.learnt_rip[(rip >> 2) % vcpu.learnt_rip.size()];
        if (slot == rip) return;
        slot = rip;
        look_at_call_site(vcpu);
    }
    // Block{}: puts the vCPU to sleep; registers have their final values.
    void block(PerVcpu& vcpu, const abi::Block& until);

    // ---- for the transports ---------------------------------------------------------------------
    virtual vmm::Result<void> set_up_transport() = 0;
    virtual void ready_transport(PerVcpu&) {}
    // upcall_pending is set and the guest's callback is this vector; own thread.
    virtual void raise_callback(PerVcpu& vcpu, std::uint8_t vector) = 0;
    // The same for a vCPU that was restored: it may have taken the upcall already, and not have
    // cleared the flag yet. Own thread.
    virtual void raise_again(PerVcpu& vcpu, std::uint8_t vector) { raise_callback(vcpu, vector); }
    // vcpu_info is (now) at `gpa`: feed it the clock. Own thread.
    virtual void place_vcpu_info(PerVcpu& vcpu, std::optional<vmm::Gpa> gpa) = 0;
    // An AP was reset or started: what INIT took away is put back. Own thread.
    virtual void restart_clock(PerVcpu&) {}
    // What only this transport knows, to and from what every transport saves.
    virtual void settle_transport(PerVcpu&) {}
    virtual void save_transport(PerVcpu&, vmm::kvm::VcpuState&) {}
    virtual vmm::Result<void> restore_transport(PerVcpu&) { return {}; }
    // Where the host keeps the runstate: the vCPU stands still from now on, or goes on. Own thread.
    virtual void account_transport(PerVcpu&, Runstate::State) {}
    virtual void inspect_transport(PerVcpu&) {}
    virtual void housekeeping_transport() {}

    // A port access that is a hypercall made by kPortTrap: runs it. False: it is a device's.
    bool handle_trap(PerVcpu& vcpu);
    // An exit for the hypercall page's MSR: fills the page and latches the width.
    vmm::Result<void> begin_at(const vmm::kvm::FlatState& start);
    void handle_msr(PerVcpu& vcpu);

    // Ends a HLT that an interrupt can end.
    static void leave_hlt(PerVcpu& vcpu);
    // Delivers the PIC's interrupt as ExtINT.
    void deliver_extint(PerVcpu& vcpu);

    // ---- Ports ----------------------------------------------------------------------------------
    std::byte* own_page(std::uint32_t page) override;
    bool show_own_page(std::uint64_t gfn, std::uint32_t page) override;
    void hide_own_page(std::uint64_t gfn) override;
    bool in_slot(std::uint64_t gfn) const override;
    bool free_pages(std::uint64_t gfn, std::uint64_t count) override;
    void clear_pages(std::uint64_t gfn, std::uint64_t count) override;
    bool add_ram_page(std::uint64_t gfn) override;
    void remove_ram_page(std::uint64_t gfn) override;
    std::uint64_t gfn_limit() const override { return gfn_limit_; }
    void upcall(unsigned vcpu) override;
    void wake(unsigned vcpu) override;
    void callback_changed(std::uint64_t value) override;
    void drive_callback_line(unsigned gsi, bool asserted) override {
        if (callback_wire_.drive) callback_wire_.drive(gsi, asserted);
    }
    void upcall_vector_changed(unsigned vcpu, std::uint8_t vector) override;
    void vcpu_info_moved(unsigned vcpu) override;
    void shared_info_moved(std::uint64_t gfn) override;
    void runstate_area_moved(unsigned vcpu) override;
    bool place_time_area(unsigned, std::uint64_t) override { return false; }
    void width_latched(bool is_64bit) override;
    void timers_changed(unsigned vcpu) override;
    void start_vcpu(unsigned vcpu, const VcpuContext* context) override;
    void stop_vcpu(unsigned vcpu) override;
    void send_nmi(unsigned vcpu) override;
    std::uint64_t system_time_ns() override { return machine_.system_time_ns(); }
    void shutdown(std::uint8_t reason) override;
    void suspend() override { machine_.hold(); }

  private:
    static bool is_trap(PerVcpu& vcpu, std::uint64_t rip);
    void look_at_call_site(PerVcpu& vcpu);
    void run_timers(PerVcpu& vcpu);
    void send_vector(unsigned vcpu, std::uint8_t vector);
    void check_block(PerVcpu& vcpu, bool event);
    bool is_told(const PerVcpu& vcpu) const;
    void ready_restored(PerVcpu& vcpu);

    vmm::Machine& machine_;
    const PlatformConfig config_;
    std::uint64_t gfn_limit_ = std::uint64_t{1} << 36;
    std::unique_ptr<Domain> domain_;
    std::vector<std::unique_ptr<PerVcpu>> vcpus_;
    std::atomic<std::uint8_t> callback_vector_{0};
    std::atomic<unsigned> callback_gsi_{0};
    std::atomic<std::uint64_t> shared_info_gfn_{kNoGfn};
    Pic pic_;
    CallbackWire callback_wire_;
    unsigned reclaim_rounds_ = 0;
    mutable std::mutex sites_mutex_;  // guards what follows
    std::optional<std::uint64_t> unknown_;
    std::vector<InlineCallSite> learnt_;  // besides those of the configuration
};

}  // namespace xenshim
