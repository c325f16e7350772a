// A guest's side of FIFO event channels, written from the interface's description.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <vector>

#include "tests/fakes/test_domain.h"

namespace xenshim::fakes {

// Its control blocks lie in one page each, its array pages one after another.
class FifoGuest {
  public:
    // An event word.
    static constexpr std::uint32_t kPending = 1u << 31, kMasked = 1u << 30, kLinked = 1u << 29,
                                   kBusy = 1u << 28, kLink = (1u << 17) - 1;
    static constexpr std::uint64_t kControlGfn = 0x4000, kArrayGfn = 0x5000;

    explicit FifoGuest(TestDomain& domain, std::uint32_t offset = 0)
        : d_(domain), offset_(offset), heads_(domain.domain.vcpus()) {}
    // As it is in another domain, which was copied to this one.
    FifoGuest(TestDomain& domain, const FifoGuest& of)
        : d_(domain), offset_(of.offset_), pages_(of.pages_), heads_(of.heads_) {}

    GuestResult<void> init(unsigned vcpu) {
        return ev().init_control(vcpu, offset_, d_.domain.named_page(kControlGfn + vcpu));
    }
    GuestResult<void> expand() {
        return ev().expand_array(d_.domain.named_page(kArrayGfn + pages_++));
    }
    std::atomic_ref<std::uint32_t> word(Port port) {
        return at(kArrayGfn + port / 1024, port % 1024 * 4);
    }
    std::atomic_ref<std::uint32_t> ready(unsigned vcpu) { return at(kControlGfn + vcpu, offset_); }
    std::atomic_ref<std::uint32_t> head(unsigned vcpu, unsigned priority) {
        return at(kControlGfn + vcpu, offset_ + 8 + priority * 4);
    }

    // Everything that is to be handled on this vCPU, in order; its upcall flag is cleared.
    std::vector<Port> take(unsigned vcpu) {
        std::vector<Port> taken;
        std::byte* flag = d_.ports.own_page(kSharedInfoPage) + vcpu * 64;
        std::atomic_ref<std::uint8_t>(*reinterpret_cast<std::uint8_t*>(flag)).store(0);
        std::uint32_t left = ready(vcpu).exchange(0);
        while (left != 0) {
            const auto q = static_cast<unsigned>(std::countr_zero(left));
            Port& next = heads_[vcpu][q];
            const Port port = next != 0 ? next : head(vcpu, q).load();
            std::uint32_t old = word(port).load();
            while (!word(port).compare_exchange_weak(old, old & ~(kLinked | kLink))) {
            }
            next = old & kLink;
            if (next == 0) left &= ~(1u << q);
            if ((old & kMasked) == 0 && (word(port).fetch_and(~kPending) & kPending) != 0) {
                taken.push_back(port);
            }
            left |= ready(vcpu).exchange(0);
        }
        return taken;
    }
    void mask(Port port) { word(port).fetch_or(kMasked); }
    // As the interface wants it: only while the hypervisor is not busy with the word.
    void unmask(Port port) {
        std::uint32_t old = word(port).load() & ~kBusy;
        while (!word(port).compare_exchange_weak(old, old & ~kMasked)) {
            old &= ~kBusy;
        }
        if ((old & kPending) != 0) static_cast<void>(ev().unmask(port));
    }

  private:
    EventChannels& ev() { return d_.domain.event_channels(); }
    std::atomic_ref<std::uint32_t> at(std::uint64_t gfn, std::uint32_t offset) {
        return std::atomic_ref<std::uint32_t>(
            *reinterpret_cast<std::uint32_t*>(d_.ports.memory.page(gfn) + offset));
    }

    TestDomain& d_;
    std::uint32_t offset_;
    unsigned pages_ = 0;
    std::vector<std::array<Port, kFifoPriorities>> heads_;
};

}  // namespace xenshim::fakes
