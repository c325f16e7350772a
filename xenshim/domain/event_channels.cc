#include "xenshim/domain/event_channels.h"

#include <algorithm>
#include <bit>
#include <new>

namespace xenshim {

using namespace abi;

EventChannels::EventChannels(Ports& ports, vmm::GuestMemory& memory, SharedInfo& shared_info,
                             Limits limits)
    : ports_(ports),
      memory_(memory),
      shared_info_(shared_info),
      limits_(limits),
      virqs_(limits.vcpus) {
    buckets_.reserve(most_buckets());
    buckets_with_free_.resize((most_buckets() + 63) / 64);
    static_cast<void>(add_bucket_locked());  // at start there is memory
    buckets_[0]->free &= ~std::uint64_t{1};  // port 0 is nobody's
}

bool EventChannels::is_global(std::uint32_t virq) {
    constexpr std::uint32_t kXenoprof = 7;
    return virq != VIRQ_TIMER && virq != VIRQ_DEBUG && virq != kXenoprof && virq != VIRQ_XENPMU;
}

bool EventChannels::closed_locked(Port port) const {
    return port == 0 || port >= table_end() || channel(port).state == EVTCHNSTAT_closed;
}

bool EventChannels::valid(Port port) const {
    const std::scoped_lock lock(mutex_);
    return port < table_end();
}

bool EventChannels::is_fifo() const {
    const std::scoped_lock lock(mutex_);
    return fifo_ != nullptr;
}

GuestResult<void> EventChannels::add_bucket_locked() {
    std::unique_ptr<Bucket> bucket(new (std::nothrow) Bucket);
    if (bucket == nullptr) return refuse(XEN_ENOMEM);
    const std::size_t index = buckets_.size();
    buckets_.push_back(std::move(bucket));  // room was reserved
    buckets_with_free_[index / 64] |= std::uint64_t{1} << (index % 64);
    return {};
}

GuestResult<Port> EventChannels::allocate_locked() {
    const Port ports = fifo_ ? kFifoPorts : shared_info_.layout()->ports;
    const Port limit = std::min<Port>(limits_.max_port, ports - 1);
    for (std::size_t word = 0; word < buckets_with_free_.size(); ++word) {
        for (std::uint64_t left = buckets_with_free_[word]; left != 0; left &= left - 1) {
            const auto index = static_cast<Port>(word * 64) + std::countr_zero(left);
            for (std::uint64_t free = buckets_[index]->free; free != 0; free &= free - 1) {
                const Port port = index * kBucket + static_cast<Port>(std::countr_zero(free));
                if (port > limit) return refuse(XEN_ENOSPC);
                // One that the guest has not taken off its queue yet would come up as the new
                // owner's event, on the old one's vCPU.
                if (!fifo_ || !fifo_->is_linked(port)) return port;
            }
        }
    }
    const Port port = table_end();
    if (port > limit) return refuse(XEN_ENOSPC);
    TRY(add_bucket_locked());
    return port;
}

void EventChannels::put_locked(Port port, const Channel& what) {
    Channel& to = channel(port);
    const FifoEvents::Channel fifo = to.fifo;
    to = what;
    to.fifo = {.last_priority = fifo.last_priority, .last_vcpu = fifo.last_vcpu};
    Bucket& bucket = *buckets_[port / kBucket];
    const std::uint64_t bit = std::uint64_t{1} << (port % kBucket);
    const std::size_t index = port / kBucket;
    if (what.state == EVTCHNSTAT_closed) {
        bucket.free |= bit;
        buckets_with_free_[index / 64] |= std::uint64_t{1} << (index % 64);
        --open_;
        return;
    }
    bucket.free &= ~bit;
    if (bucket.free == 0) buckets_with_free_[index / 64] &= ~(std::uint64_t{1} << (index % 64));
    ++open_;
}

GuestResult<Port> EventChannels::alloc_unbound(std::uint16_t remote) {
    const std::scoped_lock lock(mutex_);
    const Port port = TRY(allocate_locked());
    put_locked(port, {.state = EVTCHNSTAT_unbound,
                      .remote_domid = remote == DOMID_SELF ? limits_.domid : remote});
    return port;
}

GuestResult<Port> EventChannels::bind_interdomain(std::uint16_t remote, Port remote_port) {
    int raise = -1;
    Port port = 0;
    {
        const std::scoped_lock lock(mutex_);
        if (remote == DOMID_SELF || remote == limits_.domid) {
            port = TRY(allocate_locked());
            if (closed_locked(remote_port)) return refuse(XEN_EINVAL);
            Channel& other = channel(remote_port);
            if (other.state != EVTCHNSTAT_unbound || other.remote_domid != limits_.domid) {
                return refuse(XEN_EINVAL);
            }
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
        put_locked(port, {.state = EVTCHNSTAT_interdomain,
                          .remote_domid = remote == DOMID_SELF ? limits_.domid : remote,
                          .remote_port = remote_port});
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
    put_locked(port, {.state = EVTCHNSTAT_virq, .vcpu = vcpu, .virq = virq});
    virqs_[vcpu][virq] = port;
    return port;
}

GuestResult<Port> EventChannels::bind_pirq(std::uint32_t pirq) {
    if (pirq >= kPirqs) return refuse(XEN_EINVAL);
    const std::scoped_lock lock(mutex_);
    if (pirqs_[pirq] != 0) return refuse(XEN_EEXIST);
    const Port port = TRY(allocate_locked());
    pirqs_[pirq] = port;
    put_locked(port, {.state = EVTCHNSTAT_pirq, .pirq = pirq});
    return port;
}

GuestResult<Port> EventChannels::bind_ipi(std::uint32_t vcpu) {
    if (vcpu >= limits_.vcpus) return refuse(XEN_ENOENT);
    const std::scoped_lock lock(mutex_);
    const Port port = TRY(allocate_locked());
    put_locked(port, {.state = EVTCHNSTAT_ipi, .vcpu = vcpu});
    return port;
}

void EventChannels::close_locked(Port port) {
    Channel& closing = channel(port);
    switch (closing.state) {
        case EVTCHNSTAT_virq:
            // A global VIRQ may have been moved: it stands in the row of the vCPU that bound it.
            for (auto& row : virqs_) {
                if (row[closing.virq] == port) row[closing.virq] = 0;
            }
            break;
        case EVTCHNSTAT_pirq: pirqs_[closing.pirq] = 0; break;
        case EVTCHNSTAT_interdomain:
            if (closing.remote_domid == limits_.domid) {
                Channel& other = channel(closing.remote_port);
                other.state = EVTCHNSTAT_unbound;
                other.remote_domid = limits_.domid;
                other.remote_port = 0;
            } else if (const auto b = backends_.find(closing.remote_port); b != backends_.end()) {
                b->second.local = 0;
            }
            break;
        default: break;
    }
    // The number will be given out again: a stale bit would be somebody else's event.
    if (fifo_) {
        fifo_->clear_pending(port, closing.fifo);
    } else if (port < shared_info_.layout()->ports) {
        shared_info_.clear_pending(port);
    }
    put_locked(port, {});
}

GuestResult<void> EventChannels::close(Port port) {
    const std::scoped_lock lock(mutex_);
    if (closed_locked(port)) return refuse(XEN_EINVAL);
    close_locked(port);
    return {};
}

void EventChannels::close_bucket_locked(Port port) {
    const Port end = port / kBucket * kBucket + kBucket;
    for (; port < end; ++port) {
        if (!closed_locked(port)) close_locked(port);
    }
}

GuestResult<Port> EventChannels::reset(bool go_on, const std::function<bool(Port)>& stop_before) {
    Port next = 0;
    {
        const std::scoped_lock lock(mutex_);
        if (go_on != (reset_.next != 0)) return refuse(XEN_EBUSY);
        if (!go_on) reset_.next = 1;
        next = reset_.next;
    }
    for (;;) {
        const std::scoped_lock lock(mutex_);
        if (next < table_end()) close_bucket_locked(next);
        next = next / kBucket * kBucket + kBucket;
        if (next < table_end()) {
            if (!stop_before(next)) continue;
            reset_.next = next;
            return next;
        }
        reset_.next = 0;
        // Somebody bound a port behind our back: the ABI cannot change under it.
        if (open_ != 0) return refuse(XEN_EAGAIN);
        fifo_.reset();
        return Port{0};
    }
}

void EventChannels::reset() {
    const std::scoped_lock lock(mutex_);
    for (Port port = 0; port < table_end(); port += kBucket) {
        close_bucket_locked(port);
    }
    fifo_.reset();
}

int EventChannels::set_pending_locked(Port port) {
    if (fifo_) {
        Channel& to = channel(port);
        if (!fifo_->set_pending(port, to.fifo, to.vcpu)) return -1;
        shared_info_.set_upcall_pending(to.vcpu);
        return static_cast<int>(to.vcpu);
    }
    if (port >= shared_info_.layout()->ports) return -1;  // latched to fewer ports meanwhile
    if (shared_info_.set_pending(port)) return -1;
    const unsigned vcpu = channel(port).vcpu;
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
        const Channel& sender = channel(port);
        switch (sender.state) {
            case EVTCHNSTAT_interdomain:
                if (sender.remote_domid == limits_.domid) {
                    raise = set_pending_locked(sender.remote_port);
                    break;
                }
                local = false;
                if (const auto b = backends_.find(sender.remote_port);
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
        if (port >= table_end()) return refuse(XEN_EINVAL);
        if (closed_locked(port)) return {};  // an answer, and nothing else (measured of port 0)
        Channel& of = channel(port);
        if (fifo_) {
            if (fifo_->unmask(port, of.fifo, of.vcpu)) {
                shared_info_.set_upcall_pending(of.vcpu);
                raise = static_cast<int>(of.vcpu);
            }
        } else {
            if (port >= shared_info_.layout()->ports) return refuse(XEN_EINVAL);
            if (shared_info_.clear_mask(port) && shared_info_.is_pending(port)) {
                shared_info_.set_selector(of.vcpu, port);
                shared_info_.set_upcall_pending(of.vcpu);
                raise = static_cast<int>(of.vcpu);
            }
        }
    }
    act(raise, false);
    return {};
}

GuestResult<void> EventChannels::bind_vcpu(Port port, std::uint32_t vcpu) {
    if (vcpu >= limits_.vcpus) return refuse(XEN_ENOENT);
    const std::scoped_lock lock(mutex_);
    if (closed_locked(port)) return refuse(XEN_EINVAL);
    Channel& moving = channel(port);
    switch (moving.state) {
        case EVTCHNSTAT_virq:
            if (!is_global(moving.virq)) return refuse(XEN_EINVAL);
            break;
        case EVTCHNSTAT_unbound:
        case EVTCHNSTAT_interdomain:
        case EVTCHNSTAT_pirq: break;
        default: return refuse(XEN_EINVAL);
    }
    moving.vcpu = vcpu;  // what is on a queue already stays there
    return {};
}

GuestResult<EventChannels::Status> EventChannels::status(Port port) const {
    const std::scoped_lock lock(mutex_);
    if (port >= table_end()) return refuse(XEN_EINVAL);
    const Channel& c = channel(port);
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
    return pending_locked(port);
}

bool EventChannels::pending_locked(Port port) const {
    if (fifo_) return fifo_->is_pending(port);
    return port < shared_info_.layout()->ports && shared_info_.is_pending(port);
}

// ---- FIFO ---------------------------------------------------------------------------------------

GuestResult<void> EventChannels::init_control(std::uint32_t vcpu, std::uint32_t offset,
                                              NamedPage page) {
    if (vcpu >= limits_.vcpus) return refuse(XEN_ENOENT);
    if (offset > vmm::kPageSize - kFifoControlBlockBytes) return refuse(XEN_EINVAL);
    if (offset % sizeof(std::uint64_t) != 0) return refuse(XEN_EINVAL);
    const std::scoped_lock lock(mutex_);
    if (page.host == nullptr) return refuse(XEN_EINVAL);
    if (fifo_) {
        if (fifo_->has_control_block(vcpu)) return refuse(XEN_EINVAL);
    } else {
        // The first one makes the change. What is pending in the bitmap now will be raised when
        // its word is there.
        std::unique_ptr<FifoEvents> fifo(new (std::nothrow) FifoEvents(limits_.vcpus));
        if (fifo == nullptr) return refuse(XEN_ENOMEM);
        for (Port port = 1; port < table_end(); ++port) {
            if (!closed_locked(port)) {
                channel(port).fifo = {.waits_for_word = pending_locked(port)};
            } else {
                channel(port).fifo = {};
            }
        }
        fifo_ = std::move(fifo);
    }
    fifo_->set_control_block(vcpu, page, offset);
    return {};
}

GuestResult<void> EventChannels::expand_array(NamedPage page) {
    std::vector<bool> raise(limits_.vcpus);
    {
        const std::scoped_lock lock(mutex_);
        if (!fifo_) return refuse(XEN_EOPNOTSUPP);
        const Port first = fifo_->words();
        if (first >= kFifoPorts) return refuse(XEN_ENOSPC);
        if (page.host == nullptr) return refuse(XEN_EINVAL);
        fifo_->add_page(page);
        const Port end = std::min(first + kFifoWordsPerPage, table_end());
        for (Port port = first; port < end; ++port) {
            Channel& of = channel(port);
            if (!of.fifo.waits_for_word) continue;
            of.fifo.waits_for_word = false;
            if (!fifo_->set_pending(port, of.fifo, of.vcpu)) continue;
            shared_info_.set_upcall_pending(of.vcpu);
            raise[of.vcpu] = true;
        }
    }
    for (unsigned vcpu = 0; vcpu < limits_.vcpus; ++vcpu) {
        if (raise[vcpu]) act(static_cast<int>(vcpu), true);
    }
    return {};
}

GuestResult<void> EventChannels::set_priority(Port port, std::uint32_t priority) {
    const std::scoped_lock lock(mutex_);
    if (port >= table_end()) return refuse(XEN_EINVAL);
    if (!fifo_) return refuse(XEN_ENOSYS);
    if (closed_locked(port)) return refuse(XEN_EACCES);
    if (priority >= kFifoPriorities) return refuse(XEN_EINVAL);
    channel(port).fifo.priority = static_cast<std::uint8_t>(priority);  // from its next event on
    return {};
}

// ---- what the VMM asks --------------------------------------------------------------------------

EventChannels::BackendPort EventChannels::attach_backend(std::function<void()> on_send) {
    const std::scoped_lock lock(mutex_);
    const auto port = allocate_locked();
    if (!port) return {};  // only at start, where the table is empty
    const Port remote = next_backend_++;
    backends_[remote] = {.on_send = std::move(on_send), .local = *port};
    put_locked(*port, {.state = EVTCHNSTAT_interdomain, .remote_domid = 0, .remote_port = remote});
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
