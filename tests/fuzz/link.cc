// Whatever the other side of a move says: raw bytes, and frames whose checksums are right, in any
// order, to a source, to a destination that has all of the guest, and to one that has only its
// records. Neither takes the guest that is not its own, with a disk that may fail as well.
#include "migration/link.h"

#include <array>
#include <fcntl.h>
#include <memory>
#include <optional>
#include <vector>

#include <sys/eventfd.h>
#include <sys/socket.h>

#include "migration/arrival.h"
#include "migration/driver.h"
#include "tests/fakes/fake_disk.h"
#include "tests/fuzz/input.h"
#include "vmm/base/log.h"

namespace {

using namespace migration;
using xenolith::fuzz::Input;

// No such folder: what records are read is nothing, what is written is in the fake disk.
constexpr char kFolder[] = "/nowhere/xenolith-fuzz";
constexpr Attempt kAttempt{.vm = {std::byte{7}}, .epoch = 5};

struct Script {
    std::vector<Frame> frames;  // those that are of this attempt
    std::vector<std::byte> bytes;

    bool has(Event message) const {
        return std::ranges::any_of(frames, [&](const Frame& frame) {
            return frame.kind == Frame::Kind::kMessage && frame.message == message;
        });
    }
};

// What is said over one link.
Script script_of(Input& in) {
    Script script;
    for (unsigned left = 12; left != 0 && !in.empty(); --left) {
        const auto what = in.take<std::uint8_t>();
        if (what == 0xff) break;
        if (what % 16 == 15) {
            const auto raw = std::as_bytes(in.take_bytes(what));
            script.bytes.insert(script.bytes.end(), raw.begin(), raw.end());
            continue;
        }
        Frame frame{.kind = static_cast<Frame::Kind>(what % 6), .attempt = kAttempt};
        if (what % 16 > 5) frame.kind = Frame::Kind::kMessage;
        if (frame.kind == Frame::Kind::kMessage) {
            frame.message = static_cast<Event>(in.below(8));
        }
        const auto other = in.take<std::uint8_t>();
        if (other % 8 == 1) --frame.attempt.epoch;
        if (other % 8 == 2) ++frame.attempt.epoch;
        if (other % 8 == 3) frame.attempt.vm[3] = std::byte{1};
        if (other % 8 == 4) frame.attempt.epoch = in.take<std::uint64_t>();
        if (other >= 0xf0) frame.text.assign(other, 'x');
        auto bytes = encode(frame);
        if (other == 8)
            bytes[in.below(bytes.size())] ^= std::byte{1};
        else if (frame.attempt == kAttempt)
            script.frames.push_back(frame);
        script.bytes.insert(script.bytes.end(), bytes.begin(), bytes.end());
    }
    return script;
}

struct Ends {
    vmm::Fd ours, theirs;
};
Ends ends_with(const Script& script) {
    std::array<int, 2> pair{};
    FUZZ_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) == 0);
    Ends ends{vmm::Fd(pair[0]), vmm::Fd(pair[1])};
    FUZZ_CHECK(::send(pair[1], script.bytes.data(), script.bytes.size(), MSG_NOSIGNAL) ==
               static_cast<ssize_t>(script.bytes.size()));
    ::shutdown(pair[1], SHUT_WR);
    return ends;
}

struct Disk {
    explicit Disk(Input& in, Side as) : side(as) {
        const auto failing = in.take<std::uint8_t>();
        if (failing < 24) disk.failing = failing;
        disk.code = failing % 2 == 0 ? EIO : ENOSPC;
    }
    Records records() { return {{}, kFolder, side, kAttempt.vm, disk}; }
    bool fails() const { return disk.failing && *disk.failing < disk.calls; }
    std::optional<RecordState> state() {
        const auto image = disk.image();
        const auto file = image.find(records().path());
        if (file == image.end()) return std::nullopt;
        const auto record = decode_record(file->second);
        FUZZ_CHECK(record);
        return record->state;
    }

    fakes::FakeDisk disk;
    Side side;
};

