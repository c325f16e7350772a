#include "tests/model/world.h"

#include <algorithm>
#include <iterator>

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

// What is there is given back.
void empty(World& world, std::uint64_t gfn) {
    const Cell cell = world.at(gfn);
    if (cell.kind == Kind::kRam) --world.current;
    if (cell.kind == Kind::kOwn) world.where.erase(cell.own);
    if (cell.kind == Kind::kMapped) cell.frame->given_back = true;  // counted until it is unmapped
    world.changed[gfn] = {};
}

void put_ram(World& world, std::uint64_t gfn, std::shared_ptr<Frame> frame) {
    world.changed[gfn] = {.kind = Kind::kRam, .frame = std::move(frame)};
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
    // Xen ends a domain that puts memory where it has mapped a grant; here it only fails.
    if (world.at(gfn).kind == Kind::kMapped) return false;
    // RAM that was there is forgotten, but not taken off the account (measured).
    if (world.at(gfn).kind != Kind::kRam) empty(world, gfn);
    put_ram(world, gfn, nullptr);
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
    // A page that a grant shows stays where it is; Xen would show it twice.
    if (source.kind != Kind::kRam) return -XEN_EINVAL;
    if (from == to) return 0;
    if (to >= world.machine.limit_gfn) return -XEN_ENOENT;
    empty(world, to);
    empty(world, from);
    put_ram(world, to, source.frame);
    return 0;
}

// ---- add_to_physmap's spaces --------------------------------------------------------------------

constexpr std::uint32_t kSharedInfo = 0, kGrantTable = 1, kGmfn = 2, kRange = 3, kForeign = 4,
                        kDevMmio = 5;

Result add_one(World& world, std::uint32_t space, std::uint64_t idx, std::uint64_t gfn) {
    switch (space) {
        case kSharedInfo: return idx == 0 ? place(world, 0, gfn) : -XEN_EINVAL;
        case kGrantTable: {
            constexpr std::uint64_t kStatus = 0x8000'0000, kFramesOfOne = 8;
            const bool status = world.grants.version == 2 && (idx & kStatus) != 0;
            if (status) idx &= ~kStatus;
            // The table grows to have it; a status frame has room for eight frames' entries.
            if (idx >= world.era.grant_frames()) return -XEN_EINVAL;
            const std::uint64_t frames = status ? (idx + 1) * kFramesOfOne : idx + 1;
            const bool there = status && idx * kFramesOfOne < world.grants.frames;
            if (!there && !grow_grants(world, frames)) return -XEN_EINVAL;
            return place(
                world,
                (status ? kFirstStatusFrame : kFirstGrantFrame) + static_cast<std::uint32_t>(idx),
                gfn);
        }
        case kGmfn:
        case kRange: return move(world, idx, gfn);
        case kDevMmio: return -XEN_EACCES;
        default: return -XEN_EINVAL;
    }
}

}  // namespace

std::shared_ptr<Frame> World::page(std::uint64_t gfn) {
    const Cell cell = at(gfn);
    if (cell.kind == Kind::kNothing) return nullptr;
    if (cell.kind == Kind::kOwn) return own_page(cell.own);
    if (cell.frame != nullptr) return cell.frame;
    changed[gfn] = {.kind = Kind::kRam, .frame = std::make_shared<Frame>()};
    return changed[gfn].frame;
}

