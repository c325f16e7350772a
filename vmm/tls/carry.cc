#include "vmm/tls/carry.h"

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <fcntl.h>
#include <poll.h>
#include <span>
#include <unistd.h>
#include <vector>

#include <sys/socket.h>

namespace vmm::tls {
namespace {

using What = Session::What;
using Clock = Session::Clock;

constexpr std::size_t kBuffer = std::size_t{256} << 10;
constexpr std::size_t kRecord = std::size_t{16} << 10;  // the longest of TLS
// Once nobody has the other end of `plain`: how long the rest of what it said may take to be sent,
// and then the other side to end, too.
constexpr std::chrono::seconds kRest{10};
constexpr std::chrono::milliseconds kLinger{1000};

struct Buffer {
    std::vector<std::byte> bytes = std::vector<std::byte>(kBuffer);
    std::size_t begin = 0, end = 0;
    bool empty() const { return begin == end; }
    std::span<const std::byte> rest() const {
        return std::span<const std::byte>(bytes).subspan(begin, end - begin);
    }
    void fill(std::size_t count) { begin = 0, end = count; }
};

bool is_later() {
    return errno == EAGAIN || errno == EINTR;
}

// Two ways, each with a buffer that is filled again once it is empty: neither waits for the other.
class Carrier {
  public:
    Carrier(Session& session, int plain) : session_(session), plain_(plain) {}
    Result<void> run();

  private:
    void from_plain();
    void to_tls();
    void from_tls();
    void to_plain();
    void plain_is_gone();
    bool is_over() const;
    Result<void> wait();

    Session& session_;
    const int plain_;
    Buffer out_, in_;  // to the other side, and from it
    bool plain_gone_ = false;
    Clock::time_point give_up_ = Clock::time_point::max();
    // To the other side: the program here has said all; that was announced, or cannot be.
    bool said_all_ = false, announced_ = false;
    // From the other side: it has said all; the program here knows.
    bool heard_all_ = false, passed_on_ = false;
    bool later_out_ = false, later_in_ = false;  // until the socket is ready
    std::string failure_;
};

void Carrier::plain_is_gone() {
    if (plain_gone_) return;
    plain_gone_ = true;
    in_.fill(0);
    give_up_ = Clock::now() + (announced_ ? Clock::duration(kLinger) : Clock::duration(kRest));
}

void Carrier::from_plain() {
    if (said_all_ || !out_.empty()) return;
    const ssize_t n = ::recv(plain_, out_.bytes.data(), out_.bytes.size(), MSG_DONTWAIT);
    if (n > 0) {
        out_.fill(static_cast<std::size_t>(n));
    } else if (n == 0 || !is_later()) {
        said_all_ = true;
        if (n < 0) plain_is_gone();
    }
}

void Carrier::to_tls() {
    later_out_ = false;
    while (!out_.empty()) {
        const auto sent = session_.send(out_.rest());
        if (sent.what == What::kDone) {
            out_.begin += sent.bytes;
            continue;
        }
        later_out_ = sent.what == What::kLater;
        if (later_out_) return;
        // Its last word, and why it has gone, may still be there to be read.
        if (failure_.empty() && !heard_all_) failure_ = session_.failure();
        out_.fill(0);
        said_all_ = announced_ = true;
    }
    if (!said_all_ || announced_) return;
    const What closed = session_.close();
    later_out_ = closed == What::kLater;
    if (later_out_) return;
    announced_ = true;
    if (closed == What::kLost && failure_.empty() && !heard_all_) failure_ = session_.failure();
    if (plain_gone_) give_up_ = Clock::now() + kLinger;
}

void Carrier::from_tls() {
    if (heard_all_ || !in_.empty()) return;
    in_.fill(0);
    // One record at a time, but as many as there are.
    while (!heard_all_ && in_.end + kRecord <= kBuffer) {
        const auto got = session_.receive(std::span(in_.bytes).subspan(in_.end));
        later_in_ = got.what == What::kLater;
        if (later_in_) return;
        if (got.what == What::kLost) {
            // Nothing can be sent any more, either.
            failure_ = session_.failure();
            heard_all_ = said_all_ = announced_ = true;
            out_.fill(0);
        } else if (got.bytes == 0) {
            heard_all_ = true;
            // It has ended on purpose: that it takes no more is not the connection's fault.
            failure_.clear();
        } else if (!plain_gone_) {
            in_.end += got.bytes;
        } else if (Clock::now() >= give_up_) {
            return;
        }
    }
}

void Carrier::to_plain() {
    if (!in_.empty()) {
        const auto rest = in_.rest();
        const ssize_t n = ::send(plain_, rest.data(), rest.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0) in_.begin += static_cast<std::size_t>(n);
        if (n < 0 && !is_later()) plain_is_gone();
    }
    // After a loss it is told by our end.
    if (in_.empty() && heard_all_ && !passed_on_) {
        passed_on_ = true;
        if (failure_.empty() && !plain_gone_) ::shutdown(plain_, SHUT_WR);
    }
}

bool Carrier::is_over() const {
    return (announced_ && passed_on_) || (plain_gone_ && Clock::now() >= give_up_);
}

Result<void> Carrier::wait() {
    const auto flag = [](bool wanted, short bit) { return wanted ? bit : short{0}; };
    const bool reads = in_.empty() && !heard_all_;
    const auto tls = static_cast<short>(
        flag(reads, POLLIN) |
        flag(later_out_ || (reads && later_in_ && session_.wants_write()), POLLOUT));
    const auto plain =
        static_cast<short>(flag(out_.empty() && !said_all_, POLLIN) | flag(!in_.empty(), POLLOUT));
    // A descriptor about which nothing is asked may still say that it has hung up: of the
    // connection that is not wanted, for it would say so again and again.
    std::array<pollfd, 2> fds{{{.fd = tls != 0 ? session_.fd() : -1, .events = tls, .revents = 0},
                               {.fd = plain_gone_ ? -1 : plain_, .events = plain, .revents = 0}}};
    int timeout = -1;
    if (plain_gone_) {
        const auto left =
            std::chrono::ceil<std::chrono::milliseconds>(give_up_ - Clock::now()).count();
        timeout = static_cast<int>(left > 0 ? left : 0);
    }
    const bool can_go_on =
        (reads && session_.has_pending()) || (plain_gone_ && out_.empty() && !said_all_);
    if (::poll(fds.data(), fds.size(), can_go_on ? 0 : timeout) < 0 && errno != EINTR) {
        return errno_error("poll");
    }
    if ((fds[1].revents & (POLLHUP | POLLERR | POLLNVAL)) != 0) plain_is_gone();
    return {};
}

Result<void> Carrier::run() {
    for (;;) {
        from_plain();
        to_tls();
        from_tls();
        to_plain();
        if (is_over()) break;
        TRY(wait());
    }
    // Nobody is left to whom it would matter.
    if (plain_gone_ || failure_.empty()) return {};
    return host_error(failure_);
}

}  // namespace

Result<void> carry(Session& session, int plain) {
    return Carrier(session, plain).run();
}

}  // namespace vmm::tls
