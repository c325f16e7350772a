// Our own words to the operator: one line per event, on stderr or in --log-file, subsystem first.
// Guest output never goes through here; guest-triggerable lines go through log_guest(), which is
// rate-limited so that a guest cannot fill the operator's disk.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "vmm/base/result.h"

namespace vmm {

enum class LogLevel { kError, kWarn, kInfo, kDebug, kTrace };

std::optional<LogLevel> parse_log_level(std::string_view name);
void set_log_level(LogLevel level);
bool log_enabled(LogLevel level);
// Sends further lines to `path` (appended) instead of stderr.
Result<void> set_log_file(const std::string& path);

[[gnu::format(printf, 2, 3)]] void log_error(const char* subsystem, const char* format, ...);
[[gnu::format(printf, 2, 3)]] void log_warn(const char* subsystem, const char* format, ...);
[[gnu::format(printf, 2, 3)]] void log_info(const char* subsystem, const char* format, ...);
[[gnu::format(printf, 2, 3)]] void log_debug(const char* subsystem, const char* format, ...);
// At most ten lines a second in all, then one that says how many were dropped. Level: warn.
[[gnu::format(printf, 2, 3)]] void log_guest(const char* subsystem, const char* format, ...);

}  // namespace vmm
