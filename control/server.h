// The server's side of a control socket: connections, requests in, answers out. It has no thread of
// its own: whoever owns one waits until fd() is readable and calls service(). What a request means
// is for the handler, and the answer may be given at once or much later, from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "control/http.h"
#include "vmm/base/fd.h"
#include "vmm/base/result.h"

namespace control {

// Names one request that waits for its answer.
using Ticket = std::uint64_t;

class Server {
  public:
    // On service()'s thread, once for each request. One connection's requests come one after the
    // other: the next when the last was answered.
    using Handler = std::function<void(Ticket, Request)>;
    // As many connections at once; when one more comes, the one that has been quiet for longest and
    // that is owed nothing has to go.
    static constexpr std::size_t kMaxConnections = 16;

    // `listener`: a listening unix socket that does not block.
    static vmm::Result<std::unique_ptr<Server>> create(vmm::Fd listener, Handler handler);

    int fd() const { return epoll_.get(); }
    // Does what can be done without waiting.
    void service();
    // Any thread. An answer for a client that is gone is dropped.
    void reply(Ticket ticket, Response response);
    // When nobody calls service() any more: takes no further request and gives the answers that are
    // there to clients that read them now.
    void finish();

  private:
    struct Connection {
        vmm::Fd fd;
        RequestReader reader;
        Ticket owed = 0;
        bool close_after = false;  // the answer being written is the last one
        std::string out;
        std::size_t written = 0;
        std::uint64_t last_active = 0;
        std::uint32_t watched = 0;  // epoll events
    };
    using Connections = std::map<std::uint64_t, Connection>;

    Server(vmm::Fd listener, Handler handler)
        : listener_(std::move(listener)), handler_(std::move(handler)) {}
    void accept_all();
    bool make_room();
    void take_replies();
    // These close the connection when it has come to its end; the iterator is then gone.
    void on_event(Connections::iterator at, std::uint32_t events);
    void advance(Connections::iterator at);
    bool write_out(Connection& connection);
    void watch(Connections::value_type& entry, std::uint32_t events);

    vmm::Fd listener_, epoll_, replied_;
    vmm::Fd spare_;  // given up to take a connection off the queue when descriptors have run out
    const Handler handler_;
    Connections connections_;
    std::uint64_t last_id_ = 1;  // below: the listener and replied_
    std::uint64_t last_ticket_ = 0;
    std::uint64_t clock_ = 0;  // counts events, for last_active
    bool finished_ = false;

    std::mutex mutex_;  // guards replies_
    std::vector<std::pair<Ticket, Response>> replies_;
};

}  // namespace control
