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
    for (std::uint32_t i = 0; i < count; ++i) {
        if (i != 0 && call.should_yield(i)) return Continue{i};
        const vmm::Gva at = call.element(list, i, entry_bytes);
        auto entry = call.read_wide<multicall_entry>(at);
        if (!entry) return Call::fail(entry.error());
        std::optional<Block> block;
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
                if (!again) return Call::fail(XEN_EFAULT);
                for (std::size_t a = 0; a < kArgs; ++a) {
                    entry->args[a] = again->args[a];
                }
                entry->result = again->number;
                const auto back = call.write_wide<multicall_entry>(at, *entry);
                if (!back) return Call::fail(back.error());
                return Continue{i};
            }
            if (const auto* done = std::get_if<Done>(&outcome)) {
                entry->result = static_cast<std::uint64_t>(done->result);
            } else {
                block = *std::get_if<Block>(&outcome);
                entry->result = 0;
            }
        }
        const auto back = call.write_wide<multicall_entry>(at, *entry);
        if (!back) {
            if (block) call.domain().end_poll(call.vcpu());
            return Call::fail(back.error());
        }
        // The vCPU sleeps here, before the entries that follow: on Xen the scheduler's softirq is
        // what preempts the list.
        if (block && i + 1 < count) {
            call.reaches(i + 1);
            return Continue{.units_done = i + 1, .sleep = block};
        }
        if (block) return *block;
    }
    return Call::ok();
}

}  // namespace xenshim
