// What the requests on a control socket do to a VM. Only the control thread, the one that runs the
// VM, calls this. A save and a move are done beside it, by a LongTask, so that it goes on
// answering.
#pragma once

#include <chrono>
#include <cstdint>
#include <ctime>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "devices/pv/shutdown_request.h"
#include "vmm/cli/control_point.h"
#include "vmm/cli/long_task.h"
#include "vmm/machine/event_loop.h"
#include "vmm/machine/machine.h"
#include "xenshim/transport/xen_platform.h"

namespace vmm::cli {

// What does not change while a VM lives.
struct VmFacts {
    std::string name;
    std::string uuid;
    unsigned domid = 0;
    std::string type;
    std::string profile;
    std::string transport;
    unsigned vcpus = 0;
    std::uint64_t memory_bytes = 0;
};

// What became of a file that a VM was saved to.
struct SaveReport {
    std::uint64_t bytes = 0;  // its length
};
enum class AfterSave { kEnd, kGoOn };

// How far it came over one link to another host.
struct MoveReport {
    enum class Outcome {
        kGone,  // it goes on there
        kKept,  // it goes on here
        kOpen,  // the other side has to be asked: until then it stands still
    };
    std::string state;  // of migration/ownership.h
    Outcome outcome = Outcome::kOpen;
    bool told = true;                      // of kKept: the other side does not wait for it any more
    std::string why;                       // empty: nothing went wrong
    std::uint64_t bytes = 0;               // of the guest, sent
    std::chrono::nanoseconds blackout{0};  // so long it stood still by now
};

class Steering {
  public:
    // Both are the task's work, which says there how far it is, and ends early if it is told to.
    // Writes all of a VM. `stop` stops the guest, which may run until it is called.
    using Save = std::function<Result<SaveReport>(const std::string& path, AfterSave after,
                                                  const std::function<void()>& stop)>;
    // `link`: of the links' folder. `stop` stops the guest, which runs until it is called.
    using Migrate = std::function<Result<MoveReport>(const std::string& link, bool cancel,
                                                     const std::function<void()>& stop)>;

    // What the guest is asked by itself, and the loop on whose thread it answers.
    struct Asking {
        devices::pv::ShutdownRequest& request;
        EventLoop& loop;
    };

    Steering(Machine& machine, xenshim::XenPlatform& platform, VmFacts facts, Save save,
             Migrate migrate, Asking asking, LongTask& task);

    // The guest, which does not run yet, stands still since its clock showed this (ns).
    void stands_since(std::uint64_t system_ns) { stopped_at_ns_ = system_ns; }
    // It goes on: its watchdogs get back the time for which it stood still.
    void stood_still();
    // Answers every call that waits.
    void serve(ControlPoint& point);
    // Does what the task asks for, and answers who waits for it when it is over.
    void attend(ControlPoint& point);
    // Answers the call that waits for the guest, when the guest has done it or has had its time.
    // Once in a while, and when the machine is held or the guest has taken what it was asked.
    void look_at_guest(ControlPoint& point);
    // The process is told to end, and the guest with it: at once, or as soon as the task lets go of
    // it. A move that was promised stays so, and its record.
    void end_guest();
    // The guest has ended: whoever waits for it is told, and the task ends.
    void end(ControlPoint& point);
    // A client wants the VM to end; the machine has been told to stop.
    bool destroyed() const { return destroyed_; }
    // It is in a file, and the machine has been told to stop.
    bool saved() const { return saved_; }
    // It is another host's, and the machine has been told to stop.
    bool moved() const { return moved_; }

  private:
    using Parameters = nlohmann::ordered_json;  // an object
    // Nothing: the ticket is kept, and answered later.
    using Action = std::optional<control::Response> (Steering::*)(const Parameters& parameters,
                                                                  control::Ticket ticket);
    using Clock = std::chrono::steady_clock;
    // What the guest did before a move.
    enum class Before { kRan, kPaused };
    // A call that is answered when the guest has done what it was asked.
    struct Waiting {
        control::Ticket ticket = 0;
        std::string word;  // as control/shutdown has it
        std::chrono::seconds patience{};
        Clock::time_point end;
        // "suspend": then the guest is saved, or moved over this link.
        std::string file;
        AfterSave after = AfterSave::kEnd;
        std::string link;
    };
    struct Route {
        std::string_view method;
        std::string_view target;
        Action act;
        // The names of those that it takes.
        std::span<const std::string_view> parameters = {};
        // Also while the guest is being saved or moved.
        bool always = false;
    };
    static const Route kRoutes[];
    // What the task does.
    struct UnderWay {
        enum class Kind { kSave, kMove, kTell };
        Kind kind = Kind::kSave;
        control::Ticket ticket = 0;
        std::function<control::Response()> conclude;  // when it is over
        std::vector<control::Ticket> destroyers;      // who want the guest ended then
    };

    std::optional<control::Response> respond(const control::Request& request,
                                             control::Ticket ticket);
    std::optional<control::Response> show(const Parameters&, control::Ticket);
    std::optional<control::Response> pause(const Parameters&, control::Ticket);
    std::optional<control::Response> unpause(const Parameters&, control::Ticket);
    std::optional<control::Response> destroy(const Parameters&, control::Ticket ticket);
    std::optional<control::Response> registers(const Parameters&, control::Ticket);
    std::optional<control::Response> save(const Parameters& parameters, control::Ticket ticket);
    std::optional<control::Response> migrate(const Parameters& parameters, control::Ticket ticket);
    bool is_open() const { return before_move_.has_value(); }
    std::optional<control::Response> shutdown(const Parameters& parameters, control::Ticket ticket);
    std::optional<control::Response> ask_guest(Waiting waiting);
    void begin_save(const std::string& file, AfterSave after, bool was_paused,
                    control::Ticket ticket);
    control::Response conclude_save(const Result<SaveReport>& report, const std::string& file,
                                    AfterSave after, bool was_paused);
    void begin_move(const std::string& link, bool cancel, control::Ticket ticket);
    control::Response conclude_move(const Result<MoveReport>& report, Before before,
                                    bool only_tells);
    void conclude(ControlPoint& point);
    void refuse_if_promised(ControlPoint& point);
    control::Response destroy_now();
    void wake_suspended();
    control::Response give_up(const Waiting& waiting);
    control::Response asked_already() const;
    control::Response describe() const;
    void stop_guest();
    void stop_if_it_runs();
    void let_guest_go();

    Machine& machine_;
    xenshim::XenPlatform& platform_;
    const VmFacts facts_;
    const Save save_;
    const Migrate migrate_;
    const Asking asking_;
    LongTask& task_;
    std::optional<UnderWay> under_way_;
    std::optional<Waiting> waiting_;
    const std::time_t started_;
    std::optional<std::uint64_t> stopped_at_ns_;  // of the guest's system time
    bool end_wanted_ = false;                     // once the task is over
    bool destroyed_ = false;
    bool saved_ = false;
    bool moved_ = false;
    // Of a move of which it is not known yet how it ended.
    std::optional<Before> before_move_;
    bool is_untold_ = false;  // of one that ended here, MoveReport::told
};

}  // namespace vmm::cli
