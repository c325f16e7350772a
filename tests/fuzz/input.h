// A fuzzer's bytes as a source of values. When they are used up, all that follows is 0.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace xenolith::fuzz {

class Input {
  public:
    Input(const std::uint8_t* data, std::size_t size) : rest_(data, size) {}

    bool empty() const { return rest_.empty(); }
    std::size_t left() const { return rest_.size(); }

    template <class T>
    T take() {
        T value{};
        const std::size_t n = std::min(sizeof value, rest_.size());
        std::memcpy(&value, rest_.data(), n);
        rest_ = rest_.subspan(n);
        return value;
    }
    std::uint64_t below(std::uint64_t n) {
        return n <= 256 ? take<std::uint8_t>() % n : take<std::uint32_t>() % n;
    }
    std::span<const std::uint8_t> take_bytes(std::size_t most) {
        const auto some = rest_.first(std::min(most, rest_.size()));
        rest_ = rest_.subspan(some.size());
        return some;
    }

  private:
    std::span<const std::uint8_t> rest_;
};

// What must hold whatever the input: ends the run where a debugger and libFuzzer see it.
#define FUZZ_CHECK(condition)               \
    do {                                    \
        if (!(condition)) __builtin_trap(); \
    } while (0)

}  // namespace xenolith::fuzz
