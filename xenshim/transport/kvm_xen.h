// The kvm-xen transport: KVM_CAP_XEN_HVM catches VMCALL and VMMCALL wherever they stand, feeds
// vcpu_info's clock and the runstate, and injects the callback vector while upcall_pending is set
// (Linux' Documentation/virt/kvm/api.rst, 8.30).
//
// The hypercall page and the inline call sites that we know trap by port, as on the portable
// transport (hypercall_page.h): those exits are cheaper, and KVM answers some hypercalls itself in
// a way that is not the profile's. SCHEDOP_poll it takes for a yield, or with its own event
// delivery on waits for ports that are closed; a timer whose deadline is past and which has the
// "future" flag it refuses. KVM_EXIT_XEN brings what a kernel calls at places that we do not know,
// where yields and polls remain KVM's.
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
    void ready_transport(PerVcpu& vcpu) override;
    void settle_transport(PerVcpu& vcpu) override;
    vmm::Result<void> restore_transport(PerVcpu& vcpu) override;
    void raise_callback(PerVcpu& vcpu, std::uint8_t vector) override;
    void place_vcpu_info(PerVcpu& vcpu, std::optional<vmm::Gpa> gpa) override;
    void callback_changed(std::uint64_t value) override;
    void shared_info_moved(std::uint64_t gfn) override;
    void runstate_area_moved(unsigned vcpu) override;
    void account_transport(PerVcpu& vcpu, Runstate::State state) override;
    bool host_keeps_runstate() override { return (xen_flags_ & vmm::kvm::kXenRunstate) != 0; }
    void runstate_update_flag(bool on) override;
    bool place_time_area(unsigned vcpu, std::uint64_t gpa) override;
    void width_latched(bool is_64bit) override;

  private:
    void hypercall(PerVcpu& vcpu);

    const std::uint32_t xen_flags_;
    std::vector<unsigned> calls_with_registers_;  // by vCPU: for how many calls they still come
};

}  // namespace xenshim
