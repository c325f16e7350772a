// `xenolith check`: what this host's KVM offers, what is lost without it, and the remedy.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include <sys/utsname.h>

#include "control/json.h"
#include "vmm/cli/commands.h"
#include "vmm/cli/guest_cpu.h"
#include "vmm/kvm/kvm.h"

namespace vmm::cli {

using config::ExitStatus;
using nlohmann::ordered_json;

namespace {

enum class Need { kRequired, kOptional };

struct Row {
    kvm::Cap cap;
    int at_least;
    const char* name;
    Need need;
    const char* lost;
    const char* remedy;
};

constexpr const char* kNewerKernel = "run a newer kernel";

constexpr Row kRows[] = {
    {kvm::Cap::kUserMemory, 1, "KVM_CAP_USER_MEMORY", Need::kRequired, "guest memory",
     kNewerKernel},
    {kvm::Cap::kSplitIrqchip, 1, "KVM_CAP_SPLIT_IRQCHIP", Need::kRequired,
     "local APICs in the kernel beside our own PIC and IOAPIC", kNewerKernel},
    {kvm::Cap::kSignalMsi, 1, "KVM_CAP_SIGNAL_MSI", Need::kRequired, "per-vCPU upcall vectors",
     kNewerKernel},
    {kvm::Cap::kSyncRegs, 3, "KVM_CAP_SYNC_REGS", Need::kRequired,
     "registers without an ioctl per hypercall", kNewerKernel},
    {kvm::Cap::kImmediateExit, 1, "KVM_CAP_IMMEDIATE_EXIT", Need::kRequired,
     "kicking a vCPU without losing kicks", kNewerKernel},
    {kvm::Cap::kUserSpaceMsr, 1, "KVM_CAP_X86_USER_SPACE_MSR", Need::kRequired,
     "the hypercall page's MSR", kNewerKernel},
    {kvm::Cap::kMsrFilter, 1, "KVM_CAP_X86_MSR_FILTER", Need::kRequired, "the hypercall page's MSR",
     kNewerKernel},
    {kvm::Cap::kVcpuEvents, 1, "KVM_CAP_VCPU_EVENTS", Need::kRequired, "upcalls by callback vector",
     kNewerKernel},
    {kvm::Cap::kXenHvm, 1, "KVM_CAP_XEN_HVM", Need::kOptional,
     "the kvm-xen transport: inline VMCALL/VMMCALL of guests other than Linux kernels that we load "
     "ourselves, hypercalls from ring 3 (there: #GP)",
     "run a kernel with CONFIG_KVM_XEN; on Debian 12: linux-image-6.12-amd64"},
    {kvm::Cap::kX2apicApi, 1, "KVM_CAP_X2APIC_API", Need::kOptional, "guests of over 127 vCPUs",
     kNewerKernel},
    {kvm::Cap::kBinaryStats, 1, "KVM_CAP_BINARY_STATS_FD", Need::kOptional,
     "noticing a guest whose inline hypercalls cannot be caught", kNewerKernel},
};

// What was found, before anybody is told.
struct Found {
    struct Capability {
        const Row* row = nullptr;
        int value = 0;
        bool there() const { return value >= row->at_least; }
    };
    std::string kernel;  // empty: it does not say
    std::vector<Capability> capabilities;
    int vcpus_recommended = 0, vcpus_most = 0;
    bool xen = false;  // KVM hands us hypercalls by the CPU's own instruction

