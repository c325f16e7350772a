#include "tests/bench/raw_vm.h"

#include <algorithm>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>
#include <vector>

#include <sys/ioctl.h>
#include <sys/mman.h>

#include "vmm/kvm/linux_kvm.h"

namespace bench {

using vmm::errno_error;
using vmm::Fd;
using vmm::Result;

namespace {

constexpr unsigned kCpuidEntries = 256;

struct Cpuid {
    kvm_cpuid2 head{};
    kvm_cpuid_entry2 entries[kCpuidEntries]{};
};

}  // namespace

void write_page_tables(std::byte* memory) {
    const auto put = [&](std::uint64_t at, std::uint64_t value) {
        std::memcpy(memory + at, &value, sizeof value);
    };
    constexpr std::uint64_t kPresentWritableUsed = 0x63;
    for (unsigned level = 0; level < 3; ++level) {
        put(kPageTables + level * 0x1000, (kPageTables + (level + 1) * 0x1000) | 0x23);
    }
    for (std::uint64_t page = 0; page < 512; ++page) {
        put(kPageTables + 0x3000 + page * 8, page * 0x1000 | kPresentWritableUsed);
    }
}

Result<std::unique_ptr<RawVm>> RawVm::create(const Config& config) {
    auto raw = std::unique_ptr<RawVm>(new RawVm());
    raw->kvm_ = Fd(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
    if (!raw->kvm_) return errno_error("/dev/kvm", vmm::Fault::kHost);
    const int kvm = raw->kvm_.get();
    raw->vm_ = Fd(::ioctl(kvm, KVM_CREATE_VM, 0));
    if (!raw->vm_) return errno_error("KVM_CREATE_VM");
    const int vm = raw->vm_.get();

    std::uint64_t identity = 0xfeffc000;
    if (::ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity) != 0 ||
        ::ioctl(vm, KVM_SET_TSS_ADDR, 0xfeffd000) != 0) {
        return errno_error("KVM_SET_TSS_ADDR");
    }
    kvm_enable_cap split{};
    split.cap = KVM_CAP_SPLIT_IRQCHIP;
    if (::ioctl(vm, KVM_ENABLE_CAP, &split) != 0) return errno_error("KVM_CAP_SPLIT_IRQCHIP");
    if (config.xen) {
        kvm_xen_hvm_config xen{};
        xen.flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL;
        xen.msr = 0x40000000;
        if (::ioctl(vm, KVM_XEN_HVM_CONFIG, &xen) != 0) return errno_error("KVM_XEN_HVM_CONFIG");
    }

    const bool own = config.memory_file.empty();
    if (own) {
        raw->memory_fd_ = Fd(::memfd_create("raw-guest", MFD_CLOEXEC));
        if (!raw->memory_fd_ ||
            ::ftruncate(raw->memory_fd_.get(), static_cast<off_t>(config.memory_bytes)) != 0) {
            return errno_error("memfd_create");
        }
    } else {
        raw->memory_fd_ = Fd(::open(config.memory_file.c_str(), O_RDONLY | O_CLOEXEC));
        if (!raw->memory_fd_) return errno_error(config.memory_file);
    }
    void* memory =
        ::mmap(nullptr, config.memory_bytes, PROT_READ | PROT_WRITE,
               (own ? MAP_SHARED : MAP_PRIVATE) | MAP_NORESERVE, raw->memory_fd_.get(), 0);
    if (memory == MAP_FAILED) return errno_error("mapping guest memory");
    raw->memory_ = static_cast<std::byte*>(memory);
    raw->memory_bytes_ = config.memory_bytes;
    kvm_userspace_memory_region region{};
    region.memory_size = config.memory_bytes;
    region.userspace_addr = reinterpret_cast<std::uintptr_t>(memory);  // NOLINT: the kernel's form
    if (::ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) != 0) {
        return errno_error("KVM_SET_USER_MEMORY_REGION");
    }

