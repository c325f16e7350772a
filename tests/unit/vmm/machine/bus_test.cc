// The buses: who is asked, with what offset, and what nobody's address reads as. And KVM's lists.
#include "vmm/machine/bus.h"

#include <array>
#include <vector>

#include <gtest/gtest.h>

#include "vmm/kvm/counted_list.h"

namespace vmm {
namespace {

struct Seen {
    IoAccess at;
    std::uint64_t value;
    bool operator==(const Seen&) const = default;
};

class Ports final : public PioDevice {
  public:
    Ports(std::vector<PortRange> ranges, std::uint32_t says)
        : ranges_(std::move(ranges)), says_(says) {}
    const char* name() const override { return "ports"; }
    std::span<const PortRange> ranges() const override { return ranges_; }
    std::uint32_t read(IoAccess at) override {
        reads.push_back(at);
        return says_;
    }
    void write(IoAccess at, std::uint32_t value) override { writes.push_back({at, value}); }
    std::vector<IoAccess> reads;
    std::vector<Seen> writes;

  private:
    std::vector<PortRange> ranges_;
    std::uint32_t says_;
};

class Registers final : public MmioDevice {
  public:
    explicit Registers(MmioRange range) : range_(range) {}
    const char* name() const override { return "registers"; }
    MmioRange range() const override { return range_; }
    std::uint64_t read(IoAccess at) override {
        reads.push_back(at);
        return 0x42;
    }
    void write(IoAccess at, std::uint64_t value) override { writes.push_back({at, value}); }
    std::vector<IoAccess> reads;
    std::vector<Seen> writes;

