#include "migration/format/reader.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

namespace migration::format {

namespace {

using vmm::Failure;
using vmm::Result;

// Memory is allocated in such steps while it is read: a length may be a lie.
constexpr std::size_t kStep = std::size_t{1} << 20;

Failure<vmm::Error> refusal(const Source& source, std::string_view record, std::uint64_t offset,
                            const std::string& what) {
    return vmm::user_error(source.name() + ": " + std::string(record) + " at offset " +
                           std::to_string(offset) + ": " + what);
}

template <class T>
std::span<std::byte> writable_bytes_of(T& value) {
    return std::as_writable_bytes(std::span(&value, 1));
}

// One chunk of a memory record: which pages, and where in the file.
struct Chunk {
    std::uint64_t gfn = 0;
    std::uint64_t bytes = 0;
};

// The chunks in their order, which is that of the data.
class ChunkWalk {
  public:
    // Begins at the given one.
    ChunkWalk(const Memory& memory, std::uint64_t chunk) : runs_(memory.runs) {
        for (; !done() && chunk >= chunks_of(runs_[run_]); ++run_) {
            chunk -= chunks_of(runs_[run_]);
            data_ += runs_[run_].pages * kPageSize;
        }
        done_ = chunk * kChunk;
        data_ += done_;
    }

    bool done() const { return run_ == runs_.size(); }
    Chunk chunk() const {
        const PageRun& run = runs_[run_];
        return {run.gfn + done_ / kPageSize, std::min(kChunk, run.pages * kPageSize - done_)};
    }
    void advance() {
        data_ += chunk().bytes;
        done_ += kChunk;
        if (done_ >= runs_[run_].pages * kPageSize) {
            ++run_;
            done_ = 0;
        }
    }
    // Of the chunk, from the data's beginning.
    std::uint64_t data() const { return data_; }

