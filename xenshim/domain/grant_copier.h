// What one hypercall's grant copies have in use of the guest's entries, without a lock for each.
//
// Counting a use in an entry's record takes a locked operation before and one after, besides the
// two on the shared entry; each costs as much as an eighth of a page's copy. So a copier writes
// down in words of its own which entries it is going to use (announce()), as many as it knows of,
// and then does one locked operation for all of them, and takes them (settle()). From then on
//   - whoever takes an entry's record looks through the copiers that are at work, and where one has
//     announced the entry, lets all of them leave first;
//   - a copier whose entry is somebody else's, by its record or by another copier's words, leaves,
//     and does that copy the slow way, which waits (GrantTable::hold_for_copy).
// Of two that come at the same time at least one sees the other, and a copier never waits.
//
// What a copier has taken stays in use until it leaves, or needs the place for another entry: a
// list that names an entry again finds it. The guest sees it in use as long, a hypercall at most.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "xenshim/abi/numbers.h"

namespace xenshim {

class GrantTable;

// GNTST_*: never positive.
using GrantStatus = std::int16_t;

// What an entry gives access to.
struct GrantedPart {
    std::byte* page = nullptr;
    std::uint32_t start = 0;
    std::uint32_t length = 0;
    bool holds(std::size_t offset, std::size_t bytes) const {
        return offset >= start && offset + bytes <= std::size_t{start} + length;
    }
};

// One side of a copy: what it may use, or why not. GNTST_eagain: not without waiting.
struct CopySide {
    GrantStatus status = abi::GNTST_general_error;
    bool writes = false;
    GrantedPart part;
};

class alignas(64) GrantCopier {
  public:
    // Entry `ref` is going to be used; how, that stands there from settle() on. Null: it cannot be
    // beside what was announced since the last settle().
    const CopySide* announce(std::uint32_t ref, bool readonly);
    // Takes what was announced. False: somebody waits for the copiers to leave.
    bool settle();
    void leave();

  private:
    friend class GrantTable;

    static constexpr std::uint32_t kPlaces = 64;
    static constexpr std::uint32_t kNoRef = UINT32_MAX;

    // An entry's place is its reference modulo their number, so that others need look at one only.
    struct Place {
        std::uint32_t ref = kNoRef;
        std::uint32_t round = 0;  // when it was last announced
        CopySide side;
    };

    void belong_to(GrantTable& table, std::uint64_t self);
    GrantStatus take(std::uint32_t ref, bool readonly, GrantedPart* part);
    void empty(std::uint32_t index);

    GrantTable* table_ = nullptr;
    std::uint64_t self_ = 0;      // our bit of GrantTable::copying_
    std::uint64_t others_ = 0;    // the copiers that may not have seen us
    std::uint64_t occupied_ = 0;  // places
    std::uint64_t fresh_ = 0;     // those announced since settle()
    std::uint32_t round_ = 1;
    // The table's: they do not change while a copier is at work, but for more entries.
    std::uint32_t version_ = 1;
    std::uint32_t entries_ = 0;
    std::array<Place, kPlaces> places_{};
    alignas(64) std::array<std::atomic<std::uint32_t>, kPlaces> announced_;
};

}  // namespace xenshim
