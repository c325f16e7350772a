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
    world.put(gfn, {});
}

void put_ram(World& world, std::uint64_t gfn, std::shared_ptr<Frame> frame) {
    world.put(gfn, {.kind = Kind::kRam, .frame = std::move(frame)});
    ++world.current;
    if (gfn > world.highest) world.highest = gfn;
}

// An extent, page by page; those before the one that is not there are gone.
bool decrease(World& world, std::uint64_t gfn, std::uint64_t pages) {
    for (std::uint64_t i = 0; i < pages; ++i) {
        const Cell cell = world.at(gfn + i);
        if (cell.kind == Kind::kNothing) return false;
        // A grant frame given back is gone for good; shared_info can be mapped again.
        if (cell.kind == Kind::kOwn && cell.own != 0) world.lost.insert(cell.own);
        empty(world, gfn + i);
    }
    return true;
}

bool populate(World& world, std::uint64_t gfn, std::uint64_t pages) {
    if (gfn >= world.machine.limit_gfn || pages > world.machine.limit_gfn - gfn) return false;
    if (world.current + pages > world.maximum) return false;
    // Xen ends a domain that puts memory where it has mapped a grant; here it only fails.
    for (std::uint64_t i = 0; i < pages; ++i) {
        if (world.at(gfn + i).kind == Kind::kMapped) return false;
    }
    for (std::uint64_t i = 0; i < pages; ++i) {
        // RAM that was there is forgotten, but not taken off the account (measured).
        if (world.at(gfn + i).kind != Kind::kRam) empty(world, gfn + i);
        put_ram(world, gfn + i, nullptr);
    }
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
    world.put(gfn, {.kind = Kind::kOwn, .own = own});
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
        case kGmfn: return move(world, idx, gfn);
        case kDevMmio: return world.era.release >= 409 ? -XEN_EACCES : -XEN_EINVAL;
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

// Of a NUMA node, and no other: a privilege (XSA-231).
static bool insists_on_node(std::uint32_t flags) {
    return (flags & 0xff00) != 0 && (flags & 1u << 17) != 0;
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
    // Of a machine address that many bits wide: none does at 12, and taken is none so low.
    const std::uint32_t bits = arg->flags & 0xff;
    if (bits != 0 && bits < (at.op == kDecrease ? 13 : 32)) return start;
    if (insists_on_node(arg->flags)) return start;
    for (std::uint64_t i = at.start; i < arg->count; ++i) {
        const std::uint64_t pages = std::uint64_t{1} << arg->order;
        bool done = false;
        if (at.op == kIncrease) {
            done = world.current + pages <= world.maximum;
            if (done) world.current += pages;
        } else if (i < arg->list.size()) {
            done = at.op == kDecrease ? decrease(world, arg->list[i], pages)
                                      : populate(world, arg->list[i], pages);
        }
        if (!done) return static_cast<Result>(i);
    }
    return static_cast<Result>(arg->count);
}

Result add_to_physmap(World& world, const Cursor& at, const std::optional<Place>& arg) {
    // A 32-bit caller's structure is translated before the cursor is looked at.
    const bool wild = world.era.release >= 404 && at.start > 0xffff;
    if (wild && world.wide) return -XEN_EDOM;
    if (!arg) return -XEN_EFAULT;
    if (wild) return -XEN_EDOM;
    // Those drivers speak of their own domain; of others the numbers mean what they do to all.
    const bool old = world.old_drivers && is_self(arg->domid);
    if (arg->space == kForeign && world.era.release >= 403 && !old) return -XEN_ENOSYS;
    if (const auto no = refusal(arg->domid, XEN_EACCES)) return *no;
    std::uint32_t space = arg->space;
    if (old) {
        constexpr std::uint32_t kOldSharedInfo = 4, kVlapic = 0x8000'0000, kPhysical = 0x8000'0001;
        if (space == kRange && world.latched) return -XEN_EINVAL;
        if (space == kOldSharedInfo || space == kVlapic || space == kPhysical) world.latched = true;
        if (space == kOldSharedInfo) space = kSharedInfo;
        if (space == kPhysical) space = kGmfn;
    }
    if (space != kRange || !world.era.has_range()) {
        if (arg->gfn == UINT64_MAX) return -XEN_EINVAL;
        return add_one(world, space, arg->idx, arg->gfn);
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

Result add_to_physmap_batch(World& world, const Cursor& at, const std::optional<Batch>& arg,
                            std::map<std::uint64_t, Result>& errors) {
    const bool wild = at.start > 0xffff;
    if (wild && world.wide) return -XEN_EDOM;
    if (!arg) return -XEN_EFAULT;
    // The lists of a 32-bit caller are translated before anything is done (510 pairs of them).
    if (!world.wide && at.start < arg->size && arg->pairs.size() < arg->size) return -XEN_EFAULT;
    if (wild) return -XEN_EDOM;
    if (arg->space == kRange) return -XEN_EOPNOTSUPP;
    if (const auto no = refusal(arg->domid, XEN_EACCES)) return *no;
    if (arg->space == kDevMmio && world.era.release >= 409) return -XEN_EACCES;
    if (arg->size < at.start) return -XEN_EILSEQ;
    if (arg->size == at.start && at.start != 0 && world.era.release >= 413) return -XEN_EILSEQ;
    for (std::uint64_t i = at.start; i < arg->size; ++i) {
        if (i >= arg->pairs.size()) return -XEN_EFAULT;
        const Batch::Pair& pair = arg->pairs[i];
        if (pair.gfn == UINT64_MAX) return -XEN_EINVAL;
        // For the control domain alone (measured).
        const Result one =
            arg->space == kForeign ? -XEN_EPERM : add_one(world, arg->space, pair.idx, pair.gfn);
        if (i >= arg->room) return -XEN_EFAULT;  // but done
        errors[i] = one;
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
    world.put(arg->gfn, {});
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

namespace {

// What a 32-bit caller's exchange is told while it is translated.
std::optional<Result> translation_refusal(const Exchange& arg) {
    const unsigned in = arg.in.order, out = arg.out.order;
    const unsigned apart = in > out ? in - out : out - in;
    const auto pages = [](const Extents& e) { return e.count << e.order; };
    if (arg.done > arg.in.count) return -XEN_EINVAL;
    if (out > in && arg.done % (std::uint64_t{1} << apart) != 0) return -XEN_EINVAL;
    if (pages(arg.in) > UINT32_MAX || pages(arg.out) > UINT32_MAX) return -XEN_EINVAL;
    if (pages(arg.in) != pages(arg.out)) return -XEN_EINVAL;
    // What is left of two pages behind the structure is to hold both lists of one chunk.
    constexpr std::uint64_t kRoom = 2 * 4096 - 72;
    if (((std::uint64_t{1} << apart) + 1) * 8 > kRoom) return -XEN_E2BIG;
    const bool seen = arg.in.list.size() >= arg.in.count && arg.out.list.size() >= arg.out.count;
    if (arg.done != arg.in.count && !seen) return -XEN_EFAULT;
    return std::nullopt;
}

}  // namespace

Result exchange(World& world, const Cursor& at, std::optional<Exchange>& arg) {
    if (const auto no = stray(world, at)) return *no;
    if (!arg) return -XEN_EFAULT;
    if (!world.wide) {
        if (const auto no = translation_refusal(*arg)) return *no;
    }
    if (arg->in.order > 9 || arg->out.order > 9) return -XEN_EPERM;
    const auto fits = [](const Extents& e) { return e.count <= UINT64_MAX >> e.order; };
    if (arg->done > arg->in.count || arg->in.domid != arg->out.domid || !fits(arg->in) ||
        !fits(arg->out) || arg->in.count << arg->in.order != arg->out.count << arg->out.order) {
        return -XEN_EINVAL;
    }
    const bool nothing_left = arg->done == arg->in.count;
    if (nothing_left && world.era.release >= 413) return 0;
    if (insists_on_node(arg->out.flags)) return -XEN_EINVAL;
    if (const auto no = refusal(arg->in.domid, XEN_EPERM)) return *no;
    if (nothing_left) return 0;
    // Page by page of the first chunk; the first one is as far as it comes.
    std::uint64_t first = arg->done;
    if (arg->out.order > arg->in.order) {
        const unsigned apart = arg->out.order - arg->in.order;
        first = first >> apart << apart;
    }
    if (world.wide) arg->done = first;
    if (first >= arg->in.list.size()) return -XEN_EFAULT;
    // No page is taken from a guest whose map is the hypervisor's (measured).
    return world.at(arg->in.list[first]).kind == Kind::kNothing ? -XEN_EINVAL : -XEN_EOPNOTSUPP;
}

// ---- what there is to say of memory -------------------------------------------------------------

bool has_memory_op(const World& world, std::uint64_t op) {
    struct Span {
        int since, until;
    };
    // xen-abi.md 4.1; golden section E for what HVM guests never got.
    static const std::map<std::uint64_t, Span> kSpans = {
        {0, {0, 999}},    {1, {0, 999}},    {2, {0, 999}},    {3, {0, 999}},    {4, {0, 999}},
        {5, {0, 999}},    {6, {0, 999}},    {7, {0, 999}},    {8, {0, 304}},    {9, {406, 999}},
        {10, {419, 999}}, {11, {0, 999}},   {13, {0, 999}},   {14, {0, 999}},   {15, {0, 999}},
        {16, {304, 999}}, {17, {304, 999}}, {18, {401, 999}}, {19, {402, 999}}, {21, {402, 999}},
        {23, {404, 999}}, {24, {403, 999}}, {25, {404, 999}}, {26, {405, 999}}, {27, {406, 999}},
        {28, {411, 999}}};
    // Not known of 6.5; the rest of its time had them (3.3).
    if (op == 40 || op == 57) {
        return world.era.xenserver && world.era.product >= 65 && world.era.product <= 75;
    }
    const auto found = kSpans.find(op);
    return found != kSpans.end() && world.era.release >= found->second.since &&
           world.era.release < found->second.until;
}

// Of operations that the architecture's code takes: it compares the whole register.
static std::optional<Result> arch_stray(const World& world, const Cursor& at) {
    if (at.start == 0 || world.era.release < 405) return std::nullopt;
    return -XEN_ENOSYS;
}

Result memory_map(World& world, const Cursor& at, std::optional<std::uint32_t> room, bool buffer,
                  std::uint32_t& written) {
    if (!has_memory_op(world, 9)) return -XEN_ENOSYS;
    if (const auto no = arch_stray(world, at)) return *no;
    if (world.areas.empty()) return -XEN_ENOSYS;
    if (!room) return -XEN_EFAULT;
    const auto count = static_cast<std::uint32_t>(std::min<std::size_t>(*room, world.areas.size()));
    if (count != 0 && !buffer) return -XEN_EFAULT;
    written = count;
    return 0;
}

Result set_memory_map(World& world, const Cursor& at, const std::optional<NewMap>& arg) {
    if (const auto no = arch_stray(world, at)) return *no;
    if (!arg) return -XEN_EFAULT;
    if (arg->count > (world.era.release >= 409 ? 1024 : 128)) return -XEN_EINVAL;
    if (const auto no = refusal(arg->domid, XEN_EPERM)) return *no;
    if (world.era.release < 406) return -XEN_EPERM;
    if (!arg->areas) return -XEN_EFAULT;
    world.areas = *arg->areas;
    return 0;
}

Result other_memory_op(const World& world, const Cursor& at, const std::optional<Other>& arg) {
    constexpr std::uint64_t kMachphys = 5, kTranslate = 8, kMachineMap = 10, kSetPod = 16,
                            kGetPod = 17, kFreed = 18, kShared = 19, kAccess = 21, kClaim = 24,
                            kCompatMachphys = 25, kVnuma = 26, kReserved = 27, kResource = 28;
    if (!has_memory_op(world, at.op)) return -XEN_ENOSYS;
    // By number alone: DOMID_SELF is nobody's.
    const auto by_number = [](std::uint16_t domid) { return domid == 0 || domid == kOwnId; };
    switch (at.op) {
        case kMachphys:
        case kCompatMachphys:
            if (const auto no = arch_stray(world, at)) return *no;
            // The 32-bit table is for paravirtual guests; of the other one nothing is shown here.
            if (at.op == kCompatMachphys || !world.wide) return -XEN_EOPNOTSUPP;
            if (!arg) return -XEN_EFAULT;
            return arg->count != 0 && arg->list != Other::List::kReadable ? -XEN_EFAULT : 0;
        case kTranslate: {
            if (!arg) return -XEN_EFAULT;
            const auto no = refusal(arg->domid, XEN_EPERM);
            return no ? *no : -XEN_EPERM;
        }
        case kSetPod:
        case kGetPod: {
            if (const auto no = arch_stray(world, at)) return *no;
            if (!arg) return -XEN_EFAULT;
            if (const auto no = refusal(arg->domid, XEN_EINVAL)) return *no;
            return world.era.release == 304 ? -XEN_EINVAL : -XEN_EPERM;
        }
        case kFreed:
        case kShared: return arch_stray(world, at).value_or(0);
        case kAccess:
            if (!arg) return -XEN_EFAULT;
            if (!by_number(arg->domid)) return -XEN_ESRCH;
            return arg->domid == 0 ? -XEN_EINVAL : -XEN_EPERM;
        case kClaim:
            if (!world.wide) return -XEN_ENOSYS;  // measured
            if (const auto no = stray(world, at)) return *no;
            if (!arg) return -XEN_EFAULT;
            return arg->proper && by_number(arg->domid) ? -XEN_EPERM : -XEN_EINVAL;
        case kVnuma:
            if (const auto no = stray(world, at)) return *no;
            if (!arg) return -XEN_EFAULT;
            if (!arg->proper) return -XEN_EINVAL;
            return refusal(arg->domid, XEN_EPERM).value_or(-XEN_EOPNOTSUPP);
        case kReserved:
            if (const auto no = stray(world, at)) return *no;
            if (!arg) return -XEN_EFAULT;
            return arg->proper ? 0 : -XEN_EINVAL;
        case kResource: {
            const bool unread = world.era.release >= 412;
            if (!arg) return world.wide && unread ? -XEN_EACCES : -XEN_EFAULT;
            const bool listed = arg->list != Other::List::kNone;
            if (!world.wide) {
                // A 32-bit caller's structure and list are translated first, 1020 frames of it.
                constexpr std::uint32_t kRoom = 1020;
                if (world.era.release < 415) {
                    if (arg->count > kRoom) return -XEN_E2BIG;
                } else if (listed && arg->count != 0 && at.start >= arg->count) {
                    return -XEN_EINVAL;
                }
                if (arg->count != 0 && arg->list == Other::List::kUnreadable) return -XEN_EFAULT;
            }
            if (unread) return -XEN_EACCES;
            if (!arg->proper) return -XEN_EINVAL;
            // How many frames a call may name is told to anybody.
            if (!listed) return arg->count != 0 ? -XEN_EINVAL : 0;
            if (arg->count > 32) return -XEN_E2BIG;
            return by_number(arg->domid) ? -XEN_EPERM : -XEN_ESRCH;
        }
        case kMachineMap:
            if (const auto no = arch_stray(world, at)) return *no;
            return -XEN_EPERM;
        default: return -XEN_EPERM;  // XenServer's own two: host frames
    }
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
Rule rule_of(const World& world, std::uint32_t index) {
    const Era& era = world.era;
    static const std::map<std::uint32_t, Rule> kGuests = {
        {0, kBoth},  {1, kGet},   {2, kBoth}, {15, kBoth}, {17, kGet}, {18, kBoth},
        {19, kBoth}, {34, kBoth}, {35, kGet}, {36, kBoth}, {37, kBoth}};
    static const std::set<std::uint32_t> kDead = {4, 13, 20, 21, 22, 23, 25, 26, 30};
    if (era.release >= 412 && kDead.contains(index)) return kDeprecated;
    if (era.release >= 415 && index == 24) return kDeprecated;
    if (era.release >= 420 && index == 35) return {0, -XEN_EEXIST};
    if (world.old_drivers && index == 8) return kBoth;
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
    return world.era.release >= 406 ? rule_of(world, index) : rule_until_45(index);
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
    // XenServer's: a console that is not there is none, and for long none was there for anybody.
    const bool consoles = arg->index == kConsolePfn || arg->index == kConsolePort;
    const bool none = world.params[kConsolePfn] == 0 && world.params[kConsolePort] == 0;
    if (consoles && (world.era.hides_console() || (world.old_drivers && none))) return -XEN_EINVAL;
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
    const auto set = world.types.find(gfn);
    type = world.at(gfn).kind == Kind::kNothing ? 2 : set == world.types.end() ? 0 : set->second;
    return 0;
}

Result flush_tlbs(const World& world, bool has_arg) {
    if (!has_arg) return 0;
    return world.era.release >= 408 ? -XEN_EINVAL : -XEN_ENOSYS;
}

Result guest_request(const World&, bool has_arg) {
    return has_arg ? -XEN_EINVAL : 0;
}

Result pagetable_dying(const World& world, std::optional<std::uint16_t> domid) {
    if (!domid) return -XEN_EFAULT;
    // Of use with shadow page tables only; and since 4.12 nobody thinks of another's.
    const Result foreign = world.era.release >= 412 ? XEN_EOPNOTSUPP : XEN_EINVAL;
    return target_refusal(world, *domid, foreign).value_or(-XEN_EINVAL);
}

Result xentrace(const World&, const std::optional<Trace>& arg) {
    if (!arg) return -XEN_EFAULT;
    return arg->bytes > 28 || arg->event > 0xfff ? -XEN_EINVAL : 0;
}

}  // namespace xenshim::tests::model