  private:
    MmioRange range_;
};

TEST(PioBus, NobodysPortsReadAllOnesOfTheirSize) {
    const PioBus bus;
    EXPECT_EQ(bus.read({.offset = 0x3f8, .size = 1}), 0xffu);
    EXPECT_EQ(bus.read({.offset = 0x3f8, .size = 2}), 0xffffu);
    EXPECT_EQ(bus.read({.offset = 0xffff, .size = 4}), 0xffff'ffffu);
    bus.write({.offset = 0x3f8, .size = 1}, 5);
}

TEST(PioBus, ADeviceIsAskedForItsPortsOnly) {
    Ports a({{0x20, 2}, {0xa0, 2}}, 0x11), b({{0x40, 4}}, 0x22);
    PioBus bus;
    bus.add(a);
    bus.add(b);
    EXPECT_EQ(bus.read({.offset = 0x21, .size = 1}), 0x11u);
    EXPECT_EQ(bus.read({.offset = 0xa0, .size = 1}), 0x11u);
    EXPECT_EQ(bus.read({.offset = 0x43, .size = 4}), 0x22u);
    EXPECT_EQ(bus.read({.offset = 0x22, .size = 1}), 0xffu);
    EXPECT_EQ(bus.read({.offset = 0x1f, .size = 2}), 0xffffu);  // whose first byte is nobody's
    EXPECT_EQ(bus.read({.offset = 0x44, .size = 1}), 0xffu);
    EXPECT_EQ(a.reads, (std::vector<IoAccess>{{0x21, 1}, {0xa0, 1}}));
    EXPECT_EQ(b.reads, (std::vector<IoAccess>{{0x43, 4}}));
    bus.write({.offset = 0x40, .size = 2}, 0x1234);
    bus.write({.offset = 0x3f, .size = 1}, 1);
    EXPECT_EQ(b.writes, (std::vector<Seen>{{{0x40, 2}, 0x1234}}));
    EXPECT_TRUE(a.writes.empty());
}

TEST(PioBus, TheLastPortHasNoNeighbour) {
    Ports last({{0xffff, 1}}, 7);
    PioBus bus;
    bus.add(last);
    EXPECT_EQ(bus.read({.offset = 0xffff, .size = 1}), 7u);
    EXPECT_EQ(bus.read({.offset = 0, .size = 1}), 0xffu);
}

TEST(MmioBus, OffsetsCountFromTheDevice) {
    Registers device({.base = {0xfec0'0000}, .size = 0x1000});
    MmioBus bus;
    bus.add(device);
    EXPECT_EQ(bus.read({0xfec0'0010}, 4), 0x42u);
    EXPECT_EQ(bus.read({0xfec0'0fff}, 1), 0x42u);
    EXPECT_EQ(bus.read({0xfec0'1000}, 4), ~std::uint64_t{0});
    EXPECT_EQ(bus.read({0xfebf'ffff}, 8), ~std::uint64_t{0});
    EXPECT_EQ(device.reads, (std::vector<IoAccess>{{0x10, 4}, {0xfff, 1}}));
    bus.write({0xfec0'0004}, 8, 0x1122'3344'5566'7788);
    bus.write({0xfec0'1000}, 8, 1);
    EXPECT_EQ(device.writes, (std::vector<Seen>{{{4, 8}, 0x1122'3344'5566'7788}}));
}

// XSA-112: an access belongs to the device that has its first byte; what of it lies in another
// one's registers is nobody's.
TEST(MmioBus, Xsa112AnAccessThatCrossesIntoAnotherDevice) {
    Registers first({.base = {0xfec0'0000}, .size = 0x1000}),
        second({.base = {0xfec0'1000}, .size = 0x1000});
    MmioBus bus;
    bus.add(first);
    bus.add(second);
    EXPECT_EQ(bus.read({0xfec0'0fff}, 8), 0x42u);
    bus.write({0xfec0'0ffc}, 8, 7);
    EXPECT_EQ(first.reads, (std::vector<IoAccess>{{0xfff, 8}}));
    EXPECT_EQ(first.writes, (std::vector<Seen>{{{0xffc, 8}, 7}}));
    EXPECT_EQ(bus.read({0xfebf'fffc}, 8), ~std::uint64_t{0});  // from nobody into the first
    bus.write({0xfebf'fffc}, 8, 7);
    EXPECT_EQ(first.reads.size() + first.writes.size(), 2u);
    EXPECT_TRUE(second.reads.empty());
    EXPECT_TRUE(second.writes.empty());
}

TEST(MmioBus, ARangeAtTheEndOfTheAddressSpaceEnds) {
    Registers device({.base = {~std::uint64_t{0} - 0xfff}, .size = 0x1000});
    MmioBus bus;
    bus.add(device);
    EXPECT_EQ(bus.read({~std::uint64_t{0}}, 1), 0x42u);
    EXPECT_EQ(bus.read({0}, 1), ~std::uint64_t{0});
}

TEST(IoAccess, AllOnesFollowTheSize) {
    EXPECT_EQ((IoAccess{0, 1}.all_ones<std::uint64_t>()), 0xffu);
    EXPECT_EQ((IoAccess{0, 4}.all_ones<std::uint64_t>()), 0xffff'ffffu);
    EXPECT_EQ((IoAccess{0, 8}.all_ones<std::uint64_t>()), ~std::uint64_t{0});
    EXPECT_EQ((IoAccess{0, 8}.all_ones()), 0xffff'ffffu);
    EXPECT_EQ((IoAccess{0, 100}.all_ones()), 0xffff'ffffu);
}

// ---- CountedList
// ----------------------------------------------------------------------------------

struct KvmEntry {
    std::uint32_t a;
    std::uint32_t b;
};

TEST(CountedList, HasKvmsLayout) {
    kvm::CountedList<KvmEntry> list(3);
    EXPECT_EQ(list.count(), 3u);
    list.set(0, {1, 2});
    list.set(2, {5, 6});
    std::array<std::uint32_t, 8> words{};
    std::memcpy(words.data(), list.data(), sizeof words);
    EXPECT_EQ(words, (std::array<std::uint32_t, 8>{3, 0, 1, 2, 0, 0, 5, 6}));
    EXPECT_EQ(list.get(2).b, 6u);
    // What KVM writes back is the number that it filled.
    const std::uint32_t two = 2;
    std::memcpy(list.data(), &two, sizeof two);
    EXPECT_EQ(list.count(), 2u);
    EXPECT_EQ(kvm::CountedList<KvmEntry>(0).count(), 0u);
}

}  // namespace
}  // namespace vmm
