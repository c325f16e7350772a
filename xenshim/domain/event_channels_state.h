// What of the event channels is saved. Which port is bound to what stands here; which are pending
// and masked is in the guest's pages, of which the gfns stand here.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <tuple>
#include <vector>

#include "vmm/base/saved.h"
#include "xenshim/domain/fifo_events.h"

namespace xenshim {

// A port that is bound, or (FIFO) a free one that was linked to another queue than vCPU 0's first:
// all but last_priority and last_vcpu is 0 then. What its state does not need is 0.
struct EventChannelState {
    std::uint8_t status = 0;         // EVTCHNSTAT_*
    std::uint32_t vcpu = 0;          // that is notified
    std::uint16_t remote_domid = 0;  // unbound, interdomain
    std::uint32_t remote_port = 0;   // interdomain
    std::uint32_t source = 0;        // the VIRQ's or the physical interrupt's number
    std::uint8_t priority = 0;       // FIFO, as the rest
    std::uint8_t last_priority = 0;  // of the queue that it was linked to last
    std::uint16_t last_vcpu = 0;
    bool waits_for_word = false;  // pending, and the page of its word is not there yet

    bool operator==(const EventChannelState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [status, vcpu, remote_domid, remote_port, source, priority, last_priority, last_vcpu,
               waits_for_word] = self;
        return std::tuple{vmm::saved::field(1, "status", status),
                          vmm::saved::field(2, "vcpu", vcpu),
                          vmm::saved::field(3, "remote_domid", remote_domid),
                          vmm::saved::field(4, "remote_port", remote_port),
                          vmm::saved::field(5, "source", source),
                          vmm::saved::field(6, "priority", priority),
                          vmm::saved::field(7, "last_priority", last_priority),
                          vmm::saved::field(8, "last_vcpu", last_vcpu),
                          vmm::saved::field(9, "waits_for_word", waits_for_word)};
    }
};

struct FifoVcpuState {
    std::optional<std::uint64_t> block{};  // its control block's guest physical address
    std::array<std::uint32_t, kFifoPriorities> tails{};  // ports; 0: an empty queue

    bool operator==(const FifoVcpuState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [block, tails] = self;
        return std::tuple{vmm::saved::field(1, "block", block),
                          vmm::saved::field(2, "tails", tails)};
    }
};

struct FifoEventsState {
    std::vector<FifoVcpuState> vcpus{};
    std::vector<std::uint64_t> array{};  // the event array's pages: gfns

    bool operator==(const FifoEventsState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [vcpus, array] = self;
        return std::tuple{vmm::saved::field(1, "vcpus", vcpus),
                          vmm::saved::field(2, "array", array)};
    }
};

struct EventChannelsState {
    static constexpr vmm::saved::Section kSection{"xen.event_channels", 1};

    std::uint32_t buckets = 0;     // of 64 ports: how much of the table exists
    std::uint32_t reset_next = 0;  // where a reset that stopped goes on; 0: none did
    std::uint32_t backends = 0;    // how many ports of domain 0's a guest can bind to, from 1 on
    std::map<std::uint32_t, EventChannelState> channels{};  // by port
    std::optional<FifoEventsState> fifo{};                  // none: 2-level

    bool operator==(const EventChannelsState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [buckets, reset_next, backends, channels, fifo] = self;
        return std::tuple{vmm::saved::field(1, "buckets", buckets),
                          vmm::saved::field(2, "reset_next", reset_next),
                          vmm::saved::field(3, "backends", backends),
                          vmm::saved::field(4, "channels", channels),
                          vmm::saved::field(5, "fifo", fifo)};
    }
};

}  // namespace xenshim
