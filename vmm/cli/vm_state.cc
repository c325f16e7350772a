#include "vmm/cli/vm_state.h"

#include <algorithm>
#include <map>
#include <utility>

#include "vmm/cli/all_states.h"

namespace vmm::cli {
namespace {

namespace format = migration::format;
using devices::legacy::IoapicState;
using devices::legacy::PicState;
using devices::legacy::PitState;

}  // namespace

// ---- the list -----------------------------------------------------------------------------------

template <class T, class Save, class Load>
void VmState::add(std::uint32_t instance, Save save, Load load) {
    static_assert(AllStates::kContains<T>);
    units_.push_back(migration::make_unit<T>(instance, std::move(save), std::move(load)));
}

template <class Component>
void VmState::add(Component& component) {
    static_assert(AllStates::kContains<typename Component::State>);
    units_.push_back(migration::unit_of<typename Component::State>(component));
}

VmState::VmState(const Parts& parts) : parts_(parts), vcpus_(parts.machine.vcpus()) {
    auto& domain = parts_.platform.domain();
    // Later ones are judged by earlier ones (docs/architecture.md, "State").
    add(domain.quirks());
    add(domain.params());
    add(domain.memory_map());
    add(domain.physmap());
    add(domain.grants());
    add(domain.grant_maps());
    add(domain.own_pages());
    add(domain.shared_info());
    add(domain.event_channels());
    add(domain);
    add(parts_.store);
    add<kvm::VmClockState>(
        0,
        [this] {
            return kvm::VmClockState{.clock_ns = reading_.clock_ns,
                                     .realtime_ns = reading_.realtime_ns};
        },
        [this](const kvm::VmClockState& state) -> Expected<void, std::string> {
            clock_ = state;
            return {};
        });
    if (LegacyChips* const chips = parts_.chips; chips != nullptr) {
        const auto later = [](auto& kept) {
            return [&kept](const auto& state) -> Expected<void, std::string> {
                kept = state;
                return {};
            };
        };
        add<PicState>(
            0, [chips] { return chips->pic().snapshot(); }, later(pic_));
        add<IoapicState>(
            0, [chips] { return chips->ioapic().snapshot(); }, later(ioapic_));
        add<PitState>(
            0, [chips] { return chips->pit().snapshot(); }, later(pit_));
    }
    for (unsigned v = 0; v < vcpus_.size(); ++v) {
        add_vcpu(v);
    }
}

void VmState::add_vcpu(unsigned v) {
    const auto part = [this, v]<class T>(T xenshim::VcpuMoved::*member) {
        add<T>(
            v,
            [this, v, member]() -> Result<T> {
                const xenshim::VcpuMoved* const moved = TRY(saved_vcpu(v));
                return moved->*member;
            },
            [this, v, member](const T& state) -> Expected<void, std::string> {
                vcpus_[v].moved.*member = state;
                return {};
            });
    };
    part(&xenshim::VcpuMoved::cpuid);
    part(&xenshim::VcpuMoved::cpu);
    part(&xenshim::VcpuMoved::time);
    part(&xenshim::VcpuMoved::wait);
}

// Its records are of one moment.
Result<xenshim::VcpuMoved*> VmState::saved_vcpu(unsigned v) {
    Vcpu& vcpu = vcpus_[v];
    if (!vcpu.saved) {
        vcpu.moved = TRY(parts_.platform.save_vcpu(v, reading_));
        vcpu.saved = true;
    }
    return &vcpu.moved;
}

// ---- saved --------------------------------------------------------------------------------------

std::vector<format::KindToWrite> VmState::kinds() const {
    std::vector<format::KindToWrite> kinds;
    for (const migration::Unit& unit : units_) {
        if (unit.instance == 0) kinds.push_back({.section = unit.section});
    }
    return kinds;
}

// Whether any vCPU's LAPIC has the vector requested or in service.
bool VmState::in_flight(std::uint8_t vector) const {
    constexpr std::uint32_t kInService = 0x100, kRequested = 0x200;
    const std::uint32_t offset = vector / 32u * 16, bit = 1u << (vector % 32u);
    return std::ranges::any_of(vcpus_, [&](const Vcpu& vcpu) {
        return ((vcpu.moved.cpu.lapic_register(kInService + offset) |
                 vcpu.moved.cpu.lapic_register(kRequested + offset)) &
                bit) != 0;
    });
}

Result<void> VmState::settle() {
    if (parts_.chips != nullptr) parts_.chips->settle();
    parts_.platform.settle();
    reading_ = TRY(parts_.machine.read_clock());
    for (bool again = true; again;) {
        for (Vcpu& vcpu : vcpus_) {
            vcpu.saved = false;
        }
        again = false;
        if (parts_.chips == nullptr) continue;
        for (unsigned v = 0; v < vcpus_.size(); ++v) {
            TRY(saved_vcpu(v));
        }
        // Each round ends what was in service before it; what it sends is in flight in the next.
        again =
            parts_.chips->end_unreported([this](std::uint8_t vector) { return in_flight(vector); });
    }
    return {};
}

Result<void> VmState::save(format::Writer& writer) {
    TRY(settle());
    for (const migration::Unit& unit : units_) {
        const auto bytes = TRY(unit.save());
        TRY(writer.record(unit.section, unit.instance, bytes));
    }
    return {};
}

// ---- restored -----------------------------------------------------------------------------------

Result<void> VmState::restore(std::span<const format::Record> records, const std::string& from) {
    std::map<std::pair<std::string_view, std::uint32_t>, const format::Record*> left;
    for (const format::Record& record : records) {
        left.emplace(std::pair(std::string_view(record.name), record.instance), &record);
    }
    const auto name_of = [](std::string_view section, std::uint32_t instance) {
        return std::string(section) + (instance == 0 ? "" : " " + std::to_string(instance));
    };
    for (const migration::Unit& unit : units_) {
        const std::string name = name_of(unit.section.name, unit.instance);
        const auto found = left.find({unit.section.name, unit.instance});
        if (found == left.end()) return user_error(from + ": there is no record " + name);
        const format::Record& record = *found->second;
        if (const auto loaded = unit.load(record.payload, record.version); !loaded) {
            return user_error(from + ": record " + name + " at byte " +
                              std::to_string(record.offset) + ": " + loaded.error());
        }
        left.erase(found);
    }
    for (const auto& [key, record] : left) {
        return user_error(from + ": record " + name_of(key.first, key.second) + " at byte " +
                          std::to_string(record->offset) + ": this guest has no such part");
    }
    return take_up(from);
}

Result<void> VmState::restore_chips(const std::string& from) {
    LegacyChips* const chips = parts_.chips;
    if (chips == nullptr) return {};
    const auto adopt = [&](auto& chip, const auto& state) -> Result<void> {
        if (const auto adopted = chip.adopt(state); !adopted) {
            using State = std::remove_cvref_t<decltype(state)>;
            return user_error(from + ": record " + State::kSection.name + ": " + adopted.error());
        }
        return {};
    };
    TRY(adopt(chips->pic(), *pic_));
    TRY(adopt(chips->ioapic(), *ioapic_));
    TRY(adopt(chips->pit(), *pit_));
    chips->restore_wires();
    return {};
}

// The guest has suspended itself, and expects that it wakes up in another domain.
void VmState::begin_anew() {
    begun_anew_ = true;
    parts_.platform.domain().begin_anew(clock_.clock_ns);
    parts_.store.begin_anew();
    for (Vcpu& vcpu : vcpus_) {
        if (!vcpu.moved.wait.waits) continue;
        // What it waits for will not come. The call that it sleeps in has its result already.
        vcpu.moved.wait = {};
        vcpu.moved.cpu.activity = kvm::Activity::kRunnable;
    }
}

Result<void> VmState::take_up(const std::string& from) {
    auto& domain = parts_.platform.domain();
    domain.grants().release_claims();
    domain.physmap().settle();
    const kvm::ClockReading now = TRY(parts_.machine.restore_clock(clock_));
    // Timers of the chips count from the guest's clock as it is now.
    TRY(restore_chips(from));
    if (domain.suspended()) begin_anew();
    domain.tell_machine();
    domain.count_incarnation();
    for (unsigned v = 0; v < vcpus_.size(); ++v) {
        TRY(parts_.platform.restore_vcpu(v, vcpus_[v].moved, now));
    }
    return {};
}

}  // namespace vmm::cli
