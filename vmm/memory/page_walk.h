// Translates guest virtual addresses by walking the guest's own page tables in user space, as the
// CPU would for a supervisor access: no paging, 32-bit (with PSE), PAE and 4-level paging (AMD64
// APM volume 2, chapter 5). No ioctl: KVM_TRANSLATE costs more than a whole exit.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "vmm/memory/address.h"
#include "vmm/memory/guest_memory.h"

namespace vmm {

// What decides a walk: the vCPU's control registers at the exit.
struct PagingState {
    std::uint64_t cr0 = 0;
    std::uint64_t cr3 = 0;
    std::uint64_t cr4 = 0;
    std::uint64_t efer = 0;
    std::uint64_t rflags = 0;  // AC opens SMAP
};

enum class Access { kRead, kWrite };

// The physical address behind `at`, or nothing when the access would fault. Sets the accessed and
// dirty bits that the CPU would set.
std::optional<Gpa> walk(GuestMemory& memory, const PagingState& paging, Gva at, Access access);

// A guest's linear address space for the length of one hypercall: it remembers the last page that
// it walked to, so that an argument which is read and written back is walked to once. The guest may
// change its tables at any time, so nothing is remembered longer.
class LinearMemory {
  public:
    LinearMemory(GuestMemory& memory, const PagingState& paging)
        : memory_(memory), paging_(paging) {}

    // Copies, page by page; false when a byte cannot be had. What was copied is a prefix.
    bool read(Gva at, std::span<std::byte> to) {
        if (at.offset() + to.size() > kPageSize) return read_pages(at, to);
        const auto gpa = translate(at, Access::kRead);
        return gpa ? memory_.read(*gpa, to) : to.empty();
    }
    bool write(Gva at, std::span<const std::byte> from) {
        if (at.offset() + from.size() > kPageSize) return write_pages(at, from);
        const auto gpa = translate(at, Access::kWrite);
        return gpa ? memory_.write(*gpa, from) : from.empty();
    }
    // Nothing behind it either when the page is not the guest's own (GuestMemory::set_foreign).
    std::optional<Gpa> translate(Gva at, Access access) {
        const bool known = known_ && known_virtual_ == at.value >> kPageShift &&
                           (known_writable_ || access == Access::kRead);
        if (!known && !walk_and_remember(at, access)) return std::nullopt;
        const Gpa gpa{(known_physical_ << kPageShift) | at.offset()};
        if (memory_.is_foreign(gpa.gfn())) return std::nullopt;
        return gpa;
    }

  private:
    bool walk_and_remember(Gva at, Access access);
    bool read_pages(Gva at, std::span<std::byte> to);
    bool write_pages(Gva at, std::span<const std::byte> from);

    GuestMemory& memory_;
    const PagingState paging_;
    bool known_ = false;
    bool known_writable_ = false;
    std::uint64_t known_virtual_ = 0;  // page numbers
    std::uint64_t known_physical_ = 0;
};

}  // namespace vmm
