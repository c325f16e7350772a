// The sweep: each continuable operation, stopped before each of its units, at both widths, under
// every profile that has it. Wherever it stops, the registers are the formula's, guest memory is
// what the formula says, and going on ends with the answer and the memory of the run that nobody
// stopped. Four ways of stopping:
//
//   chain    every:1 and a pending wish in turn: as many stops as there are units, on two vCPUs
//   once     one stop before unit k, then the rest in one piece
//   twice    one stop before unit k, one more after a single unit
//   moved    one stop before unit k, where the domain is saved, and the rest in another one that
//            was made from its states' bytes and its memory; at some k
//
//   sweep [--units N] [--all] [--rounds N] [--scenario TEXT] [--profile NAME]
//
// --all makes the single and double stops at every k under every profile; without it, at every k
// under a profile of each dialect, and at every 8th under the others, whose chains stop at every k
// all the same. Each round puts other noise into what must not matter. Each operation has 300
// places to stop at, or it is said why not. Prints the number of stops; exit status 1 if anything
// differed.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <unistd.h>

#include <sys/mman.h>
#include <sys/wait.h>

#include "tests/fakes/saved_domain.h"
#include "tests/sweep/guest_cpu.h"
#include "tests/sweep/scenario.h"
#include "xenshim/abi/profile.h"

namespace xenshim::tests {
namespace {

using abi::Width;
using fakes::TestDomain;

constexpr std::uint32_t kNoDeadline = 0xffff'ffff;  // 71 minutes
constexpr std::uint64_t kLeastStops = 300;

struct Options {
    std::uint64_t units = 301;
    bool all = false;
    std::uint64_t rounds = 1;
    std::string scenario;
    std::string profile;
};

// Everything of a domain that a guest can see and that an operation of ours may change.
struct State {
    std::int64_t result = 0;
    std::vector<std::byte> scratch;
    std::vector<std::uint64_t> facts;
    bool operator==(const State&) const = default;
};

std::uint64_t mix(std::uint64_t hash, std::uint64_t value) {
    return (hash ^ value) * 0x9e37'79b9'7f4a'7c15 + (hash >> 29);
}

// The beginning and the end of a page: whole pages move here, never parts.
std::uint64_t page_print(const std::byte* page) {
    constexpr std::size_t kEnds[] = {0, 8, 16, 2040, 4080, 4088};
    std::uint64_t hash = 1;
    for (const std::size_t at : kEnds) {
        std::uint64_t word = 0;
        std::memcpy(&word, page + at, sizeof word);
        hash = mix(hash, word);
    }
    return hash;
}

// One machine for all domains of a process, so that no page is paid for twice; and one for those
// that were moved.
fakes::FakePorts& machine() {
    static fakes::FakePorts ports;
    ports.keeps_pages = true;
    return ports;
}
fakes::FakePorts& other_machine() {
    static fakes::FakePorts ports;
    ports.keeps_pages = true;
    return ports;
}

class Run {
  public:
    Run(const abi::Profile& profile, Width width, const Scenario& scenario, std::uint64_t units,
        std::uint64_t seed)
        : scenario_(scenario),
          profile_(profile),
          era_(profile.name),
          random_(seed),
          guest_(width, options(machine())) {
        call_ = scenario.prepare(guest_, era_, units);
        cpu_.width = width;
        cpu_.wide_numbers = profile.wide_numbers;
        cpu_.load(call_.number, call_.args, random_);
        scratch_ = scratch();
    }
    ~Run() {
        std::vector<std::uint64_t> touched = call_.gfns;
        for (std::uint64_t at = TestDomain::kScratch; at < guest_.reserve(0, 1).value;
             at += vmm::kPageSize) {
            touched.push_back(at >> vmm::kPageShift);
        }
        guest_.ports.reset(touched);
        if (moved_ != nullptr) moved_->ports.reset(touched);
    }
    Run(const Run&) = delete;
    Run& operator=(const Run&) = delete;

    TestDomain& guest() { return guest_; }
    const Prepared& call() const { return call_; }
    std::uint64_t stops() const { return stops_; }
    const std::string& complaint() const { return complaint_; }

