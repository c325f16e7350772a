// A guest's store as it is saved, and made again from that.
#include <algorithm>
#include <cstring>
#include <set>
#include <unordered_map>
#include <utility>

#include "xenshim/domain/xenstore/store_parts.h"
#include "xenshim/domain/xenstore/wire.h"

namespace xenshim::xenstore {

using vmm::Failure;

namespace {

std::vector<PermissionState> saved(const Permissions& permissions) {
    std::vector<PermissionState> out;
    for (const Permission each : permissions) {
        out.push_back({each.domid, static_cast<std::uint8_t>(each.access)});
    }
    return out;
}

Permissions restored(const std::vector<PermissionState>& permissions) {
    Permissions out;
    for (const PermissionState& each : permissions) {
        out.push_back({each.domid, static_cast<Access>(each.access)});
    }
    return out;
}

bool are_permissions(const std::vector<PermissionState>& permissions) {
    constexpr auto kMost = static_cast<std::uint8_t>(Access::kBoth);
    return !permissions.empty() &&
           std::all_of(permissions.begin(), permissions.end(),
                       [](const PermissionState& each) { return each.access <= kMost; });
}

bool is_name(const std::string& name) {
    return name.find('/') == std::string::npos && absolute_path(kPrivilegedDomain, "/" + name) &&
           !name.empty();
}

std::string item(const char* list, std::size_t index) {
    return std::string(list) + "[" + std::to_string(index) + "]";
}

MessageHeader header_of(std::string_view bytes) {
    MessageHeader header;
    std::memcpy(&header, bytes.data(), sizeof header);
    return header;
}

// What an event's payload names, without the NULs; nothing when it is no event's.
std::optional<std::pair<std::string_view, std::string_view>> parts_of_event(
    std::string_view payload) {
    const auto nul = payload.find('\0');
    if (nul == std::string_view::npos || payload.back() != '\0') return std::nullopt;
    const std::string_view token = payload.substr(nul + 1);
    if (token.find('\0') != token.size() - 1) return std::nullopt;
    return std::pair{payload.substr(0, nul), token.substr(0, token.size() - 1)};
}

bool names_within(std::string_view path, std::string_view watched) {
    if (watched == "/") return path.starts_with('/');
    return path.starts_with(watched) &&
           (path.size() == watched.size() || path[watched.size()] == '/');
}

// What is wrong with the trees of a state, if anything is.
class TreeCheck {
  public:
    explicit TreeCheck(const XenstoreState& state) : state_(state) {}

    std::string refusal() {
        if (std::string why = walk(state_.root, "root"); !why.empty()) return why;
        for (std::size_t i = 0; i < state_.transactions.size(); ++i) {
            const TransactionState& each = state_.transactions[i];
            const std::string which = item("transactions", i);
            if (std::string why = walk(each.base, which + ".base"); !why.empty()) return why;
            if (std::string why = walk(each.root, which + ".root"); !why.empty()) return why;
            if (std::string why = difference(each); !why.empty()) return which + why;
        }
        if (done_ != state_.nodes.size()) return item("nodes", done_) + ": in no tree";
        return {};
    }

  private:
    using Child = std::map<std::string, std::uint32_t>::const_iterator;
    struct Level {
        std::uint32_t node;
        Child next;
        std::size_t path_length;
    };

    // Each node of a tree has one place in it, and nodes stand in the order in which walks leave
    // them first: so there are no circles, and children stand before their parents.
    std::string walk(std::uint32_t root, const std::string& name) {
        if (root >= state_.nodes.size()) return name + ": there is no such node";
        std::vector<bool> visited(state_.nodes.size());
        std::vector<Level> way;
        const auto enter = [&](std::uint32_t node, std::size_t path_length) {
            visited[node] = true;
            way.push_back({node, state_.nodes[node].children.begin(), path_length});
        };
        for (enter(root, 0); !way.empty();) {
            Level& here = way.back();
            const NodeState& node = state_.nodes[here.node];
            if (here.next == node.children.end()) {
                if (std::string why = leave(here.node); !why.empty()) return why;
                way.pop_back();
                continue;
            }
            const auto& [leaf, child] = *here.next++;
            const std::string which = item("nodes", here.node) + ".children: ";
            if (child >= state_.nodes.size()) return which + "there is no such node";
            if (visited[child]) return which + "a node in two places";
            const std::size_t length = here.path_length + 1 + leaf.size();
            if (!is_name(leaf) || length > kAbsolutePathMax) return which + "no such name can be";
            enter(child, length);
        }
        return {};
    }

