#include "xenshim/trace/check.h"

#include <algorithm>
#include <cstring>

#include "xenshim/abi/continuation.h"
#include "xenshim/abi/hvm_params.h"
#include "xenshim/abi/operations.h"
#include "xenshim/abi/other_numbers.h"
#include "xenshim/abi/place.h"
#include "xenshim/abi/release_rules.h"
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
// The same at the caller's width.
std::optional<std::uint64_t> member(const Event& call, Place place) {
    const std::size_t at = place.at(call.request.width), bytes = place.bytes(call.request.width);
    if (call.in.size() < at + bytes) return std::nullopt;
    std::uint64_t value = 0;
    std::memcpy(&value, call.in.data() + at, bytes);
    return value;
}

class Comparison {
  public:
    Comparison(const Profile& here, const Profile& there, const Event& call, bool reissued,
               const Guest& guest, bool is_entry = false)
        : here_(here),
          there_(there),
          call_(call),
          reissued_(reissued),
          guest_(guest),
          is_entry_(is_entry) {}

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
    // `subject` gets another answer there.
    template <class Answer>
    bool compare(Reason reason, const std::string& subject, Answer&& answer,
                 std::string detail = {}) {
        const std::string here = answer(here_), there = answer(there_);
        if (here == there) return false;
        add(reason, subject + " is " + there + " there, " + here + " here", std::move(detail));
        return true;
    }
    // Of a list's entry, nothing is known of what came of it.
    bool was_refused_with(Errno code) const {
        return !is_entry_ && call_.ending == Ending::kFinish && call_.result == -std::int64_t{code};
    }
    bool succeeded() const {
        return !is_entry_ && call_.ending == Ending::kFinish && call_.result >= 0;
    }
    bool is_self(std::uint64_t domid) const { return domid == DOMID_SELF || domid == guest_.domid; }
    static std::string text_of(Errno code) { return "-" + error_name(code); }
    static std::string text_of(const GuestResult<void>& may) {
        return may ? std::string("allowed") : text_of(may.error());
    }
    std::string named_domain(std::uint64_t domid) const {
        return domid == 0              ? "domain 0"
               : domid == guest_.domid ? "the caller by its number"
               : domid == DOMID_SELF   ? "DOMID_SELF"
                                       : "another domain";
    }

    // Says it from the other profile's side. `there`: what the guest gets of it there.
    void add_existence(Reason reason, Standing there, const std::string& missing) {
        add(reason, there == Standing::kAbsent       ? "does not exist there: " + missing
                    : there == Standing::kPrivileged ? "exists there, not here: refused to a guest"
                                                     : std::string("exists there, not here"));
    }

