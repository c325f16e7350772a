// Guest addresses. A guest physical address and a guest virtual (linear) address are different
// types and neither is a pointer: the only way to bytes is GuestMemory.
#pragma once

#include <compare>
#include <cstdint>

namespace vmm {

inline constexpr std::uint64_t kPageSize = 4096;
inline constexpr unsigned kPageShift = 12;

// Guest physical address, in bytes.
struct Gpa {
    std::uint64_t value = 0;
    constexpr auto operator<=>(const Gpa&) const = default;
    constexpr Gpa operator+(std::uint64_t bytes) const { return {value + bytes}; }
    constexpr std::uint64_t gfn() const { return value >> kPageShift; }
    constexpr std::uint64_t offset() const { return value & (kPageSize - 1); }
};

// Guest virtual (linear) address, in bytes.
struct Gva {
    std::uint64_t value = 0;
    constexpr auto operator<=>(const Gva&) const = default;
    constexpr Gva operator+(std::uint64_t bytes) const { return {value + bytes}; }
    constexpr std::uint64_t offset() const { return value & (kPageSize - 1); }
};

constexpr Gpa gfn_to_gpa(std::uint64_t gfn) {
    return {gfn << kPageShift};
}

}  // namespace vmm
