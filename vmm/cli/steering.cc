#include "vmm/cli/steering.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "control/json.h"
#include "xenshim/transport/describe.h"

namespace vmm::cli {
namespace {

using control::refusal;
using control::Response;
using nlohmann::ordered_json;

std::string utc_now() {
    const std::time_t now = std::time(nullptr);
    std::tm parts{};
    ::gmtime_r(&now, &parts);
    std::array<char, 32> text{};
    std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
    return text.data();
}

Response answer_of(const ordered_json& value) {
    return {.status = 200, .body = control::to_text(value)};
}

// Text, because JSON's numbers end at 2^53 with most readers.
std::string hex(std::uint64_t value) {
    std::array<char, 24> text{};
    std::snprintf(text.data(), text.size(), "0x%llx", static_cast<unsigned long long>(value));
    return text.data();
}

ordered_json to_json(const kvm::SegmentRegister& segment) {
    return {{"selector", hex(segment.selector)},
            {"base", hex(segment.state.base)},
            {"limit", hex(segment.state.limit)},
            {"attributes", hex(segment.state.attributes)}};
}

ordered_json to_json(const kvm::TableRegister& table) {
    return {{"base", hex(table.base)}, {"limit", hex(table.limit)}};
}

std::string_view state_name(kvm::MpState state) {
    switch (state) {
        case kvm::MpState::kRunnable: return "runnable";
        case kvm::MpState::kUninitialized: return "down";
        case kvm::MpState::kInitReceived: return "init-received";
        case kvm::MpState::kHalted: return "halted";
        case kvm::MpState::kSipiReceived: return "sipi-received";
        case kvm::MpState::kOther: break;
    }
    return "other";
}

std::string_view mode_name(const kvm::Registers& r) {
    constexpr std::uint64_t kCr0Pe = 1, kCr0Pg = std::uint64_t{1} << 31, kCr4Pae = 1u << 5;
    constexpr std::uint64_t kEferLma = 1u << 10, kFlagsVm = 1u << 17;
    constexpr unsigned kCodeLong = 1u << 9;
    if ((r.efer & kEferLma) != 0) {
        return (r.cs.state.attributes & kCodeLong) != 0 ? "64-bit" : "compatibility";
    }
    if ((r.cr0 & kCr0Pe) == 0) return "real";
    if ((r.rflags & kFlagsVm) != 0) return "virtual-8086";
    if ((r.cr0 & kCr0Pg) == 0) return "protected";
    return (r.cr4 & kCr4Pae) != 0 ? "protected-pae" : "protected-paged";
}

ordered_json to_json(const xenshim::PendingHypercall& pending,
                     const xenshim::abi::Profile& profile) {
    const auto words = xenshim::describe_hypercall(profile, pending.request, pending.read);
    ordered_json call = {{"instruction", pending.instruction},
                         {"profile", profile.name},
                         {"width", pending.request.width == xenshim::abi::Width::k64 ? 64 : 32},
                         {"number", words.number},
                         {"name", words.name}};
    if (!words.operation.empty()) call["operation"] = words.operation;
    for (const std::uint64_t arg : pending.request.args) {
        call["args"].push_back(hex(arg));
    }
    if (words.done) call["done"] = *words.done;
    if (words.left) call["left"] = *words.left;
    return call;
}

constexpr std::array<const char*, 16> kGeneral = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp",
                                                  "rsi", "rdi", "r8",  "r9",  "r10", "r11",
                                                  "r12", "r13", "r14", "r15"};

Result<ordered_json> vcpu_to_json(Machine& machine, unsigned index,
                                  const xenshim::abi::Profile& profile) {
    kvm::Vcpu& vcpu = machine.vcpu(index).vcpu();
    const kvm::Registers r = TRY(vcpu.registers());
    ordered_json out;
    out["vcpu"] = index;
    out["state"] = state_name(vcpu.mp_state());
    out["mode"] = mode_name(r);
    out["cpl"] = vcpu.cpl();
    out["rip"] = hex(r.rip);
    out["rflags"] = hex(r.rflags);
    for (std::size_t i = 0; i < kGeneral.size(); ++i) {
        out[kGeneral[i]] = hex(r.gpr[i]);
    }
    out["cr0"] = hex(r.cr0);
    out["cr2"] = hex(r.cr2);
    out["cr3"] = hex(r.cr3);
    out["cr4"] = hex(r.cr4);
    out["cr8"] = hex(r.cr8);
    out["efer"] = hex(r.efer);
    out["apic_base"] = hex(r.apic_base);
    out["cs"] = to_json(r.cs);
    out["ss"] = to_json(r.ss);
    out["ds"] = to_json(r.ds);
    out["es"] = to_json(r.es);
    out["fs"] = to_json(r.fs);
    out["gs"] = to_json(r.gs);
    out["tr"] = to_json(r.tr);
    out["ldt"] = to_json(r.ldt);
    out["gdt"] = to_json(r.gdt);
    out["idt"] = to_json(r.idt);
    if (const auto pending = xenshim::pending_hypercall(machine.memory().guest(), vcpu, r)) {
        out["hypercall"] = to_json(*pending, profile);
    }
    return out;
}

// No request takes anything yet: the body is empty or an object without members.
bool is_without_parameters(const std::string& body) {
    if (body.empty()) return true;
    const auto value = ordered_json::parse(body, nullptr, false);
    return value.is_object() && value.empty();
}

}  // namespace

