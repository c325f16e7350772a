// Threads whose making may fail (RLIMIT_NPROC, a cgroup's pids.max), as an error like any other.
// They start with every signal blocked: SIGTERM and its like belong to the control thread.
#pragma once

#include <csignal>
#include <system_error>
#include <thread>
#include <utility>

#include "vmm/base/result.h"

namespace vmm {

template <class Main>
Result<void> make_thread(std::thread& thread, Main&& main) {
    sigset_t all, before;
    sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    Result<void> made;
    try {
        thread = std::thread(std::forward<Main>(main));
    } catch (const std::system_error& error) {
        made = host_error(std::string("a thread: ") + error.what());
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return made;
}

}  // namespace vmm
