// XXH3 of xxHash, which is about as fast as memory is read. It finds accidents, not forgers:
// whoever can write a file can make its checksums.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "migration/format/format.h"

namespace migration::format {

std::uint64_t checksum(std::span<const std::byte> bytes);
// Of so many zeroes, up to a chunk.
std::uint64_t checksum_of_zeroes(std::uint64_t bytes);

// XXH3-128 of bytes that come piece by piece.
class RunningChecksum {
  public:
    RunningChecksum();
    void add(std::span<const std::byte> bytes);
    Checksum128 value() const;

  private:
    // Room for xxhash.h's state, so that the header stays out of ours.
    alignas(64) std::array<std::byte, 576> state_;
};

}  // namespace migration::format
