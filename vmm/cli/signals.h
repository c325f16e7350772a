// The signals that end a process of ours, taken by a descriptor.
#pragma once

#include "vmm/base/fd.h"
#include "vmm/base/result.h"

namespace vmm::cli {

// SIGTERM, SIGINT and SIGHUP, blocked in this thread and in those that it will start. SIGPIPE and
// SIGXFSZ are ignored.
Result<Fd> take_signals();
// The next of them; false: there is none.
bool take_signal(int signals);

}  // namespace vmm::cli
