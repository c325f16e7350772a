// The portable transport: for a KVM that knows nothing of Xen.
//
// The hypercall page's stubs, and the inline call sites of a kernel that we loaded, trap by
// kPortTrap (hypercall_page.h).
//
// Upcalls by callback vector are no LAPIC interrupts: they need no EOI and do not care whether
// LINT0 is masked. When the guest can take one now it is injected; when it cannot, it is queued as
// a PIC's interrupt would be, with LVT0 opened for it (see raise_callback).
#pragma once

#include <optional>
#include <vector>

#include "xenshim/transport/xen_platform.h"

namespace xenshim {

class PortableTransport final : public XenPlatform {
  public:
    PortableTransport(vmm::Machine& machine, PlatformConfig config);

    std::string_view name() const override { return "portable"; }
    bool handle_exit(vmm::VcpuThread& vcpu, vmm::kvm::ExitReason reason) override;

  protected:
    vmm::Result<void> set_up_transport() override;
    void raise_callback(PerVcpu& vcpu, std::uint8_t vector) override;
    void raise_again(PerVcpu& vcpu, std::uint8_t vector) override;
    void place_vcpu_info(PerVcpu& vcpu, std::optional<vmm::Gpa> gpa) override;
    void restart_clock(PerVcpu& vcpu) override;
    void save_transport(PerVcpu& vcpu, vmm::kvm::VcpuState& state) override;
    void inspect_transport(PerVcpu& vcpu) override;
    void housekeeping_transport() override;

  private:
    // What this transport remembers of one vCPU.
    struct Extra {
        std::optional<std::uint64_t> clock_msr;   // what the clock's MSR should hold
        std::optional<std::uint32_t> guest_lvt0;  // the guest's own, while ours is in its place
    };

    void open_window(PerVcpu& vcpu);
    void open_lvt0(PerVcpu& vcpu);
    void close_lvt0(PerVcpu& vcpu);

    std::vector<Extra> extra_;
};

}  // namespace xenshim
