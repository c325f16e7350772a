// The client's side of a control socket: one request and its answer, with a limit on how long that
// may take.
#pragma once

#include <chrono>

#include "control/http.h"
#include "vmm/base/fd.h"

namespace control {

// An error when the answer has not come within `patience` or is none (Fault::kInternal), or when
// the other side closed before it answered (Fault::kUser).
vmm::Result<Response> ask(const vmm::Fd& socket, const Request& request,
                          std::chrono::milliseconds patience);

// Waits for the other side to close; false when it has not within `patience`.
bool wait_for_end(const vmm::Fd& socket, std::chrono::milliseconds patience);

// The process at the other side.
pid_t peer_pid(const vmm::Fd& socket);

}  // namespace control
