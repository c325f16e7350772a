// What `--profile list` prints: the dialects side by side, as docs/profiles.md shows them, or with
// `--json` all that tells them apart.
#pragma once

#include <string>

namespace vmm::cli {

std::string profile_table();
std::string profiles_json();

}  // namespace vmm::cli