    static bool may_call(const Profile& profile, unsigned cpl) {
        return cpl == 0 || (cpl < 3 && profile.only_ring3_refused);
    }
    // One that answers -ENOSYS to every HVM guest might as well not exist.
    static Standing hypercall_standing(const Profile& profile, std::uint64_t number) {
        const Hypercall* known = find_hypercall(number);
        return known == nullptr ? Standing::kAbsent : standing_of(profile, *known);
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
        if (number == HYPERVISOR_dm_op) {
            dm_op();
            return;
        }
        if (number == HYPERVISOR_multicall) {
            multicall();
            continuation();
            return;
        }
        const SubOp here = sub_op_of(here_, request()), there = sub_op_of(there_, request());
        if (!here.any) return;
        const Standing standing_here = standing(here_, number, here);
        const Standing standing_there = standing(there_, number, there);
        if (number == HYPERVISOR_vcpu_op && guest_.vcpus && vcpu() >= *guest_.vcpus) {
            compare(Reason::kError, "a vCPU that there is not", [&](const Profile& profile) {
                const bool known =
                    standing(profile, number, sub_op_of(profile, request())) != Standing::kAbsent;
                return text_of(missing_vcpu_refusal(profile, known));
            });
            return;
        }
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
            case HYPERVISOR_grant_table_op: grant_table_op(here.at); break;
            case HYPERVISOR_event_channel_op: event_channel_op(here.at); break;
            case HYPERVISOR_vcpu_op: vcpu_op(here.at); break;
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
            case XENMEM_populate_physmap: extents(at); return;
            case XENMEM_add_to_physmap: add_to_physmap(at); return;
            case XENMEM_add_to_physmap_batch: add_to_physmap_batch(at); return;
            case XENMEM_acquire_resource: acquire_resource(at); return;
            default: break;
        }
        if (at.start == 0) {
            without_cursor(at);
            return;
        }
        const std::optional<Errno> here = stray_cursor_refusal(here_, at.op);
        const std::optional<Errno> there = stray_cursor_refusal(there_, at.op);
        if (here != there) {
            add(Reason::kStrayBits,
                "bits above the operation: " + refusal(there) + " there, " + refusal(here) +
                    " here",
                "register " + hex(request().args[0]));
        }
    }

    void without_cursor(const Command& at) {
        switch (at.op) {
            case XENMEM_set_memory_map: set_memory_map(); return;
            case XENMEM_set_pod_target:
            case XENMEM_get_pod_target: {
                const auto domid = member(call_, XENSHIM_PLACE(xen_pod_target, domid));
                if (!domid || !is_self(*domid)) return;
                compare(Reason::kError, "the guest's own target", [](const Profile& profile) {
                    return text_of(pod_target_refusal(profile));
                });
                return;
            }
            default: return;
        }
    }

    void set_memory_map() {
        const auto domid = member(call_, XENSHIM_PLACE(xen_foreign_memory_map, domid));
        const auto count = member(call_, XENSHIM_PLACE(xen_foreign_memory_map, map.nr_entries));
        if (!domid || !count) return;
        compare(
            Reason::kError, "setting the map",
            [&](const Profile& profile) {
                if (*count > most_map_entries(profile)) return text_of(XEN_EINVAL);
                if (!is_self(*domid)) return text_of(*domid == 0 ? XEN_EPERM : XEN_ESRCH);
                return text_of(may_set_memory_map(profile));
            },
            std::to_string(*count) + " entries");
    }

    void extents(const Command& at) {
        const auto count = member(call_, XENSHIM_PLACE(xen_memory_reservation, nr_extents));
        const auto flags = member(call_, XENSHIM_PLACE(xen_memory_reservation, mem_flags));
        if (!count || at.start >= *count) return;
        const bool here = *count <= most_extents(here_, request().width);
        const bool there = *count <= most_extents(there_, request().width);
        if (here != there) {
            add(Reason::kExtents,
                there ? "so many extents can be named there" : "too many extents there: none done",
                std::to_string(*count) + " extents");
        }
        if (!here || !there) return;
        const bool refused_there = refuses_populate_on_demand(there_);
        if (at.op == XENMEM_populate_physmap && flags &&
            (*flags & XENMEMF_populate_on_demand) != 0 &&
            refuses_populate_on_demand(here_) != refused_there) {
            add(Reason::kExtents, refused_there
                                      ? "populate-on-demand is refused there: none done"
                                      : "populate-on-demand is unknown there, and ignored");
        }
        // A cursor of the guest's own making.
        if (!reissued_ && at.start != 0 &&
            here_.memory_op_moves_handle != there_.memory_op_moves_handle) {
            add(Reason::kProgress, there_.memory_op_moves_handle
                                       ? "the list begins with the cursor's element there"
                                       : "the list begins with element 0 there");
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
        const auto domid = member(call_, XENSHIM_PLACE(xen_add_to_physmap, domid));
        // An old driver's shared_info, to both.
        if (legacy_here && legacy_there && *space == XENMAPSPACE_gmfn_foreign && is_self(*domid)) {
            return;
        }
        const bool range = *space == XENMAPSPACE_gmfn_range;
        const bool range_here = here_.physmap_range != Progress::kNone;
        const bool range_there = there_.physmap_range != Progress::kNone;
        if (range && range_here != range_there) {
            add(Reason::kSpace, range_there ? "XENMAPSPACE_gmfn_range exists there, not here"
                                            : "XENMAPSPACE_gmfn_range is unknown there: -EINVAL");
            return;
        }
        if (!range && other_space(*space, [&](const Profile& profile) {
                const MapSpace means = map_space_of(profile, *space);
                if (means == MapSpace::kForeign) return text_of(XEN_ENOSYS);  // the batch's alone
                if (!is_self(*domid)) return text_of(*domid == 0 ? XEN_EACCES : XEN_ESRCH);
                if (means == MapSpace::kDevMmio) return text_of(XEN_EACCES);
                return means == MapSpace::kUnknown ? "unknown (-EINVAL)" : std::string("known");
            })) {
            return;
        }
        if (*space == XENMAPSPACE_grant_table && is_self(*domid)) {
            const auto index = member(call_, XENSHIM_PLACE(xen_add_to_physmap, idx));
            if (index) grant_frames(*index, "-EINVAL", succeeded());
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

    template <class Answer>
    bool other_space(std::uint32_t space, Answer&& answer) {
        const std::string name = space == XENMAPSPACE_gmfn_foreign ? "XENMAPSPACE_gmfn_foreign"
                                 : space == XENMAPSPACE_dev_mmio   ? "XENMAPSPACE_dev_mmio"
                                                                   : "space " + hex(space);
        return compare(Reason::kSpace, name, answer);
    }

    void add_to_physmap_batch(const Command& at) {
        const auto domid = member(call_, XENSHIM_PLACE(xen_add_to_physmap_batch, domid));
        const auto space = member(call_, XENSHIM_PLACE(xen_add_to_physmap_batch, space));
        const auto size = member(call_, XENSHIM_PLACE(xen_add_to_physmap_batch, size));
        if (!domid || !space || !size || !is_self(*domid)) return;
        if (*space == XENMAPSPACE_gmfn_range || *size < at.start) return;  // refused by all
        const auto number = static_cast<std::uint32_t>(*space);
        if (other_space(number, [&](const Profile& profile) -> std::string {
                switch (map_space_of(profile, number)) {
                    case MapSpace::kForeign: return "-EPERM for each page";
                    case MapSpace::kDevMmio: return text_of(XEN_EACCES);
                    case MapSpace::kUnknown: return "unknown (-EINVAL for each page)";
                    default: return "known";
                }
            })) {
            return;
        }
        if (at.start == 0 || *size != at.start) return;
        compare(
            Reason::kStrayBits, "a cursor at the list's end",
            [](const Profile& profile) { return text_of(may_end_at_cursor(profile)); },
            "register " + hex(request().args[0]));
    }

    void acquire_resource(const Command& at) {
        const auto native = [](const Profile& profile) {
            return refuses_resource_unread(profile) ? text_of(XEN_EACCES)
                                                    : std::string("judged by its argument");
        };
        if (request().width == Width::k64) {
            compare(Reason::kError, "a device model's question", native, "64-bit caller");
            return;
        }
        const auto frames = member(call_, XENSHIM_PLACE(xen_mem_acquire_resource, nr_frames));
        const auto list = member(call_, XENSHIM_PLACE(xen_mem_acquire_resource, frame_list));
        if (!frames || !list) return;
        compare(
            Reason::kError, "the list of frames",
            [&](const Profile& profile) {
                const auto may = may_translate_resource(
                    profile, static_cast<std::uint32_t>(*frames), *list != 0, at.start);
                return may ? native(profile) : text_of(may.error());
            },
            std::to_string(*frames) + " frames");
    }

    // ---- grant_table_op -------------------------------------------------------------------------

    // Frame `index` of the grant table is asked for. One that is granted beyond what the profile
    // says tells that the VM has a number of its own, which would be the same there.
    void grant_frames(std::uint64_t index, const std::string& refusal, bool granted) {
        if (granted && index >= here_.grant_frames) return;
        compare(
            Reason::kError, "that frame of the grant table",
            [&](const Profile& profile) {
                return index < profile.grant_frames ? std::string("allowed") : refusal;
            },
            "frame " + std::to_string(index));
    }

    void grant_table_op(const Command& at) {
        const auto count = static_cast<std::uint32_t>(request().args[2]);
        if (at.op == GNTTABOP_setup_table || at.op == GNTTABOP_query_size) {
            // Not lists: both refuse another number than 1, and fewer or more alike.
            if (count == 1) table_size(at);
            return;
        }
        compare(
            Reason::kError, "so long a list",
            [&](const Profile& profile) {
                return count <= most_grant_elements(profile) ? std::string("allowed")
                                                             : text_of(XEN_EINVAL);
            },
            std::to_string(count) + " elements");
    }

    void table_size(const Command& at) {
        if (at.op == GNTTABOP_setup_table) {
            const auto domid = member(call_, XENSHIM_PLACE(gnttab_setup_table, dom));
            const auto frames = member(call_, XENSHIM_PLACE(gnttab_setup_table, nr_frames));
            // What came of it stands in the structure.
            const auto status = written<std::int16_t>(XENSHIM_PLACE(gnttab_setup_table, status));
            if (!domid || !frames || *frames == 0 || !is_self(*domid)) return;
            grant_frames(*frames - 1, "GNTST_general_error", status == GNTST_okay);
            return;
        }
        if (call_.ending == Ending::kFinish && call_.result < 0) return;
        if (const auto domid = member(call_, XENSHIM_PLACE(gnttab_query_size, dom));
            domid && !is_self(*domid)) {
            return;
        }
        // A number of the VM's own is the same there.
        const auto most = written<std::uint32_t>(XENSHIM_PLACE(gnttab_query_size, max_nr_frames));
        if (most && *most != here_.grant_frames) return;
        if (here_.grant_frames == there_.grant_frames) return;
        add(Reason::kAnswer, "answers at most " + std::to_string(there_.grant_frames) +
                                 " frames there, " + std::to_string(here_.grant_frames) + " here");
    }

    // A member as the handler left it, if that was kept.
    template <class T>
    std::optional<T> written(Place place) const {
        const std::size_t at = place.at(request().width);
        if (call_.out.size() < at + sizeof(T)) return std::nullopt;
        T value;
        std::memcpy(&value, call_.out.data() + at, sizeof value);
        return value;
    }

    // ---- event_channel_op and vcpu_op -----------------------------------------------------------

    void event_channel_op(const Command& at) {
        // Whether the guest was on the FIFO ABI shows in what it was told.
        if (at.op != EVTCHNOP_expand_array || !was_refused_with(expand_array_refusal(here_)))
            return;
        compare(Reason::kError, "an array without FIFO events",
                [](const Profile& profile) { return text_of(expand_array_refusal(profile)); });
    }

    std::uint32_t vcpu() const { return static_cast<std::uint32_t>(request().args[1]); }

    void vcpu_op(const Command& at) {
        if (at.op != VCPUOP_register_vcpu_info) return;
        const auto gfn = member(call_, XENSHIM_PLACE(vcpu_register_vcpu_info, mfn));
        const auto offset = member(call_, XENSHIM_PLACE(vcpu_register_vcpu_info, offset));
        if (!gfn || !offset) return;
        // The domain's width is not in the trace; it is that of its callers.
        compare(
            Reason::kError, guest_.vcpu_info_placed ? "placing it once more" : "that place",
            [&](const Profile& profile) {
                return text_of(may_register_vcpu_info(profile, *gfn,
                                                      static_cast<std::uint32_t>(*offset),
                                                      guest_.vcpu_info_placed, request().width));
            },
            "offset " + hex(*offset));
    }

    // ---- hvm_op ---------------------------------------------------------------------------------

    void hvm_op(const Command& at) {
        switch (at.op) {
            case HVMOP_set_param:
            case HVMOP_get_param: hvm_param(at); return;
            case HVMOP_flush_tlbs:
                if (request().args[1] == 0) return;
                compare(Reason::kError, "an argument", [](const Profile& profile) {
                    return text_of(flush_tlbs_argument_refusal(profile));
                });
                return;
            case HVMOP_get_mem_type:
                target(member(call_, XENSHIM_PLACE(xen_hvm_get_mem_type, domid)),
                       [](const Profile&) { return XEN_EPERM; });
                return;
            case HVMOP_pagetable_dying:
                target(member(call_, XENSHIM_PLACE(xen_hvm_pagetable_dying, domid)),
                       pagetable_dying_of_dom0, XEN_EINVAL);
                return;
            case HVMOP_altp2m: return;  // not about a domain, and refused by all
            default: break;
        }
        const Operation* const operation = find_operation(HYPERVISOR_hvm_op, at.op);
        if (operation->standing == Standing::kPrivileged) device_op(at);
    }

    // The domain that the call names, where it is one for guests. `self`: what comes of the call
    // for the guest itself. False: nothing more is to be said of it.
    template <class ForDom0>
    bool target(std::optional<std::uint64_t> domid, ForDom0&& for_dom0,
                std::optional<Errno> self = std::nullopt) {
        if (!domid) return true;
        const auto may = [&](const Profile& profile) {
            return may_target(profile, static_cast<std::uint16_t>(*domid), guest_.domid,
                              for_dom0(profile));
        };
        const bool differs =
            compare(Reason::kError, named_domain(*domid), [&](const Profile& profile) {
                const auto allowed = may(profile);
                return allowed && self ? text_of(*self) : text_of(allowed);
            });
        return !differs && may(here_);
    }

    // Every one of them begins with the domain.
    void device_op(const Command& at) {
        const auto domid = member<std::uint16_t>(call_, 0);
        if (!domid) return;
        const auto may = [&](const Profile& profile) {
            return may_model_devices(profile, *domid, guest_.domid, false);
        };
        const auto refused = may(here_);
        // The VM's privilege, or nonsense before the domain: as it would be there.
        if (was_refused_with(refused.error())) {
            compare(Reason::kError, named_domain(*domid),
                    [&](const Profile& profile) { return text_of(may(profile)); });
            return;
        }
        const bool range = at.op == HVMOP_modified_memory || at.op == HVMOP_set_mem_type;
        const bool old_there = has_memory_range_of_4_4(there_);
        if (range && is_self(*domid) && has_memory_range_of_4_4(here_) != old_there) {
            add(Reason::kStructure, old_there ? "the structure of 4.4 and before is read there"
                                              : "the structure of 4.5 and later is read there");
        }
    }

    void dm_op() {
        if (static_cast<std::uint32_t>(request().args[1]) != 0) return;
        compare(Reason::kError, "no buffer at all", [](const Profile& profile) {
            const auto may = may_have_no_buffers(profile);
            return may ? std::string("an operation of no bytes") : text_of(may.error());
        });
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
        if (!target(member(call_, XENSHIM_PLACE(xen_hvm_param, domid)),
                    [](const Profile&) { return XEN_EINVAL; })) {
            return;
        }
        // Some are refused for the value.
        const auto value = member<std::uint64_t>(call_, offsetof(xen_hvm_param, value));
        if (set && !value) return;
        const auto answer = [&](const Profile& profile) {
            if (set) return text_of(may_set_param(profile, *index, *value));
            const auto may = may_get_param(profile, *index);
            // It shows in what the guest was told that it has no console.
            return text_of(may && no_console(*index) && hides_missing_console(profile, *index)
                               ? GuestResult<void>(refuse(XEN_EINVAL))
                               : may);
        };
        compare(Reason::kParam, (set ? "setting " : "reading ") + which, answer);
    }

    bool no_console(std::uint32_t index) const {
        if (!may_get_param(here_, index)) return false;  // whether there is one was not to be seen
        if (hides_missing_console(here_, index)) return was_refused_with(XEN_EINVAL);
        return written<std::uint64_t>(XENSHIM_PLACE(xen_hvm_param, value)) == std::uint64_t{0};
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
            for (Difference& difference :
                 Comparison(here_, there_, inner, false, guest_, true).run()) {
                add(difference.reason, "entry " + name + ": " + difference.what,
                    std::move(difference.detail));
            }
        }
    }

    const Profile& here_;
    const Profile& there_;
    const Event& call_;
    const bool reissued_;
    const Guest& guest_;
    const bool is_entry_;
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
        case Reason::kStructure: return "structure";
        case Reason::kAnswer: return "answer";
    }
    return "?";
}

std::vector<Difference> differences(const Profile& here, const Profile& there, const Event& call,
                                    bool reissued, const Guest& guest) {
    return Comparison(here, there, call, reissued, guest).run();
}

Check::Check(const Header& header, const Profile& there)
    : here_(*header.profile), there_(there), domid_(header.domid), vcpus_(header.vcpus) {
    here_.legacy_windows = header.legacy_quirks;
}

void Check::restart() {
    vcpu_infos_.clear();
    in_flight_.clear();
}

Guest Check::guest_of(const Request& request) const {
    Guest guest{.domid = domid_, .vcpus = vcpus_};
    guest.vcpu_info_placed = vcpu_infos_.contains(static_cast<std::uint32_t>(request.args[1]));
    return guest;
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
    const Guest guest = guest_of(call.request);
    const bool placed = hypercall_number(here_, call.request) == HYPERVISOR_vcpu_op &&
                        call.ending == Ending::kFinish && call.result == 0 &&
                        sub_op_of(here_, call.request).at.op == VCPUOP_register_vcpu_info;
    if (placed) vcpu_infos_.insert(static_cast<std::uint32_t>(call.request.args[1]));
    for (Difference& difference : differences(here_, there_, call, reissued, guest)) {
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
