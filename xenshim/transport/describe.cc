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
        case HYPERVISOR_grant_table_op: return decode_grant_table_op(profile, request.args[0]).op;
        default: return request.args[0] & UINT32_MAX;  // an int
    }
}

bool has_operations(std::uint64_t hypercall) {
    return std::ranges::find(operations(), hypercall, &Operation::hypercall) != operations().end();
}

}  // namespace

HypercallDescription describe_hypercall(const Profile& profile, const Request& request,
                                        const ReadMember& read) {
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
    std::optional<DmOperation> dm;
    if (out.number == HYPERVISOR_dm_op) dm = find_dm_operation(request, read);
    if (dm) {
        out.operation = dm_operation_name(dm->op);
        if (out.operation.empty()) out.operation = std::to_string(dm->op);
    }
    const DmOperation where = dm.value_or(DmOperation{});
    const HowFar far = how_far(profile, request, read, where.op, where.at);
    out.done = far.done;
    out.left = far.left;
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
    // The same way to what the call points to.
    const auto read = [linear](std::uint64_t from, std::uint8_t bytes) mutable {
        std::uint64_t value = 0;
        const auto to = std::as_writable_bytes(std::span(&value, 1)).first(bytes);
        return linear.read({from}, to) ? std::optional(value) : std::nullopt;
    };
    const auto pending = [&](const char* instruction) {
        return PendingHypercall{instruction, read_request(vcpu), read};
    };
    if (code == kVmcall) return pending("vmcall");
    if (code == kVmmcall) return pending("vmmcall");
    if (code == kPortTrap) return pending("port");
    return std::nullopt;
}

}  // namespace xenshim
