// Members of the wire structures as data, for those who move or show them without knowing the
// structure: where a member lies and how wide it is, at each width.
#pragma once

#include <cstddef>
#include <cstdint>

#include "xenshim/abi/width.h"

namespace xenshim::abi {

struct Place {
    std::uint8_t at_32 = 0, bytes_32 = 0, at_64 = 0, bytes_64 = 0;
    constexpr std::uint8_t at(Width width) const { return width == Width::k64 ? at_64 : at_32; }
    constexpr std::uint8_t bytes(Width width) const {
        return width == Width::k64 ? bytes_64 : bytes_32;
    }
};

struct Sizes {
    std::uint8_t bytes_32 = 0, bytes_64 = 0;
    constexpr std::uint8_t bytes(Width width) const {
        return width == Width::k64 ? bytes_64 : bytes_32;
    }
};

namespace detail {

// A structure as callers of a width have it, whether it is the same at both or a template.
template <class S, class W>
S shape(W);
template <template <class> class S, class W>
S<W> shape(W);

}  // namespace detail

// NOLINTBEGIN(bugprone-macro-parentheses): names of a structure and a member
#define XENSHIM_SHAPE(S, W) decltype(::xenshim::abi::detail::shape<S>(::xenshim::abi::W{}))
#define XENSHIM_PLACE(S, member)                                                           \
    ::xenshim::abi::Place {                                                                \
        offsetof(XENSHIM_SHAPE(S, W32), member), sizeof(XENSHIM_SHAPE(S, W32)::member),    \
            offsetof(XENSHIM_SHAPE(S, W64), member), sizeof(XENSHIM_SHAPE(S, W64)::member) \
    }
#define XENSHIM_SIZES(S)                                             \
    ::xenshim::abi::Sizes {                                          \
        sizeof(XENSHIM_SHAPE(S, W32)), sizeof(XENSHIM_SHAPE(S, W64)) \
    }
// NOLINTEND(bugprone-macro-parentheses)

}  // namespace xenshim::abi
