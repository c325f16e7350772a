// Two ends of a TLS connection over a socket pair, each with a program's socket, as in the field.
#include "vmm/tls/carry.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <ctime>
#include <optional>
#include <poll.h>
#include <string>
#include <thread>
#include <vector>

#include <sys/socket.h>

#include <gtest/gtest.h>

#include "tests/unit/vmm/tls/certificates.h"

namespace vmm::tls {
namespace {

using test::Authority;
using test::Host;
using test::Wanted;
using Clock = Session::Clock;

std::pair<Fd, Fd> sockets() {
    std::array<int, 2> pair{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), 0);
    return {Fd(pair[0]), Fd(pair[1])};
}

// One end: its program is `here`; the thread handshakes and carries until the end.
class End {
  public:
    End(Role role, const Host& host, Fd network, std::vector<std::string> peers = {})
        : credentials_(*Credentials::load(host.folder.path())) {
        auto [ours, theirs] = sockets();
        here = std::move(ours);
        thread_ = std::thread([this, role, peers = std::move(peers), network = std::move(network),
                               plain = std::move(theirs)]() mutable {
            result_.emplace([&]() -> Result<void> {
                auto session =
                    TRY(Session::make(role, credentials_, std::move(network), std::move(peers)));
                TRY(session.handshake(Clock::now() + std::chrono::seconds(20), plain.get()));
                peer_ = session.peer();
                return carry(session, plain.get());
            }());
            plain.reset();
        });
    }
    ~End() {
        here.reset();
        if (thread_.joinable()) thread_.join();
    }
    // Why it ended; empty: both had said all, or `here` was closed.
    std::string end() {
        thread_.join();
        return *result_ ? "" : (*result_).error().what;
    }
    const std::string& peer() const { return peer_; }

    Fd here;

