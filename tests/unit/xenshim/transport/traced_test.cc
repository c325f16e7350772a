// A traced hypercall answers as one that is not, and its record holds what the handler read.
#include "xenshim/transport/traced.h"

#include <gtest/gtest.h>

#include "tests/fakes/test_domain.h"
#include "tests/fakes/trace_file.h"

namespace xenshim {
namespace {

using namespace abi;
using fakes::TestDomain;

class Traced : public fakes::BothWidths {
  protected:
    Traced() {
        auto made = trace::Writer::create(file_.path());
        EXPECT_TRUE(made);
        writer_ = std::move(*made);
        writer_->begin({.profile = find_profile("xen-4.17"), .transport = "portable", .vcpus = 1});
    }
    Reply enter(TestDomain& domain, const Request& request) {
        return run_recorded(writer_->recorder(0), domain.domain, domain.access, domain.preemption,
                            0, request);
    }
    std::vector<trace::Event> finish() {
        writer_->finish();
        auto all = fakes::read_all(trace::Reader::open(file_.path()));
        EXPECT_EQ(all.error, "");
        EXPECT_TRUE(all.complete);
        return std::move(all.events);
    }
    static std::string text(const trace::Event& event) {
        return to_text(describe(*find_profile("xen-4.17"), event, trace::Style::kStable));
    }

    fakes::ScratchFile file_;
    std::unique_ptr<trace::Writer> writer_;
};

XENOLITH_BOTH_WIDTHS(Traced);

TEST_P(Traced, EachByteIsReadOnce) {
    const vmm::Gva at = guest.put(xen_hvm_param{
        .domid = DOMID_SELF, .pad = 0, .index = HVM_PARAM_VM_GENERATION_ID_ADDR, .value = 0x77});
    guest.access.forget();
    // What another vCPU writes meanwhile is neither used nor shown.
    guest.access.after_read = [&](fakes::FakeAccess::Touch) {
        guest.poke(at + 8, std::uint64_t{0x99});
    };
    EXPECT_EQ(enter(guest, guest.request(HYPERVISOR_hvm_op, {HVMOP_set_param, at.value})),
              Reply{Finish{0}});
    EXPECT_EQ(guest.domain.params().peek(HVM_PARAM_VM_GENERATION_ID_ADDR), 0x77u);
    EXPECT_FALSE(guest.access.looked_twice());
    const auto events = finish();
    ASSERT_EQ(events.size(), 2u);
    EXPECT_EQ(text(events[0]),
              "hvm_op(HVMOP_set_param, {domid=DOMID_SELF, index=34 (VM_GENERATION_ID_ADDR), "
              "value=0x77}) = 0");
    EXPECT_EQ(events[0].request.width, GetParam());
}

TEST_P(Traced, EveryStopIsARecord) {
    const auto stopping = fresh({.preempt = {.every = 3, .at = {}}});
    const auto plain = fresh({.preempt = {.every = 3, .at = {}}});
    const auto run = [&](TestDomain& domain, bool traced) {
        std::vector<std::uint64_t> gfns;
        for (std::uint64_t i = 0; i < 8; ++i)
            gfns.push_back(0x1000 + i);
        const vmm::Gva at =
            domain.put_wide<xen_memory_reservation>({.extent_start = domain.put_words(gfns).value,
                                                     .nr_extents = gfns.size(),
                                                     .extent_order = 0,
                                                     .mem_flags = 0,
                                                     .domid = DOMID_SELF});
        Request request =
            domain.request(HYPERVISOR_memory_op, {XENMEM_decrease_reservation, at.value, 0, 0, 0});
        std::vector<Reply> replies;
        for (;;) {
            replies.push_back(traced ? enter(domain, request) : domain.enter(request));
            const auto* again = std::get_if<Reissue>(&replies.back());
            if (again == nullptr) return replies;
            request.number = again->number;
            request.args = again->args;
        }
    };
    EXPECT_EQ(run(*stopping, true), run(*plain, false));
    const auto events = finish();
    ASSERT_EQ(events.size(), 4u);
    const std::string call =
        "memory_op(XENMEM_decrease_reservation, {extent_start=*, nr_extents=8, extent_order=0, "
        "mem_flags=0x0, domid=DOMID_SELF}";
    EXPECT_EQ(text(events[0]), call + ") = continues at 3");
    EXPECT_EQ(text(events[1]), call + ", start=3) = continues at 6");
    EXPECT_EQ(text(events[2]), call + ", start=6) = 8");
}

// Until 4.7 RAX's upper half is nothing to Xen. The record has it: a later one would refuse it.
TEST_P(Traced, TheUpperHalfOfRaxHidesNoArguments) {
    if (!guest.wide()) return;
    const auto old = fresh({.profile = find_profile("xen-4.7")});
    const vmm::Gva at = old->put(xen_hvm_param{
        .domid = DOMID_SELF, .pad = 0, .index = HVM_PARAM_VM_GENERATION_ID_ADDR, .value = 0x77});
    Request request = old->request(HYPERVISOR_hvm_op, {HVMOP_set_param, at.value});
    request.number |= std::uint64_t{1} << 32;
    EXPECT_EQ(enter(*old, request), Reply{Finish{0}});
    const auto events = finish();
    ASSERT_EQ(events.size(), 2u);
    EXPECT_EQ(events[0].request.number, request.number);
    EXPECT_EQ(
        to_text(describe(*find_profile("xen-4.7"), events[0], trace::Style::kStable)),
        "hvm_op(HVMOP_set_param, {domid=DOMID_SELF, index=34 (VM_GENERATION_ID_ADDR), value=0x77}) "
        "= 0");
}

TEST_P(Traced, ListsAndRefusals) {
    const multicall_entry<W64> version{.op = HYPERVISOR_xen_version, .result = 0, .args = {}};
    const std::uint64_t bytes =
        guest.wide() ? sizeof(multicall_entry<W64>) : sizeof(multicall_entry<W32>);
    const vmm::Gva list = guest.reserve(2 * bytes);
    guest.poke_wide<multicall_entry>(list, version);
    guest.poke_wide<multicall_entry>(list + bytes, version);
    enter(guest, guest.request(HYPERVISOR_multicall, {list.value, 2}));
    enter(guest, guest.request(HYPERVISOR_hvm_op, {HVMOP_get_param, TestDomain::kUnmapped}));
    guest.cpl = 3;
    enter(guest, guest.request(HYPERVISOR_xen_version, {XENVER_version, 0}));
    const auto events = finish();
    ASSERT_EQ(events.size(), 4u);
    EXPECT_EQ(text(events[0]),
              "multicall([xen_version(XENVER_version, NULL), xen_version(XENVER_version, NULL)], "
              "2) = 0");
    EXPECT_EQ(text(events[1]), "hvm_op(HVMOP_get_param, *) = -EFAULT");
    EXPECT_EQ(text(events[2]), "xen_version(XENVER_version, NULL) = -EPERM");
    EXPECT_EQ(events[2].request.cpl, 3u);
}

}  // namespace
}  // namespace xenshim
