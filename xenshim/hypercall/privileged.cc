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
    std::uint16_t domain;  // domctl only
};

template <std::size_t Bytes>
GuestResult<ControlArg> read_control(Call& call) {
    std::array<std::byte, Bytes> bytes;
    if (!call.access().read(call.handle(0), bytes)) return refuse(XEN_EFAULT);
    ControlArg arg{};
    std::memcpy(&arg.cmd, bytes.data(), sizeof arg.cmd);
    std::memcpy(&arg.interface_version, bytes.data() + 4, sizeof arg.interface_version);
    std::memcpy(&arg.domain, bytes.data() + 8, sizeof arg.domain);
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
        default: break;
    }
    return Call::fail(is_domain(call, arg->domain) ? XEN_EPERM : XEN_ESRCH);
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
