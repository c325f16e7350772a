#include "vmm/base/log.h"

#include <array>
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <ctime>
#include <fcntl.h>
#include <mutex>
#include <unistd.h>

namespace vmm {
namespace {

std::atomic<LogLevel> g_level{LogLevel::kWarn};
std::atomic<int> g_fd{STDERR_FILENO};

constexpr std::array<std::string_view, 5> kNames = {"error", "warn", "info", "debug", "trace"};

void emit(LogLevel level, const char* subsystem, const char* format, va_list args) {
    std::array<char, 1024> line{};
    int used = std::snprintf(line.data(), line.size(),
                             "xenolith: %s: %s: ", kNames[static_cast<std::size_t>(level)].data(),
                             subsystem);
    if (used < 0) return;
    const auto room = line.size() - static_cast<std::size_t>(used) - 1;
    const int more = std::vsnprintf(line.data() + used, room, format, args);
    if (more < 0) return;
    used += more < static_cast<int>(room) ? more : static_cast<int>(room) - 1;
    line[static_cast<std::size_t>(used++)] = '\n';
    // One write per line keeps lines of several threads whole. A log that cannot be written is
    // not worth stopping a guest for.
    [[maybe_unused]] const auto written =
        ::write(g_fd, line.data(), static_cast<std::size_t>(used));
}

}  // namespace

std::optional<LogLevel> parse_log_level(std::string_view name) {
    for (std::size_t i = 0; i < kNames.size(); ++i) {
        if (kNames[i] == name) return static_cast<LogLevel>(i);
    }
    return std::nullopt;
}

void set_log_level(LogLevel level) {
    g_level = level;
}

bool log_enabled(LogLevel level) {
    return level <= g_level.load(std::memory_order_relaxed);
}

Result<void> set_log_file(const std::string& path) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0) return errno_error("--log-file " + path, Fault::kUser);
    g_fd = fd;  // kept open until the process ends
    return {};
}

#define XENOLITH_LOG_BODY(level)          \
    if (!log_enabled(level)) return;      \
    va_list args;                         \
    va_start(args, format);               \
    emit(level, subsystem, format, args); \
    va_end(args)

void log_error(const char* subsystem, const char* format, ...) {
    XENOLITH_LOG_BODY(LogLevel::kError);
}
void log_warn(const char* subsystem, const char* format, ...) {
    XENOLITH_LOG_BODY(LogLevel::kWarn);
}
void log_info(const char* subsystem, const char* format, ...) {
    XENOLITH_LOG_BODY(LogLevel::kInfo);
}
void log_debug(const char* subsystem, const char* format, ...) {
    XENOLITH_LOG_BODY(LogLevel::kDebug);
}

void log_guest(const char* subsystem, const char* format, ...) {
    constexpr unsigned kPerSecond = 10;
    static std::mutex mutex;
    static std::time_t second = 0;
    static unsigned in_second = 0;
    static unsigned dropped = 0;
    unsigned report = 0;
    {
        const std::scoped_lock lock(mutex);
        const std::time_t now = std::time(nullptr);
        if (now != second) {
            second = now;
            in_second = 0;
            report = std::exchange(dropped, 0);
        }
        if (++in_second > kPerSecond) {
            ++dropped;
            return;
        }
    }
    if (report != 0) log_warn(subsystem, "%u lines about the guest were dropped", report);
    XENOLITH_LOG_BODY(LogLevel::kWarn);
}

}  // namespace vmm
