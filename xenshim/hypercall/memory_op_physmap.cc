// add_to_physmap, add_to_physmap_batch and remove_from_physmap.
#include "xenshim/abi/release_rules.h"
#include "xenshim/hypercall/legacy_quirks.h"
#include "xenshim/hypercall/memory_op_parts.h"

namespace xenshim::memory_ops {

using namespace abi;

namespace {

constexpr std::size_t kPairsAhead = 509;

// A 32-bit caller's all-ones is zero-extended, and with that a gfn like any other (measured).
bool is_invalid_gfn(std::uint64_t gfn) {
    return gfn == UINT64_MAX;
}

GuestResult<void> add_one(Call& call, MapSpace space, std::uint64_t idx, std::uint64_t gfn) {
    Domain& domain = call.domain();
    switch (space) {
        case MapSpace::kSharedInfo:
            if (idx != 0) return refuse(XEN_EINVAL);
            return domain.physmap().place_own(kSharedInfoPage, gfn);
        case MapSpace::kGrantTable:
            if (idx > UINT32_MAX) return refuse(XEN_EINVAL);
            return domain.grants().place_frame(static_cast<std::uint32_t>(idx), gfn);
        case MapSpace::kGmfn:
        case MapSpace::kGmfnRange: return domain.physmap().move(idx, gfn);
        case MapSpace::kForeign: return refuse(XEN_EPERM);  // for the control domain alone
        case MapSpace::kDevMmio: return refuse(XEN_EACCES);
        case MapSpace::kUnknown: break;
    }
    return refuse(XEN_EINVAL);
}

// Page by page upwards, also where source and target overlap.
Outcome add_range(Call& call, const xen_add_to_physmap<W64>& want, std::uint64_t start) {
    // Where the progress stands in the structure, a cursor is a stray one and ignored.
    const bool counts_in_register = call.profile().physmap_range == Progress::kRegister;
    if (!counts_in_register) start = 0;
    if (want.size < start) return Call::fail(XEN_EILSEQ);
    // A 32-bit caller's numbers are zero-extended, and cannot wrap.
    if (want.gpfn > UINT64_MAX - want.size || want.idx > UINT64_MAX - want.size) {
        return Call::fail(XEN_EOVERFLOW);
    }
    for (std::uint64_t i = start; i < want.size; ++i) {
        if (i != start && call.should_yield(i)) return Continue{i};
        const auto moved = add_one(call, MapSpace::kGmfnRange, want.idx + i, want.gpfn + i);
        if (!moved) return Call::fail(moved.error());
    }
    return Call::ok();
}

// The cursor of what has one since 4.4 must fit the structures' 16-bit size. A 32-bit caller's
// structure and lists are translated before anybody looks (compat_memory_op).
bool is_wild(Call& call, std::uint64_t start) {
    return call.profile().physmap_range == Progress::kRegister && start > UINT16_MAX;
}
bool is_wild_at_once(Call& call, std::uint64_t start) {
    return call.is_64bit() && is_wild(call, start);
}

}  // namespace

Outcome add_to_physmap(Call& call, std::uint64_t start) {
    if (is_wild_at_once(call, start)) return Call::fail(XEN_EDOM);
    const auto want = call.read_wide<xen_add_to_physmap>(call.handle(1));
    if (!want) return Call::fail(want.error());
    if (is_wild(call, start)) return Call::fail(XEN_EDOM);
    const auto number = map_space(call.domain(), want->domid, want->space);
    if (!number) return Call::fail(number.error());
    const MapSpace space = map_space_of(call.profile(), *number);
    // Mapping another domain's page is the batch's business alone.
    if (space == MapSpace::kForeign) return Call::fail(XEN_ENOSYS);
    if (const auto self = call.require_self(want->domid, XEN_EACCES); !self) {
        return Call::fail(self.error());
    }
    if (is_invalid_gfn(want->gpfn)) return Call::fail(XEN_EINVAL);
    if (space == MapSpace::kGmfnRange) return add_range(call, *want, start);
    return Call::result(add_one(call, space, want->idx, want->gpfn));
}

Outcome add_to_physmap_batch(Call& call, std::uint64_t start) {
    if (is_wild_at_once(call, start)) return Call::fail(XEN_EDOM);
    const auto want = call.read_wide<xen_add_to_physmap_batch>(call.handle(1));
    if (!want) return Call::fail(want.error());
    WordList<kPairsAhead> idxs(call, {want->idxs}, want->size);
    WordList<kPairsAhead> gpfns(call, {want->gpfns}, want->size);
    if (start < want->size && !(idxs.all_there(start) && gpfns.all_there(start))) {
        return Call::fail(XEN_EFAULT);
    }
    if (is_wild(call, start)) return Call::fail(XEN_EDOM);
    const MapSpace space = map_space_of(call.profile(), want->space);
    if (space == MapSpace::kGmfnRange) return Call::fail(XEN_EOPNOTSUPP);
    if (const auto self = call.require_self(want->domid, XEN_EACCES); !self) {
        return Call::fail(self.error());
    }
    if (space == MapSpace::kDevMmio) return Call::fail(XEN_EACCES);
    if (want->size < start) return Call::fail(XEN_EILSEQ);
    if (want->size == start) {
        return start == 0 ? Call::ok() : Call::result(may_end_at_cursor(call.profile()));
    }
    for (std::uint64_t i = start; i < want->size; ++i) {
        if (i != start && call.should_yield(i)) return Continue{i};
        if (!idxs.all_there(i) || !gpfns.all_there(i)) return Call::fail(XEN_EFAULT);
        const auto idx = idxs.at(i);
        if (!idx) return Call::fail(idx.error());
        const auto gfn = gpfns.at(i);
        if (!gfn) return Call::fail(gfn.error());
        if (is_invalid_gfn(*gfn)) return Call::fail(XEN_EINVAL);
        const auto added = add_one(call, space, *idx, *gfn);
        const std::int32_t code = added ? 0 : -std::int32_t{added.error()};
        const auto told = call.write(call.element({want->errs}, i, sizeof code), code);
        if (!told) return Call::fail(told.error());
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

}  // namespace xenshim::memory_ops
