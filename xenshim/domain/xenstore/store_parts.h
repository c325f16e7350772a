// What the store and its sessions share beside their interface.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "xenshim/domain/xenstore/store.h"

namespace xenshim::xenstore {

inline std::string_view parent_path(std::string_view path) {
    const auto slash = path.rfind('/');
    return slash == 0 ? path.substr(0, 1) : path.substr(0, slash);
}

inline bool is_special(std::string_view path) {
    return path.starts_with('@');
}

struct Store::Node {
    std::string value;
    Permissions permissions;
    std::uint64_t generation = 0;
    std::map<std::string, NodePtr, std::less<>> children;

    Node() = default;
    Node(const Node&) = default;
    Node& operator=(const Node&) = delete;
    // A guest can nest some 1500 nodes, so the tree is not taken down by recursion.
    ~Node() {
        std::vector<NodePtr> doomed;
        for (auto& [name, child] : children)
            doomed.push_back(std::move(child));
        while (!doomed.empty()) {
            const NodePtr node = std::move(doomed.back());
            doomed.pop_back();
            if (node.use_count() != 1) continue;
            for (auto& [name, child] : node->children)
                doomed.push_back(std::move(child));
            node->children.clear();
        }
    }
};

// A change that watchers may hear about. An exact one concerns only watches on that very path:
// it is how watches below a removed node learn of the removal.
struct Store::Change {
    std::string path;
    bool exact = false;
    // Whoever may read under one of these is told: the node's own permissions before and after,
    // and its parent's, as xenstored has it since XSA-115.
    std::vector<Permissions> readable_by;
};

struct Store::Transaction {
    NodePtr base;  // as the store was at the start
    NodePtr root;  // as the transaction sees it
    // What it looked at, present or not; true: what it changed.
    std::map<std::string, bool, std::less<>> touched;
    Counts counts;                // nodes by owner, relative to base
    std::vector<Change> changes;  // one per path, in order of the first
    std::map<std::string, std::size_t> change_index;
};

// The tree that an operation works on: the store's or a transaction's.
struct Store::View {
    DomainId domid;
    NodePtr& root;
    Transaction* transaction;

    bool limited() const { return domid != kPrivilegedDomain; }
};

// The deepest node there is on the way to a path, and how much of the path leads to it.
struct Store::Deepest {
    const Node* node;
    std::size_t length;
};

}  // namespace xenshim::xenstore
