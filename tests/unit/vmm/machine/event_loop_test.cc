// The backends' thread: callbacks when descriptors are ready, none when not wanted, and an end.
#include "vmm/machine/event_loop.h"

#include <fcntl.h>
#include <future>
#include <poll.h>
#include <string>
#include <unistd.h>

#include <gtest/gtest.h>

namespace vmm {
namespace {

struct Pipe {
    Pipe() {
        int ends[2];
        EXPECT_EQ(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
        read = Fd(ends[0]);
        write = Fd(ends[1]);
    }
    void put(char c) const { ASSERT_EQ(::write(write.get(), &c, 1), 1); }
    Fd read, write;
};

TEST(Notifier, CountsAndClears) {
    const auto notifier = Notifier::create();
    ASSERT_TRUE(notifier.has_value());
    const auto readable = [&] {
        pollfd p{.fd = notifier->fd(), .events = POLLIN, .revents = 0};
        return ::poll(&p, 1, 0) == 1;
    };
    EXPECT_FALSE(readable());
    notifier->clear();  // nothing to clear is no reason to wait
    notifier->notify();
    notifier->notify();
    EXPECT_TRUE(readable());
    notifier->clear();
    EXPECT_FALSE(readable());
}

TEST(EventLoop, CallsBackOnItsOwnThreadForEachByte) {
    Pipe pipe;
    std::promise<std::string> all;
    std::string got;
    std::thread::id thread;
    EventLoop loop;
    loop.add(
        pipe.read.get(), [] { return short{POLLIN}; },
        [&](short revents) {
            EXPECT_NE(revents & POLLIN, 0);
            thread = std::this_thread::get_id();
            char c = 0;
            while (::read(pipe.read.get(), &c, 1) == 1) {
                got += c;
            }
            if (got.size() == 3) all.set_value(got);
        });
    loop.start();
    for (const char c : {'a', 'b', 'c'}) {
        pipe.put(c);
    }
    EXPECT_EQ(all.get_future().get(), "abc");
    loop.stop();
    EXPECT_NE(thread, std::this_thread::get_id());
}

TEST(EventLoop, WhatIsNotWantedIsNotCalled) {
    Pipe unwanted, other;
    unwanted.put('x');
    std::atomic<unsigned> calls{0};
    std::promise<void> reached;
    EventLoop loop;
    loop.add(
        unwanted.read.get(), [] { return short{0}; }, [&](short) { ++calls; });
    loop.add(
        other.read.get(), [] { return short{POLLIN}; },
        [&](short) {
            char c = 0;
            ASSERT_EQ(::read(other.read.get(), &c, 1), 1);
            if (c == 'z') reached.set_value();
        });
    loop.start();
    other.put('y');
    other.put('z');
    reached.get_future().get();
    loop.stop();
    EXPECT_EQ(calls, 0u);
}

TEST(EventLoop, AHangUpIsHeardToo) {
    Pipe pipe;
    std::promise<short> heard;
    bool wanted = true;  // the loop's thread only
    EventLoop loop;
    loop.add(
        pipe.read.get(), [&] { return wanted ? short{POLLIN} : short{0}; },
        [&](short revents) {
            wanted = false;
            heard.set_value(revents);
        });
    loop.start();
    pipe.write.reset();
    EXPECT_NE(heard.get_future().get() & POLLHUP, 0);
    loop.stop();
}

TEST(EventLoop, StopsWithoutHavingStartedAndMoreThanOnce) {
    EventLoop idle;
    idle.stop();
    EventLoop loop;
    loop.start();
    loop.stop();
    loop.stop();
}

TEST(EventLoop, StopsWhileEverythingIsReady) {
    Pipe pipe;
    pipe.put('x');
    std::atomic<bool> called{false};
    EventLoop loop;
    loop.add(
        pipe.read.get(), [] { return short{POLLIN}; }, [&](short) { called = true; });
    loop.start();
    while (!called) {
        std::this_thread::yield();
    }
    loop.stop();  // a loop that never looks would hang here
}

}  // namespace
}  // namespace vmm
