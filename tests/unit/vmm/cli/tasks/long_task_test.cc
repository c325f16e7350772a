// Work beside the control thread: who does what, on which thread, and how it ends.
#include "vmm/cli/long_task.h"

#include <latch>
#include <memory>
#include <poll.h>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace vmm::cli {
namespace {

using migration::State;

std::unique_ptr<LongTask> make() {
    auto task = LongTask::create();
    EXPECT_TRUE(task);
    return *std::move(task);
}
void wait_for(int fd) {
    pollfd one{.fd = fd, .events = POLLIN, .revents = 0};
    ASSERT_EQ(::poll(&one, 1, 30'000), 1);
}

TEST(LongTask, TheControlThreadDoesWhatIsAskedOfIt) {
    const auto task = make();
    EXPECT_FALSE(task->attend());
    const auto ours = std::this_thread::get_id();
    for (int round = 0; round < 50; ++round) {
        std::vector<std::thread::id> asked;
        std::thread::id work;
        task->start([&] {
            work = std::this_thread::get_id();
            for (int i = 0; i < 3; ++i) {
                task->on_control_thread([&] { asked.push_back(std::this_thread::get_id()); });
            }
        });
        for (bool over = false; !over;) {
            wait_for(task->fd());
            over = task->attend();
        }
        EXPECT_FALSE(task->attend());
        EXPECT_EQ(asked, std::vector(3, ours));
        EXPECT_NE(work, ours);
    }
}

TEST(LongTask, OthersSeeHowFarItIs) {
    const auto task = make();
    std::latch seen(1);
    task->start([&] {
        task->add(40);
        task->enter(State::kMoving);
        task->add(2);
        task->enter(State::kCommitting);
        seen.wait();
    });
    while (!task->is_promised()) {
        wait_for(task->fd());
        EXPECT_FALSE(task->attend());
    }
    EXPECT_EQ(task->bytes(), 42u);
    EXPECT_EQ(task->state(), State::kCommitting);
    seen.count_down();
    task->finish();
    // The next begins anew.
    task->start([] {});
    EXPECT_EQ(task->bytes(), 0u);
    EXPECT_FALSE(task->is_promised());
    task->finish();
}

TEST(LongTask, OnlyWhatIsPromisedIsNotOurs) {
    const auto task = make();
    for (const State state : {State::kMoving, State::kStopped, State::kKept}) {
        task->enter(state);
        EXPECT_FALSE(task->is_promised()) << name_of(state);
    }
    for (const State state :
         {State::kCommitting, State::kCommitted, State::kCancelling, State::kGone}) {
        task->enter(state);
        EXPECT_TRUE(task->is_promised()) << name_of(state);
    }
}

// Whoever ends while it is under way waits for it, and does what it still needs.
TEST(LongTask, ItEndsWhenItIsTold) {
    bool done = false;
    {
        const auto task = make();
        task->start([&, raw = task.get()] {
            wait_for(raw->told_fd());
            EXPECT_TRUE(raw->is_told_to_end());
            raw->on_control_thread([&] { done = true; });
        });
        EXPECT_FALSE(task->is_told_to_end());
        task->tell_to_end();
    }
    EXPECT_TRUE(done);
    const auto task = make();
    task->tell_to_end();
    task->start([] {});
    EXPECT_FALSE(task->is_told_to_end());
}

}  // namespace
}  // namespace vmm::cli
