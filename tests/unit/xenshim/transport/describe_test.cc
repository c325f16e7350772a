// Hypercalls in words.
#include "xenshim/transport/describe.h"

#include <array>
#include <cstring>
#include <string>

#include <gtest/gtest.h>

#include "xenshim/abi/device_structs.h"
#include "xenshim/abi/numbers.h"
#include "xenshim/abi/other_numbers.h"
#include "xenshim/abi/structs.h"

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

// What the call itself does not look at.
TEST(Describe, UpperHalvesThatDoNotCount) {
    constexpr std::uint64_t kUpper = std::uint64_t{1} << 32;
    EXPECT_EQ(words(HYPERVISOR_event_channel_op, EVTCHNOP_send | kUpper),
              "event_channel_op(EVTCHNOP_send)");
    EXPECT_EQ(words(HYPERVISOR_sched_op, SCHEDOP_yield | kUpper), "sched_op(SCHEDOP_yield)");
    const auto copy = describe_hypercall(
        *find_profile("xen-4.17"), {.number = HYPERVISOR_grant_table_op,
                                    .args = {GNTTABOP_copy | kUpper, 0x1000, 3 | kUpper, 0, 0},
                                    .width = Width::k64,
                                    .cpl = 0});
    EXPECT_EQ(copy.operation, "GNTTABOP_copy");
    EXPECT_EQ(copy.left, 3u);
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

// A caller's memory from 0x1000 on.
class Memory {
  public:
    template <class T>
    void put(std::uint64_t at, const T& value) {
        std::memcpy(bytes_.data() + (at - 0x1000), &value, sizeof value);
    }
    ReadMember read() const {
        return [this](std::uint64_t at, std::uint8_t bytes) -> std::optional<std::uint64_t> {
            if (at < 0x1000 || at + bytes > 0x1000 + bytes_.size()) return std::nullopt;
            std::uint64_t value = 0;
            std::memcpy(&value, bytes_.data() + (at - 0x1000), bytes);
            return value;
        };
    }

  private:
    std::array<std::byte, 0x1000> bytes_{};
};

std::string words_of(const Memory& memory, const char* profile, Request request) {
    const auto d = describe_hypercall(*find_profile(profile), request, memory.read());
    return d.operation + (d.done ? ", " + std::to_string(*d.done) + " done" : "") +
           (d.left ? ", " + std::to_string(*d.left) + " left" : "");
}

TEST(Describe, WhatTheStructureSays) {
    Memory memory;
    memory.put(0x1100, xen_add_to_physmap<W64>{
                           .domid = DOMID_SELF, .size = 5, .space = 3, .idx = 100, .gpfn = 200});
    Request r{.number = HYPERVISOR_memory_op, .args = {XENMEM_add_to_physmap, 0x1100}};
    EXPECT_EQ(words_of(memory, "xen-4.2", r), "XENMEM_add_to_physmap, 5 left");
    EXPECT_EQ(words_of(memory, "xen-4.17", r), "XENMEM_add_to_physmap");
    r.args[1] = 0x9000;  // nothing there
    EXPECT_EQ(words_of(memory, "xen-4.2", r), "XENMEM_add_to_physmap");

    memory.put(0x1200, xen_memory_exchange<W32>{.in = {}, .out = {}, .nr_exchanged = 7});
    r = {.number = HYPERVISOR_memory_op, .args = {XENMEM_exchange, 0x1200}, .width = Width::k32};
    EXPECT_EQ(words_of(memory, "xen-4.17", r), "XENMEM_exchange, 7 done");

    memory.put(0x1300,
               xen_hvm_memory_range_4_4{
                   .domid = DOMID_SELF, .pad = 0, .hvmmem_type = 0, .first_pfn = 50, .nr = 33});
    r = {.number = HYPERVISOR_hvm_op, .args = {HVMOP_modified_memory, 0x1300}};
    EXPECT_EQ(words_of(memory, "xen-4.4", r), "HVMOP_modified_memory, 33 left");
}

TEST(Describe, DmOpsAreInABuffer) {
    Memory memory;
    memory.put(0x1100, xen_dm_op_buf<W64>{.h = 0x1200, .size = 24});
    memory.put(0x1200, xen_dm_op_header{.op = XEN_DMOP_set_mem_type, .pad = 0});
    memory.put(0x1208, xen_dm_op_set_mem_type{.nr = 300, .mem_type = 1, .pad = 0, .first_pfn = 20});
    Request r{.number = HYPERVISOR_dm_op, .args = {1, 1, 0x1100}};
    EXPECT_EQ(words_of(memory, "xen-4.17", r), "XEN_DMOP_set_mem_type, 300 left");
    memory.put(0x1200, xen_dm_op_header{.op = XEN_DMOP_modified_memory, .pad = 0});
    memory.put(0x1208, xen_dm_op_modified_memory{.nr_extents = 4, .opaque = 256});
    EXPECT_EQ(words_of(memory, "xen-4.17", r), "XEN_DMOP_modified_memory, 256 done, 4 left");
    memory.put(0x1200, xen_dm_op_header{.op = 77, .pad = 0});
    EXPECT_EQ(words_of(memory, "xen-4.17", r), "77");
    // At the width of the caller, whose buffers are smaller.
    memory.put(0x1200, xen_dm_op_header{.op = XEN_DMOP_set_mem_type, .pad = 0});
    memory.put(0x1100, xen_dm_op_buf<W32>{.h = 0x1200, .size = 24});
    r.width = Width::k32;
    EXPECT_EQ(words_of(memory, "xen-4.17", r), "XEN_DMOP_set_mem_type, 4 left");
    memory.put(0x1100, xen_dm_op_buf<W32>{.h = 0x1200, .size = 7});
    EXPECT_EQ(words_of(memory, "xen-4.17", r), "");
    r.args[1] = 0;
    EXPECT_EQ(words_of(memory, "xen-4.17", r), "");
}

TEST(Describe, WhatNobodyHasIsANumber) {
    EXPECT_EQ(words(99, 1), "hypercall 99");
    EXPECT_EQ(words(~0ull, 1), "hypercall 18446744073709551615");
    EXPECT_EQ(words(HYPERVISOR_sched_op, 4711), "sched_op(4711)");
    EXPECT_EQ(words(HYPERVISOR_sched_op, ~0ull), "sched_op(4294967295)");
}

}  // namespace
}  // namespace xenshim
