// The fault sweep: a guest is moved from one process to another, and something goes wrong, at each
// boundary of a record or frame and one byte behind it, at each call about the records of who owns
// it, at each allocation. Whatever it is, the guest counts in at most one process at any time, and
// none goes on from where another had come further (tests/faults/guest.h); when the two can reach
// each other again it counts in exactly one, unless the process that owned it was killed; and of a
// move that failed the next attempt succeeds.
//
//   faults [--points N] [--seed N] [--only N] [--jobs N]
//
// That mistakes in the sides themselves are noticed is tried first. All single faults are points;
// pairs of them, drawn with the seed, make up the number (2,000, or 10,000 with XENOLITH_LONG=yes).
// Prints it; exit status 1 if one of them ended badly.
//
// The processes are real, and so are links, records and signals; what they run is the program's
// code (migration/, vmm/cli/saved_vm.h) with a guest that needs no KVM. tests/guest/migrated is a
// sample of the same with the program itself.
#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <map>
#include <new>
#include <poll.h>
#include <random>
#include <string>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "migration/durable.h"
#include "tests/fakes/golden_vm.h"
#include "tests/faults/bad_link.h"
#include "tests/faults/sides.h"
#include "vmm/base/log.h"

namespace faults {
namespace {

using migration::RecordState;
using vmm::Fd;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// Nobody takes so long for anything, on a machine that has other things to do as well.
milliseconds hang{30'000};

struct Point {
    std::string text;
    // Of the first link, and of the second.
    std::array<std::optional<Fault>, 2> links{};
    Plan source{}, destination{};
    bool is_pair = false;
    bool tells = true;  // whoever makes the links lives to say what the destination does not know
};

// What all workers have found.
struct Tally {
    std::atomic<std::uint64_t> done{0}, bad{0}, fired{0};
    std::atomic<std::uint64_t> here{0}, there{0}, lost{0}, retried{0}, links{0};
    std::atomic<std::uint64_t> slowest_us{0};  // from the first link to where it stays
};

template <class T>
T* shared() {
    void* const at =
        ::mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return at == MAP_FAILED ? nullptr : new (at) T;
}

// ---- one side, whichever process it is ----------------------------------------------------------

class Process {
  public:
    Process(Side side, Page& page, std::string folder, const migration::VmId& vm)
        : side_(side), page_(page), folder_(std::move(folder)), vm_(vm) {}
    ~Process() { end(); }

    // Of all processes from now on.
    static inline Mistake mistake = Mistake::kNone;

    bool start(const Plan& plan) {
        std::array<int, 2> pair{};
        if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0) return false;
        control_ = Fd(pair[0]);
        Fd theirs(pair[1]);
        signals_ = Fd(::eventfd(0, EFD_CLOEXEC));
        const bool again = starts_++ != 0;
        pid_ = ::fork();
        if (pid_ < 0) return false;
        if (pid_ != 0) return true;
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        // Nothing of ours stays open in it: an end of a link that nobody closes would be one.
        constexpr int kHigh = 100;
        const Setup setup{.page = &page_,
                          .mistake = mistake,
                          .folder = folder_,
                          .vm = vm_,
                          .plan = plan,
                          .again = again,
                          .control = ::fcntl(theirs.get(), F_DUPFD_CLOEXEC, kHigh),
                          .signals = ::fcntl(signals_.get(), F_DUPFD_CLOEXEC, kHigh)};
        ::close_range(3, kHigh - 1, 0);
        // Memory that runs out in a thread is the end of a process, and said there.
        if (plan.allocation != 0) static_cast<void>(std::freopen("/dev/null", "w", stderr));
        if (side_ == Side::kSource) be_source(setup);
        be_destination(setup);
    }
    int control() const { return control_.get(); }
    bool has_started() const { return starts_ != 0; }
    void signal(int number) const {
        if (pid_ > 0) ::kill(pid_, number);
    }
    bool give(Word word, Fd link) const { return send_word(control_.get(), word, link.get()); }

    // What it says; nothing: it is dead.
    std::optional<Outcome> answer() {
        pollfd one{.fd = control_.get(), .events = POLLIN, .revents = 0};
        if (::poll(&one, 1, static_cast<int>(hang.count())) != 1) {
            page_.complain(std::string("the ") + faults::name_of(side_) + " hangs");
            return std::nullopt;
        }
        char word = 0;
        if (::recv(control_.get(), &word, 1, 0) == 1) return static_cast<Outcome>(word);
        wait();
        return std::nullopt;
    }
    bool is_alive() {
        if (pid_ <= 0) return false;
        int status = 0;
        if (::waitpid(pid_, &status, WNOHANG) != pid_) return true;
        buried(status);
        return false;
    }
    void wait() {
        if (pid_ <= 0) return;
        int status = 0;
        if (::waitpid(pid_, &status, 0) == pid_) buried(status);
    }
    // Ends as when its operator wants it; false: it does not.
    bool told_to_end() {
        ::eventfd_write(signals_.get(), 1);
        control_.reset();
        for (const auto until = Clock::now() + hang; Clock::now() < until;) {
            if (!is_alive()) return true;
            std::this_thread::sleep_for(milliseconds(1));
        }
        return false;
    }
    void end() {
        signal(SIGKILL);
        signal(SIGCONT);
        wait();
    }

    std::optional<migration::Record> record() const {
        const migration::Records records(migration::LockFile(), folder_, side_, vm_);
        const auto read = records.read();
        if (!read) page_.complain("a record cannot be read: " + read.error().what);
        return read ? *read : std::nullopt;
    }
    // One of its processes ended by what was done to it, and this was its record then.
    bool was_killed() const { return killed_; }
    bool died_with(RecordState state) const {
        return (died_with_ >> static_cast<int>(state) & 1) != 0;
    }
    bool died_without() const { return (died_with_ & 1) != 0; }

  private:
    void buried(int status) {
        pid_ = 0;
        constexpr int kNoMemory = 70;
        const bool by_itself = WIFEXITED(status) && WEXITSTATUS(status) != kNoMemory;
        if (WIFEXITED(status) && (WEXITSTATUS(status) == 3 || WEXITSTATUS(status) == 4)) {
            page_.complain(std::string("the ") + faults::name_of(side_) + " gave up");
        }
        if (by_itself) return;
        killed_ = true;
        const auto left = record();
        if (WIFEXITED(status) && left && left->state == RecordState::kOwn) {
            page_.complain("its owner ended for want of memory");
        }
        died_with_ |= 1u << (left ? static_cast<int>(left->state) : 0);
    }

    const Side side_;
    Page& page_;
    const std::string folder_;
    const migration::VmId vm_;
    pid_t pid_ = 0;
    unsigned starts_ = 0;
    Fd control_, signals_;
    bool killed_ = false;
    unsigned died_with_ = 0;  // bits by RecordState; bit 0: there was none
};

// ---- one move -----------------------------------------------------------------------------------

class Move {
  public:
    Move(const Point& point, const std::string& folder, Tally& tally, Page& page)
        : point_(point),
          page_(page),
          tally_(tally),
          source_(Side::kSource, page, folder + "/source", kVm),
          destination_(Side::kDestination, page, folder + "/destination", kVm) {}

