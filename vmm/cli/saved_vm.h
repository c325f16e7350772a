// A saved VM, opened to be restored: everything of it but its memory's bytes is read and checked,
// so that what is refused is refused before anything is made. From a file all of that is known at
// once; from a stream what comes before the memory, the rest after it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "migration/format/reader.h"
#include "vmm/cli/config/saved_config.h"
#include "vmm/machine/machine_memory.h"
#include "vmm/memory/demand_fill.h"

namespace vmm::cli {

class SavedVm {
  public:
    // Fault::kUser: what is in the file, or that it cannot be read.
    static Result<std::unique_ptr<SavedVm>> open(const std::string& path);
    // Likewise of what comes out of a stream, up to its memory. `stream` stays until this is
    // destroyed.
    static Result<std::unique_ptr<SavedVm>> receive(migration::format::Source& stream);

    const std::string& name() const { return name_; }
    const migration::format::Start& start() const { return index_.start; }
    bool is_stream() const { return reader_ != nullptr; }
    // Of a file.
    migration::format::FileSource& file() { return *file_; }
    const migration::format::Index& index() const { return index_; }
    // Of a stream: the memory, into the machine's regions, and what comes after it, to the end.
    using Regions = std::vector<MachineMemory::RegionView>;
    Result<void> receive_rest(const Regions& regions);
    // As it was, with what belongs to a host left at its default.
    const config::VmConfig& config() const { return config_; }
    const config::MemoryLayoutState& layout() const { return layout_; }
    const config::CallSitesState& call_sites() const { return call_sites_; }
    // What VmState takes; of a stream all of them only after receive_rest().
    const std::vector<migration::format::Record>& parts() const { return parts_; }

    // Of a file: holds all of its bytes against their checksums. A stream's always are.
    Result<void> verify() const { return migration::format::verify(*file_, index_); }

  private:
    explicit SavedVm(std::string name) : name_(std::move(name)) {}
    Result<void> take(migration::format::Record record);
    Result<void> check_head();
    Result<void> check_call_sites() const;
    Result<void> receive_memory(const migration::format::Memory& memory, const Regions& regions);

    const std::string name_;
    std::unique_ptr<migration::format::FileSource> file_;  // null: it is a stream
    std::unique_ptr<migration::format::Reader> reader_;    // null: it is a file
    std::optional<migration::format::Item> next_;          // a stream's, which was not looked at
    std::optional<config::ConfigState> saved_config_;
    // Where the records are, for who refuses what they say.
    std::uint64_t config_at_ = 0;
    std::optional<std::uint64_t> layout_at_;
    bool has_call_sites_ = false;
    migration::format::Index index_;
    config::VmConfig config_;
    config::MemoryLayoutState layout_;
    config::CallSitesState call_sites_;
    std::vector<migration::format::Record> parts_;
};

// Brings a saved VM's memory into a machine's regions: chunk by chunk as they are touched and in
// the background, each one verified before anybody sees it; or, where this process may not do that
// (userfaultfd), all of it at once.
class MemoryFill final : public DemandFill::Source {
  public:
    // `damaged`: on a thread of its own, a chunk that cannot be read or is not what was saved. The
    // guest must be told to stop before it returns.
    using Damaged = std::function<void(const Error& error)>;

    // `saved` and `memory` stay until this is destroyed.
    static Result<std::unique_ptr<MemoryFill>> start(SavedVm& saved, MachineMemory& memory,
                                                     Damaged damaged);
    ~MemoryFill() override;

    // Waits until all of it is there; false: some of it will never be.
    bool finish();

  private:
    // A run of pages of one memory record, in one region.
    struct Piece {
        std::size_t range = 0;
        std::uint64_t page = 0;  // of the region, counted from its first
        std::uint64_t pages = 0;
        std::size_t memory = 0;       // which of the index
        std::uint64_t chunk = 0;      // its first, of the record's
        std::uint64_t data_page = 0;  // its first page, of the record's data
    };
    // Of a piece, the chunk that a byte of the region lies in.
    struct Place {
        const Piece* piece;
        std::uint64_t chunk;  // of the record's
        std::uint64_t at;     // in the file
        std::uint64_t size;
    };

    MemoryFill(SavedVm& saved, MachineMemory& memory, Damaged damaged);
    Result<void> find_pieces();
    bool fits_chunks() const;
    Result<void> fill_now();
    std::optional<Place> place_of(std::size_t range, std::uint64_t offset) const;
    const std::vector<std::uint64_t>* table_of(std::size_t memory);

    bool prepare() override;
    bool is_zero(std::size_t range, std::uint64_t offset) override;
    bool fetch(std::size_t range, std::uint64_t offset, std::span<std::byte> to) override;
    void failed(std::size_t range, std::uint64_t offset) override;

    SavedVm& saved_;
    MachineMemory& memory_;
    const Damaged damaged_;
    const std::vector<MachineMemory::RegionView> regions_;
    std::vector<Piece> pieces_;                                      // ascending by range and page
    std::vector<std::optional<std::vector<std::uint64_t>>> tables_;  // the filling thread's
    std::size_t prepared_ = 0;                                       // tables; likewise
    std::uint64_t hole_ = 0, hole_end_ = 0;                          // of the file; likewise
    std::optional<Error> error_;                                     // likewise
    std::unique_ptr<DemandFill> fill_;                               // null: all is there
};

}  // namespace vmm::cli
