#include "xenshim/abi/release_rules.h"

#include <algorithm>

#include "xenshim/abi/numbers.h"
#include "xenshim/abi/other_numbers.h"

namespace xenshim::abi {

// ---- memory_op ----------------------------------------------------------------------------------

MapSpace map_space_of(const Profile& profile, std::uint32_t number) {
    switch (number) {
        case XENMAPSPACE_shared_info: return MapSpace::kSharedInfo;
        case XENMAPSPACE_grant_table: return MapSpace::kGrantTable;
        case XENMAPSPACE_gmfn: return MapSpace::kGmfn;
        case XENMAPSPACE_gmfn_range:
            return profile.physmap_range == Progress::kNone ? MapSpace::kUnknown
                                                            : MapSpace::kGmfnRange;
        case XENMAPSPACE_gmfn_foreign:
            return profile.since(4, 3) ? MapSpace::kForeign : MapSpace::kUnknown;
        case XENMAPSPACE_dev_mmio:
            return profile.since(4, 9) ? MapSpace::kDevMmio : MapSpace::kUnknown;
        default: return MapSpace::kUnknown;
    }
}

bool looks_for_nothing_left(const Profile& profile) {
    // Not in 4.11's common/memory.c; in that of mid-2019, before 4.13.
    return profile.since(4, 13);
}

GuestResult<void> may_end_at_cursor(const Profile& profile) {
    if (looks_for_nothing_left(profile)) return refuse(XEN_EILSEQ);
    return {};
}

std::uint64_t most_extents(const Profile& profile, Width width) {
    if (width == Width::k64) return profile.memory_op_max_extents;
    // Whose register is what the cursor must fit in.
    return std::min<std::uint64_t>(profile.memory_op_max_extents,
                                   UINT32_MAX >> profile.memory_op_shift);
}

bool refuses_populate_on_demand(const Profile& profile) {
    return profile.since(3, 4);
}

std::uint32_t most_map_entries(const Profile& profile) {
    // E820MAX (asm-x86/e820.h): 128 in 4.7, 1024 in 4.13; it grew for the machines of 2017.
    return profile.since(4, 9) ? 1024 : 128;
}

GuestResult<void> may_set_memory_map(const Profile& profile) {
    if (!profile.since(4, 6)) return refuse(XEN_EPERM);  // to any HVM guest
    return {};
}

Errno pod_target_refusal(const Profile& profile) {
    return profile.since(4, 0) ? XEN_EPERM : XEN_EINVAL;
}

bool refuses_resource_unread(const Profile& profile) {
    // XSA-334 brought the check to the top in 4.12 and later; 4.11 was not patched.
    return profile.since(4, 12);
}

GuestResult<void> may_ask_for_resource(std::uint16_t domid, std::uint16_t own, std::uint32_t frames,
                                       std::uint32_t pad, bool has_list) {
    if (pad != 0) return refuse(XEN_EINVAL);
    if (!has_list) {
        if (frames != 0) return refuse(XEN_EINVAL);
        return {};
    }
    if (frames > kMostResourceFrames) return refuse(XEN_E2BIG);
    // It is about another domain, by its number: DOMID_SELF is nobody's.
    return refuse(domid == 0 || domid == own ? XEN_EPERM : XEN_ESRCH);
}

GuestResult<void> may_translate_resource(const Profile& profile, std::uint32_t frames,
                                         bool has_list, std::uint64_t start) {
    const bool continues = profile.acquire_resource_continues;
    if (!continues && frames > kMostTranslatedFrames) return refuse(XEN_E2BIG);
    if (!has_list || frames == 0) return {};
    if (continues && start >= frames) return refuse(XEN_EINVAL);
    return {};
}

// ---- grant_table_op -----------------------------------------------------------------------------

std::uint32_t most_grant_elements(const Profile& profile) {
    // The count is taken for an int. Lists of more than so many came with their continuation.
    constexpr std::uint32_t kMostUnstopped = 512;
    return profile.grant_batches_continue ? INT32_MAX : kMostUnstopped;
}

// ---- hvm_op and dm_op ---------------------------------------------------------------------------

GuestResult<void> may_target(const Profile& profile, std::uint16_t domid, std::uint16_t own,
                             Errno for_dom0) {
    if (domid == DOMID_SELF) return {};
    if (profile.since(4, 3)) {
        if (domid == own) return {};
        return refuse(domid == 0 ? for_dom0 : XEN_ESRCH);
    }
    // Until 4.2, itself only as DOMID_SELF, and the privilege came first; since then what the other
    // domain is.
    return refuse(domid == 0 || domid == own ? XEN_EPERM : XEN_ESRCH);
}

Errno pagetable_dying_of_dom0(const Profile& profile) {
    // That other domains are not even thought of came with 4.12 (read, not measured before 4.17).
    return profile.since(4, 12) ? XEN_EOPNOTSUPP : XEN_EINVAL;
}

Errno flush_tlbs_argument_refusal(const Profile& profile) {
    return profile.since(4, 8) ? XEN_EINVAL : XEN_ENOSYS;
}

bool has_memory_range_of_4_4(const Profile& profile) {
    return !profile.since(4, 5);
}

GuestResult<void> may_model_devices(const Profile& profile, std::uint16_t domid, std::uint16_t own,
                                    bool privileged) {
    if (domid == DOMID_SELF || domid == own) {
        if (privileged) return {};
        // Remote domains are looked for by number, and DOMID_SELF is none. Before 4.0 the caller
        // itself was a target like any other; we do not let it be one.
        const bool by_number = domid != DOMID_SELF || !profile.since(4, 0);
        return refuse(by_number ? XEN_EPERM : XEN_ESRCH);
    }
    if (domid != 0) return refuse(XEN_ESRCH);
    // Domain 0 is no HVM domain. Until 4.2 the privilege came before that.
    return refuse(profile.since(4, 3) ? XEN_EINVAL : XEN_EPERM);
}

GuestResult<void> may_have_no_buffers(const Profile& profile) {
    // XSA-506: without a buffer there is no operation. Measured on 4.17.7; releases whose support
    // had ended by then take it for an operation of no bytes.
    if (profile.since(4, 17)) return refuse(XEN_ENODATA);
    return {};
}

// ---- event channels and vCPUs -------------------------------------------------------------------

Errno expand_array_refusal(const Profile& profile) {
    return profile.since(4, 8) ? XEN_EOPNOTSUPP : XEN_ENOSYS;
}

Errno missing_vcpu_refusal(const Profile& profile, bool known) {
    // Until 4.7 HVM guests had a list of their own, looked at before the vCPU.
    return known || profile.since(4, 7) ? XEN_ENOENT : XEN_ENOSYS;
}

GuestResult<void> may_register_vcpu_info(const Profile& profile, std::uint64_t gfn,
                                         std::uint32_t offset, bool taken, Width shared_info) {
    constexpr unsigned kPageBits = 12;
    constexpr std::uint32_t kPage = 1u << kPageBits, kSize = 64;
    if (profile.since(4, 18)) {
        // As one of the areas that are named by physical address (map_guest_area).
        const bool wraps = gfn >> (64 - kPageBits) != 0;
        if (wraps || offset >= kPage) return refuse(XEN_EINVAL);
        if (taken) return refuse(XEN_EBUSY);
        if (offset % (shared_info == Width::k64 ? 8 : 4) != 0) return refuse(XEN_ENXIO);
        if (offset > kPage - kSize) return refuse(XEN_ENXIO);
        return {};
    }
    // Order as measured: the place in the page, then the vCPU and the page.
    if (offset > kPage - kSize) return refuse(XEN_ENXIO);
    if (offset % sizeof(std::uint32_t) != 0) return refuse(XEN_ENXIO);
    if (taken) return refuse(XEN_EINVAL);
    return {};
}

}  // namespace xenshim::abi
