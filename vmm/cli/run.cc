#include <cstdio>
#include <fcntl.h>
#include <termios.h>
#include <unistd.h>

#include "vmm/base/log.h"
#include "vmm/cli/commands.h"
#include "vmm/cli/control_point.h"
#include "vmm/cli/guest_cpu.h"
#include "vmm/cli/profile_table.h"
#include "vmm/cli/run_vm.h"
#include "vmm/cli/saved_vm.h"
#include "vmm/cli/signals.h"
#include "vmm/cli/vm.h"
#include "xenshim/abi/profile.h"

namespace vmm::cli {

using config::ExitStatus;

namespace {

constexpr std::byte kEscape{0x1d};  // Ctrl-]

// Puts a terminal into raw mode for as long as it lives.
class RawTerminal {
  public:
    explicit RawTerminal(int fd) : fd_(fd) {
        if (::tcgetattr(fd_, &before_) != 0) return;
        termios raw = before_;
        ::cfmakeraw(&raw);
        raw.c_oflag |= OPOST;  // our own messages go to the same screen
        active_ = ::tcsetattr(fd_, TCSANOW, &raw) == 0;
    }
    ~RawTerminal() {
        if (active_) ::tcsetattr(fd_, TCSANOW, &before_);
    }
    RawTerminal(const RawTerminal&) = delete;
    RawTerminal& operator=(const RawTerminal&) = delete;

