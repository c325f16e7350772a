#include "xenshim/transport/describe.h"

#include <algorithm>
#include <array>
#include <span>
#include <string_view>

#include "vmm/memory/page_walk.h"
#include "xenshim/abi/continuation.h"
#include "xenshim/abi/numbers.h"
#include "xenshim/abi/operations.h"
#include "xenshim/transport/hypercall_page.h"
#include "xenshim/transport/hypercall_registers.h"

namespace xenshim {
namespace {

using namespace abi;

// The operation that the registers name, without the cursor.
std::uint64_t sub_op_of(const Profile& profile, const Request& request) {
    switch (hypercall_number(profile, request)) {
        case HYPERVISOR_memory_op:
            return decode_memory_op(profile, request.width, request.args[0]).op;
        case HYPERVISOR_hvm_op: return decode_hvm_op(profile, request.args[0]).op;
        default: return request.args[0];
    }
}

bool has_operations(std::uint64_t hypercall) {
    return std::ranges::find(operations(), hypercall, &Operation::hypercall) != operations().end();
}

}  // namespace

HypercallDescription describe_hypercall(const Profile& profile, const Request& request) {
    HypercallDescription out;
    out.number = hypercall_number(profile, request);
    const Hypercall* const hypercall = find_hypercall(out.number);
    if (hypercall == nullptr) {
        out.name = "hypercall " + std::to_string(out.number);
        return out;
    }
    out.name = hypercall->name;
    if (has_operations(out.number)) {
        const std::uint64_t sub_op = sub_op_of(profile, request);
        const Operation* const operation = find_operation(out.number, sub_op);
        out.operation =
            operation != nullptr ? std::string(operation->name) : std::to_string(sub_op);
    }
    const ContinuationRule rule = continuation_rule(profile, request);
    switch (rule.kind) {
        case ContinuationClass::kShiftedCursor:
            out.done = decode_memory_op(profile, request.width, request.args[0]).start;
            break;
        case ContinuationClass::kUnshiftedCursor:
            out.done = decode_hvm_op(profile, request.args[0]).start;
            break;
        case ContinuationClass::kPointerAndCount: out.left = request.args[rule.count_arg]; break;
        case ContinuationClass::kNone:
        case ContinuationClass::kStruct:
        case ContinuationClass::kOtherSubOp:
        case ContinuationClass::kRestart: break;
    }
    if (out.done == 0) out.done.reset();  // nothing yet, which every call begins with
    return out;
}

std::optional<PendingHypercall> pending_hypercall(vmm::GuestMemory& memory,
                                                  const vmm::kvm::Vcpu& vcpu,
                                                  const vmm::kvm::Registers& registers) {
    constexpr std::uint64_t kSmap = std::uint64_t{1} << 21;
    const std::uint64_t at =
        linear_rip(vcpu.in_64bit_code(), registers.cs.state.base, registers.rip);
    // As the CPU fetches, which asks nothing of SMAP.
    vmm::LinearMemory linear(memory, {.cr0 = registers.cr0,
                                      .cr3 = registers.cr3,
                                      .cr4 = registers.cr4 & ~kSmap,
                                      .efer = registers.efer,
                                      .rflags = registers.rflags});
    TrapInstruction code{};
    if (!linear.read({at}, std::as_writable_bytes(std::span(code)))) return std::nullopt;
    if (code == kVmcall) return PendingHypercall{"vmcall", read_request(vcpu)};
    if (code == kVmmcall) return PendingHypercall{"vmmcall", read_request(vcpu)};
    if (code == kPortTrap) return PendingHypercall{"port", read_request(vcpu)};
    return std::nullopt;
}

}  // namespace xenshim
