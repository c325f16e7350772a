// What `xenolith` tells its caller when it ends. Scripts rely on these numbers: they are listed in
// docs/xenolith.1, and a test compares the two.
#pragma once

#include <array>
#include <string_view>

#include "vmm/base/result.h"

namespace vmm::config {

enum class ExitStatus : int {
    kPoweroff = 0,       // also: a command that did its job
    kDiffers = 1,        // trace check: something differs
    kUserError = 2,      // an option, a file or an image that we refuse
    kInternalError = 3,  // our own mistake, or a host call that should not fail
    kHostCannot = 4,     // this host lacks something, `xenolith check` says what
    kCrash = 10,         // the guest crashed and is not restarted
    kWatchdog = 11,      // the guest's own watchdog ended it
    kReboot = 12,        // the guest asked for a reboot that is not followed
    kSuspend = 13,       // the guest suspended itself
    kSoftReset = 14,     // the guest asked for a soft reset
    kTerminated = 15,    // SIGTERM, SIGINT or destroy, after the console was drained
    kSaved = 16,         // the guest was saved, and goes on from its file
    kMoved = 17,         // the guest was moved to another host
};

struct ExitStatusRow {
    ExitStatus status;
    std::string_view meaning;
};

// Every status once, for --help and for the check against the man page.
inline constexpr std::array<ExitStatusRow, 13> kExitStatuses{{
    {ExitStatus::kPoweroff, "the guest powered off"},
    {ExitStatus::kDiffers, "of trace check: the other profile would treat a call differently"},
    {ExitStatus::kUserError, "an option, a file or an image was refused"},
    {ExitStatus::kInternalError, "internal error"},
    {ExitStatus::kHostCannot, "this host cannot do it"},
    {ExitStatus::kCrash, "the guest crashed"},
    {ExitStatus::kWatchdog, "a watchdog ended the guest"},
    {ExitStatus::kReboot, "the guest asked for a reboot that is not followed"},
    {ExitStatus::kSuspend, "the guest suspended itself"},
    {ExitStatus::kSoftReset, "the guest asked for a soft reset"},
    {ExitStatus::kTerminated, "ended by SIGTERM, SIGINT or destroy"},
    {ExitStatus::kSaved, "the guest was saved to a file"},
    {ExitStatus::kMoved, "the guest was moved to another host"},
}};

constexpr int to_int(ExitStatus status) {
    return static_cast<int>(status);
}

constexpr ExitStatus exit_status_of(Fault fault) {
    switch (fault) {
        case Fault::kUser: return ExitStatus::kUserError;
        case Fault::kInternal: return ExitStatus::kInternalError;
        case Fault::kHost: return ExitStatus::kHostCannot;
    }
    return ExitStatus::kInternalError;
}

}  // namespace vmm::config
