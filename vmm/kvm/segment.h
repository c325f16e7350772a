// A segment register as KVM has it, of its attributes as VMX and Xen pack them: bits 0 to 3 the
// type, 4 S, 5 and 6 the DPL, 7 P, 8 AVL, 9 L, 10 D/B, 11 G.
#pragma once

#include <cstdint>

#include "vmm/kvm/linux_kvm.h"

namespace vmm::kvm {

inline kvm_segment segment_of(std::uint64_t base, std::uint32_t limit, std::uint16_t selector,
                              unsigned attributes) {
    const auto bit = [attributes](unsigned n) {
        return static_cast<std::uint8_t>((attributes >> n) & 1);
    };
    kvm_segment out{};
    out.base = base;
    out.limit = limit;
    out.selector = selector;
    out.type = attributes & 0xf;
    out.s = bit(4);
    out.dpl = (attributes >> 5) & 3;
    out.present = bit(7);
    out.avl = bit(8);
    out.l = bit(9);
    out.db = bit(10);
    out.g = bit(11);
    return out;
}

}  // namespace vmm::kvm
