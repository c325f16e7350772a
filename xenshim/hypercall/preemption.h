// When a long operation should stop and let its vCPU go back to the guest.
//
// A unit is one element of work (an extent, a multicall entry). The first unit of an entry is
// always done, so that every entry makes progress; after the last nothing is asked. The cheap
// question is one atomic load; the clock is read once in a few units.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace xenshim {

class Preemption {
  public:
    // `wanted`: set by whoever needs this vCPU out of a hypercall (an event, a kick, a pause).
    // `force_every`: stop after so many units in any case; 0: never (--preempt every:N).
    Preemption(const std::atomic<std::uint32_t>& wanted, std::uint32_t force_every)
        : wanted_(&wanted), force_every_(force_every) {}

    // A hypercall was entered.
    void enter() {
        units_ = 0;
        deadline_set_ = false;
    }

    // Asked between two units.
    bool should_yield() {
        ++units_;
        if (force_every_ != 0 && units_ >= force_every_) return true;
        if (wanted_->load(std::memory_order_relaxed) != 0) return true;
        return units_ % kClockEvery == 0 && past_deadline();
    }

  private:
    static constexpr std::uint32_t kClockEvery = 16;
    static constexpr std::chrono::microseconds kLongest{100};

    bool past_deadline() {
        const auto now = std::chrono::steady_clock::now();
        if (!deadline_set_) {
            deadline_set_ = true;
            deadline_ = now + kLongest;
            return false;
        }
        return now >= deadline_;
    }

    const std::atomic<std::uint32_t>* wanted_;
    std::uint32_t force_every_;
    std::uint32_t units_ = 0;
    bool deadline_set_ = false;
    std::chrono::steady_clock::time_point deadline_;
};

}  // namespace xenshim
