// What takes long and must not keep the control thread from answering: a save, a move. It is done
// on a thread of its own, one at a time; what only the control thread may do, it has that do.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "migration/ownership.h"
#include "vmm/base/result.h"
#include "vmm/machine/event_loop.h"

namespace vmm::cli {

class LongTask {
  public:
    static Result<std::unique_ptr<LongTask>> create();
    ~LongTask() { finish(); }
    LongTask(const LongTask&) = delete;
    LongTask& operator=(const LongTask&) = delete;

    // Control thread, while none is under way. Where there is no thread to be had it is done at
    // once, on this one.
    void start(std::function<void()> work);
    // Readable when attend() has something to do.
    int fd() const { return wanted_.fd(); }
    // Control thread: does what the work asks for. True, once: the work is over.
    bool attend();
    // Control thread: waits until it is over, and does what it asks for meanwhile.
    void finish();

    // The work's: `what` is done by the control thread before this returns.
    void on_control_thread(const std::function<void()>& what);

    // Any thread: how much of the guest was sent or written.
    void add(std::uint64_t bytes) { bytes_ += bytes; }
    std::uint64_t bytes() const { return bytes_; }
    // Likewise how far a move is. The control thread is told of each new state.
    void enter(migration::State state) {
        state_ = state;
        wanted_.notify();
    }
    std::optional<migration::State> state() const { return state_; }
    // COMMIT may be on the disk: the guest is no longer this side's alone.
    bool is_promised() const;

    // Any thread: it shall end as soon as it can. told_fd() is readable from then until the next.
    void tell_to_end() {
        told_ = true;
        told_event_.notify();
    }
    bool is_told_to_end() const { return told_; }
    int told_fd() const { return told_event_.fd(); }

  private:
    LongTask(Notifier wanted, Notifier told)
        : wanted_(std::move(wanted)), told_event_(std::move(told)) {}

    const Notifier wanted_;
    std::atomic<std::uint64_t> bytes_{0};
    std::atomic<std::optional<migration::State>> state_{};
    std::atomic<bool> told_{false};
    const Notifier told_event_;
    bool is_under_way() const { return thread_.joinable() || in_place_; }

    std::thread thread_;
    bool in_place_ = false;  // on the control thread itself
    std::mutex mutex_;       // guards what follows
    const std::function<void()>* asked_ = nullptr;
    bool over_ = false;
    std::condition_variable changed_;
};

}  // namespace vmm::cli
