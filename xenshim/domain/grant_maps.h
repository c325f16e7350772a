// What a guest has mapped by grants (Xen's maptrack): handles, and the pages behind them.
//
// The only domain whose grants it can map is itself. The page appears at the guest physical
// address that it names. A mapping that is to be read only is not enforced against the guest's own
// CPUs: inside a slot KVM can only fail a guest's write to such a page, not drop it, and that would
// end the VM. Xen injects #GP there.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "vmm/base/result.h"
#include "xenshim/domain/grant_state.h"
#include "xenshim/domain/grant_table.h"
#include "xenshim/domain/physmap.h"

namespace xenshim {

class GrantMaps {
  public:
    // An entry of the maptrack; flags 0: free.
    struct Mapping {
        std::uint32_t ref = 0;
        std::uint16_t domid = 0;
        std::uint16_t flags = 0;
        bool operator==(const Mapping&) const = default;
    };
    static constexpr std::uint32_t kMaxFrames = 1024;
    static constexpr std::uint32_t kPerFrame = 256;

    GrantMaps(GrantTable& grants, Physmap& physmap, std::uint32_t max_frames = kMaxFrames)
        : grants_(grants), physmap_(physmap), max_frames_(max_frames) {}

    struct Request {
        std::uint64_t host_addr;
        std::uint32_t flags;
        std::uint32_t ref;
        std::uint16_t domid;
    };
    struct Result {
        GrantStatus status = abi::GNTST_general_error;
        std::uint32_t handle = 0;
        // The guest asked for what ends a domain on Xen: a mapping over another one.
        bool crash = false;
    };
    Result map(const Request& request);
    GrantStatus unmap(std::uint32_t handle, std::uint64_t host_addr);

    // Whether a handle may have been given out, and what stands behind it.
    std::uint32_t handles() const;
    Mapping mapping(std::uint32_t handle) const;

    using State = GrantMapsState;
    // While no vCPU runs.
    State snapshot() const;
    // After the physmap and the grant table, of which it counts the guest's uses again.
    vmm::Expected<void, std::string> adopt(const State& state);

  private:
    std::optional<std::uint32_t> take_handle();
    void give_handle(std::uint32_t handle);
    std::string refusal(const State& state) const;

    GrantTable& grants_;
    Physmap& physmap_;
    const std::uint32_t max_frames_;
    mutable std::mutex mutex_;  // guards what follows
    std::vector<Mapping> mappings_;
    std::deque<std::uint32_t> free_;
};

}  // namespace xenshim
