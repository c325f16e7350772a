#include "control/client.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <poll.h>

#include <sys/socket.h>

namespace control {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

// Waits for these events until `end`; false when they have not come.
bool wait_for(int fd, short events, Clock::time_point end) {
    for (;;) {
        const auto left = std::max(std::chrono::ceil<milliseconds>(end - Clock::now()).count(),
                                   milliseconds::rep{0});
        pollfd polled{.fd = fd, .events = events, .revents = 0};
        const int ready =
            ::poll(&polled, 1, static_cast<int>(std::min(left, milliseconds::rep{60'000})));
        if (ready > 0) return true;
        if (ready == 0 && left == 0) return false;
        if (ready < 0 && errno != EINTR) return false;
    }
}

}  // namespace

vmm::Result<Response> ask(const vmm::Fd& socket, const Request& request, milliseconds patience) {
    const auto end = Clock::now() + patience;
    const auto no_answer = [] { return vmm::internal_error("no answer in time"); };
    // Whoever asks for a guest that ends at that moment has asked a little too late.
    const auto ended = [] { return vmm::user_error("the guest has ended"); };
    const std::string wire = to_wire(request);
    for (std::size_t sent = 0; sent < wire.size();) {
        if (!wait_for(socket.get(), POLLOUT, end)) return no_answer();
        const ssize_t count = ::send(socket.get(), wire.data() + sent, wire.size() - sent,
                                     MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count >= 0) {
            sent += static_cast<std::size_t>(count);
        } else if (errno == EPIPE || errno == ECONNRESET) {
            return ended();
        } else if (errno != EINTR && errno != EAGAIN) {
            return vmm::errno_error("sending the request");
        }
    }
    std::string bytes;
    for (;;) {
        if (!wait_for(socket.get(), POLLIN, end)) return no_answer();
        std::array<char, 16 * 1024> buffer;
        const ssize_t got = ::recv(socket.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
        if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (got == 0 || (got < 0 && errno == ECONNRESET)) return ended();
        if (got < 0) return vmm::errno_error("reading the answer");
        bytes.append(buffer.data(), static_cast<std::size_t>(got));
        auto response = TRY(read_response(bytes));
        if (response) return std::move(*response);
    }
}

bool wait_for_end(const vmm::Fd& socket, milliseconds patience) {
    const auto end = Clock::now() + patience;
    while (wait_for(socket.get(), POLLIN, end)) {
        std::array<char, 1024> buffer;
        const ssize_t got = ::recv(socket.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN)) return true;
    }
    return false;
}

pid_t peer_pid(const vmm::Fd& socket) {
    ucred peer{};
    socklen_t size = sizeof peer;
    if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return 0;
    return peer.pid;
}

}  // namespace control
