// What another profile would make of a call: the compatibility report of a driver. It asks
// xenshim/abi only: the same tables that the hypercalls themselves are answered by.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "xenshim/trace/reader.h"

namespace xenshim::trace {

// Why a call is treated differently, as scripts read it. docs/trace.md explains each.
enum class Reason : std::uint8_t {
    kHypercall,     // the hypercall exists in one of the two only
    kOperation,     // likewise the sub-op
    kNumber,        // RAX is read otherwise
    kRing,          // the caller's ring may call in one only
    kCommand,       // the sub-op register's bits mean something else
    kWidth,         // because of how wide the register is
    kStrayBits,     // bits that the operation does not use
    kContinuation,  // a continuation in flight means something else
    kProgress,      // progress is kept at another place
    kExtents,       // more extents than can be continued
    kSpace,         // XENMAPSPACE_*
    kParam,         // HVM_PARAM_*
    kError,         // another error code
    kStructure,     // the argument's structure is read otherwise
    kAnswer,        // another answer: versions and features
};
std::string_view to_string(Reason reason);

struct Difference {
    Reason reason;
    // "here" is the trace's profile, "there" the other one. The same for all calls of an operation
    // that differ in this way.
    std::string what;
    std::string detail;  // of this call; may be empty
};

// What is known of the guest besides the call.
struct Guest {
    std::uint16_t domid = 1;
    std::optional<unsigned> vcpus{};
    bool vcpu_info_placed = false;  // of the vCPU that the call names
};

// `reissued`: the call's registers are a continuation, not a guest's own choice. A multicall stands
// for its entries too, as far as they were kept.
std::vector<Difference> differences(const abi::Profile& here, const abi::Profile& there,
                                    const Event& call, bool reissued, const Guest& guest = {});

struct Finding {
    std::string operation;
    Difference first;
    std::uint64_t calls = 0;
    // Of the first one.
    std::uint64_t time_ns = 0;
    unsigned vcpu = 0;
    Event call;
};

class Check {
  public:
    Check(const Header& header, const abi::Profile& there);

    void add(const Event& call);
    // The guest was started anew.
    void restart();

    const abi::Profile& here() const { return here_; }
    const abi::Profile& there() const { return there_; }
    std::uint64_t calls() const { return calls_; }
    const std::vector<Finding>& findings() const { return findings_; }

  private:
    bool take_reissue(const abi::Request& request);
    Guest guest_of(const abi::Request& request) const;

    abi::Profile here_;  // with what the trace's VM had besides
    const abi::Profile& there_;
    const std::uint16_t domid_;
    const unsigned vcpus_;
    std::uint64_t calls_ = 0;
    std::vector<Finding> findings_;
    std::map<std::string, std::size_t> by_key_;
    // Continuations that no vCPU has taken up yet. A guest may drop one: only so many are kept.
    std::deque<abi::Request> in_flight_;
    std::set<std::uint32_t> vcpu_infos_;  // vCPUs that placed theirs
};

}  // namespace xenshim::trace
