// `xenolith list`, `pause`, `unpause`, `regs`, `save`, `shutdown` and `destroy`: clients of the
// control socket.
// What comes out of a socket is taken as it is found: a field that is missing is shown as
// "-".
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "control/client.h"
#include "control/endpoint.h"
#include "control/json.h"
#include "vmm/cli/client.h"
#include "vmm/cli/commands.h"
#include "vmm/cli/config/text.h"

namespace vmm::cli {

using config::ExitStatus;
using control::Directory;
using nlohmann::ordered_json;

namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A VM that takes longer to say what it is has stopped answering; what is done to it may take
// longer, and what a guest wrote is drained before it is gone.
constexpr milliseconds kLookPatience = seconds(2);
constexpr milliseconds kActPatience = seconds(30);

void print(const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
}

// ---- reading answers ----------------------------------------------------------------------------

std::string text_of(const ordered_json& object, const char* key) {
    const auto found = object.is_object() ? object.find(key) : object.end();
    if (!object.is_object() || found == object.end()) return "-";
    if (found->is_string()) return found->get<std::string>();
    return found->is_number() ? control::to_text(*found) : "-";
}

std::uint64_t number_of(const ordered_json& object, const char* key) {
    return std::strtoull(text_of(object, key).c_str(), nullptr, 0);
}

const ordered_json& member_of(const ordered_json& object, const char* key) {
    static const ordered_json kNothing;
    if (!object.is_object()) return kNothing;
    const auto found = object.find(key);
    return found != object.end() ? *found : kNothing;
}

// ---- one VM by its name -------------------------------------------------------------------------

// What a verb does with the connection and the answer.
using Then = Result<void> (*)(const Fd& socket, const ordered_json& answer, bool json);

struct Verb {
    std::string_view name;
    std::string_view summary;
    const char* method;
    const char* target;
    Then then;
};

Result<void> print_json(const Fd&, const ordered_json& answer, bool json) {
    if (json) print(control::to_text(answer) + "\n");
    return {};
}

Result<void> await_end(const Fd& socket, const ordered_json& answer, bool json) {
    // The connection ends when the VM's process has let the name go.
    if (!control::wait_for_end(socket, kActPatience)) {
        return internal_error("the guest was told to end, but its process is still there");
    }
    return print_json(socket, answer, json);
}

std::string hex16(const ordered_json& object, const char* key) {
    std::array<char, 24> text{};
    std::snprintf(text.data(), text.size(), "%016llx",
                  static_cast<unsigned long long>(number_of(object, key)));
    return text.data();
}

void print_hypercall(const ordered_json& call) {
    std::string text = "  at " + text_of(call, "instruction") + ": " + text_of(call, "name");
    if (call.contains("operation")) text += "(" + text_of(call, "operation") + ")";
    for (const auto& arg : member_of(call, "args")) {
        text += arg.is_string() ? " " + arg.get<std::string>() : "";
    }
    text += ", " + text_of(call, "width") + "-bit, profile " + text_of(call, "profile");
    if (call.contains("done")) text += ", " + text_of(call, "done") + " done";
    if (call.contains("left")) text += ", " + text_of(call, "left") + " left";
    print(text + "\n");
}

void print_vcpu(const ordered_json& vcpu) {
    print("vCPU " + text_of(vcpu, "vcpu") + ": " + text_of(vcpu, "state") + ", " +
          text_of(vcpu, "mode") + ", ring " + text_of(vcpu, "cpl") + "\n");
    constexpr std::array<std::array<const char*, 4>, 6> kRows = {{
        {"rip", "rflags", nullptr, nullptr},
        {"rax", "rbx", "rcx", "rdx"},
        {"rsi", "rdi", "rbp", "rsp"},
        {"r8", "r9", "r10", "r11"},
        {"r12", "r13", "r14", "r15"},
        {"cr0", "cr2", "cr3", "cr4"},
    }};
    for (const auto& row : kRows) {
        std::string line;
        for (const char* name : row) {
            if (name == nullptr) continue;
            std::string label(name);
            label.resize(6, ' ');
            line += (line.empty() ? "  " : "  ") + label + " " + hex16(vcpu, name);
        }
        print(line + "\n");
    }
    print("  efer   " + hex16(vcpu, "efer") + "  apic   " + hex16(vcpu, "apic_base") + "\n");
    for (const char* name : {"cs", "ss", "ds", "es", "fs", "gs", "tr", "ldt"}) {
        const ordered_json& segment = member_of(vcpu, name);
        std::array<char, 96> line{};
        std::snprintf(line.data(), line.size(),
                      "  %-6s %04llx  base %s  limit %08llx  attr %04llx\n", name,
                      static_cast<unsigned long long>(number_of(segment, "selector")),
                      hex16(segment, "base").c_str(),
                      static_cast<unsigned long long>(number_of(segment, "limit")),
                      static_cast<unsigned long long>(number_of(segment, "attributes")));
        print(line.data());
    }
    for (const char* name : {"gdt", "idt"}) {
        const ordered_json& table = member_of(vcpu, name);
        std::array<char, 96> line{};
        std::snprintf(line.data(), line.size(), "  %-6s       base %s  limit %08llx\n", name,
                      hex16(table, "base").c_str(),
                      static_cast<unsigned long long>(number_of(table, "limit")));
        print(line.data());
    }
    if (vcpu.is_object() && vcpu.contains("hypercall")) print_hypercall(vcpu["hypercall"]);
}

Result<void> print_registers(const Fd& socket, const ordered_json& answer, bool json) {
    if (json) return print_json(socket, answer, json);
    for (const auto& vcpu : member_of(answer, "vcpus")) {
        print_vcpu(vcpu);
    }
    return {};
}

ExitStatus carry_out(const Verb& verb, const config::Args& args) {
    const auto request = config::parse_verb(verb.name, verb.summary, config::Takes::kName, args);
    if (!request) return report(request.error());
    if (!request->help.empty()) {
        print(request->help);
        return ExitStatus::kPoweroff;
    }
    const auto socket = connect_to_guest(request->name);
    if (!socket) return report(socket.error());
    const auto done = [&]() -> Result<void> {
        const auto answer =
            TRY(ask_guest(*socket, {.method = verb.method, .target = verb.target}, kActPatience));
        return verb.then(*socket, answer, request->json);
    }();
    if (done) return ExitStatus::kPoweroff;
    return report({done.error().fault, request->name + ": " + done.error().what});
}

}  // namespace

