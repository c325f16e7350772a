#include "vmm/cli/vm.h"

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <fcntl.h>
#include <fstream>
#include <mutex>
#include <poll.h>
#include <unistd.h>

#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#include "devices/legacy/ioapic.h"
#include "devices/legacy/pic.h"
#include "devices/legacy/pit.h"
#include "devices/platform/acpi_sleep.h"
#include "devices/pv/console_backend.h"
#include "devices/pv/xenstore_service.h"
#include "vmm/base/log.h"
#include "vmm/boot/acpi/acpi.h"
#include "vmm/boot/e820.h"
#include "vmm/boot/layout.h"
#include "vmm/boot/loader.h"
#include "vmm/cli/steering.h"
#include "vmm/machine/event_loop.h"
#include "xenshim/transport/kvm_xen.h"
#include "xenshim/transport/portable.h"

namespace vmm::cli {
namespace {

namespace layout = boot::layout;
using config::GuestType;
using config::TransportChoice;
using config::VmConfig;

xenshim::QuirkMode quirk_mode(config::QuirkChoice choice) {
    switch (choice) {
        case config::QuirkChoice::kAuto: return xenshim::QuirkMode::kAuto;
        case config::QuirkChoice::kXenServer: return xenshim::QuirkMode::kXenServer;
        case config::QuirkChoice::kNone: break;
    }
    return xenshim::QuirkMode::kNone;
}

constexpr unsigned kIoapicPins = 48;  // as Xen gives its HVM guests

// ---- the platform chips of an HVM machine -------------------------------------------------------

// PIC, IOAPIC and PIT, wired as in a PC: the PIT's output goes to the PIC's input 0 and the
// IOAPIC's pin 2.
class LegacyChips {
  public:
    LegacyChips(Machine& machine, xenshim::XenPlatform& platform, EventLoop& loop)
        : machine_(machine),
          pic_([&platform] { platform.pic_output_changed(); }),
          ioapic_(kIoapicPins, {.send = [this](const auto& m) { send(m); },
                                .route_changed = [this](unsigned) { update_routes(); }}),
          irq0_(*this),
          pit_({.now_ns = [this] { return machine_.system_time_ns(); },
                .irq0 = irq0_,
                .deadline_changed = [this] { arm(); }}),
          timer_(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) {
        machine.pio().add(pic_);
        machine.pio().add(pit_);
        machine.mmio().add(ioapic_);
        machine.on_ioapic_eoi = [this](std::uint8_t vector) { ioapic_.eoi(vector); };
        platform.set_pic({.output = [this] { return pic_.output(); },
                          .acknowledge = [this] { return pic_.acknowledge(); }});
        loop.add(
            timer_.get(), [] { return short{POLLIN}; },
            [this](short) {
                std::uint64_t expirations = 0;
                [[maybe_unused]] const auto got =
                    ::read(timer_.get(), &expirations, sizeof expirations);
                pit_.tick(machine_.system_time_ns());
                arm();
            });
    }

  private:
    class Irq0 final : public IrqLine {
      public:
        explicit Irq0(LegacyChips& chips) : chips_(chips) {}
        void set(bool level) override {
            chips_.pic_.set_irq(0, level);
            chips_.ioapic_.set_irq(2, level);
        }

      private:
        LegacyChips& chips_;
    };

    void send(const devices::legacy::MsiMessage& message) {
        if (const auto sent = machine_.vm().signal_msi(message.address, message.data); !sent) {
            log_guest("ioapic", "%s", sent.error().what.c_str());
        }
    }

    // KVM learns from its routing table whose EOIs it has to report.
    void update_routes() {
        const std::scoped_lock lock(routes_mutex_);
        std::vector<kvm::MsiRoute> routes;
        for (unsigned pin = 0; pin < ioapic_.pins(); ++pin) {
            const auto route = ioapic_.route(pin);
            if (!route.message || !route.level_triggered) continue;
            routes.push_back({pin, route.message->address, route.message->data});
        }
        if (const auto set = machine_.vm().set_msi_routes(routes); !set) {
            log_guest("ioapic", "%s", set.error().what.c_str());
        }
    }

