// Memory that is brought from somewhere else as it is first touched, and in the background until
// all of it is there: a guest runs at once, whatever its size. By userfaultfd(2) on mappings of
// memfds; once filled they are memfds like any other. What is brought can be checked first: nobody
// has seen it yet.
//
// A touch of a page that is not there waits in the kernel, on whichever thread: a vCPU in KVM or
// one of ours. So what fetches may not wait for a thread that could be touching.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "vmm/base/fd.h"
#include "vmm/base/result.h"

namespace vmm {

class DemandFill {
  public:
    static constexpr std::uint64_t kChunk = 64 * 1024;

    // A shared mapping of a memfd of which no page is there yet; whole pages.
    struct Range {
        std::byte* at = nullptr;
        std::uint64_t size = 0;
    };

    // Where the memory comes from. On the filling thread, one call at a time.
    class Source {
      public:
        virtual ~Source() = default;
        // Gets ready by one more step, while nobody waits; false: there is no more to get ready
        // for. Whatever was not done by then is done as it is needed.
        virtual bool prepare() { return false; }
        // Whether the chunk holds nothing but zeroes. Such pages come as they are touched, and
        // those that nobody touches cost no memory.
        virtual bool is_zero(std::size_t range, std::uint64_t offset) = 0;
        // The bytes of the chunk at `offset` (the last one of a range may be short). False: they
        // cannot be had, or are not what they should be.
        virtual bool fetch(std::size_t range, std::uint64_t offset, std::span<std::byte> to) = 0;
        // A fetch failed. When this returns the memory reads as zeroes where it was not filled:
        // whoever runs on it must have been told to stop.
        virtual void failed(std::size_t range, std::uint64_t offset) = 0;
    };

    // When what nobody touches is brought. kWhenQuiet: the guest first. What it touches to begin
    // with comes in quick succession, and a thread that works all the while may have the CPU that
    // the guest's wants: so once nobody has touched anything for a while, or it has taken long
    // enough.
    enum class Background { kOnlyOnTouch, kWhenQuiet, kAtOnce };

    // Fault::kHost: this process may not use userfaultfd, or the kernel has none.
    static Result<std::unique_ptr<DemandFill>> start(std::vector<Range> ranges, Source& source,
                                                     Background background);
    // Ends it as it stands: what was not filled reads as zeroes.
    ~DemandFill();
    DemandFill(const DemandFill&) = delete;
    DemandFill& operator=(const DemandFill&) = delete;

    // Whether all is there.
    bool complete() const { return complete_.load(); }
    // Fills the rest and waits for it. False: a fetch failed.
    bool finish();

    // How many chunks were brought, and how many because somebody waited for them.
    std::uint64_t brought() const { return brought_.load(std::memory_order_relaxed); }
    std::uint64_t touched() const { return touched_.load(std::memory_order_relaxed); }

  private:
    struct Chunks {
        Range range;
        std::vector<bool> done;
    };

    DemandFill(Source& source, Background background, Fd fault_fd, Fd wake_fd);
    void main();
    // Answers the touches that wait; false: a fetch failed.
    bool answer_touches();
    bool answer_touch(std::uint64_t address);
    bool fill(std::size_t range, std::uint64_t chunk);
    // The next chunk that is not there; false: there is none.
    bool next_missing(std::size_t* range, std::uint64_t* chunk);
    void let_go();

    Source& source_;
    Fd fault_fd_;
    Fd wake_fd_;  // an eventfd: stop_ is set, or background_ is kAtOnce now
    std::vector<Chunks> chunks_;
    std::size_t next_range_ = 0;  // before them all is there
    std::uint64_t next_chunk_ = 0;
    std::vector<std::byte> buffer_;
    std::atomic<Background> background_;
    std::atomic<bool> stop_{false};
    std::atomic<bool> complete_{false};
    std::atomic<std::uint64_t> brought_{0}, touched_{0};
    std::mutex mutex_;  // guards ended_
    bool ended_ = false;
    std::condition_variable changed_;
    std::thread thread_;
};

}  // namespace vmm
