// What a handler decides by the release that the guest was promised, where a number in the profile
// does not say it: which code refuses what, and what is refused at all. Rules only, without the
// domain's state: handlers ask here and do the work, and the compatibility report asks the same for
// two profiles. (HVM parameters have rules of their own: hvm_params.h.)
#pragma once

#include <cstdint>
#include <optional>

#include "xenshim/abi/errno.h"
#include "xenshim/abi/profile.h"
#include "xenshim/abi/width.h"

namespace xenshim::abi {

// ---- memory_op ----------------------------------------------------------------------------------

// What a guest's XENMAPSPACE_* means.
enum class MapSpace : std::uint8_t {
    kSharedInfo,
    kGrantTable,
    kGmfn,
    kGmfnRange,
    kForeign,
    kDevMmio,
    kUnknown,
};
MapSpace map_space_of(const Profile& profile, std::uint32_t number);
// Whether a call that has nothing left to do is told apart before anything else is judged: an
// exchange then succeeds whoever's pages it is about.
bool looks_for_nothing_left(const Profile& profile);
// add_to_physmap_batch with a cursor at its end, which no preempted call has.
GuestResult<void> may_end_at_cursor(const Profile& profile);
// The most extents that increase_reservation and its like take from a caller of that width.
std::uint64_t most_extents(const Profile& profile, Width width);
// populate_physmap with XENMEMF_populate_on_demand: refused, or the flag is nobody's yet.
bool refuses_populate_on_demand(const Profile& profile);
std::uint32_t most_map_entries(const Profile& profile);
// set_memory_map, of the guest's own map.
GuestResult<void> may_set_memory_map(const Profile& profile);
// set_pod_target and get_pod_target, of the guest itself.
Errno pod_target_refusal(const Profile& profile);
// acquire_resource is refused before anything else is looked at, but for what a 32-bit caller's is
// refused with while it is translated.
bool refuses_resource_unread(const Profile& profile);
// Where it is not: success is the answer to a question for the size, which anybody might ask.
inline constexpr std::uint32_t kMostResourceFrames = 32;
GuestResult<void> may_ask_for_resource(std::uint16_t domid, std::uint16_t own, std::uint32_t frames,
                                       std::uint32_t pad, bool has_list);
// What a 32-bit caller's acquire_resource is refused with while its list is translated; `start` is
// its cursor.
inline constexpr std::uint32_t kMostTranslatedFrames = 1020;
GuestResult<void> may_translate_resource(const Profile& profile, std::uint32_t frames,
                                         bool has_list, std::uint64_t start);

// ---- grant_table_op -----------------------------------------------------------------------------

std::uint32_t most_grant_elements(const Profile& profile);

// ---- hvm_op and dm_op ---------------------------------------------------------------------------

// The domain that an operation for guests names. `own`: the caller's number.
GuestResult<void> may_target(const Profile& profile, std::uint16_t domid, std::uint16_t own,
                             Errno for_dom0);
// What pagetable_dying says of domain 0.
Errno pagetable_dying_of_dom0(const Profile& profile);
Errno flush_tlbs_argument_refusal(const Profile& profile);
// modified_memory and set_mem_type read xen_hvm_memory_range_4_4.
bool has_memory_range_of_4_4(const Profile& profile);
// The domain that a device model's operation names. `privileged`: the guest may, on itself.
GuestResult<void> may_model_devices(const Profile& profile, std::uint16_t domid, std::uint16_t own,
                                    bool privileged);
// A dm_op without a buffer.
GuestResult<void> may_have_no_buffers(const Profile& profile);

// ---- event channels and vCPUs -------------------------------------------------------------------

// expand_array of a domain that is not on the FIFO ABI.
Errno expand_array_refusal(const Profile& profile);
// vcpu_op on a vCPU that there is not. `known`: the operation exists.
Errno missing_vcpu_refusal(const Profile& profile, bool known);
// register_vcpu_info. `taken`: that vCPU's stands elsewhere already; `shared_info`: the width of
// the domain's. Success: the place is good, if the page exists.
GuestResult<void> may_register_vcpu_info(const Profile& profile, std::uint64_t gfn,
                                         std::uint32_t offset, bool taken, Width shared_info);

}  // namespace xenshim::abi
