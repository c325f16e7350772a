// The chips of this folder have eight data lines. ISA carries a wider access to such a chip as one
// cycle for each byte, at rising ports (software does use that: a word written to 0x4d0 sets both
// ELCRs). A byte whose port is not the device's own floats high, and is ignored when written.
#pragma once

#include <algorithm>
#include <cstdint>

#include "vmm/machine/pio_device.h"

namespace devices::legacy {

template <class ReadByte>
std::uint32_t read_bytes(vmm::IoAccess at, ReadByte&& read_byte) {
    std::uint32_t value = 0;
    for (unsigned i = 0; i < std::min(at.size, 4U); ++i) {
        const std::uint8_t byte = read_byte(at.offset + i);
        value |= std::uint32_t{byte} << (8 * i);
    }
    return value;
}

template <class WriteByte>
void write_bytes(vmm::IoAccess at, std::uint32_t value, WriteByte&& write_byte) {
    for (unsigned i = 0; i < std::min(at.size, 4U); ++i) {
        write_byte(at.offset + i, static_cast<std::uint8_t>(value >> (8 * i)));
    }
}

}  // namespace devices::legacy
