// The guest's xenstore as a backend: what is saved of it goes on by itself when it is restored.
#include "devices/pv/xenstore_service.h"

#include <array>
#include <cstring>
#include <string>

#include <gtest/gtest.h>

#include "xenshim/domain/xenstore/host.h"

namespace devices::pv {
namespace {

using namespace std::string_literals;
namespace store = xenshim::xenstore;

constexpr store::DomainId kGuest = 3;

// struct xenstore_domain_interface.
struct alignas(4096) Page {
    std::array<char, 1024> req;
    std::array<char, 1024> rsp;
    std::uint32_t req_cons, req_prod, rsp_cons, rsp_prod;
    std::array<char, 2032> rest;
};

struct Service {
    Service() {
        store::Ring::initialise_page(bytes());
        store::DomainInfo info;
        info.domid = kGuest;
        info.uuid = "52535455-5657-5859-5a5b-5c5d5e5f6061";
        EXPECT_TRUE(store::populate_domain(service.store(), info));
    }
    std::byte* bytes() { return reinterpret_cast<std::byte*>(&page); }
    void produce(const std::string& text) {
        for (const char c : text)
            page.req[page.req_prod++ % page.req.size()] = c;
    }
    std::string consume() {
        std::string text;
        while (page.rsp_cons != page.rsp_prod)
            text += page.rsp[page.rsp_cons++ % page.rsp.size()];
        return text;
    }
    // As the event loop does.
    void run() {
        while (again != 0) {
            again = 0;
            service.service();
        }
    }

    Page page{};
    unsigned notified = 0, again = 0;
    XenstoreService service{kGuest, bytes(), [this] { ++notified; }, [this] { ++again; }};
};

std::string read_domid() {
    const std::array<std::uint32_t, 4> header = {2, 77, 0, 6};
    std::string bytes(16, '\0');
    std::memcpy(bytes.data(), header.data(), 16);
    return bytes + "domid\0"s;
}

// Wherever the save cuts it: not yet read from the ring, read in part, or read and answered.
TEST(XenstoreServiceSaved, EachRequestIsAnsweredOnce) {
    const std::string request = read_domid();
    for (std::size_t cut = 0; cut <= request.size(); ++cut) {
        Service here;
        here.produce(request.substr(0, cut));
        here.service.service();
        here.produce(request.substr(cut));
        Service there;
        there.page = here.page;
        ASSERT_TRUE(there.service.adopt(here.service.snapshot()));
        EXPECT_EQ(there.again, 1u);
        there.run();
        const std::string answer = there.consume();
        ASSERT_EQ(answer.size(), 17u) << "cut at " << cut;
        EXPECT_EQ(answer[16], '3');
        EXPECT_EQ(there.notified, cut == request.size() ? 0u : 1u);
        there.run();
        EXPECT_EQ(there.consume(), "");
    }
}

TEST(XenstoreServiceSaved, ARefusedStateChangesNothing) {
    Service here, there;
    auto state = here.service.snapshot();
    state.sent = 1;
    EXPECT_FALSE(there.service.adopt(state));
    EXPECT_EQ(there.again, 0u);
    EXPECT_TRUE(there.service.snapshot() == here.service.snapshot());
}

std::string watch(const std::string& path) {
    const std::string payload = path + "\0token\0"s;
    const std::array<std::uint32_t, 4> header = {4, 78, 0,
                                                 static_cast<std::uint32_t>(payload.size())};
    std::string bytes(16, '\0');
    std::memcpy(bytes.data(), header.data(), 16);
    return bytes + payload;
}

// A guest that woke up in a new domain finds an empty ring, can make its watches again, and is told
// of nothing that the old ones saw. Also one that had broken its ring.
TEST(XenstoreService, BeginsAnew) {
    for (const bool broken : {false, true}) {
        Service here;
        here.produce(watch("data"));
        here.service.service();
        const std::string answer = here.consume();
        EXPECT_NE(answer.find("OK"), std::string::npos);
        store::HostClient host(here.service.store());
        ASSERT_TRUE(host.write(store::domain_path(kGuest) + "/data", "kept"));
        here.produce(read_domid().substr(0, 20));
        if (broken) here.page.rsp_prod = here.page.rsp_cons + 2000;
        here.service.service();
        here.service.begin_anew();
        EXPECT_EQ(here.page.req_prod, 0u);
        EXPECT_EQ(here.page.req_cons, 0u);
        EXPECT_EQ(here.page.rsp_prod, 0u);
        EXPECT_EQ(here.page.rsp_cons, 0u);
        EXPECT_EQ(here.service.store().watch_count(kGuest), 0u);
        ASSERT_TRUE(host.write(store::domain_path(kGuest) + "/data", "seen by nobody"));
        here.service.service();
        EXPECT_EQ(here.consume(), "");
        here.produce(watch("data"));
        here.service.service();
        EXPECT_EQ(here.consume(), answer);  // not EEXIST, and the first event
        EXPECT_EQ(*host.read(store::domain_path(kGuest) + "/data"), "seen by nobody");
    }
}

}  // namespace
}  // namespace devices::pv
