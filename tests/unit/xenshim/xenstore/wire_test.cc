#include "xenshim/domain/xenstore/wire.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "tests/fakes/xenstore_request.h"

namespace xenshim::xenstore {
namespace {

using namespace std::string_literals;

constexpr DomainId kGuest = 5;
const std::string kHome = "/local/domain/5";

struct Reply {
    MessageHeader header;
    std::string payload;
    MessageType type() const { return static_cast<MessageType>(header.type); }
};

std::span<const std::byte> as_bytes(std::string_view text) {
    return std::as_bytes(std::span(text.data(), text.size()));
}

class WireTest : public testing::Test {
  protected:
    WireTest() {
        EXPECT_TRUE(tools.write(kNoTransaction, kHome, ""));
        EXPECT_TRUE(tools.set_permissions(kNoTransaction, kHome, {{kGuest, Access::kNone}}));
        EXPECT_TRUE(tools.write(kNoTransaction, kHome + "/domid", "5"));
    }
    ~WireTest() override { EXPECT_TRUE(store.accounting_holds()); }

    // Takes whole messages out, `piece` bytes at a time.
    std::vector<Reply> take(Connection& from, std::size_t piece = 4096) {
        std::string bytes;
        std::vector<std::byte> buffer(piece);
        while (const auto count = from.pop_output(buffer)) {
            for (std::size_t i = 0; i < count; ++i)
                bytes.push_back(static_cast<char>(buffer[i]));
        }
        std::vector<Reply> replies;
        while (!bytes.empty()) {
            Reply reply;
            if (bytes.size() < sizeof(reply.header)) {
                ADD_FAILURE() << "a piece of a header";
                break;
            }
            std::memcpy(&reply.header, bytes.data(), sizeof(reply.header));
            reply.payload = bytes.substr(sizeof(reply.header), reply.header.len);
            EXPECT_EQ(reply.payload.size(), reply.header.len);
            bytes.erase(0, sizeof(reply.header) + reply.header.len);
            replies.push_back(std::move(reply));
        }
        return replies;
    }
    void send(Connection& to, std::string_view bytes) {
        EXPECT_EQ(to.feed(as_bytes(bytes)), bytes.size());
    }
    // One request, one reply; an error as its text.
    std::string ask(MessageType type, std::string_view payload, std::uint32_t tx_id = 0) {
        return ask(guest, type, payload, tx_id);
    }
    std::string ask(Connection& whom, MessageType type, std::string_view payload,
                    std::uint32_t tx_id = 0) {
        send(whom, request(type, payload, tx_id));
        const auto replies = take(whom);
        if (replies.size() != 1) return "replies: " + std::to_string(replies.size());
        const auto& reply = replies[0];
        EXPECT_EQ(reply.header.req_id, 7u);
        EXPECT_EQ(reply.header.tx_id, tx_id);
        if (reply.type() != MessageType::kError) {
            EXPECT_EQ(reply.type(), type);
        }
        return reply.payload;
    }

