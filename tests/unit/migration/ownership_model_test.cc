// All states of a move, and the proof that the search finds what is wrong: tables with one mistake
// each. Two million states; with XENOLITH_LONG=yes another 28 million, in some minutes and 4 GB.
#include "tests/unit/migration/ownership_model.h"

#include <cstdio>
#include <cstdlib>
#include <ostream>
#include <string_view>

#include <gtest/gtest.h>

namespace ownership_model {
namespace {

void expect_sound(const char* name, const Bounds& bounds, std::size_t at_least) {
    const Report report = Search(migration::ownership_table(), bounds).run();
    EXPECT_EQ(report.broken, "");
    for (const std::string& step : report.path) {
        ADD_FAILURE() << step;
    }
    std::printf("%s: %zu states, %zu transitions, %zu endings\n", name, report.states,
                report.transitions, report.endings);
    // So that a search which goes nowhere is no success.
    EXPECT_GT(report.states, at_least);
    EXPECT_GT(report.endings, at_least / 4);
}
bool is_long() {
    const char* value = std::getenv("XENOLITH_LONG");
    return value != nullptr && std::string_view(value) == "yes";
}

TEST(OwnershipModel, OneAttemptUnderEveryFailure) {
    expect_sound("one attempt", {}, 400'000);
}

TEST(OwnershipModel, TwoAttemptsAndKilledProcesses) {
    expect_sound("two attempts, kills", {.attempts = 2, .losses = false, .disk_failures = false},
                 600'000);
}

TEST(OwnershipModel, TwoAttemptsAndABadLink) {
    if (!is_long()) GTEST_SKIP() << "XENOLITH_LONG is not yes";
    expect_sound("two attempts, losses", {.attempts = 2, .kills = false, .disk_failures = false},
                 900'000);
}

TEST(OwnershipModel, TwoAttemptsUnderEveryFailureButTheDisks) {
    if (!is_long()) GTEST_SKIP() << "XENOLITH_LONG is not yes";
    expect_sound("two attempts", {.attempts = 2, .disk_failures = false}, 10'000'000);
}

Answer go(State next, std::initializer_list<Action> actions = {}) {
    Answer answer{Verdict::kGo, next, {}};
    std::copy(actions.begin(), actions.end(), answer.actions.begin());
    return answer;
}
Answer ignored(State state) {
    return {Verdict::kIgnored, state, {}};
}

constexpr Bounds kOne{.disk_failures = false, .strict = false};
constexpr Bounds kLink{.kills = false, .disk_failures = false, .strict = false};
constexpr Bounds kDisk{.losses = false, .strict = false};
constexpr Bounds kTwo{.attempts = 2, .losses = false, .disk_failures = false, .strict = false};

struct Mistake {
    const char* name;
    Bounds bounds;
    void (*make)(Table&);
    // What is found, from its beginning.
    const char* found;
};
void PrintTo(const Mistake& mistake, std::ostream* out) {
    *out << mistake.name;
}

using A = Action;
using E = Event;
using S = State;
constexpr char kBoth[] = "both sides run";
constexpr char kBehind[] = "the source runs a guest that has run at the destination";
constexpr char kStale[] = "the destination runs a copy of a guest that has gone on";
constexpr char kNever[] = "the guest never comes to run on exactly one side";
constexpr char kWaits[] = "the source waits for the destination without a COMMIT";

const Mistake kMistakes[] = {
    {"SourceGoesOnAfterCommitWhenTheLinkIsLost", kLink,
     [](Table& t) { t.at(S::kCommitted, E::kLinkLost) = go(S::kKept, {A::kRunGuest}); }, kBoth},
    {"SourceGoesOnAfterCommitWithoutAnAnswer", kLink,
     [](Table& t) {
         t.at(S::kCommitted, E::kCancel) = go(S::kKept, {A::kRunGuest, A::kSendAbort});
     },
     kBoth},
    {"SourceGoesOnThoughItsCommitMayBeThere", kDisk,
     [](Table& t) {
         t.at(S::kCommitting, E::kMaybeWritten) = go(S::kKept, {A::kRunGuest, A::kSendAbort});
     },
     kStale},
    {"SourceGoesOnAfterADeadOwner", kOne,
     [](Table& t) { t.at(S::kCommitted, E::kLost) = go(S::kKept, {A::kRunGuest}); }, kBehind},
    {"SourceTellsCommitUnwritten", kOne,
     [](Table& t) { t.at(S::kStopped, E::kPrepared) = go(S::kCommitted, {A::kSendCommit}); },
     kWaits},
    {"SourceDiscardsTheGuestAtCommit", kOne,
     [](Table& t) {
         t.at(S::kCommitting, E::kWritten) = go(S::kCommitted, {A::kSendCommit, A::kDiscardGuest});
         t.at(S::kCommitted, E::kAborted) = go(S::kNothing, {A::kEraseRecord});
     },
     kNever},
    {"SourceWaitsBeforeCommitForALinkThatIsLost", kOne,
     [](Table& t) { t.at(S::kStopped, E::kLinkLost) = ignored(S::kStopped); }, kWaits},
    {"SourceForgetsItsCommitWithItsProcess", kOne,
     [](Table& t) { t.at(S::kSourceRestart, E::kCommitRecord) = go(S::kNothing); }, kNever},
    {"NewSourceCommitsWithoutARecord", kOne,
     [](Table& t) { t.at(S::kSourceRestart, E::kNoRecord) = go(S::kHandingOver); }, kStale},
    {"SourceDoesNotAskAgain", kOne,
     [](Table& t) { t.at(S::kCommitted, E::kLinkUp) = ignored(S::kCommitted); }, kNever},
    {"SourceDoesNotAskAgainForTheGuest", kOne,
     [](Table& t) { t.at(S::kCancelling, E::kLinkUp) = ignored(S::kCancelling); }, kNever},
    {"SourceDoesNotHearARefusal", kLink,
     [](Table& t) { t.at(S::kCommitted, E::kAborted) = ignored(S::kCommitted); }, kNever},
    {"KeepingSourceDoesNotTell", kLink,
     [](Table& t) {
         t.at(S::kKept, E::kPrepared) = ignored(S::kKept);
         t.at(S::kKept, E::kLinkUp) = ignored(S::kKept);
     },
     kNever},
    {"NewSourceDoesNotTell", kOne,
     [](Table& t) { t.at(S::kNothing, E::kPrepared) = ignored(S::kNothing); }, kNever},
    {"DestinationRunsBeforeItsOwnIsDurable", kOne,
     [](Table& t) {
         t.at(S::kLocking, E::kLocked) = go(S::kOwning, {A::kRunGuest, A::kWriteOwn});
     },
     kBehind},
    {"DestinationRunsWithoutOwn", kOne,
     [](Table& t) {
         t.at(S::kLocking, E::kLocked) = go(S::kRunning, {A::kRunGuest, A::kSendRunning});
     },
     kBehind},
    {"DestinationRunsThoughItsOwnWasNotWritten", kDisk,
     [](Table& t) {
         t.at(S::kOwning, E::kNotWritten) = go(S::kRunning, {A::kRunGuest, A::kSendRunning});
     },
     kBehind},
    {"DestinationRunsThoughItsOwnMayNotBeThere", kDisk,
     [](Table& t) {
         t.at(S::kOwning, E::kMaybeWritten) = go(S::kRunning, {A::kRunGuest, A::kSendRunning});
     },
     kBehind},
    {"DestinationLeavesAnOwnThatItDenies", kDisk,
     [](Table& t) {
         t.at(S::kOwning, E::kMaybeWritten) =
             go(S::kRefused, {A::kReleaseLocks, A::kDiscardGuest, A::kSendAborted});
     },
     kNever},
    {"DestinationRunsWhenItIsPrepared", kOne,
     [](Table& t) { t.at(S::kReceiving, E::kComplete) = go(S::kLocking, {A::kTakeLocks}); }, kBoth},
    {"DestinationGoesOnByItselfWhenTheLinkIsLost", kLink,
     [](Table& t) { t.at(S::kPrepared, E::kLinkLost) = go(S::kLocking, {A::kTakeLocks}); }, kBoth},
    {"DestinationRefusesAndKeepsTheCopy", kOne,
     [](Table& t) { t.at(S::kPrepared, E::kAbort) = go(S::kPrepared, {A::kSendAborted}); }, kBoth},
    {"DestinationGivesUpAGuestThatRan", kOne,
     [](Table& t) {
         t.at(S::kRunning, E::kAbort) = go(S::kRefusing, {A::kDiscardGuest, A::kWriteAborted});
     },
     kBehind},
    {"DestinationErasesOwnTooEarly", kOne,
     [](Table& t) {
         t.at(S::kOwning, E::kWritten) =
             go(S::kRunning, {A::kRunGuest, A::kEraseRecord, A::kSendRunning});
     },
     kBehind},
    {"NewDestinationDeniesThatItOwned", kOne,
     [](Table& t) { t.at(S::kDestinationRestart, E::kOwnRecord) = go(S::kRefused); }, kBehind},
    {"DestinationDiscardsWhenTheLinkIsLost", kLink,
     [](Table& t) {
         t.at(S::kPrepared, E::kLinkLost) = go(S::kEmpty, {A::kDiscardGuest});
         t.at(S::kEmpty, E::kCommit) = go(S::kLost, {A::kSendLost});
     },
     kNever},
    {"DestinationDoesNotAskAgain", kOne,
     [](Table& t) { t.at(S::kPrepared, E::kLinkUp) = ignored(S::kPrepared); }, kNever},
    {"DestinationDoesNotAnswerTwice", kLink,
     [](Table& t) {
         t.at(S::kRunning, E::kCommit) = ignored(S::kRunning);
         t.at(S::kRunning, E::kLinkUp) = ignored(S::kRunning);
     },
     kNever},
    {"DestinationDoesNotRefuseTwice", kLink,
     [](Table& t) {
         t.at(S::kRefused, E::kCommit) = ignored(S::kRefused);
         t.at(S::kRefused, E::kLinkUp) = ignored(S::kRefused);
     },
     kNever},
    {"NewDestinationDoesNotAnswer", kOne,
     [](Table& t) { t.at(S::kEmpty, E::kCommit) = ignored(S::kEmpty); }, kNever},
    {"FailedLocksAreNotTold", kLink,
     [](Table& t) { t.at(S::kLocking, E::kFailed) = go(S::kLost, {A::kDiscardGuest}); }, kNever},
    {"AnOldCommitIsTakenForTheNew", kTwo,
     [](Table& t) { t.at(S::kPrepared, E::kOlderAsks) = go(S::kLocking, {A::kTakeLocks}); }, kBoth},
    {"ANewAttemptsQuestionHasNoAnswer", kTwo,
     [](Table& t) { t.at(S::kRefused, E::kNewerAsks) = ignored(S::kRefused); }, kNever},
    {"AnOldPreparedIsTakenForTheNew", kTwo,
     [](Table& t) { t.at(S::kStopped, E::kOlderAsks) = go(S::kCommitting, {A::kWriteCommit}); },
     kWaits},
};

// What the rule is good for that messages are taken from the peer only.
TEST(OwnershipModel, WhoeverHearsOthersIsFound) {
    for (const Hears hears : {Hears::kWrongDestination, Hears::kStranger}) {
        Bounds bounds = kLink;
        bounds.hears = hears;
        const Report report = Search(migration::ownership_table(), bounds).run();
        EXPECT_EQ(report.broken.find(kBoth), 0u)
            << static_cast<int>(hears) << ": found instead: '" << report.broken << "'";
    }
}

class OwnershipMistakes : public testing::TestWithParam<Mistake> {};
INSTANTIATE_TEST_SUITE_P(All, OwnershipMistakes, testing::ValuesIn(kMistakes),
                         [](const auto& one) { return std::string(one.param.name); });

TEST_P(OwnershipMistakes, IsFound) {
    Table table = migration::ownership_table();
    GetParam().make(table);
    const Report report = Search(table, GetParam().bounds).run();
    EXPECT_EQ(report.broken.find(GetParam().found), 0u)
        << "found instead: '" << report.broken << "', after " << report.states << " states";
    if (::testing::Test::HasFailure()) {
        for (const std::string& step : report.path) {
            std::printf("  %s\n", step.c_str());
        }
    }
}

}  // namespace
}  // namespace ownership_model
