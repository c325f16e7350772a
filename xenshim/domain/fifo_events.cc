#include "xenshim/domain/fifo_events.h"

#include "xenshim/domain/event_channels_state.h"

namespace xenshim {
namespace {

// An event word.
constexpr std::uint32_t kPending = 1u << 31;
constexpr std::uint32_t kMasked = 1u << 30;
constexpr std::uint32_t kLinked = 1u << 29;
constexpr std::uint32_t kBusy = 1u << 28;  // we are about to change LINK: do not unmask
constexpr std::uint32_t kLinkMask = kFifoPorts - 1;

// A control block: the mask of queues with something new, a reserved word, the queues' heads.
constexpr std::size_t kReady = 0;
constexpr std::size_t kHeads = 8;
static_assert(kHeads + kFifoPriorities * sizeof(Port) == kFifoControlBlockBytes);

// A guest that keeps to the rules changes a linked and busy word four times at most: MASKED once
// each way, PENDING and LINKED away.
constexpr unsigned kTries = 4;

std::atomic_ref<std::uint32_t> word_at(std::byte* at) {
    return std::atomic_ref<std::uint32_t>(*reinterpret_cast<std::uint32_t*>(at));  // NOLINT
}

}  // namespace

std::atomic_ref<std::uint32_t> FifoEvents::word(Port port) const {
    return word_at(pages_[port / kFifoWordsPerPage] + port % kFifoWordsPerPage * sizeof(Port));
}

// Makes `port` the successor of `tail` if that is linked. False: it is not, so the queue is empty.
bool FifoEvents::link_behind(Port tail, Port port) const {
    const auto at = word(tail);
    std::uint32_t seen = at.load();
    if ((seen & kLinked) == 0) return false;
    const auto with_link = [port](std::uint32_t old) {
        return (old & ~(kBusy | kLinkMask)) | port;
    };
    if (at.compare_exchange_strong(seen, with_link(seen))) return true;
    // The guest is working on this very word. Told that we are too, it lets its mask be.
    seen = at.fetch_or(kBusy) | kBusy;
    for (unsigned tries = 0; tries < kTries; ++tries) {
        if ((seen & kLinked) == 0) {
            at.fetch_and(~kBusy);
            return false;
        }
        if (at.compare_exchange_strong(seen, with_link(seen))) return true;
    }
    // XSA-295's lesson: no more tries than an honest guest needs. The event is this guest's loss.
    at.fetch_and(~kBusy);
    return true;
}

bool FifoEvents::set_pending(Port port, Channel& channel, unsigned vcpu) {
    if (port >= words()) {
        channel.waits_for_word = true;
        return false;
    }
    const auto at = word(port);
    if ((at.fetch_or(kPending) & (kMasked | kLinked)) != 0) return false;
    Vcpu& to = vcpus_[vcpu];
    if (to.block == nullptr) return false;  // XSA-107: nowhere to link it
    if ((at.fetch_or(kLinked) & kLinked) != 0) return false;

    // It may have been the tail of a queue that ran empty; on that queue it must not be continued
    // from, now that it is linked elsewhere.
    Port& old_tail = vcpus_[channel.last_vcpu].tails[channel.last_priority];
    if (old_tail == port) old_tail = 0;
    channel.last_vcpu = static_cast<std::uint16_t>(vcpu);
    channel.last_priority = channel.priority;

    Port& tail = to.tails[channel.priority];
    const bool linked = tail != 0 && link_behind(tail, port);
    tail = port;
    if (linked) return false;  // the guest comes by here anyway
    word_at(to.block + kHeads + channel.priority * sizeof(Port)).store(port);
    const std::uint32_t ready = 1u << channel.priority;
    return (word_at(to.block + kReady).fetch_or(ready) & ready) == 0;
}

void FifoEvents::clear_pending(Port port, Channel& channel) {
    channel.waits_for_word = false;
    // It stays linked: the guest unlinks it and passes over what is not pending.
    if (port < words()) word(port).fetch_and(~kPending);
}

bool FifoEvents::unmask(Port port, Channel& channel, unsigned vcpu) {
    if (port >= words()) return false;
    if ((word(port).fetch_and(~kMasked) & kPending) == 0) return false;
    return set_pending(port, channel, vcpu);
}

bool FifoEvents::is_pending(Port port) const {
    return port < words() && (word(port).load() & kPending) != 0;
}

bool FifoEvents::is_linked(Port port) const {
    return port < words() && (word(port).load() & kLinked) != 0;
}

// ---- saved and restored -------------------------------------------------------------------------

FifoEventsState FifoEvents::snapshot() const {
    FifoEventsState state{.vcpus = {}, .array = gfns_};
    for (const Vcpu& vcpu : vcpus_) {
        FifoVcpuState& saved = state.vcpus.emplace_back();
        if (vcpu.block != nullptr) saved.block = vcpu.block_gpa;
        saved.tails = vcpu.tails;
    }
    return state;
}

// Any gfn will do: what is there is the guest's, or nothing.
vmm::Expected<void, std::string> FifoEvents::check(const FifoEventsState& state, unsigned vcpus) {
    if (state.vcpus.size() != vcpus) {
        return vmm::Failure{"vcpus: " + std::to_string(state.vcpus.size()) + " of them, not " +
                            std::to_string(vcpus)};
    }
    if (state.array.size() > kFifoPorts / kFifoWordsPerPage) {
        return vmm::Failure{"array: words for more ports than there can be"};
    }
    const std::size_t words = state.array.size() * kFifoWordsPerPage;
    bool any = false;
    for (std::size_t i = 0; i < state.vcpus.size(); ++i) {
        const FifoVcpuState& vcpu = state.vcpus[i];
        const auto refused = [&](const char* why) {
            return vmm::Failure{"vcpus: " + std::to_string(i) + ": " + why};
        };
        if (vcpu.block) {
            any = true;
            const std::uint64_t offset = vmm::Gpa{*vcpu.block}.offset();
            if (offset > vmm::kPageSize - kFifoControlBlockBytes ||
                offset % sizeof(std::uint64_t) != 0) {
                return refused("block: no control block can be there");
            }
        }
        for (const Port tail : vcpu.tails) {
            if (tail == 0) continue;
            if (!vcpu.block) return refused("tails: a queue, and no control block");
            if (tail >= words) return refused("tails: a port without a word");
        }
    }
    if (!any) return vmm::Failure{"vcpus: none has a control block"};
    return {};
}

NamedPage FifoEvents::find(std::uint64_t gfn, const vmm::GuestMemory& memory) {
    if (std::byte* host = memory.kept_page(gfn)) return {gfn, host};
    return {gfn, gone_.emplace_back(std::make_unique<Page>())->data()};
}

FifoEvents::FifoEvents(const FifoEventsState& state, const vmm::GuestMemory& memory)
    : vcpus_(state.vcpus.size()) {
    for (const std::uint64_t gfn : state.array) {
        add_page(find(gfn, memory));
    }
    for (unsigned i = 0; i < vcpus_.size(); ++i) {
        const FifoVcpuState& saved = state.vcpus[i];
        vcpus_[i].tails = saved.tails;
        if (!saved.block) continue;
        const vmm::Gpa block{*saved.block};
        set_control_block(i, find(block.gfn(), memory), static_cast<std::uint32_t>(block.offset()));
    }
}

}  // namespace xenshim
