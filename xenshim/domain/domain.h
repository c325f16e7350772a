// A domain: everything that Xen would know about one guest. Hypercall handlers work on it, the
// transports deliver what it decides, and none of it knows KVM.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "vmm/memory/guest_memory.h"
#include "xenshim/abi/profile.h"
#include "xenshim/domain/callback_line.h"
#include "xenshim/domain/domain_state.h"
#include "xenshim/domain/event_channels.h"
#include "xenshim/domain/grant_maps.h"
#include "xenshim/domain/grant_table.h"
#include "xenshim/domain/legacy_quirks.h"
#include "xenshim/domain/memory_map.h"
#include "xenshim/domain/own_pages.h"
#include "xenshim/domain/params.h"
#include "xenshim/domain/physmap.h"
#include "xenshim/domain/ports.h"
#include "xenshim/domain/shared_info.h"

namespace xenshim {

struct DomainConfig {
    const abi::Profile* profile = nullptr;
    std::uint16_t domid = 1;
    unsigned vcpus = 1;
    std::uint32_t max_event_port = 1023;
    std::uint32_t max_grant_frames = 0;  // 0: the profile's
    std::array<std::uint8_t, 16> uuid{};
    MemoryMap::Entries memory_map;
    Physmap::Accounts memory{};
    QuirkMode quirks = QuirkMode::kAuto;
    // The guest may call the device model's operations, on itself (for testing: on Xen only the
    // domain that emulates its devices may).
    bool device_model = false;
    // It has a PIC and an I/O APIC, which a callback other than a vector would go through: it is
    // HVM.
    bool interrupt_controllers = true;
};

// Timers of one vCPU, in system time; 0: off. Changed only by the thread that runs the vCPU, but
// for stop_periodic_timer, which any vCPU may ask for.
struct Timers {
    static constexpr std::uint64_t kShortestPeriodNs = 1'000'000;
    // Beyond this, Xen's arithmetic on periods would overflow (STIME_DELTA_MAX).
    static constexpr std::uint64_t kLongestPeriodNs = (std::uint64_t{1} << 62) - 1;

    std::atomic<std::uint64_t> singleshot_ns{0};
    std::atomic<std::uint64_t> period_ns{0};
    std::atomic<std::uint64_t> next_periodic_ns{0};
    // Its last tick, which the next one follows by a period at least, also if it is set anew in
    // between. Not moved with the domain: as on Xen, the first tick on another host comes at once.
    std::atomic<std::uint64_t> last_periodic_ns{0};
};

// An area that the guest shows us twice: while it has one by physical address, the one by linear
// address is not serviced (public/vcpu.h).
struct SharedArea {
    std::uint64_t linear_gpa = kNoGfn;
    std::uint64_t physical_gpa = kNoGfn;
    std::uint64_t effective() const { return physical_gpa != kNoGfn ? physical_gpa : linear_gpa; }
};

// How a vCPU spent its time, as far as user space knows: it sleeps in a hypercall, is down, or
// runs. Time halted inside KVM and time that the host gave to others count as running; where KVM
// keeps the area itself (kvm-xen) it tells the latter apart.
struct Runstate {
    enum State : std::uint32_t { kRunning = 0, kRunnable = 1, kBlocked = 2, kOffline = 3 };
    std::uint32_t state = kOffline;
    std::uint64_t since_ns = 0;  // system time
    std::array<std::uint64_t, 4> time_ns{};
};

// The account as of `now_ns`: the time since its last change is in it.
inline Runstate settled(Runstate runstate, std::uint64_t now_ns) {
    runstate.time_ns[runstate.state % runstate.time_ns.size()] +=
        now_ns - std::min(now_ns, runstate.since_ns);
    runstate.since_ns = std::max(now_ns, runstate.since_ns);
    return runstate;
}

struct RunstateAccount {
    mutable std::mutex mutex;  // guards the rest, and writing the area
    Runstate now;
    std::optional<std::uint64_t> stands_since_ns;  // Domain::vcpu_stands()
    SharedArea area;
    bool linear_is_64bit = true, physical_is_64bit = true;  // the layout: the registrant's
};

struct DomainVcpu {
    std::atomic<bool> up{false};
    std::atomic<bool> initialised{false};
    std::atomic<std::uint8_t> upcall_vector{0};
    // Where the runstate is shown: the area registered by its physical address, else by its linear
    // one; kNoGfn: nowhere.
    std::atomic<std::uint64_t> runstate_gpa{kNoGfn};
    Timers timers;
    // SCHEDOP_poll: the ports that this vCPU sleeps for. Its own thread only.
    std::vector<Port> polled;
    RunstateAccount runstate;
    // The second clock record, registered either way.
    SharedArea time_area;
};

class Domain {
  public:
    using State = DomainState;
    Domain(Ports& ports, vmm::GuestMemory& memory, DomainConfig config);

