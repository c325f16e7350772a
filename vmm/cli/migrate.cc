// `xenolith migrate`: makes the connections to the other host, one after the other if need be, and
// carries the guest's bytes over them. Who owns the guest is between its process and the one there
// (migration/ownership.h): this one may be killed at any time.
#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <netinet/in.h>
#include <nlohmann/json.hpp>
#include <optional>
#include <poll.h>
#include <string>
#include <thread>
#include <unistd.h>

#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "control/json.h"
#include "migration/driver.h"
#include "vmm/cli/client.h"
#include "vmm/cli/commands.h"
#include "vmm/cli/move_places.h"
#include "vmm/cli/relay.h"
#include "vmm/cli/signals.h"
#include "vmm/cli/tls_program.h"

namespace vmm::cli {
namespace {

using config::Address;
using config::ExitStatus;
using nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

// ---- the other side -----------------------------------------------------------------------------

// A connection, and the program that makes it, if one does.
class Dialled {
  public:
    explicit Dialled(Fd socket, pid_t program = 0)
        : socket_(std::move(socket)), program_(program) {}
    explicit Dialled(TlsProgram tls)
        : socket_(tls.take_socket()), program_(0), tls_(std::move(tls)) {}
    Dialled(Dialled&& other) noexcept
        : socket_(std::move(other.socket_)),
          program_(std::exchange(other.program_, 0)),
          tls_(std::exchange(other.tls_, std::nullopt)) {}
    Dialled& operator=(Dialled&&) = delete;
    ~Dialled() {
        socket_.reset();
        if (program_ == 0) return;
        // It ends by itself once its connection has, unless it still waits for the other host.
        constexpr int kPatienceMs = 2000;
        const Fd process(static_cast<int>(::syscall(SYS_pidfd_open, program_, 0)));
        pollfd one{.fd = process.get(), .events = POLLIN, .revents = 0};
        if (::poll(&one, 1, kPatienceMs) == 0) ::kill(program_, SIGTERM);
        ::waitpid(program_, nullptr, 0);
    }
    Fd take_socket() { return std::move(socket_); }
    // Of a connection that has ended: how it was lost, if that is known better here.
    std::string how_lost() { return tls_ ? tls_->last_word() : ""; }

