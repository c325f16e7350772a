// The guest's xenstore: one store per VM, served to the guest over its ring page.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "vmm/base/result.h"
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
        : page_(page),
          connection_(store_, domid, again),
          ring_(page, connection_),
          notify_(std::move(notify)),
          again_(std::move(again)) {}

    xenshim::xenstore::Store& store() { return store_; }

    // Whether there was something to do.
    bool service() {
        const bool moved = ring_.service();
        if (moved) notify_();
        if (ring_.unfinished()) again_();
        return moved || ring_.unfinished();
    }

    // Requests and replies that have not passed the ring yet, and all that the store is. The ports
    // of the event channel are the caller's, who makes the same ones for a restored VM.
    using State = xenshim::xenstore::XenstoreState;
    State snapshot() const { return connection_.snapshot(); }
    vmm::Expected<void, std::string> adopt(const State& state) {
        TRY(connection_.adopt(state));
        // A request may wait whose event came before the save, and a reply for room.
        again_();
        return {};
    }

    // The guest finds an empty ring and has to make its watches again, as on a host that it was
    // brought to. The tree stays.
    void begin_anew() {
        connection_.begin_anew();
        xenshim::xenstore::Ring::initialise_page(page_);
    }

  private:
    std::byte* const page_;
    xenshim::xenstore::Store store_;
    xenshim::xenstore::Connection connection_;
    xenshim::xenstore::Ring ring_;
    std::function<void()> notify_;
    std::function<void()> again_;
};

}  // namespace devices::pv
