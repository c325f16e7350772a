// A queue of records between one vCPU's thread, which never waits, and the thread that writes the
// file. Records lie in one piece; one that finds no room is counted and forgotten.
#pragma once

#include <atomic>
#include <cstring>
#include <memory>
#include <span>

#include "xenshim/trace/record.h"

namespace xenshim::trace {

class Ring {
  public:
    explicit Ring(std::size_t bytes = kDefaultBytes)  // a power of two
        : size_(bytes), bytes_(std::make_unique_for_overwrite<std::byte[]>(bytes)) {}

    // An entry: the moment of its end, in ticks, by which entries of several vCPUs are put in
    // order; then the record.
    struct Entry {
        std::uint64_t ended = 0;
        std::span<const std::byte> record;
    };

    // ---- the vCPU's thread ----------------------------------------------------------------------

    // Room for a record of that size, or nothing (and the record counts as dropped).
    std::byte* reserve(std::uint64_t ended, std::size_t bytes) {
        const std::size_t need = sizeof ended + bytes;
        const std::uint64_t head = head_.load(std::memory_order_relaxed);
        const std::size_t at = head & (size_ - 1);
        // What does not fit before the end begins anew at the start.
        const std::size_t skip = size_ - at < need ? size_ - at : 0;
        if (head + skip + need - seen_tail_ > size_) {
            seen_tail_ = tail_.load(std::memory_order_acquire);
            if (head + skip + need - seen_tail_ > size_) {
                dropped_.store(dropped_.load(std::memory_order_relaxed) + 1,
                               std::memory_order_relaxed);
                return nullptr;
            }
        }
        if (skip != 0) std::memcpy(bytes_.get() + at, &kSkip, sizeof kSkip);
        next_head_ = head + skip + need;
        std::byte* const to = bytes_.get() + ((head + skip) & (size_ - 1));
        std::memcpy(to, &ended, sizeof ended);
        return to + sizeof ended;
    }
    // The reserved record is whole. Whether a quarter of the room or more waits to be written.
    bool publish() {
        head_.store(next_head_, std::memory_order_release);
        if (next_head_ - seen_tail_ < size_ / 4) return false;
        seen_tail_ = tail_.load(std::memory_order_acquire);
        return next_head_ - seen_tail_ >= size_ / 4;
    }

    // ---- the writing thread ---------------------------------------------------------------------

    // How far the vCPU has come: what front() may show.
    std::uint64_t head() const { return head_.load(std::memory_order_acquire); }
    // The oldest entry before `head`; without bytes when there is none.
    Entry front(std::uint64_t head) {
        std::uint64_t tail = tail_.load(std::memory_order_relaxed);
        Entry entry;
        while (tail != head) {
            const std::size_t at = tail & (size_ - 1);
            std::memcpy(&entry.ended, bytes_.get() + at, sizeof entry.ended);
            if (entry.ended != kSkip) {
                std::uint16_t bytes = 0;
                std::memcpy(&bytes, bytes_.get() + at + sizeof entry.ended, sizeof bytes);
                entry.record = {bytes_.get() + at + sizeof entry.ended, bytes};
                return entry;
            }
            tail += size_ - at;
            tail_.store(tail, std::memory_order_release);
        }
        return entry;
    }
    void pop(const Entry& entry) {
        tail_.store(
            tail_.load(std::memory_order_relaxed) + sizeof entry.ended + entry.record.size(),
            std::memory_order_release);
    }
    // Since the ring was made.
    std::uint64_t dropped() const { return dropped_.load(std::memory_order_relaxed); }

    static constexpr std::size_t kDefaultBytes = std::size_t{1} << 20;

  private:
    static constexpr std::uint64_t kSkip = UINT64_MAX;

    const std::size_t size_;
    const std::unique_ptr<std::byte[]> bytes_;
    // Each side's words on a cache line of its own.
    alignas(64) std::atomic<std::uint64_t> head_{0};
    std::uint64_t next_head_ = 0;
    std::uint64_t seen_tail_ = 0;
    std::atomic<std::uint64_t> dropped_{0};
    alignas(64) std::atomic<std::uint64_t> tail_{0};
};

}  // namespace xenshim::trace
