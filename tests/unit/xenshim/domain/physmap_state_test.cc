// The state of the physical memory map, and the content of the pages that lie outside its slots:
// bytes, domains that go on as if nothing had been, and states that no domain can have.
#include <random>

#include <gtest/gtest.h>

#include "tests/fakes/saved_checks.h"
#include "tests/fakes/saved_domain.h"

namespace xenshim {
namespace {

using fakes::expect_refused;
using fakes::expect_same;
using ::fakes::expect_saved;
using fakes::FakePorts;
using fakes::move_domain;
using fakes::save;
using fakes::TestDomain;

constexpr std::uint64_t kRam = TestDomain::kRamGfn;
constexpr std::uint64_t kOutside = TestDomain::kHoleGfn;

TEST(PhysmapState, ComesBack) {
    PhysmapState state{.current = 0x8010,
                       .maximum = 0x8100,
                       .highest_gfn = 0xfefff,
                       .holes = {{.gfn = 0x10, .pages = 1}, {.gfn = 0x100, .pages = 0x200}},
                       .own = {{0, 0x7000}, {1, 0x100000}, {4097, 0x7001}},
                       .lost = {2, 4608},
                       .outside = {0x40000, 0x40001},
                       .leaving = {0x40002},
                       .adopted = {{4609, {.given_back = true, .places = {}}},
                                   {4610, {.given_back = false, .places = {0x20, 0x50000}}}},
                       .modified = 99};
    state.types[0x70].fill(0x24);
    expect_saved(state, "xen.physmap");
}

TEST(OwnPagesState, ComesBack) {
    OwnPagesState state;
    state.own[0][2048] = std::byte{0xff};
    state.outside[0x40000][4095] = std::byte{1};
    expect_saved(state, "xen.own_pages");
}

// ---- domains that go on -------------------------------------------------------------------------

// What guest and device model may do to the map of one domain. All that it answers is written down.
class Player {
  public:
    Player() {
        EXPECT_TRUE(d.domain.grants().grow_to(kFrames));
        d.ports.pool_pages = 6;
        d.ports.max_overlays = 6;
    }

    void step(unsigned choice, std::uint32_t a, std::uint32_t b) {
        const std::uint64_t gfn = gfn_of(a), other = gfn_of(b);
        switch (choice) {
            case 0: say(map().decrease(gfn, 1 + b % 3)); return;
            case 1: say(map().populate(gfn, 1 + b % 3)); return;
            case 2: say(map().place_own(own_of(b), gfn)); return;
            case 3: say(map().move(gfn, other)); return;
            case 4: say(map().remove(gfn)); return;
            case 5: map().withdraw_own(own_of(a)); return;
            case 6: say(map().set_mem_type(gfn, static_cast<MemType>(b % 3))); return;
            case 7: map().mark_modified(gfn); return;
            case 8: {
                std::uint32_t page = 0;
                const auto shown = map().adopt(gfn, other, &page);
                say(static_cast<unsigned>(shown));
                if (shown == Physmap::Shown::kDone) holders.push_back(page);
                return;
            }
            case 9:
                if (holders.empty()) return;
                say(static_cast<unsigned>(map().show_adopted(holders[a % holders.size()], other)));
                return;
            case 10:
                if (holders.empty()) return;
                say(map().hide_adopted(holders[a % holders.size()], other));
                return;
            case 11:
                if (holders.empty()) return;
                map().release_adopted(holders[a % holders.size()]);
                holders.erase(holders.begin() + a % holders.size());
                return;
            case 12: say(b % 8 == 0 && map().increase()); return;
            case 13: {
                std::byte* page = map().hold(gfn);
                say(page != nullptr);
                if (page != nullptr) held.push_back(gfn);
                return;
            }
            case 14:
                if (held.empty()) return;
                map().release(held[a % held.size()]);
                held.erase(held.begin() + a % held.size());
                return;
            default:
                say(d.ports.memory.write(vmm::gfn_to_gpa(gfn) + b % 4 * 8, std::uint64_t{b}));
                return;
        }
    }
    static constexpr unsigned kChoices = 20;  // writing is what happens most

