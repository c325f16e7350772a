// Prints docs/hypercalls.md: every hypercall and sub-op of the table in xenshim/abi/operations.h,
// what it is under each profile, and which tests name it.
//
//   hypercalls_doc ROOT          prints
//   hypercalls_doc ROOT --check  compares with ROOT/docs/hypercalls.md; 1 when it differs
#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "xenshim/abi/numbers.h"
#include "xenshim/abi/operations.h"

namespace {

namespace fs = std::filesystem;
using namespace xenshim::abi;

constexpr char kIntroduction[] =
    R"(# Hypercalls: what exists, since when, and who tests it

Printed from the table that the dispatcher asks (`xenshim/abi/operations.cc`) by
`build/release/tests/hypercalls_doc . > docs/hypercalls.md`; a test compares. An HVM or PVH guest
that is not a device model is meant throughout.

- **guest**: does its work on the guest itself.
- **refused**: exists, and a guest hears Xen's own refusal: -EPERM mostly; -EOPNOTSUPP of what is not
  for such guests at all (xenpmu_op, and of memory_op machphys_compat_mfn_list and get_vnumainfo);
  -EINVAL of mmuext_op; -ENODEV of tmem_op; -EACCES of acquire_resource and of another interface
  version than 4.17's. A bad pointer or domain is said first where Xen says it first.
- **absent**: -ENOSYS, as on that Xen.

A profile that is not named has the operation as **absent**. An **exception** is where we knowingly
answer otherwise than that Xen, and why. Tests are those whose text names the operation: `tests/unit`
by file (but those of traces and `regs`, which only tell of it), `tests/sweep` and `tests/model` as
`scenario`, `main`, `grants` and `devices`, `guests/conformance` as `guest:` and its file. Beside those,
`existence` asks for each row of this file under each profile at both widths, for its standing alone.

)";

constexpr char kWithoutASlot[] =
    R"(## Numbers without a slot

-ENOSYS under every profile, as to any HVM guest of any Xen; so is each number that is not in this
file. Most are for PV guests. XenServer's iommu_op has a slot there and says the same to all but
domain 0. Tests: existence.

| number | name |
|---|---|
)";

std::string read_file(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
}

bool is_word(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
}

// The identifiers of one source file.
std::set<std::string> words_of(const std::string& text) {
    std::set<std::string> words;
    for (std::size_t at = 0; at < text.size();) {
        if (!is_word(text[at])) {
            ++at;
            continue;
        }
        const std::size_t from = at;
        while (at < text.size() && is_word(text[at]))
            ++at;
        words.insert(text.substr(from, at - from));
    }
    return words;
}

class Tests {
  public:
    explicit Tests(const fs::path& root) {
        collect(root / "tests/unit", "");
        collect(root / "tests/sweep", "");
        collect(root / "tests/model", "");
        collect(root / "guests/conformance", "guest:");
    }
    std::string naming(const std::string& word) const {
        std::string out;
        const auto found = by_word_.find(word);
        if (found == by_word_.end()) return out;
        for (const std::string& name : found->second) {
            out += (out.empty() ? "" : ", ") + name;
        }
        return out;
    }

  private:
    void collect(const fs::path& folder, const std::string& prefix) {
        if (!fs::exists(folder)) return;
        const fs::path trace = folder / "xenshim/trace";
        for (const auto& entry : fs::recursive_directory_iterator(folder)) {
            const std::string extension = entry.path().extension();
            if (extension != ".cc" && extension != ".c" && extension != ".h") continue;
            // A trace and `regs` tell of operations; they do not try them.
            if (entry.path().parent_path() == trace || entry.path().stem() == "describe_test")
                continue;
            std::string name = entry.path().stem();
            if (name.ends_with("_test")) name.resize(name.size() - 5);
            for (const std::string& word : words_of(read_file(entry.path()))) {
                by_word_[word].insert(prefix + name);
            }
        }
    }

    std::map<std::string, std::set<std::string>> by_word_;
};

