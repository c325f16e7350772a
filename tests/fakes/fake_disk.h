// A disk for migration::format::AtomicFile that can fail each call, keeps a log of what was done to
// it, and says what a power cut after any of that could have left.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "migration/format/atomic_file.h"
#include "tests/fakes/saved_vm.h"

namespace fakes {

class FakeDisk final : public migration::format::FileCalls {
  public:
    // What a folder shows: names and contents.
    using Image = std::map<std::string, Bytes>;

    // Calls from now on, and of them, from 0 on, the one that fails. EINTR fails once.
    std::size_t calls = 0;
    std::optional<std::size_t> failing;
    int code = EIO;
    std::size_t at_once = ~std::size_t{0};  // bytes that one write takes
    bool unnamed_files = true;
    bool fsync_lies = false;
    std::set<int> open_files;

    void put(const std::string& path, Bytes content) {
        const std::size_t inode = new_inode();
        log_.push_back({Op::kWrite, inode, 0, content, {}, {}});
        inodes_[inode] = std::move(content);
        log_.push_back({Op::kSync, inode, 0, {}, {}, {}});
        name(path, inode);
        log_.push_back({Op::kSyncFolder, 0, 0, {}, {}, {}});
    }
    Image image() const {
        Image out;
        for (const auto& [path, inode] : names_) {
            out[path] = inodes_[inode];
        }
        return out;
    }
    std::size_t log_length() const { return log_.size(); }

    // What there may be after a power cut when the first `done` entries of the log were done. Of
    // what was done to names since the folder's last fsync, as much as one likes has come to the
    // disk, in its order; of writes to a file since its last fsync: all, none, all but one, only
    // one, or all with one of them half done.
    void power_cuts(std::size_t done, const std::function<void(const Image&)>& look) const {
        const std::span log(log_.data(), done);
        std::size_t synced_names = 0;
        for (std::size_t i = 0; i < log.size(); ++i) {
            if (log[i].op == Op::kSyncFolder) synced_names = i;
        }
        std::vector<std::size_t> names;  // entries whose names may or may not be there
        for (std::size_t i = synced_names; i < log.size(); ++i) {
            if (is_name(log[i].op)) names.push_back(i);
        }
        for (std::size_t kept = 0; kept <= names.size(); ++kept) {
            const std::size_t names_end = kept == 0 ? synced_names : names[kept - 1] + 1;
            std::vector<std::size_t> loose;
            std::vector<std::size_t> synced(inodes_.size(), 0);
            for (std::size_t i = 0; i < log.size(); ++i) {
                if (log[i].op == Op::kSync) synced[log[i].inode] = i;
            }
            for (std::size_t i = 0; i < log.size(); ++i) {
                if (log[i].op == Op::kWrite && i >= synced[log[i].inode]) loose.push_back(i);
            }
            const auto show = [&](const std::function<std::size_t(std::size_t)>& bytes_of) {
                look(replay(log, names_end, [&](std::size_t i) {
                    const bool is_loose = std::find(loose.begin(), loose.end(), i) != loose.end();
                    return is_loose ? bytes_of(i) : log[i].bytes.size();
                }));
            };
            show([&](std::size_t i) { return log[i].bytes.size(); });
            show([](std::size_t) { return 0; });
            for (const std::size_t one : loose) {
                show([&](std::size_t i) { return i == one ? 0 : log[i].bytes.size(); });
                show([&](std::size_t i) { return i == one ? log[i].bytes.size() : 0; });
                show([&](std::size_t i) { return log[i].bytes.size() / (i == one ? 2 : 1); });
            }
        }
    }

