#include "xenshim/trace/decode.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "xenshim/abi/continuation.h"
#include "xenshim/abi/operations.h"
#include "xenshim/abi/other_numbers.h"
#include "xenshim/abi/structs.h"
#include "xenshim/trace/structures.h"

namespace xenshim::trace {
namespace {

using namespace abi;

// ---- values -------------------------------------------------------------------------------------

std::string hex(std::uint64_t value) {
    std::array<char, 16> digits;
    const auto end = std::to_chars(digits.begin(), digits.end(), value, 16).ptr;
    return "0x" + std::string(digits.begin(), end);
}

std::string address(std::uint64_t value, Style style) {
    if (value == 0) return "NULL";
    return style == Style::kStable ? "*" : hex(value);
}

std::string one_of(std::uint64_t value, std::span<const std::string_view> names) {
    if (value < names.size() && !names[value].empty()) return std::string(names[value]);
    return std::to_string(value);
}

std::string domid(std::uint64_t value) {
    switch (value) {
        case 0x7ff0: return "DOMID_SELF";
        case 0x7ff1: return "DOMID_IO";
        case 0x7ff2: return "DOMID_XEN";
        case 0x7ff3: return "DOMID_COW";
        case 0x7ff4: return "DOMID_INVALID";
        default: return std::to_string(value);
    }
}

std::string space(std::uint64_t value) {
    constexpr std::string_view kNames[] = {"shared_info", "grant_table",  "gmfn",
                                           "gmfn_range",  "gmfn_foreign", "dev_mmio"};
    // XenServer's old drivers know these.
    if (value == 0x80000000) return "0x80000000 (vlapic)";
    if (value == 0x80000001) return "0x80000001 (physical)";
    return value < std::size(kNames) ? "XENMAPSPACE_" + std::string(kNames[value]) : hex(value);
}

std::string param(std::uint64_t index) {
    constexpr std::string_view kNames[] = {
        "CALLBACK_IRQ",
        "STORE_PFN",
        "STORE_EVTCHN",
        "",
        "PAE_ENABLED",
        "IOREQ_PFN",
        "BUFIOREQ_PFN",
        "NX_ENABLED",
        "32BIT",
        "VIRIDIAN",
        "TIMER_MODE",
        "HPET_ENABLED",
        "IDENT_PT",
        "DM_DOMAIN",
        "ACPI_S_STATE",
        "VM86_TSS",
        "VPT_ALIGN",
        "CONSOLE_PFN",
        "CONSOLE_EVTCHN",
        "ACPI_IOPORTS_LOCATION",
        "MEMORY_EVENT_CR0",
        "MEMORY_EVENT_CR3",
        "MEMORY_EVENT_CR4",
        "MEMORY_EVENT_INT3",
        "NESTEDHVM",
        "MEMORY_EVENT_SINGLE_STEP",
        "BUFIOREQ_EVTCHN",
        "PAGING_RING_PFN",
        "MONITOR_RING_PFN",
        "SHARING_RING_PFN",
        "MEMORY_EVENT_MSR",
        "TRIPLE_FAULT_REASON",
        "IOREQ_SERVER_PFN",
        "NR_IOREQ_SERVER_PAGES",
        "VM_GENERATION_ID_ADDR",
        "ALTP2M",
        "X87_FIP_WIDTH",
        "VM86_TSS_SIZED",
        "MCA_CAP",
    };
    if (index >= std::size(kNames) || kNames[index].empty()) return std::to_string(index);
    return std::to_string(index) + " (" + std::string(kNames[index]) + ")";
}

constexpr std::string_view kReasons[] = {"SHUTDOWN_poweroff", "SHUTDOWN_reboot",
                                         "SHUTDOWN_suspend",  "SHUTDOWN_crash",
                                         "SHUTDOWN_watchdog", "SHUTDOWN_soft_reset"};
constexpr std::string_view kVirqs[] = {"VIRQ_TIMER", "VIRQ_DEBUG"};

std::string text_of(std::span<const std::byte> bytes) {
    std::string text = "\"";
    for (const std::byte b : bytes) {
        const auto c = static_cast<char>(b);
        if (c == '\0') return text + "\"";
        // A guest's bytes: nothing that a terminal would obey.
        if (c < ' ' || c > '~' || c == '"' || c == '\\') {
            constexpr char kDigits[] = "0123456789abcdef";
            text += {'\\', 'x', kDigits[std::to_integer<unsigned>(b) >> 4],
                     kDigits[std::to_integer<unsigned>(b) & 0xf]};
        } else {
            text += c;
        }
    }
    return text + "\"...";
}

std::string hex_bytes(std::span<const std::byte> bytes) {
    constexpr char kDigits[] = "0123456789abcdef";
    std::string text;
    for (const std::byte b : bytes) {
        text += kDigits[std::to_integer<unsigned>(b) >> 4];
        text += kDigits[std::to_integer<unsigned>(b) & 0xf];
    }
    return text;
}

std::string value_of(Format format, std::span<const std::byte> bytes, Style style) {
    if (format == Format::kText) return text_of(bytes);
    if (format == Format::kBytes) return style == Style::kStable ? "*" : hex_bytes(bytes);
    std::uint64_t value = 0;
    std::memcpy(&value, bytes.data(), std::min(bytes.size(), sizeof value));
    switch (format) {
        case Format::kHex: return hex(value);
        case Format::kAddress: return address(value, style);
        case Format::kPlace: return style == Style::kStable ? "*" : hex(value);
        case Format::kTime:
            return style == Style::kStable && value != 0 ? "*" : std::to_string(value);
        case Format::kDomid: return domid(value);
        case Format::kSpace: return space(value);
        case Format::kParam: return param(value);
        case Format::kReason: return one_of(value, kReasons);
        case Format::kVirq: return one_of(value, kVirqs);
        case Format::kSigned: {
            const auto unused = 64 - 8 * static_cast<unsigned>(bytes.size());
            return std::to_string(static_cast<std::int64_t>(value << unused) >> unused);
        }
        default: return std::to_string(value);
    }
}

// ---- structures ---------------------------------------------------------------------------------

// The value as it was read; "read->written" where the handler changed it; "->written" where it was
// not read. Empty: nothing of it was kept.
std::string member(const Field& field, Width width, std::span<const std::byte> in,
                   std::span<const std::byte> out, Style style) {
    const std::size_t at = field.place.at(width), bytes = field.place.bytes(width);
    const bool read = in.size() >= at + bytes;
    const bool written = out.size() >= at + bytes;
    std::string text;
    if (read) text = value_of(field.format, in.subspan(at, bytes), style);
    if (written) {
        std::string after = value_of(field.format, out.subspan(at, bytes), style);
        if (!read || after != text) text += "->" + std::move(after);
    }
    return text;
}

std::string structure_text(const Structure& structure, Width width, std::span<const std::byte> in,
                           std::span<const std::byte> out, Style style) {
    std::string text;
    for (const Field& field : structure.fields) {
        const std::string value = member(field, width, in, out, style);
        if (value.empty()) continue;
        if (!text.empty()) text += ", ";
        if (!field.name.empty()) text += std::string(field.name) + "=";
        text += value;
    }
    return "{" + text + "}";
}

std::span<const std::byte> part(std::span<const std::byte> bytes, std::size_t at,
                                std::size_t count) {
    if (at >= bytes.size()) return {};
    return bytes.subspan(at, std::min(count, bytes.size() - at));
}

// What the pointer in argument `i` points to, or the pointer where nothing of that was kept.
std::string pointed(const Event& call, std::size_t i, const Structure* structure, Style style) {
    const std::uint64_t pointer = call.request.args[i];
    if (structure == nullptr || (call.in.empty() && call.out.empty())) {
        return address(pointer, style);
    }
    const Width width = call.request.width;
    if (!structure->array) return structure_text(*structure, width, call.in, call.out, style);
    const std::size_t bytes = structure->sizes.bytes(width);
    const auto count = static_cast<std::uint32_t>(call.request.args[2]);
    std::string text;
    std::size_t shown = 0;
    while (shown < count && (shown + 1) * bytes <= std::max(call.in.size(), call.out.size())) {
        if (shown != 0) text += ", ";
        text += structure_text(*structure, width, part(call.in, shown * bytes, bytes),
                               part(call.out, shown * bytes, bytes), style);
        ++shown;
    }
    if (count == 1 && shown == 1) return text;
    if (shown < count) text += shown == 0 ? "..." : ", ...";
    return "[" + text + "]";
}

std::string multicall_text(const Profile& profile, const Event& call, Style style) {
    const auto count = static_cast<std::uint32_t>(call.request.args[1]);
    std::string text;
    std::uint32_t shown = 0;
    for (; shown < count; ++shown) {
        const auto entry = multicall_entry_of(call, shown);
        if (!entry) break;
        Event inner;
        inner.request = *entry;
        std::string inner_text = to_text(describe(profile, inner, style));
        inner_text.resize(inner_text.rfind(" = "));
        text += (shown == 0 ? "" : ", ") + inner_text;
    }
    if (shown == 0 && count != 0) return address(call.request.args[0], style);
    if (shown < count) text += ", ...";
    return "[" + text + "]";
}

// ---- results ------------------------------------------------------------------------------------

std::string continuation_text(const Profile& profile, const Event& call) {
    const ContinuationRule rule = continuation_rule(profile, call.request);
    Request next = call.request;
    next.args = call.next_args;
    switch (rule.kind) {
        case ContinuationClass::kShiftedCursor:
        case ContinuationClass::kUnshiftedCursor:
            return "continues at " + std::to_string(sub_op_of(profile, next).at.start);
        case ContinuationClass::kPointerAndCount:
            return "continues with " +
                   std::to_string(static_cast<std::uint32_t>(next.args[rule.count_arg])) + " left";
        case ContinuationClass::kOtherSubOp:
            return "continues as " +
                   operation_name(hypercall_number(profile, next), sub_op_of(profile, next));
        default: return "continues";
    }
}

std::string result_text(const Profile& profile, const Event& call, const SubOp& sub_op) {
    switch (call.ending) {
        case Ending::kContinue: return continuation_text(profile, call);
        case Ending::kBlock: return "0, sleeps";
        case Ending::kFinish: break;
    }
    const std::int64_t result = call.result;
    constexpr std::int64_t kMostError = 4095;
    if (result < 0 && result >= -kMostError) return "-" + error_name(-result);
    if (hypercall_number(profile, call.request) == HYPERVISOR_xen_version &&
        sub_op.at.op == XENVER_version && result > 0) {
        const auto version = static_cast<std::uint64_t>(result);
        return hex(version) + " (" + std::to_string(version >> 16) + "." +
               std::to_string(version & 0xffff) + ")";
    }
    return std::to_string(result);
}

}  // namespace

std::string error_name(std::int64_t code) {
    switch (code) {
        case 1: return "EPERM";
        case 2: return "ENOENT";
        case 3: return "ESRCH";
        case 4: return "EINTR";
        case 5: return "EIO";
        case 6: return "ENXIO";
        case 7: return "E2BIG";
        case 8: return "ENOEXEC";
        case 9: return "EBADF";
        case 10: return "ECHILD";
        case 11: return "EAGAIN";
        case 12: return "ENOMEM";
        case 13: return "EACCES";
        case 14: return "EFAULT";
        case 16: return "EBUSY";
        case 17: return "EEXIST";
        case 18: return "EXDEV";
        case 19: return "ENODEV";
        case 22: return "EINVAL";
        case 23: return "ENFILE";
        case 24: return "EMFILE";
        case 28: return "ENOSPC";
        case 33: return "EDOM";
        case 34: return "ERANGE";
        case 35: return "EDEADLK";
        case 38: return "ENOSYS";
        case 61: return "ENODATA";
        case 62: return "ETIME";
        case 74: return "EBADMSG";
        case 75: return "EOVERFLOW";
        case 84: return "EILSEQ";
        case 85: return "ERESTART";
        case 90: return "EMSGSIZE";
        case 95: return "EOPNOTSUPP";
        case 98: return "EADDRINUSE";
        case 99: return "EADDRNOTAVAIL";
        case 105: return "ENOBUFS";
        case 106: return "EISCONN";
        case 107: return "ENOTCONN";
        case 110: return "ETIMEDOUT";
        default: return "error " + std::to_string(code);
    }
}

SubOp sub_op_of(const Profile& profile, const Request& request) {
    const std::uint64_t command = request.args[0];
    switch (hypercall_number(profile, request)) {
        case HYPERVISOR_memory_op: return {true, decode_memory_op(profile, request.width, command)};
        case HYPERVISOR_hvm_op: return {true, decode_hvm_op(profile, command)};
        case HYPERVISOR_grant_table_op: return {true, decode_grant_table_op(profile, command)};
        case HYPERVISOR_xen_version:
        case HYPERVISOR_console_io:
        case HYPERVISOR_vm_assist:
        case HYPERVISOR_vcpu_op:
        case HYPERVISOR_sched_op:
        case HYPERVISOR_event_channel_op:
        case HYPERVISOR_physdev_op: return {true, {.op = command & UINT32_MAX}};  // an int
        default: return {};
    }
}

std::string hypercall_name(std::uint64_t number) {
    const Hypercall* known = find_hypercall(number);
    if (known != nullptr) return std::string(known->name);
    return "hypercall " + (number > UINT16_MAX ? hex(number) : std::to_string(number));
}

std::string operation_name(std::uint64_t number, const SubOp& sub_op) {
    if (!sub_op.any) return hypercall_name(number);
    const Operation* known = find_operation(number, sub_op.at.op);
    if (known != nullptr) return std::string(known->name);
    return hypercall_name(number) + " " +
           (sub_op.at.op > UINT16_MAX ? hex(sub_op.at.op) : std::to_string(sub_op.at.op));
}

std::optional<Request> multicall_entry_of(const Event& call, std::size_t index) {
    const auto read = [&]<class W>(W) -> std::optional<Request> {
        multicall_entry<W> entry;
        if (call.in.size() < (index + 1) * sizeof entry) return std::nullopt;
        std::memcpy(&entry, call.in.data() + index * sizeof entry, sizeof entry);
        Request inner{.number = entry.op, .args = {}, .width = call.request.width};
        std::copy_n(entry.args.begin(), inner.args.size(), inner.args.begin());
        return inner;
    };
    return call.request.width == Width::k64 ? read(W64{}) : read(W32{});
}

Described describe(const Profile& profile, const Event& call, Style style) {
    const std::uint64_t number = hypercall_number(profile, call.request);
    const SubOp sub_op = sub_op_of(profile, call.request);
    const auto& args = call.request.args;
    const auto low = [&](std::size_t i) { return args[i] & UINT32_MAX; };

    Described out;
    out.hypercall = hypercall_name(number);
    out.operation = operation_name(number, sub_op);
    if (sub_op.any) {
        const Operation* known = find_operation(number, sub_op.at.op);
        out.sub_op = known != nullptr            ? std::string(known->name)
                     : sub_op.at.op > UINT16_MAX ? hex(sub_op.at.op)
                                                 : std::to_string(sub_op.at.op);
    }
    const auto add = [&](std::string text, std::string name = {}) {
        out.arguments.push_back({std::move(name), std::move(text)});
    };
    switch (number) {
        case HYPERVISOR_memory_op:
        case HYPERVISOR_hvm_op:
        case HYPERVISOR_xen_version:
        case HYPERVISOR_event_channel_op:
        case HYPERVISOR_physdev_op:
            add(pointed(call, 1, structure_of(number, sub_op.at.op), style));
            break;
        case HYPERVISOR_sched_op:
            if (sub_op.at.op != SCHEDOP_yield && sub_op.at.op != SCHEDOP_block) {
                add(pointed(call, 1, structure_of(number, sub_op.at.op), style));
            }
            break;
        case HYPERVISOR_grant_table_op:
            add(pointed(call, 1, structure_of(number, sub_op.at.op), style));
            add(std::to_string(low(2)));
            break;
        case HYPERVISOR_vcpu_op:
            add(std::to_string(low(1)));
            add(pointed(call, 2, structure_of(number, sub_op.at.op), style));
            break;
        case HYPERVISOR_console_io:
            add(std::to_string(low(1)));
            add(address(args[2], style));
            break;
        case HYPERVISOR_vm_assist: add(std::to_string(low(1))); break;
        case HYPERVISOR_multicall:
            add(multicall_text(profile, call, style));
            add(std::to_string(low(1)));
            break;
        case HYPERVISOR_set_timer_op: {
            const std::uint64_t at =
                call.request.width == Width::k64 ? args[0] : args[1] << 32 | low(0);
            add(style == Style::kStable && at != 0 ? "*" : std::to_string(at));
            break;
        }
        default:
            // Nobody reads these registers; what they hold is the guest's leftovers.
            if (style == Style::kStable) {
                add("...");
            } else {
                for (const std::uint64_t arg : args) {
                    add(hex(arg));
                }
            }
    }
    if (sub_op.at.start != 0) add(std::to_string(sub_op.at.start), "start");
    out.result = result_text(profile, call, sub_op);
    return out;
}

std::string to_text(const Described& call) {
    std::string text = call.hypercall + "(" + call.sub_op;
    bool first = call.sub_op.empty();
    for (const Argument& argument : call.arguments) {
        if (!first) text += ", ";
        first = false;
        if (!argument.name.empty()) text += argument.name + "=";
        text += argument.text;
    }
    return text + ") = " + call.result;
}

}  // namespace xenshim::trace
