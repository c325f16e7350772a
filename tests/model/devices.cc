// What a device model asks for: hvm_ops until 4.8, dm_ops since. A guest is nobody's device model
// and is refused; with the privilege it may do two of them to itself.
#include <map>

#include "tests/model/world.h"

namespace xenshim::tests::model {
namespace {

using Kind = Cell::Kind;

constexpr std::uint16_t kSelf = 0x7ff0, kOwnId = 2;
constexpr std::uint32_t kModifiedMemory = 7, kSetMemType = 8;

// A device model is for another domain, named by its number; domain 0 is none that could have one.
// `granted`: what the privilege covers.
std::optional<Result> refusal(const World& world, std::uint16_t domid, bool granted) {
    if (domid == 0) return world.era.release >= 403 ? -XEN_EINVAL : -XEN_EPERM;
    if (domid != kSelf && domid != kOwnId) return -XEN_ESRCH;
    if (world.device_model) return granted ? std::nullopt : std::optional<Result>(-XEN_EPERM);
    return domid == kSelf && world.era.release >= 400 ? -XEN_ESRCH : -XEN_EPERM;
}

// None, wrapping round, or ending behind the last page that ever was.
bool out_of_range(const World& world, std::uint64_t first, std::uint64_t count) {
    if (count == 0) return true;
    const std::uint64_t last = first + (count - 1);
    return last < first || last > world.highest;
}

constexpr std::uint16_t kReadWrite = 0, kEmulated = 2;

// RAM becomes anything, and where none is something can only be emulated (XSA-92).
bool change(World& world, std::uint64_t gfn, std::uint16_t type) {
    const Kind kind = world.at(gfn).kind;
    const auto before = world.types.find(gfn);
    const bool is_ram = kind == Kind::kRam || kind == Kind::kOwn;
    const bool ram_type = before == world.types.end() || before->second != kEmulated;
    if (is_ram && ram_type) {
        world.types[gfn] = type;
        return true;
    }
    return type == kEmulated && kind != Kind::kMapped;
}

Result set_types(World& world, std::uint64_t first, std::uint64_t count, std::uint64_t start,
                 std::uint32_t type) {
    if (count < start || out_of_range(world, first, count)) return -XEN_EINVAL;
    if (type > kEmulated) return -XEN_EINVAL;  // the others are of ioreq servers
    for (std::uint64_t i = start; i < count; ++i) {
        if (!change(world, first + i, static_cast<std::uint16_t>(type))) return -XEN_EINVAL;
    }
    return 0;
}

void modify(World& world, std::uint64_t first, std::uint64_t end) {
    for (std::uint64_t gfn = first; gfn < end; ++gfn) {
        if (world.at(gfn).kind != Kind::kNothing) ++world.modified;
    }
}

}  // namespace

// ---- hvm_op -------------------------------------------------------------------------------------

std::optional<Result> hvm_refusal(World& world, std::uint64_t command, std::uint32_t op,
                                  std::uint64_t& start) {
    constexpr std::uint64_t kProcessDying = 0x102, kDriverVersion = 0x103;
    start = 0;
    if (!world.wide) command &= UINT32_MAX;
    // Before anything is taken off it.
    if (world.old_drivers && command == kProcessDying) return 0;
    if (world.old_drivers && command == kDriverVersion) {
        world.latched = true;
        return 0;
    }
    const std::uint64_t low = command & 0xff;
    const bool has_cursor = low == kModifiedMemory || low == kSetMemType;
    using HvmMemory = Era::HvmMemory;
    if (world.era.candidate || (world.era.hvm_memory() == HvmMemory::kUnshifted && has_cursor)) {
        start = command - low;
        command = low;
    }
    if (command != op) return -XEN_ENOSYS;

    // xen-abi.md 4.5.
    struct Span {
        int since, until;
    };
    static const std::map<std::uint32_t, Span> kGuests = {
        {0, {0, 999}},    {1, {0, 999}},    {5, {0, 999}},    {9, {401, 999}},
        {10, {400, 999}}, {11, {400, 999}}, {12, {401, 405}}, {13, {401, 405}},
        {15, {401, 999}}, {23, {406, 999}}, {24, {406, 999}}, {25, {406, 999}}};
    static const std::map<std::uint32_t, int> kDevices = {
        {2, 0},    {3, 0},    {4, 0},    {6, 303},  {7, 303},  {8, 304},  {14, 401},
        {16, 402}, {17, 405}, {18, 405}, {19, 405}, {20, 405}, {21, 405}, {22, 405}};
    if (const auto guests = kGuests.find(op); guests != kGuests.end()) {
        const bool there =
            world.era.release >= guests->second.since && world.era.release < guests->second.until;
        return there ? std::nullopt : std::optional<Result>(-XEN_ENOSYS);
    }
    const auto devices = kDevices.find(op);
    const bool there = devices != kDevices.end() && world.era.release >= devices->second &&
                       world.era.hvm_memory() != HvmMemory::kGone;
    return there ? std::nullopt : std::optional<Result>(-XEN_ENOSYS);
}

Result hvm_device_op(const World& world, std::uint32_t op, std::optional<std::uint16_t> domid,
                     bool in_range) {
    constexpr std::uint32_t kAltp2m = 25, kLinkRoute = 4;
    if (op == kAltp2m) return -XEN_EOPNOTSUPP;  // whatever it is given
    if (!domid) return -XEN_EFAULT;
    if (op <= kLinkRoute && !in_range) return -XEN_EINVAL;
    return refusal(world, *domid, false).value_or(0);
}

Result hvm_modified_memory(World& world, const std::optional<Pages>& arg, std::uint64_t start) {
    if (!arg) return -XEN_EFAULT;
    if (const auto no = refusal(world, arg->domid, true)) return *no;
    if (arg->count < start || out_of_range(world, arg->first, arg->count)) return -XEN_EINVAL;
    modify(world, arg->first + start, arg->first + arg->count);
    return 0;
}

Result hvm_set_mem_type(World& world, const std::optional<Pages>& arg, std::uint64_t start) {
    if (!arg) return -XEN_EFAULT;
    if (const auto no = refusal(world, arg->domid, true)) return *no;
    return set_types(world, arg->first, arg->count, start, arg->type);
}

// ---- dm_op --------------------------------------------------------------------------------------

Result dm_op(World& world, const DmOp& arg) {
    constexpr std::uint32_t kDmModifiedMemory = 11, kDmSetMemType = 12;
    constexpr std::uint64_t kHeader = 8;
    if (!world.era.has_dm_op()) return -XEN_ENOSYS;
    if (arg.buffers == 0 && world.era.release >= 417) return -XEN_ENODATA;
    if (arg.buffers > 2) return -XEN_E2BIG;
    if (arg.buffers != 0 && !arg.list) return -XEN_EFAULT;
    if (const auto no = refusal(world, arg.domid, true)) return *no;
    const std::uint64_t size = arg.buffers == 0 ? 0 : arg.size;
    if (size < kHeader || !arg.readable) return -XEN_EFAULT;
    if (arg.op != kDmModifiedMemory && arg.op != kDmSetMemType) return -XEN_EOPNOTSUPP;
    if (size < kHeader + (arg.op == kDmSetMemType ? 16 : 8)) return -XEN_EFAULT;
    if (arg.pad != 0) return -XEN_EINVAL;
    if (arg.op == kDmSetMemType) {
        if (arg.type_pad != 0) return -XEN_EINVAL;
        return set_types(world, arg.pages.first, arg.pages.count, 0, arg.pages.type);
    }
    // From the last extent to the first; of the last one so many pages are done already.
    const std::uint64_t second = arg.buffers < 2 ? 0 : arg.second_size;
    if (second / 16 < arg.extents) return -XEN_EINVAL;
    std::uint32_t done = arg.opaque;
    for (std::uint32_t left = arg.extents; left > 0; --left) {
        if (left > arg.list_of_extents.size()) return -XEN_EFAULT;
        const DmOp::Extent& extent = arg.list_of_extents[left - 1];
        const std::uint64_t end = extent.first + extent.count;
        if (extent.pad != 0 || end <= extent.first || end > world.highest) return -XEN_EINVAL;
        if (done >= extent.count) return -XEN_EINVAL;
        modify(world, extent.first + done, end);
        done = 0;
    }
    return 0;
}

}  // namespace xenshim::tests::model
