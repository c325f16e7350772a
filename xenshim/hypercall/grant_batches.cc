#include "xenshim/hypercall/grant_batches.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <vector>

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

constexpr CopySide kDenied{.status = GNTST_permission_denied, .writes = false, .part = {}};
constexpr CopySide kNoSuchDomain{.status = GNTST_bad_domain, .writes = false, .part = {}};

// memcpy of a size that it knows begins with a load of the page's last word, and ends up waiting
// for it: a sixth of a cold page's time (measured with GCC 12 on Zen 5). By bytes it is not slower
// than by words, and a tenth faster there.
void copy_page(void* to, const void* from) {
    std::size_t bytes = vmm::kPageSize;
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}

GrantStatus copy_between(const gnttab_copy<W64>& op, const GrantedPart& from,
                         const GrantedPart& to) {
    if (op.source_offset + op.len > vmm::kPageSize || op.dest_offset + op.len > vmm::kPageSize) {
        return GNTST_bad_copy_arg;
    }
    if (!from.holds(op.source_offset, op.len) || !to.holds(op.dest_offset, op.len)) {
        return GNTST_general_error;
    }
    if (op.len == vmm::kPageSize && from.page != to.page) {
        copy_page(to.page, from.page);
    } else {
        // A page may be copied onto itself.
        std::memmove(to.page + op.dest_offset, from.page + op.source_offset, op.len);
    }
    return GNTST_okay;
}

const gnttab_copy<W64>& wide(const gnttab_copy<W64>& op) {
    return op;
}
gnttab_copy<W64> wide(const gnttab_copy<W32>& op) {
    return widen<gnttab_copy>(op);
}

// A list of copies. Some elements at once announce and take the entries that they name
// (grant_copier.h), are copied one after the other, and get their statuses at the end. A locked
// operation after a copy would wait for all that it has stored, and whatever else stands between
// two copies keeps the second one's loads from beginning under the first.
//
// No guest can tell. Copies happen in the list's order; one that may change what the next are taken
// from (the list itself, our own pages) ends its group, and so does the one before a copy out of
// the list, which shows statuses. An element that has to wait for an entry is done by itself, and
// so is one from or to the table, where the others' use is marked.
template <class W>
class CopyList {
  public:
    CopyList(Call& call, vmm::Gva list, std::uint32_t count)
        : call_(call),
          grants_(call.domain().grants()),
          own_(call.domain().ports().own_page(0)),
          list_(list),
          count_(count) {
        if (count > 1) find_table();
    }
    CopyList(const CopyList&) = delete;
    CopyList& operator=(const CopyList&) = delete;
    ~CopyList() { leave(); }

    Outcome run() {
        while (next_ < count_) {
            if (next_ != 0 && call_.should_yield(next_)) return Continue{next_};
            first_ = next_;
            const vmm::Gva at = element(first_);
            const auto room = static_cast<std::uint32_t>((vmm::kPageSize - at.offset()) / kSize);
            const std::uint32_t n =
                std::clamp<std::uint32_t>(std::min(room, count_ - first_), 1, kAtOnce);
            const auto bytes =
                std::as_writable_bytes(std::span(ops_)).first(std::size_t{n} * kSize);
            if (!call_.access().read(at, bytes)) return Call::fail(XEN_EFAULT);
            const auto gpa = call_.access().translate(at);
            list_page_ = gpa ? call_.domain().memory().page(gpa->gfn()) : nullptr;
            read_at_ = n * kSize <= vmm::kPageSize - at.offset() && list_page_ != nullptr
                           ? list_page_ + at.offset()
                           : nullptr;
            outdated_ = false;
            while (next_ < first_ + n && !outdated_) {
                const std::uint32_t before = next_;
                auto ended = copy_until(announce_until(first_ + n));
                if (!ended && next_ == before) ended = copy_alone();
                if (ended) return *ended;
            }
        }
        return Call::ok();
    }

  private:
    static constexpr std::uint32_t kSize = sizeof(gnttab_copy<W>);
    static constexpr std::uint32_t kAtOnce = 48;