    raw->vcpu_ = Fd(::ioctl(vm, KVM_CREATE_VCPU, 0));
    if (!raw->vcpu_) return errno_error("KVM_CREATE_VCPU");
    const int run_bytes = ::ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    raw->run_bytes_ = static_cast<std::size_t>(run_bytes);
    void* run =
        ::mmap(nullptr, raw->run_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, raw->vcpu_.get(), 0);
    if (run == MAP_FAILED) return errno_error("mapping kvm_run");
    raw->run_ = static_cast<kvm_run*>(run);
    raw->sync_registers_ = config.sync_registers;
    if (config.sync_registers) raw->run_->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;

    Cpuid cpuid;
    cpuid.head.nent = kCpuidEntries;
    if (::ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid) != 0 ||
        ::ioctl(raw->vcpu_.get(), KVM_SET_CPUID2, &cpuid) != 0) {
        return errno_error("KVM_SET_CPUID2");
    }
    return raw;
}

Result<void> RawVm::set_start() {
    kvm_sregs sregs{};
    if (::ioctl(vcpu_.get(), KVM_GET_SREGS, &sregs) != 0) return errno_error("KVM_GET_SREGS");
    kvm_segment flat{};
    flat.limit = 0xffffffff;
    flat.s = flat.present = flat.g = 1;
    flat.type = 3;
    sregs.ds = sregs.es = sregs.ss = sregs.fs = sregs.gs = flat;
    sregs.cs = flat;
    sregs.cs.type = 11;
    sregs.cs.l = 1;
    sregs.cr0 = 0x80000011;
    sregs.cr3 = kPageTables;
    sregs.cr4 = 0x20;
    sregs.efer = 0x500;
    if (::ioctl(vcpu_.get(), KVM_SET_SREGS, &sregs) != 0) return errno_error("KVM_SET_SREGS");
    kvm_regs regs{};
    regs.rip = kCode;
    regs.rflags = 2;
    if (::ioctl(vcpu_.get(), KVM_SET_REGS, &regs) != 0) return errno_error("KVM_SET_REGS");
    return {};
}

struct RawState {
    kvm_sregs sregs{};
    kvm_regs regs{};
    kvm_debugregs debug{};
    kvm_xcrs xcrs{};
    std::vector<std::byte> xsave;
    kvm_lapic_state lapic{};
    kvm_vcpu_events events{};
    kvm_mp_state activity{};
    std::vector<std::uint64_t> msrs;  // a kvm_msrs with its entries
};

namespace {

kvm_msrs* msrs_of(std::vector<std::uint64_t>& words) {
    return reinterpret_cast<kvm_msrs*>(words.data());  // NOLINT: the kernel's form
}

// Those of KVM's list that can be read, with their values.
Result<std::vector<std::uint64_t>> read_msrs(int kvm, int vcpu) {
    std::uint32_t none[2] = {};
    ::ioctl(kvm, KVM_GET_MSR_INDEX_LIST, none);
    std::vector<std::uint32_t> list(1 + std::size_t{none[0]});
    list[0] = none[0];
    if (::ioctl(kvm, KVM_GET_MSR_INDEX_LIST, list.data()) != 0) {
        return errno_error("KVM_GET_MSR_INDEX_LIST");
    }
    const auto words = [](std::size_t entries) {
        return (sizeof(kvm_msrs) + entries * sizeof(kvm_msr_entry)) / sizeof(std::uint64_t);
    };
    std::vector<std::uint64_t> all(words(none[0])), one(words(1));
    for (std::uint32_t i = 0; i < none[0]; ++i) {
        kvm_msrs* const single = msrs_of(one);
        *single = {};
        single->nmsrs = 1;
        single->entries[0] = {};
        single->entries[0].index = list[1 + i];
        if (::ioctl(vcpu, KVM_GET_MSRS, single) != 1) continue;
        // Some can be read and not written, even with the same value.
        if (::ioctl(vcpu, KVM_SET_MSRS, single) != 1) continue;
        msrs_of(all)->entries[msrs_of(all)->nmsrs++] = single->entries[0];
    }
    all.resize(words(msrs_of(all)->nmsrs));
    return all;
}

}  // namespace

