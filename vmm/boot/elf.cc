#include "vmm/boot/elf.h"

#include <algorithm>
#include <array>
#include <cinttypes>
#include <concepts>
#include <cstdio>
#include <cstring>
#include <elf.h>
#include <type_traits>

namespace vmm::boot {
namespace {

using File = std::span<const std::byte>;

// Note types of Xen's public/elfnote.h.
constexpr std::uint32_t kNoteGuestOs = 6;
constexpr std::uint32_t kNoteGuestVersion = 7;
constexpr std::uint32_t kNoteLoader = 8;
constexpr std::uint32_t kNotePhys32Entry = 18;
constexpr char kXenOwner[] = "Xen";  // with its NUL: four bytes

// No real image has as many by far; without a limit, a small file could keep us busy for hours.
constexpr std::size_t kMaxSegments = 256;
constexpr std::size_t kMaxNotes = 4096;

struct Elf32 {
    using Header = Elf32_Ehdr;
    using ProgramHeader = Elf32_Phdr;
    using SectionHeader = Elf32_Shdr;
};
struct Elf64 {
    using Header = Elf64_Ehdr;
    using ProgramHeader = Elf64_Phdr;
    using SectionHeader = Elf64_Shdr;
};

std::string hex(std::uint64_t value) {
    char text[19];
    std::snprintf(text, sizeof(text), "0x%" PRIx64, value);
    return text;
}

bool inside(File file, std::uint64_t offset, std::uint64_t size) {
    return offset <= file.size() && size <= file.size() - offset;
}

template <class T>
requires std::is_trivially_copyable_v<T> std::optional<T> read_at(File file, std::uint64_t offset) {
    if (!inside(file, offset, sizeof(T))) return std::nullopt;
    T copy;
    std::memcpy(&copy, file.data() + offset, sizeof(T));
    return copy;
}

// A table of `count` entries of `stride` bytes at `offset`, each at least a T. Header fields are
// at most 64, 16 and 16 bits wide, so that only offset + size can go wrong, and inside() sees it.
template <class T>
std::optional<std::vector<T>> read_table(File file, std::uint64_t offset, std::uint64_t count,
                                         std::uint64_t stride) {
    if (stride < sizeof(T) || !inside(file, offset, count * stride)) return std::nullopt;
    std::vector<T> table(count);
    for (std::uint64_t i = 0; i < count; ++i) {
        std::memcpy(&table[i], file.data() + offset + i * stride, sizeof(T));
    }
    return table;
}

// A note's text for the log: the file's author is not to write to our terminal.
std::string printable(File desc) {
    std::string text;
    for (const std::byte b : desc.first(std::min<std::size_t>(desc.size(), 64))) {
        const auto c = std::to_integer<unsigned char>(b);
        if (c == 0) break;
        text += c >= 0x20 && c < 0x7f ? static_cast<char>(c) : '?';
    }
    return text;
}

Result<void> take_xen_note(XenNotes& notes, std::uint32_t type, File desc,
                           const std::string& name) {
    notes.any = true;
    switch (type) {
        case kNoteGuestOs: notes.guest_os = printable(desc); break;
        case kNoteGuestVersion: notes.guest_version = printable(desc); break;
        case kNoteLoader: notes.loader = printable(desc); break;
        case kNotePhys32Entry:
            // Of several, the last one counts, as in Xen's loader.
            if (desc.size() == sizeof(std::uint64_t)) {
                notes.phys32_entry = read_at<std::uint64_t>(desc, 0);
            } else if (desc.size() == sizeof(std::uint32_t)) {
                notes.phys32_entry = read_at<std::uint32_t>(desc, 0);
            } else {
                return user_error(name + ": the PHYS32_ENTRY note has " +
                                  std::to_string(desc.size()) + " bytes instead of 4 or 8");
            }
            break;
        default: break;
    }
    return {};
}

// Goes through one segment's or section's notes. Names and descriptors are padded to 4 bytes in
// both classes, whatever the alignment says. A note that runs over the end stops the walk: the
// rest cannot be told apart.
Result<void> read_notes(XenNotes& notes, File area, std::size_t& seen, const std::string& name) {
    constexpr auto kPadded = [](std::uint64_t n) { return (n + 3) & ~std::uint64_t{3}; };
    // The same structure in both classes.
    while (const auto header = read_at<Elf32_Nhdr>(area, 0)) {
        if (++seen > kMaxNotes) return user_error(name + ": too many ELF notes");
        const std::uint64_t owner_at = sizeof(Elf32_Nhdr);
        const std::uint64_t desc_at = owner_at + kPadded(header->n_namesz);
        if (!inside(area, desc_at, header->n_descsz)) break;
        const File owner = area.subspan(owner_at, header->n_namesz);
        if (owner.size() == sizeof(kXenOwner) &&
            std::memcmp(owner.data(), kXenOwner, sizeof(kXenOwner)) == 0) {
            TRY(take_xen_note(notes, header->n_type, area.subspan(desc_at, header->n_descsz),
                              name));
        }
        const std::uint64_t next = desc_at + kPadded(header->n_descsz);
        area = area.subspan(std::min<std::uint64_t>(next, area.size()));
    }
    return {};
}

template <class Class>
Result<XenNotes> find_notes(File file, const typename Class::Header& header,
                            const std::vector<typename Class::ProgramHeader>& program,
                            const std::string& name) {
    XenNotes notes;
    std::size_t seen = 0;
    for (const auto& p : program) {
        if (p.p_type != PT_NOTE) continue;
        if (!inside(file, p.p_offset, p.p_filesz)) {
            return user_error(name + ": truncated: its notes lie beyond the end of the file");
        }
        TRY(read_notes(notes, file.subspan(p.p_offset, p.p_filesz), seen, name));
    }
    if (notes.any || header.e_shoff == 0 || header.e_shnum == 0) return notes;

    // Some images have their notes in a section alone.
    const auto sections = read_table<typename Class::SectionHeader>(
        file, header.e_shoff, header.e_shnum, header.e_shentsize);
    if (!sections) {
        return user_error(name + ": truncated: its section headers lie beyond the end of the file");
    }
    for (const auto& s : *sections) {
        if (s.sh_type != SHT_NOTE) continue;
        if (!inside(file, s.sh_offset, s.sh_size)) {
            return user_error(name + ": truncated: its notes lie beyond the end of the file");
        }
        TRY(read_notes(notes, file.subspan(s.sh_offset, s.sh_size), seen, name));
    }
    return notes;
}

template <class ProgramHeader>
Result<Segment> check_segment(File file, const ProgramHeader& p, const std::string& name) {
    const Segment segment{.physical = p.p_paddr,
                          .virtual_address = p.p_vaddr,
                          .offset = p.p_offset,
                          .file_size = p.p_filesz,
                          .memory_size = p.p_memsz,
                          .executable = (p.p_flags & PF_X) != 0};
    const std::string what = name + ": the segment for " + hex(segment.physical);
    if (segment.file_size > segment.memory_size) {
        return user_error(what + " is larger in the file than in memory");
    }
    if (!inside(file, segment.offset, segment.file_size)) {
        return user_error(name + ": truncated: the segment for " + hex(segment.physical) +
                          " lies beyond the end of the file");
    }
    if (segment.memory_size > UINT64_MAX - segment.physical) {
        return user_error(what + " wraps around the address space");
    }
    return segment;
}

template <class Class>
Result<Elf> parse_class(File file, const std::string& name) {
    const auto header = read_at<typename Class::Header>(file, 0);
    if (!header) return user_error(name + ": truncated: the ELF header is incomplete");
    // Both machines are legal in both classes: 64-bit code may well come in a 32-bit container.
    if (header->e_machine != EM_386 && header->e_machine != EM_X86_64) {
        return user_error(name + ": not for x86: ELF machine " + std::to_string(header->e_machine));
    }
    if (header->e_type == ET_DYN) {
        return user_error(name +
                          ": a position-independent ELF (ET_DYN), which Xen guests are not "
                          "loaded from; ET_EXEC is");
    }
    if (header->e_type != ET_EXEC) {
        return user_error(name + ": not an executable: ELF type " + std::to_string(header->e_type) +
                          " instead of ET_EXEC");
    }
    const auto program = read_table<typename Class::ProgramHeader>(
        file, header->e_phoff, header->e_phnum, header->e_phentsize);
    if (!program) {
        return user_error(name + ": truncated: its program headers lie beyond the end of the file");
    }

    Elf elf{.is_64bit = std::same_as<Class, Elf64>,
            .entry = header->e_entry,
            .segments = {},
            .notes = {}};
    for (const auto& p : *program) {
        if (p.p_type != PT_LOAD) continue;
        const Segment segment = TRY(check_segment(file, p, name));
        if (segment.memory_size != 0) elf.segments.push_back(segment);
        if (elf.segments.size() > kMaxSegments) return user_error(name + ": too many segments");
    }
    if (elf.segments.empty()) return user_error(name + ": an ELF file without anything to load");
    elf.notes = TRY(find_notes<Class>(file, *header, *program, name));
    return elf;
}

}  // namespace

Result<Elf> parse_elf(File file, const std::string& name) {
    if (file.size() < SELFMAG || std::memcmp(file.data(), ELFMAG, SELFMAG) != 0) {
        return user_error(name + ": not an ELF file");
    }
    const auto identity = read_at<std::array<unsigned char, EI_NIDENT>>(file, 0);
    if (!identity) return user_error(name + ": truncated: the ELF header is incomplete");
    if ((*identity)[EI_DATA] != ELFDATA2LSB) {
        return user_error(name + ": not a little-endian ELF file");
    }
    switch ((*identity)[EI_CLASS]) {
        case ELFCLASS32: return parse_class<Elf32>(file, name);
        case ELFCLASS64: return parse_class<Elf64>(file, name);
        default: return user_error(name + ": an ELF file of neither 32 nor 64 bits");
    }
}

Result<std::uint32_t> entry_point(const Elf& elf, Flavour flavour, const std::string& name) {
    std::uint64_t entry = 0;
    if (elf.notes.phys32_entry) {
        entry = *elf.notes.phys32_entry;  // 0 is an address like any other
    } else if (elf.notes.any) {
        return user_error(name +
                          ": image not capable of booting inside a HVM container (it has Xen "
                          "notes, but no PHYS32_ENTRY)");
    } else if (flavour == Flavour::kPvh) {
        return user_error(name +
                          ": not a PVH kernel: it has no Xen notes, so nothing says where to "
                          "enter it");
    } else if (elf.is_64bit) {
        return user_error(name +
                          ": a 64-bit ELF without Xen notes cannot be entered in 32-bit mode; "
                          "type=\"hvm\" takes a 32-bit ELF or one with a PHYS32_ENTRY note");
    } else {
        entry = elf.entry;
    }
    const bool loaded =
        std::any_of(elf.segments.begin(), elf.segments.end(), [&](const Segment& s) {
            return entry >= s.physical && entry - s.physical < s.memory_size;
        });
    if (!loaded || entry > UINT32_MAX) {
        return user_error(name + ": its entry point " + hex(entry) +
                          (loaded ? " is not below 4 GiB" : " is outside all of its segments"));
    }
    return static_cast<std::uint32_t>(entry);
}

}  // namespace vmm::boot
