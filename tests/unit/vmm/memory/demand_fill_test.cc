// Memory that comes as it is touched, from a source that knows what it was asked for.
#include "vmm/memory/demand_fill.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <thread>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

#include "vmm/memory/shared_region.h"

namespace vmm {
namespace {

constexpr std::uint64_t kChunk = DemandFill::kChunk;
constexpr std::uint64_t kSize = 32 * kChunk + 3 * kPageSize;  // the last chunk is a short one

// Every eighth chunk is zero; the others hold their number in each word.
class Pattern final : public DemandFill::Source {
  public:
    static bool zero_chunk(std::uint64_t chunk) { return chunk % 8 == 7; }
    static std::uint64_t word(std::uint64_t offset) {
        return zero_chunk(offset / kChunk) ? 0 : offset / kChunk + 0x1000;
    }
    bool prepare() override {
        if (prepared == steps) return false;
        ++prepared;
        fetched_before.push_back(fetched.size());
        return true;
    }
    bool is_zero(std::size_t, std::uint64_t offset) override { return zero_chunk(offset / kChunk); }
    bool fetch(std::size_t range, std::uint64_t offset, std::span<std::byte> to) override {
        if (offset / kChunk == broken) return false;
        for (std::size_t at = 0; at < to.size(); at += sizeof(std::uint64_t)) {
            const std::uint64_t value = word(offset + at);
            std::memcpy(to.data() + at, &value, sizeof value);
        }
        fetched.push_back({range, offset / kChunk});
        return true;
    }
    void failed(std::size_t, std::uint64_t offset) override { failures.push_back(offset / kChunk); }

    std::uint64_t broken = ~std::uint64_t{0};
    std::size_t steps = 0;
    // Of the filling thread; to be looked at when it has ended.
    std::vector<std::pair<std::size_t, std::uint64_t>> fetched;
    std::vector<std::uint64_t> failures;
    std::size_t prepared = 0;
    std::vector<std::size_t> fetched_before;  // of each step
};

class DemandFillTest : public ::testing::Test {
  protected:
    void SetUp() override {
        auto made = SharedRegion::create("test", kSize);
        ASSERT_TRUE(made);
        region.emplace(std::move(*made));
    }
    void start(DemandFill::Background background) {
        auto started = DemandFill::start({{region->data(), region->size()}}, source, background);
        // Whoever is not root may be refused it (vm.unprivileged_userfaultfd).
        if (!started && ::geteuid() != 0) GTEST_SKIP() << started.error().what;
        ASSERT_TRUE(started) << started.error().what;
        fill = std::move(*started);
    }
    std::uint64_t load(std::uint64_t offset) const {
        std::uint64_t value = 0;
        std::memcpy(&value, region->data() + offset, sizeof value);
        return value;
    }

