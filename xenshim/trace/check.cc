#include "xenshim/trace/check.h"

#include <algorithm>
#include <cstring>

#include "xenshim/abi/continuation.h"
#include "xenshim/abi/hvm_params.h"
#include "xenshim/abi/operations.h"
#include "xenshim/abi/other_numbers.h"
#include "xenshim/abi/structs.h"
#include "xenshim/trace/decode.h"

namespace xenshim::trace {
namespace {

using namespace abi;

std::string hex(std::uint64_t value) {
    std::array<char, 24> text{};
    std::snprintf(text.data(), text.size(), "0x%llx", static_cast<unsigned long long>(value));
    return text.data();
}

// A member of the structure as the handler read it, if it was kept.
template <class T>
std::optional<T> member(const Event& call, std::size_t at) {
    if (call.in.size() < at + sizeof(T)) return std::nullopt;
    T value;
    std::memcpy(&value, call.in.data() + at, sizeof value);
    return value;
}
template <class S32, class S64>
std::optional<std::uint64_t> word(const Event& call, std::uint64_t S64::*wide,
                                  std::uint32_t S32::*narrow) {
    if (call.request.width == Width::k64) {
        const auto value = member<S64>(call, 0);
        return value ? std::optional((*value).*wide) : std::nullopt;
    }
    const auto value = member<S32>(call, 0);
    return value ? std::optional<std::uint64_t>((*value).*narrow) : std::nullopt;
}

class Comparison {
  public:
    Comparison(const Profile& here, const Profile& there, const Event& call, bool reissued)
        : here_(here), there_(there), call_(call), reissued_(reissued) {}

    std::vector<Difference> run() {
        if (same_gate()) operation();
        return std::move(found_);
    }

  private:
    static constexpr const char* kMeansSomethingElse =
        "a continuation in flight means something else there";
    static constexpr const char* kIsRefused = "a continuation in flight is refused there: -ENOSYS";

    const Request& request() const { return call_.request; }
    void add(Reason reason, std::string what, std::string detail = {}) {
        found_.push_back({reason, std::move(what), std::move(detail)});
    }
    // Says it from the other profile's side. `there`: what the guest gets of it there.
    void add_existence(Reason reason, Standing there, const std::string& missing) {
        add(reason, there == Standing::kAbsent       ? "does not exist there: " + missing
                    : there == Standing::kPrivileged ? "exists there, not here: -EPERM to a guest"
                                                     : std::string("exists there, not here"));
    }

    static bool may_call(const Profile& profile, unsigned cpl) {
        return cpl == 0 || (cpl < 3 && profile.only_ring3_refused);
    }
    // One that answers -ENOSYS to every HVM guest might as well not exist.
    static Standing hypercall_standing(const Profile& profile, std::uint64_t number) {
        const Hypercall* known = find_hypercall(number);
        if (known == nullptr || (profile.hypercalls >> number & 1) == 0) return Standing::kAbsent;
        return known->standing;
    }

    // What comes before any handler. False: no handler runs in one of the two, or in both.
    bool same_gate() {
        const bool may_here = may_call(here_, request().cpl);
        const bool may_there = may_call(there_, request().cpl);
        if (may_here != may_there) {
            add(Reason::kRing, may_there ? "ring 1 and 2 may call there"
                                         : "ring 1 and 2 may not call there: -EPERM");
        }
        if (!may_here || !may_there) return false;
        const std::uint64_t number_here = hypercall_number(here_, request());
        const std::uint64_t number_there = hypercall_number(there_, request());
        const Standing there = hypercall_standing(there_, number_there);
        const bool has_here = hypercall_standing(here_, number_here) != Standing::kAbsent;
        const bool has_there = there != Standing::kAbsent;
        if (!has_here && !has_there) return false;
        if (number_here != number_there) {
            add(Reason::kNumber,
                there_.wide_numbers ? "the upper half of RAX counts there: -ENOSYS"
                                    : "the upper half of RAX is ignored there",
                "RAX " + hex(request().number));
            return false;
        }
        if (has_here != has_there) add_existence(Reason::kHypercall, there, "-ENOSYS");
        return has_here && has_there;
    }