  private:
    const std::vector<PageRun>& runs_;
    std::size_t run_ = 0;
    std::uint64_t done_ = 0;  // bytes of the run
    std::uint64_t data_ = 0;
};

std::string wrong_pages(const Chunk& chunk) {
    return "the pages from frame " + std::to_string(chunk.gfn) + " (" +
           std::to_string(chunk.bytes / kPageSize) + ") do not have their checksum";
}

Result<void> read_all(RandomSource& file, const Memory& memory, std::uint64_t offset,
                      std::span<std::byte> to) {
    while (!to.empty()) {
        const std::size_t n = TRY(file.read_at(offset, to));
        if (n == 0) {
            return refusal(file, kMemory, memory.offset,
                           "the file ends at " + std::to_string(offset));
        }
        to = to.subspan(n);
        offset += n;
    }
    return {};
}

}  // namespace

std::uint64_t Memory::chunks() const {
    std::uint64_t all = 0;
    if (!zero) {
        for (const PageRun& run : runs) {
            all += chunks_of(run);
        }
    }
    return all;
}

Failure<vmm::Error> Reader::refuse(const std::string& what) {
    return refusal(source_, at_, at_offset_, what);
}

Result<void> Reader::read_exactly(std::span<std::byte> to) {
    while (!to.empty()) {
        const std::size_t n = TRY(source_.read(to));
        if (n == 0) {
            return refuse("it ends at " + std::to_string(position_) + ", " +
                          std::to_string(to.size()) + " bytes too early");
        }
        to = to.subspan(n);
        position_ += n;
    }
    return {};
}

Result<void> Reader::read_zeroes(std::uint64_t bytes) {
    std::array<std::byte, kPageSize> some;
    while (bytes != 0) {
        const auto to = std::span(some).first(std::min<std::uint64_t>(bytes, some.size()));
        TRY(read_exactly(to));
        if (!all_zero(to)) return refuse("padding is not zero");
        bytes -= to.size();
    }
    return {};
}

Result<std::vector<std::byte>> Reader::read_growing(std::uint64_t bytes) {
    if (random_ != nullptr && bytes > random_->length() - std::min(position_, random_->length())) {
        return refuse("it ends at " + std::to_string(random_->length()) + ", and " +
                      std::to_string(bytes) + " bytes should come from " +
                      std::to_string(position_) + " on");
    }
    std::vector<std::byte> out;
    while (out.size() < bytes) {
        const std::size_t had = out.size();
        out.resize(had + std::min<std::uint64_t>(bytes - had, std::max(kStep, had)));
        TRY(read_exactly(std::span(out).subspan(had)));
    }
    return out;
}

Reader::Reader(RandomSource& source, Known known)
    : source_(source), random_(&source), known_(std::move(known)) {
    source.seek(0);
}

bool Reader::knows(std::string_view name, std::uint32_t version) const {
    return !known_ || std::any_of(known_->begin(), known_->end(), [&](const auto& section) {
        return section.name == name && section.version >= version;
    });
}

Result<Start> Reader::start() {
    if (failed_) return Failure{*failed_};
    auto start = start_once();
    if (!start) failed_ = start.error();
    return start;
}

Result<Item> Reader::next() {
    if (failed_) return Failure{*failed_};
    auto item = next_once();
    if (!item) failed_ = item.error();
    return item;
}

Result<Start> Reader::start_once() {
    if (position_ != 0) return vmm::internal_error("a reader was started twice");
    FileHeader file;
    TRY(read_exactly(writable_bytes_of(file)));
    if (file.magic != kMagic) return refuse("this is no saved VM");
    if (file.version != kVersion) {
        return refuse("version " + std::to_string(file.version) + " of the format is not known, " +
                      std::to_string(kVersion) + " is");
    }
    if (file.checksum != checksum(before_checksum(file))) return refuse("it has another checksum");
    if (file.flags != 0) return refuse("flags " + std::to_string(file.flags) + " are not known");
    if (file.reserved != decltype(file.reserved){}) return refuse("reserved bytes are not zero");
    headers_.add(bytes_of(file));

    Start start{.id = file.id, .epoch = file.epoch, .profile = {}, .kinds = {}};
    const RecordHeader profile = TRY(read_header());
    if (!knows(kProfile, profile.version)) {
        return refuse("version " + std::to_string(profile.version) + " is not known");
    }
    start.profile = TRY(read_record(profile));

    const RecordHeader header = TRY(read_header());
    const Record record = TRY(read_record(header));
    Contents contents;
    if (record.payload.size() < sizeof contents) return refuse("it is too short");
    std::memcpy(&contents, record.payload.data(), sizeof contents);
    if (contents.reserved != 0) return refuse("reserved bytes are not zero");
    if (contents.count != (record.payload.size() - sizeof contents) / sizeof(Kind) ||
        (record.payload.size() - sizeof contents) % sizeof(Kind) != 0) {
        return refuse("it has not the length of " + std::to_string(contents.count) + " kinds");
    }
    start.kinds.resize(contents.count);
    if (contents.count != 0) {
        std::memcpy(start.kinds.data(), record.payload.data() + sizeof contents,
                    contents.count * sizeof(Kind));
    }
    if (const auto verdict = order_.take_contents(start.kinds); !verdict) {
        return refuse(verdict.error());
    }
    for (std::size_t i = 0; i < start.kinds.size(); ++i) {
        const Kind& kind = start.kinds[i];
        const std::string name = to_string(kind.name);
        if (name == kMemory || (kind.flags & kMandatory) == 0 || knows(name, kind.version)) {
            continue;
        }
        at_offset_ = record.offset + sizeof(RecordHeader) + sizeof contents + i * sizeof(Kind);
        if (knows(name, 0)) {
            return refuse("version " + std::to_string(kind.version) + " of the record \"" + name +
                          "\" is not known");
        }
        return refuse("the record \"" + name + "\" is not known, and mandatory");
    }
    return start;
}

Result<RecordHeader> Reader::read_header() {
    // Until it is verified, it has no name that could be shown.
    at_ = "a record";
    at_offset_ = position_;
    RecordHeader header;
    TRY(read_exactly(writable_bytes_of(header)));
    if (header.checksum != checksum(before_checksum(header))) {
        return refuse("its header has another checksum");
    }
    if (is_name(header.name)) at_ = to_string(header.name);
    if (const auto verdict = order_.take(header); !verdict) return refuse(verdict.error());
    if (!order_.ended()) headers_.add(bytes_of(header));
    return header;
}

Result<Record> Reader::read_record(const RecordHeader& header) {
    auto payload = TRY(read_growing(header.length));
    if (checksum(payload) != header.payload_checksum) {
        return refuse("its payload has another checksum");
    }
    TRY(read_zeroes(round_up(position_, kAlignment) - position_));
    return Record{.name = to_string(header.name),
                  .version = header.version,
                  .mandatory = (header.flags & kMandatory) != 0,
                  .instance = header.instance,
                  .offset = at_offset_,
                  .payload = std::move(payload)};
}

Result<Memory> Reader::read_memory_header(const RecordHeader& header) {
    const std::uint64_t payload_at = position_;
    MemoryDescriptor descriptor;
    if (header.length < sizeof descriptor) return refuse("it is too short");
    TRY(read_exactly(writable_bytes_of(descriptor)));
    if (descriptor.runs == 0 || descriptor.runs > kMostRuns) {
        return refuse(std::to_string(descriptor.runs) + " runs of pages");
    }
    const std::uint64_t runs_bytes = std::uint64_t{descriptor.runs} * sizeof(PageRun);
    const std::uint64_t front = sizeof descriptor + runs_bytes;
    if (header.length < front) return refuse("it is too short");
    std::vector<std::byte> checked = TRY(read_growing(runs_bytes));
    checked.insert(checked.begin(), bytes_of(descriptor).begin(), bytes_of(descriptor).end());
    if (checksum(checked) != header.payload_checksum) {
        return refuse("its descriptor and runs have another checksum");
    }

    Memory memory{.offset = at_offset_,
                  .round = header.instance,
                  .zero = (descriptor.flags & kZeroPages) != 0,
                  .pages = descriptor.pages,
                  .runs = std::vector<PageRun>(descriptor.runs),
                  .table_at = payload_at + front,
                  .data_at = 0,
                  .table_checksum = descriptor.table_checksum};
    std::memcpy(memory.runs.data(), checked.data() + sizeof descriptor, runs_bytes);
    if ((descriptor.flags & ~kZeroPages) != 0) {
        return refuse("flags " + std::to_string(descriptor.flags) + " are not known");
    }
    if (descriptor.reserved_1 != 0 || descriptor.reserved_2 != decltype(descriptor.reserved_2){}) {
        return refuse("reserved bytes are not zero");
    }
    if (const auto verdict = order_.take_runs(header.instance, memory.runs); !verdict) {
        return refuse(verdict.error());
    }
    // They do not overlap, so that the sum does not wrap around.
    std::uint64_t pages = 0;
    for (const PageRun& run : memory.runs) {
        pages += run.pages;
    }
    if (pages != descriptor.pages || pages > kMostPages) {
        return refuse("it says that it has " + std::to_string(descriptor.pages) + " pages");
    }
    if (memory.zero) {
        if (descriptor.chunk != 0 || descriptor.data_offset != 0 ||
            descriptor.table_checksum != 0 || header.length != front) {
            return refuse("there is data in it, and its pages are zero");
        }
        return memory;
    }
    if (descriptor.chunk != kChunk) {
        return refuse("chunks of " + std::to_string(descriptor.chunk) + " bytes are not known");
    }
    const std::uint64_t table_end = front + memory.chunks() * sizeof(std::uint64_t);
    if (descriptor.data_offset < table_end || descriptor.data_offset - table_end >= kMostPadding) {
        return refuse("its data at " + std::to_string(descriptor.data_offset) +
                      " does not follow its checksums");
    }
    memory.data_at = payload_at + descriptor.data_offset;
    if (memory.data_at % kDataAlignment != 0) {
        return refuse("its data is at no multiple of " + std::to_string(kDataAlignment));
    }
    if (header.length != descriptor.data_offset + pages * kPageSize) {
        return refuse("it has " + std::to_string(header.length) +
                      " bytes, and its pages another "
                      "number");
    }
    if (random_ != nullptr && (random_->length() < memory.data_at ||
                               random_->length() - memory.data_at < pages * kPageSize)) {
        return refuse("it ends at " + std::to_string(random_->length()) +
                      ", within this record's pages");
    }
    pending_ = memory;
    return memory;
}

Result<void> Reader::read_memory(const Place& place) {
    if (failed_) return Failure{*failed_};
    if (!pending_) return vmm::internal_error("there is no memory to read");
    const Memory memory = std::move(*pending_);
    pending_.reset();
    auto read = [&]() -> Result<void> {
        const auto table_bytes = TRY(read_growing(memory.chunks() * sizeof(std::uint64_t)));
        if (checksum(table_bytes) != memory.table_checksum) {
            return refuse("its chunks' checksums have another checksum");
        }
        TRY(read_zeroes(memory.data_at - position_));
        std::uint64_t chunk = 0;
        std::array<std::byte, kChunk> scratch;
        for (const PageRun& run : memory.runs) {
            std::span<std::byte> to;
            if (place) {
                to = TRY(place(run));
                if (to.size() != run.pages * kPageSize) {
                    return vmm::internal_error("there is no room for the pages read");
                }
            }
            std::uint64_t left = run.pages * kPageSize;
            for (std::uint64_t gfn = run.gfn; left != 0; ++chunk) {
                const std::uint64_t bytes = std::min(left, kChunk);
                const auto here = place ? to.first(bytes) : std::span(scratch).first(bytes);
                TRY(read_exactly(here));
                std::uint64_t expected = 0;
                std::memcpy(&expected, table_bytes.data() + chunk * sizeof expected,
                            sizeof expected);
                if (checksum(here) != expected) return refuse(wrong_pages({gfn, bytes}));
                if (place) to = to.subspan(bytes);
                gfn += bytes / kPageSize;
                left -= bytes;
            }
        }
        return {};
    };
    auto result = read();
    if (!result) failed_ = result.error();
    return result;
}

Result<void> Reader::leave_memory() {
    if (!pending_) return {};
    if (random_ == nullptr) return read_memory({});
    position_ = pending_->data_at + pending_->pages * kPageSize;
    random_->seek(position_);
    pending_.reset();
    return {};
}

Result<End> Reader::read_end(const RecordHeader& header) {
    const std::uint64_t records = order_.records();
    End end;
    TRY(read_exactly(writable_bytes_of(end)));
    if (checksum(bytes_of(end)) != header.payload_checksum) {
        return refuse("its payload has another checksum");
    }
    if (end.records != records) {
        return refuse("it ends " + std::to_string(end.records) + " records, and " +
                      std::to_string(records) + " came");
    }
    if (end.length != position_) {
        return refuse("it ends " + std::to_string(end.length) + " bytes, and " +
                      std::to_string(position_) + " came");
    }
    if (end.headers != headers_.value()) return refuse("the headers have another checksum");
    if (random_ != nullptr && random_->length() != position_) {
        return refuse(std::to_string(random_->length() - position_) + " bytes follow it");
    }
    return end;
}

Result<Item> Reader::next_once() {
    if (at_offset_ == 0 || order_.ended()) {
        return vmm::internal_error("a reader was asked before its start or after its end");
    }
    TRY(leave_memory());
    for (;;) {
        const RecordHeader header = TRY(read_header());
        if (order_.ended()) return Item{TRY(read_end(header))};
        if (to_string(header.name) == kMemory) return Item{TRY(read_memory_header(header))};
        Record record = TRY(read_record(header));
        if (knows(record.name, record.version)) return Item{std::move(record)};
    }
}

Result<void> Reader::nothing_follows() {
    if (failed_) return Failure{*failed_};
    std::byte one{};
    if (TRY(source_.read(std::span(&one, 1))) != 0) {
        return refuse("something follows it at " + std::to_string(position_));
    }
    return {};
}

Result<Index> read_index(RandomSource& file, Known known) {
    Reader reader(file, std::move(known));
    Index index;
    index.start = TRY(reader.start());
    for (;;) {
        Item item = TRY(reader.next());
        if (auto* record = std::get_if<Record>(&item)) {
            index.records.push_back(std::move(*record));
        } else if (auto* memory = std::get_if<Memory>(&item)) {
            index.memory.push_back(std::move(*memory));
        } else {
            index.end = std::get<End>(item);
            return index;
        }
    }
}

Result<std::vector<std::uint64_t>> read_table(RandomSource& file, const Memory& memory) {
    std::vector<std::uint64_t> table(memory.chunks());
    const auto bytes = std::as_writable_bytes(std::span(table));
    TRY(read_all(file, memory, memory.table_at, bytes));
    if (!memory.zero && checksum(bytes) != memory.table_checksum) {
        return refusal(file, kMemory, memory.offset, "its chunks' checksums have another checksum");
    }
    return table;
}

Result<void> read_chunk(RandomSource& file, const Memory& memory,
                        std::span<const std::uint64_t> table, std::uint64_t chunk,
                        std::span<std::byte> to) {
    const ChunkWalk walk(memory, chunk);
    if (chunk >= table.size() || walk.done() || walk.chunk().bytes != to.size()) {
        return vmm::internal_error("there is no such chunk of memory");
    }
    TRY(read_all(file, memory, memory.data_at + walk.data(), to));
    if (checksum(to) != table[chunk]) {
        return refusal(file, kMemory, memory.offset, wrong_pages(walk.chunk()));
    }
    return {};
}

Result<void> verify_chunks(RandomSource& file, const Memory& memory,
                           std::span<const std::uint64_t> table, std::uint64_t first,
                           std::uint64_t count) {
    std::vector<std::byte> bytes(kChunk);
    ChunkWalk walk(memory, first);
    const std::uint64_t end = std::min<std::uint64_t>(table.size(), first + count);
    std::uint64_t data = 0;  // no byte from the last look on to here can be other than zero
    for (std::uint64_t i = first; i < end && !walk.done(); ++i, walk.advance()) {
        const Chunk chunk = walk.chunk();
        const std::uint64_t at = memory.data_at + walk.data();
        if (data < at + chunk.bytes) data = file.next_data(at);
        std::uint64_t sum = 0;
        if (data >= at + chunk.bytes) {
            sum = checksum_of_zeroes(chunk.bytes);
        } else {
            const auto here = std::span(bytes).first(chunk.bytes);
            TRY(read_all(file, memory, at, here));
            sum = checksum(here);
        }
        if (sum != table[i]) return refusal(file, kMemory, memory.offset, wrong_pages(chunk));
    }
    return {};
}

Result<void> verify(RandomSource& file, const Index& index) {
    for (const Memory& memory : index.memory) {
        if (memory.zero) continue;
        const auto table = TRY(read_table(file, memory));
        const std::uint64_t table_end = memory.table_at + table.size() * sizeof(std::uint64_t);
        std::vector<std::byte> padding(memory.data_at - table_end);
        TRY(read_all(file, memory, table_end, padding));
        if (!all_zero(padding)) {
            return refusal(file, kMemory, memory.offset, "padding is not zero");
        }
        TRY(verify_chunks(file, memory, table, 0, table.size()));
    }
    return {};
}

}  // namespace migration::format
