// One counter of an 8254 (Intel 231164): its registers and its counting element, in ticks of its
// clock input. Nothing happens here as time passes: every call says what time it is, and the
// counter works out what it would have done since. Not for use by several threads.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>

#include "vmm/base/saved.h"

namespace devices::legacy {

struct PitCounterState {
    std::uint8_t control = 0x30;  // the last Control Word's RW, M and BCD bits: D5 to D0
    bool gate = true;
    std::uint16_t count_register = 0;
    std::uint8_t first_byte = 0;  // of a two-byte count, until the second one is written
    bool write_high_next = false;
    bool read_high_next = false;
    std::uint16_t latched_count = 0;
    bool count_latched = false;
    std::uint8_t latched_status = 0;
    bool status_latched = false;

    // The counting element: counts down from `initial` (1 to 65536), `elapsed` ticks ago loaded.
    // -1: the next tick will load it.
    std::uint32_t initial = 0x10000;
    std::int64_t elapsed = 0;
    bool counting = false;       // elapsed grows; else frozen by the gate, or nothing to count yet
    bool loaded = false;         // a count was loaded since the Control Word
    bool count_written = false;  // a whole count was written since the Control Word
    bool count_waiting = true;   // ... and is not loaded yet, or none was written
    bool high = true;      // mode 3: OUT in this half; mode 1: OUT until the load; others: unused
    bool expired = false;  // modes 0, 1, 4, 5: OUT made its rising edge

    bool operator==(const PitCounterState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [control, gate, count_register, first_byte, write_high_next, read_high_next,
               latched_count, count_latched, latched_status, status_latched, initial, elapsed,
               counting, loaded, count_written, count_waiting, high, expired] = self;
        return std::tuple{vmm::saved::field(1, "control", control),
                          vmm::saved::field(2, "gate", gate),
                          vmm::saved::field(3, "count_register", count_register),
                          vmm::saved::field(4, "first_byte", first_byte),
                          vmm::saved::field(5, "write_high_next", write_high_next),
                          vmm::saved::field(6, "read_high_next", read_high_next),
                          vmm::saved::field(7, "latched_count", latched_count),
                          vmm::saved::field(8, "count_latched", count_latched),
                          vmm::saved::field(9, "latched_status", latched_status),
                          vmm::saved::field(10, "status_latched", status_latched),
                          vmm::saved::field(11, "initial", initial),
                          vmm::saved::field(12, "elapsed", elapsed),
                          vmm::saved::field(13, "counting", counting),
                          vmm::saved::field(14, "loaded", loaded),
                          vmm::saved::field(15, "count_written", count_written),
                          vmm::saved::field(16, "count_waiting", count_waiting),
                          vmm::saved::field(17, "high", high),
                          vmm::saved::field(18, "expired", expired)};
    }
};

class PitCounter {
  public:
    explicit PitCounter(bool gate) : gate_(gate) {}

    // Brings the counter up to `now` and returns how often OUT rose since the last call. The calls
    // below want it to be up to date.
    std::uint64_t advance(std::uint64_t now);

    bool out(std::uint64_t now) const;
    // The tick of OUT's next rising edge if nobody touches the counter; `now` if it is overdue.
    std::optional<std::uint64_t> next_rise(std::uint64_t now) const;
    bool periodic() const { return mode() == 2 || mode() == 3; }
    // Modes 2 to 5 rest with OUT high, and lower it only to raise it again.
    bool rests_high() const { return mode() >= 2; }

    void write_control(std::uint8_t value, std::uint64_t now);  // RW bits not 0
    void write_data(std::uint8_t value, std::uint64_t now);
    std::uint8_t read_data(std::uint64_t now);
    void latch_count(std::uint64_t now);
    void latch_status(std::uint64_t now);
    void set_gate(bool gate, std::uint64_t now);
    bool gate() const { return gate_; }

    PitCounterState snapshot(std::uint64_t now) const;
    // What of it no counter can hold; empty: nothing.
    static std::string refusal(const PitCounterState& state);
    void adopt(const PitCounterState& state, std::uint64_t now);

  private:
    unsigned mode() const;
    unsigned access() const { return (control_ >> 4) & 3; }
    std::uint32_t modulus() const { return (control_ & 1) != 0 ? 10000 : 0x10000; }
    std::uint32_t half() const { return (initial_ + (high_ ? 1 : 0)) / 2; }
    std::int64_t elapsed(std::uint64_t now) const;
    std::uint32_t register_as_count() const;
    std::uint32_t plain_count(std::uint64_t now) const;
    std::uint16_t count(std::uint64_t now) const;
    bool null_count(std::uint64_t now) const { return count_waiting_ || elapsed(now) < 0; }
    std::uint64_t advance_periodic(std::uint64_t now);
    void load(std::uint64_t now);
    void freeze(std::uint64_t now);
    void write_count(std::uint16_t value, std::uint64_t now);

    std::uint8_t control_ = 0x30;
    bool gate_;
    std::uint16_t count_register_ = 0;
    std::uint8_t first_byte_ = 0;
    bool write_high_next_ = false;
    bool read_high_next_ = false;
    std::uint16_t latched_count_ = 0;
    bool count_latched_ = false;
    std::uint8_t latched_status_ = 0;
    bool status_latched_ = false;

    std::uint32_t initial_ = 0x10000;
    std::uint64_t loaded_at_ = 0;  // while counting_; ticks wrap around without harm
    std::int64_t frozen_ = 0;      // elapsed ticks, while not counting_
    bool counting_ = false;
    bool loaded_ = false;
    bool count_written_ = false;
    bool count_waiting_ = true;
    bool high_ = true;
    bool expired_ = false;
};

}  // namespace devices::legacy
