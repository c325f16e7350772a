// Where control sockets are: a directory that is its owner's alone, with NAME.sock for each VM that
// runs and NAME.lock, which the VM's process holds locked for as long as it lives. The lock decides
// whose the name is; a socket without a locked lock was left behind by a process that was killed.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "vmm/base/fd.h"
#include "vmm/base/result.h"

namespace control {

// $XENOLITH_RUNTIME_DIR, else $XDG_RUNTIME_DIR/xenolith, else /run/xenolith for root, else
// /tmp/xenolith-UID. A variable that is null or empty is not set.
std::string directory_path(const char* own, const char* session, uid_t uid);
std::string directory_path();  // of this process

class Directory {
  public:
    enum class Missing { kMake, kRefuse };
    // Refuses (Fault::kUser) what is a symbolic link, somebody else's or open to others.
    static vmm::Result<Directory> open(const std::string& path, Missing missing);

    const std::string& path() const { return path_; }
    int fd() const { return fd_.get(); }
    // The names of the sockets that are there, sorted; dead ones too.
    std::vector<std::string> names() const;
    // A connection to NAME's process; it has no answer (nullopt) when none lives.
    vmm::Result<std::optional<vmm::Fd>> connect(const std::string& name) const;

  private:
    Directory(std::string path, vmm::Fd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
    std::string path_;
    vmm::Fd fd_;
};

// A name, taken: nobody else can have it until this is gone, and connections come in at the
// listener.
class Endpoint {
  public:
    // Fault::kUser when a process that lives has the name, or the name is too long for a socket.
    static vmm::Result<Endpoint> claim(Directory directory, const std::string& name);
    Endpoint(Endpoint&&) = default;
    Endpoint& operator=(Endpoint&&) = delete;
    ~Endpoint();

    const std::string& name() const { return name_; }
    // Once: the listening socket, which does not block.
    vmm::Fd take_listener() { return std::move(listener_); }

  private:
    Endpoint(Directory directory, std::string name, vmm::Fd lock)
        : directory_(std::move(directory)), name_(std::move(name)), lock_(std::move(lock)) {}

    Directory directory_;
    std::string name_;
    vmm::Fd lock_, listener_;
};

}  // namespace control
