#include "vmm/cli/config/xlcfg.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <fcntl.h>
#include <iterator>
#include <optional>
#include <unistd.h>

#include <sys/stat.h>

#include "vmm/base/fd.h"
#include "vmm/cli/config/text.h"

namespace vmm::config {
namespace {

using Profiles = std::span<const std::string_view>;

// One setting, read as what its key wants. Errors name file, line and key.
class Reader {
  public:
    Reader(const XlFile& file, const XlSetting& setting) : file_(&file), setting_(&setting) {}

    std::string place() const {
        return file_->path + ":" + std::to_string(setting_->line) + ": " + setting_->key;
    }
    Failure<Error> refuse(const std::string& what) const {
        return user_error(place() + ": " + what);
    }

    // A single value. A number does for a string and a string for a number, as in xl.
    Result<std::string_view> single() const { return single(setting_->value); }

    template <class Parse>
    auto parse(Parse parse_text) const -> decltype(parse_text(std::string_view())) {
        auto value = parse_text(TRY(single()));
        if (!value) return refuse(value.error().what);
        return value;
    }

    Result<bool> boolean() const {
        return TRY(parse([](auto text) { return parse_number(text, 0, UINT64_MAX); })) != 0;
    }

    Result<std::vector<BootModule>> modules() const {
        const auto* const list = std::get_if<XlList>(&setting_->value.data);
        if (list == nullptr) return refuse("a list of \"FILE,CMDLINE\" is wanted");
        std::vector<BootModule> modules;
        modules.reserve(list->size());
        for (const XlValue& item : *list) {
            auto module = parse_module(TRY(single(item)));
            if (!module) return refuse(module.error().what);
            modules.push_back(*std::move(module));
        }
        return modules;
    }

    // True of 0, "", "0", "none" and []: how a file says that it does not want something.
    bool is_off() const {
        if (const auto* const list = std::get_if<XlList>(&setting_->value.data)) {
            return list->empty();
        }
        const auto text = single();
        return *text == "0" || text->empty() || *text == "none";
    }

  private:
    Result<std::string_view> single(const XlValue& value) const {
        if (const auto* const text = std::get_if<std::string>(&value.data)) {
            return std::string_view(*text);
        }
        if (const auto* const number = std::get_if<XlValue::Number>(&value.data)) {
            return std::string_view(number->text);
        }
        return refuse("a single value is wanted, not a list");
    }

