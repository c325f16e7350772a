// A device that the guest reaches through x86 I/O ports, and the access that reaches it. The bus
// looks a port up and calls the device; a port that nobody claims reads as all ones and ignores
// writes, and so should a device do with what it does not understand.
//
// Calls come from any vCPU thread and from several at once: each device has one mutex of its own
// and does not hold it while it calls out.
#pragma once

#include <concepts>
#include <cstdint>
#include <limits>
#include <span>

namespace vmm {

// One access of a guest. Every value is legal here: devices meet any offset and any size.
struct IoAccess {
    std::uint64_t offset = 0;  // ports: the absolute port; MMIO: from the start of the range
    unsigned size = 1;         // in bytes: 1, 2, 4, or 8 (MMIO only)

    bool operator==(const IoAccess&) const = default;

    // What an open bus reads as: every bit of `size` bytes set. all_ones() suits ports,
    // all_ones<std::uint64_t>() MMIO.
    template <std::unsigned_integral T = std::uint32_t>
    constexpr T all_ones() const {
        if (size >= sizeof(T)) return std::numeric_limits<T>::max();
        return static_cast<T>((T{1} << (8 * size)) - 1);
    }
};

struct PortRange {
    std::uint16_t first = 0;
    std::uint16_t count = 1;

    bool operator==(const PortRange&) const = default;
    constexpr bool contains(std::uint64_t port) const {
        return port >= first && port - first < count;
    }
};

class PioDevice {
  public:
    PioDevice() = default;
    PioDevice(const PioDevice&) = delete;
    PioDevice& operator=(const PioDevice&) = delete;
    virtual ~PioDevice() = default;

    virtual const char* name() const = 0;
    // All ports that the device claims. Constant over its life; the span stays valid with it.
    virtual std::span<const PortRange> ranges() const = 0;
    // `at.offset` is the absolute port, so that a device with several ranges can tell them apart.
    // An access belongs to the device that claims its first byte; the others may lie outside.
    virtual std::uint32_t read(IoAccess at) = 0;
    virtual void write(IoAccess at, std::uint32_t value) = 0;
};

}  // namespace vmm
