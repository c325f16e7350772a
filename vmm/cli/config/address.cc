#include "vmm/cli/config/address.h"

#include <algorithm>
#include <arpa/inet.h>
#include <charconv>
#include <netinet/in.h>
#include <optional>
#include <string_view>

#include "vmm/cli/config/text.h"

namespace vmm::config {
namespace {

template <class Integer>
std::optional<Integer> number(std::string_view text) {
    Integer value{};
    const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (failed != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

bool is_numeric(const std::string& host) {
    in_addr v4{};
    in6_addr v6{};
    return ::inet_pton(AF_INET, host.c_str(), &v4) == 1 ||
           ::inet_pton(AF_INET6, host.c_str(), &v6) == 1;
}

// What may stand in a name, or in an address with its interface. The first byte is that of no
// option.
bool is_host(const std::string& host) {
    constexpr std::size_t kLongest = 253;  // RFC 1035
    return host.size() <= kLongest && !host.starts_with('-') &&
           std::ranges::all_of(host, [](char c) {
               return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      std::string_view("._-:%").find(c) != std::string_view::npos;
           });
}

bool is_loopback(const std::string& host) {
    in_addr v4{};
    if (::inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
    in6_addr v6{};
    return ::inet_pton(AF_INET6, host.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

// HOST[:PORT], where HOST may stand in brackets.
bool split(std::string_view text, Address& to) {
    std::string_view port;
    if (text.starts_with('[')) {
        const auto close = text.find(']');
        if (close == std::string_view::npos) return false;
        to.host = text.substr(1, close - 1);
        port = text.substr(close + 1);
        if (!port.empty() && !port.starts_with(':')) return false;
        if (!port.empty()) port.remove_prefix(1);
    } else {
        const auto colon = text.find(':');
        to.host = text.substr(0, colon);
        if (colon != std::string_view::npos) port = text.substr(colon + 1);
        if (colon != std::string_view::npos && port.empty()) return false;
    }
    if (to.host.empty()) return false;
    if (port.empty()) return true;
    const auto value = number<std::uint16_t>(port);
    to.port = value.value_or(0);
    return to.port != 0;
}

Result<Address> parse(const std::string& text) {
    const std::string_view view(text);
    const auto after = [&](std::string_view prefix) -> std::optional<std::string_view> {
        if (!view.starts_with(prefix)) return std::nullopt;
        return view.substr(prefix.size());
    };
    Address address;
    address.text = text;
    const auto refuse = [&](const std::string& why) {
        return user_error(in_quotes(text) + ": " + why);
    };
    if (view == "-") {
        address.kind = Address::Kind::kStandard;
        return address;
    }
    if (const auto path = after("unix:")) {
        address.kind = Address::Kind::kUnix;
        address.path = *path;
        constexpr std::size_t kMostPath = 107;  // sockaddr_un's
        if (path->empty() || path->size() > kMostPath) {
            return refuse("a socket's path has 1 to 107 bytes");
        }
        return address;
    }
    if (const auto fd = after("fd:")) {
        address.kind = Address::Kind::kFd;
        const auto value = number<int>(*fd);
        if (!value || *value < 0) return refuse("fd: takes the number of a descriptor");
        address.fd = *value;
        return address;
    }
    if (const auto rest = after("tcp://")) {
        address.kind = Address::Kind::kTcp;
        if (!split(*rest, address) || address.port == 0) return refuse("it is no tcp://HOST:PORT");
        if (address.host == "localhost") address.host = "127.0.0.1";
        if (!is_loopback(address.host)) {
            return refuse("plain TCP goes to this host's own addresses only; use tls:// or ssh://");
        }
        return address;
    }
    if (const auto rest = after("tls://")) {
        address.kind = Address::Kind::kTls;
        if (!split(*rest, address) || !is_host(address.host)) {
            return refuse("it is no tls://HOST[:PORT]");
        }
        if (address.port == 0) address.port = kTlsPort;
        return address;
    }
    if (const auto rest = after("ssh://")) {
        address.kind = Address::Kind::kSsh;
        // What begins with '-' would be an option of ssh's.
        if (!split(*rest, address) || address.host.starts_with('-')) {
            return refuse("it is no ssh://[USER@]HOST[:PORT]");
        }
        return address;
    }
    return refuse("it is none of ssh://HOST, tls://HOST, unix:PATH, tcp://HOST:PORT and fd:N");
}

}  // namespace

Result<Address> parse_destination(const std::string& text) {
    auto address = TRY(parse(text));
    if (address.kind == Address::Kind::kStandard)
        return user_error("- is where receive reads from");
    return address;
}

Result<Address> parse_origin(const std::string& text) {
    auto address = TRY(parse(text));
    if (address.kind == Address::Kind::kSsh) {
        return user_error(in_quotes(text) + ": ssh:// is where migrate sends to");
    }
    if (address.kind == Address::Kind::kTls) {
        if (address.host == "localhost") address.host = "127.0.0.1";
        if (!is_numeric(address.host)) {
            return user_error(in_quotes(text) +
                              ": receive waits at an address, such as 0.0.0.0 or [::]");
        }
    }
    return address;
}

}  // namespace vmm::config
