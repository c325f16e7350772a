// What memory_op and hvm_op do to a guest, written a second time and plainly: functions from a
// world and a call to the next world and an answer. Nothing here continues, locks or copies page by
// page, and nothing is taken from xenshim but the names of errors. After xen-abi.md section 4 and
// xen-417-golden.md.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "tests/sweep/era.h"
#include "xenshim/abi/errno.h"

namespace xenshim::tests::model {

// What lies at a gfn.
struct Cell {
    enum class Kind { kNothing, kRam, kOwn } kind = Kind::kNothing;
    std::uint32_t own = 0;      // which of the hypervisor's own pages
    std::uint64_t content = 0;  // of RAM: its first word
    bool operator==(const Cell&) const = default;
};

// The machine as the fakes make it.
struct Machine {
    std::uint64_t limit_gfn = 0;
    // Whether RAM is at `gfn` when a domain starts.
    bool (*starts_with_ram)(std::uint64_t gfn) = nullptr;
    std::uint32_t vcpus = 2;
};

struct World {
    World(const Era& e, bool is_wide, const Machine& m) : era(e), wide(is_wide), machine(m) {}

    Era era;
    bool wide;
    Machine machine;
    std::uint64_t current = 0, maximum = 0, highest = 0;
    std::map<std::uint64_t, Cell> changed;         // gfns that are not as at the start
    std::map<std::uint32_t, std::uint64_t> where;  // own page -> gfn
    std::set<std::uint32_t> lost;                  // grant frames that were given back
    std::array<std::uint64_t, 64> params{};
    std::vector<std::uint8_t> vectors;
    bool crashed = false;

    Cell at(std::uint64_t gfn) const {
        const auto found = changed.find(gfn);
        if (found != changed.end()) return found->second;
        if (!machine.starts_with_ram(gfn)) return {};
        return {.kind = Cell::Kind::kRam};
    }
};

using Result = std::int64_t;

// An argument structure as the guest meant it; nothing: it cannot be read.
struct Extents {
    std::uint64_t count = 0;
    std::uint32_t order = 0;
    std::uint32_t flags = 0;
    std::uint16_t domid = 0;
    // Element by element; where it ends before `count`, the rest cannot be read.
    std::vector<std::uint64_t> list{};
};
struct Place {
    std::uint16_t domid = 0;
    std::uint16_t size = 0;
    std::uint32_t space = 0;
    std::uint64_t idx = 0;
    std::uint64_t gfn = 0;
};
struct Param {
    std::uint16_t domid = 0;
    std::uint32_t index = 0;
    std::uint64_t value = 0;
};

// memory_op's command register, whole. The sub-ops below get its cursor.
struct Cursor {
    std::uint64_t op = 0;
    std::uint64_t start = 0;
};
Cursor take_apart(const World& world, std::uint64_t command);

Result reservation(World& world, const Cursor& at, const std::optional<Extents>& arg);
Result add_to_physmap(World& world, const Cursor& at, const std::optional<Place>& arg);
Result remove_from_physmap(World& world, const Cursor& at, const std::optional<Place>& arg);
// maximum_ram_page, current_reservation, maximum_reservation, maximum_gpfn.
Result account(World& world, const Cursor& at, std::optional<std::uint16_t> domid);

Result set_param(World& world, const std::optional<Param>& arg);
// The value, when it is 0.
Result get_param(World& world, const std::optional<Param>& arg, std::uint64_t& value);
Result set_upcall_vector(World& world, std::optional<std::uint32_t> vcpu, std::uint8_t vector);
Result get_mem_type(World& world, std::optional<std::uint16_t> domid, std::uint64_t gfn,
                    std::uint16_t& type);

}  // namespace xenshim::tests::model
