// The compatibility report: each reason for which another profile treats a call differently, both
// ways, and nothing where both do the same.
#include "xenshim/trace/check.h"

#include <gtest/gtest.h>

#include "tests/fakes/trace_file.h"
#include "xenshim/abi/continuation.h"
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
              "hypercall: exists there, not here: -EPERM to a guest");
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
