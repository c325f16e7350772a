#include "control/endpoint.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <memory>
#include <optional>
#include <unistd.h>

#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

namespace control {
namespace {

using vmm::Fd;

constexpr std::string_view kSocketEnd = ".sock";
constexpr std::string_view kLockEnd = ".lock";
constexpr int kBacklog = 16;

std::string file_name(const std::string& name, std::string_view end) {
    return name + std::string(end);
}

// What a full table of files, or of memory, makes fail is not the user's mistake.
vmm::Fault fault_of(int code) {
    return code == EMFILE || code == ENFILE || code == ENOMEM ? vmm::Fault::kInternal
                                                              : vmm::Fault::kUser;
}

vmm::Failure<vmm::Error> failed(const std::string& path, int code = errno) {
    return vmm::errno_error(path, fault_of(code), code);
}

// A socket's address has room for some hundred bytes: a path through the directory's descriptor is
// short however long the directory's own is.
std::optional<sockaddr_un> address_of(const Directory& directory, const std::string& name) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    for (const std::string& folder :
         {directory.path(), "/proc/self/fd/" + std::to_string(directory.fd())}) {
        const std::string path = folder + "/" + file_name(name, kSocketEnd);
        if (path.size() >= sizeof address.sun_path) continue;
        std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
        return address;
    }
    return std::nullopt;
}

const sockaddr* generic(const sockaddr_un& address) {
    return reinterpret_cast<const sockaddr*>(&address);  // NOLINT: the interface's own way
}

}  // namespace

std::string directory_path(const char* own, const char* session, uid_t uid) {
    if (own != nullptr && *own != '\0') return own;
    if (session != nullptr && *session != '\0') return std::string(session) + "/xenolith";
    return uid == 0 ? "/run/xenolith" : "/tmp/xenolith-" + std::to_string(uid);
}

std::string directory_path() {
    return directory_path(std::getenv("XENOLITH_RUNTIME_DIR"), std::getenv("XDG_RUNTIME_DIR"),
                          ::geteuid());
}

vmm::Result<Directory> Directory::open(const std::string& path, Missing missing) {
    constexpr mode_t kOwnerOnly = 0700, kOthers = 0077;
    if (missing == Missing::kMake && ::mkdir(path.c_str(), kOwnerOnly) != 0 && errno != EEXIST) {
        return failed(path);
    }
    Fd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!fd) return failed(path);
    struct stat about {};
    if (::fstat(fd.get(), &about) != 0) return failed(path);
    if (about.st_uid != ::geteuid()) {
        return vmm::user_error(path + ": it belongs to another user (uid " +
                               std::to_string(about.st_uid) + ")");
    }
    if ((about.st_mode & kOthers) != 0) {
        return vmm::user_error(path + ": others may enter it; its mode must be 0700");
    }
    return Directory(path, std::move(fd));
}

std::vector<std::string> Directory::names() const {
    std::vector<std::string> names;
    const std::unique_ptr<DIR, int (*)(DIR*)> entries(::opendir(path_.c_str()), &::closedir);
    if (!entries) return names;
    while (const dirent* entry = ::readdir(entries.get())) {
        const std::string_view file = entry->d_name;
        if (file.size() <= kSocketEnd.size() || !file.ends_with(kSocketEnd)) continue;
        names.emplace_back(file.substr(0, file.size() - kSocketEnd.size()));
    }
    std::ranges::sort(names);
    return names;
}

vmm::Result<std::optional<Fd>> Directory::connect(const std::string& name) const {
    const auto address = address_of(*this, name);
    if (!address) return std::optional<Fd>();  // nobody can have that name
    Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) return vmm::errno_error("socket");
    if (::connect(fd.get(), generic(*address), sizeof *address) == 0) {
        return std::optional(std::move(fd));
    }
    if (errno == ENOENT || errno == ECONNREFUSED) return std::optional<Fd>();
    return failed(path_ + "/" + file_name(name, kSocketEnd));
}

vmm::Result<Endpoint> Endpoint::claim(Directory directory, const std::string& name) {
    const auto address = address_of(directory, name);
    if (!address) {
        return vmm::user_error("the name '" + name + "' is too long for a control socket");
    }
    const std::string lock_name = file_name(name, kLockEnd);
    for (;;) {
        Fd lock(::openat(directory.fd(), lock_name.c_str(),
                         O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
        if (!lock) return failed(directory.path() + "/" + lock_name);
        if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
            if (errno == EINTR) continue;
            if (errno != EWOULDBLOCK) return failed(directory.path() + "/" + lock_name);
            return vmm::user_error("a guest named '" + name + "' is running already");
        }
        // Its last owner may have removed the file between our two calls: then what we locked is
        // nothing that anybody else would find.
        struct stat ours {
        }, there{};
        if (::fstat(lock.get(), &ours) != 0) return failed(directory.path() + "/" + lock_name);
        if (::fstatat(directory.fd(), lock_name.c_str(), &there, AT_SYMLINK_NOFOLLOW) != 0 ||
            ours.st_ino != there.st_ino || ours.st_dev != there.st_dev) {
            continue;
        }
        Endpoint endpoint(std::move(directory), name, std::move(lock));
        // Whoever left a socket there is dead: the lock was free.
        ::unlinkat(endpoint.directory_.fd(), file_name(name, kSocketEnd).c_str(), 0);
        endpoint.listener_ = Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        if (!endpoint.listener_) return vmm::errno_error("socket");
        if (::bind(endpoint.listener_.get(), generic(*address), sizeof *address) != 0 ||
            ::listen(endpoint.listener_.get(), kBacklog) != 0) {
            return failed(endpoint.directory_.path() + "/" + file_name(name, kSocketEnd));
        }
        return endpoint;
    }
}

Endpoint::~Endpoint() {
    if (!lock_) return;  // moved from
    // The lock last: as long as it is held nobody else makes these files.
    ::unlinkat(directory_.fd(), file_name(name_, kSocketEnd).c_str(), 0);
    ::unlinkat(directory_.fd(), file_name(name_, kLockEnd).c_str(), 0);
}

}  // namespace control
