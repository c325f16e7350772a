#include "vmm/cli/config/vm_config.h"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <utility>

#include "vmm/cli/config/text.h"

namespace vmm::config {
namespace {

// The digits of a number and the base that its prefix asks for.
struct Digits {
    std::string_view text;
    int base;
};

Digits digits_of(std::string_view text) {
    if (text.starts_with("0x") || text.starts_with("0X")) return {text.substr(2), 16};
    if (text.size() > 1 && text.front() == '0') return {text.substr(1), 8};
    return {text, 10};
}

// Empty when the text is no number; saturates when it does not fit, which every range refuses.
std::optional<std::uint64_t> to_number(std::string_view text) {
    const Digits digits = digits_of(text);
    std::uint64_t value = 0;
    const char* const end = digits.text.data() + digits.text.size();
    const auto [stop, error] = std::from_chars(digits.text.data(), end, value, digits.base);
    if (stop != end || digits.text.empty() || error == std::errc::invalid_argument) {
        return std::nullopt;
    }
    return error == std::errc::result_out_of_range ? UINT64_MAX : value;
}

bool is_negative_number(std::string_view text) {
    return text.starts_with('-') && to_number(text.substr(1)).has_value();
}

template <class T>
Result<T> parse_narrow(std::string_view text, T low, T high) {
    return static_cast<T>(TRY(parse_number(text, low, high)));
}

// A choice by name. Names that xl has and we have not are refused as such: the operator should
// not look for a typing mistake.
template <class E>
struct Named {
    std::string_view name;
    E value;
};

template <class E, std::size_t N>
Result<E> parse_choice(std::string_view text, const std::array<Named<E>, N>& choices,
                       std::span<const std::string_view> unsupported = {}) {
    std::array<std::string_view, N> names;
    for (std::size_t i = 0; i < N; ++i) {
        if (choices[i].name == text) return choices[i].value;
        names[i] = choices[i].name;
    }
    if (std::ranges::find(unsupported, text) != unsupported.end()) {
        return user_error(in_quotes(text) + " is not supported, only " + one_of(names));
    }
    return user_error(in_quotes(text) + " is not " + one_of(names) + hint(text, names));
}

template <class E, std::size_t N>
std::string_view name_of(E value, const std::array<Named<E>, N>& choices) {
    for (const auto& choice : choices) {
        if (choice.value == value) return choice.name;
    }
    return "?";
}

constexpr std::array<Named<GuestType>, 2> kGuestTypes{{
    {"pvh", GuestType::kPvh},
    {"hvm", GuestType::kHvm},
}};
constexpr std::array<Named<TransportChoice>, 3> kTransports{{
    {"auto", TransportChoice::kAuto},
    {"kvm-xen", TransportChoice::kKvmXen},
    {"portable", TransportChoice::kPortable},
}};
constexpr std::array<Named<QuirkChoice>, 3> kQuirks{{
    {"auto", QuirkChoice::kAuto},
    {"xenserver", QuirkChoice::kXenServer},
    {"none", QuirkChoice::kNone},
}};
constexpr std::array<Named<PrivilegeChoice>, 2> kPrivileges{{
    {"none", PrivilegeChoice::kNone},
    {"dm", PrivilegeChoice::kDeviceModel},
}};
constexpr std::array<Named<ShutdownAction>, 2> kActions{{
    {"destroy", ShutdownAction::kDestroy},
    {"restart", ShutdownAction::kRestart},
}};

}  // namespace

std::string_view to_string(GuestType type) {
    return name_of(type, kGuestTypes);
}
std::string_view to_string(TransportChoice transport) {
    return name_of(transport, kTransports);
}
std::string_view to_string(QuirkChoice quirks) {
    return name_of(quirks, kQuirks);
}
std::string_view to_string(PrivilegeChoice privileges) {
    return name_of(privileges, kPrivileges);
}
std::string_view to_string(ShutdownAction action) {
    return name_of(action, kActions);
}

Result<void> check_complete(const VmConfig& vm) {
    if (vm.kernel.empty() && vm.firmware.empty()) {
        return user_error(
            "no kernel: give --kernel FILE or --firmware FILE, or a GUEST.cfg that names one");
    }
    if (!vm.kernel.empty() && !vm.firmware.empty()) {
        return user_error("both a kernel (" + in_quotes(vm.kernel) + ") and a firmware (" +
                          in_quotes(vm.firmware) + ") are given: a guest boots one of them");
    }
    if (!vm.firmware.empty() && vm.type != GuestType::kHvm) {
        return user_error("firmware " + in_quotes(vm.firmware) +
                          ": only a guest of type hvm has one");
    }
    return {};
}

bool is_number(std::string_view text) {
    return to_number(text).has_value() || is_negative_number(text);
}

Result<std::uint64_t> parse_number(std::string_view text, std::uint64_t low, std::uint64_t high) {
    const auto value = to_number(text);
    if (!value && !is_negative_number(text))
        return user_error(in_quotes(text) + " is not a number");
    if (!value || *value < low || *value > high) {
        return user_error(in_quotes(text) + " is out of range, " + std::to_string(low) + " to " +
                          std::to_string(high));
    }
    return *value;
}

Result<std::uint64_t> parse_memory(std::string_view text) {
    constexpr std::string_view kLetters = "kmgt";
    std::string_view digits = text;
    std::uint64_t unit = kMiB;
    if (!text.empty()) {
        // No letter of these is a hexadecimal digit, so 0x20M is clear.
        const char last = static_cast<char>(text.back() | 0x20);
        const std::size_t power = kLetters.find(last);
        if (power != std::string_view::npos) {
            unit = kKiB << (10 * power);
            digits.remove_suffix(1);
        }
    }
    const auto count = to_number(digits);
    if (!count && !is_negative_number(digits)) {
        return user_error(in_quotes(text) + " is not a size such as 128M or 2G");
    }
    if (count && *count > kMaxMemory / unit) {
        return user_error(in_quotes(text) + " is more than a guest can have, 16T");
    }
    if (!count || *count * unit < kMinMemory) {
        return user_error(in_quotes(text) + " is less than a guest can have, 1M");
    }
    if (*count * unit % (4 * kKiB) != 0) {
        return user_error(in_quotes(text) + " is not a whole number of pages of 4K");
    }
    return *count * unit;
}

Result<unsigned> parse_vcpus(std::string_view text) {
    return parse_narrow<unsigned>(text, 1, kMaxVcpus);
}

Result<std::uint16_t> parse_domid(std::string_view text) {
    return parse_narrow<std::uint16_t>(text, 1, kMaxDomid);
}

Result<std::uint32_t> parse_event_channels(std::string_view text) {
    return parse_narrow<std::uint32_t>(text, kMinEventChannels, kMaxEventChannels);
}

Result<std::uint32_t> parse_grant_frames(std::string_view text) {
    return parse_narrow<std::uint32_t>(text, 1, kMaxGrantFrames);
}

Result<std::uint32_t> parse_cpuid_base(std::string_view text) {
    // Guests look for us at every 0x100 up to here and no further.
    constexpr std::uint32_t kLast = kCpuidBase + 0xff00;
    const auto value = to_number(text);
    if (!value || *value < kCpuidBase || *value > kLast || *value % 0x100 != 0) {
        return user_error(in_quotes(text) +
                          " is not a multiple of 0x100 from 0x40000000 to 0x4000ff00");
    }
    return static_cast<std::uint32_t>(*value);
}

Result<PreemptChoice> parse_preempt(std::string_view text) {
    constexpr std::string_view kEvery = "every:", kAt = "at:";
    PreemptChoice choice;
    if (text == "none") return choice;
    if (text == "always") {
        choice.every = 1;
        return choice;
    }
    if (text.starts_with(kEvery)) {
        choice.every = TRY(parse_narrow<std::uint32_t>(text.substr(kEvery.size()), 1, UINT32_MAX));
        return choice;
    }
    if (!text.starts_with(kAt)) {
        return user_error(in_quotes(text) + " is not none, always, every:N or at:K[,K...]");
    }
    constexpr std::size_t kMost = 4096;
    for (std::string_view rest = text.substr(kAt.size());;) {
        const std::size_t comma = rest.find(',');
        // Unit 0 cannot be stopped before: each entry does at least one.
        choice.at.push_back(TRY(parse_number(rest.substr(0, comma), 1, UINT32_MAX)));
        if (choice.at.size() > kMost) return user_error("more than 4096 places to stop at");
        if (comma == std::string_view::npos) break;
        rest.remove_prefix(comma + 1);
    }
    std::sort(choice.at.begin(), choice.at.end());
    return choice;
}

Result<std::uint32_t> parse_preempt_after(std::string_view text) {
    constexpr std::uint32_t kLongest = 1'000'000;
    return parse_narrow<std::uint32_t>(text, 1, kLongest);
}

Result<std::string> parse_name(std::string_view text) {
    constexpr std::size_t kLongest = 255;
    if (text.empty()) return user_error("a name cannot be empty");
    if (text.size() > kLongest) return user_error(in_quotes(text) + " is longer than 255 bytes");
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        // Names become parts of file names and of xenstore values.
        if (byte < 0x20 || byte == 0x7f || c == '/') {
            return user_error(in_quotes(text) + " has a character that a name cannot have");
        }
    }
    return std::string(text);
}

