#include "migration/durable.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <new>
#include <string_view>
#include <unistd.h>
#include <utility>

#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "migration/format/checksum.h"
#include "vmm/base/saved.h"

namespace migration {

namespace {

using vmm::Result;

// Little-endian: the magic, 32 bits of version, 32 of state, the VM's id, 64 of epoch, the id of
// the peer's folder, the secret, 32 of the length of the guest's name, the name, and the XXH3-64 of
// all that.
constexpr std::string_view kMagic = "XENOWNER";
constexpr std::uint32_t kVersion = 2;  // 1 had neither name nor secret
constexpr std::size_t kMaxGuest = 4096;
constexpr std::size_t kMaxRecord = kMaxGuest + 128;
constexpr std::string_view kSourceEnding = ".source";
// In the folder of the records: its id, in hexadecimal digits.
constexpr std::string_view kIdFile = "/id";

std::string digits_of(std::span<const std::byte> bytes) {
    std::string out;
    for (const std::byte b : bytes) {
        constexpr const char* kDigits = "0123456789abcdef";
        out += kDigits[std::to_integer<unsigned>(b) >> 4];
        out += kDigits[std::to_integer<unsigned>(b) & 15];
    }
    return out;
}

std::string name_of_file(Side side, const VmId& vm) {
    return digits_of(vm) + (side == Side::kSource ? std::string(kSourceEnding) : ".destination");
}

std::optional<VmId> vm_of_file(const std::string& name) {
    VmId vm{};
    for (std::size_t i = 0; i < vm.size() && 2 * i + 1 < name.size(); ++i) {
        unsigned byte = 0;
        const char* const at = &name[2 * i];
        if (std::from_chars(at, at + 2, byte, 16).ptr != at + 2) return std::nullopt;
        vm[i] = static_cast<std::byte>(byte);
    }
    // The one name that it has.
    return name == name_of_file(Side::kSource, vm) ? std::optional(vm) : std::nullopt;
}

bool belongs_to(RecordState state, Side side) {
    return (state == RecordState::kCommit) == (side == Side::kSource);
}

// Notes whether the new file may have taken the name.
class Watch final : public format::FileCalls {
  public:
    explicit Watch(format::FileCalls& calls) : calls_(calls) {}
    bool renamed = false;

    int open(const char* path, int flags, mode_t mode) override {
        return calls_.open(path, flags, mode);
    }
    int kind(const char* path) override { return calls_.kind(path); }
    ssize_t pwrite(int fd, const void* bytes, std::size_t size, off_t offset) override {
        return calls_.pwrite(fd, bytes, size, offset);
    }
    void start_writing(int fd, off_t offset, off_t size) override {
        calls_.start_writing(fd, offset, size);
    }
    int fsync(int fd) override { return calls_.fsync(fd); }
    int link(int fd, const char* path) override { return calls_.link(fd, path); }
    int rename(const char* from, const char* to) override {
        // Whatever it answers: a filesystem that fails half-way has perhaps done it.
        renamed = true;
        return calls_.rename(from, to);
    }
    int unlink(const char* path) override { return calls_.unlink(path); }
    void close(int fd) override { calls_.close(fd); }

