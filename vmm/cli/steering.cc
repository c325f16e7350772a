#include "vmm/cli/steering.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "control/json.h"
#include "xenshim/transport/describe.h"

namespace vmm::cli {
namespace {

using control::refusal;
using control::Response;
using nlohmann::ordered_json;

std::string utc(std::time_t at) {
    std::tm parts{};
    ::gmtime_r(&at, &parts);
    std::array<char, 32> text{};
    std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
    return text.data();
}

Response answer_of(const ordered_json& value) {
    return {.status = 200, .body = control::to_text(value)};
}

// Text, because JSON's numbers end at 2^53 with most readers.
std::string hex(std::uint64_t value) {
    std::array<char, 24> text{};
    std::snprintf(text.data(), text.size(), "0x%llx", static_cast<unsigned long long>(value));
    return text.data();
}

ordered_json to_json(const kvm::SegmentRegister& segment) {
    return {{"selector", hex(segment.selector)},
            {"base", hex(segment.state.base)},
            {"limit", hex(segment.state.limit)},
            {"attributes", hex(segment.state.attributes)}};
}

ordered_json to_json(const kvm::TableRegister& table) {
    return {{"base", hex(table.base)}, {"limit", hex(table.limit)}};
}

std::string_view state_name(kvm::MpState state) {
    switch (state) {
        case kvm::MpState::kRunnable: return "runnable";
        case kvm::MpState::kUninitialized: return "down";
        case kvm::MpState::kInitReceived: return "init-received";
        case kvm::MpState::kHalted: return "halted";
        case kvm::MpState::kSipiReceived: return "sipi-received";
        case kvm::MpState::kOther: break;
    }
    return "other";
}

std::string_view mode_name(const kvm::Registers& r) {
    constexpr std::uint64_t kCr0Pe = 1, kCr0Pg = std::uint64_t{1} << 31, kCr4Pae = 1u << 5;
    constexpr std::uint64_t kEferLma = 1u << 10, kFlagsVm = 1u << 17;
    constexpr unsigned kCodeLong = 1u << 9;
    if ((r.efer & kEferLma) != 0) {
        return (r.cs.state.attributes & kCodeLong) != 0 ? "64-bit" : "compatibility";
    }
    if ((r.cr0 & kCr0Pe) == 0) return "real";
    if ((r.rflags & kFlagsVm) != 0) return "virtual-8086";
    if ((r.cr0 & kCr0Pg) == 0) return "protected";
    return (r.cr4 & kCr4Pae) != 0 ? "protected-pae" : "protected-paged";
}

ordered_json to_json(const xenshim::PendingHypercall& pending,
                     const xenshim::abi::Profile& profile) {
    const auto words = xenshim::describe_hypercall(profile, pending.request, pending.read);
    ordered_json call = {{"instruction", pending.instruction},
                         {"profile", profile.name},
                         {"width", pending.request.width == xenshim::abi::Width::k64 ? 64 : 32},
                         {"number", words.number},
                         {"name", words.name}};
    if (!words.operation.empty()) call["operation"] = words.operation;
    for (const std::uint64_t arg : pending.request.args) {
        call["args"].push_back(hex(arg));
    }
    if (words.done) call["done"] = *words.done;
    if (words.left) call["left"] = *words.left;
    return call;
}

constexpr std::array<const char*, 16> kGeneral = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp",
                                                  "rsi", "rdi", "r8",  "r9",  "r10", "r11",
                                                  "r12", "r13", "r14", "r15"};

Result<ordered_json> vcpu_to_json(Machine& machine, unsigned index,
                                  const xenshim::abi::Profile& profile) {
    kvm::Vcpu& vcpu = machine.vcpu(index).vcpu();
    const kvm::Registers r = TRY(vcpu.registers());
    ordered_json out;
    out["vcpu"] = index;
    out["state"] = state_name(vcpu.mp_state());
    out["mode"] = mode_name(r);
    out["cpl"] = vcpu.cpl();
    out["rip"] = hex(r.rip);
    out["rflags"] = hex(r.rflags);
    for (std::size_t i = 0; i < kGeneral.size(); ++i) {
        out[kGeneral[i]] = hex(r.gpr[i]);
    }
    out["cr0"] = hex(r.cr0);
    out["cr2"] = hex(r.cr2);
    out["cr3"] = hex(r.cr3);
    out["cr4"] = hex(r.cr4);
    out["cr8"] = hex(r.cr8);
    out["efer"] = hex(r.efer);
    out["apic_base"] = hex(r.apic_base);
    out["cs"] = to_json(r.cs);
    out["ss"] = to_json(r.ss);
    out["ds"] = to_json(r.ds);
    out["es"] = to_json(r.es);
    out["fs"] = to_json(r.fs);
    out["gs"] = to_json(r.gs);
    out["tr"] = to_json(r.tr);
    out["ldt"] = to_json(r.ldt);
    out["gdt"] = to_json(r.gdt);
    out["idt"] = to_json(r.idt);
    if (const auto pending = xenshim::pending_hypercall(machine.memory().guest(), vcpu, r)) {
        out["hypercall"] = to_json(*pending, profile);
    }
    return out;
}

}  // namespace

