#include "vmm/tls/session.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <poll.h>

#include <sys/socket.h>

namespace vmm::tls {
namespace {

constexpr const char* kPriority = "NORMAL:-VERS-ALL:+VERS-TLS1.3:%PROFILE_MEDIUM";
constexpr std::chrono::milliseconds kLinger{1000};

int until(Session::Clock::time_point deadline) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - Session::Clock::now()).count();
    return static_cast<int>(std::max<decltype(left)>(left, 0));
}

}  // namespace

Result<Session> Session::make(Role role, const Credentials& credentials, Fd socket,
                              std::vector<std::string> peers) {
    auto state = std::make_unique<State>();
    state->role = role;
    state->peers = std::move(peers);
    const auto failed = [](int code) {
        return internal_error(std::string("GnuTLS: ") + gnutls_strerror(code));
    };
    const unsigned flags = (role == Role::kClient ? GNUTLS_CLIENT : GNUTLS_SERVER) |
                           GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS;
    if (const int n = gnutls_init(&state->session, flags); n < 0) return failed(n);
    gnutls_session_t session = state->session;
    if (const int n = gnutls_priority_set_direct(session, kPriority, nullptr); n < 0) {
        return failed(n);
    }
    if (const int n = gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials.get());
        n < 0) {
        return failed(n);
    }
    if (role == Role::kServer) {
        gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUIRE);
        // A client that knew of which CAs we are would rather show nothing than a certificate of
        // another's, and neither side could say what is wrong.
        gnutls_certificate_send_x509_rdn_sequence(session, 1);
    } else if (!state->peers.empty()) {
        // For a server of many names. An address is none.
        const std::string& name = state->peers.front();
        if (name.find_first_not_of("0123456789.") != std::string::npos &&
            name.find(':') == std::string::npos) {
            if (const int n =
                    gnutls_server_name_set(session, GNUTLS_NAME_DNS, name.data(), name.size());
                n < 0) {
                return failed(n);
            }
        }
    }
    gnutls_session_set_ptr(session, state.get());
    gnutls_session_set_verify_function(session, &Session::verify);
    ::fcntl(socket.get(), F_SETFL, ::fcntl(socket.get(), F_GETFL) | O_NONBLOCK);
    gnutls_transport_set_int(session, socket.get());
    return Session(std::move(state), std::move(socket));
}

int Session::verify(gnutls_session_t session) {
    auto* const state = static_cast<State*>(gnutls_session_get_ptr(session));
    state->refusal = judge_peer(session, state->role, state->peers);
    return state->refusal ? GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR : 0;
}

std::string Session::describe(int code) const {
    if (state_->refusal) return state_->refusal->why;
    switch (code) {
        case GNUTLS_E_CERTIFICATE_REQUIRED:
        case GNUTLS_E_NO_CERTIFICATE_FOUND: return "it shows no certificate";
        case GNUTLS_E_PREMATURE_TERMINATION: return "the connection was cut off";
        case GNUTLS_E_PULL_ERROR:
        case GNUTLS_E_PUSH_ERROR:
            return std::string("the connection was cut off: ") + std::strerror(errno);
        case GNUTLS_E_UNSUPPORTED_VERSION_PACKET:
        case GNUTLS_E_NO_CIPHER_SUITES: return "it does not speak TLS 1.3 as we do";
        case GNUTLS_E_UNEXPECTED_PACKET_LENGTH: {
            // What it had begun to say has no end: that may be all that is wrong with it.
            char more = 0;
            if (::recv(fd(), &more, 1, MSG_PEEK | MSG_DONTWAIT) == 0) {
                return "the connection was cut off";
            }
            return "what it says is no TLS";
        }
        case GNUTLS_E_UNEXPECTED_PACKET:
        case GNUTLS_E_RECORD_OVERFLOW: return "what it says is no TLS";
        case GNUTLS_E_DECRYPTION_FAILED: return "what comes from it was changed on the way";
        case GNUTLS_E_FATAL_ALERT_RECEIVED: {
            const auto alert = gnutls_alert_get(get());
            const char* const name = gnutls_alert_get_name(alert);
            const std::string word = name == nullptr ? std::to_string(alert) : name;
            switch (alert) {
                case GNUTLS_A_BAD_CERTIFICATE:
                case GNUTLS_A_UNSUPPORTED_CERTIFICATE:
                case GNUTLS_A_CERTIFICATE_REVOKED:
                case GNUTLS_A_CERTIFICATE_EXPIRED:
                case GNUTLS_A_CERTIFICATE_UNKNOWN:
                case GNUTLS_A_UNKNOWN_CA:
                case GNUTLS_A_ACCESS_DENIED: return "it refuses our certificate: " + word;
                default: return "it ended the connection: " + word;
            }
        }
        default: return gnutls_strerror(code);
    }
}

