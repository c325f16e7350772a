#include "xenshim/trace/report.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "xenshim/abi/continuation.h"
#include "xenshim/trace/check.h"

namespace xenshim::trace {
namespace {

using nlohmann::ordered_json;

constexpr std::uint64_t kNsPerSecond = 1'000'000'000;

std::string seconds(std::uint64_t ns) {
    std::array<char, 40> text{};
    std::snprintf(text.data(), text.size(), "%llu.%09llu",
                  static_cast<unsigned long long>(ns / kNsPerSecond),
                  static_cast<unsigned long long>(ns % kNsPerSecond));
    return text.data();
}

std::string dump(const ordered_json& json, int indent = -1) {
    // Nothing of a guest's gets into our texts but as ASCII; should it: not an exception.
    return json.dump(indent, ' ', false, ordered_json::error_handler_t::replace);
}

void print(std::FILE* to, const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), to);
}

vmm::Result<void> end_of_output(std::FILE* to) {
    if (std::fflush(to) != 0 || std::ferror(to) != 0) return vmm::errno_error("writing the output");
    return {};
}

std::string header_text(const Header& header, Style style) {
    std::string text = "# profile " + std::string(header.profile->name);
    if (header.legacy_quirks) text += ", XenServer's quirks";
    if (style == Style::kFull) text += ", transport " + header.transport;
    return text + ", domain " + std::to_string(header.domid) + ", " + std::to_string(header.vcpus) +
           " vCPU" + (header.vcpus == 1 ? "" : "s") + "\n";
}

// "v0", with what is unusual about the caller.
std::string caller(const Event& call) {
    std::string text = "v" + std::to_string(call.vcpu);
    if (call.request.width == abi::Width::k32) text += ":32";
    if (call.request.cpl != 0) text += ":ring" + std::to_string(call.request.cpl);
    return text;
}

const char kIncomplete[] = "# the trace has no end: xenolith was killed, or could not write\n";

std::string dropped_text(std::uint64_t count) {
    return std::to_string(count) + (count == 1 ? " call is" : " calls are") + " missing";
}

// How often a guest yields while it waits is for the host to say. Stable reports leave it out.
bool is_left_out(const Header& header, const Event& event, Style style) {
    if (style != Style::kStable || event.kind != Kind::kCall) return false;
    return abi::hypercall_number(*header.profile, event.request) == abi::HYPERVISOR_sched_op &&
           sub_op_of(*header.profile, event.request).at.op == abi::SCHEDOP_yield;
}

// A call's arguments by name, or by place where they have none.
ordered_json arguments_of(const Described& call) {
    ordered_json out = ordered_json::object();
    unsigned place = 0;
    for (const Argument& argument : call.arguments) {
        ++place;
        out[argument.name.empty() ? "arg" + std::to_string(place) : argument.name] = argument.text;
    }
    return out;
}

int width_of(const Event& call) {
    return call.request.width == abi::Width::k64 ? 64 : 32;
}

ordered_json to_json(const Header& header, const Event& event, Style style) {
    const Described call = describe(*header.profile, event, style);
    ordered_json out = {{"kind", "call"}};
    if (style == Style::kFull) out["time_ns"] = event.time_ns;
    out["vcpu"] = event.vcpu;
    out["width"] = width_of(event);
    if (event.request.cpl != 0) out["ring"] = event.request.cpl;
    out["hypercall"] = call.hypercall;
    out["operation"] = call.operation;
    out["arguments"] = arguments_of(call);
    out["result"] = call.result;
    // The text is for eyes, and "continues" is none that a program should have to take apart.
    switch (event.ending) {
        case Ending::kFinish:
            out["ending"] = "finished";
            out["value"] = event.result;
            break;
        case Ending::kContinue: out["ending"] = "continues"; break;
        case Ending::kBlock: out["ending"] = "sleeps"; break;
    }
    if (style == Style::kFull) out["duration_ns"] = event.duration_ns;
    return out;
}

ordered_json to_json(const Header& header, Style style) {
    ordered_json out = {{"kind", "trace"}, {"profile", header.profile->name}};
    if (style == Style::kFull) {
        out["transport"] = header.transport;
        out["started_unix_ns"] = header.started_ns;
    }
    out["domid"] = header.domid;
    out["vcpus"] = header.vcpus;
    out["xenserver_quirks"] = header.legacy_quirks;
    return out;
}

// What is no call.
ordered_json mark_to_json(const Event& event, Style style) {
    const bool dropped = event.kind == Kind::kDropped;
    ordered_json out = {{"kind", dropped ? "dropped" : "restart"}};
    if (style == Style::kFull) out["time_ns"] = event.time_ns;
    if (dropped) {
        out["vcpu"] = event.vcpu;
        out["calls"] = event.value;
    }
    return out;
}

struct Sum {
    std::string hypercall;
    std::uint64_t calls = 0, entries = 0, continuations = 0, errors = 0;
    std::uint64_t total_ns = 0, longest_ns = 0;
};

}  // namespace

