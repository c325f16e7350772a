// Long hypercalls: what one stop costs, how soon the guest gets its vCPU back when an event is due,
// and what an element costs. All through a whole machine; the limit is an exit of a raw VM,
// measured on the machine's own vCPU thread.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <pthread.h>
#include <random>
#include <string>
#include <thread>
#include <time.h>

#include "tests/bench/machine.h"
#include "tests/bench/pairs.h"
#include "tests/bench/raw_vm.h"
#include "xenshim/abi/numbers.h"
#include "xenshim/abi/structs.h"

namespace bench {
namespace {

using vmm::Result;
namespace abi = xenshim::abi;

constexpr std::uint64_t kArguments = 0x3000;   // structures
constexpr std::uint64_t kList = 64 << 20;      // words: gfns
constexpr std::uint64_t kTarget = 1 << 30;     // the memory that is given back and taken
constexpr std::uint64_t kScratchGfn = 0x1800;  // two pages that a grant frame goes to and fro

struct Options {
    bool xen = false;
    bool smoke = false;
};

// 2 MiB pages for the first GiB.
void write_big_page_tables(std::byte* memory) {
    constexpr std::uint64_t kPresent = 3, kBig = 0x80;
    const auto put = [&](std::uint64_t at, std::uint64_t value) {
        std::memcpy(memory + at, &value, sizeof value);
    };
    put(kPageTables, (kPageTables + 0x1000) | kPresent);
    put(kPageTables + 0x1000, (kPageTables + 0x2000) | kPresent);
    for (std::uint64_t i = 0; i < 512; ++i) {
        put(kPageTables + 0x2000 + i * 8, i << 21 | kPresent | kBig);
    }
}

// The machine with its guest, and a raw VM to compare with.
class Bench final : public vmm::PioDevice, public vmm::Platform {
  public:
    // What the vCPU does next: so many calls of a row; nothing: the end.
    struct Job {
        std::uint32_t row;
        std::uint32_t times;
    };
    // Called on the vCPU's thread with what the job before took.
    std::function<std::optional<Job>(const Times& took)> next;
    // Called when the vCPU is about to enter the guest after an upcall was asked for.
    std::function<void()> reentered;

    Result<void> set_up(const Options& options, xenshim::PreemptPolicy preempt,
                        std::uint64_t target_pages, const std::vector<Row>& rows) {
        xenshim::PlatformConfig config;
        config.preempt = std::move(preempt);
        machine_ = TRY(create_machine(options.xen, kTarget + target_pages * vmm::kPageSize,
                                      std::move(config)));
        raw = TRY(RawVm::create({.memory_bytes = 2 << 20, .xen = options.xen}));
        put_guest(machine_.memory(), kReloadGuest, machine_.trap, rows);
        write_big_page_tables(machine_.memory());
        write_raw_guest(machine_.trap);
        write_page_tables(raw->memory());
        TRY(raw->set_start());
        machine().pio().add(*this);
        return {};
    }

    Result<void> run() {
        TRY(machine().start(*this));
        return machine_.join(failure);
    }

    vmm::Machine& machine() const { return *machine_.machine; }
    xenshim::XenPlatform& platform() const { return *machine_.platform; }

    template <class T>
    void put(std::uint64_t at, const T& value) {
        if (!machine().memory().guest().write(vmm::Gpa{at}, value)) failure = "no such memory";
    }
    std::uint64_t result(std::uint32_t row) { return machine_.result(row); }
    // So many exits of the raw VM, on the caller's thread (the vCPU's).
    Times raw_exits(unsigned count) {
        const Times began = now();
        if (!raw->run(count)) failure = "KVM_RUN of the raw VM";
        return now() - began;
    }

    std::unique_ptr<RawVm> raw;
    std::string failure;

    // ---- PioDevice ------------------------------------------------------------------------------
    const char* name() const override { return "bench"; }
    std::span<const vmm::PortRange> ranges() const override { return ranges_; }
    void write(vmm::IoAccess, std::uint32_t) override {}
    std::uint32_t read(vmm::IoAccess) override {
        const auto job = next(now() - began_);
        if (!job || !failure.empty()) {
            machine().stop({.kind = vmm::StopCause::Kind::kRequested});
            return 1 << 8;
        }
        began_ = now();
        return job->times << 8 | job->row;
    }