    std::string leave(std::uint32_t index) {
        if (index < done_) return {};
        const std::string which = item("nodes", index);
        if (index != done_) return which + ": out of order";
        ++done_;
        const NodeState& node = state_.nodes[index];
        if (!are_permissions(node.permissions)) return which + ".permissions: there are no such";
        if (node.value.size() > kPayloadMax) return which + ".value: longer than any";
        if (node.generation > state_.generation) return which + ".generation: of times to come";
        return {};
    }

    // A commit looks at what was touched and at nothing else, and relies on finding there all that
    // the transaction has changed.
    std::string difference(const TransactionState& transaction) const {
        const auto changed = [&](const std::string& path) {
            const auto at = transaction.touched.find(path);
            return at != transaction.touched.end() && at->second;
        };
        constexpr std::uint32_t kNone = UINT32_MAX;
        struct Place {
            std::string path;  // "" for the root
            std::uint32_t then, now;
        };
        std::vector<Place> left = {{"", transaction.base, transaction.root}};
        static const std::map<std::string, std::uint32_t> kNoChildren;
        const auto children = [&](std::uint32_t node) -> const auto& {
            return node == kNone ? kNoChildren : state_.nodes[node].children;
        };
        while (!left.empty()) {
            const Place at = std::move(left.back());
            left.pop_back();
            if (at.then == at.now) continue;
            const auto& then = children(at.then);
            const auto& now = children(at.now);
            if ((at.then == kNone || at.now == kNone || !alike(at.then, at.now)) &&
                !changed(at.path.empty() ? "/" : at.path)) {
                return ".touched: " + at.path + " is not, and differs";
            }
            for (const auto& [name, child] : then) {
                const auto other = now.find(name);
                left.push_back(
                    {at.path + "/" + name, child, other == now.end() ? kNone : other->second});
            }
            for (const auto& [name, child] : now) {
                if (!then.contains(name)) left.push_back({at.path + "/" + name, kNone, child});
            }
        }
        return {};
    }

    bool alike(std::uint32_t a, std::uint32_t b) const {
        const NodeState& one = state_.nodes[a];
        const NodeState& other = state_.nodes[b];
        return one.generation == other.generation && one.value == other.value &&
               one.permissions == other.permissions &&
               std::equal(one.children.begin(), one.children.end(), other.children.begin(),
                          other.children.end(),
                          [](const auto& x, const auto& y) { return x.first == y.first; });
    }

    const XenstoreState& state_;
    std::uint32_t done_ = 0;  // nodes that a walk has left
};

}  // namespace

// What reads and writes the insides of a store, a session and a connection.
class SavedForm {
  public:
    static XenstoreState of(const Connection& connection) {
        const Session& session = connection.session_;
        const Store& store = session.store_;
        XenstoreState state;
        state.generation = store.generation_;
        Numbers numbers;
        state.root = number(store.root_, state.nodes, numbers);
        state.last_transaction = session.last_transaction_;
        for (const auto& [id, transaction] : session.transactions_) {
            const std::uint32_t base = number(transaction->base, state.nodes, numbers);
            const std::uint32_t root = number(transaction->root, state.nodes, numbers);
            state.transactions.push_back(
                {.id = id,
                 .base = base,
                 .root = root,
                 .touched = {transaction->touched.begin(), transaction->touched.end()},
                 .changes = changes_of(*transaction)});
        }
        std::map<WatchId, std::uint32_t> places;
        for (const auto& [id, watch] : store.watches_) {
            if (watch.session != &session) continue;
            state.watches.push_back({watch.given, watch.token});
            places.emplace(id, static_cast<std::uint32_t>(state.watches.size()));
        }
        state.broken = connection.broken_;
        if (connection.broken_) return state;
        const auto* input = reinterpret_cast<const char*>(connection.input_.data());  // NOLINT
        state.input.assign(input, connection.have_);
        for (const auto& message : connection.output_) {
            std::uint32_t watch = MessageState::kReply;
            if (message.watch != 0) {
                const auto place = places.find(message.watch);
                watch = place != places.end() ? place->second : MessageState::kGone;
            }
            state.output.push_back({message.bytes, watch});
        }
        state.sent = static_cast<std::uint32_t>(connection.front_sent_);
        return state;
    }