const Steering::Route Steering::kRoutes[] = {
    {"GET", "/v1/vm", &Steering::show},
    {"GET", "/v1/vm/regs", &Steering::registers},
    {"PUT", "/v1/vm/pause", &Steering::pause},
    {"PUT", "/v1/vm/unpause", &Steering::unpause},
    {"PUT", "/v1/vm/destroy", &Steering::destroy},
};

Steering::Steering(Machine& machine, xenshim::XenPlatform& platform, VmFacts facts)
    : machine_(machine), platform_(platform), facts_(std::move(facts)), started_(utc_now()) {}

void Steering::serve(ControlPoint& point) {
    while (auto call = point.take()) {
        point.answer(call->ticket, respond(call->request));
    }
}

Response Steering::respond(const control::Request& request) {
    std::string allow;
    for (const Route& route : kRoutes) {
        if (route.target != request.target) continue;
        if (route.method != request.method) {
            allow += (allow.empty() ? "" : ", ") + std::string(route.method);
            continue;
        }
        if (!is_without_parameters(request.body)) {
            return refusal(400, request.target + " takes no parameters");
        }
        return (this->*route.act)();
    }
    if (allow.empty()) return refusal(404, "there is no " + request.target);
    Response response = refusal(405, request.target + " is not for " + request.method);
    response.allow = allow;
    return response;
}

Response Steering::show() {
    return answer_of({{"name", facts_.name},
                      {"uuid", facts_.uuid},
                      {"domid", facts_.domid},
                      {"state", destroyed_          ? "ending"
                                : machine_.paused() ? "paused"
                                                    : "running"},
                      {"type", facts_.type},
                      {"profile", facts_.profile},
                      {"transport", facts_.transport},
                      {"vcpus", facts_.vcpus},
                      {"memory", facts_.memory_bytes},
                      {"pid", ::getpid()},
                      {"started", started_}});
}

void Steering::stop_guest() {
    stopped_at_ns_ = machine_.system_time_ns();
    machine_.pause();
}

void Steering::let_guest_go() {
    if (stopped_at_ns_) {
        platform_.domain().delay_watchdogs(machine_.system_time_ns() - *stopped_at_ns_);
    }
    stopped_at_ns_.reset();
    machine_.resume();
}

Response Steering::pause() {
    if (!machine_.paused()) stop_guest();
    if (machine_.stopping()) return refusal(409, "the guest has ended");
    return show();
}

Response Steering::unpause() {
    if (machine_.stopping()) return refusal(409, "the guest has ended");
    if (machine_.paused()) let_guest_go();
    return show();
}

Response Steering::destroy() {
    destroyed_ = true;
    machine_.stop({.kind = StopCause::Kind::kRequested});
    return show();
}

Response Steering::registers() {
    const bool was_paused = machine_.paused();
    if (!was_paused) stop_guest();
    Response response;
    if (machine_.stopping()) {
        response = refusal(409, "the guest has ended");
    } else {
        ordered_json all = {{"name", facts_.name},
                            {"state", was_paused ? "paused" : "running"},
                            {"profile", facts_.profile},
                            {"vcpus", ordered_json::array()}};
        response = {};
        for (unsigned v = 0; v < machine_.vcpus() && response.status == 200; ++v) {
            const auto vcpu = vcpu_to_json(machine_, v, platform_.domain().profile());
            if (vcpu) {
                all["vcpus"].push_back(*vcpu);
            } else {
                response = refusal(500, vcpu.error().what);
            }
        }
        if (response.status == 200) response = answer_of(all);
    }
    if (!was_paused) let_guest_go();
    return response;
}

}  // namespace vmm::cli
