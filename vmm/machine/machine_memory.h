// The memory of one VM: RAM and special regions in memfds with a KVM slot each, pages of our own
// that are shown over them (overlays), and single pages outside them with slots of a small pool.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "vmm/kvm/kvm.h"
#include "vmm/memory/guest_memory.h"
#include "vmm/memory/shared_region.h"

namespace vmm {

class MachineMemory {
  public:
    // `own_pages`: how many pages of ours may be shown to the guest.
    static Result<std::unique_ptr<MachineMemory>> create(kvm::Vm& vm, std::uint32_t own_pages);

    // A region with a slot of its own, zeroed. Before vCPUs run.
    Result<void> add_region(const char* name, Gpa base, std::uint64_t size);

    // To save them: pages as they are behind what is shown over them, whose content is somebody
    // else's. Bytes of `fd` are those of the region from its first page on.
    struct RegionView {
        std::uint64_t gfn = 0;
        std::uint64_t pages = 0;
        int fd = -1;
        std::byte* mapped = nullptr;  // with what is shown over them
    };
    std::vector<RegionView> regions() const;
    // While a DemandFill brings the regions' content: what is there is brought before the mapping
    // changes, or else it would never come, or come back after it was given away.
    void set_filling(bool filling) { filling_ = filling; }

    GuestMemory& guest() { return guest_; }
    std::byte* own_page(std::uint32_t page) { return own_.data() + page * kPageSize; }

    bool in_slot(std::uint64_t gfn) const;
    // Shows an own page at `gfn`; false when the bound of overlays or slots is reached.
    bool show_own_page(std::uint64_t gfn, std::uint32_t page);
    void hide_own_page(std::uint64_t gfn);
    // Gives the host memory behind pages of a region back; false when there was none. The question
    // is asked first because it is the cheaper one: freeing walks the page tables of every vCPU.
    bool free_pages(std::uint64_t gfn, std::uint64_t count);
    // Pages of a region read as zeroes afterwards, whether or not they are given back.
    void clear_pages(std::uint64_t gfn, std::uint64_t count);
    // RAM outside the regions; false when the pool is used up. Out of reach of the vCPUs' addresses
    // it is memory all the same, which may come into reach again.
    bool add_ram_page(std::uint64_t gfn, bool in_reach);
    void remove_ram_page(std::uint64_t gfn);

    // Calls `free` for each page of the regions that is a hole and has host memory behind it;
    // returns how often it answered true.
    std::uint64_t reclaim_touched(const std::function<bool(std::uint64_t gfn)>& free);

  private:
    // An overlay costs two mappings of vm.max_map_count (65,530 by default), a slot of the pool
    // some kernel memory; both bounds are far below what the host allows.
    static constexpr std::size_t kMaxOverlays = 4096;
    static constexpr std::uint32_t kPoolSlots = 1024;

    struct Region {
        std::uint64_t first_gfn;
        std::uint64_t pages;
        SharedRegion memory;
    };

    MachineMemory(kvm::Vm& vm, SharedRegion own, SharedRegion pool);
    Region* region_of(std::uint64_t gfn);
    const Region* region_of(std::uint64_t gfn) const;
    void bring(const Region& region, std::uint64_t offset, std::uint64_t size) const;
    bool add_slot_locked(std::uint64_t gfn, std::byte* host, bool in_reach = true);
    void remove_slot_locked(std::uint64_t gfn);

    kvm::Vm& vm_;
    GuestMemory guest_;
    std::vector<Region> regions_;
    SharedRegion own_;
    SharedRegion pool_;  // one page per slot of the pool
    std::atomic<bool> filling_{false};

    std::mutex mutex_;                  // guards what follows
    std::set<std::uint64_t> overlays_;  // gfns inside regions that show own pages
    struct Single {
        std::uint32_t slot;  // index in the pool
        bool in_reach;       // and so the slot is KVM's, too
    };
    std::map<std::uint64_t, Single> singles_;  // by gfn
    std::vector<std::uint32_t> free_slots_;
};

}  // namespace vmm
