#include "xenshim/domain/xenstore/wire.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <iterator>
#include <optional>
#include <vector>

namespace xenshim::xenstore {

using vmm::Failure;

static_assert(std::endian::native == std::endian::little);

static constexpr std::string_view kOk("OK\0", 3);

// The NUL-terminated strings at the start of a payload; what follows the last NUL is not counted,
// as in xenstored.
static std::vector<std::string_view> split_strings(std::string_view body) {
    std::vector<std::string_view> strings;
    for (auto nul = body.find('\0'); nul != std::string_view::npos; nul = body.find('\0')) {
        strings.push_back(body.substr(0, nul));
        body.remove_prefix(nul + 1);
    }
    return strings;
}

// The payload of most requests: one string, with its NUL at the very end.
static StoreResult<std::string_view> only_string(std::string_view body) {
    if (body.empty() || body.find('\0') != body.size() - 1) return Failure{StoreError::kEinval};
    return body.substr(0, body.size() - 1);
}

template <class Number>
static StoreResult<Number> number(std::string_view text) {
    Number value = 0;
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data(), end, value);
    if (parsed.ec != std::errc{} || parsed.ptr != end) return Failure{StoreError::kEinval};
    return value;
}

static std::string terminated(std::string_view text) {
    std::string with_nul(text);
    with_nul.push_back('\0');
    return with_nul;
}

static std::string join(const std::vector<std::string>& strings) {
    std::string joined;
    for (const auto& each : strings) {
        joined += each;
        joined.push_back('\0');
    }
    return joined;
}

// The requests that xenstored's table reserves to privileged connections.
static bool privileged_only(MessageType type) {
    switch (type) {
        case MessageType::kControl:
        case MessageType::kIntroduce:
        case MessageType::kRelease:
        case MessageType::kIsDomainIntroduced:
        case MessageType::kResume:
        case MessageType::kSetTarget: return true;
        default: return false;
    }
}

Connection::Connection(Store& store, DomainId domid, std::function<void()> on_event)
    : on_event_(std::move(on_event)),
      session_(store, domid, [this](const WatchEvent& event) { queue_event(event); }) {}

// --- Input ---

bool Connection::wants_input() const {
    return !broken_ && replies_waiting_ < kRepliesWaiting;
}

std::size_t Connection::feed(std::span<const std::byte> bytes) {
    std::size_t taken = 0;
    while (taken < bytes.size() && wants_input()) {
        const bool in_header = have_ < sizeof(header_);
        const std::size_t want = sizeof(header_) + (in_header ? 0 : header_.len);
        const std::size_t now = std::min(want - have_, bytes.size() - taken);
        std::memcpy(input_.data() + have_, bytes.data() + taken, now);
        have_ += now;
        taken += now;
        if (have_ < want) break;
        if (in_header) {
            std::memcpy(&header_, input_.data(), sizeof(header_));
            if (header_.len > kPayloadMax) {
                // Where the next message would start cannot be known any more.
                mark_broken();
                break;
            }
            if (header_.len != 0) continue;
        }
        process();
        have_ = 0;
    }
    return taken;
}

void Connection::mark_broken() {
    broken_ = true;
    session_.reset();
    output_.clear();
    waiting_events_.clear();
    front_sent_ = replies_waiting_ = queued_bytes_ = event_bytes_ = 0;
}

void Connection::begin_anew() {
    mark_broken();
    broken_ = false;
    have_ = 0;
}

void Connection::process() {
    const auto type = static_cast<MessageType>(header_.type);
    std::array<char, kPayloadMax> copy;
    std::memcpy(copy.data(), input_.data() + sizeof(header_), header_.len);

    // The first event of a watch follows the reply that says it is there. Events of other
    // requests precede their reply. Both as in xenstored.
    std::optional<Store::Hold> hold;
    if (type == MessageType::kWatch) hold.emplace(session_.store());

    auto result = answer(type, std::string_view(copy.data(), header_.len));
    if (result && (*result).size() > kPayloadMax) result = Failure{StoreError::kE2big};
    if (result) {
        reply(type, *result);
    } else {
        reply(MessageType::kError, terminated(error_name(result.error())));
    }
}

