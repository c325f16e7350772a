#include "xenshim/domain/xenstore/ring.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <span>

namespace xenshim::xenstore {

// struct xenstore_domain_interface.
static constexpr std::size_t kPageBytes = 4096;
static constexpr std::size_t kRequests = 0;
static constexpr std::size_t kResponses = 1024;
static constexpr std::size_t kRequestCons = 2048;
static constexpr std::size_t kRequestProd = 2052;
static constexpr std::size_t kResponseCons = 2056;
static constexpr std::size_t kResponseProd = 2060;
static constexpr std::size_t kServerFeatures = 2064;
static constexpr std::size_t kErrorField = 2072;

static constexpr std::uint32_t kFeatureError = 2;    // XENSTORE_SERVER_FEATURE_ERROR
static constexpr std::uint32_t kErrorRingIndex = 2;  // XENSTORE_ERROR_RINGIDX
static constexpr std::uint32_t kErrorProtocol = 3;   // XENSTORE_ERROR_PROTO

// A guest that keeps producing while we consume must not keep us here for ever.
static constexpr std::size_t kBytesPerService = 16 * kRingSize;

// A word of the page, which the guest reads and writes at the same time as we do.
static std::atomic_ref<std::uint32_t> word(std::byte* page, std::size_t offset) {
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): the page is shared memory.
    return std::atomic_ref<std::uint32_t>(*reinterpret_cast<std::uint32_t*>(page + offset));
}

void Ring::initialise_page(std::byte* page) {
    std::memset(page, 0, kPageBytes);
    word(page, kServerFeatures).store(kFeatureError, std::memory_order_release);
}

void Ring::fail(std::uint32_t error) {
    connection_.mark_broken();
    word(page_, kErrorField).store(error, std::memory_order_release);
}

bool Ring::service() {
    if (busy_) return false;
    busy_ = true;
    unfinished_ = false;
    bool notify = false;
    std::size_t budget = kBytesPerService;
    while (!connection_.broken()) {
        const bool took = take_requests(budget);
        const bool gave = give_output();
        if (!took && !gave) break;
        notify = true;
        if (budget == 0) {
            unfinished_ = !connection_.broken();
            break;
        }
    }
    busy_ = false;
    return notify;
}

// Both indices live in the page, as for xenstored: a kernel that takes over from firmware finds
// them there. What the guest does to ours it does to its own stream only.
bool Ring::take_requests(std::size_t& budget) {
    if (connection_.broken() || !connection_.wants_input()) return false;
    const std::uint32_t prod = word(page_, kRequestProd).load(std::memory_order_acquire);
    const std::uint32_t cons = word(page_, kRequestCons).load(std::memory_order_relaxed);
    const std::uint32_t available = prod - cons;
    if (available > kRingSize) {
        fail(kErrorRingIndex);
        return true;
    }
    if (available == 0) return false;

    const std::size_t start = cons % kRingSize;
    const std::size_t size = std::min({std::size_t{available}, kRingSize - start, budget});
    // Copied first: the guest may change the bytes while they are judged.
    std::array<std::byte, kRingSize> copy;
    std::memcpy(copy.data(), page_ + kRequests + start, size);
    const std::size_t taken = connection_.feed(std::span(copy).first(size));
    budget -= taken;
    word(page_, kRequestCons)
        .store(cons + static_cast<std::uint32_t>(taken), std::memory_order_release);
    if (connection_.broken()) fail(kErrorProtocol);
    return true;
}

bool Ring::give_output() {
    if (connection_.broken() || !connection_.has_output()) return false;
    const std::uint32_t cons = word(page_, kResponseCons).load(std::memory_order_acquire);
    const std::uint32_t prod = word(page_, kResponseProd).load(std::memory_order_relaxed);
    const std::uint32_t waiting = prod - cons;
    if (waiting > kRingSize) {
        fail(kErrorRingIndex);
        return true;
    }
    const std::size_t start = prod % kRingSize;
    const std::size_t room = std::min(kRingSize - waiting, kRingSize - start);
    if (room == 0) return false;

    std::array<std::byte, kRingSize> copy;
    const std::size_t given = connection_.pop_output(std::span(copy).first(room));
    std::memcpy(page_ + kResponses + start, copy.data(), given);
    word(page_, kResponseProd)
        .store(prod + static_cast<std::uint32_t>(given), std::memory_order_release);
    return true;
}

}  // namespace xenshim::xenstore
