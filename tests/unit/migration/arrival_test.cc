// A destination that has all of a guest, and who may speak to it.
#include "migration/arrival.h"

#include <array>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <future>
#include <mutex>
#include <string>

#include <sys/eventfd.h>
#include <sys/socket.h>

#include <gtest/gtest.h>

namespace migration {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

struct Ends {
    vmm::Fd ours, theirs;
};
Ends connected() {
    std::array<int, 2> pair{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair.data()), 0);
    return {vmm::Fd(pair[0]), vmm::Fd(pair[1])};
}

// Those that the test has made.
class MadeLinks final : public FurtherLinks {
  public:
    struct Waiting {
        vmm::Fd count{::eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK)};
        std::mutex mutex;
        std::deque<vmm::Fd> links;
    };
    explicit MadeLinks(Waiting& waiting) : waiting_(waiting) {}
    const std::string& name() const override { return name_; }
    std::array<int, 2> fds() const override { return {waiting_.count.get(), -1}; }
    std::optional<vmm::Fd> accept() override {
        eventfd_t one = 0;
        if (::eventfd_read(waiting_.count.get(), &one) != 0) return std::nullopt;
        const std::lock_guard lock(waiting_.mutex);
        vmm::Fd link = std::move(waiting_.links.front());
        waiting_.links.pop_front();
        return link;
    }

  private:
    const std::string name_ = "somebody";
    Waiting& waiting_;
};

