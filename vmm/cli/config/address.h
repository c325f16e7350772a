// Where a guest is moved to, or comes from: DEST and FROM of `xenolith migrate` and `receive`.
#pragma once

#include <cstdint>
#include <string>

#include "vmm/base/result.h"

namespace vmm::config {

struct Address {
    enum class Kind {
        kUnix,      // unix:PATH
        kTcp,       // tcp://HOST:PORT, of this host alone: what goes over it is not encrypted
        kFd,        // fd:N, a connected stream socket that this process has inherited
        kTls,       // tls://HOST[:PORT]
        kSsh,       // ssh://[USER@]HOST[:PORT], of migrate
        kStandard,  // -, of receive: standard input and output
    };
    Kind kind = Kind::kUnix;
    std::string text;  // as it was given
    std::string path;
    std::string host;        // numeric for kTcp and for receive's kTls; with the user for kSsh
    std::uint16_t port = 0;  // 0, of kSsh: its own default
    int fd = -1;
};

inline constexpr std::uint16_t kTlsPort = 9366;  // of tls://HOST

// Of `xenolith migrate NAME DEST`, and of `xenolith receive FROM`.
Result<Address> parse_destination(const std::string& text);
Result<Address> parse_origin(const std::string& text);

}  // namespace vmm::config
