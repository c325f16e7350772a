// A guest's store saved and restored: between any two bytes of its ring, with transactions open and
// events waiting, it goes on as one that was never saved; and what no store can be is refused.
#include <array>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "tests/fakes/saved_checks.h"
#include "tests/fakes/xenstore_request.h"
#include "xenshim/domain/xenstore/ring.h"

namespace xenshim::xenstore {
namespace {

using namespace std::string_literals;

constexpr DomainId kGuest = 5;
const std::string kHome = "/local/domain/5";

// A store with its guest and what the guest has of it.
struct World {
    struct alignas(4096) Page {
        std::array<char, 1024> req;
        std::array<char, 1024> rsp;
        std::uint32_t req_cons, req_prod, rsp_cons, rsp_prod;
        std::array<char, 2032> rest;
    };

    World() {
        Ring::initialise_page(bytes());
        EXPECT_TRUE(tools.write(kNoTransaction, kHome, ""));
        EXPECT_TRUE(tools.set_permissions(kNoTransaction, kHome, {{kGuest, Access::kNone}}));
        EXPECT_TRUE(tools.write(kNoTransaction, kHome + "/domid", "5"));
        EXPECT_TRUE(tools.write(kNoTransaction, "/tool", "theirs"));
    }
    // The guest's memory goes along, as everything else of the guest does.
    static std::unique_ptr<World> restored(const World& from) {
        auto out = std::make_unique<World>();
        out->page = from.page;
        const auto taken = out->guest.adopt(from.guest.snapshot());
        EXPECT_TRUE(taken) << taken.error();
        return out;
    }

    std::byte* bytes() { return reinterpret_cast<std::byte*>(&page); }
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
    // Straight to the connection: a request's reply, or an error's text.
    std::string ask(MessageType type, std::string_view payload, std::uint32_t tx_id = 0) {
        feed(request(type, payload, tx_id));
        const std::string reply = take(4096);
        return reply.size() < sizeof(MessageHeader) ? "nothing" : reply.substr(16);
    }
    void feed(std::string_view text) {
        EXPECT_EQ(guest.feed(std::as_bytes(std::span(text.data(), text.size()))), text.size());
    }
    std::string take(std::size_t most) {
        std::string text(most, '\0');
        text.resize(guest.pop_output(std::as_writable_bytes(std::span(text.data(), text.size()))));
        return text;
    }

