// Guest physical memory as the VMM sees it.
//
// The guest may rewrite its RAM while we look at it, so nothing here hands out a pointer to code
// that parses guest data: a value is copied once into host memory, judged there and used from
// there. Ring indices, event bits and other words that the guest changes at the same time are
// read and written as single atomic words.
//
// Memory is a few fixed regions (RAM below and above the hole, the special pages, ACPI), added
// before the first vCPU runs and never removed, and single pages outside them that come and go
// (overlays, pages populated outside RAM). A page inside a region may be a hole: the guest gave
// it back. Accesses to holes and to addresses with nothing behind them fail.
#pragma once

#include <atomic>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <type_traits>
#include <vector>

#include "vmm/base/writers_first.h"
#include "vmm/memory/address.h"

namespace vmm {

// Types that may be copied to the guest: no padding, so that no host byte leaks out.
template <class T>
concept Plain = std::is_trivially_copyable_v<T> &&
    (std::has_unique_object_representations_v<T> || std::is_array_v<T>);

class GuestMemory {
  public:
    GuestMemory() = default;
    GuestMemory(const GuestMemory&) = delete;
    GuestMemory& operator=(const GuestMemory&) = delete;

    // Adds `size` bytes (page multiple) at `base`, backed by `host` for the life of this object.
    // Regions do not overlap. Only before vCPUs run.
    void add_region(Gpa base, std::uint64_t size, std::byte* host);

    // A single page outside every region; `host` must stay mapped for the life of this object.
    void add_page(std::uint64_t gfn, std::byte* host);
    void remove_page(std::uint64_t gfn);

    // A page that is not the guest's own memory (a grant is mapped there): its CPUs reach it like
    // any other, but nothing that it passes to us by a linear address may lie there (LinearMemory).
    void set_foreign(std::uint64_t gfn, bool foreign);
    bool is_foreign(std::uint64_t gfn) const {
        return any_foreign_.load(std::memory_order_relaxed) && find_foreign(gfn);
    }

    // Marks pages inside one region as given back (true) or there again (false).
    void set_holes(std::uint64_t gfn, std::uint64_t count, bool hole);
    void set_hole(std::uint64_t gfn, bool hole) { set_holes(gfn, 1, hole); }
    bool is_hole(std::uint64_t gfn) const;
    // How many pages from `gfn` on, `most` at most, lie in one region; 0: it is in none.
    std::uint64_t pages_in_region(std::uint64_t gfn, std::uint64_t most) const;
    // The same, ending before the first hole.
    std::uint64_t pages_until_hole(std::uint64_t gfn, std::uint64_t most) const;

    // Calls `hole` for each run of holes, upwards; a run ends where its region does.
    void for_each_hole(
        const std::function<void(std::uint64_t gfn, std::uint64_t pages)>& hole) const;

    // Holds a page inside a region for somebody who keeps its host address: whoever gives the page
    // back leaves its memory alone while it is held. Null: no region is there, or a hole.
    std::byte* pin(std::uint64_t gfn);
    // The same, also of a hole: for a holder from before it became one.
    std::byte* pin_again(std::uint64_t gfn);
    // True when nobody holds the page any more and it is a hole: its memory is the caller's to
    // free.
    bool unpin(std::uint64_t gfn);
    bool is_pinned(std::uint64_t gfn) const;
    // Pages of one region from `gfn` on, `most` at most, before the first that is pinned.
    std::uint64_t pages_until_pinned(std::uint64_t gfn, std::uint64_t most) const;

    // Copies; false when any byte has nothing behind it, and then a prefix was copied. Ranges may
    // cross pages and regions.
    [[nodiscard]] bool read(Gpa at, std::span<std::byte> to) const {
        if (at.offset() + to.size() > kPageSize) return read_pages(at, to);
        const std::byte* from = start(at, to.size());
        if (from == nullptr) return to.empty();
        copy(to.data(), from, to.size());
        // The copy is not fetched again later: without this a compiler may re-read guest memory
        // instead of keeping the value.
        std::atomic_signal_fence(std::memory_order_acq_rel);
        return true;
    }
    [[nodiscard]] bool write(Gpa at, std::span<const std::byte> from) {
        if (at.offset() + from.size() > kPageSize) return write_pages(at, from);
        std::byte* to = start(at, from.size());
        if (to == nullptr) return from.empty();
        copy(to, from.data(), from.size());
        return true;
    }
    [[nodiscard]] bool fill(Gpa at, std::uint64_t size, std::byte value);

    template <Plain T>
    std::optional<T> read(Gpa at) const {
        T copy;
        if (!read(at, std::as_writable_bytes(std::span(&copy, 1)))) return std::nullopt;
        return copy;
    }
    template <Plain T>
    [[nodiscard]] bool write(Gpa at, const T& value) {
        return write(at, std::as_bytes(std::span(&value, 1)));
    }

