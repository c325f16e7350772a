// One description of each wire structure, from which the 32-bit and the 64-bit layout both come.
//
// A structure whose layout depends on the caller's width is a template over W32 or W64 with a
// fields() that names every member; handlers see the 64-bit shape only, and widen()/narrow()
// translate field by field. A structure that is the same at both widths is a plain struct with a
// static_assert on its size. tests/unit/xenshim/abi compares every size and offset with Xen's
// public headers.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <utility>

namespace xenshim::abi {

// i386 aligns 64-bit integers to 4 bytes: two halves say so without compiler attributes.
struct SplitU64 {
    std::uint32_t low = 0;
    std::uint32_t high = 0;

    constexpr SplitU64() = default;
    // NOLINTNEXTLINE(google-explicit-constructor): it stands for a std::uint64_t.
    constexpr SplitU64(std::uint64_t v)
        : low(static_cast<std::uint32_t>(v)), high(static_cast<std::uint32_t>(v >> 32)) {}
    // NOLINTNEXTLINE(google-explicit-constructor): as above.
    constexpr operator std::uint64_t() const { return (std::uint64_t{high} << 32) | low; }
};

struct W32 {
    using Word = std::uint32_t;  // C's long and pointers
    using U64 = SplitU64;
};
struct W64 {
    using Word = std::uint64_t;
    using U64 = std::uint64_t;
};

enum class Width : std::uint8_t { k32, k64 };

namespace detail {

template <class To, class From>
constexpr void assign(To& to, const From& from) {
    to = static_cast<To>(from);
}
constexpr void assign(SplitU64& to, const std::uint64_t& from) {
    to = SplitU64(from);
}
template <class To, class From, std::size_t N>
constexpr void assign(std::array<To, N>& to, const std::array<From, N>& from) {
    for (std::size_t i = 0; i < N; ++i) {
        assign(to[i], from[i]);
    }
}

template <class To, class From>
constexpr To convert(const From& from) {
    To to{};
    auto target = To::fields(to);
    auto source = From::fields(from);
    [&]<std::size_t... I>(std::index_sequence<I...>) {
        (assign(std::get<I>(target), std::get<I>(source)), ...);
    }
    (std::make_index_sequence<std::tuple_size_v<decltype(target)>>());
    return to;
}

}  // namespace detail

template <template <class> class S>
constexpr S<W64> widen(const S<W32>& from) {
    return detail::convert<S<W64>>(from);
}
template <template <class> class S>
constexpr S<W32> narrow(const S<W64>& from) {
    return detail::convert<S<W32>>(from);
}

// The bytes of a structure as they go to the guest: what lies between its members is zero, for it
// would else be whatever the host's stack held.
template <class S>
std::array<std::byte, sizeof(S)> bytes_of(const S& value) {
    std::array<std::byte, sizeof(S)> out{};
    const auto* base = reinterpret_cast<const std::byte*>(&value);  // NOLINT: to measure offsets
    std::apply(
        [&](const auto&... field) {
            (std::memcpy(
                 out.data() + (reinterpret_cast<const std::byte*>(&field) - base),  // NOLINT
                 &field, sizeof field),
             ...);
        },
        S::fields(value));
    return out;
}

}  // namespace xenshim::abi
