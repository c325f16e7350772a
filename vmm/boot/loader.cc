#include "vmm/boot/loader.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <optional>
#include <unistd.h>

#include <sys/stat.h>

#include "vmm/base/fd.h"
#include "vmm/boot/bzimage.h"
#include "vmm/boot/layout.h"

namespace vmm::boot {
namespace {

using Packed = std::span<const std::byte>;

// Xen's public/arch-x86/hvm/start_info.h, version 1.
constexpr std::uint32_t kStartInfoMagic = 0x336ec578;
constexpr std::uint32_t kStartInfoVersion = 1;

struct hvm_start_info {
    std::uint32_t magic;
    std::uint32_t version;
    std::uint32_t flags;
    std::uint32_t nr_modules;
    std::uint64_t modlist_paddr;
    std::uint64_t cmdline_paddr;
    std::uint64_t rsdp_paddr;
    std::uint64_t memmap_paddr;
    std::uint32_t memmap_entries;
    std::uint32_t reserved;
};
static_assert(sizeof(hvm_start_info) == 56);

struct hvm_modlist_entry {
    std::uint64_t paddr;
    std::uint64_t size;
    std::uint64_t cmdline_paddr;
    std::uint64_t reserved;
};
static_assert(sizeof(hvm_modlist_entry) == 32);

struct hvm_memmap_table_entry {
    std::uint64_t addr;
    std::uint64_t size;
    std::uint32_t type;
    std::uint32_t reserved;
};
static_assert(sizeof(hvm_memmap_table_entry) == 24);

constexpr std::uint64_t kStructureAlignment = 8;

constexpr std::uint64_t align_up(std::uint64_t value, std::uint64_t alignment) {
    return (value + alignment - 1) & ~(alignment - 1);
}

std::string hex(std::uint64_t value) {
    std::array<char, 19> text{};
    std::snprintf(text.data(), text.size(), "0x%" PRIx64, value);
    return text.data();
}

// [begin, end) of guest physical memory.
struct Range {
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
    std::uint64_t size() const { return end - begin; }
};

// The map's RAM in ascending order, neighbours joined.
Result<std::vector<Range>> ram_of(const std::vector<MemoryMapEntry>& map) {
    std::vector<Range> all, ram;
    for (const MemoryMapEntry& e : map) {
        if (e.size > UINT64_MAX - e.base.value) {
            return internal_error("memory map: entry at " + hex(e.base.value) + " wraps around");
        }
        const Range range{e.base.value, e.base.value + e.size};
        if (range.size() == 0) continue;
        all.push_back(range);
        if (e.type == MemoryType::kRam) ram.push_back(range);
    }
    const auto by_address = [](const Range& a, const Range& b) { return a.begin < b.begin; };
    std::sort(all.begin(), all.end(), by_address);
    for (std::size_t i = 1; i < all.size(); ++i) {
        if (all[i].begin < all[i - 1].end) {
            return internal_error("memory map: entries overlap at " + hex(all[i].begin));
        }
    }
    std::sort(ram.begin(), ram.end(), by_address);
    std::vector<Range> joined;
    for (const Range& r : ram) {
        if (!joined.empty() && joined.back().end == r.begin) {
            joined.back().end = r.end;
        } else {
            joined.push_back(r);
        }
    }
    return joined;
}

// What is still free, and where to put things in it.
class FreeMemory {
  public:
    explicit FreeMemory(std::vector<Range> ranges) : free_(std::move(ranges)) {}

    // Takes `range` away; false when it was not all free.
    bool take(Range range) {
        for (std::size_t i = 0; i < free_.size(); ++i) {
            const Range from = free_[i];
            if (range.begin < from.begin || range.end > from.end) continue;
            free_[i].end = range.begin;
            const Range rest{range.end, from.end};
            if (rest.size() != 0) {
                free_.insert(free_.begin() + static_cast<std::ptrdiff_t>(i) + 1, rest);
            }
            return true;
        }
        return false;
    }

    // Takes the lowest free page-aligned block inside `window`.
    std::optional<std::uint64_t> take_block(std::uint64_t size, Range window) {
        for (const Range& r : free_) {
            const std::uint64_t begin = align_up(std::max(r.begin, window.begin), kPageSize);
            const std::uint64_t end = std::min(r.end, window.end);
            if (begin >= end || size > end - begin) continue;
            take({begin, begin + size});
            return begin;
        }
        return std::nullopt;
    }

