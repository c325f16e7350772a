// What the requests on a control socket do to a VM. Only the control thread, the one that runs the
// VM, calls this.
#pragma once

#include <optional>
#include <string>

#include "vmm/cli/control_point.h"
#include "vmm/machine/machine.h"
#include "xenshim/transport/xen_platform.h"

namespace vmm::cli {

// What does not change while a VM lives.
struct VmFacts {
    std::string name;
    std::string uuid;
    unsigned domid = 0;
    std::string type;
    std::string profile;
    std::string transport;
    unsigned vcpus = 0;
    std::uint64_t memory_bytes = 0;
};

class Steering {
  public:
    Steering(Machine& machine, xenshim::XenPlatform& platform, VmFacts facts);

    // Answers every call that waits.
    void serve(ControlPoint& point);
    // A client wants the VM to end; the machine has been told to stop.
    bool destroyed() const { return destroyed_; }

  private:
    using Action = control::Response (Steering::*)();
    struct Route {
        std::string_view method;
        std::string_view target;
        Action act;
    };
    static const Route kRoutes[];

    control::Response respond(const control::Request& request);
    control::Response show();
    control::Response pause();
    control::Response unpause();
    control::Response destroy();
    control::Response registers();
    void stop_guest();
    void let_guest_go();

    Machine& machine_;
    xenshim::XenPlatform& platform_;
    const VmFacts facts_;
    const std::string started_;
    std::optional<std::uint64_t> stopped_at_ns_;  // of the guest's system time
    bool destroyed_ = false;
};

}  // namespace vmm::cli
