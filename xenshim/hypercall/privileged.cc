// The hypercalls of toolstacks and of domain 0. A guest that calls them hears what Xen 4.17 says to
// it (measured on 4.17.7), in Xen's order: the argument, its interface version, the domain, the
// privilege.
#include <array>

#include "xenshim/abi/other_numbers.h"
#include "xenshim/hypercall/handlers.h"

namespace xenshim {

using namespace abi;

namespace {

// {cmd, interface_version, 128 bytes for the command}; domctl has the domain before those.
constexpr std::size_t kSysctlBytes = 136, kDomctlBytes = 144;

// public/sysctl.h, domctl.h and platform.h of 4.17. Other releases have other numbers; nobody but
// their own toolstack knows them, and it is refused one way or the other.
constexpr std::uint32_t kSysctlVersion = 0x15, kDomctlVersion = 0x15;
constexpr std::uint32_t kPlatformVersion = 0x03000001;

struct ControlArg {
    std::uint32_t cmd;
    std::uint32_t interface_version;
    // domctl only: the domain, and the first words of what is the command's own.
    std::uint16_t domain;
    std::array<std::uint32_t, 6> own;

    std::uint64_t own64(std::size_t i) const {
        return own[2 * i] | static_cast<std::uint64_t>(own[2 * i + 1]) << 32;
    }
};

template <std::size_t Bytes>
GuestResult<ControlArg> read_control(Call& call) {
    std::array<std::byte, Bytes> bytes;
    if (!call.access().read(call.handle(0), bytes)) return refuse(XEN_EFAULT);
    ControlArg arg{};
    std::memcpy(&arg.cmd, bytes.data(), sizeof arg.cmd);
    std::memcpy(&arg.interface_version, bytes.data() + 4, sizeof arg.interface_version);
    std::memcpy(&arg.domain, bytes.data() + 8, sizeof arg.domain);
    std::memcpy(arg.own.data(), bytes.data() + 16, sizeof arg.own);
    return arg;
}

template <std::size_t Bytes>
Outcome refuse_control(Call& call, std::uint32_t version) {
    const auto arg = read_control<Bytes>(call);
    if (!arg) return Call::fail(arg.error());
    return Call::fail(arg->interface_version == version ? XEN_EPERM : XEN_EACCES);
}

// Domain 0 and the guest are all the domains that there are.
bool is_domain(Call& call, std::uint16_t domid) {
    return domid == 0 || domid == call.domain().config().domid;
}

constexpr std::uint16_t kDomidIo = 0x7ff1, kDomidInvalid = 0x7ff4;
constexpr std::uint32_t kIoPorts = 65536;
// A guest's on a machine whose one I/O APIC has 24 inputs: these and 32 more.
constexpr std::uint32_t kGuestIrqs = 56;

bool wraps(std::uint64_t first, std::uint64_t count) {
    return first + count - 1 < first;
}

// Operations about things take their arguments apart first (measured on 4.17.7: older releases
// refused them all at once). Domain 0 is paravirtual, the guest is not, and neither has an IOMMU.
Errno refusal(Call& call, const ControlArg& arg) {
    const auto& own = arg.own;
    const bool is_hvm = arg.domain != 0;
    const auto unless = [](bool sane) { return sane ? XEN_EPERM : XEN_EINVAL; };
    switch (arg.cmd) {
        case XEN_DOMCTL_irq_permission:  // {pirq, allow}
            return unless(own[0] < kGuestIrqs);

        case XEN_DOMCTL_iomem_permission:  // {u64 first, u64 count, allow}
            return unless(!wraps(arg.own64(0), arg.own64(1)));

        case XEN_DOMCTL_ioport_permission: {  // {first, count, allow}
            const std::uint32_t end = own[0] + own[1];
            return unless(end > own[0] && end <= kIoPorts);
        }

        case XEN_DOMCTL_bind_pt_irq:
        case XEN_DOMCTL_unbind_pt_irq: return unless(is_hvm);

        case XEN_DOMCTL_memory_mapping: {  // {u64 gfn, u64 frame, u64 count, add}
            const std::uint64_t gfn = arg.own64(0), frame = arg.own64(1), count = arg.own64(2);
            const std::uint64_t last = frame + count - 1;
            return unless(!wraps(frame, count) && !wraps(gfn, count) &&
                          (frame | last) < call.domain().ports().gfn_limit());
        }

        case XEN_DOMCTL_ioport_mapping: {  // {port in the guest, port, count, add}
            if (!is_hvm) return XEN_EOPNOTSUPP;
            const std::uint32_t here = own[0], there = own[1], count = own[2];
            return unless(count != 0 && here <= kIoPorts && there <= kIoPorts &&
                          here + count <= kIoPorts && there + count <= kIoPorts);
        }

        case XEN_DOMCTL_set_target: {  // {u16 the domain that it shall serve}
            const auto target = static_cast<std::uint16_t>(own[0]);
            if (!is_domain(call, target)) return XEN_ESRCH;
            if (target == arg.domain) return XEN_EINVAL;
            return target == 0 ? XEN_EOPNOTSUPP : XEN_EPERM;
        }

        case XEN_DOMCTL_get_device_group: return XEN_EOPNOTSUPP;
        default: return XEN_EPERM;
    }
}

}  // namespace

Outcome sysctl(Call& call) {
    return refuse_control<kSysctlBytes>(call, kSysctlVersion);
}

Outcome platform_op(Call& call) {
    return refuse_control<kSysctlBytes>(call, kPlatformVersion);
}

Outcome domctl(Call& call) {
    const auto arg = read_control<kDomctlBytes>(call);
    if (!arg) return Call::fail(arg.error());
    if (arg->interface_version != kDomctlVersion) return Call::fail(XEN_EACCES);
    switch (arg->cmd) {
        case XEN_DOMCTL_createdomain:
        case XEN_DOMCTL_gdbsx_guestmemio: return Call::fail(XEN_EPERM);  // of no domain yet
        case XEN_DOMCTL_getdomaininfo:
            // It takes the next domain from that number on, which reserved numbers cannot be.
            if (arg->domain >= DOMID_FIRST_RESERVED) return Call::fail(XEN_EINVAL);
            break;
        // Devices may belong to nobody, and be looked for.
        case XEN_DOMCTL_assign_device:
        case XEN_DOMCTL_deassign_device:
            if (arg->domain == kDomidIo) return Call::fail(XEN_EPERM);
            break;
        case XEN_DOMCTL_test_assign_device:
            if (arg->domain == kDomidInvalid) return Call::fail(XEN_EPERM);
            break;
        default: break;
    }
    return Call::fail(is_domain(call, arg->domain) ? refusal(call, *arg) : XEN_ESRCH);
}

// Only ever issued by Xen itself, to go on with a domctl.
Outcome paging_domctl_cont(Call& call) {
    const auto arg = read_control<kDomctlBytes>(call);
    if (!arg) return Call::fail(arg.error());
    if (arg->interface_version != kDomctlVersion) {
        return Call::fail(call.is_64bit() ? XEN_EINVAL : XEN_EOPNOTSUPP);  // measured at both
    }
    return Call::fail(is_domain(call, arg->domain) ? XEN_EPERM : XEN_ESRCH);
}

// Page tables of PV domains: uops, count, done, domain.
Outcome mmuext_op(Call& call) {
    const auto count = call.arg<std::uint32_t>(1);
    const auto foreign = call.arg<std::uint32_t>(3);
    // Xen's own continuation of a call that has nothing left to do but its result, which it puts
    // where the domain was. Nobody checks who says so.
    if (count == MMU_UPDATE_PREEMPTED && call.handle(0).value == 0) {
        return Call::ok(static_cast<std::int32_t>(foreign));
    }
    // A 32-bit caller's operations are translated one by one: none, and nothing is looked at.
    if (!call.is_64bit()) {
        constexpr std::size_t kOpBytes = 12;
        if ((count & ~MMU_UPDATE_PREEMPTED) == 0) return Call::ok();
        std::array<std::byte, kOpBytes> op;
        if (!call.access().read(call.handle(0), op)) return Call::fail(XEN_EFAULT);
    }
    const auto domid = static_cast<std::uint16_t>(foreign);
    if (domid == DOMID_SELF) return Call::fail(XEN_EINVAL);  // an HVM domain
    return Call::fail(domid == 0 ? XEN_EPERM : XEN_ESRCH);
}

// Its vCPUs have local APICs of their own.
Outcome xenpmu_op(Call&) {
    return Call::fail(XEN_EOPNOTSUPP);
}

Outcome hypfs_op(Call&) {
    return Call::fail(XEN_EPERM);
}

// Transcendent memory, off unless Xen's command line says otherwise (until 4.12).
Outcome tmem_op(Call&) {
    return Call::fail(XEN_ENODEV);
}

// Compiled without: xsm_op (no Flask) and argo_op, as in Debian's Xen.
Outcome not_compiled_in(Call&) {
    return Call::fail(XEN_ENOSYS);
}

}  // namespace xenshim
