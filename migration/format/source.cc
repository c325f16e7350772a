#include "migration/format/source.h"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <memory>
#include <unistd.h>

#include <sys/stat.h>

namespace migration::format {

using vmm::Failure;
using vmm::Result;

Result<std::size_t> RandomSource::read(std::span<std::byte> to) {
    constexpr std::size_t kAhead = 16 * 1024;
    const auto is_there = [&] {
        return position_ >= ahead_at_ && position_ - ahead_at_ < ahead_.size();
    };
    std::size_t n = 0;
    if (!is_there() && to.size() < kAhead) {
        ahead_.resize(kAhead);
        ahead_at_ = position_;
        auto got = read_at(position_, ahead_);
        ahead_.resize(got ? *got : 0);
        if (!got) return Failure{got.error()};
    }
    if (is_there()) {
        const auto from = std::span(ahead_).subspan(position_ - ahead_at_);
        n = std::min(from.size(), to.size());
        std::copy_n(from.begin(), n, to.begin());
    } else if (to.size() >= kAhead) {
        n = TRY(read_at(position_, to));
    }
    position_ += n;
    return n;
}

Result<std::unique_ptr<FileSource>> FileSource::open(const std::string& path) {
    // O_NONBLOCK: a FIFO that nobody writes to is refused, not waited for.
    vmm::Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!fd) return vmm::errno_error(path, vmm::Fault::kUser);
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0) return vmm::errno_error(path, vmm::Fault::kUser);
    if (!S_ISREG(status.st_mode)) return vmm::user_error(path + ": it is no regular file");
    return std::unique_ptr<FileSource>(
        new FileSource(path, std::move(fd), static_cast<std::uint64_t>(status.st_size)));
}

Result<std::size_t> FileSource::read_at(std::uint64_t offset, std::span<std::byte> to) {
    if (offset >= length_) return std::size_t{0};
    for (;;) {
        const ssize_t n = ::pread(fd_.get(), to.data(), to.size(), static_cast<off_t>(offset));
        if (n >= 0) return static_cast<std::size_t>(n);
        if (errno != EINTR) return vmm::errno_error(name(), vmm::Fault::kHost);
    }
}

std::uint64_t FileSource::next_data(std::uint64_t offset) {
    if (offset >= length_) return length_;
    const off_t at = ::lseek(fd_.get(), static_cast<off_t>(offset), SEEK_DATA);
    if (at >= 0) return std::min(static_cast<std::uint64_t>(at), length_);
    // Nothing but a hole is left, or this filesystem knows no holes.
    return errno == ENXIO ? length_ : offset;
}

}  // namespace migration::format
