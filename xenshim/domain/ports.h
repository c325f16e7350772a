// What a domain asks of the machine that carries it. The machine implements it over KVM; tests
// implement it over plain memory. Nothing below this interface knows hypercalls.
#pragma once

#include <cstddef>
#include <cstdint>

namespace xenshim {

// A register state to start a vCPU in (VCPUOP_initialise), in the terms of public/hvm/hvm_vcpu.h.
struct VcpuContext {
    struct Segment {
        std::uint64_t base = 0;
        std::uint32_t limit = 0;
        std::uint16_t attributes = 0;
    };
    std::uint64_t gpr[8] = {};  // rax rcx rdx rbx rsp rbp rsi rdi
    std::uint64_t rip = 0, rflags = 2;
    std::uint64_t cr0 = 0, cr3 = 0, cr4 = 0, efer = 0;
    Segment cs, ds, es, ss, tr;
};

class Ports {
  public:
    virtual ~Ports() = default;

    // ---- memory: pages that the VMM owns (shared_info, grant frames) and guest RAM --------------

    // Host address of one of our own pages; `page` counts from 0 and is below kOwnPages.
    virtual std::byte* own_page(std::uint32_t page) = 0;
    // Shows an own page at `gfn`, in place of what is there. False: no room for one more.
    virtual bool show_own_page(std::uint64_t gfn, std::uint32_t page) = 0;
    virtual void hide_own_page(std::uint64_t gfn) = 0;
    // Whether `gfn` lies in memory that always has a slot (RAM, special pages, ACPI).
    virtual bool in_slot(std::uint64_t gfn) const = 0;
    // Gives pages inside a slot back to the host; they read as zeroes afterwards. False: the host
    // had spent nothing on them.
    virtual bool free_pages(std::uint64_t gfn, std::uint64_t count) = 0;
    // Pages inside a slot read as zeroes; what the host has spent on them it need not get back.
    virtual void clear_pages(std::uint64_t gfn, std::uint64_t count) = 0;
    // A page of RAM outside every slot, also where no CPU can look. False: no room for one more.
    virtual bool add_ram_page(std::uint64_t gfn) = 0;
    virtual void remove_ram_page(std::uint64_t gfn) = 0;
    // gfns at or above this one do not exist for the guest's CPU.
    virtual std::uint64_t gfn_limit() const = 0;

    // ---- vCPUs ----------------------------------------------------------------------------------

    // upcall_pending of this vCPU was set: raise the upcall. Any thread.
    virtual void upcall(unsigned vcpu) = 0;
    // A condition that a blocked vCPU waits for may have come true. Any thread.
    virtual void wake(unsigned vcpu) = 0;
    // HVM_PARAM_CALLBACK_IRQ changed.
    virtual void callback_changed(std::uint64_t value) = 0;
    // The callback's interrupt line, which is wired to this GSI (xenshim/domain/callback_line.h):
    // the chips have seen it when this returns. Any thread, one call at a time.
    virtual void drive_callback_line(unsigned gsi, bool asserted) = 0;
    // A vCPU's own upcall vector was set (HVMOP_set_evtchn_upcall_vector): raise it once.
    virtual void upcall_vector_changed(unsigned vcpu, std::uint8_t vector) = 0;
    // vcpu_info moved, or shared_info did: the clock and in-kernel users follow it.
    virtual void vcpu_info_moved(unsigned vcpu) = 0;
    // shared_info is now at `gfn` (or nowhere: kNoGfn).
    virtual void shared_info_moved(std::uint64_t gfn) = 0;
    virtual void runstate_area_moved(unsigned vcpu) = 0;
    // Whether the host's kernel writes the runstate area: then nobody else does.
    virtual bool host_keeps_runstate() { return false; }
    // VMASST_TYPE_runstate_update_flag.
    virtual void runstate_update_flag(bool) {}
    // A second clock record for this vCPU at `gpa` (kNoGfn: none any more). False: this machine has
    // only vcpu_info's.
    virtual bool place_time_area(unsigned vcpu, std::uint64_t gpa) = 0;
    // The width of shared_info was latched.
    virtual void width_latched(bool is_64bit) = 0;
    // This vCPU's timer deadlines changed. Only the thread that runs the vCPU.
    virtual void timers_changed(unsigned vcpu) = 0;
    virtual void start_vcpu(unsigned vcpu, const VcpuContext* context) = 0;
    virtual void stop_vcpu(unsigned vcpu) = 0;
    virtual void send_nmi(unsigned vcpu) = 0;

    // ---- the rest -------------------------------------------------------------------------------

    // System time as the guest's clock shows it, ns.
    virtual std::uint64_t system_time_ns() = 0;
    // SCHEDOP_shutdown: the domain ends with this reason. No vCPU runs another instruction.
    virtual void shutdown(std::uint8_t reason) = 0;
    // SCHEDOP_shutdown(suspend) that the toolstack waited for: the domain stands still. No vCPU
    // runs another instruction until the toolstack lets it go on (Domain::go_on_here()).
    virtual void suspend() = 0;
};

inline constexpr std::uint64_t kNoGfn = ~std::uint64_t{0};
// Own pages lie one after the other: shared_info, the grant table's frames, its status frames
// (version 2: two bytes for each entry of 16), and pages that the guest granted to itself.
inline constexpr std::uint32_t kSharedInfoPage = 0;
inline constexpr std::uint32_t kFirstGrantPage = 1;
inline constexpr std::uint32_t kMaxGrantFrames = 4096;
inline constexpr std::uint32_t kFirstStatusPage = kFirstGrantPage + kMaxGrantFrames;
inline constexpr std::uint32_t kMaxStatusFrames = kMaxGrantFrames / 8;
inline constexpr std::uint32_t kFirstGrantedPage = kFirstStatusPage + kMaxStatusFrames;
inline constexpr std::uint32_t kMaxGrantedPages = 1024;
inline constexpr std::uint32_t kOwnPages = kFirstGrantedPage + kMaxGrantedPages;

}  // namespace xenshim