    static Standing standing(const Profile& profile, std::uint64_t number, const SubOp& sub_op) {
        const Operation* known = find_operation(number, sub_op.at.op);
        return known == nullptr ? Standing::kAbsent : standing_of(profile, *known);
    }

    void operation() {
        const std::uint64_t number = hypercall_number(here_, request());
        if (number == HYPERVISOR_multicall) {
            multicall();
            continuation();
            return;
        }
        const SubOp here = sub_op_of(here_, request()), there = sub_op_of(there_, request());
        if (!here.any) return;
        const Standing standing_here = standing(here_, number, here);
        const Standing standing_there = standing(there_, number, there);
        if (standing_here == Standing::kAbsent && standing_there == Standing::kAbsent) return;
        if (here.at != there.at) {
            register_differs(number, here, there, request().args[0]);
            return;
        }
        if (reissued_ && standing_there == Standing::kAbsent) {
            add(Reason::kContinuation, kIsRefused, meaning(number, there));
            return;
        }
        if ((standing_here == Standing::kAbsent) != (standing_there == Standing::kAbsent)) {
            add_existence(Reason::kOperation, standing_there, "-ENOSYS");
            return;
        }
        switch (number) {
            case HYPERVISOR_memory_op: memory_op(here.at); break;
            case HYPERVISOR_hvm_op: hvm_op(here.at); break;
            case HYPERVISOR_xen_version: xen_version(here.at); break;
            default: break;
        }
        continuation();
    }

    void register_differs(std::uint64_t number, const SubOp& here, const SubOp& there,
                          std::uint64_t value) {
        const std::string detail = "register " + hex(value) + ": here " + meaning(number, here) +
                                   ", there " + meaning(number, there);
        if (reissued_) {
            add(Reason::kContinuation, kMeansSomethingElse, detail);
        } else if (number == HYPERVISOR_memory_op &&
                   here_.memory_op_shift == there_.memory_op_shift) {
            add(Reason::kWidth,
                there_.memory_op_wide_command
                    ? "all 64 bits of the sub-op register count there"
                    : "the sub-op register is an int there, with bit 31 as its sign",
                detail);
        } else {
            add(Reason::kCommand, "the sub-op register is taken apart otherwise there", detail);
        }
    }

    static std::string meaning(std::uint64_t number, const SubOp& sub_op) {
        std::string text = operation_name(number, sub_op);
        if (sub_op.at.start != 0) text += " from " + std::to_string(sub_op.at.start);
        return text;
    }

    // ---- continuations --------------------------------------------------------------------------

    static std::string_view way_of(const ContinuationRule& rule) {
        switch (rule.kind) {
            case ContinuationClass::kNone: return "it runs to its end";
            case ContinuationClass::kShiftedCursor:
                return rule.steps.empty() ? "its progress is in the sub-op register, shifted"
                                          : "its progress is in the register and the structure";
            case ContinuationClass::kUnshiftedCursor:
                return "its progress is in the sub-op register, as it is";
            case ContinuationClass::kPointerAndCount:
                return "its progress is in the pointer and the count";
            case ContinuationClass::kStruct: return "its progress is in the guest's structure";
            case ContinuationClass::kOtherSubOp: return "it goes on as another sub-op";
            case ContinuationClass::kRestart: return "it is made again from its start";
        }
        return "?";
    }

    void continuation() {
        const bool continues = call_.ending == Ending::kContinue;
        if (!continues && !reissued_) return;
        const auto here = continuation_rule(here_, request());
        const auto there = continuation_rule(there_, request());
        if (here.kind != there.kind || here.steps.empty() != there.steps.empty()) {
            add(Reason::kProgress,
                "here " + std::string(way_of(here)) + ", there " + std::string(way_of(there)));
        }
        if (!continues) return;
        Request next = request();
        next.args = call_.next_args;
        const std::uint64_t number = hypercall_number(here_, next);
        const SubOp next_here = sub_op_of(here_, next), next_there = sub_op_of(there_, next);
        if (next_here.at != next_there.at) {
            add(Reason::kContinuation, kMeansSomethingElse,
                "register " + hex(next.args[0]) + ": here " + meaning(number, next_here) +
                    ", there " + meaning(number, next_there));
        } else if (next_there.any && standing(there_, number, next_there) == Standing::kAbsent) {
            add(Reason::kContinuation, kIsRefused, meaning(number, next_there));
        }
    }