    // Why it ended badly; empty: as it should.
    std::string run() {
        const std::string bad = go();
        source_.end();
        destination_.end();
        if (page_.wrong != 0) return page_.what;
        return bad;
    }
    bool fired() const { return fired_; }
    // Of the first link.
    std::array<std::string, 2> said;

  private:
    static constexpr migration::VmId kVm{std::byte{0xfa}, std::byte{0x17}};

    std::string go() {
        if (!source_.start(point_.source)) return "no process";
        if (!counts(Side::kSource, hang)) return "the guest does not count at all";
        const auto began = Clock::now();
        const Outcome outcome = move(point_.destination);
        fired_ =
            fired_ || page_.failed != 0 || outcome != Outcome::kGone || destination_.was_killed();
        const std::string bad = judge(outcome);
        const auto took =
            std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - began);
        for (std::uint64_t most = tally_.slowest_us; most < std::uint64_t(took.count());) {
            if (tally_.slowest_us.compare_exchange_weak(most, std::uint64_t(took.count()))) break;
        }
        if (!bad.empty() || outcome != Outcome::kKept) return bad;
        return again();
    }

    // As `xenolith migrate` does it: asks over one link after the other.
    Outcome move(const Plan& plan) {
        bool cancel = false;
        unsigned tells = 0;
        constexpr unsigned kTells = 5;
        const auto until = Clock::now() + hang;
        for (unsigned i = 0; Clock::now() < until && page_.wrong == 0; ++i) {
            if (i > 1) std::this_thread::sleep_for(milliseconds(1));
            if (!source_.is_alive()) {
                if (!source_.start({})) break;
                const auto begins = source_.answer();
                if (!begins || *begins == Outcome::kNothing) return Outcome::kNothing;
            }
            if (!destination_.is_alive() && !destination_.start(i == 0 ? plan : Plan{})) break;
            std::optional<Fault> fault;
            if (links_ < point_.links.size()) fault = point_.links[links_];
            const bool tcp = fault && fault->kind == Kind::kReset;
            auto link = BadLink::open(tcp);
            if (!link) break;
            ++links_;
            ++tally_.links;
            const Word word = cancel ? Word::kCancel : Word::kLink;
            // The source answers each link that it is given: it gets none that nobody else has.
            if (!destination_.give(Word::kLink, link->take_end(Side::kDestination)) ||
                !source_.give(word, link->take_end(Side::kSource))) {
                continue;
            }
            link->carry(fault, acts(), source_.control());
            if (link->has_failed()) {
                fired_ = true;
                cancel = cancel || fault->kind == Kind::kCancel;
            }
            if (links_ == 1) said = {link->passed(Side::kSource), link->passed(Side::kDestination)};
            const auto answer = source_.answer();
            if (answer == Outcome::kHandsOver || answer == Outcome::kOpen || !answer) continue;
            if (*answer == Outcome::kUntold) {
                if (!point_.tells || tells++ == kTells) return Outcome::kKept;
                cancel = true;
                continue;
            }
            if (*answer == Outcome::kGone) source_.wait();
            return *answer;
        }
        return Outcome::kOpen;
    }

