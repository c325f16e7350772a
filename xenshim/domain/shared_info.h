// shared_info and the vcpu_infos: the words through which Xen and its guest exchange events.
//
// The page is ours and the guest writes it at the same time, so every access is one atomic word.
// Bitmaps are handled as 32-bit words at either width: on a little-endian CPU bit n of an array of
// 64-bit words is bit n%32 of 32-bit word n/32.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "vmm/base/saved.h"
#include "vmm/memory/guest_memory.h"
#include "xenshim/abi/structs.h"
#include "xenshim/abi/width.h"
#include "xenshim/domain/ports.h"

namespace xenshim {

inline constexpr std::size_t kVcpuInfoBytes = 64;

// Where one vCPU's vcpu_info is. Its content is in memory that is saved as memory, but for that of
// a vCPU beyond the legacy slots which has not registered one: `waiting`.
struct VcpuInfoState {
    std::optional<std::uint64_t> gpa{};  // where the guest moved it
    std::optional<std::array<std::byte, kVcpuInfoBytes>> waiting{};

    bool operator==(const VcpuInfoState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [gpa, waiting] = self;
        return std::tuple{vmm::saved::field(1, "gpa", gpa),
                          vmm::saved::field(2, "waiting", waiting)};
    }
};

struct SharedInfoState {
    static constexpr vmm::saved::Section kSection{"xen.shared_info", 1};

    bool is_64bit = true;
    std::uint64_t wall_sec = 0;  // real time at system time 0
    std::uint32_t wall_nsec = 0;
    std::vector<VcpuInfoState> vcpus{};

    bool operator==(const SharedInfoState&) const = default;

    static constexpr auto fields(auto& self) {
        auto& [is_64bit, wall_sec, wall_nsec, vcpus] = self;
        return std::tuple{
            vmm::saved::field(1, "is_64bit", is_64bit), vmm::saved::field(2, "wall_sec", wall_sec),
            vmm::saved::field(3, "wall_nsec", wall_nsec), vmm::saved::field(4, "vcpus", vcpus)};
    }
};

class SharedInfo {
  public:
    using State = SharedInfoState;
    SharedInfo(Ports& ports, vmm::GuestMemory& memory, unsigned vcpus);

    // The layout follows the width that was latched (hypercall page MSR, CALLBACK_IRQ).
    void latch(abi::Width width);
    bool is_64bit() const { return layout() == &abi::kSharedInfo64; }
    const abi::SharedInfoLayout* layout() const { return layout_.load(std::memory_order_acquire); }

    // The real time at system time 0.
    void set_wall_clock(std::uint64_t sec, std::uint32_t nsec);

    bool set_pending(std::uint32_t port);    // returns what the bit was
    bool clear_pending(std::uint32_t port);  // returns what the bit was
    bool is_pending(std::uint32_t port) const;
    bool is_masked(std::uint32_t port) const;
    bool clear_mask(std::uint32_t port);  // returns what the bit was

    // vcpu_info: in shared_info for the first 32 vCPUs until the guest moves it.
    // A later vCPU has none until it registers one: its events wait in memory of ours.
    void move_vcpu_info(unsigned vcpu, vmm::Gpa gpa, std::byte* at);
    bool vcpu_info_moved(unsigned vcpu) const { return slots_[vcpu].gpa.load() != kNotMoved; }
    // Guest physical address, or nothing when neither registered nor shared_info mapped.
    std::optional<vmm::Gpa> vcpu_info_gpa(unsigned vcpu, std::uint64_t shared_info_gfn) const;
    bool set_selector(unsigned vcpu, std::uint32_t port);  // returns what the bit was
    void set_all_selectors(unsigned vcpu);
    bool set_upcall_pending(unsigned vcpu);  // returns what it was
    bool upcall_pending(unsigned vcpu) const;
    // How often set_upcall_pending() found it clear. Tells one that stayed set from one that the
    // guest cleared in between; a figure of this process, not the VM's state.
    std::uint32_t upcall_rises(unsigned vcpu) const { return slots_[vcpu].rises.load(); }
    void clear_upcall_mask(unsigned vcpu);

    State snapshot() const;
    // After the physical memory map was adopted: a vcpu_info's place is looked up. The pages
    // themselves are not written, also not the wall clock's words.
    vmm::Expected<void, std::string> adopt(const State& state);
    // As of a domain that is new, but for its width and its wall clock: nothing is pending, and
    // every vcpu_info is back. While no vCPU runs.
    void begin_anew();

  private:
    static constexpr std::uint64_t kNotMoved = ~std::uint64_t{0};

    struct Slot {
        std::atomic<std::byte*> moved_to{nullptr};
        std::atomic<std::uint64_t> gpa{kNotMoved};
        std::atomic<std::uint32_t> rises{0};
        alignas(64) std::byte own[64] = {};
    };

    std::byte* vcpu_info(unsigned vcpu) const;
    std::atomic_ref<std::uint32_t> bitmap_word(std::uint32_t base, std::uint32_t bit) const;
    void write_wall_clock();

    vmm::GuestMemory& memory_;
    std::byte* page_;
    std::atomic<const abi::SharedInfoLayout*> layout_{&abi::kSharedInfo32};
    mutable std::vector<Slot> slots_;
    std::uint64_t wall_sec_ = 0;
    std::uint32_t wall_nsec_ = 0;
};

}  // namespace xenshim
