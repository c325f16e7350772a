#include "xenshim/domain/xenstore/nodes.h"

#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "xenshim/domain/xenstore/host.h"

namespace xenshim::xenstore {
namespace {

DomainInfo measured() {
    DomainInfo info;
    info.domid = 5;
    info.name = "NAME";
    info.uuid = "8d391be5-0f57-4060-b236-3a32e99bfd16";
    info.memory_max_kib = info.memory_target_kib = 524288;
    info.vcpus = info.vcpus_online = 2;
    info.store_port = 1;
    info.store_gfn = 0xfeffc;
    info.console_port = 2;
    info.console_gfn = 0xfefff;
    info.console_tty = "/dev/pts/0";
    info.start_time = "1795367953.37";
    return info;
}

struct Row {
    const char* value;
    const char* permissions;
};

// What `xenstore-ls -p` said of a PVH guest on Xen 4.17.7 (reference/xen-417-golden.md, L).
const std::map<std::string, Row> kGolden = {
    {"vm", {"/vm/8d391be5-0f57-4060-b236-3a32e99bfd16", "n0,r5"}},
    {"name", {"NAME", "n0,r5"}},
    {"cpu", {"", "n0,r5"}},
    {"cpu/0", {"", "n0,r5"}},
    {"cpu/0/availability", {"online", "n0,r5"}},
    {"cpu/1", {"", "n0,r5"}},
    {"cpu/1/availability", {"online", "n0,r5"}},
    {"memory", {"", "n0,r5"}},
    {"memory/static-max", {"524288", "n0,r5"}},
    {"memory/target", {"524288", "n0,r5"}},
    {"memory/videoram", {"0", "n0,r5"}},
    {"device", {"", "n0,r5"}},
    {"device/suspend", {"", "n0,r5"}},
    {"device/suspend/event-channel", {"", "n5"}},
    {"control", {"", "n0,r5"}},
    {"control/shutdown", {"", "n5"}},
    {"control/feature-poweroff", {"", "n5"}},
    {"control/feature-reboot", {"", "n5"}},
    {"control/feature-suspend", {"", "n5"}},
    {"control/sysrq", {"", "n5"}},
    {"control/platform-feature-multiprocessor-suspend", {"1", "n0,r5"}},
    {"control/platform-feature-xs_reset_watches", {"1", "n0,r5"}},
    {"data", {"", "n5"}},
    {"drivers", {"", "n5"}},
    {"feature", {"", "n5"}},
    {"attr", {"", "n5"}},
    {"error", {"", "n5"}},
    {"domid", {"5", "n0,r5"}},
    {"store", {"", "n0,r5"}},
    {"store/port", {"1", "n0,r5"}},
    {"store/ring-ref", {"1044476", "n0,r5"}},
    {"console", {"", "n0,r5"}},
    {"console/backend", {"/local/domain/0/backend/console/5/0", "n0,r5"}},
    {"console/backend-id", {"0", "n5,r0"}},
    {"console/limit", {"1048576", "n0,r5"}},
    {"console/type", {"xenconsoled", "n0,r5"}},
    {"console/output", {"pty", "n0,r5"}},
    {"console/tty", {"/dev/pts/0", "n0,r5"}},
    {"console/port", {"2", "n0,r5"}},
    {"console/ring-ref", {"1044479", "n0,r5"}},
};

std::string permissions_of(Session& host, const std::string& path) {
    std::string text;
    for (const auto each : host.permissions(kNoTransaction, path).value_or({})) {
        text += (text.empty() ? "" : ",") + format_permission(each);
    }
    return text;
}

TEST(Nodes, AreThoseThatXenMakes) {
    Store store;
    ASSERT_TRUE(populate_domain(store, measured()));
    Session host(store, kPrivilegedDomain);
    Session guest(store, 5);

    const std::string home = "/local/domain/5";
    EXPECT_EQ(permissions_of(host, home), "n0,r5");
    std::vector<std::string> left = {home};
    std::size_t seen = 0;
    while (!left.empty()) {
        const auto path = left.back();
        left.pop_back();
        const auto listing = *host.directory(kNoTransaction, path);
        for (const auto& child : listing.children) {
            left.push_back(path + "/" + child);
        }
        if (path == home) continue;
        const auto name = path.substr(home.size() + 1);
        const auto row = kGolden.find(name);
        ASSERT_NE(row, kGolden.end()) << name;
        EXPECT_EQ(*host.read(kNoTransaction, path), row->second.value) << name;
        EXPECT_EQ(permissions_of(host, path), row->second.permissions) << name;
        EXPECT_TRUE(guest.read(kNoTransaction, name)) << name;
        ++seen;
    }
    EXPECT_EQ(seen, kGolden.size());

    const std::string vm = "/vm/8d391be5-0f57-4060-b236-3a32e99bfd16";
    EXPECT_EQ(*guest.read(kNoTransaction, vm + "/name"), "NAME");
    EXPECT_EQ(*guest.read(kNoTransaction, vm + "/uuid"), "8d391be5-0f57-4060-b236-3a32e99bfd16");
    EXPECT_EQ(*guest.read(kNoTransaction, vm + "/start_time"), "1795367953.37");
    EXPECT_EQ(permissions_of(host, vm), "n0,r5");
    EXPECT_TRUE(store.accounting_holds());
}

TEST(Nodes, TheGuestMayWriteWhatIsItsOwnAndNothingElse) {
    Store store;
    ASSERT_TRUE(populate_domain(store, measured()));
    Session guest(store, 5);
    for (const char* path : {"data/x", "attr/os/name", "control/shutdown", "feature/y"}) {
        EXPECT_TRUE(guest.write(kNoTransaction, path, "1")) << path;
    }
    for (const char* path : {"name", "x", "memory/target", "device/vif", "control/new"}) {
        const auto refused = guest.write(kNoTransaction, path, "1");
        ASSERT_FALSE(refused) << path;
        EXPECT_EQ(refused.error(), StoreError::kEacces) << path;
    }
    EXPECT_TRUE(guest.read(kNoTransaction, "/local/domain/0/backend/console/5/0/protocol"));
}

TEST(Nodes, ADomainIsMadeOnce) {
    Store store;
    HostClient host(store);
    int introduced = -1;  // the registration fires too
    ASSERT_TRUE(host.watch("@introduceDomain", [&](const std::string&) {
        ++introduced;
        if (introduced == 1) {
            EXPECT_TRUE(host.read("/local/domain/5/console/port"));
        }
    }));
    ASSERT_TRUE(populate_domain(store, measured()));
    EXPECT_EQ(introduced, 1);
    EXPECT_TRUE(store.is_introduced(5));
    const auto again = populate_domain(store, measured());
    ASSERT_FALSE(again);
    EXPECT_EQ(again.error(), StoreError::kEexist);
}

TEST(Nodes, ADomainIsRenamedWhereverItsNameStands) {
    Store store;
    ASSERT_TRUE(populate_domain(store, measured()));
    Session host(store, kPrivilegedDomain);
    const std::string uuid = "8d391be5-0f57-4060-b236-3a32e99bfd16";
    const std::string paths[] = {"/local/domain/5/name", "/vm/" + uuid + "/name"};
    const std::string permissions = permissions_of(host, paths[0]);
    std::vector<std::string> heard;
    Session guest(store, 5, [&](const WatchEvent& event) { heard.push_back(event.path); });
    ASSERT_TRUE(guest.watch("name", "token"));
    heard.clear();
    ASSERT_TRUE(rename_domain(store, 5, uuid, "another"));
    for (const std::string& path : paths) {
        EXPECT_EQ(*host.read(kNoTransaction, path), "another") << path;
        EXPECT_EQ(permissions_of(host, path), permissions) << path;
    }
    EXPECT_EQ(heard, std::vector<std::string>{"name"});
    EXPECT_TRUE(store.accounting_holds());
    // One that is not there is not made.
    ASSERT_TRUE(host.remove(kNoTransaction, paths[1]));
    ASSERT_TRUE(rename_domain(store, 5, uuid, "third"));
    EXPECT_EQ(*host.read(kNoTransaction, paths[0]), "third");
    EXPECT_FALSE(host.read(kNoTransaction, paths[1]));
}

TEST(Nodes, HotpluggableVcpusAreOffline) {
    Store store;
    auto info = measured();
    info.vcpus = 3;
    info.vcpus_online = 1;
    info.console_tty.clear();
    ASSERT_TRUE(populate_domain(store, info));
    HostClient host(store);
    EXPECT_EQ(*host.read("/local/domain/5/cpu/0/availability"), "online");
    EXPECT_EQ(*host.read("/local/domain/5/cpu/2/availability"), "offline");
    EXPECT_FALSE(host.read("/local/domain/5/console/tty"));
}

}  // namespace
}  // namespace xenshim::xenstore
