// Who owns a guest that is being moved: the protocol, without I/O, threads or a clock.
//
// Promised: at most one side ever runs the guest, and none goes on from a state that the other has
// left behind; with both processes alive and the link back, exactly one of them ends up running it,
// unless the process that owned it was killed. docs/ownership.md has the table and what is not
// promised; tests/unit/migration/ownership_model_test.cc searches all states of both sides.
//
// Everything stands in one table: for each state and event what to do and which state is next. The
// class Ownership steps through it; whoever drives it does the actions, in their order, and tells
// of every outcome. The rules that the table keeps:
//   - The source goes on by itself only while no COMMIT of its own can be on its disk.
//   - The destination runs the guest only after its OWN is on its disk, which it writes only after
//     it was told COMMIT.
//   - After COMMIT the destination alone decides, once: OWN or ABORTED. The source asks until it
//     has heard which.
// A message may come late, twice, out of order or never; none means anything else the second time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace migration {

using VmId = std::array<std::byte, 16>;

// One attempt to move one guest. The epoch grows with every attempt and travels with the guest, so
// that what is left of earlier attempts is known by its number. A copy of a guest that is to live
// beside it (a file restored twice) has an id of its own.
struct Attempt {
    VmId vm{};
    std::uint64_t epoch = 0;
    bool operator==(const Attempt&) const = default;
};

enum class Side : std::uint8_t { kSource, kDestination };

enum class State : std::uint8_t {
    // The source's.
    kSourceRestart,  // a new process that has not looked at its record
    kMoving,         // the guest is here, and may run; its memory is being copied
    kStopped,        // it stands still, all of it is sent; waits for PREPARED
    kCommitting,     // COMMIT is being written
    kCommitted,      // COMMIT is durable and told; the guest is kept, and stands still
    kCancelling,     // COMMIT may be durable; it asks for the guest back
    kKept,           // the attempt is over, the guest runs here
    kGone,           // the attempt is over, the guest is the destination's
    kHandingOver,    // a new process that found COMMIT: no guest, but its word to pass on
    kNothing,        // a new process that found no COMMIT, or has passed it on
    kSourceUnsure,   // a new process that cannot read its record: it says nothing
    // The destination's.
    kDestinationRestart,  // a new process that has not looked at its record
    kReceiving,           // not all of the guest is here
    kPrepared,  // all of it is, checked and loaded: only locks and the record can still fail
    kLocking,   // told COMMIT; takes the locks of its disks
    kOwning,    // OWN is being written
    kRunning,   // the guest runs here
    kSettled,   // and the source knows
    kRefusing,  // ABORTED is being written
    kRefused,   // it will never run this guest in this attempt, and says so
    kEmpty,     // nothing is here, and no record: so it never owned
    kLost,      // a new process that found OWN: the guest ran here and died with its process
    kDestinationUnsure,  // a new process that cannot read its record: it says nothing
    kCount,
};
constexpr std::size_t kStates = static_cast<std::size_t>(State::kCount);

enum class Event : std::uint8_t {
    // Messages of this attempt.
    kPrepared,  // destination: I can run it
    kCommit,    // source: it is yours
    kAbort,     // source: give it up, and tell me
    kRunning,   // destination: it is mine, durably
    kAborted,   // destination: I shall never own it
    kLost,      // destination: I owned it, it is dead
    kDone,      // source: I know that it is yours
    // Questions of another attempt: PREPARED at the source, COMMIT and ABORT at the destination.
    kOlderAsks,
    kNewerAsks,
    // What happens here.
    kReady,       // source: enough is copied to stop the guest
    kComplete,    // destination: all of it came and was checked
    kLocked,      // destination: the locks are ours
    kFailed,      // copying, loading or locking did
    kCancel,      // the operator's Ctrl-C
    kSuperseded,  // destination: the source has begun a newer attempt
    kLinkLost,
    kLinkUp,  // dialled again
    // How writing a record ended.
    kWritten,
    kNotWritten,    // and it is certain that a power cut brings none
    kMaybeWritten,  // only a new process will know
    // What a new process found.
    kNoRecord,
    kCommitRecord,
    kOwnRecord,
    kAbortedRecord,
    kBadRecord,  // there is something that cannot be read
    kCount,
};
constexpr std::size_t kEvents = static_cast<std::size_t>(Event::kCount);