// Refuses in xenstored's order: unknown, not for guests, no such transaction.
StoreResult<std::string> Connection::answer(MessageType type, std::string_view body) {
    if (static_cast<std::uint32_t>(type) >
        static_cast<std::uint32_t>(MessageType::kDirectoryPart)) {
        return Failure{StoreError::kEnosys};
    }
    if (privileged_only(type) && !session_.privileged()) return Failure{StoreError::kEacces};
    // The transaction of a watch is ignored.
    if (type == MessageType::kWatch || type == MessageType::kUnwatch) {
        return execute(type, kNoTransaction, body);
    }
    if (header_.tx_id != kNoTransaction && !session_.has_transaction(header_.tx_id)) {
        return Failure{StoreError::kEnoent};
    }
    return execute(type, header_.tx_id, body);
}

StoreResult<std::string> Connection::execute(MessageType type, TransactionId in,
                                             std::string_view body) {
    switch (type) {
        case MessageType::kDirectory:
        case MessageType::kRead:
        case MessageType::kMkdir:
        case MessageType::kRm:
        case MessageType::kGetPerms:
        case MessageType::kTransactionEnd:
        case MessageType::kGetDomainPath:
        case MessageType::kIsDomainIntroduced:
            return execute_one_string(type, in, TRY(only_string(body)));

        case MessageType::kDirectoryPart: return directory_part(in, body);
        case MessageType::kSetPerms: return set_permissions(in, body);
        case MessageType::kWrite: {
            // What follows the path is the value, NULs and all.
            const auto nul = body.find('\0');
            if (nul == std::string_view::npos) return Failure{StoreError::kEinval};
            TRY(session_.write(in, body.substr(0, nul), body.substr(nul + 1)));
            return std::string(kOk);
        }

        case MessageType::kWatch: {
            const auto strings = split_strings(body);
            if (strings.size() != 2) return Failure{StoreError::kEinval};
            TRY(session_.watch(strings[0], strings[1]));
            return std::string(kOk);
        }
        case MessageType::kUnwatch: {
            const auto strings = split_strings(body);
            if (strings.size() != 2) return Failure{StoreError::kEinval};
            drop_events(TRY(session_.unwatch(strings[0], strings[1])));
            return std::string(kOk);
        }
        case MessageType::kResetWatches:
            session_.reset();
            drop_events(0);
            return std::string(kOk);

        case MessageType::kTransactionStart:
            if (in != kNoTransaction) return Failure{StoreError::kEbusy};  // they do not nest
            return terminated(std::to_string(TRY(session_.start_transaction())));

        // There is one guest, and the VMM alone introduces and releases it; stub domains and a
        // control channel we do not have. The rest are replies.
        case MessageType::kControl:
        case MessageType::kIntroduce:
        case MessageType::kRelease:
        case MessageType::kResume:
        case MessageType::kSetTarget:
        case MessageType::kWatchEvent:
        case MessageType::kError: break;
    }
    return Failure{StoreError::kEnosys};
}

StoreResult<std::string> Connection::execute_one_string(MessageType type, TransactionId in,
                                                        std::string_view text) {
    switch (type) {
        case MessageType::kDirectory: return join(TRY(session_.directory(in, text)).children);
        case MessageType::kRead: return session_.read(in, text);
        case MessageType::kMkdir: TRY(session_.mkdir(in, text)); break;
        case MessageType::kRm: TRY(session_.remove(in, text)); break;
        case MessageType::kGetPerms: return get_permissions(in, text);
        case MessageType::kTransactionEnd:
            if (text != "T" && text != "F") return Failure{StoreError::kEinval};
            TRY(session_.end_transaction(in, text == "T"));
            break;
        case MessageType::kGetDomainPath:
            return terminated(domain_path(TRY(number<DomainId>(text))));
        case MessageType::kIsDomainIntroduced: {
            const auto domid = TRY(number<DomainId>(text));
            return terminated(session_.store().is_introduced(domid) ? "T" : "F");
        }
        default: return Failure{StoreError::kEnosys};
    }
    return std::string(kOk);
}

// <path>|<offset>| answers <generation>|<children from that byte of the list>, whole names only,
// and an empty name after the last of all.
StoreResult<std::string> Connection::directory_part(TransactionId in, std::string_view body) {
    const auto strings = split_strings(body);
    if (strings.size() != 2) return Failure{StoreError::kEinval};
    const auto listing = TRY(session_.directory(in, strings[0]));
    const auto offset = TRY(number<std::size_t>(strings[1]));

    std::string part = terminated(std::to_string(listing.generation));
    const std::string list = join(listing.children);
    std::size_t at = offset;
    while (at < list.size()) {
        const std::size_t next = list.find('\0', at) + 1;
        // One byte stays free for the empty name at the end.
        if (part.size() + (next - at) >= kPayloadMax) return part;
        part.append(list, at, next - at);
        at = next;
    }
    part.push_back('\0');
    return part;
}

