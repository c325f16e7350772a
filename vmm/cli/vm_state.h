// The state of a whole VM: the list of all its parts that move, in the order in which they are
// taken up again. What is not in this list is lost when a VM is saved.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "devices/pv/xenstore_service.h"
#include "migration/format/reader.h"
#include "migration/format/writer.h"
#include "migration/show.h"
#include "migration/unit.h"
#include "vmm/cli/legacy_chips.h"
#include "vmm/machine/machine.h"
#include "xenshim/transport/xen_platform.h"

namespace vmm::cli {

// Every kind of record that this build writes or reads, memory's apart; the profile's first.
const std::vector<migration::Kind>& known_kinds();
migration::format::Known known_sections();

// Control thread; the machine is paused or not yet started, and the event loop is stopped.
class VmState {
  public:
    struct Parts {
        Machine& machine;
        xenshim::XenPlatform& platform;
        devices::pv::XenstoreService& store;
        LegacyChips* chips = nullptr;  // of an HVM machine
    };
    explicit VmState(const Parts& parts);
    VmState(const VmState&) = delete;
    VmState& operator=(const VmState&) = delete;

    // The kinds of records that save() writes.
    std::vector<migration::format::KindToWrite> kinds() const;
    Result<void> save(migration::format::Writer& writer);

    // Into a VM that was just made, and whose memory is there (at least as soon as it is touched).
    // `from` names the file or stream. Every part finds its record, and every record its part.
    Result<void> restore(std::span<const migration::format::Record> records,
                         const std::string& from);
    // The guest had suspended itself, and was restored as into a new domain.
    bool begun_anew() const { return begun_anew_; }
    // What its clock showed when it was saved, ns: it stands still since then.
    std::uint64_t stands_since_ns() const { return clock_.clock_ns; }

  private:
    template <class Component>
    void add(Component& component);
    template <class T, class Save, class Load>
    void add(std::uint32_t instance, Save save, Load load);
    void add_vcpu(unsigned vcpu);
    Result<xenshim::VcpuMoved*> saved_vcpu(unsigned vcpu);
    bool in_flight(std::uint8_t vector) const;
    Result<void> settle();
    void begin_anew();
    Result<void> take_up(const std::string& from);
    Result<void> restore_chips(const std::string& from);

    const Parts parts_;
    bool begun_anew_ = false;
    std::vector<migration::Unit> units_;
    // What is taken up only after all records are known to be good, by the part that needs others.
    kvm::ClockReading reading_;
    kvm::VmClockState clock_;
    struct Vcpu {
        bool saved = false;
        xenshim::VcpuMoved moved;
    };
    std::vector<Vcpu> vcpus_;
    std::optional<devices::legacy::PicState> pic_;
    std::optional<devices::legacy::IoapicState> ioapic_;
    std::optional<devices::legacy::PitState> pit_;
};

}  // namespace vmm::cli
