// What memory_op, hvm_op and grant_table_op do to a guest, written a second time and plainly:
// functions from a world and a call to the next world and an answer. Nothing here continues, locks
// or works ahead, and nothing is taken from xenshim but the names of errors. After xen-abi.md
// section 4 and xen-417-golden.md; where these say nothing of the order in which something is
// judged, after Xen 4.17.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "tests/sweep/era.h"
#include "xenshim/abi/errno.h"

namespace xenshim::tests::model {

// A page of memory, wherever it is shown.
struct Frame {
    std::array<std::uint8_t, 4096> bytes{};
    std::uint32_t maps = 0;   // grants by which it is mapped
    bool given_back = false;  // freed when the last of them goes
};

// What lies at a gfn.
struct Cell {
    enum class Kind {
        kNothing,
        kRam,
        kOwn,     // one of the hypervisor's own pages
        kMapped,  // a page of the guest's that a grant shows here
    } kind = Kind::kNothing;
    std::uint32_t own = 0;
    std::shared_ptr<Frame> frame{};  // null: RAM that is all zeroes, or nothing
};

// Own pages by number.
constexpr std::uint32_t kSharedInfoPage = 0, kFirstGrantFrame = 1, kFirstStatusFrame = 0x8000'0000;

// A grant table's entry in either version's form, taken apart.
struct Entry {
    std::uint16_t flags = 0, domid = 0;
    std::uint16_t offset = 0, length = 0;  // version 2: of a part; transitive: whose it is
    std::uint64_t frame = 0;               // transitive: which of theirs
};

// What the uses of an entry have to do with each other: the first one says what it is.
struct Use {
    std::uint32_t readers = 0, writers = 0;
    std::shared_ptr<Frame> frame;
    std::uint32_t start = 0, length = 4096;
    bool part = false;
    std::uint32_t offer = 0;  // transitive: domain 0's
};

struct Mapping {
    std::uint32_t ref = 0;
    std::uint16_t domid = 0;
    std::uint32_t flags = 0;  // 0: a free handle
};

// What a backend lets the guest copy.
struct Offer {
    std::shared_ptr<Frame> frame;
    bool readonly = false;
};

struct GrantState {
    std::uint32_t version = 1;
    std::uint32_t frames = 1;
    std::map<std::uint32_t, Use> uses;  // by reference; no entry: not in use
    std::vector<Mapping> maps;          // by handle
    std::deque<std::uint32_t> free_handles;
    std::map<std::uint32_t, Offer> offers;  // domain 0's entries
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
    std::map<std::uint64_t, Cell> changed;                // gfns that are not as at the start
    std::map<std::uint32_t, std::uint64_t> where;         // own page -> gfn
    std::set<std::uint32_t> lost;                         // grant frames that were given back
    std::map<std::uint32_t, std::shared_ptr<Frame>> own;  // their content
    GrantState grants;
    std::array<std::uint64_t, 64> params{};
    std::vector<std::uint8_t> vectors;
    bool crashed = false;

    Cell at(std::uint64_t gfn) const {
        const auto found = changed.find(gfn);
        if (found != changed.end()) return found->second;
        if (!machine.starts_with_ram(gfn)) return {};
        return {.kind = Cell::Kind::kRam};
    }
    // The page at `gfn`; null: there is none.
    std::shared_ptr<Frame> page(std::uint64_t gfn);
    std::shared_ptr<Frame> own_page(std::uint32_t number);
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

// ---- grant_table_op (grants.cc) -----------------------------------------------------------------

// Whether a guest of that time has the sub-op; what it is told of a whole list otherwise.
std::optional<Result> grant_refusal(const World& world, std::uint64_t command, std::uint64_t count);

std::uint32_t grant_entries(const World& world);
Entry grant_entry(World& world, std::uint32_t ref);
void set_grant_entry(World& world, std::uint32_t ref, const Entry& entry);
// Version 2's status word of an entry.
std::uint16_t grant_status(World& world, std::uint32_t ref);
void set_grant_status(World& world, std::uint32_t ref, std::uint16_t status);
bool grow_grants(World& world, std::uint64_t frames);

struct CopySide {
    std::uint64_t number = 0;  // a reference, or a gfn
    std::uint16_t domid = 0;
    std::uint32_t offset = 0;
    bool by_ref = false;
};
struct Copy {
    CopySide source, dest;
    std::uint32_t length = 0;
};
struct Map {
    std::uint64_t address = 0;
    std::uint32_t flags = 0, ref = 0;
    std::uint16_t domid = 0;
};
using Status = std::int16_t;
Status grant_copy(World& world, const Copy& op);
Status grant_map(World& world, const Map& op, std::uint32_t& handle);
Status grant_unmap(World& world, std::uint32_t handle, std::uint64_t address);
Status grant_swap(World& world, std::uint32_t a, std::uint32_t b);
// The list of gfns, where it is told at all.
Status setup_table(World& world, std::uint16_t domid, std::uint32_t frames,
                   std::vector<std::uint64_t>& list);
Status query_size(const World& world, std::uint16_t domid);
Result set_version(World& world, std::uint32_t wanted);
Result get_version(const World& world, std::uint16_t domid);

}  // namespace xenshim::tests::model