Result<std::string> parse_path(std::string_view text) {
    if (text.empty()) return user_error("a file name cannot be empty");
    return parse_string(text);
}

Result<std::string> parse_cpu(std::string_view text) {
    if (text == "host") return std::string();
    return parse_path(text);
}

Result<std::string> parse_string(std::string_view text) {
    if (text.find('\0') != std::string_view::npos) {
        return user_error(in_quotes(text) + " has a NUL byte in it");
    }
    return std::string(text);
}

Result<std::string> parse_console(std::string_view text) {
    constexpr std::string_view kFile = "file:";
    if (text == "stdio") return std::string();
    if (!text.starts_with(kFile)) return user_error(in_quotes(text) + " is not stdio or file:PATH");
    return parse_path(text.substr(kFile.size()));
}

Result<BootModule> parse_module(std::string_view text) {
    const std::size_t comma = text.find(',');
    BootModule module;
    module.file = TRY(parse_path(text.substr(0, comma)));
    if (comma != std::string_view::npos) {
        module.cmdline = TRY(parse_string(text.substr(comma + 1)));
    }
    return module;
}

Result<Uuid> parse_uuid(std::string_view text) {
    constexpr std::string_view kForm = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    Uuid uuid{};
    bool good = text.size() == kForm.size();
    for (std::size_t at = 0, byte = 0; good && at < kForm.size();) {
        if (kForm[at] == '-') {
            good = text[at++] == '-';
            continue;
        }
        const char* const pair = text.data() + at;
        good = std::from_chars(pair, pair + 2, uuid[byte++], 16).ptr == pair + 2;
        at += 2;
    }
    if (!good) return user_error(in_quotes(text) + " is not a UUID");
    return uuid;
}

Result<GuestType> parse_guest_type(std::string_view text) {
    constexpr std::array<std::string_view, 1> kNotOurs{"pv"};
    return parse_choice(text, kGuestTypes, kNotOurs);
}

Result<TransportChoice> parse_transport(std::string_view text) {
    return parse_choice(text, kTransports);
}

Result<QuirkChoice> parse_quirks(std::string_view text) {
    return parse_choice(text, kQuirks);
}

Result<PrivilegeChoice> parse_privileges(std::string_view text) {
    return parse_choice(text, kPrivileges);
}

Result<ShutdownAction> parse_action(std::string_view text) {
    constexpr std::array<std::string_view, 5> kNotOurs{
        "rename-restart", "preserve", "coredump-destroy", "coredump-restart", "soft-reset"};
    return parse_choice(text, kActions, kNotOurs);
}

Result<std::string> parse_profile(std::string_view text, std::span<const std::string_view> known) {
    if (std::ranges::find(known, text) != known.end()) return std::string(text);
    return user_error(in_quotes(text) + " is not a profile" + hint(text, known) +
                      " ('xenolith run --profile list' prints them)");
}

}  // namespace vmm::config
