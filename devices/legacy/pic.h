// The PC's pair of 8259A interrupt controllers: a master at ports 0x20-0x21, a slave at 0xa0-0xa1
// wired to the master's input 2, and the two edge/level control registers (ELCR) of PCI chipsets
// at 0x4d0-0x4d1. After Intel's 8259A datasheet (231468) and, for the ELCR and what a chipset
// hard-wires, the 82371SB (PIIX3) datasheet (290550). Used beside KVM's split irqchip: the local
// APICs are in the kernel and take this chip's INTR as ExtINT.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <tuple>

#include "vmm/base/result.h"
#include "vmm/base/saved.h"
#include "vmm/machine/pio_device.h"

namespace devices::legacy {

// What one 8259A holds.
struct PicChipState {
    std::uint8_t lines = 0;            // input levels
    std::uint8_t edges = 0;            // rising edges that were not acknowledged yet
    std::uint8_t level_triggered = 0;  // ELCR
    std::uint8_t mask = 0;             // IMR
    std::uint8_t in_service = 0;       // ISR
    std::uint8_t vector_base = 0;      // ICW2
    std::uint8_t lowest_priority = 7;
    std::uint8_t init_step = 1;  // 0: ready; 1: never initialised; 2, 3, 4: waits for that ICW
    bool single = false;         // ICW1 SNGL: no ICW3 follows ICW2
    bool wants_icw4 = false;     // ICW1 IC4
    bool auto_eoi = false;
    bool rotate_on_auto_eoi = false;
    bool special_fully_nested = false;
    bool special_mask = false;
    bool read_in_service = false;  // OCW3: port 0 reads the ISR, not the IRR
    bool poll = false;             // OCW3: the next read is an acknowledgement
    bool output = false;           // INT

    bool operator==(const PicChipState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [lines, edges, level_triggered, mask, in_service, vector_base, lowest_priority,
               init_step, single, wants_icw4, auto_eoi, rotate_on_auto_eoi, special_fully_nested,
               special_mask, read_in_service, poll, output] = self;
        return std::tuple{vmm::saved::field(1, "lines", lines),
                          vmm::saved::field(2, "edges", edges),
                          vmm::saved::field(3, "level_triggered", level_triggered),
                          vmm::saved::field(4, "mask", mask),
                          vmm::saved::field(5, "in_service", in_service),
                          vmm::saved::field(6, "vector_base", vector_base),
                          vmm::saved::field(7, "lowest_priority", lowest_priority),
                          vmm::saved::field(8, "init_step", init_step),
                          vmm::saved::field(9, "single", single),
                          vmm::saved::field(10, "wants_icw4", wants_icw4),
                          vmm::saved::field(11, "auto_eoi", auto_eoi),
                          vmm::saved::field(12, "rotate_on_auto_eoi", rotate_on_auto_eoi),
                          vmm::saved::field(13, "special_fully_nested", special_fully_nested),
                          vmm::saved::field(14, "special_mask", special_mask),
                          vmm::saved::field(15, "read_in_service", read_in_service),
                          vmm::saved::field(16, "poll", poll),
                          vmm::saved::field(17, "output", output)};
    }
};

struct PicState {
    static constexpr vmm::saved::Section kSection{"legacy.pic", 1};

    PicChipState master;
    PicChipState slave;

    bool operator==(const PicState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [master, slave] = self;
        return std::tuple{vmm::saved::field(1, "master", master),
                          vmm::saved::field(2, "slave", slave)};
    }
};

class Pic final : public vmm::PioDevice {
  public:
    using State = PicState;
    static constexpr unsigned kInputs = 16;

    // `output_changed` is called, without a lock, after output() changed. It carries no level: two
    // threads may call it in either order, so the callee asks output() what holds now.
    explicit Pic(std::function<void()> output_changed);

    const char* name() const override { return "pic"; }
    std::span<const vmm::PortRange> ranges() const override;
    std::uint32_t read(vmm::IoAccess at) override;
    void write(vmm::IoAccess at, std::uint32_t value) override;

