// Where the bytes of a saved VM go.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "vmm/base/fd.h"
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

// A descriptor that blocks. Whoever uses it ignores SIGPIPE.
class FdSink final : public StreamSink {
  public:
    // `name`: what the operator calls it.
    FdSink(int fd, std::string name) : fd_(fd), name_(std::move(name)) {}
    vmm::Result<void> append(std::span<const Piece> pieces) override;

  private:
    int fd_;
    std::string name_;
};

}  // namespace migration::format