    const XlFile* file_;
    const XlSetting* setting_;
};

// A key that stands for one value and needs no other key.
struct SimpleKey {
    std::string_view key;
    Result<void> (*apply)(const Reader& from, Profiles profiles, VmConfig& vm);
};

// libxl takes 0 for "the usual number".
Result<std::uint32_t> event_channels_of_file(std::string_view text) {
    if (text == "0") return kDefaultEventChannels;
    return parse_event_channels(text);
}

#define XENOLITH_SIMPLE_KEY(key, member, parse_text)                          \
    SimpleKey {                                                               \
        key, [](const Reader& from, Profiles, VmConfig& vm) -> Result<void> { \
            vm.member = TRY(from.parse(parse_text));                          \
            return {};                                                        \
        }                                                                     \
    }

constexpr std::array kSimpleKeys{
    XENOLITH_SIMPLE_KEY("name", name, parse_name),
    XENOLITH_SIMPLE_KEY("uuid", uuid, parse_uuid),
    XENOLITH_SIMPLE_KEY("ramdisk", ramdisk, parse_string),
    XENOLITH_SIMPLE_KEY("memory", memory_bytes, parse_memory),
    XENOLITH_SIMPLE_KEY("vcpus", vcpus, parse_vcpus),
    XENOLITH_SIMPLE_KEY("on_poweroff", on_poweroff, parse_action),
    XENOLITH_SIMPLE_KEY("on_reboot", on_reboot, parse_action),
    XENOLITH_SIMPLE_KEY("on_crash", on_crash, parse_action),
    XENOLITH_SIMPLE_KEY("on_watchdog", on_watchdog, parse_action),
    XENOLITH_SIMPLE_KEY("max_event_channels", max_event_channels, event_channels_of_file),
    XENOLITH_SIMPLE_KEY("max_grant_frames", max_grant_frames, parse_grant_frames),
    // Ours; xl does not know them.
    XENOLITH_SIMPLE_KEY("domid", domid, parse_domid),
    XENOLITH_SIMPLE_KEY("console", console_file, parse_console),
    XENOLITH_SIMPLE_KEY("transport", transport, parse_transport),
    XENOLITH_SIMPLE_KEY("quirks", quirks, parse_quirks),
    XENOLITH_SIMPLE_KEY("privileges", privileges, parse_privileges),
    XENOLITH_SIMPLE_KEY("preempt", preempt, parse_preempt),
    XENOLITH_SIMPLE_KEY("preempt_after", preempt_after_us, parse_preempt_after),
    XENOLITH_SIMPLE_KEY("cpu", cpu, parse_cpu),
    XENOLITH_SIMPLE_KEY("cpuid_base", cpuid_base, parse_cpuid_base),
    SimpleKey{"abi_profile",
              [](const Reader& from, Profiles profiles, VmConfig& vm) -> Result<void> {
                  vm.profile =
                      TRY(from.parse([&](auto text) { return parse_profile(text, profiles); }));
                  return {};
              }},
    SimpleKey{"acpi",
              [](const Reader& from, Profiles, VmConfig& vm) -> Result<void> {
                  vm.acpi = TRY(from.boolean());
                  return {};
              }},
    SimpleKey{"modules",
              [](const Reader& from, Profiles, VmConfig& vm) -> Result<void> {
                  vm.modules = TRY(from.modules());
                  return {};
              }},
};
#undef XENOLITH_SIMPLE_KEY

// Keys whose meaning depends on other keys: resolve_*() below.
constexpr std::string_view kJoinedKeys[] = {
    "type", "builder", "kernel", "firmware", "firmware_override", "cmdline",
    "root", "extra",   "maxmem", "maxvcpus", "on_soft_reset"};

// clang-format off

// What xl has and we have not yet. Where switching a thing off is exactly what we do, saying so in
// a file deserves no warning.
constexpr std::string_view kOffIsFine[] = {
    "acpi_s3", "acpi_s4", "altp2m", "altp2mhvm", "cap", "channel",
    "device_model_stubdomain_override", "disk", "driver_domain", "dtdev", "e820_host",
    "gfx_passthru", "hpet", "iomem", "ioports", "irqs", "localtime", "ms_vm_genid", "nestedhvm",
    "nomigrate", "p9", "pci", "pvcalls", "pvshim", "rdm", "rtc_timeoffset", "sdl", "serial",
    "spice", "stdvga", "usb", "usbdevice", "vfb", "vga", "vif", "viridian", "vkb", "vnc",
    "xen_platform_pci"};
constexpr std::string_view kUnsupported[] = {
    "acpi_firmware", "acpi_laptop_slate", "apic", "assisted_x2apic", "assisted_xapic", "bios",
    "bios_path_override", "boot", "bootloader", "bootloader_args", "bootloader_restrict",
    "bootloader_user", "budget", "cpu_weight", "cpuid", "cpus", "cpus_soft", "device_model",
    "device_model_args", "device_model_args_hvm", "device_model_args_pv", "device_model_override",
    "device_model_stubdomain_seclabel", "device_model_user", "device_model_version", "device_tree",
    "display", "dm_restrict", "extratime", "gic_version", "hap", "hdtype", "hvm_pirq",
    "init_seclabel", "keymap", "latency", "llc_colors", "max_grant_version", "max_maptrack_frames",
    "mca_caps", "mmio_hole", "msr_relaxed", "nr_spis", "nx", "oos", "opengl", "pae", "passthrough",
    "pci_msitranslate", "pci_permissive", "pci_power_mgmt", "pci_seize", "period", "pool",
    "pvshim_cmdline", "pvshim_extra", "pvshim_path", "rdm_mem_boundary", "seclabel",
    "shadow_memory", "slice", "smbios", "smbios_firmware", "soundhw", "spice_clipboard_sharing",
    "spice_image_compression", "spice_streaming_video", "spiceagent_mouse",
    "spicedisable_ticketing", "spicehost", "spicepasswd", "spiceport", "spicetls_port",
    "spiceusbredirection", "spicevdagent", "static_shm", "stubdomain_cmdline", "stubdomain_kernel",
    "stubdomain_memory", "stubdomain_ramdisk", "sve", "tee", "timer_mode", "trap_unmapped_accesses",
    "tsc_mode", "usbctrl", "usbdev", "usbversion", "vdispl", "vendor_device", "videoram", "vif2",
    "virtio", "vmtrace_buf_kb", "vncdisplay", "vnclisten", "vncpasswd", "vncunused", "vncviewer",
    "vnuma", "vpt_align", "vsnd", "vtpm", "vuart", "xauthority", "xen_platform_pci_bar_uc",
    "xenstore_feature_mask", "xenstore_quota"};

// clang-format on

bool contains(std::span<const std::string_view> keys, std::string_view key) {
    return std::ranges::find(keys, key) != keys.end();
}

const SimpleKey* find_simple(std::string_view key) {
    const auto* const known = std::ranges::find(kSimpleKeys, key, &SimpleKey::key);
    return known == kSimpleKeys.end() ? nullptr : known;
}

class Mapper {
  public:
    Mapper(const XlFile& file, Strictness strictness, Profiles profiles, VmConfig& vm,
           std::vector<std::string>& warnings)
        : file_(file), strictness_(strictness), profiles_(profiles), vm_(vm), warnings_(warnings) {}

