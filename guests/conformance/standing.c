// Whether a guest that was paused finds the pause in its runstate: as time offline, and all of its
// time in one state or another.

#include "test.h"

#define MS 1000000ull
// For how long whoever runs this guest pauses it, at least.
#define PAUSED (200 * MS)
// How far the clocks of a hypervisor and a guest may be apart, and what a slow host needs between
// the one and the other.
#define NEAR (20 * MS)

static volatile struct vcpu_runstate_info area __attribute__((aligned(64)));

static uint64_t total(void) {
    return area.time[0] + area.time[1] + area.time[2] + area.time[3];
}

static void paused(void) {
    struct vcpu_register_runstate_memory_area arg;
    set_xen_guest_handle(arg.addr.h, (struct vcpu_runstate_info*)&area);
    EXPECT_RESULT(vcpu_op(VCPUOP_register_runstate_memory_area, 0, &arg), 0);
    uint64_t before = area.time[RUNSTATE_offline];
    uint64_t begin = xen_time();
    print("ready\n");
    CHECK(WAIT_UNTIL(area.time[RUNSTATE_offline] >= before + PAUSED, PATIENCE_MS));
    uint64_t end = xen_time();
    expect("state", area.state, RUNSTATE_running);
    CHECK(area.time[RUNSTATE_offline] - before <= end - begin);
    // Up to when the state began.
    CHECK(total() <= area.state_entry_time + NEAR);
    CHECK(total() + NEAR >= area.state_entry_time);
    CHECK(area.state_entry_time <= end);
}

TESTS({"standing.paused", paused});
