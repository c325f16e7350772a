#include "xenshim/trace/reader.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <unistd.h>

#include "vmm/base/fd.h"

namespace xenshim::trace {
namespace {

constexpr unsigned kMostVcpus = 4096;

// A zero-filled name of the header: letters, digits and what our names are made of, so that it can
// be shown on any terminal.
template <std::size_t N>
std::optional<std::string> name_in(const std::array<char, N>& field) {
    const auto end = std::find(field.begin(), field.end(), '\0');
    if (end == field.end() || end == field.begin()) return std::nullopt;
    const bool plain = std::all_of(field.begin(), end, [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.';
    });
    if (!plain) return std::nullopt;
    return std::string(field.begin(), end);
}

// A file, in large pieces.
class FileSource {
  public:
    FileSource(vmm::Fd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

    vmm::Result<std::size_t> read(std::span<std::byte> to) {
        if (at_ == have_) {
            ssize_t got = 0;
            do {
                got = ::read(fd_.get(), buffer_.data(), buffer_.size());
            } while (got < 0 && errno == EINTR);
            if (got < 0) return vmm::errno_error(path_, vmm::Fault::kUser);
            at_ = 0;
            have_ = static_cast<std::size_t>(got);
        }
        const std::size_t n = std::min(to.size(), have_ - at_);
        std::memcpy(to.data(), buffer_.data() + at_, n);
        at_ += n;
        return n;
    }

  private:
    vmm::Fd fd_;
    std::string path_;
    std::vector<std::byte> buffer_ = std::vector<std::byte>(std::size_t{256} << 10);
    std::size_t at_ = 0, have_ = 0;
};

}  // namespace

vmm::Failure<vmm::Error> Reader::bad(const std::string& what) const {
    return vmm::user_error(name_ + ": offset " + std::to_string(record_offset_) + ": " + what);
}

vmm::Result<Reader> Reader::open(const std::string& path) {
    vmm::Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) return vmm::errno_error(path, vmm::Fault::kUser);
    auto source = std::make_shared<FileSource>(std::move(fd), path);
    return from([source](std::span<std::byte> to) { return source->read(to); }, path);
}

vmm::Result<Reader> Reader::from(Source source, std::string name) {
    Reader reader(std::move(source), std::move(name));
    TRY(reader.read_header());
    return reader;
}

vmm::Result<bool> Reader::fill(std::span<std::byte> to, const char* what) {
    std::size_t have = 0;
    while (have < to.size()) {
        const std::size_t got = TRY(source_(to.subspan(have)));
        if (got == 0) {
            if (have == 0) return false;
            return bad(std::string("the file ends in the middle of ") + what);
        }
        have += got;
        offset_ += got;
    }
    return true;
}

vmm::Result<void> Reader::read_header() {
    FileHeader raw;
    const bool any = TRY(fill(std::as_writable_bytes(std::span(&raw, 1)), "the header"));
    if (!any) return bad("the file is empty");
    if (raw.magic != kMagic) return bad("this is no trace of xenolith's");
    if (raw.version != kVersion) {
        return bad("version " + std::to_string(raw.version) + " of the format is not known, only " +
                   std::to_string(kVersion));
    }
    if (raw.header_bytes != sizeof raw) return bad("the header has a wrong size");
    if (raw.vcpus == 0 || raw.vcpus > kMostVcpus) return bad("the number of vCPUs is absurd");
    const auto profile = name_in(raw.profile);
    const auto transport = name_in(raw.transport);
    if (!profile || !transport) return bad("the names in the header are no names");
    header_.profile = abi::find_profile(*profile);
    if (header_.profile == nullptr) return bad("there is no profile " + *profile);
    header_.transport = *transport;
    header_.vcpus = raw.vcpus;
    header_.domid = raw.domid;
    header_.legacy_quirks = raw.legacy_quirks != 0;
    header_.started_ns = raw.started_ns;
    return {};
}

vmm::Result<std::optional<Event>> Reader::next() {
    record_offset_ = offset_;
    std::array<std::byte, kMostRecordBytes> buffer;
    RecordHead head;
    const std::span whole(buffer);
    const bool any = TRY(fill(whole.first(sizeof head), "a record"));
    if (!any) return std::optional<Event>();
    if (complete_) return bad("something follows the end of the trace");
    std::memcpy(&head, buffer.data(), sizeof head);
    if (head.bytes < sizeof(MarkRecord) || head.bytes > buffer.size() || head.bytes % 8 != 0) {
        return bad("a record of " + std::to_string(head.bytes) + " bytes");
    }
    const bool rest = TRY(fill(whole.subspan(sizeof head, head.bytes - sizeof head), "a record"));
    if (!rest) return bad("the file ends in the middle of a record");
    if (head.vcpu >= header_.vcpus) return bad("there is no vCPU " + std::to_string(head.vcpu));

    Event event;
    event.kind = head.kind;
    event.vcpu = head.vcpu;
    event.time_ns = head.time_ns;
    switch (head.kind) {
        case Kind::kCall: TRY(parse_call(head, whole.first(head.bytes), event)); break;
        case Kind::kDropped:
        case Kind::kRestart:
        case Kind::kEnd:
            if (head.bytes != sizeof(MarkRecord)) return bad("a mark has a wrong size");
            std::memcpy(&event.value, buffer.data() + sizeof head, sizeof event.value);
            break;
        default:
            return bad("record kind " + std::to_string(static_cast<unsigned>(head.kind)) +
                       " is not known");
    }
    if (head.kind == Kind::kEnd) {
        if (event.value != records_) return bad("the trace's end counts other records");
        complete_ = true;
    }
    ++records_;
    return std::optional(std::move(event));
}

vmm::Result<void> Reader::parse_call(const RecordHead& head, std::span<const std::byte> record,
                                     Event& event) const {
    CallRecord call;
    if (record.size() < sizeof call) return bad("a call's record is too short");
    std::memcpy(&call, record.data(), sizeof call);
    if (head.word_bytes != 4 && head.word_bytes != 8) return bad("a caller of no width");
    if (head.cpl > 3) return bad("a caller in ring " + std::to_string(head.cpl));
    if (head.ending > Ending::kBlock) return bad("a call that ends in no known way");
    const bool continues = head.ending == Ending::kContinue;
    if (call.in_bytes > kMostMulticallBytes || call.out_bytes > kMostBytes ||
        record.size() != sizeof call + (continues ? sizeof call.args : 0) + padded(call.in_bytes) +
                             padded(call.out_bytes)) {
        return bad("a call's record whose parts do not add up");
    }
    event.request = {.number = call.number,
                     .args = call.args,
                     .width = head.word_bytes == 8 ? abi::Width::k64 : abi::Width::k32,
                     .cpl = head.cpl};
    event.ending = head.ending;
    event.result = call.result;
    event.duration_ns = call.duration_ns;
    record = record.subspan(sizeof call);
    if (continues) {
        std::memcpy(event.next_args.data(), record.data(), sizeof event.next_args);
        record = record.subspan(sizeof event.next_args);
    }
    const auto in = record.first(call.in_bytes);
    event.in.assign(in.begin(), in.end());
    record = record.subspan(padded(call.in_bytes));
    const auto out = record.first(call.out_bytes);
    event.out.assign(out.begin(), out.end());
    if (event.request.width == abi::Width::k32) {
        const auto wide = [](std::uint64_t value) { return value > UINT32_MAX; };
        if (wide(call.number) || std::any_of(call.args.begin(), call.args.end(), wide) ||
            std::any_of(event.next_args.begin(), event.next_args.end(), wide)) {
            return bad("a 32-bit caller's register is wider");
        }
    }
    return {};
}

}  // namespace xenshim::trace
