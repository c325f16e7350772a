#include "xenshim/domain/physmap.h"

#include <algorithm>
#include <array>

namespace xenshim {

Physmap::Physmap(Ports& ports, vmm::GuestMemory& memory, Accounts at_start)
    : ports_(ports), memory_(memory), accounts_(at_start) {
    for (auto& gfn : gfn_of_) {
        gfn = kNoGfn;
    }
}

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

bool Physmap::show_locked(std::uint64_t gfn, std::uint32_t page) {
    return gfn >= ports_.gfn_limit() || ports_.show_own_page(gfn, page);
}

void Physmap::hide_locked(std::uint64_t gfn) {
    if (gfn < ports_.gfn_limit()) ports_.hide_own_page(gfn);
}

std::uint64_t Physmap::until_own_locked(std::uint64_t gfn, std::uint64_t most) const {
    const auto next = own_at_.lower_bound(gfn);
    return next == own_at_.end() ? most : std::min(most, next->first - gfn);
}

void Physmap::clear_locked(std::uint64_t gfn) {
    types_.set(gfn, MemType::kRamRw);  // whatever comes there next
    switch (kind_locked(gfn)) {
        case Kind::kNothing: return;
        case Kind::kOwn: {
            const auto at = own_at_.find(gfn);
            gfn_of_[at->second] = kNoGfn;
            own_at_.erase(at);
            hide_locked(gfn);
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

bool Physmap::decrease(std::uint64_t gfn, std::uint64_t pages) {
    const std::scoped_lock lock(mutex_);
    while (pages != 0) {
        // RAM in one piece goes in one piece.
        std::uint64_t n = memory_.pages_until_hole(gfn, until_own_locked(gfn, pages));
        if (n != 0) {
            types_.reset(gfn, n);
            memory_.set_holes(gfn, n, true);
            ports_.free_pages(gfn, n);
            accounts_.current -= n;
        } else {
            const auto own = own_at_.find(gfn);
            if (own != own_at_.end() && own->second >= kFirstGrantPage) lost_[own->second] = true;
            if (kind_locked(gfn) == Kind::kNothing) return false;
            clear_locked(gfn);
            n = 1;
        }
        gfn += n;
        pages -= n;
    }
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

// A page that is no plain RAM of a slot: an own page, or one outside the slots.
bool Physmap::populate_one_locked(std::uint64_t gfn) {
    if (outside_.contains(gfn)) {
        types_.set(gfn, MemType::kRamRw);
        if (!memory_.fill(vmm::gfn_to_gpa(gfn), vmm::kPageSize, std::byte{0})) return false;
        ++accounts_.current;
        return true;
    }
    clear_locked(gfn);
    return put_ram_locked(gfn);
}

bool Physmap::populate(std::uint64_t gfn, std::uint64_t pages) {
    const std::scoped_lock lock(mutex_);
    const std::uint64_t limit = std::min(ports_.gfn_limit(), kGfnLimit);
    if (gfn >= limit || pages > limit - gfn) return false;
    if (accounts_.current > accounts_.maximum || pages > accounts_.maximum - accounts_.current) {
        return false;
    }
    for (const std::uint64_t end = gfn + pages; gfn < end;) {
        std::uint64_t n = memory_.pages_in_region(gfn, until_own_locked(gfn, end - gfn));
        if (n != 0) {
            types_.reset(gfn, n);
            ports_.free_pages(gfn, n);
            memory_.set_holes(gfn, n, false);
            accounts_.current += n;
            note_mapped_locked(gfn + n - 1);
        } else {
            if (!populate_one_locked(gfn)) return false;
            n = 1;
        }
        gfn += n;
    }
    return true;
}

bool Physmap::increase(std::uint64_t pages) {
    const std::scoped_lock lock(mutex_);
    if (accounts_.current > accounts_.maximum || pages > accounts_.maximum - accounts_.current) {
        return false;
    }
    accounts_.current += pages;
    return true;
}

GuestResult<void> Physmap::place_own(std::uint32_t page, std::uint64_t gfn) {
    const std::scoped_lock lock(mutex_);
    return place_own_locked(page, gfn);
}

GuestResult<void> Physmap::place_own_locked(std::uint32_t page, std::uint64_t gfn) {
    if (gfn >= kGfnLimit) return refuse(XEN_ENOENT);
    if (lost_[page]) return refuse(XEN_EBUSY);
    const std::uint64_t old = gfn_of_own(page);
    if (old == gfn) return {};
    // The new place first: when there is no room for it, nothing changes.
    const Kind before = kind_locked(gfn);
    if (before != Kind::kNothing && !ports_.in_slot(gfn)) clear_locked(gfn);
    if (!show_locked(gfn, page)) return refuse(XEN_ENOMEM);
    types_.set(gfn, MemType::kRamRw);
    if (ports_.in_slot(gfn)) {
        if (before == Kind::kOwn) {
            gfn_of_[own_at_[gfn]] = kNoGfn;
        } else if (before == Kind::kRam) {
            --accounts_.current;
            ports_.free_pages(gfn, 1);
        }
        memory_.set_hole(gfn, false);
    }
    if (old != kNoGfn) {
        types_.set(old, MemType::kRamRw);
        own_at_.erase(old);
        hide_locked(old);
        if (ports_.in_slot(old)) memory_.set_hole(old, true);
    }
    own_at_[gfn] = page;
    gfn_of_[page] = gfn;
    note_mapped_locked(gfn);
    return {};
}

GuestResult<void> Physmap::move(std::uint64_t from, std::uint64_t to) {
    const std::scoped_lock lock(mutex_);
    if (const auto own = own_at_.find(from); own != own_at_.end()) {
        return place_own_locked(own->second, to);
    }
    if (kind_locked(from) != Kind::kRam) return refuse(XEN_EINVAL);
    if (from == to) return {};
    if (to >= std::min(ports_.gfn_limit(), kGfnLimit)) return refuse(XEN_ENOENT);
    std::array<std::byte, vmm::kPageSize> content;
    if (!memory_.read(vmm::gfn_to_gpa(from), content)) return refuse(XEN_EINVAL);
    if (ports_.in_slot(to)) {
        // Written over as a whole: what is there need not be freed first.
        if (own_at_.contains(to)) clear_locked(to);
        types_.set(to, MemType::kRamRw);
        if (memory_.is_hole(to)) ++accounts_.current;
        memory_.set_hole(to, false);
        note_mapped_locked(to);
    } else {
        clear_locked(to);
        if (!put_ram_locked(to)) return refuse(XEN_ENOMEM);
    }
    if (!memory_.write(vmm::gfn_to_gpa(to), content)) return refuse(XEN_EINVAL);
    clear_locked(from);
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

bool Physmap::has_ram(std::uint64_t gfn) const {
    const std::scoped_lock lock(mutex_);
    return kind_locked(gfn) == Kind::kRam;
}

MemType Physmap::mem_type(std::uint64_t gfn) const {
    const std::scoped_lock lock(mutex_);
    return kind_locked(gfn) == Kind::kNothing ? MemType::kMmioDm : types_.at(gfn);
}

bool Physmap::set_mem_type(std::uint64_t gfn, MemType type) {
    const std::scoped_lock lock(mutex_);
    const bool mapped = kind_locked(gfn) != Kind::kNothing;
    const bool is_ram = mapped && types_.at(gfn) != MemType::kMmioDm;
    if (!is_ram && type != MemType::kMmioDm) return false;
    if (mapped) types_.set(gfn, type);
    return true;
}

void Physmap::mark_modified(std::uint64_t gfn) {
    const std::scoped_lock lock(mutex_);
    if (kind_locked(gfn) != Kind::kNothing) ++modified_;
}

std::uint64_t Physmap::modified_pages() const {
    const std::scoped_lock lock(mutex_);
    return modified_;
}

bool Physmap::is_mapped(std::uint64_t gfn) const {
    const std::scoped_lock lock(mutex_);
    return kind_locked(gfn) != Kind::kNothing;
}

}  // namespace xenshim
