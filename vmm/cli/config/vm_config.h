// What one VM is made of, as the operator asked for it: the result of the command line and of a
// GUEST.cfg, every value checked. Nothing here knows KVM or Xen state, and no file but GUEST.cfg
// has been opened yet.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/base/result.h"

namespace vmm::config {

inline constexpr std::uint64_t kKiB = 1024;
inline constexpr std::uint64_t kMiB = 1024 * kKiB;
inline constexpr std::uint64_t kGiB = 1024 * kMiB;
inline constexpr std::uint64_t kTiB = 1024 * kGiB;

inline constexpr std::uint64_t kMinMemory = kMiB;
// Above this, a size is a slip of the pen: no x86 host that KVM runs on has that much.
inline constexpr std::uint64_t kMaxMemory = 16 * kTiB;
inline constexpr unsigned kMaxVcpus = 128;                  // as many as Xen gives an HVM guest
inline constexpr unsigned kMaxDomid = 0x7fef;               // from 0x7ff0 on, domids have a meaning
inline constexpr std::uint32_t kMinEventChannels = 2;       // the console's and xenstore's own
inline constexpr std::uint32_t kMaxEventChannels = 131072;  // what the FIFO ABI can express
inline constexpr std::uint32_t kDefaultEventChannels = 1023;
inline constexpr std::uint32_t kMaxGrantFrames = 4096;
inline constexpr std::uint32_t kCpuidBase = 0x40000000;

enum class GuestType { kPvh, kHvm };
enum class TransportChoice { kAuto, kKvmXen, kPortable };
// XenServer's legacy Windows drivers: what they need as the profile has it, always, or never.
enum class QuirkChoice { kAuto, kXenServer, kNone };
// What a guest may do that on Xen only another domain could: nothing, or (for testing) what its
// device model does.
enum class PrivilegeChoice { kNone, kDeviceModel };
enum class ShutdownAction { kDestroy, kRestart };

struct BootModule {
    std::string file;
    std::string cmdline;
    bool operator==(const BootModule&) const = default;
};

// Where long hypercalls are made to stop although there is no reason: after every so many units
// (0: not), and before these units, ascending.
struct PreemptChoice {
    std::uint32_t every = 0;
    std::vector<std::uint64_t> at;
    bool operator==(const PreemptChoice&) const = default;
};

using Uuid = std::array<std::uint8_t, 16>;

struct VmConfig {
    std::string name;          // empty: whoever makes the VM picks one
    std::optional<Uuid> uuid;  // absent: whoever makes the VM picks one
    std::uint16_t domid = 1;

    GuestType type = GuestType::kPvh;
    // Exactly one of the two is set. A kernel is what xl boots by its PVH entry; a firmware is an
    // ELF that an HVM guest gets in its firmware's place. image() is whichever it is.
    std::string kernel;
    std::string firmware;
    std::string ramdisk;              // the first module, as xl passes it
    std::vector<BootModule> modules;  // those of --module, in order, after the ramdisk
    // Of a guest that was restored: checksums of what it was booted from, in the order of image(),
    // ramdisk and modules. Empty: it was not said, or the guest has yet to boot.
    std::vector<std::uint64_t> boot_sums;
    std::string cmdline;

    std::uint64_t memory_bytes = 128 * kMiB;  // a multiple of 4 KiB
    unsigned vcpus = 1;
    bool acpi = true;

    std::string console_file;  // empty: stdio
    TransportChoice transport = TransportChoice::kAuto;
    std::string profile = "xen-4.17";
    QuirkChoice quirks = QuirkChoice::kAuto;
    PrivilegeChoice privileges = PrivilegeChoice::kNone;
    PreemptChoice preempt;
    std::uint32_t preempt_after_us = 100;  // the longest that a hypercall keeps its vCPU
    std::string cpu;  // a file that says what the guest's CPUs can do; empty: all that the host's
    std::uint32_t cpuid_base = kCpuidBase;
    std::uint32_t max_event_channels = kDefaultEventChannels;  // the highest port
    std::uint32_t max_grant_frames = 0;  // 0: as many as the profile's release allows

    ShutdownAction on_poweroff = ShutdownAction::kDestroy;
    ShutdownAction on_reboot = ShutdownAction::kDestroy;  // in a GUEST.cfg the default is restart
    ShutdownAction on_crash = ShutdownAction::kDestroy;
    ShutdownAction on_watchdog = ShutdownAction::kDestroy;

    const std::string& image() const { return firmware.empty() ? kernel : firmware; }
    bool operator==(const VmConfig&) const = default;
};

// What holds between the values: one image, firmware for HVM only.
Result<void> check_complete(const VmConfig& vm);

std::string_view to_string(GuestType type);
std::string_view to_string(TransportChoice transport);
std::string_view to_string(QuirkChoice quirks);
std::string_view to_string(PrivilegeChoice privileges);
std::string_view to_string(ShutdownAction action);

// Each takes the text of one value and answers the value, or an error that shows the text and says
// what is wrong with it; the caller puts the option's or key's name in front. Numbers are written
// as in xl: decimal, 0x for hexadecimal, a leading 0 for octal.
bool is_number(std::string_view text);
Result<std::uint64_t> parse_number(std::string_view text, std::uint64_t low, std::uint64_t high);
Result<std::uint64_t> parse_memory(std::string_view text);  // 128M, 2G, 1024K, 512 (MiB); in bytes
Result<unsigned> parse_vcpus(std::string_view text);
Result<std::uint16_t> parse_domid(std::string_view text);
Result<std::uint32_t> parse_event_channels(std::string_view text);
Result<std::uint32_t> parse_grant_frames(std::string_view text);
Result<std::uint32_t> parse_cpuid_base(std::string_view text);
Result<PreemptChoice> parse_preempt(std::string_view text);  // none, always, every:N, at:K[,K...]
Result<std::uint32_t> parse_preempt_after(std::string_view text);  // us
Result<std::string> parse_name(std::string_view text);
Result<std::string> parse_path(std::string_view text);
Result<std::string> parse_cpu(std::string_view text);      // host -> "", FILE
Result<std::string> parse_string(std::string_view text);   // any text without a NUL
Result<std::string> parse_console(std::string_view text);  // stdio -> "", file:PATH -> PATH
Result<BootModule> parse_module(std::string_view text);    // FILE[,CMDLINE]
Result<Uuid> parse_uuid(std::string_view text);
Result<GuestType> parse_guest_type(std::string_view text);
Result<TransportChoice> parse_transport(std::string_view text);
Result<QuirkChoice> parse_quirks(std::string_view text);
Result<PrivilegeChoice> parse_privileges(std::string_view text);
Result<ShutdownAction> parse_action(std::string_view text);
// The table of profiles lives in xenshim/abi, which this folder does not see: the caller brings
// the names.
Result<std::string> parse_profile(std::string_view text, std::span<const std::string_view> known);

}  // namespace vmm::config
