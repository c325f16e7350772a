#include "migration/arrival.h"

#include <cerrno>
#include <chrono>
#include <new>
#include <poll.h>

#include <sys/eventfd.h>

#include "vmm/base/log.h"
#include "vmm/base/thread.h"

namespace migration {

using vmm::Failure;
using vmm::Fd;
using vmm::Result;

namespace {

constexpr const char* kNotTheSource = "this move was begun by somebody else";

Peer source_of(const Frame& greeting) {
    return {.folder = greeting.folder, .secret = greeting.secret};
}

}  // namespace

Result<void> refuse(Link& link, const Attempt& attempt, const std::string& why) {
    [[maybe_unused]] const auto sent =
        link.send({.kind = Frame::Kind::kRefused, .attempt = attempt, .text = why});
    return vmm::host_error(why);
}

Result<void> answer_from_records(Link& link, const Frame& greeting, const OpenRecords& open) {
    const Attempt& attempt = greeting.attempt;
    auto records = open(attempt.vm);
    if (!records) return refuse(link, attempt, records.error().what);
    const Peer peer = source_of(greeting);
    // One that cannot be read is the driver's to find.
    if (const auto before = records->read();
        before && *before && (*before)->attempt == attempt && (*before)->peer != peer) {
        return refuse(link, attempt, kNotTheSource);
    }
    Driver driver(Ownership::restarted(Side::kDestination, attempt), *std::move(records), peer,
                  [](Action) -> std::optional<Event> { return std::nullopt; });
    driver.look_at_record();
    TRY(link.send(
        {.kind = Frame::Kind::kWelcome, .attempt = attempt, .folder = driver.folder_id()}));
    driver.use(&link);
    driver.on(Event::kLinkUp);
    while (driver.take_message()) {
    }
    return {};
}

Result<std::unique_ptr<Arrival>> Arrival::begin(std::unique_ptr<FurtherLinks> further, Link link,
                                                const Frame& greeting, const OpenRecords& open) {
    const Attempt& attempt = greeting.attempt;
    std::unique_ptr<Arrival> arrival(new Arrival(std::move(further), std::move(link)));
    Link& to = *arrival->link_;
    auto records = [&]() -> Result<Records> {
        auto opened = TRY(open(attempt.vm));
        const auto before = TRY(opened.read());
        if (before && before->attempt.epoch >= attempt.epoch) {
            return vmm::host_error("this move was begun here before: " + opened.path() +
                                   " says so");
        }
        return opened;
    }();
    if (!records) return Failure{refuse(to, attempt, records.error().what).error()};
    arrival->stop_ = Fd(::eventfd(0, EFD_CLOEXEC));
    if (!arrival->stop_) return vmm::errno_error("eventfd");
    arrival->driver_ = std::make_unique<Driver>(
        Ownership::destination(attempt), *std::move(records), source_of(greeting),
        [raw = arrival.get()](Action action) -> std::optional<Event> {
            switch (action) {
                // Disks will have some. The guest's name has been taken
                // since it was made.
                case Action::kTakeLocks: return Event::kLocked;
                case Action::kRunGuest: raw->ours_ = true; break;
                // Whoever made it lets it go: nothing runs it but what
                // take_over() lets through.
                default: break;
            }
            return std::nullopt;
        });
    TRY(to.send({.kind = Frame::Kind::kWelcome,
                 .attempt = attempt,
                 .folder = arrival->driver_->folder_id()}));
    arrival->stream_.emplace(to);
    return arrival;
}

Arrival::~Arrival() {
    end_late();
}

void Arrival::give_up(const std::string& why) {
    driver_->set_why(why);
    driver_->use(link_ ? &*link_ : nullptr);
    driver_->on(Event::kFailed);
    driver_->use(nullptr);
    if (link_) link_->finish();
}

void Arrival::heed(int signals) {
    heeded_ = signals;
    if (link_) link_->heed(signals);
}

// A source begins an attempt only when the one before is over there, with the guest.
bool Arrival::is_superseded_by(const Frame& greeting) const {
    return greeting.kind == Frame::Kind::kBegin && driver_->state() == State::kPrepared &&
           greeting.attempt.vm == attempt().vm && greeting.attempt.epoch > attempt().epoch;
}

// Whether there is nothing more to hear from it: it has said what it wants, or is gone.
bool Arrival::is_heard(Link& caller) {
    const auto greeting = caller.receive_at_once();
    if (!greeting) {
        vmm::log_warn("receive", "%s", greeting.error().what.c_str());
        return true;
    }
    if (*greeting) take_link(std::move(caller), **greeting);
    return greeting->has_value();
}

void Arrival::take_link(Link link, const Frame& greeting) {
    if (is_superseded_by(greeting)) {
        driver_->set_why("its source has begun another move of it");
        driver_->on(Event::kSuperseded);
        successor_ = Successor{std::move(further_), std::move(link), greeting};
        return;
    }
    if (greeting.kind != Frame::Kind::kResume || greeting.attempt.vm != driver_->attempt().vm) {
        [[maybe_unused]] const auto refused =
            refuse(link, greeting.attempt, "another guest is being received here");
        return;
    }
    // Whoever it is, the link that we have stays.
    if (greeting.attempt != attempt() || source_of(greeting) != driver_->peer()) {
        [[maybe_unused]] const auto refused = refuse(link, greeting.attempt, kNotTheSource);
        vmm::log_warn("receive", "%s: a stranger asked for the guest", link.peer().c_str());
        return;
    }
    if (!link.send({.kind = Frame::Kind::kWelcome,
                    .attempt = greeting.attempt,
                    .folder = driver_->folder_id()})) {
        return;
    }
    // The source has one link at a time: this one is in the old one's place.
    link_.emplace(std::move(link));
    link_->heed(heeded_);
    driver_->use(&*link_);
    driver_->on(Event::kLinkUp);
}

// Waits for one thing and does it; false: it was `other`.
bool Arrival::serve(int other) {
    // Whoever calls and says nothing stands in nobody's way.
    constexpr std::size_t kMostCallers = 8;
    const auto doors = further_->fds();
    std::vector<pollfd> fds{{.fd = link_ ? link_->fd() : -1, .events = POLLIN, .revents = 0},
                            {.fd = doors[0], .events = POLLIN, .revents = 0},
                            {.fd = doors[1], .events = POLLIN, .revents = 0},
                            {.fd = other, .events = POLLIN, .revents = 0}};
    const std::size_t first = fds.size();
    for (const Link& caller : callers_) {
        fds.push_back({.fd = caller.fd(), .events = POLLIN, .revents = 0});
    }
    if (::poll(fds.data(), fds.size(), -1) < 0) return errno == EINTR;
    if (fds[0].revents != 0 && !driver_->take_message()) link_.reset();
    if (fds[1].revents != 0 || fds[2].revents != 0) {
        if (auto socket = further_->accept()) {
            callers_.emplace_back(*std::move(socket), further_->name());
        }
    }
    std::vector<Link> still;
    for (std::size_t i = 0; i < callers_.size(); ++i) {
        const bool spoke = first + i < fds.size() && fds[first + i].revents != 0;
        if (!spoke || !is_heard(callers_[i])) still.push_back(std::move(callers_[i]));
    }
    if (still.size() > kMostCallers) still.erase(still.begin());  // there the longest
    callers_ = std::move(still);
    return fds[3].revents == 0;
}

// When the guest is ours, and runs: whoever has not heard that may ask.
void Arrival::serve_late() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return late_begins_ || over_; });
    if (over_) return;
    lock.unlock();
    for (bool goes_on = true; goes_on && driver_->state() != State::kSettled;) {
        try {
            goes_on = serve(stop_.get());
        } catch (const std::bad_alloc&) {
            // The guest is not to end of it. Who is not answered asks again, over another link.
            driver_->use(nullptr);
            link_.reset();
            callers_.clear();
        }
    }
    if (driver_->state() == State::kSettled) {
        // There is nothing more to say, and a program may wait for its end to do so, too. With the
        // driver go the records and their lock.
        driver_.reset();
        link_.reset();
        further_.reset();
    }
    lock.lock();
    over_ = true;
    changed_.notify_all();
}

