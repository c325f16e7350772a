#include "devices/legacy/pit.h"

#include <algorithm>
#include <utility>

#include "devices/legacy/byte_ports.h"

namespace devices::legacy {
namespace {

constexpr std::uint64_t kCounters = 0x40;
constexpr std::uint64_t kMode = 0x43;
constexpr std::uint64_t kControlB = 0x61;
constexpr std::array<vmm::PortRange, 2> kRanges{{{0x40, 4}, {0x61, 1}}};

constexpr unsigned kReadBack = 3;  // in the place of a counter's number
constexpr std::uint8_t kReadBackNoCount = 0x20;
constexpr std::uint8_t kReadBackNoStatus = 0x10;

constexpr std::uint8_t kControlBGate2 = 0x01;
// Speaker data, and two NMI enables that are stored and enable nothing: we raise no such NMIs.
constexpr std::uint8_t kControlBStored = 0x0e;
constexpr unsigned kControlBRefreshShift = 4;
constexpr unsigned kControlBOut2Shift = 5;
// The refresh bit toggles with each DRAM refresh request, every 18 ticks (15.1 us) on a PC. It
// does so even if counter 1, which would make them, was never programmed: software uses the bit
// to measure short delays.
constexpr std::uint64_t kRefreshTicks = 18;
constexpr std::uint64_t kRefreshPhases = 2 * kRefreshTicks;

constexpr std::uint64_t kNsPerSecond = 1'000'000'000;

// Ticks that have passed at `ns`; and the first nanosecond at which `ticks` have passed. Whole
// seconds apart, so that nothing overflows and nothing drifts.
constexpr std::uint64_t to_ticks(std::uint64_t ns) {
    return ns / kNsPerSecond * Pit::kFrequencyHz +
           ns % kNsPerSecond * Pit::kFrequencyHz / kNsPerSecond;
}

constexpr std::uint64_t to_ns(std::uint64_t ticks) {
    return ticks / Pit::kFrequencyHz * kNsPerSecond +
           (ticks % Pit::kFrequencyHz * kNsPerSecond + Pit::kFrequencyHz - 1) / Pit::kFrequencyHz;
}

static_assert(to_ticks(to_ns(1)) == 1 && to_ticks(to_ns(1) - 1) == 0);
static_assert(to_ticks(to_ns(123456789123)) == 123456789123);

constexpr std::uint64_t kMinimumSpacing = to_ticks(Pit::kMinimumSpacingNs);

}  // namespace

// The gates of counters 0 and 1 are tied high on a PC.
Pit::Pit(Wiring wiring)
    : wiring_(std::move(wiring)),
      counters_{PitCounter(true), PitCounter(true), PitCounter(false)} {}

std::span<const vmm::PortRange> Pit::ranges() const {
    return kRanges;
}

std::uint32_t Pit::read(vmm::IoAccess at) {
    const std::uint64_t now_ns = wiring_.now_ns();
    std::unique_lock lock(mutex_);
    catch_up_locked(now_ns);
    const std::uint32_t value =
        read_bytes(at, [&](std::uint64_t port) { return read_byte_locked(port); });
    settle_irq_locked();
    deliver(lock);
    return value;
}

void Pit::write(vmm::IoAccess at, std::uint32_t value) {
    const std::uint64_t now_ns = wiring_.now_ns();
    std::unique_lock lock(mutex_);
    const auto before = deadline_locked();
    catch_up_locked(now_ns);
    settle_irq_locked();
    deliver(lock);  // what was due was due under the old program
    write_bytes(at, value, [&](std::uint64_t port, std::uint8_t byte) {
        write_byte_locked(port, byte);
        settle_irq_locked();
    });
    const bool changed = deadline_locked() != before;
    deliver(lock);
    lock.unlock();
    if (changed && wiring_.deadline_changed) wiring_.deadline_changed();
}

std::optional<std::uint64_t> Pit::next_deadline_ns() const {
    const std::scoped_lock lock(mutex_);
    return deadline_locked();
}

void Pit::tick(std::uint64_t now) {
    std::unique_lock lock(mutex_);
    catch_up_locked(now);
    settle_irq_locked();
    deliver(lock);
}

std::uint64_t Pit::missed_ticks() const {
    const std::scoped_lock lock(mutex_);
    return missed_ticks_;
}

void Pit::catch_up_locked(std::uint64_t now_ns) {
    now_ = std::max(now_, to_ticks(now_ns));
    pending_rises_ += counters_[0].advance(now_);
    counters_[1].advance(now_);
    counters_[2].advance(now_);
}

// Decides what IRQ 0 should become, by the rules at the top of pit.h.
void Pit::settle_irq_locked() {
    const PitCounter& counter = counters_[0];
    if (!counter.rests_high() && !counter.out(now_)) {
        missed_ticks_ += pending_rises_ + (irq_edge_due_ ? 1 : 0);
        pending_rises_ = 0;
        irq_level_ = false;
        irq_edge_due_ = false;
        return;
    }
    if (!irq_level_ && pending_rises_ == 0) pending_rises_ = 1;  // a Control Word raised OUT
    if (pending_rises_ == 0) return;
    const bool too_soon =
        irq_level_ && counter.periodic() && last_edge_ && now_ - *last_edge_ < kMinimumSpacing;
    if (too_soon) return;
    missed_ticks_ += pending_rises_ - (irq_edge_due_ ? 0 : 1);
    pending_rises_ = 0;
    irq_level_ = true;
    irq_edge_due_ = true;
    last_edge_ = now_;
}

void Pit::deliver(std::unique_lock<std::mutex>& lock) {
    if (delivering_) return;
    delivering_ = true;
    while (irq_edge_due_ || irq_shown_ != irq_level_) {
        const bool fall = irq_shown_;  // either to stay low, or before the next edge
        const bool rise = irq_level_;
        irq_edge_due_ = false;
        irq_shown_ = irq_level_;
        lock.unlock();
        if (fall) wiring_.irq0.set(false);
        if (rise) wiring_.irq0.set(true);
        lock.lock();
    }
    delivering_ = false;
}

std::optional<std::uint64_t> Pit::deadline_locked() const {
    auto next = pending_rises_ > 0 ? std::optional(now_) : counters_[0].next_rise(now_);
    if (!next) return std::nullopt;
    if (counters_[0].periodic() && last_edge_)
        next = std::max(*next, *last_edge_ + kMinimumSpacing);
    return to_ns(*next);
}

std::uint8_t Pit::read_byte_locked(std::uint64_t port) {
    if (port == kControlB) return read_control_b_locked();
    if (port < kCounters || port >= kMode) return 0xff;  // the mode register cannot be read
    return counters_.at(port - kCounters).read_data(now_);
}

void Pit::write_byte_locked(std::uint64_t port, std::uint8_t value) {
    if (port == kControlB) {
        control_b_ = value & kControlBStored;
        counters_[2].set_gate((value & kControlBGate2) != 0, now_);
    } else if (port == kMode) {
        write_mode_locked(value);
    } else if (port >= kCounters && port < kMode) {
        counters_.at(port - kCounters).write_data(value, now_);
    }
}

void Pit::write_mode_locked(std::uint8_t value) {
    const unsigned selected = value >> 6;
    if (selected != kReadBack) {
        PitCounter& counter = counters_.at(selected);
        if ((value & 0x30) == 0) {
            counter.latch_count(now_);
        } else {
            counter.write_control(value, now_);
        }
        return;
    }
    for (unsigned i = 0; i < counters_.size(); ++i) {
        if ((value & (2U << i)) == 0) continue;
        if ((value & kReadBackNoCount) == 0) counters_.at(i).latch_count(now_);
        if ((value & kReadBackNoStatus) == 0) counters_.at(i).latch_status(now_);
    }
}

std::uint8_t Pit::read_control_b_locked() const {
    const unsigned refresh = (now_ + refresh_offset_) / kRefreshTicks % 2;
    const unsigned out2 = counters_[2].out(now_) ? 1 : 0;
    const unsigned gate2 = counters_[2].gate() ? kControlBGate2 : 0;
    return static_cast<std::uint8_t>(control_b_ | gate2 | refresh << kControlBRefreshShift |
                                     out2 << kControlBOut2Shift);
}

Pit::State Pit::snapshot() const {
    const std::uint64_t now_ns = wiring_.now_ns();
    const std::scoped_lock lock(mutex_);
    const std::uint64_t now = std::max(now_, to_ticks(now_ns));
    State state;
    for (unsigned i = 0; i < counters_.size(); ++i) {
        state.counters.at(i) = counters_.at(i).snapshot(now);
    }
    state.control_b = control_b_;
    state.refresh_phase = static_cast<std::uint8_t>((now + refresh_offset_) % kRefreshPhases);
    return state;
}

vmm::Expected<void, std::string> Pit::adopt(const State& state) {
    for (unsigned i = 0; i < state.counters.size(); ++i) {
        const PitCounterState& counter = state.counters.at(i);
        std::string refusal = PitCounter::refusal(counter);
        if (refusal.empty() && i < 2 && !counter.gate) refusal = "gate: it is tied high";
        if (!refusal.empty()) {
            return vmm::Failure{"counters[" + std::to_string(i) + "]." + refusal};
        }
    }
    if ((state.control_b & ~kControlBStored) != 0) {
        return vmm::Failure{std::string("control_b: more than the port stores")};
    }
    if (state.refresh_phase >= kRefreshPhases) {
        return vmm::Failure{std::string("refresh_phase: beyond the period")};
    }
    const std::uint64_t now_ns = wiring_.now_ns();
    {
        const std::scoped_lock lock(mutex_);
        now_ = std::max(now_, to_ticks(now_ns));
        for (unsigned i = 0; i < counters_.size(); ++i) {
            counters_.at(i).adopt(state.counters.at(i), now_);
        }
        control_b_ = state.control_b;
        refresh_offset_ =
            (state.refresh_phase + kRefreshPhases - now_ % kRefreshPhases) % kRefreshPhases;

        pending_rises_ = 0;
        last_edge_.reset();
        irq_level_ = counters_[0].rests_high() || counters_[0].out(now_);
        irq_edge_due_ = false;
        irq_shown_ = irq_level_;
    }
    if (wiring_.deadline_changed) wiring_.deadline_changed();
    return {};
}

}  // namespace devices::legacy
