// The grammar of GUEST.cfg, without the meaning of any key.
#include <cstddef>
#include <random>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "vmm/cli/config/xlcfg.h"

namespace vmm::config {
namespace {

using namespace std::string_view_literals;

std::string shown(const XlValue& value) {
    if (const auto* const text = std::get_if<std::string>(&value.data)) return '"' + *text + '"';
    if (const auto* const number = std::get_if<XlValue::Number>(&value.data)) return number->text;
    std::string items;
    for (const XlValue& item : std::get<XlList>(value.data)) {
        items += (items.empty() ? "" : ",") + shown(item);
    }
    return "[" + items + "]";
}

std::string shown(const XlFile& file) {
    std::string text;
    for (const XlSetting& setting : file.settings) {
        text += std::to_string(setting.line) + ":" + setting.key + "=" + shown(setting.value) + ";";
    }
    return text;
}

struct Good {
    std::string_view text;
    std::string_view means;
};

TEST(XlParser, Grammar) {
    constexpr Good kCases[] = {
        {"", ""},
        {"\n\n", ""},
        {";;;\n;", ""},
        {"# only a comment", ""},
        {"# only a comment\n", ""},
        {"a=1", "1:a=1;"},
        {"a = 1\n", "1:a=1;"},
        {"\ta\t=\t1\t#x\n", "1:a=1;"},
        {"a=1;b=2", "1:a=1;1:b=2;"},
        {"a=1\n\n#\nb=2\n", "1:a=1;4:b=2;"},
        {"a=1\r\nb='x'\r\n", "1:a=1;2:b=\"x\";"},
        {"a='it\"s'", "1:a=\"it\"s\";"},
        {"a=\"it's\"", "1:a=\"it's\";"},
        {"a=''", "1:a=\"\";"},
        {"a='#;[]=+'", "1:a=\"#;[]=+\";"},
        {"a='\\\\ \\' \\\"'", "1:a=\"\\ ' \"\";"},
        {"a='\\x41\\102\\t|'", "1:a=\"AB\t|\";"},
        {"a='\\a\\b\\f\\n\\r\\v'", "1:a=\"\a\b\f\n\r\v\";"},
        {"a='\xc3\xa4'", "1:a=\"\xc3\xa4\";"},
        {"a=0x1F;b=017;c=0;d=-5", "1:a=0x1F;1:b=017;1:c=0;1:d=-5;"},
        {"a=99999999999999999999999", "1:a=99999999999999999999999;"},
        {"a=[]", "1:a=[];"},
        {"a=[1]", "1:a=[1];"},
        {"a=[1,]", "1:a=[1];"},
        {"a=[1,'b',0x3]", "1:a=[1,\"b\",0x3];"},
        {"a=[[1,2],[],['x']]", "1:a=[[1,2],[],[\"x\"]];"},
        {"a = [\n  'x', # first\n\n  'y'\n  ,\n]\nb=1", "1:a=[\"x\",\"y\"];7:b=1;"},
        {"a=[\r\n1\r\n]\r\n", "1:a=[1];"},
        {"a_1=1;name2='x'", "1:a_1=1;1:name2=\"x\";"},
        {"a='x'\na+='y'", "2:a=\"xy\";"},
        {"a += 'y'", "1:a=\"y\";"},
        {"a=[1]\na += [2,3]\n", "2:a=[1,2,3];"},
        {"b=1\na=1\nb=2", "3:b=2;2:a=1;"},
    };
    for (const auto& test : kCases) {
        const auto file = parse_xl("f", test.text);
        ASSERT_TRUE(file) << test.text << ": " << file.error().what;
        EXPECT_EQ(shown(*file), test.means) << test.text;
    }
}

struct Bad {
    std::string_view text;
    std::string_view says;  // the whole error, or its start
};

TEST(XlParser, Malformed) {
    const std::string deep(kMaxListDepth + 1, '[');
    const std::string deep_error =
        "f:1: lists are nested deeper than " + std::to_string(kMaxListDepth);
    const std::string deep_text = "a=" + deep;
    const Bad kCases[] = {
        {"a", "f:1: '=' is missing between 'a' and the end of the file"},
        {"a\n", "f:1: '=' is missing between 'a' and the end of the line"},
        {"import os", "f:1: '=' is missing between 'import' and 'os'"},
        {"a 1", "f:1: '=' is missing"},
        {"a + 1", "f:1: '=' is missing between 'a' and '+'"},
        {"a -= 1", "f:1: '=' is missing between 'a' and '-'"},
        {"a =", "f:1: a value is a string, a number or a list, not the end of the file"},
        {"a = \n1", "f:1: a value is a string, a number or a list, not the end of the line"},
        {"\n\na = True", "f:3: a value is a string, a number or a list, not 'True'"},
        {"a = {}", "f:1: a value is a string, a number or a list, not '{'"},
        {"a = -", "f:1: a value is a string"},
        {"a == 1", "f:1: a value is a string, a number or a list, not '='"},
        {"A=1", "f:1: 'A' is not a key: keys start with a lower-case letter"},
        {"_a=1", "f:1: '_a' is not a key"},
        {"=1", "f:1: a line starts with a key, not with '='"},
        {"1=1", "f:1: a line starts with a key, not with '1'"},
        {"'a'=1", "f:1: a line starts with a key"},
        {"]", "f:1: a line starts with a key, not with ']'"},
        {"\x80", "f:1: a line starts with a key"},
        {"a=1 b=2", "f:1: the value ends before 'b'"},
        {"a='x' 'y'", "f:1: the value ends before '''"},
        {"a=1,", "f:1: the value ends before ','"},
        {"a=[1]]", "f:1: the value ends before ']'"},
        {"a=1\r", "f:1: the value ends before '\\x0d'"},
        {"a='x", "f:1: this string has no end: ' is missing"},
        {"a=\"x\nb=1\"", "f:1: this string has no end: \" is missing"},
        {"a='x\\", "f:1: in a string, '\\' cannot stand before the end of the file"},
        {"a='x\\\n'", "f:1: in a string, '\\' cannot stand before the end of the line"},
        {"a='\\q'", "f:1: in a string, '\\' cannot stand before 'q'"},
        {"a='\\x4'", "f:1: a string has a character code that is incomplete"},
        {"a='\\xzz'", "f:1: a string has a character code"},
        {"a='\\x00'", "f:1: a string has a character code that is incomplete, zero"},
        {"a='\\0'", "f:1: a string has a character code that is incomplete, zero"},
        {"a='\\777'", "f:1: a string has a character code that is incomplete, zero or above 255"},
        {"a='x\0y'"sv, "f:1: a string cannot have a NUL byte in it"},
        {"a=1\0"sv, "f:1: the value ends before '\\x00'"},
        {"\0"sv, "f:1: a line starts with a key, not with '\\x00'"},
        {"a=128M", "f:1: '128M' is not a number; anything else needs quotes"},
        {"a=08", "f:1: '08' is not a number"},
        {"a=0x", "f:1: '0x' is not a number"},
        {"a=1.5", "f:1: '1.5' is not a number"},
        {"a=1_000", "f:1: '1_000' is not a number"},
        {"a=[", "f:1: this list has no end: ']' is missing"},
        {"a=[\n1,\n\n", "f:1: this list has no end: ']' is missing"},
        {"a=[1", "f:1: this list has no end: ']' is missing"},
        {"a=[[1]", "f:1: this list has no end: ']' is missing"},
        {"a=[1 2]", "f:1: ',' or ']' is missing in a list before '2'"},
        {"\na=[\n1\n2]", "f:4: ',' or ']' is missing in a list before '2'"},
        {"a=[,]", "f:1: a value is a string, a number or a list, not ','"},
        {"a=[1,,2]", "f:1: a value is a string, a number or a list, not ','"},
        {"a=[;]", "f:1: a value is a string, a number or a list, not ';'"},
        {"a=['x]\nb=1", "f:1: this string has no end: ' is missing"},
        {deep_text, deep_error},
        {"a=1\na+='x'", "f:2: 'a' += needs what the key already has"},
        {"a='x'\na+=['y']", "f:2: 'a' += needs what the key already has"},
        {"a=['x']\na+='y'", "f:2: 'a' += needs what the key already has"},
        {"a=1\na+=2", "f:2: 'a' += joins strings or lists, not numbers"},
        {"a+=2", "f:1: 'a' += joins strings or lists, not numbers"},
    };
    for (const auto& test : kCases) {
        const auto file = parse_xl("f", test.text);
        ASSERT_FALSE(file) << test.text;
        EXPECT_EQ(file.error().fault, Fault::kUser);
        EXPECT_EQ(file.error().what.substr(0, test.says.size()), test.says);
        EXPECT_EQ(file.error().what.find_first_of("\n\r\0"sv), std::string::npos);
    }
}

TEST(XlParser, NestingAtTheBoundIsFine) {
    const std::string text =
        "a=" + std::string(kMaxListDepth, '[') + "1" + std::string(kMaxListDepth, ']');
    EXPECT_TRUE(parse_xl("f", text));
}

// The stack does not follow the input, however much of it is brackets.
TEST(XlParser, AMegabyteOfBracketsIsRefused) {
    EXPECT_FALSE(parse_xl("f", "a=" + std::string(kMaxGuestFileBytes, '[')));
}

TEST(XlParser, ARepeatedKeyIsOneWarning) {
    const auto file = parse_xl("dir/f", "a=1\nb=1\na=2\na=3\n");
    ASSERT_TRUE(file);
    ASSERT_EQ(file->warnings.size(), 1u);
    EXPECT_EQ(file->warnings[0], "dir/f:3: 'a' is set again: line 1 no longer counts");
    EXPECT_EQ(shown(*file), "4:a=3;2:b=1;");
}

TEST(XlParser, FilesOfTheGreatestSize) {
    std::string keys, appends;
    std::size_t count = 0;
    while (keys.size() < kMaxGuestFileBytes) {
        keys += std::string(200, 'k') + std::to_string(count++) + "=1\n";
    }
    while (appends.size() < kMaxGuestFileBytes)
        appends += "a+='" + std::string(200, 'x') + "'\n";

    const auto many = parse_xl("f", keys);
    ASSERT_TRUE(many);
    EXPECT_EQ(many->settings.size(), count);
    const auto one = parse_xl("f", appends);
    ASSERT_TRUE(one);
    ASSERT_EQ(one->settings.size(), 1u);
    EXPECT_GT(std::get<std::string>(one->settings[0].value.data).size(), kMaxGuestFileBytes / 2);
}

// Mutations of a file that uses every rule. The parser and the mapping answer each of them with a
// value or with one line; the sanitizer build sees to the rest.
TEST(XlParser, MutatedFilesNeverCrash) {
    constexpr std::string_view kSeed =
        "name = \"h0\"; type='pvh'\n# comment\nkernel = '/boot/vmlinuz'\nmemory=0x200\n"
        "disk = [ 'a,b,c', # x\n ['y', 017,], ]\nextra += 'a\\x41\\101\\n'\nvcpus=\"2\"\n"
        "root='/dev/xvda'\nextra += ' b'\non_reboot=\"destroy\"\nmodules=['f,c']\nuuid="
        "'00112233-4455-6677-8899-aabbccddeeff'\r\nmaxmem=1024;maxvcpus=4;viridian=0\n";
    constexpr std::string_view kSpice = "[]'\"\\#;=+,\n\r\t 0xX9-_az\x80\xff\0"sv;
    constexpr std::string_view kProfiles[] = {"xen-4.17"};

    std::mt19937 random(20261122);
    const auto below = [&](std::size_t bound) {
        return std::uniform_int_distribution<std::size_t>(0, bound - 1)(random);
    };
    std::size_t good = 0;
    constexpr int kRounds = 4000;
    for (int round = 0; round < kRounds; ++round) {
        std::string text(kSeed);
        for (std::size_t edits = 1 + below(6); edits > 0 && !text.empty(); --edits) {
            const std::size_t at = below(text.size());
            switch (below(6)) {
                case 0: text[at] = kSpice[below(kSpice.size())]; break;
                case 1: text.insert(at, 1, kSpice[below(kSpice.size())]); break;
                case 2: text.erase(at, 1 + below(8)); break;
                case 3: text.resize(at); break;
                case 4: text.insert(at, text.substr(below(text.size()), 1 + below(40))); break;
                default: text[at] = static_cast<char>(below(256)); break;
            }
        }
        const auto file = parse_xl("f", text);
        if (!file) {
            ASSERT_EQ(file.error().what.find('\n'), std::string::npos) << file.error().what;
            continue;
        }
        VmConfig vm;
        std::vector<std::string> warnings;
        const auto applied = apply_xl(*file, Strictness::kWarn, kProfiles, vm, warnings);
        if (applied) {
            ++good;
            ASSERT_GE(vm.memory_bytes, kMinMemory);
            ASSERT_LE(vm.memory_bytes, kMaxMemory);
            ASSERT_TRUE(vm.vcpus >= 1 && vm.vcpus <= kMaxVcpus);
        } else {
            ASSERT_EQ(applied.error().what.find('\n'), std::string::npos) << applied.error().what;
        }
    }
    // Both ways were taken often, or the mutations miss their point.
    EXPECT_GT(good, kRounds / 50);
    EXPECT_LT(good, kRounds - kRounds / 50);
}

}  // namespace
}  // namespace vmm::config
