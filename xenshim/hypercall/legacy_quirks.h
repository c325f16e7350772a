// XENMAPSPACE_* as XenServer's patch read it for its old Windows drivers.
#pragma once

#include <cstdint>

#include "xenshim/domain/domain.h"

namespace xenshim {

// The space that `space` of an add_to_physmap on domain `domid` stands for in this VM: itself,
// unless the VM has the quirks. Drivers made for Xen 3.x give themselves away by the space they
// ask for, which latches the meaning of space 3.
GuestResult<std::uint32_t> map_space(Domain& domain, std::uint16_t domid, std::uint32_t space);

}  // namespace xenshim
