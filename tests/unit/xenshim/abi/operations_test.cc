// The table of operations: its order, its names and who has what when, against a list by hand.
#include "xenshim/abi/operations.h"

#include <map>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "tests/sweep/era.h"
#include "xenshim/abi/numbers.h"
#include "xenshim/abi/other_numbers.h"

namespace xenshim::abi {
namespace {

using tests::Era;

bool device(const Era& era) {
    return era.hvm_memory() != Era::HvmMemory::kGone;
}

TEST(Operations, AreSortedAndFoundByNumber) {
    const Operation* last = nullptr;
    for (const Operation& operation : operations()) {
        if (last != nullptr) {
            EXPECT_LT(std::pair(last->hypercall, last->sub_op),
                      std::pair(operation.hypercall, operation.sub_op));
        }
        last = &operation;
        EXPECT_EQ(find_operation(operation.hypercall, operation.sub_op), &operation);
        EXPECT_NE(find_hypercall(operation.hypercall), nullptr) << operation.name;
    }
    std::int64_t number = -1;
    for (const Hypercall& hypercall : hypercall_names()) {
        EXPECT_GT(hypercall.number, number);
        number = hypercall.number;
        EXPECT_EQ(find_hypercall(hypercall.number), &hypercall);
    }
}

TEST(Operations, ToolstacksOperationsStandOnceEachByNumber) {
    const ToolOperation* last = nullptr;
    std::set<std::string_view> seen;
    for (const ToolOperation& operation : tool_operations()) {
        if (last != nullptr) {
            EXPECT_LT(std::pair(last->hypercall, last->sub_op),
                      std::pair(operation.hypercall, operation.sub_op));
        }
        last = &operation;
        EXPECT_TRUE(seen.insert(operation.name).second) << operation.name;
        const Hypercall* const hypercall = find_hypercall(operation.hypercall);
        ASSERT_NE(hypercall, nullptr) << operation.name;
        EXPECT_EQ(hypercall->standing, Standing::kPrivileged) << operation.name;
        // It is not in the register where others' numbers stand.
        EXPECT_EQ(find_operation(operation.hypercall, operation.sub_op), nullptr);
    }
    EXPECT_EQ(dm_operation_name(XEN_DMOP_nr_vcpus), "XEN_DMOP_nr_vcpus");
    EXPECT_EQ(dm_operation_name(XEN_DMOP_nr_vcpus + 1), "");
}

// What a guest is refused and a later release does for it.
TEST(Operations, AnOperationMayBeRefusedUntilARelease) {
    const Operation& map = *find_operation(HYPERVISOR_memory_op, XENMEM_set_memory_map);
    EXPECT_EQ(standing_of(*find_profile("xen-3.0.3"), map), Standing::kPrivileged);
    EXPECT_EQ(standing_of(*find_profile("xen-4.5"), map), Standing::kPrivileged);
    EXPECT_EQ(standing_of(*find_profile("xen-4.6"), map), Standing::kGuest);
}

TEST(Operations, WhatNoReleaseEverHadIsNotFound) {
    for (const auto& [hypercall, op] :
         std::initializer_list<std::pair<unsigned, std::uint64_t>>{{12, 29},
                                                                   {12, 63},
                                                                   {12, 0x41},
                                                                   {12, ~0ull},
                                                                   {20, 13},
                                                                   {20, 0x500c},
                                                                   {32, 15},
                                                                   {34, 26},
                                                                   {34, 0x101},
                                                                   {34, 0x104},
                                                                   {34, 0x107},
                                                                   {29, 3 + 5},
                                                                   {17, 16},
                                                                   {33, 33},
                                                                   {36, 1},
                                                                   {0, 0}}) {
        EXPECT_EQ(find_operation(hypercall, op), nullptr) << hypercall << ", " << op;
    }
    EXPECT_EQ(find_hypercall(7 + 4), nullptr);
    EXPECT_EQ(find_hypercall(63), nullptr);
    EXPECT_EQ(find_hypercall((std::uint64_t{1} << 32) | 12), nullptr);
}

TEST(Operations, NamesAreThoseOfThePublicHeaders) {
    const std::map<std::pair<std::uint32_t, std::uint32_t>, std::string> kNames = {
        {{12, 0}, "XENMEM_increase_reservation"},
        {{12, 1}, "XENMEM_decrease_reservation"},
        {{12, 6}, "XENMEM_populate_physmap"},
        {{12, 7}, "XENMEM_add_to_physmap"},
        {{12, 11}, "XENMEM_exchange"},
        {{12, 15}, "XENMEM_remove_from_physmap"},
        {{12, 23}, "XENMEM_add_to_physmap_batch"},
        {{12, 26}, "XENMEM_get_vnumainfo"},
        {{12, 28}, "XENMEM_acquire_resource"},
        {{20, 0}, "GNTTABOP_map_grant_ref"},
        {{20, 5}, "GNTTABOP_copy"},
        {{20, 8}, "GNTTABOP_set_version"},
        {{20, 12}, "GNTTABOP_cache_flush"},
        {{32, 0}, "EVTCHNOP_bind_interdomain"},
        {{32, 10}, "EVTCHNOP_reset"},
        {{32, 14}, "EVTCHNOP_reset_cont"},
        {{34, 0}, "HVMOP_set_param"},
        {{34, 8}, "HVMOP_set_mem_type"},
        {{34, 23}, "HVMOP_set_evtchn_upcall_vector"},
        {{29, 3}, "SCHEDOP_poll"},
        {{24, 13}, "VCPUOP_register_vcpu_time_memory_area"},
    };
    for (const auto& [key, name] : kNames) {
        const Operation* operation = find_operation(key.first, key.second);
        ASSERT_NE(operation, nullptr) << name;
        EXPECT_EQ(operation->name, name);
    }
    // No name twice.
    std::set<std::string_view> seen;
    for (const Operation& operation : operations()) {
        EXPECT_TRUE(seen.insert(operation.name).second) << operation.name;
    }
}

// Which eras have an operation, for a list by hand: xen-abi.md 4.1, 4.5, 4.7, 5.4 and 2.3.
TEST(Operations, ExistWhereTheReferenceSaysSo) {
    struct Row {
        std::uint32_t hypercall;
        std::uint32_t sub_op;
        bool (*exists)(const Era& era);
    };
    constexpr auto always = [](const Era&) { return true; };
    constexpr auto never = [](const Era&) { return false; };
    constexpr auto legacy = [](const Era& e) { return e.xenserver && e.product < 80; };
    constexpr Row kRows[] = {
        {12, 0, always},
        {12, 1, always},
        {12, 6, always},
        {12, 7, always},
        {12, 8, [](const Era& e) { return e.release < 304; }},
        {12, 9, [](const Era& e) { return e.release >= 406; }},
        {12, 12, never},
        {12, 16, [](const Era& e) { return e.release >= 304; }},
        {12, 17, [](const Era& e) { return e.release >= 304; }},
        {12, 23, [](const Era& e) { return e.release >= 404; }},
        {12, 28, [](const Era& e) { return e.release >= 411; }},
        {12, 0x28, [](const Era& e) { return e.xenserver && e.product >= 65 && e.product < 80; }},
        {12, 0x39, [](const Era& e) { return e.xenserver && e.product >= 65 && e.product < 80; }},
        {20, 0, [](const Era& e) { return e.release >= 400; }},
        {20, 1, [](const Era& e) { return e.release >= 400; }},
        {20, 2, always},
        {20, 3, never},
        {20, 4, never},
        {20, 5, [](const Era& e) { return e.release >= 400; }},
        {20, 6, always},
        {20, 7, never},
        {20, 8, [](const Era& e) { return e.release >= 400; }},
        {20, 9, never},
        {20, 10, [](const Era& e) { return e.release >= 402; }},
        {20, 11, [](const Era& e) { return e.release >= 402; }},
        {20, 12, never},
        {32, 10, always},
        {32, 11, [](const Era& e) { return e.release >= 404; }},
        {32, 14, [](const Era& e) { return e.release >= 410; }},
        {34, 0, always},
        {34, 1, always},
        {34, 2, device},
        {34, 3, device},
        {34, 7, [](const Era& e) { return e.release >= 303 && device(e); }},
        {34, 8, [](const Era& e) { return e.release >= 304 && device(e); }},
        {34, 12, [](const Era& e) { return e.release >= 401 && e.release < 405; }},
        {34, 23, [](const Era& e) { return e.release >= 406; }},
        {34, 24, [](const Era& e) { return e.release >= 406; }},
        {34, 0x102, legacy},
        {34, 0x103, legacy},
    };
    for (const Profile& profile : profiles()) {
        const Era era(profile.name);
        for (const Row& row : kRows) {
            EXPECT_EQ(exists(profile, row.hypercall, row.sub_op), row.exists(era))
                << profile.name << ", hypercall " << row.hypercall << ", op " << row.sub_op;
        }
    }
}

// A hypercall that a profile lacks has no operations there.
TEST(Operations, GoWithTheirHypercall) {
    for (const Profile& profile : profiles()) {
        for (const Operation& operation : operations()) {
            if ((profile.hypercalls >> operation.hypercall & 1) == 0) {
                EXPECT_EQ(standing_of(profile, operation), Standing::kAbsent)
                    << profile.name << ", " << operation.name;
            }
        }
    }
}

// An HVM guest has multicall since 4.16, dm_op since 4.9 (XenServer: 7.5), set_timer and vcpu_op
// since 4.1 in 64-bit mode; tmem went with 4.13.
TEST(Operations, HypercallsComeAndGo) {
    for (const Profile& profile : profiles()) {
        const Era era(profile.name);
        const auto has = [&](unsigned n) { return (profile.hypercalls >> n & 1) != 0; };
        EXPECT_EQ(has(13), era.has_multicall()) << profile.name;
        EXPECT_EQ(has(41), era.has_dm_op()) << profile.name;
        EXPECT_EQ(has(24), era.release >= 401) << profile.name;
        EXPECT_EQ(has(38), era.release >= 402 && era.release < 413) << profile.name;
        for (const unsigned n : {12u, 17u, 20u, 29u, 32u, 34u}) {
            EXPECT_TRUE(has(n)) << profile.name << " " << n;
        }
        for (const unsigned n : {0u, 1u, 11u, 37u, 43u, 63u}) {
            EXPECT_FALSE(has(n)) << profile.name << " " << n;
        }
    }
}

}  // namespace
}  // namespace xenshim::abi
