#include "vmm/kvm/kvm.h"

#include <array>
#include <cstdlib>
#include <fcntl.h>
#include <future>
#include <thread>

#include <sys/ioctl.h>
#include <sys/mman.h>

#include "vmm/base/thread.h"
#include "vmm/kvm/counted_list.h"
#include "vmm/kvm/linux_kvm.h"

namespace vmm::kvm {
namespace {

long number_of(Cap cap) {
    switch (cap) {
        case Cap::kUserMemory: return KVM_CAP_USER_MEMORY;
        case Cap::kSignalMsi: return KVM_CAP_SIGNAL_MSI;
        case Cap::kSplitIrqchip: return KVM_CAP_SPLIT_IRQCHIP;
        case Cap::kX2apicApi: return KVM_CAP_X2APIC_API;
        case Cap::kXenHvm: return KVM_CAP_XEN_HVM;
        case Cap::kSyncRegs: return KVM_CAP_SYNC_REGS;
        case Cap::kImmediateExit: return KVM_CAP_IMMEDIATE_EXIT;
        case Cap::kUserSpaceMsr: return KVM_CAP_X86_USER_SPACE_MSR;
        case Cap::kMsrFilter: return KVM_CAP_X86_MSR_FILTER;
        case Cap::kBinaryStats: return KVM_CAP_BINARY_STATS_FD;
        case Cap::kMaxVcpus: return KVM_CAP_MAX_VCPUS;
        case Cap::kMaxVcpuId: return KVM_CAP_MAX_VCPU_ID;
        case Cap::kVcpuEvents: return KVM_CAP_VCPU_EVENTS;
    }
    return 0;
}

// Intel needs three pages for a task state segment and one for an identity page table, below
// 4 GiB and away from everything of the guest's. AMD ignores both.
constexpr std::uint64_t kIdentityMapAddr = 0xfeffa000 - 0x10000;
constexpr std::uint64_t kTssAddr = kIdentityMapAddr + 0x1000;

}  // namespace

Result<Kvm> Kvm::open() {
    Fd fd(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
    if (!fd) {
        return host_error(
            std::string("/dev/kvm cannot be opened: ") + std::strerror(errno) +
            "; load the kvm_amd or kvm_intel module and see that you may use the device");
    }
    const int version = ::ioctl(fd.get(), KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION) return host_error("/dev/kvm speaks an unknown API version");
    return Kvm(std::move(fd));
}

int Kvm::check(Cap cap) const {
    const int value = ::ioctl(fd_.get(), KVM_CHECK_EXTENSION, number_of(cap));
    return value < 0 ? 0 : value;
}

namespace {

Result<std::vector<CpuidLeaf>> read_supported_cpuid(int kvm) {
    constexpr unsigned kEntries = 256;
    CountedList<kvm_cpuid_entry2> list(kEntries);
    if (::ioctl(kvm, KVM_GET_SUPPORTED_CPUID, list.data()) != 0) {
        return errno_error("KVM_GET_SUPPORTED_CPUID");
    }
    std::vector<CpuidLeaf> leaves;
    for (std::uint32_t i = 0; i < list.count(); ++i) {
        const kvm_cpuid_entry2 e = list.get(i);
        leaves.push_back({.function = e.function,
                          .index = e.index,
                          .indexed = (e.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) != 0,
                          .eax = e.eax,
                          .ebx = e.ebx,
                          .ecx = e.ecx,
                          .edx = e.edx});
    }
    return leaves;
}

}  // namespace

struct Kvm::Question {
    std::packaged_task<Result<std::vector<CpuidLeaf>>(int kvm)> ask{read_supported_cpuid};
    std::future<Result<std::vector<CpuidLeaf>>> answer = ask.get_future();
    std::thread thread;

    ~Question() {
        if (thread.joinable()) thread.join();
    }
};

Kvm::Kvm(Fd fd) : fd_(std::move(fd)) {}
Kvm::Kvm(Kvm&&) noexcept = default;
Kvm& Kvm::operator=(Kvm&&) noexcept = default;
Kvm::~Kvm() = default;

Result<std::vector<CpuidLeaf>> Kvm::supported_cpuid() const {
    if (supported_cpuid_.empty()) {
        const bool asked = question_ != nullptr && question_->answer.valid();
        supported_cpuid_ = TRY(asked ? question_->answer.get() : read_supported_cpuid(fd_.get()));
    }
    return supported_cpuid_;
}

void Kvm::ask_for_cpuid() {
    if (question_ != nullptr) return;
    auto question = std::make_unique<Question>();
    const auto made =
        make_thread(question->thread, [kvm = fd_.get(), it = question.get()] { it->ask(kvm); });
    // Where there can be no thread, whoever wants the answer asks.
    if (made) question_ = std::move(question);
}

Result<std::unique_ptr<Vm>> Vm::create(const Kvm& kvm) {
    Fd fd(::ioctl(kvm.fd(), KVM_CREATE_VM, 0));
    if (!fd) return errno_error("KVM_CREATE_VM", Fault::kHost);
    auto vm = std::unique_ptr<Vm>(new Vm(std::move(fd)));
    std::uint64_t identity = kIdentityMapAddr;
    if (::ioctl(vm->fd(), KVM_SET_IDENTITY_MAP_ADDR, &identity) != 0) {
        return errno_error("KVM_SET_IDENTITY_MAP_ADDR", Fault::kHost);
    }
    if (::ioctl(vm->fd(), KVM_SET_TSS_ADDR, kTssAddr) != 0) {
        return errno_error("KVM_SET_TSS_ADDR", Fault::kHost);
    }
    // So that a vCPU's saved state says of a triple fault that KVM has not told us of yet.
    // Optional: without it that vCPU meets the fault again.
    kvm_enable_cap triple_fault{};
    triple_fault.cap = KVM_CAP_X86_TRIPLE_FAULT_EVENT;
    triple_fault.args[0] = 1;
    [[maybe_unused]] const int ignored = ::ioctl(vm->fd(), KVM_ENABLE_CAP, &triple_fault);
    return vm;
}

Result<void> Vm::create_split_irqchip(unsigned reserved_gsis) {
    kvm_enable_cap cap{};
    cap.cap = KVM_CAP_SPLIT_IRQCHIP;
    cap.args[0] = reserved_gsis;
    if (::ioctl(fd(), KVM_ENABLE_CAP, &cap) != 0) {
        return errno_error("KVM_CAP_SPLIT_IRQCHIP", Fault::kHost);
    }
    // APIC ids beyond 255 in MSIs and no broadcast by id 255. Optional: few VMs have that many.
    kvm_enable_cap x2apic{};
    x2apic.cap = KVM_CAP_X2APIC_API;
    x2apic.args[0] = KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;
    if (::ioctl(fd(), KVM_ENABLE_CAP, &x2apic) != 0 && errno != EINVAL) {
        return errno_error("KVM_CAP_X2APIC_API");
    }
    return {};
}

Result<void> Vm::set_slot(std::uint32_t slot, Gpa base, std::uint64_t size, const void* host) {
    kvm_userspace_memory_region region{};
    region.slot = slot;
    region.guest_phys_addr = base.value;
    region.memory_size = size;
    region.userspace_addr = reinterpret_cast<std::uintptr_t>(host);  // NOLINT: the kernel's form
    if (::ioctl(fd(), KVM_SET_USER_MEMORY_REGION, &region) != 0) {
        return errno_error("KVM_SET_USER_MEMORY_REGION");
    }
    return {};
}

Result<void> Vm::catch_msrs(std::uint32_t first, std::uint32_t count) {
    kvm_enable_cap cap{};
    cap.cap = KVM_CAP_X86_USER_SPACE_MSR;
    cap.args[0] = KVM_MSR_EXIT_REASON_FILTER;
    if (::ioctl(fd(), KVM_ENABLE_CAP, &cap) != 0) {
        return errno_error("KVM_CAP_X86_USER_SPACE_MSR", Fault::kHost);
    }
    std::vector<std::uint8_t> bits((count + 7) / 8, 0);  // 0: to user space
    kvm_msr_filter filter{};
    filter.flags = KVM_MSR_FILTER_DEFAULT_ALLOW;
    filter.ranges[0].flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE;
    filter.ranges[0].nmsrs = count;
    filter.ranges[0].base = first;
    filter.ranges[0].bitmap = bits.data();
    if (::ioctl(fd(), KVM_X86_SET_MSR_FILTER, &filter) != 0) {
        return errno_error("KVM_X86_SET_MSR_FILTER", Fault::kHost);
    }
    return {};
}

Result<void> Vm::enable_xen(std::uint32_t msr) {
    kvm_xen_hvm_config config{};
    config.flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL;
    config.msr = msr;
    if (::ioctl(fd(), KVM_XEN_HVM_CONFIG, &config) != 0) {
        return errno_error("KVM_XEN_HVM_CONFIG", Fault::kHost);
    }
    return {};
}

namespace {

// KVM_XEN_INVALID_GFN of newer headers: takes the page away.
constexpr std::uint64_t kInvalidGfn = ~std::uint64_t{0};

Result<void> set_xen_attr(int fd, kvm_xen_hvm_attr& attr, const char* what) {
    if (::ioctl(fd, KVM_XEN_HVM_SET_ATTR, &attr) != 0) return errno_error(what);
    return {};
}

}  // namespace

Result<void> Vm::set_xen_long_mode(bool long_mode) {
    kvm_xen_hvm_attr attr{};
    attr.type = KVM_XEN_ATTR_TYPE_LONG_MODE;
    attr.u.long_mode = long_mode ? 1 : 0;
    return set_xen_attr(fd(), attr, "KVM_XEN_ATTR_TYPE_LONG_MODE");
}

Result<void> Vm::set_xen_runstate_update_flag(bool on) {
    constexpr std::uint16_t kRunstateUpdateFlag = 5;  // Linux 6.2; Debian 12's headers end before
    kvm_xen_hvm_attr attr{};
    attr.type = kRunstateUpdateFlag;
    attr.u.long_mode = on ? 1 : 0;  // a byte at the union's start, as runstate_update_flag is
    return set_xen_attr(fd(), attr, "KVM_XEN_ATTR_TYPE_RUNSTATE_UPDATE_FLAG");
}

Result<void> Vm::set_xen_shared_info_gfn(std::optional<std::uint64_t> gfn) {
    kvm_xen_hvm_attr attr{};
    attr.type = KVM_XEN_ATTR_TYPE_SHARED_INFO;
    attr.u.shared_info.gfn = gfn.value_or(kInvalidGfn);
    return set_xen_attr(fd(), attr, "KVM_XEN_ATTR_TYPE_SHARED_INFO");
}

Result<void> Vm::set_xen_callback_vector(std::uint8_t vector) {
    kvm_xen_hvm_attr attr{};
    attr.type = KVM_XEN_ATTR_TYPE_UPCALL_VECTOR;
    attr.u.vector = vector;
    return set_xen_attr(fd(), attr, "KVM_XEN_ATTR_TYPE_UPCALL_VECTOR");
}

Result<void> Vm::signal_msi(std::uint64_t address, std::uint32_t data) {
    kvm_msi msi{};
    msi.address_lo = static_cast<std::uint32_t>(address);
    msi.address_hi = static_cast<std::uint32_t>(address >> 32);
    msi.data = data;
    if (::ioctl(fd(), KVM_SIGNAL_MSI, &msi) < 0) return errno_error("KVM_SIGNAL_MSI");
    return {};
}

Result<void> Vm::set_msi_routes(std::span<const MsiRoute> routes) {
    CountedList<kvm_irq_routing_entry> table(routes.size());
    for (std::size_t i = 0; i < routes.size(); ++i) {
        kvm_irq_routing_entry entry{};
        entry.gsi = routes[i].gsi;
        entry.type = KVM_IRQ_ROUTING_MSI;
        entry.u.msi.address_lo = static_cast<std::uint32_t>(routes[i].address);
        entry.u.msi.address_hi = static_cast<std::uint32_t>(routes[i].address >> 32);
        entry.u.msi.data = routes[i].data;
        table.set(i, entry);
    }
    if (::ioctl(fd(), KVM_SET_GSI_ROUTING, table.data()) != 0) {
        return errno_error("KVM_SET_GSI_ROUTING");
    }
    return {};
}

Result<std::uint64_t> Vm::clock_ns() const {
    kvm_clock_data clock{};
    if (::ioctl(fd(), KVM_GET_CLOCK, &clock) != 0) return errno_error("KVM_GET_CLOCK");
    return clock.clock;
}

Result<void> Vm::set_clock_ns(std::uint64_t ns) {
    kvm_clock_data clock{};
    clock.clock = ns;
    if (::ioctl(fd(), KVM_SET_CLOCK, &clock) != 0) return errno_error("KVM_SET_CLOCK");
    return {};
}

}  // namespace vmm::kvm
