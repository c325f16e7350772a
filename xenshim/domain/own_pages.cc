#include "xenshim/domain/own_pages.h"

#include <atomic>
#include <cstring>

#include "xenshim/domain/grant_table.h"
#include "xenshim/domain/physmap.h"

namespace xenshim {

namespace {

// In words, for others change words of it at the same time.
void copy_from_guest(PageBytes& to, std::byte* page) {
    for (std::size_t at = 0; at < to.size(); at += sizeof(std::uint64_t)) {
        auto* word = reinterpret_cast<std::uint64_t*>(page + at);  // NOLINT: a page is aligned
        const std::uint64_t value = std::atomic_ref(*word).load(std::memory_order_relaxed);
        std::memcpy(to.data() + at, &value, sizeof value);
    }
}

void copy_to_guest(std::byte* page, const PageBytes& from) {
    for (std::size_t at = 0; at < from.size(); at += sizeof(std::uint64_t)) {
        std::uint64_t value = 0;
        std::memcpy(&value, from.data() + at, sizeof value);
        auto* word = reinterpret_cast<std::uint64_t*>(page + at);  // NOLINT: a page is aligned
        std::atomic_ref(*word).store(value, std::memory_order_relaxed);
    }
}

template <class Number>
std::map<Number, PageBytes> content(const std::map<Number, std::byte*>& pages) {
    std::map<Number, PageBytes> bytes;
    for (const auto& [number, page] : pages) {
        const auto added = bytes.try_emplace(bytes.end(), number);
        copy_from_guest(added->second, page);
        if (added->second == PageBytes{}) bytes.erase(added);
    }
    return bytes;
}

template <class Number>
vmm::Expected<void, std::string> check(const char* member, const std::map<Number, PageBytes>& bytes,
                                       const std::map<Number, std::byte*>& pages) {
    for (const auto& entry : bytes) {
        const Number number = entry.first;
        const auto refused = [&](const char* why) {
            return vmm::Failure{std::string(member) + ": page " + std::to_string(number) + why};
        };
        if (!pages.contains(number)) return refused(" is not in use");
        if (entry.second == PageBytes{}) return refused(" is all zeroes and not left out");
    }
    return {};
}

template <class Number>
void set(const std::map<Number, std::byte*>& pages, const std::map<Number, PageBytes>& bytes) {
    static constexpr PageBytes kZeroes{};
    for (const auto& [number, page] : pages) {
        const auto found = bytes.find(number);
        copy_to_guest(page, found == bytes.end() ? kZeroes : found->second);
    }
}

}  // namespace

std::map<std::uint32_t, std::byte*> OwnPages::own() const {
    std::map<std::uint32_t, std::byte*> pages;
    const auto add = [&](std::uint32_t first, std::uint32_t count) {
        for (std::uint32_t page = first; page < first + count; ++page) {
            pages[page] = ports_.own_page(page);
        }
    };
    add(kSharedInfoPage, 1);
    add(kFirstGrantPage, grants_.frames());
    add(kFirstStatusPage, grants_.status_frames());
    for (const std::uint32_t page : physmap_.adopted_pages()) {
        add(page, 1);
    }
    return pages;
}

std::map<std::uint64_t, std::byte*> OwnPages::outside() const {
    std::map<std::uint64_t, std::byte*> pages;
    for (const std::uint64_t gfn : physmap_.pages_outside_slots()) {
        if (std::byte* page = memory_.page(gfn)) pages[gfn] = page;
    }
    return pages;
}

OwnPages::State OwnPages::snapshot() const {
    return {.own = content(own()), .outside = content(outside())};
}

vmm::Expected<void, std::string> OwnPages::adopt(const State& state) {
    const auto own_pages = own();
    const auto outside_pages = outside();
    for (std::uint32_t page = 0; page < kFirstGrantedPage; ++page) {
        if (physmap_.gfn_of_own(page) != kNoGfn && !own_pages.contains(page)) {
            return vmm::Failure{"own: page " + std::to_string(page) +
                                " is in the guest's map, and not in use"};
        }
    }
    TRY(check("own", state.own, own_pages));
    TRY(check("outside", state.outside, outside_pages));
    set(own_pages, state.own);
    set(outside_pages, state.outside);
    return {};
}

}  // namespace xenshim
