// The guest's physical memory map: which gfn holds RAM, one of our own pages (shared_info, a grant
// frame), or nothing; and the accounts that memory_op reports. Answers as measured on Xen 4.17.7.
//
// RAM lies in slots that never change shape. A page that the guest gives back becomes a hole: its
// host memory is freed at once, or soon, and it no longer counts, but KVM cannot take one page out
// of a slot, so a guest that touches it all the same reads zeroes (on Xen: ones) and makes the host
// spend a page again, which housekeeping finds and frees (reclaim_touched).
#pragma once

#include <array>
#include <atomic>
#include <bitset>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "vmm/base/polite_mutex.h"
#include "vmm/memory/guest_memory.h"
#include "xenshim/abi/errno.h"
#include "xenshim/domain/page_types.h"
#include "xenshim/domain/physmap_state.h"
#include "xenshim/domain/ports.h"

namespace xenshim {

class Physmap {
  public:
    using State = PhysmapState;
    struct Accounts {
        std::uint64_t current = 0;  // pages that the domain has
        std::uint64_t maximum = 0;  // pages that it may have
        std::uint64_t highest_gfn = 0;
    };
    Physmap(Ports& ports, vmm::GuestMemory& memory, Accounts at_start);

    Accounts accounts() const;

    // An extent of `pages` given back, page by page as on Xen: false when one of them was not
    // there, and then those before it are gone.
    bool decrease(std::uint64_t gfn, std::uint64_t pages = 1);
    // The same for many extents: what is given back is a hole at once, as always, but its host
    // memory is freed later, neighbours together, and large pieces not before free_some_owed().
    // Each freeing costs the host a flush of all the vCPUs' TLBs, and a balloon driver names its
    // pages one by one.
    class GivingBack;
    // What is left to be freed of larger pieces, which is freed bit by bit: whoever gave them back
    // goes on until an event is due for it, and then with its next entry; housekeeping frees what a
    // guest has left by never coming back.
    bool owes() const { return owes_.load(std::memory_order_relaxed); }
    // As much as an event may wait for; whether some is left.
    bool free_some_owed();
    void free_owed();
    // An extent taken. False, and nothing changed, when the account has no room for all of it or
    // it ends outside the address space. What was there is replaced without a word; RAM that was
    // there stays on the account for ever, as measured: Xen forgets the frame but not its owner.
    bool populate(std::uint64_t gfn, std::uint64_t pages = 1);
    // Pages allotted without a place in the map (increase_reservation of a translated guest).
    bool increase(std::uint64_t pages = 1);

    // XENMEM_add_to_physmap: our page `page` at `gfn`, away from where it was.
    GuestResult<void> place_own(std::uint32_t page, std::uint64_t gfn);
    // XENMAPSPACE_gmfn: what is at `from`, RAM or an own page, moves to `to`.
    GuestResult<void> move(std::uint64_t from, std::uint64_t to);
    // XENMEM_remove_from_physmap.
    GuestResult<void> remove(std::uint64_t gfn);

    // A page of our own leaves the map, and may come back even when its gfn was given back.
    void withdraw_own(std::uint32_t page);

    // ---- granted pages --------------------------------------------------------------------------

    // The page at `gfn`, held: what the guest gives back meanwhile stays until release(). Null:
    // nothing is there.
    std::byte* hold(std::uint64_t gfn);
    void release(std::uint64_t gfn);

    // On Xen a page of its own that a translated guest maps by a grant leaves the gfn where it was
    // (p2m_add_page: a machine frame has one place), and is at no gfn any more when it is unmapped
    // again; it counts as the domain's all the time. So the content moves into a page of ours, to
    // be shown wherever it is mapped.
    //
    // The page at `from` becomes `*page`, held once and shown at `to`, as RAM of type `type`. When
    // it cannot be shown there, or cannot be taken (nothing is there, somebody holds it, none of
    // ours is free), it stays where it is.
    enum class Shown { kDone, kRefused, kGrantThere };
    Shown adopt(std::uint64_t from, std::uint64_t to, std::uint32_t* page,
                MemType type = MemType::kRamRw);
    void release_adopted(std::uint32_t page);
    // Whether a vCPU could look at `gfn`.
    bool in_reach(std::uint64_t gfn) const { return gfn < ports_.gfn_limit(); }
    // In one place more.
    Shown show_adopted(std::uint32_t page, std::uint64_t gfn, MemType type = MemType::kRamRw);
    // False: something else is there.
    bool hide_adopted(std::uint32_t page, std::uint64_t gfn);

    // Frees the host memory of a page that was given back and touched since. False: it is no such.
    bool free_touched(std::uint64_t gfn);

    // Where an own page is now; kNoGfn: nowhere. Takes no lock: each hypercall asks.
    std::uint64_t gfn_of_own(std::uint32_t page) const { return gfn_of_[page].load(); }
    bool has_ram(std::uint64_t gfn) const;
    // Whether anything (RAM or an own page) is there.
    bool is_mapped(std::uint64_t gfn) const;

    // gfns at or above this one do not exist: Xen's p2m has four levels, whatever the CPU can
    // address.
    static constexpr std::uint64_t kGfnLimit = std::uint64_t{1} << 36;
    // What a device model may do with pages. A gfn where nothing is has the type mmio_dm.
    MemType mem_type(std::uint64_t gfn) const;
    // False: not from what is there now (XSA-92: RAM becomes anything, a hole only mmio_dm).
    bool set_mem_type(std::uint64_t gfn, MemType type);
    // A page that the device model wrote to. They are counted; nobody reads a log of them yet.
    void mark_modified(std::uint64_t gfn);
    std::uint64_t modified_pages() const;

