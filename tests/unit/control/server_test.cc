// A server and its clients on one thread: nothing here waits for a time to pass.
#include "control/server.h"

#include <array>
#include <atomic>
#include <poll.h>
#include <string>
#include <thread>
#include <vector>

#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <gtest/gtest.h>

#include "control/client.h"
#include "control/json.h"

namespace control {
namespace {

using vmm::Fd;
using namespace std::chrono_literals;

// A listener without a name in the file system, and what the server was asked.
class Fixture : public ::testing::Test {
  protected:
    void SetUp() override {
        Fd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        ASSERT_TRUE(listener);
        address_.sun_family = AF_UNIX;
        // "Autobind": the kernel picks an abstract name.
        ASSERT_EQ(::bind(listener.get(), generic(), sizeof(sa_family_t)), 0);
        ASSERT_EQ(::getsockname(listener.get(), generic(), &length_), 0);
        ASSERT_EQ(::listen(listener.get(), 64), 0);
        auto made = Server::create(std::move(listener), [this](Ticket ticket, Request request) {
            if (at_once_) server_->reply(ticket, {.status = 200, .body = request.target});
            asked_.emplace_back(ticket, std::move(request));
        });
        ASSERT_TRUE(made);
        server_ = std::move(*made);
    }

    Fd connect() {
        Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        EXPECT_EQ(::connect(fd.get(), generic(), length_), 0);
        return fd;
    }
    bool ready() const {
        pollfd p{.fd = server_->fd(), .events = POLLIN, .revents = 0};
        return ::poll(&p, 1, 0) == 1;
    }
    void serve() {
        while (ready())
            server_->service();
    }
    void send(const Fd& to, std::string_view bytes) {
        while (!bytes.empty()) {
            const ssize_t sent = ::send(to.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (sent < 0) {
                ASSERT_EQ(errno, EAGAIN);
                serve();
                continue;
            }
            bytes.remove_prefix(static_cast<std::size_t>(sent));
        }
    }
    // All that is there; `closed_` says whether the other side has closed.
    std::string receive(const Fd& from) {
        std::string all;
        std::array<char, 4096> bytes;
        closed_ = false;
        for (;;) {
            const ssize_t got = ::recv(from.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
            if (got <= 0) {
                closed_ = got == 0 || errno != EAGAIN;
                return all;
            }
            all.append(bytes.data(), static_cast<std::size_t>(got));
        }
    }
    static std::string get(const std::string& target, bool last = false) {
        return to_wire(Request{.method = "GET", .target = target, .last = last});
    }
    static std::string ok(const std::string& body, bool last = false) {
        return to_wire(Response{.status = 200, .body = body}, last);
    }

    std::unique_ptr<Server> server_;
    std::vector<std::pair<Ticket, Request>> asked_;
    bool at_once_ = true;
    bool closed_ = false;

  private:
    sockaddr* generic() { return reinterpret_cast<sockaddr*>(&address_); }
    sockaddr_un address_{};
    socklen_t length_ = sizeof address_;
};
using ControlServer = Fixture;

TEST_F(ControlServer, AnswersOneRequestAfterTheOtherOnAConnection) {
    const Fd client = connect();
    for (const char* target : {"/a", "/b", "/c"}) {
        send(client, get(target));
        serve();
        EXPECT_EQ(receive(client), ok(target));
        EXPECT_FALSE(closed_);
    }
    send(client, get("/last", true));
    serve();
    EXPECT_EQ(receive(client), ok("/last", true));
    EXPECT_TRUE(closed_);
    EXPECT_EQ(asked_.size(), 4u);
}

TEST_F(ControlServer, PipelinedRequestsAreAnsweredInOrder) {
    const Fd client = connect();
    std::string sent, wanted;
    for (int i = 0; i < 100; ++i) {
        const std::string target = "/" + std::to_string(i);
        sent += get(target);
        wanted += ok(target);
    }
    send(client, sent);
    serve();
    EXPECT_EQ(receive(client), wanted);
}

TEST_F(ControlServer, AnAnswerMayComeLateAndFromAnotherThread) {
    at_once_ = false;
    const Fd slow = connect(), quick = connect();
    send(slow, get("/slow") + get("/after"));
    serve();
    ASSERT_EQ(asked_.size(), 1u);  // one at a time
    send(quick, get("/quick"));
    serve();
    ASSERT_EQ(asked_.size(), 2u);
    EXPECT_FALSE(ready());  // nothing to do while both wait
    server_->reply(asked_[1].first, {.status = 200, .body = "q"});
    serve();
    EXPECT_EQ(receive(quick), ok("q"));
    EXPECT_EQ(receive(slow), "");
    std::thread([&] { server_->reply(asked_[0].first, {.status = 200, .body = "s"}); }).join();
    serve();
    EXPECT_EQ(receive(slow), ok("s"));
    ASSERT_EQ(asked_.size(), 3u);
    EXPECT_EQ(asked_[2].second.target, "/after");
}

TEST_F(ControlServer, ABadRequestIsAnsweredAndEndsTheConnection) {
    const Fd client = connect();
    send(client, get("/good") + "nonsense\r\n\r\n" + get("/never"));
    serve();
    const std::string got = receive(client);
    EXPECT_TRUE(closed_);
    EXPECT_TRUE(got.starts_with(ok("/good"))) << got;
    const auto refused = read_response(std::string_view(got).substr(ok("/good").size()));
    ASSERT_TRUE(refused && refused->has_value());
    EXPECT_EQ((*refused)->status, 400);
    EXPECT_FALSE(error_of((*refused)->body).empty());
    EXPECT_EQ(asked_.size(), 1u);
}

TEST_F(ControlServer, HugeHeadersAreNotTaken) {
    const Fd client = connect();
    const std::string lots(1 << 20, 'A');
    // Whatever part of it the socket takes until it is closed on us.
    for (std::size_t at = 0; at < lots.size();) {
        const ssize_t sent = ::send(client.get(), lots.data() + at, lots.size() - at, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) break;
        if (sent > 0) at += static_cast<std::size_t>(sent);
        serve();
    }
    EXPECT_TRUE(receive(client).starts_with("HTTP/1.1 431 "));
    EXPECT_TRUE(closed_);
    EXPECT_TRUE(asked_.empty());
}

TEST_F(ControlServer, AClientMayLeaveAtAnyMoment) {
    at_once_ = false;
    {
        const Fd nothing = connect();
        const Fd half = connect();
        send(half, "GET /half HT");
        serve();
        const Fd whole = connect();
        send(whole, get("/whole"));
        serve();
    }
    serve();
    ASSERT_EQ(asked_.size(), 1u);
    server_->reply(asked_[0].first, {.status = 200, .body = "for nobody"});
    server_->reply(asked_[0].first, {.status = 200, .body = "twice"});
    server_->reply(12345, {.status = 200, .body = "never asked"});
    serve();
    EXPECT_FALSE(ready());  // and nothing is left that wakes us
    at_once_ = true;
    const Fd next = connect();
    send(next, get("/next"));
    serve();
    EXPECT_EQ(receive(next), ok("/next"));
}

TEST_F(ControlServer, AClientThatSaysNoMoreGetsItsAnswerAllTheSame) {
    at_once_ = false;
    const Fd client = connect();
    send(client, get("/a"));
    ASSERT_EQ(::shutdown(client.get(), SHUT_WR), 0);
    serve();
    ASSERT_EQ(asked_.size(), 1u);
    EXPECT_FALSE(ready());
    server_->reply(asked_[0].first, {.status = 200, .body = "a"});
    serve();
    EXPECT_EQ(receive(client), ok("a"));
    EXPECT_TRUE(closed_);
}

TEST_F(ControlServer, AnAnswerWaitsForAReaderThatIsSlow) {
    at_once_ = false;
    const Fd slow = connect(), other = connect();
    send(slow, get("/big"));
    serve();
    const std::string big(3 << 20, 'b');
    server_->reply(asked_[0].first, {.status = 200, .body = big});
    serve();
    EXPECT_FALSE(ready());  // the socket is full
    at_once_ = true;
    send(other, get("/other"));
    serve();
    EXPECT_EQ(receive(other), ok("/other"));
    std::string got;
    while (got.size() < ok(big).size()) {
        const std::string more = receive(slow);
        ASSERT_FALSE(closed_);
        got += more;
        serve();
    }
    EXPECT_EQ(got, ok(big));
}

TEST_F(ControlServer, TheQuietestGoesWhenThereAreTooMany) {
    std::vector<Fd> clients;
    at_once_ = false;
    clients.push_back(connect());
    send(clients[0], get("/waits"));
    serve();
    at_once_ = true;
    for (std::size_t i = 1; i < Server::kMaxConnections; ++i) {
        clients.push_back(connect());
        serve();
    }
    send(clients[1], "GET /");  // not the quietest any more
    serve();
    const Fd late = connect();
    send(late, get("/late"));
    serve();
    EXPECT_EQ(receive(late), ok("/late"));
    receive(clients[2]);
    EXPECT_TRUE(closed_);
    for (const std::size_t kept : {0, 1, 3}) {
        receive(clients[kept]);
        EXPECT_FALSE(closed_) << kept;
    }
}

TEST_F(ControlServer, NoneGoesThatIsOwedAnAnswer) {
    std::vector<Fd> clients;
    at_once_ = false;
    for (std::size_t i = 0; i < Server::kMaxConnections; ++i) {
        clients.push_back(connect());
        send(clients.back(), get("/waits"));
        serve();
    }
    const Fd late = connect();
    serve();
    receive(late);
    EXPECT_TRUE(closed_);
    for (const auto& [ticket, request] : asked_) {
        server_->reply(ticket, {.status = 200, .body = "x"});
    }
    serve();
    for (const Fd& client : clients) {
        EXPECT_EQ(receive(client), ok("x"));
    }
}

TEST_F(ControlServer, RunningOutOfDescriptorsIsNoEndlessWork) {
    const Fd client = connect();
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
    const Fd lowest(::dup(client.get()));
    const rlimit none{.rlim_cur = static_cast<rlim_t>(lowest.get()), .rlim_max = before.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
    for (int i = 0; i < 10 && ready(); ++i) {
        server_->service();
    }
    EXPECT_FALSE(ready());
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
    receive(client);
    EXPECT_TRUE(closed_);
    const Fd next = connect();
    send(next, get("/next"));
    serve();
    EXPECT_EQ(receive(next), ok("/next"));
}

TEST_F(ControlServer, FinishingGivesTheAnswersThatAreThere) {
    at_once_ = false;
    const Fd first = connect(), second = connect();
    send(first, get("/first") + get("/more"));
    send(second, get("/second"));
    serve();
    ASSERT_EQ(asked_.size(), 2u);
    for (const auto& [ticket, request] : asked_) {
        server_->reply(ticket, {.status = 503, .body = request.target});
    }
    server_->finish();
    EXPECT_EQ(asked_.size(), 2u);  // no further one is taken
    EXPECT_EQ(receive(first), to_wire(Response{.status = 503, .body = "/first"}, false));
    EXPECT_FALSE(closed_);
    server_.reset();
    receive(first);
    EXPECT_TRUE(closed_);
    EXPECT_EQ(receive(second), to_wire(Response{.status = 503, .body = "/second"}, false));
}

// The client, with a server on a thread of its own.
class ControlClient : public Fixture {
  protected:
    void SetUp() override {
        Fixture::SetUp();
        thread_ = std::thread([this] {
            while (!stop_) {
                pollfd p{.fd = server_->fd(), .events = POLLIN, .revents = 0};
                ::poll(&p, 1, 10);
                server_->service();
            }
        });
    }
    void TearDown() override { stop(); }
    void stop() {
        stop_ = true;
        if (thread_.joinable()) thread_.join();
    }

  private:
    std::atomic<bool> stop_{false};
    std::thread thread_;
};

TEST_F(ControlClient, AsksAndIsAnswered) {
    const Fd client = connect();
    for (const char* target : {"/a", "/b"}) {
        const auto response = ask(client, {.method = "GET", .target = target}, 10s);
        ASSERT_TRUE(response) << response.error().what;
        EXPECT_EQ(response->status, 200);
        EXPECT_EQ(response->body, target);
    }
    EXPECT_EQ(peer_pid(client), ::getpid());
    EXPECT_FALSE(wait_for_end(client, 0ms));
    stop();
    server_.reset();
    EXPECT_TRUE(wait_for_end(client, 10s));
    const auto late = ask(client, {.method = "GET", .target = "/c"}, 10s);
    ASSERT_FALSE(late);
    EXPECT_EQ(late.error().fault, vmm::Fault::kUser);
}

TEST_F(ControlServer, AClientDoesNotWaitForEver) {
    const Fd client = connect();
    const auto response = ask(client, {.method = "GET", .target = "/nobody-serves"}, 5ms);
    ASSERT_FALSE(response);
    EXPECT_EQ(response.error().fault, vmm::Fault::kInternal);
}

}  // namespace
}  // namespace control
