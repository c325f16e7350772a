#include "control/http.h"

#include <algorithm>
#include <charconv>

#include "control/json.h"

namespace control {
namespace {

constexpr std::string_view kEndOfLine = "\r\n";
constexpr std::string_view kEndOfHead = "\r\n\r\n";

// RFC 9110, 5.6.2.
bool is_token(std::string_view text) {
    constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
    return !text.empty() && std::ranges::all_of(text, [&](char c) {
        return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
               kMarks.find(c) != std::string_view::npos;
    });
}

bool is_method(std::string_view text) {
    constexpr std::size_t kLongest = 16;
    return !text.empty() && text.size() <= kLongest &&
           std::ranges::all_of(text, [](char c) { return c >= 'A' && c <= 'Z'; });
}

// A path and nothing else: no scheme, no fragment, no byte that needs an escape.
bool is_target(std::string_view text) {
    return text.starts_with('/') &&
           std::ranges::all_of(text, [](char c) { return c > 0x20 && c < 0x7f; });
}

bool is_field_value(std::string_view text) {
    return std::ranges::none_of(text, [](char c) {
        const auto byte = static_cast<unsigned char>(c);
        return (byte < 0x20 && c != '\t') || byte == 0x7f;
    });
}

std::string_view trim(std::string_view text) {
    const auto first = text.find_first_not_of(" \t");
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

bool same_word(std::string_view a, std::string_view b) {
    return std::ranges::equal(a, b, [](char x, char y) {
        const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : +c; };
        return lower(x) == lower(y);
    });
}

// Digits only: no sign, no blank, no list.
std::optional<std::size_t> to_length(std::string_view text) {
    std::size_t value = 0;
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (text.empty() || stop != end || error != std::errc()) return std::nullopt;
    return value;
}

struct Fields {
    std::optional<std::size_t> length;
    unsigned hosts = 0;
    bool encoded = false;  // Transfer-Encoding
    bool expects = false;  // Expect
    bool last = false;     // Connection: close
    const char* bad = nullptr;
};

// The lines between the first one and the empty one.
Fields read_fields(std::string_view lines) {
    Fields fields;
    while (!lines.empty()) {
        const auto end = lines.find(kEndOfLine);
        const std::string_view line = lines.substr(0, end);
        lines.remove_prefix(end + kEndOfLine.size());
        const auto colon = line.find(':');
        if (colon == std::string_view::npos || !is_token(line.substr(0, colon))) {
            fields.bad = "a header line is not NAME: VALUE";
            return fields;
        }
        const std::string_view name = line.substr(0, colon);
        const std::string_view value = trim(line.substr(colon + 1));
        if (!is_field_value(value)) {
            fields.bad = "a header has a control character";
            return fields;
        }
        if (same_word(name, "content-length")) {
            // Two of them, also two equal ones, is how requests are smuggled.
            if (fields.length || !to_length(value)) {
                fields.bad = "Content-Length is not one number";
                return fields;
            }
            fields.length = to_length(value);
        } else if (same_word(name, "host")) {
            ++fields.hosts;
        } else if (same_word(name, "transfer-encoding")) {
            fields.encoded = true;
        } else if (same_word(name, "expect")) {
            fields.expects = true;
        } else if (same_word(name, "connection")) {
            fields.last = fields.last || same_word(value, "close");
        }
    }
    return fields;
}

std::string_view reason_of(int status) {
    switch (status) {
        case 200: return "OK";
        case 400: return "Bad Request";
        case 404: return "Not Found";
        case 405: return "Method Not Allowed";
        case 408: return "Request Timeout";
        case 409: return "Conflict";
        case 413: return "Content Too Large";
        case 417: return "Expectation Failed";
        case 431: return "Request Header Fields Too Large";
        case 500: return "Internal Server Error";
        case 501: return "Not Implemented";
        case 503: return "Service Unavailable";
        case 505: return "HTTP Version Not Supported";
        default: return "-";
    }
}

vmm::Failure<Response> refuse(int status, std::string_view why) {
    return {refusal(status, why)};
}

}  // namespace

Response refusal(int status, std::string_view why) {
    return {.status = status, .body = error_text(why)};
}

vmm::Expected<std::optional<Request>, Response> RequestReader::next() {
    const std::string_view all = buffer_;
    const auto head_end = all.substr(0, kMaxHead).find(kEndOfHead);
    if (head_end == std::string_view::npos) {
        // Refused as early as it shows: nobody waits for the rest of what can be no request.
        for (std::size_t at = all.find('\n'); at != std::string_view::npos;
             at = all.find('\n', at + 1)) {
            if (at == 0 || all[at - 1] != '\r') return refuse(400, "a line does not end in CR LF");
        }
        if (all.size() >= kMaxHead) return refuse(431, "the headers are too long");
        return std::optional<Request>();
    }
    const std::string_view head = all.substr(0, head_end + kEndOfLine.size());
    const auto line_end = head.find(kEndOfLine);
    const std::string_view line = head.substr(0, line_end);
    const auto space = line.find(' ');
    const auto second = space == std::string_view::npos ? space : line.find(' ', space + 1);
    if (second == std::string_view::npos || !is_method(line.substr(0, space)) ||
        !is_target(line.substr(space + 1, second - space - 1))) {
        return refuse(400, "the first line is not METHOD /PATH HTTP/1.1");
    }
    const std::string_view version = line.substr(second + 1);
    if (version != "HTTP/1.1") {
        return version.starts_with("HTTP/")
                   ? refuse(505, "only HTTP/1.1 is spoken here")
                   : refuse(400, "the first line does not end in HTTP/1.1");
    }
    const Fields fields = read_fields(head.substr(line_end + kEndOfLine.size()));
    if (fields.bad != nullptr) return refuse(400, fields.bad);
    if (fields.hosts != 1) return refuse(400, "there must be one Host header");
    if (fields.encoded) {
        return fields.length ? refuse(400, "both Content-Length and Transfer-Encoding")
                             : refuse(501, "Transfer-Encoding is not spoken here");
    }
    if (fields.expects) return refuse(417, "Expect is not spoken here");
    const std::size_t length = fields.length.value_or(0);
    if (length > kMaxBody) return refuse(413, "the body is too long");
    const std::size_t body_at = head_end + kEndOfHead.size();
    if (all.size() - body_at < length) return std::optional<Request>();

    Request request{.method = std::string(line.substr(0, space)),
                    .target = std::string(line.substr(space + 1, second - space - 1)),
                    .body = std::string(all.substr(body_at, length)),
                    .last = fields.last};
    buffer_.erase(0, body_at + length);
    return std::optional(std::move(request));
}

std::string to_wire(const Response& response, bool last) {
    std::string text = "HTTP/1.1 " + std::to_string(response.status) + " ";
    text += reason_of(response.status);
    text += "\r\nContent-Type: application/json\r\nContent-Length: " +
            std::to_string(response.body.size()) + "\r\n";
    if (!response.allow.empty()) text += "Allow: " + response.allow + "\r\n";
    if (last) text += "Connection: close\r\n";
    return text + "\r\n" + response.body;
}

std::string to_wire(const Request& request) {
    std::string text = request.method + " " + request.target + " HTTP/1.1\r\nHost: xenolith\r\n";
    if (!request.body.empty()) {
        text += "Content-Type: application/json\r\nContent-Length: " +
                std::to_string(request.body.size()) + "\r\n";
    }
    if (request.last) text += "Connection: close\r\n";
    return text + "\r\n" + request.body;
}

vmm::Result<std::optional<Response>> read_response(std::string_view bytes) {
    const auto bad = [] { return vmm::internal_error("the answer is no HTTP/1.1 response"); };
    const auto head_end = bytes.substr(0, kMaxHead).find(kEndOfHead);
    if (head_end == std::string_view::npos) {
        if (bytes.size() >= kMaxHead) return bad();
        return std::optional<Response>();
    }
    const std::string_view head = bytes.substr(0, head_end + kEndOfLine.size());
    const auto line_end = head.find(kEndOfLine);
    constexpr std::string_view kStart = "HTTP/1.1 ";
    constexpr std::size_t kDigits = 3;
    if (!head.starts_with(kStart)) return bad();
    const auto status = to_length(head.substr(kStart.size(), kDigits));
    if (!status || *status < 100) return bad();
    const Fields fields = read_fields(head.substr(line_end + kEndOfLine.size()));
    if (fields.bad != nullptr || !fields.length || *fields.length > kMaxAnswer) return bad();
    const std::size_t body_at = head_end + kEndOfHead.size();
    if (bytes.size() - body_at < *fields.length) return std::optional<Response>();
    return std::optional(Response{.status = static_cast<int>(*status),
                                  .body = std::string(bytes.substr(body_at, *fields.length))});
}

}  // namespace control
