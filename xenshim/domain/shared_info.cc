#include "xenshim/domain/shared_info.h"

#include <cstring>

namespace xenshim {
namespace {

constexpr std::uint32_t bit_of(std::uint32_t n) {
    return 1u << (n % 32);
}

template <class T>
std::atomic_ref<T> word_at(std::byte* at) {
    return std::atomic_ref<T>(*reinterpret_cast<T*>(at));  // NOLINT: our own page, aligned
}

}  // namespace

// Until a vCPU latches the width, the layout is the 64-bit one, as of a fresh domain on Xen: a
// 64-bit kernel that never latches relies on it.
SharedInfo::SharedInfo(Ports& ports, unsigned vcpus)
    : page_(ports.own_page(kSharedInfoPage)), layout_(&abi::kSharedInfo64), slots_(vcpus) {}

void SharedInfo::latch(abi::Width width) {
    const auto* wanted = width == abi::Width::k64 ? &abi::kSharedInfo64 : &abi::kSharedInfo32;
    if (layout_.exchange(wanted) != wanted) write_wall_clock();
}

void SharedInfo::set_wall_clock(std::uint64_t sec, std::uint32_t nsec) {
    wall_sec_ = sec;
    wall_nsec_ = nsec;
    write_wall_clock();
}

void SharedInfo::write_wall_clock() {
    const auto* l = layout();
    // An odd version tells readers that the rest is being changed.
    auto version = word_at<std::uint32_t>(page_ + l->wc_version);
    const std::uint32_t before = version.load() & ~1u;
    version.store(before | 1, std::memory_order_seq_cst);
    word_at<std::uint32_t>(page_ + l->wc_version + 4).store(static_cast<std::uint32_t>(wall_sec_));
    word_at<std::uint32_t>(page_ + l->wc_version + 8).store(wall_nsec_);
    word_at<std::uint32_t>(page_ + l->wc_sec_hi).store(static_cast<std::uint32_t>(wall_sec_ >> 32));
    version.store(before + 2, std::memory_order_seq_cst);
}

std::atomic_ref<std::uint32_t> SharedInfo::bitmap_word(std::uint32_t base,
                                                       std::uint32_t bit) const {
    return word_at<std::uint32_t>(page_ + base + bit / 32 * 4);
}

bool SharedInfo::set_pending(std::uint32_t port) {
    const auto was = bitmap_word(layout()->evtchn_pending, port).fetch_or(bit_of(port));
    return (was & bit_of(port)) != 0;
}

bool SharedInfo::clear_pending(std::uint32_t port) {
    const auto was = bitmap_word(layout()->evtchn_pending, port).fetch_and(~bit_of(port));
    return (was & bit_of(port)) != 0;
}

bool SharedInfo::is_pending(std::uint32_t port) const {
    return (bitmap_word(layout()->evtchn_pending, port).load() & bit_of(port)) != 0;
}

bool SharedInfo::is_masked(std::uint32_t port) const {
    return (bitmap_word(layout()->evtchn_mask, port).load() & bit_of(port)) != 0;
}

bool SharedInfo::clear_mask(std::uint32_t port) {
    const auto was = bitmap_word(layout()->evtchn_mask, port).fetch_and(~bit_of(port));
    return (was & bit_of(port)) != 0;
}

std::byte* SharedInfo::vcpu_info(unsigned vcpu) const {
    Slot& slot = slots_[vcpu];
    if (std::byte* moved = slot.moved_to.load(std::memory_order_acquire)) return moved;
    if (vcpu < abi::kLegacyVcpus) return page_ + std::size_t{vcpu} * layout()->vcpu_info_bytes;
    return slot.own;
}

void SharedInfo::move_vcpu_info(unsigned vcpu, vmm::Gpa gpa, std::byte* at) {
    Slot& slot = slots_[vcpu];
    // What was pending before moves along (Xen copies the old content), the clock is rewritten by
    // whoever feeds it.
    std::memcpy(at, vcpu_info(vcpu), 64);
    slot.moved_to.store(at, std::memory_order_release);
    slot.gpa = gpa.value;
}

std::optional<vmm::Gpa> SharedInfo::vcpu_info_gpa(unsigned vcpu,
                                                  std::uint64_t shared_info_gfn) const {
    const Slot& slot = slots_[vcpu];
    if (const std::uint64_t gpa = slot.gpa; gpa != kNotMoved) return vmm::Gpa{gpa};
    if (shared_info_gfn == kNoGfn || vcpu >= abi::kLegacyVcpus) return std::nullopt;
    return vmm::gfn_to_gpa(shared_info_gfn) + std::uint64_t{vcpu} * layout()->vcpu_info_bytes;
}

bool SharedInfo::set_selector(unsigned vcpu, std::uint32_t port) {
    const auto* l = layout();
    const std::uint32_t bit = port / (l->word_bytes * 8);
    auto word = word_at<std::uint32_t>(vcpu_info(vcpu) + l->pending_sel + bit / 32 * 4);
    return (word.fetch_or(bit_of(bit)) & bit_of(bit)) != 0;
}

void SharedInfo::set_all_selectors(unsigned vcpu) {
    const auto* l = layout();
    for (std::uint32_t at = 0; at < l->word_bytes; at += 4) {
        word_at<std::uint32_t>(vcpu_info(vcpu) + l->pending_sel + at).store(~0u);
    }
}

bool SharedInfo::set_upcall_pending(unsigned vcpu) {
    return word_at<std::uint8_t>(vcpu_info(vcpu)).exchange(1) != 0;
}

bool SharedInfo::upcall_pending(unsigned vcpu) const {
    return word_at<std::uint8_t>(vcpu_info(vcpu)).load() != 0;
}

void SharedInfo::clear_upcall_mask(unsigned vcpu) {
    word_at<std::uint8_t>(vcpu_info(vcpu) + 1).store(0);
}

}  // namespace xenshim
