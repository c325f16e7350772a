#include "tests/faults/bad_link.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <unistd.h>

#include <sys/socket.h>

namespace faults {
namespace {

using vmm::Fd;

// Two ends of a TCP connection of this host.
bool tcp_pair(std::array<int, 2>& pair) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    const Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    Fd one(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!listener || !one || ::bind(listener.get(), generic, sizeof address) != 0 ||
        ::listen(listener.get(), 1) != 0 || ::getsockname(listener.get(), generic, &length) != 0 ||
        ::connect(one.get(), generic, sizeof address) != 0) {
        return false;
    }
    pair[1] = ::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC);
    if (pair[1] < 0) return false;
    pair[0] = ::dup(one.get());
    return true;
}

}  // namespace

const char* name_of(Kind kind) {
    constexpr std::array<const char*, static_cast<std::size_t>(Kind::kCount)> kNames{
        "cut",
        "reset",
        "stall",
        "truncation",
        "loss",
        "bit flip",
        "duplicate",
        "reorder",
        "Ctrl-C",
        "kill source",
        "kill destination",
        "stop source",
        "stop destination"};
    return kNames[static_cast<std::size_t>(kind)];
}

std::optional<BadLink> BadLink::open(bool tcp) {
    BadLink link;
    link.tcp_ = tcp;
    for (std::size_t side = 0; side < 2; ++side) {
        std::array<int, 2> pair{-1, -1};
        if (tcp ? !tcp_pair(pair)
                : ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0) {
            return std::nullopt;
        }
        link.ours_[side] = Fd(pair[0]);
        link.theirs_[side] = Fd(pair[1]);
        ::fcntl(pair[0], F_SETFL, O_NONBLOCK);
        // So that a sender is never far beyond the byte that passes.
        const int least = 1;
        ::setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &least, sizeof least);
    }
    for (std::size_t side = 0; side < 2; ++side) {
        link.ways_[side].from = link.ours_[side].get();
        link.ways_[side].to = link.ours_[1 - side].get();
    }
    return link;
}