void Session::tell_why_not(int code) {
    // If it does not fit into the socket at once, then nobody reads it.
    if (state_->refusal) {
        gnutls_alert_send(get(), GNUTLS_AL_FATAL, state_->refusal->alert);
    } else {
        gnutls_alert_send_appropriate(get(), code);
    }
    ::shutdown(fd(), SHUT_WR);
    drain(fd(), kLinger);
}

Result<void> Session::handshake(Clock::time_point deadline, int plain) {
    for (;;) {
        const int code = gnutls_handshake(get());
        if (code == GNUTLS_E_SUCCESS) return {};
        if (gnutls_error_is_fatal(code) != 0) {
            const std::string why = describe(code);
            if (code != GNUTLS_E_FATAL_ALERT_RECEIVED) tell_why_not(code);
            return host_error(why);
        }
        if (Clock::now() >= deadline) return host_error("no answer");
        if (code != GNUTLS_E_AGAIN) continue;
        const auto wanted = static_cast<short>(wants_write() ? POLLOUT : POLLIN);
        std::array<pollfd, 2> fds{{{.fd = fd(), .events = wanted, .revents = 0},
                                   {.fd = plain, .events = 0, .revents = 0}}};
        if (::poll(fds.data(), fds.size(), until(deadline)) < 0 && errno != EINTR) {
            return errno_error("poll");
        }
        if (fds[1].revents != 0) return host_error("nobody waits for it any more");
    }
}

std::string Session::peer() const {
    const auto certificate = Certificate::of_peer(get());
    return certificate ? certificate->subject() : "(no name)";
}

Session::What Session::lost(int code) {
    state_->failure = describe(code);
    return What::kLost;
}

Session::Outcome Session::send(std::span<const std::byte> bytes) {
    for (;;) {
        const ssize_t n = gnutls_record_send(get(), bytes.data(), bytes.size());
        if (n >= 0) return {.bytes = static_cast<std::size_t>(n)};
        const int code = static_cast<int>(n);
        if (code == GNUTLS_E_AGAIN) return {.what = What::kLater};
        if (gnutls_error_is_fatal(code) != 0) return {.what = lost(code)};
    }
}

Session::Outcome Session::receive(std::span<std::byte> to) {
    for (;;) {
        const ssize_t n = gnutls_record_recv(get(), to.data(), to.size());
        if (n >= 0) return {.bytes = static_cast<std::size_t>(n)};
        const int code = static_cast<int>(n);
        if (code == GNUTLS_E_AGAIN) return {.what = What::kLater};
        if (gnutls_error_is_fatal(code) != 0) {
            const auto what = lost(code);
            if (code != GNUTLS_E_FATAL_ALERT_RECEIVED && code != GNUTLS_E_PREMATURE_TERMINATION &&
                code != GNUTLS_E_PULL_ERROR) {
                gnutls_alert_send_appropriate(get(), code);
            }
            return {.what = what};
        }
    }
}

Session::What Session::close() {
    for (;;) {
        const int code = gnutls_bye(get(), GNUTLS_SHUT_WR);
        if (code == GNUTLS_E_SUCCESS) {
            ::shutdown(fd(), SHUT_WR);
            return What::kDone;
        }
        if (code == GNUTLS_E_AGAIN) return What::kLater;
        if (gnutls_error_is_fatal(code) != 0) return lost(code);
    }
}

void drain(int socket, std::chrono::milliseconds patience) {
    const auto deadline = Session::Clock::now() + patience;
    std::array<std::byte, 16384> rest;
    for (;;) {
        const ssize_t n = ::recv(socket, rest.data(), rest.size(), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return;
        if (Session::Clock::now() >= deadline) return;
        pollfd one{.fd = socket, .events = POLLIN, .revents = 0};
        if (n < 0 && ::poll(&one, 1, until(deadline)) == 0) return;
    }
}

}  // namespace vmm::tls
