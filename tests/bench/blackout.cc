// How long a guest stands still while it is moved, beside the time that the same bytes need over
// the same link: TCP over the loopback of a network namespace of our own, which a token bucket
// makes as fast as a network card is.
#include <arpa/inet.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sstream>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include <sys/ioctl.h>
#include <sys/socket.h>

#include "tests/bench/pairs.h"
#include "tests/bench/process.h"
#include "vmm/base/fd.h"

namespace bench {
namespace {

using vmm::Result;

constexpr Limit kLimit = {1.1, 1.3};
constexpr std::uint16_t kPort = 7000;
constexpr std::size_t kAtOnce = std::size_t{1} << 20;

struct Options {
    std::string xenolith, guest, transport = "auto";
    unsigned rounds = 12;
    bool smoke = false;
};

Result<void> own_network() {
    if (::unshare(CLONE_NEWNET) != 0) {
        return vmm::errno_error("a network namespace", vmm::Fault::kHost);
    }
    const vmm::Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request{};
    std::strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    if (::ioctl(socket.get(), SIOCSIFFLAGS, &request) != 0) return vmm::errno_error("lo");
    return {};
}

Result<void> set_rate(unsigned gbit) {
    // The bucket holds what passes in some 8 ms: timers are no finer where tc measures.
    auto tc = Process::spawn(
        {"tc", "qdisc", "replace", "dev", "lo", "root", "tbf", "rate",
         std::to_string(gbit) + "gbit", "burst", std::to_string(gbit) + "mb", "latency", "50ms"},
        -1);
    if (!tc) return vmm::host_error("tc is missing (Debian package iproute2)");
    if (tc->wait_status() != 0) return vmm::host_error("this kernel has no token bucket");
    return {};
}

sockaddr_in here() {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(kPort);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

// Until the last byte has been received, and that is known here.
Result<Times> plain(std::uint64_t bytes) {
    const sockaddr_in address = here();
    const auto* const generic = reinterpret_cast<const sockaddr*>(&address);  // NOLINT
    const vmm::Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int on = 1;
    ::setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (::bind(listener.get(), generic, sizeof address) != 0 || ::listen(listener.get(), 1) != 0) {
        return vmm::errno_error("listen");
    }
    const vmm::Fd to(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::connect(to.get(), generic, sizeof address) != 0) return vmm::errno_error("connect");
    const vmm::Fd from(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    std::thread receiver([&] {
        std::vector<char> buffer(kAtOnce);
        for (std::uint64_t left = bytes; left > 0;) {
            const ssize_t n = ::recv(from.get(), buffer.data(), buffer.size(), 0);
            if (n <= 0) return;
            left -= static_cast<std::uint64_t>(n);
        }
        [[maybe_unused]] const auto sent = ::send(from.get(), "", 1, MSG_NOSIGNAL);
    });
    const std::vector<char> buffer(kAtOnce, 'x');
    const Times before = now();
    bool whole = true;
    for (std::uint64_t left = bytes; whole && left > 0;) {
        const ssize_t n =
            ::send(to.get(), buffer.data(), std::min<std::uint64_t>(left, kAtOnce), MSG_NOSIGNAL);
        whole = n > 0;
        left -= whole ? static_cast<std::uint64_t>(n) : 0;
    }
    if (!whole) ::shutdown(to.get(), SHUT_RDWR);
    char last = 0;
    whole = ::recv(to.get(), &last, 1, 0) == 1 && whole;
    const Times after = now();
    receiver.join();
    if (!whole) return vmm::internal_error("the plain link broke");
    return Times{.cpu = after.wall - before.wall, .wall = after.wall - before.wall};
}

bool somebody_listens() {
    std::ifstream table("/proc/net/tcp");
    char text[24];
    std::snprintf(text, sizeof text, ":%04X 00000000:0000 0A", static_cast<unsigned>(kPort));
    std::stringstream all;
    all << table.rdbuf();
    return all.str().find(text) != std::string::npos;
}

// The number behind `key` in the last line of `text`.
Result<std::uint64_t> field(const std::string& text, const std::string& key) {
    const auto at = text.rfind("\"" + key + "\":");
    if (at == std::string::npos) return vmm::internal_error("no " + key + " in " + text);
    return std::strtoull(text.c_str() + at + key.size() + 3, nullptr, 10);
}

std::string read_all(int fd) {
    std::string text;
    char buffer[4096];
    for (ssize_t n = 0; (n = ::read(fd, buffer, sizeof buffer)) > 0;) {
        text.append(buffer, static_cast<std::size_t>(n));
    }
    return text;
}

struct Move {
    Times blackout;
    std::uint64_t sent = 0;
};

Result<Move> move(const Options& options) {
    const std::string address = "tcp://127.0.0.1:" + std::to_string(kPort);
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return vmm::errno_error("pipe2");
    vmm::Fd from(ends[0]), to(ends[1]);
    auto source =
        TRY(Process::spawn({options.xenolith, "run", "--name", "here", "--kernel", options.guest,
                            "--memory", "256M", "--transport", options.transport},
                           to.get()));
    to = vmm::Fd();
    std::uint64_t tsc = 0;
    const bool began = ::read(from.get(), &tsc, sizeof tsc) == sizeof tsc;
    auto destination = TRY(Process::spawn(
        {options.xenolith, "receive", "--name", "there", "--transport", options.transport, address},
        -1));
    const auto moved = [&]() -> Result<Move> {
        if (!began) return vmm::internal_error("the guest did not begin");
        for (unsigned tries = 0; !somebody_listens(); ++tries) {
            if (tries == 1000) return vmm::internal_error("nobody listens");
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        }
        if (::pipe2(ends, O_CLOEXEC) != 0) return vmm::errno_error("pipe2");
        vmm::Fd out(ends[0]), in(ends[1]);
        auto mover =
            TRY(Process::spawn({options.xenolith, "migrate", "--json", "here", address}, in.get()));
        in = vmm::Fd();
        const std::string said = read_all(out.get());
        if (mover.wait_status() != 0) return vmm::internal_error("it was not moved: " + said);
        const auto ns = static_cast<double>(TRY(field(said, "blackout_ns")));
        return Move{.blackout = {.cpu = ns, .wall = ns}, .sent = TRY(field(said, "sent"))};
    }();
    source.terminate();
    destination.terminate();
    source.wait();
    destination.wait();
    return moved;
}

Result<void> measure(const Options& options, unsigned gbit) {
    TRY(set_rate(gbit));
    std::vector<Times> ours, limit, control;
    std::uint64_t bytes = 0;
    constexpr unsigned kWarmUp = 1;
    for (unsigned round = 0; round < options.rounds + kWarmUp; ++round) {
        const Move one = TRY(move(options));
        bytes = one.sent;
        const Times once = TRY(plain(bytes)), again = TRY(plain(bytes));
        if (round < kWarmUp) continue;
        ours.push_back(one.blackout);
        limit.push_back(once);
        control.push_back(again);
    }
    std::printf(
        "a move over %u Gbit/s: %.1f MiB, it stands still for %.1f ms; the bytes alone %.1f ms\n",
        gbit, static_cast<double>(bytes) / (1 << 20), median(of(ours, Clock::kWall)) / 1e6,
        median(of(limit, Clock::kWall)) / 1e6);
    print({.name = "blackout / bytes over " + std::to_string(gbit) + " Gbit/s",
           .numerator = ours,
           .denominator = limit,
           .control = {limit, control},
           .limit = kLimit,
           .clock = Clock::kWall,
           .verdict = !options.smoke});
    return {};
}

Result<void> run(const Options& options) {
    const auto folder =
        std::filesystem::temp_directory_path() / ("bench-blackout-" + std::to_string(::getpid()));
    std::filesystem::create_directory(folder);
    ::setenv("XENOLITH_RUNTIME_DIR", (folder / "run").c_str(), 1);
    ::setenv("XENOLITH_STATE_DIR", (folder / "state").c_str(), 1);
    const auto result = [&]() -> Result<void> {
        TRY(own_network());
        if (!options.smoke) TRY(measure(options, 1));
        TRY(measure(options, 10));
        return {};
    }();
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
    return result;
}

int main_of(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string option = argv[i];
        if (option == "--smoke") {
            options.smoke = true;
            options.rounds = 1;
        } else if (i + 1 == argc) {
            options.guest.clear();
            break;
        } else if (option == "--xenolith") {
            options.xenolith = argv[++i];
        } else if (option == "--guest") {
            options.guest = argv[++i];
        } else if (option == "--transport") {
            options.transport = argv[++i];
        } else if (option == "--rounds") {
            options.rounds = static_cast<unsigned>(std::stoul(argv[++i]));
        }
    }
    if (options.xenolith.empty() || options.guest.empty()) {
        std::fprintf(stderr,
                     "usage: bench_blackout --xenolith FILE --guest FILE [--transport T] "
                     "[--rounds N] [--smoke]\n");
        return 2;
    }
    return exit_status("bench_blackout", run(options));
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
    return bench::main_of(argc, argv);
}
