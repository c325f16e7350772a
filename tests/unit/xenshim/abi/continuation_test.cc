// The registers of a continuation, for each class and at both widths, including those that must
// stay as the guest set them.
#include "xenshim/abi/continuation.h"

#include <gtest/gtest.h>

#include "xenshim/abi/numbers.h"
#include "xenshim/abi/other_numbers.h"
#include "xenshim/abi/structs.h"

namespace xenshim::abi {
namespace {

const Profile& xen_417() {
    return *find_profile("xen-4.17");
}

class Continuation : public testing::TestWithParam<Width> {
  protected:
    bool wide() const { return GetParam() == Width::k64; }
    std::uint64_t pointer() const { return wide() ? 0xffff'8880'03e0'f000 : 0xc3e0'f000; }
    Request request(std::uint64_t number, std::array<std::uint64_t, 5> args) const {
        Request r{.number = number, .args = args, .width = GetParam()};
        if (!wide()) {
            for (auto& arg : r.args) {
                arg &= UINT32_MAX;
            }
        }
        return r;
    }
    static Reissue encode(const Request& r, std::uint64_t units) {
        return encode_continuation(xen_417(), r, {.units_done = units}).registers;
    }
};

INSTANTIATE_TEST_SUITE_P(, Continuation, testing::Values(Width::k32, Width::k64),
                         [](const auto& p) { return p.param == Width::k64 ? "W64" : "W32"; });

TEST_P(Continuation, MemoryOpKeepsItsProgressAboveTheSubOp) {
    for (const std::uint32_t op :
         {XENMEM_increase_reservation, XENMEM_decrease_reservation, XENMEM_populate_physmap,
          XENMEM_add_to_physmap, XENMEM_add_to_physmap_batch}) {
        const Request r =
            request(HYPERVISOR_memory_op, {op, pointer(), 0x1111'2222'3333'4444, 5, ~0ull});
        const Reissue again = encode(r, 0x155);
        EXPECT_EQ(again.number, std::uint64_t{HYPERVISOR_memory_op});
        EXPECT_EQ(again.args[0], (0x155u << 6) | op);
        for (unsigned i = 1; i < 5; ++i) {
            EXPECT_EQ(again.args[i], r.args[i]) << "argument " << i;
        }
    }
}

// Whatever a 64-bit caller had above a number of which Xen looks at 32 bits: its call goes on.
TEST(ContinuationNumber, TheUpperHalfOfRaxIsLostWhereItDoesNotCount) {
    constexpr std::uint64_t kAbove = 0x1234'5678'0000'0000;
    for (const Profile& profile : profiles()) {
        const Request plain{.number = HYPERVISOR_memory_op,
                            .args = {XENMEM_populate_physmap, 0x5000, 2, 3, 4},
                            .width = Width::k64};
        Request r = plain;
        r.number |= kAbove;
        EXPECT_EQ(hypercall_number(profile, plain), std::uint64_t{HYPERVISOR_memory_op});
        const Encoded again = encode_continuation(profile, r, {.units_done = 3});
        if (profile.since(4, 8)) {
            EXPECT_EQ(hypercall_number(profile, r), r.number) << profile.name;
            EXPECT_EQ(continuation_rule(profile, r).kind, ContinuationClass::kNone);
            continue;
        }
        EXPECT_EQ(hypercall_number(profile, r), plain.number) << profile.name;
        const Encoded expected = encode_continuation(profile, plain, {.units_done = 3});
        EXPECT_EQ(again.registers, expected.registers) << profile.name;
        EXPECT_EQ(again.change_count, expected.change_count) << profile.name;
        EXPECT_EQ(again.registers.number, std::uint64_t{HYPERVISOR_memory_op});
        EXPECT_NE(again.registers.args, plain.args) << profile.name;
    }
}

TEST_P(Continuation, MemoryOpsNewCursorReplacesTheOld) {
    // Units count from the operation's start, so a second stop does not add to the first.
    const Request first = request(HYPERVISOR_memory_op, {(3u << 6) | 1, pointer(), 7, 8, 9});
    const Reissue again = encode(first, 7);
    EXPECT_EQ(again.args, (std::array<std::uint64_t, 5>{(7u << 6) | 1, pointer(), 7, 8, 9}));
}

TEST_P(Continuation, MemoryOpsThatNeverContinueHaveNoRule) {
    for (std::uint32_t op = 0; op < 64; ++op) {
        if (op == XENMEM_exchange) continue;  // whose structure moves
        const bool continues = op == 0 || op == 1 || op == 6 || op == 7 || op == 23 || op == 28;
        const auto rule = continuation_rule(xen_417(), request(HYPERVISOR_memory_op, {op}));
        EXPECT_EQ(rule.kind,
                  continues ? ContinuationClass::kShiftedCursor : ContinuationClass::kNone)
            << op;
    }
}

TEST_P(Continuation, TheRuleLooksBelowTheCursor) {
    const auto rule =
        continuation_rule(xen_417(), request(HYPERVISOR_memory_op, {(1000u << 6) | 6}));
    EXPECT_EQ(rule.kind, ContinuationClass::kShiftedCursor);
}

TEST_P(Continuation, MulticallMovesItsListAndLowersItsCount) {
    const Request r = request(HYPERVISOR_multicall, {pointer(), 9, 0x7777, 0x8888, ~0ull});
    const Reissue again = encode(r, 4);
    EXPECT_EQ(again.number, std::uint64_t{HYPERVISOR_multicall});
    EXPECT_EQ(again.args[0], pointer() + 4 * (wide() ? 64 : 32));
    EXPECT_EQ(again.args[1], 5u);
    for (unsigned i = 2; i < 5; ++i) {
        EXPECT_EQ(again.args[i], r.args[i]) << "argument " << i;
    }
}

TEST_P(Continuation, MulticallStoppedInsideItsFirstEntryIsTheSameCall) {
    const Request r = request(HYPERVISOR_multicall, {pointer(), 9, 1, 2, 3});
    const Reissue again = encode(r, 0);
    EXPECT_EQ(again.number, r.number);
    EXPECT_EQ(again.args, r.args);
}

TEST_P(Continuation, ARestartChangesNothing) {
    const Request r = request(HYPERVISOR_vcpu_op, {0, 1, pointer(), 0x1234, ~0ull});
    EXPECT_EQ(continuation_rule(xen_417(), r).kind, ContinuationClass::kRestart);
    const Reissue again = encode(r, 3);
    EXPECT_EQ(again.number, r.number);
    EXPECT_EQ(again.args, r.args);
}

// dm_op restarts; what its first buffer holds moves.
TEST_P(Continuation, DmOpsProgressIsInItsBuffer) {
    const Request r = request(HYPERVISOR_dm_op, {0x7ff0, 2, pointer(), 0x1234, ~0ull});
    EXPECT_EQ(continuation_rule(xen_417(), r).kind, ContinuationClass::kRestart);
    const std::uint64_t at = wide() ? 0xffff'8880'0000'1000 : 0xffff'fff8;
    const auto wrapped = [&](std::uint64_t offset) {
        return wide() ? at + offset : (at + offset) & UINT32_MAX;
    };
    const Encoded type = encode_continuation(
        xen_417(), r, {.units_done = 256, .structure = at, .structure_op = XEN_DMOP_set_mem_type});
    EXPECT_EQ(type.registers.args, r.args);
    EXPECT_EQ(type.change_count, 2u);
    EXPECT_EQ(type.changes[0], (StructChange{wrapped(8), 4, 0 - 256ull, false}));
    EXPECT_EQ(type.changes[1], (StructChange{wrapped(16), 8, 256, false}));
    const Encoded modified = encode_continuation(xen_417(), r,
                                                 {.units_done = 17,
                                                  .structure = at,
                                                  .structure_op = XEN_DMOP_modified_memory,
                                                  .groups_done = 3});
    EXPECT_EQ(modified.registers.args, r.args);
    EXPECT_EQ(modified.change_count, 2u);
    EXPECT_EQ(modified.changes[0], (StructChange{wrapped(8), 4, 0 - 3ull, false}));
    EXPECT_EQ(modified.changes[1], (StructChange{wrapped(12), 4, 17, true}));
}

// modified_memory and set_mem_type: the whole history of one operation's classes.
TEST_P(Continuation, HvmOpsProgressMovedThreeTimes) {
    for (const Profile& profile : profiles()) {
        for (const std::uint64_t op : {HVMOP_modified_memory, HVMOP_set_mem_type}) {
            const Request r = request(HYPERVISOR_hvm_op, {op, pointer(), 1, 2, 3});
            const ContinuationRule rule = continuation_rule(profile, r);
            const auto kind = !profile.since(4, 0)     ? ContinuationClass::kNone
                              : !profile.since(4, 5)   ? ContinuationClass::kStruct
                              : profile.hvm_device_ops ? ContinuationClass::kUnshiftedCursor
                                                       : ContinuationClass::kNone;
            EXPECT_EQ(rule.kind, kind) << profile.name;
            if (kind == ContinuationClass::kStruct) {
                // Until 4.4 every page was asked after, and {first_pfn @8, nr @16} had 64 bits.
                EXPECT_EQ(rule.granularity, 1u) << profile.name;
                const Encoded out = encode_continuation(profile, r, {.units_done = 5});
                EXPECT_EQ(out.registers.args, r.args) << profile.name;
                ASSERT_EQ(out.change_count, 2u) << profile.name;
                EXPECT_EQ(out.changes[0], (StructChange{pointer() + 8, 8, 5, false}));
                EXPECT_EQ(out.changes[1], (StructChange{pointer() + 16, 8, 0 - 5ull, false}));
            } else if (kind == ContinuationClass::kUnshiftedCursor) {
                EXPECT_EQ(rule.granularity, 256u) << profile.name;
                const Encoded out = encode_continuation(profile, r, {.units_done = 0x2400});
                EXPECT_EQ(out.registers.args[0], 0x2400 | op) << profile.name;
                EXPECT_EQ(out.change_count, 0u);
            }
        }
    }
}

TEST_P(Continuation, EverythingElseNeverContinues) {
    for (std::uint64_t number = 0; number < 64; ++number) {
        switch (number) {
            case HYPERVISOR_memory_op:
            case HYPERVISOR_multicall:
            case HYPERVISOR_vcpu_op:
            case HYPERVISOR_dm_op:
            case HYPERVISOR_hvm_op:          // set_param is 0, and may restart
            case HYPERVISOR_grant_table_op:  // map_grant_ref is 0
                continue;
            default: break;
        }
        EXPECT_EQ(continuation_rule(xen_417(), request(number, {})).kind, ContinuationClass::kNone)
            << number;
    }
}

// A pointer that runs over the end of a 32-bit register wraps there, and no upper half appears.
TEST(ContinuationAt32Bits, RegistersStay32BitsWide) {
    const Request r{.number = HYPERVISOR_multicall,
                    .args = {0xffff'ffe0, 3, 0xffff'ffff, 0x8000'0000, 1},
                    .width = Width::k32};
    const Reissue again = encode_continuation(xen_417(), r, {.units_done = 2}).registers;
    EXPECT_EQ(again.args, (std::array<std::uint64_t, 5>{0x20, 1, 0xffff'ffff, 0x8000'0000, 1}));
}

// Xen takes the count for an unsigned int, and writes one back.
TEST(ContinuationAt64Bits, TheCountComesBackZeroExtended) {
    const Request r{.number = HYPERVISOR_multicall,
                    .args = {0x1000, 0xdead'0000'0000'0005, 0, 0, 0},
                    .width = Width::k64};
    const Reissue again = encode_continuation(xen_417(), r, {.units_done = 2}).registers;
    EXPECT_EQ(again.args[1], 3u);
}

// Another release's profile writes another encoding, and reads it back.
TEST(ContinuationOfOtherProfiles, TheShiftComesFromTheProfile) {
    Profile old = xen_417();
    old.memory_op_shift = 4;
    const Request r{.number = HYPERVISOR_memory_op, .args = {6, 0x1000}, .width = Width::k64};
    const Reissue again = encode_continuation(old, r, {.units_done = 5}).registers;
    EXPECT_EQ(again.args[0], 0x56u);
    EXPECT_EQ(decode_memory_op(old, Width::k64, again.args[0]), (Command{6, 5}));
}

}  // namespace
}  // namespace xenshim::abi
