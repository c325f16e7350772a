// What memory_op is made of; memory_op.cc says which sub-op goes where.
#pragma once

#include "xenshim/hypercall/call.h"

namespace xenshim::memory_ops {

// memory_op_reservation.cc: pages given, taken and exchanged.
abi::Outcome reservation(Call& call, abi::Command at);
abi::Outcome exchange(Call& call);

// memory_op_physmap.cc: what is where.
abi::Outcome add_to_physmap(Call& call, std::uint64_t start);
abi::Outcome add_to_physmap_batch(Call& call, std::uint64_t start);
abi::Outcome remove_from_physmap(Call& call);

// memory_op_maps.cc: descriptions of memory.
abi::Outcome memory_map(Call& call);
abi::Outcome set_memory_map(Call& call);
abi::Outcome reserved_device_memory_map(Call& call);
abi::Outcome vnuma_info(Call& call);
abi::Outcome machphys_list(Call& call);

// memory_op_refused.cc: what a guest is refused, each in Xen's own way.
abi::Outcome pod_target(Call& call);
abi::Outcome access_op(Call& call);
abi::Outcome claim_pages(Call& call);
abi::Outcome acquire_resource(Call& call, std::uint64_t start);
abi::Outcome translate_gpfn_list(Call& call);

}  // namespace xenshim::memory_ops
