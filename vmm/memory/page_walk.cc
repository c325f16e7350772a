#include "vmm/memory/page_walk.h"

#include <array>

#include "vmm/memory/by_pages.h"

namespace vmm {
namespace {

constexpr std::uint64_t kCr0Pe = 1u << 0;
constexpr std::uint64_t kCr0Wp = 1u << 16;
constexpr std::uint64_t kCr0Pg = 1u << 31;
constexpr std::uint64_t kCr4Pse = 1u << 4;
constexpr std::uint64_t kCr4Pae = 1u << 5;
constexpr std::uint64_t kCr4Smap = 1u << 21;
constexpr std::uint64_t kEferLma = 1u << 10;
constexpr std::uint64_t kEferNxe = 1u << 11;
constexpr std::uint64_t kRflagsAc = 1u << 18;

constexpr std::uint64_t kPresent = 1u << 0;
constexpr std::uint64_t kWritable = 1u << 1;
constexpr std::uint64_t kUser = 1u << 2;
constexpr std::uint64_t kAccessed = 1u << 5;
constexpr std::uint64_t kDirty = 1u << 6;
constexpr std::uint64_t kLarge = 1u << 7;
constexpr std::uint64_t kNoExecute = std::uint64_t{1} << 63;

constexpr std::uint64_t kAddress = 0x000f'ffff'ffff'f000;

// `rights`: what all levels together give, by the bits of their entries.
bool allowed(const PagingState& p, std::uint64_t rights, Access access) {
    if ((rights & kUser) != 0 && (p.cr4 & kCr4Smap) != 0 && (p.rflags & kRflagsAc) == 0) {
        return false;
    }
    return access == Access::kRead || (rights & kWritable) != 0 || (p.cr0 & kCr0Wp) == 0;
}

// Sets bits in a table entry as the CPU does: atomically and only if it still is what we used.
template <class Entry>
void set_bits(Entry* entry, Entry seen, std::uint64_t bits) {
    const Entry wanted = static_cast<Entry>(seen | bits);
    if (wanted != seen) {
        std::atomic_ref<Entry>(*entry).compare_exchange_strong(seen, wanted);
    }
}

struct Walked {
    Gpa gpa;
    bool write_needs_no_walk;  // a write would be allowed and change no table
};

struct Level {
    unsigned shift;       // lowest address bit that indexes this table
    unsigned index_bits;  // number of address bits that index it
    bool may_be_large;
    bool carries_rights;  // PAE's top level has neither rights nor accessed bits
};

// The levels of each paging mode, top first.
constexpr std::array kLong = {Level{39, 9, false, true}, Level{30, 9, true, true},
                              Level{21, 9, true, true}, Level{12, 9, false, true}};
constexpr std::array kPae = {Level{30, 2, false, false}, Level{21, 9, true, true},
                             Level{12, 9, false, true}};
constexpr std::array kPse = {Level{22, 10, true, true}, Level{12, 10, false, true}};
constexpr std::array kPlain = {Level{22, 10, false, true}, Level{12, 10, false, true}};

// The levels are a template argument so that the loop is unrolled with their numbers in place:
// this is on the path of every hypercall with an argument.
template <class Entry, const auto& kLevels>
std::optional<Walked> walk_levels(GuestMemory& memory, const PagingState& p, std::uint64_t va,
                                  std::uint64_t table, Access access) {
    std::uint64_t rights = kWritable | kUser;
    // Without it the no-execute bit is a reserved one.
    const Entry reserved =
        sizeof(Entry) == 8 && (p.efer & kEferNxe) == 0 ? static_cast<Entry>(kNoExecute) : Entry{0};
#pragma GCC unroll 4
    for (std::size_t i = 0; i < kLevels.size(); ++i) {
        const Level& level = kLevels[i];
        const std::uint64_t index = (va >> level.shift) & ((1u << level.index_bits) - 1);
        Entry* at = memory.word<Entry>(Gpa{table + index * sizeof(Entry)});
        if (at == nullptr) return std::nullopt;
        const Entry entry = std::atomic_ref<Entry>(*at).load(std::memory_order_acquire);
        if ((entry & (kPresent | reserved)) != kPresent) return std::nullopt;
        // The page-size bit of a top-level entry is reserved in long mode.
        if (kLevels.size() == 4 && i == 0 && (entry & kLarge) != 0) return std::nullopt;
        if (level.carries_rights) rights &= entry;
        const bool large = level.may_be_large && (entry & kLarge) != 0;
        if (large || i + 1 == kLevels.size()) {
            if (!allowed(p, rights, access)) return std::nullopt;
            set_bits(at, entry, kAccessed | (access == Access::kWrite ? kDirty : 0));
            const std::uint64_t page_mask = (std::uint64_t{1} << level.shift) - 1;
            std::uint64_t base = entry & kAddress & ~page_mask;
            if constexpr (sizeof(Entry) == 4) {
                // PSE-36: bits 13 to 20 of a 4 MiB entry are address bits 32 to 39.
                if (large) base |= (std::uint64_t{entry} & 0x001f'e000) << 19;
            }
            const bool dirty = access == Access::kWrite || (entry & kDirty) != 0;
            return Walked{{base | (va & page_mask)}, dirty && allowed(p, rights, Access::kWrite)};
        }
        if (level.carries_rights) set_bits(at, entry, kAccessed);
        table = entry & kAddress;
    }
    return std::nullopt;
}

std::optional<Walked> walk_any(GuestMemory& memory, const PagingState& p, Gva at, Access access) {
    const std::uint64_t va = at.value;
    if ((p.cr0 & kCr0Pg) == 0 || (p.cr0 & kCr0Pe) == 0) return Walked{{va & 0xffff'ffff}, true};
    if ((p.efer & kEferLma) != 0) {
        // A non-canonical address (bits 63 to 47 not all equal) has no translation.
        const std::uint64_t upper = va >> 47;
        if (upper != 0 && upper != 0x1ffff) return std::nullopt;
        return walk_levels<std::uint64_t, kLong>(memory, p, va, p.cr3 & kAddress, access);
    }
    if ((p.cr4 & kCr4Pae) != 0) {
        return walk_levels<std::uint64_t, kPae>(memory, p, va & 0xffff'ffff, p.cr3 & 0xffff'ffe0,
                                                access);
    }
    if ((p.cr4 & kCr4Pse) != 0) {
        return walk_levels<std::uint32_t, kPse>(memory, p, va & 0xffff'ffff, p.cr3 & 0xffff'f000,
                                                access);
    }
    return walk_levels<std::uint32_t, kPlain>(memory, p, va & 0xffff'ffff, p.cr3 & 0xffff'f000,
                                              access);
}

}  // namespace

std::optional<Gpa> walk(GuestMemory& memory, const PagingState& paging, Gva at, Access access) {
    const auto walked = walk_any(memory, paging, at, access);
    if (!walked) return std::nullopt;
    return walked->gpa;
}

bool LinearMemory::walk_and_remember(Gva at, Access access) {
    const auto walked = walk_any(memory_, paging_, at, access);
    if (!walked) return false;
    known_ = true;
    known_writable_ = walked->write_needs_no_walk;
    known_virtual_ = at.value >> kPageShift;
    known_physical_ = walked->gpa.gfn();
    return true;
}

bool LinearMemory::read_pages(Gva at, std::span<std::byte> to) {
    return by_pages(at, to, [&](Gva from, auto piece) { return read(from, piece); });
}

bool LinearMemory::write_pages(Gva at, std::span<const std::byte> from) {
    return by_pages(at, from, [&](Gva to, auto piece) { return write(to, piece); });
}

}  // namespace vmm
