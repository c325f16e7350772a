// `xenolith-tls` (vmm/tls), which stands beside this program: it makes one connection a TLS one,
// and this side of it is a socket like any other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <sys/types.h>

#include "vmm/base/fd.h"
#include "vmm/base/result.h"
#include "vmm/cli/config/address.h"
#include "vmm/cli/config/options.h"

namespace vmm::cli {

class TlsProgram {
  public:
    // Whether the files are in order; a failure says which is not.
    static Result<void> check(const config::TlsOptions& options);
    // Each goes on by itself: who_is_there() waits for it.
    static Result<TlsProgram> connect(const config::TlsOptions& options, const config::Address& to);
    static Result<TlsProgram> accept(const config::TlsOptions& options, Fd connection);

    TlsProgram(TlsProgram&& other) noexcept
        : process_(std::exchange(other.process_, 0)),
          socket_(std::move(other.socket_)),
          ready_(std::move(other.ready_)),
          words_(std::move(other.words_)) {}
    TlsProgram& operator=(TlsProgram&&) = delete;
    // Waits for the program, not for long: it ends once its socket is closed. One that is not
    // through with who_is_there() is ended at once.
    ~TlsProgram();

    // Readable once the other side has shown who it is, or cannot.
    int ready_fd() const { return ready_.get(); }
    // The name in its certificate; a failure: why there is no connection, in a line.
    Result<std::string> who_is_there();
    Fd take_socket() { return std::move(socket_); }

    // Readable once the program has ended, or is about to because the connection was lost.
    int ending_fd() const { return words_.get(); }
    // Why the connection was lost; empty: it was not, both sides have ended it. The socket is
    // closed, or at its end.
    std::string last_word();

  private:
    TlsProgram(pid_t process, Fd socket, Fd ready, Fd words)
        : process_(process),
          socket_(std::move(socket)),
          ready_(std::move(ready)),
          words_(std::move(words)) {}
    static Result<TlsProgram> start(const config::TlsOptions& options,
                                    std::vector<std::string> command, Fd connection);
    Error why();
    int reap();

    pid_t process_;  // 0: it is no more
    Fd socket_;
    Fd ready_;
    Fd words_;  // its standard error
};

// Lets those in who connect to a listener and show a certificate of theirs that is good. None of
// them makes another wait.
class TlsDoor {
  public:
    static Result<TlsDoor> open(Fd listener, config::TlsOptions options, std::string name);
    TlsDoor(TlsDoor&&) noexcept = default;
    TlsDoor& operator=(TlsDoor&&) = delete;

    // Readable when accept() has something to do.
    int fd() const { return events_.get(); }
    // The next who is let in, if there is one. Who is not is a line in the log.
    std::optional<Fd> accept();

  private:
    struct Visitor {
        TlsProgram program;
        bool let_in = false;
    };
    TlsDoor(Fd events, Fd listener, config::TlsOptions options, std::string name)
        : events_(std::move(events)),
          listener_(std::move(listener)),
          options_(std::move(options)),
          name_(std::move(name)) {}
    bool watch(int fd, std::uint64_t id);
    void ring();
    void let_go_of_oldest();

    Fd events_;  // an epoll descriptor
    Fd listener_;
    config::TlsOptions options_;
    std::string name_;
    std::map<std::uint64_t, Visitor> visitors_;
    std::uint64_t last_id_ = 0;
    std::size_t unknown_ = 0;  // of the visitors, those who have not shown who they are
};

}  // namespace vmm::cli
