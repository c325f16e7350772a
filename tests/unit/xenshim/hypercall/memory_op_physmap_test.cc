// memory_op's add_to_physmap_batch and ranges (xen-417-golden.md, E.2), and exchange, the memory
// map and the refusals beyond what the matrix of memory_op_test.cc asks.
#include <gtest/gtest.h>

#include "tests/fakes/test_domain.h"

namespace xenshim {
namespace {

using namespace abi;
using fakes::BothWidths;
using fakes::TestDomain;

constexpr std::uint16_t kIo = 0x7ff1;
constexpr std::uint64_t kHole = TestDomain::kHoleGfn;
constexpr std::int32_t kUntouched = 85;

constexpr std::int64_t kFault = -XEN_EFAULT, kInval = -XEN_EINVAL, kSrch = -XEN_ESRCH,
                       kPerm = -XEN_EPERM, kAccess = -XEN_EACCES, kNotSup = -XEN_EOPNOTSUPP;

vmm::Gva gfn_at(std::uint64_t gfn) {
    return {gfn << vmm::kPageShift};
}

class MemoryOpPhysmap : public BothWidths {
  protected:
    std::int64_t op(std::uint64_t command, vmm::Gva at) {
        return guest.result(HYPERVISOR_memory_op, command, at.value);
    }
    std::int64_t current() {
        return op(XENMEM_current_reservation, guest.put(std::uint16_t{DOMID_SELF}));
    }

