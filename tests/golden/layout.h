// Reads abi_layout.tsv: where things lie in Xen's structures, as its public headers have them.
#pragma once

#include <cstdint>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <utility>

#include "tests/golden/folder.h"

namespace golden {

struct Place {
    std::uint64_t at_32 = 0;
    std::uint64_t at_64 = 0;
    bool operator==(const Place&) const = default;
};
// By structure and member; "sizeof" is a member too.
using Layout = std::map<std::pair<std::string, std::string>, Place>;

inline Layout read_layout() {
    Layout out;
    std::ifstream in(file("abi_layout.tsv"));
    for (std::string line; std::getline(in, line);) {
        if (line.empty() || line[0] == '#') continue;
        std::istringstream fields(line);
        std::string name, member;
        Place place;
        fields >> name >> member >> place.at_32 >> place.at_64;
        out[{name, member}] = place;
    }
    return out;
}

}  // namespace golden
