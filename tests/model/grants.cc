// grant_table_op (xen-abi.md 4.7 and 4.8, xen-417-golden.md G).
#include <cstring>
#include <utility>

#include "tests/model/world.h"

namespace xenshim::tests::model {
namespace {

constexpr std::uint16_t kSelf = 0x7ff0, kOwnId = 2, kDom0 = 0;

constexpr Status kOkay = 0, kGeneral = -1, kBadDomain = -2, kBadRef = -3, kBadHandle = -4,
                 kDenied = -8, kBadPage = -9, kBadCopy = -10, kAgain = -12;

// An entry's flags.
constexpr std::uint16_t kTypeMask = 3, kPermit = 1, kTransitive = 3, kReadonly = 4, kReading = 8,
                        kWriting = 16, kCaching = 0xe0, kPart = 0x100;
// A mapping's.
constexpr std::uint32_t kDeviceMap = 1, kHostMap = 2, kMapReadonly = 4, kForApplication = 8,
                        kContainsPte = 16;

constexpr std::uint32_t kMostOfAKind = 128;   // users of an entry who read, and who write
constexpr std::uint32_t kTheirEntries = 512;  // domain 0's: a table of one frame
constexpr std::uint32_t kReserved = 8;
constexpr std::uint32_t kHandlesAtOnce = 256;

std::uint32_t bytes_of_entry(const World& world) {
    return world.grants.version == 1 ? 8 : 16;
}
std::uint8_t* raw_entry(World& world, std::uint32_t ref) {
    const std::uint64_t at = std::uint64_t{ref} * bytes_of_entry(world);
    return &world.own_page(kFirstGrantFrame + static_cast<std::uint32_t>(at / 4096))
                ->bytes[at % 4096];
}
std::uint8_t* raw_status(World& world, std::uint32_t ref) {
    return &world.own_page(kFirstStatusFrame + ref / 2048)->bytes[ref % 2048 * 2];
}

// That an entry is in use stands in its flags, or with version 2 in its status.
void mark(World& world, std::uint32_t ref, std::uint16_t set, std::uint16_t clear) {
    if (world.grants.version == 2) {
        const unsigned bits = grant_status(world, ref);
        set_grant_status(world, ref, static_cast<std::uint16_t>((bits | set) & ~unsigned{clear}));
        return;
    }
    Entry entry = grant_entry(world, ref);
    entry.flags = static_cast<std::uint16_t>((entry.flags | set) & ~unsigned{clear});
    set_grant_entry(world, ref, entry);
}

// What the present users do not need is cleared. A reader says nothing of who writes.
void clear_marks(World& world, std::uint32_t ref, bool readonly) {
    const auto found = world.grants.uses.find(ref);
    const std::uint32_t readers = found == world.grants.uses.end() ? 0 : found->second.readers;
    const std::uint32_t writers = found == world.grants.uses.end() ? 0 : found->second.writers;
    if (!readonly && writers == 0) mark(world, ref, 0, kWriting);
    if (readers + writers == 0) mark(world, ref, 0, kReading);
}

// An entry of domain 0's.
Status look_up_offer(World& world, std::uint32_t ref, bool readonly) {
    if (ref >= kTheirEntries) return kBadRef;
    const auto found = world.grants.offers.find(ref);
    if (found == world.grants.offers.end()) return kGeneral;
    return found->second.readonly && !readonly ? kGeneral : kOkay;
}

// Where an entry that nobody uses yet leads to.
Status resolve(World& world, const Entry& entry, bool readonly, bool for_map, Use& use) {
    if (world.grants.version == 2 && (entry.flags & kTypeMask) == kTransitive) {
        if (entry.offset != kDom0) return kGeneral;  // itself, or nobody
        const auto ref = static_cast<std::uint32_t>(entry.frame);
        const Status status = look_up_offer(world, ref, readonly);
        if (status != kOkay) return status;
        use = {.frame = world.grants.offers[ref].frame, .part = true, .offer = ref};
        return kOkay;
    }
    // Of the hypervisor's own pages only copies are made here; Xen would show them twice.
    if (for_map && world.at(entry.frame).kind == Cell::Kind::kOwn) return kGeneral;
    use = {.frame = world.page(entry.frame)};
    if (use.frame == nullptr) return kBadPage;
    if (world.grants.version == 2 && (entry.flags & kPart) != 0) {
        use.start = entry.offset;
        use.length = entry.length;
        use.part = true;
    }
    return kOkay;
}

// One more user of the guest's entry `ref`, who is the guest itself.
Status begin(World& world, std::uint32_t ref, bool readonly, bool for_map) {
    if (ref >= grant_entries(world)) return kBadRef;
    const auto found = world.grants.uses.find(ref);
    const bool in_use = found != world.grants.uses.end();
    Use use = in_use ? found->second : Use{};
    if (use.readers >= kMostOfAKind || use.writers >= kMostOfAKind) return kGeneral;
    if (in_use && for_map && use.part) return kGeneral;

    const Entry entry = grant_entry(world, ref);
    if (!in_use) {
        const unsigned type = entry.flags & kTypeMask;
        const bool whole = (entry.flags & kPart) == 0;
        if (entry.domid != kOwnId) return kGeneral;
        if (for_map && !(type == kPermit && whole)) return kGeneral;
        const bool transitive = world.grants.version == 2 && type == kTransitive;
        if (type != kPermit && !transitive) return kGeneral;
    }
    if (!in_use || (!readonly && use.writers == 0)) {
        if (!readonly && (entry.flags & kReadonly) != 0) return kGeneral;
        mark(world, ref, readonly ? kReading : kReading | kWriting, 0);
    }
    Status status = kOkay;
    if (!in_use) {
        status = resolve(world, entry, readonly, for_map, use);
    } else if (use.offer != 0) {
        status = look_up_offer(world, use.offer, readonly);
    }
    if (status != kOkay) {
        clear_marks(world, ref, readonly);
        return status;
    }
    ++(readonly ? use.readers : use.writers);
    world.grants.uses[ref] = use;
    return kOkay;
}

void end(World& world, std::uint32_t ref, bool readonly) {
    Use& use = world.grants.uses.at(ref);
    --(readonly ? use.readers : use.writers);
    clear_marks(world, ref, readonly);
    if (use.readers + use.writers == 0) world.grants.uses.erase(ref);
}

std::uint32_t take_handle(World& world) {
    auto& grants = world.grants;
    // One is always left over.
    if (grants.free_handles.size() <= 1) {
        const auto first = static_cast<std::uint32_t>(grants.maps.size());
        grants.maps.resize(first + kHandlesAtOnce);
        for (std::uint32_t i = kHandlesAtOnce; i > 0; --i) {
            grants.free_handles.push_front(first + i - 1);
        }
    }
    const std::uint32_t handle = grants.free_handles.front();
    grants.free_handles.pop_front();
    return handle;
}
void give_handle(World& world, std::uint32_t handle) {
    world.grants.free_handles.push_back(handle);
}

}  // namespace

std::optional<Result> grant_refusal(const World& world, std::uint64_t command,
                                    std::uint64_t count) {
    const auto op = static_cast<std::uint32_t>(command);
    int since = 0;
    switch (op) {
        case 2:  // setup_table
        case 6:  // query_size
            break;
        case 0:  // map_grant_ref
        case 1:  // unmap_grant_ref
        case 5:  // copy
        case 8:  // set_version
            since = 400;
            break;
        case 10:  // get_version
        case 11:  // swap_grant_ref
            since = 402;
            break;
        default: return -XEN_ENOSYS;
    }
    if (world.era.release < since) return -XEN_ENOSYS;
    const auto elements = static_cast<std::uint32_t>(count);
    if (elements > INT32_MAX) return -XEN_EINVAL;
    if (!world.era.grants_continue() && elements > 512) return -XEN_EINVAL;
    if (op == 2 && elements == 0 && !world.wide) return 0;  // measured
    if ((op == 2 || op == 6) && elements != 1) return -XEN_EINVAL;
    return std::nullopt;
}

std::uint32_t grant_entries(const World& world) {
    return world.grants.frames * 4096 / bytes_of_entry(world);
}

Entry grant_entry(World& world, std::uint32_t ref) {
    Entry entry;
    const std::uint8_t* raw = raw_entry(world, ref);
    std::memcpy(&entry.flags, raw, 2);
    std::memcpy(&entry.domid, raw + 2, 2);
    if (world.grants.version == 1) {
        std::memcpy(&entry.frame, raw + 4, 4);
    } else {
        std::memcpy(&entry.offset, raw + 4, 2);
        std::memcpy(&entry.length, raw + 6, 2);
        std::memcpy(&entry.frame, raw + 8, 8);
    }
    return entry;
}

void set_grant_entry(World& world, std::uint32_t ref, const Entry& entry) {
    std::uint8_t* raw = raw_entry(world, ref);
    std::memcpy(raw, &entry.flags, 2);
    std::memcpy(raw + 2, &entry.domid, 2);
    if (world.grants.version == 1) {
        std::memcpy(raw + 4, &entry.frame, 4);
    } else {
        std::memcpy(raw + 4, &entry.offset, 2);
        std::memcpy(raw + 6, &entry.length, 2);
        std::memcpy(raw + 8, &entry.frame, 8);
    }
}

std::uint16_t grant_status(World& world, std::uint32_t ref) {
    std::uint16_t status = 0;
    std::memcpy(&status, raw_status(world, ref), sizeof status);
    return status;
}

void set_grant_status(World& world, std::uint32_t ref, std::uint16_t status) {
    std::memcpy(raw_status(world, ref), &status, sizeof status);
}

bool grow_grants(World& world, std::uint64_t frames) {
    if (frames > world.era.grant_frames()) return false;
    if (frames > world.grants.frames) world.grants.frames = static_cast<std::uint32_t>(frames);
    return true;
}

Status grant_copy(World& world, const Copy& op) {
    for (const CopySide* side : {&op.source, &op.dest}) {
        if (!side->by_ref && side->domid != kSelf) return kDenied;
        if (side->domid != kSelf && side->domid != kOwnId && side->domid != kDom0) {
            return kBadDomain;
        }
    }
    struct Claimed {
        std::shared_ptr<Frame> frame;
        std::uint32_t start = 0, length = 4096;
        bool entry = false;  // of the guest's own table
    };
    const auto claim = [&](const CopySide& side, bool readonly, Claimed& claimed) -> Status {
        const auto ref = static_cast<std::uint32_t>(side.number);
        if (!side.by_ref) {
            claimed.frame = world.page(side.number);
            return claimed.frame == nullptr ? kBadPage : kOkay;
        }
        if (side.domid == kDom0) {
            const Status status = look_up_offer(world, ref, readonly);
            if (status == kOkay) claimed.frame = world.grants.offers[ref].frame;
            return status;
        }
        const Status status = begin(world, ref, readonly, false);
        if (status != kOkay) return status;
        const Use& use = world.grants.uses[ref];
        claimed = {.frame = use.frame, .start = use.start, .length = use.length, .entry = true};
        return kOkay;
    };
    Claimed from, to;
    Status status = claim(op.source, true, from);
    if (status == kOkay) status = claim(op.dest, false, to);
    const std::uint32_t from_end = op.source.offset + op.length;
    const std::uint32_t to_end = op.dest.offset + op.length;
    if (status != kOkay) {
    } else if (from_end > 4096 || to_end > 4096) {
        status = kBadCopy;
    } else if (op.source.offset < from.start || from_end > from.start + from.length ||
               op.dest.offset < to.start || to_end > to.start + to.length) {
        status = kGeneral;
    } else {
        std::memmove(&to.frame->bytes[0] + op.dest.offset, &from.frame->bytes[0] + op.source.offset,
                     op.length);
    }
    if (to.entry) end(world, static_cast<std::uint32_t>(op.dest.number), false);
    if (from.entry) end(world, static_cast<std::uint32_t>(op.source.number), true);
    return status;
}

Status grant_map(World& world, const Map& op, std::uint32_t& handle) {
    if ((op.flags & (kDeviceMap | kHostMap)) == 0) return kBadRef;
    if ((op.flags & (kDeviceMap | kForApplication | kContainsPte)) != 0) return kGeneral;
    if (op.domid != kOwnId && op.domid != kDom0) return kBadDomain;  // not by DOMID_SELF

    const std::uint32_t taken = take_handle(world);
    const auto fails = [&](Status status) {
        give_handle(world, taken);
        return status;
    };
    // What a backend offers is for copies only.
    if (op.domid == kDom0) return fails(op.ref < kTheirEntries ? kGeneral : kBadRef);

    const bool readonly = (op.flags & kMapReadonly) != 0;
    const bool first = !world.grants.uses.contains(op.ref);
    const Status begun = begin(world, op.ref, readonly, true);
    if (begun != kOkay) return fails(begun);

    const std::uint64_t gfn = op.address >> 12;
    const Entry entry = grant_entry(world, op.ref);
    const bool over_another = world.at(gfn).kind == Cell::Kind::kMapped;
    if ((op.flags & ~kMapReadonly) != kHostMap || (entry.flags & kCaching) != 0 ||
        gfn >= world.machine.limit_gfn || over_another) {
        if ((op.flags & ~kMapReadonly) == kHostMap && (entry.flags & kCaching) == 0 &&
            over_another) {
            world.crashed = true;
        }
        end(world, op.ref, readonly);
        return fails(kGeneral);
    }
    const auto frame = world.grants.uses[op.ref].frame;
    // A page of the guest's own has one place; it goes on being counted.
    if (first && world.at(entry.frame).kind == Cell::Kind::kRam) world.put(entry.frame, {});
    // What was there is lost, and counted as well.
    if (world.at(gfn).kind == Cell::Kind::kOwn) world.where.erase(world.at(gfn).own);
    world.put(gfn, {.kind = Cell::Kind::kMapped, .frame = frame});
    if (readonly) world.types[gfn] = 1;  // as of any RAM that is not to be written to
    if (gfn > world.highest) world.highest = gfn;
    ++frame->maps;
    world.grants.maps[taken] = {.ref = op.ref, .domid = op.domid, .flags = op.flags};
    handle = taken;
    return kOkay;
}

Status grant_unmap(World& world, std::uint32_t handle, std::uint64_t address) {
    auto& maps = world.grants.maps;
    if (handle >= maps.size() || maps[handle].flags == 0) return kBadHandle;
    if (address == 0) return kOkay;  // of nothing
    const Mapping mapping = maps[handle];
    const auto frame = world.grants.uses.at(mapping.ref).frame;
    const Cell cell = world.at(address >> 12);
    if (cell.kind != Cell::Kind::kMapped || cell.frame != frame) return kGeneral;
    world.put(address >> 12, {});  // the page is nowhere now, and counted
    maps[handle] = {};
    give_handle(world, handle);
    end(world, mapping.ref, (mapping.flags & kMapReadonly) != 0);
    if (--frame->maps == 0 && frame->given_back) --world.current;
    return kOkay;
}

Status grant_swap(World& world, std::uint32_t a, std::uint32_t b) {
    if (a >= grant_entries(world) || b >= grant_entries(world)) return kBadRef;
    if (a == b) return kOkay;
    if (world.grants.uses.contains(a) || world.grants.uses.contains(b)) return kAgain;
    const Entry entry_a = grant_entry(world, a), entry_b = grant_entry(world, b);
    set_grant_entry(world, a, entry_b);
    set_grant_entry(world, b, entry_a);
    if (world.grants.version == 2) {
        const std::uint16_t status = grant_status(world, a);
        set_grant_status(world, a, grant_status(world, b));
        set_grant_status(world, b, status);
    }
    return kOkay;
}

static Status whose_table(std::uint16_t domid) {
    if (domid == kSelf || domid == kOwnId) return kOkay;
    return domid == kDom0 ? kDenied : kBadDomain;
}

Status setup_table(World& world, std::uint16_t domid, std::uint32_t frames,
                   std::vector<std::uint64_t>& list) {
    if (const Status status = whose_table(domid); status != kOkay) return status;
    if (!grow_grants(world, frames)) return kGeneral;
    for (std::uint32_t i = 0; i < frames; ++i) {
        const auto at = world.where.find(kFirstGrantFrame + i);
        list.push_back(at == world.where.end() ? UINT64_MAX : at->second);
    }
    return kOkay;
}

Status query_size(const World&, std::uint16_t domid) {
    return whose_table(domid);
}

Result set_version(World& world, std::uint32_t wanted) {
    auto& grants = world.grants;
    if (wanted != 1 && wanted != 2) return -XEN_EINVAL;
    if (wanted == grants.version) return 0;
    for (const auto& [ref, use] : grants.uses) {
        if (ref >= kReserved) return -XEN_EBUSY;
    }
    // The first eight are kept, in what the other version can say of them.
    std::array<Entry, kReserved> kept;
    for (std::uint32_t ref = 0; ref < kReserved; ++ref) {
        Entry& entry = kept[ref] = grant_entry(world, ref);
        if (grants.version == 1) continue;
        const unsigned type = entry.flags & kTypeMask;
        if (type == kTransitive || (type == kPermit && entry.frame > UINT32_MAX)) {
            return -XEN_ERANGE;
        }
        if (type == kPermit) {
            entry.flags = static_cast<std::uint16_t>(entry.flags | grant_status(world, ref));
        } else {
            entry = {};
        }
    }
    for (std::uint32_t frame = 0; frame < grants.frames; ++frame) {
        world.own_page(kFirstGrantFrame + frame)->bytes = {};
    }
    // Status frames come empty, and go with their places.
    for (std::uint32_t frame = 0; frame < world.era.grant_frames() / 8; ++frame) {
        const std::uint32_t own = kFirstStatusFrame + frame;
        world.own_page(own)->bytes = {};
        world.lost.erase(own);
        if (const auto at = world.where.find(own); at != world.where.end()) {
            world.put(at->second, {});
            world.where.erase(own);
        }
    }
    grants.version = wanted;
    for (std::uint32_t ref = 0; ref < kReserved; ++ref) {
        Entry entry = kept[ref];
        if (wanted == 2) {
            constexpr unsigned kMarks = kReading | kWriting;
            set_grant_status(world, ref, entry.flags & kMarks);
            entry.flags = static_cast<std::uint16_t>(entry.flags & ~kMarks);
        }
        set_grant_entry(world, ref, entry);
    }
    return 0;
}

Result get_version(const World& world, std::uint16_t domid) {
    const Status status = whose_table(domid);
    if (status == kOkay) return world.grants.version;
    return status == kDenied ? -XEN_EPERM : -XEN_ESRCH;
}

}  // namespace xenshim::tests::model
