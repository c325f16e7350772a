// What crosses pages, page by page.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "vmm/memory/address.h"

namespace vmm {

// `piece(address, bytes)` for what each page has of `bytes` from `at` on, until one says no.
template <class Address, class Byte, class Piece>
bool by_pages(Address at, std::span<Byte> bytes, Piece&& piece) {
    while (!bytes.empty()) {
        const auto n = std::min<std::uint64_t>(bytes.size(), kPageSize - at.offset());
        if (!piece(at, bytes.first(n))) return false;
        bytes = bytes.subspan(n);
        at = at + n;
    }
    return true;
}

}  // namespace vmm
