#include "vmm/cli/guest_cpu.h"

#include <cerrno>
#include <fstream>
#include <iterator>
#include <vector>

#include "xenshim/abi/profile.h"
#include "xenshim/transport/cpuid_leaves.h"

namespace vmm::cli {
namespace {

// Nobody writes more than that, and /dev/zero has no end.
constexpr std::size_t kMostText = std::size_t{1} << 16;

std::string list_of(const std::vector<std::string>& names) {
    std::string text;
    for (const std::string& name : names) {
        text += (text.empty() ? "" : ", ") + name;
    }
    return text;
}

// What a new guest's vCPU would be told. What is not the CPU's, its profile say, does not count.
Result<kvm::CpuidState> told_here(const kvm::Kvm& kvm) {
    const auto supported = TRY(kvm.supported_cpuid());
    return kvm::CpuidState::of(xenshim::guest_cpuid(
        supported, {.profile = xenshim::abi::find_profile(xenshim::abi::kDefaultProfile)}));
}

}  // namespace

Result<kvm::CpuModel> read_cpu(const std::string& file) {
    errno = 0;
    std::ifstream in(file, std::ios::binary);
    std::string text(kMostText + 1, '\0');
    in.read(text.data(), static_cast<std::streamsize>(text.size()));
    if (in.bad() || (in.gcount() == 0 && errno != 0)) return errno_error(file, Fault::kUser);
    if (!in.eof()) return user_error(file + ": too long for a description of a CPU");
    text.resize(static_cast<std::size_t>(in.gcount()));
    auto cpu = kvm::CpuModel::parse(text);
    if (!cpu) return user_error(file + ": " + cpu.error());
    return *std::move(cpu);
}

Result<kvm::CpuModel> host_cpu(const kvm::Kvm& kvm) {
    return kvm::CpuModel::of(TRY(told_here(kvm)));
}

Result<void> check_cpu(const kvm::Kvm& kvm, const std::string& file, const kvm::CpuModel& cpu) {
    const auto missing = cpu.missing_from(TRY(host_cpu(kvm)));
    if (missing.empty()) return {};
    return user_error("--cpu " + file + ": this host lacks " + list_of(missing));
}

Result<void> check_cpus(const kvm::Kvm& kvm, const SavedVm& saved) {
    const kvm::CpuidState here = TRY(told_here(kvm));
    for (const auto& record : saved.parts()) {
        if (record.name != kvm::CpuidState::kSection.name) continue;
        const auto told = saved::decode<kvm::CpuidState>(record.payload, record.version);
        if (!told) continue;  // whoever takes the record says what is wrong with it
        const auto missing = kvm::missing_features(*told, here);
        if (missing.empty()) continue;
        return host_error(saved.name() + ": vCPU " + std::to_string(record.instance) +
                          ": this host lacks " + list_of(missing));
    }
    return {};
}

Result<void> check_tsc(const SavedVm& saved, std::uint32_t host_khz) {
    for (const auto& record : saved.parts()) {
        if (record.name != kvm::VcpuState::kSection.name) continue;
        const auto state = saved::decode<kvm::VcpuState>(record.payload, record.version);
        if (!state) continue;  // as above
        const auto good = kvm::check_tsc_khz(state->tsc_khz, host_khz);
        if (good) continue;
        return host_error(saved.name() + ": vCPU " + std::to_string(record.instance) + ": " +
                          good.error().what);
    }
    return {};
}

}  // namespace vmm::cli