    // ---- Platform: the real one, with a look at the moment before an entry ----------------------
    void vcpu_ready(vmm::VcpuThread& vcpu) override { platform().vcpu_ready(vcpu); }
    void attend(vmm::VcpuThread& vcpu, std::uint32_t requests) override {
        platform().attend(vcpu, requests);
        if ((requests & vmm::kUpcallRequest) != 0 && reentered) reentered();
    }
    bool handle_exit(vmm::VcpuThread& vcpu, vmm::kvm::ExitReason reason) override {
        return platform().handle_exit(vcpu, reason);
    }
    void ap_started(vmm::VcpuThread& vcpu) override { platform().ap_started(vcpu); }
    void inspect(vmm::VcpuThread& vcpu) override { platform().inspect(vcpu); }
    void housekeeping() override { platform().housekeeping(); }

  private:
    // Traps and nothing else: a call that is interrupted executes one instruction for each stop.
    void write_raw_guest(const xenshim::TrapInstruction& trap) {
        std::byte* at = raw->memory() + kCode;
        constexpr std::size_t kTraps = 1024;
        for (std::size_t i = 0; i < kTraps; ++i) {
            std::memcpy(at + i * trap.size(), trap.data(), trap.size());
        }
        constexpr std::byte kJump{0xe9};
        at[kTraps * trap.size()] = kJump;
        const auto back = -static_cast<std::int32_t>(kTraps * trap.size() + 5);
        std::memcpy(at + kTraps * trap.size() + 1, &back, sizeof back);
    }

