// Where what was measured elsewhere is, and bytes of earlier versions, which tests compare with.
#pragma once

#include <string>

namespace golden {

// The path of tests/golden/NAME.
std::string file(const std::string& name);

}  // namespace golden
