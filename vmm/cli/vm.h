// One virtual machine, put together: the only place that knows every part of it.
#pragma once

#include <memory>
#include <optional>

#include "vmm/base/result.h"
#include "vmm/cli/config/exit_status.h"
#include "vmm/cli/config/vm_config.h"
#include "vmm/machine/machine.h"
#include "xenshim/trace/writer.h"

namespace vmm::cli {

class ControlPoint;

// What the console is connected to.
struct ConsoleFds {
    int in = -1;  // -1: none
    int out = -1;
    // Bytes of input that mean "end": Ctrl-] on a terminal. Called on the event loop's thread.
    std::optional<std::byte> escape;
};

// How a run ended.
struct RunEnd {
    enum class Kind { kPowerOff, kReboot, kSuspend, kCrash, kWatchdog, kSoftReset, kTerminated };
    Kind kind = Kind::kPowerOff;
};

// Who tells a running VM what to do.
struct RunControl {
    int signal_fd = -1;             // a signalfd for SIGTERM and SIGINT, which end it
    ControlPoint* point = nullptr;  // may be null
    // The guest waits before its first instruction until a client lets it go.
    bool paused = false;
};

class Vm {
  public:
    virtual ~Vm() = default;
    // Runs the guest until it ends or is ended. The console is drained before this returns.
    virtual Result<RunEnd> run(const RunControl& control) = 0;

    // Reads every file and makes the machine; no vCPU runs yet. `trace`: where hypercalls are
    // recorded; null: nowhere.
    static Result<std::unique_ptr<Vm>> create(const config::VmConfig& config,
                                              const ConsoleFds& console,
                                              xenshim::trace::Writer* trace);
};

}  // namespace vmm::cli
