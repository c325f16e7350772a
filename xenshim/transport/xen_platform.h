// Xen's side of a machine: carries a Domain on a vmm::Machine. What both transports share is here;
// how a guest's hypercalls reach us and how its upcalls are delivered is for the two classes that
// derive from this one (portable.h, kvm_xen.h).
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "vmm/machine/machine.h"
#include "vmm/memory/page_walk.h"
#include "xenshim/domain/domain.h"
#include "xenshim/hypercall/dispatcher.h"
#include "xenshim/trace/writer.h"
#include "xenshim/transport/hypercall_page.h"

namespace xenshim {

// A place in a kernel's text where it makes hypercalls by itself (VMCALL or VMMCALL), found when
// the kernel was loaded. Recorded on every transport: it is the VM's state.
struct InlineCallSite {
    vmm::Gpa at;
    bool vmcall = false;  // which of the two instructions the kernel had there
};

struct PlatformConfig {
    DomainConfig domain;
    PreemptPolicy preempt;
    std::uint32_t cpuid_base = 0x40000000;
    std::vector<InlineCallSite> call_sites;
    vmm::kvm::FlatState start;       // of vCPU 0
    bool set_mtrrs = false;          // as the PVH builder does: default type write-back
    trace::Writer* trace = nullptr;  // every hypercall goes there; null: none does
};

class XenPlatform : public vmm::Platform, protected Ports {
  public:
    ~XenPlatform() override = default;

    Domain& domain() { return *domain_; }
    virtual std::string_view name() const = 0;
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

    // The PIC of an HVM machine: its INTR goes to vCPU 0. `acknowledge` is the INTA cycle.
    struct Pic {
        std::function<bool()> output;
        std::function<int()> acknowledge;
    };
    void set_pic(Pic pic) { pic_ = std::move(pic); }
    // Any thread.
    void pic_output_changed() { machine_.vcpu(0).request(vmm::kExtintRequest); }
    // The vCPU's own thread: whether its hypercalls are recorded, if there is a trace at all. They
    // are from the start.
    void set_recording(unsigned vcpu, bool on);
    // Control thread: when each of its rounds of housekeeping is over.
    std::function<void()> on_housekeeping;

    // ---- Platform -------------------------------------------------------------------------------
    void vcpu_ready(vmm::VcpuThread& vcpu) override;
    void attend(vmm::VcpuThread& vcpu, std::uint32_t requests) override;
    void ap_started(vmm::VcpuThread& vcpu) override;
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
        vmm::VcpuThread& thread;
        Access access;
        Preemption preemption;
        trace::Recorder* recorder = nullptr;
        std::uint64_t continuations = 0;  // own thread
        std::optional<std::uint64_t> block_deadline_ns;
        bool blocked = false;
        std::array<std::uint64_t, 64> known_rip{};  // linear addresses right after a port trap
    };

    PerVcpu& per_vcpu(unsigned index) { return *vcpus_[index]; }
    vmm::Machine& machine() { return machine_; }
    const PlatformConfig& config() const { return config_; }
    std::uint8_t callback_vector() const { return callback_vector_.load(); }

    // Runs a hypercall that a transport decoded; the reply is the transport's to write.
    abi::Reply run(PerVcpu& vcpu, const abi::Request& request) {
        vcpu.access.begin();
        const abi::Reply reply = vcpu.recorder == nullptr
                                     ? run_hypercall(*domain_, vcpu.access, vcpu.preemption,
                                                     vcpu.thread.index(), request)
                                     : run_traced(vcpu, request);
        if (std::holds_alternative<abi::Reissue>(reply)) ++vcpu.continuations;
        return reply;
    }
    abi::Reply run_traced(PerVcpu& vcpu, const abi::Request& request);
    // Makes the recorded call sites of the guest's kernel trap by kPortTrap.
    vmm::Result<void> trap_call_sites();
    // Block{}: puts the vCPU to sleep; registers have their final values.
    void block(PerVcpu& vcpu, const abi::Block& until);

    // ---- for the transports ---------------------------------------------------------------------
    virtual vmm::Result<void> set_up_transport() = 0;
    virtual void ready_transport(PerVcpu&) {}
    // upcall_pending is set and the guest's callback is this vector; own thread.
    virtual void raise_callback(PerVcpu& vcpu, std::uint8_t vector) = 0;
    // vcpu_info is (now) at `gpa`: feed it the clock. Own thread.
    virtual void place_vcpu_info(PerVcpu& vcpu, std::optional<vmm::Gpa> gpa) = 0;
    // An AP was reset or started: what INIT took away is put back. Own thread.
    virtual void restart_clock(PerVcpu&) {}
    virtual void inspect_transport(PerVcpu&) {}
    virtual void housekeeping_transport() {}

    // A port access that is a hypercall made by kPortTrap: runs it. False: it is a device's.
    bool handle_trap(PerVcpu& vcpu);
    // An exit for the hypercall page's MSR: fills the page and latches the width.
    void handle_msr(PerVcpu& vcpu);

    // Delivers the PIC's interrupt as ExtINT.
    void deliver_extint(PerVcpu& vcpu);

    // ---- Ports ----------------------------------------------------------------------------------
    std::byte* own_page(std::uint32_t page) override;
    bool show_own_page(std::uint64_t gfn, std::uint32_t page) override;
    void hide_own_page(std::uint64_t gfn) override;
    bool in_slot(std::uint64_t gfn) const override;
    bool free_pages(std::uint64_t gfn, std::uint64_t count) override;
    bool add_ram_page(std::uint64_t gfn) override;
    void remove_ram_page(std::uint64_t gfn) override;
    std::uint64_t gfn_limit() const override { return gfn_limit_; }
    void upcall(unsigned vcpu) override;
    void wake(unsigned vcpu) override;
    void callback_changed(std::uint64_t value) override;
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

  private:
    static bool is_trap(PerVcpu& vcpu, std::uint64_t rip);
    void run_timers(PerVcpu& vcpu);
    void send_vector(unsigned vcpu, std::uint8_t vector);
    void check_block(PerVcpu& vcpu, bool event);

    vmm::Machine& machine_;
    const PlatformConfig config_;
    std::uint64_t gfn_limit_ = std::uint64_t{1} << 36;
    std::unique_ptr<Domain> domain_;
    std::vector<std::unique_ptr<PerVcpu>> vcpus_;
    std::atomic<std::uint8_t> callback_vector_{0};
    std::atomic<std::uint64_t> shared_info_gfn_{kNoGfn};
    Pic pic_;
    unsigned reclaim_rounds_ = 0;
};

}  // namespace xenshim
