// The registers of a vCPU that makes a hypercall, without KVM: what xenshim/transport reads a
// request from and writes a continuation to.
#pragma once

#include <array>
#include <cstdint>
#include <random>

#include "vmm/kvm/kvm.h"
#include "xenshim/transport/hypercall_registers.h"

namespace xenshim::tests {

using vmm::kvm::Reg;

struct GuestCpu {
    static constexpr std::size_t kRegs = static_cast<std::size_t>(Reg::kRflags) + 1;
    abi::Width width = abi::Width::k64;
    bool wide_numbers = true;  // Profile::wide_numbers
    std::array<std::uint64_t, kRegs> regs{};

    std::uint64_t get(Reg reg) const { return regs[static_cast<std::size_t>(reg)]; }
    void set(Reg reg, std::uint64_t value) { regs[static_cast<std::size_t>(reg)] = value; }
    bool in_64bit_code() const { return width == abi::Width::k64; }
    unsigned cpl() const { return 0; }

    const std::array<Reg, 5>& arg_regs() const { return in_64bit_code() ? kArgs64 : kArgs32; }

    // A call at the caller's width. All that it does not say, upper halves among it, is noise.
    template <class Random>
    void load(std::uint64_t number, const std::array<std::uint64_t, 5>& args, Random& random) {
        for (auto& reg : regs) {
            reg = random();
        }
        put(Reg::kRax, number);
        for (std::size_t i = 0; i < args.size(); ++i) {
            put(arg_regs()[i], args[i]);
        }
    }
    // Code that is not 64-bit cannot see the upper halves: whatever stands there must not matter.
    // Neither must that of RAX where Xen looks at EAX alone.
    template <class Random>
    void scramble_upper_halves(Random& random) {
        if (in_64bit_code()) {
            if (!wide_numbers) scramble_upper_half(Reg::kRax, random);
            return;
        }
        for (std::size_t i = 0; i < kRegs; ++i) {
            scramble_upper_half(static_cast<Reg>(i), random);
        }
    }

  private:
    template <class Random>
    void scramble_upper_half(Reg reg, Random& random) {
        set(reg, (get(reg) & UINT32_MAX) | (random() & ~std::uint64_t{UINT32_MAX}));
    }
    void put(Reg reg, std::uint64_t value) {
        const std::uint64_t mask = in_64bit_code() ? UINT64_MAX : UINT32_MAX;
        set(reg, (get(reg) & ~mask) | (value & mask));
    }
};

}  // namespace xenshim::tests
