// What the benchmarks of hypercalls measure: a whole machine of one vCPU with Xenolith's own
// transport, whose guest asks a port which call to make how often.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "tests/bench/raw_vm.h"
#include "vmm/machine/machine.h"
#include "xenshim/transport/xen_platform.h"

namespace bench {

// The guest reads `times << 8 | row` here between two blocks.
inline constexpr std::uint16_t kPort = 0x10;

// A row of the table at kTable, which the guest takes its calls from and leaves results in.
struct Row {
    std::uint64_t number, result, args[3];
    std::uint64_t unused[3] = {};
};
static_assert(sizeof(Row) == 64);

// A guest's instructions (guests.S); `trap` is where its hypercall's goes.
struct GuestCode {
    const std::byte *begin, *trap, *end;
};
extern const GuestCode kBlockGuest;   // as few instructions as can be; the last result is kept
extern const GuestCode kReloadGuest;  // loads its registers for each call, and keeps each result

struct Machine {
    std::unique_ptr<vmm::Machine> machine;
    std::unique_ptr<xenshim::XenPlatform> platform;
    // As the machine's own CPU has it, or the port's.
    xenshim::TrapInstruction trap;

    std::byte* memory() const { return machine->memory().guest().page(0); }
    // What the guest left in a row.
    std::uint64_t result(std::size_t row) const;
    // Waits for the end that the benchmark asked for; `failure`: what it says then, or empty.
    vmm::Result<void> join(const std::string& failure) const;
};

// The vCPU starts at kCode in 64-bit mode, with its page tables at kPageTables. The profile and the
// memory's figures in `config` are filled in.
vmm::Result<Machine> create_machine(bool xen, std::uint64_t memory_bytes,
                                    xenshim::PlatformConfig config);

void put_guest(std::byte* memory, const GuestCode& code, const xenshim::TrapInstruction& trap,
               std::span<const Row> rows);

}  // namespace bench
