// Errors, permissions and paths, as the wire has them.
#include <algorithm>
#include <array>
#include <charconv>

#include "xenshim/domain/xenstore/store.h"

namespace xenshim::xenstore {

using vmm::Failure;

const char* error_name(StoreError error) {
    switch (error) {
        case StoreError::kEinval: return "EINVAL";
        case StoreError::kEacces: return "EACCES";
        case StoreError::kEexist: return "EEXIST";
        case StoreError::kEisdir: return "EISDIR";
        case StoreError::kEnoent: return "ENOENT";
        case StoreError::kEnomem: return "ENOMEM";
        case StoreError::kEnospc: return "ENOSPC";
        case StoreError::kEio: return "EIO";
        case StoreError::kEnotempty: return "ENOTEMPTY";
        case StoreError::kEnosys: return "ENOSYS";
        case StoreError::kErofs: return "EROFS";
        case StoreError::kEbusy: return "EBUSY";
        case StoreError::kEagain: return "EAGAIN";
        case StoreError::kEisconn: return "EISCONN";
        case StoreError::kE2big: return "E2BIG";
        case StoreError::kEperm: return "EPERM";
    }
    return "EINVAL";
}

std::string format_permission(Permission permission) {
    static constexpr std::array<char, 4> kLetters = {'n', 'r', 'w', 'b'};
    const char letter = kLetters[static_cast<std::size_t>(permission.access) & 3];
    return letter + std::to_string(permission.domid);
}

std::optional<Permission> parse_permission(std::string_view text) {
    static constexpr std::string_view kLetters = "nrwb";
    if (text.size() < 2) return std::nullopt;
    const auto letter = kLetters.find(text.front());
    if (letter == std::string_view::npos) return std::nullopt;
    DomainId domid = 0;
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data() + 1, end, domid);
    if (parsed.ec != std::errc{} || parsed.ptr != end) return std::nullopt;
    return Permission{domid, static_cast<Access>(letter)};
}

std::string domain_path(DomainId domid) {
    return "/local/domain/" + std::to_string(domid);
}

static bool valid_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '/' || c == '_' || c == '@';
}

StoreResult<std::string> absolute_path(DomainId domid, std::string_view path) {
    const Failure invalid{StoreError::kEinval};
    if (path.empty()) return invalid;
    // A leading @ names a special watch, never a node.
    if (path.front() == '@') return invalid;
    if (!std::all_of(path.begin(), path.end(), valid_char)) return invalid;
    if (path.find("//") != std::string_view::npos) return invalid;
    if (path.back() == '/' && path != "/") return invalid;
    if (path.front() == '/') {
        if (path.size() > kAbsolutePathMax) return invalid;
        return std::string(path);
    }
    // The limit holds for what the client sent, before the prefix (XSA-323 was about this).
    if (path.size() > kRelativePathMax) return invalid;
    return domain_path(domid) + "/" + std::string(path);
}

}  // namespace xenshim::xenstore
