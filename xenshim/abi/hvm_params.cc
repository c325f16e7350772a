#include "xenshim/abi/hvm_params.h"

#include "xenshim/abi/numbers.h"
#include "xenshim/abi/other_numbers.h"

namespace xenshim::abi {
namespace {

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
GuestResult<void> allowed_until_45(std::uint32_t index, std::uint64_t value) {
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

bool is_consoles(std::uint32_t index) {
    return index == HVM_PARAM_CONSOLE_PFN || index == HVM_PARAM_CONSOLE_EVTCHN;
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

}  // namespace

GuestResult<void> may_get_param(const Profile& profile, std::uint32_t index) {
    if (profile.hides_console && is_consoles(index)) return refuse(XEN_EINVAL);
    if (!profile.since(4, 6)) return {};
    return allowed(get_rule(profile, index));
}

bool hides_missing_console(const Profile& profile, std::uint32_t index) {
    // XenServer: a driver must not take a console for there that is not.
    return profile.legacy_windows && is_consoles(index);
}

GuestResult<void> may_set_param(const Profile& profile, std::uint32_t index, std::uint64_t value) {
    if (profile.since(4, 6)) {
        TRY(allowed(set_rule(profile, index)));
    } else {
        TRY(allowed_until_45(index, value));
    }
    switch (index) {
        case HVM_PARAM_ACPI_IOPORTS_LOCATION:
            // There is no power management block to move. Before 4.7 nobody asked whether there is.
            if (profile.since(4, 7)) return refuse(XEN_ENODEV);
            if (value > 1) return refuse(XEN_EINVAL);
            return {};
        case HVM_PARAM_X87_FIP_WIDTH:
            if (value != 0 && value != 4 && value != 8) return refuse(XEN_EINVAL);
            return {};
        default: return {};
    }
}

}  // namespace xenshim::abi