    // Takes over from `other`, which stays as it is.
    void continue_from(Player& from) {
        d.ports.copy_memory(from.d.ports);
        const auto saved = save(from.d.domain);
        const auto restored = restore(d.domain, saved);
        ASSERT_TRUE(restored) << restored.error();
        for (const std::uint32_t page : from.holders) {
            ASSERT_TRUE(map().hold_adopted(page)) << page;
        }
        for (const std::uint64_t gfn : from.held) {
            ASSERT_NE(map().hold_again(gfn), nullptr) << gfn;
        }
        map().settle();
        holders = from.holders;
        held = from.held;
        said = from.said;
        expect_same(save(d.domain), saved);
        expect_same(save(from.d.domain), saved);
    }
    // What the guest sees at each of the places.
    void look() {
        for (std::uint32_t i = 0; i < kPlaces; ++i) {
            const std::uint64_t gfn = gfn_of(i);
            say(map().is_mapped(gfn));
            say(map().has_ram(gfn));
            say(d.ports.memory.is_foreign(gfn));
            say(static_cast<unsigned>(map().mem_type(gfn)));
            for (unsigned word = 0; word < 4; ++word) {
                const auto at = vmm::gfn_to_gpa(gfn) + word * 8;
                say(d.ports.memory.read<std::uint64_t>(at).value_or(~0ull));
            }
        }
        say(d.ports.overlays.size());
        say(d.ports.pool_used());
    }

    template <class T>
    void say(const GuestResult<T>& result) {
        say(result ? 0 : result.error());
    }
    void say(std::uint64_t word) { said.push_back(word); }

    Physmap& map() { return d.domain.physmap(); }
    static std::uint32_t own_of(std::uint32_t n) { return n % (kFrames + 1); }
    static constexpr std::uint32_t kPlaces = 24, kFrames = 4;
    // At the ends of slots, in them, outside, and where no CPU can look.
    static std::uint64_t gfn_of(std::uint32_t n) {
        n %= kPlaces;
        if (n < 10) return kRam + n;
        if (n < 13) return FakePorts::kRamPages - 2 + n - 10;
        if (n < 18) return kOutside + n - 13;
        if (n < 21) return FakePorts::kSpecialGfn - 1 + n - 18;
        return (n == 21 ? 0x100000 : Physmap::kGfnLimit) - 1 + n - 21;
    }

