// Names of Xen's public headers have Xen's values (tests/golden/abi_numbers.inc).
#include "xenshim/abi/numbers.h"

#include <fstream>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "xenshim/abi/errno.h"

namespace xenshim::abi {
namespace {

TEST(Numbers, AreThoseOfXensHeaders) {
#define NUMBER(name, value) EXPECT_EQ(static_cast<long long>(name), value##LL) << #name;
#include "tests/golden/abi_numbers.inc"
#undef NUMBER
}

TEST(Numbers, EveryNameIsCompared) {
    std::set<std::string> compared;
#define NUMBER(name, value) compared.insert(#name);
#include "tests/golden/abi_numbers.inc"
#undef NUMBER
    // Xen's own, not in the public headers: the sub-op under which it continues a reset.
    EXPECT_EQ(EVTCHNOP_reset_cont, 14u);
    compared.insert("EVTCHNOP_reset_cont");

    const std::string folder = std::string(XENOLITH_GOLDEN) + "/../../xenshim/abi/";
    for (const char* file : {"numbers.h", "errno.h"}) {
        std::ifstream in(folder + file);
        // NAME = 1: ours begin with k, and comments hold no equals signs.
        std::string word;
        std::size_t names = 0;
        for (std::string last; in >> word; last = word) {
            if (word != "=" || last.empty() || last[0] < 'A' || last[0] > 'Z') continue;
            ++names;
            EXPECT_TRUE(compared.contains(last)) << last << ": run golden/make_abi_layout";
        }
        EXPECT_GT(names, 20u) << file;
    }
}

}  // namespace
}  // namespace xenshim::abi
