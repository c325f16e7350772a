#include "control/server.h"

#include <algorithm>
#include <array>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "vmm/base/log.h"

namespace control {
namespace {

constexpr std::uint64_t kListenerId = 0, kRepliedId = 1;

bool add(int epoll, int fd, std::uint64_t id, std::uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = id;
    return ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

// The directory is nobody else's already; this holds also if somebody opened it up.
bool is_ours(int fd) {
    ucred peer{};
    socklen_t size = sizeof peer;
    return ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
           (peer.uid == ::geteuid() || peer.uid == 0);
}

}  // namespace

vmm::Result<std::unique_ptr<Server>> Server::create(vmm::Fd listener, Handler handler) {
    auto server = std::unique_ptr<Server>(new Server(std::move(listener), std::move(handler)));
    server->epoll_ = vmm::Fd(::epoll_create1(EPOLL_CLOEXEC));
    if (!server->epoll_) return vmm::errno_error("epoll_create1");
    server->replied_ = vmm::Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!server->replied_) return vmm::errno_error("eventfd");
    server->spare_ = vmm::Fd(::fcntl(server->replied_.get(), F_DUPFD_CLOEXEC, 0));
    if (!server->spare_) return vmm::errno_error("dup");
    if (!add(server->epoll_.get(), server->listener_.get(), kListenerId, EPOLLIN) ||
        !add(server->epoll_.get(), server->replied_.get(), kRepliedId, EPOLLIN)) {
        return vmm::errno_error("epoll_ctl");
    }
    return server;
}

void Server::watch(Connections::value_type& entry, std::uint32_t events) {
    Connection& connection = entry.second;
    if (connection.watched == events) return;
    epoll_event event{};
    event.events = events;
    event.data.u64 = entry.first;
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, connection.fd.get(), &event);
    connection.watched = events;
}

// False: every connection waits for an answer.
bool Server::make_room() {
    auto quietest = connections_.end();
    for (auto at = connections_.begin(); at != connections_.end(); ++at) {
        if (at->second.owed != 0) continue;
        if (quietest == connections_.end() ||
            at->second.last_active < quietest->second.last_active) {
            quietest = at;
        }
    }
    if (quietest == connections_.end()) return false;
    connections_.erase(quietest);
    return true;
}

void Server::accept_all() {
    for (;;) {
        vmm::Fd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
        if (!fd) {
            if (errno == EINTR || errno == ECONNABORTED) continue;
            if (errno == EAGAIN) return;
            vmm::log_guest("control", "accept: %s", std::strerror(errno));
            // A connection that is left in the queue would wake us for ever.
            spare_.reset();
            const vmm::Fd dropped(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
            spare_ = vmm::Fd(::fcntl(replied_.get(), F_DUPFD_CLOEXEC, 0));
            return;
        }
        if (!is_ours(fd.get())) continue;
        // One that cannot be served now finds its connection closed.
        if (connections_.size() >= kMaxConnections && !make_room()) continue;
        const std::uint64_t id = ++last_id_;
        if (!add(epoll_.get(), fd.get(), id, EPOLLIN)) continue;
        Connection& connection = connections_[id];
        connection.fd = std::move(fd);
        connection.watched = EPOLLIN;
        connection.last_active = ++clock_;
    }
}

void Server::reply(Ticket ticket, Response response) {
    {
        const std::scoped_lock lock(mutex_);
        replies_.emplace_back(ticket, std::move(response));
    }
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(replied_.get(), &one, sizeof one);
}

void Server::take_replies() {
    // More may come while these are written: a handler may answer at once.
    for (;;) {
        std::vector<std::pair<Ticket, Response>> replies;
        {
            const std::scoped_lock lock(mutex_);
            replies.swap(replies_);
        }
        if (replies.empty()) return;
        for (auto& [ticket, response] : replies) {
            const auto at = std::ranges::find_if(connections_, [&, t = ticket](const auto& entry) {
                return entry.second.owed == t;
            });
            if (at == connections_.end()) continue;
            at->second.out = to_wire(response, at->second.close_after);
            at->second.owed = 0;
            advance(at);
        }
    }
}

// False: the connection is broken.
bool Server::write_out(Connection& connection) {
    while (connection.written < connection.out.size()) {
        const ssize_t sent =
            ::send(connection.fd.get(), connection.out.data() + connection.written,
                   connection.out.size() - connection.written, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            if (errno == EINTR) continue;
            return errno == EAGAIN;
        }
        connection.written += static_cast<std::size_t>(sent);
    }
    connection.out.clear();
    connection.written = 0;
    return true;
}

void Server::advance(Connections::iterator at) {
    Connection& connection = at->second;
    for (;;) {
        if (!write_out(connection)) {
            connections_.erase(at);
            return;
        }
        if (!connection.out.empty()) {
            watch(*at, EPOLLOUT);
            return;
        }
        if (connection.owed != 0) {
            watch(*at, 0);  // hang-ups are told all the same
            return;
        }
        if (connection.close_after) {
            connections_.erase(at);
            return;
        }
        if (finished_) return;
        auto next = connection.reader.next();
        if (!next) {
            connection.close_after = true;
            connection.out = to_wire(next.error(), true);
            continue;
        }
        if (!next->has_value()) {
            watch(*at, EPOLLIN);
            return;
        }
        connection.close_after = (*next)->last;
        connection.owed = ++last_ticket_;
        handler_(connection.owed, std::move(**next));
    }
}

void Server::on_event(Connections::iterator at, std::uint32_t events) {
    Connection& connection = at->second;
    connection.last_active = ++clock_;
    if ((events & (EPOLLERR | EPOLLHUP)) != 0) {
        connections_.erase(at);
        return;
    }
    if ((events & EPOLLIN) != 0) {
        std::array<char, 4096> bytes;
        const ssize_t got = ::recv(connection.fd.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
        if (got < 0 && (errno == EINTR || errno == EAGAIN)) return;
        if (got <= 0) {
            connections_.erase(at);
            return;
        }
        connection.reader.append({bytes.data(), static_cast<std::size_t>(got)});
    }
    advance(at);
}

void Server::service() {
    std::array<epoll_event, kMaxConnections + 2> events;
    const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), 0);
    for (int i = 0; i < count; ++i) {
        const epoll_event& event = events[static_cast<std::size_t>(i)];
        if (event.data.u64 == kListenerId) {
            accept_all();
        } else if (event.data.u64 == kRepliedId) {
            std::uint64_t ignored = 0;
            [[maybe_unused]] const auto got = ::read(replied_.get(), &ignored, sizeof ignored);
        } else if (const auto at = connections_.find(event.data.u64); at != connections_.end()) {
            on_event(at, event.events);
        }
    }
    take_replies();
}

void Server::finish() {
    constexpr int kPatienceMs = 1000;  // for each client
    finished_ = true;
    take_replies();
    for (auto& [id, connection] : connections_) {
        while (!connection.out.empty() && write_out(connection) && !connection.out.empty()) {
            pollfd sink{.fd = connection.fd.get(), .events = POLLOUT, .revents = 0};
            if (::poll(&sink, 1, kPatienceMs) <= 0) break;
        }
    }
}

}  // namespace control
