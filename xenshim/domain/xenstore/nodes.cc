#include "xenshim/domain/xenstore/nodes.h"

#include <utility>
#include <vector>

#include "xenshim/domain/xenstore/host.h"

namespace xenshim::xenstore {

using vmm::Failure;

namespace {

struct NewNode {
    std::string path;
    std::string value;
    Permissions permissions;
};

// Collects the nodes of one domain.
class Nodes {
  public:
    explicit Nodes(DomainId guest) : guest_(guest) {}

    // "n0,rN": the guest reads it.
    void readable(const std::string& path, const std::string& value = "") {
        add(path, value, {{kPrivilegedDomain, Access::kNone}, {guest_, Access::kRead}});
    }
    void readable(const std::string& path, std::uint64_t value) {
        readable(path, std::to_string(value));
    }
    // "nN": the guest does with it what it likes.
    void own(const std::string& path) { add(path, "", {{guest_, Access::kNone}}); }
    void add(const std::string& path, const std::string& value, Permissions permissions) {
        nodes_.push_back({path, value, std::move(permissions)});
    }
    const std::vector<NewNode>& all() const { return nodes_; }

  private:
    DomainId guest_;
    std::vector<NewNode> nodes_;
};

void add_vm(Nodes& nodes, const DomainInfo& info, const std::string& vm) {
    nodes.readable(vm);
    nodes.readable(vm + "/name", info.name);
    nodes.readable(vm + "/uuid", info.uuid);
    nodes.readable(vm + "/start_time", info.start_time);
}

void add_machine(Nodes& nodes, const DomainInfo& info, const std::string& home) {
    nodes.readable(home + "/cpu");
    for (std::uint32_t vcpu = 0; vcpu < info.vcpus; ++vcpu) {
        const std::string cpu = home + "/cpu/" + std::to_string(vcpu);
        nodes.readable(cpu);
        nodes.readable(cpu + "/availability", vcpu < info.vcpus_online ? "online" : "offline");
    }
    nodes.readable(home + "/memory");
    nodes.readable(home + "/memory/static-max", info.memory_max_kib);
    nodes.readable(home + "/memory/target", info.memory_target_kib);
    nodes.readable(home + "/memory/videoram", info.video_ram_kib);
}

void add_control(Nodes& nodes, const std::string& home) {
    nodes.readable(home + "/device");
    nodes.readable(home + "/device/suspend");
    nodes.own(home + "/device/suspend/event-channel");
    nodes.readable(home + "/control");
    for (const char* name :
         {"shutdown", "feature-poweroff", "feature-reboot", "feature-suspend", "sysrq"}) {
        nodes.own(home + "/control/" + name);
    }
    nodes.readable(home + "/control/platform-feature-multiprocessor-suspend", "1");
    nodes.readable(home + "/control/platform-feature-xs_reset_watches", "1");
    for (const char* name : {"data", "drivers", "feature", "attr", "error"}) {
        nodes.own(home + "/" + name);
    }
}

// The first console has no xenbus handshake, but libxl gives it both ends all the same.
void add_console(Nodes& nodes, const DomainInfo& info, const std::string& home) {
    const std::string front = home + "/console";
    const std::string back =
        domain_path(kPrivilegedDomain) + "/backend/console/" + std::to_string(info.domid) + "/0";
    nodes.readable(front);
    nodes.readable(front + "/backend", back);
    nodes.add(front + "/backend-id", "0",
              {{info.domid, Access::kNone}, {kPrivilegedDomain, Access::kRead}});
    nodes.readable(front + "/limit", "1048576");
    nodes.readable(front + "/type", "xenconsoled");
    nodes.readable(front + "/output", "pty");
    if (!info.console_tty.empty()) nodes.readable(front + "/tty", info.console_tty);
    nodes.readable(front + "/port", info.console_port);
    nodes.readable(front + "/ring-ref", info.console_gfn);
    nodes.readable(back);
    nodes.readable(back + "/frontend", front);
    nodes.readable(back + "/frontend-id", info.domid);
    nodes.readable(back + "/online", "1");
    nodes.readable(back + "/state", "1");
    nodes.readable(back + "/protocol", "vt100");
}

}  // namespace

StoreResult<void> populate_domain(Store& store, const DomainInfo& info) {
    HostClient host(store);
    const std::string home = domain_path(info.domid);
    if (host.list(home)) return Failure{StoreError::kEexist};

    const std::string vm = "/vm/" + info.uuid;
    Nodes nodes(info.domid);
    add_vm(nodes, info, vm);
    nodes.readable(home);
    nodes.readable(home + "/vm", vm);
    nodes.readable(home + "/name", info.name);
    nodes.readable(home + "/domid", info.domid);
    add_machine(nodes, info, home);
    add_control(nodes, home);
    nodes.readable(home + "/store");
    nodes.readable(home + "/store/port", info.store_port);
    nodes.readable(home + "/store/ring-ref", info.store_gfn);
    add_console(nodes, info, home);

    // One step of the whole: watchers see a complete domain.
    const Store::Hold hold(store);
    for (const auto& node : nodes.all()) {
        TRY(host.write(node.path, node.value, node.permissions));
    }
    store.introduce_domain(info.domid);
    return {};
}

StoreResult<void> rename_domain(Store& store, DomainId domid, const std::string& uuid,
                                const std::string& name) {
    HostClient host(store);
    const Store::Hold hold(store);
    for (const std::string& path : {domain_path(domid) + "/name", "/vm/" + uuid + "/name"}) {
        if (host.read(path)) TRY(host.write(path, name));
    }
    return {};
}

}  // namespace xenshim::xenstore
