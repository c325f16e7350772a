// What a hypercall costs beside the exit that brings it: blocks of hypercalls through a whole
// machine (VcpuThread's loop, the transport, the dispatcher, the handler) alternate with blocks of
// a bare KVM_RUN loop on a raw VM, on the same thread. Both guests execute the same instructions;
// only what user space does between two KVM_RUNs differs.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <unistd.h>

#include "tests/bench/machine.h"
#include "tests/bench/pairs.h"
#include "tests/bench/raw_vm.h"

namespace bench {
namespace {

using vmm::Result;

constexpr std::uint64_t kMemory = 2 << 20;
constexpr std::uint64_t kArgument = 0x3000;

enum Kind : std::size_t {
    kRaw,
    kRawAgain,
    kRawSync,
    // The machine's, one for each row of the guest's table.
    kNull,
    kFeatures,
    kStatus,
    kTraced,
    kTracedFeatures,
    kKinds,
};

struct Options {
    bool xen = false;
    bool smoke = false;
    unsigned rounds = 400;
    double block_ns = 2e6;
};

constexpr Row kRows[] = {
    {17, 0, {0, 0}},                  // xen_version(version)
    {17, 0, {6, kArgument}},          // xen_version(get_features)
    {32, 0, {5, kArgument + 0x100}},  // event_channel_op(status)
    {17, 0, {0, 0}},                  // the first two once more, with a trace
    {17, 0, {6, kArgument}},
};
constexpr std::uint64_t kExpected[] = {0x40011, 0, 0, 0x40011, 0};
static_assert(std::size(kRows) == kKinds - kNull);

void fill_memory(std::byte* memory, const xenshim::TrapInstruction& trap) {
    write_page_tables(memory);
    put_guest(memory, kBlockGuest, trap, kRows);
    xenshim::abi::evtchn_status status{};
    status.dom = xenshim::abi::DOMID_SELF;
    status.port = 1;
    std::memcpy(memory + kArgument + 0x100, &status, sizeof status);
}

// Runs the schedule: the machine's guest reads kPort between two of its blocks, and the raw VM's
// blocks run in there, on the machine's own vCPU thread.
class Schedule final : public vmm::PioDevice {
  public:
    Schedule(const Machine& machine, RawVm& raw, RawVm& synced, const Options& options)
        : machine_(machine), raw_(raw), synced_(synced), options_(options) {}

    const char* name() const override { return "bench"; }
    std::span<const vmm::PortRange> ranges() const override { return ranges_; }
    void write(vmm::IoAccess, std::uint32_t) override {}

    std::uint32_t read(vmm::IoAccess) override {
        const Times end = now();
        if (current_ != kKinds) add(current_, end - began_);
        if (current_ != kKinds) check_result(current_ - kNull);
        current_ = kKinds;
        while (next_ < order_.size() || new_round()) {
            const Kind kind = order_[next_++];
            if (kind >= kNull) {
                current_ = kind;
                machine_.platform->set_recording(0, kind == kTraced || kind == kTracedFeatures);
                began_ = now();
                return times_ << 8 | static_cast<std::uint32_t>(kind - kNull);
            }
            RawVm& raw = kind == kRawSync ? synced_ : raw_;
            const Times raw_began = now();
            raw.answer_port_read(times_ << 8);
            if (!raw.run(times_ + 1)) return fail("KVM_RUN of the raw VM");
            add(kind, now() - raw_began);
        }
        machine_.machine->stop({.kind = vmm::StopCause::Kind::kRequested});
        return 1 << 8;
    }

    const std::vector<Times>& times(Kind kind) const { return samples_[kind]; }
    unsigned block() const { return times_; }
    const std::string& failure() const { return failure_; }

  private:
    void add(Kind kind, const Times& took) {
        if (rounds_ > kWarmUp) samples_[kind].push_back(took);
    }

    bool new_round() {
        if (!failure_.empty()) return false;
        if (rounds_ == 0 && !(start_raw(raw_) && start_raw(synced_))) return false;
        if (rounds_++ >= options_.rounds + kWarmUp) return false;
        order_ = {kRaw, kRawAgain, kRawSync, kNull, kFeatures, kStatus, kTraced, kTracedFeatures};
        std::shuffle(order_.begin(), order_.end(), random_);
        next_ = 0;
        return true;
    }

    // Brings a raw VM to its second port read and finds how many exits make a block.
    bool start_raw(RawVm& raw) {
        if (!raw.run(1) || !raw.answer_port_read(1 << 8) || !raw.run(1) ||
            !raw.last_was_trap(options_.xen) || !raw.run(1)) {
            fail("the raw VM does not do what it should");
            return false;
        }
        constexpr unsigned kTry = 200;
        const Times began = now();
        raw.answer_port_read(kTry << 8);
        raw.run(kTry + 1);
        const double each = (now() - began).cpu / kTry;
        times_ = static_cast<std::uint32_t>(std::clamp(options_.block_ns / each, 20.0, 20000.0));
        if (options_.smoke) times_ = 20;
        return true;
    }

