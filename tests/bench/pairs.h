// Paired measurements on a noisy machine: numerator and denominator alternate in short blocks, the
// figure is the median of the blocks' ratios with a bootstrap interval, and an A/A control (the
// denominator against itself) says whether the run is to be believed.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/base/result.h"

namespace bench {

// What a block took, in ns: the thread's CPU time and the wall's.
struct Times {
    double cpu = 0;
    double wall = 0;
};

// Since some fixed moment.
Times now();
Times operator-(const Times& later, const Times& earlier);

struct Ratio {
    double median = 0;
    double low = 0, high = 0;  // 95 % bootstrap interval of the median
    double of_p10 = 0;         // of the tenth percentiles
    double of_min = 0;
};

Ratio ratio_of(const std::vector<double>& numerator, const std::vector<double>& denominator);
double median(std::vector<double> values);
double smallest(const std::vector<double>& values);

struct Limit {
    double goal;
    double accept;
};

enum class Clock { kCpu, kWall };

// The same thing measured twice in each round.
struct Control {
    const std::vector<Times>& once;
    const std::vector<Times>& again;
};

// One line: the ratio, its interval, both clocks, the control, and what that means. Without
// verdicts (a smoke test) the line ends before them.
struct Comparison {
    std::string name;
    const std::vector<Times>& numerator;
    const std::vector<Times>& denominator;
    Control control;
    Limit limit;
    Clock clock = Clock::kCpu;
    bool verdict = true;
};
void print(const Comparison& comparison);

// "ok" (the goal is met), "accepted" or "missed".
std::string_view judge(double value, Limit limit);

std::vector<double> of(const std::vector<Times>& times, Clock clock);

// What `program` ends with, which says why when it was not done: 4 is the host's fault.
int exit_status(const char* program, const vmm::Result<void>& done);

}  // namespace bench
