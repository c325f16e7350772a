// Which registers carry a hypercall: the calling convention of Xen's
// docs/guest-guide/x86/hypercall-abi.rst. 64-bit code: RAX, then RDI RSI RDX R10 R8. Anything else
// (32-bit, compatibility mode, real mode): EAX, then EBX ECX EDX ESI EDI, upper halves ignored on
// the way in and zero on the way out.
#pragma once

#include <array>
#include <cstdint>

#include "vmm/kvm/kvm.h"
#include "xenshim/abi/call.h"

namespace xenshim {

inline constexpr std::array<vmm::kvm::Reg, 5> kArgs64 = {vmm::kvm::Reg::kRdi, vmm::kvm::Reg::kRsi,
                                                         vmm::kvm::Reg::kRdx, vmm::kvm::Reg::kR10,
                                                         vmm::kvm::Reg::kR8};
inline constexpr std::array<vmm::kvm::Reg, 5> kArgs32 = {vmm::kvm::Reg::kRbx, vmm::kvm::Reg::kRcx,
                                                         vmm::kvm::Reg::kRdx, vmm::kvm::Reg::kRsi,
                                                         vmm::kvm::Reg::kRdi};

// Where the CPU fetches the instruction at `rip`: only 64-bit code does without its segment's base.
constexpr std::uint64_t linear_rip(bool in_64bit_code, std::uint64_t code_base, std::uint64_t rip) {
    return in_64bit_code ? rip : (code_base + rip) & UINT32_MAX;
}

// `Vcpu` is vmm::kvm::Vcpu, or what stands for it in tests.
template <class Vcpu>
std::uint64_t linear_rip(const Vcpu& vcpu) {
    return linear_rip(vcpu.in_64bit_code(), vcpu.code_base(), vcpu.get(vmm::kvm::Reg::kRip));
}

template <class Vcpu>
abi::Request read_request(const Vcpu& vcpu) {
    abi::Request request;
    request.cpl = vcpu.cpl();
    const bool wide = vcpu.in_64bit_code();
    const std::uint64_t mask = wide ? UINT64_MAX : UINT32_MAX;
    request.width = wide ? abi::Width::k64 : abi::Width::k32;
    request.number = vcpu.get(vmm::kvm::Reg::kRax) & mask;
    const auto& regs = wide ? kArgs64 : kArgs32;
    for (std::size_t i = 0; i < regs.size(); ++i) {
        request.args[i] = vcpu.get(regs[i]) & mask;
    }
    return request;
}

inline std::uint64_t result_register(abi::Width width, std::int64_t result) {
    const auto value = static_cast<std::uint64_t>(result);
    return width == abi::Width::k64 ? value : value & UINT32_MAX;
}

// Everything but RIP, which depends on where the transport's exit leaves it.
template <class Vcpu>
void write_reissue(Vcpu& vcpu, abi::Width width, const abi::Reissue& again) {
    vcpu.set(vmm::kvm::Reg::kRax, again.number);
    const auto& regs = width == abi::Width::k64 ? kArgs64 : kArgs32;
    for (std::size_t i = 0; i < regs.size(); ++i) {
        vcpu.set(regs[i], again.args[i]);
    }
}

}  // namespace xenshim
