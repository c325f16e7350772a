// What a CPU can do for a guest, as a short text that people read, keep and edit: what
// `xenolith check --cpu` prints and `xenolith run --cpu FILE` takes. A guest that is shown no more
// than what all hosts of a pool have may move to each of them.
//
//     vendor AuthenticAMD
//     address_bits 48 48        physical, linear
//     features fpu vme de pse   any number of such lines; names as in /proc/cpuinfo
//     xsave x87 sse avx@576+256 components of the XSAVE area, and where they are in it
//
// An empty line, and what follows a '#', says nothing.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/kvm/cpuid_state.h"
#include "vmm/kvm/kvm.h"

namespace vmm::kvm {

class CpuModel {
  public:
    // As a vCPU with these leaves sees itself.
    static CpuModel of(const CpuidState& leaves);
    // The reason names the line.
    static Expected<CpuModel, std::string> parse(std::string_view text);
    std::string to_text() const;

    const std::string& vendor() const { return vendor_; }
    unsigned physical_bits() const { return physical_bits_; }
    unsigned linear_bits() const { return linear_bits_; }
    // By their usual names (those of /proc/cpuinfo, else leaf, register and bit).
    std::vector<std::string> features() const;
    std::vector<std::string> xsave() const;

    // What is here and not there, by name, the vendor and the widths of addresses too.
    std::vector<std::string> missing_from(const CpuModel& host) const;
    // Takes away what the other has not. The reason: they have no guest in common.
    Expected<void, std::string> intersect(const CpuModel& other);
    // Takes away from a vCPU's leaves what is not here. Bits that are no features stay as they are.
    void limit(std::vector<CpuidLeaf>& leaves) const;

    static constexpr std::size_t kWordCount = 15;

  private:
    // Guests keep these areas in their memory, each at its place.
    struct Component {
        bool there = false;
        std::uint32_t offset = 0, size = 0;  // of x87 and SSE: 0
        bool operator==(const Component&) const = default;
    };

    std::string vendor_;
    unsigned physical_bits_ = 0, linear_bits_ = 0;
    std::array<std::uint32_t, kWordCount> words_{};
    std::array<Component, 64> components_{};
};

}  // namespace vmm::kvm
