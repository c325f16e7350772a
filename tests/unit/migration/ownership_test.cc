// The ways that a move goes when all is well or one thing fails, told step by step. That there is
// no bad way among all of them is ownership_model_test's.
#include "migration/ownership.h"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace migration {
namespace {

using A = Action;
using E = Event;
using S = State;

constexpr Attempt kThird{{}, 3};

std::vector<A> actions(const Step& step) {
    std::vector<A> out;
    for (const A action : step.actions) {
        if (action != A::kNone) out.push_back(action);
    }
    return out;
}
template <class What>
std::vector<A> expect_go(Ownership& side, const What& what, S next) {
    const Step step = side.on(what);
    EXPECT_EQ(step.verdict, Verdict::kGo);
    EXPECT_EQ(name_of(side.state()), name_of(next));
    return actions(step);
}
Message message(E kind, std::uint64_t epoch = 3) {
    return {kind, {{}, epoch}};
}

TEST(Ownership, AMove) {
    Ownership source = Ownership::source(kThird);
    Ownership destination = Ownership::destination(kThird);
    using Actions = std::vector<A>;
    EXPECT_EQ(expect_go(source, E::kReady, S::kStopped), (Actions{A::kStopGuest, A::kSendRest}));
    EXPECT_EQ(expect_go(destination, E::kComplete, S::kPrepared), Actions{A::kSendPrepared});
    EXPECT_EQ(expect_go(source, message(E::kPrepared), S::kCommitting), Actions{A::kWriteCommit});
    EXPECT_EQ(expect_go(source, E::kWritten, S::kCommitted), Actions{A::kSendCommit});
    EXPECT_EQ(expect_go(destination, message(E::kCommit), S::kLocking), Actions{A::kTakeLocks});
    EXPECT_EQ(expect_go(destination, E::kLocked, S::kOwning), Actions{A::kWriteOwn});
    EXPECT_EQ(expect_go(destination, E::kWritten, S::kRunning),
              (Actions{A::kRunGuest, A::kSendRunning}));
    EXPECT_EQ(expect_go(source, message(E::kRunning), S::kGone),
              (Actions{A::kDiscardGuest, A::kReleaseLocks, A::kEraseRecord, A::kSendDone}));
    EXPECT_EQ(expect_go(destination, message(E::kDone), S::kSettled), Actions{A::kEraseRecord});
    EXPECT_TRUE(is_settled(source.state()) && is_settled(destination.state()));
}

TEST(Ownership, ALinkThatBreaksAtTheCommitAndComesBack) {
    Ownership source(S::kCommitted, kThird);
    Ownership destination(S::kPrepared, kThird);
    EXPECT_EQ(source.on(E::kLinkLost).verdict, Verdict::kIgnored);
    EXPECT_EQ(destination.on(E::kLinkLost).verdict, Verdict::kIgnored);
    // Both dial, both say where they are: either is enough.
    EXPECT_EQ(expect_go(source, E::kLinkUp, S::kCommitted), std::vector{A::kSendCommit});
    EXPECT_EQ(expect_go(destination, E::kLinkUp, S::kPrepared), std::vector{A::kSendPrepared});
    EXPECT_EQ(expect_go(source, message(E::kPrepared), S::kCommitted), std::vector{A::kSendCommit});
}

TEST(Ownership, CtrlC) {
    for (const S before : {S::kMoving, S::kStopped}) {
        Ownership source(before, kThird);
        EXPECT_EQ(expect_go(source, E::kCancel, S::kKept),
                  (std::vector{A::kRunGuest, A::kSendAbort}));
    }
    // After COMMIT only the destination can give it back.
    Ownership source(S::kCommitted, kThird);
    EXPECT_EQ(expect_go(source, E::kCancel, S::kCancelling), std::vector{A::kSendAbort});
    EXPECT_EQ(source.on(E::kCancel).verdict, Verdict::kIgnored);
    EXPECT_EQ(expect_go(source, message(E::kAborted), S::kKept),
              (std::vector{A::kEraseRecord, A::kRunGuest}));
}

TEST(Ownership, NewProcessesGoByTheirRecords) {
    const auto after = [](Side side, std::optional<RecordState> record) {
        Ownership fresh = Ownership::restarted(side, kThird);
        EXPECT_EQ(fresh.on(message(side == Side::kSource ? E::kPrepared : E::kCommit)).verdict,
                  Verdict::kLater);
        EXPECT_TRUE(actions(fresh.on(event_of(record))).empty());
        return fresh.state();
    };
    EXPECT_EQ(after(Side::kSource, std::nullopt), S::kNothing);
    EXPECT_EQ(after(Side::kSource, RecordState::kCommit), S::kHandingOver);
    EXPECT_EQ(after(Side::kDestination, std::nullopt), S::kEmpty);
    EXPECT_EQ(after(Side::kDestination, RecordState::kOwn), S::kLost);
    EXPECT_EQ(after(Side::kDestination, RecordState::kAborted), S::kRefused);
    for (const Side side : {Side::kSource, Side::kDestination}) {
        Ownership unsure = Ownership::restarted(side, kThird);
        unsure.on(E::kBadRecord);
        for (std::size_t e = 0; e < kEvents; ++e) {
            EXPECT_NE(ownership_table().at(unsure.state(), static_cast<E>(e)).verdict,
                      Verdict::kGo);
        }
    }
}

TEST(Ownership, MessagesOfAnotherAttemptOrGuest) {
    Ownership prepared(S::kPrepared, kThird);
    EXPECT_EQ(prepared.on({E::kCommit, {{std::byte{1}}, 3}}).verdict, Verdict::kIllegal);
    EXPECT_EQ(prepared.on(message(E::kDone, 2)).verdict, Verdict::kIgnored);
    const Step older = prepared.on(message(E::kCommit, 2));
    EXPECT_EQ(actions(older), std::vector{A::kSendLost});
    EXPECT_EQ(older.attempt.epoch, 2u);  // it is answered as asked
    EXPECT_EQ(prepared.state(), S::kPrepared);
    EXPECT_EQ(prepared.attempt().epoch, 3u);
    const Step newer = prepared.on(message(E::kCommit, 4));
    EXPECT_EQ(actions(newer), (std::vector{A::kDiscardGuest, A::kTakeEpoch, A::kWriteAborted}));
    EXPECT_EQ(newer.attempt.epoch, 4u);
    EXPECT_EQ(prepared.attempt().epoch, 4u);

    Ownership source(S::kStopped, kThird);
    const Step asked = source.on(message(E::kPrepared, 2));
    EXPECT_EQ(actions(asked), std::vector{A::kSendAbort});
    EXPECT_EQ(asked.attempt.epoch, 2u);
    EXPECT_EQ(source.on(message(E::kAborted, 2)).verdict, Verdict::kIgnored);
    EXPECT_EQ(source.state(), S::kStopped);
}

TEST(Ownership, NobodySaysWhatIsNotHisToSay) {
    // A local event is no message, nor a message a local event.
    Ownership prepared(S::kPrepared, kThird);
    EXPECT_EQ(prepared.on(E::kCommit).verdict, Verdict::kIllegal);
    EXPECT_EQ(prepared.on(message(E::kLocked)).verdict, Verdict::kIllegal);
    EXPECT_EQ(prepared.on(message(static_cast<E>(200))).verdict, Verdict::kIllegal);
    EXPECT_EQ(prepared.on(message(E::kRunning)).verdict, Verdict::kIllegal);
    EXPECT_EQ(prepared.state(), S::kPrepared);
}

TEST(Ownership, WhatIsIllegalOrIgnoredChangesNothing) {
    const Table& table = ownership_table();
    std::size_t going = 0;
    for (std::size_t s = 0; s < kStates; ++s) {
        for (std::size_t e = 0; e < kEvents; ++e) {
            const Answer& answer = table.answers[s][e];
            if (answer.verdict == Verdict::kGo) {
                ++going;
                continue;
            }
            EXPECT_EQ(answer.next, static_cast<S>(s));
            EXPECT_EQ(answer.actions, (std::array<A, 5>{}));
        }
    }
    EXPECT_GT(going, 90u);
}

// Whatever else happens: a link that is cut makes no guest run but one that never left.
TEST(Ownership, ALostLinkIsSafeInEveryState) {
    for (std::size_t s = 0; s < kStates; ++s) {
        const S state = static_cast<S>(s);
        const Answer& answer = ownership_table().at(state, E::kLinkLost);
        EXPECT_NE(answer.verdict, Verdict::kIllegal) << name_of(state);
        const bool runs = std::find(answer.actions.begin(), answer.actions.end(), A::kRunGuest) !=
                          answer.actions.end();
        EXPECT_EQ(runs, state == S::kMoving || state == S::kStopped) << name_of(state);
    }
}

TEST(Ownership, NamesAreOnesOwn) {
    std::set<std::string_view> states, events;
    for (std::size_t s = 0; s < kStates; ++s) {
        states.insert(name_of(static_cast<S>(s)));
    }
    for (std::size_t e = 0; e < kEvents; ++e) {
        events.insert(name_of(static_cast<E>(e)));
    }
    EXPECT_EQ(states.size(), kStates);
    EXPECT_EQ(events.size(), kEvents);
}

}  // namespace
}  // namespace migration
