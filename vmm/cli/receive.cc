// `xenolith receive`: waits for a guest, takes it over and becomes its process.
#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <netinet/in.h>
#include <optional>
#include <poll.h>
#include <string>
#include <unistd.h>
#include <utility>

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "migration/arrival.h"
#include "migration/link.h"
#include "vmm/base/log.h"
#include "vmm/cli/commands.h"
#include "vmm/cli/move_places.h"
#include "vmm/cli/relay.h"
#include "vmm/cli/run_vm.h"
#include "vmm/cli/saved_vm.h"
#include "vmm/cli/signals.h"
#include "vmm/cli/tls_program.h"

namespace vmm::cli {
namespace {

using config::Address;
using config::ExitStatus;
using migration::Frame;
using migration::Link;

// ---- where connections come from ----------------------------------------------------------------

bool set_blocking(int fd, bool blocks) {
    const int flags = ::fcntl(fd, F_GETFL);
    return flags >= 0 &&
           ::fcntl(fd, F_SETFL, blocks ? flags & ~O_NONBLOCK : flags | O_NONBLOCK) == 0;
}

// Listeners, and perhaps a connection that is there already.
class Door final : public migration::FurtherLinks {
  public:
    static Result<Door> open(const Address& from, const config::TlsOptions& tls);
    Door(Door&& other) noexcept
        : name_(std::move(other.name_)),
          first_(std::exchange(other.first_, std::nullopt)),
          listener_(std::move(other.listener_)),
          tls_(std::exchange(other.tls_, std::nullopt)),
          made_(std::exchange(other.made_, {})),
          arrivals_(std::move(other.arrivals_)),
          arrivals_listener_(std::move(other.arrivals_listener_)) {}
    Door& operator=(Door&&) = delete;
    ~Door() override { close(); }
    // Nobody is expected any more.
    void close() {
        if (!made_.empty()) ::unlink(made_.c_str());
        made_.clear();
        listener_.reset();
        tls_.reset();
        arrivals_listener_.reset();
        arrivals_.reset();
    }

    const std::string& name() const override { return name_; }
    // A connection that exists is the first; later ones come in at listeners.
    std::optional<Fd> take_first() { return std::exchange(first_, std::nullopt); }
    bool has_listener() const { return listener_ || tls_ || arrivals_listener_; }
    std::array<int, 2> fds() const override {
        return {tls_ ? tls_->fd() : listener_.get(), arrivals_listener_.get()};
    }
    // Any that waits.
    std::optional<Fd> accept() override;
    // From now on links about this guest's move come in here, whoever brings them.
    void await(const migration::VmId& vm);

  private:
    explicit Door(std::string name) : name_(std::move(name)) {}
    Result<void> listen_unix(const std::string& path);
    Result<void> listen_tcp(const Address& from);

    std::string name_;
    std::optional<Fd> first_;
    Fd listener_;
    std::optional<TlsDoor> tls_;  // in its place
    std::string made_;            // the socket's path
    std::optional<control::Endpoint> arrivals_;
    Fd arrivals_listener_;
};

Result<void> Door::listen_unix(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    const auto* const generic = reinterpret_cast<const sockaddr*>(&address);  // NOLINT
    listener_ = Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!listener_) return errno_error("socket");
    // A socket at which nobody listens any more was left behind.
    if (::connect(listener_.get(), generic, sizeof address) != 0 && errno == ECONNREFUSED) {
        ::unlink(path.c_str());
    }
    listener_ = Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!listener_) return errno_error("socket");
    const mode_t before = ::umask(0177);
    const int bound = ::bind(listener_.get(), generic, sizeof address);
    ::umask(before);
    if (bound != 0) return errno_error(name_, Fault::kUser);
    made_ = path;
    if (::listen(listener_.get(), 4) != 0) return errno_error(name_);
    return {};
}

