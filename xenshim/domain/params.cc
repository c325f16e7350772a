#include "xenshim/domain/params.h"

#include <algorithm>

#include "xenshim/abi/hvm_params.h"
#include "xenshim/abi/numbers.h"
#include "xenshim/abi/other_numbers.h"

namespace xenshim {
namespace {

using namespace abi;

// A task state segment: shorter than this, it cannot hold what the CPU reads of it; longer, no CPU
// would read the rest (256 bits of interrupt redirection, 64 k of ports, a last byte).
constexpr std::uint64_t kSmallestTss = 104, kLargestTss = kSmallestTss + 32 + 8192 + 1;
constexpr std::uint64_t kDefaultTss = 128;

constexpr std::uint64_t sized_tss(std::uint64_t size, std::uint64_t address) {
    return size << 32 | (address & UINT32_MAX);
}

}  // namespace

GuestResult<std::uint64_t> Params::get(std::uint32_t index) const {
    TRY(abi::may_get_param(profile_, index));
    if (abi::hides_missing_console(profile_, index) && peek(HVM_PARAM_CONSOLE_PFN) == 0 &&
        peek(HVM_PARAM_CONSOLE_EVTCHN) == 0) {
        return refuse(XEN_EINVAL);
    }
    return peek(index);
}

GuestResult<Params::Effect> Params::set(std::uint32_t index, std::uint64_t value) {
    TRY(abi::may_set_param(profile_, index, value));
    switch (index) {
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

Params::State Params::snapshot() const {
    const std::scoped_lock lock(mutex_);
    return {.values = {values_.begin(), values_.begin() + profile_.hvm_params}};
}

vmm::Expected<void, std::string> Params::adopt(const State& state) {
    const auto refused = [](const std::string& why) { return vmm::Failure{"values: " + why}; };
    if (state.values.size() != profile_.hvm_params) {
        return refused(std::to_string(state.values.size()) + " of them, this release has " +
                       std::to_string(profile_.hvm_params));
    }
    if (exists(HVM_PARAM_VM86_TSS_SIZED)) {
        if (state.values[HVM_PARAM_VM86_TSS] != 0) return refused("VM86_TSS is never kept");
        const std::uint64_t tss = state.values[HVM_PARAM_VM86_TSS_SIZED];
        if (tss != 0 && (tss >> 32 < kSmallestTss || tss >> 32 > kLargestTss)) {
            return refused("VM86_TSS_SIZED is no size of a TSS");
        }
    }
    const std::scoped_lock lock(mutex_);
    std::copy(state.values.begin(), state.values.end(), values_.begin());
    return {};
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
