// What a guest is told that its CPUs can do, and whether a host can do that.
#pragma once

#include <string>

#include "vmm/base/result.h"
#include "vmm/cli/saved_vm.h"
#include "vmm/kvm/cpu_model.h"
#include "vmm/kvm/kvm.h"

namespace vmm::cli {

// A file of `--cpu` (vmm/kvm/cpu_model.h).
Result<kvm::CpuModel> read_cpu(const std::string& file);
// What a guest is told here that is told all there is.
Result<kvm::CpuModel> host_cpu(const kvm::Kvm& kvm);
// Whether this host has all of it. Else the reason is Fault::kUser, and names what it lacks.
Result<void> check_cpu(const kvm::Kvm& kvm, const std::string& file, const kvm::CpuModel& cpu);
// Whether a saved guest can go on here: it would lose nothing that it was told of. Else the reason
// is Fault::kHost, and names what it would lose. Nothing is made for that.
Result<void> check_cpus(const kvm::Kvm& kvm, const SavedVm& saved);
// Likewise whether its TSCs can, of which this host's count `host_khz` a millisecond.
Result<void> check_tsc(const SavedVm& saved, std::uint32_t host_khz);

}  // namespace vmm::cli
