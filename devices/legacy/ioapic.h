// The 82093AA I/O APIC (Intel 290566), with as many pins as the machine wants: 24 as the real one,
// or 48 as Xen gives its HVM guests. It reports version 0x11, as Xen's does, so there is no EOI
// register: EOIs arrive as broadcasts from the local APICs, which KVM's split irqchip hands out as
// exits. Interrupts leave as MSI messages.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/base/saved.h"
#include "vmm/machine/mmio_device.h"

namespace devices::legacy {

// An interrupt message as Intel's SDM, volume 3, "Message Signalled Interrupts" lays it out.
struct MsiMessage {
    std::uint64_t address = 0;
    std::uint32_t data = 0;
    bool operator==(const MsiMessage&) const = default;
};

struct IoapicState {
    static constexpr vmm::saved::Section kSection{"legacy.ioapic", 1};

    std::uint8_t id = 0;
    std::uint8_t selected = 0;           // IOREGSEL
    std::uint64_t lines = 0;             // one bit for each pin: asserted
    std::vector<std::uint64_t> entries;  // redirection table, Remote IRR included

    bool operator==(const IoapicState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [id, selected, lines, entries] = self;
        return std::tuple{
            vmm::saved::field(1, "id", id), vmm::saved::field(2, "selected", selected),
            vmm::saved::field(3, "lines", lines), vmm::saved::field(4, "entries", entries)};
    }
};

class Ioapic final : public vmm::MmioDevice {
  public:
    using State = IoapicState;
    static constexpr vmm::Gpa kBase{0xfec00000};
    static constexpr unsigned kMaxPins = 64;

    // What a pin's interrupt looks like at present. KVM needs the messages of level-triggered
    // pins as GSI routes, masked or not: it is from them that it knows whose EOI to report.
    struct Route {
        std::optional<MsiMessage> message;  // none: ExtINT, or a reserved delivery mode
        bool masked = true;
        bool level_triggered = false;
        bool operator==(const Route&) const = default;
    };

    // What the IOAPIC asks of its machine. Both are called without a lock held.
    struct Wiring {
        std::function<void(const MsiMessage&)> send;
        // route(pin) is new. Called before any message that goes out by the new route. Two threads
        // may call it at once: the callee serialises and asks route(pin) what holds now.
        std::function<void(unsigned pin)> route_changed;
    };

    Ioapic(unsigned pins, Wiring wiring);

    const char* name() const override { return "ioapic"; }
    vmm::MmioRange range() const override { return {.base = kBase, .size = 0x1000}; }
    std::uint64_t read(vmm::IoAccess at) override;
    void write(vmm::IoAccess at, std::uint64_t value) override;

    unsigned pins() const { return pins_; }

    // Drives a pin. The level means "asserted": a redirection entry's polarity bit is stored for
    // the guest to read back and has no effect, as our wires carry no voltage.
    void set_irq(unsigned pin, bool asserted);

    // A local APIC's EOI broadcast: ends the level-triggered interrupts of that vector, and sends
    // again those whose pin is still asserted.
    void eoi(std::uint8_t vector);

    Route route(unsigned pin) const;
    // Whether a level-triggered interrupt of this pin was sent and its EOI has not come (Remote
    // IRR).
    bool in_service(unsigned pin) const;

    // Pin 0 is where the 8259A's INTR arrives. True while it is unmasked and in ExtINT mode, that
    // is while the PIC reaches the processors through this chip (MultiProcessor Specification 1.4,
    // 3.6.2.2, "Virtual Wire Mode via I/O APIC").
    bool virtual_wire() const;

    State snapshot() const;
    // Refuses what no chip with as many pins can hold, and is then as it was. Sends nothing (what
    // was sent is the local APICs' state) and announces every pin's route.
    vmm::Expected<void, std::string> adopt(const State& state);

  private:
    // What to do once the lock is released.
    struct Actions {
        std::vector<unsigned> changed;
        std::vector<MsiMessage> messages;
    };

    std::uint32_t read_register_locked() const;
    Actions write_register_locked(std::uint32_t value);
    void write_entry_locked(unsigned pin, std::uint64_t entry, Actions& actions);
    void assert_level_locked(unsigned pin, Actions& actions);
    void act(const Actions& actions) const;

    const unsigned pins_;
    const Wiring wiring_;
    mutable std::mutex mutex_;
    std::uint8_t id_ = 0;
    std::uint8_t selected_ = 0;
    std::uint64_t lines_ = 0;
    std::vector<std::uint64_t> entries_;
};

}  // namespace devices::legacy
