// A hypercall as plain values: what the caller's registers said, and what is to be put into them.
// Only the transports know which registers; nothing here does.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <variant>

#include "xenshim/abi/width.h"

namespace xenshim::abi {

// What the guest asked for. 32-bit callers' values are already truncated to 32 bits.
struct Request {
    std::uint64_t number = 0;
    std::array<std::uint64_t, 5> args{};
    Width width = Width::k64;
    unsigned cpl = 0;
    bool operator==(const Request&) const = default;
};

// A handler's answer.
struct Done {
    std::int64_t result = 0;
    bool operator==(const Done&) const = default;
};
// The vCPU sleeps until an event is pending for it, one of the polled ports becomes pending, an
// interrupt can be taken, or the deadline passes. The call's result is then 0.
struct Block {
    std::optional<std::uint64_t> deadline_ns;  // system time
    bool operator==(const Block&) const = default;
};
// Stopped before unit `units_done`, counted from where the operation's class counts
// (continuation.h); the rest is to be done by another call. How that is written into registers,
// or into the guest's structure, is the engine's business.
struct Continue {
    std::uint64_t units_done = 0;
    // Linear address of the structure that keeps the progress, where that is not the one in the
    // rule's argument (dm_op, whose structure lies behind a list of buffers). 0: it is.
    std::uint64_t structure = 0;
    // The vCPU sleeps before it goes on: a list of calls came to one that blocks.
    std::optional<Block> sleep{};
    // Which of its operations that structure is for, where the registers do not say (dm_op).
    std::uint32_t structure_op = 0;
    // What is done of a coarser unit in this entry, where the operation counts both (dm_op's
    // modified_memory: extents, and pages of the extent under way).
    std::uint32_t groups_done = 0;
    bool operator==(const Continue&) const = default;
};
using Outcome = std::variant<Done, Continue, Block>;

// What the transport does to the registers.
struct Finish {
    std::int64_t result = 0;
    bool operator==(const Finish&) const = default;
};
// Leaves the instruction pointer at the trapping instruction, with these values in the hypercall
// registers.
struct Reissue {
    std::uint64_t number = 0;
    std::array<std::uint64_t, 5> args{};
    std::optional<Block> sleep{};  // before the guest goes on with them
    bool operator==(const Reissue&) const = default;
};
using Reply = std::variant<Finish, Reissue, Block>;

}  // namespace xenshim::abi
