// The grant table and the mappings saved and restored: a table in use goes on in another domain as
// it would have where it was, and a state that no table can have is refused.
#include <array>
#include <cstring>
#include <functional>

#include "tests/fakes/saved_checks.h"
#include "tests/fakes/saved_domain.h"
#include "tests/fakes/test_domain.h"

namespace xenshim {
namespace {

using namespace abi;
using fakes::FakePorts;
using fakes::TestDomain;

constexpr std::uint64_t kPageA = TestDomain::kRamGfn, kPageB = kPageA + 1, kPageC = kPageA + 2;
constexpr std::uint64_t kRing = kPageA + 3, kBuffer = kPageA + 4, kGone = kPageA + 5;
// Where grants are mapped: RAM, and outside of it.
constexpr std::uint64_t kAtA = kPageA + 16, kAtC = kPageA + 17, kAtC2 = 0x40000, kAtA2 = 0x40001;
constexpr std::uint64_t kFrameGfn = 0x50000;

GrantMaps::Request to_self(std::uint32_t ref, std::uint64_t gfn, std::uint32_t flags = 0) {
    return {.host_addr = gfn << vmm::kPageShift,
            .flags = GNTMAP_host_map | flags,
            .ref = ref,
            .domid = TestDomain::kDomid};
}

class GrantsSaved : public testing::TestWithParam<std::uint32_t> {
  protected:
    std::uint32_t version() const { return GetParam(); }

    void give(TestDomain& d, std::uint32_t ref, std::uint64_t gfn,
              std::uint16_t dom = TestDomain::kDomid, std::uint16_t flags = GTF_permit_access) {
        std::byte* table = d.ports.own_page(kFirstGrantPage);
        if (version() == 1) {
            const grant_entry_v1 e{flags, dom, static_cast<std::uint32_t>(gfn)};
            std::memcpy(table + ref * sizeof e, &e, sizeof e);
        } else {
            const grant_entry_v2 e{flags, dom, 0, 0, gfn};
            std::memcpy(table + ref * sizeof e, &e, sizeof e);
        }
    }
    // GTF_reading, GTF_writing.
    unsigned marks(TestDomain& d, std::uint32_t ref) {
        std::uint16_t word = 0;
        const std::byte* at = version() == 1
                                  ? d.ports.own_page(kFirstGrantPage) + ref * sizeof(grant_entry_v1)
                                  : d.ports.own_page(kFirstStatusPage) + ref * sizeof word;
        std::memcpy(&word, at, sizeof word);
        return word & (GTF_reading | GTF_writing);
    }
    static GrantTable& table(TestDomain& d) { return d.domain.grants(); }
    static GrantMaps& maps(TestDomain& d) { return d.domain.grant_maps(); }
    static Physmap& physmap(TestDomain& d) { return d.domain.physmap(); }

    static void seed(TestDomain& d) {
        table(d).seed(GNTTAB_RESERVED_CONSOLE, FakePorts::kSpecialGfn);
        table(d).seed(GNTTAB_RESERVED_XENSTORE, FakePorts::kSpecialGfn + 1);
    }

