// What the table of operations says exists is answered, and what it says does not is -ENOSYS: for
// every operation, under every profile, at both widths.
#include <gtest/gtest.h>

#include "tests/fakes/test_domain.h"
#include "xenshim/abi/operations.h"
#include "xenshim/abi/other_numbers.h"
#include "xenshim/abi/release_rules.h"

namespace xenshim {
namespace {

using namespace abi;
using fakes::TestDomain;

class Existence : public fakes::BothWidths {};
XENOLITH_BOTH_WIDTHS(Existence);

// A structure of zeroes: nothing that any operation crashes the domain for.
std::optional<std::int64_t> answer(TestDomain& guest, const Operation& op) {
    const vmm::Gva zeroes = guest.put(std::array<std::byte, 256>{});
    const bool two_arguments_first = op.hypercall == HYPERVISOR_vcpu_op;
    const bool count = op.hypercall == HYPERVISOR_grant_table_op;
    // Takes no argument, and before 4.8 calls one -ENOSYS.
    if (op.hypercall == HYPERVISOR_hvm_op && op.sub_op == HVMOP_flush_tlbs) {
        return guest.result(op.hypercall, op.sub_op, 0);
    }
    const auto reply = two_arguments_first ? guest.call(op.hypercall, op.sub_op, 0, zeroes.value)
                       : count             ? guest.call(op.hypercall, op.sub_op, zeroes.value, 1)
                                           : guest.call(op.hypercall, op.sub_op, zeroes.value);
    const auto* finish = std::get_if<Finish>(&reply);
    return finish != nullptr ? std::optional(finish->result) : std::nullopt;
}

// Ends the call's vCPU or its domain: not for a sweep.
bool is_final(const Operation& op) {
    if (op.hypercall == HYPERVISOR_sched_op) {
        return op.sub_op == SCHEDOP_shutdown || op.sub_op == SCHEDOP_block ||
               op.sub_op == SCHEDOP_poll;
    }
    return op.hypercall == HYPERVISOR_vcpu_op && op.sub_op == VCPUOP_down;
}

TEST_P(Existence, WhatDoesNotExistIsEnosys) {
    for (const Profile& profile : profiles()) {
        const auto d = fresh({.profile = &profile});
        for (const Operation& op : operations()) {
            if (standing_of(profile, op) != Standing::kAbsent) continue;
            // A number that does not fit below the cursor is another operation's.
            if ((op.hypercall == HYPERVISOR_memory_op &&
                 decode_memory_op(profile, GetParam(), op.sub_op).start != 0) ||
                (op.hypercall == HYPERVISOR_hvm_op &&
                 decode_hvm_op(profile, op.sub_op).start != 0)) {
                continue;
            }
            EXPECT_EQ(answer(*d, op), -XEN_ENOSYS) << profile.name << " " << op.name;
        }
    }
}

TEST_P(Existence, WhatAGuestMayCallIsNotEnosys) {
    for (const Profile& profile : profiles()) {
        const auto d = fresh({.profile = &profile});
        for (const Operation& op : operations()) {
            if (standing_of(profile, op) == Standing::kAbsent || is_final(op) ||
                op.exception.starts_with("-ENOSYS")) {
                continue;
            }
            // Measured: Xen's compat layer does not know it.
            if (!d->wide() && op.hypercall == HYPERVISOR_memory_op &&
                op.sub_op == XENMEM_claim_pages) {
                continue;
            }
            const auto result = answer(*d, op);
            EXPECT_NE(result, -XEN_ENOSYS) << profile.name << " " << op.name;
            // Asked with zeroes it is a question that 4.11 answers before it looks who asks.
            const bool asks = op.hypercall == HYPERVISOR_memory_op &&
                              op.sub_op == XENMEM_acquire_resource &&
                              !refuses_resource_unread(profile);
            if (standing_of(profile, op) == Standing::kPrivileged && !asks) {
                EXPECT_LT(result, 0) << profile.name << " " << op.name;
            }
        }
    }
}

// The same of those whose number stands in memory: each of them by its own, and one that is
// nobody's, of the guest itself and in a structure that is whole.
TEST_P(Existence, WhatToolstacksAskForIsRefusedWithItsHypercall) {
    const auto asked = [](TestDomain& d, const ToolOperation& op) {
        // domctl, sysctl and platform_op: {cmd, interface version, domain}; the others look at what
        // they know of it.
        const std::uint32_t version = op.hypercall == HYPERVISOR_platform_op ? 0x03000001 : 0x15;
        const std::array<std::uint32_t, 36> words{op.sub_op, version, TestDomain::kDomid};
        const std::uint64_t structure = d.put(words).value;
        switch (op.hypercall) {
            case HYPERVISOR_mmuext_op:
                return TestDomain::result_of(d.call(op.hypercall, structure, 1, 0, DOMID_SELF));
            case HYPERVISOR_dm_op: {
                const auto buffers =
                    d.wide() ? d.put(std::array<std::uint64_t, 2>{structure, sizeof words})
                             : d.put(std::array<std::uint32_t, 2>{
                                   static_cast<std::uint32_t>(structure), sizeof words});
                return d.result(op.hypercall, TestDomain::kDomid, 1, buffers.value);
            }
            default: return d.result(op.hypercall, structure);
        }
    };
    for (const Profile& profile : profiles()) {
        const auto d = fresh({.profile = &profile});
        for (const ToolOperation& row : tool_operations()) {
            for (const std::uint32_t sub_op : {row.sub_op, 0x3fffu}) {
                ToolOperation op = row;
                op.sub_op = sub_op;
                const auto result = asked(*d, op);
                if (standing_of(profile, *find_hypercall(op.hypercall)) == Standing::kAbsent) {
                    EXPECT_EQ(result, -XEN_ENOSYS) << profile.name << " " << op.name;
                } else {
                    EXPECT_LT(result, 0) << profile.name << " " << op.name;
                    EXPECT_NE(result, -XEN_ENOSYS) << profile.name << " " << op.name;
                }
            }
        }
    }
}

TEST_P(Existence, HypercallsWithoutASlotAreEnosys) {
    for (const Profile& profile : profiles()) {
        const auto d = fresh({.profile = &profile});
        for (std::uint64_t n = 0; n < 128; ++n) {
            if (n < 64 && (profile.hypercalls >> n & 1) != 0) continue;
            EXPECT_EQ(d->result(n, 0, 0, 0), -XEN_ENOSYS) << profile.name << " " << n;
        }
    }
}

}  // namespace
}  // namespace xenshim
