#include "tests/model/world.h"

namespace xenshim::tests::model {
namespace {

using Kind = Cell::Kind;

constexpr std::uint16_t kSelf = 0x7ff0, kOwnId = 2;

bool is_self(std::uint16_t domid) {
    return domid == kSelf || domid == kOwnId;
}
// Whether the call may go on; otherwise its answer. Domain 0 is there, all others are not.
std::optional<Result> refusal(std::uint16_t domid, Result for_dom0) {
    if (is_self(domid)) return std::nullopt;
    return domid == 0 ? -for_dom0 : -XEN_ESRCH;
}

// ---- the map ------------------------------------------------------------------------------------

void empty(World& world, std::uint64_t gfn) {
    const Cell cell = world.at(gfn);
    if (cell.kind == Kind::kRam) --world.current;
    if (cell.kind == Kind::kOwn) world.where.erase(cell.own);
    world.changed[gfn] = {};
}

void put_ram(World& world, std::uint64_t gfn, std::uint64_t content) {
    world.changed[gfn] = {.kind = Kind::kRam, .content = content};
    ++world.current;
    if (gfn > world.highest) world.highest = gfn;
}

bool decrease(World& world, std::uint64_t gfn) {
    const Cell cell = world.at(gfn);
    if (cell.kind == Kind::kNothing) return false;
    // A grant frame given back is gone for good; shared_info can be mapped again.
    if (cell.kind == Kind::kOwn && cell.own != 0) world.lost.insert(cell.own);
    empty(world, gfn);
    return true;
}

bool populate(World& world, std::uint64_t gfn) {
    if (gfn >= world.machine.limit_gfn) return false;
    if (world.current >= world.maximum) return false;
    // RAM that was there is forgotten, but not taken off the account (measured).
    if (world.at(gfn).kind != Kind::kRam) empty(world, gfn);
    put_ram(world, gfn, 0);
    return true;
}

Result place(World& world, std::uint32_t own, std::uint64_t gfn) {
    if (gfn >= world.machine.limit_gfn) return -XEN_ENOENT;
    if (world.lost.contains(own)) return -XEN_EBUSY;
    const auto old = world.where.find(own);
    if (old != world.where.end()) {
        if (old->second == gfn) return 0;
        empty(world, old->second);
    }
    empty(world, gfn);
    world.changed[gfn] = {.kind = Kind::kOwn, .own = own};
    world.where[own] = gfn;
    if (gfn > world.highest) world.highest = gfn;
    return 0;
}

Result move(World& world, std::uint64_t from, std::uint64_t to) {
    const Cell source = world.at(from);
    if (source.kind == Kind::kOwn) return place(world, source.own, to);
    if (source.kind != Kind::kRam) return -XEN_EINVAL;
    if (from == to) return 0;
    if (to >= world.machine.limit_gfn) return -XEN_ENOENT;
    empty(world, to);
    empty(world, from);
    put_ram(world, to, source.content);
    return 0;
}

// ---- add_to_physmap's spaces --------------------------------------------------------------------

constexpr std::uint32_t kSharedInfo = 0, kGrantTable = 1, kGmfn = 2, kRange = 3, kForeign = 4,
                        kDevMmio = 5;

Result add_one(World& world, std::uint32_t space, std::uint64_t idx, std::uint64_t gfn) {
    switch (space) {
        case kSharedInfo: return idx == 0 ? place(world, 0, gfn) : -XEN_EINVAL;
        case kGrantTable:
            // Status frames are version 2's; this table is version 1's.
            if (idx >= world.machine.grant_frames) return -XEN_EINVAL;
            return place(world, static_cast<std::uint32_t>(idx) + 1, gfn);
        case kGmfn:
        case kRange: return move(world, idx, gfn);
        case kDevMmio: return -XEN_EACCES;
        default: return -XEN_EINVAL;
    }
}

}  // namespace

// ---- memory_op ----------------------------------------------------------------------------------

Cursor take_apart(const World& world, std::uint64_t command) {
    command &= world.wide ? UINT64_MAX : UINT32_MAX;
    if (world.wide && world.era.release < 417) {
        command = static_cast<std::uint64_t>(std::int64_t{static_cast<std::int32_t>(command)});
    }
    const unsigned shift = world.era.memory_shift();
    return {.op = command % (1u << shift), .start = command >> shift};
}

Result reservation(World& world, const Cursor& at, const std::optional<Extents>& arg) {
    constexpr std::uint32_t kOnDemand = 1u << 16;
    constexpr std::uint64_t kIncrease = 0, kDecrease = 1, kPopulate = 6;
    const auto start = static_cast<Result>(at.start);
    if (!arg || !is_self(arg->domid) || arg->order > 9 || at.start >= arg->count) return start;
    const std::uint64_t most =
        world.era.release >= 403 ? 0x03ff'ffff : UINT64_MAX >> world.era.memory_shift();
    if (arg->count > most) return start;
    if (at.op == kPopulate && world.era.release >= 304 && (arg->flags & kOnDemand) != 0) {
        return start;
    }
    if (at.op == kPopulate && (arg->flags & 0xff) != 0 && (arg->flags & 0xff) < 32) return start;
    for (std::uint64_t i = at.start; i < arg->count; ++i) {
        bool done = false;
        if (at.op == kIncrease) {
            done = world.current + (std::uint64_t{1} << arg->order) <= world.maximum;
            if (done) world.current += std::uint64_t{1} << arg->order;
        } else if (i < arg->list.size()) {
            done =
                at.op == kDecrease ? decrease(world, arg->list[i]) : populate(world, arg->list[i]);
        }
        if (!done) return static_cast<Result>(i);
    }
    return static_cast<Result>(arg->count);
}

Result add_to_physmap(World& world, const Cursor& at, const std::optional<Place>& arg) {
    if (world.era.release >= 404 && at.start > 0xffff) return -XEN_EDOM;
    if (!arg) return -XEN_EFAULT;
    if (arg->space == kForeign && world.era.release >= 403) return -XEN_ENOSYS;
    if (const auto no = refusal(arg->domid, XEN_EACCES)) return *no;
    if (arg->space != kRange) {
        if (arg->gfn == UINT64_MAX) return -XEN_EINVAL;
        return add_one(world, arg->space, arg->idx, arg->gfn);
    }
    const std::uint64_t start = world.era.range_in_struct() ? 0 : at.start;
    if (arg->size < start) return -XEN_EILSEQ;
    const std::uint64_t words = world.wide ? UINT64_MAX : UINT32_MAX;
    if (arg->idx > words - arg->size || arg->gfn > words - arg->size) {
        return world.wide ? -XEN_EOVERFLOW : -XEN_EINVAL;
    }
    for (std::uint64_t i = start; i < arg->size; ++i) {
        const Result moved = move(world, arg->idx + i, arg->gfn + i);
        if (moved != 0) return moved;
    }
    return 0;
}

// What a cursor on an operation that has none is told; nothing: it is not seen.
static std::optional<Result> stray(const World& world, const Cursor& at) {
    if (at.start == 0 || world.era.release < 405) return std::nullopt;
    return world.era.release < 408 ? -XEN_ENOSYS : -XEN_EINVAL;
}

Result remove_from_physmap(World& world, const Cursor& at, const std::optional<Place>& arg) {
    if (const auto no = stray(world, at)) return *no;
    if (!arg) return -XEN_EFAULT;
    if (const auto no = refusal(arg->domid, XEN_EACCES)) return *no;
    if (world.at(arg->gfn).kind == Kind::kNothing) return -XEN_ENOENT;
    empty(world, arg->gfn);
    return 0;
}

Result account(World& world, const Cursor& at, std::optional<std::uint16_t> domid) {
    constexpr std::uint64_t kMaximumRamPage = 2, kCurrent = 3, kMaximum = 4;
    if (const auto no = stray(world, at)) return *no;
    if (at.op == kMaximumRamPage) return static_cast<Result>(world.highest + 1);
    if (!domid) return -XEN_EFAULT;
    if (const auto no = refusal(*domid, XEN_EPERM)) return *no;
    return static_cast<Result>(at.op == kCurrent   ? world.current
                               : at.op == kMaximum ? world.maximum
                                                   : world.highest);
}

// ---- hvm_op -------------------------------------------------------------------------------------

namespace {

// HVM_NR_PARAMS from 4.6 on (the whitelist's era).
std::uint32_t param_count(const Era& era) {
    return era.release >= 410 ? 39 : era.release == 409 ? 38 : era.release >= 407 ? 37 : 36;
}

enum class May { kBoth, kGet, kNeither, kDeprecated };
May may(std::uint32_t index) {
    static const std::map<std::uint32_t, May> kTable = {
        {0, May::kBoth},        {1, May::kGet},         {2, May::kBoth},
        {4, May::kDeprecated},  {13, May::kDeprecated}, {15, May::kBoth},
        {17, May::kGet},        {18, May::kBoth},       {19, May::kBoth},
        {20, May::kDeprecated}, {21, May::kDeprecated}, {22, May::kDeprecated},
        {23, May::kDeprecated}, {24, May::kDeprecated}, {25, May::kDeprecated},
        {26, May::kDeprecated}, {30, May::kDeprecated}, {34, May::kBoth},
        {35, May::kGet},        {36, May::kBoth},       {37, May::kBoth}};
    const auto found = kTable.find(index);
    return found == kTable.end() ? May::kNeither : found->second;
}

// What comes before the index is judged.
std::optional<Result> param_refusal(const World& world, const std::optional<Param>& arg) {
    if (!arg) return -XEN_EFAULT;
    if (arg->index >= param_count(world.era)) return -XEN_EINVAL;
    return refusal(arg->domid, XEN_EINVAL);
}

}  // namespace

Result set_param(World& world, const std::optional<Param>& arg) {
    if (const auto no = param_refusal(world, arg)) return *no;
    switch (may(arg->index)) {
        case May::kDeprecated: return -XEN_EINVAL;
        case May::kGet:
        case May::kNeither: return -XEN_EPERM;
        case May::kBoth: break;
    }
    constexpr std::uint32_t kTss = 15, kAcpiPorts = 19, kFipWidth = 36, kTssSized = 37;
    if (arg->index == kAcpiPorts) return -XEN_ENODEV;
    if (arg->index == kFipWidth && arg->value != 0 && arg->value != 4 && arg->value != 8) {
        return -XEN_EINVAL;
    }
    if (arg->index == kTssSized && arg->value >> 32 < 104) {
        world.crashed = true;
        return 0;
    }
    if (arg->index == kTss) {
        world.params[kTssSized] = std::uint64_t{128} << 32 | (arg->value & 0xffff'ffff);
    }
    world.params[arg->index] = arg->value;
    return 0;
}

Result get_param(World& world, const std::optional<Param>& arg, std::uint64_t& value) {
    if (const auto no = param_refusal(world, arg)) return *no;
    const May rule = may(arg->index);
    if (rule == May::kDeprecated) return -XEN_EINVAL;
    if (rule == May::kNeither) return -XEN_EPERM;
    value = world.params[arg->index];
    return 0;
}

Result set_upcall_vector(World& world, std::optional<std::uint32_t> vcpu, std::uint8_t vector) {
    if (!vcpu) return -XEN_EFAULT;
    if (vector < 16) return -XEN_EINVAL;
    if (*vcpu >= world.machine.vcpus) return -XEN_ENOENT;
    world.vectors[*vcpu] = vector;
    return 0;
}

Result get_mem_type(World& world, std::optional<std::uint16_t> domid, std::uint64_t gfn,
                    std::uint16_t& type) {
    if (!domid) return -XEN_EFAULT;
    if (const auto no = refusal(*domid, XEN_EPERM)) return *no;
    type = world.at(gfn).kind == Kind::kNothing ? 2 : 0;
    return 0;
}

}  // namespace xenshim::tests::model
