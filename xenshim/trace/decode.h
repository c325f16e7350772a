// A hypercall in Xen's words: the names of operations, members, domains, errors.
#pragma once

#include <string>
#include <vector>

#include "xenshim/trace/reader.h"

namespace xenshim::trace {

enum class Style {
    kFull,
    // Without what differs from run to run of the same guest, or from build to build: times, and
    // addresses that its linker chose.
    kStable,
};

struct Argument {
    std::string name;  // empty: its place says what it is
    std::string text;
};

struct Described {
    std::string hypercall;            // "memory_op"; "hypercall 99" where there is none
    std::string operation;            // "XENMEM_populate_physmap", "set_timer_op", "memory_op 63"
    std::string sub_op;               // the first argument as it is shown; empty: none
    std::vector<Argument> arguments;  // the others
    std::string result;               // "1000", "-ENOSYS", "continues at 341"
};

Described describe(const abi::Profile& profile, const Event& call, Style style);
// "memory_op(XENMEM_populate_physmap, {...}, start=341) = 1000"
std::string to_text(const Described& call);

// A hypercall's sub-op without its cursor, as the profile takes the register apart.
struct SubOp {
    bool any = false;  // false: the hypercall has none
    abi::Command at;
};
SubOp sub_op_of(const abi::Profile& profile, const abi::Request& request);
std::string hypercall_name(std::uint64_t number);
std::string operation_name(std::uint64_t number, const SubOp& sub_op);
std::string error_name(std::int64_t code);  // "EINVAL"; "error 7777"

// Entry `index` of a multicall, if its bytes were kept.
std::optional<abi::Request> multicall_entry_of(const Event& call, std::size_t index);

}  // namespace xenshim::trace
