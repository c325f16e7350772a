// What values of HVM_PARAM_CALLBACK_IRQ stand for. GSIs of INTx pins as Xen's public/hvm headers
// and its ACPI tables for guests have them.
#include "xenshim/abi/callback.h"

#include <gtest/gtest.h>

namespace xenshim::abi {
namespace {

using Kind = Callback::Kind;

constexpr std::uint64_t of_type(std::uint64_t type, std::uint64_t low) {
    return type << 56 | low;
}

TEST(Callback, AGsiIsALineFromOneToFortySeven) {
    for (unsigned gsi = 1; gsi < 48; ++gsi) {
        const Callback line{.kind = Kind::kLine, .gsi = static_cast<std::uint8_t>(gsi)};
        EXPECT_EQ(callback_of(gsi), line);
        // Eight bits count.
        EXPECT_EQ(callback_of(0x00ff'ffff'ffff'ff00 | gsi), line);
    }
    for (const std::uint64_t none : {0, 48, 49, 255, 0x100, 0x1000000}) {
        EXPECT_EQ(callback_of(none), Callback{}) << none;
    }
}

TEST(Callback, AnIntxPinIsALineOfItsGsi) {
    const struct {
        unsigned device, intx, gsi;
    } pins[] = {{0, 0, 16}, {0, 3, 19},  {1, 0, 20},  {3, 0, 28},  {3, 1, 29},  {7, 3, 47},
                {8, 0, 17}, {15, 3, 16}, {16, 0, 18}, {31, 0, 47}, {31, 1, 16}, {31, 3, 18}};
    for (const auto& pin : pins) {
        EXPECT_EQ(pci_intx_gsi(pin.device, pin.intx), pin.gsi);
        const Callback line{.kind = Kind::kLine, .gsi = static_cast<std::uint8_t>(pin.gsi)};
        EXPECT_EQ(callback_of(of_type(1, pin.device << 11 | pin.intx)), line);
        // Domain and bus, the function and what is reserved: nobody looks.
        EXPECT_EQ(callback_of(of_type(1, 0x00ff'ffff'ffff'07fc | pin.device << 11 | pin.intx)),
                  line);
    }
}

TEST(Callback, AVectorIsTakenAsItStands) {
    EXPECT_EQ(callback_of(of_type(2, 0xf3)), (Callback{.kind = Kind::kVector, .vector = 0xf3}));
    EXPECT_EQ(callback_of(of_type(2, 0x1f3)), (Callback{.kind = Kind::kVector, .vector = 0xf3}));
    EXPECT_EQ(callback_of(of_type(2, 0)), (Callback{.kind = Kind::kVector}));
}

TEST(Callback, OtherTypesAreNone) {
    for (unsigned type = 3; type < 256; ++type) {
        EXPECT_EQ(callback_of(of_type(type, 20)), Callback{}) << type;
    }
}

}  // namespace
}  // namespace xenshim::abi
