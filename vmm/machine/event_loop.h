// The thread on which backends work: it waits for descriptors and calls back.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
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
    ~EventLoop();

    // Before start(). `wanted` is asked before each wait: poll events, 0 for none now.
    // `ready` runs on the loop's thread with what poll reported.
    void add(int fd, std::function<short()> wanted, std::function<void(short)> ready);

    // Makes the thread, which stays and waits for start(): so that of a guest that is in somebody's
    // hands (saved, being moved) nothing is left to fail.
    Result<void> prepare();
    // After prepare().
    void start();
    // Waits for the thread to be idle; callbacks may be called by hand afterwards. It may be
    // started again: what comes meanwhile waits in the descriptors.
    void stop();

  private:
    struct Source {
        int fd;
        std::function<short()> wanted;
        std::function<void(short)> ready;
    };
    void main();
    void serve();

    std::list<Source> sources_;
    Fd stop_;
    std::atomic<bool> stopping_{true};
    std::mutex mutex_;  // guards what follows
    std::condition_variable changed_;
    enum class Wanted { kIdle, kServing, kEnd } wanted_ = Wanted::kIdle;
    bool serving_ = false;
    std::thread thread_;
};

// What a guest rings when it has something for a backend. While one ring is unheard, others cost no
// system call. A guest that goes on ringing with nothing to be done is heard less often, so that a
// storm of events costs the host next to nothing (XSA-332); what it then has waits kDeafness at
// most, and the first ring that was worth something ends that.
class Doorbell {
  public:
    static constexpr unsigned kPatience = 16;              // rings in a row for nothing
    static constexpr std::uint64_t kDeafness = 1'000'000;  // ns

    static Result<std::unique_ptr<Doorbell>> create();
    // From any thread, without blocking, as often as one likes.
    void ring() {
        if (!rung_.exchange(true)) bell_.notify();
    }
    // Before the loop starts. `answer` runs on the loop's thread after one or many rings, and says
    // whether there was something to do.
    void attach(EventLoop& loop, std::function<bool()> answer);
    // How often it became deaf for a while.
    std::uint64_t deaf_spells() const { return deaf_spells_; }

  private:
    Doorbell(Notifier bell, Fd timer) : bell_(std::move(bell)), timer_(std::move(timer)) {}
    void heard(bool for_nothing);

    Notifier bell_;
    Fd timer_;  // ends the deafness
    std::atomic<bool> rung_{false};
    std::atomic<std::uint64_t> deaf_spells_{0};
    // The loop's thread's.
    unsigned in_vain_ = 0;
    bool deaf_ = false;
};

}  // namespace vmm
