// Grant tables: mapping, copying, swapping, both versions (xen-417-golden.md G), and what of
// Xen's security advisories on them can happen here. `XSA` tests name the advisory.
#include <array>
#include <cstring>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "tests/fakes/test_domain.h"

namespace xenshim {
namespace {

using namespace abi;
using fakes::BothWidths;
using fakes::TestDomain;

constexpr std::int64_t kFault = -XEN_EFAULT, kInval = -XEN_EINVAL, kNosys = -XEN_ENOSYS;
constexpr std::uint16_t kSelf = TestDomain::kDomid;
constexpr std::uint64_t kPageA = 0x7100, kPageB = 0x7101, kPageC = 0x7102;
constexpr std::uint16_t kPermit = GTF_permit_access;

// A domain with tools for its table.
class Grants : public BothWidths {
  protected:
    std::int64_t grant(std::uint64_t op, vmm::Gva arg, std::uint64_t count = 1) {
        return guest.result(HYPERVISOR_grant_table_op, op, arg.value, count);
    }
    GrantTable& table() { return guest.domain.grants(); }
    Physmap& map_of() { return guest.domain.physmap(); }

    // A guest whose calls stop after so many units, and for no other reason.
    static std::unique_ptr<TestDomain> stopping(std::uint32_t every) {
        TestDomain::Options options;
        options.preempt.every = every;
        options.preempt.after_us = 1'000'000'000;
        return fresh(options);
    }

    // The shared entries, as the guest writes them.
    grant_entry_v1* v1(std::uint32_t ref) {
        return reinterpret_cast<grant_entry_v1*>(guest.ports.own_page(kFirstGrantPage)) + ref;
    }
    grant_entry_v2* v2(std::uint32_t ref) {
        return reinterpret_cast<grant_entry_v2*>(guest.ports.own_page(kFirstGrantPage)) + ref;
    }
    std::uint16_t status(std::uint32_t ref) {
        return reinterpret_cast<std::uint16_t*>(guest.ports.own_page(kFirstStatusPage))[ref];
    }
    void give(std::uint32_t ref, std::uint64_t gfn, std::uint16_t domid = kSelf,
              std::uint16_t flags = kPermit) {
        if (table().version() == 1) {
            *v1(ref) = {flags, domid, static_cast<std::uint32_t>(gfn)};
        } else {
            *v2(ref) = {flags, domid, 0, 0, gfn};
        }
    }
    void go_to_version(std::uint32_t version) {
        ASSERT_EQ(grant(GNTTABOP_set_version, guest.put(version)), 0);
    }

    void fill(std::uint64_t gfn, std::uint8_t value) {
        ASSERT_TRUE(
            guest.ports.memory.fill(vmm::gfn_to_gpa(gfn), vmm::kPageSize, std::byte{value}));
    }
    std::uint8_t byte(std::uint64_t gfn, std::uint64_t offset = 0) {
        return guest.get<std::uint8_t>({(gfn << vmm::kPageShift) + offset});
    }

    using Copy = gnttab_copy<W64>;
    static Copy copy_op(std::uint64_t from, std::uint64_t to, std::uint16_t flags,
                        std::uint16_t from_dom = DOMID_SELF, std::uint16_t to_dom = DOMID_SELF) {
        return {.source_u = from,
                .source_domid = from_dom,
                .source_offset = 0,
                .dest_u = to,
                .dest_domid = to_dom,
                .dest_offset = 0,
                .len = 4096,
                .flags = flags,
                .status = 99};
    }
    std::int16_t copy(const Copy& op) {
        const vmm::Gva at = guest.put_wide<gnttab_copy>(op);
        EXPECT_EQ(grant(GNTTABOP_copy, at), 0);
        return guest.get_wide<gnttab_copy>(at).status;
    }

    gnttab_map_grant_ref map(std::uint32_t ref, std::uint64_t gfn,
                             std::uint32_t flags = GNTMAP_host_map, std::uint16_t dom = kSelf) {
        const vmm::Gva at = guest.put(gnttab_map_grant_ref{.host_addr = gfn << vmm::kPageShift,
                                                           .flags = flags,
                                                           .ref = ref,
                                                           .dom = dom,
                                                           .status = 99,
                                                           .handle = 0xabcd,
                                                           .dev_bus_addr = 0});
        EXPECT_EQ(grant(GNTTABOP_map_grant_ref, at), 0);
        return guest.get<gnttab_map_grant_ref>(at);
    }
    std::int16_t unmap(std::uint32_t handle, std::uint64_t host_addr) {
        const vmm::Gva at = guest.put(gnttab_unmap_grant_ref{
            .host_addr = host_addr, .dev_bus_addr = 0, .handle = handle, .status = 99, .pad = 0});
        EXPECT_EQ(grant(GNTTABOP_unmap_grant_ref, at), 0);
        return guest.get<gnttab_unmap_grant_ref>(at).status;
    }
    std::int16_t swap(std::uint32_t a, std::uint32_t b) {
        const vmm::Gva at = guest.put(gnttab_swap_grant_ref{a, b, 99, 0});
        EXPECT_EQ(grant(GNTTABOP_swap_grant_ref, at), 0);
        return guest.get<gnttab_swap_grant_ref>(at).status;
    }
    std::int64_t add_frame(std::uint64_t index, std::uint64_t gfn) {
        const vmm::Gva at = guest.put_wide<xen_add_to_physmap>({.domid = DOMID_SELF,
                                                                .size = 0,
                                                                .space = XENMAPSPACE_grant_table,
                                                                .idx = index,
                                                                .gpfn = gfn});
        return guest.result(HYPERVISOR_memory_op, XENMEM_add_to_physmap, at.value);
    }
    // A vCPU of its own, for another thread.
    struct Vcpu {
        explicit Vcpu(TestDomain& domain)
            : of(domain),
              access(domain.ports.memory),
              preemption(domain.requests, {}, [] { return std::uint64_t{1}; }) {}

        std::int64_t copy(const std::vector<Copy>& list) {
            // As long as any list of the tests: one at a time is all that a vCPU has.
            static std::atomic<std::uint64_t> next_list{0};
            if (at.value == 0) at.value = kLists + next_list++ % 16 * vmm::kPageSize;
            for (std::size_t i = 0; i < list.size(); ++i) {
                of.poke_wide<gnttab_copy>(at + i * (of.wide() ? 40 : 24), list[i]);
            }
            access.forget();
            const Reply reply = run_hypercall(of.domain, access, preemption, 1,
                                              {.number = HYPERVISOR_grant_table_op,
                                               .args = {GNTTABOP_copy, at.value, list.size(), 0, 0},
                                               .width = of.width()});
            const auto* finish = std::get_if<Finish>(&reply);
            return finish != nullptr ? finish->result : INT64_MAX;
        }

