#include "xenshim/domain/domain.h"

#include <algorithm>
#include <cstring>

#include "xenshim/abi/release_rules.h"

namespace xenshim {

using namespace abi;

Domain::Domain(Ports& ports, vmm::GuestMemory& memory, DomainConfig config)
    : ports_(ports),
      memory_(memory),
      config_(std::move(config)),
      profile_(with_quirks(*config_.profile, config_.quirks)),
      quirks_{.mode = config_.quirks, .latched = false},
      shared_info_(ports, memory, config_.vcpus),
      event_channels_(
          ports, memory, shared_info_,
          {.vcpus = config_.vcpus, .max_port = config_.max_event_port, .domid = config_.domid}),
      physmap_(ports, memory, config_.memory),
      memory_map_(config_.memory_map, most_map_entries(profile_)),
      params_(profile_),
      callback_line_(ports, shared_info_, params_, config_.interrupt_controllers),
      grants_(ports, memory, physmap_,
              {.max_frames = config_.max_grant_frames != 0 ? config_.max_grant_frames
                                                           : config_.profile->grant_frames,
               .domid = config_.domid}),
      grant_maps_(grants_, physmap_),
      own_pages_(ports, memory, physmap_, grants_),
      vcpus_(config_.vcpus) {
    vcpus_[0].runstate.now.state = Runstate::kRunning;
    vcpus_[0].up = true;
    vcpus_[0].initialised = true;
}

void Domain::latch_width(Width width) {
    shared_info_.latch(width);
    ports_.width_latched(width == Width::k64);
    for (unsigned v = 0; v < vcpus(); ++v) {
        ports_.vcpu_info_moved(v);
    }
}

void Domain::follow_shared_info() {
    if (physmap_.gfn_of_own(kSharedInfoPage) == shared_info_told_) return;
    const std::scoped_lock lock(telling_);
    // One at a time, so that what the machine heard last is true. Another vCPU may move the page
    // after we looked, and find it where it was told of before: then we see it now.
    for (;;) {
        const std::uint64_t gfn = physmap_.gfn_of_own(kSharedInfoPage);
        if (gfn == shared_info_told_) return;
        shared_info_told_ = gfn;
        ports_.shared_info_moved(gfn);
    }
}

void Domain::set_callback(std::uint64_t value) {
    callback_ = value;
    callback_line_.reroute();
    ports_.callback_changed(value);
}

std::byte* Domain::guest_page(std::uint64_t gfn) const {
    return physmap_.is_mapped(gfn) ? memory_.page(gfn) : nullptr;
}

GuestResult<void> Domain::register_vcpu_info(unsigned vcpu, std::uint64_t gfn,
                                             std::uint32_t offset) {
    {
        const std::scoped_lock lock(mutex_);
        const bool taken = shared_info_.vcpu_info_moved(vcpu);
        TRY(may_register_vcpu_info(profile(), gfn, offset, taken,
                                   shared_info_.is_64bit() ? Width::k64 : Width::k32));
        std::byte* page = guest_page(gfn);
        if (page == nullptr) return refuse(XEN_EINVAL);
        shared_info_.move_vcpu_info(vcpu, vmm::gfn_to_gpa(gfn) + offset, page + offset);
    }
    ports_.vcpu_info_moved(vcpu);
    event_channels_.mark_all(vcpu);
    return {};
}

std::optional<std::uint64_t> Domain::run_timers(unsigned id, std::uint64_t now_ns, bool asleep) {
    Timers& timers = vcpus_[id].timers;
    bool fire = false;
    std::uint64_t once = timers.singleshot_ns.load();
    if (once != 0 && once <= now_ns) {
        timers.singleshot_ns = 0;
        once = 0;
        fire = true;
    }
    const std::uint64_t period = timers.period_ns.load();
    std::uint64_t next = 0;
    if (period != 0) {
        next = timers.next_periodic_ns.load();
        if (next <= now_ns && asleep) {
            next = now_ns + period;  // it stays due, and that is when to look again
        } else if (next <= now_ns) {
            // One tick for all that were missed: the guest keeps its own count from the clock.
            next += ((now_ns - next) / period + 1) * period;
            timers.next_periodic_ns = next;
            timers.last_periodic_ns = now_ns;
            fire = true;
        }
    }
    if (fire) event_channels_.raise_virq(VIRQ_TIMER, id);
    if (once == 0 && next == 0) return std::nullopt;
    if (once == 0) return next;
    return next == 0 ? once : std::min(once, next);
}

// ---- runstate -----------------------------------------------------------------------------------

void Domain::set_runstate(unsigned id, Runstate::State state) {
    RunstateAccount& account = vcpus_[id].runstate;
    const std::scoped_lock lock(account.mutex);
    const std::uint64_t now = ports_.system_time_ns();
    account.now.time_ns[account.now.state] += now - std::min(now, account.now.since_ns);
    account.now.state = state;
    account.now.since_ns = now;
    if (!ports_.host_keeps_runstate()) write_runstate_locked(account);
}

Runstate Domain::runstate(unsigned id) {
    RunstateAccount& account = vcpus_[id].runstate;
    const std::scoped_lock lock(account.mutex);
    Runstate seen = account.now;
    const std::uint64_t now = ports_.system_time_ns();
    seen.time_ns[seen.state] += now - std::min(now, seen.since_ns);
    return seen;
}

void Domain::vcpu_stands(unsigned id) {
    RunstateAccount& account = vcpus_[id].runstate;
    const std::scoped_lock lock(account.mutex);
    // One that was saved standing has not run since.
    if (!account.stands_since_ns) account.stands_since_ns = ports_.system_time_ns();
}

void Domain::vcpu_goes_on(unsigned id) {
    RunstateAccount& account = vcpus_[id].runstate;
    const std::scoped_lock lock(account.mutex);
    if (!account.stands_since_ns) return;
    // The host's own account is in there as of when it was last asked.
    const std::uint64_t since = std::max(*account.stands_since_ns, account.now.since_ns);
    account.stands_since_ns.reset();
    const std::uint64_t now = ports_.system_time_ns();
    const std::uint32_t state = account.now.state;
    if (now <= since || (state != Runstate::kRunning && state != Runstate::kRunnable)) return;
    account.now = settled(account.now, since);
    account.now.time_ns[Runstate::kOffline] += now - since;
    account.now.since_ns = now;
    if (!ports_.host_keeps_runstate()) write_runstate_locked(account);
}

void Domain::place_runstate_area(unsigned id, std::uint64_t gpa, bool physical, bool is_64bit) {
    RunstateAccount& account = vcpus_[id].runstate;
    {
        const std::scoped_lock lock(account.mutex);
        (physical ? account.area.physical_gpa : account.area.linear_gpa) = gpa;
        (physical ? account.physical_is_64bit : account.linear_is_64bit) = is_64bit;
        vcpus_[id].runstate_gpa = account.area.effective();
        // Also where the host takes over from here: the guest finds it filled when it returns.
        write_runstate_locked(account);
    }
    ports_.runstate_area_moved(id);
}

void Domain::set_runstate_update_flag(bool on) {
    runstate_update_flag_ = on;
    ports_.runstate_update_flag(on);
}

void Domain::write_runstate_locked(const RunstateAccount& account) {
    constexpr std::uint64_t kUpdate = std::uint64_t{1} << 63;  // XEN_RUNSTATE_UPDATE
    const std::uint64_t gpa = account.area.effective();
    if (gpa == kNoGfn) return;
    const bool physical = account.area.physical_gpa != kNoGfn;
    const bool flagged = physical || runstate_update_flag_;
    vcpu_runstate_info<W64> info{.state = account.now.state,
                                 .state_entry_time = account.now.since_ns,
                                 .time = account.now.time_ns};
    const bool wide = physical ? account.physical_is_64bit : account.linear_is_64bit;
    // Word by word, as its readers look at it; an area that is not aligned has none who could rely
    // on that. One whose page the guest gave away is not written.
    const auto write = [&](std::uint64_t at, std::span<const std::byte> bytes) {
        if (at % sizeof(std::uint32_t) != 0) {
            static_cast<void>(memory_.write(vmm::Gpa{at}, bytes));
            return;
        }
        for (std::size_t i = 0; i < bytes.size(); i += sizeof(std::uint32_t)) {
            std::uint32_t value = 0;
            std::memcpy(&value, bytes.data() + i, sizeof value);
            if (auto* word = memory_.word<std::uint32_t>(vmm::Gpa{at + i})) {
                std::atomic_ref<std::uint32_t>(*word).store(value);
            }
        }
    };
    // The upper half alone: the flag is there before anything else changes, and goes last.
    const auto write_flagged_half = [&](std::uint64_t entry_time) {
        const auto half = static_cast<std::uint32_t>(entry_time >> 32);
        write(gpa + (wide ? 8 : 4) + 4, std::as_bytes(std::span(&half, 1)));
    };
    if (flagged) {
        info.state_entry_time |= kUpdate;
        write_flagged_half(info.state_entry_time);
    }
    if (wide) {
        write(gpa, bytes_of(info));
    } else {
        write(gpa, bytes_of(narrow<vcpu_runstate_info>(info)));
    }
    if (flagged) write_flagged_half(account.now.since_ns);
}

// ---- polling ------------------------------------------------------------------------------------

bool Domain::poll_satisfied(unsigned id) {
    const auto& ports = vcpus_[id].polled;
    return std::any_of(ports.begin(), ports.end(), [&](Port port) {
        const auto pending = event_channels_.pending(port);
        return !pending || *pending;  // a port that was closed meanwhile will never come
    });
}

void Domain::end_poll(unsigned id) {
    if (vcpus_[id].polled.empty()) return;
    vcpus_[id].polled.clear();
    --event_channels_.pollers;
}

void Domain::set_shutdown_code(std::uint8_t reason) {
    const std::scoped_lock lock(mutex_);
    if (!shutdown_code_) shutdown_code_ = reason;
}

void Domain::shutdown(std::uint8_t reason) {
    set_shutdown_code(reason);
    std::uint8_t code = 0;
    {
        const std::scoped_lock lock(mutex_);
        code = *shutdown_code_;
    }
    ports_.shutdown(code);
}

std::int64_t Domain::shutdown_by(unsigned vcpu, std::uint8_t reason) {
    std::unique_lock lock(mutex_);
    if (suspend_ == Suspend::kNone || shutdown_code_.value_or(reason) != SHUTDOWN_suspend) {
        lock.unlock();
        shutdown(reason);
        return 0;
    }
    shutdown_code_.reset();  // Xen forgets it, too, when such a domain goes on
    if (suspend_ == Suspend::kGivenUp) {
        suspend_ = Suspend::kNone;
        return kSuspendCancelled;
    }
    if (suspend_ == Suspend::kAsked) {
        suspend_ = Suspend::kDone;
        suspended_by_ = vcpu;
    }  // else another vCPU has done it: this one stands still like all
    lock.unlock();
    ports_.suspend();
    return 0;
}

void Domain::expect_suspend() {
    const std::scoped_lock lock(mutex_);
    suspend_ = Suspend::kAsked;
}

bool Domain::give_up_suspend() {
    const std::scoped_lock lock(mutex_);
    if (suspend_ == Suspend::kDone) return false;
    suspend_ = Suspend::kGivenUp;
    return true;
}

std::optional<unsigned> Domain::suspended() const {
    const std::scoped_lock lock(mutex_);
    return suspend_ == Suspend::kDone ? std::optional(suspended_by_) : std::nullopt;
}

void Domain::go_on_here() {
    const std::scoped_lock lock(mutex_);
    suspend_ = Suspend::kNone;
}

void Domain::vcpu_down(unsigned id) {
    // In this order: whoever sees it down and brings it up again comes after the stop.
    ports_.stop_vcpu(id);
    vcpus_[id].up = false;
    set_runstate(id, Runstate::kOffline);
    const bool any =
        std::any_of(vcpus_.begin(), vcpus_.end(), [](const DomainVcpu& v) { return v.up.load(); });
    if (!any) shutdown(SHUTDOWN_poweroff);
}

GuestResult<std::uint32_t> Domain::watchdog(std::uint32_t id, std::uint32_t seconds) {
    constexpr std::uint64_t kNsPerSecond = 1'000'000'000;
    const std::uint64_t deadline = ports_.system_time_ns() + seconds * kNsPerSecond;
    const std::scoped_lock lock(mutex_);
    if (id > watchdogs_.size()) return refuse(XEN_EINVAL);
    if (id == 0) {
        for (std::uint32_t i = 0; i < watchdogs_.size(); ++i) {
            if (watchdogs_[i].in_use) continue;
            watchdogs_[i] = {.in_use = true, .deadline_ns = deadline};
            return i + 1;
        }
        return refuse(XEN_ENOSPC);
    }
    Watchdog& slot = watchdogs_[id - 1];
    if (!slot.in_use) return refuse(XEN_EINVAL);
    slot = seconds == 0 ? Watchdog{} : Watchdog{.in_use = true, .deadline_ns = deadline};
    return 0u;
}

void Domain::delay_watchdogs(std::uint64_t ns) {
    const std::scoped_lock lock(mutex_);
    for (Watchdog& watchdog : watchdogs_) {
        if (watchdog.in_use) watchdog.deadline_ns += ns;
    }
}

bool Domain::watchdog_expired(std::uint64_t now_ns) {
    const std::scoped_lock lock(mutex_);
    return std::any_of(watchdogs_.begin(), watchdogs_.end(),
                       [&](const Watchdog& w) { return w.in_use && w.deadline_ns <= now_ns; });
}

}  // namespace xenshim