    void check_result(std::size_t row) {
        if (machine_.result(row) != kExpected[row]) fail("a hypercall's result is wrong");
    }

    std::uint32_t fail(const char* why) {
        failure_ = why;
        machine_.machine->stop({.kind = vmm::StopCause::Kind::kRequested});
        return 1 << 8;
    }

    static constexpr unsigned kWarmUp = 2;
    const Machine& machine_;
    RawVm& raw_;
    RawVm& synced_;
    const Options options_;
    const vmm::PortRange ranges_[1] = {{kPort, 4}};
    std::mt19937 random_{7};
    std::vector<Kind> order_;
    std::size_t next_ = 0;
    unsigned rounds_ = 0;
    std::uint32_t times_ = 0;
    Kind current_ = kKinds;
    Times began_;
    std::vector<Times> samples_[kKinds];
    std::string failure_;
};

Result<void> measure(const Options& options) {
    xenshim::PlatformConfig config;
    std::string trace_file =
        (std::getenv("TMPDIR") != nullptr ? std::string(std::getenv("TMPDIR")) : "/tmp") +
        "/bench-trace-XXXXXX";
    const vmm::Fd made(::mkstemp(trace_file.data()));
    if (!made) return vmm::errno_error("mkstemp");
    const auto trace = TRY(xenshim::trace::Writer::create(trace_file));
    ::unlink(trace_file.c_str());
    config.trace = trace.get();
    const Machine machine = TRY(create_machine(options.xen, kMemory, std::move(config)));
    machine.platform->domain().event_channels().attach_backend([] {});
    fill_memory(machine.memory(), machine.trap);

    auto raw = TRY(RawVm::create({.memory_bytes = kMemory, .xen = options.xen}));
    auto synced =
        TRY(RawVm::create({.memory_bytes = kMemory, .xen = options.xen, .sync_registers = true}));
    for (RawVm* vm : {raw.get(), synced.get()}) {
        fill_memory(vm->memory(), machine.trap);
        TRY(vm->set_start());
    }

    Schedule schedule(machine, *raw, *synced, options);
    machine.machine->pio().add(schedule);
    TRY(machine.machine->start(*machine.platform));
    TRY(machine.join(schedule.failure()));

    const std::string transport(machine.platform->name());
    const char* exit = options.xen ? "KVM_EXIT_XEN" : "OUT exit";
    const bool verdict = !options.smoke;
    const Control control{schedule.times(kRaw), schedule.times(kRawAgain)};
    std::printf("transport %s: a raw %s %.0f ns of CPU (median); %u rounds, blocks of %u\n",
                transport.c_str(), exit,
                median(of(schedule.times(kRaw), Clock::kCpu)) / schedule.block(), options.rounds,
                schedule.block());
    print({.name = "null hypercall / raw " + std::string(exit),
           .numerator = schedule.times(kNull),
           .denominator = schedule.times(kRaw),
           .control = control,
           .limit = {1.04, 1.10},
           .verdict = verdict});
    // What is ours of that: the kernel's part is showing us the registers.
    print({.name = "  of that beside an exit that shows registers",
           .numerator = schedule.times(kNull),
           .denominator = schedule.times(kRawSync),
           .control = control,
           .limit = {},
           .verdict = false});
    print({.name = "null hypercall traced / not traced",
           .numerator = schedule.times(kTraced),
           .denominator = schedule.times(kNull),
           .control = control,
           .limit = {1.05, 1.10},
           .verdict = verdict});
    print({.name = "pointer: xen_version(get_features) traced / not traced",
           .numerator = schedule.times(kTracedFeatures),
           .denominator = schedule.times(kFeatures),
           .control = control,
           .limit = {1.05, 1.10},
           .verdict = verdict});
    std::printf("  calls that found no room in the trace's ring: %llu\n",
                static_cast<unsigned long long>(trace->dropped()));
    for (const auto& [kind, name] : {std::pair{kFeatures, "xen_version(get_features) / null"},
                                     std::pair{kStatus, "event_channel_op(status) / null"}}) {
        print({.name = std::string("pointer: ") + name,
               .numerator = schedule.times(kind),
               .denominator = schedule.times(kNull),
               .control = control,
               .limit = {1.02, 1.20},
               .verdict = verdict});
    }
    return {};
}

int main_of(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string_view arg = argv[i];
        if (arg == "--smoke") {
            options.smoke = true;
            options.rounds = 3;
        } else if (arg == "--transport" && i + 1 < argc) {
            options.xen = std::string_view(argv[++i]) == "kvm-xen";
        } else if (arg == "--rounds" && i + 1 < argc) {
            options.rounds = static_cast<unsigned>(std::stoul(argv[++i]));
        } else {
            std::fprintf(stderr,
                         "usage: bench_hypercalls [--transport portable|kvm-xen] [--rounds N] "
                         "[--smoke]\n");
            return 2;
        }
    }
    return exit_status("bench_hypercalls", measure(options));
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
    return bench::main_of(argc, argv);
}