namespace {

constexpr std::string_view kMoveIsOpen =
    "it is not known yet where the guest goes on: let xenolith migrate ask the other side again";
constexpr std::string_view kMoveIsPromised =
    "the guest was promised to the other side, which alone says now where it goes on";
constexpr std::string_view kIsMoved =
    "the guest is being moved: until that is over it can only be listed, or destroyed";
constexpr std::string_view kIsSaved =
    "the guest is being saved: until that is over it can only be listed, or destroyed";
constexpr std::array<std::string_view, 4> kMigrateParameters{"link", "cancel", "cooperative",
                                                             "timeout"};
constexpr std::array<std::string_view, 4> kSaveParameters{"file", "leave_running", "cooperative",
                                                          "timeout"};
constexpr std::array<std::string_view, 2> kShutdownParameters{"action", "timeout"};

// How long a guest may take to do what it is asked, in seconds.
constexpr std::uint64_t kPatience = 60, kMostPatience = 24 * 60 * 60;

std::optional<std::chrono::seconds> patience_in(const ordered_json& parameters) {
    const auto found = parameters.find("timeout");
    if (found == parameters.end()) return std::chrono::seconds(kPatience);
    if (!found->is_number_unsigned()) return std::nullopt;
    const auto seconds = found->get<std::uint64_t>();
    if (seconds == 0 || seconds > kMostPatience) return std::nullopt;
    return std::chrono::seconds(seconds);
}

// Of what is asked of the guest itself first; nothing where it is not asked.
struct Cooperation {
    std::optional<std::chrono::seconds> patience;
    std::optional<Response> refused;
};

Response bad_timeout() {
    return refusal(400, "timeout is a number of seconds, 1 to " + std::to_string(kMostPatience));
}

Cooperation cooperation_in(const ordered_json& parameters) {
    const auto wanted = parameters.find("cooperative");
    if (wanted != parameters.end() && !wanted->is_boolean()) {
        return {.patience = {}, .refused = refusal(400, "cooperative is true or false")};
    }
    if (wanted == parameters.end() || !wanted->get<bool>()) {
        if (!parameters.contains("timeout")) return {};
        return {.patience = {}, .refused = refusal(400, "timeout belongs to cooperative")};
    }
    const auto patience = patience_in(parameters);
    if (!patience) return {.patience = {}, .refused = bad_timeout()};
    return {.patience = patience, .refused = {}};
}

// While one lives nobody but us looks at the guest's xenstore.
class LoopAtRest {
  public:
    explicit LoopAtRest(EventLoop& loop) : loop_(loop) { loop_.stop(); }
    ~LoopAtRest() { loop_.start(); }
    LoopAtRest(const LoopAtRest&) = delete;
    LoopAtRest& operator=(const LoopAtRest&) = delete;

  private:
    EventLoop& loop_;
};

}  // namespace

const Steering::Route Steering::kRoutes[] = {
    {.method = "GET", .target = "/v1/vm", .act = &Steering::show, .always = true},
    {"GET", "/v1/vm/regs", &Steering::registers},
    {"PUT", "/v1/vm/pause", &Steering::pause},
    {"PUT", "/v1/vm/unpause", &Steering::unpause},
    {.method = "PUT", .target = "/v1/vm/destroy", .act = &Steering::destroy, .always = true},
    {"PUT", "/v1/vm/save", &Steering::save, kSaveParameters},
    {"PUT", "/v1/vm/migrate", &Steering::migrate, kMigrateParameters},
    {"PUT", "/v1/vm/shutdown", &Steering::shutdown, kShutdownParameters},
};

