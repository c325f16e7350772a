#include "vmm/cli/config/options.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

namespace vmm::config {
namespace {

constexpr std::string_view kProfiles[] = {"xen-4.17", "xen-4.5"};

Result<RunRequest> run(const Args& args) {
    return parse_run(args, kProfiles);
}

RunRequest good(const Args& args) {
    const auto request = run(args);
    if (request) return *request;
    ADD_FAILURE() << request.error().what;
    return {};
}

std::string error_of(const Args& args) {
    const auto request = run(args);
    if (request) {
        ADD_FAILURE() << "accepted: " << testing::PrintToString(args);
        return {};
    }
    EXPECT_EQ(request.error().fault, Fault::kUser);
    EXPECT_EQ(exit_status_of(request.error().fault), ExitStatus::kUserError);
    EXPECT_EQ(request.error().what.find('\n'), std::string::npos);
    return request.error().what;
}

// A GUEST.cfg that removes itself.
class TempFile {
  public:
    explicit TempFile(std::string_view text) {
        path_ = std::filesystem::temp_directory_path() / "xenolith-test-XXXXXX";
        const int fd = ::mkstemp(path_.data());
        EXPECT_GE(fd, 0);
        ::close(fd);
        std::ofstream(path_) << text;
    }
    TempFile(const TempFile&) = delete;
    TempFile& operator=(const TempFile&) = delete;
    ~TempFile() { std::filesystem::remove(path_); }
    const std::string& path() const { return path_; }

