// dm_op: what a guest that is no device model hears (golden section I), and, with the privilege,
// the operations whose progress lies in the first buffer.
#include <gtest/gtest.h>

#include "tests/fakes/test_domain.h"
#include "xenshim/abi/device_structs.h"
#include "xenshim/abi/other_numbers.h"

namespace xenshim {
namespace {

using namespace abi;
using fakes::TestDomain;

constexpr std::int64_t kFault = -XEN_EFAULT, kInval = -XEN_EINVAL, kSrch = -XEN_ESRCH,
                       kPerm = -XEN_EPERM, kNotSupp = -XEN_EOPNOTSUPP;
constexpr std::uint64_t kFirst = 0x1000;

struct SetMemType {
    xen_dm_op_header header{XEN_DMOP_set_mem_type, 0};
    xen_dm_op_set_mem_type op{};
};
struct ModifiedMemory {
    xen_dm_op_header header{XEN_DMOP_modified_memory, 0};
    xen_dm_op_modified_memory op{};
};
using Extent = xen_dm_op_modified_memory_extent;

class DmOp : public testing::TestWithParam<Width> {
  protected:
    static TestDomain::Options under(std::string_view profile, bool device_model = false,
                                     std::uint32_t every = 0) {
        TestDomain::Options options;
        options.profile = find_profile(profile);
        options.device_model = device_model;
        // Forced stops alone: the clock of a busy machine adds none.
        options.preempt = {.every = every, .at = {}, .after_us = UINT32_MAX};
        return options;
    }
    struct Buffer {
        vmm::Gva at;
        std::uint64_t size;
    };
    static vmm::Gva put_buffers(TestDomain& guest, const std::vector<Buffer>& buffers) {
        const vmm::Gva list = guest.reserve(64);
        const std::uint64_t bytes = guest.wide() ? 16 : 8;
        for (std::size_t i = 0; i < buffers.size(); ++i) {
            guest.poke_wide<xen_dm_op_buf>(list + i * bytes,
                                           {buffers[i].at.value, buffers[i].size});
        }
        return list;
    }
    static std::int64_t dm(TestDomain& guest, std::uint16_t domid, std::uint64_t count,
                           vmm::Gva buffers) {
        return guest.result(HYPERVISOR_dm_op, domid, count, buffers.value);
    }
    template <class T>
    static std::int64_t run(TestDomain& guest, const T& op, const std::vector<Extent>& more = {},
                            std::uint64_t size = sizeof(T)) {
        const vmm::Gva extents = guest.reserve(4096);
        for (std::size_t i = 0; i < more.size(); ++i) {
            guest.poke(extents + i * sizeof(Extent), more[i]);
        }
        return dm(
            guest, DOMID_SELF, 2,
            put_buffers(guest, {{guest.put(op), size}, {extents, more.size() * sizeof(Extent)}}));
    }
    static std::vector<std::string_view> profiles_with_it() {
        std::vector<std::string_view> names;
        for (const Profile& p : profiles()) {
            if ((p.hypercalls >> HYPERVISOR_dm_op & 1) != 0) names.push_back(p.name);
        }
        return names;
    }
};

INSTANTIATE_TEST_SUITE_P(, DmOp, testing::Values(Width::k32, Width::k64), fakes::width_name);

TEST_P(DmOp, RefusedAsMeasured) {
    TestDomain guest(GetParam());
    const vmm::Gva list = put_buffers(guest, {{guest.put(SetMemType{}), 24}, {}, {}});
    EXPECT_EQ(dm(guest, DOMID_SELF, 1, list), kSrch);
    EXPECT_EQ(dm(guest, TestDomain::kDomid, 1, list), kPerm);
    EXPECT_EQ(dm(guest, 0, 1, list), kInval);
    EXPECT_EQ(dm(guest, 1000, 1, list), kSrch);
    EXPECT_EQ(dm(guest, DOMID_SELF, 0, list), -XEN_ENODATA);
    EXPECT_EQ(dm(guest, 0, 0, TestDomain::unmapped()), -XEN_ENODATA);
    EXPECT_EQ(dm(guest, DOMID_SELF, 3, list), -XEN_E2BIG);
    EXPECT_EQ(dm(guest, DOMID_SELF, 0xffff'ffff, list), -XEN_E2BIG);
    EXPECT_EQ(dm(guest, DOMID_SELF, 1, TestDomain::null()), kFault);
    EXPECT_EQ(dm(guest, DOMID_SELF, 1, TestDomain::unmapped()), kFault);
    // The prototype cuts the domain to 16 bits and the count to 32.
    if (guest.wide()) {
        EXPECT_EQ(guest.result(HYPERVISOR_dm_op, 0x1'0000'0000 | TestDomain::kDomid, 0x1'0000'0001,
                               list.value),
                  kPerm);
    }
}

TEST_P(DmOp, BeforeXen417NoBufferWasNoError) {
    TestDomain guest(GetParam(), under("xen-4.9"));
    EXPECT_EQ(dm(guest, DOMID_SELF, 0, TestDomain::unmapped()), kSrch);
    EXPECT_EQ(dm(guest, TestDomain::kDomid, 0, TestDomain::unmapped()), kPerm);
    TestDomain privileged(GetParam(), under("xen-4.9", true));
    EXPECT_EQ(dm(privileged, DOMID_SELF, 0, TestDomain::unmapped()), kFault);
}

// XSA-239, XSA-506: with fewer or smaller buffers than the operation needs, nothing is read that
// the caller did not give.
TEST_P(DmOp, Xsa239AndXsa506BuffersThatAreTooSmall) {
    for (const auto profile : profiles_with_it()) {
        TestDomain guest(GetParam(), under(profile, true));
        const SetMemType set{.op = {.nr = 1, .mem_type = 1, .pad = 0, .first_pfn = kFirst}};
        for (std::uint64_t size = 0; size < sizeof set; ++size) {
            EXPECT_EQ(run(guest, set, {}, size), kFault) << profile << " " << size;
        }
        EXPECT_EQ(guest.domain.physmap().mem_type(kFirst), MemType::kRamRw) << profile;
        EXPECT_EQ(run(guest, set), 0) << profile;
        EXPECT_EQ(guest.domain.physmap().mem_type(kFirst), MemType::kRamRo) << profile;

        const ModifiedMemory modified{.op = {.nr_extents = 2, .opaque = 0}};
        EXPECT_EQ(run(guest, modified, {{1, 0, kFirst}}), kInval) << profile;
        EXPECT_EQ(run(guest, modified), kInval) << profile;
        const vmm::Gva one = put_buffers(guest, {{guest.put(modified), sizeof modified}});
        EXPECT_EQ(dm(guest, DOMID_SELF, 1, one), kInval) << profile;
        EXPECT_EQ(guest.domain.physmap().modified_pages(), 0u) << profile;
    }
}

TEST_P(DmOp, ArgumentsOfSetMemType) {
    for (const auto profile : profiles_with_it()) {
        TestDomain guest(GetParam(), under(profile, true));
        const auto set = [&](std::uint64_t first, std::uint32_t nr, std::uint16_t type,
                             std::uint16_t pad = 0) {
            return run(guest, SetMemType{.op = {nr, type, pad, first}});
        };
        EXPECT_EQ(set(kFirst, 1, 1), 0);
        EXPECT_EQ(set(kFirst, 1, 1, 1), kInval);
        EXPECT_EQ(set(kFirst, 0, 1), kInval);
        EXPECT_EQ(set(kFirst, 1, 3), kInval);  // HVMMEM_unused
        EXPECT_EQ(set(kFirst, 1, 4), kInval);  // of an ioreq server that there is not
        EXPECT_EQ(set(kFirst, 1, 0xffff), kInval);
        EXPECT_EQ(set(~0ull, 1, 1), kInval);
        EXPECT_EQ(set(~0ull, 2, 1), kInval);
        EXPECT_EQ(set(0, 0xffff'ffff, 1), kInval);
        EXPECT_EQ(set(0xfefff, 2, 1), kInval);
        // XSA-92: no RAM where there is none.
        EXPECT_EQ(set(0xf0000, 1, 0), kInval);
        EXPECT_EQ(set(0xf0000, 1, 2), 0);
        EXPECT_EQ(
            run(guest, SetMemType{.header = {XEN_DMOP_set_mem_type, 1}, .op = {1, 1, 0, kFirst}}),
            kInval);
        for (const std::uint32_t op : {0u, 1u, 10u, 13u, 20u, 21u, 0xffff'ffffu}) {
            EXPECT_EQ(run(guest, SetMemType{.header = {op, 0}}), kNotSupp) << op;
        }
    }
}

TEST_P(DmOp, ArgumentsOfModifiedMemory) {
    TestDomain guest(GetParam(), under("xen-4.17", true));
    const auto modified = [&](std::uint32_t nr, std::uint32_t opaque, std::vector<Extent> extents) {
        return run(guest, ModifiedMemory{.op = {nr, opaque}}, extents);
    };
    EXPECT_EQ(modified(0, 0, {}), 0);
    EXPECT_EQ(modified(2, 0, {{3, 0, kFirst}, {5, 0, 0x2000}}), 0);
    EXPECT_EQ(guest.domain.physmap().modified_pages(), 8u);
    EXPECT_EQ(modified(1, 0, {{1, 1, kFirst}}), kInval);
    EXPECT_EQ(modified(1, 0, {{0, 0, kFirst}}), kInval);
    EXPECT_EQ(modified(1, 0, {{1, 0, ~0ull}}), kInval);
    EXPECT_EQ(modified(1, 0, {{1, 0, 0xff000}}), kInval);
    // The place in the last extent comes from the guest, too.
    EXPECT_EQ(modified(1, 3, {{3, 0, kFirst}}), kInval);
    EXPECT_EQ(modified(1, 0xffff'ffff, {{3, 0, kFirst}}), kInval);
    EXPECT_EQ(guest.domain.physmap().modified_pages(), 8u);
    EXPECT_EQ(modified(1, 2, {{3, 0, kFirst}}), 0);
    EXPECT_EQ(guest.domain.physmap().modified_pages(), 9u);
    EXPECT_EQ(modified(0x1000'0000, 0, {{3, 0, kFirst}}), kInval);
}

// XSA-27's successors: the registers stay as they are, and the buffer says what is left.
TEST_P(DmOp, SetMemTypeStopsInItsBuffer) {
    constexpr std::uint32_t kPages = 1000;
    for (const auto profile : profiles_with_it()) {
        for (const std::uint32_t every : {1u, 2u, 3u, 4u}) {
            TestDomain guest(GetParam(), under(profile, true, every));
            const std::uint32_t step = 256 * every;
            const vmm::Gva at = guest.put(SetMemType{.op = {kPages, 2, 0, kFirst}});
            const vmm::Gva list = put_buffers(guest, {{at, sizeof(SetMemType)}});
            const Request r = guest.request(HYPERVISOR_dm_op,
                                            {DOMID_SELF, 1, list.value, 0x8000'0001, 0xffff'ffff});
            std::uint32_t done = 0;
            const auto run = guest.run(r, [&](const Reissue& again) {
                done += step;
                ASSERT_LT(done, kPages) << profile;
                EXPECT_EQ(again.number, r.number);
                EXPECT_EQ(again.args, r.args) << profile;
                const auto now = guest.get<SetMemType>(at);
                EXPECT_EQ(now.header.op, XEN_DMOP_set_mem_type);
                EXPECT_EQ(now.header.pad, 0u);
                EXPECT_EQ(now.op.nr, kPages - done) << profile;
                EXPECT_EQ(now.op.first_pfn, kFirst + done) << profile;
                EXPECT_EQ(now.op.mem_type, 2);
                EXPECT_EQ(now.op.pad, 0);
            });
            EXPECT_EQ(run.result, 0) << profile;
            EXPECT_EQ(done / step, (kPages - 1) / step) << profile;
            for (std::uint64_t gfn = kFirst - 1; gfn <= kFirst + kPages; ++gfn) {
                const bool in = gfn >= kFirst && gfn < kFirst + kPages;
                ASSERT_EQ(guest.domain.physmap().mem_type(gfn),
                          in ? MemType::kMmioDm : MemType::kRamRw)
                    << profile << " " << gfn;
            }
        }
    }
}

// Extents from the last to the first, 256 pages between two looks: what Xen's loop would leave in
// {nr_extents, opaque} at each stop, written a second time.
TEST_P(DmOp, ModifiedMemoryStopsInItsBuffer) {
    const std::vector<Extent> extents = {{700, 0, kFirst}, {1, 0, 0x2000},   {256, 0, 0x3000},
                                         {255, 0, 0x4000}, {1, 0, 0x4fff},   {512, 0, 0x5000},
                                         {3, 0, 0x6000},   {1000, 0, 0x1800}};
    std::uint64_t all = 0;
    for (const Extent& e : extents) {
        all += e.nr;
    }
    for (const auto profile : profiles_with_it()) {
        for (const std::uint32_t every : {1u, 2u, 5u}) {
            TestDomain guest(GetParam(), under(profile, true, every));
            const vmm::Gva at =
                guest.put(ModifiedMemory{.op = {static_cast<std::uint32_t>(extents.size()), 0}});
            const vmm::Gva second = guest.reserve(extents.size() * sizeof(Extent));
            for (std::size_t i = 0; i < extents.size(); ++i) {
                guest.poke(second + i * sizeof(Extent), extents[i]);
            }
            const vmm::Gva list = put_buffers(
                guest, {{at, sizeof(ModifiedMemory)}, {second, extents.size() * sizeof(Extent)}});
            const Request r =
                guest.request(HYPERVISOR_dm_op, {DOMID_SELF, 2, list.value, 7, 0xffff'ffff});
            std::uint64_t done = 0;
            const auto run = guest.run(r, [&](const Reissue& again) {
                EXPECT_EQ(again.args, r.args) << profile;
                done += 256 * every;
                ASSERT_LT(done, all) << profile;
                EXPECT_EQ(guest.domain.physmap().modified_pages(), done) << profile;
                std::uint64_t gone = done;
                std::size_t left = extents.size();
                while (gone >= extents[left - 1].nr) {
                    gone -= extents[--left].nr;
                }
                const auto now = guest.get<ModifiedMemory>(at);
                EXPECT_EQ(now.op.nr_extents, left) << profile << " after " << done;
                EXPECT_EQ(now.op.opaque, gone) << profile << " after " << done;
            });
            EXPECT_EQ(run.result, 0) << profile;
            EXPECT_EQ(run.stops.size(), (all - 1) / (256 * every)) << profile;
            EXPECT_EQ(guest.domain.physmap().modified_pages(), all) << profile;
        }
    }
}

// XSA-145: stopped inside a multicall, the entry is the one that goes on.
TEST_P(DmOp, Xsa145InsideAMulticall) {
    TestDomain guest(GetParam(), under("xen-4.17", true, 1));
    const vmm::Gva at = guest.put(SetMemType{.op = {600, 1, 0, kFirst}});
    const vmm::Gva buffers = put_buffers(guest, {{at, sizeof(SetMemType)}});
    const vmm::Gva list = guest.put_wide<multicall_entry>(
        {HYPERVISOR_dm_op, 0x77, {DOMID_SELF, 1, buffers.value, 4, 5, 6}});
    const Request r = guest.request(HYPERVISOR_multicall, {list.value, 1});
    for (const std::uint32_t done : {256u, 512u}) {
        const Reply reply = guest.enter(r);
        const auto* again = std::get_if<Reissue>(&reply);
        ASSERT_NE(again, nullptr);
        EXPECT_EQ(again->args, r.args);
        const auto entry = guest.get_wide<multicall_entry>(list);
        EXPECT_EQ(entry.result, std::uint64_t{HYPERVISOR_dm_op});
        EXPECT_EQ(entry.args,
                  (std::array<std::uint64_t, 6>{DOMID_SELF, 1, buffers.value, 4, 5, 6}));
        EXPECT_EQ(guest.get<SetMemType>(at).op.nr, 600 - done);
        EXPECT_EQ(guest.get<SetMemType>(at).op.first_pfn, kFirst + done);
    }
    EXPECT_EQ(TestDomain::result_of(guest.enter(r)), 0);
    EXPECT_EQ(guest.get_wide<multicall_entry>(list).result, 0u);
    EXPECT_EQ(guest.domain.physmap().mem_type(kFirst + 599), MemType::kRamRo);
    EXPECT_EQ(guest.domain.physmap().mem_type(kFirst + 600), MemType::kRamRw);
}

TEST_P(DmOp, AParkedFrameIsFinishedByAnotherVcpu) {
    TestDomain::Options first = under("xen-4.17", true, 1);
    TestDomain guest(GetParam(), first);
    const vmm::Gva at = guest.put(SetMemType{.op = {600, 1, 0, kFirst}});
    const vmm::Gva list = put_buffers(guest, {{at, sizeof(SetMemType)}});
    const Request r = guest.request(HYPERVISOR_dm_op, {DOMID_SELF, 1, list.value});
    ASSERT_TRUE(std::holds_alternative<Reissue>(guest.enter(r)));
    // The guest shortens what is left, and another of its vCPUs goes on.
    auto parked = guest.get<SetMemType>(at);
    parked.op.nr = 10;
    guest.poke(at, parked);
    guest.caller = 1;
    EXPECT_EQ(TestDomain::result_of(guest.enter(r)), 0);
    EXPECT_EQ(guest.domain.physmap().mem_type(kFirst + 265), MemType::kRamRo);
    EXPECT_EQ(guest.domain.physmap().mem_type(kFirst + 266), MemType::kRamRw);
}

TEST_P(DmOp, ABufferThatCannotBeWrittenBack) {
    TestDomain guest(GetParam(), under("xen-4.17", true, 1));
    const vmm::Gva at = guest.reserve(4096, 4096);
    guest.poke(at, SetMemType{.op = {600, 1, 0, kFirst}});
    const vmm::Gva list = put_buffers(guest, {{at, sizeof(SetMemType)}});
    guest.access.read_only.insert(at.value >> vmm::kPageShift);
    EXPECT_EQ(dm(guest, DOMID_SELF, 1, list), kFault);
}

// XSA-166's class: what is judged is what was read, once.
TEST_P(DmOp, TheBufferIsReadOnce) {
    TestDomain guest(GetParam(), under("xen-4.17", true));
    const vmm::Gva at = guest.put(SetMemType{.op = {1, 1, 0, kFirst}});
    const vmm::Gva list = put_buffers(guest, {{at, sizeof(SetMemType)}});
    guest.access.forget();
    EXPECT_EQ(dm(guest, DOMID_SELF, 1, list), 0);
    EXPECT_FALSE(guest.access.looked_twice());
}

}  // namespace
}  // namespace xenshim
