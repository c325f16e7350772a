#include "devices/pv/console_backend.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <unistd.h>

#include "vmm/base/log.h"

namespace devices::pv {

std::uint32_t ConsoleBackend::load(std::uint32_t at) const {
    auto* word = reinterpret_cast<std::uint32_t*>(page_ + at);  // NOLINT: a page of ours, aligned
    return std::atomic_ref<std::uint32_t>(*word).load(std::memory_order_acquire);
}

void ConsoleBackend::store(std::uint32_t at, std::uint32_t value) {
    auto* word = reinterpret_cast<std::uint32_t*>(page_ + at);  // NOLINT: as above
    std::atomic_ref<std::uint32_t>(*word).store(value, std::memory_order_release);
}

std::uint32_t ConsoleBackend::output_length() {
    const std::uint32_t cons = load(ConsoleRing::kOutCons);
    const std::uint32_t prod = load(ConsoleRing::kOutProd);
    const std::uint32_t length = prod - cons;
    if (length <= ConsoleRing::kOutSize) return length;
    vmm::log_guest("console", "the guest's ring indices make no sense; its output is dropped");
    store(ConsoleRing::kOutCons, prod);
    return 0;
}

std::size_t ConsoleBackend::peek_output(std::span<std::byte> to) {
    const std::uint32_t cons = load(ConsoleRing::kOutCons);
    const std::size_t count = std::min<std::size_t>(output_length(), to.size());
    for (std::size_t i = 0; i < count; ++i) {
        to[i] = page_[ConsoleRing::kOut + ((cons + i) & (ConsoleRing::kOutSize - 1))];
    }
    std::atomic_signal_fence(std::memory_order_acq_rel);
    return count;
}

void ConsoleBackend::consume_output(std::size_t count) {
    if (count == 0) return;
    store(ConsoleRing::kOutCons, load(ConsoleRing::kOutCons) + static_cast<std::uint32_t>(count));
    notify_();
}

bool ConsoleBackend::has_output() {
    return output_length() != 0;
}

std::size_t ConsoleBackend::input_room() const {
    const std::uint32_t used = load(ConsoleRing::kInProd) - load(ConsoleRing::kInCons);
    return used < ConsoleRing::kInSize ? ConsoleRing::kInSize - used : 0;
}

std::size_t ConsoleBackend::give_input(std::span<const std::byte> from) {
    const std::uint32_t prod = load(ConsoleRing::kInProd);
    const std::size_t count = std::min(from.size(), input_room());
    for (std::size_t i = 0; i < count; ++i) {
        page_[ConsoleRing::kIn + ((prod + i) & (ConsoleRing::kInSize - 1))] = from[i];
    }
    if (count == 0) return 0;
    store(ConsoleRing::kInProd, prod + static_cast<std::uint32_t>(count));
    notify_();
    return count;
}

void ConsoleBackend::drop_output() {
    std::array<std::byte, ConsoleRing::kOutSize> buffer;
    consume_output(peek_output(buffer));
}

bool pump_output(ConsoleBackend& backend, int fd) {
    std::array<std::byte, ConsoleRing::kOutSize> buffer;
    const std::size_t count = backend.peek_output(buffer);
    if (count == 0) return true;
    const ssize_t written = ::write(fd, buffer.data(), count);
    if (written < 0) {
        if (errno == EINTR || errno == EAGAIN) return true;
        vmm::log_error("console", "guest output cannot be written: %s", std::strerror(errno));
        return false;
    }
    backend.consume_output(static_cast<std::size_t>(written));
    return true;
}

}  // namespace devices::pv
