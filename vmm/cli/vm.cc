#include "vmm/cli/vm.h"

#include <algorithm>
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

#include "devices/platform/acpi_sleep.h"
#include "devices/pv/console_backend.h"
#include "devices/pv/shutdown_request.h"
#include "devices/pv/xenstore_service.h"
#include "migration/driver.h"
#include "migration/format/atomic_file.h"
#include "migration/format/checksum.h"
#include "migration/format/writer.h"
#include "vmm/base/log.h"
#include "vmm/boot/acpi/acpi.h"
#include "vmm/boot/e820.h"
#include "vmm/boot/layout.h"
#include "vmm/boot/loader.h"
#include "vmm/cli/guest_cpu.h"
#include "vmm/cli/legacy_chips.h"
#include "vmm/cli/long_task.h"
#include "vmm/cli/move_places.h"
#include "vmm/cli/saved_vm.h"
#include "vmm/cli/steering.h"
#include "vmm/cli/vm_state.h"
#include "vmm/machine/event_loop.h"
#include "xenshim/abi/callback.h"
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

// ---- what `create` reads from files -------------------------------------------------------------

struct Files {
    boot::Image kernel;
    std::vector<boot::Bytes> module_bytes;
    std::vector<boot::Module> modules;
    std::vector<std::uint64_t> sums;
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
    files.sums.push_back(migration::format::checksum(files.kernel.elf.view()));
    for (const boot::Bytes& module : files.module_bytes) {
        files.sums.push_back(migration::format::checksum(module.view()));
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

    // A new guest, booted from its files.
    Result<void> boot();
    // One that was saved. `saved` stays as long as this does.
    Result<void> restore(const kvm::Kvm& kvm, SavedVm& saved);
    Result<void> stand_by() override;
    Result<RunEnd> run(const RunControl& control) override;
    Result<SaveReport> save(const std::string& path, AfterSave after) override;
    Machine& machine() override { return *machine_; }
    xenshim::XenPlatform& platform() override { return *platform_; }

  private:
    bool is_hvm() const { return config_.type == GuestType::kHvm; }
    boot::Flavour flavour() const { return is_hvm() ? boot::Flavour::kHvm : boot::Flavour::kPvh; }
    Result<TransportChoice> choose_transport(const kvm::Kvm& kvm) const;
    Result<void> make_machine(const kvm::Kvm& kvm);
    Result<void> take_new_id();
    Result<void> lay_out_memory();
    Result<boot::BootInfo> load(const Files& files);
    Result<void> make_platform(const kvm::Kvm& kvm, std::optional<kvm::FlatState> start);
    Result<void> make_backends();
    Result<void> introduce_backends();
    void tell_ports();
    void take_input();
    void make_devices();
    // `task`: what is told of it, and may end it; null: nobody.
    // `stop`: stops the guest; empty: it stands still.
    Result<SaveReport> save_to(const std::string& path, AfterSave after, LongTask* task,
                               const std::function<void()>& stop);
    Result<MoveReport> migrate(const std::string& link, bool cancel,
                               const std::function<void()>& stop, LongTask& task);
    Result<void> begin_to_move();
    void rest_backends();
    void wake_backends();
    std::optional<migration::Event> act_on_move(migration::Action action);
    Result<void> send_rest();
    Result<migration::format::End> write(migration::format::Writer& writer);
    void drain_console();
    VmFacts facts() const;
    RunEnd end_of(const StopCause& cause) const;

    VmConfig config_;  // with a uuid
    const ConsoleFds console_fds_;
    xenshim::trace::Writer* const trace_;
    // What this life of the guest is known by to whoever takes it over, and how often it was handed
    // out.
    migration::format::Id id_{};
    std::uint64_t epoch_ = 0;
    config::MemoryLayoutState layout_;
    config::CallSitesState call_sites_;
    std::optional<kvm::CpuModel> cpu_;       // of a new guest that has not all of the host's
    std::vector<boot::MemoryMapEntry> map_;  // of a new guest
    std::unique_ptr<Machine> machine_;
    std::unique_ptr<xenshim::XenPlatform> platform_;
    EventLoop loop_;
    std::unique_ptr<Doorbell> console_event_, store_event_;
    xenshim::EventChannels::BackendPort console_port_, store_port_;
    std::unique_ptr<devices::pv::ConsoleBackend> console_;
    std::unique_ptr<devices::pv::XenstoreService> store_;
    std::optional<Notifier> request_taken_;
    std::unique_ptr<devices::pv::ShutdownRequest> request_;
    std::unique_ptr<LegacyChips> legacy_;
    std::unique_ptr<devices::platform::AcpiSleep> acpi_sleep_;
    devices::platform::AbsentPit absent_pit_;
    std::unique_ptr<VmState> state_;
    std::unique_ptr<MemoryFill> fill_;              // of a guest that was restored
    std::optional<std::uint64_t> stands_since_ns_;  // the same
    std::atomic<bool> end_asked_{false};            // the operator wants the guest to end
    std::unique_ptr<LongTask> task_;                // a save or a move, while it runs
    bool standing_by_ = false;                      // the machine's threads are there, parked
    bool saved_ = false;                            // and goes on from there, not here
    bool moved_ = false;                            // likewise
    // While it is saved, or sent and until it is known where it goes on, the backends leave its
    // rings alone, and the chips' timer waits.
    std::atomic<bool> at_rest_{false};
    struct Departure {
        std::unique_ptr<migration::Driver> driver;
        migration::Link* link = nullptr;
        LongTask* task = nullptr;
        std::function<void()> stop;
        std::chrono::steady_clock::time_point stopped{};
        std::uint64_t bytes = 0;
    };
    std::optional<Departure> departure_;
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

Result<void> VmImpl::make_machine(const kvm::Kvm& kvm) {
    machine_ = TRY(Machine::create(kvm, {.vcpus = config_.vcpus,
                                         .own_pages = xenshim::kOwnPages,
                                         .ioapic_pins = is_hvm() ? kIoapicPins : 0}));
    for (const auto& region : layout_.regions) {
        TRY(machine_->memory().add_region("guest-ram", gfn_to_gpa(region.gfn),
                                          region.pages * kPageSize));
    }
    return {};
}

// A new life of a guest, which may live beside another of the same file.
Result<void> VmImpl::take_new_id() {
    const std::span<std::byte> id(id_);
    if (::getrandom(id.data(), id.size(), 0) != static_cast<ssize_t>(id.size())) {
        return errno_error("getrandom");
    }
    return {};
}

// Where a new guest's memory is.
Result<void> VmImpl::lay_out_memory() {
    map_ = boot::build_memory_map(config_.memory_bytes,
                                  config_.acpi ? boot::Acpi::kPresent : boot::Acpi::kAbsent);
    const auto add = [this](Gpa base, std::uint64_t size) {
        layout_.regions.push_back({.gfn = base.gfn(), .pages = size >> kPageShift});
    };
    for (const auto& entry : map_) {
        if (entry.type == boot::MemoryType::kRam) add(entry.base, entry.size);
    }
    add(layout::kSpecialPages, layout::kSpecialPagesSize);
    if (config_.acpi) add(layout::kAcpiStart, layout::kAcpiSize);
    std::ranges::sort(layout_.regions, {}, &config::MemoryRegionState::gfn);
    if (const auto good = layout_.check(config_.memory_bytes); !good) {
        return internal_error("memory layout: " + good.error());
    }
    return {};
}

Result<boot::BootInfo> VmImpl::load(const Files& files) {
    // The identity page table that old HVM guests on old CPUs needed: 4 MiB pages.
    GuestMemory& guest = machine_->memory().guest();
    for (std::uint32_t i = 0; i < 1024; ++i) {
        if (!guest.write(layout::kIdentityPageTable + i * 4, (i << 22) | 0xe7u)) {
            return internal_error("the special pages are not there");
        }
    }
    boot::AcpiTables tables;
    if (config_.acpi) {
        boot::AcpiParams params{.flavour = flavour(), .processors = {}};
        for (unsigned v = 0; v < config_.vcpus; ++v) {
            params.processors.push_back({.apic_id = Machine::apic_id(v), .online = true});
        }
        tables = TRY(boot::build_acpi(params));
        if (!guest.write(tables.base, tables.bytes)) {
            return internal_error("the ACPI pages are not there");
        }
    }
    auto info = TRY(boot::load(guest, {.flavour = flavour(),
                                       .kernel_name = files.kernel.name,
                                       .kernel = files.kernel.elf.view(),
                                       .cmdline = config_.cmdline,
                                       .modules = files.modules,
                                       .map = map_,
                                       .rsdp = tables.rsdp}));
    if (info.call_sites.found) {
        const auto& sites = *info.call_sites.found;
        call_sites_.sites = {{.gpa = sites.vmcall.value, .vmcall = true},
                             {.gpa = sites.vmmcall.value, .vmcall = false}};
        log_info("boot",
                 "%s: inline hypercalls at 0x%llx (VMCALL) and 0x%llx (VMMCALL), made to trap",
                 config_.image().c_str(), static_cast<unsigned long long>(sites.vmcall.value),
                 static_cast<unsigned long long>(sites.vmmcall.value));
    } else {
        log_info("boot", "%s: %s", config_.image().c_str(), info.call_sites.why_not.c_str());
    }
    return info;
}

Result<void> VmImpl::make_platform(const kvm::Kvm& kvm, std::optional<kvm::FlatState> start) {
    xenshim::PlatformConfig platform;
    platform.domain.profile = xenshim::abi::find_profile(config_.profile);
    platform.domain.quirks = quirk_mode(config_.quirks);
    platform.domain.device_model = config_.privileges == config::PrivilegeChoice::kDeviceModel;
    platform.domain.interrupt_controllers = is_hvm();
    platform.domain.domid = config_.domid;
    platform.domain.vcpus = config_.vcpus;
    platform.domain.max_event_port = config_.max_event_channels;
    platform.domain.max_grant_frames = config_.max_grant_frames;
    platform.domain.uuid = *config_.uuid;
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
    platform.cpu = cpu_;
    platform.trace = trace_;
    platform.start = start;
    platform.set_mtrrs = !is_hvm();
    for (const auto& site : call_sites_.sites) {
        platform.call_sites.push_back({.at = Gpa{site.gpa}, .vmcall = site.vmcall});
    }

    const TransportChoice choice = TRY(choose_transport(kvm));
    if (choice == TransportChoice::kKvmXen) {
        platform_ = std::make_unique<xenshim::KvmXenTransport>(
            *machine_, std::move(platform),
            static_cast<std::uint32_t>(kvm.check(kvm::Cap::kXenHvm)));
    } else {
        if (const auto fits = call_sites_.check_portable(); !fits) {
            return user_error(config_.name + ": " + fits.error());
        }
        platform_ = std::make_unique<xenshim::PortableTransport>(*machine_, std::move(platform));
    }
    log_info("boot", "transport %s, profile %s", std::string(platform_->name()).c_str(),
             config_.profile.c_str());
    return platform_->set_up(kvm);
}

// The other ends of the guest's rings, as they are for a new guest and for one that was saved.
Result<void> VmImpl::make_backends() {
    auto& domain = platform_->domain();
    auto& channels = domain.event_channels();
    GuestMemory& guest = machine_->memory().guest();
    std::byte* const console_page = guest.page(layout::kConsolePage.gfn());
    std::byte* const store_page = guest.page(layout::kXenstorePage.gfn());
    if (console_page == nullptr || store_page == nullptr) {
        return user_error("the guest's memory has no room for its console and its xenstore");
    }
    console_event_ = TRY(Doorbell::create());
    store_event_ = TRY(Doorbell::create());
    // The store's port comes first, as the toolstack makes it: drivers have been seen to rely on
    // port 1 and 2.
    store_port_ = channels.attach_backend([this] { store_event_->ring(); });
    console_port_ = channels.attach_backend([this] { console_event_->ring(); });

    // Since 4.2 (read, not measured before 4.17) the daemons map both pages by entries that the
    // toolstack wrote.
    if (domain.profile().since(4, 2)) {
        namespace abi = xenshim::abi;
        domain.grants().seed(abi::GNTTAB_RESERVED_CONSOLE, layout::kConsolePage.gfn());
        domain.grants().seed(abi::GNTTAB_RESERVED_XENSTORE, layout::kXenstorePage.gfn());
    }

    store_ = std::make_unique<devices::pv::XenstoreService>(
        config_.domid, store_page, [this, &channels] { channels.notify(store_port_.remote); },
        [this] { store_event_->ring(); });
    store_event_->attach(loop_, [this] { return !at_rest_ && store_->service(); });
    request_taken_ = TRY(Notifier::create());
    request_ = std::make_unique<devices::pv::ShutdownRequest>(store_->store(), config_.domid,
                                                              [this] { request_taken_->notify(); });

    console_ = std::make_unique<devices::pv::ConsoleBackend>(
        console_page, [this, &channels] { channels.notify(console_port_.remote); });
    // That it rang is enough: what is wanted of the descriptors below is asked anew. There was
    // something to do if there is output, or if the guest has taken input.
    console_event_->attach(loop_, [this, room = std::size_t{0}]() mutable {
        if (at_rest_) return false;
        const std::size_t before = std::exchange(room, console_->input_room());
        return console_->has_output() || room != before;
    });
    loop_.add(
        console_fds_.out,
        [this] {
            const bool some = !at_rest_ && console_->has_output();
            return some ? short{POLLOUT} : short{0};
        },
        [this](short) {
            if (!output_gone_) output_gone_ = !pump_output(*console_, console_fds_.out);
            // A guest does not wait for ever for a reader who is gone.
            if (output_gone_) console_->drop_output();
        });
    if (console_fds_.in >= 0) {
        loop_.add(
            console_fds_.in,
            [this] {
                // The escape is looked for also while the guest takes nothing.
                const bool some = !at_rest_ && !input_gone_ &&
                                  (console_fds_.escape || console_->input_room() != 0);
                return some ? short{POLLIN} : short{0};
            },
            [this](short) { take_input(); });
    }
    return {};
}

void VmImpl::take_input() {
    std::array<std::byte, 256> buffer;
    // What a terminal gives and the guest has no room for is lost, as on a serial line whose
    // receiver is overrun; a file or a pipe waits.
    const std::size_t room =
        console_fds_.escape ? buffer.size() : std::min(buffer.size(), console_->input_room());
    const ssize_t got = ::read(console_fds_.in, buffer.data(), room);
    if (got <= 0) {
        input_gone_ = got == 0 || (errno != EINTR && errno != EAGAIN);
        return;
    }
    const std::span<const std::byte> bytes(buffer.data(), static_cast<std::size_t>(got));
    if (console_fds_.escape) {
        const auto at = std::find(bytes.begin(), bytes.end(), *console_fds_.escape);
        if (at != bytes.end()) {
            end_asked_ = true;
            machine_->stop({.kind = StopCause::Kind::kRequested});
            return;
        }
    }
    console_->give_input(bytes);
}

void VmImpl::tell_ports() {
    auto& params = platform_->domain().params();
    params.put(xenshim::abi::HVM_PARAM_STORE_EVTCHN, store_port_.local);
    params.put(xenshim::abi::HVM_PARAM_CONSOLE_EVTCHN, console_port_.local);
}

// What a toolstack does for a new guest: says where the rings are, and fills the store.
Result<void> VmImpl::introduce_backends() {
    namespace store = xenshim::xenstore;
    auto& domain = platform_->domain();
    domain.params().put(xenshim::abi::HVM_PARAM_STORE_PFN, layout::kXenstorePage.gfn());
    domain.params().put(xenshim::abi::HVM_PARAM_CONSOLE_PFN, layout::kConsolePage.gfn());
    tell_ports();

    store::Ring::initialise_page(machine_->memory().guest().page(layout::kXenstorePage.gfn()));
    const std::uint64_t kib = config_.memory_bytes / 1024;
    const auto populated =
        store::populate_domain(store_->store(), {.domid = config_.domid,
                                                 .name = config_.name,
                                                 .uuid = uuid_text(*config_.uuid),
                                                 .memory_max_kib = kib,
                                                 .memory_target_kib = kib,
                                                 .vcpus = config_.vcpus,
                                                 .vcpus_online = config_.vcpus,
                                                 .store_port = store_port_.local,
                                                 .store_gfn = layout::kXenstorePage.gfn(),
                                                 .console_port = console_port_.local,
                                                 .console_gfn = layout::kConsolePage.gfn(),
                                                 .console_tty = {},
                                                 .start_time = start_time()});
    if (!populated) {
        return internal_error(std::string("xenstore: ") + store::error_name(populated.error()));
    }
    return {};
}

void VmImpl::make_devices() {
    if (is_hvm()) {
        legacy_ = std::make_unique<LegacyChips>(*machine_, *platform_, loop_, at_rest_);
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
    state_ = std::make_unique<VmState>(VmState::Parts{
        .machine = *machine_, .platform = *platform_, .store = *store_, .chips = legacy_.get()});
}

Result<void> VmImpl::boot() {
    if (xenshim::abi::find_profile(config_.profile) == nullptr) {
        return user_error("--profile " + config_.profile + ": there is no such profile");
    }
    auto opened = kvm::Kvm::open();
    if (opened) opened->ask_for_cpuid();
    // Everything that the user may have got wrong comes before anything that the host may lack.
    const Files files = TRY(read_files(config_));
    config_.boot_sums = files.sums;
    if (!config_.cpu.empty()) cpu_ = TRY(read_cpu(config_.cpu));
    const auto kvm = TRY(std::move(opened));
    if (cpu_) TRY(check_cpu(kvm, config_.cpu, *cpu_));
    config_.uuid = TRY(uuid_of(config_));
    TRY(take_new_id());
    TRY(lay_out_memory());
    TRY(make_machine(kvm));
    const boot::BootInfo info = TRY(load(files));
    TRY(make_platform(kvm, kvm::FlatState{.rip = info.entry, .rbx = info.start_info.value}));
    TRY(make_backends());
    TRY(introduce_backends());
    make_devices();
    return {};
}

// ---- saved and restored -------------------------------------------------------------------------

Result<void> VmImpl::restore(const kvm::Kvm& kvm, SavedVm& saved) {
    layout_ = saved.layout();
    epoch_ = saved.start().epoch;
    if (saved.is_stream()) {
        id_ = saved.start().id;  // nowhere else will it go on
    } else {
        TRY(take_new_id());
    }
    TRY(make_machine(kvm));
    // Before all of its memory has come for nothing.
    TRY(check_cpus(kvm, saved));
    if (saved.is_stream()) {
        TRY(check_tsc(saved, machine_->vcpu(0).vcpu().tsc_khz()));
        TRY(saved.receive_rest(machine_->memory().regions()));
    } else {
        fill_ = TRY(MemoryFill::start(saved, machine_->memory(), [this](const Error& error) {
            machine_->stop({.kind = StopCause::Kind::kError, .error = error});
        }));
    }
    call_sites_ = saved.call_sites();
    // The platform writes into the kernel's call sites what traps on this host.
    TRY(make_platform(kvm, std::nullopt));
    TRY(make_backends());
    make_devices();
    // The guest's clock goes on from where it stood: of the time in between it learns by its wall
    // clock alone.
    TRY(state_->restore(saved.parts(), saved.name()));
    if (state_->begun_anew()) {
        tell_ports();  // the first ones again, whatever it made of them
    } else {
        stands_since_ns_ = state_->stands_since_ns();
    }
    TRY(platform_->set_wall_clock());
    if (config_.name != saved.config().name) {
        namespace store = xenshim::xenstore;
        const auto renamed = store::rename_domain(store_->store(), config_.domid,
                                                  uuid_text(*config_.uuid), config_.name);
        if (!renamed)
            return internal_error(std::string("xenstore: ") + store::error_name(renamed.error()));
    }
    // What they had to do when the guest was saved was told them in another process.
    store_event_->ring();
    console_event_->ring();
    return {};
}

// Everything of the guest, which stands still. It is not lost for want of memory.
Result<migration::format::End> VmImpl::write(migration::format::Writer& writer) try {
    namespace format = migration::format;
    std::vector<format::KindToWrite> kinds = state_->kinds();
    kinds.push_back({.section = config::ConfigState::kSection});
    kinds.push_back({.section = config::MemoryLayoutState::kSection});
    kinds.push_back({.section = config::CallSitesState::kSection});
    TRY(writer.start(id_, epoch_, config::profile_state(config_), kinds));
    TRY(writer.record(config::config_state(config_)));
    TRY(writer.record(layout_));
    config::CallSitesState sites{
        .sites = {}, .unknown = platform_->unknown_call_site().value_or(call_sites_.unknown)};
    for (const auto& site : platform_->call_sites()) {
        sites.sites.push_back({.gpa = site.at.value, .vmcall = site.vmcall});
    }
    TRY(writer.record(sites));
    TRY(state_->save(writer));
    platform_->domain().physmap().free_owed();  // no hole has content
    for (const auto& region : machine_->memory().regions()) {
        // What is shown over the region's pages is not what is in them.
        const auto mapped = TRY(ReadOnlyView::of(region.fd, region.pages * kPageSize));
        TRY(writer.memory(
            {.gfn = region.gfn,
             .memory = mapped.bytes(),
             .next_data = format::data_of_memfd(region.fd, region.pages * kPageSize)}));
    }
    return writer.finish();
} catch (const std::bad_alloc&) {
    return host_error("there is not enough memory to write it");
}

Result<SaveReport> VmImpl::save(const std::string& path, AfterSave after) {
    const SaveReport report = TRY(save_to(path, after, nullptr, {}));
    if (after == AfterSave::kEnd) {
        saved_ = true;
        machine_->stop({.kind = StopCause::Kind::kRequested});
    }
    return report;
}

// With the backends at rest nobody but who saves the guest looks at its memory. The loop goes on
// for those who ask how it goes.
void VmImpl::rest_backends() {
    loop_.stop();
    at_rest_ = true;
    loop_.start();
}

void VmImpl::wake_backends() {
    at_rest_ = false;
    store_event_->ring();
    console_event_->ring();
}

// Where a task writes: it is told how much, and may be told to end.
class ToldFile final : public migration::format::FileSink {
  public:
    ToldFile(migration::format::FileSink& file, LongTask* task) : file_(file), task_(task) {}
    Result<void> write_at(std::uint64_t offset, migration::format::Piece bytes) override {
        if (task_ != nullptr && task_->is_told_to_end()) return user_error("it was told to end");
        TRY(file_.write_at(offset, bytes));
        if (task_ != nullptr) task_->add(bytes.size());
        return {};
    }

  private:
    migration::format::FileSink& file_;
    LongTask* const task_;
};
class ToldLink final : public migration::format::StreamSink {
  public:
    ToldLink(migration::Link& link, LongTask& task) : link_(link), task_(task) {}
    Result<void> append(std::span<const migration::format::Piece> pieces) override {
        TRY(link_.append(pieces));
        for (const auto& piece : pieces) {
            task_.add(piece.size());
        }
        return {};
    }

  private:
    migration::HeededSink link_;
    LongTask& task_;
};

Result<SaveReport> VmImpl::save_to(const std::string& path, AfterSave after, LongTask* task,
                                   const std::function<void()>& stop) {
    namespace format = migration::format;
    if (fill_ != nullptr && !fill_->finish()) {
        return user_error("the file that the guest was restored from is damaged");
    }
    auto file = TRY(format::AtomicFile::create(path));
    if (stop) stop();
    if (machine_->stopping()) return user_error("the guest has ended");
    rest_backends();
    ++epoch_;
    const auto written = [&]() -> Result<format::End> {
        ToldFile sink(file, task);
        format::Writer writer(sink);
        const format::End end = TRY(write(writer));
        TRY(file.commit());
        return end;
    }();
    // What the guest has written to its console and nobody has read yet is in the file: it comes
    // out there if it does not go on here.
    if (!written || after == AfterSave::kGoOn) wake_backends();
    if (!written) return Failure{written.error()};
    return SaveReport{.bytes = written->length};
}

// ---- moved to another host ----------------------------------------------------------------------

// An attempt: nothing is stopped yet.
Result<void> VmImpl::begin_to_move() {
    if (fill_ != nullptr && !fill_->finish()) {
        return user_error("the file that the guest was restored from is damaged");
    }
    const migration::Attempt attempt{.vm = id_, .epoch = ++epoch_};
    const std::string folder = TRY(moves_folder());
    auto records = TRY(migration::Records::open(folder, migration::Side::kSource, id_));
    departure_.emplace();
    departure_->driver = std::make_unique<migration::Driver>(
        migration::Ownership::source(attempt), std::move(records), migration::Peer{},
        [this](migration::Action action) { return act_on_move(action); }, config_.name);
    departure_->driver->watch([this](migration::State state) { departure_->task->enter(state); });
    return {};
}

std::optional<migration::Event> VmImpl::act_on_move(migration::Action action) {
    using migration::Action;
    switch (action) {
        case Action::kStopGuest:
            departure_->stop();
            departure_->stopped = std::chrono::steady_clock::now();
            break;
        case Action::kSendRest: return departure_->driver->rest_sent(send_rest());
        case Action::kRunGuest: wake_backends(); break;
        // The process, all that is left of it, ends.
        default: break;
    }
    return std::nullopt;
}

Result<void> VmImpl::send_rest() {
    namespace format = migration::format;
    if (machine_->stopping()) return user_error("the guest has ended");
    rest_backends();
    ToldLink sink(*departure_->link, *departure_->task);
    format::Writer writer(sink);
    departure_->bytes = TRY(write(writer)).length;
    return {};
}

Result<MoveReport> VmImpl::migrate(const std::string& name, bool cancel,
                                   const std::function<void()>& stop, LongTask& task) {
    migration::Link link(TRY(connect_to_link(name)), "the other side");
    link.heed(task.told_fd());
    // One that is over here is begun anew, if the other side is not to be told of it.
    if (departure_ && departure_->driver->is_untold() && !cancel) departure_.reset();
    if (!departure_) TRY(begin_to_move());
    departure_->stop = stop;
    departure_->link = &link;
    departure_->task = &task;
    migration::Driver& driver = *departure_->driver;
    task.enter(driver.state());
    driver.depart(link, cancel);
    departure_->link = nullptr;
    const auto stood = std::chrono::steady_clock::now() - departure_->stopped;
    MoveReport report{
        .state = std::string(name_of(driver.state())),
        .outcome = driver.state() == migration::State::kGone   ? MoveReport::Outcome::kGone
                   : driver.state() == migration::State::kKept ? MoveReport::Outcome::kKept
                                                               : MoveReport::Outcome::kOpen,
        .told = !driver.is_untold(),
        .why = driver.why(),
        .bytes = departure_->bytes,
        .blackout = departure_->bytes == 0
                        ? std::chrono::nanoseconds{0}
                        : std::chrono::duration_cast<std::chrono::nanoseconds>(stood)};
    if (report.outcome != MoveReport::Outcome::kOpen && report.told) departure_.reset();
    return report;
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

Result<void> VmImpl::stand_by() {
    task_ = TRY(LongTask::create());
    TRY(loop_.prepare());
    TRY(machine_->start(*platform_, Machine::StartAs::kPaused));
    standing_by_ = true;
    if (!machine_->stopping()) return {};
    const StopCause cause = machine_->join();
    return Failure{cause.error.value_or(Error{Fault::kInternal, "the guest has ended already"})};
}

Result<RunEnd> VmImpl::run(const RunControl& control) {
    using Clock = std::chrono::steady_clock;
    constexpr std::chrono::milliseconds kHousekeeping{250};
    if (task_ == nullptr) task_ = TRY(LongTask::create());
    Steering steering(
        *machine_, *platform_, facts(),
        [&](const std::string& path, AfterSave after, const std::function<void()>& stop) {
            return save_to(path, after, task_.get(), stop);
        },
        [&](const std::string& link, bool cancel, const std::function<void()>& stop) {
            if (control.before_move && !departure_) control.before_move();
            return migrate(link, cancel, stop, *task_);
        },
        {.request = *request_, .loop = loop_}, *task_);
    if (control.point != nullptr) control.point->serve_on(loop_);
    if (stands_since_ns_) steering.stands_since(*stands_since_ns_);
    if (!control.paused) steering.stood_still();
    // The guest first.
    if (!standing_by_) {
        TRY(machine_->start(
            *platform_, control.paused ? Machine::StartAs::kPaused : Machine::StartAs::kRunning));
    } else if (!control.paused) {
        machine_->resume();
    }
    TRY(loop_.prepare());
    loop_.start();
    if (control.paused && control.stands_still) control.stands_still();
    auto next_round = Clock::now() + kHousekeeping;
    while (!machine_->stopping()) {
        std::array<pollfd, 6> fds{{{.fd = machine_->stop_fd(), .events = POLLIN, .revents = 0},
                                   {.fd = control.signal_fd, .events = POLLIN, .revents = 0},
                                   {.fd = control.point != nullptr ? control.point->fd() : -1,
                                    .events = POLLIN,
                                    .revents = 0},
                                   {.fd = machine_->hold_fd(), .events = POLLIN, .revents = 0},
                                   {.fd = request_taken_->fd(), .events = POLLIN, .revents = 0},
                                   {.fd = task_->fd(), .events = POLLIN, .revents = 0}}};
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
            steering.end_guest();
        }
        if (ready > 0 && (fds[3].revents & POLLIN) != 0 && control.stands_still) {
            control.stands_still();
        }
        if (ready > 0 && (fds[4].revents & POLLIN) != 0) request_taken_->clear();
        if (control.point != nullptr) {
            if (ready > 0 && (fds[5].revents & POLLIN) != 0) steering.attend(*control.point);
            if (ready > 0 && (fds[2].revents & POLLIN) != 0) steering.serve(*control.point);
            steering.look_at_guest(*control.point);
        }
    }
    // Before its vCPUs are gone: what is under way may be looking at them.
    if (control.point != nullptr) steering.end(*control.point);
    if (steering.destroyed()) end_asked_ = true;
    if (steering.saved()) saved_ = true;
    if (steering.moved()) moved_ = true;
    const StopCause cause = machine_->join();
    loop_.stop();
    // What it wrote and nobody has read yet comes out where it goes on.
    if (!saved_ && !moved_) drain_console();
    log_info("run", "continuations: %llu",
             static_cast<unsigned long long>(platform_->continuations()));
    if (cause.error) return Failure{*cause.error};
    if (saved_) return RunEnd{RunEnd::Kind::kSaved};
    if (moved_) return RunEnd{RunEnd::Kind::kMoved};
    // Also when the guest ended by itself at the same moment: it is not restarted.
    if (end_asked_) return RunEnd{RunEnd::Kind::kTerminated};
    return end_of(cause);
}

}  // namespace

Result<void> check_boot_files(const VmConfig& config) {
    if (TRY(read_files(config)).sums == config.boot_sums) return {};
    return user_error("the files of its boot (" + config.image() +
                      ", ramdisk, modules) are not those here");
}

Result<std::unique_ptr<Vm>> Vm::create(const VmConfig& config, const ConsoleFds& console,
                                       xenshim::trace::Writer* trace) {
    auto vm = std::make_unique<VmImpl>(config, console, trace);
    TRY(vm->boot());
    return std::unique_ptr<Vm>(std::move(vm));
}

Result<std::unique_ptr<Vm>> Vm::restore(const kvm::Kvm& kvm, SavedVm& saved, const VmConfig& config,
                                        const ConsoleFds& console, xenshim::trace::Writer* trace) {
    auto vm = std::make_unique<VmImpl>(config, console, trace);
    TRY(vm->restore(kvm, saved));
    return std::unique_ptr<Vm>(std::move(vm));
}

}  // namespace vmm::cli