    static std::string refusal(const Connection& connection, const XenstoreState& state) {
        const Session& session = connection.session_;
        const Quotas& quotas = session.store_.quotas_;
        if (state.transactions.size() > quotas.transactions) {
            return "transactions: there are " + std::to_string(state.transactions.size());
        }
        if (state.watches.size() > quotas.watches) {
            return "watches: there are " + std::to_string(state.watches.size());
        }
        if (state.broken && !(state.transactions.empty() && state.watches.empty() &&
                              state.input.empty() && state.output.empty())) {
            return "broken: but there is something left";
        }
        for (std::size_t i = 0; i < state.transactions.size(); ++i) {
            const TransactionState& each = state.transactions[i];
            const bool ascends = each.id > (i == 0 ? 0 : state.transactions[i - 1].id);
            if (!ascends) return item("transactions", i) + ".id: out of order";
            const std::string why = of_transaction(each, quotas);
            if (!why.empty()) return item("transactions", i) + why;
        }
        if (std::string why = TreeCheck(state).refusal(); !why.empty()) return why;
        if (std::string why = of_watches(session.domid_, state.watches); !why.empty()) return why;
        return of_streams(state);
    }

    static void into(Connection& connection, const XenstoreState& state) {
        Session& session = connection.session_;
        Store& store = session.store_;
        session.reset();
        std::vector<Store::NodePtr> nodes;
        for (const NodeState& each : state.nodes) {
            auto node = std::make_shared<Store::Node>();
            node->value = each.value;
            node->permissions = restored(each.permissions);
            node->generation = each.generation;
            for (const auto& [name, child] : each.children) {
                node->children.emplace(name, nodes[child]);
            }
            nodes.push_back(std::move(node));
        }
        store.root_ = nodes[state.root];
        store.generation_ = state.generation;
        store.owned_.clear();
        store.total_nodes_ = 0;
        Store::Counts counts;
        Store::count_subtree(*store.root_, counts);
        for (const auto& [owner, count] : counts) {
            store.account(owner, count);
        }
        session.last_transaction_ = state.last_transaction;
        for (const TransactionState& each : state.transactions) {
            session.transactions_.emplace(each.id, transaction(each, nodes));
        }
        std::vector<WatchId> ids;
        for (const WatchState& each : state.watches) {
            const WatchId id = ++store.last_watch_;
            const std::string absolute = *watched(session.domid_, each.path);
            store.watches_.emplace(id, Store::Watch{&session, id, absolute, each.path, each.token});
            ids.push_back(id);
        }
        session.watch_total_ = ids.size();
        streams(connection, state, ids, ++store.last_watch_);
    }

  private:
    using Numbers = std::unordered_map<const Store::Node*, std::uint32_t>;

