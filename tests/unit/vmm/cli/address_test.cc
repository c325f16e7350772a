#include "vmm/cli/config/address.h"

#include <string>

#include <gtest/gtest.h>

#include "vmm/cli/config/options.h"

namespace vmm::config {
namespace {

using Kind = Address::Kind;

struct Good {
    const char* text;
    Kind kind;
    const char* host;
    std::uint16_t port;
};

TEST(Address, OfADestination) {
    for (const Good& good : {
             Good{"tls://other", Kind::kTls, "other", kTlsPort},
             Good{"tls://other:7000", Kind::kTls, "other", 7000},
             Good{"tls://other.example:65535", Kind::kTls, "other.example", 65535},
             Good{"tls://192.0.2.7", Kind::kTls, "192.0.2.7", kTlsPort},
             Good{"tls://[2001:db8::7]:7000", Kind::kTls, "2001:db8::7", 7000},
             Good{"tls://[fe80::1%eth0]", Kind::kTls, "fe80::1%eth0", kTlsPort},
             Good{"ssh://other", Kind::kSsh, "other", 0},
             Good{"ssh://root@other:2222", Kind::kSsh, "root@other", 2222},
             Good{"tcp://127.0.0.1:7000", Kind::kTcp, "127.0.0.1", 7000},
             Good{"tcp://[::1]:7000", Kind::kTcp, "::1", 7000},
             Good{"tcp://localhost:7000", Kind::kTcp, "127.0.0.1", 7000},
             Good{"unix:/run/there", Kind::kUnix, "", 0},
             Good{"fd:7", Kind::kFd, "", 0},
         }) {
        const auto address = parse_destination(good.text);
        ASSERT_TRUE(address) << address.error().what;
        EXPECT_EQ(address->kind, good.kind) << good.text;
        EXPECT_EQ(address->host, good.host) << good.text;
        EXPECT_EQ(address->port, good.port) << good.text;
        EXPECT_EQ(address->text, good.text);
    }
}

TEST(Address, OfAnOrigin) {
    for (const Good& good : {
             Good{"tls://0.0.0.0", Kind::kTls, "0.0.0.0", kTlsPort},
             Good{"tls://192.0.2.7:7000", Kind::kTls, "192.0.2.7", 7000},
             Good{"tls://[::]", Kind::kTls, "::", kTlsPort},
             Good{"tls://localhost:7000", Kind::kTls, "127.0.0.1", 7000},
             Good{"-", Kind::kStandard, "", 0},
         }) {
        const auto address = parse_origin(good.text);
        ASSERT_TRUE(address) << address.error().what;
        EXPECT_EQ(address->kind, good.kind) << good.text;
        EXPECT_EQ(address->host, good.host) << good.text;
        EXPECT_EQ(address->port, good.port) << good.text;
    }
}

void refused(const Result<Address>& address, const std::string& text) {
    ASSERT_FALSE(address) << text;
    EXPECT_EQ(address.error().fault, Fault::kUser);
    EXPECT_NE(address.error().what.find(text), std::string::npos) << address.error().what;
}

TEST(Address, WhatIsNone) {
    for (const char* const text :
         {"tls://", "tls://:7000", "tls://other:", "tls://other:0", "tls://other:65536",
          "tls://other:x", "tls://[::1", "tls://[::1]7000", "tls://-other", "tls://o ther",
          "tls://other/path", "tls://root@other", "tls://other\n", "carrier:pigeon", "",
          "tcp://127.0.0.1", "fd:x", "unix:", "ssh://-other"}) {
        refused(parse_destination(text), "'");
        refused(parse_origin(text), "'");
    }
    refused(parse_destination("tls://" + std::string(254, 'h')), "tls://HOST");
    refused(parse_destination("-"), "receive");
    refused(parse_origin("ssh://other"), "migrate");
    // A listener has no use for a name that others resolve.
    refused(parse_origin("tls://other"), "0.0.0.0");
    refused(parse_origin("tls://[fe80::1%eth0]"), "[::]");
}

TEST(Address, PlainTcpStaysOnThisHost) {
    for (const char* const text :
         {"tcp://192.0.2.7:7000", "tcp://0.0.0.0:7000", "tcp://[::]:7000", "tcp://other:7000"}) {
        refused(parse_destination(text), "use tls://");
        refused(parse_origin(text), "use tls://");
    }
}

TEST(TlsOptions, WhoWeAreAndWhomWeTrust) {
    const auto plain = parse_migrate({"web", "tls://other"});
    ASSERT_TRUE(plain) << plain.error().what;
    EXPECT_EQ(plain->tls.folder, "/etc/xenolith/tls");
    EXPECT_TRUE(plain->tls.peers.empty());
    const auto sent =
        parse_migrate({"--tls-dir", "/a", "web", "tls://192.0.2.7", "--tls-peer", "other"});
    ASSERT_TRUE(sent) << sent.error().what;
    EXPECT_EQ(sent->tls.folder, "/a");
    EXPECT_EQ(sent->tls.peers, std::vector<std::string>{"other"});
    const auto received =
        parse_receive({"tls://0.0.0.0", "--tls-peer", "one", "--tls-peer=two", "--tls-dir", "/b"});
    ASSERT_TRUE(received) << received.error().what;
    EXPECT_EQ(received->tls.folder, "/b");
    EXPECT_EQ(received->tls.peers, (std::vector<std::string>{"one", "two"}));
}

TEST(Migrate, AResumedOneHasNoGuestToAsk) {
    const auto plain = parse_migrate({"web", "unix:/there"});
    ASSERT_TRUE(plain) << plain.error().what;
    EXPECT_FALSE(plain->resume);
    const auto resumed = parse_migrate({"--resume", "web", "ssh://there", "--ssh", "mine"});
    ASSERT_TRUE(resumed) << resumed.error().what;
    EXPECT_TRUE(resumed->resume);
    EXPECT_EQ(resumed->ssh, "mine");
    const auto asked = parse_migrate({"--resume", "--cooperative", "web", "unix:/there"});
    ASSERT_FALSE(asked);
    EXPECT_NE(asked.error().what.find("--resume"), std::string::npos);
}

// Elsewhere they would seem to keep somebody out.
TEST(TlsOptions, BelongToTls) {
    for (const char* const option : {"--tls-dir", "--tls-peer"}) {
        for (const char* const to : {"unix:/run/there", "tcp://127.0.0.1:7000", "ssh://other"}) {
            const auto request = parse_migrate({"web", to, option, "x"});
            ASSERT_FALSE(request) << to;
            EXPECT_EQ(request.error().fault, Fault::kUser);
            EXPECT_TRUE(
                request.error().what.starts_with(std::string(option) + " belongs to tls://"))
                << request.error().what;
        }
        EXPECT_FALSE(parse_receive({"unix:/run/there", option, "x"}));
        EXPECT_FALSE(parse_receive({"tls://0.0.0.0", option, ""}));
    }
}

}  // namespace
}  // namespace vmm::config
