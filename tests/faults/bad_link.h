// A link between two sides that fails where it is told to, and what else happens at that byte.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tests/faults/guest.h"
#include "vmm/base/fd.h"

namespace faults {

enum class Kind {
    kCut,       // both ways end
    kReset,     // likewise, as a TCP connection does that is torn down
    kStall,     // nothing comes through any more, and nothing ends
    kTruncate,  // what comes after it is lost, and then the end comes
    kLose,      // a record or frame is lost
    kFlip,      // of a bit
    kDouble,    // a record or frame comes twice
    kReorder,   // a record or frame comes after the next one
    kCancel,    // Ctrl-C: the link ends, and the next one asks for the guest
    kKillSource,
    kKillDestination,
    kStopSource,  // SIGSTOP, and SIGCONT a while later
    kStopDestination,
    kCount,
};
const char* name_of(Kind kind);

struct Fault {
    Kind kind = Kind::kCut;
    Side from = Side::kSource;  // whose bytes are counted
    std::uint64_t at = 0;       // so many have passed
    std::uint64_t unit = 0;     // of what is lost, doubled or reordered
    std::uint64_t next = 0;     // and of what is behind it
    unsigned bit = 0;
    std::chrono::milliseconds hold{0};  // how long it is stopped
};

// One link, from both its ends' opening to their closing.
class BadLink {
  public:
    // The ends that the sides get are ends()[side].
    static std::optional<BadLink> open(bool tcp);
    vmm::Fd take_end(Side side) { return std::move(theirs_[index(side)]); }

    // What is done at the fault's byte to a process, and later to one that was stopped.
    struct Acts {
        std::function<void(Kind)> begin;
        std::function<void(Kind)> end;
    };
    // Carries until it is over. `wake`: a descriptor that becomes readable when the source has
    // nothing more to say; after a stall that is the end.
    void carry(const std::optional<Fault>& fault, const Acts& acts, int wake);

    bool has_failed() const { return failed_; }
    // What has passed, of each side; kept if that is wanted.
    const std::string& passed(Side side) const { return ways_[index(side)].kept; }

  private:
    struct Way {
        int from = -1, to = -1;
        std::uint64_t read = 0;
        std::string out;   // not yet written
        std::string held;  // of a fault
        std::string kept;
        bool over = false;       // no more is read
        bool ends_with = false;  // the receiver is to see the end when all is written
        bool ended = false;
        bool lost = false;  // what is read goes nowhere
    };
    static std::size_t index(Side side) { return static_cast<std::size_t>(side); }
    void take(Way& way, const char* bytes, std::size_t size);
    void take_at_fault(Way& way, const char* bytes, std::size_t size);
    void fail(Way& way);
    bool write(Way& way);

    vmm::Fd ours_[2], theirs_[2];
    Way ways_[2];
    std::optional<Fault> fault_;
    Acts acts_;
    // Of a process that is stopped: until when.
    std::optional<std::chrono::steady_clock::time_point> stopped_;
    bool failed_ = false;
    bool stalled_ = false;
    bool closing_ = false;
    bool tcp_ = false;
};

}  // namespace faults