    // Adds what of a tree is not there yet, and says which its root is.
    static std::uint32_t number(const Store::NodePtr& root, std::vector<NodeState>& nodes,
                                Numbers& numbers) {
        struct Level {
            const Store::Node* node;
            decltype(root->children)::const_iterator next;
        };
        std::vector<Level> way;
        const auto enter = [&](const Store::Node* node) {
            if (!numbers.contains(node)) way.push_back({node, node->children.begin()});
        };
        for (enter(root.get()); !way.empty();) {
            const Store::Node* node = way.back().node;
            auto& next = way.back().next;
            if (next != node->children.end()) {
                enter((next++)->second.get());
                continue;
            }
            NodeState out{node->value, saved(node->permissions), node->generation, {}};
            for (const auto& [name, child] : node->children) {
                out.children.emplace(name, numbers.at(child.get()));
            }
            numbers.emplace(node, static_cast<std::uint32_t>(nodes.size()));
            nodes.push_back(std::move(out));
            way.pop_back();
        }
        return numbers.at(root.get());
    }

    static std::vector<ChangeState> changes_of(const Store::Transaction& transaction) {
        std::vector<ChangeState> out;
        for (const Store::Change& change : transaction.changes) {
            ChangeState each{change.path, change.exact, {}};
            for (const Permissions& permissions : change.readable_by) {
                each.readable_by.push_back(saved(permissions));
            }
            out.push_back(std::move(each));
        }
        return out;
    }

    static std::unique_ptr<Store::Transaction> transaction(
        const TransactionState& state, const std::vector<Store::NodePtr>& nodes) {
        auto out = std::make_unique<Store::Transaction>();
        out->base = nodes[state.base];
        out->root = nodes[state.root];
        out->touched.insert(state.touched.begin(), state.touched.end());
        Store::Counts before;
        Store::count_subtree(*out->root, out->counts);
        Store::count_subtree(*out->base, before);
        for (const auto& [owner, count] : before) {
            out->counts[owner] -= count;
        }
        for (const ChangeState& each : state.changes) {
            Store::Change change{each.path, each.exact, {}};
            for (const auto& permissions : each.readable_by) {
                change.readable_by.push_back(restored(permissions));
            }
            out->change_index.emplace(each.path, out->changes.size());
            out->changes.push_back(std::move(change));
        }
        return out;
    }

    static std::string of_transaction(const TransactionState& state, const Quotas& quotas) {
        if (state.touched.size() > quotas.transaction_nodes) {
            return ".touched: there are " + std::to_string(state.touched.size());
        }
        for (const auto& [path, changed] : state.touched) {
            if (!path.starts_with('/') || !absolute_path(kPrivilegedDomain, path)) {
                return ".touched: no such path can be";
            }
        }
        std::set<std::string_view> seen;
        for (std::size_t i = 0; i < state.changes.size(); ++i) {
            const ChangeState& change = state.changes[i];
            const std::string which = "." + item("changes", i);
            const auto touched = state.touched.find(change.path);
            if (touched == state.touched.end() || !touched->second) {
                return which + ".path: not changed";
            }
            if (!seen.insert(change.path).second) return which + ".path: twice";
            if (!std::all_of(change.readable_by.begin(), change.readable_by.end(),
                             are_permissions)) {
                return which + ".readable_by: there are no such permissions";
            }
        }
        return {};
    }

    // The absolute form of what a guest watches.
    static StoreResult<std::string> watched(DomainId domid, const std::string& path) {
        if (!is_special(path)) return absolute_path(domid, path);
        if (path.size() > kRelativePathMax || path.find('\0') != std::string::npos) {
            return Failure{StoreError::kEinval};
        }
        return path;
    }

    static std::string of_watches(DomainId domid, const std::vector<WatchState>& watches) {
        std::set<std::pair<std::string, std::string>> seen;
        for (std::size_t i = 0; i < watches.size(); ++i) {
            const auto& [path, token] = watches[i];
            const std::string which = item("watches", i);
            const auto absolute = watched(domid, path);
            if (!absolute) return which + ".path: no such path can be";
            if (token.find('\0') != std::string::npos ||
                path.size() + token.size() + 2 > kPayloadMax) {
                return which + ".token: no request could have had it";
            }
            if (!seen.emplace(*absolute, token).second) return which + ": twice";
        }
        return {};
    }

