// The memory map that XENMEM_memory_map shows: the builder's, until the guest sets another.
#pragma once

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/base/saved.h"

namespace xenshim {

// An entry, in bytes; types as in the BIOS' E820.
struct MapEntry {
    std::uint64_t base = 0;
    std::uint64_t size = 0;
    std::uint32_t type = 0;
    bool operator==(const MapEntry&) const = default;
};

struct MapEntryState {
    std::uint64_t base = 0;
    std::uint64_t size = 0;
    std::uint32_t type = 0;

    bool operator==(const MapEntryState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [base, size, type] = self;
        return std::tuple{vmm::saved::field(1, "base", base), vmm::saved::field(2, "size", size),
                          vmm::saved::field(3, "type", type)};
    }
};

struct MemoryMapState {
    static constexpr vmm::saved::Section kSection{"xen.memory_map", 1};

    std::vector<MapEntryState> entries;

    bool operator==(const MemoryMapState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [entries] = self;
        return std::tuple{vmm::saved::field(1, "entries", entries)};
    }
};

class MemoryMap {
  public:
    // The whole of it.
    using Entries = std::vector<MapEntry>;
    using State = MemoryMapState;

    // `most`: how many entries the guest may set. The builder's are never more.
    MemoryMap(Entries entries, std::uint32_t most)
        : most_(std::max<std::size_t>(most, entries.size())), entries_(std::move(entries)) {}

    Entries entries() const {
        const std::scoped_lock lock(mutex_);
        return entries_;
    }
    void set(Entries entries) {
        const std::scoped_lock lock(mutex_);
        entries_.swap(entries);  // what was there is freed without the lock
    }

    State snapshot() const {
        State state;
        for (const MapEntry& e : entries()) {
            state.entries.push_back({.base = e.base, .size = e.size, .type = e.type});
        }
        return state;
    }
    // Any entries will do: they are the guest's own, shown to it and used for nothing.
    vmm::Expected<void, std::string> adopt(const State& state) {
        if (state.entries.size() > most_) {
            return vmm::Failure{"entries: " + std::to_string(state.entries.size()) +
                                " of them, there may be " + std::to_string(most_)};
        }
        Entries entries;
        for (const MapEntryState& e : state.entries) {
            entries.push_back({.base = e.base, .size = e.size, .type = e.type});
        }
        set(std::move(entries));
        return {};
    }

  private:
    const std::size_t most_;
    mutable std::mutex mutex_;
    Entries entries_;
};

}  // namespace xenshim