    // ---- memory_op ------------------------------------------------------------------------------

    static std::string refusal(const std::optional<Errno>& code) {
        return code ? "-" + error_name(*code) : std::string("ignored");
    }

    void memory_op(const Command& at) {
        switch (at.op) {
            case XENMEM_increase_reservation:
            case XENMEM_decrease_reservation:
            case XENMEM_populate_physmap: extents(); return;
            case XENMEM_add_to_physmap: add_to_physmap(at); return;
            case XENMEM_add_to_physmap_batch:
            case XENMEM_acquire_resource: return;  // their cursors are continuation()'s
            default: break;
        }
        if (at.start == 0) return;
        const std::optional<Errno> here = stray_cursor_refusal(here_, at.op);
        const std::optional<Errno> there = stray_cursor_refusal(there_, at.op);
        if (here != there) {
            add(Reason::kStrayBits,
                "bits above the operation: " + refusal(there) + " there, " + refusal(here) +
                    " here",
                "register " + hex(request().args[0]));
        }
    }

    void extents() {
        using Narrow = xen_memory_reservation<W32>;
        using Wide = xen_memory_reservation<W64>;
        const auto count = word(call_, &Wide::nr_extents, &Narrow::nr_extents);
        if (!count) return;
        const bool here = *count <= here_.memory_op_max_extents;
        const bool there = *count <= there_.memory_op_max_extents;
        if (here != there) {
            add(Reason::kExtents,
                there ? "so many extents can be named there" : "too many extents there: none done",
                std::to_string(*count) + " extents");
        }
    }

    void add_to_physmap(const Command& at) {
        // domid and size come first: the space is at the same place at both widths.
        const auto space = member<std::uint32_t>(call_, offsetof(xen_add_to_physmap<W64>, space));
        if (!space) return;
        const bool legacy_here = here_.legacy_windows, legacy_there = there_.legacy_windows;
        constexpr std::uint32_t kOldVlapic = 0x80000000, kOldPhysical = 0x80000001;
        if (legacy_here != legacy_there) {
            switch (*space) {
                case XENMAPSPACE_gmfn_range:
                    add(Reason::kSpace, legacy_there
                                            ? "space 3 is -EINVAL there once an old driver is seen"
                                            : "space 3 maps a range there, also for an old driver");
                    return;
                case XENMAPSPACE_gmfn_foreign:
                    add(Reason::kSpace, legacy_there
                                            ? "space 4 is an old driver's shared_info there"
                                            : "space 4 is gmfn_foreign there: refused");
                    return;
                case kOldVlapic:
                    add(Reason::kSpace, legacy_there
                                            ? "space 0x80000000 marks an old driver there (-EINVAL)"
                                            : "space 0x80000000 is only unknown there (-EINVAL)");
                    return;
                case kOldPhysical:
                    add(Reason::kSpace,
                        legacy_there ? "space 0x80000001 is gmfn there, and marks an old driver"
                                     : "space 0x80000001 is unknown there: -EINVAL");
                    return;
                default: break;
            }
        }
        const bool range = *space == XENMAPSPACE_gmfn_range;
        const bool range_here = here_.physmap_range != Progress::kNone;
        const bool range_there = there_.physmap_range != Progress::kNone;
        if (range && range_here != range_there) {
            add(Reason::kSpace, range_there ? "XENMAPSPACE_gmfn_range exists there, not here"
                                            : "XENMAPSPACE_gmfn_range is unknown there: -EINVAL");
            return;
        }
        if (reissued_ || at.start == 0) return;
        // A cursor of the guest's own making.
        const auto answer = [&](const Profile& profile) -> std::string {
            if (profile.physmap_range != Progress::kRegister) return "ignored";
            if (at.start > UINT16_MAX) return "-EDOM";
            return range ? "where to begin" : "ignored";
        };
        if (answer(here_) != answer(there_)) {
            add(Reason::kStrayBits,
                "bits above the operation: " + answer(there_) + " there, " + answer(here_) +
                    " here",
                "register " + hex(request().args[0]));
        }
    }

