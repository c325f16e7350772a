// The least that a KVM guest needs: a VM of one vCPU in 64-bit mode, made by plain system calls.
// What the benchmarks compare Xenolith with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "vmm/base/fd.h"
#include "vmm/base/result.h"

struct kvm_run;

namespace bench {

// Where the guests of the benchmarks find things, in guest physical = virtual addresses.
inline constexpr std::uint64_t kCode = 0x1000;
inline constexpr std::uint64_t kTable = 0x2000;
inline constexpr std::uint64_t kPageTables = 0x10000;  // four pages: 2 MiB in 4 KiB pages

// Identity page tables for the first 2 MiB.
void write_page_tables(std::byte* memory);

// All that KVM knows of a vCPU, as it gives and takes it.
struct RawState;

class RawVm {
  public:
    struct Config {
        std::uint64_t memory_bytes = 2 << 20;
        std::string memory_file = {};  // mapped privately as the memory; empty: memory of its own
        bool xen = false;              // KVM hands Xen hypercalls over (KVM_CAP_XEN_HVM)
        // KVM shows both register sets at each exit, and takes the general ones back.
        bool sync_registers = false;
    };
    static vmm::Result<std::unique_ptr<RawVm>> create(const Config& config);
    ~RawVm();
    RawVm(const RawVm&) = delete;
    RawVm& operator=(const RawVm&) = delete;

    std::byte* memory() { return memory_; }
    // Makes the vCPU start at kCode; after memory was filled.
    vmm::Result<void> set_start();
    // What a VM that is restored cannot do without: the vCPU's state is read from one VM and given
    // to another.
    vmm::Result<std::shared_ptr<const RawState>> read_state() const;
    vmm::Result<void> set_state(const RawState& state);

    // Enters the guest `times` times and looks at nothing but the system call's result.
    bool run(unsigned times);
    // The last exit was the guest reading a port; `value` is what it will read.
    bool answer_port_read(std::uint32_t value);
    bool last_was_trap(bool xen) const;

  private:
    RawVm() = default;
    vmm::Fd kvm_, vm_, vcpu_, memory_fd_;
    std::byte* memory_ = nullptr;
    std::uint64_t memory_bytes_ = 0;
    kvm_run* run_ = nullptr;
    bool sync_registers_ = false;
    std::size_t run_bytes_ = 0;
};

}  // namespace bench
