#include "vmm/cli/profile_table.h"

#include <array>
#include <vector>

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

}  // namespace

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
