#include "vmm/cli/config/vm_config.h"

#include <array>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "vmm/cli/config/text.h"

namespace vmm::config {
namespace {

constexpr std::array<std::string_view, 2> kProfiles{"xen-4.17", "xen-4.5"};

struct MemoryCase {
    std::string_view text;
    std::uint64_t bytes;
};

TEST(ParseMemory, Sizes) {
    constexpr MemoryCase kCases[] = {
        {"128M", 128 * kMiB},    {"128m", 128 * kMiB}, {"2G", 2 * kGiB},
        {"1024K", kMiB},         {"512", 512 * kMiB},  {"0x200", 512 * kMiB},
        {"01000", 512 * kMiB},   {"1T", kTiB},         {"16T", 16 * kTiB},
        {"16777216", 16 * kTiB}, {"1", kMiB},          {"1028k", kMiB + 4 * kKiB},
        {"0x20M", 32 * kMiB},
    };
    for (const auto& test : kCases) {
        const auto bytes = parse_memory(test.text);
        ASSERT_TRUE(bytes) << test.text << ": " << bytes.error().what;
        EXPECT_EQ(*bytes, test.bytes) << test.text;
    }
}

// Texts that a parser refuses, and a part of what it says about each.
struct Refusal {
    std::string_view text;
    std::string_view says;
};

template <class Parse, std::size_t N>
void expect_refusals(Parse parse, const Refusal (&cases)[N]) {
    for (const auto& test : cases) {
        const auto value = parse(test.text);
        ASSERT_FALSE(value) << test.text;
        EXPECT_EQ(value.error().fault, Fault::kUser);
        EXPECT_NE(value.error().what.find(test.says), std::string::npos)
            << test.text << ": " << value.error().what;
        EXPECT_EQ(value.error().what.find('\n'), std::string::npos);
        EXPECT_LT(value.error().what.size(), 300u);
    }
}

TEST(ParseMemory, Refusals) {
    expect_refusals(parse_memory, {
                                      {"", "not a size"},
                                      {"0", "'0' is less than"},
                                      {"0M", "less than"},
                                      {"1023K", "less than"},
                                      {"-1", "'-1' is less than"},
                                      {"-128M", "less than"},
                                      {"17T", "more than"},
                                      {"16777217", "more than"},
                                      {"99999999999999999999", "more than"},
                                      {"18446744073709551615", "more than"},
                                      {"18446744073709551615T", "more than"},
                                      {"0xffffffffffffffffff", "more than"},
                                      {"1025K", "4K"},
                                      {"M", "not a size"},
                                      {"128MB", "not a size"},
                                      {"128 M", "not a size"},
                                      {" 128", "not a size"},
                                      {"1.5G", "not a size"},
                                      {"+5", "not a size"},
                                      {"--5", "not a size"},
                                      {"12Q", "not a size"},
                                      {"08", "not a size"},
                                      {"0x", "not a size"},
                                      {"much", "'much' is not a size"},
                                      {"1\n2", "'1\\x0a2'"},
                                  });
}

TEST(ParseNumber, Spellings) {
    EXPECT_EQ(*parse_number("10", 0, 100), 10u);
    EXPECT_EQ(*parse_number("0x1F", 0, 100), 31u);
    EXPECT_EQ(*parse_number("010", 0, 100), 8u);
    EXPECT_EQ(*parse_number("0", 0, 100), 0u);
    EXPECT_EQ(*parse_number("18446744073709551615", 0, UINT64_MAX), UINT64_MAX);
}

TEST(ParseVcpus, Range) {
    EXPECT_EQ(*parse_vcpus("1"), 1u);
    EXPECT_EQ(*parse_vcpus("128"), 128u);
    expect_refusals(parse_vcpus, {
                                     {"0", "'0' is out of range, 1 to 128"},
                                     {"129", "out of range"},
                                     {"-1", "'-1' is out of range"},
                                     {"4294967297", "out of range"},
                                     {"99999999999999999999999", "out of range"},
                                     {"two", "'two' is not a number"},
                                     {"", "not a number"},
                                     {"1x", "not a number"},
                                     {"-", "not a number"},
                                 });
}

TEST(ParseOthers, Values) {
    EXPECT_EQ(*parse_domid("32751"), 32751);
    EXPECT_EQ(*parse_event_channels("4096"), 4096u);
    EXPECT_EQ(*parse_grant_frames("64"), 64u);
    EXPECT_EQ(*parse_cpuid_base("0x40000100"), 0x40000100u);
    EXPECT_EQ(*parse_cpuid_base("0x4000ff00"), 0x4000ff00u);
    EXPECT_EQ(*parse_preempt("none"), PreemptChoice{});
    EXPECT_EQ(parse_preempt("every:1")->every, 1u);
    EXPECT_EQ(*parse_preempt("always"), *parse_preempt("every:1"));
    EXPECT_EQ(parse_preempt("at:7,3")->at, (std::vector<std::uint64_t>{3, 7}));
    EXPECT_EQ(*parse_preempt_after("250"), 250u);
    EXPECT_EQ(parse_preempt("every:4294967295")->every, UINT32_MAX);
    EXPECT_EQ(*parse_console("stdio"), "");
    EXPECT_EQ(*parse_console("file:/tmp/a,b"), "/tmp/a,b");
    EXPECT_EQ(*parse_module("a"), (BootModule{"a", ""}));
    EXPECT_EQ(*parse_module("a,"), (BootModule{"a", ""}));
    EXPECT_EQ(*parse_module("a,b c,d=1"), (BootModule{"a", "b c,d=1"}));
    EXPECT_EQ(*parse_guest_type("hvm"), GuestType::kHvm);
    EXPECT_EQ(*parse_transport("kvm-xen"), TransportChoice::kKvmXen);
    EXPECT_EQ(*parse_action("restart"), ShutdownAction::kRestart);
    EXPECT_EQ(*parse_profile("xen-4.5", kProfiles), "xen-4.5");
    EXPECT_EQ(*parse_name("web 1"), "web 1");
    const Uuid uuid = *parse_uuid("00112233-4455-6677-8899-aAbBcCdDeEfF");
    for (std::size_t i = 0; i < uuid.size(); ++i)
        EXPECT_EQ(uuid[i], i * 0x11);
}

TEST(ParseOthers, Refusals) {
    expect_refusals(parse_domid, {{"0", "1 to 32751"}, {"32752", "out of range"}});
    expect_refusals(parse_event_channels, {{"0", "out of range"}, {"131073", "out of range"}});
    expect_refusals(parse_grant_frames, {{"0", "out of range"}, {"4097", "out of range"}});
    expect_refusals(parse_cpuid_base, {{"0", "multiple of 0x100"},
                                       {"0x40000001", "multiple"},
                                       {"0x40010000", "multiple"},
                                       {"0x140000000", "multiple"},
                                       {"x", "multiple"}});
    expect_refusals(parse_preempt, {{"every:0", "'0' is out of range"},
                                    {"at:0", "'0' is out of range"},
                                    {"at:", "is not a number"},
                                    {"at:3,,4", "is not a number"},
                                    {"every:", "'' is not a number"},
                                    {"every:-1", "out of range"},
                                    {"every:4294967296", "out of range"},
                                    {"every", "not none, always, every:N"},
                                    {"5", "not none, always, every:N"},
                                    {"", "not none, always, every:N"}});
    expect_refusals(parse_console, {{"file:", "cannot be empty"},
                                    {"stdout", "stdio or file:PATH"},
                                    {"", "stdio or file:PATH"}});
    expect_refusals(parse_module, {{"", "cannot be empty"}, {",x", "cannot be empty"}});
    expect_refusals(parse_path, {{"", "empty"}, {std::string_view("a\0b", 3), "NUL"}});
    expect_refusals(parse_name, {{"", "empty"}, {"a/b", "character"}, {"a\nb", "character"}});
    expect_refusals(parse_name, {{std::string(256, 'n'), "longer than"}});
    expect_refusals(parse_guest_type, {{"pv", "not supported, only pvh or hvm"},
                                       {"hvmm", "did you mean 'hvm'?"},
                                       {"", "not pvh or hvm"}});
    expect_refusals(parse_transport, {{"portabel", "did you mean 'portable'?"}});
    expect_refusals(parse_action, {{"preserve", "'preserve' is not supported"},
                                   {"soft-reset", "not supported"},
                                   {"explode", "is not destroy or restart"}});
    expect_refusals(parse_uuid, {{"", "not a UUID"},
                                 {"00112233-4455-6677-8899-aabbccddeef", "not a UUID"},
                                 {"00112233-4455-6677-8899-aabbccddeefg", "not a UUID"},
                                 {"00112233 4455-6677-8899-aabbccddeeff", "not a UUID"},
                                 {"0-112233-4455-6677-8899-aabbccddeeff", "not a UUID"}});
    const auto profile = [](std::string_view text) { return parse_profile(text, kProfiles); };
    expect_refusals(profile, {{"xen-4.71", "did you mean 'xen-4.17'?"}, {"", "is not a profile"}});
}

TEST(Text, InQuotesStaysShortAndPrintable) {
    EXPECT_EQ(in_quotes("plain"), "'plain'");
    EXPECT_EQ(in_quotes(std::string_view("a\0\x1b\x7f", 4)), "'a\\x00\\x1b\\x7f'");
    EXPECT_LT(in_quotes(std::string(1 << 20, 'x')).size(), 100u);
    EXPECT_EQ(in_quotes(std::string(80, 'x')), "'" + std::string(80, 'x') + "'");
}

TEST(Text, DidYouMean) {
    constexpr std::array<std::string_view, 4> kKnown{"kernel", "memory", "vcpus", "name"};
    EXPECT_EQ(did_you_mean("kernal", kKnown), "kernel");
    EXPECT_EQ(did_you_mean("memroy", kKnown), "memory");
    EXPECT_EQ(did_you_mean("vcpu", kKnown), "vcpus");
    EXPECT_EQ(did_you_mean("nmae", kKnown), "name");
    EXPECT_EQ(did_you_mean("disk", kKnown), "");
    EXPECT_EQ(did_you_mean("", kKnown), "");
    EXPECT_EQ(did_you_mean(std::string(1 << 20, 'k'), kKnown), "");
}

TEST(CheckComplete, WhatHoldsBetweenValues) {
    VmConfig vm;
    EXPECT_NE(check_complete(vm).error().what.find("no kernel"), std::string::npos);
    vm.kernel = "k";
    EXPECT_TRUE(check_complete(vm));
    EXPECT_EQ(vm.image(), "k");
    vm.firmware = "f";
    EXPECT_NE(check_complete(vm).error().what.find("both"), std::string::npos);
    vm.kernel.clear();
    EXPECT_NE(check_complete(vm).error().what.find("hvm"), std::string::npos);
    vm.type = GuestType::kHvm;
    EXPECT_TRUE(check_complete(vm));
    EXPECT_EQ(vm.image(), "f");
}

TEST(Names, RoundTrip) {
    for (const auto type : {GuestType::kPvh, GuestType::kHvm}) {
        EXPECT_EQ(*parse_guest_type(to_string(type)), type);
    }
    for (const auto transport :
         {TransportChoice::kAuto, TransportChoice::kKvmXen, TransportChoice::kPortable}) {
        EXPECT_EQ(*parse_transport(to_string(transport)), transport);
    }
    for (const auto quirks : {QuirkChoice::kAuto, QuirkChoice::kXenServer, QuirkChoice::kNone}) {
        EXPECT_EQ(*parse_quirks(to_string(quirks)), quirks);
    }
    for (const auto privileges : {PrivilegeChoice::kNone, PrivilegeChoice::kDeviceModel}) {
        EXPECT_EQ(*parse_privileges(to_string(privileges)), privileges);
    }
    for (const auto action : {ShutdownAction::kDestroy, ShutdownAction::kRestart}) {
        EXPECT_EQ(*parse_action(to_string(action)), action);
    }
}

}  // namespace
}  // namespace vmm::config
