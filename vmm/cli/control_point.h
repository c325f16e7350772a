// The control socket of this process: it takes the VM's name for as long as it lives, also while
// the guest restarts. The event loop's thread carries the bytes; what the requests ask for is done
// by the control thread alone, which finds them in a queue.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "control/endpoint.h"
#include "control/server.h"
#include "vmm/machine/event_loop.h"

namespace vmm::cli {

class ControlPoint {
  public:
    // A request that is to be answered once, now or when what it asks for is done.
    struct Call {
        control::Ticket ticket = 0;
        control::Request request;
    };

    // Takes `name` in the runtime directory. Fault::kUser: it is taken, or the directory is unfit.
    static Result<std::unique_ptr<ControlPoint>> open(const std::string& name);
    // Answers what waits and lets the name go; a client that waits for its connection to end knows
    // then that it is free.
    ~ControlPoint();
    ControlPoint(const ControlPoint&) = delete;
    ControlPoint& operator=(const ControlPoint&) = delete;

    // Before the loop starts.
    void serve_on(EventLoop& loop);

    // Control thread. fd() is readable while a call may wait.
    int fd() const { return waiting_.fd(); }
    std::optional<Call> take();
    // Any thread.
    void answer(control::Ticket ticket, control::Response response) {
        server_->reply(ticket, std::move(response));
    }

  private:
    ControlPoint(control::Endpoint endpoint, Notifier waiting)
        : endpoint_(std::move(endpoint)), waiting_(std::move(waiting)) {}

    std::optional<control::Endpoint> endpoint_;
    Notifier waiting_;
    std::mutex mutex_;  // guards calls_
    std::deque<Call> calls_;
    std::unique_ptr<control::Server> server_;
};

}  // namespace vmm::cli
