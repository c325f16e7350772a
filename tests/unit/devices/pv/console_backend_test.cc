// The PV console's ring, with a guest that keeps the rules and with one that does not.
#include "devices/pv/console_backend.h"

#include <array>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <random>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

#include "tests/golden/layout.h"
#include "vmm/base/fd.h"

namespace devices::pv {
namespace {

TEST(ConsoleRing, LiesWhereXensHeadersSay) {
    const auto theirs = golden::read_layout();
    const auto expect = [&](const char* member, std::uint32_t ours) {
        EXPECT_EQ(theirs.at({"xencons_interface", member}), (golden::Place{ours, ours})) << member;
    };
    expect("in", ConsoleRing::kIn);
    expect("out", ConsoleRing::kOut);
    expect("in_cons", ConsoleRing::kInCons);
    expect("in_prod", ConsoleRing::kInProd);
    expect("out_cons", ConsoleRing::kOutCons);
    expect("out_prod", ConsoleRing::kOutProd);
    EXPECT_EQ(ConsoleRing::kIn + ConsoleRing::kInSize, ConsoleRing::kOut);
    EXPECT_EQ(ConsoleRing::kOut + ConsoleRing::kOutSize, ConsoleRing::kInCons);
}

class Console : public testing::Test {
  protected:
    Console() : backend(page.data() + kGuard, [this] { ++notified; }) { page.fill(std::byte{0}); }
    ~Console() override {
        // Nothing around the page was touched.
        for (std::size_t i = 0; i < kGuard; ++i) {
            EXPECT_EQ(page[i], std::byte{0});
            EXPECT_EQ(page[kGuard + 4096 + i], std::byte{0});
        }
    }
    std::uint32_t get(std::uint32_t at) const {
        std::uint32_t value = 0;
        std::memcpy(&value, page.data() + kGuard + at, sizeof value);
        return value;
    }
    void set(std::uint32_t at, std::uint32_t value) {
        std::memcpy(page.data() + kGuard + at, &value, sizeof value);
    }
    // As a guest's hvc driver does.
    void guest_writes(const std::string& text) {
        std::uint32_t prod = get(ConsoleRing::kOutProd);
        for (const char c : text) {
            page[kGuard + ConsoleRing::kOut + prod++ % ConsoleRing::kOutSize] =
                static_cast<std::byte>(c);
        }
        set(ConsoleRing::kOutProd, prod);
    }
    std::string guest_reads() {
        std::string out;
        std::uint32_t cons = get(ConsoleRing::kInCons);
        while (cons != get(ConsoleRing::kInProd)) {
            out +=
                static_cast<char>(page[kGuard + ConsoleRing::kIn + cons++ % ConsoleRing::kInSize]);
        }
        set(ConsoleRing::kInCons, cons);
        return out;
    }
    std::string peek(std::size_t room) {
        std::vector<std::byte> buffer(room);
        const std::size_t n = backend.peek_output(buffer);
        EXPECT_LE(n, room);
        return {reinterpret_cast<const char*>(buffer.data()), n};
    }
    std::size_t give(const std::string& text) {
        return backend.give_input(std::as_bytes(std::span(text.data(), text.size())));
    }

