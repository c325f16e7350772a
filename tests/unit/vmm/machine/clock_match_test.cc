// One clock read between two looks at another.
#include "vmm/machine/clock_match.h"

#include <gtest/gtest.h>

namespace vmm {
namespace {

TEST(ClockMatch, TheFirstLookIsTakenInItsMiddle) {
    ClockMatch match;
    match.look(1000, 5100, 1200);
    EXPECT_EQ(match.theirs(2000), 6000u);
}

// The thread lost its CPU between its two looks: theirs is 4,000 ahead, as before, for all it says.
TEST(ClockMatch, AWideLookDoesNotSpoilWhatIsKnown) {
    ClockMatch match;
    match.look(1000, 5000, 1000);
    match.look(10'000, 14'001, 10'900'000);
    EXPECT_EQ(match.theirs(20'000), 24'000u);
    match.look(20'000'000, 34'003'990, 30'000'000);
    EXPECT_EQ(match.theirs(40'000'000), 44'003'990u);
}

TEST(ClockMatch, DriftIsFollowedAsFarAsItIsSeen) {
    ClockMatch match;
    match.look(0, 4000, 0);
    match.look(1'000'000, 1'004'150, 1'000'100);  // ahead by 4,050 to 4,150
    EXPECT_EQ(match.theirs(2'000'000), 2'004'050u);
    match.look(3'000'000, 3'003'900, 3'000'100);  // by 3,800 to 3,900
    EXPECT_EQ(match.theirs(4'000'000), 4'003'900u);
}

// A clock that began again is behind.
TEST(ClockMatch, TheirsMayBeBehind) {
    ClockMatch match;
    match.look(1'000'000, 10, 1'000'000);
    EXPECT_EQ(match.theirs(1'000'500), 510u);
}

}  // namespace
}  // namespace vmm