StoreResult<std::string> Connection::get_permissions(TransactionId in, std::string_view path) {
    const auto permissions = TRY(session_.permissions(in, path));
    std::string strings;
    for (const auto each : permissions)
        strings += terminated(format_permission(each));
    return strings;
}

StoreResult<std::string> Connection::set_permissions(TransactionId in, std::string_view body) {
    const auto strings = split_strings(body);
    if (strings.size() < 2) return Failure{StoreError::kEinval};
    if (!session_.privileged() && strings.size() - 1 > session_.store().quotas().permissions) {
        return Failure{StoreError::kEnospc};
    }
    Permissions permissions;
    for (std::size_t i = 1; i < strings.size(); ++i) {
        const auto permission = parse_permission(strings[i]);
        if (!permission) return Failure{StoreError::kEinval};
        permissions.push_back(*permission);
    }
    TRY(session_.set_permissions(in, strings[0], std::move(permissions)));
    return std::string(kOk);
}

// --- Output ---

static std::string encode(MessageHeader header, std::string_view payload) {
    header.len = static_cast<std::uint32_t>(payload.size());
    std::string bytes(sizeof(header), '\0');
    std::memcpy(bytes.data(), &header, sizeof(header));
    bytes += payload;
    return bytes;
}

void Connection::push(Message message) {
    queued_bytes_ += message.bytes.size();
    output_.push_back(std::move(message));
}

void Connection::reply(MessageType type, std::string_view payload) {
    if (broken_) return;
    ++replies_waiting_;
    push({encode({static_cast<std::uint32_t>(type), header_.req_id, header_.tx_id, 0}, payload),
          0,
          {}});
}

void Connection::queue_event(const WatchEvent& event) {
    if (broken_) return;
    std::string_view path = event.path;
    const std::size_t payload = path.size() + event.token.size() + 2;
    // Too much waits already, or the event is too long to be sent at all: say that something
    // below the watched path has changed, which always fits as the request for the watch did.
    const std::size_t size = sizeof(MessageHeader) + payload;
    if (payload > kPayloadMax || event_bytes_ + size > kEventBytes) path = event.watched;
    if (!waiting_events_.emplace(event.watch, path).second) return;
    Message message{encode({static_cast<std::uint32_t>(MessageType::kWatchEvent), 0, 0, 0},
                           terminated(path) + terminated(event.token)),
                    event.watch, std::string(path)};
    event_bytes_ += message.bytes.size();
    push(std::move(message));
    if (on_event_) on_event_();
}

void Connection::drop_events(WatchId watch) {
    // The client has a part of the first message already and must get the rest.
    auto from = output_.begin();
    if (front_sent_ != 0) ++from;
    const auto unwanted = [watch](const Message& each) {
        return each.watch != 0 && (watch == 0 || each.watch == watch);
    };
    const auto gone = std::stable_partition(from, output_.end(),
                                            [&](const Message& each) { return !unwanted(each); });
    for (auto each = gone; each != output_.end(); ++each) {
        queued_bytes_ -= each->bytes.size();
        event_bytes_ -= each->bytes.size();
        waiting_events_.erase({each->watch, each->path});
    }
    output_.erase(gone, output_.end());
}

std::size_t Connection::pop_output(std::span<std::byte> to) {
    std::size_t done = 0;
    while (done < to.size() && !output_.empty()) {
        const Message& front = output_.front();
        const std::size_t now = std::min(front.bytes.size() - front_sent_, to.size() - done);
        std::memcpy(to.data() + done, front.bytes.data() + front_sent_, now);
        front_sent_ += now;
        done += now;
        if (front_sent_ < front.bytes.size()) break;
        queued_bytes_ -= front.bytes.size();
        if (front.watch == 0) {
            --replies_waiting_;
        } else {
            event_bytes_ -= front.bytes.size();
            waiting_events_.erase({front.watch, front.path});
        }
        output_.pop_front();
        front_sent_ = 0;
    }
    return done;
}

}  // namespace xenshim::xenstore