    // From here on the guest is another domain on another machine, and goes on there.
    void move() {
        moved_ = std::make_unique<TestDomain>(guest_.width(), options(other_machine()));
        moved_->ports.pool_pages = guest_.ports.pool_pages;
        moved_->ports.copy_memory(guest_.ports);
        moved_->ports.now_ns = guest_.ports.now_ns.load();
        for (auto left = guest_.domain.event_channels().snapshot().backends; left != 0; --left) {
            moved_->domain.event_channels().attach_backend({});
        }
        if (const auto carried = fakes::carry_domain(guest_.domain, moved_->domain); !carried) {
            complain(0, "it cannot be moved: " + carried.error());
            return;
        }
        moved_->domain.physmap().settle();
        if (!(fakes::save(moved_->domain) == fakes::save(guest_.domain))) {
            complain(0, "it is not the same after it was moved");
        }
        live_ = moved_.get();
        call_.done = {};  // asks the domain that was left
    }

    // One entry on `vcpu`. True: it stopped, and then `unit` is where it must have.
    bool enter(const PreemptPolicy& policy, unsigned vcpu, std::uint64_t unit, bool wish = false) {
        cpu_.scramble_upper_halves(random_);
        const GuestCpu before = cpu_;
        const std::atomic<std::uint32_t> wanted{wish ? 1u : 0u};
        Preemption preemption(wanted, policy);
        const abi::Request request = read_request(cpu_);
        const abi::Reply reply =
            run_hypercall(live_->domain, live_->access, preemption, vcpu, request);
        if (const auto* finish = std::get_if<abi::Finish>(&reply)) {
            result_ = finish->result;
            return false;
        }
        const auto* again = std::get_if<abi::Reissue>(&reply);
        if (again == nullptr) {
            complain(unit, "the call blocked");
            return false;
        }
        ++stops_;
        write_reissue(cpu_, request.width, *again);
        check_stop(before, unit);
        return complaint_.empty();
    }

    State state() {
        constexpr std::uint32_t kEntries = 512;  // of a grant frame
        State s{.result = result_, .scratch = scratch(), .facts = {}};
        auto& physmap = live_->domain.physmap();
        const auto accounts = physmap.accounts();
        s.facts = {accounts.current, accounts.maximum, accounts.highest_gfn,
                   physmap.modified_pages()};
        for (const std::uint64_t gfn : call_.gfns) {
            std::uint64_t fact =
                (physmap.has_ram(gfn) ? 1u : 0u) | (physmap.is_mapped(gfn) ? 2u : 0u);
            fact |= static_cast<std::uint64_t>(physmap.mem_type(gfn)) << 2;
            if (const std::byte* page = live_->ports.memory.page(gfn)) {
                fact = mix(fact, page_print(page));
            }
            s.facts.push_back(fact);
        }
        for (std::uint32_t page = 0; page < kOwnPages; ++page) {
            s.facts.push_back(physmap.gfn_of_own(page));
        }
        for (std::uint32_t ref = 0; ref < kEntries; ++ref) {
            std::uint64_t entry = 0;
            const std::byte* table = live_->ports.own_page(kFirstGrantPage);
            std::memcpy(&entry, table + ref * sizeof entry, sizeof entry);
            s.facts.push_back(entry);
        }
        for (std::uint32_t port = 0; port < call_.event_ports; ++port) {
            const auto status = live_->domain.event_channels().status(port);
            s.facts.push_back(status ? status->status : ~std::uint64_t{0});
        }
        return s;
    }

    void complain(std::uint64_t unit, const std::string& what) {
        if (complaint_.empty()) complaint_ = "before unit " + std::to_string(unit) + ": " + what;
    }

  private:
    TestDomain::Options options(fakes::FakePorts& ports) const {
        TestDomain::Options o;
        o.profile = &profile_;
        o.ports = &ports;
        scenario_.options(o);
        return o;
    }

    std::vector<std::byte> scratch() {
        return live_->bytes({TestDomain::kScratch},
                            guest_.reserve(0, 1).value - TestDomain::kScratch);
    }

