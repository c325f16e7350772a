#include "control/json.h"

#include <nlohmann/json.hpp>

namespace control {

using nlohmann::ordered_json;

std::string to_text(const ordered_json& value) {
    // A guest's name may hold bytes that are no UTF-8.
    return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

std::string error_text(std::string_view why) {
    ordered_json error;
    error["error"] = std::string(why);
    return to_text(error);
}

std::string error_of(std::string_view text) {
    const auto value = ordered_json::parse(text, nullptr, false);
    if (!value.is_object()) return {};
    const auto found = value.find("error");
    return found != value.end() && found->is_string() ? found->get<std::string>() : std::string();
}

}  // namespace control
