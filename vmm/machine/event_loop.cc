#include "vmm/machine/event_loop.h"

#include <poll.h>
#include <signal.h>
#include <vector>

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

void EventLoop::start() {
    sigset_t all, before;
    sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_ = std::thread([this] { main(); });
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void EventLoop::stop() {
    stopping_ = true;
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(stop_.get(), &one, sizeof one);
    if (thread_.joinable()) thread_.join();
}

void EventLoop::main() {
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

}  // namespace vmm
