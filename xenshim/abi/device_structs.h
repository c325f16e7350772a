// The argument structures of what a device model asks for: hvm_op's until 4.8 (public/hvm/hvm_op.h
// of those releases, the same at both widths), and dm_op's since (public/hvm/dm_op.h).
#pragma once

#include <array>
#include <cstdint>
#include <tuple>

#include "xenshim/abi/width.h"

namespace xenshim::abi {

// modified_memory (without the type) and set_mem_type, until 4.4.
struct xen_hvm_memory_range_4_4 {
    std::uint16_t domid;
    std::uint16_t pad;
    std::uint32_t hvmmem_type;
    std::uint64_t first_pfn;
    std::uint64_t nr;
};
static_assert(sizeof(xen_hvm_memory_range_4_4) == 24);

// The same from 4.5 to 4.8, whose cursor left the structure.
struct xen_hvm_memory_range {
    std::uint16_t domid;
    std::uint16_t hvmmem_type;
    std::uint32_t nr;
    std::uint64_t first_pfn;
};
static_assert(sizeof(xen_hvm_memory_range) == 16);

template <class W>
struct xen_dm_op_buf {
    typename W::Word h;
    typename W::Word size;
    static constexpr auto fields(auto& self) {
        auto& [at, bytes] = self;
        return std::tie(at, bytes);
    }
};
static_assert(sizeof(xen_dm_op_buf<W32>) == 8 && sizeof(xen_dm_op_buf<W64>) == 16);

// The first buffer of every dm_op: this, then the operation's own structure.
struct xen_dm_op_header {
    std::uint32_t op;
    std::uint32_t pad;
};
struct xen_dm_op_modified_memory {
    std::uint32_t nr_extents;  // those that are left: they are taken from the end
    std::uint32_t opaque;      // pages done of the last of them
};
struct xen_dm_op_modified_memory_extent {
    std::uint32_t nr;
    std::uint32_t pad;
    std::uint64_t first_pfn;
};
struct xen_dm_op_set_mem_type {
    std::uint32_t nr;
    std::uint16_t mem_type;
    std::uint16_t pad;
    std::uint64_t first_pfn;
};
static_assert(sizeof(xen_dm_op_modified_memory_extent) == 16);
static_assert(sizeof(xen_dm_op_set_mem_type) == 16);

}  // namespace xenshim::abi