    Result<void> run() {
        vm_.on_reboot = ShutdownAction::kRestart;  // as xl does when the key is missing
        for (const XlSetting& setting : file_.settings) {
            const Reader from(file_, setting);
            if (const SimpleKey* const simple = find_simple(setting.key)) {
                TRY(simple->apply(from, profiles_, vm_));
            } else if (!contains(kJoinedKeys, setting.key)) {
                TRY(ignore(from, setting.key));
            }
        }
        TRY(resolve_type());
        TRY(resolve_image());
        TRY(resolve_cmdline());
        TRY(resolve_maxmem());
        TRY(resolve_maxvcpus());
        TRY(resolve_soft_reset());
        if (ignored_ > kMostIgnored) {
            warnings_.push_back(file_.path + ": " + std::to_string(ignored_ - kMostIgnored) +
                                " more keys are ignored");
        }
        return {};
    }

  private:
    // Nobody reads more lines than that; a file with more is no GUEST.cfg.
    static constexpr std::size_t kMostIgnored = 50;

    std::optional<Reader> find(std::string_view key) const {
        for (const XlSetting& setting : file_.settings) {
            if (setting.key == key) return Reader(file_, setting);
        }
        return std::nullopt;
    }

    Result<void> ignore(const Reader& from, std::string_view key) {
        std::string what = ": not supported yet";
        if (contains(kOffIsFine, key)) {
            if (from.is_off()) return {};
        } else if (!contains(kUnsupported, key)) {
            what = ": unknown key" + hint(key, implemented_xl_keys());
        }
        return doubt(from.place() + what);
    }

    // What --strict turns into an error.
    Result<void> doubt(const std::string& what) {
        if (strictness_ == Strictness::kRefuse) return user_error(what);
        if (++ignored_ <= kMostIgnored) warnings_.push_back(what + ", ignored");
        return {};
    }

    Result<void> resolve_type() {
        const auto type = find("type");
        const auto builder = find("builder");
        if (type) vm_.type = TRY(type->parse(parse_guest_type));
        if (builder) {
            // The spelling of old files; its other value, "generic", means a PV guest.
            const std::string_view text = TRY(builder->single());
            if (text != "hvm")
                return builder->refuse(in_quotes(text) + " is not supported, only hvm");
            if (type && vm_.type != GuestType::kHvm) {
                return builder->refuse("'hvm' contradicts type " + in_quotes(to_string(vm_.type)));
            }
            vm_.type = GuestType::kHvm;
        }
        type_is_given_ = type || builder;
        return {};
    }

    Result<void> resolve_image() {
        const auto kernel = find("kernel");
        if (kernel) vm_.kernel = TRY(kernel->parse(parse_path));

        const auto named = find("firmware_override");
        const auto firmware = find("firmware");
        if (firmware) {
            // xl takes the name of a firmware that it ships, or a path.
            constexpr std::string_view kNamed[] = {"bios", "uefi",     "seabios", "rombios",
                                                   "ovmf", "pvgrub32", "pvgrub64"};
            vm_.firmware = TRY(firmware->parse(parse_path));
            if (contains(kNamed, vm_.firmware)) {
                return firmware->refuse(in_quotes(vm_.firmware) +
                                        " is not supported, only the path of an image is");
            }
        }
        if (named) vm_.firmware = TRY(named->parse(parse_path));
        if (vm_.firmware.empty()) return {};

        const Reader& given = named ? *named : *firmware;
        if (!vm_.kernel.empty()) {
            return given.refuse("the file names a kernel too: a guest boots one of them");
        }
        if (type_is_given_ && vm_.type != GuestType::kHvm) {
            return given.refuse("only a guest of type 'hvm' has a firmware");
        }
        vm_.type = GuestType::kHvm;
        return {};
    }

