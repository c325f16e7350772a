// ELF kernels as Xen's toolstack loads them into HVM and PVH guests: ET_EXEC, 32 or 64 bits, by
// physical address, entered where a Xen note says (Xen's public/elfnote.h).
//
// The file may be anything at all: no field of it is believed before it was compared with the
// size of the file, and what parse_elf() returns lies inside the file and does not wrap around.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/boot/flavour.h"

namespace vmm::boot {

// One PT_LOAD. [offset, offset + file_size) lies in the file, file_size <= memory_size, and
// physical + memory_size does not wrap.
struct Segment {
    std::uint64_t physical = 0;
    std::uint64_t virtual_address = 0;  // only relative jumps within the segment need it
    std::uint64_t offset = 0;
    std::uint64_t file_size = 0;
    std::uint64_t memory_size = 0;
    bool executable = false;

    std::uint64_t end() const { return physical + memory_size; }
};

// What the Xen notes of an image say, as far as we use or log it.
struct XenNotes {
    bool any = false;  // a note of that owner, of whatever type, is there
    std::optional<std::uint64_t> phys32_entry;
    std::string guest_os, guest_version, loader;  // printable characters only
};

struct Elf {
    bool is_64bit = false;
    std::uint64_t entry = 0;
    std::vector<Segment> segments;  // in the file's order; at least one; none of memory_size 0
    XenNotes notes;
};

// `name` is what messages call the file.
Result<Elf> parse_elf(std::span<const std::byte> file, const std::string& name);

// Where vCPU 0 starts, in 32-bit protected mode without paging: inside a segment and below 4 GiB.
Result<std::uint32_t> entry_point(const Elf& elf, Flavour flavour, const std::string& name);

}  // namespace vmm::boot
