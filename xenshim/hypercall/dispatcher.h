// From a request to a reply: the refusals that come before any handler, the table of hypercalls,
// and the encoding of continuations.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "xenshim/abi/call.h"
#include "xenshim/hypercall/call.h"

namespace xenshim {

struct HypercallRow {
    std::uint32_t number;
    std::string_view name;
    abi::Outcome (*handler)(Call&);
};

// Every hypercall that does not answer -ENOSYS.
std::span<const HypercallRow> hypercalls();

// Runs one call, without encoding: what multicall does for each of its entries.
abi::Outcome dispatch(Call& call);

// The registers with which a call that stopped goes on; what of its progress lies in the guest's
// structure has been written there. Nothing: that memory cannot be written.
std::optional<abi::Reissue> reissue(Call& call, const abi::Continue& progress);

// Runs one call as a transport got it.
abi::Reply run_hypercall(Domain& domain, GuestAccess& access, Preemption& preemption, unsigned vcpu,
                         const abi::Request& request);

}  // namespace xenshim
