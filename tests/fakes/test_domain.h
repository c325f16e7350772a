// A domain on a FakePorts with a vCPU that makes hypercalls, for tests at both widths. Structures
// are put into the guest's memory in the caller's layout and read back from it.
#pragma once

#include <atomic>
#include <cstring>
#include <memory>
#include <ostream>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/fakes/fake_access.h"
#include "tests/fakes/fake_ports.h"
#include "xenshim/abi/continuation.h"
#include "xenshim/abi/numbers.h"
#include "xenshim/abi/structs.h"
#include "xenshim/domain/domain.h"
#include "xenshim/hypercall/dispatcher.h"

namespace xenshim::abi {

// For GoogleTest's messages.
inline void PrintTo(const Reply& reply, std::ostream* out) {
    if (const auto* finish = std::get_if<Finish>(&reply)) {
        *out << "Finish{" << finish->result << "}";
    } else if (const auto* again = std::get_if<Reissue>(&reply)) {
        *out << "Reissue{" << again->number << std::hex;
        for (const auto arg : again->args) {
            *out << ", 0x" << arg;
        }
        *out << std::dec << "}";
    } else {
        const auto deadline = std::get<Block>(reply).deadline_ns;
        *out << "Block{" << (deadline ? std::to_string(*deadline) : "for ever") << "}";
    }
}

}  // namespace xenshim::abi

namespace xenshim::fakes {

using abi::Width;

class TestDomain {
  public:
    static constexpr std::uint16_t kDomid = 2;
    static constexpr std::uint64_t kScratch = 0x100000;      // where put() puts
    static constexpr std::uint64_t kUnmapped = 0x6000'0000;  // linear and without translation
    static constexpr std::uint64_t kHoleGfn = 0x7fff0;
    static constexpr std::uint64_t kRamGfn = 0x7000;  // a page of RAM that put() never uses

    struct Options {
        unsigned vcpus = 2;
        PreemptPolicy preempt{};
        std::uint32_t max_event_port = 1023;
        unsigned caller = 0;
        const abi::Profile* profile = abi::find_profile(abi::kDefaultProfile);
        QuirkMode quirks = QuirkMode::kAuto;
        bool device_model = false;
        bool interrupt_controllers = true;
        // A machine that outlives the domain; null: one of its own.
        FakePorts* ports = nullptr;
    };
    explicit TestDomain(Width width) : TestDomain(width, Options()) {}
    TestDomain(Width width, Options options)
        : own_ports_(options.ports == nullptr ? std::make_unique<FakePorts>() : nullptr),
          ports(options.ports == nullptr ? *own_ports_ : *options.ports),
          access(ports.memory),
          domain(ports, ports.memory, config_of(options)),
          // A clock that stands still: a busy machine stops no call that a test did not stop.
          preemption(requests, options.preempt, [] { return std::uint64_t{1}; }),
          caller(options.caller),
          width_(width) {
        access.unmapped.insert(kUnmapped >> vmm::kPageShift);
    }

  private:
    const std::unique_ptr<FakePorts> own_ports_;

  public:
    FakePorts& ports;
    FakeAccess access;
    Domain domain;
    std::atomic<std::uint32_t> requests{0};
    Preemption preemption;
    unsigned caller;
    unsigned cpl = 0;

    Width width() const { return width_; }
    bool wide() const { return width_ == Width::k64; }
    unsigned word_bytes() const { return wide() ? 8 : 4; }
    static vmm::Gva unmapped() { return {kUnmapped}; }
    static vmm::Gva null() { return {0}; }

    // ---- guest memory ---------------------------------------------------------------------------
    vmm::Gva reserve(std::uint64_t bytes, std::uint64_t align = 64) {
        next_ = (next_ + align - 1) / align * align;
        const vmm::Gva at{next_};
        next_ += bytes;
        return at;
    }
    template <class T>
    void poke(vmm::Gva at, const T& value) {
        const bool done =
            ports.memory.write(vmm::Gpa{at.value}, std::as_bytes(std::span(&value, 1)));
        ASSERT_TRUE(done) << "no guest memory at " << at.value;
    }
    template <class T>
    T get(vmm::Gva at) {
        T value{};
        EXPECT_TRUE(
            ports.memory.read(vmm::Gpa{at.value}, std::as_writable_bytes(std::span(&value, 1))));
        return value;
    }
    template <class T>
    vmm::Gva put(const T& value) {
        const vmm::Gva at = reserve(sizeof value);
        poke(at, value);
        return at;
    }
    template <template <class> class S>
    vmm::Gva put_wide(const S<abi::W64>& value) {
        const vmm::Gva at = reserve(wide() ? sizeof(S<abi::W64>) : sizeof(S<abi::W32>));
        poke_wide<S>(at, value);
        return at;
    }
    template <template <class> class S>
    void poke_wide(vmm::Gva at, const S<abi::W64>& value) {
        if (wide()) {
            poke(at, abi::bytes_of(value));  // nothing of ours between the members
        } else {
            poke(at, abi::bytes_of(abi::narrow<S>(value)));
        }
    }
    template <template <class> class S>
    S<abi::W64> get_wide(vmm::Gva at) {
        if (wide()) return get<S<abi::W64>>(at);
        return abi::widen<S>(get<S<abi::W32>>(at));
    }
    // An array of the caller's words.
    vmm::Gva put_words(const std::vector<std::uint64_t>& words) {
        const vmm::Gva at = reserve(std::max<std::size_t>(words.size(), 1) * word_bytes());
        for (std::size_t i = 0; i < words.size(); ++i) {
            if (wide()) {
                poke(at + i * 8, words[i]);
            } else {
                poke(at + i * 4, static_cast<std::uint32_t>(words[i]));
            }
        }
        return at;
    }
    std::uint64_t get_word(vmm::Gva array, std::size_t index) {
        if (wide()) return get<std::uint64_t>(array + index * 8);
        return get<std::uint32_t>(array + index * 4);
    }
    std::vector<std::byte> bytes(vmm::Gva at, std::size_t size) {
        std::vector<std::byte> out(size);
        EXPECT_TRUE(ports.memory.read(vmm::Gpa{at.value}, out));
        return out;
    }

