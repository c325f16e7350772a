// A domain, saved and restored: see domain_state.h.
#include <algorithm>

#include "xenshim/domain/domain.h"

namespace xenshim {

namespace {

using vmm::Failure;

std::optional<std::uint64_t> saved_place(std::uint64_t gpa) {
    return gpa != kNoGfn ? std::optional(gpa) : std::nullopt;
}

SharedAreaState saved_area(const SharedArea& area) {
    return {.linear = saved_place(area.linear_gpa), .physical = saved_place(area.physical_gpa)};
}

SharedArea area_of(const SharedAreaState& saved) {
    return {.linear_gpa = saved.linear.value_or(kNoGfn),
            .physical_gpa = saved.physical.value_or(kNoGfn)};
}

RunstateState saved_runstate(const RunstateAccount& account) {
    const std::scoped_lock lock(account.mutex);
    return {.state = account.now.state,
            .since_ns = account.now.since_ns,
            .time_ns = account.now.time_ns,
            .area = saved_area(account.area),
            .linear_is_64bit = account.linear_is_64bit,
            .physical_is_64bit = account.physical_is_64bit,
            .stands_since_ns = account.stands_since_ns};
}

// Both are of memory that is looked at each time it is written, and where the guest may have had
// something else since: only that the area is inside a page is not left open.
constexpr std::uint64_t kClockBytes = 32;

vmm::Expected<void, std::string> check_area(const SharedAreaState& area, std::uint64_t linear_bytes,
                                            std::uint64_t physical_bytes) {
    const auto crosses = [](std::optional<std::uint64_t> gpa, std::uint64_t bytes) {
        return gpa && vmm::Gpa{*gpa}.offset() + bytes > vmm::kPageSize;
    };
    if (crosses(area.linear, linear_bytes)) return Failure{"linear: crosses a page"};
    if (crosses(area.physical, physical_bytes)) return Failure{"physical: crosses a page"};
    if (area.physical && *area.physical % sizeof(std::uint32_t) != 0) {
        return Failure{"physical: not aligned"};
    }
    return {};
}

vmm::Expected<void, std::string> check_vcpu(const DomainVcpuState& vcpu) {
    constexpr std::uint8_t kFirstVector = 0x10;
    constexpr std::size_t kMostPolled = 128;
    const auto in = [](const char* member, const vmm::Expected<void, std::string>& checked) {
        return Failure{std::string(member) + checked.error()};
    };
    if (vcpu.up && !vcpu.initialised) return Failure{"up: and not initialised"};
    if (vcpu.upcall_vector != 0 && vcpu.upcall_vector < kFirstVector) {
        return Failure{"upcall_vector: is an exception's"};
    }
    if (vcpu.period_ns != 0 &&
        (vcpu.period_ns < Timers::kShortestPeriodNs || vcpu.period_ns > Timers::kLongestPeriodNs)) {
        return Failure{"period_ns: too short or too long"};
    }
    if (vcpu.period_ns == 0 && vcpu.next_periodic_ns != 0) {
        return Failure{"next_periodic_ns: of no periodic timer"};
    }
    if (vcpu.polled.size() > kMostPolled) return Failure{"polled: too many"};
    if (vcpu.runstate.state > Runstate::kOffline) {
        return Failure{"runstate: state: there is none such"};
    }
    const auto bytes = [](bool is_64bit) {
        return is_64bit ? sizeof(abi::vcpu_runstate_info<abi::W64>)
                        : sizeof(abi::vcpu_runstate_info<abi::W32>);
    };
    if (const auto area = check_area(vcpu.runstate.area, bytes(vcpu.runstate.linear_is_64bit),
                                     bytes(vcpu.runstate.physical_is_64bit));
        !area) {
        return in("runstate: area: ", area);
    }
    if (const auto area = check_area(vcpu.time_area, kClockBytes, kClockBytes); !area) {
        return in("time_area: ", area);
    }
    return {};
}

}  // namespace

Domain::State Domain::snapshot() const {
    State state{.vcpus = {},
                .shutdown_code = {},
                .watchdogs = {},
                .runstate_update_flag = runstate_update_flag_,
                .callback = callback_,
                .incarnation = incarnation_,
                .suspend = {}};
    for (const DomainVcpu& vcpu : vcpus_) {
        const std::uint64_t period = vcpu.timers.period_ns;
        state.vcpus.push_back(
            {.up = vcpu.up,
             .initialised = vcpu.initialised,
             .upcall_vector = vcpu.upcall_vector,
             .singleshot_ns = vcpu.timers.singleshot_ns,
             .period_ns = period,
             .next_periodic_ns = period != 0 ? vcpu.timers.next_periodic_ns.load() : 0,
             .polled = vcpu.polled,
             .runstate = saved_runstate(vcpu.runstate),
             .time_area = saved_area(vcpu.time_area)});
    }
    const std::scoped_lock lock(mutex_);
    state.shutdown_code = shutdown_code_;
    // Who waits for it waits here.
    state.suspend = suspend_ == Suspend::kAsked ? Suspend::kGivenUp : suspend_;
    for (std::size_t i = 0; i < watchdogs_.size(); ++i) {
        if (watchdogs_[i].in_use) state.watchdogs[i] = watchdogs_[i].deadline_ns;
    }
    return state;
}

vmm::Expected<void, std::string> Domain::check(const State& state) const {
    if (state.vcpus.size() != vcpus_.size()) {
        return Failure{"vcpus: " + std::to_string(state.vcpus.size()) + " of them, not " +
                       std::to_string(vcpus_.size())};
    }
    for (std::size_t i = 0; i < state.vcpus.size(); ++i) {
        if (const auto checked = check_vcpu(state.vcpus[i]); !checked) {
            return Failure{"vcpus: " + std::to_string(i) + ": " + checked.error()};
        }
    }
    if (state.suspend > Suspend::kDone) return Failure{"suspend: there is none such"};
    return {};
}

vmm::Expected<void, std::string> Domain::adopt(const State& state) {
    TRY(check(state));
    unsigned polling = 0;
    for (std::size_t i = 0; i < vcpus_.size(); ++i) {
        const DomainVcpuState& saved = state.vcpus[i];
        DomainVcpu& vcpu = vcpus_[i];
        vcpu.up = saved.up;
        vcpu.initialised = saved.initialised;
        vcpu.upcall_vector = saved.upcall_vector;
        vcpu.timers.singleshot_ns = saved.singleshot_ns;
        vcpu.timers.period_ns = saved.period_ns;
        vcpu.timers.next_periodic_ns = saved.next_periodic_ns;
        vcpu.polled = saved.polled;
        if (!vcpu.polled.empty()) ++polling;
        vcpu.time_area = area_of(saved.time_area);
        const std::scoped_lock lock(vcpu.runstate.mutex);
        vcpu.runstate.now = {.state = saved.runstate.state,
                             .since_ns = saved.runstate.since_ns,
                             .time_ns = saved.runstate.time_ns};
        vcpu.runstate.stands_since_ns = saved.runstate.stands_since_ns;
        vcpu.runstate.area = area_of(saved.runstate.area);
        vcpu.runstate.linear_is_64bit = saved.runstate.linear_is_64bit;
        vcpu.runstate.physical_is_64bit = saved.runstate.physical_is_64bit;
        vcpu.runstate_gpa = vcpu.runstate.area.effective();
    }
    event_channels_.pollers = polling;
    runstate_update_flag_ = state.runstate_update_flag;
    callback_ = state.callback;
    incarnation_ = state.incarnation;
    const std::scoped_lock lock(mutex_);
    shutdown_code_ = state.shutdown_code;
    suspend_ = state.suspend;
    suspended_by_ = 0;
    for (std::size_t i = 0; i < watchdogs_.size(); ++i) {
        watchdogs_[i] = {.in_use = state.watchdogs[i].has_value(),
                         .deadline_ns = state.watchdogs[i].value_or(0)};
    }
    return {};
}

void Domain::begin_anew(std::uint64_t now_ns) {
    shared_info_.begin_anew();
    event_channels_.begin_anew();
    // Nothing is pending any more, so that a line falls while it is known where it goes.
    callback_line_.take_up(false);
    params_.put(abi::HVM_PARAM_CALLBACK_IRQ, 0);
    callback_ = 0;
    for (DomainVcpu& vcpu : vcpus_) {
        vcpu.upcall_vector = 0;
        vcpu.timers.singleshot_ns = 0;
        vcpu.timers.period_ns = 0;
        vcpu.timers.next_periodic_ns = 0;
        vcpu.polled.clear();
        vcpu.time_area = {};
        // A vCPU that slept in a hypercall has returned from it.
        const std::scoped_lock lock(vcpu.runstate.mutex);
        vcpu.runstate.now = {.state = vcpu.up ? Runstate::kRunning : Runstate::kOffline,
                             .since_ns = now_ns,
                             .time_ns = {}};
        vcpu.runstate.stands_since_ns.reset();
        vcpu.runstate.area = {};
        vcpu.runstate_gpa = kNoGfn;
    }
    event_channels_.pollers = 0;
    const std::scoped_lock lock(mutex_);
    shutdown_code_.reset();
    suspend_ = Suspend::kNone;
    watchdogs_ = {};
}

void Domain::tell_machine() {
    ports_.width_latched(shared_info_.is_64bit());
    ports_.runstate_update_flag(runstate_update_flag_);
    follow_shared_info();
    for (unsigned v = 0; v < vcpus(); ++v) {
        if (shared_info_.vcpu_info_moved(v)) ports_.vcpu_info_moved(v);
        if (vcpus_[v].runstate_gpa != kNoGfn) ports_.runstate_area_moved(v);
        if (const std::uint64_t gpa = vcpus_[v].time_area.effective(); gpa != kNoGfn) {
            // A machine that has none leaves the record as it is: its version does not change.
            static_cast<void>(ports_.place_time_area(v, gpa));
        }
    }
    callback_line_.take_up(vcpus_[0].upcall_vector != 0);
    if (callback_ != 0) ports_.callback_changed(callback_);
    for (unsigned v = 0; v < vcpus(); ++v) {
        if (shared_info_.upcall_pending(v)) ports_.upcall(v);
    }
}

}  // namespace xenshim
