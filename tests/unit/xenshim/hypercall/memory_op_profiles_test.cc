// What memory_op answers under each profile: which sub-ops there are, what a stray cursor gets,
// how what is stopped goes on (xen-abi.md 2.3, 2.7, 2.9 and 4.1).
#include <gtest/gtest.h>

#include "tests/fakes/test_domain.h"

namespace xenshim {
namespace {

using namespace abi;
using fakes::BothWidths;
using fakes::TestDomain;

constexpr std::int64_t kInval = -XEN_EINVAL, kNosys = -XEN_ENOSYS;

constexpr std::uint32_t kNoDeadline = 1'000'000'000;  // of this machine's moods

vmm::Gva gfn_at(std::uint64_t gfn) {
    return {gfn << vmm::kPageShift};
}

class MemoryOpProfiles : public BothWidths {
  protected:
    static std::unique_ptr<TestDomain> under(const Profile& profile, std::uint32_t every = 0) {
        return fresh(
            {.preempt = {.every = every, .at = {}, .after_us = kNoDeadline}, .profile = &profile});
    }
    static std::int64_t with_cursor(TestDomain& d, const Profile& p, std::uint32_t op,
                                    std::uint64_t start, vmm::Gva at) {
        return d.result(HYPERVISOR_memory_op, encode_memory_op(p, {.op = op, .start = start}),
                        at.value);
    }
};

XENOLITH_BOTH_WIDTHS(MemoryOpProfiles);

TEST_P(MemoryOpProfiles, SubOpsComeAndGo) {
    struct Row {
        std::uint32_t op;
        Release since, until;
    };
    constexpr Release kAlways = 0, kNever = 0xffff;
    const Row rows[] = {
        {2, kAlways, kNever},
        {8, kAlways, xen_release(3, 4)},
        {9, xen_release(4, 6), kNever},
        {10, xen_release(4, 19), kNever},
        {12, kNever, kNever},
        {13, kAlways, kNever},
        {16, xen_release(3, 4), kNever},
        {20, kNever, kNever},
        {22, kNever, kNever},
        {23, xen_release(4, 4), kNever},
        {26, xen_release(4, 5), kNever},
        {27, xen_release(4, 6), kNever},
        {28, xen_release(4, 11), kNever},
        {29, kNever, kNever},
    };
    for (const Profile& p : profiles()) {
        for (const Row& row : rows) {
            if (row.op >= (1u << p.memory_op_shift)) continue;
            const auto d = under(p);
            const vmm::Gva at = d->reserve(128);
            const bool there = p.behaves_as >= row.since && p.behaves_as < row.until;
            EXPECT_EQ(with_cursor(*d, p, row.op, 0, at) != kNosys, there)
                << p.name << " op " << row.op;
        }
        // XenServer's own: refused where they were, unknown elsewhere.
        for (const std::uint32_t op : {0x28u, 0x39u}) {
            if (p.memory_op_shift < 6) continue;
            const auto d = under(p);
            EXPECT_EQ(with_cursor(*d, p, op, 0, d->reserve(128)),
                      p.private_memory_ops ? -XEN_EPERM : kNosys)
                << p.name;
        }
    }
}

// xen-abi.md 2.7.
TEST_P(MemoryOpProfiles, StrayCursors) {
    for (const Profile& p : profiles()) {
        const bool ignores = !p.since(4, 5);
        const std::int64_t common = p.since(4, 8) ? kInval : kNosys;
        const auto d = under(p);
        const vmm::Gva domid = d->put(std::uint16_t{DOMID_SELF});
        for (const std::uint32_t op : {2u, 3u, 4u, 14u}) {
            const auto plain = with_cursor(*d, p, op, 0, domid);
            EXPECT_GT(plain, 0) << p.name << " " << op;
            EXPECT_EQ(with_cursor(*d, p, op, 1, domid), ignores ? plain : common)
                << p.name << " " << op;
        }
        const vmm::Gva remove =
            d->put_wide<xen_remove_from_physmap>({.domid = DOMID_SELF, .gpfn = 0x7000});
        EXPECT_EQ(with_cursor(*d, p, 15, 1, remove), ignores ? 0 : common) << p.name;
        const vmm::Gva exchange = d->reserve(128);  // of nothing
        const std::uint64_t size = d->wide() ? 32 : 20, domid_at = d->wide() ? 24 : 16;
        d->poke(exchange + domid_at, std::uint16_t{DOMID_SELF});
        d->poke(exchange + size + domid_at, std::uint16_t{DOMID_SELF});
        EXPECT_EQ(with_cursor(*d, p, 11, 1, exchange), ignores ? 0 : common) << p.name;
        if (p.since(3, 4)) {  // architecture code
            const vmm::Gva pod = d->put_wide<xen_pod_target>({.pages = {}, .domid = DOMID_SELF});
            const std::int64_t refused = p.since(4, 0) ? -XEN_EPERM : kInval;
            EXPECT_EQ(with_cursor(*d, p, 16, 0, pod), refused) << p.name;
            EXPECT_EQ(with_cursor(*d, p, 16, 1, pod), ignores ? refused : kNosys) << p.name;
        }
        // A space without a cursor takes one that fits; until 4.3 any.
        const vmm::Gva add = d->put_wide<xen_add_to_physmap>({.domid = DOMID_SELF,
                                                              .size = 0,
                                                              .space = XENMAPSPACE_shared_info,
                                                              .idx = 0,
                                                              .gpfn = 0x7010});
        EXPECT_EQ(with_cursor(*d, p, 7, 0xffff, add), 0) << p.name;
        EXPECT_EQ(with_cursor(*d, p, 7, 0x10000, add), p.since(4, 4) ? -XEN_EDOM : 0) << p.name;
    }
}

TEST_P(MemoryOpProfiles, CountsEndWhereTheRegisterDoes) {
    for (const Profile& p : profiles()) {
        const auto d = under(p);
        d->requests = 1;  // stops after the first, where it begins at all
        const vmm::Gva list = d->put_words({0x7000, 0x7001});
        const auto begins = [&](std::uint64_t nr) {
            const vmm::Gva at = d->put_wide<xen_memory_reservation>({.extent_start = list.value,
                                                                     .nr_extents = nr,
                                                                     .extent_order = 0,
                                                                     .mem_flags = 0,
                                                                     .domid = DOMID_SELF});
            const Reply reply = d->call(HYPERVISOR_memory_op, XENMEM_populate_physmap, at.value);
            return std::holds_alternative<Reissue>(reply);
        };
        const std::uint64_t limit = p.since(4, 3) || !d->wide() ? UINT32_MAX >> p.memory_op_shift
                                                                : UINT64_MAX >> p.memory_op_shift;
        EXPECT_TRUE(begins(limit)) << p.name;
        EXPECT_FALSE(begins(limit + 1)) << p.name;
    }
}

TEST_P(MemoryOpProfiles, SpacesComeAndGo) {
    for (const Profile& p : profiles()) {
        const auto d = under(p);
        const auto add = [&](std::uint32_t space, std::uint16_t size) {
            return d->result(HYPERVISOR_memory_op, XENMEM_add_to_physmap,
                             d->put_wide<xen_add_to_physmap>({.domid = DOMID_SELF,
                                                              .size = size,
                                                              .space = space,
                                                              .idx = 0x7000,
                                                              .gpfn = 0x7010})
                                 .value);
        };
        EXPECT_EQ(add(XENMAPSPACE_gmfn_range, 2), p.since(4, 2) ? 0 : kInval) << p.name;
        EXPECT_EQ(add(XENMAPSPACE_dev_mmio, 0), p.since(4, 9) ? -XEN_EACCES : kInval) << p.name;
        if (!p.legacy_windows) {
            EXPECT_EQ(add(XENMAPSPACE_gmfn_foreign, 0), p.since(4, 3) ? kNosys : kInval) << p.name;
        }
    }
}

// HVM guests may set their map since 4.6.
TEST_P(MemoryOpProfiles, SettingTheMemoryMap) {
    for (const Profile& p : profiles()) {
        const auto d = under(p);
        const vmm::Gva buffer = d->put(e820entry{.addr = 0, .size = 0x1000, .type = 1});
        const auto set = [&](std::uint32_t count) {
            const vmm::Gva at = d->reserve(64);
            d->poke(at, std::uint16_t{DOMID_SELF});
            d->poke_wide<xen_memory_map>(at + d->word_bytes(),
                                         {.nr_entries = count, .buffer = buffer.value});
            return d->result(HYPERVISOR_memory_op, XENMEM_set_memory_map, at.value);
        };
        EXPECT_EQ(set(1), p.since(4, 6) ? 0 : -XEN_EPERM) << p.name;
        EXPECT_EQ(set(p.since(4, 13) ? 1025 : 1026), kInval) << p.name;
        if (!p.since(4, 8)) {
            EXPECT_EQ(set(129), kInval) << p.name;
        }
    }
}

TEST_P(MemoryOpProfiles, ABatchThatIsAtItsEnd) {
    for (const Profile& p : profiles()) {
        if (!p.since(4, 4)) continue;
        const auto d = under(p);
        const vmm::Gva at = d->put_wide<xen_add_to_physmap_batch>(
            {.domid = DOMID_SELF, .space = 0, .size = 3, .u = 0, .idxs = 0, .gpfns = 0, .errs = 0});
        EXPECT_EQ(with_cursor(*d, p, 23, 3, at), p.since(4, 13) ? -XEN_EILSEQ : 0) << p.name;
        EXPECT_EQ(with_cursor(*d, p, 23, 4, at), -XEN_EILSEQ) << p.name;
    }
}

// To a guest each is refused; a 32-bit caller's frames are looked at first.
// Since the same time nobody asks whose pages they are that need not be exchanged.
TEST_P(MemoryOpProfiles, AnExchangeOfNothing) {
    for (const Profile& p : profiles()) {
        const auto fresh_one = under(p);
        TestDomain& d = *fresh_one;
        const auto of = [&](std::uint16_t domid) {
            const vmm::Gva at = d.reserve(80);
            const std::uint64_t size = d.wide() ? 32 : 20;
            for (const std::uint64_t which : {0u, 1u}) {
                d.poke_wide<xen_memory_reservation>(at + which * size, {.extent_start = 0,
                                                                        .nr_extents = 3,
                                                                        .extent_order = 0,
                                                                        .mem_flags = 0,
                                                                        .domid = domid});
            }
            d.poke(at + 2 * size, std::uint64_t{3});
            return d.result(HYPERVISOR_memory_op, XENMEM_exchange, at.value);
        };
        EXPECT_EQ(of(DOMID_SELF), 0) << p.name;
        EXPECT_EQ(of(1000), p.since(4, 13) ? 0 : -XEN_ESRCH) << p.name;
        EXPECT_EQ(of(0), p.since(4, 13) ? 0 : -XEN_EPERM) << p.name;
    }
}

// compat_memory_op() reads the structure before the cursor is looked at.
TEST_P(MemoryOpProfiles, AWildCursorOfWhatCannotBeRead) {
    for (const Profile& p : profiles()) {
        if (!p.since(4, 4)) continue;
        const auto fresh_one = under(p);
        TestDomain& d = *fresh_one;
        const std::int64_t expected = d.wide() ? -XEN_EDOM : -XEN_EFAULT;
        EXPECT_EQ(with_cursor(d, p, 7, 0x10000, TestDomain::unmapped()), expected) << p.name;
        EXPECT_EQ(with_cursor(d, p, 23, 0x10000, TestDomain::unmapped()), expected) << p.name;
        const vmm::Gva there = d.reserve(64);
        EXPECT_EQ(with_cursor(d, p, 7, 0x10000, there), -XEN_EDOM) << p.name;
        EXPECT_EQ(with_cursor(d, p, 23, 0x10000, there), -XEN_EDOM) << p.name;
    }
}

TEST_P(MemoryOpProfiles, AcquiringResources) {
    for (const Profile& p : profiles()) {
        if (!p.since(4, 11)) continue;
        const auto d = under(p);
        const auto with = [&](std::uint32_t nr, vmm::Gva list, std::uint64_t start) {
            return with_cursor(*d, p, XENMEM_acquire_resource, start,
                               d->put_wide<xen_mem_acquire_resource>({.domid = DOMID_SELF,
                                                                      .type = 1,
                                                                      .id = 0,
                                                                      .nr_frames = nr,
                                                                      .pad = 0,
                                                                      .frame = 0,
                                                                      .frame_list = list.value}));
        };
        const auto narrow = [&](std::int64_t code) {
            return d->wide() ? std::int64_t{-XEN_EACCES} : code;
        };
        const vmm::Gva list = d->reserve(4096);
        const bool continues = p.since(4, 15);
        if (!p.since(4, 12)) continue;  // the next test's
        EXPECT_EQ(with(0, TestDomain::null(), 0), -XEN_EACCES) << p.name;
        EXPECT_EQ(with(4, list, 0), -XEN_EACCES) << p.name;
        EXPECT_EQ(with(4, list, 3), -XEN_EACCES) << p.name;
        EXPECT_EQ(with(4, list, 4), narrow(continues ? kInval : -XEN_EACCES)) << p.name;
        EXPECT_EQ(with(4, TestDomain::unmapped(), 0), narrow(-XEN_EFAULT)) << p.name;
        EXPECT_EQ(with(1021, list, 0), narrow(continues ? -XEN_EACCES : -XEN_E2BIG)) << p.name;
    }
}

// Before XSA-334, which 4.11 was not patched for.
TEST_P(MemoryOpProfiles, AcquireResourceOf411LooksAtItsArgumentFirst) {
    const auto d = under(*find_profile("xen-4.11"));
    const auto ask = [&](std::uint16_t domid, std::uint32_t frames, std::uint32_t pad,
                         std::uint64_t list) {
        const vmm::Gva at = d->put_wide<xen_mem_acquire_resource>({.domid = domid,
                                                                   .type = 1,
                                                                   .id = 0,
                                                                   .nr_frames = frames,
                                                                   .pad = pad,
                                                                   .frame = 0,
                                                                   .frame_list = list});
        const auto got = d->result(HYPERVISOR_memory_op, XENMEM_acquire_resource, at.value);
        return std::pair{got, d->get_wide<xen_mem_acquire_resource>(at).nr_frames};
    };
    const std::uint64_t list = d->reserve(4096).value;
    const std::uint16_t own = d->domain.config().domid;
    // The size, which a 32-bit caller does not get to see.
    EXPECT_EQ(ask(DOMID_SELF, 0, 0, 0), (std::pair{std::int64_t{0}, d->wide() ? 32u : 0u}));
    EXPECT_EQ(ask(77, 0, 1, 0).first, kInval);
    EXPECT_EQ(ask(77, 1, 0, 0).first, kInval);
    EXPECT_EQ(ask(77, 33, 0, list).first, -XEN_E2BIG);
    EXPECT_EQ(ask(77, 32, 0, list).first, -XEN_ESRCH);
    EXPECT_EQ(ask(DOMID_SELF, 1, 0, list).first, -XEN_ESRCH);
    EXPECT_EQ(ask(0, 1, 0, list).first, -XEN_EPERM);
    EXPECT_EQ(ask(own, 1, 0, list).first, -XEN_EPERM);
    EXPECT_EQ(
        d->result(HYPERVISOR_memory_op, XENMEM_acquire_resource, TestDomain::unmapped().value),
        -XEN_EFAULT);
}

// ---- continuations ------------------------------------------------------------------------------

struct Work {
    std::uint32_t op;
    std::uint32_t order;
    std::vector<std::uint64_t> gfns;
};
const Work kWorks[] = {
    {XENMEM_decrease_reservation, 0, {0x7000, 0x7005, 0x7001, 0x7010, 0x7011}},
    {XENMEM_decrease_reservation, 9, {0x6000, 0x6200, 0x6401, 0x6601}},
    {XENMEM_decrease_reservation, 0, {0x7000, 0x7001, 0x7000, 0x7002}},
    {XENMEM_populate_physmap, 0, {0x40000, 0x7000, 0x40001, 0x40002}},
    {XENMEM_populate_physmap, 3, {0x40000, 0x7001}},
    {XENMEM_increase_reservation, 2, {0, 0, 0}},
};

// What the guest can see of these pages, and of its accounts.
std::vector<std::uint64_t> picture(TestDomain& d, const std::vector<std::uint64_t>& gfns) {
    std::vector<std::uint64_t> out = {d.domain.physmap().accounts().current,
                                      d.domain.physmap().accounts().highest_gfn};
    for (const std::uint64_t gfn : gfns) {
        const bool there = d.domain.physmap().is_mapped(gfn);
        out.push_back(there ? d.get<std::uint64_t>(gfn_at(gfn)) : ~std::uint64_t{0});
    }
    return out;
}

// Each extent's ends and the pages beside it.
std::vector<std::uint64_t> around(const Work& w) {
    std::vector<std::uint64_t> out;
    const std::uint64_t pages = std::uint64_t{1} << w.order;
    for (const std::uint64_t gfn : w.gfns) {
        if (gfn != 0) {
            out.insert(out.end(), {gfn - 1, gfn, gfn + pages / 2, gfn + pages - 1, gfn + pages});
        }
    }
    return out;
}

TEST_P(MemoryOpProfiles, ReservationsGoOnUnderEveryProfile) {
    for (const Profile& p : profiles()) {
        for (const Work& w : kWorks) {
            const auto ask = [&](TestDomain& d, vmm::Gva& at) {
                at = d.put_wide<xen_memory_reservation>({.extent_start = d.put_words(w.gfns).value,
                                                         .nr_extents = w.gfns.size(),
                                                         .extent_order = w.order,
                                                         .mem_flags = 0,
                                                         .domid = DOMID_SELF});
                return d.request(HYPERVISOR_memory_op, {w.op, at.value, 3, 4, 5});
            };
            vmm::Gva at;
            const auto whole = under(p);
            const auto expected = whole->run(ask(*whole, at));
            for (const std::uint32_t every : {1u, 3u}) {
                const auto d = under(p, every);
                const auto run = d->run(ask(*d, at));
                EXPECT_EQ(run.result, expected.result) << p.name << " op " << w.op;
                EXPECT_EQ(picture(*d, around(w)), picture(*whole, around(w)))
                    << p.name << " op " << w.op;
                std::uint64_t done = 0;
                for (const Reissue& stop : run.stops) {
                    done += every;
                    EXPECT_EQ(stop.args[0], (done << p.memory_op_shift) | w.op) << p.name;
                }
                // The structure is the guest's, but for 3.0.3, which moves its handle.
                const auto list = whole->get_wide<xen_memory_reservation>(at).extent_start;
                const auto after = d->get_wide<xen_memory_reservation>(at);
                EXPECT_EQ(after.extent_start,
                          list + (p.memory_op_moves_handle ? done * d->word_bytes() : 0))
                    << p.name;
                EXPECT_EQ(after.nr_extents, w.gfns.size());
            }
        }
    }
}

TEST_P(MemoryOpProfiles, RangesGoOnUnderEveryProfile) {
    for (const Profile& p : profiles()) {
        if (!p.since(4, 2)) continue;
        // Up over itself, down over itself, apart; with a hole that ends it.
        struct Move {
            std::uint64_t idx, gpfn, hole;
        };
        std::vector<std::uint64_t> seen;
        for (std::uint64_t i = 0; i < 10; ++i) {
            seen.insert(seen.end(), {0x7000 + i, 0x7100 + i});
        }
        for (const Move& m : {Move{0x7000, 0x7002, 0}, Move{0x7002, 0x7000, 0},
                              Move{0x7000, 0x7100, 0}, Move{0x7000, 0x7100, 0x7004}}) {
            const auto ask = [&](TestDomain& d, vmm::Gva& at) {
                for (std::uint64_t gfn = 0x7000; gfn < 0x7008; ++gfn) {
                    d.poke(gfn_at(gfn), gfn);
                }
                if (m.hole != 0) {
                    EXPECT_TRUE(d.domain.physmap().decrease(m.hole));
                }
                at = d.put_wide<xen_add_to_physmap>({.domid = DOMID_SELF,
                                                     .size = 6,
                                                     .space = XENMAPSPACE_gmfn_range,
                                                     .idx = m.idx,
                                                     .gpfn = m.gpfn});
                return d.request(HYPERVISOR_memory_op, {XENMEM_add_to_physmap, at.value, 3, 4, 5});
            };
            vmm::Gva at;
            const auto whole = under(p);
            const auto expected = whole->run(ask(*whole, at));
            for (const std::uint32_t every : {1u, 4u}) {
                const auto d = under(p, every);
                const auto run = d->run(ask(*d, at));
                EXPECT_EQ(run.result, expected.result) << p.name;
                EXPECT_EQ(picture(*d, seen), picture(*whole, seen)) << p.name;
                const bool in_register = p.physmap_range == Progress::kRegister;
                std::uint64_t done = 0;
                for (const Reissue& stop : run.stops) {
                    done += every;
                    EXPECT_EQ(stop.args[0], in_register ? (done << 6) | XENMEM_add_to_physmap
                                                        : std::uint64_t{XENMEM_add_to_physmap})
                        << p.name;
                }
                EXPECT_GT(done, 0u);
                const auto after = d->get_wide<xen_add_to_physmap>(at);
                const std::uint64_t moved = in_register ? 0 : done;
                EXPECT_EQ(after.size, 6 - moved) << p.name;
                EXPECT_EQ(after.idx, m.idx + moved) << p.name;
                EXPECT_EQ(after.gpfn, m.gpfn + moved) << p.name;
            }
        }
    }
}

// XSA-111, XSA-454: what a 32-bit caller's registers hold above is not looked at, also on the way
// back in; nor is a 64-bit caller's before 4.17, where it counts.
TEST_P(MemoryOpProfiles, UpperHalvesOfACursor) {
    for (const Profile& p : profiles()) {
        const auto d = under(p);
        const vmm::Gva at =
            d->put_wide<xen_memory_reservation>({.extent_start = d->put_words({0x7000}).value,
                                                 .nr_extents = 1,
                                                 .extent_order = 0,
                                                 .mem_flags = 0,
                                                 .domid = DOMID_SELF});
        Request r = d->request(HYPERVISOR_memory_op, {XENMEM_decrease_reservation, at.value});
        r.args[0] |= std::uint64_t{0xdead} << 32;
        const auto result = TestDomain::result_of(d->enter(r));
        if (d->wide() && p.memory_op_wide_command) {
            EXPECT_EQ(result, static_cast<std::int64_t>(r.args[0] >> 6)) << p.name;
        } else {
            EXPECT_EQ(result, 1) << p.name;
        }
    }
}

// Until 4.7 a 64-bit caller may have anything above the hypercall's number; stopped, RAX holds the
// number alone. The progress is not lost, and no page is taken twice.
TEST_P(MemoryOpProfiles, TheUpperHalfOfTheNumberLosesNoProgress) {
    for (const Profile& p : profiles()) {
        const auto d = under(p, 3);
        if (!d->wide()) continue;
        std::vector<std::uint64_t> gfns;
        for (std::uint64_t gfn = 0x1000; gfn < 0x100a; ++gfn) {
            ASSERT_TRUE(d->domain.physmap().decrease(gfn));
            gfns.push_back(gfn);
        }
        const auto before = d->domain.physmap().accounts().current;
        const vmm::Gva at =
            d->put_wide<xen_memory_reservation>({.extent_start = d->put_words(gfns).value,
                                                 .nr_extents = gfns.size(),
                                                 .extent_order = 0,
                                                 .mem_flags = 0,
                                                 .domid = DOMID_SELF});
        Request r = d->request(HYPERVISOR_memory_op, {XENMEM_populate_physmap, at.value});
        r.number |= std::uint64_t{0xdead'beef} << 32;
        const auto run = d->run(r);
        if (p.wide_numbers) {
            EXPECT_EQ(run.result, kNosys) << p.name;
            continue;
        }
        EXPECT_EQ(run.result, 10) << p.name;
        ASSERT_EQ(run.stops.size(), 3u) << p.name;
        for (const Reissue& stop : run.stops) {
            EXPECT_EQ(stop.number, std::uint64_t{HYPERVISOR_memory_op}) << p.name;
        }
        EXPECT_EQ(d->domain.physmap().accounts().current, before + 10) << p.name;
    }
}

// XSA-45: a vCPU that is wanted elsewhere leaves after a unit, of however many.
TEST_P(MemoryOpProfiles, TheLargestCountsLeaveAfterAUnit) {
    for (const Profile& p : profiles()) {
        const auto d = under(p);
        d->requests = 1;
        const vmm::Gva list = d->put_words({0x6000, 0x6200, 0x6400});
        const vmm::Gva at =
            d->put_wide<xen_memory_reservation>({.extent_start = list.value,
                                                 .nr_extents = UINT32_MAX >> p.memory_op_shift,
                                                 .extent_order = 9,
                                                 .mem_flags = 0,
                                                 .domid = DOMID_SELF});
        const Reply reply = d->call(HYPERVISOR_memory_op, XENMEM_decrease_reservation, at.value);
        const auto* again = std::get_if<Reissue>(&reply);
        ASSERT_NE(again, nullptr) << p.name;
        EXPECT_EQ(again->args[0], (std::uint64_t{1} << p.memory_op_shift) | 1) << p.name;
        EXPECT_FALSE(d->domain.physmap().is_mapped(0x61ff));
        EXPECT_TRUE(d->domain.physmap().is_mapped(0x6200));
    }
}

}  // namespace
}  // namespace xenshim
