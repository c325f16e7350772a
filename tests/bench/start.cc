// How long `xenolith run` takes to the guest's first instruction, beside what no VMM can avoid;
// and how much memory of its own it has while a small guest sleeps.
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
#include <signal.h>
#include <spawn.h>
#include <sstream>
#include <string>
#include <thread>
#include <unistd.h>
#include <x86intrin.h>

#include <sys/resource.h>
#include <sys/wait.h>

#include "tests/bench/pairs.h"
#include "tests/bench/raw_vm.h"

extern char** environ;

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

double cpu_ns(const rusage& usage) {
    const auto ns = [](const timeval& t) {
        return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_usec) * 1e3;
    };
    return ns(usage.ru_utime) + ns(usage.ru_stime);
}

class Process {
  public:
    // `output` becomes its stdout; stdin and stderr stay ours.
    static Result<Process> spawn(std::vector<std::string> argv, int output) {
        std::vector<char*> args;
        for (auto& a : argv) {
            args.push_back(a.data());
        }
        args.push_back(nullptr);
        posix_spawn_file_actions_t actions;
        ::posix_spawn_file_actions_init(&actions);
        if (output >= 0) ::posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
        pid_t pid = -1;
        const int error = ::posix_spawn(&pid, args[0], &actions, nullptr, args.data(), environ);
        ::posix_spawn_file_actions_destroy(&actions);
        if (error != 0) return vmm::errno_error(argv[0], vmm::Fault::kUser, error);
        return Process(pid);
    }

    pid_t pid() const { return pid_; }
    // Waits for its end; the CPU time that all of it took.
    double wait() {
        rusage usage{};
        ::wait4(pid_, nullptr, 0, &usage);
        return cpu_ns(usage);
    }
    void terminate() { ::kill(pid_, SIGTERM); }

  private:
    explicit Process(pid_t pid) : pid_(pid) {}
    pid_t pid_;
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

// A running xenolith whose guest has said when it started.
struct Guest {
    Process process;
    double start_ns;  // from the exec to the first instruction
};

Result<Guest> start_guest(const Options& options, double tsc_rate) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return vmm::errno_error("pipe2");
    vmm::Fd from(ends[0]), to(ends[1]);
    const std::uint64_t before = __rdtsc();
    auto process = TRY(Process::spawn({options.xenolith, "run", "--kernel", options.guest,
                                       "--memory", "128M", "--transport", options.transport},
                                      to.get()));
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

// exec of /bin/true to its end, and then a raw VM of the same size to its guest's first exit.
Result<Unavoidable> unavoidable() {
    Unavoidable u;
    const Times before = now();
    auto process = TRY(Process::spawn({"/bin/true"}, -1));
    const double child_cpu = process.wait();
    const Times between = now();
    auto raw = TRY(RawVm::create({.memory_bytes = kGuestMemory}));
    write_page_tables(raw->memory());
    const unsigned char out[] = {0xe6, 0x7e, 0xf4};
    std::memcpy(raw->memory() + kCode, out, sizeof out);
    TRY(raw->set_start());
    if (!raw->run(1) || !raw->last_was_trap(false)) return vmm::internal_error("the raw VM");
    const Times after = now();
    u.whole = after - before;
    u.raw_wall = after.wall - between.wall;
    u.raw_cpu = after.cpu - between.cpu;
    u.whole.cpu = child_cpu + u.raw_cpu;
    return u;
}

Result<void> measure_start(const Options& options) {
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
                auto guest = TRY(start_guest(options, rate));
                guest.process.terminate();
                const double cpu = guest.process.wait();
                if (round >= kWarmUp) ours.push_back({.cpu = cpu, .wall = guest.start_ns});
                continue;
            }
            const auto u = TRY(unavoidable());
            if (round < kWarmUp) continue;
            (what == 1 ? limit : control).push_back(u.whole);
            if (what == 1) raw.push_back(u.raw_wall);
        }
    }
    const auto ms = [](const std::vector<double>& v) { return median(v) / 1e6; };
    const auto wall = of(ours, Clock::kWall);
    const auto limit_wall = of(limit, Clock::kWall);
    std::printf(
        "start, 1 vCPU and 128 MiB: ours %.2f ms (min %.2f), limit %.2f ms (min %.2f), of "
        "that the raw VM %.2f ms; CPU of the whole run %.2f ms; %u rounds\n",
        ms(wall), smallest(wall) / 1e6, ms(limit_wall), smallest(limit_wall) / 1e6, ms(raw),
        ms(of(ours, Clock::kCpu)), options.rounds);
    print({.name = "exec to first instruction / true + raw set-up",
           .numerator = ours,
           .denominator = limit,
           .control = {limit, control},
           .limit = {1.3, 2.0},
           .clock = Clock::kWall,
           .verdict = !options.smoke});
    return {};
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
    auto guest = TRY(start_guest(options, 1));
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
    for (const auto measure : {measure_start, measure_memory}) {
        status = std::max(status, exit_status("bench_start", measure(options)));
    }
    return status;
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
    return bench::main_of(argc, argv);
}