enum class Action : std::uint8_t {
    kNone,
    kStopGuest,     // and keep it
    kSendRest,      // what changed since it was copied, and all that is not memory
    kRunGuest,      // where it stands, if it does not run
    kDiscardGuest,  // memory and all: nothing of it can run here any more
    kTakeLocks,     // ends with kLocked or kFailed
    kReleaseLocks,
    kWriteCommit,  // each ends with kWritten, kNotWritten or kMaybeWritten
    kWriteOwn,
    kWriteAborted,
    kEraseRecord,  // may fail: what is left says nothing wrong
    kTakeEpoch,    // the asker's: done by Ownership itself
    kSendPrepared,
    kSendCommit,
    kSendAbort,
    kSendRunning,
    kSendAborted,
    kSendLost,
    kSendDone,
    kCount,
};

// What a state says of the guest.
enum class Guest : std::uint8_t { kNone, kStands, kRuns, kMayRun };

enum class Verdict : std::uint8_t {
    kMissing,  // no answer: the table does not compile with one
    kGo,
    kIgnored,
    // A record or a lock is under way: again when that has ended. Who does actions at once and
    // tells of their outcome before anything else never sees it.
    kLater,
    // The peer broke the protocol, or we did: nothing changes, cut the link and report. A link that
    // is lost is safe in every state.
    kIllegal,
};

struct Answer {
    Verdict verdict = Verdict::kMissing;
    State next = State::kCount;
    std::array<Action, 5> actions{};
    bool operator==(const Answer&) const = default;
};

struct Table {
    std::array<std::array<Answer, kEvents>, kStates> answers{};

    constexpr const Answer& at(State state, Event event) const {
        return answers[static_cast<std::size_t>(state)][static_cast<std::size_t>(event)];
    }
    constexpr Answer& at(State state, Event event) {
        return answers[static_cast<std::size_t>(state)][static_cast<std::size_t>(event)];
    }
};
const Table& ownership_table();

constexpr Side side_of(State state) {
    return state < State::kDestinationRestart ? Side::kSource : Side::kDestination;
}
Guest guest_in(State state);
// Nothing more is to come of this attempt unless the peer asks.
bool is_settled(State state);
std::string_view name_of(State state);
std::string_view name_of(Event event);
std::string_view name_of(Action action);

// kPrepared to kDone.
struct Message {
    Event kind = Event::kCount;
    Attempt attempt;
    bool operator==(const Message&) const = default;
};

// What a durable record says (migration/durable.h).
enum class RecordState : std::uint8_t { kCommit = 1, kOwn = 2, kAborted = 3 };

// What to do about one event.
struct Step {
    Verdict verdict = Verdict::kIgnored;
    // Unused ones are kNone.
    std::array<Action, 5> actions{};
    // Of the messages and records among the actions.
    Attempt attempt;
};

// The message that an action sends, if it does.
std::optional<Event> message_of(Action action);
// The record that an action writes, if it does.
std::optional<RecordState> record_of(Action action);

class Ownership {
  public:
    // Of another table only tests know.
    Ownership(State state, const Attempt& attempt, const Table& table = ownership_table())
        : state_(state), attempt_(attempt), table_(&table) {}
    static Ownership source(const Attempt& attempt) { return {State::kMoving, attempt}; }
    static Ownership destination(const Attempt& attempt) { return {State::kReceiving, attempt}; }
    // A new process after another has ended. `attempt`: the record's, or without one the asker's.
    // The record's event (event_of) comes first. Two processes never speak for one side: whoever
    // does holds the lock of its records.
    static Ownership restarted(Side side, const Attempt& attempt) {
        return {side == Side::kSource ? State::kSourceRestart : State::kDestinationRestart,
                attempt};
    }

    State state() const { return state_; }
    const Attempt& attempt() const { return attempt_; }

    // Anything but a message.
    Step on(Event event);
    // Hostile, though from the peer.
    Step on(const Message& message);

  private:
    Step take(Event event, std::uint64_t epoch);

    State state_;
    Attempt attempt_;
    const Table* table_;
};

Event event_of(std::optional<RecordState> record);

}  // namespace migration
