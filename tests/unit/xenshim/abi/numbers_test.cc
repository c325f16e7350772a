// Names of Xen's public headers have Xen's values (tests/golden/abi_numbers.inc).
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "xenshim/abi/errno.h"
#include "xenshim/abi/numbers.h"

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
        const std::string text{std::istreambuf_iterator<char>(in), {}};
        ASSERT_FALSE(text.empty()) << file;
        const std::regex name("\\b([A-Z][A-Za-z0-9_]*) = [0-9]");
        for (std::sregex_iterator at(text.begin(), text.end(), name), end; at != end; ++at) {
            EXPECT_TRUE(compared.contains((*at)[1])) << (*at)[1] << ": run golden/make_abi_layout";
        }
    }
}

}  // namespace
}  // namespace xenshim::abi
