// Puts a kernel, its modules and Xen's start_info into guest memory, as Xen's toolstack does for a
// directly booted HVM or PVH guest (Xen's public/arch-x86/hvm/start_info.h). Everything is judged
// and placed before the first byte is written: a refused image leaves guest memory untouched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/boot/bytes.h"
#include "vmm/boot/call_sites.h"
#include "vmm/boot/e820.h"
#include "vmm/boot/elf.h"
#include "vmm/boot/flavour.h"
#include "vmm/memory/guest_memory.h"

namespace vmm::boot {

// A file's bytes, whole: for modules, which the guest gets as they are and below 4 GiB.
inline constexpr std::uint64_t kMaxFile = std::uint64_t{4} << 30;
Result<Bytes> read_file(const std::string& path, std::uint64_t limit = kMaxFile);

// A kernel: an ELF file, plain or gzip-compressed, or a Linux bzImage, unpacked to its ELF bytes.
struct Image {
    std::string name;  // what messages call it: the path
    Bytes elf;
};
Result<Image> read_image(const std::string& path);

struct Module {
    std::string name;  // for messages
    std::span<const std::byte> bytes;
    std::string cmdline;
};

struct LoadRequest {
    Flavour flavour = Flavour::kPvh;
    std::string kernel_name;  // for messages
    std::span<const std::byte> kernel;
    std::string cmdline;
    std::vector<Module> modules;  // a ramdisk is simply the first one
    std::vector<MemoryMapEntry> map;
    Gpa rsdp;  // 0: no ACPI
    // Fresh RAM reads as zeroes, and zeroes need not be written to it: pages that stay zero cost
    // no host memory. Say false when RAM may hold something.
    bool memory_is_zero = true;
};

struct BootInfo {
    std::uint32_t entry = 0;
    Gpa start_info;  // goes to EBX
    Gpa image_start;
    Gpa image_end;             // the first byte above every segment
    std::vector<Gpa> modules;  // where each one went
    CallSiteSearch call_sites;
    bool is_64bit = false;  // the ELF class: for the log, it decides nothing
    XenNotes notes;
};

Result<BootInfo> load(GuestMemory& memory, const LoadRequest& request);

}  // namespace vmm::boot
