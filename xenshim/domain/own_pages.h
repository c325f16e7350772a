// The content of pages that are the guest's and yet not in its memory's slots: our own pages, as
// far as they are in use (shared_info, the grant table's frames, pages that a grant moved into one
// of ours), and single pages of RAM outside the slots. It is the guest's memory, but no memory
// region's, so it is a state by itself.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>

#include "vmm/base/result.h"
#include "vmm/base/saved.h"
#include "vmm/memory/guest_memory.h"
#include "xenshim/domain/ports.h"

namespace xenshim {

class GrantTable;
class Physmap;

using PageBytes = std::array<std::byte, vmm::kPageSize>;

// A page that is not here and in use is all zeroes.
struct OwnPagesState {
    static constexpr vmm::saved::Section kSection{"xen.own_pages", 1};

    std::map<std::uint32_t, PageBytes> own{};      // by number (ports.h)
    std::map<std::uint64_t, PageBytes> outside{};  // by gfn

    bool operator==(const OwnPagesState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [own, outside] = self;
        return std::tuple{vmm::saved::field(1, "own", own),
                          vmm::saved::field(2, "outside", outside)};
    }
};

class OwnPages {
  public:
    using State = OwnPagesState;

    OwnPages(Ports& ports, vmm::GuestMemory& memory, const Physmap& physmap,
             const GrantTable& grants)
        : ports_(ports), memory_(memory), physmap_(physmap), grants_(grants) {}

    // Somebody who raises an event meanwhile writes to shared_info: what of it is seen is left
    // open, but each word is whole.
    State snapshot() const;
    // After the physical memory map and the grant table were adopted, which say what is in use.
    // That they agree about it is checked here, for neither knows the other's state.
    vmm::Expected<void, std::string> adopt(const State& state);

  private:
    // Where the pages in use are.
    std::map<std::uint32_t, std::byte*> own() const;
    std::map<std::uint64_t, std::byte*> outside() const;

    Ports& ports_;
    vmm::GuestMemory& memory_;
    const Physmap& physmap_;
    const GrantTable& grants_;
};

}  // namespace xenshim
