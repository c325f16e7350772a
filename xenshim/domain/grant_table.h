// The grant table of a guest, versions 1 and 2: its frames, which entries are in use and by whom.
//
// The guest writes entries while we look at them. An entry's use begins with one atomic snapshot
// of it; what it says is judged and kept in our own Active record, and never read again while the
// entry is in use (XSA-500). That it is in use stands in the shared entry (version 1) or in the
// status frames (version 2), set before the snapshot counts, so that a guest which withdraws an
// entry either sees us or is seen.
//
// No lock spans more than one entry: an Active record has a busy bit, held for the few
// instructions of a change. A guest's copies do without: see grant_copier.h.
//
// Two domains use entries: the guest itself (a domain may grant to itself) and domain 0, where our
// backends live. Domain 0 has a table of one frame, whose entries are what backends offer.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/memory/guest_memory.h"
#include "xenshim/abi/errno.h"
#include "xenshim/abi/numbers.h"
#include "xenshim/abi/structs.h"
#include "xenshim/domain/grant_copier.h"
#include "xenshim/domain/grant_state.h"
#include "xenshim/domain/physmap.h"
#include "xenshim/domain/ports.h"

namespace xenshim {

inline constexpr std::uint16_t kBackendDomain = 0;

class GrantTable {
  public:
    struct Config {
        std::uint32_t max_frames = 64;
        std::uint16_t domid = 1;
    };
    GrantTable(Ports& ports, vmm::GuestMemory& memory, Physmap& physmap, Config config);

    // ---- set-up ---------------------------------------------------------------------------------

    std::uint32_t frames() const { return frames_.load(std::memory_order_acquire); }
    std::uint32_t max_frames() const { return config_.max_frames; }
    std::uint32_t version() const { return version_.load(std::memory_order_acquire); }
    std::uint16_t domid() const { return config_.domid; }
    std::uint32_t status_frames() const { return version() == 2 ? status_frames_of(frames()) : 0; }
    // How many entries the guest has.
    std::uint32_t entries() const { return frames() * per_frame(version()); }

    // Makes at least `count` frames; false when that is more than there may be.
    bool grow_to(std::uint32_t count);
    // XENMAPSPACE_grant_table: grant frame `index`, or with bit 31 in version 2 a status frame, at
    // `gfn`; the table grows to hold it.
    GuestResult<void> place_frame(std::uint32_t index, std::uint64_t gfn);
    GuestResult<void> set_version(std::uint32_t wanted);
    // One of the reserved entries, as the toolstack leaves it: a page that a daemon of domain 0's
    // has mapped from the start. The page is not held, for the daemon looks where the gfn is.
    // Before vCPUs run.
    void seed(std::uint32_t ref, std::uint64_t gfn);
    GrantStatus swap(std::uint32_t a, std::uint32_t b);

    // ---- a use of an entry ----------------------------------------------------------------------

    // While one lives the entry is in use, and what it gives access to stays where it is.
    struct Held {
        std::uint32_t ref = 0;
        bool readonly = false;
        bool offered = false;  // an entry of domain 0's
        GrantedPart part;
    };

    // For one copy by `domid`. Waits for copiers: not from one that is at work.
    GrantStatus hold_for_copy(std::uint16_t domid, std::uint32_t ref, bool readonly, Held* held);
    // The same of an entry of domain 0's.
    GrantStatus hold_offer(std::uint32_t ref, bool readonly, Held* held);
    void release(const Held& held);

    // A copier to work with until its leave(). Null: all are taken, or they are to rest.
    GrantCopier* enter_copier();

    // ---- mapped by the guest itself (grant_maps.h) ----------------------------------------------

