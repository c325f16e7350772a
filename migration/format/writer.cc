#include "migration/format/writer.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <unistd.h>

namespace migration::format {

namespace {

using vmm::Result;

// Records and a stream's pages need no more between them.
constexpr std::array<std::byte, kDataAlignment> kZeroes{};
// In one call: large enough for the filesystem, small enough for the cache between checksum and
// copy.
constexpr std::uint64_t kMostAtOnce = std::uint64_t{1} << 20;
// A region from here on begins where a huge page could.
constexpr std::uint64_t kHugePage = std::uint64_t{2} << 20;
// writev() takes 1024 pieces at once; a record has a few of its own.
constexpr std::size_t kRunsInStream = 1000;

Piece zeroes(std::uint64_t bytes) {
    return Piece(kZeroes).first(bytes);
}

std::uint64_t padding_to(std::uint64_t position, std::uint64_t alignment) {
    return round_up(position, alignment) - position;
}

Result<void> ours(const Verdict& verdict, const Name& name) {
    if (verdict) return {};
    return vmm::internal_error("writing the record \"" + std::string(name.data()) +
                               "\": " + verdict.error());
}

bool whole_pages(Piece memory) {
    return !memory.empty() && memory.size() % kPageSize == 0;
}

}  // namespace

// What becomes the next record of a stream.
struct Writer::Batch {
    std::uint32_t round = 0;
    std::uint64_t pages = 0;
    std::vector<PageRun> runs;
    std::vector<Piece> data;  // of each run
    std::vector<PageRun> zeroes;
};

std::function<std::optional<Extent>(std::uint64_t)> data_of_memfd(int fd, std::uint64_t bytes) {
    return [fd, bytes](std::uint64_t from) -> std::optional<Extent> {
        const std::uint64_t at = from * kPageSize;
        if (at >= bytes) return std::nullopt;
        const off_t data = ::lseek(fd, static_cast<off_t>(at), SEEK_DATA);
        if (data < 0) {
            if (errno == ENXIO) return std::nullopt;
            return Extent{from, (bytes - at) / kPageSize};  // it knows no holes
        }
        const off_t hole = ::lseek(fd, data, SEEK_HOLE);
        const std::uint64_t first = static_cast<std::uint64_t>(data) / kPageSize;
        const std::uint64_t end =
            hole < 0 ? bytes
                     : std::min(bytes, round_up(static_cast<std::uint64_t>(hole), kPageSize));
        if (first * kPageSize >= bytes) return std::nullopt;
        return Extent{first, end / kPageSize - first};
    };
}

Result<void> Writer::emit(std::span<const Piece> pieces) {
    if (stream_ != nullptr) {
        TRY(stream_->append(pieces));
        for (const Piece& piece : pieces) {
            position_ += piece.size();
        }
        return {};
    }
    for (const Piece& piece : pieces) {
        if (!piece.empty()) TRY(file_->write_at(position_, piece));
        position_ += piece.size();
    }
    return {};
}

// The header is complete but for its payload and the checksums.
Result<void> Writer::put(RecordHeader header, Piece payload) {
    header.length = payload.size();
    TRY(ours(order_.take(header), header.name));
    header.payload_checksum = checksum(payload);
    header.checksum = checksum(before_checksum(header));
    if (!order_.ended()) headers_.add(bytes_of(header));
    const std::array<Piece, 3> pieces{bytes_of(header), payload,
                                      zeroes(padding_to(payload.size(), kAlignment))};
    return emit(pieces);
}

Result<void> Writer::start(const Id& id, std::uint64_t epoch, std::uint32_t profile_version,
                           Piece profile, std::span<const KindToWrite> kinds) {
    FileHeader file{.id = id, .epoch = epoch};
    file.checksum = checksum(before_checksum(file));
    headers_.add(bytes_of(file));
    const std::array<Piece, 1> pieces{bytes_of(file)};
    TRY(emit(pieces));
    TRY(put({.name = to_name(kProfile), .version = profile_version, .flags = kMandatory}, profile));

    std::vector<Kind> list;
    for (const KindToWrite& one : kinds) {
        list.push_back({.name = to_name(one.section.name),
                        .version = one.section.version,
                        .flags = one.mandatory ? kMandatory : 0});
    }
    list.push_back({.name = to_name(kMemory), .version = kMemoryVersion, .flags = kMandatory});
    std::sort(list.begin(), list.end(),
              [](const Kind& a, const Kind& b) { return a.name < b.name; });
    list.erase(std::unique(list.begin(), list.end()), list.end());
    const Contents contents{.count = static_cast<std::uint32_t>(list.size())};
    std::vector<std::byte> payload(sizeof contents + list.size() * sizeof(Kind));
    std::memcpy(payload.data(), &contents, sizeof contents);
    std::memcpy(payload.data() + sizeof contents, list.data(), list.size() * sizeof(Kind));
    const Name name = to_name(kContents);
    TRY(put({.name = name, .version = kContentsVersion, .flags = kMandatory}, payload));
    TRY(ours(order_.take_contents(list), name));
    kinds_.assign(kinds.begin(), kinds.end());
    return {};
}

Result<void> Writer::record(const vmm::saved::Section& section, std::uint32_t instance,
                            Piece payload) {
    const auto kind = std::find_if(kinds_.begin(), kinds_.end(), [&](const KindToWrite& one) {
        return std::strcmp(one.section.name, section.name) == 0;
    });
    const bool mandatory = kind == kinds_.end() || kind->mandatory;
    return put({.name = to_name(section.name),
                .version = section.version,
                .flags = mandatory ? kMandatory : 0,
                .instance = instance},
               payload);
}

// Judges the record, and makes the header of what stands before the chunks' checksums.
Result<RecordHeader> Writer::memory_header(std::uint32_t round, const MemoryDescriptor& descriptor,
                                           std::span<const PageRun> runs) {
    RecordHeader header{.name = to_name(kMemory),
                        .version = kMemoryVersion,
                        .flags = kMandatory,
                        .instance = round};
    const bool zero = (descriptor.flags & kZeroPages) != 0;
    header.length = zero ? sizeof descriptor + runs.size_bytes()
                         : descriptor.data_offset + descriptor.pages * kPageSize;
    TRY(ours(order_.take(header), header.name));
    TRY(ours(order_.take_runs(round, runs), header.name));
    if (runs.size() > kMostRuns || descriptor.pages > kMostPages) {
        return vmm::internal_error("writing memory: too much for one record");
    }
    std::vector<std::byte> front(sizeof descriptor + runs.size_bytes());
    std::memcpy(front.data(), &descriptor, sizeof descriptor);
    std::memcpy(front.data() + sizeof descriptor, runs.data(), runs.size_bytes());
    header.payload_checksum = checksum(front);
    header.checksum = checksum(before_checksum(header));
    headers_.add(bytes_of(header));
    return header;
}

Result<void> Writer::memory(const Ram& ram) {
    if (!whole_pages(ram.memory)) return vmm::internal_error("writing memory that is no pages");
    if (file_ != nullptr) {
        for (std::uint64_t page = 0; page * kPageSize < ram.memory.size(); page += kMostPages) {
            TRY(memory_in_file(ram, page));
        }
        return {};
    }
    Batch batch{};
    std::optional<Extent> extent = Extent{0, ram.memory.size() / kPageSize};
    if (ram.next_data) extent = ram.next_data(0);
    while (extent) {
        TRY(add_to_batch(batch, ram.gfn + extent->first,
                         ram.memory.subspan(extent->first * kPageSize, extent->pages * kPageSize),
                         false));
        if (!ram.next_data) break;
        extent = ram.next_data(extent->first + extent->pages);
    }
    return put_batch(batch);
}

Result<void> Writer::pages(std::uint32_t round, std::span<const PagesToWrite> runs) {
    Batch batch{};
    batch.round = round;
    for (const PagesToWrite& run : runs) {
        if (!whole_pages(run.memory)) return vmm::internal_error("writing memory that is no pages");
        TRY(add_to_batch(batch, run.gfn, run.memory, true));
    }
    TRY(put_batch(batch));
    return put_zeroes(round, batch.zeroes);
}

namespace {

// One region of a file: checksums and bytes of its data, while they are in the cache.
class RegionWriter {
  public:
    RegionWriter(FileSink& file, std::uint64_t data_at, Piece memory)
        : file_(file), data_at_(data_at), memory_(memory) {
        const PageRun run{0, memory.size() / kPageSize};
        table_.assign(chunks_of(run), checksum_of_zeroes(kChunk));
        const std::uint64_t rest = memory.size() % kChunk;
        if (rest != 0) table_.back() = checksum_of_zeroes(rest);
    }

