#include "xenshim/domain/xenstore/host.h"

#include <charconv>
#include <utility>

namespace xenshim::xenstore {

using vmm::Failure;

HostClient::HostClient(Store& store)
    : session_(store, kPrivilegedDomain, [this](const WatchEvent& each) { event(each); }) {}

StoreResult<std::string> HostClient::read(std::string_view path) {
    return session_.read(kNoTransaction, path);
}

StoreResult<std::uint64_t> HostClient::read_number(std::string_view path) {
    const auto text = TRY(read(path));
    std::uint64_t value = 0;
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data(), end, value);
    if (parsed.ec != std::errc{} || parsed.ptr != end) return Failure{StoreError::kEinval};
    return value;
}

StoreResult<void> HostClient::write(std::string_view path, std::string_view value) {
    return session_.write(kNoTransaction, path, value);
}

StoreResult<void> HostClient::write(std::string_view path, std::string_view value,
                                    Permissions perms) {
    // Nobody hears of the node before its permissions are right.
    const Store::Hold hold(session_.store());
    TRY(write(path, value));
    return set_permissions(path, std::move(perms));
}

StoreResult<void> HostClient::set_permissions(std::string_view path, Permissions perms) {
    return session_.set_permissions(kNoTransaction, path, std::move(perms));
}

StoreResult<void> HostClient::remove(std::string_view path) {
    auto removed = session_.remove(kNoTransaction, path);
    if (!removed && removed.error() == StoreError::kEnoent) return {};
    return removed;
}

StoreResult<std::vector<std::string>> HostClient::list(std::string_view path) {
    return TRY(session_.directory(kNoTransaction, path)).children;
}

StoreResult<WatchId> HostClient::watch(std::string_view path, Callback callback) {
    // The first event must not come before the callback can be found.
    const Store::Hold hold(session_.store());
    auto absolute =
        path.starts_with('@') ? std::string(path) : TRY(absolute_path(kPrivilegedDomain, path));
    auto token = std::to_string(++last_token_);
    const WatchId id = TRY(session_.watch(absolute, token));
    watching_.emplace(id, Watching{std::move(absolute), std::move(token), std::move(callback)});
    return id;
}

void HostClient::unwatch(WatchId id) {
    const auto found = watching_.extract(id);
    if (found.empty()) return;
    // Cannot fail: what is in watching_ is in the store.
    (void)session_.unwatch(found.mapped().path, found.mapped().token).has_value();
}

void HostClient::event(const WatchEvent& event) {
    const auto found = watching_.find(event.watch);
    if (found == watching_.end()) return;
    // A copy, because the callback may end its own watch.
    const Callback callback = found->second.callback;
    callback(event.path);
}

}  // namespace xenshim::xenstore
