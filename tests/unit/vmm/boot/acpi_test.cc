#include "vmm/boot/acpi/acpi.h"

#include <cstring>
#include <map>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "tests/unit/vmm/boot/elf_builder.h"
#include "vmm/boot/layout.h"

namespace vmm::boot {
namespace {

using namespace testing;

std::vector<AcpiProcessor> processors(std::size_t count, std::uint32_t stride = 1) {
    std::vector<AcpiProcessor> result;
    for (std::size_t i = 0; i < count; ++i) {
        result.push_back({.apic_id = static_cast<std::uint32_t>(i) * stride});
    }
    return result;
}

// The tables as a guest finds them: from the RSDP on, by address.
class Reader {
  public:
    explicit Reader(const AcpiParams& params) {
        auto built = build_acpi(params);
        EXPECT_TRUE(built);
        tables_ = *std::move(built);
    }

    template <class T>
    T get(std::uint64_t at) const {
        T value{};
        const ByteVector raw = bytes_at(at, sizeof(T));
        std::memcpy(&value, raw.data(), sizeof(T));
        return value;
    }
    ByteVector bytes_at(std::uint64_t at, std::size_t size) const {
        EXPECT_GE(at, tables_.base.value);
        EXPECT_LE(at + size, tables_.base.value + tables_.bytes.size());
        const auto begin = tables_.bytes.begin() + static_cast<long>(at - tables_.base.value);
        return {begin, begin + static_cast<long>(size)};
    }
    std::string text(std::uint64_t at, std::size_t size) const {
        std::string s;
        for (const std::byte b : bytes_at(at, size))
            s += std::to_integer<char>(b);
        return s;
    }
    std::uint8_t sum(std::uint64_t at, std::size_t size) const {
        unsigned total = 0;
        for (const std::byte b : bytes_at(at, size))
            total += std::to_integer<unsigned>(b);
        return static_cast<std::uint8_t>(total);
    }
    std::uint32_t length(std::uint64_t table) const { return get<std::uint32_t>(table + 4); }

    std::uint64_t rsdp() const { return tables_.rsdp.value; }
    std::uint64_t xsdt() const { return get<std::uint64_t>(rsdp() + 24); }
    std::uint64_t rsdt() const { return get<std::uint32_t>(rsdp() + 16); }
    std::uint64_t fadt() const { return get<std::uint64_t>(xsdt() + 36); }
    std::uint64_t madt() const { return get<std::uint64_t>(xsdt() + 44); }
    std::uint64_t fadt1() const { return get<std::uint32_t>(rsdt() + 36); }
    std::uint64_t dsdt() const { return get<std::uint64_t>(fadt() + 140); }
    const AcpiTables& tables() const { return tables_; }

    // The MADT's entries, as raw bytes.
    std::vector<ByteVector> madt_entries() const {
        std::vector<ByteVector> entries;
        const std::uint64_t end = madt() + length(madt());
        for (std::uint64_t at = madt() + 44; at < end;) {
            const auto size = get<std::uint8_t>(at + 1);
            EXPECT_GE(size, 2u);
            if (size < 2) break;
            entries.push_back(bytes_at(at, size));
            at += size;
        }
        return entries;
    }

