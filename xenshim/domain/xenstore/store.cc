#include "xenshim/domain/xenstore/store.h"

#include <algorithm>
#include <utility>

#include "xenshim/domain/xenstore/store_parts.h"

namespace xenshim::xenstore {

using vmm::Failure;

static std::string_view leaf_name(std::string_view path) {
    return path.substr(path.rfind('/') + 1);
}

// Whether `path` is `above` or lies beneath it.
static bool is_within(std::string_view path, std::string_view above) {
    if (above == "/") return path.front() == '/';
    return path.starts_with(above) && (path.size() == above.size() || path[above.size()] == '/');
}

static Access access_for(DomainId domid, const Permissions& permissions) {
    if (domid == kPrivilegedDomain || domid == permissions.front().domid) return Access::kBoth;
    for (std::size_t i = 1; i < permissions.size(); ++i) {
        if (permissions[i].domid == domid) return permissions[i].access;
    }
    return permissions.front().access;
}

static bool allows(DomainId domid, const Permissions& permissions, Access wanted) {
    const auto has = static_cast<unsigned>(access_for(domid, permissions));
    return (has & static_cast<unsigned>(wanted)) != 0;
}

// --- The tree ---

Store::Deepest Store::deepest(const NodePtr& root, std::string_view path) {
    Deepest at{root.get(), 1};
    std::size_t start = 1;
    while (start < path.size()) {
        const std::size_t end = std::min(path.find('/', start), path.size());
        const auto child = at.node->children.find(path.substr(start, end - start));
        if (child == at.node->children.end()) break;
        at = {child->second.get(), end};
        start = end + 1;
    }
    return at;
}

const Store::Node* Store::find(const NodePtr& root, std::string_view path) {
    const Deepest at = deepest(root, path);
    return at.length == path.size() ? at.node : nullptr;
}

// Makes every node on the way to `path`, which exists, this tree's own; nodes that a snapshot
// shares are copied.
Store::Node& Store::edit(NodePtr& root, std::string_view path) {
    const auto own = [](NodePtr& node) {
        if (node.use_count() > 1) node = std::make_shared<Node>(*node);
        return node.get();
    };
    Node* node = own(root);
    std::size_t start = 1;
    while (start < path.size()) {
        const std::size_t end = std::min(path.find('/', start), path.size());
        node = own(node->children.find(path.substr(start, end - start))->second);
        start = end + 1;
    }
    return *node;
}

// The size of the node's record in xenstored's database, which is what its quota is about: a
// header, 8 bytes per permission, the value, and the names of the children.
std::size_t Store::record_size(const Node& node) {
    std::size_t size = 24 + 8 * node.permissions.size() + node.value.size();
    for (const auto& [name, child] : node.children)
        size += name.size() + 1;
    return size;
}

void Store::count_subtree(const Node& node, Counts& counts) {
    std::vector<const Node*> left = {&node};
    while (!left.empty()) {
        const Node* at = left.back();
        left.pop_back();
        ++counts[at->permissions.front().domid];
        for (const auto& [name, child] : at->children)
            left.push_back(child.get());
    }
}

// The removal of `node`, which is at `path`, and of all below it, as watchers will hear of it.
// Only a watch on the very path of a node that goes with its parent hears of it by name.
std::vector<Store::Change> Store::removals(const Node& node, const std::string& path,
                                           const Permissions& parent) {
    struct Left {
        std::string path;
        const Node* node;
        const Permissions* parent;
    };
    std::vector<Left> left = {{path, &node, &parent}};
    std::vector<Change> changes;
    while (!left.empty()) {
        const Left at = std::move(left.back());
        left.pop_back();
        const auto& children = at.node->children;
        for (auto child = children.rbegin(); child != children.rend(); ++child) {
            left.push_back(
                {at.path + "/" + child->first, child->second.get(), &at.node->permissions});
        }
        changes.push_back({at.path, !changes.empty(), {at.node->permissions, *at.parent}});
    }
    return changes;
}

Store::Change Store::describe(const View& view, const std::string& path) {
    Change change{path, false, {}};
    if (const Node* node = find(view.root, path)) {
        change.readable_by.push_back(node->permissions);
    }
    if (path != "/") {
        if (const Node* parent = find(view.root, parent_path(path))) {
            change.readable_by.push_back(parent->permissions);
        }
    }
    return change;
}

// --- Operations on a view ---

StoreResult<void> Store::touch(View& view, std::string_view path, bool modified) const {
    if (view.transaction == nullptr) return {};
    auto& touched = view.transaction->touched;
    if (const auto known = touched.find(path); known != touched.end()) {
        known->second = known->second || modified;
        return {};
    }
    if (view.limited() && touched.size() >= quotas_.transaction_nodes) {
        return Failure{StoreError::kEnospc};
    }
    touched.emplace(path, modified);
    return {};
}

// The node at `path` if the caller has the access. What is not there is ENOENT only to those who
// have that access to the nearest node above: others may not even learn that it is missing.
StoreResult<const Store::Node*> Store::lookup(View& view, const std::string& path, Access wanted) {
    TRY(touch(view, path, false));
    const Deepest at = deepest(view.root, path);
    if (!allows(view.domid, at.node->permissions, wanted)) return Failure{StoreError::kEacces};
    if (at.length != path.size()) return Failure{StoreError::kEnoent};
    return at.node;
}

bool Store::fits(const View& view, std::size_t size) const {
    return !view.limited() || size < quotas_.entry_size;
}

bool Store::may_own(const View& view, std::size_t more) const {
    if (!view.limited()) return true;
    auto owned = static_cast<std::ptrdiff_t>(node_count(view.domid) + more);
    if (view.transaction != nullptr) {
        const auto in_it = view.transaction->counts.find(view.domid);
        if (in_it != view.transaction->counts.end()) owned += in_it->second;
    }
    return owned <= static_cast<std::ptrdiff_t>(quotas_.nodes);
}

void Store::account(DomainId owner, std::ptrdiff_t change) {
    total_nodes_ += static_cast<std::size_t>(change);
    const auto owned = owned_.try_emplace(owner, 0).first;
    owned->second += static_cast<std::size_t>(change);
    if (owned->second == 0) owned_.erase(owned);
}

void Store::account(View& view, DomainId owner, std::ptrdiff_t change) {
    if (view.transaction == nullptr) return account(owner, change);
    view.transaction->counts[owner] += change;
}

// Makes the node at `path`, which is not there, and what is missing above it. All is checked
// before anything is changed.
StoreResult<void> Store::create(View& view, const std::string& path, std::string_view value) {
    const Deepest above = deepest(view.root, path);
    const std::string_view above_path = std::string_view(path).substr(0, above.length);
    std::vector<std::size_t> ends;  // where in `path` each new node's own path ends
    for (std::size_t end = above.length; end < path.size();) {
        const std::size_t start = end == 1 ? 1 : end + 1;
        end = std::min(path.find('/', start), path.size());
        ends.push_back(end);
    }

    Permissions permissions = above.node->permissions;
    // An unprivileged domain owns what it creates; the rest is inherited.
    if (view.limited()) permissions.front().domid = view.domid;

    if (!may_own(view, ends.size())) return Failure{StoreError::kEnospc};
    const std::size_t empty_record = 24 + 8 * permissions.size();
    std::size_t record = view.limited() ? record_size(*above.node) : 0;
    for (const std::size_t end : ends) {
        record += leaf_name(std::string_view(path).substr(0, end)).size() + 1;
        if (!fits(view, record)) return Failure{StoreError::kEnospc};
        record = empty_record;
    }
    if (!fits(view, record + value.size())) return Failure{StoreError::kEnospc};

    TRY(touch(view, above_path, true));
    for (const std::size_t end : ends) {
        TRY(touch(view, std::string_view(path).substr(0, end), true));
    }

    Node* parent = &edit(view.root, above_path);
    parent->generation = ++generation_;
    for (const std::size_t end : ends) {
        auto node = std::make_shared<Node>();
        node->permissions = permissions;
        node->generation = ++generation_;
        Node* made = node.get();
        parent->children.emplace(leaf_name(std::string_view(path).substr(0, end)), std::move(node));
        account(view, permissions.front().domid, 1);
        parent = made;
    }
    parent->value = value;
    return {};
}

StoreResult<void> Store::replace(View& view, const std::string& path, std::string_view value) {
    const Node* old = find(view.root, path);
    if (view.limited() && !fits(view, record_size(*old) - old->value.size() + value.size())) {
        return Failure{StoreError::kEnospc};
    }
    TRY(touch(view, path, true));
    Node& node = edit(view.root, path);
    node.value = value;
    node.generation = ++generation_;
    return {};
}

StoreResult<void> Store::erase(View& view, const std::string& path) {
    const Node* node = find(view.root, path);
    const Node* above = find(view.root, parent_path(path));
    auto changes = removals(*node, path, above->permissions);
    TRY(touch(view, parent_path(path), true));
    for (const auto& each : changes)
        TRY(touch(view, each.path, true));
    for (auto& each : changes)
        changed(view, std::move(each));

    Counts counts;
    count_subtree(*node, counts);
    for (const auto& [owner, count] : counts)
        account(view, owner, -count);
    Node& parent = edit(view.root, parent_path(path));
    parent.children.erase(std::string(leaf_name(path)));
    parent.generation = ++generation_;
    return {};
}

void Store::changed(View& view, Change change) {
    if (view.transaction == nullptr) return publish(change);
    auto& all = view.transaction->changes;
    const auto [known, is_new] = view.transaction->change_index.emplace(change.path, all.size());
    if (is_new) {
        all.push_back(std::move(change));
        return;
    }
    Change& earlier = all[known->second];
    earlier.exact = earlier.exact && change.exact;
    for (auto& permissions : change.readable_by) {
        const auto end = earlier.readable_by.end();
        if (std::find(earlier.readable_by.begin(), end, permissions) == end) {
            earlier.readable_by.push_back(std::move(permissions));
        }
    }
}

// --- Transactions ---

bool Store::conflicts(const Transaction& transaction) const {
    for (const auto& [path, modified] : transaction.touched) {
        const Node* then = find(transaction.base, path);
        const Node* now = find(root_, path);
        if ((then == nullptr) != (now == nullptr)) return true;
        if (now != nullptr && now->generation != then->generation) return true;
    }
    return false;
}

// Brings what a transaction without conflicts has changed into the store. A node's generation
// covers its list of children, so what it changed, and the parents of that, are here as they were
// at its start; the rest of the tree may be different and is left alone. `touched` is sorted, so
// parents come before their children.
void Store::merge(const Transaction& transaction) {
    for (const auto& [path, modified] : transaction.touched) {
        if (!modified) continue;
        const Node* wanted = find(transaction.root, path);
        const bool present = find(root_, path) != nullptr;
        if (wanted != nullptr) {
            if (!present) {
                edit(root_, parent_path(path))
                    .children.emplace(leaf_name(path), std::make_shared<Node>());
            }
            Node& node = edit(root_, path);
            node.value = wanted->value;
            node.permissions = wanted->permissions;
            node.generation = ++generation_;
        } else if (present) {
            edit(root_, parent_path(path)).children.erase(std::string(leaf_name(path)));
        }
    }
    for (const auto& [owner, count] : transaction.counts)
        account(owner, count);
}

StoreResult<void> Store::commit(const Session& session, const Transaction& transaction) {
    if (conflicts(transaction)) return Failure{StoreError::kEagain};
    if (!session.privileged()) {
        // Other transactions of the domain may have used up the quota since.
        for (const auto& [owner, count] : transaction.counts) {
            const auto after = static_cast<std::ptrdiff_t>(node_count(owner)) + count;
            if (count > 0 && after > static_cast<std::ptrdiff_t>(quotas_.nodes)) {
                return Failure{StoreError::kEnospc};
            }
        }
    }
    merge(transaction);
    for (const auto& change : transaction.changes)
        publish(change);
    return {};
}

// --- Watches ---

void Store::publish(const Change& change) {
    for (const auto& [id, watch] : watches_) {
        const bool concerned =
            change.exact ? change.path == watch.absolute : is_within(change.path, watch.absolute);
        if (!concerned) continue;
        const DomainId domid = watch.session->domid();
        const bool readable = std::any_of(
            change.readable_by.begin(), change.readable_by.end(),
            [domid](const Permissions& each) { return allows(domid, each, Access::kRead); });
        if (readable) pending_.push_back({id, change.path});
    }
}

// Special events are for domain 0 alone, which is xenstored's default since XSA-115.
void Store::fire_special(std::string_view name) {
    for (const auto& [id, watch] : watches_) {
        if (watch.absolute == name && watch.session->privileged()) {
            pending_.push_back({id, std::string(name)});
        }
    }
}

void Store::deliver() {
    if (delivering_) return;  // a callback changed something: the loop below will come to it
    delivering_ = true;
    while (!pending_.empty()) {
        const Pending next = std::move(pending_.front());
        pending_.pop_front();
        const auto found = watches_.find(next.watch);
        if (found == watches_.end()) continue;
        const Watch& watch = found->second;
        if (!watch.session->sink_) continue;
        WatchEvent event{watch.id, watch.given, next.path, watch.token};
        if (watch.given != watch.absolute) {
            // Relative: cut what was put in front at registration.
            event.path.erase(0, watch.absolute.size() - watch.given.size());
        }
        watch.session->sink_(event);
    }
    delivering_ = false;
}

Store::Hold::Hold(Store& store) : store_(store) {
    ++store_.holds_;
}

Store::Hold::~Hold() {
    if (--store_.holds_ == 0) store_.deliver();
}

// --- Store ---

Store::Store(Quotas quotas) : quotas_(quotas), root_(std::make_shared<Node>()) {
    root_->permissions = {{kPrivilegedDomain, Access::kNone}};
    root_->generation = ++generation_;
    account(kPrivilegedDomain, 1);
}

Store::~Store() = default;

void Store::introduce_domain(DomainId domid) {
    const Hold hold(*this);
    if (introduced_.insert(domid).second) fire_special("@introduceDomain");
}

void Store::release_domain(DomainId domid) {
    const Hold hold(*this);
    if (introduced_.erase(domid) != 0) fire_special("@releaseDomain");
}

bool Store::is_introduced(DomainId domid) const {
    return domid == kPrivilegedDomain || introduced_.contains(domid);
}

std::size_t Store::node_count(DomainId owner) const {
    const auto owned = owned_.find(owner);
    return owned == owned_.end() ? 0 : owned->second;
}

std::size_t Store::watch_count(DomainId domid) const {
    std::size_t count = 0;
    for (const Session* session : sessions_) {
        if (session->domid() == domid) count += session->watch_total_;
    }
    return count;
}

std::size_t Store::transaction_count(DomainId domid) const {
    std::size_t count = 0;
    for (const Session* session : sessions_) {
        if (session->domid() == domid) count += session->transactions_.size();
    }
    return count;
}

bool Store::accounting_holds() const {
    Counts counts;
    count_subtree(*root_, counts);
    std::size_t total = 0;
    for (const auto& [owner, count] : counts) {
        if (node_count(owner) != static_cast<std::size_t>(count)) return false;
        total += static_cast<std::size_t>(count);
    }
    if (total != total_nodes_ || counts.size() != owned_.size()) return false;

    std::size_t watches = 0;
    for (const Session* session : sessions_) {
        const auto own = std::count_if(watches_.begin(), watches_.end(), [&](const auto& each) {
            return each.second.session == session;
        });
        if (static_cast<std::size_t>(own) != session->watch_total_) return false;
        watches += session->watch_total_;
        for (const auto& [id, transaction] : session->transactions_) {
            Counts before;
            Counts after;
            count_subtree(*transaction->base, before);
            count_subtree(*transaction->root, after);
            for (const auto& [owner, count] : transaction->counts)
                before[owner] += count;
            std::erase_if(before, [](const auto& each) { return each.second == 0; });
            if (before != after) return false;
        }
    }
    return watches == watches_.size();
}

}  // namespace xenshim::xenstore
