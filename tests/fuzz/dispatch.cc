// A guest that means harm: any hypercall with any arguments, structures of any content, at either
// width, under any profile, stopped wherever. It may end up anywhere but outside its own memory,
// and no call may go on for ever or block a vCPU that no poll of its own put to sleep.
#include <atomic>
#include <memory>

#include "tests/fakes/test_domain.h"
#include "tests/fuzz/input.h"
#include "tests/sweep/guest_cpu.h"

namespace xenshim {
namespace {

using fakes::FakePorts;
using fakes::TestDomain;
using xenolith::fuzz::Input;

constexpr unsigned kMostCalls = 24;
constexpr unsigned kMostEntries = 64;  // of one call, then the guest drops it
constexpr std::size_t kMostBytes = 160;
constexpr std::uint64_t kArguments = TestDomain::kScratch;

constexpr std::uint64_t kPointers[] = {
    0,
    kArguments,
    kArguments + 8,
    kArguments + 0x100,
    kArguments + 0xff8,
    TestDomain::kUnmapped - 8,
    TestDomain::kUnmapped,
    0x1000,
    0xffff'fff8,
    0xffff'8000'0000'0000,
    ~std::uint64_t{0},
};
// The hypercalls that guests have, so that few inputs are lost on the rest.
constexpr std::uint64_t kNumbers[] = {12, 20, 32, 34, 13, 24, 29, 17, 33, 21, 15, 18, 41, 7};

std::uint64_t value(Input& in) {
    switch (in.below(6)) {
        case 0: return in.below(64);
        case 1: return kPointers[in.below(std::size(kPointers))];
        case 2: return std::uint64_t{1} << in.below(64);
        case 3: return kArguments + in.take<std::uint16_t>();
        case 4: return in.take<std::uint32_t>();
        default: return in.take<std::uint64_t>();
    }
}

void run(Input in) {
    const auto profiles = abi::profiles();
    const abi::Profile& profile = profiles[in.below(profiles.size())];
    const auto modes = in.take<std::uint8_t>();
    const auto width = (modes & 1) != 0 ? abi::Width::k64 : abi::Width::k32;
    TestDomain::Options options;
    options.profile = &profile;
    options.device_model = (modes & 2) != 0;
    options.quirks = (modes & 4) != 0 ? QuirkMode::kXenServer : QuirkMode::kAuto;
    TestDomain guest(width, options);
    guest.reserve(2 * vmm::kPageSize, vmm::kPageSize);
    guest.ports.pool_pages = 16;

    tests::GuestCpu cpu;
    cpu.width = width;
    cpu.wide_numbers = profile.wide_numbers;
    std::uint64_t noise = 0x9e37'79b9'7f4a'7c15;
    auto random = [&noise] { return noise = noise * 0x5851'f42d'4c95'7f2d + 1; };

    for (unsigned calls = 0; calls < kMostCalls && !in.empty(); ++calls) {
        // What lies in the argument pages.
        const std::uint64_t at = kArguments + in.take<std::uint8_t>() * 8;
        const auto bytes = in.take_bytes(in.below(kMostBytes));
        (void)guest.ports.memory.write(vmm::Gpa{at}, std::as_bytes(bytes));

        std::array<std::uint64_t, 5> args{};
        const std::uint64_t number =
            in.below(8) == 0 ? in.take<std::uint64_t>() : kNumbers[in.below(std::size(kNumbers))];
        args[0] = in.below(3) == 0 ? value(in) : in.below(64);
        args[1] = in.below(3) == 0 ? value(in) : at;
        args[2] = value(in);
        cpu.load(number, args, random);
        const PreemptPolicy policy{.every = static_cast<std::uint32_t>(in.below(4)),
                                   .at = {in.below(8)},
                                   .after_us = 1000};
        Preemption preemption(guest.requests, policy);
        for (unsigned entries = 0; entries < kMostEntries; ++entries) {
            cpu.scramble_upper_halves(random);
            const unsigned vcpu = static_cast<unsigned>(in.below(2));
            const abi::Request request = read_request(cpu);
            const abi::Reply reply =
                run_hypercall(guest.domain, guest.access, preemption, vcpu, request);
            if (std::holds_alternative<abi::Block>(reply)) {
                guest.domain.end_poll(vcpu);
                break;
            }
            const auto* again = std::get_if<abi::Reissue>(&reply);
            if (again == nullptr) break;
            write_reissue(cpu, request.width, *again);
            for (const auto reg : cpu.arg_regs()) {
                FUZZ_CHECK(cpu.in_64bit_code() || cpu.get(reg) <= UINT32_MAX);
            }
        }
        const auto accounts = guest.domain.physmap().accounts();
        FUZZ_CHECK(accounts.current <= accounts.maximum);
        FUZZ_CHECK(guest.ports.pool_used() <= guest.ports.pool_pages);
    }
}

}  // namespace
}  // namespace xenshim

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    xenshim::run(xenolith::fuzz::Input(data, size));
    return 0;
}