    BadLink::Acts acts() {
        return {.begin =
                    [this](Kind kind) {
                        switch (kind) {
                            case Kind::kKillSource:
                                source_.signal(SIGKILL);
                                source_.wait();
                                break;
                            case Kind::kKillDestination:
                                destination_.signal(SIGKILL);
                                destination_.wait();
                                break;
                            case Kind::kStopSource: source_.signal(SIGSTOP); break;
                            case Kind::kStopDestination: destination_.signal(SIGSTOP); break;
                            default: break;
                        }
                    },
                .end =
                    [this](Kind kind) {
                        if (kind == Kind::kStopSource) source_.signal(SIGCONT);
                        if (kind == Kind::kStopDestination) destination_.signal(SIGCONT);
                    }};
    }

    // Who was killed may have taken it with him.
    bool may_be_lost(Outcome outcome) const {
        return (source_.was_killed() && source_.died_without()) ||
               // The source hears that it is gone from an owner only.
               (destination_.was_killed() && (destination_.died_with(RecordState::kOwn) ||
                                              outcome == Outcome::kGone || page_.ran[1] != 0)) ||
               // A second misfortune may take the copy of a source that was killed after its word.
               (point_.is_pair && source_.was_killed());
    }

    std::string judge(Outcome outcome) {
        if (outcome == Outcome::kOpen) return "nobody knows in the end where it is";
        if (outcome == Outcome::kKept) {
            if (!counts(Side::kSource, hang)) {
                if (!source_.was_killed()) return "the source has kept it, and it does not count";
                // Killed when it had said so: it died with its owner.
                ++tally_.lost;
                return {};
            }
            if (page_.ran[1] != 0) return "the source has kept it after the destination ran it";
            ++tally_.here;
            return {};
        }
        bool is_there = false, lost = false;
        for (const auto until = Clock::now() + hang;
             Clock::now() < until && page_.wrong == 0 && !is_there && !lost;) {
            is_there = counts(Side::kDestination, milliseconds(30));
            // It may have died only now.
            destination_.is_alive();
            lost = !is_there && may_be_lost(outcome);
        }
        if (is_there) {
            ++tally_.there;
            return {};
        }
        if (!lost) return "it counts nowhere, and its owner was not killed";
        // What is left of it at a destination that never owned it can be let go of.
        if (!destination_.was_killed() && page_.ran[1] == 0 && destination_.is_alive() &&
            !destination_.told_to_end()) {
            return "what is left of it does not end when it is told to";
        }
        ++tally_.lost;
        return {};
    }

