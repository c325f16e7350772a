// PIC, IOAPIC and PIT of an HVM machine, wired as in a PC: the PIT's output goes to the PIC's input
// 0 and the IOAPIC's pin 2. The event callback's line goes to the IOAPIC's pin of its GSI, and to
// the PIC's input of that number if there is one. (An INTx line has a GSI beyond the PIC's inputs.
// What would lead it there is PIIX3's PIRQ routing, which is off until firmware sets it, and we
// have no PIIX3.)
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <mutex>

#include "devices/legacy/ioapic.h"
#include "devices/legacy/pic.h"
#include "devices/legacy/pit.h"
#include "vmm/machine/event_loop.h"
#include "vmm/machine/machine.h"
#include "xenshim/abi/callback.h"
#include "xenshim/transport/xen_platform.h"

namespace vmm::cli {

inline constexpr unsigned kIoapicPins = xenshim::abi::kIoapicPins;

class LegacyChips {
  public:
    // `at_rest`: whether the guest is being saved while the loop runs on. A tick that comes then is
    // taken when that is over: it would be in what is saved already, or be counted as taken and in
    // nothing that is saved. Whoever ends it wakes the loop.
    LegacyChips(Machine& machine, xenshim::XenPlatform& platform, EventLoop& loop,
                const std::atomic<bool>& at_rest);
    LegacyChips(const LegacyChips&) = delete;
    LegacyChips& operator=(const LegacyChips&) = delete;

    // To save and restore them. Of the wires nothing is saved: what they carry follows from the
    // chips, and from the domain for the callback's.
    devices::legacy::Pic& pic() { return pic_; }
    devices::legacy::Ioapic& ioapic() { return ioapic_; }
    devices::legacy::Pit& pit() { return pit_; }
    // Before they are saved, nobody else being at work: what is due by now comes now.
    void settle() { pit_.tick(machine_.system_time_ns()); }
    // Then, too: a guest may have ended a level-triggered interrupt, and KVM not have told yet;
    // what only KVM knows is not saved. `in_flight`: whether the vector is requested or in service
    // at any vCPU. True: an interrupt was ended here, and a new one may have been sent.
    bool end_unreported(const std::function<bool(std::uint8_t vector)>& in_flight);
    // Once all three are restored, and before the callback's line is driven again.
    void restore_wires();

  private:
    class Irq0 final : public IrqLine {
      public:
        explicit Irq0(LegacyChips& chips) : chips_(chips) {}
        void set(bool level) override;

      private:
        LegacyChips& chips_;
    };

    // The chips as the guest reaches them. The callback's line follows a byte of guest memory: it
    // is looked at before each access, so that what the chip answers or does is by the line as it
    // is.
    class GuestsPic final : public PioDevice {
      public:
        explicit GuestsPic(LegacyChips& chips) : chips_(chips) {}
        const char* name() const override { return chips_.pic_.name(); }
        std::span<const PortRange> ranges() const override { return chips_.pic_.ranges(); }
        std::uint32_t read(IoAccess at) override;
        void write(IoAccess at, std::uint32_t value) override;

      private:
        LegacyChips& chips_;
    };
    class GuestsIoapic final : public MmioDevice {
      public:
        explicit GuestsIoapic(LegacyChips& chips) : chips_(chips) {}
        const char* name() const override { return chips_.ioapic_.name(); }
        MmioRange range() const override { return chips_.ioapic_.range(); }
        std::uint64_t read(IoAccess at) override;
        void write(IoAccess at, std::uint64_t value) override;

      private:
        LegacyChips& chips_;
    };

    // A pin is asserted while one of its drivers asserts it: the callback may be given the PIT's.
    enum Driver : std::uint8_t { kPit = 1, kCallback = 2 };
    static constexpr unsigned kPitPin = 2;
    void drive_pin(unsigned pin, Driver driver, bool asserted);
    void drive_callback(unsigned gsi, bool asserted);
    void send(const devices::legacy::MsiMessage& message);
    void update_routes();
    void arm();

    Machine& machine_;
    xenshim::CallbackLine& callback_line_;
    std::mutex routes_mutex_, arm_mutex_, pins_mutex_;
    std::array<std::uint8_t, kIoapicPins> drivers_{};  // of each pin, guarded by pins_mutex_
    std::atomic<unsigned> callback_gsi_{0};            // where the callback was driven last
    devices::legacy::Pic pic_;
    devices::legacy::Ioapic ioapic_;
    GuestsPic guests_pic_{*this};
    GuestsIoapic guests_ioapic_{*this};
    Irq0 irq0_;
    devices::legacy::Pit pit_;
    Fd timer_;
};

}  // namespace vmm::cli
