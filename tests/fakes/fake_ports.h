// A machine for domains without KVM: guest memory in memfds as in the real one, a clock that is
// set by hand, and a record of what the domain asked for.
//
// Memory is that of a 128 MiB PVH guest of Xen 4.17 (RAM, eight special pages, nine of ACPI), so
// that the figures of xen-417-golden.md can be expected literally. Overlays are mapped over the
// slot's pages, ballooned pages are freed, pages outside slots come from a bounded pool.
#pragma once

#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unistd.h>
#include <utility>
#include <vector>

#include "vmm/memory/guest_memory.h"
#include "vmm/memory/shared_region.h"
#include "xenshim/domain/ports.h"

namespace xenshim::fakes {

class FakePorts final : public Ports {
  public:
    static constexpr std::uint64_t kRamPages = 0x8000;
    static constexpr std::uint64_t kSpecialGfn = 0xfeff8;
    static constexpr std::uint64_t kSpecialPages = 8;
    static constexpr std::uint64_t kAcpiGfn = 0xfc000;
    static constexpr std::uint64_t kAcpiPages = 9;

    FakePorts()
        : ram_(make(kRamPages)),
          special_(make(kSpecialPages)),
          acpi_(make(kAcpiPages)),
          own_(make(kOwnPages)),
          pool_(make(kMostPoolPages)) {
        for (const Slot& s : slots()) {
            memory.add_region(vmm::gfn_to_gpa(s.first), s.pages * vmm::kPageSize, s.region->data());
        }
    }

