#include "vmm/cli/config/options.h"

#include <algorithm>
#include <array>
#include <optional>
#include <sstream>
#include <utility>

#include <boost/program_options.hpp>

#include "vmm/cli/config/text.h"
#include "vmm/cli/config/xlcfg.h"

namespace vmm::config {
namespace {

namespace po = boost::program_options;
using Profiles = std::span<const std::string_view>;

constexpr unsigned kHelpColumns = 80;
constexpr unsigned kDescriptionColumns = 44;

// One option of `xenolith run`. Parsing, --help and the order of application all read this table.
struct RunOption {
    const char* name;
    const char* argument;  // null: a switch
    const char* help;
    Result<void> (*apply)(const std::string& text, Profiles profiles, RunRequest& request);
    bool repeats = false;
};

#define XENOLITH_RUN_OPTION(name, argument, help, member, parse_text)                    \
    RunOption {                                                                          \
        name, argument, help,                                                            \
            [](const std::string& text, Profiles, RunRequest& request) -> Result<void> { \
                request.member = TRY(parse_text(text));                                  \
                return {};                                                               \
            }                                                                            \
    }

Result<LogLevel> log_level_of(std::string_view text) {
    constexpr std::array<std::string_view, 5> kLevels{"error", "warn", "info", "debug", "trace"};
    if (const auto level = parse_log_level(text)) return *level;
    return user_error(in_quotes(text) + " is not " + one_of(kLevels) + hint(text, kLevels));
}

// In the order of application: --type comes after what implies a type.
constexpr std::array kRunOptions{
    XENOLITH_RUN_OPTION("name", "NAME", "the guest's name", vm.name, parse_name),
    RunOption{"kernel", "FILE", "the image to boot: an ELF or bzImage with a PVH entry",
              [](const std::string& text, Profiles, RunRequest& request) -> Result<void> {
                  request.vm.kernel = TRY(parse_path(text));
                  request.vm.firmware.clear();  // the file's, if it had one
                  return {};
              }},
    RunOption{"firmware", "FILE",
              "an ELF loaded in the place of an HVM guest's firmware; implies --type hvm",
              [](const std::string& text, Profiles, RunRequest& request) -> Result<void> {
                  request.vm.firmware = TRY(parse_path(text));
                  request.vm.kernel.clear();
                  request.vm.type = GuestType::kHvm;
                  return {};
              }},
    XENOLITH_RUN_OPTION("type", "pvh|hvm", "the kind of machine (default pvh)", vm.type,
                        parse_guest_type),
    XENOLITH_RUN_OPTION("ramdisk", "FILE", "the guest's initial ramdisk", vm.ramdisk, parse_path),
    RunOption{"module", "FILE[,CMDLINE]",
              "a further boot module and its command line; may be repeated",
              [](const std::string& text, Profiles, RunRequest& request) -> Result<void> {
                  request.vm.modules.push_back(TRY(parse_module(text)));
                  return {};
              },
              true},
    XENOLITH_RUN_OPTION("cmdline", "STR", "the kernel's command line", vm.cmdline, parse_string),
    XENOLITH_RUN_OPTION("memory", "SIZE", "RAM: 128M, 2G; a bare number is MiB (default 128M)",
                        vm.memory_bytes, parse_memory),
    XENOLITH_RUN_OPTION("vcpus", "N", "virtual CPUs, 1 to 128 (default 1)", vm.vcpus, parse_vcpus),
    XENOLITH_RUN_OPTION("console", "stdio|file:PATH",
                        "where the guest's console goes (default stdio)", vm.console_file,
                        parse_console),
    XENOLITH_RUN_OPTION("transport", "auto|kvm-xen|portable",
                        "how hypercalls reach us (default auto: what the host offers)",
                        vm.transport, parse_transport),
    RunOption{"profile", "NAME|list",
              "which Xen the guest sees, for life; list prints them all (default xen-4.17)",
              [](const std::string& text, Profiles profiles, RunRequest& request) -> Result<void> {
                  request.list_profiles = text == "list";
                  if (request.list_profiles) return {};
                  request.vm.profile = TRY(parse_profile(text, profiles));
                  return {};
              }},
    XENOLITH_RUN_OPTION("quirks", "auto|xenserver|none",
                        "what old XenServer Windows drivers need (default auto: as the profile "
                        "has it)",
                        vm.quirks, parse_quirks),
    XENOLITH_RUN_OPTION("privileges", "none|dm",
                        "let the guest do to itself what a device model does to it, for testing "
                        "(default none)",
                        vm.privileges, parse_privileges),
    XENOLITH_RUN_OPTION("preempt", "none|always|every:N|at:K[,K...]",
                        "interrupt long hypercalls after every unit of work, after every N, or "
                        "before units K (default none: only when there is a reason)",
                        vm.preempt, parse_preempt),
    XENOLITH_RUN_OPTION("preempt-after", "US",
                        "interrupt a hypercall after this many microseconds (default 100)",
                        vm.preempt_after_us, parse_preempt_after),
    XENOLITH_RUN_OPTION("on-reboot", "restart|destroy",
                        "what a reboot does (default destroy; with a GUEST.cfg, restart)",
                        vm.on_reboot, parse_action),
    XENOLITH_RUN_OPTION("domid", "N", "the domain id that the guest sees (default 1)", vm.domid,
                        parse_domid),
    XENOLITH_RUN_OPTION("max-event-channels", "N", "the highest event channel port (default 1023)",
                        vm.max_event_channels, parse_event_channels),
    XENOLITH_RUN_OPTION("cpu", "host|FILE",
                        "what the guest's CPUs can do: all that this host's can (the default), or "
                        "what FILE says ('xenolith check --cpu' prints such a file)",
                        vm.cpu, parse_cpu),
    XENOLITH_RUN_OPTION("cpuid-base", "LEAF",
                        "the first of Xen's CPUID leaves (default 0x40000000)", vm.cpuid_base,
                        parse_cpuid_base),
    XENOLITH_RUN_OPTION("log", "LEVEL", "error, warn, info, debug or trace (default warn)",
                        log_level, log_level_of),
    XENOLITH_RUN_OPTION("log-file", "FILE", "append our own messages there, not to stderr",
                        log_file, parse_path),
    XENOLITH_RUN_OPTION("trace", "FILE",
                        "record every hypercall there ('xenolith trace --help' says more)",
                        trace_file, parse_path),
    RunOption{"strict", nullptr, "refuse a GUEST.cfg with keys that we would ignore",
              [](const std::string&, Profiles, RunRequest& request) -> Result<void> {
                  request.strict = true;
                  return {};
              }},
    RunOption{"json", nullptr, "with --profile list: print JSON",
              [](const std::string&, Profiles, RunRequest& request) -> Result<void> {
                  request.json = true;
                  return {};
              }},
    RunOption{"paused", nullptr, "wait before the first instruction for `xenolith unpause`",
              [](const std::string&, Profiles, RunRequest& request) -> Result<void> {
                  request.paused = true;
                  return {};
              }},
};
#undef XENOLITH_RUN_OPTION

constexpr char kFileArgument[] = "GUEST.cfg";

po::options_description describe_help() {
    po::options_description options("Options", kHelpColumns, kDescriptionColumns);
    options.add_options()("help,h", "print this text");
    return options;
}

po::options_description describe_program() {
    po::options_description options = describe_help();
    options.add_options()("version", "the same as the command version");
    return options;
}

po::options_description describe_verb() {
    po::options_description options = describe_help();
    options.add_options()("json", "print JSON");
    return options;
}

// Those of `run` that a restored guest's host has a say in.
constexpr std::array<std::string_view, 7> kRestoreOptions{"name",     "console", "transport", "log",
                                                          "log-file", "trace",   "paused"};

void describe(const RunOption& option, po::options_description& options) {
    if (option.argument == nullptr) {
        options.add_options()(option.name, option.help);
    } else {
        options.add_options()(
            option.name,
            po::value<std::vector<std::string>>()->value_name(option.argument)->composing(),
            option.help);
    }
}

po::options_description describe_run() {
    po::options_description options = describe_help();
    for (const RunOption& option : kRunOptions) {
        describe(option, options);
    }
    return options;
}

// Of run's options those that are the host's business.
po::options_description describe_host() {
    po::options_description options = describe_help();
    for (const RunOption& option : kRunOptions) {
        if (std::ranges::find(kRestoreOptions, option.name) != kRestoreOptions.end()) {
            describe(option, options);
        }
    }
    return options;
}

po::options_description describe_restore() {
    po::options_description options = describe_host();
    options.add_options()("verify", "check every byte of the file before the start");
    return options;
}

void describe_tls(po::options_description& options, const char* peer) {
    const auto text = [] { return po::value<std::vector<std::string>>()->composing(); };
    options.add_options()("tls-dir", text()->value_name("DIR"),
                          "for tls://: where ca.pem, cert.pem and key.pem are "
                          "(default /etc/xenolith/tls)");
    options.add_options()("tls-peer", text()->value_name("NAME"), peer);
}

po::options_description describe_receive() {
    po::options_description options = describe_host();
    describe_tls(options,
                 "for tls://: only who has this name in its certificate may send a guest; may be "
                 "given again (default: whoever has a certificate of ca.pem's)");
    return options;
}

void describe_timeout(po::options_description& options, const char* what) {
    options.add_options()(
        "timeout", po::value<std::vector<std::string>>()->value_name("SECONDS")->composing(), what);
}

// Of verbs that stop a guest, or let it stop itself.
void describe_cooperation(po::options_description& options) {
    options.add_options()("cooperative",
                          "ask the guest to suspend itself first, as Xen's toolstack does");
    describe_timeout(options, "with --cooperative: how long it may take (default: 60 seconds)");
}

po::options_description describe_migrate() {
    po::options_description options = describe_verb();
    options.add_options()(
        "ssh", po::value<std::vector<std::string>>()->value_name("PROGRAM")->composing(),
        "what is run for ssh://HOST (default ssh), as 'PROGRAM HOST xenolith receive -'");
    options.add_options()("resume",
                          "the guest's process here was killed when it had promised the guest to "
                          "DEST: pass the promise on");
    describe_tls(options,
                 "for tls://: the name in the other side's certificate (default: HOST); may be "
                 "given again");
    describe_cooperation(options);
    return options;
}

po::options_description describe_save() {
    po::options_description options = describe_verb();
    options.add_options()("leave-running", "let the guest go on afterwards; it ends otherwise");
    describe_cooperation(options);
    return options;
}

po::options_description describe_shutdown() {
    po::options_description options = describe_verb();
    options.add_options()("reboot", "ask it to restart, not to power off");
    describe_timeout(options, "how long it may take to say that it will (default: 60 seconds)");
    return options;
}

po::options_description describe_inspect() {
    po::options_description options = describe_verb();
    options.add_options()("verify", "check every byte");
    return options;
}

po::options_description describe_check() {
    po::options_description options = describe_verb();
    options.add_options()("cpu",
                          "print what this host's CPUs can do for a guest, for 'xenolith "
                          "run --cpu'; with FILEs, what those have in common");
    return options;
}

po::options_description describe_trace() {
    po::options_description options = describe_help();
    options.add_options()(
        "profile", po::value<std::vector<std::string>>()->value_name("NAME")->composing(),
        "check: the profile to compare with ('xenolith run --profile list' prints them all)");
    options.add_options()("json", "show, stats, check: print JSON (show: one object a line)");
    options.add_options()("stable",
                          "show, stats, check: leave out times and addresses, so that two traces "
                          "of one guest compare");
    return options;
}

std::string to_text(const po::options_description& options) {
    std::ostringstream text;
    text << options;
    return text.str();
}

// "--option" of "--option" and "--option=value", and the value if it is there.
struct Token {
    std::string_view option;
    std::optional<std::string_view> value;
};

Token split(std::string_view argument) {
    const std::size_t equals = argument.find('=');
    if (equals == std::string_view::npos) return {argument, std::nullopt};
    return {argument.substr(0, equals), argument.substr(equals + 1)};
}

// Arguments, sorted out.
struct Parsed {
    bool help = false;
    po::variables_map options;
    std::vector<std::string> files;
};

// Says what is wrong with a command line before Boost sees it, in words that name the option.
// Boost alone would take the next option for a value that was forgotten, and has no spelling for
// an empty value after '='. What it then gets is regular: option, value, option, value.
class CommandLine {
  public:
    CommandLine(const po::options_description& options, std::string_view help_command)
        : options_(options), help_command_(help_command) {
        for (const auto& option : options.options()) {
            names_.push_back("--" + option->long_name());
        }
    }