    // ---- saved and restored (physmap_saved.cc) --------------------------------------------------

    State snapshot() const;
    // The content of the guest's memory is there before, that of our own pages and of pages outside
    // the slots comes after (own_pages.h). Who held a page or had one adopted takes it again, and
    // when all have, settle() lets go of what nobody took.
    vmm::Expected<void, std::string> adopt(const State& state);
    // As hold() at the time when the state was taken, and before: also of a page that was given
    // back since.
    std::byte* hold_again(std::uint64_t gfn);
    // The holder that adopt() and release_adopted() count. False: this page is not adopted.
    bool hold_adopted(std::uint32_t page);
    void settle();
    // Pages whose content is neither in the slots nor always there, upwards.
    std::vector<std::uint32_t> adopted_pages() const;
    std::vector<std::uint64_t> pages_outside_slots() const;

  private:
    enum class Kind { kNothing, kRam, kOwn, kGranted };
    Kind kind_locked(std::uint64_t gfn) const;
    // Empties `gfn`, whatever is there.
    void clear_locked(std::uint64_t gfn);
    bool put_ram_locked(std::uint64_t gfn);
    void note_mapped_locked(std::uint64_t gfn);
    // Pages from `gfn` on, `most` at most, before the first own or granted page.
    std::uint64_t until_own_locked(std::uint64_t gfn, std::uint64_t most) const;
    GuestResult<void> place_own_locked(std::uint32_t page, std::uint64_t gfn);
    // A place that Xen has and this CPU cannot address: nobody can look, so nothing is shown.
    bool show_locked(std::uint64_t gfn, std::uint32_t page);
    void hide_locked(std::uint64_t gfn);
    bool populate_one_locked(std::uint64_t gfn);
    std::uint64_t unheld_run_locked(std::uint64_t gfn, std::uint64_t most);
    // Pages in one piece, of a slot.
    struct Run {
        std::uint64_t gfn = 0;
        std::uint64_t pages = 0;
    };
    bool decrease_locked(std::uint64_t gfn, std::uint64_t pages, GivingBack& batch);
    void free_holes_locked(Run run);
    void owe_locked(Run run);
    void free_some_owed_locked();
    Shown show_adopted_locked(std::uint32_t page, std::uint64_t gfn, MemType type);
    void drop_adopted_locked(std::uint32_t page);
    void take_away_granted_locked(std::uint64_t gfn);
    bool cover_locked(std::uint64_t gfn, Kind before);
    vmm::Expected<void, std::string> check(const State& state) const;
    vmm::Expected<void, std::string> show_all_locked(const State& state);

    Ports& ports_;
    vmm::GuestMemory& memory_;
    // What is freed at once is freed with the map locked, and an event waits for that. Measured,
    // memory that was in use: 4 us for a page that lies alone, 33 us for 32 in one piece (1.02 us
    // each; 0.93 in pieces of 64, 0.86 in pieces of 512).
    static constexpr std::uint64_t kMostFreedAtOnce = 32;

    mutable vmm::PoliteMutex mutex_;
    Accounts accounts_;
    std::map<std::uint64_t, std::uint32_t> own_at_;  // gfn -> own page
    std::array<std::atomic<std::uint64_t>, kOwnPages> gfn_of_;
    std::set<std::uint64_t> outside_;                      // RAM pages outside the slots
    std::map<std::uint64_t, std::uint32_t> held_outside_;  // gfn -> how often
    std::set<std::uint64_t> leaving_;  // held pages outside the slots that were given back
    std::map<std::uint64_t, std::uint32_t> granted_at_;  // gfn -> own page
    // A page that a grant has mapped. One that is given back meanwhile is counted until the last
    // mapping goes, however many places it had: its memory is there as long.
    struct Adopted {
        std::uint32_t uses = 0;  // holders and places
        bool given_back = false;
    };
    std::map<std::uint32_t, Adopted> adopted_;  // by own page
    PageTypes types_;                           // of what is mapped
    std::uint64_t modified_ = 0;
    unsigned batches_ = 0;  // that may hold pages back
    // Holes but for what was populated since. No more than an extent for each vCPU: none gives back
    // another one before all is freed.
    std::vector<Run> owed_;
    std::atomic<bool> owes_{false};  // whether there are any
    // Grant frames whose gfn was given back: gone for good, as on Xen.
    std::bitset<kOwnPages> lost_;
};

class Physmap::GivingBack {
  public:
    explicit GivingBack(Physmap& physmap);
    GivingBack(const GivingBack&) = delete;
    GivingBack& operator=(const GivingBack&) = delete;
    ~GivingBack();

    bool decrease(std::uint64_t gfn, std::uint64_t pages = 1);
    // Whether memory was freed since the last time that this was asked: then an extent has cost as
    // much as all those before it that only waited for it.
    bool freed() { return std::exchange(freed_, false); }

  private:
    friend class Physmap;
    // Besides kMostFreedAtOnce pages.
    static constexpr std::size_t kMostRuns = 8;

    void add_locked(Run run);
    void free_all_locked();

    Physmap& physmap_;
    std::array<Run, kMostRuns> runs_;
    std::size_t count_ = 0;
    std::uint64_t pages_ = 0;
    bool freed_ = false;
};

}  // namespace xenshim
