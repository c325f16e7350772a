#include "migration/driver.h"

#include <new>
#include <string_view>

#include <sys/socket.h>

#include "vmm/base/log.h"

namespace migration {

bool Driver::take_message() {
    if (link_ == nullptr) return false;
    const auto frame = link_->receive();
    if (!frame && link_->is_told_to_end()) return end_early();
    if (!frame || frame->kind != Frame::Kind::kMessage) {
        lose_link(frame ? link_->peer() + ": it broke the protocol" : frame.error().what);
        return false;
    }
    if (!frame->text.empty()) why_ = frame->text;
    heard(*frame);
    last_heard_ = frame->message;
    return perform(ownership_.on({.kind = frame->message, .attempt = frame->attempt}));
}

void Driver::heard(const Frame& frame) {
    if (frame.message == Event::kAborted && frame.attempt == attempt()) is_known_ = true;
}

bool Driver::is_untold() const {
    return state() == State::kKept && all_sent_ && !is_known_;
}

std::optional<Event> Driver::rest_sent(const vmm::Result<void>& sent) {
    all_sent_ = sent.has_value();
    if (sent) return std::nullopt;
    why_ = sent.error().what;
    if (link_ != nullptr && link_->has_something()) {
        // The other side has stopped reading, perhaps because it has something to say.
        const auto frame = link_->receive();
        if (!frame) {
            why_ = frame.error().what;
        } else if (frame->message == Event::kAborted && !frame->text.empty()) {
            why_ = frame->text;
        }
    }
    return Event::kFailed;
}

void Driver::look_at_record() {
    const auto record = records_.read();
    if (!record) {
        vmm::log_error("move", "%s", record.error().what.c_str());
        on(Event::kBadRecord);
        return;
    }
    on(event_of(*record ? std::optional((*record)->state) : std::nullopt));
}

void Driver::lose_link(const std::string& why) {
    why_ = why;
    // It may be lost in one direction only.
    is_losing_ = true;
    on(Event::kLinkLost);
    is_losing_ = false;
    link_ = nullptr;
}

// Where something was promised, only the other side can say what became of it; else it is over.
bool Driver::end_early() {
    why_ = "it was told to end";
    switch (state()) {
        case State::kCommitted:
        case State::kCancelling:
        case State::kHandingOver:
        case State::kKept: lose_link(why_); return false;
        default: return on(Event::kCancel);
    }
}

bool Driver::greet(Link& link, bool cancel) {
    const bool begins = state() == State::kMoving;
    if (begins && cancel) return on(Event::kCancel);
    if (begins) {
        const auto secret = make_secret();
        if (!secret) {
            lose_link(secret.error().what);
            return false;
        }
        peer_.secret = *secret;
    }
    const auto greeted = link.send({.kind = begins ? Frame::Kind::kBegin : Frame::Kind::kResume,
                                    .attempt = attempt(),
                                    .folder = folder_id(),
                                    .secret = peer_.secret});
    const auto answer =
        greeted ? link.receive() : vmm::Result<Frame>(vmm::Failure{greeted.error()});
    if (!answer) {
        lose_link(answer.error().what);
        return false;
    }
    if (answer->kind == Frame::Kind::kRefused) {
        lose_link(answer->text);
        return false;
    }
    if (answer->kind != Frame::Kind::kWelcome || answer->attempt != attempt()) {
        lose_link(link.peer() + ": it broke the protocol");
        return false;
    }
    if (begins) {
        peer_.folder = answer->folder;
        return on(Event::kReady);
    }
    // What is not known there is known nowhere, but only there.
    if (answer->folder != peer_.folder) {
        lose_link(link.peer() + ": it is not where the guest was sent to");
        return false;
    }
    return on(cancel && state() != State::kKept ? Event::kCancel : Event::kLinkUp);
}

void Driver::depart(Link& link, bool cancel) {
    why_.clear();
    use(&link);
    // A guest that was kept just now stands still until we return: it is not made to wait.
    const bool tells = is_untold();
    bool there = greet(link, cancel);
    while (there && (tells ? is_untold() : !is_settled(state()))) {
        // What has come already is not heard either: it would be PREPARED.
        there = link.is_told_to_end() ? end_early() : take_message();
    }
    use(nullptr);
}

bool Driver::perform(const Step& step) {
    switch (step.verdict) {
        case Verdict::kGo: break;
        case Verdict::kIgnored: return true;
        // Actions are done and their outcome told before anything else is heard, so that nothing is
        // ever for later.
        case Verdict::kLater:
        case Verdict::kIllegal:
        case Verdict::kMissing:
            if (link_ != nullptr) lose_link(link_->peer() + ": it broke the protocol");
            return false;
    }
    const std::string_view name = name_of(state());
    vmm::log_info("move", "now %.*s", static_cast<int>(name.size()), name.data());
    if (entered_) entered_(state());
    std::optional<Event> outcome;
    for (const Action action : step.actions) {
        if (auto came = carry_out(action, step.attempt)) outcome = came;
    }
    return !outcome || on(*outcome);
}

// What is not said, for want of memory too, must not stop what else is to be done: the guest may be
// ours by now. That the link is lost is noticed by whoever waits for the answer, on both sides.
void Driver::say(Event message, const Attempt& attempt) try {
    if (link_ == nullptr) return;
    const Frame frame{
        .kind = Frame::Kind::kMessage, .message = message, .attempt = attempt, .text = why_};
    if (is_losing_) return link_->send_at_once(frame);
    const auto sent = link_->send(frame);
    if (!sent) vmm::log_info("move", "%s", sent.error().what.c_str());
} catch (const std::bad_alloc&) {
    ::shutdown(link_->fd(), SHUT_RDWR);
}

std::optional<Event> Driver::carry_out(Action action, const Attempt& attempt) {
    if (const auto message = message_of(action)) {
        say(*message, attempt);
        return std::nullopt;
    }
    if (const auto record = record_of(action)) {
        const auto outcome =
            records_.write({.attempt = attempt, .state = *record, .peer = peer_, .guest = guest_});
        if (outcome.event != Event::kWritten) why_ = outcome.error.what;
        return outcome.event;
    }
    switch (action) {
        case Action::kNone:
        case Action::kTakeEpoch: return std::nullopt;
        case Action::kEraseRecord:
            if (const auto erased = records_.erase(); !erased) {
                vmm::log_warn("move", "%s", erased.error().what.c_str());
            }
            return std::nullopt;
        default: return act_(action);
    }
}

}  // namespace migration