    Page page{};
    Store store;
    Session tools{store, kPrivilegedDomain};
    Connection guest{store, kGuest};
    Ring ring{bytes(), guest};
};

// Something of everything.
void fill(World& w) {
    w.ask(MessageType::kWrite, "a/b\0va\0lue"s);
    w.ask(MessageType::kWrite, "a/c\0"s);
    w.ask(MessageType::kSetPerms, "a/b\0n5\0r0\0"s);
    w.ask(MessageType::kWatch, "a\0token\0"s);
    w.take(4096);
    w.ask(MessageType::kWatch, "/tool\0t2\0"s);
    w.take(4096);
    w.ask(MessageType::kWatch, "@releaseDomain\0t3\0"s);
    w.take(4096);
    EXPECT_EQ(w.ask(MessageType::kTransactionStart, "\0"s), "1\0"s);
    EXPECT_EQ(w.ask(MessageType::kTransactionStart, "\0"s), "2\0"s);
    w.ask(MessageType::kWrite, "a/new/deep\0x"s, 1);
    w.ask(MessageType::kRm, "a/c\0"s, 1);
    w.ask(MessageType::kRead, "a/b\0"s, 2);
    w.ask(MessageType::kWrite, "other\0y"s);
    w.feed(request(MessageType::kRead, "a/b\0"s));
    w.feed(request(MessageType::kWrite, "a/b\0z"s));
    EXPECT_EQ(w.take(7).size(), 7u);
    w.feed(request(MessageType::kWrite, "a/part\0value"s).substr(0, 23));
}

TEST(XenstoreSaved, BytesAreAsEver) {
    World w;
    fill(w);
    fakes::expect_saved(w.guest.snapshot(), "xen.store");
    EXPECT_TRUE(w.guest.snapshot() == w.guest.snapshot());
}

TEST(XenstoreSaved, ItIsTheSameAgain) {
    World w;
    fill(w);
    const auto other = World::restored(w);
    EXPECT_TRUE(other->guest.snapshot() == w.guest.snapshot());
    EXPECT_TRUE(other->store.accounting_holds());
    EXPECT_EQ(other->store.node_count(), w.store.node_count());
    EXPECT_EQ(other->store.node_count(kGuest), w.store.node_count(kGuest));
    EXPECT_EQ(other->store.watch_count(kGuest), 3u);
    EXPECT_EQ(other->guest.queued_bytes(), w.guest.queued_bytes());
    const auto third = World::restored(*other);
    EXPECT_TRUE(third->guest.snapshot() == w.guest.snapshot());

    const auto both = [&](const std::function<std::string(World&)>& act) {
        const std::string expected = act(w);
        EXPECT_EQ(act(*third), expected);
        EXPECT_TRUE(third->guest.snapshot() == w.guest.snapshot());
        return expected;
    };
    both([](World& x) { return x.take(4096); });
    both([](World& x) {
        x.feed(request(MessageType::kWrite, "a/part\0value"s).substr(23));
        return x.take(4096);
    });
    EXPECT_EQ(both([](World& x) { return x.ask(MessageType::kRead, "a/part\0"s); }), "value");
    // As it was at the start of the transaction, and as the transaction has made it.
    EXPECT_EQ(both([](World& x) { return x.ask(MessageType::kRead, "a/b\0"s, 1); }), "va\0lue"s);
    EXPECT_EQ(both([](World& x) { return x.ask(MessageType::kDirectory, "a\0"s, 1); }),
              "b\0new\0"s);
    EXPECT_EQ(both([](World& x) { return x.ask(MessageType::kDirectory, "a\0"s); }),
              "b\0c\0part\0"s);
    // a has got a child that the transaction did not see; what the second one read has changed.
    EXPECT_EQ(both([](World& x) { return x.ask(MessageType::kTransactionEnd, "T\0"s, 1); }),
              "EAGAIN\0"s);
    EXPECT_EQ(both([](World& x) { return x.ask(MessageType::kTransactionEnd, "T\0"s, 2); }),
              "EAGAIN\0"s);
    EXPECT_EQ(both([](World& x) { return x.ask(MessageType::kTransactionStart, "\0"s); }), "3\0"s);
    both([](World& x) { return x.ask(MessageType::kUnwatch, "a\0token\0"s); });
    both([](World& x) { return x.ask(MessageType::kUnwatch, "a\0token\0"s); });
    EXPECT_EQ(both([](World& x) { return x.ask(MessageType::kWatch, "/tool\0t2\0"s); }),
              "EEXIST\0"s);
    both([](World& x) {
        EXPECT_TRUE(x.tools.set_permissions(kNoTransaction, "/tool", {{0, Access::kRead}}));
        EXPECT_TRUE(x.tools.write(kNoTransaction, "/tool/new", "1"));
        return x.take(4096);
    });
}

// A commit after a restore changes what the transaction changed, counts it, and tells.
TEST(XenstoreSaved, AnOpenTransactionIsCommitted) {
    World w;
    w.ask(MessageType::kWrite, "a/b\0one"s);
    w.ask(MessageType::kWrite, "a/c\0two"s);
    w.ask(MessageType::kTransactionStart, "\0"s);
    w.ask(MessageType::kWrite, "a/new/deep\0x"s, 1);
    w.ask(MessageType::kWrite, "a/b\0three"s, 1);
    w.ask(MessageType::kRm, "a/c\0"s, 1);
    w.ask(MessageType::kWatch, "a\0t\0"s);
    w.take(4096);
    w.ask(MessageType::kWrite, "elsewhere\0"s);
    const auto other = World::restored(w);
    for (World* x : {&w, other.get()}) {
        x->feed(request(MessageType::kTransactionEnd, "T\0"s, 1));
        const std::string told = x->take(4096);
        EXPECT_NE(told.find("a/new/deep"), std::string::npos);
        EXPECT_EQ(x->ask(MessageType::kDirectory, "a\0"s), "b\0new\0"s);
        EXPECT_EQ(x->ask(MessageType::kRead, "a/b\0"s), "three");
        EXPECT_TRUE(x->store.accounting_holds());
    }
    EXPECT_TRUE(other->guest.snapshot() == w.guest.snapshot());
}

// Of an event that is half out when its watch is removed, the rest still comes.
TEST(XenstoreSaved, AnEventThatOutlivesItsWatch) {
    World w;
    w.feed(request(MessageType::kWatch, "a\0t\0"s));
    const std::size_t reply = sizeof(MessageHeader) + 3;
    EXPECT_EQ(w.take(reply + 5).size(), reply + 5);
    w.feed(request(MessageType::kUnwatch, "a\0t\0"s));
    EXPECT_EQ(w.guest.snapshot().output[0].watch, MessageState::kGone);
    fakes::expect_saved(w.guest.snapshot(), "xen.store-gone");
    const auto other = World::restored(w);
    EXPECT_TRUE(other->guest.snapshot() == w.guest.snapshot());
    // The same watch anew: its event is another one.
    for (World* x : {&w, other.get()}) {
        x->feed(request(MessageType::kWatch, "a\0t\0"s));
    }
    EXPECT_EQ(other->take(4096), w.take(4096));
}

TEST(XenstoreSaved, ABrokenConnectionStaysBroken) {
    World w;
    fill(w);
    w.guest.mark_broken();
    const auto other = World::restored(w);
    EXPECT_TRUE(other->guest.broken());
    EXPECT_FALSE(other->guest.wants_input());
    EXPECT_FALSE(other->ring.service());
    EXPECT_TRUE(other->guest.snapshot() == w.guest.snapshot());
}

// Domain 0's own watches are not the guest's, and have ids of the same store.
TEST(XenstoreSaved, OthersWatchesStayOutOfIt) {
    World w;
    fill(w);
    World other;
    unsigned events = 0;
    Session backend(other.store, kPrivilegedDomain, [&](const WatchEvent&) { ++events; });
    ASSERT_TRUE(backend.watch("/", "mine"));
    EXPECT_EQ(events, 1u);
    ASSERT_TRUE(other.guest.adopt(w.guest.snapshot()));
    EXPECT_EQ(events, 1u);
    EXPECT_TRUE(other.guest.snapshot() == w.guest.snapshot());
    EXPECT_TRUE(other.store.accounting_holds());
    ASSERT_TRUE(other.tools.write(kNoTransaction, "/tool", "new"));
    EXPECT_EQ(events, 2u);
}

// ---- a guest that is saved all the time ---------------------------------------------------------

// Sends requests in pieces of any size and takes replies as it likes.
class RandomGuest {
  public:
    explicit RandomGuest(std::uint64_t seed) : rng_(seed) {}