  private:
    std::string path_;
};

TEST(RunOptions, EveryOption) {
    const RunRequest request = good({"--name",     "web",
                                     "--type",     "pvh",
                                     "--kernel",   "k",
                                     "--ramdisk",  "r",
                                     "--module",   "a,b c",
                                     "--module=d", "--cmdline",
                                     "x=1 -- y",   "--memory",
                                     "2G",         "--vcpus",
                                     "4",          "--console",
                                     "file:out",   "--transport",
                                     "kvm-xen",    "--profile",
                                     "xen-4.5",    "--quirks",
                                     "xenserver",  "--privileges",
                                     "dm",         "--preempt",
                                     "every:2",    "--on-reboot",
                                     "restart",    "--log",
                                     "debug",      "--log-file",
                                     "l",          "--strict",
                                     "--domid=5",  "--max-event-channels",
                                     "4096",       "--cpuid-base",
                                     "0x40000100", "--cpu",
                                     "pool.cpu"});
    RunRequest want;
    want.vm.name = "web";
    want.vm.kernel = "k";
    want.vm.ramdisk = "r";
    want.vm.modules = {{"a", "b c"}, {"d", ""}};
    want.vm.cmdline = "x=1 -- y";
    want.vm.memory_bytes = 2 * kGiB;
    want.vm.vcpus = 4;
    want.vm.console_file = "out";
    want.vm.transport = TransportChoice::kKvmXen;
    want.vm.profile = "xen-4.5";
    want.vm.quirks = QuirkChoice::kXenServer;
    want.vm.privileges = PrivilegeChoice::kDeviceModel;
    want.vm.preempt.every = 2;
    want.vm.on_reboot = ShutdownAction::kRestart;
    want.vm.domid = 5;
    want.vm.max_event_channels = 4096;
    want.vm.cpuid_base = 0x40000100;
    want.vm.cpu = "pool.cpu";
    EXPECT_EQ(request.vm, want.vm);
    EXPECT_EQ(request.log_level, LogLevel::kDebug);
    EXPECT_EQ(request.log_file, "l");
    EXPECT_TRUE(request.strict);
    EXPECT_TRUE(request.help.empty());
    EXPECT_TRUE(request.config_file.empty());
}

TEST(RunOptions, ACpuIsAFileOrTheHosts) {
    EXPECT_EQ(good({"--kernel=k", "--cpu=host"}).vm.cpu, "");
    EXPECT_EQ(good({"--kernel=k", "--cpu=./host"}).vm.cpu, "./host");
}

TEST(CheckOptions, FilesBelongToCpu) {
    const auto plain = parse_check({"--json"});
    ASSERT_TRUE(plain);
    EXPECT_TRUE(plain->json);
    EXPECT_FALSE(plain->cpu);
    const auto pool = parse_check({"--cpu", "a", "b"});
    ASSERT_TRUE(pool);
    EXPECT_TRUE(pool->cpu);
    EXPECT_EQ(pool->files, (std::vector<std::string>{"a", "b"}));
    EXPECT_EQ(parse_check({"-h"})->help, check_help());
    const auto refused = parse_check({"a"});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().what, "xenolith check takes no arguments without --cpu, not 'a'");
}

TEST(RunOptions, Defaults) {
    const RunRequest request = good({"--kernel=k"});
    VmConfig want;
    want.kernel = "k";
    EXPECT_EQ(request.vm, want);
    EXPECT_EQ(request.vm.on_reboot, ShutdownAction::kDestroy);
    EXPECT_EQ(request.vm.memory_bytes, 128 * kMiB);
    EXPECT_EQ(request.log_level, LogLevel::kWarn);
    EXPECT_FALSE(request.strict);
}

TEST(RunOptions, ValuesThatLookLikeOptionsOrLikeNothing) {
    EXPECT_EQ(good({"--kernel=k", "--cmdline", ""}).vm.cmdline, "");
    EXPECT_EQ(good({"--kernel=k", "--cmdline="}).vm.cmdline, "");
    EXPECT_EQ(good({"--kernel=k", "--cmdline", "-v"}).vm.cmdline, "-v");
    EXPECT_EQ(good({"--kernel=k", "--cmdline", "--verbose"}).vm.cmdline, "--verbose");
    EXPECT_EQ(good({"--kernel=k", "--cmdline", "--"}).vm.cmdline, "--");
    EXPECT_EQ(good({"--kernel=k", "--cmdline=--help"}).vm.cmdline, "--help");
    EXPECT_EQ(good({"--kernel=k", "--cmdline=a=b"}).vm.cmdline, "a=b");
}

TEST(RunOptions, FirmwareImpliesHvm) {
    const VmConfig vm = good({"--firmware", "f"}).vm;
    EXPECT_EQ(vm.type, GuestType::kHvm);
    EXPECT_EQ(vm.image(), "f");
    EXPECT_EQ(good({"--type=hvm", "--firmware", "f"}).vm.type, GuestType::kHvm);
    EXPECT_EQ(good({"--type=hvm", "--kernel", "k"}).vm.type, GuestType::kHvm);
}

struct Mistake {
    Args args;
    std::string_view says;  // its start
};

TEST(RunOptions, Mistakes) {
    const std::vector<Mistake> cases = {
        {{}, "no kernel: give --kernel FILE"},
        {{"--bogus"}, "unknown option '--bogus' ('xenolith run --help'"},
        {{"--kernal", "k"}, "unknown option '--kernal'; did you mean '--kernel'? ("},
        {{"--kern", "k"}, "unknown option '--kern'"},  // no guessing
        {{"--m", "1"}, "unknown option '--m'"},
        {{"-k", "k"}, "unknown option '-k'"},
        {{"-vh"}, "unknown option '-vh'"},
        {{"--x\ny"}, "unknown option '--x\\x0ay'"},
        {{"--kernel"}, "--kernel needs a value, FILE"},
        {{"--name", "--kernel", "k"}, "--name needs a value, NAME"},
        {{"--name", "--kernel=k"}, "--name needs a value, NAME"},
        {{"--cmdline", "--help"}, "--cmdline needs a value"},
        {{"--strict=yes", "--kernel=k"}, "--strict takes no value"},
        {{"--kernel=k", "--memory=1G", "--memory=2G"}, "--memory is given more than once"},
        {{"--kernel=k", "--kernel=l"}, "--kernel is given more than once"},
        {{"--kernel="}, "--kernel: a file name cannot be empty"},
        {{"--kernel=k", "--firmware=f"}, "--kernel and --firmware exclude each other"},
        {{"--type=pvh", "--firmware=f"}, "firmware 'f': only a guest of type hvm has one"},
        {{"--kernel=k", "a.cfg", "b.cfg"}, "one GUEST.cfg at a time: 'a.cfg' and 'b.cfg'"},
        {{"--kernel=k", "--", "--a", "--b"}, "one GUEST.cfg at a time: '--a' and '--b'"},
        {{"--kernel=k", "/nonexistent/a.cfg"}, "/nonexistent/a.cfg: No such file"},
        {{"--kernel=k", "/"}, "/: this is a directory"},
        {{"--kernel=k", ""}, ": No such file or directory"},
        {{"--kernel=k", "--memory=0"}, "--memory: '0' is less than"},
        {{"--kernel=k", "--memory", "-1"}, "--memory: '-1' is less than"},
        {{"--kernel=k", "--memory=100T"}, "--memory: '100T' is more than"},
        {{"--kernel=k", "--memory=lots"}, "--memory: 'lots' is not a size"},
        {{"--kernel=k", "--memory="}, "--memory: '' is not a size"},
        {{"--kernel=k", "--vcpus=0"}, "--vcpus: '0' is out of range, 1 to 128"},
        {{"--kernel=k", "--vcpus", "1000000000000"}, "--vcpus: '1000000000000' is out of range"},
        {{"--kernel=k", "--vcpus=one"}, "--vcpus: 'one' is not a number"},
        {{"--kernel=k", "--name="}, "--name: a name cannot be empty"},
        {{"--kernel=k", "--type=pv"}, "--type: 'pv' is not supported, only pvh or hvm"},
        {{"--kernel=k", "--module=,x"}, "--module: a file name cannot be empty"},
        {{"--kernel=k", "--console=tty"}, "--console: 'tty' is not stdio or file:PATH"},
        {{"--kernel=k", "--transport=pio"}, "--transport: 'pio' is not auto, kvm-xen or portable"},
        {{"--kernel=k", "--quirks=xen"}, "--quirks: 'xen' is not auto, xenserver or none"},
        {{"--kernel=k", "--privileges=all"}, "--privileges: 'all' is not none or dm"},
        {{"--kernel=k", "--profile=xen-4.1"}, "--profile: 'xen-4.1' is not a profile"},
        {{"--kernel=k", "--preempt=every:0"}, "--preempt: '0' is out of range"},
        {{"--kernel=k", "--preempt=7"},
         "--preempt: '7' is not none, always, every:N or at:K[,K...]"},
        {{"--kernel=k", "--on-reboot=preserve"}, "--on-reboot: 'preserve' is not supported"},
        {{"--kernel=k", "--log=loud"}, "--log: 'loud' is not error, warn, info, debug or trace"},
        {{"--kernel=k", "--log-file="}, "--log-file: a file name cannot be empty"},
        {{"--kernel=k", "--domid=0"}, "--domid: '0' is out of range"},
    };
    for (const auto& test : cases) {
        EXPECT_EQ(error_of(test.args).substr(0, test.says.size()), test.says);
    }
}

TEST(RunOptions, AFileAloneIsEnough) {
    const TempFile file("kernel='k'\nmemory=512\nextra='quiet'\n");
    const RunRequest request = good({file.path()});
    EXPECT_EQ(request.config_file, file.path());
    EXPECT_EQ(request.vm.kernel, "k");
    EXPECT_EQ(request.vm.memory_bytes, 512 * kMiB);
    EXPECT_EQ(request.vm.cmdline, "quiet");
    EXPECT_EQ(request.vm.on_reboot, ShutdownAction::kRestart);
}

TEST(RunOptions, CountForMoreThanTheFile) {
    const TempFile file(
        "name='a'\ntype='hvm'\nfirmware_override='f'\nmemory=512\nvcpus=2\n"
        "extra='quiet'\nmodules=['m']\nconsole='file:c'\ntransport='portable'\n"
        "preempt='every:4'\non_reboot='restart'\nmax_event_channels=100\ndomid=3\n");
    const VmConfig vm = good({"--memory=1G", "--vcpus=1", file.path(), "--cmdline=verbose",
                              "--module=n", "--console=stdio", "--transport=auto", "--preempt=none",
                              "--on-reboot=destroy", "--name=b"})
                            .vm;
    VmConfig want;
    want.name = "b";
    want.type = GuestType::kHvm;
    want.firmware = "f";
    want.memory_bytes = kGiB;
    want.cmdline = "verbose";
    want.modules = {{"n", ""}};
    want.max_event_channels = 100;
    want.domid = 3;
    EXPECT_EQ(vm, want);
}

TEST(RunOptions, AnImageOnTheCommandLineReplacesTheFiles) {
    const TempFile hvm("type='hvm'\nfirmware_override='f'\n");
    const VmConfig kernel = good({"--kernel=k", hvm.path()}).vm;
    EXPECT_EQ(kernel.image(), "k");
    EXPECT_EQ(kernel.type, GuestType::kHvm);
    EXPECT_EQ(error_of({"--type=pvh", hvm.path()}),
              "firmware 'f': only a guest of type hvm has one");

    const TempFile pvh("type='pvh'\nkernel='k'\n");
    const VmConfig firmware = good({"--firmware=f", pvh.path()}).vm;
    EXPECT_EQ(firmware.image(), "f");
    EXPECT_EQ(firmware.type, GuestType::kHvm);
}

TEST(RunOptions, AFilesMistakesComeThrough) {
    const TempFile malformed("kernel='k'\nname='x\n");
    EXPECT_EQ(error_of({malformed.path()}),
              malformed.path() + ":2: this string has no end: ' is missing");
    const TempFile no_kernel("memory=512\n");
    EXPECT_EQ(error_of({no_kernel.path()}).substr(0, 9), "no kernel");
}

TEST(RunOptions, StrictDecidesAboutUnknownKeys) {
    const TempFile file("kernel='k'\nmemroy=512\nvnc=1\n");
    const RunRequest lenient = good({file.path()});
    ASSERT_EQ(lenient.warnings.size(), 2u);
    EXPECT_EQ(lenient.warnings[0],
              file.path() + ":2: memroy: unknown key; did you mean 'memory'?, ignored");
    EXPECT_EQ(lenient.warnings[1], file.path() + ":3: vnc: not supported yet, ignored");
    EXPECT_EQ(error_of({file.path(), "--strict"}),
              file.path() + ":2: memroy: unknown key; did you mean 'memory'?");
}

TEST(RunOptions, HelpIsEnough) {
    for (const Args& args : {Args{"--help"}, Args{"-h"}, Args{"a.cfg", "b.cfg", "--help"},
                             Args{"--memory=0", "--help"}}) {
        EXPECT_EQ(good(args).help, run_help());
    }
    const std::string help = run_help();
    EXPECT_NE(help.find("xenolith run [OPTIONS] [GUEST.cfg]"), std::string::npos);
    EXPECT_NE(help.find("--module FILE[,CMDLINE]"), std::string::npos);
    EXPECT_NE(help.find("(default xen-4.17)"), std::string::npos);
    // Readable on the narrowest terminal that anyone has.
    for (std::size_t at = 0; at < help.size();) {
        const std::size_t end = help.find('\n', at);
        EXPECT_LE(end - at, 80u) << help.substr(at, end - at);
        at = end + 1;
    }
}

ExitStatus nothing(const Args&) {
    return ExitStatus::kPoweroff;
}
constexpr Command kCommands[] = {
    {"run", "start a guest", nothing},
    {"check", "look at this host", nothing},
    {"version", "print the version", nothing},
};

TEST(Program, FindsItsCommands) {
    const auto invocation = parse_program(kCommands, {"run", "--kernel", "k"});
    ASSERT_TRUE(invocation);
    ASSERT_EQ(invocation->command, &kCommands[0]);
    EXPECT_EQ(invocation->args, (Args{"--kernel", "k"}));
    EXPECT_EQ(parse_program(kCommands, {"--version"})->command, &kCommands[2]);
    // Its own --help is the command's business.
    EXPECT_EQ(parse_program(kCommands, {"check", "--help"})->command, &kCommands[1]);
}

TEST(Program, HelpListsTheCommands) {
    for (const char* const flag : {"--help", "-h"}) {
        const auto invocation = parse_program(kCommands, {flag});
        ASSERT_TRUE(invocation);
        EXPECT_EQ(invocation->command, nullptr);
        for (const Command& command : kCommands) {
            EXPECT_NE(invocation->text.find(command.name), std::string::npos);
            EXPECT_NE(invocation->text.find(command.summary), std::string::npos);
        }
    }
}

TEST(Program, Mistakes) {
    const std::vector<Mistake> cases = {
        {{}, "no command is given"},
        {{"rnu"}, "unknown command 'rnu'; did you mean 'run'?"},
        {{"destroy"}, "unknown command 'destroy' ("},
        {{""}, "unknown command ''"},
        {{"--kernel", "k"}, "unknown option '--kernel': a command comes first"},
        {{"ru"}, "unknown command 'ru'; did you mean 'run'?"},
    };
    for (const auto& test : cases) {
        const auto invocation = parse_program(kCommands, test.args);
        ASSERT_FALSE(invocation) << test.says;
        EXPECT_EQ(invocation.error().fault, Fault::kUser);
        EXPECT_EQ(invocation.error().what.substr(0, test.says.size()), test.says);
    }
}

TEST(Trace, WhatItReads) {
    const auto show = parse_trace({"show", "FILE"}, kProfiles);
    ASSERT_TRUE(show);
    EXPECT_EQ(show->what, TraceRequest::What::kShow);
    EXPECT_EQ(show->file, "FILE");
    EXPECT_FALSE(show->stable);
    const auto check = parse_trace(
        {"check", "--profile", std::string(kProfiles[0]), "--json", "FILE", "--stable"}, kProfiles);
    ASSERT_TRUE(check);
    EXPECT_EQ(check->what, TraceRequest::What::kCheck);
    EXPECT_EQ(check->profile, kProfiles[0]);
    EXPECT_TRUE(check->json);
    EXPECT_TRUE(check->stable);
    EXPECT_EQ(parse_trace({"stats", "F", "--json"}, kProfiles)->what, TraceRequest::What::kStats);
    EXPECT_EQ(parse_trace({"json", "F"}, kProfiles)->what, TraceRequest::What::kJson);
    EXPECT_TRUE(parse_trace({"show", "F", "--json"}, kProfiles)->json);
    EXPECT_FALSE(show->json);
    EXPECT_EQ(parse_trace({"--help"}, kProfiles)->help, trace_help());
}

TEST(Trace, Mistakes) {
    const std::vector<Mistake> cases = {
        {{}, "xenolith trace: show, stats, json or check?"},
        {{"shwo", "F"}, "xenolith trace: 'shwo' is not show, stats, json or check; did you mean"},
        {{"show"}, "xenolith trace show needs a FILE"},
        {{"show", "F", "G"}, "xenolith trace show takes one FILE ("},
        {{"check", "F"}, "xenolith trace check needs --profile NAME"},
        {{"check", "F", "--profile", "xen-9.9"}, "--profile: 'xen-9.9' is not a profile"},
        {{"check", "F", "--profile"}, "--profile needs a value"},
        {{"show", "F", "--profile", "xen-4.17"}, "--profile belongs to check"},
        {{"json", "F", "--json"}, "--json belongs to show, stats and check"},
        {{"json", "F", "--stable"}, "--stable belongs to show, stats and check"},
        {{"show", "F", "--verbose"}, "unknown option '--verbose'"},
    };
    for (const auto& test : cases) {
        const auto request = parse_trace(test.args, kProfiles);
        ASSERT_FALSE(request) << test.says;
        EXPECT_EQ(request.error().fault, Fault::kUser);
        EXPECT_EQ(request.error().what.substr(0, test.says.size()), test.says);
    }
}

TEST(VersionCommand, TakesNothingButJson) {
    const auto parse = [](const Args& args) {
        return parse_verb("version", "Prints the version.", Takes::kNothing, args);
    };
    EXPECT_FALSE(parse({})->json);
    EXPECT_TRUE(parse({"--json"})->json);
    EXPECT_NE(parse({"--help"})->help.find("Prints the version."), std::string::npos);
    EXPECT_EQ(parse({"x"}).error().what, "xenolith version takes no arguments, not 'x'");
    EXPECT_EQ(parse({"--x"}).error().what,
              "unknown option '--x' ('xenolith version --help' lists them)");
}

TEST(Verb, TakesANameAndJson) {
    const auto parse = [](const Args& args) {
        return parse_verb("pause", "Stops it.", Takes::kName, args);
    };
    EXPECT_EQ(parse({"web 1"})->name, "web 1");
    EXPECT_FALSE(parse({"web"})->json);
    EXPECT_TRUE(parse({"--json", "web"})->json);
    EXPECT_TRUE(parse({"web", "--json"})->json);
    EXPECT_EQ(parse({"--", "--json"})->name, "--json");
    EXPECT_NE(parse({"--help"})->help.find("Stops it."), std::string::npos);
    EXPECT_NE(parse({"-h"})->help.find("xenolith pause [OPTIONS] NAME"), std::string::npos);
    const std::vector<Mistake> cases = {
        {{}, "xenolith pause needs the NAME of a guest"},
        {{"a", "b"}, "xenolith pause takes one NAME, not 'b' too"},
        {{""}, "a name cannot be empty"},
        {{"../a"}, "'../a' has a character that a name cannot have"},
        {{"--jsno", "a"}, "unknown option '--jsno'; did you mean '--json'?"},
        {{"--json=yes", "a"}, "--json takes no value"},
    };
    for (const auto& test : cases) {
        const auto request = parse(test.args);
        ASSERT_FALSE(request) << test.says;
        EXPECT_EQ(request.error().fault, Fault::kUser);
        EXPECT_EQ(request.error().what.substr(0, test.says.size()), test.says);
    }
}

TEST(Verb, ListTakesNoName) {
    const auto parse = [](const Args& args) {
        return parse_verb("list", "Lists them.", Takes::kNothing, args);
    };
    EXPECT_TRUE(parse({"--json"})->json);
    EXPECT_FALSE(parse({})->json);
    EXPECT_EQ(parse({"x"}).error().what, "xenolith list takes no arguments, not 'x'");
}

TEST(Save, WithTheGuestsHelpAndWithout) {
    const auto plain = parse_save({"web", "file"});
    ASSERT_TRUE(plain);
    EXPECT_EQ(plain->name, "web");
    EXPECT_EQ(plain->file, "file");
    EXPECT_FALSE(plain->cooperative || plain->leave_running || plain->json || plain->timeout_s);
    const auto helped = parse_save({"--cooperative", "web", "--timeout", "7", "file", "--json"});
    ASSERT_TRUE(helped);
    EXPECT_TRUE(helped->cooperative && helped->json);
    EXPECT_EQ(helped->timeout_s, 7u);
    EXPECT_FALSE(parse_save({"--cooperative", "web", "file"})->timeout_s);
    const std::vector<Mistake> cases = {
        {{"--timeout", "7", "web", "file"}, "--timeout belongs to --cooperative"},
        {{"--cooperative", "--timeout", "0", "web", "file"}, "--timeout: "},
        {{"--cooperative", "--timeout", "86401", "web", "file"}, "--timeout: "},
        {{"--cooperative", "--timeout", "1s", "web", "file"}, "--timeout: "},
        {{"--cooperative", "--timeout=1", "--timeout=2", "web", "file"},
         "--timeout is given more than once"},
        {{"--cooperative", "web"}, "xenolith save needs the NAME of a guest and a FILE"},
    };
    for (const auto& test : cases) {
        const auto request = parse_save(test.args);
        ASSERT_FALSE(request) << test.says;
        EXPECT_EQ(request.error().fault, Fault::kUser);
        EXPECT_EQ(request.error().what.substr(0, test.says.size()), test.says);
    }
}

TEST(Shutdown, WhatItAsksFor) {
    const auto off = parse_shutdown({"web"});
    ASSERT_TRUE(off);
    EXPECT_EQ(off->name, "web");
    EXPECT_FALSE(off->reboot || off->json || off->timeout_s);
    const auto again = parse_shutdown({"--reboot", "--timeout", "86400", "web"});
    ASSERT_TRUE(again);
    EXPECT_TRUE(again->reboot);
    EXPECT_EQ(again->timeout_s, 86400u);
    EXPECT_EQ(parse_shutdown({"--help"})->help, shutdown_help());
    const std::vector<Mistake> cases = {
        {{}, "xenolith shutdown needs the NAME of a guest"},
        {{"a", "b"}, "xenolith shutdown needs the NAME of a guest"},
        {{"../a"}, "'../a' has a character that a name cannot have"},
        {{"--timeout", "x", "a"}, "--timeout: "},
    };
    for (const auto& test : cases) {
        const auto request = parse_shutdown(test.args);
        ASSERT_FALSE(request) << test.says;
        EXPECT_EQ(request.error().what.substr(0, test.says.size()), test.says);
    }
}

TEST(Run, ProfilesAreListedAsJsonToo) {
    constexpr std::string_view kNames[] = {"xen-4.17"};
    EXPECT_FALSE(parse_run({"--profile", "list"}, kNames)->json);
    EXPECT_TRUE(parse_run({"--profile", "list", "--json"}, kNames)->json);
    EXPECT_EQ(parse_run({"--kernel", "k", "--json"}, kNames).error().what,
              "--json belongs to --profile list");
}

TEST(Run, APausedStartIsAskedFor) {
    constexpr std::string_view kNames[] = {"xen-4.17"};
    EXPECT_TRUE(parse_run({"--kernel", "k", "--paused"}, kNames)->paused);
    EXPECT_FALSE(parse_run({"--kernel", "k"}, kNames)->paused);
    EXPECT_EQ(parse_run({"--kernel", "k"}, kNames)->vm.name, "");
}

}  // namespace
}  // namespace vmm::config
