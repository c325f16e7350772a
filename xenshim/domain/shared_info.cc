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
SharedInfo::SharedInfo(Ports& ports, vmm::GuestMemory& memory, unsigned vcpus)
    : memory_(memory),
      page_(ports.own_page(kSharedInfoPage)),
      layout_(&abi::kSharedInfo64),
      slots_(vcpus) {}

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
    std::memcpy(at, vcpu_info(vcpu), kVcpuInfoBytes);
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
    const bool was = word_at<std::uint8_t>(vcpu_info(vcpu)).exchange(1) != 0;
    if (!was) slots_[vcpu].rises.fetch_add(1);
    return was;
}

bool SharedInfo::upcall_pending(unsigned vcpu) const {
    return word_at<std::uint8_t>(vcpu_info(vcpu)).load() != 0;
}

void SharedInfo::clear_upcall_mask(unsigned vcpu) {
    word_at<std::uint8_t>(vcpu_info(vcpu) + 1).store(0);
}

// ---- saved and restored -------------------------------------------------------------------------

SharedInfo::State SharedInfo::snapshot() const {
    State state{
        .is_64bit = is_64bit(), .wall_sec = wall_sec_, .wall_nsec = wall_nsec_, .vcpus = {}};
    for (unsigned vcpu = 0; vcpu < slots_.size(); ++vcpu) {
        VcpuInfoState& saved = state.vcpus.emplace_back();
        if (vcpu_info_moved(vcpu)) {
            saved.gpa = slots_[vcpu].gpa.load();
        } else if (vcpu >= abi::kLegacyVcpus) {
            auto& waiting = saved.waiting.emplace();
            for (std::size_t at = 0; at < waiting.size(); ++at) {
                waiting[at] = word_at<std::byte>(slots_[vcpu].own + at).load();
            }
        }
    }
    return state;
}

void SharedInfo::begin_anew() {
    std::memset(page_, 0, vmm::kPageSize);
    for (Slot& slot : slots_) {
        slot.moved_to = nullptr;
        slot.gpa = kNotMoved;
        std::memset(slot.own, 0, sizeof slot.own);
    }
    write_wall_clock();
}

vmm::Expected<void, std::string> SharedInfo::adopt(const State& state) {
    constexpr std::uint32_t kNsPerSecond = 1'000'000'000;
    if (state.wall_nsec >= kNsPerSecond) return vmm::Failure{"wall_nsec: a second"};
    if (state.vcpus.size() != slots_.size()) {
        return vmm::Failure{"vcpus: " + std::to_string(state.vcpus.size()) + " of them, not " +
                            std::to_string(slots_.size())};
    }
    for (unsigned vcpu = 0; vcpu < slots_.size(); ++vcpu) {
        const VcpuInfoState& saved = state.vcpus[vcpu];
        const auto refused = [&](const char* why) {
            return vmm::Failure{"vcpus: " + std::to_string(vcpu) + ": " + why};
        };
        if (saved.gpa) {
            const std::uint64_t offset = vmm::Gpa{*saved.gpa}.offset();
            if (offset % sizeof(std::uint32_t) != 0 || offset > vmm::kPageSize - kVcpuInfoBytes) {
                return refused("gpa: no vcpu_info can be there");
            }
        }
        if (saved.waiting.has_value() != (vcpu >= abi::kLegacyVcpus && !saved.gpa)) {
            return refused("waiting: of a vCPU that has a place, or not of one that has none");
        }
    }
    layout_ = state.is_64bit ? &abi::kSharedInfo64 : &abi::kSharedInfo32;
    wall_sec_ = state.wall_sec;
    wall_nsec_ = state.wall_nsec;
    for (unsigned vcpu = 0; vcpu < slots_.size(); ++vcpu) {
        const VcpuInfoState& saved = state.vcpus[vcpu];
        Slot& slot = slots_[vcpu];
        if (saved.waiting) {
            std::memcpy(slot.own, saved.waiting->data(), kVcpuInfoBytes);
        } else if (saved.gpa) {
            // A page outside the slots may have gone since it was registered. Nobody sees what is
            // kept there, so it is kept here.
            std::byte* page = memory_.kept_page(vmm::Gpa{*saved.gpa}.gfn());
            slot.moved_to = page != nullptr ? page + vmm::Gpa{*saved.gpa}.offset() : slot.own;
            slot.gpa = *saved.gpa;
        }
    }
    return {};
}

}  // namespace xenshim
