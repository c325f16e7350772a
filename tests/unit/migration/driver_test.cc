// What drives a side of a move, over a link whose other end is the test's.
#include "migration/driver.h"

#include <array>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <string>
#include <vector>

#include <sys/socket.h>

#include <gtest/gtest.h>

namespace migration {
namespace {

class DriverTest : public testing::Test {
  protected:
    DriverTest() {
        std::string path = testing::TempDir() + "driver-XXXXXX";
        if (::mkdtemp(path.data()) != nullptr) folder_ = path;
        attempt_.vm.fill(std::byte{7});
    }
    ~DriverTest() override { std::filesystem::remove_all(folder_); }

    // A source of which all can be sent, or nothing.
    Driver source(bool sends = true) {
        auto records = Records::open(folder_, Side::kSource, attempt_.vm);
        EXPECT_TRUE(records);
        return {Ownership::source(attempt_), *std::move(records), Peer{},
                [this, sends](Action action) -> std::optional<Event> {
                    done_ += std::string(name_of(action)) + "; ";
                    if (action != Action::kSendRest) return std::nullopt;
                    if (sends) return driver_->rest_sent({});
                    return driver_->rest_sent(vmm::host_error("it does not go on"));
                }};
    }
    struct Ends {
        Link ours, theirs;
    };
    static Ends connected() {
        std::array<int, 2> pair{};
        EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair.data()), 0);
        return {Link(vmm::Fd(pair[0]), "there"), Link(vmm::Fd(pair[1]), "here")};
    }
    Frame frame(Frame::Kind kind) const { return {.kind = kind, .attempt = attempt_}; }
    Frame message(Event event, std::string text = {}) const {
        return {.kind = Frame::Kind::kMessage,
                .message = event,
                .attempt = attempt_,
                .text = std::move(text)};
    }

    std::string folder_;
    Attempt attempt_{.vm = {}, .epoch = 3};
    Driver* driver_ = nullptr;
    std::string done_;
};

TEST_F(DriverTest, PreparedBeforeAllWasSentIsNotBelieved) {
    Driver driver = source(false);
    driver_ = &driver;
    Ends ends = connected();
    ASSERT_TRUE(ends.theirs.send(frame(Frame::Kind::kWelcome)));
    ASSERT_TRUE(ends.theirs.send(message(Event::kPrepared)));
    driver.depart(ends.ours, false);
    EXPECT_EQ(driver.state(), State::kKept);
    EXPECT_EQ(driver.why(), "it does not go on");
    EXPECT_EQ(done_, "stop guest; send rest; run guest; ");
    const auto begin = ends.theirs.receive();
    ASSERT_TRUE(begin);
    EXPECT_EQ(begin->kind, Frame::Kind::kBegin);
    const auto told = ends.theirs.receive();
    ASSERT_TRUE(told);
    EXPECT_EQ(told->message, Event::kAbort);
}

TEST_F(DriverTest, WhyNotAllCouldBeSentIsTheOtherSidesReason) {
    Driver driver = source(false);
    driver_ = &driver;
    Ends ends = connected();
    ASSERT_TRUE(ends.theirs.send(frame(Frame::Kind::kWelcome)));
    ASSERT_TRUE(ends.theirs.send(message(Event::kAborted, "there is no room")));
    driver.depart(ends.ours, false);
    EXPECT_EQ(driver.state(), State::kKept);
    EXPECT_EQ(driver.why(), "there is no room");
}

// Ctrl-C, as the source sees it: nothing more comes, but what it says is still carried.
TEST_F(DriverTest, TheLastWordIsSaidOnALinkThatIsLostInOneDirection) {
    Driver driver = source();
    driver_ = &driver;
    Ends ends = connected();
    ASSERT_TRUE(ends.theirs.send(frame(Frame::Kind::kWelcome)));
    ASSERT_EQ(::shutdown(ends.theirs.fd(), SHUT_WR), 0);
    driver.depart(ends.ours, false);
    EXPECT_EQ(driver.state(), State::kKept);
    EXPECT_TRUE(driver.is_untold());
    ASSERT_TRUE(ends.theirs.receive());  // BEGIN
    const auto told = ends.theirs.receive();
    ASSERT_TRUE(told);
    EXPECT_EQ(told->message, Event::kAbort);
}

