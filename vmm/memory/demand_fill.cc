#include "vmm/memory/demand_fill.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <linux/userfaultfd.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "vmm/memory/address.h"

namespace vmm {
namespace {

std::uint64_t address_of(const std::byte* at) {
    return reinterpret_cast<std::uint64_t>(at);  // NOLINT: userfaultfd speaks of addresses
}

// Faults of KVM are the kernel's own: without the privilege, and with vm.unprivileged_userfaultfd
// off, only the device gives a descriptor that reports them (userfaultfd(2), Linux 6.1).
Result<Fd> open_userfaultfd() {
    constexpr int kFlags = O_CLOEXEC | O_NONBLOCK;
    Fd fd(static_cast<int>(::syscall(SYS_userfaultfd, kFlags)));
#ifdef USERFAULTFD_IOC_NEW
    if (!fd) {
        const int why = errno;
        const Fd device(::open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
        if (device) fd = Fd(::ioctl(device.get(), USERFAULTFD_IOC_NEW, kFlags));
        if (!fd) errno = why;
    }
#endif
    if (!fd) return errno_error("userfaultfd", Fault::kHost);
    uffdio_api api{};
    api.api = UFFD_API;
    if (::ioctl(fd.get(), UFFDIO_API, &api) != 0) {
        return errno_error("userfaultfd: UFFDIO_API", Fault::kHost);
    }
    return fd;
}

void wake(int fault_fd, std::uint64_t at, std::uint64_t size) {
    uffdio_range range{.start = at, .len = size};
    ::ioctl(fault_fd, UFFDIO_WAKE, &range);
}

}  // namespace

DemandFill::DemandFill(Source& source, Background background, Fd fault_fd, Fd wake_fd)
    : source_(source),
      fault_fd_(std::move(fault_fd)),
      wake_fd_(std::move(wake_fd)),
      background_(background) {}

Result<std::unique_ptr<DemandFill>> DemandFill::start(std::vector<Range> ranges, Source& source,
                                                      Background background) {
    Fd fault_fd = TRY(open_userfaultfd());
    Fd wake_fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!wake_fd) return errno_error("eventfd");
    std::unique_ptr<DemandFill> fill(
        new DemandFill(source, background, std::move(fault_fd), std::move(wake_fd)));
    for (const Range& range : ranges) {
        uffdio_register wanted{};
        wanted.range = {.start = address_of(range.at), .len = range.size};
        wanted.mode = UFFDIO_REGISTER_MODE_MISSING;
        if (::ioctl(fill->fault_fd_.get(), UFFDIO_REGISTER, &wanted) != 0) {
            return errno_error("userfaultfd: UFFDIO_REGISTER", Fault::kHost);
        }
        fill->chunks_.push_back({range, std::vector<bool>((range.size + kChunk - 1) / kChunk)});
    }
    fill->thread_ = std::thread([self = fill.get()] { self->main(); });
    return fill;
}

DemandFill::~DemandFill() {
    stop_ = true;
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(wake_fd_.get(), &one, sizeof one);
    if (thread_.joinable()) thread_.join();
}

bool DemandFill::finish() {
    background_ = Background::kAtOnce;
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(wake_fd_.get(), &one, sizeof one);
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ended_; });
    return complete_;
}

void DemandFill::main() {
    using Clock = std::chrono::steady_clock;
    constexpr int kQuietMs = 10;
    constexpr std::chrono::milliseconds kLongEnough{200};
    const auto latest = Clock::now() + kLongEnough;
    buffer_.resize(kChunk);
    for (bool prepared = false;;) {
        const Background background = background_;
        const int patience = !prepared || background == Background::kAtOnce ? 0
                             : background == Background::kWhenQuiet         ? kQuietMs
                                                                            : -1;
        std::array<pollfd, 2> fds{{{.fd = fault_fd_.get(), .events = POLLIN, .revents = 0},
                                   {.fd = wake_fd_.get(), .events = POLLIN, .revents = 0}}};
        const int ready = ::poll(fds.data(), fds.size(), patience);
        if (fds[1].revents != 0) {
            std::uint64_t count = 0;
            [[maybe_unused]] const auto got = ::read(wake_fd_.get(), &count, sizeof count);
        }
        if (stop_ || (fds[0].revents != 0 && !answer_touches())) break;
        if (!prepared) {
            prepared = !source_.prepare();
            continue;
        }
        if (background == Background::kOnlyOnTouch) continue;
        if (background == Background::kWhenQuiet) {
            if (ready == 0 || Clock::now() >= latest) background_ = Background::kAtOnce;
            continue;
        }
        std::size_t range = 0;
        std::uint64_t chunk = 0;
        if (!next_missing(&range, &chunk)) {
            complete_ = true;
            break;
        }
        if (!fill(range, chunk)) break;
    }
    let_go();
    const std::scoped_lock lock(mutex_);
    ended_ = true;
    changed_.notify_all();
}

