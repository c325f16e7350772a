#include "xenshim/domain/grant_maps.h"

#include <algorithm>
#include <map>

#include "vmm/memory/address.h"

namespace xenshim {

using namespace abi;

namespace {

// Domain 0's table, whose entries nobody outside may map.
constexpr std::uint32_t kBackendEntries = 512;

}  // namespace

std::uint32_t GrantMaps::handles() const {
    const std::scoped_lock lock(mutex_);
    return static_cast<std::uint32_t>(mappings_.size());
}

GrantMaps::Mapping GrantMaps::mapping(std::uint32_t handle) const {
    const std::scoped_lock lock(mutex_);
    return handle < mappings_.size() ? mappings_[handle] : Mapping{};
}

// Handles are used again as late as possible, and one is always left over: as Xen's free list.
std::optional<std::uint32_t> GrantMaps::take_handle() {
    const std::scoped_lock lock(mutex_);
    if (free_.size() <= 1) {
        const auto first = static_cast<std::uint32_t>(mappings_.size());
        if (first / kPerFrame >= max_frames_) return std::nullopt;
        mappings_.resize(first + kPerFrame);
        for (std::uint32_t i = kPerFrame; i > 0; --i) {
            free_.push_front(first + i - 1);
        }
    }
    const std::uint32_t handle = free_.front();
    free_.pop_front();
    return handle;
}

void GrantMaps::give_handle(std::uint32_t handle) {
    const std::scoped_lock lock(mutex_);
    free_.push_back(handle);
}

GrantMaps::Result GrantMaps::map(const Request& request) {
    const auto failed = [](GrantStatus status) { return Result{.status = status}; };
    constexpr std::uint32_t kNotForTranslated =
        GNTMAP_device_map | GNTMAP_application_map | GNTMAP_contains_pte;
    if ((request.flags & (GNTMAP_device_map | GNTMAP_host_map)) == 0) {
        return failed(GNTST_bad_gntref);
    }
    if ((request.flags & kNotForTranslated) != 0) return failed(GNTST_general_error);
    // By number only: DOMID_SELF is no domain here.
    if (request.domid != kBackendDomain && request.domid != grants_.domid()) {
        return failed(GNTST_bad_domain);
    }
    const auto handle = take_handle();
    if (!handle) return failed(GNTST_no_space);
    const auto give_back = [&](GrantStatus status) {
        give_handle(*handle);
        return failed(status);
    };
    if (request.domid == kBackendDomain) {
        // What a backend offers may be copied, and is mapped by nobody.
        return give_back(request.ref < kBackendEntries ? GNTST_general_error : GNTST_bad_gntref);
    }

    const bool readonly = (request.flags & GNTMAP_readonly) != 0;
    const std::uint64_t gfn = vmm::Gpa{request.host_addr}.gfn();
    const bool can_be_shown =
        (request.flags & ~GNTMAP_readonly) == GNTMAP_host_map && physmap_.in_reach(gfn);
    const auto mapped =
        grants_.map_self(request.ref, readonly, can_be_shown ? std::optional(gfn) : std::nullopt);
    if (mapped.status != GNTST_okay) {
        Result out = give_back(mapped.status);
        out.crash = mapped.grant_there;
        return out;
    }
    if (!can_be_shown) return give_back(GNTST_general_error);
    const std::scoped_lock lock(mutex_);
    mappings_[*handle] = {.ref = request.ref,
                          .domid = request.domid,
                          .flags = static_cast<std::uint16_t>(request.flags)};
    return {.status = GNTST_okay, .handle = *handle};
}

GrantStatus GrantMaps::unmap(std::uint32_t handle, std::uint64_t host_addr) {
    Mapping mapping;
    {
        const std::scoped_lock lock(mutex_);
        if (handle >= mappings_.size() || mappings_[handle].flags == 0) return GNTST_bad_handle;
        // Address 0 asks for nothing to be unmapped, and gets it.
        if (host_addr == 0) return GNTST_okay;
        mapping = mappings_[handle];
        // Any place of the page will do, as on Xen: what is compared is the page.
        if (!physmap_.hide_adopted(grants_.own_page_of(mapping.ref), vmm::Gpa{host_addr}.gfn())) {
            return GNTST_general_error;
        }
        mappings_[handle] = {};
        free_.push_back(handle);
    }
    grants_.unmap_self(mapping.ref, (mapping.flags & GNTMAP_readonly) != 0);
    return GNTST_okay;
}

GrantMaps::State GrantMaps::snapshot() const {
    const std::scoped_lock lock(mutex_);
    State state{.handles = static_cast<std::uint32_t>(mappings_.size()),
                .mappings = {},
                .free = {free_.begin(), free_.end()}};
    for (std::uint32_t handle = 0; handle < state.handles; ++handle) {
        const Mapping& mapping = mappings_[handle];
        if (mapping.flags == 0) continue;
        state.mappings.push_back({.handle = handle,
                                  .ref = mapping.ref,
                                  .own_page = grants_.own_page_of(mapping.ref),
                                  .readonly = (mapping.flags & GNTMAP_readonly) != 0});
    }
    return state;
}

std::string GrantMaps::refusal(const State& state) const {
    if (state.handles % kPerFrame != 0 || state.handles / kPerFrame > max_frames_) {
        return "handles: " + std::to_string(state.handles) + " are no number of frames up to " +
               std::to_string(max_frames_);
    }
    std::vector<bool> seen(state.handles);
    struct Uses {
        std::uint32_t own_page = 0;
        std::uint32_t readers = 0, writers = 0;
    };
    std::map<std::uint32_t, Uses> uses;  // by reference
    const std::vector<std::uint32_t> pages = physmap_.adopted_pages();
    for (std::size_t i = 0; i < state.mappings.size(); ++i) {
        const GrantMappingState& mapping = state.mappings[i];
        const std::string which = "mappings[" + std::to_string(i) + "].";
        if (mapping.handle >= state.handles) return which + "handle: there is no such one";
        if (i != 0 && mapping.handle <= state.mappings[i - 1].handle) {
            return which + "handle: out of order";
        }
        seen[mapping.handle] = true;
        if (mapping.ref >= grants_.entries()) return which + "ref: there is no such entry";
        if (grants_.in_use(mapping.ref)) return which + "ref: domain 0 has it in use";
        if (!std::binary_search(pages.begin(), pages.end(), mapping.own_page)) {
            return which + "own_page: no grant's page";
        }
        Uses& of = uses.try_emplace(mapping.ref, Uses{.own_page = mapping.own_page}).first->second;
        if (of.own_page != mapping.own_page) return which + "own_page: not the entry's";
        if (++(mapping.readonly ? of.readers : of.writers) > GrantTable::kMostUses) {
            return which + "ref: mapped too often";
        }
    }
    for (std::size_t i = 0; i < state.free.size(); ++i) {
        const std::string which = "free[" + std::to_string(i) + "]: ";
        if (state.free[i] >= state.handles) return which + "there is no such handle";
        if (seen[state.free[i]]) return which + "that handle is mapped, or free already";
        seen[state.free[i]] = true;
    }
    if (state.free.size() + state.mappings.size() != state.handles) {
        return "free: a handle is neither mapped nor free";
    }
    if (state.handles != 0 && state.free.empty()) return "free: one is always left over";
    return {};
}

vmm::Expected<void, std::string> GrantMaps::adopt(const State& state) {
    if (const std::string why = refusal(state); !why.empty()) return vmm::Failure{why};
    const std::scoped_lock lock(mutex_);
    mappings_.assign(state.handles, {});
    free_.assign(state.free.begin(), state.free.end());
    for (const GrantMappingState& mapping : state.mappings) {
        const std::uint32_t readonly = mapping.readonly ? GNTMAP_readonly : 0;
        mappings_[mapping.handle] = {
            .ref = mapping.ref,
            .domid = grants_.domid(),
            .flags = static_cast<std::uint16_t>(GNTMAP_host_map | readonly)};
        grants_.retake_self(mapping.ref, mapping.readonly, mapping.own_page);
    }
    return {};
}

}  // namespace xenshim
