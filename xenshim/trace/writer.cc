#include "xenshim/trace/writer.h"

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>

#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "vmm/base/log.h"

namespace xenshim::trace {
namespace {

// How long a record may wait when nothing else brings it to the file.
constexpr int kPatienceMs = 100;
constexpr std::size_t kBufferBytes = std::size_t{64} << 10;

std::uint64_t clock_ns(clockid_t clock) {
    timespec at{};
    ::clock_gettime(clock, &at);
    return static_cast<std::uint64_t>(at.tv_sec) * 1'000'000'000 +
           static_cast<std::uint64_t>(at.tv_nsec);
}

template <std::size_t N>
void put_name(std::array<char, N>& to, std::string_view name) {
    std::copy_n(name.begin(), std::min(name.size(), N - 1), to.begin());
}

std::byte* put(std::byte* to, const void* from, std::size_t bytes) {
    std::memcpy(to, from, bytes);
    const std::size_t whole = padded(bytes);
    std::memset(to + bytes, 0, whole - bytes);
    return to + whole;
}

}  // namespace

void Recorder::record(const abi::Request& request, const abi::Reply& reply, std::uint64_t began,
                      std::uint64_t ended) {
    const auto* again = std::get_if<abi::Reissue>(&reply);
    const auto* finish = std::get_if<abi::Finish>(&reply);
    const std::size_t bytes = sizeof(CallRecord) + (again != nullptr ? sizeof again->args : 0) +
                              padded(captured.in_bytes) + padded(captured.out_bytes);
    std::byte* to = ring_.reserve(ended, bytes);
    if (to != nullptr) {
        CallRecord call;
        call.head = {.bytes = static_cast<std::uint16_t>(bytes),
                     .kind = Kind::kCall,
                     .ending = again != nullptr    ? Ending::kContinue
                               : finish != nullptr ? Ending::kFinish
                                                   : Ending::kBlock,
                     .vcpu = vcpu_,
                     .word_bytes = static_cast<std::uint8_t>(request.width == abi::Width::k64
                                                                 ? sizeof(std::uint64_t)
                                                                 : sizeof(std::uint32_t)),
                     .cpl = static_cast<std::uint8_t>(request.cpl),
                     .time_ns = began};  // ticks, until the writer looks at it
        call.number = request.number;
        call.args = request.args;
        call.result = finish != nullptr ? finish->result : 0;
        call.in_bytes = static_cast<std::uint16_t>(captured.in_bytes);
        call.out_bytes = static_cast<std::uint16_t>(captured.out_bytes);
        std::memcpy(to, &call, sizeof call);
        to += sizeof call;
        if (again != nullptr) to = put(to, again->args.data(), sizeof again->args);
        to = put(to, captured.in.data(), captured.in_bytes);
        put(to, captured.out.data(), captured.out_bytes);
        if (!ring_.publish()) return;
    }
    writer_.wake();
}

vmm::Result<std::unique_ptr<Writer>> Writer::create(const std::string& path) {
    // Without O_NONBLOCK a pipe that nobody reads would hold us here.
    vmm::Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0644));
    if (!fd) return vmm::errno_error("--trace " + path, vmm::Fault::kUser);
    struct stat info {};
    if (::fstat(fd.get(), &info) != 0) return vmm::errno_error("--trace " + path);
    if (!S_ISREG(info.st_mode) && !S_ISCHR(info.st_mode)) {
        // A pipe's reader could keep our end from coming.
        return vmm::user_error("--trace " + path + ": not a file");
    }
    if (S_ISREG(info.st_mode)) {
        if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
            return vmm::user_error("--trace " + path + ": another guest's trace is being written");
        }
        // What is there stays until the guest begins, and is lost then: only if it was a trace.
        std::array<char, 8> magic{};
        const ssize_t n = ::pread(fd.get(), magic.data(), magic.size(), 0);
        if (n != 0 && magic != kMagic) {
            return vmm::user_error("--trace " + path + ": there is a file that is no trace");
        }
    }
    std::unique_ptr<Writer> writer(new Writer(path, std::move(fd)));
    writer->wakeup_ = vmm::Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!writer->wakeup_) return vmm::errno_error("eventfd");
    writer->buffer_.reserve(kBufferBytes);
    return writer;
}

Writer::~Writer() {
    finish();
}

Writer::Moment Writer::now() {
    // A thread that is interrupted between the two clocks would bend the time: the closest of a few
    // pairs counts.
    constexpr int kTries = 5;
    Moment best;
    std::uint64_t closest = UINT64_MAX;
    for (int i = 0; i < kTries; ++i) {
        const std::uint64_t before = Recorder::ticks();
        const std::uint64_t ns = clock_ns(CLOCK_MONOTONIC);
        const std::uint64_t after = Recorder::ticks();
        if (after - before < closest) {
            closest = after - before;
            best = {before + (after - before) / 2, ns};
        }
    }
    return best;
}

