// Requests and responses out of bytes: what is one, what is none, and what no peer can make us
// keep.
#include "control/http.h"

#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "control/json.h"

namespace control {
namespace {

constexpr std::string_view kHost = "Host: x\r\n";

std::string with_fields(const std::string& fields) {
    return "GET /v1/vm HTTP/1.1\r\n" + std::string(kHost) + fields + "\r\n";
}

// 0: it is a request; -1: nothing yet; else the status of the refusal.
int status_of(std::string_view bytes) {
    RequestReader reader;
    reader.append(bytes);
    const auto next = reader.next();
    if (!next) return next.error().status;
    return next->has_value() ? 0 : -1;
}

TEST(HttpRequest, IsReadWhole) {
    RequestReader reader;
    reader.append(
        "PUT /v1/vm/pause HTTP/1.1\r\nhOST:\tlocalhost \r\nX-A: b\r\n"
        "Content-length: 2\r\nConnection: Close\r\n\r\n{}");
    const auto next = reader.next();
    ASSERT_TRUE(next && next->has_value());
    EXPECT_EQ(**next,
              (Request{.method = "PUT", .target = "/v1/vm/pause", .body = "{}", .last = true}));
    EXPECT_FALSE(reader.in_the_middle());
}

TEST(HttpRequest, IsTheSameInAnyPieces) {
    const Request wanted{.method = "PUT", .target = "/v1/vm", .body = "{\"a\":1}"};
    const std::string wire = to_wire(wanted);
    for (std::size_t piece = 1; piece <= wire.size(); ++piece) {
        RequestReader reader;
        std::size_t at = 0;
        for (; at + piece < wire.size(); at += piece) {
            reader.append(std::string_view(wire).substr(at, piece));
            const auto next = reader.next();
            ASSERT_TRUE(next && !next->has_value()) << "pieces of " << piece;
        }
        reader.append(std::string_view(wire).substr(at));
        const auto next = reader.next();
        ASSERT_TRUE(next && next->has_value()) << "pieces of " << piece;
        EXPECT_EQ(**next, wanted);
    }
}

TEST(HttpRequest, PipelinedOnesComeOneByOne) {
    RequestReader reader;
    std::string wire;
    for (int i = 0; i < 5; ++i) {
        wire += to_wire(Request{.method = "GET",
                                .target = "/" + std::to_string(i),
                                .body = std::string(static_cast<std::size_t>(i), 'b')});
    }
    reader.append(wire);
    for (int i = 0; i < 5; ++i) {
        const auto next = reader.next();
        ASSERT_TRUE(next && next->has_value());
        EXPECT_EQ((*next)->target, "/" + std::to_string(i));
        EXPECT_EQ((*next)->body.size(), static_cast<std::size_t>(i));
    }
    const auto none = reader.next();
    EXPECT_TRUE(none && !none->has_value());
}

TEST(HttpRequest, WhatIsNoneIsRefused) {
    struct Case {
        int status;
        std::string bytes;
    };
    const std::vector<Case> cases = {
        // The first line.
        {400, "\r\n\r\n"},
        {400, "GET\r\n\r\n"},
        {400, "GET /\r\n\r\n"},
        {400, "get / HTTP/1.1\r\nHost: x\r\n\r\n"},
        {400, "G\x01T / HTTP/1.1\r\nHost: x\r\n\r\n"},
        {400, " GET / HTTP/1.1\r\nHost: x\r\n\r\n"},
        {400, "GET  / HTTP/1.1\r\nHost: x\r\n\r\n"},
        {400, "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n"},
        {400, "GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n"},
        {400, "GET * HTTP/1.1\r\nHost: x\r\n\r\n"},
        {400, "GET /\xc3\xa4 HTTP/1.1\r\nHost: x\r\n\r\n"},
        {400, std::string("GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n", 29)},
        {400, "GET / FTP/1.1\r\nHost: x\r\n\r\n"},
        {400, "ABCDEFGHIJKLMNOPQ / HTTP/1.1\r\nHost: x\r\n\r\n"},
        {505, "GET / HTTP/1.0\r\nHost: x\r\n\r\n"},
        {505, "GET / HTTP/2.0\r\nHost: x\r\n\r\n"},
        {505, "GET / HTTP/1.1 \r\nHost: x\r\n\r\n"},
        // Lines that end in less than CR LF: as soon as they show.
        {400, "GET / HTTP/1.1\n"},
        {400, "GET / HTTP/1.1\r\nHost: x\n"},
        {400, "\n"},
        {400, "GET / HTTP/1.1\r\nHost: x\n\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: x\ry\r\n\r\n"},
        // Headers.
        {400, "GET / HTTP/1.1\r\n\r\n"},
        {400, with_fields("Host: y\r\n")},
        {400, with_fields("no colon\r\n")},
        {400, with_fields(": no name\r\n")},
        {400, with_fields("Name : a blank before the colon\r\n")},
        {400, with_fields(" folded: onto the line before\r\n")},
        {400, with_fields("Na\x7fme: x\r\n")},
        {400, with_fields("Name: a\x01b\r\n")},
        {400, with_fields(std::string("Name: a\0b\r\n", 11))},
        // How long the body is.
        {400, with_fields("Content-Length: -1\r\n")},
        {400, with_fields("Content-Length: +1\r\n")},
        {400, with_fields("Content-Length: 0x1\r\n")},
        {400, with_fields("Content-Length: 1 1\r\n")},
        {400, with_fields("Content-Length: 1, 1\r\n")},
        {400, with_fields("Content-Length:\r\n")},
        {400, with_fields("Content-Length: 99999999999999999999999\r\n")},
        {400, with_fields("Content-Length: 1\r\nContent-Length: 1\r\n")},
        {413, with_fields("Content-Length: " + std::to_string(kMaxBody + 1) + "\r\n")},
        {413, with_fields("Content-Length: 18446744073709551615\r\n")},
        {501, with_fields("Transfer-Encoding: chunked\r\n")},
        {400, with_fields("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n")},
        {417, with_fields("Expect: 100-continue\r\n")},
        // Too long.
        {431, std::string(kMaxHead, 'A')},
        {431, "GET /" + std::string(kMaxHead, 'a')},
        {431, with_fields("Name: " + std::string(kMaxHead, 'a') + "\r\n")},
    };
    for (const Case& c : cases) {
        EXPECT_EQ(status_of(c.bytes), c.status) << c.bytes.substr(0, 100);
    }
}

TEST(HttpRequest, TheLimitsAreWhereTheyAre) {
    const std::string start = "GET / HTTP/1.1\r\nHost: x\r\nA: ";
    const std::string longest = start + std::string(kMaxHead - start.size() - 4, 'a') + "\r\n\r\n";
    ASSERT_EQ(longest.size(), kMaxHead);
    EXPECT_EQ(status_of(longest), 0);
    EXPECT_EQ(status_of(std::string_view(longest).substr(0, kMaxHead - 1)), -1);
    EXPECT_EQ(status_of(with_fields("Content-Length: " + std::to_string(kMaxBody) + "\r\n") +
                        std::string(kMaxBody, 'b')),
              0);
}

TEST(HttpRequest, ABodyWithoutALengthIsTheNextRequest) {
    RequestReader reader;
    reader.append("PUT /v1/vm/pause HTTP/1.1\r\nHost: x\r\n\r\n{}\r\n\r\n");
    const auto first = reader.next();
    ASSERT_TRUE(first && first->has_value());
    EXPECT_EQ((*first)->body, "");
    const auto second = reader.next();
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().status, 400);
}

// Whatever comes: a request, a refusal or nothing yet, and never more kept than one request's
// worth.
TEST(HttpRequest, AnyBytesAreTakenWithoutHarm) {
    std::mt19937 random(20261122);
    const std::string good = to_wire(Request{.method = "PUT", .target = "/v1/vm", .body = "{}"});
    unsigned requests = 0, refusals = 0;
    for (int round = 0; round < 20'000; ++round) {
        std::string bytes = good + good;
        for (unsigned changes = random() % 4; changes != 0; --changes) {
            const std::size_t at = random() % bytes.size();
            switch (random() % 3) {
                case 0: bytes[at] = static_cast<char>(random()); break;
                case 1: bytes.erase(at, random() % 8); break;
                default: bytes.insert(at, random() % 8, static_cast<char>(random()));
            }
        }
        RequestReader reader;
        reader.append(bytes);
        for (;;) {
            const auto next = reader.next();
            if (!next) {
                ++refusals;
                EXPECT_FALSE(error_of(next.error().body).empty());
                break;
            }
            if (!next->has_value()) break;
            ++requests;
        }
    }
    EXPECT_GT(requests, 1000u);
    EXPECT_GT(refusals, 1000u);
}

TEST(HttpResponse, ComesBackAsItWas) {
    const Response sent{.status = 409, .body = error_text("a \"quoted\" reason")};
    const std::string wire = to_wire(sent, true);
    EXPECT_NE(wire.find("Connection: close\r\n"), std::string::npos);
    for (std::size_t size = 0; size < wire.size(); ++size) {
        const auto part = read_response(std::string_view(wire).substr(0, size));
        ASSERT_TRUE(part && !part->has_value()) << size;
    }
    const auto got = read_response(wire);
    ASSERT_TRUE(got && got->has_value());
    EXPECT_EQ((*got)->status, 409);
    EXPECT_EQ(error_of((*got)->body), "a \"quoted\" reason");
}

TEST(HttpResponse, WhatIsNoneIsAnError) {
    for (const std::string bytes :
         {"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
          "HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n",
          "HTTP/1.1 007 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n",
          "HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n",
          "HTTP/1.1 200 OK\r\nbad\r\nContent-Length: 0\r\n\r\n", "\r\n\r\n"}) {
        EXPECT_FALSE(read_response(bytes)) << bytes;
    }
    EXPECT_FALSE(read_response(std::string(kMaxHead, 'x')));
}

TEST(Json, HoldsNamesThatAreNoUtf8) {
    const std::string text = error_text("caf\xe9 \x01 \"x\"");
    EXPECT_EQ(text.find('\n'), std::string::npos);
    EXPECT_EQ(error_of(text), "caf\xef\xbf\xbd \x01 \"x\"");
    for (const char* other : {"", "[]", "{", "{\"error\":1}", "{\"other\":\"x\"}", "null"}) {
        EXPECT_EQ(error_of(other), "") << other;
    }
}

}  // namespace
}  // namespace control
