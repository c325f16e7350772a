// What of a VmConfig travels with a VM, and how it becomes one again at the other end.
//
// What belongs to a host stays there: the transport, and what the console is connected to. The
// files of the boot travel as names and checksums: a guest that restarts is read from them again if
// they are the same there. Others that have these names are nothing of the guest's, which would
// find them in its memory.
#pragma once

#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "vmm/base/saved.h"
#include "vmm/cli/config/vm_config.h"

namespace vmm::config {

// The dialect that the VM was born with: a stream's first record, for nothing after it can be read
// right without it.
struct ProfileState {
    static constexpr saved::Section kSection{"vm.profile", 1};

    std::string profile;
    std::string quirks;

    bool operator==(const ProfileState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [profile, quirks] = self;
        return std::tuple{saved::field(1, "profile", profile), saved::field(2, "quirks", quirks)};
    }
};

struct BootModuleState {
    std::string file;
    std::string cmdline;

    bool operator==(const BootModuleState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [file, cmdline] = self;
        return std::tuple{saved::field(1, "file", file), saved::field(2, "cmdline", cmdline)};
    }
};

// Choices stand there by their names on the command line.
struct ConfigState {
    static constexpr saved::Section kSection{"vm.config", 2};

    std::string name;
    Uuid uuid{};
    std::uint16_t domid = 0;
    std::string type;
    std::uint64_t memory_bytes = 0;
    std::uint32_t vcpus = 0;
    bool acpi = false;
    std::string privileges;
    std::uint32_t preempt_every = 0;
    std::vector<std::uint64_t> preempt_at;
    std::uint32_t preempt_after_us = 0;
    std::uint32_t cpuid_base = 0;
    std::uint32_t max_event_channels = 0;
    std::uint32_t max_grant_frames = 0;
    std::string on_poweroff;
    std::string on_reboot;
    std::string on_crash;
    std::string on_watchdog;
    std::string kernel;
    std::string firmware;
    std::string ramdisk;
    std::vector<BootModuleState> modules;
    std::string cmdline;
    std::string cpu;
    std::vector<std::uint64_t> boot_sums;

    bool operator==(const ConfigState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [name, uuid, domid, type, memory_bytes, vcpus, acpi, privileges, preempt_every,
               preempt_at, preempt_after_us, cpuid_base, max_event_channels, max_grant_frames,
               on_poweroff, on_reboot, on_crash, on_watchdog, kernel, firmware, ramdisk, modules,
               cmdline, cpu, boot_sums] = self;
        return std::tuple{saved::field(1, "name", name),
                          saved::field(2, "uuid", uuid),
                          saved::field(3, "domid", domid),
                          saved::field(4, "type", type),
                          saved::field(5, "memory_bytes", memory_bytes),
                          saved::field(6, "vcpus", vcpus),
                          saved::field(7, "acpi", acpi),
                          saved::field(8, "privileges", privileges),
                          saved::field(9, "preempt_every", preempt_every),
                          saved::field(10, "preempt_at", preempt_at),
                          saved::field(11, "preempt_after_us", preempt_after_us),
                          saved::field(12, "cpuid_base", cpuid_base),
                          saved::field(13, "max_event_channels", max_event_channels),
                          saved::field(14, "max_grant_frames", max_grant_frames),
                          saved::field(15, "on_poweroff", on_poweroff),
                          saved::field(16, "on_reboot", on_reboot),
                          saved::field(17, "on_crash", on_crash),
                          saved::field(18, "on_watchdog", on_watchdog),
                          saved::field(19, "kernel", kernel),
                          saved::field(20, "firmware", firmware),
                          saved::field(21, "ramdisk", ramdisk),
                          saved::field(22, "modules", modules),
                          saved::field(23, "cmdline", cmdline),
                          saved::field(24, "cpu", cpu),
                          saved::field(25, "boot_sums", boot_sums, saved::Since{2})};
    }
};

// Where the guest's memory is, apart from single pages outside (xen.physmap): a later version may
// lay a new guest out in another way.
struct MemoryRegionState {
    std::uint64_t gfn = 0;
    std::uint64_t pages = 0;

    bool operator==(const MemoryRegionState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [gfn, pages] = self;
        return std::tuple{saved::field(1, "gfn", gfn), saved::field(2, "pages", pages)};
    }
};

struct MemoryLayoutState {
    static constexpr saved::Section kSection{"vm.memory", 1};

    std::vector<MemoryRegionState> regions;  // ascending

    bool operator==(const MemoryLayoutState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [regions] = self;
        return std::tuple{saved::field(1, "regions", regions)};
    }

    // The reason names the region. All of them together may be so much larger than the RAM that was
    // asked for, for what else a guest has: pages of its toolstack's, tables.
    static constexpr std::uint64_t kMostBesideRam = std::uint64_t{64} << 20;
    Expected<void, std::string> check(std::uint64_t memory_bytes) const;
};

// A place in the guest's kernel where it makes hypercalls by an instruction of its own.
struct CallSiteState {
    std::uint64_t gpa = 0;
    bool vmcall = false;  // which of the two the kernel had there

    bool operator==(const CallSiteState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [gpa, vmcall] = self;
        return std::tuple{saved::field(1, "gpa", gpa), saved::field(2, "vmcall", vmcall)};
    }
};

struct CallSitesState {
    static constexpr saved::Section kSection{"vm.call_sites", 2};

    std::vector<CallSiteState> sites;
    // The linear address of one that was met and could not be noted (it crosses a page, or there
    // are too many); 0: none.
    std::uint64_t unknown = 0;

    bool operator==(const CallSitesState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [sites, unknown] = self;
        return std::tuple{saved::field(1, "sites", sites),
                          saved::field(2, "unknown", unknown, saved::Since{2})};
    }

    static constexpr std::size_t kMost = 1024;
    Expected<void, std::string> check() const;
    // Whether the guest can run where each of them has to be made to trap.
    Expected<void, std::string> check_portable() const;
};

ProfileState profile_state(const VmConfig& vm);
// Of a VM that has its name and its uuid.
ConfigState config_state(const VmConfig& vm);

// What a stream says is checked as what an operator types is; the reason names the field.
// `profiles`: those that this build knows.
Expected<VmConfig, std::string> config_of(const ProfileState& profile, const ConfigState& config,
                                          std::span<const std::string_view> profiles);

}  // namespace vmm::config
