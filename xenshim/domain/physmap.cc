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
    if (granted_at_.contains(gfn)) return Kind::kGranted;
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
    const auto own = own_at_.lower_bound(gfn);
    if (own != own_at_.end()) most = std::min(most, own->first - gfn);
    const auto granted = granted_at_.lower_bound(gfn);
    return granted == granted_at_.end() ? most : std::min(most, granted->first - gfn);
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
                if (!memory_.is_pinned(gfn)) ports_.free_pages(gfn, 1);
            } else {
                outside_.erase(gfn);
                if (held_outside_.contains(gfn)) {
                    leaving_.insert(gfn);
                } else {
                    ports_.remove_ram_page(gfn);
                }
            }
            return;
        case Kind::kGranted:
            adopted_[granted_at_[gfn]].given_back = true;
            take_away_granted_locked(gfn);
            return;
    }
}

void Physmap::take_away_granted_locked(std::uint64_t gfn) {
    types_.set(gfn, MemType::kRamRw);
    const auto at = granted_at_.find(gfn);
    const std::uint32_t page = at->second;
    granted_at_.erase(at);
    memory_.set_foreign(gfn, false);
    ports_.hide_own_page(gfn);
    if (ports_.in_slot(gfn)) memory_.set_hole(gfn, true);
    drop_adopted_locked(page);
}

// Pages that were made holes. By now another vCPU may have populated some again, with zeroes: those
// are left alone. What somebody holds is freed when it is let go; nobody begins to hold a hole.
void Physmap::free_holes_locked(Run run) {
    std::uint64_t gfn = run.gfn;
    for (const std::uint64_t end = gfn + run.pages; gfn < end;) {
        std::uint64_t n = 0;
        while (gfn + n < end && memory_.is_hole(gfn + n) && !memory_.is_pinned(gfn + n)) {
            ++n;
        }
        if (n != 0) ports_.free_pages(gfn, n);
        gfn += n + 1;
    }
}

Physmap::GivingBack::GivingBack(Physmap& physmap) : physmap_(physmap) {
    const std::scoped_lock lock(physmap_.mutex_);
    ++physmap_.batches_;
}

Physmap::GivingBack::~GivingBack() {
    const std::scoped_lock lock(physmap_.mutex_);
    free_all_locked();
    --physmap_.batches_;
}

bool Physmap::GivingBack::decrease(std::uint64_t gfn, std::uint64_t pages) {
    const std::scoped_lock lock(physmap_.mutex_);
    return physmap_.decrease_locked(gfn, pages, *this);
}

// Lists of a balloon driver go up or down: most pages lie next to the one before.
void Physmap::GivingBack::add_locked(Run run) {
    Run* last = count_ != 0 ? &runs_[count_ - 1] : nullptr;
    if (last != nullptr && run.gfn == last->gfn + last->pages) {
        last->pages += run.pages;
    } else if (last != nullptr && run.gfn + run.pages == last->gfn) {
        *last = {run.gfn, last->pages + run.pages};
    } else {
        runs_[count_++] = run;
    }
    pages_ += run.pages;
    if (count_ == kMostRuns || pages_ >= kMostFreedAtOnce) free_all_locked();
}

void Physmap::GivingBack::free_all_locked() {
    const auto end = runs_.begin() + static_cast<std::ptrdiff_t>(count_);
    std::sort(runs_.begin(), end, [](const Run& a, const Run& b) { return a.gfn < b.gfn; });
    for (auto at = runs_.begin(); at != end;) {
        Run whole = *at;
        while (++at != end && at->gfn == whole.gfn + whole.pages) {
            whole.pages += at->pages;
        }
        physmap_.free_holes_locked(whole);
    }
    freed_ = freed_ || count_ != 0;
    count_ = 0;
    pages_ = 0;
}

bool Physmap::decrease(std::uint64_t gfn, std::uint64_t pages) {
    const bool done = GivingBack(*this).decrease(gfn, pages);
    free_owed();
    return done;
}

