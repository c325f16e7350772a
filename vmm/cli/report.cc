#include <cstdio>

#include "vmm/cli/commands.h"

namespace vmm::cli {

config::ExitStatus report(const Error& error) {
    std::fprintf(stderr, "xenolith: %s\n", error.what.c_str());
    return config::exit_status_of(error.fault);
}

}  // namespace vmm::cli
