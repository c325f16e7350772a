// A VM's configuration in a stream: it comes back, and what nobody could have typed is refused.
#include "vmm/cli/config/saved_config.h"

#include <fstream>
#include <functional>

#include <gtest/gtest.h>

#include "tests/fakes/saved_checks.h"
#include "tests/golden/folder.h"

namespace vmm::config {
namespace {

constexpr std::string_view kProfiles[] = {"xen-3.4", "xen-4.17"};

VmConfig example() {
    VmConfig vm;
    vm.name = "old-server";
    vm.uuid = Uuid{1, 2, 3, 4, 5, 6, 0x47, 8, 0x89, 10, 11, 12, 13, 14, 15, 16};
    vm.domid = 7;
    vm.type = GuestType::kHvm;
    vm.firmware = "/boot/hvmloader";
    vm.modules = {{"/boot/a", "with words"}, {"/boot/b", ""}};
    vm.cmdline = "console=hvc0";
    vm.cpu = "/etc/pool.cpu";
    vm.memory_bytes = 3 * kGiB;
    vm.vcpus = 4;
    vm.acpi = false;
    vm.profile = "xen-3.4";
    vm.quirks = QuirkChoice::kXenServer;
    vm.privileges = PrivilegeChoice::kDeviceModel;
    vm.preempt = {.every = 3, .at = {1, 5, 5000000000}};
    vm.preempt_after_us = 250;
    vm.cpuid_base = 0x40000100;
    vm.max_event_channels = 4095;
    vm.max_grant_frames = 32;
    vm.on_reboot = ShutdownAction::kRestart;
    vm.boot_sums = {0x123456789abcdef0, 1};
    return vm;
}

TEST(SavedConfig, ComesBack) {
    const VmConfig vm = example();
    fakes::expect_saved(profile_state(vm), "vm.profile");
    fakes::expect_saved(config_state(vm), "vm.config");
    const auto back = config_of(profile_state(vm), config_state(vm), kProfiles);
    ASSERT_TRUE(back) << back.error();
    EXPECT_EQ(*back, vm);
}

// Before anybody asked what the guest had been booted from.
TEST(SavedConfig, ComesBackOfVersion1) {
    std::ifstream file(golden::file("saved/vm.config.v1.hex"));
    const auto old = saved::decode<ConfigState>(::fakes::from_hex(file), 1);
    ASSERT_TRUE(old) << old.error();
    VmConfig expected = example();
    expected.boot_sums.clear();
    EXPECT_EQ(*old, config_state(expected));
}

// The transport and the console are the host's.
TEST(SavedConfig, LeavesWhatBelongsToAHost) {
    VmConfig vm = example();
    vm.transport = TransportChoice::kPortable;
    vm.console_file = "/tmp/console";
    const auto back = config_of(profile_state(vm), config_state(vm), kProfiles);
    ASSERT_TRUE(back) << back.error();
    EXPECT_EQ(*back, example());
}

TEST(SavedConfig, WhatNobodyCouldHaveTypedIsRefused) {
    using Change = std::function<void(ProfileState&, ConfigState&)>;
    const std::pair<const char*, Change> cases[] = {
        {"profile", [](ProfileState& p, ConfigState&) { p.profile = "xen-9"; }},
        {"quirks", [](ProfileState& p, ConfigState&) { p.quirks = "some"; }},
        {"name", [](ProfileState&, ConfigState& c) { c.name = "../x"; }},
        {"name", [](ProfileState&, ConfigState& c) { c.name.clear(); }},
        {"domid", [](ProfileState&, ConfigState& c) { c.domid = 0; }},
        {"domid", [](ProfileState&, ConfigState& c) { c.domid = 0x7ff0; }},
        {"type", [](ProfileState&, ConfigState& c) { c.type = "pv"; }},
        {"memory_bytes", [](ProfileState&, ConfigState& c) { c.memory_bytes = 0; }},
        {"memory_bytes", [](ProfileState&, ConfigState& c) { c.memory_bytes += 1; }},
        {"memory_bytes", [](ProfileState&, ConfigState& c) { c.memory_bytes = ~0ull << 12; }},
        {"vcpus", [](ProfileState&, ConfigState& c) { c.vcpus = 0; }},
        {"vcpus", [](ProfileState&, ConfigState& c) { c.vcpus = 129; }},
        {"privileges", [](ProfileState&, ConfigState& c) { c.privileges = "all"; }},
        {"preempt_at",
         [](ProfileState&, ConfigState& c) {
             c.preempt_at = {2, 1};
         }},
        {"cpuid_base", [](ProfileState&, ConfigState& c) { c.cpuid_base = 0x40000001; }},
        {"max_event_channels", [](ProfileState&, ConfigState& c) { c.max_event_channels = 1; }},
        {"max_event_channels",
         [](ProfileState&, ConfigState& c) { c.max_event_channels = 0xffffffff; }},
        {"max_grant_frames", [](ProfileState&, ConfigState& c) { c.max_grant_frames = 4097; }},
        {"on_poweroff", [](ProfileState&, ConfigState& c) { c.on_poweroff = "preserve"; }},
        {"on_reboot", [](ProfileState&, ConfigState& c) { c.on_reboot.clear(); }},
        {"on_crash", [](ProfileState&, ConfigState& c) { c.on_crash = "x"; }},
        {"on_watchdog", [](ProfileState&, ConfigState& c) { c.on_watchdog = "x"; }},
        {"cmdline", [](ProfileState&, ConfigState& c) { c.cmdline += '\0'; }},
        {"cpu", [](ProfileState&, ConfigState& c) { c.cpu += '\0'; }},
        {"firmware", [](ProfileState&, ConfigState& c) { c.firmware += '\0'; }},
        {"modules.file", [](ProfileState&, ConfigState& c) { c.modules[1].file += '\0'; }},
        {"no kernel", [](ProfileState&, ConfigState& c) { c.firmware.clear(); }},
    };
    for (const auto& [field, change] : cases) {
        ProfileState profile = profile_state(example());
        ConfigState config = config_state(example());
        change(profile, config);
        const auto refused = config_of(profile, config, kProfiles);
        ASSERT_FALSE(refused) << field;
        EXPECT_EQ(refused.error().substr(0, std::string(field).size()), field) << refused.error();
    }
}

TEST(SavedConfig, MemoryAndCallSitesComeBack) {
    const MemoryLayoutState layout{.regions = {{0, 0x8000}, {0xfc000, 9}, {0x100000, 0x40}}};
    fakes::expect_saved(layout, "vm.memory");
    EXPECT_TRUE(layout.check(256 * kMiB));
    const CallSitesState sites{.sites = {{0x1000123, true}, {0x1000130, false}},
                               .unknown = 0xffffffff81000ffe};
    fakes::expect_saved(sites, "vm.call_sites");
    EXPECT_TRUE(sites.check());
}

TEST(SavedConfig, MemoryThatNoMachineHasIsRefused) {
    constexpr std::uint64_t kEnd = std::uint64_t{1} << 40;
    const std::vector<std::vector<MemoryRegionState>> cases = {
        {},
        {{1, 10}},                                          // nothing at 0
        {{0, 0}},                                           // empty
        {{0, 10}, {9, 1}},                                  // over the one before
        {{0, 10}, {20, 1}, {15, 1}},                        // not ascending
        {{0, 1}, {kEnd, 1}},                                // beyond any processor
        {{0, 1}, {kEnd - 1, 2}},                            // ends there
        {{0, 1}, {~0ull, ~0ull}},                           // and where a sum would wrap
        {{0, 256 * kMiB / 4096 + (64 * kMiB) / 4096 + 1}},  // more than it was given
        std::vector<MemoryRegionState>(65, {0, 1}),
    };
    for (const auto& regions : cases) {
        const auto good = MemoryLayoutState{.regions = regions}.check(256 * kMiB);
        ASSERT_FALSE(good) << regions.size();
        EXPECT_TRUE(good.error().starts_with("regions")) << good.error();
    }
    EXPECT_FALSE(CallSitesState{.sites = std::vector<CallSiteState>(1025)}.check());
    EXPECT_TRUE((CallSitesState{.sites = {{0x1000123, true}}}.check_portable()));
    const auto portable = CallSitesState{.sites = {}, .unknown = 0x81000ffe}.check_portable();
    ASSERT_FALSE(portable);
    EXPECT_NE(portable.error().find("0x81000ffe"), std::string::npos);
}

}  // namespace
}  // namespace vmm::config