Steering::Steering(Machine& machine, xenshim::XenPlatform& platform, VmFacts facts, Save save,
                   Migrate migrate, Asking asking, LongTask& task)
    : machine_(machine),
      platform_(platform),
      facts_(std::move(facts)),
      save_(std::move(save)),
      migrate_(std::move(migrate)),
      asking_(asking),
      task_(task),
      started_(std::time(nullptr)) {}

void Steering::serve(ControlPoint& point) {
    while (auto call = point.take()) {
        if (auto response = respond(call->request, call->ticket)) {
            point.answer(call->ticket, *std::move(response));
        }
    }
}

std::optional<Response> Steering::respond(const control::Request& request, control::Ticket ticket) {
    std::string allow;
    for (const Route& route : kRoutes) {
        if (route.target != request.target) continue;
        if (route.method != request.method) {
            allow += (allow.empty() ? "" : ", ") + std::string(route.method);
            continue;
        }
        auto parameters = ordered_json::object();
        if (!request.body.empty()) parameters = ordered_json::parse(request.body, nullptr, false);
        if (!parameters.is_object()) return refusal(400, "the request's body is no JSON object");
        for (const auto& [name, value] : parameters.items()) {
            if (std::ranges::find(route.parameters, name) == route.parameters.end()) {
                return refusal(400, request.target + " takes no parameter " + name);
            }
        }
        if (under_way_ && !route.always) {
            return refusal(409, under_way_->kind == UnderWay::Kind::kSave ? kIsSaved : kIsMoved);
        }
        return (this->*route.act)(parameters, ticket);
    }
    if (allow.empty()) return refusal(404, "there is no " + request.target);
    Response response = refusal(405, request.target + " is not for " + request.method);
    response.allow = allow;
    return response;
}

Response Steering::describe() const {
    const bool saving = under_way_ && under_way_->kind == UnderWay::Kind::kSave;
    const bool moving = is_open() || (under_way_ && under_way_->kind == UnderWay::Kind::kMove);
    ordered_json vm = {{"name", facts_.name},
                       {"uuid", facts_.uuid},
                       {"domid", facts_.domid},
                       {"state", machine_.stopping() ? "ending"
                                 : moving            ? "moving"
                                 : saving            ? "saving"
                                 : machine_.paused() ? "paused"
                                                     : "running"},
                       {"type", facts_.type},
                       {"profile", facts_.profile},
                       {"transport", facts_.transport},
                       {"vcpus", facts_.vcpus},
                       {"memory", facts_.memory_bytes},
                       {"pid", ::getpid()},
                       {"started", utc(started_)}};
    if (moving) vm["link"] = under_way_.has_value();
    if (under_way_) vm["bytes"] = task_.bytes();
    return answer_of(vm);
}

std::optional<Response> Steering::show(const Parameters&, control::Ticket) {
    return describe();
}

void Steering::stop_guest() {
    stopped_at_ns_ = machine_.system_time_ns();
    machine_.pause();
}

void Steering::stop_if_it_runs() {
    if (!machine_.paused()) stop_guest();
}

void Steering::stood_still() {
    if (stopped_at_ns_) {
        const std::uint64_t now = machine_.system_time_ns();
        platform_.domain().delay_watchdogs(now - std::min(now, *stopped_at_ns_));
    }
    stopped_at_ns_.reset();
}

void Steering::let_guest_go() {
    stood_still();
    machine_.resume();
}

std::optional<Response> Steering::pause(const Parameters&, control::Ticket) {
    if (is_open()) return refusal(409, kMoveIsOpen);
    if (!machine_.paused()) stop_guest();
    if (machine_.stopping()) return refusal(409, "the guest has ended");
    return describe();
}

std::optional<Response> Steering::unpause(const Parameters&, control::Ticket) {
    if (machine_.stopping()) return refusal(409, "the guest has ended");
    if (is_open()) return refusal(409, kMoveIsOpen);
    if (machine_.paused()) let_guest_go();
    return describe();
}

std::optional<Response> Steering::destroy(const Parameters&, control::Ticket ticket) {
    if (!under_way_) return destroy_now();
    if (is_open() || task_.is_promised()) return refusal(409, kMoveIsPromised);
    under_way_->destroyers.push_back(ticket);
    task_.tell_to_end();
    return std::nullopt;
}

