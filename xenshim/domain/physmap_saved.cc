// The physical memory map, saved and restored: see physmap_state.h.
#include <algorithm>
#include <iterator>

#include "xenshim/domain/physmap.h"

namespace xenshim {

namespace {

std::string named(const char* member, std::uint64_t gfn, const char* what) {
    return std::string(member) + ": gfn " + std::to_string(gfn) + " " + what;
}

// Holes, to be asked where there are any.
class Holes {
  public:
    explicit Holes(const std::vector<GfnRunState>& runs) : runs_(runs) {}
    bool at(std::uint64_t gfn) const {
        const auto after = std::upper_bound(
            runs_.begin(), runs_.end(), gfn,
            [](std::uint64_t wanted, const GfnRunState& run) { return wanted < run.gfn; });
        return after != runs_.begin() && gfn - std::prev(after)->gfn < std::prev(after)->pages;
    }

  private:
    const std::vector<GfnRunState>& runs_;
};

}  // namespace

Physmap::State Physmap::snapshot() const {
    const std::scoped_lock lock(mutex_);
    State state{.current = accounts_.current,
                .maximum = accounts_.maximum,
                .highest_gfn = accounts_.highest_gfn,
                .holes = {},
                .own = {},
                .lost = {},
                .outside = {outside_.begin(), outside_.end()},
                .leaving = {leaving_.begin(), leaving_.end()},
                .adopted = {},
                .types = types_.pieces(),
                .modified = modified_};
    memory_.for_each_hole([&](std::uint64_t gfn, std::uint64_t pages) {
        state.holes.push_back({.gfn = gfn, .pages = pages});
    });
    for (const auto& [gfn, page] : own_at_) {
        state.own[page] = gfn;
    }
    for (std::uint32_t page = 0; page < kOwnPages; ++page) {
        if (lost_[page]) state.lost.push_back(page);
    }
    for (const auto& [page, adopted] : adopted_) {
        state.adopted[page].given_back = adopted.given_back;
    }
    for (const auto& [gfn, page] : granted_at_) {
        state.adopted[page].places.push_back(gfn);
    }
    return state;
}

vmm::Expected<void, std::string> Physmap::check(const State& state) const {
    using vmm::Failure;
    if (state.maximum > kGfnLimit) return Failure{"maximum: more than there are gfns"};
    if (state.current > state.maximum) return Failure{"current: beyond the maximum"};
    if (state.highest_gfn >= kGfnLimit) return Failure{"highest_gfn: there is none"};

    const GfnRunState* last = nullptr;
    for (const GfnRunState& run : state.holes) {
        if (run.pages == 0 || memory_.pages_in_region(run.gfn, run.pages) != run.pages) {
            return Failure{named("holes", run.gfn, "begins a run that is not inside a slot")};
        }
        if (last != nullptr) {
            const std::uint64_t end = last->gfn + last->pages;
            const bool slot_goes_on =
                memory_.pages_in_region(last->gfn, last->pages + 1) > last->pages;
            if (run.gfn < end || (run.gfn == end && slot_goes_on)) {
                return Failure{named("holes", run.gfn, "follows no run before it")};
            }
        }
        last = &run;
    }
    const Holes holes(state.holes);

    // What stands alone, at one gfn each.
    std::set<std::uint64_t> mapped;
    for (const auto& [page, gfn] : state.own) {
        if (page >= kFirstGrantedPage) {
            return Failure{"own: there is no page " + std::to_string(page)};
        }
        if (gfn >= kGfnLimit || gfn > state.highest_gfn) {
            return Failure{named("own", gfn, "is beyond the highest")};
        }
        if (holes.at(gfn)) return Failure{named("own", gfn, "is a hole")};
        if (!mapped.insert(gfn).second) return Failure{named("own", gfn, "is named twice")};
    }
    for (std::size_t i = 0; i < state.lost.size(); ++i) {
        const std::uint32_t page = state.lost[i];
        if (page < kFirstGrantPage || page >= kFirstGrantedPage || state.own.contains(page) ||
            (i != 0 && page <= state.lost[i - 1])) {
            return Failure{"lost: not page " + std::to_string(page)};
        }
    }
    for (const auto& [page, adopted] : state.adopted) {
        if (page < kFirstGrantedPage || page >= kOwnPages) {
            return Failure{"adopted: there is no page " + std::to_string(page)};
        }
        std::uint64_t least = 0;
        for (const std::uint64_t gfn : adopted.places) {
            if (gfn < least) return Failure{named("adopted", gfn, "follows no place before it")};
            least = gfn + 1;
            if (gfn > state.highest_gfn)
                return Failure{named("adopted", gfn, "is beyond the highest")};
            if (!in_reach(gfn)) {
                return Failure{named("adopted", gfn, "is beyond this processor's addresses")};
            }
            if (holes.at(gfn)) return Failure{named("adopted", gfn, "is a hole")};
            if (!mapped.insert(gfn).second) return Failure{named("adopted", gfn, "is named twice")};
        }
    }
    for (const auto& [list, name] :
         {std::pair(&state.outside, "outside"), std::pair(&state.leaving, "leaving")}) {
        std::uint64_t least = 0;
        for (const std::uint64_t gfn : *list) {
            if (gfn < least) return Failure{named(name, gfn, "follows no page before it")};
            if (gfn > state.highest_gfn) return Failure{named(name, gfn, "is beyond the highest")};
            if (ports_.in_slot(gfn)) return Failure{named(name, gfn, "is in a slot")};
            if (!mapped.insert(gfn).second) return Failure{named(name, gfn, "is named twice")};
            least = gfn + 1;
        }
    }
    for (const std::uint64_t gfn : state.leaving) {
        mapped.erase(gfn);
    }

    for (const auto& [number, piece] : state.types) {
        if (number >= kGfnLimit / PageTypes::kPagesInPiece || piece == PageTypes::Piece{}) {
            return Failure{"types: not piece " + std::to_string(number)};
        }
        const PageTypes types({{number, piece}});
        for (unsigned i = 0; i < PageTypes::kPagesInPiece; ++i) {
            const std::uint64_t gfn = number * PageTypes::kPagesInPiece + i;
            const MemType type = types.at(gfn);
            if (type == MemType::kRamRw) continue;
            if (type > MemType::kMmioDm) return Failure{named("types", gfn, "has no known one")};
            const bool ram = ports_.in_slot(gfn) && !holes.at(gfn);
            if (!ram && !mapped.contains(gfn)) return Failure{named("types", gfn, "is not there")};
        }
    }
    return {};
}

// Everything that the machine shows beside the slots, or nothing.
vmm::Expected<void, std::string> Physmap::show_all_locked(const State& state) {
    std::vector<std::uint64_t> pages, shown;
    const auto refuse_all = [&](const char* member, std::uint64_t gfn) {
        for (const std::uint64_t page : pages) {
            ports_.remove_ram_page(page);
        }
        for (const std::uint64_t page : shown) {
            hide_locked(page);
        }
        return vmm::Failure{named(member, gfn, "finds no room in this machine")};
    };
    for (const auto& [list, name] :
         {std::pair(&state.outside, "outside"), std::pair(&state.leaving, "leaving")}) {
        for (const std::uint64_t gfn : *list) {
            if (!ports_.add_ram_page(gfn)) return refuse_all(name, gfn);
            pages.push_back(gfn);
        }
    }
    for (const auto& [page, gfn] : state.own) {
        if (!show_locked(gfn, page)) return refuse_all("own", gfn);
        shown.push_back(gfn);
    }
    for (const auto& [page, adopted] : state.adopted) {
        for (const std::uint64_t gfn : adopted.places) {
            if (!show_locked(gfn, page)) return refuse_all("adopted", gfn);
            shown.push_back(gfn);
        }
    }
    return {};
}

vmm::Expected<void, std::string> Physmap::adopt(const State& state) {
    TRY(check(state));
    const std::scoped_lock lock(mutex_);
    TRY(show_all_locked(state));
    accounts_ = {
        .current = state.current, .maximum = state.maximum, .highest_gfn = state.highest_gfn};
    for (const GfnRunState& run : state.holes) {
        memory_.set_holes(run.gfn, run.pages, true);
    }
    for (const auto& [page, gfn] : state.own) {
        own_at_[gfn] = page;
        gfn_of_[page] = gfn;
    }
    for (const std::uint32_t page : state.lost) {
        lost_[page] = true;
    }
    outside_ = {state.outside.begin(), state.outside.end()};
    leaving_ = {state.leaving.begin(), state.leaving.end()};
    for (const auto& [page, adopted] : state.adopted) {
        adopted_[page] = {.uses = static_cast<std::uint32_t>(adopted.places.size()),
                          .given_back = adopted.given_back};
        for (const std::uint64_t gfn : adopted.places) {
            granted_at_[gfn] = page;
            memory_.set_foreign(gfn, true);
        }
    }
    types_ = PageTypes(state.types);
    modified_ = state.modified;
    return {};
}

std::byte* Physmap::hold_again(std::uint64_t gfn) {
    if (ports_.in_slot(gfn)) return memory_.pin_again(gfn);
    const std::scoped_lock lock(mutex_);
    if (!outside_.contains(gfn) && !leaving_.contains(gfn)) return nullptr;
    ++held_outside_[gfn];
    return memory_.page(gfn);
}

bool Physmap::hold_adopted(std::uint32_t page) {
    const std::scoped_lock lock(mutex_);
    const auto at = adopted_.find(page);
    if (at == adopted_.end()) return false;
    ++at->second.uses;
    return true;
}

void Physmap::settle() {
    const std::scoped_lock lock(mutex_);
    std::erase_if(adopted_, [&](const auto& entry) {
        const bool idle = entry.second.uses == 0;
        if (idle && entry.second.given_back && accounts_.current != 0) --accounts_.current;
        return idle;
    });
    std::erase_if(leaving_, [&](std::uint64_t gfn) {
        const bool idle = !held_outside_.contains(gfn);
        if (idle) ports_.remove_ram_page(gfn);
        return idle;
    });
}

std::vector<std::uint32_t> Physmap::adopted_pages() const {
    const std::scoped_lock lock(mutex_);
    std::vector<std::uint32_t> pages;
    for (const auto& [page, adopted] : adopted_) {
        pages.push_back(page);
    }
    return pages;
}

std::vector<std::uint64_t> Physmap::pages_outside_slots() const {
    const std::scoped_lock lock(mutex_);
    std::set<std::uint64_t> pages = outside_;
    pages.insert(leaving_.begin(), leaving_.end());
    return {pages.begin(), pages.end()};
}

}  // namespace xenshim
