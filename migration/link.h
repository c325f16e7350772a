// A connection between the two sides of a move. Frames go over it, and between two of them the
// guest itself, as it is written (docs/save-format.md): after the WELCOME to a BEGIN.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "migration/durable.h"
#include "migration/format/sink.h"
#include "migration/format/source.h"
#include "migration/ownership.h"
#include "vmm/base/fd.h"
#include "vmm/base/result.h"

namespace migration {

// All hostile, from whoever is at the other end.
struct Frame {
    enum class Kind : std::uint32_t {
        kBegin = 1,    // source: here comes a guest
        kResume = 2,   // source: about an attempt that was begun on another link
        kWelcome = 3,  // destination: go on
        kRefused = 4,  // destination: not here, and nothing has come of it
        kMessage = 5,  // what `message` says
    };
    Kind kind = Kind::kMessage;
    Event message = Event::kCount;  // kPrepared to kDone, of a kMessage
    Attempt attempt;
    // Of a BEGIN and a RESUME: the attempt's secret, and the folder of the source's records. Of a
    // WELCOME: the folder of the destination's.
    FolderId folder{};
    Secret secret{};
    std::string text = {};  // for the operator: why
    bool operator==(const Frame&) const = default;
};

inline constexpr std::size_t kMostText = 1024;
// Longer text is cut.
std::vector<std::byte> encode(const Frame& frame);

class Link {
  public:
    // How long the other side may take for its next byte, or for taking ours.
    static constexpr std::chrono::seconds kPatience{60};

    // A connected stream socket. `peer`: what the operator calls the other side.
    Link(vmm::Fd socket, std::string peer, std::chrono::milliseconds patience = kPatience);

    int fd() const { return socket_.get(); }
    const std::string& peer() const { return peer_; }
    // A failure means that the link is lost: there is nothing to do with it but to let go of it.
    vmm::Result<void> send(const Frame& frame);
    vmm::Result<Frame> receive();
    // Without waiting; none: not all of it has come yet.
    vmm::Result<std::optional<Frame>> receive_at_once();
    // On a link that is being given up: nobody waits for its being taken.
    void send_at_once(const Frame& frame);

    // From now on nothing is waited for while `fd` is readable (-1: as before). What can be said or
    // heard at once still is.
    void heed(int fd) { heeded_ = fd; }
    bool is_told_to_end() const;

    // Whether something has come that nobody has looked at yet, or the link's end has.
    bool has_something() const;

    // Between frames: all of the pieces; the next bytes, at least one, 0 at the end.
    vmm::Result<void> write(std::span<const format::Piece> pieces);
    vmm::Result<std::size_t> read(std::span<std::byte> to);
    // Says nothing more, and lets what comes go by until the other side has heard that: closed with
    // something unread, the socket would take our last word with it.
    void finish();

  private:
    vmm::Result<void> wait(short event) const;
    vmm::Result<void> read_exactly(std::span<std::byte> to);
    vmm::Result<std::size_t> length_of(std::span<const std::byte> head) const;
    vmm::Result<Frame> frame_of(std::span<const std::byte> bytes) const;

    vmm::Fd socket_;
    std::string peer_;
    std::vector<std::byte> begun_;  // a frame
    std::chrono::milliseconds patience_;
    int heeded_ = -1;
};

// Where the guest is written to. The other side says nothing while it receives unless it cannot go
// on: then neither do we.
class HeededSink final : public format::StreamSink {
  public:
    explicit HeededSink(Link& link) : link_(link) {}
    vmm::Result<void> append(std::span<const format::Piece> pieces) override;

  private:
    Link& link_;
};

// Where it comes out, unless the receiver is told to end.
class LinkSource final : public format::Source {
  public:
    explicit LinkSource(Link& link) : Source(link.peer()), link_(link) {}
    vmm::Result<std::size_t> read(std::span<std::byte> to) override;

  private:
    Link& link_;
};

}  // namespace migration
