#include "migration/format/order.h"

#include <algorithm>
#include <iterator>

namespace migration::format {

namespace {

using vmm::Failure;

std::string quoted(const Name& name) {
    return '"' + to_string(name) + '"';
}

Verdict of_the_format(const RecordHeader& header, std::uint32_t version) {
    if (header.version != version) {
        return Failure{"version " + std::to_string(header.version) + " is not known"};
    }
    if (header.flags != kMandatory) return Failure{std::string("it is always mandatory")};
    return {};
}

Verdict only_one(const RecordHeader& header) {
    if (header.instance != 0) return Failure{std::string("there is only one, instance 0")};
    return {};
}

}  // namespace

Order::Promised* Order::promised(const Name& name) {
    const auto at = std::lower_bound(
        kinds_.begin(), kinds_.end(), name,
        [](const Promised& one, const Name& other) { return one.kind.name < other; });
    return at != kinds_.end() && at->kind.name == name ? &*at : nullptr;
}

Verdict Order::take(const RecordHeader& header) {
    if (phase_ == Phase::kEnded) return Failure{"nothing comes after " + std::string(kEnd)};
    if (!is_name(header.name)) return Failure{std::string("this is no record's name")};
    if ((header.flags & ~kMandatory) != 0) {
        return Failure{"flags " + std::to_string(header.flags) + " are not known"};
    }
    if (header.reserved != 0) return Failure{std::string("reserved bytes are not zero")};
    const std::string name = to_string(header.name);
    if (name == kProfile) {
        if (phase_ != Phase::kStart) return Failure{std::string("it comes once, and first")};
        phase_ = Phase::kAfterProfile;
        TRY(only_one(header));
        if (header.version == 0) return Failure{std::string("there is no version 0")};
        if (header.flags != kMandatory) return Failure{std::string("it is always mandatory")};
    } else if (phase_ == Phase::kStart) {
        return Failure{std::string(kProfile) + " comes first"};
    } else if (name == kContents) {
        if (phase_ != Phase::kAfterProfile) {
            return Failure{"it comes once, after " + std::string(kProfile)};
        }
        phase_ = Phase::kInContents;
        TRY(of_the_format(header, kContentsVersion));
        TRY(only_one(header));
    } else if (phase_ != Phase::kRecords) {
        return Failure{std::string(kContents) + " comes before it"};
    } else if (name == kEnd) {
        TRY(of_the_format(header, kEndVersion));
        TRY(only_one(header));
        if (header.length != sizeof(End)) {
            return Failure{"it has " + std::to_string(sizeof(End)) + " bytes"};
        }
        TRY(complete());
        phase_ = Phase::kEnded;
        return {};
    } else if (name == kMemory) {
        TRY(of_the_format(header, kMemoryVersion));
        Promised* const kind = promised(header.name);
        if (kind == nullptr) return Failure{std::string(kContents) + " has it not"};
        kind->came = true;
        ++records_;
        return {};
    } else {
        TRY(take_state(header));
    }
    if (header.length > kMostPayload) {
        return Failure{"it says that it has " + std::to_string(header.length) + " bytes, and " +
                       std::to_string(kMostPayload) + " is the most"};
    }
    state_bytes_ += header.length;
    if (state_bytes_ > kMostState) {
        return Failure{"with it there are " + std::to_string(state_bytes_) +
                       " bytes besides memory, and " + std::to_string(kMostState) + " is the most"};
    }
    ++records_;
    return {};
}

Verdict Order::take_state(const RecordHeader& header) {
    Promised* const kind = promised(header.name);
    if (kind == nullptr) return Failure{std::string(kContents) + " has it not"};
    if (kind->kind.version != header.version || kind->kind.flags != header.flags) {
        return Failure{std::string(kContents) + " has another version or flag of it"};
    }
    if (seen_.size() == kMostRecords) {
        return Failure{"there are more than " + std::to_string(kMostRecords) + " records"};
    }
    if (!seen_.emplace(header.name, header.instance).second) {
        return Failure{"instance " + std::to_string(header.instance) + " of it was there before"};
    }
    kind->came = true;
    return {};
}

Verdict Order::take_contents(std::span<const Kind> kinds) {
    if (kinds.size() > kMostKinds) {
        return Failure{"there are more than " + std::to_string(kMostKinds) + " kinds of records"};
    }
    for (std::size_t i = 0; i < kinds.size(); ++i) {
        const Kind& kind = kinds[i];
        if (!is_name(kind.name)) {
            return Failure{"kind " + std::to_string(i) + " has no record's name"};
        }
        const std::string name = to_string(kind.name);
        if (name == kProfile || name == kContents || name == kEnd) {
            return Failure{quoted(kind.name) + " is of no use here"};
        }
        if (i != 0 && !(kinds[i - 1].name < kind.name)) {
            return Failure{quoted(kind.name) + " is out of order"};
        }
        if (kind.version == 0) return Failure{quoted(kind.name) + " has version 0"};
        if ((kind.flags & ~kMandatory) != 0) {
            return Failure{quoted(kind.name) + " has unknown flags"};
        }
        if (name == kMemory && (kind.version != kMemoryVersion || kind.flags != kMandatory)) {
            return Failure{quoted(kind.name) + " has another version or flag than is known"};
        }
    }
    for (const Kind& kind : kinds) {
        kinds_.push_back({kind});
    }
    phase_ = Phase::kRecords;
    return {};
}

Verdict Order::take_runs(std::uint32_t round, std::span<const PageRun> runs) {
    if (round < round_) return Failure{std::string("a later round was there before")};
    if (round > round_) {
        round_ = round;
        covered_.clear();
    }
    std::uint64_t end_of_last = 0;
    for (const PageRun& run : runs) {
        const std::string what =
            std::to_string(run.pages) + " pages at frame " + std::to_string(run.gfn);
        if (run.pages == 0) return Failure{"a run of " + what};
        if (run.gfn >= kEndOfFrames || run.pages > kEndOfFrames - run.gfn) {
            return Failure{what + " end beyond all memory"};
        }
        if (run.gfn < end_of_last) return Failure{what + " are out of order"};
        end_of_last = run.gfn + run.pages;

        auto after = covered_.upper_bound(run.gfn);
        const auto before = after == covered_.begin() ? covered_.end() : std::prev(after);
        if ((before != covered_.end() && before->second > run.gfn) ||
            (after != covered_.end() && after->first < end_of_last)) {
            return Failure{"of " + what + " some were there before"};
        }
        // Neighbours become one, so that this stays as small as memory is whole.
        std::uint64_t end = end_of_last;
        if (after != covered_.end() && after->first == end) {
            end = after->second;
            covered_.erase(after);
        }
        if (before != covered_.end() && before->second == run.gfn) {
            before->second = end;
        } else {
            covered_.emplace(run.gfn, end);
        }
    }
    return {};
}

Verdict Order::complete() const {
    for (const Promised& one : kinds_) {
        // A guest may have no page that is not zero.
        if (!one.came && to_string(one.kind.name) != kMemory) {
            return Failure{std::string(kContents) + " promises " + quoted(one.kind.name) +
                           ", which has not come"};
        }
    }
    return {};
}

}  // namespace migration::format
