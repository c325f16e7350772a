// Runtime directories, and names of which each is one process's.
#include "control/endpoint.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <gtest/gtest.h>

namespace control {
namespace {

namespace fs = std::filesystem;
using Missing = Directory::Missing;

class ControlEndpoint : public ::testing::Test {
  protected:
    void SetUp() override {
        std::string name = fs::temp_directory_path() / "xenolith-unit-XXXXXX";
        ASSERT_NE(::mkdtemp(name.data()), nullptr);
        root_ = name;
    }
    void TearDown() override { fs::remove_all(root_); }

    fs::path path() const { return root_ / "run"; }
    Directory directory() const {
        auto opened = Directory::open(path(), Missing::kMake);
        EXPECT_TRUE(opened);
        return std::move(*opened);
    }
    std::vector<std::string> files() const {
        std::vector<std::string> names;
        for (const auto& entry : fs::directory_iterator(path()))
            names.push_back(entry.path().filename());
        std::sort(names.begin(), names.end());
        return names;
    }
    bool answers(const std::string& name) const {
        const auto socket = directory().connect(name);
        EXPECT_TRUE(socket) << socket.error().what;
        return socket && socket->has_value();
    }

    fs::path root_;
};

TEST(ControlDirectory, IsWhereTheManualSays) {
    EXPECT_EQ(directory_path("/a", "/b", 0), "/a");
    EXPECT_EQ(directory_path("/a", nullptr, 7), "/a");
    EXPECT_EQ(directory_path(nullptr, "/b", 0), "/b/xenolith");
    EXPECT_EQ(directory_path("", "/b", 7), "/b/xenolith");
    EXPECT_EQ(directory_path(nullptr, nullptr, 0), "/run/xenolith");
    EXPECT_EQ(directory_path("", "", 7), "/tmp/xenolith-7");
}

TEST_F(ControlEndpoint, ADirectoryIsMadeForItsOwnerAlone) {
    const mode_t before = ::umask(0);
    const auto made = Directory::open(path(), Missing::kMake);
    ::umask(before);
    ASSERT_TRUE(made);
    struct stat about {};
    ASSERT_EQ(::stat(path().c_str(), &about), 0);
    EXPECT_EQ(about.st_mode & 07777, 0700u);
    EXPECT_TRUE(Directory::open(path(), Missing::kMake));
    EXPECT_TRUE(Directory::open(path(), Missing::kRefuse));
}

TEST_F(ControlEndpoint, AnUnfitDirectoryIsRefused) {
    const auto refused = [&](const fs::path& at) {
        const auto opened = Directory::open(at, Missing::kMake);
        EXPECT_FALSE(opened) << at;
        if (opened) return;
        EXPECT_EQ(opened.error().fault, vmm::Fault::kUser);
        EXPECT_NE(opened.error().what.find(at.string()), std::string::npos);
    };
    EXPECT_FALSE(Directory::open(path(), Missing::kRefuse));
    EXPECT_FALSE(fs::exists(path()));
    refused(root_ / "no" / "parent");
    for (const auto mode : {0750, 0701, 0777}) {
        const fs::path open = root_ / std::to_string(mode);
        ASSERT_EQ(::mkdir(open.c_str(), 0700), 0);
        ASSERT_EQ(::chmod(open.c_str(), static_cast<mode_t>(mode)), 0);
        refused(open);
    }
    ASSERT_EQ(::mkdir((root_ / "good").c_str(), 0700), 0);
    fs::create_symlink(root_ / "good", root_ / "link");
    refused(root_ / "link");
    std::ofstream(root_ / "file") << "x";
    refused(root_ / "file");
    if (::geteuid() == 0) {
        ASSERT_EQ(::chown((root_ / "good").c_str(), 1, 1), 0);
        refused(root_ / "good");
    }
}

TEST_F(ControlEndpoint, ANameIsTakenOnceAndLeavesNothing) {
    {
        auto first = Endpoint::claim(directory(), "web 1");
        ASSERT_TRUE(first);
        EXPECT_EQ(first->name(), "web 1");
        EXPECT_EQ(directory().names(), std::vector<std::string>{"web 1"});
        EXPECT_TRUE(answers("web 1"));
        const auto second = Endpoint::claim(directory(), "web 1");
        ASSERT_FALSE(second);
        EXPECT_EQ(second.error().fault, vmm::Fault::kUser);
        EXPECT_NE(second.error().what.find("web 1"), std::string::npos);
        EXPECT_TRUE(answers("web 1"));  // it was not disturbed
        EXPECT_TRUE(Endpoint::claim(directory(), "web 2"));
        EXPECT_FALSE(answers("web 2"));
    }
    EXPECT_TRUE(files().empty());
    EXPECT_FALSE(answers("web 1"));
    EXPECT_TRUE(Endpoint::claim(directory(), "web 1"));
}

TEST_F(ControlEndpoint, WhatTheDeadLeftBehindIsReplaced) {
    directory();
    // As after a SIGKILL: a socket that nobody listens at, a lock that nobody holds.
    std::ofstream(path() / "web.lock") << "";
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string socket_path = path() / "web.sock";
    ASSERT_LT(socket_path.size(), sizeof address.sun_path);
    std::copy(socket_path.begin(), socket_path.end(), address.sun_path);
    {
        const vmm::Fd dead(::socket(AF_UNIX, SOCK_STREAM, 0));
        ASSERT_EQ(::bind(dead.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
        ASSERT_EQ(::listen(dead.get(), 1), 0);
    }
    EXPECT_EQ(directory().names(), std::vector<std::string>{"web"});
    EXPECT_FALSE(answers("web"));
    const auto claimed = Endpoint::claim(directory(), "web");
    ASSERT_TRUE(claimed) << claimed.error().what;
    EXPECT_TRUE(answers("web"));
}

TEST_F(ControlEndpoint, OfManyAtOnceOneWins) {
    directory();
    for (int round = 0; round < 20; ++round) {
        std::promise<void> go;
        const std::shared_future<void> started = go.get_future();
        std::vector<std::future<vmm::Result<Endpoint>>> claims;
        for (int i = 0; i < 8; ++i) {
            claims.push_back(std::async(std::launch::async, [&] {
                started.wait();
                return Endpoint::claim(directory(), "web");
            }));
        }
        go.set_value();
        std::vector<vmm::Result<Endpoint>> results;
        for (auto& claim : claims)
            results.push_back(claim.get());
        const auto won = std::count_if(results.begin(), results.end(),
                                       [](const auto& result) { return result.has_value(); });
        EXPECT_EQ(won, 1);
        EXPECT_TRUE(answers("web"));
    }
    EXPECT_TRUE(files().empty());
}

// Owners that come and go: a lock file that its last owner has just removed is no lock.
TEST_F(ControlEndpoint, NeverTwoOwnersWhileTheyComeAndGo) {
    directory();
    std::atomic<int> owners{0}, most{0}, times{0};
    std::vector<std::future<void>> all;
    for (int i = 0; i < 6; ++i) {
        all.push_back(std::async(std::launch::async, [&] {
            for (int round = 0; round < 300; ++round) {
                const auto claimed = Endpoint::claim(directory(), "web");
                if (!claimed) continue;
                const int now = ++owners;
                if (now > most) most = now;
                ++times;
                for (int turn = 0; turn < 20 && owners == 1; ++turn)
                    std::this_thread::yield();
                if (owners > most) most = owners.load();
                --owners;
            }
        }));
    }
    for (auto& one : all)
        one.get();
    EXPECT_EQ(most, 1);
    EXPECT_GT(times, 0);
    EXPECT_TRUE(files().empty());
}

TEST_F(ControlEndpoint, LongDirectoriesWorkAndLongNamesAreRefused) {
    fs::path deep = root_;
    for (int i = 0; i < 4; ++i) {
        deep /= std::string(40, 'd');
        ASSERT_EQ(::mkdir(deep.c_str(), 0700), 0);
    }
    auto opened = Directory::open(deep, Missing::kMake);
    ASSERT_TRUE(opened);
    const std::string name(75, 'n');
    const auto claimed = Endpoint::claim(std::move(*opened), name);
    ASSERT_TRUE(claimed) << claimed.error().what;
    auto again = Directory::open(deep, Missing::kRefuse);
    ASSERT_TRUE(again);
    const auto socket = again->connect(name);
    EXPECT_TRUE(socket && socket->has_value());
    const auto refused = Endpoint::claim(directory(), std::string(200, 'n'));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().fault, vmm::Fault::kUser);
    EXPECT_FALSE(answers(std::string(200, 'n')));
}

TEST_F(ControlEndpoint, OtherFilesAreNoNames) {
    directory();
    for (const char* file : {".sock", "a.lock", "b.socket", "sock"})
        std::ofstream(path() / file) << "";
    EXPECT_TRUE(directory().names().empty());
}

}  // namespace
}  // namespace control
