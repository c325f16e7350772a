// Carries bytes between two connections, both ways, without looking at them: by splice(2), which
// copies nothing where the kernel can pass pages on.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "vmm/base/fd.h"
#include "vmm/base/result.h"

namespace vmm::cli {

// One connection: a socket, or a pair of pipes.
struct RelayEnd {
    Fd in;
    Fd out;  // none: `in` is a socket, for both
};

class Relay {
  public:
    static Result<Relay> between(RelayEnd a, RelayEnd b);

    // What `b` gets first, as if `a` had said it: no more than a pipe takes, 64 KiB.
    void begin_with(std::span<const std::byte> bytes);

    // `a`, a socket, hears the end, as if `b` had nothing more to say; it may still speak itself.
    void end_to_a();

    std::uint64_t from_a() const { return directions_[0].carried; }
    // Carries for as long as both are there; ends when `a` has closed and all that it said has been
    // passed on, when `b` is gone, or when one of `wake` is readable; every `tick_ms` it calls
    // `tick` (which may be empty).
    enum class Why { kAClosed, kBGone, kWoken };
    Why carry(const std::vector<int>& wake, int tick_ms, const std::function<void()>& tick);

  private:
    Relay() = default;
    struct Direction {
        int from = -1, to = -1;
        Fd pipe_in, pipe_out;   // what has been taken and not been passed on
        std::size_t taken = 0;  // so many bytes
        bool over = false;      // the sender has said all
        bool gone = false;      // the receiver takes no more
        std::uint64_t carried = 0;
    };
    static void move(Direction& direction, bool can_read, bool can_write);

    RelayEnd a_, b_;
    Fd nothing_;  // where what nobody hears goes
    Direction directions_[2];
};

}  // namespace vmm::cli