    // ---- hvm_op ---------------------------------------------------------------------------------

    void hvm_op(const Command& at) {
        switch (at.op) {
            case HVMOP_set_param:
            case HVMOP_get_param: hvm_param(at); return;
            case HVMOP_flush_tlbs:
                if (request().args[1] != 0 && here_.since(4, 8) != there_.since(4, 8)) {
                    add(Reason::kError, there_.since(4, 8)
                                            ? "an argument is -EINVAL there, -ENOSYS here"
                                            : "an argument is -ENOSYS there, -EINVAL here");
                }
                return;
            default: return;
        }
    }

    void hvm_param(const Command& at) {
        const bool set = at.op == HVMOP_set_param;
        const auto index = member<std::uint32_t>(call_, offsetof(xen_hvm_param, index));
        if (!index) return;
        const std::string which = "parameter " + std::to_string(*index);
        const bool here = *index < here_.hvm_params, there = *index < there_.hvm_params;
        if (here != there) {
            add(Reason::kParam,
                which + (there ? " exists there, not here" : " does not exist there: -EINVAL"));
        }
        if (!here || !there) return;
        // Some are refused for the value.
        const auto value = member<std::uint64_t>(call_, offsetof(xen_hvm_param, value));
        if (set && !value) return;
        const auto answer = [&](const Profile& profile) {
            const auto may =
                set ? may_set_param(profile, *index, *value) : may_get_param(profile, *index);
            return may ? std::string("allowed") : "-" + error_name(may.error());
        };
        const std::string answer_here = answer(here_), answer_there = answer(there_);
        if (answer_here == answer_there) return;
        add(Reason::kParam, (set ? "setting " : "reading ") + which + " is " + answer_there +
                                " there, " + answer_here + " here");
    }

    // ---- xen_version ----------------------------------------------------------------------------

    static std::string version_word(const Profile& profile) {
        return hex(std::uint64_t{profile.major} << 16 | profile.minor);
    }

    static std::string bits_of(std::uint32_t bits) {
        std::string text;
        for (unsigned bit = 0; bit < 32; ++bit) {
            if ((bits >> bit & 1) != 0) text += (text.empty() ? "" : ",") + std::to_string(bit);
        }
        return text;
    }

    void xen_version(const Command& at) {
        // A fault hides every answer.
        if (call_.ending == Ending::kFinish && call_.result < 0) return;
        const auto quoted = [](std::string_view text) { return "\"" + std::string(text) + "\""; };
        const auto differ = [&](const std::string& here, const std::string& there) {
            if (here != there)
                add(Reason::kAnswer, "answers " + there + " there, " + here + " here");
        };
        switch (at.op) {
            case XENVER_version: differ(version_word(here_), version_word(there_)); break;
            case XENVER_extraversion:
                differ(quoted(here_.extraversion), quoted(there_.extraversion));
                break;
            case XENVER_capabilities:
                differ(quoted(here_.capabilities), quoted(there_.capabilities));
                break;
            case XENVER_platform_parameters:
                differ(hex(here_.virt_start), hex(there_.virt_start));
                break;
            case XENVER_get_features: {
                // The caller's submap_idx; there is only one.
                if (member<std::uint32_t>(call_, 0).value_or(0) != 0) break;
                const std::uint32_t lost = here_.features & ~there_.features;
                const std::uint32_t won = there_.features & ~here_.features;
                if ((lost | won) == 0) break;
                std::string what = "features";
                if (lost != 0) what += " " + bits_of(lost) + " are missing there";
                if (won != 0)
                    what += (lost != 0 ? ", and " : " ") + bits_of(won) + " are there more";
                add(Reason::kAnswer, what);
                break;
            }
            default: break;
        }
    }

