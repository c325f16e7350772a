// The sweep through KVM, with saves: each continuable operation is stopped before each of its units
// and the guest saved there; it is restored by a program with another default profile, on another
// transport where the host has two, saved again before its first instruction, and finished from
// both files. What it then has in its memory, its registers and its domain's state is what the
// guest has that nobody stopped.
//
//   saved_sweep [OPTION]... sweep
//   saved_sweep [OPTION]... traffic
//
//   traffic      a guest that is never idle (guests/conformance/traffic.c) is saved and restored
//                200 times, each time after it has gone on with all that it does
//   --guests     the images (default: the folder guests beside the folder of this program)
//   --transport  portable, kvm-xen or all (the default): on which it runs, in turn
//   --only       those runs whose name has this in it
//   --again      so many runs that go wrong are made once more: the CPUs of tests/lab fail now and
//                then (default 0)
//   --brief      a quarter of the stops and of the parked tasks, for a slow host
//   --jobs       how many processes at once (default: a processor's each)
//
// XENOLITH_LONG=yes: under every profile; traffic, ten times as often. Exit status 4: there is no
// usable /dev/kvm.
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <random>
#include <set>
#include <stdexcept>
#include <thread>
#include <unistd.h>

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "tests/saved_sweep/life.h"
#include "tests/sweep/era.h"
#include "vmm/cli/steering.h"
#include "vmm/kvm/kvm.h"
#include "xenshim/abi/profile.h"

