#include "xenshim/hypercall/grant_batches.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>

#include "xenshim/abi/continuation.h"

namespace xenshim {

using namespace abi;

namespace {

// The rest of an element is not Xen's to write.
template <class Op>
GuestResult<void> write_status(Call& call, vmm::Gva at, GrantStatus status) {
    return call.write(at + offsetof(Op, status), status);
}

// ---- copy ---------------------------------------------------------------------------------------

struct Side {
    std::uint64_t u;
    std::uint16_t domid;
    bool is_grant;
    std::uint32_t ref() const { return static_cast<std::uint32_t>(u); }
};

GrantStatus may_name(Call& call, const Side& side) {
    // Only the caller's own frames have a number that it may use here.
    if (!side.is_grant && side.domid != DOMID_SELF) return GNTST_permission_denied;
    if (!call.domain().is_self(side.domid) && side.domid != kBackendDomain) return GNTST_bad_domain;
    return GNTST_okay;
}

using Held = GrantTable::Held;

GrantStatus claim(Call& call, const Side& side, bool readonly, bool wait, Held* held) {
    if (side.is_grant) {
        GrantTable& grants = call.domain().grants();
        if (side.domid == kBackendDomain) return grants.hold_offer(side.ref(), readonly, held);
        return grants.hold_for_copy(grants.domid(), side.ref(), readonly, wait, held);
    }
    held->page = call.domain().memory().page(side.u);
    held->length = vmm::kPageSize;
    return held->page != nullptr ? GNTST_okay : GNTST_bad_page;
}

void let_go(Call& call, const Side& side, const Held& held) {
    if (side.is_grant) call.domain().grants().release(held);
}

GrantStatus copy_between(const gnttab_copy<W64>& op, const Held& from, const Held& to) {
    if (op.source_offset + op.len > vmm::kPageSize || op.dest_offset + op.len > vmm::kPageSize) {
        return GNTST_bad_copy_arg;
    }
    const auto inside = [&](const Held& part, unsigned offset) {
        return offset >= part.start && offset + op.len <= unsigned{part.start} + part.length;
    };
    if (!inside(from, op.source_offset) || !inside(to, op.dest_offset)) {
        return GNTST_general_error;
    }
    // A page may be copied onto itself.
    std::memmove(to.page + op.dest_offset, from.page + op.source_offset, op.len);
    return GNTST_okay;
}

// Some elements of a list, done together: first all are claimed, then copied, then let go. The
// atomic operations of the claims would else wait each time until the copy before them has left
// the CPU's store buffer, which is most of what a short copy takes.
//
// No guest can tell: copies happen in the list's order, an element whose copy may change what the
// next ones are taken from (the list itself, the grant table) ends its group, and so does one that
// somebody else is busy with.
template <class W>
class CopyGroup {
  public:
    CopyGroup(Call& call, vmm::Gva list)
        : call_(call), grants_(call.domain().grants()), list_(list) {}

    static constexpr std::uint32_t kMost = 16;

    // An element with these members will come.
    void expect(std::uint16_t flags, std::uint64_t source, std::uint64_t dest) {
        if ((flags & GNTCOPY_source_gref) != 0) {
            grants_.prefetch(static_cast<std::uint32_t>(source));
        }
        if ((flags & GNTCOPY_dest_gref) != 0) grants_.prefetch(static_cast<std::uint32_t>(dest));
    }

    // Claims element `i`, which is copied by the next flush() at the latest. An error: elements
    // before it may be done, this one is not. False: it has been copied, and the next ones are to
    // be read again.
    GuestResult<bool> add(std::uint32_t i, const gnttab_copy<W64>& op) {
        if (count_ == 0) {
            first_ = i;
            const auto gpa = call_.access().translate(at(i));
            list_page_ = gpa ? call_.domain().memory().page(gpa->gfn()) : nullptr;
        }
        bool busy = false;
        GrantStatus status = claim_both(op, count_ == 0, &slots_[count_], &busy);
        if (busy) {
            TRY(flush());
            first_ = i;
            status = claim_both(op, true, &slots_[count_], &busy);
        }
        Slot& slot = slots_[count_++];
        slot.status = status;
        slot.op = op;
        if (status != GNTST_okay || !may_change_others(slot.to.page)) return true;
        TRY(flush());
        return false;
    }

