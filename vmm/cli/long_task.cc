#include "vmm/cli/long_task.h"

#include <poll.h>

#include "vmm/base/thread.h"

namespace vmm::cli {

Result<std::unique_ptr<LongTask>> LongTask::create() {
    auto wanted = TRY(Notifier::create());
    auto told = TRY(Notifier::create());
    return std::unique_ptr<LongTask>(new LongTask(std::move(wanted), std::move(told)));
}

void LongTask::start(std::function<void()> work) {
    bytes_ = 0;
    state_ = std::optional<migration::State>();
    told_ = false;
    told_event_.clear();
    over_ = false;
    const auto whole = [this, work = std::move(work)] {
        work();
        const std::scoped_lock lock(mutex_);
        over_ = true;
        wanted_.notify();
    };
    if (make_thread(thread_, whole)) return;
    in_place_ = true;
    whole();
}

bool LongTask::attend() {
    if (!is_under_way()) return false;
    wanted_.clear();
    std::unique_lock lock(mutex_);
    if (asked_ != nullptr) {
        const auto& what = *asked_;
        lock.unlock();
        what();
        lock.lock();
        asked_ = nullptr;
        changed_.notify_all();
    }
    if (!over_) return false;
    lock.unlock();
    if (thread_.joinable()) thread_.join();
    in_place_ = false;
    return true;
}

void LongTask::finish() {
    while (is_under_way() && !attend()) {
        pollfd one{.fd = wanted_.fd(), .events = POLLIN, .revents = 0};
        ::poll(&one, 1, -1);
    }
}

void LongTask::on_control_thread(const std::function<void()>& what) {
    if (in_place_) return what();
    std::unique_lock lock(mutex_);
    asked_ = &what;
    wanted_.notify();
    changed_.wait(lock, [this] { return asked_ == nullptr; });
}

bool LongTask::is_promised() const {
    using migration::State;
    const auto now = state();
    return now == State::kCommitting || now == State::kCommitted || now == State::kCancelling ||
           now == State::kGone;
}

}  // namespace vmm::cli
