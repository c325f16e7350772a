// A caller's linear memory without page tables: linear is physical, but for the NULL page, pages
// that a test made unreadable or read-only, and everything beyond `end`. Hooks let a test play the
// second vCPU that rewrites an argument while it is being looked at.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "vmm/memory/guest_memory.h"
#include "xenshim/hypercall/call.h"

namespace xenshim::fakes {

class FakeAccess final : public GuestAccess {
  public:
    explicit FakeAccess(vmm::GuestMemory& memory) : memory_(memory) {}

    struct Touch {
        std::uint64_t at;
        std::uint64_t size;
    };
    // Called after each read and each write that succeeded.
    std::function<void(Touch)> after_read;
    std::function<void(Touch)> after_write;
    // Linear page numbers.
    std::set<std::uint64_t> unmapped = {0};
    std::set<std::uint64_t> read_only;
    std::uint64_t end = std::uint64_t{1} << 32;

    std::vector<Touch> reads, writes;

    bool read(vmm::Gva at, std::span<std::byte> to) override {
        const Touch touch{at.value, to.size()};
        while (!to.empty()) {
            const auto n = std::min<std::uint64_t>(to.size(), vmm::kPageSize - at.offset());
            if (!mapped(at) || !memory_.read(vmm::Gpa{at.value}, to.first(n))) return false;
            to = to.subspan(n);
            at = at + n;
        }
        reads.push_back(touch);
        if (after_read) after_read(touch);
        return true;
    }
    bool write(vmm::Gva at, std::span<const std::byte> from) override {
        const Touch touch{at.value, from.size()};
        while (!from.empty()) {
            const auto n = std::min<std::uint64_t>(from.size(), vmm::kPageSize - at.offset());
            if (!mapped(at) || read_only.contains(page_of(at)) ||
                !memory_.write(vmm::Gpa{at.value}, from.first(n))) {
                return false;
            }
            from = from.subspan(n);
            at = at + n;
        }
        writes.push_back(touch);
        if (after_write) after_write(touch);
        return true;
    }
    std::optional<vmm::Gpa> translate(vmm::Gva at) override {
        if (!mapped(at) || read_only.contains(page_of(at))) return std::nullopt;
        return vmm::Gpa{at.value};
    }

    // Whether any byte was read more than once since the last forget().
    bool looked_twice() const {
        for (std::size_t i = 0; i < reads.size(); ++i) {
            for (std::size_t j = i + 1; j < reads.size(); ++j) {
                const Touch &a = reads[i], &b = reads[j];
                if (a.at < b.at + b.size && b.at < a.at + a.size) return true;
            }
        }
        return false;
    }
    void forget() {
        reads.clear();
        writes.clear();
    }

  private:
    static std::uint64_t page_of(vmm::Gva at) { return at.value >> vmm::kPageShift; }
    bool mapped(vmm::Gva at) const {
        return at.value < end && !unmapped.contains(page_of(at)) &&
               !memory_.is_foreign(page_of(at));
    }

    vmm::GuestMemory& memory_;
};

}  // namespace xenshim::fakes
