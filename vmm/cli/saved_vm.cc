#include "vmm/cli/saved_vm.h"

#include <algorithm>
#include <fcntl.h>
#include <string_view>
#include <utility>
#include <variant>

#include "migration/format/checksum.h"
#include "vmm/base/log.h"
#include "vmm/cli/vm_state.h"
#include "xenshim/abi/profile.h"

namespace vmm::cli {

namespace format = migration::format;

namespace {

constexpr std::uint64_t kPagesInChunk = format::kChunk / kPageSize;
static_assert(DemandFill::kChunk == format::kChunk);

// The record that is refused, for the operator.
std::string at(const std::string& file, const char* record, std::uint64_t offset) {
    return file + ": record " + record + " at byte " + std::to_string(offset) + ": ";
}

template <saved::State T>
Result<T> decode(const std::string& file, const format::Record& record) {
    auto state = saved::decode<T>(record.payload, record.version);
    if (state) return *std::move(state);
    return user_error(at(file, record.name.c_str(), record.offset) + state.error());
}

}  // namespace

Result<void> SavedVm::take(format::Record record) {
    if (record.name == config::ConfigState::kSection.name) {
        saved_config_ = TRY(decode<config::ConfigState>(name_, record));
        config_at_ = record.offset;
    } else if (record.name == config::MemoryLayoutState::kSection.name) {
        layout_ = TRY(decode<config::MemoryLayoutState>(name_, record));
        layout_at_ = record.offset;
    } else if (record.name == config::CallSitesState::kSection.name) {
        call_sites_ = TRY(decode<config::CallSitesState>(name_, record));
        has_call_sites_ = true;
        if (const auto good = call_sites_.check(); !good) {
            return user_error(at(name_, "vm.call_sites", record.offset) + good.error());
        }
    } else {
        parts_.push_back(std::move(record));
        return {};
    }
    if (record.instance != 0) {
        return user_error(at(name_, record.name.c_str(), record.offset) + "there is only one");
    }
    return {};
}

Result<void> SavedVm::check_head() {
    const auto profile = TRY(decode<config::ProfileState>(name_, index_.start.profile));
    if (!saved_config_ || !layout_at_) {
        return user_error(name_ + ": it does not say what machine the guest needs");
    }
    std::vector<std::string_view> profiles;
    for (const auto& known : xenshim::abi::profiles()) {
        profiles.push_back(known.name);
    }
    auto checked = config::config_of(profile, *saved_config_, profiles);
    if (!checked) {
        const std::string& why = checked.error();
        if (why.starts_with("profile: ") || why.starts_with("quirks: ")) {
            return user_error(at(name_, "vm.profile", index_.start.profile.offset) + why);
        }
        return user_error(at(name_, "vm.config", config_at_) + why);
    }
    config_ = *std::move(checked);
    if (const auto good = layout_.check(config_.memory_bytes); !good) {
        return user_error(at(name_, "vm.memory", *layout_at_) + good.error());
    }
    return {};
}

// Where a guest makes hypercalls by itself is re-made for this host: none is a list, too.
Result<void> SavedVm::check_call_sites() const {
    if (has_call_sites_) return {};
    return user_error(name_ + ": it does not say where the guest's kernel makes hypercalls");
}

Result<std::unique_ptr<SavedVm>> SavedVm::open(const std::string& path) {
    std::unique_ptr<SavedVm> vm(new SavedVm(path));
    vm->file_ = TRY(format::FileSource::open(path));
    vm->index_ = TRY(format::read_index(*vm->file_, known_sections()));
    for (const format::Record& record : vm->index_.records) {
        TRY(vm->take(record));
    }
    TRY(vm->check_head());
    TRY(vm->check_call_sites());
    return vm;
}

Result<std::unique_ptr<SavedVm>> SavedVm::receive(format::Source& stream) {
    std::unique_ptr<SavedVm> vm(new SavedVm(stream.name()));
    vm->reader_ = std::make_unique<format::Reader>(stream, known_sections());
    vm->index_.start = TRY(vm->reader_->start());
    for (;;) {
        auto item = TRY(vm->reader_->next());
        auto* const record = std::get_if<format::Record>(&item);
        if (record == nullptr) {
            vm->next_ = std::move(item);
            break;
        }
        TRY(vm->take(std::move(*record)));
    }
    TRY(vm->check_head());
    return vm;
}

Result<void> SavedVm::receive_rest(const Regions& regions) {
    for (;;) {
        auto item = next_ ? *std::exchange(next_, std::nullopt) : TRY(reader_->next());
        if (std::holds_alternative<format::End>(item)) return check_call_sites();
        if (auto* const record = std::get_if<format::Record>(&item)) {
            TRY(take(std::move(*record)));
        } else {
            TRY(receive_memory(std::get<format::Memory>(item), regions));
        }
    }
}

namespace {

// Pages that are zero have no memory behind them, and those that were not before lose it: a few
// bytes of a stream are not to take all of a host's memory.
Result<void> free_pages(const MachineMemory::RegionView& region, std::uint64_t page,
                        std::uint64_t pages) {
    if (::fallocate(region.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                    static_cast<off_t>(page * kPageSize),
                    static_cast<off_t>(pages * kPageSize)) != 0) {
        return errno_error("freeing guest pages");
    }
    return {};
}

}  // namespace

Result<void> SavedVm::receive_memory(const format::Memory& memory, const Regions& regions) {
    const auto region_of =
        [&](const format::PageRun& run) -> Result<const MachineMemory::RegionView*> {
        for (const auto& region : regions) {
            if (run.gfn < region.gfn || run.gfn - region.gfn >= region.pages) continue;
            if (run.pages > region.pages - (run.gfn - region.gfn)) break;
            return &region;
        }
        return user_error(name_ + ": record memory at byte " + std::to_string(memory.offset) +
                          ": pages " + std::to_string(run.gfn) + " to " +
                          std::to_string(run.gfn + run.pages - 1) + " are outside of vm.memory");
    };
    if (!memory.zero) {
        return reader_->read_memory(
            [&](const format::PageRun& run) -> Result<std::span<std::byte>> {
                const auto* const region = TRY(region_of(run));
                return std::span(region->mapped + (run.gfn - region->gfn) * kPageSize,
                                 run.pages * kPageSize);
            });
    }
    for (const format::PageRun& run : memory.runs) {
        const auto* const region = TRY(region_of(run));
        if (memory.round != 0) TRY(free_pages(*region, run.gfn - region->gfn, run.pages));
    }
    return {};
}

// ---- memory -------------------------------------------------------------------------------------

MemoryFill::MemoryFill(SavedVm& saved, MachineMemory& memory, Damaged damaged)
    : saved_(saved),
      memory_(memory),
      damaged_(std::move(damaged)),
      regions_(memory.regions()),
      tables_(saved.index().memory.size()) {}

Result<std::unique_ptr<MemoryFill>> MemoryFill::start(SavedVm& saved, MachineMemory& memory,
                                                      Damaged damaged) {
    std::unique_ptr<MemoryFill> fill(new MemoryFill(saved, memory, std::move(damaged)));
    TRY(fill->find_pieces());
    if (fill->fits_chunks()) {
        std::vector<DemandFill::Range> ranges;
        for (const auto& region : fill->regions_) {
            ranges.push_back({.at = region.mapped, .size = region.pages * kPageSize});
        }
        auto started =
            DemandFill::start(std::move(ranges), *fill, DemandFill::Background::kWhenQuiet);
        if (started) {
            fill->fill_ = *std::move(started);
            memory.set_filling(true);
            return fill;
        }
        log_info("restore", "%s: all of the memory is read before the start",
                 started.error().what.c_str());
    }
    TRY(fill->fill_now());
    return fill;
}

MemoryFill::~MemoryFill() {
    fill_.reset();
    memory_.set_filling(false);
}

bool MemoryFill::finish() {
    return fill_ == nullptr || fill_->finish();
}

Result<void> MemoryFill::find_pieces() {
    const auto& memories = saved_.index().memory;
    for (std::size_t m = 0; m < memories.size(); ++m) {
        std::uint64_t chunk = 0, data_page = 0;
        for (const format::PageRun& run : memories[m].runs) {
            const auto region = std::ranges::find_if(regions_, [&](const auto& r) {
                return run.gfn >= r.gfn && run.gfn - r.gfn < r.pages &&
                       run.pages <= r.pages - (run.gfn - r.gfn);
            });
            if (region == regions_.end()) {
                return user_error(saved_.name() + ": memory at byte " +
                                  std::to_string(memories[m].offset) + ": gfn " +
                                  std::to_string(run.gfn) + " begins a run outside of vm.memory");
            }
            pieces_.push_back({.range = static_cast<std::size_t>(region - regions_.begin()),
                               .page = run.gfn - region->gfn,
                               .pages = run.pages,
                               .memory = m,
                               .chunk = chunk,
                               .data_page = data_page});
            chunk += format::chunks_of(run);
            data_page += run.pages;
        }
    }
    return {};
}

// Whether each chunk of a region lies in one piece, and begins where one of the piece's begins. So
// it is in a file that was written as one.
bool MemoryFill::fits_chunks() const {
    for (const format::Memory& memory : saved_.index().memory) {
        if (memory.round != 0 || memory.zero) return false;
    }
    for (std::size_t i = 0; i < pieces_.size(); ++i) {
        if (pieces_[i].page % kPagesInChunk != 0) return false;
        if (i == 0) continue;
        const Piece& before = pieces_[i - 1];
        if (before.range > pieces_[i].range) return false;
        if (before.range == pieces_[i].range && before.page + before.pages > pieces_[i].page) {
            return false;
        }
    }
    return true;
}

Result<void> MemoryFill::fill_now() {
    const auto& memories = saved_.index().memory;
    for (const Piece& piece : pieces_) {
        const format::Memory& memory = memories[piece.memory];
        std::byte* const to = regions_[piece.range].mapped + piece.page * kPageSize;
        if (memory.zero) {
            if (memory.round != 0) {
                TRY(free_pages(regions_[piece.range], piece.page, piece.pages));
            }
            continue;
        }
        const auto* const table = table_of(piece.memory);
        if (table == nullptr) return Failure{*error_};
        for (std::uint64_t page = 0; page < piece.pages; page += kPagesInChunk) {
            const std::uint64_t size = std::min(kPagesInChunk, piece.pages - page) * kPageSize;
            const std::uint64_t at = memory.data_at + (piece.data_page + page) * kPageSize;
            const std::uint64_t chunk = piece.chunk + page / kPagesInChunk;
            // Of the first round nothing is there yet: zeroes are not written.
            if (memory.round == 0 && saved_.file().next_data(at) >= at + size &&
                (*table)[chunk] == format::checksum_of_zeroes(size)) {
                continue;
            }
            TRY(format::read_chunk(saved_.file(), memory, *table, chunk,
                                   {to + page * kPageSize, size}));
        }
    }
    return {};
}

std::optional<MemoryFill::Place> MemoryFill::place_of(std::size_t range,
                                                      std::uint64_t offset) const {
    const std::uint64_t page = offset / kPageSize;
    const auto after = std::ranges::upper_bound(
        pieces_, std::pair(range, page), {},
        [](const Piece& piece) { return std::pair(piece.range, piece.page); });
    if (after == pieces_.begin()) return std::nullopt;
    const Piece& piece = *std::prev(after);
    if (piece.range != range || page - piece.page >= piece.pages) return std::nullopt;
    const std::uint64_t in = page - piece.page;
    return Place{
        .piece = &piece,
        .chunk = piece.chunk + in / kPagesInChunk,
        .at = saved_.index().memory[piece.memory].data_at + (piece.data_page + in) * kPageSize,
        .size = std::min(kPagesInChunk, piece.pages - in) * kPageSize};
}

const std::vector<std::uint64_t>* MemoryFill::table_of(std::size_t memory) {
    auto& table = tables_[memory];
    if (!table) {
        auto read = format::read_table(saved_.file(), saved_.index().memory[memory]);
        if (!read) {
            error_ = read.error();
            return nullptr;
        }
        table = *std::move(read);
    }
    return &*table;
}

// The first touch need not wait for its table, which is long where the memory is large.
bool MemoryFill::prepare() {
    if (prepared_ == tables_.size()) return false;
    return table_of(prepared_++) != nullptr;
}

bool MemoryFill::is_zero(std::size_t range, std::uint64_t offset) {
    const auto place = place_of(range, offset);
    if (!place) return true;
    if (place->at < hole_ || place->at + place->size > hole_end_) {
        hole_ = place->at;
        hole_end_ = saved_.file().next_data(place->at);
    }
    if (hole_end_ < place->at + place->size) return false;
    // A hole in the file is no proof: data that was lost leaves one, too.
    const auto* const table = table_of(place->piece->memory);
    return table != nullptr && (*table)[place->chunk] == format::checksum_of_zeroes(place->size);
}

bool MemoryFill::fetch(std::size_t range, std::uint64_t offset, std::span<std::byte> to) {
    const auto place = place_of(range, offset);
    if (!place) return false;
    const auto* const table = table_of(place->piece->memory);
    if (table == nullptr) return false;
    const auto read = format::read_chunk(saved_.file(), saved_.index().memory[place->piece->memory],
                                         *table, place->chunk, to.first(place->size));
    if (!read) {
        error_ = read.error();
        return false;
    }
    std::ranges::fill(to.subspan(place->size), std::byte{0});
    return true;
}

void MemoryFill::failed(std::size_t range, std::uint64_t offset) {
    damaged_(error_.value_or(
        Error{Fault::kInternal, saved_.name() + ": bringing the memory of region " +
                                    std::to_string(range) + " at " + std::to_string(offset)}));
}

}  // namespace vmm::cli
