// HYPERVISOR_memory_op: the matrix and the sequences of xen-417-golden.md, E to E.3; what forced
// preemption may and may not change. What other releases do otherwise: memory_op_profiles_test.cc.
#include <algorithm>
#include <cstring>
#include <thread>

#include <gtest/gtest.h>

#include "tests/fakes/test_domain.h"
#include "xenshim/abi/other_numbers.h"

namespace xenshim {
namespace {

using namespace abi;
using fakes::BothWidths;
using fakes::FakePorts;
using fakes::TestDomain;

constexpr std::uint16_t kIo = 0x7ff1, kXen = 0x7ff2, kInvalid = 0x7ff4;
constexpr std::uint64_t kHole = TestDomain::kHoleGfn;
constexpr std::int64_t kMany = 1'000'000;  // stands for "a host's own figure"

vmm::Gva gfn_at(std::uint64_t gfn) {
    return {gfn << vmm::kPageShift};
}

class MemoryOp : public BothWidths {
  protected:
    struct Extents {
        std::vector<std::uint64_t> gfns;
        std::uint32_t order = 0;
        std::uint16_t domid = DOMID_SELF;
        std::uint32_t flags = 0;
    };
    static vmm::Gva reservation(TestDomain& d, const Extents& e) {
        const vmm::Gva list = d.put_words(e.gfns);
        return d.put_wide<xen_memory_reservation>({.extent_start = list.value,
                                                   .nr_extents = e.gfns.size(),
                                                   .extent_order = e.order,
                                                   .mem_flags = e.flags,
                                                   .domid = e.domid});
    }
    std::int64_t reserve(std::uint32_t op, const Extents& e, std::uint64_t start = 0) {
        return guest.result(HYPERVISOR_memory_op, (start << 6) | op, reservation(guest, e).value);
    }
    std::int64_t decrease(const Extents& e) { return reserve(XENMEM_decrease_reservation, e); }
    std::int64_t populate(const Extents& e) { return reserve(XENMEM_populate_physmap, e); }
    std::int64_t add(const xen_add_to_physmap<W64>& want, std::uint64_t start = 0) {
        return guest.result(HYPERVISOR_memory_op, (start << 6) | XENMEM_add_to_physmap,
                            guest.put_wide<xen_add_to_physmap>(want).value);
    }
    std::int64_t add(std::uint32_t space, std::uint64_t idx, std::uint64_t gpfn,
                     std::uint16_t domid = DOMID_SELF) {
        return add({.domid = domid, .size = 0, .space = space, .idx = idx, .gpfn = gpfn});
    }
    std::int64_t range(std::uint16_t size, std::uint64_t idx, std::uint64_t gpfn,
                       std::uint64_t start = 0) {
        return add({.domid = DOMID_SELF,
                    .size = size,
                    .space = XENMAPSPACE_gmfn_range,
                    .idx = idx,
                    .gpfn = gpfn},
                   start);
    }
    std::int64_t remove(std::uint64_t gpfn, std::uint16_t domid = DOMID_SELF) {
        return guest.result(
            HYPERVISOR_memory_op, XENMEM_remove_from_physmap,
            guest.put_wide<xen_remove_from_physmap>({.domid = domid, .gpfn = gpfn}).value);
    }
    std::int64_t account(std::uint32_t op, std::uint16_t domid = DOMID_SELF) {
        return guest.result(HYPERVISOR_memory_op, op, guest.put(domid).value);
    }
    std::int64_t current() { return account(XENMEM_current_reservation); }
};

XENOLITH_BOTH_WIDTHS(MemoryOp);

// ---- E: the matrix ------------------------------------------------------------------------------

struct Row {
    std::uint32_t op;
    std::int64_t self, null, unmapped, start1, start10000, bit31, bit32, io, xen, dom0, dom1000,
        own, invalid;
};

constexpr std::int64_t kFault = -XEN_EFAULT, kInval = -XEN_EINVAL, kNosys = -XEN_ENOSYS,
                       kSrch = -XEN_ESRCH, kPerm = -XEN_EPERM, kAccess = -XEN_EACCES,
                       kDom = -XEN_EDOM, kSeq = -XEN_EILSEQ, kNotSup = -XEN_EOPNOTSUPP;

constexpr Row all(std::uint32_t op, std::int64_t want) {
    return {op, want, want, want, want, want, want, want, want, want, want, want, want, want};
}

constexpr Row kMatrix[] = {
    {XENMEM_increase_reservation, 1, 0, 0, 1, 0x10000, 0x2000000, 0x4000000, 0, 0, 0, 0, 1, 0},
    {XENMEM_decrease_reservation, 0, 0, 0, 1, 0x10000, 0x2000000, 0x4000000, 0, 0, 0, 0, 0, 0},
    {XENMEM_maximum_ram_page, kMany, kMany, kMany, kInval, kInval, kInval, kInval, kMany, kMany,
     kMany, kMany, kMany, kMany},
    {XENMEM_current_reservation, 0x8011, kFault, kFault, kInval, kInval, kInval, kInval, kSrch,
     kSrch, kPerm, kSrch, 0x8011, kSrch},
    {XENMEM_maximum_reservation, 0x8100, kFault, kFault, kInval, kInval, kInval, kInval, kSrch,
     kSrch, kPerm, kSrch, 0x8100, kSrch},
    {XENMEM_machphys_mfn_list, kFault, kFault, kFault, kNosys, kNosys, kNosys, kNosys, kFault,
     kFault, 0, kFault, kFault, kFault},
    {XENMEM_populate_physmap, 1, 0, 0, 1, 0x10000, 0x2000000, 0x4000000, 0, 0, 0, 0, 1, 0},
    {XENMEM_add_to_physmap, 0, kFault, kFault, 0, kDom, kDom, kDom, kSrch, kSrch, kAccess, kSrch, 0,
     kSrch},
    all(XENMEM_translate_gpfn_list, kNosys),
    {XENMEM_memory_map, 0, kFault, kFault, kNosys, kNosys, kNosys, kNosys, 0, 0, 0, 0, 0, 0},
    all(XENMEM_machine_memory_map, kNosys),
    {XENMEM_exchange, 0, kFault, kFault, kInval, kInval, kInval, kInval, 0, 0, 0, 0, 0, 0},
    all(XENMEM_machphys_mapping, kNosys),
    // With more entries than there may be, which comes before whose map it is.
    {XENMEM_set_memory_map, kInval, kFault, kFault, kNosys, kNosys, kNosys, kNosys, kInval, kInval,
     kInval, kInval, kInval, kInval},
    {XENMEM_maximum_gpfn, 0xfefff, kFault, kFault, kInval, kInval, kInval, kInval, kSrch, kSrch,
     kPerm, kSrch, 0xfefff, kSrch},
    // Measured -ENOENT under "own id" because the gfn was gone by then; each cell is fresh here.
    {XENMEM_remove_from_physmap, 0, kFault, kFault, kInval, kInval, kInval, kInval, kSrch, kSrch,
     kAccess, kSrch, 0, kSrch},
    {XENMEM_set_pod_target, kPerm, kFault, kFault, kNosys, kNosys, kNosys, kNosys, kSrch, kSrch,
     kInval, kSrch, kPerm, kSrch},
    {XENMEM_get_pod_target, kPerm, kFault, kFault, kNosys, kNosys, kNosys, kNosys, kSrch, kSrch,
     kInval, kSrch, kPerm, kSrch},
    {XENMEM_get_sharing_freed_pages, 0, 0, 0, kNosys, kNosys, kNosys, kNosys, 0, 0, 0, 0, 0, 0},
    {XENMEM_get_sharing_shared_pages, 0, 0, 0, kNosys, kNosys, kNosys, kNosys, 0, 0, 0, 0, 0, 0},
    all(XENMEM_paging_op, kNosys),
    {XENMEM_access_op, kSrch, kFault, kFault, kSrch, kSrch, kSrch, kSrch, kSrch, kSrch, kInval,
     kSrch, kPerm, kSrch},
    all(XENMEM_sharing_op, kNosys),
    {XENMEM_add_to_physmap_batch, 0, kFault, kFault, kSeq, kDom, kDom, kDom, kSrch, kSrch, kAccess,
     kSrch, 0, kSrch},
    {XENMEM_claim_pages, kInval, kFault, kFault, kInval, kInval, kInval, kInval, kInval, kInval,
     kInval, kInval, kInval, kInval},
    {XENMEM_machphys_compat_mfn_list, kNotSup, kNotSup, kNotSup, kNosys, kNosys, kNosys, kNosys,
     kNotSup, kNotSup, kNotSup, kNotSup, kNotSup, kNotSup},
    {XENMEM_get_vnumainfo, kNotSup, kFault, kFault, kInval, kInval, kInval, kInval, kSrch, kSrch,
     kPerm, kSrch, kNotSup, kSrch},
    {XENMEM_reserved_device_memory_map, 0, kFault, kFault, kInval, kInval, kInval, kInval, 0, 0, 0,
     0, 0, 0},
    all(XENMEM_acquire_resource, kAccess),
    all(29, kNosys),
    all(30, kNosys),
    all(31, kNosys),
    all(32, kNosys),
    all(XENMEM_private_translate_gpfn_list, kNosys),
    all(XENMEM_private_release_mfn_list, kNosys),
    all(63, kNosys),
};

// The rows that a 32-bit caller sees otherwise.
constexpr Row kNarrowRows[] = {
    {XENMEM_machphys_mfn_list, kNotSup, kNotSup, kNotSup, kNosys, kNosys, kNosys, kNosys, kNotSup,
     kNotSup, kNotSup, kNotSup, kNotSup, kNotSup},
    all(XENMEM_claim_pages, kNosys),
    {XENMEM_acquire_resource, kAccess, kFault, kFault, kAccess, kAccess, kAccess, kAccess, kAccess,
     kAccess, kAccess, kAccess, kAccess, kAccess},
};

// A valid argument of sub-op `op`, for domain `domid`.
vmm::Gva valid_argument(TestDomain& d, std::uint32_t op, std::uint16_t domid) {
    switch (op) {
        case 0:
        case 1:
        case 6:
            return d.put_wide<xen_memory_reservation>({.extent_start = d.put_words({kHole}).value,
                                                       .nr_extents = 1,
                                                       .extent_order = 0,
                                                       .mem_flags = 0,
                                                       .domid = domid});
        case 7:
            return d.put_wide<xen_add_to_physmap>({.domid = domid,
                                                   .size = 0,
                                                   .space = XENMAPSPACE_shared_info,
                                                   .idx = 0,
                                                   .gpfn = kHole});
        case 9:
            return d.put_wide<xen_memory_map>(
                {.nr_entries = 5, .buffer = d.reserve(5 * sizeof(e820entry)).value});
        case 13: {  // {domid, map {nr_entries, buffer}}
            const vmm::Gva at = d.reserve(64);
            d.poke(at, domid);
            d.poke(at + d.word_bytes(), std::uint32_t{2000});
            return at;
        }
        case 15:
            return d.put_wide<xen_remove_from_physmap>(
                {.domid = domid, .gpfn = TestDomain::kRamGfn});
        case 16:
        case 17: return d.put_wide<xen_pod_target>({.pages = {}, .domid = domid});
        case 21:
            return d.put_wide<xen_mem_access_op>({.op = 1,
                                                  .access = 0,
                                                  .domid = domid,
                                                  .nr = 0,
                                                  .pfn = 0,
                                                  .pfn_list = 0,
                                                  .access_list = 0});
        case 23:
            return d.put_wide<xen_add_to_physmap_batch>({.domid = domid,
                                                         .space = XENMAPSPACE_shared_info,
                                                         .size = 1,
                                                         .u = 0,
                                                         .idxs = d.put_words({0}).value,
                                                         .gpfns = d.put_words({kHole}).value,
                                                         .errs = d.reserve(4).value});
        case 24:
            return d.put_wide<xen_memory_reservation>({.extent_start = d.put_words({kHole}).value,
                                                       .nr_extents = 1,
                                                       .extent_order = 0,
                                                       .mem_flags = 0,
                                                       .domid = domid});
        case 27: return d.reserve(64);  // which names no domain
        default: return d.put(domid);
    }
}

TEST_P(MemoryOp, EverySubOpAnswersAsMeasured) {
    const auto check = [&](const Row& row, const char* column, std::int64_t expected,
                           std::uint64_t command, std::uint16_t domid,
                           std::optional<std::uint64_t> pointer = std::nullopt) {
        const auto d = fresh();
        const std::uint64_t at = pointer ? *pointer : valid_argument(*d, row.op, domid).value;
        const std::int64_t got = d->result(HYPERVISOR_memory_op, command, at);
        if (expected == kMany) {
            EXPECT_GT(got, 0) << "op " << row.op << ", " << column;
        } else {
            EXPECT_EQ(got, expected) << "op " << row.op << ", " << column;
        }
    };
    for (const Row& wide : kMatrix) {
        const Row* narrow = std::find_if(std::begin(kNarrowRows), std::end(kNarrowRows),
                                         [&](const Row& row) { return row.op == wide.op; });
        const bool differs = GetParam() == Width::k32 && narrow != std::end(kNarrowRows);
        const Row& r = differs ? *narrow : wide;
        check(r, "self", r.self, r.op, DOMID_SELF);
        check(r, "NULL", r.null, r.op, DOMID_SELF, 0);
        check(r, "unmapped", r.unmapped, r.op, DOMID_SELF, TestDomain::kUnmapped);
        check(r, "start 1", r.start1, r.op | (1u << 6), DOMID_SELF);
        check(r, "start 0x10000", r.start10000, r.op | (0x10000u << 6), DOMID_SELF);
        check(r, "bit 31", r.bit31, r.op | (1u << 31), DOMID_SELF);
        // A 32-bit caller's register has no bit 32.
        check(r, "bit 32", GetParam() == Width::k64 ? r.bit32 : r.self,
              r.op | (std::uint64_t{1} << 32), DOMID_SELF);
        check(r, "DOMID_IO", r.io, r.op, kIo);
        check(r, "DOMID_XEN", r.xen, r.op, kXen);
        check(r, "dom 0", r.dom0, r.op, 0);
        check(r, "dom 1000", r.dom1000, r.op, 1000);
        check(r, "own id", r.own, r.op, TestDomain::kDomid);
        check(r, "INVALID", r.invalid, r.op, kInvalid);
    }
}

// ---- E.2: reservations, in the order measured ---------------------------------------------------

TEST_P(MemoryOp, ReservationsAsMeasured) {
    EXPECT_EQ(current(), 0x8011);
    EXPECT_EQ(account(XENMEM_maximum_reservation), 0x8100);
    EXPECT_EQ(account(XENMEM_maximum_gpfn), 0xfefff);
    EXPECT_EQ(decrease({.gfns = {kHole}}), 0);
    EXPECT_EQ(populate({.gfns = {kHole}}), 1);
    EXPECT_EQ(current(), 0x8012);
    EXPECT_EQ(account(XENMEM_maximum_gpfn), 0xfefff);
    EXPECT_EQ(decrease({.gfns = {0x7100, 0x7101, 0x7100, 0x7102}}), 2);
    EXPECT_EQ(current(), 0x8010);
    EXPECT_EQ(populate({.gfns = {0x7100, 0x7101, 0x7fff8}}), 3);
    EXPECT_EQ(current(), 0x8013);
    EXPECT_EQ(decrease({.gfns = {kHole}}), 1);
    guest.poke(gfn_at(0x7103), std::uint64_t{0x1234});
    EXPECT_EQ(populate({.gfns = {0x7103}}), 1);
    EXPECT_EQ(guest.get<std::uint64_t>(gfn_at(0x7103)), 0u);
    // Xen leaves the frame that was replaced on the domain's account for ever.
    EXPECT_EQ(current(), 0x8013);

    EXPECT_EQ(decrease({.gfns = {0x7200}, .order = 9}), 1);
    EXPECT_EQ(current(), 0x8013 - 512);
    EXPECT_EQ(populate({.gfns = {0x7200}, .order = 9}), 1);
    EXPECT_EQ(decrease({.gfns = {0x7201}, .order = 9}), 1);
    EXPECT_EQ(populate({.gfns = {0x7201}, .order = 9}), 1);
    EXPECT_EQ(current(), 0x8013);
    for (const std::uint32_t order : {10u, 19u, 64u, ~0u}) {
        EXPECT_EQ(populate({.gfns = {0x7200}, .order = order}), 0) << order;
        EXPECT_EQ(decrease({.gfns = {0x7200}, .order = order}), 0) << order;
    }
    EXPECT_EQ(decrease({.gfns = {}}), 0);
    for (const std::uint16_t domid :
         std::initializer_list<std::uint16_t>{0, 1000, kIo, kXen, kInvalid}) {
        EXPECT_EQ(decrease({.gfns = {0x7300}, .domid = domid}), 0) << domid;
    }
    EXPECT_EQ(populate({.gfns = {kHole}, .flags = XENMEMF_populate_on_demand}), 0);
    EXPECT_EQ(populate({.gfns = {kHole}, .flags = 1u << 17}), 1);
    EXPECT_EQ(populate({.gfns = {kHole}, .flags = 1u << 31}), 1);
    EXPECT_EQ(populate({.gfns = {kHole}, .flags = 1u << 18}), 1);
    EXPECT_EQ(decrease({.gfns = {kHole}}), 1);
    EXPECT_EQ(populate({.gfns = {kHole}, .flags = 20}), 0);
    EXPECT_EQ(reserve(XENMEM_increase_reservation, {.gfns = {kHole}}), 1);
    EXPECT_EQ(current(), 0x8016);
}

TEST_P(MemoryOp, IncreaseNamesNoPlaceAndLeavesTheList) {
    const vmm::Gva at = reservation(guest, {.gfns = {kHole}});
    EXPECT_EQ(guest.result(HYPERVISOR_memory_op, XENMEM_increase_reservation, at.value), 1);
    const auto after = guest.get_wide<xen_memory_reservation>(at);
    EXPECT_EQ(guest.get_word({after.extent_start}, 0), kHole);
    EXPECT_EQ(current(), 0x8012);
    EXPECT_FALSE(guest.domain.physmap().is_mapped(kHole));
}

TEST_P(MemoryOp, ListsThatCannotBeReadStopTheCount) {
    const auto with_list = [&](std::uint32_t op, std::uint64_t list, std::uint64_t nr,
                               std::uint64_t start = 0) {
        return guest.result(HYPERVISOR_memory_op, (start << 6) | op,
                            guest
                                .put_wide<xen_memory_reservation>({.extent_start = list,
                                                                   .nr_extents = nr,
                                                                   .extent_order = 0,
                                                                   .mem_flags = 0,
                                                                   .domid = DOMID_SELF})
                                .value);
    };
    for (const std::uint32_t op : {XENMEM_decrease_reservation, XENMEM_populate_physmap}) {
        EXPECT_EQ(with_list(op, 0, 1), 0);
        EXPECT_EQ(with_list(op, TestDomain::kUnmapped, 1), 0);
        EXPECT_EQ(with_list(op, TestDomain::kUnmapped, 5, 3), 3);
    }
    // The list ends at a page that is not there: what came before is done.
    const std::uint64_t edge = TestDomain::kUnmapped;
    const std::uint64_t below = edge - 2 * guest.word_bytes();
    ASSERT_EQ(populate({.gfns = {below >> vmm::kPageShift}}), 1);
    for (unsigned i = 0; i < 2; ++i) {
        if (guest.wide()) {
            guest.poke(vmm::Gva{below + i * 8}, std::uint64_t{0x7400 + i});
        } else {
            guest.poke(vmm::Gva{below + i * 4}, std::uint32_t{0x7400 + i});
        }
    }
    EXPECT_EQ(with_list(XENMEM_decrease_reservation, below, 5), 2);
    EXPECT_FALSE(guest.domain.physmap().is_mapped(0x7401));
}

TEST_P(MemoryOp, CountsAndCursorsBeyondTheEncodingAreRefusedAtTheStart) {
    const auto with = [&](std::uint64_t nr, std::uint64_t start) {
        const vmm::Gva list = guest.put_words({0x7500, 0x7501});
        return guest.result(HYPERVISOR_memory_op, (start << 6) | XENMEM_decrease_reservation,
                            guest
                                .put_wide<xen_memory_reservation>({.extent_start = list.value,
                                                                   .nr_extents = nr,
                                                                   .extent_order = 0,
                                                                   .mem_flags = 0,
                                                                   .domid = DOMID_SELF})
                                .value);
    };
    EXPECT_EQ(with(0x0400'0000, 0), 0);
    EXPECT_EQ(with(0xffff'ffff, 0), 0);
    EXPECT_EQ(with(0xffff'ffff, 1), 1);
    EXPECT_EQ(with(1, 1), 1);
    EXPECT_EQ(with(1, 5), 5);
    EXPECT_EQ(with(1, 0x3ff'ffff), 0x3ff'ffff);
    EXPECT_EQ(current(), 0x8011);
    // A cursor that the guest typed itself skips what comes before it, as on Xen.
    EXPECT_EQ(with(2, 1), 2);
    EXPECT_TRUE(guest.domain.physmap().is_mapped(0x7500));
    EXPECT_FALSE(guest.domain.physmap().is_mapped(0x7501));
}

TEST_P(MemoryOp, AnExtentThatFailsMidwayStopsAtItsNumber) {
    ASSERT_EQ(decrease({.gfns = {0x7205}}), 1);
    EXPECT_EQ(decrease({.gfns = {0x7210, 0x7200}, .order = 3}), 1);
    // Pages before the hole in the second extent are gone, as on Xen.
    EXPECT_FALSE(guest.domain.physmap().is_mapped(0x7204));
    EXPECT_TRUE(guest.domain.physmap().is_mapped(0x7206));
}

TEST_P(MemoryOp, ExtentsThatWrapAreRefused) {
    guest.ports.limit_gfn = std::uint64_t{1} << 28;  // so that a 32-bit ~0 is out of reach too
    EXPECT_EQ(decrease({.gfns = {~std::uint64_t{0}}, .order = 1}), 0);
    // Zero-extended, a 32-bit caller's does not even end at the last gfn.
    EXPECT_EQ(populate({.gfns = {~std::uint64_t{0} - 7}, .order = 3}), guest.wide() ? 0 : 1);
    EXPECT_EQ(current(), guest.wide() ? 0x8011 : 0x8019);
}

// ---- E.2, E.3: places ---------------------------------------------------------------------------

TEST_P(MemoryOp, AddToPhysmapAsMeasured) {
    EXPECT_EQ(add(XENMAPSPACE_shared_info, 1, kHole), kInval);
    EXPECT_EQ(add(XENMAPSPACE_shared_info, 0, kHole), 0);
    EXPECT_EQ(current(), 0x8011);
    EXPECT_EQ(add(XENMAPSPACE_shared_info, 0, 0x7010), 0);
    EXPECT_EQ(current(), 0x8010);
    EXPECT_EQ(decrease({.gfns = {kHole}}), 0);
    EXPECT_EQ(decrease({.gfns = {0x7010}}), 1);
    EXPECT_EQ(current(), 0x8010);
    EXPECT_EQ(add(XENMAPSPACE_grant_table, 0, 0x7011), 0);
    EXPECT_EQ(add(XENMAPSPACE_grant_table, 1, 0x7012), 0);
    EXPECT_EQ(add(XENMAPSPACE_grant_table, 63, 0x7013), 0);
    EXPECT_EQ(add(XENMAPSPACE_grant_table, 64, 0x7014), kInval);
    EXPECT_EQ(add(XENMAPSPACE_grant_table, 0x8000'0000, 0x7014), kInval);
    EXPECT_EQ(add(XENMAPSPACE_gmfn, 0x7015, 0x7016), 0);
    EXPECT_EQ(add(XENMAPSPACE_gmfn, kHole, 0x7016), kInval);
    EXPECT_EQ(add(XENMAPSPACE_gmfn, 0x7016, 0x7016), 0);
    EXPECT_EQ(add(XENMAPSPACE_gmfn_foreign, 0, 0x7017), kNosys);
    EXPECT_EQ(add(XENMAPSPACE_gmfn_foreign, 0, 0x7017, 1000), kNosys);
    EXPECT_EQ(add(XENMAPSPACE_dev_mmio, 0, 0x7017), kAccess);
    for (const std::uint32_t space : {6u, 0x8000'0000u, 0x8000'0001u, ~0u}) {
        EXPECT_EQ(add(space, 0, 0x7017), kInval) << space;
    }
    EXPECT_EQ(add(XENMAPSPACE_shared_info, 0, 0x7017, 0), kAccess);
    EXPECT_EQ(add(XENMAPSPACE_shared_info, 0, 0x7017, 1000), kSrch);
    EXPECT_EQ(add(XENMAPSPACE_shared_info, 0, 0x7017, kIo), kSrch);
    EXPECT_EQ(add(XENMAPSPACE_shared_info, 0, 0x7017, TestDomain::kDomid), 0);
    EXPECT_EQ(add(XENMAPSPACE_shared_info, 0, 0xfee00), 0);
    EXPECT_EQ(add(XENMAPSPACE_shared_info, 0, 0xfefff), 0);
    EXPECT_EQ(add(XENMAPSPACE_shared_info, 0, 0x7017), 0);
}

TEST_P(MemoryOp, GfnsOutsideTheAddressSpace) {
    if (guest.wide()) {
        EXPECT_EQ(add(XENMAPSPACE_shared_info, 0, ~std::uint64_t{0}), kInval);
        EXPECT_EQ(add(XENMAPSPACE_shared_info, 0, std::uint64_t{1} << 40), -XEN_ENOENT);
        EXPECT_EQ(remove(~std::uint64_t{0}), -XEN_ENOENT);
    } else {
        // Zero-extended, it is a gfn like any other, also where the CPU cannot address it.
        guest.ports.limit_gfn = std::uint64_t{1} << 28;
        EXPECT_EQ(add(XENMAPSPACE_shared_info, 0, 0xffff'ffff), 0);
        EXPECT_EQ(guest.ports.pool_used(), 0u);
        EXPECT_EQ(account(XENMEM_maximum_gpfn), 0xffff'ffff);
        EXPECT_EQ(remove(0xffff'ffff), 0);
    }
}

TEST_P(MemoryOp, RangesAsMeasured) {
    EXPECT_EQ(range(2, 0x7020, 0x7030), 0);
    EXPECT_EQ(range(0, 0x7020, 0x7030), 0);
    EXPECT_EQ(range(2, 0x7020, 0x7030), kInval);  // the sources are holes now
    // A 32-bit caller's numbers are zero-extended, and wrap nowhere.
    const std::uint64_t top = guest.wide() ? ~std::uint64_t{0} - 1 : 0xffff'fffe;
    EXPECT_EQ(range(4, 0x7040, top), guest.wide() ? -XEN_EOVERFLOW : 0);
    EXPECT_EQ(guest.domain.physmap().has_ram(0x1'0000'0001), !guest.wide());
    EXPECT_EQ(range(4, top, 0x7040), guest.wide() ? -XEN_EOVERFLOW : 0);
    EXPECT_FALSE(guest.domain.physmap().has_ram(0x1'0000'0001));
    EXPECT_EQ(range(3, 0x7040, 0x7050, 0x10000), kDom);
    EXPECT_EQ(range(3, 0x7040, 0x7050, 4), -XEN_EILSEQ);
    EXPECT_EQ(range(3, 0x7040, 0x7050, 3), 0);
    EXPECT_TRUE(guest.domain.physmap().has_ram(0x7042));
    EXPECT_EQ(range(3, 0x7040, 0x7050, 1), 0);
    EXPECT_TRUE(guest.domain.physmap().has_ram(0x7040));
    EXPECT_FALSE(guest.domain.physmap().has_ram(0x7041));
    EXPECT_FALSE(guest.domain.physmap().has_ram(0x7042));
    // A cursor on a space that has none is not looked at.
    EXPECT_EQ(add({.domid = DOMID_SELF,
                   .size = 0,
                   .space = XENMAPSPACE_shared_info,
                   .idx = 0,
                   .gpfn = 0x7060},
                  1),
              0);
}

TEST_P(MemoryOp, RemovingAsMeasured) {
    EXPECT_EQ(remove(kHole), -XEN_ENOENT);
    EXPECT_EQ(remove(0x7110), 0);
    EXPECT_EQ(current(), 0x8011);  // out of the map, and still the domain's
    EXPECT_EQ(remove(0x7110), -XEN_ENOENT);
    EXPECT_EQ(remove(0x7111, 0), kAccess);
    EXPECT_EQ(remove(0x7111, 1000), kSrch);
    ASSERT_EQ(add(XENMAPSPACE_grant_table, 0, 0x7112), 0);
    EXPECT_EQ(remove(0x7112), 0);
    // Removed, not given back: the frame may be placed again.
    EXPECT_EQ(add(XENMAPSPACE_grant_table, 0, 0x7112), 0);
    EXPECT_EQ(decrease({.gfns = {0x7112}}), 1);
    EXPECT_EQ(add(XENMAPSPACE_grant_table, 0, 0x7114), -XEN_EBUSY);
}

// E.3, step by step, in a fresh domain.
TEST_P(MemoryOp, SharedInfoAndAGrantFrameInTheOrderMeasured) {
    constexpr std::uint32_t kShared = XENMAPSPACE_shared_info, kGrant = XENMAPSPACE_grant_table;
    EXPECT_EQ(current(), 0x8011);
    EXPECT_EQ(add(kShared, 0, 0x7010), 0);
    EXPECT_EQ(current(), 0x8010);
    EXPECT_EQ(add(kShared, 0, 0x7011), 0);
    EXPECT_EQ(current(), 0x800f);
    EXPECT_EQ(remove(0x7010), -XEN_ENOENT);
    EXPECT_EQ(remove(0x7011), 0);
    EXPECT_EQ(remove(0x7011), -XEN_ENOENT);
    EXPECT_EQ(current(), 0x800f);
    EXPECT_EQ(add(kShared, 0, kHole), 0);
    EXPECT_EQ(current(), 0x800f);
    EXPECT_EQ(decrease({.gfns = {kHole}}), 1);
    EXPECT_EQ(decrease({.gfns = {kHole}}), 0);
    EXPECT_EQ(current(), 0x800f);
    EXPECT_EQ(add(kShared, 0, 0x7010), 0);
    EXPECT_EQ(populate({.gfns = {0x7010}}), 1);
    EXPECT_EQ(current(), 0x8010);
    EXPECT_EQ(add(kGrant, 0, 0x7012), 0);
    EXPECT_EQ(add(kGrant, 0, 0x7013), 0);
    EXPECT_EQ(remove(0x7012), -XEN_ENOENT);
    EXPECT_EQ(current(), 0x800e);
    EXPECT_EQ(decrease({.gfns = {0x7013}}), 1);
    EXPECT_EQ(current(), 0x800e);
    EXPECT_EQ(add(kGrant, 0, 0x7014), -XEN_EBUSY);
    EXPECT_EQ(decrease({.gfns = {0x7015}}), 1);
}

// The machine feeds clocks and events by what it was told of shared_info's place: it must hear of
// each way in which the page can leave it, or it writes into what the guest has there next.
TEST_P(MemoryOp, TheMachineHearsWhereSharedInfoIs) {
    const auto place = [&](std::uint64_t gfn) {
        ASSERT_EQ(add(XENMAPSPACE_shared_info, 0, gfn), 0);
        ASSERT_FALSE(guest.ports.shared_info_places.empty());
        ASSERT_EQ(guest.ports.shared_info_places.back(), gfn);
    };
    place(0x7010);
    place(0x7011);
    EXPECT_EQ(remove(0x7011), 0);
    EXPECT_EQ(guest.ports.shared_info_places.back(), kNoGfn);
    // Removing something else says nothing.
    place(0x7010);
    const auto told = guest.ports.shared_info_places.size();
    EXPECT_EQ(remove(0x7020), 0);
    EXPECT_EQ(guest.ports.shared_info_places.size(), told);
}

TEST_P(MemoryOp, TheMachineHearsThatSharedInfoWasGivenBack) {
    ASSERT_EQ(add(XENMAPSPACE_shared_info, 0, 0x7010), 0);
    ASSERT_EQ(decrease({.gfns = {0x7010}}), 1);
    EXPECT_EQ(guest.ports.shared_info_places.back(), kNoGfn);
}

TEST_P(MemoryOp, TheMachineHearsThatSharedInfoWasPopulatedOver) {
    ASSERT_EQ(add(XENMAPSPACE_shared_info, 0, 0x7010), 0);
    ASSERT_EQ(populate({.gfns = {0x7010}}), 1);
    EXPECT_EQ(guest.ports.shared_info_places.back(), kNoGfn);
}

TEST_P(MemoryOp, TheMachineHearsThatSomethingElseTookSharedInfosPlace) {
    ASSERT_EQ(add(XENMAPSPACE_shared_info, 0, 0x7010), 0);
    ASSERT_EQ(add(XENMAPSPACE_gmfn, 0x7020, 0x7010), 0);
    EXPECT_EQ(guest.ports.shared_info_places.back(), kNoGfn);
    ASSERT_EQ(add(XENMAPSPACE_shared_info, 0, 0x7011), 0);
    ASSERT_EQ(add(XENMAPSPACE_grant_table, 0, 0x7011), 0);
    EXPECT_EQ(guest.ports.shared_info_places.back(), kNoGfn);
}

// ---- A: the memory map
// ----------------------------------------------------------------------------

TEST_P(MemoryOp, TheMachineHearsThatAGrantTookSharedInfosPlace) {
    ASSERT_EQ(add(XENMAPSPACE_shared_info, 0, 0x7010), 0);
    const grant_entry_v1 entry{GTF_permit_access, TestDomain::kDomid, 0x7020};
    std::memcpy(guest.ports.own_page(kFirstGrantPage) + 20 * sizeof entry, &entry, sizeof entry);
    const vmm::Gva at = guest.put(gnttab_map_grant_ref{.host_addr = 0x7010 << vmm::kPageShift,
                                                       .flags = GNTMAP_host_map,
                                                       .ref = 20,
                                                       .dom = TestDomain::kDomid,
                                                       .status = 99,
                                                       .handle = 0,
                                                       .dev_bus_addr = 0});
    EXPECT_EQ(guest.result(HYPERVISOR_grant_table_op, GNTTABOP_map_grant_ref, at.value, 1), 0);
    EXPECT_EQ(guest.get<gnttab_map_grant_ref>(at).status, GNTST_okay);
    EXPECT_EQ(guest.domain.physmap().gfn_of_own(kSharedInfoPage), kNoGfn);
    EXPECT_EQ(guest.ports.shared_info_places.back(), kNoGfn);
}

// Two vCPUs move it at the same time: what the machine hears last is where it is.
TEST_P(MemoryOp, TheMachineHearsOfMovesInTheirOrder) {
    std::vector<vmm::Gva> arguments;
    for (std::uint64_t i = 0; i < 4; ++i) {
        arguments.push_back(guest.put_wide<xen_add_to_physmap>({.domid = DOMID_SELF,
                                                                .size = 0,
                                                                .space = XENMAPSPACE_shared_info,
                                                                .idx = 0,
                                                                .gpfn = 0x7010 + i}));
    }
    const auto moves = [&](unsigned vcpu) {
        fakes::FakeAccess access(guest.ports.memory);
        Preemption preemption(guest.requests, {}, [] { return std::uint64_t{1}; });
        for (unsigned i = 0; i < 20; ++i) {
            const Request r{
                .number = HYPERVISOR_memory_op,
                .args = {XENMEM_add_to_physmap, arguments[vcpu * 2 + i % 2].value, 0, 0, 0},
                .width = guest.width()};
            EXPECT_EQ(guest.result_of(run_hypercall(guest.domain, access, preemption, vcpu, r)), 0);
        }
    };
    for (unsigned round = 0; round < 100; ++round) {
        std::thread other(moves, 1);
        moves(0);
        other.join();
        ASSERT_EQ(guest.ports.shared_info_places.back(),
                  guest.domain.physmap().gfn_of_own(kSharedInfoPage));
    }
}

TEST_P(MemoryOp, TheMemoryMapInTheOrderOfTheConfiguration) {
    const vmm::Gva buffer = guest.reserve(200);
    const vmm::Gva at = guest.put_wide<xen_memory_map>({.nr_entries = 128, .buffer = buffer.value});
    EXPECT_EQ(guest.result(HYPERVISOR_memory_op, XENMEM_memory_map, at.value), 0);
    EXPECT_EQ(guest.get_wide<xen_memory_map>(at).nr_entries, 5u);
    EXPECT_EQ(guest.get_wide<xen_memory_map>(at).buffer, buffer.value);
    const auto& map = guest.domain.config().memory_map;
    for (std::size_t i = 0; i < map.size(); ++i) {
        const auto entry = guest.get<e820entry>(buffer + i * 20);
        EXPECT_EQ(std::uint64_t{entry.addr}, map[i].base) << i;
        EXPECT_EQ(std::uint64_t{entry.size}, map[i].size) << i;
        EXPECT_EQ(entry.type, map[i].type) << i;
    }
    EXPECT_EQ(guest.get<std::uint8_t>(buffer + 100), 0);  // and nothing behind them
}

TEST_P(MemoryOp, AMemoryMapWithLittleRoom) {
    const vmm::Gva buffer = guest.reserve(200);
    for (const std::uint32_t room : {2u, 0u}) {
        guest.poke(buffer + room * 20, std::uint32_t{0x5555});
        const vmm::Gva at =
            guest.put_wide<xen_memory_map>({.nr_entries = room, .buffer = buffer.value});
        EXPECT_EQ(guest.result(HYPERVISOR_memory_op, XENMEM_memory_map, at.value), 0);
        EXPECT_EQ(guest.get_wide<xen_memory_map>(at).nr_entries, room);
        EXPECT_EQ(guest.get<std::uint32_t>(buffer + room * 20), 0x5555u);
    }
}

TEST_P(MemoryOp, AMemoryMapWithoutABufferLeavesItsNumber) {
    for (const std::uint64_t buffer : {std::uint64_t{0}, TestDomain::kUnmapped}) {
        const vmm::Gva at = guest.put_wide<xen_memory_map>({.nr_entries = 128, .buffer = buffer});
        EXPECT_EQ(guest.result(HYPERVISOR_memory_op, XENMEM_memory_map, at.value), kFault);
        EXPECT_EQ(guest.get_wide<xen_memory_map>(at).nr_entries, 128u);
    }
}

// ---- preemption
// -----------------------------------------------------------------------------------

struct Work {
    const char* name;
    std::uint32_t op;
    bool is_range;
    std::vector<std::uint64_t> gfns;
    std::uint32_t order;
};

const std::vector<Work>& works() {
    static const std::vector<Work> all = {
        {"decrease",
         XENMEM_decrease_reservation,
         false,
         {1000, 1002, 1001, 1010, 1011, 1012, 1013},
         0},
        {"decrease that stops", XENMEM_decrease_reservation, false, {1000, 1002, 1000, 1003}, 0},
        {"decrease in 8s", XENMEM_decrease_reservation, false, {1024, 1040, 1048, 1056}, 3},
        {"populate", XENMEM_populate_physmap, false, {0x40000, 0x40002, 5, 0x40001, 0x40003, 7}, 0},
        {"increase", XENMEM_increase_reservation, false, {1, 2, 3, 4, 5}, 0},
        {"one", XENMEM_decrease_reservation, false, {1000}, 0},
        {"range", XENMEM_add_to_physmap, true, {2000, 2001, 2002, 2003, 2004, 2005, 2006}, 0},
    };
    return all;
}

Request request_for(TestDomain& d, const Work& w) {
    if (w.is_range) {
        for (std::size_t i = 0; i < w.gfns.size(); ++i) {
            d.poke(gfn_at(w.gfns[i]), std::uint64_t{0xabc0} + i);
        }
        const vmm::Gva at =
            d.put_wide<xen_add_to_physmap>({.domid = DOMID_SELF,
                                            .size = static_cast<std::uint16_t>(w.gfns.size()),
                                            .space = XENMAPSPACE_gmfn_range,
                                            .idx = w.gfns.front(),
                                            .gpfn = 3000});
        return d.request(HYPERVISOR_memory_op, {w.op, at.value, 0x33, 0x44, 0x55});
    }
    const vmm::Gva at =
        d.put_wide<xen_memory_reservation>({.extent_start = d.put_words(w.gfns).value,
                                            .nr_extents = w.gfns.size(),
                                            .extent_order = w.order,
                                            .mem_flags = 0,
                                            .domid = DOMID_SELF});
    return d.request(HYPERVISOR_memory_op, {w.op, at.value, 0x33, 0x44, 0x55});
}

// Everything that the guest can see of its memory map.
std::vector<std::uint64_t> picture(TestDomain& d) {
    std::vector<std::uint64_t> out = {d.domain.physmap().accounts().current,
                                      d.domain.physmap().accounts().highest_gfn};
    for (const std::uint64_t base : {0ull, 900ull, 1900ull, 2900ull, 0x40000ull}) {
        for (std::uint64_t gfn = base; gfn < base + 200; ++gfn) {
            const bool mapped = d.domain.physmap().is_mapped(gfn);
            out.push_back(mapped ? 1 : 0);
            if (mapped && base == 2900) out.push_back(d.get<std::uint64_t>(gfn_at(gfn)));
        }
    }
    return out;
}

TEST_P(MemoryOp, ForcedPreemptionChangesNothingButTheNumberOfEntries) {
    for (const Work& w : works()) {
        const auto whole = fresh();
        const Request asked = request_for(*whole, w);
        const auto expected = whole->run(asked);
        ASSERT_TRUE(expected.stops.empty()) << w.name;
        const auto units = static_cast<std::uint64_t>(
            w.is_range ? static_cast<std::int64_t>(w.gfns.size()) : expected.result);
        for (std::uint32_t every = 1; every <= 5; ++every) {
            const auto d =
                fresh({.preempt = {.every = every, .at = {}, .after_us = 1'000'000'000}});
            const Request first = request_for(*d, w);
            ASSERT_EQ(first, asked);
            const auto argument = d->bytes({first.args[1]}, 32);
            const auto run = d->run(first);
            EXPECT_EQ(run.result, expected.result) << w.name << " every " << every;
            EXPECT_EQ(picture(*d), picture(*whole)) << w.name << " every " << every;
            EXPECT_EQ(d->bytes({first.args[1]}, 32), argument) << "the structure is the guest's";
            // Stops come after each `every` units, never before the first or after the last. One
            // that stops early because of an error may have had one more to do.
            const bool complete =
                w.is_range || expected.result == static_cast<std::int64_t>(w.gfns.size());
            const std::uint64_t most = complete ? (units - 1) / every : units / every;
            EXPECT_EQ(run.stops.size(), most) << w.name << " every " << every;
            std::uint64_t done = 0;
            for (const Reissue& stop : run.stops) {
                done += every;
                EXPECT_EQ(stop.number, std::uint64_t{HYPERVISOR_memory_op});
                EXPECT_EQ(stop.args[0], (done << 6) | w.op);
                for (unsigned i = 1; i < 5; ++i) {
                    EXPECT_EQ(stop.args[i], first.args[i]) << "argument " << i;
                }
                EXPECT_GT(done, 0u);
                EXPECT_LT(done, w.gfns.size());
            }
        }
    }
}

// What an extent costs is the freeing of its memory, and the time that an entry may take holds for
// that: here a page takes a microsecond and all else nothing.
TEST_P(MemoryOp, FreeingMemoryCountsForTheTimeOfAnEntry) {
    static const FakePorts* ports = nullptr;
    ports = &guest.ports;
    guest.preemption = Preemption(guest.requests, {.every = 0, .at = {}, .after_us = 100},
                                  [] { return 1 + 1000 * ports->pages_freed.load(); });
    struct Run {
        std::uint32_t order;
        std::uint64_t extents, step, most;
    };
    for (const Run& row : {Run{0, 2000, 1, 100 + 31}, Run{0, 1000, 2, 100 + 7},
                           Run{4, 100, 16, 100 + 32}, Run{9, 8, 512, 128 + 32}}) {
        std::vector<std::uint64_t> gfns;
        for (std::uint64_t i = 0; i < row.extents; ++i) {
            gfns.push_back(0x1000 + i * row.step);
        }
        const vmm::Gva at = guest.put_wide<xen_memory_reservation>({
            .extent_start = guest.put_words(gfns).value,
            .nr_extents = row.extents,
            .extent_order = row.order,
            .mem_flags = 0,
            .domid = DOMID_SELF,
        });
        std::uint64_t freed = guest.ports.pages_freed;
        const auto run = guest.run(
            guest.request(HYPERVISOR_memory_op, {XENMEM_decrease_reservation, at.value, 0, 0, 0}),
            [&](const Reissue&) {
                EXPECT_LE(guest.ports.pages_freed - freed, row.most) << row.order;
                freed = guest.ports.pages_freed;
            });
        EXPECT_EQ(run.result, static_cast<std::int64_t>(row.extents));
        EXPECT_GE(run.stops.size(), (row.extents << row.order) / row.most - 1) << row.order;
        for (const std::uint64_t gfn : gfns) {
            ASSERT_TRUE(guest.domain.physmap().populate(gfn, std::uint64_t{1} << row.order));
        }
    }
}

// An extent of 2 MiB is given back in one unit, and an event waits for a piece of its freeing only.
TEST_P(MemoryOp, AnExtentIsFreedInPiecesWhileTheVcpuIsWanted) {
    constexpr std::uint64_t kExtents = 3, kPages = 512, kFirst = 0x1000;
    std::vector<std::uint64_t> gfns;
    for (std::uint64_t i = 0; i < kExtents; ++i) {
        gfns.push_back(kFirst + i * kPages);
    }
    for (std::uint64_t gfn = kFirst; gfn < kFirst + kExtents * kPages; ++gfn) {
        guest.poke({gfn << vmm::kPageShift}, std::uint32_t{1});
    }
    const vmm::Gva at = guest.put_wide<xen_memory_reservation>({
        .extent_start = guest.put_words(gfns).value,
        .nr_extents = kExtents,
        .extent_order = 9,
        .mem_flags = 0,
        .domid = DOMID_SELF,
    });
    guest.requests = 1;
    std::uint64_t freed = guest.ports.pages_freed;
    const auto run = guest.run(
        guest.request(HYPERVISOR_memory_op, {XENMEM_decrease_reservation, at.value, 0, 0, 0}),
        [&](const Reissue&) {
            EXPECT_LE(guest.ports.pages_freed - freed, 32u);
            freed = guest.ports.pages_freed;
        });
    EXPECT_EQ(run.result, static_cast<std::int64_t>(kExtents));
    // None begins before all of the one before is freed, nor is the call over.
    EXPECT_EQ(run.stops.size(), kExtents * kPages / 32);
    Physmap& physmap = guest.domain.physmap();
    EXPECT_FALSE(physmap.owes());
    for (std::uint64_t gfn = kFirst; gfn < kFirst + kExtents * kPages; ++gfn) {
        EXPECT_FALSE(physmap.is_mapped(gfn));
        EXPECT_FALSE(guest.ports.ram_backed(gfn)) << gfn;
    }
}

// A vCPU that is always wanted elsewhere still gets one unit per entry.
TEST_P(MemoryOp, AlwaysWantedMeansOneUnitPerEntry) {
    guest.requests = 1;
    const auto run = guest.run(request_for(guest, works()[0]));
    EXPECT_EQ(run.result, 7);
    EXPECT_EQ(run.stops.size(), 6u);
}

TEST_P(MemoryOp, OtherSubOpsAreNeverPreempted) {
    const auto d = fresh({.preempt = {.every = 1, .at = {}, .after_us = 1'000'000'000}});
    d->requests = 1;
    for (const Row& r : kMatrix) {
        if (r.op == 0 || r.op == 1 || r.op == 6) continue;
        const auto reply =
            d->call(HYPERVISOR_memory_op, r.op, valid_argument(*d, r.op, DOMID_SELF).value);
        EXPECT_TRUE(std::holds_alternative<Finish>(reply)) << r.op;
    }
}

}  // namespace
}  // namespace xenshim
