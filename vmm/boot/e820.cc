#include "vmm/boot/e820.h"

#include <algorithm>

#include "vmm/boot/layout.h"

namespace vmm::boot {

std::vector<MemoryMapEntry> build_memory_map(std::uint64_t ram_size, Acpi acpi) {
    using enum MemoryType;
    const std::uint64_t low = std::min(ram_size, layout::kHoleStart.value);
    std::vector<MemoryMapEntry> map;
    if (low != 0) map.push_back({Gpa{0}, low, kRam});
    map.push_back({layout::kSpecialPages, layout::kSpecialPagesSize, kReserved});
    if (acpi == Acpi::kPresent) {
        map.push_back({layout::kAcpiRsdp, layout::kAcpiRsdpSize, kAcpi});
        map.push_back({layout::kAcpiInfo, layout::kAcpiInfoSize, kAcpi});
        map.push_back({layout::kAcpiTables, layout::kAcpiTablesSize, kAcpi});
    }
    if (ram_size > low) map.push_back({layout::kHighRam, ram_size - low, kRam});
    return map;
}

}  // namespace vmm::boot
