// Where things lie in a guest: guest physical addresses and I/O ports, each written once.
// The addresses are those that Xen 4.17's toolstack gives its PVH guests (measured), so that a
// guest sees the same map here as there.
#pragma once

#include <cstdint>

#include "vmm/memory/address.h"

namespace vmm::boot::layout {

// RAM starts at 0 and is one piece up to here; the rest of it continues at 4 GiB.
inline constexpr Gpa kHoleStart{0xf000'0000};
inline constexpr Gpa kHighRam{0x1'0000'0000};

// What the first megabyte is to a PC (real-mode code of other CPUs, and images that overwrite it):
// the loader keeps clear of it as long as anything else fits.
inline constexpr Gpa kLowMemoryEnd{0x10'0000};

// ACPI: a page that the AML reads, the tables, and the RSDP on a page of its own.
inline constexpr Gpa kAcpiInfo{0xfc00'0000};
inline constexpr std::uint64_t kAcpiInfoSize = 0x1000;
inline constexpr Gpa kAcpiTables{0xfc00'1000};
inline constexpr std::uint64_t kAcpiTablesSize = 0x7000;
inline constexpr Gpa kAcpiRsdp{0xfc00'8000};
inline constexpr std::uint64_t kAcpiRsdpSize = 0x40;
// All of the above in whole pages: what has to have memory behind it.
inline constexpr Gpa kAcpiStart = kAcpiInfo;
inline constexpr std::uint64_t kAcpiSize = 0x9000;

// Xen's special pages, of which a guest learns by HVM params and never by the address.
inline constexpr Gpa kSpecialPages{0xfeff'8000};
inline constexpr std::uint64_t kSpecialPagesSize = 0x8000;
inline constexpr Gpa kXenstorePage{0xfeff'c000};
inline constexpr Gpa kIdentityPageTable{0xfeff'e000};
inline constexpr Gpa kConsolePage{0xfeff'f000};

inline constexpr Gpa kIoApic{0xfec0'0000};
inline constexpr Gpa kLocalApic{0xfee0'0000};

// ACPI's ports. Power-off is a write of SLP_TYP 5 with SLP_EN to kPm1aControl (16 bits), or with a
// hardware-reduced FADT to kSleepControl (8 bits).
inline constexpr std::uint16_t kGpe0 = 0xafe0;
inline constexpr std::uint16_t kPm1aEvent = 0xb000;
inline constexpr std::uint16_t kPm1aControl = 0xb004;
inline constexpr std::uint16_t kProcessorBlock = 0xb010;
inline constexpr std::uint16_t kSleepControl = 0xb020;
inline constexpr std::uint16_t kSleepStatus = 0xb021;
inline constexpr std::uint8_t kSleepTypeS5 = 5;
inline constexpr unsigned kPm1aSleepTypeShift = 10;
inline constexpr std::uint16_t kPm1aSleepEnable = 1U << 13;
inline constexpr unsigned kSleepControlTypeShift = 2;
inline constexpr std::uint8_t kSleepControlEnable = 1U << 5;

}  // namespace vmm::boot::layout
