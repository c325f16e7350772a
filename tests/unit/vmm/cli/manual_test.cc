// docs/xenolith.1 and the code say the same: each option, key and exit status stands in both.
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "vmm/cli/config/options.h"
#include "vmm/cli/config/xlcfg.h"

namespace vmm::config {
namespace {

constexpr std::string_view kProfiles[] = {"xen-4.17"};

std::string text_of(const char* path) {
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
}

std::string manual() {
    return text_of(XENOLITH_MANUAL);
}

// The first word after `start` of each line that starts so.
std::set<std::string> words_after(const std::string& text, std::string_view start) {
    std::set<std::string> words;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        if (!line.starts_with(start)) continue;
        std::istringstream rest(line.substr(start.size()));
        std::string word;
        rest >> word;
        words.insert(word);
    }
    return words;
}

std::set<std::string> long_options(const std::string& help) {
    std::set<std::string> options;
    std::istringstream lines(help);
    for (std::string line; std::getline(lines, line);) {
        // "  -h [ --help ]  ..." or "  --name NAME  ...": descriptions never start a line.
        const std::size_t at = line.find("--");
        if (!line.starts_with("  -") || at == std::string::npos) continue;
        options.insert(line.substr(at + 2, line.find_first_of(" ]", at) - at - 2));
    }
    return options;
}

// main.cc's table is the program's; its names are read from there.
std::set<std::string> commands() {
    std::set<std::string> names;
    std::istringstream lines(text_of(XENOLITH_COMMANDS));
    for (std::string line; std::getline(lines, line);) {
        constexpr std::string_view kRow = "    {\"";
        if (!line.starts_with(kRow)) continue;
        names.insert(line.substr(kRow.size(), line.find('"', kRow.size()) - kRow.size()));
    }
    return names;
}

TEST(Manual, HasEveryCommandAndNoOther) {
    EXPECT_GT(commands().size(), 5u);
    EXPECT_EQ(words_after(manual(), ".It Cm "), commands());
}

TEST(Manual, HasEveryOptionAndNoOther) {
    std::set<std::string> options = long_options(run_help());
    EXPECT_GT(options.size(), 15u);
    options.merge(long_options(program_help({})));
    options.merge(long_options(verb_help("list", "", Takes::kNothing)));
    options.merge(long_options(trace_help()));
    options.merge(long_options(save_help()));
    options.merge(long_options(shutdown_help()));
    options.merge(long_options(restore_help()));
    options.merge(long_options(migrate_help()));
    options.merge(long_options(receive_help()));
    options.merge(long_options(inspect_help()));
    options.merge(long_options(check_help()));
    EXPECT_EQ(words_after(manual(), ".It Fl -"), options);
}

TEST(Manual, HasEveryKeyAndNoOther) {
    std::set<std::string> keys;
    for (const std::string_view key : implemented_xl_keys())
        keys.emplace(key);
    EXPECT_EQ(words_after(manual(), ".It Ic "), keys);
}

TEST(Manual, HasEveryExitStatusAndNoOther) {
    std::set<std::string> statuses;
    for (const auto& row : kExitStatuses)
        statuses.insert(std::to_string(to_int(row.status)));
    EXPECT_EQ(statuses.size(), kExitStatuses.size());
    const std::string text = manual();
    const std::size_t start = text.find(".Sh EXIT STATUS");
    ASSERT_NE(start, std::string::npos);
    const std::string section = text.substr(start, text.find("\n.Sh ", start) - start);
    EXPECT_EQ(words_after(section, ".It "), statuses);
}

}  // namespace
}  // namespace vmm::config
