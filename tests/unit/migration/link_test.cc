#include "migration/link.h"

#include <array>
#include <cstring>
#include <thread>
#include <vector>

#include <sys/eventfd.h>
#include <sys/socket.h>

#include <gtest/gtest.h>

namespace migration {
namespace {

using std::chrono::milliseconds;

struct Ends {
    vmm::Fd ours, theirs;
};
Ends connected() {
    std::array<int, 2> pair{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair.data()), 0);
    return {vmm::Fd(pair[0]), vmm::Fd(pair[1])};
}

Frame some_frame() {
    Frame frame{.kind = Frame::Kind::kMessage,
                .message = Event::kAborted,
                .attempt = {.vm = {}, .epoch = 7},
                .text = "there is no room"};
    frame.attempt.vm.fill(std::byte{0xab});
    return frame;
}

TEST(LinkTest, AFrameArrivesAsItWasSent) {
    Ends ends = connected();
    Link a(std::move(ends.ours), "a"), b(std::move(ends.theirs), "b");
    for (const Frame& frame :
         {some_frame(), Frame{.kind = Frame::Kind::kBegin, .attempt = {.vm = {}, .epoch = 1}},
          Frame{.kind = Frame::Kind::kRefused, .attempt = {}, .text = "why"}}) {
        ASSERT_TRUE(a.send(frame));
        EXPECT_TRUE(b.has_something());
        const auto got = b.receive();
        ASSERT_TRUE(got) << got.error().what;
        EXPECT_TRUE(*got == frame);
        EXPECT_FALSE(b.has_something());
    }
}

TEST(LinkTest, TextIsCutAndFitForATerminal) {
    Ends ends = connected();
    Link a(std::move(ends.ours), "a"), b(std::move(ends.theirs), "b");
    Frame frame = some_frame();
    frame.text = "\033[2J" + std::string(5000, 'x');
    ASSERT_TRUE(a.send(frame));
    const auto got = b.receive();
    ASSERT_TRUE(got) << got.error().what;
    EXPECT_EQ(got->text, "?[2J" + std::string(kMostText - 4, 'x'));
}

// Every bit counts, and nothing but a frame is one.
TEST(LinkTest, ADamagedFrameIsRefused) {
    const auto good = encode(some_frame());
    for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
        auto bytes = good;
        bytes[bit / 8] ^= std::byte{1} << (bit % 8);
        Ends ends = connected();
        Link b(std::move(ends.theirs), "b", milliseconds(20));
        ASSERT_EQ(::send(ends.ours.get(), bytes.data(), bytes.size(), 0),
                  static_cast<ssize_t>(bytes.size()));
        ends.ours.reset();  // a longer one would be waited for
        EXPECT_FALSE(b.receive()) << "bit " << bit;
    }
}

TEST(LinkTest, ALinkThatEndsOrSaysNothingIsLost) {
    const auto good = encode(some_frame());
    for (std::size_t length = 0; length < good.size(); ++length) {
        Ends ends = connected();
        Link b(std::move(ends.theirs), "b");
        ASSERT_EQ(::send(ends.ours.get(), good.data(), length, 0), static_cast<ssize_t>(length));
        ends.ours.reset();
        EXPECT_FALSE(b.receive()) << length;
    }
    Ends ends = connected();
    Link b(std::move(ends.theirs), "b", milliseconds(20));
    const auto nothing = b.receive();
    ASSERT_FALSE(nothing);
    EXPECT_EQ(nothing.error().what, "b: no answer");
}

TEST(LinkTest, ASenderHeedsWhatComesMeanwhile) {
    Ends ends = connected();
    Link a(std::move(ends.ours), "a"), b(std::move(ends.theirs), "b");
    HeededSink sink(a);
    const std::array<std::byte, 8> bytes{};
    const std::array<format::Piece, 1> pieces{format::Piece(bytes)};
    EXPECT_TRUE(sink.append(pieces));
    ASSERT_TRUE(b.send(some_frame()));
    EXPECT_FALSE(sink.append(pieces));
    const auto why = a.receive();
    ASSERT_TRUE(why);
    EXPECT_EQ(why->text, "there is no room");
}

// Whoever is told to end waits for nothing, and still says and hears what costs no waiting.
TEST(LinkTest, NothingIsWaitedForWhenItIsToldToEnd) {
    Ends ends = connected();
    Link a(std::move(ends.ours), "a"), b(std::move(ends.theirs), "b");
    const vmm::Fd told(::eventfd(0, EFD_CLOEXEC));
    a.heed(told.get());
    EXPECT_FALSE(a.is_told_to_end());
    // Also when it comes while one waits.
    std::thread later([&] { ::eventfd_write(told.get(), 1); });
    const auto nothing = a.receive();
    later.join();
    ASSERT_FALSE(nothing);
    EXPECT_TRUE(a.is_told_to_end());

    ASSERT_TRUE(b.send(some_frame()));
    EXPECT_TRUE(a.receive());
    EXPECT_TRUE(a.send(some_frame()));
    EXPECT_TRUE(b.receive());
    // A guest is no such thing, nor is a peer who takes nothing.
    const std::vector<std::byte> much(16 << 20);
    const std::array<format::Piece, 1> pieces{format::Piece(much)};
    HeededSink sink(a);
    EXPECT_FALSE(sink.append(pieces));
    EXPECT_FALSE(a.write(pieces));
    LinkSource source(a);
    ASSERT_TRUE(b.send(some_frame()));
    std::array<std::byte, 8> some{};
    EXPECT_FALSE(source.read(some));
    a.finish();  // b goes on for ever

    a.heed(-1);
    EXPECT_FALSE(a.is_told_to_end());
}

}  // namespace
}  // namespace migration