        static constexpr std::uint64_t kLists = 0x6000'000;
        TestDomain& of;
        fakes::FakeAccess access;
        Preemption preemption;
        vmm::Gva at{0};
    };
    // Page A, full of 0x71, granted to the guest itself by reference 20.
    void prepare() {
        fill(kPageA, 0x71);
        give(20, kPageA);
    }
    static constexpr std::uint64_t address(std::uint64_t gfn) { return gfn << vmm::kPageShift; }
};

XENOLITH_BOTH_WIDTHS(Grants);

// ---- golden section G, literally ----------------------------------------------------------------

TEST_P(Grants, CopiesAsMeasured) {
    const auto one = [&](std::uint64_t from, std::uint16_t from_dom, std::uint16_t flags,
                         std::uint16_t offset = 0, std::uint16_t len = 64,
                         std::uint64_t to = kPageB) {
        Copy op = copy_op(from, to, flags, from_dom);
        op.source_offset = offset;
        op.len = len;
        return copy(op);
    };
    fill(kPageA, 0x5a);
    EXPECT_EQ(one(kPageA, DOMID_SELF, 0), GNTST_okay);
    EXPECT_EQ(byte(kPageB, 63), 0x5a);
    EXPECT_EQ(byte(kPageB, 64), 0);
    EXPECT_EQ(one(kPageA, DOMID_SELF, 0, 0, 0), GNTST_okay);
    EXPECT_EQ(one(kPageA, DOMID_SELF, 0, 4095, 2), GNTST_bad_copy_arg);
    EXPECT_EQ(one(kPageA, DOMID_SELF, 0, 0, 64, TestDomain::kHoleGfn), GNTST_bad_page);
    EXPECT_EQ(one(kPageA, 0, 0), GNTST_permission_denied);
    EXPECT_EQ(one(8, 0, GNTCOPY_source_gref), GNTST_general_error);
    EXPECT_EQ(one(0x7fff'ffff, 0, GNTCOPY_source_gref), GNTST_bad_gntref);
    EXPECT_EQ(one(8, 1000, GNTCOPY_source_gref), GNTST_bad_domain);
    EXPECT_EQ(one(9, DOMID_SELF, GNTCOPY_source_gref), GNTST_general_error);
    EXPECT_EQ(one(kPageA, DOMID_SELF, 0xfffc), GNTST_okay);
    // By its own number only with a reference.
    EXPECT_EQ(one(kPageA, kSelf, 0), GNTST_permission_denied);
    EXPECT_EQ(one(9, kSelf, GNTCOPY_source_gref), GNTST_general_error);
}

TEST_P(Grants, MappingsAsMeasured) {
    const auto status = [&](std::uint32_t ref, std::uint32_t flags, std::uint16_t dom,
                            std::uint64_t offset = 0) {
        const vmm::Gva at = guest.put(gnttab_map_grant_ref{.host_addr = address(kPageB) + offset,
                                                           .flags = flags,
                                                           .ref = ref,
                                                           .dom = dom,
                                                           .status = 99,
                                                           .handle = 0,
                                                           .dev_bus_addr = 0});
        EXPECT_EQ(grant(GNTTABOP_map_grant_ref, at), 0);
        EXPECT_EQ(guest.get<gnttab_map_grant_ref>(at).handle, 0u);
        return guest.get<gnttab_map_grant_ref>(at).status;
    };
    EXPECT_EQ(unmap(0, address(kPageB)), GNTST_bad_handle);
    EXPECT_EQ(status(8, GNTMAP_host_map, 0), GNTST_general_error);
    EXPECT_EQ(status(8, 0, 0), GNTST_bad_gntref);
    EXPECT_EQ(status(8, GNTMAP_device_map, 0), GNTST_general_error);
    EXPECT_EQ(status(8, GNTMAP_host_map | GNTMAP_application_map, 0), GNTST_general_error);
    EXPECT_EQ(status(8, GNTMAP_host_map | GNTMAP_contains_pte, 0), GNTST_general_error);
    EXPECT_EQ(status(8, GNTMAP_host_map, 1000), GNTST_bad_domain);
    EXPECT_EQ(status(8, GNTMAP_host_map, DOMID_SELF), GNTST_bad_domain);
    EXPECT_EQ(status(8, GNTMAP_host_map, kSelf), GNTST_general_error);
    EXPECT_EQ(status(0x7fff'ffff, GNTMAP_host_map, 0), GNTST_bad_gntref);
    EXPECT_EQ(status(8, GNTMAP_host_map, 0, 8), GNTST_general_error);
    EXPECT_EQ(status(8, GNTMAP_host_map, 0x7ff1), GNTST_bad_domain);
    EXPECT_EQ(unmap(0, address(kPageB)), GNTST_bad_handle);
    EXPECT_EQ(unmap(~0u, address(kPageB)), GNTST_bad_handle);
    EXPECT_EQ(swap(8, 9), GNTST_okay);
    EXPECT_EQ(swap(8, 0x7fff'ffff), GNTST_bad_gntref);
}

TEST_P(Grants, WhichReleaseHasWhat) {
    struct Row {
        const char* profile;
        bool lists;  // map, unmap, copy, set_version
        bool swap;   // and get_version
    };
    constexpr Row kRows[] = {{"xen-3.0.3", false, false},    {"xen-3.3", false, false},
                             {"xen-3.4", false, false},      {"xen-4.0", true, false},
                             {"xen-4.1", true, false},       {"xen-4.2", true, true},
                             {"xenserver-6.2", true, false}, {"xen-4.17", true, true}};
    for (const Row& row : kRows) {
        const auto d = fresh({.profile = find_profile(row.profile)});
        const auto call = [&](std::uint64_t op, std::uint64_t arg, std::uint64_t count) {
            return d->result(HYPERVISOR_grant_table_op, op, arg, count);
        };
        for (const auto op : {GNTTABOP_map_grant_ref, GNTTABOP_unmap_grant_ref, GNTTABOP_copy}) {
            EXPECT_EQ(call(op, 0, 0), row.lists ? 0 : kNosys) << row.profile << " " << op;
        }
        EXPECT_EQ(call(GNTTABOP_set_version, d->put(2u).value, 1), row.lists ? 0 : kNosys)
            << row.profile;
        EXPECT_EQ(call(GNTTABOP_swap_grant_ref, 0, 0), row.swap ? 0 : kNosys) << row.profile;
        EXPECT_EQ(call(GNTTABOP_get_version, d->put(gnttab_get_version{DOMID_SELF, 0, 0}).value, 1),
                  row.swap ? 0 : kNosys)
            << row.profile;
        // More than 512 at a time only where lists continue.
        const bool limited = !row.lists;
        EXPECT_EQ(call(GNTTABOP_query_size, 0, 513), kInval);
        EXPECT_EQ(call(GNTTABOP_setup_table, 0, 513), kInval);
        if (!limited) {
            const vmm::Gva list = d->reserve(600 * 40);
            EXPECT_EQ(d->run(d->request(HYPERVISOR_grant_table_op,
                                        {GNTTABOP_copy, list.value, 513, 0, 0}))
                          .result,
                      0);
        }
    }
}

// At 32 bits the status is translated before the list, and says nothing of it.
TEST_P(Grants, SetupTableTellsA64BitCallerOfAListThatIsNotThere) {
    const vmm::Gva at = guest.put_wide<gnttab_setup_table>(
        {.dom = DOMID_SELF, .nr_frames = 2, .status = 99, .frame_list = TestDomain::kUnmapped});
    EXPECT_EQ(grant(GNTTABOP_setup_table, at), 0);
    EXPECT_EQ(guest.get_wide<gnttab_setup_table>(at).status,
              guest.wide() ? GNTST_bad_virt_addr : GNTST_okay);
    EXPECT_EQ(table().frames(), 2u);
}

TEST_P(Grants, SetupTableWritesTheStatusAlone) {
    const vmm::Gva list = guest.put_words({0, 0});
    const vmm::Gva at = guest.reserve(sizeof(gnttab_setup_table<W64>));
    for (unsigned i = 0; i < sizeof(gnttab_setup_table<W64>); ++i) {
        guest.poke(at + i, std::uint8_t{0x5a});
    }
    guest.poke(at, DOMID_SELF);
    guest.poke(at + 4, std::uint32_t{2});
    if (guest.wide()) {
        guest.poke(at + 16, list.value);
    } else {
        guest.poke(at + 12, static_cast<std::uint32_t>(list.value));
    }
    auto expected = guest.bytes(at, sizeof(gnttab_setup_table<W64>));
    expected[8] = expected[9] = std::byte{0};
    EXPECT_EQ(grant(GNTTABOP_setup_table, at), 0);
    EXPECT_EQ(guest.bytes(at, sizeof(gnttab_setup_table<W64>)), expected);
}

// ---- copy ---------------------------------------------------------------------------------------

TEST_P(Grants, CopiesInEachDirection) {
    for (const std::uint32_t version : {1u, 2u}) {
        go_to_version(version);
        for (unsigned directions = 0; directions < 4; ++directions) {
            const auto flags = static_cast<std::uint16_t>(directions);
            fill(kPageA, static_cast<std::uint8_t>(0x10 + directions));
            fill(kPageB, 0);
            give(20, kPageA, kSelf, kPermit | GTF_readonly);
            give(21, kPageB);
            Copy op = copy_op((flags & GNTCOPY_source_gref) != 0 ? 20 : kPageA,
                              (flags & GNTCOPY_dest_gref) != 0 ? 21 : kPageB, flags);
            op.source_offset = 100;
            op.dest_offset = 200;
            op.len = 300;
            EXPECT_EQ(copy(op), GNTST_okay) << version << " " << flags;
            EXPECT_EQ(byte(kPageB, 199), 0);
            EXPECT_EQ(byte(kPageB, 200), 0x10 + directions);
            EXPECT_EQ(byte(kPageB, 499), 0x10 + directions);
            EXPECT_EQ(byte(kPageB, 500), 0);
            // Nothing stays in use.
            for (const std::uint32_t ref : {20u, 21u}) {
                const auto bits = version == 1 ? v1(ref)->flags : status(ref);
                EXPECT_EQ(bits & (GTF_reading | GTF_writing), 0) << ref;
            }
        }
    }
}

TEST_P(Grants, WhoMayCopyWhat) {
    struct Row {
        std::uint16_t flags, domid;
        bool source, dest;
    };
    constexpr Row kRows[] = {
        {GTF_permit_access, kSelf, true, true},
        {GTF_permit_access | GTF_readonly, kSelf, true, false},
        {GTF_permit_access | GTF_sub_page, kSelf, true, true},  // no such flag in version 1
        {GTF_permit_access, 0, false, false},                   // another domain's
        {GTF_permit_access, DOMID_SELF, false, false},          // nobody's
        {GTF_invalid, kSelf, false, false},
        {GTF_accept_transfer, kSelf, false, false},
        {GTF_transitive, kSelf, false, false},
    };
    for (const Row& row : kRows) {
        *v1(20) = {row.flags, row.domid, kPageA};
        EXPECT_EQ(copy(copy_op(20, kPageB, GNTCOPY_source_gref)),
                  row.source ? GNTST_okay : GNTST_general_error)
            << row.flags;
        EXPECT_EQ(copy(copy_op(kPageB, 20, GNTCOPY_dest_gref)),
                  row.dest ? GNTST_okay : GNTST_general_error)
            << row.flags;
        EXPECT_EQ(v1(20)->flags, row.flags);  // as it was
    }
    give(20, TestDomain::kHoleGfn);
    EXPECT_EQ(copy(copy_op(20, kPageB, GNTCOPY_source_gref)), GNTST_bad_page);
    EXPECT_EQ(v1(20)->flags, kPermit);
    EXPECT_EQ(copy(copy_op(512, kPageB, GNTCOPY_source_gref)), GNTST_bad_gntref);
    table().grow_to(2);
    EXPECT_EQ(copy(copy_op(512, kPageB, GNTCOPY_source_gref)), GNTST_general_error);
}

TEST_P(Grants, TheSameReferenceOnBothSides) {
    fill(kPageA, 0x31);
    fill(kPageB, 0x32);
    give(20, kPageA);
    Copy op = copy_op(20, 20, GNTCOPY_source_gref | GNTCOPY_dest_gref);
    op.dest_offset = 1000;
    op.len = 3000;
    EXPECT_EQ(copy(op), GNTST_okay);
    EXPECT_EQ(v1(20)->flags, kPermit);
    give(20, kPageA, kSelf, kPermit | GTF_readonly);
    EXPECT_EQ(copy(op), GNTST_general_error);
    EXPECT_EQ(v1(20)->flags, kPermit | GTF_readonly);
}

TEST_P(Grants, APartOfAPage) {
    go_to_version(2);
    fill(kPageA, 0x44);
    *v2(20) = {kPermit | GTF_sub_page, kSelf, 512, 1024, kPageA};
    const auto at = [&](std::uint16_t offset, std::uint16_t len, bool as_source) {
        Copy op = copy_op(as_source ? 20 : kPageB, as_source ? kPageB : 20,
                          as_source ? GNTCOPY_source_gref : GNTCOPY_dest_gref);
        (as_source ? op.source_offset : op.dest_offset) = offset;
        op.len = len;
        return copy(op);
    };
    for (const bool as_source : {true, false}) {
        EXPECT_EQ(at(512, 1024, as_source), GNTST_okay);
        EXPECT_EQ(at(600, 0, as_source), GNTST_okay);
        EXPECT_EQ(at(511, 2, as_source), GNTST_general_error);
        EXPECT_EQ(at(1535, 2, as_source), GNTST_general_error);
        EXPECT_EQ(at(4095, 2, as_source), GNTST_bad_copy_arg);
    }
    // What is granted may say more than a page has: the page's end counts first.
    *v2(20) = {kPermit | GTF_sub_page, kSelf, 0xfff0, 0xffff, kPageA};
    EXPECT_EQ(at(0, 4096, true), GNTST_general_error);
    EXPECT_EQ(map(20, kPageC).status, GNTST_general_error);  // a part cannot be mapped
    EXPECT_EQ(status(20), 0);
}

// XSA-448: a copy of nothing touches nothing, but is checked like any other.
TEST_P(Grants, Xsa448ACopyOfNothing) {
    give(20, kPageA);
    Copy op = copy_op(20, kPageB, GNTCOPY_source_gref);
    op.len = 0;
    op.source_offset = 4096;
    op.dest_offset = 4096;
    EXPECT_EQ(copy(op), GNTST_okay);
    op.dest_offset = 4097;
    EXPECT_EQ(copy(op), GNTST_bad_copy_arg);
    op = copy_op(9, kPageB, GNTCOPY_source_gref);
    op.len = 0;
    EXPECT_EQ(copy(op), GNTST_general_error);
}

// XSA-50, XSA-226, XSA-411: transitive grants, of one level.
TEST_P(Grants, Xsa226TransitiveGrants) {
    go_to_version(2);
    std::array<std::byte, vmm::kPageSize> theirs{};
    theirs.fill(std::byte{0x66});
    const std::uint32_t offered = table().offer(theirs.data(), true);
    ASSERT_EQ(offered, 8u);
    const auto transitive = [&](std::uint16_t domid, std::uint64_t ref) {
        *v2(20) = {GTF_transitive, kSelf, domid, 0, ref};
        return copy(copy_op(20, kPageB, GNTCOPY_source_gref));
    };
    EXPECT_EQ(transitive(0, offered), GNTST_okay);
    EXPECT_EQ(byte(kPageB, 4095), 0x66);
    EXPECT_EQ(status(20), 0);
    // Only what was offered, to whom it was offered, and as it was.
    EXPECT_EQ(copy(copy_op(kPageA, 20, GNTCOPY_dest_gref)), GNTST_general_error);
    EXPECT_EQ(copy(copy_op(20, 20, GNTCOPY_source_gref | GNTCOPY_dest_gref)), GNTST_general_error);
    EXPECT_EQ(theirs[0], std::byte{0x66});
    EXPECT_EQ(transitive(0, offered + 1), GNTST_general_error);
    EXPECT_EQ(transitive(0, 512), GNTST_bad_gntref);
    EXPECT_EQ(transitive(1000, 8), GNTST_general_error);
    EXPECT_EQ(transitive(kSelf, 20), GNTST_general_error);  // a loop
    EXPECT_EQ(transitive(kSelf, 21), GNTST_general_error);  // a chain of two
    EXPECT_EQ(transitive(DOMID_SELF, 21), GNTST_general_error);
    EXPECT_EQ(status(20), 0);
    EXPECT_EQ(map(20, kPageC).status, GNTST_general_error);
    // Nothing was left behind: the entry can be swapped, the offer withdrawn.
    EXPECT_EQ(swap(20, 21), GNTST_okay);
    EXPECT_TRUE(table().withdraw(offered));
    EXPECT_FALSE(table().withdraw(offered));
    *v2(20) = {GTF_transitive, kSelf, 0, 0, offered};
    EXPECT_EQ(copy(copy_op(20, kPageB, GNTCOPY_source_gref)), GNTST_general_error);
}

TEST_P(Grants, WhatABackendOffersCanBeCopiedAndNotMapped) {
    std::array<std::byte, vmm::kPageSize> theirs{};
    const std::uint32_t ref = table().offer(theirs.data(), false);
    fill(kPageA, 0x21);
    EXPECT_EQ(copy(copy_op(kPageA, ref, GNTCOPY_dest_gref, DOMID_SELF, 0)), GNTST_okay);
    EXPECT_EQ(theirs[4095], std::byte{0x21});
    EXPECT_EQ(map(ref, kPageC, GNTMAP_host_map, 0).status, GNTST_general_error);
    GrantTable::Held held;
    ASSERT_EQ(table().hold_offer(ref, true, &held), GNTST_okay);
    EXPECT_FALSE(table().withdraw(ref));
    table().release(held);
    EXPECT_TRUE(table().withdraw(ref));
}

// ---- lists and their continuation ---------------------------------------------------------------

// XSA-318: the status of each element that is done is written; of no other one, and nothing else.
TEST_P(Grants, Xsa318EachStatusIsWritten) {
    constexpr std::uint64_t kCount = 20, kMore = 4;
    const std::size_t size = guest.wide() ? 40 : 24;
    const vmm::Gva list = guest.reserve((kCount + kMore) * size);
    for (std::uint64_t i = 0; i < kCount + kMore; ++i) {
        Copy op = copy_op(i % 3 == 0 ? TestDomain::kHoleGfn : kPageA, kPageB, 0);
        op.status = 99;
        guest.poke_wide<gnttab_copy>(list + i * size, op);
    }
    const auto bytes = [&] {
        std::vector<std::byte> out((kCount + kMore) * size);
        EXPECT_TRUE(guest.access.read(list, out));
        return out;
    };
    std::vector<std::byte> expected = bytes();
    guest.access.forget();
    EXPECT_EQ(grant(GNTTABOP_copy, list, kCount), 0);
    EXPECT_FALSE(guest.access.looked_twice());
    const std::size_t at = guest.wide() ? 36 : 20;
    for (std::uint64_t i = 0; i < kCount; ++i) {
        const GrantStatus status = i % 3 == 0 ? GNTST_bad_page : GNTST_okay;
        std::memcpy(&expected[i * size + at], &status, sizeof status);
    }
    EXPECT_EQ(bytes(), expected);
}

TEST_P(Grants, AFaultEndsAListBetweenTwoElements) {
    const std::size_t size = guest.wide() ? 40 : 24;
    const vmm::Gva page = guest.reserve(vmm::kPageSize * 2, vmm::kPageSize);
    const vmm::Gva list = page + (vmm::kPageSize - 3 * size);
    for (unsigned i = 0; i < 3; ++i) {
        guest.poke_wide<gnttab_copy>(list + i * size, copy_op(kPageA, kPageB, 0));
    }
    guest.access.unmapped.insert((page.value >> vmm::kPageShift) + 1);
    EXPECT_EQ(grant(GNTTABOP_copy, list, 4), kFault);
    for (unsigned i = 0; i < 3; ++i) {
        EXPECT_EQ(guest.get_wide<gnttab_copy>(list + i * size).status, GNTST_okay);
    }
    guest.access.unmapped.erase((page.value >> vmm::kPageShift) + 1);
    guest.access.read_only.insert(page.value >> vmm::kPageShift);
    EXPECT_EQ(grant(GNTTABOP_copy, list, 3), kFault);
}

// A guest may copy onto its own table: what comes next in the list sees the entries that are there
// then, wherever the frame is shown.
TEST_P(Grants, ACopyOntoTheTableCountsForTheNextOne) {
    for (const std::uint64_t shown_at : {kPageC, TestDomain::kHoleGfn}) {
        for (const std::uint32_t version : {1u, 2u}) {
            go_to_version(version);
            ASSERT_EQ(add_frame(0, shown_at), 0);
            fill(kPageA, 0x71);
            fill(kPageB, 0x72);
            give(20, kPageA);
            // The entry that page 0x7104 holds, at the place of entry 20.
            const std::size_t size = version == 1 ? 8 : 16;
            give(21, kPageB);
            guest.poke({address(0x7104)}, *v2(21));
            if (version == 1) guest.poke({address(0x7104)}, *v1(21));
            Copy change = copy_op(0x7104, shown_at, 0);
            change.dest_offset = static_cast<std::uint16_t>(20 * size);
            change.len = static_cast<std::uint16_t>(size);
            const std::size_t bytes = guest.wide() ? 40 : 24;
            const vmm::Gva list = guest.reserve(2 * bytes);
            guest.poke_wide<gnttab_copy>(list, change);
            guest.poke_wide<gnttab_copy>(list + bytes, copy_op(20, 0x7103, GNTCOPY_source_gref));
            EXPECT_EQ(grant(GNTTABOP_copy, list, 2), 0);
            EXPECT_EQ(guest.get_wide<gnttab_copy>(list).status, GNTST_okay);
            EXPECT_EQ(guest.get_wide<gnttab_copy>(list + bytes).status, GNTST_okay);
            EXPECT_EQ(byte(0x7103), 0x72) << version;
        }
    }
}

// XSA-134: the largest number is a reference like any other, and finds nothing of what was there
// before it.
TEST_P(Grants, Xsa134TheLargestReferenceInAList) {
    const std::size_t bytes = guest.wide() ? 40 : 24;
    for (const std::uint32_t ref : {63u, 255u, 0x7fff'ffffu, ~0u}) {
        for (const bool as_source : {true, false}) {
            give(63, kPageA);
            give(255, kPageA);
            const auto named = [&](std::uint32_t r) {
                return as_source ? copy_op(r, kPageB, GNTCOPY_source_gref)
                                 : copy_op(kPageB, r, GNTCOPY_dest_gref);
            };
            const vmm::Gva list = guest.reserve(4 * bytes);
            guest.poke_wide<gnttab_copy>(list, named(ref));
            guest.poke_wide<gnttab_copy>(list + bytes, named(~0u));
            guest.poke_wide<gnttab_copy>(list + 2 * bytes, copy_op(kPageC, 255, GNTCOPY_dest_gref));
            guest.poke_wide<gnttab_copy>(list + 3 * bytes, named(~0u));
            EXPECT_EQ(grant(GNTTABOP_copy, list, 4), 0);
            for (const std::size_t i : {0u, 1u, 2u, 3u}) {
                const bool good = i == 2 || (i == 0 && ref < 256);
                EXPECT_EQ(guest.get_wide<gnttab_copy>(list + i * bytes).status,
                          good ? GNTST_okay : GNTST_bad_gntref)
                    << ref << " " << i;
            }
        }
    }
}

// What a list's other elements hold meanwhile is not to be seen in a copy of the table.
TEST_P(Grants, ACopyOfTheTableShowsNoOtherElementsUse) {
    ASSERT_EQ(add_frame(0, kPageC), 0);
    give(20, kPageA);
    const std::size_t bytes = guest.wide() ? 40 : 24;
    const vmm::Gva list = guest.reserve(3 * bytes);
    guest.poke_wide<gnttab_copy>(list, copy_op(20, kPageB, GNTCOPY_source_gref));
    guest.poke_wide<gnttab_copy>(list + bytes, copy_op(kPageC, 0x7103, 0));
    guest.poke_wide<gnttab_copy>(list + 2 * bytes, copy_op(20, kPageB, GNTCOPY_source_gref));
    EXPECT_EQ(grant(GNTTABOP_copy, list, 3), 0);
    EXPECT_EQ(guest.get<grant_entry_v1>({address(0x7103) + 20 * 8}).flags, kPermit);
    EXPECT_EQ(v1(20)->flags, kPermit);
}

// Nor do they count as its users, of whom there are 128 at most.
TEST_P(Grants, AListsElementsAreNotInEachOthersWay) {
    prepare();
    for (unsigned i = 0; i < 127; ++i) {
        ASSERT_EQ(map(20, 0x7200 + i, GNTMAP_host_map | GNTMAP_readonly).status, GNTST_okay);
    }
    const std::size_t bytes = guest.wide() ? 40 : 24;
    const vmm::Gva list = guest.reserve(4 * bytes);
    for (unsigned i = 0; i < 4; ++i) {
        guest.poke_wide<gnttab_copy>(list + i * bytes, copy_op(20, kPageB, GNTCOPY_source_gref));
    }
    EXPECT_EQ(grant(GNTTABOP_copy, list, 4), 0);
    for (unsigned i = 0; i < 4; ++i) {
        EXPECT_EQ(guest.get_wide<gnttab_copy>(list + i * bytes).status, GNTST_okay) << i;
    }
}

TEST_P(Grants, ListsGoOnByPointerAndCount) {
    constexpr std::uint64_t kCount = 300;
    const std::size_t size = guest.wide() ? 40 : 24;
    for (const std::uint32_t every : {1u, 7u, 299u, 300u}) {
        const auto d = stopping(every);
        const vmm::Gva list = d->reserve(kCount * size);
        for (std::uint64_t i = 0; i < kCount; ++i) {
            Copy op = copy_op(kPageA, kPageB, 0);
            op.source_offset = static_cast<std::uint16_t>(i);
            op.dest_offset = static_cast<std::uint16_t>(2 * i);
            op.len = 2;
            d->poke_wide<gnttab_copy>(list + i * size, op);
        }
        const auto run = d->run(
            d->request(HYPERVISOR_grant_table_op, {GNTTABOP_copy, list.value, kCount, 0, 0}));
        EXPECT_EQ(run.result, 0);
        EXPECT_EQ(run.stops.size(), (kCount - 1) / every);
        for (std::size_t k = 0; k < run.stops.size(); ++k) {
            const std::uint64_t done = (k + 1) * every;
            EXPECT_EQ(run.stops[k].args[0], GNTTABOP_copy);
            EXPECT_EQ(run.stops[k].args[1], list.value + done * size);
            EXPECT_EQ(run.stops[k].args[2], kCount - done);
        }
        for (std::uint64_t i = 0; i < kCount; ++i) {
            EXPECT_EQ(d->get_wide<gnttab_copy>(list + i * size).status, GNTST_okay);
        }
    }
}

TEST_P(Grants, UnmapsStopEvery32) {
    constexpr std::uint64_t kCount = 200;
    const auto d = stopping(1);
    const vmm::Gva list = d->reserve(kCount * sizeof(gnttab_unmap_grant_ref));
    for (std::uint64_t i = 0; i < kCount; ++i) {
        d->poke(list + i * sizeof(gnttab_unmap_grant_ref),
                gnttab_unmap_grant_ref{address(kPageB), 0, 77, 99, 0});
    }
    const auto run = d->run(d->request(HYPERVISOR_grant_table_op,
                                       {GNTTABOP_unmap_grant_ref, list.value, kCount, 0, 0}));
    EXPECT_EQ(run.result, 0);
    ASSERT_EQ(run.stops.size(), 6u);
    for (std::size_t k = 0; k < run.stops.size(); ++k) {
        EXPECT_EQ(run.stops[k].args[1], list.value + (k + 1) * 32 * 24);
        EXPECT_EQ(run.stops[k].args[2], kCount - (k + 1) * 32);
    }
    for (std::uint64_t i = 0; i < kCount; ++i) {
        EXPECT_EQ(d->get<gnttab_unmap_grant_ref>(list + i * 24).status, GNTST_bad_handle);
    }
}

TEST_P(Grants, MapsAndSwapsStopAnywhere) {
    constexpr std::uint64_t kCount = 200;
    for (const auto op : {GNTTABOP_map_grant_ref, GNTTABOP_swap_grant_ref}) {
        const std::size_t size = op == GNTTABOP_map_grant_ref ? 32 : 12;
        const auto d = stopping(3);
        const vmm::Gva list = d->reserve(kCount * size);
        const auto run =
            d->run(d->request(HYPERVISOR_grant_table_op, {op, list.value, kCount, 0, 0}));
        EXPECT_EQ(run.result, 0);
        EXPECT_EQ(run.stops.size(), (kCount - 1) / 3);
        EXPECT_EQ(run.stops[0].args[1], list.value + 3 * size);
        EXPECT_EQ(run.stops[0].args[2], kCount - 3);
    }
}

// ---- mappings of the guest's own ----------------------------------------------------------------

TEST_P(Grants, AMappingShowsThePageElsewhere) {
    for (const std::uint64_t target : {kPageB, TestDomain::kHoleGfn}) {
        prepare();
        const auto before = map_of().accounts().current;
        const auto op = map(20, target);
        EXPECT_EQ(op.status, GNTST_okay);
        EXPECT_EQ(byte(target, 4095), 0x71);
        EXPECT_EQ(v1(20)->flags, kPermit | GTF_reading | GTF_writing);
        // The page has left its place, as on Xen, and counts all the same.
        EXPECT_FALSE(map_of().is_mapped(kPageA));
        EXPECT_EQ(map_of().accounts().current, before);
        // Memory like any other, but no argument may lie in it (measured, 4.17.7).
        guest.poke<std::uint16_t>({address(target)}, DOMID_SELF);
        const auto with_argument = [&] {
            return guest.result(HYPERVISOR_memory_op, XENMEM_current_reservation, address(target));
        };
        EXPECT_EQ(with_argument(), -XEN_EFAULT);
        EXPECT_EQ(guest.result(HYPERVISOR_xen_version, XENVER_extraversion, address(target)),
                  -XEN_EFAULT);
        EXPECT_EQ(unmap(op.handle, address(target)), GNTST_okay);
        EXPECT_EQ(v1(20)->flags, kPermit);
        EXPECT_FALSE(map_of().is_mapped(target));
        EXPECT_EQ(map_of().accounts().current, before);
        EXPECT_EQ(unmap(op.handle, address(target)), GNTST_bad_handle);
        // Both places can have RAM again.
        EXPECT_TRUE(map_of().populate(kPageA));
        EXPECT_EQ(byte(kPageA), 0);
        EXPECT_TRUE(map_of().populate(target));
        guest.poke<std::uint16_t>({address(target)}, DOMID_SELF);
        EXPECT_GT(with_argument(), 0);
    }
}

// A mapping that is refused leaves the page where it was, and nothing in use.
TEST_P(Grants, AMappingThatCannotBeShownChangesNothing) {
    const auto expect_refused = [&](std::uint64_t from, std::uint64_t target) {
        fill(from, 0x74);
        give(20, from);
        const auto before = map_of().accounts().current;
        const auto overlays = guest.ports.overlays.size();
        const auto pool = guest.ports.pool_used();
        EXPECT_EQ(map(20, target).status, GNTST_general_error);
        EXPECT_EQ(v1(20)->flags, kPermit);
        EXPECT_TRUE(map_of().has_ram(from));
        EXPECT_EQ(byte(from, 4095), 0x74);
        EXPECT_EQ(map_of().accounts().current, before);
        EXPECT_EQ(guest.ports.overlays.size(), overlays);
        EXPECT_EQ(guest.ports.pool_used(), pool);
    };
    // A backend holds what is there.
    give(30, kPageB, kBackendDomain);
    const auto held = table().map(30, false);
    ASSERT_EQ(held.status, GNTST_okay);
    expect_refused(kPageA, kPageB);
    table().unmap(held);
    // The machine has no room for one more page, in RAM or elsewhere.
    guest.ports.max_overlays = 0;
    fill(kPageB, 0x75);
    expect_refused(kPageA, kPageB);
    EXPECT_EQ(byte(kPageB), 0x75);
    guest.ports.max_overlays = 4096;
    ASSERT_TRUE(map_of().populate(TestDomain::kHoleGfn));
    guest.ports.pool_pages = 1;
    expect_refused(kPageA, TestDomain::kHoleGfn + 1);
    expect_refused(TestDomain::kHoleGfn, TestDomain::kHoleGfn + 1);
    guest.ports.pool_pages = 64;
    // All of it was a page that could be mapped all the time.
    fill(kPageA, 0x76);
    give(20, kPageA);
    const auto op = map(20, kPageB);
    EXPECT_EQ(op.status, GNTST_okay);
    EXPECT_EQ(byte(kPageB), 0x76);
    // And once more, with no room for the second place: the first one stays.
    guest.ports.max_overlays = 1;
    EXPECT_EQ(map(20, kPageC).status, GNTST_general_error);
    EXPECT_EQ(byte(kPageB), 0x76);
    EXPECT_EQ(unmap(op.handle, address(kPageB)), GNTST_okay);
    EXPECT_EQ(v1(20)->flags, kPermit);
}

// Where the page already is: it becomes one of ours in the same place.
TEST_P(Grants, AMappingWhereThePageIs) {
    for (const std::uint64_t gfn : {kPageA, TestDomain::kHoleGfn}) {
        ASSERT_TRUE(map_of().has_ram(gfn) || map_of().populate(gfn));
        const auto before = map_of().accounts().current;
        fill(gfn, 0x77);
        give(20, gfn);
        const auto op = map(20, gfn);
        EXPECT_EQ(op.status, GNTST_okay);
        EXPECT_EQ(byte(gfn), 0x77);
        EXPECT_FALSE(map_of().has_ram(gfn));
        EXPECT_EQ(map_of().accounts().current, before);
        EXPECT_EQ(unmap(op.handle, address(gfn)), GNTST_okay);
        EXPECT_FALSE(map_of().is_mapped(gfn));
        EXPECT_EQ(map_of().accounts().current, before);
    }
}

TEST_P(Grants, OneReferenceMappedTwiceIsOnePage) {
    prepare();
    const auto first = map(20, kPageB);
    const auto second = map(20, TestDomain::kHoleGfn, GNTMAP_host_map | GNTMAP_readonly);
    ASSERT_EQ(first.status, GNTST_okay);
    ASSERT_EQ(second.status, GNTST_okay);
    EXPECT_EQ(second.handle, 1u);
    guest.poke<std::uint8_t>({address(kPageB) + 5}, 0x99);
    EXPECT_EQ(byte(TestDomain::kHoleGfn, 5), 0x99);
    // A copy by the reference works on the same page.
    EXPECT_EQ(copy(copy_op(20, kPageC, GNTCOPY_source_gref)), GNTST_okay);
    EXPECT_EQ(byte(kPageC, 5), 0x99);
    // What is compared when it is unmapped is the page, not the place.
    EXPECT_EQ(unmap(first.handle, address(TestDomain::kHoleGfn)), GNTST_okay);
    EXPECT_EQ(v1(20)->flags, kPermit | GTF_reading);  // the other one reads only
    EXPECT_EQ(byte(kPageB, 5), 0x99);
    EXPECT_EQ(unmap(second.handle, address(kPageB)), GNTST_okay);
    EXPECT_EQ(v1(20)->flags, kPermit);
    EXPECT_EQ(guest.ports.overlays.size(), 0u);
    EXPECT_EQ(guest.ports.pool_used(), 0u);
}

TEST_P(Grants, UnmappingInTheWrongPlace) {
    prepare();
    const auto op = map(20, kPageB);
    EXPECT_EQ(unmap(op.handle, address(kPageC)), GNTST_general_error);
    EXPECT_EQ(unmap(op.handle, 0), GNTST_okay);  // address 0: nothing was asked for
    EXPECT_EQ(byte(kPageB), 0x71);
    // Given back by other means, it is not there to be unmapped.
    EXPECT_TRUE(map_of().decrease(kPageB));
    EXPECT_EQ(unmap(op.handle, address(kPageB)), GNTST_general_error);
    EXPECT_EQ(v1(20)->flags & GTF_reading, GTF_reading);
}

// XSA-252: a page that is given back while it is mapped counts until the last mapping goes, and is
// taken off the account once.
TEST_P(Grants, Xsa252AMappedPageThatIsGivenBack) {
    prepare();
    const auto before = map_of().accounts().current;
    const auto first = map(20, 0x7200), second = map(20, 0x7201), third = map(20, 0x7202);
    EXPECT_TRUE(map_of().decrease(0x7200));
    EXPECT_TRUE(map_of().decrease(0x7201));
    EXPECT_EQ(map_of().accounts().current, before);
    EXPECT_EQ(byte(0x7202), 0x71);
    EXPECT_EQ(unmap(first.handle, address(0x7202)), GNTST_okay);
    EXPECT_EQ(unmap(second.handle, address(0x7202)), GNTST_general_error);
    EXPECT_EQ(unmap(third.handle, address(0x7200)), GNTST_general_error);
    EXPECT_EQ(map_of().accounts().current, before);
    // Out of the map only, not given back.
    fill(kPageB, 0x72);
    give(21, kPageB);
    const auto other = map(21, 0x7203), another = map(21, 0x7204);
    EXPECT_TRUE(map_of().remove(0x7203).has_value());
    EXPECT_EQ(map_of().accounts().current, before);
    EXPECT_EQ(unmap(other.handle, address(0x7204)), GNTST_okay);
    EXPECT_EQ(map_of().accounts().current, before);
    EXPECT_EQ(v1(21)->flags, kPermit | GTF_reading | GTF_writing);
    EXPECT_EQ(another.status, GNTST_okay);
    // Once, when the last mapping goes.
    give(22, kPageC);
    const auto one = map(22, 0x7205), two = map(22, 0x7206);
    EXPECT_TRUE(map_of().place_own(kSharedInfoPage, 0x7206).has_value());
    EXPECT_EQ(map_of().accounts().current, before);
    EXPECT_EQ(unmap(one.handle, address(0x7205)), GNTST_okay);
    EXPECT_EQ(map_of().accounts().current, before);
    EXPECT_EQ(unmap(two.handle, address(0x7206)), GNTST_general_error);
}

TEST_P(Grants, AMappedPageThatIsGivenBackIsFreedWithItsLastMapping) {
    prepare();
    give(21, kPageB);
    const auto before = map_of().accounts().current;
    const auto first = map(20, kPageB), second = map(20, 0x7201);
    ASSERT_EQ(first.status, GNTST_okay);
    EXPECT_TRUE(map_of().decrease(kPageB));
    // By another entry the page comes to another place.
    give(21, 0x7201);
    const auto third = map(21, 0x7202);
    ASSERT_EQ(third.status, GNTST_okay);
    EXPECT_EQ(unmap(first.handle, address(0x7201)), GNTST_okay);
    EXPECT_EQ(unmap(second.handle, address(0x7202)), GNTST_okay);
    EXPECT_EQ(v1(20)->flags, kPermit);
    EXPECT_EQ(map_of().accounts().current, before);
    EXPECT_EQ(unmap(third.handle, address(0x7202)), GNTST_general_error);
}

TEST_P(Grants, AMappingHasNoCachingOfItsOwn) {
    for (const std::uint16_t caching : {GTF_PWT, GTF_PCD, GTF_PAT}) {
        give(20, kPageA, kSelf, static_cast<std::uint16_t>(kPermit | caching));
        EXPECT_EQ(map(20, kPageB).status, GNTST_general_error);
        EXPECT_EQ(v1(20)->flags, kPermit | caching);
        EXPECT_TRUE(map_of().has_ram(kPageA));
        EXPECT_EQ(copy(copy_op(20, kPageB, GNTCOPY_source_gref)), GNTST_okay);
    }
    give(20, kPageA);
    ASSERT_EQ(map(20, kPageB).status, GNTST_okay);
    v1(20)->flags |= GTF_PCD;
    EXPECT_EQ(map(20, kPageC).status, GNTST_general_error);
    EXPECT_EQ(v1(20)->flags, kPermit | GTF_PCD | GTF_reading | GTF_writing);
}

TEST_P(Grants, AMappingOverAMappingEndsTheDomain) {
    prepare();
    give(21, kPageC);
    ASSERT_EQ(map(20, kPageB).status, GNTST_okay);
    EXPECT_FALSE(map_of().populate(kPageB));
    EXPECT_TRUE(guest.ports.shutdowns.empty());
    EXPECT_EQ(map(21, kPageB).status, GNTST_general_error);
    EXPECT_EQ(guest.ports.shutdowns, std::vector<std::uint8_t>{SHUTDOWN_crash});
}

// XSA-227, XSA-234: the address is a physical one, its low bits mean nothing.
TEST_P(Grants, Xsa227AnAddressIsCutToItsPage) {
    prepare();
    const vmm::Gva at = guest.put(gnttab_map_grant_ref{.host_addr = address(kPageB) + 0x123,
                                                       .flags = GNTMAP_host_map,
                                                       .ref = 20,
                                                       .dom = kSelf,
                                                       .status = 99,
                                                       .handle = 0,
                                                       .dev_bus_addr = 0});
    EXPECT_EQ(grant(GNTTABOP_map_grant_ref, at), 0);
    EXPECT_EQ(guest.get<gnttab_map_grant_ref>(at).status, GNTST_okay);
    EXPECT_EQ(byte(kPageB), 0x71);
    EXPECT_EQ(unmap(0, address(kPageB) + 0xfff), GNTST_okay);
    // Where no vCPU can look nothing is mapped, and nothing stays in use.
    ASSERT_TRUE(map_of().populate(kPageA));
    prepare();
    EXPECT_EQ(map(20, std::uint64_t{1} << 40).status, GNTST_general_error);
    EXPECT_EQ(v1(20)->flags, kPermit);
    EXPECT_EQ(byte(kPageA), 0x71);
}

// XSA-394: whatever combination of flags maps something, unmapping takes back all of it, and what
// maps nothing leaves nothing in use.
TEST_P(Grants, Xsa394NoFlagsLeaveAUseBehind) {
    prepare();
    std::vector<std::uint32_t> refused;
    for (std::uint32_t flags = 0; flags < 0x40; ++flags) {
        const auto op = map(20, kPageB, flags);
        if (op.status != GNTST_okay) {
            refused.push_back(flags);
            ASSERT_EQ(v1(20)->flags, kPermit) << flags;
            continue;
        }
        EXPECT_NE(v1(20)->flags, kPermit) << flags;
        EXPECT_EQ(unmap(op.handle, address(kPageB)), GNTST_okay) << flags;
        EXPECT_EQ(unmap(op.handle, address(kPageB)), GNTST_bad_handle) << flags;
        EXPECT_EQ(v1(20)->flags, kPermit) << flags;
        EXPECT_FALSE(map_of().is_mapped(kPageB)) << flags;
        // Its page is at no gfn any more, as on Xen: another one for the next.
        ASSERT_TRUE(map_of().populate(kPageA));
        prepare();
    }
    EXPECT_EQ(refused.size(), 62u);  // all but host_map, and that readonly
    // Nor do refusals use up handles: more of them than there are handles in a frame.
    for (std::uint32_t n = 0; n < 40 * GrantMaps::kPerFrame; ++n) {
        ASSERT_NE(map(20, kPageB, refused[n % refused.size()]).status, GNTST_okay);
    }
    EXPECT_EQ(guest.domain.grant_maps().handles(), GrantMaps::kPerFrame);
    EXPECT_EQ(v1(20)->flags, kPermit);
    EXPECT_EQ(swap(20, 21), GNTST_okay);
}

TEST_P(Grants, UnknownFlagsMapNothing) {
    prepare();
    EXPECT_EQ(map(20, kPageB, GNTMAP_host_map | 0x20).status, GNTST_general_error);
    EXPECT_EQ(map(20, kPageB, GNTMAP_host_map | 1u << 20).status, GNTST_general_error);
    EXPECT_EQ(map(600, kPageB, GNTMAP_host_map | 0x20).status, GNTST_bad_gntref);
    EXPECT_EQ(v1(20)->flags, kPermit);
    EXPECT_EQ(byte(kPageA), 0x71);
    give(20, kPageA, kSelf, kPermit | GTF_readonly);
    EXPECT_EQ(map(20, kPageB).status, GNTST_general_error);
    EXPECT_EQ(map(20, kPageB, GNTMAP_host_map | GNTMAP_readonly).status, GNTST_okay);
    EXPECT_EQ(v1(20)->flags, kPermit | GTF_readonly | GTF_reading);
}

// XSA-218, XSA-224: pins are counted, and none is taken back twice.
TEST_P(Grants, Xsa224UsesAreCounted) {
    prepare();
    std::vector<std::uint32_t> handles;
    for (unsigned i = 0; i < 128; ++i) {
        const auto op = map(20, 0x7200 + i);
        ASSERT_EQ(op.status, GNTST_okay) << i;
        handles.push_back(op.handle);
    }
    EXPECT_EQ(map(20, 0x7300).status, GNTST_general_error);  // Xen's counter is full
    EXPECT_EQ(map(20, 0x7300, GNTMAP_host_map | GNTMAP_readonly).status, GNTST_general_error);
    EXPECT_EQ(copy(copy_op(20, kPageC, GNTCOPY_source_gref)), GNTST_general_error);
    for (unsigned i = 0; i < 128; ++i) {
        EXPECT_EQ(v1(20)->flags, kPermit | GTF_reading | GTF_writing);
        EXPECT_EQ(unmap(handles[i], address(0x7200 + i)), GNTST_okay);
        EXPECT_EQ(unmap(handles[i], address(0x7200 + i)), GNTST_bad_handle);
    }
    EXPECT_EQ(v1(20)->flags, kPermit);
}

// XSA-380: looking a handle up does not depend on how many there are; XSA-228: the free list.
TEST_P(Grants, Xsa228HandlesComeBackLast) {
    prepare();
    const auto first = map(20, kPageB);
    EXPECT_EQ(unmap(first.handle, address(kPageB)), GNTST_okay);
    give(20, kPageC);
    EXPECT_EQ(map(20, kPageB).handle, first.handle + 1);
    GrantMaps& maps = guest.domain.grant_maps();
    EXPECT_EQ(maps.handles(), GrantMaps::kPerFrame);
    EXPECT_EQ(maps.mapping(first.handle + 1),
              (GrantMaps::Mapping{.ref = 20, .domid = kSelf, .flags = GNTMAP_host_map}));
}

TEST_P(Grants, AFullMaptrackHasNoSpace) {
    GrantMaps maps(table(), map_of(), 1);
    give(20, kPageA);
    std::uint32_t mapped = 0;
    GrantMaps::Result last;
    std::uint32_t ref = 20;
    for (; mapped < 300; ++mapped) {
        if (mapped % 100 == 0) {
            ref = 20 + mapped / 100;
            give(ref, kPageA + mapped / 100);
        }
        last = maps.map({.host_addr = address(0x7200 + mapped),
                         .flags = GNTMAP_host_map,
                         .ref = ref,
                         .domid = kSelf});
        if (last.status != GNTST_okay) break;
    }
    EXPECT_EQ(mapped, 255u);  // one is always left over
    EXPECT_EQ(last.status, GNTST_no_space);
}

// ---- domain 0's side ----------------------------------------------------------------------------

TEST_P(Grants, ABackendMapsAndCopies) {
    for (const std::uint32_t version : {1u, 2u}) {
        go_to_version(version);
        const auto bits = [&] { return version == 1 ? v1(30)->flags & ~kPermit : status(30); };
        fill(kPageA, 0x15);
        give(30, kPageA, kBackendDomain);
        auto mapping = table().map(30, true);
        ASSERT_EQ(mapping.status, GNTST_okay);
        EXPECT_EQ(mapping.page[4095], std::byte{0x15});
        EXPECT_EQ(bits(), GTF_reading);
        auto writable = table().map(30, false);
        ASSERT_EQ(writable.status, GNTST_okay);
        EXPECT_EQ(bits(), GTF_reading | GTF_writing);
        writable.page[0] = std::byte{0x16};
        EXPECT_EQ(byte(kPageA), 0x16);
        table().unmap(writable);
        EXPECT_EQ(bits(), GTF_reading);
        table().unmap(mapping);
        EXPECT_EQ(bits(), 0);

        std::array<std::byte, 16> some{};
        EXPECT_EQ(table().copy_from(30, 4080, some), GNTST_okay);
        EXPECT_EQ(some[0], std::byte{0x15});
        EXPECT_EQ(table().copy_from(30, 4081, some), GNTST_bad_copy_arg);
        some.fill(std::byte{0x17});
        EXPECT_EQ(table().copy_to(30, 1, some), GNTST_okay);
        EXPECT_EQ(byte(kPageA, 16), 0x17);
        EXPECT_EQ(bits(), 0);

        give(30, kPageA, kBackendDomain, kPermit | GTF_readonly);
        EXPECT_EQ(table().map(30, false).status, GNTST_general_error);
        EXPECT_EQ(table().copy_to(30, 1, some), GNTST_general_error);
        give(30, kPageA, kSelf);
        EXPECT_EQ(table().map(30, true).status, GNTST_general_error);
        give(30, TestDomain::kHoleGfn, kBackendDomain);
        EXPECT_EQ(table().map(30, true).status, GNTST_bad_page);
        EXPECT_EQ(table().map(100'000, true).status, GNTST_bad_gntref);
        EXPECT_EQ(bits(), 0);
    }
}

// XSA-230: the page stays while it is mapped, whatever the guest does with its gfn. XSA-236: a copy
// by an entry that is in use relies on that page, not on what the gfn has become.
TEST_P(Grants, Xsa230AMappedPageStays) {
    fill(kPageA, 0x61);
    give(30, kPageA, kBackendDomain);
    const auto before = map_of().accounts().current;
    const auto mapping = table().map(30, false);
    ASSERT_EQ(mapping.status, GNTST_okay);
    EXPECT_TRUE(map_of().decrease(kPageA));
    EXPECT_EQ(map_of().accounts().current, before - 1);
    EXPECT_FALSE(map_of().is_mapped(kPageA));
    EXPECT_EQ(mapping.page[100], std::byte{0x61});
    mapping.page[100] = std::byte{0x62};
    EXPECT_TRUE(guest.ports.ram_backed(kPageA));
    EXPECT_FALSE(map_of().free_touched(kPageA));
    // Nothing else can be put there, or the backend would look at it.
    EXPECT_FALSE(map_of().populate(kPageA));
    EXPECT_EQ(map_of().place_own(kSharedInfoPage, kPageA).error(), XEN_EBUSY);
    EXPECT_EQ(map_of().move(kPageB, kPageA).error(), XEN_EBUSY);
    EXPECT_EQ(mapping.page[100], std::byte{0x62});
    // Another use of the entry finds the page that is mapped.
    const auto again = table().map(30, true);
    EXPECT_EQ(again.page, mapping.page);
    std::array<std::byte, 2> some{};
    EXPECT_EQ(table().copy_from(30, 100, some), GNTST_okay);
    EXPECT_EQ(some[0], std::byte{0x62});
    some[1] = std::byte{0x63};
    EXPECT_EQ(table().copy_to(30, 100, some), GNTST_okay);
    EXPECT_EQ(mapping.page[101], std::byte{0x63});
    table().unmap(again);
    EXPECT_EQ(mapping.page[101], std::byte{0x63});
    table().unmap(mapping);
    EXPECT_FALSE(guest.ports.ram_backed(kPageA));
    EXPECT_EQ(table().copy_from(30, 100, some), GNTST_bad_page);
    EXPECT_TRUE(map_of().populate(kPageA));
    EXPECT_EQ(byte(kPageA, 100), 0);
    EXPECT_EQ(map_of().accounts().current, before);
}

TEST_P(Grants, AMappedPageOfRamIsNotCovered) {
    give(30, kPageA, kBackendDomain);
    fill(kPageA, 0x63);
    const auto mapping = table().map(30, false);
    EXPECT_EQ(map_of().place_own(kSharedInfoPage, kPageA).error(), XEN_EBUSY);
    EXPECT_EQ(add_frame(0, kPageA), -XEN_EBUSY);
    EXPECT_FALSE(map_of().populate(kPageA));
    EXPECT_EQ(byte(kPageA), 0x63);
    give(31, kPageB);
    EXPECT_EQ(map(31, kPageA).status, GNTST_general_error);
    give(31, kPageA);
    EXPECT_EQ(map(31, kPageB).status, GNTST_general_error);
    EXPECT_EQ(byte(kPageA), 0x63);
    table().unmap(mapping);
    EXPECT_TRUE(map_of().place_own(kSharedInfoPage, kPageA).has_value());
}

TEST_P(Grants, AMappedPageOutsideRamStays) {
    ASSERT_TRUE(map_of().populate(TestDomain::kHoleGfn));
    give(30, TestDomain::kHoleGfn, kBackendDomain);
    const auto mapping = table().map(30, false);
    ASSERT_EQ(mapping.status, GNTST_okay);
    mapping.page[7] = std::byte{0x64};
    EXPECT_TRUE(map_of().decrease(TestDomain::kHoleGfn));
    EXPECT_EQ(guest.ports.pool_used(), 1u);
    EXPECT_EQ(mapping.page[7], std::byte{0x64});
    EXPECT_FALSE(map_of().populate(TestDomain::kHoleGfn));
    table().unmap(mapping);
    EXPECT_EQ(guest.ports.pool_used(), 0u);
    EXPECT_TRUE(map_of().populate(TestDomain::kHoleGfn));
    EXPECT_EQ(byte(TestDomain::kHoleGfn, 7), 0);
}

// ---- versions, status frames, swap --------------------------------------------------------------

TEST_P(Grants, TheVersionChangesAndReservedEntriesStay) {
    table().grow_to(3);
    give(0, 0x7aaa, kBackendDomain);
    give(1, 0x7bbb, kBackendDomain, kPermit | GTF_readonly);
    give(8, kPageA, kBackendDomain);
    const auto console = table().map(0, false);
    ASSERT_EQ(console.status, GNTST_okay);
    go_to_version(2);
    EXPECT_EQ(v2(0)->flags, kPermit);
    EXPECT_EQ(v2(0)->domid, kBackendDomain);
    EXPECT_EQ(v2(0)->frame, 0x7aaau);
    EXPECT_EQ(status(0), GTF_reading | GTF_writing);
    EXPECT_EQ(v2(1)->flags, kPermit | GTF_readonly);
    EXPECT_EQ(v2(8)->flags, 0);
    EXPECT_EQ(table().entries(), 3u * 256);
    EXPECT_EQ(table().status_frames(), 1u);
    // In use across the change, and back.
    go_to_version(1);
    EXPECT_EQ(v1(0)->flags, kPermit | GTF_reading | GTF_writing);
    EXPECT_EQ(v1(0)->frame, 0x7aaau);
    EXPECT_EQ(v1(1)->flags, kPermit | GTF_readonly);
    table().unmap(console);
    EXPECT_EQ(v1(0)->flags, kPermit);
    go_to_version(1);
}

// As the toolstack leaves them, and as 4.17.7 shows them.
TEST_P(Grants, SeededEntriesAreInUse) {
    table().seed(GNTTAB_RESERVED_XENSTORE, kPageA);
    EXPECT_EQ(v1(1)->flags, kPermit | GTF_reading | GTF_writing);
    EXPECT_EQ(v1(1)->domid, kBackendDomain);
    EXPECT_EQ(v1(1)->frame, kPageA);
    EXPECT_EQ(swap(1, 30), GNTST_eagain);
    EXPECT_EQ(map(1, kPageB).status, GNTST_general_error);
    EXPECT_EQ(copy(copy_op(1, kPageB, GNTCOPY_source_gref, kSelf)), GNTST_general_error);
    go_to_version(2);
    EXPECT_EQ(v2(1)->flags, kPermit);
    EXPECT_EQ(v2(1)->frame, kPageA);
    EXPECT_EQ(status(1), GTF_reading | GTF_writing);
    go_to_version(1);
    EXPECT_EQ(v1(1)->flags, kPermit | GTF_reading | GTF_writing);
    // The daemon looks where the gfn is: another page may come there.
    EXPECT_TRUE(map_of().decrease(kPageA));
    EXPECT_TRUE(map_of().populate(kPageA));
    const auto backend = table().map(1, false);
    EXPECT_EQ(backend.status, GNTST_okay);
    table().unmap(backend);
    EXPECT_EQ(v1(1)->flags, kPermit | GTF_reading | GTF_writing);
}

// XSA-26, XSA-255, XSA-268, XSA-501: no change of version under what is in use.
TEST_P(Grants, Xsa268NoOtherVersionWhileEntriesAreInUse) {
    const auto set = [&](std::uint32_t version) {
        const vmm::Gva at = guest.put(version);
        const auto rc = grant(GNTTABOP_set_version, at);
        EXPECT_EQ(guest.get<std::uint32_t>(at), table().version());
        return rc;
    };
    for (const std::uint32_t ref : {8u, 255u, 511u}) {
        give(ref, kPageA, kBackendDomain);
        const auto mapping = table().map(ref, true);
        ASSERT_EQ(mapping.status, GNTST_okay);
        EXPECT_EQ(set(2), -XEN_EBUSY);
        EXPECT_EQ(v1(ref)->flags, kPermit | GTF_reading);
        table().unmap(mapping);
    }
    EXPECT_EQ(set(2), 0);
    give(9, kPageA, kBackendDomain);
    const auto mapping = table().map(9, true);
    EXPECT_EQ(set(1), -XEN_EBUSY);
    EXPECT_EQ(set(2), 0);  // it is that already
    table().unmap(mapping);
    // What version 1 cannot say.
    *v2(3) = {kPermit, 0, 0, 0, std::uint64_t{1} << 32};
    EXPECT_EQ(set(1), -XEN_ERANGE);
    *v2(3) = {GTF_transitive, 0, 0, 0, 8};
    EXPECT_EQ(set(1), -XEN_ERANGE);
    *v2(3) = {GTF_accept_transfer, 0, 0, 0, std::uint64_t{1} << 32};
    *v2(8) = {GTF_transitive, 0, 0, 0, 8};
    EXPECT_EQ(set(1), 0);
    EXPECT_EQ(v1(3)->flags, 0);
    EXPECT_EQ(v1(3)->frame, 0u);
}

// XSA-379, XSA-384: a status frame has one place, and none in version 1.
TEST_P(Grants, Xsa379StatusFrames) {
    constexpr std::uint64_t kStatus = XENMAPIDX_grant_table_status;
    EXPECT_EQ(add_frame(kStatus, kPageA), kInval);
    go_to_version(2);
    EXPECT_EQ(add_frame(kStatus, kPageA), 0);
    give(30, kPageC, kBackendDomain);
    const auto mapping = table().map(30, true);
    EXPECT_EQ(guest.get<std::uint16_t>({address(kPageA) + 30 * 2}), GTF_reading);
    table().unmap(mapping);
    EXPECT_EQ(add_frame(kStatus, kPageB), 0);
    EXPECT_FALSE(map_of().is_mapped(kPageA));
    // A further status frame brings eight grant frames along.
    EXPECT_EQ(table().frames(), 1u);
    EXPECT_EQ(add_frame(kStatus | 1, kPageC), 0);
    EXPECT_EQ(table().frames(), 16u);
    EXPECT_EQ(add_frame(kStatus | 7, TestDomain::kHoleGfn), 0);
    EXPECT_EQ(table().frames(), 64u);
    EXPECT_EQ(add_frame(kStatus | 8, kPageA), kInval);
    EXPECT_EQ(add_frame(kStatus | 0x7fff'ffff, kPageA), kInval);
    EXPECT_EQ(add_frame(63, kPageA), 0);
    EXPECT_EQ(add_frame(64, kPageA), kInval);
    // They vanish with the version, also one that was given back, and come again empty.
    EXPECT_TRUE(map_of().decrease(kPageC));
    EXPECT_EQ(add_frame(kStatus | 1, kPageC), -XEN_EBUSY);
    guest.poke<std::uint16_t>({address(kPageB) + 100}, 0xffff);
    go_to_version(1);
    EXPECT_FALSE(map_of().is_mapped(kPageB));
    EXPECT_FALSE(map_of().is_mapped(TestDomain::kHoleGfn));
    EXPECT_TRUE(map_of().is_mapped(kPageA));  // a grant frame's
    EXPECT_EQ(add_frame(kStatus, kPageB), kInval);
    go_to_version(2);
    EXPECT_EQ(add_frame(kStatus | 1, kPageC), 0);
    EXPECT_EQ(add_frame(kStatus, kPageB), 0);
    EXPECT_EQ(guest.get<std::uint16_t>({address(kPageB) + 100}), 0);
}

// XSA-18, XSA-134: references out of range.
TEST_P(Grants, Xsa134Swap) {
    for (const std::uint32_t version : {1u, 2u}) {
        go_to_version(version);
        give(20, 0x111, 5, kPermit);
        give(21, 0x222, 6, kPermit | GTF_readonly);
        EXPECT_EQ(swap(20, 21), GNTST_okay);
        if (version == 1) {
            EXPECT_EQ(v1(20)->frame, 0x222u);
            EXPECT_EQ(v1(20)->flags, kPermit | GTF_readonly);
            EXPECT_EQ(v1(21)->domid, 5);
        } else {
            EXPECT_EQ(v2(20)->frame, 0x222u);
            EXPECT_EQ(v2(20)->domid, 6);
            EXPECT_EQ(v2(21)->frame, 0x111u);
        }
        EXPECT_EQ(swap(20, 20), GNTST_okay);
        const std::uint32_t entries = table().entries();
        for (const std::uint32_t bad : {entries, 0xffff'ffffu}) {
            EXPECT_EQ(swap(20, bad), GNTST_bad_gntref);
            EXPECT_EQ(swap(bad, 20), GNTST_bad_gntref);
            EXPECT_EQ(swap(bad, bad), GNTST_bad_gntref);
        }
        give(20, kPageA, kBackendDomain);
        const auto mapping = table().map(20, true);
        EXPECT_EQ(swap(20, 21), GNTST_eagain);
        EXPECT_EQ(swap(21, 20), GNTST_eagain);
        EXPECT_EQ(swap(20, 20), GNTST_okay);
        table().unmap(mapping);
        EXPECT_EQ(swap(21, 20), GNTST_okay);
    }
}

// XSA-284, XSA-232, XSA-24, XSA-382: refused before anything is looked at.
TEST_P(Grants, Xsa284WhatIsRefused) {
    const vmm::Gva arg = guest.put(std::array<std::uint64_t, 8>{});
    guest.access.forget();
    for (const auto op : {GNTTABOP_transfer, GNTTABOP_cache_flush, GNTTABOP_get_status_frames,
                          GNTTABOP_dump_table, GNTTABOP_unmap_and_replace}) {
        for (const std::uint64_t count : {0ull, 1ull, 100ull, 0xffff'ffffull}) {
            EXPECT_EQ(grant(op, arg, count), kNosys);
        }
    }
    EXPECT_TRUE(guest.access.reads.empty());
}

// XSA-316: no status is positive, whatever the argument. XSA-500: the guest rewrites entries all
// the time.
TEST_P(Grants, Xsa316RandomArgumentsOnRandomEntries) {
    std::mt19937_64 random(GetParam() == Width::k64 ? 316 : 32316);
    const auto some = [&](std::initializer_list<std::uint64_t> values) {
        return *(values.begin() + random() % values.size());
    };
    for (unsigned round = 0; round < 4000; ++round) {
        if (random() % 64 == 0) grant(GNTTABOP_set_version, guest.put<std::uint32_t>(random() % 4));
        const auto ref = static_cast<std::uint32_t>(some({8, 9, 20, 300, 511, 512, ~0u}));
        if (ref < 256) {
            give(ref, some({kPageA, kPageB, kPageC, TestDomain::kHoleGfn, 1ull << 60}),
                 static_cast<std::uint16_t>(some({kSelf, 0, DOMID_SELF, 1000})),
                 static_cast<std::uint16_t>(random() & 0x1ff));
        }
        const auto domid = [&] {
            return static_cast<std::uint16_t>(some({kSelf, 0, DOMID_SELF, 1000}));
        };
        switch (random() % 4) {
            case 0: {
                Copy op = copy_op(random() % 2 ? ref : kPageA, random() % 2 ? ref : kPageB,
                                  static_cast<std::uint16_t>(random() % 4), domid(), domid());
                op.source_offset = static_cast<std::uint16_t>(random() % 5000);
                op.len = static_cast<std::uint16_t>(random() % 5000);
                ASSERT_LE(copy(op), 0);
                break;
            }
            case 1:
                ASSERT_LE(map(ref, 0x7200 + random() % 40, static_cast<std::uint32_t>(random() % 8),
                              domid())
                              .status,
                          0);
                break;
            case 2:
                ASSERT_LE(unmap(static_cast<std::uint32_t>(random() % 300),
                                address(0x7200 + random() % 40)),
                          0);
                break;
            default: ASSERT_LE(swap(ref, static_cast<std::uint32_t>(random() % 600)), 0);
        }
        if (random() % 8 == 0) map_of().populate(some({kPageA, kPageB, kPageC}));
        ASSERT_LE(map_of().accounts().current, map_of().accounts().maximum);
    }
}

// ---- others at the same time --------------------------------------------------------------------

// Every use is of one state that the entry really had. Pages 0x7400+n
// are granted with the domid of an even n only, and hold n.
TEST_P(Grants, AnEntryThatIsRewrittenIsSeenInOneState) {
    for (const std::uint32_t version : {1u, 2u}) {
        go_to_version(version);
        constexpr std::uint64_t kFirst = 0x7400;
        for (std::uint64_t n = 0; n < 16; ++n) {
            fill(kFirst + n, static_cast<std::uint8_t>(n));
        }
        std::atomic<bool> stop{false};
        std::thread writer([&] {
            // The state changes whole: version 1 by its one word, version 2 by taking the entry
            // away first, as a guest has to.
            for (std::uint64_t n = 0; !stop; n = (n + 1) % 16) {
                const std::uint16_t domid = n % 2 == 0 ? kBackendDomain : kSelf;
                if (version == 1) {
                    const grant_entry_v1 next{kPermit, domid,
                                              static_cast<std::uint32_t>(kFirst + n)};
                    std::uint64_t raw = 0;
                    std::memcpy(&raw, &next, sizeof raw);
                    std::atomic_ref(*reinterpret_cast<std::uint64_t*>(v1(20))).store(raw);
                } else {
                    auto* words = reinterpret_cast<std::uint64_t*>(v2(20));
                    std::atomic_ref(words[0]).store(0);
                    std::atomic_ref(words[1]).store(kFirst + n);
                    const grant_entry_v2 next{kPermit, domid, 0, 0, 0};
                    std::uint64_t raw = 0;
                    std::memcpy(&raw, &next, sizeof raw);
                    std::atomic_ref(words[0]).store(raw);
                }
                for (unsigned i = 0; i < 200 && !stop; ++i) {
                    __builtin_ia32_pause();  // or no state would last for a look at it
                }
            }
        });
        unsigned seen = 0;
        // The other thread may be late, and most looks find the entry on its way.
        for (unsigned i = 0; i < 50'000'000 && seen < 500; ++i) {
            std::array<std::byte, 8> some{};
            const GrantStatus got = table().copy_from(20, 0, some);
            if (got == GNTST_okay && version == 1) {
                // With version 2 the guest may hand the entry on before it looks at the status.
                EXPECT_EQ(std::to_integer<unsigned>(some[0]) % 2, 0u);
            }
            seen += got == GNTST_okay;
            EXPECT_TRUE(got == GNTST_okay || got == GNTST_general_error) << got;
        }
        stop = true;
        writer.join();
        EXPECT_EQ(seen, 500u);
        EXPECT_EQ(swap(20, 21), GNTST_okay);  // nothing is left in use
    }
}

// XSA-228, XSA-411: uses by several threads in opposite orders, swaps and changes of version
// between them. Nothing waits for ever, and nothing is left in use.
TEST_P(Grants, Xsa228UsesOfSeveralThreads) {
    give(8, kPageA);
    give(9, kPageB);
    give(10, kPageC, kBackendDomain);
    std::atomic<bool> stop{false};
    const auto slow_copier = [&](std::uint32_t from, std::uint32_t to) {
        while (!stop) {
            GrantTable::Held source, dest;
            if (table().hold_for_copy(kSelf, from, true, &source) != GNTST_okay) continue;
            if (table().hold_for_copy(kSelf, to, false, &dest) == GNTST_okay) {
                table().release(dest);
            }
            table().release(source);
            std::this_thread::yield();
        }
    };
    const auto copier = [&](std::uint32_t from, std::uint32_t to) {
        Vcpu vcpu(guest);
        std::vector<Copy> list;
        constexpr std::uint16_t kBoth = GNTCOPY_source_gref | GNTCOPY_dest_gref;
        for (unsigned i = 0; i < 70; ++i) {
            list.push_back(i % 2 == 0 ? copy_op(from, to, kBoth)
                                      : copy_op(i, kPageC, GNTCOPY_source_gref));
        }
        while (!stop) {
            EXPECT_EQ(vcpu.copy(list), 0);
            std::this_thread::yield();
        }
    };
    std::thread one(slow_copier, 8, 9), other(copier, 9, 8), third(copier, 8, 9);
    std::thread backend([&] {
        while (!stop) {
            const auto mapping = table().map(10, true);
            table().unmap(mapping);
            std::this_thread::yield();
        }
    });
    unsigned swaps = 0, changes = 0;
    for (unsigned i = 0; i < 10'000'000 && (swaps < 20 || changes < 2); ++i) {
        const GrantStatus got = table().swap(8, 9);
        EXPECT_TRUE(got == GNTST_okay || got == GNTST_eagain);
        swaps += got == GNTST_okay;
        if (i % 16 == 0) changes += table().set_version(3 - table().version()).has_value();
        std::this_thread::yield();
    }
    stop = true;
    one.join();
    other.join();
    third.join();
    backend.join();
    EXPECT_GE(swaps, 20u);
    EXPECT_GE(changes, 2u);
    EXPECT_TRUE(table().set_version(2).has_value());
    EXPECT_TRUE(table().set_version(1).has_value());
}

// Whoever has ended an entry, and not found it in use, has its page for itself: neither does a copy
// under way still write there, nor does one that had looked at the entry before.
TEST_P(Grants, AnEndedEntryIsNotCopiedThrough) {
    for (const std::uint32_t version : {1u, 2u}) {
        go_to_version(version);
        fill(kPageA, 0x11);
        std::atomic<bool> stop{false};
        const auto copier = [&] {
            Vcpu vcpu(guest);
            const std::vector<Copy> list(20, copy_op(kPageA, 20, GNTCOPY_dest_gref));
            while (!stop) {
                EXPECT_EQ(vcpu.copy(list), 0);
            }
        };
        std::thread one(copier), other(copier);
        auto* const page =
            reinterpret_cast<volatile std::uint64_t*>(guest.ports.memory.page(kPageB));
        const std::atomic_ref flags(version == 1 ? v1(20)->flags : v2(20)->flags);
        const std::atomic_ref uses(
            reinterpret_cast<std::uint16_t*>(guest.ports.own_page(kFirstStatusPage))[20]);
        // Whole, for the copiers look at it.
        const auto offer_nothing = [&] {
            if (version == 1) {
                std::atomic_ref(*reinterpret_cast<std::uint64_t*>(v1(20)))
                    .store(kPageB << 32 | std::uint64_t{kSelf} << 16);
            } else {
                auto* words = reinterpret_cast<std::uint64_t*>(v2(20));
                std::atomic_ref(words[0]).store(std::uint64_t{kSelf} << 16);
                std::atomic_ref(words[1]).store(kPageB);
            }
        };
        unsigned found_in_use = 0, copied = 0;
        for (unsigned i = 0; i < 100'000 && (copied < 20 || found_in_use == 0); ++i) {
            offer_nothing();
            page[0] = 0x22;
            page[511] = 0x22;
            flags.store(kPermit);
            for (unsigned n = 0; n < 1000 && page[511] == 0x22; ++n) {
                std::this_thread::yield();
            }
            copied += page[511] != 0x22;
            // As Linux does it (gnttab_end_foreign_access_ref).
            for (;; ++found_in_use) {
                if (version == 1) {
                    std::uint16_t free = kPermit;
                    if (flags.compare_exchange_strong(free, 0)) break;
                } else if (flags.exchange(0); uses.load() == 0) {
                    break;
                }
            }
            page[0] = 0x33;
            page[511] = 0x33;
            for (unsigned n = 0; n < 3; ++n) {
                std::this_thread::yield();
                EXPECT_EQ(page[0], 0x33u);
                EXPECT_EQ(page[511], 0x33u);
            }
        }
        stop = true;
        one.join();
        other.join();
        EXPECT_GE(copied, 20u);
        EXPECT_GT(found_in_use, 0u);
        EXPECT_EQ(swap(20, 21), GNTST_okay);  // nothing is left in use
        EXPECT_EQ(version == 1 ? v1(21)->flags : status(21), 0);
    }
}

// XSA-73 and the race of a free with a use: pins against balloon.
TEST_P(Grants, Xsa73BallooningWhileABackendMaps) {
    give(10, kPageA, kBackendDomain);
    std::atomic<bool> stop{false};
    std::thread balloon([&] {
        while (!stop) {
            map_of().decrease(kPageA);
            map_of().populate(kPageA);
        }
    });
    unsigned mapped = 0;
    for (unsigned i = 0; i < 20'000; ++i) {
        const auto mapping = table().map(10, false);
        if (mapping.status == GNTST_okay) {
            // Nobody else writes there, and nobody may take it away.
            std::atomic_ref(*reinterpret_cast<std::uint32_t*>(mapping.page)).store(i + 1);
            EXPECT_EQ(std::atomic_ref(*reinterpret_cast<std::uint32_t*>(mapping.page)).load(),
                      i + 1);
            table().unmap(mapping);
            ++mapped;
        } else {
            EXPECT_EQ(mapping.status, GNTST_bad_page);
        }
    }
    stop = true;
    balloon.join();
    EXPECT_GT(mapped, 0u);
    map_of().decrease(kPageA);
    EXPECT_FALSE(guest.ports.ram_backed(kPageA));
}

}  // namespace
}  // namespace xenshim
