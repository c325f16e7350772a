#include "vmm/cli/control_point.h"

#include <poll.h>

namespace vmm::cli {

Result<std::unique_ptr<ControlPoint>> ControlPoint::open(const std::string& name) {
    auto directory = TRY(
        control::Directory::open(control::directory_path(), control::Directory::Missing::kMake));
    auto endpoint = TRY(control::Endpoint::claim(std::move(directory), name));
    auto waiting = TRY(Notifier::create());
    auto point =
        std::unique_ptr<ControlPoint>(new ControlPoint(std::move(endpoint), std::move(waiting)));
    point->server_ = TRY(control::Server::create(
        point->endpoint_->take_listener(),
        [self = point.get()](control::Ticket ticket, control::Request request) {
            {
                const std::scoped_lock lock(self->mutex_);
                self->calls_.push_back({ticket, std::move(request)});
            }
            self->waiting_.notify();
        }));
    return point;
}

ControlPoint::~ControlPoint() {
    if (!server_) return;
    for (const Call& call : calls_) {
        answer(call.ticket, control::refusal(503, "the guest has ended"));
    }
    server_->finish();
    endpoint_.reset();  // first the name, then the connections
    server_.reset();
}

void ControlPoint::serve_on(EventLoop& loop) {
    loop.add(
        server_->fd(), [] { return short{POLLIN}; }, [this](short) { server_->service(); });
}

std::optional<ControlPoint::Call> ControlPoint::take() {
    const std::scoped_lock lock(mutex_);
    waiting_.clear();
    if (calls_.empty()) return std::nullopt;
    Call call = std::move(calls_.front());
    calls_.pop_front();
    if (!calls_.empty()) waiting_.notify();
    return call;
}

}  // namespace vmm::cli