  private:
    int fd_;
    termios before_{};
    bool active_ = false;
};

// A background job that reads its terminal is stopped by the kernel: such a guest gets no input.
bool owns_terminal(int fd) {
    return ::isatty(fd) != 0 && ::tcgetpgrp(fd) == ::getpgrp();
}

ExitStatus status_of(RunEnd::Kind kind) {
    switch (kind) {
        case RunEnd::Kind::kPowerOff: return ExitStatus::kPoweroff;
        case RunEnd::Kind::kReboot: return ExitStatus::kReboot;
        case RunEnd::Kind::kSuspend: return ExitStatus::kSuspend;
        case RunEnd::Kind::kCrash: return ExitStatus::kCrash;
        case RunEnd::Kind::kWatchdog: return ExitStatus::kWatchdog;
        case RunEnd::Kind::kSoftReset: return ExitStatus::kSoftReset;
        case RunEnd::Kind::kTerminated: return ExitStatus::kTerminated;
        case RunEnd::Kind::kSaved: return ExitStatus::kSaved;
        case RunEnd::Kind::kMoved: return ExitStatus::kMoved;
    }
    return ExitStatus::kInternalError;
}

bool restarts(const config::VmConfig& vm, RunEnd::Kind kind) {
    using config::ShutdownAction;
    switch (kind) {
        case RunEnd::Kind::kPowerOff: return vm.on_poweroff == ShutdownAction::kRestart;
        case RunEnd::Kind::kReboot: return vm.on_reboot == ShutdownAction::kRestart;
        case RunEnd::Kind::kCrash: return vm.on_crash == ShutdownAction::kRestart;
        case RunEnd::Kind::kWatchdog: return vm.on_watchdog == ShutdownAction::kRestart;
        default: return false;
    }
}

// The guest's name is this process's as long as it lives. A guest that nobody named and nobody has
// to let go runs also where no control socket can be.
Result<std::unique_ptr<ControlPoint>> take_name(config::VmConfig& config, bool paused) {
    const bool needed = paused || !config.name.empty();
    if (config.name.empty()) config.name = "guest-" + std::to_string(::getpid());
    auto point = ControlPoint::open(config.name);
    if (!point && !needed && point.error().fault == Fault::kUser) {
        log_warn("control", "there is no control socket: %s", point.error().what.c_str());
        return std::unique_ptr<ControlPoint>();
    }
    return point;
}

}  // namespace

Result<ExitStatus> run_vm(config::VmConfig config, std::optional<RestoreFrom> from, bool paused,
                          const std::string& trace_file, const HandOver& hand_over) {
    // Before anything is opened for writing: it may be in use by the guest that has the name.
    const auto point = TRY(take_name(config, paused));
    Fd console_file;
    ConsoleFds console{.in = STDIN_FILENO, .out = STDOUT_FILENO, .escape = std::nullopt};
    std::optional<RawTerminal> raw;
    if (!config.console_file.empty()) {
        console_file =
            Fd(::open(config.console_file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
        if (!console_file) {
            return errno_error("--console file:" + config.console_file, Fault::kUser);
        }
        console = {.in = -1, .out = console_file.get(), .escape = std::nullopt};
    } else if (::isatty(STDIN_FILENO) != 0) {
        if (owns_terminal(STDIN_FILENO)) {
            console.escape = kEscape;
        } else {
            console.in = -1;
        }
    }
    // One trace for all lives of the guest. Whatever ends them, its destructor brings to the file
    // what was recorded.
    std::unique_ptr<xenshim::trace::Writer> trace;
    if (!trace_file.empty()) trace = TRY(xenshim::trace::Writer::create(trace_file));
    const Fd signals = TRY(take_signals());
    const bool restored = from.has_value();
    bool begun = false;
    for (;;) {
        auto vm = from ? TRY(Vm::restore(from->kvm, from->saved, config, console, trace.get()))
                       : TRY(Vm::create(config, console, trace.get()));
        from.reset();
        if (hand_over.take) {
            TRY(vm->stand_by());
            TRY(hand_over.take(signals.get()));
        }
        // What the file held is kept until there is a guest to write it anew.
        if (console_file && !begun) {
            [[maybe_unused]] const int cut = ::ftruncate(console_file.get(), 0);
        }
        begun = true;
        // Only now: what was refused is told on a terminal as it was.
        if (console.escape && !raw) raw.emplace(STDIN_FILENO);
        const RunEnd end = TRY(vm->run({.signal_fd = signals.get(),
                                        .point = point.get(),
                                        .paused = paused,
                                        .before_move = hand_over.settle}));
        paused = false;
        if (!restarts(config, end.kind)) return status_of(end.kind);
        if (restored) {
            if (const auto files = check_boot_files(config); !files) {
                log_warn("run", "the guest does not restart: %s", files.error().what.c_str());
                return status_of(end.kind);
            }
        }
        log_info("run", "the guest restarts");
    }
}

void take_host_options(const config::RunRequest& from, config::VmConfig& to) {
    if (!from.vm.name.empty()) to.name = from.vm.name;
    to.transport = from.vm.transport;
    to.console_file = from.vm.console_file;
}

Result<void> start_log(const config::RunRequest& request) {
    set_log_level(request.log_level);
    return request.log_file.empty() ? Result<void>() : set_log_file(request.log_file);
}

ExitStatus run(const config::Args& args) {
    std::vector<std::string_view> profiles;
    for (const auto& profile : xenshim::abi::profiles()) {
        profiles.push_back(profile.name);
    }
    const auto request = config::parse_run(args, profiles);
    if (!request) return report(request.error());
    if (!request->help.empty()) {
        std::fputs(request->help.c_str(), stdout);
        return ExitStatus::kPoweroff;
    }
    if (request->list_profiles) {
        std::fputs((request->json ? profiles_json() : profile_table()).c_str(), stdout);
        return ExitStatus::kPoweroff;
    }
    if (const auto set = start_log(*request); !set) return report(set.error());
    for (const auto& warning : request->warnings) {
        log_warn("config", "%s", warning.c_str());
    }
    const auto status = run_vm(request->vm, std::nullopt, request->paused, request->trace_file, {});
    return status ? *status : report(status.error());
}

ExitStatus restore(const config::Args& args) {
    const auto request = config::parse_restore(args);
    if (!request) return report(request.error());
    const config::RunRequest& run = request->run;
    if (!run.help.empty()) {
        std::fputs(run.help.c_str(), stdout);
        return ExitStatus::kPoweroff;
    }
    if (const auto set = start_log(run); !set) return report(set.error());
    const auto status = [&]() -> Result<ExitStatus> {
        auto opened = kvm::Kvm::open();
        if (opened) opened->ask_for_cpuid();
        const auto saved = TRY(SavedVm::open(request->file));
        const auto kvm = TRY(std::move(opened));
        if (request->verify) {
            TRY(check_cpus(kvm, *saved));
            TRY(saved->verify());
        }
        config::VmConfig config = saved->config();
        take_host_options(run, config);
        return run_vm(std::move(config), RestoreFrom{.saved = *saved, .kvm = kvm}, run.paused,
                      run.trace_file, {});
    }();
    return status ? *status : report(status.error());
}

}  // namespace vmm::cli
