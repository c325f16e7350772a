#include "xenshim/hypercall/dispatcher.h"

#include <algorithm>
#include <array>

#include "xenshim/abi/continuation.h"
#include "xenshim/hypercall/handlers.h"

namespace xenshim {
namespace {

using namespace abi;

constexpr std::array kHypercalls = {
    HypercallRow{HYPERVISOR_platform_op, "platform_op", platform_op},
    HypercallRow{HYPERVISOR_memory_op, "memory_op", memory_op},
    HypercallRow{HYPERVISOR_multicall, "multicall", multicall},
    HypercallRow{HYPERVISOR_set_timer_op, "set_timer_op", set_timer_op},
    HypercallRow{HYPERVISOR_xen_version, "xen_version", xen_version},
    HypercallRow{HYPERVISOR_console_io, "console_io", console_io},
    HypercallRow{HYPERVISOR_grant_table_op, "grant_table_op", grant_table_op},
    HypercallRow{HYPERVISOR_vm_assist, "vm_assist", vm_assist},
    HypercallRow{HYPERVISOR_vcpu_op, "vcpu_op", vcpu_op},
    HypercallRow{HYPERVISOR_mmuext_op, "mmuext_op", mmuext_op},
    HypercallRow{HYPERVISOR_xsm_op, "xsm_op", not_compiled_in},
    HypercallRow{HYPERVISOR_sched_op, "sched_op", sched_op},
    HypercallRow{HYPERVISOR_event_channel_op, "event_channel_op", event_channel_op},
    HypercallRow{HYPERVISOR_physdev_op, "physdev_op", physdev_op},
    HypercallRow{HYPERVISOR_hvm_op, "hvm_op", hvm_op},
    HypercallRow{HYPERVISOR_sysctl, "sysctl", sysctl},
    HypercallRow{HYPERVISOR_domctl, "domctl", domctl},
    HypercallRow{HYPERVISOR_tmem_op, "tmem_op", tmem_op},
    HypercallRow{HYPERVISOR_argo_op, "argo_op", not_compiled_in},
    HypercallRow{HYPERVISOR_xenpmu_op, "xenpmu_op", xenpmu_op},
    HypercallRow{HYPERVISOR_dm_op, "dm_op", dm_op},
    HypercallRow{HYPERVISOR_hypfs_op, "hypfs_op", hypfs_op},
    HypercallRow{HYPERVISOR_arch_1, "paging_domctl_cont", paging_domctl_cont},
};

constexpr std::size_t kNumbers = 64;

constexpr auto kByNumber = [] {
    std::array<Outcome (*)(Call&), kNumbers> table{};
    for (const HypercallRow& row : kHypercalls) {
        table[row.number] = row.handler;
    }
    return table;
}();

// Whether the next entry's units count from its start.
bool counts_from_entry(ContinuationClass kind) {
    return kind == ContinuationClass::kPointerAndCount || kind == ContinuationClass::kStruct;
}

}  // namespace

std::span<const HypercallRow> hypercalls() {
    return kHypercalls;
}

Outcome dispatch(Call& call) {
    const Profile& profile = call.profile();
    const std::uint64_t number = hypercall_number(profile, call.request());
    if (number >= kNumbers || kByNumber[number] == nullptr ||
        (profile.hypercalls >> number & 1) == 0) {
        return Call::fail(XEN_ENOSYS);
    }
    const Outcome outcome = kByNumber[number](call);
    call.domain().follow_shared_info();
    return outcome;
}

namespace {

// The member that moves is as wide as `T`.
template <class T>
bool move_member(GuestAccess& access, const StructChange& change) {
    T value{};
    const auto bytes = std::as_writable_bytes(std::span(&value, 1));
    if (!access.read({change.at}, bytes)) return false;
    value = static_cast<T>(change.replaces ? change.delta : value + change.delta);
    return access.write({change.at}, bytes);
}

bool move_member(GuestAccess& access, const StructChange& change) {
    switch (change.bytes) {
        case sizeof(std::uint16_t): return move_member<std::uint16_t>(access, change);
        case sizeof(std::uint32_t): return move_member<std::uint32_t>(access, change);
        default: return move_member<std::uint64_t>(access, change);
    }
}

}  // namespace

std::optional<Reissue> reissue(Call& call, const Continue& progress) {
    const Encoded encoded = encode_continuation(call.profile(), call.request(), progress);
    for (const StructChange& change : encoded.struct_changes()) {
        if (!move_member(call.access(), change)) return std::nullopt;
    }
    const auto rule = continuation_rule(call.profile(), call.request(), progress.structure_op);
    if (counts_from_entry(rule.kind)) {
        call.preemption().stopped(encoded.registers, call.request().width, call.next_unit());
    }
    return encoded.registers;
}

Reply run_hypercall(Domain& domain, GuestAccess& access, Preemption& preemption, unsigned vcpu,
                    const Request& request) {
    // Privilege comes before existence: ring 3 with a bogus number hears -EPERM.
    constexpr unsigned kUserRing = 3;
    if (request.cpl != 0 && (request.cpl == kUserRing || !domain.profile().only_ring3_refused)) {
        return Finish{-std::int64_t{XEN_EPERM}};
    }
    preemption.enter();
    Call call(domain, access, preemption, vcpu, request);
    const Outcome outcome = dispatch(call);
    if (const auto* done = std::get_if<Done>(&outcome)) return Finish{done->result};
    if (const auto* progress = std::get_if<Continue>(&outcome)) {
        auto again = reissue(call, *progress);
        if (!again) return Finish{-std::int64_t{XEN_EFAULT}};
        again->sleep = progress->sleep;
        return *again;
    }
    return *std::get_if<Block>(&outcome);
}

}  // namespace xenshim
