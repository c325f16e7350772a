// Finds the two functions through which Linux makes its hypercalls once it knows the CPU's vendor
// (since the fix for XSA-466 it no longer uses the hypercall page): one is a VMMCALL, the other a
// VMCALL. Where KVM cannot hand these to us, the transport puts a trapping instruction of the same
// three bytes in their place; here they are only found.
//
// Two forms are accepted, each only for a whole function that starts at a multiple of 16 (after an
// optional ENDBR64) in an executable segment:
//   1. VMMCALL/VMCALL followed by `jmp rel32`: kernels built with return thunks, as Debian's are.
//      Both must jump to the same place, inside an executable segment, and the image must hold
//      exactly one such pair.
//   2. VMMCALL/VMCALL followed by `ret`: kernels built without. There is no common target to tie
//      the two together, so they must be neighbours instead (kNeighbours bytes), there must be
//      exactly one function of either kind, and no pair of form 1.
// Is form 2 safe? A wrong patch needs an aligned `0f 01 c1 c3` and an aligned `0f 01 d9 c3` within
// a few bytes of each other that are not what they look like: by chance that does not happen in
// any real text, and where they are such functions, a hypercall is what they are for. A kernel
// that wants to see the other vendor's instruction fault would notice; Linux does not.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "vmm/boot/elf.h"
#include "vmm/memory/address.h"

namespace vmm::boot {

// Guest physical addresses of the two 3-byte instructions.
struct CallSites {
    Gpa vmcall;   // 0f 01 c1
    Gpa vmmcall;  // 0f 01 d9
    bool operator==(const CallSites&) const = default;
};

struct CallSiteSearch {
    std::optional<CallSites> found;
    std::string why_not;  // one line for the log when there are none or too many
};

CallSiteSearch find_call_sites(const Elf& elf, std::span<const std::byte> file);

}  // namespace vmm::boot
