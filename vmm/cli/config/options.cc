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

po::options_description describe_run() {
    po::options_description options = describe_help();
    for (const RunOption& option : kRunOptions) {
        if (option.argument == nullptr) {
            options.add_options()(option.name, option.help);
        } else {
            options.add_options()(
                option.name,
                po::value<std::vector<std::string>>()->value_name(option.argument)->composing(),
                option.help);
        }
    }
    return options;
}

po::options_description describe_trace() {
    po::options_description options = describe_help();
    options.add_options()(
        "profile", po::value<std::vector<std::string>>()->value_name("NAME")->composing(),
        "check: the profile to compare with ('xenolith run --profile list' prints them all)");
    options.add_options()("json", "stats, check: print JSON");
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
    if (!parsed.files.empty()) TRY(read_file(parsed.files.front(), profiles, request));
    if (parsed.options.count("module") != 0) request.vm.modules.clear();

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
    if (!request.list_profiles) TRY(check_complete(request.vm));
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
        return user_error(command + " takes one FILE, not " +
                          std::to_string(parsed.files.size() - 1) + std::string(kSeeHelp));
    }
    request.file = parsed.files[1];
    request.json = parsed.options.count("json") != 0;
    request.stable = parsed.options.count("stable") != 0;
    if (request.json && request.what != What::kStats && request.what != What::kCheck) {
        return user_error("--json belongs to stats and check");
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

Result<std::string> parse_plain(const Command& command, const Args& args) {
    const std::string name = "xenolith " + std::string(command.name);
    const po::options_description options = describe_help();
    const Parsed parsed = TRY(CommandLine(options, name + " --help").parse(args));
    if (parsed.help) {
        return "Usage: " + name + "\n\n" + std::string(command.summary) + "\n\n" + to_text(options);
    }
    if (!parsed.files.empty()) {
        return user_error(name + " takes no arguments, not " + in_quotes(parsed.files.front()));
    }
    return std::string();
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