    Result<Parsed> parse(const Args& args) {
        Parsed parsed;
        for (std::size_t i = 0; i < args.size(); ++i) {
            const std::string& argument = args[i];
            if (argument == "--") {
                parsed.files.insert(parsed.files.end(),
                                    args.begin() + static_cast<std::ptrdiff_t>(i) + 1, args.end());
                break;
            }
            if (argument.size() < 2 || argument.front() != '-') {
                parsed.files.push_back(argument);
                continue;
            }
            if (argument == "--help" || argument == "-h") {
                parsed.help = true;
                return parsed;
            }
            const Token token = split(argument);
            const po::option_description* const option = find(token.option);
            if (option == nullptr) return unknown(token.option);

            regular_.emplace_back(token.option);
            if (option->semantic()->max_tokens() == 0) {
                if (token.value) return user_error(std::string(token.option) + " takes no value");
            } else if (token.value) {
                regular_.emplace_back(*token.value);
            } else if (i + 1 < args.size() && find(split(args[i + 1]).option) == nullptr) {
                regular_.push_back(args[++i]);
            } else {
                return user_error(std::string(token.option) + " needs a value, " +
                                  option->semantic()->name());
            }
        }
        TRY(hand_to_boost(parsed));
        return parsed;
    }

  private:
    // Exact names only. (Boost's own search throws at an empty name.)
    const po::option_description* find(std::string_view name) const {
        const auto known = std::ranges::find(names_, name);
        if (known == names_.end()) return nullptr;
        return options_.options()[static_cast<std::size_t>(known - names_.begin())].get();
    }

