#include "devices/legacy/pit_counter.h"

#include <algorithm>

namespace devices::legacy {
namespace {

constexpr std::uint8_t kAccessLow = 1;
constexpr std::uint8_t kAccessHigh = 2;
constexpr std::uint8_t kControlBits = 0x3f;
constexpr std::uint32_t kLargestCount = 0x10000;
constexpr std::int64_t kLongest = std::int64_t{1} << 62;  // that a counter was ever left alone

// Digits above 9 are not BCD; they weigh what they say, so that every value has a meaning.
std::uint32_t from_bcd(std::uint16_t value) {
    return (value & 0xfU) + ((value >> 4) & 0xfU) * 10 + ((value >> 8) & 0xfU) * 100 +
           ((value >> 12) & 0xfU) * 1000;
}

std::uint16_t to_bcd(std::uint32_t value) {
    return static_cast<std::uint16_t>(value % 10 | value / 10 % 10 << 4 | value / 100 % 10 << 8 |
                                      value / 1000 % 10 << 12);
}

}  // namespace

// Modes 6 and 7 are 2 and 3: their topmost bit is "don't care" (datasheet, "Control Word Format").
unsigned PitCounter::mode() const {
    const unsigned bits = (control_ >> 1) & 7;
    return bits > 5 ? bits - 4 : bits;
}

std::int64_t PitCounter::elapsed(std::uint64_t now) const {
    return counting_ ? static_cast<std::int64_t>(now - loaded_at_) : frozen_;
}

// 0 stands for the largest count. 1 is illegal in mode 2 and would have no low half in mode 3; it
// counts as 2, the shortest period there is.
std::uint32_t PitCounter::register_as_count() const {
    const bool bcd = (control_ & 1) != 0;
    const std::uint32_t value = bcd ? from_bcd(count_register_) : count_register_;
    if (value == 0) return modulus();
    return value == 1 && periodic() ? 2 : value;
}

std::uint64_t PitCounter::advance(std::uint64_t now) {
    if (!counting_ || elapsed(now) < 0) return 0;
    if (periodic()) return advance_periodic(now);
    // Modes 4 and 5 raise OUT one tick after they lowered it.
    const std::int64_t rise = std::int64_t{initial_} + (mode() >= 4 ? 1 : 0);
    if (expired_ || elapsed(now) < rise) return 0;
    expired_ = true;
    return 1;
}

// Moves loaded_at_ to the latest reload. A new count waits for the end of the period (mode 2) or
// half period (mode 3) under way, so at most one such end is special; after it all are alike.
std::uint64_t PitCounter::advance_periodic(std::uint64_t now) {
    std::uint64_t rises = 0;
    const bool square = mode() == 3;
    const auto reload = [&] {
        loaded_at_ += square ? half() : initial_;
        if (square) high_ = !high_;
        if (!square || high_) ++rises;
    };
    const auto due = [&] { return now - loaded_at_ >= (square ? half() : initial_); };

    if (count_waiting_) {
        if (!due()) return 0;
        reload();
        initial_ = register_as_count();
        count_waiting_ = false;
    }
    const std::uint64_t periods = (now - loaded_at_) / initial_;
    loaded_at_ += periods * initial_;
    rises += periods;
    if (due()) reload();
    return rises;
}

bool PitCounter::out(std::uint64_t now) const {
    const std::int64_t ticks = elapsed(now);
    switch (mode()) {
        case 0: return expired_;
        case 1:
            if (!loaded_) return true;
            return ticks < 0 ? high_ : expired_;
        case 2: return !counting_ || ticks != std::int64_t{initial_} - 1;
        case 3: return !counting_ || high_;
        default: return !loaded_ || expired_ || ticks != std::int64_t{initial_};
    }
}

std::optional<std::uint64_t> PitCounter::next_rise(std::uint64_t now) const {
    if (!counting_) return std::nullopt;
    std::int64_t rise = initial_;
    if (mode() == 3) {
        const std::uint32_t next = count_waiting_ ? register_as_count() : initial_;
        rise = std::int64_t{half()} + (high_ ? next / 2 : 0);
    } else if (!periodic()) {
        if (expired_) return std::nullopt;
        if (mode() >= 4) ++rise;
    }
    return now + static_cast<std::uint64_t>(std::max(rise - elapsed(now), std::int64_t{0}));
}

// What the counting element shows, as a plain number. Between a write (or trigger) and the tick
// that loads the count it shows the new count already; NULL COUNT tells, as the datasheet has it.
std::uint32_t PitCounter::plain_count(std::uint64_t now) const {
    const std::int64_t ticks = std::max(elapsed(now), std::int64_t{0});
    if (!loaded_) return initial_ % modulus();
    std::int64_t left = 0;
    switch (mode()) {
        case 2: left = initial_ - ticks % initial_; break;
        // Each half counts down by twos from the even number at or below the count.
        case 3: left = std::int64_t{initial_ & ~1U} - 2 * (ticks % half()); break;
        default: left = initial_ - ticks % modulus(); break;  // and wraps around, for ever
    }
    const std::int64_t modulo = modulus();
    return static_cast<std::uint32_t>((left + 2 * modulo) % modulo);
}

std::uint16_t PitCounter::count(std::uint64_t now) const {
    const std::uint32_t plain = plain_count(now);
    return (control_ & 1) != 0 ? to_bcd(plain) : static_cast<std::uint16_t>(plain);
}

// Stops everything; the counting element keeps what it shows until a count is loaded.
void PitCounter::write_control(std::uint8_t value, std::uint64_t now) {
    const std::uint32_t shown = plain_count(now);
    control_ = value & kControlBits;
    count_register_ = 0;
    first_byte_ = 0;
    write_high_next_ = false;
    read_high_next_ = false;
    count_latched_ = false;
    status_latched_ = false;
    initial_ = shown == 0 ? modulus() : shown;
    frozen_ = 0;
    counting_ = false;
    loaded_ = false;
    count_written_ = false;
    count_waiting_ = true;
    high_ = true;
    expired_ = false;
}

void PitCounter::write_data(std::uint8_t value, std::uint64_t now) {
    if (access() == kAccessLow) {
        write_count(value, now);
    } else if (access() == kAccessHigh) {
        write_count(static_cast<std::uint16_t>(value << 8), now);
    } else if (!write_high_next_) {
        first_byte_ = value;
        write_high_next_ = true;
        // "Writing the first byte disables counting. OUT is set low immediately."
        if (mode() == 0) {
            freeze(now);
            expired_ = false;
        }
    } else {
        write_high_next_ = false;
        write_count(static_cast<std::uint16_t>(first_byte_ | value << 8), now);
    }
}

void PitCounter::write_count(std::uint16_t value, std::uint64_t now) {
    count_register_ = value;
    count_written_ = true;
    const bool waits_for_gate = mode() == 1 || mode() == 5;
    const bool waits_for_period = periodic() && loaded_;
    if (waits_for_gate || waits_for_period) {
        count_waiting_ = true;
    } else {
        load(now);
    }
}

// The next tick loads the count and does not count yet, so N ticks after that one are N + 1 from
// now. A count is loaded although the gate stops it from being counted.
void PitCounter::load(std::uint64_t now) {
    initial_ = register_as_count();
    loaded_ = true;
    count_waiting_ = false;
    expired_ = false;
    high_ = true;
    counting_ = gate_ || mode() == 1 || mode() == 5;
    loaded_at_ = now + 1;
    frozen_ = 0;
}

void PitCounter::freeze(std::uint64_t now) {
    if (!counting_) return;
    frozen_ = std::max(elapsed(now), std::int64_t{0});
    counting_ = false;
}

void PitCounter::set_gate(bool gate, std::uint64_t now) {
    if (gate == gate_) return;
    const bool was_high = out(now);
    gate_ = gate;
    switch (mode()) {
        case 1:
        case 5:  // a trigger, and the level means nothing
            if (gate && count_written_) {
                load(now);
                high_ = was_high;
            }
            break;
        case 2:
        case 3:  // a trigger as well
            if (!gate) {
                freeze(now);
            } else if (loaded_) {
                load(now);
            }
            break;
        default:
            if (!gate) {
                freeze(now);
            } else if (loaded_ && !(mode() == 0 && write_high_next_)) {
                counting_ = true;
                loaded_at_ = now - static_cast<std::uint64_t>(frozen_);
            }
            break;
    }
}

// A second latch command before the first one's value was read is ignored.
void PitCounter::latch_count(std::uint64_t now) {
    if (count_latched_) return;
    latched_count_ = count(now);
    count_latched_ = true;
}

void PitCounter::latch_status(std::uint64_t now) {
    if (status_latched_) return;
    latched_status_ =
        static_cast<std::uint8_t>((out(now) ? 0x80 : 0) | (null_count(now) ? 0x40 : 0) | control_);
    status_latched_ = true;
}

std::uint8_t PitCounter::read_data(std::uint64_t now) {
    if (status_latched_) {
        status_latched_ = false;
        return latched_status_;
    }
    const std::uint16_t value = count_latched_ ? latched_count_ : count(now);
    const bool two_bytes = access() != kAccessLow && access() != kAccessHigh;
    const bool high = access() == kAccessHigh || (two_bytes && read_high_next_);
    if (two_bytes) read_high_next_ = !read_high_next_;
    if (!two_bytes || high) count_latched_ = false;
    return static_cast<std::uint8_t>(high ? value >> 8 : value);
}

PitCounterState PitCounter::snapshot(std::uint64_t now) const {
    return {.control = control_,
            .gate = gate_,
            .count_register = count_register_,
            .first_byte = first_byte_,
            .write_high_next = write_high_next_,
            .read_high_next = read_high_next_,
            .latched_count = latched_count_,
            .count_latched = count_latched_,
            .latched_status = latched_status_,
            .status_latched = status_latched_,
            .initial = initial_,
            .elapsed = elapsed(now),
            .counting = counting_,
            .loaded = loaded_,
            .count_written = count_written_,
            .count_waiting = count_waiting_,
            .high = high_,
            .expired = expired_};
}

std::string PitCounter::refusal(const PitCounterState& state) {
    PitCounter asked(state.gate);
    asked.control_ = state.control;
    if ((state.control & ~kControlBits) != 0) return "control: more than a Control Word keeps";
    if (asked.access() == 0) return "control: a latch command";
    const std::uint32_t shortest = asked.periodic() && state.loaded ? 2 : 1;
    if (state.initial < shortest || state.initial > kLargestCount) return "initial: no such count";
    const unsigned mode = asked.mode();
    const bool gated = !state.gate && mode != 1 && mode != 5;
    if (state.counting && !state.loaded) return "counting: nothing";
    if (state.counting && gated) return "counting: against the gate";
    if (state.counting && mode == 0 && state.write_high_next) return "counting: half a count";
    if (state.elapsed < (state.counting ? -1 : 0) || state.elapsed > kLongest) {
        return "elapsed: no such time";
    }
    return {};
}

// As refusal() has found nothing against it.
void PitCounter::adopt(const PitCounterState& state, std::uint64_t now) {
    control_ = state.control;
    gate_ = state.gate;
    count_register_ = state.count_register;
    first_byte_ = state.first_byte;
    write_high_next_ = state.write_high_next;
    read_high_next_ = state.read_high_next;
    latched_count_ = state.latched_count;
    count_latched_ = state.count_latched;
    latched_status_ = state.latched_status;
    status_latched_ = state.status_latched;

    initial_ = state.initial;
    counting_ = state.counting;
    loaded_ = state.loaded;
    count_written_ = state.count_written;
    count_waiting_ = state.count_waiting;
    high_ = state.high;
    expired_ = state.expired;
    frozen_ = std::max(state.elapsed, std::int64_t{0});
    loaded_at_ = now - static_cast<std::uint64_t>(state.elapsed);
}

}  // namespace devices::legacy
