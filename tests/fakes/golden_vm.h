// The records of a whole guest, out of tests/golden/saved: what its components' states are, for
// those to whom it matters that a stream is one of ours and not what is in it.
#pragma once

#include <cstring>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "migration/format/writer.h"
#include "tests/fakes/saved_checks.h"
#include "tests/fakes/saved_vm.h"
#include "tests/golden/folder.h"

namespace fakes {

struct GoldenPart {
    const char* name;
    std::uint32_t version = 1;
    const char* variant = "";  // of the file's name
    std::uint32_t instance = 0;

    vmm::saved::Section section() const { return {name, version}; }
};

// A PVH guest of two vCPUs, in the order in which the program writes it.
inline constexpr GoldenPart kGoldenParts[] = {{"vm.config", 2},
                                              {"vm.memory"},
                                              {"vm.call_sites", 2},
                                              {"xen.legacy_quirks"},
                                              {"xen.params"},
                                              {"xen.memory_map"},
                                              {"xen.physmap"},
                                              {"xen.grant_table", 1, "-1"},
                                              {"xen.grant_maps"},
                                              {"xen.own_pages"},
                                              {"xen.shared_info"},
                                              {"xen.event_channels", 1, "-fifo"},
                                              {"xen.domain", 3},
                                              {"xen.store"},
                                              {"vm.clock"},
                                              {"vcpu.cpuid"},
                                              {"vcpu"},
                                              {"vcpu.time"},
                                              {"xen.wait"},
                                              {"vcpu.cpuid", 1, "", 1},
                                              {"vcpu", 1, "", 1},
                                              {"vcpu.time", 1, "", 1},
                                              {"xen.wait", 1, "", 1}};

// The bytes of a State that were committed. Empty: there are none.
inline const Bytes& golden(const std::string& name) {
    static std::map<std::string, Bytes> read;
    const auto [at, fresh] = read.try_emplace(name);
    if (fresh) {
        std::ifstream in(::golden::file("saved/" + name + ".hex"));
        at->second = from_hex(in);
    }
    return at->second;
}

// From the start of a stream to its last state; memory may follow.
inline vmm::Result<void> write_golden_states(migration::format::Writer& writer,
                                             const migration::format::Id& id, std::uint64_t epoch) {
    std::vector<migration::format::KindToWrite> kinds;
    for (const GoldenPart& part : kGoldenParts) {
        if (part.instance == 0) kinds.push_back({.section = part.section()});
    }
    TRY(writer.start(id, epoch, 1, golden("vm.profile.v1"), kinds));
    for (const GoldenPart& part : kGoldenParts) {
        const Bytes& payload =
            golden(std::string(part.name) + part.variant + ".v" + std::to_string(part.version));
        TRY(writer.record(part.section(), part.instance, payload));
    }
    return {};
}

}  // namespace fakes