  private:
    Fd socket_;
    pid_t program_;
    std::optional<TlsProgram> tls_;
};

Result<Fd> connect_to(const sockaddr* address, socklen_t length, const std::string& name) {
    Fd socket(::socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!socket) return errno_error("socket");
    while (::connect(socket.get(), address, length) != 0) {
        if (errno != EINTR) return errno_error(name, Fault::kUser);
    }
    return socket;
}

Result<Dialled> run_ssh(const Address& to, const std::string& program) {
    std::array<int, 2> pair{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0) {
        return errno_error("socketpair");
    }
    Fd ours(pair[0]), theirs(pair[1]);
    std::vector<std::string> words{program};
    if (to.port != 0) words.insert(words.end(), {"-p", std::to_string(to.port)});
    words.insert(words.end(), {to.host, "xenolith", "receive", "-"});
    std::vector<char*> arguments;
    for (std::string& word : words) {
        arguments.push_back(word.data());
    }
    arguments.push_back(nullptr);
    const pid_t child = ::fork();
    if (child < 0) return errno_error("fork");
    if (child == 0) {
        // In the foreground with us: it may ask for a password at the terminal.
        sigset_t none;
        sigemptyset(&none);
        ::sigprocmask(SIG_SETMASK, &none, nullptr);
        ::dup2(theirs.get(), STDIN_FILENO);
        ::dup2(theirs.get(), STDOUT_FILENO);
        ::execvp(program.c_str(), arguments.data());
        std::fprintf(stderr, "xenolith: --ssh %s: %s\n", program.c_str(), std::strerror(errno));
        ::_exit(127);
    }
    return Dialled(std::move(ours), child);
}

// `signals`: of which one ends the wait.
Result<Dialled> run_tls(const config::MigrateRequest& request, int signals) {
    TlsProgram program = TRY(TlsProgram::connect(request.tls, request.to));
    std::array<pollfd, 2> fds{{{.fd = program.ready_fd(), .events = POLLIN, .revents = 0},
                               {.fd = signals, .events = POLLIN, .revents = 0}}};
    while (::poll(fds.data(), fds.size(), -1) < 0) {
        if (errno != EINTR) return errno_error("poll");
    }
    if (fds[1].revents != 0) return host_error(request.to.text + ": no connection, as asked");
    TRY(program.who_is_there());
    return Dialled(std::move(program));
}

Result<Dialled> dial(const config::MigrateRequest& request, int signals) {
    const Address& to = request.to;
    switch (to.kind) {
        case Address::Kind::kUnix: {
            sockaddr_un address{};
            address.sun_family = AF_UNIX;
            std::memcpy(address.sun_path, to.path.c_str(), to.path.size() + 1);
            return Dialled(TRY(connect_to(reinterpret_cast<const sockaddr*>(&address),  // NOLINT
                                          sizeof address, to.text)));
        }
        case Address::Kind::kTcp: {
            sockaddr_in v4{};
            sockaddr_in6 v6{};
            if (::inet_pton(AF_INET, to.host.c_str(), &v4.sin_addr) == 1) {
                v4.sin_family = AF_INET;
                v4.sin_port = htons(to.port);
                return Dialled(TRY(connect_to(reinterpret_cast<const sockaddr*>(&v4),  // NOLINT
                                              sizeof v4, to.text)));
            }
            ::inet_pton(AF_INET6, to.host.c_str(), &v6.sin6_addr);
            v6.sin6_family = AF_INET6;
            v6.sin6_port = htons(to.port);
            return Dialled(TRY(connect_to(reinterpret_cast<const sockaddr*>(&v6),  // NOLINT
                                          sizeof v6, to.text)));
        }
        case Address::Kind::kFd: {
            struct stat about {};
            if (::fstat(to.fd, &about) != 0 || !S_ISSOCK(about.st_mode)) {
                return user_error(to.text + ": it is no socket");
            }
            return Dialled(Fd(::fcntl(to.fd, F_DUPFD_CLOEXEC, 3)));
        }
        case Address::Kind::kTls: return run_tls(request, signals);
        case Address::Kind::kSsh: return run_ssh(to, request.ssh);
        case Address::Kind::kStandard: break;
    }
    return internal_error("an address that nobody dials");
}

// ---- how it goes --------------------------------------------------------------------------------

class Progress {
  public:
    Progress(std::string name, std::uint64_t memory, bool json)
        : name_(std::move(name)), memory_(memory), json_(json), bar_(!json && ::isatty(2) != 0) {}
    ~Progress() { clear(); }

    bool wanted() const { return json_ || bar_; }
    double seconds() const {
        return std::chrono::duration<double>(Clock::now() - started_).count();
    }
    void show(std::uint64_t sent) {
        if (json_) {
            std::printf("%s\n", control::to_text(
                                    {{"sent", sent}, {"memory", memory_}, {"seconds", seconds()}})
                                    .c_str());
            std::fflush(stdout);
        } else if (bar_) {
            // Pages of zeroes are not sent: the end may come early.
            constexpr std::size_t kWidth = 30;
            const double part =
                memory_ == 0
                    ? 1
                    : std::min(1.0, static_cast<double>(sent) / static_cast<double>(memory_));
            const auto full = static_cast<std::size_t>(part * kWidth);
            std::fprintf(stderr, "\r%s [%s%s] %llu of at most %llu MiB ", name_.c_str(),
                         std::string(full, '#').c_str(), std::string(kWidth - full, ' ').c_str(),
                         static_cast<unsigned long long>(sent >> 20),
                         static_cast<unsigned long long>(memory_ >> 20));
            shown_ = true;
        }
    }
    void clear() {
        if (shown_) std::fprintf(stderr, "\r\033[K");
        shown_ = false;
    }

  private:
    const std::string name_;
    const std::uint64_t memory_;
    const bool json_, bar_;
    bool shown_ = false;
    const Clock::time_point started_ = Clock::now();
};

// ---- one link -----------------------------------------------------------------------------------

// Asks the guest's process, on a thread of its own, while the link is carried on this one.
class Asking {
  public:
    Asking(Fd guest, const ordered_json& parameters)
        : line_(::fcntl(guest.get(), F_DUPFD_CLOEXEC, 3)), done_(::eventfd(0, EFD_CLOEXEC)) {
        thread_ = std::thread([this, guest = std::move(guest), parameters] {
            constexpr auto kPatience = std::chrono::hours(24);
            answer_ = ask_guest(
                guest,
                {.method = "PUT", .target = "/v1/vm/migrate", .body = control::to_text(parameters)},
                kPatience);
            // Its process ends when the guest is another host's: then its name is free here.
            if (answer_ && answer_->value("outcome", "") == "gone") {
                control::wait_for_end(guest, std::chrono::seconds(30));
            }
            ::eventfd_write(done_.get(), 1);
        });
    }
    ~Asking() {
        if (thread_.joinable()) thread_.join();
    }
    int fd() const { return done_.get(); }
    // Whatever it answers, nobody listens.
    void hang_up() { ::shutdown(line_.get(), SHUT_RDWR); }
    Result<ordered_json> answer() {
        thread_.join();
        return std::move(answer_);
    }

