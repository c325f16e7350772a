// XenServer's patches for its old Windows drivers (xen-abi.md 3): who has them, what latches what.
#include "xenshim/hypercall/legacy_quirks.h"

#include <gtest/gtest.h>

#include "tests/fakes/test_domain.h"
#include "xenshim/abi/other_numbers.h"

namespace xenshim {
namespace {

using namespace abi;
using fakes::TestDomain;

constexpr std::int64_t kInval = -XEN_EINVAL, kNosys = -XEN_ENOSYS, kPerm = -XEN_EPERM;
constexpr std::uint64_t kUnmapped = TestDomain::kUnmapped;

class LegacyQuirksOf : public testing::TestWithParam<Width> {
  protected:
    static TestDomain::Options under(std::string_view profile, QuirkMode mode = QuirkMode::kAuto) {
        TestDomain::Options options;
        options.profile = find_profile(profile);
        options.quirks = mode;
        return options;
    }
    static std::int64_t hvm(TestDomain& guest, std::uint64_t op, std::uint64_t arg = kUnmapped) {
        return guest.result(HYPERVISOR_hvm_op, op, arg);
    }
    static std::int64_t add(TestDomain& guest, std::uint32_t space, std::uint64_t idx,
                            std::uint64_t gpfn, std::uint16_t domid = DOMID_SELF) {
        const vmm::Gva at = guest.put_wide<xen_add_to_physmap>(
            {.domid = domid, .size = 1, .space = space, .idx = idx, .gpfn = gpfn});
        return guest.result(HYPERVISOR_memory_op, XENMEM_add_to_physmap, at.value);
    }
};

INSTANTIATE_TEST_SUITE_P(, LegacyQuirksOf, testing::Values(Width::k32, Width::k64),
                         fakes::width_name);

constexpr std::uint64_t kTo = TestDomain::kRamGfn;

TEST_P(LegacyQuirksOf, WhoHasThem) {
    for (const Profile& profile : profiles()) {
        for (const QuirkMode mode : {QuirkMode::kAuto, QuirkMode::kXenServer, QuirkMode::kNone}) {
            TestDomain guest(GetParam(), under(profile.name, mode));
            const bool has = mode == QuirkMode::kXenServer ||
                             (mode == QuirkMode::kAuto && profile.legacy_windows);
            const bool aliased = profile.hvm_op_mask == HvmOpMask::kEvery;
            const auto refused = aliased ? -XEN_EFAULT : kNosys;
            EXPECT_EQ(hvm(guest, HVMOP_process_dying), has ? 0 : refused) << profile.name;
            EXPECT_FALSE(guest.domain.quirks().latched) << profile.name;
            EXPECT_EQ(hvm(guest, HVMOP_set_driver_version), has ? 0 : refused) << profile.name;
            EXPECT_EQ(guest.domain.quirks().latched, has) << profile.name;
            EXPECT_EQ(guest.domain.quirks().mode, mode);
        }
    }
}

// The argument is never read, and the number is compared whole.
TEST_P(LegacyQuirksOf, TheNumbersAreMatchedBeforeAnyMask) {
    for (const auto name : {"xenserver-6.2", "xenserver-6.5", "xenserver-7.1", "xenserver-7.5"}) {
        TestDomain guest(GetParam(), under(name));
        guest.access.forget();
        for (const std::uint64_t arg : {std::uint64_t{0}, kUnmapped, ~std::uint64_t{0}}) {
            EXPECT_EQ(hvm(guest, HVMOP_process_dying, arg), 0) << name;
            EXPECT_EQ(hvm(guest, HVMOP_set_driver_version, arg), 0) << name;
        }
        EXPECT_TRUE(guest.access.reads.empty()) << name;
        EXPECT_EQ(hvm(guest, 0x202), kNosys) << name;
        EXPECT_EQ(hvm(guest, 0x203), kNosys) << name;
        EXPECT_EQ(hvm(guest, 2), find_profile(name)->hvm_device_ops ? -XEN_EFAULT : kNosys);
        if (guest.wide()) {
            EXPECT_EQ(hvm(guest, 0x1'0000'0103), kNosys) << name;
        }
        // They are no continuations: those of operations 7 and 8 still are, where there are any.
        const bool masked = find_profile(name)->hvm_op_mask != HvmOpMask::kNone;
        EXPECT_EQ(hvm(guest, 0x107), masked ? -XEN_EFAULT : kNosys) << name;
    }
}

TEST_P(LegacyQuirksOf, TheOldSpaces) {
    TestDomain guest(GetParam(), under("xenserver-7.1"));
    auto& latched = guest.domain.quirks().latched;
    // 3 is a range until somebody gives himself away.
    EXPECT_EQ(add(guest, 3, kTo, kTo + 1), 0);
    EXPECT_FALSE(latched);
    // 4: shared_info, with its rules.
    EXPECT_EQ(add(guest, 4, 0, kTo), 0);
    EXPECT_TRUE(latched);
    EXPECT_EQ(guest.domain.physmap().gfn_of_own(kSharedInfoPage), kTo);
    EXPECT_EQ(add(guest, 4, 1, kTo), kInval);
    // From then on 3 is the old vlapic, which is refused and moves nothing.
    EXPECT_EQ(add(guest, 3, kTo + 1, kTo + 2), kInval);
    EXPECT_TRUE(guest.domain.physmap().has_ram(kTo + 1));

    latched = false;
    EXPECT_EQ(add(guest, 0x80000000, 0, kTo), kInval);
    EXPECT_TRUE(latched);

    latched = false;
    const std::uint64_t from = kTo + 8;
    EXPECT_EQ(add(guest, 0x80000001, from, kTo + 9), 0);
    EXPECT_TRUE(latched);
    EXPECT_FALSE(guest.domain.physmap().is_mapped(from));
    EXPECT_TRUE(guest.domain.physmap().has_ram(kTo + 9));

    EXPECT_EQ(add(guest, 0x80000002, 0, kTo), kInval);
    EXPECT_EQ(add(guest, 6, 0, kTo), kInval);
}

TEST_P(LegacyQuirksOf, TheDriversVersionLatchesSpace3) {
    TestDomain guest(GetParam(), under("xenserver-6.5"));  // 6.2's Xen has no space 3 at all
    EXPECT_EQ(add(guest, 3, kTo, kTo + 1), 0);
    EXPECT_EQ(hvm(guest, HVMOP_process_dying), 0);
    EXPECT_EQ(add(guest, 3, kTo + 1, kTo), 0);  // that one says nothing
    EXPECT_EQ(hvm(guest, HVMOP_set_driver_version), 0);
    EXPECT_EQ(add(guest, 3, kTo, kTo + 1), kInval);
}

TEST_P(LegacyQuirksOf, WithoutThemTheSpacesAreUpstreams) {
    for (const auto& options :
         {under("xen-4.17"), under("xenserver-8.0"), under("xenserver-7.1", QuirkMode::kNone)}) {
        TestDomain guest(GetParam(), options);
        EXPECT_EQ(add(guest, 4, 0, kTo), kNosys);
        EXPECT_EQ(add(guest, 0x80000000, 0, kTo), kInval);
        EXPECT_EQ(add(guest, 0x80000001, kTo, kTo + 1), kInval);
        EXPECT_EQ(add(guest, 3, kTo, kTo + 1), 0);
        EXPECT_FALSE(guest.domain.quirks().latched);
    }
}

TEST_P(LegacyQuirksOf, ForcedOnUnderUpstreamsProfile) {
    for (const auto profile : {"xen-4.17", "xen-4.5-rc", "xen-4.8", "xenserver-8.0"}) {
        TestDomain guest(GetParam(), under(profile, QuirkMode::kXenServer));
        EXPECT_EQ(hvm(guest, HVMOP_set_driver_version), 0) << profile;
        EXPECT_EQ(add(guest, 4, 0, kTo), 0) << profile;
        EXPECT_EQ(add(guest, 3, kTo + 1, kTo + 2), kInval) << profile;
    }
}

// Another domain's call says nothing about this one's driver.
TEST_P(LegacyQuirksOf, AnotherDomainsSpaceLatchesNothing) {
    TestDomain guest(GetParam(), under("xenserver-7.1"));
    EXPECT_LT(add(guest, 4, 0, kTo, 0), 0);
    EXPECT_LT(add(guest, 0x80000000, 0, kTo, 1000), 0);
    EXPECT_FALSE(guest.domain.quirks().latched);
    EXPECT_EQ(add(guest, 4, 0, kTo, TestDomain::kDomid), 0);
    EXPECT_TRUE(guest.domain.quirks().latched);
}

TEST_P(LegacyQuirksOf, TheParameter32Bit) {
    const auto get = [](TestDomain& guest, std::uint32_t index, std::uint64_t* value) {
        const vmm::Gva at = guest.put(xen_hvm_param{DOMID_SELF, 0, index, 0xf001dead});
        const auto rc = hvm(guest, HVMOP_get_param, at.value);
        *value = guest.get<xen_hvm_param>(at).value;
        return rc;
    };
    const auto set = [](TestDomain& guest, std::uint32_t index, std::uint64_t value) {
        return hvm(guest, HVMOP_set_param,
                   guest.put(xen_hvm_param{DOMID_SELF, 0, index, value}).value);
    };
    std::uint64_t value = 0;
    for (const auto name : {"xenserver-6.2", "xenserver-6.5", "xenserver-7.1", "xenserver-7.5"}) {
        TestDomain guest(GetParam(), under(name));
        EXPECT_EQ(set(guest, HVM_PARAM_32BIT, 1), 0) << name;
        EXPECT_EQ(get(guest, HVM_PARAM_32BIT, &value), 0) << name;
        EXPECT_EQ(value, 1u) << name;
        // The driver takes a value that is still what it put there for "not written".
        EXPECT_EQ(get(guest, HVM_PARAM_STORE_EVTCHN, &value), 0) << name;
        EXPECT_EQ(value, 0u) << name;
        EXPECT_EQ(get(guest, HVM_PARAM_CONSOLE_PFN, &value), kInval) << name;
        EXPECT_EQ(value, 0xf001deadu) << name;
        // A console that is there is seen since 6.5.
        guest.domain.params().put(HVM_PARAM_CONSOLE_PFN, 0xfefff);
        guest.domain.params().put(HVM_PARAM_CONSOLE_EVTCHN, 2);
        const bool hidden = std::string_view(name) == "xenserver-6.2";
        EXPECT_EQ(get(guest, HVM_PARAM_CONSOLE_PFN, &value), hidden ? kInval : 0) << name;
        EXPECT_EQ(value, hidden ? 0xf001deadu : 0xfefffu) << name;
        EXPECT_EQ(get(guest, HVM_PARAM_CONSOLE_EVTCHN, &value), hidden ? kInval : 0) << name;
    }
    // It is the host's doing, not one of the quirks.
    TestDomain plain(GetParam(), under("xenserver-6.2", QuirkMode::kNone));
    plain.domain.params().put(HVM_PARAM_CONSOLE_PFN, 0xfefff);
    EXPECT_EQ(get(plain, HVM_PARAM_CONSOLE_PFN, &value), kInval);
    TestDomain upstream(GetParam());
    EXPECT_EQ(set(upstream, HVM_PARAM_32BIT, 1), kPerm);
    TestDomain forced(GetParam(), under("xen-4.17", QuirkMode::kXenServer));
    EXPECT_EQ(set(forced, HVM_PARAM_32BIT, 1), 0);
}

// What those drivers try first and must hear no to, so that they take the next.
TEST_P(LegacyQuirksOf, TheirFallbacksAreRefusedCleanly) {
    for (const auto name : {"xenserver-6.2", "xenserver-6.5", "xenserver-7.1", "xenserver-7.5"}) {
        TestDomain guest(GetParam(), under(name));
        const vmm::Gva zeroes = guest.put(std::array<std::uint64_t, 8>{});
        EXPECT_EQ(guest.result(HYPERVISOR_sched_op, 0xfeeb0000, zeroes.value), kNosys) << name;
        EXPECT_EQ(guest.result(HYPERVISOR_memory_op, 63, zeroes.value), kNosys)
            << name;  // pod_sweep
        const vmm::Gva time = guest.put(std::uint64_t{0});
        EXPECT_EQ(hvm(guest, HVMOP_get_time, time.value), 0) << name;
        EXPECT_NE(guest.get<std::uint64_t>(time), 0u) << name;
        EXPECT_LT(hvm(guest, 6, zeroes.value), 0) << name;
    }
}

}  // namespace
}  // namespace xenshim
