// As much of HTTP/1.1 (RFC 9112) as a control socket needs, read strictly: what this file does not
// understand to the last byte is refused, and nothing that a peer sends makes it keep more than one
// request's worth of bytes.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "vmm/base/result.h"

namespace control {

struct Request {
    std::string method;
    std::string target;
    std::string body = {};
    bool last = false;  // the client wants the connection closed after the answer
    bool operator==(const Request&) const = default;
};

struct Response {
    int status = 200;
    std::string body = {};   // JSON
    std::string allow = {};  // with status 405: the methods that there are
};

// {"error": "why"} with that status.
Response refusal(int status, std::string_view why);

inline constexpr std::size_t kMaxHead = 8 * 1024;
inline constexpr std::size_t kMaxBody = 64 * 1024;
// An answer: the registers of 128 vCPUs are some 300 KiB.
inline constexpr std::size_t kMaxAnswer = 4 * 1024 * 1024;

// Requests out of a stream of bytes. Whoever feeds it stops while a request is being answered, so
// that what is pipelined waits in the socket.
class RequestReader {
  public:
    void append(std::string_view bytes) { buffer_ += bytes; }
    // The next request, or nothing until more bytes have come. After a failure the stream cannot be
    // read on: the response is to be sent and the connection closed.
    vmm::Expected<std::optional<Request>, Response> next();
    // Bytes of a request that is not whole yet.
    bool in_the_middle() const { return !buffer_.empty(); }

  private:
    std::string buffer_;
};

std::string to_wire(const Response& response, bool last);
std::string to_wire(const Request& request);

// The client's side: one response out of the bytes so far. Nothing until it is whole; an error when
// it is no response of ours.
vmm::Result<std::optional<Response>> read_response(std::string_view bytes);

}  // namespace control
