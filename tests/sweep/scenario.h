// The continuable operations, one entry each: how a guest sets one up, what a stop before unit k
// must leave in its registers and its memory, and what the operation does. The formulas are
// written here by hand, from xen-abi.md, and know nothing of xenshim/abi/continuation.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "tests/fakes/test_domain.h"
#include "tests/sweep/era.h"

namespace xenshim::tests {

// Bytes that guest memory must hold, little-endian.
struct Patch {
    std::uint64_t at = 0;
    unsigned bytes = 0;
    std::uint64_t value = 0;
};

// What a guest sees at a stop. What is not said is as it was before the call.
struct Frozen {
    std::array<std::uint64_t, 5> args{};
    std::vector<Patch> memory{};  // of the scratch area, where arguments lie
};

// A call that is about to be made.
struct Prepared {
    std::uint64_t number = 0;
    std::array<std::uint64_t, 5> args{};
    std::uint64_t units = 0;
    std::int64_t result = 0;
    // What stops are possible: before these units (all multiples of it).
    std::uint64_t granularity = 1;
    std::function<Frozen(std::uint64_t)> frozen{};
    // Whether unit i has been done: asked on both sides of a stop.
    std::function<bool(std::uint64_t)> done{};
    // gfns whose state belongs to the answer.
    std::vector<std::uint64_t> gfns{};
    // Where arguments keep the progress of the last stop when all is over, and may differ.
    std::vector<Patch> progress_left{};
    std::uint32_t event_ports = 0;
};

struct Scenario {
    std::string_view name;
    bool (*exists)(const Era& era);
    Prepared (*prepare)(fakes::TestDomain& guest, const Era& era, std::uint64_t units);
    // Changes what the guest is made with.
    void (*options)(fakes::TestDomain::Options& options) = [](auto&) {};
    // Why it has fewer stops than all the others, where the ABI leaves it no more.
    std::string_view few_stops{};
};

std::span<const Scenario> scenarios();

}  // namespace xenshim::tests
