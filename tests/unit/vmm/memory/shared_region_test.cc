// Memory in memfds: given back, looked under, shown over.
#include "vmm/memory/shared_region.h"

#include <cstring>
#include <fcntl.h>

#include <gtest/gtest.h>

#include "vmm/memory/address.h"

namespace vmm {
namespace {

SharedRegion make(std::uint64_t pages) {
    auto region = SharedRegion::create("test", pages * kPageSize);
    EXPECT_TRUE(region.has_value());
    return *std::move(region);
}

TEST(SharedRegion, StartsZeroedAndCostsNothing) {
    const SharedRegion region = make(4);
    EXPECT_EQ(region.size(), 4 * kPageSize);
    EXPECT_FALSE(region.page_backed(0));
    EXPECT_EQ(region.data()[3 * kPageSize], std::byte{0});
}

TEST(SharedRegion, ClosesOnExec) {
    EXPECT_NE(::fcntl(make(1).fd(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST(SharedRegion, SizesThatCannotBeAreRefused) {
    EXPECT_FALSE(SharedRegion::create("test", 0).has_value());
    const auto huge = SharedRegion::create("test", ~std::uint64_t{0} << kPageShift);
    ASSERT_FALSE(huge.has_value());
    EXPECT_EQ(huge.error().fault, Fault::kHost);
}

TEST(SharedRegion, PunchedPagesAreGoneAndReadAsZeroes) {
    SharedRegion region = make(4);
    std::memset(region.data(), 0x5a, 4 * kPageSize);
    EXPECT_TRUE(region.page_backed(kPageSize));
    ASSERT_TRUE(region.punch(kPageSize, 2 * kPageSize).has_value());
    EXPECT_TRUE(region.page_backed(0));
    EXPECT_FALSE(region.page_backed(kPageSize));
    EXPECT_FALSE(region.page_backed(2 * kPageSize));
    EXPECT_TRUE(region.page_backed(3 * kPageSize));
    EXPECT_EQ(region.data()[kPageSize - 1], std::byte{0x5a});
    EXPECT_EQ(region.data()[kPageSize], std::byte{0});
    EXPECT_EQ(region.data()[3 * kPageSize], std::byte{0x5a});
    region.data()[kPageSize] = std::byte{1};
    EXPECT_TRUE(region.page_backed(kPageSize));
}

// XSA-247's class: pages that could not be freed are not taken for freed ones.
TEST(SharedRegion, AFreeingThatFailsIsToldOf) {
    auto region = SharedRegion::create("test", 4 * kPageSize);
    ASSERT_TRUE(region);
    region->data()[kPageSize] = std::byte{1};
    EXPECT_FALSE(region->punch(kPageSize, 0));
    const SharedRegion taken = *std::move(region);
    EXPECT_FALSE(region->punch(kPageSize, kPageSize));  // NOLINT: it has no memory any more
    EXPECT_EQ(taken.data()[kPageSize], std::byte{1});
}

TEST(SharedRegion, AnOverlayHidesThePageAndKeepsIt) {
    SharedRegion region = make(4);
    SharedRegion other = make(2);
    std::memset(region.data(), 0x11, 4 * kPageSize);
    other.data()[kPageSize] = std::byte{0x22};
    ASSERT_TRUE(region.map_over(2 * kPageSize, other, kPageSize).has_value());
    EXPECT_EQ(region.data()[2 * kPageSize], std::byte{0x22});
    EXPECT_EQ(region.data()[2 * kPageSize - 1], std::byte{0x11});
    EXPECT_EQ(region.data()[3 * kPageSize], std::byte{0x11});
    region.data()[2 * kPageSize + 1] = std::byte{0x33};
    EXPECT_EQ(other.data()[kPageSize + 1], std::byte{0x33});
    ASSERT_TRUE(region.unmap_over(2 * kPageSize).has_value());
    EXPECT_EQ(region.data()[2 * kPageSize], std::byte{0x11});
    EXPECT_EQ(other.data()[kPageSize], std::byte{0x22});
}

TEST(SharedRegion, MovesWithItsMapping) {
    SharedRegion first = make(1);
    first.data()[0] = std::byte{7};
    std::byte* const at = first.data();
    const SharedRegion second(std::move(first));
    EXPECT_EQ(second.data(), at);
    EXPECT_EQ(second.data()[0], std::byte{7});
    EXPECT_EQ(first.data(), nullptr);  // NOLINT: what a move leaves is the point
    EXPECT_EQ(first.size(), 0u);
}

}  // namespace
}  // namespace vmm
