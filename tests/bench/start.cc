// How long `xenolith run` and `xenolith restore` take to the guest's first instruction, beside what
// no VMM can avoid; and how much memory of its own it has while a small guest sleeps.
//
// The guest reads the TSC in its first instruction and sends it over its console. Where the guest's
// TSC is the host's plus an offset, the offset comes from KVM's debugfs.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <poll.h>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <unistd.h>
#include <x86intrin.h>

#include "tests/bench/pairs.h"
#include "tests/bench/process.h"
#include "tests/bench/raw_vm.h"

namespace bench {
namespace {

using vmm::Result;

constexpr std::uint64_t kGuestMemory = 128 << 20;

struct Options {
    std::string xenolith, guest, transport = "auto";
    unsigned rounds = 600;
    bool smoke = false;
    bool verbose = false;
};

// The TSC's frequency, against the clock that everything else is measured with.
double tsc_per_ns() {
    const double wall = now().wall;
    const std::uint64_t tsc = __rdtsc();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    return static_cast<double>(__rdtsc() - tsc) / (now().wall - wall);
}

// What KVM adds to the host's TSC for the vCPU of process `pid`; 0 where debugfs does not say.
std::int64_t tsc_offset_of(pid_t pid) {
    std::error_code ignored;
    for (const auto& vm : std::filesystem::directory_iterator("/sys/kernel/debug/kvm", ignored)) {
        if (vm.path().filename().string().rfind(std::to_string(pid) + "-", 0) != 0) continue;
        std::ifstream file(vm.path() / "vcpu0" / "tsc-offset");
        std::int64_t offset = 0;
        if (file >> offset) return offset;
    }
    return 0;
}

std::vector<std::string> run_command(const Options& options, std::uint64_t memory_bytes) {
    return {options.xenolith, "run",
            "--kernel",       options.guest,
            "--memory",       std::to_string(memory_bytes >> 20) + "M",
            "--transport",    options.transport};
}

// A running xenolith whose guest has said when it started.
struct Guest {
    Process process;
    double start_ns;  // from the exec to the first instruction
};

Result<Guest> start_guest(std::vector<std::string> command, double tsc_rate) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return vmm::errno_error("pipe2");
    vmm::Fd from(ends[0]), to(ends[1]);
    const std::uint64_t before = __rdtsc();
    auto process = TRY(Process::spawn(std::move(command), to.get()));
    to = vmm::Fd();
    std::uint64_t tsc = 0;
    const auto got = ::read(from.get(), &tsc, sizeof tsc);
    const std::uint64_t after = __rdtsc();
    if (got != sizeof tsc) {
        process.terminate();
        process.wait();
        return vmm::internal_error("the guest did not report");
    }
    tsc -= static_cast<std::uint64_t>(tsc_offset_of(process.pid()));
    if (tsc < before || tsc > after) {
        process.terminate();
        process.wait();
        return vmm::host_error("the guest's TSC cannot be compared with the host's here");
    }
    return Guest{process, static_cast<double>(tsc - before) / tsc_rate};
}

struct Unavoidable {
    Times whole;
    double raw_wall = 0, raw_cpu = 0;
};

// What a limit is of: a raw VM of this size, made new or, with a file and a state, restored.
struct Raw {
    std::uint64_t memory_bytes = 0;
    std::string file = {};
    std::shared_ptr<const RawState> state = {};
};

void put_code(RawVm& raw) {
    write_page_tables(raw.memory());
    const unsigned char out[] = {0xe6, 0x7e, 0xf4};
    std::memcpy(raw.memory() + kCode, out, sizeof out);
}

// exec of /bin/true to its end, and then the raw VM to its guest's first exit. One that is restored
// maps its file privately as its memory and is given all of a vCPU's state: no VMM restores a guest
// without that, whatever its format.
Result<Unavoidable> unavoidable(const Raw& of) {
    Unavoidable u;
    const Times before = now();
    auto process = TRY(Process::spawn({"/bin/true"}, -1));
    const double child_cpu = process.wait();
    const Times between = now();
    auto raw = TRY(RawVm::create({.memory_bytes = of.memory_bytes, .memory_file = of.file}));
    put_code(*raw);
    if (of.state) {
        TRY(raw->set_state(*of.state));
    } else {
        TRY(raw->set_start());
    }
    if (!raw->run(1) || !raw->last_was_trap(false)) return vmm::internal_error("the raw VM");
    const Times after = now();
    u.whole = after - before;
    u.raw_wall = after.wall - between.wall;
    u.raw_cpu = after.cpu - between.cpu;
    u.whole.cpu = child_cpu + u.raw_cpu;
    return u;
}

// `command` against the unavoidable, in random order.
Result<void> compare(const Options& options, const std::string& name,
                     const std::vector<std::string>& command, const Raw& raw_vm, Limit judged_by) {
    const double rate = tsc_per_ns();
    std::vector<Times> ours, limit, control;
    std::vector<double> raw;
    std::mt19937 random(7);
    constexpr unsigned kWarmUp = 2;
    for (unsigned round = 0; round < options.rounds + kWarmUp; ++round) {
        std::vector<int> order = {0, 1, 2};
        std::shuffle(order.begin(), order.end(), random);
        for (const int what : order) {
            if (what == 0) {
                auto guest = TRY(start_guest(command, rate));
                guest.process.terminate();
                const double cpu = guest.process.wait();
                if (round >= kWarmUp) ours.push_back({.cpu = cpu, .wall = guest.start_ns});
                continue;
            }
            const auto u = TRY(unavoidable(raw_vm));
            if (round < kWarmUp) continue;
            (what == 1 ? limit : control).push_back(u.whole);
            if (what == 1) raw.push_back(u.raw_wall);
        }
    }
    const auto ms = [](const std::vector<double>& v) { return median(v) / 1e6; };
    const auto wall = of(ours, Clock::kWall);
    const auto limit_wall = of(limit, Clock::kWall);
    std::printf(
        "%s, 1 vCPU and %llu MiB: ours %.2f ms (min %.2f), limit %.2f ms (min %.2f), of "
        "that the raw VM %.2f ms; CPU of the whole run %.2f ms; %u rounds\n",
        name.c_str(), static_cast<unsigned long long>(raw_vm.memory_bytes >> 20), ms(wall),
        smallest(wall) / 1e6, ms(limit_wall), smallest(limit_wall) / 1e6, ms(raw),
        ms(of(ours, Clock::kCpu)), options.rounds);
    print({.name = name + " to first instruction / true + raw set-up",
           .numerator = ours,
           .denominator = limit,
           .control = {limit, control},
           .limit = judged_by,
           .clock = Clock::kWall,
           .verdict = !options.smoke});
    return {};
}

Result<void> measure_start(const Options& options) {
    return compare(options, "exec", run_command(options, kGuestMemory),
                   {.memory_bytes = kGuestMemory}, {1.3, 2.0});
}

// ---- restoring ----------------------------------------------------------------------------------

// A guest before its first instruction, in a file. Its RAM is all but empty, and of a restore's
// time nothing may depend on that: what the guest does not touch is not looked at.
Result<void> save_guest(const Options& options, std::uint64_t memory_bytes,
                        const std::string& file) {
    const std::string name = "bench-" + std::to_string(::getpid());
    auto command = run_command(options, memory_bytes);
    command.insert(command.end(), {"--name", name, "--paused"});
    auto guest = TRY(Process::spawn(std::move(command), -1));
    // It refuses until the guest is there; a minute is far more than it takes.
    for (unsigned tries = 0; tries < 600; ++tries) {
        auto save = TRY(Process::spawn({options.xenolith, "save", name, file}, -1));
        save.wait();
        if (::access(file.c_str(), F_OK) == 0) {
            guest.wait();
            return {};
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    guest.terminate();
    guest.wait();
    return vmm::internal_error("the guest could not be saved");
}

// Of a VM that is gone when this returns: the first one on a host costs KVM more than others.
Result<std::shared_ptr<const RawState>> state_at_start() {
    const auto raw = TRY(RawVm::create({}));
    TRY(raw->set_start());
    return raw->read_state();
}

Result<void> measure_restore(const Options& options) {
    const auto folder =
        std::filesystem::temp_directory_path() / ("bench-start-" + std::to_string(::getpid()));
    std::filesystem::create_directory(folder);
    const auto result = [&]() -> Result<void> {
        const auto state = TRY(state_at_start());
        for (const std::uint64_t mib : {64, 512, 2048, 8192}) {
            const std::string file = folder / std::to_string(mib);
            TRY(save_guest(options, mib << 20, file));
            TRY(compare(options, "restore",
                        {options.xenolith, "restore", "--transport", options.transport, file},
                        {.memory_bytes = mib << 20, .file = file, .state = state}, {1.2, 1.5}));
            if (options.smoke) break;
        }
        return {};
    }();
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
    return result;
}

// ---- memory -------------------------------------------------------------------------------------

struct Mapping {
    std::string name;
    std::uint64_t pss_kib = 0, rss_kib = 0;
};

// /proc/PID/smaps, mappings of one name together.
std::vector<Mapping> read_mappings(pid_t pid) {
    std::vector<Mapping> mappings;
    std::ifstream file("/proc/" + std::to_string(pid) + "/smaps");
    std::size_t current = 0;
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line);
        std::string first;
        words >> first;
        if (first.find('-') != std::string::npos && first.back() != ':') {
            std::string word, name;
            for (int i = 0; i < 4; ++i) {
                words >> word;
            }
            std::getline(words >> std::ws, name);
            if (name.empty()) name = "[anonymous]";
            const auto known = std::find_if(mappings.begin(), mappings.end(),
                                            [&](const Mapping& m) { return m.name == name; });
            current = static_cast<std::size_t>(known - mappings.begin());
            if (known == mappings.end()) mappings.push_back({.name = name});
        } else if (first == "Pss:" || first == "Rss:") {
            std::uint64_t kib = 0;
            words >> kib;
            (first == "Pss:" ? mappings[current].pss_kib : mappings[current].rss_kib) += kib;
        }
    }
    return mappings;
}

Result<void> measure_memory(const Options& options) {
    auto guest = TRY(start_guest(run_command(options, kGuestMemory), 1));
    // Housekeeping has been round a few times by then.
    std::this_thread::sleep_for(std::chrono::milliseconds(options.smoke ? 100 : 1500));
    auto mappings = read_mappings(guest.process.pid());
    guest.process.terminate();
    guest.process.wait();
    std::uint64_t pss = 0, rss = 0, ram = 0;
    std::sort(mappings.begin(), mappings.end(),
              [](const Mapping& a, const Mapping& b) { return a.pss_kib > b.pss_kib; });
    for (const Mapping& m : mappings) {
        if (m.name.rfind("/memfd:guest-ram", 0) == 0) {
            ram += m.rss_kib;
            continue;
        }
        pss += m.pss_kib;
        rss += m.rss_kib;
        if (options.verbose) {
            std::printf("  %6llu KiB PSS %6llu KiB RSS  %s\n",
                        static_cast<unsigned long long>(m.pss_kib),
                        static_cast<unsigned long long>(m.rss_kib), m.name.c_str());
        }
    }
    const double mib = static_cast<double>(pss) / 1024;
    std::printf("%-50s %5.2f MiB PSS  (%.2f MiB RSS; guest RAM in use %.2f MiB)",
                "own memory, 1 vCPU and 128 MiB", mib, static_cast<double>(rss) / 1024,
                static_cast<double>(ram) / 1024);
    constexpr Limit kLimit{2, 5};
    if (!options.smoke) {
        std::printf("  goal 2 MiB accept 5 MiB  %s", std::string(judge(mib, kLimit)).c_str());
    }
    std::printf("\n");
    return {};
}

int usage() {
    std::fprintf(stderr,
                 "usage: bench_start --xenolith FILE --guest FILE [--transport T] [--rounds N] "
                 "[--smoke] [--verbose]\n");
    return 2;
}

int main_of(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string_view arg = argv[i];
        if (arg == "--smoke") {
            options.smoke = true;
            options.rounds = 2;
        } else if (arg == "--verbose") {
            options.verbose = true;
        } else if (i + 1 == argc) {
            return usage();
        } else if (arg == "--xenolith") {
            options.xenolith = argv[++i];
        } else if (arg == "--guest") {
            options.guest = argv[++i];
        } else if (arg == "--transport") {
            options.transport = argv[++i];
        } else if (arg == "--rounds") {
            options.rounds = static_cast<unsigned>(std::stoul(argv[++i]));
        } else {
            return usage();
        }
    }
    if (options.xenolith.empty() || options.guest.empty()) return usage();
    int status = 0;
    for (const auto measure : {measure_start, measure_restore, measure_memory}) {
        status = std::max(status, exit_status("bench_start", measure(options)));
    }
    return status;
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
    return bench::main_of(argc, argv);
}
