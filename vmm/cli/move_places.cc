#include "vmm/cli/move_places.h"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <unistd.h>

namespace vmm::cli {
namespace {

std::string state_folder() {
    const auto set = [](const char* name) {
        const char* const value = std::getenv(name);
        return std::string(value == nullptr ? "" : value);
    };
    if (const auto own = set("XENOLITH_STATE_DIR"); !own.empty()) return own;
    if (::geteuid() == 0) return "/var/lib/xenolith";
    if (const auto state = set("XDG_STATE_HOME"); !state.empty()) return state + "/xenolith";
    return set("HOME") + "/.local/state/xenolith";
}

Result<control::Directory> folder_in_runtime(const char* name) {
    using control::Directory;
    const std::string runtime = control::directory_path();
    TRY(Directory::open(runtime, Directory::Missing::kMake));
    return Directory::open(runtime + "/" + name, Directory::Missing::kMake);
}

}  // namespace

Result<std::string> moves_folder() {
    const std::string state = state_folder();
    std::error_code failed;
    std::filesystem::create_directories(state, failed);
    if (failed) return host_error(state + ": " + failed.message());
    const std::string moves = state + "/moves";
    TRY(control::Directory::open(moves, control::Directory::Missing::kMake));
    return moves;
}

Result<control::Directory> links_folder() {
    return folder_in_runtime("links");
}

Result<Fd> connect_to_link(const std::string& name) {
    if (name.empty() || name.find('/') != std::string::npos) {
        return user_error("link is the name of a socket in " + control::directory_path() +
                          "/links");
    }
    const auto links = TRY(links_folder());
    auto socket = TRY(links.connect(name));
    if (!socket) return user_error("nobody waits at the link " + name);
    return *std::move(socket);
}

Result<control::Directory> arrivals_folder() {
    return folder_in_runtime("arrivals");
}

std::string arrival_name(const migration::VmId& vm) {
    std::string name;
    for (const std::byte byte : vm) {
        std::array<char, 3> digits{};
        std::snprintf(digits.data(), digits.size(), "%02x", std::to_integer<unsigned>(byte));
        name += digits.data();
    }
    return name;
}

}  // namespace vmm::cli
