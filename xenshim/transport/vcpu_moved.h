// What of a vCPU's saved state is the transport's: what it waits for in a hypercall, and how its
// time is accounted while it stands still.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <tuple>

#include "vmm/base/saved.h"
#include "vmm/kvm/cpuid_state.h"
#include "vmm/kvm/vcpu_state.h"
#include "xenshim/domain/domain.h"

namespace xenshim {

// The ports that it polls are the domain's to save.
struct VcpuWaitState {
    static constexpr vmm::saved::Section kSection{"xen.wait", 1};
    bool waits = false;
    std::optional<std::uint64_t> deadline_ns{};  // the guest's system time
    bool operator==(const VcpuWaitState&) const = default;
    static constexpr auto fields(auto& self) {
        auto& [waits, deadline_ns] = self;
        return std::tuple{vmm::saved::field(1, "waits", waits),
                          vmm::saved::field(2, "deadline_ns", deadline_ns)};
    }
};

// All of a vCPU that is not the domain's.
struct VcpuMoved {
    vmm::kvm::CpuidState cpuid;
    vmm::kvm::VcpuState cpu;
    vmm::kvm::VcpuTimeState time;
    VcpuWaitState wait;
};

// The account that is carried on when KVM kept one of its own, which tells time on a CPU from time
// that others had, but knows nothing of sleeping in hypercalls: KVM's times, the domain's state.
inline Runstate with_hosts_times(const Runstate& domains, const vmm::kvm::XenRunstate& hosts,
                                 std::uint64_t now_ns) {
    Runstate out = settled({.state = std::min<std::uint32_t>(hosts.state, Runstate::kOffline),
                            .since_ns = hosts.since_ns,
                            .time_ns = hosts.time_ns},
                           now_ns);
    out.state = domains.state;
    return out;
}

}  // namespace xenshim
