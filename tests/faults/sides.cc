#include "tests/faults/sides.h"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fcntl.h>
#include <functional>
#include <memory>
#include <new>
#include <poll.h>
#include <unistd.h>

#include <sys/socket.h>

#include "migration/arrival.h"
#include "migration/driver.h"
#include "migration/format/writer.h"
#include "migration/link.h"
#include "tests/fakes/golden_vm.h"
#include "tests/fakes/liar.h"
#include "vmm/cli/saved_vm.h"

namespace faults {
namespace {

using migration::Action;
using migration::Driver;
using migration::Event;
using migration::Frame;
using migration::Link;
using migration::Records;
using migration::State;
using vmm::Fd;
using vmm::Result;
namespace format = migration::format;

[[noreturn]] void die() {
    ::kill(::getpid(), SIGKILL);
    for (;;) {
        ::pause();
    }
}

// The system's calls, one of which fails or is the last.
class FailingCalls final : public format::FileCalls {
  public:
    FailingCalls(const Setup& setup, Side side)
        : plan_(setup.plan.call),
          page_(*setup.page),
          count_(setup.page->calls[static_cast<std::size_t>(side)]) {}

    int open(const char* path, int flags, mode_t mode) override {
        const int fd = call([&] { return system_.open(path, flags, mode); });
        return fd;
    }
    int kind(const char* path) override {
        return call([&] { return system_.kind(path); });
    }
    ssize_t pwrite(int fd, const void* bytes, std::size_t size, off_t offset) override {
        return call([&] { return system_.pwrite(fd, bytes, size, offset); });
    }
    void start_writing(int, off_t, off_t) override {}
    int fsync(int fd) override {
        return call([&] { return system_.fsync(fd); });
    }
    int link(int fd, const char* path) override {
        return call([&] { return system_.link(fd, path); });
    }
    int rename(const char* from, const char* to) override {
        return call([&] { return system_.rename(from, to); });
    }
    int unlink(const char* path) override {
        return call([&] { return system_.unlink(path); });
    }
    void close(int fd) override { system_.close(fd); }

  private:
    template <class Call>
    auto call(const Call& done) -> decltype(done()) {
        const std::uint32_t which = count_++;
        if (!plan_ || plan_->which != which) return done();
        ++page_.failed;
        if (!plan_->before) static_cast<void>(done());
        if (plan_->code == 0) die();
        errno = plan_->code;
        return -1;
    }