    GuestResult<void> flush() {
        GuestResult<void> told;
        for (std::uint32_t n = 0; n < count_ && told; ++n) {
            Slot& slot = slots_[n];
            GrantStatus status = slot.status;
            if (status == GNTST_okay) status = copy_between(slot.op, slot.from, slot.to);
            told = write_status<gnttab_copy<W>>(call_, at(first_ + n), status);
        }
        for (std::uint32_t n = 0; n < count_; ++n) {
            if (slots_[n].status == GNTST_okay) let_go_both(slots_[n]);
        }
        count_ = 0;
        return told;
    }

    vmm::Gva at(std::uint32_t i) const { return call_.element(list_, i, sizeof(gnttab_copy<W>)); }

  private:
    struct Slot {
        GrantStatus status = GNTST_okay;
        gnttab_copy<W64> op{};
        Held from, to;
    };

    static Side source_of(const gnttab_copy<W64>& op) {
        return {op.source_u, op.source_domid, (op.flags & GNTCOPY_source_gref) != 0};
    }
    static Side dest_of(const gnttab_copy<W64>& op) {
        return {op.dest_u, op.dest_domid, (op.flags & GNTCOPY_dest_gref) != 0};
    }

    // With `alone` nothing else is held, and others may be waited for.
    GrantStatus claim_both(const gnttab_copy<W64>& op, bool alone, Slot* slot, bool* busy) {
        const Side source = source_of(op), dest = dest_of(op);
        *busy = false;
        for (const Side* side : {&source, &dest}) {
            const GrantStatus status = may_name(call_, *side);
            if (status != GNTST_okay) return status;
        }
        slot->from = {};
        slot->to = {};
        GrantStatus status = claim(call_, source, true, alone, &slot->from);
        if (status == GNTST_eagain) *busy = true;
        if (status != GNTST_okay) return status;
        status = claim(call_, dest, false, alone && !slot->from.exclusive, &slot->to);
        if (status == GNTST_eagain && alone) {
            // Somebody else is at it, who may be waiting for our source.
            grants_.share(&slot->from);
            status = claim(call_, dest, false, true, &slot->to);
        } else if (status == GNTST_eagain) {
            *busy = true;
        }
        if (status != GNTST_okay) let_go(call_, source, slot->from);
        return status;
    }

    void let_go_both(const Slot& slot) {
        let_go(call_, dest_of(slot.op), slot.to);
        let_go(call_, source_of(slot.op), slot.from);
    }

    // Our own pages (shared_info, the table), and the list: from here on, and what was read of it.
    bool may_change_others(const std::byte* page) {
        Ports& ports = call_.domain().ports();
        const std::byte* own = ports.own_page(0);
        if (page >= own && page < own + std::size_t{kOwnPages} * vmm::kPageSize) return true;
        return list_page_ == nullptr || page == list_page_;
    }

