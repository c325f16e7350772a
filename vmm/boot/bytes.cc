#include "vmm/boot/bytes.h"

#include <algorithm>

namespace vmm::boot {

bool Bytes::resize(std::size_t size) {
    // realloc moves large blocks by page tables, and a shrunken one gives its pages back.
    // NOLINTNEXTLINE(cppcoreguidelines-no-malloc): there is no C++ spelling of that.
    void* moved = std::realloc(data_.get(), std::max<std::size_t>(size, 1));
    if (moved == nullptr) return false;
    static_cast<void>(data_.release());  // realloc has freed it, or it is `moved`
    data_.reset(static_cast<std::byte*>(moved));
    size_ = size;
    return true;
}

}  // namespace vmm::boot
