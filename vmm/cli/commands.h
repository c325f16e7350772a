// The sub-commands: a file each, one row each in main.cc.
#pragma once

#include "vmm/cli/config/options.h"

namespace vmm::cli {

config::ExitStatus run(const config::Args& args);
config::ExitStatus restore(const config::Args& args);
config::ExitStatus receive(const config::Args& args);
config::ExitStatus inspect(const config::Args& args);
config::ExitStatus check(const config::Args& args);
config::ExitStatus trace(const config::Args& args);
config::ExitStatus version(const config::Args& args);
// These speak to VMs that run, through their control sockets (verbs.cc).
config::ExitStatus list(const config::Args& args);
config::ExitStatus pause(const config::Args& args);
config::ExitStatus unpause(const config::Args& args);
config::ExitStatus regs(const config::Args& args);
config::ExitStatus save(const config::Args& args);
config::ExitStatus migrate(const config::Args& args);  // migrate.cc
config::ExitStatus shutdown(const config::Args& args);
config::ExitStatus destroy(const config::Args& args);

// Says what is wrong, on stderr, and answers the status that goes with it.
config::ExitStatus report(const Error& error);

}  // namespace vmm::cli
