#include "tests/bench/machine.h"

#include <algorithm>
#include <cstring>

#include "xenshim/transport/kvm_xen.h"
#include "xenshim/transport/portable.h"

extern "C" const std::byte bench_block_guest[], bench_block_guest_trap[], bench_block_guest_end[];
extern "C" const std::byte bench_reload_guest[], bench_reload_guest_trap[],
    bench_reload_guest_end[];

namespace bench {

using vmm::Result;

const GuestCode kBlockGuest = {bench_block_guest, bench_block_guest_trap, bench_block_guest_end};
const GuestCode kReloadGuest = {bench_reload_guest, bench_reload_guest_trap,
                                bench_reload_guest_end};

std::uint64_t Machine::result(std::size_t row) const {
    Row value;
    std::memcpy(&value,
                machine->memory().guest().page(kTable >> vmm::kPageShift) + row * sizeof value,
                sizeof value);
    return value.result;
}

Result<void> Machine::join(const std::string& failure) const {
    const auto cause = machine->join();
    if (cause.error) return vmm::Failure{*cause.error};
    if (!failure.empty()) return vmm::internal_error(failure);
    if (cause.kind != vmm::StopCause::Kind::kRequested) {
        return vmm::internal_error("the guest ended by itself");
    }
    return {};
}

Result<Machine> create_machine(bool xen, std::uint64_t memory_bytes,
                               xenshim::PlatformConfig config) {
    const auto kvm = TRY(vmm::kvm::Kvm::open());
    const auto xen_flags = static_cast<std::uint32_t>(kvm.check(vmm::kvm::Cap::kXenHvm));
    if (xen && (xen_flags & vmm::kvm::kXenInterceptHypercall) == 0) {
        return vmm::host_error("this host's KVM has no Xen support (KVM_CAP_XEN_HVM)");
    }
    Machine out;
    out.machine = TRY(vmm::Machine::create(kvm, {.vcpus = 1, .own_pages = xenshim::kOwnPages}));
    TRY(out.machine->memory().add_region("guest-ram", vmm::Gpa{0}, memory_bytes));
    config.domain.profile = xenshim::abi::find_profile("xen-4.17");
    config.domain.memory_map = {{.base = 0, .size = memory_bytes, .type = 1}};
    config.domain.memory = {.current = memory_bytes / vmm::kPageSize,
                            .maximum = UINT64_MAX / 2,
                            .highest_gfn = memory_bytes / vmm::kPageSize - 1};
    if (xen) {
        out.platform =
            std::make_unique<xenshim::KvmXenTransport>(*out.machine, std::move(config), xen_flags);
        const auto cpuid = TRY(kvm.supported_cpuid());
        const bool amd = std::any_of(cpuid.begin(), cpuid.end(), [](const auto& leaf) {
            return leaf.function == 0 && leaf.ebx == 0x68747541;  // "Auth"
        });
        out.trap = amd ? xenshim::kVmmcall : xenshim::kVmcall;
    } else {
        out.platform =
            std::make_unique<xenshim::PortableTransport>(*out.machine, std::move(config));
        out.trap = xenshim::kPortTrap;
    }
    TRY(out.platform->set_up(kvm));
    vmm::kvm::FullState state;
    state.rip = kCode;
    state.cr0 = 0x80000011;
    state.cr3 = kPageTables;
    state.cr4 = 0x20;
    state.efer = 0x500;
    state.cs = {.base = 0, .limit = 0xffffffff, .attributes = 0xa9b};
    state.ds = state.es = state.ss = {.base = 0, .limit = 0xffffffff, .attributes = 0xc93};
    state.tr = {.base = 0, .limit = 0x67, .attributes = 0x8b};
    TRY(out.machine->vcpu(0).vcpu().set_full_state(state));
    return out;
}

void put_guest(std::byte* memory, const GuestCode& code, const xenshim::TrapInstruction& trap,
               std::span<const Row> rows) {
    std::memcpy(memory + kCode, code.begin, static_cast<std::size_t>(code.end - code.begin));
    std::memcpy(memory + kCode + (code.trap - code.begin), trap.data(), trap.size());
    std::memcpy(memory + kTable, rows.data(), rows.size_bytes());
}

}  // namespace bench
