#include "xenshim/domain/grant_copier.h"

#include <bit>

#include "xenshim/domain/grant_table.h"

namespace xenshim {

using namespace abi;

void GrantCopier::belong_to(GrantTable& table, std::uint64_t self) {
    table_ = &table;
    self_ = self;
    for (auto& word : announced_) {
        word.store(kNoRef, std::memory_order_relaxed);
    }
}

const CopySide* GrantCopier::announce(std::uint32_t ref, bool readonly) {
    if (ref == kNoRef) return nullptr;  // it would be what an empty place has
    const std::uint32_t index = ref % kPlaces;
    Place& place = places_[index];
    const bool there = place.ref == ref && (readonly || place.side.writes);
    if (!there && place.ref != kNoRef) {
        if (place.round == round_) return nullptr;
        empty(index);
    }
    place.round = round_;
    if (there && place.side.status == GNTST_okay) return &place.side;
    if (!there) {
        place.ref = ref;
        place.side.writes = !readonly;
        announced_[index].store(ref, std::memory_order_relaxed);
        if (ref < entries_) table_->prefetch(ref, version_);
    }
    occupied_ |= std::uint64_t{1} << index;
    fresh_ |= std::uint64_t{1} << index;
    return &place.side;
}

bool GrantCopier::settle() {
    ++round_;
    if (fresh_ == 0) return table_->copying_.load(std::memory_order_relaxed) < GrantTable::kRest;
    // Ordered with the same of other copiers; and with whoever takes a record, for he looks at this
    // word afterwards, as we look at his record.
    const std::uint64_t copying = table_->copying_.fetch_or(self_);
    if (copying >= GrantTable::kRest) return false;
    others_ = copying & ~self_;
    for (; fresh_ != 0; fresh_ &= fresh_ - 1) {
        Place& place = places_[static_cast<std::size_t>(std::countr_zero(fresh_))];
        place.side.status = take(place.ref, !place.side.writes, &place.side.part);
    }
    return true;
}

GrantStatus GrantCopier::take(std::uint32_t ref, bool readonly, GrantedPart* part) {
    if (ref >= entries_) return GNTST_bad_gntref;
    if (table_->active(ref).word.load() != 0 || table_->announced(others_, ref)) {
        return GNTST_eagain;
    }
    grant_entry_v2 entry{};
    GrantStatus status = table_->begin({table_->domid(), ref, readonly, false}, false, &entry);
    if (status != GNTST_okay) return status;
    status = table_->is_transitive(entry) ? GrantStatus{GNTST_eagain} : table_->locate(entry, part);
    if (status != GNTST_okay) table_->end(ref, 0, readonly);
    return status;
}

void GrantCopier::empty(std::uint32_t index) {
    Place& place = places_[index];
    if (place.side.status == GNTST_okay) table_->end(place.ref, 0, !place.side.writes);
    place.side.status = GNTST_general_error;
    place.ref = kNoRef;
    announced_[index].store(kNoRef, std::memory_order_release);
}

void GrantCopier::leave() {
    for (; occupied_ != 0; occupied_ &= occupied_ - 1) {
        empty(static_cast<std::uint32_t>(std::countr_zero(occupied_)));
    }
    fresh_ = 0;
    table_->copying_.fetch_and(~self_);
}

}  // namespace xenshim
