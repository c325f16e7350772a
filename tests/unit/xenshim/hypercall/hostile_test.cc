// A guest that passes anything to anything, and a second vCPU that rewrites arguments while they
// are being looked at: nobody is harmed, nothing is looked at twice, nothing goes on for ever.
#include <random>

#include <gtest/gtest.h>

#include "tests/fakes/test_domain.h"

namespace xenshim {
namespace {

using namespace abi;
using fakes::BothWidths;
using fakes::FakeAccess;
using fakes::TestDomain;

class Hostile : public BothWidths {};

XENOLITH_BOTH_WIDTHS(Hostile);

constexpr std::uint64_t kPointers[] = {0,
                                       1,
                                       0xfff,
                                       TestDomain::kUnmapped - 1,
                                       TestDomain::kUnmapped,
                                       0x7fff'ffff,
                                       0xffff'ffff,
                                       0xffff'fff8,
                                       0x1'0000'0000,
                                       0x7fff'ffff'ffff,
                                       0x8000'0000'0000,
                                       0xffff'7fff'ffff'ffff,
                                       0xffff'8000'0000'0000,
                                       0xffff'ffff'ffff'ffff};

// Ends what a guest may have ended, so that the next call finds a domain that runs.
void check_sane(TestDomain& d) {
    ASSERT_LE(d.domain.physmap().accounts().current, d.domain.physmap().accounts().maximum);
    ASSERT_LE(d.domain.grants().frames(), kMaxGrantFrames);
    d.domain.end_poll(0);
}

TEST_P(Hostile, EveryNumberWithEveryWildPointer) {
    guest.requests = 1;  // long calls stop after a unit; that they end is tested elsewhere
    for (std::uint64_t number = 0; number < 64; ++number) {
        for (std::uint64_t op = 0; op < 66; ++op) {
            for (const std::uint64_t pointer : kPointers) {
                const Reply reply = guest.call(number, op, pointer, pointer, pointer, pointer);
                if (const auto* finish = std::get_if<Finish>(&reply)) {
                    // No host errno and no pointer of ours: Xen's numbers end well before 200.
                    if (finish->result < 0) {
                        ASSERT_GT(finish->result, -200) << number << " " << op;
                    }
                }
                check_sane(guest);
            }
        }
    }
}

TEST_P(Hostile, HugeCountsAndCursors) {
    guest.requests = 1;
    const vmm::Gva page = guest.reserve(4096, 4096);
    for (unsigned i = 0; i < 512; ++i) {
        guest.poke(page + 8 * i, std::uint64_t{TestDomain::kRamGfn + i});  // not what we stand on
    }
    for (const std::uint64_t count :
         {0x3ff'ffffull, 0x400'0000ull, 0x7fff'ffffull, 0x8000'0000ull, 0xffff'ffffull, ~0ull}) {
        const vmm::Gva at = guest.put_wide<xen_memory_reservation>({.extent_start = page.value,
                                                                    .nr_extents = count,
                                                                    .extent_order = 9,
                                                                    .mem_flags = 0,
                                                                    .domid = DOMID_SELF});
        for (const std::uint64_t op : {0, 1, 6}) {
            guest.call(HYPERVISOR_memory_op, op, at.value);
            guest.call(HYPERVISOR_memory_op, (count << 6) | op, at.value);
        }
        guest.call(HYPERVISOR_multicall, page.value, count);
        guest.call(HYPERVISOR_multicall, TestDomain::kUnmapped, count);
        guest.call(HYPERVISOR_grant_table_op, GNTTABOP_setup_table, page.value, count);
        const vmm::Gva map = guest.put_wide<xen_memory_map>(
            {.nr_entries = static_cast<std::uint32_t>(count), .buffer = page.value});
        EXPECT_EQ(guest.result(HYPERVISOR_memory_op, XENMEM_memory_map, map.value), 0);
        EXPECT_EQ(guest.get_wide<xen_memory_map>(map).nr_entries, 5u);
        const vmm::Gva poll = guest.put_wide<sched_poll>(
            {.ports = page.value, .nr_ports = static_cast<std::uint32_t>(count), .timeout = 1});
        EXPECT_EQ(guest.result(HYPERVISOR_sched_op, SCHEDOP_poll, poll.value), -XEN_EINVAL);
        check_sane(guest);
    }
}

// Random structures behind random calls, over and over in one domain.
TEST_P(Hostile, RandomCallsOnRandomMemory) {
    std::mt19937_64 random(GetParam() == Width::k64 ? 64 : 32);
    const vmm::Gva page = guest.reserve(4096, 4096);
    const std::uint64_t small[] = {0,       1,          2,
                                   3,       5,          63,
                                   64,      DOMID_SELF, TestDomain::kDomid,
                                   0x7000,  0x7001,     TestDomain::kHoleGfn,
                                   0xfefff, ~0ull};
    const auto any = [&]() -> std::uint64_t {
        const auto r = random();
        if (r % 4 == 0) return random();
        if (r % 4 == 1) return page.value + random() % 4096;
        return small[random() % std::size(small)];
    };
    guest.requests = 1;
    for (unsigned n = 0; n < 20'000; ++n) {
        // The page goes away when a call happens to free it.
        if (!guest.domain.physmap().has_ram(page.value >> vmm::kPageShift)) {
            guest.domain.physmap().decrease(TestDomain::kRamGfn + n % 0x800);
            ASSERT_TRUE(guest.domain.physmap().populate(page.value >> vmm::kPageShift));
        }
        for (unsigned i = 0; i < 16; ++i) {
            guest.poke(page + random() % 512 * 8, any());
        }
        const auto& row = hypercalls()[random() % hypercalls().size()];
        const Reply reply = guest.call(row.number, random() % 32, any(), any(), any(), any());
        static_cast<void>(reply);
        check_sane(guest);
    }
}

// ---- one look
// -------------------------------------------------------------------------------------

struct OneCall {
    const char* name;
    std::uint64_t number, op;
    std::function<vmm::Gva(TestDomain&)> argument;
    std::size_t bytes;
    std::uint64_t count = 1;
};

const std::vector<OneCall>& calls() {
    static const std::vector<OneCall> all = {
        {"get_features", HYPERVISOR_xen_version, XENVER_get_features,
         [](auto& d) {
             return d.put(xen_feature_info{0, 0});
         },
         8},
        {"get_param", HYPERVISOR_hvm_op, HVMOP_get_param,
         [](auto& d) {
             return d.put(xen_hvm_param{DOMID_SELF, 0, HVM_PARAM_STORE_PFN, 0});
         },
         16},
        {"set_param", HYPERVISOR_hvm_op, HVMOP_set_param,
         [](auto& d) {
             return d.put(xen_hvm_param{DOMID_SELF, 0, HVM_PARAM_STORE_EVTCHN, 7});
         },
         16},
        {"upcall vector", HYPERVISOR_hvm_op, HVMOP_set_evtchn_upcall_vector,
         [](auto& d) {
             return d.put(xen_hvm_evtchn_upcall_vector{1, 0x40, {}});
         },
         8},
        {"get_mem_type", HYPERVISOR_hvm_op, HVMOP_get_mem_type,
         [](auto& d) {
             return d.put(xen_hvm_get_mem_type{DOMID_SELF, 0, 0, 5});
         },
         16},
        {"xentrace", HYPERVISOR_hvm_op, HVMOP_xentrace,
         [](auto& d) {
             return d.put(xen_hvm_xentrace{1, 4, {}});
         },
         32},
        {"bind_virq", HYPERVISOR_event_channel_op, EVTCHNOP_bind_virq,
         [](auto& d) {
             return d.put(evtchn_bind_virq{VIRQ_TIMER, 1, 0});
         },
         12},
        {"bind_ipi", HYPERVISOR_event_channel_op, EVTCHNOP_bind_ipi,
         [](auto& d) {
             return d.put(evtchn_bind_ipi{1, 0});
         },
         8},
        {"bind_pirq", HYPERVISOR_event_channel_op, EVTCHNOP_bind_pirq,
         [](auto& d) {
             return d.put(evtchn_bind_pirq{16, 0, 0});
         },
         12},
        {"alloc_unbound", HYPERVISOR_event_channel_op, EVTCHNOP_alloc_unbound,
         [](auto& d) {
             return d.put(evtchn_alloc_unbound{DOMID_SELF, 0, 0});
         },
         8},
        {"status", HYPERVISOR_event_channel_op, EVTCHNOP_status,
         [](auto& d) {
             return d.put(evtchn_status{DOMID_SELF, 0, 0, 0, 0, {}});
         },
         24},
        {"unmask", HYPERVISOR_event_channel_op, EVTCHNOP_unmask,
         [](auto& d) { return d.put(evtchn_port{0}); }, 4},
        {"reset", HYPERVISOR_event_channel_op, EVTCHNOP_reset,
         [](auto& d) { return d.put(std::uint16_t{DOMID_SELF}); }, 2},
        {"query_size", HYPERVISOR_grant_table_op, GNTTABOP_query_size,
         [](auto& d) {
             return d.put(gnttab_query_size{DOMID_SELF, 0, 0, 0, 0, 0});
         },
         16},
        {"get_version", HYPERVISOR_grant_table_op, GNTTABOP_get_version,
         [](auto& d) {
             return d.put(gnttab_get_version{DOMID_SELF, 0, 0});
         },
         8},
        {"set_version", HYPERVISOR_grant_table_op, GNTTABOP_set_version,
         [](auto& d) { return d.put(std::uint32_t{1}); }, 4},
        {"setup_table", HYPERVISOR_grant_table_op, GNTTABOP_setup_table,
         [](auto& d) {
             const auto list = d.reserve(64);
             return d.template put_wide<gnttab_setup_table>(
                 {.dom = DOMID_SELF, .nr_frames = 2, .status = 0, .frame_list = list.value});
         },
         16},
        {"maximum_gpfn", HYPERVISOR_memory_op, XENMEM_maximum_gpfn,
         [](auto& d) { return d.put(std::uint16_t{DOMID_SELF}); }, 2},
        {"add_to_physmap", HYPERVISOR_memory_op, XENMEM_add_to_physmap,
         [](auto& d) {
             return d.template put_wide<xen_add_to_physmap>({.domid = DOMID_SELF,
                                                             .size = 0,
                                                             .space = XENMAPSPACE_shared_info,
                                                             .idx = 0,
                                                             .gpfn = 0x7010});
         },
         16},
        {"add range", HYPERVISOR_memory_op, XENMEM_add_to_physmap,
         [](auto& d) {
             return d.template put_wide<xen_add_to_physmap>({.domid = DOMID_SELF,
                                                             .size = 3,
                                                             .space = XENMAPSPACE_gmfn_range,
                                                             .idx = 0x7010,
                                                             .gpfn = 0x7020});
         },
         16},
        {"remove", HYPERVISOR_memory_op, XENMEM_remove_from_physmap,
         [](auto& d) {
             return d.template put_wide<xen_remove_from_physmap>(
                 {.domid = DOMID_SELF, .gpfn = 0x7010});
         },
         8},
        {"decrease", HYPERVISOR_memory_op, XENMEM_decrease_reservation,
         [](auto& d) {
             const auto list = d.put_words({0x7010, 0x7011, 0x7012});
             return d.template put_wide<xen_memory_reservation>({.extent_start = list.value,
                                                                 .nr_extents = 3,
                                                                 .extent_order = 0,
                                                                 .mem_flags = 0,
                                                                 .domid = DOMID_SELF});
         },
         20},
        {"memory_map", HYPERVISOR_memory_op, XENMEM_memory_map,
         [](auto& d) {
             const auto buffer = d.reserve(200);
             return d.template put_wide<xen_memory_map>({.nr_entries = 9, .buffer = buffer.value});
         },
         8},
        {"shutdown_code", HYPERVISOR_sched_op, SCHEDOP_shutdown_code,
         [](auto& d) { return d.put(std::uint32_t{3}); }, 4},
        {"watchdog", HYPERVISOR_sched_op, SCHEDOP_watchdog,
         [](auto& d) {
             return d.put(sched_watchdog{0, 5});
         },
         8},
        {"remote_shutdown", HYPERVISOR_sched_op, SCHEDOP_remote_shutdown,
         [](auto& d) {
             return d.put(sched_remote_shutdown{1000, 0, 0});
         },
         8},
    };
    return all;
}

// What the guest can tell of a call: its answer, and the argument afterwards.
TEST_P(Hostile, EachArgumentIsLookedAtOnce) {
    for (const OneCall& c : calls()) {
        const auto quiet = fresh();
        const vmm::Gva at = c.argument(*quiet);
        const auto expected = quiet->call(c.number, c.op, at.value, c.count);
        const auto after = quiet->bytes(at, c.bytes);
        EXPECT_FALSE(quiet->access.looked_twice()) << c.name;

        // The second vCPU writes over the whole structure as soon as it was read.
        const auto raced = fresh();
        const vmm::Gva same = c.argument(*raced);
        ASSERT_EQ(same, at);
        const std::vector<std::byte> junk(c.bytes, std::byte{0xfe});
        raced->access.after_read = [&](FakeAccess::Touch touch) {
            if (touch.at >= at.value && touch.at < at.value + c.bytes) {
                ASSERT_TRUE(raced->ports.memory.write(vmm::Gpa{at.value}, junk));
            }
        };
        EXPECT_EQ(raced->call(c.number, c.op, at.value, c.count), expected) << c.name;
        // What is written back is made from what was read, too.
        if (!raced->access.writes.empty() && raced->access.writes.back().at == at.value) {
            EXPECT_EQ(raced->bytes(at, c.bytes), after) << c.name;
        }
        EXPECT_EQ(raced->domain.physmap().accounts().current,
                  quiet->domain.physmap().accounts().current)
            << c.name;
    }
}

// XSA-63: a structure that reaches into a page that is not there is refused whole. Nothing was
// done, and what the half that could be read is followed by was not taken from our stack.
TEST_P(Hostile, AnArgumentThatIsHalfThereIsRefused) {
    for (const OneCall& c : calls()) {
        if (c.bytes < 4) continue;
        const auto d = fresh();
        const vmm::Gva whole = c.argument(*d);
        const std::uint64_t at = TestDomain::kUnmapped - 2;
        ASSERT_TRUE(d->domain.physmap().populate(at >> vmm::kPageShift));
        ASSERT_TRUE(d->ports.memory.write(vmm::Gpa{at}, d->bytes(whole, 2)));
        const auto current = d->domain.physmap().accounts().current;
        const auto got = d->call(c.number, c.op, at, c.count);
        // memory_op's reservations say how many were done, never an error.
        const std::int64_t expected =
            c.number == HYPERVISOR_memory_op && c.op == XENMEM_decrease_reservation ? 0
                                                                                    : -XEN_EFAULT;
        EXPECT_EQ(got, Reply{Finish{expected}}) << c.name;
        EXPECT_TRUE(d->access.writes.empty()) << c.name;
        EXPECT_EQ(d->domain.physmap().accounts().current, current) << c.name;
        EXPECT_EQ(d->domain.event_channels().status(1)->status, EVTCHNSTAT_closed) << c.name;
    }
}

}  // namespace
}  // namespace xenshim