    // As Xen's toolstack does it: above the image, where Linux wants its ramdisk. When there is no
    // room, anywhere above the first megabyte; then anywhere but at 0, for 0 means "none".
    std::optional<std::uint64_t> place(std::uint64_t size, std::uint64_t image_end) {
        const std::uint64_t limit = layout::kHighRam.value;
        const std::uint64_t low_end = layout::kLowMemoryEnd.value;
        if (const auto at = take_block(size, {std::max(image_end, low_end), limit})) return at;
        if (const auto at = take_block(size, {low_end, limit})) return at;
        return take_block(size, {kPageSize, limit});
    }

  private:
    std::vector<Range> free_;  // ascending; may hold empty ones
};

// start_info and all it points to but the modules: one block of bytes, whose address is known
// once its size is.
class StartInfoBlock {
  public:
    explicit StartInfoBlock(const LoadRequest& request) {
        reserve(sizeof(hvm_start_info));
        modlist_ = reserve(request.modules.size() * sizeof(hvm_modlist_entry));
        memmap_ = reserve(request.map.size() * sizeof(hvm_memmap_table_entry));
        cmdline_ = text(request.cmdline);
        for (const Module& m : request.modules)
            module_cmdlines_.push_back(text(m.cmdline));
    }

    std::uint64_t size() const { return bytes_.size(); }

    std::span<const std::byte> fill_in(const LoadRequest& request, std::uint64_t at,
                                       const std::vector<Gpa>& modules) {
        const auto address = [at](std::optional<std::uint64_t> offset) {
            return offset ? at + *offset : 0;
        };
        for (std::size_t i = 0; i < modules.size(); ++i) {
            put(modlist_ + i * sizeof(hvm_modlist_entry),
                hvm_modlist_entry{.paddr = modules[i].value,
                                  .size = request.modules[i].bytes.size(),
                                  .cmdline_paddr = address(module_cmdlines_[i]),
                                  .reserved = 0});
        }
        for (std::size_t i = 0; i < request.map.size(); ++i) {
            const MemoryMapEntry& e = request.map[i];
            put(memmap_ + i * sizeof(hvm_memmap_table_entry),
                hvm_memmap_table_entry{.addr = e.base.value,
                                       .size = e.size,
                                       .type = static_cast<std::uint32_t>(e.type),
                                       .reserved = 0});
        }
        put(0, hvm_start_info{.magic = kStartInfoMagic,
                              .version = kStartInfoVersion,
                              .flags = 0,
                              .nr_modules = static_cast<std::uint32_t>(modules.size()),
                              .modlist_paddr = modules.empty() ? 0 : at + modlist_,
                              .cmdline_paddr = address(cmdline_),
                              .rsdp_paddr = request.rsdp.value,
                              .memmap_paddr = request.map.empty() ? 0 : at + memmap_,
                              .memmap_entries = static_cast<std::uint32_t>(request.map.size()),
                              .reserved = 0});
        return bytes_;
    }

  private:
    std::uint64_t reserve(std::uint64_t size) {
        const std::uint64_t at = align_up(bytes_.size(), kStructureAlignment);
        bytes_.resize(at + size);
        return at;
    }
    std::optional<std::uint64_t> text(const std::string& s) {
        if (s.empty()) return std::nullopt;
        const std::uint64_t at = reserve(s.size() + 1);
        std::memcpy(bytes_.data() + at, s.c_str(), s.size() + 1);
        return at;
    }
    template <Plain T>
    void put(std::uint64_t at, const T& value) {
        std::memcpy(bytes_.data() + at, &value, sizeof(T));
    }

