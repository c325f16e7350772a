// `xenolith-tls`: the TLS of one connection, in a process and a program of its own. `xenolith` is
// linked statically, and starts in half the time for it, which a TLS library is not made for; and
// what a stranger on the network can say is read by nobody who has a guest in hand.
//
// It is started by `xenolith migrate` and `receive` with a socket as its standard input, over which
// the plain bytes go both ways. What went wrong is one line on standard error.
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fcntl.h>
#include <getopt.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string>
#include <unistd.h>
#include <vector>

#include <sys/socket.h>
#include <sys/stat.h>

#include "vmm/base/fd.h"
#include "vmm/base/result.h"
#include "vmm/tls/carry.h"
#include "vmm/tls/credentials.h"
#include "vmm/tls/session.h"

namespace vmm::tls {
namespace {

using Clock = Session::Clock;

constexpr const char* kUsage =
    "Usage: xenolith-tls check --dir DIR\n"
    "       xenolith-tls connect --dir DIR [OPTIONS] HOST PORT < SOCKET\n"
    "       xenolith-tls accept --dir DIR [OPTIONS] FD < SOCKET\n\n"
    "Carries what goes over SOCKET, standard input, over TLS 1.3: to HOST, or to who has connected "
    "to "
    "FD.\nxenolith migrate and xenolith receive start it.\n\n"
    "  --dir DIR    ca.pem, cert.pem, key.pem, and perhaps crl.pem\n"
    "  --peer NAME  a name that the other side's certificate may have; may be given again "
    "(default: "
    "HOST,\n               or any)\n"
    "  --ready FD   is told who the other side is, when it has shown it\n\n"
    "Exit status: 0 both sides have ended it, 2 the files or options are wrong, 4 it failed\n";

struct Request {
    std::string folder;
    std::vector<std::string> peers;
    int ready = -1;
};

constexpr std::chrono::seconds kHandshake{20};  // with the connection before it
constexpr unsigned kUnheardMs = 60'000;         // as long as a link has for its next byte

std::string host_and_port(const std::string& host, const std::string& port) {
    return (host.find(':') == std::string::npos ? host : "[" + host + "]") + ":" + port;
}

void tune(int connection) {
    const int on = 1;
    ::setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    ::setsockopt(connection, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    ::setsockopt(connection, IPPROTO_TCP, TCP_USER_TIMEOUT, &kUnheardMs, sizeof kUnheardMs);
}

Result<Fd> connect_one(const addrinfo& to, Clock::time_point deadline, int plain) {
    Fd socket(::socket(to.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket) return errno_error("socket", Fault::kUser);
    if (::connect(socket.get(), to.ai_addr, to.ai_addrlen) == 0) return socket;
    if (errno != EINPROGRESS) return errno_error("connect", Fault::kUser);
    for (;;) {
        const auto left =
            std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
        std::array<pollfd, 2> fds{{{.fd = socket.get(), .events = POLLOUT, .revents = 0},
                                   {.fd = plain, .events = 0, .revents = 0}}};
        const int ready = ::poll(fds.data(), fds.size(), left > 0 ? static_cast<int>(left) : 0);
        if (ready == 0) return user_error("no answer");
        if (ready < 0) continue;
        if (fds[1].revents != 0) return host_error("nobody waits for it any more");
        int code = 0;
        socklen_t size = sizeof code;
        ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &code, &size);
        if (code != 0) return errno_error("connect", Fault::kUser, code);
        return socket;
    }
}

Result<Fd> connect_to(const std::string& host, const std::string& port,
                      Clock::time_point deadline) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (const int n = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found); n != 0) {
        return user_error(::gai_strerror(n));
    }
    Result<Fd> last = user_error("no address");
    for (const addrinfo* one = found; one != nullptr && !last; one = one->ai_next)
        last = connect_one(*one, deadline, STDIN_FILENO);
    ::freeaddrinfo(found);
    return last;
}

std::string name_of_other_end(int connection) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    std::array<char, NI_MAXHOST> host{};
    std::array<char, NI_MAXSERV> port{};
    auto* const generic = reinterpret_cast<sockaddr*>(&address);  // NOLINT
    if (::getpeername(connection, generic, &size) != 0 ||
        ::getnameinfo(generic, size, host.data(), host.size(), port.data(), port.size(),
                      NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        return "(unknown)";
    }
    return host_and_port(host.data(), port.data());
}

Result<void> run(Role role, Fd connection, const Credentials& credentials, const Request& request,
                 Clock::time_point deadline) {
    tune(connection.get());
    auto session = TRY(Session::make(role, credentials, std::move(connection), request.peers));
    TRY(session.handshake(deadline, STDIN_FILENO));
    if (request.ready >= 0) {
        const std::string line = session.peer() + "\n";
        if (::write(request.ready, line.data(), line.size()) < 0) return errno_error("--ready");
        ::close(request.ready);
    }
    return carry(session, STDIN_FILENO);
}

Result<int> to_descriptor(const std::string& text, const char* what) {
    int value = -1;
    const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (failed != std::errc() || end != text.data() + text.size() || value < 0 ||
        ::fcntl(value, F_GETFD) < 0) {
        return user_error(std::string(what) + ": '" + text + "' is no open descriptor");
    }
    ::fcntl(value, F_SETFD, FD_CLOEXEC);
    return value;
}

Result<void> check_standard_input() {
    struct stat about {};
    if (::fstat(STDIN_FILENO, &about) != 0 || !S_ISSOCK(about.st_mode)) {
        return user_error("standard input is no socket");
    }
    return {};
}

Result<void> begin(int argc, char** argv) {
    Request request;
    constexpr std::array<option, 5> kOptions{{{"dir", required_argument, nullptr, 'd'},
                                              {"peer", required_argument, nullptr, 'p'},
                                              {"ready", required_argument, nullptr, 'r'},
                                              {"help", no_argument, nullptr, 'h'},
                                              {nullptr, 0, nullptr, 0}}};
    for (int c = 0; (c = ::getopt_long(argc, argv, ":", kOptions.data(), nullptr)) != -1;) {
        switch (c) {
            case 'd': request.folder = optarg; break;
            case 'p': request.peers.emplace_back(optarg); break;
            case 'r': request.ready = TRY(to_descriptor(optarg, "--ready")); break;
            case 'h': std::fputs(kUsage, stdout); return {};
            default:
                return user_error(std::string("what is ") + argv[optind - 1] + "? (see --help)");
        }
    }
    const std::vector<std::string> words(argv + optind, argv + argc);
    if (request.folder.empty()) return user_error("--dir is missing");
    const bool checks = words.size() == 1 && words[0] == "check";
    const bool connects = words.size() == 3 && words[0] == "connect";
    const bool accepts = words.size() == 2 && words[0] == "accept";
    if (!checks && !connects && !accepts) return user_error("it takes a command (see --help)");
    const auto credentials = TRY(Credentials::load(request.folder));
    if (checks) return {};

    // Ctrl-C is for whoever has started us and will close our socket.
    ::signal(SIGINT, SIG_IGN);
    ::signal(SIGPIPE, SIG_IGN);
    TRY(check_standard_input());
    const auto deadline = Clock::now() + kHandshake;
    const auto named = [](const std::string& who, const Error& error) -> Failure<Error> {
        return {{error.fault, who + ": " + error.what}};
    };
    if (accepts) {
        const int connection = TRY(to_descriptor(words[1], "FD"));
        const std::string who = name_of_other_end(connection);
        const auto done = run(Role::kServer, Fd(connection), credentials, request, deadline);
        if (!done) return named(who, done.error());
        return {};
    }
    const std::string who = host_and_port(words[1], words[2]);
    if (request.peers.empty()) request.peers.push_back(words[1]);
    auto connection = connect_to(words[1], words[2], deadline);
    if (!connection) return named(who, connection.error());
    const auto done = run(Role::kClient, *std::move(connection), credentials, request, deadline);
    if (!done) return named(who, done.error());
    return {};
}

}  // namespace
}  // namespace vmm::tls

int main(int argc, char** argv) {
    try {
        const auto done = vmm::tls::begin(argc, argv);
        if (done) return 0;
        std::fprintf(stderr, "xenolith-tls: %s\n", done.error().what.c_str());
        switch (done.error().fault) {
            case vmm::Fault::kUser: return 2;
            case vmm::Fault::kInternal: return 3;
            case vmm::Fault::kHost: return 4;
        }
        return 3;
    } catch (const std::exception& e) {
        // As in xenolith: the standard library throws when memory runs out.
        std::fprintf(stderr, "xenolith-tls: %s\n", e.what());
        return 3;
    }
}
