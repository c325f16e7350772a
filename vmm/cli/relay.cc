#include "vmm/cli/relay.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <sys/socket.h>

namespace vmm::cli {
namespace {

// What the kernel lets everybody have (/proc/sys/fs/pipe-max-size); less will do.
constexpr int kPipe = 1 << 20;

void never_block(int fd) {
    ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
}

}  // namespace

Result<Relay> Relay::between(RelayEnd a, RelayEnd b) {
    Relay relay;
    relay.a_ = std::move(a);
    relay.b_ = std::move(b);
    const auto out = [](const RelayEnd& end) { return end.out ? end.out.get() : end.in.get(); };
    relay.directions_[0].from = relay.a_.in.get();
    relay.directions_[0].to = out(relay.b_);
    relay.directions_[1].from = relay.b_.in.get();
    relay.directions_[1].to = out(relay.a_);
    for (Direction& direction : relay.directions_) {
        int ends[2];
        if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return errno_error("pipe");
        direction.pipe_out = Fd(ends[0]);
        direction.pipe_in = Fd(ends[1]);
        ::fcntl(ends[1], F_SETPIPE_SZ, kPipe);
        never_block(direction.from);
        never_block(direction.to);
    }
    return relay;
}

void Relay::begin_with(std::span<const std::byte> bytes) {
    Direction& out = directions_[0];
    const ssize_t n = ::write(out.pipe_in.get(), bytes.data(), bytes.size());
    if (n > 0) out.taken = static_cast<std::size_t>(n);
}

void Relay::end_to_a() {
    Direction& back = directions_[1];
    ::shutdown(back.to, SHUT_WR);
    nothing_ = Fd(::open("/dev/null", O_WRONLY | O_CLOEXEC));
    back.to = nothing_.get();
}

void Relay::move(Direction& d, bool can_read, bool can_write) {
    const auto later = [] { return errno == EINTR || errno == EAGAIN; };
    constexpr unsigned kHow = SPLICE_F_MOVE | SPLICE_F_NONBLOCK;
    if (can_read && d.taken == 0 && !d.over) {
        const ssize_t n = ::splice(d.from, nullptr, d.pipe_in.get(), nullptr, kPipe, kHow);
        if (n > 0) {
            d.taken = static_cast<std::size_t>(n);
            can_write = true;
        } else if (n == 0 || !later()) {
            d.over = true;
        }
    }
    if (can_write && d.taken != 0) {
        const ssize_t n = ::splice(d.pipe_out.get(), nullptr, d.to, nullptr, d.taken, kHow);
        if (n > 0) {
            d.taken -= static_cast<std::size_t>(n);
            d.carried += static_cast<std::uint64_t>(n);
        } else if (n < 0 && !later()) {
            d.gone = true;
        }
    }
}

Relay::Why Relay::carry(const std::vector<int>& wake, int tick_ms,
                        const std::function<void()>& tick) {
    using Clock = std::chrono::steady_clock;
    auto next = Clock::now() + std::chrono::milliseconds(tick_ms);
    for (;;) {
        std::vector<pollfd> fds;
        for (const Direction& d : directions_) {
            const bool full = d.taken != 0;
            fds.push_back({.fd = full || d.over ? -1 : d.from, .events = POLLIN, .revents = 0});
            fds.push_back({.fd = full ? d.to : -1, .events = POLLOUT, .revents = 0});
        }
        for (const int fd : wake) {
            fds.push_back({.fd = fd, .events = POLLIN, .revents = 0});
        }
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(next - Clock::now()).count();
        const int timeout = tick ? static_cast<int>(std::max<decltype(left)>(left, 0)) : -1;
        const int ready = ::poll(fds.data(), fds.size(), timeout);
        if (ready < 0 && errno != EINTR) return Why::kBGone;
        if (tick && Clock::now() >= next) {
            tick();
            next = Clock::now() + std::chrono::milliseconds(tick_ms);
        }
        if (ready <= 0) continue;
        for (std::size_t i = 0; i < 2; ++i) {
            move(directions_[i], fds[2 * i].revents != 0, fds[2 * i + 1].revents != 0);
        }
        const Direction& out = directions_[0];
        const Direction& back = directions_[1];
        if (out.over && out.taken == 0) return Why::kAClosed;
        if (out.gone || (back.over && back.taken == 0)) return Why::kBGone;
        if (back.gone) return Why::kAClosed;
        for (std::size_t i = 4; i < fds.size(); ++i) {
            if (fds[i].revents != 0) return Why::kWoken;
        }
    }
}

}  // namespace vmm::cli
