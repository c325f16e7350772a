// The compatibility report: each reason for which another profile treats a call differently, both
// ways, and nothing where both do the same.
#include "xenshim/trace/check.h"

#include <gtest/gtest.h>

#include "tests/fakes/trace_file.h"
#include "xenshim/abi/continuation.h"
#include "xenshim/abi/device_structs.h"
#include "xenshim/abi/numbers.h"
#include "xenshim/abi/operations.h"
#include "xenshim/abi/other_numbers.h"
#include "xenshim/abi/structs.h"

namespace xenshim::trace {
namespace {

using namespace abi;
using fakes::bytes;
using fakes::call;

Event continuing(Event event, std::uint64_t first) {
    event.ending = Ending::kContinue;
    event.next_args = event.request.args;
    event.next_args[0] = first;
    return event;
}

// "reason: what; reason: what"
std::string compare(std::string_view here, std::string_view there, const Event& event,
                    bool reissued = false) {
    std::string text;
    for (const auto& difference :
         differences(*find_profile(here), *find_profile(there), event, reissued)) {
        if (!text.empty()) text += "; ";
        text += std::string(to_string(difference.reason)) + ": " + difference.what;
    }
    return text;
}
std::string detail(std::string_view here, std::string_view there, const Event& event,
                   bool reissued = false) {
    const auto all = differences(*find_profile(here), *find_profile(there), event, reissued);
    return all.size() == 1 ? all[0].detail : "not one difference";
}

Event decrease(std::uint64_t command, std::uint64_t extents = 1000) {
    return call(HYPERVISOR_memory_op, {command, 0x5000},
                bytes(xen_memory_reservation<W64>{.extent_start = 0x7000,
                                                  .nr_extents = extents,
                                                  .extent_order = 0,
                                                  .mem_flags = 0,
                                                  .domid = DOMID_SELF}));
}

Event physmap(std::uint32_t space, std::uint64_t start = 0) {
    return call(HYPERVISOR_memory_op, {start << 6 | XENMEM_add_to_physmap, 0x5000},
                bytes(xen_add_to_physmap<W64>{
                    .domid = DOMID_SELF, .size = 8, .space = space, .idx = 1, .gpfn = 2}));
}

Event param(std::uint64_t op, std::uint32_t index) {
    return call(HYPERVISOR_hvm_op, {op, 0x5000},
                bytes(xen_hvm_param{.domid = DOMID_SELF, .pad = 0, .index = index, .value = 0}));
}

TEST(Check, AProfileHasNothingAgainstItself) {
    std::vector<Event> events = {decrease(1),
                                 continuing(decrease(1), 341 << 6 | 1),
                                 physmap(XENMAPSPACE_gmfn_range, 3),
                                 param(HVMOP_get_param, 36),
                                 call(HYPERVISOR_xen_version, {XENVER_get_features, 0x5000}),
                                 call(99, {}),
                                 call(HYPERVISOR_hvm_op, {0x103, 0})};
    for (const Operation& operation : operations()) {
        events.push_back(call(operation.hypercall, {operation.sub_op, 0x5000, 1}));
    }
    for (const Profile& profile : profiles()) {
        for (const Event& event : events) {
            for (const bool reissued : {false, true}) {
                EXPECT_EQ(compare(profile.name, profile.name, event, reissued), "");
            }
        }
    }
}

TEST(Check, Hypercalls) {
    const Event multicall = call(HYPERVISOR_multicall, {0, 0});
    EXPECT_EQ(compare("xen-4.17", "xen-4.15", multicall),
              "hypercall: does not exist there: -ENOSYS");
    EXPECT_EQ(compare("xen-4.15", "xen-4.17", multicall), "hypercall: exists there, not here");
    EXPECT_EQ(compare("xen-4.15", "xen-4.14", multicall), "");  // refused by both
    EXPECT_EQ(compare("xen-4.17", "xen-3.3", call(99, {})), "");
    EXPECT_EQ(compare("xen-4.17", "xen-4.9", call(HYPERVISOR_xsm_op, {})), "");  // nobody's
    EXPECT_EQ(compare("xen-4.7", "xen-4.9", call(HYPERVISOR_dm_op, {})),
              "hypercall: exists there, not here: refused to a guest");
}

TEST(Check, Operations) {
    const Event control = call(HYPERVISOR_event_channel_op, {EVTCHNOP_init_control, 0x5000});
    EXPECT_EQ(compare("xen-4.17", "xen-4.3", control), "operation: does not exist there: -ENOSYS");
    EXPECT_EQ(compare("xen-4.3", "xen-4.17", control), "operation: exists there, not here");
    EXPECT_EQ(compare("xen-4.4", "xen-4.17", control), "");
    EXPECT_EQ(compare("xen-4.17", "xen-4.9", call(HYPERVISOR_memory_op, {63})), "");
}

TEST(Check, Gate) {
    Event ring1 = call(HYPERVISOR_memory_op, {XENMEM_maximum_ram_page, 0});
    ring1.request.cpl = 1;
    EXPECT_EQ(compare("xen-3.3", "xen-3.4", ring1),
              "ring: ring 1 and 2 may not call there: -EPERM");
    EXPECT_EQ(compare("xen-3.4", "xen-3.3", ring1), "ring: ring 1 and 2 may call there");
    ring1.request.cpl = 3;
    EXPECT_EQ(compare("xen-3.3", "xen-4.17", ring1), "");

    const Event wide = call(0x1'0000'0000 + HYPERVISOR_memory_op, {XENMEM_maximum_ram_page});
    EXPECT_EQ(compare("xen-4.7", "xen-4.8", wide),
              "number: the upper half of RAX counts there: -ENOSYS");
    EXPECT_EQ(compare("xen-4.8", "xen-4.7", wide),
              "number: the upper half of RAX is ignored there");
}

TEST(Check, CursorsReadWithOtherShifts) {
    const Event start = continuing(decrease(1), 341 << 6 | 1);
    EXPECT_EQ(compare("xen-4.17", "xen-3.3", start),
              "continuation: a continuation in flight means something else there");
    EXPECT_EQ(detail("xen-4.17", "xen-3.3", start),
              "register 0x5541: here XENMEM_decrease_reservation from 341, there "
              "XENMEM_decrease_reservation from 1364");
    EXPECT_EQ(compare("xen-4.17", "xen-4.0", start), "");

    // Bits 4 and 5 of the cursor become the operation's.
    const Event again = decrease(5 << 4 | 1);
    EXPECT_EQ(compare("xen-3.3", "xen-3.4", again, true),
              "continuation: a continuation in flight means something else there");
    EXPECT_EQ(detail("xen-3.3", "xen-3.4", again, true),
              "register 0x51: here XENMEM_decrease_reservation from 5, there "
              "XENMEM_get_pod_target from 1");
    EXPECT_EQ(compare("xen-3.3", "xen-3.4", again, false),
              "command: the sub-op register is taken apart otherwise there");
}

TEST(Check, WidthOfTheSubOpRegister) {
    const Event garbage = decrease(0xdead'0000'0000'0001);
    EXPECT_EQ(compare("xen-4.16", "xen-4.17", garbage),
              "width: all 64 bits of the sub-op register count there");
    EXPECT_EQ(compare("xen-4.17", "xen-4.16", garbage),
              "width: the sub-op register is an int there, with bit 31 as its sign");
    Event narrow = garbage;
    narrow.request.width = Width::k32;
    narrow.request.args[0] &= UINT32_MAX;
    EXPECT_EQ(compare("xen-4.16", "xen-4.17", narrow), "");
}

TEST(Check, StrayBits) {
    const Event common = call(HYPERVISOR_memory_op, {1 << 6 | XENMEM_maximum_gpfn, 0x5000});
    EXPECT_EQ(compare("xen-4.4", "xen-4.5", common),
              "stray-bits: bits above the operation: -ENOSYS there, ignored here");
    EXPECT_EQ(compare("xen-4.17", "xen-4.7", common),
              "stray-bits: bits above the operation: -ENOSYS there, -EINVAL here");
    const Event arch = call(HYPERVISOR_memory_op, {1 << 6 | XENMEM_set_memory_map, 0x5000});
    EXPECT_EQ(compare("xen-4.7", "xen-4.17", arch), "");  // -ENOSYS from both
    EXPECT_EQ(compare("xen-4.17", "xen-4.4", arch),
              "stray-bits: bits above the operation: ignored there, -ENOSYS here");
    EXPECT_EQ(compare("xen-4.17", "xen-4.3", physmap(XENMAPSPACE_gmfn, 0x10000)),
              "stray-bits: bits above the operation: ignored there, -EDOM here");
    EXPECT_EQ(compare("xen-4.17", "xen-4.3", physmap(XENMAPSPACE_gmfn, 1)), "");
}

TEST(Check, ProgressElsewhere) {
    const Event range = continuing(physmap(XENMAPSPACE_gmfn_range), 3 << 6 | XENMEM_add_to_physmap);
    EXPECT_EQ(
        compare("xen-4.4", "xen-4.3", range),
        "progress: here its progress is in the sub-op register, shifted, there its progress is in "
        "the guest's structure");
    EXPECT_EQ(compare("xen-4.4", "xen-4.3", physmap(XENMAPSPACE_gmfn_range)), "");
    EXPECT_EQ(
        compare("xen-3.3", "xen-3.0.3", continuing(decrease(1), 3 << 4 | 1)),
        "progress: here its progress is in the sub-op register, shifted, there its progress is in "
        "the register and the structure");
    const Event reset = continuing(call(HYPERVISOR_event_channel_op, {EVTCHNOP_reset, 0x5000}),
                                   EVTCHNOP_reset_cont);
    EXPECT_EQ(compare("xen-4.17", "xen-4.9", reset),
              "progress: here it goes on as another sub-op, there it runs to its end; "
              "continuation: a continuation in flight is refused there: -ENOSYS");
    EXPECT_EQ(compare("xen-4.17", "xen-4.9",
                      call(HYPERVISOR_event_channel_op, {EVTCHNOP_reset_cont, 0x5000}), true),
              "continuation: a continuation in flight is refused there: -ENOSYS");
}

TEST(Check, Extents) {
    const Event many = decrease(1, std::uint64_t{1} << 40);
    EXPECT_EQ(compare("xen-4.0", "xen-4.3", many), "extents: too many extents there: none done");
    EXPECT_EQ(compare("xen-4.3", "xen-4.0", many), "extents: so many extents can be named there");
    EXPECT_EQ(compare("xen-4.3", "xen-4.0", decrease(1, 0x3ffffff)), "");
}

TEST(Check, Spaces) {
    EXPECT_EQ(compare("xen-4.17", "xen-4.1", physmap(XENMAPSPACE_gmfn_range)),
              "space: XENMAPSPACE_gmfn_range is unknown there: -EINVAL");
    EXPECT_EQ(compare("xenserver-7.1", "xen-4.7", physmap(4)),
              "space: space 4 is gmfn_foreign there: refused");
    EXPECT_EQ(compare("xen-4.7", "xenserver-7.1", physmap(4)),
              "space: space 4 is an old driver's shared_info there");
    EXPECT_EQ(compare("xen-4.7", "xenserver-7.1", physmap(3)),
              "space: space 3 is -EINVAL there once an old driver is seen");
    EXPECT_EQ(compare("xenserver-7.1", "xen-4.7", physmap(0x80000000)),
              "space: space 0x80000000 is only unknown there (-EINVAL)");
    EXPECT_EQ(compare("xenserver-7.1", "xen-4.7", physmap(0x80000001)),
              "space: space 0x80000001 is unknown there: -EINVAL");
    EXPECT_EQ(compare("xenserver-7.1", "xen-4.7", physmap(0)), "");
}

TEST(Check, SpacesThatCameLater) {
    EXPECT_EQ(compare("xen-4.2", "xen-4.17", physmap(XENMAPSPACE_gmfn_foreign)),
              "space: XENMAPSPACE_gmfn_foreign is -ENOSYS there, unknown (-EINVAL) here");
    EXPECT_EQ(compare("xen-4.17", "xen-4.2", physmap(XENMAPSPACE_gmfn_foreign)),
              "space: XENMAPSPACE_gmfn_foreign is unknown (-EINVAL) there, -ENOSYS here");
    EXPECT_EQ(compare("xen-4.8", "xen-4.17", physmap(XENMAPSPACE_dev_mmio)),
              "space: XENMAPSPACE_dev_mmio is -EACCES there, unknown (-EINVAL) here");
    EXPECT_EQ(compare("xen-4.9", "xen-4.17", physmap(XENMAPSPACE_dev_mmio)), "");
    EXPECT_EQ(compare("xen-4.2", "xen-4.17", physmap(6)), "");
    // An old driver's shared_info in both.
    EXPECT_EQ(compare("xenserver-6.2", "xenserver-7.1", physmap(XENMAPSPACE_gmfn_foreign)), "");
}

Event batch(std::uint16_t space, std::uint16_t size, std::uint64_t start) {
    return call(HYPERVISOR_memory_op, {start << 6 | XENMEM_add_to_physmap_batch, 0x5000},
                bytes(xen_add_to_physmap_batch<W64>{.domid = DOMID_SELF,
                                                    .space = space,
                                                    .size = size,
                                                    .u = 0,
                                                    .idxs = 0x6000,
                                                    .gpfns = 0x7000,
                                                    .errs = 0x8000}));
}

TEST(Check, Batches) {
    EXPECT_EQ(compare("xen-4.8", "xen-4.17", batch(XENMAPSPACE_dev_mmio, 3, 0)),
              "space: XENMAPSPACE_dev_mmio is -EACCES there, unknown (-EINVAL for each page) here");
    EXPECT_EQ(compare("xen-4.4", "xen-4.17", batch(XENMAPSPACE_gmfn_foreign, 3, 0)), "");
    EXPECT_EQ(compare("xen-4.12", "xen-4.17", batch(XENMAPSPACE_gmfn, 3, 3)),
              "stray-bits: a cursor at the list's end is -EILSEQ there, allowed here");
    EXPECT_EQ(compare("xen-4.17", "xen-4.12", batch(XENMAPSPACE_gmfn, 3, 2)), "");
    EXPECT_EQ(compare("xen-4.17", "xen-4.12", batch(XENMAPSPACE_gmfn, 0, 0)), "");
}

TEST(Check, SettingTheMemoryMap) {
    const auto set = [](std::uint32_t entries, std::uint16_t domid = DOMID_SELF) {
        return call(
            HYPERVISOR_memory_op, {XENMEM_set_memory_map, 0x5000},
            bytes(xen_foreign_memory_map<W64>{
                .domid = domid, .pad = 0, .map = {.nr_entries = entries, .buffer = 0x6000}}));
    };
    EXPECT_EQ(compare("xen-4.17", "xen-4.5", set(3)),
              "error: setting the map is -EPERM there, allowed here");
    EXPECT_EQ(compare("xen-4.5", "xen-4.17", set(3)),
              "error: setting the map is allowed there, -EPERM here");
    EXPECT_EQ(compare("xen-4.17", "xen-4.5", set(3, 0)), "");  // refused by both
    EXPECT_EQ(compare("xen-4.17", "xen-4.8", set(129)),
              "error: setting the map is -EINVAL there, allowed here");
    EXPECT_EQ(compare("xen-4.17", "xen-4.8", set(128)), "");
}

TEST(Check, ReservationsOfAnotherTime) {
    // A 32-bit caller's cursor has less room above six bits than above four.
    Event narrow = call(HYPERVISOR_memory_op, {XENMEM_decrease_reservation, 0x5000},
                        bytes(xen_memory_reservation<W32>{.extent_start = 0x7000,
                                                          .nr_extents = 0x8000000,
                                                          .extent_order = 0,
                                                          .mem_flags = 0,
                                                          .domid = DOMID_SELF}));
    narrow.request.width = Width::k32;
    EXPECT_EQ(compare("xen-3.3", "xen-3.4", narrow), "extents: too many extents there: none done");
    const Event on_demand =
        call(HYPERVISOR_memory_op, {XENMEM_populate_physmap, 0x5000},
             bytes(xen_memory_reservation<W64>{.extent_start = 0x7000,
                                               .nr_extents = 4,
                                               .extent_order = 0,
                                               .mem_flags = XENMEMF_populate_on_demand,
                                               .domid = DOMID_SELF}));
    EXPECT_EQ(compare("xen-3.3", "xen-4.17", on_demand),
              "extents: populate-on-demand is refused there: none done");
    EXPECT_EQ(compare("xen-4.17", "xen-3.3", on_demand),
              "extents: populate-on-demand is unknown there, and ignored");
    EXPECT_EQ(compare("xen-3.0.3", "xen-3.3", decrease(3 << 4 | 1)),
              "progress: the list begins with element 0 there");
    EXPECT_EQ(compare("xen-3.4", "xen-4.0",
                      call(HYPERVISOR_memory_op, {XENMEM_get_pod_target, 0x5000},
                           bytes(xen_pod_target<W64>{.pages = {}, .domid = DOMID_SELF}))),
              "error: the guest's own target is -EPERM there, -EINVAL here");
}

TEST(Check, FramesOfAResource) {
    const auto acquire = [](std::uint32_t frames, std::uint64_t start, Width width) {
        Event event = call(HYPERVISOR_memory_op, {start << 6 | XENMEM_acquire_resource, 0x5000},
                           bytes(xen_mem_acquire_resource<W32>{.domid = DOMID_SELF,
                                                               .type = 0,
                                                               .id = 0,
                                                               .nr_frames = frames,
                                                               .pad = 0,
                                                               .frame = {},
                                                               .frame_list = 0x7000}));
        event.request.width = width;
        return event;
    };
    EXPECT_EQ(compare("xen-4.17", "xen-4.14", acquire(1021, 0, Width::k32)),
              "error: the list of frames is -E2BIG there, -EACCES here");
    EXPECT_EQ(compare("xen-4.14", "xen-4.17", acquire(4, 4, Width::k32)),
              "error: the list of frames is -EINVAL there, -EACCES here");
    EXPECT_EQ(compare("xen-4.17", "xen-4.14", acquire(1020, 0, Width::k32)), "");
    EXPECT_EQ(compare("xen-4.17", "xen-4.14", acquire(1021, 0, Width::k64)), "");
    EXPECT_EQ(compare("xen-4.12", "xen-4.11", acquire(1, 0, Width::k64)),
              "error: a device model's question is judged by its argument there, -EACCES here");
}

TEST(Check, GrantTables) {
    Event query = call(HYPERVISOR_grant_table_op, {GNTTABOP_query_size, 0x5000, 1},
                       bytes(gnttab_query_size{.dom = DOMID_SELF,
                                               .pad = 0,
                                               .nr_frames = 0,
                                               .max_nr_frames = 0,
                                               .status = 0,
                                               .pad2 = 0}));
    query.out = bytes(gnttab_query_size{
        .dom = DOMID_SELF, .pad = 0, .nr_frames = 1, .max_nr_frames = 64, .status = 0, .pad2 = 0});
    EXPECT_EQ(compare("xen-4.17", "xen-4.9", query),
              "answer: answers at most 32 frames there, 64 here");
    EXPECT_EQ(compare("xen-4.17", "xen-4.10", query), "");
    query.out = bytes(gnttab_query_size{
        .dom = DOMID_SELF, .pad = 0, .nr_frames = 1, .max_nr_frames = 8, .status = 0, .pad2 = 0});
    EXPECT_EQ(compare("xen-4.17", "xen-4.9", query), "");  // the VM's own number

    const auto setup = [](std::uint32_t frames, std::uint64_t count = 1) {
        return call(
            HYPERVISOR_grant_table_op, {GNTTABOP_setup_table, 0x5000, count},
            bytes(gnttab_setup_table<W64>{
                .dom = DOMID_SELF, .nr_frames = frames, .status = 0, .frame_list = 0x7000}));
    };
    EXPECT_EQ(compare("xen-4.17", "xen-4.9", setup(33)),
              "error: that frame of the grant table is GNTST_general_error there, allowed here");
    EXPECT_EQ(compare("xen-4.17", "xen-4.9", setup(32)), "");
    // No list: any number but one is -EINVAL, in 3.4 as today.
    EXPECT_EQ(compare("xen-4.17", "xen-3.4", setup(1, 600)), "");
    Event place = physmap(XENMAPSPACE_grant_table);
    place.in = bytes(xen_add_to_physmap<W64>{
        .domid = DOMID_SELF, .size = 0, .space = XENMAPSPACE_grant_table, .idx = 40, .gpfn = 2});
    EXPECT_EQ(compare("xen-4.17", "xen-4.9", place),
              "error: that frame of the grant table is -EINVAL there, allowed here");
    EXPECT_EQ(compare("xen-4.9", "xen-4.17", place),
              "");  // was there: a larger table was asked for
    place.result = -XEN_EINVAL;
    EXPECT_EQ(compare("xen-4.9", "xen-4.17", place),
              "error: that frame of the grant table is allowed there, -EINVAL here");
}

TEST(Check, EventsAndVcpus) {
    Event expand = call(HYPERVISOR_event_channel_op, {EVTCHNOP_expand_array, 0x5000},
                        bytes(evtchn_expand_array{.array_gfn = 2}));
    EXPECT_EQ(compare("xen-4.7", "xen-4.17", expand), "");  // on the FIFO ABI
    expand.result = -XEN_ENOSYS;
    EXPECT_EQ(compare("xen-4.7", "xen-4.17", expand),
              "error: an array without FIFO events is -EOPNOTSUPP there, -ENOSYS here");
    expand.result = -XEN_EOPNOTSUPP;
    EXPECT_EQ(compare("xen-4.17", "xen-4.7", expand),
              "error: an array without FIFO events is -ENOSYS there, -EOPNOTSUPP here");

    const auto place = [](std::uint32_t offset) {
        return call(HYPERVISOR_vcpu_op, {VCPUOP_register_vcpu_info, 0, 0x5000},
                    bytes(vcpu_register_vcpu_info{.mfn = 2, .offset = offset, .rsvd = 0}));
    };
    EXPECT_EQ(compare("xen-4.17", "xen-4.18", place(0x40)), "");
    EXPECT_EQ(compare("xen-4.17", "xen-4.18", place(0x44)),
              "error: that place is -ENXIO there, allowed here");
    EXPECT_EQ(compare("xen-4.18", "xen-4.17", place(0x1000)),
              "error: that place is -ENXIO there, -EINVAL here");
}

TEST(Check, AVcpuInfoIsPlacedOnce) {
    Header header;
    header.profile = find_profile("xen-4.17");
    header.vcpus = 2;
    Check check(header, *find_profile("xen-4.18"));
    Event place = call(HYPERVISOR_vcpu_op, {VCPUOP_register_vcpu_info, 1, 0x5000},
                       bytes(vcpu_register_vcpu_info{.mfn = 2, .offset = 0, .rsvd = 0}));
    check.add(place);
    EXPECT_TRUE(check.findings().empty());
    place.result = -XEN_EINVAL;
    check.add(place);
    ASSERT_EQ(check.findings().size(), 1u);
    EXPECT_EQ(check.findings()[0].first.what, "placing it once more is -EBUSY there, -EINVAL here");
    check.restart();
    place.result = 0;
    check.add(place);
    EXPECT_EQ(check.findings()[0].calls, 1u);
}

TEST(Check, VcpusThatThereAreNot) {
    Header header;
    header.profile = find_profile("xen-4.17");
    header.vcpus = 2;
    Check check(header, *find_profile("xen-4.5"));
    check.add(call(HYPERVISOR_vcpu_op, {VCPUOP_get_runstate_info, 2, 0x5000}, -XEN_ENOENT));
    EXPECT_TRUE(check.findings().empty());
    check.add(call(HYPERVISOR_vcpu_op, {99, 2, 0x5000}, -XEN_ENOENT));
    ASSERT_EQ(check.findings().size(), 1u);
    EXPECT_EQ(check.findings()[0].first.what,
              "a vCPU that there is not is -ENOSYS there, -ENOENT here");
}

TEST(Check, DomainsThatAreNamed) {
    const auto mem_type = [](std::uint16_t domid) {
        return call(HYPERVISOR_hvm_op, {HVMOP_get_mem_type, 0x5000},
                    bytes(xen_hvm_get_mem_type{.domid = domid, .mem_type = 0, .pad = 0, .pfn = 2}));
    };
    EXPECT_EQ(compare("xen-4.17", "xen-4.2", mem_type(1)),
              "error: the caller by its number is -EPERM there, allowed here");
    EXPECT_EQ(compare("xen-4.17", "xen-4.2", mem_type(DOMID_SELF)), "");
    EXPECT_EQ(compare("xen-4.17", "xen-4.2", mem_type(0)), "");
    Event zero = param(HVMOP_get_param, 1);
    zero.in = bytes(xen_hvm_param{.domid = 0, .pad = 0, .index = 1, .value = 0});
    EXPECT_EQ(compare("xen-4.17", "xen-4.2", zero),
              "error: domain 0 is -EPERM there, -EINVAL here");
    const Event dying = call(HYPERVISOR_hvm_op, {HVMOP_pagetable_dying, 0x5000},
                             bytes(xen_hvm_pagetable_dying{.domid = 0, .pad = {}, .gpa = 0}));
    EXPECT_EQ(compare("xen-4.17", "xen-4.11", dying),
              "error: domain 0 is -EINVAL there, -EOPNOTSUPP here");
}

TEST(Check, DeviceModels) {
    const auto modified = [](std::uint16_t domid, std::int64_t result) {
        Event event = call(
            HYPERVISOR_hvm_op, {HVMOP_modified_memory, 0x5000},
            bytes(xen_hvm_memory_range{.domid = domid, .hvmmem_type = 0, .nr = 3, .first_pfn = 2}));
        event.result = result;
        return event;
    };
    EXPECT_EQ(compare("xen-4.2", "xen-4.3", modified(0, -XEN_EPERM)),
              "error: domain 0 is -EINVAL there, -EPERM here");
    EXPECT_EQ(compare("xen-3.4", "xen-4.0", modified(DOMID_SELF, -XEN_EPERM)),
              "error: DOMID_SELF is -ESRCH there, -EPERM here");
    EXPECT_EQ(compare("xen-4.4", "xen-4.5", modified(DOMID_SELF, -XEN_ESRCH)), "");
    // With the VM's privilege it gets as far as its structure.
    EXPECT_EQ(compare("xen-4.4", "xen-4.5", modified(DOMID_SELF, 0)),
              "structure: the structure of 4.5 and later is read there");
    EXPECT_EQ(compare("xen-4.5", "xen-4.4", modified(DOMID_SELF, 0)),
              "structure: the structure of 4.4 and before is read there");
    EXPECT_EQ(compare("xen-4.17", "xen-4.16", call(HYPERVISOR_dm_op, {1, 0, 0x5000})),
              "error: no buffer at all is an operation of no bytes there, -ENODATA here");
    EXPECT_EQ(compare("xen-4.17", "xen-4.16", call(HYPERVISOR_dm_op, {1, 1, 0x5000})), "");
}

TEST(Check, AConsoleThatThereIsNot) {
    Event read = param(HVMOP_get_param, HVM_PARAM_CONSOLE_PFN);
    read.out = bytes(
        xen_hvm_param{.domid = DOMID_SELF, .pad = 0, .index = HVM_PARAM_CONSOLE_PFN, .value = 0});
    EXPECT_EQ(compare("xen-4.7", "xenserver-7.1", read),
              "param: reading parameter 17 is -EINVAL there, allowed here");
    read.out = bytes(xen_hvm_param{
        .domid = DOMID_SELF, .pad = 0, .index = HVM_PARAM_CONSOLE_PFN, .value = 0xfefff});
    EXPECT_EQ(compare("xen-4.7", "xenserver-7.1", read), "");
    read.out.clear();
    read.result = -XEN_EINVAL;
    EXPECT_EQ(compare("xenserver-7.1", "xen-4.7", read),
              "param: reading parameter 17 is allowed there, -EINVAL here");
    // There nobody is told, so it says nothing about whether there is one.
    EXPECT_EQ(compare("xenserver-6.2", "xenserver-6.5", read),
              "param: reading parameter 17 is allowed there, -EINVAL here");
    read.result = 0;
    read.out = bytes(xen_hvm_param{
        .domid = DOMID_SELF, .pad = 0, .index = HVM_PARAM_CONSOLE_PFN, .value = 0xfefff});
    EXPECT_EQ(compare("xenserver-6.5", "xenserver-6.2", read),
              "param: reading parameter 17 is -EINVAL there, allowed here");
}

TEST(Check, LegacyOperations) {
    const Event version = call(HYPERVISOR_hvm_op, {HVMOP_set_driver_version, 0x5000});
    EXPECT_EQ(compare("xenserver-7.1", "xen-4.7", version),
              "operation: does not exist there: -ENOSYS");
    EXPECT_EQ(compare("xen-4.17", "xenserver-7.5", version), "operation: exists there, not here");
    // The thread's bug of 2014.
    EXPECT_EQ(detail("xenserver-6.5", "xen-4.5-rc", version),
              "register 0x103: here set_driver_version (XenServer), there HVMOP_set_isa_irq_level "
              "from 256");
    // A cursor in the low byte's operation.
    const Event cursor = call(HYPERVISOR_hvm_op, {0x100 | HVMOP_modified_memory, 0x5000});
    EXPECT_EQ(compare("xen-4.5", "xen-4.4", cursor),
              "command: the sub-op register is taken apart otherwise there");
}

TEST(Check, Params) {
    EXPECT_EQ(compare("xen-4.17", "xen-4.4", param(HVMOP_get_param, 36)),
              "param: parameter 36 does not exist there: -EINVAL");
    EXPECT_EQ(compare("xen-4.4", "xen-4.17", param(HVMOP_set_param, 36)),
              "param: parameter 36 exists there, not here");
    EXPECT_EQ(compare("xen-4.17", "xen-4.4", param(HVMOP_get_param, 1)), "");
    // XenServer's own, which upstream's list of 4.6 does not have and 4.5 did not care for.
    EXPECT_EQ(compare("xenserver-7.1", "xen-4.7", param(HVMOP_set_param, 8)),
              "param: setting parameter 8 is -EPERM there, allowed here");
    EXPECT_EQ(compare("xenserver-6.2", "xen-4.1", param(HVMOP_set_param, 8)), "");
}

TEST(Check, ParamsThatAGuestMayReadAndWrite) {
    EXPECT_EQ(compare("xen-4.5", "xen-4.6", param(HVMOP_get_param, HVM_PARAM_TIMER_MODE)),
              "param: reading parameter 10 is -EPERM there, allowed here");
    EXPECT_EQ(compare("xen-4.6", "xen-4.5", param(HVMOP_set_param, HVM_PARAM_TIMER_MODE)),
              "param: setting parameter 10 is allowed there, -EPERM here");
    EXPECT_EQ(compare("xen-4.17", "xen-4.6", param(HVMOP_get_param, HVM_PARAM_NESTEDHVM)),
              "param: reading parameter 24 is -EPERM there, -EINVAL here");
    EXPECT_EQ(compare("xen-4.17", "xen-4.6", param(HVMOP_get_param, HVM_PARAM_STORE_PFN)), "");
    EXPECT_EQ(compare("xen-4.17", "xen-4.6", param(HVMOP_set_param, HVM_PARAM_CALLBACK_IRQ)), "");
    // A value that 4.5 refuses and 4.6 does not get to.
    Event late =
        call(HYPERVISOR_hvm_op, {HVMOP_set_param, 0x5000},
             bytes(xen_hvm_param{
                 .domid = DOMID_SELF, .pad = 0, .index = HVM_PARAM_TIMER_MODE, .value = 4}));
    EXPECT_EQ(compare("xen-4.5", "xen-4.6", late),
              "param: setting parameter 10 is -EPERM there, -EINVAL here");
    // Without the value nothing can be said.
    late.in.resize(8);
    EXPECT_EQ(compare("xen-4.5", "xen-4.6", late), "");
}

TEST(Check, AnswersThatDriversBranchOn) {
    EXPECT_EQ(compare("xen-4.17", "xen-3.3", call(HYPERVISOR_xen_version, {XENVER_version, 0})),
              "answer: answers 0x30003 there, 0x40011 here");
    EXPECT_EQ(compare("xen-4.17", "xen-4.4",
                      call(HYPERVISOR_xen_version, {XENVER_get_features, 0x5000},
                           bytes(xen_feature_info{.submap_idx = 0, .submap = 0}))),
              "answer: features 13,16 are missing there");
    EXPECT_EQ(compare("xen-4.17", "xen-4.4",
                      call(HYPERVISOR_xen_version, {XENVER_get_features, 0x5000},
                           bytes(xen_feature_info{.submap_idx = 1, .submap = 0}))),
              "");
    Event fault = call(HYPERVISOR_xen_version, {XENVER_extraversion, 0});
    fault.result = -XEN_EFAULT;
    EXPECT_EQ(compare("xen-4.17", "xen-4.4", fault), "");
    EXPECT_EQ(compare("xen-4.7", "xen-4.8", call(HYPERVISOR_hvm_op, {HVMOP_flush_tlbs, 5})),
              "error: an argument is -EINVAL there, -ENOSYS here");
    EXPECT_EQ(compare("xen-4.7", "xen-4.8", call(HYPERVISOR_hvm_op, {HVMOP_flush_tlbs, 0})), "");
}

TEST(Check, MulticallStandsForItsEntries) {
    const auto list = bytes(std::array<multicall_entry<W64>, 2>{
        multicall_entry<W64>{.op = HYPERVISOR_hvm_op, .result = 0, .args = {HVMOP_get_time}},
        multicall_entry<W64>{.op = HYPERVISOR_xen_version, .result = 0, .args = {}}});
    EXPECT_EQ(compare("xen-4.17", "xen-4.16", call(HYPERVISOR_multicall, {0x5000, 2}, list)),
              "answer: entry XENVER_version: answers 0x40010 there, 0x40011 here");
    EXPECT_EQ(compare("xen-4.17", "xen-4.16", call(HYPERVISOR_multicall, {0x5000, 1}, list)), "");
}

TEST(Check, FindingsAreCountedAndAReissueIsKnown) {
    Header header;
    header.profile = find_profile("xen-4.17");
    Check check(header, *find_profile("xen-3.3"));
    Event first = continuing(decrease(1), 341 << 6 | 1);
    first.vcpu = 3;
    first.time_ns = 55;
    Event second = decrease(341 << 6 | 1);
    second.vcpu = 1;  // a task that moved
    check.add(first);
    check.add(second);
    check.add(second);  // nobody stopped here: the guest's own bits
    check.add(decrease(1));
    EXPECT_EQ(check.calls(), 4u);
    ASSERT_EQ(check.findings().size(), 2u);
    EXPECT_EQ(check.findings()[0].first.reason, Reason::kContinuation);
    EXPECT_EQ(check.findings()[0].calls, 2u);
    EXPECT_EQ(check.findings()[0].vcpu, 3u);
    EXPECT_EQ(check.findings()[0].time_ns, 55u);
    EXPECT_EQ(check.findings()[1].first.reason, Reason::kCommand);
    EXPECT_EQ(check.findings()[1].calls, 1u);
}

// What the guest had above a number of which 32 bits count is gone when the call goes on.
TEST(Check, AReissueIsKnownByTheNumberThatCounts) {
    Header header;
    header.profile = find_profile("xen-4.7");
    Check check(header, *find_profile("xen-3.3"));
    Event first = continuing(decrease(1), 341 << 6 | 1);
    first.request.number |= std::uint64_t{1} << 32;
    check.add(first);
    check.add(decrease(341 << 6 | 1));
    ASSERT_EQ(check.findings().size(), 1u);
    EXPECT_EQ(check.findings()[0].first.reason, Reason::kContinuation);
    EXPECT_EQ(check.findings()[0].calls, 2u);
}

TEST(Check, TheTracesOwnQuirksCount) {
    Header header;
    header.profile = find_profile("xen-4.17");
    header.legacy_quirks = true;
    Check check(header, *find_profile("xen-4.17"));
    check.add(call(HYPERVISOR_hvm_op, {HVMOP_set_driver_version, 0}));
    ASSERT_EQ(check.findings().size(), 1u);
    EXPECT_EQ(check.findings()[0].first.what, "does not exist there: -ENOSYS");
}

}  // namespace
}  // namespace xenshim::trace
