// A block of host memory that grows without copying: for files and unpacked kernels of tens of
// megabytes, where a vector would touch every page once more to zero it.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <span>

namespace vmm::boot {

class Bytes {
  public:
    Bytes() = default;

    std::size_t size() const { return size_; }
    std::span<const std::byte> view() const { return {data_.get(), size_}; }

    // Makes the size `size`; bytes that are new have no defined value. False: no memory.
    [[nodiscard]] bool resize(std::size_t size);
    std::span<std::byte> writable() { return {data_.get(), size_}; }

  private:
    struct Free {
        void operator()(std::byte* p) const { std::free(p); }  // NOLINT: realloc's counterpart
    };
    std::unique_ptr<std::byte, Free> data_;
    std::size_t size_ = 0;
};

}  // namespace vmm::boot
