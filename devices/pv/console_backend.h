// The PV console's backend: moves bytes between the guest's ring page (Xen's public/io/console.h)
// and host descriptors. Guest output goes out byte for byte. A reader that does not keep up stops
// the guest's output in the ring, so a flood costs the guest its own time and the host a page.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "vmm/base/saved.h"

namespace devices::pv {

// struct xencons_interface: where things lie in the page.
struct ConsoleRing {
    static constexpr std::uint32_t kInSize = 1024, kOutSize = 2048;
    static constexpr std::uint32_t kIn = 0, kOut = 1024;
    static constexpr std::uint32_t kInCons = 3072, kInProd = 3076;
    static constexpr std::uint32_t kOutCons = 3080, kOutProd = 3084;
};

class ConsoleBackend {
  public:
    // Both rings and their indices are guest memory. Output that is not written yet is in the ring
    // still; input that the guest has no room for has not been read.
    using State = vmm::saved::NoState;

    // `page` is the guest's page in host memory; `notify` tells the guest that an index moved.
    ConsoleBackend(std::byte* page, std::function<void()> notify)
        : page_(page), notify_(std::move(notify)) {}

    // Bytes that wait for output, as a copy of at most `room` of them (not consumed yet).
    std::size_t peek_output(std::span<std::byte> to);
    // `count` of the peeked bytes are out.
    void consume_output(std::size_t count);
    // All that there is, unread.
    void drop_output();
    bool has_output();

    // Gives bytes to the guest; how many fitted.
    std::size_t give_input(std::span<const std::byte> from);
    // How many bytes give_input() would take.
    std::size_t input_room() const;

  private:
    std::uint32_t load(std::uint32_t at) const;
    void store(std::uint32_t at, std::uint32_t value);
    // What is in the out ring; a producer index that cannot be is brought back to ours.
    std::uint32_t output_length();

    std::byte* page_;
    std::function<void()> notify_;
};

// Writes what the ring holds to `fd`, at most one pipe buffer's atomic unit (4096 bytes) at a
// time, so that a descriptor that poll() found writable does not block. False: the reader is gone.
bool pump_output(ConsoleBackend& backend, int fd);

}  // namespace devices::pv
