// HYPERVISOR_multicall: lists, refusals, and continuations between entries and inside them.
#include <gtest/gtest.h>

#include "tests/fakes/test_domain.h"

namespace xenshim {
namespace {

using namespace abi;
using fakes::BothWidths;
using fakes::TestDomain;

using Entry = multicall_entry<W64>;

class Multicall : public BothWidths {
  protected:
    static std::uint64_t entry_bytes(const TestDomain& d) { return d.wide() ? 64 : 32; }
    static vmm::Gva put_list(TestDomain& d, const std::vector<Entry>& entries) {
        const vmm::Gva list = d.reserve(entries.size() * entry_bytes(d));
        for (std::size_t i = 0; i < entries.size(); ++i) {
            d.poke_wide<multicall_entry>(list + i * entry_bytes(d), entries[i]);
        }
        return list;
    }
    static Entry get_entry(TestDomain& d, vmm::Gva list, std::size_t i) {
        return d.get_wide<multicall_entry>(list + i * entry_bytes(d));
    }
    // A result as the guest reads it.
    static std::int64_t result(TestDomain& d, vmm::Gva list, std::size_t i) {
        const std::uint64_t raw = get_entry(d, list, i).result;
        return d.wide() ? static_cast<std::int64_t>(raw) : static_cast<std::int32_t>(raw);
    }
    static Entry entry(std::uint64_t op, std::array<std::uint64_t, 6> args = {}) {
        return {.op = op, .result = 0x7777, .args = args};
    }
    static Entry version() { return entry(HYPERVISOR_xen_version); }
};

XENOLITH_BOTH_WIDTHS(Multicall);

TEST_P(Multicall, AsMeasured) {
    const vmm::Gva list =
        put_list(guest, {version(), entry(HYPERVISOR_multicall), entry(HYPERVISOR_physdev_op)});
    EXPECT_EQ(guest.result(HYPERVISOR_multicall, list.value, 3), 0);
    EXPECT_EQ(result(guest, list, 0), 0x40011);
    EXPECT_EQ(result(guest, list, 1), -XEN_EINVAL);
    EXPECT_EQ(result(guest, list, 2), -XEN_ENOSYS);

    EXPECT_EQ(guest.result(HYPERVISOR_multicall, 0, 0), 0);
    EXPECT_EQ(guest.result(HYPERVISOR_multicall, 0, 1), -XEN_EFAULT);
    EXPECT_EQ(guest.result(HYPERVISOR_multicall, TestDomain::kUnmapped, 1), -XEN_EFAULT);

    const vmm::Gva bad = put_list(guest, {entry(99), version()});
    EXPECT_EQ(guest.result(HYPERVISOR_multicall, bad.value, 2), 0);
    EXPECT_EQ(result(guest, bad, 0), -XEN_ENOSYS);
    EXPECT_EQ(result(guest, bad, 1), 0x40011);
}

TEST_P(Multicall, EntriesKeepTheirOpAndArguments) {
    const vmm::Gva list =
        put_list(guest, {entry(HYPERVISOR_xen_version, {XENVER_pagesize, 0, 3, 4, 5, 6})});
    EXPECT_EQ(guest.result(HYPERVISOR_multicall, list.value, 1), 0);
    const Entry after = get_entry(guest, list, 0);
    EXPECT_EQ(after.op, std::uint64_t{HYPERVISOR_xen_version});
    EXPECT_EQ(after.args, (std::array<std::uint64_t, 6>{XENVER_pagesize, 0, 3, 4, 5, 6}));
    EXPECT_EQ(after.result, 0x1000u);
}

TEST_P(Multicall, AListThatEndsInNowhereDoesWhatComesBefore) {
    const std::uint64_t edge = TestDomain::kUnmapped;
    const std::uint64_t at = edge - entry_bytes(guest);
    ASSERT_TRUE(guest.domain.physmap().populate(at >> vmm::kPageShift));
    guest.poke_wide<multicall_entry>({at}, version());
    EXPECT_EQ(guest.result(HYPERVISOR_multicall, at, 3), -XEN_EFAULT);
    EXPECT_EQ(result(guest, {at}, 0), 0x40011);
}

TEST_P(Multicall, AnEntryThatCannotBeWrittenBackIsAFault) {
    const vmm::Gva list = put_list(guest, {version()});
    guest.access.read_only.insert(list.value >> vmm::kPageShift);
    EXPECT_EQ(guest.result(HYPERVISOR_multicall, list.value, 1), -XEN_EFAULT);
    EXPECT_EQ(get_entry(guest, list, 0).result, 0x7777u);
}

TEST_P(Multicall, StopsBetweenEntriesByMovingItsRegisters) {
    for (std::uint32_t every = 1; every <= 5; ++every) {
        const auto d = fresh({.preempt = {.every = every, .at = {}}});
        const vmm::Gva list = put_list(*d, std::vector<Entry>(7, version()));
        const Request first = d->request(HYPERVISOR_multicall, {list.value, 7, 0x33, 0x44, 0x5555});
        const auto run = d->run(first);
        EXPECT_EQ(run.result, 0);
        EXPECT_EQ(run.stops.size(), 6 / every) << every;
        std::uint64_t done = 0;
        for (const Reissue& stop : run.stops) {
            done += every;
            EXPECT_EQ(stop.number, std::uint64_t{HYPERVISOR_multicall});
            EXPECT_EQ(stop.args[0], list.value + done * entry_bytes(*d));
            EXPECT_EQ(stop.args[1], 7 - done);
            EXPECT_EQ(stop.args[2], 0x33u);
            EXPECT_EQ(stop.args[3], 0x44u);
            EXPECT_EQ(stop.args[4], 0x5555u);
        }
        for (std::size_t i = 0; i < 7; ++i) {
            EXPECT_EQ(result(*d, list, i), 0x40011) << i;
        }
    }
}

// Class F: an entry that was stopped inside becomes its own continuation in guest memory.
TEST_P(Multicall, AStopInsideAnEntryIsWrittenIntoTheEntry) {
    const auto d = fresh({.preempt = {.every = 2, .at = {}}});
    const vmm::Gva extents = d->put_wide<xen_memory_reservation>(
        {.extent_start = d->put_words({1000, 1001, 1002, 1003, 1004}).value,
         .nr_extents = 5,
         .extent_order = 0,
         .mem_flags = 0,
         .domid = DOMID_SELF});
    const vmm::Gva list =
        put_list(*d, {entry(HYPERVISOR_memory_op,
                            {XENMEM_decrease_reservation, extents.value, 0x33, 0x44, 0x55, 0x66}),
                      version()});
    const Request first = d->request(HYPERVISOR_multicall, {list.value, 2, 7, 8, 9});

    const Reply reply = d->enter(first);
    const auto* again = std::get_if<Reissue>(&reply);
    ASSERT_NE(again, nullptr) << testing::PrintToString(reply);
    EXPECT_EQ(again->number, first.number);
    EXPECT_EQ(again->args, first.args);  // still at this entry
    const Entry inside = get_entry(*d, list, 0);
    EXPECT_EQ(inside.op, std::uint64_t{HYPERVISOR_memory_op});
    EXPECT_EQ(inside.result, std::uint64_t{HYPERVISOR_memory_op});
    EXPECT_EQ(inside.args[0], (2u << 6) | XENMEM_decrease_reservation);
    EXPECT_EQ(inside.args[1], extents.value);
    EXPECT_EQ(inside.args[2], 0x33u);
    EXPECT_EQ(inside.args[3], 0x44u);
    EXPECT_EQ(inside.args[4], 0x55u);
    EXPECT_EQ(inside.args[5], 0x66u);
    EXPECT_EQ(get_entry(*d, list, 1).result, 0x7777u);
    EXPECT_FALSE(d->domain.physmap().is_mapped(1001));
    EXPECT_TRUE(d->domain.physmap().is_mapped(1002));

    const auto rest = d->run(first);
    EXPECT_EQ(rest.result, 0);
    EXPECT_EQ(result(*d, list, 0), 5);
    EXPECT_EQ(result(*d, list, 1), 0x40011);
    EXPECT_EQ(d->domain.physmap().accounts().current, 0x8011u - 5);
}

TEST_P(Multicall, ForcedPreemptionInsideAndBetweenChangesNoResult) {
    const auto build = [&](TestDomain& d) {
        const vmm::Gva out = d.put_wide<xen_memory_reservation>(
            {.extent_start = d.put_words({1000, 1001, 1002, 1003, 1003, 1005}).value,
             .nr_extents = 6,
             .extent_order = 0,
             .mem_flags = 0,
             .domid = DOMID_SELF});
        const vmm::Gva in = d.put_wide<xen_memory_reservation>(
            {.extent_start = d.put_words({1001, 0x40000, 1003}).value,
             .nr_extents = 3,
             .extent_order = 0,
             .mem_flags = 0,
             .domid = DOMID_SELF});
        return put_list(
            d, {version(), entry(HYPERVISOR_memory_op, {XENMEM_decrease_reservation, out.value}),
                entry(HYPERVISOR_memory_op, {XENMEM_populate_physmap, in.value}), version()});
    };
    for (std::uint32_t every = 1; every <= 5; ++every) {
        const auto d = fresh({.preempt = {.every = every, .at = {}}});
        const vmm::Gva list = build(*d);
        const auto run = d->run(d->request(HYPERVISOR_multicall, {list.value, 4, 0, 0, 0}));
        EXPECT_EQ(run.result, 0);
        EXPECT_EQ(result(*d, list, 0), 0x40011);
        EXPECT_EQ(result(*d, list, 1), 4);
        EXPECT_EQ(result(*d, list, 2), 3);
        EXPECT_EQ(result(*d, list, 3), 0x40011);
        EXPECT_EQ(d->domain.physmap().accounts().current, 0x8011u - 4 + 3);
        EXPECT_GT(run.stops.size(), 0u);
    }
}

TEST_P(Multicall, AContinuationThatCannotBeWrittenIsAFault) {
    const auto d = fresh({.preempt = {.every = 1, .at = {}}});
    const vmm::Gva extents =
        d->put_wide<xen_memory_reservation>({.extent_start = d->put_words({1000, 1001}).value,
                                             .nr_extents = 2,
                                             .extent_order = 0,
                                             .mem_flags = 0,
                                             .domid = DOMID_SELF});
    d->reserve(0, vmm::kPageSize);
    const vmm::Gva list =
        put_list(*d, {entry(HYPERVISOR_memory_op, {XENMEM_decrease_reservation, extents.value})});
    d->access.read_only.insert(list.value >> vmm::kPageShift);
    EXPECT_EQ(d->result(HYPERVISOR_multicall, list.value, 1), -XEN_EFAULT);
}

TEST_P(Multicall, TheListIsReadOnceWhateverASecondVcpuWrites) {
    const vmm::Gva list = put_list(guest, {version()});
    guest.access.after_read = [&](auto) {
        guest.poke_wide<multicall_entry>(list, entry(HYPERVISOR_physdev_op));
    };
    EXPECT_EQ(guest.result(HYPERVISOR_multicall, list.value, 1), 0);
    EXPECT_EQ(result(guest, list, 0), 0x40011);
    EXPECT_FALSE(guest.access.looked_twice());
}

// As on Xen, where the scheduler preempts the list: the vCPU sleeps at the entry that blocks, and
// the entries behind it come when it wakes.
TEST_P(Multicall, ABlockTakesEffectBeforeTheEntriesBehindIt) {
    const vmm::Gva list = put_list(guest, {entry(HYPERVISOR_sched_op, {SCHEDOP_block}), version()});
    Request r = guest.request(HYPERVISOR_multicall, {list.value, 2, 0, 0, 0});
    const Reply reply = guest.enter(r);
    const auto* again = std::get_if<Reissue>(&reply);
    ASSERT_NE(again, nullptr) << testing::PrintToString(reply);
    EXPECT_EQ(again->sleep, Block{std::nullopt});
    EXPECT_EQ(again->args[1], 1u);
    EXPECT_EQ(result(guest, list, 0), 0);
    EXPECT_NE(result(guest, list, 1), 0x40011);
    r.args = again->args;
    EXPECT_EQ(guest.enter(r), Reply{Finish{0}});
    EXPECT_EQ(result(guest, list, 1), 0x40011);
}

TEST_P(Multicall, ABlockAtTheEndSleepsAndIsDone) {
    const vmm::Gva list = put_list(guest, {version(), entry(HYPERVISOR_sched_op, {SCHEDOP_block})});
    EXPECT_EQ(guest.call(HYPERVISOR_multicall, list.value, 2), Reply{Block{std::nullopt}});
    EXPECT_EQ(result(guest, list, 0), 0x40011);
}

// A poll in a list sleeps until its port is pending or its time is up, whatever stops the list, and
// its vCPU is a poller no longer once it runs on.
TEST_P(Multicall, APollSleepsAlsoWhenItsListIsPreempted) {
    for (const std::uint32_t every : {0u, 1u}) {
        const auto d = fresh({.preempt = {.every = every, .at = {}}});
        const Port port = *d->domain.event_channels().bind_ipi(0);
        const std::uint64_t later = d->ports.now_ns + 1000;
        const vmm::Gva wanted =
            d->put_wide<sched_poll>({.ports = d->put(port).value, .nr_ports = 1, .timeout = later});
        const vmm::Gva list = put_list(
            *d, {version(), entry(HYPERVISOR_sched_op, {SCHEDOP_poll, wanted.value}), version()});
        Request r = d->request(HYPERVISOR_multicall, {list.value, 3, 0, 0, 0});
        unsigned slept = 0;
        Reply reply = d->enter(r);
        while (const auto* again = std::get_if<Reissue>(&reply)) {
            if (again->sleep) {
                ++slept;
                EXPECT_EQ(again->sleep, Block{later});
                EXPECT_EQ(d->domain.event_channels().pollers, 1u);
                EXPECT_FALSE(d->domain.poll_satisfied(0));
                d->domain.end_poll(0);  // as the transport does when the vCPU wakes
            }
            r.args = again->args;
            reply = d->enter(r);
        }
        EXPECT_EQ(reply, Reply{Finish{0}});
        EXPECT_EQ(slept, 1u);
        EXPECT_EQ(result(*d, list, 2), 0x40011);
        EXPECT_EQ(d->domain.event_channels().pollers, 0u);
        EXPECT_TRUE(d->domain.vcpu(0).polled.empty());
    }
}

// Also of a guest whose vCPU never slept between them: an interrupt ended the first inside KVM.
TEST_P(Multicall, TwoPollsInOneListAreOnePoller) {
    const Port port = *guest.domain.event_channels().bind_ipi(0);
    const vmm::Gva wanted =
        guest.put_wide<sched_poll>({.ports = guest.put(port).value, .nr_ports = 1, .timeout = 0});
    const Entry poll = entry(HYPERVISOR_sched_op, {SCHEDOP_poll, wanted.value});
    const vmm::Gva list = put_list(guest, {poll, poll});
    Request r = guest.request(HYPERVISOR_multicall, {list.value, 2, 0, 0, 0});
    const Reply first = guest.enter(r);
    ASSERT_TRUE(std::holds_alternative<Reissue>(first));
    r.args = std::get<Reissue>(first).args;
    ASSERT_TRUE(std::holds_alternative<Block>(guest.enter(r)));
    EXPECT_EQ(guest.domain.event_channels().pollers, 1u);
    guest.domain.end_poll(0);
    EXPECT_EQ(guest.domain.event_channels().pollers, 0u);
}

}  // namespace
}  // namespace xenshim