class ArrivalTest : public testing::Test {
  protected:
    ArrivalTest() {
        std::string path = testing::TempDir() + "arrival-XXXXXX";
        if (::mkdtemp(path.data()) != nullptr) folder_ = path;
        begin_.attempt.vm.fill(std::byte{7});
        begin_.folder.fill(std::byte{1});
        begin_.secret.fill(std::byte{2});
        Ends ends = connected();
        source_.emplace(std::move(ends.theirs), "the destination", milliseconds(10'000));
        auto arrival = Arrival::begin(std::make_unique<MadeLinks>(waiting_),
                                      Link(std::move(ends.ours), "the source"), begin_, open());
        EXPECT_TRUE(arrival);
        if (arrival) arrival_ = *std::move(arrival);
        const auto welcome = source_->receive();
        EXPECT_TRUE(welcome && welcome->kind == Frame::Kind::kWelcome);
        if (welcome) folder_id_ = welcome->folder;
        taken_ = std::async(std::launch::async,
                            [this] { return arrival_->take_over(signals_.get()).has_value(); });
        const auto prepared = source_->receive();
        EXPECT_TRUE(prepared && prepared->message == Event::kPrepared);
    }
    ~ArrivalTest() override {
        ::eventfd_write(signals_.get(), 1);
        if (taken_.valid()) taken_.wait();
        arrival_.reset();
        std::filesystem::remove_all(folder_);
    }

    OpenRecords open() const {
        return [this](const VmId& vm) { return Records::open(folder_, Side::kDestination, vm); };
    }
    // One more connection, from whoever.
    Link call() {
        Ends ends = connected();
        {
            const std::lock_guard lock(waiting_.mutex);
            waiting_.links.push_back(std::move(ends.ours));
        }
        ::eventfd_write(waiting_.count.get(), 1);
        return {std::move(ends.theirs), "the destination", milliseconds(10'000)};
    }
    Frame resume() const {
        Frame frame = begin_;
        frame.kind = Frame::Kind::kResume;
        return frame;
    }
    Frame message(Event event) const {
        return {.kind = Frame::Kind::kMessage, .message = event, .attempt = begin_.attempt};
    }
    std::optional<RecordState> record() const {
        const Records records({}, folder_, Side::kDestination, begin_.attempt.vm);
        const auto read = records.read();
        EXPECT_TRUE(read);
        return read && *read ? std::optional((*read)->state) : std::nullopt;
    }
    // It is the destination's, and soon.
    void expect_taken(Link& source) {
        ASSERT_TRUE(source.send(message(Event::kCommit)));
        ASSERT_EQ(taken_.wait_for(seconds(10)), std::future_status::ready);
        EXPECT_TRUE(taken_.get());
        const auto running = source.receive();
        ASSERT_TRUE(running);
        EXPECT_EQ(running->message, Event::kRunning);
        ASSERT_TRUE(source.send(message(Event::kDone)));
    }

    std::string folder_;
    Frame begin_{.kind = Frame::Kind::kBegin, .attempt = {.vm = {}, .epoch = 3}};
    FolderId folder_id_{};
    MadeLinks::Waiting waiting_;
    vmm::Fd signals_{::eventfd(0, 0)};
    std::optional<Link> source_;
    std::unique_ptr<Arrival> arrival_;
    std::future<bool> taken_;
};

TEST_F(ArrivalTest, TheSourceMayComeAgain) {
    EXPECT_NE(folder_id_, FolderId{});
    Link again = call();
    ASSERT_TRUE(again.send(resume()));
    const auto welcome = again.receive();
    ASSERT_TRUE(welcome);
    EXPECT_EQ(welcome->kind, Frame::Kind::kWelcome);
    EXPECT_EQ(welcome->folder, folder_id_);
    const auto prepared = again.receive();
    ASSERT_TRUE(prepared);
    EXPECT_EQ(prepared->message, Event::kPrepared);
    expect_taken(again);
}

TEST_F(ArrivalTest, AStrangerGetsNothingAndDisturbsNothing) {
    for (const int what : {0, 1, 2}) {
        Link stranger = call();
        Frame frame = resume();
        if (what == 0) frame.secret[3] ^= std::byte{1};
        if (what == 1) frame.folder[3] ^= std::byte{1};
        if (what == 2) --frame.attempt.epoch;
        ASSERT_TRUE(stranger.send(frame));
        [[maybe_unused]] const auto sent = stranger.send(message(Event::kCommit));
        const auto refused = stranger.receive();
        ASSERT_TRUE(refused) << what;
        EXPECT_EQ(refused->kind, Frame::Kind::kRefused) << what;
        EXPECT_FALSE(stranger.receive());  // and that is all
    }
    EXPECT_EQ(record(), std::nullopt);
    expect_taken(*source_);
}

TEST_F(ArrivalTest, OneThatSaysNothingOrHalfAFrameDelaysNothing) {
    Link silent = call();
    Link slow = call();
    const auto bytes = encode(resume());
    ASSERT_EQ(::send(slow.fd(), bytes.data(), bytes.size() / 2, 0),
              static_cast<ssize_t>(bytes.size() / 2));
    // They are there before what the source says now.
    Link refused = call();
    ASSERT_TRUE(refused.send(message(Event::kCommit)));
    const auto answer = refused.receive();
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->kind, Frame::Kind::kRefused);
    expect_taken(*source_);
}

TEST_F(ArrivalTest, WhatCameInPartsIsHeardWhenItIsWhole) {
    Link slow = call();
    const auto bytes = encode(resume());
    for (const std::byte& byte : bytes) {
        ASSERT_EQ(::send(slow.fd(), &byte, 1, 0), 1);
    }
    const auto welcome = slow.receive();
    ASSERT_TRUE(welcome);
    EXPECT_EQ(welcome->kind, Frame::Kind::kWelcome);
    ASSERT_TRUE(slow.receive());
    expect_taken(slow);
}

TEST_F(ArrivalTest, ANewerAttemptTakesItsPlace) {
    Link next = call();
    Frame begin = begin_;
    ++begin.attempt.epoch;
    begin.secret.fill(std::byte{9});
    ASSERT_TRUE(next.send(begin));
    ASSERT_EQ(taken_.wait_for(seconds(10)), std::future_status::ready);
    EXPECT_FALSE(taken_.get());
    auto successor = arrival_->take_successor();
    ASSERT_TRUE(successor);
    EXPECT_EQ(successor->greeting, begin);
    EXPECT_FALSE(arrival_->take_successor());
    arrival_.reset();
    auto again = Arrival::begin(std::move(successor->further), std::move(successor->link),
                                successor->greeting, open());
    ASSERT_TRUE(again) << again.error().what;
    const auto welcome = next.receive();
    ASSERT_TRUE(welcome);
    EXPECT_EQ(welcome->kind, Frame::Kind::kWelcome);
    EXPECT_EQ(welcome->attempt, begin.attempt);
    EXPECT_FALSE(source_->receive());  // of the first
}

// The same attempt again, or one before it, is nobody's successor.
TEST_F(ArrivalTest, AnOlderAttemptDoesNot) {
    for (const std::uint64_t epoch : {2, 3}) {
        Link stranger = call();
        Frame begin = begin_;
        begin.attempt.epoch = epoch;
        ASSERT_TRUE(stranger.send(begin));
        const auto refused = stranger.receive();
        ASSERT_TRUE(refused);
        EXPECT_EQ(refused->kind, Frame::Kind::kRefused);
    }
    expect_taken(*source_);
}

// No living process has the guest.
TEST_F(ArrivalTest, RecordsAnswerWhoeverBeganTheMove) {
    ASSERT_TRUE(source_->send(message(Event::kAbort)));
    ASSERT_EQ(taken_.wait_for(seconds(10)), std::future_status::ready);
    EXPECT_FALSE(taken_.get());
    arrival_.reset();
    ASSERT_EQ(record(), RecordState::kAborted);
    const auto ask = [&](const Frame& greeting) {
        Ends ends = connected();
        Link link(std::move(ends.ours), "somebody");
        Link asker(std::move(ends.theirs), "the destination", milliseconds(10'000));
        EXPECT_EQ(::shutdown(asker.fd(), SHUT_WR), 0);
        [[maybe_unused]] const auto answered = answer_from_records(link, greeting, open());
        return asker.receive();
    };
    const auto welcome = ask(resume());
    ASSERT_TRUE(welcome);
    EXPECT_EQ(welcome->kind, Frame::Kind::kWelcome);
    EXPECT_EQ(welcome->folder, folder_id_);
    Frame stranger = resume();
    stranger.secret[0] ^= std::byte{1};
    const auto refused = ask(stranger);
    ASSERT_TRUE(refused);
    EXPECT_EQ(refused->kind, Frame::Kind::kRefused);
}

}  // namespace
}  // namespace migration
