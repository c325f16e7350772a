// hvm_op under every profile: which numbers exist, what the masks of 4.5 to 4.8 make of them, who
// is refused with what; and modified_memory and set_mem_type with their continuations.
#include <gtest/gtest.h>

#include "tests/fakes/test_domain.h"
#include "xenshim/abi/continuation.h"
#include "xenshim/abi/device_structs.h"
#include "xenshim/abi/other_numbers.h"

namespace xenshim {
namespace {

using namespace abi;
using fakes::FakePorts;
using fakes::TestDomain;

constexpr std::int64_t kFault = -XEN_EFAULT, kInval = -XEN_EINVAL, kNosys = -XEN_ENOSYS,
                       kSrch = -XEN_ESRCH, kPerm = -XEN_EPERM, kNotSupp = -XEN_EOPNOTSUPP;
constexpr std::uint64_t kUnmapped = TestDomain::kUnmapped;

class HvmOpOf : public testing::TestWithParam<Width> {
  protected:
    static TestDomain::Options under(std::string_view profile) {
        TestDomain::Options options;
        options.profile = find_profile(profile);
        return options;
    }
    static TestDomain::Options as_device_model(std::string_view profile, std::uint32_t every = 0) {
        TestDomain::Options options = under(profile);
        options.device_model = true;
        // Forced stops alone: the clock of a busy machine adds none.
        options.preempt = {.every = every, .at = {}, .after_us = UINT32_MAX};
        return options;
    }
    static std::int64_t hvm(TestDomain& guest, std::uint64_t op, std::uint64_t arg) {
        return guest.result(HYPERVISOR_hvm_op, op, arg);
    }
    static vmm::Gva words(TestDomain& guest, std::uint16_t domid) {
        return guest.put(std::array<std::uint64_t, 16>{domid});
    }
};

INSTANTIATE_TEST_SUITE_P(, HvmOpOf, testing::Values(Width::k32, Width::k64), fakes::width_name);

// ---- which numbers exist ------------------------------------------------------------------------

TEST_P(HvmOpOf, ARequestToNobodyIsHeardAndHasNoArgument) {
    TestDomain guest(GetParam());
    EXPECT_EQ(hvm(guest, HVMOP_guest_request_vm_event, 0), 0);
    EXPECT_EQ(hvm(guest, HVMOP_guest_request_vm_event, kUnmapped), kInval);
    EXPECT_EQ(hvm(guest, HVMOP_guest_request_vm_event, words(guest, DOMID_SELF).value), kInval);
}

TEST_P(HvmOpOf, Since49TheDeviceModelsNumbersAreGone) {
    for (const Profile& profile : profiles()) {
        TestDomain guest(GetParam(), under(profile.name));
        const std::uint64_t self = words(guest, DOMID_SELF).value;
        for (const std::uint64_t op : std::initializer_list<std::uint64_t>{
                 HVMOP_set_pci_intx_level, HVMOP_set_isa_irq_level, HVMOP_set_pci_link_route,
                 HVMOP_track_dirty_vram, HVMOP_modified_memory, HVMOP_set_mem_type,
                 HVMOP_inject_trap, HVMOP_inject_msi, HVMOP_create_ioreq_server,
                 HVMOP_get_ioreq_server_info, HVMOP_map_io_range_to_ioreq_server,
                 HVMOP_unmap_io_range_from_ioreq_server, HVMOP_destroy_ioreq_server,
                 HVMOP_set_ioreq_server_state}) {
            const auto unmapped = hvm(guest, op, kUnmapped);
            if (!profile.hvm_device_ops) {
                EXPECT_EQ(unmapped, kNosys) << profile.name << " " << op;
                EXPECT_EQ(hvm(guest, op, self), kNosys) << profile.name << " " << op;
            } else if (unmapped != kNosys) {  // it came with a later release
                EXPECT_EQ(unmapped, kFault) << profile.name << " " << op;
            }
        }
    }
}

TEST_P(HvmOpOf, HowOldEachNumberIs) {
    struct Row {
        std::uint64_t op;
        std::string_view last_without, first_with;
    };
    const Row rows[] = {
        {9, "xen-4.0", "xen-4.1"},  {10, "xen-3.4", "xen-4.0"},
        {11, "xen-3.4", "xen-4.0"}, {14, "xen-4.0", "xen-4.1"},
        {15, "xen-4.0", "xen-4.1"}, {16, "xen-4.1", "xen-4.2"},
        {17, "xen-4.4", "xen-4.5"}, {22, "xen-4.4", "xen-4.5"},
        {23, "xen-4.5", "xen-4.6"}, {24, "xen-4.5", "xen-4.6"},
        {25, "xen-4.5", "xen-4.6"}, {8, "xen-3.3", "xen-3.4"},
        {12, "xen-4.5", "xen-4.4"}, {HVMOP_get_mem_access, "xen-4.5-rc", "xen-4.4"}};
    for (const Row& row : rows) {
        TestDomain without(GetParam(), under(row.last_without));
        EXPECT_EQ(hvm(without, row.op, kUnmapped), kNosys) << row.op;
        TestDomain with(GetParam(), under(row.first_with));
        EXPECT_NE(hvm(with, row.op, kUnmapped), kNosys) << row.op;
    }
}

TEST_P(HvmOpOf, FlushTlbsAndAnArgument) {
    for (const Profile& profile : profiles()) {
        TestDomain guest(GetParam(), under(profile.name));
        EXPECT_EQ(hvm(guest, HVMOP_flush_tlbs, 0), 0) << profile.name;
        const auto refused = profile.since(4, 8) ? kInval : kNosys;
        EXPECT_EQ(hvm(guest, HVMOP_flush_tlbs, kUnmapped), refused) << profile.name;
    }
}

// ---- masks (xen-abi.md 2.7, 2.11 c) -------------------------------------------------------------

TEST_P(HvmOpOf, From45To48ACursorOnOperations7And8IsACursor) {
    for (const Profile& profile : profiles()) {
        const bool masked = profile.hvm_op_mask != HvmOpMask::kNone;
        TestDomain guest(GetParam(), under(profile.name));
        const std::uint64_t self = words(guest, DOMID_SELF).value;
        const std::uint64_t own = words(guest, TestDomain::kDomid).value;
        const std::uint64_t dom0 = words(guest, 0).value;
        for (const std::uint64_t op : {0x107, 0x207, 0x108, 0x208, 0x2408}) {
            EXPECT_EQ(hvm(guest, op, kUnmapped), masked ? kFault : kNosys) << profile.name;
            EXPECT_EQ(hvm(guest, op, self), masked ? kSrch : kNosys) << profile.name;
            EXPECT_EQ(hvm(guest, op, own), masked ? kPerm : kNosys) << profile.name;
            EXPECT_EQ(hvm(guest, op, dom0), masked ? kInval : kNosys) << profile.name;
        }
        if (profile.hvm_op_mask == HvmOpMask::kEvery) continue;
        for (const std::uint64_t op : {0x100, 0x101, 0x104, 0x105, 0x106, 0x109, 0x10f, 0x117}) {
            EXPECT_EQ(hvm(guest, op, self), kNosys) << profile.name << " " << op;
            EXPECT_EQ(hvm(guest, op, 0), kNosys) << profile.name << " " << op;
        }
    }
}

// The release candidates of 4.5: XenServer's numbers became others, which never succeed.
TEST_P(HvmOpOf, Xen45rcTakesXenServersNumbersForInterruptLevels) {
    TestDomain guest(GetParam(), under("xen-4.5-rc"));
    // {domid u16, isa_irq u8, level u8}: a driver's build number.
    const auto set_version = [&](std::uint32_t build) {
        return hvm(guest, HVMOP_set_driver_version, guest.put(build).value);
    };
    EXPECT_EQ(set_version(0xff10'0000u | 1000), kInval);  // no such interrupt, before the domain
    EXPECT_EQ(set_version(0x0005'0000u | 1000), kSrch);
    EXPECT_EQ(set_version(0x0005'0000u | TestDomain::kDomid), kPerm);
    EXPECT_EQ(set_version(0x0005'0000u), kInval);  // domain 0 is not an HVM domain
    EXPECT_EQ(hvm(guest, HVMOP_set_driver_version, kUnmapped), kFault);
    for (std::uint32_t build = 0; build < 0x40'0000; build += 0x3fd) {
        EXPECT_LT(set_version(build), 0) << build;
    }
    // {cr3 u64}: {domid, domain, bus, device, intx, level}.
    const auto dying = [&](std::uint64_t cr3) {
        return hvm(guest, HVMOP_process_dying, guest.put(cr3).value);
    };
    EXPECT_EQ(dying(0x1'8500'0000), kInval);  // bus 0x85
    EXPECT_EQ(dying(1000), kSrch);
    EXPECT_EQ(dying(TestDomain::kDomid), kPerm);
    EXPECT_FALSE(guest.domain.quirks().latched);
    // Every other number loses its upper bits as well.
    EXPECT_EQ(hvm(guest, 0x100 | HVMOP_flush_tlbs, 0), 0);
    EXPECT_EQ(hvm(guest, 0x100 | HVMOP_get_param, kUnmapped), kFault);
}

// ---- who is refused with what (rcu_lock_remote_domain_by_id and its ancestors) ------------------

TEST_P(HvmOpOf, DeviceOperationsAreRefusedInXensOrder) {
    for (const Profile& profile : profiles()) {
        if (!profile.hvm_device_ops) continue;
        TestDomain guest(GetParam(), under(profile.name));
        const auto for_self = profile.since(4, 0) ? kSrch : kPerm;
        const auto for_dom0 = profile.since(4, 3) ? kInval : kPerm;
        for (const std::uint64_t op : {2, 3, 4, 6, 7, 8, 12, 13, 14, 16, 17, 18, 19, 20, 21, 22}) {
            if (hvm(guest, op, kUnmapped) == kNosys) continue;
            EXPECT_EQ(hvm(guest, op, kUnmapped), kFault) << profile.name << " " << op;
            const auto answer = [&](std::uint16_t domid) {
                return hvm(guest, op, words(guest, domid).value);
            };
            EXPECT_EQ(answer(DOMID_SELF), for_self) << profile.name << " " << op;
            EXPECT_EQ(answer(TestDomain::kDomid), kPerm) << profile.name << " " << op;
            EXPECT_EQ(answer(0), for_dom0) << profile.name << " " << op;
            EXPECT_EQ(answer(1000), kSrch) << profile.name << " " << op;
            EXPECT_EQ(answer(0x7ff1), kSrch) << profile.name << " " << op;
        }
    }
}

// XSA-96's class and its neighbours: numbers of lines and devices are judged before anything else.
TEST_P(HvmOpOf, InterruptNumbersOutOfRangeComeBeforeTheDomain) {
    TestDomain guest(GetParam(), under("xen-4.8"));
    const auto with = [&](std::uint64_t op, std::array<std::uint8_t, 8> arg) {
        return hvm(guest, op, guest.put(arg).value);
    };
    const auto bytes = [](std::uint8_t a, std::uint8_t b, std::uint8_t c, std::uint8_t d) {
        return std::array<std::uint8_t, 8>{0xe8, 3, a, b, c, d, 0, 0};  // domain 1000
    };
    EXPECT_EQ(with(HVMOP_set_pci_intx_level, bytes(0, 0, 31, 3)), kSrch);
    EXPECT_EQ(with(HVMOP_set_pci_intx_level, bytes(1, 0, 0, 0)), kInval);
    EXPECT_EQ(with(HVMOP_set_pci_intx_level, bytes(0, 1, 0, 0)), kInval);
    EXPECT_EQ(with(HVMOP_set_pci_intx_level, bytes(0, 0, 32, 0)), kInval);
    EXPECT_EQ(with(HVMOP_set_pci_intx_level, bytes(0, 0, 0, 4)), kInval);
    EXPECT_EQ(with(HVMOP_set_isa_irq_level, bytes(15, 1, 0, 0)), kSrch);
    EXPECT_EQ(with(HVMOP_set_isa_irq_level, bytes(16, 1, 0, 0)), kInval);
    EXPECT_EQ(with(HVMOP_set_pci_link_route, bytes(3, 15, 0, 0)), kSrch);
    EXPECT_EQ(with(HVMOP_set_pci_link_route, bytes(4, 0, 0, 0)), kInval);
    EXPECT_EQ(with(HVMOP_set_pci_link_route, bytes(0, 16, 0, 0)), kInval);
}

// Until 4.2 a guest could name itself only as DOMID_SELF.
TEST_P(HvmOpOf, TheDomainOfAParameter) {
    for (const Profile& profile : profiles()) {
        TestDomain guest(GetParam(), under(profile.name));
        guest.domain.params().put(HVM_PARAM_STORE_PFN, 0xfeffc);
        const auto get = [&](std::uint16_t domid, std::uint32_t index) {
            return hvm(guest, HVMOP_get_param, guest.put(xen_hvm_param{domid, 0, index, 0}).value);
        };
        const bool modern = profile.since(4, 3);
        EXPECT_EQ(get(DOMID_SELF, HVM_PARAM_STORE_PFN), 0) << profile.name;
        EXPECT_EQ(get(TestDomain::kDomid, HVM_PARAM_STORE_PFN), modern ? 0 : kPerm) << profile.name;
        EXPECT_EQ(get(0, HVM_PARAM_STORE_PFN), modern ? kInval : kPerm) << profile.name;
        EXPECT_EQ(get(1000, HVM_PARAM_STORE_PFN), kSrch) << profile.name;
        EXPECT_EQ(get(1000, profile.hvm_params), kInval) << profile.name;
    }
}

// ---- the device model's privilege: modified_memory and set_mem_type -----------------------------

constexpr std::uint64_t kFirst = 0x1000;  // RAM that nothing else of these tests is on

std::uint16_t type_of(TestDomain& guest, std::uint64_t gfn) {
    return static_cast<std::uint16_t>(guest.domain.physmap().mem_type(gfn));
}

vmm::Gva put_range(TestDomain& guest, std::uint64_t first, std::uint32_t count,
                   std::uint16_t type) {
    if (guest.domain.profile().since(4, 5)) {
        return guest.put(xen_hvm_memory_range{DOMID_SELF, type, count, first});
    }
    return guest.put(xen_hvm_memory_range_4_4{DOMID_SELF, 0, type, first, count});
}

// Under the profiles that have the operation as an hvm_op.
std::vector<std::string_view> hvm_profiles() {
    std::vector<std::string_view> names;
    for (const Profile& p : profiles()) {
        if (p.hvm_device_ops && p.since(4, 1)) names.push_back(p.name);
    }
    return names;
}

TEST_P(HvmOpOf, SetMemTypeIsWhatGetMemTypeAnswers) {
    for (const auto profile : hvm_profiles()) {
        TestDomain guest(GetParam(), as_device_model(profile));
        const auto set = [&](std::uint64_t first, std::uint32_t count, std::uint16_t type) {
            return hvm(guest, HVMOP_set_mem_type, put_range(guest, first, count, type).value);
        };
        const auto get = [&](std::uint64_t pfn) {
            const vmm::Gva at = guest.put(xen_hvm_get_mem_type{DOMID_SELF, 0xeeee, 0, pfn});
            EXPECT_EQ(hvm(guest, HVMOP_get_mem_type, at.value), 0);
            return guest.get<xen_hvm_get_mem_type>(at).mem_type;
        };
        EXPECT_EQ(set(kFirst, 3, 1), 0) << profile;
        EXPECT_EQ(set(kFirst + 1, 1, 2), 0) << profile;
        EXPECT_EQ(get(kFirst - 1), 0);
        EXPECT_EQ(get(kFirst), 1);
        EXPECT_EQ(get(kFirst + 1), 2);
        EXPECT_EQ(get(kFirst + 2), 1);
        EXPECT_EQ(get(kFirst + 3), 0);
        EXPECT_EQ(set(kFirst, 1, 0), 0);
        EXPECT_EQ(get(kFirst), 0);
        // A page that goes takes its type with it.
        EXPECT_TRUE(guest.domain.physmap().decrease(kFirst + 2));
        EXPECT_EQ(get(kFirst + 2), 2);
        EXPECT_TRUE(guest.domain.physmap().populate(kFirst + 2));
        EXPECT_EQ(get(kFirst + 2), 0);
    }
}

// XSA-92: a hole cannot be given a type that says that there is RAM; XSA-28's class: a type that
// there is not.
TEST_P(HvmOpOf, Xsa92OnlyTransitionsThatLeaveNoHoleMapped) {
    for (const auto profile : hvm_profiles()) {
        TestDomain guest(GetParam(), as_device_model(profile));
        const auto set = [&](std::uint64_t first, std::uint32_t count, std::uint16_t type) {
            return hvm(guest, HVMOP_set_mem_type, put_range(guest, first, count, type).value);
        };
        constexpr std::uint64_t kHole = 0xf0000;
        EXPECT_EQ(set(kHole, 1, 0), kInval) << profile;
        EXPECT_EQ(set(kHole, 1, 1), kInval) << profile;
        EXPECT_EQ(set(kHole, 1, 2), 0) << profile;
        EXPECT_EQ(set(kFirst, 1, 2), 0) << profile;
        EXPECT_EQ(set(kFirst, 1, 0), kInval) << profile;  // what is mmio_dm is no RAM any more
        EXPECT_EQ(set(kFirst, 1, 2), 0) << profile;
        for (const std::uint16_t type :
             std::initializer_list<std::uint16_t>{3, 4, 5, 0x100, 0xffff}) {
            EXPECT_EQ(set(kFirst + 1, 1, type), kInval) << profile << " " << type;
        }
        EXPECT_EQ(type_of(guest, kFirst + 1), 0);
        // What was done before the page that cannot be changed stays done.
        EXPECT_EQ(set(0x7fff, 2, 1), kInval);
        EXPECT_EQ(type_of(guest, 0x7fff), 1);
    }
}

// A page that a grant shows is neither RAM of the map nor a hole in it (p2m_grant_map_*).
TEST_P(HvmOpOf, AGrantedPageHasNoTypeToChange) {
    for (const auto profile : hvm_profiles()) {
        TestDomain guest(GetParam(), as_device_model(profile));
        std::uint32_t page = 0;
        ASSERT_EQ(guest.domain.physmap().adopt(0x7000, kFirst, &page), Physmap::Shown::kDone);
        for (const std::uint16_t type : std::initializer_list<std::uint16_t>{0, 1, 2}) {
            EXPECT_EQ(hvm(guest, HVMOP_set_mem_type, put_range(guest, kFirst, 1, type).value),
                      kInval)
                << profile << " " << type;
        }
        EXPECT_EQ(guest.domain.physmap().mem_type(kFirst), MemType::kRamRw) << profile;
        // It is the mapping that says whether it is to be written to.
        auto& physmap = guest.domain.physmap();
        EXPECT_EQ(physmap.show_adopted(page, kFirst + 1, MemType::kRamRo), Physmap::Shown::kDone);
        EXPECT_EQ(physmap.mem_type(kFirst + 1), MemType::kRamRo) << profile;
        EXPECT_TRUE(physmap.hide_adopted(page, kFirst + 1));
        EXPECT_EQ(physmap.mem_type(kFirst + 1), MemType::kMmioDm) << profile;
        EXPECT_TRUE(physmap.populate(kFirst + 1));
        EXPECT_EQ(physmap.mem_type(kFirst + 1), MemType::kRamRw) << profile;
    }
}

// XSA-238's class: ranges that end before they start, or behind the last gfn.
TEST_P(HvmOpOf, Xsa238RangesThatWrapOrEndOutside) {
    for (const auto profile : hvm_profiles()) {
        TestDomain guest(GetParam(), as_device_model(profile));
        for (const std::uint64_t op : {HVMOP_modified_memory, HVMOP_set_mem_type}) {
            const auto with = [&](std::uint64_t first, std::uint32_t count) {
                return hvm(guest, op, put_range(guest, first, count, 0).value);
            };
            EXPECT_EQ(with(kFirst, 0), kInval) << profile;
            EXPECT_EQ(with(0, 0), kInval) << profile;
            EXPECT_EQ(with(0xfefff, 2), kInval) << profile;
            EXPECT_EQ(with(0xfefff, 1), 0) << profile;
            EXPECT_EQ(with(~0ull, 1), kInval) << profile;
            EXPECT_EQ(with(~0ull, 2), kInval) << profile;
            EXPECT_EQ(with(0, 0xffff'ffff), kInval) << profile;
            EXPECT_EQ(with(1ull << 32, 1), kInval) << profile;
        }
    }
}

// Also what keeps lists of ranges (XSA-428, XSA-491 of those of an ioreq server): there is none.
TEST_P(HvmOpOf, ThePrivilegeIsForTheGuestItselfAndForTheseOnly) {
    TestDomain guest(GetParam(), as_device_model("xen-4.8"));
    for (const std::uint16_t domid : {std::uint16_t{0x7ff0}, TestDomain::kDomid}) {
        EXPECT_EQ(hvm(guest, HVMOP_set_mem_type,
                      guest.put(xen_hvm_memory_range{domid, 1, 1, kFirst}).value),
                  0);
    }
    EXPECT_EQ(
        hvm(guest, HVMOP_set_mem_type, guest.put(xen_hvm_memory_range{0, 1, 1, kFirst}).value),
        kInval);
    EXPECT_EQ(
        hvm(guest, HVMOP_set_mem_type, guest.put(xen_hvm_memory_range{1000, 1, 1, kFirst}).value),
        kSrch);
    for (const std::uint64_t op : {2, 3, 4, 6, 14, 16, 17, 18, 19, 20, 21, 22}) {
        EXPECT_EQ(hvm(guest, op, words(guest, DOMID_SELF).value), kPerm) << op;
    }
}

// ---- continuations ------------------------------------------------------------------------------

constexpr std::uint32_t kPages = 1000;

// XSA-27: long ranges stop, at each place that the release's encoding can say; every frozen frame
// is what the formula says; the end is that of an uninterrupted call.
TEST_P(HvmOpOf, Xsa27EveryStopIsTheReleasesOwnAndLosesNothing) {
    for (const auto profile : hvm_profiles()) {
        for (const std::uint64_t op : {HVMOP_modified_memory, HVMOP_set_mem_type}) {
            for (const std::uint32_t every : {1u, 2u, 7u}) {
                TestDomain guest(GetParam(), as_device_model(profile, every));
                const bool in_register =
                    guest.domain.profile().hvm_memory_progress == Progress::kRegister;
                const std::uint32_t step = in_register ? 256 * every : every;
                const vmm::Gva at = put_range(guest, kFirst, kPages, 1);
                const auto before = guest.bytes(at, 24);
                const Request r = guest.request(HYPERVISOR_hvm_op,
                                                {op, at.value, 0x1111, 0xffff'ffff, 0x8000'0000});
                std::uint32_t done = 0;
                const auto run = guest.run(r, [&](const Reissue& again) {
                    done += step;
                    ASSERT_LT(done, kPages) << profile;
                    EXPECT_EQ(again.number, std::uint64_t{HYPERVISOR_hvm_op});
                    EXPECT_EQ(again.args[0], in_register ? op | done : op) << profile;
                    for (unsigned i = 1; i < 5; ++i) {
                        EXPECT_EQ(again.args[i], r.args[i]) << profile << " argument " << i;
                    }
                    if (in_register) {
                        EXPECT_EQ(guest.bytes(at, 24), before) << profile;
                    } else {
                        const auto now = guest.get<xen_hvm_memory_range_4_4>(at);
                        EXPECT_EQ(now.domid, DOMID_SELF);
                        EXPECT_EQ(now.hvmmem_type, 1u);
                        EXPECT_EQ(now.first_pfn, kFirst + done) << profile;
                        EXPECT_EQ(now.nr, kPages - done) << profile;
                    }
                    if (op == HVMOP_set_mem_type) {
                        EXPECT_EQ(type_of(guest, kFirst + done - 1), 1) << profile;
                        EXPECT_EQ(type_of(guest, kFirst + done), 0) << profile;
                    }
                });
                EXPECT_EQ(run.result, 0) << profile;
                EXPECT_EQ(done / step, (kPages - 1) / step) << profile;
                if (op == HVMOP_modified_memory) {
                    EXPECT_EQ(guest.domain.physmap().modified_pages(), kPages) << profile;
                    continue;
                }
                for (std::uint64_t gfn = kFirst - 1; gfn <= kFirst + kPages; ++gfn) {
                    const bool in = gfn >= kFirst && gfn < kFirst + kPages;
                    ASSERT_EQ(type_of(guest, gfn), in ? 1 : 0) << profile << " " << gfn;
                }
            }
        }
    }
}

// XSA-264, XSA-290: whatever the range is, an event for this vCPU ends the entry at the next place
// where the encoding can say so, and each entry gets on.
TEST_P(HvmOpOf, Xsa264AndXsa290APendingEventEndsTheEntry) {
    for (const auto profile : hvm_profiles()) {
        TestDomain guest(GetParam(), as_device_model(profile));
        guest.requests = 1;
        const bool in_register = guest.domain.profile().hvm_memory_progress == Progress::kRegister;
        const std::uint64_t step = in_register ? 256 : 1;
        constexpr std::uint32_t kAllRam = FakePorts::kRamPages;
        const Request r = guest.request(
            HYPERVISOR_hvm_op, {HVMOP_modified_memory, put_range(guest, 0, kAllRam, 0).value});
        const Reply reply = guest.enter(r);
        ASSERT_TRUE(std::holds_alternative<Reissue>(reply)) << profile;
        EXPECT_EQ(guest.domain.physmap().modified_pages(), step) << profile;
        Request again = r;
        again.args = std::get<Reissue>(reply).args;
        ASSERT_TRUE(std::holds_alternative<Reissue>(guest.enter(again))) << profile;
        EXPECT_EQ(guest.domain.physmap().modified_pages(), 2 * step) << profile;
    }
}

// XSA-89: nobody walks 4 G pages for an operation that is refused anyway.
TEST_P(HvmOpOf, Xsa89SetMemAccessOfEveryPageIsRefusedAtOnce) {
    TestDomain guest(GetParam(), as_device_model("xen-4.4"));
    EXPECT_EQ(hvm(guest, HVMOP_set_mem_access,
                  guest.put(xen_hvm_memory_range{DOMID_SELF, 0, 0xffff'ffff, 0}).value),
              kPerm);
}

// XSA-111, XSA-454: a 32-bit caller's frame has no upper halves, however far the cursor is.
TEST_P(HvmOpOf, Xsa111AndXsa454TheCursorStaysInTheCallersRegister) {
    const Profile& profile = *find_profile("xen-4.7");
    const Request r{.number = HYPERVISOR_hvm_op,
                    .args = {HVMOP_set_mem_type, 0xffff'fff0, 0xffff'ffff, 0x8000'0000, 1},
                    .width = Width::k32};
    for (const std::uint64_t units : {0x100ull, 0x7fff'ff00ull, 0xffff'ff00ull}) {
        const Reissue again = encode_continuation(profile, r, {.units_done = units}).registers;
        EXPECT_EQ(again.args[0], units | HVMOP_set_mem_type);
        EXPECT_EQ(decode_hvm_op(profile, again.args[0]), (Command{HVMOP_set_mem_type, units}));
        for (unsigned i = 1; i < 5; ++i) {
            EXPECT_EQ(again.args[i], r.args[i]) << i;
        }
    }
}

// XSA-116: a domain that is at its end still answers, and nothing of it is used after it is gone.
TEST_P(HvmOpOf, Xsa116ParametersOfADomainThatIsEnding) {
    TestDomain guest(GetParam());
    guest.domain.shutdown(SHUTDOWN_poweroff);
    EXPECT_EQ(hvm(guest, HVMOP_set_param,
                  guest.put(xen_hvm_param{DOMID_SELF, 0, HVM_PARAM_STORE_EVTCHN, 5}).value),
              0);
    EXPECT_EQ(guest.domain.params().peek(HVM_PARAM_STORE_EVTCHN), 5u);
}

// XSA-166, XSA-262: what is judged is what was read, once.
TEST_P(HvmOpOf, Xsa166AndXsa262ArgumentsAreReadOnce) {
    for (const auto profile : hvm_profiles()) {
        for (const std::uint64_t op : {2, 3, 4, 6, 7, 8, 14, 15, 16, 17, 22}) {
            TestDomain guest(GetParam(), as_device_model(profile));
            const std::uint64_t at = words(guest, DOMID_SELF).value;
            guest.access.forget();
            hvm(guest, op, at);
            EXPECT_FALSE(guest.access.looked_twice()) << profile << " " << op;
        }
    }
}

// Needless continuations are a defect: without a reason there is none.
TEST_P(HvmOpOf, NothingPendingNoStop) {
    for (const auto profile : hvm_profiles()) {
        TestDomain guest(GetParam(), as_device_model(profile));
        const Reply reply = guest.call(HYPERVISOR_hvm_op, HVMOP_modified_memory,
                                       put_range(guest, kFirst, kPages, 0).value);
        EXPECT_EQ(TestDomain::result_of(reply), 0) << profile;
    }
}

TEST_P(HvmOpOf, ALastWholeStepEndsTheCall) {
    TestDomain guest(GetParam(), as_device_model("xen-4.8", 1));
    const auto run = guest.run(guest.request(
        HYPERVISOR_hvm_op, {HVMOP_modified_memory, put_range(guest, kFirst, 512, 0).value}));
    EXPECT_EQ(run.result, 0);
    EXPECT_EQ(run.stops.size(), 1u);  // not before a page that there is not
}

// The cursor comes back from the guest's registers and is judged like any other number.
TEST_P(HvmOpOf, ACursorThatTheGuestEdited) {
    TestDomain guest(GetParam(), as_device_model("xen-4.7"));
    const auto with = [&](std::uint64_t start, std::uint32_t count) {
        return hvm(guest, HVMOP_set_mem_type | start, put_range(guest, kFirst, count, 1).value);
    };
    EXPECT_EQ(with(0x400, 1023), kInval);  // behind the end
    EXPECT_EQ(type_of(guest, kFirst), 0);
    EXPECT_EQ(with(0x400, 1024), 0);  // at the end: nothing left
    EXPECT_EQ(type_of(guest, kFirst), 0);
    EXPECT_EQ(with(0x100, 0x102), 0);
    EXPECT_EQ(type_of(guest, kFirst + 0xff), 0);
    EXPECT_EQ(type_of(guest, kFirst + 0x100), 1);
    EXPECT_EQ(type_of(guest, kFirst + 0x101), 1);
    EXPECT_EQ(type_of(guest, kFirst + 0x102), 0);
    EXPECT_EQ(with(0xffff'ff00, 1), kInval);
    if (guest.wide()) {
        EXPECT_EQ(with(0xffff'ffff'ffff'ff00, 0xffff'ffff), kInval);
    }
}

// XSA-318's class: a structure that cannot be written back stops the call with an error, and the
// pages that were done stay done.
TEST_P(HvmOpOf, AStructureThatCannotBeWrittenBack) {
    TestDomain guest(GetParam(), as_device_model("xen-4.4", 1));
    const vmm::Gva at = put_range(guest, kFirst, 4, 1);
    guest.access.read_only.insert(at.value >> vmm::kPageShift);
    EXPECT_EQ(hvm(guest, HVMOP_set_mem_type, at.value), kFault);
    EXPECT_EQ(type_of(guest, kFirst), 1);
    EXPECT_EQ(type_of(guest, kFirst + 1), 0);
}

// flush_tlbs and set_param restart as they are: no register, no memory says how far they came.
TEST_P(HvmOpOf, APlainRestartChangesNothing) {
    for (const Profile& profile : profiles()) {
        for (const std::uint64_t op : {HVMOP_set_param, HVMOP_flush_tlbs}) {
            const Request r{.number = HYPERVISOR_hvm_op,
                            .args = {op, 0x1000, 0x2222, 0x8000'0000, 0xffff'ffff},
                            .width = GetParam()};
            EXPECT_EQ(continuation_rule(profile, r).kind, ContinuationClass::kRestart);
            const Encoded encoded = encode_continuation(profile, r, {.units_done = 1});
            EXPECT_EQ(encoded.registers.number, r.number);
            EXPECT_EQ(encoded.registers.args, r.args);
            EXPECT_TRUE(encoded.struct_changes().empty());
        }
    }
}

TEST_P(HvmOpOf, PagetableDyingAndAltp2m) {
    for (const Profile& profile : profiles()) {
        if (!profile.since(4, 6)) continue;
        TestDomain guest(GetParam(), under(profile.name));
        EXPECT_EQ(hvm(guest, HVMOP_pagetable_dying, words(guest, DOMID_SELF).value), kInval);
        EXPECT_EQ(hvm(guest, HVMOP_pagetable_dying, words(guest, 0).value),
                  profile.since(4, 12) ? kNotSupp : kInval)
            << profile.name;
        EXPECT_EQ(hvm(guest, HVMOP_pagetable_dying, words(guest, 1000).value), kSrch);
        EXPECT_EQ(hvm(guest, HVMOP_altp2m, 0), kNotSupp);
    }
}

}  // namespace
}  // namespace xenshim
