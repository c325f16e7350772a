// A file that comes into being whole or not at all. Its bytes go into a file that has no name, or
// where the filesystem cannot have such a one, a name of its own beside the target; commit() puts
// them on the disk, then under the target's name, then that onto the disk too. Until then the
// target, if there was one, is as it was; whatever fails, nothing of ours is left.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include <sys/types.h>

#include "migration/format/sink.h"
#include "vmm/base/result.h"

namespace migration::format {

// The system calls that it takes, for a test to fail each of them and to keep what was written.
// They answer as the system's own: -1 and errno.
class FileCalls {
  public:
    virtual ~FileCalls() = default;
    virtual int open(const char* path, int flags, mode_t mode) = 0;
    // 0 there is none, 1 a regular file, 2 something else
    virtual int kind(const char* path) = 0;
    virtual ssize_t pwrite(int fd, const void* bytes, std::size_t size, off_t offset) = 0;
    // Starts to write to the disk and does not wait; errors come with fsync().
    virtual void start_writing(int fd, off_t offset, off_t size) = 0;
    virtual int fsync(int fd) = 0;
    // Gives an unnamed file a name.
    virtual int link(int fd, const char* path) = 0;
    virtual int rename(const char* from, const char* to) = 0;
    virtual int unlink(const char* path) = 0;
    virtual void close(int fd) = 0;
};
FileCalls& system_file_calls();

class AtomicFile final : public FileSink {
  public:
    // `path`: the target; its folder exists, and what has the name is a regular file, if anything.
    static vmm::Result<AtomicFile> create(std::string path, FileCalls& calls = system_file_calls());

    AtomicFile(AtomicFile&& other) noexcept;
    AtomicFile& operator=(AtomicFile&&) = delete;
    AtomicFile(const AtomicFile&) = delete;
    AtomicFile& operator=(const AtomicFile&) = delete;
    // Without commit(), nothing was ever there.
    ~AtomicFile() override;

    vmm::Result<void> write_at(std::uint64_t offset, Piece bytes) override;
    // When it succeeds, the file survives a power cut. When it fails, there is no new file, but in
    // one case: the folder could not be written to the disk, and the target existed before. Then
    // the target is the new file, which a power cut may undo.
    vmm::Result<void> commit();

  private:
    AtomicFile(std::string path, FileCalls& calls);
    vmm::Failure<vmm::Error> failed(const char* doing, int code) const;
    vmm::Result<void> open();

    FileCalls& calls_;
    std::string path_;
    std::string folder_;
    std::string temporary_;  // its name, while it has one
    bool named_ = false;
    int fd_ = -1;
    int folder_fd_ = -1;
    bool existed_ = false;
    // Written, but not yet on the way to the disk.
    std::uint64_t behind_from_ = 0;
    std::uint64_t behind_to_ = 0;
    std::uint64_t behind_ = 0;
};

}  // namespace migration::format
