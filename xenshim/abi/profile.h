// ABI profiles: what one dialect of Xen's hypercall interface looks like to a guest.
//
// A VM is born under one profile and keeps it for life: it travels in the save stream and never
// depends on the host. Every mask, shift and refusal code that differs between releases of Xen
// stands here and nowhere else. Sources: xen.git at the tags named, and measurements on Xen 4.17.7.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "xenshim/abi/errno.h"
#include "xenshim/abi/width.h"

namespace xenshim::abi {

struct Profile {
    std::string_view name;

    // What xen_version says.
    std::uint16_t major;
    std::uint16_t minor;
    std::string_view extraversion;
    std::string_view capabilities;
    std::uint32_t features;    // XENFEAT_* of submap 0
    std::uint64_t virt_start;  // XENVER_platform_parameters, to 64-bit callers

    // CPUID leaf +4, EAX: which fields are there (vCPU id, domid, upcall vector, ...).
    std::uint32_t cpuid_hvm_flags;
    std::uint32_t cpuid_max_leaf;  // offset from the base

    // memory_op: progress stands in the sub-op register above this many bits
    // (MEMOP_EXTENT_SHIFT: 4 until 3.3, 6 since 3.4).
    unsigned memory_op_shift;
    // The largest nr_extents that can be continued (UINT_MAX >> shift since 4.3).
    std::uint64_t memory_op_max_extents;
    // Whether a 64-bit caller's upper half of the sub-op register counts (4.17), or is cut to an
    // int and sign-extended (before).
    bool memory_op_wide_command;
    // What high bits on a sub-op that has no progress get.
    Errno memory_op_stray_bits;
    // A hypercall inside a multicall may be continued in the guest's entry (4.16).
    bool multicall_continues_inside;

    std::uint32_t hvm_params;  // HVM_NR_PARAMS
};

// memory_op's sub-op register taken apart, or put together. The whole of the knowledge of where
// memory_op's progress lies.
struct MemoryOpCommand {
    std::uint32_t op = 0;
    std::uint64_t start_extent = 0;
    bool operator==(const MemoryOpCommand&) const = default;
};

MemoryOpCommand decode_memory_op(const Profile& profile, Width width, std::uint64_t command);
std::uint64_t encode_memory_op(const Profile& profile, MemoryOpCommand at);

// All profiles, oldest first; and one by name, or null.
std::span<const Profile> profiles();
const Profile* find_profile(std::string_view name);
inline constexpr std::string_view kDefaultProfile = "xen-4.17";

}  // namespace xenshim::abi
