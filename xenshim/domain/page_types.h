// The types that a device model gave to pages (HVMOP_set_mem_type, XEN_DMOP_set_mem_type). Two bits
// for each page that is not plain RAM any more, in pieces of 256 pages: a guest that changes every
// page of its own makes us spend a quarter of a byte on each.
//
// They are what get_mem_type answers. KVM does not enforce them: a page of type ram_ro can be
// written, and one of type mmio_dm goes on being RAM.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <utility>

namespace xenshim {

// hvmmem_type_t.
enum class MemType : std::uint8_t { kRamRw = 0, kRamRo = 1, kMmioDm = 2 };

class PageTypes {
  public:
    static constexpr unsigned kPagesInPiece = 256, kPagesInByte = 4;
    using Piece = std::array<std::uint8_t, kPagesInPiece / kPagesInByte>;
    // The pieces in which not all is plain RAM, by their number. Page n of a piece has bits 2n%8
    // and 2n%8+1 of byte n/4.
    using Pieces = std::map<std::uint64_t, Piece>;

    MemType at(std::uint64_t gfn) const {
        const auto piece = pieces_.find(gfn / kPagesInPiece);
        if (piece == pieces_.end()) return MemType::kRamRw;
        return static_cast<MemType>(piece->second[byte_of(gfn)] >> shift_of(gfn) & kMask);
    }
    void set(std::uint64_t gfn, MemType type) {
        if (type == MemType::kRamRw && !pieces_.contains(gfn / kPagesInPiece)) return;
        auto& byte = pieces_[gfn / kPagesInPiece][byte_of(gfn)];
        byte = static_cast<std::uint8_t>((byte & ~(kMask << shift_of(gfn))) |
                                         (static_cast<unsigned>(type) << shift_of(gfn)));
    }
    // `count` pages from `gfn` on are plain RAM again, as all are at first.
    void reset(std::uint64_t gfn, std::uint64_t count) {
        const std::uint64_t end = gfn + count;
        for (auto piece = pieces_.lower_bound(gfn / kPagesInPiece);
             piece != pieces_.end() && piece->first * kPagesInPiece < end; ++piece) {
            const std::uint64_t first = piece->first * kPagesInPiece;
            for (std::uint64_t at = std::max(gfn, first); at < std::min(end, first + kPagesInPiece);
                 ++at) {
                set(at, MemType::kRamRw);
            }
        }
    }

    Pieces pieces() const {
        Pieces typed;
        for (const auto& [number, piece] : pieces_) {
            if (piece != Piece{}) typed.emplace_hint(typed.end(), number, piece);
        }
        return typed;
    }
    explicit PageTypes(Pieces pieces) : pieces_(std::move(pieces)) {}
    PageTypes() = default;

  private:
    static constexpr unsigned kMask = 3;
    static std::size_t byte_of(std::uint64_t gfn) { return gfn % kPagesInPiece / kPagesInByte; }
    static unsigned shift_of(std::uint64_t gfn) {
        return static_cast<unsigned>(gfn % kPagesInByte) * 2;
    }
    Pieces pieces_;
};

}  // namespace xenshim
