// vcpu_move: a small guest is stopped anywhere, all that KVM keeps of it is saved, its VM is
// destroyed, and another VM goes on with it; again and again, until it ends. It must end as one
// that was never touched. Needs /dev/kvm; exit status 4: there is none.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <sched.h>

#include <gtest/gtest.h>

#include "tests/move/guest.h"
#include "vmm/base/saved.h"
#include "vmm/kvm/cpuid_state.h"
#include "vmm/kvm/vcpu_state.h"
#include "vmm/machine/machine.h"

extern "C" const std::byte move_guest[], move_guest_timer[], move_guest_fault[], move_guest_end[];
extern "C" const std::byte move_guest_ap[], move_guest_ap_end[];

namespace {

using vmm::Machine;
using vmm::kvm::Activity;
using vmm::kvm::CpuidState;
using vmm::kvm::VcpuState;
using vmm::kvm::VcpuTimeState;

constexpr std::uint64_t kRamBytes = 1 << 20;

const vmm::kvm::Kvm& kvm() {
    static const auto opened = vmm::kvm::Kvm::open();
    return *opened;
}

// The outer world: it stays while machines come and go, so that whatever is lost or comes twice
// shows in it.
struct World {
    struct Seen {
        std::uint64_t numbers = 0, bytes_out = 0, bytes_sum = 0, bytes_in = 0;
        std::uint64_t stores = 0, stores_sum = 0, loads = 0;
        bool operator==(const Seen&) const = default;
    };

    // One access of the guest's is about to be answered.
    void accessed() {
        if (++accesses != stop_at) return;
        {
            const std::scoped_lock lock(mutex);
            reached = true;
        }
        changed.notify_all();
        // The pause meets this very access, or it comes soon after it.
        while (exactly ? (stops->requests().load() & vmm::kPauseRequest) == 0 : !coming) {
            ::sched_yield();
        }
    }

    Seen seen;
    std::atomic<std::uint64_t> accesses{0};
    std::atomic<std::uint64_t> stop_at{~std::uint64_t{0}};
    bool exactly = false;
    std::atomic<bool> coming{false};  // the control thread is about to pause the guest
    vmm::VcpuThread* stops = nullptr;
    std::mutex mutex;  // guards what follows
    bool ended = false;
    bool reached = false;
    std::condition_variable changed;
};

class Ports final : public vmm::PioDevice {
  public:
    explicit Ports(World& world) : world_(world) {}
    const char* name() const override { return "ports"; }
    std::span<const vmm::PortRange> ranges() const override { return kRanges; }
    std::uint32_t read(vmm::IoAccess at) override {
        world_.accessed();
        if (at.offset == PORT_TIMER) return 1;
        if (at.offset == PORT_NUMBER) {
            return static_cast<std::uint32_t>(++world_.seen.numbers * 2654435761);
        }
        return static_cast<std::uint32_t>(++world_.seen.bytes_in * 181) & 0xff;
    }
    void write(vmm::IoAccess at, std::uint32_t value) override {
        if (at.offset == PORT_END) {
            const std::scoped_lock lock(world_.mutex);
            world_.ended = true;
            world_.changed.notify_all();
            return;
        }
        world_.accessed();
        ++world_.seen.bytes_out;
        world_.seen.bytes_sum = world_.seen.bytes_sum * 31 + value;
    }

  private:
    static constexpr vmm::PortRange kRanges[] = {{PORT_NUMBER, 4}};
    World& world_;
};

class Registers final : public vmm::MmioDevice {
  public:
    explicit Registers(World& world) : world_(world) {}
    const char* name() const override { return "registers"; }
    vmm::MmioRange range() const override { return {.base = vmm::Gpa{MMIO}, .size = 0x2000}; }
    std::uint64_t read(vmm::IoAccess) override {
        world_.accessed();
        return ++world_.seen.loads * 40503;
    }
    void write(vmm::IoAccess at, std::uint64_t value) override {
        world_.accessed();
        ++world_.seen.stores;
        world_.seen.stores_sum = world_.seen.stores_sum * 31 + value + at.offset;
    }