    Machine machine_;
    const vmm::PortRange ranges_[1] = {{kPort, 4}};
    Times began_;
};

Row memory_op(std::uint32_t op, std::uint64_t argument) {
    return {abi::HYPERVISOR_memory_op, 0, {op, argument}};
}

abi::xen_memory_reservation<abi::W64> reservation(std::uint64_t count, std::uint32_t order = 0) {
    return {.extent_start = kList,
            .nr_extents = count,
            .extent_order = order,
            .mem_flags = 0,
            .domid = abi::DOMID_SELF};
}

std::uint64_t cpu_ns(clockid_t clock) {
    timespec at{};
    ::clock_gettime(clock, &at);
    return static_cast<std::uint64_t>(at.tv_sec) * 1'000'000'000 +
           static_cast<std::uint64_t>(at.tv_nsec);
}

double percentile_of(std::vector<double> values, double p) {
    std::sort(values.begin(), values.end());
    return values[static_cast<std::size_t>(p * static_cast<double>(values.size() - 1))];
}

// ---- one stop -----------------------------------------------------------------------------------

Result<void> forced_stops(const Options& options) {
    const unsigned rounds = options.smoke ? 3 : 300;
    const std::uint64_t units = options.smoke ? 20 : 200;
    Bench bench;
    TRY(bench.set_up(options, {.every = 1, .at = {}}, 0,
                     {memory_op(abi::XENMEM_increase_reservation, kArguments)}));
    bench.put(kArguments, abi::bytes_of(reservation(units)));
    std::vector<Times> raw, again, forced;
    unsigned round = 0;
    bool in_call = false;
    bench.next = [&](const Times& took) -> std::optional<Bench::Job> {
        if (in_call) {
            if (bench.result(0) != units) bench.failure = "the call did not come to its end";
            forced.push_back(took);
        }
        in_call = true;
        if (round++ == rounds) return std::nullopt;
        // One for each unit, and the port read that ends the block.
        raw.push_back(bench.raw_exits(static_cast<unsigned>(units + 1)));
        again.push_back(bench.raw_exits(static_cast<unsigned>(units + 1)));
        return Bench::Job{.row = 0, .times = 1};
    };
    TRY(bench.run());
    print({.name = "one forced continuation / raw exit",
           .numerator = forced,
           .denominator = raw,
           .control = {raw, again},
           .limit = {1.3, 2.0},
           .verdict = !options.smoke});
    return {};
}

// ---- from an event to the guest -----------------------------------------------------------------

struct Extents {
    std::uint64_t count;
    std::uint32_t order = 0;
    // The guest has written to all of them, so that the host has memory to free; only events that
    // find them being given back count.
    bool in_use = false;
};

Result<void> event_latency(const Options& options, const Extents& extents) {
    const std::uint64_t n = extents.count;
    const std::uint64_t pages = n << extents.order;
    const unsigned samples = options.smoke ? 5 : 400;
    Bench bench;
    TRY(bench.set_up(options, {}, pages,
                     {memory_op(abi::XENMEM_decrease_reservation, kArguments),
                      memory_op(abi::XENMEM_populate_physmap, kArguments)}));
    auto& domain = bench.platform().domain();
    const auto backend = domain.event_channels().attach_backend([] {});
    bench.put(kArguments, abi::bytes_of(reservation(n, extents.order)));
    for (std::uint64_t i = 0; i < n; ++i) {
        bench.put(kList + i * 8, (kTarget >> 12) + (i << extents.order));
    }
    // Of the vCPU's thread: others' turns on a shared CPU are not its doing.
    std::atomic<clockid_t> cpu_clock{0};
    std::atomic<std::uint64_t> raised_ns{0};
    std::atomic<bool> done{false};
    std::vector<double> latencies;
    std::atomic<unsigned> seen{0};
    double raw_exit = 0;
    bool given_back = false;
    bench.reentered = [&] {
        const auto began = raised_ns.exchange(0);
        if (began == 0 || (extents.in_use && !given_back)) return;
        latencies.push_back(static_cast<double>(cpu_ns(CLOCK_THREAD_CPUTIME_ID) - began));
        ++seen;
    };
    bench.next = [&](const Times&) -> std::optional<Bench::Job> {
        if (raw_exit == 0) {
            constexpr unsigned kExits = 500;
            std::vector<double> tries;
            for (unsigned i = 0; i < 9; ++i) {
                tries.push_back(bench.raw_exits(kExits).cpu / kExits);
            }
            raw_exit = median(tries);
            clockid_t clock{};
            if (::pthread_getcpuclockid(::pthread_self(), &clock) != 0) bench.failure = "no clock";
            cpu_clock = clock;
        }
        if (done.load()) return std::nullopt;
        given_back = !given_back;
        if (given_back && extents.in_use) {
            for (std::uint64_t i = 0; i < pages; ++i) {
                bench.put(kTarget + i * vmm::kPageSize, ~i);
            }
            raised_ns = 0;  // that event has waited for us, not for a call
        }
        // The short ones many times over, so that most events find the vCPU in a call.
        const auto times = static_cast<std::uint32_t>(n == 1 ? 50 : 1);
        return Bench::Job{.row = given_back ? 0u : 1u, .times = times};
    };
    std::thread raiser([&] {
        std::mt19937 random(11);
        std::uniform_int_distribution<std::uint64_t> run_ns(200'000, 900'000);
        while (cpu_clock.load() == 0 && !done.load()) {
            std::this_thread::yield();
        }
        while (seen.load() < samples && !bench.machine().stopping()) {
            // The vCPU gets on before each, however little of the CPU it is given.
            const std::uint64_t due = cpu_ns(cpu_clock) + run_ns(random);
            while (cpu_ns(cpu_clock) < due && !bench.machine().stopping()) {
                std::this_thread::yield();
            }
            // As the guest's handler would: nothing is pending any more.
            std::memset(bench.machine().memory().own_page(xenshim::kSharedInfoPage), 0,
                        vmm::kPageSize);
            raised_ns = cpu_ns(cpu_clock);
            domain.event_channels().notify(backend.remote);
            while (raised_ns.load() != 0 && !bench.machine().stopping()) {
                std::this_thread::yield();
            }
        }
        done = true;
    });
    const auto ran = bench.run();
    done = true;
    raiser.join();
    TRY(ran);
    if (latencies.empty()) return vmm::internal_error("no event was seen");
    const double typical = median(latencies) / raw_exit;
    std::printf("%-50s %5.2f raw exits  p90 %.2f  p99 %.2f",
                ("event to re-entry, n = " + std::to_string(n) +
                 (extents.order != 0 ? ", 2 MiB each" : "") + (extents.in_use ? ", in use" : ""))
                    .c_str(),
                typical, percentile_of(latencies, 0.9) / raw_exit,
                percentile_of(latencies, 0.99) / raw_exit);
    if (!options.smoke) {
        std::printf("  goal 12 accept 40  %s", std::string(judge(typical, {12, 40})).c_str());
    }
    std::printf("\n");
    std::fflush(stdout);
    return {};
}

// ---- what an element costs ----------------------------------------------------------------------

Result<void> per_extent(const Options& options) {
    const std::vector<std::uint64_t> counts = options.smoke
                                                  ? std::vector<std::uint64_t>{64}
                                                  : std::vector<std::uint64_t>{256, 4096, 65535};
    const unsigned rounds = options.smoke ? 2 : 15;
    Bench bench;
    TRY(bench.set_up(options, {.every = 0, .at = {}, .after_us = 1'000'000}, counts.back(),
                     {memory_op(abi::XENMEM_decrease_reservation, kArguments),
                      memory_op(abi::XENMEM_populate_physmap, kArguments),
                      memory_op(abi::XENMEM_add_to_physmap_batch, kArguments + 0x100)}));
    constexpr std::uint64_t kIdxs = kList + (16 << 20), kGpfns = kList + (32 << 20),
                            kErrs = kList + (48 << 20);
    for (std::uint64_t i = 0; i < counts.back(); ++i) {
        bench.put(kList + i * 8, (kTarget >> 12) + i);
        bench.put(kIdxs + i * 8, std::uint64_t{0});
        bench.put(kGpfns + i * 8, kScratchGfn + i % 2);
    }
    struct Batch {
        std::uint16_t domid, space, size, foreign;
        std::uint64_t idxs, gpfns, errs;
    };
    struct Step {
        const char* name;
        std::uint32_t row;
        bool in_use = false;
    };
    const std::array<Step, 5> steps = {{{"decrease_reservation, never written to", 0},
                                        {"populate_physmap", 1},
                                        {"add_to_physmap_batch (grant frame)", 2},
                                        {"decrease_reservation, in use", 0, true},
                                        {"populate_physmap, once more", 1}}};
    std::vector<std::vector<std::vector<double>>> each(
        steps.size(), std::vector<std::vector<double>>(counts.size()));
    std::size_t job = 0;
    const std::size_t jobs = rounds * counts.size() * steps.size();
    bench.next = [&](const Times& took) -> std::optional<Bench::Job> {
        const auto step_of = [&](std::size_t j) { return j % steps.size(); };
        const auto size_of = [&](std::size_t j) { return j / steps.size() % counts.size(); };
        if (job != 0) {
            const auto step = step_of(job - 1), size = size_of(job - 1);
            const std::uint64_t expected = steps[step].row == 2 ? 0 : counts[size];
            if (bench.result(steps[step].row) != expected) {
                bench.failure = std::string("wrong result of ") + steps[step].name;
            }
            each[step][size].push_back(took.cpu / static_cast<double>(counts[size]));
        }
        if (job == jobs) return std::nullopt;
        const auto n = counts[size_of(job)];
        bench.put(kArguments, abi::bytes_of(reservation(n)));
        bench.put(kArguments + 0x100,
                  Batch{.domid = abi::DOMID_SELF,
                        .space = static_cast<std::uint16_t>(abi::XENMAPSPACE_grant_table),
                        .size = static_cast<std::uint16_t>(n),
                        .foreign = 0,
                        .idxs = kIdxs,
                        .gpfns = kGpfns,
                        .errs = kErrs});
        const Step& step = steps[step_of(job++)];
        if (step.in_use) {
            for (std::uint64_t i = 0; i < n; ++i) {
                bench.put(kTarget + i * vmm::kPageSize, ~i);
            }
        }
        return Bench::Job{.row = step.row, .times = 1};
    };
    TRY(bench.run());
    for (std::size_t row = 0; row < steps.size(); ++row) {
        std::printf("%-50s", (std::string(steps[row].name) + ", ns per element").c_str());
        for (std::size_t size = 0; size < counts.size(); ++size) {
            std::printf("  n=%llu: %.0f", static_cast<unsigned long long>(counts[size]),
                        median(each[row][size]));
        }
        std::printf("  most/least %.2f\n", median(each[row].back()) / median(each[row].front()));
    }
    std::fflush(stdout);
    return {};
}

Result<void> measure(const Options& options) {
    std::printf("transport %s\n", options.xen ? "kvm-xen" : "portable");
    TRY(forced_stops(options));
    const std::vector<std::uint64_t> counts =
        options.smoke ? std::vector<std::uint64_t>{1, 64}
                      : std::vector<std::uint64_t>{1, 64, 4096, 262'144, 4'000'000};
    for (const std::uint64_t n : counts) {
        TRY(event_latency(options, {.count = n}));
    }
    for (const std::uint64_t n : {64, 4096, 65536}) {
        if (n <= counts.back()) TRY(event_latency(options, {.count = n, .in_use = true}));
    }
    TRY(event_latency(options, {.count = options.smoke ? 2u : 64u, .order = 9, .in_use = true}));
    return per_extent(options);
}

int main_of(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string_view arg = argv[i];
        if (arg == "--smoke") {
            options.smoke = true;
        } else if (arg == "--transport" && i + 1 < argc) {
            options.xen = std::string_view(argv[++i]) == "kvm-xen";
        } else {
            std::fprintf(stderr,
                         "usage: bench_long_calls [--transport portable|kvm-xen] [--smoke]\n");
            return 2;
        }
    }
    return exit_status("bench_long_calls", measure(options));
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
    return bench::main_of(argc, argv);
}