    void check_stop(const GuestCpu& before, std::uint64_t unit) {
        const Frozen expected = call_.frozen(unit);
        GuestCpu frozen = before;
        const std::uint64_t mask = cpu_.in_64bit_code() ? UINT64_MAX : UINT32_MAX;
        frozen.set(Reg::kRax, call_.number);
        for (std::size_t i = 0; i < expected.args.size(); ++i) {
            frozen.set(frozen.arg_regs()[i], expected.args[i] & mask);
        }
        for (std::size_t i = 0; i < GuestCpu::kRegs; ++i) {
            if (cpu_.regs[i] == frozen.regs[i]) continue;
            char text[120];
            std::snprintf(text, sizeof text, "register %zu holds 0x%llx, not 0x%llx", i,
                          static_cast<unsigned long long>(cpu_.regs[i]),
                          static_cast<unsigned long long>(frozen.regs[i]));
            complain(unit, text);
            return;
        }
        std::vector<std::byte> memory = scratch_;
        for (const Patch& patch : expected.memory) {
            std::memcpy(&memory[patch.at - TestDomain::kScratch], &patch.value, patch.bytes);
        }
        const auto now = scratch();
        for (std::size_t i = 0; i < memory.size(); ++i) {
            if (memory[i] == now[i]) continue;
            char text[120];
            std::snprintf(text, sizeof text, "byte 0x%zx of the arguments is 0x%02x, not 0x%02x", i,
                          static_cast<unsigned>(now[i]), static_cast<unsigned>(memory[i]));
            complain(unit, text);
            return;
        }
        if (!call_.done) return;
        if (unit > 0 && !call_.done(unit - 1)) complain(unit, "the unit before is not done");
        if (call_.done(unit)) complain(unit, "it is done already");
    }

    const Scenario& scenario_;
    const abi::Profile& profile_;
    const Era era_;
    std::mt19937_64 random_;
    TestDomain guest_;
    std::unique_ptr<TestDomain> moved_;
    TestDomain* live_ = &guest_;
    Prepared call_;
    GuestCpu cpu_;
    std::vector<std::byte> scratch_;  // as it was before the call
    std::int64_t result_ = INT64_MIN;
    std::uint64_t stops_ = 0;
    std::string complaint_;
};

// What makes two profiles the same dialect to the continuable operations.
std::string dialect(const Era& era) {
    char text[80];
    std::snprintf(text, sizeof text, "%u %d %d %d %d %d %d %d %d %d", era.memory_shift(),
                  era.handle_moves(), era.has_range(), era.range_in_struct(), era.has_batch(),
                  era.grants_continue(), static_cast<int>(era.hvm_memory()), era.reset_continues(),
                  era.has_multicall(), era.release >= 417);
    return text;
}

struct Tally {
    std::atomic<std::uint64_t> stops{0};
    std::atomic<std::uint64_t> runs{0};
    std::atomic<std::uint64_t> moves{0};
    std::atomic<std::uint64_t> failures{0};
};

class Sweep {
  public:
    Sweep(const Options& options, const abi::Profile& profile, Width width,
          const Scenario& scenario, std::uint64_t stride, std::uint64_t seed, Tally& tally)
        : options_(options),
          profile_(profile),
          width_(width),
          scenario_(scenario),
          stride_(stride),
          seed_(seed),
          tally_(tally) {}

    void run() {
        const auto [units, step] = whole();
        if (failed_) return;

        chain(false);
        chain(true);
        for (std::uint64_t k = step; k < units; k += step * stride_) {
            stop_at(k, step, units, false);
            stop_at(k, step, units, true);
            if (failed_) return;
        }
        constexpr std::uint64_t kMovedOf = 25;  // a run that is moved costs as much as ten
        for (std::uint64_t k = step; k < units; k += step * stride_ * kMovedOf) {
            move_at(k, step);
            if (failed_) return;
        }
    }

  private:
    static PreemptPolicy free() { return {.every = 0, .at = {}, .after_us = kNoDeadline}; }
    static PreemptPolicy every(std::uint32_t n) {
        return {.every = n, .at = {}, .after_us = kNoDeadline};
    }
    static PreemptPolicy at(std::uint64_t k) {
        return {.every = 0, .at = {k}, .after_us = kNoDeadline};
    }

    Run make(std::uint64_t salt) const {
        return {profile_, width_, scenario_, options_.units, seed_ + salt};
    }

    // The run that nobody stops: how many units, and in which steps.
    std::pair<std::uint64_t, std::uint64_t> whole() {
        Run run = make(0);
        // With nothing pending and time enough, no continuation is formed.
        const bool stopped = run.enter(free(), 0, 0);
        uninterrupted_ = run.state();
        if (stopped || run.stops() != 0) run.complain(0, "it stopped although nothing asked");
        const Prepared& call = run.call();
        if (uninterrupted_.result != call.result) {
            run.complain(0, "the result is " + std::to_string(uninterrupted_.result) + ", not " +
                                std::to_string(call.result));
        }
        close(run, "uninterrupted");
        return {call.units, call.granularity};
    }

