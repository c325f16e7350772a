// The event callback as an interrupt line: HVM_PARAM_CALLBACK_IRQ of the kinds GSI and PCI INTx.
// Follows hvm_set_callback_irq_level and its neighbours of Xen 4.17's arch/x86/hvm/irq.c.
//
// The line is asserted while vCPU 0's upcall_pending is set. That is a byte of guest memory: that
// it was set is told by whoever sets it; that the guest has cleared it is only seen when somebody
// looks. Xen looks at each exit. Here it is enough to look before an interrupt controller is asked
// or told anything, an EOI being one of these: nothing else shows a guest whether a line is
// asserted.
//
// Nothing here outlives a save but what follows from the parameter, upcall_pending and the chips.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

#include "xenshim/domain/params.h"
#include "xenshim/domain/ports.h"
#include "xenshim/domain/shared_info.h"

namespace xenshim {

// All functions: any thread, with no lock of the domain's held.
class CallbackLine {
  public:
    // `has_controllers`: there is a PIC and an I/O APIC; else there is no line, ever.
    CallbackLine(Ports& ports, const SharedInfo& shared_info, const Params& params,
                 bool has_controllers)
        : ports_(ports),
          shared_info_(shared_info),
          params_(params),
          follows_(has_controllers),
          has_controllers_(has_controllers) {}

    // CALLBACK_IRQ was set. A line that is asserted moves along.
    void reroute();
    // In a VM that was restored: the chips have seen what the line was, which may be asserted yet,
    // or due to fall, or due to rise. From here on it is as it should be.
    void take_up(bool has_own_vector);
    // upcall_pending of vCPU 0 was set, and it has no vector of its own.
    void raise();
    // Lowers the line if the guest has cleared upcall_pending. Cheap while it is low.
    void look() {
        if (asserted_.load(std::memory_order_relaxed)) lower_if_cleared();
    }

  private:
    void lower_if_cleared();
    void lower_locked();
    void drive_locked(bool asserted);

    Ports& ports_;
    const SharedInfo& shared_info_;
    const Params& params_;
    // Not while the callback is a vector. While it is nothing at all, too: a callback that is set
    // later finds what has come before.
    std::atomic<bool> follows_;
    std::atomic<bool> asserted_{false};  // changed with mutex_ held
    const bool has_controllers_;
    std::mutex mutex_;      // guards what follows, and driving the line
    std::uint8_t gsi_ = 0;  // 0: nowhere
    std::uint32_t rises_ = 0;
};

}  // namespace xenshim
