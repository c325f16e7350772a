// The guest's end of the store: struct xenstore_domain_interface (xen/io/xs_wire.h), a page with
// a ring of 1024 bytes each way. The guest may write any byte of it at any time, so an index is
// loaded once, checked, and used from the copy; the worst that a guest can do is to break its
// own connection.
#pragma once

#include <cstddef>
#include <cstdint>

#include "xenshim/domain/xenstore/wire.h"

namespace xenshim::xenstore {

inline constexpr std::size_t kRingSize = 1024;

class Ring {
  public:
    // `page` is the guest's 4 KiB page in host memory, and must stay mapped while this lives.
    Ring(std::byte* page, Connection& connection) : page_(page), connection_(connection) {}

    // What the domain builder leaves there: zeroes, and the features that the server has (the
    // error field; not reconnection).
    static void initialise_page(std::byte* page);

    // Moves what can be moved, both ways. True when the guest must be notified: it has replies
    // to read or room to write that it did not have before. A watch callback of ours that runs
    // inside may call it again; that does nothing, the outer call goes on until all is done.
    [[nodiscard]] bool service();
    // The last service() stopped because it had done enough for one call, not because it ran out
    // of work: call it again without waiting for the guest.
    bool unfinished() const { return unfinished_; }
    bool broken() const { return connection_.broken(); }

  private:
    bool take_requests(std::size_t& budget);
    bool give_output();
    void fail(std::uint32_t error);

    std::byte* page_;
    Connection& connection_;
    bool unfinished_ = false;
    bool busy_ = false;
};

}  // namespace xenshim::xenstore