std::shared_ptr<Frame> World::own_page(std::uint32_t number) {
    auto& frame = own[number];
    if (frame == nullptr) frame = std::make_shared<Frame>();
    return frame;
}

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
    // A 32-bit caller's numbers are zero-extended, and cannot wrap.
    if (arg->idx > UINT64_MAX - arg->size || arg->gfn > UINT64_MAX - arg->size) {
        return -XEN_EOVERFLOW;
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
    const Cell cell = world.at(arg->gfn);
    if (cell.kind == Kind::kNothing) return -XEN_ENOENT;
    // RAM is at no gfn then, but counted (measured).
    if (cell.kind == Kind::kOwn) world.where.erase(cell.own);
    world.changed[arg->gfn] = {};
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

// HVM_NR_PARAMS of each release.
std::uint32_t param_count(const Era& era) {
    static const std::map<int, std::uint32_t> kCounts = {
        {300, 9},  {303, 16}, {304, 17}, {400, 19}, {401, 25}, {402, 30},
        {403, 32}, {405, 35}, {406, 36}, {407, 37}, {409, 38}, {410, 39}};
    return std::prev(kCounts.upper_bound(era.release))->second;
}

// What a guest may do to a parameter of its own: get it, set it, or why not.
struct Rule {
    Result get = -XEN_EPERM, set = -XEN_EPERM;
};
constexpr Rule kBoth = {0, 0}, kGet = {0, -XEN_EPERM}, kDeprecated = {-XEN_EINVAL, -XEN_EINVAL};

// Since 4.6, by a list of what is a guest's: xen-abi.md 4.6, golden section D.
Rule rule_of(const Era& era, std::uint32_t index) {
    static const std::map<std::uint32_t, Rule> kGuests = {
        {0, kBoth},  {1, kGet},   {2, kBoth}, {15, kBoth}, {17, kGet}, {18, kBoth},
        {19, kBoth}, {34, kBoth}, {35, kGet}, {36, kBoth}, {37, kBoth}};
    static const std::set<std::uint32_t> kDead = {4, 13, 20, 21, 22, 23, 25, 26, 30};
    if (era.release >= 412 && kDead.contains(index)) return kDeprecated;
    if (era.release >= 415 && index == 24) return kDeprecated;
    if (era.release >= 420 && index == 35) return {0, -XEN_EEXIST};
    if (era.legacy_windows() && index == 8) return kBoth;
    const auto found = kGuests.find(index);
    return found == kGuests.end() ? Rule{} : found->second;
}
// Before, all of them, but for some that no guest could set.
Rule rule_until_45(std::uint32_t index) {
    static const std::set<std::uint32_t> kTools = {12, 13, 14, 20, 21, 22, 23, 24, 25, 30, 32, 33};
    static const std::set<std::uint32_t> kOnce = {5, 6, 26};  // of the device model's start
    return {0, kTools.contains(index) ? -XEN_EPERM : kOnce.contains(index) ? -XEN_EINVAL : 0};
}
Rule rule_in(const World& world, std::uint32_t index) {
    return world.era.release >= 406 ? rule_of(world.era, index) : rule_until_45(index);
}

// Whom an operation of hvm_op is for: until 4.2 the guest has no number here.
std::optional<Result> target_refusal(const World& world, std::uint16_t domid, Result for_dom0) {
    if (world.era.release >= 403) return refusal(domid, for_dom0);
    if (domid == kSelf) return std::nullopt;
    return domid == 0 || domid == kOwnId ? -XEN_EPERM : -XEN_ESRCH;
}

// What comes before the index is judged.
std::optional<Result> param_refusal(const World& world, const std::optional<Param>& arg) {
    if (!arg) return -XEN_EFAULT;
    if (arg->index >= param_count(world.era)) return -XEN_EINVAL;
    return target_refusal(world, arg->domid, XEN_EINVAL);
}

constexpr std::uint32_t kViridian = 9, kTimerMode = 10, kTss = 15, kConsolePfn = 17,
                        kConsolePort = 18, kAcpiPorts = 19, kTripleFault = 31, kFipWidth = 36,
                        kTssSized = 37;
// The base structure, an interrupt map of 256 bits, one of 64 k ports, and a byte.
constexpr std::uint64_t kTssLeast = 104, kTssMost = 104 + 32 + 8192 + 1;

// Whether a guest that may set the parameter may set it to that.
Result value_refusal(const World& world, const Param& arg) {
    const bool old = world.era.release < 406;
    switch (arg.index) {
        case kViridian: return old && arg.value > 1 ? -XEN_EINVAL : 0;
        case kTimerMode: return old && arg.value > 3 ? -XEN_EINVAL : 0;
        case kTripleFault: return old && arg.value > 4 ? -XEN_EINVAL : 0;
        case kAcpiPorts:
            if (world.era.release >= 407) return -XEN_ENODEV;
            return arg.value > 1 ? -XEN_EINVAL : 0;
        case kFipWidth: return arg.value == 0 || arg.value == 4 || arg.value == 8 ? 0 : -XEN_EINVAL;
        default: return 0;
    }
}

}  // namespace

Result set_param(World& world, const std::optional<Param>& arg) {
    if (const auto no = param_refusal(world, arg)) return *no;
    if (const Result no = rule_in(world, arg->index).set; no != 0) return no;
    if (const Result no = value_refusal(world, *arg); no != 0) return no;
    const std::uint64_t low = arg->value & UINT32_MAX, high = arg->value >> 32;
    if (arg->index == kTssSized) {
        if (high < kTssLeast) {
            world.crashed = true;
            return 0;
        }
        world.params[kTssSized] = std::min(high, kTssMost) << 32 | low;
    } else if (arg->index == kTss && param_count(world.era) > kTssSized) {
        // The older one is a way to set the newer.
        if (high != 0) {
            world.crashed = true;
        } else {
            world.params[kTssSized] = low == 0 ? 0 : std::uint64_t{128} << 32 | low;
        }
    } else {
        world.params[arg->index] = arg->value;
    }
    return 0;
}

Result get_param(World& world, const std::optional<Param>& arg, std::uint64_t& value) {
    if (const auto no = param_refusal(world, arg)) return *no;
    if (const Result no = rule_in(world, arg->index).get; no != 0) return no;
    // XenServer's: a console that is not there is none.
    if (world.era.legacy_windows() && (arg->index == kConsolePfn || arg->index == kConsolePort) &&
        world.params[kConsolePfn] == 0 && world.params[kConsolePort] == 0) {
        return -XEN_EINVAL;
    }
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
    if (const auto no = target_refusal(world, *domid, XEN_EPERM)) return *no;
    type = world.at(gfn).kind == Kind::kNothing ? 2 : 0;
    return 0;
}

}  // namespace xenshim::tests::model
