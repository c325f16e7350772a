// The store as our own backends and the command line use it: as domain 0, outside transactions,
// with a callback per watch.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "xenshim/domain/xenstore/store.h"

namespace xenshim::xenstore {

class HostClient {
  public:
    // Called with the absolute path that changed, once for the registration itself, with the
    // store's lock held. It may use the store and this client.
    using Callback = std::function<void(const std::string& path)>;

    explicit HostClient(Store& store);

    StoreResult<std::string> read(std::string_view path);
    // The value as a decimal number; EINVAL when it is none. Guests write such nodes.
    StoreResult<std::uint64_t> read_number(std::string_view path);
    StoreResult<void> write(std::string_view path, std::string_view value);
    StoreResult<void> write(std::string_view path, std::string_view value, Permissions perms);
    StoreResult<void> set_permissions(std::string_view path, Permissions perms);
    // Succeeds when the node is not there.
    StoreResult<void> remove(std::string_view path);
    StoreResult<std::vector<std::string>> list(std::string_view path);

    StoreResult<WatchId> watch(std::string_view path, Callback callback);
    void unwatch(WatchId id);

  private:
    struct Watching {
        std::string path;
        std::string token;
        Callback callback;
    };
    void event(const WatchEvent& event);

    std::map<WatchId, Watching> watching_;
    std::uint64_t last_token_ = 0;
    Session session_;  // last: its destructor ends the events
};

}  // namespace xenshim::xenstore
