#include "xenshim/hypercall/legacy_quirks.h"

#include "xenshim/abi/numbers.h"
#include "xenshim/abi/other_numbers.h"

namespace xenshim {

using namespace abi;

GuestResult<std::uint32_t> map_space(Domain& domain, std::uint16_t domid, std::uint32_t space) {
    if (!domain.profile().legacy_windows || !domain.is_self(domid)) return space;
    LegacyQuirks& quirks = domain.quirks();
    switch (space) {
        case XENMAPSPACE_vlapic_old_xs:
            // A range to everybody else; executed as one, it costs such a driver its life.
            if (quirks.latched) return refuse(XEN_EINVAL);
            return space;
        case XENMAPSPACE_shared_info_old_xs: quirks.latched = true; return XENMAPSPACE_shared_info;
        case XENMAPSPACE_vlapic: quirks.latched = true; return refuse(XEN_EINVAL);
        case XENMAPSPACE_physical:  // the crash dump's
            quirks.latched = true;
            return XENMAPSPACE_gmfn;
        default: return space;
    }
}

}  // namespace xenshim