    TestDomain d{abi::Width::k64};
    std::vector<std::uint32_t> holders;  // of adopted pages
    std::vector<std::uint64_t> held;
    std::vector<std::uint64_t> said;
};

TEST(MovedPhysmap, GoesOnAsItWould) {
    for (unsigned seed = 0; seed < 60; ++seed) {
        std::minstd_rand random(seed + 1);
        const auto next = [&] { return static_cast<std::uint32_t>(random() >> 5); };
        auto stayed = std::make_unique<Player>();
        const auto play = [&](Player* a, Player* b, unsigned steps) {
            for (unsigned i = 0; i < steps; ++i) {
                const std::uint32_t choice = next() % Player::kChoices, x = next(), y = next();
                a->step(choice, x, y);
                if (b != nullptr) b->step(choice, x, y);
            }
        };
        play(stayed.get(), nullptr, 20 + next() % 200);
        for (unsigned move = 0; move < 2; ++move) {
            auto moved = std::make_unique<Player>();
            moved->continue_from(*stayed);
            stayed->look();
            moved->look();
            ASSERT_EQ(moved->said, stayed->said) << seed;
            play(stayed.get(), moved.get(), 200);
            stayed->look();
            moved->look();
            ASSERT_EQ(moved->said, stayed->said) << seed;
            expect_same(save(moved->d.domain), save(stayed->d.domain));
            if (HasFailure()) return;
            stayed = std::move(moved);
        }
    }
}

// A page that somebody holds is his, also when the guest gave it back before it was moved.
TEST(MovedPhysmap, WhoHoldsAPageFindsItAgain) {
    TestDomain a(abi::Width::k64), b(abi::Width::k64);
    Physmap &from = a.domain.physmap(), &to = b.domain.physmap();
    ASSERT_TRUE(from.populate(kOutside));
    for (const std::uint64_t gfn : {kRam, kRam + 1, kOutside}) {
        a.poke({gfn << vmm::kPageShift}, std::uint64_t{0x1234'5678} + gfn);
        ASSERT_NE(from.hold(gfn), nullptr);
    }
    ASSERT_TRUE(from.decrease(kRam));
    ASSERT_TRUE(from.decrease(kOutside));

    b.ports.copy_memory(a.ports);
    const auto saved = save(a.domain);
    ASSERT_TRUE(restore(b.domain, saved));
    for (const std::uint64_t gfn : {kRam, kRam + 1, kOutside}) {
        const std::byte* page = to.hold_again(gfn);
        ASSERT_NE(page, nullptr);
        std::uint64_t value = 0;
        std::memcpy(&value, page, sizeof value);
        EXPECT_EQ(value, 0x1234'5678 + gfn);
    }
    EXPECT_EQ(to.hold_again(kOutside + 1), nullptr);
    EXPECT_EQ(to.hold_again(1ull << 60), nullptr);
    to.settle();
    expect_same(save(b.domain), saved);
    // For the guest they are gone, and the places not free before they are let go.
    for (const std::uint64_t gfn : {kRam, kOutside}) {
        EXPECT_FALSE(to.is_mapped(gfn));
        EXPECT_FALSE(to.populate(gfn));
        to.release(gfn);
        EXPECT_TRUE(to.populate(gfn));
        EXPECT_EQ(b.get<std::uint64_t>({gfn << vmm::kPageShift}), 0u);
    }
}

TEST(MovedPhysmap, WhatNobodyTookAgainIsNobodys) {
    TestDomain a(abi::Width::k64), b(abi::Width::k64);
    Physmap &from = a.domain.physmap(), &to = b.domain.physmap();
    const std::uint64_t at_start = from.accounts().current;
    std::uint32_t page = 0;
    ASSERT_EQ(from.adopt(kRam, kRam, &page), Physmap::Shown::kDone);
    ASSERT_TRUE(from.decrease(kRam));
    EXPECT_EQ(from.accounts().current, at_start);  // mapped still
    ASSERT_TRUE(from.populate(kOutside));
    ASSERT_NE(from.hold(kOutside), nullptr);
    ASSERT_TRUE(from.decrease(kOutside));
    ASSERT_TRUE(restore(b.domain, save(a.domain)));
    EXPECT_EQ(to.accounts().current, at_start);
    EXPECT_EQ(b.ports.pool_used(), 1u);
    EXPECT_FALSE(to.hold_adopted(page + 1));
    to.settle();
    EXPECT_EQ(to.accounts().current, at_start - 1);
    EXPECT_TRUE(to.adopted_pages().empty());
    EXPECT_TRUE(to.pages_outside_slots().empty());
    EXPECT_EQ(b.ports.pool_used(), 0u);
    EXPECT_FALSE(to.hold_adopted(page));
}

// Nearly everything given back, in one piece and in the worst of pieces.
TEST(MovedPhysmap, ManyHoles) {
    TestDomain a(abi::Width::k64), b(abi::Width::k64);
    ASSERT_TRUE(a.domain.physmap().decrease(0x100, 0x4000));
    for (std::uint64_t gfn = 0x6000; gfn < 0x6400; gfn += 2) {
        ASSERT_TRUE(a.domain.physmap().decrease(gfn));
    }
    ASSERT_TRUE(a.domain.physmap().decrease(0x7f00, 0x100));  // to the slot's end
    move_domain(a, b);
    const auto state = b.domain.physmap().snapshot();
    ASSERT_EQ(state.holes.size(), 2 + 0x200u);
    EXPECT_EQ(state.holes.front(), (GfnRunState{.gfn = 0x100, .pages = 0x4000}));
    EXPECT_EQ(state.holes.back(), (GfnRunState{.gfn = 0x7f00, .pages = 0x100}));
    EXPECT_EQ(b.domain.physmap().accounts().current, 0x8011u - 0x4300);
}

// ---- states that no domain can have -------------------------------------------------------------

class HostilePhysmap : public testing::Test {
  protected:
    HostilePhysmap() {
        TestDomain full(abi::Width::k64);
        Physmap& map = full.domain.physmap();
        std::uint32_t page = 0;
        EXPECT_TRUE(map.decrease(kRam, 4));
        EXPECT_TRUE(map.place_own(kSharedInfoPage, kRam + 8));
        EXPECT_TRUE(map.place_own(kFirstGrantPage, kRam + 9));
        EXPECT_TRUE(map.decrease(kRam + 9));  // lost
        EXPECT_TRUE(map.populate(kOutside, 2));
        EXPECT_NE(map.hold(kOutside + 1), nullptr);
        EXPECT_TRUE(map.decrease(kOutside + 1));
        EXPECT_EQ(map.adopt(kRam + 10, kRam + 11, &page), Physmap::Shown::kDone);
        EXPECT_TRUE(map.set_mem_type(kRam + 20, MemType::kRamRo));
        good = map.snapshot();
    }
    template <class Spoil>
    void refuse(const char* reason, Spoil&& spoil) {
        PhysmapState state = good;
        spoil(state);
        expect_refused(fresh.domain.physmap(), state, reason);
        expect_untouched();
    }
    // The machine, too, is as it was.
    void expect_untouched() {
        EXPECT_TRUE(fresh.ports.overlays.empty());
        EXPECT_EQ(fresh.ports.pool_used(), 0u);
    }

    TestDomain fresh{abi::Width::k64};
    PhysmapState good;
};

TEST_F(HostilePhysmap, WhatTheTestsBeginWithIsTaken) {
    EXPECT_TRUE(fresh.domain.physmap().adopt(good));
    EXPECT_EQ(fresh.domain.physmap().snapshot(), good);
    ASSERT_EQ(good.holes, (std::vector<GfnRunState>{{kRam, 4}, {kRam + 9, 2}}));
    ASSERT_EQ(good.adopted.size(), 1u);
}

TEST_F(HostilePhysmap, Accounts) {
    using S = PhysmapState;
    refuse("maximum: ", [](S& s) { s.maximum = Physmap::kGfnLimit + 1; });
    refuse("current: ", [](S& s) { s.current = s.maximum + 1; });
    refuse("highest_gfn: ", [](S& s) { s.highest_gfn = Physmap::kGfnLimit; });
    refuse("own: gfn 28680 is beyond the highest", [](S& s) { s.highest_gfn = kRam + 7; });
    refuse("adopted: gfn 28683 is beyond the highest", [](S& s) { s.highest_gfn = kRam + 10; });
    refuse("outside: gfn 524272 is beyond", [](S& s) { s.highest_gfn = kOutside - 1; });
    refuse("leaving: gfn 524273 is beyond", [](S& s) { s.highest_gfn = kOutside; });
}

TEST_F(HostilePhysmap, Holes) {
    using S = PhysmapState;
    refuse("holes: gfn 28672 begins", [](S& s) { s.holes[0].pages = 0; });
    refuse("holes: gfn 28672 begins", [](S& s) { s.holes[0].pages = 0x1001; });
    refuse("holes: gfn 28672 begins", [](S& s) { s.holes[0].pages = UINT64_MAX; });
    refuse("holes: gfn 32768 begins", [](S& s) { s.holes[0].gfn = 0x8000; });
    refuse("holes: gfn 18446744073709551615", [](S& s) { s.holes[0].gfn = UINT64_MAX; });
    refuse("holes: gfn 28672 follows", [](S& s) { std::swap(s.holes[0], s.holes[1]); });
    refuse("holes: gfn 28676 follows", [](S& s) { s.holes[1].gfn = kRam + 4; });
    refuse("holes: gfn 28675 follows", [](S& s) { s.holes[1].gfn = kRam + 3; });
}

TEST_F(HostilePhysmap, Own) {
    using S = PhysmapState;
    refuse("own: there is no page", [](S& s) { s.own[kFirstGrantedPage] = kRam + 30; });
    refuse("own: there is no page", [](S& s) { s.own[UINT32_MAX] = kRam + 30; });
    refuse("own: gfn 68719476736 is beyond", [](S& s) { s.own[0] = Physmap::kGfnLimit; });
    refuse("own: gfn 18446744073709551615", [](S& s) { s.own[0] = UINT64_MAX; });
    refuse("own: gfn 28672 is a hole", [](S& s) { s.own[0] = kRam; });
    refuse("own: gfn 28680 is named twice", [](S& s) { s.own[2] = kRam + 8; });
    refuse("lost: not page 0", [](S& s) { s.lost = {0}; });
    refuse("lost: not page 1", [](S& s) { s.lost = {1, 1}; });
    refuse("lost: not page 1", [](S& s) { s.lost = {2, 1}; });
    refuse("lost: not page 1", [](S& s) { s.own[1] = kRam + 30; });
    refuse("lost: not page", [](S& s) { s.lost = {kFirstGrantedPage}; });
}

TEST_F(HostilePhysmap, Outside) {
    using S = PhysmapState;
    refuse("outside: gfn 28800 is in a slot", [](S& s) { s.outside = {kRam + 128}; });
    refuse("outside: gfn 524272 follows", [](S& s) { s.outside = {kOutside, kOutside}; });
    refuse("outside: gfn 524272 follows", [](S& s) { s.outside = {kOutside + 2, kOutside}; });
    refuse("outside: gfn 18446744073709551615", [](S& s) { s.outside = {UINT64_MAX}; });
    refuse("outside: gfn 524273 is named twice", [](S& s) {
        s.own[0] = kOutside + 1;
        s.outside = {kOutside + 1};
    });
    refuse("leaving: gfn 524272 is named twice", [](S& s) { s.leaving = {kOutside}; });
    refuse("leaving: gfn 28672 is in a slot", [](S& s) { s.leaving = {kRam}; });
}

TEST_F(HostilePhysmap, Adopted) {
    using S = PhysmapState;
    const auto places = [](S& s) -> std::vector<std::uint64_t>& {
        return s.adopted.begin()->second.places;
    };
    refuse("adopted: there is no page 4608", [](S& s) { s.adopted[kFirstGrantedPage - 1] = {}; });
    refuse("adopted: there is no page", [](S& s) { s.adopted[kOwnPages] = {}; });
    refuse("adopted: gfn 28683 follows", [&](S& s) { places(s) = {kRam + 11, kRam + 11}; });
    refuse("adopted: gfn 28672 is a hole", [&](S& s) { places(s) = {kRam}; });
    refuse("adopted: gfn 28680 is named", [&](S& s) { places(s) = {kRam + 8}; });
    refuse("adopted: gfn 28683 is named",
           [&](S& s) { s.adopted[kOwnPages - 1].places = {kRam + 11}; });
    fresh.ports.limit_gfn = 0x100000;
    refuse("adopted: gfn 1048576 is beyond this", [&](S& s) {
        s.highest_gfn = 0x100000;
        places(s) = {0x100000};
    });
}

TEST_F(HostilePhysmap, Types) {
    using S = PhysmapState;
    refuse("types: not piece 113", [](S& s) { s.types[113] = {}; });
    refuse("types: not piece", [](S& s) { s.types[Physmap::kGfnLimit / 256][0] = 1; });
    refuse("types: gfn 28692 has no", [](S& s) { s.types.begin()->second[5] = 3; });
    refuse("types: gfn 28672 is not there", [](S& s) { s.types.begin()->second[0] = 1; });
    refuse("types: gfn 524273 is not there", [](S& s) { s.types[kOutside / 256][60] = 4; });
    refuse("types: gfn 0 is not there", [](S& s) {
        s.holes.insert(s.holes.begin(), GfnRunState{.gfn = 0, .pages = 1});
        s.types[0][0] = 2;
    });
}

// A machine that has no room for all of it shows nothing.
TEST_F(HostilePhysmap, NoRoom) {
    fresh.ports.pool_pages = 1;
    refuse("leaving: gfn 524273 finds no room", [](PhysmapState&) {});
    fresh.ports.pool_pages = 64;
    fresh.ports.max_overlays = 0;
    refuse("own: gfn 28680 finds no room", [](PhysmapState&) {});
    fresh.ports.max_overlays = 1;
    refuse("adopted: gfn 28683 finds no room", [](PhysmapState&) {});
    fresh.ports.max_overlays = 2;
    EXPECT_TRUE(fresh.domain.physmap().adopt(good));
}

TEST(HostileOwnPages, Pages) {
    TestDomain fresh(abi::Width::k64);
    OwnPages& pages = fresh.domain.own_pages();
    const auto refuse = [&](const char* reason, auto&& spoil) {
        OwnPagesState state;
        spoil(state);
        expect_refused(pages, state, reason);
    };
    using S = OwnPagesState;
    refuse("own: page 2 is not in use", [](S& s) { s.own[2][0] = std::byte{1}; });
    refuse("own: page 4097 is not", [](S& s) { s.own[kFirstStatusPage][0] = std::byte{1}; });
    refuse("own: page 4609 is not", [](S& s) { s.own[kFirstGrantedPage][0] = std::byte{1}; });
    refuse("own: page 4294967295 is not", [](S& s) { s.own[UINT32_MAX][0] = std::byte{1}; });
    refuse("own: page 0 is all zeroes", [](S& s) { s.own[0] = {}; });
    refuse("outside: page 524272 is not in use",
           [](S& s) { s.outside[kOutside][0] = std::byte{1}; });
    refuse("outside: page 18446744073709551615",
           [](S& s) { s.outside[UINT64_MAX][0] = std::byte{1}; });
}

// A frame that the table does not have, in the map.
TEST(HostileOwnPages, PagesThatAreShown) {
    for (const std::uint32_t page : {kFirstGrantPage + 1, kFirstStatusPage, kFirstStatusPage + 5}) {
        TestDomain fresh(abi::Width::k64);
        PhysmapState state = fresh.domain.physmap().snapshot();
        state.own[page] = kRam;
        ASSERT_TRUE(fresh.domain.physmap().adopt(state));
        expect_refused(fresh.domain.own_pages(), {},
                       "own: page " + std::to_string(page) + " is in");
    }
}

// What was there before and is not in the state is zero.
TEST(MovedOwnPages, AreAsTheyWere) {
    TestDomain a(abi::Width::k64), b(abi::Width::k64);
    a.domain.shared_info().set_wall_clock(7, 8);
    b.ports.own_page(kFirstGrantPage)[9] = std::byte{1};
    b.ports.own_page(kSharedInfoPage)[9] = std::byte{1};
    ASSERT_TRUE(b.domain.own_pages().adopt(a.domain.own_pages().snapshot()));
    EXPECT_EQ(std::memcmp(a.ports.own_page(0), b.ports.own_page(0), 2 * vmm::kPageSize), 0);
    EXPECT_EQ(b.ports.own_page(kFirstGrantPage)[9], std::byte{0});
}

}  // namespace
}  // namespace xenshim
