// The two buses: who answers at an I/O port or a physical address that has no memory. What nobody
// claims reads as all ones and ignores writes, as on Xen.
//
// Devices are added before the first vCPU runs and never removed, so look-ups need no lock.
#pragma once

#include <algorithm>
#include <vector>

#include "vmm/machine/mmio_device.h"
#include "vmm/machine/pio_device.h"

namespace vmm {

class PioBus {
  public:
    // `device` must live as long as the bus.
    void add(PioDevice& device) {
        for (const PortRange& range : device.ranges()) {
            entries_.push_back({range, &device});
        }
    }
    std::uint32_t read(IoAccess at) const {
        PioDevice* device = find(at.offset);
        return device == nullptr ? at.all_ones() : device->read(at);
    }
    void write(IoAccess at, std::uint32_t value) const {
        if (PioDevice* device = find(at.offset)) device->write(at, value);
    }

  private:
    struct Entry {
        PortRange range;
        PioDevice* device;
    };
    PioDevice* find(std::uint64_t port) const {
        for (const Entry& e : entries_) {
            if (e.range.contains(port)) return e.device;
        }
        return nullptr;
    }
    std::vector<Entry> entries_;
};

class MmioBus {
  public:
    void add(MmioDevice& device) { devices_.push_back(&device); }
    std::uint64_t read(Gpa at, unsigned size) const {
        if (MmioDevice* device = find(at)) {
            return device->read({.offset = at.value - device->range().base.value, .size = size});
        }
        return ~std::uint64_t{0};
    }
    void write(Gpa at, unsigned size, std::uint64_t value) const {
        if (MmioDevice* device = find(at)) {
            device->write({.offset = at.value - device->range().base.value, .size = size}, value);
        }
    }

  private:
    MmioDevice* find(Gpa at) const {
        for (MmioDevice* device : devices_) {
            if (device->range().contains(at)) return device;
        }
        return nullptr;
    }
    std::vector<MmioDevice*> devices_;
};

}  // namespace vmm