namespace xenolith::tests {
namespace {

using vmm::cli::AfterSave;
using vmm::cli::RunEnd;
using vmm::config::GuestType;
using vmm::config::TransportChoice;
using vmm::config::VmConfig;
using xenshim::abi::Reissue;
using xenshim::tests::Era;

struct Options {
    std::string guests;
    std::vector<TransportChoice> transports;
    std::string only;
    bool brief = false;
    unsigned again = 0;
    unsigned jobs = 1;
    bool longer = false;
};
Options g_options;
std::string g_folder;  // for files, in memory

// Counted over all processes.
struct Counts {
    std::atomic<std::uint64_t> points{0}, restores{0}, differences{0}, runs{0};
    std::atomic<unsigned> again{0};
};
Counts* g_counts = nullptr;
// Of the run that this process makes.
struct Here {
    std::uint64_t differences = 0, runs = 0;
};
Here g_here;

void differs(const std::string& where, const std::string& what) {
    constexpr std::uint64_t kShown = 30;
    ++g_here.differences;
    if (++g_counts->differences <= kShown) {
        std::printf("differs: %s: %s\n", where.c_str(), what.c_str());
    }
}

void came_to_an_end() {
    ++g_here.runs;
    ++g_counts->runs;
}

// Whether a run that went wrong may be made once more: then it does not count.
bool once_more(std::size_t run) {
    for (unsigned so_far = g_counts->again; so_far < g_options.again;) {
        if (!g_counts->again.compare_exchange_weak(so_far, so_far + 1)) continue;
        std::printf("again: run %zu\n", run);
        g_counts->differences -= g_here.differences;
        g_counts->runs -= g_here.runs;
        return true;
    }
    return false;
}

// ---- what is swept ------------------------------------------------------------------------------

constexpr unsigned kUnits = 40, kBriefUnits = 10;

struct Operation {
    const char* name;
    unsigned units;  // as many stops, where it is kUnits; else one at each look that there is
    bool (*exists)(const Era& era);
    bool device_model = false;
    std::uint32_t event_channels = 0;  // 0: as it is
};

constexpr auto always = [](const Era&) { return true; };

constexpr Operation kOperations[] = {
    {"decrease", kUnits, always},
    {"decrease_short", kUnits, always},
    {"decrease_pairs", kUnits, always},
    {"populate", kUnits, always},
    {"increase", kUnits, always},
    {"range", kUnits, [](const Era& e) { return e.has_range(); }},
    {"range_down", kUnits, [](const Era& e) { return e.has_range(); }},
    {"batch", kUnits, [](const Era& e) { return e.has_batch(); }},
    {"reset", 0, [](const Era& e) { return e.reset_continues(); }, false, 4095},
    {"grant_copy", kUnits, [](const Era& e) { return e.grants_continue(); }},
    {"grant_map", kUnits, [](const Era& e) { return e.has_grant_maps(); }},
    {"grant_unmap", 512, [](const Era& e) { return e.has_grant_maps(); }},
    {"grant_swap", kUnits, [](const Era& e) { return e.has_grant_swap(); }},
    {"set_type", 2560, [](const Era& e) { return e.hvm_memory() != Era::HvmMemory::kWhole; }, true},
    {"modified", 2560, [](const Era& e) { return e.hvm_memory() != Era::HvmMemory::kWhole; }, true},
    {"multicall", kUnits, [](const Era& e) { return e.has_multicall(); }},
    {"in_multicall", kUnits, [](const Era& e) { return e.has_multicall(); }},
};

// One dialect of each: how far an operation is stands in 6 bits' distance or in 4, in the register
// or in the structure. `other`: the default of the program that restores it.
struct Dialect {
    std::string profile;
    std::string other;
    // Only operations that are another's there; null: all.
    bool (*takes)(std::string_view operation) = nullptr;
};
const std::vector<Dialect> kDialects{
    {"xen-4.17", "xen-3.3"},
    {"xen-3.3", "xen-4.17"},
    {"xen-3.0.3", "xen-4.4", [](std::string_view o) { return o == "decrease" || o == "populate"; }},
    {"xen-4.2", "xen-3.3",
     [](std::string_view o) { return o == "range" || o == "set_type" || o == "grant_copy"; }},
    {"xenserver-7.1", "xen-3.0.3", [](std::string_view o) { return o == "set_type"; }},
};

// In the long form all that there are, and each with all of its operations.
const std::vector<Dialect>& dialects() {
    static const std::vector<Dialect> all = [] {
        if (!g_options.longer) return kDialects;
        std::vector<Dialect> every;
        for (const auto& profile : xenshim::abi::profiles()) {
            const std::string name(profile.name);
            every.push_back({name, Era(name).memory_shift() == 4 ? "xen-4.17" : "xen-3.3"});
        }
        return every;
    }();
    return all;
}

std::string words_for(const Era& era) {
    return era.release < 400 || era.hides_console() ? " console_pfn=0xfefff console_port=2" : "";
}

// The guest's own calls, by which it shows where it is (guests/operations): 0 when all is over.
constexpr std::uint64_t kMark = 0x6d61726b;
std::optional<std::uint64_t> mark_of(const Reissue& with) {
    constexpr std::uint64_t kMarks = 3;
    const std::uint64_t mark = (with.args[2] & UINT32_MAX) - kMark;
    return mark < kMarks ? std::optional(mark) : std::nullopt;
}
bool is_mark(const Reissue& with) {
    return mark_of(with) == 0;
}
// A stop that nothing but that call has.
constexpr std::uint64_t kMarkUnit = 60;

enum class Stops { kEach, kNone };

struct Sweep {
    const Operation& operation;
    const Dialect& dialect;
    bool wide;

    // The one stop at which all runs are compared: others come whenever the VMM wants the vCPU.
    bool stops_at_end(const Reissue& with, Stops stops) const {
        const auto unit = with.args[0] >> Era(dialect.profile).memory_shift();
        return is_mark(with) && unit == (stops == Stops::kEach ? 1 : kMarkUnit);
    }

