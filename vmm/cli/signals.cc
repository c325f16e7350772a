#include "vmm/cli/signals.h"

#include <csignal>
#include <unistd.h>

#include <sys/signalfd.h>

namespace vmm::cli {

Result<Fd> take_signals() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    if (::sigprocmask(SIG_BLOCK, &set, nullptr) != 0) return errno_error("sigprocmask");
    // What is written to a reader that is gone, or beyond the size that files may have, fails.
    ::signal(SIGPIPE, SIG_IGN);
    ::signal(SIGXFSZ, SIG_IGN);
    Fd fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!fd) return errno_error("signalfd");
    return fd;
}

bool take_signal(int signals) {
    signalfd_siginfo info{};
    return ::read(signals, &info, sizeof info) == static_cast<ssize_t>(sizeof info);
}

}  // namespace vmm::cli
