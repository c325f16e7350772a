#include "vmm/cli/client.h"

#include <nlohmann/json.hpp>
#include <unistd.h>

#include "control/endpoint.h"
#include "control/json.h"
#include "vmm/cli/config/text.h"

namespace vmm::cli {

using control::Directory;
using nlohmann::ordered_json;

Result<Fd> connect_to_guest(const std::string& name) {
    const std::string path = control::directory_path();
    const auto nobody = [&] {
        return user_error("there is no guest named " + config::in_quotes(name) + " in " + path);
    };
    const auto directory = Directory::open(path, Directory::Missing::kRefuse);
    if (!directory) {
        // No directory: nobody has run here yet.
        if (::access(path.c_str(), F_OK) != 0) return nobody();
        return Failure{directory.error()};
    }
    auto socket = TRY(directory->connect(name));
    if (!socket) return nobody();
    return std::move(*socket);
}

Result<ordered_json> ask_guest(const Fd& socket, const control::Request& request,
                               std::chrono::milliseconds patience) {
    const auto response = TRY(control::ask(socket, request, patience));
    if (response.status != 200) {
        const std::string why = control::error_of(response.body);
        const std::string text = why.empty() ? "status " + std::to_string(response.status) : why;
        constexpr int kEnded = 503;
        return response.status < 500 || response.status == kEnded ? user_error(text)
                                                                  : internal_error(text);
    }
    auto value = ordered_json::parse(response.body, nullptr, false);
    if (!value.is_object()) return internal_error("the answer is no JSON object");
    return value;
}

}  // namespace vmm::cli
