// What each side of a move keeps on its disk: COMMIT at the source, OWN or ABORTED at the
// destination. A record is one small file of one guest and one side; a newer one takes its place
// whole or not at all. migration/ownership.h says when each is written and what it means.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "migration/format/atomic_file.h"
#include "migration/ownership.h"
#include "vmm/base/fd.h"
#include "vmm/base/result.h"

namespace migration {

// Which folder of records, of all hosts: made at random, once, and kept in it.
using FolderId = std::array<std::byte, 16>;
// Of one attempt, at random; nobody knows it but the two sides.
using Secret = std::array<std::byte, 16>;

// With whom an attempt was begun. Where there is no record nothing was ever owned, which must not
// be asked elsewhere; and who does not know the secret is not the other side.
struct Peer {
    FolderId folder{};  // the other side's
    Secret secret{};
    bool operator==(const Peer&) const = default;
};
vmm::Result<Secret> make_secret();

struct Record {
    Attempt attempt;
    RecordState state = RecordState::kCommit;
    Peer peer;
    // What the operator calls the guest at the source, where he will ask for it.
    std::string guest = {};
    bool operator==(const Record&) const = default;
};

std::vector<std::byte> encode(const Record& record);
// The only bytes that a record has, or why these are none.
vmm::Expected<Record, std::string> decode_record(std::span<const std::byte> bytes);

// A lock that is a file, of one process at a time.
class LockFile {
  public:
    // Fault::kHost: another has it. Whoever has it takes the file away at the end, unless there is
    // a file `keeper` then.
    static vmm::Result<LockFile> take(std::string path, std::string keeper);
    LockFile() = default;
    LockFile(LockFile&&) noexcept = default;
    LockFile& operator=(LockFile&&) = delete;
    ~LockFile();

  private:
    LockFile(vmm::Fd file, std::string path, std::string keeper)
        : file_(std::move(file)), path_(std::move(path)), keeper_(std::move(keeper)) {}

    vmm::Fd file_;  // none: it is another's now, or never was
    std::string path_;
    std::string keeper_;
};

class Records {
  public:
    // `folder` exists. Fails when another process speaks for this side of this guest: two that read
    // the same records could give two answers.
    static vmm::Result<Records> open(std::string folder, Side side, const VmId& vm);

    // For whoever holds the lock, or needs none.
    Records(LockFile lock, std::string folder, Side side, const VmId& vm,
            format::FileCalls& calls = format::system_file_calls());

    // The same, by other calls.
    Records with(format::FileCalls& calls) && {
        calls_ = &calls;
        return std::move(*this);
    }

    const std::string& path() const { return path_; }
    // All zeroes: of records that were not opened.
    const FolderId& folder_id() const { return folder_id_; }

    // None, or one of this guest and this side. What is there and is no such thing is a failure: it
    // may have been a promise.
    vmm::Result<std::optional<Record>> read() const;

    struct Outcome {
        Event event = Event::kWritten;  // or kNotWritten, kMaybeWritten
        vmm::Error error{};             // why not
    };
    Outcome write(const Record& record) const;

    // When it succeeds, no power cut brings it back.
    vmm::Result<void> erase() const;

  private:
    LockFile lock_;
    std::string folder_;
    FolderId folder_id_{};
    Side side_;
    VmId vm_;
    std::string path_;
    format::FileCalls* calls_;
};

// A source's record that was left behind: what a new process can pass on.
struct LeftBehind {
    std::string path;
    VmId vm{};  // as the file's name says
    vmm::Result<Record> record;
};
// Those in `folder`, of all guests, without a lock.
vmm::Result<std::vector<LeftBehind>> left_by_sources(const std::string& folder);

}  // namespace migration
