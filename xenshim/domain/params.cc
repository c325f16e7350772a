#include "xenshim/domain/params.h"

#include "xenshim/abi/numbers.h"

namespace xenshim {
namespace {

using namespace abi;

enum class Rule { kDenied, kAllowed, kDeprecated };

// Everything that is not listed belongs to the toolstack.
Rule get_rule(std::uint32_t index) {
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
        case 4:
        case 13:
        case 20:
        case 21:
        case 22:
        case 23:
        case 24:
        case 25:
        case 26:
        case 30: return Rule::kDeprecated;
        default: return Rule::kDenied;
    }
}

Rule set_rule(std::uint32_t index) {
    switch (index) {
        case HVM_PARAM_STORE_PFN:
        case HVM_PARAM_CONSOLE_PFN:
        case HVM_PARAM_ALTP2M: return Rule::kDenied;
        default: return get_rule(index);
    }
}

// A task state segment shorter than this cannot hold what the CPU reads of it.
constexpr std::uint64_t kSmallestTss = 104;
constexpr std::uint64_t kDefaultTss = 128;

}  // namespace

GuestResult<std::uint64_t> Params::get(std::uint32_t index) const {
    switch (get_rule(index)) {
        case Rule::kDenied: return refuse(XEN_EPERM);
        case Rule::kDeprecated: return refuse(XEN_EINVAL);
        case Rule::kAllowed: break;
    }
    return peek(index);
}

GuestResult<Params::Effect> Params::set(std::uint32_t index, std::uint64_t value) {
    switch (set_rule(index)) {
        case Rule::kDenied: return refuse(XEN_EPERM);
        case Rule::kDeprecated: return refuse(XEN_EINVAL);
        case Rule::kAllowed: break;
    }
    switch (index) {
        case HVM_PARAM_ACPI_IOPORTS_LOCATION:
            return refuse(XEN_ENODEV);  // no power management block to move
        case HVM_PARAM_X87_FIP_WIDTH:
            if (value != 0 && value != 4 && value != 8) return refuse(XEN_EINVAL);
            break;
        case HVM_PARAM_VM86_TSS:
            // The older form of VM86_TSS_SIZED: only an address.
            put(HVM_PARAM_VM86_TSS_SIZED, (kDefaultTss << 32) | (value & UINT32_MAX));
            break;
        case HVM_PARAM_VM86_TSS_SIZED:
            if ((value >> 32) < kSmallestTss) return Effect::kCrash;
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
