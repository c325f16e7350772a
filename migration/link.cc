#include "migration/link.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <string_view>

#include <sys/socket.h>
#include <sys/time.h>

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
    : socket_(std::move(socket)), peer_(std::move(peer)) {
    ::fcntl(socket_.get(), F_SETFL, ::fcntl(socket_.get(), F_GETFL) & ~O_NONBLOCK);
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(patience);
    const timeval limit{.tv_sec = seconds.count(), .tv_usec = (patience - seconds).count() * 1000};
    ::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

Result<void> Link::send(const Frame& frame) {
    const std::vector<std::byte> bytes = encode(frame);
    for (std::size_t at = 0; at < bytes.size();) {
        const ssize_t n = ::send(socket_.get(), bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return vmm::errno_error(peer_, vmm::Fault::kHost);
        at += static_cast<std::size_t>(n);
    }
    return {};
}

void Link::send_at_once(const Frame& frame) {
    const std::vector<std::byte> bytes = encode(frame);
    [[maybe_unused]] const auto sent =
        ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

Result<void> Link::read_exactly(std::span<std::byte> to) {
    while (!to.empty()) {
        const ssize_t n = ::recv(socket_.get(), to.data(), to.size(), 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return vmm::host_error(peer_ + ": no answer");
        if (n < 0) return vmm::errno_error(peer_, vmm::Fault::kHost);
        if (n == 0) return vmm::host_error(peer_ + ": the connection ended");
        to = to.subspan(static_cast<std::size_t>(n));
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
    return sink_.append(pieces);
}

}  // namespace migration
