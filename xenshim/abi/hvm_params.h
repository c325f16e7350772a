// Which HVM parameters a guest may read and write of its own, by the release that it was promised
// (hvm_allow_set_param, hvm_allow_get_param, and until 4.5 do_hvm_op itself; measured on 4.17.7).
// Rules only: the values are the domain's (xenshim/domain/params.h), which asks here, as the
// compatibility report does.
#pragma once

#include <cstdint>

#include "xenshim/abi/errno.h"
#include "xenshim/abi/profile.h"

namespace xenshim::abi {

// For an index that exists (below Profile::hvm_params). Success: neither the index nor the value is
// refused; what else may come of it depends on the domain.
GuestResult<void> may_get_param(const Profile& profile, std::uint32_t index);
GuestResult<void> may_set_param(const Profile& profile, std::uint32_t index, std::uint64_t value);
// Reading it is -EINVAL while the guest has no console (both of the console's parameters are 0).
bool hides_missing_console(const Profile& profile, std::uint32_t index);

}  // namespace xenshim::abi