    bool usable() const {
        return std::ranges::all_of(capabilities, [](const Capability& c) {
            return c.there() || c.row->need != Need::kRequired;
        });
    }
};

std::string kernel() {
    utsname host{};
    return ::uname(&host) == 0 ? std::string(host.sysname) + " " + host.release : std::string();
}

Found look(const kvm::Kvm& kvm) {
    Found found{.kernel = kernel(), .capabilities = {}};
    for (const Row& row : kRows) {
        found.capabilities.push_back({&row, kvm.check(row.cap)});
    }
    found.vcpus_recommended = kvm.check(kvm::Cap::kMaxVcpus);
    found.vcpus_most = kvm.check(kvm::Cap::kMaxVcpuId);
    const auto xen = static_cast<std::uint32_t>(kvm.check(kvm::Cap::kXenHvm));
    found.xen = (xen & kvm::kXenInterceptHypercall) != 0;
    return found;
}

void print(const Found& found) {
    if (!found.kernel.empty()) std::printf("kernel: %s\n", found.kernel.c_str());
    std::printf("/dev/kvm: usable\n");
    for (const auto& capability : found.capabilities) {
        const Row& row = *capability.row;
        if (capability.there()) {
            std::printf("%-28s yes (%#x)\n", row.name, static_cast<unsigned>(capability.value));
            continue;
        }
        std::printf("%-28s no%s\n    lost:   %s\n    remedy: %s\n", row.name,
                    row.need == Need::kRequired ? ", required" : "", row.lost, row.remedy);
    }
    std::printf("vCPUs: %d recommended at most %d\n", found.vcpus_recommended, found.vcpus_most);
    std::printf("transport: %s\n", !found.usable() ? "none: this host cannot run guests"
                                   : found.xen     ? "kvm-xen (portable on request)"
                                                   : "portable");
}

void print(const ordered_json& json) {
    std::printf("%s\n", control::to_text(json).c_str());
}

ordered_json to_json(const Found& found) {
    ordered_json out = {{"kernel", found.kernel}, {"kvm", true}, {"usable", found.usable()}};
    out["transports"] = ordered_json::array();  // the one that is taken by itself comes first
    if (found.usable() && found.xen) out["transports"].push_back("kvm-xen");
    if (found.usable()) out["transports"].push_back("portable");
    out["vcpus"] = {{"recommended", found.vcpus_recommended}, {"most", found.vcpus_most}};
    out["capabilities"] = ordered_json::array();
    for (const auto& capability : found.capabilities) {
        const Row& row = *capability.row;
        ordered_json one = {{"name", row.name},
                            {"there", capability.there()},
                            {"required", row.need == Need::kRequired},
                            {"value", capability.value}};
        if (!capability.there()) {
            one["lost"] = row.lost;
            one["remedy"] = row.remedy;
        }
        out["capabilities"].push_back(std::move(one));
    }
    return out;
}

// What this host's CPUs can do for a guest, or what those of the files all can.
Result<kvm::CpuModel> cpu_of(const std::vector<std::string>& files) {
    if (files.empty()) return host_cpu(TRY(kvm::Kvm::open()));
    kvm::CpuModel common = TRY(read_cpu(files.front()));
    for (const std::string& file : files) {
        if (const auto some = common.intersect(TRY(read_cpu(file))); !some) {
            return user_error(files.front() + " and " + file + ": " + some.error());
        }
    }
    return common;
}

Result<void> print_cpu(const config::CheckRequest& request) {
    const kvm::CpuModel cpu = TRY(cpu_of(request.files));
    if (!request.json) {
        std::fputs(cpu.to_text().c_str(), stdout);
        return {};
    }
    print(ordered_json{{"vendor", cpu.vendor()},
                       {"physical_bits", cpu.physical_bits()},
                       {"linear_bits", cpu.linear_bits()},
                       {"features", cpu.features()},
                       {"xsave", cpu.xsave()}});
    return {};
}

}  // namespace

ExitStatus check(const config::Args& args) {
    const auto request = config::parse_check(args);
    if (!request) return report(request.error());
    if (!request->help.empty()) {
        std::fputs(request->help.c_str(), stdout);
        return ExitStatus::kPoweroff;
    }
    if (request->cpu) {
        const auto printed = print_cpu(*request);
        return printed ? ExitStatus::kPoweroff : report(printed.error());
    }
    const auto kvm = kvm::Kvm::open();
    if (!kvm) {
        if (request->json) {
            print(ordered_json{{"kernel", kernel()},
                               {"kvm", false},
                               {"usable", false},
                               {"why", kvm.error().what}});
        } else {
            const std::string name = kernel();
            if (!name.empty()) std::printf("kernel: %s\n", name.c_str());
            std::printf("/dev/kvm: missing\n");
        }
        return report(kvm.error());
    }
    const Found found = look(*kvm);
    if (request->json) {
        print(to_json(found));
    } else {
        print(found);
    }
    return found.usable() ? ExitStatus::kPoweroff : ExitStatus::kHostCannot;
}

}  // namespace vmm::cli