    std::string name() const {
        return std::string(operation.name) + (wide ? " 64 " : " 32 ") + dialect.profile;
    }
};

VmConfig config_of(const Sweep& sweep) {
    const Era era(sweep.dialect.profile);
    VmConfig config;
    config.name = "swept";
    config.uuid.emplace();
    config.uuid->fill(0x5e);
    config.kernel = g_options.guests + "/operations-" + (sweep.wide ? "64" : "32") + ".elf";
    // One has the chips of a PC, the other has not.
    config.type = sweep.wide ? GuestType::kHvm : GuestType::kPvh;
    config.memory_bytes = 16 * vmm::config::kMiB;
    config.profile = sweep.dialect.profile;
    config.preempt_after_us = 1'000'000;
    // Where it is stopped before each page, as many as of the others.
    const bool by_pages =
        sweep.operation.device_model && era.hvm_memory() == Era::HvmMemory::kStruct;
    unsigned units = by_pages ? kUnits : sweep.operation.units;
    if (units == kUnits && g_options.brief) units = kBriefUnits;
    config.cmdline = std::string("op=") + sweep.operation.name + " units=" + std::to_string(units);
    config.cmdline += words_for(era);
    if (sweep.operation.device_model) {
        config.privileges = vmm::config::PrivilegeChoice::kDeviceModel;
    }
    if (sweep.operation.event_channels != 0 && sweep.wide) {
        config.max_event_channels = sweep.operation.event_channels;
    }
    return config;
}

void set_stops(VmConfig& config, Stops stops) {
    config.preempt = {};
    if (stops == Stops::kEach) {
        config.preempt.every = 1;
    } else {
        config.preempt.at = {kMarkUnit};
    }
}

TransportChoice transport_of(std::size_t turn) {
    return g_options.transports[turn % g_options.transports.size()];
}

std::string file(const char* name) {
    return g_folder + "/" + name + "." + std::to_string(::getpid());
}

// ---- the run that nobody touches
// --------------------------------------------------------------------

std::string describe(const std::vector<std::string>& names) {
    std::string text;
    for (const auto& name : names) {
        text += (text.empty() ? "" : ", ") + name;
    }
    return text;
}

void expect_same(const std::string& where, const std::string& a, const std::string& b,
                 const std::set<std::string>& besides) {
    const auto differ = differing_records(a, b, besides);
    if (!differ.empty()) differs(where, describe(differ));
}
// Of a guest that stands still: what counts by the clock, which goes on.
const std::set<std::string> kTimes{"vm.clock", "vcpu.time", "vcpu.time 1", "legacy.pit"};
// Of two runs, whose clocks show other times; the store says when each began.
const std::set<std::string> kRuns{"vm.clock", "vcpu.time", "legacy.pit", "xen.store"};

struct Whole {
    std::string output;
    std::map<std::uint64_t, std::uint64_t> pages;
};

std::string mark_file(Stops stops, std::size_t transport) {
    return file((std::string("mark-") + (stops == Stops::kEach ? "each-" : "none-") +
                 std::to_string(transport % g_options.transports.size()))
                    .c_str());
}

// Saved for comparison when its operation is over, and run to its end.
Whole run_whole(const Sweep& sweep, Stops stops, std::size_t transport) {
    VmConfig config = config_of(sweep);
    set_stops(config, stops);
    config.transport = transport_of(transport);
    Life life(config);
    bool marked = false;
    life.holds_at = [&](unsigned, const Reissue& with) {
        return sweep.stops_at_end(with, stops) && !std::exchange(marked, true);
    };
    life.stands_still = [&] {
        life.save(mark_file(stops, transport), AfterSave::kGoOn);
        life.go_on();
    };
    if (life.run(false) != RunEnd::Kind::kPowerOff || !marked) {
        give_up(sweep.name() + ": the guest did not come to its end:\n" + life.output());
    }
    Whole whole{.output = life.output(), .pages = life.pages()};
    if (whole.output.find("\nverdict: pass ") == std::string::npos) {
        give_up(sweep.name() + ": left alone it says\n" + whole.output);
    }
    return whole;
}

// ---- the sweep ---------------------------------------------------------------------------------

// From a file to the end, in other company: nobody saves it again but to compare.
void finish(const Sweep& sweep, const std::string& where, const std::string& from, Stops stops,
            std::size_t transport, const Whole& whole) {
    VmConfig defaults;
    defaults.profile = sweep.dialect.other;
    defaults.transport = transport_of(transport);
    Life life(from, defaults, [&](VmConfig& config) { set_stops(config, stops); });
    ++g_counts->restores;
    bool marked = false;
    const std::string here = file("finished");
    life.holds_at = [&](unsigned, const Reissue& with) {
        return sweep.stops_at_end(with, stops) && !std::exchange(marked, true);
    };
    life.stands_still = [&] {
        life.save(here, AfterSave::kGoOn);
        life.go_on();
    };
    const auto end = life.run(false);
    if (end != RunEnd::Kind::kPowerOff || !marked) {
        differs(where, "it did not come to its end: " + life.output());
        return;
    }
    if (life.output() != whole.output) differs(where, "the guest says: " + life.output());
    expect_same(where + ", at the end", here, mark_file(stops, transport), kRuns);
}

void sweep_one(const Sweep& sweep) {
    // Nobody stops it at all; it is stopped before each unit and goes on at once.
    std::optional<Whole> whole;
    for (std::size_t t = 0; t < g_options.transports.size(); ++t) {
        const Whole alone = run_whole(sweep, Stops::kNone, t);
        const Whole stopped = run_whole(sweep, Stops::kEach, t);
        if (alone.output != stopped.output) differs(sweep.name(), "stopped, it says other things");
        if (alone.pages != stopped.pages) {
            std::string gfns;
            for (const auto& [gfn, sum] : alone.pages) {
                const auto other = stopped.pages.find(gfn);
                if (other == stopped.pages.end() || other->second != sum) {
                    gfns += " " + std::to_string(gfn);
                }
            }
            differs(sweep.name(), "stopped, its memory is another: pages" + gfns);
        }
        if (!whole) whole = alone;
    }

    VmConfig config = config_of(sweep);
    set_stops(config, Stops::kEach);
    config.transport = transport_of(0);
    auto life = std::make_unique<Life>(config);
    const std::string first = file("first"), second = file("second");
    for (std::size_t point = 0;; ++point) {
        const std::string where = sweep.name() + ", stop " + std::to_string(point);
        bool over = false;
        bool begun = point == 0;
        life->holds_at = [&](unsigned, const Reissue& with) {
            over = is_mark(with);
            return true;
        };
        life->stands_still = [&] {
            if (begun) return life->save(first, AfterSave::kEnd);
            // Restored: it has not run, so it is the same.
            begun = true;
            life->save(second, AfterSave::kGoOn);
            life->go_on();
        };
        const auto end = life->run(!begun);
        const bool restored = point != 0;
        if (restored) {
            // `first` is the next point's by now: the last one's was moved away.
            auto besides = kTimes;
            // The hypercall page is the transport's.
            if (transport_of(point) != transport_of(point - 1)) besides.insert("memory");
            expect_same(where + ", saved again", file("before"), second, besides);
            finish(sweep, where, second, point % 2 == 0 ? Stops::kEach : Stops::kNone, point + 1,
                   *whole);
            ++g_counts->points;
        }
        if (end != RunEnd::Kind::kSaved) {
            differs(where, "it ended: " + life->output());
            break;
        }
        life.reset();
        if (over) {
            if (point == 0) differs(where, "it was never stopped");
            expect_same(where + ", in the chain's end", first, mark_file(Stops::kEach, point),
                        kRuns);
            break;
        }
        std::filesystem::rename(first, file("before"));
        VmConfig defaults;
        defaults.profile = sweep.dialect.other;
        defaults.transport = transport_of(point + 1);  // and the next point's
        life = std::make_unique<Life>(file("before"), defaults);
        ++g_counts->restores;
    }
    came_to_an_end();
}

std::vector<Sweep> all_sweeps() {
    std::vector<Sweep> all;
    for (const Dialect& dialect : dialects()) {
        for (const Operation& operation : kOperations) {
            if (!operation.exists(Era(dialect.profile))) continue;
            if (dialect.takes != nullptr && !dialect.takes(operation.name)) continue;
            for (const bool wide : {true, false}) {
                const Sweep sweep{operation, dialect, wide};
                if (sweep.name().find(g_options.only) != std::string::npos) all.push_back(sweep);
            }
        }
    }
    return all;
}

// ---- a task that is parked
// ------------------------------------------------------------------------

constexpr unsigned kParkedUnits = 32;

struct Parking {
    const char* operation;
    const Dialect& dialect;
    bool wide;
    unsigned unit;  // before which the event comes

