// HYPERVISOR_memory_op (Xen's common/memory.c and arch/x86/mm.c).
#include <algorithm>

#include "xenshim/hypercall/handlers.h"

namespace xenshim {

using namespace abi;

namespace {

// The largest extent that an unprivileged guest may name: 2^9 pages, 2 MiB (memop-max-order=).
constexpr std::uint32_t kMaxOrder = 9;

constexpr std::uint32_t kAddressBitsMask = 0xff;  // of mem_flags

bool apply_to_extent(Physmap& physmap, std::uint64_t op, std::uint64_t gfn, std::uint32_t order) {
    const std::uint64_t pages = std::uint64_t{1} << order;
    if (gfn + pages < gfn) return false;
    for (std::uint64_t i = 0; i < pages; ++i) {
        const bool ok = op == XENMEM_decrease_reservation ? physmap.decrease(gfn + i)
                        : op == XENMEM_populate_physmap   ? physmap.populate(gfn + i)
                                                          : physmap.increase();
        if (!ok) return false;  // as on Xen, some pages of this extent may be done
    }
    return true;
}

// increase_reservation, decrease_reservation and populate_physmap answer how many extents are
// done, never an error.
Outcome reservation(Call& call, Command at) {
    const auto stop_at = [](std::uint64_t n) { return Call::ok(static_cast<std::int64_t>(n)); };
    const auto want = call.read_wide<xen_memory_reservation>(call.handle(1));
    // On a resumed call the cursor comes from guest registers: judged like any other argument.
    if (!want || !call.domain().is_self(want->domid) ||
        want->nr_extents > call.profile().memory_op_max_extents || at.start >= want->nr_extents ||
        want->extent_order > kMaxOrder) {
        return stop_at(at.start);
    }
    if (at.op == XENMEM_populate_physmap && (want->mem_flags & XENMEMF_populate_on_demand) != 0) {
        return stop_at(at.start);
    }
    // Pages below a given machine address: nobody knows machine addresses here, and a limit below
    // 4 GiB is one that no host of today could honour anyway.
    const std::uint32_t address_bits = want->mem_flags & kAddressBitsMask;
    if (at.op == XENMEM_populate_physmap && address_bits != 0 && address_bits < 32) {
        return stop_at(at.start);
    }
    const vmm::Gva list{want->extent_start};
    for (std::uint64_t i = at.start; i < want->nr_extents; ++i) {
        if (i != at.start && call.should_yield(i)) return Continue{i};
        std::uint64_t gfn = 0;
        if (at.op != XENMEM_increase_reservation) {  // whose pages land nowhere in the map
            const auto named = call.read_word(list, i);
            if (!named) return stop_at(i);
            gfn = *named;
        }
        if (!apply_to_extent(call.domain().physmap(), at.op, gfn, want->extent_order)) {
            return stop_at(i);
        }
    }
    return stop_at(want->nr_extents);
}

GuestResult<void> add_one(Call& call, std::uint32_t space, std::uint64_t idx, std::uint64_t gfn) {
    Domain& domain = call.domain();
    switch (space) {
        case XENMAPSPACE_shared_info:
            if (idx != 0) return refuse(XEN_EINVAL);
            return domain.physmap().place_own(kSharedInfoPage, gfn);
        case XENMAPSPACE_grant_table: {
            if (idx > UINT32_MAX || (idx & XENMAPIDX_grant_table_status) != 0) {
                return refuse(XEN_EINVAL);
            }
            const std::uint32_t page =
                TRY(domain.grants().page_of(static_cast<std::uint32_t>(idx)));
            return domain.physmap().place_own(page, gfn);
        }
        case XENMAPSPACE_gmfn:
        case XENMAPSPACE_gmfn_range: return domain.physmap().move(idx, gfn);
        case XENMAPSPACE_dev_mmio: return refuse(XEN_EACCES);
        default: return refuse(XEN_EINVAL);
    }
}

Outcome add_to_physmap(Call& call, std::uint64_t start) {
    const auto want = call.read_wide<xen_add_to_physmap>(call.handle(1));
    if (start > UINT16_MAX) return Call::fail(XEN_EDOM);
    if (!want) return Call::fail(want.error());
    // Mapping another domain's page is the batch's business alone.
    if (want->space == XENMAPSPACE_gmfn_foreign) return Call::fail(XEN_ENOSYS);
    if (const auto self = call.require_self(want->domid, XEN_EACCES); !self) {
        return Call::fail(self.error());
    }
    if (want->space != XENMAPSPACE_gmfn_range) {
        if (want->gpfn == UINT64_MAX) return Call::fail(XEN_EINVAL);
        return Call::result(add_one(call, want->space, want->idx, want->gpfn));
    }
    if (want->size < start) return Call::fail(XEN_EILSEQ);
    const std::uint64_t words = call.is_64bit() ? UINT64_MAX : UINT32_MAX;
    if (want->gpfn > words - want->size || want->idx > words - want->size) {
        return Call::fail(call.is_64bit() ? XEN_EOVERFLOW : XEN_EINVAL);
    }
    for (std::uint64_t i = start; i < want->size; ++i) {
        if (i != start && call.should_yield(i)) return Continue{i};
        const auto moved = add_one(call, want->space, want->idx + i, want->gpfn + i);
        if (!moved) return Call::fail(moved.error());
    }
    return Call::ok();
}

Outcome remove_from_physmap(Call& call) {
    const auto want = call.read_wide<xen_remove_from_physmap>(call.handle(1));
    if (!want) return Call::fail(want.error());
    if (const auto self = call.require_self(want->domid, XEN_EACCES); !self) {
        return Call::fail(self.error());
    }
    return Call::result(call.domain().physmap().remove(want->gpfn));
}

// As many entries as fit are written, and the number says how many.
Outcome memory_map(Call& call) {
    const vmm::Gva at = call.handle(1);
    auto want = call.read_wide<xen_memory_map>(at);
    if (!want) return Call::fail(want.error());
    const auto& map = call.domain().config().memory_map;
    const auto count = std::min<std::size_t>(want->nr_entries, map.size());
    for (std::size_t i = 0; i < count; ++i) {
        const e820entry entry{.addr = map[i].base, .size = map[i].size, .type = map[i].type};
        const auto written = call.write(call.element({want->buffer}, i, sizeof entry), entry);
        if (!written) return Call::fail(written.error());
    }
    want->nr_entries = static_cast<std::uint32_t>(count);
    return Call::result(call.write_wide<xen_memory_map>(at, *want));
}

Outcome account(Call& call, std::uint64_t op) {
    const auto domid = call.read<std::uint16_t>(call.handle(1));
    if (!domid) return Call::fail(domid.error());
    if (const auto self = call.require_self(*domid, XEN_EPERM); !self) {
        return Call::fail(self.error());
    }
    const auto accounts = call.domain().physmap().accounts();
    switch (op) {
        case XENMEM_current_reservation:
            return Call::ok(static_cast<std::int64_t>(accounts.current));
        case XENMEM_maximum_reservation:
            return Call::ok(static_cast<std::int64_t>(accounts.maximum));
        default: return Call::ok(static_cast<std::int64_t>(accounts.highest_gfn));
    }
}

Outcome run(Call& call) {
    const Command at = decode_memory_op(call.profile(), call.request().width, call.arg(0));
    switch (at.op) {
        case XENMEM_increase_reservation:
        case XENMEM_decrease_reservation:
        case XENMEM_populate_physmap: return reservation(call, at);
        case XENMEM_add_to_physmap: return add_to_physmap(call, at.start);

        // Common code, which calls a cursor where none belongs by the profile's own name.
        case XENMEM_maximum_ram_page:
        case XENMEM_current_reservation:
        case XENMEM_maximum_reservation:
        case XENMEM_maximum_gpfn:
        case XENMEM_remove_from_physmap:
            if (const auto stray = call.profile().memory_op_stray_bits; stray && at.start != 0) {
                return Call::fail(*stray);
            }
            if (at.op == XENMEM_maximum_ram_page) {
                const auto accounts = call.domain().physmap().accounts();
                return Call::ok(static_cast<std::int64_t>(accounts.highest_gfn + 1));
            }
            if (at.op == XENMEM_remove_from_physmap) return remove_from_physmap(call);
            return account(call, at.op);

        // Architecture code, which compares the whole register.
        case XENMEM_memory_map: return at.start == 0 ? memory_map(call) : Call::fail(XEN_ENOSYS);
        case XENMEM_get_sharing_freed_pages:
        case XENMEM_get_sharing_shared_pages:
            return at.start == 0 ? Call::ok() : Call::fail(XEN_ENOSYS);

        default: return Call::fail(XEN_ENOSYS);
    }
}

}  // namespace

Outcome memory_op(Call& call) {
    // shared_info can be moved, given back, populated over and displaced: whichever it was, the
    // clock and KVM must not go on writing to where it used to be.
    const Physmap& physmap = call.domain().physmap();
    const std::uint64_t before = physmap.gfn_of_own(kSharedInfoPage);
    const Outcome outcome = run(call);
    const std::uint64_t after = physmap.gfn_of_own(kSharedInfoPage);
    if (after != before) call.domain().ports().shared_info_moved(after);
    return outcome;
}

}  // namespace xenshim
