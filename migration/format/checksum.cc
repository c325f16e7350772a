#include "migration/format/checksum.h"

#include <new>

// The state's size is that of the library that we build with; we link it statically.
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

namespace migration::format {

namespace {

using Room = std::array<std::byte, 576>;
static_assert(sizeof(XXH3_state_t) <= sizeof(Room));
static_assert(alignof(XXH3_state_t) <= 64);

XXH3_state_t& state_in(Room& room) {
    return *std::launder(reinterpret_cast<XXH3_state_t*>(room.data()));
}
const XXH3_state_t& state_in(const Room& room) {
    return *std::launder(reinterpret_cast<const XXH3_state_t*>(room.data()));
}

}  // namespace

std::uint64_t checksum(std::span<const std::byte> bytes) {
    return XXH3_64bits(bytes.data(), bytes.size());
}

std::uint64_t checksum_of_zeroes(std::uint64_t bytes) {
    static constexpr std::array<std::byte, kChunk> kZeroes{};
    static const std::uint64_t whole = checksum(kZeroes);
    return bytes == kChunk ? whole : checksum(std::span(kZeroes).first(bytes));
}

RunningChecksum::RunningChecksum() {
    new (state_.data()) XXH3_state_t;
    XXH3_INITSTATE(&state_in(state_));
    XXH3_128bits_reset(&state_in(state_));
}

void RunningChecksum::add(std::span<const std::byte> bytes) {
    XXH3_128bits_update(&state_in(state_), bytes.data(), bytes.size());
}

Checksum128 RunningChecksum::value() const {
    const XXH128_hash_t hash = XXH3_128bits_digest(&state_in(state_));
    return {hash.low64, hash.high64};
}

}  // namespace migration::format