    Failure<Error> unknown(std::string_view name) const {
        const std::vector<std::string_view> known(names_.begin(), names_.end());
        return user_error("unknown option " + in_quotes(name) + hint(name, known) + " ('" +
                          std::string(help_command_) + "' lists them)");
    }

    Result<void> hand_to_boost(Parsed& parsed) const {
        namespace style = po::command_line_style;
        try {
            po::store(po::command_line_parser(regular_)
                          .options(options_)
                          .style(style::allow_long | style::long_allow_next)
                          .run(),
                      parsed.options);
        } catch (const po::error& error) {
            return user_error(error.what());
        }
        return {};
    }

    const po::options_description& options_;
    std::string_view help_command_;
    std::vector<std::string> names_;
    Args regular_;
};

Result<void> read_file(const std::string& path, Profiles profiles, RunRequest& request) {
    const std::string text = TRY(read_guest_file(path));
    const XlFile file = TRY(parse_xl(path, text));
    const auto strictness = request.strict ? Strictness::kRefuse : Strictness::kWarn;
    request.config_file = path;
    return apply_xl(file, strictness, profiles, request.vm, request.warnings);
}

Result<void> apply_options(const Parsed& parsed, Profiles profiles, RunRequest& request) {
    for (const RunOption& option : kRunOptions) {
        if (parsed.options.count(option.name) == 0 || option.argument == nullptr) continue;
        const auto& values = parsed.options[option.name].as<std::vector<std::string>>();
        const std::string spelling = std::string("--") + option.name;
        if (values.size() > 1 && !option.repeats) {
            return user_error(spelling + " is given more than once");
        }
        for (const std::string& value : values) {
            const auto applied = option.apply(value, profiles, request);
            if (!applied) return user_error(spelling + ": " + applied.error().what);
        }
    }
    return {};
}

std::string exit_status_text() {
    std::string text = "Exit status:\n";
    for (const auto& row : kExitStatuses) {
        const std::string number = std::to_string(to_int(row.status));
        text += "  " + std::string(4 - number.size(), ' ') + number + "  ";
        text += std::string(row.meaning) + "\n";
    }
    return text;
}

}  // namespace

std::string program_help(std::span<const Command> commands) {
    std::string text = "Usage: xenolith COMMAND [OPTIONS]\n\nCommands:\n";
    for (const Command& command : commands) {
        constexpr std::size_t kWidth = 10;
        std::string name(command.name);
        name.resize(std::max(kWidth, name.size() + 1), ' ');
        text += "  " + name + std::string(command.summary) + "\n";
    }
    text += "\n" + to_text(describe_program()) + "\n" + exit_status_text();
    return text + "\n'xenolith COMMAND --help' explains a command, xenolith(1) explains all.\n";
}

std::string run_help() {
    return "Usage: xenolith run [OPTIONS] [" + std::string(kFileArgument) +
           "]\n\nStarts a guest and stays until it ends. Options count for more than the "
           "file.\n\n" +
           to_text(describe_run()) + "\n" + exit_status_text();
}

Result<Invocation> parse_program(std::span<const Command> commands, const Args& args) {
    constexpr std::string_view kSeeHelp = " ('xenolith --help' lists the commands)";
    const auto find = [&](std::string_view name) -> const Command* {
        const auto known = std::ranges::find(commands, name, &Command::name);
        return known == commands.end() ? nullptr : &*known;
    };
    if (args.empty()) return user_error("no command is given" + std::string(kSeeHelp));

    Invocation invocation;
    const std::string& first = args.front();
    invocation.args.assign(args.begin() + 1, args.end());
    if (first == "--help" || first == "-h") {
        invocation.text = program_help(commands);
        return invocation;
    }
    const bool is_option = first.size() > 1 && first.front() == '-';
    invocation.command = find(first == "--version" ? "version" : std::string_view(first));
    if (invocation.command != nullptr) return invocation;
    if (is_option) {
        return user_error("unknown option " + in_quotes(first) + ": a command comes first" +
                          std::string(kSeeHelp));
    }
    std::vector<std::string_view> names;
    for (const Command& command : commands)
        names.push_back(command.name);
    return user_error("unknown command " + in_quotes(first) + hint(first, names) +
                      std::string(kSeeHelp));
}

Result<RunRequest> parse_run(const Args& args, Profiles profiles) {
    const po::options_description options = describe_run();
    const Parsed parsed = TRY(CommandLine(options, "xenolith run --help").parse(args));
    RunRequest request;
    if (parsed.help) {
        request.help = run_help();
        return request;
    }
    if (parsed.files.size() > 1) {
        return user_error("one GUEST.cfg at a time: " + in_quotes(parsed.files[0]) + " and " +
                          in_quotes(parsed.files[1]) + " are given");
    }
    if (parsed.options.count("kernel") != 0 && parsed.options.count("firmware") != 0) {
        return user_error("--kernel and --firmware exclude each other: a guest boots one of them");
    }

    // The file first, so that options count for more. How strict to be with it is an option.
    request.strict = parsed.options.count("strict") != 0;
    request.paused = parsed.options.count("paused") != 0;
    request.json = parsed.options.count("json") != 0;
    if (!parsed.files.empty()) TRY(read_file(parsed.files.front(), profiles, request));
    if (parsed.options.count("module") != 0) request.vm.modules.clear();

    TRY(apply_options(parsed, profiles, request));
    if (request.json && !request.list_profiles)
        return user_error("--json belongs to --profile list");
    if (!request.list_profiles) TRY(check_complete(request.vm));
    return request;
}

Result<std::optional<std::uint64_t>> timeout_in(const Parsed& parsed) {
    constexpr std::uint64_t kMost = 24 * 60 * 60;
    if (parsed.options.count("timeout") == 0) return std::optional<std::uint64_t>();
    const auto& values = parsed.options["timeout"].as<std::vector<std::string>>();
    if (values.size() > 1) return user_error("--timeout is given more than once");
    const auto seconds = parse_number(values.front(), 1, kMost);
    if (!seconds) return user_error("--timeout: " + seconds.error().what);
    return std::optional(*seconds);
}

std::string save_help() {
    return "Usage: xenolith save [OPTIONS] NAME FILE\n\n"
           "Saves a guest to a file, from which 'xenolith restore' goes on with it. When it "
           "succeeds, the\nfile is on the disk and the guest has ended; else there is no new file "
           "and the guest goes on.\n\n" +
           to_text(describe_save());
}
// `--cooperative [--timeout SECONDS]`
template <typename Request>
Result<void> apply_cooperation(const Parsed& parsed, Request& request) {
    request.cooperative = parsed.options.count("cooperative") != 0;
    request.timeout_s = TRY(timeout_in(parsed));
    if (request.timeout_s && !request.cooperative) {
        return user_error("--timeout belongs to --cooperative");
    }
    return {};
}

Result<SaveRequest> parse_save(const Args& args) {
    const po::options_description options = describe_save();
    const Parsed parsed = TRY(CommandLine(options, "xenolith save --help").parse(args));
    SaveRequest request;
    if (parsed.help) {
        request.help = save_help();
        return request;
    }
    if (parsed.files.size() != 2) {
        return user_error("xenolith save needs the NAME of a guest and a FILE");
    }
    request.name = TRY(parse_name(parsed.files[0]));
    request.file = TRY(parse_path(parsed.files[1]));
    request.leave_running = parsed.options.count("leave-running") != 0;
    TRY(apply_cooperation(parsed, request));
    request.json = parsed.options.count("json") != 0;
    return request;
}

std::string shutdown_help() {
    return "Usage: xenolith shutdown [OPTIONS] NAME\n\n"
           "Asks a guest to power itself off or to restart, as Xen's toolstack does, and returns "
           "when the\nguest has taken the request.\n\n" +
           to_text(describe_shutdown());
}

Result<ShutdownRequest> parse_shutdown(const Args& args) {
    const po::options_description options = describe_shutdown();
    const Parsed parsed = TRY(CommandLine(options, "xenolith shutdown --help").parse(args));
    ShutdownRequest request;
    if (parsed.help) {
        request.help = shutdown_help();
        return request;
    }
    if (parsed.files.size() != 1) return user_error("xenolith shutdown needs the NAME of a guest");
    request.name = TRY(parse_name(parsed.files[0]));
    request.reboot = parsed.options.count("reboot") != 0;
    request.timeout_s = TRY(timeout_in(parsed));
    request.json = parsed.options.count("json") != 0;
    return request;
}

std::string restore_help() {
    return "Usage: xenolith restore [OPTIONS] FILE\n\n"
           "Goes on with a guest that was saved, and stays until it ends. The file stays as it "
           "is; while the\nguest runs its memory is still read from there.\n\n" +
           to_text(describe_restore()) + "\n" + exit_status_text();
}

Result<std::string> only_file(const Parsed& parsed, const std::string& command) {
    if (parsed.files.empty()) return user_error(command + " needs a FILE");
    if (parsed.files.size() > 1) {
        return user_error(command + " takes one FILE, not " + in_quotes(parsed.files[1]) + " too");
    }
    return parse_path(parsed.files.front());
}

Result<RestoreRequest> parse_restore(const Args& args) {
    const po::options_description options = describe_restore();
    const Parsed parsed = TRY(CommandLine(options, "xenolith restore --help").parse(args));
    RestoreRequest request;
    if (parsed.help) {
        request.run.help = restore_help();
        return request;
    }
    request.file = TRY(only_file(parsed, "xenolith restore"));
    request.verify = parsed.options.count("verify") != 0;
    request.run.paused = parsed.options.count("paused") != 0;
    TRY(apply_options(parsed, {}, request.run));
    return request;
}

// What stands beside tls:// only: elsewhere it would seem to keep somebody out.
Result<TlsOptions> tls_options(const Parsed& parsed, const Address& address) {
    TlsOptions tls;
    for (const char* const option : {"tls-dir", "tls-peer"}) {
        if (parsed.options.count(option) == 0) continue;
        const std::string name = std::string("--") + option;
        if (address.kind != Address::Kind::kTls) {
            return user_error(name + " belongs to tls://, not to " + in_quotes(address.text));
        }
        for (const auto& word : parsed.options[option].as<std::vector<std::string>>()) {
            if (word.empty()) return user_error(name + ": it is empty");
            if (option == std::string_view("tls-dir")) {
                tls.folder = word;
            } else {
                tls.peers.push_back(word);
            }
        }
    }
    return tls;
}

std::string migrate_help() {
    return "Usage: xenolith migrate [OPTIONS] NAME DEST\n\n"
           "Moves a guest that runs here to another host, or to another process of this one. It "
           "stands still\nwhile it is sent. Ctrl-C keeps it here.\n\n"
           "DEST is one of\n"
           "  ssh://[USER@]HOST[:PORT]  where ssh runs 'xenolith receive -'\n"
           "  tls://HOST[:PORT]         where 'xenolith receive tls://ADDRESS' waits; both sides "
           "show certificates\n"
           "  unix:PATH                 a socket at which 'xenolith receive' waits\n"
           "  tcp://HOST:PORT           likewise; only addresses of this host, for it is not "
           "encrypted\n"
           "  fd:N                      a connected stream socket\n\n"
           "Once DEST was promised the guest it stands still here until DEST has said whether it "
           "has "
           "it. If its\nprocess here is killed before that, DEST waits for the promise: with "
           "--resume it is passed on. NAME\nmay then be the guest's id; DEST is where the guest "
           "was "
           "sent, by whatever way its host is reached\n(with ssh:// another 'xenolith receive -' "
           "finds it there).\n\n" +
           to_text(describe_migrate());
}

Result<MigrateRequest> parse_migrate(const Args& args) {
    const po::options_description options = describe_migrate();
    const Parsed parsed = TRY(CommandLine(options, "xenolith migrate --help").parse(args));
    MigrateRequest request;
    if (parsed.help) {
        request.help = migrate_help();
        return request;
    }
    if (parsed.files.size() != 2) {
        return user_error("xenolith migrate needs the NAME of a guest and a DEST");
    }
    request.name = TRY(parse_name(parsed.files[0]));
    request.to = TRY(parse_destination(parsed.files[1]));
    if (parsed.options.count("ssh") != 0) {
        request.ssh = parsed.options["ssh"].as<std::vector<std::string>>().back();
        if (request.ssh.empty()) return user_error("--ssh: it is empty");
    }
    TRY(apply_cooperation(parsed, request));
    request.tls = TRY(tls_options(parsed, request.to));
    request.resume = parsed.options.count("resume") != 0;
    if (request.resume && request.cooperative) {
        return user_error("--resume: there is no guest here that --cooperative could ask");
    }
    request.json = parsed.options.count("json") != 0;
    return request;
}

std::string receive_help() {
    return "Usage: xenolith receive [OPTIONS] FROM\n\n"
           "Waits for a guest that 'xenolith migrate' sends, goes on with it, and stays until it "
           "ends.\n\n"
           "FROM is one of\n"
           "  tls://ADDRESS[:PORT]  an address of this host, such as 0.0.0.0 for all that it has; "
           "both sides show\n                        certificates\n"
           "  unix:PATH             a socket that is made there\n"
           "  tcp://HOST:PORT       an address that others cannot reach, for it is not encrypted\n"
           "  fd:N                  a connected stream socket\n"
           "  -                     standard input and output. The guest goes on in a process of "
           "its own, which\n                        has neither; its console is what --console "
           "says, or nothing.\n\n" +
           to_text(describe_receive()) + "\n" + exit_status_text();
}

Result<ReceiveRequest> parse_receive(const Args& args) {
    const po::options_description options = describe_receive();
    const Parsed parsed = TRY(CommandLine(options, "xenolith receive --help").parse(args));
    ReceiveRequest request;
    if (parsed.help) {
        request.run.help = receive_help();
        return request;
    }
    if (parsed.files.size() != 1) {
        return user_error(
            "xenolith receive needs one FROM: tls://ADDRESS, unix:PATH, tcp://HOST:PORT, fd:N or "
            "-");
    }
    request.from = TRY(parse_origin(parsed.files.front()));
    request.tls = TRY(tls_options(parsed, request.from));
    request.run.paused = parsed.options.count("paused") != 0;
    TRY(apply_options(parsed, {}, request.run));
    return request;
}

std::string inspect_help() {
    return "Usage: xenolith inspect [OPTIONS] FILE\n\n"
           "Prints what is in a saved guest's file.\n\n" +
           to_text(describe_inspect());
}

Result<InspectRequest> parse_inspect(const Args& args) {
    const po::options_description options = describe_inspect();
    const Parsed parsed = TRY(CommandLine(options, "xenolith inspect --help").parse(args));
    InspectRequest request;
    if (parsed.help) {
        request.help = inspect_help();
        return request;
    }
    request.file = TRY(only_file(parsed, "xenolith inspect"));
    request.verify = parsed.options.count("verify") != 0;
    request.json = parsed.options.count("json") != 0;
    return request;
}

std::string check_help() {
    return "Usage: xenolith check [OPTIONS]\n"
           "       xenolith check --cpu [--json] [FILE...]\n\n"
           "Says what this host can do, and what to do about the rest.\n\n" +
           to_text(describe_check());
}

Result<CheckRequest> parse_check(const Args& args) {
    const po::options_description options = describe_check();
    const Parsed parsed = TRY(CommandLine(options, "xenolith check --help").parse(args));
    CheckRequest request;
    if (parsed.help) {
        request.help = check_help();
        return request;
    }
    request.json = parsed.options.count("json") != 0;
    request.cpu = parsed.options.count("cpu") != 0;
    if (!request.cpu && !parsed.files.empty()) {
        return user_error("xenolith check takes no arguments without --cpu, not " +
                          in_quotes(parsed.files.front()));
    }
    for (const std::string& file : parsed.files) {
        request.files.push_back(TRY(parse_path(file)));
    }
    return request;
}

std::string trace_help() {
    return "Usage: xenolith trace show|stats|json|check [OPTIONS] FILE\n\n"
           "Reads what 'xenolith run --trace FILE' recorded.\n\n"
           "  show    one line per hypercall\n"
           "  stats   sums by operation\n"
           "  json    Chrome's trace format, for Perfetto and chrome://tracing\n"
           "  check   each call that another profile would treat differently, and why\n\n" +
           to_text(describe_trace()) + "\n" + exit_status_text();
}

Result<TraceRequest> parse_trace(const Args& args, Profiles profiles) {
    using What = TraceRequest::What;
    constexpr std::string_view kSeeHelp = " ('xenolith trace --help' says more)";
    constexpr std::array<std::string_view, 4> kWhats{"show", "stats", "json", "check"};
    const po::options_description options = describe_trace();
    const Parsed parsed = TRY(CommandLine(options, "xenolith trace --help").parse(args));
    TraceRequest request;
    if (parsed.help) {
        request.help = trace_help();
        return request;
    }
    if (parsed.files.empty()) {
        return user_error("xenolith trace: show, stats, json or check?" + std::string(kSeeHelp));
    }
    const std::string& word = parsed.files.front();
    const auto known = std::ranges::find(kWhats, word);
    if (known == kWhats.end()) {
        return user_error("xenolith trace: " + in_quotes(word) + " is not " + one_of(kWhats) +
                          hint(word, kWhats));
    }
    request.what = static_cast<What>(known - kWhats.begin());
    const std::string command = "xenolith trace " + word;
    if (parsed.files.size() != 2) {
        return user_error(command +
                          (parsed.files.size() < 2 ? " needs a FILE" : " takes one FILE") +
                          std::string(kSeeHelp));
    }
    request.file = parsed.files[1];
    request.json = parsed.options.count("json") != 0;
    request.stable = parsed.options.count("stable") != 0;
    if (request.json && request.what == What::kJson) {
        return user_error("--json belongs to show, stats and check");
    }
    if (request.stable && request.what == What::kJson) {
        return user_error("--stable belongs to show, stats and check");
    }
    const bool has_profile = parsed.options.count("profile") != 0;
    if (has_profile != (request.what == What::kCheck)) {
        return user_error(has_profile ? "--profile belongs to check"
                                      : command + " needs --profile NAME");
    }
    if (has_profile) {
        const auto& names = parsed.options["profile"].as<std::vector<std::string>>();
        if (names.size() > 1) return user_error("--profile is given more than once");
        const auto profile = parse_profile(names.front(), profiles);
        if (!profile) return user_error("--profile: " + profile.error().what);
        request.profile = *profile;
    }
    return request;
}

std::string verb_help(std::string_view command, std::string_view summary, Takes takes) {
    return "Usage: xenolith " + std::string(command) + " [OPTIONS]" +
           (takes == Takes::kName ? " NAME" : "") + "\n\n" + std::string(summary) + "\n\n" +
           to_text(describe_verb());
}

Result<VerbRequest> parse_verb(std::string_view command, std::string_view summary, Takes takes,
                               const Args& args) {
    const std::string name = "xenolith " + std::string(command);
    const po::options_description options = describe_verb();
    const Parsed parsed = TRY(CommandLine(options, name + " --help").parse(args));
    VerbRequest request;
    if (parsed.help) {
        request.help = verb_help(command, summary, takes);
        return request;
    }
    request.json = parsed.options.count("json") != 0;
    if (takes == Takes::kNothing) {
        if (parsed.files.empty()) return request;
        return user_error(name + " takes no arguments, not " + in_quotes(parsed.files.front()));
    }
    if (parsed.files.empty()) return user_error(name + " needs the NAME of a guest");
    if (parsed.files.size() > 1) {
        return user_error(name + " takes one NAME, not " + in_quotes(parsed.files[1]) + " too");
    }
    request.name = TRY(parse_name(parsed.files.front()));
    return request;
}

}  // namespace vmm::config
