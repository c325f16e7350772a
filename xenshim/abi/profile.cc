#include "xenshim/abi/profile.h"

#include <algorithm>
#include <array>

#include "xenshim/abi/numbers.h"
#include "xenshim/abi/other_numbers.h"

namespace xenshim::abi {
namespace {

// XENFEAT_* (public/features.h).
constexpr std::uint32_t kWritablePageTables = 1u << 0;
constexpr std::uint32_t kAutoTranslatedPhysmap = 1u << 2;
constexpr std::uint32_t kHvmCallbackVector = 1u << 8;
constexpr std::uint32_t kHvmSafePvclock = 1u << 9;
constexpr std::uint32_t kMemoryOpVnode = 1u << 13;
constexpr std::uint32_t kNotDirectMapped = 1u << 16;
constexpr std::uint32_t kRunstatePhysArea = 1u << 18;
constexpr std::uint32_t kVcpuTimePhysArea = 1u << 19;
constexpr std::uint32_t kDmMsixAllWrites = 1u << 20;

// CPUID leaf +4, EAX. Xen's b2 (the IOMMU maps grants) is a statement about passed-through devices
// that we do not have; b0 and b1 speak of the CPU's own APIC virtualisation.
constexpr std::uint32_t kVcpuIdPresent = 1u << 3;
constexpr std::uint32_t kDomidPresent = 1u << 4;
constexpr std::uint32_t kUpcallVector = 1u << 6;

constexpr std::string_view kCapabilities =
    "xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64 ";

constexpr std::uint64_t calls(std::initializer_list<std::uint32_t> numbers) {
    std::uint64_t bits = 0;
    for (const std::uint32_t n : numbers) {
        bits |= std::uint64_t{1} << n;
    }
    return bits;
}

constexpr std::uint64_t extents(unsigned shift) {
    return UINT32_MAX >> shift;
}

// Each row says what changed since the one before: the table reads as the interface's history.

constexpr Profile kXen303 = {
    .name = "xen-3.0.3",
    .ground = Ground::kInferred,  // of its HVM side, only the encoding was read
    .behaves_as = xen_release(3, 0),
    .major = 3,
    .minor = 0,
    .extraversion = ".3-0",
    .capabilities = kCapabilities,
    .features = kWritablePageTables | kAutoTranslatedPhysmap,
    .virt_start = 0xffff'8000'0000'0000,
    .cpuid_hvm_flags = 0,
    .cpuid_max_leaf = 2,
    .hypercalls = calls({HYPERVISOR_memory_op, HYPERVISOR_xen_version, HYPERVISOR_grant_table_op,
                         HYPERVISOR_sched_op, HYPERVISOR_event_channel_op, HYPERVISOR_hvm_op}),
    .wide_numbers = false,
    .only_ring3_refused = true,
    .memory_op_shift = 4,
    // ULONG_MAX >> shift of a 64-bit hypervisor; 32-bit callers cannot name as many anyway.
    .memory_op_max_extents = UINT64_MAX >> 4,
    .memory_op_wide_command = false,
    .memory_op_moves_handle = true,
    .memory_op_stray_bits = std::nullopt,
    .physmap_range = Progress::kNone,
    .acquire_resource_continues = false,
    .private_memory_ops = false,
    .grant_batches_continue = false,
    .grant_op_bits = 0,
    .grant_frames = 32,
    .hvm_op_mask = HvmOpMask::kNone,
    .hvm_memory_progress = Progress::kNone,
    .hvm_device_ops = true,
    .hvm_params = 9,
    .hides_console = false,
    .legacy_windows = false,
    .evtchn_reset_continues = false,
    .multicall_continues_inside = false,
};

constexpr Profile release(Profile p, std::string_view name, unsigned major, unsigned minor,
                          std::string_view extraversion) {
    p.name = name;
    p.ground = Ground::kSource;
    p.behaves_as = xen_release(major, minor);
    p.major = static_cast<std::uint16_t>(major);
    p.minor = static_cast<std::uint16_t>(minor);
    p.extraversion = extraversion;
    return p;
}

constexpr Profile kXen33 = [] {
    Profile p = release(kXen303, "xen-3.3", 3, 3, ".2");
    p.memory_op_moves_handle = false;  // 3.0.4
    p.hvm_params = 16;
    return p;
}();

constexpr Profile kXen34 = [] {
    Profile p = release(kXen33, "xen-3.4", 3, 4, ".4");
    p.memory_op_shift = 6;  // set_pod_target and get_pod_target needed the room
    p.memory_op_max_extents = UINT64_MAX >> 6;
    p.only_ring3_refused = false;
    p.hvm_params = 17;
    return p;
}();

constexpr Profile kXen40 = [] {
    Profile p = release(kXen34, "xen-4.0", 4, 0, ".4");
    p.grant_batches_continue = true;
    p.hvm_memory_progress = Progress::kStruct;  // XSA-27, in all stable 4.x of its time
    p.hvm_params = 19;
    return p;
}();

constexpr Profile kXen41 = [] {
    Profile p = release(kXen40, "xen-4.1", 4, 1, ".6.1");
    p.hypercalls |= calls({HYPERVISOR_set_timer_op, HYPERVISOR_vcpu_op, HYPERVISOR_physdev_op});
    p.features |= kHvmCallbackVector | kHvmSafePvclock;
    p.hvm_params = 25;
    return p;
}();

constexpr Profile kXen42 = [] {
    Profile p = release(kXen41, "xen-4.2", 4, 2, ".5");
    p.hypercalls |= calls({HYPERVISOR_sysctl, HYPERVISOR_tmem_op});
    p.physmap_range = Progress::kStruct;
    p.hvm_params = 30;
    return p;
}();

constexpr Profile kXen43 = [] {
    Profile p = release(kXen42, "xen-4.3", 4, 3, ".4");
    p.memory_op_max_extents = extents(6);
    p.hvm_params = 32;
    return p;
}();

constexpr Profile kXen44 = [] {
    Profile p = release(kXen43, "xen-4.4", 4, 4, ".4");
    p.hypercalls |= calls({HYPERVISOR_console_io, HYPERVISOR_xsm_op, HYPERVISOR_domctl});
    p.physmap_range = Progress::kRegister;
    return p;
}();

constexpr Profile kXen45 = [] {
    Profile p = release(kXen44, "xen-4.5", 4, 5, ".5");
    p.hypercalls |= calls({HYPERVISOR_arch_1});
    p.memory_op_stray_bits = XEN_ENOSYS;
    p.grant_op_bits = 12;
    p.hvm_op_mask = HvmOpMask::kMemoryOps;
    p.hvm_memory_progress = Progress::kRegister;
    p.features |= kMemoryOpVnode;
    p.cpuid_max_leaf = 4;
    p.hvm_params = 35;
    return p;
}();

// The candidates that masked every operation, and with it turned XenServer's 0x102 into 2.
constexpr Profile kXen45rc = [] {
    Profile p = kXen45;
    p.name = "xen-4.5-rc";
    p.extraversion = ".0-rc";
    p.hvm_op_mask = HvmOpMask::kEvery;
    return p;
}();

constexpr Profile kXen46 = [] {
    Profile p = release(kXen45, "xen-4.6", 4, 6, ".6");
    p.cpuid_hvm_flags = kVcpuIdPresent;
    p.hvm_params = 36;
    return p;
}();

constexpr Profile kXen47 = [] {
    Profile p = release(kXen46, "xen-4.7", 4, 7, ".6");
    p.hypercalls |= calls({HYPERVISOR_platform_op, HYPERVISOR_mmuext_op, HYPERVISOR_xenpmu_op});
    p.hvm_params = 37;
    return p;
}();

constexpr Profile kXen48 = [] {
    Profile p = release(kXen47, "xen-4.8", 4, 8, ".5");
    p.wide_numbers = true;
    p.memory_op_stray_bits = XEN_EINVAL;
    return p;
}();

constexpr Profile kXen49 = [] {
    Profile p = release(kXen48, "xen-4.9", 4, 9, ".4");
    p.hypercalls |= calls({HYPERVISOR_dm_op});
    p.hvm_op_mask = HvmOpMask::kNone;
    p.hvm_memory_progress = Progress::kNone;
    p.hvm_device_ops = false;
    p.hvm_params = 38;
    return p;
}();

// 4.10 to 4.14 as their last point releases: with XSA-344.
constexpr Profile kXen410 = [] {
    Profile p = release(kXen49, "xen-4.10", 4, 10, ".4");
    p.grant_frames = 64;
    p.evtchn_reset_continues = true;
    p.cpuid_max_leaf = 5;
    p.hvm_params = 39;
    return p;
}();

constexpr Profile kXen411 = [] {
    Profile p = release(kXen410, "xen-4.11", 4, 11, ".4");
    p.cpuid_hvm_flags |= kDomidPresent;
    return p;
}();

constexpr Profile kXen412 = [] {
    Profile p = release(kXen411, "xen-4.12", 4, 12, ".4");
    p.hypercalls |= calls({HYPERVISOR_argo_op});
    return p;
}();

constexpr Profile kXen413 = [] {
    Profile p = release(kXen412, "xen-4.13", 4, 13, ".4");
    p.hypercalls &= ~calls({HYPERVISOR_tmem_op});
    return p;
}();

constexpr Profile kXen414 = [] {
    Profile p = release(kXen413, "xen-4.14", 4, 14, ".6");
    p.hypercalls |= calls({HYPERVISOR_vm_assist, HYPERVISOR_hypfs_op});
    return p;
}();

constexpr Profile kXen415 = [] {
    Profile p = release(kXen414, "xen-4.15", 4, 15, ".5");
    p.acquire_resource_continues = true;
    p.features |= kNotDirectMapped;
    return p;
}();

constexpr Profile kXen416 = [] {
    Profile p = release(kXen415, "xen-4.16", 4, 16, ".7");
    p.hypercalls |= calls({HYPERVISOR_multicall});
    p.multicall_continues_inside = true;
    return p;
}();

constexpr Profile kXen417 = [] {
    Profile p = release(kXen416, "xen-4.17", 4, 17, ".7");
    p.ground = Ground::kMeasured;
    p.memory_op_wide_command = true;
    p.cpuid_hvm_flags |= kUpcallVector;
    return p;
}();

constexpr Profile kXen418 = [] {
    Profile p = release(kXen417, "xen-4.18", 4, 18, ".5");
    p.features |= kRunstatePhysArea | kVcpuTimePhysArea;
    return p;
}();

constexpr Profile kXen419 = release(kXen418, "xen-4.19", 4, 19, ".3");

constexpr Profile kXen420 = [] {
    Profile p = release(kXen419, "xen-4.20", 4, 20, ".2");
    p.features |= kDmMsixAllWrites;
    return p;
}();

constexpr Profile kXen421 = release(kXen420, "xen-4.21", 4, 21, ".0");
constexpr Profile kXen422 = release(kXen421, "xen-4.22", 4, 22, ".0");

// XenServer's own, by product. What its version words say does not tell the dialect: 7.5 calls
// itself Xen 4.7 and has 4.9's hvm_op.
constexpr Profile xenserver(Profile p, std::string_view name, std::string_view extraversion,
                            bool legacy_windows) {
    p.name = name;
    p.ground = Ground::kSource;
    p.extraversion = extraversion;
    p.legacy_windows = legacy_windows;
    return p;
}

// 6.2 and 6.5 stand on Xen 4.1 and 4.4; their patch queues were not published.
constexpr Profile kXenServer62 = [] {
    Profile p = xenserver(kXen41, "xenserver-6.2", ".5", true);
    p.ground = Ground::kInferred;
    p.hides_console = true;
    return p;
}();
constexpr Profile kXenServer65 = [] {
    Profile p = xenserver(kXen44, "xenserver-6.5", ".1", true);
    p.ground = Ground::kInferred;
    p.private_memory_ops = true;
    return p;
}();
constexpr Profile kXenServer71 = [] {
    Profile p = xenserver(kXen47, "xenserver-7.1", ".6", true);
    p.private_memory_ops = true;
    return p;
}();
constexpr Profile kXenServer75 = [] {
    Profile p = xenserver(kXen47, "xenserver-7.5", ".5", true);
    p.private_memory_ops = true;
    p.hypercalls |= calls({HYPERVISOR_dm_op});  // backported from 4.9
    p.hvm_op_mask = HvmOpMask::kNone;
    p.hvm_memory_progress = Progress::kNone;
    p.hvm_device_ops = false;
    return p;
}();
constexpr Profile kXenServer80 = xenserver(kXen411, "xenserver-8.0", ".1", false);

constexpr std::array kProfiles = {
    kXen303,      kXen33,       kXen34,       kXen40,       kXen41,  kXen42,  kXen43,
    kXen44,       kXen45rc,     kXen45,       kXen46,       kXen47,  kXen48,  kXen49,
    kXen410,      kXen411,      kXen412,      kXen413,      kXen414, kXen415, kXen416,
    kXen417,      kXen418,      kXen419,      kXen420,      kXen421, kXen422, kXenServer62,
    kXenServer65, kXenServer71, kXenServer75, kXenServer80,
};

constexpr std::uint64_t low_bits(unsigned count) {
    return (std::uint64_t{1} << count) - 1;
}

constexpr unsigned kHvmOpBits = 8;

// XenServer compares its two operations before it masks, whatever the profile's mask.
bool is_legacy_hvm_op(const Profile& profile, std::uint64_t command) {
    return profile.legacy_windows &&
           (command == HVMOP_process_dying || command == HVMOP_set_driver_version);
}

bool has_hvm_cursor(const Profile& profile, std::uint64_t command) {
    switch (profile.hvm_op_mask) {
        case HvmOpMask::kNone: return false;
        case HvmOpMask::kEvery: return true;
        case HvmOpMask::kMemoryOps: {
            const std::uint64_t op = command & low_bits(kHvmOpBits);
            return op == HVMOP_modified_memory || op == HVMOP_set_mem_type;
        }
    }
    return false;
}

// An operation in the low bits of the register, and a cursor as it is above them.
Command split(std::uint64_t command, unsigned op_bits) {
    return {.op = command & low_bits(op_bits), .start = command & ~low_bits(op_bits)};
}

}  // namespace

Command decode_memory_op(const Profile& profile, Width width, std::uint64_t command) {
    if (width == Width::k32) {
        command &= UINT32_MAX;
    } else if (!profile.memory_op_wide_command) {
        // An int widened to unsigned long: bit 31 is copied upwards.
        command = static_cast<std::uint64_t>(
            static_cast<std::int64_t>(static_cast<std::int32_t>(command)));
    }
    return {.op = command & low_bits(profile.memory_op_shift),
            .start = command >> profile.memory_op_shift};
}

std::uint64_t encode_memory_op(const Profile& profile, Command at) {
    return (at.start << profile.memory_op_shift) | at.op;
}

Command decode_hvm_op(const Profile& profile, std::uint64_t command) {
    if (is_legacy_hvm_op(profile, command) || !has_hvm_cursor(profile, command)) {
        return {.op = command};
    }
    return split(command, kHvmOpBits);
}

std::uint64_t encode_hvm_op(const Profile&, Command at) {
    return at.start | at.op;
}

Command decode_grant_table_op(const Profile& profile, std::uint64_t command) {
    command &= UINT32_MAX;  // the prototype's unsigned int
    const auto op = command & low_bits(profile.grant_op_bits);
    if (op != GNTTABOP_cache_flush) return {.op = command};
    return split(command, profile.grant_op_bits);
}

std::uint64_t encode_grant_table_op(const Profile&, Command at) {
    return at.start | at.op;
}

std::span<const Profile> profiles() {
    return kProfiles;
}

const Profile* find_profile(std::string_view name) {
    const auto found = std::find_if(kProfiles.begin(), kProfiles.end(),
                                    [&](const Profile& p) { return p.name == name; });
    return found == kProfiles.end() ? nullptr : &*found;
}

}  // namespace xenshim::abi
