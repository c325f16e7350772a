// HYPERVISOR_multicall: a list of hypercalls in guest memory (Xen's common/multicall.c; for HVM
// guests since 4.16).
#include "xenshim/hypercall/dispatcher.h"
#include "xenshim/hypercall/handlers.h"

namespace xenshim {

using namespace abi;

namespace {

constexpr std::size_t kArgs = 5;

Request request_of(const Call& outer, const multicall_entry<W64>& entry) {
    Request inner{.number = entry.op, .args = {}, .width = outer.request().width};
    for (std::size_t i = 0; i < kArgs; ++i) {
        inner.args[i] = entry.args[i];
    }
    return inner;
}

}  // namespace

Outcome multicall(Call& call) {
    const vmm::Gva list = call.handle(0);
    const auto count = call.arg<std::uint32_t>(1);
    const std::uint64_t entry_bytes =
        call.is_64bit() ? sizeof(multicall_entry<W64>) : sizeof(multicall_entry<W32>);
    std::optional<Block> block;
    // A list that is not finished does not sleep: its rest comes first.
    const auto unfinished = [&](Outcome outcome) {
        if (block) call.domain().end_poll(call.vcpu());
        return outcome;
    };
    for (std::uint32_t i = 0; i < count; ++i) {
        if (i != 0 && call.should_yield(i)) return unfinished(Continue{i});
        const vmm::Gva at = call.element(list, i, entry_bytes);
        auto entry = call.read_wide<multicall_entry>(at);
        if (!entry) return unfinished(Call::fail(entry.error()));
        if (entry->op == HYPERVISOR_multicall) {
            entry->result = static_cast<std::uint64_t>(-std::int64_t{XEN_EINVAL});
        } else {
            const Request inner = request_of(call, *entry);
            Call nested(call.domain(), call.access(), call.preemption(), call.vcpu(), inner);
            const Outcome outcome = dispatch(nested);
            if (const auto* progress = std::get_if<Continue>(&outcome)) {
                // The entry itself becomes the continuation: its arguments are those of the
                // call's re-issue and its result, meaningless until it is done, the number.
                const auto again = reissue(nested, *progress);
                if (!again) return unfinished(Call::fail(XEN_EFAULT));
                for (std::size_t a = 0; a < kArgs; ++a) {
                    entry->args[a] = again->args[a];
                }
                entry->result = again->number;
                const auto back = call.write_wide<multicall_entry>(at, *entry);
                if (!back) return unfinished(Call::fail(back.error()));
                return unfinished(Continue{i});
            }
            if (const auto* done = std::get_if<Done>(&outcome)) {
                entry->result = static_cast<std::uint64_t>(done->result);
            } else {
                // The vCPU sleeps once the whole list is done, as on Xen.
                block = *std::get_if<Block>(&outcome);
                entry->result = 0;
            }
        }
        const auto back = call.write_wide<multicall_entry>(at, *entry);
        if (!back) return unfinished(Call::fail(back.error()));
    }
    if (block) return *block;
    return Call::ok();
}

}  // namespace xenshim
