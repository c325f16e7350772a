// A guest that proves who owns it: it does nothing but count, and each count is written into a page
// that every process sees, with the mark of the side that runs it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "migration/format/format.h"
#include "migration/ownership.h"
#include "vmm/memory/shared_region.h"

namespace faults {

using migration::Side;

constexpr const char* name_of(Side side) {
    return side == Side::kSource ? "source" : "destination";
}

// What all processes of one move see. Nothing of it is known to the product.
struct Page {
    // Who counted last and how far: the side's number + 1 in the upper 8 bits.
    std::atomic<std::uint64_t> mark{0};
    std::atomic<std::uint64_t> ran[2]{};  // counts of each side
    // How often each side's records asked the system for something, and where its process is.
    std::atomic<std::uint32_t> calls[2]{};
    std::atomic<std::uint64_t> allocations{0};  // the destination's
    std::atomic<std::uint32_t> failed{0};       // what was planned to fail within a process did
    std::atomic<std::uint32_t> wrong{0};
    char what[240]{};

    void complain(const std::string& text) {
        if (wrong.exchange(1) == 0) std::snprintf(what, sizeof what, "%s", text.c_str());
    }
};

class Guest {
  public:
    static constexpr std::uint64_t kPages = 16;
    static constexpr std::uint64_t kWords = kPages * migration::format::kPageSize / 8;

    Guest(Page& page, Side side) : page_(page), side_(side), words_(kWords) {}
    ~Guest() { stop(); }
    Guest(const Guest&) = delete;
    Guest& operator=(const Guest&) = delete;

    // A new one; else its memory is what came.
    void boot() {
        for (std::uint64_t i = 1; i < kWords; ++i) {
            words_[i] = mix(i, 0);
        }
    }
    std::span<std::byte> memory() { return std::as_writable_bytes(std::span(words_)); }
    std::uint64_t count() const { return words_[0]; }

    // Its memory is what the counting has left in it, all of it.
    bool is_whole() const {
        const std::uint64_t ring = kWords - 1, n = count();
        for (std::uint64_t i = 1; i < kWords; ++i) {
            // The last count that fell on this word.
            const std::uint64_t back = (n + ring - i % ring) % ring;
            const std::uint64_t last = n >= back ? n - back : 0;
            if (words_[i] != mix(i, last)) return false;
        }
        return true;
    }

    // All that running needs, so that nothing of it can fail.
    void stand_by() {
        if (thread_.joinable()) return;
        thread_ = std::thread([this] {
            goes_.wait(false);
            while (!stop_) {
                step();
                std::this_thread::sleep_for(std::chrono::microseconds(20));
            }
        });
    }
    void run() {
        stand_by();
        goes_ = true;
        goes_.notify_one();
    }
    void stop() {
        stop_ = true;
        goes_ = true;
        goes_.notify_one();
        if (thread_.joinable()) thread_.join();
        stop_ = goes_ = false;
    }

  private:
    static std::uint64_t mix(std::uint64_t word, std::uint64_t count) {
        return (word << 40 ^ count) * 0x9e3779b97f4a7c15 | 1;
    }
    void step() {
        const std::uint64_t n = count();
        std::uint64_t before = page_.mark.load();
        const std::uint64_t counted = before & kCount;
        if (counted != n) {
            page_.complain(std::string("the ") + name_of(side_) + " goes on from " +
                           std::to_string(n) + ", and it had come to " + std::to_string(counted));
            stop_ = true;
            return;
        }
        if (!page_.mark.compare_exchange_strong(before, marked(side_, n + 1))) {
            page_.complain(std::string("it runs beside the ") + name_of(side_));
            stop_ = true;
            return;
        }
        ++page_.ran[static_cast<std::size_t>(side_)];
        words_[0] = n + 1;
        const std::uint64_t ring = kWords - 1;
        const std::uint64_t at = (n + 1) % ring == 0 ? ring : (n + 1) % ring;
        words_[at] = mix(at, n + 1);
    }

    static constexpr std::uint64_t kCount = (std::uint64_t{1} << 56) - 1;
    static std::uint64_t marked(Side side, std::uint64_t count) {
        return (static_cast<std::uint64_t>(side) + 1) << 56 | count;
    }

    Page& page_;
    const Side side_;
    std::vector<std::uint64_t> words_;
    std::atomic<bool> stop_{false}, goes_{false};
    std::thread thread_;
};

}  // namespace faults
