#include "tests/bench/pairs.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <time.h>

namespace bench {
namespace {

double read_clock(clockid_t clock) {
    timespec t{};
    ::clock_gettime(clock, &t);
    return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

double percentile(std::vector<double> values, double share) {
    const auto at = static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size() - 1));
    std::nth_element(values.begin(), values.begin() + at, values.end());
    return values[static_cast<std::size_t>(at)];
}

// Figures are believed only if the control is this near to 1, the interval this
// narrow, and the other statistics this near to the median.
constexpr double kControl = 0.015;
constexpr double kWidest = 0.04;
constexpr double kDisagree = 0.05;

}  // namespace

Times now() {
    return {.cpu = read_clock(CLOCK_THREAD_CPUTIME_ID), .wall = read_clock(CLOCK_MONOTONIC)};
}

Times operator-(const Times& later, const Times& earlier) {
    return {.cpu = later.cpu - earlier.cpu, .wall = later.wall - earlier.wall};
}

double median(std::vector<double> values) {
    return percentile(std::move(values), 0.5);
}

double smallest(const std::vector<double>& values) {
    return *std::min_element(values.begin(), values.end());
}

std::vector<double> of(const std::vector<Times>& times, Clock clock) {
    std::vector<double> out;
    for (const Times& t : times) {
        out.push_back(clock == Clock::kCpu ? t.cpu : t.wall);
    }
    return out;
}

Ratio ratio_of(const std::vector<double>& numerator, const std::vector<double>& denominator) {
    constexpr unsigned kResamples = 1000;
    std::vector<double> ratios;
    for (std::size_t i = 0; i < numerator.size(); ++i) {
        ratios.push_back(numerator[i] / denominator[i]);
    }
    std::mt19937 random(1);  // the same figures from the same samples
    std::uniform_int_distribution<std::size_t> any(0, ratios.size() - 1);
    std::vector<double> medians, sample(ratios.size());
    for (unsigned i = 0; i < kResamples; ++i) {
        std::generate(sample.begin(), sample.end(), [&] { return ratios[any(random)]; });
        medians.push_back(median(sample));
    }
    return {.median = median(ratios),
            .low = percentile(medians, 0.025),
            .high = percentile(medians, 0.975),
            .of_p10 = percentile(numerator, 0.1) / percentile(denominator, 0.1),
            .of_min = smallest(numerator) / smallest(denominator)};
}

std::string_view judge(double value, Limit limit) {
    if (value <= limit.goal) return "ok";
    return value <= limit.accept ? "accepted" : "missed";
}

void print(const Comparison& c) {
    const Clock other_clock = c.clock == Clock::kCpu ? Clock::kWall : Clock::kCpu;
    const Ratio r = ratio_of(of(c.numerator, c.clock), of(c.denominator, c.clock));
    const Ratio control = ratio_of(of(c.control.again, c.clock), of(c.control.once, c.clock));
    const Ratio other = ratio_of(of(c.numerator, other_clock), of(c.denominator, other_clock));
    std::printf("%-50s %5.3fx  [%.3f, %.3f]  %s %.3f  p10 %.3f  min %.3f  A/A %.3f", c.name.c_str(),
                r.median, r.low, r.high, other_clock == Clock::kWall ? "wall" : "cpu", other.median,
                r.of_p10, r.of_min, control.median);
    if (c.verdict) {
        std::printf("  goal %.2f accept %.2f  ", c.limit.goal, c.limit.accept);
        if (std::abs(control.median - 1) > kControl) {
            std::printf("inconclusive (control)");
        } else if (r.high - r.low > kWidest) {
            std::printf("inconclusive (interval)");
        } else if (std::abs(r.of_p10 / r.median - 1) > kDisagree ||
                   std::abs(r.of_min / r.median - 1) > kDisagree) {
            std::printf("inconclusive (statistics differ)");
        } else {
            // The unfavourable end counts.
            std::printf("%s", std::string(judge(r.high, c.limit)).c_str());
        }
    }
    std::printf("\n");
    std::fflush(stdout);
}

int exit_status(const char* program, const vmm::Result<void>& done) {
    if (done) return 0;
    std::fprintf(stderr, "%s: %s\n", program, done.error().what.c_str());
    return done.error().fault == vmm::Fault::kHost ? 4 : 1;
}

}  // namespace bench
