// Event channels, FIFO ABI (Xen 4.4): a word of guest memory per port, and for each vCPU sixteen
// queues of ports by priority, linked through those words. Follows Xen 4.17's
// common/event_fifo.c in behaviour.
//
// The words, the heads and the ready mask lie in the guest's RAM and change under our hands. So
// nothing is ever followed that the guest wrote: a queue's tail is ours, a link is only written.
// A word is changed by one atomic step or by a bounded number of tries, and a guest that breaks
// the rules confuses its own queues only.
//
// The pages stay where they were registered. Xen holds a reference, and a page that the guest
// gives back lives on out of its sight; here the words go on being kept at that place of its RAM:
// into a hole, whose host page housekeeping frees again, or into what the guest put there later.
// Either way it is memory of this guest.
//
// EventChannels' mutex guards all of it.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/memory/guest_memory.h"

namespace xenshim {

struct FifoEventsState;

using Port = std::uint32_t;

// A page of the guest's RAM as it named it, and where it is; null: there is none.
struct NamedPage {
    std::uint64_t gfn = 0;
    std::byte* host = nullptr;
};

// public/event_channel.h.
inline constexpr unsigned kFifoPriorities = 16;  // 0 is served first
inline constexpr std::uint8_t kFifoDefaultPriority = 7;
inline constexpr unsigned kFifoLinkBits = 17;
inline constexpr Port kFifoPorts = Port{1} << kFifoLinkBits;
inline constexpr Port kFifoWordsPerPage = 1024;
inline constexpr std::uint32_t kFifoControlBlockBytes = 72;

class FifoEvents {
  public:
    explicit FifoEvents(unsigned vcpus) : vcpus_(vcpus) {}

    // What a channel has of its own. Where it was linked last outlives a close: its port may still
    // be the tail of that queue.
    struct Channel {
        std::uint8_t priority = kFifoDefaultPriority;
        std::uint8_t last_priority = 0;
        std::uint16_t last_vcpu = 0;
        bool waits_for_word = false;  // pending, and the page of its word is not there yet
    };

    bool has_control_block(unsigned vcpu) const { return vcpus_[vcpu].block != nullptr; }
    void set_control_block(unsigned vcpu, NamedPage page, std::uint32_t offset) {
        vcpus_[vcpu].block = page.host + offset;
        vcpus_[vcpu].block_gpa = vmm::gfn_to_gpa(page.gfn).value + offset;
    }
    // The array of words: the ports below words() have one.
    Port words() const { return static_cast<Port>(pages_.size()) * kFifoWordsPerPage; }
    void add_page(NamedPage page) {
        pages_.push_back(page.host);
        gfns_.push_back(page.gfn);
    }

    // Marks `port` pending and links it unless it is masked, linked already, or the vCPU has no
    // control block. True: an upcall is due.
    bool set_pending(Port port, Channel& channel, unsigned vcpu);
    void clear_pending(Port port, Channel& channel);
    // True: an upcall is due.
    bool unmask(Port port, Channel& channel, unsigned vcpu);
    bool is_pending(Port port) const;
    // Still in a queue: the number may not be given out again.
    bool is_linked(Port port) const;

    FifoEventsState snapshot() const;
    static vmm::Expected<void, std::string> check(const FifoEventsState& state, unsigned vcpus);
    // From a state that was checked.
    FifoEvents(const FifoEventsState& state, const vmm::GuestMemory& memory);

  private:
    using Page = std::array<std::byte, vmm::kPageSize>;
    struct Vcpu {
        std::byte* block = nullptr;
        std::uint64_t block_gpa = 0;
        std::array<Port, kFifoPriorities> tails{};  // 0: empty
    };

    std::atomic_ref<std::uint32_t> word(Port port) const;
    bool link_behind(Port tail, Port port) const;
    NamedPage find(std::uint64_t gfn, const vmm::GuestMemory& memory);

    std::vector<Vcpu> vcpus_;
    std::vector<std::byte*> pages_;
    std::vector<std::uint64_t> gfns_;  // of pages_
    // In place of pages that had gone when a state was adopted, one for each: nobody sees them.
    std::vector<std::unique_ptr<Page>> gone_;
};

}  // namespace xenshim
