// The kvm-xen transport: KVM_CAP_XEN_HVM catches VMCALL and VMMCALL wherever they stand, feeds
// vcpu_info's clock and the runstate, and injects the callback vector while upcall_pending is set
// (Linux' Documentation/virt/kvm/api.rst, 8.30).
//
// The hypercall page is ours on this transport too, with the CPU vendor's own instruction: KVM
// would fill one without telling us, and the width of shared_info is latched at that moment.
//
// Kept in user space although the kernel could: the timers, because its answers differ from the
// profile's in a corner (a past deadline with the "future" flag). SCHEDOP_poll cannot be had from
// KVM: asked by VMCALL it treats it as a yield, or with its own event delivery on waits for ports
// that are closed. So the page's sched_op stub traps by port on this transport too; a Linux that
// calls inline gets a yield for its poll, which its spinlocks take for an early wake-up. Nothing
// else is answered by KVM: it knows neither a version word of ours, nor ports, nor timers. With a
// trace, the inline call sites that we know trap by port as well; only yields and polls of a kernel
// whose sites we do not know are then missing.
#pragma once

#include "xenshim/transport/xen_platform.h"

namespace xenshim {

class KvmXenTransport final : public XenPlatform {
  public:
    KvmXenTransport(vmm::Machine& machine, PlatformConfig config, std::uint32_t xen_flags);

    std::string_view name() const override { return "kvm-xen"; }
    bool handle_exit(vmm::VcpuThread& vcpu, vmm::kvm::ExitReason reason) override;

  protected:
    vmm::Result<void> set_up_transport() override;
    TrapInstruction trap_instruction() const override { return trap_; }
    void ready_transport(PerVcpu& vcpu) override;
    void raise_callback(PerVcpu& vcpu, std::uint8_t vector) override;
    void place_vcpu_info(PerVcpu& vcpu, std::optional<vmm::Gpa> gpa) override;
    void callback_changed(std::uint64_t value) override;
    void shared_info_moved(std::uint64_t gfn) override;
    void runstate_area_moved(unsigned vcpu) override;
    bool host_keeps_runstate() override { return (xen_flags_ & vmm::kvm::kXenRunstate) != 0; }
    void runstate_update_flag(bool on) override;
    bool place_time_area(unsigned vcpu, std::uint64_t gpa) override;
    void width_latched(bool is_64bit) override;

  private:
    void hypercall(PerVcpu& vcpu);

    const std::uint32_t xen_flags_;
    std::vector<unsigned> calls_with_registers_;  // by vCPU: for how many calls they still come
    TrapInstruction trap_ = kVmcall;
};

}  // namespace xenshim
