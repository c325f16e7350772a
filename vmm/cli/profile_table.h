// What `--profile list` prints, and docs/profiles.md shows: the dialects side by side.
#pragma once

#include <string>

namespace vmm::cli {

std::string profile_table();

}  // namespace vmm::cli