void Physmap::owe_locked(Run run) {
    owed_.push_back(run);
    owes_.store(true, std::memory_order_relaxed);
}

bool Physmap::free_some_owed() {
    mutex_.lock_last();
    const std::scoped_lock lock(std::adopt_lock, mutex_);
    free_some_owed_locked();
    return !owed_.empty();
}

void Physmap::free_some_owed_locked() {
    if (owed_.empty()) return;
    Run& run = owed_.back();
    const std::uint64_t n = std::min(run.pages, kMostFreedAtOnce);
    free_holes_locked({run.gfn, n});
    run.gfn += n;
    run.pages -= n;
    if (run.pages == 0) owed_.pop_back();
    if (owed_.empty()) owes_.store(false, std::memory_order_relaxed);
}

void Physmap::free_owed() {
    if (!owes()) return;
    while (free_some_owed()) {
    }
}

bool Physmap::decrease_locked(std::uint64_t gfn, std::uint64_t pages, GivingBack& batch) {
    while (pages != 0) {
        // RAM in one piece goes in one piece.
        std::uint64_t n = memory_.pages_until_hole(gfn, until_own_locked(gfn, pages));
        if (n != 0) {
            types_.reset(gfn, n);
            memory_.set_holes(gfn, n, true);
            if (n > kMostFreedAtOnce) {
                owe_locked({gfn, n});
            } else {
                batch.add_locked({gfn, n});
            }
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
    if (memory_.is_pinned(gfn) || leaving_.contains(gfn)) return false;
    if (ports_.in_slot(gfn)) {
        // The guest may have touched the hole meanwhile: what it wrote must not come back.
        ports_.clear_pages(gfn, 1);
        memory_.set_hole(gfn, false);
    } else {
        if (!ports_.add_ram_page(gfn)) return false;
        outside_.insert(gfn);
    }
    ++accounts_.current;
    note_mapped_locked(gfn);
    return true;
}

// A page that is no plain RAM of a slot: an own page, a granted one, or one outside the slots.
bool Physmap::populate_one_locked(std::uint64_t gfn) {
    if (held_outside_.contains(gfn)) return false;
    if (outside_.contains(gfn)) {
        types_.set(gfn, MemType::kRamRw);
        if (!memory_.fill(vmm::gfn_to_gpa(gfn), vmm::kPageSize, std::byte{0})) return false;
        ++accounts_.current;
        return true;
    }
    clear_locked(gfn);
    return put_ram_locked(gfn);
}

// How many pages from `gfn` on, all of a slot, are nobody's to hold: holes from here on. A page
// that somebody holds cannot be replaced by another one, for both would be the same host memory.
std::uint64_t Physmap::unheld_run_locked(std::uint64_t gfn, std::uint64_t most) {
    std::uint64_t n = memory_.pages_until_hole(gfn, most);
    const bool ram = n != 0;
    while (!ram && n < most && memory_.is_hole(gfn + n)) {
        ++n;
    }
    if (ram) memory_.set_holes(gfn, n, true);
    const std::uint64_t unheld = memory_.pages_until_pinned(gfn, n);
    if (ram && unheld < n) memory_.set_holes(gfn + unheld, n - unheld, false);
    return unheld;
}

bool Physmap::populate(std::uint64_t gfn, std::uint64_t pages) {
    const std::scoped_lock lock(mutex_);
    if (gfn >= kGfnLimit || pages > kGfnLimit - gfn) return false;
    if (accounts_.current > accounts_.maximum || pages > accounts_.maximum - accounts_.current) {
        return false;
    }
    // Where a grant is mapped in the extent Xen ends the domain, before it replaces any page of it;
    // here nothing happens.
    const auto granted = granted_at_.lower_bound(gfn);
    if (granted != granted_at_.end() && granted->first - gfn < pages) return false;
    for (const std::uint64_t end = gfn + pages; gfn < end;) {
        std::uint64_t n = memory_.pages_in_region(gfn, until_own_locked(gfn, end - gfn));
        if (n != 0) {
            n = unheld_run_locked(gfn, n);
            if (n == 0) return false;
            types_.reset(gfn, n);
            ports_.clear_pages(gfn, n);
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
    if (kind_locked(gfn) == Kind::kGranted) clear_locked(gfn);
    // The new place first: when there is no room for it, nothing changes.
    const Kind before = kind_locked(gfn);
    if (!cover_locked(gfn, before)) return refuse(XEN_EBUSY);
    if (before != Kind::kNothing && !ports_.in_slot(gfn)) clear_locked(gfn);
    if (!show_locked(gfn, page)) {
        if (before != Kind::kNothing) memory_.set_hole(gfn, false);
        return refuse(XEN_ENOMEM);
    }
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
    if (to >= kGfnLimit) return refuse(XEN_ENOENT);
    // On Xen whoever maps the page keeps it wherever it goes; here the gfn is the memory.
    for (const std::uint64_t gfn : {from, to}) {
        if (memory_.is_pinned(gfn) || held_outside_.contains(gfn)) return refuse(XEN_EBUSY);
    }
    std::array<std::byte, vmm::kPageSize> content;
    if (!memory_.read(vmm::gfn_to_gpa(from), content)) return refuse(XEN_EINVAL);
    if (ports_.in_slot(to)) {
        // Written over as a whole: what is there need not be freed first.
        if (own_at_.contains(to) || granted_at_.contains(to)) clear_locked(to);
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
    const Kind kind = kind_locked(gfn);
    if (kind == Kind::kNothing) return refuse(XEN_ENOENT);
    if (kind == Kind::kGranted) {
        take_away_granted_locked(gfn);
        return {};
    }
    clear_locked(gfn);
    // Out of the map, but not given back: measured, it goes on being counted.
    if (kind == Kind::kRam) ++accounts_.current;
    return {};
}

// Whether an overlay may come over what is at `gfn`: not over RAM that somebody holds, who would
// look at our page from then on. RAM is a hole from here on, so that nobody begins to hold it.
bool Physmap::cover_locked(std::uint64_t gfn, Kind before) {
    if (leaving_.contains(gfn) || held_outside_.contains(gfn)) return false;
    if (before == Kind::kRam && ports_.in_slot(gfn)) memory_.set_hole(gfn, true);
    if (!memory_.is_pinned(gfn)) return true;
    if (before != Kind::kNothing) memory_.set_hole(gfn, false);
    return false;
}

void Physmap::withdraw_own(std::uint32_t page) {
    const std::scoped_lock lock(mutex_);
    lost_[page] = false;
    if (const std::uint64_t gfn = gfn_of_own(page); gfn != kNoGfn) clear_locked(gfn);
}

std::byte* Physmap::hold(std::uint64_t gfn) {
    if (ports_.in_slot(gfn)) {
        std::byte* page = memory_.pin(gfn);
        // Whoever gave the page back may have seen our attempt, and left the memory to us.
        if (page == nullptr) free_touched(gfn);
        return page;
    }
    const std::scoped_lock lock(mutex_);
    if (!outside_.contains(gfn)) return nullptr;
    ++held_outside_[gfn];
    return memory_.page(gfn);
}

void Physmap::release(std::uint64_t gfn) {
    if (ports_.in_slot(gfn)) {
        if (memory_.unpin(gfn)) free_touched(gfn);
        return;
    }
    const std::scoped_lock lock(mutex_);
    const auto held = held_outside_.find(gfn);
    if (held == held_outside_.end() || --held->second != 0) return;
    held_outside_.erase(held);
    if (leaving_.erase(gfn) != 0) ports_.remove_ram_page(gfn);
}

void Physmap::drop_adopted_locked(std::uint32_t page) {
    const auto at = adopted_.find(page);
    if (--at->second.uses != 0) return;
    if (at->second.given_back) --accounts_.current;
    adopted_.erase(at);
}

Physmap::Shown Physmap::adopt(std::uint64_t from, std::uint64_t to, std::uint32_t* page,
                              MemType type) {
    const std::scoped_lock lock(mutex_);
    const Kind kind = kind_locked(from);
    if (kind == Kind::kGranted) {
        *page = granted_at_[from];
        const Shown shown = show_adopted_locked(*page, to, type);
        if (shown == Shown::kDone) ++adopted_[*page].uses;
        return shown;
    }
    if (kind != Kind::kRam) return Shown::kRefused;
    *page = kFirstGrantedPage;
    for (const auto& [taken, adopted] : adopted_) {
        if (taken != *page) break;
        ++*page;
    }
    if (*page >= kOwnPages || !cover_locked(from, kind)) return Shown::kRefused;
    if (ports_.in_slot(from)) memory_.set_hole(from, false);  // to be read once more
    if (!memory_.read(vmm::gfn_to_gpa(from), {ports_.own_page(*page), vmm::kPageSize})) {
        return Shown::kRefused;
    }
    // The new place first: when there is no room for it, nothing changes.
    adopted_[*page] = {.uses = 1};
    if (const Shown shown = show_adopted_locked(*page, to, type); shown != Shown::kDone) {
        adopted_.erase(*page);
        return shown;
    }
    if (from != to) {
        clear_locked(from);
        ++accounts_.current;  // it stays the domain's
    }
    return Shown::kDone;
}

void Physmap::release_adopted(std::uint32_t page) {
    const std::scoped_lock lock(mutex_);
    drop_adopted_locked(page);
}

Physmap::Shown Physmap::show_adopted(std::uint32_t page, std::uint64_t gfn, MemType type) {
    const std::scoped_lock lock(mutex_);
    return show_adopted_locked(page, gfn, type);
}

Physmap::Shown Physmap::show_adopted_locked(std::uint32_t page, std::uint64_t gfn, MemType type) {
    if (gfn >= ports_.gfn_limit()) return Shown::kRefused;
    const Kind before = kind_locked(gfn);
    if (before == Kind::kGranted) return Shown::kGrantThere;
    if (!cover_locked(gfn, before)) return Shown::kRefused;
    if (before != Kind::kNothing && !ports_.in_slot(gfn)) {
        clear_locked(gfn);
        if (before == Kind::kRam) ++accounts_.current;  // lost, not given back
    }
    if (!ports_.show_own_page(gfn, page)) {
        if (before != Kind::kNothing) memory_.set_hole(gfn, false);
        return Shown::kRefused;
    }
    if (ports_.in_slot(gfn)) {
        if (before == Kind::kOwn) {
            gfn_of_[own_at_[gfn]] = kNoGfn;
            own_at_.erase(gfn);
        } else if (before == Kind::kRam) {
            ports_.free_pages(gfn, 1);  // the overlay hides it: on Xen it is lost as well
        }
        memory_.set_hole(gfn, false);
    }
    types_.set(gfn, type);
    granted_at_[gfn] = page;
    memory_.set_foreign(gfn, true);
    ++adopted_[page].uses;
    note_mapped_locked(gfn);
    return Shown::kDone;
}

bool Physmap::hide_adopted(std::uint32_t page, std::uint64_t gfn) {
    const std::scoped_lock lock(mutex_);
    const auto at = granted_at_.find(gfn);
    if (at == granted_at_.end() || at->second != page) return false;
    take_away_granted_locked(gfn);  // at no gfn, but still the domain's
    return true;
}

bool Physmap::free_touched(std::uint64_t gfn) {
    const std::scoped_lock lock(mutex_);  // against a populate at the same moment
    if (!ports_.in_slot(gfn) || kind_locked(gfn) != Kind::kNothing) return false;
    if (memory_.is_pinned(gfn)) return false;
    // Nobody touched what is only not freed yet.
    return ports_.free_pages(gfn, 1) && batches_ == 0 && owed_.empty();
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
    const Kind kind = kind_locked(gfn);
    if (kind == Kind::kGranted) return false;  // its type is the grant's
    const bool mapped = kind != Kind::kNothing;
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
