// What a traced vCPU's hypercalls go through: the caller's memory with a note of what was read and
// written of the argument structure. A handler reads each byte once; so does the trace, for it
// keeps what the handler got.
#pragma once

#include "xenshim/hypercall/dispatcher.h"
#include "xenshim/trace/writer.h"

namespace xenshim {

class NotingAccess final : public GuestAccess {
  public:
    NotingAccess(GuestAccess& inner, trace::Captured& captured)
        : inner_(inner), captured_(captured) {}

    bool read(vmm::Gva at, std::span<std::byte> to) override {
        if (!inner_.read(at, to)) return false;
        captured_.note_read(at.value, to);
        return true;
    }
    bool write(vmm::Gva at, std::span<const std::byte> from) override {
        if (!inner_.write(at, from)) return false;
        captured_.note_write(at.value, from);
        return true;
    }
    std::optional<vmm::Gpa> translate(vmm::Gva at) override { return inner_.translate(at); }

  private:
    GuestAccess& inner_;
    trace::Captured& captured_;
};

// run_hypercall(), recorded.
inline abi::Reply run_recorded(trace::Recorder& recorder, Domain& domain, GuestAccess& access,
                               Preemption& preemption, unsigned vcpu, const abi::Request& request) {
    const std::uint64_t began = trace::Recorder::ticks();
    recorder.captured.begin(domain.profile(), request);
    NotingAccess noting(access, recorder.captured);
    const abi::Reply reply = run_hypercall(domain, noting, preemption, vcpu, request);
    recorder.record(request, reply, began, trace::Recorder::ticks());
    return reply;
}

}  // namespace xenshim