// At the fault's byte.
void BadLink::fail(Way& way) {
    failed_ = true;
    switch (fault_->kind) {
        case Kind::kCut:
        case Kind::kCancel: closing_ = true; break;
        case Kind::kReset:
            for (Fd& end : ours_) {
                const linger at_once{.l_onoff = 1, .l_linger = 0};
                ::setsockopt(end.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
            }
            for (Way& each : ways_) {
                each.out.clear();
            }
            closing_ = true;
            break;
        case Kind::kStall: stalled_ = true; break;
        case Kind::kTruncate:
            way.lost = true;
            way.ends_with = true;
            break;
        case Kind::kStopSource:
        case Kind::kStopDestination:
            stopped_ = std::chrono::steady_clock::now() + fault_->hold;
            acts_.begin(fault_->kind);
            break;
        default:
            // What it had sent beyond this byte was still in its own host.
            way.lost = true;
            acts_.begin(fault_->kind);
            break;
    }
}

// All of it is behind the fault's byte, or at it.
void BadLink::take_at_fault(Way& way, const char* bytes, std::size_t size) {
    const std::uint64_t past = way.read - fault_->at;  // bytes behind it before these
    const std::uint64_t unit = fault_->unit, both = fault_->unit + fault_->next;
    if (past == 0 && !failed_) {
        switch (fault_->kind) {
            case Kind::kFlip: {
                std::string turned(bytes, size);
                turned[0] = static_cast<char>(turned[0] ^ (1 << fault_->bit));
                way.out += turned;
                failed_ = true;
                return;
            }
            case Kind::kLose:
            case Kind::kDouble:
            case Kind::kReorder: break;
            default: fail(way); break;
        }
    }
    std::size_t taken = 0;
    const auto part = [&](std::uint64_t until) {
        const std::uint64_t at = past + taken;
        const std::size_t n = at < until ? std::min<std::uint64_t>(size - taken, until - at) : 0;
        const std::string out(bytes + taken, n);
        taken += n;
        return out;
    };
    switch (fault_->kind) {
        case Kind::kLose:
            if (!part(unit).empty()) failed_ = true;
            break;
        case Kind::kDouble: {
            const std::string one = part(unit);
            way.out += one;
            way.held += one;
            if (way.held.size() == unit && !failed_) {
                way.out += way.held;
                failed_ = true;
            }
            break;
        }
        case Kind::kReorder:
            way.held += part(unit);
            way.out += part(both);
            if (past + taken >= both && !failed_) {
                way.out += way.held;
                failed_ = true;
            }
            break;
        default: break;
    }
    if (!way.lost && !closing_ && !stalled_) way.out.append(bytes + taken, size - taken);
}

void BadLink::take(Way& way, const char* bytes, std::size_t size) {
    way.kept.append(bytes, size);
    if (way.lost) {
    } else if (fault_ && &way == &ways_[index(fault_->from)] && way.read >= fault_->at) {
        take_at_fault(way, bytes, size);
    } else {
        way.out.append(bytes, size);
    }
    way.read += size;
}

// False: nobody takes it any more.
bool BadLink::write(Way& way) {
    while (!way.out.empty()) {
        const ssize_t n = ::send(way.to, way.out.data(), way.out.size(), MSG_NOSIGNAL);
        if (n < 0) return errno == EAGAIN || errno == EINTR;
        way.out.erase(0, static_cast<std::size_t>(n));
    }
    if ((way.over || way.ends_with) && !way.ended) {
        ::shutdown(way.to, SHUT_WR);
        way.ended = true;
    }
    return true;
}

void BadLink::carry(const std::optional<Fault>& fault, const Acts& acts, int wake) {
    using Clock = std::chrono::steady_clock;
    // What is reordered and followed by nothing only comes late.
    constexpr std::chrono::milliseconds kHeld{20};
    fault_ = fault;
    acts_ = acts;
    auto held_since = Clock::now();
    std::vector<char> room(65536);
    while (!closing_) {
        std::array<pollfd, 5> fds{};
        for (std::size_t i = 0; i < 2; ++i) {
            const Way& way = ways_[i];
            // Not more than the other side takes.
            const bool reads = !way.over && !stalled_ && way.out.empty();
            fds[2 * i] = {.fd = reads ? way.from : -1, .events = POLLIN, .revents = 0};
            fds[2 * i + 1] = {
                .fd = !way.out.empty() && !stalled_ ? way.to : -1, .events = POLLOUT, .revents = 0};
        }
        fds[4] = {.fd = stalled_ ? wake : -1, .events = POLLIN, .revents = 0};
        const Way* const holds = fault_ ? &ways_[index(fault_->from)] : nullptr;
        const bool holding =
            holds != nullptr && fault_->kind == Kind::kReorder && !failed_ && !holds->held.empty();
        if (!holding) held_since = Clock::now();
        const int ready = ::poll(fds.data(), fds.size(), holding || stopped_ ? 5 : -1);
        if (ready < 0 && errno != EINTR) break;
        if (stopped_ && Clock::now() >= *stopped_) {
            stopped_.reset();
            acts_.end(fault_->kind);
        }
        if (fds[4].revents != 0) break;
        if (holding && Clock::now() - held_since > kHeld) {
            Way& way = ways_[index(fault_->from)];
            way.out += way.held;
            way.held.clear();
            fault_->unit = 0;
            fault_->next = 0;
            failed_ = true;
        }
        for (std::size_t i = 0; i < 2 && !closing_ && !stalled_; ++i) {
            Way& way = ways_[i];
            if (fds[2 * i].revents != 0) {
                std::size_t most = room.size();
                // Up to the fault's byte, then on from there.
                if (fault_ && i == index(fault_->from) && way.read < fault_->at) {
                    most = std::min<std::uint64_t>(most, fault_->at - way.read);
                }
                const ssize_t n = ::recv(way.from, room.data(), most, 0);
                if (n > 0) {
                    take(way, room.data(), static_cast<std::size_t>(n));
                } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
                    way.over = true;
                }
            }
            if (stalled_) break;
            if (!write(way)) closing_ = true;
        }
        // Whoever carries a link lets go of both ends when one of them is closed.
        for (const Way& way : ways_) {
            if (way.over && way.out.empty()) closing_ = true;
        }
    }
    if (stopped_) acts_.end(fault_->kind);
    for (Way& way : ways_) {
        if (fault_ && fault_->kind == Kind::kReset && failed_) break;
        write(way);
    }
    for (Fd& end : ours_) {
        end.reset();
    }
}

}  // namespace faults
