// The wire protocol of xenstore (xen/io/xs_wire.h, docs/misc/xenstore.txt) as a byte-stream state
// machine: requests go in and replies and watch events come out in pieces of any size. Where the
// bytes come from (the guest's ring page, a socket) is no business of this file.
//
// Memory is bounded whatever the client does. A client that does not take its replies is no
// longer read from. Watch events are never lost: identical ones that wait are one, and beyond a
// limit a watch's further events become a single one for the path it watches.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "vmm/base/result.h"
#include "xenshim/domain/xenstore/state.h"
#include "xenshim/domain/xenstore/store.h"

namespace xenshim::xenstore {

// xsd_sockmsg_type in xs_wire.h.
enum class MessageType : std::uint32_t {
    kControl = 0,
    kDirectory = 1,
    kRead = 2,
    kGetPerms = 3,
    kWatch = 4,
    kUnwatch = 5,
    kTransactionStart = 6,
    kTransactionEnd = 7,
    kIntroduce = 8,
    kRelease = 9,
    kGetDomainPath = 10,
    kWrite = 11,
    kMkdir = 12,
    kRm = 13,
    kSetPerms = 14,
    kWatchEvent = 15,
    kError = 16,
    kIsDomainIntroduced = 17,
    kResume = 18,
    kSetTarget = 19,
    kResetWatches = 21,
    kDirectoryPart = 22,
};

// xsd_sockmsg: little-endian on every host that we run on.
struct MessageHeader {
    std::uint32_t type = 0;
    std::uint32_t req_id = 0;
    std::uint32_t tx_id = 0;
    std::uint32_t len = 0;
};
static_assert(sizeof(MessageHeader) == 16);

class Connection {
  public:
    // `on_event` is called when a watch event has been queued, perhaps while feed() runs: the
    // time to have the ring serviced. It must not call back into this connection.
    Connection(Store& store, DomainId domid, std::function<void()> on_event = {});
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    // Takes bytes from the client and answers every request that is complete. Returns how many
    // were taken: fewer than given when replies must be popped first, or when broken.
    std::size_t feed(std::span<const std::byte> bytes);
    // Moves waiting output to `to`; returns how much.
    std::size_t pop_output(std::span<std::byte> to);

    bool wants_input() const;
    bool has_output() const { return !output_.empty(); }
    // The client broke the framing (a payload beyond 4096 bytes) or its ring. As in xenstored,
    // its watches, transactions and waiting output are gone and nothing more is read.
    bool broken() const { return broken_; }
    void mark_broken();
    // As of a client that has just come: no watches, no transactions, and nothing on its way.
    void begin_anew();

    Session& session() { return session_; }
    // Output that waits, headers included: at most kEventBytes plus one event per watch plus
    // kRepliesWaiting replies.
    std::size_t queued_bytes() const { return queued_bytes_; }

    // xenstored's limit for requests whose replies have not been taken (quota "outstanding").
    static constexpr std::size_t kRepliesWaiting = 20;
    static constexpr std::size_t kEventBytes = 65536;

    // This client's store, transactions, watches and streams. Not from a watch's callback.
    XenstoreState snapshot() const;
    // The store has no other tree yet, the client nothing. Who watches as domain 0 hears nothing:
    // backends come after this. Requests that wait in the ring, and output that has room there,
    // are moved when the ring is serviced.
    vmm::Expected<void, std::string> adopt(const XenstoreState& state);

  private:
    friend class SavedForm;

    struct Message {
        std::string bytes;
        WatchId watch = 0;  // 0: a reply
        std::string path;   // of the event
    };

    void process();
    StoreResult<std::string> answer(MessageType type, std::string_view body);
    StoreResult<std::string> execute(MessageType type, TransactionId in, std::string_view body);
    StoreResult<std::string> execute_one_string(MessageType type, TransactionId in,
                                                std::string_view text);
    StoreResult<std::string> directory_part(TransactionId in, std::string_view body);
    StoreResult<std::string> get_permissions(TransactionId in, std::string_view path);
    StoreResult<std::string> set_permissions(TransactionId in, std::string_view body);
    void reply(MessageType type, std::string_view payload);
    void push(Message message);
    void queue_event(const WatchEvent& event);
    // Forgets events that wait, but for one of which a part has gone out. 0: of all watches.
    void drop_events(WatchId watch);

    bool broken_ = false;
    MessageHeader header_;
    std::size_t have_ = 0;  // bytes of the current request, header included
    std::array<std::byte, sizeof(MessageHeader) + kPayloadMax> input_;
    std::deque<Message> output_;
    std::size_t front_sent_ = 0;  // bytes of output_.front() already popped
    std::size_t replies_waiting_ = 0;
    std::size_t queued_bytes_ = 0;
    std::size_t event_bytes_ = 0;
    std::set<std::pair<WatchId, std::string>> waiting_events_;
    std::function<void()> on_event_;
    Session session_;  // last: its watches call queue_event()
};

}  // namespace xenshim::xenstore