TEST_F(DriverTest, WhatWasKeptIsToldOverAnotherLink) {
    Driver driver = source();
    driver_ = &driver;
    {
        Ends ends = connected();
        ASSERT_TRUE(ends.theirs.send(frame(Frame::Kind::kWelcome)));
        ASSERT_EQ(::shutdown(ends.theirs.fd(), SHUT_WR), 0);
        driver.depart(ends.ours, false);
    }
    ASSERT_TRUE(driver.is_untold());
    Ends ends = connected();
    ASSERT_TRUE(ends.theirs.send(frame(Frame::Kind::kWelcome)));
    ASSERT_TRUE(ends.theirs.send(message(Event::kPrepared)));
    ASSERT_TRUE(ends.theirs.send(message(Event::kAborted)));
    driver.depart(ends.ours, true);
    EXPECT_EQ(driver.state(), State::kKept);
    EXPECT_FALSE(driver.is_untold());
    EXPECT_EQ(done_, "stop guest; send rest; run guest; ");  // once
    const auto resume = ends.theirs.receive();
    ASSERT_TRUE(resume);
    EXPECT_EQ(resume->kind, Frame::Kind::kResume);
    const auto told = ends.theirs.receive();
    ASSERT_TRUE(told);
    EXPECT_EQ(told->message, Event::kAbort);
}

// After COMMIT: one that never had the guest would deny that it owns it.
TEST_F(DriverTest, WhoeverElseAnswersIsALostLink) {
    Driver driver = source();
    driver_ = &driver;
    const auto answer = [&](const FolderId& folder, std::initializer_list<Event> messages) {
        Ends ends = connected();
        Frame welcome = frame(Frame::Kind::kWelcome);
        welcome.folder = folder;
        EXPECT_TRUE(ends.theirs.send(welcome));
        for (const Event event : messages) {
            EXPECT_TRUE(ends.theirs.send(message(event)));
        }
        EXPECT_EQ(::shutdown(ends.theirs.fd(), SHUT_WR), 0);
        driver.depart(ends.ours, false);
        std::vector<Frame> said;
        ends.ours = connected().ours;
        for (auto next = ends.theirs.receive(); next; next = ends.theirs.receive()) {
            said.push_back(*next);
        }
        return said;
    };
    FolderId there{}, elsewhere{};
    there.fill(std::byte{3});
    elsewhere.fill(std::byte{4});
    const auto begun = answer(there, {Event::kPrepared});
    ASSERT_EQ(begun.size(), 2u);  // BEGIN and COMMIT
    ASSERT_EQ(driver.state(), State::kCommitted);
    const auto asked = answer(elsewhere, {Event::kAborted});
    EXPECT_EQ(driver.state(), State::kCommitted);
    ASSERT_EQ(asked.size(), 1u);  // nor does it hear COMMIT
    EXPECT_EQ(asked[0].kind, Frame::Kind::kResume);
    EXPECT_EQ(asked[0].secret, begun[0].secret);
    EXPECT_NE(asked[0].secret, Secret{});
    EXPECT_EQ(asked[0].folder, driver.folder_id());
    EXPECT_EQ(done_, "stop guest; send rest; ");
    answer(there, {Event::kAborted});
    EXPECT_EQ(driver.state(), State::kKept);
}

// As the process that comes after it.
TEST_F(DriverTest, TheRecordKnowsWhomToAsk) {
    Peer peer;
    {
        Driver driver = source();
        driver_ = &driver;
        Ends ends = connected();
        Frame welcome = frame(Frame::Kind::kWelcome);
        welcome.folder.fill(std::byte{3});
        ASSERT_TRUE(ends.theirs.send(welcome));
        ASSERT_TRUE(ends.theirs.send(message(Event::kPrepared)));
        ASSERT_EQ(::shutdown(ends.theirs.fd(), SHUT_WR), 0);
        driver.depart(ends.ours, false);
        ASSERT_EQ(driver.state(), State::kCommitted);
        peer = driver.peer();
    }
    const auto records = Records::open(folder_, Side::kSource, attempt_.vm);
    ASSERT_TRUE(records);
    const auto left = records->read();
    ASSERT_TRUE(left && *left);
    EXPECT_EQ((*left)->peer, peer);
    EXPECT_EQ(peer.folder[0], std::byte{3});
    EXPECT_NE(peer.secret, Secret{});
}

TEST_F(DriverTest, WhatTheOtherSideRefusedIsKnownThere) {
    Driver driver = source();
    driver_ = &driver;
    Ends ends = connected();
    ASSERT_TRUE(ends.theirs.send(frame(Frame::Kind::kWelcome)));
    ASSERT_TRUE(ends.theirs.send(message(Event::kAborted, "it is full")));
    driver.depart(ends.ours, false);
    EXPECT_EQ(driver.state(), State::kKept);
    EXPECT_FALSE(driver.is_untold());
}

}  // namespace
}  // namespace migration