  private:
    Credentials credentials_;
    std::thread thread_;
    std::optional<Result<void>> result_;
    std::string peer_;
};

bool say(const Fd& to, std::string_view text) {
    while (!text.empty()) {
        const ssize_t n = ::send(to.get(), text.data(), text.size(), MSG_NOSIGNAL);
        if (n <= 0) return false;
        text.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
}
// All until the end, or `most` bytes.
std::string hear(const Fd& from, std::size_t most = std::string::npos) {
    std::string all;
    std::vector<char> some(std::size_t{1} << 16);
    while (all.size() < most) {
        const ssize_t n =
            ::recv(from.get(), some.data(), std::min(some.size(), most - all.size()), 0);
        if (n <= 0) break;
        all.append(some.data(), static_cast<std::size_t>(n));
    }
    return all;
}
testing::AssertionResult has(const std::string& what, const std::string& text) {
    if (what.find(text) != std::string::npos) return testing::AssertionSuccess();
    return testing::AssertionFailure() << "'" << what << "' lacks '" << text << "'";
}

class CarryTest : public testing::Test {
  protected:
    // Both at once: one alone waits for the other's end for a while.
    static void end(End& a, End& b) {
        a.here.reset();
        b.here.reset();
        EXPECT_EQ(a.end(), "");
        EXPECT_EQ(b.end(), "");
    }

    Authority authority_;
    Host here_{authority_, {.common_name = "here", .dns = "here.example"}};
    Host there_{authority_, {.common_name = "there", .dns = "there.example"}};
};

TEST_F(CarryTest, BothWaysUntilBothHaveSaidAll) {
    auto [a, b] = sockets();
    End client(Role::kClient, here_, std::move(a), {"there.example"});
    End server(Role::kServer, there_, std::move(b));
    ASSERT_TRUE(say(client.here, "a question"));
    EXPECT_EQ(hear(server.here, 10), "a question");
    // Who has said all still hears.
    ::shutdown(client.here.get(), SHUT_WR);
    EXPECT_EQ(hear(server.here), "");
    ASSERT_TRUE(say(server.here, "an answer"));
    ::shutdown(server.here.get(), SHUT_WR);
    EXPECT_EQ(hear(client.here), "an answer");
    EXPECT_EQ(client.end(), "");
    EXPECT_EQ(server.end(), "");
    EXPECT_EQ(client.peer(), "CN=there");
    EXPECT_EQ(server.peer(), "CN=here");
}

TEST_F(CarryTest, MuchBothWaysAtOnce) {
    // More than all buffers together, and neither reads before it has begun to say it.
    auto [a, b] = sockets();
    End client(Role::kClient, here_, std::move(a), {"there.example"});
    End server(Role::kServer, there_, std::move(b));
    constexpr std::size_t kMuch = std::size_t{8} << 20;
    std::string question(kMuch, 'q'), answer(kMuch, 'a');
    for (std::size_t i = 0; i < kMuch; i += 977) {
        question[i] = static_cast<char>(i >> 3);
        answer[i] = static_cast<char>(i >> 5);
    }
    std::array<std::string, 2> heard;
    std::vector<std::thread> threads;
    threads.emplace_back([&] { EXPECT_TRUE(say(client.here, question)); });
    threads.emplace_back([&] { EXPECT_TRUE(say(server.here, answer)); });
    threads.emplace_back([&] { heard[0] = hear(client.here, kMuch); });
    threads.emplace_back([&] { heard[1] = hear(server.here, kMuch); });
    for (std::thread& thread : threads)
        thread.join();
    EXPECT_TRUE(heard[0] == answer);
    EXPECT_TRUE(heard[1] == question);
    end(client, server);
}

TEST_F(CarryTest, OneWayThatIsFullLeavesTheOtherOpen) {
    auto [a, b] = sockets();
    End client(Role::kClient, here_, std::move(a), {"there.example"});
    End server(Role::kServer, there_, std::move(b));
    ASSERT_TRUE(say(client.here, "?"));
    ASSERT_EQ(hear(server.here, 1), "?");
    // Until it takes no more, for nobody reads there; nor does it cost anything to wait for that.
    const std::string some(65536, 'x');
    constexpr int kQuietMs = 200;
    std::clock_t before{};
    const auto takes_more = [&] {
        pollfd one{.fd = client.here.get(), .events = POLLOUT, .revents = 0};
        before = std::clock();
        return ::poll(&one, 1, kQuietMs) == 1;
    };
    while (takes_more())
        ::send(client.here.get(), some.data(), some.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    EXPECT_LT(std::clock() - before, CLOCKS_PER_SEC * kQuietMs / 1000 / 2);
    ASSERT_TRUE(say(server.here, "go on"));
    EXPECT_EQ(hear(client.here, 5), "go on");
    end(client, server);
}

TEST_F(CarryTest, WhatWasSaidBeforeTheEndArrives) {
    auto [a, b] = sockets();
    End client(Role::kClient, here_, std::move(a), {"there.example"});
    End server(Role::kServer, there_, std::move(b));
    const std::string last(std::size_t{1} << 20, 'l');
    std::string heard;
    std::thread reader([&] { heard = hear(server.here); });
    ASSERT_TRUE(say(client.here, last));
    client.here.reset();
    reader.join();
    EXPECT_TRUE(heard == last);
    server.here.reset();
    EXPECT_EQ(client.end(), "");
    EXPECT_EQ(server.end(), "");
}

// Passes on what `from` says until it has passed on `most` bytes, then closes both.
void cut_after(const Fd& a, const Fd& b, std::size_t most) {
    std::size_t passed = 0;
    std::vector<char> some(4096);
    while (passed < most) {
        std::array<pollfd, 2> fds{{{.fd = a.get(), .events = POLLIN, .revents = 0},
                                   {.fd = b.get(), .events = POLLIN, .revents = 0}}};
        if (::poll(fds.data(), fds.size(), -1) < 0) break;
        for (const std::size_t i : {0U, 1U}) {
            if (fds[i].revents == 0) continue;
            const ssize_t n = ::recv(fds[i].fd, some.data(), some.size(), 0);
            if (n <= 0) return;
            if (i == 0) passed += static_cast<std::size_t>(n);
            ::send(fds[1 - i].fd, some.data(), static_cast<std::size_t>(n), MSG_NOSIGNAL);
        }
    }
    ::shutdown(a.get(), SHUT_RDWR);
    ::shutdown(b.get(), SHUT_RDWR);
}

TEST_F(CarryTest, AnEndThatWasNotAnnouncedIsALoss) {
    auto [a, a_network] = sockets();
    auto [b, b_network] = sockets();
    constexpr std::size_t kCut = 100'000;  // in the midst of what is said, after the handshake
    std::thread network(
        [x = std::move(a_network), y = std::move(b_network)] { cut_after(x, y, kCut); });
    End client(Role::kClient, here_, std::move(a), {"there.example"});
    End server(Role::kServer, there_, std::move(b));
    std::thread speaker([&] { say(client.here, std::string(4 * kCut, 'x')); });
    const std::string heard = hear(server.here);
    EXPECT_GT(heard.size(), kCut / 2);
    EXPECT_LT(heard.size(), kCut);
    EXPECT_TRUE(has(server.end(), "cut off"));
    EXPECT_TRUE(has(client.end(), "cut off"));
    speaker.join();
    network.join();
}

// Who refuses whom, and what each of them says of it.
struct Refused {
    std::string by_client, by_server;
};
Refused meet(const Host& client_host, const Host& server_host,
             std::vector<std::string> client_wants, std::vector<std::string> server_wants = {}) {
    auto [a, b] = sockets();
    End server(Role::kServer, server_host, std::move(b), std::move(server_wants));
    End client(Role::kClient, client_host, std::move(a), std::move(client_wants));
    // A client that was let in by its own lights hears of it when it listens.
    EXPECT_EQ(hear(client.here), "");
    EXPECT_EQ(hear(server.here), "");
    return {client.end(), server.end()};
}

TEST_F(CarryTest, AServerOfAnotherNameIsRefused) {
    const auto why = meet(here_, there_, {"elsewhere.example", "example"});
    EXPECT_TRUE(has(why.by_client, "'CN=there'"));
    EXPECT_TRUE(has(why.by_client, "not that of 'elsewhere.example' or 'example'"));
    EXPECT_TRUE(has(why.by_server, "refuses our certificate"));
}

TEST_F(CarryTest, ACommonNameCountsOnlyWithoutOtherNames) {
    EXPECT_TRUE(has(meet(here_, there_, {"there"}).by_client, "not that of 'there'"));
    const Host plain(authority_, {.common_name = "plain"});
    EXPECT_TRUE(has(meet(plain, there_, {"there.example"}, {"here"}).by_server, "not that of"));
    auto [a, b] = sockets();
    End server(Role::kServer, there_, std::move(b), {"other", "plain"});
    End client(Role::kClient, plain, std::move(a), {"there.example"});
    ASSERT_TRUE(say(client.here, "let in"));
    EXPECT_EQ(hear(server.here, 6), "let in");
    end(client, server);
}

TEST_F(CarryTest, AWildcardIsNoName) {
    const Host wild(authority_, {.dns = "*.example"});
    EXPECT_TRUE(has(meet(here_, wild, {"there.example"}).by_client, "not that of"));
}

TEST_F(CarryTest, AClientThatMayNotSendIsRefused) {
    const auto why = meet(here_, there_, {"there.example"}, {"another.example"});
    EXPECT_TRUE(has(why.by_server, "('CN=here') is refused: it is not that of 'another.example'"));
    EXPECT_TRUE(has(why.by_client, "refuses our certificate: "));
}

TEST_F(CarryTest, AnotherAuthoritysCertificateIsRefusedByEither) {
    const Authority other{.name = "another CA"};
    const Host stranger(other, {.dns = "there.example"});
    EXPECT_TRUE(has(meet(here_, stranger, {"there.example"}).by_client, "has signed it"));
    // The one that trusts both meets one that does not.
    stranger.folder.write("ca.pem", other.certificate.pem() + authority_.certificate.pem());
    const auto why = meet(stranger, there_, {"there.example"});
    EXPECT_TRUE(has(why.by_server, "has signed it"));
    EXPECT_TRUE(has(why.by_client, "refuses our certificate"));
    const Authority same_name;
    const Host newer(same_name, {.dns = "there.example"});
    EXPECT_TRUE(has(meet(here_, newer, {"there.example"}).by_client, "has signed it"));
}

TEST_F(CarryTest, ARevokedCertificateIsRefused) {
    there_.folder.write("crl.pem", authority_.revoke(here_.certificate));
    EXPECT_TRUE(has(meet(here_, there_, {"there.example"}).by_server, "revoked"));
}

TEST_F(CarryTest, ACertificateForAnotherPurposeIsRefused) {
    const Host server_only(authority_,
                           {.dns = "there.example", .purpose = GNUTLS_KP_TLS_WWW_SERVER});
    EXPECT_TRUE(has(meet(server_only, there_, {"there.example"}).by_server, "purpose"));
    const Host client_only(authority_,
                           {.dns = "there.example", .purpose = GNUTLS_KP_TLS_WWW_CLIENT});
    EXPECT_TRUE(has(meet(here_, client_only, {"there.example"}).by_client, "purpose"));
}

// What `server` makes of somebody who says this.
std::string of_stranger(const Host& host, std::string_view words) {
    auto [a, b] = sockets();
    End server(Role::kServer, host, std::move(b));
    EXPECT_TRUE(say(a, words));
    ::shutdown(a.get(), SHUT_WR);
    EXPECT_EQ(hear(server.here), "");
    return server.end();
}

TEST_F(CarryTest, WhatIsNoTlsIsRefused) {
    using namespace std::string_view_literals;
    EXPECT_NE(of_stranger(there_, "XENOMOVE\1\0\0\0\1\0\0\0 and so on, as if it were plain"sv), "");
    EXPECT_NE(of_stranger(there_, "GET / HTTP/1.1\r\n\r\n"), "");
    EXPECT_NE(of_stranger(there_, std::string(70'000, '\xff')), "");
    EXPECT_NE(of_stranger(there_, "\x16\x03\x01\xff\xff\1"sv), "");
    EXPECT_TRUE(has(of_stranger(there_, ""), "cut off"));
}

TEST_F(CarryTest, SilenceIsNotWaitedForForEver) {
    auto [a, b] = sockets();
    auto [plain, other] = sockets();
    const auto credentials = Credentials::load(there_.folder.path());
    ASSERT_TRUE(credentials);
    auto session = Session::make(Role::kServer, *credentials, std::move(b), {});
    ASSERT_TRUE(session);
    const auto done = session->handshake(Clock::now() + std::chrono::milliseconds(20), plain.get());
    ASSERT_FALSE(done);
    EXPECT_TRUE(has(done.error().what, "no answer"));
}

TEST_F(CarryTest, NorForOneForWhomNobodyWaits) {
    auto [a, b] = sockets();
    End server(Role::kServer, there_, std::move(b));
    server.here.reset();
    EXPECT_TRUE(has(server.end(), "nobody waits"));
}

}  // namespace
}  // namespace vmm::tls
