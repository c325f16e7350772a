#include "vmm/boot/acpi/acpi.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>

#include "vmm/boot/layout.h"

namespace vmm::boot {
namespace {

// dsdt_aml_code: made by iasl out of dsdt.asl.in.
#include <dsdt.hex>

// Layouts and values are those of the ACPI Specification 5.0 (chapter 5.2 has the tables).
// Multi-byte members are not aligned in all of them, hence the packing.
#pragma pack(push, 1)

struct Header {
    std::array<char, 4> signature;
    std::uint32_t length;
    std::uint8_t revision;
    std::uint8_t checksum;
    std::array<char, 6> oem_id;
    std::array<char, 8> oem_table_id;
    std::uint32_t oem_revision;
    std::array<char, 4> creator_id;
    std::uint32_t creator_revision;
};
static_assert(sizeof(Header) == 36);

struct Rsdp {
    std::array<char, 8> signature;
    std::uint8_t checksum;  // of the first 20 bytes
    std::array<char, 6> oem_id;
    std::uint8_t revision;
    std::uint32_t rsdt;
    std::uint32_t length;
    std::uint64_t xsdt;
    std::uint8_t extended_checksum;
    std::array<std::uint8_t, 3> reserved;
};
static_assert(sizeof(Rsdp) == 36);
constexpr std::size_t kRsdpFirstPart = 20;

struct Address {  // "generic address structure"
    std::uint8_t space;
    std::uint8_t bit_width;
    std::uint8_t bit_offset;
    std::uint8_t access_size;
    std::uint64_t address;
};
static_assert(sizeof(Address) == 12);

struct Fadt {
    Header header;
    std::uint32_t facs;
    std::uint32_t dsdt;
    std::uint8_t reserved0;
    std::uint8_t preferred_pm_profile;
    std::uint16_t sci_interrupt;
    std::uint32_t smi_command;
    std::uint8_t acpi_enable;
    std::uint8_t acpi_disable;
    std::uint8_t s4_bios_request;
    std::uint8_t pstate_control;
    std::uint32_t pm1a_event;
    std::uint32_t pm1b_event;
    std::uint32_t pm1a_control;
    std::uint32_t pm1b_control;
    std::uint32_t pm2_control;
    std::uint32_t pm_timer;
    std::uint32_t gpe0;
    std::uint32_t gpe1;
    std::uint8_t pm1_event_length;
    std::uint8_t pm1_control_length;
    std::uint8_t pm2_control_length;
    std::uint8_t pm_timer_length;
    std::uint8_t gpe0_length;
    std::uint8_t gpe1_length;
    std::uint8_t gpe1_base;
    std::uint8_t cstate_control;
    std::uint16_t c2_latency;
    std::uint16_t c3_latency;
    std::uint16_t flush_size;
    std::uint16_t flush_stride;
    std::uint8_t duty_offset;
    std::uint8_t duty_width;
    std::uint8_t day_alarm;
    std::uint8_t month_alarm;
    std::uint8_t century;
    std::uint16_t boot_flags;
    std::uint8_t reserved1;
    std::uint32_t flags;
    // From here on: ACPI 2.0 and later.
    Address reset;
    std::uint8_t reset_value;
    std::array<std::uint8_t, 3> reserved2;
    std::uint64_t x_facs;
    std::uint64_t x_dsdt;
    Address x_pm1a_event;
    Address x_pm1b_event;
    Address x_pm1a_control;
    Address x_pm1b_control;
    Address x_pm2_control;
    Address x_pm_timer;
    Address x_gpe0;
    Address x_gpe1;
    Address sleep_control;
    Address sleep_status;
};
static_assert(sizeof(Fadt) == 268 && offsetof(Fadt, reset) == 116);
constexpr std::size_t kFadt1Size = offsetof(Fadt, reset);  // ACPI 1.0 knows the table up to there

struct Facs {
    std::array<char, 4> signature;
    std::uint32_t length;
    std::uint32_t hardware_signature;
    std::uint32_t waking_vector;
    std::uint32_t global_lock;
    std::uint32_t flags;
    std::uint64_t x_waking_vector;
    std::uint8_t version;
    std::array<std::uint8_t, 31> reserved;
};
static_assert(sizeof(Facs) == 64);

struct Madt {
    Header header;
    std::uint32_t local_apic;
    std::uint32_t flags;
};

struct MadtLocalApic {
    std::uint8_t type = 0;
    std::uint8_t length = 8;
    std::uint8_t uid;
    std::uint8_t apic_id;
    std::uint32_t flags;
};
static_assert(sizeof(MadtLocalApic) == 8);

struct MadtIoApic {
    std::uint8_t type = 1;
    std::uint8_t length = 12;
    std::uint8_t id;
    std::uint8_t reserved = 0;
    std::uint32_t address;
    std::uint32_t gsi_base;
};
static_assert(sizeof(MadtIoApic) == 12);

struct MadtOverride {
    std::uint8_t type = 2;
    std::uint8_t length = 10;
    std::uint8_t bus = 0;  // ISA
    std::uint8_t source;
    std::uint32_t gsi;
    std::uint16_t flags;
};
static_assert(sizeof(MadtOverride) == 10);

struct MadtX2Apic {
    std::uint8_t type = 9;
    std::uint8_t length = 16;
    std::uint16_t reserved = 0;
    std::uint32_t apic_id;
    std::uint32_t flags;
    std::uint32_t uid;
};
static_assert(sizeof(MadtX2Apic) == 16);

// The page that the AML reads: of its 64 bytes only the processor bitmap is ours to use. What
// comes before it is where Xen's AML finds the number of processors and more, and stays zero but
// for that number.
struct InfoPage {
    std::uint16_t flags;
    std::uint16_t processors;
    std::array<std::uint8_t, 44> unused;
    std::array<std::uint8_t, 16> online;  // dsdt.asl.in: ONLN
};
static_assert(sizeof(InfoPage) == 64 && offsetof(InfoPage, online) == 0x30);

#pragma pack(pop)

constexpr std::uint8_t kSystemIo = 1;
constexpr std::uint8_t kByteAccess = 1;
constexpr std::uint8_t kWordAccess = 2;
constexpr std::uint8_t kDwordAccess = 3;

constexpr std::uint32_t kFadtHardwareReduced = 1U << 20;
// WBINVD works, C1 on all processors, power and sleep buttons are not fixed-hardware ones, no
// fixed RTC wake-up, 32-bit timer, platform clock: Xen's value.
constexpr std::uint32_t kFadtFlags = 0x0000'8175;
constexpr std::uint16_t kBootNoVga = 1U << 2;
constexpr std::uint16_t kBootNoRtc = 1U << 5;
constexpr std::uint16_t kSci = 9;
constexpr std::uint8_t kResetValue = 6;
constexpr std::uint16_t kResetPort = 0xcf9;
// Latencies above these limits of ACPI's say that there is no C2 and no C3.
constexpr std::uint16_t kNoCState = 0x0fff;

constexpr std::uint32_t kMadtPcAt = 1;     // there may be 8259s
constexpr std::uint32_t kMadtEnabled = 1;  // of a processor
constexpr std::uint16_t kActiveLowLevel = 0xf;
constexpr std::uint8_t kIoApicId = 1;
constexpr std::uint32_t kFirstX2ApicOnlyId = 255;

constexpr std::size_t kTableAlignment = 16;
constexpr std::size_t kDsdtProcessors = 128;

template <std::size_t N>
constexpr std::array<char, N> text(std::string_view s) {
    std::array<char, N> padded{};
    std::copy_n(s.begin(), std::min(N, s.size()), padded.begin());
    return padded;
}

Header header_for(std::string_view signature, std::uint8_t revision) {
    return {.signature = text<4>(signature),
            .length = 0,
            .revision = revision,
            .checksum = 0,
            .oem_id = text<6>("Xen"),
            .oem_table_id = text<8>("HVM"),
            .oem_revision = 0,
            .creator_id = text<4>("HVML"),
            .creator_revision = 0};
}

constexpr Address io_port(std::uint16_t port, std::uint8_t bits, std::uint8_t access) {
    return {.space = kSystemIo,
            .bit_width = bits,
            .bit_offset = 0,
            .access_size = access,
            .address = port};
}

std::uint8_t checksum_for(std::span<const std::byte> bytes) {
    std::uint8_t sum = 0;
    for (const std::byte b : bytes)
        sum = static_cast<std::uint8_t>(sum + std::to_integer<int>(b));
    return static_cast<std::uint8_t>(-sum);
}

template <class T>
void append(std::vector<std::byte>& to, const T& value) {
    const auto bytes = std::as_bytes(std::span(&value, 1));
    to.insert(to.end(), bytes.begin(), bytes.end());
}

// A table of a header and what follows it, with the length and checksum filled in.
void finish(std::span<std::byte> table) {
    const auto length = static_cast<std::uint32_t>(table.size());
    std::memcpy(table.data() + offsetof(Header, length), &length, sizeof(length));
    table[offsetof(Header, checksum)] = std::byte{0};
    table[offsetof(Header, checksum)] = std::byte{checksum_for(table)};
}

// Fills the pages from kAcpiStart on, tables one after the other.
class Pages {
  public:
    Pages() : bytes_(layout::kAcpiSize) {}

