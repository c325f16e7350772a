// Event channels, saved and restored: see event_channels_state.h.
#include <utility>

#include "xenshim/domain/event_channels.h"

namespace xenshim {

using namespace abi;
using vmm::Failure;

// What is there to save of a channel. Out of the FIFO ABI nothing of its queues matters any more:
// entering it begins with all of them new.
std::optional<EventChannelState> EventChannels::saved_locked(const Channel& c) const {
    EventChannelState saved{.status = static_cast<std::uint8_t>(c.state),
                            .vcpu = c.vcpu,
                            .remote_domid = c.remote_domid,
                            .remote_port = c.remote_port,
                            .source = c.state == EVTCHNSTAT_pirq ? c.pirq : c.virq};
    if (fifo_ != nullptr) {
        if (c.state != EVTCHNSTAT_closed) saved.priority = c.fifo.priority;
        saved.last_priority = c.fifo.last_priority;
        saved.last_vcpu = c.fifo.last_vcpu;
        saved.waits_for_word = c.fifo.waits_for_word;
    }
    if (saved == EventChannelState{}) return std::nullopt;
    return saved;
}

EventChannels::State EventChannels::snapshot() const {
    const std::scoped_lock lock(mutex_);
    State state{.buckets = static_cast<std::uint32_t>(buckets_.size()),
                .reset_next = reset_.next,
                .backends = static_cast<std::uint32_t>(backends_.size()),
                .channels = {},
                .fifo = {}};
    for (Port port = 1; port < table_end(); ++port) {
        if (const auto saved = saved_locked(channel(port))) {
            state.channels.emplace_hint(state.channels.end(), port, *saved);
        }
    }
    if (fifo_ != nullptr) state.fifo = fifo_->snapshot();
    return state;
}

// ---- a state that may be anything ---------------------------------------------------------------

vmm::Expected<void, std::string> EventChannels::check_channel_locked(const State& state,
                                                                     Port port) const {
    const EventChannelState& c = state.channels.at(port);
    if (port == 0 || port >= state.buckets * kBucket) return Failure{"is not in the table"};
    if (c.status > EVTCHNSTAT_ipi) return Failure{"status: there is none such"};
    if (c.vcpu >= limits_.vcpus) return Failure{"vcpu: there is none such"};

    const bool open = c.status != EVTCHNSTAT_closed;
    const bool linked = c.status == EVTCHNSTAT_interdomain;
    const bool interrupt = c.status == EVTCHNSTAT_virq || c.status == EVTCHNSTAT_pirq;
    if (open && port > limits_.max_port) return Failure{"status: beyond the highest port"};
    if (!open && c.vcpu != 0) return Failure{"vcpu: of a free port"};
    if (c.status != EVTCHNSTAT_unbound && !linked && c.remote_domid != 0) {
        return Failure{"remote_domid: nobody is remote"};
    }
    if (!linked && c.remote_port != 0) return Failure{"remote_port: nobody is remote"};
    if (!interrupt && c.source != 0) return Failure{"source: it is no interrupt's"};
    if (c.status == EVTCHNSTAT_virq) {
        if (c.source >= NR_VIRQS) return Failure{"source: there is no such VIRQ"};
    } else if (c.source >= kPirqs) {
        return Failure{"source: there is no such interrupt"};
    }
    if (linked && c.remote_domid == limits_.domid) {
        const auto other = state.channels.find(c.remote_port);
        if (c.remote_port == port || other == state.channels.end() ||
            other->second.status != EVTCHNSTAT_interdomain ||
            other->second.remote_domid != limits_.domid || other->second.remote_port != port) {
            return Failure{"remote_port: is not bound to this one"};
        }
    } else if (linked && (c.remote_domid != 0 || !backends_.contains(c.remote_port))) {
        return Failure{"remote_port: there is none such"};
    }

    if (!state.fifo) {
        if (c.priority != 0 || c.last_priority != 0 || c.last_vcpu != 0 || c.waits_for_word ||
            !open) {
            return Failure{"is of the FIFO ABI"};
        }
        return {};
    }
    if (c.priority >= kFifoPriorities || (!open && c.priority != 0)) {
        return Failure{"priority: there is none such"};
    }
    if (c.last_priority >= kFifoPriorities) return Failure{"last_priority: there is none such"};
    if (c.last_vcpu >= limits_.vcpus) return Failure{"last_vcpu: there is none such"};
    if (c.waits_for_word && (!open || port < state.fifo->array.size() * kFifoWordsPerPage)) {
        return Failure{"waits_for_word: it is closed, or has one"};
    }
    if (c == EventChannelState{}) return Failure{"says nothing"};
    return {};
}

// Whether one thing is bound to one port.
vmm::Expected<void, std::string> EventChannels::check_bindings_locked(const State& state) const {
    std::map<std::pair<std::uint32_t, std::uint32_t>, Port> virqs;  // by row and number
    std::map<std::uint32_t, Port> pirqs, remotes;
    for (const auto& [port, c] : state.channels) {
        bool first = true;
        if (c.status == EVTCHNSTAT_virq) {
            first = virqs.insert({{is_global(c.source) ? 0 : c.vcpu, c.source}, port}).second;
        } else if (c.status == EVTCHNSTAT_pirq) {
            first = pirqs.insert({c.source, port}).second;
        } else if (c.status == EVTCHNSTAT_interdomain && c.remote_domid != limits_.domid) {
            first = remotes.insert({c.remote_port, port}).second;
        }
        if (!first) {
            return Failure{"channels: port " + std::to_string(port) +
                           ": what it is bound to has a port already"};
        }
    }
    return {};
}

vmm::Expected<void, std::string> EventChannels::check_locked(const State& state) const {
    if (state.buckets == 0 || state.buckets > most_buckets()) {
        return Failure{"buckets: " + std::to_string(state.buckets) + ", there may be 1 to " +
                       std::to_string(most_buckets())};
    }
    if (state.reset_next % kBucket != 0 || state.reset_next >= state.buckets * kBucket) {
        return Failure{"reset_next: a reset does not stop there"};
    }
    if (state.backends != backends_.size()) {
        return Failure{"backends: " + std::to_string(state.backends) + " of them, here are " +
                       std::to_string(backends_.size())};
    }
    if (state.fifo) {
        if (const auto fifo = FifoEvents::check(*state.fifo, limits_.vcpus); !fifo) {
            return Failure{"fifo: " + fifo.error()};
        }
    }
    for (const auto& [port, saved] : state.channels) {
        if (const auto checked = check_channel_locked(state, port); !checked) {
            return Failure{"channels: port " + std::to_string(port) + ": " + checked.error()};
        }
    }
    return check_bindings_locked(state);
}

// ---- and one that was checked -------------------------------------------------------------------

void EventChannels::bind_locked(Port port) {
    const Channel& c = channel(port);
    switch (c.state) {
        case EVTCHNSTAT_virq: virqs_[is_global(c.virq) ? 0 : c.vcpu][c.virq] = port; break;
        case EVTCHNSTAT_pirq: pirqs_[c.pirq] = port; break;
        case EVTCHNSTAT_interdomain:
            if (c.remote_domid != limits_.domid) backends_[c.remote_port].local = port;
            break;
        default: break;
    }
}

vmm::Expected<void, std::string> EventChannels::adopt(const State& state) {
    const std::scoped_lock lock(mutex_);
    TRY(check_locked(state));
    buckets_.clear();
    std::fill(buckets_with_free_.begin(), buckets_with_free_.end(), 0);
    for (std::size_t i = 0; i < state.buckets; ++i) {
        buckets_.push_back(std::make_unique<Bucket>());
        buckets_with_free_[i / 64] |= std::uint64_t{1} << (i % 64);
    }
    buckets_[0]->free &= ~std::uint64_t{1};
    open_ = 0;
    std::fill(virqs_.begin(), virqs_.end(), std::array<Port, NR_VIRQS>{});
    pirqs_.fill(0);
    for (auto& [remote, backend] : backends_) {
        backend.local = 0;
    }
    for (const auto& [port, saved] : state.channels) {
        const bool pirq = saved.status == EVTCHNSTAT_pirq;
        if (saved.status != EVTCHNSTAT_closed) {
            put_locked(port, {.state = saved.status,
                              .vcpu = saved.vcpu,
                              .remote_domid = saved.remote_domid,
                              .remote_port = saved.remote_port,
                              .virq = pirq ? 0 : saved.source,
                              .pirq = pirq ? saved.source : 0});
            bind_locked(port);
        }
        if (!state.fifo) continue;
        FifoEvents::Channel& fifo = channel(port).fifo;
        if (saved.status != EVTCHNSTAT_closed) fifo.priority = saved.priority;
        fifo.last_priority = saved.last_priority;
        fifo.last_vcpu = saved.last_vcpu;
        fifo.waits_for_word = saved.waits_for_word;
    }
    fifo_ = state.fifo ? std::make_unique<FifoEvents>(*state.fifo, memory_) : nullptr;
    reset_.next = state.reset_next;
    return {};
}

void EventChannels::begin_anew() {
    State fresh{.buckets = 1, .reset_next = 0, .backends = 0, .channels = {}, .fifo = {}};
    {
        const std::scoped_lock lock(mutex_);
        fresh.backends = static_cast<std::uint32_t>(backends_.size());
        Port port = 0;
        for (const auto& [remote, backend] : backends_) {
            fresh.channels[++port] = {.status = EVTCHNSTAT_interdomain, .remote_port = remote};
        }
        fresh.buckets = port / kBucket + 1;
    }
    static_cast<void>(adopt(fresh));  // there were as many ports when the backends came
}

}  // namespace xenshim
