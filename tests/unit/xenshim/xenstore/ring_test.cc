#include "xenshim/domain/xenstore/ring.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <random>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#if __has_include(<xen/io/xs_wire.h>)
extern "C" {
#include <xen/io/xs_wire.h>
}
#endif

namespace xenshim::xenstore {
namespace {

using namespace std::string_literals;

constexpr DomainId kGuest = 5;

// The page as a guest sees it. Kept apart from ring.cc's own offsets on purpose.
struct alignas(4096) Page {
    std::array<char, 1024> req;
    std::array<char, 1024> rsp;
    std::uint32_t req_cons, req_prod, rsp_cons, rsp_prod;
    std::uint32_t server_features, connection, error;
};

#ifdef XENSTORE_RING_SIZE
static_assert(XENSTORE_RING_SIZE == kRingSize && XENSTORE_PAYLOAD_MAX == kPayloadMax);
static_assert(XENSTORE_ABS_PATH_MAX == kAbsolutePathMax &&
              XENSTORE_REL_PATH_MAX == kRelativePathMax);
static_assert(offsetof(Page, rsp) == offsetof(xenstore_domain_interface, rsp));
static_assert(offsetof(Page, req_cons) == offsetof(xenstore_domain_interface, req_cons));
static_assert(offsetof(Page, req_prod) == offsetof(xenstore_domain_interface, req_prod));
static_assert(offsetof(Page, rsp_cons) == offsetof(xenstore_domain_interface, rsp_cons));
static_assert(offsetof(Page, rsp_prod) == offsetof(xenstore_domain_interface, rsp_prod));
static_assert(offsetof(Page, error) == offsetof(xenstore_domain_interface, error));
static_assert(XENSTORE_SERVER_FEATURE_ERROR == 2 && XENSTORE_ERROR_RINGIDX == 2 &&
              XENSTORE_ERROR_PROTO == 3);
static_assert(sizeof(xsd_sockmsg) == sizeof(MessageHeader));
static_assert(static_cast<unsigned>(XS_RESET_WATCHES) ==
                  static_cast<unsigned>(MessageType::kResetWatches) &&
              static_cast<unsigned>(XS_DIRECTORY_PART) ==
                  static_cast<unsigned>(MessageType::kDirectoryPart) &&
              static_cast<unsigned>(XS_ERROR) == static_cast<unsigned>(MessageType::kError) &&
              static_cast<unsigned>(XS_SET_TARGET) ==
                  static_cast<unsigned>(MessageType::kSetTarget));
#endif

std::string request(std::uint32_t type, std::string_view payload) {
    const std::array<std::uint32_t, 4> header = {type, 1, 0,
                                                 static_cast<std::uint32_t>(payload.size())};
    std::string bytes(16, '\0');
    std::memcpy(bytes.data(), header.data(), 16);
    return bytes + std::string(payload);
}

class RingTest : public testing::Test {
  protected:
    RingTest() {
        std::memset(&page, 0xaa, sizeof(page));
        Ring::initialise_page(bytes());
        Session tools(store, kPrivilegedDomain);
        EXPECT_TRUE(tools.write(kNoTransaction, "/local/domain/5/domid", "5"));
        EXPECT_TRUE(
            tools.set_permissions(kNoTransaction, "/local/domain/5", {{kGuest, Access::kNone}}));
        EXPECT_TRUE(tools.set_permissions(kNoTransaction, "/local/domain/5/domid",
                                          {{kGuest, Access::kNone}}));
    }
    std::byte* bytes() { return reinterpret_cast<std::byte*>(&page); }

    // Puts as much of `text` into the request ring as there is room for.
    std::size_t produce(std::string_view text) {
        std::size_t done = 0;
        while (done < text.size() && page.req_prod - page.req_cons < kRingSize) {
            page.req[page.req_prod++ % kRingSize] = text[done++];
        }
        return done;
    }
    std::string consume(std::size_t most = kRingSize) {
        std::string text;
        while (text.size() < most && page.rsp_cons != page.rsp_prod) {
            text += page.rsp[page.rsp_cons++ % kRingSize];
        }
        return text;
    }

