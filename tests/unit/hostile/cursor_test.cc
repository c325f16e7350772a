// A vCPU that was frozen in mid-operation, out of a stream whose author has changed its registers:
// they claim more progress than its argument has. It is answered as Xen would, and nothing but what
// that guest may do anyway comes of it.
#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/fakes/saved_domain.h"
#include "tests/sweep/scenario.h"
#include "xenshim/abi/profile.h"

namespace xenshim::tests {
namespace {

using abi::Width;
using fakes::TestDomain;

constexpr std::uint64_t kUnits = 40;
// Beyond the count of units: by one, and by as much as a cursor of any operation here has bits.
constexpr std::uint64_t kBeyond[] = {1, 24, 0xffff, 0x3ffffff};
// Where what is done leaves a trace in memory for each unit.
constexpr std::uint64_t kMostTraces = 24;
constexpr unsigned kStops = 16;  // so often it is stopped, then no more

struct Answer {
    std::optional<std::int64_t> result;  // none: it sleeps, or never ends
    bool changed = false;                // anything of the domain
    std::uint64_t units = 0;
};

Answer answer_on(fakes::FakePorts& ports, const abi::Profile& profile, Width width,
                 const Scenario& scenario, std::uint64_t beyond) {
    TestDomain::Options options;
    options.profile = &profile;
    options.ports = &ports;
    scenario.options(options);
    TestDomain guest(width, options);
    const Prepared call = scenario.prepare(guest, Era(profile.name), kUnits);
    const auto leave = [&] {
        std::vector<std::uint64_t> touched = call.gfns;
        for (std::uint64_t at = TestDomain::kScratch; at < guest.reserve(0, 1).value;
             at += vmm::kPageSize) {
            touched.push_back(at >> vmm::kPageShift);
        }
        guest.ports.reset(touched);
    };
    if (beyond > kMostTraces && !call.frozen(call.units).memory.empty()) {
        leave();
        return {.result = 0};
    }
    const Frozen frozen = call.frozen(call.units + beyond);
    for (const Patch& patch : frozen.memory) {
        // What would be behind all that it has cannot be written there.
        const std::uint64_t value = patch.value;
        static_cast<void>(ports.memory.write(
            vmm::Gpa{patch.at}, std::as_bytes(std::span(&value, 1)).first(patch.bytes)));
    }
    auto number = call.number;
    auto args = frozen.args;
    if (width == Width::k32) {
        for (auto& arg : args) {
            arg &= 0xffff'ffff;
        }
    }
    const auto before = fakes::save(guest.domain);
    Answer out{.result = {}, .units = call.units};
    // A list that goes on through all of memory, as any guest's may: enough that it can be stopped.
    const bool is_long = scenario.name == "multicall, between entries";
    if (is_long) out.result = 0;
    for (unsigned entry = 0; entry < kStops + (is_long ? 0 : 1); ++entry) {
        guest.requests = entry < kStops ? 1 : 0;
        const abi::Reply reply = guest.call(number, args[0], args[1], args[2], args[3], args[4]);
        if (const auto* finish = std::get_if<abi::Finish>(&reply)) {
            out.result = finish->result;
            break;
        }
        const auto* again = std::get_if<abi::Reissue>(&reply);
        if (again == nullptr) {
            out.result.reset();
            break;
        }
        number = again->number;
        std::ranges::copy(again->args, args.begin());
    }
    out.changed = !(fakes::save(guest.domain) == before);
    // The domain's books balance.
    const auto accounts = guest.domain.physmap().accounts();
    EXPECT_LE(accounts.current, accounts.maximum);
    EXPECT_LE(guest.domain.grants().frames(), kMaxGrantFrames);
    leave();
    return out;
}

Answer answer(const abi::Profile& profile, Width width, const Scenario& scenario,
              std::uint64_t beyond) {
    // One machine for all of them, until one has changed more of it than is known here.
    static std::unique_ptr<fakes::FakePorts> ports;
    if (ports == nullptr) {
        ports = std::make_unique<fakes::FakePorts>();
        ports->keeps_pages = true;
    }
    const Answer out = answer_on(*ports, profile, width, scenario, beyond);
    if (out.changed) ports.reset();
    return out;
}

// What Xen 4.17 says to each, one unit beyond the end (xen/common/memory.c, grant_table.c,
// arch/x86/hvm/dm.c, common/multicall.c). 0 for what stands for a claim that is believed: the
// reservations count what was done before, and there is nothing left to do.
struct Row {
    const char* name;
    std::int64_t result;
};
constexpr std::int64_t kClaimed = INT64_MAX;
constexpr Row kRows[] = {
    {"decrease_reservation", kClaimed},
    {"decrease_reservation, order 1", kClaimed},
    {"populate_physmap", kClaimed},
    {"increase_reservation", kClaimed},
    {"gmfn_range", -XEN_EILSEQ},
    {"gmfn_range, down over itself", -XEN_EILSEQ},
    {"gmfn_range, up over itself", -XEN_EILSEQ},
    {"add_to_physmap_batch", -XEN_EILSEQ},
    // The count that is left wraps around, and is negative.
    {"grant copy", -XEN_EINVAL},
    {"grant map", -XEN_EINVAL},
    {"grant unmap", -XEN_EINVAL},
    {"grant swap", -XEN_EINVAL},
};

TEST(HostileCursor, IsAnsweredAsXenDoes) {
    const abi::Profile& profile = *abi::find_profile("xen-4.17");
    for (const Width width : {Width::k64, Width::k32}) {
        for (const Row& row : kRows) {
            SCOPED_TRACE(row.name);
            const auto all = scenarios();
            const auto found = std::ranges::find(all, row.name, &Scenario::name);
            if (found == all.end() || !found->exists(Era(profile.name))) continue;
            const Answer got = answer(profile, width, *found, 1);
            ASSERT_TRUE(got.result);
            EXPECT_FALSE(got.changed);
            const std::int64_t expected =
                row.result == kClaimed ? static_cast<std::int64_t>(got.units + 1) : row.result;
            EXPECT_EQ(*got.result, expected);
        }
    }
}

// Every operation, in dialects that differ, every claim: it ends, with a result that Xen could
// give, and where the registers alone say how far it is, nothing is done.
TEST(HostileCursor, EndsAndHarmsNobody) {
    std::size_t claims = 0, changes = 0;
    for (const char* name : {"xen-3.0.3", "xen-3.3", "xen-4.0", "xen-4.2", "xen-4.4", "xen-4.17"}) {
        const abi::Profile* const known = abi::find_profile(name);
        ASSERT_NE(known, nullptr);
        const abi::Profile& profile = *known;
        for (const Scenario& scenario : scenarios()) {
            const Era era(profile.name);
            if (!scenario.exists(era)) continue;
            // What its structure claims is a count of 16 bits: any is one that a guest may begin
            // with.
            if (era.range_in_struct() && scenario.name.starts_with("gmfn_range")) continue;
            for (const Width width : {Width::k64, Width::k32}) {
                for (const std::uint64_t beyond : kBeyond) {
                    SCOPED_TRACE(std::string(scenario.name) + ", " + std::string(profile.name) +
                                 ", by " + std::to_string(beyond));
                    const Answer got = answer(profile, width, scenario, beyond);
                    ASSERT_TRUE(got.result);
                    EXPECT_GT(*got.result, -200);  // no number of the host's
                    changes += got.changed;
                    ++claims;
                }
            }
        }
    }
    RecordProperty("claims", static_cast<int>(claims));
    RecordProperty("changes", static_cast<int>(changes));
    EXPECT_GT(claims, 300u);
}

}  // namespace
}  // namespace xenshim::tests
