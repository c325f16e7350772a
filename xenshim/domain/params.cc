#include "xenshim/domain/params.h"

#include <algorithm>

#include "xenshim/abi/numbers.h"
#include "xenshim/abi/other_numbers.h"

namespace xenshim {
namespace {

using namespace abi;

enum class Rule { kDenied, kAllowed, kDeprecated, kReadOnly };

// Parameters without a meaning. They were the toolstack's like any other until 4.11; which release
// first called them an error was read from 4.17 backwards to there, not measured.
bool is_deprecated(const Profile& profile, std::uint32_t index) {
    switch (index) {
        case HVM_PARAM_PAE_ENABLED:
        case HVM_PARAM_DM_DOMAIN:
        case HVM_PARAM_MEMORY_EVENT_CR0:
        case HVM_PARAM_MEMORY_EVENT_CR3:
        case HVM_PARAM_MEMORY_EVENT_CR4:
        case HVM_PARAM_MEMORY_EVENT_INT3:
        case HVM_PARAM_MEMORY_EVENT_SINGLE_STEP:
        case HVM_PARAM_BUFIOREQ_EVTCHN:
        case HVM_PARAM_MEMORY_EVENT_MSR: return profile.since(4, 12);
        case HVM_PARAM_NESTEDHVM: return profile.since(4, 15);  // a property of the domain
        default: return false;
    }
}

// Everything that is not listed belongs to the toolstack.
Rule get_rule(const Profile& profile, std::uint32_t index) {
    if (is_deprecated(profile, index)) return Rule::kDeprecated;
    switch (index) {
        case HVM_PARAM_CALLBACK_IRQ:
        case HVM_PARAM_STORE_PFN:
        case HVM_PARAM_STORE_EVTCHN:
        case HVM_PARAM_VM86_TSS:
        case HVM_PARAM_CONSOLE_PFN:
        case HVM_PARAM_CONSOLE_EVTCHN:
        case HVM_PARAM_ACPI_IOPORTS_LOCATION:
        case HVM_PARAM_VM_GENERATION_ID_ADDR:
        case HVM_PARAM_ALTP2M:
        case HVM_PARAM_X87_FIP_WIDTH:
        case HVM_PARAM_VM86_TSS_SIZED: return Rule::kAllowed;
        case HVM_PARAM_32BIT: return profile.legacy_windows ? Rule::kAllowed : Rule::kDenied;
        default: return Rule::kDenied;
    }
}

Rule set_rule(const Profile& profile, std::uint32_t index) {
    switch (index) {
        case HVM_PARAM_STORE_PFN:
        case HVM_PARAM_CONSOLE_PFN: return Rule::kDenied;
        // Read-only since it is a property of the domain (4.20).
        case HVM_PARAM_ALTP2M: return profile.since(4, 20) ? Rule::kReadOnly : Rule::kDenied;
        default: return get_rule(profile, index);
    }
}

// Until 4.5 a guest could set all but what would have paused it, what was another domain's
// business, and what was Xen's own.
GuestResult<void> may_set_until_45(std::uint32_t index, std::uint64_t value) {
    constexpr std::uint64_t kLastTimerMode = 3, kLastShutdownReason = 4;
    switch (index) {
        case HVM_PARAM_IDENT_PT:
        case HVM_PARAM_DM_DOMAIN:
        case HVM_PARAM_ACPI_S_STATE:
        case HVM_PARAM_MEMORY_EVENT_CR0:
        case HVM_PARAM_MEMORY_EVENT_CR3:
        case HVM_PARAM_MEMORY_EVENT_CR4:
        case HVM_PARAM_MEMORY_EVENT_INT3:
        case HVM_PARAM_MEMORY_EVENT_SINGLE_STEP:
        case HVM_PARAM_MEMORY_EVENT_MSR:
        case HVM_PARAM_NESTEDHVM:
        case HVM_PARAM_IOREQ_SERVER_PFN:
        case HVM_PARAM_NR_IOREQ_SERVER_PAGES: return refuse(XEN_EPERM);
        // Mapped once, when the device model came; the event channel was never anyone's to set.
        case HVM_PARAM_IOREQ_PFN:
        case HVM_PARAM_BUFIOREQ_PFN:
        case HVM_PARAM_BUFIOREQ_EVTCHN: return refuse(XEN_EINVAL);
        case HVM_PARAM_TIMER_MODE:
            if (value > kLastTimerMode) return refuse(XEN_EINVAL);
            return {};
        case HVM_PARAM_VIRIDIAN:
            if (value > 1) return refuse(XEN_EINVAL);
            return {};
        case HVM_PARAM_TRIPLE_FAULT_REASON:
            if (value > kLastShutdownReason) return refuse(XEN_EINVAL);
            return {};
        default: return {};
    }
}

GuestResult<void> allowed(Rule rule) {
    switch (rule) {
        case Rule::kDenied: return refuse(XEN_EPERM);
        case Rule::kDeprecated: return refuse(XEN_EINVAL);
        case Rule::kReadOnly: return refuse(XEN_EEXIST);
        case Rule::kAllowed: break;
    }
    return {};
}

// A task state segment: shorter than this, it cannot hold what the CPU reads of it; longer, no CPU
// would read the rest (256 bits of interrupt redirection, 64 k of ports, a last byte).
constexpr std::uint64_t kSmallestTss = 104, kLargestTss = kSmallestTss + 32 + 8192 + 1;
constexpr std::uint64_t kDefaultTss = 128;

constexpr std::uint64_t sized_tss(std::uint64_t size, std::uint64_t address) {
    return size << 32 | (address & UINT32_MAX);
}

}  // namespace

GuestResult<std::uint64_t> Params::get(std::uint32_t index) const {
    if (profile_.since(4, 6)) TRY(allowed(get_rule(profile_, index)));
    const bool console = index == HVM_PARAM_CONSOLE_PFN || index == HVM_PARAM_CONSOLE_EVTCHN;
    // XenServer: a driver must not take a console for there that is not.
    if (console && profile_.legacy_windows && peek(HVM_PARAM_CONSOLE_PFN) == 0 &&
        peek(HVM_PARAM_CONSOLE_EVTCHN) == 0) {
        return refuse(XEN_EINVAL);
    }
    return peek(index);
}

GuestResult<Params::Effect> Params::set(std::uint32_t index, std::uint64_t value) {
    if (profile_.since(4, 6)) {
        TRY(allowed(set_rule(profile_, index)));
    } else {
        TRY(may_set_until_45(index, value));
    }
    switch (index) {
        case HVM_PARAM_ACPI_IOPORTS_LOCATION:
            // There is no power management block to move. Before 4.7 nobody asked whether there is.
            if (profile_.since(4, 7)) return refuse(XEN_ENODEV);
            if (value > 1) return refuse(XEN_EINVAL);
            break;
        case HVM_PARAM_X87_FIP_WIDTH:
            if (value != 0 && value != 4 && value != 8) return refuse(XEN_EINVAL);
            break;
        case HVM_PARAM_VM86_TSS:
            // The older form of VM86_TSS_SIZED since there is one: only an address, 32 bits.
            if (!exists(HVM_PARAM_VM86_TSS_SIZED)) break;
            if (value > UINT32_MAX) return Effect::kCrash;
            put(HVM_PARAM_VM86_TSS_SIZED, value == 0 ? 0 : sized_tss(kDefaultTss, value));
            return Effect::kNone;
        case HVM_PARAM_VM86_TSS_SIZED:
            if ((value >> 32) < kSmallestTss) return Effect::kCrash;
            value = sized_tss(std::min(value >> 32, kLargestTss), value);
            break;
        default: break;
    }
    put(index, value);
    return index == HVM_PARAM_CALLBACK_IRQ ? Effect::kCallbackChanged : Effect::kNone;
}

void Params::put(std::uint32_t index, std::uint64_t value) {
    const std::scoped_lock lock(mutex_);
    values_[index] = value;
}

std::uint64_t Params::peek(std::uint32_t index) const {
    const std::scoped_lock lock(mutex_);
    return values_[index];
}

}  // namespace xenshim
