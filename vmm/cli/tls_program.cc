#include "vmm/cli/tls_program.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <string_view>
#include <unistd.h>

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "vmm/base/log.h"

namespace vmm::cli {
namespace {

using config::Address;
using config::TlsOptions;

// The program's own descriptors, besides the standard ones.
constexpr int kReady = 3, kConnection = 4;
// Ours that it is given are higher, so that none is in another's place.
constexpr int kAbove = 10;

constexpr std::string_view kName = "xenolith-tls";

Result<std::string> path_of_program() {
    std::array<char, PATH_MAX> own{};
    const ssize_t n = ::readlink("/proc/self/exe", own.data(), own.size());
    if (n < 0) return errno_error("/proc/self/exe", Fault::kHost);
    std::string path(own.data(), static_cast<std::size_t>(n));
    return path.substr(0, path.rfind('/') + 1) + std::string(kName);
}

Result<std::pair<Fd, Fd>> pipe() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) return errno_error("pipe");
    return std::pair(Fd(ends[0]), Fd(ends[1]));
}

Result<Fd> above(Fd fd) {
    Fd copy(::fcntl(fd.get(), F_DUPFD_CLOEXEC, kAbove));
    if (!copy) return errno_error("dup");
    return copy;
}

}  // namespace

Result<TlsProgram> TlsProgram::start(const TlsOptions& options, std::vector<std::string> command,
                                     Fd connection) {
    const std::string path = TRY(path_of_program());
    std::array<int, 2> pair{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0) {
        return errno_error("socketpair");
    }
    Fd ours(pair[0]);
    const Fd theirs = TRY(above(Fd(pair[1])));
    auto [ready, their_ready] = TRY(pipe());
    auto [words, their_words] = TRY(pipe());
    const Fd ready_there = TRY(above(std::move(their_ready)));
    const Fd words_there = TRY(above(std::move(their_words)));
    const Fd connection_there = connection ? TRY(above(std::move(connection))) : Fd();

    command.insert(command.begin(), path);
    command.insert(command.end(), {"--dir", options.folder});
    for (const std::string& peer : options.peers)
        command.insert(command.end(), {"--peer", peer});
    command.insert(command.end(), {"--ready", std::to_string(kReady)});
    std::vector<char*> arguments;
    for (std::string& word : command)
        arguments.push_back(word.data());
    arguments.push_back(nullptr);

    // Not fork(): a guest may be running here, on other threads and in much memory.
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawnattr_init(&attributes);
    ::posix_spawn_file_actions_adddup2(&actions, theirs.get(), STDIN_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions, theirs.get(), STDOUT_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions, words_there.get(), STDERR_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions, ready_there.get(), kReady);
    if (connection_there) {
        ::posix_spawn_file_actions_adddup2(&actions, connection_there.get(), kConnection);
    }
    // Whatever else is open here, a guest's memory for one, is none of its business.
    ::posix_spawn_file_actions_addclosefrom_np(&actions, kConnection + 1);
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    ::posix_spawnattr_setsigmask(&attributes, &none);
    ::posix_spawnattr_setsigdefault(&attributes, &all);
    ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    pid_t process = 0;
    const int failed =
        ::posix_spawn(&process, path.c_str(), &actions, &attributes, arguments.data(), environ);
    ::posix_spawnattr_destroy(&attributes);
    ::posix_spawn_file_actions_destroy(&actions);
    if (failed != 0) return errno_error(path, Fault::kHost, failed);
    return TlsProgram(process, std::move(ours), std::move(ready), std::move(words));
}

Result<void> TlsProgram::check(const TlsOptions& options) {
    TlsProgram program = TRY(start(options, {"check"}, Fd()));
    const Error error = program.why();
    if (error.what.empty()) return {};
    return Failure{error};
}

Result<TlsProgram> TlsProgram::connect(const TlsOptions& options, const Address& to) {
    return start(options, {"connect", to.host, std::to_string(to.port)}, Fd());
}

Result<TlsProgram> TlsProgram::accept(const TlsOptions& options, Fd connection) {
    return start(options, {"accept", std::to_string(kConnection)}, std::move(connection));
}

TlsProgram::~TlsProgram() {
    if (process_ != 0 && ready_) ::kill(process_, SIGKILL);
    reap();
}

// Its wait status.
int TlsProgram::reap() {
    if (process_ == 0) return 0;
    socket_.reset();
    // It still says that it has ended, unless the other side does not take that.
    constexpr int kPatienceMs = 2000;
    const Fd process(static_cast<int>(::syscall(SYS_pidfd_open, process_, 0)));
    pollfd one{.fd = process.get(), .events = POLLIN, .revents = 0};
    if (::poll(&one, 1, kPatienceMs) != 1) ::kill(process_, SIGKILL);
    int status = 0;
    while (::waitpid(process_, &status, 0) < 0 && errno == EINTR) {
    }
    process_ = 0;
    return status;
}

