// Reads a trace file. The file may hold anything: each record is checked before it is shown, and
// what is wrong with it is said with the offset where it stands.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "vmm/base/result.h"
#include "xenshim/abi/profile.h"
#include "xenshim/trace/record.h"

namespace xenshim::trace {

struct Header {
    const abi::Profile* profile = nullptr;
    std::string transport;
    unsigned vcpus = 1;
    std::uint16_t domid = 0;
    bool legacy_quirks = false;
    std::uint64_t started_ns = 0;
};

// One record, whatever its kind.
struct Event {
    Kind kind = Kind::kCall;
    unsigned vcpu = 0;
    std::uint64_t time_ns = 0;
    std::uint64_t value = 0;  // of all but kCall

    // kCall.
    abi::Request request;
    Ending ending = Ending::kFinish;
    std::int64_t result = 0;
    std::array<std::uint64_t, 5> next_args{};  // kContinue: what the guest goes on with
    std::uint64_t duration_ns = 0;
    std::vector<std::byte> in, out;  // the argument structure's first bytes, as read and as written
};

class Reader {
  public:
    // Gives as many bytes as it has, up to those asked for; none at the end.
    using Source = std::function<vmm::Result<std::size_t>(std::span<std::byte>)>;

    // `name` is for messages.
    static vmm::Result<Reader> open(const std::string& path);
    static vmm::Result<Reader> from(Source source, std::string name);

    const Header& header() const { return header_; }
    // The next record; nothing at the end of the file. Every failure names file and offset.
    vmm::Result<std::optional<Event>> next();
    // Whether the trace ends as the writer ends one. If not, the program was killed, or its disk
    // was full.
    bool complete() const { return complete_; }

  private:
    Reader(Source source, std::string name) : source_(std::move(source)), name_(std::move(name)) {}

    vmm::Result<void> read_header();
    // False: the file ended before the first of these bytes.
    vmm::Result<bool> fill(std::span<std::byte> to, const char* what);
    vmm::Result<void> parse_call(const RecordHead& head, std::span<const std::byte> rest,
                                 Event& event) const;
    vmm::Failure<vmm::Error> bad(const std::string& what) const;

    Source source_;
    std::string name_;
    Header header_;
    std::uint64_t offset_ = 0;         // of the next byte
    std::uint64_t record_offset_ = 0;  // of the record being read
    std::uint64_t records_ = 0;
    bool complete_ = false;
};

}  // namespace xenshim::trace
