#include "vmm/cli/config/exit_status.h"

#include <gtest/gtest.h>

namespace vmm::config {
namespace {

TEST(ExitStatus, OfEachFault) {
    EXPECT_EQ(to_int(exit_status_of(Fault::kUser)), 2);
    EXPECT_EQ(to_int(exit_status_of(Fault::kInternal)), 3);
    EXPECT_EQ(to_int(exit_status_of(Fault::kHost)), 4);
}

}  // namespace
}  // namespace vmm::config
