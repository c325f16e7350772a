// HYPERVISOR_grant_table_op (Xen's common/grant_table.c).
#include <cstddef>

#include "xenshim/abi/operations.h"
#include "xenshim/abi/release_rules.h"
#include "xenshim/hypercall/grant_batches.h"
#include "xenshim/hypercall/handlers.h"

namespace xenshim {

using namespace abi;

namespace {

std::int16_t domain_status(Call& call, std::uint16_t domid) {
    if (call.domain().is_self(domid)) return GNTST_okay;
    return domid == 0 ? GNTST_permission_denied : GNTST_bad_domain;
}

GuestResult<void> setup_table(Call& call, gnttab_setup_table<W64>& op) {
    GrantTable& grants = call.domain().grants();
    op.status = domain_status(call, op.dom);
    if (op.status != GNTST_okay) return {};
    if (!grants.grow_to(op.nr_frames)) {
        op.status = GNTST_general_error;
        return {};
    }
    for (std::uint32_t i = 0; i < op.nr_frames; ++i) {
        const std::uint64_t gfn = call.domain().physmap().gfn_of_own(kFirstGrantPage + i);
        // A 32-bit caller never hears of it: its status is translated before its list (measured).
        if (!call.write_word({op.frame_list}, i, gfn) && call.is_64bit()) {
            op.status = GNTST_bad_virt_addr;
        }
    }
    return {};
}

}  // namespace

Outcome grant_table_op(Call& call) {
    const vmm::Gva arg = call.handle(1);
    const auto count = call.arg<std::uint32_t>(2);
    const auto op = call.arg<std::uint32_t>(0);
    // Before anything is taken apart: a cursor in the upper bits names nothing either.
    if (!exists(call.profile(), HYPERVISOR_grant_table_op, op)) return Call::fail(XEN_ENOSYS);
    if (count > most_grant_elements(call.profile())) return Call::fail(XEN_EINVAL);

    switch (op) {
        case GNTTABOP_map_grant_ref: return grant_map(call, arg, count);
        case GNTTABOP_unmap_grant_ref: return grant_unmap(call, arg, count);
        case GNTTABOP_copy: return grant_copy(call, arg, count);
        case GNTTABOP_swap_grant_ref: return grant_swap(call, arg, count);

        case GNTTABOP_setup_table: {
            if (!call.is_64bit() && count == 0) return Call::ok();  // measured: 32-bit only
            if (count != 1) return Call::fail(XEN_EINVAL);
            auto table = call.read_wide<gnttab_setup_table>(arg);
            if (!table) return Call::fail(table.error());
            if (const auto done = setup_table(call, *table); !done) {
                return Call::fail(done.error());
            }
            // Xen writes this member alone, and what lies between the others is the guest's.
            constexpr std::size_t kStatusAt = offsetof(gnttab_setup_table<W64>, status);
            static_assert(kStatusAt == offsetof(gnttab_setup_table<W32>, status));
            return Call::result(call.write(arg + kStatusAt, table->status));
        }

        case GNTTABOP_query_size:
            if (count != 1) return Call::fail(XEN_EINVAL);
            return call.in_out<gnttab_query_size>(arg, [&](auto& q) -> GuestResult<void> {
                q.status = domain_status(call, q.dom);
                if (q.status == GNTST_okay) {
                    q.nr_frames = call.domain().grants().frames();
                    q.max_nr_frames = call.domain().grants().max_frames();
                }
                return {};
            });

        case GNTTABOP_set_version: {
            const auto wanted = call.read<gnttab_set_version>(arg);
            if (!wanted) return Call::fail(wanted.error());
            const auto set = call.domain().grants().set_version(wanted->version);
            // The version in force is told in any case.
            const auto told = call.write(arg, gnttab_set_version{call.domain().grants().version()});
            return Call::result(told ? set : told);
        }

        default:  // get_version
            return call.in_out<gnttab_get_version>(arg, [&](auto& v) -> GuestResult<void> {
                TRY(call.require_self(v.dom, XEN_EPERM));
                v.version = call.domain().grants().version();
                return {};
            });
    }
}

}  // namespace xenshim