    Call& call_;
    GrantTable& grants_;
    const vmm::Gva list_;
    const std::byte* list_page_ = nullptr;  // where the elements of the group lie
    std::uint32_t first_ = 0;
    std::uint32_t count_ = 0;
    std::array<Slot, kMost> slots_;
};

gnttab_copy<W64> wide(const gnttab_copy<W64>& op) {
    return op;
}
gnttab_copy<W64> wide(const gnttab_copy<W32>& op) {
    return widen<gnttab_copy>(op);
}

template <class W>
Outcome copy_all(Call& call, vmm::Gva list, std::uint32_t count) {
    constexpr std::uint32_t kSize = sizeof(gnttab_copy<W>);
    CopyGroup<W> group(call, list);
    std::array<gnttab_copy<W>, CopyGroup<W>::kMost> ops;
    for (std::uint32_t i = 0; i < count;) {
        if (i != 0 && call.should_yield(i)) return Continue{i};
        // As many at once as a group and a page hold.
        const vmm::Gva at = group.at(i);
        const auto room = static_cast<std::uint32_t>((vmm::kPageSize - at.offset()) / kSize);
        const std::uint32_t n =
            std::clamp<std::uint32_t>(std::min(room, count - i), 1, CopyGroup<W>::kMost);
        const auto bytes = std::as_writable_bytes(std::span(ops)).first(std::size_t{n} * kSize);
        if (!call.access().read(at, bytes)) return Call::fail(XEN_EFAULT);
        for (std::uint32_t k = 0; k < n; ++k) {
            group.expect(ops[k].flags, ops[k].source_u, ops[k].dest_u);
        }
        std::uint32_t done = 0;
        for (bool goes_on = true; goes_on && done < n; ++done) {
            if (done != 0 && call.should_yield(i + done)) {
                const auto told = group.flush();
                return told ? Outcome{Continue{i + done}} : Call::fail(told.error());
            }
            const auto added = group.add(i + done, wide(ops[done]));
            if (!added) return Call::fail(added.error());
            goes_on = *added;
        }
        if (const auto told = group.flush(); !told) return Call::fail(told.error());
        i += done;
    }
    return Call::ok();
}

}  // namespace

Outcome grant_copy(Call& call, vmm::Gva list, std::uint32_t count) {
    return call.is_64bit() ? copy_all<W64>(call, list, count) : copy_all<W32>(call, list, count);
}

// ---- map, unmap, swap ---------------------------------------------------------------------------

Outcome grant_map(Call& call, vmm::Gva list, std::uint32_t count) {
    for (std::uint32_t i = 0; i < count; ++i) {
        if (i != 0 && call.should_yield(i)) return Continue{i};
        const vmm::Gva at = call.element(list, i, sizeof(gnttab_map_grant_ref));
        auto op = call.read<gnttab_map_grant_ref>(at);
        if (!op) return Call::fail(op.error());
        const auto mapped = call.domain().grant_maps().map(
            {.host_addr = op->host_addr, .flags = op->flags, .ref = op->ref, .domid = op->dom});
        op->status = mapped.status;
        if (mapped.status == GNTST_okay) {
            op->handle = mapped.handle;
            // A machine address on Xen, for devices; here the guest's own is as good as any.
            op->dev_bus_addr = vmm::gfn_to_gpa(vmm::Gpa{op->host_addr}.gfn()).value;
        }
        const auto told = call.write(at, *op);
        if (mapped.crash) {
            call.domain().shutdown(SHUTDOWN_crash);
            return Call::ok();
        }
        if (!told) return Call::fail(told.error());
    }
    return Call::ok();
}

// In steps, each with one flush of Xen's TLBs: it stops only between two of them.
Outcome grant_unmap(Call& call, vmm::Gva list, std::uint32_t count) {
    const std::uint32_t step = continuation_rule(call.profile(), call.request()).granularity;
    for (std::uint32_t i = 0; i < count; ++i) {
        if (i != 0 && i % step == 0 && call.should_yield(i)) return Continue{i};
        const vmm::Gva at = call.element(list, i, sizeof(gnttab_unmap_grant_ref));
        const auto op = call.read<gnttab_unmap_grant_ref>(at);
        if (!op) return Call::fail(op.error());
        const auto told = write_status<gnttab_unmap_grant_ref>(
            call, at, call.domain().grant_maps().unmap(op->handle, op->host_addr));
        if (!told) return Call::fail(told.error());
    }
    return Call::ok();
}

Outcome grant_swap(Call& call, vmm::Gva list, std::uint32_t count) {
    for (std::uint32_t i = 0; i < count; ++i) {
        if (i != 0 && call.should_yield(i)) return Continue{i};
        const vmm::Gva at = call.element(list, i, sizeof(gnttab_swap_grant_ref));
        const auto op = call.read<gnttab_swap_grant_ref>(at);
        if (!op) return Call::fail(op.error());
        const auto told = write_status<gnttab_swap_grant_ref>(
            call, at, call.domain().grants().swap(op->ref_a, op->ref_b));
        if (!told) return Call::fail(told.error());
    }
    return Call::ok();
}

}  // namespace xenshim
