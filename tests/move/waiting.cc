// A vCPU that sleeps in a hypercall goes from one VM to the next: on each transport that this host
// has, and from each to each. The guest's clock and its deadline go with it.
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <thread>

#include <gtest/gtest.h>

#include "vmm/base/saved.h"
#include "vmm/machine/machine.h"
#include "xenshim/transport/kvm_xen.h"
#include "xenshim/transport/portable.h"

extern "C" const std::byte wait_guest[], wait_guest_end[];

namespace {

constexpr std::uint64_t kRamBytes = 1 << 20, kPageTables = 0x1000, kCode = 0x10000, kPoll = 0x8000;
constexpr std::uint64_t kResult = 0x8020, kBefore = 0x8028, kAreaAt = 0x8030, kAreaResult = 0x8038;
constexpr std::uint64_t kArea = 0x9000;  // struct vcpu_runstate_info
constexpr std::uint16_t kEndPort = 0x33;

const vmm::kvm::Kvm& kvm() {
    static const auto opened = vmm::kvm::Kvm::open();
    return *opened;
}

class EndPort final : public vmm::PioDevice {
  public:
    const char* name() const override { return "end"; }
    std::span<const vmm::PortRange> ranges() const override { return kRanges; }
    std::uint32_t read(vmm::IoAccess at) override { return at.all_ones(); }
    void write(vmm::IoAccess, std::uint32_t) override { ended = true; }
    std::atomic<bool> ended{false};

  private:
    static constexpr vmm::PortRange kRanges[] = {{kEndPort, 1}};
};

struct Vm {
    explicit Vm(bool kvm_xen) {
        machine = *vmm::Machine::create(kvm(), {.vcpus = 1, .own_pages = xenshim::kOwnPages});
        EXPECT_TRUE(machine->memory().add_region("guest-ram", vmm::Gpa{0}, kRamBytes));
        machine->pio().add(end);
        xenshim::PlatformConfig config;
        config.domain.profile = xenshim::abi::find_profile("xen-4.17");
        config.domain.memory_map = {{.base = 0, .size = kRamBytes, .type = 1}};
        config.domain.memory = {.current = kRamBytes / vmm::kPageSize,
                                .maximum = kRamBytes / vmm::kPageSize,
                                .highest_gfn = kRamBytes / vmm::kPageSize - 1};
        if (kvm_xen) {
            const auto flags = static_cast<std::uint32_t>(kvm().check(vmm::kvm::Cap::kXenHvm));
            platform =
                std::make_unique<xenshim::KvmXenTransport>(*machine, std::move(config), flags);
        } else {
            platform = std::make_unique<xenshim::PortableTransport>(*machine, std::move(config));
        }
        EXPECT_TRUE(platform->set_up(kvm()));
    }
    std::byte* ram() { return machine->memory().guest().page(0); }
    template <class T>
    void put(std::uint64_t at, T value) {
        std::memcpy(ram() + at, &value, sizeof value);
    }
    std::uint64_t word(std::uint64_t at) {
        return std::atomic_ref<std::uint64_t>(
                   *machine->memory().guest().word<std::uint64_t>(vmm::Gpa{at}))
            .load();
    }

    // The guest asks to sleep until its clock shows `until_ns`.
    void begin(std::uint64_t until_ns) {
        for (std::uint64_t level = 0; level < 3; ++level) {
            put(kPageTables + level * 0x1000, (kPageTables + (level + 1) * 0x1000) | 0x23);
        }
        for (std::uint64_t page = 0; page < 512; ++page) {
            put(kPageTables + 0x3000 + page * 8, page * 0x1000 | 0x63);
        }
        std::memcpy(ram() + kCode, wait_guest,
                    static_cast<std::size_t>(wait_guest_end - wait_guest));
        put(kPoll + 16, until_ns);  // struct sched_poll: no ports
        put(kAreaAt, kArea);
        vmm::kvm::FullState state;
        state.rip = kCode;
        state.cr0 = 0x80000011;
        state.cr3 = kPageTables;
        state.cr4 = 0x20;
        state.efer = 0x500;
        state.cs = {.base = 0, .limit = 0xffffffff, .attributes = 0xa9b};
        state.ds = state.es = state.ss = {.base = 0, .limit = 0xffffffff, .attributes = 0xc93};
        state.tr = {.base = 0, .limit = 0x67, .attributes = 0x8b};
        EXPECT_TRUE(machine->vcpu(0).vcpu().set_full_state(state));
        EXPECT_TRUE(machine->start(*platform));
    }

