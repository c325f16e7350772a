// The operations of grant_table_op that work on a list of elements: each has a status of its own,
// written once, and an element that fails does not stop the list.
#pragma once

#include "xenshim/hypercall/call.h"

namespace xenshim {

abi::Outcome grant_map(Call& call, vmm::Gva list, std::uint32_t count);
abi::Outcome grant_unmap(Call& call, vmm::Gva list, std::uint32_t count);
abi::Outcome grant_copy(Call& call, vmm::Gva list, std::uint32_t count);
abi::Outcome grant_swap(Call& call, vmm::Gva list, std::uint32_t count);

}  // namespace xenshim
