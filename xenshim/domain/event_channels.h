// Event channels, 2-level ABI. Follows Xen 4.17's common/event_channel.c in behaviour; answers as
// measured on Xen 4.17.7.
//
// The domains that a guest can name are itself and domain 0, where our backends live: a backend
// owns a remote port there, and the guest's end is bound to it. One mutex guards the port table;
// it is not held while an upcall is raised or a backend is told.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <vector>

#include "xenshim/abi/errno.h"
#include "xenshim/abi/numbers.h"
#include "xenshim/domain/ports.h"
#include "xenshim/domain/shared_info.h"

namespace xenshim {

using Port = std::uint32_t;

class EventChannels {
  public:
    struct Limits {
        unsigned vcpus = 1;
        std::uint32_t max_port = 1023;  // the highest port number that may be allocated
        std::uint16_t domid = 1;
    };
    EventChannels(Ports& ports, SharedInfo& shared_info, Limits limits);

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
    // Back to no ports at all; backends keep theirs, so that the guest can bind to them again.
    void reset();

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

  private:
    struct Channel {
        std::uint32_t state = abi::EVTCHNSTAT_closed;
        std::uint32_t vcpu = 0;
        std::uint16_t remote_domid = 0;
        Port remote_port = 0;
        std::uint32_t virq = 0;
        std::uint32_t pirq = 0;
    };
    struct Backend {
        std::function<void()> on_send;
        Port local = 0;  // 0: not bound
    };

    GuestResult<Port> allocate_locked();
    void close_locked(Port port);
    bool closed_locked(Port port) const;
    // Makes `port` pending; the vCPU to raise an upcall on, or -1.
    int set_pending_locked(Port port);
    void act(int vcpu, bool newly_pending);
    static bool is_global(std::uint32_t virq);

    Ports& ports_;
    SharedInfo& shared_info_;
    const Limits limits_;
    mutable std::mutex mutex_;
    std::vector<Channel> channels_;                       // guarded by mutex_
    std::map<Port, Backend> backends_;                    // by remote port; guarded by mutex_
    std::vector<std::array<Port, abi::NR_VIRQS>> virqs_;  // [vcpu][virq] -> port; guarded
    Port next_backend_ = 1;
};

}  // namespace xenshim
