// What a domain's device model may ask for: as hvm_ops until 4.8, as dm_ops since 4.9. A guest is
// nobody's device model and is refused; with the VM's privilege (DomainConfig::device_model) it may
// change types of its own pages and declare them modified, so that the continuations of these
// operations can be tested.
#pragma once

#include <cstdint>

#include "xenshim/abi/continuation.h"
#include "xenshim/hypercall/call.h"

namespace xenshim {

// Whether the caller may act on `domid` as its device model: Xen's refusals in Xen's order.
GuestResult<void> require_device_model(Call& call, std::uint16_t domid);

// A range of pages that an operation goes through. From guest memory: judged by `check_range`.
struct PageRange {
    std::uint64_t first = 0;
    std::uint64_t count = 0;
};
GuestResult<void> check_range(Call& call, PageRange range);

// hvmmem_type_t as a guest may ask for it: -EINVAL for those that only an ioreq server brings.
GuestResult<MemType> settable_type(std::uint32_t type);

// Does `work` for each page from `start` on. It may stop where the operation's rule lets it, and
// answers then how far it came.
template <class Work>
abi::Outcome for_each_page(Call& call, const abi::ContinuationRule& rule, PageRange range,
                           std::uint64_t start, Work&& work) {
    const bool continues = rule.kind != abi::ContinuationClass::kNone;
    for (std::uint64_t i = start; i < range.count; ++i) {
        if (continues && i != start && i % rule.granularity == 0 &&
            call.should_yield(i / rule.granularity)) {
            return abi::Continue{.units_done = i};
        }
        const GuestResult<void> done = work(range.first + i);
        if (!done) return Call::fail(done.error());
    }
    return Call::ok();
}

// The work of set_mem_type.
GuestResult<void> set_page_type(Call& call, std::uint64_t gfn, MemType type);

}  // namespace xenshim
