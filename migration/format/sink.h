// Where the bytes of a saved VM go.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "vmm/base/result.h"

namespace migration::format {

using Piece = std::span<const std::byte>;

// A pipe, a socket: one byte after the other.
class StreamSink {
  public:
    virtual ~StreamSink() = default;
    // All of them, in this order.
    virtual vmm::Result<void> append(std::span<const Piece> pieces) = 0;
};

// Bytes anywhere; what is never written reads as zeroes and costs nothing.
class FileSink {
  public:
    virtual ~FileSink() = default;
    virtual vmm::Result<void> write_at(std::uint64_t offset, Piece bytes) = 0;
};

}  // namespace migration::format
