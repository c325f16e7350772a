// What is saved of the grant table and of what the guest has mapped by it. The frames, where the
// entries are with their marks of being in use, are own pages: their contents are saved with the
// physical memory map, and are not touched when they come back.
//
// How an entry that is in use comes back:
//   - mapped by the guest itself: its mappings say by which reference and which page of ours the
//     entry gives access to (GrantMapsState); the uses are counted again from them.
//   - mapped by a backend: the backend maps it again when it comes up (BackendMapping holds a host
//     address). Until then the entry stays in use, with the page that it gave access to, whatever
//     the guest has written into it since; GrantTable::release_claims() lets go of what no backend
//     took. Xen's own backends unmap all before a save, for the guest's suspend path has told them
//     to; ours outlive a save that the guest does not notice.
//   - by a copy: no vCPU is inside one when a snapshot is taken.
#pragma once

#include <cstdint>
#include <tuple>
#include <vector>

#include "vmm/base/saved.h"

namespace xenshim {

// An entry that backends have mapped.
struct GrantUseState {
    std::uint32_t ref = 0;
    std::uint64_t gfn = 0;  // which the entry named when the use began
    bool writes = false;

    bool operator==(const GrantUseState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [ref, gfn, writes] = self;
        return std::tuple{vmm::saved::field(1, "ref", ref), vmm::saved::field(2, "gfn", gfn),
                          vmm::saved::field(3, "writes", writes)};
    }
};

// An entry of domain 0's: the guest knows its number, so the backend offers it again under that.
struct GrantOfferState {
    std::uint32_t ref = 0;
    bool readonly = false;

    bool operator==(const GrantOfferState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [ref, readonly] = self;
        return std::tuple{vmm::saved::field(1, "ref", ref),
                          vmm::saved::field(2, "readonly", readonly)};
    }
};

struct GrantTableState {
    static constexpr vmm::saved::Section kSection{"xen.grant_table", 1};

    std::uint32_t version = 1;
    std::uint32_t frames = 1;
    std::vector<GrantUseState> backend_uses;  // by reference
    std::vector<GrantOfferState> offers;      // by reference

    bool operator==(const GrantTableState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [version, frames, backend_uses, offers] = self;
        return std::tuple{vmm::saved::field(1, "version", version),
                          vmm::saved::field(2, "frames", frames),
                          vmm::saved::field(3, "backend_uses", backend_uses),
                          vmm::saved::field(4, "offers", offers)};
    }
};

struct GrantMappingState {
    std::uint32_t handle = 0;
    std::uint32_t ref = 0;
    std::uint32_t own_page = 0;  // where the page's content is
    bool readonly = false;

    bool operator==(const GrantMappingState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [handle, ref, own_page, readonly] = self;
        return std::tuple{vmm::saved::field(1, "handle", handle), vmm::saved::field(2, "ref", ref),
                          vmm::saved::field(3, "own_page", own_page),
                          vmm::saved::field(4, "readonly", readonly)};
    }
};

// A handle is either mapped or free. The order of the free ones is the guest's business: it sees
// which one it gets next.
struct GrantMapsState {
    static constexpr vmm::saved::Section kSection{"xen.grant_maps", 1};

    std::uint32_t handles = 0;                // that there are
    std::vector<GrantMappingState> mappings;  // by handle
    std::vector<std::uint32_t> free;          // the next to be given out first

    bool operator==(const GrantMapsState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [handles, mappings, free] = self;
        return std::tuple{vmm::saved::field(1, "handles", handles),
                          vmm::saved::field(2, "mappings", mappings),
                          vmm::saved::field(3, "free", free)};
    }
};

}  // namespace xenshim
