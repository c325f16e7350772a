// Linux's bzImage and gzip-compressed kernels: finds the compressed kernel and unpacks it.
// Follows Documentation/arch/x86/boot.rst of Linux, "The Real-Mode Kernel Header"; protocol 2.08
// or later has payload_offset and payload_length.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "vmm/base/result.h"
#include "vmm/boot/bytes.h"

namespace vmm::boot {

// No kernel is larger unpacked; a file that claims or turns out to be is refused.
inline constexpr std::uint64_t kMaxUnpackedKernel = std::uint64_t{1} << 30;

bool is_elf(std::span<const std::byte> file);
bool is_bzimage(std::span<const std::byte> file);
bool is_gzip(std::span<const std::byte> file);

// The payload of a bzImage, still packed and with the size that the kernel's build appends.
Result<std::span<const std::byte>> bzimage_payload(std::span<const std::byte> file,
                                                   const std::string& name);

// Unpacks gzip, xz or zstd, told apart by their first bytes; what follows the packed stream is
// ignored. Other packings are refused by name.
Result<Bytes> unpack(std::span<const std::byte> packed, const std::string& name,
                     std::uint64_t limit = kMaxUnpackedKernel);

}  // namespace vmm::boot
