// A range of host memory in a memfd, mapped shared: guest RAM, and the pages that the VMM itself
// owns and shows to the guest. A memfd can be shared with another process, saved sparsely
// (SEEK_DATA) and handed over by descriptor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "vmm/base/fd.h"
#include "vmm/base/result.h"
#include "vmm/memory/address.h"

namespace vmm {

class SharedRegion {
  public:
    // `size` in bytes, a multiple of the page size. `name` shows in /proc/PID/maps.
    static Result<SharedRegion> create(const char* name, std::uint64_t size);

    SharedRegion(SharedRegion&& other) noexcept;
    SharedRegion& operator=(SharedRegion&&) = delete;
    SharedRegion(const SharedRegion&) = delete;
    SharedRegion& operator=(const SharedRegion&) = delete;
    ~SharedRegion();

    std::byte* data() const { return data_; }
    std::uint64_t size() const { return size_; }
    int fd() const { return fd_.get(); }

    // Gives the pages of [offset, offset+size) back to the host; they read as zeroes afterwards.
    Result<void> punch(std::uint64_t offset, std::uint64_t size);
    // The same without giving anything back: only what is backed is written to. A page costs a
    // twentieth of what freeing it does, and its next use nothing.
    void clear(std::uint64_t offset, std::uint64_t size);
    // Whether any page of [offset, offset+size) is backed by host memory.
    bool backed(std::uint64_t offset, std::uint64_t size) const;
    bool page_backed(std::uint64_t offset) const { return backed(offset, kPageSize); }

    // Shows the page at `from_offset` of `from` in place of our own page at `offset`: the mapping
    // changes, our own page stays as it is behind it.
    Result<void> map_over(std::uint64_t offset, const SharedRegion& from,
                          std::uint64_t from_offset);
    // Shows our own page again.
    Result<void> unmap_over(std::uint64_t offset);

  private:
    SharedRegion(Fd fd, std::byte* data, std::uint64_t size);
    static void wipe(std::byte* at, std::uint64_t size);

    Fd fd_;
    std::byte* data_ = nullptr;
    std::uint64_t size_ = 0;
};

// The bytes of a memfd, to be read, apart from whatever its other mappings show in their place.
class ReadOnlyView {
  public:
    static Result<ReadOnlyView> of(int fd, std::uint64_t size);
    ReadOnlyView(ReadOnlyView&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(other.size_) {}
    ReadOnlyView& operator=(ReadOnlyView&&) = delete;
    ReadOnlyView(const ReadOnlyView&) = delete;
    ReadOnlyView& operator=(const ReadOnlyView&) = delete;
    ~ReadOnlyView();

    std::span<const std::byte> bytes() const { return {data_, size_}; }

  private:
    ReadOnlyView(const std::byte* data, std::uint64_t size) : data_(data), size_(size) {}
    const std::byte* data_;
    std::uint64_t size_;
};

}  // namespace vmm
