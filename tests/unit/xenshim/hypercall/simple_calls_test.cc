// xen_version, hvm_op, grant_table_op and the calls that only refuse: the tables C, D, F, G and I
// of xen-417-golden.md.
#include <gtest/gtest.h>

#include "tests/fakes/test_domain.h"
#include "xenshim/abi/operations.h"
#include "xenshim/abi/other_numbers.h"

namespace xenshim {
namespace {

using namespace abi;
using fakes::BothWidths;
using fakes::TestDomain;

constexpr std::int64_t kFault = -XEN_EFAULT, kInval = -XEN_EINVAL, kNosys = -XEN_ENOSYS,
                       kSrch = -XEN_ESRCH, kPerm = -XEN_EPERM, kNotSupp = -XEN_EOPNOTSUPP;
constexpr std::uint64_t kUnmapped = TestDomain::kUnmapped;

// ---- C: xen_version -----------------------------------------------------------------------------

class XenVersion : public BothWidths {
  protected:
    std::int64_t version(std::uint64_t op, std::uint64_t arg) {
        return guest.result(HYPERVISOR_xen_version, op, arg);
    }
    std::string text(vmm::Gva at, std::size_t size) {
        const auto raw = guest.bytes(at, size);
        const std::string all(reinterpret_cast<const char*>(raw.data()), raw.size());
        return all.substr(0, all.find('\0'));
    }
};

XENOLITH_BOTH_WIDTHS(XenVersion);

// 4.20's texts without a limit of their length (public/version.h, xen_varbuf).
TEST_P(XenVersion, TextsOfAnyLength) {
    const auto d = fresh({.profile = find_profile("xen-4.20")});
    const auto call = [&](std::uint32_t op, std::uint64_t arg) {
        return d->result(HYPERVISOR_xen_version, op, arg);
    };
    const std::string_view extra = find_profile("xen-4.20")->extraversion;
    const auto size = static_cast<std::int64_t>(extra.size());
    EXPECT_EQ(call(XENVER_extraversion2, 0), size);
    EXPECT_EQ(call(XENVER_extraversion2, TestDomain::kUnmapped), -XEN_EFAULT);
    struct Buffer {
        std::uint32_t room;
        std::array<char, 60> text;
    };
    vmm::Gva at = d->put(Buffer{0, {}});
    EXPECT_EQ(call(XENVER_extraversion2, at.value), -XEN_EINVAL);
    at = d->put(Buffer{static_cast<std::uint32_t>(size) - 1, {}});
    EXPECT_EQ(call(XENVER_extraversion2, at.value), -XEN_ENOBUFS);
    EXPECT_EQ(d->get<Buffer>(at).text, (std::array<char, 60>{}));
    at = d->put(Buffer{60, {}});
    EXPECT_EQ(call(XENVER_extraversion2, at.value), size);
    EXPECT_EQ(std::string(d->get<Buffer>(at).text.data()), extra);
    EXPECT_EQ(call(XENVER_capabilities2, 0),
              static_cast<std::int64_t>(find_profile("xen-4.20")->capabilities.size()));
    EXPECT_EQ(call(XENVER_changeset2, 0), 0);
    EXPECT_EQ(call(XENVER_commandline2, 0), -XEN_EPERM);
    EXPECT_EQ(guest.result(HYPERVISOR_xen_version, XENVER_extraversion2, 0), -XEN_ENOSYS);
}

// The build id came with 4.7; before, nobody asks who may.
TEST_P(XenVersion, TheBuildIdIsSince47) {
    const auto d = fresh({.profile = find_profile("xen-4.6")});
    EXPECT_EQ(d->result(HYPERVISOR_xen_version, XENVER_build_id, 0), -XEN_ENOSYS);
    EXPECT_EQ(guest.result(HYPERVISOR_xen_version, XENVER_build_id, 0), -XEN_EPERM);
}

TEST_P(XenVersion, WithoutAnArgument) {
    const std::int64_t expected[] = {0x40011, kFault, kFault, kFault, kFault, kFault, kFault,
                                     0x1000,  kFault, kFault, kPerm,  kNosys, kNosys, kNosys};
    for (std::uint64_t op = 0; op < std::size(expected); ++op) {
        EXPECT_EQ(version(op, 0), expected[op]) << op;
    }
}

TEST_P(XenVersion, WithAnArgumentThatIsNotMapped) {
    const std::int64_t expected[] = {0x40011, kFault, kFault, kFault, kFault, kFault, kFault,
                                     kInval,  kFault, kFault, kPerm,  kNosys, kNosys, kNosys};
    for (std::uint64_t op = 0; op < std::size(expected); ++op) {
        EXPECT_EQ(version(op, kUnmapped), expected[op]) << op;
    }
    for (std::uint64_t op = 11; op <= 16; ++op) {
        EXPECT_EQ(version(op, guest.reserve(2048).value), kNosys) << op;
    }
    EXPECT_EQ(version(~std::uint64_t{0}, 0), kNosys);
}

TEST_P(XenVersion, TheSubOpIsCutTo32Bits) {
    EXPECT_EQ(version(std::uint64_t{1} << 32, 0), 0x40011);
}

// XSA-122: what is written is as long as the structure, and nothing of it is left over from us.
TEST_P(XenVersion, TextsAndTheirRoom) {
    struct Row {
        std::uint32_t op;
        std::size_t size;
        const char* says;
    };
    const Row rows[] = {{XENVER_extraversion, 16, ".7"},
                        {XENVER_capabilities, 1024,
                         "xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64 "},
                        {XENVER_changeset, 64, ""},
                        {XENVER_commandline, 1024, "<denied>"}};
    for (const Row& row : rows) {
        const vmm::Gva at = guest.reserve(row.size + 8);
        std::vector<std::byte> noise(row.size + 8, std::byte{0xaa});
        ASSERT_TRUE(guest.ports.memory.write(vmm::Gpa{at.value}, noise));
        EXPECT_EQ(version(row.op, at.value), 0) << row.op;
        EXPECT_EQ(text(at, row.size), row.says) << row.op;
        // Filled with zeroes to its end, and not beyond.
        const auto after = guest.bytes(at, row.size + 8);
        EXPECT_EQ(after[row.size - 1], std::byte{0}) << row.op;
        EXPECT_EQ(after[row.size], std::byte{0xaa}) << row.op;
    }
}

TEST_P(XenVersion, CompileInfoIsFourTerminatedTexts) {
    const vmm::Gva at = guest.reserve(160);
    std::vector<std::byte> noise(160, std::byte{0xaa});
    ASSERT_TRUE(guest.ports.memory.write(vmm::Gpa{at.value}, noise));
    EXPECT_EQ(version(XENVER_compile_info, at.value), 0);
    const auto after = guest.bytes(at, 160);
    for (const std::size_t last : {63u, 79u, 111u, 143u}) {
        EXPECT_EQ(after[last], std::byte{0}) << last;
    }
    EXPECT_EQ(after[144], std::byte{0xaa});
}

TEST_P(XenVersion, FeaturesOfSubmapZeroOnly) {
    for (const std::uint32_t index : {0u, 1u, 2u, 3u, ~0u}) {
        const vmm::Gva at = guest.put(xen_feature_info{index, 0xdeadbeef});
        EXPECT_EQ(version(XENVER_get_features, at.value), index == 0 ? 0 : kInval);
        EXPECT_EQ(guest.get<xen_feature_info>(at).submap, index == 0 ? 0x12305u : 0xdeadbeefu);
        EXPECT_EQ(guest.get<xen_feature_info>(at).submap_idx, index);
    }
}

TEST_P(XenVersion, PlatformParametersAreOneWord) {
    const vmm::Gva at = guest.put(std::array<std::uint64_t, 2>{0x1111111122222222, 0x33333333});
    EXPECT_EQ(version(XENVER_platform_parameters, at.value), 0);
    EXPECT_EQ(guest.get<std::uint64_t>(at),
              guest.wide() ? 0xffff'8000'0000'0000u : 0x11111111'00000000u);
    EXPECT_EQ(guest.get<std::uint64_t>(at + 8), 0x33333333u);
}

TEST_P(XenVersion, TheHandleIsTheUuid) {
    const vmm::Gva at = guest.reserve(16);
    EXPECT_EQ(version(XENVER_guest_handle, at.value), 0);
    EXPECT_EQ((guest.get<std::array<std::uint8_t, 16>>(at)), guest.domain.config().uuid);
}

// ---- F: hvm_op ----------------------------------------------------------------------------------

class HvmOp : public BothWidths {
  protected:
    std::int64_t hvm(std::uint64_t op, std::uint64_t arg) {
        return guest.result(HYPERVISOR_hvm_op, op, arg);
    }
    std::int64_t get(std::uint32_t index, std::uint16_t domid, std::uint64_t* value) {
        const vmm::Gva at = guest.put(xen_hvm_param{domid, 0, index, 0xdead});
        const auto rc = hvm(HVMOP_get_param, at.value);
        *value = guest.get<xen_hvm_param>(at).value;
        return rc;
    }
    std::int64_t set(std::uint32_t index, std::uint64_t value, std::uint16_t domid = DOMID_SELF) {
        return hvm(HVMOP_set_param, guest.put(xen_hvm_param{domid, 0, index, value}).value);
    }
};

XENOLITH_BOTH_WIDTHS(HvmOp);

struct HvmRow {
    std::uint32_t op;
    std::int64_t null, unmapped, zero, self;
};
constexpr std::int64_t kSkip = INT64_MAX;
constexpr HvmRow kHvm[] = {
    {0, kFault, kFault, kSkip, kSkip},
    {1, kFault, kFault, kInval, 0},
    {2, kNosys, kNosys, kNosys, kNosys},
    {3, kNosys, kNosys, kNosys, kNosys},
    {4, kNosys, kNosys, kNosys, kNosys},
    {5, 0, kInval, kInval, kInval},
    {6, kNosys, kNosys, kNosys, kNosys},
    {7, kNosys, kNosys, kNosys, kNosys},
    {8, kNosys, kNosys, kNosys, kNosys},
    {9, kFault, kFault, kNotSupp, kInval},
    {10, kFault, kFault, 0, 0},
    {11, kFault, kFault, 0, kInval},
    {12, kNosys, kNosys, kNosys, kNosys},
    {13, kNosys, kNosys, kNosys, kNosys},
    {14, kNosys, kNosys, kNosys, kNosys},
    {15, kFault, kFault, kPerm, 0},
    {16, kNosys, kNosys, kNosys, kNosys},
    {22, kNosys, kNosys, kNosys, kNosys},
    {23, kFault, kFault, kInval, kInval},
    {24, 0, kInval, kInval, kInval},
    {25, kNotSupp, kNotSupp, kNotSupp, kNotSupp},
    {26, kNosys, kNosys, kNosys, kNosys},
    {28, kNosys, kNosys, kNosys, kNosys},
};

TEST_P(HvmOp, EverySubOpAnswersAsMeasured) {
    for (const HvmRow& row : kHvm) {
        EXPECT_EQ(hvm(row.op, 0), row.null) << row.op << " NULL";
        EXPECT_EQ(hvm(row.op, kUnmapped), row.unmapped) << row.op << " unmapped";
        const vmm::Gva zero = guest.put(std::array<std::uint64_t, 16>{});
        if (row.zero != kSkip) {
            EXPECT_EQ(hvm(row.op, zero.value), row.zero) << row.op << " zero";
        }
        const vmm::Gva self = guest.put(std::array<std::uint64_t, 16>{DOMID_SELF});
        if (row.self != kSkip) {
            EXPECT_EQ(hvm(row.op, self.value), row.self) << row.op << " self";
        }
    }
}

TEST_P(HvmOp, NumbersThatLegacyDriversTryDoNotExist) {
    const vmm::Gva at = guest.put(std::array<std::uint64_t, 16>{DOMID_SELF});
    std::vector<std::uint64_t> ops = {0x10f, 0x117,  0x118,      0x119,      0x207,
                                      0x208, 0x2408, 0x80000000, 0x80000001, 0xffffffff};
    for (std::uint64_t op = 0x100; op <= 0x109; ++op) {
        ops.push_back(op);
    }
    for (const std::uint64_t op : ops) {
        for (const std::uint64_t arg : {std::uint64_t{0}, kUnmapped, at.value}) {
            EXPECT_EQ(hvm(op, arg), kNosys) << op;
        }
    }
    if (guest.wide()) {
        EXPECT_EQ(hvm((std::uint64_t{1} << 32) | 1, at.value), kNosys);
        EXPECT_EQ(hvm((std::uint64_t{1} << 32) | 5, 0), kNosys);
    }
}

TEST_P(HvmOp, ParametersOfThisDomainAndOfOthers) {
    guest.domain.params().put(HVM_PARAM_STORE_PFN, 0xfeffc);
    std::uint64_t value = 0;
    EXPECT_EQ(get(HVM_PARAM_STORE_PFN, DOMID_SELF, &value), 0);
    EXPECT_EQ(value, 0xfeffcu);
    EXPECT_EQ(get(HVM_PARAM_STORE_PFN, TestDomain::kDomid, &value), 0);
    EXPECT_EQ(value, 0xfeffcu);
    EXPECT_EQ(get(HVM_PARAM_STORE_PFN, 0, &value), kInval);
    EXPECT_EQ(value, 0xdeadu);
    EXPECT_EQ(get(HVM_PARAM_STORE_PFN, 0x7ff1, &value), kSrch);
    EXPECT_EQ(get(HVM_PARAM_STORE_PFN, 1000, &value), kSrch);
    // The index comes before the domain.
    EXPECT_EQ(get(39, 1000, &value), kInval);
    EXPECT_EQ(get(~0u, 1000, &value), kInval);
    EXPECT_EQ(get(3, DOMID_SELF, &value), kPerm);
    EXPECT_EQ(get(4, DOMID_SELF, &value), kInval);
    EXPECT_EQ(value, 0xdeadu);
    EXPECT_EQ(set(HVM_PARAM_STORE_PFN, 1), kPerm);
    EXPECT_EQ(set(HVM_PARAM_STORE_EVTCHN, 9), 0);
    EXPECT_EQ(get(HVM_PARAM_STORE_EVTCHN, DOMID_SELF, &value), 0);
    EXPECT_EQ(value, 9u);
    EXPECT_EQ(set(HVM_PARAM_STORE_EVTCHN, 9, 0), kInval);
    EXPECT_EQ(set(HVM_PARAM_STORE_EVTCHN, 9, 1000), kSrch);
    EXPECT_EQ(set(40, 9, 1000), kInval);
}

TEST_P(HvmOp, CallbackIrqLatchesTheCallersWidthAndTellsTheMachine) {
    const std::uint64_t value = (std::uint64_t{2} << 56) | 0xf3;
    guest.domain.latch_width(guest.wide() ? Width::k32 : Width::k64);
    EXPECT_EQ(set(HVM_PARAM_CALLBACK_IRQ, value), 0);
    EXPECT_EQ(guest.domain.shared_info().is_64bit(), guest.wide());
    EXPECT_EQ(guest.ports.callbacks, (std::vector<std::uint64_t>{value}));
    // Not when refused.
    EXPECT_EQ(set(HVM_PARAM_CALLBACK_IRQ, value, 1000), kSrch);
    EXPECT_EQ(guest.ports.callbacks.size(), 1u);
}

TEST_P(HvmOp, CallbackIrqWiresTheLine) {
    using Levels = std::vector<std::pair<unsigned, bool>>;
    guest.ports.on_upcall = [&](unsigned) { guest.domain.callback_line().raise(); };
    guest.domain.latch_width(guest.width());
    const Port port = *guest.domain.event_channels().bind_ipi(0);
    EXPECT_EQ(set(HVM_PARAM_CALLBACK_IRQ, 20), 0);
    ASSERT_TRUE(guest.domain.event_channels().send(port).has_value());
    EXPECT_EQ(guest.ports.line_levels, (Levels{{20, true}}));
    EXPECT_EQ(set(HVM_PARAM_CALLBACK_IRQ, 21, 1000), kSrch);
    EXPECT_EQ(guest.ports.line_levels.size(), 1u);
    EXPECT_EQ(set(HVM_PARAM_CALLBACK_IRQ, std::uint64_t{1} << 56), 0);
    EXPECT_EQ(guest.ports.line_levels, (Levels{{20, true}, {20, false}, {16, true}}));
}

TEST_P(HvmOp, WithoutInterruptControllersOnlyVectorsChangeTheCallback) {
    TestDomain::Options options;
    options.interrupt_controllers = false;
    TestDomain pvh(GetParam(), options);
    const auto set = [&](std::uint64_t value) {
        const auto at = pvh.put(xen_hvm_param{DOMID_SELF, 0, HVM_PARAM_CALLBACK_IRQ, value});
        return pvh.result(HYPERVISOR_hvm_op, HVMOP_set_param, at.value);
    };
    const std::uint64_t vector = (std::uint64_t{2} << 56) | 0xf3;
    EXPECT_EQ(set(vector), 0);
    for (const std::uint64_t type : {0, 1, 3, 0xff}) {
        for (const std::uint64_t low : {0, 1, 0xf4}) {
            pvh.domain.latch_width(pvh.wide() ? Width::k32 : Width::k64);
            EXPECT_EQ(set(type << 56 | low), 0);
            EXPECT_EQ(*pvh.domain.params().get(HVM_PARAM_CALLBACK_IRQ), type << 56 | low);
            EXPECT_EQ(pvh.domain.shared_info().is_64bit(), pvh.wide());
        }
    }
    EXPECT_EQ(pvh.ports.callbacks, (std::vector<std::uint64_t>{vector}));
    EXPECT_EQ(set(vector + 1), 0);
    EXPECT_EQ(pvh.ports.callbacks.back(), vector + 1);
}

TEST_P(HvmOp, ATssThatIsTooShortCrashesTheDomain) {
    set(HVM_PARAM_VM86_TSS_SIZED, 0);
    EXPECT_EQ(guest.ports.shutdowns, (std::vector<std::uint8_t>{SHUTDOWN_crash}));
}

TEST_P(HvmOp, UpcallVectors) {
    const auto vector = [&](std::uint32_t vcpu, std::uint8_t v) {
        return hvm(HVMOP_set_evtchn_upcall_vector,
                   guest.put(xen_hvm_evtchn_upcall_vector{vcpu, v, {}}).value);
    };
    for (unsigned v = 0; v < 16; ++v) {
        EXPECT_EQ(vector(0, static_cast<std::uint8_t>(v)), kInval) << v;
        EXPECT_EQ(vector(9999, static_cast<std::uint8_t>(v)), kInval) << v;
    }
    for (unsigned v = 16; v < 256; ++v) {
        EXPECT_EQ(vector(0, static_cast<std::uint8_t>(v)), 0) << v;
    }
    EXPECT_EQ(vector(1, 0x40), 0);
    EXPECT_EQ(guest.domain.vcpu(1).upcall_vector, 0x40);
    EXPECT_EQ(guest.domain.vcpu(0).upcall_vector, 0xff);
    EXPECT_EQ(guest.ports.vectors.back(), (std::pair<unsigned, std::uint8_t>{1, 0x40}));
    EXPECT_EQ(vector(2, 0x40), -XEN_ENOENT);
    EXPECT_EQ(vector(~0u, 0x40), -XEN_ENOENT);
}

TEST_P(HvmOp, MemoryTypes) {
    const auto type = [&](std::uint64_t pfn, std::uint16_t domid, std::uint16_t* out) {
        const vmm::Gva at = guest.put(xen_hvm_get_mem_type{domid, 0xeeee, 0, pfn});
        const auto rc = hvm(HVMOP_get_mem_type, at.value);
        *out = guest.get<xen_hvm_get_mem_type>(at).mem_type;
        return rc;
    };
    std::uint16_t t = 0;
    for (const std::uint64_t pfn : {0x0ull, 0x7fffull, 0xfeff8ull, 0xfefffull}) {
        EXPECT_EQ(type(pfn, DOMID_SELF, &t), 0);
        EXPECT_EQ(t, 0) << pfn;
    }
    for (const std::uint64_t pfn : {0x8000ull, 0xfee00ull, ~0ull, 1ull << 52}) {
        EXPECT_EQ(type(pfn, DOMID_SELF, &t), 0);
        EXPECT_EQ(t, 2) << pfn;
    }
    EXPECT_EQ(type(0, 0, &t), kPerm);
    EXPECT_EQ(t, 0xeeee);
    EXPECT_EQ(type(0, 1000, &t), kSrch);
}

TEST_P(HvmOp, TimeAndTraces) {
    guest.ports.now_ns = 0x1234'5678'9abc;
    const vmm::Gva at = guest.put(std::uint64_t{0});
    EXPECT_EQ(hvm(HVMOP_get_time, at.value), 0);
    EXPECT_EQ(guest.get<std::uint64_t>(at), 0x1234'5678'9abcu);
    const auto trace = [&](std::uint16_t event, std::uint16_t extra) {
        return hvm(HVMOP_xentrace, guest.put(xen_hvm_xentrace{event, extra, {}}).value);
    };
    EXPECT_EQ(trace(0xfff, 28), 0);
    EXPECT_EQ(trace(0x1000, 0), kInval);
    EXPECT_EQ(trace(0xffff, 0), kInval);
    EXPECT_EQ(trace(0, 29), kInval);
    EXPECT_EQ(trace(0, 0xffff), kInval);
}

// ---- G: grant_table_op
// ----------------------------------------------------------------------------

class GrantTableOp : public BothWidths {
  protected:
    std::int64_t grant(std::uint64_t op, std::uint64_t arg, std::uint64_t count) {
        return guest.result(HYPERVISOR_grant_table_op, op, arg, count);
    }
    struct Table {
        std::int64_t rc;
        std::int16_t status;
        std::vector<std::uint64_t> frames;
    };
    Table setup(std::uint32_t frames, std::uint16_t domid = DOMID_SELF) {
        const vmm::Gva list = guest.put_words(std::vector<std::uint64_t>(70, 0));
        const vmm::Gva at = guest.put_wide<gnttab_setup_table>(
            {.dom = domid, .nr_frames = frames, .status = 99, .frame_list = list.value});
        Table out{grant(GNTTABOP_setup_table, at.value, 1), 0, {}};
        out.status = guest.get_wide<gnttab_setup_table>(at).status;
        for (std::size_t i = 0; i < 70; ++i) {
            out.frames.push_back(guest.get_word(list, i));
        }
        return out;
    }
    std::uint32_t frames() {
        const vmm::Gva at = guest.put(gnttab_query_size{DOMID_SELF, 0, 0, 0, 99, 0});
        EXPECT_EQ(grant(GNTTABOP_query_size, at.value, 1), 0);
        const auto q = guest.get<gnttab_query_size>(at);
        EXPECT_EQ(q.max_nr_frames, 64u);
        EXPECT_EQ(q.status, GNTST_okay);
        return q.nr_frames;
    }
    std::uint64_t nowhere() const { return guest.wide() ? ~std::uint64_t{0} : 0xffff'ffff; }
};

XENOLITH_BOTH_WIDTHS(GrantTableOp);

struct GrantRow {
    std::uint32_t op;
    std::int64_t zero_null, null, unmapped, zero, minus_one;
};
// The sub-ops that there are, and those that an HVM guest never has.
constexpr GrantRow kGrants[] = {
    {0, 0, kFault, kFault, 0, kInval},
    {1, 0, kFault, kFault, 0, kInval},
    {5, 0, kFault, kFault, 0, kInval},
    {11, 0, kFault, kFault, 0, kInval},
    {2, kInval, kFault, kFault, 0, kInval},
    {6, kInval, kFault, kFault, 0, kInval},
    {8, kFault, kFault, kFault, kInval, kInval},
    {10, kFault, kFault, kFault, kPerm, kInval},
    {3, kNosys, kNosys, kNosys, kNosys, kNosys},
    {4, kNosys, kNosys, kNosys, kNosys, kNosys},
    {7, kNosys, kNosys, kNosys, kNosys, kNosys},
    {9, kNosys, kNosys, kNosys, kNosys, kNosys},
    {12, kNosys, kNosys, kNosys, kNosys, kNosys},
    {13, kNosys, kNosys, kNosys, kNosys, kNosys},
    {14, kNosys, kNosys, kNosys, kNosys, kNosys},
};

TEST_P(GrantTableOp, EverySubOpAnswersAsMeasured) {
    for (const GrantRow& row : kGrants) {
        const auto zero = [&] { return guest.put(std::array<std::uint64_t, 8>{}).value; };
        const bool setup_at_32 = row.op == GNTTABOP_setup_table && !guest.wide();
        EXPECT_EQ(grant(row.op, 0, 0), setup_at_32 ? 0 : row.zero_null) << row.op;
        EXPECT_EQ(grant(row.op, 0, 1), row.null) << row.op;
        EXPECT_EQ(grant(row.op, kUnmapped, 1), row.unmapped) << row.op;
        EXPECT_EQ(grant(row.op, zero(), 1), row.zero) << row.op;
        EXPECT_EQ(grant(row.op, zero(), ~std::uint64_t{0}), row.minus_one) << row.op;
        for (const unsigned bit : {12u, 16u, 31u}) {
            EXPECT_EQ(grant(row.op | (1u << bit), zero(), 1), kNosys) << row.op << " bit " << bit;
        }
        EXPECT_EQ(grant(row.op | (std::uint64_t{1} << 32), zero(), 1), row.zero) << row.op;
    }
}

TEST_P(GrantTableOp, SizesOfThisAndOtherDomains) {
    EXPECT_EQ(frames(), 1u);
    const auto status = [&](std::uint16_t domid) {
        const vmm::Gva at = guest.put(gnttab_query_size{domid, 0, 7, 8, 99, 0});
        EXPECT_EQ(grant(GNTTABOP_query_size, at.value, 1), 0);
        return guest.get<gnttab_query_size>(at).status;
    };
    EXPECT_EQ(status(TestDomain::kDomid), GNTST_okay);
    EXPECT_EQ(status(0), GNTST_permission_denied);
    EXPECT_EQ(status(1000), GNTST_bad_domain);
    EXPECT_EQ(status(0x7ff1), GNTST_bad_domain);
}

TEST_P(GrantTableOp, Versions) {
    const auto get = [&](std::uint16_t domid, std::uint32_t* version) {
        const vmm::Gva at = guest.put(gnttab_get_version{domid, 0, 0});
        const auto rc = grant(GNTTABOP_get_version, at.value, 1);
        *version = guest.get<gnttab_get_version>(at).version;
        return rc;
    };
    std::uint32_t version = 0;
    EXPECT_EQ(get(DOMID_SELF, &version), 0);
    EXPECT_EQ(version, 1u);
    EXPECT_EQ(get(TestDomain::kDomid, &version), 0);
    EXPECT_EQ(version, 1u);
    EXPECT_EQ(get(0, &version), kPerm);
    EXPECT_EQ(version, 0u);
    EXPECT_EQ(get(1000, &version), kSrch);
    EXPECT_EQ(version, 0u);

    const auto set = [&](std::uint32_t wanted, std::uint32_t* told) {
        const vmm::Gva at = guest.put(wanted);
        const auto rc = grant(GNTTABOP_set_version, at.value, 1);
        *told = guest.get<std::uint32_t>(at);
        return rc;
    };
    std::uint32_t told = 0;
    EXPECT_EQ(set(0, &told), kInval);
    EXPECT_EQ(told, 1u);
    EXPECT_EQ(set(1, &told), 0);
    EXPECT_EQ(told, 1u);
    EXPECT_EQ(set(2, &told), 0);
    EXPECT_EQ(told, 2u);
    EXPECT_EQ(set(3, &told), kInval);
    EXPECT_EQ(told, 2u);
    EXPECT_EQ(set(0x8000'0001, &told), kInval);
    EXPECT_EQ(told, 2u);
    EXPECT_EQ(get(DOMID_SELF, &version), 0);
    EXPECT_EQ(version, 2u);
    for (const std::uint64_t count : {0, 2}) {
        EXPECT_EQ(grant(GNTTABOP_set_version, guest.put(1u).value, count), 0);
        EXPECT_EQ(grant(GNTTABOP_get_version, guest.put(gnttab_get_version{DOMID_SELF, 0, 0}).value,
                        count),
                  0);
    }
}

TEST_P(GrantTableOp, TablesAsMeasured) {
    auto t = setup(1);
    EXPECT_EQ(t.rc, 0);
    EXPECT_EQ(t.status, GNTST_okay);
    EXPECT_EQ(t.frames[0], nowhere());
    EXPECT_EQ(t.frames[1], 0u);
    ASSERT_TRUE(guest.domain.physmap().place_own(kFirstGrantPage + 1, 0x7010).has_value());
    t = setup(2);
    EXPECT_EQ(t.frames[0], nowhere());
    EXPECT_EQ(t.frames[1], 0x7010u);
    EXPECT_EQ(frames(), 2u);
    t = setup(0);
    EXPECT_EQ(t.rc, 0);
    EXPECT_EQ(t.status, GNTST_okay);
    EXPECT_EQ(t.frames[0], 0u);
    t = setup(64);
    EXPECT_EQ(t.status, GNTST_okay);
    EXPECT_EQ(t.frames[63], nowhere());
    EXPECT_EQ(t.frames[64], 0u);
    for (const std::uint32_t many : {65u, ~0u}) {
        t = setup(many);
        EXPECT_EQ(t.rc, 0);
        EXPECT_EQ(t.status, GNTST_general_error);
        EXPECT_EQ(t.frames[0], 0u);
    }
    EXPECT_EQ(frames(), 64u);
    EXPECT_EQ(setup(1, 0).status, GNTST_permission_denied);
    EXPECT_EQ(setup(1, 1000).status, GNTST_bad_domain);
    const vmm::Gva at = guest.put(std::array<std::uint64_t, 8>{DOMID_SELF});
    EXPECT_EQ(grant(GNTTABOP_setup_table, at.value, 2), kInval);
}

// ---- I: small ones
// ----------------------------------------------------------------------------------

class SmallCalls : public BothWidths {};

XENOLITH_BOTH_WIDTHS(SmallCalls);

TEST_P(SmallCalls, ConsoleIoIsNotForGuests) {
    for (const std::uint64_t op : {0ull, 1ull, 2ull, ~0ull}) {
        EXPECT_EQ(guest.result(HYPERVISOR_console_io, op, 4, 0), kPerm) << op;
    }
}

TEST_P(SmallCalls, VmAssistKnowsOneType) {
    for (const std::uint64_t type : {0, 1, 2, 3, 4, 5, 6, 7, 32, 64, 99}) {
        const bool known = type == 5;
        EXPECT_EQ(guest.result(HYPERVISOR_vm_assist, 0, type), known ? 0 : kInval) << type;
        EXPECT_EQ(guest.result(HYPERVISOR_vm_assist, 1, type), known ? 0 : kInval) << type;
        EXPECT_EQ(guest.result(HYPERVISOR_vm_assist, 2, type), known ? kNosys : kInval) << type;
    }
}

// XSA-13, XSA-16, XSA-21, XSA-458: no number of an interrupt gets as far as an index, for nothing
// is read. (What EVTCHNOP_bind_pirq does with one: event_sched_vcpu_test.cc.)
TEST_P(SmallCalls, PhysdevOpIsRefusedWhateverItSays) {
    std::array<std::uint32_t, 16> words{};
    words.fill(0x8000'0001);  // domains, types, indices, interrupts
    words[0] = DOMID_SELF;
    const vmm::Gva at = guest.put(words);
    guest.access.forget();
    for (std::uint64_t op = 0; op < 40; ++op) {
        EXPECT_EQ(guest.result(HYPERVISOR_physdev_op, op, kUnmapped), kNosys) << op;
        EXPECT_EQ(guest.result(HYPERVISOR_physdev_op, op, at.value), kNosys) << op;
    }
    EXPECT_TRUE(guest.access.reads.empty());
    EXPECT_TRUE(guest.access.writes.empty());
}

// ---- the entry
// ------------------------------------------------------------------------------------

// XSA-76: no ring but the kernel's; hcpage.c tries it from a real ring 3.
TEST_P(SmallCalls, PrivilegeComesBeforeExistence) {
    for (unsigned cpl = 1; cpl <= 3; ++cpl) {
        guest.cpl = cpl;
        EXPECT_EQ(guest.result(HYPERVISOR_xen_version, 0, 0), kPerm);
        EXPECT_EQ(guest.result(99, 0, 0), kPerm);
        EXPECT_EQ(guest.result(~std::uint64_t{0}, 0, 0), kPerm);
    }
    guest.cpl = 0;
    EXPECT_EQ(guest.result(99, 0, 0), kNosys);
}

TEST_P(SmallCalls, AllNumbersWithZeroes) {
    // Golden section I. A 32-bit caller's list of no mmuext operations is done at once.
    const std::map<std::uint64_t, std::int64_t> answers = {
        {HYPERVISOR_platform_op, kFault},
        {HYPERVISOR_mmuext_op, guest.wide() ? kPerm : 0},
        {HYPERVISOR_sysctl, kFault},
        {HYPERVISOR_domctl, kFault},
        {HYPERVISOR_xenpmu_op, kNotSupp},
        {HYPERVISOR_dm_op, -XEN_ENODATA},
        {HYPERVISOR_hypfs_op, kPerm},
        {HYPERVISOR_arch_1, kFault},
        {HYPERVISOR_memory_op, 0},
        {HYPERVISOR_multicall, 0},
        {HYPERVISOR_set_timer_op, 0},
        {HYPERVISOR_xen_version, 0x40011},
        {HYPERVISOR_console_io, kPerm},
        {HYPERVISOR_vm_assist, kInval},
        {HYPERVISOR_vcpu_op, kFault},
        {HYPERVISOR_sched_op, 0},
        {HYPERVISOR_event_channel_op, kFault},
        {HYPERVISOR_grant_table_op, 0},
        {HYPERVISOR_hvm_op, kFault}};
    for (std::uint64_t number = 0; number < 200; ++number) {
        const auto found = answers.find(number);
        const Reply reply = guest.call(number, 0, 0, 0, 0, 0);
        EXPECT_EQ(TestDomain::result_of(reply), found == answers.end() ? kNosys : found->second)
            << number;
    }
}

TEST_P(SmallCalls, AllBitsOfTheNumberCount) {
    for (const std::uint64_t number : {0x7fffffffull, 0x80000001ull, 0xffffffffull}) {
        EXPECT_EQ(guest.result(number, 0, 0), kNosys) << number;
    }
    if (guest.wide()) {
        EXPECT_EQ(guest.result((1ull << 32) | HYPERVISOR_xen_version, 0, 0), kNosys);
        EXPECT_EQ(guest.result((1ull << 63) | HYPERVISOR_xen_version, 0, 0), kNosys);
    }
}

TEST(HypercallTable, EachNumberStandsOnceAndHasAName) {
    std::set<std::uint32_t> numbers;
    for (const HypercallRow& row : hypercalls()) {
        EXPECT_TRUE(numbers.insert(row.number).second) << row.number;
        EXPECT_FALSE(row.name.empty());
        EXPECT_NE(row.handler, nullptr);
        EXPECT_LT(row.number, 64u);
    }
    // Every one that any profile has (abi/operations.h) has a handler.
    std::set<std::uint32_t> named;
    for (const Hypercall& row : hypercall_names()) {
        const auto has = [&](const Profile& p) { return (p.hypercalls >> row.number & 1) != 0; };
        if (std::ranges::any_of(profiles(), has)) named.insert(row.number);
    }
    EXPECT_EQ(numbers, named);
}

}  // namespace
}  // namespace xenshim
