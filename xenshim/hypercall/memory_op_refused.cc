// The sub-ops that are for toolstacks and device models. How each is refused was measured on Xen
// 4.17.7; which check comes first is visible to the guest.
#include "xenshim/hypercall/memory_op_parts.h"

namespace xenshim::memory_ops {

using namespace abi;

Outcome pod_target(Call& call) {
    const auto want = call.read_wide<xen_pod_target>(call.handle(1));
    if (!want) return Call::fail(want.error());
    // Domain 0 is no HVM guest, of which there could be a target. 3.4 said so of any.
    if (const auto self = call.require_self(want->domid, XEN_EINVAL); !self) {
        return Call::fail(self.error());
    }
    return Call::fail(call.profile().since(4, 0) ? XEN_EPERM : XEN_EINVAL);
}

Outcome access_op(Call& call) {
    const auto want = call.read_wide<xen_mem_access_op>(call.handle(1));
    if (!want) return Call::fail(want.error());
    // It is about another domain, by its number: DOMID_SELF is nobody's.
    if (want->domid == call.domain().config().domid) return Call::fail(XEN_EPERM);
    return Call::fail(want->domid == 0 ? XEN_EINVAL : XEN_ESRCH);
}

Outcome claim_pages(Call& call) {
    const auto want = call.read_wide<xen_memory_reservation>(call.handle(1));
    if (!want) return Call::fail(want.error());
    if (want->extent_start != 0 || want->extent_order != 0 || want->mem_flags != 0) {
        return Call::fail(XEN_EINVAL);
    }
    // By number alone, as above; and a domain that is not there is a bad argument.
    const bool known = want->domid == 0 || want->domid == call.domain().config().domid;
    return Call::fail(known ? XEN_EPERM : XEN_EINVAL);
}

// Frames of another domain in a translated guest's map are not counted as they should be: Xen
// lets the hardware domain alone have them, and says so before anything else.
Outcome acquire_resource(Call& call) {
    if (!call.is_64bit()) {  // whose structure is translated first
        const auto want = call.read_wide<xen_mem_acquire_resource>(call.handle(1));
        if (!want) return Call::fail(want.error());
    }
    return Call::fail(XEN_EACCES);
}

// Until 3.3: machine frames of a privileged domain's client.
Outcome translate_gpfn_list(Call& call) {
    struct Head {  // {domid, nr_gpfns, two lists}; the domain alone matters
        std::uint16_t domid;
    };
    const auto want = call.read<Head>(call.handle(1));
    if (!want) return Call::fail(want.error());
    if (const auto self = call.require_self(want->domid, XEN_EPERM); !self) {
        return Call::fail(self.error());
    }
    return Call::fail(XEN_EPERM);
}

}  // namespace xenshim::memory_ops
