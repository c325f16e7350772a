#include <cstdio>
#include <fcntl.h>
#include <signal.h>
#include <termios.h>
#include <unistd.h>

#include <sys/signalfd.h>

#include "vmm/base/log.h"
#include "vmm/cli/commands.h"
#include "vmm/cli/control_point.h"
#include "vmm/cli/profile_table.h"
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

Result<Fd> take_signals() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    if (::sigprocmask(SIG_BLOCK, &set, nullptr) != 0) return errno_error("sigprocmask");
    ::signal(SIGPIPE, SIG_IGN);
    Fd fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!fd) return errno_error("signalfd");
    return fd;
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

Result<ExitStatus> run_vm(config::VmConfig config, bool paused, const std::string& trace_file) {
    // Before anything is opened for writing: it may be in use by the guest that has the name.
    const auto point = TRY(take_name(config, paused));
    Fd console_file;
    ConsoleFds console{.in = STDIN_FILENO, .out = STDOUT_FILENO, .escape = std::nullopt};
    std::optional<RawTerminal> raw;
    if (!config.console_file.empty()) {
        console_file =
            Fd(::open(config.console_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
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
    for (;;) {
        auto vm = TRY(Vm::create(config, console, trace.get()));
        // Only now: what was refused is told on a terminal as it was.
        if (console.escape && !raw) raw.emplace(STDIN_FILENO);
        const RunEnd end =
            TRY(vm->run({.signal_fd = signals.get(), .point = point.get(), .paused = paused}));
        paused = false;
        if (!restarts(config, end.kind)) return status_of(end.kind);
        log_info("run", "the guest restarts");
    }
}

}  // namespace

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
        std::fputs(profile_table().c_str(), stdout);
        return ExitStatus::kPoweroff;
    }
    set_log_level(request->log_level);
    if (!request->log_file.empty()) {
        if (const auto set = set_log_file(request->log_file); !set) return report(set.error());
    }
    for (const auto& warning : request->warnings) {
        log_warn("config", "%s", warning.c_str());
    }
    const auto status = run_vm(request->vm, request->paused, request->trace_file);
    return status ? *status : report(status.error());
}

}  // namespace vmm::cli