    // ---- hypercalls -----------------------------------------------------------------------------
    // What the caller's registers hold; at 32 bits cut as a transport cuts them.
    abi::Request request(std::uint64_t number, std::array<std::uint64_t, 5> args) const {
        abi::Request r{.number = number, .args = args, .width = width_, .cpl = cpl};
        if (!wide()) {
            r.number &= UINT32_MAX;
            for (auto& arg : r.args) {
                arg &= UINT32_MAX;
            }
        }
        return r;
    }
    abi::Reply enter(const abi::Request& r) {
        return run_hypercall(domain, access, preemption, caller, r);
    }
    // Unused arguments hold what no handler may look at.
    abi::Reply call(std::uint64_t number, std::uint64_t a0 = kNoise, std::uint64_t a1 = kNoise,
                    std::uint64_t a2 = kNoise, std::uint64_t a3 = kNoise,
                    std::uint64_t a4 = kNoise) {
        return enter(request(number, {a0, a1, a2, a3, a4}));
    }
    // The result of a call that must finish at once.
    std::int64_t result(std::uint64_t number, std::uint64_t a0 = kNoise, std::uint64_t a1 = kNoise,
                        std::uint64_t a2 = kNoise) {
        return result_of(call(number, a0, a1, a2));
    }
    static std::int64_t result_of(const abi::Reply& reply) {
        const auto* finish = std::get_if<abi::Finish>(&reply);
        EXPECT_NE(finish, nullptr) << testing::PrintToString(reply);
        return finish != nullptr ? finish->result : INT64_MIN;
    }
    struct Run {
        std::int64_t result = INT64_MIN;
        std::vector<abi::Reissue> stops;
    };
    // Goes on, as the guest does, until the call is finished; `at_stop` looks at each stop.
    template <class AtStop>
    Run run(const abi::Request& first, AtStop&& at_stop) {
        Run out;
        abi::Request r = first;
        for (unsigned entries = 0; entries < 100'000; ++entries) {
            const abi::Reply reply = enter(r);
            if (const auto* again = std::get_if<abi::Reissue>(&reply)) {
                out.stops.push_back(*again);
                at_stop(*again);
                r.number = again->number;
                r.args = again->args;
                continue;
            }
            out.result = result_of(reply);
            return out;
        }
        ADD_FAILURE() << "a call that never ends";
        return out;
    }
    Run run(const abi::Request& first) {
        return run(first, [](const abi::Reissue&) {});
    }

    static constexpr std::uint64_t kNoise = 0x5a5a'5a5a'5a5a'5a5a;

  private:
    static DomainConfig config_of(const Options& options) {
        DomainConfig config;
        config.profile = options.profile;
        config.quirks = options.quirks;
        config.device_model = options.device_model;
        config.interrupt_controllers = options.interrupt_controllers;
        config.domid = kDomid;
        config.vcpus = options.vcpus;
        config.max_event_port = options.max_event_port;
        for (std::size_t i = 0; i < config.uuid.size(); ++i) {
            config.uuid[i] = static_cast<std::uint8_t>(0x52 + i);
        }
        // As measured, in this order.
        config.memory_map = {{0, FakePorts::kRamPages * vmm::kPageSize, 1},
                             {0xfeff8000, 0x8000, 2},
                             {0xfc008000, 0x40, 3},
                             {0xfc000000, 0x1000, 3},
                             {0xfc001000, 0x7000, 3}};
        config.memory = {.current = 0x8011, .maximum = 0x8100, .highest_gfn = 0xfefff};
        return config;
    }

    const Width width_;
    std::uint64_t next_ = kScratch;
};

// Tests at both widths derive from this one: `guest` is there, `fresh()` makes another.
class BothWidths : public testing::TestWithParam<Width> {
  protected:
    BothWidths() : guest(GetParam()) {}
    static std::unique_ptr<TestDomain> fresh(TestDomain::Options options) {
        return std::make_unique<TestDomain>(GetParam(), options);
    }
    static std::unique_ptr<TestDomain> fresh() { return fresh(TestDomain::Options()); }
    TestDomain guest;
};

inline std::string width_name(const testing::TestParamInfo<Width>& info) {
    return info.param == Width::k64 ? "W64" : "W32";
}

#define XENOLITH_BOTH_WIDTHS(Suite)                                                               \
    INSTANTIATE_TEST_SUITE_P(, Suite,                                                             \
                             testing::Values(xenshim::abi::Width::k32, xenshim::abi::Width::k64), \
                             xenshim::fakes::width_name)

}  // namespace xenshim::fakes
