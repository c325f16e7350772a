// A domain to its components' states and back, for tests: what the program does with a stream in
// between. And what holds for each component: a state that is refused changes nothing.
#pragma once

#include <string>

#include <gtest/gtest.h>

#include "tests/fakes/test_domain.h"

namespace xenshim::fakes {

struct SavedDomain {
    LegacyQuirks::State quirks;
    Params::State params;
    MemoryMap::State memory_map;
    Physmap::State physmap;
    GrantTable::State grants;
    GrantMaps::State grant_maps;
    OwnPages::State own_pages;
    SharedInfo::State shared_info;
    EventChannels::State event_channels;
    Domain::State domain;

    bool operator==(const SavedDomain&) const = default;
};

inline SavedDomain save(Domain& domain) {
    return {.quirks = domain.quirks().snapshot(),
            .params = domain.params().snapshot(),
            .memory_map = domain.memory_map().snapshot(),
            .physmap = domain.physmap().snapshot(),
            .grants = domain.grants().snapshot(),
            .grant_maps = domain.grant_maps().snapshot(),
            .own_pages = domain.own_pages().snapshot(),
            .shared_info = domain.shared_info().snapshot(),
            .event_channels = domain.event_channels().snapshot(),
            .domain = domain.snapshot()};
}

inline vmm::Expected<void, std::string> restore(Domain& domain, const SavedDomain& saved) {
    TRY(domain.quirks().adopt(saved.quirks));
    TRY(domain.params().adopt(saved.params));
    TRY(domain.memory_map().adopt(saved.memory_map));
    TRY(domain.physmap().adopt(saved.physmap));
    TRY(domain.grants().adopt(saved.grants));
    TRY(domain.grant_maps().adopt(saved.grant_maps));
    TRY(domain.own_pages().adopt(saved.own_pages));
    TRY(domain.shared_info().adopt(saved.shared_info));
    TRY(domain.event_channels().adopt(saved.event_channels));
    return domain.adopt(saved.domain);
}

// By bytes, as a stream carries them.
template <class Component>
vmm::Expected<void, std::string> carry(const Component& from, Component& to) {
    using State = typename Component::State;
    const auto bytes = vmm::saved::encode(from.snapshot());
    return to.adopt(TRY(vmm::saved::decode<State>(bytes, State::kSection.version)));
}

// All of a domain but its memory and its clock.
inline vmm::Expected<void, std::string> carry_domain(Domain& from, Domain& to) {
    TRY(carry(from.quirks(), to.quirks()));
    TRY(carry(from.params(), to.params()));
    TRY(carry(from.memory_map(), to.memory_map()));
    TRY(carry(from.physmap(), to.physmap()));
    TRY(carry(from.grants(), to.grants()));
    TRY(carry(from.grant_maps(), to.grant_maps()));
    TRY(carry(from.own_pages(), to.own_pages()));
    TRY(carry(from.shared_info(), to.shared_info()));
    TRY(carry(from.event_channels(), to.event_channels()));
    return carry(from, to);
}

// Which member differs, for a message.
inline void expect_same(const SavedDomain& a, const SavedDomain& b) {
    EXPECT_TRUE(a.quirks == b.quirks);
    EXPECT_TRUE(a.params == b.params);
    EXPECT_TRUE(a.memory_map == b.memory_map);
    EXPECT_TRUE(a.physmap == b.physmap);
    EXPECT_TRUE(a.grants == b.grants);
    EXPECT_TRUE(a.grant_maps == b.grant_maps);
    EXPECT_TRUE(a.own_pages == b.own_pages);
    EXPECT_TRUE(a.shared_info == b.shared_info);
    EXPECT_TRUE(a.event_channels == b.event_channels);
    EXPECT_TRUE(a.domain == b.domain);
}

// `to` is fresh, and gets the memory, the clock and the state of `from`.
inline void move_domain(TestDomain& from, TestDomain& to) {
    to.ports.copy_memory(from.ports);
    to.ports.now_ns = from.ports.now_ns.load();
    const SavedDomain saved = save(from.domain);
    const auto restored = carry_domain(from.domain, to.domain);
    ASSERT_TRUE(restored) << restored.error();
    to.domain.physmap().settle();
    expect_same(save(to.domain), saved);
    expect_same(save(from.domain), saved);  // looking changes nothing
}

// The reason begins with the member's name, and nothing has changed.
template <class Component>
void expect_refused(Component& fresh, const typename Component::State& state,
                    const std::string& reason) {
    const auto before = fresh.snapshot();
    const auto adopted = fresh.adopt(state);
    ASSERT_FALSE(adopted) << "taken, and should be refused for: " << reason;
    EXPECT_EQ(adopted.error().substr(0, reason.size()), reason);
    EXPECT_TRUE(fresh.snapshot() == before) << reason << ": refused, and something has changed";
}

}  // namespace xenshim::fakes
