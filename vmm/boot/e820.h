// The guest's memory map: handed to it in start_info and by XENMEM_memory_map, and to the loader
// as the only authority on what is RAM.
#pragma once

#include <cstdint>
#include <vector>

#include "vmm/memory/address.h"

namespace vmm::boot {

// Types of INT 15h, function E820h, as ACPI names them.
enum class MemoryType : std::uint32_t {
    kRam = 1,
    kReserved = 2,
    kAcpi = 3,
};

struct MemoryMapEntry {
    Gpa base;
    std::uint64_t size = 0;
    MemoryType type = MemoryType::kRam;
    bool operator==(const MemoryMapEntry&) const = default;
};

enum class Acpi { kAbsent, kPresent };

// The map of a guest with `ram_size` bytes (a multiple of the page size) of RAM, entries in the
// order in which Xen's toolstack lists them, which is not that of their addresses. Both flavours
// have the same: a directly booted HVM guest has no firmware that would want low memory.
std::vector<MemoryMapEntry> build_memory_map(std::uint64_t ram_size, Acpi acpi);

}  // namespace vmm::boot
