// A mutex with a way to take it that lets others go first. std::mutex goes to whoever comes next: a
// thread that does a long work in pieces, and gives the lock up between two of them, has it again
// before one that was waiting for it is awake, for as long as the work lasts.
#pragma once

#include <atomic>
#include <mutex>
#include <thread>

namespace vmm {

class PoliteMutex {
  public:
    // For std::scoped_lock.
    void lock() {
        if (mutex_.try_lock()) return;
        waiting_.fetch_add(1, std::memory_order_relaxed);
        mutex_.lock();
        waiting_.fetch_sub(1, std::memory_order_relaxed);
    }
    bool try_lock() { return mutex_.try_lock(); }
    void unlock() { mutex_.unlock(); }
    // After all who wait for it in lock().
    void lock_last() {
        while (waiting_.load(std::memory_order_relaxed) != 0) {
            std::this_thread::yield();
        }
        mutex_.lock();
    }

  private:
    std::mutex mutex_;
    std::atomic<unsigned> waiting_{0};
};

}  // namespace vmm
