// Small helpers for messages: what an operator typed is shown on one line, whatever it holds.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace vmm::config {

// 'text', with control characters escaped and the middle of a long text left out.
std::string in_quotes(std::string_view text);

// The one of `known` that `word` is probably a slip of, or empty when none is close.
std::string_view did_you_mean(std::string_view word, std::span<const std::string_view> known);

// "; did you mean 'kernel'?", or nothing.
std::string hint(std::string_view word, std::span<const std::string_view> known);

// "a, b or c"
std::string one_of(std::span<const std::string_view> words);

}  // namespace vmm::config