Response Steering::destroy_now() {
    // One that goes on elsewhere, or may, is not ours.
    if (is_open() || moved_) return refusal(409, kMoveIsPromised);
    destroyed_ = true;
    machine_.stop({.kind = StopCause::Kind::kRequested});
    return describe();
}

void Steering::end_guest() {
    if (under_way_) {
        end_wanted_ = true;
        task_.tell_to_end();
    } else {
        machine_.stop({.kind = StopCause::Kind::kRequested});
    }
}

// ---- what takes long ----------------------------------------------------------------------------

void Steering::attend(ControlPoint& point) {
    const bool over = task_.attend();
    if (under_way_) refuse_if_promised(point);
    if (over) conclude(point);
}

// Who came a moment too late.
void Steering::refuse_if_promised(ControlPoint& point) {
    if (!task_.is_promised()) return;
    for (const control::Ticket ticket : under_way_->destroyers) {
        point.answer(ticket, refusal(409, kMoveIsPromised));
    }
    under_way_->destroyers.clear();
}

void Steering::conclude(ControlPoint& point) {
    refuse_if_promised(point);
    if (!under_way_->destroyers.empty()) end_wanted_ = true;
    // Before it is forgotten: a guest that is to end is not let go first.
    Response response = under_way_->conclude();
    const UnderWay done = *std::move(under_way_);
    under_way_.reset();
    point.answer(done.ticket, std::move(response));
    for (const control::Ticket ticket : done.destroyers) {
        point.answer(ticket, destroy_now());
    }
    if (end_wanted_) machine_.stop({.kind = StopCause::Kind::kRequested});
}

std::optional<Response> Steering::registers(const Parameters&, control::Ticket) {
    const bool was_paused = machine_.paused();
    if (!was_paused) stop_guest();
    Response response;
    if (machine_.stopping()) {
        response = refusal(409, "the guest has ended");
    } else {
        ordered_json all = {{"name", facts_.name},
                            {"state", was_paused ? "paused" : "running"},
                            {"profile", facts_.profile},
                            {"vcpus", ordered_json::array()}};
        response = {};
        for (unsigned v = 0; v < machine_.vcpus() && response.status == 200; ++v) {
            const auto vcpu = vcpu_to_json(machine_, v, platform_.domain().profile());
            if (vcpu) {
                all["vcpus"].push_back(*vcpu);
            } else {
                response = refusal(500, vcpu.error().what);
            }
        }
        if (response.status == 200) response = answer_of(all);
    }
    if (!was_paused) let_guest_go();
    return response;
}

// Answered when the file is on the disk. The guest ends only then; whatever goes wrong, it is as it
// was before.
std::optional<Response> Steering::save(const Parameters& parameters, control::Ticket ticket) {
    const auto file = parameters.find("file");
    if (file == parameters.end() || !file->is_string() ||
        !file->get_ref<const std::string&>().starts_with('/')) {
        return refusal(400, "save needs a file, by its whole path");
    }
    AfterSave after = AfterSave::kEnd;
    if (const auto leave = parameters.find("leave_running"); leave != parameters.end()) {
        if (!leave->is_boolean()) return refusal(400, "leave_running is true or false");
        if (leave->get<bool>()) after = AfterSave::kGoOn;
    }
    if (is_open()) return refusal(409, kMoveIsOpen);
    if (waiting_) return asked_already();
    const Cooperation cooperation = cooperation_in(parameters);
    if (cooperation.refused) return *cooperation.refused;
    if (cooperation.patience) {
        return ask_guest({.ticket = ticket,
                          .word = "suspend",
                          .patience = *cooperation.patience,
                          .end = {},
                          .file = file->get<std::string>(),
                          .after = after,
                          .link = {}});
    }
    if (machine_.stopping()) return refusal(409, "the guest has ended");
    begin_save(file->get<std::string>(), after, machine_.paused(), ticket);
    return std::nullopt;
}

// It is stopped only when nothing else is to be waited for.
void Steering::begin_save(const std::string& file, AfterSave after, bool was_paused,
                          control::Ticket ticket) {
    const auto report = std::make_shared<Result<SaveReport>>(SaveReport{});
    under_way_ =
        UnderWay{.kind = UnderWay::Kind::kSave,
                 .ticket = ticket,
                 .conclude = [=, this] { return conclude_save(*report, file, after, was_paused); },
                 .destroyers = {}};
    task_.start([=, this] {
        *report =
            save_(file, after, [this] { task_.on_control_thread([this] { stop_if_it_runs(); }); });
    });
}

