#include "vmm/cli/config/xlcfg.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <string_view>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

namespace vmm::config {
namespace {

constexpr std::string_view kProfiles[] = {"xen-4.17", "xen-4.5"};

struct Applied {
    Result<void> result;
    VmConfig vm;
    std::vector<std::string> warnings;
};

Applied apply(std::string_view text, Strictness strictness = Strictness::kWarn) {
    const auto file = parse_xl("f", text);
    if (!file) return {Failure{file.error()}, {}, {}};
    VmConfig vm;
    std::vector<std::string> warnings;
    auto result = apply_xl(*file, strictness, kProfiles, vm, warnings);
    return {result, vm, warnings};
}

VmConfig good(std::string_view text) {
    const Applied applied = apply(text);
    EXPECT_TRUE(applied.result) << text << ": " << applied.result.error().what;
    for (const auto& warning : applied.warnings)
        ADD_FAILURE() << text << ": " << warning;
    return applied.vm;
}

TEST(XlKeys, EveryKeyThatWeImplement) {
    const VmConfig vm = good(R"(
        name = "web"
        uuid = "00112233-4455-6677-8899-aabbccddeeff"
        type = "pvh"
        kernel = "/boot/vmlinuz"
        ramdisk = "/boot/initrd.img"
        cmdline = "console=hvc0"
        memory = 512
        maxmem = 512
        vcpus = 2
        maxvcpus = "2"
        acpi = 0
        on_poweroff = "restart"
        on_reboot = "destroy"
        on_crash = "restart"
        on_watchdog = "restart"
        on_soft_reset = "destroy"
        max_event_channels = 4096
        max_grant_frames = 32
        abi_profile = "xen-4.5"
        quirks = "none"
        privileges = "dm"
        transport = "portable"
        preempt = "every:3"
        console = "file:/tmp/log"
        modules = [ "a,b c", "d" ]
        domid = 7
        cpuid_base = 0x40000100
        cpu = "/etc/pool.cpu"
    )");
    VmConfig want;
    want.name = "web";
    want.uuid = parse_uuid("00112233-4455-6677-8899-aabbccddeeff").value_or({});
    want.kernel = "/boot/vmlinuz";
    want.ramdisk = "/boot/initrd.img";
    want.cmdline = "console=hvc0";
    want.memory_bytes = 512 * kMiB;
    want.vcpus = 2;
    want.acpi = false;
    want.on_poweroff = want.on_crash = want.on_watchdog = ShutdownAction::kRestart;
    want.on_reboot = ShutdownAction::kDestroy;
    want.max_event_channels = 4096;
    want.max_grant_frames = 32;
    want.profile = "xen-4.5";
    want.quirks = QuirkChoice::kNone;
    want.privileges = PrivilegeChoice::kDeviceModel;
    want.transport = TransportChoice::kPortable;
    want.preempt.every = 3;
    want.console_file = "/tmp/log";
    want.modules = {{"a", "b c"}, {"d", ""}};
    want.domid = 7;
    want.cpuid_base = 0x40000100;
    want.cpu = "/etc/pool.cpu";
    EXPECT_EQ(vm, want);
}

TEST(XlKeys, DefaultsAreOursButForReboots) {
    VmConfig want;
    want.on_reboot = ShutdownAction::kRestart;
    EXPECT_EQ(good(""), want);
}

TEST(XlKeys, NumbersAndStringsStandForEachOther) {
    EXPECT_EQ(good("memory='512'").memory_bytes, 512 * kMiB);
    EXPECT_EQ(good("memory='2G'").memory_bytes, 2 * kGiB);
    EXPECT_EQ(good("memory=0x200").memory_bytes, 512 * kMiB);
    EXPECT_EQ(good("vcpus='0x2'").vcpus, 2u);
    EXPECT_EQ(good("name=42").name, "42");
    EXPECT_FALSE(good("acpi='0'").acpi);
    EXPECT_TRUE(good("acpi=2").acpi);
    EXPECT_EQ(good("max_event_channels=0").max_event_channels, kDefaultEventChannels);
}

TEST(XlKeys, CommandLineIsComposedAsInXl) {
    EXPECT_EQ(good("root='/dev/xvda'").cmdline, "root=/dev/xvda");
    EXPECT_EQ(good("extra='ro quiet'").cmdline, "ro quiet");
    EXPECT_EQ(good("extra='ro'\nroot='/dev/xvda'").cmdline, "root=/dev/xvda ro");
    EXPECT_EQ(good("cmdline='a b'").cmdline, "a b");
    EXPECT_EQ(good("extra='a'\nextra+=' b'").cmdline, "a b");

    const Applied applied = apply("\nextra='ro'\ncmdline='a'\nroot='/dev/xvda'");
    ASSERT_TRUE(applied.result);
    EXPECT_EQ(applied.vm.cmdline, "a");
    ASSERT_EQ(applied.warnings.size(), 1u);
    EXPECT_EQ(applied.warnings[0],
              "f:3: cmdline: root and extra do not count where cmdline is set");
}

TEST(XlKeys, KindsOfGuestAndTheirImages) {
    EXPECT_EQ(good("kernel='k'").type, GuestType::kPvh);
    EXPECT_EQ(good("builder='hvm'").type, GuestType::kHvm);
    EXPECT_EQ(good("builder='hvm';type='hvm'").type, GuestType::kHvm);
    const VmConfig overridden = good("type='hvm'\nfirmware_override='/fw'");
    EXPECT_EQ(overridden.image(), "/fw");
    const VmConfig implied = good("firmware='./fw'");
    EXPECT_EQ(implied.type, GuestType::kHvm);
    EXPECT_EQ(implied.firmware, "./fw");
    // As in xl's documentation, the special key counts for more than the general one.
    EXPECT_EQ(good("firmware='a'\nfirmware_override='b'").firmware, "b");
}

TEST(XlKeys, LimitsThatAskForNothingNew) {
    EXPECT_EQ(good("maxmem=512").memory_bytes, 512 * kMiB);
    EXPECT_EQ(good("maxmem=512;memory=512").memory_bytes, 512 * kMiB);
}

struct Refused {
    std::string_view text;
    std::string_view error;  // its start
};

TEST(XlKeys, Refusals) {
    constexpr Refused kCases[] = {
        {"memory=0", "f:1: memory: '0' is less than"},
        {"\nmemory=-1", "f:2: memory: '-1' is less than"},
        {"memory=99999999999", "f:1: memory: '99999999999' is more than"},
        {"memory='lots'", "f:1: memory: 'lots' is not a size"},
        {"memory=[512]", "f:1: memory: a single value is wanted, not a list"},
        {"maxmem=0", "f:1: maxmem: '0' is less than"},
        {"memory=512\nmaxmem=256", "f:2: maxmem: less than memory"},
        {"vcpus=0", "f:1: vcpus: '0' is out of range, 1 to 128"},
        {"vcpus=129", "f:1: vcpus: '129' is out of range"},
        {"vcpus='two'", "f:1: vcpus: 'two' is not a number"},
        {"vcpus=4\nmaxvcpus=2", "f:2: maxvcpus: less than vcpus"},
        {"maxvcpus=1000", "f:1: maxvcpus: '1000' is out of range"},
        {"name=''", "f:1: name: a name cannot be empty"},
        {"name=['x']", "f:1: name: a single value is wanted, not a list"},
        {"kernel=''", "f:1: kernel: a file name cannot be empty"},
        {"kernel=[\n'k']", "f:1: kernel: a single value"},
        {"type='pv'", "f:1: type: 'pv' is not supported, only pvh or hvm"},
        {"type='hvn'", "f:1: type: 'hvn' is not pvh or hvm; did you mean 'hvm'?"},
        {"builder='generic'", "f:1: builder: 'generic' is not supported, only hvm"},
        {"type='pvh'\nbuilder='hvm'", "f:2: builder: 'hvm' contradicts type 'pvh'"},
        {"builder=[]", "f:1: builder: a single value"},
        {"type='pvh'\nfirmware_override='f'",
         "f:2: firmware_override: only a guest of type 'hvm' has a firmware"},
        {"kernel='k'\nfirmware_override='f'", "f:2: firmware_override: the file names a kernel"},
        {"type='hvm'\nfirmware='ovmf'", "f:2: firmware: 'ovmf' is not supported, only the path"},
        {"on_reboot='preserve'", "f:1: on_reboot: 'preserve' is not supported"},
        {"on_crash='coredump-restart'", "f:1: on_crash: 'coredump-restart' is not supported"},
        {"on_reboot='restrat'", "f:1: on_reboot: 'restrat' is not destroy or restart; did you"},
        {"on_soft_reset='soft-reset'", "f:1: on_soft_reset: 'soft-reset' is not supported"},
        {"uuid='x'", "f:1: uuid: 'x' is not a UUID"},
        {"acpi='yes'", "f:1: acpi: 'yes' is not a number"},
        {"max_grant_frames=0", "f:1: max_grant_frames: '0' is out of range"},
        {"max_event_channels=1", "f:1: max_event_channels: '1' is out of range"},
        {"abi_profile='xen-9'", "f:1: abi_profile: 'xen-9' is not a profile"},
        {"transport='kvm'", "f:1: transport: 'kvm' is not auto"},
        {"preempt='every:0'", "f:1: preempt: '0' is out of range"},
        {"preempt=1", "f:1: preempt: '1' is not none, always, every:N or at:K[,K...]"},
        {"console='pty'", "f:1: console: 'pty' is not stdio"},
        {"modules='f'", "f:1: modules: a list of"},
        {"modules=[['f']]", "f:1: modules: a single value"},
        {"modules=['']", "f:1: modules: a file name cannot be empty"},
        {"domid=0", "f:1: domid: '0' is out of range"},
    };
    for (const auto& test : kCases) {
        const Applied applied = apply(test.text);
        ASSERT_FALSE(applied.result) << test.text;
        EXPECT_EQ(applied.result.error().fault, Fault::kUser);
        EXPECT_EQ(applied.result.error().what.substr(0, test.error.size()), test.error);
    }
}

struct Doubted {
    std::string_view text;
    std::string_view warning;  // without ", ignored", which --strict leaves out
};

TEST(XlKeys, WhatWeIgnoreIsAWarningOrWithStrictAnError) {
    constexpr Doubted kCases[] = {
        {"disk=['a']", "f:1: disk: not supported yet"},
        {"\nvif=['']", "f:2: vif: not supported yet"},
        {"vnc=1", "f:1: vnc: not supported yet"},
        {"pci=['01:00.0']", "f:1: pci: not supported yet"},
        {"bios='ovmf'", "f:1: bios: not supported yet"},
        {"apic=0", "f:1: apic: not supported yet"},
        {"maxmem=1024;memory=512", "f:1: maxmem: more than memory is not supported yet"},
        {"maxvcpus=4", "f:1: maxvcpus: more than vcpus is not supported yet"},
        {"memroy=512", "f:1: memroy: unknown key; did you mean 'memory'?"},
        {"zzz=1", "f:1: zzz: unknown key"},
    };
    for (const auto& test : kCases) {
        const Applied lenient = apply(test.text);
        ASSERT_TRUE(lenient.result) << test.text << ": " << lenient.result.error().what;
        ASSERT_EQ(lenient.warnings.size(), 1u) << test.text;
        EXPECT_EQ(lenient.warnings[0], std::string(test.warning) + ", ignored");

        const Applied strict = apply(test.text, Strictness::kRefuse);
        ASSERT_FALSE(strict.result) << test.text;
        EXPECT_EQ(strict.result.error().what, test.warning);
        EXPECT_EQ(strict.result.error().fault, Fault::kUser);
    }
}

TEST(XlKeys, SwitchingOffWhatWeDoNotHaveIsFine) {
    for (const std::string_view text : {"vnc=0", "viridian='0'", "disk=[]", "vif = [ ]", "sdl=0",
                                        "serial='none'", "nestedhvm=0", "hpet=0", "vga='none'"}) {
        EXPECT_TRUE(apply(text, Strictness::kRefuse).result) << text;
        EXPECT_TRUE(apply(text).warnings.empty()) << text;
    }
}

TEST(XlKeys, AFileOfNothingButUnknownKeysDoesNotFloodTheLog) {
    std::string text;
    for (int i = 0; i < 1000; ++i)
        text += "key" + std::to_string(i) + "=1\n";
    const Applied applied = apply(text);
    ASSERT_TRUE(applied.result);
    ASSERT_EQ(applied.warnings.size(), 51u);
    EXPECT_EQ(applied.warnings.back(), "f: 950 more keys are ignored");
}

TEST(XlKeys, ParserWarningsComeFirst) {
    const Applied applied = apply("zzz=1\nname='a'\nname='b'\n");
    ASSERT_TRUE(applied.result);
    ASSERT_EQ(applied.warnings.size(), 2u);
    EXPECT_NE(applied.warnings[0].find("'name' is set again"), std::string::npos);
    EXPECT_EQ(applied.vm.name, "b");
}

TEST(XlKeys, ImplementedKeysAreListedOnce) {
    const auto keys = implemented_xl_keys();
    EXPECT_EQ(std::set(keys.begin(), keys.end()).size(), keys.size());
}

class GuestFile : public testing::Test {
  protected:
    void SetUp() override {
        std::string pattern = std::filesystem::temp_directory_path() / "xenolith-test-XXXXXX";
        ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
        folder_ = pattern;
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }

    std::string path(const char* name) const { return folder_ / name; }
    std::string write(const char* name, std::string_view text) const {
        std::ofstream(path(name), std::ios::binary) << text;
        return path(name);
    }

  private:
    std::filesystem::path folder_;
};

TEST_F(GuestFile, IsReadWhole) {
    const std::string text = std::string(kMaxGuestFileBytes - 1, '#') + "\n";
    EXPECT_EQ(*read_guest_file(write("big", text)), text);
    EXPECT_EQ(*read_guest_file(write("empty", "")), "");
    EXPECT_EQ(*read_guest_file("/dev/null"), "");
}

TEST_F(GuestFile, RefusalsNameTheFile) {
    const std::string huge = write("huge", std::string(kMaxGuestFileBytes + 1, '#'));
    const std::vector<std::pair<std::string, std::string>> cases = {
        {path(""), "this is a directory"},
        {path("absent"), "No such file or directory"},
        {huge, "larger than 1M"},
        {"/dev/zero", "larger than 1M"},
        {"/proc/self/mem", "Input/output error"},  // opens, and cannot be read from its start
        {std::string(5000, 'n'), "File name too long"},
        {"", "No such file or directory"},
    };
    for (const auto& [file, says] : cases) {
        const auto text = read_guest_file(file);
        ASSERT_FALSE(text) << file;
        EXPECT_EQ(text.error().fault, Fault::kUser);
        EXPECT_EQ(text.error().what.substr(0, file.size()), file);
        EXPECT_NE(text.error().what.find(says), std::string::npos) << text.error().what;
    }
}

TEST_F(GuestFile, WithoutPermissionIsRefused) {
    if (::geteuid() == 0) GTEST_SKIP() << "root may read every file";
    const std::string file = write("secret", "name='x'\n");
    std::filesystem::permissions(file, std::filesystem::perms::none);
    const auto text = read_guest_file(file);
    ASSERT_FALSE(text);
    EXPECT_NE(text.error().what.find("Permission denied"), std::string::npos);
}

}  // namespace
}  // namespace vmm::config