    // From the loop's thread and from vCPUs: what the timer is set to is the latest that was read.
    void arm() {
        const std::scoped_lock lock(arm_mutex_);
        itimerspec when{};
        if (const auto deadline = pit_.next_deadline_ns()) {
            const std::uint64_t at = std::max<std::uint64_t>(machine_.monotonic_of(*deadline), 1);
            when.it_value.tv_sec = static_cast<time_t>(at / 1'000'000'000);
            when.it_value.tv_nsec = static_cast<long>(at % 1'000'000'000);
        }
        ::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr);
    }

    Machine& machine_;
    std::mutex routes_mutex_, arm_mutex_;
    devices::legacy::Pic pic_;
    devices::legacy::Ioapic ioapic_;
    Irq0 irq0_;
    devices::legacy::Pit pit_;
    Fd timer_;
};

// ---- what `create` reads from files -------------------------------------------------------------

struct Files {
    boot::Image kernel;
    std::vector<boot::Bytes> module_bytes;
    std::vector<boot::Module> modules;
};

Result<Files> read_files(const VmConfig& config) {
    Files files;
    files.kernel = TRY(boot::read_image(config.image()));
    std::vector<config::BootModule> wanted;
    if (!config.ramdisk.empty()) wanted.push_back({config.ramdisk, ""});
    wanted.insert(wanted.end(), config.modules.begin(), config.modules.end());
    for (const auto& module : wanted) {
        files.module_bytes.push_back(TRY(boot::read_file(module.file)));
    }
    for (std::size_t i = 0; i < wanted.size(); ++i) {
        files.modules.push_back({.name = wanted[i].file,
                                 .bytes = files.module_bytes[i].view(),
                                 .cmdline = wanted[i].cmdline});
    }
    return files;
}

Result<std::array<std::uint8_t, 16>> uuid_of(const VmConfig& config) {
    if (config.uuid) return *config.uuid;
    std::array<std::uint8_t, 16> uuid{};
    if (::getrandom(uuid.data(), uuid.size(), 0) != static_cast<ssize_t>(uuid.size())) {
        return errno_error("getrandom");
    }
    uuid[6] = static_cast<std::uint8_t>((uuid[6] & 0x0f) | 0x40);  // version 4
    uuid[8] = static_cast<std::uint8_t>((uuid[8] & 0x3f) | 0x80);
    return uuid;
}

std::string uuid_text(const std::array<std::uint8_t, 16>& uuid) {
    std::string text;
    for (std::size_t i = 0; i < uuid.size(); ++i) {
        if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
        std::array<char, 3> byte{};
        std::snprintf(byte.data(), byte.size(), "%02x", uuid[i]);
        text += byte.data();
    }
    return text;
}

std::string start_time() {
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME, &now);
    std::array<char, 48> text{};
    std::snprintf(text.data(), text.size(), "%lld.%02ld", static_cast<long long>(now.tv_sec),
                  now.tv_nsec / 10'000'000);
    return text.data();
}

// ---- the machine --------------------------------------------------------------------------------

class VmImpl final : public Vm {
  public:
    VmImpl(VmConfig config, const ConsoleFds& console, xenshim::trace::Writer* trace)
        : config_(std::move(config)), console_fds_(console), trace_(trace) {}
    ~VmImpl() override {
        // Threads first: everything below them is then nobody's but ours.
        if (machine_) {
            machine_->stop({.kind = StopCause::Kind::kRequested});
            machine_->join();
        }
        loop_.stop();
    }

    Result<void> build();
    Result<RunEnd> run(const RunControl& control) override;

  private:
    bool is_hvm() const { return config_.type == GuestType::kHvm; }
    Result<TransportChoice> choose_transport(const kvm::Kvm& kvm) const;
    Result<void> build_memory();
    Result<void> build_platform(const kvm::Kvm& kvm, const boot::BootInfo& boot_info);
    Result<void> build_backends();
    void drain_console();
    VmFacts facts() const;
    RunEnd end_of(const StopCause& cause) const;

