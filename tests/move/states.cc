// A vCPU's saved state and KVM, without a guest: what was made up comes back from KVM as it was,
// and what this host cannot hold is refused by name.
#include <algorithm>
#include <cstring>

#include <gtest/gtest.h>

#include "vmm/kvm/kvm.h"
#include "vmm/kvm/vcpu_state.h"
#include "vmm/machine/machine.h"

namespace {

using vmm::kvm::Activity;
using vmm::kvm::ClockReading;
using vmm::kvm::SavedVcpu;
using vmm::kvm::VcpuState;
using vmm::kvm::VcpuTimeState;

constexpr std::uint32_t kMsrTscDeadline = 0x6e0;

const vmm::kvm::Kvm& kvm() {
    static const auto opened = vmm::kvm::Kvm::open();
    return *opened;
}

const vmm::kvm::SavedByHost& host() {
    static const auto of = vmm::kvm::SavedByHost::of(kvm());
    return *of;
}

std::vector<vmm::kvm::CpuidLeaf> leaves() {
    auto supported = kvm().supported_cpuid();
    std::erase_if(*supported, [](const auto& leaf) { return leaf.function >> 28 == 4; });
    for (auto& leaf : *supported) {
        constexpr std::uint32_t kX2apic = 1u << 21, kTscDeadline = 1u << 24;
        if (leaf.function == 1) leaf.ecx |= kX2apic | kTscDeadline;
    }
    return *supported;
}

// A new VM of one vCPU.
struct Fresh {
    Fresh() {
        auto made = vmm::kvm::Vm::create(kvm());
        vm = *std::move(made);
        EXPECT_TRUE(vm->create_split_irqchip(24));
        auto cpu = vmm::kvm::Vcpu::create(kvm(), *vm, 0);
        vcpu = *std::move(cpu);
        EXPECT_TRUE(vcpu->set_cpuid(leaves()));
    }
    ClockReading now() const { return *vm->read_clock(); }
    SavedVcpu save_all() const {
        auto saved = vcpu->save(host(), now());
        EXPECT_TRUE(saved) << saved.error().what;
        return *std::move(saved);
    }
    VcpuState save() const { return save_all().state; }
    // Without `time`: at its beginning.
    vmm::Result<void> restore(const VcpuState& state, const VcpuTimeState& time = {}) const {
        TRY(vm->set_clock_ns(time.at_ns));
        return vcpu->restore(host(), state, time, now());
    }
    std::unique_ptr<vmm::kvm::Vm> vm;
    std::unique_ptr<vmm::kvm::Vcpu> vcpu;
};

// Only what differs is worth a line.
void expect_same_bytes(std::span<const std::byte> is, std::span<const std::byte> was,
                       const char* what) {
    EXPECT_EQ(is.size(), was.size()) << what;
    for (std::size_t i = 0; i < std::min(is.size(), was.size()); ++i) {
        EXPECT_EQ(is[i], was[i]) << what << " byte " << i;
    }
}

void expect_comes_back(const VcpuState& state, const VcpuTimeState& time = {}) {
    const Fresh to;
    const auto restored = to.restore(state, time);
    ASSERT_TRUE(restored) << restored.error().what;
    const auto [is, now] = to.save_all();
    EXPECT_GE(now.tsc, time.tsc);
    EXPECT_EQ(is.gpr, state.gpr);
    EXPECT_EQ(is.rip, state.rip);
    EXPECT_EQ(is.rflags, state.rflags);
    EXPECT_TRUE(is.system == state.system);
    EXPECT_TRUE(is.debug == state.debug);
    EXPECT_EQ(is.xcr0, state.xcr0);
    expect_same_bytes(is.xsave, state.xsave, "xsave");
    EXPECT_EQ(is.msrs, state.msrs);
    expect_same_bytes(is.lapic, state.lapic, "lapic");
    EXPECT_TRUE(is.events == state.events);
    EXPECT_EQ(is.activity, state.activity);
    EXPECT_EQ(is.tsc_khz, state.tsc_khz);
    EXPECT_TRUE(is == state);
}

VcpuState in_long_mode() {
    VcpuState s = Fresh().save();
    for (std::size_t i = 0; i < s.gpr.size(); ++i) {
        s.gpr[i] = 0x1234'5678'9abc'def0 * (i + 1);
    }
    s.rip = 0xffffffff81000123;
    s.rflags = 0x246;
    auto& system = s.system;
    system.cs = {.limit = 0xffffffff, .selector = 0x10, .attributes = 0xa9b};
    system.ss = {.limit = 0xffffffff, .selector = 0x18, .attributes = 0xc93};
    system.ds = system.es = {.limit = 0xffffffff, .selector = 0x2b, .attributes = 0xcf3};
    system.fs = {
        .base = 0x7f1234567000, .limit = 0xffffffff, .selector = 0x2b, .attributes = 0xcf3};
    system.gs = {
        .base = 0xffff888012345000, .limit = 0xffffffff, .selector = 0x2b, .attributes = 0xcf3};
    system.tr = {.base = 0xfffffe0000003000, .limit = 0x206f, .selector = 0x40, .attributes = 0x8b};
    system.gdt = {.base = 0xfffffe0000001000, .limit = 0x7f};
    system.idt = {.base = 0xfffffe0000000000, .limit = 0xfff};
    system.cr0 = 0x80050033;
    system.cr2 = 0x7fff12345678;
    system.cr3 = 0x1000;
    system.cr4 = 0x6a0;  // PAE, PGE, OSFXSR, OSXMMEXCPT
    system.cr8 = 3;
    system.efer = 0xd01;
    system.apic_base = 0xfee00d00;  // x2APIC
    s.set_lapic_register(0x80, 3 << 4);
    // In x2APIC mode the LAPIC's logical id follows from its id: as KVM has it.
    const Fresh vm;
    const auto restored = vm.restore(s);
    EXPECT_TRUE(restored) << restored.error().what;
    return vm.save();
}

TEST(States, ANewVcpuComesBack) {
    expect_comes_back(Fresh().save());
}

TEST(States, RegistersComeBack) {
    VcpuState s = in_long_mode();
    s.debug = {
        .address = {0x1000, 0xffffffff81000000, 0x3000, 0x4000}, .dr6 = 0xffff0ff1, .dr7 = 0x400};
    expect_comes_back(s);
}

TEST(States, VectorRegistersComeBack) {
    VcpuState s = in_long_mode();
    std::uint64_t components = 3;
    for (const auto& leaf : leaves()) {
        if (leaf.function == 0xd && leaf.index == 0) components = leaf.eax & 7;
    }
    s.system.cr4 |= 1u << 18;  // OSXSAVE
    s.xcr0 = components;
    const bool avx = (components & 4) != 0;
    constexpr std::size_t kHeader = 512, kAvx = 576, kAvxEnd = 832;
    s.xsave.assign(avx ? kAvxEnd : kAvx, std::byte{0});
    for (std::size_t i = 160; i < 416; ++i) {
        s.xsave[i] = static_cast<std::byte>(i * 7 + 1);
    }
    for (std::size_t i = kAvx; i < s.xsave.size(); ++i) {
        s.xsave[i] = static_cast<std::byte>((i * 5) | 1);
    }
    for (std::size_t i = 0; i < 8; ++i) {  // ST0 to ST7: ten bytes each
        std::fill_n(s.xsave.begin() + 32 + static_cast<std::ptrdiff_t>(i) * 16, 10,
                    static_cast<std::byte>(0x81 + i));
    }
    const std::uint16_t control = 0x27f;
    const std::uint32_t mxcsr = 0x1fa0;
    std::memcpy(s.xsave.data(), &control, sizeof control);
    s.xsave[4] = std::byte{0xff};
    std::memcpy(s.xsave.data() + 24, &mxcsr, sizeof mxcsr);
    // Which bits of MXCSR there are is the CPU's.
    std::memcpy(s.xsave.data() + 28, Fresh().save().xsave.data() + 28, 4);
    s.xsave[kHeader] = static_cast<std::byte>(components);
    expect_comes_back(s);
}

TEST(States, MsrsComeBack) {
    VcpuState s = in_long_mode();
    s.msrs[0xc0000081] = 0x0023001000000000;
    s.msrs[0xc0000082] = 0xffffffff81800000;
    s.msrs[0xc0000084] = 0x47700;
    s.msrs[0xc0000102] = 0x00007f1234567890;
    s.msrs[0x174] = 0x10;
    s.msrs[0x175] = 0x12345678;  // AMD's has 32 bits, as the next one
    s.msrs[0x176] = 0x7abcdef0;
    s.msrs[0x277] = 0x0007050600070106;
    s.msrs[0x2ff] = 0xc06;
    s.msrs[0x200] = 0x80000006;
    s.msrs[0x201] = 0xff80000800;
    s.msrs[0x250] = 0x0606060606060606;
    s.msrs[0x26f] = 0x0505050505050505;
    s.msrs[0x402] = 0x12345000;  // an address that a bank of machine checks holds
    expect_comes_back(s);
}

TEST(States, TheLapicComesBack) {
    VcpuState s = in_long_mode();
    s.set_lapic_register(0xf0, 0x1ff);
    s.set_lapic_register(0x350, 0x10700);  // LVT0
    s.set_lapic_register(0x360, 0x400);    // LVT1: NMI
    s.set_lapic_register(0x370, 0x100fe);  // error
    s.set_lapic_register(0x320, 0x400ec);  // timer: the TSC's deadline
    s.set_lapic_register(0x3e0, 0xb);
    s.set_lapic_register(0x270, 0x10000);  // IRR: 0xf0
    s.set_lapic_register(0x120, 0x2);      // ISR: 0x41
    s.set_lapic_register(0xa0, 0x40);      // and so the processor's priority
    // Far away: three minutes, so that it does not expire.
    const VcpuTimeState time = Fresh().save_all().time;
    s.msrs[kMsrTscDeadline] = time.tsc + std::uint64_t{s.tsc_khz} * 180'000;
    expect_comes_back(s, time);
}

TEST(States, AnExpiredOneShotTimerStaysExpired) {
    VcpuState s = in_long_mode();
    s.set_lapic_register(0xf0, 0x1ff);
    s.set_lapic_register(0x320, 0xec);
    s.set_lapic_register(0x3e0, 0xb);
    s.set_lapic_register(0x380, 0);  // as save() leaves it
    expect_comes_back(s);
    // One that has time left goes on, and keeps its count.
    s.set_lapic_register(0x380, 0xffffffff);
    expect_comes_back(s, {.timer_count = 0x7fffffff});
    const Fresh to;
    ASSERT_TRUE(to.restore(s, {.timer_count = 0x7fffffff}));
    const std::uint32_t left = to.save_all().time.timer_count;
    EXPECT_LE(left, 0x7fffffffu);
    EXPECT_GT(left, 0x10000000u);
}

TEST(States, EventsComeBack) {
    VcpuState s = in_long_mode();
    s.events.interrupt = 0xf3;
    s.events.nmis_pending = 1;
    s.events.nmi_masked = true;
    expect_comes_back(s);
    s.events = {};
    s.events.exception = 14;
    s.events.exception_error_code = 6;
    expect_comes_back(s);
    s.events = {};
    s.events.exception = 6;
    expect_comes_back(s);
    s.events = {};
    s.events.nmi_injected = true;
    s.events.nmi_masked = true;
    expect_comes_back(s);
}

TEST(States, ActivitiesComeBack) {
    VcpuState s = in_long_mode();
    for (const Activity activity : {Activity::kRunnable, Activity::kUninitialized,
                                    Activity::kInitReceived, Activity::kHalted}) {
        s.activity = activity;
        expect_comes_back(s);
    }
}

// A SIPI that came and was not taken is taken before anything else is said.
TEST(States, ASipiIsTakenBeforeTheRegistersAreRead) {
    VcpuState s = Fresh().save();
    s.activity = Activity::kSipiReceived;
    const Fresh to;
    ASSERT_TRUE(to.restore(s));
    const VcpuState is = to.save();
    EXPECT_EQ(is.activity, Activity::kRunnable);
    EXPECT_EQ(is.rip, 0u);
}

TEST(States, OneOfItsVcpusIsSavedTwiceTheSame) {
    const Fresh vm;
    ASSERT_TRUE(vm.restore(in_long_mode()));
    const ClockReading at = vm.now();
    const auto once = vm.vcpu->save(host(), at), again = vm.vcpu->save(host(), at);
    ASSERT_TRUE(once && again);
    EXPECT_EQ(vmm::saved::encode(once->state), vmm::saved::encode(again->state));
    EXPECT_TRUE(once->time == again->time);
}

// Time that goes by is in a record of its own, also where a timer of the LAPIC's counts down.
TEST(States, OneIsTheSameAtAnotherTime) {
    VcpuState s = in_long_mode();
    s.set_lapic_register(0xf0, 0x1ff);
    s.set_lapic_register(0x320, 0xec);
    s.set_lapic_register(0x3e0, 0xb);
    s.set_lapic_register(0x380, 0xffffffff);
    const Fresh vm;
    ASSERT_TRUE(vm.restore(s, {.timer_count = 0x7fffffff}));
    const SavedVcpu once = vm.save_all(), again = vm.save_all();
    EXPECT_LT(once.time.tsc, again.time.tsc);
    EXPECT_GT(once.time.timer_count, again.time.timer_count);
    EXPECT_EQ(vmm::saved::encode(once.state), vmm::saved::encode(again.state));
    const Fresh another;
    ASSERT_TRUE(another.restore(again.state, again.time));
    EXPECT_EQ(vmm::saved::encode(another.save()), vmm::saved::encode(once.state));
}

// ---- refusals -----------------------------------------------------------------------------------

void expect_refused(const VcpuState& state, const std::string& because) {
    const Fresh to;
    const auto restored = to.restore(state);
    ASSERT_FALSE(restored) << because;
    EXPECT_NE(restored.error().what.find(because), std::string::npos) << restored.error().what;
}

TEST(Refused, AnMsrThatThisHostLacks) {
    VcpuState s = in_long_mode();
    s.msrs[0xc0010299] = 0;  // holds nothing: nothing is lost
    const Fresh to;
    EXPECT_TRUE(to.restore(s));
    s.msrs[0xc0010299] = 5;
    expect_refused(s, "has no MSR 0xc0010299");
}

TEST(Refused, AnMsrsValue) {
    VcpuState s = in_long_mode();
    s.msrs[0xc0000102] = 0x8000000000000000;  // no address
    expect_refused(s, "refuses the value 0x8000000000000000 for MSR 0xc0000102");
}

TEST(Refused, HypervisorsMsrs) {
    // The first would fill a page of the guest's, the second is a clock's.
    for (const std::uint32_t msr : {0x40000000u, 0x4b564d01u, 0x12u}) {
        VcpuState s = in_long_mode();
        s.msrs[msr] = 0x5001;
        expect_refused(s, "has no MSR");
    }
}

TEST(Refused, AnotherFrequency) {
    VcpuState s = in_long_mode();
    s.tsc_khz = s.tsc_khz + s.tsc_khz / 1000;
    expect_refused(s, "kHz");
}

// XSA-53/54: XRSTOR and XSETBV fault on such state, and the fault would be the host's.
TEST(Refused, ComponentsThatThisHostLacks) {
    VcpuState s = in_long_mode();
    s.xsave.resize(host().xsave_bytes + 64);
    s.xsave.back() = std::byte{1};
    expect_refused(s, "xsave");
    s = in_long_mode();
    s.xsave[512 + 7] = std::byte{0x40};  // component 62
    expect_refused(s, "xsave");
    s = in_long_mode();
    s.xcr0 = std::uint64_t{1} << 62 | 1;
    expect_refused(s, "xcr0");
}

TEST(Refused, RegistersThatNoVcpuCanHave) {
    VcpuState s = in_long_mode();
    s.system.cr4 |= std::uint64_t{1} << 40;
    expect_refused(s, "system");
    s = in_long_mode();
    s.system.efer = 0x100;  // long mode to be, with paging on
    expect_refused(s, "system");
    s = in_long_mode();
    s.xsave.clear();
    expect_refused(s, "xsave: 0 bytes");
}

// ---- the clock ----------------------------------------------------------------------------------

TEST(Clock, GoesOnFromWhereItWas) {
    constexpr std::uint64_t kSecond = 1'000'000'000;
    auto machine = vmm::Machine::create(kvm(), {.vcpus = 1, .own_pages = 1});
    ASSERT_TRUE(machine);
    const auto now = (*machine)->restore_clock({.clock_ns = 1234 * kSecond, .realtime_ns = 5});
    ASSERT_TRUE(now);
    EXPECT_GE(now->clock_ns, 1234 * kSecond);
    EXPECT_LT(now->clock_ns, 1235 * kSecond);
    EXPECT_GE((*machine)->system_time_ns(), now->clock_ns);
    const auto later = (*machine)->read_clock();
    ASSERT_TRUE(later);
    EXPECT_GT(later->clock_ns, now->clock_ns);
    EXPECT_GT(later->host_tsc, now->host_tsc);
    EXPECT_GE(later->realtime_ns, now->realtime_ns);
}

TEST(Clock, RefusesATimeThatNoGuestReaches) {
    auto machine = vmm::Machine::create(kvm(), {.vcpus = 1, .own_pages = 1});
    ASSERT_TRUE(machine);
    EXPECT_FALSE((*machine)->restore_clock({.clock_ns = ~std::uint64_t{0}}));
    EXPECT_TRUE((*machine)->restore_clock({}));
}

// The TSCs of a VM's vCPUs, which agreed to the tick, agree again; and they have gone on as far as
// the clock has since they were read.
TEST(Clock, TheTscsOfAllVcpusGoOnWithIt) {
    constexpr std::uint64_t kSince = 3'000'000'000;
    auto made = vmm::Machine::create(kvm(), {.vcpus = 2, .own_pages = 1});
    ASSERT_TRUE(made);
    auto& machine = **made;
    const auto cpuid = leaves();
    SavedVcpu saved[2];
    saved[0] = Fresh().save_all();
    saved[0].time.at_ns = 1000;
    saved[1] = saved[0];
    const auto now = machine.restore_clock({.clock_ns = 1000 + kSince});
    ASSERT_TRUE(now);
    for (unsigned v = 0; v < 2; ++v) {
        ASSERT_TRUE(machine.vcpu(v).vcpu().set_cpuid(cpuid));
        saved[v].state.set_lapic_register(0x20, vmm::Machine::apic_id(v) << 24);
        const auto restored = machine.vcpu(v).restore(saved[v].state, saved[v].time, false, *now);
        ASSERT_TRUE(restored) << restored.error().what;
    }
    const auto later = machine.read_clock();
    ASSERT_TRUE(later);
    const auto first = machine.vcpu(0).save(*later), second = machine.vcpu(1).save(*later);
    ASSERT_TRUE(first && second);
    EXPECT_EQ(first->time.tsc, second->time.tsc);
    const std::uint32_t khz = saved[0].state.tsc_khz;
    const double elapsed = static_cast<double>(later->clock_ns - 1000) * khz / 1e6;
    const auto gone = static_cast<double>(first->time.tsc - saved[0].time.tsc);
    // Where KVM does not set TSCs, they go on with the host's and know nothing of that.
    const bool sets_tscs = gone > static_cast<double>(kSince) * khz / 1e6 / 2;
    std::printf("this host's KVM %s guests' TSCs\n", sets_tscs ? "sets" : "does not set");
    if (sets_tscs) {
        EXPECT_NEAR(gone, elapsed, 1e-3 * elapsed);
    }
}

}  // namespace