    struct SelfMapping {
        GrantStatus status;
        bool grant_there;  // a grant is mapped at that place already
    };
    // The entry in use by the guest until unmap_self(), and its page shown at `at`; unless it is
    // okay, nothing has changed. Without `at` it is only asked whether the entry could be mapped.
    SelfMapping map_self(std::uint32_t ref, bool readonly, std::optional<std::uint64_t> at);
    void unmap_self(std::uint32_t ref, bool readonly);
    // The own page of an entry that the guest has mapped.
    std::uint32_t own_page_of(std::uint32_t ref);
    // How many readers an entry can have, and how many writers.
    static constexpr std::uint32_t kMostUses = 0x80;
    bool in_use(std::uint32_t ref) { return active(ref).word.load() != 0; }
    // A restored mapping of an entry that there is, whose page the physmap has: nobody but the
    // guest has it in use, and by no other page. The entry itself is not asked.
    void retake_self(std::uint32_t ref, bool readonly, std::uint32_t own_page);

    // ---- domain 0's side: backends --------------------------------------------------------------

    // A page of the guest's that a backend works with. No guest action takes it away.
    struct BackendMapping {
        GrantStatus status = abi::GNTST_general_error;
        std::uint32_t ref = 0;
        bool readonly = false;
        std::byte* page = nullptr;  // null unless the status is GNTST_okay
    };
    BackendMapping map(std::uint32_t ref, bool readonly);
    void unmap(const BackendMapping& mapping);
    // From or to the page that an entry gives access to.
    GrantStatus copy_from(std::uint32_t ref, std::uint16_t offset, std::span<std::byte> to);
    GrantStatus copy_to(std::uint32_t ref, std::uint16_t offset, std::span<const std::byte> from);

    // A page of the backend's own that the guest may copy from, and to unless it is read-only; by
    // which reference, beginning with 8. 0: no more may be offered. It stays valid until
    // withdraw() has answered true; false: a copy is going on.
    std::uint32_t offer(std::byte* page, bool readonly);
    bool withdraw(std::uint32_t ref);

    // ---- saved and restored (grant_state.h) -----------------------------------------------------

    using State = GrantTableState;
    // While no vCPU runs and no backend copies.
    State snapshot() const;
    // After memory and the physmap, and after seed(). The table has no other uses yet.
    vmm::Expected<void, std::string> adopt(const State& state);
    // A restored offer, which nobody could take meanwhile: by its backend. False: there is no such
    // one.
    bool offer_again(std::uint32_t ref, std::byte* page);
    // Backends have mapped what they want: entries that they had in use at the save, and do not
    // any more, are the guest's again. After the own pages' contents, before vCPUs run.
    void release_claims();

  private:
    friend class GrantCopier;
    class CopiersRest;

    static constexpr std::uint32_t kEntriesPerChunk = 512;  // a frame's, in version 1
    static constexpr std::uint32_t kOffers = 512;           // a table of one frame
    static constexpr std::uint32_t kCopiers = 16;           // the next copy goes the slow way
    static constexpr std::uint64_t kAllCopiers = (1u << kCopiers) - 1;
    static constexpr std::uint64_t kRest = 1u << kCopiers;

    // What the use of an entry that began first found in it; guarded by the busy bit.
    struct alignas(32) Active {
        // kBusy, and how many readers and writers there are.
        std::atomic<std::uint32_t> word{0};
        std::uint16_t domid = 0;
        std::uint16_t start = 0;
        std::uint16_t length = 0;
        bool sub_page = false;    // also of a transitive entry, for neither can be mapped
        bool pinned = false;      // the physmap holds `gfn` for us
        std::uint16_t offer = 0;  // transitive: whose page it is
        std::uint16_t own_page = kNoOwnPage;
        std::uint64_t gfn = kNoGfn;
        std::byte* page = nullptr;
    };
    struct Offer {
        // kOfferTaken, and how many copies are going on.
        std::atomic<std::uint32_t> uses{0};
        std::byte* page = nullptr;
        bool readonly = false;
        bool awaited = false;  // restored, and not offered again yet; guarded by mutex_
    };
    // A use of an entry that is being begun.
    struct Wanted {
        std::uint16_t domid;
        std::uint32_t ref;
        bool readonly;
        bool map;
    };