namespace {

// What breaks off in the middle of the file leaves whole lines.
vmm::Result<void> print_json_lines(Reader& reader, Style style, std::FILE* to) {
    const Header& header = reader.header();
    print(to, dump(to_json(header, style)) + "\n");
    for (;;) {
        const auto event = TRY(reader.next());
        if (!event) break;
        if (event->kind == Kind::kEnd || is_left_out(header, *event, style)) continue;
        const ordered_json line = event->kind == Kind::kCall ? to_json(header, *event, style)
                                                             : mark_to_json(*event, style);
        print(to, dump(line) + "\n");
    }
    print(to, dump({{"kind", "end"}, {"complete", reader.complete()}}) + "\n");
    return end_of_output(to);
}

}  // namespace

vmm::Result<void> print_calls(Reader& reader, Style style, bool json, std::FILE* to) {
    if (json) return print_json_lines(reader, style, to);
    const Header& header = reader.header();
    print(to, header_text(header, style));
    for (;;) {
        const auto event = TRY(reader.next());
        if (!event) break;
        if (is_left_out(header, *event, style)) continue;
        std::string line;
        if (style == Style::kFull) {
            line = seconds(event->time_ns) + " ";
            if (line.size() < 16) line.insert(0, 16 - line.size(), ' ');
        }
        switch (event->kind) {
            case Kind::kCall:
                line += caller(*event) + " " + to_text(describe(*header.profile, *event, style));
                if (style == Style::kFull) line += " <" + seconds(event->duration_ns) + ">";
                break;
            case Kind::kDropped:
                line += "v" + std::to_string(event->vcpu) + " -- " + dropped_text(event->value);
                break;
            case Kind::kRestart: line += "-- the guest is started anew"; break;
            case Kind::kEnd: continue;
        }
        print(to, line + "\n");
    }
    if (!reader.complete()) print(to, kIncomplete);
    return end_of_output(to);
}

vmm::Result<void> print_sums(Reader& reader, Style style, bool json, std::FILE* to) {
    const Header& header = reader.header();
    std::map<std::string, Sum> by_name;
    std::uint64_t dropped = 0;
    for (;;) {
        const auto event = TRY(reader.next());
        if (!event) break;
        if (event->kind == Kind::kDropped) dropped += event->value;
        if (event->kind != Kind::kCall || is_left_out(header, *event, style)) continue;
        const std::uint64_t number = abi::hypercall_number(*header.profile, event->request);
        Sum& sum = by_name[operation_name(number, sub_op_of(*header.profile, event->request))];
        sum.hypercall = hypercall_name(number);
        ++sum.entries;
        if (event->ending == Ending::kContinue) {
            ++sum.continuations;
        } else {
            ++sum.calls;
        }
        constexpr std::int64_t kMostError = 4095;
        if (event->ending == Ending::kFinish && event->result < 0 && event->result >= -kMostError) {
            ++sum.errors;
        }
        sum.total_ns += event->duration_ns;
        sum.longest_ns = std::max(sum.longest_ns, event->duration_ns);
    }
    std::vector<std::pair<std::string, Sum>> sums(by_name.begin(), by_name.end());
    if (style == Style::kFull) {
        std::stable_sort(sums.begin(), sums.end(), [](const auto& a, const auto& b) {
            return a.second.total_ns > b.second.total_ns;
        });
    }
    if (json) {
        ordered_json out = {{"profile", header.profile->name},
                            {"dropped", dropped},
                            {"complete", reader.complete()}};
        out["operations"] = ordered_json::array();
        for (const auto& [name, sum] : sums) {
            ordered_json row = {{"operation", name},
                                {"hypercall", sum.hypercall},
                                {"calls", sum.calls},
                                {"entries", sum.entries},
                                {"continuations", sum.continuations},
                                {"errors", sum.errors}};
            if (style == Style::kFull) {
                row["total_ns"] = sum.total_ns;
                row["longest_ns"] = sum.longest_ns;
            }
            out["operations"].push_back(std::move(row));
        }
        print(to, dump(out, 2) + "\n");
        return end_of_output(to);
    }
    print(to, header_text(header, style));
    std::fprintf(to, "%10s %10s %10s %8s", "calls", "entries", "continued", "errors");
    if (style == Style::kFull) std::fprintf(to, " %14s %10s %10s", "total s", "mean us", "max us");
    std::fprintf(to, "  operation\n");
    using Ull = unsigned long long;
    for (const auto& [name, sum] : sums) {
        std::fprintf(to, "%10llu %10llu %10llu %8llu", static_cast<Ull>(sum.calls),
                     static_cast<Ull>(sum.entries), static_cast<Ull>(sum.continuations),
                     static_cast<Ull>(sum.errors));
        if (style == Style::kFull) {
            const double total = static_cast<double>(sum.total_ns);
            std::fprintf(to, " %14s %10.3f %10.3f", seconds(sum.total_ns).c_str(),
                         total / static_cast<double>(sum.entries) / 1000,
                         static_cast<double>(sum.longest_ns) / 1000);
        }
        std::fprintf(to, "  %s\n", name.c_str());
    }
    if (dropped != 0) print(to, "# " + dropped_text(dropped) + "\n");
    if (!reader.complete()) print(to, kIncomplete);
    return end_of_output(to);
}

