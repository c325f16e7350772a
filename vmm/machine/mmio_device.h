// A device that the guest reaches through memory-mapped registers. The rules are those of
// pio_device.h: any access is legal, calls come from several vCPU threads at once, and no lock is
// held while the device calls out.
#pragma once

#include <cstdint>

#include "vmm/machine/pio_device.h"
#include "vmm/memory/address.h"

namespace vmm {

struct MmioRange {
    Gpa base;
    std::uint64_t size = 0;

    bool operator==(const MmioRange&) const = default;
    constexpr bool contains(Gpa at) const { return at >= base && at.value - base.value < size; }
};

class MmioDevice {
  public:
    MmioDevice() = default;
    MmioDevice(const MmioDevice&) = delete;
    MmioDevice& operator=(const MmioDevice&) = delete;
    virtual ~MmioDevice() = default;

    virtual const char* name() const = 0;
    virtual MmioRange range() const = 0;
    // `at.offset` counts from range().base. An access may reach past the end of the range.
    virtual std::uint64_t read(IoAccess at) = 0;
    virtual void write(IoAccess at, std::uint64_t value) = 0;
};

}  // namespace vmm