    const DomainConfig& config() const { return config_; }
    const abi::Profile& profile() const { return profile_; }
    LegacyQuirks& quirks() { return quirks_; }
    Ports& ports() { return ports_; }
    vmm::GuestMemory& memory() { return memory_; }
    SharedInfo& shared_info() { return shared_info_; }
    EventChannels& event_channels() { return event_channels_; }
    Physmap& physmap() { return physmap_; }
    MemoryMap& memory_map() { return memory_map_; }
    Params& params() { return params_; }
    CallbackLine& callback_line() { return callback_line_; }
    GrantTable& grants() { return grants_; }
    GrantMaps& grant_maps() { return grant_maps_; }
    OwnPages& own_pages() { return own_pages_; }
    DomainVcpu& vcpu(unsigned id) { return vcpus_[id]; }
    unsigned vcpus() const { return config_.vcpus; }

    bool is_self(std::uint16_t domid) const {
        return domid == abi::DOMID_SELF || domid == config_.domid;
    }

    // The width of shared_info follows the vCPU that writes the hypercall page's MSR or sets
    // CALLBACK_IRQ.
    void latch_width(abi::Width width);

    // The guest's memory at `gfn`, for structures that it shares with us for long; null when
    // nothing is there. The pointer stays good whatever becomes of the gfn (guest_memory.h).
    std::byte* guest_page(std::uint64_t gfn) const;
    NamedPage named_page(std::uint64_t gfn) const { return {gfn, guest_page(gfn)}; }

    // shared_info can be moved, given back, populated over and displaced, by a frame or by a grant
    // that is mapped: whichever it was, the clock and KVM must not go on writing to where it used
    // to be. Tells the machine, if it has not heard yet.
    void follow_shared_info();

    // HVM_PARAM_CALLBACK_IRQ takes effect. It may have been recorded without (hvm_op.cc).
    void set_callback(std::uint64_t value);

    // VCPUOP_register_vcpu_info.
    GuestResult<void> register_vcpu_info(unsigned vcpu, std::uint64_t gfn, std::uint32_t offset);

    // Fires what is due for this vCPU and says when the next timer is; its own thread only. A vCPU
    // that is `asleep` gets no periodic tick: it stays due until the vCPU is awake.
    std::optional<std::uint64_t> run_timers(unsigned vcpu, std::uint64_t now_ns,
                                            bool asleep = false);

    // The vCPU changes to `state` now; its area is told.
    void set_runstate(unsigned vcpu, Runstate::State state);
    // As of now.
    Runstate runstate(unsigned vcpu);
    // The area by linear (its physical address, or kNoGfn) or by physical address; written at once.
    void place_runstate_area(unsigned vcpu, std::uint64_t gpa, bool physical, bool is_64bit);
    // The vCPU is not allowed to run, and is again: what ran is RUNSTATE_offline in between, as in a
    // domain that Xen has paused; what slept, or was down, goes on doing so.
    void vcpu_stands(unsigned vcpu);
    void vcpu_goes_on(unsigned vcpu);
    // VMASST_TYPE_runstate_update_flag: areas carry XEN_RUNSTATE_UPDATE while they are written.
    void set_runstate_update_flag(bool on);

    // A vCPU that polls looks whether it may go on.
    bool poll_satisfied(unsigned vcpu);
    void end_poll(unsigned vcpu);

    // Ends the domain. The first reason counts, also one left by SCHEDOP_shutdown_code.
    void shutdown(std::uint8_t reason);
    void set_shutdown_code(std::uint8_t reason);
    // A vCPU goes down; the last one takes the domain with it (power-off).
    void vcpu_down(unsigned vcpu);

