// GUEST.cfg: xl's configuration syntax (xl.cfg(5)) and what of it becomes a VmConfig.
//
// Two steps, so that each is testable alone: parse_xl() turns text into settings with line
// numbers and knows no key; apply_xl() turns settings into a VmConfig and knows every key that xl
// knows, at least by name. Errors and warnings start with FILE:LINE.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/cli/config/vm_config.h"

namespace vmm::config {

inline constexpr std::size_t kMaxGuestFileBytes = std::size_t{1} << 20;
// The parser descends once per list within a list; nobody nests deeper than vnuma's two.
inline constexpr unsigned kMaxListDepth = 32;

struct XlValue;
using XlList = std::vector<XlValue>;

// xl keeps an unquoted number as text until somebody asks for it, and so takes "2" where it takes
// 2. We keep which of the two it was for the sake of better messages.
struct XlValue {
    struct Number {
        std::string text;  // as written: 512, 0x200, 01000
        bool operator==(const Number&) const = default;
    };
    std::variant<std::string, Number, XlList> data;
    unsigned line = 0;
    bool operator==(const XlValue&) const = default;
};

struct XlSetting {
    std::string key;
    XlValue value;
    unsigned line = 0;
    bool operator==(const XlSetting&) const = default;
};

// Each key stands once, where it was assigned first, with what it was assigned last.
struct XlFile {
    std::string path;  // as the operator spelt it, for messages
    std::vector<XlSetting> settings;
    std::vector<std::string> warnings;
};

// Reads a GUEST.cfg: a regular file or a pipe, at most kMaxGuestFileBytes.
Result<std::string> read_guest_file(const std::string& path);

Result<XlFile> parse_xl(std::string path, std::string_view text);

// What the operator wants from unknown and unsupported keys: one warning each, or an error.
enum class Strictness { kWarn, kRefuse };

// Puts a file's settings into `vm` and appends what there is to say about them to `warnings`.
// The caller checks the whole (check_complete) after the command line had its say.
// `profiles` are the names that abi_profile takes.
Result<void> apply_xl(const XlFile& file, Strictness strictness,
                      std::span<const std::string_view> profiles, VmConfig& vm,
                      std::vector<std::string>& warnings);

// Every key that apply_xl() implements, for the check against the man page.
std::vector<std::string_view> implemented_xl_keys();

}  // namespace vmm::config