    // Of a move that failed nothing is left that could harm the next: a destination that still
    // waits takes it.
    std::string again() {
        if (page_.ran[1] != 0) return "the destination ran a guest that the source had kept";
        links_ = point_.links.size();
        // A side that does not get its turn on a busy machine is one that does not answer.
        constexpr unsigned kAttempts = 20;
        Outcome outcome = Outcome::kKept;
        for (unsigned i = 0; i < kAttempts && outcome == Outcome::kKept && page_.wrong == 0; ++i) {
            outcome = move({});
        }
        // A misfortune may come only now: a second one, or the only one where the first attempt
        // was given up before it, on a busy machine.
        if (outcome != Outcome::kKept &&
            (point_.is_pair || source_.was_killed() || destination_.was_killed())) {
            return judge(outcome);
        }
        if (outcome != Outcome::kGone) return "the next attempt fails as well";
        if (!counts(Side::kDestination, hang)) return "after the next attempt it does not count";
        if (const auto left = source_.record()) return "a record of it is left at the source";
        ++tally_.retried;
        return {};
    }

    // Whether the guest goes on at that side, and nowhere else.
    bool counts(Side side, milliseconds patience) const {
        const auto& ran = page_.ran[static_cast<std::size_t>(side)];
        const auto& other = page_.ran[1 - static_cast<std::size_t>(side)];
        const std::uint64_t before = ran, others = other;
        for (const auto until = Clock::now() + patience; Clock::now() < until;) {
            if (page_.wrong != 0) return false;
            if (ran >= before + 3) {
                if (other != others) page_.complain("both sides count");
                return other == others;
            }
            std::this_thread::sleep_for(std::chrono::microseconds(100));
        }
        return false;
    }

    const Point& point_;
    Page& page_;
    Tally& tally_;
    Process source_, destination_;
    std::size_t links_ = 0;
    bool fired_ = false;
};

// A folder for the records of both sides, which is there as long as this.
class Folder {
  public:
    Folder() {
        // Power cuts are another test's (tests/unit/migration): here no disk is waited for.
        path_ = ::access("/dev/shm", W_OK) == 0 ? "/dev/shm/xenolith-faults-XXXXXX"
                                                : "/tmp/xenolith-faults-XXXXXX";
        if (::mkdtemp(path_.data()) == nullptr) std::perror("faults"), std::exit(2);
        clear();
    }
    ~Folder() { std::filesystem::remove_all(path_); }
    void clear() const {
        for (const char* side : {"/source", "/destination"}) {
            std::filesystem::remove_all(path_ + side);
            std::filesystem::create_directory(path_ + side);
        }
    }
    const std::string& path() const { return path_; }