    void put(Gpa at, std::span<const std::byte> bytes) {
        std::copy(
            bytes.begin(), bytes.end(),
            bytes_.begin() + static_cast<std::ptrdiff_t>(at.value - layout::kAcpiStart.value));
    }

    // Puts a table that begins with a Header behind the last one. Its address fits 32 bits; none
    // when there is no room.
    Result<std::uint32_t> add(std::vector<std::byte> table) {
        finish(table);
        const Gpa at = next_;
        const std::uint64_t end = layout::kAcpiTables.value + layout::kAcpiTablesSize;
        if (table.size() > end - at.value) {
            return user_error("vcpus: too many for the ACPI tables");
        }
        put(at, table);
        const std::uint64_t size = (table.size() + kTableAlignment - 1) & -kTableAlignment;
        next_ = Gpa{std::min(at.value + size, end)};
        return static_cast<std::uint32_t>(at.value);
    }

    // Room for the FACS, which has neither header nor checksum and stands first.
    void put_facs(const Facs& facs) {
        put(next_, std::as_bytes(std::span(&facs, 1)));
        next_ = next_ + sizeof(facs);
    }

    std::vector<std::byte> take() && { return std::move(bytes_); }

  private:
    std::vector<std::byte> bytes_;
    Gpa next_ = layout::kAcpiTables;
};

std::vector<std::byte> dsdt() {
    const auto code = std::as_bytes(std::span(dsdt_aml_code));
    return {code.begin(), code.end()};
}

// Xen's FADT is not hardware-reduced although its PVH guests have none of the registers it names.
// What Linux makes of it: no SMI command means that ACPI mode is on already; the SCI is requested
// and never comes; status bits that read as ones are cleared and ignored; to power off it writes
// SLP_TYP to PM1a_CNT, then once more with SLP_EN, and waits until PM1a_STS shows WAK, which it
// does when the port reads as ones.
Fadt fadt_for(const AcpiParams& params, std::uint32_t dsdt) {
    const auto facs = static_cast<std::uint32_t>(layout::kAcpiTables.value);
    Fadt fadt{};
    fadt.header = header_for("FACP", 5);
    fadt.dsdt = dsdt;
    fadt.x_dsdt = dsdt;
    fadt.c2_latency = kNoCState;
    fadt.c3_latency = kNoCState;
    fadt.boot_flags = kBootNoVga;
    if (params.flavour == Flavour::kPvh) fadt.boot_flags |= kBootNoRtc;
    fadt.flags = kFadtFlags;
    if (params.sleep == SleepRegisters::kHardwareReduced) {
        fadt.flags |= kFadtHardwareReduced;
        fadt.sleep_control = io_port(layout::kSleepControl, 8, kByteAccess);
        fadt.sleep_status = io_port(layout::kSleepStatus, 8, kByteAccess);
        return fadt;
    }
    fadt.facs = facs;
    fadt.x_facs = facs;
    fadt.sci_interrupt = kSci;
    fadt.pm1a_event = layout::kPm1aEvent;
    fadt.pm1_event_length = 4;
    fadt.x_pm1a_event = io_port(layout::kPm1aEvent, 32, kWordAccess);
    fadt.pm1a_control = layout::kPm1aControl;
    fadt.pm1_control_length = 2;
    fadt.x_pm1a_control = io_port(layout::kPm1aControl, 16, kWordAccess);
    fadt.gpe0 = layout::kGpe0;
    fadt.gpe0_length = 4;
    fadt.x_gpe0 = io_port(layout::kGpe0, 32, kByteAccess);
    fadt.reset = io_port(kResetPort, 8, kByteAccess);
    fadt.reset_value = kResetValue;
    return fadt;
}

std::vector<std::byte> bytes_of(const Fadt& fadt) {
    std::vector<std::byte> table;
    append(table, fadt);
    return table;
}

// The same for ACPI 1.0, which finds it through the RSDT.
std::vector<std::byte> fadt1_of(Fadt fadt) {
    fadt.header.revision = 1;
    std::vector<std::byte> table = bytes_of(fadt);
    table.resize(kFadt1Size);
    return table;
}

std::vector<std::byte> madt_for(const AcpiParams& params) {
    std::vector<std::byte> table;
    append(table, Madt{.header = header_for("APIC", 2),
                       .local_apic = static_cast<std::uint32_t>(layout::kLocalApic.value),
                       .flags = kMadtPcAt});
    if (params.flavour == Flavour::kHvm) {
        append(table, MadtIoApic{.id = kIoApicId,
                                 .address = static_cast<std::uint32_t>(layout::kIoApic.value),
                                 .gsi_base = 0});
        append(table, MadtOverride{.source = 0, .gsi = 2, .flags = 0});
        append(table, MadtOverride{.source = kSci, .gsi = kSci, .flags = kActiveLowLevel});
    }
    for (std::size_t i = 0; i < params.processors.size(); ++i) {
        const AcpiProcessor& p = params.processors[i];
        const std::uint32_t flags = p.online ? kMadtEnabled : 0;
        if (p.apic_id < kFirstX2ApicOnlyId && i < kFirstX2ApicOnlyId) {
            append(table, MadtLocalApic{.uid = static_cast<std::uint8_t>(i),
                                        .apic_id = static_cast<std::uint8_t>(p.apic_id),
                                        .flags = flags});
        } else {
            append(table,
                   MadtX2Apic{
                       .apic_id = p.apic_id, .flags = flags, .uid = static_cast<std::uint32_t>(i)});
        }
    }
    return table;
}

template <class Pointer>
std::vector<std::byte> root_table(std::string_view signature, std::array<Pointer, 2> entries) {
    std::vector<std::byte> table;
    append(table, header_for(signature, 1));
    append(table, entries);
    return table;
}

Rsdp rsdp_for(std::uint32_t rsdt, std::uint32_t xsdt) {
    Rsdp rsdp{.signature = text<8>("RSD PTR "),
              .checksum = 0,
              .oem_id = text<6>("Xen"),
              .revision = 2,
              .rsdt = rsdt,
              .length = sizeof(Rsdp),
              .xsdt = xsdt,
              .extended_checksum = 0,
              .reserved = {}};
    const auto bytes = std::as_bytes(std::span(&rsdp, 1));
    rsdp.checksum = checksum_for(bytes.first(kRsdpFirstPart));
    rsdp.extended_checksum = checksum_for(bytes);
    return rsdp;
}

InfoPage info_page(const AcpiParams& params) {
    InfoPage info{};
    info.processors = static_cast<std::uint16_t>(params.processors.size());
    const std::size_t known = std::min(params.processors.size(), kDsdtProcessors);
    for (std::size_t i = 0; i < known; ++i) {
        if (params.processors[i].online) {
            info.online.at(i / 8) |= static_cast<std::uint8_t>(1U << (i % 8));
        }
    }
    return info;
}

}  // namespace

Result<AcpiTables> build_acpi(const AcpiParams& params) {
    Pages pages;
    const InfoPage info = info_page(params);
    pages.put(layout::kAcpiInfo, std::as_bytes(std::span(&info, 1)));
    pages.put_facs(Facs{.signature = text<4>("FACS"),
                        .length = sizeof(Facs),
                        .hardware_signature = 0,
                        .waking_vector = 0,
                        .global_lock = 0,
                        .flags = 0,
                        .x_waking_vector = 0,
                        .version = 1,
                        .reserved = {}});
    const std::uint32_t dsdt_at = TRY(pages.add(dsdt()));
    const Fadt fadt = fadt_for(params, dsdt_at);
    const std::uint32_t fadt_at = TRY(pages.add(bytes_of(fadt)));
    // ACPI 1.0 has no hardware-reduced form, and then there is nothing for it to find.
    const std::uint32_t fadt1_at =
        params.sleep == SleepRegisters::kHardwareReduced ? fadt_at : TRY(pages.add(fadt1_of(fadt)));
    const std::uint32_t madt_at = TRY(pages.add(madt_for(params)));
    const std::uint32_t xsdt_at =
        TRY(pages.add(root_table<std::uint64_t>("XSDT", {fadt_at, madt_at})));
    const std::uint32_t rsdt_at =
        TRY(pages.add(root_table<std::uint32_t>("RSDT", {fadt1_at, madt_at})));
    const Rsdp rsdp = rsdp_for(rsdt_at, xsdt_at);
    pages.put(layout::kAcpiRsdp, std::as_bytes(std::span(&rsdp, 1)));
    return AcpiTables{
        .base = layout::kAcpiStart, .bytes = std::move(pages).take(), .rsdp = layout::kAcpiRsdp};
}

}  // namespace vmm::boot
