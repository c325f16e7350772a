// The sub-ops that are for toolstacks and device models. How each is refused was measured on Xen
// 4.17.7; which check comes first is visible to the guest.
#include <algorithm>
#include <array>

#include "xenshim/abi/release_rules.h"
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
    return Call::fail(pod_target_refusal(call.profile()));
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

namespace {

// A 32-bit caller's structure and list are translated before anything is refused (compat_memory_op;
// its buffer has room for so many frames).
GuestResult<void> translate_resource(Call& call, std::uint64_t start) {
    const auto want = TRY(call.read_wide<xen_mem_acquire_resource>(call.handle(1)));
    const bool has_list = want.frame_list != 0;
    TRY(may_translate_resource(call.profile(), want.nr_frames, has_list, start));
    if (!has_list || want.nr_frames == 0) return {};
    if (!call.profile().acquire_resource_continues) start = 0;
    std::array<std::uint32_t, kMostTranslatedFrames> frames;
    const std::uint64_t count =
        std::min<std::uint64_t>(want.nr_frames - start, kMostTranslatedFrames);
    const auto list = std::as_writable_bytes(std::span(frames).first(count));
    if (!call.access().read(call.element({want.frame_list}, start, 4), list)) {
        return refuse(XEN_EFAULT);
    }
    return {};
}

// As 4.11 has it: by what the structure says. How many frames a call may name is told to anybody.
Outcome acquire_resource_by_argument(Call& call) {
    auto want = call.read_wide<xen_mem_acquire_resource>(call.handle(1));
    if (!want) return Call::fail(want.error());
    const std::uint16_t own = call.domain().config().domid;
    if (const auto may = may_ask_for_resource(want->domid, own, want->nr_frames, want->pad,
                                              want->frame_list != 0);
        !may) {
        return Call::fail(may.error());
    }
    // What a 32-bit caller got back was its own 0 (mended in 2021, 414be7b663).
    if (!call.is_64bit()) return Call::ok();
    want->nr_frames = kMostResourceFrames;
    return Call::result(call.write_wide<xen_mem_acquire_resource>(call.handle(1), *want));
}

}  // namespace

// Frames of another domain in a translated guest's map are not counted as they should be: Xen
// lets the hardware domain alone have them, and says so before anything else.
Outcome acquire_resource(Call& call, std::uint64_t start) {
    if (!call.is_64bit()) {
        if (const auto done = translate_resource(call, start); !done) {
            return Call::fail(done.error());
        }
    }
    if (!refuses_resource_unread(call.profile())) return acquire_resource_by_argument(call);
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