    Store store;
    Session tools{store, kPrivilegedDomain};
    Connection guest{store, kGuest};
};

const std::string kOk = "OK\0"s;

TEST_F(WireTest, TheFirstThingEveryGuestAsks) {
    // A value has no NUL after it; the request's path has.
    EXPECT_EQ(ask(MessageType::kRead, "domid\0"s), "5");
}

TEST_F(WireTest, EachTypeThatAGuestMayUse) {
    EXPECT_EQ(ask(MessageType::kWrite, "a/b\0va\0lue"s), kOk);
    EXPECT_EQ(ask(MessageType::kRead, "a/b\0"s), "va\0lue"s);
    EXPECT_EQ(ask(MessageType::kWrite, "a/b\0"s), kOk);  // the empty value
    EXPECT_EQ(ask(MessageType::kRead, "a/b\0"s), "");
    EXPECT_EQ(ask(MessageType::kMkdir, "a/c\0"s), kOk);
    EXPECT_EQ(ask(MessageType::kDirectory, "a\0"s), "b\0c\0"s);
    EXPECT_EQ(ask(MessageType::kDirectory, "a/c\0"s), "");
    EXPECT_EQ(ask(MessageType::kGetPerms, "a\0"s), "n5\0"s);
    EXPECT_EQ(ask(MessageType::kSetPerms, "a\0r5\0b0\0"s), kOk);
    EXPECT_EQ(ask(MessageType::kGetPerms, "a\0"s), "r5\0b0\0"s);
    EXPECT_EQ(ask(MessageType::kRm, "a\0"s), kOk);
    EXPECT_EQ(ask(MessageType::kRead, "a\0"s), "ENOENT\0"s);
    EXPECT_EQ(ask(MessageType::kGetDomainPath, "5\0"s), kHome + '\0');
    EXPECT_EQ(ask(MessageType::kGetDomainPath, "007\0"s), "/local/domain/7\0"s);
    EXPECT_EQ(ask(MessageType::kResetWatches, "\0"s), kOk);
}

TEST_F(WireTest, RequestsThatGuestsMayNotMake) {
    for (const auto type :
         {MessageType::kControl, MessageType::kIntroduce, MessageType::kRelease,
          MessageType::kIsDomainIntroduced, MessageType::kResume, MessageType::kSetTarget}) {
        EXPECT_EQ(ask(type, "5\0"s), "EACCES\0"s) << static_cast<unsigned>(type);
    }
}

TEST_F(WireTest, RequestsThatNobodyKnows) {
    for (const unsigned type : {15u, 16u, 20u, 23u, 24u, 0xffffu, 0xffffffffu}) {
        EXPECT_EQ(ask(static_cast<MessageType>(type), "x\0"s), "ENOSYS\0"s) << type;
        EXPECT_EQ(ask(static_cast<MessageType>(type), ""), "ENOSYS\0"s) << type;
    }
}

TEST_F(WireTest, Domain0HearsOfDomainsButCannotMakeThem) {
    Connection host(store, kPrivilegedDomain);
    EXPECT_EQ(ask(host, MessageType::kIsDomainIntroduced, "5\0"s), "F\0"s);
    store.introduce_domain(kGuest);
    EXPECT_EQ(ask(host, MessageType::kIsDomainIntroduced, "5\0"s), "T\0"s);
    EXPECT_EQ(ask(host, MessageType::kIsDomainIntroduced, "0\0"s), "T\0"s);
    EXPECT_EQ(ask(host, MessageType::kIsDomainIntroduced, "x\0"s), "EINVAL\0"s);
    EXPECT_EQ(ask(host, MessageType::kIntroduce, "6\0001\0002\0"s), "ENOSYS\0"s);
    EXPECT_EQ(ask(host, MessageType::kControl, "print\0x\0"s), "ENOSYS\0"s);
    EXPECT_EQ(ask(host, MessageType::kRead, kHome + "/domid\0"s), "5");
}

TEST_F(WireTest, MalformedPayloadsAreInvalid) {
    for (const auto type :
         {MessageType::kDirectory, MessageType::kRead, MessageType::kGetPerms, MessageType::kMkdir,
          MessageType::kRm, MessageType::kGetDomainPath, MessageType::kTransactionEnd}) {
        for (const auto& payload : {""s, "a"s, "a\0b"s, "a\0b\0"s, "a\0\0"s, "\0"s}) {
            EXPECT_EQ(ask(type, payload), "EINVAL\0"s) << static_cast<unsigned>(type);
        }
    }
    EXPECT_EQ(ask(MessageType::kWrite, "a"), "EINVAL\0"s);
    EXPECT_EQ(ask(MessageType::kWrite, ""), "EINVAL\0"s);
    EXPECT_EQ(ask(MessageType::kWrite, "\0x"s), "EINVAL\0"s);
    EXPECT_EQ(ask(MessageType::kSetPerms, "domid\0"s), "EINVAL\0"s);
    EXPECT_EQ(ask(MessageType::kSetPerms, "domid\0q5\0"s), "EINVAL\0"s);
    EXPECT_EQ(ask(MessageType::kSetPerms, "domid\0r5\0r5\0r5\0r5\0r5\0r5\0"s), "ENOSPC\0"s);
    EXPECT_EQ(ask(MessageType::kSetPerms, "@releaseDomain\0r5\0"s), "EACCES\0"s);
    EXPECT_EQ(ask(MessageType::kWatch, "a\0"s), "EINVAL\0"s);
    EXPECT_EQ(ask(MessageType::kWatch, "a\0t\0more\0"s), "EINVAL\0"s);
    EXPECT_EQ(ask(MessageType::kUnwatch, "a\0"s), "EINVAL\0"s);
    EXPECT_EQ(ask(MessageType::kUnwatch, "a\0t\0"s), "ENOENT\0"s);
    EXPECT_EQ(ask(MessageType::kDirectoryPart, "a\0"s), "EINVAL\0"s);
    EXPECT_EQ(ask(MessageType::kDirectoryPart, "domid\0-1\0"s), "EINVAL\0"s);
    EXPECT_EQ(ask(MessageType::kGetDomainPath, "65536\0"s), "EINVAL\0"s);
}

TEST_F(WireTest, Transactions) {
    EXPECT_EQ(ask(MessageType::kTransactionStart, "\0"s), "1\0"s);
    EXPECT_EQ(ask(MessageType::kTransactionStart, "\0"s, 1), "EBUSY\0"s);
    EXPECT_EQ(ask(MessageType::kWrite, "a\0x"s, 1), kOk);
    EXPECT_EQ(ask(MessageType::kRead, "a\0"s), "ENOENT\0"s);
    EXPECT_EQ(ask(MessageType::kRead, "a\0"s, 1), "x");
    EXPECT_EQ(ask(MessageType::kTransactionEnd, "X\0"s, 1), "EINVAL\0"s);
    EXPECT_EQ(ask(MessageType::kTransactionEnd, "T\0"s, 1), kOk);
    EXPECT_EQ(ask(MessageType::kRead, "a\0"s), "x");
    EXPECT_EQ(ask(MessageType::kTransactionEnd, "T\0"s, 1), "ENOENT\0"s);
    EXPECT_EQ(ask(MessageType::kTransactionEnd, "F\0"s), "ENOENT\0"s);
    EXPECT_EQ(ask(MessageType::kRead, "a\0"s, 99), "ENOENT\0"s);
    EXPECT_EQ(ask(MessageType::kResetWatches, "\0"s, 99), "ENOENT\0"s);

    EXPECT_EQ(ask(MessageType::kTransactionStart, "\0"s), "2\0"s);
    EXPECT_EQ(ask(MessageType::kRead, "a\0"s, 2), "x");
    EXPECT_EQ(ask(MessageType::kWrite, "a\0y"s), kOk);
    EXPECT_EQ(ask(MessageType::kTransactionEnd, "T\0"s, 2), "EAGAIN\0"s);
    EXPECT_EQ(store.transaction_count(kGuest), 0u);
}

TEST_F(WireTest, TheFirstWatchEventFollowsItsReplyAndLaterOnesPrecedeTheirs) {
    send(guest, request(MessageType::kWatch, "a\0tok\0"s, 12345));  // its transaction is ignored
    auto replies = take(guest);
    ASSERT_EQ(replies.size(), 2u);
    EXPECT_EQ(replies[0].type(), MessageType::kWatch);
    EXPECT_EQ(replies[0].payload, kOk);
    EXPECT_EQ(replies[0].header.tx_id, 12345u);
    EXPECT_EQ(replies[1].type(), MessageType::kWatchEvent);
    EXPECT_EQ(replies[1].payload, "a\0tok\0"s);
    EXPECT_EQ(replies[1].header.req_id, 0u);
    EXPECT_EQ(replies[1].header.tx_id, 0u);

    send(guest, request(MessageType::kWrite, "a/b\0x"s));
    replies = take(guest);
    ASSERT_EQ(replies.size(), 2u);
    EXPECT_EQ(replies[0].payload, "a/b\0tok\0"s);
    EXPECT_EQ(replies[1].payload, kOk);
}

TEST_F(WireTest, AnyPieceSizeWillDo) {
    const std::string conversation =
        request(MessageType::kRead, "domid\0"s, 0, 1) +
        request(MessageType::kTransactionStart, ""s, 0, 2) +  // a message that is a header only
        request(MessageType::kWatch, "a\0t\0"s, 0, 3) +
        request(MessageType::kWrite, "a\0"s + std::string(1000, 'v'), 0, 4) +
        request(MessageType::kRead, "a\0"s, 0, 5);
    std::string all_at_once;
    for (const std::size_t piece :
         {std::size_t{4096}, std::size_t{1}, std::size_t{3}, std::size_t{16}, std::size_t{17}}) {
        Connection client(store, kGuest);
        ASSERT_TRUE(tools.remove(kNoTransaction, kHome + "/a"));
        std::string output;
        std::vector<std::byte> buffer(piece);
        for (std::size_t at = 0; at < conversation.size();) {
            const auto taken = client.feed(as_bytes(conversation)
                                               .subspan(at)
                                               .first(std::min(piece, conversation.size() - at)));
            ASSERT_NE(taken, 0u);
            at += taken;
        }
        while (const auto count = client.pop_output(buffer)) {
            for (std::size_t i = 0; i < count; ++i)
                output.push_back(static_cast<char>(buffer[i]));
        }
        EXPECT_EQ(client.queued_bytes(), 0u);
        if (all_at_once.empty()) all_at_once = output;
        EXPECT_EQ(output, all_at_once) << piece;
        EXPECT_FALSE(client.has_output());
    }
    // Five replies and one event: the event of the write equals the one that waits already.
    EXPECT_EQ(all_at_once.size(), 16 * 6 + 1 + 2 + 3 + 4 + 3 + 1000u);
}

TEST_F(WireTest, ThePayloadLimitIsTheLimit) {
    const std::string value(kPayloadMax - 2, 'v');
    EXPECT_EQ(ask(MessageType::kWrite, "a\0"s + value), "ENOSPC\0"s);  // fits the wire, not a node
    Connection host(store, kPrivilegedDomain);
    EXPECT_EQ(ask(host, MessageType::kWrite, "/\0"s + value), kOk);
    EXPECT_EQ(ask(host, MessageType::kRead, "/\0"s), value);
    EXPECT_FALSE(guest.broken());

    send(guest, request(MessageType::kWatch, "a\0t\0"s));
    const auto too_long = request(MessageType::kRead, std::string(kPayloadMax + 1, 'x'));
    EXPECT_EQ(guest.feed(as_bytes(too_long)), sizeof(MessageHeader));
    EXPECT_TRUE(guest.broken());
    EXPECT_FALSE(guest.wants_input());
    EXPECT_FALSE(guest.has_output());
    EXPECT_EQ(guest.queued_bytes(), 0u);
    EXPECT_EQ(store.watch_count(kGuest), 0u);
    EXPECT_EQ(guest.feed(as_bytes(request(MessageType::kRead, "domid\0"s))), 0u);
    EXPECT_TRUE(tools.write(kNoTransaction, kHome + "/a", ""));
    EXPECT_FALSE(guest.has_output());
}

TEST_F(WireTest, RepliesThatAreTooLongSayWhyAndCanBeHadInParts) {
    std::string expected;
    for (int i = 0; i < 300; ++i) {
        const auto name = "child-with-a-long-name-" + std::to_string(1000 + i);
        ASSERT_TRUE(tools.write(kNoTransaction, kHome + "/dir/" + name, ""));
        expected += name + '\0';
    }
    EXPECT_EQ(ask(MessageType::kDirectory, "dir\0"s), "E2BIG\0"s);
    std::string list;
    std::string generation;
    for (int parts = 0; parts < 10; ++parts) {
        const auto part =
            ask(MessageType::kDirectoryPart, "dir\0"s + std::to_string(list.size()) + '\0');
        ASSERT_LE(part.size(), kPayloadMax);
        const auto nul = part.find('\0');
        if (parts == 0) generation = part.substr(0, nul);
        EXPECT_EQ(part.substr(0, nul), generation);
        list += part.substr(nul + 1);
        if (list.ends_with("\0\0"s)) break;
    }
    EXPECT_EQ(list, expected + '\0');
    EXPECT_EQ(ask(MessageType::kDirectoryPart, "dir\000999999\0"s), generation + "\0\0"s);
    EXPECT_EQ(ask(MessageType::kDirectoryPart, "domid\0000\0"s).substr(1).find('\0'),
              ask(MessageType::kDirectoryPart, "domid\0000\0"s).size() - 3);
    EXPECT_EQ(ask(MessageType::kDirectoryPart, "none\0000\0"s), "ENOENT\0"s);
}

TEST_F(WireTest, AClientThatDoesNotReadIsNotReadFrom) {
    const auto message = request(MessageType::kRead, "domid\0"s);
    for (std::size_t i = 0; i < Connection::kRepliesWaiting; ++i)
        send(guest, message);
    EXPECT_FALSE(guest.wants_input());
    EXPECT_EQ(guest.feed(as_bytes(message)), 0u);
    std::array<std::byte, 17> one_reply;
    EXPECT_EQ(guest.pop_output(std::span(one_reply).first(16)), 16u);
    EXPECT_FALSE(guest.wants_input());  // not all of it yet
    EXPECT_EQ(guest.pop_output(std::span(one_reply).first(1)), 1u);
    EXPECT_TRUE(guest.wants_input());
    EXPECT_EQ(guest.feed(as_bytes(message)), message.size());
    EXPECT_EQ(take(guest).size(), Connection::kRepliesWaiting);
}

TEST_F(WireTest, EqualEventsThatWaitAreOne) {
    send(guest, request(MessageType::kWatch, "a\0t\0"s));
    take(guest);
    for (int i = 0; i < 10; ++i) {
        ASSERT_TRUE(tools.write(kNoTransaction, kHome + "/a", std::to_string(i)));
        ASSERT_TRUE(tools.write(kNoTransaction, kHome + "/a/b", std::to_string(i)));
    }
    const auto events = take(guest);
    ASSERT_EQ(events.size(), 2u);
    EXPECT_EQ(events[0].payload, "a\0t\0"s);
    EXPECT_EQ(events[1].payload, "a/b\0t\0"s);
    ASSERT_TRUE(tools.write(kNoTransaction, kHome + "/a", "again"));
    EXPECT_EQ(take(guest).size(), 1u);
}

TEST_F(WireTest, EventsOfAClientThatDoesNotReadStayBoundedAndNoneIsLost) {
    send(guest, request(MessageType::kWatch, "a\0one\0"s));
    send(guest, request(MessageType::kWatch, "a\0two\0"s));
    take(guest);
    for (int i = 0; i < 1000; ++i) {
        const auto leaf = std::to_string(i);
        ASSERT_TRUE(tools.write(kNoTransaction, kHome + "/a/" + std::string(60, 'x') + leaf, ""));
    }
    EXPECT_LE(guest.queued_bytes(), Connection::kEventBytes + 2 * 64);
    const auto events = take(guest);
    // Beyond the limit there is one for each watch that says: something under your path.
    EXPECT_EQ(std::count_if(events.begin(), events.end(),
                            [](const Reply& each) { return each.payload == "a\0one\0"s; }),
              1);
    EXPECT_EQ(std::count_if(events.begin(), events.end(),
                            [](const Reply& each) { return each.payload == "a\0two\0"s; }),
              1);
    EXPECT_EQ(guest.queued_bytes(), 0u);
}

TEST_F(WireTest, AnEventThatWouldBeTooLongNamesTheWatchedPath) {
    const std::string token(4000, 't');
    send(guest, request(MessageType::kWatch, "a\0"s + token + '\0'));
    take(guest);
    ASSERT_TRUE(tools.write(kNoTransaction, kHome + "/a/" + std::string(200, 'x'), ""));
    const auto events = take(guest);
    ASSERT_EQ(events.size(), 1u);
    EXPECT_EQ(events[0].payload, "a\0"s + token + '\0');
}

TEST_F(WireTest, UnwatchTakesBackWhatWaitsButNotWhatIsHalfSent) {
    send(guest, request(MessageType::kWatch, "a\0t\0"s));
    take(guest);
    ASSERT_TRUE(tools.write(kNoTransaction, kHome + "/a", ""));
    ASSERT_TRUE(tools.write(kNoTransaction, kHome + "/a/b", ""));
    std::array<std::byte, 5> piece;
    ASSERT_EQ(guest.pop_output(piece), 5u);
    send(guest, request(MessageType::kUnwatch, "a\0t\0"s));
    std::array<std::byte, 256> rest;
    // The rest of the first event (16 + 4 bytes), then the reply; no second event.
    EXPECT_EQ(guest.pop_output(rest), 20 - 5 + 16 + 3u);
    EXPECT_EQ(guest.queued_bytes(), 0u);

    send(guest, request(MessageType::kWatch, "a\0t\0"s));
    send(guest, request(MessageType::kResetWatches, "\0"s));
    const auto replies = take(guest);
    ASSERT_EQ(replies.size(), 2u);
    EXPECT_EQ(replies[1].type(), MessageType::kResetWatches);
    EXPECT_EQ(store.watch_count(kGuest), 0u);
}

TEST_F(WireTest, TheOwnerIsToldOfEvents) {
    int told = 0;
    Connection client(store, kGuest, [&] { ++told; });
    send(client, request(MessageType::kWatch, "a\0t\0"s));
    EXPECT_EQ(told, 1);
    ASSERT_TRUE(tools.write(kNoTransaction, kHome + "/a", ""));  // equal to the one that waits
    EXPECT_EQ(told, 1);
    take(client);
    ASSERT_TRUE(tools.write(kNoTransaction, kHome + "/a", ""));
    EXPECT_EQ(told, 2);
}

class WireGarbage : public WireTest, public testing::WithParamInterface<unsigned> {};

// Whatever comes: no crash, one answer per request, bounded output, true accounting.
TEST_P(WireGarbage, NeverCrashes) {
    std::mt19937 random(GetParam());
    const auto pick = [&](std::size_t bound) { return random() % bound; };
    static const std::string kAlphabet = "/ab@0TFrn5\0\0\0-_ \xff"s;
    for (int round = 0; round < 20; ++round) {
        Connection client(store, kGuest);
        std::size_t sent = 0;
        std::size_t answered = 0;
        for (int i = 0; i < 200; ++i) {
            std::string payload;
            for (auto length = pick(pick(8) == 0 ? 300 : 14); length > 0; --length) {
                payload += kAlphabet[pick(kAlphabet.size())];
            }
            if (pick(2) == 0) payload += '\0';
            auto bytes = request(static_cast<MessageType>(pick(26)), payload,
                                 static_cast<std::uint32_t>(pick(3) == 0 ? pick(12) : 0));
            if (pick(400) == 0) bytes[13] = static_cast<char>(pick(256));  // another length
            if (bytes[13] != static_cast<char>(payload.size() >> 8)) {
                client.feed(as_bytes(bytes));
                take(client);
                break;  // out of step from here on
            }
            send(client, bytes);
            ++sent;
            for (const auto& reply : take(client, 1 + pick(100))) {
                if (reply.type() != MessageType::kWatchEvent) ++answered;
            }
            ASSERT_EQ(sent, answered);
        }
        ASSERT_TRUE(store.accounting_holds());
    }
}

TEST_P(WireGarbage, NoiseNeverCrashes) {
    std::mt19937 random(GetParam());
    for (int round = 0; round < 50; ++round) {
        Connection client(store, kGuest);
        for (int i = 0; i < 50; ++i) {
            std::string noise(random() % 64, '\0');
            // Mostly zeroes, so that lengths are often possible.
            for (auto& each : noise) {
                if (random() % 4 == 0) each = static_cast<char>(random() % 32);
            }
            client.feed(as_bytes(noise));
            std::array<std::byte, 40> out;
            client.pop_output(out);
            ASSERT_LE(client.queued_bytes(), 200'000u);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Seeds, WireGarbage, testing::Range(1u, 5u));

}  // namespace
}  // namespace xenshim::xenstore
