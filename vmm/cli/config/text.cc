#include "vmm/cli/config/text.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <vector>

namespace vmm::config {
namespace {

constexpr std::size_t kLongestShown = 80;
constexpr std::size_t kLongestGuessed = 64;

// Insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b`.
std::size_t distance(std::string_view a, std::string_view b) {
    // Three rows of the usual table: a swap looks back two.
    std::vector<std::size_t> before(b.size() + 1), above(b.size() + 1), row(b.size() + 1);
    for (std::size_t j = 0; j <= b.size(); ++j)
        row[j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
        before.swap(above);
        above.swap(row);
        row[0] = i;
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const std::size_t cost = a[i - 1] == b[j - 1] ? 0 : 1;
            row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + cost});
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                row[j] = std::min(row[j], before[j - 2] + 1);
            }
        }
    }
    return row[b.size()];
}

}  // namespace

std::string in_quotes(std::string_view text) {
    constexpr std::string_view kHex = "0123456789abcdef";
    std::string shown = "'";
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text.size() > kLongestShown && i == kLongestShown / 2) {
            shown += "...";
            i = text.size() - kLongestShown / 2;
        }
        const auto byte = static_cast<unsigned char>(text[i]);
        if (byte >= 0x20 && byte != 0x7f) {
            shown += text[i];
        } else {
            shown += "\\x";
            shown += kHex[byte >> 4];
            shown += kHex[byte & 0xf];
        }
    }
    return shown + "'";
}

std::string_view did_you_mean(std::string_view word, std::span<const std::string_view> known) {
    if (word.size() > kLongestGuessed) return {};
    std::string_view best;
    std::size_t least = word.size() <= 4 ? 2 : 3;  // one slip in a short word, two in a longer one
    for (const std::string_view candidate : known) {
        const std::size_t longer = std::max(word.size(), candidate.size());
        if (longer - std::min(word.size(), candidate.size()) >= least) continue;
        const std::size_t slips = distance(word, candidate);
        if (slips >= least) continue;
        least = slips;
        best = candidate;
    }
    return best;
}

std::string hint(std::string_view word, std::span<const std::string_view> known) {
    const std::string_view guess = did_you_mean(word, known);
    return guess.empty() ? std::string() : "; did you mean " + in_quotes(guess) + "?";
}

std::string one_of(std::span<const std::string_view> words) {
    std::string list;
    for (std::size_t i = 0; i < words.size(); ++i) {
        if (i > 0) list += i + 1 == words.size() ? " or " : ", ";
        list += words[i];
    }
    return list;
}

}  // namespace vmm::config
