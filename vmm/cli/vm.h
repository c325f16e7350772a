// One virtual machine, put together: the only place that knows every part of it.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "vmm/base/result.h"
#include "vmm/cli/config/exit_status.h"
#include "vmm/cli/config/vm_config.h"
#include "vmm/machine/machine.h"
#include "xenshim/trace/writer.h"
#include "xenshim/transport/xen_platform.h"

namespace vmm::cli {

class ControlPoint;
class SavedVm;
struct SaveReport;
enum class AfterSave;

// What the console is connected to.
struct ConsoleFds {
    int in = -1;  // -1: none
    int out = -1;
    // Bytes of input that mean "end": Ctrl-] on a terminal. Called on the event loop's thread.
    std::optional<std::byte> escape;
};

// How a run ended.
struct RunEnd {
    enum class Kind {
        kPowerOff,
        kReboot,
        kSuspend,
        kCrash,
        kWatchdog,
        kSoftReset,
        kTerminated,
        kSaved,  // to a file; there it goes on
        kMoved,  // to another host
    };
    Kind kind = Kind::kPowerOff;
};

// Who tells a running VM what to do.
struct RunControl {
    int signal_fd = -1;             // a signalfd for SIGTERM and SIGINT, which end it
    ControlPoint* point = nullptr;  // may be null
    // The guest waits before its first instruction until a client lets it go.
    bool paused = false;
    // Called before it is moved; may be empty.
    std::function<void()> before_move = {};
    // Called when the guest stands still: waits before its first instruction, or is held
    // (Machine::hold()). Whoever gives it is in the client's place, and lets the guest go on or
    // ends it. May be empty.
    std::function<void()> stands_still = {};
};

// Whether a guest that was restored can restart here: what it was booted from stands under the
// same names.
Result<void> check_boot_files(const config::VmConfig& config);

class Vm {
  public:
    virtual ~Vm() = default;
    // Makes all that running needs, so that nothing of it is left to fail; no vCPU runs yet. For
    // a guest that is promised to be taken over; run() does it otherwise.
    virtual Result<void> stand_by() = 0;
    // Runs the guest until it ends or is ended. The console is drained before this returns.
    virtual Result<RunEnd> run(const RunControl& control) = 0;

    // For who is in the client's place, on the thread that runs it: what the control socket's
    // requests act on. The guest stands still while it is saved, and with AfterSave::kEnd run()
    // ends.
    virtual Result<SaveReport> save(const std::string& path, AfterSave after) = 0;
    virtual Machine& machine() = 0;
    virtual xenshim::XenPlatform& platform() = 0;

    // Reads every file and makes the machine; no vCPU runs yet. `trace`: where hypercalls are
    // recorded; null: nowhere.
    static Result<std::unique_ptr<Vm>> create(const config::VmConfig& config,
                                              const ConsoleFds& console,
                                              xenshim::trace::Writer* trace);
    // The same of a guest that was saved, ready to go on. `config` is the file's with what is this
    // host's; `saved` stays until the VM is destroyed.
    static Result<std::unique_ptr<Vm>> restore(const kvm::Kvm& kvm, SavedVm& saved,
                                               const config::VmConfig& config,
                                               const ConsoleFds& console,
                                               xenshim::trace::Writer* trace);
};

}  // namespace vmm::cli
