#include <cstdio>
#include <exception>
#include <nlohmann/json.hpp>

#include "control/json.h"
#include "vmm/base/log.h"
#include "vmm/cli/commands.h"
#include "xenshim/abi/profile.h"

namespace vmm::cli {

using config::ExitStatus;

namespace {

constexpr config::Command kCommands[] = {
    {"run", "start a guest and stay with it until it ends", run},
    {"list", "list the guests that run", list},
    {"pause", "stop a guest's CPUs", pause},
    {"unpause", "let a guest's CPUs go on", unpause},
    {"regs", "show a guest's registers and the hypercall it is at", regs},
    {"shutdown", "ask a guest to power itself off", shutdown},
    {"destroy", "end a guest at once", destroy},
    {"save", "save a guest to a file", save},
    {"restore", "go on with a guest that was saved", restore},
    {"migrate", "move a guest to another host", migrate},
    {"receive", "wait for a guest that is moved here, and go on with it", receive},
    {"inspect", "show what is in a saved guest's file", inspect},
    {"check", "say what this host can do, and what to do about the rest", check},
    {"version", "print the version", version},
    {"trace", "show what 'run --trace' recorded, or judge it for another profile", trace},
};

}  // namespace

config::ExitStatus version(const config::Args& args) {
    const auto request = config::parse_verb("version", "Prints the version and the profiles.",
                                            config::Takes::kNothing, args);
    if (!request) return report(request.error());
    if (!request->help.empty()) {
        std::fputs(request->help.c_str(), stdout);
        return ExitStatus::kPoweroff;
    }
    if (request->json) {
        nlohmann::ordered_json out = {{"version", XENOLITH_VERSION},
                                      {"default_profile", xenshim::abi::kDefaultProfile},
                                      {"profiles", nlohmann::ordered_json::array()}};
        for (const auto& profile : xenshim::abi::profiles())
            out["profiles"].push_back(profile.name);
        std::printf("%s\n", control::to_text(out).c_str());
        return ExitStatus::kPoweroff;
    }
    std::printf("xenolith %s\n", XENOLITH_VERSION);
    for (const auto& profile : xenshim::abi::profiles()) {
        std::printf("profile %.*s%s\n", static_cast<int>(profile.name.size()), profile.name.data(),
                    profile.name == xenshim::abi::kDefaultProfile ? " (default)" : "");
    }
    return ExitStatus::kPoweroff;
}

namespace {

ExitStatus dispatch(const config::Args& args) {
    const auto invocation = config::parse_program(kCommands, args);
    if (!invocation) return report(invocation.error());
    if (invocation->command == nullptr) {
        std::fputs(invocation->text.c_str(), stdout);
        return ExitStatus::kPoweroff;
    }
    return invocation->command->run(invocation->args);
}

}  // namespace
}  // namespace vmm::cli

int main(int argc, char** argv) {
    try {
        const auto status =
            vmm::cli::dispatch(vmm::config::Args(argv + (argc > 0 ? 1 : 0), argv + argc));
        // What was asked for and could not be said was not done.
        if ((std::fflush(stdout) != 0 || std::ferror(stdout) != 0) &&
            status == vmm::config::ExitStatus::kPoweroff) {
            return vmm::config::to_int(
                vmm::cli::report({vmm::Fault::kInternal, "standard output: it cannot be written"}));
        }
        return vmm::config::to_int(status);
    } catch (const std::exception& e) {
        // Nothing of ours throws; the standard library does when memory runs out.
        std::fprintf(stderr, "xenolith: %s\n", e.what());
        return vmm::config::to_int(vmm::config::ExitStatus::kInternalError);
    }
}
