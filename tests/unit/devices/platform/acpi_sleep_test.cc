// Power-off through PM1a's control register, and what else those ports answer.
#include "devices/platform/acpi_sleep.h"

#include <gtest/gtest.h>

namespace devices::platform {
namespace {

constexpr std::uint16_t kEvent = 0xb000, kControl = 0xb004, kGpe = 0xafe0;
constexpr std::uint8_t kS5 = 5;
constexpr std::uint32_t kSleep = 1u << 13;

class Sleep : public testing::Test {
  protected:
    unsigned offs = 0;
    AcpiSleep device{{.event = kEvent, .control = kControl, .gpe = kGpe}, kS5, [this] { ++offs; }};
    void write(std::uint64_t port, unsigned size, std::uint32_t value) {
        device.write({.offset = port, .size = size}, value);
    }
    std::uint32_t read(std::uint64_t port, unsigned size) {
        return device.read({.offset = port, .size = size});
    }
};

TEST_F(Sleep, ClaimsThreeBlocks) {
    ASSERT_EQ(device.ranges().size(), 3u);
    EXPECT_EQ(device.ranges()[0], (vmm::PortRange{kEvent, 4}));
    EXPECT_EQ(device.ranges()[1], (vmm::PortRange{kControl, 2}));
    EXPECT_EQ(device.ranges()[2], (vmm::PortRange{kGpe, 4}));
}

TEST_F(Sleep, OnlySleepEnableWithItsTypePowersOff) {
    for (std::uint32_t type = 0; type < 8; ++type) {
        write(kControl, 2, type << 10);
        EXPECT_EQ(offs, 0u) << type;
    }
    for (std::uint32_t type = 0; type < 8; ++type) {
        offs = 0;
        write(kControl, 2, kSleep | (type << 10) | 1);
        EXPECT_EQ(offs, type == kS5 ? 1u : 0u) << type;
    }
}

TEST_F(Sleep, OtherPortsPowerNothingOff) {
    for (const int port : {kEvent + 0, kEvent + 2, kGpe + 0, kGpe + 2}) {
        write(static_cast<std::uint64_t>(port), 2, kSleep | (kS5 << 10));
    }
    EXPECT_EQ(offs, 0u);
}

// ACPI lets the register be accessed by bytes as well as whole: SLP_TYP and SLP_EN are bits 2 to 5
// of the upper byte.
TEST_F(Sleep, TheUpperByteAloneWorksToo) {
    write(kControl + 1, 1, (kSleep | (kS5 << 10)) >> 8);
    EXPECT_EQ(offs, 1u);
    write(kControl + 1, 1, (kS5 << 10) >> 8);
    EXPECT_EQ(offs, 1u);
}

TEST_F(Sleep, ReadsAsAQuietPlatformInAcpiMode) {
    EXPECT_EQ(read(kControl, 2), 1u);
    EXPECT_EQ(read(kControl, 1), 1u);
    EXPECT_EQ(read(kControl + 1, 1), 0u);
    EXPECT_EQ(read(kEvent, 4), 0u);
    EXPECT_EQ(read(kEvent + 2, 2), 0u);
    EXPECT_EQ(read(kGpe, 4), 0u);
}

TEST(AbsentPit, ReadsZeroAtCounterTwoOnly) {
    AbsentPit pit;
    ASSERT_EQ(pit.ranges().size(), 1u);
    EXPECT_EQ(pit.ranges()[0], (vmm::PortRange{0x42, 1}));
    EXPECT_EQ(pit.read({.offset = 0x42, .size = 1}), 0u);
    pit.write({.offset = 0x42, .size = 1}, 0xff);
    EXPECT_EQ(pit.read({.offset = 0x42, .size = 1}), 0u);
}

}  // namespace
}  // namespace devices::platform