void as_source(Input& in) {
    Disk disk(in, Side::kSource);
    bool runs = true, given_up = false;
    Driver driver(Ownership::source(kAttempt), disk.records(), Peer{}, [&](Action action) {
        std::optional<Event> outcome;
        switch (action) {
            case Action::kStopGuest: runs = false; break;
            case Action::kRunGuest:
                FUZZ_CHECK(!given_up);
                runs = true;
                break;
            case Action::kDiscardGuest:
                FUZZ_CHECK(!runs);
                given_up = true;
                break;
            case Action::kSendRest:
                FUZZ_CHECK(!runs);
                if (in.below(8) == 1) outcome = Event::kFailed;
                break;
            default: break;
        }
        return outcome;
    });
    bool aborted = false, running = false;
    for (unsigned links = 3; links != 0 && !is_settled(driver.state()); --links) {
        const Script script = script_of(in);
        aborted |= script.has(Event::kAborted);
        running |= script.has(Event::kRunning) || script.has(Event::kLost);
        Ends ends = ends_with(script);
        Link link(std::move(ends.ours), "peer");
        driver.depart(link, in.below(8) == 1);
        FUZZ_CHECK(side_of(driver.state()) == Side::kSource);
    }
    const auto record = disk.state();
    if (driver.state() == State::kGone) FUZZ_CHECK(running && given_up && !runs);
    if (driver.state() == State::kKept) {
        FUZZ_CHECK(runs);
        // After its word only the destination's gives it back.
        if (record && !disk.fails()) FUZZ_CHECK(aborted);
    }
    if (!is_settled(driver.state())) FUZZ_CHECK(!runs);
    if (driver.state() == State::kCommitted) FUZZ_CHECK(record == RecordState::kCommit);
}

// Nobody comes a second time. When the link is lost, it is told to end.
class NoFurther final : public FurtherLinks {
  public:
    NoFurther(int link, int signals) : link_(link), signals_(signals) {}
    const std::string& name() const override { return name_; }
    std::array<int, 2> fds() const override {
        if (::fcntl(link_, F_GETFD) < 0) ::eventfd_write(signals_, 1);
        return {-1, -1};
    }
    std::optional<vmm::Fd> accept() override { return std::nullopt; }

  private:
    const std::string name_ = "nobody";
    const int link_, signals_;
};

void as_destination(Input& in) {
    Disk disk(in, Side::kDestination);
    const auto open = [&](const VmId&) -> vmm::Result<Records> { return disk.records(); };
    const vmm::Fd signals(::eventfd(0, EFD_CLOEXEC));
    const Script script = script_of(in);
    Ends ends = ends_with(script);
    const int ours = ends.ours.get();
    auto further = std::make_unique<NoFurther>(ours, signals.get());
    const auto arrival =
        Arrival::begin(std::move(further), Link(std::move(ends.ours), "peer"),
                       Frame{.kind = Frame::Kind::kBegin, .attempt = kAttempt}, open);
    if (!arrival) return;
    if (in.below(8) == 1) {
        (*arrival)->give_up("for a reason");
        FUZZ_CHECK(disk.fails() || disk.state() == RecordState::kAborted);
        return;
    }
    const auto taken = (*arrival)->take_over(signals.get());
    if (taken) {
        FUZZ_CHECK(script.has(Event::kCommit));
    } else {
        FUZZ_CHECK(!taken.error().what.empty());
        FUZZ_CHECK(disk.fails() || disk.state() == RecordState::kAborted);
    }
}

void as_records(Input& in) {
    Disk disk(in, Side::kDestination);
    const auto open = [&](const VmId&) -> vmm::Result<Records> { return disk.records(); };
    Ends ends = ends_with(script_of(in));
    Link link(std::move(ends.ours), "peer");
    static_cast<void>(
        answer_from_records(link, Frame{.kind = Frame::Kind::kResume, .attempt = kAttempt}, open));
    FUZZ_CHECK(disk.state() != RecordState::kOwn);
}

void raw(std::span<const std::byte> bytes) {
    Ends ends = ends_with({.frames = {}, .bytes = {bytes.begin(), bytes.end()}});
    Link link(std::move(ends.ours), "peer");
    std::size_t read = 0;
    for (;;) {
        const auto frame = link.receive();
        if (!frame) return;
        // What is taken is what stood there, but for what no terminal shall see.
        const auto again = encode(*frame);
        FUZZ_CHECK(read + again.size() <= bytes.size());
        read += again.size();
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    vmm::set_log_level(vmm::LogLevel::kError);
    Input in(data + 1, size - 1);
    switch (data[0] % 4) {
        case 0: raw(std::as_bytes(std::span(data + 1, size - 1))); break;
        case 1: as_source(in); break;
        case 2: as_destination(in); break;
        default: as_records(in); break;
    }
    return 0;
}
