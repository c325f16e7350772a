// What of a vCPU's saved state is the transport's, and how time is accounted from one transport to
// the other.
#include "xenshim/transport/vcpu_moved.h"

#include <numeric>

#include <gtest/gtest.h>

#include "tests/fakes/saved_checks.h"

namespace xenshim {
namespace {

std::uint64_t sum(const Runstate& r) {
    return std::accumulate(r.time_ns.begin(), r.time_ns.end(), std::uint64_t{0});
}

Runstate account(std::uint32_t state) {
    return {.state = state, .since_ns = 1000, .time_ns = {400, 300, 200, 100}};
}

TEST(VcpuWaitState, ComesBackFromItsBytes) {
    fakes::expect_saved(VcpuWaitState{.waits = true, .deadline_ns = 123456789}, "xen.wait");
    fakes::expect_saved(VcpuWaitState{}, "xen.wait-none");
}

TEST(HostsTimes, AreTakenWithTheDomainsState) {
    const vmm::kvm::XenRunstate hosts{.state = 1, .since_ns = 900, .time_ns = {500, 400, 0, 0}};
    const Runstate out = with_hosts_times(account(Runstate::kBlocked), hosts, 1200);
    EXPECT_EQ(out.state, Runstate::kBlocked);
    EXPECT_EQ(out.since_ns, 1200u);
    EXPECT_EQ(out.time_ns, (std::array<std::uint64_t, 4>{500, 700, 0, 0}));
    EXPECT_EQ(sum(out), out.since_ns);
}

TEST(HostsTimes, AHostAheadOfOurClockIsBelieved) {
    const vmm::kvm::XenRunstate hosts{.state = 0, .since_ns = 1300, .time_ns = {1300, 0, 0, 0}};
    const Runstate out = with_hosts_times(account(Runstate::kRunning), hosts, 1200);
    EXPECT_EQ(out.since_ns, 1300u);
    EXPECT_EQ(sum(out), out.since_ns);
}

}  // namespace
}  // namespace xenshim