    std::optional<SharedRegion> region;
    Pattern source;
    std::unique_ptr<DemandFill> fill;
};

TEST_F(DemandFillTest, ATouchBringsItsChunkAndNoOther) {
    start(DemandFill::Background::kOnlyOnTouch);
    if (!fill) return;
    EXPECT_EQ(load(5 * kChunk + 8), Pattern::word(5 * kChunk));
    EXPECT_EQ(load(6 * kChunk - 8), Pattern::word(5 * kChunk));
    EXPECT_EQ(load(kSize - 8), Pattern::word(kSize - 8));
    EXPECT_EQ(load(7 * kChunk), 0u);
    EXPECT_FALSE(fill->complete());
    EXPECT_EQ(fill->brought(), 2u);
    EXPECT_EQ(fill->touched(), 2u);
    fill.reset();
    const std::vector<std::pair<std::size_t, std::uint64_t>> expected = {{0, 5}, {0, 32}};
    EXPECT_EQ(source.fetched, expected);
    // What never came reads as zeroes once nobody brings it any more.
    EXPECT_EQ(load(0), 0u);
}

TEST_F(DemandFillTest, InTheEndAllIsThereAndZeroesCostNothing) {
    start(DemandFill::Background::kAtOnce);
    if (!fill) return;
    EXPECT_TRUE(fill->finish());
    EXPECT_TRUE(fill->complete());
    EXPECT_EQ(fill->brought(), 33u - 4u);
    EXPECT_EQ(source.fetched.size(), 29u);
    for (std::uint64_t chunk = 0; chunk < 33; ++chunk) {
        EXPECT_EQ(region->page_backed(chunk * kChunk), !Pattern::zero_chunk(chunk)) << chunk;
        EXPECT_EQ(load(chunk * kChunk), Pattern::word(chunk * kChunk)) << chunk;
    }
}

TEST_F(DemandFillTest, TheBackgroundBeginsByItselfWhenNobodyTouchesAnything) {
    start(DemandFill::Background::kWhenQuiet);
    if (!fill) return;
    EXPECT_EQ(load(5 * kChunk), Pattern::word(5 * kChunk));
    EXPECT_GE(fill->touched(), 1u);
    while (!fill->complete()) {
        std::this_thread::yield();
    }
    EXPECT_EQ(fill->brought(), 29u);
}

// All steps are made, none twice, and none of what nobody touches is brought before them.
TEST_F(DemandFillTest, ItGetsReadyBeforeItFillsInTheBackground) {
    source.steps = 5;
    start(DemandFill::Background::kAtOnce);
    if (!fill) return;
    EXPECT_TRUE(fill->finish());
    EXPECT_EQ(fill->touched(), 0u);
    EXPECT_EQ(source.fetched_before, std::vector<std::size_t>(5, 0));
    EXPECT_EQ(source.fetched.size(), 29u);
}

// Ever more to get ready: who waits is answered between two steps.
TEST_F(DemandFillTest, ATouchDoesNotWaitUntilAllIsReady) {
    source.steps = ~std::size_t{0};
    start(DemandFill::Background::kOnlyOnTouch);
    if (!fill) return;
    EXPECT_EQ(load(5 * kChunk), Pattern::word(5 * kChunk));
    EXPECT_EQ(load(6 * kChunk), Pattern::word(6 * kChunk));
}

TEST_F(DemandFillTest, WhatWasWrittenIsNotBroughtAgain) {
    start(DemandFill::Background::kOnlyOnTouch);
    if (!fill) return;
    const std::uint64_t mine = 0xabcdef;
    std::memcpy(region->data() + 3 * kChunk + 64, &mine, sizeof mine);
    EXPECT_TRUE(fill->finish());
    EXPECT_EQ(load(3 * kChunk + 64), mine);
    EXPECT_EQ(load(3 * kChunk), Pattern::word(3 * kChunk));
}

// A guest that gives a page back gets zeroes there afterwards.
TEST_F(DemandFillTest, APageThatWasGivenBackStaysEmpty) {
    start(DemandFill::Background::kOnlyOnTouch);
    if (!fill) return;
    EXPECT_NE(load(2 * kChunk), 0u);  // it is there before it is given back
    ASSERT_TRUE(region->punch(2 * kChunk, kPageSize));
    EXPECT_EQ(load(2 * kChunk), 0u);
    EXPECT_EQ(load(2 * kChunk + kPageSize), Pattern::word(2 * kChunk));
    ASSERT_TRUE(region->punch(2 * kChunk, kPageSize));
    EXPECT_TRUE(fill->finish());
    EXPECT_FALSE(region->page_backed(2 * kChunk));
}

TEST_F(DemandFillTest, PagesShownInPlaceOfOthersAreLeftAlone) {
    const auto own = SharedRegion::create("own", kPageSize);
    ASSERT_TRUE(own);
    std::memset(own->data(), 0x77, kPageSize);
    start(DemandFill::Background::kOnlyOnTouch);
    if (!fill) return;
    const std::uint64_t at = 4 * kChunk + 5 * kPageSize;
    ASSERT_TRUE(region->map_over(at, *own, 0));
    EXPECT_EQ(load(4 * kChunk), Pattern::word(4 * kChunk));
    EXPECT_EQ(load(at), 0x7777777777777777u);
    EXPECT_EQ(load(at - kPageSize), Pattern::word(at));
    EXPECT_EQ(load(at + kPageSize), Pattern::word(at));
    EXPECT_TRUE(fill->finish());
    EXPECT_EQ(load(at), 0x7777777777777777u);
    EXPECT_EQ(load(5 * kChunk - 8), Pattern::word(4 * kChunk));
}

TEST_F(DemandFillTest, AFailureIsToldAndLetsWhoWaitsGoOn) {
    source.broken = 9;
    start(DemandFill::Background::kOnlyOnTouch);
    if (!fill) return;
    EXPECT_NE(load(8 * kChunk), 0u);
    EXPECT_EQ(load(9 * kChunk), 0u);
    EXPECT_FALSE(fill->finish());
    EXPECT_FALSE(fill->complete());
    EXPECT_EQ(source.failures, std::vector<std::uint64_t>{9});
    EXPECT_EQ(load(10 * kChunk), 0u);
}

TEST_F(DemandFillTest, ManyTouchWhileItIsFilled) {
    start(DemandFill::Background::kAtOnce);
    if (!fill) return;
    std::vector<std::thread> threads;
    std::atomic<unsigned> wrong{0};
    for (unsigned t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            for (std::uint64_t page = t; page < kSize / kPageSize; page += 4) {
                const std::uint64_t at = kSize - (page + 1) * kPageSize;
                if (load(at) != Pattern::word(at)) ++wrong;
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    EXPECT_TRUE(fill->finish());
    EXPECT_EQ(wrong, 0u);
    EXPECT_EQ(fill->brought(), 29u);
}

}  // namespace
}  // namespace vmm