    // ---- what a test sets -----------------------------------------------------------------------
    std::atomic<std::uint64_t> now_ns{1'000'000'000};
    std::uint64_t limit_gfn = std::uint64_t{1} << 36;
    std::size_t max_overlays = 4096;
    std::size_t pool_pages = 64;  // at most kMostPoolPages
    bool has_time_area = true;
    bool keeps_runstate = false;
    // Pages that the guest gives back are wiped instead of given to the host, so that a test that
    // makes thousands of domains on one FakePorts pays for no page twice.
    bool keeps_pages = false;
    // What the machine does besides counting when an upcall is raised; null: nothing.
    std::function<void(unsigned vcpu)> on_upcall;

    // ---- what a test asks -----------------------------------------------------------------------
    vmm::GuestMemory memory;

    struct Started {
        unsigned vcpu;
        std::optional<VcpuContext> context;
    };
    std::vector<Started> started;
    std::vector<unsigned> stopped;
    std::vector<unsigned> nmis;
    std::vector<std::uint8_t> shutdowns;
    unsigned suspensions = 0;
    std::vector<std::uint64_t> callbacks;
    std::vector<std::pair<unsigned, bool>> line_levels;  // what the callback's line was driven to
    std::vector<std::uint64_t> shared_info_places;
    std::vector<unsigned> vcpu_infos_moved;
    std::vector<unsigned> runstates_moved;
    std::vector<unsigned> timers;
    std::vector<bool> widths;
    std::vector<std::pair<unsigned, std::uint8_t>> vectors;
    std::vector<std::pair<unsigned, std::uint64_t>> time_areas;
    std::atomic<std::uint64_t> free_calls{0};
    std::atomic<std::uint64_t> pages_freed{0};
    std::vector<bool> update_flags;
    // As MachineMemory counts them: one more for each page shown in a slot, one less when hidden.
    std::set<std::uint64_t> overlays;

    unsigned upcalls(unsigned vcpu) const { return upcalls_.at(vcpu).load(); }
    unsigned wakes(unsigned vcpu) const { return wakes_.at(vcpu).load(); }
    void forget_upcalls() {
        for (auto& n : upcalls_) {
            n = 0;
        }
        for (auto& n : wakes_) {
            n = 0;
        }
    }
    // As at the start, for the next domain: `gfns` are those that the last one touched.
    void reset(std::span<const std::uint64_t> gfns) {
        for (const std::uint64_t gfn : std::set<std::uint64_t>(overlays)) {
            hide_own_page(gfn);
        }
        while (!pool_of_.empty()) {
            give_pool_page(pool_of_.begin()->first);
        }
        for (const std::uint64_t gfn : gfns) {
            if (!slot_of(gfn)) continue;
            memory.set_hole(gfn, false);
            free_pages(gfn, 1);
        }
        own_.clear(0, kOwnPages * vmm::kPageSize);
        now_ns = 1'000'000'000;
        forget_upcalls();
        started.clear();
        stopped.clear();
        nmis.clear();
        shutdowns.clear();
        suspensions = 0;
        callbacks.clear();
        line_levels.clear();
        shared_info_places.clear();
        vcpu_infos_moved.clear();
        runstates_moved.clear();
        timers.clear();
        widths.clear();
        vectors.clear();
        time_areas.clear();
    }
    // The slots' own memory as in `from`, also behind what is shown over it there.
    void copy_memory(const FakePorts& from) {
        for (std::size_t i = 0; i < slots().size(); ++i) {
            const vmm::SharedRegion &source = *from.slots()[i].region, &to = *slots()[i].region;
            for (off_t at = 0; (at = ::lseek(source.fd(), at, SEEK_DATA)) >= 0;) {
                const off_t end = ::lseek(source.fd(), at, SEEK_HOLE);
                while (at < end) {
                    const ssize_t got = ::pread(source.fd(), to.data() + at,
                                                static_cast<std::size_t>(end - at), at);
                    if (got <= 0) std::abort();
                    at += got;
                }
            }
        }
    }
    // Whether the host spends memory on a page of RAM.
    bool ram_backed(std::uint64_t gfn) const { return ram_.page_backed(gfn * vmm::kPageSize); }
    std::size_t pool_used() const { return pool_of_.size(); }

    // ---- Ports ----------------------------------------------------------------------------------
    std::byte* own_page(std::uint32_t page) override { return own_.data() + page * vmm::kPageSize; }

    bool show_own_page(std::uint64_t gfn, std::uint32_t page) override {
        if (const auto slot = slot_of(gfn)) {
            if (overlays.size() >= max_overlays && !overlays.contains(gfn)) return false;
            if (!slot->region->map_over(offset_in(*slot, gfn), own_, page * vmm::kPageSize)) {
                return false;
            }
            overlays.insert(gfn);
            return true;
        }
        return take_pool_page(gfn, own_page(page));
    }
    void hide_own_page(std::uint64_t gfn) override {
        if (const auto slot = slot_of(gfn)) {
            if (slot->region->unmap_over(offset_in(*slot, gfn))) overlays.erase(gfn);
            return;
        }
        give_pool_page(gfn);
    }
    bool in_slot(std::uint64_t gfn) const override { return slot_of(gfn).has_value(); }
    bool free_pages(std::uint64_t gfn, std::uint64_t count) override {
        ++free_calls;
        pages_freed += count;
        const auto slot = slot_of(gfn);
        // Never through an own page that is shown there.
        const auto overlay = overlays.lower_bound(gfn);
        const bool covered = overlay != overlays.end() && *overlay - gfn < count;
        if (keeps_pages && !covered) {
            if (slot)
                std::memset(slot->region->data() + offset_in(*slot, gfn), 0,
                            count * vmm::kPageSize);
            return true;
        }
        const bool backed =
            slot && slot->region->backed(offset_in(*slot, gfn), count * vmm::kPageSize);
        if (slot && !slot->region->punch(offset_in(*slot, gfn), count * vmm::kPageSize))
            std::abort();
        return backed;
    }
    void clear_pages(std::uint64_t gfn, std::uint64_t count) override {
        if (const auto slot = slot_of(gfn)) {
            slot->region->clear(offset_in(*slot, gfn), count * vmm::kPageSize);
        }
    }
    bool add_ram_page(std::uint64_t gfn) override { return take_pool_page(gfn, nullptr); }
    void remove_ram_page(std::uint64_t gfn) override { give_pool_page(gfn); }
    std::uint64_t gfn_limit() const override { return limit_gfn; }

    void upcall(unsigned vcpu) override {
        ++upcalls_.at(vcpu);
        if (on_upcall) on_upcall(vcpu);
    }
    void wake(unsigned vcpu) override { ++wakes_.at(vcpu); }
    void callback_changed(std::uint64_t value) override { callbacks.push_back(value); }
    void drive_callback_line(unsigned gsi, bool asserted) override {
        const std::scoped_lock lock(line_mutex_);
        line_levels.emplace_back(gsi, asserted);
    }
    void upcall_vector_changed(unsigned vcpu, std::uint8_t vector) override {
        vectors.emplace_back(vcpu, vector);
    }
    void vcpu_info_moved(unsigned vcpu) override { vcpu_infos_moved.push_back(vcpu); }
    void shared_info_moved(std::uint64_t gfn) override { shared_info_places.push_back(gfn); }
    void runstate_area_moved(unsigned vcpu) override { runstates_moved.push_back(vcpu); }
    bool place_time_area(unsigned vcpu, std::uint64_t gpa) override {
        time_areas.emplace_back(vcpu, gpa);
        return has_time_area;
    }
    bool host_keeps_runstate() override { return keeps_runstate; }
    void runstate_update_flag(bool on) override { update_flags.push_back(on); }
    void width_latched(bool is_64bit) override { widths.push_back(is_64bit); }
    void timers_changed(unsigned vcpu) override { timers.push_back(vcpu); }
    void start_vcpu(unsigned vcpu, const VcpuContext* context) override {
        started.push_back({vcpu, context == nullptr ? std::optional<VcpuContext>() : *context});
    }
    void stop_vcpu(unsigned vcpu) override { stopped.push_back(vcpu); }
    void send_nmi(unsigned vcpu) override { nmis.push_back(vcpu); }
    std::uint64_t system_time_ns() override { return now_ns; }
    void shutdown(std::uint8_t reason) override { shutdowns.push_back(reason); }
    void suspend() override { ++suspensions; }

  private:
    static constexpr std::size_t kMostPoolPages = 256;

    struct Slot {
        std::uint64_t first;
        std::uint64_t pages;
        vmm::SharedRegion* region;
    };

    static vmm::SharedRegion make(std::uint64_t pages) {
        auto region = vmm::SharedRegion::create("fake-guest", pages * vmm::kPageSize);
        if (!region) std::abort();  // a host without memfds runs no test of ours
        return *std::move(region);
    }
    std::array<Slot, 3> slots() const {
        return {{{0, kRamPages, &ram_},
                 {kAcpiGfn, kAcpiPages, &acpi_},
                 {kSpecialGfn, kSpecialPages, &special_}}};
    }
    std::optional<Slot> slot_of(std::uint64_t gfn) const {
        for (const Slot& s : slots()) {
            if (gfn - s.first < s.pages) return s;
        }
        return std::nullopt;
    }
    static std::uint64_t offset_in(const Slot& slot, std::uint64_t gfn) {
        return (gfn - slot.first) * vmm::kPageSize;
    }
    bool take_pool_page(std::uint64_t gfn, std::byte* host) {
        if (pool_of_.size() >= pool_pages) return false;
        std::size_t free = 0;
        while (pool_taken_[free]) {
            ++free;
        }
        pool_taken_[free] = true;
        pool_of_[gfn] = free;
        memory.add_page(gfn, host != nullptr ? host : pool_.data() + free * vmm::kPageSize);
        return true;
    }
    void give_pool_page(std::uint64_t gfn) {
        const auto found = pool_of_.find(gfn);
        if (found == pool_of_.end()) return;
        memory.remove_page(gfn);
        if (!pool_.punch(found->second * vmm::kPageSize, vmm::kPageSize)) std::abort();
        pool_taken_[found->second] = false;
        pool_of_.erase(found);
    }

    mutable vmm::SharedRegion ram_, special_, acpi_;
    vmm::SharedRegion own_, pool_;
    std::map<std::uint64_t, std::size_t> pool_of_;  // gfn -> page of the pool
    std::array<bool, kMostPoolPages> pool_taken_{};
    std::mutex line_mutex_;
    std::array<std::atomic<unsigned>, 64> upcalls_{};
    std::array<std::atomic<unsigned>, 64> wakes_{};
};

}  // namespace xenshim::fakes