    // Drives input `irq`, 0 to 15. Input 2 is the slave's and no device's: setting it is ignored,
    // as is an input that does not exist.
    void set_irq(unsigned irq, bool level);
    // Lowers input `irq` of a line that fell some time ago, unseen until now. INTR is as if it had
    // been seen at once: a request that nobody came for leaves no spurious interrupt behind.
    void withdraw(unsigned irq);

    // INTR, as the processor (or the IOAPIC's ExtINT pin) sees it.
    bool output() const;

    // The processor's INTA cycle: the vector of the most urgent request, which is in service from
    // now on. With no request left (withdrawn meanwhile) it is the chip's level 7, spurious, and
    // nothing is in service. INTR may still be asserted afterwards: ask output() again, for the
    // callback only tells of changes.
    int acknowledge();

    State snapshot() const;
    // Refuses what no pair of chips can hold, and is then as it was. Tells of a changed output, so
    // that the machine need not ask.
    vmm::Expected<void, std::string> adopt(const State& state);

  private:
    // One 8259A. It knows nothing of the other one or of locks.
    class Chip {
      public:
        // `fixed_edge`: the inputs whose ELCR bit is read-only. `cascade`: the mask of the input
        // at which a slave hangs; 0 in the slave itself.
        Chip(std::uint8_t fixed_edge, std::uint8_t cascade)
            : fixed_edge_(fixed_edge), cascade_(cascade) {}

        void drive(unsigned input, bool level);
        void write_command(std::uint8_t value);
        void write_data(std::uint8_t value);
        std::uint8_t read_command();
        std::uint8_t read_data();
        void write_elcr(std::uint8_t value);
        bool polled() const { return poll_; }  // the next read acknowledges
        std::uint8_t elcr() const { return level_triggered_; }

        // The level that INTA would get, if any request may interrupt now.
        std::optional<unsigned> pending() const;
        // Puts pending() in service and returns it; the chip's part of an INTA cycle.
        std::optional<unsigned> acknowledge();
        int vector(unsigned level) const { return vector_base_ | static_cast<int>(level); }

        void refresh_output() { output_ = pending().has_value(); }
        bool output() const { return output_; }

        PicChipState snapshot() const;
        // What of it this chip cannot hold; empty: nothing.
        std::string refusal(const PicChipState& state) const;
        void adopt(const PicChipState& state);

      private:
        std::uint8_t requests() const;
        // Priority 0 is the most urgent; which level has it depends on the rotation.
        unsigned level_at(unsigned priority) const { return (lowest_priority_ + 1 + priority) % 8; }
        std::uint8_t read_poll();
        void write_icw1(std::uint8_t value);
        void write_ocw2(std::uint8_t value);
        void write_ocw3(std::uint8_t value);

        // Static configuration.
        const std::uint8_t fixed_edge_;
        const std::uint8_t cascade_;

        // As PicChipState explains.
        std::uint8_t lines_ = 0;
        std::uint8_t edges_ = 0;
        std::uint8_t level_triggered_ = 0;
        std::uint8_t mask_ = 0;
        std::uint8_t in_service_ = 0;
        std::uint8_t vector_base_ = 0;
        std::uint8_t lowest_priority_ = 7;
        std::uint8_t init_step_ = 1;
        bool single_ = false;
        bool wants_icw4_ = false;
        bool auto_eoi_ = false;
        bool rotate_on_auto_eoi_ = false;
        bool special_fully_nested_ = false;
        bool special_mask_ = false;
        bool read_in_service_ = false;
        bool poll_ = false;
        bool output_ = false;
    };

    // Runs `access` under the lock, then tells the machine if INTR changed.
    template <class Access>
    auto locked(Access&& access);

    std::uint8_t read_byte_locked(std::uint64_t port);
    void write_byte_locked(std::uint64_t port, std::uint8_t value);
    void refresh_locked();

    const std::function<void()> output_changed_;
    mutable std::mutex mutex_;
    Chip master_;
    Chip slave_;
};

}  // namespace devices::legacy