// "xen-4.6 to xen-4.22": runs of neighbours in the table of profiles with the same standing.
std::string profiles_with(Standing wanted, auto&& standing) {
    const auto all = profiles();
    const auto is_vendor = [](const Profile& p) { return p.name.starts_with("xenserver"); };
    std::string out;
    std::size_t count = 0;
    for (std::size_t i = 0; i < all.size();) {
        if (standing(all[i]) != wanted) {
            ++i;
            continue;
        }
        std::size_t end = i + 1;
        while (end < all.size() && standing(all[end]) == wanted &&
               is_vendor(all[end]) == is_vendor(all[i])) {
            ++end;
        }
        out += (out.empty() ? "" : ", ") + std::string(all[i].name);
        if (end > i + 1) out += " to " + std::string(all[end - 1].name);
        count += end - i;
        i = end;
    }
    return count == all.size() ? "all" : out;
}

std::string status_of(auto&& standing) {
    std::string out;
    const auto add = [&](const char* what, Standing wanted) {
        const std::string where = profiles_with(wanted, standing);
        if (!where.empty()) out += (out.empty() ? "" : "; ") + std::string(what) + ": " + where;
    };
    add("guest", Standing::kGuest);
    add("refused", Standing::kPrivileged);
    return out.empty() ? "absent everywhere" : out;
}

bool has_slot(const Hypercall& call) {
    return std::ranges::any_of(
        profiles(), [&](const Profile& p) { return (p.hypercalls >> call.number & 1) != 0; });
}

std::string word_of(Standing standing) {
    return standing == Standing::kGuest        ? "guest"
           : standing == Standing::kPrivileged ? "refused"
                                               : "absent";
}

std::string document(const Tests& tests) {
    std::ostringstream out;
    out << kIntroduction;
    for (const Hypercall& call : hypercall_names()) {
        if (!has_slot(call)) continue;
        out << "## " << call.number << " " << call.name << "\n\n";
        out << status_of([&](const Profile& p) { return standing_of(p, call); }) << ".";
        if (!call.exception.empty()) out << " Exception: " << call.exception << ".";
        std::string named = tests.naming("HYPERVISOR_" + std::string(call.name));
        // Xen's headers leave the architecture's own ones their numbers for names.
        if (named.empty() && call.number >= HYPERVISOR_arch_1) {
            named = tests.naming("HYPERVISOR_arch_" +
                                 std::to_string(call.number - HYPERVISOR_arch_1 + 1));
        }
        if (!named.empty()) out << " Tests: " << named << ".";
        out << "\n\n";
        bool first = true;
        for (const Operation& op : operations()) {
            if (op.hypercall != call.number) continue;
            if (first) out << "| sub-op | name | status | tests |\n|---|---|---|---|\n";
            first = false;
            // XenServer's have names of ours in the code.
            const std::string word(op.name.substr(0, op.name.find(' ')));
            std::string tested = tests.naming(word);
            if (tested.empty()) tested = tests.naming("HVMOP_" + word);
            if (tested.empty()) tested = tests.naming("XENMEM_private_" + word);
            out << "| " << op.sub_op << " | " << op.name << " | "
                << status_of([&](const Profile& p) { return standing_of(p, op); });
            if (!op.exception.empty()) out << ". Exception: " << op.exception;
            out << " | " << (tested.empty() ? "existence" : tested) << " |\n";
        }
        for (const ToolOperation& op : tool_operations()) {
            if (op.hypercall != call.number) continue;
            if (first) {
                out << "The operation stands in the caller's memory. Each is to a guest what the "
                       "hypercall is, under the same profiles; so is a number that is not here.\n\n"
                       "| sub-op | name | status | tests |\n|---|---|---|---|\n";
            }
            first = false;
            const std::string tested = tests.naming(std::string(op.name));
            out << "| " << op.sub_op << " | " << op.name << " | " << word_of(call.standing) << " | "
                << (tested.empty() ? "existence" : tested) << " |\n";
        }
        if (!first) out << "\n";
    }
    out << kWithoutASlot;
    for (const Hypercall& call : hypercall_names()) {
        if (!has_slot(call)) out << "| " << call.number << " | " << call.name << " |\n";
    }
    return out.str();
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) {
        std::cerr << "hypercalls_doc: which tree?\n";
        return 2;
    }
    const fs::path root = argv[1];
    const std::string text = document(Tests(root));
    if (argc < 3) {
        std::cout << text;
        return 0;
    }
    if (text == read_file(root / "docs/hypercalls.md")) return 0;
    std::cerr << "docs/hypercalls.md is not what the table says: run\n"
                 "  build/release/tests/hypercalls_doc . > docs/hypercalls.md\n";
    return 1;
}
