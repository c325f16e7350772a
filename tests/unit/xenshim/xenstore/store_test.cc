#include "xenshim/domain/xenstore/store.h"

#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "xenshim/domain/xenstore/host.h"

namespace xenshim::xenstore {
namespace {

constexpr DomainId kGuest = 5;
const std::string kHome = "/local/domain/5";

template <class T>
std::string error_of(const StoreResult<T>& result) {
    return result ? "none" : error_name(result.error());
}

// A store with a home for the guest that it may write.
class StoreTest : public testing::Test {
  protected:
    StoreTest() {
        EXPECT_TRUE(tools.write(kNoTransaction, kHome, ""));
        EXPECT_TRUE(tools.set_permissions(kNoTransaction, kHome, {{kGuest, Access::kNone}}));
    }
    ~StoreTest() override { EXPECT_TRUE(store.accounting_holds()); }

    std::string read(Session& session, std::string_view path, TransactionId in = kNoTransaction) {
        const auto value = session.read(in, path);
        return value ? *value : error_of(value);
    }
    std::vector<std::string> list(Session& session, std::string_view path) {
        return session.directory(kNoTransaction, path).value_or({}).children;
    }
    Session::Sink record(std::vector<std::string>& into) {
        return [&into](const WatchEvent& event) { into.push_back(event.path + " " + event.token); };
    }