  private:
    format::FileCalls& calls_;
};

Result<void> write_file(const std::string& path, std::span<const std::byte> bytes,
                        format::FileCalls& calls) {
    auto file = TRY(format::AtomicFile::create(path, calls));
    TRY(file.write_at(0, bytes));
    return file.commit();
}

Result<std::array<std::byte, 16>> make_random() {
    std::array<std::byte, 16> out{};
    if (::getrandom(out.data(), out.size(), 0) != static_cast<ssize_t>(out.size())) {
        return vmm::errno_error("getrandom");
    }
    return out;
}

// Of an id file, as this wrote it; none: there is no file.
Result<std::optional<FolderId>> read_id(const std::string& path) {
    const vmm::Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (!file) {
        if (errno == ENOENT) return std::optional<FolderId>{};
        return vmm::errno_error(path, vmm::Fault::kHost);
    }
    FolderId id{};
    std::array<char, 2 * id.size() + 2> text{};
    const ssize_t n = ::read(file.get(), text.data(), text.size());
    if (n < 0) return vmm::errno_error(path + ": reading it", vmm::Fault::kHost);
    bool good = n == static_cast<ssize_t>(text.size()) - 1 && text[text.size() - 2] == '\n';
    for (std::size_t i = 0; good && i < id.size(); ++i) {
        unsigned byte = 0;
        const char* const at = &text[2 * i];
        good = std::from_chars(at, at + 2, byte, 16).ptr == at + 2;
        id[i] = static_cast<std::byte>(byte);
    }
    // Another one would be another host.
    if (!good || id == FolderId{}) return vmm::host_error(path + ": it is damaged");
    return std::optional(id);
}

// The folder's own, which the first who asks makes.
Result<FolderId> id_of(const std::string& folder) {
    const vmm::Fd lock(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!lock) return vmm::errno_error(folder, vmm::Fault::kHost);
    while (::flock(lock.get(), LOCK_EX) != 0) {
        if (errno != EINTR) return vmm::errno_error(folder + ": locking it", vmm::Fault::kHost);
    }
    const std::string path = folder + std::string(kIdFile);
    if (const auto id = TRY(read_id(path))) return *id;
    const FolderId id = TRY(make_random());
    const std::string text = digits_of(id) + '\n';
    TRY(write_file(path, std::as_bytes(std::span(text)), format::system_file_calls()));
    return id;
}

}  // namespace

Result<Secret> make_secret() {
    return make_random();
}

std::vector<std::byte> encode(const Record& record) {
    vmm::saved::Encoder out;
    out.raw(std::as_bytes(std::span(kMagic)));
    out.integer(kVersion, 4);
    out.integer(static_cast<std::uint64_t>(record.state), 4);
    out.raw(record.attempt.vm);
    out.integer(record.attempt.epoch, 8);
    out.raw(record.peer.folder);
    out.raw(record.peer.secret);
    out.integer(record.guest.size(), 4);
    out.raw(std::as_bytes(std::span(record.guest)));
    std::vector<std::byte> bytes = out.take();
    vmm::saved::Encoder sum;
    sum.integer(format::checksum(bytes), 8);
    const auto tail = sum.take();
    bytes.insert(bytes.end(), tail.begin(), tail.end());
    return bytes;
}

vmm::Expected<Record, std::string> decode_record(std::span<const std::byte> bytes) {
    constexpr std::size_t kSum = 8;
    if (bytes.size() < kMagic.size() + kSum ||
        std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) {
        return vmm::Failure{std::string("no record of a move")};
    }
    vmm::saved::Decoder in(bytes.subspan(kMagic.size()));
    const std::uint64_t version = in.integer(4);
    if (in.ok() && version != kVersion) {
        return vmm::Failure{"version " + std::to_string(version) + " is not known"};
    }
    vmm::saved::Decoder sum(bytes.last(kSum));
    if (sum.integer(kSum) != format::checksum(bytes.first(bytes.size() - kSum))) {
        return vmm::Failure{std::string("its checksum is another: it is torn or damaged")};
    }
    const std::uint64_t state = in.integer(4);
    Record record;
    const auto vm = in.raw(record.attempt.vm.size());
    std::copy(vm.begin(), vm.end(), record.attempt.vm.begin());
    record.attempt.epoch = in.integer(8);
    for (auto* const id : {&record.peer.folder, &record.peer.secret}) {
        const auto raw = in.raw(id->size());
        std::copy(raw.begin(), raw.end(), id->begin());
    }
    const auto guest = in.raw(in.integer(4));
    record.guest.resize(guest.size());
    if (!guest.empty()) std::memcpy(record.guest.data(), guest.data(), guest.size());
    if (in.ok() && in.left() != kSum) in.fail("bytes are left over");
    if (!in.ok()) return vmm::Failure{in.failure()};
    if (state < static_cast<std::uint64_t>(RecordState::kCommit) ||
        state > static_cast<std::uint64_t>(RecordState::kAborted)) {
        return vmm::Failure{"state " + std::to_string(state) + " is not known"};
    }
    record.state = static_cast<RecordState>(state);
    return record;
}

namespace {

Result<std::optional<Record>> read_record(const std::string& path, Side side, const VmId& vm) {
    const vmm::Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (!file) {
        if (errno == ENOENT) return std::optional<Record>{};
        return vmm::errno_error(path, vmm::Fault::kHost);
    }
    std::vector<std::byte> bytes(kMaxRecord + 1);
    std::size_t size = 0;
    while (size < bytes.size()) {
        const ssize_t n = ::read(file.get(), &bytes[size], bytes.size() - size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return vmm::errno_error(path + ": reading it", vmm::Fault::kHost);
        if (n == 0) break;
        size += static_cast<std::size_t>(n);
    }
    bytes.resize(size);
    if (size > kMaxRecord) return vmm::host_error(path + ": it is too long for a record");
    auto record = decode_record(bytes);
    if (!record) return vmm::host_error(path + ": " + record.error());
    if (record->attempt.vm != vm) return vmm::host_error(path + ": it is another guest's");
    if (!belongs_to(record->state, side)) {
        return vmm::host_error(path + ": it is the other side's");
    }
    return std::optional<Record>(*std::move(record));
}

}  // namespace

Result<LockFile> LockFile::take(std::string path, std::string keeper) {
    for (;;) {
        vmm::Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
        if (!file) return vmm::errno_error(path, vmm::Fault::kHost);
        while (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
            if (errno == EINTR) continue;
            if (errno != EWOULDBLOCK) {
                return vmm::errno_error(path + ": locking it", vmm::Fault::kHost);
            }
            return vmm::host_error(path + ": another process has this guest's move in hand");
        }
        // Whoever had it may have taken the file away in between: then this is nobody's lock.
        struct stat ours {
        }, there{};
        if (::fstat(file.get(), &ours) != 0) return vmm::errno_error(path, vmm::Fault::kHost);
        if (::lstat(path.c_str(), &there) == 0 && ours.st_dev == there.st_dev &&
            ours.st_ino == there.st_ino) {
            return LockFile(std::move(file), std::move(path), std::move(keeper));
        }
    }
}

LockFile::~LockFile() {
    // While it is ours: nobody else's is there under this name.
    if (file_ && ::access(keeper_.c_str(), F_OK) != 0 && errno == ENOENT) ::unlink(path_.c_str());
}

Result<Records> Records::open(std::string folder, Side side, const VmId& vm) {
    // A file of its own: the record's is replaced by another at each write.
    const std::string record = folder + '/' + name_of_file(side, vm);
    auto lock = TRY(LockFile::take(record + ".lock", record));
    const FolderId id = TRY(id_of(folder));
    Records records(std::move(lock), std::move(folder), side, vm);
    records.folder_id_ = id;
    return records;
}

Records::Records(LockFile lock, std::string folder, Side side, const VmId& vm,
                 format::FileCalls& calls)
    : lock_(std::move(lock)),
      folder_(std::move(folder)),
      side_(side),
      vm_(vm),
      path_(folder_ + '/' + name_of_file(side, vm)),
      calls_(&calls) {}

Result<std::optional<Record>> Records::read() const {
    return read_record(path_, side_, vm_);
}

Result<std::vector<LeftBehind>> left_by_sources(const std::string& folder) {
    std::vector<LeftBehind> all;
    std::error_code failed;
    for (std::filesystem::directory_iterator at(folder, failed), end; !failed && at != end;
         at.increment(failed)) {
        const auto vm = vm_of_file(at->path().filename());
        if (!vm) continue;
        auto record = read_record(at->path(), Side::kSource, *vm);
        if (record && !*record) continue;  // just now
        all.push_back({.path = at->path(),
                       .vm = *vm,
                       .record = record ? Result<Record>(**std::move(record))
                                        : Result<Record>(vmm::Failure{record.error()})});
    }
    if (failed) return vmm::host_error(folder + ": " + failed.message());
    return all;
}

Records::Outcome Records::write(const Record& record) const {
    if (record.attempt.vm != vm_ || !belongs_to(record.state, side_) ||
        record.guest.size() > kMaxGuest) {
        return {Event::kNotWritten, {vmm::Fault::kInternal, path_ + ": not a record of its own"}};
    }
    Watch watch(*calls_);
    const auto written = [&]() -> Result<void> {
        try {
            return write_file(path_, encode(record), watch);
        } catch (const std::bad_alloc&) {
            return vmm::host_error("out of memory");  // short: takes none itself
        }
    }();
    if (written) return {};
    return {watch.renamed ? Event::kMaybeWritten : Event::kNotWritten, written.error()};
}

Result<void> Records::erase() const {
    const int folder = calls_->open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (folder < 0) return vmm::errno_error(folder_, vmm::Fault::kHost);
    int failed = 0;
    if (calls_->unlink(path_.c_str()) != 0 && errno != ENOENT) failed = errno;
    if (failed == 0 && calls_->fsync(folder) != 0) failed = errno;
    calls_->close(folder);
    if (failed != 0) return vmm::errno_error(path_ + ": erasing it", vmm::Fault::kHost, failed);
    return {};
}

}  // namespace migration