ExitStatus pause(const config::Args& args) {
    return carry_out({"pause", "Stops a guest's virtual CPUs until unpause. Its clock goes on.",
                      "PUT", "/v1/vm/pause", print_json},
                     args);
}

ExitStatus unpause(const config::Args& args) {
    return carry_out({"unpause", "Lets a paused guest's virtual CPUs go on.", "PUT",
                      "/v1/vm/unpause", print_json},
                     args);
}

ExitStatus regs(const config::Args& args) {
    return carry_out({"regs",
                      "Shows each virtual CPU's registers and, where it stands at a hypercall, "
                      "which one.\nA guest that runs is stopped for that moment.",
                      "GET", "/v1/vm/regs", print_registers},
                     args);
}

ExitStatus destroy(const config::Args& args) {
    return carry_out({"destroy", "Ends a guest at once, and returns when it is gone.", "PUT",
                      "/v1/vm/destroy", await_end},
                     args);
}

// ---- save ---------------------------------------------------------------------------------------

namespace {

// As the VM's process, which has a working directory of its own, will open it.
Result<std::string> whole_path(const std::string& path) {
    std::error_code failed;
    const auto whole = std::filesystem::absolute(path, failed);
    if (failed) return user_error(path + ": " + failed.message());
    return whole.string();
}

Result<void> save_guest(const config::SaveRequest& request) {
    // A guest may have as much memory as its disk takes time for.
    constexpr milliseconds kSavePatience = std::chrono::hours(24);
    const auto socket = TRY(connect_to_guest(request.name));
    ordered_json parameters = {{"file", TRY(whole_path(request.file))},
                               {"leave_running", request.leave_running}};
    if (request.cooperative) parameters["cooperative"] = true;
    if (request.timeout_s) parameters["timeout"] = *request.timeout_s;
    const auto answer = TRY(ask_guest(
        socket, {.method = "PUT", .target = "/v1/vm/save", .body = control::to_text(parameters)},
        kSavePatience));
    return request.leave_running ? print_json(socket, answer, request.json)
                                 : await_end(socket, answer, request.json);
}

}  // namespace

