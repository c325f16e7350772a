#include "xenshim/domain/event_channels.h"

#include <algorithm>

namespace xenshim {
namespace {

using namespace abi;

// Xen makes room for channels in buckets of this many; ports beyond the last bucket are invalid,
// free ones inside it merely closed.
constexpr Port kBucket = 64;
// What a PVH guest has of physical interrupts (measured): they can be bound, and never fire.
constexpr std::uint32_t kPirqs = 48;

}  // namespace

EventChannels::EventChannels(Ports& ports, SharedInfo& shared_info, Limits limits)
    : ports_(ports),
      shared_info_(shared_info),
      limits_(limits),
      channels_(kBucket),
      virqs_(limits.vcpus) {}

bool EventChannels::is_global(std::uint32_t virq) {
    constexpr std::uint32_t kXenoprof = 7;
    return virq != VIRQ_TIMER && virq != VIRQ_DEBUG && virq != kXenoprof && virq != VIRQ_XENPMU;
}

bool EventChannels::closed_locked(Port port) const {
    return port == 0 || port >= channels_.size() || channels_[port].state == EVTCHNSTAT_closed;
}

bool EventChannels::valid(Port port) const {
    const std::scoped_lock lock(mutex_);
    return port < channels_.size();
}

GuestResult<Port> EventChannels::allocate_locked() {
    const Port limit = std::min<Port>(limits_.max_port, shared_info_.layout()->ports - 1);
    for (Port port = 1; port <= limit; ++port) {
        if (port >= channels_.size()) channels_.resize(channels_.size() + kBucket);
        if (channels_[port].state == EVTCHNSTAT_closed) return port;
    }
    return refuse(XEN_ENOSPC);
}

GuestResult<Port> EventChannels::alloc_unbound(std::uint16_t remote) {
    const std::scoped_lock lock(mutex_);
    const Port port = TRY(allocate_locked());
    channels_[port] = {.state = EVTCHNSTAT_unbound,
                       .remote_domid = remote == DOMID_SELF ? limits_.domid : remote};
    return port;
}

GuestResult<Port> EventChannels::bind_interdomain(std::uint16_t remote, Port remote_port) {
    int raise = -1;
    Port port = 0;
    {
        const std::scoped_lock lock(mutex_);
        if (remote == DOMID_SELF || remote == limits_.domid) {
            port = TRY(allocate_locked());
            if (closed_locked(remote_port) || channels_[remote_port].state != EVTCHNSTAT_unbound ||
                channels_[remote_port].remote_domid != limits_.domid) {
                return refuse(XEN_EINVAL);
            }
            auto& other = channels_[remote_port];
            other.state = EVTCHNSTAT_interdomain;
            other.remote_port = port;
        } else if (remote == 0) {
            const auto backend = backends_.find(remote_port);
            if (backend == backends_.end() || backend->second.local != 0) {
                return refuse(XEN_EINVAL);
            }
            port = TRY(allocate_locked());
            backend->second.local = port;
        } else {
            return refuse(XEN_ESRCH);
        }
        channels_[port] = {.state = EVTCHNSTAT_interdomain,
                           .remote_domid = remote == DOMID_SELF ? limits_.domid : remote,
                           .remote_port = remote_port};
        // A notification sent before the other end was there is lost; one too many makes up.
        raise = set_pending_locked(port);
    }
    act(raise, true);
    return port;
}

GuestResult<Port> EventChannels::bind_virq(std::uint32_t virq, std::uint32_t vcpu) {
    if (virq >= NR_VIRQS) return refuse(XEN_EINVAL);
    if (is_global(virq) && vcpu != 0) return refuse(XEN_EINVAL);
    if (vcpu >= limits_.vcpus) return refuse(XEN_ENOENT);
    const std::scoped_lock lock(mutex_);
    if (virqs_[vcpu][virq] != 0) return refuse(XEN_EEXIST);
    const Port port = TRY(allocate_locked());
    channels_[port] = {.state = EVTCHNSTAT_virq, .vcpu = vcpu, .virq = virq};
    virqs_[vcpu][virq] = port;
    return port;
}

GuestResult<Port> EventChannels::bind_pirq(std::uint32_t pirq) {
    if (pirq >= kPirqs) return refuse(XEN_EINVAL);
    const std::scoped_lock lock(mutex_);
    for (const auto& c : channels_) {
        if (c.state == EVTCHNSTAT_pirq && c.pirq == pirq) return refuse(XEN_EEXIST);
    }
    const Port port = TRY(allocate_locked());
    channels_[port] = {.state = EVTCHNSTAT_pirq, .pirq = pirq};
    return port;
}

GuestResult<Port> EventChannels::bind_ipi(std::uint32_t vcpu) {
    if (vcpu >= limits_.vcpus) return refuse(XEN_ENOENT);
    const std::scoped_lock lock(mutex_);
    const Port port = TRY(allocate_locked());
    channels_[port] = {.state = EVTCHNSTAT_ipi, .vcpu = vcpu};
    return port;
}

void EventChannels::close_locked(Port port) {
    Channel& channel = channels_[port];
    switch (channel.state) {
        case EVTCHNSTAT_virq:
            // A global VIRQ may have been moved: it stands in the row of the vCPU that bound it.
            for (auto& row : virqs_) {
                if (row[channel.virq] == port) row[channel.virq] = 0;
            }
            break;
        case EVTCHNSTAT_interdomain:
            if (channel.remote_domid == limits_.domid) {
                Channel& other = channels_[channel.remote_port];
                other.state = EVTCHNSTAT_unbound;
                other.remote_domid = limits_.domid;
                other.remote_port = 0;
            } else if (const auto b = backends_.find(channel.remote_port); b != backends_.end()) {
                b->second.local = 0;
            }
            break;
        default: break;
    }
    channel = {};
    // The number will be given out again: a stale bit would be somebody else's event.
    if (port < shared_info_.layout()->ports) shared_info_.clear_pending(port);
}

GuestResult<void> EventChannels::close(Port port) {
    const std::scoped_lock lock(mutex_);
    if (closed_locked(port)) return refuse(XEN_EINVAL);
    close_locked(port);
    return {};
}

void EventChannels::reset() {
    const std::scoped_lock lock(mutex_);
    for (Port port = 1; port < channels_.size(); ++port) {
        if (channels_[port].state != EVTCHNSTAT_closed) close_locked(port);
    }
}

int EventChannels::set_pending_locked(Port port) {
    if (port >= shared_info_.layout()->ports) return -1;  // latched to fewer ports meanwhile
    if (shared_info_.set_pending(port)) return -1;
    const unsigned vcpu = channels_[port].vcpu;
    if (shared_info_.is_masked(port)) return -1;
    shared_info_.set_selector(vcpu, port);
    shared_info_.set_upcall_pending(vcpu);
    // Not only on the 0-to-1 edge of upcall_pending: registering a vcpu_info sets it, and a vCPU
    // that was sent INIT has lost what its LAPIC held.
    return static_cast<int>(vcpu);
}

void EventChannels::act(int vcpu, bool newly_pending) {
    if (vcpu >= 0) ports_.upcall(static_cast<unsigned>(vcpu));
    if (newly_pending && pollers.load() != 0) {
        for (unsigned v = 0; v < limits_.vcpus; ++v) {
            ports_.wake(v);
        }
    }
}

GuestResult<void> EventChannels::send(Port port) {
    int raise = -1;
    bool local = true;
    {
        std::unique_lock lock(mutex_);
        if (closed_locked(port)) return refuse(XEN_EINVAL);
        const Channel& channel = channels_[port];
        switch (channel.state) {
            case EVTCHNSTAT_interdomain:
                if (channel.remote_domid == limits_.domid) {
                    raise = set_pending_locked(channel.remote_port);
                    break;
                }
                local = false;
                if (const auto b = backends_.find(channel.remote_port);
                    b != backends_.end() && b->second.on_send) {
                    // Backends are attached before the guest runs and never detached, so the
                    // function stays where it is.
                    const auto& on_send = b->second.on_send;
                    lock.unlock();
                    on_send();
                }
                break;
            case EVTCHNSTAT_ipi: raise = set_pending_locked(port); break;
            case EVTCHNSTAT_unbound: local = false; break;  // nobody listens yet: not an error
            default: return refuse(XEN_EINVAL);
        }
    }
    if (local) act(raise, true);
    return {};
}

GuestResult<void> EventChannels::unmask(Port port) {
    int raise = -1;
    {
        const std::scoped_lock lock(mutex_);
        if (port >= channels_.size()) return refuse(XEN_EINVAL);
        if (port >= shared_info_.layout()->ports) return refuse(XEN_EINVAL);
        if (shared_info_.clear_mask(port) && shared_info_.is_pending(port)) {
            const unsigned vcpu = channels_[port].vcpu;
            shared_info_.set_selector(vcpu, port);
            shared_info_.set_upcall_pending(vcpu);
            raise = static_cast<int>(vcpu);
        }
    }
    act(raise, false);
    return {};
}

GuestResult<void> EventChannels::bind_vcpu(Port port, std::uint32_t vcpu) {
    if (vcpu >= limits_.vcpus) return refuse(XEN_ENOENT);
    const std::scoped_lock lock(mutex_);
    if (closed_locked(port)) return refuse(XEN_EINVAL);
    Channel& channel = channels_[port];
    switch (channel.state) {
        case EVTCHNSTAT_virq:
            if (!is_global(channel.virq)) return refuse(XEN_EINVAL);
            break;
        case EVTCHNSTAT_unbound:
        case EVTCHNSTAT_interdomain:
        case EVTCHNSTAT_pirq: break;
        default: return refuse(XEN_EINVAL);
    }
    channel.vcpu = vcpu;
    return {};
}

GuestResult<EventChannels::Status> EventChannels::status(Port port) const {
    const std::scoped_lock lock(mutex_);
    if (port >= channels_.size()) return refuse(XEN_EINVAL);
    const Channel& c = channels_[port];
    Status out{.status = c.state, .vcpu = c.vcpu, .u = {}};
    switch (c.state) {
        case EVTCHNSTAT_unbound: out.u = {c.remote_domid, 0}; break;
        case EVTCHNSTAT_interdomain: out.u = {c.remote_domid, c.remote_port}; break;
        case EVTCHNSTAT_virq: out.u = {c.virq, 0}; break;
        case EVTCHNSTAT_pirq: out.u = {c.pirq, 0}; break;
        default: break;
    }
    return out;
}

GuestResult<bool> EventChannels::pending(Port port) const {
    const std::scoped_lock lock(mutex_);
    if (closed_locked(port)) return refuse(XEN_EINVAL);
    return port < shared_info_.layout()->ports && shared_info_.is_pending(port);
}

EventChannels::BackendPort EventChannels::attach_backend(std::function<void()> on_send) {
    const std::scoped_lock lock(mutex_);
    const auto port = allocate_locked();
    if (!port) return {};  // only at start, where the table is empty
    const Port remote = next_backend_++;
    backends_[remote] = {.on_send = std::move(on_send), .local = *port};
    channels_[*port] = {.state = EVTCHNSTAT_interdomain, .remote_domid = 0, .remote_port = remote};
    return {.local = *port, .remote = remote};
}

void EventChannels::notify(Port remote) {
    int raise = -1;
    {
        const std::scoped_lock lock(mutex_);
        const auto backend = backends_.find(remote);
        if (backend == backends_.end() || backend->second.local == 0) return;
        raise = set_pending_locked(backend->second.local);
    }
    act(raise, true);
}

void EventChannels::raise_virq(std::uint32_t virq, unsigned vcpu) {
    int raise = -1;
    {
        const std::scoped_lock lock(mutex_);
        const Port port = virqs_[vcpu][virq];
        if (port == 0) return;
        raise = set_pending_locked(port);
    }
    act(raise, true);
}

void EventChannels::mark_all(unsigned vcpu) {
    shared_info_.set_all_selectors(vcpu);
    shared_info_.set_upcall_pending(vcpu);
    act(static_cast<int>(vcpu), false);
}

}  // namespace xenshim
