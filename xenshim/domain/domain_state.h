// What of a domain is saved that is in none of its components. Times are the guest's system time,
// which goes on where it was.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <tuple>
#include <vector>

#include "vmm/base/saved.h"

namespace xenshim {

// Where the guest wants something shown; guest physical addresses.
struct SharedAreaState {
    std::optional<std::uint64_t> linear{};  // as its linear address was translated
    std::optional<std::uint64_t> physical{};

    bool operator==(const SharedAreaState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [linear, physical] = self;
        return std::tuple{vmm::saved::field(1, "linear", linear),
                          vmm::saved::field(2, "physical", physical)};
    }
};

struct RunstateState {
    std::uint32_t state = 0;     // RUNSTATE_*
    std::uint64_t since_ns = 0;  // system time
    std::array<std::uint64_t, 4> time_ns{};
    SharedAreaState area{};
    bool linear_is_64bit = true;
    bool physical_is_64bit = true;
    std::optional<std::uint64_t> stands_since_ns{};  // system time; none: it does not stand still

    bool operator==(const RunstateState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [state, since_ns, time_ns, area, linear_is_64bit, physical_is_64bit,
               stands_since_ns] = self;
        return std::tuple{vmm::saved::field(1, "state", state),
                          vmm::saved::field(2, "since_ns", since_ns),
                          vmm::saved::field(3, "time_ns", time_ns),
                          vmm::saved::field(4, "area", area),
                          vmm::saved::field(5, "linear_is_64bit", linear_is_64bit),
                          vmm::saved::field(6, "physical_is_64bit", physical_is_64bit),
                          vmm::saved::field(7, "stands_since_ns", stands_since_ns,
                                            vmm::saved::Since{3})};
    }
};

struct DomainVcpuState {
    bool up = false;
    bool initialised = false;
    std::uint8_t upcall_vector = 0;   // 0: none of its own
    std::uint64_t singleshot_ns = 0;  // system time; 0: off
    std::uint64_t period_ns = 0;      // 0: off, and so is the next
    std::uint64_t next_periodic_ns = 0;
    std::vector<std::uint32_t> polled{};  // the ports that it sleeps for
    RunstateState runstate{};
    SharedAreaState time_area{};

    bool operator==(const DomainVcpuState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [up, initialised, upcall_vector, singleshot_ns, period_ns, next_periodic_ns, polled,
               runstate, time_area] = self;
        return std::tuple{vmm::saved::field(1, "up", up),
                          vmm::saved::field(2, "initialised", initialised),
                          vmm::saved::field(3, "upcall_vector", upcall_vector),
                          vmm::saved::field(4, "singleshot_ns", singleshot_ns),
                          vmm::saved::field(5, "period_ns", period_ns),
                          vmm::saved::field(6, "next_periodic_ns", next_periodic_ns),
                          vmm::saved::field(7, "polled", polled),
                          vmm::saved::field(8, "runstate", runstate),
                          vmm::saved::field(9, "time_area", time_area)};
    }
};

// The deadlines of SCHEDOP_watchdog's slots, system time; none: the slot is free.
using WatchdogsState = std::array<std::optional<std::uint64_t>, 2>;

// How far SCHEDOP_shutdown(suspend) is that the toolstack has asked for.
enum class Suspend : std::uint8_t {
    kNone = 0,
    kGivenUp = 1,  // nobody waits for it any more: should it come yet, it is told so
    // It has come. The vCPUs stand still, and what goes on from this state finds what it would find
    // in a new domain.
    kDone = 2,
    kAsked = 3,  // it is waited for; not in a saved state, for who waits is not
};

struct DomainState {
    static constexpr vmm::saved::Section kSection{"xen.domain", 3};

    std::vector<DomainVcpuState> vcpus{};
    std::optional<std::uint8_t> shutdown_code{};
    WatchdogsState watchdogs{};
    bool runstate_update_flag = false;
    std::uint64_t callback = 0;     // HVM_PARAM_CALLBACK_IRQ as it is in force
    std::uint32_t incarnation = 1;  // in how many places it has been
    Suspend suspend = Suspend::kNone;

    bool operator==(const DomainState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [vcpus, shutdown_code, watchdogs, runstate_update_flag, callback, incarnation,
               suspend] = self;
        return std::tuple{vmm::saved::field(1, "vcpus", vcpus),
                          vmm::saved::field(2, "shutdown_code", shutdown_code),
                          vmm::saved::field(3, "watchdogs", watchdogs),
                          vmm::saved::field(4, "runstate_update_flag", runstate_update_flag),
                          vmm::saved::field(5, "callback", callback),
                          vmm::saved::field(6, "incarnation", incarnation),
                          vmm::saved::field(7, "suspend", suspend, vmm::saved::Since{2})};
    }
};

}  // namespace xenshim
