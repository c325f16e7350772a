// One hypercall as its handler sees it: arguments, the domain, and the caller's memory.
//
// Argument structures are copied in once and judged as values; a 32-bit caller's structure is
// widened, so handlers know the 64-bit shape only. Handlers see no registers and no KVM.
#pragma once

#include <cstring>
#include <optional>
#include <span>
#include <type_traits>

#include "vmm/memory/address.h"
#include "xenshim/abi/call.h"
#include "xenshim/abi/errno.h"
#include "xenshim/abi/numbers.h"
#include "xenshim/abi/structs.h"
#include "xenshim/domain/domain.h"
#include "xenshim/hypercall/preemption.h"

namespace xenshim {

// The caller's linear address space, through its own page tables.
class GuestAccess {
  public:
    virtual ~GuestAccess() = default;
    virtual bool read(vmm::Gva at, std::span<std::byte> to) = 0;
    virtual bool write(vmm::Gva at, std::span<const std::byte> from) = 0;
    // The physical address behind a writable linear one.
    virtual std::optional<vmm::Gpa> translate(vmm::Gva at) = 0;
};

class Call {
  public:
    Call(Domain& domain, GuestAccess& access, Preemption& preemption, unsigned vcpu,
         const abi::Request& request)
        : domain_(domain),
          access_(access),
          preemption_(preemption),
          vcpu_(vcpu),
          request_(request),
          done_before_(preemption.done_before(request)),
          next_unit_(done_before_) {}

    Domain& domain() { return domain_; }
    const abi::Profile& profile() const { return domain_.profile(); }
    unsigned vcpu() const { return vcpu_; }
    const abi::Request& request() const { return request_; }
    bool is_64bit() const { return request_.width == abi::Width::k64; }
    unsigned word_bytes() const { return is_64bit() ? 8 : 4; }
    GuestAccess& access() { return access_; }
    Preemption& preemption() { return preemption_; }
    // Asked before unit `unit` (preemption.h), never before the first of an entry. Counted from
    // where the operation's class counts.
    bool should_yield(std::uint64_t unit) {
        reaches(unit);
        return preemption_.should_yield(next_unit_);
    }
    // It may stop before `unit` for a reason of its own.
    void reaches(std::uint64_t unit) { next_unit_ = done_before_ + unit; }
    // Of the operation, not of this entry.
    std::uint64_t next_unit() const { return next_unit_; }

    // Argument `i` as the callee's C prototype cuts it.
    template <class T = std::uint64_t>
    T arg(unsigned i) const {
        return static_cast<T>(request_.args[i]);
    }
    vmm::Gva handle(unsigned i) const { return {request_.args[i]}; }

    // A structure that is the same at both widths.
    template <class T>
    GuestResult<T> read(vmm::Gva at) {
        static_assert(std::is_trivially_copyable_v<T>);
        T value;
        if (!access_.read(at, std::as_writable_bytes(std::span(&value, 1)))) {
            return refuse(XEN_EFAULT);
        }
        return value;
    }
    template <class T>
    GuestResult<void> write(vmm::Gva at, const T& value) {
        static_assert(vmm::Plain<T>);  // no padding: no host byte leaks out
        return write_bytes(at, std::as_bytes(std::span(&value, 1)));
    }
    GuestResult<void> write_bytes(vmm::Gva at, std::span<const std::byte> bytes) {
        if (!access_.write(at, bytes)) return refuse(XEN_EFAULT);
        return {};
    }
    // A structure whose layout depends on the caller's width.
    template <template <class> class S>
    GuestResult<S<abi::W64>> read_wide(vmm::Gva at) {
        if (is_64bit()) return read<S<abi::W64>>(at);
        const auto narrow = TRY(read<S<abi::W32>>(at));
        return abi::widen<S>(narrow);
    }
    template <template <class> class S>
    GuestResult<void> write_wide(vmm::Gva at, const S<abi::W64>& value) {
        return is_64bit() ? write_bytes(at, abi::bytes_of(value))
                          : write_bytes(at, abi::bytes_of(abi::narrow<S>(value)));
    }
    // Element `index` of an array of the caller's words.
    GuestResult<std::uint64_t> read_word(vmm::Gva array, std::uint64_t index) {
        const vmm::Gva at = element(array, index, word_bytes());
        if (is_64bit()) return read<std::uint64_t>(at);
        const auto word = TRY(read<std::uint32_t>(at));
        return std::uint64_t{word};
    }
    GuestResult<void> write_word(vmm::Gva array, std::uint64_t index, std::uint64_t value) {
        const vmm::Gva at = element(array, index, word_bytes());
        if (is_64bit()) return write(at, value);
        return write(at, static_cast<std::uint32_t>(value));
    }
    // Where element `index` of an array lies; a 32-bit caller's addresses wrap at 4 GiB.
    vmm::Gva element(vmm::Gva array, std::uint64_t index, std::uint64_t bytes) const {
        const std::uint64_t at = array.value + index * bytes;
        return {is_64bit() ? at : at & UINT32_MAX};
    }

    // Reads the argument, lets `work` change it, writes it back. A call that `work` refuses leaves
    // the guest's copy as it was.
    template <class T, class Work>
    abi::Outcome in_out(vmm::Gva at, Work&& work) {
        auto value = read<T>(at);
        if (!value) return fail(value.error());
        const GuestResult<void> done = work(*value);
        if (!done) return fail(done.error());
        const auto back = write(at, *value);
        return back ? ok() : fail(back.error());
    }
    template <class T, class Work>
    abi::Outcome in(vmm::Gva at, Work&& work) {
        auto value = read<T>(at);
        if (!value) return fail(value.error());
        const GuestResult<void> done = work(*value);
        return done ? ok() : fail(done.error());
    }

    // The domains that a guest can name: itself; domain 0, which refuses with `for_dom0`; all
    // others do not exist.
    GuestResult<void> require_self(std::uint16_t domid, Errno for_dom0) const {
        if (domain_.is_self(domid)) return {};
        return refuse(domid == 0 ? for_dom0 : XEN_ESRCH);
    }

    static abi::Outcome ok(std::int64_t result = 0) { return abi::Done{result}; }
    static abi::Outcome fail(Errno code) { return abi::Done{-std::int64_t{code}}; }
    static abi::Outcome result(const GuestResult<void>& from) {
        return from ? ok() : fail(from.error());
    }

  private:
    Domain& domain_;
    GuestAccess& access_;
    Preemption& preemption_;
    unsigned vcpu_;
    const abi::Request& request_;
    std::uint64_t done_before_;
    std::uint64_t next_unit_;
};

}  // namespace xenshim