    Result<void> resolve_cmdline() {
        const auto cmdline = find("cmdline");
        const auto root = find("root");
        const auto extra = find("extra");
        if (cmdline) {
            vm_.cmdline = TRY(cmdline->parse(parse_string));
            if (root || extra) {
                warnings_.push_back(cmdline->place() +
                                    ": root and extra do not count where cmdline is set");
            }
            return {};
        }
        if (root) vm_.cmdline = "root=" + TRY(root->parse(parse_string));
        if (extra) {
            if (root) vm_.cmdline += ' ';
            vm_.cmdline += TRY(extra->parse(parse_string));
        }
        return {};
    }

    // Guests that start below their maximum need a balloon driver or CPU hotplug: not here yet.
    Result<void> resolve_maxmem() {
        const auto maxmem = find("maxmem");
        if (!maxmem) return {};
        const std::uint64_t most = TRY(maxmem->parse(parse_memory));
        // A file with maxmem alone means that much, as xl reads it.
        if (!find("memory")) vm_.memory_bytes = most;
        if (most < vm_.memory_bytes) return maxmem->refuse("less than memory");
        if (most == vm_.memory_bytes) return {};
        return doubt(maxmem->place() + ": more than memory is not supported yet");
    }

    Result<void> resolve_maxvcpus() {
        const auto maxvcpus = find("maxvcpus");
        if (!maxvcpus) return {};
        const unsigned most = TRY(maxvcpus->parse(parse_vcpus));
        if (most < vm_.vcpus) return maxvcpus->refuse("less than vcpus");
        if (most == vm_.vcpus) return {};
        return doubt(maxvcpus->place() + ": more than vcpus is not supported yet");
    }

    Result<void> resolve_soft_reset() {
        const auto action = find("on_soft_reset");
        if (!action) return {};
        const std::string_view text = TRY(action->single());
        if (text != "destroy")
            return action->refuse(in_quotes(text) + " is not supported, only destroy");
        return {};
    }

    const XlFile& file_;
    const Strictness strictness_;
    const Profiles profiles_;
    VmConfig& vm_;
    std::vector<std::string>& warnings_;
    bool type_is_given_ = false;
    std::size_t ignored_ = 0;
};

}  // namespace

Result<std::string> read_guest_file(const std::string& path) {
    const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) return errno_error(path, Fault::kUser);
    struct stat info {};
    if (::fstat(fd.get(), &info) != 0) return errno_error(path, Fault::kUser);
    if (S_ISDIR(info.st_mode)) return user_error(path + ": this is a directory, not a GUEST.cfg");

    std::string text;
    std::array<char, 16 * kKiB> part{};
    for (;;) {
        const ssize_t got = ::read(fd.get(), part.data(), part.size());
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return errno_error(path, Fault::kUser);
        if (got == 0) return text;
        text.append(part.data(), static_cast<std::size_t>(got));
        if (text.size() > kMaxGuestFileBytes) {
            return user_error(path + ": larger than 1M, this is no GUEST.cfg");
        }
    }
}

Result<void> apply_xl(const XlFile& file, Strictness strictness, Profiles profiles, VmConfig& vm,
                      std::vector<std::string>& warnings) {
    warnings.insert(warnings.end(), file.warnings.begin(), file.warnings.end());
    return Mapper(file, strictness, profiles, vm, warnings).run();
}

std::vector<std::string_view> implemented_xl_keys() {
    std::vector<std::string_view> keys;
    keys.reserve(std::size(kSimpleKeys) + std::size(kJoinedKeys));
    for (const SimpleKey& known : kSimpleKeys)
        keys.push_back(known.key);
    keys.insert(keys.end(), std::begin(kJoinedKeys), std::end(kJoinedKeys));
    return keys;
}

}  // namespace vmm::config
