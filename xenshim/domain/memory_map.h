// The memory map that XENMEM_memory_map shows: the builder's, until the guest sets another.
#pragma once

#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

namespace xenshim {

// An entry, in bytes; types as in the BIOS' E820.
struct MapEntry {
    std::uint64_t base = 0;
    std::uint64_t size = 0;
    std::uint32_t type = 0;
    bool operator==(const MapEntry&) const = default;
};

class MemoryMap {
  public:
    // The whole of it.
    using State = std::vector<MapEntry>;

    explicit MemoryMap(State entries) : entries_(std::move(entries)) {}

    State state() const {
        const std::scoped_lock lock(mutex_);
        return entries_;
    }
    void set(State entries) {
        const std::scoped_lock lock(mutex_);
        entries_.swap(entries);  // what was there is freed without the lock
    }

  private:
    mutable std::mutex mutex_;
    State entries_;
};

}  // namespace xenshim
