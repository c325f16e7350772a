#include "migration/format/sink.h"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <vector>

#include <sys/uio.h>

namespace migration::format {

vmm::Result<void> FdSink::append(std::span<const Piece> pieces) {
    std::vector<iovec> left;
    left.reserve(pieces.size());
    for (const Piece& piece : pieces) {
        // writev() takes what it may not write as well.
        left.push_back({const_cast<std::byte*>(piece.data()), piece.size()});
    }
    for (std::size_t at = 0; at < left.size();) {
        const auto count = static_cast<int>(std::min<std::size_t>(left.size() - at, IOV_MAX));
        const ssize_t n = ::writev(fd_, &left[at], count);
        if (n < 0) {
            if (errno == EINTR) continue;
            return vmm::errno_error(name_, vmm::Fault::kHost);
        }
        auto written = static_cast<std::size_t>(n);
        while (at < left.size() && written >= left[at].iov_len) {
            written -= left[at++].iov_len;
        }
        if (at < left.size()) {
            left[at].iov_base = static_cast<std::byte*>(left[at].iov_base) + written;
            left[at].iov_len -= written;
        }
    }
    return {};
}

}  // namespace migration::format
