// event_channel_op, sched_op, set_timer_op and vcpu_op through the hypercall entry: the tables H
// and I of xen-417-golden.md.
#include <thread>

#include <gtest/gtest.h>

#include "tests/fakes/test_domain.h"
#include "xenshim/abi/other_numbers.h"

namespace xenshim {
namespace {

using namespace abi;
using fakes::BothWidths;
using fakes::TestDomain;

constexpr std::int64_t kFault = -XEN_EFAULT, kInval = -XEN_EINVAL, kNosys = -XEN_ENOSYS,
                       kSrch = -XEN_ESRCH, kPerm = -XEN_EPERM, kNoent = -XEN_ENOENT,
                       kExist = -XEN_EEXIST, kNotSupp = -XEN_EOPNOTSUPP;
constexpr std::uint64_t kUnmapped = TestDomain::kUnmapped;
constexpr std::int64_t kSkip = INT64_MAX;

// ---- H: event channels
// ----------------------------------------------------------------------------

class EventChannelOp : public BothWidths {
  protected:
    // A domain as its builder leaves it: the store's port is 1, the console's 2.
    EventChannelOp() {
        store = guest.domain.event_channels().attach_backend([] {});
        console = guest.domain.event_channels().attach_backend([] {});
    }
    std::int64_t op(std::uint64_t sub, std::uint64_t arg) {
        return guest.result(HYPERVISOR_event_channel_op, sub, arg);
    }
    template <class T>
    std::int64_t op(std::uint64_t sub, T* value) {
        const vmm::Gva at = guest.put(*value);
        const auto rc = op(sub, at.value);
        *value = guest.get<T>(at);
        return rc;
    }
    std::int64_t status(std::uint32_t port, std::uint16_t domid, std::uint32_t* st) {
        evtchn_status s{.dom = domid, .pad = 0, .port = port, .status = 0, .vcpu = 0, .u = {}};
        const auto rc = op(EVTCHNOP_status, &s);
        *st = s.status;
        return rc;
    }
    std::int64_t bind_virq(std::uint32_t virq, std::uint32_t vcpu, std::uint32_t* port) {
        evtchn_bind_virq b{virq, vcpu, 0};
        const auto rc = op(EVTCHNOP_bind_virq, &b);
        *port = b.port;
        return rc;
    }
    std::int64_t port_op(std::uint32_t sub, std::uint32_t port) {
        evtchn_port p{port};
        return op(sub, &p);
    }
    std::int64_t alloc(std::uint16_t dom, std::uint16_t remote, std::uint32_t* port) {
        evtchn_alloc_unbound a{dom, remote, 0};
        const auto rc = op(EVTCHNOP_alloc_unbound, &a);
        *port = a.port;
        return rc;
    }
    EventChannels::BackendPort store, console;
};

XENOLITH_BOTH_WIDTHS(EventChannelOp);

TEST_P(EventChannelOp, EverySubOpAnswersAsMeasured) {
    const std::int64_t zero[] = {kInval, kSkip, kSkip, kInval, kInval,   kPerm,  kPerm, kSkip,
                                 kInval, 0,     kSkip, kSkip,  kNotSupp, kNosys, kPerm};
    for (std::uint64_t sub = 0; sub < 15; ++sub) {
        EXPECT_EQ(op(sub, std::uint64_t{0}), kFault) << sub;
        EXPECT_EQ(op(sub, kUnmapped), kFault) << sub;
        if (zero[sub] == kSkip) continue;
        const vmm::Gva at = guest.put(std::array<std::uint64_t, 4>{});
        EXPECT_EQ(op(sub, at.value), zero[sub]) << sub;
    }
    for (const std::uint64_t sub : {15ull, 16ull, 0xffffffffull}) {
        EXPECT_EQ(op(sub, std::uint64_t{0}), kNosys) << sub;
    }
}

TEST_P(EventChannelOp, StatusAsMeasured) {
    std::uint32_t st = 0;
    EXPECT_EQ(status(0, DOMID_SELF, &st), 0);
    EXPECT_EQ(st, 0u);
    for (const std::uint32_t port : {100u, 4095u, 4096u, 131072u, ~0u}) {
        EXPECT_EQ(status(port, DOMID_SELF, &st), kInval) << port;
        EXPECT_EQ(st, 0u);
    }
    EXPECT_EQ(status(1, 0, &st), kPerm);
    EXPECT_EQ(status(1, 1000, &st), kSrch);
    EXPECT_EQ(status(1, 0x7ff1, &st), kSrch);
    EXPECT_EQ(status(1, 0x7ff4, &st), kSrch);
    EXPECT_EQ(status(1, TestDomain::kDomid, &st), 0);
    EXPECT_EQ(st, std::uint32_t{EVTCHNSTAT_interdomain});
    EXPECT_EQ(status(2, DOMID_SELF, &st), 0);
    EXPECT_EQ(st, std::uint32_t{EVTCHNSTAT_interdomain});
}

TEST_P(EventChannelOp, PrioritiesAreForFifo) {
    const auto priority = [&](std::uint32_t port, std::uint32_t level) {
        evtchn_set_priority p{port, level};
        return op(EVTCHNOP_set_priority, &p);
    };
    EXPECT_EQ(priority(0, 0), kNosys);
    EXPECT_EQ(priority(2, 16), kNosys);
    EXPECT_EQ(priority(2, 3), kNosys);
    for (const std::uint32_t port : {100u, 4095u, 0x1000u, 0x20000u, ~0u}) {
        EXPECT_EQ(priority(port, 3), kInval) << port;
    }
}

// XSA-237, XSA-360, XSA-395: indices beyond the table, and a second bind of one that is taken.
TEST_P(EventChannelOp, PirqsCanBeBoundAsMeasured) {
    const auto pirq = [&](std::uint32_t n) {
        evtchn_bind_pirq b{n, 0, 0};
        return op(EVTCHNOP_bind_pirq, &b);
    };
    for (const std::uint32_t n : {16u, 17u, 23u, 24u, 47u, 5u}) {
        EXPECT_EQ(pirq(n), 0) << n;
    }
    EXPECT_EQ(pirq(16), kExist);
    for (const std::uint32_t n : {255u, 256u, 272u, 1000u, ~0u}) {
        EXPECT_EQ(pirq(n), kInval) << n;
    }
}

TEST_P(EventChannelOp, VirqsIpisAndUnboundPortsAsMeasured) {
    std::uint32_t port = 0;
    EXPECT_EQ(bind_virq(24, 0, &port), kInval);
    EXPECT_EQ(bind_virq(~0u, 0, &port), kInval);
    EXPECT_EQ(bind_virq(VIRQ_TIMER, 9999, &port), kNoent);
    EXPECT_EQ(port, 0u);
    EXPECT_EQ(bind_virq(VIRQ_TIMER, 0, &port), 0);
    EXPECT_EQ(port, 3u);
    EXPECT_EQ(bind_virq(VIRQ_TIMER, 0, &port), kExist);
    EXPECT_EQ(port, 0u);
    EXPECT_EQ(bind_virq(VIRQ_TIMER, 1, &port), 0);
    std::uint32_t expected = 5;
    for (const std::uint32_t virq : {1u, 2u, 3u, 4u, 5u, 8u, 11u, 12u, 13u, 14u, 16u, 23u}) {
        EXPECT_EQ(bind_virq(virq, 0, &port), 0) << virq;
        EXPECT_EQ(port, expected++) << virq;
    }
    EXPECT_EQ(bind_virq(3, 1, &port), kInval);  // global: vCPU 0 only

    evtchn_bind_vcpu to{3, 0};
    EXPECT_EQ(op(EVTCHNOP_bind_vcpu, &to), kInval);  // the timer's
    evtchn_bind_ipi ipi{0, 0};
    EXPECT_EQ(op(EVTCHNOP_bind_ipi, &ipi), 0);
    EXPECT_EQ(ipi.port, expected);
    evtchn_bind_ipi none{9999, 0};
    EXPECT_EQ(op(EVTCHNOP_bind_ipi, &none), kNoent);
    to = {ipi.port, 0};
    EXPECT_EQ(op(EVTCHNOP_bind_vcpu, &to), kInval);
    EXPECT_EQ(port_op(EVTCHNOP_send, ipi.port), 0);
    EXPECT_EQ(port_op(EVTCHNOP_send, 3), kInval);

    EXPECT_EQ(alloc(DOMID_SELF, 0, &port), 0);
    EXPECT_EQ(port, expected + 1);
    const std::uint32_t for_dom0 = port;
    EXPECT_EQ(port_op(EVTCHNOP_send, port), 0);
    to = {port, 0};
    EXPECT_EQ(op(EVTCHNOP_bind_vcpu, &to), 0);
    std::uint32_t st = 0;
    EXPECT_EQ(status(port, DOMID_SELF, &st), 0);
    EXPECT_EQ(st, std::uint32_t{EVTCHNSTAT_unbound});
    EXPECT_EQ(alloc(0, 0, &port), kPerm);
    EXPECT_EQ(alloc(1000, 0, &port), kSrch);
    EXPECT_EQ(alloc(DOMID_SELF, 1000, &port), 0);
    EXPECT_EQ(alloc(DOMID_SELF, DOMID_SELF, &port), 0);
    const std::uint32_t loop = port;
    EXPECT_EQ(alloc(DOMID_SELF, 0x7ff1, &port), 0);
    EXPECT_EQ(alloc(TestDomain::kDomid, 0, &port), 0);

    const auto interdomain = [&](std::uint16_t dom, std::uint32_t remote) {
        evtchn_bind_interdomain b{dom, 0, remote, 0};
        return op(EVTCHNOP_bind_interdomain, &b);
    };
    EXPECT_EQ(interdomain(DOMID_SELF, loop), 0);
    EXPECT_EQ(interdomain(DOMID_SELF, for_dom0), kInval);
    EXPECT_EQ(interdomain(0, 1), kInval);
    EXPECT_EQ(interdomain(0, 99999), kInval);
    EXPECT_EQ(interdomain(1000, 1), kSrch);
    EXPECT_EQ(port_op(EVTCHNOP_close, for_dom0), 0);
    EXPECT_EQ(port_op(EVTCHNOP_close, for_dom0), kInval);

    to = {2, 9999};
    EXPECT_EQ(op(EVTCHNOP_bind_vcpu, &to), kNoent);
    to = {2, 0};
    EXPECT_EQ(op(EVTCHNOP_bind_vcpu, &to), 0);
}

TEST_P(EventChannelOp, PortsThatNeverWere) {
    for (const std::uint32_t port : {100u, 4095u, 4096u, 131072u, ~0u}) {
        EXPECT_EQ(port_op(EVTCHNOP_close, port), kInval) << port;
        EXPECT_EQ(port_op(EVTCHNOP_send, port), kInval) << port;
        EXPECT_EQ(port_op(EVTCHNOP_unmask, port), kInval) << port;
        evtchn_bind_vcpu to{port, 0};
        EXPECT_EQ(op(EVTCHNOP_bind_vcpu, &to), kInval) << port;
    }
    EXPECT_EQ(port_op(EVTCHNOP_close, 0), kInval);
    EXPECT_EQ(port_op(EVTCHNOP_send, 0), kInval);
    EXPECT_EQ(port_op(EVTCHNOP_unmask, 0), 0);
}

TEST_P(EventChannelOp, ResetAsMeasured) {
    const auto reset = [&](std::uint32_t sub, std::uint16_t domid) {
        return op(sub, guest.put(domid).value);
    };
    EXPECT_EQ(reset(EVTCHNOP_reset, 0), kPerm);
    EXPECT_EQ(reset(EVTCHNOP_reset, 1000), kSrch);
    EXPECT_EQ(reset(EVTCHNOP_reset_cont, 1000), kSrch);
    EXPECT_EQ(reset(EVTCHNOP_reset_cont, DOMID_SELF), -XEN_EBUSY);
    guest.domain.params().put(HVM_PARAM_CONSOLE_EVTCHN, 2);
    EXPECT_EQ(reset(EVTCHNOP_reset, DOMID_SELF), 0);
    std::uint32_t st = 1;
    EXPECT_EQ(status(2, DOMID_SELF, &st), 0);
    EXPECT_EQ(st, 0u);
    EXPECT_EQ(guest.domain.params().peek(HVM_PARAM_CONSOLE_EVTCHN), 2u);
    evtchn_bind_interdomain b{0, 0, console.remote, 0};
    EXPECT_EQ(op(EVTCHNOP_bind_interdomain, &b), 0);
    EXPECT_EQ(b.local_port, 1u);
}

// The table "Reset and FIFO", line by line. Between a FIFO array that is refused and one that is
// taken nothing else changes.
TEST_P(EventChannelOp, FifoAsMeasured) {
    constexpr std::uint64_t kGfn = TestDomain::kRamGfn, kNone = UINT64_MAX;
    const auto init = [&](std::uint64_t gfn, std::uint32_t offset, std::uint32_t vcpu) {
        evtchn_init_control c{gfn, offset, vcpu, 0, {}};
        const auto rc = op(EVTCHNOP_init_control, &c);
        EXPECT_EQ(c.link_bits, rc == 0 ? 0x11 : 0);
        return rc;
    };
    const auto expand = [&](std::uint64_t gfn) {
        evtchn_expand_array e{gfn};
        return op(EVTCHNOP_expand_array, &e);
    };
    const auto priority = [&](std::uint32_t port, std::uint32_t level) {
        evtchn_set_priority p{port, level};
        return op(EVTCHNOP_set_priority, &p);
    };
    const auto reset = [&] {
        return guest.result(HYPERVISOR_event_channel_op, EVTCHNOP_reset,
                            guest.put(std::uint16_t{DOMID_SELF}).value);
    };
    const auto bind_back = [&] {
        evtchn_bind_interdomain b{0, 0, console.remote, 0};
        const auto rc = op(EVTCHNOP_bind_interdomain, &b);
        EXPECT_EQ(b.local_port, 1u);
        return rc;
    };
    std::uint32_t st = 0;
    // In 2-level.
    EXPECT_EQ(init(kNone, 0, 0), kInval);
    EXPECT_EQ(init(TestDomain::kHoleGfn, 0, 0), kInval);
    EXPECT_EQ(init(kGfn, 0, 9999), kNoent);
    EXPECT_EQ(init(kGfn, 3, 0), kInval);
    EXPECT_EQ(init(kGfn, 4096, 0), kInval);
    EXPECT_EQ(init(kGfn, 4088, 0), kInval);
    EXPECT_EQ(status(2, DOMID_SELF, &st), 0);
    EXPECT_EQ(st, std::uint32_t{EVTCHNSTAT_interdomain});
    EXPECT_EQ(expand(kGfn), kNotSupp);
    // Reset and bind back.
    EXPECT_EQ(reset(), 0);
    EXPECT_EQ(bind_back(), 0);
    // FIFO.
    EXPECT_EQ(init(kGfn, 0, 0), 0);
    EXPECT_EQ(init(kGfn, 0, 0), kInval);
    EXPECT_EQ(expand(kGfn + 1), 0);
    EXPECT_EQ(expand(kNone), kInval);
    EXPECT_EQ(expand(TestDomain::kHoleGfn), kInval);
    EXPECT_EQ(priority(1, 3), 0);
    EXPECT_EQ(priority(1, 16), kInval);
    EXPECT_EQ(priority(0, 3), -XEN_EACCES);
    EXPECT_EQ(status(131071, DOMID_SELF, &st), kInval);
    EXPECT_EQ(status(131072, DOMID_SELF, &st), kInval);
    EXPECT_EQ(reset(), 0);
    EXPECT_EQ(bind_back(), 0);
    EXPECT_EQ(expand(kGfn), kNotSupp);
    EXPECT_EQ(priority(1, 3), kNosys);
}

TEST_P(EventChannelOp, FifoIsSince44) {
    const auto answers = [&](const char* profile) {
        const auto d = fresh({.profile = find_profile(profile)});
        std::vector<std::int64_t> out;
        for (const std::uint64_t sub :
             {EVTCHNOP_init_control, EVTCHNOP_expand_array, EVTCHNOP_set_priority}) {
            const vmm::Gva arg = d->put(std::array<std::uint64_t, 4>{TestDomain::kRamGfn});
            out.push_back(d->result(HYPERVISOR_event_channel_op, sub, arg.value));
        }
        // And their arguments are not looked at where there is no such thing.
        out.push_back(d->result(HYPERVISOR_event_channel_op, EVTCHNOP_init_control, kUnmapped));
        return out;
    };
    using Answers = std::vector<std::int64_t>;
    EXPECT_EQ(answers("xen-4.3"), (Answers{kNosys, kNosys, kNosys, kNosys}));
    // Port 0x7000: the argument is the same.
    EXPECT_EQ(answers("xen-4.4"), (Answers{0, 0, kInval, kFault}));
    EXPECT_EQ(answers("xen-4.17"), (Answers{0, 0, kInval, kFault}));
}

TEST_P(EventChannelOp, ExpandArrayIn2LevelChangedItsAnswer) {
    const auto answer = [&](const char* profile) {
        const auto d = fresh({.profile = find_profile(profile)});
        return d->result(HYPERVISOR_event_channel_op, EVTCHNOP_expand_array,
                         d->put(TestDomain::kRamGfn).value);
    };
    EXPECT_EQ(answer("xen-4.7"), kNosys);
    EXPECT_EQ(answer("xen-4.8"), kNotSupp);
}

// A reset that is stopped goes on as sub-op 14, the argument as it was, every 64 ports; where the
// profile has no such thing it is not stopped.
TEST_P(EventChannelOp, AResetContinuesAsSubOp14) {
    for (const char* name : {"xen-4.9", "xen-4.10", "xen-4.17"}) {
        const Profile* profile = find_profile(name);
        const auto d = fresh({.preempt = {.every = 1, .at = {}}, .profile = profile});
        EventChannels& ev = d->domain.event_channels();
        for (Port port = 1; port <= 300; ++port) {
            ASSERT_TRUE(ev.bind_ipi(0).has_value());
        }
        const std::uint64_t arg = d->put(std::uint16_t{DOMID_SELF}).value;
        const std::uint64_t noise = 0xabcd'0000'0000'0000;
        const Request first =
            d->request(HYPERVISOR_event_channel_op, {noise | EVTCHNOP_reset, arg, 7, 8, 9});
        const auto done = d->run(first);
        EXPECT_EQ(done.result, 0) << name;
        EXPECT_EQ(done.stops.size(), profile->evtchn_reset_continues ? 4u : 0u) << name;
        for (const Reissue& stop : done.stops) {
            EXPECT_EQ(stop.number, std::uint64_t{HYPERVISOR_event_channel_op});
            EXPECT_EQ(stop.args, (std::array<std::uint64_t, 5>{EVTCHNOP_reset_cont, arg, 7, 8, 9}));
        }
        for (Port port = 1; port <= 300; ++port) {
            EXPECT_EQ(ev.status(port)->status, EVTCHNSTAT_closed) << port;
        }
    }
}

// Dropped, the reset stays under way: whoever comes hears so, until somebody finishes it.
TEST_P(EventChannelOp, AnAbandonedResetIsFinishedByWhoeverContinuesIt) {
    const auto d = fresh({.preempt = {.every = 1, .at = {}}});
    EventChannels& ev = d->domain.event_channels();
    for (Port port = 1; port <= 100; ++port) {
        ASSERT_TRUE(ev.bind_ipi(0).has_value());
    }
    const std::uint64_t arg = d->put(std::uint16_t{TestDomain::kDomid}).value;
    const auto call = [&](std::uint64_t sub) {
        return d->call(HYPERVISOR_event_channel_op, sub, arg);
    };
    ASSERT_TRUE(std::holds_alternative<Reissue>(call(EVTCHNOP_reset)));
    EXPECT_EQ(call(EVTCHNOP_reset), Reply{Finish{-XEN_EBUSY}});
    d->caller = 1;
    EXPECT_EQ(call(EVTCHNOP_reset), Reply{Finish{-XEN_EBUSY}});
    EXPECT_EQ(ev.status(63)->status, EVTCHNSTAT_closed);
    EXPECT_EQ(ev.status(64)->status, EVTCHNSTAT_ipi);
    EXPECT_EQ(call(EVTCHNOP_reset_cont), Reply{Finish{0}});
    EXPECT_EQ(ev.status(64)->status, EVTCHNSTAT_closed);
    EXPECT_EQ(call(EVTCHNOP_reset_cont), Reply{Finish{-XEN_EBUSY}});
    EXPECT_TRUE(std::holds_alternative<Reissue>(call(EVTCHNOP_reset)));
}

// A refused call leaves the guest's copy as it was.
TEST_P(EventChannelOp, ARefusedCallWritesNothing) {
    evtchn_bind_virq b{VIRQ_TIMER, 9999, 0x55555555};
    EXPECT_EQ(op(EVTCHNOP_bind_virq, &b), kNoent);
    EXPECT_EQ(b.port, 0x55555555u);
    EXPECT_TRUE(guest.access.writes.empty());
}

// A second vCPU rewrites the argument the moment it has been read. A handler that looked twice
// would see domain 7 and refuse.
TEST_P(EventChannelOp, AllocUnboundLooksAtItsArgumentOnce) {
    const vmm::Gva arg = guest.put(evtchn_alloc_unbound{DOMID_SELF, 0, 0});
    guest.access.after_read = [&](auto) { guest.poke(arg, std::uint16_t{7}); };
    EXPECT_EQ(op(EVTCHNOP_alloc_unbound, arg.value), 0);
    EXPECT_EQ(guest.get<evtchn_alloc_unbound>(arg).port, 3u);
}

// ---- I: sched_op
// ----------------------------------------------------------------------------------

class SchedOp : public BothWidths {
  protected:
    std::int64_t sched(std::uint64_t op, std::uint64_t arg) {
        return guest.result(HYPERVISOR_sched_op, op, arg);
    }
    vmm::Gva poll_of(std::uint64_t ports, std::uint32_t nr, std::uint64_t timeout) {
        return guest.put_wide<sched_poll>({.ports = ports, .nr_ports = nr, .timeout = timeout});
    }
    Reply poll(const std::vector<std::uint32_t>& ports, std::uint64_t timeout) {
        const vmm::Gva list = guest.reserve(4 * 130);
        for (std::size_t i = 0; i < ports.size(); ++i) {
            guest.poke(list + 4 * i, ports[i]);
        }
        return guest.call(
            HYPERVISOR_sched_op, SCHEDOP_poll,
            poll_of(list.value, static_cast<std::uint32_t>(ports.size()), timeout).value);
    }
};

XENOLITH_BOTH_WIDTHS(SchedOp);

TEST_P(SchedOp, EverySubOpAnswersAsMeasured) {
    for (const std::uint64_t arg : {std::uint64_t{0}, kUnmapped}) {
        EXPECT_EQ(sched(0, arg), 0);
        for (const std::uint64_t op : {2u, 3u, 4u, 5u, 6u}) {
            EXPECT_EQ(sched(op, arg), kFault) << op;
        }
        EXPECT_EQ(sched(SCHEDOP_pin_override, arg), kPerm);
        for (const std::uint64_t op : {8u, 9u, 0xfeeb0000u, 0xffffffffu, 0x102u}) {
            EXPECT_EQ(sched(op, arg), kNosys) << op;
        }
    }
    EXPECT_EQ(sched(std::uint64_t{1} << 32, 0), 0);  // cut: yield
    EXPECT_TRUE(guest.ports.shutdowns.empty());
}

TEST_P(SchedOp, BlockOpensTheUpcallMaskAndSleeps) {
    std::byte* mask = guest.ports.own_page(kSharedInfoPage) + 1;
    *mask = std::byte{1};
    EXPECT_EQ(guest.call(HYPERVISOR_sched_op, SCHEDOP_block), Reply{Block{std::nullopt}});
    EXPECT_EQ(*mask, std::byte{0});
}

TEST_P(SchedOp, ShutdownReasonsAreCutToAByte) {
    for (const auto& [said, heard] :
         {std::pair<std::uint32_t, std::uint8_t>{0, 0}, {5, 5}, {255, 255}, {256, 0}}) {
        const auto d = fresh();
        EXPECT_EQ(d->result(HYPERVISOR_sched_op, SCHEDOP_shutdown, d->put(said).value), 0);
        EXPECT_EQ(d->ports.shutdowns, (std::vector<std::uint8_t>{heard}));
    }
}

TEST_P(SchedOp, TheFirstShutdownCodeCounts) {
    EXPECT_EQ(sched(SCHEDOP_shutdown_code, guest.put(3u).value), 0);
    EXPECT_EQ(sched(SCHEDOP_shutdown_code, guest.put(1u).value), 0);
    EXPECT_TRUE(guest.ports.shutdowns.empty());
    EXPECT_EQ(sched(SCHEDOP_shutdown, guest.put(0u).value), 0);
    EXPECT_EQ(guest.ports.shutdowns, (std::vector<std::uint8_t>{3}));
}

// One that nobody asked for is an end like others.
TEST_P(SchedOp, SuspensionThatWasAskedForEndsNothing) {
    const std::uint64_t arg = guest.put(std::uint32_t{SHUTDOWN_suspend}).value;
    const auto suspend = [&] { return sched(SCHEDOP_shutdown, arg); };
    guest.domain.expect_suspend();
    EXPECT_FALSE(guest.domain.suspended());
    guest.caller = 1;
    EXPECT_EQ(suspend(), 0);
    EXPECT_EQ(guest.domain.suspended(), 1u);
    EXPECT_EQ(guest.ports.suspensions, 1u);
    // The first one counts, and whoever was about to do the same stands still.
    guest.caller = 0;
    EXPECT_EQ(suspend(), 0);
    EXPECT_EQ(guest.domain.suspended(), 1u);
    EXPECT_EQ(guest.ports.suspensions, 2u);
    EXPECT_TRUE(guest.ports.shutdowns.empty());
    EXPECT_FALSE(guest.domain.give_up_suspend());
    guest.domain.go_on_here();
    EXPECT_FALSE(guest.domain.suspended());
    EXPECT_EQ(suspend(), 0);
    EXPECT_EQ(guest.ports.suspensions, 2u);
    EXPECT_EQ(guest.ports.shutdowns, std::vector<std::uint8_t>{SHUTDOWN_suspend});
}

TEST_P(SchedOp, SuspensionThatNobodyWaitsForAnyMoreIsCancelledOnce) {
    const std::uint64_t arg = guest.put(std::uint32_t{SHUTDOWN_suspend}).value;
    guest.domain.expect_suspend();
    EXPECT_TRUE(guest.domain.give_up_suspend());
    EXPECT_EQ(sched(SCHEDOP_shutdown, arg), Domain::kSuspendCancelled);
    EXPECT_EQ(guest.ports.suspensions, 0u);
    EXPECT_TRUE(guest.ports.shutdowns.empty());
    EXPECT_EQ(sched(SCHEDOP_shutdown, arg), 0);
    EXPECT_EQ(guest.ports.shutdowns, std::vector<std::uint8_t>{SHUTDOWN_suspend});
}

TEST_P(SchedOp, ASuspensionIsAskedForAndTheGuestEnds) {
    guest.domain.expect_suspend();
    EXPECT_EQ(sched(SCHEDOP_shutdown, guest.put(std::uint32_t{SHUTDOWN_crash}).value), 0);
    EXPECT_EQ(guest.ports.suspensions, 0u);
    EXPECT_EQ(guest.ports.shutdowns, std::vector<std::uint8_t>{SHUTDOWN_crash});
    EXPECT_FALSE(guest.domain.suspended());
}

// A code that was left before decides, here as well; and is forgotten by a guest that goes on.
TEST_P(SchedOp, TheFirstShutdownCodeDecidesAboutASuspension) {
    const auto say = [&](std::uint64_t sub_op, std::uint32_t reason) {
        return sched(sub_op, guest.put(reason).value);
    };
    guest.domain.expect_suspend();
    EXPECT_EQ(say(SCHEDOP_shutdown_code, SHUTDOWN_suspend), 0);
    EXPECT_EQ(say(SCHEDOP_shutdown, SHUTDOWN_poweroff), 0);
    EXPECT_EQ(guest.ports.suspensions, 1u);
    guest.domain.go_on_here();
    guest.domain.expect_suspend();
    EXPECT_EQ(say(SCHEDOP_shutdown_code, SHUTDOWN_reboot), 0);
    EXPECT_EQ(say(SCHEDOP_shutdown, SHUTDOWN_suspend), 0);
    EXPECT_EQ(guest.ports.suspensions, 1u);
    EXPECT_EQ(guest.ports.shutdowns, std::vector<std::uint8_t>{SHUTDOWN_reboot});
}

TEST_P(SchedOp, RemoteShutdownAsMeasured) {
    const auto remote = [&](std::uint16_t domid) {
        return sched(SCHEDOP_remote_shutdown, guest.put(sched_remote_shutdown{domid, 0, 0}).value);
    };
    EXPECT_EQ(remote(0), kPerm);
    EXPECT_EQ(remote(1000), kSrch);
    EXPECT_EQ(remote(DOMID_SELF), kSrch);
    EXPECT_EQ(remote(TestDomain::kDomid), kPerm);
    EXPECT_TRUE(guest.ports.shutdowns.empty());
}

TEST_P(SchedOp, WatchdogsAsMeasured) {
    const auto watchdog = [&](std::uint32_t id, std::uint32_t seconds) {
        return sched(SCHEDOP_watchdog, guest.put(sched_watchdog{id, seconds}).value);
    };
    EXPECT_EQ(watchdog(1, 0), kInval);
    EXPECT_EQ(watchdog(3, 0), kInval);
    EXPECT_EQ(watchdog(99, 5), kInval);
    EXPECT_EQ(watchdog(0, 60), 1);
    EXPECT_EQ(watchdog(0, 60), 2);
    EXPECT_EQ(watchdog(0, 60), 0xffffffe4);  // -ENOSPC, zero-extended
    EXPECT_EQ(watchdog(1, 60), 0);
    EXPECT_EQ(watchdog(1, 0), 0);
    EXPECT_EQ(watchdog(1, 0), kInval);
    EXPECT_EQ(watchdog(2, 0), 0);
}

TEST_P(SchedOp, PollRefusesAsMeasured) {
    EventChannels& ev = guest.domain.event_channels();
    const Port port = *ev.bind_ipi(0);
    const std::uint64_t past = 1;
    EXPECT_EQ(poll(std::vector<std::uint32_t>(129, port), past), Reply{Finish{kInval}});
    EXPECT_EQ(poll(std::vector<std::uint32_t>(128, port), past), Reply{Finish{0}});
    EXPECT_EQ(poll({99999}, past), Reply{Finish{kInval}});
    EXPECT_EQ(poll({0}, past), Reply{Finish{kInval}});
    EXPECT_EQ(poll({1000}, past), Reply{Finish{kInval}});
    EXPECT_EQ(poll({~0u}, past), Reply{Finish{kInval}});
    EXPECT_EQ(poll({}, past), Reply{Finish{0}});
    EXPECT_EQ(sched(SCHEDOP_poll, poll_of(0, 1, past).value), kFault);
    EXPECT_EQ(sched(SCHEDOP_poll, poll_of(kUnmapped, 1, past).value), kFault);
    // In the order in which they stand: what comes behind a pending or a bad port is not looked at.
    const auto ports = [&](std::initializer_list<std::uint32_t> list) {
        const vmm::Gva end{0x1ff000};  // the page behind is unreadable
        guest.access.unmapped.insert(0x1ff);
        const vmm::Gva at{end.value - list.size() * 4};
        vmm::Gva next = at;
        for (const std::uint32_t p : list) {
            guest.poke(next, p);
            next = next + 4;
        }
        return at;
    };
    EXPECT_EQ(sched(SCHEDOP_poll, poll_of(ports({99999}).value, 2, past).value), kInval);
    EXPECT_EQ(sched(SCHEDOP_poll, poll_of(ports({port}).value, 2, past).value), kFault);
    ASSERT_TRUE(ev.send(port).has_value());
    EXPECT_EQ(sched(SCHEDOP_poll, poll_of(ports({port}).value, 2, past).value), 0);
    EXPECT_EQ(poll({port, 99999}, past), Reply{Finish{0}});
    EXPECT_EQ(poll({99999, port}, past), Reply{Finish{kInval}});
    EXPECT_EQ(ev.pollers, 0u);
    EXPECT_TRUE(guest.domain.vcpu(0).polled.empty());
}

TEST_P(SchedOp, PollSleepsUntilOneOfItsPorts) {
    EventChannels& ev = guest.domain.event_channels();
    const Port a = *ev.bind_ipi(0), b = *ev.bind_ipi(0);
    const std::uint64_t later = guest.ports.now_ns + 5;
    EXPECT_EQ(poll({a, b}, later), Reply{Block{later}});
    EXPECT_EQ(ev.pollers, 1u);
    EXPECT_FALSE(guest.domain.poll_satisfied(0));
    ASSERT_TRUE(ev.send(b).has_value());
    EXPECT_GT(guest.ports.wakes(0), 0u);
    EXPECT_TRUE(guest.domain.poll_satisfied(0));
    guest.domain.end_poll(0);
    EXPECT_EQ(ev.pollers, 0u);
    // Pending already: no sleep at all, and the bit is the guest's to clear.
    EXPECT_EQ(poll({a, b}, later), Reply{Finish{0}});
    EXPECT_TRUE(*ev.pending(b));
    EXPECT_EQ(ev.pollers, 0u);
}

TEST_P(SchedOp, PollWithoutPortsSleepsForTimeOrForEver) {
    const std::uint64_t later = guest.ports.now_ns + 5;
    EXPECT_EQ(poll({}, later), Reply{Block{later}});
    EXPECT_EQ(poll({}, 0), Reply{Block{std::nullopt}});
    EXPECT_EQ(guest.domain.event_channels().pollers, 0u);
    EXPECT_EQ(poll({}, guest.ports.now_ns), Reply{Finish{0}});
}

TEST_P(SchedOp, PollsPortsAreReadOnce) {
    EventChannels& ev = guest.domain.event_channels();
    const Port port = *ev.bind_ipi(0);
    ASSERT_TRUE(ev.send(port).has_value());
    guest.access.forget();
    EXPECT_EQ(poll({port, port, port}, 0), Reply{Finish{0}});
    EXPECT_FALSE(guest.access.looked_twice());
}

// ---- set_timer_op
// ---------------------------------------------------------------------------------

class SetTimer : public BothWidths {
  protected:
    std::int64_t set(std::uint64_t at) {
        if (guest.wide()) return guest.result(HYPERVISOR_set_timer_op, at);
        return guest.result(HYPERVISOR_set_timer_op, at & UINT32_MAX, at >> 32);
    }
    std::uint64_t deadline() { return guest.domain.vcpu(0).timers.singleshot_ns; }
};

XENOLITH_BOTH_WIDTHS(SetTimer);

TEST_P(SetTimer, TakesItsTimeInOneRegisterOrTwo) {
    const std::uint64_t at = guest.ports.now_ns + 0x1'2345'6789;
    EXPECT_EQ(set(at), 0);
    EXPECT_EQ(deadline(), at);
    EXPECT_EQ(guest.ports.timers, (std::vector<unsigned>{0}));
    EXPECT_EQ(set(1), 0);
    EXPECT_EQ(deadline(), 1u);  // past: due at once
    EXPECT_EQ(set(0), 0);
    EXPECT_EQ(deadline(), 0u);  // off
}

TEST_P(SetTimer, WhatIsFarAwayOrNegativeFiresSoon) {
    for (const std::uint64_t at : std::initializer_list<std::uint64_t>{
             ~0ull, 1ull << 63, guest.ports.now_ns + (1ull << 50) + 1}) {
        EXPECT_EQ(set(at), 0);
        EXPECT_EQ(deadline(), guest.ports.now_ns + 100'000'000) << at;
    }
    EXPECT_EQ(set(guest.ports.now_ns + (1ull << 50) - 1), 0);
    EXPECT_EQ(deadline(), guest.ports.now_ns + (1ull << 50) - 1);
}

// ---- vcpu_op
// --------------------------------------------------------------------------------------

class VcpuOp : public BothWidths {
  protected:
    std::int64_t vcpu(std::uint64_t op, std::uint64_t id, std::uint64_t arg = 0) {
        return guest.result(HYPERVISOR_vcpu_op, op, id, arg);
    }
    vmm::Gva zero() { return guest.put(std::array<std::uint64_t, 20>{}); }
    vcpu_hvm_context start_context(std::uint32_t mode) {
        vcpu_hvm_context context{.mode = mode, .pad = 0, .regs = {}};
        if (mode == 0) {
            vcpu_hvm_x86_32 r{};
            r.eax = 1, r.ecx = 2, r.edx = 3, r.ebx = 4, r.esp = 5, r.ebp = 6, r.esi = 7, r.edi = 8;
            r.eip = 0x1000, r.eflags = 2, r.cr0 = 0x11, r.cr3 = 0x2000, r.cr4 = 0;
            r.cs_base = 0, r.ds_base = 1, r.ss_base = 2, r.es_base = 3, r.tr_base = 4;
            r.cs_limit = ~0u, r.ds_limit = 11, r.ss_limit = 12, r.es_limit = 13, r.tr_limit = 0x67;
            r.cs_ar = 0xc9b, r.ds_ar = 0xc93, r.ss_ar = 0xc93, r.es_ar = 0xc93, r.tr_ar = 0x8b;
            std::memcpy(context.regs.data(), &r, sizeof r);
        } else {
            vcpu_hvm_x86_64 r{};
            r.rax = 1, r.rcx = 2, r.rdx = 3, r.rbx = 4, r.rsp = 5, r.rbp = 6, r.rsi = 7, r.rdi = 8;
            r.rip = 0xffff'8000'0000'1000, r.rflags = 2, r.cr0 = 0x8000'0011, r.cr3 = 0x2000;
            r.cr4 = 0x20, r.efer = 0x500;
            std::memcpy(context.regs.data(), &r, sizeof r);
        }
        return context;
    }
};

XENOLITH_BOTH_WIDTHS(VcpuOp);

struct VcpuRow {
    std::uint32_t op;
    std::int64_t v0_null, v0_unmapped, v0_zero, v1_null, v1_zero;
};
constexpr VcpuRow kVcpuOps[] = {
    {0, kFault, kFault, kExist, kFault, kSkip},
    {1, 0, kSkip, 0, kInval, kInval},
    {2, kSkip, kSkip, kSkip, 0, 0},
    {3, 1, 1, 1, 0, 0},
    {4, kFault, kFault, 0, kFault, 0},
    {5, kFault, kFault, 0, kFault, 0},
    {6, kFault, kFault, kInval, kFault, kInval},
    {7, 0, 0, 0, 0, 0},
    {8, kFault, kFault, 0, kInval, kInval},
    {9, 0, 0, 0, kInval, kInval},
    {10, kFault, kFault, kSkip, kFault, 0},
    {11, kSkip, kSkip, kInval, 0, kInval},
    {VCPUOP_get_physid, kInval, kInval, kInval, kInval, kInval},
    {13, kFault, kFault, 0, kFault, 0},
    {14, kNosys, kNosys, kNosys, kNosys, kNosys},
    {15, kNosys, kNosys, kNosys, kNosys, kNosys},
    {16, kNosys, kNosys, kNosys, kNosys, kNosys},
};

// XSA-296: vCPUs that there are not, in every operation.
TEST_P(VcpuOp, EverySubOpAnswersAsMeasured) {
    for (const VcpuRow& row : kVcpuOps) {
        const auto check = [&](std::int64_t expected, unsigned id, std::uint64_t arg,
                               const char* what) {
            if (expected == kSkip) return;
            EXPECT_EQ(vcpu(row.op, id, arg), expected) << row.op << ", " << what;
        };
        check(row.v0_null, 0, 0, "v0 NULL");
        check(row.v0_unmapped, 0, kUnmapped, "v0 unmapped");
        check(row.v0_zero, 0, zero().value, "v0 zero");
        // Measured: at 32 bits the structure is translated before the vCPU is looked at.
        const bool translated_first = row.op == VCPUOP_set_singleshot_timer && !guest.wide();
        check(translated_first ? kFault : row.v1_null, 1, 0, "v1 NULL");
        check(row.v1_zero, 1, zero().value, "v1 zero");
        for (const std::uint64_t id : {std::uint64_t{2}, std::uint64_t{9999}, ~std::uint64_t{0}}) {
            EXPECT_EQ(vcpu(row.op, id, zero().value), kNoent) << row.op;
        }
    }
    EXPECT_EQ(vcpu(17, 0), kNosys);
    EXPECT_EQ(vcpu(~std::uint64_t{0}, 0), kNosys);
    EXPECT_EQ(vcpu(99, 9999), kNoent);
}

TEST_P(VcpuOp, UpperHalvesAreCut) {
    EXPECT_EQ(vcpu((std::uint64_t{1} << 32) | VCPUOP_is_up, 0), 1);
    EXPECT_EQ(vcpu(VCPUOP_is_up, std::uint64_t{1} << 32), 1);
}

TEST_P(VcpuOp, BringsUpAVcpuIn32BitMode) {
    EXPECT_EQ(vcpu(VCPUOP_up, 1), kInval);
    EXPECT_EQ(vcpu(VCPUOP_initialise, 1, guest.put(start_context(0)).value), 0);
    ASSERT_EQ(guest.ports.started.size(), 1u);
    ASSERT_TRUE(guest.ports.started[0].context.has_value());
    const VcpuContext& c = *guest.ports.started[0].context;
    for (unsigned i = 0; i < 8; ++i) {
        EXPECT_EQ(c.gpr[i], i + 1) << i;
    }
    EXPECT_EQ(c.rip, 0x1000u);
    EXPECT_EQ(c.cr0, 0x11u);
    EXPECT_EQ(c.cr3, 0x2000u);
    EXPECT_EQ(c.cs.limit, ~0u);
    EXPECT_EQ(c.cs.attributes, 0xc9b);
    EXPECT_EQ(c.ds.base, 1u);
    EXPECT_EQ(c.ds.limit, 11u);
    EXPECT_EQ(c.ss.base, 2u);
    EXPECT_EQ(c.ss.limit, 12u);
    EXPECT_EQ(c.es.base, 3u);
    EXPECT_EQ(c.es.limit, 13u);
    EXPECT_EQ(c.tr.base, 4u);
    EXPECT_EQ(c.tr.limit, 0x67u);
    EXPECT_EQ(c.tr.attributes, 0x8b);

    EXPECT_EQ(vcpu(VCPUOP_initialise, 1, guest.put(start_context(0)).value), kExist);
    EXPECT_EQ(vcpu(VCPUOP_is_up, 1), 0);
    EXPECT_EQ(vcpu(VCPUOP_up, 1), 0);
    EXPECT_EQ(vcpu(VCPUOP_up, 1), 0);
    EXPECT_EQ(vcpu(VCPUOP_is_up, 1), 1);
    ASSERT_EQ(guest.ports.started.size(), 2u);  // the second `up` found it running
    EXPECT_FALSE(guest.ports.started[1].context.has_value());
}

TEST_P(VcpuOp, BringsUpAVcpuIn64BitMode) {
    EXPECT_EQ(vcpu(VCPUOP_initialise, 1, guest.put(start_context(1)).value), 0);
    ASSERT_EQ(guest.ports.started.size(), 1u);
    const VcpuContext& c = *guest.ports.started[0].context;
    EXPECT_EQ(c.rip, 0xffff'8000'0000'1000u);
    EXPECT_EQ(c.efer, 0x500u);
    EXPECT_EQ(c.gpr[7], 8u);
    EXPECT_EQ(c.cs.attributes, 0xa9b);
}

TEST_P(VcpuOp, RefusesStatesThatNoCpuStartsIn) {
    auto context = start_context(2);
    EXPECT_EQ(vcpu(VCPUOP_initialise, 1, guest.put(context).value), kInval);
    const auto with_64 = [&](auto change) {
        auto c = start_context(1);
        vcpu_hvm_x86_64 r;
        std::memcpy(&r, c.regs.data(), sizeof r);
        change(r);
        std::memcpy(c.regs.data(), &r, sizeof r);
        return vcpu(VCPUOP_initialise, 1, guest.put(c).value);
    };
    EXPECT_EQ(with_64([](auto& r) { r.cr0 = 0x8000'0000; }), kInval);  // paging, not protected
    EXPECT_EQ(with_64([](auto& r) { r.cr4 = 0; }), kInval);            // long mode without PAE
    EXPECT_EQ(with_64([](auto& r) { r.cr0 = 0x11; }), kInval);         // active without paging
    EXPECT_EQ(with_64([](auto& r) { r.efer = 0x100; }), kInval);       // enabled, not active
    EXPECT_TRUE(guest.ports.started.empty());
    EXPECT_EQ(vcpu(VCPUOP_initialise, 1, guest.put(start_context(1)).value), 0);
}

TEST_P(VcpuOp, DownStopsAVcpuAndTheLastOneTheDomain) {
    ASSERT_EQ(vcpu(VCPUOP_initialise, 1, guest.put(start_context(0)).value), 0);
    ASSERT_EQ(vcpu(VCPUOP_up, 1), 0);
    EXPECT_EQ(vcpu(VCPUOP_down, 1), 0);
    EXPECT_EQ(vcpu(VCPUOP_is_up, 1), 0);
    EXPECT_EQ(guest.ports.stopped, (std::vector<unsigned>{1}));
    EXPECT_EQ(vcpu(VCPUOP_down, 1), 0);  // again: nothing
    EXPECT_EQ(guest.ports.stopped.size(), 1u);
    EXPECT_EQ(vcpu(VCPUOP_down, 0), 0);
    EXPECT_EQ(guest.ports.shutdowns, (std::vector<std::uint8_t>{SHUTDOWN_poweroff}));
}

TEST_P(VcpuOp, RunstatesOfRunningAndOfOfflineVcpus) {
    guest.ports.now_ns = 0x4000'0000;
    guest.domain.set_runstate(0, Runstate::kBlocked);
    guest.ports.now_ns = 0x5000'0000;
    guest.domain.set_runstate(0, Runstate::kRunning);
    guest.ports.now_ns = 0x1'0000'0000;
    const vmm::Gva at = guest.reserve(64);
    EXPECT_EQ(vcpu(VCPUOP_get_runstate_info, 0, at.value), 0);
    auto info = guest.get_wide<vcpu_runstate_info>(at);
    EXPECT_EQ(info.state, 0u);
    EXPECT_EQ(info.state_entry_time, 0x5000'0000u);
    EXPECT_EQ(info.time, (std::array<std::uint64_t, 4>{0xf000'0000, 0, 0x1000'0000, 0}));
    EXPECT_EQ(vcpu(VCPUOP_get_runstate_info, 1, at.value), 0);
    info = guest.get_wide<vcpu_runstate_info>(at);
    EXPECT_EQ(info.state, 3u);
    EXPECT_EQ(info.time[3], 0x1'0000'0000u);
}

TEST_P(VcpuOp, ARunstateAreaIsFilledAndRemembered) {
    const vmm::Gva area = guest.reserve(64);
    const vmm::Gva noise = guest.put(std::array<std::uint64_t, 1>{
        guest.wide() ? area.value : area.value | 0xdddd'dddd'0000'0000});
    EXPECT_EQ(vcpu(VCPUOP_register_runstate_memory_area, 0, noise.value), 0);
    EXPECT_EQ(guest.domain.vcpu(0).runstate_gpa, area.value);
    EXPECT_EQ(guest.ports.runstates_moved, (std::vector<unsigned>{0}));
    EXPECT_EQ(guest.get_wide<vcpu_runstate_info>(area).state, 0u);
    EXPECT_EQ(guest.get_wide<vcpu_runstate_info>(area).state_entry_time,
              guest.domain.runstate(0).since_ns);
    // One that lies nowhere is taken, and never written.
    EXPECT_EQ(vcpu(VCPUOP_register_runstate_memory_area, 0, guest.put(kUnmapped).value), 0);
    EXPECT_EQ(guest.domain.vcpu(0).runstate_gpa, kNoGfn);
}

// XEN_RUNSTATE_UPDATE stands in state_entry_time while the area is written, for a guest that asked.
TEST_P(VcpuOp, RunstateAreasFollowAndCarryTheUpdateFlag) {
    const vmm::Gva area = guest.reserve(64);
    EXPECT_EQ(vcpu(VCPUOP_register_runstate_memory_area, 1, guest.put(area.value).value), 0);
    const auto seen = [&] { return guest.get_wide<vcpu_runstate_info>(area); };
    EXPECT_EQ(seen().state, 3u);
    guest.ports.now_ns = 0x7000'0000;
    guest.domain.set_runstate(1, Runstate::kRunning);
    EXPECT_EQ(seen().state, 0u);
    EXPECT_EQ(seen().state_entry_time, 0x7000'0000u);
    EXPECT_EQ(seen().time[3], 0x7000'0000u);

    constexpr std::uint32_t kRunstateUpdateFlag = 5;
    EXPECT_EQ(guest.result(HYPERVISOR_vm_assist, VMASST_CMD_enable, kRunstateUpdateFlag), 0);
    EXPECT_EQ(guest.ports.update_flags, (std::vector<bool>{true}));
    guest.ports.now_ns = 0x8000'0000;
    guest.domain.set_runstate(1, Runstate::kBlocked);
    EXPECT_EQ(seen().state, 2u);
    EXPECT_EQ(seen().state_entry_time, 0x8000'0000u) << "no flag is left behind";
    EXPECT_EQ(seen().time[0], 0x1000'0000u);
    EXPECT_EQ(guest.result(HYPERVISOR_vm_assist, VMASST_CMD_disable, kRunstateUpdateFlag), 0);
    EXPECT_EQ(guest.ports.update_flags, (std::vector<bool>{true, false}));
    // One that the kernel keeps is the kernel's alone.
    guest.ports.keeps_runstate = true;
    guest.domain.set_runstate(1, Runstate::kRunning);
    EXPECT_EQ(seen().state, 2u);
}

// A reader that takes the flag seriously never sees a torn record.
TEST_P(VcpuOp, ARunstateReaderNeverSeesATornRecord) {
    const vmm::Gva area = guest.reserve(64);
    EXPECT_EQ(guest.result(HYPERVISOR_vm_assist, VMASST_CMD_enable, 5), 0);
    EXPECT_EQ(vcpu(VCPUOP_register_runstate_memory_area, 0, guest.put(area.value).value), 0);
    std::byte* at = guest.ports.memory.page(area.value >> vmm::kPageShift) + area.offset();
    const auto word = [&](std::size_t index) {
        return std::uint64_t{
            std::atomic_ref<std::uint32_t>(*reinterpret_cast<std::uint32_t*>(at + index * 4))
                .load()};
    };
    const std::size_t entry = guest.wide() ? 2 : 1, times = entry + 2;
    const auto u64 = [&](std::size_t index) { return word(index + 1) << 32 | word(index); };
    std::atomic<bool> done{false};
    std::thread writer([&] {
        for (std::uint64_t n = 1; n <= 20000; ++n) {
            guest.ports.now_ns = guest.ports.now_ns + 16;
            guest.domain.set_runstate(0, n % 2 != 0 ? Runstate::kBlocked : Runstate::kRunning);
        }
        done = true;
    });
    while (!done) {
        const std::uint64_t before = u64(entry);
        if (before >> 63 != 0) continue;
        std::uint64_t sum = 0;
        for (std::size_t i = 0; i < 4; ++i) {
            sum += u64(times + i * 2);
        }
        // No update came in between: then it is all of one time.
        if (u64(entry) == before) {
            ASSERT_EQ(sum, before);
        }
    }
    writer.join();
    EXPECT_EQ(u64(entry) >> 63, 0u);
    EXPECT_EQ(u64(entry), guest.ports.now_ns);
}

// 4.18: by guest physical address; what the linear one got goes on when it is taken away.
TEST_P(VcpuOp, AreasByPhysicalAddress) {
    const auto d = fresh({.profile = find_profile("xen-4.18")});
    d->domain.latch_width(GetParam());
    const auto op = [&](std::uint64_t sub, std::uint64_t gpa) {
        return d->result(HYPERVISOR_vcpu_op, sub, 1, d->put(gpa).value);
    };
    const vmm::Gva linear = d->reserve(64), physical = d->reserve(64);
    const std::uint64_t align = d->wide() ? 8 : 4;
    const std::uint64_t size = d->wide() ? 48 : 44;
    const std::uint64_t page = TestDomain::kRamGfn << vmm::kPageShift;
    for (const std::uint64_t sub :
         {VCPUOP_register_runstate_phys_area, VCPUOP_register_vcpu_time_phys_area}) {
        EXPECT_EQ(d->result(HYPERVISOR_vcpu_op, sub, 1, kUnmapped), kFault);
        EXPECT_EQ(d->result(HYPERVISOR_vcpu_op, sub, 2, kUnmapped), kNoent);
        EXPECT_EQ(op(sub, page + align / 2), -XEN_ENXIO);
        EXPECT_EQ(op(sub, page + vmm::kPageSize - align), -XEN_ENXIO);
        EXPECT_EQ(op(sub, TestDomain::kHoleGfn << vmm::kPageShift), kInval);
        EXPECT_EQ(op(sub, ~std::uint64_t{7}), -XEN_ENXIO);
    }
    EXPECT_TRUE(d->ports.time_areas.empty());
    EXPECT_EQ(d->domain.vcpu(1).runstate_gpa, kNoGfn);

    EXPECT_EQ(op(VCPUOP_register_runstate_memory_area, linear.value), 0);
    EXPECT_EQ(op(VCPUOP_register_runstate_phys_area, page + vmm::kPageSize - size), 0);
    EXPECT_EQ(op(VCPUOP_register_runstate_phys_area, physical.value), 0);
    EXPECT_EQ(d->domain.vcpu(1).runstate_gpa, physical.value);
    d->ports.now_ns = 0x7000'0000;
    d->domain.set_runstate(1, Runstate::kRunning);
    EXPECT_EQ(d->get_wide<vcpu_runstate_info>(physical).state, 0u);
    EXPECT_EQ(d->get_wide<vcpu_runstate_info>(linear).state, 3u) << "not serviced meanwhile";
    EXPECT_EQ(op(VCPUOP_register_runstate_phys_area, UINT64_MAX), 0);
    EXPECT_EQ(d->get_wide<vcpu_runstate_info>(linear).state, 0u);

    EXPECT_EQ(op(VCPUOP_register_vcpu_time_phys_area, physical.value), 0);
    EXPECT_EQ(op(VCPUOP_register_vcpu_time_phys_area, UINT64_MAX), 0);
    EXPECT_EQ(d->ports.time_areas,
              (std::vector<std::pair<unsigned, std::uint64_t>>{{1, physical.value}, {1, kNoGfn}}));
    d->ports.has_time_area = false;
    EXPECT_EQ(op(VCPUOP_register_vcpu_time_phys_area, physical.value), kNosys);
}

// Which sub-ops an HVM guest had, and what it heard of the others.
TEST_P(VcpuOp, EachReleaseHasItsOwnList) {
    const struct {
        const char* profile;
        std::uint32_t sub_op;
        bool there;
    } rows[] = {
        {"xen-4.1", VCPUOP_get_runstate_info, true},
        {"xen-4.1", VCPUOP_is_up, false},
        {"xen-4.2", VCPUOP_register_vcpu_info, false},
        {"xen-4.3", VCPUOP_register_vcpu_info, true},
        {"xen-4.4", VCPUOP_is_up, false},
        {"xen-4.6", VCPUOP_send_nmi, false},
        {"xen-4.7", VCPUOP_is_up, true},
        {"xen-4.17", VCPUOP_register_runstate_phys_area, false},
        {"xen-4.18", VCPUOP_register_runstate_phys_area, true},
        {"xen-4.18", 16, false},
    };
    for (const auto& row : rows) {
        const Profile* profile = find_profile(row.profile);
        const auto d = fresh({.profile = profile});
        const auto call = [&](unsigned vcpu) {
            return d->result(HYPERVISOR_vcpu_op, row.sub_op, vcpu, kUnmapped);
        };
        EXPECT_EQ(call(0) == kNosys, !row.there) << row.profile << ' ' << row.sub_op;
        // From 4.7 on the vCPU is looked up first.
        EXPECT_EQ(call(99), row.there || profile->since(4, 7) ? kNoent : kNosys)
            << row.profile << ' ' << row.sub_op;
    }
}

TEST_P(VcpuOp, TimeAreas) {
    const vmm::Gva area = guest.reserve(32);
    const vmm::Gva arg = guest.put(std::uint64_t{area.value});
    EXPECT_EQ(vcpu(VCPUOP_register_vcpu_time_memory_area, 1, arg.value), 0);
    EXPECT_EQ(guest.ports.time_areas,
              (std::vector<std::pair<unsigned, std::uint64_t>>{{1, area.value}}));
    guest.ports.has_time_area = false;
    EXPECT_EQ(vcpu(VCPUOP_register_vcpu_time_memory_area, 1, arg.value), kNosys);
}

// XSA-20: a period that overflows, and one that leaves time for nothing else.
TEST_P(VcpuOp, PeriodicTimersAsMeasured) {
    const auto set = [&](std::uint64_t period, unsigned id = 0) {
        return vcpu(VCPUOP_set_periodic_timer, id, guest.put(period).value);
    };
    EXPECT_EQ(set(0), kInval);
    EXPECT_EQ(set(999'999), kInval);
    EXPECT_EQ(set(~std::uint64_t{0}), kInval);
    EXPECT_EQ(set(1'000'000, 1), kInval);
    EXPECT_EQ(guest.domain.vcpu(0).timers.period_ns, 0u);
    EXPECT_EQ(set(1'000'000), 0);
    EXPECT_EQ(guest.domain.vcpu(0).timers.period_ns, 1'000'000u);
    // The first tick comes at once; one that is set anew waits its period.
    EXPECT_EQ(guest.domain.vcpu(0).timers.next_periodic_ns, guest.ports.now_ns);
    EXPECT_EQ(guest.ports.timers, (std::vector<unsigned>{0}));
    guest.domain.run_timers(0, guest.ports.now_ns);
    EXPECT_EQ(vcpu(VCPUOP_stop_periodic_timer, 0), 0);
    EXPECT_EQ(guest.domain.vcpu(0).timers.period_ns, 0u);
    const std::uint64_t ticked = guest.ports.now_ns;
    guest.ports.now_ns += 10;
    EXPECT_EQ(set(1'000'000), 0);
    EXPECT_EQ(guest.domain.vcpu(0).timers.next_periodic_ns, ticked + 1'000'000);
    guest.ports.now_ns += 2'000'000;
    EXPECT_EQ(set(1'000'000), 0);
    EXPECT_EQ(guest.domain.vcpu(0).timers.next_periodic_ns, guest.ports.now_ns);
}

TEST_P(VcpuOp, SingleShotTimersAsMeasured) {
    const auto set = [&](std::uint64_t at, std::uint32_t flags = 0, unsigned id = 0) {
        return vcpu(
            VCPUOP_set_singleshot_timer, id,
            guest.put_wide<vcpu_set_singleshot_timer>({.timeout_abs_ns = at, .flags = flags})
                .value);
    };
    const auto deadline = [&] { return guest.domain.vcpu(0).timers.singleshot_ns.load(); };
    EXPECT_EQ(set(5), 0);
    EXPECT_EQ(deadline(), 5u);
    EXPECT_EQ(set(5, 1), 0);  // "future" flag: no -ETIME since 4.x
    EXPECT_EQ(set(~std::uint64_t{0}), 0);
    EXPECT_EQ(deadline(), ~std::uint64_t{0});
    EXPECT_EQ(set(5, 0xfffe), 0);
    EXPECT_EQ(set(0), 0);
    EXPECT_NE(deadline(), 0u);  // due at once, not off
    EXPECT_EQ(set(5, 0, 1), kInval);
    EXPECT_EQ(vcpu(VCPUOP_stop_singleshot_timer, 1), kInval);
    EXPECT_EQ(vcpu(VCPUOP_stop_singleshot_timer, 0), 0);
    EXPECT_EQ(deadline(), 0u);
    EXPECT_EQ(guest.ports.timers.size(), 6u);
}

TEST_P(VcpuOp, VcpuInfoAsMeasured) {
    const auto place = [&](unsigned id, std::uint64_t mfn, std::uint32_t offset) {
        return vcpu(VCPUOP_register_vcpu_info, id,
                    guest.put(vcpu_register_vcpu_info{mfn, offset, 0}).value);
    };
    constexpr std::uint64_t kRam = TestDomain::kRamGfn;
    EXPECT_EQ(place(0, kRam, 4090), -XEN_ENXIO);
    EXPECT_EQ(place(0, kRam, 4096), -XEN_ENXIO);
    EXPECT_EQ(place(0, TestDomain::kHoleGfn, 0), kInval);
    EXPECT_EQ(place(0, kRam, 3), -XEN_ENXIO);
    EXPECT_EQ(place(0, kRam, 0), 0);
    EXPECT_EQ(place(0, kRam, 0), kInval);
    EXPECT_EQ(place(0, kRam + 1, 64), kInval);
    EXPECT_EQ(place(1, kRam, 64), 0);
    EXPECT_EQ(place(1, kRam, 64), kInval);
    EXPECT_EQ(place(9999, kRam, 64), kNoent);
}

// 4.18 treats it as its other areas.
TEST_P(VcpuOp, VcpuInfoSince418) {
    const auto d = fresh({.profile = find_profile("xen-4.18")});
    d->domain.latch_width(GetParam());
    const auto place = [&](std::uint64_t mfn, std::uint32_t offset) {
        return d->result(HYPERVISOR_vcpu_op, VCPUOP_register_vcpu_info, 0,
                         d->put(vcpu_register_vcpu_info{mfn, offset, 0}).value);
    };
    constexpr std::uint64_t kRam = TestDomain::kRamGfn;
    EXPECT_EQ(place(kRam, 4096), kInval);
    EXPECT_EQ(place(UINT64_MAX, 0), kInval);
    EXPECT_EQ(place(kRam, 4040), -XEN_ENXIO);
    EXPECT_EQ(place(kRam, 2), -XEN_ENXIO);
    if (d->wide()) {
        EXPECT_EQ(place(kRam, 4), -XEN_ENXIO);
    }
    EXPECT_EQ(place(TestDomain::kHoleGfn, 0), kInval);
    EXPECT_EQ(place(kRam, 64), 0);
    EXPECT_EQ(place(kRam, 64), -XEN_EBUSY);
    EXPECT_EQ(place(kRam, 2), -XEN_EBUSY);
    EXPECT_EQ(place(kRam, 4096), kInval);
}

TEST_P(VcpuOp, NmisGoWhereTheyAreSent) {
    EXPECT_EQ(vcpu(VCPUOP_send_nmi, 1), 0);
    EXPECT_EQ(vcpu(VCPUOP_send_nmi, 0, zero().value), kInval);
    EXPECT_EQ(guest.ports.nmis, (std::vector<unsigned>{1}));
}

}  // namespace
}  // namespace xenshim