    format::FileCalls& system_ = format::system_file_calls();
    const std::optional<Plan::Call> plan_;
    Page& page_;
    std::atomic<std::uint32_t>& count_;
};

// As Records::open(), with these calls.
Result<Records> open_records(const Setup& setup, migration::Side side, const migration::VmId& vm,
                             format::FileCalls& calls) {
    auto locked = TRY(Records::open(setup.folder, side, vm));
    return std::move(locked).with(calls);
}

struct Told {
    Word word = Word::kLink;
    Fd link;
};
std::optional<Told> hear(int control) {
    char word = 0;
    iovec bytes{.iov_base = &word, .iov_len = 1};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> room{};
    msghdr message{};
    message.msg_iov = &bytes;
    message.msg_iovlen = 1;
    message.msg_control = room.data();
    message.msg_controllen = room.size();
    ssize_t n = 0;
    do {
        n = ::recvmsg(control, &message, MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    const cmsghdr* const with = CMSG_FIRSTHDR(&message);
    if (n != 1 || with == nullptr) return std::nullopt;
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(with), sizeof fd);
    return Told{static_cast<Word>(word), Fd(fd)};
}
void answer(int control, Outcome outcome) {
    const char word = static_cast<char>(outcome);
    if (::send(control, &word, 1, MSG_NOSIGNAL) != 1) std::_Exit(3);
}

// ---- the source ---------------------------------------------------------------------------------

// A link that carries lies, or that ends where the guest cannot be read.
class Telling final : public format::StreamSink {
  public:
    Telling(Link& link, std::optional<std::uint64_t> limit) : sink_(link), limit_(limit) {}
    Result<void> append(std::span<const format::Piece> pieces) override {
        for (const auto& piece : pieces) {
            written_ += piece.size();
        }
        if (limit_ && written_ > *limit_) {
            return vmm::errno_error("the guest's memory", vmm::Fault::kHost, ENOMEM);
        }
        return sink_.append(pieces);
    }

  private:
    migration::HeededSink sink_;
    std::optional<std::uint64_t> limit_;
    std::uint64_t written_ = 0;
};

Result<void> write_guest(format::StreamSink& sink, Guest& guest,
                         const migration::Attempt& attempt) {
    format::Writer writer(sink);
    TRY(fakes::write_golden_states(writer, attempt.vm, attempt.epoch));
    constexpr std::uint64_t kPagesAtOnce = 4;
    for (std::uint64_t page = 0; page < Guest::kPages; page += kPagesAtOnce) {
        TRY(writer.memory({.gfn = page,
                           .memory = guest.memory().subspan(page * format::kPageSize,
                                                            kPagesAtOnce * format::kPageSize),
                           .next_data = {}}));
    }
    TRY(writer.finish());
    return {};
}

fakes::Bytes lie(Plan::Lie what, const fakes::Bytes& truth) {
    fakes::Liar liar(truth);
    switch (what) {
        case Plan::Lie::kProfile: {
            auto& payload = liar["vm.profile"].payload;
            // The one letter that makes it nobody's.
            *std::ranges::find(payload, std::byte{'x'}) = std::byte{'y'};
            break;
        }
        case Plan::Lie::kRecord:
            liar["xen.store"].header.name = format::to_name("xen.other");
            break;
        case Plan::Lie::kVersion: liar["vcpu"].header.version = 9; break;
        case Plan::Lie::kEpoch: ++liar.file.epoch; break;
        case Plan::Lie::kNone: break;
    }
    return liar.bytes();
}

Result<void> send_guest(Link& link, Guest& guest, const migration::Attempt& attempt,
                        const Plan& plan) {
    Telling sink(link, plan.unreadable);
    if (plan.lie == Plan::Lie::kNone) return write_guest(sink, guest, attempt);
    fakes::StreamBytes truth;
    TRY(write_guest(truth, guest, attempt));
    const auto bytes = lie(plan.lie, truth.bytes);
    const std::array<format::Piece, 1> pieces{format::Piece(bytes)};
    return sink.append(pieces);
}

// As vmm/cli/vm.cc does it.
void depart(const Setup& setup) {
    Guest guest(*setup.page, Side::kSource);
    guest.boot();
    guest.run();
    FailingCalls calls(setup, Side::kSource);
    Plan plan = setup.plan;
    std::uint64_t epoch = 0;
    std::optional<Driver> driver;
    Link* now = nullptr;
    while (auto told = hear(setup.control)) {
        Link link(std::move(told->link), "the other side", kPatience);
        now = &link;
        if (driver && driver->is_untold() && told->word == Word::kLink) driver.reset();
        if (!driver) {
            const migration::Attempt attempt{.vm = setup.vm, .epoch = ++epoch};
            auto records = open_records(setup, Side::kSource, setup.vm, calls);
            if (!records) {
                answer(setup.control, Outcome::kKept);
                continue;
            }
            driver.emplace(
                migration::Ownership::source(attempt), *std::move(records), migration::Peer{},
                [&](Action action) -> std::optional<Event> {
                    if (action == Action::kStopGuest && setup.mistake != Mistake::kDoesNotStop) {
                        guest.stop();
                    }
                    if (action != Action::kSendRest) return std::nullopt;
                    return driver->rest_sent(send_guest(*now, guest, driver->attempt(), plan));
                });
        }
        driver->depart(link, told->word == Word::kCancel);
        const State state = driver->state();
        if (state == State::kGone) {
            const Link closed = std::move(link);
            answer(setup.control, Outcome::kGone);
            return;
        }
        if (state != State::kKept) {
            if (setup.mistake == Mistake::kGoesOnInDoubt) guest.run();
            const Link closed = std::move(link);
            answer(setup.control, Outcome::kOpen);
            continue;
        }
        const bool is_untold = driver->is_untold();
        if (!is_untold) driver.reset();
        plan = {};  // what was to go wrong has
        guest.run();
        const Link closed = std::move(link);
        answer(setup.control, is_untold ? Outcome::kUntold : Outcome::kKept);
    }
}

// A new process where another was: it has no guest, but perhaps its word to pass on.
void hand_over(const Setup& setup) {
    FailingCalls calls(setup, Side::kSource);
    auto records = open_records(setup, Side::kSource, setup.vm, calls);
    if (!records) std::_Exit(4);
    const auto before = records->read();
    if (!before) std::_Exit(4);
    Driver driver(
        migration::Ownership::restarted(
            Side::kSource, *before ? (*before)->attempt : migration::Attempt{setup.vm, 0}),
        *std::move(records), *before ? (*before)->peer : migration::Peer{},
        [](Action) -> std::optional<Event> { return std::nullopt; });
    driver.look_at_record();
    for (;;) {
        const bool over = migration::is_settled(driver.state());
        answer(setup.control, over ? Outcome::kNothing : Outcome::kHandsOver);
        auto told = hear(setup.control);
        if (!told) return;
        Link link(std::move(told->link), "the other side", kPatience);
        driver.depart(link, false);
    }
}

// ---- the destination ----------------------------------------------------------------------------

class LinksOfControl final : public migration::FurtherLinks {
  public:
    explicit LinksOfControl(int control) : control_(control) {}
    const std::string& name() const override { return name_; }
    std::array<int, 2> fds() const override { return {control_, -1}; }
    std::optional<Fd> accept() override {
        auto told = hear(control_);
        if (!told) {
            control_ = -1;  // nobody is there any more who would have one
            return std::nullopt;
        }
        return std::move(told->link);
    }

  private:
    const std::string name_ = "the other side";
    int control_;
};

// As vmm/cli/receive.cc does it, its guest aside.
Result<void> take_guest(const Setup& setup, migration::Arrival& arrival, Guest& guest) {
    const auto taken = [&]() -> Result<void> {
        const auto saved = TRY(vmm::cli::SavedVm::receive(arrival.stream()));
        if (saved->start().id != arrival.attempt().vm ||
            saved->start().epoch != arrival.attempt().epoch) {
            return vmm::user_error("the guest that came is not the one that was announced");
        }
        if (setup.plan.lacks_feature) return vmm::host_error("this host lacks sse2");
        if (setup.plan.no_room) {
            return vmm::errno_error("the guest's memory", vmm::Fault::kHost, ENOMEM);
        }
        TRY(saved->receive_rest(
            {{.gfn = 0, .pages = Guest::kPages, .fd = -1, .mapped = guest.memory().data()}}));
        if (!guest.is_whole()) setup.page->complain("what came is not what the guest had");
        if (setup.mistake == Mistake::kRunsUnowned) guest.run();
        guest.stand_by();
        return arrival.take_over(setup.signals);
    }();
    if (!taken && arrival.is_receiving()) arrival.give_up(taken.error().what);
    return taken;
}

void receive(const Setup& setup) {
    FailingCalls calls(setup, Side::kDestination);
    const auto records = [&](const migration::VmId& vm) {
        return open_records(setup, Side::kDestination, vm, calls);
    };
    while (auto told = hear(setup.control)) {
        Link link(std::move(told->link), "the other side", kPatience);
        const auto greeting = link.receive();
        if (!greeting) continue;
        if (greeting->kind == Frame::Kind::kResume) {
            static_cast<void>(migration::answer_from_records(link, *greeting, records));
            continue;
        }
        if (greeting->kind != Frame::Kind::kBegin) {
            static_cast<void>(migration::refuse(link, greeting->attempt, "not like this"));
            continue;
        }
        migration::Arrival::Successor next{std::make_unique<LinksOfControl>(setup.control),
                                           std::move(link), *greeting};
        for (;;) {
            auto arrival = migration::Arrival::begin(std::move(next.further), std::move(next.link),
                                                     next.greeting, records);
            if (!arrival) std::_Exit(5);
            Guest guest(*setup.page, Side::kDestination);
            if (take_guest(setup, **arrival, guest)) {
                guest.run();
                for (;;) {
                    ::pause();  // until whoever began all this has seen enough
                }
            }
            auto successor = (*arrival)->take_successor();
            if (!successor) std::_Exit(5);
            next = *std::move(successor);
        }
    }
}

// What counts allocations, and lets one fail.
std::atomic<std::uint64_t>* allocations = nullptr;
std::uint64_t failing_allocation = 0;

}  // namespace

void be_source(const Setup& setup) {
    if (setup.again) {
        hand_over(setup);
    } else {
        depart(setup);
    }
    std::_Exit(0);
}

void be_destination(const Setup& setup) {
    failing_allocation = setup.plan.allocation;
    allocations = &setup.page->allocations;
    try {
        receive(setup);
    } catch (const std::exception&) {
        std::_Exit(70);  // as main() has it
    }
    std::_Exit(0);
}

bool send_word(int control, Word word, int link) {
    char byte = static_cast<char>(word);
    iovec bytes{.iov_base = &byte, .iov_len = 1};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> room{};
    msghdr message{};
    message.msg_iov = &bytes;
    message.msg_iovlen = 1;
    message.msg_control = room.data();
    message.msg_controllen = room.size();
    cmsghdr* const with = CMSG_FIRSTHDR(&message);
    with->cmsg_level = SOL_SOCKET;
    with->cmsg_type = SCM_RIGHTS;
    with->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(with), &link, sizeof link);
    return ::sendmsg(control, &message, MSG_NOSIGNAL) == 1;
}

}  // namespace faults

// Memory that runs out: in one process only, and once.
void* operator new(std::size_t size) {
    if (faults::allocations != nullptr && ++*faults::allocations == faults::failing_allocation) {
        throw std::bad_alloc();
    }
    if (void* const room = std::malloc(size == 0 ? 1 : size)) return room;
    throw std::bad_alloc();
}
void operator delete(void* room) noexcept {
    std::free(room);
}
void operator delete(void* room, std::size_t) noexcept {
    std::free(room);
}
