// Descriptions of memory: the guest's memory map, what devices reserve, virtual NUMA, and the
// machine-to-physical table.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

#include "xenshim/abi/place.h"
#include "xenshim/abi/release_rules.h"
#include "xenshim/hypercall/memory_op_parts.h"

namespace xenshim::memory_ops {

using namespace abi;

namespace {

struct ForeignMap {
    std::uint16_t domid;
    xen_memory_map<W64> map;
};

GuestResult<ForeignMap> read_foreign_map(Call& call) {
    if (call.is_64bit()) {
        const auto raw = TRY(call.read<xen_foreign_memory_map<W64>>(call.handle(1)));
        return ForeignMap{raw.domid, raw.map};
    }
    const auto raw = TRY(call.read<xen_foreign_memory_map<W32>>(call.handle(1)));
    return ForeignMap{raw.domid, widen<xen_memory_map>(raw.map)};
}

// An argument with what lies between its members. It is copied back as it was copied in, but for
// one number, as on Xen: nothing of it is the hypervisor's.
template <template <class> class S>
struct Argument {
    S<W64> members;
    std::array<std::byte, sizeof(S<W64>)> bytes;
};
template <template <class> class S>
std::size_t argument_bytes(Call& call) {
    return call.is_64bit() ? sizeof(S<W64>) : sizeof(S<W32>);
}
template <template <class> class S>
GuestResult<Argument<S>> copy_in(Call& call) {
    Argument<S> argument{};
    const auto bytes = std::span(argument.bytes).first(argument_bytes<S>(call));
    if (!call.access().read(call.handle(1), bytes)) return refuse(XEN_EFAULT);
    if (call.is_64bit()) {
        std::memcpy(&argument.members, bytes.data(), sizeof argument.members);
    } else {
        S<W32> narrow;
        std::memcpy(&narrow, bytes.data(), sizeof narrow);
        argument.members = widen<S>(narrow);
    }
    return argument;
}
template <template <class> class S>
Outcome copy_out(Call& call, Argument<S>& argument, Place member, std::uint32_t number) {
    std::memcpy(&argument.bytes[member.at(call.request().width)], &number, sizeof number);
    const auto bytes = std::span(argument.bytes).first(argument_bytes<S>(call));
    return Call::result(call.write_bytes(call.handle(1), bytes));
}

}  // namespace

// As many entries as fit are written, and the number says how many.
Outcome memory_map(Call& call) {
    const MemoryMap::Entries map = call.domain().memory_map().entries();
    if (map.empty()) return Call::fail(XEN_ENOSYS);  // as if nobody had ever set one
    auto argument = copy_in<xen_memory_map>(call);
    if (!argument) return Call::fail(argument.error());
    const auto& want = argument->members;
    const auto count = std::min<std::size_t>(want.nr_entries, map.size());
    for (std::size_t i = 0; i < count; ++i) {
        const e820entry entry{.addr = map[i].base, .size = map[i].size, .type = map[i].type};
        const auto written = call.write(call.element({want.buffer}, i, sizeof entry), entry);
        if (!written) return Call::fail(written.error());
    }
    return copy_out(call, *argument, XENSHIM_PLACE(xen_memory_map, nr_entries),
                    static_cast<std::uint32_t>(count));
}

// What the guest's next kernel will find (GRUB's way of passing its map on).
Outcome set_memory_map(Call& call) {
    const auto want = read_foreign_map(call);
    if (!want) return Call::fail(want.error());
    const std::uint32_t count = want->map.nr_entries;
    if (count > most_map_entries(call.profile())) return Call::fail(XEN_EINVAL);
    if (const auto self = call.require_self(want->domid, XEN_EPERM); !self) {
        return Call::fail(self.error());
    }
    if (const auto may = may_set_memory_map(call.profile()); !may) return Call::fail(may.error());
    std::vector<e820entry> entries(count);
    if (count != 0 &&
        !call.access().read({want->map.buffer}, std::as_writable_bytes(std::span(entries)))) {
        return Call::fail(XEN_EFAULT);
    }
    MemoryMap::Entries map(count);
    std::transform(entries.begin(), entries.end(), map.begin(), [](const e820entry& e) {
        return MapEntry{.base = e.addr, .size = e.size, .type = e.type};
    });
    call.domain().memory_map().set(std::move(map));
    return Call::ok();
}

// Reserved are ranges of devices passed through, of which there are none.
Outcome reserved_device_memory_map(Call& call) {
    constexpr std::uint32_t kAllDevices = 1;  // XENMEM_RDM_ALL, the only flag
    auto argument = copy_in<xen_reserved_device_memory_map>(call);
    if (!argument) return Call::fail(argument.error());
    if ((argument->members.flags & ~kAllDevices) != 0) return Call::fail(XEN_EINVAL);
    return copy_out(call, *argument, XENSHIM_PLACE(xen_reserved_device_memory_map, nr_entries), 0);
}

Outcome vnuma_info(Call& call) {
    const auto want = call.read<xen_vnuma_topology_info>(call.handle(1));
    if (!want) return Call::fail(want.error());
    if (want->pad != 0) return Call::fail(XEN_EINVAL);
    if (const auto self = call.require_self(want->domid, XEN_EPERM); !self) {
        return Call::fail(self.error());
    }
    return Call::fail(XEN_EOPNOTSUPP);  // the guest has no virtual NUMA
}

// Xen lists the frames of its machine-to-physical table to any 64-bit guest that asks. There is
// none here, and its list is empty; a list that is not there is a fault all the same.
Outcome machphys_list(Call& call) {
    const Command at = decode_memory_op(call.profile(), call.request().width, call.arg(0));
    if (at.op == XENMEM_machphys_compat_mfn_list || !call.is_64bit()) {
        return Call::fail(XEN_EOPNOTSUPP);  // the 32-bit table is for paravirtual guests
    }
    auto argument = copy_in<xen_machphys_mfn_list>(call);
    if (!argument) return Call::fail(argument.error());
    if (argument->members.max_extents != 0) {
        if (const auto word = call.read_word({argument->members.extent_start}, 0); !word) {
            return Call::fail(word.error());
        }
    }
    return copy_out(call, *argument, XENSHIM_PLACE(xen_machphys_mfn_list, nr_extents), 0);
}

}  // namespace xenshim::memory_ops
