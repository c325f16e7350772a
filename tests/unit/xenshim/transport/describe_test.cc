// Hypercalls in words.
#include "xenshim/transport/describe.h"

#include <string>

#include <gtest/gtest.h>

#include "xenshim/abi/numbers.h"

namespace xenshim {
namespace {

using namespace abi;

std::string words(std::uint64_t number, std::uint64_t first, std::uint64_t second = 0,
                  Width width = Width::k64, const char* profile = "xen-4.17") {
    const auto d = describe_hypercall(
        *find_profile(profile),
        {.number = number, .args = {first, second, 0, 0, 0}, .width = width, .cpl = 0});
    std::string text = d.name;
    if (!d.operation.empty()) text += "(" + d.operation + ")";
    if (d.done) text += ", " + std::to_string(*d.done) + " done";
    if (d.left) text += ", " + std::to_string(*d.left) + " left";
    return text;
}

TEST(Describe, XensOwnNames) {
    EXPECT_EQ(words(HYPERVISOR_sched_op, SCHEDOP_poll), "sched_op(SCHEDOP_poll)");
    EXPECT_EQ(words(HYPERVISOR_event_channel_op, EVTCHNOP_send), "event_channel_op(EVTCHNOP_send)");
    EXPECT_EQ(words(HYPERVISOR_vcpu_op, VCPUOP_set_singleshot_timer),
              "vcpu_op(VCPUOP_set_singleshot_timer)");
    EXPECT_EQ(words(HYPERVISOR_xen_version, XENVER_get_features),
              "xen_version(XENVER_get_features)");
    EXPECT_EQ(words(HYPERVISOR_hvm_op, HVMOP_set_param), "hvm_op(HVMOP_set_param)");
    EXPECT_EQ(words(HYPERVISOR_grant_table_op, GNTTABOP_query_size),
              "grant_table_op(GNTTABOP_query_size)");
    EXPECT_EQ(words(HYPERVISOR_set_timer_op, 5), "set_timer_op");
}

TEST(Describe, HowFarItCame) {
    EXPECT_EQ(words(HYPERVISOR_memory_op, XENMEM_decrease_reservation),
              "memory_op(XENMEM_decrease_reservation)");
    // Above six bits, in 4.17.
    EXPECT_EQ(words(HYPERVISOR_memory_op, XENMEM_decrease_reservation | 8u << 6),
              "memory_op(XENMEM_decrease_reservation), 8 done");
    EXPECT_EQ(words(HYPERVISOR_memory_op, XENMEM_populate_physmap | 3u << 6, 0, Width::k32),
              "memory_op(XENMEM_populate_physmap), 3 done");
    // The same register under a profile with four.
    EXPECT_EQ(words(HYPERVISOR_memory_op, XENMEM_decrease_reservation | 8u << 6, 0, Width::k64,
                    "xen-3.3"),
              "memory_op(XENMEM_decrease_reservation), 32 done");
    EXPECT_EQ(words(HYPERVISOR_multicall, 0x1000, 7), "multicall, 7 left");
}

TEST(Describe, TheUpperHalfOfRaxCountsSince48) {
    constexpr std::uint64_t kAbove = 0xdead'beef'0000'0000;
    EXPECT_EQ(words(kAbove | HYPERVISOR_memory_op, XENMEM_decrease_reservation | 8u << 6, 0,
                    Width::k64, "xen-4.7"),
              "memory_op(XENMEM_decrease_reservation), 8 done");
    EXPECT_EQ(words(kAbove | HYPERVISOR_memory_op, XENMEM_decrease_reservation | 8u << 6, 0,
                    Width::k64, "xen-4.8"),
              "hypercall 16045690981097406476");
    const Request request{.number = kAbove | 99, .args = {}, .width = Width::k64, .cpl = 0};
    EXPECT_EQ(describe_hypercall(*find_profile("xen-4.7"), request).number, 99u);
    EXPECT_EQ(describe_hypercall(*find_profile("xen-4.8"), request).number, kAbove | 99);
}

TEST(Describe, WhatNobodyHasIsANumber) {
    EXPECT_EQ(words(99, 1), "hypercall 99");
    EXPECT_EQ(words(~0ull, 1), "hypercall 18446744073709551615");
    EXPECT_EQ(words(HYPERVISOR_sched_op, 4711), "sched_op(4711)");
    EXPECT_EQ(words(HYPERVISOR_sched_op, ~0ull), "sched_op(18446744073709551615)");
}

}  // namespace
}  // namespace xenshim