void Writer::begin(const Session& session) {
    if (thread_.joinable()) {
        const std::scoped_lock lock(drain_);
        drain();
        write_mark(Kind::kRestart, 0, 0);
        return;
    }
    since_ = now();
    began_ns_ = since_.ns;
    // Of a device that fails; it keeps what it gets.
    [[maybe_unused]] const int cut = ::ftruncate(fd_.get(), 0);
    FileHeader header;
    header.started_ns = clock_ns(CLOCK_REALTIME);
    header.vcpus = session.vcpus;
    header.domid = session.domid;
    header.legacy_quirks = session.legacy_quirks ? 1 : 0;
    put_name(header.profile, session.profile->name);
    put_name(header.transport, session.transport);
    append(std::as_bytes(std::span(&header, 1)));
    flush();
    for (unsigned v = 0; v < session.vcpus; ++v) {
        recorders_.push_back(
            std::make_unique<Recorder>(*this, static_cast<std::uint16_t>(v), session.ring_bytes));
    }
    // Signals are for the main thread (a signalfd) and for the vCPUs.
    sigset_t all, before;
    sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_ = std::thread([this] { main(); });
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Writer::finish() {
    if (!thread_.joinable()) return;
    stopping_ = true;
    asked_ = false;
    wake();
    thread_.join();
    const std::scoped_lock lock(drain_);
    drain();
    write_mark(Kind::kEnd, 0, records_);
    flush();
    if (const std::uint64_t lost = dropped(); lost != 0 && !failed()) {
        vmm::log_warn("trace",
                      "%s: %llu calls are missing: they came faster than they were written",
                      path_.c_str(), static_cast<unsigned long long>(lost));
    }
}

std::uint64_t Writer::dropped() const {
    std::uint64_t all = 0;
    for (const auto& recorder : recorders_) {
        all += recorder->ring_.dropped();
    }
    return all;
}

void Writer::main() {
    while (!stopping_) {
        pollfd fd{.fd = wakeup_.get(), .events = POLLIN, .revents = 0};
        ::poll(&fd, 1, kPatienceMs);
        std::uint64_t count = 0;
        [[maybe_unused]] const auto got = ::read(wakeup_.get(), &count, sizeof count);
        const std::scoped_lock lock(drain_);
        asked_ = false;  // who fills a ring from here on asks again
        drain();
    }
}

void Writer::wake() {
    if (asked_.load(std::memory_order_relaxed) || asked_.exchange(true)) return;
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto done = ::write(wakeup_.get(), &one, sizeof one);
}

// Takes what the rings hold, in the order in which the calls ended. Records that come meanwhile
// wait for the next time: so it ends, and what is written lies between two moments whose time is
// known on both clocks.
void Writer::drain() {
    std::vector<std::uint64_t> heads;
    std::vector<Ring::Entry> fronts;
    for (const auto& recorder : recorders_) {
        heads.push_back(recorder->ring_.head());
        fronts.push_back(recorder->ring_.front(heads.back()));
    }
    const Moment until = now();
    for (;;) {
        std::size_t next = fronts.size();
        for (std::size_t v = 0; v < fronts.size(); ++v) {
            if (fronts[v].record.empty()) continue;
            if (next == fronts.size() || fronts[v].ended < fronts[next].ended) next = v;
        }
        if (next == fronts.size()) break;
        Ring& ring = recorders_[next]->ring_;
        write_call(fronts[next], until);
        ring.pop(fronts[next]);
        fronts[next] = ring.front(heads[next]);
    }
    since_ = until;
    last_ns_ = until.ns - began_ns_;
    for (const auto& recorder : recorders_) {
        const std::uint64_t lost = recorder->ring_.dropped();
        if (lost == recorder->reported_drops_) continue;
        write_mark(Kind::kDropped, recorder->vcpu_, lost - recorder->reported_drops_);
        recorder->reported_drops_ = lost;
    }
    flush();
}

std::uint64_t Writer::to_ns(std::uint64_t ticks, const Moment& until) const {
    const auto tick_span = static_cast<double>(until.ticks - since_.ticks);
    const auto ns_span = static_cast<double>(until.ns - since_.ns);
    const auto since = static_cast<double>(static_cast<std::int64_t>(ticks - since_.ticks));
    const double at = static_cast<double>(since_.ns - began_ns_) +
                      (tick_span > 0 ? since * (ns_span / tick_span) : 0);
    return at > 0 ? static_cast<std::uint64_t>(at) : 0;
}

void Writer::write_call(Ring::Entry entry, const Moment& until) {
    CallRecord call;
    std::memcpy(&call, entry.record.data(), sizeof call);
    const std::uint64_t began = to_ns(call.head.time_ns, until);
    const std::uint64_t ended = std::max(began, to_ns(entry.ended, until));
    call.head.time_ns = began;
    call.duration_ns =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(ended - began, UINT32_MAX));
    append(std::as_bytes(std::span(&call, 1)));
    append(entry.record.subspan(sizeof call));
    ++records_;
}

void Writer::write_mark(Kind kind, std::uint16_t vcpu, std::uint64_t value) {
    const MarkRecord mark{
        .head = {.bytes = sizeof(MarkRecord), .kind = kind, .vcpu = vcpu, .time_ns = last_ns_},
        .value = value};
    append(std::as_bytes(std::span(&mark, 1)));
    ++records_;
}

void Writer::append(std::span<const std::byte> bytes) {
    if (buffer_.size() + bytes.size() > kBufferBytes) flush();
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
}

void Writer::flush() {
    std::span<const std::byte> rest(buffer_);
    while (!rest.empty() && !failed()) {
        const ssize_t done = ::write(fd_.get(), rest.data(), rest.size());
        if (done > 0) {
            rest = rest.subspan(static_cast<std::size_t>(done));
        } else if (done == 0 || errno != EINTR) {
            vmm::log_error("trace", "%s: %s; the trace ends here", path_.c_str(),
                           std::strerror(errno));
            failed_ = true;
        }
    }
    buffer_.clear();
}

}  // namespace xenshim::trace
