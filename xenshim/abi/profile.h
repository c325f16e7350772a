// ABI profiles: what one dialect of Xen's hypercall interface looks like to a guest.
//
// A VM is born under one profile and keeps it for life: it travels in the save stream and never
// depends on the host. Every mask, shift and refusal code that differs between releases of Xen
// stands here and nowhere else. docs/profiles.md explains the idea and prints the table. Sources:
// xen.git at the tags named, XenServer's patch queue, and measurements on Xen 4.17.7.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "xenshim/abi/errno.h"
#include "xenshim/abi/width.h"

namespace xenshim::abi {

// A release of Xen, comparable with the others: major, then minor.
using Release = std::uint16_t;
constexpr Release xen_release(unsigned major, unsigned minor) {
    return static_cast<Release>(major << 8 | minor);
}

// How we know a row.
enum class Ground : std::uint8_t {
    kMeasured,  // answers of a running Xen of that release
    kSource,    // the release's source
    kInferred,  // no source at hand: from what came before and after
};

// Where an operation keeps its progress.
enum class Progress : std::uint8_t {
    kNone,      // it does not continue, or does not exist
    kStruct,    // the guest's argument structure is advanced
    kRegister,  // a cursor in the sub-op register
};

// Which hvm_op values are taken apart into operation and cursor (mask 0xff).
enum class HvmOpMask : std::uint8_t {
    kNone,       // the register is the operation
    kEvery,      // every value: 4.5.0's release candidates, where 0x102 became operation 2
    kMemoryOps,  // values whose low byte is 7 or 8, the only operations with a cursor
};

struct Profile {
    std::string_view name;
    Ground ground;
    // The release whose code answers where nothing below says otherwise: which sub-ops exist, and
    // the errors that changed.
    Release behaves_as;

    // ---- what it says of itself -----------------------------------------------------------------
    std::uint16_t major;
    std::uint16_t minor;
    std::string_view extraversion;
    std::string_view capabilities;
    std::uint32_t features;    // XENFEAT_* of submap 0
    std::uint64_t virt_start;  // XENVER_platform_parameters, to 64-bit callers
    // CPUID leaf +4, EAX: which fields are there (vCPU id, domid, upcall vector, ...).
    std::uint32_t cpuid_hvm_flags;
    std::uint32_t cpuid_max_leaf;  // offset from the base

    // ---- the entry gate -------------------------------------------------------------------------
    std::uint64_t hypercalls;  // bit n: an HVM guest's hypercall n exists
    bool wide_numbers;         // a 64-bit caller's whole RAX counts (4.8), not EAX alone
    bool only_ring3_refused;   // rings 1 and 2 may call (3.3)

    // ---- memory_op ------------------------------------------------------------------------------
    // Progress stands in the sub-op register above this many bits (MEMOP_EXTENT_SHIFT: 4 until
    // 3.3, 6 since 3.4).
    unsigned memory_op_shift;
    // The largest nr_extents that can be continued (UINT_MAX >> shift since 4.3).
    std::uint64_t memory_op_max_extents;
    // Whether a 64-bit caller's upper half of the sub-op register counts (4.17), or is cut to an
    // int and sign-extended (before).
    bool memory_op_wide_command;
    // The structure's extent_start moves along with the cursor (until 3.0.3).
    bool memory_op_moves_handle;
    // What a cursor on a sub-op that has none gets from common code; nothing: it is ignored.
    // Architecture code, where not ignored, compares the whole register: -ENOSYS.
    std::optional<Errno> memory_op_stray_bits;
    Progress physmap_range;           // of add_to_physmap's gmfn_range and of add_to_physmap_batch
    bool acquire_resource_continues;  // 4.15
    bool private_memory_ops;          // XenServer's 0x28 and 0x39

    // ---- grant_table_op -------------------------------------------------------------------------
    // Batches continue by pointer and count (4.0); before, more than 512 elements are -EINVAL.
    bool grant_batches_continue;
    // cache_flush keeps a grant ref above this many bits of the sub-op register (12 since 4.5; 0:
    // there is no such operation). An HVM caller is refused it before anything is taken apart.
    unsigned grant_op_bits;
    // Frames of a grant table where the VM's configuration names no number: what that release's
    // hypervisor allows without being told (32 until 4.9, then 64).
    std::uint32_t grant_frames;

    // ---- hvm_op ---------------------------------------------------------------------------------
    HvmOpMask hvm_op_mask;
    // Of modified_memory and set_mem_type, while they are hvm_ops.
    Progress hvm_memory_progress;
    // The device model's operations are hvm_ops (until 4.8), not dm_ops.
    bool hvm_device_ops;
    std::uint32_t hvm_params;  // HVM_NR_PARAMS
    // Nobody is told where the console is (XenServer up to 6.2: xen-hvm-disable-console-params).
    bool hides_console;
    // XenServer's patches for its old Windows drivers: hvm_op 0x102 and 0x103 and what they latch.
    bool legacy_windows;

    // ---- the rest -------------------------------------------------------------------------------
    bool evtchn_reset_continues;      // as sub-op 14 (XSA-344)
    bool multicall_continues_inside;  // in the guest's entry (HVM guests: 4.16)

    bool since(unsigned at_major, unsigned at_minor) const {
        return behaves_as >= xen_release(at_major, at_minor);
    }
};

// A sub-op register taken apart: the operation, and how far it came. The cursor is a guest
// register: a handler judges it like any other argument.
struct Command {
    std::uint64_t op = 0;
    std::uint64_t start = 0;
    bool operator==(const Command&) const = default;
};

// The whole of the knowledge of where memory_op's, hvm_op's and grant_table_op's progress lies.
// Each encode is the inverse of its decode for operations that have a cursor.
Command decode_memory_op(const Profile& profile, Width width, std::uint64_t command);
std::uint64_t encode_memory_op(const Profile& profile, Command at);
// The cursor stands where it is counted (no shift), in steps of 256 pages. XenServer's legacy
// operations are matched before any mask is applied.
Command decode_hvm_op(const Profile& profile, std::uint64_t command);
std::uint64_t encode_hvm_op(const Profile& profile, Command at);
// As the common code takes it apart, for callers that it is not refused to.
Command decode_grant_table_op(const Profile& profile, std::uint64_t command);
std::uint64_t encode_grant_table_op(const Profile& profile, Command at);

// All profiles, oldest first, XenServer's at the end; and one by name, or null.
std::span<const Profile> profiles();
const Profile* find_profile(std::string_view name);
inline constexpr std::string_view kDefaultProfile = "xen-4.17";

}  // namespace xenshim::abi
