// JSON as we write it: one line, and whatever bytes a name holds, valid UTF-8.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace control {

std::string to_text(const nlohmann::ordered_json& value);
// {"error": "why"}
std::string error_text(std::string_view why);
// The "error" of such a text; empty when it has none.
std::string error_of(std::string_view text);

}  // namespace control
