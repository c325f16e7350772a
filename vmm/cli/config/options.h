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
#include "vmm/cli/config/address.h"
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
    bool json = false;           // list_profiles only
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
    bool json = false;    // all but kJson
    bool stable = false;  // all but kJson
};
Result<TraceRequest> parse_trace(const Args& args, std::span<const std::string_view> profiles);
std::string trace_help();

// `xenolith save`
struct SaveRequest {
    std::string help;  // not empty: print it and end with status 0; nothing else is set
    std::string name;
    std::string file;
    bool leave_running = false;
    // The guest is asked to suspend itself.
    bool cooperative = false;
    std::optional<std::uint64_t> timeout_s{};  // for that; none: as the VM's process has it
    bool json = false;
};
Result<SaveRequest> parse_save(const Args& args);
std::string save_help();

// `xenolith shutdown`
struct ShutdownRequest {
    std::string help;  // not empty: print it and end with status 0; nothing else is set
    std::string name;
    bool reboot = false;
    std::optional<std::uint64_t> timeout_s{};  // none: as the VM's process has it
    bool json = false;
};
Result<ShutdownRequest> parse_shutdown(const Args& args);
std::string shutdown_help();

// `xenolith restore`: of `run`'s options those that are the host's business.
struct RestoreRequest {
    std::string file;
    bool verify = false;  // all of it before the start
    RunRequest run;       // of `vm`: name (empty: as it was), transport, console_file
};
Result<RestoreRequest> parse_restore(const Args& args);
std::string restore_help();

// For tls://: who we are and whom we trust.
struct TlsOptions {
    std::string folder = "/etc/xenolith/tls";  // ca.pem, cert.pem and key.pem, and perhaps crl.pem
    // Names, one of which must stand in the other side's certificate. None: of `migrate` the host's
    // in DEST; of `receive` whichever.
    std::vector<std::string> peers;
};

// `xenolith migrate`
struct MigrateRequest {
    std::string help;  // not empty: print it and end with status 0; nothing else is set
    std::string name;
    Address to;
    std::string ssh = "ssh";  // the program for ssh://
    TlsOptions tls;
    // The guest is asked to suspend itself.
    bool cooperative = false;
    std::optional<std::uint64_t> timeout_s{};  // for that; none: as the VM's process has it
    bool resume = false;  // the guest's process is no more: only its word is passed on
    bool json = false;
};
Result<MigrateRequest> parse_migrate(const Args& args);
std::string migrate_help();

// `xenolith receive`: of `run`'s options those that are the host's business.
struct ReceiveRequest {
    Address from;
    TlsOptions tls;
    RunRequest run;  // of `vm`: name (empty: as it was), transport, console_file
};
Result<ReceiveRequest> parse_receive(const Args& args);
std::string receive_help();

// `xenolith inspect`
struct InspectRequest {
    std::string help;  // not empty: print it and end with status 0; nothing else is set
    std::string file;
    bool verify = false;
    bool json = false;
};
Result<InspectRequest> parse_inspect(const Args& args);
std::string inspect_help();

// `xenolith check`
struct CheckRequest {
    std::string help;  // not empty: print it and end with status 0; nothing else is set
    bool json = false;
    bool cpu = false;                // what CPUs can do, not what the host can
    std::vector<std::string> files;  // cpu: what these have in common; empty: this host's
};
Result<CheckRequest> parse_check(const Args& args);
std::string check_help();

// A command that prints JSON when asked to: `list`, `version`, or one that takes the NAME
// of a VM that runs.
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
