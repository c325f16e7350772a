// What memory_op is made of; memory_op.cc says which sub-op goes where.
#pragma once

#include <algorithm>
#include <array>

#include "xenshim/hypercall/call.h"

namespace xenshim::memory_ops {

// The words of a caller's list. A 32-bit caller's are translated before the first of them is used,
// as many as have room: what the call does meanwhile does not change them any more (measured on
// 4.17.7, whose two pages for translation hold 1020 extents, or 509 pairs of a batch).
template <std::size_t Room>
class WordList {
  public:
    // Of `size` words, no more than `most` of which are translated at once.
    WordList(Call& call, vmm::Gva list, std::uint64_t size, std::size_t most = Room)
        : call_(call), list_(list), size_(size), most_(std::min(most, Room)) {}

    GuestResult<std::uint64_t> at(std::uint64_t i) {
        if (call_.is_64bit()) return call_.read_word(list_, i);
        if (i - first_ >= wanted_) read_ahead(i);
        if (i - first_ >= had_) return refuse(XEN_EFAULT);
        return std::uint64_t{words_[i - first_]};
    }
    // Whether all that is read together with element `i` is there.
    bool all_there(std::uint64_t i) {
        return call_.is_64bit() || (at(i).has_value() && had_ == wanted_);
    }

  private:
    void read_ahead(std::uint64_t i) {
        first_ = i;
        wanted_ = static_cast<std::size_t>(std::min<std::uint64_t>(most_, size_ - i));
        had_ = 0;
        const auto words = std::span(words_).first(wanted_);
        const vmm::Gva at = call_.element(list_, i, sizeof words_[0]);
        if (at.value + words.size_bytes() <= UINT32_MAX &&
            call_.access().read(at, std::as_writable_bytes(words))) {
            had_ = wanted_;
            return;
        }
        for (; had_ < wanted_; ++had_) {
            const auto word = call_.read_word(list_, i + had_);
            if (!word) return;
            words_[had_] = static_cast<std::uint32_t>(*word);
        }
    }

    Call& call_;
    const vmm::Gva list_;
    const std::uint64_t size_;
    const std::size_t most_;
    std::uint64_t first_ = 0;
    std::size_t wanted_ = 0, had_ = 0;
    std::array<std::uint32_t, Room> words_;
};

// memory_op_reservation.cc: pages given, taken and exchanged.
abi::Outcome reservation(Call& call, abi::Command at);
abi::Outcome exchange(Call& call);

// memory_op_physmap.cc: what is where.
abi::Outcome add_to_physmap(Call& call, std::uint64_t start);
abi::Outcome add_to_physmap_batch(Call& call, std::uint64_t start);
abi::Outcome remove_from_physmap(Call& call);

// memory_op_maps.cc: descriptions of memory.
abi::Outcome memory_map(Call& call);
abi::Outcome set_memory_map(Call& call);
abi::Outcome reserved_device_memory_map(Call& call);
abi::Outcome vnuma_info(Call& call);
abi::Outcome machphys_list(Call& call);

// memory_op_refused.cc: what a guest is refused, each in Xen's own way.
abi::Outcome pod_target(Call& call);
abi::Outcome access_op(Call& call);
abi::Outcome claim_pages(Call& call);
abi::Outcome acquire_resource(Call& call, std::uint64_t start);
abi::Outcome translate_gpfn_list(Call& call);

}  // namespace xenshim::memory_ops
