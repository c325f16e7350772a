// The queue between a vCPU and the writer: whole records in order, and none waits for room.
#include "xenshim/trace/ring.h"

#include <thread>

#include <gtest/gtest.h>

namespace xenshim::trace {
namespace {

bool put(Ring& ring, std::uint64_t number, std::size_t bytes = sizeof(CallRecord)) {
    std::byte* const to = ring.reserve(number, bytes);
    if (to == nullptr) return false;
    CallRecord call;
    call.head.bytes = static_cast<std::uint16_t>(bytes);
    call.number = number;
    std::memset(to, static_cast<int>(number & 0xff), bytes);
    std::memcpy(to, &call, sizeof call);
    ring.publish();
    return true;
}

CallRecord call_of(const Ring::Entry& entry) {
    CallRecord call;
    std::memcpy(&call, entry.record.data(), sizeof call);
    return call;
}

TEST(Ring, KeepsOrderAcrossItsEnd) {
    Ring ring(1024);
    std::uint64_t next_in = 0, next_out = 0;
    for (int round = 0; round < 100; ++round) {
        for (std::size_t bytes : {80u, 120u, 296u, 88u}) {
            ASSERT_TRUE(put(ring, next_in++, bytes));
        }
        const std::uint64_t head = ring.head();
        for (auto entry = ring.front(head); !entry.record.empty(); entry = ring.front(head)) {
            EXPECT_EQ(entry.ended, next_out);
            EXPECT_EQ(call_of(entry).number, next_out);
            if (entry.record.size() > sizeof(CallRecord)) {
                EXPECT_EQ(std::to_integer<unsigned>(entry.record.back()), next_out & 0xff);
            }
            ++next_out;
            ring.pop(entry);
        }
        EXPECT_EQ(next_out, next_in);
    }
    EXPECT_EQ(ring.dropped(), 0u);
}

TEST(Ring, FullDropsTheNewest) {
    Ring ring(1024);
    std::uint64_t fit = 0;
    while (put(ring, fit))
        ++fit;
    EXPECT_EQ(fit, 1024 / (sizeof(CallRecord) + 8));
    EXPECT_FALSE(put(ring, 99));
    EXPECT_EQ(ring.dropped(), 2u);
    const auto oldest = ring.front(ring.head());
    EXPECT_EQ(call_of(oldest).number, 0u);
    ring.pop(oldest);
    // Room at the start, behind the skipped rest of the end, is room.
    EXPECT_FALSE(put(ring, 98, 160));
    EXPECT_EQ(ring.dropped(), 3u);
    ring.pop(ring.front(ring.head()));
    EXPECT_TRUE(put(ring, 100));
}

// Else the writer would be woken for every record once the first quarter was full.
TEST(Ring, AsksForTheWriterOnlyWhenAQuarterWaits) {
    Ring ring(4096);
    constexpr std::uint64_t kQuarter = 1024 / (sizeof(CallRecord) + 8) + 1;
    for (std::uint64_t n = 0; n < 1000; ++n) {
        std::byte* const to = ring.reserve(n, sizeof(CallRecord));
        ASSERT_NE(to, nullptr);
        CallRecord call;
        call.head.bytes = sizeof call;
        std::memcpy(to, &call, sizeof call);
        const bool asks = ring.publish();
        EXPECT_EQ(asks, n % kQuarter == kQuarter - 1) << n;
        if (!asks) continue;
        const std::uint64_t head = ring.head();
        for (auto entry = ring.front(head); !entry.record.empty(); entry = ring.front(head))
            ring.pop(entry);
    }
}

TEST(Ring, ShowsOnlyWhatWasThereAtTheStart) {
    Ring ring(1024);
    put(ring, 1);
    const std::uint64_t head = ring.head();
    put(ring, 2);
    ring.pop(ring.front(head));
    EXPECT_TRUE(ring.front(head).record.empty());
    EXPECT_EQ(call_of(ring.front(ring.head())).number, 2u);
}

TEST(Ring, TwoThreads) {
    Ring ring(4096);
    constexpr std::uint64_t kCount = 50'000;
    std::thread producer([&] {
        for (std::uint64_t n = 0; n < kCount;) {
            if (put(ring, n, 80 + 8 * (n % 20))) {
                ++n;
            } else {
                std::this_thread::yield();
            }
        }
    });
    std::uint64_t next = 0;
    bool in_order = true;
    while (next < kCount) {
        const auto entry = ring.front(ring.head());
        if (entry.record.empty()) {
            std::this_thread::yield();
            continue;
        }
        in_order = in_order && call_of(entry).number == next &&
                   entry.record.size() == 80 + 8 * (next % 20);
        ++next;
        ring.pop(entry);
    }
    producer.join();
    EXPECT_TRUE(in_order);
}

}  // namespace
}  // namespace xenshim::trace
