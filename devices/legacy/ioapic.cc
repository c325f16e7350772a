#include "devices/legacy/ioapic.h"

#include <algorithm>
#include <utility>

namespace devices::legacy {
namespace {

// MMIO offsets.
constexpr std::uint64_t kRegisterSelect = 0x00;
constexpr std::uint64_t kWindow = 0x10;

// Register indices.
constexpr unsigned kIdRegister = 0x00;
constexpr unsigned kVersionRegister = 0x01;
constexpr unsigned kArbitrationRegister = 0x02;
constexpr unsigned kRedirectionTable = 0x10;

constexpr std::uint32_t kVersion = 0x11;
constexpr std::uint8_t kMostId = 0xf;

// A redirection entry.
constexpr std::uint64_t kVectorMask = 0xff;
constexpr std::uint64_t kDeliveryModeMask = 0x700;
constexpr unsigned kDeliveryModeShift = 8;
constexpr std::uint64_t kLogicalDestination = 1ULL << 11;
constexpr std::uint64_t kRemoteIrr = 1ULL << 14;
constexpr std::uint64_t kLevelTriggered = 1ULL << 15;
constexpr std::uint64_t kMasked = 1ULL << 16;
constexpr unsigned kDestinationShift = 56;
// Vector, delivery mode, destination mode, polarity, trigger, mask; destination. Delivery Status
// (bit 12) is read-only and always 0 here: a message is gone as soon as it is sent.
constexpr std::uint64_t kWritable = 0xff00'0000'0001'afffULL;
constexpr std::uint64_t kAfterReset = kMasked;

enum DeliveryMode : unsigned {
    kFixed = 0,
    kLowestPriority = 1,
    kSmi = 2,
    kNmi = 4,
    kInit = 5,
    kExtInt = 7,
};

// An MSI.
constexpr std::uint64_t kMsiBase = 0xfee00000;
constexpr unsigned kMsiDestinationShift = 12;
constexpr std::uint64_t kMsiLogicalDestination = 1ULL << 2;
constexpr std::uint32_t kMsiAssert = 1U << 14;
constexpr std::uint32_t kMsiLevelTriggered = 1U << 15;

unsigned delivery_mode(std::uint64_t entry) {
    return static_cast<unsigned>((entry & kDeliveryModeMask) >> kDeliveryModeShift);
}

// SMI, NMI, INIT and ExtINT are edge-triggered whatever the trigger bit says (82093AA, 3.2.4).
bool is_level(std::uint64_t entry) {
    const unsigned mode = delivery_mode(entry);
    return (entry & kLevelTriggered) != 0 && (mode == kFixed || mode == kLowestPriority);
}

bool is_masked(std::uint64_t entry) {
    return (entry & kMasked) != 0;
}

std::optional<MsiMessage> message_of(std::uint64_t entry) {
    const unsigned mode = delivery_mode(entry);
    switch (mode) {
        case kFixed:
        case kLowestPriority:
        case kSmi:
        case kNmi:
        case kInit: break;
        default: return std::nullopt;  // ExtINT is a wire (virtual_wire); the rest is reserved
    }
    MsiMessage message;
    message.address = kMsiBase | ((entry >> kDestinationShift) << kMsiDestinationShift);
    if ((entry & kLogicalDestination) != 0) message.address |= kMsiLogicalDestination;
    message.data = static_cast<std::uint32_t>(entry & (kVectorMask | kDeliveryModeMask));
    if (is_level(entry)) message.data |= kMsiLevelTriggered | kMsiAssert;
    return message;
}

Ioapic::Route route_of(std::uint64_t entry) {
    return {.message = message_of(entry),
            .masked = is_masked(entry),
            .level_triggered = is_level(entry)};
}

// Remote IRR has a meaning in level mode only. Drivers of chips without an EOI register rely on
// it: they end a stuck interrupt by making its entry edge-triggered for a moment.
std::uint64_t normalised(std::uint64_t entry) {
    entry &= kWritable | kRemoteIrr;
    return is_level(entry) ? entry : entry & ~kRemoteIrr;
}

}  // namespace

Ioapic::Ioapic(unsigned pins, Wiring wiring)
    : pins_(std::clamp(pins, 1U, kMaxPins)),
      wiring_(std::move(wiring)),
      entries_(pins_, kAfterReset) {}

// The registers want aligned 32-bit accesses ("All APIC registers are accessed using 32-bit loads
// and stores", 82093AA, 3.0). Reading is harmless, so any bytes of the two registers may be read;
// what lies between them is reserved and reads as zero, as on Xen.
std::uint64_t Ioapic::read(vmm::IoAccess at) {
    const std::scoped_lock lock(mutex_);
    std::uint64_t value = 0;
    for (unsigned i = 0; i < std::min(at.size, 8U); ++i) {
        const std::uint64_t offset = at.offset + i;
        std::uint32_t word = 0;
        if ((offset & ~3ULL) == kRegisterSelect) word = selected_;
        if ((offset & ~3ULL) == kWindow) word = read_register_locked();
        const std::uint64_t byte = (word >> (8 * (offset & 3))) & 0xff;
        value |= byte << (8 * i);
    }
    return value;
}

// A part of a register cannot be written; only the index, being one byte, may come as any size.
void Ioapic::write(vmm::IoAccess at, std::uint64_t value) {
    Actions actions;
    {
        const std::scoped_lock lock(mutex_);
        if (at.offset == kRegisterSelect && at.size != 0) {
            selected_ = static_cast<std::uint8_t>(value);
        } else if (at.offset == kWindow && at.size >= 4) {
            actions = write_register_locked(static_cast<std::uint32_t>(value));
        }
    }
    act(actions);
}

std::uint32_t Ioapic::read_register_locked() const {
    switch (selected_) {
        case kIdRegister:
        // Arbitration follows the ID: it is loaded with it, and there is no APIC bus to rotate it.
        case kArbitrationRegister: return std::uint32_t{id_} << 24;
        case kVersionRegister: return ((pins_ - 1) << 16) | kVersion;
        default: break;
    }
    if (selected_ < kRedirectionTable) return 0;
    const unsigned pin = (selected_ - kRedirectionTable) / 2;
    if (pin >= pins_) return 0;
    const unsigned shift = (selected_ & 1) != 0 ? 32 : 0;
    return static_cast<std::uint32_t>(entries_[pin] >> shift);
}

Ioapic::Actions Ioapic::write_register_locked(std::uint32_t value) {
    Actions actions;
    if (selected_ == kIdRegister) id_ = (value >> 24) & kMostId;
    if (selected_ < kRedirectionTable) return actions;
    const unsigned pin = (selected_ - kRedirectionTable) / 2;
    if (pin >= pins_) return actions;

    const std::uint64_t old = entries_[pin];
    const std::uint64_t entry = (selected_ & 1) != 0
                                    ? (old & 0xffffffff) | (std::uint64_t{value} << 32)
                                    : (old & ~0xffffffffULL) | value;
    write_entry_locked(pin, entry, actions);
    return actions;
}

void Ioapic::write_entry_locked(unsigned pin, std::uint64_t entry, Actions& actions) {
    const std::uint64_t old = entries_[pin];
    entries_[pin] = normalised((entry & kWritable) | (old & kRemoteIrr));
    if (route_of(old) != route_of(entries_[pin])) actions.changed.push_back(pin);
    assert_level_locked(pin, actions);
}

// Sends a level-triggered pin's interrupt if it is due: once, until its EOI.
void Ioapic::assert_level_locked(unsigned pin, Actions& actions) {
    std::uint64_t& entry = entries_[pin];
    const bool asserted = ((lines_ >> pin) & 1) != 0;
    if (!asserted || !is_level(entry) || is_masked(entry) || (entry & kRemoteIrr) != 0) return;
    if (const auto message = message_of(entry)) {
        entry |= kRemoteIrr;
        actions.messages.push_back(*message);
    }
}

// An edge on a masked pin is neither delivered nor held pending (82093AA, 3.2.4, bit 16).
void Ioapic::set_irq(unsigned pin, bool asserted) {
    if (pin >= pins_) return;
    Actions actions;
    {
        const std::scoped_lock lock(mutex_);
        const std::uint64_t line = 1ULL << pin;
        const bool rises = asserted && (lines_ & line) == 0;
        lines_ = asserted ? lines_ | line : lines_ & ~line;
        if (!rises) return;
        const std::uint64_t entry = entries_[pin];
        if (is_level(entry)) {
            assert_level_locked(pin, actions);
        } else if (const auto message = message_of(entry); message && !is_masked(entry)) {
            actions.messages.push_back(*message);
        }
    }
    act(actions);
}

void Ioapic::eoi(std::uint8_t vector) {
    Actions actions;
    {
        const std::scoped_lock lock(mutex_);
        for (unsigned pin = 0; pin < pins_; ++pin) {
            std::uint64_t& entry = entries_[pin];
            if ((entry & kVectorMask) != vector || (entry & kRemoteIrr) == 0) continue;
            entry &= ~kRemoteIrr;
            assert_level_locked(pin, actions);
        }
    }
    act(actions);
}

void Ioapic::act(const Actions& actions) const {
    if (wiring_.route_changed) {
        for (const unsigned pin : actions.changed)
            wiring_.route_changed(pin);
    }
    if (wiring_.send) {
        for (const MsiMessage& message : actions.messages)
            wiring_.send(message);
    }
}

Ioapic::Route Ioapic::route(unsigned pin) const {
    const std::scoped_lock lock(mutex_);
    return pin < pins_ ? route_of(entries_[pin]) : Route{};
}

bool Ioapic::in_service(unsigned pin) const {
    const std::scoped_lock lock(mutex_);
    return pin < pins_ && (entries_[pin] & kRemoteIrr) != 0;
}

bool Ioapic::virtual_wire() const {
    const std::scoped_lock lock(mutex_);
    return delivery_mode(entries_[0]) == kExtInt && !is_masked(entries_[0]);
}

Ioapic::State Ioapic::snapshot() const {
    const std::scoped_lock lock(mutex_);
    return {.id = id_, .selected = selected_, .lines = lines_, .entries = entries_};
}

vmm::Expected<void, std::string> Ioapic::adopt(const State& state) {
    const std::string pins = std::to_string(pins_) + " pins";
    if (state.id > kMostId) return vmm::Failure{std::string("id: it has four bits")};
    if ((state.lines & ~(~0ULL >> (kMaxPins - pins_))) != 0) {
        return vmm::Failure{"lines: this chip has " + pins};
    }
    if (state.entries.size() != pins_) {
        return vmm::Failure{"entries: there are " + std::to_string(state.entries.size()) +
                            ", this chip has " + pins};
    }
    for (unsigned pin = 0; pin < pins_; ++pin) {
        const std::uint64_t entry = state.entries[pin];
        const std::string which = "entries[" + std::to_string(pin) + "]: ";
        if (normalised(entry) != entry) return vmm::Failure{which + "no entry has these bits"};
        const bool due = ((state.lines >> pin) & 1) != 0 && is_level(entry) && !is_masked(entry);
        if (due && (entry & kRemoteIrr) == 0) {
            return vmm::Failure{which + "its level is due and was not sent"};
        }
    }
    Actions actions;
    {
        const std::scoped_lock lock(mutex_);
        id_ = state.id;
        selected_ = state.selected;
        lines_ = state.lines;
        entries_ = state.entries;
        for (unsigned pin = 0; pin < pins_; ++pin)
            actions.changed.push_back(pin);
    }
    act(actions);
    return {};
}

}  // namespace devices::legacy