    // The sides of an element; what they are when no copier says it.
    struct Both {
        const CopySide* from;
        const CopySide* to;
        CopySide own_from, own_to;
    };

    vmm::Gva element(std::uint32_t i) const { return call_.element(list_, i, kSize); }
    decltype(auto) op(std::uint32_t i) const { return wide(ops_[i - first_]); }

    // How far from the next element on the sides are ready.
    std::uint32_t announce_until(std::uint32_t end) {
        if (copier_ == nullptr) copier_ = grants_.enter_copier();
        if (copier_ == nullptr) return next_;
        std::uint32_t i = next_;
        for (; i < end; ++i) {
            const auto& op = this->op(i);
            Both& both = sides_[i - first_];
            if (!may_name(op, &both)) continue;
            both.from = announce(op.flags & GNTCOPY_source_gref, op.source_domid, op.source_u, true,
                                 &both.own_from);
            if (both.from == nullptr) break;
            both.to = announce(op.flags & GNTCOPY_dest_gref, op.dest_domid, op.dest_u, false,
                               &both.own_to);
            if (both.to == nullptr) break;
        }
        if (copier_->settle()) return i;
        leave();
        return next_;
    }
    const CopySide* announce(bool is_grant, std::uint16_t domid, std::uint64_t u, bool readonly,
                             CopySide* own) {
        if (!is_grant) {
            find_own(u, own);
            return own;
        }
        if (domid == kBackendDomain) return nullptr;
        return copier_->announce(static_cast<std::uint32_t>(u), readonly);
    }
    void find_own(std::uint64_t gfn, CopySide* out) {
        out->part = {call_.domain().memory().page(gfn), 0, vmm::kPageSize};
        out->status = out->part.page != nullptr ? GNTST_okay : GNTST_bad_page;
    }

    bool may_name(const gnttab_copy<W64>& op, Both* both) {
        if (op.source_domid == DOMID_SELF && op.dest_domid == DOMID_SELF) return true;
        const CopySide* refused = refusal(op.flags & GNTCOPY_source_gref, op.source_domid);
        if (refused == nullptr) refused = refusal(op.flags & GNTCOPY_dest_gref, op.dest_domid);
        both->from = both->to = refused;
        return refused == nullptr;
    }
    const CopySide* refusal(bool is_grant, std::uint16_t domid) {
        // Only the caller's own frames have a number that it may use here.
        if (!is_grant && domid != DOMID_SELF) return &kDenied;
        const bool known = call_.domain().is_self(domid) || domid == kBackendDomain;
        return known ? nullptr : &kNoSuchDomain;
    }

    // Elements before `end`, whose sides are ready, up to one that is to be done apart. Something:
    // the call is over, or stops here.
    std::optional<Outcome> copy_until(std::uint32_t end) {
        std::uint32_t i = next_;
        bool stops = false;
        for (; i < end && !outdated_; ++i) {
            const CopySide& from = *sides_[i - first_].from;
            const CopySide& to = *sides_[i - first_].to;
            GrantStatus status = from.status;
            if (status == GNTST_okay) {
                status = to.status;
            } else if (from.writes) {
                status = GNTST_eagain;  // that it cannot be written says nothing of reading
            }
            if (status == GNTST_eagain || (i != next_ && from.part.page == list_page_)) break;
            const bool alone = copier_ == nullptr;
            if (!alone && (is_table(from.part.page) || is_table(to.part.page))) break;
            stops = i != first_ && call_.should_yield(i);
            if (stops) break;
            if (status == GNTST_okay) {
                status = copy_between(op(i), from.part, to.part);
                outdated_ = may_change_others(to.part.page);
            }
            statuses_[i - first_] = status;
        }
        for (; next_ < i; ++next_) {
            if (!tell(next_)) return Call::fail(XEN_EFAULT);
        }
        if (outdated_) leave();
        if (stops) return Continue{next_};
        return std::nullopt;
    }

    bool tell(std::uint32_t i) {
        const GrantStatus status = statuses_[i - first_];
        if (read_at_ == nullptr) {
            return write_status<gnttab_copy<W>>(call_, element(i), status).has_value();
        }
        // Where it was read, in a page that may be written.
        std::memcpy(read_at_ + std::size_t{i - first_} * kSize + offsetof(gnttab_copy<W>, status),
                    &status, sizeof status);
        return true;
    }

