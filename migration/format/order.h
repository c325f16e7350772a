// What may follow what: the rules that hold across records, for the writer and the reader alike, so
// that nothing is written that would be refused.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "migration/format/format.h"
#include "vmm/base/result.h"

namespace migration::format {

using Verdict = vmm::Expected<void, std::string>;

class Order {
  public:
    // The next record's header; anything but its checksums is judged.
    Verdict take(const RecordHeader& header);
    // Of vm.contents, after its header.
    Verdict take_contents(std::span<const Kind> kinds);
    // Of memory, after its header.
    Verdict take_runs(std::uint32_t round, std::span<const PageRun> runs);
    // Before "end": whether all that was promised has come.
    Verdict complete() const;

    // Records so far.
    std::uint64_t records() const { return records_; }
    bool ended() const { return phase_ == Phase::kEnded; }

  private:
    enum class Phase { kStart, kAfterProfile, kInContents, kRecords, kEnded };
    struct Promised {
        Kind kind;
        bool came = false;
    };

    Verdict take_state(const RecordHeader& header);
    Promised* promised(const Name& name);

    Phase phase_ = Phase::kStart;
    std::uint64_t records_ = 0;
    std::uint64_t state_bytes_ = 0;
    std::vector<Promised> kinds_;  // ascending by name
    std::set<std::pair<Name, std::uint32_t>> seen_;
    std::uint32_t round_ = 0;
    std::map<std::uint64_t, std::uint64_t> covered_;  // of this round: first gfn to the one after
};

}  // namespace migration::format
