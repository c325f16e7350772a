// What of the physical memory map is saved. All numbers of pages are gfns, but for our own pages'
// (ports.h), all lists ascend, and no gfn is named twice: RAM of the slots is everywhere where
// nothing else is said.
#pragma once

#include <cstdint>
#include <map>
#include <tuple>
#include <vector>

#include "vmm/base/saved.h"
#include "xenshim/domain/page_types.h"

namespace xenshim {

struct GfnRunState {
    std::uint64_t gfn = 0;
    std::uint64_t pages = 0;

    bool operator==(const GfnRunState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [gfn, pages] = self;
        return std::tuple{vmm::saved::field(1, "gfn", gfn), vmm::saved::field(2, "pages", pages)};
    }
};

// How many hold it besides its places is theirs to say.
struct AdoptedPageState {
    bool given_back = false;
    std::vector<std::uint64_t> places{};

    bool operator==(const AdoptedPageState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [given_back, places] = self;
        return std::tuple{vmm::saved::field(1, "given_back", given_back),
                          vmm::saved::field(2, "places", places)};
    }
};

struct PhysmapState {
    static constexpr vmm::saved::Section kSection{"xen.physmap", 1};

    std::uint64_t current = 0;
    std::uint64_t maximum = 0;
    std::uint64_t highest_gfn = 0;
    std::vector<GfnRunState> holes{};              // in the slots; as long as they can be
    std::map<std::uint32_t, std::uint64_t> own{};  // own page -> where it is
    std::vector<std::uint32_t> lost{};             // own pages
    std::vector<std::uint64_t> outside{};          // RAM outside the slots
    std::vector<std::uint64_t> leaving{};          // given back, and somebody holds it still
    std::map<std::uint32_t, AdoptedPageState> adopted{};
    PageTypes::Pieces types{};
    std::uint64_t modified = 0;

    bool operator==(const PhysmapState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [current, maximum, highest_gfn, holes, own, lost, outside, leaving, adopted, types,
               modified] = self;
        return std::tuple{vmm::saved::field(1, "current", current),
                          vmm::saved::field(2, "maximum", maximum),
                          vmm::saved::field(3, "highest_gfn", highest_gfn),
                          vmm::saved::field(4, "holes", holes),
                          vmm::saved::field(5, "own", own),
                          vmm::saved::field(6, "lost", lost),
                          vmm::saved::field(7, "outside", outside),
                          vmm::saved::field(8, "leaving", leaving),
                          vmm::saved::field(9, "adopted", adopted),
                          vmm::saved::field(10, "types", types),
                          vmm::saved::field(11, "modified", modified)};
    }
};

}  // namespace xenshim
