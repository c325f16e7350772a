// Writes a trace while the guest runs. Each vCPU's thread puts its calls into a ring of its own and
// never waits, neither for the file nor for the other vCPUs; one thread of the writer's empties the
// rings. A file that cannot be written ends the trace, said once; the guest goes on.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>
#include <x86intrin.h>

#include "vmm/base/fd.h"
#include "vmm/base/result.h"
#include "xenshim/abi/continuation.h"
#include "xenshim/abi/profile.h"
#include "xenshim/trace/ring.h"

namespace xenshim::trace {

class Writer;

// The bytes of one argument structure, kept while its call runs.
struct Captured {
    std::uint64_t base = 0;  // its linear address; 0: nothing is kept
    std::size_t in_most = 0;
    std::size_t in_bytes = 0, out_bytes = 0;
    std::array<std::byte, kMostMulticallBytes> in;
    std::array<std::byte, kMostBytes> out;

    void begin(const abi::Profile& profile, const abi::Request& request) {
        const std::uint64_t number = abi::hypercall_number(profile, request);
        const int argument = structure_argument(number);
        base = argument < 0 ? 0 : request.args[static_cast<std::size_t>(argument)];
        in_most = most_bytes(number);
        in_bytes = out_bytes = 0;
    }
    // The handler read (wrote) `bytes` at `at`. What adjoins the bytes that are kept is added.
    void note_read(std::uint64_t at, std::span<const std::byte> bytes) {
        if (base != 0 && at == base + in_bytes) keep(in.data(), in_bytes, in_most, bytes);
    }
    void note_write(std::uint64_t at, std::span<const std::byte> bytes) {
        if (base != 0 && at == base + out_bytes) keep(out.data(), out_bytes, out.size(), bytes);
    }

  private:
    static void keep(std::byte* to, std::size_t& have, std::size_t most,
                     std::span<const std::byte> bytes) {
        const std::size_t n = std::min(bytes.size(), most - have);
        std::memcpy(to + have, bytes.data(), n);
        have += n;
    }
};

// A vCPU's end of the writer; for that vCPU's thread alone.
class Recorder {
  public:
    Recorder(Writer& writer, std::uint16_t vcpu, std::size_t ring_bytes)
        : writer_(writer), vcpu_(vcpu), ring_(ring_bytes) {}

    // The host's TSC: a third of a clock read's cost, twice per call. The writer makes
    // nanoseconds of it.
    static std::uint64_t ticks() { return __rdtsc(); }

    Captured captured;
    // The call that began at `began` has its reply.
    void record(const abi::Request& request, const abi::Reply& reply, std::uint64_t began,
                std::uint64_t ended);

  private:
    friend class Writer;
    Writer& writer_;
    const std::uint16_t vcpu_;
    Ring ring_;
    std::uint64_t reported_drops_ = 0;  // the writing thread's
};

// What stands in the file's header.
struct Session {
    const abi::Profile* profile = nullptr;
    std::string_view transport;
    unsigned vcpus = 1;
    std::uint16_t domid = 1;
    bool legacy_quirks = false;
    std::size_t ring_bytes = Ring::kDefaultBytes;  // for each vCPU
};

class Writer {
  public:
    // Creates (or empties) the file. Fault kUser: it cannot be had.
    static vmm::Result<std::unique_ptr<Writer>> create(const std::string& path);
    ~Writer();
    Writer(const Writer&) = delete;
    Writer& operator=(const Writer&) = delete;

    // Before the vCPUs run; once more when the guest restarts, with the vCPUs stopped.
    void begin(const Session& session);
    Recorder& recorder(unsigned vcpu) { return *recorders_[vcpu]; }
    // With the vCPUs stopped: everything is in the file when it returns. Nothing is recorded after.
    void finish();

    std::uint64_t dropped() const;
    bool failed() const { return failed_.load(std::memory_order_relaxed); }

  private:
    friend class Recorder;
    // A moment on both clocks.
    struct Moment {
        std::uint64_t ticks = 0, ns = 0;
    };

    Writer(std::string path, vmm::Fd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
    static Moment now();
    void main();
    void wake();
    void drain();
    void write_call(Ring::Entry entry, const Moment& until);
    void write_mark(Kind kind, std::uint16_t vcpu, std::uint64_t value);
    void append(std::span<const std::byte> bytes);
    void flush();
    std::uint64_t to_ns(std::uint64_t ticks, const Moment& until) const;

    const std::string path_;
    vmm::Fd fd_;
    std::vector<std::unique_ptr<Recorder>> recorders_;
    std::atomic<bool> failed_{false};
    std::atomic<bool> asked_{false};  // to empty the rings now

    std::mutex drain_;  // guards what follows: the writing thread's, or begin()'s and finish()'s
    Moment since_;      // of the last drain
    std::uint64_t began_ns_ = 0;
    std::uint64_t last_ns_ = 0;
    std::uint64_t records_ = 0;
    std::vector<std::byte> buffer_;

    vmm::Fd wakeup_;  // an eventfd
    std::atomic<bool> stopping_{false};
    std::thread thread_;
};

}  // namespace xenshim::trace
