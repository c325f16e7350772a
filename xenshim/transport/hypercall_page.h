// The hypercall page: 128 stubs of 32 bytes, `mov $n,%eax`, a 3-byte trapping instruction, `ret`;
// the rest is INT3. Stub 23 (iret) is UD2, as on Xen.
//
// The trap is one that every KVM hands over: `ds; out %al,$0x7e`. It is as long as VMCALL and
// VMMCALL, so that it can stand in their place, and 0x7e is the one port for which every KVM
// leaves RIP past the OUT at the exit (KVM_X86_QUIRK_OUT_7E_INC_RIP), so that RIP set back executes
// it again. On a KVM that has Xen support it is the cheaper exit of the two, too (kvm_amd: 4,500
// instructions against 6,000 for a null hypercall), and nothing that comes by it is answered by the
// kernel in its own way.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#include "vmm/memory/address.h"

namespace xenshim {

using TrapInstruction = std::array<std::uint8_t, 3>;

inline constexpr TrapInstruction kVmcall = {0x0f, 0x01, 0xc1};
inline constexpr TrapInstruction kVmmcall = {0x0f, 0x01, 0xd9};
inline constexpr TrapInstruction kPortTrap = {0x3e, 0xe6, 0x7e};
inline constexpr std::uint16_t kTrapPort = 0x7e;

inline std::array<std::uint8_t, vmm::kPageSize> make_hypercall_page(
    TrapInstruction trap = kPortTrap) {
    constexpr std::size_t kStubBytes = 32;
    constexpr std::uint32_t kIret = 23;
    std::array<std::uint8_t, vmm::kPageSize> page{};
    page.fill(0xcc);
    for (std::uint32_t n = 0; n < page.size() / kStubBytes; ++n) {
        std::uint8_t* stub = page.data() + n * kStubBytes;
        if (n == kIret) {
            stub[0] = 0x0f;
            stub[1] = 0x0b;
            continue;
        }
        stub[0] = 0xb8;
        std::memcpy(stub + 1, &n, sizeof n);
        std::memcpy(stub + 5, trap.data(), trap.size());
        stub[5 + trap.size()] = 0xc3;
    }
    return page;
}

}  // namespace xenshim
