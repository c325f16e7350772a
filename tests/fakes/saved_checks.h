// What holds for every State (vmm/base/saved.h): it comes back equal, no byte of it may be missing,
// and its bytes are those that were committed (tests/golden/saved/NAME.hex), for others have files
// of them. XENOLITH_GOLDEN=write makes a file that is not there; none is ever made again.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include <gtest/gtest.h>

#include "tests/golden/folder.h"
#include "vmm/base/saved.h"

namespace fakes {

inline std::string to_hex(std::span<const std::byte> bytes) {
    constexpr std::size_t kPerLine = 32;
    std::string out;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        char digits[3];
        std::snprintf(digits, sizeof digits, "%02x", std::to_integer<unsigned>(bytes[i]));
        out += digits;
        if ((i + 1) % kPerLine == 0 || i + 1 == bytes.size()) out += '\n';
    }
    return out;
}

inline std::vector<std::byte> from_hex(std::istream& in) {
    std::vector<std::byte> out;
    char high, low;
    while (in >> high >> low) {
        out.push_back(static_cast<std::byte>(std::stoul(std::string{high, low}, nullptr, 16)));
    }
    return out;
}

// `name`: the section's, with what tells this state from others of it.
template <vmm::saved::State T>
void expect_saved(const T& state, const std::string& name) {
    const auto bytes = vmm::saved::encode(state);
    constexpr std::uint32_t kVersion = T::kSection.version;
    const auto back = vmm::saved::decode<T>(bytes, kVersion);
    ASSERT_TRUE(back) << name << ": " << back.error();
    EXPECT_TRUE(*back == state) << name << " comes back different";
    EXPECT_EQ(vmm::saved::encode(*back), bytes) << name;

    for (std::size_t length = 0; length < bytes.size(); ++length) {
        const auto cut = vmm::saved::decode<T>(std::span(bytes).first(length), kVersion);
        EXPECT_FALSE(cut) << name << " cut to " << length << " bytes is taken";
    }
    auto longer = bytes;
    longer.push_back({});
    EXPECT_FALSE(vmm::saved::decode<T>(longer, kVersion)) << name;
    EXPECT_FALSE(vmm::saved::decode<T>(bytes, kVersion + 1)) << name;
    EXPECT_FALSE(vmm::saved::decode<T>(bytes, 0)) << name;

    const std::string path =
        golden::file("saved/" + name + ".v" + std::to_string(kVersion) + ".hex");
    std::ifstream file(path);
    const char* mode = std::getenv("XENOLITH_GOLDEN");
    if (!file && mode != nullptr && std::string(mode) == "write") {
        std::ofstream(path) << to_hex(bytes);
        return;
    }
    ASSERT_TRUE(file) << "there is no " << path;
    EXPECT_EQ(to_hex(from_hex(file)), to_hex(bytes)) << name << " has other bytes than before";
}

}  // namespace fakes
