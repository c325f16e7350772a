// When a long operation should stop and let its vCPU go back to the guest.
//
// A unit is the operation's own step: what it does between two places where it can stop (an extent,
// a grant, a multicall entry; 32 unmaps, 256 pages, 64 ports). The first unit of an
// entry is always done, so that every entry makes progress; after the last nothing is asked. The
// cheap question is one atomic load. The clock is read once in a number of units that follows what
// they cost: as many as fit into an eighth of the time allowed.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <utility>
#include <vector>

#include "xenshim/abi/call.h"

namespace xenshim {

// What the operator asked for (--preempt, --preempt-after).
struct PreemptPolicy {
    // Stop after so many units of an entry in any case; 0: never. 1 is "always".
    std::uint32_t every = 0;
    // Stop before these units of each operation, ascending. They count from the operation's start,
    // over all entries of it that one vCPU makes.
    std::vector<std::uint64_t> at;
    // How long an entry may take when nothing else stops it.
    std::uint32_t after_us = 100;
    bool operator==(const PreemptPolicy&) const = default;
};

class Preemption {
  public:
    using Clock = std::uint64_t (*)();  // ns, monotonic

    static std::uint64_t steady_ns() {
        return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                              std::chrono::steady_clock::now().time_since_epoch())
                                              .count());
    }

    // `wanted`: set by whoever needs this vCPU out of a hypercall: an event, a kick, a pause.
    Preemption(const std::atomic<std::uint32_t>& wanted, PreemptPolicy policy,
               Clock clock = steady_ns)
        : wanted_(&wanted),
          policy_(std::move(policy)),
          clock_(clock),
          steered_(policy_.every != 0 || !policy_.at.empty()) {}

    // From now on these bits of `wanted` are heeded, which all of them are at first.
    void heed(std::uint32_t bits) { heeded_ = bits; }

    // Units done before this entry of an operation that counts from its entry's start: those of
    // the stop whose registers these are, 0 where no stop of this vCPU left them. An operation
    // needs it for nothing but `at`: a guest that edits the frame, drops it or takes it elsewhere
    // starts counting anew.
    std::uint64_t done_before(const abi::Request& request) {
        if (!steered_) [[likely]]
            return 0;
        for (Stop& stop : stops_) {
            if (stop.next_unit == 0 || !continues(stop, request)) continue;
            return std::exchange(stop.next_unit, 0);
        }
        return 0;
    }
    // It stopped before `next_unit` and is to go on with these registers.
    void stopped(const abi::Reissue& with, abi::Width width, std::uint64_t next_unit) {
        if (!steered_) return;
        stops_[next_stop_] = {
            .number = with.number, .args = with.args, .width = width, .next_unit = next_unit};
        next_stop_ = (next_stop_ + 1) % stops_.size();
    }

    // A hypercall was entered.
    void enter() {
        units_ = 0;
        next_look_ = kFirstLook;
        started_ns_ = 0;
    }

    // The first unit alone may take long: the time counts from now on, not from when it is done.
    void start_clock() {
        if (started_ns_ != 0) return;
        started_ns_ = clock_();
        units_at_start_ = units_;
    }
    // The unit that was done cost more than those before: the clock is looked at before the next.
    void look_soon() { next_look_ = units_; }

    // Asked inside a unit, or before it, between pieces of work that the guest does not count.
    bool due() const {
        if ((wanted_->load(std::memory_order_relaxed) & heeded_) != 0) return true;
        return started_ns_ != 0 && clock_() - started_ns_ >= allowed_ns();
    }

    // Asked between two units: before unit `unit`.
    bool should_yield(std::uint64_t unit) {
        ++units_;
        if (steered_ && forced(unit)) [[unlikely]] {
            return true;
        }
        if ((wanted_->load(std::memory_order_relaxed) & heeded_) != 0) return true;
        return units_ >= next_look_ && past_deadline();
    }

  private:
    static constexpr std::uint64_t kFirstLook = 1;
    static constexpr std::uint64_t kMostBetweenLooks = 256;
    static constexpr std::uint64_t kLooks = 8;  // in the time that an entry may take

    struct Stop {
        std::uint64_t number = 0;
        std::array<std::uint64_t, 5> args{};
        abi::Width width = abi::Width::k64;
        std::uint64_t next_unit = 0;  // 0: none, or it went on
    };
    static bool continues(const Stop& stop, const abi::Request& request) {
        return stop.number == request.number && stop.args == request.args &&
               stop.width == request.width;
    }

    bool forced(std::uint64_t unit) const {
        if (policy_.every != 0 && units_ >= policy_.every) return true;
        return std::binary_search(policy_.at.begin(), policy_.at.end(), unit);
    }

    std::uint64_t allowed_ns() const { return std::uint64_t{policy_.after_us} * 1000; }

    bool past_deadline() {
        const std::uint64_t now = clock_();
        const std::uint64_t allowed = allowed_ns();
        if (started_ns_ == 0) {
            // An operation of one unit never looks at the clock.
            started_ns_ = now;
            units_at_start_ = units_;
            next_look_ = units_ + kFirstLook;
            return false;
        }
        const std::uint64_t spent = now - started_ns_;
        if (spent >= allowed) return true;
        const std::uint64_t per_unit = spent / (units_ - units_at_start_) + 1;
        next_look_ =
            units_ + std::clamp<std::uint64_t>(allowed / kLooks / per_unit, 1, kMostBetweenLooks);
        return false;
    }

    const std::atomic<std::uint32_t>* wanted_;
    std::uint32_t heeded_ = ~std::uint32_t{0};
    PreemptPolicy policy_;
    Clock clock_;
    bool steered_;
    std::uint64_t units_ = 0;
    std::uint64_t next_look_ = kFirstLook;
    std::uint64_t started_ns_ = 0;
    std::uint64_t units_at_start_ = 0;
    // The last ones: of a multicall and its entry, and of what an interrupt called between.
    std::array<Stop, 8> stops_{};
    std::size_t next_stop_ = 0;
};

}  // namespace xenshim