Result<void> Door::listen_tcp(const Address& from) {
    sockaddr_in v4{};
    sockaddr_in6 v6{};
    const bool is_v4 = ::inet_pton(AF_INET, from.host.c_str(), &v4.sin_addr) == 1;
    if (!is_v4) ::inet_pton(AF_INET6, from.host.c_str(), &v6.sin6_addr);
    v4.sin_family = AF_INET;
    v4.sin_port = htons(from.port);
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(from.port);
    const auto* const address = is_v4 ? reinterpret_cast<const sockaddr*>(&v4)  // NOLINT
                                      : reinterpret_cast<const sockaddr*>(&v6);
    listener_ = Fd(::socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!listener_) return errno_error("socket");
    // One that finds no room tries again a second later, and strangers may be many.
    constexpr int kMostWaiting = 64;
    const int on = 1;
    ::setsockopt(listener_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (::bind(listener_.get(), address, is_v4 ? sizeof v4 : sizeof v6) != 0 ||
        ::listen(listener_.get(), kMostWaiting) != 0) {
        return errno_error(name_, Fault::kUser);
    }
    return {};
}

Result<Door> Door::open(const Address& from, const config::TlsOptions& tls) {
    Door door(from.text);
    switch (from.kind) {
        case Address::Kind::kUnix: TRY(door.listen_unix(from.path)); break;
        case Address::Kind::kTcp: TRY(door.listen_tcp(from)); break;
        case Address::Kind::kTls: {
            // Before anybody is expected; later they are read again for each who comes.
            TRY(TlsProgram::check(tls));
            TRY(door.listen_tcp(from));
            door.tls_.emplace(TRY(TlsDoor::open(std::move(door.listener_), tls, from.text)));
            break;
        }
        case Address::Kind::kFd: {
            struct stat about {};
            if (::fstat(from.fd, &about) != 0 || !S_ISSOCK(about.st_mode)) {
                return user_error(from.text + ": it is no socket");
            }
            door.first_ = Fd(from.fd);
            break;
        }
        default: return internal_error(from.text + ": nobody listens there");
    }
    return door;
}

// Who may connect to a socket of ours on this host: we ourselves, and root.
bool is_ours(int socket) {
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    if (::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &length) != 0) {  // NOLINT
        return false;
    }
    if (address.ss_family != AF_UNIX) return true;
    ucred peer{};
    length = sizeof peer;
    return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 &&
           (peer.uid == 0 || peer.uid == ::geteuid());
}