    const VmConfig config_;
    const ConsoleFds console_fds_;
    xenshim::trace::Writer* const trace_;
    std::vector<boot::MemoryMapEntry> map_;
    std::unique_ptr<Machine> machine_;
    std::unique_ptr<xenshim::XenPlatform> platform_;
    EventLoop loop_;
    std::optional<Notifier> console_event_, store_event_;
    std::unique_ptr<devices::pv::ConsoleBackend> console_;
    std::unique_ptr<devices::pv::XenstoreService> store_;
    std::unique_ptr<LegacyChips> legacy_;
    std::unique_ptr<devices::platform::AcpiSleep> acpi_sleep_;
    devices::platform::AbsentPit absent_pit_;
    std::atomic<bool> end_asked_{false};  // the operator wants the guest to end
    bool output_gone_ = false;
    bool input_gone_ = false;
};

Result<TransportChoice> VmImpl::choose_transport(const kvm::Kvm& kvm) const {
    const auto flags = static_cast<std::uint32_t>(kvm.check(kvm::Cap::kXenHvm));
    const bool xen =
        (flags & kvm::kXenInterceptHypercall) != 0 && (flags & kvm::kXenSharedInfo) != 0;
    switch (config_.transport) {
        case TransportChoice::kAuto:
            return xen ? TransportChoice::kKvmXen : TransportChoice::kPortable;
        case TransportChoice::kKvmXen:
            if (!xen) {
                return host_error(
                    "--transport kvm-xen: this host's KVM has no Xen support "
                    "(KVM_CAP_XEN_HVM); use --transport portable, or a kernel with CONFIG_KVM_XEN");
            }
            return TransportChoice::kKvmXen;
        case TransportChoice::kPortable: break;
    }
    return TransportChoice::kPortable;
}

Result<void> VmImpl::build_memory() {
    for (const auto& entry : map_) {
        if (entry.type != boot::MemoryType::kRam) continue;
        TRY(machine_->memory().add_region("guest-ram", entry.base, entry.size));
    }
    TRY(machine_->memory().add_region("guest-special", layout::kSpecialPages,
                                      layout::kSpecialPagesSize));
    if (config_.acpi) {
        TRY(machine_->memory().add_region("guest-acpi", layout::kAcpiStart, layout::kAcpiSize));
    }
    // The identity page table that old HVM guests on old CPUs needed: 4 MiB pages.
    GuestMemory& guest = machine_->memory().guest();
    for (std::uint32_t i = 0; i < 1024; ++i) {
        if (!guest.write(layout::kIdentityPageTable + i * 4, (i << 22) | 0xe7u)) {
            return internal_error("the special pages are not there");
        }
    }
    return {};
}

Result<void> VmImpl::build_platform(const kvm::Kvm& kvm, const boot::BootInfo& boot_info) {
    xenshim::PlatformConfig platform;
    platform.domain.profile = xenshim::abi::find_profile(config_.profile);
    platform.domain.quirks = quirk_mode(config_.quirks);
    platform.domain.device_model = config_.privileges == config::PrivilegeChoice::kDeviceModel;
    platform.domain.interrupt_controllers = is_hvm();
    platform.domain.domid = config_.domid;
    platform.domain.vcpus = config_.vcpus;
    platform.domain.max_event_port = config_.max_event_channels;
    platform.domain.max_grant_frames = config_.max_grant_frames;
    platform.domain.uuid = TRY(uuid_of(config_));
    std::uint64_t pages = 0, ram_pages = 0, highest = 0;
    for (const auto& entry : map_) {
        platform.domain.memory_map.push_back(
            {entry.base.value, entry.size, static_cast<std::uint32_t>(entry.type)});
        const std::uint64_t count = (entry.size + kPageSize - 1) / kPageSize;
        pages += count;
        if (entry.type == boot::MemoryType::kRam) ram_pages += count;
        highest = std::max(highest, entry.base.gfn() + count - 1);
    }
    // As Xen's toolstack: a megabyte more than the RAM may be had.
    constexpr std::uint64_t kSlackPages = 256;
    platform.domain.memory = {.current = pages,
                              .maximum = std::max(ram_pages + kSlackPages, pages),
                              .highest_gfn = highest};
    platform.preempt = {.every = config_.preempt.every,
                        .at = config_.preempt.at,
                        .after_us = config_.preempt_after_us};
    platform.cpuid_base = config_.cpuid_base;
    platform.trace = trace_;
    platform.start = {.rip = boot_info.entry, .rbx = boot_info.start_info.value};
    platform.set_mtrrs = !is_hvm();

    const TransportChoice choice = TRY(choose_transport(kvm));
    if (boot_info.call_sites.found) {
        const auto& sites = *boot_info.call_sites.found;
        platform.call_sites = {{sites.vmcall, true}, {sites.vmmcall, false}};
        log_info("boot",
                 "%s: inline hypercalls at 0x%llx (VMCALL) and 0x%llx (VMMCALL), made to trap",
                 config_.image().c_str(), static_cast<unsigned long long>(sites.vmcall.value),
                 static_cast<unsigned long long>(sites.vmmcall.value));
    } else {
        log_info("boot", "%s: %s", config_.image().c_str(), boot_info.call_sites.why_not.c_str());
    }

    if (choice == TransportChoice::kKvmXen) {
        platform_ = std::make_unique<xenshim::KvmXenTransport>(
            *machine_, std::move(platform),
            static_cast<std::uint32_t>(kvm.check(kvm::Cap::kXenHvm)));
    } else {
        platform_ = std::make_unique<xenshim::PortableTransport>(*machine_, std::move(platform));
    }
    log_info("boot", "transport %s, profile %s", std::string(platform_->name()).c_str(),
             config_.profile.c_str());
    return platform_->set_up(kvm);
}

Result<void> VmImpl::build_backends() {
    namespace store = xenshim::xenstore;
    auto& domain = platform_->domain();
    auto& channels = domain.event_channels();
    GuestMemory& guest = machine_->memory().guest();
    std::byte* console_page = guest.page(layout::kConsolePage.gfn());
    std::byte* store_page = guest.page(layout::kXenstorePage.gfn());

    console_event_ = TRY(Notifier::create());
    store_event_ = TRY(Notifier::create());
    // The store's port comes first, as the toolstack makes it: drivers have been seen to rely on
    // port 1 and 2.
    const auto store_port = channels.attach_backend([this] { store_event_->notify(); });
    const auto console_port = channels.attach_backend([this] { console_event_->notify(); });

    domain.params().put(xenshim::abi::HVM_PARAM_STORE_PFN, layout::kXenstorePage.gfn());
    domain.params().put(xenshim::abi::HVM_PARAM_STORE_EVTCHN, store_port.local);
    domain.params().put(xenshim::abi::HVM_PARAM_CONSOLE_PFN, layout::kConsolePage.gfn());
    domain.params().put(xenshim::abi::HVM_PARAM_CONSOLE_EVTCHN, console_port.local);

    // Since 4.2 (read, not measured before 4.17) the daemons map both pages by entries that the
    // toolstack wrote.
    if (domain.profile().since(4, 2)) {
        namespace abi = xenshim::abi;
        domain.grants().seed(abi::GNTTAB_RESERVED_CONSOLE, layout::kConsolePage.gfn());
        domain.grants().seed(abi::GNTTAB_RESERVED_XENSTORE, layout::kXenstorePage.gfn());
    }

    store::Ring::initialise_page(store_page);
    store_ = std::make_unique<devices::pv::XenstoreService>(
        config_.domid, store_page, [&channels, store_port] { channels.notify(store_port.remote); },
        [this] { store_event_->notify(); });
    const std::uint64_t kib = config_.memory_bytes / 1024;
    const auto populated =
        store::populate_domain(store_->store(), {.domid = config_.domid,
                                                 .name = config_.name,
                                                 .uuid = uuid_text(domain.config().uuid),
                                                 .memory_max_kib = kib,
                                                 .memory_target_kib = kib,
                                                 .vcpus = config_.vcpus,
                                                 .vcpus_online = config_.vcpus,
                                                 .store_port = store_port.local,
                                                 .store_gfn = layout::kXenstorePage.gfn(),
                                                 .console_port = console_port.local,
                                                 .console_gfn = layout::kConsolePage.gfn(),
                                                 .console_tty = {},
                                                 .start_time = start_time()});
    if (!populated) {
        return internal_error(std::string("xenstore: ") + store::error_name(populated.error()));
    }
    loop_.add(
        store_event_->fd(), [] { return short{POLLIN}; },
        [this](short) {
            store_event_->clear();
            store_->service();
        });

    console_ = std::make_unique<devices::pv::ConsoleBackend>(
        console_page, [&channels, console_port] { channels.notify(console_port.remote); });
    loop_.add(
        console_event_->fd(), [] { return short{POLLIN}; },
        [this](short) { console_event_->clear(); });
    loop_.add(
        console_fds_.out,
        [this] { return !output_gone_ && console_->has_output() ? short{POLLOUT} : short{0}; },
        [this](short) { output_gone_ = !devices::pv::pump_output(*console_, console_fds_.out); });
    if (console_fds_.in >= 0) {
        loop_.add(
            console_fds_.in,
            [this] {
                // The escape is looked for also while the guest takes nothing.
                return !input_gone_ && (console_fds_.escape || console_->input_room() != 0)
                           ? short{POLLIN}
                           : short{0};
            },
            [this](short) {
                std::array<std::byte, 256> buffer;
                // What a terminal gives and the guest has no room for is lost, as on a serial line
                // whose receiver is overrun; a file or a pipe waits.
                const std::size_t room = console_fds_.escape
                                             ? buffer.size()
                                             : std::min(buffer.size(), console_->input_room());
                const ssize_t got = ::read(console_fds_.in, buffer.data(), room);
                if (got <= 0) {
                    input_gone_ = got == 0 || (errno != EINTR && errno != EAGAIN);
                    return;
                }
                std::span<const std::byte> bytes(buffer.data(), static_cast<std::size_t>(got));
                if (console_fds_.escape) {
                    const auto at = std::find(bytes.begin(), bytes.end(), *console_fds_.escape);
                    if (at != bytes.end()) {
                        end_asked_ = true;
                        machine_->stop({.kind = StopCause::Kind::kRequested});
                        return;
                    }
                }
                console_->give_input(bytes);
            });
    }
    return {};
}

Result<void> VmImpl::build() {
    if (xenshim::abi::find_profile(config_.profile) == nullptr) {
        return user_error("--profile " + config_.profile + ": there is no such profile");
    }
    // Everything that the user may have got wrong comes before anything that the host may lack.
    Files files = TRY(read_files(config_));
    const auto kvm = TRY(kvm::Kvm::open());
    map_ = boot::build_memory_map(config_.memory_bytes,
                                  config_.acpi ? boot::Acpi::kPresent : boot::Acpi::kAbsent);
    machine_ = TRY(Machine::create(kvm, {.vcpus = config_.vcpus,
                                         .own_pages = xenshim::kOwnPages,
                                         .ioapic_pins = is_hvm() ? kIoapicPins : 0}));
    TRY(build_memory());

    boot::AcpiTables tables;
    const auto flavour = is_hvm() ? boot::Flavour::kHvm : boot::Flavour::kPvh;
    if (config_.acpi) {
        boot::AcpiParams params{.flavour = flavour, .processors = {}};
        for (unsigned v = 0; v < config_.vcpus; ++v) {
            params.processors.push_back({.apic_id = Machine::apic_id(v), .online = true});
        }
        tables = TRY(boot::build_acpi(params));
        if (!machine_->memory().guest().write(tables.base, tables.bytes)) {
            return internal_error("the ACPI pages are not there");
        }
    }
    const boot::BootInfo boot_info =
        TRY(boot::load(machine_->memory().guest(), {.flavour = flavour,
                                                    .kernel_name = files.kernel.name,
                                                    .kernel = files.kernel.elf.view(),
                                                    .cmdline = config_.cmdline,
                                                    .modules = files.modules,
                                                    .map = map_,
                                                    .rsdp = tables.rsdp}));
    TRY(build_platform(kvm, boot_info));
    TRY(build_backends());
    if (is_hvm()) {
        legacy_ = std::make_unique<LegacyChips>(*machine_, *platform_, loop_);
    } else {
        machine_->pio().add(absent_pit_);
    }
    if (config_.acpi) {
        acpi_sleep_ = std::make_unique<devices::platform::AcpiSleep>(
            devices::platform::AcpiSleep::Ports{
                .event = layout::kPm1aEvent, .control = layout::kPm1aControl, .gpe = layout::kGpe0},
            layout::kSleepTypeS5,
            [this] { platform_->domain().shutdown(xenshim::abi::SHUTDOWN_poweroff); });
        machine_->pio().add(*acpi_sleep_);
    }
    return {};
}

// What the guest wrote before it ended reaches the sink, also a slow one; a reader that takes
// nothing for this long is taken for dead.
void VmImpl::drain_console() {
    constexpr int kPatienceMs = 5000;
    while (!output_gone_ && console_->has_output()) {
        pollfd sink{.fd = console_fds_.out, .events = POLLOUT, .revents = 0};
        if (::poll(&sink, 1, kPatienceMs) <= 0) {
            log_warn("console", "nobody reads the guest's output; the rest of it is lost");
            return;
        }
        output_gone_ = !devices::pv::pump_output(*console_, console_fds_.out);
    }
}

RunEnd VmImpl::end_of(const StopCause& cause) const {
    using Kind = RunEnd::Kind;
    switch (cause.kind) {
        case StopCause::Kind::kRequested: return {Kind::kTerminated};
        case StopCause::Kind::kHalted:
            log_info("guest", "every vCPU that was up has halted with interrupts off");
            return {Kind::kPowerOff};
        case StopCause::Kind::kCrashed: return {Kind::kCrash};
        case StopCause::Kind::kTriple: return {Kind::kReboot};
        default: break;
    }
    switch (cause.code) {
        case xenshim::abi::SHUTDOWN_poweroff: return {Kind::kPowerOff};
        case xenshim::abi::SHUTDOWN_reboot: return {Kind::kReboot};
        case xenshim::abi::SHUTDOWN_suspend: return {Kind::kSuspend};
        case xenshim::abi::SHUTDOWN_watchdog: return {Kind::kWatchdog};
        case xenshim::abi::SHUTDOWN_soft_reset: return {Kind::kSoftReset};
        case xenshim::abi::SHUTDOWN_crash: return {Kind::kCrash};
        default:
            log_warn("guest", "shut down with the unknown reason %d", cause.code);
            return {Kind::kCrash};
    }
}

VmFacts VmImpl::facts() const {
    const auto& domain = platform_->domain().config();
    return {.name = config_.name,
            .uuid = uuid_text(domain.uuid),
            .domid = config_.domid,
            .type = std::string(to_string(config_.type)),
            .profile = config_.profile,
            .transport = std::string(platform_->name()),
            .vcpus = config_.vcpus,
            .memory_bytes = config_.memory_bytes};
}

Result<RunEnd> VmImpl::run(const RunControl& control) {
    using Clock = std::chrono::steady_clock;
    constexpr std::chrono::milliseconds kHousekeeping{250};
    Steering steering(*machine_, *platform_, facts());
    if (control.point != nullptr) control.point->serve_on(loop_);
    loop_.start();
    TRY(machine_->start(*platform_,
                        control.paused ? Machine::StartAs::kPaused : Machine::StartAs::kRunning));
    auto next_round = Clock::now() + kHousekeeping;
    while (!machine_->stopping()) {
        std::array<pollfd, 3> fds{{{.fd = machine_->stop_fd(), .events = POLLIN, .revents = 0},
                                   {.fd = control.signal_fd, .events = POLLIN, .revents = 0},
                                   {.fd = control.point != nullptr ? control.point->fd() : -1,
                                    .events = POLLIN,
                                    .revents = 0}}};
        const auto left =
            std::chrono::ceil<std::chrono::milliseconds>(next_round - Clock::now()).count();
        const int ready =
            ::poll(fds.data(), fds.size(), static_cast<int>(std::max(left, decltype(left){0})));
        if (Clock::now() >= next_round) {
            machine_->housekeeping();
            next_round = Clock::now() + kHousekeeping;
        }
        if (ready > 0 && (fds[1].revents & POLLIN) != 0) {
            signalfd_siginfo info{};
            [[maybe_unused]] const auto got = ::read(control.signal_fd, &info, sizeof info);
            end_asked_ = true;
            machine_->stop({.kind = StopCause::Kind::kRequested});
        }
        if (ready > 0 && (fds[2].revents & POLLIN) != 0) {
            steering.serve(*control.point);
            if (steering.destroyed()) end_asked_ = true;
        }
    }
    const StopCause cause = machine_->join();
    loop_.stop();
    drain_console();
    log_info("run", "continuations: %llu",
             static_cast<unsigned long long>(platform_->continuations()));
    if (cause.error) return Failure{*cause.error};
    // Also when the guest ended by itself at the same moment: it is not restarted.
    if (end_asked_) return RunEnd{RunEnd::Kind::kTerminated};
    return end_of(cause);
}

}  // namespace

Result<std::unique_ptr<Vm>> Vm::create(const VmConfig& config, const ConsoleFds& console,
                                       xenshim::trace::Writer* trace) {
    auto vm = std::make_unique<VmImpl>(config, console, trace);
    TRY(vm->build());
    return std::unique_ptr<Vm>(std::move(vm));
}

}  // namespace vmm::cli