Response Steering::conclude_save(const Result<SaveReport>& report, const std::string& file,
                                 AfterSave after, bool was_paused) {
    if (report && after == AfterSave::kEnd) {
        saved_ = true;
        machine_.stop({.kind = StopCause::Kind::kRequested});
    } else {
        wake_suspended();
        if (!was_paused && !end_wanted_) let_guest_go();
    }
    if (!report && end_wanted_) return refusal(409, "the guest was ended before it was saved");
    if (report) return answer_of({{"file", file}, {"bytes", report->bytes}});
    return refusal(report.error().fault == Fault::kUser ? 400 : 500, report.error().what);
}

// One that has suspended itself, and stays.
void Steering::wake_suspended() {
    const auto vcpu = platform_.domain().suspended();
    if (!vcpu) return;
    // As the toolstack does it: in the register of the call, which is over.
    machine_.vcpu(*vcpu).vcpu().set(kvm::Reg::kRax, xenshim::Domain::kSuspendCancelled);
    platform_.domain().go_on_here();
    machine_.release();
}

// Answered when it is known where the guest goes on, or when the link is lost before that.
std::optional<Response> Steering::migrate(const Parameters& parameters, control::Ticket ticket) {
    const auto link = parameters.find("link");
    if (link == parameters.end() || !link->is_string()) {
        return refusal(400, "migrate needs a link");
    }
    bool cancel = false;
    if (const auto wanted = parameters.find("cancel"); wanted != parameters.end()) {
        if (!wanted->is_boolean()) return refusal(400, "cancel is true or false");
        cancel = wanted->get<bool>();
    }
    if (machine_.stopping()) return refusal(409, "the guest has ended");
    if (waiting_) return asked_already();
    if (cancel && !is_open() && !is_untold_) return refusal(409, "the guest is not being moved");
    const Cooperation cooperation = cooperation_in(parameters);
    if (cooperation.refused) return *cooperation.refused;
    if (cooperation.patience && !is_open() && !cancel) {
        return ask_guest({.ticket = ticket,
                          .word = "suspend",
                          .patience = *cooperation.patience,
                          .end = {},
                          .file = {},
                          .after = {},
                          .link = link->get<std::string>()});
    }
    begin_move(link->get<std::string>(), cancel, ticket);
    return std::nullopt;
}

void Steering::begin_move(const std::string& link, bool cancel, control::Ticket ticket) {
    const Before before = before_move_.value_or(machine_.paused() ? Before::kPaused : Before::kRan);
    // Of a move that is over here: the guest has nothing to do with it.
    const bool only_tells = cancel && !is_open();
    const auto report = std::make_shared<Result<MoveReport>>(MoveReport{});
    under_way_ =
        UnderWay{.kind = only_tells ? UnderWay::Kind::kTell : UnderWay::Kind::kMove,
                 .ticket = ticket,
                 .conclude = [=, this] { return conclude_move(*report, before, only_tells); },
                 .destroyers = {}};
    task_.start([=, this] {
        *report = migrate_(link, cancel,
                           [this] { task_.on_control_thread([this] { stop_if_it_runs(); }); });
    });
}

Response Steering::conclude_move(const Result<MoveReport>& report, Before before, bool only_tells) {
    using Outcome = MoveReport::Outcome;
    if (!report) {
        if (!is_open() && !only_tells) wake_suspended();
        return refusal(report.error().fault == Fault::kUser ? 400 : 500, report.error().what);
    }
    before_move_.reset();
    is_untold_ = !report->told;
    if (report->outcome == Outcome::kKept) {
        if (machine_.stopping()) return refusal(409, "the guest has ended");
        if (end_wanted_) return refusal(409, "the guest was ended before it was moved");
    }
    switch (report->outcome) {
        case Outcome::kGone:
            moved_ = true;
            machine_.stop({.kind = StopCause::Kind::kRequested});
            break;
        case Outcome::kKept:
            if (only_tells) break;
            wake_suspended();
            if (before == Before::kRan && machine_.paused()) let_guest_go();
            break;
        case Outcome::kOpen: before_move_ = before; break;
    }
    constexpr std::array<std::string_view, 3> kOutcomes{"gone", "kept", "open"};
    return answer_of({{"outcome", kOutcomes[static_cast<std::size_t>(report->outcome)]},
                      {"state", report->state},
                      {"told", report->told},
                      {"why", report->why},
                      {"bytes", report->bytes},
                      {"blackout_ns", report->blackout.count()}});
}

