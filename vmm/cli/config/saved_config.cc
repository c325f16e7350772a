#include "vmm/cli/config/saved_config.h"

#include <algorithm>
#include <array>
#include <cstdio>

namespace vmm::config {
namespace {

// The value that `parse` makes of it, or its reason with the field's name before it.
template <class T>
Expected<T, std::string> named(const char* field, Result<T> value) {
    if (!value) return Failure{std::string(field) + ": " + value.error().what};
    return *std::move(value);
}

Expected<void, std::string> in_range(const char* field, std::uint64_t value, std::uint64_t low,
                                     std::uint64_t high) {
    if (value >= low && value <= high) return {};
    return Failure{std::string(field) + ": " + std::to_string(value) + " is not from " +
                   std::to_string(low) + " to " + std::to_string(high)};
}

// A path or a command line: what C's interfaces take.
Expected<void, std::string> without_nul(const char* field, const std::string& text) {
    if (text.find('\0') == std::string::npos) return {};
    return Failure{std::string(field) + ": there is a NUL in it"};
}

}  // namespace

ProfileState profile_state(const VmConfig& vm) {
    return {.profile = vm.profile, .quirks = std::string(to_string(vm.quirks))};
}

ConfigState config_state(const VmConfig& vm) {
    ConfigState out{.name = vm.name,
                    .uuid = vm.uuid.value_or(Uuid{}),
                    .domid = vm.domid,
                    .type = std::string(to_string(vm.type)),
                    .memory_bytes = vm.memory_bytes,
                    .vcpus = vm.vcpus,
                    .acpi = vm.acpi,
                    .privileges = std::string(to_string(vm.privileges)),
                    .preempt_every = vm.preempt.every,
                    .preempt_at = vm.preempt.at,
                    .preempt_after_us = vm.preempt_after_us,
                    .cpuid_base = vm.cpuid_base,
                    .max_event_channels = vm.max_event_channels,
                    .max_grant_frames = vm.max_grant_frames,
                    .on_poweroff = std::string(to_string(vm.on_poweroff)),
                    .on_reboot = std::string(to_string(vm.on_reboot)),
                    .on_crash = std::string(to_string(vm.on_crash)),
                    .on_watchdog = std::string(to_string(vm.on_watchdog)),
                    .kernel = vm.kernel,
                    .firmware = vm.firmware,
                    .ramdisk = vm.ramdisk,
                    .modules = {},
                    .cmdline = vm.cmdline,
                    .cpu = vm.cpu,
                    .boot_sums = vm.boot_sums};
    for (const BootModule& module : vm.modules) {
        out.modules.push_back({.file = module.file, .cmdline = module.cmdline});
    }
    return out;
}

Expected<VmConfig, std::string> config_of(const ProfileState& profile, const ConfigState& config,
                                          std::span<const std::string_view> profiles) {
    VmConfig out;
    out.profile = TRY(named("profile", parse_profile(profile.profile, profiles)));
    out.quirks = TRY(named("quirks", parse_quirks(profile.quirks)));
    out.name = TRY(named("name", parse_name(config.name)));
    out.uuid = config.uuid;
    TRY(in_range("domid", config.domid, 1, kMaxDomid));
    out.domid = config.domid;
    out.type = TRY(named("type", parse_guest_type(config.type)));
    TRY(in_range("memory_bytes", config.memory_bytes, kMinMemory, kMaxMemory));
    if (config.memory_bytes % (4 * kKiB) != 0) {
        return Failure{std::string("memory_bytes: not whole pages")};
    }
    out.memory_bytes = config.memory_bytes;
    TRY(in_range("vcpus", config.vcpus, 1, kMaxVcpus));
    out.vcpus = config.vcpus;
    out.acpi = config.acpi;
    out.privileges = TRY(named("privileges", parse_privileges(config.privileges)));
    if (!std::ranges::is_sorted(config.preempt_at)) {
        return Failure{std::string("preempt_at: not in ascending order")};
    }
    out.preempt = {.every = config.preempt_every, .at = config.preempt_at};
    TRY(named("preempt_after_us", parse_preempt_after(std::to_string(config.preempt_after_us))));
    out.preempt_after_us = config.preempt_after_us;
    TRY(named("cpuid_base", parse_cpuid_base(std::to_string(config.cpuid_base))));
    out.cpuid_base = config.cpuid_base;
    TRY(in_range("max_event_channels", config.max_event_channels, kMinEventChannels,
                 kMaxEventChannels));
    out.max_event_channels = config.max_event_channels;
    TRY(in_range("max_grant_frames", config.max_grant_frames, 0, kMaxGrantFrames));
    out.max_grant_frames = config.max_grant_frames;
    out.on_poweroff = TRY(named("on_poweroff", parse_action(config.on_poweroff)));
    out.on_reboot = TRY(named("on_reboot", parse_action(config.on_reboot)));
    out.on_crash = TRY(named("on_crash", parse_action(config.on_crash)));
    out.on_watchdog = TRY(named("on_watchdog", parse_action(config.on_watchdog)));
    TRY(without_nul("kernel", config.kernel));
    TRY(without_nul("firmware", config.firmware));
    TRY(without_nul("ramdisk", config.ramdisk));
    TRY(without_nul("cmdline", config.cmdline));
    TRY(without_nul("cpu", config.cpu));
    out.kernel = config.kernel;
    out.firmware = config.firmware;
    out.ramdisk = config.ramdisk;
    out.cmdline = config.cmdline;
    out.cpu = config.cpu;
    out.boot_sums = config.boot_sums;
    for (const BootModuleState& module : config.modules) {
        TRY(without_nul("modules.file", module.file));
        TRY(without_nul("modules.cmdline", module.cmdline));
        out.modules.push_back({.file = module.file, .cmdline = module.cmdline});
    }
    if (const auto complete = check_complete(out); !complete) {
        return Failure{complete.error().what};
    }
    return out;
}

Expected<void, std::string> MemoryLayoutState::check(std::uint64_t memory_bytes) const {
    constexpr std::uint64_t kPage = 4096;
    constexpr std::uint64_t kEndOfFrames = std::uint64_t{1} << 40;  // 52-bit addresses
    constexpr std::size_t kMostRegions = 64;
    if (regions.empty() || regions.front().gfn != 0) {
        return Failure{std::string("regions: there is no memory at 0")};
    }
    if (regions.size() > kMostRegions) return Failure{std::string("regions: too many of them")};
    std::uint64_t end = 0;
    std::uint64_t left = (memory_bytes + kMostBesideRam) / kPage;
    for (std::size_t i = 0; i < regions.size(); ++i) {
        const auto& [gfn, pages] = regions[i];
        const std::string name = "regions[" + std::to_string(i) + "]: ";
        if (pages == 0) return Failure{name + "it is empty"};
        if (gfn < end) return Failure{name + "it does not follow the one before it"};
        if (gfn >= kEndOfFrames || pages > kEndOfFrames - gfn) {
            return Failure{name + "it is beyond any processor's addresses"};
        }
        if (pages > left) return Failure{name + "more memory than the guest was given"};
        left -= pages;
        end = gfn + pages;
    }
    return {};
}

Expected<void, std::string> CallSitesState::check() const {
    if (sites.size() > kMost) return Failure{std::string("sites: too many of them")};
    return {};
}

Expected<void, std::string> CallSitesState::check_portable() const {
    if (unknown == 0) return {};
    std::array<char, 20> address{};
    std::snprintf(address.data(), address.size(), "0x%llx",
                  static_cast<unsigned long long>(unknown));
    return Failure{std::string("the guest makes hypercalls by an instruction of its own at ") +
                   address.data() +
                   ", which could not be made to trap on a host without Xen in KVM"};
}

}  // namespace vmm::config