bool DemandFill::answer_touches() {
    uffd_msg message{};
    while (::read(fault_fd_.get(), &message, sizeof message) == sizeof message) {
        if (message.event != UFFD_EVENT_PAGEFAULT) continue;
        if (!answer_touch(message.arg.pagefault.address)) return false;
    }
    return true;
}

bool DemandFill::answer_touch(std::uint64_t address) {
    const std::uint64_t page = address & ~std::uint64_t{kPageSize - 1};
    for (std::size_t i = 0; i < chunks_.size(); ++i) {
        const std::uint64_t offset = page - address_of(chunks_[i].range.at);
        if (offset >= chunks_[i].range.size) continue;
        const std::uint64_t chunk = offset / kChunk;
        if (!chunks_[i].done[chunk] && !source_.is_zero(i, chunk * kChunk)) {
            touched_.fetch_add(1, std::memory_order_relaxed);
            return fill(i, chunk);
        }
        // Nothing was ever there, or it was given back since.
        uffdio_zeropage zero{};
        zero.range = {.start = page, .len = kPageSize};
        while (::ioctl(fault_fd_.get(), UFFDIO_ZEROPAGE, &zero) != 0) {
            if (errno == EAGAIN) continue;
            // It has come between the touch and now; or another page is shown in its place.
            wake(fault_fd_.get(), page, kPageSize);
            break;
        }
        return true;
    }
    return true;
}

bool DemandFill::fill(std::size_t range, std::uint64_t chunk) {
    Chunks& chunks = chunks_[range];
    chunks.done[chunk] = true;
    const std::uint64_t offset = chunk * kChunk;
    if (source_.is_zero(range, offset)) return true;
    const std::uint64_t size = std::min(kChunk, chunks.range.size - offset);
    if (!source_.fetch(range, offset, std::span(buffer_).first(size))) {
        source_.failed(range, offset);
        return false;
    }
    brought_.fetch_add(1, std::memory_order_relaxed);
    const std::uint64_t to = address_of(chunks.range.at) + offset;
    // In one go, unless another page is shown somewhere in it: then the kernel refuses all.
    std::uint64_t most = size;
    for (std::uint64_t at = 0; at < size;) {
        uffdio_copy copy{};
        copy.dst = to + at;
        copy.src = address_of(buffer_.data()) + at;
        copy.len = std::min(most, size - at);
        if (::ioctl(fault_fd_.get(), UFFDIO_COPY, &copy) == 0) {
            at += copy.len;
        } else if (copy.copy > 0) {
            at += static_cast<std::uint64_t>(copy.copy);
        } else if (errno == ENOENT && most > kPageSize) {
            most = kPageSize;
        } else if (errno == EEXIST || errno == ENOENT) {
            at += kPageSize;  // there already; or that other page
        } else if (errno != EAGAIN) {
            source_.failed(range, offset);
            return false;
        }
    }
    wake(fault_fd_.get(), to, size);
    return true;
}

bool DemandFill::next_missing(std::size_t* range, std::uint64_t* chunk) {
    for (; next_range_ < chunks_.size(); ++next_range_, next_chunk_ = 0) {
        const auto& done = chunks_[next_range_].done;
        for (; next_chunk_ < done.size(); ++next_chunk_) {
            if (done[next_chunk_]) continue;
            *range = next_range_;
            *chunk = next_chunk_;
            return true;
        }
    }
    return false;
}

// Whoever still waits goes on; the mappings are like any other from here on.
void DemandFill::let_go() {
    for (const Chunks& chunks : chunks_) {
        uffdio_range range{.start = address_of(chunks.range.at), .len = chunks.range.size};
        ::ioctl(fault_fd_.get(), UFFDIO_UNREGISTER, &range);
    }
    fault_fd_ = Fd();
}

}  // namespace vmm
