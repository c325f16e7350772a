// The physical memory map: what is where, what it costs, and what the machine is told. The
// figures are those of xen-417-golden.md, E.2 and E.3.
#include "xenshim/domain/physmap.h"

#include <algorithm>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "tests/fakes/test_domain.h"

namespace xenshim {
namespace {

using fakes::FakePorts;
using fakes::TestDomain;

constexpr std::uint64_t kRam = TestDomain::kRamGfn;
constexpr std::uint64_t kHole = TestDomain::kHoleGfn;

class PhysmapTest : public testing::Test {
  protected:
    Physmap& map() { return guest.domain.physmap(); }
    FakePorts& ports() { return guest.ports; }
    std::uint64_t current() { return map().accounts().current; }
    static vmm::Gva at(std::uint64_t gfn) { return {gfn << vmm::kPageShift}; }
    bool readable(std::uint64_t gfn) {
        return ports().memory.read<std::uint32_t>(vmm::gfn_to_gpa(gfn)).has_value();
    }
    // What the machine shows is what the map says, and no overlay is counted twice.
    void expect_overlays_in_slots(std::size_t n) { EXPECT_EQ(ports().overlays.size(), n); }

    TestDomain guest{abi::Width::k64};
};

template <class T>
Errno error_of(const GuestResult<T>& result) {
    EXPECT_FALSE(result.has_value());
    return result.has_value() ? Errno{} : result.error();
}

// ---- RAM ----------------------------------------------------------------------------------------

TEST_F(PhysmapTest, StartsAsMeasured) {
    EXPECT_EQ(map().accounts().current, 0x8011u);
    EXPECT_EQ(map().accounts().maximum, 0x8100u);
    EXPECT_EQ(map().accounts().highest_gfn, 0xfefffu);
    for (const std::uint64_t gfn :
         {0x0ull, 0x7fffull, 0xfeff8ull, 0xfefffull, 0xfc000ull, 0xfc008ull}) {
        EXPECT_TRUE(map().has_ram(gfn)) << gfn;
        EXPECT_TRUE(map().is_mapped(gfn)) << gfn;
    }
    for (const std::uint64_t gfn :
         std::initializer_list<std::uint64_t>{0x8000, 0xfeff7, 0xff000, 0xfc009, 0xfee00, kHole,
                                              kNoGfn, 1ull << 52, (1ull << 52) + kRam}) {
        EXPECT_FALSE(map().is_mapped(gfn)) << gfn;
    }
}

TEST_F(PhysmapTest, AGivenPageIsAHoleAndCostsNothing) {
    guest.poke(at(kRam), std::uint32_t{0x1234});
    ASSERT_TRUE(ports().ram_backed(kRam));
    EXPECT_TRUE(map().decrease(kRam));
    EXPECT_EQ(current(), 0x8010u);
    EXPECT_FALSE(ports().ram_backed(kRam));
    EXPECT_FALSE(readable(kRam));
    EXPECT_FALSE(map().is_mapped(kRam));
    EXPECT_FALSE(map().decrease(kRam));  // not twice
    EXPECT_EQ(current(), 0x8010u);
    EXPECT_TRUE(readable(kRam + 1));
    EXPECT_TRUE(readable(kRam - 1));
}

TEST_F(PhysmapTest, APopulatedPageIsZero) {
    guest.poke(at(kRam), std::uint32_t{0x1234});
    ASSERT_TRUE(map().decrease(kRam));
    ASSERT_TRUE(map().populate(kRam));
    EXPECT_EQ(current(), 0x8011u);
    EXPECT_EQ(guest.get<std::uint32_t>(at(kRam)), 0u);
}

TEST_F(PhysmapTest, WhatTheGuestWroteIntoItsHoleDoesNotComeBack) {
    ASSERT_TRUE(map().decrease(kRam));
    // A guest on KVM can touch the hole all the same: the slot is still there.
    std::byte* host = ports().memory.page(kRam - 1) + vmm::kPageSize;
    host[0] = std::byte{0x77};
    ASSERT_TRUE(map().populate(kRam));
    EXPECT_EQ(guest.get<std::uint8_t>(at(kRam)), 0u);
}

TEST_F(PhysmapTest, PopulatingAMappedPageReplacesIt) {
    guest.poke(at(kRam), std::uint32_t{0x1234});
    EXPECT_TRUE(map().populate(kRam));
    EXPECT_EQ(guest.get<std::uint32_t>(at(kRam)), 0u);
    EXPECT_EQ(current(), 0x8012u);  // as measured: the old frame stays on the account
}

TEST_F(PhysmapTest, PagesOutsideRamComeAndGo) {
    EXPECT_TRUE(map().populate(kHole));
    EXPECT_EQ(current(), 0x8012u);
    EXPECT_EQ(map().accounts().highest_gfn, 0xfefffu);
    guest.poke(at(kHole), std::uint32_t{0x1234});
    EXPECT_TRUE(map().decrease(kHole));
    EXPECT_EQ(current(), 0x8011u);
    EXPECT_FALSE(readable(kHole));
    EXPECT_FALSE(map().decrease(kHole));
    EXPECT_TRUE(map().populate(kHole));
    EXPECT_EQ(guest.get<std::uint32_t>(at(kHole)), 0u);
}

TEST_F(PhysmapTest, PopulatingAnOutsidePageAgainReplacesIt) {
    ASSERT_TRUE(map().populate(kHole));
    guest.poke(at(kHole), std::uint32_t{0x1234});
    EXPECT_TRUE(map().populate(kHole));
    EXPECT_EQ(guest.get<std::uint32_t>(at(kHole)), 0u);
    EXPECT_EQ(current(), 0x8013u);
    EXPECT_EQ(ports().pool_used(), 1u);
}

TEST_F(PhysmapTest, TheHighestGfnOnlyGrows) {
    ASSERT_TRUE(map().populate(0x100000));
    EXPECT_EQ(map().accounts().highest_gfn, 0x100000u);
    ASSERT_TRUE(map().decrease(0x100000));
    EXPECT_EQ(map().accounts().highest_gfn, 0x100000u);
}

TEST_F(PhysmapTest, TheMaximumIsKept) {
    const std::uint64_t room = 0x8100 - 0x8011;
    ports().pool_pages = 256;
    for (std::uint64_t i = 0; i < room; ++i) {
        ASSERT_TRUE(i % 2 == 0 ? map().populate(0x40000 + i) : map().increase()) << i;
    }
    EXPECT_EQ(current(), 0x8100u);
    EXPECT_FALSE(map().populate(0x50000));
    EXPECT_FALSE(map().increase());
    EXPECT_FALSE(map().populate(kRam));  // a replacement costs a page too
    ASSERT_TRUE(map().decrease(kRam));
    EXPECT_TRUE(map().populate(0x50000));
    EXPECT_EQ(current(), 0x8100u);
}

TEST_F(PhysmapTest, APoolThatIsUsedUpRefusesAndAccountsStayRight) {
    ports().pool_pages = 2;
    EXPECT_TRUE(map().populate(0x40000));
    EXPECT_TRUE(map().populate(0x40001));
    EXPECT_FALSE(map().populate(0x40002));
    EXPECT_EQ(current(), 0x8013u);
    EXPECT_FALSE(map().is_mapped(0x40002));
    EXPECT_TRUE(map().decrease(0x40000));
    EXPECT_TRUE(map().populate(0x40002));
}

TEST_F(PhysmapTest, GfnsThatTheCpuCannotReachAreRefused) {
    for (const std::uint64_t gfn :
         std::initializer_list<std::uint64_t>{Physmap::kGfnLimit, 1ull << 40, 1ull << 52, ~0ull}) {
        EXPECT_FALSE(map().populate(gfn)) << gfn;
        EXPECT_FALSE(map().decrease(gfn)) << gfn;
        EXPECT_EQ(error_of(map().place_own(kSharedInfoPage, gfn)), XEN_ENOENT) << gfn;
        EXPECT_EQ(error_of(map().move(kRam, gfn)), XEN_ENOENT) << gfn;
        EXPECT_EQ(error_of(map().remove(gfn)), XEN_ENOENT) << gfn;
    }
    EXPECT_EQ(current(), 0x8011u);
    EXPECT_TRUE(readable(kRam));
}

// Xen's p2m knows gfns that this CPU cannot address: what is put there nobody sees, but it is kept.
TEST_F(PhysmapTest, PagesMayLieWhereTheCpuCannotLook) {
    ports().limit_gfn = 1ull << 28;
    const std::uint64_t far = 0xffff'ffff;
    ASSERT_TRUE(map().place_own(kSharedInfoPage, 0x7010).has_value());
    EXPECT_TRUE(map().place_own(kSharedInfoPage, far).has_value());
    EXPECT_EQ(map().gfn_of_own(kSharedInfoPage), far);
    EXPECT_TRUE(map().is_mapped(far));
    EXPECT_FALSE(map().is_mapped(0x7010));
    expect_overlays_in_slots(0);
    EXPECT_EQ(ports().pool_used(), 0u);
    const auto before = current();
    EXPECT_TRUE(map().populate(far - 1));
    EXPECT_TRUE(map().populate(far - 1));  // over itself: the first is forgotten, but counted
    EXPECT_EQ(current(), before + 2);
    EXPECT_TRUE(map().decrease(far - 1));
    EXPECT_FALSE(map().decrease(far - 1));
    EXPECT_EQ(current(), before + 1);
    EXPECT_EQ(ports().pool_used(), 0u);
    guest.poke(at(kRam), std::uint32_t{0x5eed});
    EXPECT_TRUE(map().move(kRam, far - 1).has_value());
    EXPECT_EQ(current(), before + 1);
    EXPECT_FALSE(readable(kRam));
    EXPECT_TRUE(map().has_ram(far - 1));
    EXPECT_EQ(ports().pool_used(), 1u);
    EXPECT_TRUE(map().move(far - 1, kRam).has_value());
    EXPECT_EQ(guest.get<std::uint32_t>(at(kRam)), 0x5eedu);
    EXPECT_EQ(ports().pool_used(), 0u);
    EXPECT_EQ(current(), before + 1);
    EXPECT_TRUE(map().remove(far).has_value());
    EXPECT_EQ(map().gfn_of_own(kSharedInfoPage), kNoGfn);
    EXPECT_TRUE(map().place_own(kSharedInfoPage, 0x7010).has_value());
}

// ---- extents ------------------------------------------------------------------------------------

TEST_F(PhysmapTest, NeighboursGivenBackTogetherAreFreedTogether) {
    for (std::uint64_t gfn = 0x7000; gfn < 0x7010; ++gfn) {
        guest.poke(at(gfn), std::uint32_t{1});
    }
    const auto calls = ports().free_calls.load();
    {
        Physmap::GivingBack giving(map());
        for (const std::uint64_t gfn : {0x7005, 0x7004, 0x7003, 0x7000, 0x7001, 0x7008, 0x7002}) {
            EXPECT_TRUE(giving.decrease(gfn));
            EXPECT_FALSE(map().is_mapped(gfn));
            EXPECT_FALSE(readable(gfn));
        }
        EXPECT_FALSE(giving.decrease(0x7008));
        EXPECT_EQ(current(), 0x8011u - 7);
        EXPECT_EQ(ports().free_calls.load(), calls);
        // Not freed yet is not touched.
        EXPECT_FALSE(map().free_touched(0x7008));
    }
    EXPECT_EQ(ports().free_calls.load(), calls + 3);
    for (std::uint64_t gfn = 0x7000; gfn < 0x7010; ++gfn) {
        EXPECT_EQ(ports().ram_backed(gfn), readable(gfn)) << gfn;
    }
}

TEST_F(PhysmapTest, APageThatIsPopulatedBeforeItsBatchEndsStays) {
    guest.poke(at(kRam), std::uint32_t{0x1234});
    std::byte* held = nullptr;
    {
        Physmap::GivingBack giving(map());
        held = map().hold(kRam + 1);
        EXPECT_TRUE(giving.decrease(kRam));
        EXPECT_TRUE(giving.decrease(kRam + 1));
        EXPECT_TRUE(map().populate(kRam));
        EXPECT_EQ(guest.get<std::uint32_t>(at(kRam)), 0u);
        guest.poke(at(kRam), std::uint32_t{0x5678});
        *held = std::byte{7};
    }
    EXPECT_EQ(guest.get<std::uint32_t>(at(kRam)), 0x5678u);
    EXPECT_EQ(*held, std::byte{7});
    map().release(kRam + 1);
    EXPECT_FALSE(ports().ram_backed(kRam + 1));
    EXPECT_EQ(current(), 0x8011u - 1);
}

// An event that is due waits until they are freed.
TEST_F(PhysmapTest, ABatchHoldsBackAFewPiecesOnly) {
    const auto freed = ports().pages_freed.load();
    Physmap::GivingBack giving(map());
    for (std::uint64_t i = 0; i < 64; ++i) {
        EXPECT_TRUE(giving.decrease(0x7000 + 2 * i));
        EXPECT_LT(i + 1 - (ports().pages_freed - freed), 8u);
    }
}

TEST_F(PhysmapTest, ABatchHoldsBackAFewPagesOnly) {
    const auto calls = ports().free_calls.load();
    const auto freed = ports().pages_freed.load();
    Physmap::GivingBack giving(map());
    for (std::uint64_t i = 0; i < 256; ++i) {
        EXPECT_TRUE(giving.decrease(0x7000 + i));
        EXPECT_LT(i + 1 - (ports().pages_freed - freed), 32u);
        // It says when it has cost something.
        EXPECT_EQ(giving.freed(), i % 32 == 31) << i;
        EXPECT_FALSE(giving.freed());
    }
    EXPECT_EQ(ports().free_calls.load(), calls + 8);
}

TEST_F(PhysmapTest, AnExtentOfRamIsGivenBackAtOnceAndFreedBitByBit) {
    for (std::uint64_t gfn = 0x7000; gfn < 0x7203; ++gfn) {
        guest.poke(at(gfn), std::uint32_t{1});
    }
    const auto freed = ports().pages_freed.load();
    EXPECT_FALSE(map().owes());
    EXPECT_FALSE(map().free_some_owed());
    {
        Physmap::GivingBack giving(map());
        EXPECT_TRUE(giving.decrease(0x7001, 512));
        EXPECT_FALSE(giving.freed());
    }
    EXPECT_EQ(current(), 0x8011u - 512);
    EXPECT_TRUE(map().is_mapped(0x7000));
    EXPECT_FALSE(map().is_mapped(0x7001));
    EXPECT_FALSE(map().is_mapped(0x7200));
    EXPECT_TRUE(map().is_mapped(0x7201));
    EXPECT_EQ(ports().pages_freed.load(), freed);
    for (std::uint64_t n = 32; n <= 512; n += 32) {
        EXPECT_TRUE(map().owes());
        EXPECT_EQ(map().free_some_owed(), n != 512);
        EXPECT_EQ(ports().pages_freed - freed, n);
    }
    EXPECT_FALSE(map().owes());
    for (std::uint64_t gfn = 0x7000; gfn < 0x7203; ++gfn) {
        EXPECT_EQ(ports().ram_backed(gfn), readable(gfn)) << gfn;
    }
}

TEST_F(PhysmapTest, WhatIsLeftToBeFreedIsNoTouchedPageAndStaysWhenItIsPopulated) {
    for (std::uint64_t gfn = 0x7000; gfn < 0x7200; ++gfn) {
        guest.poke(at(gfn), std::uint32_t{1});
    }
    {
        Physmap::GivingBack giving(map());
        EXPECT_TRUE(giving.decrease(0x7000, 512));
    }
    EXPECT_FALSE(map().free_touched(0x7001));
    EXPECT_FALSE(ports().ram_backed(0x7001));
    EXPECT_TRUE(map().populate(0x7010, 64));
    for (std::uint64_t gfn = 0x7010; gfn < 0x7050; ++gfn) {
        EXPECT_EQ(guest.get<std::uint32_t>(at(gfn)), 0u) << gfn;
        guest.poke(at(gfn), static_cast<std::uint32_t>(gfn));
    }
    map().free_owed();
    for (std::uint64_t gfn = 0x7000; gfn < 0x7200; ++gfn) {
        const bool populated = gfn - 0x7010 < 64;
        EXPECT_EQ(ports().ram_backed(gfn), populated) << gfn;
        if (populated) EXPECT_EQ(guest.get<std::uint32_t>(at(gfn)), gfn);
    }
    EXPECT_TRUE(map().decrease(0x7010, 64));
    // A touch of a hole is one again.
    *ports().memory.kept_page(0x7001) = std::byte{1};
    EXPECT_TRUE(map().free_touched(0x7001));
}

// Given back, populated, freed and touched at the same time: what was populated reads as zeroes,
// and keeps what is written to it until it is given back again.
TEST_F(PhysmapTest, NothingIsFreedAfterItWasPopulated) {
    constexpr std::uint64_t kPages = 64, kRounds = 150;
    constexpr std::uint64_t kFirst[] = {0x7000, 0x7000 + kPages};
    std::atomic<unsigned> running{2};
    std::thread freer([&] {
        while (running != 0) {
            map().free_owed();
            std::this_thread::yield();
        }
    });
    // A guest's other vCPU, at a page of either extent, whatever it is at that time.
    std::thread toucher([&] {
        while (running != 0) {
            for (const std::uint64_t first : kFirst) {
                std::atomic_ref(*reinterpret_cast<std::uint64_t*>(  // NOLINT: a word of the guest's
                                    ports().memory.kept_page(first)))
                    .fetch_add(1);
            }
            std::this_thread::yield();
        }
    });
    std::vector<std::thread> vcpus;
    for (const std::uint64_t first : kFirst) {
        vcpus.emplace_back([&, first] {
            struct Left {
                std::atomic<unsigned>& running;
                ~Left() { --running; }
            } const left{running};
            const auto word = [&](std::uint64_t i) {
                return std::atomic_ref(*reinterpret_cast<std::uint64_t*>(  // NOLINT: the same
                    ports().memory.kept_page(first + i)));
            };
            for (std::uint64_t round = 1; round <= kRounds; ++round) {
                for (std::uint64_t i = 1; i < kPages; ++i) {
                    word(i).store(round * i);
                }
                {
                    Physmap::GivingBack giving(map());
                    ASSERT_TRUE(giving.decrease(first, kPages));
                }
                if (round % 3 == 0) map().free_some_owed();
                ASSERT_TRUE(map().populate(first, kPages));
                for (std::uint64_t i = 1; i < kPages; ++i) {
                    ASSERT_EQ(word(i).load(), 0u) << round;
                    word(i).store(round * i);
                }
                std::this_thread::yield();
                for (std::uint64_t i = 1; i < kPages; ++i) {
                    ASSERT_EQ(word(i).load(), round * i);
                }
            }
        });
    }
    for (auto& vcpu : vcpus) {
        vcpu.join();
    }
    freer.join();
    toucher.join();
    EXPECT_EQ(current(), 0x8011u);
}

TEST_F(PhysmapTest, AnExtentOfRamIsOneOperation) {
    const auto calls = ports().free_calls.load();
    EXPECT_TRUE(map().decrease(0x7001, 512));
    EXPECT_EQ(ports().free_calls.load(), calls + 16);
    EXPECT_EQ(current(), 0x8011u - 512);
    EXPECT_TRUE(map().is_mapped(0x7000));
    EXPECT_FALSE(map().is_mapped(0x7001));
    EXPECT_FALSE(map().is_mapped(0x7200));
    EXPECT_TRUE(map().is_mapped(0x7201));
    EXPECT_TRUE(map().populate(0x7001, 512));
    EXPECT_EQ(ports().free_calls.load(), calls + 16);
    EXPECT_EQ(current(), 0x8011u);
    EXPECT_TRUE(map().has_ram(0x7200));
}

// XSA-388/389: whatever lies in an extent, it is as if each page had been named alone.
TEST_F(PhysmapTest, ExtentsAreTheSameAsTheirPages) {
    const auto prepare = [](TestDomain& d) {
        Physmap& m = d.domain.physmap();
        EXPECT_TRUE(m.place_own(kSharedInfoPage, 0x7f03).has_value());
        EXPECT_TRUE(m.place_own(kFirstGrantPage, 0x7f40).has_value());
        EXPECT_TRUE(m.populate(0x8000));  // behind the end of the slot
        EXPECT_TRUE(m.populate(0x8001));
    };
    // Where the hole is that ends it; none.
    for (const std::uint64_t hole :
         {0x7f00ull, 0x7f02ull, 0x7f04ull, 0x7f63ull, 0x7f64ull, 0x7fffull, 0x8002ull, 0ull}) {
        TestDomain one{abi::Width::k64}, other{abi::Width::k64};
        for (TestDomain* d : {&one, &other}) {
            prepare(*d);
            if (hole < 0x8000) d->domain.physmap().decrease(hole);
        }
        const std::uint64_t pages = hole == 0x8002 ? 259 : 258;
        const bool whole = one.domain.physmap().decrease(0x7f00, pages);
        bool single = true;
        for (std::uint64_t i = 0; i < pages && single; ++i) {
            single = other.domain.physmap().decrease(0x7f00 + i);
        }
        EXPECT_EQ(whole, single) << hole;
        EXPECT_EQ(whole, hole == 0) << hole;
        for (std::uint64_t gfn = 0x7ef0; gfn < 0x8010; ++gfn) {
            EXPECT_EQ(one.domain.physmap().is_mapped(gfn), other.domain.physmap().is_mapped(gfn))
                << gfn;
        }
        EXPECT_EQ(one.domain.physmap().accounts().current,
                  other.domain.physmap().accounts().current);
        EXPECT_EQ(one.ports.overlays, other.ports.overlays);
    }
}

TEST_F(PhysmapTest, PopulatingOverAMixtureReplacesAllOfIt) {
    ASSERT_TRUE(map().place_own(kSharedInfoPage, 0x7ffe).has_value());
    ASSERT_TRUE(map().decrease(0x7ffc));
    guest.poke(at(0x7ffd), std::uint32_t{0x1234});
    const auto before = current();
    ASSERT_TRUE(map().populate(0x7ffc, 8));  // four of them behind the end of the slot
    EXPECT_EQ(current(), before + 8);
    for (std::uint64_t gfn = 0x7ffc; gfn < 0x8004; ++gfn) {
        EXPECT_TRUE(map().has_ram(gfn)) << gfn;
        EXPECT_EQ(guest.get<std::uint32_t>(at(gfn)), 0u) << gfn;
    }
    EXPECT_EQ(map().gfn_of_own(kSharedInfoPage), kNoGfn);
    expect_overlays_in_slots(0);
}

// XSA-385: the cap is held exactly, and an extent that does not fit is not begun.
TEST_F(PhysmapTest, AnExtentThatDoesNotFitTheAccountIsNotBegun) {
    const std::uint64_t room = 0x8100 - 0x8011;
    EXPECT_FALSE(map().increase(room + 1));
    EXPECT_TRUE(map().increase(room - 3));
    guest.poke(at(kRam), std::uint32_t{0x1234});
    EXPECT_FALSE(map().populate(kRam, 4));
    EXPECT_EQ(guest.get<std::uint32_t>(at(kRam)), 0x1234u);
    EXPECT_EQ(current(), 0x8100u - 3);
    EXPECT_FALSE(map().increase(~std::uint64_t{0}));
    EXPECT_FALSE(map().populate(kRam, ~std::uint64_t{0}));
    EXPECT_EQ(current(), 0x8100u - 3);
}

// Xen looks for grants in all of it (guest_physmap_add_entry) before it begins.
TEST_F(PhysmapTest, AnExtentWithAGrantInItIsNotBegun) {
    std::uint32_t page = 0;
    ASSERT_TRUE(map().decrease(kRam + 8, 3));
    ASSERT_EQ(map().adopt(kRam + 2, kRam + 9, &page), Physmap::Shown::kDone);
    guest.poke(at(kRam + 7), std::uint32_t{0x1234});
    const std::uint64_t before = current();
    EXPECT_FALSE(map().populate(kRam + 7, 4));
    EXPECT_FALSE(map().populate(kRam + 9));
    EXPECT_EQ(current(), before);
    EXPECT_EQ(guest.get<std::uint32_t>(at(kRam + 7)), 0x1234u);
    EXPECT_FALSE(map().is_mapped(kRam + 8));
    EXPECT_TRUE(map().populate(kRam + 7, 2));
    EXPECT_TRUE(map().populate(kRam + 10));
    EXPECT_EQ(current(), before + 3);
}

// ---- moving -------------------------------------------------------------------------------------

TEST_F(PhysmapTest, MovingCarriesTheContentAndFreesTheTarget) {
    guest.poke(at(0x7015), std::uint32_t{0xaaaa});
    guest.poke(at(0x7016), std::uint32_t{0xbbbb});
    ASSERT_TRUE(map().move(0x7015, 0x7016).has_value());
    EXPECT_EQ(guest.get<std::uint32_t>(at(0x7016)), 0xaaaau);
    EXPECT_FALSE(map().is_mapped(0x7015));
    EXPECT_FALSE(ports().ram_backed(0x7015));
    EXPECT_EQ(current(), 0x8010u);
    EXPECT_EQ(error_of(map().move(0x7015, 0x7017)), XEN_EINVAL);  // a hole has nothing to move
    EXPECT_TRUE(map().move(0x7016, 0x7016).has_value());
    EXPECT_EQ(guest.get<std::uint32_t>(at(0x7016)), 0xaaaau);
}

TEST_F(PhysmapTest, MovingOutOfTheSlotsAndBack) {
    guest.poke(at(kRam), std::uint32_t{0xaaaa});
    ASSERT_TRUE(map().move(kRam, kHole).has_value());
    EXPECT_EQ(guest.get<std::uint32_t>(at(kHole)), 0xaaaau);
    EXPECT_EQ(current(), 0x8011u);
    ASSERT_TRUE(map().move(kHole, kRam).has_value());
    EXPECT_EQ(guest.get<std::uint32_t>(at(kRam)), 0xaaaau);
    EXPECT_EQ(ports().pool_used(), 0u);
    EXPECT_EQ(current(), 0x8011u);
}

TEST_F(PhysmapTest, AnOwnPageMovesLikeRam) {
    ASSERT_TRUE(map().place_own(kSharedInfoPage, 0x7010).has_value());
    ASSERT_TRUE(map().move(0x7010, 0x7011).has_value());
    EXPECT_EQ(map().gfn_of_own(kSharedInfoPage), 0x7011u);
    EXPECT_FALSE(map().is_mapped(0x7010));
    EXPECT_EQ(current(), 0x800fu);
}

TEST_F(PhysmapTest, AMoveThatFindsNoRoomLosesNothing) {
    ports().pool_pages = 0;
    guest.poke(at(kRam), std::uint32_t{0xaaaa});
    EXPECT_EQ(error_of(map().move(kRam, kHole)), XEN_ENOMEM);
    EXPECT_EQ(guest.get<std::uint32_t>(at(kRam)), 0xaaaau);
    EXPECT_EQ(current(), 0x8011u);
}

TEST_F(PhysmapTest, RemovingIsForWhatIsThere) {
    EXPECT_TRUE(map().remove(kRam).has_value());
    EXPECT_EQ(current(), 0x8011u);  // out of the map, and still the domain's
    EXPECT_EQ(error_of(map().remove(kRam)), XEN_ENOENT);
    EXPECT_EQ(error_of(map().remove(kHole)), XEN_ENOENT);
    EXPECT_EQ(error_of(map().remove(~0ull)), XEN_ENOENT);
}

// ---- our own pages ------------------------------------------------------------------------------

TEST_F(PhysmapTest, AnOwnPageReplacesRamAndLeavesAHole) {
    ports().own_page(kSharedInfoPage)[100] = std::byte{0x42};
    guest.poke(at(0x7010), std::uint32_t{0x1234});
    ASSERT_TRUE(map().place_own(kSharedInfoPage, 0x7010).has_value());
    EXPECT_EQ(current(), 0x8010u);
    EXPECT_EQ(guest.get<std::uint8_t>(at(0x7010) + 100), 0x42);
    EXPECT_EQ(map().gfn_of_own(kSharedInfoPage), 0x7010u);
    EXPECT_FALSE(ports().ram_backed(0x7010));  // the RAM below it was freed
    expect_overlays_in_slots(1);

    ASSERT_TRUE(map().place_own(kSharedInfoPage, 0x7011).has_value());
    EXPECT_EQ(current(), 0x800fu);
    EXPECT_FALSE(map().is_mapped(0x7010));
    EXPECT_FALSE(readable(0x7010));
    EXPECT_EQ(guest.get<std::uint8_t>(at(0x7011) + 100), 0x42);
    expect_overlays_in_slots(1);

    EXPECT_EQ(error_of(map().remove(0x7010)), XEN_ENOENT);
    EXPECT_TRUE(map().remove(0x7011).has_value());
    EXPECT_EQ(map().gfn_of_own(kSharedInfoPage), kNoGfn);
    EXPECT_EQ(error_of(map().remove(0x7011)), XEN_ENOENT);
    EXPECT_EQ(current(), 0x800fu);
    expect_overlays_in_slots(0);
}

TEST_F(PhysmapTest, AnOwnPageInAHoleCostsNothing) {
    ASSERT_TRUE(map().place_own(kSharedInfoPage, kHole).has_value());
    EXPECT_EQ(current(), 0x8011u);
    EXPECT_TRUE(map().decrease(kHole));
    EXPECT_FALSE(map().decrease(kHole));
    EXPECT_EQ(current(), 0x8011u);
    EXPECT_TRUE(map().place_own(kSharedInfoPage, kHole).has_value());
    EXPECT_TRUE(map().populate(kHole));
    EXPECT_EQ(current(), 0x8012u);
    EXPECT_EQ(map().gfn_of_own(kSharedInfoPage), kNoGfn);
    EXPECT_EQ(ports().pool_used(), 1u);
}

TEST_F(PhysmapTest, PlacingAnOwnPageWhereItIsChangesNothing) {
    ASSERT_TRUE(map().place_own(kSharedInfoPage, 0x7010).has_value());
    ASSERT_TRUE(map().place_own(kSharedInfoPage, 0x7010).has_value());
    EXPECT_EQ(current(), 0x8010u);
    expect_overlays_in_slots(1);
}

TEST_F(PhysmapTest, RamBelowAnOwnPageComesBackZeroed) {
    guest.poke(at(0x7010), std::uint32_t{0x1234});
    ASSERT_TRUE(map().place_own(kSharedInfoPage, 0x7010).has_value());
    ASSERT_TRUE(map().populate(0x7010));
    EXPECT_EQ(guest.get<std::uint32_t>(at(0x7010)), 0u);
    EXPECT_TRUE(map().has_ram(0x7010));
    EXPECT_EQ(current(), 0x8011u);
    expect_overlays_in_slots(0);
}

TEST_F(PhysmapTest, AGrantFrameThatWasGivenBackIsGoneForGood) {
    const std::uint32_t page = kFirstGrantPage;
    ASSERT_TRUE(map().place_own(page, 0x7010).has_value());
    EXPECT_TRUE(map().decrease(0x7010));
    EXPECT_EQ(error_of(map().place_own(page, 0x7014)), XEN_EBUSY);
    EXPECT_EQ(map().gfn_of_own(page), kNoGfn);
    // shared_info is not: it may be placed again.
    ASSERT_TRUE(map().place_own(kSharedInfoPage, 0x7010).has_value());
    EXPECT_TRUE(map().decrease(0x7010));
    EXPECT_TRUE(map().place_own(kSharedInfoPage, 0x7010).has_value());
}

TEST_F(PhysmapTest, AnOwnPageOverAnotherTakesItsPlace) {
    ASSERT_TRUE(map().place_own(kSharedInfoPage, 0x7010).has_value());
    ASSERT_TRUE(map().place_own(kFirstGrantPage, 0x7010).has_value());
    EXPECT_EQ(map().gfn_of_own(kSharedInfoPage), kNoGfn);
    EXPECT_EQ(map().gfn_of_own(kFirstGrantPage), 0x7010u);
    EXPECT_EQ(current(), 0x8010u);
    ports().own_page(kFirstGrantPage)[0] = std::byte{0x11};
    EXPECT_EQ(guest.get<std::uint8_t>(at(0x7010)), 0x11);
    expect_overlays_in_slots(1);
}

// The bound of overlays is the machine's; a page that took another's place must not use it up.
TEST_F(PhysmapTest, OverlaysAreNotUsedUpByReplacingThem) {
    ports().max_overlays = 8;
    for (unsigned round = 0; round < 20; ++round) {
        ASSERT_TRUE(map().place_own(kSharedInfoPage, 0x7010).has_value()) << round;
        ASSERT_TRUE(map().place_own(kFirstGrantPage, 0x7010).has_value()) << round;
    }
    EXPECT_TRUE(map().remove(0x7010).has_value());
    expect_overlays_in_slots(0);
}

TEST_F(PhysmapTest, SlotsOfThePoolAreNotUsedUpByReplacingThem) {
    ports().pool_pages = 1;
    for (unsigned round = 0; round < 5; ++round) {
        ASSERT_TRUE(map().place_own(kSharedInfoPage, kHole).has_value()) << round;
        ASSERT_TRUE(map().place_own(kFirstGrantPage, kHole).has_value()) << round;
        ASSERT_TRUE(map().populate(kHole)) << round;
    }
    EXPECT_EQ(ports().pool_used(), 1u);
}

TEST_F(PhysmapTest, NoRoomForAnOverlayChangesNothing) {
    ASSERT_TRUE(map().place_own(kSharedInfoPage, 0x7010).has_value());
    guest.poke(at(0x7011), std::uint32_t{0x1234});
    ports().max_overlays = 1;
    EXPECT_EQ(error_of(map().place_own(kSharedInfoPage, 0x7011)), XEN_ENOMEM);
    EXPECT_EQ(map().gfn_of_own(kSharedInfoPage), 0x7010u);
    EXPECT_EQ(guest.get<std::uint32_t>(at(0x7011)), 0x1234u);
    EXPECT_EQ(current(), 0x8010u);
    expect_overlays_in_slots(1);
}

// XSA-222, XSA-247: a machine that has no room now and then. Whatever it refuses, pages count where
// they are and nowhere else, and the machine shows what the map says.
TEST_F(PhysmapTest, Xsa247RefusalsOfTheMachineLeaveTheAccountsRight) {
    constexpr std::uint64_t kPages = 6;
    std::vector<std::uint64_t> gfns;
    for (std::uint64_t n = 0; n < kPages; ++n) {
        gfns.insert(gfns.end(), {0x7010 + n, kHole + n});
    }
    const auto ram_here = [&] {
        return static_cast<std::uint64_t>(std::count_if(
            gfns.begin(), gfns.end(), [&](std::uint64_t gfn) { return map().has_ram(gfn); }));
    };
    const std::uint64_t elsewhere = current() - ram_here();
    constexpr std::uint32_t kOurs[] = {kSharedInfoPage, kFirstGrantPage, kFirstGrantPage + 1};
    std::minstd_rand random(247);
    unsigned done = 0, refused = 0;
    for (unsigned n = 0; n < 5'000; ++n) {
        ports().max_overlays = random() % 3;
        ports().pool_pages = random() % 5;
        const std::uint64_t gfn = gfns[random() % gfns.size()];
        const std::uint64_t other = gfns[random() % gfns.size()];
        bool worked = false;
        switch (random() % 4) {
            case 0: worked = map().decrease(gfn); break;
            case 1:
                if (map().is_mapped(gfn)) continue;  // what is replaced counts for ever, as on Xen
                worked = map().populate(gfn);
                break;
            case 2: worked = map().place_own(kOurs[random() % 3], gfn).has_value(); break;
            default: worked = map().move(gfn, other).has_value(); break;
        }
        ++(worked ? done : refused);
        ASSERT_EQ(current(), elsewhere + ram_here()) << n;
        std::size_t in_slots = 0, in_pool = 0;
        for (const std::uint64_t at : gfns) {
            const bool ours = map().is_mapped(at) && !map().has_ram(at);
            if (ports().in_slot(at)) {
                in_slots += ours;
            } else {
                in_pool += map().is_mapped(at);
            }
            ASSERT_EQ(readable(at), map().is_mapped(at)) << n;
        }
        ASSERT_EQ(ports().overlays.size(), in_slots) << n;
        ASSERT_EQ(ports().pool_used(), in_pool) << n;
    }
    EXPECT_GT(done, 500u);
    EXPECT_GT(refused, 500u);
}

// XSA-379/384/486: whoever races to place, move and drop a page of ours, it is in one place at a
// time, and the map and the machine agree which.
TEST_F(PhysmapTest, RacesLeaveAnOwnPageInOnePlace) {
    const auto race = [&](std::uint64_t mine, std::uint64_t other) {
        for (unsigned round = 0; round < 500; ++round) {
            EXPECT_TRUE(map().place_own(kSharedInfoPage, mine + round % 3).has_value());
            static_cast<void>(map().move(mine + round % 3, mine + 3));
            static_cast<void>(map().remove(other + round % 4));
            const std::uint64_t now = map().gfn_of_own(kSharedInfoPage);
            EXPECT_TRUE(now == kNoGfn || now - mine < 4 || now - other < 4);
        }
    };
    std::thread second([&] { race(0x7020, 0x7010); });
    race(0x7010, 0x7020);
    second.join();
    ASSERT_TRUE(map().place_own(kSharedInfoPage, 0x7018).has_value());
    expect_overlays_in_slots(1);
    for (const std::uint64_t base : {0x7010ull, 0x7020ull}) {
        for (std::uint64_t gfn = base; gfn < base + 4; ++gfn) {
            EXPECT_FALSE(map().is_mapped(gfn)) << gfn;
        }
    }
    // What was removed still counts, what a page of ours came over does not.
    EXPECT_LE(current(), 0x8011u - 1);
    EXPECT_GE(current(), 0x8011u - 9);
}

TEST_F(PhysmapTest, OwnPagesMayLieOnTheLapicAndOnSpecialPages) {
    EXPECT_TRUE(map().place_own(kSharedInfoPage, 0xfee00).has_value());
    EXPECT_TRUE(map().place_own(kSharedInfoPage, 0xfefff).has_value());
    EXPECT_EQ(current(), 0x8010u);
    EXPECT_TRUE(map().place_own(kSharedInfoPage, 0x7010).has_value());
    EXPECT_EQ(ports().pool_used(), 0u);
}

}  // namespace
}  // namespace xenshim