ExitStatus save(const config::Args& args) {
    const auto request = config::parse_save(args);
    if (!request) return report(request.error());
    if (!request->help.empty()) {
        print(request->help);
        return ExitStatus::kPoweroff;
    }
    if (const auto saved = save_guest(*request); !saved) {
        return report({saved.error().fault, request->name + ": " + saved.error().what});
    }
    return ExitStatus::kPoweroff;
}

// ---- shutdown -----------------------------------------------------------------------------------

namespace {

Result<void> shut_guest_down(const config::ShutdownRequest& request) {
    // The VM's process says when the guest has had its time.
    constexpr milliseconds kPatience = std::chrono::hours(25);
    const auto socket = TRY(connect_to_guest(request.name));
    ordered_json parameters = {{"action", request.reboot ? "reboot" : "poweroff"}};
    if (request.timeout_s) parameters["timeout"] = *request.timeout_s;
    const auto answer = TRY(ask_guest(
        socket,
        {.method = "PUT", .target = "/v1/vm/shutdown", .body = control::to_text(parameters)},
        kPatience));
    return print_json(socket, answer, request.json);
}

}  // namespace

ExitStatus shutdown(const config::Args& args) {
    const auto request = config::parse_shutdown(args);
    if (!request) return report(request.error());
    if (!request->help.empty()) {
        print(request->help);
        return ExitStatus::kPoweroff;
    }
    if (const auto done = shut_guest_down(*request); !done) {
        return report({done.error().fault, request->name + ": " + done.error().what});
    }
    return ExitStatus::kPoweroff;
}

// ---- list ---------------------------------------------------------------------------------------

namespace {

std::string memory_text(const ordered_json& vm) {
    if (!member_of(vm, "memory").is_number_unsigned()) return "-";
    return std::to_string(number_of(vm, "memory") / config::kMiB) + "M";
}

void print_table(const std::vector<ordered_json>& vms) {
    using Row = std::array<std::string, 7>;
    std::vector<Row> rows{{"NAME", "PID", "STATE", "VCPUS", "MEMORY", "PROFILE", "TRANSPORT"}};
    for (const auto& vm : vms) {
        rows.push_back({text_of(vm, "name"), text_of(vm, "pid"), text_of(vm, "state"),
                        text_of(vm, "vcpus"), memory_text(vm), text_of(vm, "profile"),
                        text_of(vm, "transport")});
    }
    std::array<std::size_t, std::tuple_size_v<Row>> widths{};
    for (const Row& row : rows) {
        for (std::size_t i = 0; i < row.size(); ++i) {
            widths[i] = std::max(widths[i], row[i].size());
        }
    }
    for (Row& row : rows) {
        std::string line;
        for (std::size_t i = 0; i < row.size(); ++i) {
            if (i + 1 < row.size()) row[i].resize(widths[i] + 2, ' ');
            line += row[i];
        }
        print(line + "\n");
    }
}

}  // namespace

ExitStatus list(const config::Args& args) {
    const auto request =
        config::parse_verb("list", "Lists the guests that run.", config::Takes::kNothing, args);
    if (!request) return report(request.error());
    if (!request->help.empty()) {
        print(request->help);
        return ExitStatus::kPoweroff;
    }
    const std::string path = control::directory_path();
    std::vector<ordered_json> vms;
    const auto directory = Directory::open(path, Directory::Missing::kRefuse);
    if (!directory && ::access(path.c_str(), F_OK) == 0) return report(directory.error());
    for (const auto& name : directory ? directory->names() : std::vector<std::string>()) {
        const auto socket = directory->connect(name);
        if (socket && !*socket) continue;  // nobody is there any more
        ordered_json vm = {{"name", name}, {"state", "unresponsive"}};
        if (socket) {
            const auto answer =
                ask_guest(**socket, {.method = "GET", .target = "/v1/vm"}, kLookPatience);
            if (answer) {
                vm = *answer;
            } else if (control::wait_for_end(**socket, milliseconds(0))) {
                continue;  // it ended while we asked
            } else {
                vm["pid"] = control::peer_pid(**socket);
            }
        }
        vms.push_back(std::move(vm));
    }
    if (request->json) {
        print(control::to_text(ordered_json(vms)) + "\n");
    } else {
        print_table(vms);
    }
    return ExitStatus::kPoweroff;
}

}  // namespace vmm::cli
