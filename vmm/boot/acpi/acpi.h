// The guest's ACPI tables, like those that Xen 4.17's toolstack builds for PVH guests: RSDP, XSDT
// and RSDT, FADT, MADT, FACS and a DSDT (dsdt.asl.in). Where we differ: there is an _S5, so that a
// guest can power off through ACPI as it does on a PC, and no processor hotplug through AML.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/boot/flavour.h"
#include "vmm/memory/address.h"

namespace vmm::boot {

struct AcpiProcessor {
    std::uint32_t apic_id = 0;
    bool online = true;  // false: may come later, the guest only reserves a number for it
};

// How a guest finds the sleep registers.
enum class SleepRegisters {
    // PM1a_CNT at layout::kPm1aControl, with an FADT that is not hardware-reduced, as Xen's.
    kPm1a,
    // Sleep control and status registers at layout::kSleepControl, hardware-reduced ACPI.
    kHardwareReduced,
};

struct AcpiParams {
    Flavour flavour = Flavour::kPvh;
    std::vector<AcpiProcessor> processors;  // by vCPU number
    SleepRegisters sleep = SleepRegisters::kPm1a;
};

struct AcpiTables {
    Gpa base;                      // layout::kAcpiStart
    std::vector<std::byte> bytes;  // whole pages, layout::kAcpiSize
    Gpa rsdp;
};

// Fails when there are more processors than the tables' pages have room for.
Result<AcpiTables> build_acpi(const AcpiParams& params);

}  // namespace vmm::boot
