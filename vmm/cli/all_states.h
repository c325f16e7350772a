// Every kind of state of a VM, in one list: what is written must be in it, and what is in it can be
// read and shown.
#pragma once

#include <type_traits>
#include <vector>

#include "devices/legacy/ioapic.h"
#include "devices/legacy/pic.h"
#include "devices/legacy/pit.h"
#include "devices/pv/xenstore_service.h"
#include "migration/show.h"
#include "vmm/cli/config/saved_config.h"
#include "vmm/kvm/cpuid_state.h"
#include "vmm/kvm/vcpu_state.h"
#include "xenshim/domain/domain.h"
#include "xenshim/transport/vcpu_moved.h"

namespace vmm::cli {

template <class... T>
struct States {
    template <class U>
    static constexpr bool kContains = (std::is_same_v<T, U> || ...);
    static std::vector<migration::Kind> kinds() { return {migration::kind_of<T>()...}; }
};

// The one list of them. What VmState adds must be in it.
using AllStates =
    States<config::ProfileState, config::ConfigState, config::MemoryLayoutState,
           config::CallSitesState, xenshim::LegacyQuirks::State, xenshim::Params::State,
           xenshim::MemoryMap::State, xenshim::Physmap::State, xenshim::GrantTable::State,
           xenshim::GrantMaps::State, xenshim::OwnPages::State, xenshim::SharedInfo::State,
           xenshim::EventChannels::State, xenshim::Domain::State,
           devices::pv::XenstoreService::State, kvm::VmClockState, devices::legacy::PicState,
           devices::legacy::IoapicState, devices::legacy::PitState, kvm::CpuidState, kvm::VcpuState,
           kvm::VcpuTimeState, xenshim::VcpuWaitState>;

}  // namespace vmm::cli
