// The nodes that a PVH or HVM guest finds at its first instruction, as libxl 4.17 writes them
// (measured; no disk, no network). Drivers look for these by name and by permission.
#pragma once

#include <cstdint>
#include <string>

#include "xenshim/domain/xenstore/store.h"

namespace xenshim::xenstore {

struct DomainInfo {
    DomainId domid = 1;
    std::string name;
    std::string uuid;  // in the usual text form, lower case
    std::uint64_t memory_max_kib = 0;
    std::uint64_t memory_target_kib = 0;
    std::uint64_t video_ram_kib = 0;
    std::uint32_t vcpus = 1;
    std::uint32_t vcpus_online = 1;
    std::uint32_t store_port = 0;
    std::uint64_t store_gfn = 0;
    std::uint32_t console_port = 0;
    std::uint64_t console_gfn = 0;
    std::string console_tty;  // e.g. "/dev/pts/0"; no node when empty
    std::string start_time;   // seconds since 1970, with hundredths: "1795367953.37"
};

// Writes the nodes and introduces the domain. EEXIST when the domain is there already.
StoreResult<void> populate_domain(Store& store, const DomainInfo& info);

// The domain's name is another one from now on, as `xl rename` has it: in each node that tells it.
StoreResult<void> rename_domain(Store& store, DomainId domid, const std::string& uuid,
                                const std::string& name);

}  // namespace xenshim::xenstore
