#include "xenshim/domain/grant_table.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <thread>

namespace xenshim {

using namespace abi;

namespace {

constexpr std::uint32_t kBusy = 1u << 31;
constexpr std::uint32_t kOfferTaken = 1u << 31;
// Readers in the low byte, writers above. As on Xen, when one of the counters has reached its top
// bit, neither takes any more.
constexpr std::uint32_t kReader = 1;
constexpr std::uint32_t kWriter = 1u << 8;
constexpr std::uint32_t kWriters = 0xffu << 8;
constexpr std::uint32_t kCountersFull = 0x8080;

constexpr std::uint32_t counter(bool readonly) {
    return readonly ? kReader : kWriter;
}

// How often an entry that changes under our hands is looked at again (XSA-295: never without end).
constexpr unsigned kTries = 5;

// Version 1's entry as one word: flags, domid, frame.
constexpr unsigned kDomidShift = 16;
constexpr unsigned kFrameShift = 32;

grant_entry_v2 unpack(std::uint64_t raw) {
    return {.flags = static_cast<std::uint16_t>(raw),
            .domid = static_cast<std::uint16_t>(raw >> kDomidShift),
            .page_off = 0,
            .length = 0,
            .frame = raw >> kFrameShift};
}

// Sixteen bytes at once: an aligned vector load is one access on every CPU with AVX.
grant_entry_v2 load_entry(const std::byte* at) {
    using Vector [[gnu::vector_size(16)]] = long long;
    Vector raw;
    asm volatile("movdqa %1, %0"
                 : "=x"(raw)
                 : "m"(*reinterpret_cast<const Vector*>(at))  // NOLINT: guest memory
                 : "memory");
    grant_entry_v2 out;
    std::memcpy(&out, &raw, sizeof out);
    return out;
}

template <class T>
std::atomic_ref<T> word_at(std::byte* at) {
    return std::atomic_ref(*reinterpret_cast<T*>(at));  // NOLINT: a word shared with the guest
}

std::uint16_t in_use_bits(bool readonly) {
    return static_cast<std::uint16_t>(readonly ? GTF_reading : GTF_reading | GTF_writing);
}

// A busy bit is held for a few instructions, unless its holder lost its CPU or waits for copiers;
// and they leave after some thirty pages at most.
void wait_a_little(unsigned& round) {
    constexpr unsigned kSpins = 64;
    if (++round % kSpins == 0) {
        std::this_thread::yield();
    } else {
        __builtin_ia32_pause();
    }
}

}  // namespace

// While one lives no copier is at work.
class GrantTable::CopiersRest {
  public:
    explicit CopiersRest(GrantTable& table) : table_(table) {
        table_.copying_.fetch_add(kRest);
        unsigned round = 0;
        while ((table_.copying_.load(std::memory_order_acquire) & kAllCopiers) != 0) {
            wait_a_little(round);
        }
    }
    CopiersRest(const CopiersRest&) = delete;
    CopiersRest& operator=(const CopiersRest&) = delete;
    ~CopiersRest() { table_.copying_.fetch_sub(kRest, std::memory_order_release); }