    // A table with some of everything in it.
    void fill(TestDomain& d) {
        seed(d);
        ASSERT_TRUE(table(d).set_version(version()));
        ASSERT_TRUE(table(d).place_frame(2, kFrameGfn));
        give(d, 20, kPageA);
        give(d, 21, kPageC, TestDomain::kDomid, GTF_permit_access | GTF_readonly);
        give(d, 22, kRing, kBackendDomain);
        give(d, 23, kBuffer, kBackendDomain, GTF_permit_access | GTF_readonly);
        give(d, 24, kGone, kBackendDomain);
        give(d, 25, kAtA);
        give(d, 30, kPageB, kBackendDomain);

        ASSERT_EQ(maps(d).map(to_self(20, kAtA)).handle, 0u);
        // Handles that come back go to the end of the list.
        ASSERT_EQ(maps(d).map(to_self(30, kAtC)).status, GNTST_general_error);
        ASSERT_EQ(maps(d).map(to_self(21, kAtC, GNTMAP_readonly)).handle, 2u);
        ASSERT_EQ(maps(d).map(to_self(21, kAtC2, GNTMAP_readonly)).handle, 3u);
        ASSERT_EQ(maps(d).map(to_self(25, kAtA2)).handle, 4u) << "the same page by another entry";

        ring = table(d).map(22, false);
        buffer = table(d).map(23, true);
        gone = table(d).map(24, false);
        ASSERT_NE(gone.page, nullptr);
        gone.page[5] = std::byte{0x5a};
        ASSERT_TRUE(physmap(d).decrease(kGone));
        ASSERT_EQ(table(d).offer(page.data(), false), 8u);
        ASSERT_EQ(table(d).offer(page.data(), false), 9u);
        ASSERT_EQ(table(d).offer(page.data(), true), 10u);
        ASSERT_TRUE(table(d).withdraw(9));
    }

    // All of a domain that a fresh one is to go on like.
    static void move(TestDomain& from, TestDomain& to) {
        seed(to);
        fakes::move_domain(from, to);
    }
    static bool same_frames(TestDomain& one, TestDomain& other) {
        for (const std::uint32_t first : {kFirstGrantPage, kFirstStatusPage}) {
            if (std::memcmp(one.ports.own_page(first), other.ports.own_page(first),
                            4 * vmm::kPageSize) != 0) {
                return false;
            }
        }
        return true;
    }
    void expect_same(TestDomain& one, TestDomain& other) {
        fakes::expect_same(fakes::save(one.domain), fakes::save(other.domain));
        EXPECT_TRUE(same_frames(one, other));
    }