    int open(const char* path, int flags, mode_t) override {
        if (fails()) return -1;
        if ((flags & O_TMPFILE) == O_TMPFILE) {
            if (!unnamed_files) return error(EOPNOTSUPP);
            return descriptor(new_inode());
        }
        if ((flags & O_DIRECTORY) != 0) return descriptor(kFolder);
        if (names_.count(path) != 0) return error(EEXIST);
        const std::size_t inode = new_inode();
        name(path, inode);
        return descriptor(inode);
    }
    int kind(const char* path) override {
        if (std::string(path).starts_with("/proc")) return 2;
        if (fails()) return -1;
        return names_.count(path) != 0 ? 1 : 0;
    }
    ssize_t pwrite(int fd, const void* bytes, std::size_t size, off_t offset) override {
        if (fails()) return -1;
        const auto* from = static_cast<const std::byte*>(bytes);
        const Bytes some(from, from + std::min(size, at_once));
        log_.push_back(
            {Op::kWrite, descriptors_.at(fd), static_cast<std::size_t>(offset), some, {}, {}});
        write(inodes_[descriptors_.at(fd)], static_cast<std::size_t>(offset), some);
        return static_cast<ssize_t>(some.size());
    }
    void start_writing(int, off_t, off_t) override {}
    int fsync(int fd) override {
        if (fails()) return -1;
        if (fsync_lies) return 0;
        const std::size_t inode = descriptors_.at(fd);
        log_.push_back({inode == kFolder ? Op::kSyncFolder : Op::kSync, inode, 0, {}, {}, {}});
        return 0;
    }
    int link(int fd, const char* path) override {
        if (fails()) return -1;
        if (names_.count(path) != 0) return error(EEXIST);
        name(path, descriptors_.at(fd));
        return 0;
    }
    int rename(const char* from, const char* to) override {
        if (fails()) return -1;
        if (names_.count(from) == 0) return error(ENOENT);
        log_.push_back({Op::kRename, 0, 0, {}, from, to});
        names_[to] = names_[from];
        names_.erase(from);
        return 0;
    }
    int unlink(const char* path) override {
        if (names_.count(path) == 0) return error(ENOENT);
        log_.push_back({Op::kUnlink, 0, 0, {}, path, {}});
        names_.erase(path);
        return 0;
    }
    void close(int fd) override { open_files.erase(fd); }

  private:
    static constexpr std::size_t kFolder = ~std::size_t{0};
    enum class Op { kWrite, kSync, kName, kRename, kUnlink, kSyncFolder };
    struct Entry {
        Op op;
        std::size_t inode;
        std::size_t offset;
        Bytes bytes;
        std::string from, to;
    };

    static bool is_name(Op op) { return op == Op::kName || op == Op::kRename || op == Op::kUnlink; }
    static int error(int which) {
        errno = which;
        return -1;
    }
    static void write(Bytes& to, std::size_t offset, std::span<const std::byte> bytes) {
        to.resize(std::max(to.size(), offset + bytes.size()));
        if (!bytes.empty()) std::memcpy(&to[offset], bytes.data(), bytes.size());
    }
    bool fails() {
        if (calls++ != failing) return false;
        errno = code;
        return true;
    }
    std::size_t new_inode() {
        inodes_.emplace_back();
        return inodes_.size() - 1;
    }
    int descriptor(std::size_t inode) {
        const int fd = static_cast<int>(descriptors_.size());
        descriptors_[fd] = inode;
        open_files.insert(fd);
        return fd;
    }
    void name(const std::string& path, std::size_t inode) {
        log_.push_back({Op::kName, inode, 0, {}, {}, path});
        names_[path] = inode;
    }
    // Of the names what comes before `names_end`, of each write as many bytes as it is said.
    Image replay(std::span<const Entry> log, std::size_t names_end,
                 const std::function<std::size_t(std::size_t)>& bytes) const {
        std::vector<Bytes> inodes(inodes_.size());
        std::map<std::string, std::size_t> names;
        for (std::size_t i = 0; i < log.size(); ++i) {
            const Entry& e = log[i];
            if (e.op == Op::kWrite) {
                const auto kept = std::span(e.bytes).first(bytes(i));
                if (!kept.empty()) write(inodes[e.inode], e.offset, kept);
            }
            if (i >= names_end) continue;
            if (e.op == Op::kName) names[e.to] = e.inode;
            if (e.op == Op::kRename) names[e.to] = names[e.from];
            if (e.op == Op::kRename || e.op == Op::kUnlink) names.erase(e.from);
        }
        Image out;
        for (const auto& [path, inode] : names) {
            out[path] = inodes[inode];
        }
        return out;
    }

    std::vector<Bytes> inodes_;
    std::map<std::string, std::size_t> names_;
    std::map<int, std::size_t> descriptors_;
    std::vector<Entry> log_;
};

}  // namespace fakes
