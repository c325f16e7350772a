#include "vmm/memory/guest_memory.h"

#include <algorithm>
#include <mutex>
#include <new>
#include <shared_mutex>

#include "vmm/memory/by_pages.h"

namespace vmm {
namespace {

constexpr std::uint64_t kBits = 64;

}  // namespace

void GuestMemory::add_region(Gpa base, std::uint64_t size, std::byte* host) {
    if (base.value == 0) {
        low_size_ = size;
        low_host_ = host;
    }
    const std::uint64_t words = (size / kPageSize + kBits - 1) / kBits;
    // Value-initialised large arrays come zeroed from the kernel and cost nothing until touched.
    auto holes = std::make_unique<std::atomic<std::uint64_t>[]>(words);
    decltype(Region::pins) pins(
        static_cast<std::uint32_t*>(std::calloc(size / kPageSize, sizeof(std::uint32_t))));
    if (pins == nullptr) throw std::bad_alloc();
    Region region{base.value, size, host, std::move(holes), std::move(pins)};
    const auto after = std::find_if(regions_.begin(), regions_.end(),
                                    [&](const Region& r) { return r.base > base.value; });
    regions_.insert(after, std::move(region));
}

void GuestMemory::add_page(std::uint64_t gfn, std::byte* host) {
    const std::unique_lock lock(pages_mutex_);
    pages_[gfn] = host;
    any_pages_ = true;
}

void GuestMemory::remove_page(std::uint64_t gfn) {
    const std::unique_lock lock(pages_mutex_);
    pages_.erase(gfn);
    any_pages_ = !pages_.empty();
}

void GuestMemory::set_foreign(std::uint64_t gfn, bool foreign) {
    const std::unique_lock lock(pages_mutex_);
    if (foreign) {
        foreign_.insert(gfn);
    } else {
        foreign_.erase(gfn);
    }
    any_foreign_ = !foreign_.empty();
}

bool GuestMemory::find_foreign(std::uint64_t gfn) const {
    const std::shared_lock lock(pages_mutex_);
    return foreign_.contains(gfn);
}

const GuestMemory::Region* GuestMemory::region_of(std::uint64_t gpa) const {
    for (const Region& r : regions_) {
        if (gpa - r.base < r.size) return &r;
    }
    return nullptr;
}

void GuestMemory::set_holes(std::uint64_t gfn, std::uint64_t count, bool hole) {
    const Region* r = region_of_gfn(gfn);
    if (r == nullptr) return;
    if (hole && r->base == 0) low_holes_ = true;
    std::uint64_t page = gfn - (r->base >> kPageShift);
    const std::uint64_t end = page + pages_in_region(gfn, count);
    while (page < end) {
        const std::uint64_t n = std::min(kBits - page % kBits, end - page);
        const std::uint64_t bits = (~std::uint64_t{0} >> (kBits - n)) << (page % kBits);
        if (hole) {
            r->holes[page / kBits].fetch_or(bits);
        } else {
            r->holes[page / kBits].fetch_and(~bits);
        }
        page += n;
    }
}

bool GuestMemory::is_hole(std::uint64_t gfn) const {
    return pages_until_hole(gfn, 1) == 0;
}

std::uint64_t GuestMemory::pages_in_region(std::uint64_t gfn, std::uint64_t most) const {
    const Region* r = region_of_gfn(gfn);
    if (r == nullptr) return 0;
    return std::min(most, (r->size >> kPageShift) - (gfn - (r->base >> kPageShift)));
}

std::uint64_t GuestMemory::pages_until_hole(std::uint64_t gfn, std::uint64_t most) const {
    const Region* r = region_of_gfn(gfn);
    if (r == nullptr) return 0;
    const std::uint64_t first = gfn - (r->base >> kPageShift);
    const std::uint64_t count = pages_in_region(gfn, most);
    for (std::uint64_t done = 0; done < count;) {
        const std::uint64_t page = first + done;
        const std::uint64_t holes =
            r->holes[page / kBits].load(std::memory_order_relaxed) >> (page % kBits);
        if (holes != 0) {
            return std::min<std::uint64_t>(
                count, done + static_cast<std::uint64_t>(std::countr_zero(holes)));
        }
        done += kBits - page % kBits;
    }
    return count;
}

void GuestMemory::for_each_hole(
    const std::function<void(std::uint64_t gfn, std::uint64_t pages)>& hole) const {
    for (const Region& r : regions_) {
        const std::uint64_t first = r.base >> kPageShift, pages = r.size >> kPageShift;
        for (std::uint64_t page = 0; page < pages;) {
            const std::uint64_t there = pages_until_hole(first + page, pages - page);
            page += there;
            std::uint64_t n = 0;
            while (page + n < pages && is_hole(first + page + n)) {
                // A whole word at once: a guest may have given back nearly all that it had.
                const bool aligned = (page + n) % kBits == 0 && page + n + kBits <= pages;
                const bool all = aligned && r.holes[(page + n) / kBits].load() == ~std::uint64_t{0};
                n += all ? kBits : 1;
            }
            if (n != 0) hole(first + page, n);
            page += n;
        }
    }
}

std::uint32_t* GuestMemory::pins_of(std::uint64_t gfn) const {
    const Region* r = region_of_gfn(gfn);
    return r == nullptr ? nullptr : r->pins.get() + (gfn - (r->base >> kPageShift));
}

// Either the holder sees the hole, or whoever made the hole sees the holder: each writes its own
// word before it looks at the other's, in one order for all.
std::byte* GuestMemory::pin(std::uint64_t gfn) {
    std::uint32_t* pins = pins_of(gfn);
    if (pins == nullptr) return nullptr;
    std::atomic_ref(*pins).fetch_add(1);
    // Also when it becomes one at this very moment: the memory is the holder's now.
    if (!is_hole(gfn)) return kept_page(gfn);
    std::atomic_ref(*pins).fetch_sub(1);
    return nullptr;
}

std::byte* GuestMemory::pin_again(std::uint64_t gfn) {
    std::uint32_t* pins = pins_of(gfn);
    if (pins == nullptr) return nullptr;
    std::atomic_ref(*pins).fetch_add(1);
    return kept_page(gfn);
}

bool GuestMemory::unpin(std::uint64_t gfn) {
    return std::atomic_ref(*pins_of(gfn)).fetch_sub(1) == 1 && is_hole(gfn);
}

std::uint64_t GuestMemory::pages_until_pinned(std::uint64_t gfn, std::uint64_t most) const {
    std::uint32_t* pins = pins_of(gfn);
    if (pins == nullptr) return 0;
    const std::uint64_t count = pages_in_region(gfn, most);
    for (std::uint64_t i = 0; i < count; ++i) {
        if (std::atomic_ref(pins[i]).load() != 0) return i;
    }
    return count;
}

bool GuestMemory::is_pinned(std::uint64_t gfn) const {
    std::uint32_t* pins = pins_of(gfn);
    return pins != nullptr && std::atomic_ref(*pins).load() != 0;
}

std::byte* GuestMemory::find_window(Gpa at, std::uint64_t size) const {
    if (at.offset() + size > kPageSize) return nullptr;
    if (const Region* r = region_of(at.value)) {
        const std::uint64_t page = (at.value - r->base) >> kPageShift;
        const std::uint64_t holes = r->holes[page / kBits].load(std::memory_order_relaxed);
        if (((holes >> (page % kBits)) & 1) != 0) return nullptr;
        return r->host + (at.value - r->base);
    }
    if (!any_pages_.load(std::memory_order_relaxed)) return nullptr;
    const std::shared_lock lock(pages_mutex_);
    const auto found = pages_.find(at.gfn());
    return found == pages_.end() ? nullptr : found->second + at.offset();
}

bool GuestMemory::read_pages(Gpa at, std::span<std::byte> to) const {
    return by_pages(at, to, [&](Gpa from, auto piece) { return read(from, piece); });
}

bool GuestMemory::write_pages(Gpa at, std::span<const std::byte> from) {
    return by_pages(at, from, [&](Gpa to, auto piece) { return write(to, piece); });
}

bool GuestMemory::fill(Gpa at, std::uint64_t size, std::byte value) {
    while (size != 0) {
        const std::uint64_t n = std::min<std::uint64_t>(size, kPageSize - at.offset());
        std::byte* to = window(at, n);
        if (to == nullptr) return false;
        std::memset(to, std::to_integer<int>(value), n);
        size -= n;
        at = at + n;
    }
    return true;
}

}  // namespace vmm
