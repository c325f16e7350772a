#include "xenshim/abi/continuation.h"

#include "xenshim/abi/device_structs.h"
#include "xenshim/abi/numbers.h"
#include "xenshim/abi/other_numbers.h"
#include "xenshim/abi/structs.h"

namespace xenshim::abi {
namespace {

constexpr ContinuationRule kShifted = {.kind = ContinuationClass::kShiftedCursor};
constexpr ContinuationRule kAgain = {.kind = ContinuationClass::kRestart};

// The members that move, of the structures as the releases that move them have them.

using Counts = StructStep::Counts;
using Shows = StructStep::Shows;

constexpr StructStep grows(Place member, Counts counts = Counts::kUnits,
                           Shows shows = Shows::kNothing) {
    return {.member = member, .per_unit_32 = 1, .per_unit_64 = 1, .counts = counts, .shows = shows};
}
constexpr StructStep shrinks(Place member, Counts counts = Counts::kUnits) {
    return {.member = member,
            .per_unit_32 = -1,
            .per_unit_64 = -1,
            .counts = counts,
            .shows = Shows::kLeft};
}
// A dm_op's own structure stands behind the operation.
constexpr Place in_dm_op(Place member) {
    member.at_32 += sizeof(xen_dm_op_header);
    member.at_64 += sizeof(xen_dm_op_header);
    return member;
}

// add_to_physmap, 4.2 and 4.3.
constexpr StructStep kPhysmapRange[] = {
    shrinks(XENSHIM_PLACE(xen_add_to_physmap, size)),
    grows(XENSHIM_PLACE(xen_add_to_physmap, idx)),
    grows(XENSHIM_PLACE(xen_add_to_physmap, gpfn)),
};
// exchange: nr_exchanged counts what is done.
constexpr StructStep kExchange[] = {
    grows(XENSHIM_PLACE(xen_memory_exchange, nr_exchanged), Counts::kUnits, Shows::kDone),
};
// hvm_op's modified_memory and set_mem_type until 4.4.
constexpr StructStep kHvmRange[] = {
    grows(XENSHIM_PLACE(xen_hvm_memory_range_4_4, first_pfn)),
    shrinks(XENSHIM_PLACE(xen_hvm_memory_range_4_4, nr)),
};
constexpr StructStep kDmSetMemType[] = {
    shrinks(in_dm_op(XENSHIM_PLACE(xen_dm_op_set_mem_type, nr))),
    grows(in_dm_op(XENSHIM_PLACE(xen_dm_op_set_mem_type, first_pfn))),
};
// The extents that are left, which are taken from the end, and the pages done of the last of them.
constexpr StructStep kDmModifiedMemory[] = {
    shrinks(in_dm_op(XENSHIM_PLACE(xen_dm_op_modified_memory, nr_extents)), Counts::kGroups),
    grows(in_dm_op(XENSHIM_PLACE(xen_dm_op_modified_memory, opaque)), Counts::kPlaceInIt,
          Shows::kDone),
};
// A reservation until 3.0.3: extent_start moves by a word, and the cursor as well.
constexpr StructStep kMovingHandle[] = {
    {.member = XENSHIM_PLACE(xen_memory_reservation, extent_start),
     .per_unit_32 = sizeof(W32::Word),
     .per_unit_64 = sizeof(W64::Word)},
};

// Pages between two looks at whether to stop: HVMOP_op_mask + 1, and as many in dm_op. Until 4.4,
// where the structure moved, it was every page.
constexpr std::uint32_t kHvmGranularity = 256;

ContinuationRule memory_rule(const Profile& profile, std::uint64_t op) {
    switch (op) {
        case XENMEM_increase_reservation:
        case XENMEM_decrease_reservation:
        case XENMEM_populate_physmap: {
            ContinuationRule rule = kShifted;
            rule.pointer_arg = 1;
            if (profile.memory_op_moves_handle) rule.steps = kMovingHandle;
            return rule;
        }
        case XENMEM_add_to_physmap:
            if (profile.physmap_range == Progress::kRegister) return kShifted;
            if (profile.physmap_range == Progress::kStruct) {
                return {
                    .kind = ContinuationClass::kStruct, .pointer_arg = 1, .steps = kPhysmapRange};
            }
            return {};
        case XENMEM_add_to_physmap_batch:
            return profile.physmap_range == Progress::kRegister ? kShifted : ContinuationRule{};
        case XENMEM_exchange:
            return {.kind = ContinuationClass::kStruct, .pointer_arg = 1, .steps = kExchange};
        case XENMEM_acquire_resource:
            return profile.acquire_resource_continues ? kShifted : ContinuationRule{};
        case XENMEM_private_translate_gpfn_list:
        case XENMEM_private_release_mfn_list:
            return profile.private_memory_ops ? kShifted : ContinuationRule{};
        default: return {};
    }
}

ContinuationRule hvm_rule(const Profile& profile, std::uint64_t op) {
    switch (op) {
        case HVMOP_set_param:
        case HVMOP_flush_tlbs: return kAgain;
        case HVMOP_modified_memory:
        case HVMOP_set_mem_type:
            if (!profile.hvm_device_ops) return {};
            if (profile.hvm_memory_progress == Progress::kRegister) {
                return {.kind = ContinuationClass::kUnshiftedCursor,
                        .granularity = kHvmGranularity};
            }
            if (profile.hvm_memory_progress == Progress::kStruct) {
                return {.kind = ContinuationClass::kStruct, .pointer_arg = 1, .steps = kHvmRange};
            }
            return {};
        default: return {};
    }
}

// The registers stay: a restart, but for what the buffer holds.
ContinuationRule dm_rule(std::uint32_t op) {
    switch (op) {
        case XEN_DMOP_modified_memory:
            return {.kind = ContinuationClass::kStruct,
                    .granularity = kHvmGranularity,
                    .steps = kDmModifiedMemory};
        case XEN_DMOP_set_mem_type:
            return {.kind = ContinuationClass::kStruct,
                    .granularity = kHvmGranularity,
                    .steps = kDmSetMemType};
        default: return kAgain;
    }
}

ContinuationRule grant_rule(const Profile& profile, std::uint64_t op) {
    if (!profile.grant_batches_continue) return {};
    const auto batch = [](Sizes unit) {
        return ContinuationRule{.kind = ContinuationClass::kPointerAndCount,
                                .pointer_arg = 1,
                                .count_arg = 2,
                                .unit = unit};
    };
    switch (op) {
        case GNTTABOP_map_grant_ref: return batch(XENSHIM_SIZES(gnttab_map_grant_ref));
        case GNTTABOP_unmap_grant_ref: {
            ContinuationRule rule = batch(XENSHIM_SIZES(gnttab_unmap_grant_ref));
            rule.granularity = 32;  // one TLB flush for as many (GNTTAB_UNMAP_BATCH_SIZE)
            return rule;
        }
        case GNTTABOP_copy: return batch(XENSHIM_SIZES(gnttab_copy));
        case GNTTABOP_swap_grant_ref: return batch(XENSHIM_SIZES(gnttab_swap_grant_ref));
        default: return {};
    }
}

}  // namespace

ContinuationRule continuation_rule(const Profile& profile, const Request& request,
                                   std::uint32_t structure_op) {
    const std::uint64_t command = request.args[0];
    switch (hypercall_number(profile, request)) {
        case HYPERVISOR_memory_op:
            return memory_rule(profile, decode_memory_op(profile, request.width, command).op);
        case HYPERVISOR_hvm_op: return hvm_rule(profile, decode_hvm_op(profile, command).op);
        case HYPERVISOR_grant_table_op:
            return grant_rule(profile, decode_grant_table_op(profile, command).op);
        case HYPERVISOR_event_channel_op: {
            const auto op = static_cast<std::uint32_t>(command);
            if (profile.evtchn_reset_continues &&
                (op == EVTCHNOP_reset || op == EVTCHNOP_reset_cont)) {
                return {.kind = ContinuationClass::kOtherSubOp,
                        .granularity = 64,  // ports
                        .other_sub_op = EVTCHNOP_reset_cont};
            }
            return {};
        }
        case HYPERVISOR_multicall:
            return {.kind = ContinuationClass::kPointerAndCount,
                    .pointer_arg = 0,
                    .count_arg = 1,
                    .unit = XENSHIM_SIZES(multicall_entry)};
        case HYPERVISOR_dm_op: return dm_rule(structure_op);
        case HYPERVISOR_vcpu_op: return kAgain;
        default: return {};
    }
}

HowFar how_far(const Profile& profile, const Request& request, const ReadMember& read,
               std::uint32_t structure_op, std::uint64_t structure) {
    const ContinuationRule rule = continuation_rule(profile, request, structure_op);
    HowFar out;
    switch (rule.kind) {
        case ContinuationClass::kShiftedCursor:
            out.done = decode_memory_op(profile, request.width, request.args[0]).start;
            break;
        case ContinuationClass::kUnshiftedCursor:
            out.done = decode_hvm_op(profile, request.args[0]).start;
            break;
        case ContinuationClass::kPointerAndCount:
            out.left = request.args[rule.count_arg] & UINT32_MAX;  // an unsigned int
            break;
        case ContinuationClass::kStruct:
        case ContinuationClass::kNone:
        case ContinuationClass::kOtherSubOp:
        case ContinuationClass::kRestart: break;
    }
    if (!read) return out;
    if (structure == 0) structure = request.args[rule.pointer_arg];
    for (const StructStep& step : rule.steps) {
        if (step.shows == Shows::kNothing) continue;
        const std::uint64_t at = structure + step.member.at(request.width);
        (step.shows == Shows::kDone ? out.done : out.left) = read(
            request.width == Width::k64 ? at : at & UINT32_MAX, step.member.bytes(request.width));
    }
    return out;
}

std::optional<DmOperation> find_dm_operation(const Request& request, const ReadMember& read) {
    constexpr Place kAt = XENSHIM_PLACE(xen_dm_op_buf, h),
                    kSize = XENSHIM_PLACE(xen_dm_op_buf, size),
                    kOp = XENSHIM_PLACE(xen_dm_op_header, op);
    if (!read || static_cast<std::uint32_t>(request.args[1]) == 0) return std::nullopt;
    const auto member = [&](std::uint64_t structure, Place place) {
        const std::uint64_t at = structure + place.at(request.width);
        return read(request.width == Width::k64 ? at : at & UINT32_MAX, place.bytes(request.width));
    };
    const auto buffer = member(request.args[2], kAt), size = member(request.args[2], kSize);
    if (!buffer || !size || *size < sizeof(xen_dm_op_header)) return std::nullopt;
    const auto op = member(*buffer, kOp);
    if (!op) return std::nullopt;
    return DmOperation{.op = static_cast<std::uint32_t>(*op), .at = *buffer};
}

Encoded encode_continuation(const Profile& profile, const Request& request, Continue progress) {
    const ContinuationRule rule = continuation_rule(profile, request, progress.structure_op);
    const bool wide = request.width == Width::k64;
    const std::uint64_t number = hypercall_number(profile, request);
    Encoded out{.registers = {.number = number, .args = request.args}};
    auto& args = out.registers.args;
    std::uint64_t units_of_entry = progress.units_done;
    switch (rule.kind) {
        case ContinuationClass::kShiftedCursor: {
            const auto at = decode_memory_op(profile, request.width, args[0]);
            args[0] = encode_memory_op(profile, {.op = at.op, .start = progress.units_done});
            units_of_entry -= at.start;
            break;
        }
        case ContinuationClass::kUnshiftedCursor: {
            const auto at = decode_hvm_op(profile, args[0]);
            args[0] = encode_hvm_op(profile, {.op = at.op, .start = progress.units_done});
            break;
        }
        case ContinuationClass::kPointerAndCount:
            args[rule.pointer_arg] += progress.units_done * rule.unit.bytes(request.width);
            // What Xen's prototypes take for an unsigned int comes back zero-extended: the count,
            // and grant_table_op's sub-op.
            args[rule.count_arg] = (args[rule.count_arg] - progress.units_done) & UINT32_MAX;
            if (number == HYPERVISOR_grant_table_op) args[0] &= UINT32_MAX;
            break;
        case ContinuationClass::kOtherSubOp: args[0] = rule.other_sub_op; break;
        case ContinuationClass::kStruct:
        case ContinuationClass::kRestart:
        case ContinuationClass::kNone: break;
    }
    if (!wide) {
        for (auto& arg : args) {
            arg &= UINT32_MAX;
        }
    }
    const std::uint64_t structure =
        progress.structure != 0 ? progress.structure : request.args[rule.pointer_arg];
    for (const StructStep& step : rule.steps) {
        const std::uint64_t at = structure + step.member.at(request.width);
        const auto per_unit =
            static_cast<std::uint64_t>(std::int64_t{wide ? step.per_unit_64 : step.per_unit_32});
        const std::uint64_t count = step.counts == StructStep::Counts::kGroups
                                        ? std::uint64_t{progress.groups_done}
                                        : units_of_entry;
        out.changes[out.change_count++] = {
            .at = wide ? at : at & UINT32_MAX,
            .bytes = step.member.bytes(request.width),
            .delta = count * per_unit,
            .replaces = step.counts == StructStep::Counts::kPlaceInIt};
    }
    return out;
}

}  // namespace xenshim::abi
