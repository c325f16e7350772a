// Does what the table of ownership says (migration/ownership.h): sends the messages, keeps the
// record, and has its caller do what is done to the guest. One thread.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "migration/durable.h"
#include "migration/link.h"
#include "migration/ownership.h"

namespace migration {

class Driver {
  public:
    // Done to the guest or its locks; what is returned is told at once (kFailed, kLocked).
    using Act = std::function<std::optional<Event>(Action)>;

    // `peer`: with whom the attempt was begun; of a source that has not begun it is not known yet.
    // `guest`: what the record will say of how it is called.
    Driver(Ownership ownership, Records records, const Peer& peer, Act act, std::string guest = "")
        : ownership_(std::move(ownership)),
          records_(std::move(records)),
          peer_(peer),
          act_(std::move(act)),
          guest_(std::move(guest)) {}

    State state() const { return ownership_.state(); }
    const Attempt& attempt() const { return ownership_.attempt(); }
    // Why it did not come to what was wanted: this side's own reason, or the other's.
    const std::string& why() const { return why_; }
    void set_why(std::string why) { why_ = std::move(why); }

    // Called at each new state, before anything is done in it.
    void watch(std::function<void(State)> entered) { entered_ = std::move(entered); }

    // Messages go over `link` from now on; null: there is none, and they are lost.
    void use(Link* link) { link_ = link; }
    // False: the peer broke the protocol, or we did.
    bool on(Event event) { return perform(ownership_.on(event)); }
    // The last message that came.
    std::optional<Event> last_heard() const { return last_heard_; }
    // Waits for one message. When it does not come the link is lost, which is told to the table.
    bool take_message();
    // How sending the guest ended (Action::kSendRest), for what is told to the table. Of a guest of
    // which not all was sent PREPARED cannot be true: it is not waited for.
    std::optional<Event> rest_sent(const vmm::Result<void>& sent);
    const Peer& peer() const { return peer_; }
    const FolderId& folder_id() const { return records_.folder_id(); }
    // What a new process finds of an earlier one.
    void look_at_record();
    // The source's part over one link: from the first greeting, or from where an earlier link was
    // lost, until the attempt is over or this link is. `cancel`: the operator wants the guest back.
    // Of an attempt that is_untold(), until the other side knows.
    // A link that is told to end (Link::heed) ends the attempt before COMMIT, itself later.
    void depart(Link& link, bool cancel);
    // The source has kept a guest all of which the other side may have: it waits there, in the way
    // of others, until it is told.
    bool is_untold() const;

  private:
    bool perform(const Step& step);
    void heard(const Frame& frame);
    bool greet(Link& link, bool cancel);
    bool end_early();
    void lose_link(const std::string& why);
    void say(Event message, const Attempt& attempt);
    std::optional<Event> carry_out(Action action, const Attempt& attempt);

    Ownership ownership_;
    Records records_;
    Peer peer_;
    Act act_;
    std::string guest_;
    std::optional<Event> last_heard_;
    std::function<void(State)> entered_;
    Link* link_ = nullptr;
    bool is_losing_ = false;  // the link
    bool all_sent_ = false;   // of the guest
    bool is_known_ = false;   // to the other side: how the attempt ended
    std::string why_;
};

}  // namespace migration