    // ---- suspended as Xen's toolstack does it (xen-abi.md 7.6) ----------------------------------

    // What SCHEDOP_shutdown(suspend) returns to a guest that goes on where it was. To one that goes
    // on elsewhere it returns 0.
    static constexpr std::int64_t kSuspendCancelled = 1;
    // SCHEDOP_shutdown by this vCPU, and what it returns.
    std::int64_t shutdown_by(unsigned vcpu, std::uint8_t reason);
    // The guest was asked to suspend itself: when it does, it stands still instead of ending.
    void expect_suspend();
    // Nobody waits for that any more. A guest that does it all the same, for it may be about to, is
    // told that it was cancelled. False: it has done it already.
    bool give_up_suspend();
    // Which vCPU did it; nothing: the guest is not suspended.
    std::optional<unsigned> suspended() const;
    // A guest that is suspended goes on here. That vCPU's call is to return kSuspendCancelled.
    void go_on_here();
    // A guest that is suspended goes on here as in the new domain that Xen's toolstack makes for
    // it: event channels, the callback, vcpu_infos, areas and timers are what a new domain has, for
    // the guest makes its own again and would be refused. What a guest can do twice stays: its
    // memory map, its grants, the width of shared_info. When the domain was adopted and the chips
    // are there, before tell_machine(); `now_ns`: the guest's clock.
    void begin_anew(std::uint64_t now_ns);

    struct Watchdog {
        bool in_use = false;
        std::uint64_t deadline_ns = 0;
    };
    // SCHEDOP_watchdog: id 0 allocates. The slot's id, or 0 when an existing one was changed.
    GuestResult<std::uint32_t> watchdog(std::uint32_t id, std::uint32_t seconds);
    // The guest was kept from feeding its watchdogs for so long: that does not count.
    void delay_watchdogs(std::uint64_t ns);
    // True when a watchdog's time is over.
    bool watchdog_expired(std::uint64_t now_ns);

    // ---- saved and restored (domain_saved.cc) ---------------------------------------------------

    // What is here and in none of the components, which have states of their own. Those are adopted
    // before; the order is: the quirks, the parameters, the memory map, the physical memory map,
    // the grants, our own pages, shared_info, the event channels, this.
    State snapshot() const;
    vmm::Expected<void, std::string> adopt(const State& state);
    // Then the machine hears what it would have heard by now, had the guest asked for all of it
    // here, but for the timers (each vCPU's thread looks at its own) and for what vCPUs do. Upcalls
    // that are pending are raised again: what was on its way to a vCPU is not saved.
    void tell_machine();
    // In how many places it has been: the next one is counted once its state is adopted there.
    // While no vCPU runs.
    std::uint32_t incarnation() const { return incarnation_; }
    void count_incarnation() { ++incarnation_; }

  private:
    vmm::Expected<void, std::string> check(const State& state) const;
    void write_runstate_locked(const RunstateAccount& account);

    Ports& ports_;
    vmm::GuestMemory& memory_;
    const DomainConfig config_;
    const abi::Profile profile_;
    LegacyQuirks quirks_;
    SharedInfo shared_info_;
    EventChannels event_channels_;
    Physmap physmap_;
    MemoryMap memory_map_;
    Params params_;
    CallbackLine callback_line_;
    GrantTable grants_;
    GrantMaps grant_maps_;
    OwnPages own_pages_;
    std::vector<DomainVcpu> vcpus_;
    mutable std::mutex mutex_;  // guards the next four, and the registration of vcpu_info
    std::optional<std::uint8_t> shutdown_code_;
    Suspend suspend_ = Suspend::kNone;
    unsigned suspended_by_ = 0;
    std::array<Watchdog, 2> watchdogs_;
    std::atomic<bool> runstate_update_flag_{false};
    std::atomic<std::uint64_t> callback_{0};  // in force
    std::uint32_t incarnation_ = 1;
    std::mutex telling_;                                   // of shared_info's place
    std::atomic<std::uint64_t> shared_info_told_{kNoGfn};  // changed with telling_ held
};

}  // namespace xenshim
