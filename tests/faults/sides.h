// The two processes of a move, as the program's own are, but for KVM: what makes a guest of the
// stream, and runs it, is tests/faults/guest.h's. Each is told by its control socket which link it
// has, and what fails in it by a plan.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "migration/ownership.h"
#include "tests/faults/guest.h"
#include "vmm/base/fd.h"

namespace faults {

// How long a side waits for the other's next byte: the program's minute would take too long.
inline constexpr std::chrono::milliseconds kPatience{250};

// What goes wrong within one process, once.
struct Plan {
    // Of the calls about its records, counted from 0. `before`: it is not done. Then it is killed,
    // or hears of the error.
    struct Call {
        std::uint32_t which = 0;
        bool before = true;
        int code = 0;  // 0: kill -9
    };
    std::optional<Call> call;
    // The destination's memory runs out at this allocation, or there is none for the guest.
    std::uint64_t allocation = 0;
    bool no_room = false;
    // The destination's CPU lacks what the guest was told of.
    bool lacks_feature = false;
    // The source cannot read its guest after so many bytes.
    std::optional<std::uint64_t> unreadable;
    // What the source says instead of what is so.
    enum class Lie { kNone, kProfile, kRecord, kVersion, kEpoch };
    Lie lie = Lie::kNone;
};

// What a program might get wrong: each of these must be noticed.
enum class Mistake {
    kNone,
    kGoesOnInDoubt,  // the source, when it has not heard how it ended
    kRunsUnowned,    // the destination, when all of the guest is there
    kDoesNotStop,    // the source, while it sends the guest
    kCount,
};

struct Setup {
    Page* page = nullptr;
    Mistake mistake = Mistake::kNone;
    std::string folder;  // of the side's records
    migration::VmId vm{};
    Plan plan{};
    bool again = false;  // another process was there before
    int control = -1;
    int signals = -1;  // readable: it is told to end
};

// To a process: a link (with its descriptor), or one with Ctrl-C.
enum class Word : char { kLink = 'L', kCancel = 'C' };
// From the source.
enum class Outcome : char {
    kGone = 'g',
    kKept = 'k',
    kUntold = 'u',  // likewise, but the destination may wait for it
    kOpen = 'o',
    kNothing = 'n',    // a new process: there is nothing to do
    kHandsOver = 'h',  // a new process: there is
};

[[noreturn]] void be_source(const Setup& setup);
[[noreturn]] void be_destination(const Setup& setup);

bool send_word(int control, Word word, int link);

}  // namespace faults
