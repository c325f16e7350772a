// Names of Xen's public headers have Xen's values (tests/golden/abi_numbers.inc).
#include "xenshim/abi/numbers.h"

#include <cctype>
#include <fstream>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "tests/golden/folder.h"
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

    const std::string folder = golden::file("../../xenshim/abi/");
    for (const char* file : {"numbers.h", "errno.h"}) {
        std::ifstream in(folder + file);
        // NAME = 1, or -1; ours begin with k.
        std::string name, sign, value;
        std::size_t names = 0;
        for (; in >> value; name = sign, sign = value) {
            const bool is_number =
                std::isdigit(static_cast<unsigned char>(value[0])) != 0 || value[0] == '-';
            if (sign != "=" || !is_number || name[0] < 'A' || name[0] > 'Z') continue;
            ++names;
            EXPECT_TRUE(compared.contains(name)) << name << ": run golden/make_abi_layout";
        }
        EXPECT_GT(names, 20u) << file;
    }
}

}  // namespace
}  // namespace xenshim::abi