  private:
    std::string path_;
};

// ---- where things go wrong ----------------------------------------------------------------------

// What an undisturbed move consists of.
struct Course {
    std::array<std::vector<std::uint64_t>, 2> units;  // where each begins, and the end of the last
    std::array<std::uint32_t, 2> calls{};
    std::uint64_t allocations = 0;
};

std::vector<std::uint64_t> units_of(const std::string& bytes) {
    const auto number = [&](std::size_t at, std::size_t size) {
        std::uint64_t value = 0;
        std::memcpy(&value, &bytes[at], size);
        return value;
    };
    std::vector<std::uint64_t> units{0};
    while (bytes.size() - units.back() >= 64) {
        const std::size_t at = units.back();
        std::uint64_t size = 0;
        if (bytes.compare(at, 8, "XENOMOVE") == 0) {
            size = 88 + number(at + 20, 4);
        } else if (bytes.compare(at, 8, "XENOLITH") == 0) {
            size = 64;
        } else {
            size = 72 + migration::format::round_up(number(at + 48, 8), 8);
        }
        units.push_back(at + size);
    }
    return units;
}

std::vector<Point> single_faults(const Course& course, std::mt19937_64& random) {
    std::vector<Point> points;
    const auto add = [&](const std::string& text, const std::function<void(Point&)>& what) {
        points.push_back({.text = text});
        what(points.back());
    };
    constexpr std::array<Side, 2> kSides{Side::kSource, Side::kDestination};
    for (const Side side : kSides) {
        const auto& units = course.units[static_cast<std::size_t>(side)];
        for (std::size_t u = 0; u + 1 < units.size(); ++u) {
            for (const std::uint64_t behind : {0, 1}) {
                for (int k = 0; k < static_cast<int>(Kind::kCount); ++k) {
                    Fault fault{.kind = static_cast<Kind>(k),
                                .from = side,
                                .at = units[u] + behind,
                                .unit = units[u + 1] - units[u],
                                .next = u + 2 < units.size() ? units[u + 2] - units[u + 1] : 0,
                                .bit = static_cast<unsigned>(random() % 8)};
                    fault.hold = random() % 2 == 0 ? milliseconds(5) : kPatience * 3 / 2;
                    add(std::string(name_of(fault.kind)) + " at byte " + std::to_string(fault.at) +
                            " of the " + faults::name_of(side),
                        [&](Point& point) { point.links[0] = fault; });
                }
            }
        }
    }
    for (const Side side : kSides) {
        for (std::uint32_t which = 0; which < course.calls[static_cast<std::size_t>(side)];
             ++which) {
            for (const int code : {0, ENOSPC, EIO, ENOMEM, EDQUOT}) {
                for (const bool before : {true, false}) {
                    add(std::string(code == 0 ? "kill -9" : std::strerror(code)) +
                            (before ? " instead of" : " after") + " call " + std::to_string(which) +
                            " about the records of the " + faults::name_of(side),
                        [&](Point& point) {
                            (side == Side::kSource ? point.source : point.destination).call =
                                Plan::Call{which, before, code};
                        });
                }
            }
        }
    }
    constexpr std::uint64_t kAllocations = 240;
    const std::uint64_t stride = std::max<std::uint64_t>(1, course.allocations / kAllocations);
    for (std::uint64_t i = 1 + random() % stride; i <= course.allocations; i += stride) {
        add("no memory for allocation " + std::to_string(i) + " of the destination",
            [&](Point& point) { point.destination.allocation = i; });
    }
    add("no memory for the guest", [](Point& point) { point.destination.no_room = true; });
    add("a feature is missing", [](Point& point) { point.destination.lacks_feature = true; });
    for (const auto& [text, lie] : {std::pair("unknown profile", Plan::Lie::kProfile),
                                    std::pair("unknown record", Plan::Lie::kRecord),
                                    std::pair("unknown version", Plan::Lie::kVersion),
                                    std::pair("another epoch", Plan::Lie::kEpoch)}) {
        add(text, [&, l = lie](Point& point) { point.source.lie = l; });
    }
    for (const std::uint64_t at : course.units[0]) {
        if (at == 0) continue;
        add("the guest cannot be read beyond " + std::to_string(at),
            [&](Point& point) { point.source.unreadable = at; });
    }
    return points;
}

// Two faults of one move: the second on the link after the first's, or in the other's process.
Point pair_of(const Point& one, const Point& other) {
    Point both{.text = one.text + "; then " + other.text, .is_pair = true};
    both.links = {one.links[0], other.links[0]};
    if (!one.links[0]) both.links = {other.links[0], std::nullopt};
    both.source = one.source;
    both.destination = one.destination;
    if (other.source.call) both.source.call = other.source.call;
    if (other.source.lie != Plan::Lie::kNone) both.source.lie = other.source.lie;
    if (other.source.unreadable) both.source.unreadable = other.source.unreadable;
    if (other.destination.call) both.destination.call = other.destination.call;
    if (other.destination.allocation != 0) {
        both.destination.allocation = other.destination.allocation;
    }
    both.destination.no_room |= other.destination.no_room;
    both.destination.lacks_feature |= other.destination.lacks_feature;
    return both;
}

struct Options {
    std::uint64_t points = 2000;
    std::uint64_t seed = 0;
    std::optional<std::uint64_t> only;
    bool quiet = false;
    unsigned jobs = 0;
};

void work(const std::vector<Point>& points, const Options& options, unsigned job, Tally& tally) {
    const Folder folder;
    for (std::size_t i = job; i < points.size(); i += options.jobs) {
        if (options.only && *options.only != i) continue;
        folder.clear();
        Page* const page = shared<Page>();
        if (page == nullptr) std::exit(2);
        Move move(points[i], folder.path(), tally, *page);
        const std::string bad = move.run();
        if (!bad.empty()) {
            ++tally.bad;
            if (options.quiet) continue;
            std::printf("FAIL %zu (%s): %s\n", i, points[i].text.c_str(), bad.c_str());
            std::fflush(stdout);
        }
        tally.fired += move.fired();
        ++tally.done;
        ::munmap(page, sizeof *page);
    }
}

bool run_all(const std::vector<Point>& points, const Options& options, Tally& tally) {
    std::fflush(stdout);
    std::vector<pid_t> workers;
    for (unsigned job = 0; job < options.jobs; ++job) {
        const pid_t pid = ::fork();
        if (pid < 0) return false;
        if (pid == 0) {
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            work(points, options, job, tally);
            std::exit(0);
        }
        workers.push_back(pid);
    }
    bool whole = true;
    for (const pid_t pid : workers) {
        int status = 0;
        ::waitpid(pid, &status, 0);
        whole = whole && status == 0;
    }
    return whole;
}

// That each mistake is noticed, by some of the points: of those at which it is decided whose the
// guest is.
bool self_test(const std::vector<Point>& points, const Course& course, Options options) {
    const std::array<std::uint64_t, 2> from{*(course.units[0].end() - 3), course.units[1][1]};
    std::vector<Point> some;
    for (const Point& point : points) {
        if (point.is_pair || !point.links[0]) continue;
        const Fault& fault = *point.links[0];
        if (fault.at >= from[static_cast<std::size_t>(fault.from)]) some.push_back(point);
    }
    options.quiet = true;
    options.only.reset();
    const auto patience = std::exchange(hang, milliseconds(1000));
    bool good = true;
    for (int m = 1; m < static_cast<int>(Mistake::kCount); ++m) {
        Tally* const tally = shared<Tally>();
        if (tally == nullptr) return false;
        Process::mistake = static_cast<Mistake>(m);
        static_cast<void>(run_all(some, options, *tally));
        std::printf("mistake %d: noticed by %llu of %zu\n", m,
                    static_cast<unsigned long long>(tally->bad.load()), some.size());
        good = good && tally->bad != 0;
    }
    Process::mistake = Mistake::kNone;
    hang = patience;
    if (!good) std::printf("FAIL: a mistake was not noticed\n");
    std::fflush(stdout);
    return good;
}

int sweep(Options options) {
    ::signal(SIGPIPE, SIG_IGN);
    vmm::set_log_level(vmm::LogLevel::kError);
    std::mt19937_64 random(options.seed);
    Tally* const tally = shared<Tally>();
    Page* const page = shared<Page>();
    if (tally == nullptr || page == nullptr) return 2;

    // The course of a move that nothing disturbs.
    Course course;
    {
        const Folder folder;
        const Point point{.text = "nothing"};
        Move move(point, folder.path(), *tally, *page);
        const std::string bad = move.run();
        if (!bad.empty() || tally->there != 1) {
            std::printf("FAIL: with no fault at all: %s\n", bad.c_str());
            return 1;
        }
        course.units = {units_of(move.said[0]), units_of(move.said[1])};
        course.calls = {page->calls[0], page->calls[1]};
        course.allocations = page->allocations;
        tally->there = tally->links = 0;
    }
    std::vector<Point> points = single_faults(course, random);
    const std::size_t singles = points.size();
    while (points.size() < options.points) {
        const Point& one = points[random() % singles];
        points.push_back(pair_of(one, points[random() % singles]));
    }
    for (Point& point : points) {
        point.tells = random() % 2 == 0;
    }
    std::printf(
        "%zu single faults: %zu + %zu records and frames, %u + %u calls about records, "
        "%llu allocations; %zu pairs; seed %llu\n",
        singles, course.units[0].size() - 1, course.units[1].size() - 1, course.calls[0],
        course.calls[1], static_cast<unsigned long long>(course.allocations),
        points.size() - singles, static_cast<unsigned long long>(options.seed));
    std::fflush(stdout);

    const auto began = Clock::now();
    const bool can_fail = options.only || self_test(points, course, options);
    bool whole = run_all(points, options, *tally);
    const auto number = [](const std::atomic<std::uint64_t>& n) {
        return static_cast<unsigned long long>(n.load());
    };
    const std::chrono::duration<double> took = Clock::now() - began;
    std::printf(
        "%llu moves over %llu links: %llu ended at the source, %llu at the destination, %llu "
        "died with their owner; %llu tried again; the slowest took %.2f s\n",
        number(tally->done), number(tally->links), number(tally->here), number(tally->there),
        number(tally->lost), number(tally->retried),
        static_cast<double>(tally->slowest_us.load()) / 1e6);
    const std::uint64_t expected = options.only ? 1 : points.size();
    if (!whole || tally->done != expected) {
        std::printf("FAIL: a worker ended early\n");
        whole = false;
    }
    // Faults that did not happen prove nothing: but for a second one that comes too late.
    const std::uint64_t unhurt = tally->done - tally->fired;
    if (!options.only && unhurt * 10 > points.size()) {
        std::printf("FAIL: %llu of the faults never came\n",
                    static_cast<unsigned long long>(unhurt));
        whole = false;
    }
    std::printf("%.0f s\n%llu passed, %llu failed\n", took.count(),
                static_cast<unsigned long long>(tally->done - tally->bad), number(tally->bad));
    return whole && can_fail && tally->bad == 0 ? 0 : 1;
}

}  // namespace
}  // namespace faults

int main(int argc, char** argv) {
    faults::Options options;
    const char* const is_long = std::getenv("XENOLITH_LONG");
    if (is_long != nullptr && std::string(is_long) == "yes") options.points = 10'000;
    // Much of it is waiting.
    options.jobs = 4 * std::max(1u, std::thread::hardware_concurrency());
    if (::getrandom(&options.seed, 4, 0) != 4) return 2;
    for (int i = 1; i < argc; ++i) {
        const std::string option = argv[i];
        if (i + 1 == argc) {
            std::fprintf(stderr, "faults: %s needs a number, or is unknown\n", option.c_str());
            return 2;
        }
        const std::uint64_t value = std::strtoull(argv[++i], nullptr, 0);
        if (option == "--points") {
            options.points = value;
        } else if (option == "--seed") {
            options.seed = value;
        } else if (option == "--only") {
            options.only = value;
        } else if (option == "--jobs") {
            options.jobs = std::max(1u, static_cast<unsigned>(value));
        } else {
            std::fprintf(stderr, "faults: what is %s?\n", option.c_str());
            return 2;
        }
    }
    return faults::sweep(options);
}
