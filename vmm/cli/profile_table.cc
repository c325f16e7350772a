#include "vmm/cli/profile_table.h"

#include <array>
#include <nlohmann/json.hpp>
#include <vector>

#include "control/json.h"
#include "xenshim/abi/operations.h"
#include "xenshim/abi/profile.h"

namespace vmm::cli {

namespace abi = xenshim::abi;

namespace {

std::string_view text_of(abi::Ground ground) {
    switch (ground) {
        case abi::Ground::kMeasured: return "measured";
        case abi::Ground::kSource: return "source";
        case abi::Ground::kInferred: return "inferred";
    }
    return "";
}

std::string_view text_of(abi::HvmOpMask mask) {
    switch (mask) {
        case abi::HvmOpMask::kNone: return "none";
        case abi::HvmOpMask::kEvery: return "0xff, all";
        case abi::HvmOpMask::kMemoryOps: return "0xff, 7+8";
    }
    return "";
}

std::string_view text_of(abi::Progress progress) {
    switch (progress) {
        case abi::Progress::kNone: return "-";
        case abi::Progress::kStruct: return "struct";
        case abi::Progress::kRegister: return "cursor";
    }
    return "";
}

std::string stray(const abi::Profile& p) {
    if (!p.memory_op_stray_bits) return "ignored";
    return *p.memory_op_stray_bits == xenshim::XEN_ENOSYS ? "-ENOSYS" : "-EINVAL";
}

using Row = std::vector<std::string>;

Row row_of(const abi::Profile& p) {
    std::string memory = "shift " + std::to_string(p.memory_op_shift);
    if (p.memory_op_moves_handle) memory += " + handle";
    return {std::string(p.name) + (p.name == abi::kDefaultProfile ? " *" : ""),
            std::to_string(p.major) + "." + std::to_string(p.minor) + std::string(p.extraversion),
            memory,
            p.memory_op_wide_command ? "ulong" : "int",
            stray(p),
            std::string(text_of(p.physmap_range)),
            std::string(text_of(p.hvm_op_mask)),
            p.grant_batches_continue ? "continue" : "max 512",
            p.evtchn_reset_continues ? "as 14" : "plain",
            p.multicall_continues_inside ? "inside" : "-",
            p.legacy_windows ? "yes" : "-",
            std::string(text_of(p.ground))};
}

// ---- JSON. Words are the table's; what is a mask is text, as in all our JSON.

using nlohmann::ordered_json;

std::string hex(std::uint64_t value) {
    std::array<char, 24> text{};
    std::snprintf(text.data(), text.size(), "0x%llx", static_cast<unsigned long long>(value));
    return text.data();
}

// "-" in the table.
ordered_json word_or_null(abi::Progress progress) {
    if (progress == abi::Progress::kNone) return nullptr;
    return text_of(progress);
}

std::string_view word_of(abi::HvmOpMask mask) {
    switch (mask) {
        case abi::HvmOpMask::kNone: return "none";
        case abi::HvmOpMask::kEvery: return "every";
        case abi::HvmOpMask::kMemoryOps: return "modified_memory, set_mem_type";
    }
    return "";
}

ordered_json hypercalls_of(const abi::Profile& p) {
    ordered_json names = ordered_json::array();
    for (const abi::Hypercall& call : abi::hypercall_names()) {
        if ((p.hypercalls >> call.number & 1) != 0) names.push_back(call.name);
    }
    return names;
}

ordered_json to_json(const abi::Profile& p) {
    ordered_json out;
    out["name"] = p.name;
    out["default"] = p.name == abi::kDefaultProfile;
    out["known_from"] = text_of(p.ground);
    out["behaves_as"] =
        std::to_string(p.behaves_as >> 8) + "." + std::to_string(p.behaves_as & 0xff);
    out["version"] = {{"major", p.major},
                      {"minor", p.minor},
                      {"extra", p.extraversion},
                      {"capabilities", p.capabilities},
                      {"features", hex(p.features)},
                      {"virt_start", hex(p.virt_start)}};
    out["cpuid"] = {{"leaves", p.cpuid_max_leaf}, {"hvm_flags", hex(p.cpuid_hvm_flags)}};
    out["entry"] = {{"hypercalls", hypercalls_of(p)},
                    {"number_bits", p.wide_numbers ? 64 : 32},
                    {"refused_rings", p.only_ring3_refused ? "3" : "1 to 3"}};
    out["memory_op"] = {{"shift", p.memory_op_shift},
                        {"moves_handle", p.memory_op_moves_handle},
                        {"max_extents", hex(p.memory_op_max_extents)},
                        {"command", p.memory_op_wide_command ? "ulong" : "int"},
                        {"stray_bits", stray(p)},
                        {"range", word_or_null(p.physmap_range)},
                        {"acquire_resource_continues", p.acquire_resource_continues},
                        {"xenserver_ops", p.private_memory_ops}};
    out["grant_table_op"] = {{"batches_continue", p.grant_batches_continue},
                             {"op_bits", p.grant_op_bits},
                             {"frames", p.grant_frames}};
    out["hvm_op"] = {{"mask", word_of(p.hvm_op_mask)},
                     {"memory_progress", word_or_null(p.hvm_memory_progress)},
                     {"device_ops", p.hvm_device_ops},
                     {"params", p.hvm_params},
                     {"hides_console", p.hides_console},
                     {"xenserver_ops", p.legacy_windows}};
    out["evtchn_reset_continues"] = p.evtchn_reset_continues;
    out["multicall_continues_inside"] = p.multicall_continues_inside;
    return out;
}

}  // namespace

std::string profiles_json() {
    ordered_json all = ordered_json::array();
    for (const abi::Profile& p : abi::profiles()) {
        all.push_back(to_json(p));
    }
    return control::to_text(all) + "\n";
}

std::string profile_table() {
    std::vector<Row> rows = {{"profile", "says it is", "memory_op", "command", "stray bits",
                              "range", "hvm_op mask", "grants", "reset", "multicall", "0x102/3",
                              "known from"}};
    for (const abi::Profile& p : abi::profiles()) {
        rows.push_back(row_of(p));
    }
    std::vector<std::size_t> widths(rows.front().size());
    for (const Row& row : rows) {
        for (std::size_t i = 0; i < row.size(); ++i) {
            widths[i] = std::max(widths[i], row[i].size());
        }
    }
    std::string out;
    for (const Row& row : rows) {
        std::string line;
        for (std::size_t i = 0; i < row.size(); ++i) {
            line += row[i];
            if (i + 1 < row.size()) line.append(widths[i] - row[i].size() + 2, ' ');
        }
        out += line + "\n";
    }
    return out;
}

}  // namespace vmm::cli