// What its last word and its exit status are together; empty: nothing is wrong.
Error TlsProgram::why() {
    const int status = reap();
    std::array<char, 4096> text{};
    const ssize_t n = words_ ? ::read(words_.get(), text.data(), text.size()) : 0;
    words_.reset();
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
    std::string_view line(text.data(), n > 0 ? static_cast<std::size_t>(n) : 0);
    line = line.substr(0, line.find('\n'));
    if (constexpr std::string_view kPrefix = "xenolith-tls: "; line.starts_with(kPrefix)) {
        line.remove_prefix(kPrefix.size());
    }
    if (line.empty()) return {Fault::kHost, std::string(kName) + " was killed"};
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    const Fault fault = code == 2 ? Fault::kUser : code == 4 ? Fault::kHost : Fault::kInternal;
    return {fault, std::string(line)};
}

Result<std::string> TlsProgram::who_is_there() {
    std::array<char, 1024> text{};
    ssize_t n = 0;
    do {
        n = ::read(ready_.get(), text.data(), text.size());
    } while (n < 0 && errno == EINTR);
    ready_.reset();
    if (n > 0) {
        const std::string_view name(text.data(), static_cast<std::size_t>(n));
        return std::string(name.substr(0, name.find('\n')));
    }
    Error error = why();
    if (error.what.empty()) error = {Fault::kHost, std::string(kName) + " has ended"};
    return Failure{error};
}

std::string TlsProgram::last_word() {
    return why().what;
}

// ---- who is let in ------------------------------------------------------------------------------

namespace {

constexpr std::uint64_t kListener = 0;
// Those who have connected and are about to show who they are. It takes them milliseconds: of one
// more, the first to go is the one that has been there longest.
constexpr std::size_t kMostUnknown = 16;

}  // namespace

bool TlsDoor::watch(int fd, std::uint64_t id) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = id;
    return ::epoll_ctl(events_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
}

Result<TlsDoor> TlsDoor::open(Fd listener, TlsOptions options, std::string name) {
    Fd events(::epoll_create1(EPOLL_CLOEXEC));
    if (!events) return errno_error("epoll_create1");
    TlsDoor door(std::move(events), std::move(listener), std::move(options), std::move(name));
    if (!door.watch(door.listener_.get(), kListener)) {
        return errno_error("epoll_ctl");
    }
    return door;
}

void TlsDoor::let_go_of_oldest() {
    const auto oldest =
        std::ranges::find_if(visitors_, [](const auto& visitor) { return !visitor.second.let_in; });
    if (oldest == visitors_.end()) return;
    visitors_.erase(oldest);
    --unknown_;
    log_guest("receive", "%s: too many who do not show who they are: one was let go",
              name_.c_str());
}

// Somebody is at the listener.
void TlsDoor::ring() {
    Fd connection(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!connection) return;
    auto program = TlsProgram::accept(options_, std::move(connection));
    if (!program) {
        log_warn("receive", "%s: %s", name_.c_str(), program.error().what.c_str());
        return;
    }
    const std::uint64_t id = ++last_id_;
    if (!watch(program->ready_fd(), id)) return;
    if (unknown_ == kMostUnknown) let_go_of_oldest();
    visitors_.emplace(id, Visitor{*std::move(program)});
    ++unknown_;
}

std::optional<Fd> TlsDoor::accept() {
    epoll_event event{};
    while (::epoll_wait(events_.get(), &event, 1, 0) == 1) {
        const std::uint64_t id = event.data.u64;
        if (id == kListener) {
            ring();
            continue;
        }
        const auto at = visitors_.find(id);
        if (at == visitors_.end()) continue;
        TlsProgram& program = at->second.program;
        if (at->second.let_in) {
            if (const std::string why = program.last_word(); !why.empty()) {
                log_warn("receive", "%s: %s", name_.c_str(), why.c_str());
            }
            visitors_.erase(at);
            continue;
        }
        --unknown_;
        // Closed, its descriptor leaves the epoll set.
        const auto who = program.who_is_there();
        if (!who) {
            // Anybody on the network can make as many of these as he likes.
            log_guest("receive", "%s: %s", name_.c_str(), who.error().what.c_str());
            visitors_.erase(at);
            continue;
        }
        log_info("receive", "%s: here is %s", name_.c_str(), who->c_str());
        at->second.let_in = true;
        Fd socket = program.take_socket();
        watch(program.ending_fd(), id);
        return socket;
    }
    return std::nullopt;
}

}  // namespace vmm::cli
