#include <cstdio>
#include <exception>

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
    {"destroy", "end a guest at once", destroy},
    {"check", "say what this host can do, and what to do about the rest", check},
    {"version", "print the version", version},
    {"trace", "show what 'run --trace' recorded, or judge it for another profile", trace},
};

}  // namespace

config::ExitStatus report(const Error& error) {
    std::fprintf(stderr, "xenolith: %s\n", error.what.c_str());
    return config::exit_status_of(error.fault);
}

config::ExitStatus version(const config::Args& args) {
    constexpr config::Command self{"version", "print the version", version};
    const auto text = config::parse_plain(self, args);
    if (!text) return report(text.error());
    if (!text->empty()) {
        std::fputs(text->c_str(), stdout);
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
        return vmm::config::to_int(
            vmm::cli::dispatch(vmm::config::Args(argv + (argc > 0 ? 1 : 0), argv + argc)));
    } catch (const std::exception& e) {
        // Nothing of ours throws; the standard library does when memory runs out.
        std::fprintf(stderr, "xenolith: %s\n", e.what());
        return vmm::config::to_int(vmm::config::ExitStatus::kInternalError);
    }
}
