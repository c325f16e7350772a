// The programs that a benchmark runs.
#pragma once

#include <spawn.h>
#include <string>
#include <vector>

#include <sys/resource.h>
#include <sys/types.h>

#include "vmm/base/result.h"

namespace bench {

double cpu_ns(const rusage& usage);

class Process {
  public:
    // `output` becomes its stdout; stdin and stderr stay ours.
    static vmm::Result<Process> spawn(std::vector<std::string> argv, int output);

    pid_t pid() const { return pid_; }
    // Waits for its end; the CPU time that all of it took.
    double wait();
    // As wait(), and its exit status; -1: a signal ended it.
    int wait_status();
    void terminate();

  private:
    explicit Process(pid_t pid) : pid_(pid) {}
    pid_t pid_;
};

}  // namespace bench