    static constexpr std::size_t kGuard = 64;
    alignas(4096) std::array<std::byte, 4096 + 2 * kGuard> page;
    unsigned notified = 0;
    ConsoleBackend backend;
};

// XSA-391: also that a backend sends its guest no event without a reason.
TEST_F(Console, OutputIsTakenInOrderAndOnlyWhenConsumed) {
    EXPECT_FALSE(backend.has_output());
    guest_writes("hello");
    EXPECT_TRUE(backend.has_output());
    EXPECT_EQ(peek(2), "he");
    EXPECT_EQ(peek(100), "hello");
    EXPECT_EQ(notified, 0u);
    backend.consume_output(3);
    EXPECT_EQ(notified, 1u);
    EXPECT_EQ(get(ConsoleRing::kOutCons), 3u);
    EXPECT_EQ(peek(100), "lo");
    backend.consume_output(2);
    EXPECT_FALSE(backend.has_output());
    backend.consume_output(0);
    EXPECT_EQ(notified, 2u);  // nothing moved, nothing said
}

TEST_F(Console, OutputWrapsAroundTheRingAndTheIndices) {
    for (const std::uint32_t start : {2040u, 0xffff'fff8u}) {
        set(ConsoleRing::kOutCons, start);
        set(ConsoleRing::kOutProd, start);
        guest_writes("0123456789abcdef");
        EXPECT_EQ(peek(100), "0123456789abcdef");
        backend.consume_output(16);
        EXPECT_EQ(get(ConsoleRing::kOutCons), start + 16);
        EXPECT_FALSE(backend.has_output());
    }
}

TEST_F(Console, AFullRingIsAllOutput) {
    guest_writes(std::string(2048, 'x'));
    EXPECT_EQ(peek(4096).size(), 2048u);
    EXPECT_EQ(get(ConsoleRing::kOutCons), 0u);
}

TEST_F(Console, AProducerThatCannotBeIsBroughtBack) {
    for (const std::uint32_t prod : {2049u, 0x8000'0000u, 0xffff'ffffu}) {
        set(ConsoleRing::kOutCons, 0);
        set(ConsoleRing::kOutProd, prod);
        EXPECT_EQ(peek(4096), "") << prod;
        EXPECT_EQ(get(ConsoleRing::kOutCons), prod);
        EXPECT_FALSE(backend.has_output());
        // And the ring works again.
        guest_writes("ok");
        EXPECT_EQ(peek(100), "ok");
        backend.consume_output(2);
    }
}

TEST_F(Console, InputFillsTheRingAndNoMore) {
    EXPECT_TRUE((backend.input_room() != 0));
    EXPECT_EQ(give("abc"), 3u);
    EXPECT_EQ(notified, 1u);
    EXPECT_EQ(guest_reads(), "abc");
    EXPECT_EQ(give(std::string(2000, 'y')), 1024u);
    EXPECT_FALSE((backend.input_room() != 0));
    EXPECT_EQ(give("z"), 0u);
    EXPECT_EQ(notified, 2u);
    EXPECT_EQ(guest_reads(), std::string(1024, 'y'));
    EXPECT_TRUE((backend.input_room() != 0));
    EXPECT_EQ(give(""), 0u);
    EXPECT_EQ(notified, 2u);
}

TEST_F(Console, InputWraps) {
    for (const std::uint32_t start : {1020u, 0xffff'fffcu}) {
        set(ConsoleRing::kInCons, start);
        set(ConsoleRing::kInProd, start);
        EXPECT_EQ(give("0123456789"), 10u);
        EXPECT_EQ(guest_reads(), "0123456789");
    }
}

TEST_F(Console, AConsumerThatCannotBeGetsNothing) {
    for (const std::uint32_t cons : {1u, 0x8000'0000u, 0xffff'ffffu - 2000}) {
        set(ConsoleRing::kInProd, 0);
        set(ConsoleRing::kInCons, cons);
        EXPECT_FALSE((backend.input_room() != 0)) << cons;
        EXPECT_EQ(give("abc"), 0u) << cons;
        EXPECT_EQ(get(ConsoleRing::kInProd), 0u);
    }
}

TEST_F(Console, AnyIndicesAtAllStayInsideThePage) {
    std::mt19937 random(1);
    for (unsigned n = 0; n < 5000; ++n) {
        for (std::uint32_t at = ConsoleRing::kInCons; at <= ConsoleRing::kOutProd; at += 4) {
            set(at, static_cast<std::uint32_t>(random()));
        }
        EXPECT_LE(peek(4096).size(), std::size_t{ConsoleRing::kOutSize});
        EXPECT_LE(give(std::string(random() % 2000, 'i')), std::size_t{ConsoleRing::kInSize});
        backend.consume_output(random() % 3000);
        static_cast<void>(backend.has_output());
    }
}

// ---- pump_output
// ----------------------------------------------------------------------------------

struct Pipe {
    Pipe() {
        int ends[2];
        EXPECT_EQ(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
        read = vmm::Fd(ends[0]);
        write = vmm::Fd(ends[1]);
    }
    std::string drain() const {
        std::string out;
        char buffer[4096];
        for (ssize_t n = 0; (n = ::read(read.get(), buffer, sizeof buffer)) > 0;) {
            out.append(buffer, static_cast<std::size_t>(n));
        }
        return out;
    }
    vmm::Fd read, write;
};

TEST_F(Console, PumpingMovesBytesAsTheyAre) {
    const Pipe pipe;
    const std::string bytes("\0\r\n\x1b[0m\xff text", 14);
    EXPECT_TRUE(pump_output(backend, pipe.write.get()));
    EXPECT_EQ(notified, 0u);
    guest_writes(bytes);
    EXPECT_TRUE(pump_output(backend, pipe.write.get()));
    EXPECT_EQ(pipe.drain(), bytes);
    EXPECT_FALSE(backend.has_output());
    EXPECT_EQ(notified, 1u);
}

TEST_F(Console, AReaderThatDoesNotKeepUpStopsTheRing) {
    const Pipe pipe;
    const std::string much(2048, 'f');
    std::size_t moved = 0;
    for (;;) {
        if (!backend.has_output()) guest_writes(much);
        const std::uint32_t before = get(ConsoleRing::kOutCons);
        ASSERT_TRUE(pump_output(backend, pipe.write.get()));
        const std::uint32_t now = get(ConsoleRing::kOutCons);
        moved += now - before;
        if (now == before) break;
    }
    EXPECT_TRUE(backend.has_output());  // what the reader did not take waits
    EXPECT_EQ(pipe.drain().size(), moved);
    EXPECT_TRUE(pump_output(backend, pipe.write.get()));
    EXPECT_FALSE(pipe.drain().empty());
}

TEST_F(Console, AReaderThatIsGoneEndsIt) {
    const auto before = std::signal(SIGPIPE, SIG_IGN);  // as the program does
    Pipe pipe;
    pipe.read.reset();
    guest_writes("nobody");
    EXPECT_FALSE(pump_output(backend, pipe.write.get()));
    std::signal(SIGPIPE, before);
}

// What a restored VM has of the console is the guest's page.
TEST_F(Console, AnotherBackendGoesOnWhereThePageIs) {
    guest_writes("hello");
    backend.consume_output(2);
    ASSERT_EQ(give("in"), 2u);
    ConsoleBackend other(page.data() + kGuard, [this] { ++notified; });
    ASSERT_TRUE(other.has_output());
    std::array<std::byte, 16> buffer{};
    EXPECT_EQ(other.peek_output(buffer), 3u);
    EXPECT_EQ(buffer[0], std::byte{'l'});
    other.consume_output(3);
    const std::string more = "put";
    EXPECT_EQ(other.give_input(std::as_bytes(std::span(more.data(), more.size()))), 3u);
    EXPECT_EQ(guest_reads(), "input");
}

}  // namespace
}  // namespace devices::pv
