// Where the processes that take part in a move find each other and keep what they promised.
#pragma once

#include <string>

#include "control/endpoint.h"
#include "migration/ownership.h"
#include "vmm/base/fd.h"
#include "vmm/base/result.h"

namespace vmm::cli {

// The records (migration/durable.h): $XENOLITH_STATE_DIR, else /var/lib/xenolith for root, else
// $XDG_STATE_HOME/xenolith or ~/.local/state/xenolith; made if it is missing. It must outlive a
// power cut, which the runtime directory does not.
Result<std::string> moves_folder();

// In the runtime directory: sockets of `xenolith migrate`, at which a guest's process gets its
// link.
Result<control::Directory> links_folder();
Result<Fd> connect_to_link(const std::string& name);

// Likewise those of processes that have received a guest and have not heard that the source knows.
Result<control::Directory> arrivals_folder();
std::string arrival_name(const migration::VmId& vm);

}  // namespace vmm::cli