    struct Batch {
        std::vector<std::uint64_t> idxs, gpfns;
        std::uint16_t space = XENMAPSPACE_grant_table;
        std::uint16_t domid = DOMID_SELF;
        std::uint16_t extra = 0;
    };
    struct Put {
        vmm::Gva at, errs;
    };
    static Put put_batch(TestDomain& d, const Batch& b) {
        const vmm::Gva errs = d.reserve(4 * b.idxs.size() + 4);
        for (std::size_t i = 0; i < b.idxs.size(); ++i) {
            d.poke(errs + 4 * i, kUntouched);
        }
        const vmm::Gva at =
            d.put_wide<xen_add_to_physmap_batch>({.domid = b.domid,
                                                  .space = b.space,
                                                  .size = static_cast<std::uint16_t>(b.idxs.size()),
                                                  .u = b.extra,
                                                  .idxs = d.put_words(b.idxs).value,
                                                  .gpfns = d.put_words(b.gpfns).value,
                                                  .errs = errs.value});
        return {at, errs};
    }
    static std::vector<std::int32_t> errs_of(TestDomain& d, vmm::Gva errs, std::size_t count) {
        std::vector<std::int32_t> out;
        for (std::size_t i = 0; i < count; ++i) {
            out.push_back(d.get<std::int32_t>(errs + 4 * i));
        }
        return out;
    }
    // The result, and then the entries' own.
    std::vector<std::int32_t> batch(const Batch& b, std::uint64_t start = 0) {
        const Put put = put_batch(guest, b);
        const auto result = op((start << 6) | XENMEM_add_to_physmap_batch, put.at);
        std::vector<std::int32_t> out = {static_cast<std::int32_t>(result)};
        const auto errs = errs_of(guest, put.errs, b.idxs.size());
        out.insert(out.end(), errs.begin(), errs.end());
        return out;
    }
    std::int64_t range(std::uint16_t size, std::uint64_t idx, std::uint64_t gpfn) {
        return op(XENMEM_add_to_physmap,
                  guest.put_wide<xen_add_to_physmap>({.domid = DOMID_SELF,
                                                      .size = size,
                                                      .space = XENMAPSPACE_gmfn_range,
                                                      .idx = idx,
                                                      .gpfn = gpfn}));
    }
};

XENOLITH_BOTH_WIDTHS(MemoryOpPhysmap);

using Codes = std::vector<std::int32_t>;
constexpr std::int32_t kU = kUntouched;

// ---- add_to_physmap_batch -----------------------------------------------------------------------

TEST_P(MemoryOpPhysmap, BatchAsMeasured) {
    const Batch grants = {.idxs = {0, 1, 64, 2}, .gpfns = {0x7020, 0x7021, 0x7022, 0x7023}};
    EXPECT_EQ(batch(grants), (Codes{0, 0, 0, -XEN_EINVAL, 0}));
    EXPECT_EQ(guest.domain.physmap().gfn_of_own(kFirstGrantPage + 2), 0x7023u);
    EXPECT_TRUE(guest.domain.physmap().has_ram(0x7022));
    EXPECT_EQ(batch(grants, 4), (Codes{-XEN_EILSEQ, kU, kU, kU, kU}));
    EXPECT_EQ(batch(grants, 5), (Codes{-XEN_EILSEQ, kU, kU, kU, kU}));
    EXPECT_EQ(batch(grants, 3), (Codes{0, kU, kU, kU, 0}));
    EXPECT_EQ(batch(grants, 0x10000), (Codes{-XEN_EDOM, kU, kU, kU, kU}));
    EXPECT_EQ(batch({.idxs = {}, .gpfns = {}}), (Codes{0}));

    const auto two = [&](std::uint16_t space, std::uint16_t extra = 0) {
        return batch(
            {.idxs = {0x7030, 0}, .gpfns = {0x7031, 0x7032}, .space = space, .extra = extra});
    };
    // XSA-22/32/148: no number of another's page gets as far as the map.
    EXPECT_EQ(two(XENMAPSPACE_gmfn_range), (Codes{-XEN_EOPNOTSUPP, kU, kU}));
    for (const std::uint16_t domid :
         {std::uint16_t{0}, std::uint16_t{DOMID_SELF}, std::uint16_t{1000}, kIo}) {
        EXPECT_EQ(two(XENMAPSPACE_gmfn_foreign, domid), (Codes{0, -XEN_EPERM, -XEN_EPERM}));
    }
    EXPECT_EQ(two(XENMAPSPACE_dev_mmio), (Codes{-XEN_EACCES, kU, kU}));
    EXPECT_EQ(two(XENMAPSPACE_dev_mmio, 1), (Codes{-XEN_EACCES, kU, kU}));
    EXPECT_EQ(two(6), (Codes{0, -XEN_EINVAL, -XEN_EINVAL}));
    EXPECT_EQ(batch({.idxs = {0, 0}, .gpfns = {kHole, 0x7033}, .space = XENMAPSPACE_shared_info}),
              (Codes{0, 0, 0}));
    EXPECT_EQ(guest.domain.physmap().gfn_of_own(kSharedInfoPage), 0x7033u);
    EXPECT_EQ(guest.ports.shared_info_places.back(), 0x7033u);
    for (const std::uint16_t domid : {std::uint16_t{0}, std::uint16_t{1000}, kIo}) {
        Batch other = grants;
        other.domid = domid;
        EXPECT_EQ(batch(other), (Codes{domid == 0 ? -XEN_EACCES : -XEN_ESRCH, kU, kU, kU, kU}));
    }
}

TEST_P(MemoryOpPhysmap, ABatchsInvalidGfnEndsIt) {
    const Batch b = {.idxs = {0, 1, 2}, .gpfns = {0x7040, ~std::uint64_t{0}, 0x7042}};
    if (guest.wide()) {
        EXPECT_EQ(batch(b), (Codes{-XEN_EINVAL, 0, kU, kU}));
    } else {
        EXPECT_EQ(batch(b), (Codes{0, 0, 0, 0}));  // zero-extended, it is none
    }
}

TEST_P(MemoryOpPhysmap, ABatchMovesPages) {
    guest.poke(gfn_at(0x7050), std::uint32_t{0xaaaa});
    EXPECT_EQ(batch({.idxs = {0x7050, kHole, 0x7051},
                     .gpfns = {0x7060, 0x7061, 0x7050},
                     .space = XENMAPSPACE_gmfn}),
              (Codes{0, 0, -XEN_EINVAL, 0}));
    EXPECT_EQ(guest.get<std::uint32_t>(gfn_at(0x7060)), 0xaaaau);
    EXPECT_TRUE(guest.domain.physmap().has_ram(0x7050));
    EXPECT_FALSE(guest.domain.physmap().has_ram(0x7051));
}

TEST_P(MemoryOpPhysmap, ABatchsArraysThatAreNotThere) {
    const auto with = [&](vmm::Gva idxs, vmm::Gva gpfns, vmm::Gva errs) {
        return op(XENMEM_add_to_physmap_batch,
                  guest.put_wide<xen_add_to_physmap_batch>({.domid = DOMID_SELF,
                                                            .space = XENMAPSPACE_grant_table,
                                                            .size = 2,
                                                            .u = 0,
                                                            .idxs = idxs.value,
                                                            .gpfns = gpfns.value,
                                                            .errs = errs.value}));
    };
    const vmm::Gva idxs = guest.put_words({0, 1}), gpfns = guest.put_words({0x7070, 0x7071});
    const vmm::Gva errs = guest.reserve(8);
    for (const vmm::Gva bad : {TestDomain::null(), TestDomain::unmapped()}) {
        EXPECT_EQ(with(bad, gpfns, errs), kFault);
        EXPECT_EQ(with(idxs, bad, errs), kFault);
        EXPECT_TRUE(guest.domain.physmap().has_ram(0x7070));
        // The entry that nobody could be told of is done.
        EXPECT_EQ(with(idxs, gpfns, bad), kFault);
        EXPECT_EQ(guest.domain.physmap().gfn_of_own(kFirstGrantPage), 0x7070u);
        EXPECT_TRUE(guest.domain.physmap().has_ram(0x7071));
        EXPECT_EQ(with(idxs, gpfns, errs), 0);
        ASSERT_TRUE(guest.domain.physmap().populate(0x7070));
        ASSERT_TRUE(guest.domain.physmap().populate(0x7071));
    }
}

// XSA-318's class: each entry that is done is told of, and none else, wherever it stops.
TEST_P(MemoryOpPhysmap, AStoppedBatchTellsOfWhatIsDone) {
    const Batch b = {.idxs = {0, 1, 64, 3, 4}, .gpfns = {0x7000, 0x7001, 0x7002, 0x7003, 0x7004}};
    for (std::uint32_t every = 1; every <= 5; ++every) {
        const auto d = fresh({.preempt = {.every = every, .at = {}, .after_us = 1'000'000'000}});
        const Put put = put_batch(*d, b);
        const Request r =
            d->request(HYPERVISOR_memory_op, {XENMEM_add_to_physmap_batch, put.at.value});
        std::uint64_t done = 0;
        const auto run = d->run(r, [&](const Reissue& again) {
            done += every;
            ASSERT_EQ(again.args[0], (done << 6) | XENMEM_add_to_physmap_batch);
            for (std::size_t i = 0; i < b.idxs.size(); ++i) {
                EXPECT_EQ(d->get<std::int32_t>(put.errs + 4 * i) == kU, i >= done) << i;
            }
        });
        EXPECT_EQ(run.result, 0);
        EXPECT_EQ(errs_of(*d, put.errs, 5), (Codes{0, 0, -XEN_EINVAL, 0, 0}));
    }
}

// ---- ranges -------------------------------------------------------------------------------------

// Xen moves page by page upwards. Down over itself nothing is lost; up over itself the first page
// is carried along, and the others are what it was put upon.
TEST_P(MemoryOpPhysmap, RangesThatOverlap) {
    const auto fill = [&](std::uint64_t first) {
        for (std::uint64_t i = 0; i < 4; ++i) {
            guest.poke(gfn_at(first + i), std::uint64_t{0x100} + i);
        }
    };
    fill(0x7101);
    EXPECT_EQ(range(4, 0x7101, 0x7100), 0);
    for (std::uint64_t i = 0; i < 4; ++i) {
        EXPECT_EQ(guest.get<std::uint64_t>(gfn_at(0x7100 + i)), 0x100 + i);
    }
    EXPECT_FALSE(guest.domain.physmap().is_mapped(0x7104));
    EXPECT_EQ(current(), 0x8010);  // what was at 0x7100 is freed

    fill(0x7110);
    EXPECT_EQ(range(4, 0x7110, 0x7111), 0);
    for (std::uint64_t i = 0; i < 4; ++i) {
        EXPECT_FALSE(guest.domain.physmap().is_mapped(0x7110 + i)) << i;
    }
    EXPECT_EQ(guest.get<std::uint64_t>(gfn_at(0x7114)), 0x100u);
    EXPECT_EQ(current(), 0x8010 - 4);

    fill(0x7120);
    EXPECT_EQ(range(4, 0x7120, 0x7120), 0);  // onto itself: nothing
    EXPECT_EQ(guest.get<std::uint64_t>(gfn_at(0x7123)), 0x103u);
    EXPECT_EQ(current(), 0x8010 - 4);
}

TEST_P(MemoryOpPhysmap, ARangeStopsAtWhatIsNotThere) {
    ASSERT_TRUE(guest.domain.physmap().decrease(0x7132));
    EXPECT_EQ(range(4, 0x7130, 0x7140), kInval);
    EXPECT_FALSE(guest.domain.physmap().is_mapped(0x7131));  // what came before is done
    EXPECT_TRUE(guest.domain.physmap().is_mapped(0x7133));
    if (guest.wide()) {
        EXPECT_EQ(range(0, 0x7130, ~std::uint64_t{0}), kInval);
    }
}

// ---- reservations, at their edges ---------------------------------------------------------------

// A 32-bit caller's is read before its first extent is given back, 1020 at a time.
TEST_P(MemoryOpPhysmap, AListInAPageThatTheCallGivesAway) {
    const vmm::Gva list = guest.reserve(4096, 4096);
    const std::uint64_t own = list.value >> vmm::kPageShift;
    const std::vector<std::uint64_t> gfns = {0x7150, 0x7151, own, 0x7152};
    for (std::size_t i = 0; i < gfns.size(); ++i) {
        if (guest.wide()) {
            guest.poke(list + 8 * i, gfns[i]);
        } else {
            guest.poke(list + 4 * i, static_cast<std::uint32_t>(gfns[i]));
        }
    }
    EXPECT_EQ(op(XENMEM_decrease_reservation,
                 guest.put_wide<xen_memory_reservation>({.extent_start = list.value,
                                                         .nr_extents = 4,
                                                         .extent_order = 0,
                                                         .mem_flags = 0,
                                                         .domid = DOMID_SELF})),
              guest.wide() ? 3 : 4);
    EXPECT_FALSE(guest.domain.physmap().is_mapped(own));
    EXPECT_EQ(guest.domain.physmap().is_mapped(0x7152), guest.wide());
}

TEST_P(MemoryOpPhysmap, ALongListIsReadInParts) {
    const unsigned word = guest.word_bytes();
    const vmm::Gva list = guest.reserve(2 * 4096, 4096);
    const std::uint64_t second = (list.value >> vmm::kPageShift) + 1;
    // Element 1 gives back the page in which those from 1024 (at 64 bits: 512) on lie.
    std::vector<std::uint64_t> gfns(1030);
    for (std::size_t i = 0; i < gfns.size(); ++i) {
        gfns[i] = i == 1 ? second : 0x6000 + i;
        if (guest.wide()) {
            guest.poke(list + word * i, gfns[i]);
        } else {
            guest.poke(list + word * i, static_cast<std::uint32_t>(gfns[i]));
        }
    }
    EXPECT_EQ(op(XENMEM_decrease_reservation,
                 guest.put_wide<xen_memory_reservation>({.extent_start = list.value,
                                                         .nr_extents = gfns.size(),
                                                         .extent_order = 0,
                                                         .mem_flags = 0,
                                                         .domid = DOMID_SELF})),
              guest.wide() ? 512 : 1024);
}

// Of a batch's lists a 32-bit caller hears before anything is done.
TEST_P(MemoryOpPhysmap, ABatchWhoseListsEndEarly) {
    const unsigned word = guest.word_bytes();
    const vmm::Gva page = guest.reserve(2 * 4096, 4096);
    guest.access.unmapped.insert((page.value >> vmm::kPageShift) + 1);
    const vmm::Gva list = page + (4096 - 2 * word);
    const auto words = [&](vmm::Gva at, std::uint64_t first, std::uint64_t count) {
        for (std::uint64_t i = 0; i < count; ++i) {
            if (guest.wide()) {
                guest.poke(at + word * i, first + i);
            } else {
                guest.poke(at + word * i, static_cast<std::uint32_t>(first + i));
            }
        }
    };
    const vmm::Gva other = guest.reserve(4 * word, 8);
    const vmm::Gva errs = guest.reserve(4 * 4, 8);
    words(list, 0x7170, 2);
    words(other, 0x7180, 4);
    const auto batch = [&](std::uint16_t domid) {
        return op(XENMEM_add_to_physmap_batch,
                  guest.put_wide<xen_add_to_physmap_batch>({.domid = domid,
                                                            .space = XENMAPSPACE_gmfn,
                                                            .size = 4,
                                                            .u = 0,
                                                            .idxs = list.value,
                                                            .gpfns = other.value,
                                                            .errs = errs.value}));
    };
    EXPECT_EQ(batch(1000), guest.wide() ? -XEN_ESRCH : -XEN_EFAULT);
    EXPECT_EQ(batch(DOMID_SELF), -XEN_EFAULT);
    EXPECT_EQ(guest.domain.physmap().has_ram(0x7171), !guest.wide());
    EXPECT_TRUE(guest.domain.physmap().has_ram(0x7172));
}

TEST_P(MemoryOpPhysmap, AListAcrossPages) {
    const vmm::Gva page = guest.reserve(2 * 4096, 4096);
    const unsigned word = guest.word_bytes();
    // Two elements before the edge; at an odd address also one across it.
    for (const std::uint64_t skew : {0u, 2u}) {
        const vmm::Gva list = page + (4096 - 2 * word - skew);
        const std::uint64_t first = 0x7160 + 8 * skew;
        for (std::uint64_t i = 0; i < 5; ++i) {
            if (guest.wide()) {
                guest.poke(list + 8 * i, first + i);
            } else {
                guest.poke(list + 4 * i, static_cast<std::uint32_t>(first + i));
            }
        }
        EXPECT_EQ(op(XENMEM_decrease_reservation,
                     guest.put_wide<xen_memory_reservation>({.extent_start = list.value,
                                                             .nr_extents = 5,
                                                             .extent_order = 0,
                                                             .mem_flags = 0,
                                                             .domid = DOMID_SELF})),
                  5);
        EXPECT_FALSE(guest.domain.physmap().is_mapped(first + 4));
    }
}

TEST_P(MemoryOpPhysmap, MemFlags) {
    const auto with = [&](std::uint32_t command, std::uint32_t flags) {
        return op(command, guest.put_wide<xen_memory_reservation>(
                               {.extent_start = guest.put_words({0x7180}).value,
                                .nr_extents = 1,
                                .extent_order = 0,
                                .mem_flags = flags,
                                .domid = DOMID_SELF}));
    };
    constexpr std::uint32_t kTake = XENMEM_populate_physmap, kGive = XENMEM_decrease_reservation;
    EXPECT_EQ(with(kGive, 12), 0);
    EXPECT_EQ(with(kGive, 20), 1);
    EXPECT_EQ(with(kTake, 20), 0);
    EXPECT_EQ(with(kTake, 32), 1);
    EXPECT_EQ(with(XENMEM_increase_reservation, 20), 0);
    // XSA-231: a node is advice, also one that cannot be; insisting on it is refused.
    for (const std::uint32_t node : {1u, 2u, 64u, 200u, 255u}) {
        EXPECT_EQ(with(kTake, node << 8), 1) << node;
        EXPECT_EQ(with(kTake, node << 8 | 1u << 17), 0) << node;
        EXPECT_EQ(with(kGive, node << 8 | 1u << 17), 0) << node;
    }
    EXPECT_EQ(with(kTake, 1u << 17), 1);
    // XSA-14/30/150/153/246: there is no populating on demand to go wrong.
    EXPECT_EQ(with(kTake, XENMEMF_populate_on_demand), 0);
}

// XSA-342's style, and XSA-31/158: counts and orders of any size end at once, with Xen's count.
TEST_P(MemoryOpPhysmap, WildSizesDoNothing) {
    const vmm::Gva list = guest.put_words({0x7190});
    const auto before = current();
    for (const std::uint64_t nr : {0x400'0000ull, 0xffff'ffffull, 0x1'0000'0000ull, ~0ull}) {
        if (!guest.wide() && nr == 0x1'0000'0000ull) continue;  // is 0
        for (const std::uint32_t order : {0u, 9u, 10u, 63u, 64u, 0x8000'0000u, ~0u}) {
            const vmm::Gva at = guest.put_wide<xen_memory_reservation>({.extent_start = list.value,
                                                                        .nr_extents = nr,
                                                                        .extent_order = order,
                                                                        .mem_flags = 0,
                                                                        .domid = DOMID_SELF});
            for (const std::uint64_t command : {0u, 1u, 6u}) {
                EXPECT_EQ(op(command, at), 0);
                EXPECT_EQ(op(7u << 6 | command, at), 7);
            }
        }
    }
    EXPECT_EQ(current(), before);
    // gfns beyond 2^32 and next to the end of all numbers.
    for (const std::uint64_t gfn : {1ull << 32, 1ull << 36, (1ull << 52) + 0x7190, ~0ull - 511}) {
        if (!guest.wide()) break;
        const vmm::Gva at =
            guest.put_wide<xen_memory_reservation>({.extent_start = guest.put_words({gfn}).value,
                                                    .nr_extents = 1,
                                                    .extent_order = 9,
                                                    .mem_flags = 0,
                                                    .domid = DOMID_SELF});
        EXPECT_EQ(op(XENMEM_decrease_reservation, at), 0) << gfn;
        guest.ports.pool_pages = 0;
        EXPECT_EQ(op(XENMEM_populate_physmap, at), 0) << gfn;
    }
    EXPECT_EQ(current(), before);
}

// XSA-276, XSA-507: pages of ours are dropped from the map (measured), never freed: their content
// is what it was when they come back.
TEST_P(MemoryOpPhysmap, GivingBackOurPagesFreesNothing) {
    guest.ports.own_page(kSharedInfoPage)[0x900] = std::byte{0x5a};
    const auto before = current();
    const vmm::Gva add = guest.put_wide<xen_add_to_physmap>({.domid = DOMID_SELF,
                                                             .size = 0,
                                                             .space = XENMAPSPACE_shared_info,
                                                             .idx = 0,
                                                             .gpfn = kHole});
    ASSERT_EQ(op(XENMEM_add_to_physmap, add), 0);
    const vmm::Gva give =
        guest.put_wide<xen_memory_reservation>({.extent_start = guest.put_words({kHole}).value,
                                                .nr_extents = 1,
                                                .extent_order = 0,
                                                .mem_flags = 0,
                                                .domid = DOMID_SELF});
    EXPECT_EQ(op(XENMEM_decrease_reservation, give), 1);
    EXPECT_EQ(op(XENMEM_decrease_reservation, give), 0);  // XSA-252: not a second time
    EXPECT_EQ(current(), before);
    ASSERT_EQ(op(XENMEM_add_to_physmap, add), 0);
    EXPECT_EQ(guest.get<std::uint8_t>(gfn_at(kHole) + 0x900), 0x5a);
}

// XSA-235/334/277: an error leaves no lock behind. One thread would wait for itself for ever.
TEST_P(MemoryOpPhysmap, AfterAnErrorTheNextCallWorks) {
    EXPECT_EQ(range(2, kHole, 0x7000), kInval);
    EXPECT_EQ(batch({.idxs = {64}, .gpfns = {0x7000}}), (Codes{0, -XEN_EINVAL}));
    EXPECT_EQ(op(XENMEM_acquire_resource, guest.reserve(64)), kAccess);
    EXPECT_EQ(op(XENMEM_remove_from_physmap,
                 guest.put_wide<xen_remove_from_physmap>({.domid = DOMID_SELF, .gpfn = kHole})),
              -XEN_ENOENT);
    EXPECT_EQ(range(1, 0x7001, 0x7000), 0);
}

// ---- exchange -----------------------------------------------------------------------------------

class Exchange : public MemoryOpPhysmap {
  protected:
    struct Want {
        std::vector<std::uint64_t> in = {0x7200};
        std::uint32_t in_order = 0;
        std::uint64_t out_nr = 1;
        std::uint32_t out_order = 0;
        std::uint64_t done = 0;
        std::uint16_t in_domid = DOMID_SELF, out_domid = DOMID_SELF;
        std::optional<std::uint64_t> in_list = std::nullopt;
        std::optional<std::uint64_t> out_list = std::nullopt;
        std::uint32_t out_flags = 0;
    };
    // The result, and nr_exchanged afterwards.
    std::pair<std::int64_t, std::uint64_t> exchange(const Want& w) {
        const vmm::Gva at = guest.reserve(80);
        const std::uint64_t list = w.in_list ? *w.in_list : guest.put_words(w.in).value;
        const xen_memory_reservation<W64> in = {.extent_start = list,
                                                .nr_extents = w.in.size(),
                                                .extent_order = w.in_order,
                                                .mem_flags = 0,
                                                .domid = w.in_domid};
        const std::uint64_t out_list = w.out_list ? *w.out_list : guest.reserve(16384).value;
        const xen_memory_reservation<W64> out = {.extent_start = out_list,
                                                 .nr_extents = w.out_nr,
                                                 .extent_order = w.out_order,
                                                 .mem_flags = w.out_flags,
                                                 .domid = w.out_domid};
        const std::uint64_t size = guest.wide() ? 32 : 20;
        guest.poke_wide<xen_memory_reservation>(at, in);
        guest.poke_wide<xen_memory_reservation>(at + size, out);
        if (guest.wide()) {
            guest.poke(at + 2 * size, w.done);
        } else {
            guest.poke(at + 2 * size, static_cast<std::uint32_t>(w.done));
        }
        const auto result = op(XENMEM_exchange, at);
        return {result, guest.get_word(at + 2 * size, 0)};
    }
    using Answer = std::pair<std::int64_t, std::uint64_t>;
};

XENOLITH_BOTH_WIDTHS(Exchange);

// XSA-159: what fails leaves all pages and counts as they were.
TEST_P(Exchange, AsMeasured) {
    EXPECT_EQ(exchange({}), (Answer{kNotSup, 0}));
    // One page for 2^20: by its size to a 32-bit caller, by the order to others.
    EXPECT_EQ(exchange({.in_order = 20}), (Answer{guest.wide() ? kPerm : kInval, 0}));
    EXPECT_EQ(exchange({.in_order = 10, .out_order = 10}), (Answer{kPerm, 0}));
    EXPECT_EQ(exchange({.in = {}, .out_nr = 0}), (Answer{0, 0}));
    EXPECT_EQ(current(), 0x8011);
    EXPECT_TRUE(guest.domain.physmap().has_ram(0x7200));
}

TEST_P(Exchange, ChecksInXensOrder) {
    EXPECT_EQ(exchange({.done = 1}), (Answer{0, 1}));
    EXPECT_EQ(exchange({.done = 2}), (Answer{kInval, 2}));
    EXPECT_EQ(exchange({.out_nr = 2}), (Answer{kInval, 0}));
    EXPECT_EQ(exchange({.out_domid = 0}), (Answer{kInval, 0}));
    EXPECT_EQ(exchange({.in_domid = 0, .out_domid = 0}), (Answer{kPerm, 0}));
    EXPECT_EQ(exchange({.in_domid = 1000, .out_domid = 1000}), (Answer{kSrch, 0}));
    EXPECT_EQ(exchange({.in = {kHole}}), (Answer{kInval, 0}));
    // Progress is in whole chunks: to a 32-bit caller any other is a mistake.
    EXPECT_EQ(exchange({.in = {1, 2, 3, 4}, .out_order = 2, .done = 3}),
              guest.wide() ? (Answer{kNotSup, 0}) : (Answer{kInval, 3}));
    EXPECT_EQ(exchange({.in_order = 2, .out_nr = 4}), (Answer{kNotSup, 0}));
    // Sizes that overflow in the shift.
    for (const std::uint32_t order : {31u, 32u, 33u, 63u, 64u, ~0u}) {
        const auto answer =
            exchange({.in = {1, 2}, .in_order = order, .out_nr = 2, .out_order = order});
        EXPECT_EQ(answer.first, guest.wide() ? kPerm : kInval) << order;
    }
}

// compat_memory_op() reads both lists, as far as there is room for them, before it asks anybody.
TEST_P(Exchange, A32BitCallersListsAreTranslatedFirst) {
    constexpr std::uint64_t kNowhere = TestDomain::kUnmapped;
    const auto without_out = [&](Want w) {
        w.out_list = kNowhere;
        return exchange(w);
    };
    EXPECT_EQ(without_out({}), (Answer{guest.wide() ? kNotSup : kFault, 0}));
    EXPECT_EQ(without_out({.in_domid = 1000, .out_domid = 1000}),
              (Answer{guest.wide() ? kSrch : kFault, 0}));
    EXPECT_EQ(without_out({.out_domid = 0}), (Answer{guest.wide() ? kInval : kFault, 0}));
    // Of what is done nothing is read.
    EXPECT_EQ(without_out({.done = 1}), (Answer{0, 1}));
    // One chunk of both lists that does not fit behind the structure in two pages.
    const std::vector<std::uint64_t> small(512, 0x7200), large(1024, 0x7200);
    EXPECT_EQ(exchange({.in = small, .out_order = 9}), (Answer{kNotSup, 0}));
    EXPECT_EQ(exchange({.in = large, .out_order = 10}),
              (Answer{guest.wide() ? kPerm : -XEN_E2BIG, 0}));
    EXPECT_EQ(exchange({.in_order = 10, .out_nr = 1024}),
              (Answer{guest.wide() ? kPerm : -XEN_E2BIG, 0}));
}

// A 32-bit caller's list is read as far as there is room for both, and not to its end.
TEST_P(Exchange, ListsAreReadAsFarAsThereIsRoom) {
    const std::vector<std::uint64_t> many(2000, 0x7200);
    constexpr std::uint64_t kRoom = 1015 / 2;  // pages behind the structure, a word for each list
    const auto list_of = [&](std::uint64_t words) {
        return TestDomain::kUnmapped - words * guest.word_bytes();
    };
    ASSERT_TRUE(guest.ports.add_ram_page((TestDomain::kUnmapped >> vmm::kPageShift) - 1));
    EXPECT_EQ(exchange({.in = many, .out_nr = 2000, .out_list = list_of(kRoom)}).first, kNotSup);
    EXPECT_EQ(exchange({.in = many, .out_nr = 2000, .out_list = list_of(kRoom - 1)}).first,
              guest.wide() ? kNotSup : kFault);
}

TEST_P(Exchange, Xsa231InsistingOnANodeIsAPrivilege) {
    constexpr std::uint32_t kNode = 1u << 8, kExact = 1u << 17;
    EXPECT_EQ(exchange({.out_flags = kNode | kExact}), (Answer{kInval, 0}));
    EXPECT_EQ(exchange({.in_domid = 1000, .out_domid = 1000, .out_flags = kNode | kExact}),
              (Answer{kInval, 0}));
    EXPECT_EQ(exchange({.out_flags = kNode}), (Answer{kNotSup, 0}));
    EXPECT_EQ(exchange({.out_flags = kExact}), (Answer{kNotSup, 0}));
    EXPECT_EQ(exchange({.done = 1, .out_flags = kNode | kExact}), (Answer{0, 1}));
}

// XSA-29, XSA-212: lists that wrap, or lie where no guest has anything. Nothing is written but
// nr_exchanged.
TEST_P(Exchange, WildListsAreFaults) {
    guest.access.forget();
    for (const std::uint64_t list :
         {std::uint64_t{0}, TestDomain::kUnmapped, ~std::uint64_t{0},
          std::uint64_t{0xffff'8000'0000'0000}, std::uint64_t{0xffff'fff0}}) {
        EXPECT_EQ(exchange({.in_list = list}), (Answer{kFault, 0})) << list;
    }
    for (const auto& touch : guest.access.writes) {
        EXPECT_EQ(touch.size, guest.word_bytes());
    }
}

// ---- maps ---------------------------------------------------------------------------------------

TEST_P(MemoryOpPhysmap, TheGuestsOwnMemoryMap) {
    const auto set = [&](std::uint32_t count, vmm::Gva buffer, std::uint16_t domid) {
        const vmm::Gva at = guest.reserve(64);
        guest.poke(at, domid);
        guest.poke_wide<xen_memory_map>(at + guest.word_bytes(),
                                        {.nr_entries = count, .buffer = buffer.value});
        return op(XENMEM_set_memory_map, at);
    };
    const MemoryMap::Entries builders = guest.domain.memory_map().entries();
    const vmm::Gva buffer = guest.reserve(1025 * sizeof(e820entry));
    for (std::uint32_t i = 0; i < 1024; ++i) {
        guest.poke(buffer + i * sizeof(e820entry),
                   e820entry{.addr = 0x1'0000'0000 + i, .size = i + 1, .type = i});
    }
    EXPECT_EQ(set(1025, buffer, DOMID_SELF), kInval);
    EXPECT_EQ(set(3, TestDomain::unmapped(), DOMID_SELF), kFault);
    EXPECT_EQ(set(3, buffer, 0), kPerm);
    EXPECT_EQ(set(3, buffer, 1000), kSrch);
    EXPECT_EQ(guest.domain.memory_map().entries(), builders);

    const auto shown = [&](std::uint32_t room) {
        const vmm::Gva into = guest.reserve(room * sizeof(e820entry) + 4);
        const vmm::Gva at =
            guest.put_wide<xen_memory_map>({.nr_entries = room, .buffer = into.value});
        EXPECT_EQ(op(XENMEM_memory_map, at), 0);
        const auto count = guest.get_wide<xen_memory_map>(at).nr_entries;
        for (std::uint32_t i = 0; i < count; ++i) {
            const auto entry = guest.get<e820entry>(into + i * sizeof(e820entry));
            EXPECT_EQ(std::uint64_t{entry.addr}, 0x1'0000'0000 + i);
            EXPECT_EQ(std::uint64_t{entry.size}, i + 1);
            EXPECT_EQ(entry.type, i);
        }
        return count;
    };
    EXPECT_EQ(set(3, buffer, DOMID_SELF), 0);
    EXPECT_EQ(shown(128), 3u);
    EXPECT_EQ(set(1024, buffer, TestDomain::kDomid), 0);
    EXPECT_EQ(shown(2000), 1024u);
    // An empty one is as if there had never been any.
    EXPECT_EQ(set(0, TestDomain::null(), DOMID_SELF), 0);
    EXPECT_EQ(op(XENMEM_memory_map, TestDomain::null()), -XEN_ENOSYS);
}

TEST_P(MemoryOpPhysmap, NothingIsReservedForDevices) {
    const auto with = [&](std::uint32_t flags) {
        const vmm::Gva at = guest.put_wide<xen_reserved_device_memory_map>(
            {.flags = flags, .nr_entries = 5, .buffer = 0, .segment = 1, .bus = 2, .devfn = 3});
        const auto result = op(XENMEM_reserved_device_memory_map, at);
        const auto after = guest.get_wide<xen_reserved_device_memory_map>(at);
        EXPECT_EQ(after.nr_entries, result == 0 ? 0u : 5u);
        EXPECT_EQ(after.flags, flags);
        EXPECT_EQ(after.devfn, 3);
        return result;
    };
    EXPECT_EQ(with(0), 0);
    EXPECT_EQ(with(1), 0);
    EXPECT_EQ(with(2), kInval);
    EXPECT_EQ(with(~0u), kInval);
}

// Xen copies back what it copied in: what lies between the members is not the hypervisor's.
TEST_P(MemoryOpPhysmap, NothingBetweenTheMembersIsWritten) {
    const auto keeps = [&](std::uint32_t command, std::initializer_list<std::uint64_t> words,
                           std::size_t number) {
        // Of 32-bit words: members and what lies between them.
        std::vector<std::uint32_t> said(8, 0x5a5a5a5a);
        std::size_t i = 0;
        for (const std::uint64_t word : words) {
            said[i++] = static_cast<std::uint32_t>(word);
        }
        const vmm::Gva at = guest.reserve(said.size() * 4);
        for (std::size_t n = 0; n < said.size(); ++n) {
            guest.poke(at + n * 4, said[n]);
        }
        EXPECT_EQ(op(command, at), 0) << command;
        for (std::size_t n = 0; n < said.size(); ++n) {
            if (n == number) continue;
            EXPECT_EQ(guest.get<std::uint32_t>(at + n * 4), said[n]) << command << " " << n;
        }
    };
    const std::uint64_t buffer = guest.reserve(8 * sizeof(e820entry)).value;
    constexpr std::uint64_t kBetween = 0x77777777;
    if (!guest.wide()) {
        keeps(XENMEM_memory_map, {8, buffer}, 0);
        keeps(XENMEM_reserved_device_memory_map, {0, 5, buffer}, 1);
        return;
    }
    keeps(XENMEM_memory_map, {8, kBetween, buffer, 0}, 0);
    keeps(XENMEM_reserved_device_memory_map, {0, 5, buffer, 0, kBetween, kBetween}, 1);
    keeps(XENMEM_machphys_mfn_list, {2, kBetween, buffer, 0, 5, kBetween}, 4);
}

TEST_P(MemoryOpPhysmap, NoVirtualNuma) {
    xen_vnuma_topology_info info{};
    info.domid = DOMID_SELF;
    EXPECT_EQ(op(XENMEM_get_vnumainfo, guest.put(info)), kNotSup);
    info.pad = 1;
    EXPECT_EQ(op(XENMEM_get_vnumainfo, guest.put(info)), kInval);
}

TEST_P(MemoryOpPhysmap, TheMachineTableIsAnEmptyList) {
    const vmm::Gva list = guest.put_words({0x55, 0x66});
    const vmm::Gva at = guest.put_wide<xen_machphys_mfn_list>(
        {.max_extents = 2, .extent_start = list.value, .nr_extents = 7});
    if (guest.wide()) {
        EXPECT_EQ(op(XENMEM_machphys_mfn_list, at), 0);
        EXPECT_EQ(guest.get_wide<xen_machphys_mfn_list>(at).nr_extents, 0u);
        EXPECT_EQ(guest.get_wide<xen_machphys_mfn_list>(at).max_extents, 2u);
    } else {
        EXPECT_EQ(op(XENMEM_machphys_mfn_list, at), kNotSup);
    }
    EXPECT_EQ(guest.get_word(list, 0), 0x55u);
    EXPECT_EQ(op(XENMEM_machphys_compat_mfn_list, at), kNotSup);
}

// ---- refusals -----------------------------------------------------------------------------------

TEST_P(MemoryOpPhysmap, ClaimingPagesIsForToolstacks) {
    const auto with = [&](std::uint16_t domid) {
        return op(XENMEM_claim_pages, guest.put_wide<xen_memory_reservation>({.extent_start = 0,
                                                                              .nr_extents = 5,
                                                                              .extent_order = 0,
                                                                              .mem_flags = 0,
                                                                              .domid = domid}));
    };
    for (const std::uint16_t known : {std::uint16_t{0}, std::uint16_t{TestDomain::kDomid}}) {
        EXPECT_EQ(with(known), guest.wide() ? kPerm : -XEN_ENOSYS);
    }
    for (const std::uint16_t unknown : {std::uint16_t{DOMID_SELF}, std::uint16_t{1000}}) {
        EXPECT_EQ(with(unknown), guest.wide() ? kInval : -XEN_ENOSYS);
    }
}

}  // namespace
}  // namespace xenshim
