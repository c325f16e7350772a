// The hypercalls of toolstacks, as a guest hears them: golden section I, and the profiles that do
// not have them.
#include <gtest/gtest.h>

#include "tests/fakes/test_domain.h"
#include "xenshim/abi/other_numbers.h"

namespace xenshim {
namespace {

using namespace abi;
using fakes::BothWidths;
using fakes::TestDomain;

constexpr std::int64_t kFault = -XEN_EFAULT, kInval = -XEN_EINVAL, kNosys = -XEN_ENOSYS,
                       kSrch = -XEN_ESRCH, kPerm = -XEN_EPERM, kAcces = -XEN_EACCES,
                       kNotSupp = -XEN_EOPNOTSUPP;
constexpr std::uint64_t kUnmapped = TestDomain::kUnmapped;
constexpr std::uint16_t kInvalid = 0x7ff4;  // DOMID_INVALID

struct Control {
    std::uint32_t cmd, version;
    std::uint16_t domain;
    std::array<std::uint16_t, 3> pad{};
    std::array<std::uint64_t, 16> u{};
};

class Privileged : public BothWidths {
  protected:
    std::int64_t control(std::uint64_t number, std::uint32_t cmd, std::uint32_t version,
                         std::uint16_t domain = 0) {
        return guest.result(number, guest.put(Control{cmd, version, domain}).value);
    }
};

XENOLITH_BOTH_WIDTHS(Privileged);

TEST_P(Privileged, ControlCallsLookAtTheirVersionBeforeTheyRefuse) {
    struct Row {
        std::uint32_t number, version;
    };
    for (const Row& row : {Row{HYPERVISOR_sysctl, 0x15}, Row{HYPERVISOR_domctl, 0x15},
                           Row{HYPERVISOR_platform_op, 0x03000001}}) {
        EXPECT_EQ(guest.result(row.number, 0), kFault) << row.number;
        EXPECT_EQ(guest.result(row.number, kUnmapped), kFault) << row.number;
        for (const std::uint32_t cmd : {0u, 1u, 6u, 25u, 70u, 86u, 999u, ~0u}) {
            EXPECT_EQ(control(row.number, cmd, row.version), kPerm) << row.number << " " << cmd;
            EXPECT_EQ(control(row.number, cmd, row.version + 1), kAcces) << row.number;
            EXPECT_EQ(control(row.number, cmd, row.version - 1), kAcces) << row.number;
            EXPECT_EQ(control(row.number, cmd, 0), kAcces) << row.number;
        }
    }
}

// Their whole structure is copied in, as far as it goes.
TEST_P(Privileged, AStructureThatEndsOutsideMemory) {
    struct Row {
        std::uint32_t number, bytes;
        std::int64_t answer;
    };
    constexpr std::uint64_t kEnd = 0x200'0000;
    guest.access.unmapped.insert(kEnd >> vmm::kPageShift);
    for (const Row& row : {Row{HYPERVISOR_sysctl, 136, kAcces}, Row{HYPERVISOR_domctl, 144, kAcces},
                           Row{HYPERVISOR_platform_op, 136, kAcces},
                           Row{HYPERVISOR_arch_1, 144, guest.wide() ? kInval : -XEN_EOPNOTSUPP}}) {
        EXPECT_EQ(guest.result(row.number, kEnd - row.bytes), row.answer) << row.number;
        EXPECT_EQ(guest.result(row.number, kEnd - row.bytes + 1), kFault) << row.number;
    }
}

TEST_P(Privileged, DomctlLooksForItsDomain) {
    struct Row {
        std::uint32_t cmd;
        std::int64_t self, own, other, invalid;
    };
    const Row rows[] = {
        {1, kPerm, kPerm, kPerm, kPerm},   {5, kInval, kPerm, kSrch, kInval},
        {6, kSrch, kPerm, kSrch, kSrch},   {25, kSrch, kPerm, kSrch, kSrch},
        {70, kSrch, kPerm, kSrch, kSrch},  {86, kSrch, kPerm, kSrch, kSrch},
        {999, kSrch, kPerm, kSrch, kSrch}, {0, kSrch, kPerm, kSrch, kSrch},
    };
    for (const Row& row : rows) {
        const auto with = [&](std::uint16_t domain) {
            return control(HYPERVISOR_domctl, row.cmd, 0x15, domain);
        };
        EXPECT_EQ(with(DOMID_SELF), row.self) << row.cmd;
        EXPECT_EQ(with(TestDomain::kDomid), row.own) << row.cmd;
        EXPECT_EQ(with(1000), row.other) << row.cmd;
        EXPECT_EQ(with(kInvalid), row.invalid) << row.cmd;
    }
}

// What an operation is about comes before the privilege (guests/conformance/unprivileged.c has it
// from the real one).
TEST_P(Privileged, SomeDomctlsLookAtTheirArgumentsFirst) {
    struct Row {
        std::uint32_t cmd;
        std::uint64_t u[3];
        std::int64_t dom0, own;
    };
    const auto two = [](std::uint64_t first, std::uint64_t second) { return first | second << 32; };
    constexpr std::uint64_t kAll = ~std::uint64_t{0};
    guest.ports.limit_gfn = std::uint64_t{1} << 28;
    const Row rows[] = {
        {19, {55}, kPerm, kPerm},
        {19, {56}, kInval, kInval},
        {20, {0, 0}, kPerm, kPerm},
        {20, {1, kAll}, kPerm, kPerm},
        {20, {2, kAll}, kInval, kInval},
        {21, {two(65535, 1)}, kPerm, kPerm},
        {21, {two(65535, 2)}, kInval, kInval},
        {21, {two(0, 65536)}, kPerm, kPerm},
        {21, {two(1000, 0)}, kInval, kInval},
        {21, {two(2, ~0u)}, kInval, kInval},
        {38, {0}, kInval, kPerm},
        {48, {0}, kInval, kPerm},
        {39, {0, 0, 1}, kPerm, kPerm},
        {39, {0, 0, 0}, kInval, kInval},
        {39, {0, (1u << 28) - 1, 1}, kPerm, kPerm},
        {39, {0, (1u << 28) - 1, 2}, kInval, kInval},
        {39, {0, kAll, 2}, kInval, kInval},
        {39, {kAll, 0, 1}, kPerm, kPerm},
        {39, {kAll, 0, 2}, kInval, kInval},
        {40, {two(65535, 65535), 1}, kNotSupp, kPerm},
        {40, {two(65536, 0), 1}, kNotSupp, kInval},
        {40, {two(0, 65536), 1}, kNotSupp, kInval},
        {40, {0, 0}, kNotSupp, kInval},
        {40, {0, 65536}, kNotSupp, kPerm},
        {40, {0, 65537}, kNotSupp, kInval},
        {40, {two(2, 0), ~0u}, kNotSupp, kInval},
        {46, {0}, kInval, kNotSupp},
        {46, {TestDomain::kDomid}, kPerm, kInval},
        {46, {1000}, kSrch, kSrch},
        {46, {DOMID_SELF}, kSrch, kSrch},
        {50, {0}, kNotSupp, kNotSupp},
    };
    for (const Row& row : rows) {
        const auto with = [&](std::uint16_t domain) {
            Control arg{row.cmd, 0x15, domain};
            std::copy(std::begin(row.u), std::end(row.u), arg.u.begin());
            return guest.result(HYPERVISOR_domctl, guest.put(arg).value);
        };
        const auto what = ::testing::Message() << row.cmd << " " << row.u[0] << " " << row.u[1];
        EXPECT_EQ(with(0), row.dom0) << what;
        EXPECT_EQ(with(TestDomain::kDomid), row.own) << what;
        EXPECT_EQ(with(1000), kSrch) << what;
    }
    // Devices may belong to nobody, and be looked for.
    constexpr std::uint16_t kIo = 0x7ff1;
    for (const std::uint32_t cmd : {37u, 45u, 47u}) {
        EXPECT_EQ(control(HYPERVISOR_domctl, cmd, 0x15, kIo), cmd == 45 ? kSrch : kPerm) << cmd;
        EXPECT_EQ(control(HYPERVISOR_domctl, cmd, 0x15, kInvalid), cmd == 45 ? kPerm : kSrch)
            << cmd;
    }
}

// XSA-97, XSA-428, XSA-491: no bitmap of a whole domain is walked, and no list made longer or
// walked while it changes, for a guest: its domctls are refused as often as it asks, and nothing
// of their arguments beyond the structure is looked at.
TEST_P(Privileged, DomctlsOfBitmapsAndListsAreRefusedWhole) {
    constexpr std::uint32_t kShadowOp = 10, kPinMemCacheattr = 41;
    constexpr std::uint32_t kClean = 11, kPeek = 12, kAnyType = 6;
    for (const std::uint32_t cmd : {kShadowOp, kPinMemCacheattr}) {
        for (const std::uint32_t sub_op : {kClean, kPeek, kAnyType}) {
            Control arg{cmd, 0x15, TestDomain::kDomid};
            arg.u = {sub_op, kUnmapped, ~std::uint64_t{0}};
            const vmm::Gva at = guest.put(arg);
            guest.access.forget();
            for (unsigned n = 0; n < 1000; ++n) {
                ASSERT_EQ(guest.result(HYPERVISOR_domctl, at.value), kPerm) << cmd;
            }
            EXPECT_EQ(guest.access.reads.size(), 1000u) << cmd;
            EXPECT_TRUE(guest.access.writes.empty()) << cmd;
        }
    }
}

TEST_P(Privileged, MmuextOp) {
    const auto mmuext = [&](std::uint64_t uops, std::uint64_t count, std::uint64_t domain) {
        return TestDomain::result_of(guest.call(HYPERVISOR_mmuext_op, uops, count, 0, domain));
    };
    const std::uint64_t ops = guest.put(std::array<std::uint64_t, 8>{}).value;
    EXPECT_EQ(mmuext(ops, 0, DOMID_SELF), guest.wide() ? kInval : 0);
    EXPECT_EQ(mmuext(ops, 1, DOMID_SELF), kInval);
    EXPECT_EQ(mmuext(ops, 1, 0), kPerm);
    EXPECT_EQ(mmuext(ops, 1, 1000), kSrch);
    EXPECT_EQ(mmuext(ops, 1, TestDomain::kDomid), kSrch);
    EXPECT_EQ(mmuext(kUnmapped, 1, DOMID_SELF), guest.wide() ? kInval : kFault);
    // Xen's own continuation, which carries its result: anybody can say so.
    EXPECT_EQ(mmuext(0, 0x8000'0000, 42), 42);
    EXPECT_EQ(mmuext(0, 0x8000'0000, 0xffff'fff2), -14);
    EXPECT_EQ(mmuext(ops, 0x8000'0001, DOMID_SELF), kInval);
}

// XSA-84 among them: a size that a Flask operation would add one to is read by nobody.
TEST_P(Privileged, TheOthers) {
    std::array<std::uint64_t, 64> words{};
    words.fill(~std::uint64_t{0});
    const std::uint64_t arg = guest.put(words).value;
    guest.access.forget();
    for (const std::uint64_t op : {0, 1, 4}) {
        for (const std::uint64_t at : {std::uint64_t{0}, kUnmapped, arg}) {
            EXPECT_EQ(guest.result(HYPERVISOR_xenpmu_op, op, at), kNotSupp);
            EXPECT_EQ(guest.result(HYPERVISOR_hypfs_op, op, at), kPerm);
            EXPECT_EQ(guest.result(HYPERVISOR_argo_op, op, at), kNosys);
            EXPECT_EQ(guest.result(HYPERVISOR_xsm_op, op, at), kNosys);
            EXPECT_EQ(guest.result(HYPERVISOR_tmem_op, op, at), kNosys);  // gone since 4.13
        }
    }
    EXPECT_TRUE(guest.access.reads.empty());
    EXPECT_TRUE(guest.access.writes.empty());
    EXPECT_EQ(guest.result(HYPERVISOR_arch_1, 0), kFault);
    EXPECT_EQ(control(HYPERVISOR_arch_1, 10, 0x15, TestDomain::kDomid), kPerm);
    EXPECT_EQ(control(HYPERVISOR_arch_1, 10, 0x15, DOMID_SELF), kSrch);
}

TEST_P(Privileged, EachProfileHasItsOwn) {
    constexpr std::uint32_t kNumbers[] = {
        HYPERVISOR_platform_op, HYPERVISOR_mmuext_op, HYPERVISOR_sysctl,
        HYPERVISOR_domctl,      HYPERVISOR_tmem_op,   HYPERVISOR_xenpmu_op,
        HYPERVISOR_dm_op,       HYPERVISOR_hypfs_op,  HYPERVISOR_arch_1};
    for (const Profile& profile : profiles()) {
        TestDomain::Options options;
        options.profile = &profile;
        TestDomain other(GetParam(), options);
        for (const std::uint32_t number : kNumbers) {
            const bool exists = (profile.hypercalls >> number & 1) != 0;
            EXPECT_EQ(other.result(number, kUnmapped, 1, kUnmapped) != kNosys, exists)
                << profile.name << " " << number;
        }
        if (profile.since(4, 2) && !profile.since(4, 13)) {
            EXPECT_EQ(other.result(HYPERVISOR_tmem_op, kUnmapped), -XEN_ENODEV) << profile.name;
        }
    }
}

// ---- xen_version of other releases --------------------------------------------------------------

TEST_P(Privileged, TheTextsOf420) {
    for (const Profile& profile : profiles()) {
        TestDomain::Options options;
        options.profile = &profile;
        TestDomain other(GetParam(), options);
        const auto version = [&](std::uint64_t op, std::uint64_t at) {
            return other.result(HYPERVISOR_xen_version, op, at);
        };
        EXPECT_EQ(version(XENVER_build_id, 0), profile.since(4, 7) ? kPerm : kNosys)
            << profile.name;
        if (!profile.since(4, 20)) {
            for (std::uint64_t op = 11; op <= 14; ++op) {
                EXPECT_EQ(version(op, 0), kNosys) << profile.name;
            }
            continue;
        }
        const std::pair<std::uint32_t, std::string_view> texts[] = {
            {XENVER_extraversion2, profile.extraversion},
            {XENVER_capabilities2, profile.capabilities},
            {XENVER_changeset2, ""}};
        EXPECT_EQ(version(XENVER_commandline2, 0), kPerm);
        for (const auto& [op, text] : texts) {
            const auto size = static_cast<std::int64_t>(text.size());
            EXPECT_EQ(version(op, 0), size) << op;
            EXPECT_EQ(version(op, kUnmapped), kFault) << op;
            struct VarBuf {
                std::uint32_t len;
                std::array<char, 100> buf;
            } want{static_cast<std::uint32_t>(text.size()) + (text.empty() ? 1 : 0), {}};
            want.buf.fill('#');
            const vmm::Gva at = other.put(want);
            EXPECT_EQ(version(op, at.value), size) << op;
            const auto got = other.get<VarBuf>(at);
            EXPECT_EQ(got.len, want.len);
            EXPECT_EQ(std::string_view(got.buf.data(), text.size()), text);
            EXPECT_EQ(got.buf[text.size()], '#');  // no NUL, and nothing more
            if (text.empty()) continue;
            want.len = static_cast<std::uint32_t>(text.size() - 1);
            EXPECT_EQ(version(op, other.put(want).value), -XEN_ENOBUFS) << op;
        }
        EXPECT_EQ(version(15, 0), kNosys);
    }
}

TEST_P(Privileged, VersionWordsAreTheProfiles) {
    for (const Profile& profile : profiles()) {
        TestDomain::Options options;
        options.profile = &profile;
        TestDomain other(GetParam(), options);
        EXPECT_EQ(other.result(HYPERVISOR_xen_version, XENVER_version, 0),
                  profile.major << 16 | profile.minor);
        const vmm::Gva at = other.put(xen_feature_info{0, 0});
        EXPECT_EQ(other.result(HYPERVISOR_xen_version, XENVER_get_features, at.value), 0);
        EXPECT_EQ(other.get<xen_feature_info>(at).submap, profile.features);
    }
}

}  // namespace
}  // namespace xenshim