Result<std::shared_ptr<const RawState>> RawVm::read_state() const {
    auto state = std::make_shared<RawState>();
    const int vcpu = vcpu_.get();
    const int large = ::ioctl(kvm_.get(), KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
    state->xsave.resize(std::max<std::size_t>(sizeof(kvm_xsave::region),
                                              large > 0 ? static_cast<std::size_t>(large) : 0));
    if (::ioctl(vcpu, KVM_GET_SREGS, &state->sregs) != 0 ||
        ::ioctl(vcpu, KVM_GET_REGS, &state->regs) != 0 ||
        ::ioctl(vcpu, KVM_GET_DEBUGREGS, &state->debug) != 0 ||
        ::ioctl(vcpu, KVM_GET_XCRS, &state->xcrs) != 0 ||
        ::ioctl(vcpu, large > 0 ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, state->xsave.data()) != 0 ||
        ::ioctl(vcpu, KVM_GET_LAPIC, &state->lapic) != 0 ||
        ::ioctl(vcpu, KVM_GET_VCPU_EVENTS, &state->events) != 0 ||
        ::ioctl(vcpu, KVM_GET_MP_STATE, &state->activity) != 0) {
        return errno_error("reading a vCPU's state");
    }
    state->msrs = TRY(read_msrs(kvm_.get(), vcpu));
    return std::shared_ptr<const RawState>(std::move(state));
}

Result<void> RawVm::set_state(const RawState& state) {
    const int vcpu = vcpu_.get();
    if (::ioctl(vcpu, KVM_SET_SREGS, &state.sregs) != 0 ||
        ::ioctl(vcpu, KVM_SET_REGS, &state.regs) != 0 ||
        ::ioctl(vcpu, KVM_SET_DEBUGREGS, &state.debug) != 0 ||
        ::ioctl(vcpu, KVM_SET_XCRS, &state.xcrs) != 0 ||
        ::ioctl(vcpu, KVM_SET_XSAVE, state.xsave.data()) != 0 ||
        ::ioctl(vcpu, KVM_SET_MSRS, state.msrs.data()) < 0 ||
        ::ioctl(vcpu, KVM_SET_LAPIC, &state.lapic) != 0 ||
        ::ioctl(vcpu, KVM_SET_VCPU_EVENTS, &state.events) != 0 ||
        ::ioctl(vcpu, KVM_SET_MP_STATE, &state.activity) != 0) {
        return errno_error("giving a vCPU its state");
    }
    return {};
}

RawVm::~RawVm() {
    if (run_ != nullptr) ::munmap(run_, run_bytes_);
    if (memory_ != nullptr) ::munmap(memory_, memory_bytes_);
}

bool RawVm::run(unsigned times) {
    if (sync_registers_) {
        for (unsigned i = 0; i < times; ++i) {
            if (::ioctl(vcpu_.get(), KVM_RUN, 0) != 0) return false;
            // As a hypercall's result would be; at the port read it is overwritten.
            run_->s.regs.regs.rax = 0;
            run_->kvm_dirty_regs = KVM_SYNC_X86_REGS;
        }
        return true;
    }
    for (unsigned i = 0; i < times; ++i) {
        if (::ioctl(vcpu_.get(), KVM_RUN, 0) != 0) return false;
    }
    return true;
}

bool RawVm::answer_port_read(std::uint32_t value) {
    if (run_->exit_reason != KVM_EXIT_IO || run_->io.direction != KVM_EXIT_IO_IN) return false;
    // NOLINTNEXTLINE: kvm_run is one mapping with the data at an offset.
    std::memcpy(reinterpret_cast<std::byte*>(run_) + run_->io.data_offset, &value, sizeof value);
    return true;
}

bool RawVm::last_was_trap(bool xen) const {
    if (xen) return run_->exit_reason == KVM_EXIT_XEN;
    return run_->exit_reason == KVM_EXIT_IO && run_->io.direction == KVM_EXIT_IO_OUT;
}

}  // namespace bench
