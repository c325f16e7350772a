#include "tests/sweep/scenario.h"

#include <algorithm>
#include <cstring>

#include "xenshim/abi/device_structs.h"
#include "xenshim/abi/other_numbers.h"

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
constexpr std::uint64_t kPortsBetweenLooks = 64;

Prepared event_reset(TestDomain& guest, std::uint32_t count) {
    auto& ports = guest.domain.event_channels();
    for (std::uint32_t port = 1; port < count; ++port) {
        EXPECT_TRUE(ports.alloc_unbound(0));
    }
    const vmm::Gva at = guest.put(std::uint16_t{DOMID_SELF});
    Prepared call{.number = HYPERVISOR_event_channel_op,
                  .args = args(EVTCHNOP_reset, at.value),
                  .units = count,
                  .granularity = kPortsBetweenLooks};
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

// All the ports that a guest without the FIFO ABI can have; the next one has the stops.
Prepared event_reset_2_level(TestDomain& guest, const Era&, std::uint64_t) {
    return event_reset(guest, guest.wide() ? 4096 : 1024);
}
Prepared event_reset_fifo(TestDomain& guest, const Era&, std::uint64_t units) {
    const vmm::Gva block = guest.reserve(vmm::kPageSize, vmm::kPageSize);
    EXPECT_TRUE(guest.domain.event_channels().init_control(
        0, 0, guest.domain.named_page(block.value >> vmm::kPageShift)));
    return event_reset(guest, static_cast<std::uint32_t>(units * kPortsBetweenLooks));
}
void with_many_ports(TestDomain::Options& options) {
    options.max_event_port = 131071;
}

// ---- grant_table_op -----------------------------------------------------------------------------

constexpr std::uint64_t kScreen = 0xa5a5'5a5aull << 32;  // above an unsigned int, to be cut off
constexpr std::uint16_t kUntouched = 0x7777;
constexpr std::uint64_t kBadElement = 7;

vmm::Gva in_list(vmm::Gva list, std::uint64_t i, unsigned bytes) {
    return list + i * bytes;
}
// The guest's entry `ref`, of version 1.
grant_entry_v1 entry(TestDomain& guest, std::uint32_t ref) {
    grant_entry_v1 e{};
    std::memcpy(&e, guest.ports.own_page(kFirstGrantPage) + ref * sizeof e, sizeof e);
    return e;
}
void grant_to_self(TestDomain& guest, std::uint32_t ref, std::uint64_t gfn) {
    const grant_entry_v1 e{GTF_permit_access, TestDomain::kDomid, static_cast<std::uint32_t>(gfn)};
    std::memcpy(guest.ports.own_page(kFirstGrantPage) + ref * sizeof e, &e, sizeof e);
}

// A list of elements of `bytes` each, whose status is at `status_at`. Some of them fail.
constexpr auto one_of_them = [](std::uint64_t i) { return i == kBadElement; };

Prepared grant_batch(std::uint32_t op, vmm::Gva list, std::uint64_t units, unsigned bytes,
                     unsigned status_at, std::int16_t bad_status,
                     bool (*fails)(std::uint64_t) = one_of_them) {
    Prepared call{.number = HYPERVISOR_grant_table_op, .args = args(kScreen | op, list.value)};
    call.args[2] = kScreen | units;
    call.units = units;
    call.frozen = [=, first = call.args](std::uint64_t k) {
        Frozen frozen{.args = first};
        frozen.args[0] = op;
        frozen.args[1] = list.value + k * bytes;
        frozen.args[2] = units - k;
        for (std::uint64_t i = 0; i < k; ++i) {
            const auto status = static_cast<std::uint16_t>(fails(i) ? bad_status : 0);
            frozen.memory.push_back({list.value + i * bytes + status_at, 2, status});
        }
        return frozen;
    };
    return call;
}

// Words from one page to another, by frame and by grant in turn.
Prepared grant_copy(TestDomain& guest, const Era&, std::uint64_t units) {
    constexpr std::uint64_t kFrom = kFirstGfn, kTo = kFarGfn;
    constexpr std::uint32_t kFromRef = 8, kToRef = 9, kNoRef = 0xfff'ffff;
    grant_to_self(guest, kFromRef, kFrom);
    grant_to_self(guest, kToRef, kTo);
    const unsigned bytes = guest.wide() ? 40 : 24, status_at = guest.wide() ? 36 : 20;
    const vmm::Gva list = guest.reserve(units * bytes);
    const auto offset = [](std::uint64_t i) { return i * 8 % vmm::kPageSize; };
    const auto word = [](std::uint64_t i) { return i * 0x1'0001'0001 + 1; };
    for (std::uint64_t i = 0; i < units; ++i) {
        guest.poke(vmm::Gva{(kFrom << vmm::kPageShift) + offset(i)}, word(i));
        const bool source_ref = i % 2 == 1, dest_ref = i % 3 == 1;
        std::uint64_t source = source_ref ? kFromRef : kFrom;
        if (i == kBadElement) source = kNoRef;
        guest.poke_wide<gnttab_copy>(
            in_list(list, i, bytes),
            {.source_u = source,
             .source_domid = source_ref ? TestDomain::kDomid : DOMID_SELF,
             .source_offset = static_cast<std::uint16_t>(offset(i)),
             .dest_u = dest_ref ? kToRef : kTo,
             .dest_domid = DOMID_SELF,
             .dest_offset = static_cast<std::uint16_t>(offset(i)),
             .len = 8,
             .flags = static_cast<std::uint16_t>((source_ref ? GNTCOPY_source_gref : 0) |
                                                 (dest_ref ? GNTCOPY_dest_gref : 0)),
             .status = kUntouched});
        if (guest.wide()) {  // the gaps, which no initialisation says anything of
            guest.poke(in_list(list, i, bytes) + 12, std::uint32_t{0});
            guest.poke(in_list(list, i, bytes) + 28, std::uint32_t{0});
            guest.poke(in_list(list, i, bytes) + 38, std::uint16_t{0});
        }
    }
    auto call = grant_batch(GNTTABOP_copy, list, units, bytes, status_at, GNTST_bad_gntref);
    call.gfns = {kFrom, kTo};
    call.done = [&guest, list, bytes, status_at, offset, word](std::uint64_t i) {
        const auto status = guest.get<std::uint16_t>(list + i * bytes + status_at);
        const auto there = guest.get<std::uint64_t>(vmm::Gva{(kTo << vmm::kPageShift) + offset(i)});
        return status != kUntouched && (i == kBadElement || there == word(i));
    };
    return call;
}

// Own pages, a hundred mappings of each: an entry counts no more than 128 users of a kind.
constexpr std::uint64_t kMappingsOfRef = 100;

vmm::Gva put_mappings(TestDomain& guest, std::uint64_t units) {
    const vmm::Gva list = guest.reserve(units * sizeof(gnttab_map_grant_ref));
    for (std::uint64_t i = 0; i < units; ++i) {
        const auto ref = static_cast<std::uint32_t>(8 + i / kMappingsOfRef);
        grant_to_self(guest, ref, kFirstGfn + ref);
        mark(guest, kFirstGfn + ref);
        EXPECT_TRUE(guest.domain.physmap().decrease(kFarGfn + i));
        guest.poke(
            in_list(list, i, sizeof(gnttab_map_grant_ref)),
            gnttab_map_grant_ref{.host_addr = (kFarGfn + i) << vmm::kPageShift,
                                 .flags = GNTMAP_host_map | (i % 2 == 0 ? GNTMAP_readonly : 0u),
                                 .ref = i == kBadElement ? 0xfff'ffff : ref,
                                 .dom = TestDomain::kDomid,
                                 .status = kUntouched,
                                 .handle = 0x6666'6666,
                                 .dev_bus_addr = kNoise3});
    }
    return list;
}
std::vector<std::uint64_t> gfns_of_mappings(std::uint64_t units) {
    auto gfns = gfn_list(kFarGfn, units);
    for (std::uint64_t ref = 8; ref <= 8 + units / kMappingsOfRef; ++ref) {
        gfns.push_back(kFirstGfn + ref);
    }
    return gfns;
}

Prepared grant_map(TestDomain& guest, const Era&, std::uint64_t units) {
    constexpr unsigned kBytes = 32, kStatusAt = 18;
    const vmm::Gva list = put_mappings(guest, units);
    auto call =
        grant_batch(GNTTABOP_map_grant_ref, list, units, kBytes, kStatusAt, GNTST_bad_gntref);
    call.frozen = [=, statuses = call.frozen](std::uint64_t k) {
        Frozen frozen = statuses(k);
        for (std::uint64_t i = 0; i < k; ++i) {
            if (i == kBadElement) continue;
            const std::uint64_t at = list.value + i * kBytes;
            // The handle of what failed is used again when there are no others.
            frozen.memory.push_back({at + 20, 4, i});
            frozen.memory.push_back({at + 24, 8, (kFarGfn + i) << vmm::kPageShift});
        }
        return frozen;
    };
    call.gfns = gfns_of_mappings(units);
    call.done = [&guest, list](std::uint64_t i) {
        if (i != kBadElement) return guest.domain.physmap().is_mapped(kFarGfn + i);
        return guest.get<std::uint16_t>(list + i * kBytes + kStatusAt) != kUntouched;
    };
    return call;
}

// Thirty-two at a time, for one flush: one of them, each time another, is a mapping, and the others
// have a handle that nobody has.
constexpr std::uint64_t kUnmapsBetweenLooks = 32;
constexpr auto is_no_mapping = [](std::uint64_t i) {
    const std::uint64_t mapping = i / kUnmapsBetweenLooks;
    return i % kUnmapsBetweenLooks != mapping % kUnmapsBetweenLooks || mapping == kBadElement;
};

Prepared grant_unmap(TestDomain& guest, const Era&, std::uint64_t units) {
    constexpr unsigned kBytes = 24, kStatusAt = 20;
    const vmm::Gva maps = put_mappings(guest, units);
    EXPECT_EQ(guest.result(HYPERVISOR_grant_table_op, GNTTABOP_map_grant_ref, maps.value, units),
              0);
    const std::uint64_t count = units * kUnmapsBetweenLooks;
    const vmm::Gva list = guest.reserve(count * kBytes);
    for (std::uint64_t i = 0; i < count; ++i) {
        const auto mapped = guest.get<gnttab_map_grant_ref>(
            in_list(maps, i / kUnmapsBetweenLooks, sizeof(gnttab_map_grant_ref)));
        guest.poke(in_list(list, i, kBytes),
                   gnttab_unmap_grant_ref{.host_addr = mapped.host_addr,
                                          .dev_bus_addr = 0,
                                          .handle = is_no_mapping(i) ? ~0u : mapped.handle,
                                          .status = kUntouched,
                                          .pad = 0x1234});
    }
    auto call = grant_batch(GNTTABOP_unmap_grant_ref, list, count, kBytes, kStatusAt,
                            GNTST_bad_handle, is_no_mapping);
    call.granularity = kUnmapsBetweenLooks;
    call.gfns = gfns_of_mappings(units);
    call.done = [&guest, list](std::uint64_t i) {
        if (!is_no_mapping(i)) {
            return !guest.domain.physmap().is_mapped(kFarGfn + i / kUnmapsBetweenLooks);
        }
        return guest.get<std::uint16_t>(list + i * kBytes + kStatusAt) != kUntouched;
    };
    return call;
}

// Neighbours from the first on, which carries the first entry to the end: each swap needs the one
// before it.
Prepared grant_swap(TestDomain& guest, const Era&, std::uint64_t units) {
    constexpr unsigned kBytes = 12, kStatusAt = 8;
    const vmm::Gva list = guest.reserve(units * kBytes);
    std::uint32_t at = 8;
    std::vector<std::uint32_t> refs;
    for (std::uint64_t i = 0; i < units; ++i) {
        refs.push_back(at);
        guest.poke(in_list(list, i, kBytes),
                   gnttab_swap_grant_ref{.ref_a = at,
                                         .ref_b = i == kBadElement ? 0xfff'ffff : at + 1,
                                         .status = kUntouched,
                                         .pad = 0x1234});
        if (i != kBadElement) ++at;
    }
    for (std::uint32_t ref = 8; ref <= at; ++ref) {
        grant_to_self(guest, ref, kFirstGfn + ref);
    }
    auto call =
        grant_batch(GNTTABOP_swap_grant_ref, list, units, kBytes, kStatusAt, GNTST_bad_gntref);
    call.done = [&guest, list, refs](std::uint64_t i) {
        const auto status = guest.get<std::uint16_t>(list + i * kBytes + kStatusAt);
        return status != kUntouched &&
               (i == kBadElement || entry(guest, refs[i]).frame == kFirstGfn + refs[i] + 1);
    };
    return call;
}

// ---- what a device model asks for ---------------------------------------------------------------

// A step of hvm_op's cursor, and of dm_op.
constexpr std::uint64_t kPagesBetweenLooks = 256;
// RAM that arguments do not lie in, and what is behind its end: holes, which take as long, but for
// a page at each place where the operation may stop.
constexpr std::uint64_t kTypedGfn = 0x400, kTypedPages = fakes::FakePorts::kRamPages - kTypedGfn;

void with_device_model(TestDomain::Options& options) {
    options.device_model = true;
}

// The operation's units are pages from kTypedGfn on, in the order that `unit` says: those that are
// there, and in `call.gfns` some of them.
using Place = std::uint64_t (*)(std::uint64_t unit, std::uint64_t pages);
constexpr Place kUpwards = [](std::uint64_t unit, std::uint64_t) { return kTypedGfn + unit; };

// How many pages of the first n units are there.
class Present {
  public:
    Present(TestDomain& guest, Prepared& call, Place place) {
        guest.ports.pool_pages = 256;
        for (std::uint64_t unit = 0; unit < call.units; unit += kPagesBetweenLooks) {
            const std::uint64_t gfn = place(unit, call.units);
            if (gfn < fakes::FakePorts::kRamPages) continue;
            EXPECT_TRUE(guest.domain.physmap().populate(gfn));
            call.gfns.push_back(gfn);
            there_.push_back(unit);
        }
        // RAM is a run of units without an end or a beginning in it.
        while (ram_first_ < call.units &&
               place(ram_first_, call.units) >= fakes::FakePorts::kRamPages) {
            ++ram_first_;
        }
        ram_ = std::min(call.units, kTypedPages);
        const std::uint64_t step = std::max<std::uint64_t>(call.units / 100, 1);
        for (std::uint64_t unit = 0; unit < call.units; unit += step) {
            const std::uint64_t gfn = place(unit, call.units);
            if (gfn < fakes::FakePorts::kRamPages) call.gfns.push_back(gfn);
        }
    }
    std::uint64_t before(std::uint64_t unit) const {
        const std::uint64_t ram = unit <= ram_first_ ? 0 : std::min(unit - ram_first_, ram_);
        const auto more = std::ranges::lower_bound(there_, unit) - there_.begin();
        return ram + static_cast<std::uint64_t>(more);
    }

  private:
    std::uint64_t ram_first_ = 0, ram_ = 0;
    std::vector<std::uint64_t> there_;  // units in the holes
};

// Each page has been given its type, or counts as modified. Of units whose page is not there the
// nearest one before is asked.
void watch_types(Prepared& call, TestDomain& guest) {
    const Present present(guest, call, kUpwards);
    call.done = [&guest](std::uint64_t i) {
        std::uint64_t gfn = kTypedGfn + i;
        if (gfn >= fakes::FakePorts::kRamPages) gfn -= i % kPagesBetweenLooks;
        return guest.domain.physmap().mem_type(gfn) == MemType::kMmioDm;
    };
}
void watch_count(Prepared& call, TestDomain& guest, Place place) {
    call.done = [&guest, present = Present(guest, call, place)](std::uint64_t i) {
        return guest.domain.physmap().modified_pages() >= present.before(i + 1);
    };
}

std::uint64_t typed_pages(std::uint64_t units, std::uint64_t step) {
    return units * step;
}

// hvm_op, its progress in the structure until 4.4, in the register from 4.5 to 4.8.
Prepared hvm_memory(TestDomain& guest, std::uint32_t op, std::uint64_t first, std::uint64_t pages,
                    bool in_struct) {
    const auto type = op == HVMOP_set_mem_type ? MemType::kMmioDm : MemType::kRamRw;
    const vmm::Gva at =
        in_struct ? guest.put(xen_hvm_memory_range_4_4{.domid = TestDomain::kDomid,
                                                       .pad = 0x1234,
                                                       .hvmmem_type = static_cast<unsigned>(type),
                                                       .first_pfn = first,
                                                       .nr = pages})
                  : guest.put(xen_hvm_memory_range{.domid = TestDomain::kDomid,
                                                   .hvmmem_type = static_cast<std::uint16_t>(type),
                                                   .nr = static_cast<std::uint32_t>(pages),
                                                   .first_pfn = first});
    Prepared call{.number = HYPERVISOR_hvm_op, .args = args(op, at.value), .units = pages};
    call.granularity = in_struct ? 1 : kPagesBetweenLooks;
    call.frozen = [=, first_args = call.args](std::uint64_t k) {
        Frozen frozen{.args = first_args};
        if (in_struct) {
            frozen.memory = {{at.value + 8, 8, first + k}, {at.value + 16, 8, pages - k}};
        } else {
            frozen.args[0] = k | op;
        }
        return frozen;
    };
    if (in_struct) call.progress_left = {{at.value + 8, 8, 0}, {at.value + 16, 8, 0}};
    return call;
}
std::uint64_t hvm_step(const Era& era) {
    return era.hvm_memory() == Era::HvmMemory::kStruct ? 1 : kPagesBetweenLooks;
}
Prepared hvm_set_type(TestDomain& guest, const Era& era, std::uint64_t units) {
    auto call = hvm_memory(guest, HVMOP_set_mem_type, kTypedGfn, typed_pages(units, hvm_step(era)),
                           hvm_step(era) == 1);
    watch_types(call, guest);
    return call;
}
Prepared hvm_modified(TestDomain& guest, const Era& era, std::uint64_t units) {
    auto call = hvm_memory(guest, HVMOP_modified_memory, kTypedGfn,
                           typed_pages(units, hvm_step(era)), hvm_step(era) == 1);
    watch_count(call, guest, kUpwards);
    return call;
}

struct DmBuffers {
    vmm::Gva list, operation;
};
template <class T>
DmBuffers put_dm_op(TestDomain& guest, std::uint32_t op, const T& operation, vmm::Gva extents,
                    std::uint64_t extent_bytes) {
    const vmm::Gva at = guest.reserve(sizeof(xen_dm_op_header) + sizeof operation);
    guest.poke(at, xen_dm_op_header{.op = op, .pad = 0});
    guest.poke(at + sizeof(xen_dm_op_header), operation);
    const unsigned stride = 2 * guest.word_bytes();
    const vmm::Gva list = guest.reserve(2 * stride);
    guest.poke_wide<xen_dm_op_buf>(
        list, {.h = at.value, .size = sizeof(xen_dm_op_header) + sizeof operation});
    guest.poke_wide<xen_dm_op_buf>(list + stride, {.h = extents.value, .size = extent_bytes});
    return {list, at};
}
std::array<std::uint64_t, 5> dm_args(std::uint64_t buffers, vmm::Gva list) {
    return {TestDomain::kDomid, buffers, list.value, kNoise3, kNoise4};
}

// The registers stay as they are, and the structure goes on.
Prepared dm_set_type(TestDomain& guest, const Era&, std::uint64_t units) {
    const std::uint64_t pages = typed_pages(units, kPagesBetweenLooks);
    const auto [list, at] =
        put_dm_op(guest, XEN_DMOP_set_mem_type,
                  xen_dm_op_set_mem_type{.nr = static_cast<std::uint32_t>(pages),
                                         .mem_type = static_cast<std::uint16_t>(MemType::kMmioDm),
                                         .pad = 0,
                                         .first_pfn = kTypedGfn},
                  TestDomain::null(), 0);
    Prepared call{.number = HYPERVISOR_dm_op,
                  .args = dm_args(1, list),
                  .units = pages,
                  .granularity = kPagesBetweenLooks};
    call.frozen = [first = call.args, base = at.value, pages](std::uint64_t k) {
        return Frozen{.args = first,
                      .memory = {{base + 8, 4, pages - k}, {base + 16, 8, kTypedGfn + k}}};
    };
    call.progress_left = {{at.value + 8, 4, 0}, {at.value + 16, 8, 0}};
    watch_types(call, guest);
    return call;
}

// Extents of 124 pages, from the last to the first, none of them half in RAM: a stop lies inside of
// one, but for those that do not.
constexpr std::uint64_t kExtent = 124;
constexpr Place kByExtents = [](std::uint64_t unit, std::uint64_t pages) {
    return kTypedGfn + pages - kExtent - unit / kExtent * kExtent + unit % kExtent;
};

Prepared dm_modified(TestDomain& guest, const Era&, std::uint64_t units) {
    const std::uint64_t count = typed_pages(units, kPagesBetweenLooks) / kExtent;
    const vmm::Gva extents = guest.reserve(count * sizeof(xen_dm_op_modified_memory_extent));
    for (std::uint64_t i = 0; i < count; ++i) {
        guest.poke(in_list(extents, i, sizeof(xen_dm_op_modified_memory_extent)),
                   xen_dm_op_modified_memory_extent{
                       .nr = kExtent, .pad = 0, .first_pfn = kTypedGfn + i * kExtent});
    }
    const auto [list, at] = put_dm_op(
        guest, XEN_DMOP_modified_memory,
        xen_dm_op_modified_memory{.nr_extents = static_cast<std::uint32_t>(count), .opaque = 0},
        extents, count * sizeof(xen_dm_op_modified_memory_extent));
    Prepared call{.number = HYPERVISOR_dm_op,
                  .args = dm_args(2, list),
                  .units = count * kExtent,
                  .granularity = kPagesBetweenLooks};
    call.frozen = [first = call.args, base = at.value, count](std::uint64_t k) {
        return Frozen{.args = first,
                      .memory = {{base + 8, 4, count - k / kExtent}, {base + 12, 4, k % kExtent}}};
    };
    call.progress_left = {{at.value + 8, 4, 0}, {at.value + 12, 4, 0}};
    watch_count(call, guest, kByExtents);
    return call;
}

constexpr auto always = [](const Era&) { return true; };
constexpr auto continues_hvm_memory = [](const Era& e) {
    return e.hvm_memory() == Era::HvmMemory::kStruct ||
           e.hvm_memory() == Era::HvmMemory::kUnshifted;
};

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
    {"event channels' reset, 2-level", [](const Era& e) { return e.reset_continues(); },
     event_reset_2_level, [](TestDomain::Options& o) { o.max_event_port = 4095; },
     "two levels of bits have 1024 ports of a 32-bit guest and 4096 of a 64-bit one, and it stops "
     "every 64"},
    {"event channels' reset, FIFO", [](const Era& e) { return e.reset_continues(); },
     event_reset_fifo, with_many_ports},
    {"grant copy", [](const Era& e) { return e.grants_continue(); }, grant_copy},
    {"grant map", [](const Era& e) { return e.has_grant_maps(); }, grant_map},
    {"grant unmap", [](const Era& e) { return e.has_grant_maps(); }, grant_unmap},
    {"grant swap", [](const Era& e) { return e.has_grant_swap(); }, grant_swap},
    {"hvm_op set_mem_type", continues_hvm_memory, hvm_set_type, with_device_model},
    {"hvm_op modified_memory", continues_hvm_memory, hvm_modified, with_device_model},
    {"dm_op set_mem_type", [](const Era& e) { return e.has_dm_op(); }, dm_set_type,
     with_device_model},
    {"dm_op modified_memory", [](const Era& e) { return e.has_dm_op(); }, dm_modified,
     with_device_model},
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
