// increase_reservation, decrease_reservation, populate_physmap and exchange.
#include <algorithm>
#include <cstddef>

#include "xenshim/abi/release_rules.h"
#include "xenshim/hypercall/memory_op_parts.h"

namespace xenshim::memory_ops {

using namespace abi;

namespace {

// The largest extent that an unprivileged guest may name: 2^9 pages, 2 MiB (memop-max-order=).
constexpr std::uint32_t kMaxOrder = 9;

// mem_flags: address bits, NUMA node + 1, and whether no other node will do.
constexpr std::uint32_t kAddressBitsMask = 0xff;
constexpr std::uint32_t kNodeMask = 0xff00;
constexpr std::uint32_t kExactNode = 1u << 17;

constexpr std::size_t kExtentsAhead = 1020;
// Words of both lists of an exchange behind its structure, in the two pages for translation.
constexpr std::size_t kExchangeWords = 1015;

// A node is advice that is not ours to follow; to insist on one is a privilege (XSA-231).
bool insists_on_node(std::uint32_t mem_flags) {
    return (mem_flags & kNodeMask) != 0 && (mem_flags & kExactNode) != 0;
}

// Whether Xen would begin with the extents at all.
bool acceptable(Call& call, std::uint64_t op, const xen_memory_reservation<W64>& want) {
    const std::uint64_t most = most_extents(call.profile(), call.request().width);
    if (!call.domain().is_self(want.domid) || want.nr_extents > most ||
        want.extent_order > kMaxOrder) {
        return false;
    }
    // Pages below a given machine address: nobody knows machine addresses here, and a limit below
    // 4 GiB is one that no host of today could honour anyway. Below one page Xen refuses it also
    // to those who take nothing.
    const std::uint32_t address_bits = want.mem_flags & kAddressBitsMask;
    const std::uint32_t fewest = op == XENMEM_decrease_reservation ? vmm::kPageShift + 1 : 32;
    if (address_bits != 0 && address_bits < fewest) return false;
    if (insists_on_node(want.mem_flags)) return false;
    // A guest cannot populate on demand for itself.
    return op != XENMEM_populate_physmap || !refuses_populate_on_demand(call.profile()) ||
           (want.mem_flags & XENMEMF_populate_on_demand) == 0;
}

bool do_extent(Physmap& physmap, Physmap::GivingBack& giving, std::uint64_t op, std::uint64_t gfn,
               std::uint64_t pages) {
    switch (op) {
        case XENMEM_decrease_reservation: return giving.decrease(gfn, pages);
        case XENMEM_populate_physmap: return physmap.populate(gfn, pages);
        default: return physmap.increase(pages);
    }
}

// When an extent is a hole it is done, and its memory is freed in pieces until the vCPU should go
// back to the guest; the next entry goes on with that, and begins no other extent before. False:
// some is left. One that is just `entered` frees a piece in any case.
bool all_freed(Call& call, bool entered) {
    Physmap& physmap = call.domain().physmap();
    if (physmap.owes()) call.preemption().start_clock();
    for (bool some = entered; physmap.owes(); some = false) {
        if (!some && call.preemption().due()) return false;
        physmap.free_some_owed();
    }
    return true;
}

}  // namespace

// They answer how many extents are done, never an error.
Outcome reservation(Call& call, Command at) {
    const auto stop_at = [](std::uint64_t n) { return Call::ok(static_cast<std::int64_t>(n)); };
    const auto want = call.read_wide<xen_memory_reservation>(call.handle(1));
    // On a resumed call the cursor comes from guest registers: judged like any other argument.
    if (!want) return stop_at(at.start);
    // A guest that looks where its pages were finds zeroes when the call is over.
    const auto all_given_back = [&](std::uint64_t n, bool entered) -> Outcome {
        const bool decreases = at.op == XENMEM_decrease_reservation;
        if (decreases && !all_freed(call, entered)) return Continue{n};
        return stop_at(n);
    };
    if (at.start == want->nr_extents) return all_given_back(at.start, true);
    if (at.start > want->nr_extents || !acceptable(call, at.op, *want)) return stop_at(at.start);
    // Where the handle moves along with the cursor, element `start` is its first.
    const std::uint64_t first = call.profile().memory_op_moves_handle ? at.start : 0;
    WordList<kExtentsAhead> list(call, {want->extent_start}, want->nr_extents - first);
    const std::uint64_t pages = std::uint64_t{1} << want->extent_order;
    Physmap& physmap = call.domain().physmap();
    Physmap::GivingBack giving(physmap);  // until this entry ends
    // An extent of 2 MiB takes longer to free than an entry may.
    if (want->extent_order != 0) call.preemption().start_clock();
    for (std::uint64_t i = at.start; i < want->nr_extents; ++i) {
        if (at.op == XENMEM_decrease_reservation && !all_freed(call, i == at.start)) {
            return Continue{i};
        }
        if (i != at.start && call.should_yield(i)) return Continue{i};
        std::uint64_t gfn = 0;
        if (at.op != XENMEM_increase_reservation) {  // whose pages land nowhere in the map
            const auto named = list.at(i - first);
            if (!named) return stop_at(i);
            gfn = *named;
        }
        if (!do_extent(physmap, giving, at.op, gfn, pages)) {
            physmap.free_owed();
            return stop_at(i);
        }
        if (giving.freed()) call.preemption().look_soon();
    }
    return all_given_back(want->nr_extents, false);
}

namespace {

struct Exchange {
    xen_memory_reservation<W64> in;
    xen_memory_reservation<W64> out;
    std::uint64_t nr_exchanged;
};

GuestResult<Exchange> read_exchange(Call& call) {
    const vmm::Gva at = call.handle(1);
    if (call.is_64bit()) {
        const auto raw = TRY(call.read<xen_memory_exchange<W64>>(at));
        return Exchange{raw.in, raw.out, raw.nr_exchanged};
    }
    const auto raw = TRY(call.read<xen_memory_exchange<W32>>(at));
    return Exchange{widen<xen_memory_reservation>(raw.in), widen<xen_memory_reservation>(raw.out),
                    raw.nr_exchanged};
}

// Both lists of as many pages, no more than the caller's words can count.
bool sizes_match(Call& call, const Exchange& want) {
    const unsigned bits = 8 * call.word_bytes();
    const std::uint64_t words = call.is_64bit() ? UINT64_MAX : UINT32_MAX;
    const auto fits = [&](const xen_memory_reservation<W64>& r) {
        return r.extent_order < bits && r.nr_extents <= words >> r.extent_order;
    };
    return want.nr_exchanged <= want.in.nr_extents && fits(want.in) && fits(want.out) &&
           want.in.nr_extents << want.in.extent_order == want.out.nr_extents
                                                             << want.out.extent_order;
}

using ExchangeList = WordList<kExchangeWords>;

// As a shift: of how many extents of the smaller order one of the larger is made.
unsigned orders_apart(const Exchange& want) {
    const std::uint32_t in = want.in.extent_order, out = want.out.extent_order;
    return in > out ? in - out : out - in;
}
bool grows(const Exchange& want) {
    return want.out.extent_order > want.in.extent_order;
}

// Of how many extents a 32-bit caller's lists are translated at once: of whole chunks, each a word
// of the larger order and those of the smaller that it is made of. 0: not even one has room.
std::uint64_t extents_at_once(const Exchange& want) {
    const unsigned apart = orders_apart(want);
    if (apart >= 32 || want.nr_exchanged > want.in.nr_extents) return 0;
    const std::uint64_t chunks = kExchangeWords / ((std::uint64_t{1} << apart) + 1);
    return std::min(want.in.nr_extents - want.nr_exchanged, grows(want) ? chunks << apart : chunks);
}

// A 32-bit caller's sizes are judged, and both its lists read as far as there is room for them,
// before anything else is asked (compat_memory_op). `in`: its first list.
GuestResult<void> translate(Call& call, const Exchange& want, ExchangeList& in) {
    if (!sizes_match(call, want)) return refuse(XEN_EINVAL);
    const unsigned apart = orders_apart(want);
    const std::uint64_t ratio = std::uint64_t{1} << apart, start = want.nr_exchanged;
    if (grows(want) && start % ratio != 0) return refuse(XEN_EINVAL);
    if (ratio + 1 > kExchangeWords) return refuse(XEN_E2BIG);
    const std::uint64_t count = extents_at_once(want);
    if (count == 0) return {};
    const auto other = [&](std::uint64_t n) { return grows(want) ? n >> apart : n << apart; };
    ExchangeList out(call, {want.out.extent_start}, other(start + count));
    if (!in.all_there(start) || !out.all_there(other(start))) return refuse(XEN_EFAULT);
    return {};
}

// A page of a translated guest cannot be stolen from it: the first one ends the call.
Errno why_not(Call& call, ExchangeList& in, std::uint64_t first) {
    const auto gfn = in.at(first);
    if (!gfn) return gfn.error();
    return call.domain().physmap().is_mapped(*gfn) ? XEN_EOPNOTSUPP : XEN_EINVAL;
}

}  // namespace

Outcome exchange(Call& call) {
    auto want = read_exchange(call);
    if (!want) return Call::fail(want.error());
    ExchangeList in(call, {want->in.extent_start}, want->in.nr_extents,
                    static_cast<std::size_t>(extents_at_once(*want)));
    if (!call.is_64bit()) {
        // What fails then writes nothing.
        if (const auto done = translate(call, *want, in); !done) return Call::fail(done.error());
    }
    const std::size_t done_at = call.is_64bit() ? offsetof(xen_memory_exchange<W64>, nr_exchanged)
                                                : offsetof(xen_memory_exchange<W32>, nr_exchanged);
    const auto end = [&](Errno code) {
        const vmm::Gva at = call.element(call.handle(1), 1, done_at);
        const auto written = call.write_word(at, 0, want->nr_exchanged);
        return Call::fail(written ? code : written.error());
    };
    if (std::max(want->in.extent_order, want->out.extent_order) > kMaxOrder) return end(XEN_EPERM);
    if (!sizes_match(call, *want) || want->in.domid != want->out.domid) return end(XEN_EINVAL);
    const bool nothing_left = want->nr_exchanged == want->in.nr_extents;
    if (nothing_left && looks_for_nothing_left(call.profile())) return Call::ok();
    if (insists_on_node(want->out.mem_flags)) return end(XEN_EINVAL);
    if (const auto self = call.require_self(want->in.domid, XEN_EPERM); !self) {
        return end(self.error());
    }
    if (nothing_left) return Call::ok();
    // Progress is in chunks of the larger of the two orders.
    const unsigned chunk = grows(*want) ? orders_apart(*want) : 0;
    want->nr_exchanged = want->nr_exchanged >> chunk << chunk;
    return end(why_not(call, in, want->nr_exchanged));
}

}  // namespace xenshim::memory_ops
