// A saved VM of any content, as a file and as a stream. A fuzzer cannot guess checksums, so an
// input may be one that is patched until they are right: then what stands behind them is read too.
// What is taken holds what docs/save-format.md says, and both ways to read it say the same.
#include "tests/fakes/saved_vm.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <vector>

#include "migration/format/reader.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/mend.h"

namespace {

using namespace migration::format;
using fakes::Bytes;
using xenolith::fuzz::mend;

// What one reading gave, in short.
struct Seen {
    bool taken = false;
    std::string why;
    std::vector<std::tuple<std::string, std::uint32_t, std::uint64_t, std::size_t>> items;
};

void check(const Memory& memory, std::uint64_t size) {
    FUZZ_CHECK(!memory.runs.empty() && memory.pages <= kMostPages);
    std::uint64_t pages = 0, end = 0;
    for (const PageRun& run : memory.runs) {
        FUZZ_CHECK(run.pages != 0 && run.gfn >= end);
        end = run.gfn + run.pages;
        FUZZ_CHECK(end > run.gfn && end <= kEndOfFrames);
        pages += run.pages;
    }
    FUZZ_CHECK(pages == memory.pages);
    if (memory.zero) return;
    FUZZ_CHECK(memory.data_at % kPageSize == 0);
    FUZZ_CHECK(size == 0 ||
               (memory.data_at <= size && memory.pages * kPageSize <= size - memory.data_at));
}

Seen read(Reader& reader, std::uint64_t size) {
    Seen seen;
    const auto start = reader.start();
    if (!start) {
        seen.why = start.error().what;
        return seen;
    }
    FUZZ_CHECK(start->profile.name == kProfile && start->kinds.size() <= kMostKinds);
    std::set<std::pair<std::string, std::uint32_t>> names;
    for (;;) {
        const auto item = reader.next();
        if (!item) {
            seen.why = item.error().what;
            FUZZ_CHECK(reader.next().error().what == seen.why);
            return seen;
        }
        if (std::get_if<End>(&*item) != nullptr) {
            const auto alone = reader.nothing_follows();
            seen.taken = alone.has_value();
            if (!alone) seen.why = alone.error().what;
            return seen;
        }
        if (const auto* record = std::get_if<Record>(&*item)) {
            FUZZ_CHECK(names.emplace(record->name, record->instance).second);
            seen.items.emplace_back(record->name, record->instance, record->offset,
                                    record->payload.size());
            continue;
        }
        const auto& memory = std::get<Memory>(*item);
        check(memory, size);
        seen.items.emplace_back("memory", memory.round, memory.offset, memory.pages);
        if (memory.zero) continue;
        // As a VM of 64 MiB would do.
        const bool fits = memory.runs.back().gfn + memory.runs.back().pages <= 16384;
        if (!fits) continue;
        Bytes room;
        const auto result =
            reader.read_memory([&](const PageRun& run) -> vmm::Result<std::span<std::byte>> {
                room.resize(run.pages * kPageSize);
                return std::span(room);
            });
        if (!result) {
            seen.why = result.error().what;
            return seen;
        }
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const auto input = std::as_bytes(std::span(data, size));
    // The last byte says how it is read, so that a file is a seed as it is, with one byte more.
    const auto how = std::to_integer<unsigned>(input.back());
    Bytes bytes(input.begin(), input.end() - 1);
    if ((how & 1) != 0) mend(bytes);
    Known known;
    if ((how & 2) != 0) known = {{"vm.profile", 2}, {"kvm.vcpu", 3}, {"xen.store", 1}};

    fakes::ByteStream stream(bytes, (how & 4) != 0 ? 13 : kChunk);
    Reader streaming(stream, known);
    const Seen streamed = read(streaming, 0);
    fakes::ByteFile file(bytes);
    Reader filing(file, known);
    const Seen filed = read(filing, bytes.size());
    FUZZ_CHECK(streamed.taken || !streamed.why.empty());
    FUZZ_CHECK(filed.taken || !filed.why.empty());
    // What is passed over in a file is verified in a stream, so that this says no less.
    if (streamed.taken) {
        FUZZ_CHECK(filed.taken && streamed.items == filed.items);
    }

    fakes::ByteFile indexed(bytes);
    const auto index = read_index(indexed, known);
    if (streamed.taken) FUZZ_CHECK(index);
    if (index) {
        const bool verified = verify(indexed, *index).has_value();
        FUZZ_CHECK(verified == streamed.taken);
        FUZZ_CHECK(index->end.length == bytes.size());
    }
    return 0;
}
