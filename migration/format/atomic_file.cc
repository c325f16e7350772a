#include "migration/format/atomic_file.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>
#include <utility>

#include <sys/random.h>
#include <sys/stat.h>

namespace migration::format {

namespace {

using vmm::Result;

// It holds all of a guest's memory.
constexpr mode_t kMode = 0600;
// The disk begins after so many bytes: fsync() at the end would else find all of them.
constexpr std::uint64_t kWriteBehind = std::uint64_t{8} << 20;

constexpr char kDescriptors[] = "/proc/self/fd";

class SystemFileCalls final : public FileCalls {
  public:
    int open(const char* path, int flags, mode_t mode) override {
        return ::open(path, flags, mode);
    }
    int kind(const char* path) override {
        struct stat status {};
        if (::lstat(path, &status) != 0) return errno == ENOENT ? 0 : -1;
        return S_ISREG(status.st_mode) ? 1 : 2;
    }
    ssize_t pwrite(int fd, const void* bytes, std::size_t size, off_t offset) override {
        return ::pwrite(fd, bytes, size, offset);
    }
    void start_writing(int fd, off_t offset, off_t size) override {
        ::sync_file_range(fd, offset, size, SYNC_FILE_RANGE_WRITE);
    }
    int fsync(int fd) override { return ::fsync(fd); }
    int link(int fd, const char* path) override {
        const std::string from = std::string(kDescriptors) + '/' + std::to_string(fd);
        return ::linkat(AT_FDCWD, from.c_str(), AT_FDCWD, path, AT_SYMLINK_FOLLOW);
    }
    int rename(const char* from, const char* to) override { return ::rename(from, to); }
    int unlink(const char* path) override { return ::unlink(path); }
    void close(int fd) override { ::close(fd); }
};

template <class Call>
auto again_if_interrupted(const Call& call) {
    for (;;) {
        const auto result = call();
        if (result >= 0 || errno != EINTR) return result;
    }
}

std::string folder_of(const std::string& path) {
    const auto slash = path.rfind('/');
    if (slash == std::string::npos) return ".";
    return slash == 0 ? "/" : path.substr(0, slash);
}

// The name does not grow with the target's, which may be as long as a name can be.
std::string temporary_in(const std::string& folder) {
    std::uint64_t random = 0;
    if (::getrandom(&random, sizeof random, 0) != sizeof random) {
        random = static_cast<std::uint64_t>(::getpid());
    }
    char digits[17];
    std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(random));
    return folder + "/.xenolith-" + digits + ".partial";
}

}  // namespace

FileCalls& system_file_calls() {
    static SystemFileCalls calls;
    return calls;
}

AtomicFile::AtomicFile(std::string path, FileCalls& calls)
    : calls_(calls),
      path_(std::move(path)),
      folder_(folder_of(path_)),
      temporary_(temporary_in(folder_)) {}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : calls_(other.calls_),
      path_(std::move(other.path_)),
      folder_(std::move(other.folder_)),
      temporary_(std::move(other.temporary_)),
      named_(std::exchange(other.named_, false)),
      fd_(std::exchange(other.fd_, -1)),
      folder_fd_(std::exchange(other.folder_fd_, -1)),
      existed_(other.existed_),
      behind_from_(other.behind_from_),
      behind_to_(other.behind_to_),
      behind_(other.behind_) {}

AtomicFile::~AtomicFile() {
    if (named_) calls_.unlink(temporary_.c_str());
    if (fd_ >= 0) calls_.close(fd_);
    if (folder_fd_ >= 0) calls_.close(folder_fd_);
}

vmm::Failure<vmm::Error> AtomicFile::failed(const char* doing, int code) const {
    // Where to write is the operator's choice; that it cannot be done there, the host's.
    constexpr std::array kChoice{ENOENT, ENOTDIR, EISDIR, EACCES,
                                 EPERM,  EROFS,   ELOOP,  ENAMETOOLONG};
    const bool chosen = std::ranges::find(kChoice, code) != kChoice.end();
    return vmm::errno_error(path_ + ": " + doing, chosen ? vmm::Fault::kUser : vmm::Fault::kHost,
                            code);
}

Result<AtomicFile> AtomicFile::create(std::string path, FileCalls& calls) {
    const std::string name = path.substr(path.rfind('/') + 1);
    if (name.empty() || name == "." || name == "..") {
        return vmm::user_error("'" + path + "' is no file's name");
    }
    AtomicFile file(std::move(path), calls);
    TRY(file.open());
    return file;
}

Result<void> AtomicFile::open() {
    const int kind = again_if_interrupted([&] { return calls_.kind(path_.c_str()); });
    if (kind < 0) return failed("looking for it", errno);
    if (kind > 1) return vmm::user_error(path_ + ": it is no regular file");
    existed_ = kind == 1;
    // Now, because after the renaming nothing should be left that can fail but the disk.
    folder_fd_ = again_if_interrupted(
        [&] { return calls_.open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0); });
    if (folder_fd_ < 0) return failed("opening its folder", errno);
    // Only by its descriptor's name can an unnamed file get one of its own.
    if (calls_.kind(kDescriptors) > 0) {
        fd_ = again_if_interrupted(
            [&] { return calls_.open(folder_.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, kMode); });
        if (fd_ >= 0) return {};
        // EISDIR is the answer of kernels, EOPNOTSUPP of filesystems, that have no unnamed files.
        if (errno != EOPNOTSUPP && errno != EISDIR) return failed("making it", errno);
    }
    fd_ = again_if_interrupted([&] {
        return calls_.open(temporary_.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, kMode);
    });
    if (fd_ < 0) return failed("making it", errno);
    named_ = true;
    return {};
}

Result<void> AtomicFile::write_at(std::uint64_t offset, Piece bytes) {
    const std::uint64_t end = offset + bytes.size();
    if (behind_ == 0) behind_from_ = offset;
    behind_from_ = std::min(behind_from_, offset);
    behind_to_ = std::max(behind_ == 0 ? 0 : behind_to_, end);
    behind_ += bytes.size();
    for (; !bytes.empty();) {
        const ssize_t n = again_if_interrupted([&] {
            return calls_.pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
        });
        if (n < 0) return failed("writing", errno);
        if (n == 0) return failed("writing", EIO);
        bytes = bytes.subspan(static_cast<std::size_t>(n));
        offset += static_cast<std::uint64_t>(n);
    }
    if (behind_ >= kWriteBehind) {
        calls_.start_writing(fd_, static_cast<off_t>(behind_from_),
                             static_cast<off_t>(behind_to_ - behind_from_));
        behind_ = 0;
    }
    return {};
}

Result<void> AtomicFile::commit() {
    if (again_if_interrupted([&] { return calls_.fsync(fd_); }) < 0) {
        return failed("writing it to the disk", errno);
    }
    if (!named_) {
        if (again_if_interrupted([&] { return calls_.link(fd_, temporary_.c_str()); }) < 0) {
            return failed("naming it", errno);
        }
        named_ = true;
    }
    if (again_if_interrupted([&] { return calls_.rename(temporary_.c_str(), path_.c_str()); }) <
        0) {
        return failed("naming it", errno);
    }
    named_ = false;
    if (again_if_interrupted([&] { return calls_.fsync(folder_fd_); }) < 0) {
        const int code = errno;
        if (!existed_) calls_.unlink(path_.c_str());
        return failed("writing its folder to the disk", code);
    }
    return {};
}

}  // namespace migration::format
