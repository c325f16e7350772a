// Event channels, 2-level and FIFO. Follows Xen 4.17's common/event_channel.c in behaviour; answers
// as measured on Xen 4.17.7.
//
// The domains that a guest can name are itself and domain 0, where our backends live: a backend
// owns a remote port there, and the guest's end is bound to it. One mutex guards the port table
// and the FIFO queues; it is not held while an upcall is raised or a backend is told.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "xenshim/abi/errno.h"
#include "xenshim/abi/numbers.h"
#include "xenshim/domain/event_channels_state.h"
#include "xenshim/domain/fifo_events.h"
#include "xenshim/domain/ports.h"
#include "xenshim/domain/shared_info.h"

namespace xenshim {

class EventChannels {
  public:
    using State = EventChannelsState;
    struct Limits {
        unsigned vcpus = 1;
        std::uint32_t max_port = 1023;  // the highest port number that may be allocated
        std::uint16_t domid = 1;
    };
    EventChannels(Ports& ports, vmm::GuestMemory& memory, SharedInfo& shared_info, Limits limits);

    // ---- what the guest may ask -----------------------------------------------------------------
    GuestResult<Port> alloc_unbound(std::uint16_t remote);
    GuestResult<Port> bind_interdomain(std::uint16_t remote, Port remote_port);
    GuestResult<Port> bind_virq(std::uint32_t virq, std::uint32_t vcpu);
    GuestResult<Port> bind_pirq(std::uint32_t pirq);
    GuestResult<Port> bind_ipi(std::uint32_t vcpu);
    GuestResult<void> close(Port port);
    GuestResult<void> send(Port port);
    GuestResult<void> unmask(Port port);
    GuestResult<void> bind_vcpu(Port port, std::uint32_t vcpu);
    // Whether the port lies in the part of the table that exists (allocated or free).
    bool valid(Port port) const;
    // Back to no ports at all and to the 2-level ABI; backends keep their ports, so that the guest
    // can bind to them again. `go_on`: as a continuation of one that stopped. Between steps of 64
    // ports `stop_before` is asked; the port that it stopped before is returned, 0 when all is
    // done. Until then others hear -EBUSY, also when the guest drops the continuation, as on Xen.
    GuestResult<Port> reset(bool go_on, const std::function<bool(Port)>& stop_before);
    // The same in one go, whatever else is under way: Xen before XSA-344.
    void reset();

    // ---- FIFO -----------------------------------------------------------------------------------
    GuestResult<void> init_control(std::uint32_t vcpu, std::uint32_t offset, NamedPage page);
    GuestResult<void> expand_array(NamedPage page);
    GuestResult<void> set_priority(Port port, std::uint32_t priority);
    bool is_fifo() const;

    struct Status {
        std::uint32_t status = 0;  // EVTCHNSTAT_*
        std::uint32_t vcpu = 0;
        std::array<std::uint32_t, 2> u{};
    };
    GuestResult<Status> status(Port port) const;
    // For SCHEDOP_poll: -EINVAL when no channel is there, else whether it is pending.
    GuestResult<bool> pending(Port port) const;

    // ---- what the VMM asks ----------------------------------------------------------------------
    // A backend's port in domain 0 and the guest's end of it, bound to each other. `on_send` runs
    // on the sending vCPU's thread and must not block.
    struct BackendPort {
        Port local = 0;   // the guest's
        Port remote = 0;  // ours
    };
    BackendPort attach_backend(std::function<void()> on_send);
    // The backend owning `remote` notifies the guest, wherever it bound its end; nothing when it
    // did not.
    void notify(Port remote);
    void raise_virq(std::uint32_t virq, unsigned vcpu);
    // Marks everything pending for this vCPU, so that nothing is lost by a move of vcpu_info.
    void mark_all(unsigned vcpu);
    // Number of vCPUs in SCHEDOP_poll: set before looking at the ports.
    std::atomic<unsigned> pollers{0};

