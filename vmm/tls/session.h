// TLS over one connected stream socket: version 1.3 and no other, a certificate on either side, no
// resumption, no early data.
#pragma once

#include <chrono>
#include <cstddef>
#include <gnutls/gnutls.h>
#include <span>
#include <string>
#include <vector>

#include "vmm/base/fd.h"
#include "vmm/base/result.h"
#include "vmm/tls/credentials.h"

namespace vmm::tls {

class Session {
  public:
    using Clock = std::chrono::steady_clock;

    // `peers`: the names that the other side may have, none: any. `credentials` must stay.
    static Result<Session> make(Role role, const Credentials& credentials, Fd socket,
                                std::vector<std::string> peers);
    Session(Session&& other) noexcept
        : state_(std::move(other.state_)), socket_(std::move(other.socket_)) {}
    Session& operator=(Session&&) = delete;

    // Until the other side is known to be one that we let in (to have let us in is its own affair,
    // of which the first receive() tells). It is told why not. `plain`: whose hang-up ends it.
    Result<void> handshake(Clock::time_point deadline, int plain);
    // Who it is, after the handshake.
    std::string peer() const;

    enum class What {
        kDone,   // `bytes` are sent, or have been received; 0 received: the other side has said all
        kLater,  // once the socket is ready: for writing, or for what wants_write() says
        kLost,   // failure() says how; also an end that was not announced (a close_notify)
    };
    struct Outcome {
        What what = What::kDone;
        std::size_t bytes = 0;
    };
    // After kLater the same bytes must be given again.
    Outcome send(std::span<const std::byte> bytes);
    Outcome receive(std::span<std::byte> to);
    // We have said all.
    What close();
    const std::string& failure() const { return state_->failure; }

    int fd() const { return socket_.get(); }
    bool has_pending() const { return gnutls_record_check_pending(get()) > 0; }
    bool wants_write() const { return gnutls_record_get_direction(get()) == 1; }

  private:
    // GnuTLS's callbacks keep a pointer to it.
    struct State {
        gnutls_session_t session = nullptr;
        Role role = Role::kClient;
        std::vector<std::string> peers;
        std::optional<Refusal> refusal;
        std::string failure;
        State() = default;
        State(const State&) = delete;
        State& operator=(const State&) = delete;
        ~State() {
            if (session != nullptr) gnutls_deinit(session);
        }
    };
    Session(std::unique_ptr<State> state, Fd socket)
        : state_(std::move(state)), socket_(std::move(socket)) {}
    static int verify(gnutls_session_t session);
    gnutls_session_t get() const { return state_->session; }
    std::string describe(int code) const;
    What lost(int code);
    void tell_why_not(int code);

    std::unique_ptr<State> state_;
    Fd socket_;
};

// Closed with something unread, a socket would take our last word with it: reads what still comes,
// until there is no more or the time is over.
void drain(int socket, std::chrono::milliseconds patience);

}  // namespace vmm::tls
