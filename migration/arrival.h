// The destination's part of a move, from the source's greeting until the source knows how it ended:
// what the guest comes out of, who is heard, and when the guest is ours. Who makes a VM of it, and
// where links come from, is the caller's.
#pragma once

#include <array>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "migration/driver.h"
#include "migration/link.h"
#include "vmm/base/fd.h"

namespace migration {

// Where a link comes in after the first was lost. Closed when nobody is expected any more.
class FurtherLinks {
  public:
    virtual ~FurtherLinks() = default;
    // What the operator calls the place.
    virtual const std::string& name() const = 0;
    // To wait at; -1: none.
    virtual std::array<int, 2> fds() const = 0;
    virtual std::optional<vmm::Fd> accept() = 0;
};

// This side's records of one guest, locked; the reason why not is told to the source.
using OpenRecords = std::function<vmm::Result<Records>(const VmId& vm)>;

// Tells the source that nothing came of it, and gives the reason back as a failure.
vmm::Result<void> refuse(Link& link, const Attempt& attempt, const std::string& why);

// A RESUME of a move that no living process here has in hand: from what is on the disk.
vmm::Result<void> answer_from_records(Link& link, const Frame& greeting, const OpenRecords& open);

class Arrival {
  public:
    // `greeting`: a BEGIN that came out of `link`, which is welcomed unless that fails.
    static vmm::Result<std::unique_ptr<Arrival>> begin(std::unique_ptr<FurtherLinks> further,
                                                       Link link, const Frame& greeting,
                                                       const OpenRecords& open);
    ~Arrival();
    Arrival(const Arrival&) = delete;
    Arrival& operator=(const Arrival&) = delete;

    const Attempt& attempt() const { return driver_->attempt(); }
    // The guest.
    format::Source& stream() { return *stream_; }
    // Until it is ours, what comes out of stream() ends when `signals` is readable, and so does
    // whatever waits for the source.
    void heed(int signals);
    // It cannot be ours, and the source hears why.
    void give_up(const std::string& why);
    bool is_receiving() const { return !ours_ && driver_->state() == State::kReceiving; }
    // All of it is here. Returns when it is ours; a failure: it never will be. `signals` becomes
    // readable when it shall be given back.
    vmm::Result<void> take_over(int signals);
    // A newer attempt of this guest's that has come in meanwhile, after take_over() failed because
    // of that: its BEGIN has no answer yet. What it needs of ours is free when we are gone.
    struct Successor {
        std::unique_ptr<FurtherLinks> further;
        Link link;
        Frame greeting;
    };
    std::optional<Successor> take_successor() { return std::exchange(successor_, std::nullopt); }
    // The source should know by now; what it has not heard, the record will tell it.
    void settle();

  private:
    Arrival(std::unique_ptr<FurtherLinks> further, Link link)
        : further_(std::move(further)), link_(std::move(link)) {}
    bool serve(int other);
    void end_late();
    void serve_late();
    bool is_heard(Link& caller);
    void take_link(Link link, const Frame& greeting);
    bool is_superseded_by(const Frame& greeting) const;

    std::unique_ptr<FurtherLinks> further_;
    std::optional<Link> link_;
    std::vector<Link> callers_;  // who have not said all of their greeting
    std::unique_ptr<Driver> driver_;
    std::optional<LinkSource> stream_;
    std::optional<Successor> successor_;
    int heeded_ = -1;
    bool ours_ = false;
    // Until the source knows: whoever lost its link may ask again.
    vmm::Fd stop_;
    std::thread late_;
    std::mutex mutex_;
    std::condition_variable changed_;
    bool late_begins_ = false;
    bool over_ = false;
};

}  // namespace migration