    std::array<std::byte, vmm::kPageSize> page{};
    GrantTable::BackendMapping ring, buffer, gone;
};

INSTANTIATE_TEST_SUITE_P(, GrantsSaved, testing::Values(1u, 2u));

TEST_P(GrantsSaved, BytesAreAsEver) {
    TestDomain d(Width::k64);
    fill(d);
    const std::string name = std::to_string(version());
    ::fakes::expect_saved(table(d).snapshot(), "xen.grant_table-" + name);
    ::fakes::expect_saved(maps(d).snapshot(), "xen.grant_maps");
    EXPECT_TRUE(table(d).snapshot() == table(d).snapshot());
    EXPECT_TRUE(maps(d).snapshot() == maps(d).snapshot());
}

TEST_P(GrantsSaved, AFreshTableHasNothingToSave) {
    TestDomain d(Width::k64);
    seed(d);
    EXPECT_TRUE(table(d).snapshot() == GrantTableState());
    EXPECT_TRUE(maps(d).snapshot() == GrantMapsState());
}

TEST_P(GrantsSaved, WhatGoesOnElsewhereGoesOnTheSame) {
    TestDomain here(Width::k64), there(Width::k64);
    fill(here);
    move(here, there);
    EXPECT_EQ(table(there).version(), version());
    EXPECT_EQ(table(there).frames(), 3u);
    EXPECT_TRUE(same_frames(here, there)) << "no entry is repaired";

    auto ring_there = table(there).map(22, false);
    auto buffer_there = table(there).map(23, true);
    auto gone_there = table(there).map(24, false);
    ASSERT_EQ(ring_there.status, GNTST_okay);
    EXPECT_EQ(ring_there.page, there.ports.memory.page(kRing));
    ASSERT_EQ(buffer_there.page, there.ports.memory.page(kBuffer));
    ASSERT_NE(gone_there.page, nullptr) << "the guest gave it back, and it is there yet";
    EXPECT_EQ(gone_there.page[5], std::byte{0x5a});
    EXPECT_TRUE(table(there).offer_again(8, page.data()));
    EXPECT_TRUE(table(there).offer_again(10, page.data()));
    table(there).release_claims();
    expect_same(here, there);

    const auto both = [&](const std::function<std::int64_t(TestDomain&)>& act) {
        const std::int64_t expected = act(here);
        EXPECT_EQ(act(there), expected);
        expect_same(here, there);
        return expected;
    };
    const auto unmap = [&](std::uint32_t handle, std::uint64_t gfn) {
        return both([&](TestDomain& d) { return maps(d).unmap(handle, gfn << vmm::kPageShift); });
    };
    // In use: neither exchanged nor changed in version.
    EXPECT_EQ(both([](TestDomain& d) { return table(d).swap(22, 40); }), GNTST_eagain);
    EXPECT_EQ(both([](TestDomain& d) { return table(d).swap(21, 40); }), GNTST_eagain);
    both([](TestDomain& d) { return table(d).set_version(3 - table(d).version()).has_value(); });
    EXPECT_EQ(both([](TestDomain& d) {
                  std::array<std::byte, 8> got{};
                  return table(d).copy_from(22, 0, got);
              }),
              GNTST_okay);
    EXPECT_EQ(both([](TestDomain& d) { return table(d).map(20, true).status; }),
              GNTST_general_error)
        << "the guest has it";

    EXPECT_EQ(unmap(2, kAtA), GNTST_general_error) << "another page is there";
    EXPECT_EQ(unmap(2, kAtC2), GNTST_okay);
    EXPECT_EQ(unmap(2, kAtC2), GNTST_bad_handle);
    EXPECT_EQ(marks(there, 21), GTF_reading);
    EXPECT_EQ(unmap(3, kAtC), GNTST_okay);
    EXPECT_EQ(marks(there, 21), 0u);
    // The next handles come as they would have: those given back last.
    for (unsigned i = 0; i < 300; ++i) {
        both([&](TestDomain& d) {
            const auto mapped = maps(d).map(to_self(20, 0x41000 + i % 8));
            if (i % 8 == 7) {
                for (unsigned j = 0; j < 8; ++j) {
                    maps(d).unmap(mapped.handle - j, (0x41000ull + j) << vmm::kPageShift);
                }
            }
            return mapped.status * 1000 + mapped.handle;
        });
    }
    for (TestDomain* d : {&here, &there}) {
        const GrantMapsState left = maps(*d).snapshot();
        for (const GrantMappingState& m : left.mappings) {
            for (const std::uint64_t gfn : {kAtA, kAtA2}) {
                maps(*d).unmap(m.handle, gfn << vmm::kPageShift);
            }
            for (std::uint64_t gfn = 0x41000; gfn < 0x41008; ++gfn) {
                maps(*d).unmap(m.handle, gfn << vmm::kPageShift);
            }
        }
    }
    expect_same(here, there);
    EXPECT_TRUE(maps(there).snapshot().mappings.empty());
    EXPECT_TRUE(physmap(there).adopted_pages().empty()) << "nobody holds them any more";

    table(here).unmap(ring);
    table(here).unmap(buffer);
    table(here).unmap(gone);
    table(there).unmap(ring_there);
    table(there).unmap(buffer_there);
    table(there).unmap(gone_there);
    EXPECT_EQ(marks(there, 22) | marks(there, 23) | marks(there, 24), 0u);
    EXPECT_EQ(both([](TestDomain& d) { return table(d).swap(22, 40); }), GNTST_okay);
    EXPECT_FALSE(there.ports.memory.is_pinned(kRing));
    EXPECT_EQ(both([](TestDomain& d) {
                  return table(d).set_version(3 - table(d).version()).has_value();
              }),
              1);
}

// A backend that comes up again finds what it had, whatever the guest has written since; and what
// it does not want any more is the guest's.
TEST_P(GrantsSaved, BackendsFindTheirEntriesInUse) {
    TestDomain here(Width::k64), there(Width::k64);
    fill(here);
    give(here, 22, kPageB, kBackendDomain);  // while it is in use: the guest may, and nobody cares
    move(here, there);
    EXPECT_EQ(table(there).swap(22, 40), GNTST_eagain) << "before any backend is there";
    EXPECT_EQ(table(there).map(22, false).page, there.ports.memory.page(kRing));
    EXPECT_EQ(marks(there, 23), GTF_reading);
    table(there).release_claims();
    EXPECT_EQ(marks(there, 23), 0u);
    EXPECT_EQ(marks(there, 24), 0u);
    EXPECT_FALSE(there.ports.memory.is_pinned(kBuffer));
    EXPECT_TRUE(there.ports.memory.is_pinned(kRing));
    table(there).release_claims();
    EXPECT_EQ(table(there).swap(22, 40), GNTST_eagain);

    // Offers keep their numbers, and nobody else gets them.
    EXPECT_EQ(table(there).offer(page.data(), false), 9u);
    EXPECT_EQ(table(there).offer(page.data(), false), 11u);
    EXPECT_FALSE(table(there).withdraw(8)) << "not there yet";
    GrantTable::Held held;
    EXPECT_EQ(table(there).hold_offer(8, true, &held), GNTST_general_error);
    EXPECT_TRUE(table(there).offer_again(8, page.data()));
    EXPECT_FALSE(table(there).offer_again(8, page.data()));
    EXPECT_FALSE(table(there).offer_again(9, page.data()));
    EXPECT_FALSE(table(there).offer_again(UINT32_MAX, page.data()));
    EXPECT_TRUE(table(there).offer_again(10, page.data()));
    EXPECT_EQ(table(there).hold_offer(10, false, &held), GNTST_general_error) << "read-only";
    ASSERT_EQ(table(there).hold_offer(8, false, &held), GNTST_okay);
    table(there).release(held);
    EXPECT_TRUE(table(there).withdraw(8));
}

// Saved again before anything ran.
TEST_P(GrantsSaved, ARestoredTableIsSavedAgain) {
    TestDomain here(Width::k64), there(Width::k64);
    fill(here);
    move(here, there);
    const auto state = table(here).snapshot();
    EXPECT_TRUE(table(there).snapshot() == state);
    EXPECT_EQ(table(there).map(22, true).status, GNTST_okay);
    EXPECT_TRUE(table(there).snapshot() == state);
    TestDomain third(Width::k64);
    move(there, third);
    EXPECT_TRUE(table(third).snapshot() == state);
}

TEST_P(GrantsSaved, WhatNoTableHasIsRefused) {
    TestDomain here(Width::k64), there(Width::k64);
    fill(here);
    seed(there);
    const auto before = table(there).snapshot();
    const auto refused = [&](const std::string& why, auto change) {
        GrantTableState state = table(here).snapshot();
        change(state);
        const auto taken = table(there).adopt(state);
        ASSERT_FALSE(taken) << why;
        EXPECT_EQ(taken.error(), why);
        EXPECT_TRUE(table(there).snapshot() == before) << why;
        EXPECT_FALSE(there.ports.memory.is_pinned(kRing)) << why;
    };
    using State = GrantTableState;
    refused("version: neither 1 nor 2", [](State& s) { s.version = 0; });
    refused("version: neither 1 nor 2", [](State& s) { s.version = 3; });
    refused("frames: 0, there may be 64", [](State& s) { s.frames = 0; });
    refused("frames: 65, there may be 64", [](State& s) { s.frames = 65; });
    refused("frames: 4294967295, there may be 64", [](State& s) { s.frames = UINT32_MAX; });
    refused("backend_uses[2].ref: there is no such entry",
            [&](State& s) { s.backend_uses[2].ref = version() == 1 ? 3 * 512 : 3 * 256; });
    refused("backend_uses[1].ref: out of order",
            [](State& s) { s.backend_uses[1].ref = s.backend_uses[0].ref; });
    refused("backend_uses[0].gfn: not what the toolstack granted",
            [](State& s) { s.backend_uses[0].ref = GNTTAB_RESERVED_XENSTORE; });
    refused("backend_uses[2].gfn: there is no page",
            [](State& s) { s.backend_uses[2].gfn = TestDomain::kHoleGfn; });
    refused("backend_uses[0].gfn: there is no page",
            [](State& s) { s.backend_uses[0].gfn = UINT64_MAX; });
    refused("offers[0].ref: there is no such entry", [](State& s) { s.offers[0].ref = 7; });
    refused("offers[1].ref: there is no such entry", [](State& s) { s.offers[1].ref = 512; });
    refused("offers[1].ref: out of order", [](State& s) { s.offers[1].ref = 8; });
}

TEST_P(GrantsSaved, WhatNoMappingsAreIsRefused) {
    TestDomain here(Width::k64), there(Width::k64);
    fill(here);
    seed(there);
    ASSERT_TRUE(physmap(there).adopt(physmap(here).snapshot()));
    ASSERT_TRUE(table(there).adopt(table(here).snapshot()));
    const auto before = maps(there).snapshot();
    const auto refused = [&](const std::string& why, auto change) {
        GrantMapsState state = maps(here).snapshot();
        change(state);
        const auto taken = maps(there).adopt(state);
        ASSERT_FALSE(taken) << why;
        EXPECT_EQ(taken.error(), why);
        EXPECT_TRUE(maps(there).snapshot() == before) << why;
        EXPECT_EQ(table(there).in_use(20), false) << why;
    };
    using State = GrantMapsState;
    refused("handles: 255 are no number of frames up to 1024", [](State& s) { s.handles = 255; });
    refused("handles: 4294967040 are no number of frames up to 1024",
            [](State& s) { s.handles = 0xffffff00; });
    refused("mappings[3].handle: there is no such one",
            [](State& s) { s.mappings[3].handle = 256; });
    refused("mappings[1].handle: out of order", [](State& s) { s.mappings[1].handle = 0; });
    refused("mappings[0].ref: there is no such entry", [](State& s) { s.mappings[0].ref = 9999; });
    refused("mappings[0].ref: domain 0 has it in use", [](State& s) { s.mappings[0].ref = 22; });
    refused("mappings[0].ref: domain 0 has it in use",
            [](State& s) { s.mappings[0].ref = GNTTAB_RESERVED_CONSOLE; });
    for (const std::uint32_t own_page : {0u, kFirstGrantedPage + 2, kOwnPages, UINT32_MAX}) {
        refused("mappings[0].own_page: no grant's page",
                [&](State& s) { s.mappings[0].own_page = own_page; });
    }
    refused("mappings[2].own_page: not the entry's",
            [](State& s) { s.mappings[2].own_page = kFirstGrantedPage; });
    refused("free[0]: there is no such handle", [](State& s) { s.free[0] = 256; });
    refused("free[1]: that handle is mapped, or free already",
            [](State& s) { s.free[1] = s.free[0]; });
    refused("free[0]: that handle is mapped, or free already", [](State& s) { s.free[0] = 3; });
    refused("free: a handle is neither mapped nor free", [](State& s) { s.free.pop_back(); });
    const auto mapped_at = [](State& s, std::uint32_t count, bool readonly) {
        s.mappings.clear();
        s.free.clear();
        for (std::uint32_t h = 0; h < 256; ++h) {
            if (h < count) {
                s.mappings.push_back(
                    {.handle = h, .ref = 20, .own_page = kFirstGrantedPage, .readonly = readonly});
            } else {
                s.free.push_back(h);
            }
        }
    };
    refused("mappings[128].ref: mapped too often", [&](State& s) { mapped_at(s, 129, true); });
    refused("mappings[128].ref: mapped too often", [&](State& s) { mapped_at(s, 129, false); });
    refused("free: one is always left over", [&](State& s) {
        mapped_at(s, 128, true);
        for (std::uint32_t h = 128; h < 256; ++h) {
            s.mappings.push_back(
                {.handle = h, .ref = 20, .own_page = kFirstGrantedPage, .readonly = false});
        }
        s.free.clear();
    });
    EXPECT_TRUE(maps(there).adopt(maps(here).snapshot()));
}

}  // namespace
}  // namespace xenshim
