// Reads a VM's records from a file or a stream (docs/save-format.md). All of it is hostile: every
// length and count is checked, and nothing is allocated beyond what is there. What is wrong is said
// with the record's name and offset, and after it a reader gives nothing but that.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "migration/format/checksum.h"
#include "migration/format/format.h"
#include "migration/format/order.h"
#include "migration/format/source.h"
#include "vmm/base/result.h"
#include "vmm/base/saved.h"

namespace migration::format {

// A record of a component, its checksum verified.
struct Record {
    std::string name;
    std::uint32_t version = 0;
    bool mandatory = true;
    std::uint32_t instance = 0;
    std::uint64_t offset = 0;  // of its header
    std::vector<std::byte> payload;
};

// Pages. The runs are verified; the data is what read_memory() gives.
struct Memory {
    std::uint64_t offset = 0;
    std::uint32_t round = 0;
    bool zero = false;  // there is no data
    std::uint64_t pages = 0;
    std::vector<PageRun> runs;
    std::uint64_t table_at = 0;  // where the chunks' checksums are, from the first byte of all
    std::uint64_t data_at = 0;   // likewise the data; a multiple of the page size
    std::uint64_t table_checksum = 0;

    std::uint64_t chunks() const;
};

struct Start {
    Id id{};
    std::uint64_t epoch = 0;
    Record profile;
    std::vector<Kind> kinds;  // ascending by name
};

using Item = std::variant<Record, Memory, End>;

// Which records the caller can read. None: it takes any, to show them.
using Known = std::optional<std::vector<vmm::saved::Section>>;

class Reader {
  public:
    explicit Reader(Source& source, Known known = std::nullopt)
        : source_(source), known_(std::move(known)) {}
    // A file, whose data is skipped where nobody asks for it.
    explicit Reader(RandomSource& source, Known known = std::nullopt);

    // What must be known before anything is made. A mandatory record that is not known, or not in
    // this version, is refused here, wherever it will stand.
    vmm::Result<Start> start();
    // The next record that is known; others, being optional, are passed over. Data of memory that
    // was not read is passed over in a file and verified in a stream. After End there is nothing.
    vmm::Result<Item> next();

    // The data of the memory that next() just gave. `place` says where a run's pages go, all of
    // them, in a VM that runs only after End; it is asked for one run after the other.
    using Place = std::function<vmm::Result<std::span<std::byte>>(const PageRun&)>;
    vmm::Result<void> read_memory(const Place& place);

    // For a stream that ends with it. (A file must.)
    vmm::Result<void> nothing_follows();

  private:
    vmm::Failure<vmm::Error> refuse(const std::string& what);
    vmm::Result<void> read_exactly(std::span<std::byte> to);
    vmm::Result<void> read_zeroes(std::uint64_t bytes);
    vmm::Result<std::vector<std::byte>> read_growing(std::uint64_t bytes);
    vmm::Result<RecordHeader> read_header();
    vmm::Result<Record> read_record(const RecordHeader& header);
    vmm::Result<Memory> read_memory_header(const RecordHeader& header);
    vmm::Result<End> read_end(const RecordHeader& header);
    vmm::Result<void> leave_memory();
    vmm::Result<Start> start_once();
    vmm::Result<Item> next_once();
    bool knows(std::string_view name, std::uint32_t version) const;

    Source& source_;
    RandomSource* random_ = nullptr;
    Known known_;
    std::uint64_t position_ = 0;
    std::string at_ = "the file header";  // where we are, for errors
    std::uint64_t at_offset_ = 0;
    Order order_;
    RunningChecksum headers_;
    std::optional<Memory> pending_;  // whose data was not read
    std::optional<vmm::Error> failed_;
};

// A whole file, without its memory's data.
struct Index {
    Start start;
    std::vector<Record> records;
    std::vector<Memory> memory;  // later ones replace pages of earlier rounds
    End end;
};
// Its time grows with the number of records, not with their memory.
vmm::Result<Index> read_index(RandomSource& file, Known known = std::nullopt);

// The checksums of a memory record's chunks, themselves verified: run after run.
vmm::Result<std::vector<std::uint64_t>> read_table(RandomSource& file, const Memory& memory);
// One chunk, when its pages are first touched; any thread. `to` has its length.
vmm::Result<void> read_chunk(RandomSource& file, const Memory& memory,
                             std::span<const std::uint64_t> table, std::uint64_t chunk,
                             std::span<std::byte> to);
// Holds chunks [first, first+count) against them. A hole costs nothing.
vmm::Result<void> verify_chunks(RandomSource& file, const Memory& memory,
                                std::span<const std::uint64_t> table, std::uint64_t first,
                                std::uint64_t count);
// All that read_index() left out.
vmm::Result<void> verify(RandomSource& file, const Index& index);

}  // namespace migration::format