    // One naturally aligned word, atomically. Null when there is nothing at `at` or it is not
    // aligned. The page behind it stays mapped, so the reference never dangles.
    template <std::unsigned_integral T>
    T* word(Gpa at) const {
        if (at.value % sizeof(T) != 0) return nullptr;      // so it crosses no page either
        return reinterpret_cast<T*>(start(at, sizeof(T)));  // NOLINT: the one place for words
    }

    // Host address of a whole page, for overlays and rings that the VMM itself owns; null when
    // nothing is there.
    std::byte* page(std::uint64_t gfn) const {
        return gfn >> kGfnBits != 0 ? nullptr : window(gfn_to_gpa(gfn), kPageSize);
    }

    // The same inside a region also where a hole is: what we keep at a place of the guest's memory
    // we go on keeping there when the guest gives it back.
    std::byte* kept_page(std::uint64_t gfn) const {
        const Region* r = region_of_gfn(gfn);
        return r != nullptr ? r->host + ((gfn << kPageShift) - r->base) : page(gfn);
    }

  private:
    static constexpr unsigned kGfnBits = 64 - kPageShift;  // beyond, an address would wrap

    struct Region {
        std::uint64_t base;
        std::uint64_t size;
        std::byte* host;
        // One bit per page; zero pages from the kernel until the guest balloons.
        std::unique_ptr<std::atomic<std::uint64_t>[]> holes;
        // How often each page is held: from calloc, so that untouched parts cost nothing.
        struct Free {
            void operator()(std::uint32_t* p) const { std::free(p); }  // NOLINT: calloc's
        };
        std::unique_ptr<std::uint32_t[], Free> pins;
    };
    std::uint32_t* pins_of(std::uint64_t gfn) const;

    // Host address of [at, at+size), which must not cross a page; null when not there. Low RAM
    // without holes, where nearly all of it happens, is answered at once.
    std::byte* window(Gpa at, std::uint64_t size) const {
        return at.offset() + size <= kPageSize ? start(at, size) : nullptr;
    }
    // The same for a range that is known not to cross a page.
    std::byte* start(Gpa at, std::uint64_t size) const {
        if (at.value < low_size_ && !low_holes_.load(std::memory_order_relaxed)) [[likely]] {
            return low_host_ + at.value;
        }
        return find_window(at, size);
    }
    std::byte* find_window(Gpa at, std::uint64_t size) const;
    bool find_foreign(std::uint64_t gfn) const;
    bool read_pages(Gpa at, std::span<std::byte> to) const;
    bool write_pages(Gpa at, std::span<const std::byte> from);

    // memcpy, with the few sizes of hypercall arguments in line.
    static void copy(std::byte* to, const std::byte* from, std::size_t size) {
#ifdef __SANITIZE_THREAD__
        // What is copied here may change meanwhile: that is why it is copied. A test's thread that
        // plays the guest is a thread like any other to ThreadSanitizer, which takes no race from
        // atomic accesses; that they are bytes is as much as these copies promise.
        for (std::size_t i = 0; i < size; ++i) {
            const auto* source = reinterpret_cast<const unsigned char*>(from + i);  // NOLINT
            auto* target = reinterpret_cast<unsigned char*>(to + i);                // NOLINT
            __atomic_store_n(target, __atomic_load_n(source, __ATOMIC_RELAXED), __ATOMIC_RELAXED);
        }
        return;
#endif
        switch (size) {
            case 0: return;  // of which memcpy may not be told a null pointer
            case 2: std::memcpy(to, from, 2); return;
            case 4: std::memcpy(to, from, 4); return;
            case 8: std::memcpy(to, from, 8); return;
            case 16: std::memcpy(to, from, 16); return;
            case 24: std::memcpy(to, from, 24); return;
            default: std::memcpy(to, from, size);
        }
    }
    const Region* region_of(std::uint64_t gpa) const;
    const Region* region_of_gfn(std::uint64_t gfn) const {
        return gfn >> kGfnBits != 0 ? nullptr : region_of(gfn << kPageShift);
    }

    std::vector<Region> regions_;
    // The region at address 0, again, and whether it ever had a hole.
    std::uint64_t low_size_ = 0;
    std::byte* low_host_ = nullptr;
    std::atomic<bool> low_holes_{false};
    mutable WritersFirstMutex pages_mutex_;
    std::map<std::uint64_t, std::byte*> pages_;  // guarded by pages_mutex_
    std::atomic<bool> any_pages_{false};
    std::set<std::uint64_t> foreign_;  // guarded by pages_mutex_
    std::atomic<bool> any_foreign_{false};
};

}  // namespace vmm
