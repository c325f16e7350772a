#include "tests/sweep/scenario.h"

namespace xenshim::tests {
namespace {

using namespace abi;
using fakes::TestDomain;

constexpr std::uint64_t kFirstGfn = 0x1000;  // RAM that nothing else uses
constexpr std::uint64_t kFarGfn = 0x3000;    // more RAM

// Noise in the arguments that the operation does not have.
constexpr std::uint64_t kNoise2 = 0x1122'3344'5566'7788;
constexpr std::uint64_t kNoise3 = 0x99aa'bbcc'ddee'ff00;
constexpr std::uint64_t kNoise4 = 0xf0e1'd2c3'b4a5'9687;

std::array<std::uint64_t, 5> args(std::uint64_t a0, std::uint64_t a1) {
    return {a0, a1, kNoise2, kNoise3, kNoise4};
}

void mark(TestDomain& guest, std::uint64_t gfn) {
    guest.poke(vmm::Gva{gfn << vmm::kPageShift}, gfn * 0x1'0001 + 1);
}

// ---- memory_op 0, 1, 6
// ---------------------------------------------------------------------------

Prepared reservation(TestDomain& guest, const Era& era, std::uint32_t op,
                     const std::vector<std::uint64_t>& gfns, std::uint32_t order,
                     std::int64_t result) {
    const vmm::Gva list = guest.put_words(gfns);
    const vmm::Gva at = guest.put_wide<xen_memory_reservation>({.extent_start = list.value,
                                                                .nr_extents = gfns.size(),
                                                                .extent_order = order,
                                                                .mem_flags = 0,
                                                                .domid = DOMID_SELF});
    Prepared call{.number = HYPERVISOR_memory_op, .args = args(op, at.value)};
    call.units = static_cast<std::uint64_t>(result) < gfns.size()
                     ? static_cast<std::uint64_t>(result) + 1  // the one that fails is tried
                     : gfns.size();
    call.result = result;
    const unsigned word = guest.word_bytes();
    call.frozen = [=, first = call.args](std::uint64_t k) {
        Frozen frozen{.args = first};
        frozen.args[0] = k << era.memory_shift() | op;
        if (era.handle_moves()) frozen.memory = {{at.value, word, list.value + k * word}};
        return frozen;
    };
    if (era.handle_moves()) call.progress_left = {{at.value, word, 0}};
    for (const std::uint64_t gfn : gfns) {
        for (std::uint64_t i = 0; i < std::uint64_t{1} << order; ++i) {
            call.gfns.push_back(gfn + i);
        }
    }
    return call;
}

std::vector<std::uint64_t> gfn_list(std::uint64_t first, std::uint64_t count,
                                    std::uint64_t step = 1) {
    std::vector<std::uint64_t> list;
    for (std::uint64_t i = 0; i < count; ++i) {
        list.push_back(first + i * step);
    }
    return list;
}

Prepared decrease(TestDomain& guest, const Era& era, std::uint64_t units) {
    const auto list = gfn_list(kFirstGfn, units);
    for (const auto gfn : list) {
        mark(guest, gfn);
    }
    auto call = reservation(guest, era, XENMEM_decrease_reservation, list, 0,
                            static_cast<std::int64_t>(units));
    call.done = [&guest](std::uint64_t i) {
        return !guest.domain.physmap().is_mapped(kFirstGfn + i);
    };
    return call;
}

// A list that cannot be done to its end: the answer counts what was.
Prepared decrease_short(TestDomain& guest, const Era& era, std::uint64_t units) {
    auto list = gfn_list(kFirstGfn, units + 4);
    list[units - 1] = kFirstGfn;  // twice
    return reservation(guest, era, XENMEM_decrease_reservation, list, 0,
                       static_cast<std::int64_t>(units - 1));
}

Prepared populate(TestDomain& guest, const Era& era, std::uint64_t units) {
    const auto list = gfn_list(kFirstGfn, units);
    for (const auto gfn : list) {
        EXPECT_TRUE(guest.domain.physmap().decrease(gfn));
    }
    auto call =
        reservation(guest, era, XENMEM_populate_physmap, list, 0, static_cast<std::int64_t>(units));
    call.done = [&guest](std::uint64_t i) {
        return guest.domain.physmap().is_mapped(kFirstGfn + i);
    };
    return call;
}

// Extents of two pages: a unit is an extent.
Prepared decrease_order_1(TestDomain& guest, const Era& era, std::uint64_t units) {
    const auto list = gfn_list(kFirstGfn, units, 2);
    auto call = reservation(guest, era, XENMEM_decrease_reservation, list, 1,
                            static_cast<std::int64_t>(units));
    call.done = [&guest](std::uint64_t i) {
        return !guest.domain.physmap().is_mapped(kFirstGfn + 2 * i) &&
               !guest.domain.physmap().is_mapped(kFirstGfn + 2 * i + 1);
    };
    return call;
}

// Pages that land nowhere; the domain may have 0xef more than it has, so room is made first.
Prepared increase(TestDomain& guest, const Era& era, std::uint64_t units) {
    for (std::uint64_t i = 0; i < units; ++i) {
        EXPECT_TRUE(guest.domain.physmap().decrease(kFarGfn + i));
    }
    auto call = reservation(guest, era, XENMEM_increase_reservation, gfn_list(kFirstGfn, units), 0,
                            static_cast<std::int64_t>(units));
    for (std::uint64_t i = 0; i < units; ++i) {
        call.gfns.push_back(kFarGfn + i);
    }
    const std::uint64_t before = guest.domain.physmap().accounts().current;
    call.done = [&guest, before](std::uint64_t i) {
        return guest.domain.physmap().accounts().current > before + i;
    };
    return call;
}

// ---- memory_op 7 --------------------------------------------------------------------------------

Prepared gmfn_range(TestDomain& guest, const Era& era, std::uint64_t from, std::uint64_t to,
                    std::uint64_t units) {
    for (std::uint64_t i = 0; i < units; ++i) {
        mark(guest, from + i);
    }
    const vmm::Gva at =
        guest.put_wide<xen_add_to_physmap>({.domid = DOMID_SELF,
                                            .size = static_cast<std::uint16_t>(units),
                                            .space = XENMAPSPACE_gmfn_range,
                                            .idx = from,
                                            .gpfn = to});
    Prepared call{.number = HYPERVISOR_memory_op,
                  .args = args(XENMEM_add_to_physmap, at.value),
                  .units = units};
    const bool wide = guest.wide();
    call.frozen = [=, first = call.args](std::uint64_t k) {
        Frozen frozen{.args = first};
        if (era.range_in_struct()) {
            frozen.memory = {{at.value + 2, 2, units - k},
                             {at.value + 8, wide ? 8u : 4u, from + k},
                             {at.value + (wide ? 16 : 12), wide ? 8u : 4u, to + k}};
        } else {
            frozen.args[0] = k << era.memory_shift() | XENMEM_add_to_physmap;
        }
        return frozen;
    };
    if (era.range_in_struct()) {
        call.progress_left = {{at.value + 2, 2, 0},
                              {at.value + 8, wide ? 8u : 4u, 0},
                              {at.value + (wide ? 16 : 12), wide ? 8u : 4u, 0}};
    }
    const std::uint64_t low = std::min(from, to);
    call.gfns = gfn_list(low, std::max(from, to) + units - low);
    return call;
}

Prepared range_apart(TestDomain& guest, const Era& era, std::uint64_t units) {
    auto call = gmfn_range(guest, era, kFirstGfn, kFirstGfn + 0x400, units);
    call.gfns = gfn_list(kFirstGfn, units);
    for (std::uint64_t i = 0; i < units; ++i) {
        call.gfns.push_back(kFirstGfn + 0x400 + i);
    }
    call.done = [&guest](std::uint64_t i) {
        return !guest.domain.physmap().is_mapped(kFirstGfn + i);
    };
    return call;
}
// Over itself: downwards it moves all, upwards page by page into what it goes on to move.
Prepared range_down(TestDomain& guest, const Era& era, std::uint64_t units) {
    return gmfn_range(guest, era, kFirstGfn + 8, kFirstGfn, units);
}
Prepared range_up(TestDomain& guest, const Era& era, std::uint64_t units) {
    // By more than its length but for one page, so that the last unit fails to find its source.
    auto call = gmfn_range(guest, era, kFirstGfn, kFirstGfn + units - 1, units);
    call.done = [&guest](std::uint64_t i) {
        return !guest.domain.physmap().is_mapped(kFirstGfn + i);
    };
    return call;
}

// ---- memory_op 23 -------------------------------------------------------------------------------

// Pages moved one by one; an entry that fails says so in errs and does not end the call.
Prepared physmap_batch(TestDomain& guest, const Era& era, std::uint64_t units) {
    constexpr std::uint64_t kBad = 7;
    const std::uint64_t to = kFirstGfn + 0x400;
    std::vector<std::uint64_t> idxs = gfn_list(kFirstGfn, units), gfns = gfn_list(to, units);
    idxs[kBad] = kFirstGfn + 0x800;
    EXPECT_TRUE(guest.domain.physmap().decrease(idxs[kBad]));
    for (const auto gfn : idxs) {
        if (gfn != idxs[kBad]) mark(guest, gfn);
    }
    const vmm::Gva errs = guest.reserve(units * 4);
    for (std::uint64_t i = 0; i < units; ++i) {
        guest.poke(errs + i * 4, std::int32_t{0x7777});
    }
    const vmm::Gva at =
        guest.put_wide<xen_add_to_physmap_batch>({.domid = DOMID_SELF,
                                                  .space = XENMAPSPACE_gmfn,
                                                  .size = static_cast<std::uint16_t>(units),
                                                  .u = 0,
                                                  .idxs = guest.put_words(idxs).value,
                                                  .gpfns = guest.put_words(gfns).value,
                                                  .errs = errs.value});
    Prepared call{.number = HYPERVISOR_memory_op,
                  .args = args(XENMEM_add_to_physmap_batch, at.value),
                  .units = units};
    call.frozen = [=, first = call.args](std::uint64_t k) {
        Frozen frozen{.args = first};
        frozen.args[0] = k << era.memory_shift() | XENMEM_add_to_physmap_batch;
        for (std::uint64_t i = 0; i < k; ++i) {
            frozen.memory.push_back(
                {errs.value + 4 * i, 4, i == kBad ? 0ull - std::uint64_t{XEN_EINVAL} : 0});
        }
        return frozen;
    };
    call.gfns = idxs;
    call.gfns.insert(call.gfns.end(), gfns.begin(), gfns.end());
    return call;
}

// ---- multicall ----------------------------------------------------------------------------------

unsigned entry_bytes(const TestDomain& guest) {
    return guest.wide() ? 64 : 32;
}

Prepared multicall_between(TestDomain& guest, const Era&, std::uint64_t units) {
    const vmm::Gva list = guest.reserve(units * entry_bytes(guest));
    for (std::uint64_t i = 0; i < units; ++i) {
        guest.poke_wide<multicall_entry>(
            list + i * entry_bytes(guest),
            {.op = HYPERVISOR_xen_version,
             .result = 0x7777,
             .args = {i % 2 == 0 ? XENVER_version : XENVER_pagesize, 0, 2, 3, 4, 5}});
    }
    Prepared call{.number = HYPERVISOR_multicall, .args = args(list.value, units), .units = units};
    const unsigned stride = entry_bytes(guest), word = guest.word_bytes();
    const auto version =
        static_cast<std::uint64_t>(guest.result(HYPERVISOR_xen_version, XENVER_version, 0));
    call.frozen = [=, first = call.args](std::uint64_t k) {
        Frozen frozen{.args = first};
        frozen.args[0] += k * stride;
        frozen.args[1] -= k;
        for (std::uint64_t i = 0; i < k; ++i) {
            frozen.memory.push_back(
                {list.value + i * stride + word, word, i % 2 == 0 ? version : 4096});
        }
        return frozen;
    };
    return call;
}

// One entry, stopped inside: it becomes its own continuation in guest memory.
Prepared multicall_inside(TestDomain& guest, const Era& era, std::uint64_t units) {
    const Prepared inner = decrease(guest, era, units);
    const vmm::Gva list = guest.reserve(entry_bytes(guest));
    guest.poke_wide<multicall_entry>(
        list,
        {.op = inner.number, .result = 0x7777, .args = {inner.args[0], inner.args[1], 2, 3, 4, 5}});
    Prepared call{.number = HYPERVISOR_multicall, .args = args(list.value, 1), .units = units};
    const unsigned word = guest.word_bytes();
    call.frozen = [=, first = call.args](std::uint64_t k) {
        return Frozen{.args = first,
                      .memory = {{list.value + word, word, inner.number},
                                 {list.value + 2 * word, word, inner.frozen(k).args[0]}}};
    };
    call.progress_left = {{list.value + 2 * word, word, 0}};
    call.done = inner.done;
    call.gfns = inner.gfns;
    return call;
}

// ---- event_channel_op 10 ------------------------------------------------------------------------

// Every port closed; how far it came is the domain's to know, the guest sees another operation.
Prepared event_reset(TestDomain& guest, const Era&, std::uint64_t units) {
    constexpr std::uint64_t kBetweenLooks = 64;
    auto& ports = guest.domain.event_channels();
    const auto count = static_cast<std::uint32_t>(2 * units);
    for (std::uint32_t port = 1; port < count; ++port) {
        EXPECT_TRUE(ports.alloc_unbound(0));
    }
    const vmm::Gva at = guest.put(std::uint16_t{DOMID_SELF});
    Prepared call{.number = HYPERVISOR_event_channel_op,
                  .args = args(EVTCHNOP_reset, at.value),
                  .units = count,
                  .granularity = kBetweenLooks};
    call.frozen = [first = call.args](std::uint64_t) {
        Frozen frozen{.args = first};
        frozen.args[0] = 14;
        return frozen;
    };
    call.done = [&ports](std::uint64_t i) {
        const auto status = ports.status(static_cast<std::uint32_t>(i));
        return i != 0 && (!status || status->status == EVTCHNSTAT_closed);
    };
    call.event_ports = count;
    return call;
}

constexpr auto always = [](const Era&) { return true; };

constexpr Scenario kScenarios[] = {
    {"decrease_reservation", always, decrease},
    {"decrease_reservation, short", always, decrease_short},
    {"decrease_reservation, order 1", always, decrease_order_1},
    {"populate_physmap", always, populate},
    {"increase_reservation", always, increase},
    {"gmfn_range", [](const Era& e) { return e.has_range(); }, range_apart},
    {"gmfn_range, down over itself", [](const Era& e) { return e.has_range(); }, range_down},
    {"gmfn_range, up over itself", [](const Era& e) { return e.has_range(); }, range_up},
    {"add_to_physmap_batch", [](const Era& e) { return e.has_batch(); }, physmap_batch},
    {"event channels' reset", [](const Era& e) { return e.reset_continues(); }, event_reset},
    {"multicall, between entries", [](const Era& e) { return e.has_multicall(); },
     multicall_between},
    {"multicall, inside an entry", [](const Era& e) { return e.has_multicall(); },
     multicall_inside},
};

}  // namespace

std::span<const Scenario> scenarios() {
    return kScenarios;
}

}  // namespace xenshim::tests