std::optional<Fd> Door::accept() {
    if (tls_) {
        if (auto socket = tls_->accept()) return socket;
    }
    for (const int listener : {listener_.get(), arrivals_listener_.get()}) {
        if (listener < 0) continue;
        Fd socket(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
        if (!socket) continue;
        if (is_ours(socket.get())) return socket;
        log_warn("receive", "%s: a connection of another user was refused", name_.c_str());
    }
    return std::nullopt;
}

void Door::await(const migration::VmId& vm) {
    auto folder = arrivals_folder();
    auto claimed = folder ? control::Endpoint::claim(*std::move(folder), arrival_name(vm))
                          : Result<control::Endpoint>(Failure{folder.error()});
    if (!claimed) {
        log_warn("receive", "no second link can come in: %s", claimed.error().what.c_str());
        return;
    }
    arrivals_.emplace(*std::move(claimed));
    arrivals_listener_ = arrivals_->take_listener();
    set_blocking(arrivals_listener_.get(), false);
}

// ---- a guest that arrives -----------------------------------------------------------------------

// What comes out of the link is the guest that was announced.
Result<std::unique_ptr<SavedVm>> head_of(migration::Arrival& arrival) {
    auto saved = TRY(SavedVm::receive(arrival.stream()));
    if (saved->start().id != arrival.attempt().vm ||
        saved->start().epoch != arrival.attempt().epoch) {
        return user_error(saved->name() +
                          ": the guest that came is not the one that was announced");
    }
    return saved;
}

Result<migration::Records> records_of(const migration::VmId& vm) {
    return migration::Records::open(TRY(moves_folder()), migration::Side::kDestination, vm);
}

// ---- about a move that another process has, or had, in hand -------------------------------------

// Whether there is such a process: then it has had this link, as if it had come to it.
Result<bool> hand_on(Link& link, const Frame& greeting) {
    const auto folder = TRY(arrivals_folder());
    auto process = TRY(folder.connect(arrival_name(greeting.attempt.vm)));
    if (!process) return false;
    Relay relay =
        TRY(Relay::between({.in = Fd(::fcntl(link.fd(), F_DUPFD_CLOEXEC, 3)), .out = Fd()},
                           {.in = *std::move(process), .out = Fd()}));
    const auto bytes = migration::encode(greeting);
    relay.begin_with(bytes);
    relay.carry({}, 0, {});
    return true;
}

// ---- the verb -----------------------------------------------------------------------------------

Result<ExitStatus> take_guest(const config::ReceiveRequest& request, migration::Arrival& arrival);

// The guest of this attempt, or of one that comes after it while it waits for its source.
Result<ExitStatus> take_attempts(const config::ReceiveRequest& request, Door door, Link link,
                                 const Frame& greeting) {
    auto more = std::make_unique<Door>(std::move(door));
    more->await(greeting.attempt.vm);
    migration::Arrival::Successor next{std::move(more), std::move(link), greeting};
    for (;;) {
        auto arrival = TRY(migration::Arrival::begin(std::move(next.further), std::move(next.link),
                                                     next.greeting, records_of));
        auto taken = take_guest(request, *arrival);
        auto successor = arrival->take_successor();
        if (!successor) return taken;
        arrival.reset();
        log_info("receive", "begun anew");
        next = *std::move(successor);
    }
}

Result<ExitStatus> take_guest(const config::ReceiveRequest& request, migration::Arrival& arrival) {
    const Fd signals = TRY(take_signals());
    arrival.heed(signals.get());
    const auto received = [&]() -> Result<ExitStatus> {
        auto kvm = TRY(kvm::Kvm::open());
        kvm.ask_for_cpuid();
        const auto saved = TRY(head_of(arrival));
        config::VmConfig config = saved->config();
        take_host_options(request.run, config);
        return run_vm(std::move(config), RestoreFrom{.saved = *saved, .kvm = kvm},
                      request.run.paused, request.run.trace_file,
                      {.take = [&](int told) { return arrival.take_over(told); },
                       .settle = [&] { return arrival.settle(); }});
    }();
    if (!received && arrival.is_receiving()) arrival.give_up(received.error().what);
    return received;
}

Result<ExitStatus> receive_guest(const config::ReceiveRequest& request, Door door) {
    ::signal(SIGPIPE, SIG_IGN);
    for (;;) {
        auto socket = door.take_first();
        const bool last = !door.has_listener();
        if (!socket) {
            if (last) return ExitStatus::kPoweroff;
            const auto doors = door.fds();
            pollfd one{.fd = doors[0], .events = POLLIN, .revents = 0};
            if (::poll(&one, 1, -1) < 0 && errno != EINTR) return errno_error("poll");
            socket = door.accept();
            if (!socket) continue;
        }
        Link link(*std::move(socket), door.name());
        const auto greeting = link.receive();
        Result<void> done;
        const bool resumes = greeting && greeting->kind == Frame::Kind::kResume;
        const bool begins = greeting && greeting->kind == Frame::Kind::kBegin;
        const auto handed_on = resumes || begins ? hand_on(link, *greeting) : Result<bool>(false);
        if (!greeting) {
            done = Failure{greeting.error()};
        } else if (!handed_on) {
            done = Failure{handed_on.error()};
        } else if (*handed_on) {
        } else if (resumes) {
            done = migration::answer_from_records(link, *greeting, records_of);
        } else if (!begins) {
            done = migration::refuse(link, greeting->attempt, "a move does not begin like this");
        } else {
            return take_attempts(request, std::move(door), std::move(link), *greeting);
        }
        if (!done && last) return Failure{done.error()};
        if (!done) log_warn("receive", "%s", done.error().what.c_str());
    }
}

// Standard input and output stay with a process that ends with the link; the guest's has the other
// end of a socket, and outlives the terminal or the ssh that began it.
Result<ExitStatus> receive_apart(const config::ReceiveRequest& request) {
    std::array<int, 2> pair{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0) {
        return errno_error("socketpair");
    }
    Fd ours(pair[0]), theirs(pair[1]);
    const pid_t child = ::fork();
    if (child < 0) return errno_error("fork");
    if (child != 0) {
        theirs.reset();
        ::signal(SIGPIPE, SIG_IGN);
        Relay relay = TRY(Relay::between({.in = std::move(ours), .out = Fd()},
                                         {.in = Fd(STDIN_FILENO), .out = Fd(STDOUT_FILENO)}));
        relay.carry({}, 0, {});
        return ExitStatus::kPoweroff;
    }
    ours.reset();
    ::setsid();
    // What it has to say goes to the source over the link, and to --log-file.
    const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
        ::dup2(null.get(), fd);
    }
    Address from = request.from;
    from.kind = Address::Kind::kFd;
    from.fd = ::fcntl(theirs.get(), F_DUPFD_CLOEXEC, 3);
    theirs.reset();
    return receive_guest(request, TRY(Door::open(from, request.tls)));
}

}  // namespace

ExitStatus receive(const config::Args& args) {
    const auto request = config::parse_receive(args);
    if (!request) return report(request.error());
    if (!request->run.help.empty()) {
        std::fputs(request->run.help.c_str(), stdout);
        return ExitStatus::kPoweroff;
    }
    if (const auto set = start_log(request->run); !set) return report(set.error());
    const auto status = [&]() -> Result<ExitStatus> {
        if (request->from.kind == Address::Kind::kStandard) return receive_apart(*request);
        return receive_guest(*request, TRY(Door::open(request->from, request->tls)));
    }();
    return status ? *status : report(status.error());
}

}  // namespace vmm::cli