    std::string name() const {
        return std::string(operation) + (wide ? " 64 " : " 32 ") + dialect.profile + ", unit " +
               std::to_string(unit);
    }
};

// Its frame lies in the guest's memory while the guest is saved and restored twice; then it goes on
// on the other vCPU.
void park_one(const Parking& parking) {
    const std::string where = parking.name();
    VmConfig config;
    config.name = "parked";
    config.kernel = g_options.guests + "/operations-" + (parking.wide ? "64" : "32") + ".elf";
    config.type = parking.wide ? GuestType::kHvm : GuestType::kPvh;
    config.memory_bytes = 16 * vmm::config::kMiB;
    config.vcpus = 2;
    config.profile = parking.dialect.profile;
    config.transport = transport_of(parking.unit);
    config.preempt.every = 1;
    config.cmdline = std::string("op=") + parking.operation +
                     " units=" + std::to_string(kParkedUnits) + words_for(Era(config.profile));
    auto life = std::make_unique<Life>(config);
    const std::string first = file("first"), second = file("second");
    std::string text;
    // Its life until it is parked, the one until it is shown again, and the last.
    for (std::uint64_t shown = 1;; ++shown) {
        unsigned stops = 0;
        bool begun = shown == 1, held = false;
        life->holds_at = [&](unsigned, const Reissue& with) {
            const auto mark = mark_of(with);
            if (mark) return mark == shown && !std::exchange(held, true);
            if (++stops == parking.unit && shown == 1) {
                life->vm().platform().domain().event_channels().raise_virq(xenshim::abi::VIRQ_DEBUG,
                                                                           0);
            }
            return false;
        };
        life->stands_still = [&] {
            if (begun) return life->save(first, AfterSave::kEnd);
            begun = true;
            life->save(second, AfterSave::kGoOn);
            life->go_on();
        };
        const auto end = life->run(!begun);
        if (shown != 1) {
            auto besides = kTimes;
            if (g_options.transports.size() > 1) besides.insert("memory");
            expect_same(where + ", save " + std::to_string(shown - 1), file("before"), second,
                        besides);
            ++g_counts->points;
        }
        text += life->output();
        life.reset();
        if (end != RunEnd::Kind::kSaved || shown == 3) {
            if (end != RunEnd::Kind::kPowerOff || shown != 3 ||
                text.find("\nverdict: pass ") == std::string::npos) {
                differs(where,
                        "after " + std::to_string(shown - 1) + " saves the guest says " + text);
            }
            break;
        }
        std::filesystem::rename(first, file("before"));
        VmConfig defaults;
        defaults.profile = parking.dialect.other;
        defaults.transport = transport_of(parking.unit + shown);
        life = std::make_unique<Life>(file("before"), defaults);
        ++g_counts->restores;
    }
    came_to_an_end();
}

std::vector<Parking> all_parkings() {
    std::vector<Parking> all;
    const unsigned step = g_options.longer ? 1 : g_options.brief ? 11 : 3;
    for (const Dialect& dialect : std::span(kDialects).first(2)) {
        for (const char* const operation : {"parked_decrease", "parked_populate"}) {
            for (const bool wide : {true, false}) {
                for (unsigned unit = 1; unit < kParkedUnits; unit += step) {
                    const Parking parking{operation, dialect, wide, unit};
                    if (parking.name().find(g_options.only) != std::string::npos) {
                        all.push_back(parking);
                    }
                }
            }
        }
    }
    return all;
}

// In processes that take what is next.
int in_processes(std::size_t count, const std::function<void(std::size_t)>& work) {
    struct Shared {
        std::atomic<std::size_t> next{0};
    };
    auto* const shared = static_cast<Shared*>(
        ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    if (shared == MAP_FAILED) give_up("mmap");
    new (shared) Shared;
    std::fflush(nullptr);
    std::vector<pid_t> processes;
    for (unsigned job = 0; job < g_options.jobs; ++job) {
        const pid_t pid = ::fork();
        if (pid < 0) give_up("fork");
        if (pid == 0) {
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // whoever ends the test means these, too
            for (std::size_t i = shared->next++; i < count; i = shared->next++) {
                for (bool first = true;; first = false) {
                    g_here = {};
                    try {
                        work(i);
                    } catch (const std::exception& error) {
                        differs("it came to no end", error.what());
                    }
                    if (g_here.differences == 0 || !first || !once_more(i)) break;
                }
                std::fflush(stdout);
            }
            std::_Exit(0);
        }
        processes.push_back(pid);
    }
    bool good = true;
    for (const pid_t pid : processes) {
        int status = 0;
        if (::waitpid(pid, &status, 0) != pid || status != 0) good = false;
    }
    return good ? 0 : 1;
}

int sweep_all() {
    const auto sweeps = all_sweeps();
    const auto parkings = all_parkings();
    const std::size_t count = sweeps.size() + parkings.size();
    if (count == 0) give_up("--only " + g_options.only + ": there is none");
    const int status = in_processes(count, [&](std::size_t i) {
        if (i < sweeps.size()) {
            sweep_one(sweeps[i]);
        } else {
            park_one(parkings[i - sweeps.size()]);
        }
    });
    std::printf(
        "saved-sweep: %zu operations, %zu parked tasks: %llu points, %llu restores, "
        "%llu differences\n",
        sweeps.size(), parkings.size(), static_cast<unsigned long long>(g_counts->points),
        static_cast<unsigned long long>(g_counts->restores),
        static_cast<unsigned long long>(g_counts->differences));
    if (g_counts->runs != count) {
        std::printf("saved-sweep: %llu of %zu did not come to an end\n",
                    static_cast<unsigned long long>(count - g_counts->runs), count);
        return 1;
    }
    // Fewer would mean that operations no longer stop where they did.
    constexpr std::uint64_t kFewestPoints = 2000;
    if (g_options.only.empty() && !g_options.brief && g_counts->points < kFewestPoints) {
        std::printf("saved-sweep: fewer than %llu points\n",
                    static_cast<unsigned long long>(kFewestPoints));
        return 1;
    }
    return g_counts->differences == 0 ? status : 1;
}

// ---- traffic
// ---------------------------------------------------------------------------------------

// As guests/conformance/traffic.c counts what it does.
constexpr const char* kKinds[] = {"long hypercalls", "grant copies", "events",
                                  "timers",          "lines",        "store requests"};
constexpr std::uint64_t kProgress = 0x700000, kEnd = kProgress + std::size(kKinds) * 8;

// Saves the guest once there has been some of each kind since it began, at some later moment.
class Watcher {
  public:
    Watcher(Life& life, std::uint64_t later_us)
        : life_(life), later_us_(later_us), thread_([this] { main(); }) {}
    ~Watcher() {
        over_ = true;
        thread_.join();
    }
    Watcher(const Watcher&) = delete;
    Watcher& operator=(const Watcher&) = delete;

    // What there was none of; empty: it is time to save the guest.
    std::string missing() const { return missing_; }
    bool done() const { return done_; }
    const std::array<std::uint64_t, std::size(kKinds)>& seen() const { return seen_; }

  private:
    std::uint64_t count(std::size_t kind) {
        return std::atomic_ref(*life_.vm().machine().memory().guest().word<std::uint64_t>(
                                   vmm::Gpa{kProgress + kind * 8}))
            .load();
    }
    void main() {
        constexpr std::chrono::seconds kPatience{60};
        const auto until = std::chrono::steady_clock::now() + kPatience;
        std::array<std::uint64_t, std::size(kKinds)> first{};
        for (std::size_t kind = 0; kind < std::size(kKinds); ++kind) {
            first[kind] = count(kind);
        }
        for (std::size_t kind = 0; kind < std::size(kKinds);) {
            seen_[kind] = count(kind) - first[kind];
            if (seen_[kind] != 0) {
                ++kind;
                continue;
            }
            if (over_) return;
            if (std::chrono::steady_clock::now() > until) {
                missing_ = kKinds[kind];
                break;
            }
            std::this_thread::sleep_for(std::chrono::microseconds(100));
        }
        // Only so that it is another moment: whatever the guest does then is what is saved.
        std::this_thread::sleep_for(std::chrono::microseconds(later_us_));
        done_ = true;
        life_.vm().machine().hold();
    }

    Life& life_;
    const std::uint64_t later_us_;
    std::array<std::uint64_t, std::size(kKinds)> seen_{};
    std::string missing_;
    std::atomic<bool> over_{false}, done_{false};
    std::thread thread_;
};

// Whether the lines say 1 to the last, each once.
std::string check_lines(const std::string& text) {
    std::uint64_t next = 1;
    std::size_t at = 0;
    for (;;) {
        const std::string line = "traffic " + std::to_string(next) + "\n";
        if (text.compare(at, line.size(), line) != 0) break;
        at += line.size();
        ++next;
    }
    if (text.compare(at, 2, "  ") == 0) return {};  // its tally
    return "after line " + std::to_string(next - 1) + " of the console comes \"" +
           text.substr(at, text.find('\n', at) - at) + "\"";
}

void traffic_of(bool wide, unsigned cycles, unsigned seed) {
    const std::string name = std::string("traffic ") + (wide ? "64" : "32");
    std::minstd_rand random(seed);
    VmConfig config;
    config.name = "traffic";
    config.kernel = g_options.guests + "/traffic-" + (wide ? "64" : "32") + ".elf";
    config.type = wide ? GuestType::kHvm : GuestType::kPvh;
    config.memory_bytes = 16 * vmm::config::kMiB;
    config.vcpus = 2;
    config.preempt.every = 5;
    config.transport = transport_of(0);
    config.cmdline = "lines=0 progress=" + std::to_string(kProgress);
    auto life = std::make_unique<Life>(config);
    const std::string saved = file("saved"), before = file("before");
    std::string text;
    std::array<std::uint64_t, std::size(kKinds)> least;
    least.fill(~std::uint64_t{0});
    for (unsigned cycle = 0;; ++cycle) {
        const std::string where =
            name + ", save " + std::to_string(cycle) + ", seed " + std::to_string(seed);
        RunEnd::Kind end;
        {
            Watcher watcher(*life, random() % 4000);
            life->stands_still = [&] {
                for (std::size_t kind = 0; kind < std::size(kKinds); ++kind) {
                    least[kind] = std::min(least[kind], watcher.seen()[kind]);
                }
                if (cycle < cycles && watcher.missing().empty()) {
                    return life->save(saved, AfterSave::kEnd);
                }
                const auto end_word =
                    life->vm().machine().memory().guest().word<std::uint64_t>(vmm::Gpa{kEnd});
                std::atomic_ref(*end_word).store(1);
                life->go_on();
            };
            end = life->run(false);
            if (!watcher.missing().empty()) {
                differs(where, "there are no more " + watcher.missing());
            }
        }
        text += life->output();
        life.reset();
        if (end != RunEnd::Kind::kSaved) {
            if (cycle != cycles) differs(where, "the guest ended");
            if (end != RunEnd::Kind::kPowerOff ||
                text.find("\nverdict: pass ") == std::string::npos) {
                differs(where, "it says " + text.substr(text.size() -
                                                        std::min<std::size_t>(text.size(), 300)));
            }
            break;
        }
        ++g_counts->points;
        std::filesystem::rename(saved, before);
        VmConfig defaults;
        defaults.transport = transport_of(cycle + 1);
        life = std::make_unique<Life>(before, defaults);
        ++g_counts->restores;
    }
    if (const auto wrong = check_lines(text); !wrong.empty()) differs(name, wrong);
    std::string fewest;
    for (std::size_t kind = 0; kind < std::size(kKinds); ++kind) {
        fewest += (kind == 0 ? "" : ", ") + std::to_string(least[kind]) + " " + kKinds[kind];
    }
    const std::size_t tally = text.rfind("\n  ");
    std::printf("%s:%s\n  between two saves at least %s\n", name.c_str(),
                tally == std::string::npos
                    ? ""
                    : text.substr(tally + 2, text.find('\n', tally + 1) - tally - 2).c_str(),
                fewest.c_str());
    came_to_an_end();
}

int traffic() {
    const unsigned cycles = g_options.longer ? 2000 : 200;
    const auto seed = static_cast<unsigned>(::getpid());
    const int status = in_processes(
        2, [&](std::size_t i) { traffic_of(i == 0, cycles, seed + static_cast<unsigned>(i)); });
    std::printf("traffic: %llu saves, %llu restores, %llu differences\n",
                static_cast<unsigned long long>(g_counts->points),
                static_cast<unsigned long long>(g_counts->restores),
                static_cast<unsigned long long>(g_counts->differences));
    if (g_counts->runs != 2 || g_counts->points != 2 * std::uint64_t{cycles}) return 1;
    return g_counts->differences == 0 ? status : 1;
}

// ---- the program
// ---------------------------------------------------------------------------------

void find_transports(const std::string& wanted) {
    const auto kvm = vmm::kvm::Kvm::open();
    if (!kvm) {
        std::fprintf(stderr, "%s\n", kvm.error().what.c_str());
        std::_Exit(4);
    }
    const auto flags = static_cast<std::uint32_t>(kvm->check(vmm::kvm::Cap::kXenHvm));
    const bool xen =
        (flags & vmm::kvm::kXenInterceptHypercall) != 0 && (flags & vmm::kvm::kXenSharedInfo) != 0;
    if (wanted == "portable" || wanted == "all") {
        g_options.transports.push_back(TransportChoice::kPortable);
    }
    if (wanted == "kvm-xen" || (wanted == "all" && xen)) {
        g_options.transports.push_back(TransportChoice::kKvmXen);
    }
    if (g_options.transports.empty()) give_up("--transport " + wanted + ": what is that?");
}

int main_of(int argc, char** argv) {
    const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe");
    g_options.guests = self.parent_path().parent_path() / "guests";
    g_options.jobs = std::max(1u, std::thread::hardware_concurrency());
    const char* const longer = std::getenv("XENOLITH_LONG");
    g_options.longer = longer != nullptr && std::strcmp(longer, "yes") == 0;
    std::string transport = "all", what = "sweep";
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        const auto value = [&]() -> std::string {
            if (++i >= argc) give_up(word + ": what?");
            return argv[i];
        };
        if (word == "--guests") {
            g_options.guests = value();
        } else if (word == "--transport") {
            transport = value();
        } else if (word == "--only") {
            g_options.only = value();
        } else if (word == "--again") {
            g_options.again = static_cast<unsigned>(std::atoi(value().c_str()));
        } else if (word == "--brief") {
            g_options.brief = true;
        } else if (word == "--jobs") {
            g_options.jobs = static_cast<unsigned>(std::atoi(value().c_str()));
        } else {
            what = word;
        }
    }
    find_transports(transport);
    g_counts = static_cast<Counts*>(
        ::mmap(nullptr, sizeof(Counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    if (g_counts == MAP_FAILED) give_up("mmap");
    new (g_counts) Counts;
    // Where files need no disk.
    const char* const place = std::getenv("TMPDIR");
    g_folder = place != nullptr ? place : std::filesystem::exists("/dev/shm") ? "/dev/shm" : "/tmp";
    g_folder += "/saved-sweep-XXXXXX";
    if (::mkdtemp(g_folder.data()) == nullptr) give_up(g_folder + ": no folder can be made there");
    int status = 2;
    if (what == "sweep") status = sweep_all();
    if (what == "traffic") status = traffic();
    std::filesystem::remove_all(g_folder);
    return status;
}

}  // namespace
}  // namespace xenolith::tests

int main(int argc, char** argv) {
    try {
        return xenolith::tests::main_of(argc, argv);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "saved_sweep: %s\n", error.what());
        return 1;
    }
}
