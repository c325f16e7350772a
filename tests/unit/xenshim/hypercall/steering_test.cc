// --preempt: where the operator says that operations stop, they do, and once. Units count over all
// entries of an operation, in the operation's own steps, however its progress is kept.
#include <gtest/gtest.h>

#include "tests/fakes/test_domain.h"
#include "xenshim/abi/device_structs.h"
#include "xenshim/abi/other_numbers.h"

namespace xenshim {
namespace {

using namespace abi;
using fakes::BothWidths;
using fakes::TestDomain;

using Places = std::vector<std::uint64_t>;
constexpr std::uint32_t kExtents = 10;

class Steering : public BothWidths {
  protected:
    static TestDomain::Options at(Places places, std::string_view profile = kDefaultProfile) {
        TestDomain::Options options;
        options.preempt = {.every = 0, .at = std::move(places)};
        options.profile = find_profile(profile);
        options.device_model = true;
        return options;
    }
    static TestDomain::Options always() {
        TestDomain::Options options;
        options.preempt = {.every = 1, .at = {}};
        options.device_model = true;
        return options;
    }

    // A batch of grants, whose list and count say what is left.
    static Request copies(TestDomain& d, std::uint32_t count) {
        gnttab_copy<W64> op{};
        op.source_u = TestDomain::kRamGfn;
        op.dest_u = TestDomain::kRamGfn + 1;
        op.source_domid = op.dest_domid = DOMID_SELF;
        op.len = 2;
        const std::uint64_t bytes = d.wide() ? sizeof op : sizeof(gnttab_copy<W32>);
        const vmm::Gva list = d.reserve(count * bytes);
        for (std::uint32_t i = 0; i < count; ++i) {
            d.poke_wide<gnttab_copy>(list + i * bytes, op);
        }
        return d.request(HYPERVISOR_grant_table_op, {GNTTABOP_copy, list.value, count, 3, 4});
    }
    static Request unmaps(TestDomain& d, std::uint32_t count) {
        gnttab_unmap_grant_ref op{};
        op.handle = 99'999;
        const vmm::Gva list = d.reserve(count * sizeof op);
        for (std::uint32_t i = 0; i < count; ++i) {
            d.poke(list + i * sizeof op, op);
        }
        return d.request(HYPERVISOR_grant_table_op,
                         {GNTTABOP_unmap_grant_ref, list.value, count, 3, 4});
    }
    // A structure that says what is left, the registers as they were.
    static Request typed_pages(TestDomain& d, std::uint32_t pages) {
        struct {
            xen_dm_op_header header{XEN_DMOP_set_mem_type, 0};
            xen_dm_op_set_mem_type op{};
        } set;
        set.op = {.nr = pages, .mem_type = 1, .pad = 0, .first_pfn = 0x1000};
        const vmm::Gva list = d.reserve(16);
        d.poke_wide<xen_dm_op_buf>(list, {d.put(set).value, sizeof set});
        return d.request(HYPERVISOR_dm_op, {DOMID_SELF, 1, list.value, 3, 4});
    }
    static Request modified_pages(TestDomain& d,
                                  const std::vector<xen_dm_op_modified_memory_extent>& extents) {
        struct {
            xen_dm_op_header header{XEN_DMOP_modified_memory, 0};
            xen_dm_op_modified_memory op{};
        } modified;
        modified.op.nr_extents = static_cast<std::uint32_t>(extents.size());
        const vmm::Gva second = d.reserve(extents.size() * sizeof extents[0]);
        for (std::size_t i = 0; i < extents.size(); ++i) {
            d.poke(second + i * sizeof extents[0], extents[i]);
        }
        const std::uint64_t bytes = d.wide() ? 16 : 8;
        const vmm::Gva list = d.reserve(2 * bytes);
        d.poke_wide<xen_dm_op_buf>(list, {d.put(modified).value, sizeof modified});
        d.poke_wide<xen_dm_op_buf>(list + bytes,
                                   {second.value, extents.size() * sizeof extents[0]});
        return d.request(HYPERVISOR_dm_op, {DOMID_SELF, 2, list.value, 3, 4});
    }
    // A range of pages for the device model's operations of hvm_op.
    static Request hvm_range(TestDomain& d, std::uint32_t pages) {
        xen_hvm_memory_range_4_4 until_4_4{};
        until_4_4.domid = DOMID_SELF;
        until_4_4.hvmmem_type = 1;
        until_4_4.first_pfn = 0x1000;
        until_4_4.nr = pages;
        xen_hvm_memory_range since_4_5{};
        since_4_5.domid = DOMID_SELF;
        since_4_5.hvmmem_type = 1;
        since_4_5.first_pfn = 0x1000;
        since_4_5.nr = pages;
        const bool in_struct = d.domain.profile().hvm_memory_progress == Progress::kStruct;
        const vmm::Gva range = in_struct ? d.put(until_4_4) : d.put(since_4_5);
        return d.request(HYPERVISOR_hvm_op, {HVMOP_set_mem_type, range.value, 2, 3, 4});
    }
    // A cursor in the sub-op's register.
    static Request extents(TestDomain& d, std::uint32_t count) {
        std::vector<std::uint64_t> gfns(count);
        for (std::uint32_t i = 0; i < count; ++i) {
            gfns[i] = 0x6000 + i;
        }
        const vmm::Gva want =
            d.put_wide<xen_memory_reservation>({.extent_start = d.put_words(gfns).value,
                                                .nr_extents = count,
                                                .extent_order = 0,
                                                .mem_flags = 0,
                                                .domid = DOMID_SELF});
        return d.request(HYPERVISOR_memory_op, {XENMEM_decrease_reservation, want.value, 2, 3, 4});
    }
    static Request list_of(TestDomain& d, const std::vector<Request>& calls) {
        const std::uint64_t bytes =
            d.wide() ? sizeof(multicall_entry<W64>) : sizeof(multicall_entry<W32>);
        const vmm::Gva list = d.reserve(calls.size() * bytes);
        for (std::size_t i = 0; i < calls.size(); ++i) {
            multicall_entry<W64> entry{.op = calls[i].number, .result = 0x7777, .args = {}};
            std::copy(calls[i].args.begin(), calls[i].args.end(), entry.args.begin());
            d.poke_wide<multicall_entry>(list + i * bytes, entry);
        }
        return d.request(HYPERVISOR_multicall, {list.value, calls.size(), 2, 3, 4});
    }
    static Request again_of(const Request& r, const Reply& reply) {
        Request next = r;
        const auto* again = std::get_if<Reissue>(&reply);
        EXPECT_NE(again, nullptr) << testing::PrintToString(reply);
        if (again != nullptr) next.args = again->args;
        return next;
    }
    static std::size_t stops(TestDomain& d, const Request& r) {
        const auto run = d.run(r);
        EXPECT_EQ(run.result, r.number == HYPERVISOR_memory_op ? kExtents : 0);
        return run.stops.size();
    }
};

XENOLITH_BOTH_WIDTHS(Steering);

TEST_P(Steering, AtStopsABatchOnceBeforeEachUnitNamed) {
    for (const Places& places : {Places{2}, Places{100}, Places{2, 3, 100, 299}}) {
        const auto d = fresh(at(places));
        const Request r = copies(*d, 300);
        const auto run = d->run(r);
        EXPECT_EQ(run.result, 0);
        ASSERT_EQ(run.stops.size(), places.size());
        for (std::size_t i = 0; i < places.size(); ++i) {
            EXPECT_EQ(run.stops[i].args[2], 300 - places[i]);
        }
        // The next one is another operation.
        EXPECT_EQ(stops(*d, copies(*d, 300)), places.size());
        EXPECT_EQ(stops(*d, r), places.size());
    }
}

TEST_P(Steering, AtCountsTheOperationsOwnSteps) {
    const auto d = fresh(at({1, 3}));
    auto run = d->run(unmaps(*d, 128));
    ASSERT_EQ(run.stops.size(), 2u);
    EXPECT_EQ(run.stops[0].args[2], 96u);
    EXPECT_EQ(run.stops[1].args[2], 32u);
    EXPECT_EQ(stops(*d, unmaps(*d, 96)), 1u);

    EXPECT_EQ(stops(*d, extents(*d, kExtents)), 2u);
    EXPECT_EQ(stops(*d, typed_pages(*d, 256)), 0u);
    EXPECT_EQ(stops(*d, typed_pages(*d, 257)), 1u);
    EXPECT_EQ(stops(*d, typed_pages(*d, 3000)), 2u);
    EXPECT_EQ(stops(*d, modified_pages(*d, {{700, 0, 0x1000}, {1, 0, 0x2000}, {700, 0, 0x3000}})),
              2u);
}

// hvm_op's cursor moved from the structure into the register, and its step from a page to 256.
TEST_P(Steering, AtFollowsTheReleasesStep) {
    const auto in_struct = fresh(at({1, 30}, "xen-4.4"));
    EXPECT_EQ(stops(*in_struct, hvm_range(*in_struct, 40)), 2u);
    const auto in_register = fresh(at({1, 3}, "xen-4.6"));
    EXPECT_EQ(stops(*in_register, hvm_range(*in_register, 3000)), 2u);
    EXPECT_EQ(stops(*in_register, hvm_range(*in_register, 256)), 0u);
}

TEST_P(Steering, AlwaysStopsBeforeEachOfTheOperationsOwnSteps) {
    const auto d = fresh(always());
    EXPECT_EQ(stops(*d, copies(*d, 300)), 299u);
    EXPECT_EQ(stops(*d, unmaps(*d, 64)), 1u);
    EXPECT_EQ(stops(*d, unmaps(*d, 65)), 2u);
    EXPECT_EQ(stops(*d, typed_pages(*d, 512)), 1u);
}

// A list is an operation, and so is each of its calls.
TEST_P(Steering, AtCountsAListAndItsCallsApart) {
    const auto d = fresh(at({2}));
    EXPECT_EQ(stops(*d, list_of(*d, {copies(*d, 300)})), 1u);
    EXPECT_EQ(stops(*d, list_of(*d, {copies(*d, 1), copies(*d, 300)})), 1u);
    const Request three = copies(*d, 3);
    // Inside each call, and before the third.
    EXPECT_EQ(stops(*d, list_of(*d, {three, copies(*d, 3), copies(*d, 3), copies(*d, 3)})), 5u);
}

TEST_P(Steering, WhatAnInterruptCallsInBetweenDoesNotMatter) {
    const auto d = fresh(at({2}));
    Request outer = copies(*d, 300);
    outer = again_of(outer, d->enter(outer));
    EXPECT_EQ(stops(*d, copies(*d, 5)), 1u);
    EXPECT_EQ(d->result(HYPERVISOR_xen_version, XENVER_version, 0), 0x40011);
    EXPECT_EQ(stops(*d, outer), 0u);
}

// It is remembered to stop less often, for nothing else: a frame that the guest edited is a new
// operation, and so is one that another vCPU goes on with.
TEST_P(Steering, AFrameThatIsNotTheStopsCountsAnew) {
    {
        const auto d = fresh(at({2}));
        Request edited = copies(*d, 300);
        edited = again_of(edited, d->enter(edited));
        --edited.args[2];
        const auto run = d->run(edited);
        EXPECT_EQ(run.result, 0);
        ASSERT_EQ(run.stops.size(), 1u);
        EXPECT_EQ(run.stops[0].args[2], 295u);
    }
    const auto d = fresh(at({2}));
    Request frame = copies(*d, 300);
    frame = again_of(frame, d->enter(frame));
    Preemption other(d->requests, at({2}).preempt, [] { return std::uint64_t{1}; });
    const Request moved = again_of(frame, run_hypercall(d->domain, d->access, other, 1, frame));
    EXPECT_EQ(moved.args[2], 296u);
    EXPECT_EQ(TestDomain::result_of(run_hypercall(d->domain, d->access, other, 1, moved)), 0);
}

// More operations stopped and dropped than are remembered: the first one counts anew.
TEST_P(Steering, DroppedFramesAreForgotten) {
    const auto d = fresh(at({2}));
    Request first = copies(*d, 10);
    first = again_of(first, d->enter(first));
    for (unsigned i = 0; i < 20; ++i) {
        const Request dropped = copies(*d, 10);
        again_of(dropped, d->enter(dropped));
    }
    EXPECT_EQ(stops(*d, first), 1u);
}

}  // namespace
}  // namespace xenshim
