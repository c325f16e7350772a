// Hypercalls as text, and the tables of members against Xen's headers.
#include "xenshim/trace/decode.h"

#include <gtest/gtest.h>

#include "tests/fakes/trace_file.h"
#include "tests/golden/layout.h"
#include "xenshim/abi/operations.h"
#include "xenshim/abi/other_numbers.h"
#include "xenshim/abi/structs.h"
#include "xenshim/trace/structures.h"

namespace xenshim::trace {
namespace {

using namespace abi;
using fakes::bytes;
using fakes::call;

std::string text(const Event& event, Style style = Style::kFull,
                 std::string_view profile = "xen-4.17") {
    return to_text(describe(*find_profile(profile), event, style));
}

TEST(Decode, MemoryOpWithItsCursor) {
    Event event =
        call(HYPERVISOR_memory_op, {341 << 6 | XENMEM_decrease_reservation, 0x5000}, 1000);
    event.in = bytes(xen_memory_reservation<W64>{.extent_start = 0x7000,
                                                 .nr_extents = 1000,
                                                 .extent_order = 0,
                                                 .mem_flags = 0,
                                                 .domid = DOMID_SELF});
    EXPECT_EQ(text(event),
              "memory_op(XENMEM_decrease_reservation, {extent_start=0x7000, nr_extents=1000, "
              "extent_order=0, mem_flags=0x0, domid=DOMID_SELF}, start=341) = 1000");
    EXPECT_EQ(text(event, Style::kStable),
              "memory_op(XENMEM_decrease_reservation, {extent_start=*, nr_extents=1000, "
              "extent_order=0, mem_flags=0x0, domid=DOMID_SELF}, start=341) = 1000");

    event.ending = Ending::kContinue;
    event.next_args = event.request.args;
    event.next_args[0] = 512 << 6 | XENMEM_decrease_reservation;
    EXPECT_TRUE(text(event).ends_with("start=341) = continues at 512")) << text(event);

    // A quarter of the bits above a 4-bit operation.
    event.request.args[0] = 341 << 4 | XENMEM_decrease_reservation;
    event.next_args[0] = 512 << 4 | XENMEM_decrease_reservation;
    EXPECT_TRUE(text(event, Style::kFull, "xen-3.3").ends_with("start=341) = continues at 512"))
        << text(event, Style::kFull, "xen-3.3");
}

TEST(Decode, NarrowCallersHaveTheirOwnLayout) {
    Event event = call(HYPERVISOR_memory_op, {XENMEM_add_to_physmap, 0x5000}, -XEN_EINVAL);
    event.request.width = Width::k32;
    event.in = bytes(xen_add_to_physmap<W32>{
        .domid = 3, .size = 0, .space = XENMAPSPACE_gmfn_range, .idx = 0x10, .gpfn = 0x20});
    EXPECT_EQ(text(event),
              "memory_op(XENMEM_add_to_physmap, {domid=3, size=0, space=XENMAPSPACE_gmfn_range, "
              "idx=0x10, gpfn=0x20}) = -EINVAL");
    event.in.resize(9);  // what a fault left
    EXPECT_EQ(text(event),
              "memory_op(XENMEM_add_to_physmap, {domid=3, size=0, "
              "space=XENMAPSPACE_gmfn_range}) = -EINVAL");
    event.in.clear();
    EXPECT_EQ(text(event), "memory_op(XENMEM_add_to_physmap, 0x5000) = -EINVAL");
    EXPECT_EQ(text(event, Style::kStable), "memory_op(XENMEM_add_to_physmap, *) = -EINVAL");
    event.request.args[1] = 0;
    EXPECT_EQ(text(event, Style::kStable), "memory_op(XENMEM_add_to_physmap, NULL) = -EINVAL");
}

TEST(Decode, WhatWasWrittenIsShown) {
    Event event = call(HYPERVISOR_hvm_op, {HVMOP_get_param, 0x5000});
    event.in = bytes(xen_hvm_param{.domid = DOMID_SELF, .pad = 0, .index = 17, .value = 0});
    event.out = bytes(xen_hvm_param{.domid = DOMID_SELF, .pad = 0, .index = 17, .value = 0xfefff});
    EXPECT_EQ(text(event),
              "hvm_op(HVMOP_get_param, {domid=DOMID_SELF, index=17 (CONSOLE_PFN), "
              "value=0x0->0xfefff}) = 0");

    event = call(HYPERVISOR_hvm_op, {HVMOP_get_time, 0x5000});
    event.out = bytes(std::uint64_t{12345});
    EXPECT_EQ(text(event), "hvm_op(HVMOP_get_time, {now=->12345}) = 0");
    EXPECT_EQ(text(event, Style::kStable), "hvm_op(HVMOP_get_time, {now=->*}) = 0");

    event = call(HYPERVISOR_xen_version, {XENVER_extraversion, 0x5000});
    event.out = bytes(std::array<char, 16>{'.', '7', '\0', 'x'});
    EXPECT_EQ(text(event), "xen_version(XENVER_extraversion, {->\".7\"}) = 0");
    // Nothing that a terminal would obey.
    event.out = bytes(std::array<char, 16>{'\x1b', '[', '"', '\\', '\xff'});
    EXPECT_EQ(text(event), "xen_version(XENVER_extraversion, {->\"\\x1b[\\x22\\x5c\\xff\"}) = 0");
}

TEST(Decode, StableLeavesOutWhereThingsLie) {
    Event event = call(HYPERVISOR_vcpu_op, {VCPUOP_register_vcpu_info, 1, 0x5000});
    event.in = bytes(abi::vcpu_register_vcpu_info{.mfn = 0x120, .offset = 64, .rsvd = 0});
    EXPECT_EQ(text(event), "vcpu_op(VCPUOP_register_vcpu_info, 1, {mfn=0x120, offset=0x40}) = 0");
    EXPECT_EQ(text(event, Style::kStable),
              "vcpu_op(VCPUOP_register_vcpu_info, 1, {mfn=*, offset=*}) = 0");
    event = call(HYPERVISOR_set_timer_op, {5'000'000'000});
    EXPECT_EQ(text(event), "set_timer_op(5000000000) = 0");
    EXPECT_EQ(text(event, Style::kStable), "set_timer_op(*) = 0");
    event.request.width = Width::k32;
    event.request.args = {1, 2};
    EXPECT_EQ(text(event), "set_timer_op(8589934593) = 0");
}

TEST(Decode, Results) {
    EXPECT_EQ(text(call(HYPERVISOR_xen_version, {XENVER_version, 0}, 0x40011)),
              "xen_version(XENVER_version, NULL) = 0x40011 (4.17)");
    EXPECT_EQ(text(call(HYPERVISOR_sched_op, {SCHEDOP_yield, 77})), "sched_op(SCHEDOP_yield) = 0");
    Event block = call(HYPERVISOR_sched_op, {SCHEDOP_block, 77});
    block.ending = Ending::kBlock;
    EXPECT_EQ(text(block), "sched_op(SCHEDOP_block) = 0, sleeps");
    EXPECT_EQ(text(call(HYPERVISOR_vm_assist, {0, 4}, -4095)),
              "vm_assist(VMASST_CMD_enable, 4) = -error 4095");
    EXPECT_EQ(text(call(HYPERVISOR_vm_assist, {0, 4}, -4096)),
              "vm_assist(VMASST_CMD_enable, 4) = -4096");
}

TEST(Decode, OtherContinuations) {
    Event reset = call(HYPERVISOR_event_channel_op, {EVTCHNOP_reset, 0x5000});
    reset.ending = Ending::kContinue;
    reset.next_args = reset.request.args;
    reset.next_args[0] = EVTCHNOP_reset_cont;
    EXPECT_EQ(text(reset),
              "event_channel_op(EVTCHNOP_reset, 0x5000) = continues as EVTCHNOP_reset_cont");

    Event copy = call(HYPERVISOR_grant_table_op, {GNTTABOP_copy, 0x5000, 12});
    copy.in.resize(80);
    copy.ending = Ending::kContinue;
    copy.next_args = {GNTTABOP_copy, 0x5000 + 5 * 40, 7};
    const std::string element =
        "{source.u=0x0, source.domid=0, source.offset=0, dest.u=0x0, dest.domid=0, dest.offset=0, "
        "len=0, flags=0x0, status=0}";
    EXPECT_EQ(text(copy), "grant_table_op(GNTTABOP_copy, [" + element + ", " + element +
                              ", ...], 12) = continues with 7 left");
}

TEST(Decode, MulticallShowsItsEntries) {
    Event event = call(HYPERVISOR_multicall, {0x5000, 3});
    event.in = bytes(std::array<multicall_entry<W64>, 2>{
        multicall_entry<W64>{.op = HYPERVISOR_xen_version, .result = 0, .args = {}},
        multicall_entry<W64>{.op = 99, .result = 0, .args = {1, 2, 3, 4, 5}}});
    EXPECT_EQ(text(event),
              "multicall([xen_version(XENVER_version, NULL), hypercall 99(0x1, 0x2, 0x3, 0x4, "
              "0x5), ...], 3) = 0");
}

TEST(Decode, WhatNobodyKnows) {
    EXPECT_EQ(text(call(99, {1, 2, 3, 4, 5}, -XEN_ENOSYS)),
              "hypercall 99(0x1, 0x2, 0x3, 0x4, 0x5) = -ENOSYS");
    EXPECT_EQ(text(call(99, {1, 2, 3, 4, 5}, -XEN_ENOSYS), Style::kStable),
              "hypercall 99(...) = -ENOSYS");
    EXPECT_EQ(text(call(HYPERVISOR_memory_op, {63, 0x5000}, -XEN_ENOSYS)),
              "memory_op(63, 0x5000) = -ENOSYS");
    EXPECT_EQ(text(call(HYPERVISOR_sched_op, {0xfeeb0000, 0x5000}, -XEN_ENOSYS)),
              "sched_op(0xfeeb0000, 0x5000) = -ENOSYS");
    // The upper half of RAX counts since 4.8.
    const Event wide = call(0x1'0000'0000 + HYPERVISOR_xen_version, {XENVER_version});
    EXPECT_EQ(text(wide, Style::kFull, "xen-4.7"), "xen_version(XENVER_version, NULL) = 0");
    EXPECT_TRUE(text(wide).starts_with("hypercall 0x100000011(")) << text(wide);
}

TEST(Decode, EveryOperationOfTheTableHasItsName) {
    for (const Operation& operation : operations()) {
        const SubOp sub_op{true, {.op = operation.sub_op}};
        EXPECT_EQ(operation_name(operation.hypercall, sub_op), operation.name);
    }
}

// Xen's headers say where each member lies; what is one value and no structure has its size there.
TEST(Structures, AgreeWithXensHeaders) {
    const auto golden = golden::read_layout();
    for (const Structure* structure : structures()) {
        const std::string name(structure->name);
        if (name == "domid_t") continue;  // no structure of the headers
        const auto place_of = [&](const std::string& member) {
            const auto place = golden.find({name, member});
            EXPECT_NE(place, golden.end()) << name << "." << member;
            return place == golden.end() ? golden::Place{} : place->second;
        };
        EXPECT_EQ(place_of("sizeof"),
                  (golden::Place{structure->sizes.bytes_32, structure->sizes.bytes_64}))
            << name;
        for (const auto& [member, place, format] : structure->fields) {
            EXPECT_LE(place.at_32 + place.bytes_32, structure->sizes.bytes_32) << name << member;
            EXPECT_LE(place.at_64 + place.bytes_64, structure->sizes.bytes_64) << name << member;
            if (member.empty()) continue;
            EXPECT_EQ(place_of(std::string(member)), (golden::Place{place.at_32, place.at_64}))
                << name << "." << member;
        }
    }
}

}  // namespace
}  // namespace xenshim::trace
