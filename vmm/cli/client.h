// A request to the process of a guest that runs, for the verbs.
#pragma once

#include <chrono>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "control/client.h"
#include "vmm/base/fd.h"
#include "vmm/base/result.h"

namespace vmm::cli {

// Fault::kUser: there is no such guest.
Result<Fd> connect_to_guest(const std::string& name);

// An answer with a status other than 200 is the user's mistake or the VM's failure.
Result<nlohmann::ordered_json> ask_guest(const Fd& socket, const control::Request& request,
                                         std::chrono::milliseconds patience);

}  // namespace vmm::cli
