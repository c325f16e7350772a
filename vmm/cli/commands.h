// The sub-commands: a file each, one row each in main.cc.
#pragma once

#include "vmm/cli/config/options.h"

namespace vmm::cli {

config::ExitStatus run(const config::Args& args);
config::ExitStatus check(const config::Args& args);
config::ExitStatus version(const config::Args& args);

// Says what is wrong, on stderr, and answers the status that goes with it.
config::ExitStatus report(const Error& error);

}  // namespace vmm::cli