  private:
    Fd line_, done_;
    Result<ordered_json> answer_ = internal_error("nobody asked");
    std::thread thread_;
};

// The guest's own end of the link; none when its answer came first, or a signal.
Result<std::optional<Fd>> accept_guest(int listener, int done, int signals) {
    for (;;) {
        std::array<pollfd, 3> fds{{{.fd = listener, .events = POLLIN, .revents = 0},
                                   {.fd = done, .events = POLLIN, .revents = 0},
                                   {.fd = signals, .events = POLLIN, .revents = 0}}};
        if (::poll(fds.data(), fds.size(), -1) < 0 && errno != EINTR) return errno_error("poll");
        if (fds[0].revents != 0) {
            Fd guest(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
            if (guest) return std::optional(std::move(guest));
            if (errno != EAGAIN && errno != EINTR) return errno_error("accept");
        } else if (fds[1].revents != 0 || fds[2].revents != 0) {
            return std::optional<Fd>();
        }
    }
}

struct Attempt {
    const config::MigrateRequest& request;
    int signals = -1;
    bool interrupted = false;
    bool is_over = false;          // here, and the other side is to hear it
    int deadline = -1;             // for that: readable when there is no more time
    bool is_process_gone = false;  // the guest's here
    std::uint64_t sent = 0;
    std::string how_lost = {};  // the last link, if more is known of it than that it was
};

// None: then there is no such time to wait for.
Fd readable_in(int seconds) {
    const itimerspec when{.it_interval = {}, .it_value = {.tv_sec = seconds, .tv_nsec = 0}};
    Fd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
    if (timer && ::timerfd_settime(timer.get(), 0, &when, nullptr) != 0) timer.reset();
    return timer;
}

// The guest's process hears the link's end, and what it says of that still gets through.
void carry_last_word(Relay& relay) {
    const Fd timer = readable_in(1);
    if (!timer) return;
    relay.end_to_a();
    relay.carry({timer.get()}, 0, {});
}

// What the guest's process answers after it had this link.
Result<ordered_json> over_one_link(Attempt& attempt, Progress& progress) {
    const config::MigrateRequest& request = attempt.request;
    auto connected = connect_to_guest(request.name);
    attempt.is_process_gone = !connected;
    Fd guest = TRY(std::move(connected));
    // One that is to suspend itself first may take longer than the other side waits for a greeting.
    const bool suspends = request.cooperative && !attempt.is_over;
    std::optional<Dialled> other;
    if (!suspends) other.emplace(TRY(dial(request, attempt.signals)));
    const std::string link = request.name + "-" + std::to_string(::getpid());
    auto folder = TRY(links_folder());
    auto endpoint = TRY(control::Endpoint::claim(std::move(folder), link));
    const Fd listener = endpoint.take_listener();
    ordered_json parameters = {{"link", link}, {"cancel", attempt.interrupted || attempt.is_over}};
    if (suspends) parameters["cooperative"] = true;
    if (request.timeout_s && !attempt.is_over) parameters["timeout"] = *request.timeout_s;
    Asking asking(std::move(guest), parameters);
    auto inside = accept_guest(listener.get(), asking.fd(), attempt.signals);
    if (inside && !*inside && take_signal(attempt.signals)) {
        // It may still be about to suspend itself: with no link it goes on.
        attempt.interrupted = true;
        asking.hang_up();
    }
    attempt.how_lost.clear();
    auto why = Relay::Why::kAClosed;
    if (inside && *inside) {
        if (!other) other.emplace(TRY(dial(request, attempt.signals)));
        Relay relay = TRY(Relay::between({.in = *std::move(*inside), .out = Fd()},
                                         {.in = other->take_socket(), .out = Fd()}));
        std::function<void()> tick;
        if (progress.wanted()) tick = [&] { progress.show(attempt.sent + relay.from_a()); };
        why = relay.carry({attempt.signals, attempt.deadline}, 1000, tick);
        attempt.sent += relay.from_a();
        if (why == Relay::Why::kWoken && take_signal(attempt.signals)) {
            attempt.interrupted = true;
            carry_last_word(relay);
        }
    }
    if (why == Relay::Why::kBGone) attempt.how_lost = other->how_lost();
    return asking.answer();
}

// The other side is asked again soon, then ever less often. True: a signal has come.
bool pause_before_next(int signals, int tries) {
    const int ms = std::min(100 << std::min(tries, 5), 2000);
    pollfd one{.fd = signals, .events = POLLIN, .revents = 0};
    return ::poll(&one, 1, ms) == 1;
}

// A destination that has all of a guest waits for its source's word, in the way of the next
// attempt. That would set it aside, too: it is not much that is lost when nobody can be told.
void tell_other_side(Attempt attempt, Progress& progress) {
    if (attempt.request.to.kind == Address::Kind::kFd) return;  // there is one link only
    const Fd deadline = readable_in(3);
    if (!deadline) return;
    attempt.is_over = true;
    attempt.interrupted = false;
    attempt.deadline = deadline.get();
    pollfd late{.fd = deadline.get(), .events = POLLIN, .revents = 0};
    for (int i = 0; !attempt.interrupted && ::poll(&late, 1, 0) == 0; ++i) {
        const auto answer = over_one_link(attempt, progress);
        if (answer && answer->value("told", true)) return;
        // Where nobody listens any more nobody waits.
        if (!answer && answer.error().fault == Fault::kUser) return;
        if (pause_before_next(attempt.signals, i)) {
            take_signal(attempt.signals);
            return;
        }
    }
}

std::string millis(std::uint64_t ns) {
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), "%.1f", static_cast<double>(ns) / 1e6);
    return text.data();
}

Result<void> migrate_guest(const config::MigrateRequest& request) {
    const Fd signals = TRY(take_signals());
    const auto socket = TRY(connect_to_guest(request.name));
    const auto about =
        TRY(ask_guest(socket, {.method = "GET", .target = "/v1/vm"}, std::chrono::seconds(30)));
    Progress progress(request.name, about.value("memory", std::uint64_t{0}), request.json);
    Attempt attempt{.request = request, .signals = signals.get()};
    std::string why;
    // Of a move that was begun and lost its link, the end is known only to the other side.
    bool open = about.value("state", "") == "moving";
    if (open && about.value("link", false)) return user_error("it is being moved already");
    constexpr int kTries = 20;  // some half a minute
    for (int i = 0; i < kTries; ++i) {
        const auto answer = over_one_link(attempt, progress);
        if (!answer) {
            why = answer.error().what;
            if (!open && attempt.interrupted) return host_error("not moved, as asked: it is here");
            if (!open) return Failure{answer.error()};
            if (attempt.is_process_gone) {
                progress.clear();
                return host_error(
                    "its process here has ended, and the other side has not said whether it has "
                    "it: 'xenolith migrate --resume " +
                    request.name + " " + request.to.text + "' passes on what was promised");
            }
        } else {
            const std::string outcome = answer->value("outcome", "");
            why = attempt.how_lost.empty() ? answer->value("why", "") : attempt.how_lost;
            if (outcome == "gone") {
                progress.clear();
                const auto stood = answer->value("blackout_ns", std::uint64_t{0});
                if (request.json) {
                    ordered_json line = *answer;
                    line["sent"] = attempt.sent;
                    line["seconds"] = progress.seconds();
                    std::printf("%s\n", control::to_text(line).c_str());
                } else {
                    std::printf("%s: moved to %s: %.1f MiB in %.2f s; it stood still for %s ms\n",
                                request.name.c_str(), request.to.text.c_str(),
                                static_cast<double>(attempt.sent) / (1 << 20), progress.seconds(),
                                millis(stood).c_str());
                }
                return {};
            }
            if (outcome == "kept") {
                progress.clear();
                if (!answer->value("told", true)) tell_other_side(attempt, progress);
                if (attempt.interrupted) return host_error("not moved, as asked: it is here");
                return host_error("not moved, it is here: " + why);
            }
            open = true;
        }
        if (pause_before_next(signals.get(), i)) {
            take_signal(signals.get());
            if (attempt.interrupted) break;  // asked twice
            attempt.interrupted = true;
        }
    }
    progress.clear();
    return host_error("the other side does not say whether it has it (" + why +
                      "): it stands still here until 'xenolith migrate " + request.name + " " +
                      request.to.text + "' gets an answer");
}

// ---- in the place of a source that is no more ---------------------------------------------------

// Of the guest that is called so, or has this id.
Result<migration::LeftBehind> find_record(const std::string& name, const std::string& folder) {
    std::vector<migration::LeftBehind> found;
    std::string unreadable;
    for (migration::LeftBehind& one : TRY(migration::left_by_sources(folder))) {
        const bool is_named = one.record && one.record->guest == name;
        if (is_named || arrival_name(one.vm) == name) {
            found.push_back(std::move(one));
        } else if (!one.record) {
            unreadable = one.record.error().what;
        }
    }
    if (found.size() == 1) return std::move(found.front());
    if (found.empty()) {
        return user_error(
            "there is no record of a move of it in " + folder +
            (unreadable.empty() ? "" : ", but one that cannot be read: " + unreadable));
    }
    std::string ids;
    for (const migration::LeftBehind& one : found) {
        ids += (ids.empty() ? "" : ", ") + arrival_name(one.vm);
    }
    return user_error("more than one guest of that name was promised; by its id, which? " + ids);
}

// What a process that was killed after its COMMIT has not heard: docs/ownership.md, "handing-over".
Result<void> hand_over(const config::MigrateRequest& request) {
    using migration::Event;
    using migration::State;
    const Fd signals = TRY(take_signals());
    const std::string folder = TRY(moves_folder());
    const migration::LeftBehind left = TRY(find_record(request.name, folder));
    // Its process, if it lives, has the lock, and asks for itself.
    auto records = migration::Records::open(folder, migration::Side::kSource, left.vm);
    if (!records) {
        return host_error(records.error().what +
                          ": 'xenolith migrate' without --resume has it ask");
    }
    // Again, now that it is nobody else's.
    const auto record = records->read();
    if (!record) return host_error("it is not known what was promised: " + record.error().what);
    if (!*record) return host_error("its record is no longer there: " + left.path);
    const std::string name = (*record)->guest;
    migration::Driver driver(
        migration::Ownership::restarted(migration::Side::kSource, (*record)->attempt),
        *std::move(records), (*record)->peer,
        [](migration::Action) -> std::optional<Event> { return std::nullopt; });
    driver.look_at_record();
    std::string why;
    constexpr int kTries = 20;  // some half a minute
    for (int i = 0; i < kTries && driver.state() == State::kHandingOver; ++i) {
        if (i != 0 && pause_before_next(signals.get(), i - 1)) break;
        auto other = dial(request, signals.get());
        if (!other) {
            why = other.error().what;
            continue;
        }
        migration::Link link(other->take_socket(), request.to.text);
        link.heed(signals.get());
        driver.depart(link, false);
        why = driver.why();
        if (link.is_told_to_end()) break;
    }
    if (driver.state() == State::kHandingOver) {
        return host_error("the other side does not say whether it has it (" + why +
                          "): the promise stays, in " + left.path);
    }
    const auto heard = driver.last_heard();
    if (request.json) {
        std::printf("%s\n", control::to_text({{"outcome", heard == Event::kRunning ? "gone"
                                                          : heard == Event::kLost  ? "lost"
                                                                                   : "given-up"},
                                              {"name", name},
                                              {"id", arrival_name(left.vm)},
                                              {"why", why}})
                                .c_str());
    }
    if (heard == Event::kLost) {
        return host_error("it went to " + request.to.text +
                          ", and ended there with its process; nobody has it any more");
    }
    if (heard == Event::kAborted) {
        return host_error(
            request.to.text +
            " has not taken it, and its process here is gone; nobody has it any more" +
            (why.empty() ? "" : ": " + why));
    }
    if (!request.json) {
        std::printf("%s: handed over to %s\n", name.c_str(), request.to.text.c_str());
    }
    return {};
}

}  // namespace

ExitStatus migrate(const config::Args& args) {
    const auto request = config::parse_migrate(args);
    if (!request) return report(request.error());
    if (!request->help.empty()) {
        std::fputs(request->help.c_str(), stdout);
        return ExitStatus::kPoweroff;
    }
    const auto moved = request->resume ? hand_over(*request) : migrate_guest(*request);
    if (!moved) {
        return report({moved.error().fault, request->name + ": " + moved.error().what});
    }
    return ExitStatus::kPoweroff;
}

}  // namespace vmm::cli
