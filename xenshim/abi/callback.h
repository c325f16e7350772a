// What a value of HVM_PARAM_CALLBACK_IRQ stands for: how events reach a guest's vCPU 0 where no
// vector of its own brings them (public/hvm/params.h, and hvm_set_callback_via of Xen 4.17's
// arch/x86/hvm/irq.c for what makes no sense).
#pragma once

#include <cstdint>

#include "xenshim/abi/numbers.h"

namespace xenshim::abi {

struct Callback {
    enum class Kind { kNone, kLine, kVector };
    Kind kind = Kind::kNone;
    std::uint8_t gsi = 0;     // of a line: the I/O APIC's pin, and below 16 the PIC's input as well
    std::uint8_t vector = 0;  // of a vector
    bool operator==(const Callback&) const = default;
};

// Pins of an HVM guest's I/O APIC: 16 ISA interrupts, and 32 that PCI's are spread over.
inline constexpr unsigned kIoapicPins = 48;
inline constexpr std::uint8_t kFirstPciGsi = 16;

// Where pin `intx` (0: INTA#) of a PCI device on the guest's only bus arrives at the I/O APIC.
constexpr std::uint8_t pci_intx_gsi(unsigned device, unsigned intx) {
    constexpr unsigned kPciGsis = kIoapicPins - kFirstPciGsi;
    return static_cast<std::uint8_t>(kFirstPciGsi +
                                     ((device << 2) + (device >> 3) + intx) % kPciGsis);
}

// GSI 0 is nobody's line: a value of 0 switches the callback off.
constexpr Callback callback_of(std::uint64_t value) {
    const auto low = static_cast<std::uint8_t>(value);
    switch (value >> 56) {
        case kCallbackTypeGsi:
            if (low == 0 || low >= kIoapicPins) break;
            return {.kind = Callback::Kind::kLine, .gsi = low};
        case kCallbackTypePciIntx: {
            const auto device = static_cast<unsigned>((value >> 11) & 31);
            return {.kind = Callback::Kind::kLine, .gsi = pci_intx_gsi(device, low & 3)};
        }
        case kCallbackTypeVector: return {.kind = Callback::Kind::kVector, .vector = low};
        default: break;
    }
    return {};
}

}  // namespace xenshim::abi
