// The ACPI registers through which a guest powers off: PM1a event and control blocks (ACPI 6.4,
// section 4.8.3.1 and 4.8.3.2) at the ports that the FADT names. Nothing but power-off is behind
// them: no event is ever signalled, so status reads as zero.
#pragma once

#include <array>
#include <functional>
#include <span>

#include "vmm/base/saved.h"
#include "vmm/machine/pio_device.h"

namespace devices::platform {

class AcpiSleep final : public vmm::PioDevice {
  public:
    // Writes that do not power off leave nothing behind, and every read has one answer.
    using State = vmm::saved::NoState;

    struct Ports {
        std::uint16_t event = 0;    // 4 bytes: status, enable
        std::uint16_t control = 0;  // 2 bytes
        std::uint16_t gpe = 0;      // 4 bytes: status, enable
    };
    // `power_off` is called on the vCPU's thread when SLP_EN is written with the S5 type.
    AcpiSleep(Ports ports, std::uint8_t s5_type, std::function<void()> power_off)
        : ports_(ports),
          ranges_{{{ports.event, 4}, {ports.control, 2}, {ports.gpe, 4}}},
          s5_type_(s5_type),
          power_off_(std::move(power_off)) {}

    const char* name() const override { return "acpi-sleep"; }
    std::span<const vmm::PortRange> ranges() const override { return ranges_; }

    std::uint32_t read(vmm::IoAccess at) override {
        // SCI_EN: the platform is in ACPI mode from the start (the FADT has no SMI command).
        return at.offset == ports_.control ? kSciEnable : 0;
    }

    void write(vmm::IoAccess at, std::uint32_t value) override {
        if (at.offset == ports_.control + 1u) value <<= 8;  // the upper byte alone
        if (at.offset != ports_.control && at.offset != ports_.control + 1u) return;
        if ((value & kSleepEnable) == 0) return;
        if (((value >> kSleepTypeShift) & 7) == s5_type_) power_off_();
    }

  private:
    static constexpr std::uint32_t kSciEnable = 1;
    static constexpr std::uint32_t kSleepEnable = 1u << 13;
    static constexpr unsigned kSleepTypeShift = 10;

    Ports ports_;
    std::array<vmm::PortRange, 3> ranges_;
    std::uint8_t s5_type_;
    std::function<void()> power_off_;
};

// A PVH machine has no timer chip, yet Linux looks for one: it waits for counter 2 (port 0x42) to
// leave 0xff, which is what an absent chip reads as, and gives up only after 50,000 reads. One
// zero ends that at once.
class AbsentPit final : public vmm::PioDevice {
  public:
    using State = vmm::saved::NoState;  // nothing is there

    const char* name() const override { return "absent-pit"; }
    std::span<const vmm::PortRange> ranges() const override { return kRanges; }
    std::uint32_t read(vmm::IoAccess) override { return 0; }
    void write(vmm::IoAccess, std::uint32_t) override {}

  private:
    static constexpr std::array<vmm::PortRange, 1> kRanges = {{{0x42, 1}}};
};

}  // namespace devices::platform
