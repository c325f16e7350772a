#include "vmm/machine/event_loop.h"

#include <poll.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>
#include <vector>

#include <sys/timerfd.h>

#include "vmm/base/thread.h"

namespace vmm {

Result<Notifier> Notifier::create() {
    Fd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!fd) return errno_error("eventfd");
    return Notifier(std::move(fd));
}

EventLoop::EventLoop() : stop_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

void EventLoop::add(int fd, std::function<short()> wanted, std::function<void(short)> ready) {
    sources_.push_back({fd, std::move(wanted), std::move(ready)});
}

EventLoop::~EventLoop() {
    stop();
    {
        const std::scoped_lock lock(mutex_);
        wanted_ = Wanted::kEnd;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
}

Result<void> EventLoop::prepare() {
    if (thread_.joinable()) return {};
    return make_thread(thread_, [this] { main(); });
}

void EventLoop::start() {
    std::uint64_t count = 0;
    [[maybe_unused]] const auto got = ::read(stop_.get(), &count, sizeof count);
    {
        const std::scoped_lock lock(mutex_);
        stopping_ = false;
        wanted_ = Wanted::kServing;
    }
    changed_.notify_all();
}

void EventLoop::stop() {
    std::unique_lock lock(mutex_);
    stopping_ = true;
    wanted_ = Wanted::kIdle;
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(stop_.get(), &one, sizeof one);
    changed_.wait(lock, [this] { return !serving_; });
}

void EventLoop::main() {
    std::unique_lock lock(mutex_);
    for (;;) {
        changed_.wait(lock, [this] { return wanted_ != Wanted::kIdle; });
        if (wanted_ == Wanted::kEnd) return;
        serving_ = true;
        lock.unlock();
        serve();
        lock.lock();
        serving_ = false;
        changed_.notify_all();
    }
}

void EventLoop::serve() {
    std::vector<pollfd> polled;
    std::vector<Source*> owners;
    while (!stopping_) {
        polled.clear();
        owners.clear();
        polled.push_back({.fd = stop_.get(), .events = POLLIN, .revents = 0});
        for (Source& source : sources_) {
            const short events = source.wanted();
            if (events == 0) continue;
            polled.push_back({.fd = source.fd, .events = events, .revents = 0});
            owners.push_back(&source);
        }
        if (::poll(polled.data(), polled.size(), -1) < 0) continue;  // EINTR
        for (std::size_t i = 0; i < owners.size() && !stopping_; ++i) {
            if (polled[i + 1].revents != 0) owners[i]->ready(polled[i + 1].revents);
        }
    }
}

// ---- Doorbell -----------------------------------------------------------------------------------

Result<std::unique_ptr<Doorbell>> Doorbell::create() {
    auto bell = TRY(Notifier::create());
    Fd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    if (!timer) return errno_error("timerfd_create");
    return std::unique_ptr<Doorbell>(new Doorbell(std::move(bell), std::move(timer)));
}

void Doorbell::attach(EventLoop& loop, std::function<bool()> answer) {
    loop.add(
        bell_.fd(), [this] { return deaf_ ? short{0} : short{POLLIN}; },
        [this, answer = std::move(answer)](short) {
            // In this order: whoever rings from now on is heard once more, and what those before
            // had published is seen.
            bell_.clear();
            rung_.exchange(false);
            heard(!answer());
        });
    loop.add(
        timer_.get(), [this] { return deaf_ ? short{POLLIN} : short{0}; },
        [this](short) {
            std::uint64_t expirations = 0;
            [[maybe_unused]] const auto got =
                ::read(timer_.get(), &expirations, sizeof expirations);
            deaf_ = false;
        });
}

void Doorbell::heard(bool for_nothing) {
    in_vain_ = for_nothing ? in_vain_ + 1 : 0;
    if (in_vain_ <= kPatience) return;
    in_vain_ = kPatience;
    itimerspec when{};
    when.it_value.tv_nsec = kDeafness;
    if (::timerfd_settime(timer_.get(), 0, &when, nullptr) != 0) return;
    deaf_ = true;
    ++deaf_spells_;
}

}  // namespace vmm