    // Ascending.
    Result<void> add(const Extent& extent) {
        std::uint64_t at = extent.first * kPageSize;
        const std::uint64_t end = at + extent.pages * kPageSize;
        while (at < end) {
            const std::uint64_t chunk = at / kChunk;
            const std::uint64_t begin = chunk * kChunk;
            const std::uint64_t stop = std::min(end, begin + kChunk);
            const std::uint64_t chunk_end = std::min<std::uint64_t>(memory_.size(), begin + kChunk);
            if (at == begin && stop == chunk_end) {
                table_[chunk] = checksum(memory_.subspan(begin, stop - begin));
            } else {
                // The rest of it is a hole, which must not be touched: reading it would fill it.
                if (partial_ != chunk) TRY(finish_partial());
                partial_ = chunk;
                std::memcpy(scratch_.data() + (at - begin), memory_.data() + at, stop - at);
            }
            TRY(write(at, stop));
            at = stop;
        }
        return {};
    }
    Result<void> finish() {
        TRY(finish_partial());
        return flush();
    }
    std::span<const std::uint64_t> table() const { return table_; }

  private:
    static constexpr std::uint64_t kNone = ~std::uint64_t{0};

    Result<void> finish_partial() {
        if (partial_ == kNone) return {};
        const std::uint64_t begin = partial_ * kChunk;
        table_[partial_] =
            checksum(Piece(scratch_).first(std::min(kChunk, memory_.size() - begin)));
        scratch_.fill({});
        partial_ = kNone;
        return {};
    }
    Result<void> write(std::uint64_t at, std::uint64_t end) {
        for (; at < end; at += kPageSize) {
            if (all_zero(memory_.subspan(at, kPageSize))) {
                TRY(flush());
                continue;
            }
            if (pending_end_ != at) TRY(flush());
            if (pending_ == kNone) pending_ = at;
            pending_end_ = at + kPageSize;
            if (pending_end_ - pending_ >= kMostAtOnce) TRY(flush());
        }
        return {};
    }
    Result<void> flush() {
        if (pending_ == kNone) return {};
        TRY(file_.write_at(data_at_ + pending_,
                           memory_.subspan(pending_, pending_end_ - pending_)));
        pending_ = kNone;
        pending_end_ = kNone;
        return {};
    }