  private:
    GrantTable& table_;
};

GrantTable::GrantTable(Ports& ports, vmm::GuestMemory& memory, Physmap& physmap, Config config)
    : ports_(ports),
      memory_(memory),
      physmap_(physmap),
      config_{std::clamp<std::uint32_t>(config.max_frames, 1, kMaxGrantFrames), config.domid},
      shared_(ports.own_page(kFirstGrantPage)),
      statuses_(ports.own_page(kFirstStatusPage)),
      chunks_(config_.max_frames),
      storage_(config_.max_frames) {
    grow_locked(1);
    for (std::uint32_t i = 0; i < kCopiers; ++i) {
        copiers_[i].belong_to(*this, std::uint64_t{1} << i);
    }
}

// ---- frames and version -------------------------------------------------------------------------

bool GrantTable::grow_locked(std::uint32_t count) {
    if (count > config_.max_frames) return false;
    for (std::uint32_t i = frames(); i < count; ++i) {
        storage_[i] = std::make_unique<Active[]>(kEntriesPerChunk);
        chunks_[i].store(storage_[i].get(), std::memory_order_release);
        frames_.store(i + 1, std::memory_order_release);
    }
    return true;
}

bool GrantTable::grow_to(std::uint32_t count) {
    const std::scoped_lock lock(mutex_);
    return grow_locked(count);
}

GuestResult<void> GrantTable::place_frame(std::uint32_t index, std::uint64_t gfn) {
    const std::scoped_lock lock(mutex_);
    if (version() == 2 && (index & XENMAPIDX_grant_table_status) != 0) {
        index &= ~XENMAPIDX_grant_table_status;
        const std::uint32_t holds = status_frames_of(config_.max_frames);
        if (index >= holds) return refuse(XEN_EINVAL);
        if (index >= status_frames()) {
            // As many frames as this status frame has room for, or none.
            const std::uint32_t wanted = (index + 1) * (kMaxGrantFrames / kMaxStatusFrames);
            if (!grow_locked(wanted)) return refuse(XEN_EINVAL);
        }
        return physmap_.place_own(kFirstStatusPage + index, gfn);
    }
    if (index >= config_.max_frames || !grow_locked(index + 1)) return refuse(XEN_EINVAL);
    return physmap_.place_own(kFirstGrantPage + index, gfn);
}

// Holds every entry, but for one that is in use beyond the reserved ones: then none.
GrantStatus GrantTable::lock_all(std::uint32_t chunks, std::vector<std::uint32_t>* words) {
    const std::uint32_t count = chunks * kEntriesPerChunk;
    words->reserve(count);
    for (std::uint32_t ref = 0; ref < count; ++ref) {
        const std::uint32_t word = take_record(active(ref));
        words->push_back(word);
        if (word != 0 && ref >= GNTTAB_NR_RESERVED_ENTRIES) return GNTST_eagain;
    }
    return GNTST_okay;
}

GuestResult<void> GrantTable::set_version(std::uint32_t wanted) {
    if (wanted != 1 && wanted != 2) return refuse(XEN_EINVAL);
    const std::scoped_lock lock(mutex_);
    if (wanted == version()) return {};
    const CopiersRest rest(*this);
    std::vector<std::uint32_t> words;
    const auto unlock_all = [&] {
        for (std::uint32_t ref = 0; ref < words.size(); ++ref) {
            unlock(active(ref), words[ref]);
        }
    };
    const std::uint32_t frames = this->frames();
    if (lock_all(frames, &words) != GNTST_okay) {
        unlock_all();
        return refuse(XEN_EBUSY);
    }

    // The toolstack's entries survive, with what is in use of them.
    std::array<grant_entry_v2, GNTTAB_NR_RESERVED_ENTRIES> kept{};
    for (std::uint32_t ref = 0; ref < kept.size(); ++ref) {
        if (version() == 1) {
            kept[ref] = unpack(word_at<std::uint64_t>(entry(ref, sizeof(grant_entry_v1))).load());
            continue;
        }
        grant_entry_v2 e = load_entry(entry(ref, sizeof(grant_entry_v2)));
        const unsigned type = e.flags & GTF_type_mask;
        if (type == GTF_transitive || (type == GTF_permit_access && e.frame > UINT32_MAX)) {
            unlock_all();
            return refuse(XEN_ERANGE);  // version 1 cannot say that
        }
        if (type != GTF_permit_access) continue;
        e.flags = static_cast<std::uint16_t>(e.flags | std::atomic_ref(status_of(ref)).load());
        kept[ref] = e;
    }
    if (version() == 2) {
        for (std::uint32_t i = 0; i < status_frames(); ++i) {
            physmap_.withdraw_own(kFirstStatusPage + i);
        }
    }
    std::memset(statuses_, 0, std::size_t{status_frames_of(frames)} * vmm::kPageSize);
    std::memset(shared_, 0, std::size_t{frames} * vmm::kPageSize);
    for (std::uint32_t ref = 0; ref < kept.size(); ++ref) {
        const grant_entry_v2& e = kept[ref];
        if (wanted == 1) {
            const grant_entry_v1 v1{e.flags, e.domid, static_cast<std::uint32_t>(e.frame)};
            std::memcpy(entry(ref, sizeof v1), &v1, sizeof v1);
        } else {
            constexpr std::uint16_t kInUse = GTF_reading | GTF_writing;
            grant_entry_v2 v2{.flags = static_cast<std::uint16_t>(e.flags & ~kInUse),
                              .domid = e.domid,
                              .page_off = 0,
                              .length = 0,
                              .frame = e.frame};
            std::memcpy(entry(ref, sizeof v2), &v2, sizeof v2);
            status_of(ref) = e.flags & kInUse;
        }
    }
    version_.store(wanted, std::memory_order_release);
    unlock_all();
    return {};
}

void GrantTable::seed(std::uint32_t ref, std::uint64_t gfn) {
    const std::scoped_lock lock(mutex_);
    const grant_entry_v1 e{GTF_permit_access | GTF_reading | GTF_writing, kBackendDomain,
                           static_cast<std::uint32_t>(gfn)};
    std::memcpy(entry(ref, sizeof e), &e, sizeof e);
    Active& a = active(ref);
    a.domid = kBackendDomain;
    a.gfn = gfn;
    a.page = memory_.page(gfn);
    a.start = 0;
    a.length = vmm::kPageSize;
    a.word.store(counter(false), std::memory_order_release);
}

std::uint16_t& GrantTable::status_of(std::uint32_t ref) {
    return reinterpret_cast<std::uint16_t*>(statuses_)[ref];  // NOLINT: an array in our own pages
}

// ---- entries ------------------------------------------------------------------------------------

GrantTable::Active* GrantTable::lock(std::uint32_t ref, std::uint32_t* word, GrantStatus* status) {
    *status = GNTST_bad_gntref;
    if (ref >= entries()) return nullptr;
    Active& a = active(ref);
    unsigned round = 0;
    std::uint32_t now = 0;  // what most entries are
    while (!a.word.compare_exchange_strong(now, now | kBusy)) {
        if ((now & kBusy) == 0) continue;
        wait_a_little(round);
        now = a.word.load(std::memory_order_relaxed) & ~kBusy;
    }
    // A copier that announces the entry from here on finds it ours.
    if (announced(copying_.load() & kAllCopiers, ref)) CopiersRest{*this};
    // The version may have changed before the entry was ours; now it cannot.
    if (ref >= entries()) {
        unlock(a, now);
        return nullptr;
    }
    *word = now;
    *status = GNTST_okay;
    return &a;
}

std::uint32_t GrantTable::take_record(Active& a) {
    unsigned round = 0;
    std::uint32_t word = a.word.load(std::memory_order_relaxed);
    for (;;) {
        if ((word & kBusy) == 0 &&
            a.word.compare_exchange_weak(word, word | kBusy, std::memory_order_acquire)) {
            return word;
        }
        if ((word & kBusy) != 0) {
            wait_a_little(round);
            word = a.word.load(std::memory_order_relaxed);
        }
    }
}

std::uint16_t GrantTable::flags_of(std::uint32_t ref) {
    const std::size_t size = version() == 1 ? sizeof(grant_entry_v1) : sizeof(grant_entry_v2);
    return word_at<std::uint16_t>(entry(ref, size)).load(std::memory_order_relaxed);
}

GrantStatus GrantTable::begin_v1(const Wanted& want, bool in_use, grant_entry_v2* snapshot) {
    const auto shared = word_at<std::uint64_t>(entry(want.ref, sizeof(grant_entry_v1)));
    // A part of a page is unknown to this version, but a mapping looks for it all the same.
    const unsigned mask = want.map ? GTF_type_mask | GTF_sub_page : GTF_type_mask;
    std::uint64_t seen = shared.load(std::memory_order_relaxed);
    for (unsigned i = 0; i < kTries; ++i) {
        const grant_entry_v2 e = unpack(seen);
        if (!in_use && ((e.flags & mask) != GTF_permit_access || e.domid != want.domid)) {
            return GNTST_general_error;
        }
        if (!want.readonly && (e.flags & GTF_readonly) != 0) return GNTST_general_error;
        if (shared.compare_exchange_strong(seen, seen | in_use_bits(want.readonly))) {
            *snapshot = e;
            return GNTST_okay;
        }
    }
    return GNTST_general_error;
}

GrantStatus GrantTable::begin_v2(const Wanted& want, bool in_use, grant_entry_v2* snapshot) {
    std::byte* const shared = entry(want.ref, sizeof(grant_entry_v2));
    const auto allows = [&](const grant_entry_v2& e) {
        const unsigned type = e.flags & GTF_type_mask;
        const bool known = want.map ? type == GTF_permit_access && (e.flags & GTF_sub_page) == 0
                                    : type == GTF_permit_access || type == GTF_transitive;
        return (in_use || (known && e.domid == want.domid)) &&
               (want.readonly || (e.flags & GTF_readonly) == 0);
    };
    // An entry that is plainly not meant for this is not even marked.
    if (!allows(unpack(word_at<std::uint64_t>(shared).load(std::memory_order_relaxed)))) {
        return GNTST_general_error;
    }
    // The mark first, for all to see, then the look that counts.
    const std::atomic_ref status(status_of(want.ref));
    const std::uint16_t before = status.load(std::memory_order_relaxed);
    status.exchange(static_cast<std::uint16_t>(before | in_use_bits(want.readonly)));
    *snapshot = load_entry(shared);
    if (allows(*snapshot)) return GNTST_okay;
    status.store(in_use ? static_cast<std::uint16_t>(before & (GTF_reading | GTF_writing))
                        : std::uint16_t{0},
                 std::memory_order_release);
    return GNTST_general_error;
}

GrantStatus GrantTable::begin(const Wanted& want, bool in_use, grant_entry_v2* snapshot) {
    return version() == 1 ? begin_v1(want, in_use, snapshot) : begin_v2(want, in_use, snapshot);
}

void GrantTable::end(std::uint32_t ref, std::uint32_t word, bool readonly) {
    std::uint16_t clear = word == 0 ? GTF_reading : std::uint16_t{0};
    if (!readonly && (word & kWriters) == 0) clear |= GTF_writing;
    if (clear == 0) return;
    const auto mask = static_cast<std::uint16_t>(~clear);
    if (version() == 1) {
        word_at<std::uint16_t>(entry(ref, sizeof(grant_entry_v1))).fetch_and(mask);
        return;
    }
    const std::atomic_ref status(status_of(ref));  // the guest has no business writing here
    status.store(static_cast<std::uint16_t>(status.load(std::memory_order_relaxed) & mask),
                 std::memory_order_release);
}

// Whether `a` may have one more user; if so it is marked in the shared entry. The snapshot is
// valid when there was no user before.
GrantStatus GrantTable::admit(Active& a, const Wanted& want, std::uint32_t word,
                              grant_entry_v2* snapshot) {
    if (word != 0) {
        if (a.domid != want.domid || (word & kCountersFull) != 0 || (want.map && a.sub_page)) {
            return GNTST_general_error;
        }
        if (want.readonly || (word & kWriters) != 0) return GNTST_okay;
    }
    return begin(want, word != 0, snapshot);
}

// One level, and only to domain 0: a transitive entry names an entry of another domain's, and
// there is no other one.
GrantStatus GrantTable::follow(Active& a, const Wanted& want, const grant_entry_v2& snapshot) {
    const std::uint16_t other = snapshot.page_off;
    if (other != kBackendDomain) return GNTST_general_error;
    Held held;
    const auto ref = static_cast<std::uint32_t>(snapshot.frame);
    if (const GrantStatus status = hold_offer(ref, want.readonly, &held); status != GNTST_okay) {
        return status;
    }
    a.offer = static_cast<std::uint16_t>(ref);
    a.page = held.part.page;
    a.start = 0;
    a.length = vmm::kPageSize;
    a.sub_page = true;
    return GNTST_okay;
}

bool GrantTable::is_transitive(const grant_entry_v2& snapshot) const {
    return (snapshot.flags & GTF_type_mask) == GTF_transitive && version() == 2;
}

bool GrantTable::is_sub_page(const grant_entry_v2& snapshot) const {
    return version() == 2 && (snapshot.flags & GTF_sub_page) != 0;
}

GrantStatus GrantTable::locate(const grant_entry_v2& snapshot, GrantedPart* part) const {
    std::byte* page = memory_.page(snapshot.frame);
    if (page == nullptr) return GNTST_bad_page;
    *part = {.page = page, .start = 0, .length = vmm::kPageSize};
    if (is_sub_page(snapshot)) {
        part->start = snapshot.page_off;
        part->length = snapshot.length;
    }
    return GNTST_okay;
}

GrantStatus GrantTable::resolve_copy(Active& a, const Wanted& want,
                                     const grant_entry_v2& snapshot) {
    if (is_transitive(snapshot)) return follow(a, want, snapshot);
    GrantedPart part;
    const GrantStatus found = locate(snapshot, &part);
    if (found != GNTST_okay) return found;
    a.page = part.page;
    a.start = static_cast<std::uint16_t>(part.start);
    a.length = static_cast<std::uint16_t>(part.length);
    a.gfn = snapshot.frame;
    a.sub_page = is_sub_page(snapshot);
    return GNTST_okay;
}

// The last user is gone.
void GrantTable::forget(Active& a) {
    if (a.pinned) physmap_.release(a.gfn);
    if (a.own_page != kNoOwnPage) physmap_.release_adopted(a.own_page);
    if (a.offer != 0) release_offer(a.offer);
    a.pinned = false;
    a.own_page = kNoOwnPage;
    a.offer = 0;
    a.gfn = kNoGfn;
    a.page = nullptr;
}

GrantStatus GrantTable::hold_for_copy(std::uint16_t domid, std::uint32_t ref, bool readonly,
                                      Held* held) {
    std::uint32_t word = 0;
    GrantStatus status = GNTST_okay;
    Active* a = lock(ref, &word, &status);
    if (a == nullptr) return status;
    const Wanted want{domid, ref, readonly, false};
    grant_entry_v2 snapshot{};
    status = admit(*a, want, word, &snapshot);
    const bool marked = status == GNTST_okay;
    if (marked && word == 0) {
        a->domid = domid;
        status = resolve_copy(*a, want, snapshot);
    } else if (marked && a->offer != 0 && !readonly && offers_[a->offer].readonly) {
        // Whoever began to read through a transitive entry says nothing of writing (XSA-226).
        status = GNTST_general_error;
    }
    if (marked && status != GNTST_okay) end(ref, word, readonly);
    if (status == GNTST_okay) {
        *held = {.ref = ref,
                 .readonly = readonly,
                 .offered = false,
                 .part = {.page = a->page, .start = a->start, .length = a->length}};
        word += counter(readonly);
    }
    unlock(*a, word);
    return status;
}

void GrantTable::leave(std::uint32_t ref, bool readonly) {
    std::uint32_t word = 0;
    GrantStatus status = GNTST_okay;
    Active* a = lock(ref, &word, &status);
    if (a == nullptr) return;  // an entry in use stays one
    word -= counter(readonly);
    end(ref, word, readonly);
    if (word == 0) forget(*a);
    unlock(*a, word);
}

void GrantTable::release(const Held& held) {
    if (held.offered) {
        release_offer(held.ref);
    } else {
        leave(held.ref, held.readonly);
    }
}

// ---- copiers ------------------------------------------------------------------------------------

GrantCopier* GrantTable::enter_copier() {
    std::uint64_t copying = copying_.load(std::memory_order_relaxed);
    for (;;) {
        const unsigned free = static_cast<unsigned>(std::countr_one(copying));
        if (copying >= kRest || free == kCopiers) return nullptr;
        if (!copying_.compare_exchange_weak(copying, copying | std::uint64_t{1} << free)) continue;
        GrantCopier& out = copiers_[free];
        out.version_ = version();
        out.entries_ = entries();
        return &out;
    }
}

bool GrantTable::announced(std::uint64_t copying, std::uint32_t ref) const {
    for (; copying != 0; copying &= copying - 1) {
        const GrantCopier& other = copiers_[static_cast<std::size_t>(std::countr_zero(copying))];
        if (other.announced_[ref % GrantCopier::kPlaces].load() == ref) return true;
    }
    return false;
}

// As on Xen, also with an entry that does not exist or is in use.
GrantStatus GrantTable::swap(std::uint32_t ref_a, std::uint32_t ref_b) {
    const std::uint32_t count = entries();
    if (ref_a >= count || ref_b >= count) return GNTST_bad_gntref;
    if (ref_a == ref_b) return GNTST_okay;
    // Always in the same order, for another vCPU may swap the other way round.
    const std::uint32_t refs[] = {std::min(ref_a, ref_b), std::max(ref_a, ref_b)};
    std::uint32_t words[2] = {};
    GrantStatus status = GNTST_okay;
    Active* first = lock(refs[0], &words[0], &status);
    if (first == nullptr) return status;
    Active* second = lock(refs[1], &words[1], &status);
    if (second != nullptr && (words[0] != 0 || words[1] != 0)) {
        status = GNTST_eagain;
    } else if (second != nullptr) {
        const std::size_t size = entry_size(version());
        for (std::size_t at = 0; at < size; at += sizeof(std::uint64_t)) {
            const auto a = word_at<std::uint64_t>(entry(ref_a, size) + at);
            const auto b = word_at<std::uint64_t>(entry(ref_b, size) + at);
            b.store(a.exchange(b.load()));
        }
        if (version() == 2) {
            const std::atomic_ref a(status_of(ref_a)), b(status_of(ref_b));
            b.store(a.exchange(b.load()));
        }
    }
    if (second != nullptr) unlock(*second, words[1]);
    unlock(*first, words[0]);
    return status;
}

// ---- mappings -----------------------------------------------------------------------------------

GrantTable::SelfMapping GrantTable::map_self(std::uint32_t ref, bool readonly,
                                             std::optional<std::uint64_t> at) {
    std::uint32_t word = 0;
    GrantStatus status = GNTST_okay;
    Active* a = lock(ref, &word, &status);
    if (a == nullptr) return {status, false};
    const Wanted want{config_.domid, ref, readonly, true};
    grant_entry_v2 snapshot{};
    const std::uint32_t before = word;
    status = admit(*a, want, word, &snapshot);
    const bool marked = status == GNTST_okay;
    // Xen gives a translated guest no mapping with caching of its own (create_grant_p2m_mapping).
    // It asks the entry as it is now; so may we, for nothing else depends on the answer.
    const bool cached = marked && (flags_of(ref) & (GTF_PWT | GTF_PCD | GTF_PAT)) != 0;
    if (cached) at.reset();
    if (status == GNTST_okay && word == 0) {
        if (memory_.page(snapshot.frame) == nullptr) status = GNTST_bad_page;
    } else if (status == GNTST_okay && at && a->own_page == kNoOwnPage) {
        status = GNTST_eagain;  // a copy is going on, from where the page still is
    }
    auto shown = Physmap::Shown::kDone;
    const MemType type = readonly ? MemType::kRamRo : MemType::kRamRw;  // p2m_grant_map_{ro,rw}
    if (status == GNTST_okay && at && word == 0) {
        std::uint32_t own_page = 0;
        shown = physmap_.adopt(snapshot.frame, *at, &own_page, type);
        if (shown == Physmap::Shown::kDone) {
            show_own(*a, own_page);
        }
    } else if (status == GNTST_okay && at) {
        shown = physmap_.show_adopted(a->own_page, *at, type);
    }
    if (shown != Physmap::Shown::kDone) status = GNTST_general_error;
    if (status == GNTST_okay && cached) status = GNTST_general_error;
    if (status == GNTST_okay && at) {
        word += counter(readonly);
    } else if (marked) {
        end(ref, before, readonly);
    }
    unlock(*a, word);
    return {status, shown == Physmap::Shown::kGrantThere};
}

void GrantTable::show_own(Active& a, std::uint32_t own_page) {
    a.domid = config_.domid;
    a.sub_page = false;
    a.start = 0;
    a.length = vmm::kPageSize;
    a.own_page = static_cast<std::uint16_t>(own_page);
    a.page = ports_.own_page(own_page);
}

void GrantTable::retake_self(std::uint32_t ref, bool readonly, std::uint32_t own_page) {
    Active& a = active(ref);
    const std::uint32_t word = take_record(a);
    if (word == 0 && physmap_.hold_adopted(own_page)) show_own(a, own_page);
    unlock(a, word + counter(readonly));
}

void GrantTable::unmap_self(std::uint32_t ref, bool readonly) {
    leave(ref, readonly);
}

std::uint32_t GrantTable::own_page_of(std::uint32_t ref) {
    std::uint32_t word = 0;
    GrantStatus status = GNTST_okay;
    Active* a = lock(ref, &word, &status);
    if (a == nullptr) return kNoOwnPage;
    const std::uint32_t page = a->own_page;
    unlock(*a, word);
    return page;
}

GrantTable::BackendMapping GrantTable::map(std::uint32_t ref, bool readonly) {
    BackendMapping out{.ref = ref, .readonly = readonly};
    std::uint32_t word = 0;
    Active* a = lock(ref, &word, &out.status);
    if (a == nullptr) return out;
    const Wanted want{kBackendDomain, ref, readonly, true};
    grant_entry_v2 snapshot{};
    out.status = admit(*a, want, word, &snapshot);
    if (out.status == GNTST_okay && !a->pinned) {
        // Another user may be a copy, which holds the page for its own length only.
        const std::uint64_t gfn = word == 0 ? snapshot.frame : a->gfn;
        std::byte* page = physmap_.hold(gfn);
        if (page == nullptr) {
            out.status = GNTST_bad_page;
            end(ref, word, readonly);
        } else {
            a->domid = kBackendDomain;
            a->gfn = gfn;
            a->page = page;
            a->pinned = true;
            if (word == 0) {
                a->sub_page = false;
                a->start = 0;
                a->length = vmm::kPageSize;
            }
        }
    }
    if (out.status == GNTST_okay) {
        out.page = a->page;
        word += counter(readonly);
    }
    unlock(*a, word);
    return out;
}

void GrantTable::unmap(const BackendMapping& mapping) {
    if (mapping.page != nullptr) leave(mapping.ref, mapping.readonly);
}

GrantStatus GrantTable::copy_from(std::uint32_t ref, std::uint16_t offset,
                                  std::span<std::byte> to) {
    if (offset + to.size() > vmm::kPageSize) return GNTST_bad_copy_arg;
    Held held;
    const GrantStatus status = hold_for_copy(kBackendDomain, ref, true, &held);
    if (status != GNTST_okay) return status;
    const bool inside = held.part.holds(offset, to.size());
    if (inside && !to.empty()) std::memcpy(to.data(), held.part.page + offset, to.size());
    release(held);
    return inside ? GNTST_okay : GNTST_general_error;
}

GrantStatus GrantTable::copy_to(std::uint32_t ref, std::uint16_t offset,
                                std::span<const std::byte> from) {
    if (offset + from.size() > vmm::kPageSize) return GNTST_bad_copy_arg;
    Held held;
    const GrantStatus status = hold_for_copy(kBackendDomain, ref, false, &held);
    if (status != GNTST_okay) return status;
    const bool inside = held.part.holds(offset, from.size());
    if (inside && !from.empty()) std::memcpy(held.part.page + offset, from.data(), from.size());
    release(held);
    return inside ? GNTST_okay : GNTST_general_error;
}

// ---- domain 0's table ---------------------------------------------------------------------------

std::uint32_t GrantTable::offer(std::byte* page, bool readonly) {
    const std::scoped_lock lock(mutex_);
    for (std::uint32_t ref = GNTTAB_NR_RESERVED_ENTRIES; ref < kOffers; ++ref) {
        Offer& o = offers_[ref];
        if (o.uses.load(std::memory_order_acquire) != 0 || o.awaited) continue;
        o.page = page;
        o.readonly = readonly;
        o.uses.store(kOfferTaken, std::memory_order_release);
        return ref;
    }
    return 0;
}

bool GrantTable::withdraw(std::uint32_t ref) {
    if (ref >= kOffers) return false;
    std::uint32_t idle = kOfferTaken;
    return offers_[ref].uses.compare_exchange_strong(idle, 0);
}

GrantStatus GrantTable::hold_offer(std::uint32_t ref, bool readonly, Held* held) {
    if (ref >= kOffers) return GNTST_bad_gntref;
    Offer& o = offers_[ref];
    std::uint32_t uses = o.uses.load(std::memory_order_relaxed);
    do {
        if ((uses & kOfferTaken) == 0) return GNTST_general_error;
    } while (!o.uses.compare_exchange_weak(uses, uses + 1, std::memory_order_acquire));
    if (o.readonly && !readonly) {
        o.uses.fetch_sub(1, std::memory_order_release);
        return GNTST_general_error;
    }
    *held = {.ref = ref,
             .readonly = readonly,
             .offered = true,
             .part = {.page = o.page, .start = 0, .length = vmm::kPageSize}};
    return GNTST_okay;
}

void GrantTable::release_offer(std::uint32_t ref) {
    offers_[ref].uses.fetch_sub(1, std::memory_order_release);
}

// ---- saved and restored -------------------------------------------------------------------------

GrantTable::State GrantTable::snapshot() const {
    const std::scoped_lock lock(mutex_);
    State state{.version = version(), .frames = frames(), .backend_uses = {}, .offers = {}};
    for (std::uint32_t ref = 0; ref < entries(); ++ref) {
        Active& a = active(ref);
        if (a.word.load(std::memory_order_relaxed) == 0) continue;
        const std::uint32_t word = take_record(a);
        // Backends alone pin; what the toolstack seeded is made again.
        if (a.pinned) state.backend_uses.push_back({ref, a.gfn, (word & kWriters) != 0});
        unlock(a, word);
    }
    for (std::uint32_t ref = 0; ref < kOffers; ++ref) {
        const Offer& o = offers_[ref];
        if (o.awaited || o.uses.load() != 0) state.offers.push_back({ref, o.readonly});
    }
    return state;
}

std::string GrantTable::refusal(const State& state) const {
    if (state.version != 1 && state.version != 2) return "version: neither 1 nor 2";
    if (state.frames == 0 || state.frames > config_.max_frames) {
        return "frames: " + std::to_string(state.frames) + ", there may be " +
               std::to_string(config_.max_frames);
    }
    const std::uint32_t count = state.frames * per_frame(state.version);
    for (std::size_t i = 0; i < state.backend_uses.size(); ++i) {
        const auto& [ref, gfn, writes] = state.backend_uses[i];
        const std::string which = "backend_uses[" + std::to_string(i) + "].";
        if (ref >= count) return which + "ref: there is no such entry";
        if (i != 0 && ref <= state.backend_uses[i - 1].ref) return which + "ref: out of order";
        // The fresh table has nothing but what was seeded, in its first frame.
        const bool seeded = ref < kEntriesPerChunk && active(ref).word.load() != 0;
        if (seeded && active(ref).gfn != gfn) return which + "gfn: not what the toolstack granted";
    }
    for (std::size_t i = 0; i < state.offers.size(); ++i) {
        const std::uint32_t ref = state.offers[i].ref;
        const std::string which = "offers[" + std::to_string(i) + "].";
        if (ref < GNTTAB_NR_RESERVED_ENTRIES || ref >= kOffers) {
            return which + "ref: there is no such entry";
        }
        if (i != 0 && ref <= state.offers[i - 1].ref) return which + "ref: out of order";
        const Offer& o = offers_[ref];
        if (o.awaited || o.uses.load() != 0) return which + "ref: offered already";
    }
    return {};
}

vmm::Expected<void, std::string> GrantTable::adopt(const State& state) {
    const std::scoped_lock lock(mutex_);
    if (const std::string why = refusal(state); !why.empty()) return vmm::Failure{why};
    // Also what the guest has given back since: it is there for as long as it is held.
    std::vector<std::byte*> pages;
    for (const GrantUseState& use : state.backend_uses) {
        std::byte* page = physmap_.hold_again(use.gfn);
        if (page == nullptr) {
            for (std::size_t i = 0; i < pages.size(); ++i) {
                physmap_.release(state.backend_uses[i].gfn);
            }
            return vmm::Failure{"backend_uses[" + std::to_string(pages.size()) +
                                "].gfn: there is no page"};
        }
        pages.push_back(page);
    }
    grow_locked(state.frames);
    version_.store(state.version, std::memory_order_release);
    for (std::size_t i = 0; i < pages.size(); ++i) {
        claim_locked(state.backend_uses[i], pages[i]);
    }
    for (const GrantOfferState& offer : state.offers) {
        offers_[offer.ref].awaited = true;
        offers_[offer.ref].readonly = offer.readonly;
    }
    return {};
}

// As map() has left it, whatever the entry says by now. `page` is held.
void GrantTable::claim_locked(const GrantUseState& use, std::byte* page) {
    const bool readonly = !use.writes;
    Active& a = active(use.ref);
    const std::uint32_t word = take_record(a);
    a.domid = kBackendDomain;
    a.start = 0;
    a.length = vmm::kPageSize;
    a.gfn = use.gfn;
    a.page = page;
    a.pinned = true;
    unlock(a, word + counter(readonly));
    claims_.push_back({.status = GNTST_okay, .ref = use.ref, .readonly = readonly, .page = page});
}

bool GrantTable::offer_again(std::uint32_t ref, std::byte* page) {
    const std::scoped_lock lock(mutex_);
    if (ref >= kOffers || !offers_[ref].awaited) return false;
    Offer& o = offers_[ref];
    o.awaited = false;
    o.page = page;
    o.uses.store(kOfferTaken, std::memory_order_release);
    return true;
}

void GrantTable::release_claims() {
    std::vector<BackendMapping> claims;
    {
        const std::scoped_lock lock(mutex_);
        claims.swap(claims_);
    }
    for (const BackendMapping& claim : claims) {
        unmap(claim);
    }
}

}  // namespace xenshim