    // ---- saved and restored (event_channels_saved.cc) -------------------------------------------
    State snapshot() const;
    // When as many backends were attached as the state's VM had, in the same order: each finds its
    // remote port bound as it was, also when the guest bound another one to it. After the physical
    // memory map was adopted, for the pages are looked up. Raises nothing.
    vmm::Expected<void, std::string> adopt(const State& state);
    // As of a domain that is new: no port but those of the backends, which get the first ones in the
    // order in which they were attached, and the 2-level ABI. While no vCPU runs.
    void begin_anew();

  private:
    struct Channel {
        std::uint32_t state = abi::EVTCHNSTAT_closed;
        std::uint32_t vcpu = 0;
        std::uint16_t remote_domid = 0;
        Port remote_port = 0;
        std::uint32_t virq = 0;
        std::uint32_t pirq = 0;
        FifoEvents::Channel fifo{};
    };
    // Xen makes room for channels in buckets of this many; ports beyond the last bucket are
    // invalid, free ones inside it merely closed.
    static constexpr Port kBucket = 64;
    struct Bucket {
        std::array<Channel, kBucket> channels;
        std::uint64_t free = ~std::uint64_t{0};  // bit per channel
    };
    // What a physical interrupt is bound to. So many a PVH guest has (measured): they can be bound,
    // and never fire.
    static constexpr std::uint32_t kPirqs = 48;
    // How far a reset came that stopped. Part of the domain's state.
    struct ResetProgress {
        Port next = 0;  // the first port that is not closed yet; 0: no reset is under way
    };
    struct Backend {
        std::function<void()> on_send;
        Port local = 0;  // 0: not bound
    };

    Channel& channel(Port port) { return buckets_[port / kBucket]->channels[port % kBucket]; }
    const Channel& channel(Port port) const {
        return buckets_[port / kBucket]->channels[port % kBucket];
    }
    Port table_end() const { return static_cast<Port>(buckets_.size()) * kBucket; }
    GuestResult<void> add_bucket_locked();
    // The lowest free port; it stays free until something is put there.
    GuestResult<Port> allocate_locked();
    void put_locked(Port port, const Channel& what);
    void close_locked(Port port);
    // Closes what is open from `port` to the end of its bucket.
    void close_bucket_locked(Port port);
    bool pending_locked(Port port) const;
    bool closed_locked(Port port) const;
    // Makes `port` pending; the vCPU to raise an upcall on, or -1.
    int set_pending_locked(Port port);
    void act(int vcpu, bool newly_pending);
    static bool is_global(std::uint32_t virq);
    std::size_t most_buckets() const {
        return std::size_t{std::min(limits_.max_port, kFifoPorts - 1)} / kBucket + 1;
    }
    std::optional<EventChannelState> saved_locked(const Channel& channel) const;
    vmm::Expected<void, std::string> check_locked(const State& state) const;
    vmm::Expected<void, std::string> check_channel_locked(const State& state, Port port) const;
    vmm::Expected<void, std::string> check_bindings_locked(const State& state) const;
    // A channel that stands at its place is bound to what it says that it is bound to.
    void bind_locked(Port port);

    Ports& ports_;
    vmm::GuestMemory& memory_;
    SharedInfo& shared_info_;
    const Limits limits_;
    mutable std::mutex mutex_;
    // All below are guarded by mutex_.
    std::vector<std::unique_ptr<Bucket>> buckets_;
    std::vector<std::uint64_t> buckets_with_free_;  // bit per bucket
    Port open_ = 0;                                 // ports in use
    std::unique_ptr<FifoEvents> fifo_;              // null: 2-level
    ResetProgress reset_;
    std::map<Port, Backend> backends_;                    // by remote port
    std::vector<std::array<Port, abi::NR_VIRQS>> virqs_;  // [vcpu][virq] -> port
    std::array<Port, kPirqs> pirqs_{};                    // -> port
    Port next_backend_ = 1;
};

}  // namespace xenshim
