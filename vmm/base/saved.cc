#include "vmm/base/saved.h"

#include <algorithm>

namespace vmm::saved {

namespace {

constexpr std::size_t kLengthBytes = 4;

}  // namespace

void Encoder::integer(std::uint64_t value, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; ++i) {
        bytes_.push_back(static_cast<std::byte>(value >> (8 * i)));
    }
}

void Encoder::raw(std::span<const std::byte> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
}

std::size_t Encoder::open() {
    integer(0, kLengthBytes);
    return bytes_.size();
}

void Encoder::close(std::size_t opened) {
    const std::size_t length = bytes_.size() - opened;
    for (std::size_t i = 0; i < kLengthBytes; ++i) {
        bytes_[opened - kLengthBytes + i] = static_cast<std::byte>(length >> (8 * i));
    }
}

std::uint64_t Decoder::integer(std::size_t bytes) {
    std::uint64_t value = 0;
    const auto from = raw(bytes);
    for (std::size_t i = 0; i < from.size(); ++i) {
        value |= std::to_integer<std::uint64_t>(from[i]) << (8 * i);
    }
    return value;
}

std::span<const std::byte> Decoder::raw(std::size_t bytes) {
    if (!ok()) return {};
    if (bytes > left()) {
        fail("it ends after " + std::to_string(left()) + " of " + std::to_string(bytes) + " bytes");
        return {};
    }
    const auto out = bytes_.subspan(at_, bytes);
    at_ += bytes;
    return out;
}

void Decoder::fail(const std::string& what) {
    if (!ok()) return;
    for (const char* name : path_) {
        failure_ += (failure_.empty() ? "" : ".") + std::string(name);
    }
    failure_ += (failure_.empty() ? "byte " : ", byte ") + std::to_string(at_) + ": " + what;
}

void Decoder::open(std::size_t length) {
    if (ok() && length > left()) {
        fail("it says that it has " + std::to_string(length) + " bytes, and " +
             std::to_string(left()) + " are left");
    }
    ends_.push_back(ok() ? at_ + length : end());
}

void Decoder::close() {
    if (ok() && left() != 0) fail(std::to_string(left()) + " bytes are left over");
    ends_.pop_back();
}

}  // namespace vmm::saved
