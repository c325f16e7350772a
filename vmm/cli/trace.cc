// `xenolith trace`: what a trace file says.
#include <cstdio>

#include "vmm/cli/commands.h"
#include "xenshim/trace/report.h"

namespace vmm::cli {

using config::ExitStatus;

namespace {

namespace trace_ = xenshim::trace;

Result<ExitStatus> print(const config::TraceRequest& request) {
    using What = config::TraceRequest::What;
    auto reader = TRY(trace_::Reader::open(request.file));
    const auto style = request.stable ? trace_::Style::kStable : trace_::Style::kFull;
    switch (request.what) {
        case What::kShow: TRY(trace_::print_calls(reader, style, request.json, stdout)); break;
        case What::kStats: TRY(trace_::print_sums(reader, style, request.json, stdout)); break;
        case What::kJson: TRY(trace_::print_chrome(reader, stdout)); break;
        case What::kCheck: {
            const auto* there = xenshim::abi::find_profile(request.profile);
            const bool differs =
                TRY(trace_::print_check(reader, *there, style, request.json, stdout));
            if (differs) return ExitStatus::kDiffers;
            break;
        }
    }
    return ExitStatus::kPoweroff;
}

}  // namespace

ExitStatus trace(const config::Args& args) {
    std::vector<std::string_view> profiles;
    for (const auto& profile : xenshim::abi::profiles()) {
        profiles.push_back(profile.name);
    }
    const auto request = config::parse_trace(args, profiles);
    if (!request) return report(request.error());
    if (!request->help.empty()) {
        std::fputs(request->help.c_str(), stdout);
        return ExitStatus::kPoweroff;
    }
    const auto status = print(*request);
    return status ? *status : report(status.error());
}

}  // namespace vmm::cli