    bool reaches(const std::function<bool()>& there) {
        const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(30);
        while (!there() && !machine->stopping()) {
            if (std::chrono::steady_clock::now() > limit) return false;
            std::this_thread::sleep_for(std::chrono::microseconds(500));
        }
        return !machine->stopping();
    }
    bool sleeps() { return platform->domain().runstate(0).state == xenshim::Runstate::kBlocked; }

    EndPort end;
    std::unique_ptr<vmm::Machine> machine;
    std::unique_ptr<xenshim::XenPlatform> platform;
};

// What the domain's state will carry.
void carry_runstate(xenshim::Domain& to, const xenshim::Runstate& from) {
    to.vcpu(0).runstate.now = from;
    to.place_runstate_area(0, kArea, false, true);
}

void expect_sleeps_on(bool from_xen, bool to_xen) {
    constexpr std::uint64_t kUntil = 700'000'000;
    std::vector<std::byte> ram;
    vmm::kvm::VmClockState clock;
    std::optional<xenshim::VcpuMoved> moved;
    xenshim::Runstate runstate;
    {
        Vm from(from_xen);
        from.begin(kUntil);
        ASSERT_TRUE(from.reaches([&] { return from.sleeps(); }));
        from.machine->pause();
        from.platform->settle();
        const auto at = from.machine->read_clock();
        ASSERT_TRUE(at);
        clock = {.clock_ns = at->clock_ns, .realtime_ns = at->realtime_ns};
        auto saved = from.platform->save_vcpu(0, *at);
        ASSERT_TRUE(saved) << saved.error().what;
        moved = *std::move(saved);
        runstate = from.platform->domain().vcpu(0).runstate.now;
        ram.assign(from.ram(), from.ram() + kRamBytes);
        ASSERT_FALSE(from.end.ended) << "it was too slow, or did not sleep";
    }
    EXPECT_TRUE(moved->wait.waits);
    EXPECT_EQ(moved->wait.deadline_ns, kUntil);
    EXPECT_EQ(moved->cpu.activity, vmm::kvm::Activity::kHalted);
    const std::uint64_t accounted =
        std::accumulate(runstate.time_ns.begin(), runstate.time_ns.end(), std::uint64_t{0});
    EXPECT_NEAR(static_cast<double>(accounted), static_cast<double>(runstate.since_ns), 1e6);
    EXPECT_LE(runstate.since_ns, clock.clock_ns + 1'000'000);
    EXPECT_EQ(runstate.state, xenshim::Runstate::kBlocked);

    Vm to(to_xen);
    std::memcpy(to.ram(), ram.data(), ram.size());
    carry_runstate(to.platform->domain(), runstate);
    to.platform->domain().count_incarnation();
    const auto now = to.machine->restore_clock(clock);
    ASSERT_TRUE(now);
    const auto restored = to.platform->restore_vcpu(0, *moved, *now);
    ASSERT_TRUE(restored) << restored.error().what;
    ASSERT_TRUE(to.machine->start(*to.platform, vmm::Machine::StartAs::kPaused));
    // Saved again before it ran: the same vCPU, also if its sleep is over by now.
    to.platform->settle();
    const auto again = to.platform->save_vcpu(0, *now);
    ASSERT_TRUE(again) << again.error().what;
    EXPECT_EQ(to.platform->domain().incarnation(), 2u);
    EXPECT_EQ(vmm::saved::encode(again->cpuid), vmm::saved::encode(moved->cpuid));
    EXPECT_TRUE(to.sleeps());
    EXPECT_EQ(vmm::saved::encode(again->wait), vmm::saved::encode(moved->wait));
    EXPECT_EQ(again->cpu.gpr, moved->cpu.gpr);
    EXPECT_EQ(again->cpu.rip, moved->cpu.rip);
    EXPECT_EQ(again->cpu.msrs, moved->cpu.msrs);
    EXPECT_EQ(again->cpu.lapic, moved->cpu.lapic);
    EXPECT_EQ(again->cpu.activity, moved->cpu.activity);
    EXPECT_EQ(vmm::saved::encode(again->cpu), vmm::saved::encode(moved->cpu));
    to.machine->resume();
    ASSERT_TRUE(to.reaches([&] { return to.end.ended.load(); }));
    EXPECT_GE(to.machine->system_time_ns(), kUntil);
    to.machine->pause();  // nobody writes the account any more
    EXPECT_EQ(to.word(kBefore), 1u);
    EXPECT_EQ(to.word(kAreaResult), 0u);
    EXPECT_EQ(to.word(kResult), 0u);
    // What the guest is shown: it runs or would like to, and all of its time, here and there, is in
    // the account.
    EXPECT_LE(to.word(kArea) & 0xffffffff, std::uint32_t{xenshim::Runstate::kRunnable});
    std::uint64_t shown = 0;
    for (std::uint64_t i = 0; i < 4; ++i) {
        const std::uint64_t time = to.word(kArea + 16 + i * 8);
        EXPECT_GE(time, i == xenshim::Runstate::kBlocked ? 0 : runstate.time_ns[i]) << i;
        shown += time;
    }
    EXPECT_NEAR(static_cast<double>(shown), static_cast<double>(to.word(kArea + 8)), 1e6);
    EXPECT_GE(shown + 1'000'000, kUntil);
    const auto after = to.platform->domain().runstate(0);
    EXPECT_EQ(after.state, xenshim::Runstate::kRunning);
    // All of the sleep is in the account, on both sides of the move.
    EXPECT_GE(after.time_ns[xenshim::Runstate::kBlocked], kUntil - clock.clock_ns);
    // KVM calls offline what was before the guest asked for the area; the move adds nothing to it.
    EXPECT_EQ(after.time_ns[xenshim::Runstate::kOffline],
              runstate.time_ns[xenshim::Runstate::kOffline]);
}

std::vector<bool> transports() {
    const bool has_xen = (static_cast<std::uint32_t>(kvm().check(vmm::kvm::Cap::kXenHvm)) &
                          vmm::kvm::kXenInterceptHypercall) != 0;
    return has_xen ? std::vector{false, true} : std::vector{false};
}

TEST(Waiting, GoesOnUntilItsTime) {
    for (const bool from : transports()) {
        for (const bool to : transports()) {
            SCOPED_TRACE(std::string(from ? "kvm-xen" : "portable") + " to " +
                         (to ? "kvm-xen" : "portable"));
            expect_sleeps_on(from, to);
        }
    }
}

TEST(Waiting, IsRefusedWhenItCannotBe) {
    Vm from(false);
    from.begin(10'000'000'000);
    ASSERT_TRUE(from.reaches([&] { return from.sleeps(); }));
    from.machine->pause();
    from.platform->settle();
    const auto at = from.machine->read_clock();
    ASSERT_TRUE(at);
    const auto good = from.platform->save_vcpu(0, *at);
    ASSERT_TRUE(good);
    const auto expect_refused = [&](const std::string& because, auto change) {
        auto bad = *good;
        change(bad);
        Vm to(false);
        const auto now = to.machine->restore_clock({.clock_ns = at->clock_ns});
        ASSERT_TRUE(now);
        const auto restored = to.platform->restore_vcpu(0, bad, *now);
        ASSERT_FALSE(restored) << because;
        EXPECT_NE(restored.error().what.find(because), std::string::npos) << restored.error().what;
    };
    using Moved = xenshim::VcpuMoved;
    expect_refused("is not halted",
                   [](Moved& m) { m.cpu.activity = vmm::kvm::Activity::kRunnable; });
    expect_refused("waits for nothing", [](Moved& m) { m.wait.waits = false; });
    expect_refused("lacks cpuid-1.0-edx-10", [](Moved& m) {
        for (auto& leaf : m.cpuid.leaves) {
            if (leaf.function == 1) leaf.edx |= 1u << 10;
        }
    });
    expect_refused("cpuid: leaves", [](Moved& m) { m.cpuid.leaves.resize(300); });
}

}  // namespace