    std::optional<Outcome> copy_alone() {
        leave();
        const auto& op = this->op(next_);
        Both& both = sides_[next_ - first_];
        GrantTable::Held from, to;
        bool holds_from = false, holds_to = false;
        if (may_name(op, &both)) {
            both.from = both.to = &both.own_from;
            holds_from = hold(op.flags & GNTCOPY_source_gref, op.source_domid, op.source_u, true,
                              &from, &both.own_from);
            if (both.own_from.status == GNTST_okay) {
                both.to = &both.own_to;
                holds_to = hold(op.flags & GNTCOPY_dest_gref, op.dest_domid, op.dest_u, false, &to,
                                &both.own_to);
            }
        }
        const auto ended = copy_until(next_ + 1);
        if (holds_to) grants_.release(to);
        if (holds_from) grants_.release(from);
        return ended;
    }
    // Whether there is something to release.
    bool hold(bool is_grant, std::uint16_t domid, std::uint64_t u, bool readonly,
              GrantTable::Held* held, CopySide* out) {
        if (!is_grant) {
            find_own(u, out);
            return false;
        }
        const auto ref = static_cast<std::uint32_t>(u);
        out->status = domid == kBackendDomain
                          ? grants_.hold_offer(ref, readonly, held)
                          : grants_.hold_for_copy(grants_.domid(), ref, readonly, held);
        out->part = held->part;
        return out->status == GNTST_okay;
    }

    // Our own pages (shared_info, the table), and the list: from here on, and what was read of it.
    bool may_change_others(const std::byte* page) {
        if (page >= own_ && page < own_ + std::size_t{kOwnPages} * vmm::kPageSize) return true;
        return list_page_ == nullptr || page == list_page_ || is_table(page);
    }

    // Where a copy reaches the table: its frames have another address there than where we look at
    // them.
    void find_table() {
        table_.reserve(grants_.frames() + grants_.status_frames());
        const auto find = [&](std::uint32_t first, std::uint32_t count) {
            for (std::uint32_t own = first; own < first + count; ++own) {
                const std::uint64_t gfn = call_.domain().physmap().gfn_of_own(own);
                if (gfn != kNoGfn) table_.push_back(call_.domain().memory().page(gfn));
            }
        };
        find(kFirstGrantPage, grants_.frames());
        find(kFirstStatusPage, grants_.status_frames());
        if (!std::ranges::is_sorted(table_)) std::ranges::sort(table_);
    }
    bool is_table(const std::byte* page) const {
        // Almost always a page on one side of them all.
        if (table_.empty() || page < table_.front() || page > table_.back()) return false;
        return std::ranges::binary_search(table_, page);
    }

    void leave() {
        if (copier_ != nullptr) copier_->leave();
        copier_ = nullptr;
    }

    Call& call_;
    GrantTable& grants_;
    const std::byte* const own_;
    const vmm::Gva list_;
    const std::uint32_t count_;
    std::vector<const std::byte*> table_;  // sorted
    GrantCopier* copier_ = nullptr;
    std::uint32_t next_ = 0;
    // What was read last: elements from `first_` on, and whether a copy has changed them since, or
    // what they name.
    std::array<gnttab_copy<W>, kAtOnce> ops_;
    std::array<Both, kAtOnce> sides_;
    std::array<GrantStatus, kAtOnce> statuses_;
    std::uint32_t first_ = 0;
    std::byte* list_page_ = nullptr;
    std::byte* read_at_ = nullptr;  // the first of them; null: in two pages, or not to be written
    bool outdated_ = false;
};

}  // namespace

Outcome grant_copy(Call& call, vmm::Gva list, std::uint32_t count) {
    return call.is_64bit() ? CopyList<W64>(call, list, count).run()
                           : CopyList<W32>(call, list, count).run();
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
        if (i != 0 && i % step == 0 && call.should_yield(i / step)) return Continue{i};
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
