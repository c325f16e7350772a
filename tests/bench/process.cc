#include "tests/bench/process.h"

#include <signal.h>
#include <unistd.h>

#include <sys/wait.h>

extern char** environ;

namespace bench {

double cpu_ns(const rusage& usage) {
    const auto ns = [](const timeval& t) {
        return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_usec) * 1e3;
    };
    return ns(usage.ru_utime) + ns(usage.ru_stime);
}

vmm::Result<Process> Process::spawn(std::vector<std::string> argv, int output) {
    std::vector<char*> args;
    for (auto& a : argv) {
        args.push_back(a.data());
    }
    args.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    if (output >= 0) ::posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    pid_t pid = -1;
    const int error = ::posix_spawnp(&pid, args[0], &actions, nullptr, args.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    if (error != 0) return vmm::errno_error(argv[0], vmm::Fault::kUser, error);
    return Process(pid);
}

double Process::wait() {
    rusage usage{};
    ::wait4(pid_, nullptr, 0, &usage);
    return cpu_ns(usage);
}

int Process::wait_status() {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void Process::terminate() {
    ::kill(pid_, SIGTERM);
}

}  // namespace bench
