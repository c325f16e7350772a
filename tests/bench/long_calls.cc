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
#include "xenshim/abi/other_numbers.h"
#include "xenshim/abi/structs.h"

namespace bench {
namespace {

using vmm::Result;
namespace abi = xenshim::abi;

constexpr std::uint64_t kArguments = 0x3000;   // structures
constexpr std::uint64_t kList = 64 << 20;      // words: gfns
constexpr std::uint64_t kTarget = 1 << 30;     // the memory that is given back and taken
constexpr std::uint64_t kScratchGfn = 0x1800;  // two pages that a grant frame goes to and fro
constexpr std::uint64_t kGrantedGfn = 0x2000;  // pages that grants name, and copies go to
constexpr std::uint64_t kMapGfn = 0x3000;      // where grants are mapped
constexpr std::uint32_t kFirstRef = 16;

struct Options {
    bool xen = false;
    bool smoke = false;
    unsigned samples = 400;
    std::uint64_t most = UINT64_MAX;  // elements in a list
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

    Result<void> set_up(const Options& options, xenshim::PlatformConfig config,
                        std::uint64_t target_pages, const std::vector<Row>& rows) {
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
    void stands(vmm::VcpuThread& vcpu) override { platform().stands(vcpu); }
    void goes_on(vmm::VcpuThread& vcpu) override { platform().goes_on(vcpu); }
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

// The arguments of add_to_physmap_batch.
struct Batch {
    std::uint16_t domid, space, size, foreign;
    std::uint64_t idxs, gpfns, errs;
};

double percentile_of(std::vector<double> values, double p) {
    std::sort(values.begin(), values.end());
    return values[static_cast<std::size_t>(p * static_cast<double>(values.size() - 1))];
}

// ---- one stop -----------------------------------------------------------------------------------

Result<void> forced_stops(const Options& options) {
    const unsigned rounds = options.smoke ? 3 : 300;
    const std::uint64_t units = options.smoke ? 20 : 200;
    Bench bench;
    xenshim::PlatformConfig config;
    config.preempt = {.every = 1, .at = {}};
    TRY(bench.set_up(options, std::move(config), 0,
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

// Calls of one operation, and what has to be done between them.
struct LongCalls {
    std::string name;
    std::uint64_t target_pages = 0;
    std::vector<Row> rows;
    xenshim::DomainConfig domain = {};
    // The reset of all event channels leaves none to notify by: the vCPU is asked for itself.
    bool by_request = false;
    // Before the vCPU starts.
    std::function<void(Bench&)> prepare;
    // Before each block of calls, on the vCPU's thread: what is to be called, and whether events
    // that come meanwhile count.
    struct Turn {
        Bench::Job job;
        bool counts = true;
    };
    std::function<Turn(Bench&)> next;
};

// How many of each are called at once, so that most events find the vCPU in a call.
std::uint32_t times_for(std::uint64_t n) {
    return n == 1 ? 50 : 1;
}

Result<void> event_latency(const Options& options, const LongCalls& calls) {
    const unsigned samples = options.smoke ? 5 : options.samples;
    Bench bench;
    xenshim::PlatformConfig config;
    config.domain = calls.domain;
    TRY(bench.set_up(options, std::move(config), calls.target_pages, calls.rows));
    auto& domain = bench.platform().domain();
    const auto backend = domain.event_channels().attach_backend([] {});
    calls.prepare(bench);
    // Of the vCPU's thread: others' turns on a shared CPU are not its doing.
    std::atomic<clockid_t> cpu_clock{0};
    std::atomic<std::uint64_t> raised_ns{0};
    std::atomic<bool> done{false};
    std::vector<double> latencies;
    std::atomic<unsigned> seen{0};
    double raw_exit = 0;
    bool counts = false;
    bench.reentered = [&] {
        const auto began = raised_ns.exchange(0);
        if (began == 0 || !counts) return;
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
        const LongCalls::Turn turn = calls.next(bench);
        counts = turn.counts;
        raised_ns = 0;  // that event has waited for us, not for a call
        return turn.job;
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
            raised_ns = cpu_ns(cpu_clock);
            if (calls.by_request) {
                bench.machine().vcpu(0).request(vmm::kUpcallRequest);
            } else {
                // As the guest's handler would: nothing is pending any more.
                std::memset(bench.machine().memory().own_page(xenshim::kSharedInfoPage), 0,
                            vmm::kPageSize);
                domain.event_channels().notify(backend.remote);
            }
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
    std::printf("%-56s %5.2f raw exits  p90 %.2f  p99 %.2f", ("event, " + calls.name).c_str(),
                typical, percentile_of(latencies, 0.9) / raw_exit,
                percentile_of(latencies, 0.99) / raw_exit);
    if (!options.smoke) {
        std::printf("  goal 12 accept 40  %s", std::string(judge(typical, {12, 40})).c_str());
    }
    std::printf("\n");
    std::fflush(stdout);
    return {};
}

struct Extents {
    std::uint64_t count;
    std::uint32_t order = 0;
    // The guest has written to all of them, so that the host has memory to free; only events that
    // find them being given back count.
    bool in_use = false;
};

LongCalls reservations(const Extents& extents) {
    const std::uint64_t n = extents.count, pages = n << extents.order;
    return {.name = "decrease and populate, n = " + std::to_string(n) +
                    (extents.order != 0 ? ", 2 MiB each" : "") +
                    (extents.in_use ? ", decrease of memory in use" : ""),
            .target_pages = pages,
            .rows = {memory_op(abi::XENMEM_decrease_reservation, kArguments),
                     memory_op(abi::XENMEM_populate_physmap, kArguments)},
            .prepare =
                [=](Bench& bench) {
                    bench.put(kArguments, abi::bytes_of(reservation(n, extents.order)));
                    for (std::uint64_t i = 0; i < n; ++i) {
                        bench.put(kList + i * 8, (kTarget >> 12) + (i << extents.order));
                    }
                },
            .next = [=, given_back = false](Bench& bench) mutable -> LongCalls::Turn {
                given_back = !given_back;
                if (given_back && extents.in_use) {
                    for (std::uint64_t i = 0; i < pages; ++i) {
                        bench.put(kTarget + i * vmm::kPageSize, ~i);
                    }
                }
                return {.job = {.row = given_back ? 0u : 1u, .times = times_for(n)},
                        .counts = given_back || !extents.in_use};
            }};
}

// Populated where the guest has used the memory: all of it has to be made zeroes.
LongCalls populated_again(std::uint64_t n) {
    const std::uint64_t pages = n << 9;
    return {.name = "populate over memory in use, n = " + std::to_string(n) + ", 2 MiB each",
            .target_pages = pages,
            .rows = {memory_op(abi::XENMEM_populate_physmap, kArguments)},
            .prepare =
                [=](Bench& bench) {
                    bench.put(kArguments, abi::bytes_of(reservation(n, 9)));
                    for (std::uint64_t i = 0; i < n; ++i) {
                        bench.put(kList + i * 8, (kTarget >> 12) + (i << 9));
                    }
                },
            .next = [=](Bench& bench) -> LongCalls::Turn {
                for (std::uint64_t i = 0; i < pages; ++i) {
                    bench.put(kTarget + i * vmm::kPageSize, ~i);
                }
                return {.job = {.row = 0, .times = 1}};
            }};
}

LongCalls batches(std::uint64_t n) {
    return {.name = "add_to_physmap_batch, n = " + std::to_string(n),
            .rows = {memory_op(abi::XENMEM_add_to_physmap_batch, kArguments)},
            .prepare =
                [=](Bench& bench) {
                    constexpr std::uint64_t kIdxs = kList, kGpfns = kList + (1 << 20),
                                            kErrs = kList + (2 << 20);
                    bench.put(
                        kArguments,
                        Batch{.domid = abi::DOMID_SELF,
                              .space = static_cast<std::uint16_t>(abi::XENMAPSPACE_grant_table),
                              .size = static_cast<std::uint16_t>(n),
                              .foreign = 0,
                              .idxs = kIdxs,
                              .gpfns = kGpfns,
                              .errs = kErrs});
                    for (std::uint64_t i = 0; i < n; ++i) {
                        bench.put(kIdxs + i * 8, std::uint64_t{0});
                        bench.put(kGpfns + i * 8, kScratchGfn + i % 2);
                    }
                },
            .next = [=](Bench&) -> LongCalls::Turn {
                return {.job = {.row = 0, .times = times_for(n)}};
            }};
}

// Pages that the guest has written to move to another place, and back.
LongCalls moves(std::uint64_t n) {
    const auto range = [n](std::uint64_t from, std::uint64_t to) {
        return abi::xen_add_to_physmap<abi::W64>{
            .domid = abi::DOMID_SELF,
            .size = static_cast<std::uint16_t>(n),
            .space = static_cast<std::uint32_t>(abi::XENMAPSPACE_gmfn_range),
            .idx = from,
            .gpfn = to};
    };
    return {.name = "add_to_physmap of a range, n = " + std::to_string(n),
            .target_pages = 2 * n,
            .rows = {memory_op(abi::XENMEM_add_to_physmap, kArguments),
                     memory_op(abi::XENMEM_add_to_physmap, kArguments + 0x100)},
            .prepare =
                [=](Bench& bench) {
                    constexpr std::uint64_t kFirst = kTarget >> 12;
                    bench.put(kArguments, abi::bytes_of(range(kFirst, kFirst + n)));
                    bench.put(kArguments + 0x100, abi::bytes_of(range(kFirst + n, kFirst)));
                    for (std::uint64_t i = 0; i < n; ++i) {
                        bench.put(kTarget + i * vmm::kPageSize, ~i);
                    }
                },
            .next = [=, back = true](Bench&) mutable -> LongCalls::Turn {
                back = !back;
                return {.job = {.row = back ? 1u : 0u, .times = 1}};
            }};
}

Row grant_op(std::uint64_t op, std::uint64_t n) {
    return {abi::HYPERVISOR_grant_table_op, 0, {op, kList, n}};
}

void grant_pages(Bench& bench, std::uint64_t n) {
    std::byte* table = bench.machine().memory().own_page(xenshim::kFirstGrantPage);
    if (!bench.platform().domain().grants().grow_to(64)) bench.failure = "no grant frames";
    for (std::uint64_t i = 0; i < n; ++i) {
        const abi::grant_entry_v1 entry{abi::GTF_permit_access,
                                        bench.platform().domain().grants().domid(),
                                        static_cast<std::uint32_t>(kGrantedGfn + i)};
        std::memcpy(table + (kFirstRef + i) * sizeof entry, &entry, sizeof entry);
        bench.put(vmm::gfn_to_gpa(kGrantedGfn + i).value, ~i);
    }
}

LongCalls copies(std::uint64_t n) {
    return {.name = "grant copy of whole pages, n = " + std::to_string(n),
            .rows = {grant_op(abi::GNTTABOP_copy, n)},
            .prepare =
                [=](Bench& bench) {
                    constexpr std::uint64_t kPages = 32;
                    grant_pages(bench, kPages);
                    for (std::uint64_t i = 0; i < n; ++i) {
                        const abi::gnttab_copy<abi::W64> op{
                            .source_u = kFirstRef + i % kPages,
                            .source_domid = abi::DOMID_SELF,
                            .source_offset = 0,
                            .dest_u = kGrantedGfn + kPages + i % kPages,
                            .dest_domid = abi::DOMID_SELF,
                            .dest_offset = 0,
                            .len = vmm::kPageSize,
                            .flags = abi::GNTCOPY_source_gref,
                            .status = 0};
                        bench.put(kList + i * sizeof op, abi::bytes_of(op));
                    }
                },
            .next = [=](Bench&) -> LongCalls::Turn {
                return {.job = {.row = 0, .times = times_for(n)}};
            }};
}

// As many as can be: pages that a guest maps are ours from then on.
LongCalls maps(std::uint64_t n) {
    constexpr std::uint64_t kUnmaps = kList + (8 << 20);
    return {
        .name = "grant map and unmap, n = " + std::to_string(n),
        .rows = {grant_op(abi::GNTTABOP_map_grant_ref, n),
                 {abi::HYPERVISOR_grant_table_op, 0, {abi::GNTTABOP_unmap_grant_ref, kUnmaps, n}}},
        .prepare = [](Bench&) {},
        .next = [=, mapped = false](Bench& bench) mutable -> LongCalls::Turn {
            mapped = !mapped;
            for (std::uint64_t i = 0; mapped && i < n; ++i) {
                if (bench.platform().domain().physmap().has_ram(kGrantedGfn + i)) continue;
                if (!bench.platform().domain().physmap().populate(kGrantedGfn + i)) {
                    bench.failure = "no page to grant";
                }
            }
            if (mapped) grant_pages(bench, n);
            for (std::uint64_t i = 0; i < n; ++i) {
                using Map = abi::gnttab_map_grant_ref;
                const std::uint64_t at = kList + i * sizeof(Map);
                const std::uint64_t place = vmm::gfn_to_gpa(kMapGfn + i).value;
                if (mapped) {
                    bench.put(at, Map{.host_addr = place,
                                      .flags = abi::GNTMAP_host_map,
                                      .ref = static_cast<std::uint32_t>(kFirstRef + i),
                                      .dom = bench.platform().domain().grants().domid(),
                                      .status = 0,
                                      .handle = 0,
                                      .dev_bus_addr = 0});
                    continue;
                }
                Map done;
                std::memcpy(&done,
                            bench.machine().memory().guest().page(at >> 12) + at % vmm::kPageSize,
                            sizeof done);
                if (done.status != abi::GNTST_okay)
                    bench.failure = "a grant was not mapped: " + std::to_string(done.status);
                bench.put(kUnmaps + i * sizeof(abi::gnttab_unmap_grant_ref),
                          abi::gnttab_unmap_grant_ref{.host_addr = place,
                                                      .dev_bus_addr = 0,
                                                      .handle = done.handle,
                                                      .status = 0,
                                                      .pad = 0});
            }
            return {.job = {.row = mapped ? 0u : 1u, .times = 1}};
        }};
}

LongCalls swaps(std::uint64_t n) {
    return {.name = "grant swap, n = " + std::to_string(n),
            .rows = {grant_op(abi::GNTTABOP_swap_grant_ref, n)},
            .prepare =
                [=](Bench& bench) {
                    grant_pages(bench, 0);
                    for (std::uint64_t i = 0; i < n; ++i) {
                        const auto ref = static_cast<std::uint32_t>(kFirstRef + i % 16'000);
                        bench.put(kList + i * sizeof(abi::gnttab_swap_grant_ref),
                                  abi::gnttab_swap_grant_ref{
                                      .ref_a = ref, .ref_b = ref + 16'000, .status = 0, .pad = 0});
                    }
                },
            .next = [=](Bench&) -> LongCalls::Turn {
                return {.job = {.row = 0, .times = times_for(n)}};
            }};
}

// It has no place to stop, on Xen neither: it is as long as the table is.
LongCalls versions() {
    return {
        .name = "grant set_version, 64 frames",
        .rows = {{abi::HYPERVISOR_grant_table_op, 0, {abi::GNTTABOP_set_version, kList, 1}},
                 {abi::HYPERVISOR_grant_table_op, 0, {abi::GNTTABOP_set_version, kList + 8, 1}}},
        .prepare =
            [](Bench& bench) {
                grant_pages(bench, 0);
                bench.put(kList, std::uint32_t{2});
                bench.put(kList + 8, std::uint32_t{1});
            },
        .next = [first = false](Bench&) mutable -> LongCalls::Turn {
            first = !first;
            return {.job = {.row = first ? 0u : 1u, .times = 1}};
        }};
}

LongCalls multicalls(std::uint64_t n) {
    return {.name = "multicall of xen_version, n = " + std::to_string(n),
            .rows = {{abi::HYPERVISOR_multicall, 0, {kList, n}}},
            .prepare =
                [=](Bench& bench) {
                    for (std::uint64_t i = 0; i < n; ++i) {
                        bench.put(kList + i * sizeof(abi::multicall_entry<abi::W64>),
                                  abi::bytes_of(abi::multicall_entry<abi::W64>{
                                      .op = abi::HYPERVISOR_xen_version, .result = 0, .args = {}}));
                    }
                },
            .next = [=](Bench&) -> LongCalls::Turn {
                return {.job = {.row = 0, .times = times_for(n)}};
            }};
}

// All ports open, 2-level or FIFO by their number; they are opened again before each reset.
LongCalls resets(std::uint64_t n) {
    constexpr std::uint64_t kControlGfn = kScratchGfn, kArrayGfn = kScratchGfn + 16;
    xenshim::DomainConfig domain;
    domain.max_event_port = xenshim::kFifoPorts - 1;
    return {.name = "event channel reset, n = " + std::to_string(n),
            .rows = {{abi::HYPERVISOR_event_channel_op, 0, {abi::EVTCHNOP_reset, kArguments}}},
            .domain = domain,
            .by_request = true,
            .prepare = [](Bench& bench) { bench.put(kArguments, abi::DOMID_SELF); },
            .next = [=](Bench& bench) -> LongCalls::Turn {
                auto& channels = bench.platform().domain().event_channels();
                const auto page = [&](std::uint64_t gfn) -> xenshim::NamedPage {
                    return {gfn, bench.machine().memory().guest().page(gfn)};
                };
                constexpr std::uint64_t kTwoLevel = 4096;
                bool done = n < kTwoLevel || channels.init_control(0, 0, page(kControlGfn));
                for (std::uint64_t i = 0; n >= kTwoLevel && i <= n / xenshim::kFifoWordsPerPage;
                     ++i) {
                    done = done && channels.expand_array(page(kArrayGfn + i));
                }
                for (std::uint64_t i = 0; done && i < n; ++i) {
                    done = channels.alloc_unbound(0).has_value();
                }
                if (!done) bench.failure = "no event channels";
                return {.job = {.row = 0, .times = 1}};
            }};
}

// The device model's: pages that it has written to.
LongCalls modified_pages(std::uint64_t n) {
    constexpr std::uint64_t kHeader = kArguments + 0x100, kExtent = kArguments + 0x200;
    xenshim::DomainConfig domain;
    domain.device_model = true;
    return {.name = "dm_op modified_memory, n = " + std::to_string(n),
            .target_pages = n,
            .rows = {{abi::HYPERVISOR_dm_op, 0, {abi::DOMID_SELF, 2, kArguments}}},
            .domain = domain,
            .prepare = [](Bench&) {},
            .next = [=](Bench& bench) -> LongCalls::Turn {
                const std::uint64_t buffers[] = {kHeader, 16, kExtent, 16};
                // The operation, how many extents; the extent: pages, padding, the first of them.
                const std::uint32_t header[] = {abi::XEN_DMOP_modified_memory, 0, 1, 0};
                const std::uint32_t extent[] = {static_cast<std::uint32_t>(n), 0,
                                                static_cast<std::uint32_t>(kTarget >> 12), 0};
                bench.put(kArguments, buffers);
                bench.put(kHeader, header);
                bench.put(kExtent, extent);
                return {.job = {.row = 0, .times = 1}};
            }};
}

// ---- what an element costs ----------------------------------------------------------------------

Result<void> per_extent(const Options& options) {
    const std::vector<std::uint64_t> counts = options.smoke
                                                  ? std::vector<std::uint64_t>{64}
                                                  : std::vector<std::uint64_t>{256, 4096, 65535};
    const unsigned rounds = options.smoke ? 2 : 15;
    Bench bench;
    xenshim::PlatformConfig config;
    config.preempt = {.every = 0, .at = {}, .after_us = 1'000'000};
    TRY(bench.set_up(options, std::move(config), counts.back(),
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
    const std::uint64_t most = options.smoke ? 64 : options.most;
    const auto each = [&](const std::vector<std::uint64_t>& counts,
                          const std::function<LongCalls(std::uint64_t)>& calls) -> Result<void> {
        for (const std::uint64_t n : counts) {
            if (n <= most) TRY(event_latency(options, calls(n)));
        }
        return {};
    };
    TRY(each({1, 64, 4096, 262'144, 4'000'000},
             [](std::uint64_t n) { return reservations({.count = n}); }));
    TRY(each({64, 4096, 65'536},
             [](std::uint64_t n) { return reservations({.count = n, .in_use = true}); }));
    const std::uint64_t big = options.smoke ? 2 : 64;
    TRY(event_latency(options, reservations({.count = big, .order = 9, .in_use = true})));
    TRY(event_latency(options, populated_again(big)));
    TRY(each({1, 64, 4096, 65'535}, batches));
    TRY(each({64, 4096, 65'535}, moves));
    TRY(each({1, 64, 4096, 262'144, 4'000'000}, copies));
    TRY(each({64, 1000}, maps));
    TRY(each({1, 64, 4096, 262'144, 4'000'000}, swaps));
    TRY(event_latency(options, versions()));
    TRY(each({1, 64, 4096, 262'144, 4'000'000}, multicalls));
    TRY(each({64, 4000, 131'000}, resets));
    TRY(each({64, 4096, 262'144, 4'000'000}, modified_pages));
    return per_extent(options);
}

int main_of(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string_view arg = argv[i];
        if (arg == "--smoke") {
            options.smoke = true;
        } else if (arg == "--samples" && i + 1 < argc) {
            options.samples = static_cast<unsigned>(std::stoul(argv[++i]));
        } else if (arg == "--most" && i + 1 < argc) {
            options.most = std::stoull(argv[++i]);
        } else if (arg == "--transport" && i + 1 < argc) {
            options.xen = std::string_view(argv[++i]) == "kvm-xen";
        } else {
            std::fprintf(stderr,
                         "usage: bench_long_calls [--transport portable|kvm-xen] [--samples N]\n"
                         "                        [--most ELEMENTS] [--smoke]\n");
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
