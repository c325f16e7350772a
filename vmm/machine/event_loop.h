// The thread on which backends work: it waits for descriptors and calls back.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <thread>

#include <sys/eventfd.h>

#include "vmm/base/fd.h"
#include "vmm/base/result.h"

namespace vmm {

// Wakes the loop: from any thread, without blocking, as often as one likes.
class Notifier {
  public:
    static Result<Notifier> create();
    void notify() const {
        const std::uint64_t one = 1;
        [[maybe_unused]] const auto written = ::write(fd_.get(), &one, sizeof one);
    }
    void clear() const {
        std::uint64_t count = 0;
        [[maybe_unused]] const auto got = ::read(fd_.get(), &count, sizeof count);
    }
    int fd() const { return fd_.get(); }

  private:
    explicit Notifier(Fd fd) : fd_(std::move(fd)) {}
    Fd fd_;
};

class EventLoop {
  public:
    EventLoop();
    ~EventLoop() { stop(); }

    // Before start(). `wanted` is asked before each wait: poll events, 0 for none now.
    // `ready` runs on the loop's thread with what poll reported.
    void add(int fd, std::function<short()> wanted, std::function<void(short)> ready);

    void start();
    // Waits for the thread to leave; callbacks may be called by hand afterwards.
    void stop();

  private:
    struct Source {
        int fd;
        std::function<short()> wanted;
        std::function<void(short)> ready;
    };
    void main();

    std::list<Source> sources_;
    Fd stop_;
    std::atomic<bool> stopping_{false};
    std::thread thread_;
};

}  // namespace vmm