Result<void> Arrival::take_over(int signals) {
    // Now: from the moment that it is ours nothing may fail.
    TRY(vmm::make_thread(late_, [this] { serve_late(); }));
    driver_->use(&*link_);
    driver_->on(Event::kComplete);
    while (!ours_) {
        if (is_settled(driver_->state())) {
            const std::string why = driver_->why();
            return vmm::host_error("the guest stays where it was" +
                                   (why.empty() ? "" : ": " + why));
        }
        if (!serve(signals)) {
            driver_->set_why("its receiver was told to end");
            driver_->on(Event::kCancel);
        }
    }
    heed(-1);  // from now on they are the guest's
    {
        const std::lock_guard lock(mutex_);
        late_begins_ = true;
    }
    changed_.notify_all();
    return {};
}

void Arrival::settle() {
    constexpr std::chrono::seconds kPatience{5};
    {
        std::unique_lock lock(mutex_);
        changed_.wait_for(lock, kPatience, [this] { return over_; });
    }
    end_late();
}

void Arrival::end_late() {
    if (!late_.joinable()) return;
    {
        const std::lock_guard lock(mutex_);
        if (!late_begins_) over_ = true;
    }
    changed_.notify_all();
    ::eventfd_write(stop_.get(), 1);
    late_.join();
    driver_.reset();
    link_.reset();
    further_.reset();
}

}  // namespace migration
