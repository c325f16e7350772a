// The engine with any registers and any progress, under every profile: it never reaches beyond its
// table, a 32-bit caller's registers stay 32 bits wide, and what a cursor's encoder writes its own
// decoder reads.
#include "xenshim/abi/continuation.h"

#include "tests/fuzz/input.h"
#include "xenshim/abi/numbers.h"
#include "xenshim/abi/operations.h"

namespace {

using namespace xenshim::abi;
using xenolith::fuzz::Input;

void run(Input in) {
    const Profile& profile = profiles()[in.below(profiles().size())];
    Request request;
    request.width = in.below(2) != 0 ? Width::k64 : Width::k32;
    request.number = in.below(4) == 0 ? in.take<std::uint64_t>() : in.below(64);
    for (auto& arg : request.args) {
        arg = in.take<std::uint64_t>();
        if (request.width == Width::k32) arg &= UINT32_MAX;
    }
    if (request.width == Width::k64 && in.below(4) == 0) {
        request.number |= std::uint64_t{in.take<std::uint32_t>()} << 32;
    }
    const ContinuationRule rule = continuation_rule(profile, request);
    Continue progress{.units_done = in.take<std::uint64_t>(),
                      .structure = in.below(2) != 0 ? in.take<std::uint64_t>() : 0};
    // A handler stops at multiples of the rule's steps; that is its part of the bargain.
    progress.units_done -= progress.units_done % rule.granularity;
    const Encoded encoded = encode_continuation(profile, request, progress);

    FUZZ_CHECK(encoded.registers.number == hypercall_number(profile, request));
    FUZZ_CHECK(encoded.change_count <= encoded.changes.size());
    FUZZ_CHECK(encoded.change_count == rule.steps.size());
    FUZZ_CHECK(rule.pointer_arg < request.args.size() && rule.count_arg < request.args.size());
    for (const StructChange& change : encoded.struct_changes()) {
        FUZZ_CHECK(change.bytes == 2 || change.bytes == 4 || change.bytes == 8);
        FUZZ_CHECK(request.width == Width::k64 || change.at <= UINT32_MAX);
    }
    for (std::size_t i = 0; i < request.args.size(); ++i) {
        FUZZ_CHECK(request.width == Width::k64 || encoded.registers.args[i] <= UINT32_MAX);
        // What the class does not name is the guest's.
        const bool counted = rule.kind == ContinuationClass::kPointerAndCount &&
                             (i == rule.pointer_arg || i == rule.count_arg);
        if (i != 0 && !counted) FUZZ_CHECK(encoded.registers.args[i] == request.args[i]);
    }
    // What is left in the registers is the same call, whatever stood above its number.
    Request again = request;
    again.number = encoded.registers.number;
    FUZZ_CHECK(continuation_rule(profile, again).kind == rule.kind);
    again.args = encoded.registers.args;
    if (rule.kind == ContinuationClass::kShiftedCursor) {
        const std::uint64_t most = std::uint64_t{INT32_MAX} >> profile.memory_op_shift;
        const std::uint64_t units = progress.units_done % (most + 1);
        again.args = encode_continuation(profile, request, {.units_done = units}).registers.args;
        const Command before = decode_memory_op(profile, request.width, request.args[0]);
        const Command after = decode_memory_op(profile, request.width, again.args[0]);
        FUZZ_CHECK(after.op == before.op && after.start == units);
    }
    if (rule.kind != ContinuationClass::kNone) {
        FUZZ_CHECK(continuation_rule(profile, again).kind == rule.kind);
    }
    (void)decode_hvm_op(profile, request.args[0]);
    (void)decode_grant_table_op(profile, request.args[0]);
    (void)exists(profile, request.number, request.args[0]);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    run(Input(data, size));
    return 0;
}
