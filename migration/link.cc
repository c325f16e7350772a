#include "migration/link.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <poll.h>
#include <string_view>

#include <sys/socket.h>
#include <sys/uio.h>

#include "migration/format/checksum.h"
#include "vmm/base/saved.h"

namespace migration {

using vmm::Result;

namespace {

constexpr std::string_view kMagic = "XENOMOVE";
constexpr std::uint32_t kVersion = 2;
// Magic, version, kind, message, length of the text, id and epoch, folder and secret.
constexpr std::size_t kHead = 8 + 4 + 4 + 4 + 4 + 16 + 8 + 16 + 16;
constexpr std::size_t kSum = 8;

}  // namespace

std::vector<std::byte> encode(const Frame& frame) {
    const std::string_view text = std::string_view(frame.text).substr(0, kMostText);
    vmm::saved::Encoder out;
    out.raw(std::as_bytes(std::span(kMagic)));
    out.integer(kVersion, 4);
    out.integer(static_cast<std::uint64_t>(frame.kind), 4);
    out.integer(static_cast<std::uint64_t>(frame.message), 4);
    out.integer(text.size(), 4);
    out.raw(frame.attempt.vm);
    out.integer(frame.attempt.epoch, 8);
    out.raw(frame.folder);
    out.raw(frame.secret);
    out.raw(std::as_bytes(std::span(text)));
    std::vector<std::byte> bytes = out.take();
    vmm::saved::Encoder sum;
    sum.integer(format::checksum(bytes), kSum);
    const auto tail = sum.take();
    bytes.insert(bytes.end(), tail.begin(), tail.end());
    return bytes;
}

Link::Link(vmm::Fd socket, std::string peer, std::chrono::milliseconds patience)
    : socket_(std::move(socket)), peer_(std::move(peer)), patience_(patience) {}

bool Link::is_told_to_end() const {
    pollfd one{.fd = heeded_, .events = POLLIN, .revents = 0};
    return heeded_ >= 0 && ::poll(&one, 1, 0) == 1;
}

// Until the socket is ready.
Result<void> Link::wait(short event) const {
    std::array<pollfd, 2> fds{{{.fd = socket_.get(), .events = event, .revents = 0},
                               {.fd = heeded_, .events = POLLIN, .revents = 0}}};
    for (;;) {
        const int ready = ::poll(fds.data(), fds.size(), static_cast<int>(patience_.count()));
        if (ready < 0 && errno == EINTR) continue;
        if (ready < 0) return vmm::errno_error(peer_, vmm::Fault::kHost);
        if (ready == 0) return vmm::host_error(peer_ + ": no answer");
        if (fds[0].revents != 0) return {};
        return vmm::host_error(peer_ + ": it was not waited for, as asked");
    }
}

Result<void> Link::write(std::span<const format::Piece> pieces) {
    std::vector<iovec> left;
    left.reserve(pieces.size());
    for (const format::Piece& piece : pieces) {
        // sendmsg() takes what it may not write as well.
        left.push_back({const_cast<std::byte*>(piece.data()), piece.size()});
    }
    for (std::size_t at = 0; at < left.size();) {
        msghdr message{};
        message.msg_iov = &left[at];
        message.msg_iovlen = std::min<std::size_t>(left.size() - at, IOV_MAX);
        const ssize_t n = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) {
            if (errno == EINTR) continue;
            if (errno != EAGAIN) return vmm::errno_error(peer_, vmm::Fault::kHost);
            TRY(wait(POLLOUT));
            continue;
        }
        auto written = static_cast<std::size_t>(n);
        while (at < left.size() && written >= left[at].iov_len) {
            written -= left[at++].iov_len;
        }
        if (at < left.size()) {
            left[at].iov_base = static_cast<std::byte*>(left[at].iov_base) + written;
            left[at].iov_len -= written;
        }
    }
    return {};
}