    static constexpr std::uint16_t kNoOwnPage = 0;
    static_assert(kOwnPages <= UINT16_MAX);
    static constexpr std::uint32_t per_frame(std::uint32_t version) {
        return version == 1 ? kEntriesPerChunk : kEntriesPerChunk / 2;
    }
    static constexpr std::size_t entry_size(std::uint32_t version) {
        return version == 1 ? sizeof(abi::grant_entry_v1) : sizeof(abi::grant_entry_v2);
    }
    static constexpr std::uint32_t status_frames_of(std::uint32_t frames) {
        constexpr std::uint32_t kPerStatusFrame = kMaxGrantFrames / kMaxStatusFrames;
        return (frames + kPerStatusFrame - 1) / kPerStatusFrame;
    }

    std::byte* entry(std::uint32_t ref, std::size_t size) { return shared_ + ref * size; }
    std::uint16_t& status_of(std::uint32_t ref);
    std::uint16_t flags_of(std::uint32_t ref);
    Active& active(std::uint32_t ref) const {
        return chunks_[ref / kEntriesPerChunk].load(
            std::memory_order_acquire)[ref % kEntriesPerChunk];
    }
    // The record of `ref` with its busy bit ours, and the word without it; no copier has the
    // entry. Null: no such entry.
    Active* lock(std::uint32_t ref, std::uint32_t* word, GrantStatus* status);
    // The same of a record that may be in use by anybody but copiers.
    static std::uint32_t take_record(Active& a);
    static void unlock(Active& a, std::uint32_t word) {
        a.word.store(word, std::memory_order_release);
    }
    bool grow_locked(std::uint32_t count);
    // Entry `ref`, which there is, will be looked at soon.
    void prefetch(std::uint32_t ref, std::uint32_t version) {
        __builtin_prefetch(&active(ref));
        __builtin_prefetch(entry(ref, entry_size(version)), 1);
    }
    // Whether one of the copiers that are at work by `copying` has announced `ref`.
    bool announced(std::uint64_t copying, std::uint32_t ref) const;

    GrantStatus begin(const Wanted& want, bool in_use, abi::grant_entry_v2* snapshot);
    GrantStatus begin_v1(const Wanted& want, bool in_use, abi::grant_entry_v2* snapshot);
    GrantStatus begin_v2(const Wanted& want, bool in_use, abi::grant_entry_v2* snapshot);
    // Takes back the in-use bits that `word` users do not need.
    void end(std::uint32_t ref, std::uint32_t word, bool readonly);
    GrantStatus admit(Active& a, const Wanted& want, std::uint32_t word,
                      abi::grant_entry_v2* snapshot);
    bool is_transitive(const abi::grant_entry_v2& snapshot) const;
    bool is_sub_page(const abi::grant_entry_v2& snapshot) const;
    GrantStatus locate(const abi::grant_entry_v2& snapshot, GrantedPart* part) const;
    GrantStatus resolve_copy(Active& a, const Wanted& want, const abi::grant_entry_v2& snapshot);
    GrantStatus follow(Active& a, const Wanted& want, const abi::grant_entry_v2& snapshot);
    void forget(Active& a);
    void show_own(Active& a, std::uint32_t own_page);
    std::string refusal(const State& state) const;
    void claim_locked(const GrantUseState& use, std::byte* page);
    void leave(std::uint32_t ref, bool readonly);
    void release_offer(std::uint32_t ref);
    GrantStatus lock_all(std::uint32_t chunks, std::vector<std::uint32_t>* words);

    Ports& ports_;
    vmm::GuestMemory& memory_;
    Physmap& physmap_;
    const Config config_;
    std::byte* const shared_;  // the frames, one after the other
    std::byte* const statuses_;
    mutable std::mutex mutex_;  // growth, the version's change, offers, claims
    std::atomic<std::uint32_t> frames_{0};
    std::atomic<std::uint32_t> version_{1};
    std::vector<std::atomic<Active*>> chunks_;  // one per frame
    std::vector<std::unique_ptr<Active[]>> storage_;
    std::array<Offer, kOffers> offers_;
    std::vector<BackendMapping> claims_;  // of entries that backends had mapped at the save
    // Which copiers are at work, and above them how many want them to rest.
    std::atomic<std::uint64_t> copying_{0};
    std::array<GrantCopier, kCopiers> copiers_;
};

}  // namespace xenshim