    void step(World& w) {
        if (unsent_.empty()) unsent_ = next();
        switch (rng_() % 4) {
            case 0: {
                const std::size_t piece = rng_() % 3 == 0 ? rng_() % 20 : unsent_.size();
                unsent_.erase(0, w.produce(std::string_view(unsent_).substr(0, piece)));
                break;
            }
            case 1: static_cast<void>(w.ring.service()); break;
            case 2: heard_ += w.consume(rng_() % 2 == 0 ? rng_() % 30 : kRingSize); break;
            default:
                if (rng_() % 4 != 0) break;
                // Domain 0 does something of its own.
                static_cast<void>(
                    w.tools.write(kNoTransaction, kHome + "/" + node(), number(1000)).has_value());
        }
    }
    const std::string& heard() const { return heard_; }

  private:
    std::string number(std::uint64_t below) { return std::to_string(rng_() % below); }
    std::string node() {
        static constexpr std::string_view kNames[] = {"a", "b", "a/b", "a/b/c", "b/a", "domid"};
        return std::string(kNames[rng_() % std::size(kNames)]);
    }
    std::string next() {
        const auto transaction =
            rng_() % 2 == 0 ? 0 : static_cast<std::uint32_t>(started_ - rng_() % 4);
        const auto make = [&](MessageType type, const std::string& payload) {
            return request(type, payload, transaction, static_cast<std::uint32_t>(rng_()));
        };
        switch (rng_() % 12) {
            case 0: return make(MessageType::kRead, node() + '\0');
            case 1: return make(MessageType::kDirectory, node() + '\0');
            case 2: return make(MessageType::kRm, node() + '\0');
            case 3: return make(MessageType::kWatch, node() + '\0' + number(3) + '\0');
            case 4: return make(MessageType::kUnwatch, node() + '\0' + number(3) + '\0');
            case 5: ++started_; return request(MessageType::kTransactionStart, "\0"s);
            case 6: return make(MessageType::kTransactionEnd, rng_() % 4 == 0 ? "F\0"s : "T\0"s);
            case 7: return make(MessageType::kSetPerms, node() + "\0n5\0r0\0"s);
            case 8: return make(MessageType::kDirectoryPart, node() + "\0000\0"s);
            case 9:
                return rng_() % 8 == 0 ? make(MessageType::kResetWatches, "\0"s)
                                       : make(MessageType::kMkdir, node() + '\0');
            default:
                return make(MessageType::kWrite,
                            node() + '\0' + std::string(rng_() % 300, 'v') + number(100));
        }
    }

