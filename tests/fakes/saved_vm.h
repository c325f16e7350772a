// Saved VMs in memory: where a writer of migration/format puts them and a reader takes them from.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "migration/format/sink.h"
#include "migration/format/source.h"

namespace fakes {

using Bytes = std::vector<std::byte>;

class StreamBytes final : public migration::format::StreamSink {
  public:
    vmm::Result<void> append(std::span<const migration::format::Piece> pieces) override {
        for (const auto& piece : pieces) {
            bytes.insert(bytes.end(), piece.begin(), piece.end());
        }
        return {};
    }
    Bytes bytes;
};

class FileBytes final : public migration::format::FileSink {
  public:
    vmm::Result<void> write_at(std::uint64_t offset, migration::format::Piece piece) override {
        bytes.resize(std::max<std::size_t>(bytes.size(), offset + piece.size()));
        std::memcpy(bytes.data() + offset, piece.data(), piece.size());
        written += piece.size();
        return {};
    }
    Bytes bytes;
    std::uint64_t written = 0;
};

// Gives as few bytes at once as it is told: a stream comes as it likes.
class ByteStream final : public migration::format::Source {
  public:
    explicit ByteStream(std::span<const std::byte> bytes, std::size_t at_once = 1000)
        : Source("stream"), left_(bytes), at_once_(at_once) {}
    vmm::Result<std::size_t> read(std::span<std::byte> to) override {
        const std::size_t n = std::min({to.size(), left_.size(), at_once_});
        if (n != 0) std::memcpy(to.data(), left_.data(), n);
        left_ = left_.subspan(n);
        return n;
    }
    // What nobody has read.
    std::size_t left() const { return left_.size(); }

  private:
    std::span<const std::byte> left_;
    std::size_t at_once_;
};

class ByteFile final : public migration::format::RandomSource {
  public:
    explicit ByteFile(std::span<const std::byte> bytes) : RandomSource("file"), bytes_(bytes) {}
    std::uint64_t length() const override { return bytes_.size(); }
    vmm::Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> to) override {
        if (offset >= bytes_.size()) return std::size_t{0};
        const std::size_t n = std::min<std::size_t>(to.size(), bytes_.size() - offset);
        if (n != 0) std::memcpy(to.data(), bytes_.data() + offset, n);
        read_bytes += n;
        ++reads;
        return n;
    }
    std::uint64_t read_bytes = 0, reads = 0;

  private:
    std::span<const std::byte> bytes_;
};

}  // namespace fakes
