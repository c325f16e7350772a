// What is saved of a guest's xenstore: the tree, the guest's watches and open transactions, and
// what of its byte stream is under way (the ring and its indices are guest memory).
//
// Transactions are kept as they are: each sees the tree as it was at its start, and ends as it
// would have. They share most nodes with the tree, so all nodes stand in one list, once each, and
// trees name theirs by number.
//
// Domain 0's watches are not state: backends make theirs anew, and the first event of each tells
// them to look. Accounts of quotas are counted again.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "vmm/base/saved.h"

namespace xenshim::xenstore {

struct PermissionState {
    std::uint16_t domid = 0;
    std::uint8_t access = 0;

    bool operator==(const PermissionState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [domid, access] = self;
        return std::tuple{vmm::saved::field(1, "domid", domid),
                          vmm::saved::field(2, "access", access)};
    }
};

struct NodeState {
    std::string value;
    std::vector<PermissionState> permissions;
    std::uint64_t generation = 0;
    std::map<std::string, std::uint32_t> children;  // numbers of nodes

    bool operator==(const NodeState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [value, permissions, generation, children] = self;
        return std::tuple{vmm::saved::field(1, "value", value),
                          vmm::saved::field(2, "permissions", permissions),
                          vmm::saved::field(3, "generation", generation),
                          vmm::saved::field(4, "children", children)};
    }
};

// What watchers will be told of when the transaction is committed.
struct ChangeState {
    std::string path;
    bool exact = false;
    std::vector<std::vector<PermissionState>> readable_by;

    bool operator==(const ChangeState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [path, exact, readable_by] = self;
        return std::tuple{vmm::saved::field(1, "path", path), vmm::saved::field(2, "exact", exact),
                          vmm::saved::field(3, "readable_by", readable_by)};
    }
};

struct TransactionState {
    std::uint32_t id = 0;
    std::uint32_t base = 0;               // the tree at its start: its root's number
    std::uint32_t root = 0;               // the tree as it sees it
    std::map<std::string, bool> touched;  // path -> whether it changed it
    std::vector<ChangeState> changes;     // in order of the first of each path

    bool operator==(const TransactionState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [id, base, root, touched, changes] = self;
        return std::tuple{vmm::saved::field(1, "id", id), vmm::saved::field(2, "base", base),
                          vmm::saved::field(3, "root", root),
                          vmm::saved::field(4, "touched", touched),
                          vmm::saved::field(5, "changes", changes)};
    }
};

struct WatchState {
    std::string path;  // as the guest gave it
    std::string token;

    bool operator==(const WatchState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [path, token] = self;
        return std::tuple{vmm::saved::field(1, "path", path), vmm::saved::field(2, "token", token)};
    }
};

// Output that waits: a reply, or an event of a watch.
struct MessageState {
    static constexpr std::uint32_t kReply = 0;
    static constexpr std::uint32_t kGone = UINT32_MAX;  // unwatched since a part of it went out

    std::string bytes;             // header included
    std::uint32_t watch = kReply;  // or a watch's place in the list, from 1

    bool operator==(const MessageState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [bytes, watch] = self;
        return std::tuple{vmm::saved::field(1, "bytes", bytes),
                          vmm::saved::field(2, "watch", watch)};
    }
};

struct XenstoreState {
    static constexpr vmm::saved::Section kSection{"xen.store", 1};

    std::uint64_t generation = 0;  // the last that a node got
    // Children before their parents, in the order of a walk through the tree, then through each
    // transaction's base and root.
    std::vector<NodeState> nodes;
    std::uint32_t root = 0;
    std::uint32_t last_transaction = 0;
    std::vector<TransactionState> transactions;  // by id
    std::vector<WatchState> watches;             // in order of registration
    bool broken = false;                         // then the guest has nothing of what is above
    std::string input;                           // of a request that is not complete
    std::vector<MessageState> output;
    std::uint32_t sent = 0;  // bytes of the first message that have gone out

    bool operator==(const XenstoreState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [generation, nodes, root, last_transaction, transactions, watches, broken, input,
               output, sent] = self;
        return std::tuple{vmm::saved::field(1, "generation", generation),
                          vmm::saved::field(2, "nodes", nodes),
                          vmm::saved::field(3, "root", root),
                          vmm::saved::field(4, "last_transaction", last_transaction),
                          vmm::saved::field(5, "transactions", transactions),
                          vmm::saved::field(6, "watches", watches),
                          vmm::saved::field(7, "broken", broken),
                          vmm::saved::field(8, "input", input),
                          vmm::saved::field(9, "output", output),
                          vmm::saved::field(10, "sent", sent)};
    }
};

}  // namespace xenshim::xenstore
