// What a guest is asked by control/shutdown: when it counts as taken, and that nothing is left of
// it when nobody wants it any more.
#include "devices/pv/shutdown_request.h"

#include <string>

#include <gtest/gtest.h>

#include "xenshim/domain/xenstore/nodes.h"

namespace devices::pv {
namespace {

namespace store = xenshim::xenstore;

constexpr store::DomainId kGuest = 3;
constexpr const char* kNode = "control/shutdown";

struct Asked : ::testing::Test {
    Asked() {
        store::DomainInfo info;
        info.domid = kGuest;
        info.uuid = "52535455-5657-5859-5a5b-5c5d5e5f6061";
        EXPECT_TRUE(store::populate_domain(nodes, info));
    }
    std::string word() {
        const auto found = guest.read(store::kNoTransaction, kNode);
        return found ? *found : store::error_name(found.error());
    }
    store::StoreResult<void> take() { return guest.write(store::kNoTransaction, kNode, ""); }

    store::Store nodes;
    unsigned taken = 0;
    unsigned events = 0;
    store::Session guest{nodes, kGuest, [this](const store::WatchEvent&) { ++events; }};
    ShutdownRequest request{nodes, kGuest, [this] { ++taken; }};
};

TEST_F(Asked, TheGuestTakesIt) {
    ASSERT_TRUE(guest.watch(kNode, "token"));
    events = 0;
    ASSERT_TRUE(request.ask("suspend"));
    EXPECT_EQ(word(), "suspend");
    EXPECT_EQ(events, 1u);
    EXPECT_FALSE(request.is_taken());
    ASSERT_TRUE(take());
    EXPECT_TRUE(request.is_taken());
    EXPECT_EQ(taken, 1u);
    // Only once, whatever it does then.
    ASSERT_TRUE(take());
    ASSERT_TRUE(guest.write(store::kNoTransaction, kNode, "suspend"));
    ASSERT_TRUE(take());
    EXPECT_EQ(taken, 1u);
    EXPECT_FALSE(request.withdraw());
    EXPECT_EQ(events, 5u);
}

TEST_F(Asked, ItIsWithdrawn) {
    ASSERT_TRUE(request.ask("poweroff"));
    EXPECT_TRUE(request.withdraw());
    EXPECT_EQ(word(), "");
    EXPECT_EQ(taken, 0u);
    EXPECT_FALSE(request.withdraw());
    // What the guest does afterwards is nobody's business.
    ASSERT_TRUE(guest.write(store::kNoTransaction, kNode, "x"));
    EXPECT_EQ(taken, 0u);
    EXPECT_EQ(nodes.watch_count(0), 0u);
}

TEST_F(Asked, ATransactionThatTakesWhatIsWithdrawnMeanwhileFails) {
    ASSERT_TRUE(request.ask("suspend"));
    const auto in = guest.start_transaction();
    ASSERT_TRUE(in);
    EXPECT_EQ(*guest.read(*in, kNode), "suspend");
    ASSERT_TRUE(guest.write(*in, kNode, ""));
    EXPECT_TRUE(request.withdraw());
    const auto ended = guest.end_transaction(*in, true);
    ASSERT_FALSE(ended);
    EXPECT_EQ(ended.error(), store::StoreError::kEagain);
}

TEST_F(Asked, AGuestWithoutTheNodeGetsOneThatItMayWrite) {
    ASSERT_TRUE(guest.remove(store::kNoTransaction, kNode));
    ASSERT_TRUE(request.ask("reboot"));
    EXPECT_EQ(word(), "reboot");
    ASSERT_TRUE(take());
    EXPECT_EQ(taken, 1u);
    // To remove it is an answer, too; nothing is put in its place.
    ASSERT_TRUE(request.ask("reboot"));
    ASSERT_TRUE(guest.remove(store::kNoTransaction, kNode));
    EXPECT_EQ(taken, 2u);
    EXPECT_FALSE(request.withdraw());
    EXPECT_EQ(word(), "ENOENT");
}

TEST_F(Asked, OneAfterTheOther) {
    ASSERT_TRUE(request.ask("suspend"));
    ASSERT_TRUE(take());
    ASSERT_TRUE(request.ask("reboot"));
    EXPECT_FALSE(request.is_taken());
    EXPECT_EQ(word(), "reboot");
    EXPECT_EQ(nodes.watch_count(0), 1u);
    ASSERT_TRUE(take());
    EXPECT_EQ(taken, 2u);
}

TEST_F(Asked, WhatTheGuestSaysThatItCan) {
    EXPECT_FALSE(request.offered("suspend"));
    ASSERT_TRUE(guest.write(store::kNoTransaction, "control/feature-suspend", "1"));
    EXPECT_TRUE(request.offered("suspend"));
    EXPECT_FALSE(request.offered("reboot"));
}

}  // namespace
}  // namespace devices::pv
