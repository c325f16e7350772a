// Where the bytes of a saved VM come from. What is read is not trusted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "vmm/base/fd.h"
#include "vmm/base/result.h"

namespace migration::format {

class Source {
  public:
    explicit Source(std::string name) : name_(std::move(name)) {}
    Source(const Source&) = delete;
    Source& operator=(const Source&) = delete;
    virtual ~Source() = default;

    // What the operator calls it; errors begin with it.
    const std::string& name() const { return name_; }
    // The next bytes, as many as there are now and at least one; 0 at the end.
    virtual vmm::Result<std::size_t> read(std::span<std::byte> to) = 0;

  private:
    std::string name_;
};

// A source whose end is known and that can be read anywhere.
class RandomSource : public Source {
  public:
    using Source::Source;

    virtual std::uint64_t length() const = 0;
    // 0 at the end, or beyond.
    virtual vmm::Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> to) = 0;
    // The first byte at `offset` or after it that may be other than zero, or length().
    virtual std::uint64_t next_data(std::uint64_t offset) { return offset; }

    // Ahead of what is asked for: headers and most records are small, and one follows the other.
    vmm::Result<std::size_t> read(std::span<std::byte> to) final;
    // What read() gives next.
    void seek(std::uint64_t offset) { position_ = offset; }

  private:
    std::uint64_t position_ = 0;
    std::uint64_t ahead_at_ = 0;  // where what was read ahead begins
    std::vector<std::byte> ahead_;
};

class FileSource final : public RandomSource {
  public:
    // Only a regular file: the others are read as streams.
    static vmm::Result<std::unique_ptr<FileSource>> open(const std::string& path);

    // To map it.
    int fd() const { return fd_.get(); }
    std::uint64_t length() const override { return length_; }
    vmm::Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> to) override;
    std::uint64_t next_data(std::uint64_t offset) override;

  private:
    FileSource(std::string path, vmm::Fd fd, std::uint64_t length)
        : RandomSource(std::move(path)), fd_(std::move(fd)), length_(length) {}

    vmm::Fd fd_;
    std::uint64_t length_;
};

}  // namespace migration::format
