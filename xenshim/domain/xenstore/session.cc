// What a client of the store asks for: paths, permissions and quotas are judged here, and the tree
// is changed by the store.
#include <utility>

#include "xenshim/domain/xenstore/store_parts.h"

namespace xenshim::xenstore {

using vmm::Failure;

Session::Session(Store& store, DomainId domid, Sink sink)
    : store_(store), domid_(domid), sink_(std::move(sink)) {
    store_.sessions_.insert(this);
}

Session::~Session() {
    reset();
    store_.sessions_.erase(this);
}

StoreResult<Store::View> Session::view(TransactionId in) {
    if (in == kNoTransaction) return Store::View{domid_, store_.root_, nullptr};
    const auto found = transactions_.find(in);
    if (found == transactions_.end()) return Failure{StoreError::kEnoent};
    return Store::View{domid_, found->second->root, found->second.get()};
}

StoreResult<std::string> Session::read(TransactionId in, std::string_view path) {
    auto view = TRY(this->view(in));
    const auto absolute = TRY(absolute_path(domid_, path));
    return TRY(store_.lookup(view, absolute, Access::kRead))->value;
}

StoreResult<DirectoryListing> Session::directory(TransactionId in, std::string_view path) {
    auto view = TRY(this->view(in));
    const auto absolute = TRY(absolute_path(domid_, path));
    const auto* node = TRY(store_.lookup(view, absolute, Access::kRead));
    DirectoryListing listing;
    listing.generation = node->generation;
    for (const auto& [name, child] : node->children)
        listing.children.push_back(name);
    return listing;
}

StoreResult<Permissions> Session::permissions(TransactionId in, std::string_view path) {
    auto view = TRY(this->view(in));
    const auto absolute = TRY(absolute_path(domid_, path));
    return TRY(store_.lookup(view, absolute, Access::kRead))->permissions;
}

StoreResult<void> Session::write(TransactionId in, std::string_view path, std::string_view value) {
    const Store::Hold hold(store_);
    auto view = TRY(this->view(in));
    const auto absolute = TRY(absolute_path(domid_, path));
    // What is in the store can be read over the wire.
    if (value.size() > kPayloadMax) return Failure{StoreError::kE2big};
    const auto found = store_.lookup(view, absolute, Access::kWrite);
    if (found) {
        TRY(store_.replace(view, absolute, value));
    } else if (found.error() == StoreError::kEnoent) {
        TRY(store_.create(view, absolute, value));
    } else {
        return Failure{found.error()};
    }
    store_.changed(view, Store::describe(view, absolute));
    return {};
}

StoreResult<void> Session::mkdir(TransactionId in, std::string_view path) {
    const Store::Hold hold(store_);
    auto view = TRY(this->view(in));
    const auto absolute = TRY(absolute_path(domid_, path));
    const auto found = store_.lookup(view, absolute, Access::kWrite);
    if (found) return {};
    if (found.error() != StoreError::kEnoent) return Failure{found.error()};
    TRY(store_.create(view, absolute, {}));
    store_.changed(view, Store::describe(view, absolute));
    return {};
}

StoreResult<void> Session::remove(TransactionId in, std::string_view path) {
    const Store::Hold hold(store_);
    auto view = TRY(this->view(in));
    const auto absolute = TRY(absolute_path(domid_, path));
    const auto found = store_.lookup(view, absolute, Access::kWrite);
    if (!found) {
        if (found.error() != StoreError::kEnoent) return Failure{found.error()};
        // Not there already is fine, but not when its parent is missing too.
        TRY(store_.touch(view, parent_path(absolute), false));
        if (Store::find(view.root, parent_path(absolute)) != nullptr) return {};
        return Failure{StoreError::kEnoent};
    }
    if (absolute == "/") return Failure{StoreError::kEinval};
    return store_.erase(view, absolute);
}

StoreResult<void> Session::set_permissions(TransactionId in, std::string_view path,
                                           Permissions perms) {
    const Store::Hold hold(store_);
    auto view = TRY(this->view(in));
    if (perms.empty()) return Failure{StoreError::kEinval};
    if (!privileged() && perms.size() > store_.quotas_.permissions) {
        return Failure{StoreError::kEnospc};
    }
    if (is_special(path) && !privileged()) return Failure{StoreError::kEacces};
    const auto absolute = TRY(absolute_path(domid_, path));
    const auto* old = TRY(store_.lookup(view, absolute, Access::kWrite));
    const DomainId owner = old->permissions.front().domid;
    if (!privileged()) {
        if (owner != domid_) return Failure{StoreError::kEacces};
        if (perms.front().domid != owner) return Failure{StoreError::kEperm};
    }
    const std::size_t size =
        Store::record_size(*old) + 8 * perms.size() - 8 * old->permissions.size();
    if (!store_.fits(view, size)) return Failure{StoreError::kEnospc};
    TRY(store_.touch(view, absolute, true));

    // Those who could read it before hear of it as well as those who now can.
    auto change = Store::describe(view, absolute);
    change.readable_by.push_back(perms);
    store_.account(view, owner, -1);
    store_.account(view, perms.front().domid, 1);
    auto& node = Store::edit(view.root, absolute);
    node.permissions = std::move(perms);
    node.generation = ++store_.generation_;
    store_.changed(view, std::move(change));
    return {};
}

StoreResult<TransactionId> Session::start_transaction() {
    if (!privileged() && store_.transaction_count(domid_) >= store_.quotas_.transactions) {
        return Failure{StoreError::kEnospc};
    }
    do {
        ++last_transaction_;
    } while (last_transaction_ == kNoTransaction || transactions_.contains(last_transaction_));
    auto transaction = std::make_unique<Store::Transaction>();
    transaction->base = store_.root_;
    transaction->root = store_.root_;
    transactions_.emplace(last_transaction_, std::move(transaction));
    return last_transaction_;
}

StoreResult<void> Session::end_transaction(TransactionId in, bool commit) {
    const Store::Hold hold(store_);
    const auto open = transactions_.extract(in);
    if (open.empty()) return Failure{StoreError::kEnoent};
    if (!commit) return {};
    return store_.commit(*this, *open.mapped());
}

bool Session::has_transaction(TransactionId in) const {
    return transactions_.contains(in);
}

StoreResult<WatchId> Session::watch(std::string_view path, std::string_view token) {
    const Store::Hold hold(store_);
    std::string absolute;
    if (is_special(path)) {
        if (path.size() > kRelativePathMax) return Failure{StoreError::kEinval};
        absolute = path;
    } else {
        absolute = TRY(absolute_path(domid_, path));
    }
    for (const auto& [id, watch] : store_.watches_) {
        if (watch.session == this && watch.absolute == absolute && watch.token == token) {
            return Failure{StoreError::kEexist};
        }
    }
    if (!privileged() && store_.watch_count(domid_) >= store_.quotas_.watches) {
        return Failure{StoreError::kE2big};
    }
    const WatchId id = ++store_.last_watch_;
    store_.pending_.push_back({id, absolute});
    store_.watches_.emplace(
        id, Store::Watch{this, id, std::move(absolute), std::string(path), std::string(token)});
    ++watch_total_;
    return id;
}

StoreResult<WatchId> Session::unwatch(std::string_view path, std::string_view token) {
    const auto absolute = is_special(path) ? StoreResult<std::string>(std::string(path))
                                           : absolute_path(domid_, path);
    if (!absolute) return Failure{StoreError::kEnoent};  // nothing can be watched under it
    for (const auto& [id, watch] : store_.watches_) {
        if (watch.session != this || watch.absolute != *absolute || watch.token != token) continue;
        const WatchId found = id;
        store_.watches_.erase(found);
        --watch_total_;
        return found;
    }
    return Failure{StoreError::kEnoent};
}

void Session::reset() {
    std::erase_if(store_.watches_,
                  [this](const auto& each) { return each.second.session == this; });
    watch_total_ = 0;
    transactions_.clear();
}

}  // namespace xenshim::xenstore
