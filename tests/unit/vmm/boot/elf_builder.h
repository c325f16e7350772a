// Small ELF files for the tests, right by default and wrong where a test says so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <elf.h>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace vmm::boot::testing {

using ByteVector = std::vector<std::byte>;

template <class T>
void append(ByteVector& to, const T& value) {
    const auto bytes = std::as_bytes(std::span(&value, 1));
    to.insert(to.end(), bytes.begin(), bytes.end());
}

template <class T>
void poke(ByteVector& at, std::size_t offset, const T& value) {
    std::memcpy(at.data() + offset, &value, sizeof(T));
}

inline ByteVector bytes(std::string_view text) {
    const auto raw = std::as_bytes(std::span(text));
    return {raw.begin(), raw.end()};
}

inline ByteVector desc32(std::uint32_t value) {
    ByteVector result;
    append(result, value);
    return result;
}

inline ByteVector desc64(std::uint64_t value) {
    ByteVector result;
    append(result, value);
    return result;
}

struct TestNote {
    std::string owner = "Xen";
    std::uint32_t type = 18;  // PHYS32_ENTRY
    ByteVector desc;
};

struct TestSegment {
    std::uint64_t physical = 0;
    ByteVector data{};
    std::uint64_t tail = 0;  // p_memsz - p_filesz
    std::uint32_t flags = PF_R | PF_W | PF_X;
    std::uint64_t virtual_address = 0xc000'0000;
    std::uint64_t align = 0;
};

inline ByteVector encode(const std::vector<TestNote>& notes) {
    ByteVector out;
    for (const TestNote& n : notes) {
        append(out, Elf32_Nhdr{.n_namesz = static_cast<std::uint32_t>(n.owner.size() + 1),
                               .n_descsz = static_cast<std::uint32_t>(n.desc.size()),
                               .n_type = n.type});
        const ByteVector owner = bytes(n.owner);
        out.insert(out.end(), owner.begin(), owner.end());
        out.push_back(std::byte{0});
        out.resize((out.size() + 3) / 4 * 4);
        out.insert(out.end(), n.desc.begin(), n.desc.end());
        out.resize((out.size() + 3) / 4 * 4);
    }
    return out;
}

struct TestElf {
    int bits = 32;
    std::uint16_t machine = EM_386;
    std::uint16_t type = ET_EXEC;
    std::uint64_t entry = 0x10'0000;
    std::vector<TestSegment> segments{};
    std::vector<ByteVector> note_segments{};  // one PT_NOTE each
    std::vector<ByteVector> note_sections{};  // one SHT_NOTE each

    ByteVector build() const { return bits == 32 ? build_as<Elf32>() : build_as<Elf64>(); }

  private:
    struct Elf32 {
        using Header = Elf32_Ehdr;
        using Program = Elf32_Phdr;
        using Section = Elf32_Shdr;
        static constexpr unsigned char kClass = ELFCLASS32;
    };
    struct Elf64 {
        using Header = Elf64_Ehdr;
        using Program = Elf64_Phdr;
        using Section = Elf64_Shdr;
        static constexpr unsigned char kClass = ELFCLASS64;
    };

    template <class T, class V>
    static void set(T& to, V value) {
        to = static_cast<T>(value);
    }

    template <class Class>
    ByteVector build_as() const {
        typename Class::Header header{};
        std::memcpy(header.e_ident, ELFMAG, SELFMAG);
        header.e_ident[EI_CLASS] = Class::kClass;
        header.e_ident[EI_DATA] = ELFDATA2LSB;
        header.e_ident[EI_VERSION] = EV_CURRENT;
        header.e_type = type;
        header.e_machine = machine;
        header.e_version = EV_CURRENT;
        set(header.e_entry, entry);
        header.e_ehsize = sizeof(header);
        header.e_phentsize = sizeof(typename Class::Program);
        set(header.e_phnum, segments.size() + note_segments.size());
        set(header.e_phoff, sizeof(header));

        std::vector<typename Class::Program> program;
        ByteVector data;
        const std::size_t data_at =
            sizeof(header) + header.e_phnum * sizeof(typename Class::Program);
        for (const TestSegment& s : segments) {
            typename Class::Program p{};
            p.p_type = PT_LOAD;
            p.p_flags = s.flags;
            set(p.p_offset, data_at + data.size());
            set(p.p_paddr, s.physical);
            set(p.p_vaddr, s.virtual_address);
            set(p.p_filesz, s.data.size());
            set(p.p_memsz, s.data.size() + s.tail);
            set(p.p_align, s.align);
            program.push_back(p);
            data.insert(data.end(), s.data.begin(), s.data.end());
        }
        for (const ByteVector& notes : note_segments) {
            typename Class::Program p{};
            p.p_type = PT_NOTE;
            set(p.p_offset, data_at + data.size());
            set(p.p_filesz, notes.size());
            set(p.p_memsz, notes.size());
            program.push_back(p);
            data.insert(data.end(), notes.begin(), notes.end());
        }
        std::vector<typename Class::Section> sections;
        for (const ByteVector& notes : note_sections) {
            typename Class::Section s{};
            s.sh_type = SHT_NOTE;
            set(s.sh_offset, data_at + data.size());
            set(s.sh_size, notes.size());
            sections.push_back(s);
            data.insert(data.end(), notes.begin(), notes.end());
        }
        if (!sections.empty()) {
            set(header.e_shoff, data_at + data.size());
            header.e_shentsize = sizeof(typename Class::Section);
            set(header.e_shnum, sections.size());
        }

        ByteVector file;
        append(file, header);
        for (const auto& p : program)
            append(file, p);
        file.insert(file.end(), data.begin(), data.end());
        for (const auto& s : sections)
            append(file, s);
        return file;
    }
};

// An image of one segment with a PHYS32_ENTRY note that names its first byte.
inline TestElf small_kernel(std::uint64_t physical = 0x10'0000) {
    return {.segments = {{.physical = physical, .data = bytes("kernel")}},
            .note_segments = {encode({{.desc = desc32(static_cast<std::uint32_t>(physical))}})}};
}

}  // namespace vmm::boot::testing
