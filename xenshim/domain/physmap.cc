#include "xenshim/domain/physmap.h"

#include <algorithm>
#include <array>

namespace xenshim {

Physmap::Physmap(Ports& ports, vmm::GuestMemory& memory, Accounts at_start)
    : ports_(ports), memory_(memory), accounts_(at_start) {}

Physmap::Accounts Physmap::accounts() const {
    const std::scoped_lock lock(mutex_);
    return accounts_;
}

Physmap::Kind Physmap::kind_locked(std::uint64_t gfn) const {
    if (own_at_.contains(gfn)) return Kind::kOwn;
    if (ports_.in_slot(gfn)) return memory_.is_hole(gfn) ? Kind::kNothing : Kind::kRam;
    return outside_.contains(gfn) ? Kind::kRam : Kind::kNothing;
}

void Physmap::note_mapped_locked(std::uint64_t gfn) {
    accounts_.highest_gfn = std::max(accounts_.highest_gfn, gfn);
}

void Physmap::clear_locked(std::uint64_t gfn) {
    switch (kind_locked(gfn)) {
        case Kind::kNothing: return;
        case Kind::kOwn: {
            const auto at = own_at_.find(gfn);
            gfn_of_.erase(at->second);
            own_at_.erase(at);
            ports_.hide_own_page(gfn);
            if (ports_.in_slot(gfn)) memory_.set_hole(gfn, true);
            return;
        }
        case Kind::kRam:
            --accounts_.current;
            if (ports_.in_slot(gfn)) {
                memory_.set_hole(gfn, true);
                ports_.free_pages(gfn, 1);
            } else {
                outside_.erase(gfn);
                ports_.remove_ram_page(gfn);
            }
            return;
    }
}

bool Physmap::decrease(std::uint64_t gfn) {
    const std::scoped_lock lock(mutex_);
    const auto own = own_at_.find(gfn);
    if (own != own_at_.end() && own->second >= kFirstGrantPage) lost_.insert(own->second);
    if (kind_locked(gfn) == Kind::kNothing) return false;
    clear_locked(gfn);
    return true;
}

bool Physmap::put_ram_locked(std::uint64_t gfn) {
    if (ports_.in_slot(gfn)) {
        // The guest may have touched the hole meanwhile: what it wrote must not come back.
        ports_.free_pages(gfn, 1);
        memory_.set_hole(gfn, false);
    } else {
        if (!ports_.add_ram_page(gfn)) return false;
        outside_.insert(gfn);
    }
    ++accounts_.current;
    note_mapped_locked(gfn);
    return true;
}

bool Physmap::populate(std::uint64_t gfn) {
    const std::scoped_lock lock(mutex_);
    if (gfn >= ports_.gfn_limit()) return false;
    const bool had_ram = kind_locked(gfn) == Kind::kRam;
    if (!had_ram && accounts_.current >= accounts_.maximum) return false;
    clear_locked(gfn);  // Xen replaces what is there without a word
    return put_ram_locked(gfn);
}

bool Physmap::increase() {
    const std::scoped_lock lock(mutex_);
    if (accounts_.current >= accounts_.maximum) return false;
    ++accounts_.current;
    return true;
}

GuestResult<void> Physmap::place_own(std::uint32_t page, std::uint64_t gfn) {
    const std::scoped_lock lock(mutex_);
    if (gfn >= ports_.gfn_limit()) return refuse(XEN_ENOENT);
    if (lost_.contains(page)) return refuse(XEN_EBUSY);
    const auto old = gfn_of_.find(page);
    if (old != gfn_of_.end() && old->second == gfn) return {};
    // The new place first: when there is no room for it, nothing changes.
    const Kind before = kind_locked(gfn);
    if (before != Kind::kNothing && !ports_.in_slot(gfn)) clear_locked(gfn);
    if (!ports_.show_own_page(gfn, page)) return refuse(XEN_ENOMEM);
    if (ports_.in_slot(gfn)) {
        if (before == Kind::kOwn) {
            gfn_of_.erase(own_at_[gfn]);
        } else if (before == Kind::kRam) {
            --accounts_.current;
            ports_.free_pages(gfn, 1);
        }
        memory_.set_hole(gfn, false);
    }
    if (old != gfn_of_.end()) {
        const std::uint64_t from = old->second;
        own_at_.erase(from);
        ports_.hide_own_page(from);
        if (ports_.in_slot(from)) memory_.set_hole(from, true);
    }
    own_at_[gfn] = page;
    gfn_of_[page] = gfn;
    note_mapped_locked(gfn);
    return {};
}

GuestResult<void> Physmap::move(std::uint64_t from, std::uint64_t to) {
    const std::scoped_lock lock(mutex_);
    if (kind_locked(from) != Kind::kRam) return refuse(XEN_EINVAL);
    if (from == to) return {};
    if (to >= ports_.gfn_limit()) return refuse(XEN_ENOENT);
    std::array<std::byte, vmm::kPageSize> content;
    if (!memory_.read(vmm::gfn_to_gpa(from), content)) return refuse(XEN_EINVAL);
    clear_locked(to);
    if (!put_ram_locked(to)) return refuse(XEN_ENOMEM);
    clear_locked(from);
    if (!memory_.write(vmm::gfn_to_gpa(to), content)) return refuse(XEN_EINVAL);
    return {};
}

GuestResult<void> Physmap::remove(std::uint64_t gfn) {
    const std::scoped_lock lock(mutex_);
    if (kind_locked(gfn) == Kind::kNothing) return refuse(XEN_ENOENT);
    clear_locked(gfn);
    return {};
}

bool Physmap::free_touched(std::uint64_t gfn) {
    const std::scoped_lock lock(mutex_);  // against a populate at the same moment
    if (!ports_.in_slot(gfn) || kind_locked(gfn) != Kind::kNothing) return false;
    ports_.free_pages(gfn, 1);
    return true;
}

std::uint64_t Physmap::gfn_of_own(std::uint32_t page) const {
    const std::scoped_lock lock(mutex_);
    const auto at = gfn_of_.find(page);
    return at == gfn_of_.end() ? kNoGfn : at->second;
}

bool Physmap::has_ram(std::uint64_t gfn) const {
    const std::scoped_lock lock(mutex_);
    return kind_locked(gfn) == Kind::kRam;
}

bool Physmap::is_mapped(std::uint64_t gfn) const {
    const std::scoped_lock lock(mutex_);
    return kind_locked(gfn) != Kind::kNothing;
}

}  // namespace xenshim
