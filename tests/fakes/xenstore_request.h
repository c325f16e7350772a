// A request as a guest puts it on xenstore's ring: the header (Xen's io/xs_wire.h), then the
// payload.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "xenshim/domain/xenstore/wire.h"

namespace xenshim::xenstore {

inline std::string request(MessageType type, std::string_view payload, std::uint32_t tx_id = 0,
                           std::uint32_t req_id = 7) {
    const MessageHeader header{static_cast<std::uint32_t>(type), req_id, tx_id,
                               static_cast<std::uint32_t>(payload.size())};
    std::string bytes(sizeof(header), '\0');
    std::memcpy(bytes.data(), &header, sizeof(header));
    return bytes + std::string(payload);
}

}  // namespace xenshim::xenstore
