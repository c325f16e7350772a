// The guest's xenstore: one store per VM, served to the guest over its ring page.
#pragma once

#include <cstddef>
#include <functional>

#include "xenshim/domain/xenstore/nodes.h"
#include "xenshim/domain/xenstore/ring.h"
#include "xenshim/domain/xenstore/store.h"
#include "xenshim/domain/xenstore/wire.h"

namespace devices::pv {

// All functions are for one thread, the event loop's.
class XenstoreService {
  public:
    // `page` is the guest's ring page; `notify` sends its event; `again` has service() called once
    // more soon.
    XenstoreService(xenshim::xenstore::DomainId domid, std::byte* page,
                    std::function<void()> notify, std::function<void()> again)
        : connection_(store_, domid, again),
          ring_(page, connection_),
          notify_(std::move(notify)),
          again_(std::move(again)) {}

    xenshim::xenstore::Store& store() { return store_; }

    void service() {
        if (ring_.service()) notify_();
        if (ring_.unfinished()) again_();
    }

  private:
    xenshim::xenstore::Store store_;
    xenshim::xenstore::Connection connection_;
    xenshim::xenstore::Ring ring_;
    std::function<void()> notify_;
    std::function<void()> again_;
};

}  // namespace devices::pv