    Store store;
    Session tools{store, kPrivilegedDomain};
    std::vector<std::string> events;
    Session guest{store, kGuest, record(events)};
};

// --- Paths ---

TEST(Paths, ValidOnes) {
    EXPECT_EQ(*absolute_path(5, "/"), "/");
    EXPECT_EQ(*absolute_path(5, "/a-b/C_9/@"), "/a-b/C_9/@");
    EXPECT_EQ(*absolute_path(5, "domid"), "/local/domain/5/domid");
    EXPECT_EQ(*absolute_path(0, "x/y"), "/local/domain/0/x/y");
}

TEST(Paths, InvalidOnes) {
    for (const char* path : {"", "//", "/a/", "a/", "/a//b", "/a b", "/a.b", "/a:b",
                             "@introduceDomain", "/local/domain/", "/\xc3\xa9"}) {
        EXPECT_EQ(error_of(absolute_path(5, path)), "EINVAL") << path;
    }
    EXPECT_EQ(error_of(absolute_path(5, std::string_view("/a\0b", 4))), "EINVAL");
}

TEST(Paths, LengthsAreThoseThatTheClientSent) {
    EXPECT_TRUE(absolute_path(5, "/" + std::string(3071, 'a')));
    EXPECT_FALSE(absolute_path(5, "/" + std::string(3072, 'a')));
    EXPECT_TRUE(absolute_path(5, std::string(2048, 'a')));
    EXPECT_FALSE(absolute_path(5, std::string(2049, 'a')));
}

TEST(PermissionText, RoundTripsAndRefusesGarbage) {
    for (const char* text : {"n0", "r5", "w65535", "b17"}) {
        EXPECT_EQ(format_permission(*parse_permission(text)), text);
    }
    for (const char* text : {"", "r", "x5", "5", "r-1", "r5 ", "r65536", "rr", "r5r"}) {
        EXPECT_FALSE(parse_permission(text)) << text;
    }
}

// --- Nodes ---

TEST_F(StoreTest, WriteMakesMissingParentsAndRelativePathsStartAtHome) {
    ASSERT_TRUE(guest.write(kNoTransaction, "data/a/b", "x"));
    EXPECT_EQ(read(guest, kHome + "/data/a/b"), "x");
    EXPECT_EQ(read(guest, "data/a"), "");
    EXPECT_EQ(list(guest, "data"), std::vector<std::string>{"a"});
    EXPECT_EQ(store.node_count(kGuest), 4u);  // with home
    EXPECT_EQ(store.node_count(), 3u + 4u);   // "/", /local and /local/domain are domain 0's
}

TEST_F(StoreTest, ValuesMayHoldAnyBytes) {
    const std::string value("\0\xff\0 x", 5);
    ASSERT_TRUE(guest.write(kNoTransaction, "a", value));
    EXPECT_EQ(read(guest, "a"), value);
}

TEST_F(StoreTest, MkdirLeavesAnExistingNodeAlone) {
    ASSERT_TRUE(guest.write(kNoTransaction, "a", "x"));
    ASSERT_TRUE(guest.mkdir(kNoTransaction, "a"));
    EXPECT_EQ(read(guest, "a"), "x");
    ASSERT_TRUE(guest.mkdir(kNoTransaction, "p/q"));
    EXPECT_EQ(read(guest, "p/q"), "");
}

TEST_F(StoreTest, RemoveTakesTheSubtree) {
    ASSERT_TRUE(guest.write(kNoTransaction, "a/b/c", "x"));
    ASSERT_TRUE(guest.remove(kNoTransaction, "a"));
    EXPECT_EQ(read(guest, "a"), "ENOENT");
    EXPECT_EQ(read(guest, "a/b/c"), "ENOENT");
    EXPECT_EQ(store.node_count(kGuest), 1u);
}

TEST_F(StoreTest, RemoveOfWhatIsMissingSucceedsUnderAnExistingParent) {
    EXPECT_TRUE(guest.remove(kNoTransaction, "nothing"));
    EXPECT_EQ(error_of(guest.remove(kNoTransaction, "nothing/below")), "ENOENT");
    EXPECT_EQ(error_of(tools.remove(kNoTransaction, "/")), "EINVAL");
    EXPECT_EQ(error_of(guest.remove(kNoTransaction, "/")), "EACCES");
}

TEST_F(StoreTest, DirectoryGenerationFollowsTheListOfChildren) {
    ASSERT_TRUE(guest.mkdir(kNoTransaction, "d"));
    const auto at = [&] { return (*guest.directory(kNoTransaction, "d")).generation; };
    const auto first = at();
    ASSERT_TRUE(guest.write(kNoTransaction, "elsewhere", ""));
    EXPECT_EQ(at(), first);
    ASSERT_TRUE(guest.write(kNoTransaction, "d/x", ""));
    const auto second = at();
    EXPECT_NE(second, first);
    ASSERT_TRUE(guest.remove(kNoTransaction, "d/x"));
    EXPECT_NE(at(), second);
}

TEST_F(StoreTest, ADeepTreeIsTakenDownWithoutDeepRecursion) {
    std::string path = "/t";
    while (path.size() < 3000)
        path += "/x";
    ASSERT_TRUE(tools.write(kNoTransaction, path, "deep"));
    EXPECT_EQ(read(tools, path), "deep");
    ASSERT_TRUE(tools.remove(kNoTransaction, "/t"));
    EXPECT_EQ(store.node_count(kPrivilegedDomain), 3u);
}

// --- Permissions ---

TEST_F(StoreTest, ANewNodeInheritsAndItsCreatorOwnsIt) {
    ASSERT_TRUE(tools.set_permissions(
        kNoTransaction, kHome, {{kPrivilegedDomain, Access::kRead}, {kGuest, Access::kBoth}}));
    ASSERT_TRUE(guest.write(kNoTransaction, "mine", ""));
    EXPECT_EQ(*guest.permissions(kNoTransaction, "mine"),
              (Permissions{{kGuest, Access::kRead}, {kGuest, Access::kBoth}}));
    ASSERT_TRUE(tools.write(kNoTransaction, kHome + "/theirs", ""));
    EXPECT_EQ(*guest.permissions(kNoTransaction, "theirs"),
              (Permissions{{kPrivilegedDomain, Access::kRead}, {kGuest, Access::kBoth}}));
}

TEST_F(StoreTest, AccessFollowsTheList) {
    ASSERT_TRUE(tools.write(kNoTransaction, "/x", "v"));
    const auto allow = [&](Permissions permissions) {
        ASSERT_TRUE(tools.set_permissions(kNoTransaction, "/x", std::move(permissions)));
    };
    EXPECT_EQ(read(guest, "/x"), "EACCES");  // "/" is n0, and so is what is made below it
    allow({{0, Access::kNone}, {kGuest, Access::kRead}});
    EXPECT_EQ(read(guest, "/x"), "v");
    EXPECT_EQ(error_of(guest.write(kNoTransaction, "/x", "w")), "EACCES");
    EXPECT_EQ(error_of(guest.remove(kNoTransaction, "/x")), "EACCES");
    EXPECT_EQ(error_of(guest.mkdir(kNoTransaction, "/x/y")), "EACCES");
    allow({{0, Access::kNone}, {kGuest, Access::kWrite}});
    EXPECT_EQ(read(guest, "/x"), "EACCES");
    EXPECT_TRUE(guest.write(kNoTransaction, "/x", "w"));
    allow({{0, Access::kBoth}, {kGuest, Access::kNone}});  // the entry wins over the default
    EXPECT_EQ(read(guest, "/x"), "EACCES");
    allow({{0, Access::kRead}});
    EXPECT_EQ(read(guest, "/x"), "w");
    allow({{kGuest, Access::kNone}});  // owners may do everything
    EXPECT_EQ(read(guest, "/x"), "w");
    EXPECT_TRUE(guest.remove(kNoTransaction, "/x"));
}

TEST_F(StoreTest, WhatIsMissingIsOnlyToldToThoseWhoCouldSeeIt) {
    EXPECT_EQ(read(guest, "/secret/node"), "EACCES");
    EXPECT_EQ(read(tools, "/secret/node"), "ENOENT");
    EXPECT_EQ(error_of(guest.directory(kNoTransaction, "/")), "EACCES");
    EXPECT_EQ(read(guest, "/local/domain/6/name"), "EACCES");
    EXPECT_EQ(read(guest, "name"), "ENOENT");
}

TEST_F(StoreTest, OnlyTheOwnerSetsPermissionsAndOnlyDomain0GivesNodesAway) {
    ASSERT_TRUE(guest.write(kNoTransaction, "mine", ""));
    EXPECT_TRUE(guest.set_permissions(kNoTransaction, "mine", {{kGuest, Access::kRead}}));
    EXPECT_EQ(error_of(guest.set_permissions(kNoTransaction, "mine", {{6, Access::kRead}})),
              "EPERM");
    EXPECT_EQ(error_of(guest.set_permissions(kNoTransaction, "mine", {})), "EINVAL");
    EXPECT_EQ(error_of(guest.set_permissions(kNoTransaction, "none", {{kGuest, Access::kRead}})),
              "ENOENT");
    ASSERT_TRUE(tools.set_permissions(kNoTransaction, kHome + "/mine",
                                      {{6, Access::kNone}, {kGuest, Access::kBoth}}));
    EXPECT_EQ(error_of(guest.set_permissions(kNoTransaction, "mine", {{6, Access::kBoth}})),
              "EACCES");
    EXPECT_EQ(store.node_count(kGuest), 1u);
    EXPECT_EQ(store.node_count(6), 1u);
}

TEST_F(StoreTest, SpecialNamesAreNoNodes) {
    EXPECT_EQ(read(guest, "@releaseDomain"), "EINVAL");
    EXPECT_EQ(error_of(guest.write(kNoTransaction, "@x", "")), "EINVAL");
    EXPECT_EQ(error_of(guest.set_permissions(kNoTransaction, "@releaseDomain",
                                             {{kGuest, Access::kRead}})),
              "EACCES");
}

// --- Quotas ---

TEST_F(StoreTest, NodesOfAGuestAreLimited) {
    for (int i = 1; i < 1000; ++i) {
        // Several directories: one would run into the size of its entry first.
        const auto path = "d" + std::to_string(i % 20) + (i < 20 ? "" : "/" + std::to_string(i));
        ASSERT_TRUE(guest.write(kNoTransaction, path, "")) << path;
        if (store.node_count(kGuest) == 1000) break;
    }
    ASSERT_EQ(store.node_count(kGuest), 1000u);
    EXPECT_EQ(error_of(guest.write(kNoTransaction, "one-more", "")), "ENOSPC");
    EXPECT_TRUE(guest.write(kNoTransaction, "d1", "no new node"));
    EXPECT_TRUE(tools.write(kNoTransaction, kHome + "/by-tools", ""));  // counts, not limited
    EXPECT_EQ(store.node_count(kGuest), 1001u);
    EXPECT_TRUE(guest.remove(kNoTransaction, "d2"));
    EXPECT_TRUE(guest.write(kNoTransaction, "one-more", ""));
}

TEST_F(StoreTest, CreationThatDoesNotFitLeavesNothingBehind) {
    Store small(Quotas{.nodes = 5});
    Session host(small, kPrivilegedDomain);
    ASSERT_TRUE(host.mkdir(kNoTransaction, kHome));
    ASSERT_TRUE(host.set_permissions(kNoTransaction, kHome, {{kGuest, Access::kNone}}));
    Session inside(small, kGuest);
    EXPECT_EQ(error_of(inside.mkdir(kNoTransaction, "a/b/c/d/e")), "ENOSPC");
    EXPECT_EQ(small.node_count(kGuest), 1u);
    EXPECT_TRUE(inside.mkdir(kNoTransaction, "a/b/c/d"));
    EXPECT_EQ(small.node_count(kGuest), 5u);
    EXPECT_TRUE(small.accounting_holds());
}

TEST_F(StoreTest, TheSizeOfARecordIsLimited) {
    // 24 bytes, 8 for one permission, and the value: below 2048.
    EXPECT_TRUE(guest.write(kNoTransaction, "a", std::string(2015, 'x')));
    EXPECT_EQ(error_of(guest.write(kNoTransaction, "a", std::string(2016, 'x'))), "ENOSPC");
    EXPECT_EQ(error_of(guest.write(kNoTransaction, "b", std::string(2016, 'x'))), "ENOSPC");
    EXPECT_EQ(error_of(guest.mkdir(kNoTransaction, "a/child")), "ENOSPC");  // its name counts too
    EXPECT_EQ(error_of(guest.set_permissions(kNoTransaction, "a",
                                             {{kGuest, Access::kNone}, {0, Access::kRead}})),
              "ENOSPC");
    EXPECT_EQ(read(guest, "a").size(), 2015u);
    EXPECT_EQ(read(guest, "b"), "ENOENT");
    EXPECT_TRUE(tools.write(kNoTransaction, "/big", std::string(4096, 'x')));
    EXPECT_EQ(error_of(tools.write(kNoTransaction, "/big", std::string(4097, 'x'))), "E2BIG");
}

TEST_F(StoreTest, PermissionEntriesAreLimited) {
    ASSERT_TRUE(guest.mkdir(kNoTransaction, "a"));
    Permissions permissions(5, {kGuest, Access::kRead});
    EXPECT_TRUE(guest.set_permissions(kNoTransaction, "a", permissions));
    permissions.push_back({7, Access::kRead});
    EXPECT_EQ(error_of(guest.set_permissions(kNoTransaction, "a", permissions)), "ENOSPC");
}

TEST_F(StoreTest, WatchesAreLimitedPerDomain) {
    Session other(store, kGuest);
    for (int i = 0; i < 128; ++i) {
        ASSERT_TRUE((i % 2 != 0 ? guest : other).watch("a", std::to_string(i)));
    }
    EXPECT_EQ(error_of(guest.watch("a", "more")), "E2BIG");
    EXPECT_EQ(store.watch_count(kGuest), 128u);
    EXPECT_TRUE(guest.unwatch("a", "1"));
    EXPECT_TRUE(guest.watch("a", "more"));
    guest.reset();
    EXPECT_EQ(store.watch_count(kGuest), 64u);
    for (int i = 0; i < 500; ++i)
        ASSERT_TRUE(tools.watch("/a", std::to_string(i)));
}

TEST_F(StoreTest, TransactionsAreLimited) {
    for (int i = 0; i < 10; ++i)
        ASSERT_TRUE(guest.start_transaction());
    EXPECT_EQ(error_of(guest.start_transaction()), "ENOSPC");
    EXPECT_TRUE(guest.end_transaction(1, false));
    const auto next = guest.start_transaction();
    ASSERT_TRUE(next);
    EXPECT_EQ(*next, 11u);
}

TEST_F(StoreTest, NodesTouchedInATransactionAreLimited) {
    const auto in = *guest.start_transaction();
    for (int i = 0; i < 1024; ++i) {
        ASSERT_EQ(read(guest, "missing" + std::to_string(i), in), "ENOENT");
    }
    EXPECT_EQ(read(guest, "one-more", in), "ENOSPC");
    EXPECT_EQ(read(guest, "missing7", in), "ENOENT");
    EXPECT_EQ(error_of(guest.write(in, "w", "")), "ENOSPC");
    EXPECT_TRUE(guest.end_transaction(in, true));
}

TEST_F(StoreTest, QuotaHoldsAcrossTransactions) {
    Store small(Quotas{.nodes = 3});
    Session host(small, kPrivilegedDomain);
    ASSERT_TRUE(host.mkdir(kNoTransaction, kHome + "/a"));
    ASSERT_TRUE(host.mkdir(kNoTransaction, kHome + "/b"));
    for (const char* path : {"/a", "/b"}) {
        ASSERT_TRUE(host.set_permissions(kNoTransaction, kHome + path, {{kGuest, Access::kNone}}));
    }
    Session inside(small, kGuest);
    const auto first = *inside.start_transaction();
    const auto second = *inside.start_transaction();
    ASSERT_TRUE(inside.mkdir(first, "a/x"));
    EXPECT_EQ(error_of(inside.mkdir(first, "a/y")), "ENOSPC");
    ASSERT_TRUE(inside.mkdir(second, "b/x"));
    EXPECT_TRUE(small.accounting_holds());
    EXPECT_TRUE(inside.end_transaction(first, true));
    EXPECT_EQ(error_of(inside.end_transaction(second, true)), "ENOSPC");
    EXPECT_EQ(small.node_count(kGuest), 3u);
    EXPECT_TRUE(small.accounting_holds());
}

// --- Transactions ---

TEST_F(StoreTest, ATransactionIsIsolatedUntilItEnds) {
    ASSERT_TRUE(guest.write(kNoTransaction, "a", "old"));
    const auto in = *guest.start_transaction();
    ASSERT_TRUE(guest.write(in, "a", "new"));
    ASSERT_TRUE(guest.write(in, "b/c", "made"));
    EXPECT_EQ(read(guest, "a"), "old");
    EXPECT_EQ(read(guest, "b"), "ENOENT");
    EXPECT_EQ(read(guest, "a", in), "new");
    EXPECT_TRUE(guest.end_transaction(in, true));
    EXPECT_EQ(read(guest, "a"), "new");
    EXPECT_EQ(read(guest, "b/c"), "made");
    EXPECT_EQ(error_of(guest.end_transaction(in, true)), "ENOENT");
    EXPECT_EQ(read(guest, "a", in), "ENOENT");
}

TEST_F(StoreTest, ASnapshotDoesNotSeeLaterChanges) {
    ASSERT_TRUE(guest.write(kNoTransaction, "a", "1"));
    ASSERT_TRUE(guest.write(kNoTransaction, "b", "1"));
    const auto in = *guest.start_transaction();
    ASSERT_TRUE(guest.write(kNoTransaction, "b", "2"));
    ASSERT_TRUE(guest.remove(kNoTransaction, "a"));
    EXPECT_EQ(read(guest, "a", in), "1");
    EXPECT_EQ(read(guest, "b", in), "1");
    EXPECT_TRUE(guest.end_transaction(in, false));
    EXPECT_EQ(read(guest, "b"), "2");
}

TEST_F(StoreTest, AbortLeavesNoTrace) {
    const auto in = *guest.start_transaction();
    ASSERT_TRUE(guest.write(in, "a", ""));
    ASSERT_TRUE(guest.end_transaction(in, false));
    EXPECT_EQ(read(guest, "a"), "ENOENT");
    EXPECT_EQ(store.node_count(kGuest), 1u);
}

struct ConflictCase {
    const char* name;
    void (*inside)(Session&, TransactionId);
    void (*outside)(Session&);
    bool conflict;
};

class Conflict : public testing::TestWithParam<ConflictCase> {};

TEST_P(Conflict, IsFoundAtTheEnd) {
    Store store;
    Session session(store, kPrivilegedDomain);
    for (const char* path : {"/a/x", "/b/x", "/c"}) {
        ASSERT_TRUE(session.write(kNoTransaction, path, "0"));
    }
    const auto in = *session.start_transaction();
    GetParam().inside(session, in);
    GetParam().outside(session);
    EXPECT_EQ(error_of(session.end_transaction(in, true)), GetParam().conflict ? "EAGAIN" : "none");
    EXPECT_EQ(store.transaction_count(kPrivilegedDomain), 0u);
    EXPECT_TRUE(store.accounting_holds());
}

const auto read_a = [](Session& s, TransactionId in) { (void)s.read(in, "/a").has_value(); };
const auto read_gone = [](Session& s, TransactionId in) { (void)s.read(in, "/n/n").has_value(); };
const auto write_a = [](Session& s, TransactionId in) { (void)s.write(in, "/a", "").has_value(); };
const auto make_ay = [](Session& s, TransactionId in) { (void)s.mkdir(in, "/a/y").has_value(); };
const auto rm_a = [](Session& s, TransactionId in) { (void)s.remove(in, "/a").has_value(); };
const auto outside_write = [](Session& s, const char* path) {
    (void)s.write(kNoTransaction, path, "1").has_value();
};

INSTANTIATE_TEST_SUITE_P(
    Cases, Conflict,
    testing::Values(
        ConflictCase{"read_unrelated", read_a, [](Session& s) { outside_write(s, "/b"); }, false},
        ConflictCase{"read_written", read_a, [](Session& s) { outside_write(s, "/a"); }, true},
        ConflictCase{"read_child_written", read_a, [](Session& s) { outside_write(s, "/a/x"); },
                     false},
        ConflictCase{"read_child_added", read_a, [](Session& s) { outside_write(s, "/a/z"); },
                     true},
        ConflictCase{"read_removed", read_a,
                     [](Session& s) { (void)s.remove(kNoTransaction, "/a").has_value(); }, true},
        ConflictCase{"missing_made", read_gone, [](Session& s) { outside_write(s, "/n/n"); }, true},
        ConflictCase{"missing_stays", read_gone, [](Session& s) { outside_write(s, "/n/m"); },
                     false},
        ConflictCase{"write_unrelated", write_a, [](Session& s) { outside_write(s, "/b/x"); },
                     false},
        ConflictCase{"write_written", write_a, [](Session& s) { outside_write(s, "/a"); }, true},
        ConflictCase{"both_add_children", make_ay, [](Session& s) { outside_write(s, "/a/z"); },
                     true},
        ConflictCase{"remove_grown", rm_a, [](Session& s) { outside_write(s, "/a/x/new"); }, true},
        ConflictCase{"remove_child_written", rm_a, [](Session& s) { outside_write(s, "/a/x"); },
                     true},
        ConflictCase{"remove_unrelated", rm_a, [](Session& s) { outside_write(s, "/b/z"); }, false},
        ConflictCase{
            "permissions", read_a,
            [](Session& s) {
                (void)s.set_permissions(kNoTransaction, "/a", {{0, Access::kRead}}).has_value();
            },
            true},
        ConflictCase{"removed_and_made_again", read_a,
                     [](Session& s) {
                         (void)s.remove(kNoTransaction, "/a").has_value();
                         outside_write(s, "/a/x");
                     },
                     true}),
    [](const auto& each) { return std::string(each.param.name); });

TEST_F(StoreTest, AMergeKeepsWhatOthersDidElsewhere) {
    ASSERT_TRUE(guest.write(kNoTransaction, "a/x", "1"));
    ASSERT_TRUE(guest.write(kNoTransaction, "b/x", "1"));
    const auto in = *guest.start_transaction();
    ASSERT_TRUE(guest.remove(in, "a"));
    ASSERT_TRUE(guest.write(in, "a/y", "2"));
    ASSERT_TRUE(guest.write(kNoTransaction, "b/x", "3"));
    ASSERT_TRUE(guest.write(kNoTransaction, "b/z", "4"));
    ASSERT_TRUE(guest.end_transaction(in, true));
    EXPECT_EQ(list(guest, "a"), std::vector<std::string>{"y"});
    EXPECT_EQ(read(guest, "b/x"), "3");
    EXPECT_EQ(read(guest, "b/z"), "4");
}

TEST_F(StoreTest, OwnershipGivenAwayInATransactionIsAccounted) {
    const auto in = *tools.start_transaction();
    ASSERT_TRUE(tools.write(in, "/gift", ""));
    ASSERT_TRUE(tools.set_permissions(in, "/gift", {{kGuest, Access::kNone}}));
    EXPECT_TRUE(store.accounting_holds());
    EXPECT_EQ(store.node_count(kGuest), 1u);
    ASSERT_TRUE(tools.end_transaction(in, true));
    EXPECT_EQ(store.node_count(kGuest), 2u);
}

TEST_F(StoreTest, ASessionTakesItsTransactionsAndWatchesWithIt) {
    {
        Session brief(store, kGuest);
        ASSERT_TRUE(brief.start_transaction());
        ASSERT_TRUE(brief.watch("a", "t"));
        EXPECT_EQ(store.watch_count(kGuest), 1u);
    }
    EXPECT_EQ(store.watch_count(kGuest), 0u);
    EXPECT_EQ(store.transaction_count(kGuest), 0u);
    ASSERT_TRUE(guest.write(kNoTransaction, "a", ""));
}

TEST_F(StoreTest, TransactionsBelongToTheirSession) {
    Session other(store, kGuest);
    const auto in = *guest.start_transaction();
    EXPECT_EQ(error_of(other.read(in, "a")), "ENOENT");
    EXPECT_EQ(error_of(other.end_transaction(in, true)), "ENOENT");
}

// --- Watches ---

using Events = std::vector<std::string>;

TEST_F(StoreTest, AWatchFiresAtOnceAndForWhatIsBelow) {
    ASSERT_TRUE(guest.watch(kHome + "/a", "T"));
    EXPECT_EQ(events, Events{kHome + "/a T"});
    events.clear();
    ASSERT_TRUE(guest.write(kNoTransaction, "a/b/c", ""));  // one event, not one per parent
    ASSERT_TRUE(guest.write(kNoTransaction, "ab", ""));     // a sibling whose name starts the same
    ASSERT_TRUE(guest.mkdir(kNoTransaction, "a/d"));
    ASSERT_TRUE(guest.mkdir(kNoTransaction, "a/d"));  // nothing happens
    ASSERT_TRUE(guest.set_permissions(kNoTransaction, "a", {{kGuest, Access::kRead}}));
    ASSERT_TRUE(guest.remove(kNoTransaction, "a/d"));
    ASSERT_TRUE(guest.remove(kNoTransaction, "a/d"));  // nothing happens
    EXPECT_EQ(events,
              (Events{kHome + "/a/b/c T", kHome + "/a/d T", kHome + "/a T", kHome + "/a/d T"}));
}

TEST_F(StoreTest, ARelativeWatchGivesRelativePaths) {
    ASSERT_TRUE(guest.watch("a", "T"));
    ASSERT_TRUE(tools.write(kNoTransaction, kHome + "/a/b", ""));
    ASSERT_TRUE(tools.remove(kNoTransaction, kHome + "/a"));
    EXPECT_EQ(events, (Events{"a T", "a/b T", "a T"}));
}

TEST_F(StoreTest, RemovalOfAParentIsToldToWatchesOnWhatGoesWithIt) {
    ASSERT_TRUE(guest.write(kNoTransaction, "a/b/c", ""));
    ASSERT_TRUE(guest.watch("a/b", "below"));
    ASSERT_TRUE(guest.watch("a", "above"));
    ASSERT_TRUE(guest.watch("a/b/x", "never there"));
    events.clear();
    ASSERT_TRUE(guest.remove(kNoTransaction, "a"));
    EXPECT_EQ(events, (Events{"a above", "a/b below"}));
}

TEST_F(StoreTest, RootWatchSeesAllAndOthersOnlyWhatTheyMayRead) {
    Events all;
    Session host(store, kPrivilegedDomain, record(all));
    ASSERT_TRUE(host.watch("/", "R"));
    ASSERT_TRUE(guest.watch("/", "G"));
    all.clear();
    events.clear();
    ASSERT_TRUE(tools.write(kNoTransaction, "/secret", ""));
    ASSERT_TRUE(guest.write(kNoTransaction, "a", ""));
    EXPECT_EQ(all, (Events{"/secret R", kHome + "/a R"}));
    EXPECT_EQ(events, Events{kHome + "/a G"});
    events.clear();
    // Losing sight of a node is still told; what happens to it afterwards is not.
    ASSERT_TRUE(tools.set_permissions(kNoTransaction, "/secret", {{0, Access::kRead}}));
    ASSERT_TRUE(tools.set_permissions(kNoTransaction, "/secret", {{0, Access::kNone}}));
    ASSERT_TRUE(tools.remove(kNoTransaction, "/secret"));
    EXPECT_EQ(events, (Events{"/secret G", "/secret G"}));
}

TEST_F(StoreTest, RemovalIsToldToThoseWhoCouldReadTheNodeButNotItsParent) {
    ASSERT_TRUE(tools.write(kNoTransaction, "/secret/shown", ""));
    ASSERT_TRUE(tools.set_permissions(kNoTransaction, "/secret/shown",
                                      {{0, Access::kNone}, {kGuest, Access::kRead}}));
    ASSERT_TRUE(guest.watch("/secret/shown", "T"));
    events.clear();
    ASSERT_TRUE(tools.remove(kNoTransaction, "/secret"));
    EXPECT_EQ(events, Events{"/secret/shown T"});
}

TEST_F(StoreTest, TransactionsTellAtCommitOnly) {
    ASSERT_TRUE(guest.watch("a", "T"));
    events.clear();
    auto in = *guest.start_transaction();
    ASSERT_TRUE(guest.write(in, "a/2", "x"));
    ASSERT_TRUE(guest.write(in, "a/1", "x"));
    ASSERT_TRUE(guest.write(in, "a/2", "y"));
    EXPECT_TRUE(events.empty());
    ASSERT_TRUE(guest.end_transaction(in, true));
    EXPECT_EQ(events, (Events{"a/2 T", "a/1 T"}));
    events.clear();
    in = *guest.start_transaction();
    ASSERT_TRUE(guest.remove(in, "a"));
    ASSERT_TRUE(guest.end_transaction(in, false));
    in = *guest.start_transaction();
    ASSERT_TRUE(guest.remove(in, "a"));
    ASSERT_TRUE(guest.write(kNoTransaction, "a/1", "conflict"));
    EXPECT_EQ(error_of(guest.end_transaction(in, true)), "EAGAIN");
    EXPECT_EQ(events, Events{"a/1 T"});
}

TEST_F(StoreTest, WatchErrors) {
    ASSERT_TRUE(guest.watch("a", "T"));
    EXPECT_EQ(error_of(guest.watch("a", "T")), "EEXIST");
    EXPECT_EQ(error_of(guest.watch(kHome + "/a", "T")), "EEXIST");  // the same place
    EXPECT_TRUE(guest.watch("a", "U"));
    EXPECT_EQ(error_of(guest.watch("a//b", "T")), "EINVAL");
    EXPECT_EQ(error_of(guest.watch("", "T")), "EINVAL");
    EXPECT_EQ(error_of(guest.unwatch("a", "V")), "ENOENT");
    EXPECT_EQ(error_of(guest.unwatch("b", "T")), "ENOENT");
    EXPECT_EQ(error_of(guest.unwatch("a//", "T")), "ENOENT");
    EXPECT_TRUE(guest.unwatch("a", "T"));
    EXPECT_TRUE(guest.unwatch("a", "U"));
    events.clear();
    ASSERT_TRUE(guest.write(kNoTransaction, "a", ""));
    EXPECT_TRUE(events.empty());
}

TEST_F(StoreTest, SpecialWatchesAreAcceptedAndForDomain0) {
    Events host_events;
    Session host(store, kPrivilegedDomain, record(host_events));
    ASSERT_TRUE(host.watch("@introduceDomain", "i"));
    ASSERT_TRUE(host.watch("@releaseDomain", "r"));
    ASSERT_TRUE(guest.watch("@releaseDomain", "g"));
    host_events.clear();
    store.introduce_domain(kGuest);
    store.introduce_domain(kGuest);
    EXPECT_TRUE(store.is_introduced(kGuest));
    store.release_domain(kGuest);
    EXPECT_FALSE(store.is_introduced(kGuest));
    EXPECT_EQ(host_events, (Events{"@introduceDomain i", "@releaseDomain r"}));
    EXPECT_EQ(events, Events{"@releaseDomain g"});
    EXPECT_TRUE(guest.unwatch("@releaseDomain", "g"));
}

TEST_F(StoreTest, AHoldKeepsEventsBackInOrder) {
    ASSERT_TRUE(guest.watch("a", "T"));
    events.clear();
    {
        const Store::Hold hold(store);
        ASSERT_TRUE(guest.write(kNoTransaction, "a/1", ""));
        ASSERT_TRUE(guest.write(kNoTransaction, "a/2", ""));
        EXPECT_TRUE(events.empty());
    }
    EXPECT_EQ(events, (Events{"a/1 T", "a/2 T"}));
}

// --- The host's own client ---

TEST_F(StoreTest, HostCallbacksMayUseTheStore) {
    HostClient backend(store);
    Events seen;
    ASSERT_TRUE(backend.watch(kHome + "/state", [&](const std::string& path) {
        const auto value = backend.read(path).value_or("none");
        seen.push_back(value);
        if (value == "1") {
            EXPECT_TRUE(backend.write(kHome + "/state", "2"));
        }
    }));
    ASSERT_TRUE(guest.write(kNoTransaction, "state", "1"));
    EXPECT_EQ(seen, (Events{"none", "1", "2"}));
    EXPECT_EQ(read(guest, "state"), "2");
}

TEST_F(StoreTest, ACallbackMayEndItsOwnWatch) {
    HostClient backend(store);
    int calls = 0;
    WatchId id = 0;
    const auto watch = backend.watch(kHome + "/a", [&](const std::string&) {
        backend.unwatch(id);
        ++calls;  // what was captured must still be there: ASan watches
    });
    ASSERT_TRUE(watch);
    id = *watch;
    ASSERT_TRUE(guest.write(kNoTransaction, "a", ""));
    ASSERT_TRUE(guest.write(kNoTransaction, "a", ""));
    EXPECT_EQ(calls, 2);  // the registration and the first write
    EXPECT_EQ(store.watch_count(kPrivilegedDomain), 0u);
    backend.unwatch(id);
}

TEST_F(StoreTest, HostClientWritesReadsAndRemoves) {
    HostClient host(store);
    Events seen;
    ASSERT_TRUE(guest.watch("n", "T"));
    events.clear();
    ASSERT_TRUE(host.write(kHome + "/n", "42", {{0, Access::kNone}, {kGuest, Access::kRead}}));
    EXPECT_EQ(*host.read_number(kHome + "/n"), 42u);
    EXPECT_EQ(read(guest, "n"), "42");
    EXPECT_FALSE(events.empty());
    ASSERT_TRUE(host.write(kHome + "/n", "4x"));
    EXPECT_EQ(error_of(host.read_number(kHome + "/n")), "EINVAL");
    ASSERT_TRUE(host.write(kHome + "/n", ""));
    EXPECT_EQ(error_of(host.read_number(kHome + "/n")), "EINVAL");
    EXPECT_EQ(*host.list(kHome), std::vector<std::string>{"n"});
    EXPECT_TRUE(host.remove(kHome + "/n"));
    EXPECT_TRUE(host.remove(kHome + "/n/below"));
    EXPECT_EQ(error_of(host.watch("a b", [](const std::string&) {})), "EINVAL");
}

}  // namespace
}  // namespace xenshim::xenstore