  private:
    World& world_;
};

class NoPlatform final : public vmm::Platform {
  public:
    void vcpu_ready(vmm::VcpuThread&) override {}
    void attend(vmm::VcpuThread&, std::uint32_t) override {}
    bool handle_exit(vmm::VcpuThread&, vmm::kvm::ExitReason) override { return false; }
    void ap_started(vmm::VcpuThread&) override {}
    void stands(vmm::VcpuThread&) override {}
    void goes_on(vmm::VcpuThread&) override {}
    void inspect(vmm::VcpuThread&) override {}
    void housekeeping() override {}
};

// What the guest is to do.
struct Plan {
    std::uint32_t timer = TIMER_NONE;
    bool ap = false;
    std::uint64_t rounds = 24;
    std::uint64_t ticks = 0;
};

template <class T>
void put(std::vector<std::byte>& ram, std::uint64_t at, T value) {
    std::memcpy(ram.data() + at, &value, sizeof value);
}
template <class T>
T take(const std::vector<std::byte>& ram, std::uint64_t at) {
    T value;
    std::memcpy(&value, ram.data() + at, sizeof value);
    return value;
}

std::vector<std::byte> first_ram(const Plan& plan, std::uint32_t tsc_khz) {
    std::vector<std::byte> ram(kRamBytes);
    for (std::uint64_t level = 0; level < 3; ++level) {
        put(ram, PAGE_TABLES + level * 0x1000, (PAGE_TABLES + (level + 1) * 0x1000) | 0x23);
    }
    for (std::uint64_t page = 0; page < 512; ++page) {
        put(ram, PAGE_TABLES + 0x3000 + page * 8, page * 0x1000 | 0x63);
    }
    put(ram, GDT + 8, std::uint64_t{0x00af9b000000ffff});
    put(ram, GDT + 16, std::uint64_t{0x00cf93000000ffff});
    for (std::uint64_t vector = 0; vector < 256; ++vector) {
        if (vector >= 32 && vector != TIMER_VECTOR) continue;
        const auto* handler = vector == TIMER_VECTOR ? move_guest_timer : move_guest_fault;
        const auto at = CODE + static_cast<std::uint64_t>(handler - move_guest);
        put(ram, IDT + vector * 16,
            (at & 0xffff) | 8u << 16 | std::uint64_t{0x8e00} << 32 | (at >> 16 & 0xffff) << 48);
    }
    std::memcpy(ram.data() + CODE, move_guest,
                static_cast<std::size_t>(move_guest_end - move_guest));
    std::memcpy(ram.data() + AP_CODE, move_guest_ap,
                static_cast<std::size_t>(move_guest_ap_end - move_guest_ap));
    put(ram, ROUNDS_WANTED, plan.rounds);
    put(ram, TICKS_WANTED, plan.ticks);
    put(ram, TIMER, plan.timer);
    put(ram, TIMER_NS, std::uint32_t{2'000'000});
    put(ram, TIMER_TICKS, 2 * tsc_khz);
    put(ram, USE_AP, std::uint32_t{plan.ap ? 1u : 0});
    // An FXSAVE image: control words that are not those of a reset, eight and sixteen registers.
    put(ram, FX_LOADED, std::uint64_t{0x0000'00ff'0000'027f});
    put(ram, FX_LOADED + 24, std::uint32_t{0x1fa0});
    put(ram, FX_LOADED + 28, std::uint32_t{0xffff});
    for (std::uint64_t i = 0; i < 8; ++i) {
        put(ram, FX_LOADED + 32 + i * 16, 0x8000'0000'0000'0001 + i * 0x0101'0101'0101'0101);
        put(ram, FX_LOADED + 40 + i * 16, static_cast<std::uint16_t>(0x3fff + i));
    }
    for (std::uint64_t i = 0; i < 32; ++i) {
        put(ram, FX_LOADED + 160 + i * 8, (i + 1) * 0x0123'4567'89ab'cdef);
    }
    return ram;
}

// What goes from one VM to the next, as bytes where it would travel as bytes.
struct Moved {
    std::vector<std::byte> clock;
    std::vector<std::vector<std::byte>> vcpus, times, cpuids;
    std::vector<std::byte> ram;
};

template <class T>
T decoded(const std::vector<std::byte>& bytes) {
    auto state = vmm::saved::decode<T>(bytes, T::kSection.version);
    if (!state) throw std::runtime_error(state.error());
    return *std::move(state);
}

template <class T>
auto checked(T result) {
    if (!result) throw std::runtime_error(result.error().what);
    return *std::move(result);
}

// One VM and its life.
class Carrier {
  public:
    Carrier(World& world, unsigned vcpus)
        : world_(world), ports_(world), registers_(world), machine_(make(vcpus)) {
        machine_->pio().add(ports_);
        machine_->mmio().add(registers_);
        checked(machine_->memory().add_region("guest-ram", vmm::Gpa{0}, kRamBytes));
    }

    void begin(const Plan& plan) {
        auto leaves = checked(kvm().supported_cpuid());
        // Hypervisors' leaves, among them KVM's own, are not for this guest.
        std::erase_if(leaves, [](const auto& leaf) { return leaf.function >> 28 == 4; });
        for (auto& leaf : leaves) {
            constexpr std::uint32_t kX2apic = 1u << 21, kTscDeadline = 1u << 24;
            if (leaf.function == 1) leaf.ecx |= kX2apic | kTscDeadline;
        }
        for (unsigned v = 0; v < machine_->vcpus(); ++v) {
            checked(machine_->vcpu(v).vcpu().set_cpuid(leaves));
            cpuids_.push_back(CpuidState::of(leaves));
        }
        copy_in(first_ram(plan, machine_->vcpu(0).vcpu().tsc_khz()));
        vmm::kvm::FullState state;
        state.rip = CODE;
        state.cr0 = 0x80000013;
        state.cr3 = PAGE_TABLES;
        state.cr4 = 0x220;  // PAE, OSFXSR
        state.efer = 0x500;
        state.cs = {.base = 0, .limit = 0xffffffff, .attributes = 0xa9b};
        state.ds = state.es = state.ss = {.base = 0, .limit = 0xffffffff, .attributes = 0xc93};
        state.tr = {.base = 0, .limit = 0x67, .attributes = 0x8b};
        checked(machine_->vcpu(0).vcpu().set_full_state(state));
    }

    void begin(const Moved& moved) {
        copy_in(moved.ram);
        const auto now = checked(machine_->restore_clock(decoded<vmm::kvm::VmClockState>(moved.clock)));
        for (unsigned v = 0; v < machine_->vcpus(); ++v) {
            cpuids_.push_back(decoded<CpuidState>(moved.cpuids[v]));
            checked(machine_->vcpu(v).vcpu().set_cpuid(cpuids_.back().given()));
            const auto state = decoded<VcpuState>(moved.vcpus[v]);
            const auto time = decoded<VcpuTimeState>(moved.times[v]);
            checked(machine_->vcpu(v).restore(state, time, false, now));
            expect_same(state, checked(machine_->vcpu(v).save(now)).state);
        }
    }

    // Runs until the guest's access number `at`, and there (or soon after it) stands still. False:
    // it came to its end before.
    bool run_to(std::uint64_t at, bool exactly) {
        {
            const std::scoped_lock lock(world_.mutex);
            world_.reached = false;
            world_.stop_at = at;
            world_.exactly = exactly;
            world_.coming = false;
            world_.stops = &machine_->vcpu(0);
        }
        start();
        return wait([&] { return world_.reached; });
    }

    // Runs until the guest sleeps and waits for an interrupt, after it has had some more of them.
    bool run_to_sleep() {
        const std::uint64_t ticks = word<std::uint64_t>(TICKS);
        start();
        return wait([&] {
            return word<std::uint32_t>(ASLEEP) != 0 && word<std::uint64_t>(TICKS) != ticks;
        });
    }

    // Stands still before its first instruction.
    void start_paused() {
        checked(machine_->start(platform_, Machine::StartAs::kPaused));
        started_ = true;
    }

    Moved save() {
        Moved moved;
        const auto at = checked(machine_->read_clock());
        moved.clock = vmm::saved::encode(
            vmm::kvm::VmClockState{.clock_ns = at.clock_ns, .realtime_ns = at.realtime_ns});
        for (unsigned v = 0; v < machine_->vcpus(); ++v) {
            const auto [state, time] = checked(machine_->vcpu(v).save(at));
            ++activities[static_cast<unsigned>(state.activity)];
            moved.vcpus.push_back(vmm::saved::encode(state));
            moved.times.push_back(vmm::saved::encode(time));
            moved.cpuids.push_back(vmm::saved::encode(cpuids_[v]));
        }
        moved.ram = ram();
        return moved;
    }

    std::vector<std::byte> ram() {
        const std::byte* from = machine_->memory().guest().page(0);
        return {from, from + kRamBytes};
    }
    Machine& machine() { return *machine_; }

    static inline unsigned activities[5] = {};

  private:
    static std::unique_ptr<Machine> make(unsigned vcpus) {
        return checked(Machine::create(kvm(), {.vcpus = vcpus, .own_pages = 1}));
    }
    void start() {
        if (started_) {
            machine_->resume();
        } else {
            checked(machine_->start(platform_));
        }
        started_ = true;
    }
    // Until `there`, and pauses; false: the guest has come to its end.
    bool wait(const std::function<bool()>& there) {
        std::unique_lock lock(world_.mutex);
        const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
        while (!there() && !world_.ended && !machine_->stopping()) {
            if (std::chrono::steady_clock::now() > limit) throw std::runtime_error("it hangs");
            // What the guest writes into its memory tells nobody.
            world_.changed.wait_for(lock, std::chrono::microseconds(200));
        }
        const bool more = !world_.ended;
        lock.unlock();
        if (machine_->stopping()) throw std::runtime_error("the guest died");
        world_.coming = true;
        machine_->pause();
        return more;
    }
    // A word of the guest's memory while it runs.
    template <class T>
    T word(std::uint64_t at) {
        return std::atomic_ref<T>(*machine_->memory().guest().word<T>(vmm::Gpa{at})).load();
    }
    void copy_in(const std::vector<std::byte>& ram) {
        std::memcpy(machine_->memory().guest().page(0), ram.data(), ram.size());
    }

    // Saved again before it ran, a vCPU is as it was; but a timer of the LAPIC's may have expired.
    static void expect_same(VcpuState was, VcpuState is) {
        constexpr std::uint32_t kIrr = 0x200, kInitialCount = 0x380;
        for (VcpuState* s : {&was, &is}) {
            if ((s->lapic_register(0x320) & 0xff) != TIMER_VECTOR) continue;
            s->set_lapic_register(kInitialCount, 0);
            const std::uint32_t word = kIrr + (TIMER_VECTOR / 32) * 0x10;
            s->set_lapic_register(word, s->lapic_register(word) | 1u << (TIMER_VECTOR % 32));
            s->msrs.erase(0x6e0);
            if (s->activity == Activity::kHalted) s->activity = Activity::kRunnable;
        }
        EXPECT_EQ(was.gpr, is.gpr);
        EXPECT_EQ(was.rip, is.rip);
        EXPECT_EQ(was.rflags, is.rflags);
        EXPECT_TRUE(was.system == is.system);
        EXPECT_TRUE(was.debug == is.debug);
        EXPECT_EQ(was.xsave, is.xsave);
        EXPECT_EQ(was.msrs, is.msrs);
        for (std::uint32_t i = 0; i < was.lapic.size(); i += 16) {
            EXPECT_EQ(was.lapic_register(i), is.lapic_register(i)) << "LAPIC register " << i;
        }
        EXPECT_TRUE(was.events == is.events);
        EXPECT_TRUE(was == is);
    }

    World& world_;
    Ports ports_;
    Registers registers_;
    NoPlatform platform_;
    std::vector<CpuidState> cpuids_;
    bool started_ = false;
    std::unique_ptr<Machine> machine_;
};

struct End {
    std::vector<std::byte> ram;
    World::Seen seen;
    std::uint64_t accesses = 0;
    unsigned moves = 0;
};

// Runs the guest to its end. `stop` runs it to where it is to be moved next; false: to its end.
End run(const Plan& plan, const std::function<bool(Carrier&, World&)>& stop) {
    World world;
    End end;
    auto carrier = std::make_unique<Carrier>(world, plan.ap ? 2 : 1);
    carrier->begin(plan);
    while (stop(*carrier, world)) {
        const Moved moved = carrier->save();
        carrier.reset();
        carrier = std::make_unique<Carrier>(world, plan.ap ? 2 : 1);
        carrier->begin(moved);
        ++end.moves;
    }
    end.ram = carrier->ram();
    end.seen = world.seen;
    end.accesses = world.accesses;
    return end;
}

constexpr std::uint64_t kNever = ~std::uint64_t{0};

void expect_good(const Plan& plan, const End& end) {
    EXPECT_EQ(take<std::uint64_t>(end.ram, ROUNDS), plan.rounds);
    EXPECT_EQ(take<std::uint64_t>(end.ram, WRONG), 0u)
        << "MSR " << take<std::uint32_t>(end.ram, WRONG_MSR) << " FX "
        << take<std::uint32_t>(end.ram, WRONG_FX) << " at " << std::hex
        << take<std::uint64_t>(end.ram, SUMS) << ' ' << take<std::uint64_t>(end.ram, SUMS + 8);
    EXPECT_EQ(take<std::uint64_t>(end.ram, CHECKS), plan.rounds / 8 + 1);
    EXPECT_GE(take<std::uint64_t>(end.ram, TICKS), plan.ticks);
    EXPECT_EQ(take<std::uint64_t>(end.ram, TIMER_SUM), take<std::uint64_t>(end.ram, TICKS));
    EXPECT_EQ(take<std::uint32_t>(end.ram, UNASKED), 0u);
}

// All that the guest worked out, and all that the world saw.
void expect_same(const End& moved, const End& whole) {
    for (unsigned i = 0; i < 8; ++i) {
        EXPECT_EQ(take<std::uint64_t>(moved.ram, SUMS + i * 8),
                  take<std::uint64_t>(whole.ram, SUMS + i * 8))
            << "r" << 8 + i;
    }
    EXPECT_TRUE(moved.seen == whole.seen)
        << moved.seen.numbers << '/' << whole.seen.numbers << " numbers, " << moved.seen.bytes_out
        << '/' << whole.seen.bytes_out << " bytes out, " << moved.seen.bytes_in << '/'
        << whole.seen.bytes_in << " in, " << moved.seen.stores << '/' << whole.seen.stores
        << " stores, " << moved.seen.loads << '/' << whole.seen.loads << " loads";
}

unsigned g_moves = 0;

// Each move takes a tenth of a second in tests/lab, and a hundredth elsewhere.
std::uint64_t in_lab(std::uint64_t factor) {
    return std::getenv("XENOLITH_LAB") != nullptr ? factor : 1;
}

End expect_as_whole(const Plan& plan, const std::function<bool(Carrier&, World&)>& stop) {
    static std::map<std::tuple<std::uint32_t, bool, std::uint64_t, std::uint64_t>, End> wholes;
    auto& whole = wholes[{plan.timer, plan.ap, plan.rounds, plan.ticks}];
    if (whole.ram.empty()) {
        whole = run(plan, [](Carrier& c, World&) { return c.run_to(kNever, false); });
        expect_good(plan, whole);
    }
    const End moved = run(plan, stop);
    expect_good(plan, moved);
    expect_same(moved, whole);
    g_moves += moved.moves;
    return moved;
}

void move_often(const Plan& plan, bool exactly, std::uint64_t step) {
    step *= in_lab(5);
    const End moved = expect_as_whole(plan, [&](Carrier& carrier, World& world) {
        return carrier.run_to(world.accesses + step, exactly);
    });
    EXPECT_GE(moved.moves, moved.accesses / step / 2);
}

TEST(Move, AtEachAccessOfDevices) {
    move_often({.rounds = 16}, true, 1);
}

TEST(Move, BetweenAccesses) {
    move_often({}, false, 3);
}

TEST(Move, WithAOneShotTimer) {
    const Plan plan{.timer = TIMER_ONE_SHOT, .rounds = 8, .ticks = 12};
    move_often(plan, true, 1);
    move_often(plan, false, 2);
}

TEST(Move, WithAPeriodicTimer) {
    const Plan plan{.timer = TIMER_PERIODIC, .rounds = 8, .ticks = 12};
    move_often(plan, true, 3);
    move_often(plan, false, 2);
}

TEST(Move, WithADeadlineOfTheTsc) {
    const Plan plan{.timer = TIMER_DEADLINE, .rounds = 8, .ticks = 12};
    move_often(plan, true, 1);
    move_often(plan, false, 2);
}

TEST(Move, Asleep) {
    for (const std::uint32_t timer : {TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_DEADLINE}) {
        const End moved =
            expect_as_whole({.timer = timer, .rounds = 8, .ticks = 30},
                            [](Carrier& carrier, World&) { return carrier.run_to_sleep(); });
        EXPECT_GE(moved.moves, 5u);
    }
    EXPECT_GE(Carrier::activities[static_cast<unsigned>(Activity::kHalted)], 5u);
}

TEST(Move, WithAnotherCpu) {
    const Plan plan{.timer = TIMER_DEADLINE, .ap = true, .rounds = 8, .ticks = 4};
    move_often(plan, true, 4);
    // Before its first instruction, between INIT and SIPI, and soon after.
    unsigned moves = 0;
    expect_as_whole(plan, [&](Carrier& carrier, World& world) {
        if (moves++ == 0) {
            carrier.start_paused();
            return true;
        }
        return carrier.run_to(moves < 8 ? world.accesses + 1 : kNever, true);
    });
    EXPECT_GE(Carrier::activities[static_cast<unsigned>(Activity::kUninitialized)] +
                  Carrier::activities[static_cast<unsigned>(Activity::kInitReceived)],
              2u);
}

}  // namespace

int main(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);
    if (const auto opened = vmm::kvm::Kvm::open(); !opened) {
        std::fprintf(stderr, "%s\n", opened.error().what.c_str());
        return 4;
    }
    // One VM stays for the whole time, its LAPIC off: for the first and the last of either the
    // kernel patches its own text, which the emulated CPUs of tests/lab now and then do not notice.
    auto vm = vmm::kvm::Vm::create(kvm());
    if (!vm || !(*vm)->create_split_irqchip(0)) return 4;
    const auto stays = vmm::kvm::Vcpu::create(kvm(), **vm, 0);
    const int status = RUN_ALL_TESTS();
    std::printf(
        "moved %u times; vCPUs were running %u times, waiting for INIT or SIPI %u, halted %u\n",
        g_moves, Carrier::activities[0], Carrier::activities[1] + Carrier::activities[2],
        Carrier::activities[3]);
    return status;
}
