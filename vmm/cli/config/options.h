// The command line: the table of sub-commands and what each of them takes. Boost.Program_options
// does the parsing; its exceptions end here, as one line for the operator (Fault::kUser).
//
// `--help` is generated from the same descriptions that parse, and a unit test holds
// docs/xenolith.1 against it.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/base/log.h"
#include "vmm/base/result.h"
#include "vmm/cli/config/exit_status.h"
#include "vmm/cli/config/vm_config.h"

namespace vmm::config {

// What follows the program's (or the sub-command's) name.
using Args = std::vector<std::string>;

// One sub-command: main.cc holds the table, find it there.
struct Command {
    std::string_view name;
    std::string_view summary;  // one line, lower case, no full stop
    ExitStatus (*run)(const Args& args);
};

// What the program's own arguments ask for: a sub-command with its arguments, or a text to print
// on stdout before ending with status 0.
struct Invocation {
    const Command* command = nullptr;  // null: print `text`
    Args args;
    std::string text;
};
Result<Invocation> parse_program(std::span<const Command> commands, const Args& args);
std::string program_help(std::span<const Command> commands);

// `xenolith run`
struct RunRequest {
    std::string help;  // not empty: print it and end with status 0; nothing else is set
    VmConfig vm;
    bool list_profiles = false;  // print them and end with status 0; no image need be named
    std::string config_file;     // empty: none was given
    LogLevel log_level = LogLevel::kWarn;
    std::string log_file;    // empty: stderr
    std::string trace_file;  // empty: no trace is taken
    bool strict = false;
    bool paused = false;
    // To be logged once the log level and file are in force.
    std::vector<std::string> warnings;
};
// Reads GUEST.cfg too, if one is named. `profiles` are the names that --profile takes.
Result<RunRequest> parse_run(const Args& args, std::span<const std::string_view> profiles);
std::string run_help();

// `xenolith trace`
struct TraceRequest {
    enum class What { kShow, kStats, kJson, kCheck };
    std::string help;  // not empty: print it and end with status 0; nothing else is set
    What what = What::kShow;
    std::string file;
    std::string profile;  // kCheck: the one to compare with
    bool json = false;    // kStats, kCheck
    bool stable = false;  // all but kJson
};
Result<TraceRequest> parse_trace(const Args& args, std::span<const std::string_view> profiles);
std::string trace_help();

// `check`, `version` and other commands that take nothing but --help: the text to print if that
// was asked for, else an empty string.
Result<std::string> parse_plain(const Command& command, const Args& args);

// A command about VMs that run: `list`, or one that takes a VM's NAME.
struct VerbRequest {
    std::string help;  // not empty: print it and end with status 0; nothing else is set
    std::string name;
    bool json = false;
};
enum class Takes { kNothing, kName };
Result<VerbRequest> parse_verb(std::string_view command, std::string_view summary, Takes takes,
                               const Args& args);
std::string verb_help(std::string_view command, std::string_view summary, Takes takes);

}  // namespace vmm::config
