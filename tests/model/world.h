// What memory_op, hvm_op, grant_table_op and dm_op do to a guest, written a second time and
// plainly: functions from a world and a call to the next world and an answer. Nothing here
// continues, locks or works ahead, and nothing is taken from xenshim but the names of errors. After
// xen-abi.md section 4 and xen-417-golden.md; where these say nothing of the order in which
// something is judged, after Xen 4.17.
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
    std::uint64_t now_ns = 0;
};

// An entry of the memory map.
struct Area {
    std::uint64_t base = 0, size = 0;
    std::uint32_t type = 0;
    bool operator==(const Area&) const = default;
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
    std::vector<Area> areas;
    // XenServer's patches for its old Windows drivers, and whether such a driver has shown itself.
    bool old_drivers = false, latched = false;
    // What a device model may do, the guest may do to itself.
    bool device_model = false;
    std::map<std::uint64_t, std::uint16_t> types;  // of pages that are not plain RAM any more
    std::uint64_t modified = 0;                    // pages declared so

    Cell at(std::uint64_t gfn) const {
        const auto found = changed.find(gfn);
        if (found != changed.end()) return found->second;
        if (!machine.starts_with_ram(gfn)) return {};
        return {.kind = Cell::Kind::kRam};
    }
    // Something else lies at `gfn` from now on.
    void put(std::uint64_t gfn, Cell cell) {
        changed[gfn] = std::move(cell);
        types.erase(gfn);
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
// Of add_to_physmap_batch's three lists: the pairs that can be read (both of them), and how many
// answers can be written.
struct Batch {
    std::uint16_t domid = 0, space = 0, size = 0;
    struct Pair {
        std::uint64_t idx = 0, gfn = 0;
    };
    std::vector<Pair> pairs{};
    std::uint64_t room = 0;
};
struct Exchange {
    Extents in, out;
    std::uint64_t done = 0;
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
// `errors`: by element, where one is written.
Result add_to_physmap_batch(World& world, const Cursor& at, const std::optional<Batch>& arg,
                            std::map<std::uint64_t, Result>& errors);
Result remove_from_physmap(World& world, const Cursor& at, const std::optional<Place>& arg);
// `arg->done` is what is written back.
Result exchange(World& world, const Cursor& at, std::optional<Exchange>& arg);
// How many entries of the map are written to a buffer that is there; nullopt: to one that is not.
Result memory_map(World& world, const Cursor& at, std::optional<std::uint32_t> room, bool buffer,
                  std::uint32_t& written);
struct NewMap {
    std::uint16_t domid = 0;
    std::uint32_t count = 0;
    std::optional<std::vector<Area>> areas{};  // nothing: they cannot be read
};
Result set_memory_map(World& world, const Cursor& at, const std::optional<NewMap>& arg);
// The sub-ops that do nothing for a guest. Which fields matter is the sub-op's.
struct Other {
    std::uint16_t domid = 0;
    // claim_pages: whether its list, order and flags are as it needs them; get_vnumainfo: its
    // padding, as acquire_resource's; reserved_device_memory_map: its flags.
    bool proper = true;
    // machphys_mfn_list, acquire_resource: of a list, whether it can be read.
    std::uint32_t count = 0;
    enum class List { kNone, kReadable, kUnreadable } list = List::kNone;
};
Result other_memory_op(const World& world, const Cursor& at, const std::optional<Other>& arg);
// Whether memory_op `op` was there, for an HVM guest with the cursor that its register shows.
bool has_memory_op(const World& world, std::uint64_t op);
// maximum_ram_page, current_reservation, maximum_reservation, maximum_gpfn.
Result account(World& world, const Cursor& at, std::optional<std::uint16_t> domid);

Result set_param(World& world, const std::optional<Param>& arg);
// The value, when it is 0.
Result get_param(World& world, const std::optional<Param>& arg, std::uint64_t& value);
Result set_upcall_vector(World& world, std::optional<std::uint32_t> vcpu, std::uint8_t vector);
Result get_mem_type(World& world, std::optional<std::uint16_t> domid, std::uint64_t gfn,
                    std::uint16_t& type);
Result flush_tlbs(const World& world, bool has_arg);
Result guest_request(const World& world, bool has_arg);
Result pagetable_dying(const World& world, std::optional<std::uint16_t> domid);
struct Trace {
    std::uint16_t event = 0, bytes = 0;
};
Result xentrace(const World& world, const std::optional<Trace>& arg);

// ---- what a device model asks for (devices.cc) --------------------------------------------------

// hvm_op's command register. Where it does not lead to `op`: what the caller is told instead.
// `start`: the cursor that it has otherwise.
std::optional<Result> hvm_refusal(World& world, std::uint64_t command, std::uint32_t op,
                                  std::uint64_t& start);
// hvm_op's sub-ops for device models that a guest never gets. `in_range`: the numbers of an
// interrupt that it names.
Result hvm_device_op(const World& world, std::uint32_t op, std::optional<std::uint16_t> domid,
                     bool in_range);

struct Pages {
    std::uint16_t domid = 0;
    std::uint32_t type = 0;
    std::uint64_t first = 0, count = 0;
};
Result hvm_modified_memory(World& world, const std::optional<Pages>& arg, std::uint64_t start);
Result hvm_set_mem_type(World& world, const std::optional<Pages>& arg, std::uint64_t start);

struct DmOp {
    std::uint16_t domid = 0;
    std::uint32_t buffers = 0;      // as many as the caller says
    bool list = true;               // whether they can be read
    std::uint64_t size = 0;         // of the first one
    bool readable = true;           // its content
    std::uint32_t op = 0, pad = 0;  // which begins with these
    Pages pages{};                  // set_mem_type
    std::uint16_t type_pad = 0;
    std::uint32_t extents = 0, opaque = 0;  // modified_memory
    struct Extent {
        std::uint32_t count = 0, pad = 0;
        std::uint64_t first = 0;
    };
    std::uint64_t second_size = 0;
    std::vector<Extent> list_of_extents{};
};
Result dm_op(World& world, const DmOp& arg);

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
