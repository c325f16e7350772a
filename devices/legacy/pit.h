// The PC's 8254 interval timer at ports 0x40-0x43 and system control port B at 0x61, which holds
// counter 2's gate and shows its output. After Intel's 8254 datasheet (231164) and, for port 0x61,
// the 82371SB (PIIX3) datasheet (290550), "NMI Status and Control Register". Counter 0's output is
// IRQ 0.
//
// IRQ 0 is driven by the rising edges of OUT 0 alone. The low part of a period of modes 2 to 5 is
// shown as an instant just before the rising edge: only the edge means anything to the interrupt
// controllers, and a vCPU that got no processor time for half a period would else lose its tick.
//
// Missed ticks. When the host is late and several periods have passed, one edge is delivered and
// the rest are counted (missed_ticks), never made up for: Xen's "no missed ticks pending" timer
// mode, which suits guests that correct their time from another clock. In the periodic modes edges
// are also never closer than kMinimumSpacingNs, so that a period of two ticks costs the host no
// more than 10000 wake-ups a second.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <tuple>

#include "devices/legacy/pit_counter.h"
#include "vmm/base/result.h"
#include "vmm/base/saved.h"
#include "vmm/machine/irq_line.h"
#include "vmm/machine/pio_device.h"

namespace devices::legacy {

// Times are relative to the moment of the snapshot, so a state can be adopted under a clock that
// shows anything else; the PIT's time stands still in between.
struct PitState {
    static constexpr vmm::saved::Section kSection{"legacy.pit", 1};

    std::array<PitCounterState, 3> counters;
    std::uint8_t control_b = 0;      // port 0x61, bits 1 to 3; bit 0 is counter 2's gate
    std::uint8_t refresh_phase = 0;  // where in the refresh toggle's period of 36 ticks we are

    bool operator==(const PitState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [counters, control_b, refresh_phase] = self;
        return std::tuple{vmm::saved::field(1, "counters", counters),
                          vmm::saved::field(2, "control_b", control_b),
                          vmm::saved::field(3, "refresh_phase", refresh_phase)};
    }
};

class Pit final : public vmm::PioDevice {
  public:
    using State = PitState;
    static constexpr std::uint64_t kFrequencyHz = 1193182;
    static constexpr std::uint64_t kMinimumSpacingNs = 100'000;

    struct Wiring {
        std::function<std::uint64_t()> now_ns;  // monotonic guest time; called without a lock
        vmm::IrqLine& irq0;
        // next_deadline_ns() changed other than by tick(): the timer thread should look again.
        // Called without a lock; may be empty.
        std::function<void()> deadline_changed;
    };

    explicit Pit(Wiring wiring);

    const char* name() const override { return "pit"; }
    std::span<const vmm::PortRange> ranges() const override;
    std::uint32_t read(vmm::IoAccess at) override;
    void write(vmm::IoAccess at, std::uint32_t value) override;

    // When tick() should be called next, on the clock of `now_ns`; it may lie in the past.
    std::optional<std::uint64_t> next_deadline_ns() const;
    // Delivers what is due at `now`. Early, late and repeated calls are harmless.
    void tick(std::uint64_t now);

    // What the wire to IRQ 0 shows. While nobody drives it.
    bool irq0_level() const {
        const std::scoped_lock lock(mutex_);
        return irq_shown_;
    }

    // Rising edges of OUT 0 that were merged into another one. A statistic, not saved.
    std::uint64_t missed_ticks() const;

    State snapshot() const;
    // Refuses what no chip can hold, and is then as it was. Does not drive IRQ 0: the interrupt
    // controllers save what they saw of the wire.
    vmm::Expected<void, std::string> adopt(const State& state);

  private:
    void catch_up_locked(std::uint64_t now_ns);
    void settle_irq_locked();
    void deliver(std::unique_lock<std::mutex>& lock);
    std::optional<std::uint64_t> deadline_locked() const;
    std::uint8_t read_byte_locked(std::uint64_t port);
    void write_byte_locked(std::uint64_t port, std::uint8_t value);
    void write_mode_locked(std::uint8_t value);
    std::uint8_t read_control_b_locked() const;

    const Wiring wiring_;
    mutable std::mutex mutex_;
    std::array<PitCounter, 3> counters_;
    std::uint8_t control_b_ = 0;
    std::uint64_t refresh_offset_ = 0;  // added to the tick for the refresh toggle

    std::uint64_t now_ = 0;  // the latest tick seen: threads may arrive out of order
    std::uint64_t pending_rises_ = 0;
    std::optional<std::uint64_t> last_edge_;  // tick of the last edge on IRQ 0
    std::uint64_t missed_ticks_ = 0;

    // The wire to IRQ 0. One thread at a time drives it, so that edges keep their order although
    // no lock is held; others leave word here of what it should become.
    bool irq_level_ = false;
    bool irq_edge_due_ = false;  // a rising edge is to be shown before irq_level_ (then true)
    bool irq_shown_ = false;
    bool delivering_ = false;
};

}  // namespace devices::legacy
