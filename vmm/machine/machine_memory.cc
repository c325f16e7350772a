#include "vmm/machine/machine_memory.h"

#include <unistd.h>

#include "vmm/base/log.h"

namespace vmm {

Result<std::unique_ptr<MachineMemory>> MachineMemory::create(kvm::Vm& vm, std::uint32_t own_pages) {
    auto own = TRY(SharedRegion::create("xenolith-own", own_pages * kPageSize));
    auto pool = TRY(SharedRegion::create("xenolith-pool", kPoolSlots * kPageSize));
    return std::unique_ptr<MachineMemory>(new MachineMemory(vm, std::move(own), std::move(pool)));
}

MachineMemory::MachineMemory(kvm::Vm& vm, SharedRegion own, SharedRegion pool)
    : vm_(vm), own_(std::move(own)), pool_(std::move(pool)) {
    for (std::uint32_t i = kPoolSlots; i > 0; --i) {
        free_slots_.push_back(i - 1);
    }
}

Result<void> MachineMemory::add_region(const char* name, Gpa base, std::uint64_t size) {
    auto memory = TRY(SharedRegion::create(name, size));
    // Slots of regions come after those of the pool.
    const auto slot = kPoolSlots + static_cast<std::uint32_t>(regions_.size());
    TRY(vm_.set_slot(slot, base, size, memory.data()));
    guest_.add_region(base, size, memory.data());
    regions_.push_back({base.gfn(), size >> kPageShift, std::move(memory)});
    return {};
}

std::vector<MachineMemory::RegionView> MachineMemory::regions() const {
    std::vector<RegionView> views;
    for (const Region& r : regions_) {
        views.push_back({r.first_gfn, r.pages, r.memory.fd(), r.memory.data()});
    }
    return views;
}

void MachineMemory::bring(const Region& region, std::uint64_t offset, std::uint64_t size) const {
    if (!filling_.load(std::memory_order_relaxed)) return;
    for (std::uint64_t at = offset; at < offset + size; at += kPageSize) {
        static_cast<void>(*static_cast<const volatile std::byte*>(region.memory.data() + at));
    }
}

MachineMemory::Region* MachineMemory::region_of(std::uint64_t gfn) {
    for (Region& r : regions_) {
        if (gfn - r.first_gfn < r.pages) return &r;
    }
    return nullptr;
}

const MachineMemory::Region* MachineMemory::region_of(std::uint64_t gfn) const {
    return const_cast<MachineMemory*>(this)->region_of(gfn);  // NOLINT: the same look-up
}

bool MachineMemory::in_slot(std::uint64_t gfn) const {
    return region_of(gfn) != nullptr;
}

bool MachineMemory::show_own_page(std::uint64_t gfn, std::uint32_t page) {
    const std::scoped_lock lock(mutex_);
    Region* region = region_of(gfn);
    if (region == nullptr) return add_slot_locked(gfn, own_page(page));
    if (overlays_.size() >= kMaxOverlays && !overlays_.contains(gfn)) return false;
    const std::uint64_t offset = (gfn - region->first_gfn) * kPageSize;
    bring(*region, offset, kPageSize);
    if (const auto shown = region->memory.map_over(offset, own_, page * kPageSize); !shown) {
        log_warn("memory", "%s", shown.error().what.c_str());
        return false;
    }
    overlays_.insert(gfn);
    return true;
}

void MachineMemory::hide_own_page(std::uint64_t gfn) {
    const std::scoped_lock lock(mutex_);
    Region* region = region_of(gfn);
    if (region == nullptr) {
        remove_slot_locked(gfn);
        return;
    }
    const std::uint64_t offset = (gfn - region->first_gfn) * kPageSize;
    if (const auto hidden = region->memory.unmap_over(offset); !hidden) {
        log_error("memory", "%s", hidden.error().what.c_str());
        return;
    }
    overlays_.erase(gfn);
}

bool MachineMemory::free_pages(std::uint64_t gfn, std::uint64_t count) {
    Region* region = region_of(gfn);
    if (region == nullptr) return false;
    const std::uint64_t offset = (gfn - region->first_gfn) * kPageSize;
    bring(*region, offset, count * kPageSize);
    if (!region->memory.backed(offset, count * kPageSize)) return false;
    if (const auto freed = region->memory.punch(offset, count * kPageSize); !freed) {
        log_warn("memory", "%s", freed.error().what.c_str());
    }
    return true;
}

void MachineMemory::clear_pages(std::uint64_t gfn, std::uint64_t count) {
    Region* region = region_of(gfn);
    if (region == nullptr) return;
    const std::uint64_t offset = (gfn - region->first_gfn) * kPageSize;
    bring(*region, offset, count * kPageSize);
    region->memory.clear(offset, count * kPageSize);
}

bool MachineMemory::add_slot_locked(std::uint64_t gfn, std::byte* host, bool in_reach) {
    if (free_slots_.empty()) return false;
    const std::uint32_t slot = free_slots_.back();
    std::byte* page = host != nullptr ? host : pool_.data() + std::size_t{slot} * kPageSize;
    if (in_reach) {
        if (const auto set = vm_.set_slot(slot, gfn_to_gpa(gfn), kPageSize, page); !set) {
            log_debug("memory", "no slot at gfn 0x%llx: %s", static_cast<unsigned long long>(gfn),
                      set.error().what.c_str());
            return false;
        }
    }
    free_slots_.pop_back();
    singles_[gfn] = {slot, in_reach};
    guest_.add_page(gfn, page);
    return true;
}

void MachineMemory::remove_slot_locked(std::uint64_t gfn) {
    const auto found = singles_.find(gfn);
    if (found == singles_.end()) return;
    const auto [slot, in_reach] = found->second;
    guest_.remove_page(gfn);
    if (in_reach) {
        if (const auto gone = vm_.set_slot(slot, gfn_to_gpa(gfn), 0, nullptr); !gone) {
            log_error("memory", "%s", gone.error().what.c_str());
            return;
        }
    }
    if (const auto freed = pool_.punch(std::uint64_t{slot} * kPageSize, kPageSize); !freed) {
        log_warn("memory", "%s", freed.error().what.c_str());
    }
    free_slots_.push_back(slot);
    singles_.erase(found);
}

bool MachineMemory::add_ram_page(std::uint64_t gfn, bool in_reach) {
    const std::scoped_lock lock(mutex_);
    return add_slot_locked(gfn, nullptr, in_reach);
}

void MachineMemory::remove_ram_page(std::uint64_t gfn) {
    const std::scoped_lock lock(mutex_);
    remove_slot_locked(gfn);
}

std::uint64_t MachineMemory::reclaim_touched(const std::function<bool(std::uint64_t gfn)>& free) {
    std::uint64_t reclaimed = 0;
    for (Region& r : regions_) {
        const auto size = static_cast<off_t>(r.memory.size());
        for (off_t at = 0; at < size;) {
            const off_t data = ::lseek(r.memory.fd(), at, SEEK_DATA);
            if (data < 0) break;
            const off_t hole = ::lseek(r.memory.fd(), data, SEEK_HOLE);
            const off_t end = hole < 0 ? size : hole;
            for (at = data; at < end; at += static_cast<off_t>(kPageSize)) {
                const std::uint64_t gfn = r.first_gfn + static_cast<std::uint64_t>(at) / kPageSize;
                if (guest_.is_hole(gfn) && free(gfn)) ++reclaimed;
            }
        }
    }
    return reclaimed;
}

}  // namespace vmm
