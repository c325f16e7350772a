// HYPERVISOR_dm_op (Xen's arch/x86/hvm/dm.c, common/dm.c; since 4.9), and what it shares with the
// hvm_ops that it replaced.
#include <algorithm>
#include <array>

#include "xenshim/abi/device_structs.h"
#include "xenshim/abi/other_numbers.h"
#include "xenshim/abi/release_rules.h"
#include "xenshim/hypercall/device_model.h"
#include "xenshim/hypercall/handlers.h"

namespace xenshim {

using namespace abi;

GuestResult<void> require_device_model(Call& call, std::uint16_t domid) {
    const DomainConfig& config = call.domain().config();
    return may_model_devices(call.profile(), domid, config.domid, config.device_model);
}

GuestResult<void> check_range(Call& call, PageRange range) {
    const std::uint64_t last = range.first + range.count - 1;
    if (last < range.first || last > call.domain().physmap().accounts().highest_gfn) {
        return refuse(XEN_EINVAL);
    }
    return {};
}

GuestResult<MemType> settable_type(std::uint32_t type) {
    if (type > static_cast<std::uint32_t>(MemType::kMmioDm)) return refuse(XEN_EINVAL);
    return static_cast<MemType>(type);
}

GuestResult<void> set_page_type(Call& call, std::uint64_t gfn, MemType type) {
    if (!call.domain().physmap().set_mem_type(gfn, type)) return refuse(XEN_EINVAL);
    return {};
}

namespace {

constexpr std::size_t kMostBuffers = 2;
using Buffers = std::array<xen_dm_op_buf<W64>, kMostBuffers>;

// The operation's own structure, behind the header in buffer 0.
template <class T>
GuestResult<T> read_operation(Call& call, const Buffers& buffers) {
    if (buffers[0].size < sizeof(xen_dm_op_header) + sizeof(T)) return refuse(XEN_EFAULT);
    return call.read<T>(call.element({buffers[0].h}, 1, sizeof(xen_dm_op_header)));
}

ContinuationRule rule_of(Call& call, std::uint32_t op) {
    return continuation_rule(call.profile(), call.request(), op);
}

Outcome set_mem_type(Call& call, const Buffers& buffers, const xen_dm_op_set_mem_type& op) {
    const PageRange range{op.first_pfn, op.nr};
    if (op.pad != 0 || !check_range(call, range)) return Call::fail(XEN_EINVAL);
    const auto type = settable_type(op.mem_type);
    if (!type) return Call::fail(type.error());
    Outcome outcome =
        for_each_page(call, rule_of(call, XEN_DMOP_set_mem_type), range, 0,
                      [&](std::uint64_t gfn) { return set_page_type(call, gfn, *type); });
    if (auto* progress = std::get_if<Continue>(&outcome)) {
        progress->structure = buffers[0].h;
        progress->structure_op = XEN_DMOP_set_mem_type;
    }
    return outcome;
}

// Extents from the last to the first; a look at whether to stop after each 256 pages, if anything
// is left then. Xen does all this only while a migration logs dirty pages; we always do.
Outcome modified_memory(Call& call, const Buffers& buffers,
                        const xen_dm_op_modified_memory& operation) {
    using Extent = xen_dm_op_modified_memory_extent;
    const std::uint64_t batch = rule_of(call, XEN_DMOP_modified_memory).granularity;
    Physmap& physmap = call.domain().physmap();
    const std::uint64_t highest = physmap.accounts().highest_gfn;
    std::uint32_t left = operation.nr_extents, done = operation.opaque;
    if (buffers[1].size / sizeof(Extent) < left) return Call::fail(XEN_EINVAL);
    std::uint64_t pages = 0;
    for (std::uint64_t room = batch; left > 0;) {
        const auto extent =
            call.read<Extent>(call.element({buffers[1].h}, left - 1, sizeof(Extent)));
        if (!extent) return Call::fail(extent.error());
        const std::uint64_t end = extent->first_pfn + extent->nr;
        if (extent->pad != 0 || end <= extent->first_pfn || end > highest || done >= extent->nr) {
            return Call::fail(XEN_EINVAL);
        }
        const std::uint64_t from = extent->first_pfn + done;
        const std::uint64_t count = std::min<std::uint64_t>(extent->nr - done, room);
        done += static_cast<std::uint32_t>(count);
        if (done == extent->nr) {
            --left;
            done = 0;
        }
        for (std::uint64_t gfn = from; gfn < from + count; ++gfn) {
            physmap.mark_modified(gfn);
        }
        pages += count;
        room -= count;
        if (room != 0 || left == 0) continue;
        if (call.should_yield(pages / batch)) {
            return Continue{.units_done = done,
                            .structure = buffers[0].h,
                            .structure_op = XEN_DMOP_modified_memory,
                            .groups_done = operation.nr_extents - left};
        }
        room = batch;
    }
    return Call::ok();
}

template <class T, class Work>
Outcome with_operation(Call& call, const Buffers& buffers, const xen_dm_op_header& header,
                       Work&& work) {
    const auto operation = read_operation<T>(call, buffers);
    if (!operation) return Call::fail(operation.error());
    if (header.pad != 0) return Call::fail(XEN_EINVAL);
    return work(call, buffers, *operation);
}

}  // namespace

Outcome dm_op(Call& call) {
    const auto domid = call.arg<std::uint16_t>(0);
    const auto count = call.arg<std::uint32_t>(1);
    if (count == 0) {
        if (const auto may = may_have_no_buffers(call.profile()); !may) {
            return Call::fail(may.error());
        }
    }
    if (count > kMostBuffers) return Call::fail(XEN_E2BIG);
    Buffers buffers{};  // one that is not given has no bytes (XSA-239's class)
    const std::uint64_t entry_bytes =
        call.is_64bit() ? sizeof(xen_dm_op_buf<W64>) : sizeof(xen_dm_op_buf<W32>);
    for (std::size_t i = 0; i < count; ++i) {
        const auto buffer =
            call.read_wide<xen_dm_op_buf>(call.element(call.handle(2), i, entry_bytes));
        if (!buffer) return Call::fail(buffer.error());
        buffers[i] = *buffer;
    }
    if (const auto may = require_device_model(call, domid); !may) return Call::fail(may.error());

    if (buffers[0].size < sizeof(xen_dm_op_header)) return Call::fail(XEN_EFAULT);
    const auto header = call.read<xen_dm_op_header>({buffers[0].h});
    if (!header) return Call::fail(header.error());
    switch (header->op) {
        case XEN_DMOP_modified_memory:
            return with_operation<xen_dm_op_modified_memory>(call, buffers, *header,
                                                             modified_memory);
        case XEN_DMOP_set_mem_type:
            return with_operation<xen_dm_op_set_mem_type>(call, buffers, *header, set_mem_type);
        // The privilege is for these two: nobody's devices are emulated by a guest here.
        default: return Call::fail(XEN_EOPNOTSUPP);
    }
}

}  // namespace xenshim