    std::vector<std::byte> bytes_;
    std::uint64_t modlist_ = 0, memmap_ = 0;
    std::optional<std::uint64_t> cmdline_;
    std::vector<std::optional<std::uint64_t>> module_cmdlines_;
};

// Whether a write to all of `range` cannot fail.
bool backed(const GuestMemory& memory, Range range) {
    for (std::uint64_t gfn = range.begin >> kPageShift; gfn <= (range.end - 1) >> kPageShift;
         ++gfn) {
        if (memory.page(gfn) == nullptr) return false;
    }
    return true;
}

bool all_zero(std::span<const std::byte> bytes) {
    return bytes.empty() || (bytes.front() == std::byte{0} &&
                             std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

bool copy(GuestMemory& memory, std::uint64_t to, std::span<const std::byte> bytes,
          bool skip_zeros) {
    while (!bytes.empty()) {
        const std::size_t n = std::min<std::uint64_t>(bytes.size(), kPageSize - Gpa{to}.offset());
        const auto piece = bytes.first(n);
        if (!(skip_zeros && all_zero(piece)) && !memory.write(Gpa{to}, piece)) return false;
        bytes = bytes.subspan(n);
        to += n;
    }
    return true;
}

Result<void> check_text(const std::string& text, const std::string& what) {
    if (text.find('\0') == std::string::npos) return {};
    return user_error(what + ": the command line has a zero byte in it");
}

// Judges the segments and takes their memory.
Result<void> place_segments(const GuestMemory& memory, const LoadRequest& request, const Elf& elf,
                            const std::vector<Range>& ram, FreeMemory& free) {
    for (const Segment& s : elf.segments) {
        const Range range{s.physical, s.end()};
        const std::string what = request.kernel_name + ": the segment at " + hex(range.begin) +
                                 " to " + hex(range.end - 1);
        const bool in_ram = std::any_of(ram.begin(), ram.end(), [&](const Range& r) {
            return range.begin >= r.begin && range.end <= r.end;
        });
        if (!in_ram) return user_error(what + " is outside the guest's RAM");
        if (!free.take(range)) return user_error(what + " overlaps another one");
        if (!backed(memory, range)) {
            return internal_error(what + " is RAM with no memory behind it");
        }
    }
    return {};
}

// Finds places for start_info and the modules, in the order in which Xen's toolstack does.
Result<void> place_blocks(const GuestMemory& memory, const LoadRequest& request,
                          std::uint64_t start_info_size, FreeMemory& free, BootInfo& info) {
    const std::uint64_t image_end = info.image_end.value;
    const auto start_info = free.place(start_info_size, image_end);
    if (!start_info) {
        return user_error(request.kernel_name + ": no room left in the guest's RAM for " +
                          std::to_string(start_info_size) + " bytes of start_info");
    }
    if (!backed(memory, {*start_info, *start_info + start_info_size})) {
        return internal_error("start_info: RAM with no memory behind it");
    }
    info.start_info = Gpa{*start_info};
    for (const Module& m : request.modules) {
        // A module without bytes still has an address of its own.
        const std::uint64_t size = std::max<std::uint64_t>(m.bytes.size(), 1);
        const auto at = free.place(size, image_end);
        if (!at) {
            return user_error(m.name + ": no room left in the guest's RAM for a module of " +
                              std::to_string(m.bytes.size()) + " bytes");
        }
        if (!backed(memory, {*at, *at + size})) {
            return internal_error(m.name + ": RAM with no memory behind it");
        }
        info.modules.push_back(Gpa{*at});
    }
    return {};
}

bool write_segments(GuestMemory& memory, const LoadRequest& request, const Elf& elf) {
    for (const Segment& s : elf.segments) {
        const auto bytes = request.kernel.subspan(s.offset, s.file_size);
        if (!copy(memory, s.physical, bytes, request.memory_is_zero)) return false;
        if (request.memory_is_zero) continue;
        const Gpa tail{s.physical + s.file_size};
        if (!memory.fill(tail, s.memory_size - s.file_size, std::byte{0})) return false;
    }
    return true;
}

bool write_blocks(GuestMemory& memory, const LoadRequest& request, StartInfoBlock& block,
                  const BootInfo& info) {
    const auto bytes = block.fill_in(request, info.start_info.value, info.modules);
    if (!memory.write(info.start_info, bytes)) return false;
    for (std::size_t i = 0; i < request.modules.size(); ++i) {
        const auto module = request.modules[i].bytes;
        if (!copy(memory, info.modules[i].value, module, request.memory_is_zero)) return false;
    }
    return true;
}

// Reads the rest of an open file to its end.
Result<Bytes> read_all(int fd, std::uint64_t expected, std::uint64_t limit,
                       const std::string& path) {
    // One byte more than expected, so that the end is seen without growing.
    Bytes bytes;
    std::size_t done = 0;
    if (!bytes.resize(std::min(expected, limit) + 1))
        return host_error(path + ": not enough memory to read it");
    while (true) {
        const auto room = bytes.writable().subspan(done);
        const ssize_t n = ::read(fd, room.data(), room.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno_error("reading " + path, Fault::kUser);
        if (n == 0) break;
        done += static_cast<std::size_t>(n);
        if (done > limit) break;
        if (done < bytes.size()) continue;
        if (!bytes.resize(bytes.size() * 2)) {
            return host_error(path + ": not enough memory to read it");
        }
    }
    if (done > limit) {
        return user_error(path + ": larger than " + std::to_string(limit >> 20) + " MiB");
    }
    if (done == 0) return user_error(path + ": the file is empty");
    if (!bytes.resize(done)) return host_error(path + ": not enough memory to read it");
    return bytes;
}

}  // namespace

Result<Bytes> read_file(const std::string& path, std::uint64_t limit) {
    const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file) return errno_error("opening " + path, Fault::kUser);
    struct stat status {};
    if (::fstat(file.get(), &status) != 0) return errno_error("looking at " + path, Fault::kUser);
    if (S_ISDIR(status.st_mode)) return user_error(path + ": is a directory, not a file");
    return read_all(file.get(), static_cast<std::uint64_t>(status.st_size), limit, path);
}

Result<Image> read_image(const std::string& path) {
    Bytes file = TRY(read_file(path, kMaxUnpackedKernel));
    if (is_bzimage(file.view())) {
        const Packed payload = TRY(bzimage_payload(file.view(), path));
        if (!is_elf(payload)) {
            file = TRY(unpack(payload, path));
        } else {
            Bytes plain;
            if (!plain.resize(payload.size())) return host_error(path + ": not enough memory");
            std::copy(payload.begin(), payload.end(), plain.writable().begin());
            file = std::move(plain);
        }
    } else if (is_gzip(file.view())) {
        file = TRY(unpack(file.view(), path));
    } else if (!is_elf(file.view())) {
        return user_error(path +
                          ": not a kernel: neither an ELF file (plain or gzip-compressed) nor a "
                          "Linux bzImage");
    }
    if (!is_elf(file.view())) return user_error(path + ": what it unpacks to is not an ELF file");
    return Image{.name = path, .elf = std::move(file)};
}

Result<BootInfo> load(GuestMemory& memory, const LoadRequest& request) {
    const Elf elf = TRY(parse_elf(request.kernel, request.kernel_name));
    BootInfo info{.entry = TRY(entry_point(elf, request.flavour, request.kernel_name)),
                  .start_info = {},
                  .image_start = Gpa{UINT64_MAX},
                  .image_end = {},
                  .modules = {},
                  .call_sites = {},
                  .is_64bit = elf.is_64bit,
                  .notes = elf.notes};
    for (const Segment& s : elf.segments) {
        info.image_start = std::min(info.image_start, Gpa{s.physical});
        info.image_end = std::max(info.image_end, Gpa{s.end()});
    }
    TRY(check_text(request.cmdline, request.kernel_name));
    for (const Module& m : request.modules)
        TRY(check_text(m.cmdline, m.name));

    // Everything gets its place before anything is written.
    const std::vector<Range> ram = TRY(ram_of(request.map));
    FreeMemory free(ram);
    TRY(place_segments(memory, request, elf, ram, free));
    // Only now, for segments that do not overlap bound what there is to search.
    info.call_sites = find_call_sites(elf, request.kernel);
    StartInfoBlock block(request);
    TRY(place_blocks(memory, request, block.size(), free, info));

    // All pages were there a moment ago, and no vCPU runs that could have given any back.
    if (!write_segments(memory, request, elf) || !write_blocks(memory, request, block, info)) {
        return internal_error("loading " + request.kernel_name + ": guest memory is gone");
    }
    return info;
}

}  // namespace vmm::boot
