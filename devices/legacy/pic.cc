#include "devices/legacy/pic.h"

#include <utility>

#include "devices/legacy/byte_ports.h"

namespace devices::legacy {
namespace {

constexpr std::uint64_t kMasterCommand = 0x20;
constexpr std::uint64_t kMasterData = 0x21;
constexpr std::uint64_t kSlaveCommand = 0xa0;
constexpr std::uint64_t kSlaveData = 0xa1;
constexpr std::uint64_t kMasterElcr = 0x4d0;
constexpr std::uint64_t kSlaveElcr = 0x4d1;

constexpr std::array<vmm::PortRange, 3> kRanges{{{0x20, 2}, {0xa0, 2}, {0x4d0, 2}}};

constexpr unsigned kCascadeInput = 2;
constexpr unsigned kSpuriousLevel = 7;

// ELCR bits that PIIX3 holds at 0: the timer, the keyboard and the cascade; the RTC and the
// coprocessor error. They are edge-triggered on every PC.
constexpr std::uint8_t kMasterFixedEdge = 0x07;
constexpr std::uint8_t kSlaveFixedEdge = 0x21;

// Steps of an initialisation; 2 to 4 are the number of the ICW that is due.
constexpr std::uint8_t kReady = 0;
constexpr std::uint8_t kLastIcw = 4;

constexpr std::uint8_t kIcw1 = 0x10;  // tells ICW1 from an OCW
constexpr std::uint8_t kIcw1Icw4 = 0x01;
constexpr std::uint8_t kIcw1Single = 0x02;
constexpr std::uint8_t kIcw4AutoEoi = 0x02;
constexpr std::uint8_t kIcw4SpecialFullyNested = 0x10;
constexpr std::uint8_t kOcw3 = 0x08;  // tells OCW3 from OCW2
constexpr std::uint8_t kOcw3Ris = 0x01;
constexpr std::uint8_t kOcw3Rr = 0x02;
constexpr std::uint8_t kOcw3Poll = 0x04;
constexpr std::uint8_t kOcw3Smm = 0x20;
constexpr std::uint8_t kOcw3Esmm = 0x40;

constexpr std::uint8_t bit(unsigned level) {
    return static_cast<std::uint8_t>(1U << level);
}

void set_bits(std::uint8_t& byte, std::uint8_t bits) {
    byte = static_cast<std::uint8_t>(byte | bits);
}

void clear_bits(std::uint8_t& byte, std::uint8_t bits) {
    byte = static_cast<std::uint8_t>(byte & ~bits);
}

}  // namespace

// An edge counts only while its input stays high: an input that falls before the acknowledgement
// withdraws its request (datasheet, "Edge and Level Triggered Modes").
void Pic::Chip::drive(unsigned input, bool level) {
    const std::uint8_t line = bit(input);
    if (level) {
        if ((lines_ & line) == 0 && (level_triggered_ & line) == 0) set_bits(edges_, line);
        set_bits(lines_, line);
    } else {
        clear_bits(edges_, line);
        clear_bits(lines_, line);
    }
}

// The IRR.
std::uint8_t Pic::Chip::requests() const {
    return static_cast<std::uint8_t>((lines_ & level_triggered_) | (edges_ & ~level_triggered_));
}

// The chip is ready to accept requests once its ICWs are programmed (datasheet, "Operation
// Command Words"); until then INT stays low, lest a half-programmed vector reach the processor.
std::optional<unsigned> Pic::Chip::pending() const {
    if (init_step_ != kReady) return std::nullopt;
    const auto wanted = static_cast<std::uint8_t>(requests() & ~mask_);
    // In special mask mode a level that is masked does not hold back others while in service.
    const auto busy = static_cast<std::uint8_t>(special_mask_ ? in_service_ & ~mask_ : in_service_);
    for (unsigned priority = 0; priority < 8; ++priority) {
        const unsigned level = level_at(priority);
        // In special fully nested mode a slave that is in service may interrupt again: among its
        // own requests there may be a more urgent one.
        const bool may_repeat = special_fully_nested_ && (cascade_ & bit(level)) != 0;
        if ((busy & bit(level)) != 0 && !may_repeat) return std::nullopt;
        if ((wanted & bit(level)) != 0) return level;
        if ((busy & bit(level)) != 0) return std::nullopt;
    }
    return std::nullopt;
}

std::optional<unsigned> Pic::Chip::acknowledge() {
    const auto level = pending();
    if (!level) return std::nullopt;
    clear_bits(edges_, bit(*level));
    if (!auto_eoi_) {
        set_bits(in_service_, bit(*level));
    } else if (rotate_on_auto_eoi_) {
        lowest_priority_ = static_cast<std::uint8_t>(*level);
    }
    return level;
}

void Pic::Chip::write_command(std::uint8_t value) {
    if ((value & kIcw1) != 0) {
        write_icw1(value);
    } else if ((value & kOcw3) != 0) {
        write_ocw3(value);
    } else {
        write_ocw2(value);
    }
}

// The datasheet's list of what ICW1 does, and one more: it clears the ISR. The datasheet does not
// say so, but kernels that take over from firmware count on it. LTIM is ignored, as in PIIX3: the
// ELCR has taken its place.
void Pic::Chip::write_icw1(std::uint8_t value) {
    edges_ = 0;
    mask_ = 0;
    in_service_ = 0;
    lowest_priority_ = 7;
    rotate_on_auto_eoi_ = false;
    special_mask_ = false;
    read_in_service_ = false;
    poll_ = false;
    single_ = (value & kIcw1Single) != 0;
    wants_icw4_ = (value & kIcw1Icw4) != 0;
    if (!wants_icw4_) {
        auto_eoi_ = false;
        special_fully_nested_ = false;
    }
    init_step_ = 2;
}

void Pic::Chip::write_ocw2(std::uint8_t value) {
    const bool rotate = (value & 0x80) != 0;
    const bool specific = (value & 0x40) != 0;
    const bool eoi = (value & 0x20) != 0;
    const unsigned named = value & 7;
    if (!eoi && !specific) {  // R alone sets, all clear resets rotation on automatic EOIs
        rotate_on_auto_eoi_ = rotate;
        return;
    }
    std::optional<unsigned> level;
    if (specific) {
        level = named;
    } else {
        // A non-specific EOI passes over levels that special mask mode has masked.
        const auto candidates = special_mask_ ? in_service_ & ~mask_ : in_service_ & 0xff;
        for (unsigned priority = 0; priority < 8 && !level; ++priority) {
            if ((candidates & bit(level_at(priority))) != 0) level = level_at(priority);
        }
    }
    if (!level) return;
    if (eoi) clear_bits(in_service_, bit(*level));
    if (rotate) lowest_priority_ = static_cast<std::uint8_t>(*level);
}

void Pic::Chip::write_ocw3(std::uint8_t value) {
    if ((value & kOcw3Esmm) != 0) special_mask_ = (value & kOcw3Smm) != 0;
    if ((value & kOcw3Rr) != 0) read_in_service_ = (value & kOcw3Ris) != 0;
    poll_ = (value & kOcw3Poll) != 0;
}

// ICW3 says where the slave is wired and ICW4 also which processor and which bus buffers there
// are. A PC has one answer to each (PIIX3 demands the very values), so they are taken unread.
void Pic::Chip::write_data(std::uint8_t value) {
    const std::uint8_t after_icw3 = wants_icw4_ ? 4 : kReady;
    switch (init_step_) {
        case 2:
            vector_base_ = value & 0xf8;
            init_step_ = single_ ? after_icw3 : std::uint8_t{3};
            break;
        case 3: init_step_ = after_icw3; break;
        case 4:
            auto_eoi_ = (value & kIcw4AutoEoi) != 0;
            special_fully_nested_ = (value & kIcw4SpecialFullyNested) != 0;
            init_step_ = kReady;
            break;
        default: mask_ = value; break;  // OCW1
    }
}

std::uint8_t Pic::Chip::read_command() {
    if (poll_) return read_poll();
    return read_in_service_ ? in_service_ : requests();
}

// The poll command turns the next read, whichever the port, into an acknowledgement.
std::uint8_t Pic::Chip::read_data() {
    return poll_ ? read_poll() : mask_;
}

std::uint8_t Pic::Chip::read_poll() {
    poll_ = false;
    const auto level = acknowledge();
    return level ? static_cast<std::uint8_t>(0x80 | *level) : std::uint8_t{0};
}

void Pic::Chip::write_elcr(std::uint8_t value) {
    level_triggered_ = static_cast<std::uint8_t>(value & ~fixed_edge_);
    clear_bits(edges_, level_triggered_);
}

PicChipState Pic::Chip::snapshot() const {
    return {.lines = lines_,
            .edges = edges_,
            .level_triggered = level_triggered_,
            .mask = mask_,
            .in_service = in_service_,
            .vector_base = vector_base_,
            .lowest_priority = lowest_priority_,
            .init_step = init_step_,
            .single = single_,
            .wants_icw4 = wants_icw4_,
            .auto_eoi = auto_eoi_,
            .rotate_on_auto_eoi = rotate_on_auto_eoi_,
            .special_fully_nested = special_fully_nested_,
            .special_mask = special_mask_,
            .read_in_service = read_in_service_,
            .poll = poll_,
            .output = output_};
}

// INT may be up without a request (set_irq says why), but not down with one.
std::string Pic::Chip::refusal(const PicChipState& state) const {
    if ((state.level_triggered & fixed_edge_) != 0) return "level_triggered: an input is no other";
    if ((state.edges & state.level_triggered) != 0) return "edges: on a level-triggered input";
    if ((state.edges & ~state.lines) != 0) return "edges: on an input that is low";
    if ((state.vector_base & 7) != 0) return "vector_base: its low bits are the level's";
    if (state.lowest_priority > 7) return "lowest_priority: there are eight levels";
    if (state.init_step > kLastIcw) return "init_step: there is no such ICW";
    if (state.output && state.init_step != kReady) return "output: before the chip is programmed";
    Chip other(fixed_edge_, cascade_);
    other.adopt(state);
    if (!state.output && other.pending()) return "output: low with a request";
    return {};
}

// As refusal() has found nothing against it.
void Pic::Chip::adopt(const PicChipState& state) {
    lines_ = state.lines;
    edges_ = state.edges;
    level_triggered_ = state.level_triggered;
    mask_ = state.mask;
    in_service_ = state.in_service;
    vector_base_ = state.vector_base;
    lowest_priority_ = state.lowest_priority;
    init_step_ = state.init_step;
    single_ = state.single;
    wants_icw4_ = state.wants_icw4;
    auto_eoi_ = state.auto_eoi;
    rotate_on_auto_eoi_ = state.rotate_on_auto_eoi;
    special_fully_nested_ = state.special_fully_nested;
    special_mask_ = state.special_mask;
    read_in_service_ = state.read_in_service;
    poll_ = state.poll;
    output_ = state.output;
}

Pic::Pic(std::function<void()> output_changed)
    : output_changed_(std::move(output_changed)),
      master_(kMasterFixedEdge, bit(kCascadeInput)),
      slave_(kSlaveFixedEdge, 0) {}

std::span<const vmm::PortRange> Pic::ranges() const {
    return kRanges;
}

template <class Access>
auto Pic::locked(Access&& access) {
    std::unique_lock lock(mutex_);
    const bool before = master_.output();
    const auto result = access();
    const bool changed = master_.output() != before;
    lock.unlock();
    if (changed && output_changed_) output_changed_();
    return result;
}

void Pic::refresh_locked() {
    slave_.refresh_output();
    master_.drive(kCascadeInput, slave_.output());
    master_.refresh_output();
}

std::uint32_t Pic::read(vmm::IoAccess at) {
    return locked(
        [&] { return read_bytes(at, [&](std::uint64_t port) { return read_byte_locked(port); }); });
}

void Pic::write(vmm::IoAccess at, std::uint32_t value) {
    locked([&] {
        write_bytes(at, value,
                    [&](std::uint64_t port, std::uint8_t byte) { write_byte_locked(port, byte); });
        return true;
    });
}

std::uint8_t Pic::read_byte_locked(std::uint64_t port) {
    const bool master = port == kMasterCommand || port == kMasterData;
    const bool slave = port == kSlaveCommand || port == kSlaveData;
    if (port == kMasterElcr) return master_.elcr();
    if (port == kSlaveElcr) return slave_.elcr();
    if (!master && !slave) return 0xff;

    Chip& chip = master ? master_ : slave_;
    const bool command = port == kMasterCommand || port == kSlaveCommand;
    const bool acknowledges = chip.polled();
    const std::uint8_t value = command ? chip.read_command() : chip.read_data();
    if (acknowledges) {
        if (slave) master_.drive(kCascadeInput, false);  // as in acknowledge()
        refresh_locked();
    }
    return value;
}

void Pic::write_byte_locked(std::uint64_t port, std::uint8_t value) {
    switch (port) {
        case kMasterCommand: master_.write_command(value); break;
        case kMasterData: master_.write_data(value); break;
        case kSlaveCommand: slave_.write_command(value); break;
        case kSlaveData: slave_.write_data(value); break;
        case kMasterElcr: master_.write_elcr(value); break;
        case kSlaveElcr: slave_.write_elcr(value); break;
        default: return;
    }
    refresh_locked();
}

// A request that a device withdraws leaves INT up, so that the processor comes and gets the
// default level 7 ("the request was too short in duration", datasheet, "Interrupt Sequence"): the
// spurious IRQs 7 and, through the slave, 15 that every PC kernel knows how to meet. A request
// that software takes away, by masking it for one, takes INT down with it.
void Pic::set_irq(unsigned irq, bool level) {
    if (irq >= kInputs || irq == kCascadeInput) return;
    locked([&] {
        Chip& chip = irq < 8 ? master_ : slave_;
        chip.drive(irq % 8, level);
        if (level) refresh_locked();
        return true;
    });
}

void Pic::withdraw(unsigned irq) {
    if (irq >= kInputs || irq == kCascadeInput) return;
    locked([&] {
        Chip& chip = irq < 8 ? master_ : slave_;
        chip.drive(irq % 8, false);
        refresh_locked();
        return true;
    });
}

bool Pic::output() const {
    const std::scoped_lock lock(mutex_);
    return master_.output();
}

int Pic::acknowledge() {
    return locked([&] {
        const auto level = master_.acknowledge();
        int vector = master_.vector(level.value_or(kSpuriousLevel));
        if (level == kCascadeInput) {
            vector = slave_.vector(slave_.acknowledge().value_or(kSpuriousLevel));
            // The slave's INT falls with its INTA. If it has more to say it rises again, and the
            // master sees a new edge.
            master_.drive(kCascadeInput, false);
        }
        refresh_locked();
        return vector;
    });
}

Pic::State Pic::snapshot() const {
    const std::scoped_lock lock(mutex_);
    return {.master = master_.snapshot(), .slave = slave_.snapshot()};
}

vmm::Expected<void, std::string> Pic::adopt(const State& state) {
    const std::string master = master_.refusal(state.master);
    if (!master.empty()) return vmm::Failure{"master." + master};
    const std::string slave = slave_.refusal(state.slave);
    if (!slave.empty()) return vmm::Failure{"slave." + slave};
    const bool cascade = (state.master.lines & bit(kCascadeInput)) != 0;
    if (cascade != state.slave.output) {
        return vmm::Failure{"master.lines: input 2 is not what the slave's output is"};
    }
    locked([&] {
        slave_.adopt(state.slave);
        master_.adopt(state.master);
        return true;
    });
    return {};
}

}  // namespace devices::legacy
