// The toolstack's side of control/shutdown (docs/misc/xenstore-paths.pandoc of Xen): a word that
// asks the guest to end or to suspend itself, and that the guest takes away when it has understood.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <utility>

#include "xenshim/domain/xenstore/host.h"

namespace devices::pv {

// All functions but is_taken() are for one thread at a time: the event loop's, or another's while
// that is at rest.
class ShutdownRequest {
  public:
    // `taken`: the guest has taken the word; on the thread on which it did.
    ShutdownRequest(xenshim::xenstore::Store& store, xenshim::xenstore::DomainId domid,
                    std::function<void()> taken)
        : domid_(domid),
          control_(xenshim::xenstore::domain_path(domid) + "/control"),
          taken_(std::move(taken)),
          host_(store) {}

    // Instead of what was asked for before.
    xenshim::xenstore::StoreResult<void> ask(const std::string& word) {
        using xenshim::xenstore::Access;
        withdraw();
        // The guest may have removed the node, which it owns: then it gets a new one.
        if (host_.read(node())) {
            TRY(host_.write(node(), word));
        } else {
            TRY(host_.write(node(), word, {{domid_, Access::kNone}}));
        }
        is_taken_ = false;
        watch_ = TRY(host_.watch(node(), [this, word](const std::string&) {
            if (is_there(word) || is_taken_.exchange(true)) return;
            taken_();
        }));
        word_ = word;
        return {};
    }

    // Any thread: whether the guest has taken the word that was asked for last.
    bool is_taken() const { return is_taken_; }

    // Nothing is asked for any more. False: the guest had taken the word.
    bool withdraw() {
        if (word_.empty()) return false;
        host_.unwatch(watch_);
        // A guest that takes it in a transaction, as Linux does, will find that it was changed.
        const bool there = !is_taken_ && is_there(word_);
        if (there) static_cast<void>(host_.write(node(), ""));
        word_.clear();
        return there;
    }

    // Whether the guest says that it can do it ("suspend", "poweroff", "reboot").
    bool offered(const std::string& word) {
        const auto found = host_.read(control_ + "/feature-" + word);
        return found && *found == "1";
    }

  private:
    std::string node() const { return control_ + "/shutdown"; }
    bool is_there(const std::string& word) {
        const auto found = host_.read(node());
        return found && *found == word;
    }

    const xenshim::xenstore::DomainId domid_;
    const std::string control_;
    const std::function<void()> taken_;
    std::string word_;  // empty: nothing is asked for
    std::atomic<bool> is_taken_{false};
    xenshim::xenstore::WatchId watch_ = 0;
    xenshim::xenstore::HostClient host_;
};

}  // namespace devices::pv
