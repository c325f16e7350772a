// The states of the parameters, of the quirks and of the memory map.
#include <gtest/gtest.h>

#include "tests/fakes/saved_checks.h"
#include "tests/fakes/saved_domain.h"

namespace xenshim {
namespace {

using namespace abi;
using fakes::expect_refused;
using ::fakes::expect_saved;
using fakes::TestDomain;

// ---- parameters ---------------------------------------------------------------------------------

TEST(ParamsState, ComesBack) {
    expect_saved(ParamsState{{0, 1, UINT64_MAX, 0x0123'4567'89ab'cdef}}, "xen.params");
}

TEST(ParamsState, IsRestored) {
    const Profile& profile = *find_profile(kDefaultProfile);
    Params from(profile), to(profile);
    for (std::uint32_t i = 0; i < profile.hvm_params; ++i) {
        from.put(i, 0x1000 + i);
    }
    from.put(HVM_PARAM_VM86_TSS, 0);
    ASSERT_TRUE(from.set(HVM_PARAM_VM86_TSS_SIZED, std::uint64_t{200} << 32 | 0x5000));
    ASSERT_TRUE(to.adopt(from.snapshot()));
    EXPECT_EQ(to.snapshot(), from.snapshot());
    EXPECT_EQ(to.peek(HVM_PARAM_STORE_EVTCHN), 0x1000u + HVM_PARAM_STORE_EVTCHN);
    for (Params* params : {&from, &to}) {
        ASSERT_TRUE(params->set(HVM_PARAM_VM86_TSS, 0x7000));
        EXPECT_EQ(params->peek(HVM_PARAM_VM86_TSS_SIZED), std::uint64_t{128} << 32 | 0x7000);
    }
    EXPECT_EQ(to.snapshot(), from.snapshot());
}

// Every release has as many as it has.
TEST(ParamsState, OfEachProfile) {
    for (const Profile& profile : profiles()) {
        Params from(profile), to(profile);
        from.put(profile.hvm_params - 1, 0);
        from.put(HVM_PARAM_STORE_PFN, 0xfeffc);
        ASSERT_TRUE(to.adopt(from.snapshot())) << profile.name;
        EXPECT_EQ(to.peek(HVM_PARAM_STORE_PFN), 0xfeffcu);
    }
}

TEST(ParamsState, Hostile) {
    Params fresh(*find_profile(kDefaultProfile));
    const ParamsState good = fresh.snapshot();
    ParamsState bad = good;
    bad.values.push_back(0);
    expect_refused(fresh, bad, "values: ");
    bad.values.clear();
    expect_refused(fresh, bad, "values: 0 of them");
    bad = good;
    bad.values[HVM_PARAM_VM86_TSS] = 1;
    expect_refused(fresh, bad, "values: VM86_TSS is");
    for (const std::uint64_t size : {0ull, 103ull, 8330ull, 0xffff'ffffull}) {
        bad = good;
        bad.values[HVM_PARAM_VM86_TSS_SIZED] = size << 32 | 0x1000;
        expect_refused(fresh, bad, "values: VM86_TSS_SIZED");
    }
}

// ---- quirks -------------------------------------------------------------------------------------

TEST(LegacyQuirksState, ComesBack) {
    expect_saved(LegacyQuirksState{.mode = 1, .latched = true}, "xen.legacy_quirks");
}

TEST(LegacyQuirksState, IsRestored) {
    TestDomain from(Width::k32, {.quirks = QuirkMode::kXenServer});
    TestDomain to(Width::k32, {.quirks = QuirkMode::kXenServer});
    from.domain.quirks().latched = true;
    ASSERT_TRUE(to.domain.quirks().adopt(from.domain.quirks().snapshot()));
    EXPECT_EQ(to.domain.quirks().snapshot(), from.domain.quirks().snapshot());
    EXPECT_TRUE(to.domain.quirks().latched);
}

TEST(LegacyQuirksState, Hostile) {
    LegacyQuirks none{.mode = QuirkMode::kNone, .latched = false};
    expect_refused(none, {.mode = 0, .latched = false}, "mode: ");
    expect_refused(none, {.mode = 1, .latched = true}, "mode: ");
    expect_refused(none, {.mode = 255, .latched = false}, "mode: ");
    expect_refused(none, {.mode = 2, .latched = true}, "latched: ");
}

// ---- the memory map -----------------------------------------------------------------------------

TEST(MemoryMapState, ComesBack) {
    expect_saved(MemoryMapState{{{.base = 0, .size = 0x8000000, .type = 1},
                                 {.base = 0xfeff8000, .size = 0x8000, .type = 2}}},
                 "xen.memory_map");
}

TEST(MemoryMapState, IsRestored) {
    TestDomain from(Width::k64), to(Width::k64);
    from.domain.memory_map().set({{1, 2, 3}, {4, 5, 6}});
    ASSERT_TRUE(to.domain.memory_map().adopt(from.domain.memory_map().snapshot()));
    EXPECT_EQ(to.domain.memory_map().entries(), from.domain.memory_map().entries());
    EXPECT_EQ(to.domain.memory_map().snapshot(), from.domain.memory_map().snapshot());
    // A guest may have taken it away altogether.
    from.domain.memory_map().set({});
    ASSERT_TRUE(to.domain.memory_map().adopt(from.domain.memory_map().snapshot()));
    EXPECT_TRUE(to.domain.memory_map().entries().empty());
}

TEST(MemoryMapState, Hostile) {
    TestDomain guest(Width::k64);
    MemoryMapState bad;
    bad.entries.resize(1025);
    expect_refused(guest.domain.memory_map(), bad, "entries: 1025");
    bad.entries.resize(1024);
    EXPECT_TRUE(guest.domain.memory_map().adopt(bad));
}

}  // namespace
}  // namespace xenshim
