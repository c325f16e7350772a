// The format of a saved or moving VM (docs/save-format.md): a fixed header, then records, the last
// of which is "end". A file and a stream have the same records; they differ in how memory is cut
// into them, and one reader takes both. These are the bytes themselves: little-endian, without
// padding that is not named.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

namespace migration::format {

static_assert(std::endian::native == std::endian::little, "the structures are the bytes");

inline constexpr std::array<char, 8> kMagic{'X', 'E', 'N', 'O', 'L', 'I', 'T', 'H'};
inline constexpr std::uint32_t kVersion = 1;

// Records that the format itself knows. The others are the components' (vmm/base/saved.h).
inline constexpr std::string_view kProfile = "vm.profile";
inline constexpr std::string_view kContents = "vm.contents";
inline constexpr std::string_view kMemory = "memory";
inline constexpr std::string_view kEnd = "end";
inline constexpr std::uint32_t kContentsVersion = 1;
inline constexpr std::uint32_t kMemoryVersion = 1;
inline constexpr std::uint32_t kEndVersion = 1;

inline constexpr std::uint32_t kMandatory = 1;  // flags of a record
inline constexpr std::uint32_t kZeroPages = 1;  // flags of a memory record: there is no data
inline constexpr std::uint64_t kPageSize = 4096;
inline constexpr std::uint64_t kChunk = 65536;  // bytes of memory with a checksum of their own
inline constexpr std::uint64_t kAlignment = 8;  // of records
inline constexpr std::uint64_t kDataAlignment = kPageSize;  // of a memory record's data

// Limits: what is beyond is refused, by the writer as well.
inline constexpr std::uint64_t kMostPayload = std::uint64_t{256} << 20;
inline constexpr std::uint64_t kMostState = std::uint64_t{512} << 20;  // payloads in all
inline constexpr std::uint32_t kMostKinds = 1024;
inline constexpr std::uint32_t kMostRecords = 1u << 18;                // memory's not counted
inline constexpr std::uint32_t kMostRuns = 1u << 16;                   // of one memory record
inline constexpr std::uint64_t kMostPages = std::uint64_t{1} << 28;    // likewise: 1 TiB
inline constexpr std::uint64_t kEndOfFrames = std::uint64_t{1} << 40;  // 52-bit addresses
inline constexpr std::uint64_t kMostPadding = std::uint64_t{2} << 20;  // before memory's data

using Id = std::array<std::byte, 16>;
// Lower-case letters, digits, '.', '_' and '-', then zeroes; at least one of each.
using Name = std::array<char, 32>;

struct FileHeader {
    std::array<char, 8> magic = kMagic;
    std::uint32_t version = kVersion;
    std::uint32_t flags = 0;
    Id id{};  // of the VM's incarnation
    std::uint64_t epoch = 0;
    std::array<std::uint64_t, 2> reserved{};
    std::uint64_t checksum = 0;  // of the bytes before it
};
static_assert(sizeof(FileHeader) == 64);

struct RecordHeader {
    Name name{};
    std::uint32_t version = 0;
    std::uint32_t flags = 0;
    std::uint32_t instance = 0;  // the vCPU's number, say; of memory, the round
    std::uint32_t reserved = 0;
    std::uint64_t length = 0;            // of the payload, without the zeroes up to 8 bytes
    std::uint64_t payload_checksum = 0;  // of memory: of descriptor and runs
    std::uint64_t checksum = 0;          // of the bytes before it
};
static_assert(sizeof(RecordHeader) == 72);

// vm.contents: this, then `count` of Kind in ascending order of their names.
struct Contents {
    std::uint32_t count = 0;
    std::uint32_t reserved = 0;
};
struct Kind {
    Name name{};
    std::uint32_t version = 0;
    std::uint32_t flags = 0;
    bool operator==(const Kind&) const = default;
};
static_assert(sizeof(Kind) == 40);

// memory: this, then `runs` of PageRun, then (unless the pages are zero) a checksum for each chunk,
// zeroes, and at data_offset the pages of all runs. Each run has its own chunks, of which the last
// may be shorter, so that none lies in two runs.
struct MemoryDescriptor {
    std::uint64_t pages = 0;  // of all runs
    std::uint32_t runs = 0;
    std::uint32_t chunk = 0;           // kChunk, or 0 if the pages are zero
    std::uint64_t data_offset = 0;     // from the payload's beginning
    std::uint64_t table_checksum = 0;  // of the chunks' checksums
    std::uint32_t flags = 0;
    std::uint32_t reserved_1 = 0;
    std::array<std::uint64_t, 3> reserved_2{};
};
static_assert(sizeof(MemoryDescriptor) == 64);

// Ascending, and none touches a page of another.
struct PageRun {
    std::uint64_t gfn = 0;
    std::uint64_t pages = 0;
    bool operator==(const PageRun&) const = default;
};
static_assert(sizeof(PageRun) == 16);

struct Checksum128 {
    std::uint64_t low = 0;
    std::uint64_t high = 0;
    bool operator==(const Checksum128&) const = default;
};

struct End {
    std::uint64_t records = 0;  // before this one
    std::uint64_t length = 0;   // from the file header's first byte to this record's last
    Checksum128 headers;        // of the file header and of the headers of all records before
    bool operator==(const End&) const = default;
};
static_assert(sizeof(End) == 32);

template <class T>
std::span<const std::byte> bytes_of(const T& value) {
    static_assert(std::has_unique_object_representations_v<T>);
    return std::as_bytes(std::span(&value, 1));
}
// All but the checksum, which is the last member.
template <class T>
std::span<const std::byte> before_checksum(const T& header) {
    return bytes_of(header).first(sizeof(T) - sizeof(std::uint64_t));
}

inline bool all_zero(std::span<const std::byte> bytes) {
    // Each byte is like the one before it. What is not zero says so early, as a rule.
    return bytes.empty() || (bytes.front() == std::byte{0} &&
                             std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

constexpr std::uint64_t round_up(std::uint64_t value, std::uint64_t alignment) {
    return (value + alignment - 1) / alignment * alignment;
}
constexpr std::uint64_t chunks_of(const PageRun& run) {
    return (run.pages * kPageSize + kChunk - 1) / kChunk;
}

// A name that does not fit becomes one that no reader takes.
constexpr Name to_name(std::string_view text) {
    Name name{};
    if (text.size() < name.size()) {
        for (std::size_t i = 0; i < text.size(); ++i) {
            name[i] = text[i];
        }
    }
    return name;
}
constexpr bool is_name(const Name& name) {
    std::size_t i = 0;
    for (; i < name.size() && name[i] != 0; ++i) {
        const char c = name[i];
        if ((c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-') {
            return false;
        }
    }
    const std::size_t length = i;
    for (; i < name.size(); ++i) {
        if (name[i] != 0) return false;
    }
    return length != 0 && length != name.size();
}
// For a name that is_name() has passed.
inline std::string to_string(const Name& name) {
    return name.data();
}

}  // namespace migration::format
