#include "xenshim/abi/profile.h"

#include <algorithm>
#include <array>

namespace xenshim::abi {
namespace {

// XENFEAT_* (public/features.h).
constexpr std::uint32_t kWritablePageTables = 1u << 0;
constexpr std::uint32_t kAutoTranslatedPhysmap = 1u << 2;
constexpr std::uint32_t kHvmCallbackVector = 1u << 8;
constexpr std::uint32_t kHvmSafePvclock = 1u << 9;
constexpr std::uint32_t kMemoryOpVnode = 1u << 13;
constexpr std::uint32_t kNotDirectMapped = 1u << 16;

constexpr std::array kProfiles = {
    Profile{
        .name = "xen-4.17",
        .major = 4,
        .minor = 17,
        .extraversion = ".7",
        .capabilities = "xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64 ",
        .features = kWritablePageTables | kAutoTranslatedPhysmap | kHvmCallbackVector |
                    kHvmSafePvclock | kMemoryOpVnode | kNotDirectMapped,
        .virt_start = 0xffff'8000'0000'0000,
        // vCPU id, domid, upcall vector. Xen also sets bit 2 (the IOMMU maps grants), which is a
        // statement about passed-through devices that we do not have.
        .cpuid_hvm_flags = (1u << 3) | (1u << 4) | (1u << 6),
        .cpuid_max_leaf = 5,
        .memory_op_shift = 6,
        .memory_op_max_extents = UINT32_MAX >> 6,
        .memory_op_wide_command = true,
        .memory_op_stray_bits = XEN_EINVAL,
        .multicall_continues_inside = true,
        .hvm_params = 39,
    },
};

}  // namespace

MemoryOpCommand decode_memory_op(const Profile& profile, Width width, std::uint64_t command) {
    if (width == Width::k32) {
        command &= UINT32_MAX;
    } else if (!profile.memory_op_wide_command) {
        // An int widened to unsigned long: bit 31 is copied upwards.
        command = static_cast<std::uint64_t>(
            static_cast<std::int64_t>(static_cast<std::int32_t>(command)));
    }
    const std::uint64_t op_mask = (std::uint64_t{1} << profile.memory_op_shift) - 1;
    return {.op = static_cast<std::uint32_t>(command & op_mask),
            .start_extent = command >> profile.memory_op_shift};
}

std::uint64_t encode_memory_op(const Profile& profile, MemoryOpCommand at) {
    return (at.start_extent << profile.memory_op_shift) | at.op;
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