  private:
    AcpiTables tables_;
};

template <class T>
T field(const ByteVector& entry, std::size_t at) {
    T value{};
    std::memcpy(&value, entry.data() + at, sizeof(T));
    return value;
}

const AcpiParams kTwo{.flavour = Flavour::kPvh, .processors = processors(2, 2)};

TEST(Acpi, TheTablesFillThePagesOfTheLayout) {
    const Reader acpi(kTwo);
    EXPECT_EQ(acpi.tables().base, Gpa{0xfc00'0000});
    EXPECT_EQ(acpi.tables().bytes.size(), 0x9000u);
    EXPECT_EQ(acpi.tables().rsdp, Gpa{0xfc00'8000});
}

TEST(Acpi, TheRsdpIsXens) {
    const Reader acpi(kTwo);
    EXPECT_EQ(acpi.text(acpi.rsdp(), 8), "RSD PTR ");
    EXPECT_EQ(acpi.text(acpi.rsdp() + 9, 6), std::string("Xen\0\0\0", 6));
    EXPECT_EQ(acpi.get<std::uint8_t>(acpi.rsdp() + 15), 2u);
    EXPECT_EQ(acpi.get<std::uint32_t>(acpi.rsdp() + 20), 36u);
    EXPECT_EQ(acpi.sum(acpi.rsdp(), 20), 0u);
    EXPECT_EQ(acpi.sum(acpi.rsdp(), 36), 0u);
}

TEST(Acpi, EveryTableHasItsSignatureSizeOwnerAndChecksum) {
    for (const Flavour flavour : {Flavour::kPvh, Flavour::kHvm}) {
        for (const SleepRegisters sleep :
             {SleepRegisters::kPm1a, SleepRegisters::kHardwareReduced}) {
            for (const std::size_t count : {1, 2, 3, 128, 300}) {
                const Reader acpi(
                    {.flavour = flavour, .processors = processors(count), .sleep = sleep});
                const std::pair<std::uint64_t, const char*> kTables[] = {
                    {acpi.xsdt(), "XSDT"}, {acpi.rsdt(), "RSDT"},  {acpi.fadt(), "FACP"},
                    {acpi.madt(), "APIC"}, {acpi.fadt1(), "FACP"}, {acpi.dsdt(), "DSDT"}};
                for (const auto& [at, signature] : kTables) {
                    SCOPED_TRACE(signature);
                    EXPECT_EQ(acpi.text(at, 4), signature);
                    EXPECT_EQ(acpi.sum(at, acpi.length(at)), 0u);
                    EXPECT_EQ(acpi.text(at + 10, 6), std::string("Xen\0\0\0", 6));
                    EXPECT_EQ(acpi.text(at + 16, 8), std::string("HVM\0\0\0\0\0", 8));
                    EXPECT_EQ(acpi.get<std::uint32_t>(at + 24), 0u);
                    EXPECT_EQ(acpi.text(at + 28, 4), at == acpi.dsdt() ? "INTL" : "HVML");
                    EXPECT_GE(at, 0xfc00'1040u);
                    EXPECT_LE(at + acpi.length(at), 0xfc00'8000u);
                }
                EXPECT_EQ(acpi.length(acpi.xsdt()), 52u);
                EXPECT_EQ(acpi.length(acpi.rsdt()), 44u);
                EXPECT_EQ(acpi.get<std::uint32_t>(acpi.rsdt() + 40), acpi.madt());
            }
        }
    }
}

TEST(Acpi, TheFadtIsXens) {
    const Reader acpi(kTwo);
    const std::uint64_t fadt = acpi.fadt();
    EXPECT_EQ(acpi.length(fadt), 268u);
    EXPECT_EQ(acpi.get<std::uint8_t>(fadt + 8), 5u);
    EXPECT_EQ(acpi.get<std::uint32_t>(fadt + 36), 0xfc00'1000u);  // FACS
    EXPECT_EQ(acpi.get<std::uint32_t>(fadt + 40), 0xfc00'1040u);  // DSDT
    EXPECT_EQ(acpi.get<std::uint16_t>(fadt + 46), 9u);            // SCI
    EXPECT_EQ(acpi.get<std::uint32_t>(fadt + 48), 0u);            // SMI command
    EXPECT_EQ(acpi.get<std::uint32_t>(fadt + 56), 0xb000u);       // PM1a event
    EXPECT_EQ(acpi.get<std::uint32_t>(fadt + 64), 0xb004u);       // PM1a control
    EXPECT_EQ(acpi.get<std::uint32_t>(fadt + 76), 0u);            // PM timer
    EXPECT_EQ(acpi.get<std::uint32_t>(fadt + 80), 0xafe0u);       // GPE0
    EXPECT_EQ(acpi.get<std::uint8_t>(fadt + 88), 4u);
    EXPECT_EQ(acpi.get<std::uint8_t>(fadt + 89), 2u);
    EXPECT_EQ(acpi.get<std::uint8_t>(fadt + 91), 0u);
    EXPECT_EQ(acpi.get<std::uint8_t>(fadt + 92), 4u);
    EXPECT_EQ(acpi.get<std::uint16_t>(fadt + 109), 0x24u);     // boot flags
    EXPECT_EQ(acpi.get<std::uint32_t>(fadt + 112), 0x8175u);   // flags
    EXPECT_EQ(acpi.get<std::uint64_t>(fadt + 120), 0xcf9u);    // reset register
    EXPECT_EQ(acpi.get<std::uint8_t>(fadt + 128), 6u);         // and its value
    EXPECT_EQ(acpi.get<std::uint64_t>(fadt + 152), 0xb000u);   // X_PM1a event
    EXPECT_EQ(acpi.get<std::uint64_t>(fadt + 176), 0xb004u);   // X_PM1a control
    EXPECT_EQ(acpi.bytes_at(fadt + 244, 24), ByteVector(24));  // no sleep registers
}

TEST(Acpi, TheRsdtsFadtIsThatOfAcpi1) {
    const Reader acpi(kTwo);
    EXPECT_EQ(acpi.length(acpi.fadt1()), 116u);
    EXPECT_EQ(acpi.get<std::uint8_t>(acpi.fadt1() + 8), 1u);
    EXPECT_EQ(acpi.bytes_at(acpi.fadt1() + 36, 80), acpi.bytes_at(acpi.fadt() + 36, 80));
}

TEST(Acpi, AHardwareReducedFadtHasSleepRegistersAndNoOthers) {
    AcpiParams params = kTwo;
    params.sleep = SleepRegisters::kHardwareReduced;
    const Reader acpi(params);
    const std::uint64_t fadt = acpi.fadt();
    EXPECT_EQ(acpi.get<std::uint32_t>(fadt + 112), 0x8175u | 1U << 20);
    EXPECT_EQ(acpi.get<std::uint32_t>(fadt + 56), 0u);
    EXPECT_EQ(acpi.get<std::uint32_t>(fadt + 64), 0u);
    EXPECT_EQ(acpi.get<std::uint32_t>(fadt + 80), 0u);
    // System I/O, 8 bits, byte access.
    EXPECT_EQ(acpi.get<std::uint32_t>(fadt + 244), 0x0100'0801u);
    EXPECT_EQ(acpi.get<std::uint64_t>(fadt + 248), layout::kSleepControl);
    EXPECT_EQ(acpi.get<std::uint32_t>(fadt + 256), 0x0100'0801u);
    EXPECT_EQ(acpi.get<std::uint64_t>(fadt + 260), layout::kSleepStatus);
    EXPECT_EQ(acpi.fadt1(), fadt);
    EXPECT_EQ(acpi.dsdt(), 0xfc00'1040u);
}

TEST(Acpi, AnHvmGuestHasACmosRtc) {
    AcpiParams params = kTwo;
    params.flavour = Flavour::kHvm;
    const Reader acpi(params);
    EXPECT_EQ(acpi.get<std::uint16_t>(acpi.fadt() + 109), 0x04u);
}

TEST(Acpi, TheFacsIsWhereXenHasIt) {
    const Reader acpi(kTwo);
    EXPECT_EQ(acpi.text(0xfc00'1000, 4), "FACS");
    EXPECT_EQ(acpi.get<std::uint32_t>(0xfc00'1004), 64u);
    EXPECT_EQ(acpi.get<std::uint8_t>(0xfc00'1020), 1u);
}

TEST(Acpi, APvhMadtHasAProcessorForEachVcpuAndNothingElse) {
    const Reader acpi(kTwo);
    EXPECT_EQ(acpi.length(acpi.madt()), 60u);
    EXPECT_EQ(acpi.get<std::uint8_t>(acpi.madt() + 8), 2u);
    EXPECT_EQ(acpi.get<std::uint32_t>(acpi.madt() + 36), 0xfee0'0000u);
    EXPECT_EQ(acpi.get<std::uint32_t>(acpi.madt() + 40), 1u);
    const auto entries = acpi.madt_entries();
    ASSERT_EQ(entries.size(), 2u);
    for (std::uint8_t i = 0; i < 2; ++i) {
        EXPECT_EQ(entries[i], (ByteVector{std::byte{0}, std::byte{8}, std::byte{i},
                                          static_cast<std::byte>(2 * i), std::byte{1}, std::byte{0},
                                          std::byte{0}, std::byte{0}}));
    }
}

TEST(Acpi, AnHvmMadtHasAnIoApicAndTwoOverrides) {
    AcpiParams params = kTwo;
    params.flavour = Flavour::kHvm;
    const auto entries = Reader(params).madt_entries();
    ASSERT_EQ(entries.size(), 5u);
    std::map<int, std::vector<ByteVector>> by_type;
    for (const ByteVector& e : entries)
        by_type[field<std::uint8_t>(e, 0)].push_back(e);
    ASSERT_EQ(by_type[1].size(), 1u);
    EXPECT_EQ(field<std::uint8_t>(by_type[1][0], 2), 1u);
    EXPECT_EQ(field<std::uint32_t>(by_type[1][0], 4), 0xfec0'0000u);
    EXPECT_EQ(field<std::uint32_t>(by_type[1][0], 8), 0u);
    ASSERT_EQ(by_type[2].size(), 2u);
    EXPECT_EQ(field<std::uint8_t>(by_type[2][0], 3), 0u);
    EXPECT_EQ(field<std::uint32_t>(by_type[2][0], 4), 2u);
    EXPECT_EQ(field<std::uint16_t>(by_type[2][0], 8), 0u);
    EXPECT_EQ(field<std::uint8_t>(by_type[2][1], 3), 9u);
    EXPECT_EQ(field<std::uint32_t>(by_type[2][1], 4), 9u);
    EXPECT_EQ(field<std::uint16_t>(by_type[2][1], 8), 0xfu);
}

TEST(Acpi, ProcessorsOfflineAreListedAsDisabled) {
    AcpiParams params = kTwo;
    params.processors[1].online = false;
    const Reader acpi(params);
    EXPECT_EQ(field<std::uint32_t>(acpi.madt_entries()[0], 4), 1u);
    EXPECT_EQ(field<std::uint32_t>(acpi.madt_entries()[1], 4), 0u);
    EXPECT_EQ(acpi.get<std::uint8_t>(0xfc00'0030), 1u);
}

TEST(Acpi, ApicIdsFrom255OnAreX2Apics) {
    for (const std::uint32_t stride : {1U, 2U}) {
        const auto entries =
            Reader({.flavour = Flavour::kPvh, .processors = processors(300, stride)})
                .madt_entries();
        ASSERT_EQ(entries.size(), 300u);
        for (std::uint32_t i = 0; i < 300; ++i) {
            const ByteVector& e = entries[i];
            if (i * stride < 255) {
                EXPECT_EQ(field<std::uint16_t>(e, 0), 0x0800u);
                EXPECT_EQ(field<std::uint8_t>(e, 2), i);
                EXPECT_EQ(field<std::uint8_t>(e, 3), i * stride);
            } else {
                EXPECT_EQ(field<std::uint16_t>(e, 0), 0x1009u);
                EXPECT_EQ(field<std::uint32_t>(e, 4), i * stride);
                EXPECT_EQ(field<std::uint32_t>(e, 8), 1u);
                EXPECT_EQ(field<std::uint32_t>(e, 12), i);
            }
        }
    }
}

TEST(Acpi, AThousandProcessorsFitAndTooManyAreRefused) {
    EXPECT_TRUE(build_acpi({.flavour = Flavour::kHvm, .processors = processors(1024, 2)}));
    const auto refused = build_acpi({.flavour = Flavour::kPvh, .processors = processors(4096)});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().fault, Fault::kUser);
}

TEST(Acpi, TheInfoPageSaysWhichProcessorsThereAre) {
    const Reader acpi({.flavour = Flavour::kPvh, .processors = processors(11)});
    EXPECT_EQ(acpi.get<std::uint16_t>(0xfc00'0002), 11u);
    EXPECT_EQ(acpi.get<std::uint64_t>(0xfc00'0030), 0x7ffu);
    EXPECT_EQ(acpi.get<std::uint64_t>(0xfc00'0038), 0u);
    // The DSDT has 128 of them; those beyond are in the MADT alone.
    const Reader many({.flavour = Flavour::kPvh, .processors = processors(200)});
    EXPECT_EQ(many.get<std::uint64_t>(0xfc00'0030), UINT64_MAX);
    EXPECT_EQ(many.get<std::uint64_t>(0xfc00'0038), UINT64_MAX);
    EXPECT_EQ(many.get<std::uint64_t>(0xfc00'0040), 0u);
}

TEST(Acpi, TheDsdtHasSoftOffAnd128Processors) {
    const Reader acpi(kTwo);
    EXPECT_EQ(acpi.get<std::uint8_t>(acpi.dsdt() + 8), 5u);
    const std::string aml = acpi.text(acpi.dsdt(), acpi.length(acpi.dsdt()));
    // NameOp "_S5_" PackageOp, 4 elements: BytePrefix 5, Zero, Zero, Zero.
    EXPECT_NE(aml.find(std::string("\x08_S5_\x12\x07\x04\x0a\x05\0\0\0", 13)), std::string::npos);
    for (const char* other : {"_S1_", "_S3_", "_S4_", "_PRT", "PNP0A03"}) {
        EXPECT_EQ(aml.find(other), std::string::npos);
    }
    std::set<std::string> names;
    for (std::size_t at = aml.find("\x5b\x83"); at != std::string::npos;
         at = aml.find("\x5b\x83", at + 1)) {
        names.insert(aml.substr(at + 3, 4));
    }
    EXPECT_EQ(names.size(), 128u);
    EXPECT_TRUE(names.count("PR00") == 1 && names.count("PR7F") == 1);
}

}  // namespace
}  // namespace vmm::boot