    Page page;
    Store store;
    Connection connection{store, kGuest};
    Ring ring{bytes(), connection};
};

TEST_F(RingTest, ANewPageOffersTheErrorFieldAndNoReconnection) {
    EXPECT_EQ(page.server_features, 2u);
    EXPECT_EQ(page.connection, 0u);
    EXPECT_EQ(page.error, 0u);
    EXPECT_EQ(page.req_prod | page.req_cons | page.rsp_prod | page.rsp_cons, 0u);
    EXPECT_FALSE(ring.service());
}

TEST_F(RingTest, AnswersAndNotifies) {
    const auto message = request(2, "domid\0"s);
    produce(message);
    EXPECT_TRUE(ring.service());
    EXPECT_EQ(page.req_cons, message.size());
    const auto reply = consume();
    ASSERT_EQ(reply.size(), 17u);
    EXPECT_EQ(reply[16], '5');
    EXPECT_FALSE(ring.service());
}

TEST_F(RingTest, TakesAByteAtATime) {
    const auto message = request(2, "domid\0"s);
    for (std::size_t i = 0; i < message.size(); ++i) {
        EXPECT_EQ(page.rsp_prod, 0u);
        produce(message.substr(i, 1));
        EXPECT_TRUE(ring.service());  // there is room again
    }
    EXPECT_EQ(consume().size(), 17u);
}

TEST_F(RingTest, WrapsAtTheEndOfTheRingAndOfTheIndices) {
    page.req_cons = page.req_prod = page.rsp_cons = page.rsp_prod = 0xffffffffu - 5;
    for (int i = 0; i < 200; ++i) {
        produce(request(2, "domid\0"s));
        EXPECT_TRUE(ring.service());
        const auto reply = consume();
        ASSERT_EQ(reply.size(), 17u);
        EXPECT_EQ(reply[16], '5');
    }
    EXPECT_FALSE(ring.broken());
    EXPECT_LT(page.req_cons, 10000u);
}

TEST_F(RingTest, MessagesLargerThanTheRingGoThroughInPieces) {
    const std::string value(2000, 'v');
    std::string message = request(11, "big\0"s + value) + request(2, "big\0"s);
    std::string output;
    while (!message.empty()) {
        message.erase(0, produce(message));
        (void)ring.service();
        output += consume();
    }
    while (ring.service())
        output += consume();
    EXPECT_EQ(output.size(), 16 + 3 + 16 + 2000u);
    EXPECT_TRUE(output.ends_with(value));
}

TEST_F(RingTest, AFullResponseRingHoldsRequestsBack) {
    // Replies of 17 bytes: 60 fill the ring, 20 more wait behind, then nothing is taken.
    const auto message = request(2, "domid\0"s);
    std::size_t taken = 0;
    for (int i = 0; i < 200; ++i) {
        if (produce(message) < message.size()) break;
        (void)ring.service();
        taken = page.req_cons / message.size();
    }
    EXPECT_EQ(page.rsp_prod - page.rsp_cons, kRingSize);
    EXPECT_LE(taken, 81u);
    EXPECT_LE(connection.queued_bytes(), 20u * 17);
    EXPECT_FALSE(ring.service());
    std::size_t got = consume().size();
    while (ring.service())
        got += consume().size();
    // All that were written whole are answered; a last one may have been cut short above.
    EXPECT_EQ(got, page.req_prod / message.size() * 17);
}

TEST_F(RingTest, AnEventComesWithoutARequest) {
    produce(request(4, "domid\0t\0"s));
    (void)ring.service();
    EXPECT_EQ(consume().size(), 16 + 3 + 16 + 8u);
    Session tools(store, kPrivilegedDomain);
    ASSERT_TRUE(tools.write(kNoTransaction, "/local/domain/5/domid", "5"));
    EXPECT_TRUE(ring.service());
    EXPECT_EQ(consume().substr(16), "domid\0t\0"s);
}

TEST_F(RingTest, AWildRequestIndexBreaksOnlyTheConnection) {
    for (const std::uint32_t prod : {1025u, 0x80000000u, 0xffffffffu}) {
        Page hostile{};
        Connection client(store, kGuest);
        Ring victim(reinterpret_cast<std::byte*>(&hostile), client);
        hostile.req_prod = prod;
        EXPECT_TRUE(victim.service());
        EXPECT_TRUE(victim.broken());
        EXPECT_EQ(hostile.error, 2u);
        hostile.req_prod = 0;
        EXPECT_FALSE(victim.service());
    }
}

TEST_F(RingTest, AWildResponseIndexBreaksOnlyTheConnection) {
    produce(request(2, "domid\0"s));
    page.rsp_cons = 1;  // ahead of what was produced
    EXPECT_TRUE(ring.service());
    EXPECT_TRUE(ring.broken());
    EXPECT_EQ(page.error, 2u);
    EXPECT_EQ(page.rsp_prod, 0u);
    EXPECT_FALSE(connection.has_output());
}

TEST_F(RingTest, ABrokenProtocolIsSaid) {
    std::string message = request(2, "");
    const std::uint32_t length = 4097;
    std::memcpy(message.data() + 12, &length, 4);
    produce(message);
    EXPECT_TRUE(ring.service());
    EXPECT_TRUE(ring.broken());
    EXPECT_EQ(page.error, 3u);
    EXPECT_FALSE(ring.unfinished());
}

TEST_F(RingTest, OneCallDoesABoundedAmount) {
    // A guest that takes replies and moves its producer index whenever it looks, played by the
    // store's own callbacks: each write makes the guest write again.
    const auto message = request(11, "a\0x"s);
    Session other(store, kPrivilegedDomain, [&](const WatchEvent&) {
        consume();
        produce(message);
    });
    ASSERT_TRUE(other.watch("/local/domain/5/a", "t"));
    // The callback runs while a chunk is being taken, so each turn finds a new one.
    EXPECT_TRUE(ring.service());
    EXPECT_TRUE(ring.unfinished());
    EXPECT_LE(page.req_cons, 20u * kRingSize);
    EXPECT_FALSE(ring.broken());
}

TEST_F(RingTest, ACallbackThatServicesTheRingAgainDoesNoHarm) {
    int calls = 0;
    Session other(store, kPrivilegedDomain, [&](const WatchEvent&) {
        if (++calls == 2) {
            EXPECT_FALSE(ring.service());
        }
    });
    ASSERT_TRUE(other.watch("/local/domain/5/a", "t"));
    produce(request(11, "a\0x"s) + request(2, "a\0"s));
    EXPECT_TRUE(ring.service());
    EXPECT_TRUE(consume().ends_with("x"));
    EXPECT_EQ(calls, 2);
    EXPECT_FALSE(ring.broken());
}

class RingNoise : public RingTest, public testing::WithParamInterface<unsigned> {};

// The guest scribbles over its page between calls. Nothing outside the page may change, and
// nothing may crash; ASan and UBSan watch.
TEST_P(RingNoise, HostilePagesNeverCrash) {
    std::mt19937 random(GetParam());
    for (int round = 0; round < 60; ++round) {
        Ring::initialise_page(bytes());
        Connection client(store, kGuest);
        Ring victim(bytes(), client);
        for (int i = 0; i < 40 && !victim.broken(); ++i) {
            for (auto& each : page.req) {
                each = static_cast<char>(random() % 3 == 0 ? random() % 32 : 0);
            }
            page.req_prod = page.req_cons + static_cast<std::uint32_t>(random() % 1026);
            page.rsp_cons = page.rsp_prod - static_cast<std::uint32_t>(random() % 1025);
            if (random() % 16 == 0) {
                page.req_cons = static_cast<std::uint32_t>(random());
                page.req_prod = page.req_cons + static_cast<std::uint32_t>(random() % 1025);
            }
            (void)victim.service();
            ASSERT_LE(client.queued_bytes(), 200'000u);
        }
    }
    EXPECT_TRUE(store.accounting_holds());
}

INSTANTIATE_TEST_SUITE_P(Seeds, RingNoise, testing::Range(1u, 4u));

}  // namespace
}  // namespace xenshim::xenstore
