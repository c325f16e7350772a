// `xenolith check`: what this host's KVM offers, what is lost without it, and the remedy.
#include <cstdio>
#include <string>

#include <sys/utsname.h>

#include "vmm/cli/commands.h"
#include "vmm/kvm/kvm.h"

namespace vmm::cli {

using config::ExitStatus;

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

}  // namespace

ExitStatus check(const config::Args& args) {
    constexpr config::Command kSelf{"check", "say what this host can do", check};
    const auto text = config::parse_plain(kSelf, args);
    if (!text) return report(text.error());
    if (!text->empty()) {
        std::fputs(text->c_str(), stdout);
        return ExitStatus::kPoweroff;
    }
    utsname host{};
    if (::uname(&host) == 0) std::printf("kernel: %s %s\n", host.sysname, host.release);
    const auto kvm = kvm::Kvm::open();
    if (!kvm) {
        std::printf("/dev/kvm: missing\n");
        return report(kvm.error());
    }
    std::printf("/dev/kvm: usable\n");
    bool usable = true;
    for (const Row& row : kRows) {
        const int value = kvm->check(row.cap);
        if (value >= row.at_least) {
            std::printf("%-28s yes (%#x)\n", row.name, static_cast<unsigned>(value));
            continue;
        }
        std::printf("%-28s no%s\n    lost:   %s\n    remedy: %s\n", row.name,
                    row.need == Need::kRequired ? ", required" : "", row.lost, row.remedy);
        usable = usable && row.need != Need::kRequired;
    }
    std::printf("vCPUs: %d recommended at most %d\n", kvm->check(kvm::Cap::kMaxVcpus),
                kvm->check(kvm::Cap::kMaxVcpuId));
    const auto xen = static_cast<std::uint32_t>(kvm->check(kvm::Cap::kXenHvm));
    std::printf("transport: %s\n", !usable ? "none: this host cannot run guests"
                                   : (xen & kvm::kXenInterceptHypercall) != 0
                                       ? "kvm-xen (portable on request)"
                                       : "portable");
    return usable ? ExitStatus::kPoweroff : ExitStatus::kHostCannot;
}

}  // namespace vmm::cli