    // As many entries as there are units, the vCPUs in turn.
    void chain(bool wish) {
        Run run = make(wish ? 7 : 5);
        const std::uint64_t step = run.call().granularity;
        std::uint64_t unit = step;
        unsigned entry = 0;
        while (run.enter(wish ? free() : every(1), entry % 2, unit, wish)) {
            unit += step;
            ++entry;
        }
        const std::uint64_t expected = (run.call().units - 1) / step;
        if (run.complaint().empty() && run.stops() != expected) {
            run.complain(unit,
                         std::to_string(run.stops()) + " stops, not " + std::to_string(expected));
        }
        if (expected < kLeastStops && options_.units > kLeastStops && scenario_.few_stops.empty()) {
            run.complain(0, "it has no more than " + std::to_string(expected) + " stops");
        }
        finish(run, wish ? "chain by wish" : "chain by every:1");
    }

    void stop_at(std::uint64_t k, std::uint64_t step, std::uint64_t units, bool twice) {
        Run run = make(k);
        bool stopped = run.enter(at(k / step), 0, k);
        if (!stopped) run.complain(k, "it did not stop");
        if (twice && stopped) {
            stopped = run.enter(every(1), 1, k + step);
            if (stopped != (k + step < units)) run.complain(k + step, "one unit, and no stop");
        }
        if (stopped && run.enter(free(), twice ? 0 : 1, 0)) run.complain(k, "it stopped again");
        finish(run, twice ? "twice" : "once");
    }

    void move_at(std::uint64_t k, std::uint64_t step) {
        Run run = make(k + 1);
        bool stopped = run.enter(at(k / step), 0, k);
        if (!stopped) run.complain(k, "it did not stop");
        if (run.complaint().empty()) {
            run.move();
            ++tally_.moves;
            stopped = run.enter(free(), 1, 0);
            if (stopped) run.complain(k, "it stopped again");
        }
        finish(run, "moved");
    }

    void finish(Run& run, const char* how) {
        if (run.complaint().empty()) {
            const State now = run.state();
            if (now.result != uninterrupted_.result) {
                run.complain(0, "the result is " + std::to_string(now.result) + ", not " +
                                    std::to_string(uninterrupted_.result));
            }
            for (std::size_t i = 0; i < now.facts.size(); ++i) {
                if (now.facts[i] != uninterrupted_.facts[i]) {
                    run.complain(0, "fact " + std::to_string(i) + " of the domain differs");
                }
            }
            check_scratch(run, now);
        }
        close(run, how);
    }

    // Arguments may show how far the last part had come, where the class keeps that in memory.
    void check_scratch(Run& run, const State& now) {
        if (run.call().progress_left.empty() && now.scratch != uninterrupted_.scratch) {
            run.complain(0, "guest memory differs at the end");
            return;
        }
        std::vector<std::byte> left = now.scratch, right = uninterrupted_.scratch;
        for (const Patch& patch : run.call().progress_left) {
            std::memset(&left[patch.at - TestDomain::kScratch], 0, patch.bytes);
            std::memset(&right[patch.at - TestDomain::kScratch], 0, patch.bytes);
        }
        if (left != right) run.complain(0, "guest memory differs at the end");
    }

    void close(Run& run, const char* how) {
        ++tally_.runs;
        tally_.stops += run.stops();
        if (run.complaint().empty()) return;
        failed_ = true;
        ++tally_.failures;
        std::printf("FAIL %.*s, %.*s, %d-bit, %s: %s\n", static_cast<int>(profile_.name.size()),
                    profile_.name.data(), static_cast<int>(scenario_.name.size()),
                    scenario_.name.data(), width_ == Width::k64 ? 64 : 32, how,
                    run.complaint().c_str());
    }

