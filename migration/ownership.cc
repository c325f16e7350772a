#include "migration/ownership.h"

#include <initializer_list>

namespace migration {

namespace {

using A = Action;
using E = Event;
using S = State;

// Writes the table down, and refuses to compile when a pair is answered twice.
struct Draft {
    Table table;

    constexpr void set(S state, E event, const Answer& answer) {
        Answer& place = table.at(state, event);
        if (place.verdict != Verdict::kMissing) throw "answered twice";
        place = answer;
    }
    constexpr void go(S state, std::initializer_list<E> events, S next,
                      std::initializer_list<A> actions = {}) {
        Answer answer{Verdict::kGo, next, {}};
        std::size_t i = 0;
        for (const A action : actions) {
            answer.actions.at(i++) = action;
        }
        for (const E event : events) {
            set(state, event, answer);
        }
    }
    constexpr void ignore(S state, std::initializer_list<E> events) {
        for (const E event : events) {
            set(state, event, {Verdict::kIgnored, state, {}});
        }
    }
    constexpr void later(S state, std::initializer_list<E> events) {
        for (const E event : events) {
            set(state, event, {Verdict::kLater, state, {}});
        }
    }
    constexpr void illegal(S state, std::initializer_list<E> events) {
        for (const E event : events) {
            set(state, event, {Verdict::kIllegal, state, {}});
        }
    }
};

constexpr std::initializer_list<E> kOutcomes{E::kWritten, E::kNotWritten, E::kMaybeWritten};
constexpr std::initializer_list<E> kRecords{E::kNoRecord, E::kCommitRecord, E::kOwnRecord,
                                            E::kAbortedRecord, E::kBadRecord};
constexpr std::initializer_list<E> kFromDestination{E::kPrepared, E::kRunning, E::kAborted,
                                                    E::kLost};
constexpr std::initializer_list<E> kFromSource{E::kCommit, E::kAbort, E::kDone};

constexpr void source(Draft& t) {
    // What is never the source's business.
    for (std::size_t i = 0; i < kStates; ++i) {
        const S s = static_cast<S>(i);
        if (side_of(s) != Side::kSource) continue;
        t.illegal(s, kFromSource);
        t.illegal(s, {E::kComplete, E::kLocked, E::kSuperseded});
        if (s != S::kSourceRestart) t.illegal(s, kRecords);
        if (s != S::kCommitting) t.illegal(s, kOutcomes);
        if (s != S::kMoving) t.illegal(s, {E::kReady});
    }

    // Whoever asks in an attempt that is over hears that it is, in every state in which we know.
    // An attempt begins only when the one before ended with the guest here.
    for (const S s : {S::kMoving, S::kStopped, S::kCommitted, S::kCancelling, S::kKept, S::kGone,
                      S::kHandingOver, S::kNothing}) {
        t.go(s, {E::kOlderAsks}, s, {A::kSendAbort});
    }
    // Only a new process can have an older attempt's record: no COMMIT of the newer is durable.
    for (const S s : {S::kHandingOver, S::kNothing}) {
        t.go(s, {E::kNewerAsks}, s, {A::kSendAbort});
    }
    t.illegal(S::kMoving, {E::kNewerAsks});
    t.illegal(S::kStopped, {E::kNewerAsks});
    t.illegal(S::kCommitted, {E::kNewerAsks});
    t.illegal(S::kCancelling, {E::kNewerAsks});
    t.illegal(S::kKept, {E::kNewerAsks});
    t.illegal(S::kGone, {E::kNewerAsks});

    t.go(S::kMoving, {E::kReady}, S::kStopped, {A::kStopGuest, A::kSendRest});
    t.go(S::kMoving, {E::kAborted}, S::kKept, {A::kRunGuest});
    t.go(S::kMoving, {E::kLinkLost, E::kFailed, E::kCancel}, S::kKept,
         {A::kRunGuest, A::kSendAbort});
    t.illegal(S::kMoving, {E::kPrepared, E::kRunning, E::kLost, E::kLinkUp});

    t.go(S::kStopped, {E::kPrepared}, S::kCommitting, {A::kWriteCommit});
    t.go(S::kStopped, {E::kAborted}, S::kKept, {A::kRunGuest});
    t.go(S::kStopped, {E::kLinkLost, E::kFailed, E::kCancel}, S::kKept,
         {A::kRunGuest, A::kSendAbort});
    t.illegal(S::kStopped, {E::kRunning, E::kLost, E::kLinkUp});

    t.go(S::kCommitting, {E::kWritten}, S::kCommitted, {A::kSendCommit});
    t.go(S::kCommitting, {E::kNotWritten}, S::kKept, {A::kRunGuest, A::kSendAbort});
    t.go(S::kCommitting, {E::kMaybeWritten}, S::kCancelling, {A::kSendAbort});
    t.later(S::kCommitting, kFromDestination);
    t.later(S::kCommitting,
            {E::kOlderAsks, E::kNewerAsks, E::kFailed, E::kCancel, E::kLinkLost, E::kLinkUp});

    for (const S s : {S::kCommitted, S::kCancelling}) {
        const A ask = s == S::kCommitted ? A::kSendCommit : A::kSendAbort;
        t.go(s, {E::kPrepared, E::kLinkUp}, s, {ask});
        // The only ways out: the destination has decided. Our record goes before DONE lets its own
        // go, so that a new process here has no question that nobody can answer.
        t.go(s, {E::kRunning, E::kLost}, S::kGone,
             {A::kDiscardGuest, A::kReleaseLocks, A::kEraseRecord, A::kSendDone});
        t.go(s, {E::kAborted}, S::kKept, {A::kEraseRecord, A::kRunGuest});
        t.ignore(s, {E::kLinkLost, E::kFailed});
    }
    t.go(S::kCommitted, {E::kCancel}, S::kCancelling, {A::kSendAbort});
    t.ignore(S::kCancelling, {E::kCancel});

    t.go(S::kKept, {E::kPrepared, E::kLinkUp}, S::kKept, {A::kSendAbort});
    // LOST: an OWN that came to the disk although writing it failed, found by a new process. What
    // its predecessor said of it, ABORTED, brought us here.
    t.ignore(S::kKept, {E::kAborted, E::kLost, E::kLinkLost, E::kFailed, E::kCancel});
    t.illegal(S::kKept, {E::kRunning});

    t.go(S::kGone, {E::kRunning, E::kLost}, S::kGone, {A::kSendDone});
    // ABORTED: of a process that came after the owner's, when DONE had let its record go.
    t.ignore(S::kGone,
             {E::kPrepared, E::kAborted, E::kLinkLost, E::kLinkUp, E::kFailed, E::kCancel});

    t.go(S::kSourceRestart, {E::kNoRecord}, S::kNothing);
    t.go(S::kSourceRestart, {E::kCommitRecord}, S::kHandingOver);
    t.go(S::kSourceRestart, {E::kBadRecord}, S::kSourceUnsure);
    t.illegal(S::kSourceRestart, {E::kOwnRecord, E::kAbortedRecord});
    t.later(S::kSourceRestart, kFromDestination);
    t.later(S::kSourceRestart,
            {E::kOlderAsks, E::kNewerAsks, E::kFailed, E::kCancel, E::kLinkLost, E::kLinkUp});

    t.go(S::kHandingOver, {E::kPrepared, E::kLinkUp}, S::kHandingOver, {A::kSendCommit});
    t.go(S::kHandingOver, {E::kRunning, E::kLost}, S::kNothing, {A::kEraseRecord, A::kSendDone});
    t.go(S::kHandingOver, {E::kAborted}, S::kNothing, {A::kEraseRecord});
    // There is nothing here to take it back to.
    t.ignore(S::kHandingOver, {E::kLinkLost, E::kFailed, E::kCancel});

    t.go(S::kNothing, {E::kPrepared}, S::kNothing, {A::kSendAbort});
    t.go(S::kNothing, {E::kRunning, E::kLost}, S::kNothing, {A::kSendDone});
    t.ignore(S::kNothing, {E::kAborted, E::kLinkLost, E::kLinkUp, E::kFailed, E::kCancel});

    t.ignore(S::kSourceUnsure, kFromDestination);
    t.ignore(S::kSourceUnsure,
             {E::kOlderAsks, E::kNewerAsks, E::kLinkLost, E::kLinkUp, E::kFailed, E::kCancel});
}

constexpr void destination(Draft& t) {
    for (std::size_t i = 0; i < kStates; ++i) {
        const S s = static_cast<S>(i);
        if (side_of(s) != Side::kDestination) continue;
        t.illegal(s, kFromDestination);
        t.illegal(s, {E::kReady});
        if (s != S::kDestinationRestart) t.illegal(s, kRecords);
        if (s != S::kOwning && s != S::kRefusing) t.illegal(s, kOutcomes);
        if (s != S::kReceiving) t.illegal(s, {E::kComplete});
        if (s != S::kLocking) t.illegal(s, {E::kLocked});
    }

    // A question about an attempt before ours: the guest has lived on since, whoever had it then.
    for (const S s : {S::kReceiving, S::kPrepared, S::kRunning, S::kSettled, S::kRefused, S::kEmpty,
                      S::kLost}) {
        t.go(s, {E::kOlderAsks}, s, {A::kSendLost});
    }
    // About a later one, of which we have no OWN, and shall not: whoever asks may have it back.
    for (const S s : {S::kRefused, S::kEmpty, S::kLost}) {
        t.go(s, {E::kNewerAsks}, S::kRefusing, {A::kTakeEpoch, A::kWriteAborted});
        // A new attempt begins with a new Ownership.
        t.ignore(s, {E::kSuperseded});
    }
    for (const S s : {S::kReceiving, S::kPrepared}) {
        t.go(s, {E::kNewerAsks}, S::kRefusing, {A::kDiscardGuest, A::kTakeEpoch, A::kWriteAborted});
        t.go(s, {E::kSuperseded}, S::kEmpty, {A::kDiscardGuest});
    }

    t.go(S::kReceiving, {E::kComplete}, S::kPrepared, {A::kSendPrepared});
    // COMMIT: to a process before this one, which had all of it.
    t.go(S::kReceiving, {E::kCommit, E::kAbort, E::kFailed, E::kCancel}, S::kRefusing,
         {A::kDiscardGuest, A::kWriteAborted});
    t.go(S::kReceiving, {E::kLinkLost}, S::kEmpty, {A::kDiscardGuest});
    t.illegal(S::kReceiving, {E::kDone, E::kLinkUp});

    t.go(S::kPrepared, {E::kCommit}, S::kLocking, {A::kTakeLocks});
    t.go(S::kPrepared, {E::kAbort, E::kFailed, E::kCancel}, S::kRefusing,
         {A::kDiscardGuest, A::kWriteAborted});
    t.go(S::kPrepared, {E::kLinkUp}, S::kPrepared, {A::kSendPrepared});
    // The source may have committed: only it can say.
    t.ignore(S::kPrepared, {E::kLinkLost});
    t.illegal(S::kPrepared, {E::kDone});

    t.go(S::kLocking, {E::kLocked}, S::kOwning, {A::kWriteOwn});
    t.go(S::kLocking, {E::kFailed}, S::kRefusing, {A::kDiscardGuest, A::kWriteAborted});
    t.later(S::kLocking, kFromSource);
    t.later(S::kLocking,
            {E::kOlderAsks, E::kNewerAsks, E::kCancel, E::kSuperseded, E::kLinkLost, E::kLinkUp});

    t.go(S::kOwning, {E::kWritten}, S::kRunning, {A::kRunGuest, A::kSendRunning});
    t.go(S::kOwning, {E::kNotWritten, E::kMaybeWritten}, S::kRefusing,
         {A::kReleaseLocks, A::kDiscardGuest, A::kWriteAborted});
    t.later(S::kOwning, kFromSource);
    t.later(S::kOwning, {E::kOlderAsks, E::kNewerAsks, E::kFailed, E::kCancel, E::kSuperseded,
                         E::kLinkLost, E::kLinkUp});

    t.go(S::kRunning, {E::kCommit, E::kAbort, E::kLinkUp}, S::kRunning, {A::kSendRunning});
    t.go(S::kRunning, {E::kDone}, S::kSettled, {A::kEraseRecord});
    // To end the guest is another command.
    t.ignore(S::kRunning, {E::kLinkLost, E::kFailed, E::kCancel});
    t.illegal(S::kRunning, {E::kNewerAsks, E::kSuperseded});

    t.go(S::kSettled, {E::kCommit, E::kAbort}, S::kSettled, {A::kSendRunning});
    t.ignore(S::kSettled, {E::kDone, E::kLinkLost, E::kLinkUp, E::kFailed, E::kCancel});
    t.illegal(S::kSettled, {E::kNewerAsks, E::kSuperseded});

    // The guest is discarded, so that it is true whatever became of the record; that is there for
    // a process after this one, and over an OWN that may have come to the disk.
    t.go(S::kRefusing, kOutcomes, S::kRefused, {A::kSendAborted});
    t.later(S::kRefusing, kFromSource);
    t.later(S::kRefusing, {E::kOlderAsks, E::kNewerAsks, E::kFailed, E::kCancel, E::kSuperseded,
                           E::kLinkLost, E::kLinkUp});

    t.go(S::kRefused, {E::kCommit, E::kAbort, E::kLinkUp}, S::kRefused, {A::kSendAborted});
    t.ignore(S::kRefused, {E::kDone, E::kLinkLost, E::kFailed, E::kCancel});

    t.go(S::kEmpty, {E::kCommit, E::kAbort}, S::kRefusing, {A::kWriteAborted});
    t.ignore(S::kEmpty, {E::kDone, E::kLinkLost, E::kLinkUp, E::kFailed, E::kCancel});

    t.go(S::kLost, {E::kCommit, E::kAbort, E::kLinkUp}, S::kLost, {A::kSendLost});
    t.go(S::kLost, {E::kDone}, S::kLost, {A::kEraseRecord});
    t.ignore(S::kLost, {E::kLinkLost, E::kFailed, E::kCancel});

    t.go(S::kDestinationRestart, {E::kNoRecord}, S::kEmpty);
    t.go(S::kDestinationRestart, {E::kOwnRecord}, S::kLost);
    t.go(S::kDestinationRestart, {E::kAbortedRecord}, S::kRefused);
    t.go(S::kDestinationRestart, {E::kBadRecord}, S::kDestinationUnsure);
    t.illegal(S::kDestinationRestart, {E::kCommitRecord});
    t.later(S::kDestinationRestart, kFromSource);
    t.later(S::kDestinationRestart, {E::kOlderAsks, E::kNewerAsks, E::kFailed, E::kCancel,
                                     E::kSuperseded, E::kLinkLost, E::kLinkUp});

    t.ignore(S::kDestinationUnsure, kFromSource);
    t.ignore(S::kDestinationUnsure, {E::kOlderAsks, E::kNewerAsks, E::kFailed, E::kCancel,
                                     E::kSuperseded, E::kLinkLost, E::kLinkUp});
}

constexpr Table make_table() {
    Draft draft;
    source(draft);
    destination(draft);
    return draft.table;
}
constexpr Table kTable = make_table();

template <class Check>
constexpr bool for_every_pair(Check check) {
    for (std::size_t s = 0; s < kStates; ++s) {
        for (std::size_t e = 0; e < kEvents; ++e) {
            if (!check(static_cast<S>(s), static_cast<E>(e), kTable.answers[s][e])) return false;
        }
    }
    return true;
}
constexpr bool does(const Answer& answer, A action) {
    for (const A a : answer.actions) {
        if (a == action) return true;
    }
    return false;
}

static_assert(for_every_pair([](S, E, const Answer& a) { return a.verdict != Verdict::kMissing; }),
              "a state has no answer to an event");
static_assert(for_every_pair([](S s, E, const Answer& a) { return side_of(a.next) == side_of(s); }),
              "a side becomes the other");
static_assert(for_every_pair([](S, E e, const Answer& a) {
                  return !does(a, A::kWriteOwn) || e == E::kLocked;
              }),
              "OWN is written for another reason than COMMIT and its locks");
static_assert(for_every_pair([](S s, E e, const Answer& a) {
                  if (side_of(s) == Side::kSource || !does(a, A::kRunGuest)) return true;
                  return s == S::kOwning && e == E::kWritten;
              }),
              "the destination runs the guest without a durable OWN");
static_assert(for_every_pair([](S s, E e, const Answer& a) {
                  const bool committed = s == S::kCommitted || s == S::kCancelling;
                  return !committed || !does(a, A::kRunGuest) || e == E::kAborted;
              }),
              "the source goes on after COMMIT without the destination's ABORTED");

static_assert(for_every_pair([](S s, E, const Answer& a) {
                  return !does(a, A::kSendAborted) || s == S::kRefusing || s == S::kRefused;
              }),
              "ABORTED is said before it was written");

struct StateFacts {
    std::string_view name;
    Guest guest;
    bool settled;
};
constexpr std::array<StateFacts, kStates> kStateFacts{{
    {"source-restart", Guest::kNone, false},
    {"moving", Guest::kMayRun, false},
    {"stopped", Guest::kStands, false},
    {"committing", Guest::kStands, false},
    {"committed", Guest::kStands, false},
    {"cancelling", Guest::kStands, false},
    {"kept", Guest::kRuns, true},
    {"gone", Guest::kNone, true},
    {"handing-over", Guest::kNone, false},
    {"nothing", Guest::kNone, true},
    {"source-unsure", Guest::kNone, true},
    {"destination-restart", Guest::kNone, false},
    {"receiving", Guest::kNone, false},
    {"prepared", Guest::kStands, false},
    {"locking", Guest::kStands, false},
    {"owning", Guest::kStands, false},
    {"running", Guest::kRuns, true},
    {"settled", Guest::kRuns, true},
    {"refusing", Guest::kNone, false},
    {"refused", Guest::kNone, true},
    {"empty", Guest::kNone, true},
    {"lost", Guest::kNone, true},
    {"destination-unsure", Guest::kNone, true},
}};
constexpr std::array<std::string_view, kEvents> kEventNames{
    "PREPARED",  "COMMIT",        "ABORT",      "RUNNING",        "ABORTED",
    "LOST",      "DONE",          "older asks", "newer asks",     "ready",
    "complete",  "locked",        "failed",     "cancel",         "superseded",
    "link lost", "link up",       "written",    "not written",    "maybe written",
    "no record", "COMMIT record", "OWN record", "ABORTED record", "bad record"};
constexpr std::array<std::string_view, static_cast<std::size_t>(Action::kCount)> kActionNames{
    "-",
    "stop guest",
    "send rest",
    "run guest",
    "discard guest",
    "take locks",
    "release locks",
    "write COMMIT",
    "write OWN",
    "write ABORTED",
    "erase record",
    "take epoch",
    "PREPARED",
    "COMMIT",
    "ABORT",
    "RUNNING",
    "ABORTED",
    "LOST",
    "DONE"};
static_assert(!kActionNames.back().empty() && !kEventNames.back().empty());

bool asks(Side side, Event message) {
    if (side == Side::kSource) return message == Event::kPrepared;
    return message == Event::kCommit || message == Event::kAbort;
}

}  // namespace

const Table& ownership_table() {
    return kTable;
}
Guest guest_in(State state) {
    return kStateFacts[static_cast<std::size_t>(state)].guest;
}
bool is_settled(State state) {
    return kStateFacts[static_cast<std::size_t>(state)].settled;
}
std::string_view name_of(State state) {
    return kStateFacts[static_cast<std::size_t>(state)].name;
}
std::string_view name_of(Event event) {
    return kEventNames[static_cast<std::size_t>(event)];
}
std::string_view name_of(Action action) {
    return kActionNames[static_cast<std::size_t>(action)];
}

std::optional<Event> message_of(Action action) {
    switch (action) {
        case Action::kSendPrepared: return Event::kPrepared;
        case Action::kSendCommit: return Event::kCommit;
        case Action::kSendAbort: return Event::kAbort;
        case Action::kSendRunning: return Event::kRunning;
        case Action::kSendAborted: return Event::kAborted;
        case Action::kSendLost: return Event::kLost;
        case Action::kSendDone: return Event::kDone;
        default: return std::nullopt;
    }
}

std::optional<RecordState> record_of(Action action) {
    switch (action) {
        case Action::kWriteCommit: return RecordState::kCommit;
        case Action::kWriteOwn: return RecordState::kOwn;
        case Action::kWriteAborted: return RecordState::kAborted;
        default: return std::nullopt;
    }
}

Event event_of(std::optional<RecordState> record) {
    if (!record) return Event::kNoRecord;
    switch (*record) {
        case RecordState::kCommit: return Event::kCommitRecord;
        case RecordState::kOwn: return Event::kOwnRecord;
        case RecordState::kAborted: return Event::kAbortedRecord;
    }
    return Event::kBadRecord;
}

Step Ownership::on(Event event) {
    // A message has an attempt, which decides what it means.
    if (event <= Event::kNewerAsks) return {Verdict::kIllegal, {}, attempt_};
    return take(event, attempt_.epoch);
}

Step Ownership::on(const Message& message) {
    if (message.kind > Event::kDone || message.attempt.vm != attempt_.vm) {
        return {Verdict::kIllegal, {}, attempt_};
    }
    const std::uint64_t epoch = message.attempt.epoch;
    if (epoch == attempt_.epoch) return take(message.kind, epoch);
    // An answer to a question that we no longer have, or do not remember.
    if (!asks(side_of(state_), message.kind)) return {Verdict::kIgnored, {}, attempt_};
    return take(epoch < attempt_.epoch ? Event::kOlderAsks : Event::kNewerAsks, epoch);
}

Step Ownership::take(Event event, std::uint64_t epoch) {
    const Answer& answer = table_->at(state_, event);
    Step step{answer.verdict, answer.actions, {attempt_.vm, epoch}};
    if (answer.verdict != Verdict::kGo) return step;
    state_ = answer.next;
    for (const Action action : answer.actions) {
        if (action == Action::kTakeEpoch) attempt_.epoch = epoch;
    }
    return step;
}

}  // namespace migration
