// A guest's whole life in this process, for the verbs that begin one.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "vmm/base/result.h"
#include "vmm/cli/config/exit_status.h"
#include "vmm/cli/config/options.h"
#include "vmm/kvm/kvm.h"

namespace vmm::cli {

class SavedVm;

// A saved guest, and the KVM of the host that it is to go on.
struct RestoreFrom {
    SavedVm& saved;
    const kvm::Kvm& kvm;
};

// What a guest that was moved here still has to do with its source.
struct HandOver {
    // Called once, when the guest could go on: a failure is why it must not. `signals`:
    // take_signals()'s.
    std::function<Result<void>(int signals)> take;
    // Before it is moved on: waits, not for long, until the source knows that it is ours, and lets
    // go of what belongs to that move.
    std::function<void()> settle;
};

// `from`: the guest's first life here goes on from there. Without: it boots. `hand_over` may be
// empty.
Result<config::ExitStatus> run_vm(config::VmConfig config, std::optional<RestoreFrom> from,
                                  bool paused, const std::string& trace_file,
                                  const HandOver& hand_over);

// What belongs to this host, and not to the guest that came from another.
void take_host_options(const config::RunRequest& from, config::VmConfig& to);
Result<void> start_log(const config::RunRequest& request);

}  // namespace vmm::cli
