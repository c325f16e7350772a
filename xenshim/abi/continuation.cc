#include "xenshim/abi/continuation.h"

#include "xenshim/abi/numbers.h"
#include "xenshim/abi/structs.h"

namespace xenshim::abi {

ContinuationRule continuation_rule(const Profile& profile, const Request& request) {
    switch (request.number) {
        case HYPERVISOR_memory_op:
            switch (decode_memory_op(profile, request.width, request.args[0]).op) {
                case XENMEM_increase_reservation:
                case XENMEM_decrease_reservation:
                case XENMEM_populate_physmap:
                case XENMEM_add_to_physmap:
                case XENMEM_add_to_physmap_batch:
                    return {.kind = ContinuationClass::kShiftedCursor};
                default: return {};
            }
        case HYPERVISOR_multicall:
            return {.kind = ContinuationClass::kPointerAndCount,
                    .pointer_arg = 0,
                    .count_arg = 1,
                    .unit_bytes_32 = sizeof(multicall_entry<W32>),
                    .unit_bytes_64 = sizeof(multicall_entry<W64>)};
        case HYPERVISOR_vcpu_op: return {.kind = ContinuationClass::kRestart};
        default: return {};
    }
}

Reissue encode_continuation(const Profile& profile, const Request& request, Continue progress) {
    const ContinuationRule rule = continuation_rule(profile, request);
    Reissue out{.number = request.number, .args = request.args};
    switch (rule.kind) {
        case ContinuationClass::kShiftedCursor: {
            const auto at = decode_memory_op(profile, request.width, request.args[0]);
            out.args[0] =
                encode_memory_op(profile, {.op = at.op, .start_extent = progress.units_done});
            break;
        }
        case ContinuationClass::kPointerAndCount: {
            const unsigned unit =
                request.width == Width::k64 ? rule.unit_bytes_64 : rule.unit_bytes_32;
            out.args[rule.pointer_arg] += progress.units_done * unit;
            out.args[rule.count_arg] -= progress.units_done;
            break;
        }
        case ContinuationClass::kRestart:
        case ContinuationClass::kNone: break;
    }
    if (request.width == Width::k32) {
        for (auto& arg : out.args) {
            arg &= UINT32_MAX;
        }
    }
    return out;
}

}  // namespace xenshim::abi
