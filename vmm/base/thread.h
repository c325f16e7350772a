// Threads whose making may fail (RLIMIT_NPROC, a cgroup's pids.max), as an error like any other.
#pragma once

#include <system_error>
#include <thread>
#include <utility>

#include "vmm/base/result.h"

namespace vmm {

template <class Main>
Result<void> make_thread(std::thread& thread, Main&& main) try {
    thread = std::thread(std::forward<Main>(main));
    return {};
} catch (const std::system_error& error) {
    return host_error(std::string("a thread: ") + error.what());
}

}  // namespace vmm