    std::mt19937_64 rng_;
    std::uint64_t started_ = 1;
    std::string unsent_;
    std::string heard_;
};

TEST(XenstoreSaved, NothingIsLostDoubledOrReordered) {
    for (std::uint64_t seed = 0; seed < 4; ++seed) {
        World whole;
        auto moved = std::make_unique<World>();
        RandomGuest guest(seed), other(seed);
        std::mt19937_64 when(seed);
        unsigned moves = 0;
        for (unsigned i = 0; i < 2500; ++i) {
            if (when() % 16 == 0) {
                moved = World::restored(*moved);
                ++moves;
            }
            guest.step(whole);
            other.step(*moved);
            ASSERT_EQ(std::memcmp(&whole.page, &moved->page, sizeof whole.page), 0) << i;
        }
        EXPECT_EQ(guest.heard(), other.heard());
        EXPECT_GT(guest.heard().size(), 10000u);
        EXPECT_GT(moves, 100u);
        EXPECT_TRUE(moved->guest.snapshot() == whole.guest.snapshot());
        EXPECT_TRUE(moved->store.accounting_holds());
    }
}

// As deep and as many as a guest can.
TEST(XenstoreSaved, TheDeepestTree) {
    World w;
    std::string path = "d";
    while (path.size() + 2 <= 1800)
        path += "/d";
    w.ask(MessageType::kTransactionStart, "\0"s);
    ASSERT_EQ(w.ask(MessageType::kWrite, path + "\0x"s), "OK\0"s);
    const auto other = World::restored(w);
    EXPECT_EQ(other->ask(MessageType::kRead, path + '\0'), "x");
    EXPECT_TRUE(other->store.accounting_holds());
    EXPECT_EQ(other->store.node_count(kGuest), w.store.node_count(kGuest));
}

// ---- hostile ------------------------------------------------------------------------------------

TEST(XenstoreSaved, WhatNoStoreIsIsRefused) {
    World w;
    fill(w);
    World other;
    const XenstoreState before = other.guest.snapshot();
    const auto refused = [&](const std::string& why, auto change) {
        XenstoreState state = w.guest.snapshot();
        change(state);
        const auto taken = other.guest.adopt(state);
        ASSERT_FALSE(taken) << why;
        EXPECT_EQ(taken.error(), why);
        EXPECT_TRUE(other.guest.snapshot() == before) << why;
        EXPECT_TRUE(other.store.accounting_holds()) << why;
    };
    using State = XenstoreState;
    const State good = w.guest.snapshot();
    const std::string root = std::to_string(good.root);
    const auto last = static_cast<std::uint32_t>(good.nodes.size());

    refused("root: there is no such node", [&](State& s) { s.root = last; });
    refused("nodes[1]: out of order", [](State& s) {
        for (NodeState& node : s.nodes) {
            if (node.children.contains("b")) std::swap(node.children["b"], node.children["c"]);
        }
    });
    refused("nodes[" + std::to_string(last) + "]: in no tree",
            [](State& s) { s.nodes.push_back(s.nodes[0]); });
    refused("nodes[" + root + "].children: there is no such node",
            [&](State& s) { s.nodes[s.root].children["tool"] = last; });
    refused("nodes[" + root + "].children: a node in two places",
            [](State& s) { s.nodes[s.root].children["tool2"] = s.nodes[s.root].children["tool"]; });
    refused("nodes[" + root + "].children: a node in two places",
            [](State& s) { s.nodes[s.root].children["zz"] = s.root; });
    for (const auto& name : {""s, "a/b"s, "a b"s, "\0"s, std::string(3072, 'x')}) {
        refused("nodes[" + root + "].children: no such name can be", [&](State& s) {
            auto& children = s.nodes[s.root].children;
            children[name] = children.extract("tool").mapped();
        });
    }
    refused("nodes[0].permissions: there are no such",
            [](State& s) { s.nodes[0].permissions.clear(); });
    refused("nodes[0].permissions: there are no such",
            [](State& s) { s.nodes[0].permissions[0].access = 4; });
    refused("nodes[0].value: longer than any", [](State& s) { s.nodes[0].value.resize(4097); });
    refused("nodes[0].generation: of times to come",
            [](State& s) { s.nodes[0].generation = s.generation + 1; });

    refused("transactions: there are 11", [](State& s) { s.transactions.resize(11); });
    refused("transactions[0].id: out of order", [](State& s) { s.transactions[0].id = 0; });
    refused("transactions[1].id: out of order", [](State& s) { s.transactions[1].id = 1; });
    refused("transactions[0].base: there is no such node",
            [](State& s) { s.transactions[0].base = UINT32_MAX; });
    refused("transactions[1].root: there is no such node",
            [](State& s) { s.transactions[1].root = UINT32_MAX; });
    refused("transactions[0].touched: no such path can be",
            [](State& s) { s.transactions[0].touched["a"] = true; });
    refused("transactions[0].touched: there are 1025", [](State& s) {
        for (int i = 0; s.transactions[0].touched.size() < 1025; ++i)
            s.transactions[0].touched["/" + std::to_string(i)] = true;
    });
    // A commit would look for the parents of what it adds and not find them.
    for (const auto& path : {"/a/new/deep", "/a/new", "/a/c", "/a"}) {
        const std::string whole = kHome + path;
        refused("transactions[0].touched: " + whole + " is not, and differs", [&](State& s) {
            s.transactions[0].touched.erase(whole);
            s.transactions[0].changes.clear();
        });
        refused("transactions[0].touched: " + whole + " is not, and differs", [&](State& s) {
            s.transactions[0].touched[whole] = false;
            s.transactions[0].changes.clear();
        });
    }
    refused("transactions[0].changes[0].path: not changed",
            [](State& s) { s.transactions[0].changes[0].path = "/tool"; });
    refused("transactions[0].changes[1].path: twice", [](State& s) {
        s.transactions[0].changes[1].path = s.transactions[0].changes[0].path;
    });
    refused("transactions[0].changes[0].readable_by: there are no such permissions",
            [](State& s) { s.transactions[0].changes[0].readable_by[0].clear(); });

    refused("watches: there are 129", [](State& s) { s.watches.resize(129); });
    refused("watches[0].path: no such path can be", [](State& s) { s.watches[0].path = "a//b"; });
    refused("watches[2].path: no such path can be",
            [](State& s) { s.watches[2].path = "@" + std::string(2048, 'x'); });
    refused("watches[0].token: no request could have had it",
            [](State& s) { s.watches[0].token = "a\0b"s; });
    refused("watches[0].token: no request could have had it",
            [](State& s) { s.watches[0].token = std::string(4095, 't'); });
    refused("watches[1]: twice", [](State& s) {
        s.watches[1] = {kHome + "/a", s.watches[0].token};
    });

    refused("broken: but there is something left", [](State& s) { s.broken = true; });
    refused("input: such a request breaks the connection",
            [](State& s) { s.input = request(MessageType::kRead, std::string(4097, 'x')); });
    refused("input: more than a request",
            [](State& s) { s.input = request(MessageType::kRead, "a\0"s); });
    refused("output[0].bytes: no message", [](State& s) { s.output[0].bytes.resize(15); });
    refused("output[0].bytes: no message", [](State& s) { s.output[0].bytes += 'x'; });
    refused("output[0].watch: an event has one, a reply has none",
            [](State& s) { s.output[0].watch = 1; });
    refused("output[1].watch: an event has one, a reply has none",
            [](State& s) { s.output[1].watch = 0; });
    refused("output[20]: a reply too many", [](State& s) { s.output.assign(21, s.output[0]); });
    refused("output[1].watch: there is no such one", [](State& s) { s.output[1].watch = 4; });
    refused("output[1].watch: it is gone",
            [](State& s) { s.output[1].watch = MessageState::kGone; });
    refused("output[1].bytes: not of its watch", [](State& s) { s.output[1].watch = 2; });
    refused("output[2]: twice",
            [](State& s) { s.output.insert(s.output.begin() + 2, s.output[1]); });
    refused("output[1].bytes: no event", [](State& s) { s.output[1].bytes.back() = 'x'; });
    refused("output: more events than are kept", [](State& s) {
        for (int i = 0; i < 30; ++i) {
            s.output.push_back(
                {request(MessageType::kWatchEvent,
                         "a/" + std::string(4000, 'x') + std::to_string(i) + "\0token\0"s),
                 1});
        }
    });
    refused("sent: more than the message has",
            [](State& s) { s.sent = static_cast<std::uint32_t>(s.output[0].bytes.size()); });
    refused("sent: more than the message has", [](State& s) {
        s.output.clear();
        s.sent = 1;
    });
    EXPECT_TRUE(other.guest.adopt(good));
    EXPECT_TRUE(other.guest.snapshot() == good);
}

// Whatever passes for a state, a guest can do no more with it than with its own.
TEST(XenstoreSaved, DamagedStatesDoNoHarm) {
    World w;
    fill(w);
    const auto good = vmm::saved::encode(w.guest.snapshot());
    std::mt19937_64 rng(1);
    unsigned adopted = 0;
    for (int round = 0; round < 1500; ++round) {
        auto bytes = good;
        for (auto left = 1 + rng() % 3; left != 0; --left) {
            const std::size_t at = rng() % bytes.size();
            bytes[at] = static_cast<std::byte>(rng() % 2 == 0 ? rng() : rng() % 32);
        }
        const auto state = vmm::saved::decode<XenstoreState>(bytes, 1);
        if (!state) continue;
        World other;
        if (!other.guest.adopt(*state)) continue;
        ++adopted;
        ASSERT_TRUE(other.guest.snapshot() == *state) << round;
        ASSERT_TRUE(other.store.accounting_holds()) << round;
        other.take(1 << 16);
        for (const std::uint32_t transaction : {1u, 2u}) {
            other.ask(MessageType::kTransactionEnd, "T\0"s, transaction);
        }
        RandomGuest guest(rng());
        for (int i = 0; i < 200; ++i)
            guest.step(other);
        ASSERT_TRUE(other.store.accounting_holds()) << round;
    }
    EXPECT_GT(adopted, 50u);
}

}  // namespace
}  // namespace xenshim::xenstore
