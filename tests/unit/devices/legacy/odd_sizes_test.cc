// What a guest gets that reads the chips' ports in sizes that they do not have, or beside their
// registers: nothing but what the access has room for, and nothing of what lay in our memory before
// (XSA-63, XSA-121).
#include <cstddef>
#include <cstring>
#include <new>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "devices/legacy/ioapic.h"
#include "devices/legacy/pic.h"
#include "devices/legacy/pit.h"

namespace devices::legacy {
namespace {

using vmm::IoAccess;

class NoLine final : public vmm::IrqLine {
  public:
    void set(bool) override {}
};

// A device in memory that held something before.
template <class Device>
class Placed {
  public:
    template <class Make>
    Placed(unsigned char before, Make&& make) {
        std::memset(room_, before, sizeof room_);
        asm volatile("" : : "r"(room_) : "memory");  // or the compiler sees that nobody should look
        device_ = make(static_cast<void*>(room_));
    }
    Placed(const Placed&) = delete;
    Placed& operator=(const Placed&) = delete;
    ~Placed() { device_->~Device(); }
    Device& operator*() { return *device_; }

  private:
    alignas(Device) std::byte room_[sizeof(Device)];
    Device* device_ = nullptr;
};

// The same accesses to a device that lies where zeroes were and to one that lies where ones were.
template <class Device, class Make>
void expect_nothing_of_ours(Make&& make, const std::vector<std::uint64_t>& offsets,
                            const std::vector<unsigned>& sizes) {
    Placed<Device> zeroes(0x00, make), ones(0xff, make);
    std::mt19937_64 random(121);
    for (unsigned round = 0; round < 200; ++round) {
        for (const std::uint64_t offset : offsets) {
            for (const unsigned size : sizes) {
                const IoAccess at{.offset = offset, .size = size};
                const auto a = (*zeroes).read(at);
                ASSERT_EQ(a, (*ones).read(at)) << std::hex << offset << " size " << size;
                if (size < 8) {
                    ASSERT_EQ(std::uint64_t{a} >> (8 * size), 0u)
                        << std::hex << offset << " size " << size;
                }
            }
        }
        const IoAccess at{.offset = offsets[random() % offsets.size()],
                          .size = sizes[random() % sizes.size()]};
        const auto value = random();
        using Value = decltype((*zeroes).read(at));
        (*zeroes).write(at, static_cast<Value>(value));
        (*ones).write(at, static_cast<Value>(value));
    }
}

std::vector<std::uint64_t> ports_around(std::initializer_list<std::uint64_t> ports) {
    std::vector<std::uint64_t> out;
    for (const std::uint64_t port : ports) {
        for (std::uint64_t at = port - 2; at != port + 3; ++at) {
            out.push_back(at);
        }
    }
    return out;
}

TEST(Xsa121OddSizes, Pic) {
    expect_nothing_of_ours<Pic>([](void* at) { return new (at) Pic([] {}); },
                                ports_around({0x20, 0xa0, 0x4d0}), {1, 2, 3, 4});
}

TEST(Xsa121OddSizes, Pit) {
    NoLine line;
    std::uint64_t now_ns = 0;
    expect_nothing_of_ours<Pit>(
        [&](void* at) {
            return new (at)
                Pit({.now_ns = [&] { return now_ns; }, .irq0 = line, .deadline_changed = {}});
        },
        ports_around({0x42, 0x61}), {1, 2, 3, 4});
}

TEST(Xsa121OddSizes, Ioapic) {
    std::vector<std::uint64_t> offsets = ports_around({0x10, 0x40, 0x1000});
    for (std::uint64_t at = 0; at < 0x14; ++at) {
        offsets.push_back(at);
    }
    expect_nothing_of_ours<Ioapic>([](void* at) { return new (at) Ioapic(24, {}); }, offsets,
                                   {1, 2, 4, 8});
}

}  // namespace
}  // namespace devices::legacy