    FileSink& file_;
    std::uint64_t data_at_;
    Piece memory_;
    std::vector<std::uint64_t> table_;
    std::uint64_t partial_ = kNone;  // the chunk whose data scratch_ holds
    std::array<std::byte, kChunk> scratch_{};
    std::uint64_t pending_ = kNone;  // not yet written: from here
    std::uint64_t pending_end_ = kNone;
};

}  // namespace

// A record of the region's pages from `first` on, as many as one may have.
Result<void> Writer::memory_in_file(const Ram& ram, std::uint64_t first) {
    const std::uint64_t end = std::min(first + kMostPages, ram.memory.size() / kPageSize);
    const std::array<PageRun, 1> runs{{{ram.gfn + first, end - first}}};
    const Piece memory = ram.memory.subspan(first * kPageSize, runs[0].pages * kPageSize);
    const std::uint64_t payload_at = position_ + sizeof(RecordHeader);
    const std::uint64_t front =
        sizeof(MemoryDescriptor) + sizeof runs + chunks_of(runs[0]) * sizeof(std::uint64_t);
    const std::uint64_t alignment = memory.size() < kHugePage ? kDataAlignment : kHugePage;
    const std::uint64_t data_at = round_up(payload_at + front, alignment);

    RegionWriter region(*file_, data_at, memory);
    for (std::uint64_t page = first; page < end;) {
        Extent extent{page, end - page};
        if (ram.next_data) {
            const auto data = ram.next_data(page);
            if (!data || data->first >= end) break;
            extent = {data->first, std::min(data->pages, end - data->first)};
        }
        TRY(region.add({extent.first - first, extent.pages}));
        page = extent.first + extent.pages;
    }
    TRY(region.finish());

    const auto table = std::as_bytes(region.table());
    const MemoryDescriptor descriptor{.pages = runs[0].pages,
                                      .runs = 1,
                                      .chunk = kChunk,
                                      .data_offset = data_at - payload_at,
                                      .table_checksum = checksum(table)};
    const RecordHeader header = TRY(memory_header(0, descriptor, runs));
    const std::array<Piece, 4> pieces{bytes_of(header), bytes_of(descriptor),
                                      std::as_bytes(std::span(runs)), table};
    TRY(emit(pieces));
    position_ = data_at + memory.size();
    return {};
}

Result<void> Writer::add_to_batch(Batch& batch, std::uint64_t gfn, Piece memory, bool zeroes_too) {
    for (; !memory.empty(); ++gfn, memory = memory.subspan(kPageSize)) {
        const Piece page = memory.first(kPageSize);
        if (all_zero(page)) {
            if (!zeroes_too) continue;
            auto& runs = batch.zeroes;
            if (!runs.empty() && runs.back().gfn + runs.back().pages == gfn) {
                ++runs.back().pages;
            } else {
                runs.push_back({gfn, 1});
            }
            continue;
        }
        if (!batch.runs.empty() && batch.runs.back().gfn + batch.runs.back().pages == gfn &&
            batch.data.back().data() + batch.data.back().size() == page.data()) {
            ++batch.runs.back().pages;
            batch.data.back() =
                Piece(batch.data.back().data(), batch.data.back().size() + kPageSize);
        } else {
            batch.runs.push_back({gfn, 1});
            batch.data.push_back(page);
        }
        ++batch.pages;
        if (batch.pages * kPageSize == kMostInStream || batch.runs.size() == kRunsInStream) {
            TRY(put_batch(batch));
        }
    }
    return {};
}

Result<void> Writer::put_batch(Batch& batch) {
    if (batch.runs.empty()) return {};
    std::vector<std::uint64_t> table;
    for (Piece rest : batch.data) {
        while (!rest.empty()) {
            const Piece chunk = rest.first(std::min<std::uint64_t>(rest.size(), kChunk));
            table.push_back(checksum(chunk));
            rest = rest.subspan(chunk.size());
        }
    }
    const Piece runs = std::as_bytes(std::span(batch.runs));
    const Piece sums = std::as_bytes(std::span(table));
    const std::uint64_t payload_at = position_ + sizeof(RecordHeader);
    const std::uint64_t front = sizeof(MemoryDescriptor) + runs.size() + sums.size();
    const std::uint64_t padding = padding_to(payload_at + front, kDataAlignment);
    const MemoryDescriptor descriptor{.pages = batch.pages,
                                      .runs = static_cast<std::uint32_t>(batch.runs.size()),
                                      .chunk = kChunk,
                                      .data_offset = front + padding,
                                      .table_checksum = checksum(sums)};
    const RecordHeader header = TRY(memory_header(batch.round, descriptor, batch.runs));
    std::vector<Piece> pieces{bytes_of(header), bytes_of(descriptor), runs, sums, zeroes(padding)};
    pieces.insert(pieces.end(), batch.data.begin(), batch.data.end());
    TRY(emit(pieces));
    batch.pages = 0;
    batch.runs.clear();
    batch.data.clear();
    return {};
}

Result<void> Writer::put_zeroes(std::uint32_t round, std::vector<PageRun>& runs) {
    for (std::span<const PageRun> left(runs); !left.empty();) {
        const auto some = left.first(std::min<std::size_t>(left.size(), kMostRuns));
        left = left.subspan(some.size());
        MemoryDescriptor descriptor{.runs = static_cast<std::uint32_t>(some.size()),
                                    .flags = kZeroPages};
        for (const PageRun& run : some) {
            descriptor.pages += run.pages;
        }
        const RecordHeader header = TRY(memory_header(round, descriptor, some));
        const std::array<Piece, 3> pieces{bytes_of(header), bytes_of(descriptor),
                                          std::as_bytes(some)};
        TRY(emit(pieces));
    }
    return {};
}

Result<End> Writer::finish() {
    End end{.records = order_.records(),
            .length = position_ + sizeof(RecordHeader) + sizeof(End),
            .headers = headers_.value()};
    TRY(put({.name = to_name(kEnd), .version = kEndVersion, .flags = kMandatory}, bytes_of(end)));
    return end;
}

}  // namespace migration::format
