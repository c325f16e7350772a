// HYPERVISOR_xen_version (Xen's common/kernel.c), and the small calls that need no file of their
// own: console_io, vm_assist, physdev_op.
#include <array>
#include <cstring>

#include "xenshim/abi/operations.h"
#include "xenshim/abi/other_numbers.h"
#include "xenshim/hypercall/handlers.h"

namespace xenshim {

using namespace abi;

namespace {

template <class Text>
Text text(std::string_view from) {
    Text out{};
    std::memcpy(out.data(), from.data(), std::min(from.size(), out.size() - 1));
    return out;
}

xen_compile_info compile_info() {
    xen_compile_info info{};
    info.compiler = text<decltype(info.compiler)>("xenolith");
    info.compile_by = text<decltype(info.compile_by)>("xenolith");
    return info;
}

// The texts of 4.20 without a limit of their length: a length, the room for the text, before it.
// Without a structure the answer is the length alone.
Outcome text_of_any_length(Call& call, std::string_view what) {
    const vmm::Gva arg = call.handle(1);
    const auto size = static_cast<std::int64_t>(what.size());
    if (arg.value == 0) return Call::ok(size);
    const auto room = call.read<std::uint32_t>(arg);
    if (!room) return Call::fail(room.error());
    if (*room == 0) return Call::fail(XEN_EINVAL);
    if (what.size() > *room) return Call::fail(XEN_ENOBUFS);
    const auto done =
        call.write_bytes(call.element(arg, 1, sizeof *room), std::as_bytes(std::span(what)));
    return done ? Call::ok(size) : Call::fail(done.error());
}

}  // namespace

Outcome xen_version(Call& call) {
    const vmm::Gva arg = call.handle(1);
    const Profile& profile = call.profile();
    const auto sub_op = call.arg<std::uint32_t>(0);
    if (!exists(profile, HYPERVISOR_xen_version, sub_op)) return Call::fail(XEN_ENOSYS);
    switch (sub_op) {
        case XENVER_version: return Call::ok((profile.major << 16) | profile.minor);

        case XENVER_extraversion:
            return Call::result(call.write(arg, text<xen_extraversion_t>(profile.extraversion)));

        case XENVER_compile_info: return Call::result(call.write(arg, compile_info()));

        case XENVER_capabilities:
            return Call::result(
                call.write(arg, text<xen_capabilities_info_t>(profile.capabilities)));

        case XENVER_changeset: return Call::result(call.write(arg, xen_changeset_info_t{}));

        case XENVER_platform_parameters:
            // Where Xen's own address space starts: nothing to a translated guest, and 0 to a
            // 32-bit one.
            return Call::result(call.write_wide<xen_platform_parameters>(
                arg, {.virt_start = call.is_64bit() ? profile.virt_start : 0}));

        case XENVER_get_features:
            return call.in_out<xen_feature_info>(arg, [&](auto& info) -> GuestResult<void> {
                if (info.submap_idx != 0) return refuse(XEN_EINVAL);
                info.submap = profile.features;
                return {};
            });

        case XENVER_pagesize:
            return arg.value == 0 ? Call::ok(vmm::kPageSize) : Call::fail(XEN_EINVAL);

        case XENVER_guest_handle:
            return Call::result(call.write(arg, xen_domain_handle_t{call.domain().config().uuid}));

        case XENVER_commandline:
            return Call::result(call.write(arg, text<xen_commandline_t>("<denied>")));

        case XENVER_build_id:
        case XENVER_commandline2: return Call::fail(XEN_EPERM);

        case XENVER_extraversion2: return text_of_any_length(call, profile.extraversion);
        case XENVER_capabilities2: return text_of_any_length(call, profile.capabilities);
        case XENVER_changeset2: return text_of_any_length(call, "");

        default: return Call::fail(XEN_ENOSYS);
    }
}

// The hypervisor's own console is not for guests (release builds of Xen).
Outcome console_io(Call&) {
    return Call::fail(XEN_EPERM);
}

Outcome vm_assist(Call& call) {
    constexpr std::uint32_t kEnable = 0, kDisable = 1;
    constexpr std::uint32_t kRunstateUpdateFlag = 5;  // the one assist that is not PV-only
    if (call.arg<std::uint32_t>(1) != kRunstateUpdateFlag) return Call::fail(XEN_EINVAL);
    const auto command = call.arg<std::uint32_t>(0);
    if (command != kEnable && command != kDisable) return Call::fail(XEN_ENOSYS);
    call.domain().set_runstate_update_flag(command == kEnable);
    return Call::ok();
}

// Physical interrupts are not routed to event channels (XENFEAT_hvm_pirqs is absent).
Outcome physdev_op(Call&) {
    return Call::fail(XEN_ENOSYS);
}

}  // namespace xenshim