vmm::Result<void> print_chrome(Reader& reader, std::FILE* to) {
    const Header& header = reader.header();
    const ordered_json about = {{"profile", header.profile->name},
                                {"transport", header.transport},
                                {"domid", header.domid},
                                {"started_unix_ns", header.started_ns}};
    print(to, "{\"displayTimeUnit\":\"ns\",\"otherData\":" + dump(about) + ",\"traceEvents\":[\n");
    print(to, dump({{"ph", "M"},
                    {"name", "process_name"},
                    {"pid", header.domid},
                    {"args", {{"name", "domain " + std::to_string(header.domid)}}}}));
    for (unsigned v = 0; v < header.vcpus; ++v) {
        print(to, ",\n" + dump({{"ph", "M"},
                                {"name", "thread_name"},
                                {"pid", header.domid},
                                {"tid", v},
                                {"args", {{"name", "vCPU " + std::to_string(v)}}}}));
    }
    // The format counts in microseconds.
    const auto us = [](std::uint64_t ns) { return static_cast<double>(ns) / 1000; };
    for (;;) {
        const auto event = TRY(reader.next());
        if (!event) break;
        ordered_json out = {
            {"pid", header.domid}, {"tid", event->vcpu}, {"ts", us(event->time_ns)}};
        switch (event->kind) {
            case Kind::kCall: {
                const Described call = describe(*header.profile, *event, Style::kFull);
                out["ph"] = "X";
                out["dur"] = us(event->duration_ns);
                out["name"] = call.operation;
                out["cat"] = call.hypercall;
                ordered_json args = {{"result", call.result}, {"width", width_of(*event)}};
                args.update(arguments_of(call));
                if (event->request.cpl != 0) args["ring"] = event->request.cpl;
                out["args"] = std::move(args);
                break;
            }
            case Kind::kDropped:
                out["ph"] = "i";
                out["s"] = "t";
                out["name"] = dropped_text(event->value);
                break;
            case Kind::kRestart:
                out["ph"] = "i";
                out["s"] = "g";
                out["name"] = "the guest is started anew";
                break;
            case Kind::kEnd: continue;
        }
        print(to, ",\n" + dump(out));
    }
    print(to, "\n]}\n");
    return end_of_output(to);
}

vmm::Result<bool> print_check(Reader& reader, const abi::Profile& there, Style style, bool json,
                              std::FILE* to) {
    const Header& header = reader.header();
    Check check(header, there);
    std::uint64_t dropped = 0;
    for (;;) {
        const auto event = TRY(reader.next());
        if (!event) break;
        if (event->kind == Kind::kCall && !is_left_out(header, *event, style)) check.add(*event);
        if (event->kind == Kind::kRestart) check.restart();
        if (event->kind == Kind::kDropped) dropped += event->value;
    }
    const auto& findings = check.findings();
    const auto first_call = [&](const Finding& finding) {
        return to_text(describe(*header.profile, finding.call, style));
    };
    if (json) {
        ordered_json out = {{"profile", header.profile->name},
                            {"judged_for", there.name},
                            {"calls", check.calls()},
                            {"dropped", dropped},
                            {"complete", reader.complete()}};
        out["differences"] = ordered_json::array();
        for (const Finding& finding : findings) {
            ordered_json row = {{"operation", finding.operation},
                                {"reason", to_string(finding.first.reason)},
                                {"what", finding.first.what},
                                {"calls", finding.calls}};
            ordered_json first = {{"vcpu", finding.vcpu}, {"call", first_call(finding)}};
            if (style == Style::kFull) first["time_ns"] = finding.time_ns;
            if (!finding.first.detail.empty()) first["detail"] = finding.first.detail;
            row["first"] = std::move(first);
            out["differences"].push_back(std::move(row));
        }
        print(to, dump(out, 2) + "\n");
    } else {
        print(to, header_text(header, style));
        print(to, "# \"here\" is " + std::string(header.profile->name) + ", \"there\" is " +
                      std::string(there.name) + "\n");
        for (const Finding& finding : findings) {
            std::fprintf(to, "%10llu  %s: %s: %s\n", static_cast<unsigned long long>(finding.calls),
                         finding.operation.c_str(),
                         std::string(to_string(finding.first.reason)).c_str(),
                         finding.first.what.c_str());
            std::string first = "first";
            if (style == Style::kFull) first += " at " + seconds(finding.time_ns);
            first += " on " + caller(finding.call) + ": " + first_call(finding);
            print(to, "            " + first + "\n");
            if (!finding.first.detail.empty()) {
                print(to, "            " + finding.first.detail + "\n");
            }
        }
        print(to, "# " + std::to_string(check.calls()) + " calls, " +
                      std::to_string(findings.size()) +
                      (findings.size() == 1 ? " difference\n" : " differences\n"));
        if (dropped != 0) print(to, "# " + dropped_text(dropped) + " and not judged\n");
        if (!reader.complete()) print(to, kIncomplete);
    }
    TRY(end_of_output(to));
    return !findings.empty();
}

}  // namespace xenshim::trace
