// What `xenolith trace` prints of a trace file.
#pragma once

#include <cstdio>

#include "xenshim/trace/decode.h"

namespace xenshim::trace {

// One line per call, as strace does; `json`: one object per line.
vmm::Result<void> print_calls(Reader& reader, Style style, bool json, std::FILE* to);
// Sums by operation.
vmm::Result<void> print_sums(Reader& reader, Style style, bool json, std::FILE* to);
// Chrome's trace format, which Perfetto and chrome://tracing open.
vmm::Result<void> print_chrome(Reader& reader, std::FILE* to);
// The compatibility report; answers whether anything differs.
vmm::Result<bool> print_check(Reader& reader, const abi::Profile& there, Style style, bool json,
                              std::FILE* to);

}  // namespace xenshim::trace
