// Writes a VM's records, to a file or into a stream (docs/save-format.md):
//
//     Writer writer(sink);
//     TRY(writer.start(id, epoch, profile, kinds));  // all kinds of records that will follow
//     TRY(writer.record(state, vcpu));               // and memory(), in any order
//     TRY(writer.finish());
//
// A call that would make what no reader takes fails as our own mistake. After a failure there is
// nothing to do with a writer but to let go of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "migration/format/checksum.h"
#include "migration/format/format.h"
#include "migration/format/order.h"
#include "migration/format/sink.h"
#include "vmm/base/result.h"
#include "vmm/base/saved.h"

namespace migration::format {

// A section whose records will come (said once or for each record), and whether a reader that does
// not know it may go on.
struct KindToWrite {
    vmm::saved::Section section;
    bool mandatory = true;
};

// Pages of a region, counted from its first.
struct Extent {
    std::uint64_t first = 0;
    std::uint64_t pages = 0;
};

// One region of guest RAM. Its bytes do not change while they are written: of a guest that runs,
// the caller hands in copies.
struct Ram {
    std::uint64_t gfn = 0;              // of the first page
    std::span<const std::byte> memory;  // whole pages
    // The first pages at or after the given one that may be other than zero; none when there are
    // no more. Nothing outside of them is touched, so that holes stay holes. Empty: all of them.
    std::function<std::optional<Extent>(std::uint64_t from)> next_data;
};
// next_data() of a region that is a memfd from its first byte on.
std::function<std::optional<Extent>(std::uint64_t)> data_of_memfd(int fd, std::uint64_t bytes);

struct PagesToWrite {
    std::uint64_t gfn = 0;
    std::span<const std::byte> memory;  // whole pages
};

class Writer {
  public:
    // Of a record in a stream, whose checksums stand before its data: so much is still in the cache
    // when it is written.
    static constexpr std::uint64_t kMostInStream = std::uint64_t{1} << 20;

    explicit Writer(StreamSink& sink) : stream_(&sink) {}
    explicit Writer(FileSink& sink) : file_(&sink) {}

    template <vmm::saved::State Profile>
    vmm::Result<void> start(const Id& id, std::uint64_t epoch, const Profile& profile,
                            std::span<const KindToWrite> kinds) {
        return start(id, epoch, Profile::kSection.version, vmm::saved::encode(profile), kinds);
    }
    vmm::Result<void> start(const Id& id, std::uint64_t epoch, std::uint32_t profile_version,
                            Piece profile, std::span<const KindToWrite> kinds);

    template <vmm::saved::State T>
    vmm::Result<void> record(const T& state, std::uint32_t instance = 0) {
        return record(T::kSection, instance, vmm::saved::encode(state));
    }
    vmm::Result<void> record(const vmm::saved::Section& section, std::uint32_t instance,
                             Piece payload);

    // A whole region. In a file it becomes one record, which can be mapped at once, with holes for
    // its pages of zeroes; in a stream, records of those pages that are not zero.
    vmm::Result<void> memory(const Ram& ram);
    // Pages that replace what earlier rounds had of them, ascending; those of zeroes cost no more
    // than their numbers. A stream's, for a guest that runs while it is copied.
    vmm::Result<void> pages(std::uint32_t round, std::span<const PagesToWrite> runs);

    // The last record. Its length is that of everything.
    vmm::Result<End> finish();

  private:
    struct Batch;

    vmm::Result<void> emit(std::span<const Piece> pieces);
    vmm::Result<void> put(RecordHeader header, Piece payload);
    vmm::Result<RecordHeader> memory_header(std::uint32_t round, const MemoryDescriptor& descriptor,
                                            std::span<const PageRun> runs);
    vmm::Result<void> memory_in_file(const Ram& ram, std::uint64_t first);
    vmm::Result<void> add_to_batch(Batch& batch, std::uint64_t gfn, Piece memory, bool zeroes_too);
    vmm::Result<void> put_batch(Batch& batch);
    vmm::Result<void> put_zeroes(std::uint32_t round, std::vector<PageRun>& runs);

    StreamSink* stream_ = nullptr;
    FileSink* file_ = nullptr;
    std::uint64_t position_ = 0;
    Order order_;
    RunningChecksum headers_;
    std::vector<KindToWrite> kinds_;
};

}  // namespace migration::format