// ---- what the guest does by itself --------------------------------------------------------------

std::optional<Response> Steering::shutdown(const Parameters& parameters, control::Ticket ticket) {
    std::string word = "poweroff";
    if (const auto action = parameters.find("action"); action != parameters.end()) {
        if (*action != "poweroff" && *action != "reboot") {
            return refusal(400, "action is poweroff or reboot");
        }
        word = action->get<std::string>();
    }
    const auto patience = patience_in(parameters);
    if (!patience) return bad_timeout();
    if (waiting_) return asked_already();
    return ask_guest({.ticket = ticket,
                      .word = word,
                      .patience = *patience,
                      .end = {},
                      .file = {},
                      .after = {},
                      .link = {}});
}

Response Steering::asked_already() const {
    return refusal(409, "the guest was asked for " + waiting_->word + " already");
}

std::optional<Response> Steering::ask_guest(Waiting waiting) {
    if (machine_.stopping()) return refusal(409, "the guest has ended");
    if (is_open()) return refusal(409, kMoveIsOpen);
    if (machine_.paused()) return refusal(409, "the guest is paused: it cannot answer");
    // Before it is asked: it may be quick.
    if (waiting.word == "suspend") platform_.domain().expect_suspend();
    const LoopAtRest rest(asking_.loop);
    if (const auto asked = asking_.request.ask(waiting.word); !asked) {
        if (waiting.word == "suspend") platform_.domain().give_up_suspend();
        return refusal(500,
                       std::string("xenstore: ") + xenshim::xenstore::error_name(asked.error()));
    }
    waiting.end = Clock::now() + waiting.patience;
    waiting_ = std::move(waiting);
    return std::nullopt;
}

void Steering::look_at_guest(ControlPoint& point) {
    if (!waiting_ || machine_.stopping()) return;
    const Waiting waiting = *waiting_;
    const auto answer = [&](Response response) {
        waiting_.reset();
        point.answer(waiting.ticket, std::move(response));
    };
    if (platform_.domain().suspended()) {
        {
            // One that has not taken the word shall not find it when it wakes up.
            const LoopAtRest rest(asking_.loop);
            asking_.request.withdraw();
        }
        if (!waiting.link.empty()) {
            waiting_.reset();
            return begin_move(waiting.link, false, waiting.ticket);
        }
        const bool was_paused = machine_.paused();
        if (!was_paused) stop_guest();
        if (machine_.stopping()) return;  // after all
        waiting_.reset();
        return begin_save(waiting.file, waiting.after, was_paused, waiting.ticket);
    }
    if (waiting.word != "suspend" && asking_.request.is_taken()) {
        const LoopAtRest rest(asking_.loop);
        asking_.request.withdraw();
        return answer(describe());
    }
    if (Clock::now() >= waiting.end) {
        if (waiting.word == "suspend" && !platform_.domain().give_up_suspend()) {
            return look_at_guest(point);  // just now
        }
        answer(give_up(waiting));
    }
}

Response Steering::give_up(const Waiting& waiting) {
    const LoopAtRest rest(asking_.loop);
    std::string why = "the guest did not " + waiting.word + " within " +
                      std::to_string(waiting.patience.count()) + " s, and goes on";
    if (asking_.request.withdraw()) {
        why += ": it has not taken the request";
        if (!asking_.request.offered(waiting.word)) {
            why += ", and has not said that it can (control/feature-" + waiting.word + ")";
        }
    }
    return refusal(409, why);
}

void Steering::end(ControlPoint& point) {
    if (under_way_) {
        task_.tell_to_end();
        task_.finish();
        conclude(point);
    }
    if (!waiting_) return;
    // Whoever asked it to end has what he wants.
    point.answer(waiting_->ticket, waiting_->word == "suspend"
                                       ? refusal(409, "the guest has ended instead")
                                       : describe());
    waiting_.reset();
}

}  // namespace vmm::cli