    const Options& options_;
    const abi::Profile& profile_;
    const Width width_;
    const Scenario& scenario_;
    const std::uint64_t stride_;
    const std::uint64_t seed_;  // of what stands in registers that must not matter
    Tally& tally_;
    State uninterrupted_;
    bool failed_ = false;
};

int sweep(const Options& options) {
    struct Job {
        const abi::Profile* profile;
        Width width;
        const Scenario* scenario;
        std::uint64_t stride;
        std::uint64_t seed;
    };
    constexpr std::uint64_t kStride = 8;
    std::vector<Job> jobs;
    std::set<std::string> seen;
    for (const abi::Profile& profile : abi::profiles()) {
        const Era era(profile.name);
        const bool first = seen.insert(dialect(era)).second;
        if (!options.profile.empty() && profile.name != options.profile) continue;
        for (const Scenario& scenario : scenarios()) {
            if (!scenario.exists(era)) continue;
            if (scenario.name.find(options.scenario) == std::string_view::npos) continue;
            for (const Width width : {Width::k64, Width::k32}) {
                for (std::uint64_t round = 0; round < options.rounds; ++round) {
                    jobs.push_back({&profile, width, &scenario, first || options.all ? 1 : kStride,
                                    round << 32});
                }
            }
        }
    }
    // Processes, not threads: all that the domains do to their memory is done to the address space,
    // and threads spent half of the time waiting for each other there.
    struct Shared {
        Tally tally;
        std::atomic<std::size_t> next{0};
    };
    void* const page =
        ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) {
        std::perror("sweep: mmap");
        return 1;
    }
    auto& [tally, next] = *new (page) Shared;
    const auto work = [&, &tally = tally, &next = next] {
        for (std::size_t i = next++; i < jobs.size(); i = next++) {
            const Job& job = jobs[i];
            Sweep(options, *job.profile, job.width, *job.scenario, job.stride, job.seed, tally)
                .run();
        }
        // Expectations inside of preparations count as well.
        return testing::UnitTest::GetInstance()->Failed() ? 1 : 0;
    };
    std::vector<pid_t> workers;
    for (unsigned n = std::max(1u, std::thread::hardware_concurrency()); n > 0; --n) {
        std::fflush(stdout);
        const pid_t pid = ::fork();
        if (pid == 0) {
            const int status = work();
            std::fflush(stdout);
            ::_exit(status);
        }
        if (pid < 0) std::perror("sweep: fork");
        workers.push_back(pid);
    }
    bool whole = true;
    for (const pid_t pid : workers) {
        int status = 0;
        const bool ended = pid > 0 && ::waitpid(pid, &status, 0) == pid;
        if (!ended || !WIFEXITED(status)) std::printf("FAIL a worker died, status %d\n", status);
        whole = whole && ended && status == 0;
    }
    for (const Scenario& scenario : scenarios()) {
        const bool swept =
            std::ranges::any_of(jobs, [&](const Job& job) { return job.scenario == &scenario; });
        if (!swept || scenario.few_stops.empty()) continue;
        std::printf("sweep: fewer stops of %.*s: %.*s\n", static_cast<int>(scenario.name.size()),
                    scenario.name.data(), static_cast<int>(scenario.few_stops.size()),
                    scenario.few_stops.data());
    }
    std::printf("sweep: %zu combinations, %llu runs, %llu stops, %llu moves, %llu differences\n",
                jobs.size(), static_cast<unsigned long long>(tally.runs),
                static_cast<unsigned long long>(tally.stops),
                static_cast<unsigned long long>(tally.moves),
                static_cast<unsigned long long>(tally.failures));
    return tally.failures == 0 && whole && !jobs.empty() ? 0 : 1;
}

}  // namespace
}  // namespace xenshim::tests

int main(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);
    xenshim::tests::Options options;
    // --long of tests/run multiplies the counts by ten.
    const char* const is_long = std::getenv("XENOLITH_LONG");
    if (is_long != nullptr && std::strcmp(is_long, "yes") == 0) options.rounds = 10;
    for (int i = 1; i < argc; ++i) {
        const std::string option = argv[i];
        const auto value = [&]() -> std::string { return ++i < argc ? argv[i] : ""; };
        if (option == "--units") {
            options.units = std::strtoull(value().c_str(), nullptr, 0);
        } else if (option == "--rounds") {
            options.rounds = std::strtoull(value().c_str(), nullptr, 0);
        } else if (option == "--all") {
            options.all = true;
        } else if (option == "--scenario") {
            options.scenario = value();
        } else if (option == "--profile") {
            options.profile = value();
        } else {
            std::fprintf(stderr, "sweep: what is %s?\n", option.c_str());
            return 2;
        }
    }
    return xenshim::tests::sweep(options);
}