void Link::send_at_once(const Frame& frame) {
    const std::vector<std::byte> bytes = encode(frame);
    [[maybe_unused]] const auto sent =
        ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

Result<std::size_t> Link::read(std::span<std::byte> to) {
    for (;;) {
        const ssize_t n = ::recv(socket_.get(), to.data(), to.size(), MSG_DONTWAIT);
        if (n >= 0) return static_cast<std::size_t>(n);
        if (errno == EINTR) continue;
        if (errno != EAGAIN) return vmm::errno_error(peer_, vmm::Fault::kHost);
        TRY(wait(POLLIN));
    }
}

void Link::finish() {
    using Clock = std::chrono::steady_clock;
    // Whoever is told to end has no time for one that goes on sending.
    constexpr std::chrono::milliseconds kShort{500};
    ::shutdown(socket_.get(), SHUT_WR);
    auto end = Clock::now() + patience_;
    bool told = false;
    std::array<std::byte, 65536> rest;
    for (;;) {
        if (!told && is_told_to_end()) {
            told = true;
            end = std::min(end, Clock::now() + kShort);
        }
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now());
        if (left.count() <= 0) return;
        std::array<pollfd, 2> fds{{{.fd = socket_.get(), .events = POLLIN, .revents = 0},
                                   {.fd = told ? -1 : heeded_, .events = POLLIN, .revents = 0}}};
        if (::poll(fds.data(), fds.size(), static_cast<int>(left.count())) < 0 && errno != EINTR) {
            return;
        }
        const ssize_t n = ::recv(socket_.get(), rest.data(), rest.size(), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return;
    }
}

Result<void> Link::send(const Frame& frame) {
    const std::vector<std::byte> bytes = encode(frame);
    const std::array<format::Piece, 1> pieces{format::Piece(bytes)};
    return write(pieces);
}

Result<void> Link::read_exactly(std::span<std::byte> to) {
    while (!to.empty()) {
        const std::size_t n = TRY(read(to));
        if (n == 0) return vmm::host_error(peer_ + ": the connection ended");
        to = to.subspan(n);
    }
    return {};
}

// Of the whole frame.
Result<std::size_t> Link::length_of(std::span<const std::byte> head) const {
    if (std::memcmp(head.data(), kMagic.data(), kMagic.size()) != 0) {
        return vmm::host_error(peer_ + ": what comes from there is no move of a guest");
    }
    vmm::saved::Decoder in(head.subspan(kMagic.size()));
    const std::uint64_t version = in.integer(4);
    in.integer(4);
    in.integer(4);
    const std::uint64_t text = in.integer(4);
    if (version != kVersion) {
        return vmm::host_error(peer_ + ": it speaks version " + std::to_string(version) +
                               " of the protocol, which is not known here");
    }
    if (text > kMostText) return vmm::host_error(peer_ + ": a frame is too long");
    return kHead + text + kSum;
}

// All of one.
Result<Frame> Link::frame_of(std::span<const std::byte> bytes) const {
    vmm::saved::Decoder sum(bytes.last(kSum));
    if (sum.integer(kSum) != format::checksum(bytes.first(bytes.size() - kSum))) {
        return vmm::host_error(peer_ + ": a frame is damaged");
    }
    vmm::saved::Decoder in(bytes.subspan(kMagic.size() + 4));
    const std::uint64_t kind = in.integer(4);
    const std::uint64_t message = in.integer(4);
    const std::uint64_t length = in.integer(4);
    Frame frame;
    const auto take = [&in](std::array<std::byte, 16>& id) {
        const auto raw = in.raw(id.size());
        std::copy(raw.begin(), raw.end(), id.begin());
    };
    take(frame.attempt.vm);
    frame.attempt.epoch = in.integer(8);
    take(frame.folder);
    take(frame.secret);
    const bool is_message = kind == static_cast<std::uint64_t>(Frame::Kind::kMessage);
    if (kind < static_cast<std::uint64_t>(Frame::Kind::kBegin) ||
        kind > static_cast<std::uint64_t>(Frame::Kind::kMessage) ||
        (is_message && message > static_cast<std::uint64_t>(Event::kDone))) {
        return vmm::host_error(peer_ + ": a frame is of no known kind");
    }
    frame.kind = static_cast<Frame::Kind>(kind);
    frame.message = is_message ? static_cast<Event>(message) : Event::kCount;
    frame.text.resize(length);
    std::memcpy(frame.text.data(), bytes.data() + kHead, length);
    // It is printed on an operator's terminal.
    std::ranges::replace_if(
        frame.text, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
    return frame;
}

Result<Frame> Link::receive() {
    std::vector<std::byte> bytes(kHead);
    TRY(read_exactly(bytes));
    bytes.resize(TRY(length_of(bytes)));
    TRY(read_exactly(std::span(bytes).subspan(kHead)));
    return frame_of(bytes);
}

Result<std::optional<Frame>> Link::receive_at_once() {
    for (;;) {
        const std::size_t had = begun_.size();
        const std::size_t whole = had < kHead ? kHead : TRY(length_of(begun_));
        if (had == whole) {
            const auto bytes = std::exchange(begun_, {});
            return std::optional(TRY(frame_of(bytes)));
        }
        begun_.resize(whole);
        const ssize_t n = ::recv(socket_.get(), begun_.data() + had, whole - had, MSG_DONTWAIT);
        const int code = errno;
        begun_.resize(had + static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
        if (n == 0) return vmm::host_error(peer_ + ": the connection ended");
        if (n > 0 || code == EINTR) continue;
        if (code == EAGAIN) return std::optional<Frame>{};
        return vmm::errno_error(peer_, vmm::Fault::kHost, code);
    }
}

bool Link::has_something() const {
    pollfd one{.fd = socket_.get(), .events = POLLIN, .revents = 0};
    return ::poll(&one, 1, 0) == 1;
}

Result<void> HeededSink::append(std::span<const format::Piece> pieces) {
    if (link_.has_something()) return vmm::host_error(link_.peer() + ": it does not go on");
    if (link_.is_told_to_end()) return vmm::host_error("it was told to end");
    return link_.write(pieces);
}

Result<std::size_t> LinkSource::read(std::span<std::byte> to) {
    // Asked first: there may always be more to read.
    if (!link_.is_told_to_end()) {
        auto got = link_.read(to);
        if (got || !link_.is_told_to_end()) return got;
    }
    return vmm::host_error(name() + ": the receiver was told to end");
}

}  // namespace migration