    static std::string of_streams(const XenstoreState& state) {
        constexpr std::size_t kHeader = sizeof(MessageHeader);
        if (state.input.size() >= kHeader) {
            const std::size_t length = header_of(state.input).len;
            if (length > kPayloadMax) return "input: such a request breaks the connection";
            if (state.input.size() >= kHeader + length) return "input: more than a request";
        }
        std::size_t replies = 0, event_bytes = 0;
        std::set<std::pair<std::uint32_t, std::string_view>> waiting;
        for (std::size_t i = 0; i < state.output.size(); ++i) {
            const auto& [bytes, watch] = state.output[i];
            const std::string which = item("output", i);
            if (bytes.size() < kHeader || bytes.size() > kHeader + kPayloadMax ||
                header_of(bytes).len != bytes.size() - kHeader) {
                return which + ".bytes: no message";
            }
            const auto type = static_cast<MessageType>(header_of(bytes).type);
            if ((type == MessageType::kWatchEvent) != (watch != MessageState::kReply)) {
                return which + ".watch: an event has one, a reply has none";
            }
            if (watch == MessageState::kReply) {
                if (++replies > Connection::kRepliesWaiting) return which + ": a reply too many";
                continue;
            }
            const auto parts = parts_of_event(std::string_view(bytes).substr(kHeader));
            if (!parts) return which + ".bytes: no event";
            event_bytes += bytes.size();
            if (watch == MessageState::kGone) {
                if (i != 0 || state.sent == 0) return which + ".watch: it is gone";
                continue;
            }
            if (watch > state.watches.size()) return which + ".watch: there is no such one";
            const WatchState& of = state.watches[watch - 1];
            if (parts->second != of.token || !names_within(parts->first, of.path)) {
                return which + ".bytes: not of its watch";
            }
            if (!waiting.emplace(watch, parts->first).second) return which + ": twice";
        }
        const std::size_t most =
            Connection::kEventBytes + (state.watches.size() + 1) * (kHeader + kPayloadMax);
        if (event_bytes > most) return "output: more events than are kept";
        const std::size_t front = state.output.empty() ? 1 : state.output.front().bytes.size();
        if (state.sent >= front) return "sent: more than the message has";
        return {};
    }

    // `gone`: the id of no watch.
    static void streams(Connection& connection, const XenstoreState& state,
                        const std::vector<WatchId>& ids, WatchId gone) {
        connection.broken_ = state.broken;
        connection.have_ = state.input.size();
        if (!state.input.empty()) {
            std::memcpy(connection.input_.data(), state.input.data(), state.input.size());
        }
        if (state.input.size() >= sizeof(MessageHeader)) {
            connection.header_ = header_of(state.input);
        }
        connection.output_.clear();
        connection.waiting_events_.clear();
        connection.replies_waiting_ = connection.queued_bytes_ = connection.event_bytes_ = 0;
        for (const auto& [bytes, watch] : state.output) {
            if (watch == MessageState::kReply) {
                ++connection.replies_waiting_;
                connection.push({bytes, 0, {}});
                continue;
            }
            const WatchId id = watch == MessageState::kGone ? gone : ids[watch - 1];
            const auto parts =
                *parts_of_event(std::string_view(bytes).substr(sizeof(MessageHeader)));
            const std::string path(parts.first);
            connection.event_bytes_ += bytes.size();
            connection.waiting_events_.emplace(id, path);
            connection.push({bytes, id, path});
        }
        connection.front_sent_ = state.sent;
    }
};

XenstoreState Connection::snapshot() const {
    return SavedForm::of(*this);
}

vmm::Expected<void, std::string> Connection::adopt(const XenstoreState& state) {
    if (std::string why = SavedForm::refusal(*this, state); !why.empty()) return Failure{why};
    SavedForm::into(*this, state);
    return {};
}

}  // namespace xenshim::xenstore
