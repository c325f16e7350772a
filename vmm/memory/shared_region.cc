#include "vmm/memory/shared_region.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>
#include <utility>

#include <sys/mman.h>

#include "vmm/memory/address.h"

namespace vmm {

Result<SharedRegion> SharedRegion::create(const char* name, std::uint64_t size) {
    Fd fd(::memfd_create(name, MFD_CLOEXEC));
    if (!fd) return errno_error("memfd_create", Fault::kHost);
    if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0) {
        return errno_error(std::string("memory for ") + name, Fault::kHost);
    }
    void* at =
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd.get(), 0);
    if (at == MAP_FAILED) return errno_error(std::string("mapping ") + name, Fault::kHost);
    return SharedRegion(std::move(fd), static_cast<std::byte*>(at), size);
}

SharedRegion::SharedRegion(Fd fd, std::byte* data, std::uint64_t size)
    : fd_(std::move(fd)), data_(data), size_(size) {}

SharedRegion::SharedRegion(SharedRegion&& other) noexcept
    : fd_(std::move(other.fd_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

SharedRegion::~SharedRegion() {
    if (data_ != nullptr) ::munmap(data_, size_);
}

Result<void> SharedRegion::punch(std::uint64_t offset, std::uint64_t size) {
    if (::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                    static_cast<off_t>(offset), static_cast<off_t>(size)) != 0) {
        return errno_error("freeing guest pages");
    }
    return {};
}

// The guest may write there meanwhile.
void SharedRegion::wipe(std::byte* at, std::uint64_t size) {
#ifdef __SANITIZE_THREAD__
    // As in GuestMemory::copy(): only atomic accesses are no race to ThreadSanitizer.
    for (std::uint64_t i = 0; i < size; i += sizeof(std::uint64_t)) {
        __atomic_store_n(reinterpret_cast<std::uint64_t*>(at + i), 0,  // NOLINT: whole pages
                         __ATOMIC_RELAXED);
    }
#else
    std::memset(at, 0, size);
#endif
}

// Page by page: where a run of data ends (SEEK_HOLE) costs a look at each page of it, also of those
// far behind `size`, which in a guest whose memory is all there are millions.
void SharedRegion::clear(std::uint64_t offset, std::uint64_t size) {
    const std::uint64_t end = offset + size;
    while (offset < end) {
        const auto data = ::lseek(fd_.get(), static_cast<off_t>(offset), SEEK_DATA);
        if (data < 0 || static_cast<std::uint64_t>(data) >= end) return;
        wipe(data_ + data, kPageSize);
        offset = static_cast<std::uint64_t>(data) + kPageSize;
    }
}

bool SharedRegion::backed(std::uint64_t offset, std::uint64_t size) const {
    const auto at = ::lseek(fd_.get(), static_cast<off_t>(offset), SEEK_DATA);
    return at >= 0 && static_cast<std::uint64_t>(at) < offset + size;
}

Result<void> SharedRegion::map_over(std::uint64_t offset, const SharedRegion& from,
                                    std::uint64_t from_offset) {
    void* at = ::mmap(data_ + offset, kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                      from.fd(), static_cast<off_t>(from_offset));
    if (at == MAP_FAILED) return errno_error("mapping an overlay page");
    return {};
}

Result<void> SharedRegion::unmap_over(std::uint64_t offset) {
    void* at =
        ::mmap(data_ + offset, kPageSize, PROT_READ | PROT_WRITE,
               MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd_.get(), static_cast<off_t>(offset));
    if (at == MAP_FAILED) return errno_error("unmapping an overlay page");
    return {};
}

Result<ReadOnlyView> ReadOnlyView::of(int fd, std::uint64_t size) {
    void* at = ::mmap(nullptr, size, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (at == MAP_FAILED) return errno_error("mapping guest memory", Fault::kHost);
    return ReadOnlyView(static_cast<const std::byte*>(at), size);
}

ReadOnlyView::~ReadOnlyView() {
    if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);  // NOLINT: munmap's type
}

}  // namespace vmm