    // ---- multicall ------------------------------------------------------------------------------

    void multicall() {
        if (here_.multicall_continues_inside != there_.multicall_continues_inside &&
            (reissued_ || call_.ending == Ending::kContinue)) {
            add(Reason::kProgress,
                here_.multicall_continues_inside
                    ? "an entry that is interrupted is written back to the list here, not there"
                    : "an entry that is interrupted is written back to the list there, not here");
        }
        const auto count = static_cast<std::uint32_t>(request().args[1]);
        for (std::uint32_t i = 0; i < count; ++i) {
            const auto entry = multicall_entry_of(call_, i);
            if (!entry) break;
            // Lists in lists are refused by all.
            if (hypercall_number(here_, *entry) == HYPERVISOR_multicall) continue;
            Event inner;
            inner.request = *entry;
            const auto name =
                operation_name(hypercall_number(here_, *entry), sub_op_of(here_, *entry));
            for (Difference& difference : Comparison(here_, there_, inner, false).run()) {
                add(difference.reason, "entry " + name + ": " + difference.what,
                    std::move(difference.detail));
            }
        }
    }

    const Profile& here_;
    const Profile& there_;
    const Event& call_;
    const bool reissued_;
    std::vector<Difference> found_;
};

}  // namespace

std::string_view to_string(Reason reason) {
    switch (reason) {
        case Reason::kHypercall: return "hypercall";
        case Reason::kOperation: return "operation";
        case Reason::kNumber: return "number";
        case Reason::kRing: return "ring";
        case Reason::kCommand: return "command";
        case Reason::kWidth: return "width";
        case Reason::kStrayBits: return "stray-bits";
        case Reason::kContinuation: return "continuation";
        case Reason::kProgress: return "progress";
        case Reason::kExtents: return "extents";
        case Reason::kSpace: return "space";
        case Reason::kParam: return "param";
        case Reason::kError: return "error";
        case Reason::kAnswer: return "answer";
    }
    return "?";
}

std::vector<Difference> differences(const Profile& here, const Profile& there, const Event& call,
                                    bool reissued) {
    return Comparison(here, there, call, reissued).run();
}

Check::Check(const Header& header, const Profile& there) : here_(*header.profile), there_(there) {
    here_.legacy_windows = header.legacy_quirks;
}

bool Check::take_reissue(const Request& request) {
    // The latest first: a guest mostly goes on with what it was interrupted in.
    const auto found = std::find_if(in_flight_.rbegin(), in_flight_.rend(), [&](const Request& r) {
        return r.number == request.number && r.args == request.args && r.width == request.width;
    });
    if (found == in_flight_.rend()) return false;
    in_flight_.erase(std::next(found).base());
    return true;
}

void Check::add(const Event& call) {
    ++calls_;
    const bool reissued = take_reissue(call.request);
    if (call.ending == Ending::kContinue) {
        constexpr std::size_t kMostInFlight = 256;
        if (in_flight_.size() == kMostInFlight) in_flight_.pop_front();
        Request next = call.request;
        next.number = hypercall_number(here_, call.request);
        next.args = call.next_args;
        in_flight_.push_back(next);
    }
    const std::string operation =
        operation_name(hypercall_number(here_, call.request), sub_op_of(here_, call.request));
    for (Difference& difference : differences(here_, there_, call, reissued)) {
        std::string key = operation;
        key += '\0';
        key += to_string(difference.reason);
        key += difference.what;
        const auto [at, fresh] = by_key_.try_emplace(std::move(key), findings_.size());
        if (fresh) {
            findings_.push_back({.operation = operation,
                                 .first = std::move(difference),
                                 .time_ns = call.time_ns,
                                 .vcpu = call.vcpu,
                                 .call = call});
        }
        ++findings_[at->second].calls;
    }
}

}  // namespace xenshim::trace
